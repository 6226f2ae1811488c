"""Insertion: rows → keys → one step per partition."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from registry import KeyValues, PartitionRecord, Slot, Version, format_key, name_values
from registry.changes import RememberSources, SourcesUnchanged, Unchanged

from ..errors import AlreadyExistsError
from ..execution import Execution
from ..handle import Handle
from ..merging import Merge, MergeFunction, parse_tolerance, replace, strategy_of
from ..partitioning import Partitioning, PartitionRows, partitioning_from_json, split_rows
from ..reading.origin import Origin
from ..reading.selection import Selected
from ..schema import Schema, SchemaVariable, Values
from ..schema.encoding import decode
from ..schema.names import check_choice
from ..storage.location import Location
from ..writing.immutables import immutable_step, inserted_immutables
from ..writing.inputs import Input, Missing, Unknown, adapt_schema, plan_input
from ..writing.meaning import AttributesChoice
from ..writing.merge import Merging
from ..writing.naming import is_named, listing, naming
from ..writing.plan import Arrays, Content, Evolution, Part, Plan, Step, Target, immutable_need
from ..writing.sources import Item, Seen, choose, fetch_fingerprints, to_remember
from ..writing.write import write

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InsertJob:
    """The rows of one partition: gathered from the inputs, and merged with those that it has."""

    target: Target
    collection: str
    """The collection's name, for messages."""
    partition: str
    """The partition's, likewise, and whose rows go there."""
    order: npt.NDArray[np.intp] | None
    """What sorts the pieces, put one after the other, by the axis."""
    merging: Merging | None

    def content(self, arrays: Arrays) -> Content:
        """Return the rows, sorted by the axis."""
        schema = self.target.schema
        with naming(self.partition):
            stored = {name: self._gather(schema.variables[name], pieces) for name, pieces in arrays.items()}
            if self.merging is not None:
                stored = self.merging.merge(schema, stored, self.collection)
        axis = decode(schema.variables[schema.axis], stored[schema.axis]).astype(np.int64)
        unique = bool(np.all(axis[1:] > axis[:-1]))
        return Content(stored, Part(self.target.key, len(axis), (int(axis[0]), int(axis[-1])), unique))

    def _gather(self, variable: SchemaVariable, pieces: Sequence[Values]) -> Values:
        joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=variable.split_axis)
        return joined if self.order is None else joined.take(self.order, axis=variable.split_axis)


@dataclass(frozen=True)
class Insertion:
    """An insert that was asked for: what it plans on any head. The fields are those of ``Collection.insert``."""

    items: Sequence[Item]
    merge: Merge | None
    tolerance: Any
    missing: Missing
    unknown: Unknown
    attributes: AttributesChoice
    seen: Seen

    def __post_init__(self) -> None:
        """Refuse misspelt choices."""
        choices = {"missing": Missing, "unknown": Unknown, "attributes": AttributesChoice, "seen": Seen}
        for argument, kind in choices.items():
            check_choice(argument, getattr(self, argument), get_args(kind))

    def plan(self, handle: Handle, head: Selected) -> Plan | None:
        """Return a step per partition; None if nothing is given, or all of it is left out."""
        collection = head.collection
        tolerance = parse_tolerance(self.tolerance, head.schema.variables[head.schema.axis].dtype)
        strategy = strategy_of(collection.merge if self.merge is None else self.merge, tolerance)
        partitioning = partitioning_from_json(collection.partitioning)
        items, known = self._chosen(handle, head)
        if not items:
            said = "all %d sources are left out by seen=%r" if self.items else "there is nothing to insert"
            arguments = (len(self.items), self.seen) if self.items else ()
            logger.info(f"{collection.name} stays at version %d: {said}", head.version, *arguments)
            return None
        fetch_fingerprints(items)
        schema = adapt_schema(head.schema, items, collection.name, unknown=self.unknown, head=head.version)
        evolution = Evolution(head.schema, schema, head.version)
        checked = partial(
            plan_input,
            schema=schema,
            partitioning=partitioning,
            collection=collection.name,
            unknown=self.unknown,
            missing=self.missing,
            attributes=self.attributes,
        )
        inputs = [checked(item) for item in items]
        parts = split_rows([(each.keys, each.axis) for each in inputs])
        present = _present(handle, head, parts)
        if strategy is None:
            _check_vacant(collection.name, present.values())
        make = _Steps(head, handle.location, evolution, strategy, partitioning, inputs)
        steps = [make.of(part, present.get(part.key)) for part in parts]
        immutables = inserted_immutables(schema, inputs, head)
        if immutables:
            target = Target.of_immutables(handle.location, schema, evolution.schema_version)
            steps.append(immutable_step(target, immutables, head))
        requirements = [*evolution.requirements]
        if any(each.immutable for each in inputs):
            requirements.append(immutable_need(head.snapshot))
        if known:
            requirements.append(SourcesUnchanged(known))
        sources, left_out = to_remember(items), len(self.items) - len(items)
        return Plan(
            head,
            "insert",
            f"insert into {collection.name}",
            tuple(steps),
            tuple(requirements),
            (*(RememberSources(sources),) * bool(sources), *evolution.updates),
            {"created": 0, "replaced": 0, "merged": 0, "skipped": left_out, "rows": 0},
        )

    def _chosen(self, handle: Handle, head: Selected) -> tuple[Sequence[Item], Mapping[str, int | None]]:
        """Return the items to insert, and on what was known of which sources that depends."""
        if self.seen == "insert":
            return self.items, {}
        names = [item.name for item in self.items if item.name is not None]
        known = handle.registry.known_sources(head.collection, names)
        versions = {name: known[name].begin_version if name in known else None for name in names}
        return choose(self.items, known, self.seen), versions


