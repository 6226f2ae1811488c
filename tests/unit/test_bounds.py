"""Bounds on values: what they mean for values one by one, and that SQL is told the same."""

import datetime as dt
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake_zcollection.errors import InvalidInputError
from intake_zcollection.reading.bounds import Within, check_comparable
from intake_zcollection.schema.attributes import Attributes
from intake_zcollection.schema.schema import SchemaVariable

INTEGERS = ("i1", "u1", "i4", "i8", "u8")
FLOATS = ("f4", "f8")


def variable(dtype: Any = "f8", *, dims: tuple[str, ...] = ("time",), **fields: Any) -> SchemaVariable:
    """A variable along time."""
    sizes = tuple(None if dim == "time" else 3 for dim in dims)
    attrs = Attributes.of({"units": fields.pop("units")} if "units" in fields else {}, "v")
    return SchemaVariable(1, "v", "v", np.dtype(dtype), dims, sizes, False, {}, {}, attrs, **fields)


def within(bounds: Any, dtype: Any = "f8", **fields: Any) -> Within:
    return Within.of(variable(dtype, **fields), bounds, "made/c")


def is_told(wanted: Within, value: Any) -> bool:
    """Whether SQL would look at a part of this value alone."""
    recorded = float(value) if wanted.range.is_float else max(-(2**63), min(int(value), 2**63 - 1))
    return any(
        (low is None or recorded >= low) and (high is None or recorded <= high) for low, high in wanted.range.intervals
    )


numbers = st.none() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.floats(-300, 300)


@given(st.sampled_from(INTEGERS), st.tuples(numbers, numbers), st.data())
def test_integers_are_compared_exactly_with_bounds_of_any_size(dtype: str, bounds: Any, data: st.DataObject) -> None:
    low, high = bounds
    if low is not None and high is not None and low > high:
        low, high = high, low
    limits = np.iinfo(dtype)
    near = [n + more for n in bounds if n is not None and math.isfinite(n) for more in (-1, 0, 1)]
    edges = [int(n) for n in near if limits.min <= int(n) <= limits.max] + [limits.min, limits.max]
    value = data.draw(st.sampled_from(edges) | st.integers(limits.min, limits.max), "value")
    wanted = within((low, high), dtype)
    inside = (low is None or value >= low) and (high is None or value <= high)  # Python compares them exactly
    assert wanted.holds(np.array([value], dtype)).tolist() == [inside]
    assert is_told(wanted, value) or not inside
    assert is_told(wanted, value) == inside or value > 2**63 - 2  # beyond 64 bits with a sign all is one


@given(st.sampled_from(FLOATS), st.tuples(*[st.floats(allow_nan=False) | st.integers(-9, 9)] * 2), st.data())
def test_floats_are_compared_as_numpy_compares_them(dtype: str, bounds: Any, data: st.DataObject) -> None:
    low, high = min(bounds), max(bounds)
    drawn = data.draw(st.sampled_from([low, high, np.nan]) | st.floats(width=32), "value")
    with np.errstate(over="ignore"):
        value = np.dtype(dtype).type(drawn)
        inside = bool((value >= low) & (value <= high))
    wanted = within((low, high), dtype)
    assert wanted.holds(np.array([value])).tolist() == [inside]
    assert np.isnan(value) or is_told(wanted, value) == inside


turns = st.integers(-6000, 6000).map(lambda n: n / 4)
"""Angles of any convention, and of none, that are exact in each."""


@pytest.mark.parametrize("dtype", ["f8", "f4", "i4"])
@given(low=turns, high=turns, value=turns)
def test_angles_are_the_same_after_a_turn_and_ranges_go_round(
    dtype: str, low: float, high: float, value: float
) -> None:
    value = np.dtype(dtype).type(value)
    width = Fraction(high) - Fraction(low)
    inside = width >= 360 or (Fraction(float(value)) - Fraction(low)) % 360 <= (width if width >= 0 else width % 360)
    wanted = within((low, high), dtype, units="degrees_east")
    assert wanted.holds(np.array([value])).tolist() == [inside]
    assert is_told(wanted, value) or not inside
    if -720 < value < 1080:
        assert is_told(wanted, value) == inside


