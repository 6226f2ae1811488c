"""Creating a view: a collection of its own variables over a base, which it shows and never writes."""

from collections.abc import Iterable, Mapping
from typing import Any

from registry import (
    BaseDefinition,
    CollectionDefinition,
    CollectionRecord,
    Filters,
    Registry,
    SchemaRecord,
    Selection,
    Signature,
    parse_predicate,
)

from ..errors import InvalidInputError
from ..handle import Handle
from ..reading.selection import NO_PARTITIONS
from ..schema import Schema
from ..schema.attributes import attributes_to_json
from ..schema.names import check_name, find_variable
from ..storage.location import Location, check_whose, public_options, resolve_location
from ..writing.marking import creating

Shown = Iterable[str] | Mapping[str, str]
"""Which variables of its base a view shows: their names, or those it has here by the name that they get."""


def create_view(
    base: Handle,
    name: str,
    *,
    location: str,
    pinned_version: int | None,
    filters: Filters | None,
    variables: Shown | None,
    storage_options: Mapping[str, Any] | None,
    description: str,
    metadata: Mapping[str, Any] | None,
    signature: Signature,
) -> CollectionRecord:
    """Record a new view and claim its location; see :func:`intake_zcollection.create_view`."""
    if not isinstance(description, str):
        raise InvalidInputError(f"description={description!r} is not text")
    place = _place(location, storage_options)
    check_options_of_view(storage_options, place, base.location)
    over = base if pinned_version is None else base.at(pinned_version)
    chosen = over.select(NO_PARTITIONS)
    collection = chosen.collection
    taken = BaseDefinition(
        collection,
        None if pinned_version is None else chosen.version,
        filter_text(filters, collection.keys),
        _shown(chosen.schema, variables, collection.name),
    )
    nothing = SchemaRecord((), {})
    described = attributes_to_json(metadata or {}, f"the metadata of view {name}")
    return _create(base.registry, name, place, taken, nothing, description, described, signature)


def copy_view(
    view: Handle,
    name: str,
    *,
    location: str,
    filters: Filters | None,
    storage_options: Mapping[str, Any] | None,
    signature: Signature,
) -> CollectionRecord:
    """Record a view of the same base, with the same variables and definitions: its values are yet to be computed."""
    head = view.select(NO_PARTITIONS)
    over, record = head.own, head.collection
    variables = head.snapshot.schema.variables
    chosen = [text for text in (over.filters, filter_text(filters, record.keys)) if text is not None]
    taken = BaseDefinition(
        over.base,
        over.base_version if over.is_pinned or view.version is not None else None,
        " and ".join(f"({text})" for text in chosen) or None,
        {each.id: each.name for each in variables if each.id < over.own_ids},
        tuple(each.to_json() for each in over.definitions),
    )
    own = SchemaRecord(tuple(each for each in variables if each.id >= over.own_ids), {})
    told = {**record.metadata, "copied_from": {"collection": record.name, "uid": record.uid, "version": head.version}}
    place = _place(location, storage_options)
    return _create(view.registry, name, place, taken, own, record.description, told, signature)


def _create(
    registry: Registry,
    name: str,
    place: Location,
    taken: BaseDefinition,
    own: SchemaRecord,
    description: str,
    metadata: Mapping[str, Any],
    signature: Signature,
) -> CollectionRecord:
    base = taken.collection
    definition = CollectionDefinition(
        name=name,
        location=place.url,
        axis=base.axis,
        dimension=base.dimension,
        keys=base.keys,
        partitioning=base.partitioning,
        zarr_format=base.zarr_format,
        merge=base.merge,
        schema=own,
        storage_options=public_options(place.storage_options),
        description=description,
        metadata=metadata,
        base=taken,
    )
    with creating(registry, definition, place, signature=signature) as creation:
        return creation.record()


def _place(location: str, storage_options: Mapping[str, Any] | None) -> Location:
    if not isinstance(location, str) or not location:
        raise InvalidInputError(f"location={location!r} is not a directory or a URL")
    return resolve_location(location, storage_options)


def check_options_of_view(storage_options: Mapping[str, Any] | None, view: Location, base: Location) -> None:
    """Refuse options that may be secret where it is not said whether they are the view's or its base's."""
    check_whose(storage_options, [(each.url, each.storage_options.get("endpoint_url")) for each in (view, base)])


def filter_text(filters: Filters | None, names: tuple[str, ...]) -> str | None:
    """Return a filter as the registry keeps it.

    >>> filter_text({"year": 2022, "month": (1, 2)}, ("year", "month"))
    'year == 2022 and month in (1, 2)'

    Raises
    ------
    InvalidInputError
        It is not understood, or cannot be kept: a function, or keys.
    """
    if isinstance(filters, Mapping) and filters and all(isinstance(name, str) for name in filters):
        equalities = {name: _listed(value) for name, value in filters.items()}
        Selection.of(equalities, names)  # or "1" would be as good as 1 here
        filters = " and ".join(_term(name, value) for name, value in equalities.items())
    if filters is None:
        return None
    if not isinstance(filters, str):
        raise InvalidInputError(
            f"filters={filters!r} cannot be kept in the registry: a view takes text, 'year == 2022' for one, or a dict "
            "of equalities"
        )
    return parse_predicate(filters, names).text


def _listed(value: Any) -> Any:
    return [*value] if isinstance(value, Iterable) and not isinstance(value, str | bytes) else value


def _term(name: str, value: Any) -> str:
    if isinstance(value, list):
        return f"{name} in ({', '.join(map(str, value))}{',' * (len(value) == 1)})"
    return f"{name} == {value}"


def _shown(schema: Schema, variables: Shown | None, collection: str) -> dict[int, str]:
    """Return the names of what is shown, by id; the axis always is."""
    if isinstance(variables, str):
        raise InvalidInputError(f"variables={variables!r} is not a list of names")
    if variables is None:
        variables = list(schema.variables)
    named = dict(variables) if isinstance(variables, Mapping) else {each: each for each in variables}
    if named.get(schema.axis, schema.axis) != schema.axis or any(
        there == schema.axis != name for name, there in named.items()
    ):
        raise InvalidInputError(
            f"variables: the axis {schema.axis} of collection {collection} keeps its name in a view"
        )
    named[schema.axis] = schema.axis
    shown: dict[int, str] = {}
    for name, there in named.items():
        check_name(name)
        variable = find_variable(schema, there, collection)
        if variable.id in shown:
            raise InvalidInputError(f"variables: {there} is shown twice, as {shown[variable.id]} and as {name}")
        shown[variable.id] = name
    return shown
