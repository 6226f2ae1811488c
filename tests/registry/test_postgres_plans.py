"""What is asked of few partitions is looked up in Postgres too, whether it has statistics or none yet.

It plans by them, and before the first ANALYZE it guesses; autovacuum, which would come in between, is off here.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa

from registry import Registry, connect
from registry.sql.engine import engine_of, parse_url
from tests.postgres import PostgresServer
from tests.postgres import connect as connect_to

from .conftest import create
from .test_hot_queries import MONTHS, QUESTIONS, VERSIONS, what_a_write_changed

BIG = ("fragment", "past_fragment", "change")

YEARS = 1680
"""Of the large collection: 20,160 partitions, each with a live part and a past one."""

FULL = 160
"""So many of the years have two parts with a layer over each."""

SMALL = 300
"""So many collections are beside it, of twelve partitions each."""

MADE = f"""
FROM generate_series(0, {YEARS - 1}) AS k0, generate_series(1, {MONTHS}) AS k1,
     LATERAL (SELECT 0 AS low, 0 AS layer_id UNION ALL
              SELECT low, layer_id FROM (VALUES (0, 1), (10, 0), (10, 1)) AS more(low, layer_id)
              WHERE k0 < {FULL}) AS slots,
     (SELECT {VERSIONS // 2 - 1} AS half) AS constants, LATERAL (SELECT 2 + (12 * k0 + k1) % half AS early) AS versions
"""
KEYS = "collection_id, k0, k1, k2, k3, k4, k5"
COLUMNS = (
    f"{KEYS}, axis_min, layer_id, begin_version, written_version, schema_version, group_uid, start, rows, group_rows, "
    "packed, nbytes, axis_max, axis_unique, transaction_id"
)
FRAGMENT = "0, md5(concat(k0, k1, begun)), low, 10, 20, false, 80, low + 9, true, 1"
HUNK = f"{KEYS}, version, layer_id, row_start, removed, added, axis_min, axis_max"
FILL = (
    f"INSERT INTO fragment ({COLUMNS}) SELECT 1, k0, k1, 0, 0, 0, 0, low, layer_id, begun, begun, {FRAGMENT} {MADE}, "
    "LATERAL (SELECT early + half AS begun) AS live",
    f"INSERT INTO past_fragment ({COLUMNS}, end_version) SELECT 1, k0, k1, 0, 0, 0, 0, low, layer_id, begun, begun, "
    f"{FRAGMENT}, begun + half {MADE}, LATERAL (SELECT early AS begun) AS past",
    f"INSERT INTO change ({HUNK}) SELECT 1, k0, k1, 0, 0, 0, 0, changed, layer_id, low, 10 * gone, 10, low, low + 9 "
    f"{MADE}, LATERAL (VALUES (early, 0), (early + half, 1)) AS changes(changed, gone)",
    *(
        f"INSERT INTO {table} ({columns}) SELECT 1 + small, {columns.removeprefix('collection_id, ')} "
        f"FROM {table}, generate_series(1, {SMALL}) AS small WHERE collection_id = 1 AND k0 = 100 AND layer_id = 0"
        for table, columns in (("fragment", COLUMNS), ("past_fragment", f"{COLUMNS}, end_version"), ("change", HUNK))
    ),
    "INSERT INTO layer (collection_id, id, variable_ids) VALUES (1, 1, '[1]')",
    f"INSERT INTO version (collection_id, version, committed_at, author, message, operation, summary) "
    f"SELECT id, version, '2022-01-01Z', 'me', '', 'insert', '{{}}' FROM collection, "
    f"generate_series(1, {VERSIONS}) AS version",
    f"UPDATE collection SET head_version = {VERSIONS}",
)

UNDO = (
    f"DELETE FROM fragment WHERE collection_id = 1 AND begin_version > {VERSIONS}",
    f"INSERT INTO fragment ({COLUMNS}) SELECT {COLUMNS} FROM past_fragment "
    f"WHERE collection_id = 1 AND end_version > {VERSIONS}",
    f"DELETE FROM past_fragment WHERE collection_id = 1 AND end_version > {VERSIONS}",
    f"DELETE FROM change WHERE collection_id = 1 AND version > {VERSIONS}",
    f"DELETE FROM version WHERE collection_id = 1 AND version > {VERSIONS}",
    f"UPDATE collection SET head_version = {VERSIONS} WHERE id = 1",
)


@pytest.fixture(scope="module")
def filled(postgres: PostgresServer, empty_postgres: str) -> Iterator[dict[str, Registry]]:
    """Two registries of the same rows: one without statistics of the large tables, and one with."""
    with postgres.database(empty_postgres) as guessed:
        with connect(guessed) as registry:
            create(registry)
            create(registry, "made/b")
        off = [f"ALTER TABLE {table} SET (autovacuum_enabled = off)" for table in BIG]
        execute(guessed, *off, *FILL)
        with postgres.database(guessed) as known:
            execute(known, "ANALYZE")
            with connect(guessed) as guessing, connect(known) as knowing:
                yield {"guessing": guessing, "knowing": knowing}


def execute(url: str, *statements: str) -> None:
    """Execute statements, one after the other."""
    with connect_to(parse_url(url)) as connection:
        for statement in statements:
            connection.execute(statement.encode())


Node = Mapping[str, Any]


@dataclass
class Seen:
    """How the large tables were looked at."""

    scans: list[tuple[str, Node]] = field(default_factory=list)
    """The statements, and the nodes of their plans."""

    @property
    def rows(self) -> float:
        """How many rows were looked at, wanted or not."""
        names = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
        return sum(node["Actual Loops"] * sum(node.get(name, 0) for name in names) for _, node in self.scans)

    @property
    def blocks(self) -> int:
        """How many blocks of tables and indexes were."""
        return sum(node["Shared Hit Blocks"] + node["Shared Read Blocks"] for _, node in self.scans)


def nodes(plan: Node) -> Iterator[Node]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


@contextmanager
def watching(registry: Registry) -> Iterator[Seen]:
    """Have each statement explained just before it is executed, and what that has done undone."""
    seen = Seen()

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if not statement.startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")) or " set_config" in statement:
            return
        with cursor.connection.cursor() as other:
            # The first time a process may read the catalogs again, since others have changed them: blocks of these
            # are counted too. So the second time counts.
            for _ in range(2):
                other.execute("SAVEPOINT explained")
                explained = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
                other.execute(explained, parameters[0] if many else parameters)
                ((((plan,),),)) = other.fetchall()
                other.execute("ROLLBACK TO explained")
        seen.scans += [
            (statement, node)
            for node in nodes(plan["Plan"])
            if node.get("Relation Name") in BIG and node["Node Type"] != "ModifyTable"
        ]

    engine = engine_of(parse_url(registry.url))
    sa.event.listen(engine, "before_cursor_execute", explain)
    try:
        yield seen
    finally:
        sa.event.remove(engine, "before_cursor_execute", explain)


@pytest.fixture(params=["guessing", "knowing"])
def large(request: pytest.FixtureRequest, filled: dict[str, Registry]) -> Iterator[Registry]:
    """The registry with the large collection, as nobody has touched it."""
    registry = filled[request.param]
    yield registry
    if registry.collection("made/a").head_version > VERSIONS:
        execute(registry._url.render_as_string(hide_password=False), *UNDO)


def assert_looked_up(seen: Seen, partitions: int) -> None:
    """Of each partition there are eight fragments and eight hunks; a look-up in an index takes three or four blocks."""
    for statement, node in seen.scans:
        assert node["Node Type"] != "Seq Scan", (statement, node)
    assert seen.rows <= 16 * (1 + partitions), seen.scans
    assert seen.blocks <= 12 * (3 + partitions), seen.scans


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_is_asked_of_few_keys_is_looked_up(large: Registry, name: str) -> None:
    with watching(large) as seen:
        found = QUESTIONS[name](large)
    assert_looked_up(seen, len(found) if isinstance(found, tuple | dict) else 1)


def test_what_a_version_changed_is_looked_up(large: Registry) -> None:
    with watching(large) as seen:
        what_a_write_changed(large)
    assert_looked_up(seen, 1)


@pytest.mark.parametrize("version", [None, VERSIONS // 2])
def test_a_small_collection_is_read_without_the_large_one_beside_it(large: Registry, version: int | None) -> None:
    with watching(large) as seen:
        found = large.partitions("made/b", version=version)
    assert len(found) == MONTHS
    assert_looked_up(seen, MONTHS)
