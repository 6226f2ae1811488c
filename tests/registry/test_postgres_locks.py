"""The locks that are taken in Postgres, in one order by all, and those that keep writers and upgrades apart."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

import registry as zregistry
from registry import CollectionRecord, Place, Registry, RegistryRevisionError
from registry.migrations import HEAD_REVISION
from registry.sql.engine import engine_of, parse_url, upgrading, writing
from registry.sql.postgres import lock_for_upgrade
from tests.postgres import PostgresServer, run_sql

from .conftest import Sql, change, create, drop, eventually, fragment, in_threads, intents, live_uids, slot, write

Trace = list[list[str]]
"""The statements of SQL transactions."""


@pytest.fixture
def registry(postgres_url: str) -> Iterator[Registry]:
    """An empty registry in Postgres."""
    with zregistry.connect(postgres_url) as registry:
        yield registry


# The order of locks

ORDER = ("upgrade", "claim", "transaction", "collection", "namespace", "staged", "pin", "queue")
"""What is locked, the first one first. Rows of the last three are locked by whoever has locked their transaction's."""

LOCKS = (
    r"SELECT .*pg_advisory_xact_lock(?P<shared>_shared)?\(",
    r"LOCK TABLE (?P<table>\w+)",
    r"SELECT .* FROM (?P<row>\w+) WHERE .*FOR (NO KEY )?UPDATE$",
    r"(UPDATE|DELETE FROM) (?P<changed>\w+) ",
    r"INSERT INTO (?P<unique>namespace) ",
)


def locked_by(statement: str) -> str | None:
    """What a statement locks that others may want: new rows are nobody's else, but those of namespaces are shared."""
    for pattern in LOCKS:
        if found := re.match(pattern, statement):
            return next((name for name in found.groupdict().values() if name in ORDER), None) or (
                "upgrade" if "advisory" in statement else None
            )
    return None


def first_locks(statements: list[str]) -> list[str]:
    """What a transaction locks, in the order in which it does, what it has made itself aside."""
    made = {found[1] for each in statements if (found := re.match(r"INSERT INTO (transaction|collection) ", each))}
    return list(dict.fromkeys(name for each in statements if (name := locked_by(each)) and name not in made))


@pytest.fixture
def traced(registry: Registry) -> Iterator[Callable[[Callable[[], object]], Trace]]:
    """A function that calls another one, and returns what that says to the server in transactions that write."""
    engine, said = engine_of(registry._url), dict[int, list[str]]()
    trace: Trace = []

    def hear(connection: Any, cursor: Any, statement: str, *rest: object) -> None:
        said.setdefault(id(connection.connection.dbapi_connection), []).append(" ".join(statement.split()))

    def end(connection: Any) -> None:
        statements = said.pop(id(connection.connection.dbapi_connection), [])
        if any("set_config" in each for each in statements):
            trace.append(statements)

    def call(function: Callable[[], object]) -> Trace:
        trace.clear()
        function()
        return list(trace)

    sa.event.listen(engine, "before_cursor_execute", hear)
    sa.event.listen(engine, "commit", end)
    sa.event.listen(engine, "rollback", end)
    yield call
    for name, listener in (("before_cursor_execute", hear), ("commit", end), ("rollback", end)):
        sa.event.remove(engine, name, listener)


def insert_after_a_turn(registry: Registry, collection: CollectionRecord) -> None:
    writes, unused = fragment(2022, 1), fragment(2022, 1)
    with registry.begin((collection, 0), intents=[(collection, unused.uid, "path")]) as transaction:
        transaction.pin(collection, 0)
        transaction.queue(collection, [Place(None, None, None)])
        transaction.stage(collection, intents(writes))
        transaction.commit([change(collection, writes, requires={slot(2022, 1): None})])


def rename_into_a_new_namespace(registry: Registry, collection: CollectionRecord) -> None:
    registry.rename_collection("made/a", "other/a")


def create_in_a_new_namespace(registry: Registry, collection: CollectionRecord) -> None:
    create(registry, "fresh/b")


def drop_it(registry: Registry, collection: CollectionRecord) -> None:
    write(registry, collection, fragment(2022, 1))
    drop(registry)


