"""Insertion: rows → keys → fragments → one commit."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
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
from ..encoding import decode, encode, stored_dtype, to_nanoseconds
from ..errors import AlreadyExistsError, InvalidInputError
from ..execution import Arrays
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
    """One fragment to write: all that a worker needs but the values."""

    location: Location
    schema: Schema
    intent: Intent
    rows: int
    bounds: tuple[int | None, int | None]
    """The smallest and largest axis value, as the registry keeps them; None for immutable variables."""


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
    schema = schema_of(collection, head.schema)
    check_dataset(schema, data, collection.name)
    stored = {name: _encoded(schema.variables[name], data.variables[name]) for name in schema.partitioned}
    axis = _axis_values(schema, data)
    parts = split_rows(_key_values(collection, data), axis)
    present = registry.resolve(collection.name, version=head.version, keys={part.key for part in parts}).partitions
    if merge == "refuse":
        _check_vacant(collection, present)
    live = head.immutable.uid if head.immutable else None
    jobs = [_job(location, schema, collection, part, axis, stored) for part in parts]
    jobs += _immutable_jobs(location, schema, collection, data, live)
    intents = [job.intent for job, _ in jobs]
    with staged(registry, collection, location, intents, version=head.version, message=message) as transaction:
        sizes = execution.run(_write, jobs, scheduler=scheduler)
        make_durable(location)
        change = Change(
            collection=collection,
            schema_version=head.version,
            operation="insert",
            writes=tuple(_written(job, nbytes) for (job, _), nbytes in zip(jobs, sizes, strict=True)),
            requires=_read_set(merge, parts, schema, data, live),
            summary={
                "created": len(parts) - len(present),
                "replaced": len(present),
                "rows": len(axis),
                "bytes": sum(sizes),
            },
        )
        (version,) = transaction.commit([change])
    return version


def _encoded(variable: SchemaVariable, data: xr.Variable) -> Any:
    """Return the values as stored: at once in memory, so that bad ones are refused now; lazily by dask."""
    values = data.data
    if isinstance(values, da.Array):
        dtype = stored_dtype(variable)
        return da.map_blocks(partial(encode, variable), values, dtype=dtype, meta=np.empty((0,) * data.ndim, dtype))
    return encode(variable, np.asarray(values))


def _key_values(collection: CollectionRecord, data: xr.Dataset) -> npt.NDArray[np.int64]:
    partitioning = partitioning_from_json(collection.partitioning)
    return partitioning.key_values({name: data.variables[name].values for name in partitioning.variables})


def _axis_values(schema: Schema, data: xr.Dataset) -> npt.NDArray[np.int64]:
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
    if values.dtype.kind == "u" and values.max() > np.iinfo(np.int64).max:
        raise InvalidInputError(f"the axis {schema.axis} reaches {values.max()}, and the registry counts to 2**63 - 1")
    return (to_nanoseconds(variable, values) if values.dtype.kind == "M" else values).astype(np.int64)


def _check_vacant(collection: CollectionRecord, present: Sequence[PartitionRecord]) -> None:
    if present:
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
    axis: npt.NDArray[np.int64],
    stored: Arrays,
) -> tuple[FragmentJob, Arrays]:
    uid = layout.new_uid()
    path = layout.fragment_path(name_values(collection.keys, part.key), uid)
    bounds = int(axis[part.rows][0]), int(axis[part.rows][-1])
    job = FragmentJob(location, schema, Intent(Slot(pad_key(part.key)), uid, path), part.count, bounds)
    return job, {
        name: values[(slice(None),) * schema.variables[name].split_axis + (part.rows,)]
        for name, values in stored.items()
    }


def _immutable_jobs(
    location: Location, schema: Schema, collection: CollectionRecord, data: xr.Dataset, live: str | None
) -> list[tuple[FragmentJob, Arrays]]:
    """Return the job that stores the immutable variables, for the first insert that brings them; later ones have none.

    Raises InvalidInputError where they differ from those stored, or where the first do not come together.
    """
    given = {name: variable for name, variable in schema.immutable.items() if name in data.variables}
    stored = {name: encode(variable, data.variables[name].values) for name, variable in given.items()}
    if live is not None:
        for name, variable in given.items():
            region = tuple(slice(0, size) for size in variable.shape(0))
            existing = read_region(location, layout.immutable_path(live), variable, 0, region)
            _check_same(variable, existing, decode(variable, stored[name]), collection.name)
    if live is not None or not given:
        return []
    missing = [name for name in schema.immutable if name not in given]
    if missing:
        raise InvalidInputError(
            f"the immutable variables of collection {collection.name} come together, with the first insert that brings "
            f"any: the dataset lacks {', '.join(missing)}"
        )
    uid = layout.new_uid()
    intent = Intent(IMMUTABLE_SLOT, uid, layout.immutable_path(uid))
    return [(FragmentJob(location, schema, intent, 0, (None, None)), stored)]


def _check_same(variable: SchemaVariable, existing: Values, given: Values, collection: str) -> None:
    different = existing != given
    if given.dtype.kind in "fcMm":
        different &= ~(np.isnan(existing) & np.isnan(given))
    if different.any():
        raise InvalidInputError(
            f"the immutable variable {variable.name} of collection {collection} is stored already, and the dataset has "
            f"other values ({np.count_nonzero(different)} of {different.size} differ); leave it out: data.drop_vars(…)"
        )


def _write(job: FragmentJob, stored: Arrays) -> int:
    return write_fragment(job.location, job.intent.path, job.schema, stored, job.rows)


def _written(job: FragmentJob, nbytes: int) -> Written:
    return Written(job.intent.slot, job.intent.uid, job.rows, nbytes, *job.bounds)


def _read_set(
    merge: str, parts: Sequence[PartitionRows], schema: Schema, data: xr.Dataset, immutable: str | None
) -> dict[Slot, str | None]:
    """Return what the result depends on: partitions' vacancy unless replaced blindly, the immutables compared."""
    vacant: dict[Slot, str | None] = {Slot(pad_key(part.key)): None for part in parts} if merge == "refuse" else {}
    compared = any(name in data.variables for name in schema.immutable)
    return vacant | ({IMMUTABLE_SLOT: immutable} if compared else {})
