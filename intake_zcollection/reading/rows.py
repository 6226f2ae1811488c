"""Rows by their places: what a function found in partitions, and which ranges of rows that is.

Where they were found is kept with them: at another version the same places may be other rows.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from registry import CollectionRecord, KeyValues, PartitionKey, key_values

from ..errors import InvalidInputError

RowsByKey = Mapping[PartitionKey | str, Any]
"""Which rows of the partitions that it names: a slice, a list of slices, a mask, or ascending positions of each."""

Range = tuple[int, int]
"""The first row, and the one after the last."""


class Mapped(dict[PartitionKey, Any]):
    """What :meth:`Collection.map` found, by partition: a dict that knows where. What is made of it does not."""

    def __init__(
        self,
        results: Mapping[PartitionKey, Any],
        collection: CollectionRecord,
        version: int,
        base_versions: Mapping[PartitionKey, int],
    ) -> None:
        super().__init__(results)
        self.collection = collection.name
        """The collection's name then."""
        self.uid = collection.uid
        self.version = version
        """The version's number."""
        self.base_versions = dict(base_versions)
        """Of a view: at which version of its base each partition was read."""


@dataclass(frozen=True)
class Places:
    """Which rows of partitions are wanted, by the values of their keys; none of the others."""

    rows: Mapping[KeyValues, Any]
    """As a caller gave them: they mean something once it is known how many rows there are."""
    found: Mapped | None = None
    """The same, where it is known at which version they were found."""

    @classmethod
    def of(cls, rows: RowsByKey, collection: CollectionRecord) -> "Places":
        """Return what a caller asked for.

        Raises
        ------
        InvalidInputError
            It is no mapping of keys, names a partition twice, or was found in another collection.
        """
        if not isinstance(rows, Mapping):
            raise InvalidInputError(
                f"collection {collection.name}: rows={type(rows).__name__} is no mapping of partition keys to rows, "
                "as map returns it"
            )
        found = rows if isinstance(rows, Mapped) else None
        if found is not None and found.uid != collection.uid:
            raise InvalidInputError(
                f"these rows were found in collection {found.collection}, and this is {collection.name}: call its map"
            )
        by_values = {}
        for key, some in rows.items():
            values = key_values(key, collection.keys, "rows")
            if values in by_values:
                raise InvalidInputError(f"collection {collection.name}: rows= names the partition {key!r} twice")
            by_values[values] = some
        return cls(by_values, found)


def ranges_of(rows: Any, size: int, where: str) -> list[Range]:
    """Return the ranges of rows, of a partition that has so many, that a caller means.

    >>> ranges_of([0, 1, 5], 10, ""), ranges_of(slice(-3, None), 10, ""), ranges_of([False, True, True], 3, "")
    ([(0, 2), (5, 6)], [(7, 10)], [(1, 3)])

    Raises
    ------
    InvalidInputError
        They are no such rows; ``where`` begins the message.
    """
    if isinstance(rows, slice):
        return _without_nothing([_range_of(rows, size, where)])
    if isinstance(rows, list | tuple) and rows and all(isinstance(each, slice) for each in rows):
        ranges = _without_nothing(_range_of(each, size, where) for each in rows)
        for (_, stop), (start, _) in pairwise(ranges):
            if start < stop:
                raise InvalidInputError(
                    f"{where}: of the slices in rows=, one begins at row {start}, and the one before ends at {stop}; "
                    "give them in the order of the rows, none twice"
                )
        return ranges
    try:
        array = np.asarray(rows)
    except ValueError:  # lists of several lengths
        array = np.empty((0, 0), object)
    if array.ndim == 1 and array.dtype == bool:
        return _ranges_of_mask(array, size, where)
    if array.ndim == 1 and (array.dtype.kind in "iu" or not array.size):
        return _ranges_of_positions(array.astype(np.int64), size, where)
    raise InvalidInputError(
        f"{where}: rows= takes a slice, a list of slices, a mask or ascending positions of rows, [] for none, and no "
        f"{type(rows).__name__} of {array.ndim} dimensions and {array.dtype}"
    )


def _without_nothing(ranges: Any) -> list[Range]:
    return [(start, stop) for start, stop in ranges if start < stop]


def _range_of(rows: slice, size: int, where: str) -> Range:
    """Return what a slice is; one that ends beyond the rows was found somewhere else."""
    try:
        bounds = [None if bound is None else operator.index(bound) for bound in (rows.start, rows.stop)]
        step = 1 if rows.step is None else operator.index(rows.step)
    except TypeError:
        raise InvalidInputError(f"{where}: the bounds of {rows} in rows= are no integers") from None
    if step != 1:
        raise InvalidInputError(f"{where}: {rows} in rows= has the step {step}; give positions, or steps of 1")
    if any(bound is not None and bound > size for bound in bounds):
        raise InvalidInputError(f"{where}: {rows} in rows= goes beyond the {size} rows that it has")
    start, stop, _ = slice(*bounds).indices(size)
    return start, stop


def _ranges_of_mask(mask: Any, size: int, where: str) -> list[Range]:
    if len(mask) != size:
        raise InvalidInputError(f"{where}: a mask in rows= has {len(mask)} values, and there are {size} rows")
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _ranges_of_positions(positions: Any, size: int, where: str) -> list[Range]:
    if not len(positions):
        return []
    steps = np.diff(positions)
    if (steps <= 0).any():
        place = int(np.argmax(steps <= 0))
        raise InvalidInputError(
            f"{where}: the positions in rows= have to ascend, and {positions[place + 1]} comes after {positions[place]}"
        )
    if positions[0] < 0 or positions[-1] >= size:
        wrong = positions[0] if positions[0] < 0 else positions[-1]
        raise InvalidInputError(f"{where}: rows= has the position {wrong}, and the {size} rows are 0 to {size - 1}")
    ends = np.flatnonzero(steps > 1)
    starts, stops = positions[np.append(0, ends + 1)], positions[np.append(ends, -1)] + 1
    return list(zip(starts.tolist(), stops.tolist(), strict=True))
