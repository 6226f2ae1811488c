"""The one loop over partitions: runs a function on each job, by threads or whatever scheduler dask has."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import dask.array as da
from dask.base import compute, get_scheduler
from dask.delayed import delayed
from dask.system import CPU_COUNT

Job = TypeVar("Job")
Result = TypeVar("Result")

Arrays = Mapping[str, Any]
"""Arrays by name: numpy's, or dask's that arrive computed."""


def run(
    function: Callable[[Job, Arrays], Result], jobs: Iterable[tuple[Job, Arrays]], *, scheduler: Any = None
) -> list[Result]:
    """Return ``function(job, arrays)`` of each pair, in their order.

    Parameters
    ----------
    function
        What to run; it may run in another process, and must not use the registry.
    jobs
        Its arguments. Arrays of dask all go into one graph, so that a chunk that several jobs share is computed once.
    scheduler
        ``"threads"``, ``"synchronous"``, ``"processes"`` or a ``distributed.Client``; None is the active client, or
        else threads.

    Raises
    ------
    Exception
        What a failing job raised; no job runs on when this returns, but on a cluster.
    """
    jobs = list(jobs)
    in_memory = not any(isinstance(array, da.Array) for _, arrays in jobs for array in arrays.values())
    with ThreadPoolExecutor(CPU_COUNT) as pool:  # leaving it waits for jobs that still run when one has failed
        if scheduler in ("threads", "threading") or (scheduler is None and get_scheduler() is None):
            if in_memory:
                return _run_in_pool(pool, function, jobs)
            return list(compute(*_delay(function, jobs), scheduler="threads", pool=pool))
        return list(compute(*_delay(function, jobs), scheduler=scheduler))


def _delay(function: Callable[[Job, Arrays], Result], jobs: Iterable[tuple[Job, Arrays]]) -> list[Any]:
    # The job is bound to the function, where dask does not search it for arrays.
    return [delayed(partial(function, job), pure=False)(arrays) for job, arrays in jobs]


def _run_in_pool(
    pool: ThreadPoolExecutor, function: Callable[[Job, Arrays], Result], jobs: Iterable[tuple[Job, Arrays]]
) -> list[Result]:
    futures = [pool.submit(function, job, arrays) for job, arrays in jobs]
    try:
        return [future.result() for future in futures]
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
