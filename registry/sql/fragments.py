"""Partitions, their parts and what became of them: SELECT statements, and what their rows become.

What is known without looking comes first in every statement: SQLite plans without statistics, and a wrong index of a
million rows is not seen on ten. So keys are joined in their order, and versions, of which an index is seldom the right
one, are compared as expressions, which have none.
"""

import json
import operator
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from ..keys import MAX_KEYS, KeyValues, pad_key
from ..records import (
    IMMUTABLE_LAYER,
    ROWS_LAYER,
    CollectionRecord,
    FragmentColumns,
    FragmentRecord,
    KeyRange,
    PartitionRecord,
    Totals,
)
from ..selection import Selection
from . import tables
from .where import compile_predicate

AnySelect = sa.Select[*tuple[Any, ...]]
AnyRow = sa.Row[*tuple[Any, ...]]
AnyCompound = sa.CompoundSelect[*tuple[Any, ...]]

KEY_NAMES = [f"k{i}" for i in range(MAX_KEYS)]

# Names are kept in the order of FragmentRecord's fields, its key apart.
_FIELDS = (
    "axis_min",
    "layer_id",
    "group_uid",
    "start",
    "rows",
    "group_rows",
    "nbytes",
    "axis_max",
    "begin_version",
    "written_version",
    "schema_version",
    "path",
    "axis_unique",
)

_AT_A_TIME = 10_000
"""So many rows are in memory beside the columns that they become."""

_IN_ORDER = (*KEY_NAMES, "axis_min", "layer_id")

_FIRST_KEY, _LAST_KEY = (-(2**63),) * MAX_KEYS, (2**63 - 1,) * MAX_KEYS
"""Where a range of keys is open: nothing lies before the one, or after the other."""


def key_row(key: KeyValues) -> dict[str, int]:
    """Return the key columns of a row; the key has all six values."""
    return dict(zip(KEY_NAMES, key, strict=True))


def key_columns(table: sa.FromClause) -> list[sa.ColumnElement[int]]:
    """Return the table's key columns, in order."""
    return [table.c[name] for name in KEY_NAMES]


# Many keys are one parameter of a statement, so that it is one statement for any number, compiled once.


class _each(FunctionElement[str]):  # noqa: N801 - reads as a SQL function
    """The elements of a JSON array, as rows."""

    name = "each"
    inherit_cache = True


@compiles(_each, "sqlite")
def _sqlite_each(element: Any, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_each, "postgresql")
def _postgresql_each(element: Any, compiler: Any, **options: Any) -> str:
    return f"json_array_elements(CAST({compiler.process(element.clauses, **options)} AS JSON))"


class _Lookup(sa.Join):
    """For each row of the left table, in turn, those of the right one: an inner join that keeps this order.

    What it is joined by is all that is looked up: the collection too.
    """

    inherit_cache = True


@compiles(_Lookup, "sqlite")
def _sqlite_lookup(element: Any, compiler: Any, **options: Any) -> str:
    options["asfrom"] = True
    left, right = (compiler.process(side, **options) for side in (element.left, element.right))
    options["asfrom"] = False
    return f"{left} CROSS JOIN {right} ON {compiler.process(element.onclause, **options)}"


@compiles(_Lookup, "postgresql")
def _postgresql_lookup(element: Any, compiler: Any, **options: Any) -> str:
    # An OFFSET keeps it from being made an ordinary join, for which Postgres may read the whole table: before ANALYZE
    # it guesses that there are as many keys as rows.
    options["asfrom"] = True
    left, right = (compiler.process(side, **options) for side in (element.left, element.right))
    options["asfrom"] = False
    found = f"SELECT * FROM {right} WHERE {compiler.process(element.onclause, **options)} OFFSET 0"
    return f"{left} CROSS JOIN LATERAL ({found}) AS {right}"


def keys_parameter(keys: Iterable[KeyValues]) -> dict[str, str]:
    """Return the parameter of a statement about some keys, without those that are there twice."""
    return {"of_keys": json.dumps(sorted({pad_key(key) for key in keys}))}


