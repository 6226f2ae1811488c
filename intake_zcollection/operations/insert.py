"""Insertion: rows → keys → fragments → one commit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from registry import (
    IMMUTABLE_SLOT,
    Change,
    CollectionRecord,
    PartitionRecord,
    Registry,
    Slot,
    Version,
    Written,
    name_values,
    pad_key,
)

from .. import execution
from ..encoding import decode, encode, stored_dtype
from ..errors import AlreadyExistsError, InvalidInputError
from ..partitioning import PartitionRows, partitioning_from_json, split_rows
from ..schema import Schema, SchemaVariable, Values
from ..storage import layout
from ..storage.read import read_region
from ..storage.stores import Location, make_durable
from ..storage.write import write_fragment
from .check import check_dataset
from .create import check_merge
from .load import schema_of
from .staging import Intent, staged


@dataclass(frozen=True)
class FragmentJob:
    """One fragment to write: all that a worker needs."""

    location: Location
    schema: Schema
    intent: Intent
    rows: int
    stored: Mapping[str, Any]
    """The encoded values of each variable: numpy arrays, or dask's until the job runs."""


@dataclass(frozen=True)
class Bounds:
    """The smallest and largest axis value of a fragment, as the registry keeps them."""

    low: int
    high: int


def insert(
    registry: Registry,
    collection: CollectionRecord,
    location: Location,
    data: xr.Dataset,
    *,
    merge: str | None,
    message: str,
    scheduler: Any,
) -> Version:
    """Insert a dataset, and return the version it made; see :meth:`intake_zcollection.Collection.insert`."""
    merge = merge or collection.merge
    check_merge(merge)
    head = registry.resolve(collection.name, keys=())
    live = head.immutable.uid if head.immutable else None
    schema = schema_of(head.collection, head.schema)
    check_dataset(schema, data, collection.name)
    stored = {name: _encoded(schema.variables[name], data.variables[name]) for name in schema.partitioned}
    parts, bounds = _plan(schema, collection, data)
    present = registry.resolve(collection.name, version=head.version, keys={part.key for part in parts})
    _check_vacant(collection, merge, present.partitions)
    immutable = _immutable_job(schema, location, data, live, collection.name)
    jobs = [_job(location, schema, collection, part, stored) for part in parts] + ([immutable] if immutable else [])
    with staged(
        registry, collection, location, [job.intent for job in jobs], version=head.version, message=message
    ) as transaction:
        sizes = execution.run(_write, jobs, scheduler=scheduler)
        make_durable(location)
        change = Change(
            collection=collection,
            schema_version=head.version,
            operation="insert",
            writes=tuple(_written(*each) for each in zip(jobs, sizes, [*bounds, None], strict=False)),
            requires=_read_set(merge, parts, schema, data, live),
            summary={
                "created": len(parts) - len(present.partitions),
                "replaced": len(present.partitions),
                "rows": sum(part.count for part in parts),
                "bytes": sum(sizes),
            },
        )
        (version,) = transaction.commit([change])
    return version


def _encoded(variable: SchemaVariable, data: xr.Variable) -> Any:
    """Return the values as stored: at once in memory, so that bad ones are refused now; lazily by dask."""
    if isinstance(data.data, da.Array):
        return da.map_blocks(
            partial(encode, variable), data.data, dtype=stored_dtype(variable), meta=np.empty((0,) * data.ndim)
        )
    return encode(variable, data.values)


def _plan(schema: Schema, collection: CollectionRecord, data: xr.Dataset) -> tuple[list[PartitionRows], list[Bounds]]:
    partitioning = partitioning_from_json(collection.partitioning)
    axis = _axis_values(schema, data)
    keys = partitioning.key_values({name: data.variables[name].values for name in partitioning.variables})
    parts = split_rows(keys, axis)
    return parts, [Bounds(*(int(axis[part.rows][i]) for i in (0, -1))) for part in parts]


