"""Rows of parts that an index knows nothing of, found by computing it now."""

import warnings
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from registry import IndexRecord, KeyValues, columns_of, format_key
from registry.indexes import Found, Rows, Wanted

from ..errors import InvalidInputError
from ..schema import Schema
from .indexing import Indexer, divided
from .lookup import Unindexed
from .origin import Origin
from .selection import Selected
from .table import PartitionTable


@dataclass(frozen=True)
class Finder:
    """What is wanted of an index."""

    collection: str
    index: IndexRecord
    wanted: Wanted
    unindexed: Unindexed

    def compute(self, selected: Selected, schema: Schema, unindexed: Iterable[tuple[KeyValues, int]]) -> Iterator[Rows]:
        """Yield what there is in parts of a selection, by the schema of the collection that they belong to.

        Raises
        ------
        InvalidInputError
            There are such parts, and nothing is to be computed; or the function cannot be imported.
        """
        places = selected.rows.places
        numbers = sorted(places[each] for each in unindexed if each in places)
        if not numbers:
            return
        self._tell(numbers)
        indexer = Indexer.of(self.index, self.collection)
        origin = selected.origins[selected.schema.axis]
        parts = origin.rows.take(numbers)
        with selected.listing.asked_again():
            for place in range(len(parts)):
                yield from self._rows(indexer, schema, origin, parts.cut(place, place + 1))

    def _rows(self, indexer: Indexer, schema: Schema, origin: Origin, parts: PartitionTable) -> Iterator[Rows]:
        """Yield what there is in parts of one partition."""
        (key,) = parts.keys
        values = {each.id: replace(origin, rows=parts).read(each) for each in indexer.inputs(schema)}
        ends = np.concatenate([[0], np.cumsum(parts.piece_sizes)]).tolist()
        lows = parts.parts["low"].tolist()
        for number, start, stop, found in divided(indexer.runs(schema, values, format_key(key)), ends):
            if self.wanted.holds(dict(zip(self.index.columns, found, strict=True))):
                yield Rows(columns_of(key), lows[number], start - ends[number], stop - ends[number])

    def _tell(self, numbers: Sequence[int]) -> None:
        what = f"{len(numbers)} part{'s' * (len(numbers) > 1)} of collection {self.collection}"
        how = f"create_index({self.index.name!r}, …) again, as it was created, indexes them"
        if self.unindexed == "raise":
            raise InvalidInputError(f"index {self.index.name} knows nothing of {what}; {how}")
        warnings.warn(f"index {self.index.name} is computed now for {what}; {how}", UserWarning, stacklevel=2)


def without_partitions(found: Found, behind: Set[KeyValues], rows: PartitionTable) -> Found:
    """Return what an index has of a version without some partitions, which are read as they were at another one.

    Their rows are looked for as where nothing is indexed.
    """
    if not behind:
        return found
    parts = [each for each in rows.places if each[0] in behind]
    others = [each for each in found.unindexed if each[0] not in behind]
    rows_there = tuple(each for each in found.rows if each.key not in behind)
    return replace(found, rows=rows_there, unindexed=(*others, *parts))
