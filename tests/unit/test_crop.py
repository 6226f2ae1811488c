"""Which rows of which parts ranges of rows are, against all rows one by one."""

from typing import Any, cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from intake_zcollection.reading.crop import _pieces
from intake_zcollection.reading.table import PartitionTable
from registry import KeyValues


class Table:
    """Partitions of one key, by the sizes of their parts: all that is asked of a table."""

    def __init__(self, partitions: list[list[int]]) -> None:
        self.values = np.arange(len(partitions))[:, None]
        self.counts = np.array([len(each) for each in partitions], np.int64)
        self.piece_sizes = np.array([size for each in partitions for size in each], np.int64)


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=5), max_size=4), st.data())
def test_ranges_of_rows_are_divided_where_parts_end(partitions: list[list[int]], data: st.DataObject) -> None:
    wanted = [sorted(data.draw(st.sets(st.integers(0, sum(sizes) - 1)))) for sizes in partitions]
    rows: dict[KeyValues, list[tuple[int, int]]] = {
        (number,): [(int(run[0]), int(run[-1]) + 1) for run in np.split(some, np.flatnonzero(np.diff(some) > 1) + 1)]
        for number, some in enumerate(wanted)
        if some
    }
    numbers, starts, stops = _pieces(cast("PartitionTable", cast("Any", Table(partitions))), rows)
    found = [(n, row) for n, start, stop in zip(numbers, starts, stops, strict=True) for row in range(start, stop)]
    expected, first = [], 0
    for sizes, some in zip(partitions, wanted, strict=True):
        every = [(first + part, row) for part, size in enumerate(sizes) for row in range(size)]
        expected += [every[row] for row in some]
        first += len(sizes)
    assert found == expected
    assert all(start < stop for start, stop in zip(starts, stops, strict=True))
