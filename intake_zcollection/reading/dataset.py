"""The xarray.Dataset: variables, coordinates, attributes and encodings around lazy arrays."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import xarray as xr
from dask.base import tokenize
from xarray.core import indexing

from registry import FragmentRecord

from ..schema import Schema, SchemaVariable
from ..storage import layout
from ..storage.location import Location
from .blocks import Chunks, plan_blocks
from .index import LazyIndex
from .labels import Segment
from .lazy import PartitionedArray, dask_array
from .table import Fragment, PartitionTable, Piece, split_table


def immutable_table(fragment: FragmentRecord | None) -> PartitionTable:
    """Return the table of the immutable variables' fragment; without pieces where there is none yet."""
    if fragment is None:
        return PartitionTable((), ())
    stored = Fragment(layout.immutable_path(fragment.uid), fragment.schema_version, fragment.written_version)
    return PartitionTable(((),), (Piece((stored,), 0, 0, 0, (None, None)),))


def build_dataset(
    location: Location,
    schema: Schema,
    names: Iterable[str],
    tables: Mapping[bool, PartitionTable],
    *,
    chunks: Chunks,
    version: int,
) -> xr.Dataset:
    """Return a lazy dataset; nothing is read.

    Parameters
    ----------
    location
        Where the fragments lie.
    schema, names
        The schema, and which of its variables.
    tables
        The partition table of the partitioned variables (under False) and of the immutable ones (True).
    chunks
        How it is cut into dask chunks, None for xarray's lazy indexing.
    version
        The version, so that two versions never share keys in dask.
    """
    variables = [schema.variables[name] for name in names]
    blocks = {} if chunks is None else plan_blocks(schema, [v.name for v in variables], tables[False], chunks)
    token = tokenize(version, tables[False].token, tables[True].token, blocks)
    along = split_table(tables[False], blocks[schema.dimension]) if blocks else []
    data: dict[str, xr.Variable] = {}
    coordinates: dict[str, xr.Variable] = {}
    for variable in variables:
        table = tables[variable.is_immutable]
        if chunks is None or variable.name == schema.axis or variable.dims == (variable.name,):
            # Coordinates that label a dimension are not dask's: groupby, interp and where(drop=True) need their values.
            array: Any = _lazily_indexed(PartitionedArray(location, variable, table))
        else:
            pieces = [table.pieces] if variable.is_immutable else along
            array = dask_array(location, variable, pieces, blocks, token)
        target = coordinates if variable.is_coordinate else data
        target[variable.name] = xr.Variable(variable.dims, array, dict(variable.attrs), _encoding(variable))
    indexes = {
        name: _index(schema, name, variable, tables[schema.variables[name].is_immutable])
        for name, variable in coordinates.items()
        if variable.dims == (name,)
    }
    for index in indexes.values():
        coordinates |= index.create_variables(coordinates)
    return xr.Dataset(data, xr.Coordinates(coordinates, indexes), dict(schema.attrs))


def _index(schema: Schema, name: str, labels: xr.Variable, table: PartitionTable) -> LazyIndex:
    # Two versions share the fragments of the axis, whatever other variables have got.
    token = f"{table.token_of(schema.variables[name])}-{name}"
    segments = _segments(table) if name == schema.axis else ()
    return LazyIndex.from_lazy(name, labels, token, segments)


def _segments(table: PartitionTable) -> tuple[Segment, ...]:
    pieces = [piece for piece in table.pieces if len(piece)]
    stops = itertools.accumulate(map(len, pieces))
    return tuple(
        Segment(stop - len(piece), stop, piece.bounds, piece.unique) for piece, stop in zip(pieces, stops, strict=True)
    )


def _lazily_indexed(array: PartitionedArray) -> Any:
    lazy: Any = indexing.LazilyIndexedArray(array)
    return indexing.MemoryCachedArray(indexing.CopyOnWriteArray(lazy))


def _encoding(variable: SchemaVariable) -> dict[str, Any]:
    """Return the CF encoding, so that the dataset can be written elsewhere, or be a template, as it is."""
    cf = {name: value for name, value in variable.cf.items() if name != "dtype"}
    return cf if variable.dtype.kind in "USO" else {**cf, "dtype": variable.stored_dtype}
