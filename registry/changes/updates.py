"""What a commit does to a collection, with its SQL."""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from ..errors import AlreadyExistsError, ConflictError, InvalidInputError
from ..records import ROWS_LAYER, SchemaRecord, Slot, Source, VariableRecord, Written, parse_name
from ..selection import Selection
from ..sql import queries, tables
from ..sql.creating import namespace_id
from ..sql.engine import database_clock
from .locked import Locked
from .values import AddVariables, ClosePartitions, EditSchema, PutFragments, RememberSources, Rename, Update

_CLOCKS_DIFFER = dt.timedelta(seconds=1)
"""What is "now" for a caller may be this much ahead: machines differ by some of it, and SQLite counts milliseconds."""

Counts = Mapping[str, int]
"""What was done, for the summary of the version."""


def apply(now: Locked, update: Update) -> Counts | None:
    """Do it; return what was done, None if it makes no version."""
    match update:
        case PutFragments(written):
            return _put_fragments(now, written)
        case ClosePartitions(selection, before):
            return _close_partitions(now, selection, before)
        case AddVariables(variables):
            return _add_variables(now, variables)
        case EditSchema(edit):
            return _edit_schema(now, edit)
        case RememberSources(sources):
            return _remember_sources(now, sources)
        case Rename(name):
            _rename(now, name)
            return None


def _put_fragments(now: Locked, written: Iterable[Written]) -> Counts:
    """Close what is live in the written slots, and insert the fragments."""
    fragments = {Slot(each.key, _number(now, each.layer)): each for each in written}
    _close(now, _replaced(now, fragments.keys()))
    if fragments:
        try:
            now.connection.execute(sa.insert(tables.fragment), [_row(now, *each) for each in fragments.items()])
        except IntegrityError as error:
            raise ConflictError(f"collection {now.record.name}: another writer was faster") from error
    return {}


def _number(now: Locked, layer: int | frozenset[int]) -> int:
    """Return the number of a layer; a set of variables that has none gets the next one."""
    if isinstance(layer, int):
        return layer
    known = next((id_ for id_, ids in now.layers.items() if ids == layer), None)
    if known is not None:
        return known
    id_ = 1 + max(now.layers, default=0)
    row = {"collection_id": now.id, "id": id_, "variable_ids": sorted(layer)}
    now.connection.execute(sa.insert(tables.layer).values(row))
    now.layers[id_] = layer
    return id_


def _replaced(now: Locked, written: Set[Slot]) -> list[Slot]:
    """Return the live slots that end where others are written."""
    rewritten = {slot.key for slot in written if slot.layer_id == ROWS_LAYER}
    covered = {
        Slot(slot.key, layer_id)
        for slot in written
        if slot.layer_id > ROWS_LAYER
        for layer_id, variables in now.layers.items()
        if variables <= now.layers.get(slot.layer_id, frozenset())
    }
    above = covered | written
    return [slot for slot in now.live if slot in above or (slot.layer_id > ROWS_LAYER and slot.key in rewritten)]


def _row(now: Locked, slot: Slot, fragment: Written) -> dict[str, Any]:
    # What was written with variables that this commit adds belongs to the schema that it makes.
    schema_version = now.version if fragment.schema_version is None else fragment.schema_version
    return {
        "collection_id": now.id,
        "layer_id": slot.layer_id,
        "begin_version": now.version,
        "written_version": now.version,
        "schema_version": schema_version,
        "uid": fragment.uid,
        "rows": fragment.rows,
        "nbytes": fragment.nbytes,
        "axis_min": fragment.axis_min,
        "axis_max": fragment.axis_max,
        "axis_unique": fragment.axis_unique,
        "transaction_id": now.transaction_id,
    } | queries.key_row(slot.key)


def _close(now: Locked, slots: Sequence[Slot]) -> None:
    """Move live fragments to the past ones: alive until this version."""
    if not slots:
        return
    live, past = tables.fragment, tables.past_fragment
    columns = [column.name for column in live.c]
    here = sa.and_(
        live.c.collection_id == now.id,
        live.c.layer_id == sa.bindparam("layer"),
        *(live.c[name] == sa.bindparam(f"of_{name}") for name in queries.KEY_NAMES),
    )
    moved = sa.select(*(live.c[name] for name in columns), sa.literal(now.version, sa.Integer)).where(here)
    where = [
        {"layer": slot.layer_id} | {f"of_{name}": value for name, value in queries.key_row(slot.key).items()}
        for slot in slots
    ]
    now.connection.execute(sa.insert(past).from_select([*columns, "end_version"], moved), where)
    now.connection.execute(sa.delete(live).where(here), where)


