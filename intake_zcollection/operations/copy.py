"""Copying: a version of a collection, or some of its partitions, as a new collection anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from registry import CollectionDefinition, Creation, Filters, Registry, Run, Signature
from registry.changes import NoOtherPart

from ..execution import Execution
from ..handle import Handle
from ..reading.listing import Listing
from ..reading.origin import Origin, read_dataset
from ..reading.selection import Selected, Selection
from ..reading.window import plan_windows
from ..schema import Schema
from ..schema.encoding import encode
from ..storage.location import Location, check_whose, public_options, resolve_location
from ..writing.immutables import immutable_step
from ..writing.marking import creating
from ..writing.plan import Arrays, Content, Plan, Step, Target, one_part
from ..writing.write import check_reach, knowing_whether_dropped, write_first


@dataclass(frozen=True)
class CopyJob:
    """One partition to copy; whatever layers it had, it becomes one group."""

    target: Target
    source: Schema
    """The schema at the version that is copied."""
    origins: Mapping[str, Origin]
    """Of that partition alone."""

    def content(self, _: Arrays) -> Content:
        """Return its rows."""
        schema = self.target.schema
        data = read_dataset(self.source, self.origins, schema.partitioned)
        stored = {name: encode(variable, data.variables[name].values) for name, variable in schema.partitioned.items()}
        return Content(stored, (one_part(self.target.key, self.origins[schema.axis].rows),))


def copy(
    handle: Handle,
    name: str,
    url: str,
    *,
    target: Registry,
    filters: Filters | None,
    storage_options: Mapping[str, Any] | None,
    how: Execution,
    signature: Signature,
) -> Handle:
    """Copy a collection, and return the new one; see :meth:`intake_zcollection.Collection.copy`."""
    check_reach(handle.location, how)
    source = handle.select(Selection.of(handle.record, filters))
    place = resolve_location(url, storage_options)
    there, here = (each.storage_options.get("endpoint_url") for each in (place, handle.location))
    check_whose(storage_options, [(place.url, there), (handle.location.url, here)])
    check_reach(place, how)
    definition = _definition(handle, source, name, place, filters)
    signature = signature.saying(f"copy of {source.collection.name}, version {source.version}")
    # Nobody sees the copy before all of it is there.
    with (
        creating(target, definition, place, signature=signature) as creation,
        source.listing.asked_again(),
        knowing_whether_dropped(handle),
    ):
        plan = _plan(source, place, _version_0(target, creation, place))
        record = creation.record() if plan is None else write_first(creation, plan, place, how)
    return Handle(target, record, place)


def _version_0(target: Registry, creation: Creation, place: Location) -> Selected:
    """Return what the copy has before anything is written, which nobody sees."""
    snapshot = creation.snapshot
    schema = Schema.of(snapshot.collection, snapshot.schema)
    listing = Listing(target, creation.collection, snapshot.version)
    return Selected(snapshot, schema, dict.fromkeys(schema.variables, Origin.of(place, snapshot)), listing)


def _definition(
    handle: Handle, source: Selected, name: str, place: Location, filters: Filters | None
) -> CollectionDefinition:
    collection, schema = source.collection, source.schema
    lineage: dict[str, Any] = {"registry": handle.registry.url, "collection": collection.name, "uid": collection.uid}
    by_keys = f"{len(source.rows)} partitions by their keys"
    chosen = filters if isinstance(filters, str | None) else getattr(filters, "__qualname__", by_keys)
    lineage |= {"version": source.version, "filters": chosen}
    # Numbered anew: those of a view are its base's and its own.
    variables = {
        name: replace(each, id=number, stored_name=name, lives=((0, None),))
        for number, (name, each) in enumerate(schema.variables.items())
    }
    return CollectionDefinition(
        name=name,
        location=place.url,
        axis=collection.axis,
        dimension=collection.dimension,
        keys=collection.keys,
        partitioning=collection.partitioning,
        zarr_format=collection.zarr_format,
        merge=collection.merge,
        schema=replace(schema, variables=variables).to_record(),
        storage_options=public_options(place.storage_options),
        description=collection.description,
        metadata={**collection.metadata, "copied_from": lineage},
    )


def _plan(source: Selected, place: Location, head: Selected) -> Plan | None:
    """Return a step per partition of the source, and one for the immutable variables."""
    steps = []
    for window in plan_windows(source, source.rows.keys, 0):
        target = Target.of_partition(place, head.schema, head.version, window.key)
        job = CopyJob(target, source.schema, window.origins)
        vacant = NoOtherPart(((target.key, None, None),))
        counts = {"created": 1, "rows": window.rows, "parts_made": 1}
        steps.append(Step(target.key, job, {}, (vacant,), counts, runs=(Run(target.key),), title=window.name))
    if source.snapshot.immutable is not None and head.schema.immutable:
        stored = {
            name: encode(variable, source.origins[name].read(source.schema.variables[name]))
            for name, variable in head.schema.immutable.items()
        }
        steps.append(immutable_step(Target.of_immutables(place, head.schema, head.version), stored, head))
    title = f"copy {source.collection.name}"
    return (
        Plan(head, "copy", title, tuple(steps), summary={"created": 0, "rows": 0, "parts_made": 0}) if steps else None
    )
