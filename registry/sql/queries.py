"""SELECT statements, and what their rows become."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import cache

import sqlalchemy as sa

from ..errors import NotFoundError, VersionExpiredError
from ..indexes import IndexRecord
from ..keys import KeyValues
from ..records import (
    CollectionRecord,
    Json,
    SchemaRecord,
    Source,
    SourceRecord,
    VariableRecord,
    Version,
    version_number,
)
from ..selection import Selection
from ..snapshot import Snapshot
from . import tables
from .engine import standby_note
from .fragments import read_columns, read_immutable
from .hunks import read_changing_versions
from .lookup import AnyRow, AnySelect, among_names, among_numbers, names_parameter, numbers_parameter

FULL_NAME = (tables.namespace.c.name + "/" + tables.collection.c.name).label("full_name")


def collections_query() -> AnySelect:
    """Select all collections, by full name."""
    return (
        sa.select(tables.collection, FULL_NAME)
        .join(tables.namespace, tables.namespace.c.id == tables.collection.c.namespace_id)
        .order_by(tables.namespace.c.name, tables.collection.c.name)
    )


# What every write asks is built once: building a statement costs more than executing it.


@cache
def collection_query() -> AnySelect:
    """Select one collection, by ``namespace`` and ``of_name``."""
    wanted = tables.namespace.c.name == sa.bindparam("namespace"), tables.collection.c.name == sa.bindparam("of_name")
    return collections_query().where(*wanted)


def read_collection(connection: sa.Connection, namespace: str, name: str) -> CollectionRecord | None:
    """Return one collection, None if there is none of that name."""
    row = connection.execute(collection_query(), {"namespace": namespace, "of_name": name}).one_or_none()
    return None if row is None else collection_record(row)


def matching_collections_query(namespace: str | None, text: str | None, variable: str | None) -> AnySelect:
    """Select the collections of a namespace, with a text in name or description, with a variable."""
    query = collections_query()
    if namespace is not None:
        query = query.where(tables.namespace.c.name == namespace)
    if text is not None:
        query = query.where(
            sa.or_(
                FULL_NAME.icontains(text, autoescape=True),
                tables.collection.c.description.icontains(text, autoescape=True),
            )
        )
    if variable is not None:
        alive = sa.select(tables.variable.c.collection_id).where(
            tables.variable.c.name == variable, tables.variable.c.end_version.is_(None)
        )
        query = query.where(tables.collection.c.id.in_(alive))
    return query


def collection_record(row: AnyRow) -> CollectionRecord:
    """Return the record of a row of :func:`collections_query`."""
    fields = row._mapping  # the documented way to a row's columns by name, underscore and all
    return CollectionRecord(
        **{name: fields[name] for name in CollectionRecord.__dataclass_fields__ if name not in ("name", "keys")},
        name=fields["full_name"],
        keys=tuple(fields["keys"]),
    )


@cache
def head_query() -> AnySelect:
    """Select one collection, by ``of_collection``."""
    return collections_query().where(tables.collection.c.id == sa.bindparam("of_collection"))


def read_head(connection: sa.Connection, collection_id: int) -> CollectionRecord | None:
    """Return a collection as it is now, None if it was dropped."""
    row = connection.execute(head_query(), {"of_collection": collection_id}).one_or_none()
    return None if row is None else collection_record(row)


def uid_of(connection: sa.Connection, collection_id: int) -> str | None:
    """Return the uid of the collection of a number, None for none."""
    return connection.scalar(sa.select(tables.collection.c.uid).where(tables.collection.c.id == collection_id))


@cache
def variables_query() -> AnySelect:
    """Select all variables that a collection ever had, under all their names, by id and time."""
    table = tables.variable
    mine = table.c.collection_id == sa.bindparam("of_collection")
    return sa.select(table).where(mine).order_by(table.c.id, table.c.begin_version)


@cache
def attributes_query() -> AnySelect:
    """Select the dataset attributes alive at a version."""
    table = tables.dataset_attributes
    end, version = table.c.end_version, sa.bindparam("at_version", type_=sa.Integer)
    mine = table.c.collection_id == sa.bindparam("of_collection")
    return sa.select(table.c.attributes).where(mine, table.c.begin_version <= version, end.is_(None) | (end > version))


def read_schema(connection: sa.Connection, collection_id: int, version: int) -> SchemaRecord:
    """Return the schema of a collection at a version."""
    schema = read_variables(connection, collection_id, version)
    return replace(schema, attributes=read_attributes(connection, collection_id, version))


def read_attributes(connection: sa.Connection, collection_id: int, version: int) -> Json:
    """Return the attributes of the dataset at a version."""
    wanted = {"of_collection": collection_id, "at_version": version}
    attributes: Json = connection.execute(attributes_query(), wanted).scalar_one()
    return attributes


def read_variables(connection: sa.Connection, collection_id: int, version: int) -> SchemaRecord:
    """Return the schema of a collection at a version, but for the attributes of the dataset."""
    rows = connection.execute(variables_query(), {"of_collection": collection_id}).all()
    lives: dict[int, list[tuple[int, int | None]]] = {}
    for row in rows:
        intervals = lives.setdefault(row.id, [])
        # A new name, or another attribute, begins a new row of the same variable.
        begin = intervals.pop()[0] if intervals and intervals[-1][1] == row.begin_version else row.begin_version
        intervals.append((begin, row.end_version))
    alive = [
        row for row in rows if row.begin_version <= version and (row.end_version is None or row.end_version > version)
    ]
    return SchemaRecord(
        variables=tuple(_variable_record(row, tuple(lives[row.id])) for row in alive),
        attributes={},
        next_id=1 + max(lives, default=-1),
        stored_names=tuple(dict.fromkeys(row.stored_name for row in rows)),
    )


def _variable_record(row: AnyRow, lives: tuple[tuple[int, int | None], ...]) -> VariableRecord:
    fields = {name: row._mapping[name] for name in VariableRecord.__dataclass_fields__ if name != "lives"}
    fields |= {name: tuple(fields[name]) for name in ("dimensions", "sizes")}
    return VariableRecord(**fields, lives=lives)


def variable_rows(variables: Iterable[VariableRecord], collection_id: int, version: int) -> list[dict[str, object]]:
    """Return the rows of variables that begin at a version."""
    begin = {"collection_id": collection_id, "begin_version": version}
    fields = [name for name in VariableRecord.__dataclass_fields__ if name != "lives"]
    return [begin | {name: getattr(variable, name) for name in fields} for variable in variables]


Layers = dict[int, frozenset[int]]
"""The ids of the variables of each layer of values."""


def read_layers(connection: sa.Connection, collection_id: int) -> Layers:
    """Return the layers of a collection."""
    return read_layers_and_indexes(connection, collection_id)[0]


def read_layers_and_indexes(connection: sa.Connection, collection_id: int) -> tuple[Layers, list[IndexRecord]]:
    """Return the layers of a collection, those of values and all indexes that there ever were."""
    rows = connection.execute(layers_query(), {"of_collection": collection_id}).all()
    return (
        {row.id: frozenset(row.variable_ids) for row in rows if row.definition is None},
        [IndexRecord.from_json(row.definition, *row[2:]) for row in rows if row.definition is not None],
    )


def alive(indexes: Iterable[IndexRecord], version: int) -> tuple[IndexRecord, ...]:
    """Return the indexes that there were at a version."""
    return tuple(
        each
        for each in indexes
        if each.begin_version <= version and (each.end_version is None or version < each.end_version)
    )


@cache
def layers_query() -> AnySelect:
    """Select the layers of a collection."""
    columns = tables.layer.c
    wanted = columns.variable_ids, columns.definition, columns.id, columns.begin_version, columns.end_version
    return sa.select(*wanted).where(columns.collection_id == sa.bindparam("of_collection")).order_by(columns.id.desc())


def read_snapshot(
    connection: sa.Connection, collection: CollectionRecord, version: int | Version | None, selection: Selection
) -> Snapshot:
    """Return a version of a collection: its schema, and the partitions of a selection."""
    number = check_version(connection, collection, version)
    schema = read_schema(connection, collection.id, number)
    layers, indexes = read_layers_and_indexes(connection, collection.id)
    return Snapshot(
        collection=collection,
        version=number,
        schema=schema,
        fragments=read_columns(connection, collection, number, selection.with_schema(schema), layers),
        immutable=read_immutable(connection, collection.id, number),
        layers=layers,
        indexes=alive(indexes, number),
    )


def check_version(connection: sa.Connection, collection: CollectionRecord, version: int | Version | None) -> int:
    """Return the number of a version that can be read, None being the head."""
    if version is None:
        return collection.head_version
    number = version_number(version)
    if not 0 <= number <= collection.head_version:
        raise _no_version(connection, collection, number)
    if number != collection.head_version:  # the head never expires
        check_kept(connection, collection, number)
    return number


def check_kept(connection: sa.Connection, collection: CollectionRecord, number: int) -> None:
    """Raise VersionExpiredError if a version, which there is, has expired."""
    table = tables.version
    mine = table.c.collection_id == collection.id, table.c.version == number
    expired_at = connection.execute(sa.select(table.c.expired_at).where(*mine)).scalar_one()
    if expired_at is not None:
        raise VersionExpiredError(
            f"version {number} of collection {collection.name} expired at {expired_at}; versions() tells which have not"
        )


def _no_version(connection: sa.Connection, collection: CollectionRecord, number: int) -> NotFoundError:
    note = standby_note(connection) if number > 0 else ""
    yet, what_to_do = (" yet", f"; {note}") if note else ("", "")
    return NotFoundError(
        f"collection {collection.name} has no version {number}{yet}: it has versions 0 to {collection.head_version}"
        f"{what_to_do}"
    )


def versions_query(collection_id: int, *, some: bool = False) -> AnySelect:
    """Select the versions of a collection, oldest first: all, or those in :func:`numbers_parameter`."""
    table = tables.version
    mine = table.c.collection_id == collection_id
    query = sa.select(table).order_by(table.c.version)
    return query.select_from(among_numbers(table, mine)) if some else query.where(mine)


@cache
def version_query() -> AnySelect:
    """Select one version, by ``of_collection`` and ``number``."""
    table = tables.version
    wanted = table.c.collection_id == sa.bindparam("of_collection"), table.c.version == sa.bindparam("number")
    return sa.select(table).where(*wanted)


def read_version(connection: sa.Connection, collection: CollectionRecord, version: int | Version | None) -> Version:
    """Return a version's record, the newest for None."""
    number = collection.head_version if version is None else version_number(version)
    row = connection.execute(version_query(), {"of_collection": collection.id, "number": number}).one_or_none()
    if row is None:
        raise _no_version(connection, collection, number)
    return version_record(row, collection.name)


