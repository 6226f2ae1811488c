"""Where what a function returns belongs: at its labels if it has any, and by position only if it has none.

Labels are the coordinates that say which row, or which latitude, a value is of: those named like their dimension, by
which xarray aligns, and the axis, which also tells rows apart where their dimension has no coordinate of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..errors import InvalidInputError
from ..schema import Schema, SchemaVariable
from .window import Window

Places = slice | npt.NDArray[Any]
"""An indexer along one dimension."""


def label_names(schema: Schema, dimension: str) -> tuple[str, ...]:
    """Return the variables that label a dimension: that of its name, and the axis if it is the split one."""
    names = [dimension, schema.axis] if dimension == schema.dimension else [dimension]
    known = schema.variables
    return tuple(name for name in dict.fromkeys(names) if name in known and known[name].dims == (dimension,))


def labels_of(result: Any, schema: Schema, dimension: str) -> dict[str, Any]:
    """Return the labels that a result has along a dimension, by coordinate, each as a pandas.Index."""
    names = [dimension, schema.axis] if dimension == schema.dimension else [dimension]
    if isinstance(result, pd.Series | pd.DataFrame):
        return {name: result.index.get_level_values(name) for name in names if name in result.index.names}
    variables: Mapping[Any, Any] = {}
    if isinstance(result, xr.Dataset | xr.DataArray):
        variables = result.variables if isinstance(result, xr.Dataset) else result.coords
    found = [name for name in names if name in variables and variables[name].dims == (dimension,)]
    return {name: pd.Index(variables[name].values, tupleize_cols=False) for name in found}


def as_variable(schema: Schema, variable: SchemaVariable, given: Any) -> tuple[xr.Variable, Any]:
    """Return an array as xarray understands it (what is masked is missing), and what has its labels."""
    if isinstance(given, xr.DataArray):
        return given.variable, given
    if hasattr(given, "dims"):
        return xr.Variable(given.dims, given.values), None
    if isinstance(given, tuple) and len(given) == 2:  # dimensions and an array
        made = xr.Variable(*given)
        dims = getattr(given[1], "dims", made.dims)
        if dims != made.dims:
            raise ValueError(f"the dimensions {made.dims} are given for those of an array with {dims}; rename these")
        return made, _with_row_labels(schema, given[1])
    values = given if hasattr(given, "shape") else np.asarray(given)
    dims = variable.dims if values.ndim == len(variable.dims) else [f"dim_{i}" for i in range(values.ndim)]
    return xr.Variable(dims, values), _with_row_labels(schema, given)


def _with_row_labels(schema: Schema, given: Any) -> Any:
    """Return an array; a pandas.Series with a name for its index, which has to be of rows."""
    if not isinstance(given, pd.Series) or given.index.names in ([schema.dimension], [schema.axis]):
        return given
    if given.index.names != [None]:
        raise ValueError(f"the Series is by {', '.join(map(str, given.index.names))}, and not by {schema.axis}")
    # pandas numbers what has no labels.
    return given.to_numpy() if given.index.equals(pd.RangeIndex(len(given))) else given.rename_axis(schema.dimension)


@dataclass(frozen=True)
class Labels:
    """The labels of all that a function sees, as they are before it is called."""

    schema: Schema
    window: Window
    seen: Mapping[str, Any]
    """Each as a pandas.Index, by the coordinate's name."""

    @classmethod
    def of(cls, schema: Schema, window: Window, dataset: xr.Dataset) -> "Labels":
        """Return those of a window's dataset; copied, since a function may change what it gets."""
        names = {name for dimension in dataset.dims for name in label_names(schema, str(dimension))}
        variables = dataset.variables
        return cls(schema, window, {n: pd.Index(variables[n].values, copy=True) for n in names if n in variables})

    def find_own(self, result: Any, dimension: str, *, trim: bool, what: str) -> Places | None:
        """Return where a result has the partition's own part along a dimension; None if it has no labels there.

        Raises
        ------
        InvalidInputError
            Its labels do not say so: with ``trim`` for each row of the partition, and for rows of the window alone;
            without, for its own rows alone. The message begins with ``what``.
        """
        compared = self._compare(labels_of(result, self.schema, dimension), dimension)
        if compared is None:
            return None
        names, given, known = compared
        if dimension != self.schema.dimension:
            return _find(names, given, known, slice(0, len(known)), what, f"along {dimension!r}")
        own = self.window.own_rows
        if trim:
            return _find(names, given, known, own, what, f"along {dimension!r}")
        where = f"along {dimension!r}"
        if len(self.window.sizes) > 1:
            where += " of the partition itself (with trim=True it may return neighbours' too)"
        return _find(names, given, known[own], slice(0, own.stop - own.start), what, where)

    def trim(self, result: Any, what: str) -> Any:
        """Return what belongs to the partition itself of a result over its window; the rest is left as it is.

        Raises
        ------
        InvalidInputError
            It has rows of neighbours, or may have, and does not say which. The message begins with ``what``.
        """
        window, dimension = self.window, self.schema.dimension
        labelled = isinstance(result, xr.Dataset | xr.DataArray | xr.Variable) and dimension in result.dims
        if len(window.sizes) == 1 or not (labelled or isinstance(result, np.ndarray | pd.Series | pd.DataFrame)):
            return result
        compared = self._compare(labels_of(result, self.schema, dimension), dimension)
        if compared is not None:
            return _take(result, dimension, self._own_among(*compared, what))
        size = result.sizes[dimension] if labelled else len(result) if result.ndim else None
        if size == window.rows:
            return _take(result, dimension, window.own_rows)
        if labelled:
            raise InvalidInputError(
                f"{what} of size {size} along {dimension!r}, not {window.rows} as it got, and without labels that tell "
                f"which rows these are; keep the coordinate {self.schema.axis}, or cut the result and give trim=False"
            )
        return result

    def _own_among(self, names: list[str], given: Any, known: Any, what: str) -> Places:
        """Return which labels of a result are those of the partition's own rows; all, if none is that of a row."""
        own = self.window.own_rows
        if given.equals(known):
            return own
        mine = given.isin(known[own])
        others = given.isin(known[: own.start].append(known[own.stop :]))
        strange = ~(mine | others)
        if strange.all() and len(given) != len(known):
            return slice(None)
        if strange.any():
            raise InvalidInputError(
                f"{what} at {_some(names, given, strange)}, which is no row's; if it belongs there, cut the result and "
                "give trim=False"
            )
        if (mine & others).any():
            raise InvalidInputError(
                f"{what} at {_some(names, given, mine & others)}, which are rows of the partition and of neighbours; "
                "return all rows in the order in which it got them, or cut the result and give trim=False"
            )
        return np.asarray(mine)

    def _compare(self, given: dict[str, Any], dimension: str) -> tuple[list[str], Any, Any] | None:
        """Return by which coordinates a result and its window compare, and both one's labels as one pandas.Index."""
        known = {name: self._known(name) for name in label_names(self.schema, dimension) if name in given}
        names = [name for name, labels in known.items() if labels is not None]
        if names:
            return names, _joined([given[name] for name in names]), _joined([known[name] for name in names])
        if dimension != self.schema.dimension or dimension not in given:
            return None
        # Rows whose dimension has no coordinate are numbered by pandas; dataset.set_index(…) makes it one of the axis.
        numbered = given[dimension].dtype.kind in "iu"
        rows = pd.RangeIndex(self.window.rows) if numbered else self._known(self.schema.axis)
        return [dimension], given[dimension], rows

    def _known(self, name: str) -> Any:
        """Return labels of the window, read if the function did not see them; None if they were never stored."""
        if name in self.seen:
            return self.seen[name]
        read = self.window.read(self.schema, [name]).variables
        return pd.Index(read[name].values) if name in read else None


