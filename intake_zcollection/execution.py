"""The one loop over partitions: runs a function on each job, by threads or whatever scheduler dask has.

Inside a task of a cluster that is the task's own thread, unless something else is asked for. To send the work to the
cluster would take places on it while the task keeps its own: once tasks have all of them, they would wait for ever.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import dask.array as da
import dask.config
from dask.base import compute, get_scheduler, named_schedulers
from dask.callbacks import Callback
from dask.delayed import delayed
from dask.system import CPU_COUNT

from .errors import InvalidInputError

Job = TypeVar("Job")
Result = TypeVar("Result")

Arrays = Mapping[str, Sequence[Any]]
"""Lists of arrays by name: numpy's, or dask's that arrive computed."""

Advance = Callable[[], None]


@dataclass(frozen=True)
class Execution:
    """How work is run.

    Parameters
    ----------
    scheduler
        ``"threads"``, ``"synchronous"``, ``"processes"`` or a ``distributed.Client``; None is the active client, or
        else threads; inside a task of a cluster, that task.
    workers
        How many partitions are worked on at a time; None is one per core (on a cluster: what it has; inside a task
        of one: one).
    progress
        Whether to show a progress bar; None shows it in a terminal.
    """

    scheduler: Any = None
    workers: int | None = None
    progress: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what no work can be run by, before there is any."""
        if self.workers is not None and (not isinstance(self.workers, int) or self.workers < 1):
            raise InvalidInputError(f"workers={self.workers!r} is not a number of partitions at a time, from 1")
        if self.scheduler is None or _client(self.scheduler) is not None:
            return
        try:
            _chosen(self.scheduler)
        except (ValueError, TypeError) as error:
            raise InvalidInputError(
                f"scheduler={self.scheduler!r} is no scheduler of dask's: give 'threads', 'synchronous', 'processes' "
                "or a distributed.Client"
            ) from error

    @property
    def in_this_process(self) -> bool:
        """Whether the work is run by this very process."""
        client = _client(self.scheduler)
        if client is not None:
            return str(client.scheduler.address).startswith("inproc://")
        chosen = _chosen(self.scheduler)
        return chosen is None or chosen not in (named_schedulers["processes"], named_schedulers["multiprocessing"])

    @property
    def tries_again(self) -> bool:
        """Whether a job may be run again while a lost attempt is still at it, as a cluster does."""
        return _client(self.scheduler) is not None or (self.scheduler is None and _in_a_task())


def run(
    function: Callable[[Job, Arrays], Result], jobs: Iterable[tuple[Job, Arrays]], how: Execution, *, what: str
) -> list[Result]:
    """Return ``function(job, arrays)`` of each pair, in their order.

    Parameters
    ----------
    function
        What to run; it may run in another process, and must not use the registry.
    jobs
        Its arguments. Arrays of dask all go into one graph, so that a chunk that several jobs share is computed once.
    how
        Where and with how many.
    what
        What the progress bar says.

    Raises
    ------
    Exception
        What a failing job raised; no job runs on when this returns (on a cluster, for a minute after).
    """
    jobs = list(jobs)
    lazy = _lazy_arrays(jobs)
    client = _client(how.scheduler) or (_holder(lazy) if how.scheduler is None else None)
    workers = how.workers or (1 if _in_a_task() else CPU_COUNT)
    alone = client is None and workers == 1
    with _progress(how.progress, what, len(jobs)) as advance, nullcontext() if alone else _place_given_up():
        if client is not None:
            return _run_on_cluster(client, _delay(function, jobs), advance)
        if how.scheduler is None and _chosen(None) is None and not lazy:
            return _run_in_threads(function, jobs, workers, advance)
        return _run_by_dask(_delay(function, jobs), how.scheduler, workers, advance)


def _lazy_arrays(jobs: Iterable[tuple[Job, Arrays]]) -> list[Any]:
    pieces = (piece for _, arrays in jobs for pieces in arrays.values() for piece in pieces)
    return [piece for piece in pieces if isinstance(piece, da.Array)]


def _in_a_task() -> bool:
    """Whether this thread runs a task of a cluster; none does where distributed has not been imported."""
    if "distributed" not in sys.modules:
        return False
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


def _holder(arrays: Sequence[Any]) -> Any:
    """Return the client of the cluster that holds values of these arrays (persisted ones), if this is a task."""
    if not arrays or not _in_a_task():
        return None
    from distributed import futures_of

    return next((future.client for future in futures_of(list(arrays))), None)


