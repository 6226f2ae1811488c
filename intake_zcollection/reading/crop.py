"""Cropping: some rows of what was selected. The axis of cut parts is read, and values that are asked for; no others."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

import numpy as np

from registry import KeyValues
from registry.indexes import Rows

from .bounds import AxisRange, Within
from .origin import change_origins, read_rows
from .rows import Range
from .selection import Selected
from .table import Integers, PartitionTable


def crop_axis(selected: Selected, axis_range: AxisRange) -> Selected:
    """Cut the rows outside the range off the parts that reach beyond it."""
    parts = selected.rows.parts
    low, high = axis_range
    cut, outside = np.zeros(len(parts), bool), np.zeros(len(parts), bool)
    if low is not None:
        cut, outside = cut | (parts["low"] < low), outside | (parts["high"] < low)
    if high is not None:
        cut, outside = cut | (parts["high"] > high), outside | (parts["low"] > high)
    empty = [(0, 0, int(parts["low"][number]), int(parts["low"][number]), True) for number in np.flatnonzero(outside)]
    numbers = np.flatnonzero(cut & ~outside)
    inside = []
    for values, first in zip(_axis_of(selected, numbers), parts["start"][numbers].tolist(), strict=True):
        start = 0 if low is None else int(np.searchsorted(values, low, "left"))
        stop = len(values) if high is None else int(np.searchsorted(values, high, "right"))
        rows = values[start:stop] if start < stop else values[:1]
        inside.append((first + start, first + max(start, stop), *_bounds(rows)))
    return _with_parts(selected, [*np.flatnonzero(outside).tolist(), *numbers.tolist()], [*empty, *inside])


def crop_rows(selected: Selected, rows: Mapping[KeyValues, Sequence[Range]]) -> Selected:
    """Keep some rows of each partition: by the first, and the one after the last, in their order."""
    return _with_bounds(_of_rows(selected, list(_ranges(selected.rows, rows))))


def crop_values(selected: Selected, conditions: Iterable[Within]) -> Selected:
    """Keep the rows that have values which are asked for; these are read, one variable after the other.

    Of the rows that are left by then, so many at a time that they need not be in memory together.
    """
    for each in conditions:
        selected = _of_rows(selected, list(_ranges_within(selected, each)))
    return _with_bounds(selected)


_AT_A_TIME = 2**26
"""So many bytes of a variable are in memory."""


def _ranges_within(selected: Selected, wanted: Within) -> Iterator[tuple[int, int]]:
    """Yield which rows have such values, counted through all partitions."""
    variable = wanted.variable
    origin, size = selected.origins[variable.name], max(_AT_A_TIME // max(variable.row_nbytes, 1), 1)
    for first in range(0, origin.rows.rows, size):
        table = origin.rows.slice_rows(first, min(first + size, origin.rows.rows))
        with selected.listing.asked_again():
            inside = wanted.rows(replace(origin, rows=table).read(variable))
        edges = np.flatnonzero(np.diff(inside, prepend=False, append=False)) + first
        yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _of_rows(selected: Selected, ranges: Sequence[tuple[int, int]]) -> Selected:
    """Keep ranges of rows; the bounds of parts that are cut are those of the whole parts yet."""
    origins = change_origins(selected.origins, lambda origin: replace(origin, rows=origin.rows.of_rows(ranges)))
    return replace(selected, origins=origins)


def _with_bounds(selected: Selected) -> Selected:
    """Give parts that are cut the bounds of what is left of them."""
    parts = selected.rows.parts
    cut = np.flatnonzero((parts["start"] > 0) | (parts["stop"] < parts["rows"]))
    bounds = [_bounds(values) for values in _axis_of(selected, cut)]
    kept = zip(parts["start"][cut].tolist(), parts["stop"][cut].tolist(), bounds, strict=True)
    return _with_parts(selected, cut.tolist(), [(start, stop, *each) for start, stop, each in kept])


def crop_found(
    selected: Selected, found: Iterable[Rows], rows: Mapping[KeyValues, Sequence[Range]] | None = None
) -> Selected:
    """Keep the rows that an index has: nothing is read, but the axis where a part was cut in the middle of an entry."""
    places = selected.rows.places
    there = [(places[each.key, each.part], each) for each in found if (each.key, each.part) in places]
    if rows is not None:
        there = [(number, each) for number, some in there for each in _within(selected.rows, number, some, rows)]
    ranges: list[tuple[int, int]] = []
    bounds: list[tuple[int, int] | None] = []
    for (number, start, stop), known in _joined(there):
        before = int(selected.rows.starts[number])
        ranges.append((before + start, before + stop))
        bounds.append(known)
    origins = change_origins(selected.origins, lambda origin: replace(origin, rows=origin.rows.of_rows(ranges)))
    selected = replace(selected, origins=origins)
    parts = selected.rows.parts
    unknown = [number for number, known in enumerate(bounds) if known is None]
    read = dict(zip(unknown, map(_bounds, _axis_of(selected, np.array(unknown, np.int64))), strict=True))
    inside = [
        (int(part["start"]), int(part["stop"]), *(read[number] if known is None else (*known, _still(part["unique"]))))
        for number, (part, known) in enumerate(zip(parts, bounds, strict=True))
    ]
    return _with_parts(selected, range(len(parts)), inside)


def _within(
    table: PartitionTable, number: int, found: Rows, rows: Mapping[KeyValues, Sequence[Range]]
) -> Iterator[Rows]:
    """Yield those of the rows of a part that are in ranges, counted in whole partitions, too."""
    before = table.rows_before(number)
    ranges = rows.get(found.key[: len(table.names)], ())
    for start, stop in ranges[bisect_right(ranges, found.start + before, key=itemgetter(1)) :]:
        if start >= found.stop + before:
            break
        part = max(found.start, start - before), min(found.stop, stop - before)
        yield found if part == (found.start, found.stop) else found._replace(start=part[0], stop=part[1], bounds=None)


def _still(unique: Any) -> int:
    """Return whether no axis value is repeated in some rows of a part: not, if none is in the part."""
    return 1 if unique > 0 else -1


def _joined(found: Iterable[tuple[int, Rows]]) -> Iterator[tuple[tuple[int, int, int], tuple[int, int] | None]]:
    """Yield rows of parts by their numbers, in order, those that meet as one; and their bounds, if they are known."""
    last: tuple[int, int, int] | None = None
    bounds: tuple[int, int] | None = None
    for number, rows in sorted(found, key=lambda each: (each[0], each[1].start, each[1].stop)):
        if last is not None and last[0] == number and rows.start <= last[2]:
            last = number, last[1], max(last[2], rows.stop)
            known = bounds is not None and rows.bounds is not None
            bounds = (min(bounds[0], rows.bounds[0]), max(bounds[1], rows.bounds[1])) if known else None  # type: ignore[index]  # both are known
            continue
        if last is not None:
            yield last, bounds
        last, bounds = (number, rows.start, rows.stop), rows.bounds
    if last is not None:
        yield last, bounds


def _ranges(table: PartitionTable, rows: Mapping[KeyValues, Sequence[Range]]) -> Iterator[Range]:
    """Yield which rows of a table are wanted, counted through all partitions."""
    before = 0
    for values, size in zip(table.values.tolist(), table.sizes, strict=True):
        for start, stop in rows.get(tuple(values), ()):
            yield before + start, before + stop
        before += size


def _axis_of(selected: Selected, numbers: Integers) -> list[Any]:
    """Return the axis of some parts, as far as their rows are wanted, as integers."""
    if not len(numbers):
        return []
    axis = selected.schema.variables[selected.schema.axis]
    origin = selected.origins[axis.name]
    table = origin.rows.take(numbers)
    with selected.listing.asked_again():
        values = read_rows(origin.location, axis, table, (slice(0, table.rows),)).astype(np.int64)
    return np.split(values, np.cumsum(table.piece_sizes)[:-1])


def _bounds(values: Any) -> tuple[int, int, bool]:
    """Return the first and the last value, and whether none is repeated."""
    return int(values[0]), int(values[-1]), bool(np.all(values[1:] > values[:-1]))


def _with_parts(
    selected: Selected, numbers: Sequence[int], inside: Sequence[tuple[int, int, int, int, int]]
) -> Selected:
    """Replace rows and bounds of some parts; where rows are divided in another way, the same rows are kept."""
    if not inside:
        return selected
    table = selected.rows
    parts = table.parts.copy()
    cut = parts[numbers]
    parts[numbers] = [(each["rows"], *new, each["held"]) for each, new in zip(cut, inside, strict=True)]
    kept = replace(table, parts=parts)

    def changed(rows: PartitionTable) -> PartitionTable:
        return kept if rows is table else rows.of_rows(table.ranges_of(kept))

    origins = change_origins(selected.origins, lambda origin: replace(origin, rows=changed(origin.rows)))
    return replace(selected, origins=origins)