def abort(registry: Registry, collection: CollectionRecord) -> None:
    with registry.begin((collection, 0), intents=[(collection, "uid", "path")]) as transaction:
        transaction.abort()


LIVES = (insert_after_a_turn, rename_into_a_new_namespace, create_in_a_new_namespace, drop_it, abort)
a_life = pytest.mark.parametrize("live", LIVES)


@a_life
def test_all_take_locks_in_one_order(
    registry: Registry, collection: CollectionRecord, traced: Any, live: Callable[..., None]
) -> None:
    for statements in traced(lambda: live(registry, collection)):
        locks = first_locks(statements)
        assert locks == sorted(locks, key=ORDER.index), statements
        assert locks[0] == "upgrade"


def test_the_order_of_locks_is_that_of_a_commit(registry: Registry, collection: CollectionRecord, traced: Any) -> None:
    *_, last = traced(lambda: insert_after_a_turn(registry, collection))
    assert first_locks(last) == ["upgrade", "transaction", "collection", "staged", "pin", "queue"]


@a_life
def test_what_is_checked_is_asked_for_after_it_was_locked_by_another_statement(
    registry: Registry, collection: CollectionRecord, traced: Any, live: Callable[..., None]
) -> None:
    locking = [s for each in traced(lambda: live(registry, collection)) for s in each if s.endswith("UPDATE")]
    for statement in locking:
        assert re.search(
            r" FROM \w+ WHERE \w+\.(uid|id) (=|IN) [^.]*(ORDER BY \w+\.id )?FOR (NO KEY )?UPDATE$", statement
        )
        assert "clock_timestamp" not in statement


def test_a_commit_locks_before_it_compares_and_reads_the_clock_after_the_locks(
    registry: Registry, collection: CollectionRecord, traced: Any
) -> None:
    *_, last = traced(lambda: insert_after_a_turn(registry, collection))
    order = ["alembic_version", "FOR UPDATE", "FOR NO KEY UPDATE", "clock_timestamp()", "FROM fragment"]
    order.append("INSERT INTO fragment")
    places = [next(i for i, text in enumerate(last) if words in text) for words in order]
    assert places == sorted(places)


# Writers and upgrades

WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
def earlier(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a registry of an earlier revision."""
    with postgres.database() as url:
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            config = Config()
            config.set_main_option("script_location", "registry:migrations")
            config.set_main_option("path_separator", "os")
            config.attributes["connection"] = connection
            command.upgrade(config, "0005")
        engine.dispose()
        yield url


def test_an_upgrade_waits_for_those_who_write(earlier: str) -> None:
    url = parse_url(earlier)
    revision = "SELECT version_num FROM alembic_version"

    def upgrade_beside_a_writer() -> None:
        with ThreadPoolExecutor(1) as pool:
            with writing(url):
                upgrade = pool.submit(zregistry.connect, earlier, create=True)
                assert eventually(lambda: upgrade.done() or len(run_sql(url, WAITING)) == 1)
                assert run_sql(url, revision) == [("0005",)]
            upgrade.result().close()

    with pytest.warns(UserWarning, match="is upgraded from revision 0005"):
        upgrade_beside_a_writer()
    assert run_sql(url, revision) == [(HEAD_REVISION,)]


def test_two_who_upgrade_at_once_do_it_once(earlier: str) -> None:
    with Registry(earlier) as registry, pytest.warns(UserWarning, match="is upgraded from revision 0005") as warned:
        in_threads(registry.upgrade, [(), ()])
    assert len(warned) == 1


def test_who_commits_during_an_upgrade_waits_and_is_told_of_the_new_revision(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    def commit_one() -> None:
        with registry.begin() as transaction, upgrading(registry._url) as upgrade:
            lock_for_upgrade(upgrade)
            committing = pool.submit(transaction.commit, [change(collection, fragment(2022, 1))])
            assert eventually(lambda: committing.done() or len(sql(WAITING)) == 1)
            assert not committing.done()
            upgrade.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
            upgrade.commit()
            committing.result()

    with ThreadPoolExecutor(1) as pool, pytest.raises(RegistryRevisionError, match="9999 and is newer"):
        commit_one()
    sql("UPDATE alembic_version SET version_num = ?", HEAD_REVISION)
    assert live_uids(registry) == {}
