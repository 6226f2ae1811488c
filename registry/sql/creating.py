"""Recording a collection with its first version, and forgetting one: there is no head to commit to then."""

import uuid
from collections.abc import Mapping

import sqlalchemy as sa

from ..errors import AlreadyExistsError
from ..records import IMMUTABLE_SLOT, CollectionDefinition, CollectionRecord, SchemaRecord, Slot, parse_name
from . import queries, tables
from .engine import database_clock, inserted_id
from .fragments import key_columns


def record_collection(connection: sa.Connection, definition: CollectionDefinition, author: str) -> CollectionRecord:
    """Record a new collection at version 0, and return it; raises AlreadyExistsError if name or location is taken."""
    _check_free(connection, definition)
    collection_id = _insert_collection(connection, definition, author)
    record = queries.read_head(connection, collection_id)
    assert record is not None  # it was inserted just now
    return record


def _check_free(connection: sa.Connection, definition: CollectionDefinition) -> None:
    if queries.read_collection(connection, *parse_name(definition.name)) is not None:
        raise AlreadyExistsError(f"there is a collection {definition.name} already; open it, or choose another name")
    rows = connection.execute(
        queries.collections_query().with_only_columns(queries.FULL_NAME, tables.collection.c.location)
    )
    for name, location in rows:
        if _overlap(definition.location, location):
            raise AlreadyExistsError(
                f"the location {definition.location} overlaps with {location}, which belongs to collection {name}"
            )


def _overlap(location: str, other: str) -> bool:
    return f"{location}/".startswith(f"{other}/") or f"{other}/".startswith(f"{location}/")


def namespace_id(connection: sa.Connection, namespace: str) -> int:
    """Return the id of a namespace, which is recorded if it is new."""
    known = connection.scalar(sa.select(tables.namespace.c.id).where(tables.namespace.c.name == namespace))
    return known or _insert(connection, tables.namespace, {"name": namespace})


def _insert_collection(connection: sa.Connection, definition: CollectionDefinition, author: str) -> int:
    namespace, name = parse_name(definition.name)
    now = connection.execute(sa.select(database_clock())).scalar_one()
    fields = {
        field: getattr(definition, field)
        for field in definition.__dataclass_fields__
        if field not in ("name", "keys", "schema")
    }
    collection_id = _insert(
        connection,
        tables.collection,
        fields
        | {
            "uid": uuid.uuid4().hex,
            "namespace_id": namespace_id(connection, namespace),
            "name": name,
            "kind": "collection",
        }
        | {"keys": list(definition.keys), "head_version": 0, "created_at": now},
    )
    _insert_schema(connection, collection_id, definition.schema)
    version = {"collection_id": collection_id, "version": 0, "committed_at": now, "author": author}
    connection.execute(
        sa.insert(tables.version).values(version | {"message": "", "operation": "create", "summary": {}})
    )
    return collection_id


def _insert_schema(connection: sa.Connection, collection_id: int, schema: SchemaRecord) -> None:
    begin = {"collection_id": collection_id, "begin_version": 0}
    connection.execute(sa.insert(tables.dataset_attributes).values(begin | {"attributes": schema.attributes}))
    connection.execute(sa.insert(tables.variable), queries.variable_rows(schema.variables, collection_id, 0))


def _insert(connection: sa.Connection, table: sa.Table, row: Mapping[str, object]) -> int:
    return inserted_id(connection.execute(sa.insert(table).values(row)))


def forget_collection(connection: sa.Connection, collection_id: int) -> list[tuple[Slot, str, str | None]]:
    """Forget a locked collection; return the groups that it had at any version, or was about to have.

    They are given by a slot, the uid and the recorded path; of intents, the path alone says where they are.
    """
    groups: dict[str, tuple[Slot, str, str | None]] = {}
    for table in (tables.fragment, tables.past_fragment):
        mine = table.c.collection_id == collection_id
        columns = *key_columns(table), table.c.axis_min, table.c.layer_id, table.c.group_uid, table.c.path
        for *keys, axis_min, layer_id, uid, path in connection.execute(sa.select(*columns).where(mine)):
            groups[uid] = Slot(tuple(keys), axis_min, layer_id), uid, path
    intents = sa.select(tables.staged.c.uid, tables.staged.c.path).where(tables.staged.c.collection_id == collection_id)
    groups |= {uid: (IMMUTABLE_SLOT, uid, path) for uid, path in connection.execute(intents)}
    for table in (tables.fragment, tables.past_fragment, tables.change, tables.staged):
        connection.execute(sa.delete(table).where(table.c.collection_id == collection_id))
    connection.execute(sa.delete(tables.collection).where(tables.collection.c.id == collection_id))
    return list(groups.values())
