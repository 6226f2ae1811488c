"""The fork server, one for all tests of a process: its children start in milliseconds, with these imported already."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver

import dask

PRELOADED = (
    *("tests.behaviour.test_conflicts", "tests.behaviour.test_crash", "tests.behaviour.test_other_hands"),
    *(
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
