"""What the registry's tests share: made-up records, a second connection, and many writers at once."""

import multiprocessing
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from registry import (
    CollectionDefinition,
    CollectionRecord,
    Cut,
    Garbage,
    Identity,
    KeyRange,
    KeyValues,
    PartitionRecord,
    Registry,
    Run,
    SchemaRecord,
    Slot,
    VariableRecord,
    Version,
    Written,
    pad_key,
)
from registry.changes import Commit, NothingBetween, PutFragments, Requirement, Unchanged, Update
from registry.records import IMMUTABLE_LAYER, ROWS_LAYER, Layer
from registry.sql.engine import engine_of, parse_url
from tests.processes import start_fork_server
from tests.sql import Row as Row
from tests.sql import Sql as Sql
from tests.sql import run_sql

T = TypeVar("T")

_processes = multiprocessing.get_context("forkserver")


# Records


def make_variable(id_: int, name: str, **fields: Any) -> VariableRecord:
    """A variable along the axis."""
    defaults: dict[str, Any] = {"dtype": "<f8", "dimensions": ("time",), "sizes": (None,), "role": "data"}
    made: dict[str, Any] = {"stored_name": name, "encoding": {}, "fill_value": None, "attributes": {}}
    return VariableRecord(id=id_, name=name, **(defaults | made | fields))


SCHEMA = SchemaRecord(
    (make_variable(0, "time", dtype="<M8[ns]", role="coordinate"), make_variable(1, "ssh")), {"title": "made"}
)


def make_definition(name: str = "made/a", **fields: Any) -> CollectionDefinition:
    """A collection by month."""
    defaults: dict[str, Any] = {
        "location": f"/data/{name}",
        "axis": "time",
        "dimension": "time",
        "keys": ("year", "month"),
        "partitioning": {"type": "date", "variable": "time", "resolution": "M"},
        "zarr_format": 3,
        "merge": "refuse",
        "schema": SCHEMA,
    }
    return CollectionDefinition(name=name, **(defaults | fields))


def create(registry: Registry, name: str = "made/a", **fields: Any) -> CollectionRecord:
    """Record a collection."""
    with registry.creating(make_definition(name, **fields)) as creation:
        return creation.record()


def drop(registry: Registry, name: str = "made/a") -> Garbage:
    """Forget a collection, as if nothing of it were anywhere."""
    garbage = registry.drop_collection(name, lambda names, slot, uid: f"{slot.key[: len(names)]}/{uid}")
    registry.forget_garbage(garbage)
    return garbage


def slot(*key: int, layer: int = 0, axis_min: int = 0) -> Slot:
    """The slot of a part's rows, or of another layer of it."""
    return Slot(pad_key(key), axis_min, layer)


def fragment(*key: int, layer: Layer = 0, **fields: Any) -> Written:
    """A fragment that was never written, of the only part of a partition if nothing else is said."""
    defaults: dict[str, Any] = {"uid": uuid.uuid4().hex, "rows": 10, "nbytes": 80, "axis_min": 0, "axis_max": 9}
    defaults["schema_version"] = 0
    if layer == IMMUTABLE_LAYER:
        defaults |= {"rows": 0, "axis_max": None}
    return Written(pad_key(key), layer, **(defaults | fields))


def slot_of(written: Written) -> Slot:
    """Where a fragment is live; that of a set of variables has no slot before its layer has a number."""
    assert isinstance(written.layer, int)
    return Slot(written.key, written.axis_min, written.layer)


def identity_of(written: Written) -> Identity:
    """What a fragment is, wherever it is live."""
    return Identity(written.uid, written.start, written.rows)


def whole(*writes: Written) -> tuple[Run, ...]:
    """The runs of writes that replace partitions, whatever is in them: of all whose rows are written."""
    return tuple(Run(key) for key in dict.fromkeys(each.key for each in writes if each.layer == ROWS_LAYER))


def change(
    collection: CollectionRecord,
    *writes: Written,
    requires: Mapping[Slot, Identity | None] | None = None,
    operation: str = "insert",
    variables: frozenset[int] | None = None,
    ranges: tuple[KeyRange, ...] = (),
    others: tuple[Requirement, ...] = (),
    before: tuple[Update, ...] = (),
    cuts: tuple[Cut, ...] = (),
    runs: tuple[Run, ...] | None = None,
) -> Commit:
    """What a blind write asks for; with ``requires``, one that depends on what it read.

    Rows replace their partitions, unless ``runs`` says what they do.
    """
    known = frozenset(slot.key for slot in requires or {} if slot.layer_id == 0)
    requirements = (Unchanged(requires or {}, variables), NothingBetween(ranges, known), *others)
    put = PutFragments(writes, cuts, whole(*writes) if runs is None else runs)
    return Commit(collection, operation, requirements, (*before, put), {"created": len(writes)})


