"""An index whose labels are read when they are first needed, and not before.

xarray's default index loads a coordinate at once, which for ten years of satellite data is the cost of
opening it. This one keeps the lazy variable; everything that needs labels (``join``, ``reindex``) is the default
index's, on labels read then. For ``sel`` it needs few of them: the registry knows the first and the last label of
each partition, and so the default index is asked on a sparse sample of the labels, which has all of those
partitions that the selection cuts, and only the first and the last of all others.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize
from xarray.core.indexes import safe_cast_to_index
from xarray.core.indexing import IndexSelResult
from xarray.indexes import PandasIndex


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive labels, sorted."""

    start: int
    stop: int
    bounds: tuple[Any, Any] | None
    """The first and the last label, as integers (times: ns since 1970); None if they have to be read."""

    def cut(self, start: int, stop: int) -> "Segment":
        """Return what is left of it between two positions, counted from the first of them."""
        low, high = max(self.start, start), min(self.stop, stop)
        whole = (low, high) == (self.start, self.stop)
        return Segment(low - start, high - start, self.bounds if whole else None)


class _LikePandasIndex(type):
    """Equal to PandasIndex: xarray aligns only indexes of equal classes, and these two do join each other's labels.

    Without it, arithmetic with any other dataset and ``reindex`` would raise an AlignmentError.
    """

    def __eq__(cls, other: object) -> bool:
        return other is PandasIndex or type.__eq__(cls, other)

    def __hash__(cls) -> int:
        return hash(PandasIndex)


