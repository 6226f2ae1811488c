"""Creating a collection: template → schema → registry and location, both or neither."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import xarray as xr

from registry import CollectionDefinition, CollectionRecord, Registry, Signature

from ..errors import InvalidInputError
from ..merging import NAMES, check_merge
from ..partitioning import Partitioning
from ..schema import Schema
from ..schema.attributes import attributes_to_json
from ..schema.axis import check_axis
from ..schema.names import find_variable
from ..schema.template import schema_from_template
from ..storage.location import public_options, resolve_location
from ..writing.marking import creating
from ..writing.statistics import check_can_have_statistics


def create(
    registry: Registry,
    name: str,
    template: xr.Dataset,
    *,
    axis: str,
    partitioning: Partitioning,
    location: str,
    merge: str,
    statistics: Iterable[str],
    zarr_format: Literal[2, 3],
    storage_options: Mapping[str, Any] | None,
    description: str,
    metadata: Mapping[str, Any] | None,
    signature: Signature,
) -> CollectionRecord:
    """Record a new collection and claim its location; see :func:`intake_zcollection.create_collection`."""
    if not isinstance(merge, str):
        raise InvalidInputError(f"merge={merge!r} is not one of {', '.join(map(repr, NAMES))}; functions go to insert")
    check_merge(merge)
    if zarr_format not in (2, 3):
        raise InvalidInputError(f"zarr_format is {zarr_format!r}: Zarr has formats 2 and 3")
    if not isinstance(description, str):
        raise InvalidInputError(f"description={description!r} is not text")
    if not isinstance(location, str) or not location:
        raise InvalidInputError(f"location={location!r} is not a directory or a URL")
    dimension = _check_axis(template, axis)
    schema = schema_from_template(template, axis=axis, dimension=dimension, zarr_format=zarr_format)
    _check_partitioning(schema, partitioning)
    _check_exact(schema, partitioning)
    schema = _with_statistics(schema, statistics, name)
    place = resolve_location(location, storage_options)
    definition = CollectionDefinition(
        name=name,
        location=place.url,
        axis=axis,
        dimension=dimension,
        keys=partitioning.keys,
        partitioning=partitioning.to_json(),
        zarr_format=zarr_format,
        merge=merge,
        schema=schema.to_record(),
        storage_options=public_options(place.storage_options),
        description=description,
        metadata=attributes_to_json(metadata or {}, f"the metadata of collection {name}"),
    )
    with creating(registry, definition, place, signature=signature) as creation:
        return creation.record()


def _check_axis(template: xr.Dataset, axis: str) -> str:
    if not isinstance(template, xr.Dataset):
        raise InvalidInputError(f"the template is a {type(template).__name__}; give an xarray.Dataset")
    if axis not in template.variables:
        raise InvalidInputError(
            f"the axis {axis} is not in the template, which has {', '.join(map(str, template.variables))}"
        )
    return check_axis(template, axis)


def _check_partitioning(schema: Schema, partitioning: Partitioning) -> None:
    if isinstance(partitioning, type) or not isinstance(partitioning, Partitioning):
        raise InvalidInputError(f"partitioning={partitioning!r} is no partitioning; write Date('time', 'M') for one")
    for name in partitioning.variables:
        variable = schema.variables.get(name)
        if variable is None:
            raise InvalidInputError(f"the partitioning variable {name} is not in the template")
        if variable.dims != (schema.dimension,):
            raise InvalidInputError(
                f"the partitioning variable {name} has dimensions {variable.dims}; it needs ({schema.dimension!r},)"
            )
    partitioning.check_dtypes({name: schema.variables[name].dtype for name in partitioning.variables})


def _check_exact(schema: Schema, partitioning: Partitioning) -> None:
    for name in (schema.axis, *partitioning.variables):
        if schema.variables[name].lossy:
            raise InvalidInputError(
                f"variable {name} is lossy, and rows have their place by it: its values cannot be rounded; take lossy "
                "out of its encoding"
            )


def _with_statistics(schema: Schema, names: Iterable[str], collection: str) -> Schema:
    """Return the schema with statistics kept of some variables; raises InvalidInputError."""
    variables = dict(schema.variables)
    for name in [names] if isinstance(names, str) else names:
        check_can_have_statistics(schema, find_variable(schema, name, collection), collection)
        variables[name] = replace(variables[name], statistics=True)
    return replace(schema, variables=variables)