@contextmanager
def _place_given_up() -> Iterator[None]:
    """Let the cluster run others in the place of this task while it waits for them, as dask's own compute does."""
    if not _in_a_task():
        yield
        return
    from distributed import rejoin, secede

    try:
        secede()
    except (KeyError, AttributeError):  # it has done so itself, or is no thread of the worker's
        yield
        return
    try:
        yield
    finally:
        rejoin()


def _chosen(scheduler: Any) -> Any:
    """Return what dask's ``get_scheduler`` returns: the function by which dask would compute, None for its default.

    That one imports ``distributed`` to ask for a client, which costs more than a day's insert; nobody can have
    made a client where it has not been imported.
    """
    if scheduler is None:
        configured, inside = dask.config.get("scheduler", None), _in_a_task()
        if configured and not (inside and configured == "dask.distributed"):  # as each client configures it
            return _chosen(configured)
        if inside or ("distributed" not in sys.modules and not dask.config.get("get", None)):
            return None
    if isinstance(scheduler, str) and scheduler.lower() in named_schedulers:
        return named_schedulers[scheduler.lower()]
    return get_scheduler(scheduler=scheduler)


def _client(scheduler: Any) -> Any:
    """Return the distributed client that is meant: the one given, or the active one, of which a task has none."""
    chosen = scheduler if scheduler is not None else getattr(_chosen(None), "__self__", None)
    return chosen if hasattr(chosen, "compute") and hasattr(chosen, "scheduler") else None


def _delay(function: Callable[[Job, Arrays], Result], jobs: Iterable[tuple[Job, Arrays]]) -> list[Any]:
    # The job is bound to the function, where dask does not search it for arrays.
    return [delayed(partial(function, job), pure=False)(dict(arrays)) for job, arrays in jobs]


def _run_in_threads(
    function: Callable[[Job, Arrays], Result], jobs: Sequence[tuple[Job, Arrays]], workers: int, advance: Advance
) -> list[Result]:
    if len(jobs) == 1 or workers == 1:
        results = []
        for job, arrays in jobs:
            results.append(function(job, arrays))
            advance()
        return results
    with ThreadPoolExecutor(workers) as pool:  # leaving it waits for jobs that still run when one has failed
        futures = [pool.submit(function, job, arrays) for job, arrays in jobs]
        try:
            for future in as_completed(futures):
                future.result()
                advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in futures]


def _run_by_dask(tasks: Sequence[Any], scheduler: Any, workers: int, advance: Advance) -> list[Any]:
    keys = {task.key for task in tasks}
    chosen = _chosen(scheduler)  # as a function: dask would look for a client before it looks up a name

    def finished(key: Any, *_: Any) -> None:
        if key in keys:
            advance()

    with Callback(posttask=finished):
        if scheduler not in ("threads", "threading") and chosen is not None:
            return list(compute(*tasks, scheduler=chosen, num_workers=workers))
        if workers == 1:
            return list(compute(*tasks, scheduler=named_schedulers["synchronous"]))
        with ThreadPoolExecutor(workers) as pool:
            return list(compute(*tasks, scheduler=named_schedulers["threads"], pool=pool, num_workers=workers))


def _run_on_cluster(client: Any, tasks: Sequence[Any], advance: Advance) -> list[Any]:
    from distributed import as_completed as completed

    futures = client.compute(tasks)
    try:
        for future in completed(futures, loop=client.loop):
            future.result()
            advance()
        return list(client.gather(futures))
    except BaseException:
        client.cancel(futures)
        _wait_for_running(client, {future.key for future in futures})
        raise


def _wait_for_running(client: Any, keys: set[str]) -> None:
    """Return once no worker runs any of these tasks, which cannot be stopped; or after a minute, whatever they do."""
    for _ in range(600):
        if not any(keys & set(stacks) for stacks in client.call_stack().values()):
            return
        time.sleep(0.1)


@contextmanager
def _progress(wanted: bool | None, what: str, total: int) -> Iterator[Advance]:
    """Show a bar on the terminal, and none in a pipe or for a single job."""
    if not (wanted or (wanted is None and total > 1 and _may_be_terminal())):
        yield lambda: None
        return
    # rich is imported where there may be a bar: a job without a terminal does not pay for it.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, force_terminal=wanted)  # asked for, it is shown anywhere
    if not console.is_terminal:
        yield lambda: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def _may_be_terminal() -> bool:
    """Whether rich could take stderr for a terminal; whether it does, it says itself."""
    if {"FORCE_COLOR", "TTY_COMPATIBLE"} & os.environ.keys():
        return True
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except (AttributeError, ValueError):  # what stands in for stderr need not have it, or has been closed
        return False
