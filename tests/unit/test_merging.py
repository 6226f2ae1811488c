"""The merge strategies: which existing rows survive, and that no inserted one is lost."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intake_zcollection.errors import InvalidInputError
from intake_zcollection.merging import check_merge, local_strategy, parse_tolerance, parts_to_read, plan_cuts, repeated
from tests.examples import scaled

from .cutting import Rows, applied, axis_of, bounds_of


def merged(merge: str, existing: list[int], *inserted: list[int], tolerance: Any = None) -> list[tuple[int, str]]:
    """The rows at these times, merged; whether they are old or new. The existing ones are one part."""
    strategy = local_strategy(merge, tolerance)
    assert strategy is not None
    old = [(time, 0) for time in existing]
    new = [[(time, number) for time in times] for number, times in enumerate(inserted, 1)]
    parts: list[Rows] = [old] if old else []
    axes = [axis_of(rows) for rows in new]
    needed = parts_to_read(strategy, axes, bounds_of(parts))
    plan = plan_cuts(strategy, axes, bounds_of(parts), {number: axis_of(parts[number]) for number in needed})
    names = ["old", "new", *(f"new {number}" for number in range(2, len(new) + 1))]
    return [(time, names[number]) for part in applied(plan, parts, new) for time, number in part]


OLD = [10, 20, 30, 40]

CASES = {
    # name: (inserted, {strategy: the times of the existing rows that survive}, the inserted ones that "keep" adds)
    "before": ([1, 5], {"concat": OLD, "time_series": OLD, "upsert": OLD}, [1, 5]),
    "after": ([50, 60], {"concat": OLD, "time_series": OLD, "upsert": OLD}, [50, 60]),
    "overlap left": ([5, 20], {"concat": OLD, "time_series": [30, 40], "upsert": [10, 30, 40]}, [5]),
    "overlap right": ([30, 55], {"concat": OLD, "time_series": [10, 20], "upsert": [10, 20, 40]}, [55]),
    "inside": ([15, 35], {"concat": OLD, "time_series": [10, 40], "upsert": OLD}, [15, 35]),
    "contains": ([5, 50], {"concat": OLD, "time_series": [], "upsert": OLD}, [5, 50]),
    "equal": (OLD, {"concat": OLD, "time_series": [], "upsert": []}, []),
    "one row": ([30], {"concat": OLD, "time_series": [10, 20, 40], "upsert": [10, 20, 40]}, []),
    "duplicates": ([20, 20], {"concat": OLD, "time_series": [10, 30, 40], "upsert": [10, 30, 40]}, []),
    "new duplicates": ([25, 25], {"concat": OLD, "time_series": OLD, "upsert": OLD}, [25, 25]),
}


@pytest.mark.parametrize("strategy", ["concat", "time_series", "upsert", "keep", "append"])
@pytest.mark.parametrize("case", CASES)
def test_the_table_of_the_strategies_holds(case: str, strategy: str) -> None:
    inserted, survivors, kept = CASES[case]
    if strategy == "append":
        there = sorted(set(OLD) & set(inserted))
        assert repeated([np.array(inserted)], np.array(OLD)).tolist() == there
        if there:
            return
    expected: list[tuple[int, str]] = sorted(
        [
            *((time, "old") for time in survivors.get(strategy, OLD)),
            *((time, "new") for time in (kept if strategy == "keep" else inserted)),
        ],
        key=lambda row: (row[0], row[1] == "new"),
    )
    assert merged(strategy, OLD, inserted) == expected


def test_existing_rows_survive_in_gaps_longer_than_the_tolerance() -> None:
    assert merged("time_series", [4, 12, 25, 35, 50], [1, 5, 15, 40, 45], tolerance=10) == [
        *[(1, "new"), (5, "new"), (15, "new"), (25, "old"), (35, "old"), (40, "new"), (45, "new"), (50, "old")]
    ]
    assert merged("time_series", [25], [1, 15, 40], tolerance=25) == [(1, "new"), (15, "new"), (40, "new")]


def test_an_upsert_replaces_what_lies_within_the_tolerance() -> None:
    assert merged("upsert", [10, 20, 30], [12, 17, 33], tolerance=2) == [
        *[(12, "new"), (17, "new"), (20, "old"), (30, "old"), (33, "new")]
    ]


def test_the_datasets_of_one_insert_count_as_if_they_came_one_after_the_other() -> None:
    assert merged("concat", [5], [5], [5]) == [(5, "old"), (5, "new"), (5, "new 2")]
    assert merged("upsert", [5], [5, 5, 6], [5]) == [(5, "new 2"), (6, "new")]
    assert merged("keep", [5], [5, 6, 6], [6, 7]) == [(5, "old"), (6, "new"), (6, "new"), (7, "new 2")]
    # The first dataset has replaced what lay near it before the second one replaced it.
    assert merged("upsert", [8], [10], [12], tolerance=2) == [(12, "new 2")]
    assert merged("time_series", [3], [2, 4], [4, 6]) == [(2, "new"), (4, "new 2"), (6, "new 2")]


def test_an_axis_value_that_two_datasets_bring_is_repeated_and_one_that_a_dataset_brings_twice_is_not() -> None:
    nothing = np.empty(0, np.int64)
    assert repeated([np.array([1, 1, 2])], nothing).tolist() == []
    assert repeated([np.array([1, 1, 2]), np.array([2, 3])], nothing).tolist() == [2]
    assert repeated([np.array([3, 4]), np.array([3]), np.array([9])], np.array([9])).tolist() == [3, 9]


def test_tolerances_of_times_are_timedeltas() -> None:
    day, axis = 86_400 * 10**9, np.dtype("M8[ns]")
    near = parse_tolerance(np.timedelta64(1, "D"), axis)
    assert merged("upsert", [0, 5 * day], [day, 8 * day], tolerance=near) == [
        *[(day, "new"), (5 * day, "old"), (8 * day, "new")]
    ]
    far = parse_tolerance(np.timedelta64(3, "D"), axis)
    assert len(merged("time_series", [0, 5 * day], [day, 8 * day], tolerance=far)) == 4


@pytest.mark.parametrize("tolerance", [2**63 - 1, np.timedelta64(2**63 - 1, "ns")])
def test_values_at_both_ends_of_the_axis_are_further_apart_than_a_tolerance_of_half_of_it(tolerance: Any) -> None:
    far = 2**63 - 1
    assert merged("time_series", [0], [-far, far], tolerance=tolerance) == [(-far, "new"), (0, "old"), (far, "new")]
    assert merged("upsert", [-far], [far], tolerance=tolerance) == [(-far, "old"), (far, "new")]


@pytest.mark.parametrize("tolerance", [2**64 - 1, 2**64, 10**30])
def test_within_a_tolerance_as_long_as_the_axis_lies_everything(tolerance: int) -> None:
    first, last = -(2**63), 2**63 - 1
    assert merged("time_series", [0], [first, last], tolerance=tolerance) == [(first, "new"), (last, "new")]
    assert merged("upsert", [first, 0], [last], tolerance=tolerance) == [(last, "new")]


TIMES = st.lists(st.integers(0, 12), min_size=1, max_size=8).map(sorted)
STRATEGIES = [
    ("concat", None),
    *[("time_series", None), ("upsert", None), ("time_series", 2), ("upsert", 2), ("keep", None)],
]
IDS = [merge if tolerance is None else f"{merge}+tolerance" for merge, tolerance in STRATEGIES]


@pytest.mark.parametrize(("merge", "tolerance"), STRATEGIES[:-1], ids=IDS[:-1])
@settings(deadline=None, max_examples=scaled(40))
@given(existing=TIMES, inserted=TIMES)
def test_no_inserted_row_is_lost_and_the_result_is_sorted(
    merge: str, tolerance: Any, existing: list[int], inserted: list[int]
) -> None:
    result = merged(merge, existing, inserted, tolerance=tolerance)
    assert [time for time, origin in result if origin == "new"] == inserted
    assert [time for time, _ in result] == sorted(time for time, _ in result)
    assert {time for time, origin in result if origin == "old"} <= set(existing)


@pytest.mark.parametrize(("merge", "tolerance"), STRATEGIES[1:], ids=IDS[1:])
@settings(deadline=None, max_examples=scaled(40))
@given(existing=TIMES, inserted=TIMES)
def test_inserting_again_what_was_inserted_changes_nothing(
    merge: str, tolerance: Any, existing: list[int], inserted: list[int]
) -> None:
    once = [time for time, _ in merged(merge, existing, inserted, tolerance=tolerance)]
    assert [time for time, _ in merged(merge, once, inserted, tolerance=tolerance)] == once


@pytest.mark.parametrize("merge", ["refuse", "replace", max])
def test_what_is_about_whole_partitions_is_no_strategy_of_axis_values(merge: Any) -> None:
    assert local_strategy(merge) is None


def test_a_strategy_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="merge='zzz' is not one of 'append', 'refuse', 'replace', 'keep'"):
        local_strategy("zzz")


@pytest.mark.parametrize("merge", ["append", "keep", "refuse", "replace", "concat", max])
def test_a_tolerance_for_a_strategy_without_one_is_refused(merge: Any) -> None:
    with pytest.raises(InvalidInputError, match="takes no tolerance; time_series and upsert do"):
        check_merge(merge, 5)
