"""Indexes: creating one, and indexing what is there; dropping one."""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

from registry import IndexRecord, KeyValues, Signature, Version, format_key
from registry.changes import CreateIndex, DropIndex, NoOtherPart, Unchanged, VariablesAlive
from registry.indexes import Choice, ColumnKind, Wanted
from registry.records import ROWS_LAYER

from ..errors import AlreadyExistsError, InvalidInputError
from ..execution import Execution
from ..functions import path_of_function
from ..handle import Handle
from ..reading.indexing import Indexer, check_columns, find_index, kind_of
from ..reading.selection import NO_PARTITIONS, Selected, Selection
from ..schema import Schema, SchemaVariable
from ..schema.names import check_choice, find_variable
from ..writing.derived import IndexJob
from ..writing.existing import Existing
from ..writing.plan import Again, Plan, Step, is_wanted
from ..writing.write import write

Per = Literal["row", "partition"]
OnMissing = Literal["defer", "raise"]

_NOTHING = Wanted({})


@dataclass(frozen=True)
class Indexing:
    """An index that was asked for: what it plans on any head."""

    indexer: Indexer
    is_new: bool

    def plan(self, handle: Handle, head: Selected, again: Again | None) -> Plan | None:
        """Return a step per partition with parts that are not indexed; of a new index, all are.

        None if there is nothing to do.
        """
        record = self.indexer.record
        wanted = None if self.is_new else self._unindexed(handle, head)
        partitions = [each for each in Existing.all_of(head) if is_wanted(each.key, again)]
        steps = tuple(
            self._step(handle, head, existing, numbers)
            for existing in partitions
            if (numbers := _parts(existing, wanted))
        )
        if not steps and not self.is_new:
            return None
        alive = VariablesAlive({each.id: each.name for each in self.indexer.inputs(head.schema)})
        updates = (CreateIndex(record),) if self.is_new else ()
        title, summary = f"index {head.collection.name} by {record.name}", {"partitions": 0, "parts": 0}
        return Plan(head, "create_index", title, steps, (alive,), updates, summary)

    def _unindexed(self, handle: Handle, head: Selected) -> frozenset[tuple[KeyValues, int]]:
        record = find_index(head.snapshot.indexes, self.indexer.record.name, head.collection.name)
        nothing = Wanted({name: Choice(frozenset()) for name in record.columns})
        return frozenset(handle.registry.look_up(head.collection, head.version, record, nothing).unindexed)

    def _step(self, handle: Handle, head: Selected, existing: Existing, numbers: list[int]) -> Step:
        inputs = frozenset(self.indexer.record.inputs)
        rows = existing.table if len(numbers) == len(existing.table.parts) else existing.table.take(numbers)
        (key,) = existing.table.keys
        job = IndexJob(key, head.schema, existing.origin(handle.location, rows), self.indexer)
        layers = head.snapshot.layers
        slots = {
            fragment.slot: fragment.identity
            for fragment in existing.record.fragments
            if fragment.layer_id == ROWS_LAYER or layers[fragment.layer_id] & inputs
        }
        known = frozenset((slot.key, slot.axis_min) for slot in slots)
        needs = Unchanged(slots, inputs), NoOtherPart(((existing.key, None, None),), known)
        counts = {"partitions": 1, "parts": len(numbers)}
        return Step(existing.key, job, {}, needs, counts, title=str(existing.record))


def _parts(existing: Existing, wanted: frozenset[tuple[KeyValues, int]] | None) -> list[int]:
    lows = existing.bounds.lows.tolist()
    return [number for number, low in enumerate(lows) if wanted is None or (existing.key, low) in wanted]


def create_index(
    handle: Handle,
    name: str,
    columns: Iterable[str],
    func: Callable[..., Any] | None,
    *,
    inputs: Iterable[str] | None,
    per: Per,
    on_missing: OnMissing,
    how: Execution,
    signature: Signature,
) -> Version:
    """Create an index, or index what an index knows nothing of; see :meth:`Collection.create_index`."""
    record = _record(handle, name, check_columns(columns, handle.record.name), func, inputs, per, on_missing)
    head = handle.select(Selection())
    known = next((each for each in head.snapshot.indexes if each.name == name), None)
    if known is not None and not _is_same(known, record):
        raise AlreadyExistsError(
            f"collection {handle.record.name} has an index {name}, which is computed in another way: drop_index it "
            "first, or choose another name"
        )
    indexer = Indexer(known or record, handle.record.name, func)
    if known is None:
        indexer = replace(indexer, record=replace(record, columns=_kinds(indexer, head)))
        write(handle, partial(Indexing(indexer, True).plan, handle), how, signature=signature, selection=_ALL)
    # What came while a new one was computed is not indexed yet.
    return write(handle, partial(Indexing(indexer, False).plan, handle), how, signature=signature, selection=_ALL)


