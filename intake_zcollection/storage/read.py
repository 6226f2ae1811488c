"""Regions of stored arrays: which chunks they touch, and those chunks put together."""

import itertools
from collections.abc import Sequence

import numpy as np

from .. import encoding
from ..errors import CorruptedDataError
from ..schema import SchemaVariable, Values
from . import layout
from .arrays import ArrayLayout, array_layout, chunk_codec
from .stores import Location, get

Region = tuple[slice, ...]
"""One slice per dimension, with start and stop, step 1."""


def read_region(location: Location, path: str, variable: SchemaVariable, rows: int, region: Region) -> Values:
    """Return the decoded values of a region of a variable, from the fragment at ``path`` with ``rows`` rows.

    Reads the chunks that the region touches, each with one request, and nothing else.

    Raises
    ------
    CorruptedDataError
        A chunk is missing or does not decode; the message names it.
    """
    arrangement = array_layout(variable, rows)
    indexes = list(itertools.product(*_touched(arrangement, region)))
    names = [f"{path}/{variable.stored_name}/{layout.chunk_name(i, variable.array['zarr_format'])}" for i in indexes]
    codec = chunk_codec(variable)
    stored: Values = np.empty([s.stop - s.start for s in region], codec.dtype)
    for index, name, data in zip(indexes, names, get(location, names) if names else (), strict=True):
        try:
            chunk = codec.decode(data, arrangement.chunks)
        except Exception as error:
            raise CorruptedDataError(
                f"the chunk {name} in {location.url} does not decode: {error}; restore it from a copy"
            ) from error
        target, source = _intersection(arrangement.chunks, index, region)
        stored[target] = chunk[source]
    return encoding.decode(variable, stored)


def _touched(arrangement: ArrayLayout, region: Region) -> list[range]:
    return [
        range(s.start // chunk, -(-s.stop // chunk) if s.stop > s.start else s.start // chunk)
        for s, chunk in zip(region, arrangement.chunks, strict=True)
    ]


def _intersection(chunks: Sequence[int], index: Sequence[int], region: Region) -> tuple[Region, Region]:
    """Return where a chunk meets the region: in the region's coordinates, and in the chunk's."""
    target, source = [], []
    for s, size, i in zip(region, chunks, index, strict=True):
        start, stop = max(s.start, i * size), min(s.stop, (i + 1) * size)
        target.append(slice(start - s.start, stop - s.start))
        source.append(slice(start - i * size, stop - i * size))
    return tuple(target), tuple(source)