def among_keys(table: sa.Table, mine: sa.ColumnElement[bool]) -> sa.FromClause:
    """Return the rows of a collection in a table that have one of the keys in :func:`keys_parameter`."""
    wanted = _each(sa.bindparam("of_keys", type_=sa.Text)).table_valued("value", name="wanted")
    return _Lookup(wanted, table, sa.and_(mine, *map(operator.eq, key_columns(table), _numbers(wanted))))


def _numbers(wanted: sa.FromClause, count: int = MAX_KEYS) -> list[sa.ColumnElement[int]]:
    return [sa.cast(_item(wanted, place), sa.BigInteger) for place in range(count)]


def _item(wanted: sa.FromClause, place: int) -> sa.ColumnElement[str]:
    return wanted.c.value.op("->>", return_type=sa.Text())(sa.literal_column(str(place)))


def numbers_parameter(numbers: Iterable[int]) -> dict[str, str]:
    """Return the parameter of a statement about some versions."""
    return {"of_numbers": json.dumps([[number] for number in sorted(numbers)])}


def among_numbers(table: sa.Table, mine: sa.ColumnElement[bool]) -> sa.FromClause:
    """Return the rows of a collection in a table that have one of the versions in :func:`numbers_parameter`."""
    wanted = _each(sa.bindparam("of_numbers", type_=sa.Text)).table_valued("value", name="wanted")
    return _Lookup(wanted, table, sa.and_(mine, table.c.version == _numbers(wanted)[0]))


def among_names(table: sa.Table, mine: sa.ColumnElement[bool]) -> sa.FromClause:
    """Return the rows of a collection in a table that have one of the names in :func:`names_parameter`."""
    wanted = _each(sa.bindparam("of_names", type_=sa.Text)).table_valued("value", name="wanted")
    return _Lookup(wanted, table, sa.and_(mine, table.c.name == _item(wanted, 0)))


def names_parameter(names: Iterable[str]) -> dict[str, str]:
    """Return the parameter of a statement about some names."""
    return {"of_names": json.dumps([[name] for name in sorted(set(names))])}


class _follows(FunctionElement[bool]):  # noqa: N801 - reads as a SQL function
    """A condition that follows from others, for Postgres' planner; SQLite's needs none."""

    type = sa.Boolean()
    name = "follows"
    inherit_cache = True


@compiles(_follows, "sqlite")
def _sqlite_follows(element: Any, compiler: Any, **options: Any) -> str:
    return "1"


@compiles(_follows, "postgresql")
def _postgresql_follows(element: Any, compiler: Any, **options: Any) -> str:
    return f"({compiler.process(element.clauses, **options)})"


