"""What is asked of few partitions costs the same however many there are: nothing looks at the whole collection.

Of SQLite alone, which plans without statistics here: nobody runs ANALYZE. Steps are those of its virtual machine.
"""

import datetime as dt
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.engine import make_url

from registry import (
    CollectionRecord,
    Cut,
    Filters,
    Identity,
    IndexRecord,
    Kept,
    KeyValues,
    Registry,
    Run,
    Selection,
    connect,
    pad_key,
    parse_predicate,
)
from registry.changes import ClosePartitions, Commit, NoOtherPart, NothingBetween, PutFragments, Unchanged
from registry.indexes import Choice, Wanted
from registry.sql.engine import engine_of, parse_url, reading
from registry.sql.entries import entries_query
from registry.sql.hunks import read_hunks_of

from .conftest import change, commit, create, fragment

VERSIONS = 60
OLD = 30
MONTHS = 12
SMALL, LARGE = 210, 2100
"""Years: of each month two parts with a layer over them are live, and as much is past; 100,800 rows in each table."""

ENOUGH = 1_000_000
"""More steps than any of the questions here takes."""

FILL = """
WITH RECURSIVE
  years(k0) AS (SELECT 0 UNION ALL SELECT k0 + 1 FROM years WHERE k0 < {years} - 1),
  months(k1) AS (SELECT 1 UNION ALL SELECT k1 + 1 FROM months WHERE k1 < 12),
  parts(axis_min) AS (VALUES (0), (10)),
  layers(layer_id) AS (VALUES (0), (1)),
  made AS (SELECT *, 2 + (12 * k0 + k1) % {half} AS early FROM years, months, parts, layers)
"""
LIVE = """
INSERT INTO fragment
SELECT 1, k0, k1, 0, 0, 0, 0, axis_min, layer_id, early + {half}, early + {half}, 0, hex(randomblob(16)), axis_min, 10,
       20, 0, NULL, NULL, 80, axis_min + 9, 1, 1, NULL FROM made
"""
PAST = """
INSERT INTO past_fragment
SELECT 1, k0, k1, 0, 0, 0, 0, axis_min, layer_id, early, early + {half}, early, 0, hex(randomblob(16)), axis_min, 10,
       20, 0, NULL, NULL, 80, axis_min + 9, 1, 1, NULL FROM made
"""
CHANGES = """
INSERT INTO change SELECT 1, k0, k1, 0, 0, 0, 0, early, layer_id, axis_min, 0, 10, axis_min, axis_min + 9 FROM made
UNION ALL
SELECT 1, k0, k1, 0, 0, 0, 0, early + {half}, layer_id, axis_min, 10, 10, axis_min, axis_min + 9 FROM made
"""


