"""Own values of a view: when their partition is read as it was, and what counts as computed by other code."""

from typing import Any

import pytest

from registry import Definition, Hunk, OwnFragment
from registry.overlay import Computed, OwnPartition

KEY = (2022, 1, 0, 0, 0, 0)
INPUT, OTHER = 1, 2
"""Variables of the base, each of which is a layer too."""


def was_used(hunk: Hunk, *, rowwise: bool) -> bool:
    """Whether what a commit did was done to rows, or inputs, of a fragment over the rows 10 … 19."""
    own = OwnFragment(KEY, 1, "uid", 0, 10, 10, 80, 1, 1, 5, 10)
    by = Definition("module:name", (INPUT,), (2**20,), rowwise=rowwise)
    partition = OwnPartition(
        (own,), {own: Computed(5, by)}, [(6, [hunk])], {each: frozenset({each}) for each in (INPUT, OTHER)}
    )
    return partition.used_were_replaced([own])


@pytest.mark.parametrize("rowwise", [True, False])
@pytest.mark.parametrize(
    ("hunk", "expected"),
    [
        pytest.param(Hunk(KEY, 0, 15, 1, 1), True, id="a row within is written over"),
        pytest.param(Hunk(KEY, 0, 19, 5, 5), True, id="rows at the end are, and others"),
        pytest.param(Hunk(KEY, 0, 20, 1, 1), False, id="the row behind is"),
        pytest.param(Hunk(KEY, 0, 9, 1, 1), False, id="the row before is"),
        pytest.param(Hunk(KEY, 0, 15, 0, 3), False, id="rows come in between"),
        pytest.param(Hunk(KEY, 0, 10, 0, 3), False, id="rows come before"),
        pytest.param(Hunk(KEY, 0, 20, 0, 3), False, id="rows come behind"),
        pytest.param(Hunk(KEY, INPUT, 10, 10, 10), True, id="an input is computed anew"),
        pytest.param(Hunk(KEY, OTHER, 10, 10, 10), False, id="another variable is"),
    ],
)
def test_values_are_shown_over_the_head_unless_what_they_were_computed_from_is_another(
    hunk: Hunk, expected: bool, rowwise: bool
) -> None:
    assert was_used(hunk, rowwise=rowwise) is expected


def test_rows_that_went_were_used_by_what_is_computed_from_whole_partitions_alone() -> None:
    gone = Hunk(KEY, 0, 15, 2, 0)
    assert not was_used(gone, rowwise=True)
    assert was_used(gone, rowwise=False)


def by(function: str | None = "module:name", **how: Any) -> Definition:
    return Definition(function, (INPUT,), (2**20,), **how)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param(by(), by(depth=1), True, id="the function alone"),
        pytest.param(by(), by("module:other"), False, id="another function"),
        pytest.param(by(), by(None), True, id="one that is not known"),
        pytest.param(by(code_version="1"), by(None, code_version="2"), False, id="another code version"),
        pytest.param(by(args=(1,), kwargs={"a": [1]}), by(args=(1,), kwargs={"a": [1]}), True, id="equal arguments"),
        pytest.param(by(), by(args=(1,)), False, id="an argument more"),
        pytest.param(by(kwargs={"a": 1}), by(kwargs={"a": True}), False, id="an argument of another type"),
    ],
)
def test_the_same_is_computed_by_the_same_function_of_the_same_version_with_the_same_arguments(
    one: Definition, other: Definition, expected: bool
) -> None:
    assert one.does_as(other) is expected
    assert other.does_as(one) is expected
