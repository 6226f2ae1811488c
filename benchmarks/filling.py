"""A registry of very many partitions, by hour since 1970, put into its tables by SQL: no data is anywhere.

Each partition was inserted, replaced together with a layer over it, and replaced again, layer and all; so it has two
live fragments, three past ones and three hunks. In Postgres' pages layers lie apart, as where they came later.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

import intake_zcollection as izc
from registry import KeyValues

MINUTE = 60 * 10**9
HOUR = 60 * MINUTE
LAYERED = 9
"""The id of the variable that the layers have, the last of ten."""

TIMES = 3
"""How often each partition was written."""

KEYS = ", ".join(f"k{place}" for place in range(6))
FRAGMENT = f"""
INSERT INTO {{table}} (
  collection_id, {KEYS}, axis_min, layer_id, begin_version, written_version, schema_version, group_uid, start, rows,
  group_rows, packed, nbytes, axis_max, axis_unique, transaction_id{{end_column}}
)
SELECT {{collection}}, k0, k1, k2, k3, 0, 0, axis_min, layer, {{begin}}, {{begin}}, 0, {{uid}}, 0, 30,
  30, FALSE, 4000, axis_min + {30 * MINUTE - 1}, TRUE, 1{{end}}
FROM made CROSS JOIN ({{layers}}) layers ORDER BY layer, number
"""
CHANGE = f"""
INSERT INTO change (collection_id, {KEYS}, version, layer_id, row_start, removed, added, axis_min, axis_max)
SELECT {{collection}}, k0, k1, k2, k3, 0, 0, {{begin}}, 0, 0, {{removed}}, 30, axis_min, axis_min + {30 * MINUTE - 1}
FROM made ORDER BY number
"""
VERSION = sa.text(
    "INSERT INTO version (collection_id, version, committed_at, author, message, operation, summary) "
    "VALUES (:of, :number, '2022-01-01 00:00:00', 'me', '', 'insert', '{}')"
)
ROWS, BOTH = "SELECT 0 AS layer", "SELECT 0 AS layer UNION ALL SELECT 1"
FILL = (("fragment", BOTH, 2, None), ("past_fragment", ROWS, 0, 1), ("past_fragment", BOTH, 1, 2))
"""A table, the layers, and in which round of writes these fragments began and ended."""


def fill(database: sa.Engine, collection: int, count: int) -> None:
    """Put so many partitions, and their past, into the tables of a collection; each version wrote some thousand."""
    dialect, per_round = database.dialect.name, max(1, count // 1000)
    with database.connect() as connection:
        connection.exec_driver_sql("PRAGMA cache_size = -500000" if dialect == "sqlite" else "SET work_mem = '64MB'")
        connection.exec_driver_sql("BEGIN")
        _make_numbers(connection, count)
        for statement in _filling(collection, count, per_round, dialect):
            connection.exec_driver_sql(statement)
        versions = [{"of": collection, "number": 1 + number} for number in range(TIMES * per_round)]
        connection.execute(VERSION, versions)
        connection.exec_driver_sql(f"UPDATE collection SET head_version = {len(versions)} WHERE id = {collection}")
        connection.exec_driver_sql("DROP TABLE made")
        connection.exec_driver_sql("COMMIT")
        if dialect == "postgresql":  # a server does it by itself, after a while
            connection.exec_driver_sql("VACUUM ANALYZE")


def keys_of(numbers: npt.NDArray[np.int64]) -> list[KeyValues]:
    """Return the keys of hours since 1970."""
    keys = izc.Date("time", "h").key_values({"time": numbers.astype("M8[h]").astype("M8[ns]")})
    return list(map(tuple, keys.tolist()))


def _filling(collection: int, count: int, per_round: int, dialect: str) -> Iterator[str]:
    """Yield the statements that put the fragments and hunks of so many versions in each round of writes."""
    rounds = [f"{number * per_round + 1} + number * {per_round} / {count}" for number in range(TIMES)]
    uid = "lower(hex(randomblob(16)))" if dialect == "sqlite" else "md5(random()::text)"
    yield f"INSERT INTO layer (collection_id, id, variable_ids) VALUES ({collection}, 1, '[{LAYERED}]')"
    for table, layers, begin, end in FILL:
        column, value = ("", "") if end is None else (", end_version", f", {rounds[end]}")
        where = {"table": table, "end_column": column, "collection": collection, "layers": layers}
        yield FRAGMENT.format(begin=rounds[begin], end=value, uid=uid, **where)
    for number, version in enumerate(rounds):
        yield CHANGE.format(collection=collection, begin=version, removed=30 * (number > 0))


def _make_numbers(connection: sa.Connection, count: int) -> None:
    """Make a temporary table of all partitions."""
    columns = "number, k0, k1, k2, k3, axis_min"
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE made ({columns.replace(',', ' BIGINT,')} BIGINT)")
    numbers = np.arange(count)
    rows = ((number, *key, number * HOUR) for number, key in zip(numbers.tolist(), keys_of(numbers), strict=True))
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        driver.executemany("INSERT INTO made VALUES (?, ?, ?, ?, ?, ?)", rows)
        return
    with driver.cursor().copy(f"COPY made ({columns}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
