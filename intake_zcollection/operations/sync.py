"""Syncing a view: what of its own values is stale, and computing just that."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from registry import (
    Asked,
    Definition,
    Difference,
    KeyValues,
    PartitionChange,
    PartitionKey,
    RowChange,
    Signature,
    Stale,
    Version,
    columns_of,
    name_values,
    pad_key,
)
from registry.changes import EditView, Taken
from registry.overlay import Rows, first_reason, joined

from ..errors import InvalidInputError
from ..execution import Execution
from ..functions import import_function
from ..handle import Handle
from ..reading.selection import NO_PARTITIONS, Selected, Selection
from ..reading.window import Call
from ..writing.plan import Again, Plan, Step
from ..writing.updating import Updating
from ..writing.write import write


def stale(handle: Handle, selection: Selection, base_version: int | None = None) -> Difference:
    """Return what of a view's own values has to be computed, and why; see :meth:`intake_zcollection.View.stale`."""
    asked = Asked(stale="fill", tells=True, base_version=base_version)
    return _difference(handle.select(replace(selection, asked=asked)))


@dataclass(eq=False)
class Syncing:
    """A sync that was asked for."""

    pinned_version: int | None
    done: Difference | None = field(default=None, init=False)
    """What was stale on the head that was planned last."""

    def plan(self, handle: Handle, head: Selected, _: Again | None) -> Plan | None:
        """Return the steps of all definitions, on what is stale of their outputs."""
        self.done = _difference(head)
        over, name = head.own, head.collection.name
        plans = []
        for definition in over.definitions:
            if rows := _rows(head, definition):
                plan = _updating(head, definition).plan(handle, head, None, rows)
                plans += [plan] if plan else []
        ended = _gone(head)
        moves = self.pinned_version is not None or (not plans and _is_awaited(handle, head))
        if not (plans or ended or moves):
            return None
        edits = (EditView(pinned_version=self.pinned_version, moves=self.pinned_version is None),) if moves else ()
        return Plan(
            head,
            "sync",
            f"sync {name}",
            _counted_once(step for plan in plans for step in plan.steps),
            tuple(need for plan in plans for need in plan.requirements),
            edits,
            {"updated": 0, "rows": 0},
            tuple(each for plan in plans for each in plan.computes),
            ended,
        )


def _is_awaited(handle: Handle, head: Selected) -> bool:
    """Whether views over this one wait for a version of it that is over the newest one of its base."""
    if not handle.registry.views_of(handle.record):
        return False
    last = handle.at(head.version).select(NO_PARTITIONS)
    return last.own.base_version < head.own.base_version


def sync(
    handle: Handle, syncing: Syncing, selection: Selection, how: Execution, *, dry_run: bool, signature: Signature
) -> Difference:
    """Compute what is stale of what has a definition; see :meth:`intake_zcollection.View.sync`."""
    if syncing.pinned_version is not None:
        _check_pin(handle, syncing.pinned_version)
    if dry_run:
        return stale(handle, selection, syncing.pinned_version)
    asked = Asked(stale="fill", tells=True, base_version=syncing.pinned_version)
    plan = partial(syncing.plan, handle)
    write(handle, plan, how, signature=signature, selection=replace(selection, asked=asked))
    assert syncing.done is not None  # it was planned at least once
    return syncing.done


def set_filters(handle: Handle, filters: str | None, signature: Signature) -> Version:
    """Have a view take other partitions of its base; see :meth:`intake_zcollection.View.set_filters`."""
    return handle.commit("set_filters", EditView(filters=Taken(filters)), signature=signature)


def _check_pin(handle: Handle, version: int) -> None:
    """Raise InvalidInputError for a version before that which it was over last: changes are told forward alone, and
    own values that lie over later rows, of partitions that it takes or not, would be seen beside others.
    """
    base, name = handle.base, handle.record.name
    assert base is not None  # it is a view's
    base.at(version).select(NO_PARTITIONS)
    newest = handle.at(handle.newest().number).select(NO_PARTITIONS).own.base_version
    if version < newest:
        raise InvalidInputError(
            f"view {name} was over version {newest} of {base.record.name}: it can be pinned there or later, and "
            f"not at version {version}; create another view for that"
        )


def _counted_once(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Return steps, of which several of one partition count as one: that of most rows."""
    every = tuple(steps)
    most = {step.key: step for step in sorted(every, key=lambda step: step.counts["rows"])}
    return tuple(step if step is most[step.key] else replace(step, counts={}) for step in every)


def _updating(head: Selected, definition: Definition) -> Updating:
    names = {each.id: name for name, each in head.schema.variables.items()}
    if any(id_ not in names for id_ in definition.inputs):
        made = ", ".join(names[id_] for id_ in definition.outputs)
        raise InvalidInputError(
            f"view {head.collection.name} computes {made} from variables that its base has no more: update {made} by "
            "another function"
        )
    assert definition.function is not None  # no other is recorded
    function = import_function(f"view {head.collection.name}", definition.function)
    call = Call(function, definition.args, definition.kwargs)
    return Updating(
        call,
        [names[id_] for id_ in definition.inputs],
        [names[id_] for id_ in definition.outputs],
        definition.depth,
        definition.trim,
        definition.rowwise,
        definition.code_version,
    )


def _rows(head: Selected, definition: Definition) -> dict[KeyValues, tuple[Rows, ...]]:
    """Return the partitions, and their rows, in which an output is stale."""
    over = head.own
    found: dict[KeyValues, tuple[Rows, ...]] = {}
    sizes = dict(zip((pad_key(tuple(each)) for each in head.rows.values.tolist()), head.rows.sizes, strict=True))
    for key, by_variable in over.stale.items():
        stale = [by_variable[id_] for id_ in definition.outputs if id_ in by_variable]
        if stale and definition.rowwise:
            found[key] = tuple(joined(rows for each in stale for rows in each.rows))
        elif stale:
            found[key] = ((0, sizes[key]),)
    return found


def _gone(head: Selected) -> tuple[KeyValues, ...]:
    """Return the partitions of which the view has own values, and which its base has not any more."""
    over = head.own
    there = {pad_key(tuple(each)) for each in head.rows.values.tolist()}
    return tuple(sorted(over.live.keys() - there))


def _difference(head: Selected) -> Difference:
    """Return what is stale as a difference: rows that have to be computed, and of which variables."""
    over, schema, bounds = head.own, head.snapshot.schema, head.bounds
    changes = [
        _change(key, bounds[columns_of(key)], found)
        for key in head.rows.keys
        if (found := over.stale.get(columns_of(key)))
    ]
    own = frozenset(each.id for each in schema.variables if each.id >= over.own_ids)
    for values in _gone(head):
        key = name_values(head.collection.keys, values[: len(head.collection.keys)])
        rows = RowChange((0, max(each.at[1] for each in over.live[values])), (0, 0), own)
        changes.append(PartitionChange(key, "removed", (rows,), (None, None), "gone"))
    partitions = {each.key: each for each in sorted(changes, key=lambda each: columns_of(each.key))}
    version = head.version
    return Difference(head.collection, version, version, partitions, schema, schema, False, over.base_version, True)


def _change(key: PartitionKey, bounds: tuple[int, int], stale: Mapping[int, Stale]) -> PartitionChange:
    ranges = joined(rows for each in stale.values() for rows in each.rows)
    changed = tuple(RowChange(rows, rows, frozenset(stale)) for rows in ranges)
    return PartitionChange(key, "changed", changed, bounds, first_reason(stale.values()))
