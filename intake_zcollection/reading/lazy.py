"""Lazy arrays over a partition table: for dask, and for xarray's own lazy indexing. One read path for both."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from dask.highlevelgraph import HighLevelGraph
from xarray.backends import BackendArray
from xarray.core import indexing

from ..schema import SchemaVariable, Values
from ..storage.location import Location
from ..storage.read import Region
from .listing import Listing
from .origin import read_rows
from .table import PartitionTable


@dataclass(frozen=True, eq=False)
class Block:
    """What one task reads: rows along the split dimension, and a region of the other dimensions."""

    rows: PartitionTable
    others: Region
    """One slice per dimension; that of the split dimension is not used."""


@dataclass(frozen=True, eq=False)
class VariableReader:
    """Reads blocks of one variable. Shared by all its tasks, so each carries only its own rows."""

    location: Location
    variable: SchemaVariable
    listing: Listing

    def __call__(self, block: Block) -> Values:
        """Return the values of a block; raises as :meth:`Listing.asked_again`."""
        with self.listing.asked_again():
            return read_rows(self.location, self.variable, block.rows, block.others)


def dask_array(
    reader: VariableReader,
    rows: Sequence[PartitionTable],
    blocks: Mapping[str, tuple[int, ...]],
    token: str,
) -> da.Array:
    """Return a dask array of a variable; its graph is a plain dict, one small task per block.

    ``rows`` are those of each block along the split dimension, or the one table of an immutable variable.
    """
    variable = reader.variable
    chunks = tuple(blocks[dim] for dim in variable.dims)
    slices = [_slices(sizes) for sizes in chunks]
    name = f"{variable.name}-{token}"
    graph: dict[Any, Any] = {}
    for index in itertools.product(*(range(len(sizes)) for sizes in chunks)):
        along = 0 if variable.is_immutable else index[variable.split_axis]
        others = tuple(cuts[i] for cuts, i in zip(slices, index, strict=True))
        graph[(name, *index)] = (reader, Block(rows[along], others))
    layer = HighLevelGraph.from_collections(name, graph, dependencies=())
    return da.Array(layer, name, chunks, dtype=variable.dtype)


def _slices(sizes: Sequence[int]) -> list[slice]:
    stops = list(itertools.accumulate(sizes))
    return [slice(stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]


class PartitionedArray(BackendArray):
    """A variable over a partition table that reads what it is indexed with, when it is asked to."""

    def __init__(self, reader: VariableReader, table: PartitionTable) -> None:
        self._reader = reader
        self._table = table
        self.dtype = reader.variable.dtype
        self.shape = reader.variable.shape(table.rows)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        plain = _plainest(key, self.shape)
        return indexing.explicit_indexing_adapter(plain, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> Values:
        """Read the smallest block around a basic key, then index it."""
        region = tuple(_bounding_slice(k, size) for k, size in zip(key, self.shape, strict=True))
        variable = self._reader.variable
        if variable.is_immutable:
            table = self._table
        else:
            rows = region[variable.split_axis]
            table = self._table.slice_rows(rows.start, rows.stop)
        values = self._reader(Block(table, region))
        inside = tuple(_inside(k, size) for k, size in zip(key, self.shape, strict=True))
        return np.asarray(values[(*inside, ...)])


class LazilyIndexed(indexing.LazilyIndexedArray):
    """xarray's lazy indexing, of slices of nothing too."""

    def _updated_key(self, new_key: indexing.ExplicitIndexer) -> Any:
        return super()._updated_key(_plainest(new_key, self.shape))


def _plainest(key: indexing.ExplicitIndexer, shape: tuple[int, ...]) -> indexing.ExplicitIndexer:
    """Return a key whose slices of nothing are the plainest.

    Of those that go backwards, xarray makes slices of everything where they begin before the first row, and an
    IndexError elsewhere.
    """
    parts = zip(indexing.expanded_indexer(key.tuple, len(shape)), shape, strict=True)
    return type(key)(tuple(slice(0, 0) if isinstance(k, slice) and not range(n)[k] else k for k, n in parts))


def _bounding_slice(key: int | slice, size: int) -> slice:
    if isinstance(key, slice):
        indexes = range(size)[key]
        return slice(min(indexes), max(indexes) + 1) if indexes else slice(0, 0)
    position = range(size)[key]
    return slice(position, position + 1)


def _inside(key: int | slice, size: int) -> int | slice:
    """Return a key's equivalent inside the bounding slice."""
    if not isinstance(key, slice):
        return 0
    return slice(None, None, key.step) if range(size)[key] else slice(0, 0)