def intents(*writes: Written) -> list[tuple[str, str]]:
    """What is recorded of groups before they are written: the uid, and a path."""
    return [(uid, f"{uid[:8]}/{uid}") for uid in dict.fromkeys(each.uid for each in writes)]


def commit(registry: Registry, *commits: Commit, **options: Any) -> tuple[Version, ...]:
    """The whole life of a write: begin, stage, commit."""
    with registry.begin(**options) as transaction:
        for each in commits:
            writes = (
                written for update in each.updates if isinstance(update, PutFragments) for written in update.written
            )
            transaction.stage(each.collection, intents(*writes))
        return transaction.commit(commits)


def write(registry: Registry, collection: CollectionRecord, *writes: Written, **options: Any) -> Version:
    """Commit a change of one collection."""
    (version,) = commit(registry, change(collection, *writes, **options))
    return version


def live_uids(registry: Registry, name: str = "made/a", **selection: Any) -> dict[KeyValues, tuple[str, ...]]:
    """The uids of each partition's fragments, by key."""
    return {
        tuple(value for _, value in partition.key): tuple(each.uid for each in partition.fragments)
        for partition in registry.partitions(name, **selection)
    }


def partition(registry: Registry, *key: int, name: str = "made/a", **selection: Any) -> PartitionRecord:
    """One partition."""
    (found,) = registry.partitions(name, keys=[key], **selection)
    return found


def parts_of(registry: Registry, *key: int, **selection: Any) -> list[tuple[int, int, int]]:
    """The parts of a partition: the first and the last axis value and the number of rows of each."""
    return [(*part.bounds, part.rows) for part in partition(registry, *key, **selection).parts]


@pytest.fixture
def collection(registry: Registry) -> CollectionRecord:
    """An empty collection, made/a."""
    return create(registry)


@pytest.fixture
def other(registry: Registry) -> CollectionRecord:
    """A second empty collection, made/b."""
    return create(registry, "made/b")


# What others see and do


@pytest.fixture
def sql(registry: Registry) -> Sql:
    """A function that executes one statement on the registry's database, as somebody else."""
    return partial(run_sql, registry)


@pytest.fixture
def visible(sql: Sql) -> Callable[[], list[list[Row]]]:
    """A function that returns all that readers can see: equal before and after where nothing changed."""
    tables = ("collection", "fragment", "past_fragment", "change", "version")
    return lambda: [sorted(sql(f"SELECT * FROM {table}"), key=repr) for table in tables]


@pytest.fixture
def lose(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that makes the next COMMITs lose the connection: after they took effect where true, or before."""
    dialect = engine_of(parse_url(registry.url)).dialect
    commit_now = dialect.do_commit

    def lose_connection(*outcomes: bool) -> None:
        left = list(outcomes)

        def do_commit(connection: Any) -> None:
            lost = bool(left)
            if not lost or left.pop(0):
                commit_now(connection)
            if lost:
                raise dialect.loaded_dbapi.OperationalError("the connection was lost")

        monkeypatch.setattr(dialect, "do_commit", do_commit)

    return lose_connection


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Tell whether a condition becomes true before a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def nobody() -> Iterator[None]:
    """Root, who may write whatever the modes say, is nobody inside the block; others are who they are."""
    root = os.geteuid() == 0
    if root:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)


@contextmanager
def only_reading(*directories: Path) -> Iterator[None]:
    """This process may not write some directories, nor what lies directly in them."""
    below = [path for directory in directories for path in (*directory.iterdir(), directory)]
    modes = {path: path.stat().st_mode for path in below}
    for path, mode in modes.items():
        path.chmod(mode & 0o555)
    try:
        with nobody():
            yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


_barrier: Any = None


def meet() -> None:
    """Wait for all who were called by :func:`in_threads` or :func:`in_processes` together."""
    _barrier.wait(timeout=60)


def in_threads(function: Callable[..., T], arguments: Iterable[tuple[Any, ...]]) -> list[T]:
    """Call a function in one thread per tuple of arguments, all at once."""
    calls = list(arguments)
    _keep(threading.Barrier(len(calls)))
    with ThreadPoolExecutor(len(calls)) as pool:
        return _results([pool.submit(_together, function, call) for call in calls])


def in_processes(function: Callable[..., T], arguments: Iterable[tuple[Any, ...]]) -> list[T]:
    """Call a function in one process per tuple of arguments, all at once."""
    calls = list(arguments)
    start_fork_server()
    barrier = _processes.Barrier(len(calls))
    with ProcessPoolExecutor(len(calls), _processes, _keep, (barrier,)) as pool:
        return _results([pool.submit(_together, function, call) for call in calls])


def _keep(barrier: Any) -> None:
    global _barrier  # a barrier reaches a process only while it starts
    _barrier = barrier


def _together(function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    meet()
    try:
        return function(*arguments)
    except BaseException:
        _barrier.abort()  # or the others would wait for this one
        raise


def _results(futures: Sequence[Future[T]]) -> list[T]:
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error  # the one that made the others stop comes first
    return [future.result() for future in futures]