def within_keys(table: sa.FromClause, keys: KeyRange) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of a range of keys."""
    columns, (first, last) = sa.tuple_(*key_columns(table)), keys
    return [
        *([columns >= sa.tuple_(*map(_bigint, first))] if first is not None else ()),
        *([columns <= sa.tuple_(*map(_bigint, last))] if last is not None else ()),
        *(_between_values(table, first, last) if first is not None and last is not None else ()),
    ]


def _between_values(table: sa.FromClause, first: KeyValues, last: KeyValues) -> Iterator[sa.ColumnElement[bool]]:
    """Yield what a range of keys says of the values that they begin with, up to one that differs.

    Of two comparisons of rows Postgres does not see that they are a range: of one in the middle it guesses that it is a
    quarter of the table, which it reads then.
    """
    for column, low, high in zip(key_columns(table), first, last, strict=True):
        yield _follows(column >= _bigint(low))
        yield _follows(column <= _bigint(high))
        if low != high:
            return


def _bigint(value: int) -> sa.ColumnElement[int]:
    return sa.literal(value, sa.BigInteger)


def fragments_query(collection: CollectionRecord, version: int, selection: Selection) -> AnySelect | AnyCompound:
    """Select the fragments of the partitions of a version: the live ones, and those that a later version closed.

    Of a selection's keys, :func:`keys_parameter` is its parameter.
    """
    branches = [_fragments(tables.fragment, collection, version, selection)]
    if version < collection.head_version:
        branches.append(_fragments(tables.past_fragment, collection, version, selection))
    query = sa.union_all(*branches) if len(branches) > 1 else branches[0]
    in_order = [*KEY_NAMES[: len(collection.keys)], "axis_min", "layer_id"]
    low, high = selection.axis_range
    if selection.parts or (low is None and high is None):
        # Of one table, that is the order of its primary key, and nothing has to be sorted.
        live = (tables.fragment.c[name] for name in _IN_ORDER)
        return query.order_by(*in_order) if len(branches) > 1 else branches[0].order_by(*live)
    # A partition is chosen by its own bounds, however it is divided into parts.
    bounded = query.subquery()
    key = [bounded.c[name] for name in in_order[:-2]]
    first = sa.func.min(bounded.c.axis_min).over(partition_by=key).label("first")
    last = sa.func.max(bounded.c.axis_max).over(partition_by=key).label("last")
    known = sa.select(*bounded.c, first, last).subquery()
    query = sa.select(*(known.c[column.name] for column in bounded.c)).order_by(*(known.c[name] for name in in_order))
    return query.where(*_overlap(known.c.first, known.c.last, selection))


def _fragments(table: sa.Table, collection: CollectionRecord, version: int, selection: Selection) -> AnySelect:
    columns = key_columns(table)
    by_key = selection.keys is not None or selection.key_range is not None or selection.predicate is not None

    def compared(name: str) -> sa.ColumnElement[int]:
        column: sa.ColumnElement[int] = table.c[name]
        return column + 0 if by_key else column  # an expression has no index, and that of the keys is the right one

    fields = (table.c[name] for name in _FIELDS[:-1])
    known = sa.case((table.c.axis_unique.is_(None), -1), (table.c.axis_unique, 1), else_=0).label("axis_unique")
    query = sa.select(*columns[: len(collection.keys)], *fields, known).where(
        table.c.collection_id == collection.id, table.c.layer_id >= ROWS_LAYER, compared("begin_version") <= version
    )
    if table is tables.past_fragment:
        query = query.where(compared("end_version") > version)
    if selection.keys is not None:
        query = query.select_from(among_keys(table, table.c.collection_id == collection.id))
    if selection.key_range is not None:
        query = query.where(*within_keys(table, selection.key_range))
    if selection.predicate is not None:
        query = query.where(compile_predicate(selection.predicate, dict(zip(collection.keys, columns, strict=False))))
    return query.where(*_overlap(table.c.axis_min, table.c.axis_max, selection)) if selection.parts else query


def _overlap(
    first: sa.ColumnElement[Any], last: sa.ColumnElement[Any], selection: Selection
) -> list[sa.ColumnElement[bool]]:
    low, high = selection.axis_range
    return [
        *((last >= _bigint(low),) if low is not None else ()),
        *((first <= _bigint(high),) if high is not None else ()),
    ]


@cache
def immutable_query() -> AnyCompound:
    """Select the fragment of immutable variables of a version."""
    version = sa.bindparam("at_version", type_=sa.Integer)
    live, past = (
        sa.select(*key_columns(table), *(table.c[name] for name in _FIELDS)).where(
            table.c.collection_id == sa.bindparam("of_collection"),
            *(column == 0 for column in key_columns(table)),
            table.c.axis_min == 0,
            table.c.layer_id == IMMUTABLE_LAYER,
            table.c.begin_version + 0 <= version,
        )
        for table in (tables.fragment, tables.past_fragment)
    )
    return sa.union_all(live, past.where(tables.past_fragment.c.end_version + 0 > version))


def read_immutable(connection: sa.Connection, collection_id: int, version: int) -> FragmentRecord | None:
    """Return the fragment of the immutable variables of a version, None before there is any."""
    wanted = {"of_collection": collection_id, "at_version": version}
    row = connection.execute(immutable_query(), wanted).one_or_none()
    return None if row is None else fragment_record(row)


def fragment_record(row: Sequence[object]) -> FragmentRecord:
    """Return the record of a row with all key columns."""
    return FragmentRecord._make((tuple(row[:MAX_KEYS]), *row[MAX_KEYS:]))


def read_columns(
    connection: sa.Connection, collection: CollectionRecord, version: int, selection: Selection
) -> FragmentColumns:
    """Return the fragments of the partitions of a version, in the order of their keys."""
    columns = _empty_columns(collection)
    keys, keep = selection.keys, selection.keep
    if keys is None or keys:
        parameters = {} if keys is None else keys_parameter(keys)
        result = connection.execute(fragments_query(collection, version, selection), parameters)
        kept = None if keep is None else _Kept(collection.keys, keep)
        cursor = result.cursor  # a Row for each would cost as much as fetching them
        assert cursor is not None  # it was a SELECT
        while rows := cursor.fetchmany(_AT_A_TIME):
            wanted = rows if kept is None else [row for row in rows if kept[tuple(row[: len(collection.keys)])]]
            for column, values in zip(columns.values(), zip(*wanted, strict=True), strict=False):
                column.extend(values)
        result.close()
    return FragmentColumns(collection.keys, columns)


def no_fragments(collection: CollectionRecord) -> FragmentColumns:
    """Return the fragments of a collection that has none yet."""
    return FragmentColumns(collection.keys, _empty_columns(collection))


def _empty_columns(collection: CollectionRecord) -> dict[str, Any]:
    names = [*KEY_NAMES[: len(collection.keys)], *FragmentRecord._fields[1:]]
    return {name: [] if name in ("uid", "path") else array("q") for name in names}


class _Kept(dict[KeyValues, bool]):
    """What a user's function says of keys, asked once of each."""

    def __init__(self, names: tuple[str, ...], keep: Callable[[dict[str, int]], bool]) -> None:
        super().__init__()
        self._names, self._keep = names, keep

    def __missing__(self, key: KeyValues) -> bool:
        self[key] = bool(self._keep(dict(zip(self._names, key, strict=True))))
        return self[key]


