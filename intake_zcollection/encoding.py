"""CF encoding of blocks of values, exactly: what cannot come back equal is refused by name.

Decoding is xarray's, so that whoever opens a fragment with plain xarray sees the same values. Encoding is
written against that decoder, because xarray's encoder chooses units by the data it sees, and casts with only
a warning; here the schema has fixed units and dtype, and each block is checked. Source of the conventions:
CF-1.11, chapters 4.4 (time), 8.1 (packed data) and 2.5.1 (missing data).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from .errors import InvalidInputError
from .schema import SchemaVariable, Values

_NANOSECONDS = "nanoseconds since 1970-01-01"


def decode(variable: SchemaVariable, stored: Values) -> Values:
    """Return the values that stored ones stand for; any shape, dtype ``variable.dtype``.

    Costs nothing where nothing is encoded, nor for times in ``nanoseconds since 1970-01-01``.
    """
    if is_plain(variable.cf):
        return stored
    if _is_exact_time(variable, stored.dtype):
        return stored.view(variable.dtype)
    return decode_cf(variable.cf, stored)


def decode_cf(cf: Mapping[str, Any], stored: Values) -> Values:
    """Return the values that stored ones stand for under CF attributes, by xarray."""
    dims = tuple(f"d{i}" for i in range(stored.ndim))
    encoded = xr.Variable(dims, stored, dict(cf))
    decoded = xr.conventions.decode_cf_variable(
        "", encoded, decode_timedelta="units" in cf and "since" not in cf["units"]
    )
    return np.asarray(decoded.values)


def encode(variable: SchemaVariable, values: Values) -> Values:
    """Return ``values`` as they are stored; the inverse of :func:`decode`.

    Raises
    ------
    InvalidInputError
        A value would not come back equal (packed ones: to half a step of their scale).
    """
    dtype = stored_dtype(variable)
    match variable.dtype.kind:
        case "M" | "m":
            return _encode_time(variable, values.astype(variable.dtype, copy=False), dtype)
        case _ if is_plain(variable.cf):
            return _cast(variable, values, dtype)
        case _:
            return _encode_number(variable, values, dtype)


def stored_dtype(variable: SchemaVariable) -> np.dtype[Any]:
    """Return the dtype of the stored array."""
    return np.dtype(str(variable.array.get("data_type") or variable.array["dtype"]))


def is_packed(variable: SchemaVariable) -> bool:
    """Whether floating-point values are stored as numbers of a coarser scale."""
    return "scale_factor" in variable.cf or "add_offset" in variable.cf


def is_plain(cf: Mapping[str, Any]) -> bool:
    """Whether stored values are the values: no CF attribute but a fill value of NaN, which reads as NaN anyway."""
    return all(name == "_FillValue" and np.isnan(value) for name, value in cf.items())


def _is_exact_time(variable: SchemaVariable, dtype: np.dtype[Any]) -> bool:
    return dtype == np.int64 and variable.cf.get("units") == _NANOSECONDS and "_FillValue" not in variable.cf


def _fill_value(cf: Mapping[str, Any]) -> Any:
    return cf.get("_FillValue", cf.get("missing_value"))


def _refuse(variable: SchemaVariable, wrong: Values, values: Values, why: str, remedy: str) -> None:
    if wrong.any():
        count, first = np.count_nonzero(wrong), values[wrong].flat[0]
        raise InvalidInputError(
            f"variable {variable.name}: {count} of {values.size} values, the first of them {first}, {why}; {remedy}"
        )


def _cast(variable: SchemaVariable, values: Values, dtype: np.dtype[Any]) -> Values:
    stored = values.astype(dtype, copy=False)
    if dtype.kind != values.dtype.kind and dtype.kind in "fc":  # int64 to float64 is "safe" for numpy, and loses
        back = stored.real.astype(values.dtype)
        _refuse(variable, back != values, values, f"have no exact {dtype}", "convert them yourself")
    return stored


def _encode_time(variable: SchemaVariable, values: Values, dtype: np.dtype[Any]) -> Values:
    if _is_exact_time(variable, dtype):
        return values.view(np.int64)
    origin, step = _time_scale(variable)
    missing = np.isnat(values)
    elapsed = np.where(missing, origin, values).astype(np.int64) - origin.astype(np.int64)
    whole, rest = np.divmod(elapsed, step)
    if dtype.kind == "f":
        # In two parts: nanoseconds since long ago have more digits than a float.
        stored = (whole + rest / step).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        inexact = (rest != 0) | (whole < limits.min) | (whole > limits.max)
        _refuse(variable, inexact, values, *_unholdable_time(variable, dtype))
        stored = whole.astype(dtype)
    fill = _fill_value(variable.cf)
    if missing.any():
        if fill is None and dtype.kind != "f":
            _refuse(variable, missing, values, "are missing, and it has no _FillValue", "give its encoding one")
        stored[missing] = np.nan if fill is None else fill
    changed = decode_cf(variable.cf, stored) != values
    _refuse(variable, changed & ~missing, values, *_unholdable_time(variable, dtype))
    return stored


def _unholdable_time(variable: SchemaVariable, dtype: np.dtype[Any]) -> tuple[str, str]:
    return (
        f"cannot be held exactly as {dtype} '{variable.cf['units']}', which the schema has fixed",
        "create the collection from a template whose time encoding is finer, or has no units (then nanoseconds)",
    )


def _time_scale(variable: SchemaVariable) -> tuple[np.datetime64 | np.timedelta64, int]:
    """Return the time that a stored 0 stands for, and the nanoseconds of a stored 1."""
    cf = {name: value for name, value in variable.cf.items() if name not in ("_FillValue", "missing_value")}
    origin, one = decode_cf(cf, np.array([0, 1], np.int64)).astype(variable.dtype)
    return origin, int((one - origin).astype(np.int64))


def _encode_number(variable: SchemaVariable, values: Values, dtype: np.dtype[Any]) -> Values:
    cf = variable.cf
    missing = np.isnan(values) if values.dtype.kind in "fc" else np.zeros(values.shape, bool)
    fill = _fill_value(cf)
    if dtype.kind in "iu" and fill is None:
        _refuse(variable, missing, values, "are missing (NaN), and it has no _FillValue", "give its encoding one")
    stored: Values = values
    if is_packed(variable):
        stored = (values.astype(np.float64) - cf.get("add_offset", 0)) / cf.get("scale_factor", 1)
    if dtype.kind in "iu":
        stored = _round(variable, np.where(missing, 0, stored), values, dtype)
    else:
        stored = _cast(variable, stored, dtype) if not is_packed(variable) else stored.astype(dtype)
    if missing.any() and fill is not None:
        stored = np.where(missing, np.asarray(fill, dtype), stored)
    lost = np.isnan(decode_cf(cf, stored)) & ~missing
    _refuse(
        variable, lost, values, f"are stored as {fill}, the fill value, and would read as missing", "choose another one"
    )
    return stored


def _round(variable: SchemaVariable, stored: Values, values: Values, dtype: np.dtype[Any]) -> Values:
    rounded = np.around(stored)
    if not is_packed(variable):
        _refuse(
            variable, rounded != stored, values, f"are no integers, and are stored as {dtype}", "round them yourself"
        )
    limits = np.iinfo(dtype)
    # The limits as floats: float(2**63 - 1) is 2**63, which no int64 holds.
    outside = (rounded < float(limits.min)) | (rounded >= float(limits.max) + 1) | ~np.isfinite(rounded)
    scale, offset = variable.cf.get("scale_factor", 1), variable.cf.get("add_offset", 0)
    low, high = sorted((limits.min * scale + offset, limits.max * scale + offset))
    _refuse(
        variable,
        outside,
        values,
        f"are outside the range that it can store as {dtype}, {low:g} to {high:g}",
        "widen the packing in a new collection's template, or mask them",
    )
    return rounded.astype(dtype)
