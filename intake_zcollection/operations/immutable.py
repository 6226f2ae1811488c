"""The immutable variables: stored together in one fragment, by the first insert that brings them or by themselves."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import xarray as xr

from registry import IMMUTABLE_SLOT, Change, CollectionRecord, Registry, Snapshot, Version, Written

from ..errors import InvalidInputError
from ..reading.dataset import immutable_table
from ..reading.lazy import read_pieces
from ..schema import Schema, SchemaVariable, Values
from ..schema.encoding import decode, encode
from ..schema.template import new_variable
from ..storage import layout
from ..storage.location import Location, make_durable
from ..writing.check import check_variable
from ..writing.inputs import Input
from ..writing.partition import Arrays, FragmentJob, write_partition
from ..writing.staging import Intent, staged
from .load import schema_of


def set_immutables(
    registry: Registry, collection: CollectionRecord, location: Location, data: xr.Dataset, *, message: str
) -> Version:
    """Store or replace immutable variables; see :meth:`intake_zcollection.Collection.set_immutables`."""
    if not isinstance(data, xr.Dataset):
        raise InvalidInputError(f"collection {collection.name} takes an xarray.Dataset, not {type(data).__name__}")
    head = registry.resolve(collection, keys=())
    collection = head.collection  # as it is called now
    before = schema_of(collection, head.schema)
    schema = _with_new(before, data, collection, head.version)
    stored = {name: values for name, values in _read_all(location, before, head).items() if name not in data.variables}
    stored |= {name: encode(schema.variables[name], data.variables[name].values) for name in map(str, data.variables)}
    missing = [name for name in schema.immutable if name not in stored]
    if missing:
        raise InvalidInputError(
            f"the immutable variables of collection {collection.name} come together, the first time: the dataset lacks "
            f"{', '.join(missing)}"
        )
    job, arrays = immutable_job(location, schema, collection, stored)
    with staged(registry, collection, location, [job.intent], version=head.version, message=message) as transaction:
        result = write_partition(job, arrays)
        make_durable(location)
        change = Change(
            collection=collection,
            schema_version=head.version,
            operation="set_immutables",
            writes=(Written(job.intent.slot, job.intent.uid, 0, result.nbytes),),
            requires={IMMUTABLE_SLOT: head.immutable.uid if head.immutable else None},
            summary={"variables": len(data.variables), "bytes": result.nbytes},
            adds=tuple(
                variable.to_record() for name, variable in schema.variables.items() if name not in before.variables
            ),
        )
        (version,) = transaction.commit([change])
    return version


def _with_new(schema: Schema, data: xr.Dataset, collection: CollectionRecord, head: int) -> Schema:
    """Return the schema with the variables that it lacks; raises InvalidInputError for those that are partitioned."""
    if not data.variables:
        raise InvalidInputError(f"the dataset has no variables, and would change nothing in {collection.name}")
    for name in map(str, data.variables):
        if schema.dimension in data.variables[name].dims:
            raise InvalidInputError(
                f"variable {name} has the dimension {schema.dimension!r}: it is stored with each partition; insert it"
            )
        if name in schema.variables:
            check_variable(schema, schema.variables[name], data.variables[name], collection.name)
        else:
            new = replace(new_variable(schema, data[name]), is_coordinate=name in data.coords)
            schema = schema.added(new, begin_version=head + 1)
    return schema


def _read_all(location: Location, schema: Schema, head: Snapshot) -> dict[str, Values]:
    """Return the immutable variables that are stored, encoded."""
    if head.immutable is None:
        return {}
    pieces = immutable_table(head.immutable).pieces
    return {
        name: encode(variable, read_pieces(location, variable, pieces, _everything(variable)))
        for name, variable in schema.immutable.items()
    }


def _everything(variable: SchemaVariable) -> tuple[slice, ...]:
    return tuple(slice(0, size) for size in variable.shape(0))


def immutable_job(
    location: Location, schema: Schema, collection: CollectionRecord, stored: Mapping[str, Values]
) -> tuple[FragmentJob, Arrays]:
    """Return the job that writes the fragment of encoded immutable variables."""
    uid = layout.new_uid()
    intent = Intent(IMMUTABLE_SLOT, uid, layout.immutable_path(uid))
    job = FragmentJob(location, schema, intent, collection.name, "the immutable variables")
    return job, {name: [values] for name, values in stored.items()}


def inserted_immutables(
    location: Location, schema: Schema, collection: CollectionRecord, inputs: Iterable[Input], head: Snapshot
) -> list[tuple[FragmentJob, Arrays]]:
    """Return the job that stores the immutable variables, for the first insert that brings them; later ones have none.

    Raises InvalidInputError where they differ from those stored or among each other, or do not come together.
    """
    stored: dict[str, Values] = {}
    for each in inputs:
        for name, values in each.immutable.items():
            variable = schema.variables[name]
            if head.immutable is not None and name not in stored:
                pieces = immutable_table(head.immutable).pieces
                existing = read_pieces(location, variable, pieces, _everything(variable))
                _check_same(variable, existing, decode(variable, values), collection.name)
            _check_same(variable, stored.setdefault(name, values), values, collection.name)
    if head.immutable is not None or not stored:
        return []
    missing = [name for name in schema.immutable if name not in stored]
    if missing:
        raise InvalidInputError(
            f"the immutable variables of collection {collection.name} come together, with the first insert that brings "
            f"any: the dataset lacks {', '.join(missing)}"
        )
    return [immutable_job(location, schema, collection, stored)]


def _check_same(variable: SchemaVariable, existing: Values, given: Values, collection: str) -> None:
    different = existing != given
    if given.dtype.kind in "fcMm":
        different = different & ~(np.isnan(existing) & np.isnan(given))
    if np.any(different):
        raise InvalidInputError(
            f"the immutable variable {variable.name} of collection {collection} is stored already, and the dataset has "
            f"other values ({np.count_nonzero(different)} of {given.size} differ); leave it out, data.drop_vars(…), or "
            "replace it with set_immutables"
        )
