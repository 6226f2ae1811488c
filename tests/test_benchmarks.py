"""The benchmarks run: small, so that their figures mean nothing, and complete."""

import subprocess
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import memory, startup
from benchmarks.__main__ import SHAPES
from benchmarks.measure import measure
from benchmarks.shapes import Sizes
from tests.postgres import PostgresServer
from tests.processes import run_forked, start_fork_server

SIZES = {
    "small": (Sizes(partitions=4, following=2), 5),
    "large": (Sizes(grid=(6, 4)), 4),
    "appends": (Sizes(days=2, parts=300), 4),
    "memory": (Sizes(nbytes=8 * 2**20), 1),
    "startup": (Sizes(rounds=1), 5),
    "writers": (Sizes(writers=2, inserts=2), 6),
    "scale": (Sizes(registered=3000, asked=1), 22),
    "views": (Sizes(synced=3, shown=10, asked=1), 10),
    "lookups": (Sizes(partitions=4, indexed=1000, asked=1), 7),
    "retention": (Sizes(days=2, expired=50), 4),
}
"""Of each shape, and the number of its rows."""


def run(command: list[str], *, cwd: Path, **options: Any) -> CompletedProcess[Any]:
    """Run Python: in an interpreter of its own where it is to write by this library, else where all is imported."""
    return subprocess.run(command, cwd=cwd, **options) if "ours" in command else run_forked(command, cwd)


@pytest.fixture
def _nothing_is_waited_for(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure at once, and have servers there: else the disk would be waited for, with what other tests write."""
    start_fork_server()  # before the benchmarks do, with less than what other tests want
    for module in (startup, memory):
        monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=run, PIPE=subprocess.PIPE))
    assert measure.__kwdefaults__
    monkeypatch.setitem(measure.__kwdefaults__, "before", lambda: None)
    monkeypatch.setenv("ZC_POSTGRES_URL", postgres.url.render_as_string(hide_password=False))


@pytest.mark.usefixtures("_nothing_is_waited_for")
@pytest.mark.filterwarnings("ignore::UserWarning")  # what the compared ones warn of is theirs
@pytest.mark.parametrize("shape", SHAPES)
def test_each_operation_has_a_row_and_something_to_compare_it_with(tmp_path: Path, shape: str) -> None:
    sizes, count = SIZES[shape]
    rows = list(SHAPES[shape](tmp_path, sizes))
    assert len(rows) == count
    assert all(row.compared for row in rows)
