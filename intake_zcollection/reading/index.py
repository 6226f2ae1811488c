"""Coordinates that label a dimension, read when their labels are first needed, and not before.

xarray's default index loads a coordinate at once, which for ten years of satellite data is the cost of
opening it. This one does not, and ``sel`` reads few labels (see :mod:`.labels`); once all have been read, for a join
or by ``compute``, the index *becomes* xarray's own, in place. So a dataset in memory has nothing of ours any more, and
everything that is done with it is done by xarray.

All that has to do with the inside of xarray's indexes is here: there is no public way to an index variable that is
not in memory. An xarray ``IndexVariable`` holds a ``PandasIndexingAdapter``, and nobody may assign to its values.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize
from xarray.core.formatting import format_array_flat
from xarray.core.indexes import safe_cast_to_index
from xarray.core.indexing import IndexSelResult, PandasIndexingAdapter
from xarray.indexes import PandasIndex

from .labels import NOTHING_KNOWN, Segments, Unread

_SLOT: Any = PandasIndex.index
"""Where an ordinary index has its labels."""


class _LikePandasIndex(type):
    """Equal to PandasIndex: xarray aligns only indexes of equal classes, and these two do join each other's labels.

    Without it, arithmetic with any other dataset and ``reindex`` would raise an AlignmentError.
    """

    def __eq__(cls, other: object) -> bool:
        return other is PandasIndex or type.__eq__(cls, other)

    def __hash__(cls) -> int:
        return hash(PandasIndex)


class LazyIndex(PandasIndex, metaclass=_LikePandasIndex):
    """The labels of one dimension, not read yet; made by :meth:`from_lazy`.

    Its class changes when they are read, by another thread perhaps: so what it knows is asked for by :func:`_unread`,
    and the base class by its name.
    """

    _labels: Unread

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Return an ordinary index: what the base class derives has its labels at hand."""
        return PandasIndex(*args, **kwargs)

    @classmethod
    def from_lazy(
        cls, name: Hashable, variable: xr.Variable, token: str, segments: Segments = NOTHING_KNOWN
    ) -> "LazyIndex":
        """Return an index of a lazy variable's labels; the parameters are the attributes of :class:`.Unread`."""
        self: LazyIndex = object.__new__(cls)
        self._labels = Unread(name, variable, token, segments)
        self.dim, self.coord_dtype = variable.dims[0], variable.dtype
        return self

    @property
    def index(self) -> pd.Index:  # type: ignore[override,unused-ignore]  # a slot of the base class
        """The labels; the first access reads them, and makes this an ordinary index."""
        unread = _unread(self)
        if unread is not None:
            index = safe_cast_to_index(unread.read())
            index.name = unread.name
            _SLOT.__set__(self, index)
            self.__class__ = PandasIndex  # type: ignore[assignment]  # its instances have the same layout
            vars(self).clear()
        return _SLOT.__get__(self)

    def create_variables(self, variables: Mapping[Any, xr.Variable] | None = None) -> Any:
        """Return the coordinate variable, still lazy; attributes and encoding as in ``variables``."""
        unread = _unread(self)
        name = self.index.name if unread is None else unread.name
        like = (variables or {}).get(name)
        attributes, encoding = (None, None) if like is None else (like.attrs, like.encoding)
        return {name: LazyIndexVariable(self.dim, LazyLabels(self), attributes, encoding, True)}  # type: ignore[no-untyped-call]  # so in xarray

    def isel(self, indexers: Mapping[Any, Any]) -> PandasIndex | None:
        """Select by position: lazily, where the result still has the dimension."""
        unread = _unread(self)
        if unread is None:
            return PandasIndex.isel(self, indexers)
        indexer = indexers[self.dim]
        variable = unread.variable.isel({self.dim: indexer})
        if variable.dims != (self.dim,):
            return None
        return LazyIndex.from_lazy(unread.name, variable, tokenize(unread.token, indexer), unread.segments_of(indexer))

    def sel(self, labels: dict[Any, Any], method: str | None = None, tolerance: Any = None) -> IndexSelResult:
        """Select by label; read the labels of the partitions that the selection cuts, and of all others none."""
        unread = _unread(self)
        (label,) = labels.values()
        sample = None if unread is None else unread.sample(label, inexact=method is not None)
        if sample is not None:
            found = None
            try:
                some = PandasIndex(sample.labels, self.dim, self.coord_dtype)
                found = sample.mapped(some.sel(labels, method, tolerance).dim_indexers[self.dim])
            except KeyError:
                if not isinstance(label, str):
                    raise
            # Whether a date's text is a period or an instant depends on the finest label that there is: in a sample
            # only a period is certain.
            if isinstance(found, slice) or not (found is None or isinstance(label, str)):
                return IndexSelResult({self.dim: found})
        return PandasIndex.sel(self, labels, method, tolerance)

    def equals(self, other: Any, *, exclude: Any = None) -> bool:
        """Tell whether the labels are equal; read them only if they come from elsewhere."""
        mine, its = _unread(self), _unread(other)
        if mine is not None and its is not None and (mine.token, self.dim) == (its.token, other.dim):
            return True
        return bool(PandasIndex.equals(self, other, exclude=exclude))

    def rename(self, name_dict: Mapping[Any, Hashable], dims_dict: Mapping[Any, Hashable]) -> Any:
        """Rename the coordinate, or its dimension, lazily."""
        unread = _unread(self)
        if unread is None:
            return PandasIndex.rename(self, name_dict, dims_dict)
        variable = xr.Variable(dims_dict.get(self.dim, self.dim), unread.variable._data, fastpath=True)
        return LazyIndex.from_lazy(name_dict.get(unread.name, unread.name), variable, unread.token, unread.segments)

    def _copy(self, deep: bool = True, memo: dict[int, Any] | None = None) -> Any:
        return self  # nothing in it changes, but for the labels being read once

    def __reduce__(self) -> tuple[Any, ...]:
        unread = _unread(self)
        if unread is None:
            return PandasIndex, (self.index, self.dim, self.coord_dtype)
        return LazyIndex.from_lazy, (unread.name, unread.variable, unread.token, unread.segments)

    def __repr__(self) -> str:
        unread = _unread(self)
        if unread is None:
            return str(PandasIndex.__repr__(self))
        return f"LazyIndex({unread.name!r}, {unread.size} labels, not read yet)"


