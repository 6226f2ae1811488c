"""What a commit does to a collection, with its SQL: what is there is read first, and all is written together."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from ..errors import AlreadyExistsError, ConflictError, InvalidInputError
from ..keys import KeyValues, pad_key
from ..records import (
    ROWS_LAYER,
    Cut,
    Hunk,
    Kept,
    Layer,
    Slot,
    Source,
    Statistic,
    VariableRecord,
    Written,
    parse_name,
)
from ..sql import queries, tables
from ..sql.creating import namespace_id
from ..sql.fragments import read_partitions
from ..sql.functions import database_clock
from ..sql.hunks import read_last_changes
from ..sql.lookup import key_row
from ..sql.moving import KEY, PART, SLOT, keeping, moving
from ..sql.statistics import read_statistics, statistic_row
from .hunks import hunks_of_layers, hunks_of_runs, joined
from .indexes import (
    check_inputs,
    create_index,
    drop_index,
    entry_rows,
    index_the_rest,
    number_of,
    unindexed,
    without_unknown,
)
from .locked import Locked, end, same
from .values import (
    AddVariables,
    ClosePartitions,
    CreateIndex,
    DropIndex,
    EditSchema,
    EditView,
    PutFragments,
    PutOwn,
    PutStatistics,
    RecordDefinitions,
    RememberSources,
    Rename,
    Update,
)
from .views import check_needs, edit_view, own_schemas

_CLOCKS_DIFFER = dt.timedelta(seconds=1)
"""What is "now" for a caller may be this much ahead: machines differ by some of it, and SQLite counts milliseconds."""

Counts = Mapping[str, int]
"""What was done, for the summary of the version."""


def apply(now: Locked, update: Update) -> Counts | None:
    """Have it written with the commit; return what is done, None if it makes no version."""
    match update:
        case PutFragments():
            return _put_fragments(now, update)
        case PutOwn():
            return _put_own(now, update)
        case PutStatistics(statistics):
            return _put_statistics(now, statistics)
        case ClosePartitions():
            return _close_partitions(now, update)
        case AddVariables(variables):
            return _add_variables(now, variables)
        case EditSchema():
            return _edit_schema(now, update)
        case EditView() | RecordDefinitions():
            return edit_view(now, update)
        case CreateIndex():
            return create_index(now, update)
        case DropIndex():
            return drop_index(now, update)
        case RememberSources(sources):
            return _remember_sources(now, sources)
        case Rename(name):
            _rename(now, name)
            return None


def _put_fragments(now: Locked, update: PutFragments) -> Counts:
    """Close what ends, insert what is kept of it and the fragments written, and record the hunks."""
    known = without_unknown(now, update.written)
    written = {Slot(each.key, each.axis_min, _number(now, each.layer)): each for each in known}
    written |= unindexed(now, update, written)
    covered = _covered(now, written.keys())
    _check_free(now, update, written.keys() - set(covered))
    hunks = joined([*hunks_of_runs(now.parts, update), *hunks_of_layers(now.parts, written.keys())])
    _close(now, KEY, [_of(now, run.key) for run in update.runs if run.axis_range is None])
    _close(now, PART, [_of(now, cut.key, cut.axis_min) for cut in update.cuts])
    _close(now, SLOT, [_of(now, slot.key, slot.axis_min, slot.layer_id) for slot in covered])
    _keep(now, update.cuts)
    now.write(sa.insert(tables.fragment), [_row(now, *each) for each in written.items()])
    index_the_rest(now)
    _record(now, hunks)
    now.write(sa.insert(tables.index_entry), entry_rows(now, update.entries))
    now.write(sa.insert(tables.statistic), [statistic_row(now.id, each) for each in update.statistics])
    return {}


def _put_statistics(now: Locked, statistics: Sequence[Statistic]) -> Counts | None:
    """Record what is not known yet; None if all of it is. Groups never change, so what is known is right."""
    known = read_statistics(now.connection, now.id, {each.variable_id for each in statistics})
    places = {(each.uid, each.variable_id, each.row_start) for each in known}
    new = [each for each in statistics if (each.uid, each.variable_id, each.row_start) not in places]
    now.write(sa.insert(tables.statistic), [statistic_row(now.id, each) for each in new])
    return {} if new else None


def _put_own(now: Locked, update: PutOwn) -> Counts | None:
    """Close what a view has in some partitions, and insert what it has there from now on; None for no partitions."""
    written = [(Slot(each.key, each.axis_min, _number(now, each.layer)), each) for each in update.written]
    new = [(slot, each) for slot, each in written if each.written_version is None]
    hunks = joined(
        Hunk(slot.key, slot.layer_id, slot.axis_min, each.rows, each.rows, *update.bounds.get(slot.key, (None, None)))
        for slot, each in new
    )
    _close(now, KEY, [_of(now, key) for key in update.keys])
    now.write(sa.insert(tables.fragment), [_row(now, *each) for each in written])
    _record(now, hunks)
    return {} if update.keys else None


def _check_free(now: Locked, update: PutFragments, slots: Iterable[Slot]) -> None:
    """Raise ConflictError if something is live in slots where the update ends nothing: it came unseen."""
    ended = {run.key for run in update.runs if run.axis_range is None}
    cut = {(cut.key, cut.axis_min) for cut in update.cuts}
    taken = [
        slot for slot in slots if slot in now.live and slot.key not in ended and (slot.key, slot.axis_min) not in cut
    ]
    if taken:
        raise ConflictError(f"collection {now.record.name}: another writer was faster; nothing was written, repeat it")


def _record(now: Locked, hunks: Iterable[Hunk]) -> None:
    rows = [
        {"collection_id": now.id, "version": now.version, **key_row(hunk.key)}
        | {name: getattr(hunk, name) for name in _HUNK_FIELDS}
        for hunk in hunks
    ]
    now.write(sa.insert(tables.change), rows)


def _number(now: Locked, layer: Layer) -> int:
    """Return the number of a layer; a set of variables that has none gets the next one."""
    if isinstance(layer, int):
        return layer
    if isinstance(layer, str):
        return number_of(now, layer)
    known = next((id_ for id_, ids in now.layers.items() if ids == layer), None)
    if known is not None:
        return known
    id_ = 1 + max(now.layers, default=now.state.own_ids if now.record.kind == "view" else ROWS_LAYER)
    now.write(sa.insert(tables.layer), {"collection_id": now.id, "id": id_, "variable_ids": sorted(layer)})
    now.layers[id_] = layer
    return id_


def _covered(now: Locked, written: Set[Slot]) -> list[Slot]:
    """Return the live slots that end since a layer with all of their variables comes over the same part."""
    new = [slot for slot in written if slot.layer_id > ROWS_LAYER]
    covers = {
        layer_id: {id_ for id_, ids in now.layers.items() if ids <= now.layers.get(layer_id, frozenset())}
        for layer_id in {slot.layer_id for slot in new}
    }
    covered = {Slot(slot.key, slot.axis_min, id_) for slot in new for id_ in covers[slot.layer_id]}
    return [slot for slot in now.live if slot.layer_id != ROWS_LAYER and (slot in written or slot in covered)]


def _row(now: Locked, slot: Slot, fragment: Written) -> dict[str, Any]:
    # What was written with variables that this commit adds belongs to the schema that it makes.
    schema_version = now.version if fragment.schema_version is None else fragment.schema_version
    written_version = now.version if fragment.written_version is None else fragment.written_version
    return {
        "collection_id": now.id,
        "axis_min": slot.axis_min,
        "layer_id": slot.layer_id,
        "begin_version": now.version,
        "written_version": written_version,
        "schema_version": schema_version,
        "group_uid": fragment.uid,
        "start": fragment.start,
        "rows": fragment.rows,
        "group_rows": fragment.rows if fragment.group_rows is None else fragment.group_rows,
        "packed": False,
        "base_version": fragment.base_version,
        "base_row": fragment.base_row,
        "nbytes": fragment.nbytes,
        "axis_max": fragment.axis_max,
        "axis_unique": fragment.axis_unique,
        "transaction_id": now.transaction_id,
    } | key_row(slot.key)


_HUNK_FIELDS = ("layer_id", "row_start", "removed", "added", "axis_min", "axis_max")


def _of(now: Locked, key: KeyValues, *more: int) -> dict[str, int]:
    """Return the parameters of what is done to a partition, a part or a slot."""
    place = {f"of_{name}": value for name, value in zip(SLOT, (*key, *more), strict=False)}
    return {"of_collection": now.id, "now": now.version, **place}


def _close(now: Locked, columns: tuple[str, ...], which: Sequence[Mapping[str, int]]) -> None:
    """Move live fragments to the past ones: alive until this version. Partitions, parts or slots, by these columns."""
    for statement in moving(columns):
        now.write(statement, which)


def _keep(now: Locked, cuts: Iterable[Cut]) -> None:
    """Insert what is kept of the parts just closed: fewer rows of the same groups, in all layers.

    What an index knows of whole partitions is not true of what is left of them.
    """
    whole = {index.id for index in now.indexes if index.per == "partition"}
    kept = [
        _of(now, cut.key, cut.axis_min, layer_id)
        | {f"new_{name}": getattr(each, name) for name in Kept.__dataclass_fields__}
        for cut in cuts
        for each in cut.kept
        for layer_id in now.layers_of(cut.key, cut.axis_min)
        if layer_id not in whole
    ]
    now.write(keeping(), kept)


def _close_partitions(now: Locked, update: ClosePartitions) -> Counts | None:
    """Return how many partitions and rows; None if there are none."""
    head = now.version - 1
    dropped = read_partitions(now.connection, now.collection, head, update.selection)
    if update.age is not None:
        limit = _axis_value(_clock(now)) - update.age
        dropped = tuple(each for each in dropped if each.bounds[1] < limit)
    if update.before is not None:
        last = _last_version(now, update.before)
        changed = read_last_changes(now.connection, now.collection, head, [each.values for each in dropped])
        dropped = tuple(each for each in dropped if changed.get(each.values, 0) <= last)
    if not dropped:
        return None
    keys = [pad_key(partition.values) for partition in dropped]
    _close(now, KEY, [_of(now, key) for key in keys])
    _record(
        now, (Hunk(key, ROWS_LAYER, 0, each.rows, 0, *each.bounds) for key, each in zip(keys, dropped, strict=True))
    )
    return {"dropped": len(dropped), "rows": sum(partition.rows for partition in dropped)}


def _clock(now: Locked) -> dt.datetime:
    clock: dt.datetime = now.connection.execute(sa.select(database_clock())).scalar_one()
    return clock


def _axis_value(time: dt.datetime) -> int:
    """Return a time as an axis has it: ns since 1970."""
    return (time - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1) * 1000


def _last_version(now: Locked, before: dt.datetime) -> int:
    """Return the last version committed before a time; raises InvalidInputError if that is to come."""
    clock = _clock(now)
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
    now.write(sa.insert(tables.variable), queries.variable_rows(variables, now.id, now.version))
    return {}


def _edit_schema(now: Locked, update: EditSchema) -> Counts | None:
    """End the rows of what changed, and begin new ones; None if nothing changed."""
    if now.record.kind == "view":
        before, after, shown = own_schemas(now, update)
    else:
        before = queries.read_schema(now.connection, now.id, now.version)
        after, shown = update.edit(before), False
        dropped = {each.id for each in before.variables} - {each.id for each in after.variables}
        check_needs(now, dropped, break_views=update.break_views)
        check_inputs(now, dropped)
    closed = [old.id for old in before.variables if not any(same(old, new) for new in after.variables)]
    begun = [new for new in after.variables if not any(same(old, new) for old in before.variables)]
    kept = same(before.attributes, after.attributes)
    if closed:
        end(now, tables.variable, tables.variable.c.id.in_(closed))
    if begun:
        _add_variables(now, begun)
    if not kept:
        end(now, tables.dataset_attributes)
        begin = {"collection_id": now.id, "begin_version": now.version}
        now.write(sa.insert(tables.dataset_attributes), begin | {"attributes": after.attributes})
    return {} if closed or begun or shown or not kept else None


def _remember_sources(now: Locked, sources: Iterable[Source]) -> Counts:
    """End the rows of what is known, and begin new ones."""
    latest = {source.name: source for source in sources}
    here = {"collection_id": now.id, "begin_version": now.version}
    now.write(
        _forgetting(), [{"of_collection": now.id, "of_name": n, "now": now.version} for n in latest if n in now.sources]
    )
    now.write(sa.insert(tables.source), [here | {"name": n, "fingerprint": latest[n].fingerprint} for n in latest])
    return {}


@cache
def _forgetting() -> sa.Update:
    row = tables.source.c
    mine = row.collection_id == sa.bindparam("of_collection"), row.name == sa.bindparam("of_name")
    return sa.update(tables.source).where(*mine, row.end_version.is_(None)).values(end_version=sa.bindparam("now"))


def _rename(now: Locked, full_name: str) -> None:
    """Raise AlreadyExistsError if the name is taken."""
    namespace, name = parse_name(full_name)
    if queries.read_collection(now.connection, namespace, name) is not None:
        raise AlreadyExistsError(f"there is a collection {full_name} already; choose another name")
    names = {"namespace_id": namespace_id(now.connection, namespace), "name": name}
    try:
        now.connection.execute(sa.update(tables.collection).where(tables.collection.c.id == now.id).values(names))
    except IntegrityError as error:
        raise AlreadyExistsError(f"the name {full_name} was taken just now; choose another name") from error