def _find(names: list[str], given: Any, known: Any, own: slice, what: str, where: str) -> Places:
    """Return where the labels ``known[own]`` are among the given ones, which all have to be known, and be different."""
    if given.equals(known):
        return own
    if known.has_duplicates:
        raise InvalidInputError(
            f"{what} with other labels, or in another order, than it got {where}, and these are not unique "
            f"({_some(names, known, known.duplicated())}), so that they do not tell what belongs where; keep them in "
            f"their order, or {_drop(names)}"
        )
    strange = known.get_indexer(given) < 0
    if strange.any():
        raise InvalidInputError(
            f"{what} at {_some(names, given, strange)}, which is no label {where}; keep the labels, or {_drop(names)}"
        )
    if given.has_duplicates:
        raise InvalidInputError(
            f"{what} more than once at {_some(names, given, given.duplicated())}; keep one value each"
        )
    places: npt.NDArray[Any] = given.get_indexer(known[own])
    if (places < 0).any():
        raise InvalidInputError(
            f"{what} without values at {_some(names, known[own], places < 0)}; add them, with .reindex_like(dataset) "
            "as missing ones"
        )
    return places


def _joined(labels: list[Any]) -> Any:
    return labels[0] if len(labels) == 1 else pd.MultiIndex.from_arrays(labels)


def _take(result: Any, dimension: str, places: Places) -> Any:
    if isinstance(result, xr.Dataset | xr.DataArray | xr.Variable):
        return result.isel({dimension: places})
    return result[places] if isinstance(result, np.ndarray) else result.iloc[places]


def _some(names: list[str], labels: Any, which: npt.NDArray[Any]) -> str:
    """Return the first of some labels, and how many others there are, for a message."""
    chosen = labels[which]
    values = chosen[0] if len(names) > 1 else (chosen[0],)
    others = f" and {len(chosen) - 1} more" if len(chosen) > 1 else ""
    return ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True)) + others


def _drop(names: list[str]) -> str:
    listed = ", ".join(map(repr, names))
    return f"return values without any, which are laid by position: .drop_vars([{listed}])"
