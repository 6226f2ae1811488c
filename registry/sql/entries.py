"""Entries of indexes: SELECT statements, and what their rows become."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from ..indexes import Choice, Found, IndexRecord, Rows, Value, Wanted
from ..keys import MAX_KEYS
from ..records import CollectionRecord
from . import tables
from .lookup import AnyCompound, AnySelect, Lookup, key_columns, rare, some
from .queries import alive, read_layers_and_indexes
from .where import compile_predicate

_AT_ONCE = 1000
"""So many values are parameters of their own, of which a planner knows the number; more are one, as rows."""


def read_indexes(connection: sa.Connection, collection: CollectionRecord, version: int) -> tuple[IndexRecord, ...]:
    """Return the indexes of a version, in the order in which they came."""
    return alive(read_layers_and_indexes(connection, collection.id)[1], version)


def entries_query(collection: CollectionRecord, version: int, index: IndexRecord, wanted: Wanted) -> AnyCompound:
    """Select the rows that meet what is wanted, and the parts of which the index knows nothing.

    From the entries to the fragments in which these are at a version: each entry is looked up by its values, and a
    fragment by its uid.
    """
    both = [tables.fragment, *([tables.past_fragment] if version < collection.head_version else [])]
    conditions = _conditions(index, wanted)
    found = [_entries(table, collection, version, index, conditions) for table in both]
    return sa.union_all(*found, *(_unindexed(table, collection, version, index) for table in both))


def _alive(table: sa.Table, version: int, index: IndexRecord) -> list[sa.ColumnElement[bool]]:
    # Expressions, which have no index: that of the uid is the right one.
    here = [table.c.layer_id + 0 == index.id, table.c.begin_version + 0 <= version]
    return [*here, table.c.end_version + 0 > version] if table is tables.past_fragment else here


def _entries(
    table: sa.Table,
    collection: CollectionRecord,
    version: int,
    index: IndexRecord,
    conditions: list[sa.ColumnElement[bool]],
) -> AnySelect:
    entry = tables.index_entry
    first, last = table.c.start, table.c.start + table.c.rows
    inside = sa.and_(entry.c.row_start >= first, entry.c.row_stop <= last)
    start = sa.case((entry.c.row_start > first, entry.c.row_start), else_=first) - first
    stop = sa.case((entry.c.row_stop < last, entry.c.row_stop), else_=last) - first
    bounds = (sa.case((inside, column)) for column in (entry.c.axis_min, entry.c.axis_max))
    here = table.c.collection_id == collection.id, rare(table.c.group_uid == entry.c.uid)
    return (
        sa.select(*key_columns(table), table.c.axis_min, start.label("row_start"), stop.label("row_stop"), *bounds)
        .select_from(Lookup(entry, table, sa.and_(*here)))
        .where(
            entry.c.collection_id == collection.id,
            entry.c.layer_id == index.id,
            *conditions,
            *_alive(table, version, index),
            entry.c.row_start < last,
            entry.c.row_stop > first,
        )
    )


def _unindexed(table: sa.Table, collection: CollectionRecord, version: int, index: IndexRecord) -> AnySelect:
    nothing = (sa.null().cast(sa.BigInteger) for _ in range(4))
    return sa.select(*key_columns(table), table.c.axis_min, *nothing).where(
        table.c.collection_id == collection.id,
        rare(table.c.group_uid == index.unindexed),
        *_alive(table, version, index),
    )


def _conditions(index: IndexRecord, wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    columns = {name: _column(index, name) for name in index.columns}
    if wanted.predicate is not None:
        return [compile_predicate(wanted.predicate, columns)]
    return [each for name, choice in wanted.choices.items() for each in _chosen(columns[name], choice)]


def _column(index: IndexRecord, name: str) -> sa.ColumnElement[Any]:
    place = [*index.columns].index(name)
    return tables.index_entry.c[f"t{place}" if index.columns[name] == "text" else f"v{place}"]


def _chosen(column: sa.ColumnElement[Any], choice: Choice) -> Iterator[sa.ColumnElement[bool]]:
    yield column.is_not(None)  # so that the index of its values is seen to have all of them
    if choice.values is not None:
        values: list[Any] = sorted(choice.values, key=str)
        if len(values) > _AT_ONCE:
            yield rare(column.in_(some(values, column.type)))
        else:
            yield rare(column.in_(sa.bindparam(None, values, column.type, expanding=True, unique=True)))
        return
    if choice.low is not None:
        yield rare(column >= _literal(column, choice.low))
    if choice.high is not None:
        yield rare(column <= _literal(column, choice.high))


def _literal(column: sa.ColumnElement[Any], value: Value) -> sa.ColumnElement[Any]:
    return sa.literal(value, column.type)


def read_entries(
    connection: sa.Connection, collection: CollectionRecord, version: int, index: IndexRecord, wanted: Wanted
) -> Found:
    """Return which rows of a version meet what is wanted, and the parts of which the index knows nothing."""
    rows, unindexed = [], []
    for row in connection.execute(entries_query(collection, version, index, wanted)):
        key, (part, start, stop, *bounds) = tuple(row[:MAX_KEYS]), row[MAX_KEYS:]
        if start is None:
            unindexed.append((key, part))
        else:
            low, high = bounds
            rows.append(Rows(key, part, start, stop, None if low is None else (low, high)))
    return Found(index, tuple(sorted(rows, key=lambda each: each[:4])), tuple(sorted(unindexed)))


def read_table(
    connection: sa.Connection, collection: CollectionRecord, version: int, index: IndexRecord
) -> Iterator[tuple[Rows, tuple[Value, ...]]]:
    """Yield all entries of a version, with their values, in the order of the rows."""
    both = [tables.fragment, *([tables.past_fragment] if version < collection.head_version else [])]
    values = [_column(index, name) for name in index.columns]
    branches = [_entries(table, collection, version, index, []).add_columns(*values) for table in both]
    query = sa.union_all(*branches)
    for row in sorted(map(tuple, connection.execute(query)), key=lambda row: row[: MAX_KEYS + 3]):
        key, (part, start, stop, low, high, *found) = row[:MAX_KEYS], row[MAX_KEYS:]
        yield Rows(key, part, start, stop, None if low is None else (low, high)), tuple(found)