_ALL = Selection()


def _is_same(known: IndexRecord, wanted: IndexRecord) -> bool:
    """Whether an index is computed as one is wanted to be; of what kind the values are is known of the former."""
    return [*known.columns] == [*wanted.columns] and known.is_like(replace(wanted, columns=known.columns))


def drop_index(handle: Handle, name: str, *, signature: Signature) -> Version:
    """End an index; see :meth:`Collection.drop_index`."""
    find_index(handle.registry.indexes(handle.record), name, handle.record.name)
    return handle.commit("drop_index", DropIndex(name), signature=signature)


def _record(
    handle: Handle,
    name: str,
    columns: tuple[str, ...],
    func: Callable[..., Any] | None,
    inputs: Iterable[str] | None,
    per: Per,
    on_missing: OnMissing,
) -> IndexRecord:
    """Return what is to be recorded; of what kind the values are is not known yet."""
    collection, schema = handle.record.name, handle.select(NO_PARTITIONS).schema
    check_choice("per", per, get_args(Per))
    check_choice("on_missing", on_missing, get_args(OnMissing))
    if not isinstance(name, str) or not name.isidentifier():
        raise InvalidInputError(f"{name!r} is no name for an index of collection {collection}: use letters and digits")
    if func is None and (inputs is not None or per != "row"):
        raise InvalidInputError(
            f"index {name} of collection {collection} has no function, so it is of runs of equal values of its "
            "columns, and takes no inputs"
        )
    path = None if func is None else path_of_function(func)
    if func is not None and path is None:
        raise InvalidInputError(
            f"index {name} of collection {collection} is computed by {func!r}, which whoever writes later could not "
            "import: define it in a module, under a name"
        )
    if isinstance(inputs, str):
        raise InvalidInputError(f"inputs={inputs!r} is not a list of names")
    names = columns if func is None else (schema.partitioned if inputs is None else inputs)
    variables = [_row_variable(schema, each, collection, alone=func is None) for each in names]
    placeholder: dict[str, ColumnKind] = dict.fromkeys(columns, "integer")
    inputs_by_id = {each.id: each.name for each in variables}
    return IndexRecord(uuid.uuid4().hex, name, placeholder, inputs_by_id, path, per, on_missing)


def _row_variable(schema: Schema, name: str, collection: str, *, alone: bool) -> SchemaVariable:
    variable = find_variable(schema, name, collection)
    if variable.is_immutable or (alone and variable.dims != (schema.dimension,)):
        raise InvalidInputError(
            f"variable {name} of collection {collection} has not one value a row, along {schema.dimension}: an index "
            "is of rows"
        )
    return variable


def _kinds(indexer: Indexer, head: Selected) -> dict[str, ColumnKind]:
    """Return of what kind the values of the columns are: as the variables are, or what the function returns at first.

    That is called with one partition after the other, until it returns any; with no rows where there are none.
    """
    collection, schema = head.collection.name, head.schema
    if indexer.function is None:
        return {name: kind_of(schema.variables[name].dtype, name, collection) for name in indexer.record.columns}
    origin = head.origins[schema.axis]
    for place in range(max(len(origin.rows), 1)):
        one = origin.cut(place, place + 1)
        with head.listing.asked_again():
            values = {each.id: one.read(each) for each in indexer.inputs(schema)}
        partition = format_key(one.rows.keys[0]) if len(one.rows) else "without rows"
        found = indexer.arrays(indexer.call(schema, values, partition), partition)
        if all(len(each) for each in found.values()):
            break
    for name, each in found.items():
        if not len(each) and each.dtype.kind == "f":  # as an empty list has
            raise InvalidInputError(
                f"of what kind {name} of index {indexer.record.name} of collection {collection} is cannot be known: "
                "its function returns no values of it; have it return arrays of a dtype where these are empty, too"
            )
    return {name: kind_of(each.dtype, name, collection) for name, each in found.items()}
