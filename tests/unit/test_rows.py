"""Which ranges of rows a slice, slices, a mask or positions are, against numpy; and what is no such rows."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import intake_zcollection as izc
from intake_zcollection.reading.rows import ranges_of


def rows_in(ranges: list[tuple[int, int]]) -> list[int]:
    """All rows of some ranges, one by one."""
    return [row for start, stop in ranges for row in range(start, stop)]


@given(st.integers(1, 12), st.data())
def test_rows_are_those_that_numpy_takes(size: int, data: st.DataObject) -> None:
    bounds = st.one_of(st.none(), st.integers(-size - 2, size))
    rows = np.arange(size)
    some = data.draw(st.builds(slice, bounds, bounds, st.sampled_from([None, 1])))
    assert rows_in(ranges_of(some, size, "")) == rows[some].tolist()

    mask = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    ranges = ranges_of(mask, size, "")
    assert rows_in(ranges) == rows[mask].tolist()
    assert len(ranges) == np.count_nonzero(np.diff(mask, prepend=False) & mask)  # none begins where another ends
    for form in (np.flatnonzero(mask), np.flatnonzero(mask).tolist(), [slice(*each) for each in ranges]):
        assert ranges_of(form, size, "") == ranges


NO_ROWS = {
    "a step": (slice(0, 9, 2), r"slice\(0, 9, 2\) in rows= has the step 2"),
    "a slice backwards": (slice(9, 0, -1), "has the step -1"),
    "a slice beyond the end": (slice(5, 11), r"slice\(5, 11, None\) in rows= goes beyond the 10 rows"),
    "a slice of dates": (slice("2022", "2023"), "no integers"),
    "slices that overlap": ([slice(0, 4), slice(3, 6)], "begins at row 3, and the one before ends at 4"),
    "slices in another order": ((slice(8, None), slice(0, 2)), "begins at row 0, and the one before ends at 10"),
    "a short mask": (np.ones(9, bool), "a mask in rows= has 9 values, and there are 10 rows"),
    "a long mask": ([True] * 11, "a mask in rows= has 11 values, and there are 10 rows"),
    "an empty mask": (np.zeros(0, bool), "a mask in rows= has 0 values"),
    "a mask of maps": (np.ones((10, 2), bool), "ndarray of 2 dimensions and bool"),
    "a position beyond the end": ([3, 10], "has the position 10, and the 10 rows are 0 to 9"),
    "a negative position": ([-1, 3], "has the position -1"),
    "positions that descend": (np.array([3, 2]), "2 comes after 3"),
    "a position twice": ([3, 3], "3 comes after 3"),
    "a position alone": (3, "int of 0 dimensions"),
    "positions with a fraction": ([0.0, 1.0], "list of 1 dimensions and float64"),
    "nothing": (None, "NoneType"),
    "text": ("all", "str"),
    "slices and positions": ([slice(0, 2), 5], "list of 1 dimensions and object"),
    "lists of several lengths": ([[1], [2, 3]], "takes a slice"),
}


@pytest.mark.parametrize("what", NO_ROWS)
def test_what_is_no_rows_is_refused(what: str) -> None:
    rows, match = NO_ROWS[what]
    with pytest.raises(izc.InvalidInputError, match=f"^{re.escape('a/b, k=1')}: .*{match}"):
        ranges_of(rows, 10, "a/b, k=1")


@pytest.mark.parametrize("rows", [[], (), np.array([]), slice(0, 0), slice(7, 3), slice(10, None), np.zeros(10, bool)])
def test_no_rows_may_be_wanted(rows: Any) -> None:
    assert ranges_of(rows, 10, "") == []
