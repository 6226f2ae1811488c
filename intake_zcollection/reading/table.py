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

from registry import PartitionKey, PartitionRecord, PartRecord, format_key

from ..schema import SchemaVariable
from ..storage import layout


class Fragment(NamedTuple):
    """Rows of one Zarr group, and which variables it holds. A tuple, since there may be very many."""

    path: str
    """The group's path below the location."""
    schema_version: int
    """The version of the schema that it was written with."""
    variables: frozenset[int] | None = None
    """The ids of a layer's variables; None for all that were alive at its schema version."""
    start: int = 0
    """The first of the group's rows."""
    group_rows: int = 0
    """All rows of the group."""

    def holds(self, variable: SchemaVariable) -> bool:
        """Whether a variable was written to it."""
        return variable.was_there(self.schema_version) if self.variables is None else variable.id in self.variables


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """Consecutive rows of one part of a partition."""

    fragments: tuple[Fragment, ...]
    """Where its variables lie, the newest first: those of the whole part."""
    rows: int
    """All rows of the part."""
    start: int
    stop: int
    bounds: tuple[int | None, int | None]
    """The smallest and largest axis value of the whole piece it was cut from, as the registry keeps them."""
    unique: bool | None = None
    """Whether no axis value is repeated in it; None where nobody knows."""

    def fragment_of(self, variable: SchemaVariable) -> Fragment | None:
        """Return the fragment that a variable is read from; None where it has no values yet."""
        return next((fragment for fragment in self.fragments if fragment.holds(variable)), None)

    def cut(self, start: int, stop: int) -> "Piece":
        """Return the rows ``start`` … ``stop`` of this piece."""
        return Piece(self.fragments, self.rows, self.start + start, self.start + stop, self.bounds, self.unique)

    def rows_in(self, fragment: Fragment) -> slice:
        """Return which rows of a fragment's group it is."""
        return slice(fragment.start + self.start, fragment.start + self.stop)

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        places = (f"{fragment.path}[{_text(self.rows_in(fragment))}]" for fragment in self.fragments)
        return f"{self.start}:{self.stop} of {self.rows} rows  {' '.join(places)}"


def _text(rows: slice) -> str:
    return f"{rows.start}:{rows.stop}"


@dataclass(frozen=True)
class PartitionTable:
    """The rows of a dataset: the pieces of each partition, in the order of their keys and of the axis."""

    keys: tuple[PartitionKey, ...]
    pieces: tuple[Piece, ...]
    counts: tuple[int, ...]
    """How many pieces each partition has."""

    @cached_property
    def piece_sizes(self) -> list[int]:
        """The number of rows of each piece."""
        return [len(piece) for piece in self.pieces]

    @cached_property
    def sizes(self) -> list[int]:
        """The number of rows of each partition."""
        if len(self.keys) == len(self.pieces):
            return self.piece_sizes
        return [sum(self.piece_sizes[first:stop]) for first, stop in itertools.pairwise(self._firsts)]

    @cached_property
    def _firsts(self) -> list[int]:
        return list(itertools.accumulate(self.counts, initial=0))

    def pieces_of_partition(self, place: int) -> tuple[Piece, ...]:
        """Return the pieces of one partition."""
        return self.pieces[self._firsts[place] : self._firsts[place + 1]]

    def paths_of(self, place: int, variable: SchemaVariable) -> tuple[str, ...]:
        """Return the groups in which a variable of one partition lies, in the order of the rows, each once."""
        fragments = (piece.fragment_of(variable) for piece in self.pieces_of_partition(place))
        return tuple(dict.fromkeys(fragment.path for fragment in fragments if fragment is not None))

    def cut(self, start: int, stop: int) -> "PartitionTable":
        """Return it with the partitions ``start`` … ``stop`` alone."""
        stop = min(stop, len(self.keys))
        pieces = self.pieces[self._firsts[start] : self._firsts[stop]]
        return PartitionTable(self.keys[start:stop], pieces, self.counts[start:stop])

    @cached_property
    def token(self) -> str:
        """What tells these rows from all others, anywhere: paths contain uids."""
        return hashlib.sha256("\n".join(map(str, self.pieces)).encode()).hexdigest()

    def token_of(self, variable: SchemaVariable) -> str:
        """What tells the values of one variable in these rows from all others."""
        lines = []
        for piece in self.pieces:
            fragment = piece.fragment_of(variable)
            where = "" if fragment is None else f"{fragment.path} {_text(piece.rows_in(fragment))}"
            lines.append(where or f"{len(piece)} without values")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

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
        return list(itertools.accumulate(self.piece_sizes, initial=0))[:-1]

    def __str__(self) -> str:
        keys = (key for key, count in zip(self.keys, self.counts, strict=True) for _ in range(count))
        return "\n".join(f"{format_key(key)}  {piece}" for key, piece in zip(keys, self.pieces, strict=True))


def partition_table(partitions: Iterable[PartitionRecord], layers: Mapping[int, frozenset[int]]) -> PartitionTable:
    """Return the table of whole partitions; ``layers`` are the ids of each layer's variables."""
    partitions = tuple(partitions)
    return PartitionTable(
        keys=tuple(partition.key for partition in partitions),
        pieces=tuple(part_piece(each.key, part, layers) for each in partitions for part in each.parts),
        counts=tuple(len(partition.parts) for partition in partitions),
    )


def part_piece(key: PartitionKey, part: PartRecord, layers: Mapping[int, frozenset[int]]) -> Piece:
    """Return all rows of a part."""
    newest = part.fragments
    if len(newest) > 1:
        # Of two fragments with a variable the newer one counts; a layer written with the rows is newer than they are.
        newest = tuple(sorted(newest, key=lambda fragment: (-fragment.written_version, -fragment.layer_id)))
    fragments = [
        Fragment(
            layout.recorded_path(key, fragment),
            fragment.schema_version,
            layers.get(fragment.layer_id),
            fragment.start,
            fragment.group_rows,
        )
        for fragment in newest
    ]
    return Piece(tuple(fragments), part.rows, 0, part.rows, part.bounds, part.axis_unique)


def split_table(table: PartitionTable, blocks: Sequence[int]) -> list[tuple[Piece, ...]]:
    """Return the pieces of each block of rows, in one pass over the table."""
    result: list[tuple[Piece, ...]] = []
    pieces = iter(zip(table.pieces, table.piece_sizes, strict=True))
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
