"""Values → keys → rows: dates against the calendar of the standard library, rows against a plain loop."""

import datetime as dt
import json
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from intake_zcollection.errors import InvalidInputError
from intake_zcollection.partitioning import Date, PartitionRows, partitioning_from_json, split_rows
from intake_zcollection.partitioning.date import Resolution

RESOLUTIONS: tuple[Resolution, ...] = get_args(Resolution)

EPOCH = dt.datetime(1970, 1, 1)

NANOSECONDS = st.integers(
    (dt.datetime(1700, 1, 1) - EPOCH) // dt.timedelta(microseconds=1) * 1000,
    (dt.datetime(2250, 1, 1) - EPOCH) // dt.timedelta(microseconds=1) * 1000,
)
"""Any instant from 1700 to 2250, in nanoseconds since 1970."""


def keys_by_datetime(nanoseconds: int) -> tuple[int, ...]:
    """All six keys of an instant; Python's integers floor, also before 1970."""
    date = EPOCH + dt.timedelta(seconds=nanoseconds // 10**9)
    return (date.year, date.month, date.day, date.hour, date.minute, date.second)


def keys_of(times: Any, resolution: Resolution) -> list[tuple[int, ...]]:
    keys = Date("time", resolution).key_values({"time": np.asarray(times)})
    assert keys.dtype == np.int64
    return [tuple(key) for key in keys.tolist()]


# Dates


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@settings(deadline=None)
@given(instants=st.lists(NANOSECONDS, min_size=1, max_size=8))
@example(instants=[-1, 0, 1])
@example(instants=[(dt.datetime(1904, 2, 29, 23, 59, 59) - EPOCH) // dt.timedelta(seconds=1) * 10**9 + 999_999_999])
@example(instants=[(dt.datetime(2000, 2, 29) - EPOCH) // dt.timedelta(seconds=1) * 10**9])
@example(instants=[(dt.datetime(1900, 3, 1) - EPOCH) // dt.timedelta(seconds=1) * 10**9 - 1])
def test_date_keys_are_those_of_the_calendar(resolution: Resolution, instants: list[int]) -> None:
    count = RESOLUTIONS.index(resolution) + 1
    expected = [keys_by_datetime(instant)[:count] for instant in instants]
    assert keys_of(np.array(instants).view("M8[ns]"), resolution) == expected


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_date_names_its_keys_down_to_the_resolution(resolution: Resolution) -> None:
    date = Date("time", resolution)
    names = ("year", "month", "day", "hour", "minute", "second")[: "YMDhms".index(resolution) + 1]
    assert date.keys == names
    assert date.variables == ("time",)
    assert date.key_values({"time": np.array(["2022-01-01"], "M8[ns]")}).shape == (1, len(names))


def test_the_last_nanosecond_before_1970_belongs_to_1969() -> None:
    assert keys_of(np.array(["1969-12-31T23:59:59.999999999"], "M8[ns]"), "s") == [(1969, 12, 31, 23, 59, 59)]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "D"])
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_date_keys_do_not_depend_on_the_unit_of_the_times(resolution: Resolution, unit: str) -> None:
    times = ["1904-02-29", "1969-12-31", "2022-12-31"]
    assert keys_of(np.array(times, f"M8[{unit}]"), resolution) == keys_of(np.array(times, "M8[ns]"), resolution)


def test_date_keys_of_times_beyond_nanoseconds() -> None:
    assert keys_of(np.array(["3000-05-06T07:08:09"], "M8[s]"), "s") == [(3000, 5, 6, 7, 8, 9)]


def test_date_keys_of_big_endian_times() -> None:
    assert keys_of(np.array(["2022-03-04"], ">M8[ns]"), "D") == [(2022, 3, 4)]


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_no_times_have_no_keys(resolution: Resolution) -> None:
    keys = Date("time", resolution).key_values({"time": np.zeros(0, "M8[ns]")})
    assert keys.shape == (0, RESOLUTIONS.index(resolution) + 1)


@pytest.mark.parametrize(("times", "row", "count"), [(["2022", "NaT", "NaT"], 1, 2), (["NaT"], 0, 1)])
def test_a_row_without_a_date_is_refused_by_its_number(times: list[str], row: int, count: int) -> None:
    with pytest.raises(InvalidInputError, match=rf"variable time: row {row} is NaT \({count} of {len(times)} rows\)"):
        keys_of(np.array(times, "M8[ns]"), "M")


@pytest.mark.parametrize("resolution", ["W", "month", "Q", "ns", "y", "", None, 1])
def test_a_resolution_that_there_is_not_is_refused(resolution: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"the resolution {resolution!r} is not one of 'Y', 'M', 'D', 'h', 'm'"):
        Date("time", resolution)


@pytest.mark.parametrize("dtype", ["int64", "float64", "m8[ns]", "bool"])
def test_a_variable_without_dates_is_refused(dtype: str) -> None:
    with pytest.raises(InvalidInputError, match=r"Date\('cycle'\) needs a datetime64 variable, and cycle is "):
        Date("cycle", "M").check_dtypes({"cycle": np.dtype(dtype), "time": np.dtype("M8[ns]")})


@pytest.mark.parametrize("unit", ["ns", "s"])
def test_a_variable_of_dates_is_accepted(unit: str) -> None:
    Date("time", "M").check_dtypes({"time": np.dtype(f"M8[{unit}]"), "cycle": np.dtype("i8")})


# In the registry


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_a_date_comes_back_from_json(resolution: Resolution) -> None:
    date = Date("time", resolution)
    document = json.loads(json.dumps(date.to_json()))
    assert document == {"kind": "Date", "variable": "time", "resolution": resolution}
    assert partitioning_from_json(document) == date


def test_a_kind_of_a_later_release_is_refused() -> None:
    with pytest.raises(
        InvalidInputError, match=r"the partitioning 'Hexagons' is unknown to this release.*: upgrade it"
    ):
        partitioning_from_json({"kind": "Hexagons", "size": 3})


# Rows


def split_by_loop(keys: list[tuple[int, ...]], axis: list[Any]) -> dict[tuple[int, ...], list[int]]:
    """The rows of each key, sorted by the axis, equal ones in their order (Python's sort is stable)."""
    return {
        key: sorted((row for row, other in enumerate(keys) if other == key), key=axis.__getitem__)
        for key in sorted(set(keys))
    }


def assert_split_as_by_loop(keys: list[tuple[int, ...]], axis: np.ndarray[Any, Any]) -> None:
    parts = split_rows(np.array(keys, np.int64), axis)
    rows = {part.key: np.arange(len(keys))[part.rows].tolist() for part in parts}
    expected = split_by_loop(keys, axis.tolist())
    assert rows == expected
    assert list(rows) == list(expected)  # in the order of the keys
    assert [part.count for part in parts] == [len(rows) for rows in expected.values()]
    for part in parts:
        run = np.diff(expected[part.key])
        assert isinstance(part.rows, slice) == bool(np.all(run == 1))


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_rows_in_any_order_go_to_their_keys_stably_sorted(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 3))
    # Few different values: many runs of one key, many equal axis values.
    keys = data.draw(st.lists(st.tuples(*[st.integers(-1, 2)] * width), min_size=1, max_size=20))
    axis = data.draw(hnp.arrays(np.int64, len(keys), elements=st.integers(-3, 3)))
    assert_split_as_by_loop(keys, axis)


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_rows_of_any_keys_and_axis_values_go_to_their_keys(data: st.DataObject) -> None:
    extremes = st.sampled_from([-(2**63), 2**63 - 1, 0, -1])
    keys = data.draw(st.lists(st.tuples(extremes, extremes), min_size=1, max_size=8))
    axis = data.draw(hnp.arrays(np.int64, len(keys)))
    assert_split_as_by_loop(keys, axis)


def test_rows_are_sorted_by_a_time_axis() -> None:
    axis = np.array(["2022-01-03", "2022-02-01", "2022-01-01"], "M8[ns]")
    january, february = split_rows(np.array([[2022, 1], [2022, 2], [2022, 1]]), axis)
    assert (january.key, january.rows.tolist(), january.count) == ((2022, 1), [2, 0], 2)  # type: ignore[union-attr]
    assert february == PartitionRows((2022, 2), slice(1, 2), 1)


def test_sorted_rows_are_slices() -> None:
    parts = split_rows(np.repeat([[2], [5], [9]], 4, axis=0), np.arange(12))
    assert [part.rows for part in parts] == [slice(0, 4), slice(4, 8), slice(8, 12)]


def test_equal_axis_values_keep_their_order() -> None:
    (part,) = split_rows(np.zeros((5, 1), np.int64), np.array([7, 3, 7, 3, 7]))
    assert np.arange(5)[part.rows].tolist() == [1, 3, 0, 2, 4]


def test_keys_are_integers_of_python() -> None:
    (part,) = split_rows(np.array([[2022, 1]]), np.array([0]))
    assert [type(value) for value in part.key] == [int, int]
    assert type(part.count) is int


def test_no_rows_make_no_partitions() -> None:
    assert split_rows(np.zeros((0, 2), np.int64), np.zeros(0, np.int64)) == []
