"""Labels of a dimension that have not been read, and which of them have to be, to find some.

The registry knows the first and the last label of each partition, and whether a label is repeated in it. So labels can
be looked for in a sparse sample of them, which has all of those partitions that are cut, and only the first and the
last of all others: it finds what all labels would find, and its errors are theirs. Where that is not certain, for
labels of another kind perhaps, there is no sample, and all have to be read.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

Integers = npt.NDArray[np.int64]

Cut = tuple[set[int], set[int]]
"""Which segments have to be read to find some labels, and which lie next to where they are, or would be."""


@dataclass(frozen=True, eq=False)
class Segments:
    """Stretches of consecutive labels, each of them sorted: what is known of them before they are read.

    There may be millions, and they are looked up by bisection.
    """

    stops: Integers
    """Where each ends, counted from the first of all labels."""
    bounds: Integers
    """The first and the last label of each, as integers (times: ns since 1970): of shape (segments, 2)."""
    unread: npt.NDArray[np.bool_]
    """Whether these have to be read: of one that was cut."""
    unique: npt.NDArray[np.int8]
    """1 where no label is repeated, 0 where one is, -1 where nobody knows."""

    @classmethod
    def of(cls, sizes: Any, lows: Any, highs: Any, unique: Any) -> "Segments":
        """Return segments by their sizes and bounds."""
        bounds = np.stack([np.asarray(lows, np.int64), np.asarray(highs, np.int64)], axis=1)
        return cls(np.cumsum(sizes, dtype=np.int64), bounds, np.zeros(len(bounds), bool), np.asarray(unique, np.int8))

    def __len__(self) -> int:
        return len(self.stops)

    def slice_of(self, number: int) -> slice:
        """Return which labels a segment has."""
        return slice(int(self.stops[number - 1]) if number else 0, int(self.stops[number]))

    def cut(self, start: int, stop: int) -> "Segments":
        """Return what is left between two positions, counted from the first of them."""
        if start >= stop:
            return NOTHING_KNOWN
        first, last = (int(each) for each in np.searchsorted(self.stops, [start, stop - 1], "right"))
        kept = slice(first, last + 1)
        unread, unique = self.unread[kept].copy(), self.unique[kept].copy()
        for end, whole in ((0, self.slice_of(first).start >= start), (-1, int(self.stops[last]) <= stop)):
            if not whole:
                unread[end] = True
                unique[end] = unique[end] if unique[end] == 1 else -1
        return Segments(np.minimum(self.stops[kept], stop) - start, self.bounds[kept], unread, unique)

    @property
    def are_unique(self) -> bool:
        """Whether no label is repeated, in one or in two. Not kept: others may be pickling this at the same time."""
        within = np.all((self.unique == 1) | (np.diff(self.stops, prepend=0) == 1))
        return bool(within and np.all(self.bounds[1:, 0] > self.bounds[:-1, 1]))


NOTHING_KNOWN = Segments.of([], [], [], [])


@dataclass(frozen=True, eq=False)
class Sample:
    """Some of the labels, sorted, and where they stand among all."""

    labels: pd.Index  # type: ignore[type-arg,unused-ignore]  # of either dtype
    positions: Integers
    size: int
    """The number of all labels."""

    def mapped(self, found: Any) -> Any:
        """Return what was found in the sample as positions among all labels; None for what cannot be told."""
        if isinstance(found, slice):
            start, stop, _ = found.indices(len(self.positions))
            if start >= stop:
                nowhere = int(self.positions[start]) if start < len(self.positions) else self.size
                return slice(nowhere, nowhere)
            return slice(int(self.positions[start]), int(self.positions[stop - 1]) + 1)
        if np.asarray(found).dtype.kind != "i":  # a repeated label, looked for by a DataArray, which xarray refuses
            return None
        if isinstance(found, xr.Variable | xr.DataArray):
            return found.copy(data=self.positions[found.values])
        return self.positions[found]


@dataclass(frozen=True, eq=False)
class Unread:
    """The labels of a dimension, before all of them are read."""

    name: Hashable
    """The coordinate's name."""
    variable: xr.Variable
    """The labels, lazily."""
    token: str
    """What they come from: equal tokens are equal labels, which saves reading them to compare."""
    segments: Segments
    """What is known of the labels, of all of them; empty if nothing is."""
    _read: dict[int, Any] = field(default_factory=dict)
    """The labels of the segments that have been read."""

    @property
    def size(self) -> int:
        """The number of labels."""
        return self.variable.size

    def read(self) -> Any:
        """Return all labels."""
        if self._read and len(self._read) == len(self.segments):
            return np.concatenate([self._labels(number) for number in range(len(self.segments))])
        return self.variable.values

    def segments_of(self, indexer: Any) -> Segments:
        """Return what is known of the labels at some positions."""
        if not isinstance(indexer, slice) or not len(self.segments):
            return NOTHING_KNOWN
        start, stop, step = indexer.indices(self.size)
        return self.segments.cut(start, stop) if step == 1 else NOTHING_KNOWN

    def sample(self, label: Any, *, inexact: bool) -> Sample | None:
        """Return a sample in which a label, a slice or an array of them can be looked for; read what it takes.

        None if all labels have to be asked. ``inexact`` is whether the nearest label is looked for, or one of its kin.
        """
        edges = self._edges
        if edges is None:
            return None
        if isinstance(label, slice):
            cut = None if label.step is not None else _cut_by_slice(edges, label.start, label.stop)
        elif isinstance(label, str):
            # The nearest to a period is the nearest to its beginning, if only it is an instant: all labels tell.
            cut = _cut_by_slice(edges, label, label) if self._are_times and not inexact else None
        else:
            cut = self._cut_by_labels(label, inexact)
        if cut is None or len(cut[0]) == len(self.segments):
            return None
        return self._sample(edges, *cut)

    def _cut_by_labels(self, label: Any, inexact: bool) -> Cut | None:
        wanted = _as_integers(label, self._are_times)
        if wanted is None:
            return None
        # pandas looks for the nearest label, and for several at once, only where none of all is repeated.
        if (inexact or np.ndim(label)) and not self.segments.are_unique:
            return None
        return _cut_by_values(self._edge_values, wanted)

    def _sample(self, edges: Any, cut: set[int], near: set[int]) -> Sample:
        """Return the labels of the segments that are cut, and the first and the last of those that are near."""
        positions, labels = [], []
        last = len(self.segments) - 1
        for number in sorted({each for each in {0, last, *cut, *near} if 0 <= each <= last}):
            rows = self.segments.slice_of(number)
            if number in cut:
                positions.append(np.arange(rows.start, rows.stop))
                labels.append(self._labels(number))
            else:
                ends = [rows.start, rows.stop - 1][: rows.stop - rows.start]
                positions.append(np.array(ends))
                labels.append(edges.values[2 * number : 2 * number + len(ends)])
        return Sample(pd.Index(np.concatenate(labels), name=self.name), np.concatenate(positions), self.size)

    @property
    def _are_times(self) -> bool:
        return bool(self.variable.dtype.kind == "M")

    @cached_property
    def _edges(self) -> Any:
        """The first and the last label of each segment, in order; None unless all labels are known to be sorted."""
        values = self._edge_values
        if not len(values) or np.any(values[1:] < values[:-1]):
            return None
        return pd.Index((values.view("M8[ns]") if self._are_times else values).astype(self.variable.dtype))

    @cached_property
    def _edge_values(self) -> Integers:
        bounds = self.segments.bounds
        if self.segments.unread.any():
            bounds = bounds.copy()
            for number in np.flatnonzero(self.segments.unread).tolist():
                bounds[number] = self._bounds(number)
        return bounds.ravel()

    def _bounds(self, number: int) -> tuple[Any, Any]:
        ends = self._labels(number)[[0, -1]]
        first, last = (ends.astype("M8[ns]") if self._are_times else ends).astype(np.int64).tolist()
        return first, last

    def _labels(self, number: int) -> Any:
        if number not in self._read:
            self._read[number] = self.variable[self.segments.slice_of(number)].values
        return self._read[number]


