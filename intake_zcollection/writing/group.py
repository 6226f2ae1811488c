"""Putting a group down: what every worker does, whatever the verb."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from registry import Written

from ..reading.indexing import Indexer
from ..storage import layout
from ..storage.write import write_fragment
from .derived import derive
from .plan import Arrays, Finding, Job, Part, Result, Target
from .statistics import statistics_of

_thread = threading.local()

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def this_machine() -> str | None:
    """Return what tells this machine's kernel from all others; None where there is no telling."""
    try:
        return _BOOT_ID.read_text()
    except OSError:
        return None


def put_down(coordinator: str | None, indexers: Sequence[Indexer], job: Job | Finding, arrays: Arrays) -> Result:
    """Write one group below a name that no other attempt has, and return what was written, and what follows from it.

    Runs in a worker, which never uses the registry. The coordinating machine sees to it by itself that what its
    processes wrote survives a power cut, once for all groups; another machine has to do it here.
    """
    if not isinstance(job, Job):
        with _running_a_job():
            return job.find()
    target = job.target
    with _running_a_job():
        content = job.content(arrays)
        derived = derive(target, content, indexers)
    attempt = layout.new_attempt()
    rows = sum(part.rows for part in content.parts)
    nbytes = write_fragment(target.location, target.path + attempt, target.schema, content.values, rows)
    if coordinator is None or coordinator != this_machine():
        target.location.store.sync()
    written = _written(target, attempt, content.parts, rows, nbytes)
    statistics = statistics_of(target, target.uid + attempt, content)
    return Result((*written, *derived.fragments), derived.entries, statistics)


def is_in_a_job() -> bool:
    """Whether this thread computes what a job writes: a function of somebody's that writes too is called there."""
    return getattr(_thread, "jobs", 0) > 0


@contextmanager
def _running_a_job() -> Iterator[None]:
    _thread.jobs = getattr(_thread, "jobs", 0) + 1
    try:
        yield
    finally:
        _thread.jobs -= 1


def _written(target: Target, attempt: str, parts: Sequence[Part], rows: int, nbytes: int) -> Iterator[Written]:
    """Yield a fragment per part; each has its share of the bytes."""
    start = shared = 0
    for part in parts:
        share = nbytes * (start + part.rows) // rows - shared if rows else nbytes
        low, high = part.bounds
        yield Written(
            key=part.key,
            layer=target.layer,
            uid=target.uid + attempt,
            rows=part.rows,
            nbytes=share,
            schema_version=target.schema_version,
            axis_min=low or 0,
            axis_max=high,
            axis_unique=part.unique,
            start=start,
            group_rows=rows,
            written_version=part.written_version,
            base_version=target.base_version,
            base_row=part.base_row,
        )
        start, shared = start + part.rows, shared + share
