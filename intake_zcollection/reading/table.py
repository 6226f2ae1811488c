"""The partition table: which rows of which fragments make a dataset.

Plain values, that can be printed; nothing here reads storage.
"""

import hashlib
import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from registry import PartitionKey, PartitionRecord, format_key

from ..schema import SchemaVariable
from ..storage import layout


class Fragment(NamedTuple):
    """One Zarr group, and which variables it holds. A tuple, since there may be very many."""

    path: str
    """Its path below the location."""
    schema_version: int
    """The version of the schema that it was written with."""
    written_version: int
    variables: frozenset[int] | None = None
    """The ids of a layer's variables; None for all that were alive at its schema version."""

    def holds(self, variable: SchemaVariable) -> bool:
        """Whether a variable was written to it."""
        return (
            variable.begin_version <= self.schema_version if self.variables is None else variable.id in self.variables
        )


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """Consecutive rows of one partition."""

    fragments: tuple[Fragment, ...]
    """Where its variables lie, the newest first."""
    rows: int
    """All rows of the partition."""
    start: int
    stop: int
    bounds: tuple[int | None, int | None]
    """The smallest and largest axis value of the whole piece it was cut from, as the registry keeps them."""
    unique: bool | None = None
    """Whether no axis value is repeated in it; None where nobody knows."""

    def path_of(self, variable: SchemaVariable) -> str | None:
        """Return the fragment that a variable is read from; None where it has no values yet."""
        return next((fragment.path for fragment in self.fragments if fragment.holds(variable)), None)

    def cut(self, start: int, stop: int) -> "Piece":
        """Return the rows ``start`` … ``stop`` of this piece."""
        return Piece(self.fragments, self.rows, self.start + start, self.start + stop, self.bounds, self.unique)

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"{self.start}:{self.stop} of {self.rows} rows  {' '.join(fragment.path for fragment in self.fragments)}"


@dataclass(frozen=True)
class PartitionTable:
    """The rows of a dataset: one piece per partition, in the order of their keys."""

    keys: tuple[PartitionKey, ...]
    pieces: tuple[Piece, ...]

    @cached_property
    def sizes(self) -> list[int]:
        """The number of rows of each piece."""
        return [len(piece) for piece in self.pieces]

    @cached_property
    def token(self) -> str:
        """What tells these rows from all others, anywhere: paths contain uids."""
        return hashlib.sha256("\n".join(map(str, self.pieces)).encode()).hexdigest()

    def token_of(self, variable: SchemaVariable) -> str:
        """What tells the values of one variable in these rows from all others."""
        text = "\n".join(f"{piece.path_of(variable)} {piece.start} {piece.stop}" for piece in self.pieces)
        return hashlib.sha256(text.encode()).hexdigest()

    def pieces_of(self, start: int, stop: int) -> tuple[Piece, ...]:
        """Return the pieces that make the rows ``start`` … ``stop`` of the dataset."""
        return tuple(self._pieces_of(start, stop))

    def _pieces_of(self, start: int, stop: int) -> Iterator[Piece]:
        first = max(0, bisect_right(self._starts, start) - 1)
        for piece, offset in zip(self.pieces[first:], self._starts[first:], strict=True):
            if offset >= stop:
                return
            low, high = max(start - offset, 0), min(stop - offset, len(piece))
            if low < high:
                yield piece.cut(low, high)

    @cached_property
    def _starts(self) -> list[int]:
        return list(itertools.accumulate(self.sizes, initial=0))[:-1]

    def __str__(self) -> str:
        return "\n".join(f"{format_key(key)}  {piece}" for key, piece in zip(self.keys, self.pieces, strict=True))


def partition_table(partitions: Iterable[PartitionRecord], layers: Mapping[int, frozenset[int]]) -> PartitionTable:
    """Return the table of whole partitions; ``layers`` are the ids of each layer's variables."""
    partitions = tuple(partitions)
    return PartitionTable(
        keys=tuple(partition.key for partition in partitions),
        pieces=tuple(partition_piece(partition, layers) for partition in partitions),
    )


def partition_piece(partition: PartitionRecord, layers: Mapping[int, frozenset[int]]) -> Piece:
    """Return all rows of a partition."""
    newest = partition.fragments
    if len(newest) > 1:
        # Of two fragments with a variable the newer one counts; a layer written with the rows is newer than they are.
        newest = tuple(sorted(newest, key=lambda fragment: (-fragment.written_version, -fragment.layer_id)))
    key = partition.key
    fragments = [
        Fragment(
            layout.recorded_path(key, fragment),
            fragment.schema_version,
            fragment.written_version,
            layers.get(fragment.layer_id),
        )
        for fragment in newest
    ]
    rows = partition.rows
    return Piece(tuple(fragments), rows, 0, rows, partition.bounds, partition.axis_unique)


def split_table(table: PartitionTable, blocks: Sequence[int]) -> list[tuple[Piece, ...]]:
    """Return the pieces of each block of rows, in one pass over the table."""
    result: list[tuple[Piece, ...]] = []
    pieces = iter(zip(table.pieces, table.sizes, strict=True))
    rest: tuple[Piece, int] | None = None
    for block in blocks:
        taken: list[Piece] = []
        missing = block
        while missing:
            piece, size = rest or next(pieces)
            rest = None
            if size > missing:
                rest = piece.cut(missing, size), size - missing
                piece, size = piece.cut(0, missing), missing
            if size:
                taken.append(piece)
            missing -= size
        result.append(tuple(taken))
    return result
