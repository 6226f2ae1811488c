"""CF encoding of blocks of values, exactly: what cannot come back equal is refused by name.

Decoding is xarray's, so that whoever opens a fragment with plain xarray sees the same values. Encoding is
written against that decoder, because xarray's encoder chooses units by the data it sees, and casts with only
a warning; here the schema has fixed units and dtype, and each block is decoded again and compared. Source of
the conventions: CF-1.11, chapters 4.4 (time), 8.1 (packed data) and 2.5.1 (missing data).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..errors import InvalidInputError
from .names import is_unicode
from .schema import SchemaVariable, Values

DURATION_UNITS = {
    **{"days": 86_400_000_000_000, "hours": 3_600_000_000_000, "minutes": 60_000_000_000, "seconds": 1_000_000_000},
    **{"milliseconds": 1_000_000, "microseconds": 1000, "nanoseconds": 1},
}
"""The nanoseconds of each unit that durations can be stored in, as integers."""

PACKING_KEYS = ("scale_factor", "add_offset")
"""The attributes by which numbers are packed."""

_EXACT_UNITS = ("nanoseconds since 1970-01-01", "nanoseconds")

_LAST = np.iinfo(np.int64).max

Mask = npt.NDArray[np.bool_]


def decode(variable: SchemaVariable, stored: Values) -> Values:
    """Return the values that stored ones stand for; any shape, dtype ``variable.dtype``.

    Costs nothing where nothing is encoded, nor for times in nanoseconds.
    """
    if is_plain(variable.cf):
        # Stored in another width than it is read in, if the template said so.
        return stored.astype(variable.dtype, copy=False) if variable.dtype.kind in "iufc" else stored
    if _is_exact_time(variable):
        return stored.view(variable.dtype)
    if variable.dtype.kind == "m":
        return _decode_duration(variable, stored)
    return decode_cf(typed_cf(variable), stored).astype(variable.dtype, copy=False)


def typed_cf(variable: SchemaVariable) -> dict[str, Any]:
    """Return the CF attributes of a variable, its packing in float32 where its values are and that is exact.

    JSON has one kind of numbers, and xarray chooses by theirs what it computes in: float32 values have to be computed
    as a reader of the original file does it, or they differ in their last digits.
    """
    cf = dict(variable.cf)
    if variable.dtype == np.float32:
        with np.errstate(over="ignore"):
            cf |= {key: np.float32(cf[key]) for key in PACKING_KEYS if key in cf and np.float32(cf[key]) == cf[key]}
    return cf


def decode_cf(cf: Mapping[str, Any], stored: Values) -> Values:
    """Return the values that stored ones stand for under CF attributes, by xarray."""
    dims = tuple(f"d{i}" for i in range(stored.ndim))
    decoded = xr.conventions.decode_cf_variable("", xr.Variable(dims, stored, dict(cf)), decode_timedelta=False)
    return np.asarray(decoded.values)


def encode(variable: SchemaVariable, values: Values) -> Values:
    """Return ``values`` as they are stored; the inverse of :func:`decode`.

    Raises
    ------
    InvalidInputError
        A value would not come back equal (packed ones: to half a step of their scale).
    """
    values = np.asarray(values)
    match variable.dtype.kind:
        case "M":
            return _encode_time(variable, to_nanoseconds(variable, values))
        case "m":
            return _encode_duration(variable, to_nanoseconds(variable, values))
        case "U" | "S" | "O":
            return _encode_text(variable, values)
    return _encode_number(variable, values)


def missing_value(variable: SchemaVariable) -> Any:
    """Return what stands for no value: its own fill value, or NaN, NaT, 0, False or empty text, as the dtype has it."""
    if variable.fill_value is not None:
        return np.asarray(variable.fill_value, variable.dtype)[()]
    match variable.dtype.kind:
        case "M" | "m":
            return np.array("NaT", variable.dtype)[()]
        case "f" | "c":
            return variable.dtype.type(np.nan)
        case "O":
            return ""
    return variable.dtype.type()


def is_missing(values: Values) -> Mask:
    """Return which values stand for none: NaN and NaT."""
    return np.isnan(values) if values.dtype.kind in "fcmM" else np.zeros(values.shape, bool)


def is_packed(variable: SchemaVariable) -> bool:
    """Whether values are stored as numbers of another scale, which may be coarser."""
    return any(key in variable.cf for key in PACKING_KEYS)


def is_plain(cf: Mapping[str, Any]) -> bool:
    """Whether stored values are the values: no CF attribute but a fill value of NaN, which reads as NaN anyway."""
    return all(name == "_FillValue" and np.isnan(value) for name, value in cf.items())


def _is_exact_time(variable: SchemaVariable) -> bool:
    return (
        variable.cf.get("units") in _EXACT_UNITS
        and _fill_value(variable.cf) is None
        and variable.stored_dtype == np.int64
    )


def _fill_value(cf: Mapping[str, Any]) -> Any:
    return cf.get("_FillValue", cf.get("missing_value"))


def _refuse(variable: SchemaVariable, wrong: Mask, values: Values, why: str, remedy: str) -> None:
    if np.any(wrong):
        count, first = np.count_nonzero(wrong), values[wrong].flat[0]
        raise InvalidInputError(
            f"variable {variable.name}: {count} of {values.size} values, the first of them {first}, {why}; {remedy}"
        )


def _refuse_missing(variable: SchemaVariable, missing: Mask, values: Values) -> None:
    why = f"are missing{' (NaN)' * (values.dtype.kind in 'fc')}, and it has no _FillValue"
    _refuse(variable, missing, values, why, "give its encoding one in a new collection's template, or drop them")


def _refuse_inexact(variable: SchemaVariable, inexact: Mask, values: Values) -> None:
    why = f"cannot be held exactly as {variable.stored_dtype} '{variable.cf['units']}', which the schema has fixed"
    remedy = "create the collection from a template whose time encoding is finer, or has no units (then nanoseconds)"
    _refuse(variable, inexact, values, why, remedy)


# Times and durations


def to_nanoseconds(variable: SchemaVariable, values: Values) -> Values:
    """Return times or durations in nanoseconds; raises InvalidInputError for those that these cannot count."""
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    # Asked before the conversion: numpy wraps around what overflows in it, and from 2.5 on raises.
    last = np.array([_LAST], variable.dtype).astype(values.dtype).view(np.int64)[0]
    counts = np.where(np.isnat(values), 0, values.view(np.int64))
    _refuse(
        variable,
        np.abs(counts) > last,
        values,
        "are outside of what nanoseconds can count, 292 years from 0",
        "drop them",
    )
    return values.astype(variable.dtype)


def _encode_time(variable: SchemaVariable, values: Values) -> Values:
    if _is_exact_time(variable):
        return values.view(np.int64)
    origin, step = _time_scale(variable)
    missing = np.isnat(values)
    times = np.where(missing, origin, values.view(np.int64))
    elapsed = times - origin
    # The difference of two times wraps around where it is longer than 292 years.
    too_far = ((times < 0) != (origin < 0)) & ((elapsed < 0) != (times < 0))
    _refuse_inexact(variable, too_far, values)
    stored = _count_units(variable, elapsed, step, values)
    stored = _with_missing(variable, stored, missing, values)
    changed = (decode_cf(variable.cf, stored) != values) & ~missing
    if stored.dtype.kind == "f" and np.any(changed):
        stored = _nudged(variable, stored, changed, values)
        changed = (decode_cf(variable.cf, stored) != values) & ~missing
    _refuse_inexact(variable, changed, values)
    return stored


def _nudged(variable: SchemaVariable, stored: Values, changed: Mask, values: Values) -> Values:
    """Return stored floats with a neighbour in the place of a changed one, where that reads as the value.

    xarray's decoder rounds on its way; a neighbouring float may be the one that it reads as this time or number.
    """
    for towards in (-np.inf, np.inf):
        neighbour = np.nextafter(stored, np.asarray(towards, stored.dtype))
        stored = np.where(changed & (decode(variable, neighbour) == values), neighbour, stored)
    return stored


def _time_scale(variable: SchemaVariable) -> tuple[int, int]:
    """Return the time that a stored 0 stands for, in ns since 1970, and the nanoseconds of a stored 1."""
    cf = {name: value for name, value in variable.cf.items() if name not in ("_FillValue", "missing_value")}
    origin, one = decode_cf(cf, np.array([0, 1], np.int64)).astype(variable.dtype).view(np.int64).tolist()
    return origin, one - origin


def _encode_duration(variable: SchemaVariable, values: Values) -> Values:
    if _is_exact_time(variable):
        return values.view(np.int64)
    missing = np.isnat(values)
    elapsed = np.where(missing, 0, values.view(np.int64))
    stored = _count_units(variable, elapsed, DURATION_UNITS[variable.cf["units"]], values)
    stored = _with_missing(variable, stored, missing, values)
    _refuse_inexact(variable, (_decode_duration(variable, stored) != values) & ~missing, values)
    return stored


def _decode_duration(variable: SchemaVariable, stored: Values) -> Values:
    # xarray chooses the resolution of durations by the values it sees: a block would depend on its neighbours.
    values = (stored.astype(np.int64) * DURATION_UNITS[variable.cf["units"]]).view(variable.dtype)
    fill = _fill_value(variable.cf)
    return values if fill is None else np.where(stored == fill, np.timedelta64("NaT", "ns"), values)


def _count_units(variable: SchemaVariable, elapsed: Values, step: int, values: Values) -> Values:
    """Return nanoseconds as a number of units."""
    dtype = variable.stored_dtype
    rest = np.fmod(elapsed, step)  # towards zero: next to the origin, nothing cancels out
    whole = (elapsed - rest) // step
    if dtype.kind == "f":
        return (whole + rest / step).astype(dtype)  # in two parts: nanoseconds have more digits than a float
    limits = np.iinfo(dtype)
    _refuse_inexact(variable, (rest != 0) | (whole < limits.min) | (whole > limits.max), values)
    return np.asarray(whole.astype(dtype))


def _with_missing(variable: SchemaVariable, stored: Values, missing: Mask, values: Values) -> Values:
    """Return the stored values with the fill value where there is none."""
    if not np.any(missing):
        return np.asarray(stored)
    fill = _fill_value(variable.cf)
    if fill is not None:
        return np.where(missing, np.asarray(fill, stored.dtype), stored)
    if stored.dtype.kind not in "fc":
        _refuse_missing(variable, missing, values)
    return stored if values.dtype.kind in "fc" else np.where(missing, np.asarray(np.nan, stored.dtype), stored)


# Numbers


def _encode_number(variable: SchemaVariable, values: Values) -> Values:
    dtype = variable.stored_dtype
    if is_plain(variable.cf) and values.dtype == dtype:
        return values.astype(dtype, copy=False)
    missing = np.isnan(values) if values.dtype.kind in "fc" else np.zeros(values.shape, bool)
    with np.errstate(all="ignore"):  # what overflows here is found out by decoding it
        scaled = _scale(variable, values)
        if dtype.kind in "iu":
            # Stored as the fill value in the end; a 0 among the stored ones is in the range, whatever the offset is.
            scaled = np.where(missing, 0, scaled)
            scaled = _round(variable, scaled, values, dtype) if scaled.dtype.kind == "f" else scaled
        stored = _with_missing(variable, scaled.astype(dtype), missing, values)
        if is_packed(variable) and dtype.kind == "f":
            stored = _nudged(variable, stored, (decode(variable, stored) != values) & ~missing, values)
        _check_numbers(variable, stored, missing, values)
    return stored


def _scale(variable: SchemaVariable, values: Values) -> Values:
    if not is_packed(variable):
        return np.asarray(values)
    cf = variable.cf
    return np.asarray((values.astype(np.float64) - cf.get("add_offset", 0)) / cf.get("scale_factor", 1))


def _round(variable: SchemaVariable, scaled: Values, values: Values, dtype: np.dtype[Any]) -> Values:
    """Return whole numbers that ``dtype`` holds."""
    rounded = np.around(scaled)
    limits = np.iinfo(dtype)
    # The limits as floats: float(2**63 - 1) is 2**63, which no int64 holds.
    outside = ~((rounded >= float(limits.min)) & (rounded < float(limits.max) + 1))
    scale, offset = variable.cf.get("scale_factor", 1), variable.cf.get("add_offset", 0)
    low, high = sorted((limits.min * scale + offset, limits.max * scale + offset))
    why = f"are outside the range that it can store as {dtype}, {low:g} to {high:g}"
    _refuse(variable, outside, values, why, "widen the packing in a new collection's template, or mask them")
    return np.asarray(rounded)


def _check_numbers(variable: SchemaVariable, stored: Values, missing: Mask, values: Values) -> None:
    """Refuse values that do not come back: equal, or packed ones to half a step."""
    back = decode(variable, stored)
    if back.dtype.kind in "fc":
        why = f"are stored as {_fill_value(variable.cf)}, the fill value, and would read as missing"
        _refuse(variable, np.isnan(back) & ~missing, values, why, "choose another one in a new collection's template")
    if is_packed(variable):
        same = _is_near(variable, back, values)
    elif back.dtype.kind == "f" and values.dtype.kind in "iu":
        # As integers, since a float has no room for all of them, and below the first that is none.
        same = (back.astype(values.dtype) == values) & (back < float(np.iinfo(values.dtype).max) + 1)
    else:
        same = back == values
    if stored.dtype.kind in "iu" and values.dtype.kind == "f" and not is_packed(variable):
        why = f"are no integers, and are stored as {stored.dtype}"
    else:
        narrow = stored.dtype.kind == back.dtype.kind and stored.dtype.itemsize < back.dtype.itemsize
        why = f"have no exact {stored.dtype if narrow else back.dtype}"
    _refuse(variable, ~(same | missing), values, why, "convert them yourself, if that is meant")


def _is_near(variable: SchemaVariable, back: Values, values: Values) -> Mask:
    """Whether packed values come back to half a step, and what the dtype rounds on top of it."""
    half = abs(variable.cf.get("scale_factor", 1)) / 2
    given, read = values.astype(np.float64), back.astype(np.float64)
    size = np.abs(given) + abs(variable.cf.get("add_offset", 0))
    rounding = 4 * np.finfo(back.dtype if back.dtype.kind == "f" else np.float64).eps * size
    if values.dtype.itemsize > back.dtype.itemsize:
        rounding = np.minimum(rounding, half)  # steps that float32 cannot tell apart are no home for a float64
    return np.asarray((np.abs(read - given) <= half + rounding) | (back == values))


# Text


def _encode_text(variable: SchemaVariable, values: Values) -> Values:
    given = values.astype(object)
    if variable.dtype.kind != "S":
        wrong = np.array([not is_unicode(value) for value in given.flat], bool).reshape(given.shape)
        _refuse(variable, wrong, given, "are no text", "write '' where there is none")
    stored = given.astype(variable.stored_dtype)
    why = f"are longer than its {variable.dtype} holds"
    remedy = "cut them, or create the collection from a template with text of any length (dtype object)"
    _refuse(variable, stored.astype(object) != given, given, why, remedy)
    return stored
