"""Bounds on values, as a caller says them."""

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from registry import KEY_LIMITS

from ..errors import InvalidInputError

Bound = str | dt.date | np.datetime64 | int | None
"""A bound on the axis: a date, perhaps a partial one (``"2022-03"``), or an integer; None is open."""

Where = Mapping[str, tuple[Bound, Bound]]
"""Closed bounds on values, by variable."""

AxisRange = tuple[int | None, int | None]

_DATE = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d(\.\d{1,9})?)?)?)?)?)?")

_NS = np.dtype("datetime64[ns]")


def parse_bounds(bounds: Any, name: str) -> AxisRange:
    """Return bounds on a variable as integers, ns since 1970 for dates; raises InvalidInputError as the one above."""
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise InvalidInputError(f"where={{{name!r}: {bounds!r}}} is not a pair (low, high); None leaves a side open")
    low, high = bounds
    return _period(low, name)[0], _period(high, name)[1]


def _period(bound: Bound, axis: str) -> tuple[int | None, int | None]:
    """Return the first and last axis value that a bound stands for: "2022-03" is a month long."""
    match bound:
        case None:
            return None, None
        case bool() | np.timedelta64():
            pass
        case int() | np.integer() if KEY_LIMITS[0] <= bound <= KEY_LIMITS[1]:
            return int(bound), int(bound)
        case dt.datetime():
            utc = bound.astimezone(dt.UTC).replace(tzinfo=None) if bound.tzinfo else bound
            return (_nanoseconds(np.datetime64(utc, "us"), axis),) * 2
        case dt.date():
            return _period(bound.isoformat(), axis)
        case np.datetime64() if not np.isnat(bound):
            return (_nanoseconds(bound, axis),) * 2
        case str():
            start = _parse_date(bound, axis)
            if np.datetime_data(start.dtype)[0] == "ns":
                return (_nanoseconds(start, axis),) * 2
            unit: Any = np.datetime_data(start.dtype)[0]
            return _nanoseconds(start, axis), _nanoseconds(start + np.timedelta64(1, unit), axis) - 1
    raise InvalidInputError(f"the bound {bound!r} on {axis} is neither a date nor an integer of 64 bits")


def _parse_date(text: str, axis: str) -> np.datetime64:
    # numpy would also take "now", which means another time at each load, and zones, which it then ignores.
    try:
        parsed = np.datetime64(text) if _DATE.fullmatch(text) else np.datetime64("NaT", "ns")
    except ValueError:
        parsed = np.datetime64("NaT", "ns")
    if np.isnat(parsed):
        raise InvalidInputError(
            f"the bound {text!r} on {axis} is not a date; write 2022, 2022-03, 2022-03-31 or 2022-03-31T12:00"
        )
    return parsed


def _nanoseconds(date: np.datetime64, axis: str) -> int:
    try:
        exact = date.astype(_NS)
    except OverflowError:  # from numpy 2.5 on; before, it wraps around
        exact = np.datetime64("NaT", "ns")
    if exact.astype(date.dtype) != date:
        raise InvalidInputError(f"the bound {date} on {axis} is outside of what nanoseconds can count, 1678 to 2262")
    return int(exact.astype(np.int64))
