"""What commits did, as they recorded it: SELECT statements on hunks, and what their rows become."""

import json
import operator
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

import sqlalchemy as sa

from ..keys import MAX_KEYS, KeyValues
from ..records import IMMUTABLE_LAYER, ROWS_LAYER, CollectionRecord, Hunk
from ..selection import Selection
from . import tables
from .lookup import AnySelect, Lookup, among_keys, given, key_columns, keys_parameter, numbers_in
from .where import compile_predicate

_HUNK = "layer_id", "row_start", "removed", "added", "axis_min", "axis_max"


@cache
def hunks_query() -> AnySelect:
    """Select the hunks of the versions after ``since``, up to ``until``, by ``of_collection``: by key and version."""
    table = tables.change
    within = table.c.version > sa.bindparam("since"), table.c.version <= sa.bindparam("until")
    mine = table.c.collection_id == sa.bindparam("of_collection"), table.c.layer_id >= ROWS_LAYER
    # Expressions are in the order of no index: the few versions are found by theirs, and what is found is sorted.
    order = *(column + 0 for column in key_columns(table)), table.c.version
    columns = *key_columns(table), table.c.version, *(table.c[name] for name in _HUNK)
    return sa.select(*columns).where(*mine, *within).order_by(*order)


def read_hunks(
    connection: sa.Connection, collection: CollectionRecord, since: int, until: int
) -> Iterator[tuple[int, Hunk]]:
    """Yield the versions between two, and what they did to partitions, in the order of keys and versions."""
    wanted = {"of_collection": collection.id, "since": since, "until": until}
    for row in connection.execute(hunks_query(), wanted):
        yield row.version, Hunk(tuple(row[:MAX_KEYS]), *row[MAX_KEYS + 1 :])


@cache
def hunks_of_keys_query() -> AnySelect:
    """Select the hunks of partitions, up to the version ``until``, by ``of_collection``: by key and version.

    :func:`read_hunks_of` has the parameter of the keys, each with the version after which its hunks are wanted.
    """
    table, wanted = tables.change, given("of_keys")
    columns = key_columns(table)
    *key, since = numbers_in(wanted, MAX_KEYS + 1)
    mine = table.c.collection_id == sa.bindparam("of_collection"), *map(operator.eq, columns, key)
    within = table.c.version > since, table.c.version <= sa.bindparam("until")
    of_keys = Lookup(wanted, table, sa.and_(*mine, *within))
    fields = table.c.version, *(table.c[name] for name in _HUNK)
    query = sa.select(*columns, *fields).select_from(of_keys).where(table.c.layer_id >= ROWS_LAYER)
    return query.order_by(*(column + 0 for column in columns), table.c.version)


def read_hunks_of(
    connection: sa.Connection, collection: CollectionRecord, since: Mapping[KeyValues, int], until: int
) -> dict[KeyValues, list[tuple[int, list[Hunk]]]]:
    """Return what versions did to partitions, each after a version of its own: by key, in the order of the versions."""
    wanted = json.dumps([[*key, version] for key, version in sorted(since.items()) if version < until])
    found: dict[KeyValues, list[tuple[int, list[Hunk]]]] = {}
    rows = connection.execute(
        hunks_of_keys_query(), {"of_collection": collection.id, "of_keys": wanted, "until": until}
    )
    for row in rows:
        hunk = Hunk(tuple(row[:MAX_KEYS]), *row[MAX_KEYS + 1 :])
        commits = found.setdefault(hunk.key, [])
        if not commits or commits[-1][0] != row.version:
            commits.append((row.version, []))
        commits[-1][1].append(hunk)
    return found


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
    wanted = given("of_keys")
    # The last row of each key alone is looked at, whatever its history.
    here = sa.select(table.c.version).where(
        *known, *map(operator.eq, columns, numbers_in(wanted)), table.c.version <= version
    )
    last = here.order_by(table.c.version.desc()).limit(1).correlate(wanted).scalar_subquery()
    return sa.select(*numbers_in(wanted), last).select_from(wanted)


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


def read_last_immutables(connection: sa.Connection, collection: CollectionRecord, until: int) -> int:
    """Return the last version, up to one, that stored immutable variables; 0 if none did."""
    table = tables.change
    here = table.c.collection_id == collection.id, *(column == 0 for column in key_columns(table))
    last = sa.select(sa.func.max(table.c.version)).where(
        *here, table.c.version <= until, table.c.layer_id == IMMUTABLE_LAYER
    )
    return connection.scalar(last) or 0