def read_base_version(connection: sa.Connection, view_id: int, version: int) -> int:
    """Return the version of its base that a version of a view lies over."""
    row = connection.execute(version_query(), {"of_collection": view_id, "number": version}).one()
    return int(row.base_version)


def read_versions(
    connection: sa.Connection,
    collection: CollectionRecord,
    selection: Selection | None = None,
    limit: int | None = None,
    *,
    newest_first: bool = False,
) -> tuple[Version, ...]:
    """Return the versions, oldest first: all, or those that did something to the partitions of a selection."""
    parameters = {}
    if selection is not None:
        parameters = numbers_parameter(read_changing_versions(connection, collection, selection))
    query = versions_query(collection.id, some=selection is not None).limit(limit)
    if newest_first:
        query = query.order_by(None).order_by(tables.version.c.version.desc())
    return tuple(version_record(row, collection.name) for row in connection.execute(query, parameters))


def read_versions_since(
    connection: sa.Connection, planned: CollectionRecord, keys: Collection[KeyValues] | None
) -> tuple[Version, ...]:
    """Return the versions after the head that a record has: those that did something to some partitions, or all."""
    wanted = None if keys is None else Selection(keys={key[: len(planned.keys)] for key in keys})
    after = planned.head_version
    # What only moves rows, a rewrite for one, leaves no record of which partitions it touched.
    numbers = wanted and read_changing_versions(connection, planned, wanted, after)
    if numbers:
        rows = connection.execute(versions_query(planned.id, some=True), numbers_parameter(numbers))
    else:
        rows = connection.execute(versions_query(planned.id).where(tables.version.c.version > after))
    return tuple(version_record(row, planned.name) for row in rows)


