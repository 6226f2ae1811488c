"""The benchmarks run: small, so that their figures mean nothing, and complete."""

from pathlib import Path

import pytest

from benchmarks import runs
from benchmarks.appends import appends
from benchmarks.shapes import Sizes
from benchmarks.startup import startup


@pytest.mark.filterwarnings("ignore::UserWarning")  # what the compared ones warn of is theirs
def test_each_operation_has_a_row_and_something_to_compare_it_with(tmp_path: Path) -> None:
    rows = [
        *runs.small(tmp_path / "small", Sizes(partitions=4)),
        *runs.large(tmp_path / "large", Sizes(grid=(6, 4))),
        *appends(tmp_path / "appends", Sizes(days=2, parts=300)),
        *runs.memory(tmp_path / "memory", Sizes(nbytes=64 * 2**20)),
        *startup(tmp_path / "startup", Sizes(rounds=1)),
    ]
    assert len(rows) == 19
    assert all(row.compared for row in rows)