def _unread(index: Any) -> Unread | None:
    """Return what is known of an index's labels before they are read; None if they have been."""
    unread: Unread | None = vars(index).get("_labels")
    return unread


class LazyLabels(PandasIndexingAdapter):
    """The values of an index's coordinate: read with the index, or, of a selection, by themselves."""

    __slots__ = ("_index",)

    def __init__(self, index: Any) -> None:
        self._index = index
        self._dtype = np.dtype(index.coord_dtype)

    @property
    def array(self) -> pd.Index:  # type: ignore[override,type-arg,unused-ignore]  # a slot of the base class
        """The labels; the first access reads them."""
        return self._index.index

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of labels, known without reading."""
        unread = _unread(self._index)
        return (len(self.array) if unread is None else unread.size,)

    @property
    def nbytes(self) -> int:
        """The bytes of all labels in memory."""
        return self._dtype.itemsize * self.shape[0]

    @property
    def _in_memory(self) -> bool:
        return _unread(self._index) is None

    def __getitem__(self, indexer: Any) -> Any:
        return self._select(indexer, lambda array: array[indexer])

    def _oindex_get(self, indexer: Any) -> Any:
        return self._select(indexer, lambda array: array.oindex[indexer])

    def _vindex_get(self, indexer: Any) -> Any:
        return self._select(indexer, lambda array: array.vindex[indexer])

    def _select(self, indexer: Any, select: Any) -> Any:
        unread = _unread(self._index)
        if unread is None:
            return select(PandasIndexingAdapter(self.array, self._dtype))
        (key,) = indexer.tuple
        if isinstance(key, slice) or np.ndim(key) == 1:
            return LazyLabels(self._index.isel({self._index.dim: key}))
        return select(unread.variable._data)

    def __deepcopy__(self, memo: Any) -> "LazyLabels":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyLabels, (self._index,)

    def _repr_inline_(self, max_width: int) -> str:
        return str(format_array_flat(self, max_width)) if self._in_memory else "..."


class LazyIndexVariable(xr.IndexVariable):
    """A coordinate that labels a dimension, with its index not read yet; an ordinary one once it is loaded."""

    __slots__ = ()

    @property
    def _in_memory(self) -> bool:
        return bool(getattr(self._data, "_in_memory", True))  # older versions of xarray do not ask the data

    def load(self, **kwargs: Any) -> Any:
        """Read the labels, which xarray takes to be in memory."""
        if isinstance(self._data, LazyLabels):
            self._data = PandasIndexingAdapter(self._data.array, self._data.dtype)
        self.__class__ = xr.IndexVariable  # type: ignore[assignment]  # its instances have the same layout
        return self

    async def load_async(self, **kwargs: Any) -> Any:
        """Read the labels."""
        return self.load()

    def __dask_tokenize__(self) -> object:
        unread = _unread(self._data._index) if isinstance(self._data, LazyLabels) else None
        if unread is None:
            return xr.IndexVariable.__dask_tokenize__(self)
        return tokenize(xr.IndexVariable, self._dims, unread.token, self._attrs or None)
