"""How a dataset is cut into dask chunks. Nothing here reads storage."""

import itertools
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import dask
import dask.utils
import numpy as np

from ..errors import InvalidInputError
from ..schema import Schema, SchemaVariable
from ..storage.arrays import array_layout
from .table import PartitionTable, Stretch

Chunks = Literal["auto", "partition"] | int | Mapping[Hashable, Any] | None
"""How a dataset is cut into dask chunks; see :meth:`intake_zcollection.Collection.load`."""


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
    size = table.rows if dim == split else variable.shape(0)[position]
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
    pending = 0  # rows of small parts, waiting to be one block
    large = {}
    if table.piece_sizes.size and table.piece_sizes.max() > most:
        large = {n: each for n, each in enumerate(table.stretches(variable)) if each.stop - each.start > most}
    for number, size in enumerate(table.piece_sizes.tolist()):
        if size == 0:
            continue
        if pending and pending + size > most:
            yield pending
            pending = 0
        if size <= most:
            pending += size
        else:
            yield from _cut_stretch(variable, large[number], most)
    if pending:
        yield pending


def _cut_stretch(variable: SchemaVariable, rows: Stretch, most: int) -> Iterator[int]:
    """Yield blocks of many rows: whole Zarr chunks, as many as make ``most`` rows, at least one."""
    group_rows = rows.stop - rows.start if rows.path is None else rows.group_rows
    chunk = array_layout(variable, group_rows).chunks[variable.split_axis]
    step = max(1, most // chunk) * chunk
    edges = [rows.start, *range((rows.start // step + 1) * step, rows.stop, step), rows.stop]
    yield from (after - before for before, after in itertools.pairwise(edges))
