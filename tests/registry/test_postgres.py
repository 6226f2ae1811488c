"""What Postgres has that SQLite has not: writers that wait for rows, give way to each other, and try again."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import registry as zregistry
from registry import (
    AlreadyExistsError,
    CollectionRecord,
    Registry,
    RegistryUnavailableError,
    TransactionClosedError,
)
from registry.sql import engine
from registry.sql import postgres as on_postgres
from registry.sql.engine import retried, writing
from tests.postgres import PostgresServer, connect

from .conftest import Sql, change, eventually, fragment, in_processes, intents, live_uids, slot_of, write


@pytest.fixture
def registry(postgres_url: str) -> Iterator[Registry]:
    """An empty registry in Postgres."""
    with zregistry.connect(postgres_url) as registry:
        yield registry


@contextmanager
def holding(registry: Registry, statement: str) -> Iterator["psycopg.Connection"]:
    """Hold the locks of a statement inside the block, as somebody else."""
    with connect(registry._url) as connection, connection.transaction():
        connection.execute(statement.encode())
        yield connection


LOCKED = "SELECT id FROM collection FOR UPDATE"
WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
def given_way(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """A function that returns what was logged of the transactions that gave way."""
    caplog.set_level(logging.INFO, "registry.sql.engine")
    return lambda: [each.getMessage() for each in caplog.records if each.name == "registry.sql.engine"]


GivingWay = Callable[..., Any]


@pytest.fixture
def giving_way(registry: Registry, given_way: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> GivingWay:
    """A function that has another one called while somebody holds locks, until that has given way, more than once."""
    monkeypatch.setattr(on_postgres, "LOCK_TIMEOUT", 0.02)

    def call(locking: str, function: Callable[..., Any], *arguments: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            with holding(registry, locking):
                calling = pool.submit(function, *arguments)
                assert eventually(lambda: len(given_way()) > 1)
            return calling.result()

    return call


def test_a_commit_waits_for_a_lock_that_is_held_for_longer_than_a_statement_waits(
    registry: Registry, collection: CollectionRecord, given_way: Callable[[], list[str]], giving_way: GivingWay
) -> None:
    writes = fragment(2022, 1)
    with registry.begin() as transaction:
        transaction.stage(collection, intents(writes))
        (version,) = giving_way(LOCKED, transaction.commit, [change(collection, writes)])
    assert version.number == 1
    assert live_uids(registry) == {(2022, 1): (writes.uid,)}
    assert "is busy with other writers" in given_way()[0]
    assert "lock timeout" in given_way()[0]


def test_an_edit_waits_for_such_a_lock_too(
    registry: Registry, collection: CollectionRecord, giving_way: GivingWay
) -> None:
    giving_way(LOCKED, registry.rename_collection, "made/a", "made/z")
    assert registry.collection("made/z").id == collection.id


def test_a_begin_waits_for_such_a_lock_too(
    registry: Registry, collection: CollectionRecord, sql: Sql, giving_way: GivingWay
) -> None:
    writes = fragment(2022, 1)
    transaction = giving_way(LOCKED, registry.begin((collection, 0)).__enter__)  # what it pins refers to that row
    transaction.commit([change(collection, writes)])
    assert live_uids(registry) == {(2022, 1): (writes.uid,)}
    assert sql("SELECT count(*) FROM \"transaction\" WHERE state != 'committed'") == [(0,)]


def test_intents_that_are_given_one_by_one_are_all_recorded_when_the_staging_is_repeated(
    registry: Registry, collection: CollectionRecord, sql: Sql, giving_way: GivingWay
) -> None:
    writes = fragment(2022, 1), fragment(2022, 2)
    with registry.begin() as transaction:
        giving_way("LOCK TABLE staged", transaction.stage, collection, iter(intents(*writes)))
        assert sorted(sql("SELECT uid FROM staged")) == sorted((each.uid,) for each in writes)


def test_a_lock_that_is_never_given_back_is_an_error_that_says_so_and_nothing_is_committed(
    registry: Registry, collection: CollectionRecord, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_postgres, "LOCK_TIMEOUT", 0.02)
    monkeypatch.setattr(engine, "RETRY_SECONDS", 0.1)
    with registry.begin() as transaction, holding(registry, LOCKED):
        with pytest.raises(RegistryUnavailableError, match=r"busy with other writers.* tried \d+ times in 0\.1 s"):
            transaction.commit([change(collection, fragment(2022, 1))])
        with pytest.raises(TransactionClosedError, match="is aborted"):
            transaction.commit([change(collection, fragment(2022, 1))])
    assert sql('SELECT state FROM "transaction" ORDER BY id DESC LIMIT 1') == [("aborted",)]
    assert live_uids(registry) == {}


def test_of_two_writers_that_wait_for_each_other_one_gives_way_and_both_succeed(
    registry: Registry, collection: CollectionRecord, other: CollectionRecord, sql: Sql
) -> None:
    tries = []
    both_hold_one = threading.Barrier(2)

    @retried
    def describe(*ids: int) -> None:
        tries.append(ids)
        meeting = len(tries) <= 2
        with writing(registry._url) as connection:
            for id_ in ids:
                connection.exec_driver_sql("UPDATE collection SET description = %s WHERE id = %s", (str(ids), id_))
                if meeting and id_ == ids[0]:
                    both_hold_one.wait(timeout=60)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(describe, 1, 2), pool.submit(describe, 2, 1)]:
            done.result()
    assert sorted(tries[:2]) == [(1, 2), (2, 1)]
    assert len(tries) == 3
    assert sql("SELECT description FROM collection ORDER BY id") == [(str(tries[-1]),)] * 2


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_writers_see_what_others_committed_while_they_waited_whatever_the_default_of_the_database(
    registry: Registry, sql: Sql, collection: CollectionRecord, level: str, given_way: Callable[[], list[str]]
) -> None:
    sql(f"ALTER DATABASE {registry._url.database} SET default_transaction_isolation = '{level}'")
    registry.close()
    writes = fragment(2022, 1)
    with ThreadPoolExecutor(1) as pool:
        with holding(registry, "UPDATE collection SET description = 'theirs'"):
            writing = pool.submit(write, registry, collection, writes, requires={slot_of(writes): None})
            assert eventually(lambda: len(sql(WAITING)) == 1)
        assert writing.result().number == 1
    assert given_way() == []


def test_connections_that_the_server_has_closed_are_replaced(registry: Registry, sql: Sql) -> None:
    registry.collections()
    sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid() AND datname = ?",
        registry._url.database,
    )
    assert registry.collections() == ()


@pytest.mark.parametrize("took_effect", [True, False])
def test_what_became_of_a_commit_whose_connection_the_server_ended_is_found_out(
    registry: Registry, collection: CollectionRecord, sql: Sql, monkeypatch: pytest.MonkeyPatch, took_effect: bool
) -> None:
    dialect = engine.engine_of(registry._url).dialect
    commit_now = dialect.do_commit

    def lose_the_connection(pooled: Any) -> None:
        monkeypatch.undo()
        if took_effect:
            commit_now(pooled)
        sql("SELECT pg_terminate_backend(?)", pooled.driver_connection.info.backend_pid)
        pooled.driver_connection.execute("SELECT 1")

    with registry.begin() as transaction:
        monkeypatch.setattr(dialect, "do_commit", lose_the_connection)
        if took_effect:
            assert [version.number for version in transaction.commit([change(collection, fragment(2022, 1))])] == [1]
        else:
            with pytest.raises(RegistryUnavailableError, match="terminating connection"):
                transaction.commit([change(collection, fragment(2022, 1))])
    assert list(live_uids(registry)) == [(2022, 1)] * took_effect
    last = sql('SELECT state FROM "transaction" ORDER BY id DESC LIMIT 1')
    assert last == [("committed" if took_effect else "aborted",)]


def test_many_may_create_a_registry_at_once(postgres: PostgresServer) -> None:
    with postgres.database() as url:
        in_processes(create_registry, [(url,)] * 3)
        with zregistry.connect(url) as registry:
            assert registry.collections() == ()


def create_registry(url: str) -> None:
    zregistry.connect(url, create=True).close()


def test_a_new_namespace_is_recorded_once_for_many_who_need_it(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with holding(registry, "INSERT INTO namespace (name) VALUES ('theirs')"):
            renaming = pool.submit(registry.rename_collection, "made/a", "theirs/a")
            assert eventually(lambda: len(sql(WAITING)) == 1)
        renaming.result()
    assert registry.collection("theirs/a").id == collection.id
    assert sql("SELECT name FROM namespace ORDER BY name") == [("made",), ("theirs",)]


def test_a_name_that_was_taken_while_a_collection_was_being_renamed_is_refused(
    registry: Registry, collection: CollectionRecord, other: CollectionRecord, sql: Sql
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with holding(registry, "UPDATE collection SET name = 'z' WHERE name = 'b'"):
            renaming = pool.submit(registry.rename_collection, "made/a", "made/z")
            assert eventually(lambda: len(sql(WAITING)) == 1)
        with pytest.raises(AlreadyExistsError, match="the name made/z was taken just now"):
            renaming.result()
    assert [each.name for each in registry.collections()] == ["made/a", "made/z"]


def test_how_long_statements_wait_is_told_to_a_transaction_and_not_to_its_connection(registry: Registry) -> None:
    def lock_timeout(connection: Any) -> str:
        return connection.exec_driver_sql("SHOW lock_timeout").scalar()

    with writing(registry._url) as connection:
        backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        assert lock_timeout(connection) == "10s"
    with engine.reading(registry._url) as connection:
        assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() == backend  # the same, from the pool
        assert lock_timeout(connection) == "0"
