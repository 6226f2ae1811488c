"""Partitions and their parts: SELECT statements, and what their rows become."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa

from ..keys import MAX_KEYS, KeyValues
from ..partitions import FragmentColumns, PartitionRecord
from ..records import IMMUTABLE_LAYER, ROWS_LAYER, CollectionRecord, FragmentRecord, KeyRange, Totals
from ..selection import Selection
from . import tables
from .lookup import (
    KEY_NAMES,
    AnyCompound,
    AnySelect,
    among_keys,
    among_ranges,
    bigint,
    key_columns,
    keys_parameter,
    ranges_parameter,
    within_keys,
)
from .statistics import may_meet
from .where import compile_predicate

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

_ALL = Selection()

_IN_ORDER = (*KEY_NAMES, "axis_min", "layer_id")


Layers = Mapping[int, frozenset[int]]
"""The ids of the variables of each layer."""

_NO_LAYERS: Layers = {}


def fragments_query(
    collection: CollectionRecord, version: int, selection: Selection, layers: Layers = _NO_LAYERS
) -> AnySelect | AnyCompound:
    """Select the fragments of the partitions of a version: the live ones, and those that a later version closed.

    Of a selection's keys, :func:`keys_parameter` is its parameter. Layers are asked for where it is about values.
    """
    branches = [_fragments(tables.fragment, collection, version, selection, layers)]
    if version < collection.head_version:
        branches.append(_fragments(tables.past_fragment, collection, version, selection, layers))
    query = sa.union_all(*branches) if len(branches) > 1 else branches[0]
    in_order = [*KEY_NAMES[: len(collection.keys)], "axis_min", "layer_id"]
    low, high = selection.axis_range
    by_axis = not selection.parts and not (low is None and high is None)
    if not by_axis and not selection.ranges:
        # Of one table, that is the order of its primary key, and nothing has to be sorted.
        live = (tables.fragment.c[name] for name in _IN_ORDER)
        return query.order_by(*in_order) if len(branches) > 1 else branches[0].order_by(*live)
    # A partition is chosen by its own bounds, however it is divided into parts.
    bounded = query.subquery()
    key = [bounded.c[name] for name in in_order[:-2]]
    together = [*key, bounded.c.axis_min] if selection.parts else key
    meet = [sa.func.max(bounded.c[name]).over(partition_by=together).label(name) for name in _meet_names(selection)]
    first = sa.func.min(bounded.c.axis_min).over(partition_by=key).label("first")
    last = sa.func.max(bounded.c.axis_max).over(partition_by=key).label("last")
    fields = [column for column in bounded.c if column.name not in _meet_names(selection)]
    known = sa.select(*fields, *meet, *((first, last) if by_axis else ())).subquery()
    query = sa.select(*(known.c[column.name] for column in fields)).order_by(*(known.c[name] for name in in_order))
    query = query.where(*(known.c[name] == 1 for name in _meet_names(selection)))
    return query.where(*_overlap(known.c.first, known.c.last, selection)) if by_axis else query


def _meet_names(selection: Selection) -> list[str]:
    """Return the columns that say whether a fragment may have a value that is asked for, one a variable."""
    return [f"meets{place}" for place in range(len(selection.ranges))]


def _fragments(
    table: sa.Table, collection: CollectionRecord, version: int, selection: Selection, layers: Layers
) -> AnySelect:
    fields = (table.c[name] for name in _FIELDS[:-1])
    known = sa.case((table.c.axis_unique.is_(None), -1), (table.c.axis_unique, 1), else_=0).label("axis_unique")
    columns = *key_columns(table)[: len(collection.keys)], *fields, known
    meet = (
        may_meet(table, each, (id_ for id_, ids in layers.items() if each.variable_id in ids)).label(name)
        for name, each in zip(_meet_names(selection), selection.ranges, strict=True)
    )
    return chosen(table, (*columns, *meet), collection, version, selection)


def chosen(
    table: sa.Table,
    wanted: Iterable[sa.ColumnElement[Any]],
    collection: CollectionRecord,
    version: int,
    selection: Selection,
) -> AnySelect:
    """Select columns of the fragments in one of the tables that a version has, of the partitions of a selection.

    By their keys; each part has to meet bounds where the selection says so.
    """
    by_key = selection.keys is not None or selection.key_range is not None or selection.predicate is not None

    def compared(name: str) -> sa.ColumnElement[int]:
        column: sa.ColumnElement[int] = table.c[name]
        return column + 0 if by_key else column  # an expression has no index, and that of the keys is the right one

    columns = key_columns(table)
    if selection.keys is not None:  # each is looked up: of another condition too SQLite would read all, for each key
        columns = [column + 0 for column in columns]

    query = sa.select(*wanted).where(
        table.c.collection_id == collection.id, table.c.layer_id >= ROWS_LAYER, compared("begin_version") <= version
    )
    if table is tables.past_fragment:
        query = query.where(compared("end_version") > version)
    if selection.keys is not None:
        query = query.select_from(among_keys(table, table.c.collection_id == collection.id, len(collection.keys)))
    if selection.key_range is not None:
        query = query.where(*within_keys(columns, selection.key_range))
    if selection.predicate is not None:
        query = query.where(compile_predicate(selection.predicate, dict(zip(collection.keys, columns, strict=False))))
    return query.where(*_overlap(table.c.axis_min, table.c.axis_max, selection)) if selection.parts else query


def _overlap(
    first: sa.ColumnElement[Any], last: sa.ColumnElement[Any], selection: Selection
) -> list[sa.ColumnElement[bool]]:
    low, high = selection.axis_range
    return [
        *((last >= bigint(low),) if low is not None else ()),
        *((first <= bigint(high),) if high is not None else ()),
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
    connection: sa.Connection,
    collection: CollectionRecord,
    version: int,
    selection: Selection,
    layers: Layers = _NO_LAYERS,
) -> FragmentColumns:
    """Return the fragments of the partitions of a version, in the order of their keys.

    The layers, with the ids of their variables, are asked for where the selection is about values.
    """
    columns = _empty_columns(collection)
    keys, keep = selection.keys, selection.keep
    if keys is None or keys:
        parameters = {} if keys is None else keys_parameter(keys, len(collection.keys))
        result = connection.execute(fragments_query(collection, version, selection, layers), parameters)
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


def read_totals(
    connection: sa.Connection, collection: CollectionRecord, version: int, selection: Selection = _ALL
) -> Totals:
    """Return how many partitions, rows and bytes a version has, and how far its axis reaches."""
    fragments = fragments_query(collection, version, selection).order_by(None).subquery()
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


def read_keys(
    connection: sa.Connection, collection: CollectionRecord, version: int, selection: Selection
) -> set[KeyValues]:
    """Return the keys of the partitions of a version that meet the predicate of a selection; with all six values."""
    both = [tables.fragment, *([tables.past_fragment] if version < collection.head_version else [])]
    found: set[KeyValues] = set()
    for table in both:
        query = chosen(table, key_columns(table), collection, version, selection)
        found.update(map(tuple, connection.execute(query.where(table.c.layer_id == ROWS_LAYER).distinct())))
    return found


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
    """Select the keys of the live partitions in the ranges in :func:`ranges_parameter`, by ``of_collection``."""
    table = tables.fragment
    mine = table.c.collection_id == sa.bindparam("of_collection"), table.c.layer_id == ROWS_LAYER
    return sa.select(*key_columns(table)).distinct().select_from(among_ranges(table, sa.and_(*mine)))


def read_keys_between(connection: sa.Connection, collection_id: int, ranges: Iterable[KeyRange]) -> Iterator[KeyValues]:
    """Yield the keys of the live partitions in some ranges; with all six values."""
    if wanted := tuple(ranges):
        parameters = ranges_parameter(wanted) | {"of_collection": collection_id}
        yield from map(tuple, connection.execute(keys_between_query(), parameters))
