"""What a commit did to each partition, in rows of what was there before: integers that compose over versions.

Every existing row inside a run's range counts as gone and come, survivors too: nothing is missed, and a little is
called replaced that is equal.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from ..keys import KeyValues
from ..records import IMMUTABLE_LAYER, ROWS_LAYER, FragmentRecord, Hunk, Kept, Run, Slot, Written
from .values import PutFragments

Parts = Mapping[KeyValues, list[FragmentRecord]]
"""The rows fragments of partitions as they were before, in the order of the axis."""


def hunks_of_runs(parts: Parts, update: PutFragments) -> Iterator[Hunk]:
    """Yield a hunk per run, but for those where nothing was and nothing came."""
    kept = {(cut.key, cut.axis_min): cut.kept for cut in update.cuts}
    written: dict[KeyValues, list[Written]] = {}
    for each in sorted((each for each in update.written if each.layer == ROWS_LAYER), key=lambda each: each.axis_min):
        written.setdefault(each.key, []).append(each)
    counted: dict[KeyValues, _Counted] = {}
    for run in update.runs:
        if run.key not in counted:
            counted[run.key] = _Counted(parts.get(run.key, ()), written.get(run.key, ()))
        hunk = counted[run.key].hunk_of(run, kept)
        if hunk.removed or hunk.added:
            yield hunk


class _Counted:
    """The rows of a partition, as it was and as they came, summed up."""

    def __init__(self, before: Sequence[FragmentRecord], written: Sequence[Written]) -> None:
        self.before, self.written = before, written
        self.ends = [_last(part) for part in before]
        self.rows = list(accumulate((part.rows for part in before), initial=0))
        self.starts = [each.axis_min for each in written]
        self.added = list(accumulate((each.rows for each in written), initial=0))

    def hunk_of(self, run: Run, kept: Mapping[tuple[KeyValues, int], tuple[Kept, ...]]) -> Hunk:
        if run.axis_range is None:
            lows = [*(part.axis_min for part in self.before[:1]), *self.starts[:1]]
            highs = [*self.ends[-1:], *(_last(each) for each in self.written[-1:])]
            bounds = min(lows, default=None), max(highs, default=None)
            return Hunk(run.key, ROWS_LAYER, 0, self.rows[-1], self.added[-1], *bounds)
        low, high = run.axis_range
        first = bisect_left(self.ends, low)
        start = stop = self.rows[first]
        for number, part in enumerate(self.before[first:], first):
            if part.axis_min > high:
                break
            whole = (Kept(0, part.rows, part.axis_min, self.ends[number]),)
            pieces = kept.get((run.key, part.axis_min), whole)
            if before := max((piece.offset + piece.rows for piece in pieces if piece.axis_max < low), default=0):
                start = self.rows[number] + before
            stop = self.rows[number] + min((each.offset for each in pieces if each.axis_min > high), default=part.rows)
        added = self.added[bisect_right(self.starts, high)] - self.added[bisect_left(self.starts, low)]
        return Hunk(run.key, ROWS_LAYER, start, max(stop - start, 0), added, low, high)

    def part_at(self, value: int) -> int | None:
        """Return the number of the part that had an axis value between its ends."""
        number = bisect_left(self.ends, value)
        return number if number < len(self.before) and self.before[number].axis_min <= value else None

    def hunk_over(self, slot: Slot, number: int) -> Hunk:
        """Return the hunk of a layer over a part."""
        part, end = self.before[number], self.ends[number]
        return Hunk(slot.key, slot.layer_id, self.rows[number], part.rows, part.rows, part.axis_min, end)


def _last(rows: FragmentRecord | Written) -> int:
    assert rows.axis_max is not None  # only immutable variables have no axis
    return rows.axis_max


def hunks_of_layers(parts: Parts, written: Iterable[Slot]) -> Iterator[Hunk]:
    """Yield a hunk per part that was there and layer written over it: all its rows may have other values."""
    counted: dict[KeyValues, _Counted] = {}
    seen: set[tuple[KeyValues, int, int]] = set()
    for slot in written:
        if slot.layer_id == IMMUTABLE_LAYER:
            yield Hunk(slot.key, slot.layer_id, 0, 0, 0)
        if slot.layer_id <= ROWS_LAYER:
            continue
        if slot.key not in counted:
            counted[slot.key] = _Counted(parts.get(slot.key, ()), ())
        number = counted[slot.key].part_at(slot.axis_min)
        # Of a part that is cut in the same commit there may be several pieces; rows that come with it have a run.
        if number is not None and (slot.key, slot.layer_id, number) not in seen:
            seen.add((slot.key, slot.layer_id, number))
            yield counted[slot.key].hunk_over(slot, number)


def joined(hunks: Iterable[Hunk]) -> list[Hunk]:
    """Return the hunks in order, those of one partition and layer between which no row stands as one."""
    result: list[Hunk] = []
    for hunk in sorted(hunks, key=lambda each: (each.key, each.layer_id, each.row_start, each.removed)):
        last = result[-1] if result else None
        if last is None or (last.key, last.layer_id) != (hunk.key, hunk.layer_id) or _end(last) < hunk.row_start:
            result.append(hunk)
            continue
        removed = max(_end(last), _end(hunk)) - last.row_start
        axis_min = min((x for x in (last.axis_min, hunk.axis_min) if x is not None), default=None)
        axis_max = max((x for x in (last.axis_max, hunk.axis_max) if x is not None), default=None)
        added = last.added + hunk.added
        result[-1] = Hunk(hunk.key, hunk.layer_id, last.row_start, removed, added, axis_min, axis_max)
    return result


def _end(hunk: Hunk) -> int:
    return hunk.row_start + hunk.removed