def version_record(row: AnyRow, collection: str) -> Version:
    """Return the record of a row of :func:`versions_query`."""
    fields = row._mapping
    names = "operation", "message", "author", "login", "committed_at", "summary", "expired_at"
    return Version(collection=collection, number=fields["version"], **{name: fields[name] for name in names})


def versions_of(connection: sa.Connection, transaction_id: int) -> tuple[Version, ...]:
    """Return the versions that a transaction made, by collection."""
    table = tables.version
    query = (
        sa.select(table, FULL_NAME)
        .join(tables.collection, tables.collection.c.id == table.c.collection_id)
        .join(tables.namespace, tables.namespace.c.id == tables.collection.c.namespace_id)
        .where(table.c.transaction_id == transaction_id)
        .order_by(table.c.collection_id)
    )
    return tuple(version_record(row, row.full_name) for row in connection.execute(query))


def read_sources(connection: sa.Connection, collection_id: int, names: Iterable[str]) -> dict[str, SourceRecord]:
    """Return what is known of these sources, by name."""
    parameters = names_parameter(names) | {"of_collection": collection_id}
    return {
        name: SourceRecord(Source(name, fingerprint), begin_version)
        for name, fingerprint, begin_version in connection.execute(sources_query(), parameters)
    }


@cache
def sources_query() -> AnySelect:
    """Select what the head knows of the sources in :func:`names_parameter`, by ``of_collection``."""
    table = tables.source
    mine = table.c.collection_id == sa.bindparam("of_collection")
    columns = table.c.name, table.c.fingerprint, table.c.begin_version
    return sa.select(*columns).select_from(among_names(table, mine)).where(table.c.end_version.is_(None))