def _axis_values(schema: Schema, data: xr.Dataset) -> Values:
    """Return the axis as it comes back: integers, ns since 1970 for datetimes."""
    variable = schema.variables[schema.axis]
    values = data.variables[schema.axis].values
    if values.dtype.kind == "M":
        missing = np.flatnonzero(np.isnat(values))
        if missing.size:
            raise InvalidInputError(
                f"the axis {schema.axis} is NaT in row {missing[0]} ({missing.size} of {values.size} rows); "
                "rows have their place by the axis: drop or fill these"
            )
    return values.astype(variable.dtype).astype(np.int64)


def _check_vacant(collection: CollectionRecord, merge: str, present: Sequence[PartitionRecord]) -> None:
    if merge == "refuse" and present:
        shown = ", ".join(f"{partition} ({partition.rows} rows)" for partition in present[:5])
        more = f" and {len(present) - 5} more" if len(present) > 5 else ""
        raise AlreadyExistsError(
            f"collection {collection.name} has data already in {shown}{more}; to give these partitions up for the new "
            "rows, insert with merge='replace'"
        )


def _job(
    location: Location,
    schema: Schema,
    collection: CollectionRecord,
    part: PartitionRows,
    stored: Mapping[str, Any],
) -> FragmentJob:
    uid = layout.new_uid()
    path = layout.fragment_path(name_values(collection.keys, part.key), uid)
    rows = {
        name: values[(slice(None),) * schema.variables[name].split_axis + (part.rows,)]
        for name, values in stored.items()
    }
    return FragmentJob(location, schema, Intent(Slot(pad_key(part.key)), uid, path), part.count, rows)


def _immutable_job(
    schema: Schema, location: Location, data: xr.Dataset, live: str | None, collection: str
) -> FragmentJob | None:
    """Return the job that stores the immutable variables, for the first insert that brings them.

    Raises InvalidInputError where they differ from those stored, or where the first do not come together.
    """
    given = {name: variable for name, variable in schema.immutable.items() if name in data.variables}
    if not given:
        return None
    values = {name: encode(variable, data.variables[name].values) for name, variable in given.items()}
    if live is not None:
        for name, variable in given.items():
            region = tuple(slice(0, size) for size in variable.shape(0))
            existing = read_region(location, layout.immutable_path(live), variable, 0, region)
            _check_same(variable, existing, decode(variable, values[name]), collection)
        return None
    missing = [name for name in schema.immutable if name not in given]
    if missing:
        raise InvalidInputError(
            f"the immutable variables of collection {collection} come together, with the first insert that brings any: "
            f"the dataset lacks {', '.join(missing)}"
        )
    uid = layout.new_uid()
    return FragmentJob(location, schema, Intent(IMMUTABLE_SLOT, uid, layout.immutable_path(uid)), 0, values)


def _check_same(variable: SchemaVariable, existing: Values, given: Values, collection: str) -> None:
    different = existing != given
    if given.dtype.kind in "fcMm":
        different &= ~(np.isnan(existing) & np.isnan(given))
    if different.any():
        raise InvalidInputError(
            f"the immutable variable {variable.name} of collection {collection} is stored already, and the dataset has "
            f"other values ({np.count_nonzero(different)} of {different.size} differ); leave it out: data.drop_vars(…)"
        )


def _write(job: FragmentJob) -> int:
    return write_fragment(job.location, job.intent.path, job.schema, job.stored, job.rows)


def _written(job: FragmentJob, nbytes: int, bounds: Bounds | None) -> Written:
    low, high = (bounds.low, bounds.high) if bounds else (None, None)
    return Written(job.intent.slot, job.intent.uid, job.rows, nbytes, low, high)


def _read_set(
    merge: str, parts: Sequence[PartitionRows], schema: Schema, data: xr.Dataset, immutable: str | None
) -> dict[Slot, str | None]:
    """Return what the result depends on: partitions' vacancy unless replaced blindly, the immutables compared."""
    vacant: dict[Slot, str | None] = {Slot(pad_key(part.key)): None for part in parts} if merge == "refuse" else {}
    compared = any(name in data.variables for name in schema.immutable)
    return vacant | ({IMMUTABLE_SLOT: immutable} if compared else {})
