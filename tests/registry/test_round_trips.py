"""How often the server is waited for while a commit has the lock of its collection: all other writers wait as long."""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
import xarray as xr
from sqlalchemy.exc import IntegrityError

import intake_zcollection as izc
from registry import CollectionRecord, Registry, RegistryUnavailableError, connect
from registry.sql import tables
from registry.sql.engine import engine_of, writing
from registry.sql.writes import write_all
from tests import postgres
from tests.conftest import both_engines

from .conftest import create, eventually, fragment, live_uids, write

LOCK = "SELECT collection.id, collection.uid, collection.head_version"
"""How the statement begins that locks a collection."""


@dataclass
class Locked:
    """What is said while a commit has its lock, from the statement that takes it to COMMIT, both included."""

    statements: list[str] = field(default_factory=list)
    waits: int = 0
    """How often Postgres said that it was ready: it was waited for then."""


@pytest.fixture
def under_the_lock(registry: Registry) -> Iterator[Callable[[Callable[[], object]], Locked]]:
    """A function that calls another one, which commits once, and returns what was said under the lock."""
    engine = engine_of(registry._url)
    traced = engine.dialect.name == "postgresql"
    seen = Locked()
    with tempfile.TemporaryFile("w+") as trace:

        def hear(connection: Any, cursor: Any, statement: str, *rest: object) -> None:
            if statement.startswith(LOCK):
                assert not seen.statements
                if traced:  # libpq itself notes the messages of the protocol
                    connection.connection.driver_connection.pgconn.trace(trace.fileno())
            if seen.statements or statement.startswith(LOCK):
                seen.statements.append(statement)

        def end(connection: Any) -> None:
            if not seen.statements or seen.waits:
                return
            if traced:
                connection.connection.driver_connection.pgconn.untrace()
                trace.seek(0)
                seen.waits = trace.read().count("\tReadyForQuery\t") + 1
            seen.statements.append("COMMIT")

        def call(function: Callable[[], object]) -> Locked:
            sa.event.listen(engine, "before_cursor_execute", hear)
            sa.event.listen(engine, "commit", end)
            try:
                function()
            finally:
                sa.event.remove(engine, "before_cursor_execute", hear)
                sa.event.remove(engine, "commit", end)
            return seen

        yield call


def days(first: int, count: int) -> xr.Dataset:
    """Days from the first of January on."""
    time = np.datetime64("2022-01-01", "ns") + np.arange(first, first + count) * np.timedelta64(1, "D")
    values = np.arange(first, first + count, dtype="f8")
    return xr.Dataset({"ssh": ("time", values), "sla": ("time", -values)}, {"time": time})


def add(dataset: xr.Dataset) -> xr.Dataset:
    return xr.Dataset({"sla": dataset["sla"] + 1})


def insert_a_file(collection: izc.Collection) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/days.nc"
        days(1, 1).to_netcdf(path, engine="scipy")
        collection.insert(path, merge="upsert")


WRITES: dict[str, Callable[[izc.Collection], object]] = {
    "a new partition": lambda collection: collection.insert(days(40, 3)),
    "a part beside others": lambda collection: collection.insert(days(5, 3)),
    "an upsert that cuts a part": lambda collection: collection.insert(days(1, 1), merge="upsert"),
    "a file": insert_a_file,
    "a layer": lambda collection: collection.update(add),
    "a layer with neighbours": lambda collection: collection.update(add, depth=1),
}


@both_engines
@pytest.mark.parametrize("layered", [False, True], ids=["", "where layers are"])
@pytest.mark.parametrize("name", WRITES)
def test_a_commit_waits_eight_times_at_most_under_the_lock(
    registry: Registry,
    make_collection: Callable[..., izc.Collection],
    under_the_lock: Callable[[Callable[[], object]], Locked],
    name: str,
    layered: bool,
) -> None:
    collection = make_collection(days(0, 4))
    collection.insert(days(0, 4))
    collection.insert(days(60, 2))
    if layered:
        collection.update(add)
    seen = under_the_lock(lambda: WRITES[name](collection))
    assert len(seen.statements) <= 18, seen.statements
    assert (6 if registry.url.startswith("postgresql") else 0) <= seen.waits <= 8, seen.statements


def commit_one(registry: Registry, collection: CollectionRecord) -> None:
    write(registry, collection, fragment(2022, 1))


@both_engines
def test_what_is_written_together_and_refused_is_told_by_its_error_and_rolled_back(
    registry: Registry, collection: CollectionRecord, visible: Callable[[], object]
) -> None:
    before = visible()
    new = {"collection_id": collection.id, "id": 1, "variable_ids": [1]}
    layer = sa.insert(tables.layer)
    with pytest.raises(IntegrityError), writing(registry._url) as connection:
        write_all(connection, [(sa.update(tables.collection), {"head_version": 7}), (layer, new), (layer, [new])])
    assert visible() == before
    commit_one(registry, collection)
    assert live_uids(registry).keys() == {(2022, 1)}


@both_engines
def test_nothing_is_said_beside_the_error_where_it_is_heard_before_all_is_sent(
    registry: Registry, collection: CollectionRecord, caplog: pytest.LogCaptureFixture
) -> None:
    new = {"collection_id": collection.id, "id": 1, "variable_ids": [1]}
    layer, more = sa.insert(tables.layer), [{**new, "id": id_} for id_ in range(2, 5_000)]
    with pytest.raises(IntegrityError, match=r"(?i)unique"), writing(registry._url) as connection:
        write_all(connection, [(layer, [new]), (layer, [new]), (layer, more)])
    assert caplog.messages == []


@pytest.fixture
def on_postgres(postgres_url: str) -> Iterator[Registry]:
    """An empty registry in Postgres."""
    with connect(postgres_url) as registry:
        yield registry


WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.mark.parametrize(("end", "match"), [("cancel", "cancelled a statement"), ("terminate", "cannot be used")])
def test_a_commit_that_is_ended_while_its_writes_are_waited_for_commits_nothing(
    on_postgres: Registry, end: str, match: str
) -> None:
    collection, url = create(on_postgres), on_postgres._url
    pool_of_connections: Any = engine_of(url).pool
    with ThreadPoolExecutor(1) as pool, postgres.connect(url) as other, other.transaction():
        other.execute("LOCK TABLE change IN SHARE MODE")
        committing = pool.submit(commit_one, on_postgres, collection)
        assert eventually(lambda: len(postgres.run_sql(url, WAITING)) == 1)
        postgres.run_sql(url, f"SELECT pg_{end}_backend(pid) FROM ({WAITING}) AS waiting")
        with pytest.raises(RegistryUnavailableError, match=match):
            committing.result()
    assert live_uids(on_postgres) == {}
    assert pool_of_connections.checkedout() == 0
    commit_one(on_postgres, collection)


def test_where_the_driver_cannot_send_statements_together_each_is_waited_for(
    on_postgres: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psycopg.Pipeline, "is_supported", lambda: False)
    commit_one(on_postgres, create(on_postgres))
    assert live_uids(on_postgres).keys() == {(2022, 1)}
