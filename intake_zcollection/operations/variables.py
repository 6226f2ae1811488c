"""Changing the schema: variables added, renamed and dropped, attributes set; in the registry alone.

A fragment knows the version of the schema it was written with, so nothing stored has to change: an added variable
reads as its fill value where a fragment is older, a dropped one is not read, and a renamed one keeps its stored name.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import xarray as xr

from registry import CollectionRecord, SchemaRecord, Signature, Version
from registry.changes import EditSchema

from ..errors import AlreadyExistsError, InvalidInputError
from ..handle import Handle
from ..schema import Schema, Variable
from ..schema.attributes import Attributes, check_attributes
from ..schema.names import check_name, find_variable
from ..writing.check import Views, may_break, protected_names
from ..writing.own import new_variable_of


def add_variable(handle: Handle, variable: Variable | xr.DataArray, signature: Signature) -> Version:
    """Add a variable to the schema; see :meth:`intake_zcollection.Collection.add_variable`."""

    def edit(schema: Schema) -> Schema:
        new = new_variable_of(handle.record, schema, variable)
        if new.is_immutable:
            do = "all own variables of a view have it" if handle.base else "give its values with set_immutables"
            raise InvalidInputError(f"variable {new.name} lacks the dimension {schema.dimension!r}: {do}")
        _check_free(schema, new.name, handle.record.name)
        return schema.added(new, begin_version=0)

    return _change(handle, edit, "add_variable", signature.saying(str(getattr(variable, "name", variable))))


def rename_variable(handle: Handle, old: str, new: str, signature: Signature) -> Version:
    """Rename a variable; see :meth:`intake_zcollection.Collection.rename_variable`."""
    check_name(new)

    def edit(schema: Schema) -> Schema:
        find_variable(schema, old, handle.record.name)
        _check_unprotected(schema, handle.record, old, "renamed")
        if new == old:
            return schema
        _check_free(schema, new, handle.record.name)
        return replace(
            schema,
            variables={
                new if name == old else name: replace(variable, name=new) if name == old else variable
                for name, variable in schema.variables.items()
            },
        )

    return _change(handle, edit, "rename_variable", signature.saying(f"{old} → {new}"))


def drop_variable(handle: Handle, name: str, views: Views, signature: Signature) -> Version:
    """Drop a variable; see :meth:`intake_zcollection.Collection.drop_variable`."""

    def edit(schema: Schema) -> Schema:
        find_variable(schema, name, handle.record.name)
        _check_unprotected(schema, handle.record, name, "dropped")
        return replace(schema, variables={key: each for key, each in schema.variables.items() if key != name})

    return _change(handle, edit, "drop_variable", signature.saying(name), break_views=may_break(views))


def set_attributes(handle: Handle, attrs: Mapping[str, Any], variable: str | None, signature: Signature) -> Version:
    """Set attributes; see :meth:`intake_zcollection.Collection.set_attributes`."""
    if not isinstance(attrs, Mapping):
        raise InvalidInputError(f"attrs={attrs!r} is no mapping of names to values")
    given = Attributes.of(attrs, "the dataset" if variable is None else f"variable {variable}")

    def edit(schema: Schema) -> Schema:
        if variable is None:
            return replace(schema, attrs=schema.attrs.updated(given))
        found = find_variable(schema, variable, handle.record.name)
        check_attributes(variable, found.dtype, given)
        changed = replace(found, attrs=found.attrs.updated(given))
        return replace(schema, variables={**schema.variables, variable: changed})

    return _change(handle, edit, "set_attributes", signature if variable is None else signature.saying(variable))


def _check_unprotected(schema: Schema, collection: CollectionRecord, name: str, verb: str) -> None:
    if name in protected_names(schema, collection):
        raise InvalidInputError(
            f"variable {name} of collection {collection.name} cannot be {verb}: rows have their place by it"
        )


def _check_free(schema: Schema, name: str, collection: str) -> None:
    if name in schema.variables:
        raise AlreadyExistsError(f"collection {collection} has a variable {name} already; choose another name")


def _change(
    handle: Handle,
    edit: Callable[[Schema], Schema],
    operation: str,
    signature: Signature,
    *,
    break_views: bool = False,
) -> Version:
    def edit_record(record: SchemaRecord) -> SchemaRecord:
        return edit(Schema.of(handle.record, record)).to_record()

    return handle.commit(operation, EditSchema(edit_record, break_views), signature=signature)
