"""What a tolerance may be, on an axis of times and on one of integers."""

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest

from intake_zcollection.errors import InvalidInputError
from intake_zcollection.merging import parse_tolerance
from tests.conftest import without_unit

TIMES = np.dtype("M8[ns]")
INTEGERS = np.dtype("i4")


@pytest.mark.parametrize(
    ("tolerance", "nanoseconds"),
    [
        (np.timedelta64(60, "s"), 60 * 10**9),
        (np.timedelta64(2, "W"), 14 * 86400 * 10**9),
        (np.timedelta64(np.timedelta64(1, "D").astype("m8[12h]")), 86400 * 10**9),
        (np.timedelta64(1999, "ps"), 1),
        (dt.timedelta(minutes=1, microseconds=1), 60 * 10**9 + 1000),
        (pd.Timedelta("60s 7ns"), 60 * 10**9 + 7),
        (dt.timedelta(0), 0),
    ],
    ids=repr,
)
def test_durations_of_all_kinds_are_tolerances_of_times(tolerance: Any, nanoseconds: int) -> None:
    parsed = parse_tolerance(tolerance, TIMES)
    assert parsed == np.timedelta64(nanoseconds, "ns")
    assert parse_tolerance(parsed, TIMES) == parsed


@pytest.mark.parametrize(
    ("tolerance", "match"),
    [
        (60, r"has no unit.*np\.timedelta64\(60, 's'\)"),
        (np.int64(60), "has no unit"),
        (1.5, "has no unit"),
        ("60s", "has no unit"),
        (True, "has no unit"),
        (pd.NaT, "has no unit"),
        (without_unit(np.timedelta64, 60), "has no unit"),
        (np.timedelta64("NaT", "s"), "NaT"),
        (np.timedelta64(1, "M"), r"calendar units \(M\)"),
        (np.timedelta64(1, "Y"), r"calendar units \(Y\)"),
        (np.timedelta64(-1, "s"), "negative"),
        (dt.timedelta(seconds=-1), "negative"),
        (np.timedelta64(1000 * 365, "D"), "292 years"),
        (dt.timedelta.max, "292 years"),
    ],
    ids=repr,
)
def test_what_is_no_duration_is_refused_on_an_axis_of_times(tolerance: Any, match: str) -> None:
    with pytest.raises(InvalidInputError, match=f"tolerance.*{match}"):
        parse_tolerance(tolerance, TIMES)


@pytest.mark.parametrize("tolerance", [0, 5, np.int16(5), 2**70])
def test_integers_are_tolerances_of_integers(tolerance: Any) -> None:
    assert parse_tolerance(tolerance, INTEGERS) == int(tolerance)


@pytest.mark.parametrize(
    "tolerance",
    [-1, True, np.True_, 1.0, "1", np.timedelta64(1, "s"), without_unit(np.timedelta64, 1), dt.timedelta(1)],
    ids=repr,
)
def test_what_is_no_count_is_refused_on_an_axis_of_integers(tolerance: Any) -> None:
    with pytest.raises(InvalidInputError, match="tolerance="):
        parse_tolerance(tolerance, INTEGERS)


@pytest.mark.parametrize("axis", [TIMES, INTEGERS])
def test_no_tolerance_stays_none(axis: np.dtype[Any]) -> None:
    assert parse_tolerance(None, axis) is None
