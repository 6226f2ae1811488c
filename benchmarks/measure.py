"""Measuring: CPU and wall seconds, SQL statements, peak memory, and what lies in a directory."""

import gc
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa


@dataclass(frozen=True)
class Cost:
    """What an operation cost; None where it was not counted."""

    cpu: float
    """Seconds of CPU: all threads, and children that have ended."""
    wall: float
    system: float = 0.0
    """The part of ``cpu`` that the system took, for files mostly: it varies with what else the machine does."""
    statements: float | None = None
    files: float | None = None
    nbytes: float | None = None
    peak: int | None = None
    """The peak of the process's resident memory, in bytes."""
    requests: float | None = None
    """Sent to S3."""

    def per(self, count: int) -> "Cost":
        """Return the cost of one of ``count``."""
        parts = {name: getattr(self, name) for name in ("statements", "files", "nbytes")}
        shares = {name: None if value is None else value / count for name, value in parts.items()}
        return replace(self.times(1 / count), peak=self.peak, **shares)

    def times(self, factor: float) -> "Cost":
        """Return the seconds of ``factor`` such operations, without counts: an estimate."""
        return Cost(self.cpu * factor, self.wall * factor, self.system * factor)

    def with_files(self, *directories: Path) -> "Cost":
        """Return it with the number and size of the files below directories, the data's and no other."""
        sizes = [p.stat().st_size for directory in directories for p in directory.rglob("*") if p.is_file()]
        return replace(self, files=len(sizes), nbytes=sum(sizes))


def cpu_seconds() -> tuple[float, float]:
    """Return the CPU time of this process with all its threads and ended children; and the system's part of it."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usages), sum(u.ru_stime for u in usages)


def measure(function: Callable[[], Any], *, repeats: int = 1, before: Callable[[], Any] = os.sync) -> Cost:
    """Run a function, and return the least cost of ``repeats`` runs: the least CPU, and the least wall time.

    ``before`` prepares each run and is not counted; by default it lets what others have written reach the disk.
    """
    costs = []
    gc.collect()
    for _ in range(repeats):
        before()
        with counted_statements() as statements:
            (cpu, system), wall = cpu_seconds(), time.perf_counter()
            result = function()
            (cpu_now, system_now), wall_now = cpu_seconds(), time.perf_counter()
        costs.append(Cost(cpu_now - cpu, wall_now - wall, system_now - system, len(statements)))
        del result
    return replace(min(costs, key=lambda cost: cost.cpu), wall=min(cost.wall for cost in costs))


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    """Collect the SQL statements of all engines, BEGIN and PRAGMA among them; many rows at once are one."""
    statements: list[str] = []

    def listener(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", listener)
    try:
        yield statements
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", listener)


def peak_memory() -> int:
    """Return the peak of this process's resident memory, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would begin with that of the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
