"""What cutting the parts of a partition makes of it, against whole lists of rows; nothing is read in vain."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from intake_zcollection.merging import (
    Local,
    local_strategy,
    parts_to_read,
    plan_cuts,
    plan_drop_range,
    plan_drop_rows,
    repeated,
    runs,
)
from tests.examples import scaled

from .cutting import Rows, applied, axis_of, bounds_of, merged_in_turn

FIRST, LAST = -(2**63), 2**63 - 1
APART = 3
"""In place of the 256 rows that divide runs, for examples that can be read."""

TIMES = st.integers(0, 30) | st.sampled_from([FIRST, FIRST + 1, FIRST + 2, LAST - 2, LAST - 1, LAST])
TOLERANCES = st.none() | st.integers(0, 6) | st.sampled_from([2**62, LAST - 1, LAST, 2**63, 2**64 - 1, 2**70])
STRATEGIES = st.sampled_from(["append", "keep", "concat"]).map(local_strategy) | st.builds(
    local_strategy, st.sampled_from(["upsert", "time_series"]), TOLERANCES
)


@pytest.fixture(autouse=True)
def _few_rows_divide_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "APART", APART)


def examples(number: int) -> settings:
    return settings(
        max_examples=scaled(number),
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@st.composite
def partitions(draw: st.DrawFn, least: int = 0) -> list[Rows]:
    """The parts of a partition, anyhow divided, but never between equal values."""
    times = sorted(draw(st.lists(TIMES, min_size=least, max_size=16)))
    parts: list[Rows] = []
    for number, time in enumerate(times):
        if parts and (parts[-1][-1][0] == time or draw(st.booleans())):
            parts[-1].append((time, number))
        else:
            parts.append([(time, number)])
    return parts


@st.composite
def datasets(draw: st.DrawFn) -> list[Rows]:
    """Rows to insert, of one dataset or of several, sorted by the axis as the planner gets them."""
    numbers = itertools.count(1000)
    lists = draw(st.lists(st.lists(TIMES, min_size=1, max_size=6), min_size=1, max_size=3))
    return [[(time, next(numbers)) for time in sorted(times)] for times in lists]


def assert_apart(parts: Sequence[Rows]) -> None:
    for part in parts:
        assert part == sorted(part, key=lambda row: row[0])
    for before, after in itertools.pairwise(parts):
        assert before[-1][0] < after[0][0], "parts touch"


def rows_of(parts: Sequence[Rows]) -> Rows:
    return [row for part in parts for row in part]


@examples(300)
@given(strategy=STRATEGIES, parts=partitions(), inserted=datasets())
def test_cutting_parts_gives_what_merging_whole_lists_one_after_the_other_gives(
    strategy: Local, parts: list[Rows], inserted: list[Rows]
) -> None:
    bounds, axes = bounds_of(parts), [axis_of(rows) for rows in inserted]
    needed = parts_to_read(strategy, axes, bounds)
    known = {number: axis_of(parts[number]) for number in needed}
    before = rows_of(parts)
    if strategy.name == "append":
        there = np.concatenate([*known.values(), np.empty(0, np.int64)])
        again = repeated(axes, there).tolist()
        seen = {time for time, _ in before}
        expected = set[int]()
        for rows in inserted:
            expected |= seen & {time for time, _ in rows}
            seen |= {time for time, _ in rows}
        assert again == sorted(expected)
        if again:
            event("appended again")
            return
    plan = plan_cuts(strategy, axes, bounds, known)
    after = applied(plan, parts, inserted)
    expected_rows = merged_in_turn(strategy, before, inserted)
    assert rows_of(after) == expected_rows
    assert_apart(after)
    left = {number for _, number in expected_rows}
    assert plan.inserted == sum(number in left for _, number in rows_of(inserted))
    assert plan.given_up == sum(number not in left for _, number in before)
    if strategy.name == "keep":
        times = {time for time, _ in rows_of(inserted)}
        assert plan.left_out == tuple(n for n, part in enumerate(parts) if times & {time for time, _ in part})
    else:
        assert plan.left_out == ()
    assert [run.met for run in plan.runs] == [tuple(bounds.met_by(*run.axis_range)) for run in plan.runs]
    assert set(plan.kept) == {number for run in plan.runs for number in run.met}


@examples(120)
@given(strategy=STRATEGIES, parts=partitions(least=1), inserted=datasets())
def test_no_part_is_looked_at_that_no_row_or_end_of_a_period_falls_into(
    strategy: Local, parts: list[Rows], inserted: list[Rows]
) -> None:
    reach = (strategy.tolerance or 0) if strategy.name == "upsert" else 0
    for number in parts_to_read(strategy, [axis_of(rows) for rows in inserted], bounds_of(parts)):
        low, high = parts[number][0][0] - reach, parts[number][-1][0] + reach
        assert any(low <= time <= high for time, _ in rows_of(inserted))


@examples(120)
@given(
    strategy=st.sampled_from(["concat", "upsert", "keep"]).map(local_strategy),
    parts=partitions(least=1),
    inserted=datasets(),
)
def test_what_lies_between_inserted_rows_is_written_again_only_if_it_is_little(
    strategy: Local, parts: list[Rows], inserted: list[Rows]
) -> None:
    bounds, axes = bounds_of(parts), [axis_of(rows) for rows in inserted]
    known = {number: axis_of(parts[number]) for number in parts_to_read(strategy, axes, bounds)}
    plan = plan_cuts(strategy, axes, bounds, known)
    new = {number for _, number in rows_of(inserted)}
    times = sorted({time for time, number in rows_of(applied(plan, parts, inserted)) if number in new})
    read = [parts[number][row] for run in plan.runs for number, first, last in run.read for row in range(first, last)]
    assert len(read) == len(set(read))
    for before, after in itertools.pairwise(times):
        between = [row for row in read if before < row[0] < after]
        assert len(between) < APART
        assert not any(set(part) <= set(between) for part in parts), "a whole part is written again"
    assert all(times[0] <= time <= times[-1] for time, _ in read)


@examples(60)
@given(parts=partitions(least=1), ends=st.tuples(TIMES, TIMES))
def test_dropping_a_range_leaves_the_rest_where_it_is(parts: list[Rows], ends: tuple[int, int]) -> None:
    low, high = sorted(ends)
    cut = {n: axis_of(part) for n, part in enumerate(parts) if part[0][0] < low or high < part[-1][0]}
    plan = plan_drop_range(low, high, bounds_of(parts), cut)
    after = applied(plan, parts)
    assert rows_of(after) == [row for row in rows_of(parts) if not low <= row[0] <= high]
    assert plan.given_up == len(rows_of(parts)) - len(rows_of(after))
    assert sum(run.rows for run in plan.runs) == 0, "rows are written"
    assert_apart(after)


@examples(120)
@given(data=st.data(), parts=partitions(least=1))
def test_dropping_any_rows_writes_again_what_lies_close_between_them_and_their_ties(
    data: st.DataObject, parts: list[Rows]
) -> None:
    before = rows_of(parts)
    some = st.lists(st.booleans(), min_size=len(before), max_size=len(before)).filter(any)
    gone = data.draw(some, "gone")
    plan = plan_drop_rows(np.array(gone), bounds_of(parts), {n: axis_of(part) for n, part in enumerate(parts)})
    after = applied(plan, parts)
    assert rows_of(after) == [row for row, dropped in zip(before, gone, strict=True) if not dropped]
    assert_apart(after)
    assert plan.given_up == sum(gone)
    dropped = {time for (time, _), yes in zip(before, gone, strict=True) if yes}
    ties = sum(time in dropped for time, _ in rows_of(after))
    assert sum(run.rows for run in plan.runs) <= (APART - 1) * sum(gone) + ties


@pytest.mark.parametrize("strategy", [Local("concat"), Local("upsert", 3), Local("time_series"), Local("keep")])
def test_what_lies_outside_of_what_is_there_touches_nothing(strategy: Any) -> None:
    parts = [[(10, 0), (11, 1)], [(20, 2)]]
    axes = [np.array([30, 31]), np.array([1])]
    assert parts_to_read(strategy, axes, bounds_of(parts)) == []
    touching = strategy.name == "time_series"
    plan = plan_cuts(strategy, axes, bounds_of(parts), {})
    assert plan.kept == {}, touching
    assert [run.rows for run in plan.runs] == [1, 2]


def test_a_run_in_a_hole_inside_of_a_part_divides_it() -> None:
    parts = [[(10, 0), (20, 1)]]
    plan = plan_cuts(Local("append"), [np.array([15])], bounds_of(parts), {0: axis_of(parts[0])})
    assert [(kept.offset, kept.rows) for kept in plan.kept[0]] == [(0, 1), (1, 1)]
    assert plan.runs[0].read == ()


def test_a_row_between_two_parts_cuts_neither() -> None:
    parts = [[(10, 0), (11, 1)], [(20, 2)]]
    plan = plan_cuts(Local("append"), [np.array([15])], bounds_of(parts), {})
    assert (plan.kept, plan.runs[0].met) == ({}, ())
