"""The merge strategies: which existing rows survive, and that no inserted one is lost."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from intake_zcollection.errors import InvalidInputError
from intake_zcollection.merging import concat, replace, strategy_of, time_series, upsert


def rows(times: list[int], source: str) -> xr.Dataset:
    """Rows at these times; ``origin`` tells them apart: "a0", "a1" … by number of the source."""
    numbers = np.arange(len(times)) + (1000 if source == "new" else 0)
    return xr.Dataset(
        {"origin": ("x", numbers), "wide": (("y", "x"), np.stack([numbers, -numbers]))},
        {"time": ("x", np.array(times, np.int64))},
    )


def merged(strategy: Any, existing: list[int], inserted: list[int]) -> list[tuple[int, str]]:
    result = strategy(rows(existing, "old"), rows(inserted, "new"), axis="time", dimension="x")
    np.testing.assert_array_equal(result.wide.values, [result.origin.values, -result.origin.values])
    return [
        (int(time), "new" if origin >= 1000 else "old")
        for time, origin in zip(result.time.values, result.origin.values, strict=True)
    ]


OLD = [10, 20, 30, 40]

CASES = {
    # name: (inserted, {strategy: the times of the existing rows that survive})
    "before": ([1, 5], {"concat": OLD, "time_series": OLD, "upsert": OLD, "replace": []}),
    "after": ([50, 60], {"concat": OLD, "time_series": OLD, "upsert": OLD, "replace": []}),
    "overlap left": ([5, 20], {"concat": OLD, "time_series": [30, 40], "upsert": [10, 30, 40], "replace": []}),
    "overlap right": ([30, 55], {"concat": OLD, "time_series": [10, 20], "upsert": [10, 20, 40], "replace": []}),
    "inside": ([15, 35], {"concat": OLD, "time_series": [10, 40], "upsert": OLD, "replace": []}),
    "contains": ([5, 50], {"concat": OLD, "time_series": [], "upsert": OLD, "replace": []}),
    "equal": (OLD, {"concat": OLD, "time_series": [], "upsert": [], "replace": []}),
    "one row": ([30], {"concat": OLD, "time_series": [10, 20, 40], "upsert": [10, 20, 40], "replace": []}),
    "duplicates": ([20, 20], {"concat": OLD, "time_series": [10, 30, 40], "upsert": [10, 30, 40], "replace": []}),
}


@pytest.mark.parametrize("strategy", ["concat", "time_series", "upsert", "replace"])
@pytest.mark.parametrize("case", CASES)
def test_the_table_of_the_strategies_holds(case: str, strategy: str) -> None:
    inserted, survivors = CASES[case]
    expected: list[tuple[int, str]] = sorted(
        [(time, "old") for time in survivors[strategy]] + [(time, "new") for time in inserted],
        key=lambda row: (row[0], row[1] == "new"),
    )
    assert merged(strategy_of(strategy), OLD, inserted) == expected


def test_existing_rows_survive_in_gaps_longer_than_the_tolerance() -> None:
    with_gap = partial(time_series, tolerance=10)
    assert merged(with_gap, [4, 12, 25, 35, 50], [1, 5, 15, 40, 45]) == [
        *[(1, "new"), (5, "new"), (15, "new"), (25, "old"), (35, "old"), (40, "new"), (45, "new"), (50, "old")]
    ]
    assert merged(partial(time_series, tolerance=25), [25], [1, 15, 40]) == [(1, "new"), (15, "new"), (40, "new")]


def test_an_upsert_replaces_what_lies_within_the_tolerance() -> None:
    near = partial(upsert, tolerance=2)
    assert merged(near, [10, 20, 30], [12, 17, 33]) == [(12, "new"), (17, "new"), (20, "old"), (30, "old"), (33, "new")]


def test_tolerances_of_times_are_timedeltas() -> None:
    day = np.timedelta64(1, "D")
    old = rows([0, 5], "old").assign_coords(time=("x", np.array(["2022-01-01", "2022-01-06"], "M8[ns]")))
    new = rows([0, 5], "new").assign_coords(time=("x", np.array(["2022-01-02", "2022-01-09"], "M8[ns]")))
    assert upsert(old, new, axis="time", dimension="x", tolerance=day).sizes["x"] == 3
    assert time_series(old, new, axis="time", dimension="x", tolerance=3 * day).sizes["x"] == 4


def test_an_unsigned_axis_is_compared_as_numbers() -> None:
    old, new = (rows([5, 9], s).assign_coords(time=("x", np.array([5, 9], "u8"))) for s in ("old", "new"))
    assert upsert(old, new, axis="time", dimension="x", tolerance=3).sizes["x"] == 2


@pytest.mark.parametrize(
    ("dtype", "far", "tolerance"),
    [("i2", 2**15 - 1, 2**15), ("M8[ns]", 2**63 - 1, np.timedelta64(2**63 - 1, "ns"))],
)
def test_values_at_both_ends_of_a_dtype_are_far_apart(dtype: str, far: int, tolerance: Any) -> None:
    def at(values: list[int], origin: str) -> xr.Dataset:
        axis = np.array(values, f"i{np.dtype(dtype).itemsize}").view(dtype)
        return rows(values, origin).assign_coords(time=("x", axis))

    how: dict[str, Any] = {"axis": "time", "dimension": "x", "tolerance": tolerance}
    assert time_series(at([0], "old"), at([-far, far], "new"), **how).sizes["x"] == 3
    assert upsert(at([-far], "old"), at([far], "new"), **how).sizes["x"] == 2


TIMES = st.lists(st.integers(0, 12), min_size=1, max_size=8).map(sorted)
STRATEGIES = [concat, replace, time_series, upsert, partial(time_series, tolerance=2), partial(upsert, tolerance=2)]
IDS = ["concat", "replace", "time_series", "upsert", "time_series+tolerance", "upsert+tolerance"]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=IDS)
@settings(deadline=None, max_examples=60)
@given(existing=TIMES, inserted=TIMES)
def test_no_inserted_row_is_lost_and_the_result_is_sorted(
    strategy: Any, existing: list[int], inserted: list[int]
) -> None:
    result = merged(strategy, existing, inserted)
    assert [time for time, origin in result if origin == "new"] == inserted
    assert [time for time, _ in result] == sorted(time for time, _ in result)
    assert {time for time, origin in result if origin == "old"} <= set(existing)


@pytest.mark.parametrize("strategy", STRATEGIES[1:], ids=IDS[1:])
@settings(deadline=None, max_examples=60)
@given(existing=TIMES, inserted=TIMES)
def test_inserting_again_what_was_inserted_changes_nothing(
    strategy: Any, existing: list[int], inserted: list[int]
) -> None:
    new = rows(inserted, "new")
    once = strategy(rows(existing, "old"), new, axis="time", dimension="x")
    xr.testing.assert_identical(strategy(once, new, axis="time", dimension="x"), once)


def test_a_strategy_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="merge='append' is not one of 'refuse', 'replace', 'concat'"):
        strategy_of("append")


@pytest.mark.parametrize("merge", ["refuse", "replace", "concat", max])
def test_a_tolerance_for_a_strategy_without_one_is_refused(merge: Any) -> None:
    with pytest.raises(InvalidInputError, match="takes no tolerance; time_series and upsert do"):
        strategy_of(merge, 5)
