"""The tables and views that migrations make, and every statement on Postgres, which spells some differently."""

import dataclasses
import datetime as dt
import getpass
import importlib.metadata
import itertools
import re
import resource
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from packaging.version import Version
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from registry import (
    IMMUTABLE_SLOT,
    CollectionRecord,
    ConflictError,
    Entry,
    IndexRecord,
    Registry,
    RegistryRevisionError,
    RegistryUnavailableError,
    SchemaRecord,
    Selection,
    Source,
    SourceRecord,
    Statistic,
    connect,
    pad_key,
    parse_predicate,
)
from registry.changes import (
    AddVariables,
    ClosePartitions,
    Commit,
    CreateIndex,
    DropIndex,
    EditSchema,
    PutFragments,
    RememberSources,
    Rename,
    SchemaUnchanged,
    SourcesUnchanged,
)
from registry.indexes import Choice, Wanted
from registry.migrations import HEAD_REVISION, render, upgrade
from registry.sql import fragments, hunks, queries
from registry.sql.engine import create_database, engine_of, parse_url, reading, upgrading
from registry.sql.tables import metadata

from .conftest import Sql, change, commit, create, drop, fragment, in_processes, intents, slot, slot_of, whole, write

POSTGRES = postgresql.dialect()


def on_postgres(statement: Any, **options: Any) -> str:
    return str(statement.compile(dialect=POSTGRES, **options))


# Migrations


def test_the_code_needs_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", "registry:migrations")
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD_REVISION]


def test_migrations_make_the_tables_that_the_code_knows(registry: Registry) -> None:
    with reading(parse_url(registry.url)) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def make_revision(path: Path, revision: str) -> None:
    """Make the database of an earlier release."""
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "registry:migrations")
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def test_a_registry_of_the_first_revision_is_refused_until_it_is_upgraded_and_then_complete(tmp_path: Path) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    make_revision(old, "0001")
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("INSERT INTO namespace (name) VALUES ('kept')")
    with pytest.raises(RegistryRevisionError, match=f"revision 0001 and this code needs {HEAD_REVISION}"):
        connect(f"sqlite:///{old}")
    for path in (old, new):
        with connect(f"sqlite:///{path}", create=True) as registry:
            assert registry.collections() == ()
    assert parts_of_tables(old) == parts_of_tables(new)
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("SELECT name FROM namespace").fetchall() == [("kept",)]


