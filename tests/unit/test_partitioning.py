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
from intake_zcollection.partitioning import (
    Date,
    GroupedSequence,
    PartitionRows,
    Sequence,
    partitioning_from_json,
    split_rows,
)
from intake_zcollection.partitioning.date import Resolution
from tests.examples import scaled

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


def rows_of(part: PartitionRows, starts: list[int]) -> list[int]:
    """The rows of a part in the order in which they are stored, numbered through all inputs."""
    numbers = np.concatenate([start + np.arange(10**4)[rows] for start, rows in with_starts(part, starts)])
    return (numbers if part.order is None else numbers[part.order]).tolist()


def with_starts(part: PartitionRows, starts: list[int]) -> list[tuple[int, Any]]:
    return [(starts[number], rows) for number, rows in part.pieces]


def assert_split_as_by_loop(keys: list[tuple[int, ...]], axis: np.ndarray[Any, Any], *cuts: int) -> None:
    """Split as one input, or as several cut there: the same rows in the same order."""
    starts = [0, *cuts]
    inputs = list(zip(np.split(np.array(keys, np.int64), cuts), np.split(axis, cuts), strict=True))
    parts = split_rows(inputs)
    expected = split_by_loop(keys, axis.tolist())
    assert {part.key: rows_of(part, starts) for part in parts} == expected
    assert [part.key for part in parts] == list(expected)  # in the order of the keys
    assert [part.count for part in parts] == [len(rows) for rows in expected.values()]
    for part in parts:
        for number, rows in part.pieces:
            run = np.diff(np.arange(len(inputs[number][1]))[rows])
            assert isinstance(rows, slice) == bool(np.all(run == 1))


@settings(deadline=None, max_examples=scaled(100))
@given(data=st.data())
def test_rows_in_any_order_go_to_their_keys_stably_sorted(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 3))
    # Few different values: many runs of one key, many equal axis values.
    keys = data.draw(st.lists(st.tuples(*[st.integers(-1, 2)] * width), min_size=1, max_size=20))
    axis = data.draw(hnp.arrays(np.int64, len(keys), elements=st.integers(-3, 3)))
    cuts = data.draw(st.lists(st.integers(0, len(keys)), max_size=3).map(sorted))
    assert_split_as_by_loop(keys, axis, *cuts)


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_rows_of_any_keys_and_axis_values_go_to_their_keys(data: st.DataObject) -> None:
    extremes = st.sampled_from([-(2**63), 2**63 - 1, 0, -1])
    keys: list[tuple[int, ...]] = data.draw(st.lists(st.tuples(extremes, extremes), min_size=1, max_size=8))
    axis = data.draw(hnp.arrays(np.int64, len(keys)))
    assert_split_as_by_loop(keys, axis)


def test_rows_are_sorted_by_the_axis() -> None:
    january, february = split_rows([(np.array([[2022, 1], [2022, 2], [2022, 1]]), np.array([3, 32, 1]))])
    ((number, rows),) = january.pieces
    assert (january.key, number, rows.tolist(), january.count) == ((2022, 1), 0, [2, 0], 2)  # type: ignore[union-attr]  # not a slice
    assert february == PartitionRows((2022, 2), ((0, slice(1, 2)),), None, 1)


def test_sorted_rows_are_slices() -> None:
    parts = split_rows([(np.repeat([[2], [5], [9]], 4, axis=0), np.arange(12))])
    assert [part.pieces for part in parts] == [((0, slice(start, start + 4)),) for start in (0, 4, 8)]


def test_inputs_that_follow_each_other_need_no_sorting() -> None:
    key = np.zeros((2, 1), np.int64)
    (part,) = split_rows([(key, np.array([1, 2])), (key, np.array([2, 3]))])
    assert part.order is None


def test_equal_axis_values_keep_the_order_of_the_inputs() -> None:
    key = np.zeros((3, 1), np.int64)
    (part,) = split_rows([(key, np.array([7, 3, 7])), (key, np.array([3, 7, 1]))])
    assert rows_of(part, [0, 3]) == [5, 1, 3, 0, 2, 4]


def test_keys_are_integers_of_python() -> None:
    (part,) = split_rows([(np.array([[2022, 1]]), np.array([0]))])
    assert [type(value) for value in part.key] == [int, int]
    assert type(part.count) is int


def test_no_rows_make_no_partitions() -> None:
    assert split_rows([(np.zeros((0, 2), np.int64), np.zeros(0, np.int64))]) == []
    assert split_rows([]) == []


# Sequences


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_a_sequence_has_the_values_of_its_variables(data: st.DataObject) -> None:
    dtypes = data.draw(st.lists(st.sampled_from(["i1", "i2", "i4", "i8", "u1", "u2", "u4"]), min_size=1, max_size=6))
    values = {f"v{i}": data.draw(hnp.arrays(dtype, 4)) for i, dtype in enumerate(dtypes)}
    keys = Sequence(tuple(values)).key_values(values)
    assert keys.dtype == np.int64
    assert keys.tolist() == [list(row) for row in zip(*(array.tolist() for array in values.values()), strict=True)]


@settings(deadline=None, max_examples=scaled(100))
@given(value=st.integers(-(2**63), 2**63 - 1), size=st.integers(1, 2**40), start=st.integers(-(2**40), 2**40))
def test_a_bucket_begins_at_most_its_size_below_the_value_and_lies_on_the_grid(
    value: int, size: int, start: int
) -> None:
    grouped = GroupedSequence(("pass",), size, start)
    first = value - (value - start) % size
    if first < -(2**63):
        with pytest.raises(InvalidInputError, match=r"variable pass: the bucket of .* begins below -2\*\*63"):
            grouped.key_values({"pass": np.array([value])})
    else:
        assert grouped.key_values({"pass": np.array([value])}).tolist() == [[first]]


def test_an_unsigned_key_above_64_bits_is_refused_with_its_row() -> None:
    values = np.array([2**63 - 1, 2**63], np.uint64)
    with pytest.raises(InvalidInputError, match=r"variable orbit: row 1 is 9223372036854775808.*2\*\*63 - 1"):
        Sequence(("orbit",)).key_values({"orbit": values})
    assert Sequence(("orbit",)).key_values({"orbit": values[:1]}).tolist() == [[2**63 - 1]]


@pytest.mark.parametrize("dtype", ["f4", "f8", "?", "M8[ns]"])
def test_a_sequence_of_anything_but_integers_is_refused(dtype: str) -> None:
    with pytest.raises(InvalidInputError, match="Sequence needs integer variables, and cycle is"):
        Sequence(("cycle",)).check_dtypes({"cycle": np.dtype(dtype)})


@pytest.mark.parametrize("variables", [(), ("a", "a"), tuple("abcdefg")])
def test_a_sequence_of_no_repeated_or_more_than_six_variables_is_refused(variables: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError, match="one to 6 different variables"):
        Sequence(variables)


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_a_bucket_without_values_is_refused(size: Any) -> None:
    with pytest.raises(InvalidInputError, match="a bucket has at least one value"):
        GroupedSequence(("pass",), size)


@pytest.mark.parametrize("partitioning", [Sequence(("cycle", "pass")), GroupedSequence(("cycle", "pass"), 10, -3)])
def test_sequences_come_back_from_the_registrys_json(partitioning: Any) -> None:
    assert partitioning_from_json(json.loads(json.dumps(partitioning.to_json()))) == partitioning
