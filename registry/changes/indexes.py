"""What a commit does to indexes: every part has a fragment of each, with entries or without.

Who writes rows, or what an index is computed from, brings the entries; where they are missing, since the writer did not
know of the index or cannot compute it, the part is unindexed from then on, and that is recorded, so that a look-up need
not search for such parts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from ..errors import AlreadyExistsError, InvalidInputError, NotFoundError
from ..indexes import IndexRecord
from ..keys import KeyValues
from ..records import IMMUTABLE_LAYER, ROWS_LAYER, Entry, FragmentRecord, Slot, Written
from ..sql import tables
from .locked import Locked
from .values import CreateIndex, DropIndex, PutFragments

Fragments = Mapping[Slot, Written]


def create_index(now: Locked, update: CreateIndex) -> Mapping[str, int]:
    """Number the index; raises AlreadyExistsError if its name is taken."""
    if any(each.name == update.index.name for each in now.indexes):
        raise AlreadyExistsError(f"collection {now.record.name} has an index {update.index.name} already")
    id_ = min((each.id for each in now.all_indexes), default=IMMUTABLE_LAYER) - 1
    index = replace(update.index, id=id_, begin_version=now.version)
    now.indexes.append(index)
    row = {"collection_id": now.id, "id": id_, "variable_ids": sorted(index.inputs), "definition": index.to_json()}
    now.write(sa.insert(tables.layer), row | {"begin_version": now.version})
    return {}


def drop_index(now: Locked, update: DropIndex) -> Mapping[str, int]:
    """End an index and its fragments; raises NotFoundError if there is none of that name."""
    index = next((each for each in now.indexes if each.name == update.name), None)
    if index is None:
        raise NotFoundError(f"collection {now.record.name} has no index {update.name} any more")
    layer, live, past = tables.layer, tables.fragment, tables.past_fragment
    mine = layer.c.collection_id == now.id, layer.c.id == index.id
    now.write(sa.update(layer).where(*mine), {"end_version": now.version})
    here = live.c.collection_id == now.id, live.c.layer_id == index.id
    names = [*(column.name for column in live.c), "end_version"]
    ended = sa.select(*live.c, sa.literal(now.version, sa.Integer)).where(*here)
    now.write_once(sa.insert(past).from_select(names, ended))
    now.write_once(sa.delete(live).where(*here))
    return {}


def check_inputs(now: Locked, dropped: Iterable[int]) -> None:
    """Raise InvalidInputError if an index is computed from variables that are dropped."""
    gone = {*dropped}
    for index in now.indexes:
        if names := [name for id_, name in index.inputs.items() if id_ in gone]:
            raise InvalidInputError(
                f"index {index.name} of collection {now.record.name} is computed from {', '.join(names)}: drop_index "
                "it first"
            )


def without_unknown(now: Locked, written: Iterable[Written]) -> list[Written]:
    """Return the fragments without those of indexes that are gone by now."""
    known = {each.uid for each in now.indexes}
    return [each for each in written if not isinstance(each.layer, str) or each.layer in known]


def number_of(now: Locked, uid: str) -> int:
    """Return the layer of an index that there is."""
    return next(each.id for each in now.indexes if each.uid == uid)


def unindexed(now: Locked, update: PutFragments, written: Fragments) -> dict[Slot, Written]:
    """Return fragments without entries: for the parts whose rows or inputs are written without any."""
    found: dict[Slot, Written] = {}
    changed = {(slot.key, slot.axis_min) for slot in written} | {(cut.key, cut.axis_min) for cut in update.cuts}
    for index in now.indexes:
        new = {slot: each for slot, each in written.items() if _concerns(now, index, slot)}
        parts = {(slot.key, slot.axis_min): each for slot, each in new.items()}
        if index.per == "partition":
            touched = {key for key, _ in parts} | {cut.key for cut in update.cuts} | {run.key for run in update.runs}
            parts |= _staying(now, update, touched)
        for (key, axis_min), each in parts.items():
            slot = Slot(key, axis_min, index.id)
            if index.per == "row" and slot in written:
                continue
            there = now.live.get(slot)
            if there is None or there.uid != index.unindexed or (key, axis_min) in changed:
                found[slot] = _without_entries(index, each)
    return found


def _concerns(now: Locked, index: IndexRecord, slot: Slot) -> bool:
    """Whether what is written in a slot is what an index is computed from."""
    if slot.layer_id <= ROWS_LAYER:
        return slot.layer_id == ROWS_LAYER
    return bool(now.layers[slot.layer_id] & index.inputs.keys())


def _staying(now: Locked, update: PutFragments, keys: Iterable[KeyValues]) -> dict[tuple[KeyValues, int], Any]:
    """Return the parts of some partitions that stay, whole or cut."""
    cut = {(each.key, each.axis_min) for each in update.cuts}
    ended = {run.key for run in update.runs if run.axis_range is None}
    whole = {
        (key, part.axis_min): part
        for key in keys
        if key not in ended
        for part in now.parts.get(key, ())
        if (key, part.axis_min) not in cut
    }
    return whole | {(each.key, kept.axis_min): kept for each in update.cuts for kept in each.kept}


def _without_entries(index: IndexRecord, part: Written | FragmentRecord) -> Written:
    return Written(
        key=(),
        layer=index.uid,
        uid=index.unindexed,
        rows=part.rows,
        nbytes=0,
        schema_version=None,
        axis_min=part.axis_min,
        axis_max=part.axis_max,
        axis_unique=part.axis_unique,
    )


def index_the_rest(now: Locked) -> None:
    """Have each part that a new index says nothing of recorded as unindexed."""
    live = tables.fragment
    for index in (each for each in now.indexes if each.begin_version == now.version):
        other = live.alias("other")
        same = (other.c[name] == live.c[name] for name in ("collection_id", *_PART))
        there = sa.exists().where(*same, other.c.layer_id == index.id)
        changed: dict[str, Any] = {
            **{"layer_id": index.id, "group_uid": index.unindexed, "begin_version": now.version},
            **{"written_version": now.version, "start": 0, "nbytes": 0, "transaction_id": now.transaction_id},
            "path": None,
        }
        columns = [
            sa.literal(changed[column.name], column.type) if column.name in changed else column for column in live.c
        ]
        columns[[column.name for column in live.c].index("group_rows")] = live.c.rows
        rows = sa.select(*columns).where(live.c.collection_id == now.id, live.c.layer_id == ROWS_LAYER, ~there)
        now.write_once(sa.insert(live).from_select([column.name for column in live.c], rows))


_PART = (*(f"k{place}" for place in range(6)), "axis_min")


def entry_rows(now: Locked, entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return the rows of entries of indexes that there are."""
    layers = {each.uid: each for each in now.indexes}
    numbers: dict[str, int] = {}
    rows = []
    for each in entries:
        if each.of_index not in layers:
            continue
        index = layers[each.of_index]
        kinds = ["t" if kind == "text" else "v" for kind in index.columns.values()]
        values = {f"{kind}{place}": value for place, (kind, value) in enumerate(zip(kinds, each.values, strict=True))}
        numbers[each.uid] = numbers.get(each.uid, -1) + 1
        rows.append(
            dict.fromkeys(_VALUES)
            | {"collection_id": now.id, "uid": each.uid, "number": numbers[each.uid], "layer_id": index.id}
            | {"row_start": each.row_start, "row_stop": each.row_stop}
            | {"axis_min": each.axis_min, "axis_max": each.axis_max}
            | values
        )
    return rows


_VALUES = [column.name for column in tables.index_entry.c if column.name[0] in "vt" and column.name[1:].isdigit()]
