"""Which rows of which parts ranges of rows are, against all rows one by one."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from intake_zcollection.reading.crop import _ranges
from intake_zcollection.reading.table import FRAGMENT, PART, PartitionTable
from registry import KeyValues


def table_of(partitions: list[list[int]]) -> PartitionTable:
    """Return the table of partitions of one key, by the sizes of their parts, each in a group of its own."""
    sizes = [size for each in partitions for size in each]
    parts, fragments = np.zeros(len(sizes), PART), np.zeros(len(sizes), FRAGMENT)
    parts["rows"] = parts["stop"] = sizes
    parts["low"] = np.arange(len(sizes))
    parts["held"] = 1
    fragments["start"] = np.arange(len(sizes))
    keys, counts = np.arange(len(partitions))[:, None], np.array([len(each) for each in partitions], np.int64)
    return PartitionTable(("k",), keys, counts, parts, fragments)


def rows_of(table: PartitionTable) -> list[tuple[int, int]]:
    """Return all rows, by the part, which a table has as the first value of its axis."""
    return [(int(part["low"]), row) for part in table.parts for row in range(part["start"], part["stop"])]


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=5), max_size=4), st.data())
def test_ranges_of_rows_are_divided_where_parts_end(partitions: list[list[int]], data: st.DataObject) -> None:
    wanted = [sorted(data.draw(st.sets(st.integers(0, sum(sizes) - 1)))) for sizes in partitions]
    rows: dict[KeyValues, list[tuple[int, int]]] = {
        (number,): [(int(run[0]), int(run[-1]) + 1) for run in np.split(some, np.flatnonzero(np.diff(some) > 1) + 1)]
        for number, some in enumerate(wanted)
        if some
    }
    table = table_of(partitions)
    every, ends = rows_of(table), list(itertools.accumulate(map(sum, partitions), initial=0))
    cropped = table.of_rows(_ranges(table, rows))
    assert rows_of(cropped) == [every[end + row] for end, some in zip(ends, wanted, strict=False) for row in some]
    assert all(cropped.piece_sizes > 0)
    assert np.array_equal(cropped.fragments["start"], cropped.parts["low"])
    again = data.draw(st.sets(st.integers(0, max(cropped.rows - 1, 0))) if cropped.rows else st.just(set[int]()))
    assert rows_of(cropped.of_rows((row, row + 1) for row in sorted(again))) == [
        rows_of(cropped)[row] for row in sorted(again)
    ]
