"""Connections to Postgres that are lost: what became of a COMMIT is found out, and nothing happens twice."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

import registry as zregistry
from registry import CollectionRecord, Registry, RegistryUnavailableError
from tests.postgres import connect
from tests.postgres_proxy import Proxy, running_proxy

from .conftest import Sql, change, create, drop, eventually, fragment, intents, live_uids


@pytest.fixture
def proxied(postgres_url: str) -> Iterator[tuple[Proxy, Registry]]:
    """A proxy before the server, and an empty registry through it."""
    with running_proxy(postgres_url) as (proxy, url), zregistry.connect(url) as registry:
        yield proxy, registry


@pytest.fixture
def proxy(proxied: tuple[Proxy, Registry]) -> Proxy:
    """The proxy between the registry and its server."""
    return proxied[0]


@pytest.fixture
def registry(proxied: tuple[Proxy, Registry]) -> Registry:
    """An empty registry in Postgres, through a proxy."""
    return proxied[1]


def insert_one(registry: Registry) -> None:
    collection, writes = registry.collection("made/a"), fragment(2022, 1)
    with registry.begin((collection, 0), intents=[(collection, writes.uid, "path")]) as transaction:
        (version,) = transaction.commit([change(collection, writes)])
    assert version.number == 1


def rename(registry: Registry) -> None:
    registry.rename_collection("made/a", "made/z")


def create_another(registry: Registry) -> None:
    assert create(registry, "made/b").head_version == 0


@dataclass(frozen=True)
class Step:
    """Something that ends with a COMMIT, words of a statement before that, and what all can see once it is done."""

    do: Callable[[Registry], Any]
    words: str
    done: str


STEPS = {
    "the begin of an insert": Step(insert_one, "INSERT INTO staged", "SELECT 1 FROM fragment"),
    "the commit of an insert": Step(insert_one, "INSERT INTO fragment", "SELECT 1 FROM fragment"),
    "an edit": Step(rename, "UPDATE collection", "SELECT 1 FROM collection WHERE name = 'z'"),
    "the claim of a creation": Step(create_another, "INSERT INTO claim", "SELECT 1 FROM collection WHERE name = 'b'"),
    "the record of a creation": Step(
        create_another, "INSERT INTO collection", "SELECT 1 FROM collection WHERE name = 'b'"
    ),
    "a drop": Step(drop, "DELETE FROM collection", "SELECT 1 WHERE NOT EXISTS (SELECT * FROM collection)"),
}
a_step = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())


@pytest.fixture
def collection(registry: Registry) -> CollectionRecord:
    """An empty collection, made/a."""
    return create(registry)


def unfinished(sql: Sql) -> list[Any]:
    return sql("SELECT id FROM \"transaction\" WHERE state = 'open'")


@a_step
def test_what_was_committed_when_the_connection_was_lost_is_done_and_not_repeated(
    registry: Registry, proxy: Proxy, collection: CollectionRecord, sql: Sql, step: Step
) -> None:
    proxy.lose("after", step.words)
    step.do(registry)
    assert proxy.lost == 1
    assert sql(step.done) == [(1,)]
    assert unfinished(sql) == []


@a_step
def test_what_was_not_committed_when_the_connection_was_lost_is_not_there_and_can_be_repeated(
    registry: Registry, proxy: Proxy, collection: CollectionRecord, sql: Sql, step: Step
) -> None:
    proxy.lose("before", step.words)
    with pytest.raises(RegistryUnavailableError, match="connection"):
        step.do(registry)
    assert proxy.lost == 1
    assert sql(step.done) == []
    assert unfinished(sql) == []
    step.do(registry)


@a_step
def test_a_commit_that_is_still_at_work_when_the_connection_is_lost_is_waited_for(
    registry: Registry, proxy: Proxy, collection: CollectionRecord, sql: Sql, step: Step
) -> None:
    sql(
        "CREATE FUNCTION wait() RETURNS trigger AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END' "
        "LANGUAGE plpgsql"
    )
    table = step.words.split()[-1]
    sql(
        f"CREATE CONSTRAINT TRIGGER waits AFTER INSERT OR UPDATE OR DELETE ON {table} "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    waiting = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as pool, connect(registry._url) as other:
        with other.transaction():
            other.execute("SELECT pg_advisory_xact_lock(1)")
            proxy.lose("during", step.words)
            doing = pool.submit(step.do, registry)
            assert eventually(lambda: len(sql(waiting)) == 2 or doing.done())
            assert not doing.done()
        doing.result()
    assert sql(step.done) == [(1,)]
    assert unfinished(sql) == []


def test_pooled_connections_that_are_cut_while_data_is_written_are_replaced_at_the_commit(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    writes = fragment(2022, 1)
    ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid() AND datname = ?"
    with registry.begin((collection, 0)) as transaction:
        transaction.stage(collection, intents(writes))
        assert sql(ending, registry._url.database) == [(True,)]
        (version,) = transaction.commit([change(collection, writes)])
    assert (version.number, live_uids(registry)) == (1, {(2022, 1): (writes.uid,)})
