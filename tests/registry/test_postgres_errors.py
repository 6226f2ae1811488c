"""What Postgres' errors become, by their codes, and what its connections are told."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

import registry as zregistry
from registry import CollectionRecord, ReadOnlyError, Registry, RegistryRevisionError, RegistryUnavailableError
from registry.migrations import check_revision
from registry.sql import engine
from registry.sql import postgres as on_postgres
from registry.sql.engine import engine_of, reading, writing
from tests.postgres import connect, role

from .conftest import Sql, change, create, eventually, fragment, live_uids, write


@pytest.fixture
def registry(postgres_url: str) -> Iterator[Registry]:
    """An empty registry in Postgres."""
    with zregistry.connect(postgres_url) as registry:
        yield registry


def told(registry: Registry, **options: str) -> Registry:
    """The registry, by an address with more options."""
    return Registry(registry._url.update_query_dict(options).render_as_string(hide_password=False))


# Connections


def parameters(registry: Registry) -> dict[str, str]:
    """What libpq was told by a connection."""
    with reading(registry._url) as connection:
        driver: Any = connection.connection.driver_connection
        return {**driver.info.get_parameters()}


def test_a_server_that_is_gone_is_noticed_in_a_minute(registry: Registry) -> None:
    known = parameters(registry)
    assert int(known["keepalives_idle"]) + int(known["keepalives_interval"]) * int(known["keepalives_count"]) == 60
    assert known["tcp_user_timeout"] == "60000"


def test_what_the_address_says_of_keepalives_goes_before(registry: Registry) -> None:
    with told(registry, keepalives_idle="7", keepalives="0") as other:
        known = parameters(other)
    assert (known["keepalives"], known["keepalives_idle"], known["keepalives_interval"]) == ("0", "7", "10")


def prepared(registry: Registry) -> int:
    """How many statements the server has prepared for the connection that the next one gets."""
    with reading(registry._url) as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar_one())


@pytest.mark.parametrize(("options", "any_prepared"), [({}, False), ({"prepare": "0"}, True), ({"prepare": "5"}, True)])
def test_statements_are_prepared_on_the_server_where_the_address_asks_for_it(
    registry: Registry, options: dict[str, str], any_prepared: bool
) -> None:
    with told(registry, **options) as other:
        for _ in range(7):
            other.collections()
        assert (prepared(other) > 0) == any_prepared


def test_nothing_is_set_for_a_session(registry: Registry) -> None:
    write(registry, create(registry), fragment(2022, 1))
    registry.collections()
    with engine_of(registry._url).connect() as connection:
        of_session = "SELECT name FROM pg_settings WHERE source = 'session' AND name NOT LIKE 'transaction_%%'"
        assert connection.exec_driver_sql(of_session).scalars().all() == []


def test_a_connection_that_is_in_use_when_the_registry_is_closed_is_closed_when_it_is_given_back(
    registry: Registry,
) -> None:
    with reading(registry._url) as connection:
        driver: Any = connection.connection.driver_connection
        registry.close()
        assert not driver.closed
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    assert driver.closed


def test_more_threads_than_connections_are_told_so(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    pool: Any = engine_of(registry._url).pool
    monkeypatch.setattr(pool, "_timeout", 0.01)
    monkeypatch.setattr(pool, "_max_overflow", 0)
    with ExitStack() as stack:
        for _ in range(pool.size()):
            stack.enter_context(reading(registry._url))
        with pytest.raises(RegistryUnavailableError, match="more threads of this process"):
            registry.collections()


# What the server ends

LOCKED = "SELECT id FROM collection FOR UPDATE"
WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.mark.parametrize(
    ("end", "match"),
    [("cancel", "cancelled a statement.*rolled back"), ("terminate", "cannot be used: terminating connection")],
)
def test_of_a_commit_that_an_administrator_ends_nothing_is_there(
    registry: Registry, collection: CollectionRecord, sql: Sql, end: str, match: str
) -> None:
    def commit_one() -> None:
        with registry.begin() as transaction:
            transaction.commit([change(collection, fragment(2022, 1))])

    with ThreadPoolExecutor(1) as pool, connect(registry._url) as other, other.transaction():
        other.execute(LOCKED)
        committing = pool.submit(commit_one)
        assert eventually(lambda: len(sql(WAITING)) == 1)
        assert sql(f"SELECT pg_{end}_backend(pid) FROM ({WAITING}) AS waiting") == [(True,)]
        with pytest.raises(RegistryUnavailableError, match=match):
            committing.result()
    assert live_uids(registry) == {}
    assert sql('SELECT state FROM "transaction" ORDER BY id DESC LIMIT 1') == [("aborted",)]


def test_who_hangs_in_a_transaction_holds_its_locks_for_a_while_alone(
    registry: Registry, collection: CollectionRecord, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_postgres, "IDLE_TIMEOUT", 0.05)

    def hang() -> None:
        with writing(registry._url) as connection:
            connection.exec_driver_sql("UPDATE collection SET description = 'mine'")
            sql("UPDATE collection SET description = 'theirs'")  # waits for the lock
            connection.exec_driver_sql("SELECT 1")

    with pytest.raises(RegistryUnavailableError, match="idle-in-transaction timeout"):
        hang()
    assert sql("SELECT description FROM collection") == [("theirs",)]


# Who may not write


def assert_reads_only(registry: Registry, collection: CollectionRecord, match: str) -> None:
    assert registry.collection("made/a").id == collection.id
    with pytest.raises(ReadOnlyError, match=match), registry.begin((collection, 0)):
        pytest.fail("it has begun")
    with pytest.raises(ReadOnlyError, match=match):
        registry.rename_collection("made/a", "made/z")


def test_a_standby_is_read_and_who_writes_is_sent_to_the_primary(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    sql(f"ALTER DATABASE {registry._url.database} SET default_transaction_read_only = on")
    registry.close()
    assert_reads_only(registry, collection, "a standby.* write to the primary")


def test_a_commit_in_what_became_read_only_meanwhile_commits_nothing(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    def commit_too_late() -> None:
        with registry.begin() as transaction:
            sql(f"ALTER DATABASE {registry._url.database} SET default_transaction_read_only = on")
            registry.close()
            transaction.commit([change(collection, fragment(2022, 1))])

    with pytest.raises(ReadOnlyError, match="write to the primary"):
        commit_too_late()
    assert live_uids(registry) == {}


@pytest.fixture
def reader(registry: Registry) -> Iterator[Registry]:
    """The registry, as somebody else opens it who may do nothing there."""
    with role(registry._url) as url, Registry(url.render_as_string(hide_password=False)) as reader:
        yield reader


def test_who_may_read_only_is_told_what_to_ask_for(
    registry: Registry, collection: CollectionRecord, reader: Registry, sql: Sql
) -> None:
    sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader._url.username}")
    assert_reads_only(reader, collection, "you may read only: ask the registry's owner for INSERT, UPDATE and DELETE")


def test_who_has_what_it_asked_for_writes(
    registry: Registry, collection: CollectionRecord, reader: Registry, sql: Sql
) -> None:
    sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {reader._url.username}")
    sql(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {reader._url.username}")
    assert write(reader, create(reader, "theirs/b"), fragment(2022, 1)).number == 1


def test_who_may_not_even_read_is_told_so(reader: Registry, collection: CollectionRecord) -> None:
    with pytest.raises(
        RegistryUnavailableError, match=r"may not be read: permission denied .*ask its owner for SELECT"
    ):
        reader.collection("made/a")


def test_a_server_that_takes_no_more_connections_is_unavailable(reader: Registry, sql: Sql) -> None:
    sql(f"ALTER ROLE {reader._url.username} CONNECTION LIMIT 0")
    with pytest.raises(RegistryUnavailableError, match="too many connections"):
        reader.collections()


# What is wrong in the statements, not with the server


@pytest.mark.parametrize("block", [reading, writing])
@pytest.mark.parametrize(
    "statement", ["SELEC 1", "SELECT nosuch FROM collection", "SELECT * FROM nosuch", "SELECT 1 / 0"]
)
def test_a_wrong_statement_is_a_mistake_and_no_matter_of_the_server(
    registry: Registry, statement: str, block: Callable[..., Any]
) -> None:
    with pytest.raises(DBAPIError), block(registry._url) as connection:
        connection.exec_driver_sql(statement)
    assert registry.collections() == ()


def test_who_reads_while_the_registry_is_upgraded_is_told_so(
    registry: Registry, collection: CollectionRecord, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_before_an_upgrade(connection: sa.Connection) -> None:
        monkeypatch.undo()
        check_revision(connection)
        sql("ALTER TABLE collection RENAME TO collection_of_another_release")
        sql("UPDATE alembic_version SET version_num = '9999'")

    monkeypatch.setattr("registry.registry.check_revision", check_before_an_upgrade)
    with pytest.raises(RegistryRevisionError, match="9999 and is newer"):
        registry.collections()


def test_a_database_that_was_emptied_has_no_registry_any_more(registry: Registry, sql: Sql) -> None:
    sql("DROP TABLE alembic_version")
    for use in (registry.collections, registry.begin().__enter__):
        with pytest.raises(RegistryUnavailableError, match=r"no registry.*connect\(url, create=True\)"):
            use()


# Nobody knows


def test_where_nobody_tells_the_outcome_neither_is_claimed(
    registry: Registry, collection: CollectionRecord, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect = engine.engine_of(registry._url).dialect
    commit_now = dialect.do_commit

    def commit_and_lose_the_server(pooled: Any) -> None:
        monkeypatch.undo()
        commit_now(pooled)
        sql(f"ALTER DATABASE {registry._url.database} SET default_transaction_read_only = on")
        sql("SELECT pg_terminate_backend(?)", pooled.driver_connection.info.backend_pid)
        pooled.driver_connection.execute("SELECT 1")

    transaction = registry.begin()
    monkeypatch.setattr(dialect, "do_commit", commit_and_lose_the_server)
    with pytest.raises(RegistryUnavailableError, match=r"whether .* was committed is not known.*write to the primary"):
        transaction.commit([change(collection, fragment(2022, 1))])
    assert list(live_uids(registry)) == [(2022, 1)]
