"""Insertion: rows → keys → one step per partition."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from registry import KeyValues, PartitionRecord, Slot, Version, format_key, name_values
from registry.changes import RememberSources, SourcesNew, Unchanged

from ..errors import AlreadyExistsError, InvalidInputError
from ..execution import Execution
from ..handle import Handle
from ..merging import Merge, MergeFunction, parse_tolerance, replace, strategy_of
from ..partitioning import Partitioning, PartitionRows, partitioning_from_json, split_rows
from ..reading.origin import Origin
from ..reading.selection import Selected
from ..schema import Schema, SchemaVariable, Values
from ..schema.encoding import decode
from ..storage.location import Location
from ..writing.immutables import immutable_step, inserted_immutables
from ..writing.inputs import Dataset, Input, Missing, Unknown, adapt_schema, open_dataset, plan_input
from ..writing.merge import Merging
from ..writing.plan import Arrays, Content, Evolution, Part, Plan, Step, Target, immutable_need
from ..writing.write import write

Seen = Literal["insert", "skip"]


@dataclass(frozen=True)
class InsertJob:
    """The rows of one partition: gathered from the inputs, and merged with those that it has."""

    target: Target
    collection: str
    """The collection's name, for messages."""
    partition: str
    """The partition's, likewise."""
    order: npt.NDArray[np.intp] | None
    """What sorts the pieces, put one after the other, by the axis."""
    merging: Merging | None

    def content(self, arrays: Arrays) -> Content:
        """Return the rows, sorted by the axis."""
        schema = self.target.schema
        try:
            stored = {name: self._gather(schema.variables[name], pieces) for name, pieces in arrays.items()}
            if self.merging is not None:
                stored = self.merging.merge(schema, stored, self.collection)
        except InvalidInputError as error:
            raise InvalidInputError(f"{self.partition}: {error}") from error
        axis = decode(schema.variables[schema.axis], stored[schema.axis]).astype(np.int64)
        unique = bool(np.all(axis[1:] > axis[:-1]))
        return Content(stored, Part(self.target.key, len(axis), (int(axis[0]), int(axis[-1])), unique))

    def _gather(self, variable: SchemaVariable, pieces: Sequence[Values]) -> Values:
        joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=variable.split_axis)
        return joined if self.order is None else joined.take(self.order, axis=variable.split_axis)


@dataclass(frozen=True)
class Insertion:
    """An insert that was asked for: what it plans on any head. The fields are those of ``Collection.insert``."""

    items: Sequence[Dataset]
    merge: Merge | None
    tolerance: Any
    missing: Missing
    unknown: Unknown
    sources: Sequence[str]
    seen: Seen

    def plan(self, handle: Handle, head: Selected) -> Plan | None:
        """Return a step per partition; None if all that is given has been inserted already."""
        collection = head.collection
        tolerance = parse_tolerance(self.tolerance, head.schema.variables[head.schema.axis].dtype)
        strategy = strategy_of(collection.merge if self.merge is None else self.merge, tolerance)
        partitioning = partitioning_from_json(collection.partitioning)
        items, skipped = self._unseen(handle, head)
        if not items:
            return None
        opened = (open_dataset(item, collection.name) for item in items)
        schema = adapt_schema(head.schema, opened, unknown=self.unknown, head=head.version)
        evolution = Evolution(head.schema, schema, head.version)
        checked = partial(plan_input, collection=collection.name, unknown=self.unknown, missing=self.missing)
        inputs = [checked(item, schema, partitioning) for item in items]
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
        sources = tuple(name for name in self.sources if name not in skipped)
        if sources and self.seen == "skip":
            requirements.append(SourcesNew(sources))
        return Plan(
            head,
            "insert",
            f"insert into {collection.name}",
            tuple(steps),
            tuple(requirements),
            (*(RememberSources(sources),) * bool(sources), *evolution.updates),
            {"created": 0, "replaced": 0, "merged": 0, "skipped": len(skipped), "rows": 0},
        )

    def _unseen(self, handle: Handle, head: Selected) -> tuple[Sequence[Dataset], frozenset[str]]:
        """Return the items to insert, and the names of those that are skipped because they have been."""
        items, sources, seen = self.items, self.sources, self.seen
        if sources and len(sources) != len(items):
            raise InvalidInputError(f"there are {len(sources)} sources for {len(items)} datasets; name each, or none")
        if seen == "insert":
            return items, frozenset()
        if seen != "skip" or not sources:
            raise InvalidInputError(f"seen={seen!r} with {len(sources)} sources: 'skip' needs sources, to know them by")
        skipped = handle.registry.seen_sources(head.collection, sources)
        return [item for item, name in zip(items, sources, strict=True) if name not in skipped], skipped


def insert(handle: Handle, insertion: Insertion, how: Execution, *, message: str) -> Version:
    """Insert datasets, and return the version it made; see :meth:`intake_zcollection.Collection.insert`."""
    return write(handle, partial(insertion.plan, handle), how, message=message)


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
        job = InsertJob(target, collection.name, format_key(key), part.order, merging)
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
