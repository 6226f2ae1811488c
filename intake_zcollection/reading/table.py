"""The partition table: which rows of which groups make a dataset.

Plain values, that can be printed; nothing here reads storage. There may be millions of parts: so it is kept column by
column, and a part of it is cut out without looking at the rest.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from registry import FragmentColumns, KeyValues, OwnFragment, PartitionKey, format_key, name_values, pad_key

from ..schema import SchemaVariable
from ..storage import layout

Integers = npt.NDArray[np.int64]

PART = np.dtype(
    [("rows", "i8"), ("start", "i8"), ("stop", "i8"), ("low", "i8"), ("high", "i8"), ("unique", "i1"), ("held", "i4")]
)
"""Rows ``start`` … ``stop`` of a part that has ``rows``; the first and the last axis value, as the registry keeps them;
whether none is repeated (-1 where nobody knows); in how many fragments it is held."""

FRAGMENT = np.dtype(
    [("uid", "S32"), ("layer", "i4"), ("written", "i4"), ("schema", "i4"), ("start", "i8"), ("group_rows", "i8")]
)
"""A part's rows in one group: from row ``start`` on, of ``group_rows``. The version of the schema that it was written
with says which variables it has; a layer has its own."""

Records = npt.NDArray[np.void]


class Stretch(NamedTuple):
    """Consecutive rows that lie together: all in one group, or nowhere."""

    path: str | None
    """The group's, below the location; None where a variable has no values yet."""
    start: int
    stop: int
    """Which rows of the group."""
    group_rows: int


