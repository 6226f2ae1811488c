"""Insertion: rows → keys → fragments → one commit."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from registry import (
    IMMUTABLE_SLOT,
    Change,
    CollectionRecord,
    KeyValues,
    PartitionRecord,
    Registry,
    Slot,
    Snapshot,
    Version,
    Written,
    format_key,
    name_values,
    pad_key,
)

from .. import execution
from ..assembly.plan import Piece, partition_piece
from ..encoding import decode
from ..errors import AlreadyExistsError, InvalidInputError
from ..execution import Execution
from ..merging import Merge, MergeFunction, replace, strategy_of
from ..partitioning import Partitioning, PartitionRows, partitioning_from_json, split_rows
from ..schema import Schema, SchemaVariable, Values
from ..storage import layout
from ..storage.read import read_region
from ..storage.stores import Location, make_durable
from .inputs import Data, Dataset, Input, Missing, Unknown, adapt_schema, as_list, open_dataset, plan_input
from .load import schema_of
from .partition import Arrays, FragmentJob, FragmentResult, MergeJob, write_partition
from .staging import Intent, staged

Seen = Literal["insert", "skip"]


def insert(
    registry: Registry,
    collection: CollectionRecord,
    location: Location,
    data: Data,
    *,
    merge: Merge | None,
    tolerance: Any,
    missing: Missing,
    unknown: Unknown,
    sources: Sequence[str],
    seen: Seen,
    message: str,
    how: Execution,
) -> Version:
    """Insert datasets, and return the version it made; see :meth:`intake_zcollection.Collection.insert`."""
    strategy = strategy_of(collection.merge if merge is None else merge, tolerance)
    partitioning = partitioning_from_json(collection.partitioning)
    items, skipped = _unseen(registry, collection, as_list(data, collection.name), sources, seen)
    if not items:
        return registry.versions(collection.name)[-1]
    head = registry.resolve(collection.name, keys=())
    datasets = [open_dataset(item, collection.name) for item in items]
    schema, added = adapt_schema(schema_of(collection, head.schema), datasets, unknown=unknown, head=head.version)
    inputs = [
        plan_input(item, dataset, schema, partitioning, collection=collection.name, unknown=unknown, missing=missing)
        for item, dataset in zip(items, datasets, strict=True)
    ]
    del datasets  # functions opened them to be looked at; workers open them again
    parts = split_rows([(each.keys, each.axis) for each in inputs])
    present = _present(registry, collection, head, parts)
    if strategy is None:
        _check_vacant(collection, present.values())
    existing = {key: partition_piece(partition, head.layers) for key, partition in present.items()}
    jobs = [_job(location, schema, collection, partitioning, strategy, part, inputs, existing) for part in parts]
    live = head.immutable.uid if head.immutable else None
    jobs += _immutable_jobs(location, schema, collection, inputs, live)
    intents = [job.intent for job, _ in jobs]
    with staged(registry, collection, location, intents, version=head.version, message=message) as transaction:
        results = execution.run(write_partition, jobs, how, what=f"insert into {collection.name}")
        make_durable(location)
        change = Change(
            collection=collection,
            schema_version=head.version,
            operation="insert",
            writes=tuple(_written(job, result) for (job, _), result in zip(jobs, results, strict=True)),
            requires=_read_set(strategy, parts, present, inputs, live),
            summary=_summary(parts, present, strategy, skipped, results),
            adds=tuple(variable.to_record() for variable in added),
            sources=tuple(name for name in sources if name not in skipped),
            unseen=seen == "skip",
        )
        (version,) = transaction.commit([change])
    return version


def _unseen(
    registry: Registry, collection: CollectionRecord, items: list[Dataset], sources: Sequence[str], seen: Seen
) -> tuple[list[Dataset], frozenset[str]]:
    """Return the items to insert, and the names of those that are skipped because they have been."""
    if sources and len(sources) != len(items):
        raise InvalidInputError(f"there are {len(sources)} sources for {len(items)} datasets; name each, or none")
    if seen == "insert":
        return items, frozenset()
    if seen != "skip" or not sources:
        raise InvalidInputError(f"seen={seen!r} with {len(sources)} sources: 'skip' needs sources, to know them by")
    skipped = registry.seen_sources(collection.name, sources)
    return [item for item, name in zip(items, sources, strict=True) if name not in skipped], skipped


def _present(
    registry: Registry, collection: CollectionRecord, head: Snapshot, parts: Sequence[PartitionRows]
) -> dict[KeyValues, PartitionRecord]:
    keys = {part.key for part in parts}
    partitions = registry.partitions(collection.name, version=head.version, keys=keys)
    return {partition.fragments[0].key: partition for partition in partitions}


def _check_vacant(collection: CollectionRecord, present: Iterable[PartitionRecord]) -> None:
    taken = [f"{partition} ({partition.rows} rows)" for partition in present]
    if taken:
        more = f" and {len(taken) - 5} more" if len(taken) > 5 else ""
        raise AlreadyExistsError(
            f"collection {collection.name} has data already in {', '.join(taken[:5])}{more}; say what becomes of it: "
            "insert with merge='replace', 'concat', 'time_series', 'upsert' or a function"
        )


def _job(
    location: Location,
    schema: Schema,
    collection: CollectionRecord,
    partitioning: Partitioning,
    strategy: MergeFunction | None,
    part: PartitionRows,
    inputs: Sequence[Input],
    present: Mapping[KeyValues, Piece],
) -> tuple[FragmentJob, Arrays]:
    key = name_values(collection.keys, part.key)
    uid = layout.new_uid()
    intent = Intent(Slot(pad_key(part.key)), uid, layout.fragment_path(key, uid))
    merge = None
    if part.key in present and strategy is not None and strategy is not replace:
        merge = MergeJob(present[part.key], strategy, partitioning, part.key)
    arrays = {
        name: [
            inputs[number].stored[name][(slice(None),) * variable.split_axis + (rows,)] for number, rows in part.pieces
        ]
        for name, variable in schema.partitioned.items()
    }
    return FragmentJob(location, schema, intent, collection.name, format_key(key), part.order, merge), arrays


def _immutable_jobs(
    location: Location, schema: Schema, collection: CollectionRecord, inputs: Sequence[Input], live: str | None
) -> list[tuple[FragmentJob, Arrays]]:
    """Return the job that stores the immutable variables, for the first insert that brings them; later ones have none.

    Raises InvalidInputError where they differ from those stored or among each other, or do not come together.
    """
    stored: dict[str, Values] = {}
    for each in inputs:
        for name, values in each.immutable.items():
            variable = schema.variables[name]
            if live is not None and name not in stored:
                region = tuple(slice(0, size) for size in variable.shape(0))
                existing = read_region(location, layout.immutable_path(live), variable, 0, region)
                _check_same(variable, existing, decode(variable, values), collection.name)
            _check_same(variable, stored.setdefault(name, values), values, collection.name)
    if live is not None or not stored:
        return []
    missing = [name for name in schema.immutable if name not in stored]
    if missing:
        raise InvalidInputError(
            f"the immutable variables of collection {collection.name} come together, with the first insert that brings "
            f"any: the dataset lacks {', '.join(missing)}"
        )
    uid = layout.new_uid()
    intent = Intent(IMMUTABLE_SLOT, uid, layout.immutable_path(uid))
    job = FragmentJob(location, schema, intent, collection.name, "the immutable variables")
    return [(job, {name: [values] for name, values in stored.items()})]


def _check_same(variable: SchemaVariable, existing: Values, given: Values, collection: str) -> None:
    different = existing != given
    if given.dtype.kind in "fcMm":
        different = different & ~(np.isnan(existing) & np.isnan(given))
    if np.any(different):
        raise InvalidInputError(
            f"the immutable variable {variable.name} of collection {collection} is stored already, and the dataset has "
            f"other values ({np.count_nonzero(different)} of {given.size} differ); leave it out: data.drop_vars(…)"
        )


def _written(job: FragmentJob, result: FragmentResult) -> Written:
    return Written(job.intent.slot, job.intent.uid, result.rows, result.nbytes, *result.bounds)


def _read_set(
    strategy: MergeFunction | None,
    parts: Sequence[PartitionRows],
    present: Mapping[KeyValues, PartitionRecord],
    inputs: Sequence[Input],
    live: str | None,
) -> dict[Slot, str | None]:
    """Return what the result depends on.

    The partitions, as they were merged or found vacant, unless they are replaced blindly; the immutable variables that
    were compared.
    """
    slots: dict[Slot, str | None] = {}
    if strategy is not replace:
        for part in parts:
            key = pad_key(part.key)
            slots[Slot(key)] = None
            if part.key in present:
                slots |= {Slot(key, fragment.layer_id): fragment.uid for fragment in present[part.key].fragments}
    if any(each.immutable for each in inputs):
        slots[IMMUTABLE_SLOT] = live
    return slots


def _summary(
    parts: Sequence[PartitionRows],
    present: Mapping[KeyValues, PartitionRecord],
    strategy: MergeFunction | None,
    skipped: Collection[str],
    results: Sequence[FragmentResult],
) -> dict[str, int]:
    return {
        "created": len(parts) - len(present),
        "replaced": len(present) if strategy is replace else 0,
        "merged": 0 if strategy is replace else len(present),
        "skipped": len(skipped),
        "rows": sum(part.count for part in parts),
        "bytes": sum(result.nbytes for result in results),
    }
