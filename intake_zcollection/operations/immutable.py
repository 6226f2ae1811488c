"""Setting the immutable variables by themselves, not with an insert."""

from dataclasses import replace
from functools import partial

import xarray as xr

from registry import Signature, Version
from registry.changes import VariablesAlive

from ..errors import InvalidInputError
from ..execution import Execution
from ..handle import Handle
from ..reading.selection import Selected
from ..schema import Schema, Values
from ..schema.encoding import encode
from ..schema.template import new_variable
from ..writing.check import check_variable
from ..writing.immutables import immutable_step
from ..writing.meaning import check_meaning, meaning_need
from ..writing.plan import Again, Evolution, Plan, Target
from ..writing.write import write


def set_immutables(handle: Handle, data: xr.Dataset, *, signature: Signature) -> Version:
    """Store or replace immutable variables; see :meth:`intake_zcollection.Collection.set_immutables`."""
    if not isinstance(data, xr.Dataset):
        raise InvalidInputError(f"collection {handle.record.name} takes an xarray.Dataset, not {type(data).__name__}")
    # One small group needs no help.
    return write(handle, partial(_plan, handle, data), Execution(scheduler="synchronous"), signature=signature)


def _plan(handle: Handle, data: xr.Dataset, head: Selected, _: Again | None) -> Plan:
    evolution = Evolution(head.schema, _with_new(head, data), head.version)
    schema = evolution.after
    stored = _stored(head)
    stored |= {name: encode(schema.variables[name], data.variables[name].values) for name in map(str, data.variables)}
    missing = [name for name in schema.immutable if name not in stored]
    if missing:
        raise InvalidInputError(
            f"the immutable variables of collection {head.collection.name} come together, the first time: the dataset "
            f"lacks {', '.join(missing)}"
        )
    target = Target.of_immutables(handle.location, schema, evolution.schema_version)
    step = immutable_step(target, {name: stored[name] for name in schema.immutable}, head)
    brought = [head.schema.variables[str(name)] for name in data.variables if str(name) in head.schema.variables]
    alive = VariablesAlive({variable.id: variable.name for variable in brought})
    requirements = (*evolution.requirements, alive, meaning_need(brought))
    title, summary = f"set immutables of {head.collection.name}", {"variables": len(data.variables)}
    return Plan(head, "set_immutables", title, (step,), requirements, evolution.updates, summary)


def _with_new(head: Selected, data: xr.Dataset) -> Schema:
    """Return the schema with the variables that it lacks; raises InvalidInputError for those that are partitioned."""
    schema, collection = head.schema, head.collection.name
    if not data.variables:
        raise InvalidInputError(f"the dataset has no variables, and would change nothing in {collection}")
    check_meaning(schema, data, collection)
    for name in map(str, data.variables):
        if schema.dimension in data.variables[name].dims:
            raise InvalidInputError(
                f"variable {name} has the dimension {schema.dimension!r}: it is stored with each partition; insert it"
            )
        if name in schema.variables:
            check_variable(schema, schema.variables[name], data.variables[name], collection)
        else:
            new = replace(new_variable(schema, data[name]), is_coordinate=name in data.coords)
            schema = schema.added(new, begin_version=head.version + 1)
    return schema


def _stored(head: Selected) -> dict[str, Values]:
    """Return the immutable variables as they are stored, encoded."""
    if head.snapshot.immutable is None:
        return {}
    return {
        name: encode(variable, head.origins[name].read(variable)) for name, variable in head.schema.immutable.items()
    }
