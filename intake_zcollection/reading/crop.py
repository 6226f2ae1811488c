"""Cropping: some rows of what was selected. Of the parts that are cut the axis is read, and nothing else."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np

from registry import KeyValues

from .origin import change_origins, read_rows
from .selection import AxisRange, Selected
from .table import Integers, PartitionTable


def crop_axis(selected: Selected, axis_range: AxisRange) -> Selected:
    """Cut the rows outside the range off the parts that reach beyond it."""
    parts = selected.rows.parts
    low, high = axis_range
    cut = np.zeros(len(parts), bool)
    if low is not None:
        cut |= parts["low"] < low
    if high is not None:
        cut |= parts["high"] > high
    numbers = np.flatnonzero(cut)
    inside = []
    for values in _axis_of(selected, numbers):
        start = 0 if low is None else int(np.searchsorted(values, low, "left"))
        stop = len(values) if high is None else int(np.searchsorted(values, high, "right"))
        rows = values[start:stop] if start < stop else values[:1]
        inside.append((start, max(start, stop), *_bounds(rows)))
    return _with_parts(selected, numbers, inside)


def crop_rows(selected: Selected, rows: Mapping[KeyValues, Sequence[tuple[int, int]]]) -> Selected:
    """Keep some rows of each partition: by the first, and the one after the last, in their order."""
    numbers, starts, stops = _pieces(selected.rows, rows)

    def taken(table: PartitionTable) -> PartitionTable:
        return table.take(numbers, starts, stops)

    origins = change_origins(selected.origins, lambda origin: replace(origin, rows=taken(origin.rows)))
    selected = replace(selected, origins=origins)
    parts = selected.rows.parts
    cut = np.flatnonzero((parts["start"] > 0) | (parts["stop"] < parts["rows"]))
    bounds = [_bounds(values) for values in _axis_of(selected, cut)]
    kept = zip(parts["start"][cut].tolist(), parts["stop"][cut].tolist(), bounds, strict=True)
    return _with_parts(selected, cut, [(start, stop, *each) for start, stop, each in kept])


def _pieces(
    table: PartitionTable, rows: Mapping[KeyValues, Sequence[tuple[int, int]]]
) -> tuple[list[int], list[int], list[int]]:
    """Return the numbers of parts, and which of their rows are wanted: the first, and the one after the last.

    There may be as many ranges as parts, thousands: each is looked up among the ends of the parts.
    """
    pieces: list[tuple[int, int, int]] = []
    sizes, first = table.piece_sizes.tolist(), 0
    for values, count in zip(table.values.tolist(), table.counts.tolist(), strict=True):
        ends = list(accumulate(sizes[first : first + count], initial=0))
        for start, stop in rows.get(tuple(values), ()):
            for place in range(bisect_right(ends, start) - 1, bisect_left(ends, stop)):
                low, high = max(start, ends[place]), min(stop, ends[place + 1])
                pieces.append((first + place, low - ends[place], high - ends[place]))
        first += count
    numbers, starts, stops = zip(*pieces, strict=True) if pieces else ((), (), ())
    return list(numbers), list(starts), list(stops)


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


def _with_parts(selected: Selected, numbers: Integers, inside: Sequence[tuple[int, int, int, int, bool]]) -> Selected:
    """Replace rows and bounds of some parts, in all origins."""
    if not inside:
        return selected

    def replaced(table: PartitionTable) -> PartitionTable:
        parts = table.parts.copy()
        cut = parts[numbers]
        parts[numbers] = [(each["rows"], *new, each["held"]) for each, new in zip(cut, inside, strict=True)]
        return replace(table, parts=parts)

    origins = change_origins(selected.origins, lambda origin: replace(origin, rows=replaced(origin.rows)))
    return replace(selected, origins=origins)
