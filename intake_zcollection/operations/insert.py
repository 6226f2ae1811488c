"""Insertion: rows → keys → fragments → one commit."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

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
from ..errors import AlreadyExistsError, InvalidInputError
from ..execution import Execution
from ..merging import Merge, MergeFunction, replace, strategy_of
from ..partitioning import Partitioning, PartitionRows, partitioning_from_json, split_rows
from ..reading.table import Piece, partition_piece
from ..schema import Schema
from ..storage import layout
from ..storage.location import Location, make_durable
from ..writing.inputs import Data, Dataset, Input, Missing, Unknown, adapt_schema, as_list, open_dataset, plan_input
from ..writing.partition import Arrays, FragmentJob, FragmentResult, MergeJob, write_partition
from ..writing.staging import Intent, check_reach, staged
from .immutable import inserted_immutables
from .load import schema_of

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
    check_reach(location, how)
    strategy = strategy_of(collection.merge if merge is None else merge, tolerance)
    partitioning = partitioning_from_json(collection.partitioning)
    items, skipped = _unseen(registry, collection, as_list(data, collection.name), sources, seen)
    if not items:
        return registry.versions(collection)[-1]
    head = registry.resolve(collection, keys=())
    collection = head.collection  # as it is called now
    opened = (open_dataset(item, collection.name) for item in items)
    schema, added = adapt_schema(schema_of(collection, head.schema), opened, unknown=unknown, head=head.version)
    inputs = [
        plan_input(item, schema, partitioning, collection=collection.name, unknown=unknown, missing=missing)
        for item in items
    ]
    parts = split_rows([(each.keys, each.axis) for each in inputs])
    present = _present(registry, collection, head, parts)
    if strategy is None:
        _check_vacant(collection, present.values())
    existing = {key: partition_piece(partition, head.layers) for key, partition in present.items()}
    jobs = [_job(location, schema, collection, partitioning, strategy, part, inputs, existing) for part in parts]
    jobs += inserted_immutables(location, schema, collection, inputs, head)
    intents = [job.intent for job, _ in jobs]
    with staged(registry, collection, location, intents, version=head.version, message=message) as transaction:
        results = execution.run(write_partition, jobs, how, what=f"insert into {collection.name}")
        make_durable(location)
        change = Change(
            collection=collection,
            schema_version=head.version,
            operation="insert",
            writes=tuple(_written(job, result) for (job, _), result in zip(jobs, results, strict=True)),
            requires=_read_set(strategy, parts, present, inputs, head),
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
    skipped = registry.seen_sources(collection, sources)
    return [item for item, name in zip(items, sources, strict=True) if name not in skipped], skipped


def _present(
    registry: Registry, collection: CollectionRecord, head: Snapshot, parts: Sequence[PartitionRows]
) -> dict[KeyValues, PartitionRecord]:
    keys = {part.key for part in parts}
    partitions = registry.partitions(collection, version=head.version, keys=keys)
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


def _written(job: FragmentJob, result: FragmentResult) -> Written:
    return Written(job.intent.slot, job.intent.uid, result.rows, result.nbytes, *result.bounds, result.unique)


def _read_set(
    strategy: MergeFunction | None,
    parts: Sequence[PartitionRows],
    present: Mapping[KeyValues, PartitionRecord],
    inputs: Sequence[Input],
    head: Snapshot,
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
        slots[IMMUTABLE_SLOT] = head.immutable.uid if head.immutable else None
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
