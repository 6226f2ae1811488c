"""Whether what a commit demands still holds: the read set of a write, compared under the lock."""

from collections.abc import Iterable, Mapping

from ..records import ROWS_LAYER, Conflict, Identity, KeyRange, Slot, SourceRecord
from ..sql import queries
from .locked import Locked
from .values import NothingBetween, Requirement, SchemaUnchanged, SourcesUnchanged, Unchanged, VariablesAlive


def conflict(now: Locked, requirement: Requirement) -> Conflict | None:
    """Return what is not as it was read."""
    match requirement:
        case Unchanged(slots, variables):
            return _in_slots([*_replaced(now, slots), *_new_layers(now, slots, variables)])
        case NothingBetween(ranges, known):
            return _in_slots([slot for limits in ranges for slot in _partitions(now, limits) if slot.key not in known])
        case VariablesAlive(ids):
            dropped = ids - {variable.id for variable in now.schema.variables}
            return Conflict("dropped a variable that it writes") if dropped else None
        case SchemaUnchanged(next_id, names):
            # What is written with the schema of the new version holds all of its variables.
            taken = names & {variable.name for variable in now.schema.variables}
            return Conflict("changed its variables") if taken or now.schema.next_id != next_id else None
        case SourcesUnchanged(known):
            return _of_sources(now, known)


def _of_sources(now: Locked, known: Mapping[str, int | None]) -> Conflict | None:
    there = queries.read_sources(now.connection, now.id, known)
    changed = [name for name, version in known.items() if _version(there.get(name)) != version]
    if not changed:
        return None
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    return Conflict(f"committed {', '.join(changed[:5])}{more}")


def _version(record: SourceRecord | None) -> int | None:
    return None if record is None else record.begin_version


def _in_slots(slots: list[Slot]) -> Conflict | None:
    return Conflict("changed", tuple(slots)) if slots else None


def _replaced(now: Locked, slots: Mapping[Slot, Identity | None]) -> Iterable[Slot]:
    return (slot for slot, identity in slots.items() if now.live.get(slot) != identity)


def _new_layers(now: Locked, slots: Mapping[Slot, Identity | None], variables: frozenset[int] | None) -> Iterable[Slot]:
    """Return the layers that came over rows that were read, and may hold what the result depends on."""
    read = {slot.key for slot in slots if slot.layer_id == ROWS_LAYER}
    new = [slot for slot in now.live if slot.layer_id > ROWS_LAYER and slot.key in read and slot not in slots]
    if not new or variables is None:
        return new
    return [slot for slot in new if now.layers.get(slot.layer_id, frozenset()) & variables]


def _partitions(now: Locked, limits: KeyRange) -> Iterable[Slot]:
    return (Slot(tuple(key)) for key in now.connection.execute(queries.keys_between_query(now.id, limits)))