def _cut_by_values(edges: Integers, wanted: Integers) -> Cut:
    """Return what it takes to find some labels, or their neighbours."""
    cut: set[int] = set()
    near: set[int] = set()
    lefts, rights = np.searchsorted(edges, wanted, "left"), np.searchsorted(edges, wanted, "right")
    for left, right in zip(lefts.tolist(), rights.tolist(), strict=True):
        near.update((left // 2 - 1, left // 2, right // 2, right // 2 + 1))
        if left < right or left % 2:  # otherwise it lies between two segments
            cut.update(range(left // 2, (right - 1) // 2 + 1))
    return cut, near


def _cut_by_slice(edges: Any, low: Any, high: Any) -> Cut | None:
    """Return what it takes to find a slice; None for bounds that are not labels of this kind."""
    try:
        left = 0 if low is None else edges.get_slice_bound(_scalar(low), "left")
        right = len(edges) if high is None else edges.get_slice_bound(_scalar(high), "right")
    except Exception:  # noqa: BLE001 - whatever is wrong with a bound, the ordinary index says it, of all labels
        return None
    near = {int(position) // 2 + step for position in (left, right) for step in (-1, 0, 1)}
    return {int(position) // 2 for position in (left, right) if position % 2}, near


def _scalar(bound: Any) -> Any:
    """Return a bound as xarray hands it on: an array without dimensions is its value."""
    return np.asarray(bound)[()] if isinstance(bound, np.ndarray | xr.Variable | xr.DataArray) else bound


def _as_integers(label: Any, times: bool) -> Integers | None:
    """Return labels as segments have them, times as ns since 1970; None for those that are something else."""
    if isinstance(label, Mapping):
        return None
    try:
        values = np.ravel(getattr(label, "values", label))
        if values.dtype == object:  # of Timestamps or datetimes, perhaps
            index = pd.Index(values)
            values = index.values if isinstance(index.dtype, np.dtype) else values  # otherwise with a time zone
    except Exception:  # noqa: BLE001 - whatever is wrong with a label, the ordinary index says it, of all labels
        return None
    if times:
        try:
            exact = values.astype("M8[ns]") if values.dtype.kind == "M" and not np.isnat(values).any() else None
        except OverflowError:  # from numpy 2.5 on; before, it wraps around
            return None
        return exact.view(np.int64) if exact is not None and np.all(exact.astype(values.dtype) == values) else None
    exact = values.astype(np.int64) if values.dtype.kind in "iu" else None
    return exact if exact is not None and np.all((exact < 0) == (values < 0)) else None
