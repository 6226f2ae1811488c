"""Tolerances: how far apart two axis values may be, checked before anything is read."""

import datetime as dt
import re
from fractions import Fraction
from typing import Any

import numpy as np

from ..errors import InvalidInputError

Tolerance = np.timedelta64 | int | None
"""A distance on the axis: of datetimes in nanoseconds, of integers an integer; None for none."""

_NANOSECONDS: dict[str, int | Fraction] = {
    **{"W": 604_800 * 10**9, "D": 86_400 * 10**9, "h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6},
    **{"us": 1000, "ns": 1, "ps": Fraction(1, 10**3), "fs": Fraction(1, 10**6), "as": Fraction(1, 10**9)},
}
"""The units of a fixed length. Months and years have none, and a number without a unit is in none of them."""

_LONGEST = np.iinfo(np.int64).max


def parse_tolerance(tolerance: Any, axis: np.dtype[Any]) -> Tolerance:
    """Return a tolerance for an axis of a dtype.

    >>> parse_tolerance(dt.timedelta(minutes=1), np.dtype("M8[ns]"))
    np.timedelta64(60000000000,'ns')

    Raises
    ------
    InvalidInputError
        It is no distance on that axis, or negative.
    """
    if tolerance is None:
        return None
    if axis.kind != "M":
        if isinstance(tolerance, bool | np.bool_ | np.timedelta64) or not isinstance(tolerance, int | np.integer):
            raise InvalidInputError(
                f"tolerance={tolerance!r}: the axis holds integers ({axis}), so its distances are integers too"
            )
        return _not_negative(int(tolerance), f"tolerance={tolerance!r}")
    return np.timedelta64(parse_duration(tolerance, "tolerance"), "ns")


def parse_duration(duration: Any, name: str) -> int:
    """Return a parameter of some name as a number of nanoseconds; a fraction of one is cut off.

    >>> parse_duration(np.timedelta64(1, "D"), "older_than")
    86400000000000

    Raises
    ------
    InvalidInputError
        It is no duration, of no fixed length, negative, or longer than nanoseconds can count.
    """
    count = _not_negative(_nanoseconds(duration, name), f"{name}={duration!r}")
    if count > _LONGEST:
        raise InvalidInputError(f"{name}={duration!r} is longer than the 292 years that nanoseconds can count")
    return count


_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h|d|w)\s*")

_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_span(span: Any, name: str) -> dt.timedelta:
    """Return a parameter of some name, a duration or its text, as a timedelta.

    >>> parse_span("15min", "lease"), parse_span(np.timedelta64(1, "D"), "grace")
    (datetime.timedelta(seconds=900), datetime.timedelta(days=1))

    Raises
    ------
    InvalidInputError
        It is neither, or negative.
    """
    if not isinstance(span, str):
        if not isinstance(span, dt.timedelta | np.timedelta64):
            raise InvalidInputError(f"{name}={span!r} is no duration: write '15min', '1h', '30d', or a timedelta")
        return dt.timedelta(microseconds=parse_duration(span, name) // 1000)
    if (found := _SPAN.fullmatch(span)) is None:
        raise InvalidInputError(
            f"{name}={span!r} is no duration: write a number and s, min, h, d or w, as in '15min' or '30d'"
        )
    try:
        return dt.timedelta(seconds=float(found[1]) * _SECONDS[found[2]])
    except OverflowError as error:
        raise InvalidInputError(f"{name}={span!r} is longer than anything lasts") from error


def _nanoseconds(duration: Any, name: str) -> int:
    if isinstance(duration, dt.timedelta):
        if not hasattr(duration, "to_timedelta64"):
            return duration // dt.timedelta(microseconds=1) * 1000  # exact: a timedelta may be longer than numpy's
        duration = duration.to_timedelta64()  # pandas' own, which counts nanoseconds too
    if not isinstance(duration, np.timedelta64):
        raise InvalidInputError(
            f"{name}={duration!r} has no unit, and the axis holds times: write np.timedelta64(60, 's') or "
            "datetime.timedelta(seconds=60)"
        )
    if np.isnat(duration):
        raise InvalidInputError(f"{name} is NaT, which is no duration; leave it out for none")
    unit, step = np.datetime_data(duration.dtype)
    if unit not in _NANOSECONDS:
        what = "has no unit" if unit == "generic" else f"is in calendar units ({unit}), which have no fixed length"
        raise InvalidInputError(f"{name}={duration!r} {what}: write it in days or seconds, np.timedelta64(30, 'D')")
    return int(duration.astype(np.int64).item() * step * _NANOSECONDS[unit] // 1)


def _not_negative(count: int, given: str) -> int:
    if count < 0:
        raise InvalidInputError(f"{given} is negative; it is a distance, 0 or more")
    return count
