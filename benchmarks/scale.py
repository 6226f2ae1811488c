"""The scale shape: a registry of very many partitions, of which little is asked, on both kinds of registry."""

import gc
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
import xarray as xr

import intake_zcollection as izc
from registry import CollectionRecord, KeyValues, Run, Selection, Snapshot, Written, pad_key
from registry.changes import Commit, NoOtherPart, PutFragments

from .filling import HOUR, LAYERED, MINUTE, fill, keys_of
from .measure import measure
from .report import Row, nbytes, seconds
from .shapes import Sizes
from .writers import ENGINES

AT_ONCE = 1000
"""The partitions of a large commit."""

SLACK, FEW = 1.5, 1000
"""So many times as much may be looked at, of a hundred times as many partitions; and so many steps or pages besides,
which is what a planner may take for a table of a thousand rows."""


@dataclass(frozen=True)
class Part:
    """Some partitions of a collection: hours since 1970, by their numbers."""

    registry: izc.Registry
    outside: sa.Engine
    """The same database, as somebody else has it."""
    name: str
    collection: izc.Collection
    numbers: npt.NDArray[np.int64]
    every: int
    """All partitions of the collection."""

    @property
    def record(self) -> CollectionRecord:
        return self.registry.collection(self.name)

    @property
    def keys(self) -> list[KeyValues]:
        return keys_of(self.numbers)

    @property
    def span(self) -> tuple[int, int]:
        """The range of the axis that they fill."""
        return int(self.numbers[0]) * HOUR, (int(self.numbers[-1]) + 1) * HOUR - 1


def scale(directory: Path, sizes: Sizes) -> Iterator[Row]:
    """Run the scale shape; raises if what is looked at is not in proportion to what is asked for."""
    yield from on_each_engine(directory, partial(_on_one, sizes))


def on_each_engine(directory: Path, ask: Callable[[izc.Registry, sa.Engine, Path], Iterator[Row]]) -> Iterator[Row]:
    """Ask a new registry of each kind; the rows tell which."""
    gc.freeze()  # or it would be looked through before each of many measures
    for engine, opened in ENGINES.items():
        place = directory / engine
        place.mkdir()
        with opened(place) as url, izc.connect(url, create=True) as registry, _opened_outside(url) as outside:
            for row in ask(registry, outside, place):
                yield replace(row, operation=f"{engine}, {row.operation}")
    gc.unfreeze()


