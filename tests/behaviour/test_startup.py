"""What a process loads: the libraries of what it does, and no others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SQL = {"alembic", "sqlalchemy"}
ARRAYS = {"dask", "numpy", "pandas", "xarray", "zarr"}
REST = {"distributed", "fsspec", "intake", "rich"}


def loaded_by(code: str, directory: Path) -> set[str]:
    """The libraries that a fresh interpreter has loaded when it has run some code."""
    report = f"\nimport sys; print(); print(*({SQL | ARRAYS | REST} & set(sys.modules)))"
    inherited = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    done = subprocess.run(
        [sys.executable, "-c", code + report],
        cwd=directory,
        env=inherited,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import registry",
        "import intake_zcollection",
        "from intake_zcollection import open_collection",
        "from intake_zcollection.cli import main; main(['--help'], standalone_mode=False)",
        "from intake_zcollection.cli import main; main(['--version'], standalone_mode=False)",
    ],
)
def test_naming_things_loads_no_library_of_arrays_or_sql(code: str, tmp_path: Path) -> None:
    assert loaded_by(code, tmp_path) == set()


def test_a_registry_loads_sqlalchemy_and_only_to_make_its_tables_alembic(tmp_path: Path) -> None:
    create = "import registry; registry.connect('sqlite:///registry.db', create=True)"
    read = "import registry; registry.connect('sqlite:///registry.db').collections()"
    assert loaded_by(create, tmp_path) == SQL
    assert loaded_by(read, tmp_path) == {"sqlalchemy"}


CREATE = """
import numpy as np, xarray as xr
import intake_zcollection as izc

def days(first, last):
    time = np.arange(first, last, dtype="M8[D]").astype("M8[ns]")
    return xr.Dataset({"ssh": ("time", np.arange(float(len(time))))}, {"time": time})

data = days("2022-01-01", "2022-03-01")
collection = izc.create_collection(
    izc.connect("sqlite:///registry.db", create=True), "a/b", data,
    axis="time", partitioning=izc.Date("time", "M"), location="data",
)
collection.insert(data)
"""

APPEND = """
import numpy as np, xarray as xr
import intake_zcollection as izc

time = np.arange("2022-04-01", "2022-04-02", dtype="M8[D]").astype("M8[ns]")
izc.open_collection("sqlite:///registry.db", "a/b").insert(xr.Dataset({"ssh": ("time", [1.0])}, {"time": time}))
"""


def test_writing_and_opening_load_no_distributed_and_no_progress_bar(tmp_path: Path) -> None:
    lazily = "\ncollection.load(where={'time': ('2022-01-20', None)})\nprint(repr(collection))"
    created = loaded_by(CREATE + lazily, tmp_path)
    assert created == {"alembic", "dask", "fsspec", "numpy", "pandas", "sqlalchemy", "xarray", "zarr"}
    assert loaded_by(APPEND, tmp_path) == created - {"alembic"}


WRITES = """
import dask

def check(what):
    assert not {"distributed", "rich"} & set(sys.modules), what

again = {"data": data.chunk(time=20), "merge": "replace", "progress": False}
check(collection.insert(**again))
check(collection.insert(data, merge="upsert", scheduler="threads"))
check(collection.insert(**again, scheduler="Synchronous"))
with dask.config.set(scheduler="sync"):
    check(collection.insert(**again))
check(collection.update(lambda dataset: {"ssh": dataset.ssh + 1}, outputs=["ssh"]))
check(collection.map(lambda dataset: dataset.ssh.mean()))
collection.insert(data, merge="replace", progress=True)
assert "rich" in sys.modules
"""


def test_distributed_is_loaded_for_no_scheduler_but_a_client_and_rich_for_a_bar_alone(tmp_path: Path) -> None:
    assert loaded_by(f"import sys\n{CREATE}{WRITES}", tmp_path) >= {"rich"}


def test_schedulers_are_those_of_dask_whether_distributed_is_loaded_or_not(tmp_path: Path) -> None:
    code = """
import sys, dask
from dask.base import get_scheduler
from intake_zcollection.execution import _chosen

def scheduler(graph, keys, **options): ...

names = ["threads", "Threads", "threading", "sync", "synchronous", "single-threaded", "processes", "multiprocessing"]
given = [None, scheduler, *names]

def everything(function):
    for value in given:
        yield function(value)
        with dask.config.set(scheduler=value):
            yield function(None)
            yield from map(function, ["threads", "processes"])

before = list(everything(_chosen))
assert "distributed" not in sys.modules
assert before == list(everything(lambda value: get_scheduler(scheduler=value)))
import distributed
assert before == list(everything(_chosen))
"""
    assert "distributed" in loaded_by(code, tmp_path)