def read_partitions(
    connection: sa.Connection, collection: CollectionRecord, version: int, selection: Selection
) -> tuple[PartitionRecord, ...]:
    """Return the partitions of a version, in the order of their keys."""
    return read_columns(connection, collection, version, selection).partitions


def read_totals(connection: sa.Connection, collection: CollectionRecord, version: int) -> Totals:
    """Return how many partitions, rows and bytes a version has, and how far its axis reaches."""
    fragments = fragments_query(collection, version, Selection()).order_by(None).subquery()
    rows = sa.case((fragments.c.layer_id == ROWS_LAYER, fragments.c.rows), else_=0)
    each = sa.select(
        sa.func.sum(rows).label("rows"),
        sa.func.sum(fragments.c.nbytes).label("nbytes"),
        sa.func.min(fragments.c.axis_min).label("low"),
        sa.func.max(fragments.c.axis_max).label("high"),
    )
    key = each.group_by(*(fragments.c[name] for name in KEY_NAMES[: len(collection.keys)])).subquery()
    sums = sa.func.sum(key.c.rows), sa.func.sum(key.c.nbytes), sa.func.min(key.c.low), sa.func.max(key.c.high)
    found = connection.execute(sa.select(sa.func.count(), *sums).select_from(key)).one()
    count, row_count, nbytes, low, high = found
    return Totals(count, int(row_count or 0), int(nbytes or 0), None if low is None else (low, high))


@cache
def live_query() -> AnySelect:
    """Select what is live in all layers of the keys in :func:`keys_parameter`, by ``of_collection``."""
    table = tables.fragment
    columns = *key_columns(table), *(table.c[name] for name in _FIELDS)
    mine = table.c.collection_id == sa.bindparam("of_collection")
    return sa.select(*columns).select_from(among_keys(table, mine)).order_by(*(table.c[name] for name in _IN_ORDER))


def read_live(connection: sa.Connection, collection_id: int, keys: Iterable[KeyValues]) -> list[FragmentRecord]:
    """Return what is live of some keys, in the order of keys, parts and layers; with all six key columns."""
    parameters = keys_parameter(keys) | {"of_collection": collection_id}
    return [fragment_record(row) for row in connection.execute(live_query(), parameters)]


