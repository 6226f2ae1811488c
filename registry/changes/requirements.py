"""Whether what a commit demands still holds: the read set of a write, compared under the lock."""

from collections.abc import Iterable, Mapping
from typing import Any

from ..keys import KeyValues
from ..records import ROWS_LAYER, AxisSpan, Conflict, Identity, Slot, SourceRecord
from ..sql.fragments import read_keys_between
from .locked import Locked
from .values import (
    AttributesUnchanged,
    NoOtherPart,
    NothingBetween,
    OwnUnchanged,
    Requirement,
    SchemaUnchanged,
    SourcesUnchanged,
    Unchanged,
    VariablesAlive,
)


def conflict(now: Locked, requirement: Requirement) -> Conflict | None:
    """Return what is not as it was read."""
    match requirement:
        case Unchanged(slots, variables):
            return _in_slots([*_replaced(now, slots), *_new_layers(now, slots, variables)])
        case NoOtherPart(spans, known):
            found = [slot for span in spans for slot in _parts(now, span)]
            return _in_slots([slot for slot in found if (slot.key, slot.axis_min) not in known])
        case NothingBetween(ranges, keys):
            there = read_keys_between(now.connection, now.id, ranges)
            return _in_slots([Slot(key, 0) for key in there if key not in keys])
        case VariablesAlive():
            return requirement.conflict(now.schema)
        case AttributesUnchanged(attributes):
            return _of_attributes(now, attributes)
        case SchemaUnchanged(next_id, names):
            # What is written with the schema of the new version holds all of its variables.
            taken = names & {variable.name for variable in now.schema.variables}
            return Conflict("changed its variables") if taken or now.schema.next_id != next_id else None
        case SourcesUnchanged(known):
            return _of_sources(now, known)
        case OwnUnchanged(fragments):
            return _of_own(now, fragments)


def _of_attributes(now: Locked, attributes: Mapping[int, Mapping[str, Any]]) -> Conflict | None:
    changed = [
        variable.name
        for variable in now.schema.variables
        # As text: NaN is not equal to itself.
        if any(repr(variable.attributes.get(n)) != repr(v) for n, v in attributes.get(variable.id, {}).items())
    ]
    return Conflict(f"changed the attributes of {', '.join(changed)}") if changed else None


def _of_sources(now: Locked, known: Mapping[str, int | None]) -> Conflict | None:
    changed = [name for name, version in known.items() if _version(now.sources.get(name)) != version]
    if not changed:
        return None
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    return Conflict(f"committed {', '.join(changed[:5])}{more}")


def _of_own(now: Locked, fragments: Mapping[KeyValues, frozenset[tuple[Slot, Identity]]]) -> Conflict | None:
    live: dict[KeyValues, set[tuple[Slot, Identity]]] = {}
    for slot, fragment in now.live.items():
        live.setdefault(slot.key, set()).add((slot, fragment.identity))
    # Without a place: what a view has is computed from one version of its base, its partitions together.
    changed = any(live.get(key, set()) != expected for key, expected in fragments.items())
    return Conflict("computed the same partitions") if changed else None


def _version(record: SourceRecord | None) -> int | None:
    return None if record is None else record.begin_version


def _in_slots(slots: list[Slot]) -> Conflict | None:
    return Conflict("changed", tuple(dict.fromkeys(slots))) if slots else None


def _replaced(now: Locked, slots: Mapping[Slot, Identity | None]) -> Iterable[Slot]:
    for slot, identity in slots.items():
        fragment = now.live.get(slot)
        if (fragment and fragment.identity) != identity:
            yield slot


def _new_layers(now: Locked, slots: Mapping[Slot, Identity | None], variables: frozenset[int] | None) -> Iterable[Slot]:
    """Return the layers that came over parts that were read, and may hold what the result depends on."""
    read = {(slot.key, slot.axis_min) for slot in slots if slot.layer_id == ROWS_LAYER}
    for slot in now.live:
        new = slot.layer_id > ROWS_LAYER and (slot.key, slot.axis_min) in read and slot not in slots
        if new and (variables is None or now.layers.get(slot.layer_id, frozenset()) & variables):
            yield slot


def _parts(now: Locked, span: AxisSpan) -> Iterable[Slot]:
    """Return the parts that a range of a partition's axis meets."""
    key, low, high = span
    for part in now.parts.get(key, ()):
        if (high is None or part.axis_min <= high) and (low is None or part.axis_max is None or part.axis_max >= low):
            yield part.slot
