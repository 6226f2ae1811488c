"""The fork server, one for all tests of a process: its children start in milliseconds, with these imported already."""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from subprocess import CalledProcessError, CompletedProcess
from tempfile import NamedTemporaryFile

import dask

PRELOADED = (
    *("tests.behaviour.test_conflicts", "tests.behaviour.test_crash", "tests.behaviour.test_other_hands"),
    *(
        "tests.behaviour.test_view_bases",
        "tests.behaviour.test_view_syncing",
        "tests.behaviour.test_queue",
        "tests.behaviour.test_reading_only",
        "tests.behaviour.test_retention_kills",
        "tests.registry.conftest",
    ),
    *("dask.distributed", "zarr", "fsspec.implementations.memory", "scipy.sparse", "pint", "registry.registry"),
    *(
        "alembic.config",
        "sqlalchemy.dialects.sqlite",
        "sqlalchemy.dialects.postgresql",
        "psycopg",
        "benchmarks.retention",
        "benchmarks.writers",
    ),
)
"""The modules that children find their functions in, and what they import later."""


def start_fork_server() -> None:
    """Start it unless it runs; whoever starts it chooses for all, so nobody else shall."""
    multiprocessing.set_forkserver_preload(list(PRELOADED))
    forkserver.ensure_running()


@contextmanager
def processes_of_dask(method: str) -> Iterator[None]:
    """Have dask's processes and its clusters' workers start by ``"forkserver"``, or by ``"spawn"``, as users' do."""
    multiprocessing.set_forkserver_preload(list(PRELOADED))  # the first that needs it starts it
    with dask.config.set({"multiprocessing.context": method, "distributed.worker.multiprocessing-method": method}):
        yield


def run_forked(command: list[str], cwd: Path) -> CompletedProcess[str]:
    """Run Python with arguments as ``subprocess.run`` does, its output captured, but in a child of the fork server."""
    start_fork_server()
    with NamedTemporaryFile("r") as output:
        process = multiprocessing.get_context("forkserver").Process(target=_be_python, args=(command, cwd, output.name))
        process.start()
        process.join()
        done = CompletedProcess(command, process.exitcode or 0, output.read())
    if done.returncode:
        raise CalledProcessError(done.returncode, command, done.stdout)
    return done


def _be_python(command: list[str], cwd: Path, output: str) -> None:
    os.chdir(cwd)
    sys.path.insert(0, str(cwd))
    os.dup2(os.open(output, os.O_WRONLY), 1)
    _, kind, what, *arguments = command
    sys.argv = [what, *arguments]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(what, {"__name__": "__main__"})
