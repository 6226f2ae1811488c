"""The xarray.Dataset: variables, coordinates, attributes and encodings around lazy arrays."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import xarray as xr
from dask.base import tokenize
from xarray.core import indexing

from ..schema import Schema, SchemaVariable
from ..schema.encoding import typed_cf
from .blocks import Chunks, plan_blocks
from .index import LazyIndex
from .labels import NOTHING_KNOWN, Segments
from .lazy import LazilyIndexed, PartitionedArray, VariableReader, dask_array
from .selection import Selected
from .table import PartitionTable


def build_dataset(selected: Selected, names: Iterable[str], chunks: Chunks) -> xr.Dataset:
    """Return a lazy dataset; nothing is read.

    Parameters
    ----------
    selected
        What was chosen: the schema, and where each variable lies.
    names
        Which of its variables.
    chunks
        How it is cut into dask chunks, None for xarray's lazy indexing.
    """
    schema = selected.schema
    variables = [schema.variables[name] for name in names]
    blocks = {} if chunks is None else plan_blocks(schema, [v.name for v in variables], selected.rows, chunks)
    tables = _tables_of_blocks(selected, blocks.get(schema.dimension, ()))
    data: dict[str, xr.Variable] = {}
    coordinates: dict[str, xr.Variable] = {}
    for variable in variables:
        origin = selected.origins[variable.name]
        table = origin.table_of(variable)
        reader = VariableReader(origin.location, variable, selected.listing)
        if chunks is None or variable.name == schema.axis or variable.dims == (variable.name,):
            # Coordinates that label a dimension are not dask's: groupby, interp and where(drop=True) need their values.
            array: Any = _lazily_indexed(PartitionedArray(reader, table))
        else:
            # Of two versions, or of two collections, no key in dask is the same.
            token = tokenize(origin.space, selected.version, origin.rows.token, origin.immutables.token, blocks)
            along = [table] if variable.is_immutable else tables[id(origin)]
            array = dask_array(reader, along, blocks, token)
        target = coordinates if variable.is_coordinate else data
        target[variable.name] = xr.Variable(variable.dims, array, dict(variable.attrs), _encoding(variable))
    indexes = {
        name: _index(schema, name, variable, selected.table_of(name))
        for name, variable in coordinates.items()
        if variable.dims == (name,)
    }
    for index in indexes.values():
        coordinates |= index.create_variables(coordinates)
    return xr.Dataset(data, xr.Coordinates(coordinates, indexes), dict(schema.attrs))


def _tables_of_blocks(selected: Selected, blocks: Sequence[int]) -> dict[int, list[PartitionTable]]:
    """Return the rows of each block, by the identity of the origin."""
    origins = {id(origin): origin for origin in selected.origins.values()}
    edges = list(itertools.accumulate(blocks, initial=0))
    return {
        place: [origin.rows.slice_rows(start, stop) for start, stop in itertools.pairwise(edges)]
        for place, origin in origins.items()
    }


def _index(schema: Schema, name: str, labels: xr.Variable, table: PartitionTable) -> LazyIndex:
    # Two versions share the fragments of the axis, whatever other variables have got.
    token = f"{table.token_of(schema.variables[name])}-{name}"
    segments = _segments(table) if name == schema.axis else NOTHING_KNOWN
    return LazyIndex.from_lazy(name, labels, token, segments)


def _segments(table: PartitionTable) -> Segments:
    parts = table.parts[table.piece_sizes > 0]
    return Segments.of(parts["stop"] - parts["start"], parts["low"], parts["high"], parts["unique"])


def _lazily_indexed(array: PartitionedArray) -> Any:
    lazy: Any = LazilyIndexed(array)
    return indexing.MemoryCachedArray(indexing.CopyOnWriteArray(lazy))


def _encoding(variable: SchemaVariable) -> dict[str, Any]:
    """Return the CF encoding, so that the dataset can be written elsewhere, or be a template, as it is."""
    cf = {name: value for name, value in typed_cf(variable).items() if name != "dtype"}
    return cf if variable.dtype.kind in "USO" else {**cf, "dtype": variable.stored_dtype}
