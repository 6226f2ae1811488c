"""What a write to a partition of several parts does: runs of rows, and where they cut the parts that they meet.

A partition is a list of parts whose axis ranges never touch. Inserted rows are *runs*, divided where a whole part, or
256 existing rows, lie between two of them. What a run meets is cut at its range: rows before and after stay where they
are, those inside are merged with the run, and written with it as a new part. So a write costs what it brings.

Pure functions of axis values, sorted; ``model/parts.py`` beside the design runs the same rules on plain lists.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from registry import Kept

from .strategies import Axis, Local, Mask, shifted

APART = 256
"""So many existing rows between two inserted ones divide a run: rewriting fewer is cheaper than another part."""

Order = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Bounds:
    """The parts that a partition has, in the order of the axis."""

    lows: Axis
    highs: Axis
    rows: npt.NDArray[np.int64]

    @classmethod
    def of(cls, parts: Sequence[tuple[int, int, int]]) -> "Bounds":
        """Return the first and the last axis value and the number of rows of each."""
        columns = np.array(parts, np.int64).reshape(-1, 3).T
        return cls(columns[0], columns[1], columns[2])

    def met_by(self, low: int, high: int) -> range:
        """Return which parts a range of the axis meets."""
        return range(
            int(np.searchsorted(self.highs, low, "left")), max(int(np.searchsorted(self.lows, high, "right")), 0)
        )


@dataclass(frozen=True)
class RunPlan:
    """What becomes of one run."""

    axis_range: tuple[int, int]
    """What it cuts, its ends included."""
    rows: int
    """How many rows the new part has."""
    met: tuple[int, ...]
    """The numbers of the parts that are cut."""
    read: tuple[tuple[int, int, int], ...]
    """Existing rows that are merged with it: the number of a part, and the first and the last of its rows (not
    included)."""


@dataclass(frozen=True)
class CutPlan:
    """What an insert, or dropping rows, does to one partition."""

    runs: tuple[RunPlan, ...]
    kept: Mapping[int, tuple[Kept, ...]]
    """By the number of a part that is cut, what stays of it where it is."""
    order: Order
    """Which rows make the new parts, one after the other: of those read, and then of all inserted ones."""
    inserted: int
    """How many of the inserted rows are among them."""
    given_up: int
    """How many existing rows are not."""
    left_out: tuple[int, ...]
    """The numbers of the parts that have the axis value of an inserted row, which is left out."""


def join_inserted(strategy: Local, inserted: Sequence[Axis]) -> Mask:
    """Return which rows of several datasets are left when each is inserted after those before it."""
    alive = [np.ones(len(times), bool) for times in inserted]
    lows, highs = (np.array([times[end] for times in inserted], np.int64) for end in (0, -1))
    reach = strategy.reach
    for number, times in enumerate(inserted):
        low, high = (int(shifted(each[number : number + 1], by)[0]) for each, by in ((lows, -reach), (highs, reach)))
        later = np.arange(len(inserted)) > number
        for other in np.flatnonzero(later & (highs >= low) & (lows <= high)).tolist():
            alive[number] &= strategy.survives(times, inserted[other])
            alive[other] &= ~strategy.is_left_out(inserted[other], times)
    return np.concatenate(alive)


def repeated(inserted: Sequence[Axis], existing: Axis) -> Axis:
    """Return the axis values, sorted, that a dataset brings although they are there, or in a dataset before it."""
    found = [times[np.isin(times, existing)] for times in inserted]
    numbers = np.repeat(np.arange(len(inserted)), [len(times) for times in inserted])
    values = np.concatenate(inserted)
    order = np.lexsort((numbers, values))
    again = (np.diff(values[order]) == 0) & (np.diff(numbers[order]) != 0)
    return np.unique(np.concatenate([*found, values[order][1:][again]]))


def parts_to_read(strategy: Local, inserted: Sequence[Axis], bounds: Bounds) -> list[int]:
    """Return of which parts the axis has to be known."""
    if not len(bounds.rows):
        return []
    if strategy.name == "time_series":
        lows, highs = _periods(strategy, inserted)
        ends = np.concatenate([lows, highs])
        part = np.searchsorted(bounds.highs, ends, "left")
        inside = (part < len(bounds.rows)) & (bounds.lows[np.minimum(part, len(bounds.rows) - 1)] <= ends)
        # One that lies inside of a period as a whole ends as a whole.
        whole = {
            number
            for low, high in zip(lows.tolist(), highs.tolist(), strict=True)
            for number in bounds.met_by(low, high)
            if low <= bounds.lows[number] and bounds.highs[number] <= high
        }
        return sorted({int(number) for number in part[inside]} - whole)
    times = np.sort(np.concatenate(inserted))
    low, high = shifted(bounds.lows, -strategy.reach), shifted(bounds.highs, strategy.reach)
    return np.flatnonzero(np.searchsorted(times, low, "left") < np.searchsorted(times, high, "right")).tolist()


def plan_cuts(strategy: Local, inserted: Sequence[Axis], bounds: Bounds, axes: Mapping[int, Axis]) -> CutPlan:
    """Return what an insert does to a partition.

    Parameters
    ----------
    strategy
        How inserted rows and existing ones are merged.
    inserted
        The axis of each dataset.
    bounds
        The parts that the partition has.
    axes
        The axis of the parts in :func:`parts_to_read`.
    """
    alive = join_inserted(strategy, inserted)
    all_new = np.concatenate(inserted)
    known = np.concatenate([axes[number] for number in sorted(axes)]) if axes else np.empty(0, np.int64)
    there = alive & strategy.is_left_out(all_new, known)
    left_out = tuple(number for number in sorted(axes) if np.isin(all_new[there], axes[number]).any())
    alive &= ~there
    places = np.flatnonzero(alive)
    places = places[np.argsort(all_new[places], kind="stable")]
    times = all_new[places]
    if not len(times):
        return CutPlan((), {}, np.empty(0, np.intp), 0, 0, left_out)
    if strategy.name == "time_series":
        lows, highs = _periods(strategy, inserted)
    else:
        # Those that a later dataset replaces have replaced existing ones before, within their own reach.
        reaching = np.sort(all_new) if strategy.reach else times
        lows, highs = _divided(reaching, strategy.reach, bounds, known)
    starts, stops = np.searchsorted(times, lows, "left"), np.searchsorted(times, highs, "right")
    spans = list(zip(lows.tolist(), highs.tolist(), starts.tolist(), stops.tolist(), strict=True))

    def survivors(number: int, first: int, last: int) -> Order:
        if strategy.name == "time_series" or first == last:
            return np.empty(0, np.intp)
        return np.flatnonzero(_survive(strategy, axes[number][first:last], inserted))

    return _cut(spans, bounds, axes, survivors, times, places, left_out)


def plan_drop_range(low: int, high: int, bounds: Bounds, axes: Mapping[int, Axis]) -> CutPlan:
    """Return what it does to a partition to drop the rows in a range of the axis, given the axis of those it cuts."""
    nothing = np.empty(0, np.int64)
    return _cut(
        [(low, high, 0, 0)], bounds, axes, lambda *_: np.empty(0, np.intp), nothing, nothing.astype(np.intp), ()
    )


def plan_drop_rows(gone: Mask, bounds: Bounds, axes: Mapping[int, Axis]) -> CutPlan:
    """Return what it does to a partition to drop some of its rows, given all of its axis.

    Rows fewer than 256 kept ones apart are one run; what stays inside it, ties of a dropped row too, is written again.
    """
    times = np.concatenate([axes[number] for number in range(len(bounds.rows))])
    starts = np.concatenate([[0], np.cumsum(bounds.rows)])
    places = np.flatnonzero(gone)
    divides = np.diff(places) > APART
    lows, highs = times[places[np.r_[True, divides]]], times[places[np.r_[divides, True]]]
    apart = lows[1:] > highs[:-1]  # two runs at one axis value are one
    lows, highs = lows[np.r_[True, apart]], highs[np.r_[apart, True]]
    spans = [(low, high, 0, 0) for low, high in zip(lows.tolist(), highs.tolist(), strict=True)]
    nothing = np.empty(0, np.int64)

    def stay(number: int, first: int, last: int) -> Order:
        return np.flatnonzero(~gone[starts[number] + first : starts[number] + last])

    return _cut(spans, bounds, axes, stay, nothing, nothing.astype(np.intp), ())


def _cut(
    spans: Sequence[tuple[int, int, int, int]],
    bounds: Bounds,
    axes: Mapping[int, Axis],
    survivors: Callable[[int, int, int], Order],
    times: Axis,
    places: Order,
    left_out: tuple[int, ...],
) -> CutPlan:
    """Cut the parts at some ranges of the axis; inserted rows, from one number to another, come into each.

    ``times`` and ``places`` are the axis values of inserted rows, sorted, and where they are among all of them.
    """
    runs, order, gone, given_up, offset = [], [], dict[int, list[tuple[int, int]]](), 0, 0
    for low, high, start, stop in spans:
        met = bounds.met_by(low, high)
        read, old_times, old_places = [], [], []
        for number in met:
            first, last = _rows_inside(low, high, number, bounds, axes)
            gone.setdefault(number, []).append((first, last))
            stay = survivors(number, first, last)
            given_up += last - first - len(stay)
            if len(stay):
                begin, end = first + int(stay[0]), first + int(stay[-1]) + 1
                read.append((number, begin, end))
                old_times.append(axes[number][first + stay])
                old_places.append(offset + first + stay - begin)
                offset += end - begin
        merged = np.argsort(np.concatenate([*old_times, times[start:stop]]), kind="stable")
        order.append(np.concatenate([*old_places, -1 - places[start:stop]])[merged])
        runs.append(RunPlan((low, high), len(merged), tuple(met), tuple(read)))
    joined = np.concatenate(order)
    joined = np.where(joined < 0, offset - 1 - joined, joined)  # inserted rows come after all that are read
    kept = {number: _kept(number, cuts, bounds, axes) for number, cuts in gone.items()}
    return CutPlan(tuple(runs), kept, joined, len(times), given_up, left_out)


def _survive(strategy: Local, times: Axis, inserted: Sequence[Axis]) -> Mask:
    survives = np.ones(len(times), bool)
    if strategy.name == "upsert":
        for new in inserted:
            survives &= strategy.survives(times, new)
    return survives


def _periods(strategy: Local, inserted: Sequence[Axis]) -> tuple[Axis, Axis]:
    """Return the periods of all datasets, those as one that meet."""
    pairs = [strategy.periods(times) for times in inserted]
    lows, highs = (np.concatenate([pair[end] for pair in pairs]) for end in (0, 1))
    order = np.argsort(lows, kind="stable")
    lows, highs = lows[order], np.maximum.accumulate(highs[order])
    apart = lows[1:] > highs[:-1]
    return lows[np.r_[True, apart]], highs[np.r_[apart, True]]


def _divided(times: Axis, reach: int, bounds: Bounds, known: Axis) -> tuple[Axis, Axis]:
    """Return the ranges of the runs of rows at sorted axis values."""
    lows, highs = shifted(times, -reach), shifted(times, reach)
    after, before = highs[:-1], lows[1:]  # existing rows between two inserted ones lie between these
    between = np.searchsorted(known, before, "left") - np.searchsorted(known, after, "right")
    divides = (after < before) & (between >= APART)
    if len(bounds.rows):
        part = np.searchsorted(bounds.lows, after, "right")
        inside = np.minimum(part, len(bounds.rows) - 1)
        divides |= (after < before) & (part < len(bounds.rows)) & (bounds.highs[inside] < before)
    return lows[np.r_[True, divides]], highs[np.r_[divides, True]]


def _rows_inside(low: int, high: int, number: int, bounds: Bounds, axes: Mapping[int, Axis]) -> tuple[int, int]:
    if low <= bounds.lows[number] and bounds.highs[number] <= high:
        return 0, int(bounds.rows[number])
    axis = axes[number]
    return int(np.searchsorted(axis, low, "left")), int(np.searchsorted(axis, high, "right"))


def _kept(number: int, spans: Sequence[tuple[int, int]], bounds: Bounds, axes: Mapping[int, Axis]) -> tuple[Kept, ...]:
    """Return what is kept of a part without some spans of its rows, which come in order."""
    edges = [0, *(edge for span in spans for edge in span), int(bounds.rows[number])]
    pieces = [(first, last) for first, last in zip(edges[::2], edges[1::2], strict=True) if first < last]
    return tuple(_kept_rows(axes[number], first, last) for first, last in pieces)


def _kept_rows(axis: Axis, first: int, last: int) -> Kept:
    values = axis[first:last]
    return Kept(first, last - first, int(values[0]), int(values[-1]), bool(np.all(values[1:] > values[:-1])))
