"""The one loop over partitions: runs a function on each job, by threads or whatever scheduler dask has.

Jobs are dataclasses, whose arrays may be dask's: all jobs go into one graph, so that a chunk of the source
that several partitions share is computed once.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from dask.base import compute, get_scheduler
from dask.delayed import delayed
from dask.system import CPU_COUNT

Job = TypeVar("Job")
Result = TypeVar("Result")


def run(function: Callable[[Job], Result], jobs: Iterable[Job], *, scheduler: Any = None) -> list[Result]:
    """Return ``function(job)`` of each job, in their order.

    Parameters
    ----------
    function
        What to run; it may run in another process, and must not use the registry.
    jobs
        Its arguments. Dask collections inside a dataclass arrive computed.
    scheduler
        ``"threads"``, ``"synchronous"``, ``"processes"`` or a ``distributed.Client``; None is the active client, or
        else threads.

    Raises
    ------
    Exception
        What the first failing job raised; no job runs on when this returns, but on a cluster.
    """
    tasks = [delayed(function, pure=False)(job) for job in jobs]
    if scheduler is None and get_scheduler() is None:
        # A pool of our own, so that leaving it waits for jobs still running when one has failed.
        with ThreadPoolExecutor(CPU_COUNT) as pool:
            return list(compute(*tasks, scheduler="threads", pool=pool))
    return list(compute(*tasks, scheduler=scheduler))
