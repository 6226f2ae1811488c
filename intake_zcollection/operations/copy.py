"""Copying: a version of a collection, or some of its partitions, as a new collection anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from registry import (
    IMMUTABLE_SLOT,
    Change,
    CollectionDefinition,
    CollectionRecord,
    Filters,
    PartitionKey,
    Registry,
    Slot,
    Snapshot,
    Written,
    pad_key,
)

from .. import execution
from ..execution import Execution
from ..reading.dataset import immutable_table
from ..reading.window import Window, plan_windows
from ..schema import Schema
from ..schema.encoding import encode
from ..storage import layout
from ..storage import location as stores
from ..storage.location import Location, make_durable
from ..storage.write import write_fragment
from ..writing.staging import Intent, check_reach, staged
from .create import record_collection
from .drop import drop_collection
from .load import schema_of, select


@dataclass(frozen=True)
class CopyJob:
    """One fragment to read and write: all that a worker needs."""

    source: Location
    source_schema: Schema
    window: Window
    target: Location
    schema: Schema
    names: tuple[str, ...]
    intent: Intent


def copy(
    registry: Registry,
    collection: CollectionRecord,
    location: Location,
    name: str,
    url: str,
    *,
    target: Registry,
    version: int | None,
    filters: Filters | None,
    storage_options: Mapping[str, Any] | None,
    how: Execution,
) -> CollectionRecord:
    """Copy a collection, and return the new one's record; see :meth:`intake_zcollection.Collection.copy`."""
    check_reach(location, how)
    snapshot, source_schema, _ = select(registry, collection, version=version, filters=filters, where={})
    collection = snapshot.collection  # as it is called now
    check_reach(stores.resolve_location(url, storage_options), how)
    new, place = _create(registry, collection, snapshot, source_schema, name, url, target, filters, storage_options)
    try:
        _copy_data(location, source_schema, snapshot, target, new, place, collection, how)
    except BaseException:
        drop_collection(target, name, storage_options)
        raise
    return target.collection(name)


def _create(
    registry: Registry,
    collection: CollectionRecord,
    snapshot: Snapshot,
    source_schema: Schema,
    name: str,
    url: str,
    target: Registry,
    filters: Filters | None,
    storage_options: Mapping[str, Any] | None,
) -> tuple[CollectionRecord, Location]:
    place = stores.resolve_location(url, storage_options)
    lineage: dict[str, Any] = {"registry": registry.url, "collection": collection.name, "uid": collection.uid}
    chosen = filters if isinstance(filters, str | None) else getattr(filters, "__qualname__", repr(filters))
    lineage |= {"version": snapshot.version, "filters": chosen}
    variables = {each.name: replace(each, begin_version=0) for each in source_schema.variables.values()}
    definition = CollectionDefinition(
        name=name,
        location=place.url,
        axis=collection.axis,
        dimension=collection.dimension,
        keys=collection.keys,
        partitioning=collection.partitioning,
        zarr_format=collection.zarr_format,
        merge=collection.merge,
        schema=replace(source_schema, variables=variables).to_record(),
        storage_options=stores.public_options(place.storage_options),
        description=collection.description,
        metadata={**collection.metadata, "copied_from": lineage},
    )
    return record_collection(target, definition, place), place


def _copy_data(
    source: Location,
    source_schema: Schema,
    snapshot: Snapshot,
    target: Registry,
    new: CollectionRecord,
    place: Location,
    collection: CollectionRecord,
    how: Execution,
) -> None:
    """Copy all fragments in one transaction; each partition becomes one fragment, whatever layers it had."""
    head = target.resolve(new.name, keys=())
    schema = schema_of(new, head.schema)
    windows = plan_windows(snapshot, [partition.key for partition in snapshot.partitions], 0)
    names = tuple(schema.partitioned)
    jobs = [CopyJob(source, source_schema, each, place, schema, names, _intent(each.key)) for each in windows]
    if snapshot.immutable is not None and schema.immutable:
        uid = layout.new_uid()
        intent = Intent(IMMUTABLE_SLOT, uid, layout.immutable_path(uid))
        whole = Window((), immutable_table(snapshot.immutable).pieces, 0, immutable_table(snapshot.immutable).pieces)
        jobs.append(CopyJob(source, source_schema, whole, place, schema, tuple(schema.immutable), intent))
    if not jobs:
        return
    intents = [job.intent for job in jobs]
    message = f"copy of {collection.name}, version {snapshot.version}"
    with staged(target, new, place, intents, version=head.version, message=message) as transaction:
        sizes = execution.run(_copy_fragment, [(job, {}) for job in jobs], how, what=f"copy {collection.name}")
        make_durable(place)
        change = Change(
            collection=new,
            schema_version=head.version,
            operation="copy",
            writes=tuple(_written(job, nbytes) for job, nbytes in zip(jobs, sizes, strict=True)),
            requires={job.intent.slot: None for job in jobs},
            summary={"created": len(windows), "rows": sum(each.rows for each in windows), "bytes": sum(sizes)},
        )
        transaction.commit([change])


def _intent(key: PartitionKey) -> Intent:
    uid = layout.new_uid()
    return Intent(Slot(pad_key(tuple(value for _, value in key))), uid, layout.fragment_path(key, uid))


def _written(job: CopyJob, nbytes: int) -> Written:
    (piece,) = job.window.pieces
    return Written(job.intent.slot, job.intent.uid, piece.rows, nbytes, *piece.bounds, piece.unique)


def _copy_fragment(job: CopyJob, _: Any) -> int:
    """Read and write one fragment; runs in a worker. Return the bytes stored."""
    data = job.window.read(job.source, job.source_schema, job.names)
    stored = {name: encode(job.schema.variables[name], data.variables[name].values) for name in job.names}
    return write_fragment(job.target, job.intent.path, job.schema, stored, job.window.rows)