def rows_of(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


def make_revision_2_with_sources(path: Path, count: int) -> None:
    make_revision(path, "0002")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO namespace (id, name) VALUES (1, 'made')")
        columns = "id, uid, namespace_id, name, kind, location, storage_options, axis, dimension, keys, partitioning"
        more = "zarr_format, merge, head_version, description, metadata, created_at"
        for id_, name in ((1, "a"), (2, "b")):
            values = f"{id_}, '{name}', 1, '{name}', 'collection', '{name}', '{{}}', 't', 't', '[\"year\"]', '{{}}'"
            values = f"{values}, 3, 'refuse', 7, '', '{{}}', '2022-01-01 00:00:00'"
            connection.execute(f"INSERT INTO collection ({columns}, {more}) VALUES ({values})")
        rows = [(1 + n % 2, f"{n:06}.nc", 1 + n % 7) for n in range(count)]
        connection.executemany("INSERT INTO source (collection_id, name, version) VALUES (?, ?, ?)", rows)


def test_sources_known_by_name_begin_with_their_version_and_have_no_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    make_revision_2_with_sources(path, 1000)
    before = rows_of(path, "SELECT collection_id, name, version FROM source ORDER BY 1, 2")
    with connect(f"sqlite:///{path}", create=True) as registry:
        after = rows_of(path, "SELECT collection_id, name, begin_version FROM source ORDER BY 1, 2")
        assert after == before
        assert rows_of(path, "SELECT DISTINCT end_version, fingerprint FROM source") == [(None, None)]
        known = registry.known_sources("made/b", ["000001.nc", "000002.nc"])
        assert known == {"000001.nc": SourceRecord(Source("000001.nc"), 2)}
        drop(registry, "made/b")
        assert rows_of(path, "SELECT count(*) FROM source") == [(500,)]


def test_a_hundred_thousand_sources_are_migrated_in_a_moment(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    make_revision_2_with_sources(path, 100_000)
    started = time.process_time()
    connect(f"sqlite:///{path}", create=True).close()
    assert time.process_time() - started < 20  # it takes one; a row at a time, some minutes
    assert rows_of(path, "SELECT count(*), max(begin_version) FROM source") == [(100_000, 7)]


def test_postgres_keeps_the_table_of_sources_and_its_rows() -> None:
    text = render("postgresql").partition("-> 0004")[2]
    assert "ALTER TABLE source RENAME version TO begin_version" in text
    assert "PRIMARY KEY (collection_id, name, begin_version)" in text
    assert "DROP TABLE" not in text


def parts_of_tables(path: Path) -> dict[str, list[str]]:
    """The lines of each CREATE TABLE and CREATE INDEX, in any order: keys, checks and options are among them."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index')").fetchall()
    # A column that was added stands behind another one on its line, parted by a comma outside of parentheses.
    split = re.compile(r"\n|, (?![^(]*\))").split
    lines = {name: [line.strip(", \t") for line in split(sql)] for name, sql in rows if sql is not None}
    return {name: sorted(filter(None, each)) for name, each in lines.items()}


@pytest.mark.one_engine("sqlite", "what it keeps of CREATE TABLE")
def test_migrations_make_the_same_keys_checks_and_options_too(registry: Registry, tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/metadata.db")
    metadata.create_all(engine)
    engine.dispose()
    migrated = parts_of_tables(Path(str(registry._url.database)))
    migrated.pop("alembic_version")
    assert migrated == parts_of_tables(tmp_path / "metadata.db")


@pytest.mark.one_engine("sqlite", "what it keeps of CREATE TABLE")
def test_migrations_rendered_for_sqlite_make_the_same_database(registry: Registry, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "rendered.db")) as connection:
        connection.executescript(render("sqlite"))
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [(HEAD_REVISION,)]
        assert connection.execute("SELECT * FROM current_partition, history").fetchall() == []
    assert parts_of_tables(tmp_path / "rendered.db") == parts_of_tables(Path(str(registry._url.database)))


def test_migrations_rendered_for_postgres_are_one_transaction_with_its_own_types() -> None:
    text = render("postgresql")
    assert text.startswith("BEGIN;")
    assert text.rstrip().endswith("COMMIT;")
    created = {line.split()[2].strip('"') for line in text.splitlines() if line.startswith("CREATE TABLE")}
    assert created == {*metadata.tables, "alembic_version"}
    assert "CREATE VIEW current_partition" in text
    assert "CREATE VIEW history" in text
    assert "created_at TIMESTAMP WITH TIME ZONE NOT NULL" in text
    assert "id BIGSERIAL NOT NULL" in text
    assert "ROWID" not in text


@pytest.mark.parametrize("name", sorted(metadata.tables))
def test_each_table_can_be_created_on_postgres(name: str) -> None:
    text = on_postgres(CreateTable(metadata.tables[name]))
    assert all(f"{column.name} " in text for column in metadata.tables[name].columns)


# Parts


KEYS = tuple(f"k{i}" for i in range(6))
NOTHING = (None, None)


@dataclasses.dataclass
class Old:
    """A fragment as earlier releases recorded it, and the name of the part that it becomes."""

    collection: int
    key: tuple[int, ...]
    layer: int
    begin: int
    rows: int
    bounds: tuple[int | None, int | None]
    named: int
    end: int | None = None
    uid: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)

    def before(self) -> dict[str, Any]:
        ended = {} if self.end is None else {"end_version": self.end}
        versions = {"begin_version": self.begin, "written_version": self.begin, "schema_version": 0}
        bounds = dict(zip(("axis_min", "axis_max"), self.bounds, strict=True))
        sizes = {"rows": self.rows, "nbytes": 8 * self.rows, "transaction_id": self.begin}
        key = dict(zip(KEYS, self.key, strict=True))
        where = {"collection_id": self.collection, "layer_id": self.layer, "uid": self.uid}
        return where | key | versions | ended | bounds | sizes

    def after(self, unique: int | None) -> tuple[Any, ...]:
        """The row with its columns in their order."""
        ended = () if self.end is None else (self.end,)
        part = (self.collection, *self.key, self.named, self.layer, self.begin, *ended, self.begin, 0)
        group = (self.uid, 0, self.rows, self.rows, 0, None, None)
        return (*part, *group, 8 * self.rows, self.bounds[1], unique, self.begin, None)


@dataclasses.dataclass
class History:
    """What earlier releases did to collections: the fragments that are left of it, and the hunks of each version."""

    live: dict[tuple[int, tuple[int, ...], int], Old] = dataclasses.field(default_factory=dict)
    past: list[Old] = dataclasses.field(default_factory=list)
    hunks: list[tuple[Any, ...]] = dataclasses.field(default_factory=list)

    def put(self, collection: int, version: int, key: tuple[int, ...], rows: int | None, bounds: Any) -> None:
        """Insert or replace a partition; drop it for no rows."""
        gone = [place for layer in (0, 1, 2) if (place := (collection, key, layer)) in self.live]
        ended = [self.close(place, version) for place in gone]
        old = [each for each in ended if each.layer == 0]
        new = []
        if rows is not None:
            new = [Old(collection, key, 0, version, rows, bounds, 0 if bounds[0] is None else bounds[0])]
            self.live[collection, key, 0] = new[0]
        lows, highs = zip(*(each.bounds for each in old + new), strict=True)
        removed, added = (sum(each.rows for each in some) for some in (old, new))
        joined = (None if None in lows else min(lows), None if None in highs else max(highs))
        self.hunks.append((collection, *key, version, 0, 0, removed, added, *joined))

    def compute(self, collection: int, version: int, key: tuple[int, ...], layer: int, known: bool) -> None:
        """Write a layer over the rows of a partition."""
        rows = self.live[collection, key, 0]
        if (collection, key, layer) in self.live:
            self.close((collection, key, layer), version)
        bounds = rows.bounds if known else NOTHING
        self.live[collection, key, layer] = Old(collection, key, layer, version, rows.rows, bounds, rows.named)
        if rows.begin != version:
            self.hunks.append((collection, *key, version, layer, 0, rows.rows, rows.rows, *bounds))

    def keep(self, collection: int, version: int) -> None:
        """Write the immutable variables."""
        place = (collection, (0,) * 6, -1)
        if place in self.live:
            self.close(place, version)
        self.live[place] = Old(*place, version, 0, NOTHING, 0)
        self.hunks.append((*place[:1], *place[1], version, -1, 0, 0, 0, *NOTHING))

    def close(self, place: tuple[int, tuple[int, ...], int], version: int) -> Old:
        ended = self.live.pop(place)
        ended.end = version
        self.past.append(ended)
        return ended


def make_history(seed: int, collections: int = 2, versions: int = 12) -> History:
    """A history of partitions that come, are replaced, dropped and computed upon, in any order and together."""
    random, made = Random(seed), History()
    keys = [(year, month, 0, 0, 0, 0) for year in (0, 2022) for month in range(3)]
    for collection, version in itertools.product(range(1, 1 + collections), range(1, 1 + versions)):
        if random.random() < 0.3:
            made.keep(collection, version)
        for key in random.sample(keys, 3):
            there = (collection, key, 0) in made.live
            if not there or random.random() < 0.5:
                low = random.randint(-1000, 1000)
                bounds = random.choice([NOTHING, *[(low, low + 9)] * 4])
                dropped = there and random.random() < 0.3
                made.put(collection, version, key, None if dropped else random.randint(0, 20), bounds)
            if (collection, key, 0) in made.live:
                for layer in random.sample((1, 2), random.randint(0, 2)):
                    made.compute(collection, version, key, layer, known=random.random() < 0.7)
    return made


def insert_rows(connection: sqlite3.Connection, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    for row in rows:
        values = ", ".join("?" * len(row))
        connection.execute(f'INSERT INTO "{table}" ({", ".join(row)}) VALUES ({values})', tuple(row.values()))


def fill(path: Path, revision: str, history: History) -> None:
    """Make the database of an earlier release with collections 1 and 2 and a history of them."""
    if revision > "0004":
        fill(path, "0004", history)
        make_revision(path, revision)  # it has other columns
        return
    make_revision(path, revision)
    unique = {"axis_unique": 1} if revision >= "0003" else {}
    with closing(sqlite3.connect(path)) as connection, connection:
        insert_collections(connection)
        insert_rows(connection, "fragment", (each.before() | unique for each in history.live.values()))
        insert_rows(connection, "past_fragment", (each.before() | unique for each in history.past))


def insert_collections(connection: sqlite3.Connection) -> None:
    insert_rows(connection, "namespace", [{"id": 1, "name": "made"}])
    texts = {"kind": "collection", "axis": "t", "dimension": "t", "partitioning": "{}", "merge": "refuse"}
    empty = {"description": "", "metadata": "{}", "created_at": "2022-01-01 00:00:00"}
    more = texts | empty | {"namespace_id": 1, "zarr_format": 3, "head_version": 12}
    for id_, name, keys, options in ((1, "a", '["year", "month"]', '{"anon": true}'), (2, "b", '["cycle"]', "{}")):
        itself = {"id": id_, "uid": name, "name": name, "keys": keys, "storage_options": options}
        insert_rows(connection, "collection", [more | itself | {"location": f"s3://data/{name}"}])


def upgrade_file(path: Path) -> None:
    connect(f"sqlite:///{path}", create=True).close()


REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
each_revision = pytest.mark.parametrize("revision", REVISIONS)


@each_revision
def test_a_fragment_of_an_earlier_revision_is_one_part_and_the_whole_of_its_group(
    tmp_path: Path, revision: str
) -> None:
    history, path = make_history(0), tmp_path / "old.db"
    fill(path, revision, history)
    upgrade_file(path)
    unique = 1 if revision >= "0003" else None
    live = [each.after(unique) for each in history.live.values()]
    past = [each.after(unique) for each in history.past]
    assert any(row[8] > 0 for row in live)
    assert any(row[8] < 0 for row in past)
    assert sorted(rows_of(path, "SELECT * FROM fragment"), key=repr) == sorted(live, key=repr)
    assert sorted(rows_of(path, "SELECT * FROM past_fragment"), key=repr) == sorted(past, key=repr)


@pytest.mark.parametrize("seed", range(4))
@each_revision
def test_the_hunks_of_all_versions_tell_what_each_of_them_did(tmp_path: Path, revision: str, seed: int) -> None:
    history, path = make_history(seed), tmp_path / "old.db"
    fill(path, revision, history)
    upgrade_file(path)
    assert {row[8] for row in history.hunks} == {-1, 0, 1, 2}
    assert {(row[10] > 0, row[11] > 0) for row in history.hunks if row[8] == 0} >= {
        (False, True),
        (True, False),
        (True, True),
    }
    assert sorted(rows_of(path, "SELECT * FROM change"), key=repr) == sorted(history.hunks, key=repr)


def test_a_layer_over_rows_that_came_with_it_has_no_hunk_of_its_own(tmp_path: Path) -> None:
    history, path, key = History(), tmp_path / "old.db", (2022, 1, 0, 0, 0, 0)
    history.put(1, 1, key, 10, (0, 9))
    history.compute(1, 1, key, 1, known=True)
    history.compute(1, 2, key, 2, known=True)
    history.put(1, 3, key, 7, (-5, 5))
    history.put(1, 4, key, None, NOTHING)
    fill(path, "0004", history)
    upgrade_file(path)
    assert rows_of(path, "SELECT version, layer_id, removed, added, axis_min, axis_max FROM change ORDER BY 1, 2") == [
        (1, 0, 0, 10, 0, 9),
        (2, 2, 10, 10, 0, 9),
        (3, 0, 10, 7, -5, 9),
        (4, 0, 7, 0, -5, 5),
    ]


@each_revision
def test_an_upgraded_registry_has_the_tables_that_the_code_knows_with_their_columns_in_order(
    tmp_path: Path, revision: str
) -> None:
    path = tmp_path / "old.db"
    fill(path, revision, make_history(1))
    upgrade_file(path)
    with reading(parse_url(f"sqlite:///{path}")) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        assert connection.exec_driver_sql("PRAGMA integrity_check").all() == [("ok",)]
    for name in ("fragment", "past_fragment", "change", "staged", "garbage", "release"):
        columns = [column.name for column in metadata.tables[name].columns]
        assert [row[1] for row in rows_of(path, f"PRAGMA table_info({name})")] == columns


def test_of_what_an_earlier_release_wrote_the_login_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    fill(path, "0005", make_history(0))
    with closing(sqlite3.connect(path)) as connection, connection:
        made = {"collection_id": 1, "version": 0, "committed_at": "2022-01-01", "author": "me", "message": ""}
        insert_rows(connection, "version", [made | {"operation": "create", "summary": "{}"}])
    with connect(f"sqlite:///{path}", create=True) as registry:
        record = next(each for each in registry.collections() if each.id == 1)
        assert [(each.author, each.login) for each in registry.versions(record)] == [("me", None)]
        registry.commit(Commit(record, "rename", updates=(Rename("made/other"),)))
        assert rows_of(path, 'SELECT login FROM "transaction" ORDER BY id DESC LIMIT 1') == [(getpass.getuser(),)]


def set_of(path: Path, statement: str) -> set[Any]:
    return set(rows_of(path, statement))


@each_revision
def test_collections_and_transactions_keep_their_numbers_and_all_that_refers_to_them(
    tmp_path: Path, revision: str
) -> None:
    path = tmp_path / "old.db"
    fill(path, min(revision, "0004"), make_history(0))
    insert_a_writer_at_work(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        attributes = {"collection_id": 2, "begin_version": 0, "attributes": "{}"}
        insert_rows(connection, "dataset_attributes", [attributes])
        times = {"lease_until": "2022-01-01", "created_at": "2022-01-01"}
        ended = {"id": 3, "uid": "e", "state": "committed", "author": "me", "message": "said"} | times
        insert_rows(connection, "transaction", [ended])
        made = {"collection_id": 1, "version": 1, "transaction_id": 3, "committed_at": "2022-01-01", "author": "me"}
        insert_rows(connection, "version", [made | {"message": "", "operation": "insert", "summary": "{}"}])
    if revision > "0004":
        make_revision(path, revision)
    transactions = 'SELECT id, uid, state, lease_until, author, message, created_at FROM "transaction"'
    named = "id, uid, namespace_id, name, kind, location, axis, keys, partitioning, head_version, metadata, created_at"
    asked = [f"SELECT {named} FROM collection", transactions, "SELECT collection_id, version FROM pin"]
    asked += ["SELECT collection_id, transaction_id FROM version", "SELECT collection_id FROM dataset_attributes"]
    before = [set_of(path, statement) for statement in asked]
    assert all(before)
    upgrade_file(path)
    assert [set_of(path, statement) for statement in asked] == before
    with reading(parse_url(f"sqlite:///{path}")) as reader:
        assert reader.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        assert reader.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1  # again
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("DELETE FROM collection WHERE id = 2")  # what refers to it still goes with it
    assert rows_of(path, "SELECT * FROM dataset_attributes") == []


def test_an_upgraded_registry_gives_no_number_again_that_a_row_or_an_intent_has(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    fill(path, "0004", make_history(0))
    make_revision(path, "0005")
    with closing(sqlite3.connect(path)) as connection, connection:
        garbage = {"collection_id": 7, "location": "s3://data/c", "options": "{}", "path": "x"}
        insert_rows(connection, "garbage", [garbage | {"not_before": "2022-01-01"}])
    with connect(f"sqlite:///{path}", create=True) as registry:
        assert create(registry, "made/new").id == 8
        drop(registry, "made/new")
        assert create(registry, "made/new").id == 9


def test_an_upgrade_that_would_leave_a_row_without_the_one_it_refers_to_is_undone(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    fill(path, "0004", make_history(0))
    rows_of(path, "INSERT INTO pin (collection_id, version, lease_until) VALUES (9, 1, '2022-01-01')")
    before = dump(path)
    with pytest.raises(RegistryUnavailableError, match="damaged: row 1 of table pin refers to one of table collection"):
        upgrade_file(path)
    assert dump(path) == before


def insert_a_writer_at_work(path: Path) -> None:
    """A transaction of an earlier release, with a pin and intents; one of these of a collection that is gone."""
    now, uid = "2022-01-01 00:00:00", itertools.count()
    intents = ((1, (2022, 1), 0), (1, (2022, 11), 3), (2, (7,), 0), (1, (), -1), (3, (2022, 1), 0))
    with closing(sqlite3.connect(path)) as connection, connection:
        times = {"lease_until": now, "created_at": now}
        insert_rows(
            connection, "transaction", [{"id": 5, "uid": "t", "state": "open", "author": "", "message": ""} | times]
        )
        insert_rows(connection, "pin", [{"collection_id": 1, "version": 1, "transaction_id": 5, "lease_until": now}])
        for collection, key, layer in intents:
            row = {"transaction_id": 5, "uid": f"u{next(uid)}", "collection_id": collection, "layer_id": layer}
            insert_rows(connection, "staged", [row | dict(zip(KEYS, pad_key(key), strict=True))])


@pytest.mark.parametrize("revision", REVISIONS[:4])  # 0005 has paths
def test_intents_of_an_earlier_revision_name_their_whole_paths_if_their_collection_is_there(
    tmp_path: Path, revision: str
) -> None:
    path = tmp_path / "old.db"
    fill(path, revision, make_history(0))
    insert_a_writer_at_work(path)
    upgrade_file(path)
    a, b = ("s3://data/a", '{"anon": true}'), ("s3://data/b", "{}")
    assert rows_of(path, "SELECT * FROM staged ORDER BY uid") == [
        (5, "u0", 1, *a, "year=2022/month=01/u0", None, None),
        (5, "u1", 1, *a, "year=2022/month=11/u1", None, None),
        (5, "u2", 2, *b, "cycle=7/u2", None, None),
        (5, "u3", 1, *a, "immutable/u3", None, None),
    ]
    assert rows_of(path, "SELECT * FROM garbage") == []


@pytest.mark.parametrize("table", ["fragment", "past_fragment"])
def test_what_an_earlier_release_reads_fails_after_an_upgrade(tmp_path: Path, table: str) -> None:
    path = tmp_path / "old.db"
    fill(path, "0004", make_history(0))
    statement = f"SELECT uid, rows FROM {table}"
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute(statement).fetchall()
        upgrade_file(path)
        with pytest.raises(sqlite3.OperationalError, match="no such column: uid"):
            reader.execute(statement)


def test_a_writer_of_an_earlier_release_sees_the_new_revision_and_can_end(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    fill(path, "0004", make_history(0))
    insert_a_writer_at_work(path)
    with closing(sqlite3.connect(path)) as writer, writer:
        assert writer.execute("SELECT version_num FROM alembic_version").fetchall() == [("0004",)]
        upgrade_file(path)
        assert writer.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD_REVISION,)]
        assert writer.execute("SELECT state FROM \"transaction\" WHERE uid = 't'").fetchall() == [("open",)]
        writer.execute(
            "UPDATE \"transaction\" SET lease_until = '2022-01-02 00:00:00' WHERE uid = 't' AND state = 'open'"
        )
        writer.execute("UPDATE pin SET lease_until = '2022-01-02 00:00:00' WHERE transaction_id = 5")
        writer.execute("UPDATE \"transaction\" SET state = 'aborted' WHERE id = 5")
        writer.execute("DELETE FROM pin WHERE transaction_id = 5")
    assert rows_of(path, 'SELECT state FROM "transaction"') == [("aborted",)]
    assert rows_of(path, "SELECT count(*) FROM pin") == [(0,)]
    assert rows_of(path, "SELECT count(*) FROM staged") == [(4,)]  # for vacuum


def work_of_an_upgrade(path: Path, partitions: int) -> tuple[int, int]:
    """Upgrade a registry of some partitions with a layer, half of them replaced; count statements and steps."""
    history = History()
    for month in range(partitions):
        key = (2022, month, 0, 0, 0, 0)
        history.put(1, 1, key, 10, (month, month))
        history.compute(1, 2, key, 1, known=month % 3 > 0)
        if month % 2:
            history.put(1, 3, key, 10, (month, month))
            history.compute(1, 4, key, 1, known=month % 3 > 0)
    fill(path, "0004", history)
    statements, steps, url = [], itertools.count(), parse_url(f"sqlite:///{path}")

    def record(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        statements.append(statement)

    sa.event.listen(engine_of(url), "before_cursor_execute", record)
    with upgrading(url) as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(lambda: next(steps) < 0, 100)
        upgrade(connection)
        driver.set_progress_handler(None, 0)
    sa.event.remove(engine_of(url), "before_cursor_execute", record)
    return len(statements), next(steps)


def test_an_upgrade_has_as_many_statements_for_any_number_of_partitions_and_steps_in_proportion(
    tmp_path: Path,
) -> None:
    (few, little), (many, much) = (work_of_an_upgrade(tmp_path / f"{n}.db", n) for n in (1000, 4000))
    assert many == few
    assert much < 5 * little  # a look through a table for each row of another would be 16 times as many


# What is kept of an older registry, and told of a newer one


def copies(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.glob(f"{path.name}.*"))


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


@each_revision
def test_an_upgrade_keeps_a_copy_of_the_file_and_says_where(
    tmp_path: Path, revision: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "old.db"
    fill(path, revision, make_history(0))
    before = dump(path)
    with pytest.warns(UserWarning, match=rf"from revision {revision} to {HEAD_REVISION}.*{path}.revision-{revision}"):
        upgrade_file(path)
    assert copies(path) == [f"old.db.revision-{revision}"]
    assert dump(tmp_path / f"old.db.revision-{revision}") == before
    (told,) = [each for each in caplog.records if each.name == "registry.migrations"]
    assert told.levelname == "WARNING"
    assert f"from revision {revision} to {HEAD_REVISION}" in told.message
    assert f"{path}.revision-{revision}" in told.message


def test_a_copy_has_what_is_in_the_write_ahead_log_alone(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    create_database(parse_url(f"sqlite:///{path}"))
    make_revision(path, "0004")
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("INSERT INTO namespace (name) VALUES ('logged')")
        assert (tmp_path / "old.db-wal").stat().st_size > 0
        upgrade_file(path)
    assert rows_of(tmp_path / "old.db.revision-0004", "SELECT name FROM namespace") == [("logged",)]


def test_a_copy_takes_no_other_ones_place_and_may_be_read_by_nobody_else(tmp_path: Path) -> None:
    path, taken = tmp_path / "old.db", tmp_path / "old.db.revision-0004"
    fill(path, "0004", make_history(0))
    path.chmod(0o640)
    taken.write_text("precious")
    upgrade_file(path)
    assert copies(path) == ["old.db.revision-0004", "old.db.revision-0004.2"]
    assert taken.read_text() == "precious"
    assert (tmp_path / "old.db.revision-0004.2").stat().st_mode & 0o777 == 0o640


def test_a_new_registry_has_no_copy_and_an_upgraded_one_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    upgrade_file(new)
    assert (copies(new), caplog.records) == ([], [])
    fill(old, "0004", make_history(0))
    upgrade_file(old)
    caplog.clear()
    before = dump(old)
    upgrade_file(old)
    assert dump(old) == before
    assert (copies(old), caplog.records) == (["old.db.revision-0004"], [])


def test_without_a_copy_nothing_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / f"{'long' * 60}.db"  # with more behind it, it is too long for a file's name
    fill(path, "0004", make_history(0))
    before = dump(path)
    with pytest.raises(RegistryUnavailableError, match=rf"{path} is not upgraded.*no copy"):
        upgrade_file(path)
    assert dump(path) == before
    assert copies(path) == []


def upgrade_with_little_space(path: Path) -> str:
    """Upgrade where no file may be as large as this database."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, limits[1]))
    try:
        upgrade_file(path)
    except RegistryUnavailableError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    return ""


def test_a_copy_that_has_no_space_is_removed_and_nothing_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    fill(path, "0004", make_history(0, versions=100))
    before = dump(path)
    (message,) = in_processes(upgrade_with_little_space, [(path,)])
    assert f"{path} is not upgraded" in message
    assert dump(path) == before
    assert copies(path) == []


def test_an_upgrade_that_fails_leaves_the_registry_as_it_was_and_no_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "old.db"
    fill(path, "0004", make_history(0))
    rows_of(path, "CREATE TABLE change (somebody TEXT)")
    before = dump(path)
    with pytest.raises(RegistryUnavailableError, match="change already exists"):
        upgrade_file(path)
    assert dump(path) == before
    assert (copies(path), caplog.records) == ([], [])


def test_two_processes_that_upgrade_at_once_do_it_once(tmp_path: Path) -> None:
    path, history = tmp_path / "old.db", make_history(0, versions=100)
    fill(path, "0004", history)
    in_processes(upgrade_file, [(path,), (path,)])
    assert copies(path) == ["old.db.revision-0004"]
    assert rows_of(path, "SELECT count(*) FROM change") == [(len(history.hunks),)]
    assert rows_of(path, "SELECT * FROM alembic_version") == [(HEAD_REVISION,)]


def test_a_newer_registry_names_the_release_that_reads_it(registry: Registry, sql: Sql) -> None:
    sql("UPDATE alembic_version SET version_num = '0099'")
    sql("INSERT INTO release (revision, release) VALUES ('0099', '0.7.1')")
    for create_ in (False, True):
        with pytest.raises(RegistryRevisionError, match=r"0099 and is newer than this release .*>=0\.7\.1'"):
            connect(registry.url, create=create_)


@pytest.mark.parametrize("statement", ["DELETE FROM release", "DROP TABLE release"])
def test_a_newer_registry_that_names_no_release_is_newer_all_the_same(
    registry: Registry, sql: Sql, statement: str
) -> None:
    sql(statement)
    sql("UPDATE alembic_version SET version_num = '0099'")
    with pytest.raises(RegistryRevisionError, match=r"newer than this release .* upgrade intake-zcollection$"):
        connect(registry.url)


def test_the_release_that_reads_the_newest_revision_is_not_later_than_this_one(sql: Sql) -> None:
    ((release,),) = sql("SELECT release FROM release WHERE revision = ?", HEAD_REVISION)
    assert Version(release) <= Version(importlib.metadata.version("intake-zcollection"))


def test_postgres_alters_the_tables_of_fragments_and_keeps_their_rows() -> None:
    text = render("postgresql").partition("-> 0005")[2]
    assert "DROP TABLE" not in text
    for table, end in (("fragment", ""), ("past_fragment", ", end_version")):
        assert f"ALTER TABLE {table} RENAME uid TO group_uid" in text
        assert f"PRIMARY KEY (collection_id, k0, k1, k2, k3, k4, k5, axis_min, layer_id{end})" in text
        added = set(re.findall(rf"ALTER TABLE {table} ADD COLUMN (\w+)", text))
        columns = {column.name for column in metadata.tables[table].columns}
        assert columns - added == {"group_uid", *set(columns) & old_columns(table)}
    order = ["DROP VIEW current_partition", "LOCK TABLE fragment", "INSERT INTO change", "RENAME uid", "CREATE VIEW"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)


def old_columns(table: str) -> set[str]:
    """The columns of the first revision, and of the third."""
    created = re.search(rf"CREATE TABLE {table} \((.*?)\n\)", render("postgresql"), re.DOTALL)
    assert created is not None
    return {*re.findall(r"^ +(\w+) (?:BIGINT|INTEGER|VARCHAR|TEXT)", created[1], re.MULTILINE), "axis_unique"}


# Statements


def statements(registry: Registry) -> dict[str, list[Any]]:
    """Each builder of a SELECT by its name, and what it builds."""
    collection = create(registry)
    write(registry, collection, fragment(2022, 1))
    collection = registry.collection("made/a")
    selection = Selection(
        parse_predicate("year // 2 == 1011 and month % 2 != -1", collection.keys),
        axis_range=(0, 9),
        keys=[(2022, 1), (2022, 2)],
    )
    return {
        "collections_query": [queries.collections_query()],
        "collection_query": [queries.collection_query()],
        "matching_collections_query": [queries.matching_collections_query("made", "50%", "ssh")],
        "variables_query": [queries.variables_query()],
        "attributes_query": [queries.attributes_query()],
        "fragments_query": [
            fragments.fragments_query(collection, version, each)
            for version in (0, 1)
            for each in (selection, dataclasses.replace(selection, parts=True), Selection(), Selection(keys=[]))
        ],
        "immutable_query": [fragments.immutable_query()],
        "live_query": [fragments.live_query()],
        "last_changes_query": [hunks.last_changes_query(collection, 1, of_keys=of_keys) for of_keys in (False, True)],
        "changing_versions_query": [
            hunks.changing_versions_query(collection, each) for each in (selection, Selection())
        ],
        "hunks_query": [hunks.hunks_query()],
        "hunks_of_keys_query": [hunks.hunks_of_keys_query()],
        "head_query": [queries.head_query()],
        "layers_query": [queries.layers_query()],
        "keys_between_query": [fragments.keys_between_query()],
        "versions_query": [queries.versions_query(1, some=some) for some in (False, True)],
        "version_query": [queries.version_query()],
        "sources_query": [queries.sources_query()],
    }


def test_every_query_compiles_for_postgres(registry: Registry) -> None:
    made = statements(registry)
    assert set(made) == {name for each in (queries, fragments, hunks) for name in vars(each) if name.endswith("_query")}
    for built in made.values():
        for statement in built:
            assert on_postgres(statement, compile_kwargs={"render_postcompile": True}).startswith("SELECT")


@pytest.fixture
def executed(registry: Registry) -> Iterator[list[str]]:
    """All statements that are executed on the registry, as Postgres would get them."""
    texts: list[str] = []

    def record(_connection: Any, statement: Any, many: Any, one: Any, _options: Any) -> None:
        parameters = [dict(each) for each in [*many, one] if each]
        texts.append(" ".join(on_postgres(statement, column_keys=list(parameters[0]) if parameters else None).split()))

    engine = engine_of(parse_url(registry.url))
    sa.event.listen(engine, "before_execute", record)
    yield texts
    sa.event.remove(engine, "before_execute", record)


def live_a_full_life(registry: Registry) -> None:
    a, b = create(registry), create(registry, "made/b")
    immutable = fragment(layer=-1)
    assert slot_of(immutable) == IMMUTABLE_SLOT
    write(registry, a, fragment(2022, 1), fragment(2022, 1, layer=1), immutable)
    rows, again = fragment(2022, 1), fragment(layer=-1)
    with registry.begin((a, 1)) as transaction:
        transaction.stage(a, intents(rows, again))
        transaction.commit([change(a, rows, again), change(b, fragment(1, 1))])
    with pytest.raises(ConflictError):
        commit(registry, change(a, rows, requires={slot(2022, 1): None}))
    registry.collections(namespace="made", text="a", variable="ssh")
    registry.resolve("made/a", version=1, filters="month == 1", axis_range=(0, 1), keys=[(2022, 1)])
    registry.versions("made/a")
    add_a_variable_from_a_source(registry, a)
    registry.known_sources("made/a", ["a.nc"])
    layer = fragment(2022, 1, layer=frozenset({1}))
    commit(registry, change(b, layer, variables=frozenset({1}), ranges=(((3,) * 6, (4,) * 6), (None, (0,) * 6))))
    index_and_know(registry, b)
    edited = SchemaRecord(registry.resolve("made/b").schema.variables[:1], {"title": "other"})
    registry.commit(Commit(b, "edit", updates=(EditSchema(lambda schema: edited),)))
    january = ClosePartitions(Selection.of("month == 1", b.keys), dt.datetime.now(dt.UTC))
    registry.commit(Commit(b, "drop_partitions", updates=(january,)))
    registry.rename_collection("made/b", "other/c")
    drop(registry, "other/c")


def index_and_know(registry: Registry, collection: CollectionRecord) -> None:
    """Have an index, drop it, and have statistics."""
    index = IndexRecord("f" * 32, "parity", {"parity": "integer"}, {0: "ssh"})
    rows = fragment(1, 1)
    entries = (Entry(index.uid, "e" * 32, 0, 10, 0, 9, (1,)),)
    known = (Statistic(rows.uid, 0, 0, 10, 1.0, 2.0, 0),)
    put = PutFragments((rows, fragment(1, 1, layer=index.uid, uid="e" * 32)), (), whole(rows), entries, known)
    commit(registry, Commit(collection, "index", updates=(CreateIndex(index), put)))
    found = registry.look_up(collection, None, registry.indexes(collection)[0], Wanted({"parity": Choice(low=1)}))
    assert len(found.rows) == 1
    commit(registry, Commit(collection, "drop_index", updates=(DropIndex("parity"),)))


def add_a_variable_from_a_source(registry: Registry, collection: CollectionRecord) -> None:
    schema = registry.resolve(collection.name).schema
    added = dataclasses.replace(schema.variables[0], id=schema.next_id, name="added", stored_name="added")
    adding = SchemaUnchanged(schema.next_id, frozenset({"added"})), SourcesUnchanged({"a.nc": None})
    source = RememberSources((Source("a.nc", "1"),))
    commit(registry, change(collection, fragment(2023, 1), others=adding, before=(source, AddVariables((added,)))))
    commit(registry, change(collection, fragment(2023, 1), before=(source,)))  # it is known already


def test_every_statement_of_a_life_compiles_for_postgres_and_locks_what_it_must(
    registry: Registry, executed: list[str]
) -> None:
    live_a_full_life(registry)
    written = {text.split(" (")[0] for text in executed if text.startswith("INSERT")}
    tables = {table.name for table in metadata.tables.values()} - {
        "queue",
        "release",
        "tag",
        "tag_member",
        *(name for name in metadata.tables if name.startswith("view_")),  # of which tests of views write
    }
    assert written == {f"INSERT INTO {POSTGRES.identifier_preparer.quote(name)}" for name in tables}
    assert any("clock_timestamp()" in text for text in executed)
    assert any("FROM transaction WHERE" in text and text.endswith("FOR UPDATE") for text in executed)
    locks = [text for text in executed if text.endswith("FOR NO KEY UPDATE")]
    assert locks
    assert all("FROM collection" in text and "ORDER BY collection.id" in text for text in locks)
