"""Regions of stored arrays: which chunks they touch, and those chunks put together."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import CorruptedDataError
from ..schema import SchemaVariable, Values, encoding
from . import layout
from .arrays import ArrayLayout, array_layout, chunk_codec
from .location import Location

Region = tuple[slice, ...]
"""One slice per dimension, with start and stop, step 1."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A region of one stored array, and where its values go."""

    path: str
    """The group's path below the location."""
    rows: int
    """All rows of the group."""
    region: Region
    target: Region
    """The region of the result, of the same shape."""


def read_region(location: Location, path: str, variable: SchemaVariable, rows: int, region: Region) -> Values:
    """Return the decoded values of a region of a variable, from the fragment at ``path`` with ``rows`` rows.

    Raises as :func:`read_regions`.
    """
    shape = [s.stop - s.start for s in region]
    return read_regions(location, variable, shape, [Stored(path, rows, region, tuple(map(slice, shape)))])


def read_regions(
    location: Location, variable: SchemaVariable, shape: Sequence[int], sources: Iterable[Stored]
) -> Values:
    """Return decoded values of ``shape``, put together from regions of stored arrays.

    Reads the chunks that the regions touch, each with one request, all at the same time where the file system can.
    What no source fills is what a stored 0 stands for.

    Raises
    ------
    CorruptedDataError
        A chunk is missing or does not decode; the message names it.
    """
    sources = list(sources)
    codec = chunk_codec(variable)
    stored: Values = np.zeros(shape, codec.dtype)
    chunks: dict[str, list[_Chunk]] = {}  # one that several sources touch, around a cut, is read and decoded once
    for source in sources:
        for chunk in _chunks_of(variable, source):
            chunks.setdefault(chunk.name, []).append(chunk)
    for (name, uses), data in zip(chunks.items(), location.store.get(list(chunks)) if chunks else (), strict=True):
        try:
            if len(uses) == 1:
                codec.decode_into(stored[_target(uses[0])], data, uses[0].shape, uses[0].inside)
                continue
            values = codec.decode(data, uses[0].shape)
            for use in uses:
                stored[_target(use)] = values[use.inside]
        except Exception as error:
            raise CorruptedDataError(
                f"the chunk {name} in {location.url} does not decode: {error}; restore it from a copy"
            ) from error
    try:
        return encoding.decode(variable, stored)
    except (ValueError, OverflowError) as error:  # times that no calendar has
        where = ", ".join(dict.fromkeys(source.path for source in sources))
        raise CorruptedDataError(
            f"the values of {variable.name} at {where} in {location.url} do not decode: {error}; restore them from "
            "a copy"
        ) from error


def chunk_regions(variable: SchemaVariable, rows: int) -> Iterator[Region]:
    """Yield the region of each chunk of a variable in a fragment of ``rows`` rows."""
    arrangement = array_layout(variable, rows)
    for index in itertools.product(*map(range, arrangement.grid)):
        yield tuple(
            slice(i * chunk, min((i + 1) * chunk, size))
            for i, chunk, size in zip(index, arrangement.chunks, arrangement.shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class _Chunk:
    name: str
    shape: tuple[int, ...]
    target: Region
    """Where its values go in the result."""
    inside: Region
    """Which of its values."""


def _target(chunk: _Chunk) -> tuple[Any, ...]:
    return (*chunk.target, ...)  # an array, even without dimensions


def _chunks_of(variable: SchemaVariable, source: Stored) -> Iterator[_Chunk]:
    arrangement = array_layout(variable, source.rows)
    for index in itertools.product(*_touched(arrangement, source.region)):
        name = f"{source.path}/{variable.stored_name}/{layout.chunk_name(index, variable.array['zarr_format'])}"
        yield _Chunk(name, arrangement.chunks, *_intersection(arrangement.chunks, index, source))


def _touched(arrangement: ArrayLayout, region: Region) -> list[range]:
    return [
        range(s.start // chunk, -(-s.stop // chunk) if s.stop > s.start else s.start // chunk)
        for s, chunk in zip(region, arrangement.chunks, strict=True)
    ]


def _intersection(chunks: Sequence[int], index: Sequence[int], source: Stored) -> tuple[Region, Region]:
    """Return where a chunk meets the region: in the result's coordinates, and in the chunk's."""
    target, inside = [], []
    for region, result, size, i in zip(source.region, source.target, chunks, index, strict=True):
        start, stop = max(region.start, i * size), min(region.stop, (i + 1) * size)
        offset = (result.start or 0) - region.start
        target.append(slice(start + offset, stop + offset))
        inside.append(slice(start - i * size, stop - i * size))
    return tuple(target), tuple(inside)