@cache
def keys_between_query() -> AnySelect:
    """Select the keys of the live partitions in some ranges, ``of_ranges``, by ``of_collection``."""
    table = tables.fragment
    wanted = _each(sa.bindparam("of_ranges", type_=sa.Text)).table_valued("value", name="wanted")
    key, limits = sa.tuple_(*key_columns(table)), _numbers(wanted, 2 * MAX_KEYS)
    first, last = sa.tuple_(*limits[:MAX_KEYS]), sa.tuple_(*limits[MAX_KEYS:])
    mine = table.c.collection_id == sa.bindparam("of_collection"), table.c.layer_id == ROWS_LAYER
    within = _Lookup(wanted, table, sa.and_(*mine, key >= first, key <= last))
    return sa.select(*key_columns(table)).distinct().select_from(within)


def read_keys_between(connection: sa.Connection, collection_id: int, ranges: Iterable[KeyRange]) -> Iterator[KeyValues]:
    """Yield the keys of the live partitions in some ranges; with all six values."""
    limits = [[*(first or _FIRST_KEY), *(last or _LAST_KEY)] for first, last in ranges]
    if limits:
        parameters = {"of_collection": collection_id, "of_ranges": json.dumps(limits)}
        yield from map(tuple, connection.execute(keys_between_query(), parameters))


def last_changes_query(collection: CollectionRecord, version: int, *, of_keys: bool) -> AnySelect:
    """Select the keys of partitions, and which version last did something to each, up to a version.

    Of all keys that there ever were, or of those in :func:`keys_parameter`: NULL where nothing ever did.
    """
    table = tables.change
    columns = key_columns(table)
    known = table.c.collection_id == collection.id, table.c.layer_id >= ROWS_LAYER
    if not of_keys:
        every = sa.select(*columns, sa.func.max(table.c.version)).where(*known, table.c.version + 0 <= version)
        return every.group_by(*columns)
    wanted = _each(sa.bindparam("of_keys", type_=sa.Text)).table_valued("value", name="wanted")
    # The last row of each key alone is looked at, whatever its history.
    here = sa.select(table.c.version).where(
        *known, *map(operator.eq, columns, _numbers(wanted)), table.c.version <= version
    )
    last = here.order_by(table.c.version.desc()).limit(1).correlate(wanted).scalar_subquery()
    return sa.select(*_numbers(wanted), last).select_from(wanted)


def read_last_changes(
    connection: sa.Connection, collection: CollectionRecord, version: int, keys: Iterable[KeyValues] | None
) -> dict[KeyValues, int]:
    """Return which version last did something to each partition of some keys, of all if there are none given."""
    query = last_changes_query(collection, version, of_keys=keys is not None)
    rows = connection.execute(query, {} if keys is None else keys_parameter(keys))
    return {tuple(key[: len(collection.keys)]): last for *key, last in rows if last is not None}


def changing_versions_query(collection: CollectionRecord, selection: Selection, after: int = 0) -> AnySelect:
    """Select the keys of partitions and the versions, after one, that did something to them, each once.

    Of a selection's keys, :func:`keys_parameter` is its parameter.
    """
    table = tables.change
    columns = key_columns(table)
    query = sa.select(*columns, table.c.version).distinct()
    query = query.where(table.c.collection_id == collection.id, table.c.layer_id >= ROWS_LAYER)
    if selection.keys is not None:
        query = query.select_from(among_keys(table, table.c.collection_id == collection.id))
    if after:
        query = query.where(table.c.version > after)
    if selection.predicate is not None:
        query = query.where(compile_predicate(selection.predicate, dict(zip(collection.keys, columns, strict=False))))
    return query


def read_changing_versions(
    connection: sa.Connection, collection: CollectionRecord, selection: Selection, after: int = 0
) -> set[int]:
    """Return the numbers of the versions, after one, that did something to partitions of a selection, by their keys."""
    parameters = {} if selection.keys is None else keys_parameter(selection.keys)
    changes = connection.execute(changing_versions_query(collection, selection, after), parameters)
    keep = selection.keep or (lambda key: True)
    return {number for *key, number in changes if keep(dict(zip(collection.keys, key, strict=False)))}
