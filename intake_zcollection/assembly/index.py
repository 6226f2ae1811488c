"""An index whose labels are read when they are first needed, and not before.

xarray's default index loads a coordinate at once, which for ten years of satellite data is the cost of
opening it. This one keeps the lazy variable; everything that needs labels (``sel``, ``join``, ``reindex``)
is the default index's, on labels read then.
"""

from collections.abc import Hashable, Mapping
from functools import cached_property
from typing import Any

import pandas as pd
import xarray as xr
from dask.base import tokenize
from xarray.core.indexes import safe_cast_to_index
from xarray.indexes import PandasIndex


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

    @classmethod
    def from_lazy(cls, name: Hashable, variable: xr.Variable, token: str) -> "LazyIndex":
        """Return an index of a lazy variable's labels.

        Parameters
        ----------
        name
            The coordinate's name.
        variable
            The labels.
        token
            What they come from: equal tokens are equal labels, which saves reading them to compare.
        """
        self = cls.__new__(cls)
        self._name, self._variable, self._token = name, variable, token
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
        return self.from_lazy(self._name, variable, tokenize(self._token, indexers[self.dim]))

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
        return self.from_lazy(name_dict.get(self._name, self._name), variable, self._token)

    def _copy(self, deep: bool = True, memo: dict[int, Any] | None = None) -> Any:
        # Nothing in a lazy index changes, but for the labels being read once.
        return self if self._variable is not None else super()._copy(deep, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._variable is None:
            return LazyIndex, (self.index, self.dim, self.coord_dtype)
        return LazyIndex.from_lazy, (self._name, self._variable, self._token)

    def __repr__(self) -> str:
        if self._variable is None or "index" in self.__dict__:
            return f"LazyIndex({self.index!r})"
        return f"LazyIndex({self._name!r}, {self._variable.size} labels, not read yet)"
