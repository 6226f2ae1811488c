"""The partition table: which rows of which fragments make the dataset, and how they are cut into blocks.

Plain values, that can be printed; nothing here reads storage.
"""

import hashlib
import itertools
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import dask
import dask.utils
import numpy as np

from registry import PartitionKey, PartitionRecord, format_key

from ..errors import InvalidInputError
from ..schema import Schema, SchemaVariable
from ..storage import layout
from ..storage.arrays import array_layout

Chunks = Literal["auto", "partition"] | int | Mapping[Hashable, Any] | None
"""How a dataset is cut into dask chunks; see :meth:`intake_zcollection.Collection.load`."""


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

    def path_of(self, variable: SchemaVariable) -> str | None:
        """Return the fragment that a variable is read from; None where it has no values yet."""
        return next((fragment.path for fragment in self.fragments if fragment.holds(variable)), None)

    def cut(self, start: int, stop: int) -> "Piece":
        """Return the rows ``start`` … ``stop`` of this piece."""
        return Piece(self.fragments, self.rows, self.start + start, self.start + stop, self.bounds)

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
    return Piece(tuple(fragments), rows, 0, rows, partition.bounds)


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


def plan_blocks(
    schema: Schema, names: Iterable[str], table: PartitionTable, chunks: Chunks
) -> dict[str, tuple[int, ...]]:
    """Return the block sizes along each dimension, the same for all variables.

    The widest variable decides, so that ``dataset.chunks`` is consistent; narrow ones have no more blocks than it.
    """
    _check_chunks(schema, chunks)
    variables = sorted((schema.variables[name] for name in names), key=lambda v: v.row_nbytes, reverse=True)
    blocks: dict[str, tuple[int, ...]] = {}
    for variable in variables:
        for dim in variable.dims:
            if dim not in blocks:
                blocks[dim] = _dimension_blocks(variable, dim, schema.dimension, table, chunks)
    return blocks


def _dimension_blocks(
    variable: SchemaVariable, dim: str, split: str, table: PartitionTable, chunks: Chunks
) -> tuple[int, ...]:
    position = variable.dims.index(dim)
    size = sum(table.sizes) if dim == split else variable.shape(0)[position]
    wanted = chunks.get(dim) if isinstance(chunks, Mapping) else chunks
    if wanted is not None and not isinstance(wanted, str):
        return _sizes_of(wanted, dim, size)
    if dim == split:
        policy = chunks if isinstance(chunks, str) else "stored"
        return tuple(_split_blocks(variable, table, wanted if isinstance(wanted, str) else policy)) or (0,)
    if isinstance(chunks, str) and variable.row_nbytes <= _target_nbytes():
        return (size,)
    stored = max(1, array_layout(variable, 1).chunks[position])
    return tuple(min(stored, size - start) for start in range(0, size, stored)) or (0,)


def _check_chunks(schema: Schema, chunks: Any) -> None:
    if not isinstance(chunks, Mapping):
        if chunks not in ("auto", "partition", -1) and not _is_size(chunks):
            raise InvalidInputError(f"chunks={chunks!r} is not 'auto', 'partition', a dict, an integer or None")
        return
    dims = {dim for variable in schema.variables.values() for dim in variable.dims}
    for dim, size in chunks.items():
        if dim not in dims:
            raise InvalidInputError(f"chunks={chunks!r}: there is no dimension {dim!r}, but {', '.join(sorted(dims))}")
        sizes = isinstance(size, tuple | list) and all(_is_size(each) for each in size)
        if not sizes and size not in ("auto", "partition", -1, None) and not _is_size(size):
            raise InvalidInputError(
                f"chunks={chunks!r}: {size!r} for {dim} is not 'auto', 'partition', a size, sizes, or -1 for all"
            )


def _is_size(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value > 0)


def _sizes_of(wanted: int | Sequence[int], dim: str, size: int) -> tuple[int, ...]:
    if isinstance(wanted, int | np.integer):
        step = size if wanted == -1 else int(wanted)
        return tuple(min(step, size - start) for start in range(0, size, max(1, step))) or (0,)
    if sum(wanted) != size:
        raise InvalidInputError(f"chunks: {tuple(wanted)} for {dim} add up to {sum(wanted)}, and its size is {size}")
    return tuple(int(each) for each in wanted)


def _target_nbytes() -> int:
    return int(dask.utils.parse_bytes(dask.config.get("array.chunk-size")))


def _split_blocks(variable: SchemaVariable, table: PartitionTable, policy: str) -> Iterator[int]:
    """Yield block sizes along the split dimension."""
    if policy == "partition":
        yield from (size for size in table.sizes if size)
        return
    most = max(1, _target_nbytes() // max(1, variable.row_nbytes)) if policy == "auto" else 0
    pending = 0  # rows of small partitions, waiting to be one block
    for piece, size in zip(table.pieces, table.sizes, strict=True):
        if size == 0:
            continue
        if pending and pending + size > most:
            yield pending
            pending = 0
        if size <= most:
            pending += size
        else:
            yield from _cut_piece(piece, _stored_rows(variable, piece.rows), most)
    if pending:
        yield pending


def _stored_rows(variable: SchemaVariable, rows: int) -> int:
    return array_layout(variable, rows).chunks[variable.split_axis]


def _cut_piece(piece: Piece, chunk: int, most: int) -> Iterator[int]:
    """Yield blocks of a large piece: whole Zarr chunks, as many as make ``most`` rows, at least one."""
    step = max(1, most // chunk) * chunk
    edges = [piece.start, *range((piece.start // step + 1) * step, piece.stop, step), piece.stop]
    yield from (after - before for before, after in itertools.pairwise(edges))
