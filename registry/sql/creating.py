"""Recording a collection with its first version, and forgetting one: there is no head to commit to then."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from ..errors import AlreadyExistsError, InvalidInputError
from ..records import (
    IMMUTABLE_LAYER,
    MARKER,
    BaseDefinition,
    CollectionDefinition,
    CollectionRecord,
    SchemaRecord,
    Slot,
    parse_name,
)
from . import queries, tables
from .bases import schema_at
from .engine import inserted_id
from .functions import database_clock
from .garbage import put_garbage
from .lookup import key_columns

PathOf = Callable[[Sequence[str], Slot, str], str]
"""What spells the path of a group below its location, from the names of the keys, a slot that it is in, and its uid."""


def record_collection(
    connection: sa.Connection, definition: CollectionDefinition, uid: str, version: Mapping[str, Any]
) -> CollectionRecord:
    """Record a new collection at version 0, of which some columns are given; return it.

    Its marker is no garbage from now on, whoever left one there. Raises AlreadyExistsError if the name is taken.
    """
    check_name(connection, definition)
    collection_id = _insert_collection(connection, definition, uid, version)
    garbage = tables.garbage.c
    marker = sa.and_(garbage.location == definition.location, garbage.path == MARKER)
    connection.execute(sa.delete(tables.garbage).where(marker))
    record = queries.read_head(connection, collection_id)
    assert record is not None  # it was inserted just now
    return record


def check_name(connection: sa.Connection, definition: CollectionDefinition) -> None:
    """Raise AlreadyExistsError if the name is taken."""
    if queries.read_collection(connection, *parse_name(definition.name)) is not None:
        raise AlreadyExistsError(f"there is a collection {definition.name} already; open it, or choose another name")


def namespace_id(connection: sa.Connection, namespace: str) -> int:
    """Return the id of a namespace, which is recorded if it is new."""
    query = sa.select(tables.namespace.c.id).where(tables.namespace.c.name == namespace)
    known: int | None = connection.scalar(query)
    if known is not None:
        return known
    try:
        with connection.begin_nested():
            return _insert(connection, tables.namespace, {"name": namespace})
    except IntegrityError:  # another one has recorded it just now
        return int(connection.execute(query).scalar_one())


def _insert_collection(
    connection: sa.Connection, definition: CollectionDefinition, uid: str, version: Mapping[str, Any]
) -> int:
    namespace, name = parse_name(definition.name)
    now = connection.execute(sa.select(database_clock())).scalar_one()
    fields = {
        field: getattr(definition, field)
        for field in definition.__dataclass_fields__
        if field not in ("name", "keys", "schema", "base")
    }
    collection_id = _insert(
        connection,
        tables.collection,
        fields
        | {
            "uid": uid,
            "namespace_id": namespace_id(connection, namespace),
            "name": name,
            "kind": "view" if definition.base else "collection",
            "base_id": definition.base and definition.base.collection.id,
        }
        | {"keys": list(definition.keys), "head_version": 0, "created_at": now},
    )
    _insert_schema(connection, collection_id, definition.schema)
    made = {"collection_id": collection_id, "version": 0, "committed_at": now, "operation": "create", "summary": {}}
    connection.execute(sa.insert(tables.version).values(made | dict(version)))
    return collection_id


def _insert_schema(connection: sa.Connection, collection_id: int, schema: SchemaRecord) -> None:
    begin = {"collection_id": collection_id, "begin_version": 0}
    connection.execute(sa.insert(tables.dataset_attributes).values(begin | {"attributes": schema.attributes}))
    if schema.variables:  # a view has none yet
        connection.execute(sa.insert(tables.variable), queries.variable_rows(schema.variables, collection_id, 0))


def _insert(connection: sa.Connection, table: sa.Table, row: Mapping[str, object]) -> int:
    return inserted_id(connection.execute(sa.insert(table).values(row)))


def check_shown(connection: sa.Connection, base: BaseDefinition, head: int) -> None:
    """Raise InvalidInputError if variables that a view is to show have been dropped meanwhile."""
    pinned = head if base.pinned_version is None else base.pinned_version
    if base.pinned_version is not None:  # it may have expired since it was planned
        queries.check_kept(connection, base.collection, base.pinned_version)
    alive = {each.id for each in schema_at(connection, base.collection, pinned).variables}
    if gone := [name for id_, name in base.shown.items() if id_ not in alive]:
        raise InvalidInputError(
            f"the variables {', '.join(gone)} of collection {base.collection.name} were dropped just now; create the "
            "view again"
        )


def record_view(connection: sa.Connection, view: CollectionRecord, base: BaseDefinition, head: int) -> None:
    """Record what a new view takes of its base, which is locked, and has this head."""
    begin = {"collection_id": view.id, "begin_version": 0}
    taken = {"pinned_version": base.pinned_version, "filters": base.filters}
    connection.execute(sa.insert(tables.view_state).values(begin | taken))
    shown = [begin | {"base_variable_id": id_, "name": name} for id_, name in base.shown.items()]
    connection.execute(sa.insert(tables.view_variable), shown)
    need = {"base_id": base.collection.id, "view_id": view.id}
    connection.execute(sa.insert(tables.view_need), [need | {"variable_id": id_} for id_ in base.shown])
    if base.definitions:
        known = [begin | {"id": number, "definition": each} for number, each in enumerate(base.definitions, 1)]
        connection.execute(sa.insert(tables.view_definition), known)
    row = tables.version.c
    first = sa.update(tables.version).where(row.collection_id == view.id, row.version == 0)
    connection.execute(first.values(base_version=head if base.pinned_version is None else base.pinned_version))


def break_views(connection: sa.Connection, base_id: int) -> None:
    """Leave the views of a collection without their base."""
    connection.execute(sa.update(tables.collection).where(tables.collection.c.base_id == base_id).values(base_id=None))


def forget_collection(connection: sa.Connection, collection: CollectionRecord, path_of: PathOf) -> None:
    """Forget a locked collection; what it had at any version is garbage then, and its marker.

    Its intents are left to those who recorded them: what they name may still be written.
    """
    paths = {MARKER: MARKER}
    for table in (tables.fragment, tables.past_fragment):
        mine = sa.and_(table.c.collection_id == collection.id, table.c.layer_id >= IMMUTABLE_LAYER)
        columns = *key_columns(table), table.c.axis_min, table.c.layer_id, table.c.group_uid, table.c.path
        for *keys, axis_min, layer_id, uid, path in connection.execute(sa.select(*columns).where(mine)):
            paths[uid] = path or path_of(collection.keys, Slot(tuple(keys), axis_min, layer_id), uid)
    now = connection.execute(sa.select(database_clock())).scalar_one()
    put_garbage(connection, collection, ((path, None) for path in paths.values()), now)
    for table in (tables.fragment, tables.past_fragment, tables.change, tables.index_entry, tables.statistic):
        connection.execute(sa.delete(table).where(table.c.collection_id == collection.id))
    connection.execute(sa.delete(tables.collection).where(tables.collection.c.id == collection.id))
