"""A real standby of Postgres that lags behind: what it does not have yet, and what it still lists, is told as that."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from sqlalchemy.engine import make_url

import intake_zcollection as izc
from registry.sql.engine import reading
from tests.conftest import make_grid
from tests.postgres import PostgresServer, run_sql, running_standby
from tests.registry.conftest import eventually

from .test_reading_only import WRITING, create

BEHIND = r"a standby, which may lag behind, and has what was committed up to 20.* UTC: ask .* later, or ask the primary"


@pytest.fixture(scope="module")
def standby(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A server that follows the one of the other tests."""
    with running_standby(postgres) as server:
        yield server


@dataclass(frozen=True)
class Pair:
    """A registry, and its copy in a standby."""

    primary: izc.Registry
    replica: izc.Registry
    _standby: PostgresServer

    def pause(self) -> None:
        """Have the standby take all that was committed, and nothing after that."""
        self.resume()
        run_sql(self._standby.url, "SELECT pg_wal_replay_pause()")
        assert eventually(lambda: self._ask("SELECT pg_get_wal_replay_pause_state()") == "paused")

    def resume(self) -> None:
        """Have the standby take all that was committed."""
        if self._ask("SELECT pg_is_wal_replay_paused()"):
            run_sql(self._standby.url, "SELECT pg_wal_replay_resume()")
        ((written,),) = run_sql(self.primary._url, "SELECT pg_current_wal_flush_lsn()")
        assert eventually(lambda: self._ask("SELECT pg_last_wal_replay_lsn() >= ?::pg_lsn", written) is True)

    def _ask(self, statement: str, *values: object) -> Any:
        return run_sql(self._standby.url, statement, *values)[0][0]


@pytest.fixture
def pair(postgres_url: str, standby: PostgresServer) -> Iterator[Pair]:
    """A registry in Postgres, and its copy in a standby."""
    copied = standby.url.set(database=make_url(postgres_url).database).render_as_string(hide_password=False)
    with izc.connect(postgres_url) as primary:
        pair = Pair(primary, izc.Registry(copied), standby)
        pair.resume()
        try:
            yield pair
        finally:
            pair.replica.close()
            pair.resume()


@pytest.fixture
def collection(pair: Pair, tmp_path: Path) -> izc.Collection:
    """A collection with two days in two parts, which the standby knows."""
    collection = create(pair.primary, "made/c", f"{tmp_path}/c")
    collection.insert(make_grid(days=2))
    collection.insert(make_grid("2022-01-11", days=2))
    return collection


def test_what_a_standby_does_not_have_yet_is_not_here_yet(
    pair: Pair, collection: izc.Collection, tmp_path: Path
) -> None:
    pair.pause()
    newer = collection.insert(make_grid("2022-02-01", days=1))
    create(pair.primary, "made/new", f"{tmp_path}/new")
    replica = izc.open_collection(pair.replica, "made/c")
    assert replica.version.number == 2
    for ask in (
        lambda: izc.open_collection(pair.replica, "made/c", version=newer),
        lambda: replica.at(version=3),
        lambda: pair.replica.version("made/c", 3),
    ):
        with pytest.raises(izc.NotFoundError, match=rf"has no version 3 yet: it has versions 0 to 2; .* {BEHIND}"):
            ask()
    with pytest.raises(izc.NotFoundError, match=rf"there is no collection made/new .* yet; .* {BEHIND}"):
        izc.open_collection(pair.replica, "made/new")
    pair.resume()
    assert replica.at(version=newer).load().sizes["time"] == 5
    with pytest.raises(izc.NotFoundError, match=r"has no version -1: it has versions 0 to 3$"):
        replica.at(version=-1)
    with pytest.raises(izc.NotFoundError, match=r"has no version 4: it has versions 0 to 3$"):
        collection.at(version=4)


def load_lazily(collection: izc.Collection) -> Callable[[], object]:
    # By one thread: others would go on, and ask, when the first one has failed and the test is over.
    return partial(collection.load().compute, scheduler="synchronous")


def load_without_dask(collection: izc.Collection) -> Callable[[], object]:
    return collection.load(chunks=None).compute


def load_some_rows(collection: izc.Collection) -> Callable[[], object]:
    return lambda: collection.load(where={"time": ("2022-01-02", "2022-01-03")})


def map_all(collection: izc.Collection) -> Callable[[], object]:
    return lambda: collection.map(lambda data: data.sizes["time"], scheduler="synchronous")


READS = [load_lazily, load_without_dask, load_some_rows, map_all]


@pytest.mark.parametrize("read", READS)
def test_data_that_a_standby_still_lists_and_that_was_dropped_is_not_called_corrupt(
    pair: Pair, collection: izc.Collection, tmp_path: Path, read: Callable[[izc.Collection], Callable[[], object]]
) -> None:
    pair.pause()
    izc.drop_collection(pair.primary, "made/c")
    reading = read(izc.open_collection(pair.replica, "made/c"))
    with pytest.raises(izc.NotFoundError, match=rf"is missing in .*/c: .*, and may have been given up: .* {BEHIND}"):
        reading()
    if read in (load_lazily, load_without_dask):
        pair.resume()
        with pytest.raises(
            izc.NotFoundError, match=r"made/c was dropped from the registry .*, since this was loaded: "
        ):
            reading()


def test_a_copy_out_of_a_standby_whose_source_was_dropped_says_so(
    pair: Pair, collection: izc.Collection, tmp_path: Path
) -> None:
    pair.pause()
    izc.drop_collection(pair.primary, "made/c")
    replica = izc.open_collection(pair.replica, "made/c")
    with (
        izc.connect(f"sqlite:///{tmp_path}/own.db", create=True) as own,
        pytest.raises(izc.NotFoundError, match=rf"may have been given up: .* {BEHIND}"),
    ):
        replica.copy("made/c", f"{tmp_path}/copy", reg=own)
    assert not Path(tmp_path, "copy").exists()


def test_data_that_is_missing_and_listed_by_the_primary_is_to_be_restored(collection: izc.Collection) -> None:
    data = collection.load()
    for chunk in Path(collection.location).rglob("c.*"):
        chunk.unlink()
    with pytest.raises(izc.CorruptedDataError, match="restore it from a copy"):
        data.compute(scheduler="synchronous")


def test_a_read_that_is_in_the_way_of_a_standby_is_ended_and_told_to_be_repeated(
    pair: Pair, collection: izc.Collection, standby: PostgresServer
) -> None:
    pair.resume()
    run_sql(standby.url, "ALTER SYSTEM SET max_standby_streaming_delay = 0")
    run_sql(standby.url, "SELECT pg_reload_conf()")

    def read_while_tables_are_changed() -> None:
        with reading(pair.replica._url) as connection:
            connection.exec_driver_sql("SELECT * FROM collection")
            run_sql(pair.primary._url, "ALTER TABLE collection ADD COLUMN more INTEGER")
            pair.resume()
            connection.exec_driver_sql("SELECT * FROM collection")

    with pytest.raises(izc.RegistryUnavailableError, match=r"ended a read .* read it again"):
        read_while_tables_are_changed()


def test_a_standby_is_not_written_and_every_verb_sends_to_the_primary(
    pair: Pair, collection: izc.Collection, tmp_path: Path
) -> None:
    pair.resume()
    replica = izc.open_collection(pair.replica, "made/c")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for verb, call in WRITING.items():
        with pytest.raises(izc.ReadOnlyError, match=r"it is a standby.* write to the primary"):
            pytest.fail(f"{verb} returned {call(replica)!r}")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    xr.testing.assert_identical(replica.load().compute(), collection.load().compute())
