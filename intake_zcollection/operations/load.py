"""Loading: registry → origins → lazy dataset. Only an exact row crop reads, and only the axis."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from ..errors import NotFoundError
from ..handle import Handle
from ..reading.blocks import Chunks
from ..reading.dataset import build_dataset
from ..reading.origin import change_origins, read_rows
from ..reading.selection import AxisRange, Selected, Selection
from ..reading.table import PartitionTable
from ..schema.names import near


def load(handle: Handle, selection: Selection, variables: Iterable[str] | None, chunks: Chunks) -> xr.Dataset:
    """Return a lazy dataset; see :meth:`intake_zcollection.Collection.load`."""
    selected = handle.select(selection)
    names = _loaded_names(selected, variables)
    if selection.crop:
        selected = _cropped(selected, selection.chosen.axis_range)
    return build_dataset(selected, names, chunks)


def _loaded_names(selected: Selected, variables: Iterable[str] | None) -> list[str]:
    """Return the names to load: those asked for and the axis; immutable ones once they have been stored."""
    schema, snapshot = selected.schema, selected.snapshot
    if isinstance(variables, str):
        variables = [variables]
    wanted = list(schema.variables) if variables is None else list(variables)
    for name in wanted:
        if name not in schema.variables:
            raise NotFoundError(
                f"collection {snapshot.collection.name} has no variable {name} at version {snapshot.version}; "
                f"{near(name, schema.variables)}"
            )
    labels = {dim for name in wanted for dim in schema.variables[name].dims} | {schema.axis}
    return [
        name
        for name, variable in schema.variables.items()
        if (name in wanted or name in labels) and not (variable.is_immutable and snapshot.immutable is None)
    ]


def _cropped(selected: Selected, axis_range: AxisRange) -> Selected:
    """Cut the rows outside the range off the parts that reach beyond it; only their axis is read."""
    parts = selected.rows.parts
    low, high = axis_range
    cut = np.zeros(len(parts), bool)
    if low is not None:
        cut |= parts["low"] < low
    if high is not None:
        cut |= parts["high"] > high
    if not cut.any():
        return selected
    numbers = np.flatnonzero(cut)
    kept = _rows_inside(selected, numbers, axis_range)

    def cropped(rows: PartitionTable) -> PartitionTable:
        parts = rows.parts.copy()
        parts[numbers] = [(each["rows"], *inside, each["held"]) for each, inside in zip(parts[cut], kept, strict=True)]
        return replace(rows, parts=parts)

    origins = change_origins(selected.origins, lambda origin: replace(origin, rows=cropped(origin.rows)))
    return replace(selected, origins=origins)


def _rows_inside(selected: Selected, numbers: Any, axis_range: AxisRange) -> list[tuple[int, int, int, int, bool]]:
    """Return which rows of whole parts lie in the range: the first and the last, their bounds, if none is repeated."""
    axis = selected.schema.variables[selected.schema.axis]
    origin = selected.origins[axis.name]
    table = origin.rows.take(numbers)
    values = read_rows(origin.location, axis, table, (slice(0, table.rows),)).astype(np.int64)
    low, high = axis_range
    found = []
    for part in np.split(values, np.cumsum(table.piece_sizes)[:-1]):
        start = 0 if low is None else int(np.searchsorted(part, low, "left"))
        stop = len(part) if high is None else int(np.searchsorted(part, high, "right"))
        rows = part[start:stop] if start < stop else part[:1]
        found.append((start, max(start, stop), int(rows[0]), int(rows[-1]), bool(np.all(rows[1:] > rows[:-1]))))
    return found