@contextmanager
def _opened_outside(url: str) -> Iterator[sa.Engine]:
    """Yield an engine of its own, as somebody else has one."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        yield engine
    finally:
        engine.dispose()


def _on_one(sizes: Sizes, registry: izc.Registry, outside: sa.Engine, place: Path) -> Iterator[Row]:
    """Fill a registry with a large collection, and one of a hundredth; ask for as much of both."""
    count = sizes.registered
    counts = count, count // 100
    names = [f"b/of_{each}" for each in counts]
    collections = [_create(registry, place, name) for name in names]
    numbers = np.arange(count // 2, count // 2 + counts[1]), np.arange(counts[1])
    parts = [Part(registry, outside, *each) for each in zip(names, collections, numbers, counts, strict=True)]
    costs = [measure(partial(fill, outside, part.record.id, part.every)).per(part.every) for part in parts]
    outside.dispose()  # or the server hears later what that took, of a connection that lives on
    size = nbytes(_size(outside) / sum(counts))
    yield Row(f"fill, per partition: {size} each", costs[0], (("of a hundredth", costs[1]),))
    for name, (ask, cpu) in QUESTIONS.items():
        yield _row(name, ask, cpu, parts, sizes.asked)


def _row(name: str, ask: "Question", cpu: float | None, parts: Sequence[Part], runs: int) -> Row:
    """Return what it costs to ask of a part of the large collection, and of all of the small one."""
    costs, looked, servers = [], [], []
    for part in parts:
        question, count = ask(part)
        with _looking(part) as seen:
            question()
        looked.append((seen[0], count))
        with _server_seconds(part.outside) as server:
            costs.append(measure(question, repeats=runs, before=_nothing))
        servers.append(server[0] / runs)
    (large, asked), (small, of_small) = looked
    if large > SLACK * small * asked / of_small + FEW:
        raise RuntimeError(
            f"{name}: {large} for {asked} partitions are looked at, and of a hundredth {small} for {of_small}"
        )
    more = f"; server {seconds(servers[0])}" if servers[0] else ""
    return Row(f"{name}{more}", costs[0], (("of all of a hundredth", costs[1]),), cpu=cpu)


def _nothing() -> None:
    """Prepare no run: no data is written that the disk would have to be waited for."""


# What is asked

Question = Callable[[Part], tuple[Callable[[], object], int]]
"""From some partitions to a function that asks for them, or writes to them, and how many they are."""


def _by_range(part: Part, version: int | None) -> tuple[Callable[[], Snapshot], int]:
    chosen = Selection(axis_range=part.span, key_range=izc.Date("time", "h").key_range(*part.span))
    return lambda: part.registry.resolve(part.name, version=version, selection=chosen), len(part.numbers)


def _by_keys(part: Part, version: int | None) -> tuple[Callable[[], Snapshot], int]:
    """Ask for partitions all over the collection."""
    keys = keys_of(np.arange(0, part.every, part.every // len(part.numbers)))
    return lambda: part.registry.resolve(part.name, version=version, keys=keys), len(keys)


def _by_filter(part: Part, version: int | None) -> tuple[Callable[[], Snapshot], int]:
    year = part.keys[0][0]
    count = sum(key[0] == year for key in keys_of(np.arange(part.every)))
    return lambda: part.registry.resolve(part.name, version=version, filters=f"year == {year}"), count


def _checked(ask: Callable[[Part, int | None], tuple[Callable[[], Snapshot], int]], *, old: bool) -> Question:
    """Return the question of the head, or of a version in the middle, once its answer has been looked at."""

    def asked(part: Part) -> tuple[Callable[[], object], int]:
        question, count = ask(part, part.record.head_version // 2 if old else None)
        found = len(question().partitions)
        if found != count:
            raise RuntimeError(f"{part.name}: {found} partitions where there are {count}")
        return question, count

    return asked


def _load(part: Part) -> tuple[Callable[[], object], int]:
    low, high = (np.datetime64(bound, "ns") for bound in part.span)
    return lambda: part.collection.load(where={"time": (low, high)}), len(part.numbers)


def _versions(part: Part) -> tuple[Callable[[], object], int]:
    return lambda: part.registry.versions(part.name, limit=10, newest_first=True), 10


def _committing(limit: int, first_minute: int) -> Question:
    """Append to some partitions, a minute of the hour each time."""

    def ask(part: Part) -> tuple[Callable[[], object], int]:
        numbers, minutes = part.numbers[:limit], itertools.count(first_minute)
        return lambda: _append(part, numbers, next(minutes)), len(numbers)

    return ask


def _append(part: Part, numbers: npt.NDArray[np.int64], minute: int) -> None:
    """Commit a part more, a minute long, to some partitions; no group of it is written."""
    record = part.record
    starts = (numbers * HOUR + minute * MINUTE).tolist()
    keys = [pad_key(key) for key in keys_of(numbers)]
    spans = [(key, low, low + MINUTE - 1) for key, low in zip(keys, starts, strict=True)]
    uids = [f"{minute:08x}{number:024x}" for number in numbers.tolist()]
    written = tuple(
        Written(key, 0, uid, 60, 4000, 0, low, high, True) for uid, (key, low, high) in zip(uids, spans, strict=True)
    )
    update = PutFragments(written, (), tuple(Run(key, (low, high)) for key, low, high in spans))
    with part.registry.begin((record, record.head_version)) as transaction:
        transaction.stage(record, [(uid, f"groups/{uid}") for uid in uids])
        transaction.commit(
            [Commit(record, "insert", (NoOtherPart(tuple(spans)),), (update,), {"created": len(written)})]
        )


QUESTIONS: dict[str, tuple[Question, float | None]] = {
    "table of 1 % by a range": (_checked(_by_range, old=False), 0.15),
    "table of 1 % by a range, old version": (_checked(_by_range, old=True), 0.15),
    "table of 1 % by their keys": (_checked(_by_keys, old=False), 0.15),
    "table of 1 % by their keys, old version": (_checked(_by_keys, old=True), 0.15),
    "table of a year by a filter": (_checked(_by_filter, old=False), 0.15),
    "table of a year by a filter, old version": (_checked(_by_filter, old=True), 0.15),
    "load 1 % lazily, 10 variables": (_load, 0.5),
    "versions(limit=10)": (_versions, None),
    "commit one partition": (_committing(1, 30), 0.01),
    f"commit {AT_ONCE} partitions": (_committing(AT_ONCE, 40), None),
}
"""What is asked, and the target in CPU seconds, where it has one."""


def _create(registry: izc.Registry, place: Path, name: str) -> izc.Collection:
    variables = {f"v{number}": ("time", np.zeros(1)) for number in range(LAYERED)}
    template = xr.Dataset(variables, {"time": np.zeros(1, "M8[ns]")})
    by_hour = izc.Date("time", "h")
    return izc.create_collection(
        registry, name, template, axis="time", partitioning=by_hour, location=str(place / name)
    )


# What it costs


def _size(outside: sa.Engine) -> int:
    """Return the bytes of the registry, with its indexes."""
    if outside.dialect.name == "sqlite":
        return int(_asked(outside, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"))
    return int(_asked(outside, "SELECT pg_database_size(current_database())"))


def _asked(outside: sa.Engine, query: str) -> Any:
    """Return one value."""
    with outside.connect() as connection:
        return connection.exec_driver_sql(query).scalar()


@contextmanager
def _looking(part: Part) -> Iterator[list[int]]:
    """Count what is looked at: on SQLite the steps of its machine, on Postgres pages of tables and indexes."""
    seen = [0]
    if part.outside.dialect.name == "sqlite":
        with _counting_steps(seen):
            yield seen
        return
    pages = _pages_looked_at(part)
    yield seen
    seen[0] = _pages_looked_at(part) - pages


@contextmanager
def _counting_steps(seen: list[int]) -> Iterator[None]:
    watched: list[Any] = []

    def count() -> int:
        seen[0] += 10
        return 0

    def watch(_connection: Any, cursor: Any, *_: Any) -> None:
        if cursor.connection not in watched:
            watched.append(cursor.connection)
            cursor.connection.set_progress_handler(count, 10)

    sa.event.listen(sa.Engine, "before_cursor_execute", watch)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", watch)
        for connection in watched:
            connection.set_progress_handler(None, 0)


OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def _pages_looked_at(part: Part) -> int:
    part.registry.close()  # the server is told of what a connection did when it ends
    while _asked(part.outside, f"SELECT count(*) {OTHERS} AND backend_type = 'client backend'"):
        time.sleep(0.01)
    pages = " + ".join(f"coalesce({kind}_blks_{how}, 0)" for kind in ("heap", "idx") for how in ("hit", "read"))
    tables = "relname IN ('fragment', 'past_fragment', 'change', 'version')"
    return int(_asked(part.outside, f"SELECT sum({pages}) FROM pg_statio_user_tables WHERE {tables}"))


@contextmanager
def _server_seconds(outside: sa.Engine) -> Iterator[list[float]]:
    """Measure the CPU time of the server's processes for others than the one that looks; 0 where there is no server."""
    before, spent = _backend_seconds(outside), [0.0]
    yield spent
    spent[0] = _backend_seconds(outside) - before


def _backend_seconds(outside: sa.Engine) -> float:
    if outside.dialect.name == "sqlite":
        return 0.0
    pids = str(_asked(outside, f"SELECT string_agg(CAST(pid AS TEXT), ' ') {OTHERS}") or "")
    stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids.split())
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / os.sysconf("SC_CLK_TCK")