class LazyIndex(PandasIndex, metaclass=_LikePandasIndex):
    """The labels of one dimension, read on demand; made by :meth:`from_lazy`.

    What the base class derives from labels that were read (a join, say) is made by its constructor, and has them.
    """

    _name: Hashable
    _variable: xr.Variable | None = None
    """The lazy, one-dimensional variable of the labels; None if they were at hand from the beginning."""
    _token: str = ""
    _segments: tuple[Segment, ...] = ()

    @classmethod
    def from_lazy(
        cls, name: Hashable, variable: xr.Variable, token: str, segments: tuple[Segment, ...] = ()
    ) -> "LazyIndex":
        """Return an index of a lazy variable's labels.

        Parameters
        ----------
        name
            The coordinate's name.
        variable
            The labels.
        token
            What they come from: equal tokens are equal labels, which saves reading them to compare.
        segments
            What is known of the labels, all of them; empty if nothing is.
        """
        self = cls.__new__(cls)
        self._name, self._variable, self._token, self._segments = name, variable, token, segments
        self.dim, self.coord_dtype = variable.dims[0], variable.dtype
        return self

    @cached_property
    def index(self) -> pd.Index:  # type: ignore[override,type-arg,unused-ignore]  # a slot of the base class
        """The labels; the first access reads them."""
        assert self._variable is not None  # otherwise the constructor has set them
        index = safe_cast_to_index(self._variable.values)
        index.name = self._name
        return index

    def create_variables(self, variables: Mapping[Any, xr.Variable] | None = None) -> Any:
        """Return the coordinate variable, still lazy; attributes and encoding as in ``variables``."""
        variable = self._variable
        if variable is None:
            return super().create_variables(variables)
        if variables is not None and self._name in variables:
            like = variables[self._name]
            variable = xr.Variable(variable.dims, variable._data, like.attrs, like.encoding, fastpath=True)
        return {self._name: variable}

    def isel(self, indexers: Mapping[Any, Any]) -> PandasIndex | None:
        """Select by position: lazily, where the result still has the dimension."""
        if self._variable is None:
            return super().isel(indexers)
        variable = self._variable.isel({self.dim: indexers[self.dim]})
        if variable.dims != (self.dim,):
            return None
        kept = self._cut(indexers[self.dim])
        return self.from_lazy(self._name, variable, tokenize(self._token, indexers[self.dim]), kept)

    def _cut(self, indexer: Any) -> tuple[Segment, ...]:
        if not isinstance(indexer, slice):
            return ()
        start, stop, step = indexer.indices(self._segments[-1].stop if self._segments else 0)
        if step != 1:
            return ()
        kept = (segment for segment in self._segments if segment.start < stop and start < segment.stop)
        return tuple(segment.cut(start, stop) for segment in kept)

    def sel(self, labels: dict[Any, Any], method: str | None = None, tolerance: Any = None) -> IndexSelResult:
        """Select by label; read the labels of the partitions that the selection cuts, and of all others none."""
        (label,) = labels.values()
        if self._variable is None or "index" in self.__dict__ or self._edges is None:
            return super().sel(labels, method, tolerance)
        cut = _cut_segments(self._edges, label)
        if cut is None:
            return super().sel(labels, method, tolerance)
        positions, sample = self._sample(cut)
        result = PandasIndex(sample, self.dim, self.coord_dtype).sel(labels, method, tolerance)
        found = result.dim_indexers[self.dim]
        if _is_text(label) and not isinstance(found, slice):
            # Whether a date is a period or an instant depends on the finest label that there is.
            return super().sel(labels, method, tolerance)
        return IndexSelResult({self.dim: _mapped(found, positions, self._variable.size)})

    @cached_property
    def _edges(self) -> pd.Index | None:  # type: ignore[type-arg,unused-ignore]  # of either dtype
        """The first and the last label of each segment, in order; None unless all labels are sorted."""
        bounds = [segment.bounds or self._bounds(segment) for segment in self._segments]
        integers = np.array(bounds, np.int64).ravel()
        labels = integers.view("M8[ns]") if np.dtype(self.coord_dtype).kind == "M" else integers
        edges = pd.Index(labels.astype(self.coord_dtype), name=self._name)
        return edges if len(edges) and edges.is_monotonic_increasing else None

    def _bounds(self, segment: Segment) -> tuple[Any, Any]:
        ends = self._labels(segment)[[0, -1]]
        first, last = (ends.astype("M8[ns]") if ends.dtype.kind == "M" else ends).astype(np.int64).tolist()
        return first, last

    def _labels(self, segment: Segment) -> Any:
        assert self._variable is not None  # only lazy indexes have segments
        return self._variable[segment.start : segment.stop].values

    def _sample(self, cut: set[int]) -> tuple[Any, pd.Index]:  # type: ignore[type-arg,unused-ignore]  # of either dtype
        """Return positions, and their labels: all of the segments that are cut, the first and the last of others."""
        positions, labels = [], []
        for number, segment in enumerate(self._segments):
            if number in cut:
                positions.append(np.arange(segment.start, segment.stop))
                labels.append(self._labels(segment))
            else:
                ends = [segment.start, segment.stop - 1][: segment.stop - segment.start]
                positions.append(np.array(ends))
                labels.append(self._edges[2 * number : 2 * number + len(ends)].values)  # type: ignore[index]  # sel asked
        return np.concatenate(positions), pd.Index(np.concatenate(labels), name=self._name)

    def equals(self, other: Any, *, exclude: Any = None) -> bool:
        """Tell whether the labels are equal; read them only if they come from elsewhere."""
        lazy = isinstance(other, LazyIndex) and self._variable is not None and other._variable is not None
        if lazy and (self._token, self.dim) == (other._token, other.dim):
            return True
        return bool(super().equals(other, exclude=exclude))

    def rename(self, name_dict: Mapping[Any, Hashable], dims_dict: Mapping[Any, Hashable]) -> "LazyIndex":
        """Rename the coordinate, or its dimension, lazily."""
        if self._variable is None:
            renamed: LazyIndex = super().rename(name_dict, dims_dict)  # type: ignore[no-untyped-call]  # so in xarray
            return renamed
        variable = xr.Variable(dims_dict.get(self.dim, self.dim), self._variable._data, fastpath=True)
        return self.from_lazy(name_dict.get(self._name, self._name), variable, self._token, self._segments)

    def _copy(self, deep: bool = True, memo: dict[int, Any] | None = None) -> Any:
        # Nothing in a lazy index changes, but for the labels being read once.
        return self if self._variable is not None else super()._copy(deep, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._variable is None:
            return LazyIndex, (self.index, self.dim, self.coord_dtype)
        return LazyIndex.from_lazy, (self._name, self._variable, self._token, self._segments)

    def __repr__(self) -> str:
        if self._variable is None or "index" in self.__dict__:
            return f"LazyIndex({self.index!r})"
        return f"LazyIndex({self._name!r}, {self._variable.size} labels, not read yet)"


def _cut_segments(edges: Any, label: Any) -> set[int] | None:
    """Return which segments have to be read to find a label or a slice of them; None if that cannot be told."""
    if isinstance(label, slice):
        if label.step is not None:
            return None
        return _cut_by_slice(edges, label.start, label.stop)
    if _is_text(label):
        return _cut_by_slice(edges, label, label)
    if isinstance(label, Mapping):
        return None
    wanted = pd.Index(np.ravel(getattr(label, "values", label)))
    if wanted.dtype.kind != edges.dtype.kind or wanted.hasnans:
        return None
    cut: set[int] = set()
    for left, right in zip(edges.searchsorted(wanted, "left"), edges.searchsorted(wanted, "right"), strict=True):
        if left < right or left % 2:  # otherwise it lies between two segments
            cut.update(range(left // 2, (right - 1) // 2 + 1))
    return cut


def _cut_by_slice(edges: Any, low: Any, high: Any) -> set[int] | None:
    try:
        left = 0 if low is None else edges.get_slice_bound(low, "left")
        right = 0 if high is None else edges.get_slice_bound(high, "right")
    except (TypeError, KeyError, ValueError):  # the default index has the message for it
        return None
    return {position // 2 for position in (left, right) if position % 2}


def _is_text(label: Any) -> bool:
    return isinstance(label, str)


def _mapped(found: Any, positions: Any, size: int) -> Any:
    """Return what was found in the sample as positions among all labels."""
    if isinstance(found, slice):
        start, stop, _ = found.indices(len(positions))
        if start >= stop:
            nowhere = int(positions[start]) if start < len(positions) else size
            return slice(nowhere, nowhere)
        return slice(int(positions[start]), int(positions[stop - 1]) + 1)
    if isinstance(found, xr.Variable | xr.DataArray):
        return found.copy(data=positions[found.values])
    return positions[found]
