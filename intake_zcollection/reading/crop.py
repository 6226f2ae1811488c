"""Cropping: some rows of what was selected. Of the parts that are cut the axis is read, and nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
    cut, outside = np.zeros(len(parts), bool), np.zeros(len(parts), bool)
    if low is not None:
        cut, outside = cut | (parts["low"] < low), outside | (parts["high"] < low)
    if high is not None:
        cut, outside = cut | (parts["high"] > high), outside | (parts["low"] > high)
    empty = [(0, 0, int(parts["low"][number]), int(parts["low"][number]), True) for number in np.flatnonzero(outside)]
    numbers = np.flatnonzero(cut & ~outside)
    inside = []
    for values in _axis_of(selected, numbers):
        start = 0 if low is None else int(np.searchsorted(values, low, "left"))
        stop = len(values) if high is None else int(np.searchsorted(values, high, "right"))
        rows = values[start:stop] if start < stop else values[:1]
        inside.append((start, max(start, stop), *_bounds(rows)))
    return _with_parts(selected, [*np.flatnonzero(outside).tolist(), *numbers.tolist()], [*empty, *inside])


def crop_rows(selected: Selected, rows: Mapping[KeyValues, Sequence[tuple[int, int]]]) -> Selected:
    """Keep some rows of each partition: by the first, and the one after the last, in their order."""
    ranges = list(_ranges(selected.rows, rows))
    origins = change_origins(selected.origins, lambda origin: replace(origin, rows=origin.rows.of_rows(ranges)))
    selected = replace(selected, origins=origins)
    parts = selected.rows.parts
    cut = np.flatnonzero((parts["start"] > 0) | (parts["stop"] < parts["rows"]))
    bounds = [_bounds(values) for values in _axis_of(selected, cut)]
    kept = zip(parts["start"][cut].tolist(), parts["stop"][cut].tolist(), bounds, strict=True)
    return _with_parts(selected, cut.tolist(), [(start, stop, *each) for start, stop, each in kept])


def _ranges(table: PartitionTable, rows: Mapping[KeyValues, Sequence[tuple[int, int]]]) -> Iterator[tuple[int, int]]:
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
    selected: Selected, numbers: Sequence[int], inside: Sequence[tuple[int, int, int, int, bool]]
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
