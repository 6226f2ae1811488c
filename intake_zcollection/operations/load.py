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
from ..reading.origin import change_origins, read_pieces
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
    pieces = selected.rows.pieces
    kept = {
        place: _rows_inside(selected, place, axis_range)
        for place, piece in enumerate(pieces)
        if _is_cut(piece.bounds, axis_range)
    }
    if not kept:
        return selected

    def cropped(rows: PartitionTable) -> PartitionTable:
        pieces = (replace(piece, **kept.get(place, {})) for place, piece in enumerate(rows.pieces))
        return replace(rows, pieces=tuple(pieces))

    origins = change_origins(selected.origins, lambda origin: replace(origin, rows=cropped(origin.rows)))
    return replace(selected, origins=origins)


def _is_cut(bounds: tuple[Any, Any], axis_range: AxisRange) -> bool:
    low, high = axis_range
    return (low is not None and bounds[0] < low) or (high is not None and bounds[1] > high)


def _rows_inside(selected: Selected, place: int, axis_range: AxisRange) -> dict[str, Any]:
    """Return which rows of a whole part lie in the range, and their bounds."""
    axis = selected.schema.variables[selected.schema.axis]
    origin = selected.origins[axis.name]
    piece = origin.rows.pieces[place]
    values = read_pieces(origin.location, axis, (piece,), (slice(0, piece.rows),)).astype(np.int64)
    low, high = axis_range
    start = 0 if low is None else int(np.searchsorted(values, low, "left"))
    stop = piece.rows if high is None else int(np.searchsorted(values, high, "right"))
    rows = values[start:stop]
    bounds = (int(rows[0]), int(rows[-1])) if len(rows) else (None, None)
    unique = bool(np.all(rows[1:] > rows[:-1]))
    return {"start": start, "stop": max(start, stop), "bounds": bounds, "unique": unique}