@dataclass(frozen=True, eq=False)
class PartitionTable:
    """The rows of a dataset: the parts of each partition, in the order of their keys and of the axis."""

    names: tuple[str, ...]
    """Those of the keys."""
    values: Integers
    """The integers of each key: of shape (partitions, keys)."""
    counts: Integers
    """How many parts each partition has."""
    parts: Records
    fragments: Records
    """Those of each part, one part after the other."""
    layers: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """The ids of the variables of each layer."""
    paths: Mapping[bytes, str] = field(default_factory=dict)
    """Of the groups whose path cannot be spelt from key and uid."""

    @classmethod
    def of(
        cls, names: tuple[str, ...], columns: FragmentColumns, layers: Mapping[int, frozenset[int]]
    ) -> "PartitionTable":
        """Return the table of whole partitions."""
        fragments = np.empty(len(columns), FRAGMENT)
        for mine, its in _FRAGMENT_COLUMNS.items():
            fragments[mine] = columns[its]
        first = np.flatnonzero(fragments["layer"] == 0)  # every part has rows, and they come first
        parts = np.empty(len(first), PART)
        for mine, its in _PART_COLUMNS.items():
            parts[mine] = np.asarray(columns[its])[first]
        parts["start"], parts["stop"] = 0, parts["rows"]
        parts["held"] = np.diff(np.append(first, len(fragments)))
        keys = np.stack([np.asarray(columns[f"k{place}"])[first] for place in range(len(names))], axis=1)
        new = np.flatnonzero(np.any(np.diff(keys, axis=0, prepend=keys[:1] - 1) != 0, axis=1)) if len(keys) else first
        paths = {uid.encode(): path for uid, path in zip(columns["uid"], columns["path"], strict=True) if path}
        return cls(names, keys[new], np.diff(np.append(new, len(parts))), parts, fragments, layers, paths)

    @classmethod
    def of_immutables(cls, uid: str | None, schema_version: int = 0) -> "PartitionTable":
        """Return the table of the immutable variables: one group without rows, or none."""
        count = int(uid is not None)
        parts, fragments = np.zeros(count, PART), np.zeros(count, FRAGMENT)
        parts["held"], fragments["schema"] = 1, schema_version
        paths = {}
        if uid is not None:
            fragments["uid"] = uid
            paths[uid.encode()] = layout.immutable_path(uid)
        return cls((), np.zeros((count, 0), np.int64), np.ones(count, np.int64), parts, fragments, {}, paths)

    @classmethod
    def of_own(
        cls,
        base: "PartitionTable",
        own: Mapping[KeyValues, Sequence[OwnFragment]],
        layers: Mapping[int, frozenset[int]],
    ) -> "PartitionTable":
        """Return the rows of a base, divided where a view has own values, which are all that is held."""
        parts: list[tuple[int, ...]] = []
        held: list[tuple[Any, ...]] = []
        counts: list[int] = []
        paths: dict[bytes, str] = {}
        for values, rows in zip(base.values.tolist(), base.sizes, strict=True):
            mine = own.get(pad_key(tuple(values)), ())
            edges = sorted({0, rows, *(edge for each in mine for edge in each.at if edge < rows)})
            for first, last in pairwise(edges):
                here = [each for each in mine if each.at[0] <= first and last <= each.at[1]]
                parts.append((last - first, 0, last - first, 0, 0, -1, len(here)))
                held += [_own_row(each, first) for each in here]
            counts.append(len(edges) - 1)
            paths |= {each.uid.encode(): each.path for each in mine if each.path}
        columns = np.array(parts, PART), np.array(held, FRAGMENT)
        return cls(base.names, base.values, np.array(counts, np.int64), *columns, layers, paths)

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def keys(self) -> tuple[PartitionKey, ...]:
        """The key of each partition."""
        return tuple(name_values(self.names, values) for values in self.values.tolist())

    @cached_property
    def piece_sizes(self) -> Integers:
        """The number of rows of each part, as far as they belong to the table."""
        return np.asarray(self.parts["stop"] - self.parts["start"])

    @cached_property
    def sizes(self) -> list[int]:
        """The number of rows of each partition."""
        return np.diff(self._row_ends[self._part_ends]).tolist()  # type: ignore[no-any-return]  # of integers

    @property
    def rows(self) -> int:
        """All rows."""
        return int(self._row_ends[-1])

    @property
    def starts(self) -> Integers:
        """How many rows there are before each part."""
        return self._row_ends[:-1]

    def rows_before(self, number: int) -> int:
        """Return how many rows there are before a part in its partition."""
        first = self._part_ends[np.searchsorted(self._part_ends, number, "right") - 1]
        return int(self._row_ends[number] - self._row_ends[first])

    @property
    def places(self) -> dict[tuple[KeyValues, int], int]:
        """The number of each part, by all six key columns and the first axis value."""
        keys = [pad_key(tuple(values)) for values in self.values.tolist()]
        lows = self.parts["low"].tolist()
        return {(keys[place], low): number for number, (place, low) in enumerate(zip(self._places, lows, strict=True))}

    @cached_property
    def _row_ends(self) -> Integers:
        """How many rows there are before each part, and in all."""
        return np.concatenate([[0], np.cumsum(self.piece_sizes)])

    @cached_property
    def _part_ends(self) -> Integers:
        """How many parts there are before each partition, and in all."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    @cached_property
    def _fragment_ends(self) -> Integers:
        """How many fragments there are before each part, and in all."""
        return np.concatenate([[0], np.cumsum(self.parts["held"])])

    def cut(self, start: int, stop: int) -> "PartitionTable":
        """Return it with the partitions ``start`` … ``stop`` alone."""
        ends = self._part_ends
        return self._of_parts(int(ends[start]), int(ends[min(stop, len(self))]))

    def slice_rows(self, start: int, stop: int) -> "PartitionTable":
        """Return it with the rows ``start`` … ``stop`` alone."""
        first = int(np.searchsorted(self._row_ends, start, "right")) - 1
        last = int(np.searchsorted(self._row_ends, stop, "left"))
        if start >= stop:
            return self._of_parts(0, 0)
        cut = self._of_parts(first, last)
        parts = cut.parts.copy()
        parts["start"][0] += start - self._row_ends[first]
        parts["stop"][-1] -= self._row_ends[last] - stop
        cut = replace(cut, parts=parts)
        return cut.take(np.flatnonzero(cut.piece_sizes)) if np.any(cut.piece_sizes == 0) else cut

    def _of_parts(self, first: int, last: int) -> "PartitionTable":
        """Return it with consecutive parts alone."""
        fragments = self.fragments[self._fragment_ends[first] : self._fragment_ends[last]]
        begin = int(np.searchsorted(self._part_ends, first, "right")) - 1
        end = max(int(np.searchsorted(self._part_ends, last, "left")), begin)
        if first >= last:
            begin = end = 0
        counts = np.asarray(np.diff(np.clip(self._part_ends[begin : end + 1], first, last)), np.int64)
        values, parts = self.values[begin:end], self.parts[first:last]
        return replace(self, values=values, counts=counts, parts=parts, fragments=fragments)

    def of_rows(self, ranges: Iterable[tuple[int, int]]) -> "PartitionTable":
        """Return it with ranges of rows alone, counted through all partitions, in their order."""
        starts, stops = np.array(list(ranges), np.int64).reshape(-1, 2).T
        ends = self._row_ends
        first, last = np.searchsorted(ends, starts, "right") - 1, np.searchsorted(ends, stops, "left")
        counts = np.where(starts < stops, last - first, 0)  # how many parts each range meets
        numbers = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        begin = np.maximum(np.repeat(starts, counts), ends[numbers])
        end = np.minimum(np.repeat(stops, counts), ends[numbers + 1])
        before, some = ends[numbers] - self.parts["start"][numbers], begin < end
        return self.take(numbers[some], (begin - before)[some], (end - before)[some])

    def ranges_of(self, other: "PartitionTable") -> list[tuple[int, int]]:
        """Return the rows that another table of the same parts has of this one's, counted through all partitions."""
        starts = self._row_ends[:-1] + other.parts["start"] - self.parts["start"]
        return [
            (start, start + size)
            for start, size in zip(starts.tolist(), other.piece_sizes.tolist(), strict=True)
            if size
        ]

    def take(self, numbers: Integers | Sequence[int], starts: Any = None, stops: Any = None) -> "PartitionTable":
        """Return it with some parts alone, in their order; of these perhaps with some of their rows alone.

        ``starts`` and ``stops`` are counted from the first row of each whole part.
        """
        numbers = np.asarray(numbers, np.intp)
        parts = self.parts[numbers]
        if starts is not None:
            parts["start"], parts["stop"] = starts, stops
        held = parts["held"].astype(np.intp)
        offsets = np.arange(held.sum()) - np.repeat(np.cumsum(held) - held, held)
        fragments = self.fragments[np.repeat(self._fragment_ends[numbers], held) + offsets]
        partitions = np.searchsorted(self._part_ends, numbers, "right") - 1
        kept, counts = np.unique(partitions, return_counts=True)
        return replace(self, values=self.values[kept], counts=counts, parts=parts, fragments=fragments)

    def holders(self, variable: SchemaVariable) -> Integers:
        """Return which fragment has the values of a variable, for each part; -1 where none has."""
        versions, layers = self.fragments["schema"], self.fragments["layer"]
        had = _mapped(versions, variable.was_there) & (layers <= 0)
        if len(self.fragments) == len(self.parts) and not (layers > 0).any():
            return np.where(had, np.arange(len(self.parts)), -1)
        had |= _mapped(layers, lambda layer: variable.id in self.layers.get(layer, ())) & (layers > 0)
        found = self._newest_first[had[self._newest_first]]
        part = self._parts_of_fragments[found]
        first = np.diff(part, prepend=-1) != 0
        holders = np.full(len(self.parts), -1)
        holders[part[first]] = found[first]
        return holders

    @cached_property
    def _parts_of_fragments(self) -> Integers:
        return np.repeat(np.arange(len(self.parts)), self.parts["held"])

    @cached_property
    def _newest_first(self) -> Integers:
        """The fragments of each part: of two with a variable, the one that was written later has its values."""
        fragments = self.fragments
        return np.lexsort((-fragments["layer"], -fragments["written"], self._parts_of_fragments))

    def stretches(self, variable: SchemaVariable) -> Iterator[Stretch]:
        """Yield where the values of a variable lie, part by part."""
        holders = self.holders(variable)
        here = self._held(holders)
        first = np.where(holders < 0, 0, here["start"])
        starts, stops = first + self.parts["start"], first + self.parts["stop"]
        columns = holders, here["uid"], starts, stops, here["group_rows"], self._places
        for holder, uid, start, stop, rows, place in zip(*(column.tolist() for column in columns), strict=True):
            yield Stretch(None if holder < 0 else self._path(uid, place), start, stop, rows)

    def _held(self, holders: Integers) -> Records:
        """Return fragments by their numbers; any for -1."""
        return self.fragments[holders] if len(self.fragments) else np.zeros(len(holders), FRAGMENT)

    def paths_of(self, variable: SchemaVariable) -> list[tuple[str, ...]]:
        """Return the groups in which a variable lies, in the order of the rows, each once: those of each partition."""
        found: list[dict[str, None]] = [{} for _ in self.counts]
        for place, stretch in zip(self._places.tolist(), self.stretches(variable), strict=True):
            if stretch.path is not None:
                found[place][stretch.path] = None
        return [tuple(each) for each in found]

    @cached_property
    def _places(self) -> Integers:
        """The number of each part's partition."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def _path(self, uid: bytes, place: int) -> str:
        known = self.paths.get(uid) if self.paths else None
        return known or layout.group_path(self._directories[place], uid.decode())

    @cached_property
    def _directories(self) -> Sequence[str]:
        return [layout.partition_path(key) for key in self.keys]

    @cached_property
    def token(self) -> str:
        """What tells these rows from all others, anywhere: uids are never given twice."""
        digest = hashlib.sha256(np.ascontiguousarray(self.parts).tobytes())
        digest.update(np.ascontiguousarray(self.fragments).tobytes())
        return digest.hexdigest()

    def token_of(self, variable: SchemaVariable) -> str:
        """What tells the values of one variable in these rows from all others."""
        holders = self.holders(variable)
        here = self._held(holders)
        here["uid"][holders < 0] = b""
        starts = np.where(holders < 0, 0, here["start"] + self.parts["start"])
        digest = hashlib.sha256(np.ascontiguousarray(here["uid"]).tobytes())
        digest.update(np.stack([starts, self.piece_sizes]).tobytes())
        return digest.hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        # Tasks carry tables of few parts: the columns alone are pickled, not what describes them.
        columns = (np.ascontiguousarray(each).tobytes() for each in (self.values, self.counts, self.parts))
        used = {uid: self.paths[uid] for uid in set(self.fragments["uid"].tolist()) if uid in self.paths}
        return _unpickled, (self.names, *columns, self.fragments.tobytes(), dict(self.layers), used)

    def __str__(self) -> str:
        lines = []
        for number, (part, place) in enumerate(zip(self.parts, self._places.tolist(), strict=True)):
            held = self.fragments[self._fragment_ends[number] : self._fragment_ends[number + 1]]
            groups = (
                f"{self._path(each['uid'], place)}[{each['start'] + part['start']}:{each['start'] + part['stop']}]"
                for each in held
            )
            rows = f"{part['start']}:{part['stop']} of {part['rows']} rows"
            lines.append(f"{format_key(self.keys[place])}  {rows}  {' '.join(groups)}")
        return "\n".join(lines)


_FRAGMENT_COLUMNS = {
    **{"uid": "uid", "layer": "layer_id", "written": "written_version", "schema": "schema_version"},
    **{"start": "start", "group_rows": "group_rows"},
}
_PART_COLUMNS = {"rows": "rows", "low": "axis_min", "high": "axis_max", "unique": "axis_unique"}


def _own_row(own: OwnFragment, first: int) -> tuple[Any, ...]:
    """Return a view's fragment as from one of its rows on."""
    start = own.start + first - own.base_row
    return own.uid, own.layer_id, own.written_version, own.schema_version, start, own.group_rows


def _unpickled(
    names: tuple[str, ...],
    values: bytes,
    counts: bytes,
    parts: bytes,
    fragments: bytes,
    layers: dict[int, frozenset[int]],
    paths: dict[bytes, str],
) -> PartitionTable:
    numbers = np.frombuffer(counts, np.int64)
    keys = np.frombuffer(values, np.int64).reshape(len(numbers), len(names))
    return PartitionTable(
        names, keys, numbers, np.frombuffer(parts, PART), np.frombuffer(fragments, FRAGMENT), layers, paths
    )


def _mapped(values: npt.NDArray[Any], function: Any) -> npt.NDArray[np.bool_]:
    """Return what a function says of each value, asked once of each that there is."""
    known, places = np.unique(values, return_inverse=True)
    return np.array([function(value) for value in known.tolist()], bool)[places]
