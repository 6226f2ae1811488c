"""What a view has of its own, as the planner of a write sees it: what it lies over, and what of it stays."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import xarray as xr

from registry import CollectionRecord, KeyValues, Overlay, OwnFragment, Written
from registry.changes import OwnUnchanged, PutOwn

from ..errors import InvalidInputError
from ..schema import Schema, SchemaVariable, Variable
from ..schema.template import new_variable


def own_need(overlay: Overlay, keys: Iterable[KeyValues]) -> OwnUnchanged:
    """Return what a write of own values of partitions depends on: that nobody else writes there."""
    return OwnUnchanged(
        {key: frozenset((each.slot, each.identity) for each in overlay.live.get(key, ())) for key in keys}
    )


def put_own(
    overlay: Overlay,
    written: Sequence[Written],
    ended: Iterable[KeyValues],
    bounds: Mapping[KeyValues, tuple[int, int]],
) -> PutOwn:
    """Return the update that makes new own values live, and those that stay where they lie over the base by now."""
    new: dict[KeyValues, list[Written]] = {}
    for each in written:
        new.setdefault(each.key, []).append(each)
    keys = tuple(dict.fromkeys((*ended, *new)))
    stay = [piece for key in keys for piece in _stays(overlay, key, new.get(key, ()))]
    return PutOwn(keys, (*written, *stay), bounds)


def _stays(overlay: Overlay, key: KeyValues, new: Sequence[Written]) -> Iterable[Written]:
    """Yield what is left of the own values of a partition under new ones: in each row the variables that these do not
    have. Or an older value would be seen again where the newer one ends, though it is not what would be computed.
    """
    for each in overlay.placed.get(key, ()):
        variables, (start, stop) = overlay.layers[each.layer_id], each.at
        layers = [(range(*_at(one)), one.layer) for one in new if isinstance(one.layer, frozenset)]
        over = [(rows, layer) for rows, layer in layers if layer & variables]
        inside = (edge for rows, _ in over for edge in (rows.start, rows.stop) if start < edge < stop)
        for first, last in pairwise(sorted({start, stop, *inside})):
            if left := variables.difference(*(layer for rows, layer in over if first in rows)):
                yield _as_written(each.moved((first - start, last - start), first, each.base_version), left)


def _at(written: Written) -> tuple[int, int]:
    assert written.base_row is not None  # it is a view's
    return written.base_row, written.base_row + written.rows


def _as_written(own: OwnFragment, layer: frozenset[int]) -> Written:
    return Written(
        key=own.key,
        layer=layer,
        uid=own.uid,
        rows=own.rows,
        nbytes=own.nbytes,
        schema_version=own.schema_version,
        axis_min=own.base_row,
        start=own.start,
        group_rows=own.group_rows,
        written_version=own.written_version,
        base_version=own.base_version,
        base_row=own.base_row,
    )


def new_variable_of(collection: CollectionRecord, schema: Schema, variable: Variable | xr.DataArray) -> SchemaVariable:
    """Return a variable for a schema; of a view, in chunks like those of a base variable of the same dimensions.

    Raises
    ------
    InvalidInputError
        It cannot be stored; or its values could not be told from missing ones, which rows of a view's base may have.
    """
    if collection.kind != "view":
        return new_variable(schema, variable)
    dims = (variable.dims,) if isinstance(variable.dims, str) else tuple(variable.dims)
    if not {"chunks", "shards"} & variable.encoding.keys():
        like = (each for each in schema.variables.values() if each.dims == dims)
        chunks = next((_chunks(each) for each in like), None)
        variable = _with_encoding(variable, {"chunks": chunks} if chunks else {})
    made = new_variable(schema, variable)
    fills = getattr(variable, "fill_value", None)
    if made.dtype.kind in "iubUSO" and fills is None:
        raise InvalidInputError(
            f"variable {made.name} of view {collection.name} is of {made.dtype}, which has no value for what is "
            "missing, and rows that come to the base have none at first: give a Variable with a fill_value"
        )
    return made


def _chunks(variable: SchemaVariable) -> tuple[int, ...]:
    if "chunks" in variable.array:
        return tuple(variable.array["chunks"])
    return tuple(variable.array["chunk_grid"]["configuration"]["chunk_shape"])


def _with_encoding(variable: Variable | xr.DataArray, more: Mapping[str, Any]) -> Variable | xr.DataArray:
    encoding = {**variable.encoding, **more}
    if isinstance(variable, xr.DataArray):
        changed = variable.copy(deep=False)
        changed.encoding = encoding
        return changed
    return Variable(
        variable.name, variable.dtype, variable.dims, variable.attrs, encoding, variable.fill_value, variable.lossy
    )
