"""The axis of a dataset: one value per row, a datetime or an integer; and what helps where it is not."""

import numpy as np
import xarray as xr

from ..errors import InvalidInputError
from .foreign import check_calendars, pandas_remedy


def check_axis(dataset: xr.Dataset, axis: str, dimension: str | None = None, *, of: str = "") -> str:
    """Return the dimension of the axis.

    Parameters
    ----------
    dataset
        A template, or what is inserted.
    axis
        A variable that it has.
    dimension
        The dimension that a collection splits, if there is one already.
    of
        Whose axis it is, for messages.

    Raises
    ------
    InvalidInputError
        It is no axis; the message says how to make it one.
    """
    variable, what = dataset.variables[axis], f"the axis {axis}{of and f' of {of}'}"
    if variable.ndim != 1:
        remedy = _for_scalar(axis, dimension) if variable.ndim == 0 else _for_many(axis, variable, dimension)
        raise InvalidInputError(
            f"{what} has dimensions {variable.dims}; it needs exactly one, which is split: {remedy}"
        )
    if variable.dtype == object:
        check_calendars(dataset, map(str, dataset.variables))  # the bounds of the axis too, all at once
    if not isinstance(variable.dtype, np.dtype):
        raise InvalidInputError(f"{what} is pandas' {variable.dtype}; {pandas_remedy(axis, variable)}")
    if variable.dtype.kind not in "Miu":
        raise InvalidInputError(
            f"{what} is {variable.dtype}; an axis holds datetime64 or integers{_for_dtype(axis, variable)}"
        )
    return str(variable.dims[0])


def _for_scalar(axis: str, dimension: str | None) -> str:
    """Return how a dataset of one moment gets its row."""
    if dimension in (None, axis):
        return f"give the dataset one row, data.expand_dims({axis!r})"
    return (
        f"give the dataset one row, data.expand_dims({dimension!r}).assign_coords("
        f"{axis}=data[{axis!r}].expand_dims({dimension!r}))"
    )


def _for_many(axis: str, variable: xr.Variable, dimension: str | None) -> str:
    """Return how each row gets one of its many values."""
    split = dimension if dimension in variable.dims else variable.dims[0]
    others = [str(dim) for dim in variable.dims if dim != split]
    lowest = f"data[{axis!r}].min({others!r})"
    if dimension is not None:
        return f"take one value per row, data.assign_coords({axis}={lowest})"
    return f"take one value per row, data.assign_coords(row_{axis}={lowest}), and axis='row_{axis}'"


def _for_dtype(axis: str, variable: xr.Variable) -> str:
    """Return how numbers that are no integers become some, as far as it shows why they are not."""
    if variable.dtype.kind != "f":
        return ""
    if " since " in str(variable.attrs.get("units", "")):
        return "; its units are those of times: decode them, xarray.decode_cf(data)"
    fill = next((key for key in ("_FillValue", "missing_value") if variable.encoding.get(key) is not None), None)
    stored = np.dtype(variable.encoding.get("dtype", "f8"))
    convert = f"data.assign_coords({axis}=data[{axis!r}].astype('int64'))"
    if fill is not None and stored.kind in "iu":
        return f". Its {fill}, {variable.encoding[fill]}, made floats of {stored}: where no row lacks it, {convert}"
    return f": if it has whole numbers only, {convert}"
