"""What a commit does to the tables, step by step, inside one SQL transaction: lock, check, close, insert.

Called by :class:`registry.transaction.Transaction` alone, in the order in which the functions stand here.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from .errors import ConflictError, InvalidInputError
from .keys import MAX_KEYS, format_key, name_values
from .records import IMMUTABLE_LAYER, ROWS_LAYER, Change, CollectionRecord, Slot, Version
from .sql import queries, tables

KEY_NAMES = [f"k{i}" for i in range(MAX_KEYS)]


def check_changes(changes: Sequence[Change]) -> None:
    """Refuse what contradicts itself, before any of it is done."""
    names = [change.collection.name for change in changes]
    for change in changes:
        if names.count(change.collection.name) > 1:
            raise InvalidInputError(f"collection {change.collection.name} is changed twice in one commit")
        slots = Counter(fragment.slot for fragment in change.writes)
        for slot, count in slots.items():
            if count > 1:
                what = _describe(change.collection, slot)
                raise InvalidInputError(f"collection {change.collection.name}: {what} is written twice in one commit")


def lock_collections(connection: sa.Connection, collections: Iterable[CollectionRecord]) -> dict[int, int]:
    """Lock the collections in the order of their ids, and return their head versions; raises ConflictError."""
    table = tables.collection
    wanted = {collection.id: collection for collection in collections}
    rows = connection.execute(
        sa.select(table.c.id, table.c.uid, table.c.head_version)
        .where(table.c.id.in_(wanted))
        .order_by(table.c.id)
        .with_for_update(key_share=True)
    )
    heads: dict[int, int] = {row.id: row.head_version for row in rows if row.uid == wanted[row.id].uid}
    for id_, collection in wanted.items():
        if id_ not in heads:
            raise ConflictError(f"collection {collection.name} was dropped while it was being written")
    return heads


def read_live(connection: sa.Connection, change: Change) -> dict[Slot, str]:
    """Return the uid live in each occupied slot of all keys that a change reads or writes."""
    slots = (*change.requires, *(fragment.slot for fragment in change.writes))
    return queries.read_live_uids(connection, change.collection.id, (slot.key for slot in slots))


def check_reads(connection: sa.Connection, change: Change, live: Mapping[Slot, str]) -> None:
    """Raise ConflictError unless everything a change depends on is as it was read."""
    changed = [slot for slot, uid in change.requires.items() if live.get(slot) != uid]
    # Of the partitions that were read, a layer that is new may hold what the result depends on.
    read = {slot.key for slot in change.requires if slot.layer_id == ROWS_LAYER}
    new = [slot for slot in live if slot.layer_id > ROWS_LAYER and slot.key in read and slot not in change.requires]
    if new and change.variables is not None:
        layers = queries.read_layers(connection, change.collection.id)
        new = [slot for slot in new if layers.get(slot.layer_id, frozenset()) & change.variables]
    changed += new
    for limits in change.ranges:
        between = map(tuple, connection.execute(queries.keys_between_query(change.collection.id, limits)))
        changed += [Slot(key) for key in between if key not in read]
    if changed:
        keys = tuple(dict.fromkeys(_describe(change.collection, slot) for slot in sorted(changed)))
        shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
        raise ConflictError(
            f"collection {change.collection.name}: another writer changed {shown} while this {change.operation} "
            "was being prepared; nothing was written, repeat it",
            keys,
        )


def _describe(collection: CollectionRecord, slot: Slot) -> str:
    if slot.layer_id == IMMUTABLE_LAYER:
        return "the immutable variables"
    return format_key(name_values(collection.keys, slot.key[: len(collection.keys)]))


def check_variables(connection: sa.Connection, change: Change, head: int) -> None:
    """Raise ConflictError if a layer is written whose variables another writer has dropped since."""
    written = {fragment.slot.layer_id for fragment in change.writes if fragment.slot.layer_id > ROWS_LAYER}
    if not written:
        return
    layers = queries.read_layers(connection, change.collection.id)
    alive = {variable.id for variable in queries.read_schema(connection, change.collection.id, head).variables}
    alive |= {variable.id for variable in change.adds}
    if any(layers.get(layer_id, frozenset()) - alive for layer_id in written):
        raise ConflictError(
            f"collection {change.collection.name}: another writer dropped a variable that this {change.operation} "
            "writes; nothing was written"
        )


def apply(
    connection: sa.Connection, change: Change, live: Mapping[Slot, str], version: int, transaction_id: int
) -> None:
    """Close what is live in the written slots, and make the new fragments live."""
    written = {fragment.slot for fragment in change.writes}
    rewritten = {slot.key for slot in written if slot.layer_id == ROWS_LAYER}
    covered = _covered_layers(connection, change.collection.id, written)
    closed = [
        slot
        for slot in live
        if slot in written or (slot.layer_id > ROWS_LAYER and (slot.key in rewritten or slot in covered))
    ]
    close(connection, change.collection.id, closed, version)
    rows = [
        {
            "collection_id": change.collection.id,
            "layer_id": fragment.slot.layer_id,
            "begin_version": version,
            "written_version": version,
            # What was written with added variables belongs to the schema that this very version makes.
            "schema_version": version if change.adds else change.schema_version,
            "uid": fragment.uid,
            "rows": fragment.rows,
            "nbytes": fragment.nbytes,
            "axis_min": fragment.axis_min,
            "axis_max": fragment.axis_max,
            "axis_unique": fragment.axis_unique,
            "transaction_id": transaction_id,
        }
        | dict(zip(KEY_NAMES, fragment.slot.key, strict=True))
        for fragment in change.writes
    ]
    if rows:
        try:
            connection.execute(sa.insert(tables.fragment), rows)
        except IntegrityError as error:
            raise ConflictError(f"collection {change.collection.name}: another writer was faster") from error


def _covered_layers(connection: sa.Connection, collection_id: int, written: Iterable[Slot]) -> set[Slot]:
    """Return the slots of layers all of whose variables a layer that is written has too."""
    above = [slot for slot in written if slot.layer_id > ROWS_LAYER]
    layers = queries.read_layers(connection, collection_id) if above else {}
    return {
        Slot(slot.key, layer_id)
        for slot in above
        for layer_id, variables in layers.items()
        if variables <= layers.get(slot.layer_id, frozenset())
    }


def close(connection: sa.Connection, collection_id: int, slots: Sequence[Slot], version: int) -> None:
    """Move live fragments to the past ones: alive until ``version``."""
    if not slots:
        return
    live, past = tables.fragment, tables.past_fragment
    columns = [column.name for column in live.c]
    here = sa.and_(
        live.c.collection_id == collection_id,
        live.c.layer_id == sa.bindparam("layer"),
        *(live.c[name] == sa.bindparam(f"of_{name}") for name in KEY_NAMES),
    )
    moved = sa.select(*(live.c[name] for name in columns), sa.literal(version, sa.Integer)).where(here)
    where = [
        {"layer": slot.layer_id} | {f"of_{name}": value for name, value in zip(KEY_NAMES, slot.key, strict=True)}
        for slot in slots
    ]
    connection.execute(sa.insert(past).from_select([*columns, "end_version"], moved), where)
    connection.execute(sa.delete(live).where(here), where)


def remember_sources(connection: sa.Connection, change: Change, version: int) -> None:
    """Record what was inserted; raises ConflictError if it must be new and is not."""
    collection_id = change.collection.id
    seen = queries.read_seen_sources(connection, collection_id, change.sources)
    if seen and change.unseen:
        raise ConflictError(
            f"collection {change.collection.name}: another writer committed {', '.join(sorted(seen)[:5])} meanwhile; "
            "nothing was written, repeat the insert"
        )
    table = tables.source
    again = sa.and_(table.c.collection_id == collection_id, table.c.name == sa.bindparam("of_name"))
    if seen:
        connection.execute(sa.update(table).where(again).values(version=version), [{"of_name": name} for name in seen])
    new = [
        {"collection_id": collection_id, "name": name, "version": version}
        for name in dict.fromkeys(change.sources)
        if name not in seen
    ]
    if new:
        connection.execute(sa.insert(table), new)


def add_variables(connection: sa.Connection, change: Change, version: int) -> None:
    """Add variables to the schema; raises ConflictError if it changed meanwhile."""
    if not change.adds:
        return
    now = queries.read_schema(connection, change.collection.id, version)
    # What is written with this version's schema holds all of its variables: nobody may have added another meanwhile.
    taken = {variable.name for variable in now.variables} & {variable.name for variable in change.adds}
    if taken or now.next_id != min(variable.id for variable in change.adds):
        raise ConflictError(
            f"collection {change.collection.name}: another writer changed its variables meanwhile; nothing was "
            "written, repeat it"
        )
    connection.execute(sa.insert(tables.variable), queries.variable_rows(change.adds, change.collection.id, version))


def add_version(connection: sa.Connection, collection: CollectionRecord, row: dict[str, Any]) -> Version:
    """Record the version, not earlier than the last one, and raise the head."""
    last = connection.scalar(_last_commit(), {"of_collection": collection.id})
    row = row | {"committed_at": max(row["committed_at"], last) if last else row["committed_at"]}
    connection.execute(sa.insert(tables.version), row | {"collection_id": collection.id})
    head = {"head_version": row["version"]}
    connection.execute(sa.update(tables.collection).where(tables.collection.c.id == collection.id).values(head))
    fields = ("operation", "message", "author", "committed_at", "summary")
    return Version(collection.name, row["version"], **{name: row[name] for name in fields})


@cache
def _last_commit() -> sa.Select[tuple[dt.datetime]]:
    table = tables.version
    mine = table.c.collection_id == sa.bindparam("of_collection")
    return sa.select(table.c.committed_at).where(mine).order_by(table.c.version.desc()).limit(1)
