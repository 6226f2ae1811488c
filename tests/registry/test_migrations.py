"""The tables and views that migrations make, and every statement on Postgres, which spells some differently."""

import dataclasses
import datetime as dt
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from registry import (
    IMMUTABLE_SLOT,
    CollectionRecord,
    ConflictError,
    Registry,
    RegistryRevisionError,
    SchemaRecord,
    Selection,
    Source,
    SourceRecord,
    connect,
    parse_predicate,
)
from registry.changes import (
    AddVariables,
    ClosePartitions,
    Commit,
    EditSchema,
    RememberSources,
    SchemaUnchanged,
    SourcesUnchanged,
)
from registry.migrations import HEAD_REVISION, render
from registry.sql import queries
from registry.sql.engine import engine_of, parse_url, reading
from registry.sql.tables import metadata

from .conftest import Sql, change, commit, create, fragment, intents, slot, slot_of, write

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
        registry.drop_collection("made/b")
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


def test_migrations_make_the_same_keys_checks_and_options_too(registry: Registry, tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/metadata.db")
    metadata.create_all(engine)
    engine.dispose()
    migrated = parts_of_tables(tmp_path / "registry.db")
    migrated.pop("alembic_version")
    assert migrated == parts_of_tables(tmp_path / "metadata.db")


def test_migrations_rendered_for_sqlite_make_the_same_database(registry: Registry, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "rendered.db")) as connection:
        connection.executescript(render("sqlite"))
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [(HEAD_REVISION,)]
        assert connection.execute("SELECT * FROM current_partition, history").fetchall() == []
    assert parts_of_tables(tmp_path / "rendered.db") == parts_of_tables(tmp_path / "registry.db")


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


# Statements


def statements(registry: Registry) -> dict[str, list[Any]]:
    """Each builder of ``queries`` by its name, and what it builds."""
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
            queries.fragments_query(collection, version, each)
            for version in (0, 1)
            for each in (selection, Selection(), Selection(keys=[]))
        ],
        "immutable_query": [queries.immutable_query()],
        "head_query": [queries.head_query()],
        "layers_query": [queries.layers_query()],
        "keys_between_query": [
            queries.keys_between_query(1, limits) for limits in [((0,) * 6, (1,) * 6), (None, None)]
        ],
        "versions_query": [queries.versions_query(1)],
        "version_query": [queries.version_query()],
        "sources_query": [queries.sources_query(1, ["a.nc"])],
        "live_uids_query": [queries.live_uids_query(1, [(2022, 1, 0, 0, 0, 0)])],
    }


def test_every_query_compiles_for_postgres(registry: Registry) -> None:
    made = statements(registry)
    assert set(made) == {name for name in vars(queries) if name.endswith(("_query", "_queries"))}
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
    edited = SchemaRecord(registry.resolve("made/b").schema.variables[:1], {"title": "other"})
    registry.commit(Commit(b, "edit", updates=(EditSchema(lambda schema: edited),)))
    january = ClosePartitions(Selection.of("month == 1", b.keys), dt.datetime.now(dt.UTC))
    registry.commit(Commit(b, "drop_partitions", updates=(january,)))
    registry.rename_collection("made/b", "other/c")
    registry.drop_collection("other/c")


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
    tables = {table.name for table in metadata.tables.values()} - {"garbage", "tag", "tag_member"}
    assert written == {f"INSERT INTO {POSTGRES.identifier_preparer.quote(name)}" for name in tables}
    assert any("clock_timestamp()" in text for text in executed)
    assert any("FROM transaction WHERE" in text and text.endswith("FOR UPDATE") for text in executed)
    locks = [text for text in executed if text.endswith("FOR NO KEY UPDATE")]
    assert locks
    assert all("FROM collection" in text and "ORDER BY collection.id" in text for text in locks)


def test_a_commit_locks_before_it_compares_and_reads_the_clock_after_the_locks(
    registry: Registry, executed: list[str]
) -> None:
    collection = create(registry)
    with registry.begin() as transaction:
        executed.clear()
        transaction.commit([change(collection, fragment(2022, 1), requires={slot(2022, 1): None})])
    order = ["FOR UPDATE", "FOR NO KEY UPDATE", "clock_timestamp()", "FROM fragment", "INSERT INTO fragment"]
    places = [next(i for i, text in enumerate(executed) if words in text) for words in order]
    assert places == sorted(places)


# The views, a public contract


@pytest.fixture
def history_of_two(registry: Registry) -> Registry:
    """Two collections: one with two versions, a layer and an immutable fragment; one with one."""
    a, b = create(registry), create(registry, "made/b")
    write(registry, a, fragment(2022, 1), fragment(2022, 2), fragment(layer=-1))
    write(registry, a, fragment(2022, 2, rows=7, nbytes=56, axis_min=-5, axis_max=5), fragment(2022, 1, layer=1))
    commit(registry, change(b, fragment(12, 345), operation="update"), author="me", message="corrected")
    return registry


def test_current_partition_has_one_row_per_partition_of_the_head(history_of_two: Registry, sql: Sql) -> None:
    columns = (
        "namespace, collection, version, k0, k1, k2, k3, k4, k5, rows, nbytes, axis_min, axis_max, changed_in, uid"
    )
    rows = sql("SELECT * FROM current_partition ORDER BY namespace, collection, k0, k1")
    assert rows == sql(f"SELECT {columns} FROM current_partition ORDER BY namespace, collection, k0, k1")
    expected = []
    for collection in history_of_two.collections():
        for partition in history_of_two.partitions(collection.name):
            rows_fragment = partition.fragments[0]
            key = (*rows_fragment.key, 0, 0, 0, 0)
            size = (partition.rows, rows_fragment.nbytes, *partition.bounds)
            changed = (rows_fragment.begin_version, rows_fragment.uid)
            expected.append((*collection.name.split("/"), collection.head_version, *key, *size, *changed))
    assert rows == expected
    assert len(rows) == 3


def test_history_has_one_row_per_version(history_of_two: Registry, sql: Sql) -> None:
    columns = "namespace, collection, version, committed_at, author, operation, message, summary"
    rows = sql("SELECT * FROM history ORDER BY namespace, collection, version")
    assert rows == sql(f"SELECT {columns} FROM history ORDER BY namespace, collection, version")
    recorded = [version for name in ("made/a", "made/b") for version in history_of_two.versions(name)]
    assert [(f"{row[0]}/{row[1]}", row[2], *row[4:7]) for row in rows] == [
        (each.collection, each.number, each.author, each.operation, each.message) for each in recorded
    ]
    assert [row[3] for row in rows] == [f"{each.committed_at:%Y-%m-%d %H:%M:%S.%f}" for each in recorded]
    assert rows[-1][4:] == ("me", "update", "corrected", '{"created": 1}')