@given(st.floats(-180, 180), st.floats(-180, 180), st.floats(0, 360))
def test_what_holds_of_angles_is_told_for_any_bounds(low: float, high: float, value: float) -> None:
    for dtype in FLOATS:
        wanted = within((low, high), dtype, units="degree_E")
        each = np.dtype(dtype).type(value)
        assert is_told(wanted, each) or not wanted.holds(np.array([each]))[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_no_angle_is_never_inside(value: float) -> None:
    with np.errstate(all="raise"):
        held = within((10, 20), units="degrees_east").holds(np.array([value, 15.0]))
    assert held.tolist() == [value == 1e30 and 10 <= 1e30 % 360 <= 20, True]


@pytest.mark.parametrize(
    ("bounds", "inside"),
    [
        (("2022-02", "2022-02"), [False, True, True, False]),
        ((None, "2022-01-31"), [True, False, False, False]),
        ((dt.date(2022, 2, 28), None), [False, False, True, True]),
        ((np.datetime64("2022-02-01T00"), dt.datetime(2022, 2, 1)), [False, True, False, False]),
        ((None, None), [True, True, True, True]),
    ],
)
def test_times_are_compared_with_dates_and_nat_with_none(bounds: Any, inside: list[bool]) -> None:
    wanted = within(bounds, "M8[ns]")
    times = np.array(["2022-01-31T23:59", "2022-02-01", "2022-02-28T23:59:59.999999999", "2022-03-01"], "M8[ns]")
    assert wanted.holds(times).tolist() == inside
    assert [is_told(wanted, each.view("i8")) for each in times] == inside
    assert wanted.holds(np.array(["NaT"], "M8[ns]")).tolist() == [False]


@pytest.mark.parametrize("dims", [("time", "x", "y"), ("x", "time", "y")])
def test_a_row_of_many_values_is_kept_for_any_of_them(dims: tuple[str, ...]) -> None:
    values = np.full((2, 3, 3), 5.0) if dims[0] == "time" else np.full((3, 2, 3), 5.0)
    values[(1, 2, 0) if dims[0] == "time" else (2, 1, 0)] = 1.0
    assert within((0, 2), dims=dims).rows(values).tolist() == [False, True]


@pytest.mark.parametrize(
    ("dtype", "fields", "meets"),
    [
        ("f8", {}, False),
        ("f8", {"fill_value": 1.0}, True),
        ("f8", {"fill_value": 361.0, "units": "degrees_east"}, True),
        ("i4", {}, False),
        ("i4", {"fill_value": 2}, True),
    ],
)
def test_what_rows_without_the_variable_read_as_is_compared_too(dtype: str, fields: Any, meets: bool) -> None:
    assert within((1, 2), dtype, **fields).range.fill_meets == meets


@pytest.mark.parametrize(
    ("bounds", "dtype", "fields", "parts"),
    [
        ((2, 1), "f8", {}, ("{'v': (2, 1)}", "lower bound first", "degrees east alone")),
        (("2022-02", "2022-01"), "M8[ns]", {}, ("lower bound first",)),
        ((2, 1), "f8", {"units": "degrees_north"}, ("lower bound first",)),
        (("2022", None), "f8", {}, ("'2022' on v", "not a number")),
        ((dt.date(2022, 1, 1), None), "i4", {}, ("not a number",)),
        ((np.timedelta64(1, "D"), None), "i4", {}, ("not a number",)),
        ((True, None), "i4", {}, ("True", "not a number")),
        ((np.nan, None), "f8", {}, ("nan", "not a number")),
        ((1, None), "M8[ns]", {}, ("1 on v", "a date")),
        ((None, 1.5), "M8[ns]", {}, ("1.5", "a date")),
        ((np.timedelta64(1, "D"), None), "M8[ns]", {}, ("timedelta64", "neither a date")),
        ((None, 10), "f8", {"units": "degrees_east"}, ("(None, 10)", "give both", "(350, 10)")),
        ((0, np.inf), "f8", {"units": "degreesE"}, ("give both",)),
        ((1, 2, 3), "f8", {}, ("pair (low, high)",)),
        ("12", "f8", {}, ("pair (low, high)",)),
    ],
    ids=str,
)
def test_bounds_that_mean_nothing_are_refused_by_name(
    bounds: Any, dtype: str, fields: Any, parts: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        within(bounds, dtype, **fields)
    assert all(part in str(caught.value) for part in parts)


@pytest.mark.parametrize(
    ("dtype", "dims", "what"),
    [
        ("?", ("time",), "True and False"),
        ("m8[ns]", ("time",), "durations"),
        ("c16", ("time",), "complex numbers"),
        ("U4", ("time",), "text"),
        ("O", ("time",), "text"),
        ("f8", ("x",), "stored once"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(dtype: str, dims: tuple[str, ...], what: str) -> None:
    with pytest.raises(InvalidInputError, match="variable v of collection made/c") as caught:
        check_comparable(variable(dtype, dims=dims), "made/c")
    assert what in str(caught.value)