def insert(handle: Handle, insertion: Insertion, how: Execution, *, message: str) -> Version:
    """Insert datasets, and return the version it made; see :meth:`intake_zcollection.Collection.insert`."""
    items = insertion.items
    try:
        return write(handle, partial(insertion.plan, handle), how, message=message)
    except Exception as error:
        if len(items) > 1 and not is_named(error):
            # A task of somebody else's dask array: nothing of ours runs in it.
            error.add_note(
                f"while {len(items)} inputs were inserted. Dask arrays do not tell which of them could not be read: "
                "give paths of files, or functions that open them with chunks=None, and this will"
            )
        raise


@dataclass(frozen=True)
class _Steps:
    """What the steps of all partitions have in common."""

    head: Selected
    place: Location
    evolution: Evolution
    strategy: MergeFunction | None
    partitioning: Partitioning
    inputs: Sequence[Input]

    def of(self, part: PartitionRows, present: PartitionRecord | None) -> Step:
        """Return what is done for one partition, and what that depends on: nothing if it is replaced blindly."""
        collection, schema = self.head.collection, self.evolution.after
        key = name_values(collection.keys, part.key)
        target = Target.of_partition(self.place, schema, self.evolution.schema_version, key)
        blind = self.strategy is replace
        merging = None
        if present is not None and self.strategy is not None and not blind:
            existing = Origin.of_partitions(self.place, self.head.snapshot, [present])
            merging = Merging(existing, self.strategy, self.partitioning, part.key)
        there = {fragment.slot: fragment.uid for fragment in present.fragments} if present else {}
        needs = () if blind else (Unchanged({Slot(target.key): None, **there}),)
        what = "created" if present is None else "replaced" if blind else "merged"
        partition = format_key(key)
        if labels := [self.inputs[number].label for number, _ in part.pieces if self.inputs[number].label]:
            partition = f"{partition} (rows of {listing(labels)})"
        job = InsertJob(target, collection.name, partition, part.order, merging)
        return Step(job, _arrays(schema, part, self.inputs), needs, {what: 1, "rows": part.count})


def _present(handle: Handle, head: Selected, parts: Iterable[PartitionRows]) -> dict[KeyValues, PartitionRecord]:
    partitions = handle.registry.partitions(head.collection, version=head.version, keys={part.key for part in parts})
    return {partition.fragments[0].key: partition for partition in partitions}


def _check_vacant(collection: str, present: Iterable[PartitionRecord]) -> None:
    taken = [f"{partition} ({partition.rows} rows)" for partition in present]
    if taken:
        more = f" and {len(taken) - 5} more" if len(taken) > 5 else ""
        raise AlreadyExistsError(
            f"collection {collection} has data already in {', '.join(taken[:5])}{more}; say what becomes of it: "
            "insert with merge='replace', 'concat', 'time_series', 'upsert' or a function"
        )


def _arrays(schema: Schema, part: PartitionRows, inputs: Sequence[Input]) -> Mapping[str, Sequence[Any]]:
    """Return the rows of a partition, of each input that has some; nothing is computed."""
    return {
        name: [
            inputs[number].stored[name][(slice(None),) * variable.split_axis + (rows,)] for number, rows in part.pieces
        ]
        for name, variable in schema.partitioned.items()
    }
