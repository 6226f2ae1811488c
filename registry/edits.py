"""Changes that touch the registry alone: of a schema, of names, and the dropping of partitions and collections.

Each is planned inside its one SQL transaction, after the collection is locked: there is nothing to conflict with.
Whatever the number of partitions, a change of the schema takes the same few statements.
"""

import datetime as dt
from collections.abc import Callable, Collection, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from .commit import add_version, close, lock_collections
from .errors import AlreadyExistsError
from .migrations import check_revision
from .predicate import Predicate
from .records import CollectionRecord, PartitionRecord, SchemaRecord, Slot, Version, parse_name
from .selection import Selection
from .sql import queries, tables
from .sql.engine import database_clock, writing

Keep = Callable[[PartitionRecord], bool]


def change_schema(
    url: URL, collection: CollectionRecord, edit: Callable[[SchemaRecord], SchemaRecord], row: dict[str, Any]
) -> Version | None:
    """Replace the schema of the head by what ``edit`` makes of it; return the version, None if nothing changed."""
    with writing(url) as connection:
        collection, row = _begin(connection, collection, row)
        head = collection.head_version
        before = queries.read_schema(connection, collection.id, head)
        after = edit(before)
        closed = [old.id for old in before.variables if not any(_same(old, new) for new in after.variables)]
        begun = [new for new in after.variables if not any(_same(old, new) for old in before.variables)]
        if not closed and not begun and _same(before.attributes, after.attributes):
            return None
        table = tables.variable
        open_ = sa.and_(table.c.collection_id == collection.id, table.c.end_version.is_(None))
        if closed:
            connection.execute(sa.update(table).where(open_, table.c.id.in_(closed)).values(end_version=head + 1))
        if begun:
            connection.execute(sa.insert(table), queries.variable_rows(begun, collection.id, head + 1))
        if not _same(before.attributes, after.attributes):
            _replace_attributes(connection, collection.id, after.attributes, head + 1)
        return add_version(connection, collection, row)


def _same(old: object, new: object) -> bool:
    return old == new or repr(old) == repr(new)  # NaN, in attributes, is not equal to itself


def _replace_attributes(connection: sa.Connection, collection_id: int, attributes: Any, version: int) -> None:
    table = tables.dataset_attributes
    open_ = sa.and_(table.c.collection_id == collection_id, table.c.end_version.is_(None))
    connection.execute(sa.update(table).where(open_).values(end_version=version))
    begin = {"collection_id": collection_id, "begin_version": version}
    connection.execute(sa.insert(table).values(begin | {"attributes": attributes}))


def drop_partitions(
    url: URL,
    collection: CollectionRecord,
    predicate: Predicate | None,
    keep: Keep,
    written_before: dt.datetime | None,
    row: dict[str, Any],
) -> Version | None:
    """Close partitions: those of a predicate that ``keep`` does not keep, last written before a time.

    Return the version, None if there are none.
    """
    with writing(url) as connection:
        collection, row = _begin(connection, collection, row)
        head = collection.head_version
        rows = connection.execute(queries.fragments_query(collection, head, Selection(predicate)))
        last = head if written_before is None else _last_version_before(connection, collection.id, written_before)
        dropped = [
            partition
            for partition in queries.partition_records(collection, rows)
            if not keep(partition) and max(fragment.written_version for fragment in partition.fragments) <= last
        ]
        if not dropped:
            return None
        close(connection, collection.id, _slots(dropped), head + 1)
        counts = {"dropped": len(dropped), "rows": sum(partition.rows for partition in dropped)}
        return add_version(connection, collection, row | {"summary": counts})


def _slots(partitions: Iterable[PartitionRecord]) -> list[Slot]:
    return [fragment.slot for partition in partitions for fragment in partition.fragments]


def _last_version_before(connection: sa.Connection, collection_id: int, time: dt.datetime) -> int:
    table = tables.version
    query = sa.select(sa.func.max(table.c.version)).where(
        table.c.collection_id == collection_id, table.c.committed_at < time
    )
    return connection.scalar(query) or 0


def layer_of(url: URL, collection: CollectionRecord, variables: Collection[int]) -> int:
    """Return the layer of a set of variables, a new one if there is none yet."""
    with writing(url) as connection:
        check_revision(connection)
        lock_collections(connection, [collection])
        layers = queries.read_layers(connection, collection.id)
        known = [id_ for id_, ids in layers.items() if ids == frozenset(variables)]
        if known:
            return known[0]
        id_ = 1 + max(layers, default=0)
        row = {"collection_id": collection.id, "id": id_, "variable_ids": sorted(variables)}
        connection.execute(sa.insert(tables.layer).values(row))
        return id_


def rename(url: URL, collection: CollectionRecord, new_name: str) -> None:
    """Give a collection another full name."""
    namespace, name = parse_name(new_name)
    with writing(url) as connection:
        check_revision(connection)
        lock_collections(connection, [collection])
        if queries.read_collection(connection, namespace, name) is not None:
            raise AlreadyExistsError(f"there is a collection {new_name} already; choose another name")
        known = connection.scalar(sa.select(tables.namespace.c.id).where(tables.namespace.c.name == namespace))
        if known is None:
            known = connection.execute(sa.insert(tables.namespace).values(name=namespace)).inserted_primary_key[0]  # type: ignore[index]  # it was an INSERT
        names = {"namespace_id": known, "name": name}
        connection.execute(sa.update(tables.collection).where(tables.collection.c.id == collection.id).values(names))


def drop(url: URL, collection: CollectionRecord) -> list[tuple[Slot, str, str | None]]:
    """Forget a collection; return the fragments it had at any version, or was about to have: slot, uid, path."""
    with writing(url) as connection:
        check_revision(connection)
        lock_collections(connection, [collection])
        fragments: list[tuple[Slot, str, str | None]] = []
        for table in (tables.fragment, tables.past_fragment, tables.staged):
            path = table.c.path if "path" in table.c else sa.null()
            columns = *queries.key_columns(table), table.c.layer_id, table.c.uid, path
            mine = table.c.collection_id == collection.id
            rows = connection.execute(sa.select(*columns).where(mine))
            fragments += [(Slot(tuple(keys), layer_id), uid, path) for *keys, layer_id, uid, path in rows]
            connection.execute(sa.delete(table).where(mine))
        connection.execute(sa.delete(tables.collection).where(tables.collection.c.id == collection.id))
        return fragments


def _begin(
    connection: sa.Connection, collection: CollectionRecord, row: dict[str, Any]
) -> tuple[CollectionRecord, dict[str, Any]]:
    """Lock the collection; return its record as it is now, and the row of its next version."""
    check_revision(connection)
    lock_collections(connection, [collection])
    locked = queries.read_head(connection, collection.id)
    assert locked is not None  # nobody drops what is locked
    now = connection.execute(sa.select(database_clock())).scalar_one()
    version = {"version": locked.head_version + 1, "committed_at": now}
    return locked, {"transaction_id": None, "summary": {}} | row | version