def _close_partitions(now: Locked, selection: Selection, before: dt.datetime | None) -> Counts | None:
    """Return how many partitions and rows; None if there are none."""
    head = now.version - 1
    last = head if before is None else _last_version(now, before)
    dropped = [
        partition
        for partition in queries.read_partitions(now.connection, now.collection, head, selection)
        if max(fragment.written_version for fragment in partition.fragments) <= last
    ]
    if not dropped:
        return None
    _close(now, [fragment.slot for partition in dropped for fragment in partition.fragments])
    return {"dropped": len(dropped), "rows": sum(partition.rows for partition in dropped)}


def _last_version(now: Locked, before: dt.datetime) -> int:
    """Return the last version committed before a time; raises InvalidInputError if that is to come."""
    clock = now.connection.execute(sa.select(database_clock())).scalar_one()
    if before > clock + _CLOCKS_DIFFER:
        raise InvalidInputError(
            f"the partitions of collection {now.record.name} that were written before {before:%Y-%m-%d %H:%M:%S} UTC: "
            f"that is in the future, for the database's clock says {clock:%Y-%m-%d %H:%M:%S} UTC. Is it a local time? "
            "Give it its zone, time.astimezone(). To drop every partition, say all=True"
        )
    table = tables.version
    earlier = table.c.collection_id == now.id, table.c.committed_at < before
    return now.connection.scalar(sa.select(sa.func.max(table.c.version)).where(*earlier)) or 0


def _add_variables(now: Locked, variables: Iterable[VariableRecord]) -> Counts:
    now.connection.execute(sa.insert(tables.variable), queries.variable_rows(variables, now.id, now.version))
    del now.schema
    return {}


def _edit_schema(now: Locked, edit: Callable[[SchemaRecord], SchemaRecord]) -> Counts | None:
    """End the rows of what changed, and begin new ones; None if nothing changed."""
    before, after = now.schema, edit(now.schema)
    closed = [old.id for old in before.variables if not any(_same(old, new) for new in after.variables)]
    begun = [new for new in after.variables if not any(_same(old, new) for old in before.variables)]
    kept = _same(before.attributes, after.attributes)
    if closed:
        _end(now, tables.variable, tables.variable.c.id.in_(closed))
    if begun:
        _add_variables(now, begun)
    if not kept:
        _end(now, tables.dataset_attributes)
        begin = {"collection_id": now.id, "begin_version": now.version, "attributes": after.attributes}
        now.connection.execute(sa.insert(tables.dataset_attributes).values(begin))
    return {} if closed or begun or not kept else None


def _same(old: object, new: object) -> bool:
    return old == new or repr(old) == repr(new)  # NaN, in attributes, is not equal to itself


def _end(now: Locked, table: sa.Table, *which: sa.ColumnElement[bool]) -> None:
    open_ = table.c.collection_id == now.id, table.c.end_version.is_(None), *which
    now.connection.execute(sa.update(table).where(*open_).values(end_version=now.version))


def _remember_sources(now: Locked, sources: Iterable[Source]) -> Counts:
    """End the rows of what is known, and begin new ones."""
    table, latest = tables.source, {source.name: source for source in sources}
    known = queries.read_sources(now.connection, now.id, latest)
    if known:
        again = table.c.collection_id == now.id, table.c.name == sa.bindparam("of_name"), table.c.end_version.is_(None)
        end = sa.update(table).where(*again).values(end_version=now.version)
        now.connection.execute(end, [{"of_name": name} for name in known])
    begin = {"collection_id": now.id, "begin_version": now.version}
    rows = [begin | {"name": name, "fingerprint": source.fingerprint} for name, source in latest.items()]
    if rows:
        now.connection.execute(sa.insert(table), rows)
    return {}


def _rename(now: Locked, full_name: str) -> None:
    """Raise AlreadyExistsError if the name is taken."""
    namespace, name = parse_name(full_name)
    if queries.read_collection(now.connection, namespace, name) is not None:
        raise AlreadyExistsError(f"there is a collection {full_name} already; choose another name")
    names = {"namespace_id": namespace_id(now.connection, namespace), "name": name}
    now.connection.execute(sa.update(tables.collection).where(tables.collection.c.id == now.id).values(names))
