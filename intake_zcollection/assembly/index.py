"""An index whose labels are read when they are first needed, and not before.

xarray's default index loads a coordinate at once, which for ten years of satellite data is the cost of
opening it. This one keeps the lazy variable; everything that needs labels (``sel``, ``join``, ``reindex``)
is the default index's, on labels read then.
"""

from collections.abc import Hashable, Mapping
from functools import cached_property
from typing import Any, Self

import pandas as pd
import xarray as xr
from dask.base import tokenize
from xarray.core.indexes import safe_cast_to_index
from xarray.indexes import PandasIndex


class LazyIndex(PandasIndex):
    """The labels of one dimension, read on demand.

    Parameters
    ----------
    name
        The coordinate's name.
    variable
        The lazy, one-dimensional variable of the labels.
    token
        What the labels come from: equal tokens are equal labels, which saves reading them to compare.
    """

    def __init__(self, name: Hashable, variable: xr.Variable, token: str) -> None:
        self._name = name
        self._variable = variable
        self._token = token
        self.dim = variable.dims[0]
        self.coord_dtype = variable.dtype

    @cached_property
    def index(self) -> pd.Index:  # type: ignore[override,type-arg,unused-ignore]  # a slot of the base class
        """The labels; the first access reads them."""
        index = safe_cast_to_index(self._variable.values)
        index.name = self._name
        return index

    def create_variables(self, variables: Mapping[Any, xr.Variable] | None = None) -> dict[Any, xr.Variable]:
        """Return the coordinate variable, still lazy; attributes and encoding as in ``variables``."""
        variable = self._variable
        if variables is not None and self._name in variables:
            like = variables[self._name]
            variable = xr.Variable(variable.dims, variable._data, like.attrs, like.encoding, fastpath=True)
        return {self._name: variable}

    def isel(self, indexers: Mapping[Any, Any]) -> "LazyIndex | None":
        """Select by position: lazily, where the result still has the dimension."""
        variable = self._variable.isel({self.dim: indexers[self.dim]})
        if variable.dims != (self.dim,):
            return None
        return LazyIndex(self._name, variable, tokenize(self._token, indexers[self.dim]))

    def equals(self, other: Any, *, exclude: Any = None) -> bool:
        """Tell whether the labels are equal; read them only if they come from elsewhere."""
        if isinstance(other, LazyIndex) and (self._token, self.dim) == (other._token, other.dim):
            return True
        return bool(super().equals(other, exclude=exclude))

    def rename(self, name_dict: Mapping[Any, Hashable], dims_dict: Mapping[Any, Hashable]) -> "LazyIndex":
        """Rename the coordinate, or its dimension, lazily."""
        variable = xr.Variable(dims_dict.get(self.dim, self.dim), self._variable._data, fastpath=True)
        return LazyIndex(name_dict.get(self._name, self._name), variable, self._token)

    def join(self, other: Any, how: str = "inner") -> "LazyIndex":
        """Join labels exactly."""
        return _of_labels(_loaded(self).join(_loaded(other), how))

    @classmethod
    def concat(cls, indexes: Any, dim: Hashable, positions: Any = None) -> "LazyIndex":
        """Put labels one after the other."""
        return _of_labels(PandasIndex.concat([_loaded(index) for index in indexes], dim, positions))

    def _replace(self, index: Any, dim: Any = None, coord_dtype: Any = None) -> "LazyIndex":
        return _of_labels(_loaded(self)._replace(index, dim, coord_dtype))

    def _copy(self, deep: bool = True, memo: dict[int, Any] | None = None) -> Self:
        return self  # nothing in it changes, but for the labels being read once

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyIndex, (self._name, self._variable, self._token)

    def __repr__(self) -> str:
        if "index" in self.__dict__:
            return f"LazyIndex({self.index!r})"
        return f"LazyIndex({self._name!r}, {self._variable.size} labels, not read yet)"


def _loaded(index: PandasIndex) -> PandasIndex:
    return PandasIndex(index.index, index.dim, index.coord_dtype, fastpath=True)


def _of_labels(index: PandasIndex) -> LazyIndex:
    """Return an index of labels at hand. It stays a LazyIndex, since xarray aligns only indexes of one class."""
    (variable,) = index.create_variables().values()
    return LazyIndex(index.index.name, variable.to_base_variable(), tokenize(index.index))