def fill(path: Path, years: int) -> None:
    """Make a collection with a history; every key has the same."""
    with connect(f"sqlite:///{path}") as registry:
        create(registry)
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in (LIVE, PAST, CHANGES):
            connection.execute(f"{FILL} {statement}".format(years=years, half=VERSIONS // 2 - 1))
        connection.execute("INSERT INTO layer (collection_id, id, variable_ids) VALUES (1, 1, '[1]')")
        connection.execute(
            "INSERT INTO fragment SELECT 1, 0, 0, 0, 0, 0, 0, 0, -1, 1, 1, 0, 'grid', 0, 0, 0, 0, NULL, NULL, 8, NULL, "
            "NULL, 1, NULL"
        )
        connection.executemany(
            "INSERT INTO version (collection_id, version, committed_at, author, message, operation, summary) "
            "SELECT 1, ?, '2022-01-01 00:00:00', 'me', '', 'insert', '{}'",
            [(number,) for number in range(1, VERSIONS + 1)],
        )
        connection.execute("UPDATE collection SET head_version = ?", (VERSIONS,))


@pytest.fixture(scope="module")
def filled(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The files of a small and a large collection."""
    paths = {}
    for years in (SMALL, LARGE):
        paths[years] = tmp_path_factory.mktemp("filled") / "registry.db"
        shutil.copyfile(empty_database, paths[years])
        fill(paths[years], years)
    with closing(sqlite3.connect(paths[LARGE])) as connection:
        for table in ("fragment", "past_fragment", "change"):
            assert connection.execute(f"SELECT count(*) >= 100000 FROM {table}").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_stat1'").fetchone() == (0,)
    return paths


@dataclass
class Seen:
    """What the database did."""

    steps: int = 0
    statements: list[tuple[str, Any]] = field(default_factory=list)


@contextmanager
def watching(registry: Registry) -> Iterator[Seen]:
    """Count the steps of all statements, and keep them."""
    seen, watched = Seen(), set()

    def count() -> int:
        seen.steps += 1
        return seen.steps > ENOUGH  # who scans is stopped, since counting slows it down

    def watch(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if cursor.connection not in watched:
            watched.add(cursor.connection)
            cursor.connection.set_progress_handler(count, 1)
        seen.statements.append((statement, parameters[0] if many else parameters))

    engine = engine_of(parse_url(registry.url))
    sa.event.listen(engine, "before_cursor_execute", watch)
    try:
        yield seen
    finally:
        sa.event.remove(engine, "before_cursor_execute", watch)
        for connection in watched:
            connection.set_progress_handler(None, 1)


BIG = re.compile(r"(?:SEARCH|SCAN) (?:fragment|past_fragment|change)\b(.*)")


def looked_at(registry: Registry, seen: Seen) -> list[str]:
    """How the large tables are looked at by the statements that were seen."""
    with closing(sqlite3.connect(str(make_url(registry.url).database))) as connection:
        found = []
        for statement, parameters in seen.statements:
            if statement.startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
                plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
                found += [line[-1] for line in plan if BIG.match(line[-1])]
        return found


Question = Callable[[Registry], object]


def some(number: int) -> list[KeyValues]:
    """Keys that are there, in no order."""
    keys: list[KeyValues] = [(year, month) for month in range(1, MONTHS + 1) for year in range(100, 150)]
    return keys[:number]


def of_keys(number: int, version: int | None = None, **selection: Any) -> Question:
    def ask(registry: Registry) -> object:
        chosen = Selection(keys=some(number), **selection)
        found = registry.resolve("made/a", version=version, selection=chosen).partitions
        assert len(found) == number
        return found

    return ask


def within(first: KeyValues | None, last: KeyValues | None, version: int | None, expected: int) -> Question:
    def ask(registry: Registry) -> object:
        limits = tuple(None if each is None else pad_key(each) for each in (first, last))
        found = registry.resolve("made/a", version=version, selection=Selection(key_range=limits)).partitions  # type: ignore[arg-type]
        assert len(found) == expected
        return found

    return ask


def where(filters: str, version: int | None, expected: int) -> Question:
    def ask(registry: Registry) -> object:
        found = registry.partitions("made/a", filters=filters, version=version)
        assert len(found) == expected
        return found

    return ask


def committing(make: Callable[[CollectionRecord, Registry], Commit]) -> Question:
    """A whole write: its transaction begins, stages and commits."""

    def ask(registry: Registry) -> object:
        with registry.begin() as transaction:
            collection = registry.collection("made/a")
            transaction.stage(collection, [("0" * 32, "made/0")])
            (version,) = transaction.commit([make(collection, registry)])
        assert version.number == VERSIONS + 1
        return version

    return ask


KEY = pad_key((100, 5))


def write_a_part(collection: CollectionRecord, registry: Registry) -> Commit:
    run = (20, 29)
    written = fragment(100, 5, axis_min=20, axis_max=29)
    needs = (NoOtherPart(((KEY, *run),)),)
    return Commit(collection, "insert", needs, (PutFragments((written,), (), (Run(KEY, run),)),))


def cut_a_part(collection: CollectionRecord, registry: Registry) -> Commit:
    (found,) = registry.partitions(collection, keys=[(100, 5)])
    known = {each.slot: Identity(each.uid, each.start, each.rows) for each in found.fragments}
    run = (4, 5)
    cut = Cut(KEY, 0, (Kept(0, 4, 0, 3), Kept(6, 4, 6, 9)))
    needs = Unchanged(known), NoOtherPart(((KEY, *run),), frozenset({(KEY, 0)}))
    written = fragment(100, 5, axis_min=4, axis_max=5)
    return Commit(collection, "insert", needs, (PutFragments((written,), (cut,), (Run(KEY, run),)),))


def replace_a_partition(collection: CollectionRecord, registry: Registry) -> Commit:
    return change(collection, fragment(100, 5))


def compute_a_layer(collection: CollectionRecord, registry: Registry) -> Commit:
    layers = [fragment(100, 5, layer=frozenset({1}), axis_min=low, axis_max=low + 9) for low in (0, 10)]
    between = pad_key((100, 4)), pad_key((100, 6))
    known = frozenset(pad_key((100, month)) for month in (4, 5, 6))
    return change(collection, *layers, others=(NothingBetween((between,), known),))


def write_the_immutables(collection: CollectionRecord, registry: Registry) -> Commit:
    return change(collection, fragment(layer=-1))


def drop(filters: str, before: dt.datetime | None = None) -> Callable[[CollectionRecord, Registry], Commit]:
    def make(collection: CollectionRecord, registry: Registry) -> Commit:
        update = ClosePartitions(Selection.of(filters, collection.keys), before)
        return Commit(collection, "drop_partitions", updates=(update,))

    return make


def changes(number: int, version: int) -> Question:
    def ask(registry: Registry) -> object:
        found = registry.changes("made/a", version, some(number))
        assert len(found) == number
        return found

    return ask


def versions(filters: Filters) -> Question:
    def ask(registry: Registry) -> object:
        found = registry.versions("made/a", filters=filters)
        assert len(found) == 2
        return found

    return ask


def hunks_since(number: int) -> Question:
    """What a view asks: of each partition, what was done to it since a version of its own."""

    def ask(registry: Registry) -> object:
        since = {pad_key(key): place % 3 for place, key in enumerate(some(number))}
        with reading(registry._url) as connection:
            found = read_hunks_of(connection, registry.collection("made/a"), since, VERSIONS)
        assert len(found) == number
        return found

    return ask


QUESTIONS: dict[str, Question] = {
    **{f"{n} keys": of_keys(n) for n in (1, 2, 20, 500, 501)},
    **{f"{n} keys of an old version": of_keys(n, OLD + 5) for n in (1, 2, 20, 500, 501)},
    "keys and an axis range": of_keys(20, None, axis_range=(5, 15)),
    "keys and an axis range of an old version": of_keys(20, OLD + 5, axis_range=(5, 15)),
    "keys and an axis range of parts": of_keys(20, None, axis_range=(5, 15), parts=True),
    "keys and a predicate": of_keys(20, None, predicate=parse_predicate("year >= 0", ("year", "month"))),
    "keys and a range of keys": of_keys(20, None, key_range=((0,) * 6, pad_key((LARGE, 12)))),
    "no keys": of_keys(0),
    "no keys of an old version": of_keys(0, OLD + 5),
    **{
        f"{name}{' of an old version' if version else ''}": question
        for version in (None, OLD + 5)
        for name, question in {
            "one key by its range": within((100, 5), (100, 5), version, 1),
            "a range of keys": within((100, 5), (101, 4), version, 12),
            "the first keys": within(None, (1, 12), version, 24),
            "one key by a predicate": where("year == 100 and month == 5", version, 1),
            "some keys by a predicate": where("year == 100 and month in (5, 6)", version, 2),
            "a range of keys by a predicate": where("year == 100 and month > 10", version, 2),
            "a leading key by a predicate": where("year in (100, 101)", version, 24),
        }.items()
    },
    **{f"the last changes of {n} keys": changes(n, VERSIONS) for n in (1, 2, 20, 500, 501)},
    "the last changes up to an old version": changes(20, VERSIONS - 1),
    **{f"the hunks of {n} keys": hunks_since(n) for n in (1, 2, 20, 500)},
    "the versions that touched a partition": versions("year == 100 and month == 5"),
    "the versions that touched a key": versions((("year", 100), ("month", 5))),
    "a version": lambda registry: registry.version("made/a", OLD),
    "the head": lambda registry: registry.version("made/a"),
    "writing a part": committing(write_a_part),
    "cutting a part": committing(cut_a_part),
    "replacing a partition": committing(replace_a_partition),
    "computing a layer": committing(compute_a_layer),
    "writing the immutables": committing(write_the_immutables),
    "dropping a partition": committing(drop("year == 100 and month == 5")),
    "dropping partitions before": committing(
        drop("year == 100 and month in (5, 6)", dt.datetime(2023, 1, 1, tzinfo=dt.UTC))
    ),
}


@pytest.fixture
def sizes(filled: dict[int, Path], tmp_path: Path) -> Iterator[dict[int, Registry]]:
    """The small and the large collection, as nobody has touched them."""
    found = {}
    for years, path in filled.items():
        shutil.copyfile(path, tmp_path / f"{years}.db")
        found[years] = connect(f"sqlite:///{tmp_path}/{years}.db")
    yield found
    for registry in found.values():
        registry.close()


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_is_asked_of_few_keys_costs_the_same_of_ten_times_as_many(sizes: dict[int, Registry], name: str) -> None:
    seen = {}
    for years, registry in sizes.items():
        with watching(registry) as seen[years]:
            QUESTIONS[name](registry)
    small, large = seen[SMALL].steps, seen[LARGE].steps
    assert small > 0
    assert abs(large - small) <= 0.1 * small, [statement for statement, _ in seen[LARGE].statements]


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_is_asked_of_few_keys_is_looked_up_by_the_primary_key(sizes: dict[int, Registry], name: str) -> None:
    with watching(sizes[LARGE]) as seen:
        QUESTIONS[name](sizes[LARGE])
    for line in looked_at(sizes[LARGE], seen):
        assert re.search(r"USING PRIMARY KEY \(collection_id=\? AND (k0[=><]|\(k0)", line), line


def what_a_write_changed(registry: Registry) -> object:
    """Write a part, and ask what that has changed."""
    committing(write_a_part)(registry)
    head = registry.collection("made/a").head_version
    found = registry.diff("made/a", head - 1).partitions
    assert len(found) == 1
    return found


def test_what_a_version_changed_costs_the_same_of_ten_times_as_many(sizes: dict[int, Registry]) -> None:
    seen = {}
    for years, registry in sizes.items():
        with watching(registry) as seen[years]:
            what_a_write_changed(registry)
    assert seen[LARGE].steps <= 1.1 * seen[SMALL].steps, [statement for statement, _ in seen[LARGE].statements]


LATER = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 10000)
"""
HISTORY = {
    "past_fragment": """
SELECT 1, k0, k1, 0, 0, 0, 0, axis_min, layer_id, n + 59, n + 60, n + 59, 0, group_uid, start, rows, group_rows, 0,
       NULL, NULL, nbytes, axis_max, 1, 1, NULL
FROM fragment, numbers WHERE collection_id = 1 AND k0 = 100 AND k1 = 5 AND axis_min = 0
""",
    "change": "SELECT 1, 100, 5, 0, 0, 0, 0, n + 60, 0, 0, 10, 10, 0, 9 FROM numbers",
    "version": "SELECT 1, n + 60, NULL, NULL, '2022-01-01', NULL, 'me', '', 'insert', '{}', NULL, NULL FROM numbers",
}


def ask_for_the_last_change(registry: Registry) -> object:
    return registry.changes("made/a", registry.collection("made/a").head_version, [(100, 5)])


def cut_again(registry: Registry) -> object:
    return commit(registry, cut_a_part(registry.collection("made/a"), registry))


def ask_for_the_versions_of_another(registry: Registry) -> object:
    found = registry.versions("made/a", filters="year == 100 and month == 6")
    assert len(found) == 2
    return found


@pytest.mark.parametrize(
    "ask", [cut_again, ask_for_the_last_change, ask_for_the_versions_of_another, of_keys(20), QUESTIONS["the head"]]
)
def test_what_is_asked_of_the_head_costs_the_same_however_often_a_part_was_written(
    filled: dict[int, Path], tmp_path: Path, ask: Question
) -> None:
    steps = []
    for often in (False, True):
        path = tmp_path / f"{often}.db"
        shutil.copyfile(filled[SMALL], path)
        with closing(sqlite3.connect(path)) as connection, connection:
            for table, select in HISTORY.items() if often else ():
                connection.execute(f"{LATER} INSERT INTO {table} {select}")
            connection.execute("UPDATE collection SET head_version = (SELECT max(version) FROM version)")
        with connect(f"sqlite:///{path}") as registry, watching(registry) as seen:
            ask(registry)
        steps.append(seen.steps)
    assert abs(steps[1] - steps[0]) <= 0.1 * steps[0]


def test_the_totals_of_the_head_are_summed_in_the_order_of_the_keys(sizes: dict[int, Registry]) -> None:
    with watching(sizes[SMALL]) as seen:
        found = sizes[SMALL].totals("made/a")
    assert (found.partitions, found.rows, found.bounds) == (SMALL * MONTHS, SMALL * MONTHS * 20, (0, 19))
    with closing(sqlite3.connect(str(make_url(sizes[SMALL].url).database))) as connection:
        statement, parameters = seen.statements[-1]
        plan = [line[-1] for line in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    assert "SEARCH fragment USING PRIMARY KEY (collection_id=?)" in plan
    assert not [line for line in plan if "TEMP B-TREE" in line]


HALF_ORBIT = IndexRecord("f" * 32, "half_orbit", {"cycle": "integer", "name": "text"}, {0: "ssh"}, id=-2)

WANTED = {
    "a value": {"cycle": Choice(frozenset([3]))},
    "values": {"cycle": Choice(frozenset([3, 4])), "name": Choice(frozenset(["a"]))},
    "a range": {"cycle": Choice(None, 3, 9)},
    "text": {"name": Choice(None, "a", "b")},
}


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("version", [VERSIONS, OLD])
def test_entries_are_looked_up_by_their_values_and_fragments_by_the_entries(
    filled: dict[int, Path], version: int, wanted: str
) -> None:
    """Its planner takes all of the collection to be as good as what a uid or a value finds, unless it is told."""
    with connect(f"sqlite:///{filled[SMALL]}") as registry:
        query = entries_query(registry.collection("made/a"), version, HALF_ORBIT, Wanted(WANTED[wanted]))
        text = str(query.compile(dialect=sqlite_dialect(), compile_kwargs={"literal_binds": True}))
    with closing(sqlite3.connect(filled[SMALL])) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]
    steps = [step for step in plan if step.startswith(("SEARCH", "SCAN"))]
    assert len(steps) == (3 if version == VERSIONS else 6)
    entries = r"index_entry USING INDEX ix_index_entry_\w+ \(collection_id=\? AND layer_id=\? AND [vt]\d"
    fragments = r"fragment_collection_id_group_uid \(collection_id=\? AND group_uid=\?\)"
    assert all(re.search(f"{entries}|{fragments}", step) for step in steps), plan
