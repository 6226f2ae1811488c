"""A partition and its neighbours as one dataset in memory, and a user's function called with it.

The idea of windows with a depth is that of ``dask.array.overlap``, taken from rows to partitions by zcollection.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from registry import KeyRange, PartitionKey, PartitionRecord, Slot, Snapshot, format_key, pad_key

from ..errors import InvalidInputError
from ..schema import Schema, Values
from ..storage.location import Location
from .dataset import immutable_table
from .lazy import read_pieces
from .table import Piece, partition_piece


@dataclass(frozen=True)
class Window:
    """The rows that a function sees: a partition's own, and those of its neighbours."""

    key: PartitionKey
    pieces: tuple[Piece, ...]
    """Of consecutive partitions, in the order of their keys."""
    own: int
    """Which of them is the partition itself."""
    immutable: tuple[Piece, ...]
    """The piece of the immutable variables, none before they are stored."""

    @property
    def name(self) -> str:
        """The partition's key as text."""
        return format_key(self.key)

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(map(len, self.pieces))

    @property
    def own_rows(self) -> slice:
        """Which rows are the partition's own."""
        start = sum(map(len, self.pieces[: self.own]))
        return slice(start, start + len(self.pieces[self.own]))

    def read(self, location: Location, schema: Schema, names: Iterable[str]) -> xr.Dataset:
        """Return variables of all its rows, in memory."""
        values = {}
        for name in names:
            variable = schema.variables[name]
            if variable.is_immutable and not self.immutable:
                continue
            pieces = self.immutable if variable.is_immutable else self.pieces
            everything = tuple(slice(0, size) for size in variable.shape(self.rows))
            values[name] = read_pieces(location, variable, pieces, everything)
        return in_memory(schema, values)


def in_memory(schema: Schema, values: Mapping[str, Values]) -> xr.Dataset:
    """Return a dataset of decoded values."""
    variables = {
        name: xr.Variable(schema.variables[name].dims, array, dict(schema.variables[name].attrs))
        for name, array in values.items()
    }
    dataset = xr.Dataset(variables, attrs=dict(schema.attrs))
    return dataset.set_coords([name for name in values if schema.variables[name].is_coordinate])


def plan_windows(snapshot: Snapshot, chosen: Iterable[PartitionKey], depth: int) -> list[Window]:
    """Return the windows of chosen partitions, ``depth`` neighbours on either side, as far as there are any."""
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 0:
        raise InvalidInputError(f"depth={depth!r} is not a number of partitions")
    partitions = snapshot.partitions
    pieces = [partition_piece(partition, snapshot.layers) for partition in partitions]
    places = {partition.key: place for place, partition in enumerate(partitions)}
    immutable = immutable_table(snapshot.immutable).pieces
    windows = []
    for key in chosen:
        place = places[key]
        first = max(0, place - depth)
        windows.append(Window(key, tuple(pieces[first : place + depth + 1]), place - first, immutable))
    return windows


def read_set(
    snapshot: Snapshot, chosen: Iterable[PartitionKey], depth: int, variables: frozenset[int]
) -> tuple[dict[Slot, str | None], tuple[KeyRange, ...]]:
    """Return what windows depend on: the fragments of their rows and of variables, and ranges that have no others."""
    partitions = snapshot.partitions
    wanted = set(chosen)
    requires: dict[Slot, str | None] = {}
    ranges: list[KeyRange] = []
    for place, partition in enumerate(partitions):
        if partition.key not in wanted:
            continue
        low, high = place - depth, place + depth
        for each in partitions[max(0, low) : high + 1]:
            requires |= _slots(each, snapshot.layers, variables)
        if depth:
            first = _padded(partitions[low]) if low >= 0 else None
            ranges.append((first, _padded(partitions[high]) if high < len(partitions) else None))
    return requires, _joined(ranges)


def _slots(
    partition: PartitionRecord, layers: Mapping[int, frozenset[int]], variables: frozenset[int]
) -> dict[Slot, str | None]:
    return {
        fragment.slot: fragment.uid
        for fragment in partition.fragments
        if fragment.layer_id == 0 or layers[fragment.layer_id] & variables
    }


def _padded(partition: PartitionRecord) -> tuple[int, ...]:
    return pad_key(tuple(value for _, value in partition.key))


def _joined(ranges: Sequence[KeyRange]) -> tuple[KeyRange, ...]:
    """Return the ranges with those joined that overlap; they come in order."""
    joined: list[KeyRange] = []
    for first, last in ranges:
        if joined and (joined[-1][1] is None or first is None or first <= joined[-1][1]):
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return tuple(joined)


@dataclass(frozen=True)
class Call:
    """A user's function, and what it is called with next to the dataset."""

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, dataset: xr.Dataset, window: Window, dimension: str) -> Any:
        """Call it; an error says for which partition."""
        kwargs = dict(self.kwargs)
        if self._wants_info:
            kwargs["partition_info"] = (dimension, window.own_rows)
        try:
            return self.function(dataset, *self.args, **kwargs)
        except Exception as error:
            error.add_note(f"in partition {window.name}")
            raise

    @property
    def _wants_info(self) -> bool:
        try:
            return "partition_info" in inspect.signature(self.function).parameters
        except (TypeError, ValueError):  # some functions written in C have none
            return False


def trim(result: Any, window: Window, dimension: str) -> Any:
    """Return what belongs to the partition itself of a result over the whole window."""
    if isinstance(result, xr.Dataset | xr.DataArray | xr.Variable):
        covers = result.sizes.get(dimension) == window.rows
        return result.isel({dimension: window.own_rows}) if covers else result
    if isinstance(result, np.ndarray) and result.ndim and len(result) == window.rows:
        return result[window.own_rows]
    return result
