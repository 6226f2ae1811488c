"""Tolerances: how far apart two axis values may be, checked before anything is read."""

import datetime as dt
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
        return _not_negative(int(tolerance), tolerance)
    count = _not_negative(_nanoseconds(tolerance), tolerance)
    if count > _LONGEST:
        raise InvalidInputError(f"tolerance={tolerance!r} is longer than the 292 years that nanoseconds can count")
    return np.timedelta64(count, "ns")


def _nanoseconds(tolerance: Any) -> int:
    """Return a duration as a number of nanoseconds; a fraction of one is cut off, since no two times differ by it."""
    if isinstance(tolerance, dt.timedelta):
        if not hasattr(tolerance, "to_timedelta64"):
            return tolerance // dt.timedelta(microseconds=1) * 1000  # exact: a timedelta may be longer than numpy's
        tolerance = tolerance.to_timedelta64()  # pandas' own, which counts nanoseconds too
    if not isinstance(tolerance, np.timedelta64):
        raise InvalidInputError(
            f"tolerance={tolerance!r} has no unit, and the axis holds times: write np.timedelta64(60, 's') or "
            "datetime.timedelta(seconds=60)"
        )
    if np.isnat(tolerance):
        raise InvalidInputError("tolerance is NaT, which is no duration; leave it out for none")
    unit, step = np.datetime_data(tolerance.dtype)
    if unit not in _NANOSECONDS:
        what = "has no unit" if unit == "generic" else f"is in calendar units ({unit}), which have no fixed length"
        raise InvalidInputError(f"tolerance={tolerance!r} {what}: write it in days or seconds, np.timedelta64(30, 'D')")
    return int(tolerance.astype(np.int64).item() * step * _NANOSECONDS[unit] // 1)


def _not_negative(count: int, tolerance: Any) -> int:
    if count < 0:
        raise InvalidInputError(f"tolerance={tolerance!r} is negative; it is a distance, 0 or more")
    return count
