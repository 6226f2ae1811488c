"""What follows from the values that a group holds: entries of indexes, in the same commit."""

import logging
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from registry import CollectionRecord, Entry, IndexRecord, PartitionKey, Written, columns_of, format_key
from registry.records import ROWS_LAYER

from ..errors import InvalidInputError
from ..reading.indexing import Indexer, divided
from ..reading.origin import Origin
from ..schema import Schema, SchemaVariable, Values
from ..schema.encoding import decode
from .plan import Content, Part, Result, Target, parts_of

logger = logging.getLogger(__name__)


class Derived(NamedTuple):
    """What follows from values: fragments of indexes, and their entries."""

    fragments: tuple[Written, ...] = ()
    entries: tuple[Entry, ...] = ()


def indexers_of(collection: CollectionRecord, indexes: Iterable[IndexRecord]) -> tuple[Indexer, ...]:
    """Return what a write computes of the indexes of a collection, in this process.

    One on whole partitions is left: of what a write brings it knows nothing. Who cannot import a function leaves its
    rows unindexed, or raises InvalidInputError, as the index says.
    """
    found = []
    for record in indexes:
        if record.per == "partition":
            continue
        try:
            found.append(Indexer.of(record, collection.name))
        except InvalidInputError as error:
            if record.on_missing == "raise":
                raise
            logger.warning("what is written is not indexed: %s", error)
    return tuple(found)


def derive(target: Target, content: Content, indexers: Sequence[Indexer]) -> Derived:
    """Return what follows from what a group holds, for the indexes that are computed from it."""
    held = {variable.id for name, variable in target.schema.variables.items() if name in content.values}
    if isinstance(target.layer, frozenset):
        concerned = [each for each in indexers if held & each.record.inputs.keys()]
    else:
        concerned = [each for each in indexers if target.layer == ROWS_LAYER]
    if not concerned:
        return Derived()

    def read(variable: SchemaVariable) -> Values:
        if variable.name in content.values:
            return decode(variable, content.values[variable.name])
        assert content.read is not None  # rows hold all variables
        return content.read(variable)

    schema = target.schema
    wanted = {variable.id: variable for each in concerned for variable in each.inputs(schema)}
    values = {id_: read(variable) for id_, variable in wanted.items()}
    axis = read(schema.variables[schema.axis]).astype(np.int64)
    parts = [_index(each, schema, values, axis, content.parts, target.partition) for each in concerned]
    return Derived(*(tuple(row for each in column for row in each) for column in zip(*parts, strict=True)))


def _index(
    indexer: Indexer,
    schema: Schema,
    values: dict[int, Values],
    axis: npt.NDArray[np.int64],
    parts: Sequence[Part],
    partition: str,
) -> Derived:
    """Return a fragment per part, and its entries: runs are divided where one part ends."""
    uid, index = uuid.uuid4().hex, indexer.record.uid
    ends = np.cumsum([0, *(part.rows for part in parts)]).tolist()
    fragments = tuple(
        Written(part.key, index, uid, part.rows, 0, None, *_bounds(part), part.unique, start, ends[-1])
        for part, start in zip(parts, ends, strict=False)
    )
    entries = tuple(
        Entry(index, uid, start, stop, int(axis[start]), int(axis[stop - 1]), found)
        for _, start, stop, found in divided(indexer.runs(schema, values, partition), ends)
    )
    return Derived(fragments, entries)


def _bounds(part: Part) -> tuple[int, int | None]:
    low, high = part.bounds
    return low or 0, high


@dataclass(frozen=True)
class IndexJob:
    """Parts of a partition that are there, to be indexed."""

    key: PartitionKey
    schema: Schema
    rows: Origin
    """Where they lie: all parts of the partition if the index is of whole ones."""
    indexer: Indexer

    def find(self) -> Result:
        """Read the inputs and the axis, and return the fragments and entries."""
        schema, axis = self.schema, self.schema.variables[self.schema.axis]
        values = {each.id: self.rows.read(each) for each in self.indexer.inputs(schema)}
        times = values[axis.id] if axis.id in values else self.rows.read(axis)
        parts = parts_of(columns_of(self.key), self.rows.rows)
        derived = _index(self.indexer, schema, values, times.astype(np.int64), parts, format_key(self.key))
        return Result(derived.fragments, derived.entries)
