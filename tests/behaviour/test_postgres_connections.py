"""Collections by connections to Postgres that a pooler shares out, and by some that are cut while data is written."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from sqlalchemy.engine import make_url

import intake_zcollection as izc
from registry.sql import postgres as on_postgres
from tests.conftest import make_grid
from tests.pgbouncer import needs_pgbouncer, running_pgbouncer
from tests.postgres import connect, run_sql
from tests.postgres_proxy import running_proxy
from tests.registry.conftest import eventually, in_threads, meet

TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid() AND datname = ?"


def create(registry: izc.Registry, location: Path) -> izc.Collection:
    return izc.create_collection(
        registry, "made/c", make_grid(), axis="time", partitioning=izc.Date("time", "M"), location=str(location)
    )


# Through a pooler, which lends a connection of the server for one transaction. It has one alone: what were left in it,
# the next one would find; and who needed two at once would wait for himself.


@pytest.fixture
def pooled(postgres_url: str) -> Iterator[izc.Registry]:
    """An empty registry in Postgres, through pgbouncer."""
    with running_pgbouncer(postgres_url, size=1) as url, izc.connect(url, create=True) as registry:
        yield registry


def insert_months(registry: izc.Registry, first: int) -> None:
    """Insert two months that others do not, and a day of one that all correct."""
    collection = izc.open_collection(registry, "made/c")
    meet()
    for month in (first, first + 1):
        collection.insert(make_grid(f"2022-{month:02}-01", days=3))
    collection.insert(make_grid("2022-12-01", days=1), merge="upsert")


@needs_pgbouncer
def test_threads_share_one_connection_of_the_server_through_a_pooler(pooled: izc.Registry, tmp_path: Path) -> None:
    collection = create(pooled, tmp_path / "c")
    in_threads(insert_months, [(pooled, month) for month in (1, 3, 5, 7)])
    assert [version.number for version in collection.versions()] == list(range(13))
    assert collection.load().sizes["time"] == 8 * 3 + 1
    collection.update(lambda data: {"count": data["count"].values * 2})
    collection.drop_rows(where={"time": ("2022-01-01", "2022-01-01")})
    collection.rename_variable("ice", "snow")
    copy = collection.copy("made/copy", f"{tmp_path}/copy")
    assert copy.load().equals(collection.load())
    izc.drop_collection(pooled, "made/c")
    assert [record.name for record in pooled.collections()] == ["made/copy"]


def told_to_sessions(registry: izc.Registry) -> dict[str, str]:
    """What the one session of the server has been told, and what it has prepared."""
    with connect(registry._url) as client:  # another one, to whom the pooler lends the same connection
        client.prepare_threshold = None
        changed = "SELECT name, setting FROM pg_settings WHERE setting IS DISTINCT FROM reset_val"
        ours = " AND name IN ('lock_timeout', 'idle_in_transaction_session_timeout', 'statement_timeout')"
        told = dict(client.execute((changed + ours).encode()).fetchall())
        prepared = client.execute("SELECT name, statement FROM pg_prepared_statements").fetchall()
        locks = client.execute("SELECT locktype, mode FROM pg_locks WHERE locktype = 'advisory'").fetchall()
        return told | dict(prepared) | dict(locks)


@needs_pgbouncer
def test_a_writer_who_waited_for_a_lock_leaves_no_limit_and_no_prepared_statement_to_the_next_client(
    pooled: izc.Registry,
    postgres_url: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(on_postgres, "LOCK_TIMEOUT", 0.02)
    caplog.set_level(logging.INFO, "registry.sql.engine")
    collection = create(pooled, tmp_path / "c")
    with ThreadPoolExecutor(1) as pool:
        with connect(make_url(postgres_url)) as other, other.transaction():
            other.execute("SELECT id FROM collection FOR UPDATE")
            inserting = pool.submit(collection.insert, make_grid(days=2))
            assert eventually(lambda: "lock timeout" in caplog.text or inserting.done())
        assert inserting.result().number == 1
    assert "lock timeout" in caplog.text
    for _ in range(7):  # by which a driver has prepared what it repeats
        collection.versions()
    assert told_to_sessions(pooled) == {}


# Connections that are cut


@contextmanager
def direct(url: str) -> Iterator[tuple[str, Callable[[], object]]]:
    yield url, lambda: run_sql(make_url(url), TERMINATE, make_url(url).database)


@contextmanager
def through_a_proxy(url: str) -> Iterator[tuple[str, Callable[[], object]]]:
    with running_proxy(url) as (proxy, through):
        yield through, proxy.cut


@contextmanager
def through_pgbouncer(url: str) -> Iterator[tuple[str, Callable[[], object]]]:
    with running_pgbouncer(url, size=2) as through, direct(url) as (_, cut):
        yield through, cut


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(direct, id="the server ends them"),
        pytest.param(through_a_proxy, id="the network loses them"),
        pytest.param(through_pgbouncer, id="the server ends those of a pooler", marks=needs_pgbouncer),
    ],
)
def test_an_insert_whose_connections_are_cut_while_it_writes_is_committed_once(
    postgres_url: str, tmp_path: Path, way: Any
) -> None:
    cuts = []
    with way(postgres_url) as (url, cut), izc.connect(url) as registry:

        def cut_and_join(existing: xr.Dataset, inserted: xr.Dataset, *, axis: str, dimension: str) -> xr.Dataset:
            cuts.append(cut())
            return xr.concat([existing, inserted], dimension, data_vars="minimal").sortby(axis)

        collection = create(registry, tmp_path / "c")
        collection.insert(make_grid(days=59))
        version = collection.insert(
            make_grid("2022-01-10", days=40, seed=1), merge=cut_and_join, scheduler="synchronous"
        )
        assert len(cuts) == 2
        assert version.number == 2
        assert [each.number for each in collection.versions()] == [0, 1, 2]
        assert collection.load().sizes["time"] == 99
        np.testing.assert_array_equal(
            collection.load(where={"time": ("2022-01-09", "2022-01-09")})["count"], make_grid(days=59)["count"][8:9]
        )
        assert run_sql(make_url(postgres_url), "SELECT count(*) FROM \"transaction\" WHERE state = 'open'") == [(0,)]
