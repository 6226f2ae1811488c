"""A partition and its neighbours as one dataset in memory, and a user's function called with it.

The idea of windows with a depth is that of ``dask.array.overlap``, taken from rows to partitions by zcollection.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import methodcaller
from typing import Any

import xarray as xr

from registry import PartitionKey, format_key

from ..errors import InvalidInputError
from ..schema import Schema
from ..schema.names import find_variable
from .origin import Origin, change_origins, read_dataset
from .selection import Selected


@dataclass(frozen=True)
class Window:
    """The rows that a function sees: a partition's own, and those of its neighbours."""

    key: PartitionKey
    origins: Mapping[str, Origin]
    """Where each variable lies, with the pieces of consecutive partitions alone."""
    own: int
    """Which of the pieces is the partition itself."""

    @property
    def name(self) -> str:
        """The partition's key as text."""
        return format_key(self.key)

    @property
    def sizes(self) -> list[int]:
        """The number of rows of each partition."""
        return next(iter(self.origins.values())).rows.sizes

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(self.sizes)

    @property
    def own_rows(self) -> slice:
        """Which rows are the partition's own."""
        start = sum(self.sizes[: self.own])
        return slice(start, start + self.sizes[self.own])

    @property
    def alone(self) -> "Window":
        """The partition without its neighbours."""
        cut = methodcaller("cut", self.own, self.own + 1)
        return Window(self.key, change_origins(self.origins, cut), 0)

    def of_rows(self, ranges: Iterable[tuple[int, int]]) -> "Window":
        """Return the partition without its neighbours, and of it some ranges of rows alone."""
        ranges = tuple(ranges)
        origins = change_origins(self.alone.origins, lambda each: replace(each, rows=each.rows.of_rows(ranges)))
        return Window(self.key, origins, 0)

    def read(self, schema: Schema, names: Iterable[str]) -> xr.Dataset:
        """Return variables of all its rows, in memory."""
        return read_dataset(schema, self.origins, names)


def plan_windows(whole: Selected, chosen: Iterable[PartitionKey], depth: int) -> list[Window]:
    """Return the windows of chosen partitions, ``depth`` neighbours on either side, as far as there are any."""
    check_depth(depth)
    places = {key: place for place, key in enumerate(whole.rows.keys)}
    windows = []
    for key in chosen:
        first = max(0, places[key] - depth)
        cut = methodcaller("cut", first, places[key] + depth + 1)
        windows.append(Window(key, change_origins(whole.origins, cut), places[key] - first))
    return windows


def check_depth(depth: int) -> None:
    """Raise InvalidInputError unless it is a number of neighbours."""
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 0:
        raise InvalidInputError(f"depth={depth!r} is not a number of partitions")


def input_names(schema: Schema, inputs: Iterable[str] | None, collection: str) -> tuple[str, ...]:
    """Return the variables that a function sees: those named and the axis, or all."""
    if inputs is None:
        return tuple(schema.variables)
    if isinstance(inputs, str):
        raise InvalidInputError(f"inputs={inputs!r} is not a list of names")
    wanted = {find_variable(schema, name, collection).name for name in inputs} | {schema.axis}
    return tuple(name for name in schema.variables if name in wanted)


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
