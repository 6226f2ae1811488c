"""The partitions of a version, as columns and as records."""

import operator
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, groupby
from typing import Any

from .keys import KeyValues, PartitionKey, format_key, name_values, pad_key
from .records import ROWS_LAYER, FragmentRecord


@dataclass(frozen=True, eq=False)
class FragmentColumns:
    """The fragments of partitions, in the order of keys, parts and layers: column by column, for there may be millions.

    The columns are ``k0`` … of the collection's keys, and those of :class:`FragmentRecord` after its key: arrays of
    integers (``axis_unique`` is -1 where nobody knows), and lists of ``uid`` and ``path``.
    """

    names: tuple[str, ...]
    """Those of the keys."""
    columns: Mapping[str, Sequence[Any]]

    def __getitem__(self, name: str) -> Sequence[Any]:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.columns["uid"])

    @property
    def keys(self) -> Iterator[KeyValues]:
        """The key of each fragment, by all six key columns."""
        return map(pad_key, zip(*(self[f"k{place}"] for place in range(len(self.names))), strict=True))

    def count_rows(self) -> dict[KeyValues, int]:
        """Return how many rows each partition has."""
        rows: dict[KeyValues, int] = {}
        for key, layer_id, count in zip(self.keys, self["layer_id"], self["rows"], strict=True):
            if layer_id == ROWS_LAYER:
                rows[key] = rows.get(key, 0) + count
        return rows

    def of(self, keep: Callable[[KeyValues], bool]) -> "FragmentColumns":
        """Return those of some partitions, by all six key columns."""
        return self._take([number for number, key in enumerate(self.keys) if keep(key)])

    @classmethod
    def merged(cls, read: Sequence["FragmentColumns"]) -> "FragmentColumns":
        """Return fragments of different partitions in the order of their keys."""
        first = read[0]
        joined = {name: _like(column, chain(*(each[name] for each in read))) for name, column in first.columns.items()}
        every = cls(first.names, joined)
        keys = list(every.keys)
        return every._take(sorted(range(len(keys)), key=keys.__getitem__))  # those of one partition stay in order

    def _take(self, numbers: Sequence[int]) -> "FragmentColumns":
        taken = {name: _like(column, map(column.__getitem__, numbers)) for name, column in self.columns.items()}
        return FragmentColumns(self.names, taken)

    @cached_property
    def partitions(self) -> "tuple[PartitionRecord, ...]":
        """The same as records, a partition each."""
        keys = zip(*(self.columns[f"k{place}"] for place in range(len(self.names))), strict=True)
        fields = (self.columns[name] for name in FragmentRecord._fields[1:-1])
        unique = ((None, False, True)[value + 1] for value in self.columns["axis_unique"])
        fragments = map(FragmentRecord, keys, *fields, unique)
        return tuple(
            PartitionRecord(
                name_values(self.names, key),
                tuple(PartRecord(tuple(part)) for _, part in groupby(group, operator.itemgetter(1))),
            )
            for key, group in groupby(fragments, operator.itemgetter(0))  # by their keys
        )


@dataclass(frozen=True, slots=True)
class PartRecord:
    """Rows of a partition that lie together: their fragments, the rows fragment first."""

    fragments: tuple[FragmentRecord, ...]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.fragments[0].rows

    @property
    def bounds(self) -> tuple[int, int]:
        """The first and the last axis value. Those of two parts never touch."""
        first, last = self.fragments[0].axis_min, self.fragments[0].axis_max
        assert last is not None  # only the immutable layer has no axis
        return first, last


@dataclass(frozen=True, slots=True)
class PartitionRecord:
    """A partition at one version: its key and its parts, in the order of the axis."""

    key: PartitionKey
    parts: tuple[PartRecord, ...]

    @property
    def values(self) -> KeyValues:
        """The integers of its key."""
        return self.parts[0].fragments[0].key

    @property
    def fragments(self) -> Iterator[FragmentRecord]:
        """The fragments of all its parts."""
        return (fragment for part in self.parts for fragment in part.fragments)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(part.rows for part in self.parts)

    @property
    def nbytes(self) -> int:
        """The bytes stored, of all fragments."""
        return sum(fragment.nbytes for fragment in self.fragments)

    @property
    def bounds(self) -> tuple[int, int]:
        """The smallest and largest axis value."""
        return self.parts[0].bounds[0], self.parts[-1].bounds[1]

    @property
    def groups(self) -> int:
        """In how many Zarr groups its values lie."""
        return len({fragment.uid for fragment in self.fragments})

    def __str__(self) -> str:
        return format_key(self.key)


def _like(column: Sequence[Any], values: Iterable[Any]) -> Sequence[Any]:
    return array("q", values) if isinstance(column, array) else list(values)
