"""The writers shape: many processes insert into one collection at once, on both kinds of registry."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import intake_zcollection as izc

from .measure import Cost, cpu_seconds
from .report import Row, seconds
from .shapes import Sizes, along_track

HOUR = np.timedelta64(1, "h")
MONTHS = np.timedelta64(31, "D")

CASES: dict[str, tuple[str, Callable[[int, int, int], np.timedelta64]]] = {
    "months of their own": ("append", lambda writer, number, inserts: writer * MONTHS + number * HOUR),
    "hours of one month side by side": ("append", lambda writer, number, inserts: (writer * inserts + number) * HOUR),
    "the same hour of one month": ("upsert", lambda writer, number, inserts: 0 * HOUR),
}
"""What each of the writers' inserts does, and where it lies."""

_barrier: Any = None


def writers(directory: Path, sizes: Sizes) -> list[Row]:
    """Run the writers shape; raises if a row is lost, an insert fails, or the versions have a gap."""
    rows = []
    for engine, opened in ENGINES.items():
        for number, case in enumerate(CASES):
            place = directory / f"{engine}{number}"
            place.mkdir()
            with opened(place) as url:
                collection, _ = _create(url, place, "shared"), _create(url, place, "alone")
                together, latencies, reruns = _insert(url, "b/shared", case, sizes.writers, sizes.inserts)
                _check(collection, case, sizes)
                p50, p99 = (seconds(float(value)) for value in np.quantile(latencies, [0.5, 0.99]))
                alone, _, _ = _insert(url, "b/alone", case, 1, sizes.inserts)
            operation = f"{engine}, {case}: p50 {p50}, p99 {p99}, {reruns} reruns"
            rows.append(Row(operation, together, ((f"one writer, × {sizes.writers}", alone.times(sizes.writers)),)))
    return rows


@contextmanager
def _sqlite(place: Path) -> Iterator[str]:
    yield f"sqlite:///{place}/registry.db"


@contextmanager
def _postgres(_: Path) -> Iterator[str]:
    from tests.postgres import running_postgres  # of the extra "test"

    with running_postgres() as server, server.database() as url:
        yield url


ENGINES = {"SQLite": _sqlite, "Postgres": _postgres}
"""Where a registry may be: each yields its URL, for a directory."""


def _create(url: str, place: Path, name: str) -> izc.Collection:
    return izc.create_collection(
        izc.connect(url, create=True),
        f"b/{name}",
        along_track(0, 1, width=24),
        axis="time",
        partitioning=izc.Date("time", "M"),
        location=str(place / name),
    )


def _insert(url: str, name: str, case: str, count: int, inserts: int) -> tuple[Cost, list[float], int]:
    """Return what so many writers cost together, how long each insert took, and how many were planned again."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "sqlalchemy.dialects.sqlite", "psycopg"])
    with context.Pool(count, _prepare, (context.Barrier(count),)) as pool:
        done = pool.starmap(_write, [(url, name, case, writer, inserts) for writer in range(count)], chunksize=1)
        pool.close()
        pool.join()
    cost = Cost(sum(cpu for cpu, *_ in done), max(wall for _, wall, *_ in done), sum(system for *_, system in done))
    latencies = [latency for _, _, some, _, _ in done for latency in some]
    return cost, latencies, sum(reruns for *_, reruns, _ in done)


def _prepare(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _write(url: str, name: str, case: str, writer: int, inserts: int) -> tuple[float, float, list[float], int, float]:
    """Be one of the writers; begin when all are there."""
    merge, offset = CASES[case]
    with izc.connect(url) as registry:
        collection = izc.open_collection(registry, name)
        hour = along_track(0, 1, width=24)
        deliveries = [_moved(hour, offset(writer, number, inserts)) for number in range(inserts)]
        collection.load()
        _barrier.wait()
        (cpu, system), begun, latencies, reruns = cpu_seconds(), time.perf_counter(), [], 0
        for delivery in deliveries:
            before = time.perf_counter()
            version = collection.insert(delivery, merge=merge, scheduler="synchronous")
            latencies.append(time.perf_counter() - before)
            reruns += version.summary.get("reruns", 0)
        cpu_now, system_now = cpu_seconds()
        return cpu_now - cpu, time.perf_counter() - begun, latencies, reruns, system_now - system


def _moved(hour: xr.Dataset, offset: np.timedelta64) -> xr.Dataset:
    return hour.assign_coords(time=hour.time + offset)


def _check(collection: izc.Collection, case: str, sizes: Sizes) -> None:
    count = sizes.writers * sizes.inserts
    rows = 100 if case.startswith("the same") else 100 * count
    found = collection.load().sizes["time"]
    numbers = [version.number for version in collection.versions()]
    if found != rows or numbers != list(range(count + 1)):
        raise RuntimeError(f"{case}: {found} of {rows} rows, and versions {numbers[0]} to {numbers[-1]} of {count}")
