"""Updating: variables computed from others, partition by partition; written as layers over rows that stay."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from registry import PartitionKey, Snapshot, Version, pad_key
from registry.changes import NothingBetween, Requirement, Unchanged, VariablesAlive

from ..errors import InvalidInputError
from ..execution import Execution
from ..handle import Handle
from ..reading.selection import Selected, Selection
from ..reading.window import Call, Window, input_names, plan_windows
from ..schema import Schema, SchemaVariable, Values, Variable
from ..schema.encoding import encode
from ..schema.names import find_variable, near
from ..schema.template import new_variable
from ..writing.check import check_dtype, protected_names
from ..writing.plan import Arrays, Content, Evolution, Part, Plan, Step, Target, immutable_need
from ..writing.write import write


@dataclass(frozen=True)
class UpdateJob:
    """One layer to compute."""

    target: Target
    collection: str
    """The collection's name, for messages."""
    window: Window
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    call: Call
    trim: bool

    @property
    def schema(self) -> Schema:
        """The schema, with the variables that the update makes."""
        return self.target.schema

    def content(self, _: Arrays) -> Content:
        """Compute one partition's variables; what the function does not return keeps its values."""
        dataset = self.window.read(self.schema, self.inputs)
        before = dataset.copy(deep=True)
        seen = before if self.trim else before.isel({self.schema.dimension: self.window.own_rows})
        stored = {}
        for name, given in _compute(self.call, dataset, self.schema, self.window, self.collection).items():
            if name in self.outputs:
                stored[name] = self._encoded(self.schema.variables[name], given)
            # What came in goes out again, as with dataset.assign(…).
            elif not _is_same(seen, name, given):
                raise _wrong(self, f"returned {name}, which is not among the outputs; {near(name, self.outputs)}")
        own = self.window.alone
        kept = own.read(self.schema, [name for name in self.outputs if name not in stored])
        stored |= {str(name): encode(self.schema.variables[str(name)], kept[name].values) for name in kept.variables}
        (piece,) = own.origins[self.schema.axis].rows.pieces
        part = Part(self.target.key, piece.rows, piece.bounds, piece.unique)
        return Content({name: stored[name] for name in self.outputs}, part)

    def _encoded(self, variable: SchemaVariable, given: Any) -> Values:
        try:
            return _encoded(self, variable, given)
        except InvalidInputError:
            raise
        except Exception as error:  # of the function's own, if what it returned is lazy
            error.add_note(f"in partition {self.window.name}")
            raise


@dataclass(frozen=True)
class Updating:
    """An update that was asked for: what it plans on any head. The fields are those of ``Collection.update``."""

    call: Call
    inputs: Iterable[str] | None
    outputs: Iterable[str | Variable] | None
    depth: int
    trim: bool

    def plan(self, handle: Handle, head: Selected) -> Plan | None:
        """Return a step per partition; None if there are none."""
        whole = handle.at(head.version).select() if self.depth else head
        seen = input_names(head.schema, self.inputs, head.collection.name)
        schema, wanted = _add_outputs(head.schema, self.outputs, head.version)
        whole = whole.evolved(schema)
        windows = plan_windows(whole, head.rows.keys, self.depth)
        if not windows:
            return None
        if wanted is None:
            wanted = _infer(self.call, head.schema, windows[0], seen, head.collection.name)
        written = frozenset(_check_output(schema, head, name).id for name in wanted)
        if not written:
            raise InvalidInputError(
                f"the function to update collection {head.collection.name} with returned no variable"
            )
        evolution = Evolution(head.schema, schema, head.version)
        read = written | {schema.variables[name].id for name in seen}
        needs = _needs(whole.snapshot, self.depth, read)
        steps = []
        for window in windows:
            target = Target.of_partition(handle.location, schema, evolution.schema_version, window.key, layer=written)
            job = UpdateJob(target, head.collection.name, window, seen, wanted, self.call, self.trim)
            own = window.own_rows
            steps.append(Step(job, {}, needs[window.key], {"updated": 1, "rows": own.stop - own.start}))
        alive = VariablesAlive(frozenset(schema.variables[name].id for name in wanted if name in head.schema.variables))
        requirements = [*evolution.requirements, alive]
        if any(schema.variables[name].is_immutable for name in seen):
            requirements.append(immutable_need(head.snapshot))
        title, summary = f"update {head.collection.name}", {"updated": 0, "rows": 0}
        return Plan(head, "update", title, tuple(steps), tuple(requirements), evolution.updates, summary)


def update(handle: Handle, updating: Updating, selection: Selection, how: Execution, *, message: str) -> Version:
    """Compute variables, and return the version it made; see :meth:`intake_zcollection.Collection.update`."""
    return write(handle, partial(updating.plan, handle), how, message=message, selection=selection)


def _needs(snapshot: Snapshot, depth: int, variables: frozenset[int]) -> dict[PartitionKey, tuple[Requirement, ...]]:
    """Return what each window depends on: fragments of its rows and of variables; and that none comes between."""
    partitions, layers = snapshot.partitions, snapshot.layers
    keys = [pad_key(partition.fragments[0].key) for partition in partitions]
    needs: dict[PartitionKey, tuple[Requirement, ...]] = {}
    for place, partition in enumerate(partitions):
        low, high = place - depth, place + depth
        near = slice(max(0, low), high + 1)
        slots = {
            fragment.slot: fragment.uid
            for each in partitions[near]
            for fragment in each.fragments
            if fragment.layer_id == 0 or layers[fragment.layer_id] & variables
        }
        needs[partition.key] = (Unchanged(slots, variables),)
        if depth:
            limits = keys[low] if low >= 0 else None, keys[high] if high < len(keys) else None
            needs[partition.key] += (NothingBetween((limits,), frozenset(keys[near])),)
    return needs


def _add_outputs(
    schema: Schema, outputs: Iterable[str | Variable] | None, head: int
) -> tuple[Schema, tuple[str, ...] | None]:
    """Return the schema with the variables that are to be created, and the names of all outputs."""
    if outputs is None:
        return schema, None
    if isinstance(outputs, str):
        raise InvalidInputError(f"outputs={outputs!r} is not a list of names and Variables")
    names = []
    for output in outputs:
        if not isinstance(output, str):
            new = new_variable(schema, output)
            if new.name in schema.variables:
                raise InvalidInputError(f"outputs has a new variable {new.name}, which is there: give its name alone")
            schema = schema.added(new, begin_version=head + 1)
        names.append(output if isinstance(output, str) else output.name)
    return schema, tuple(dict.fromkeys(names))


def _check_output(schema: Schema, head: Selected, name: str) -> SchemaVariable:
    collection = head.collection
    variable = find_variable(schema, name, collection.name)
    if name in protected_names(schema, collection):
        raise InvalidInputError(
            f"variable {name} of collection {collection.name} cannot be updated: rows have their place by it; "
            "insert them again"
        )
    if variable.is_immutable:
        raise InvalidInputError(
            f"variable {name} of collection {collection.name} is stored once, and not per partition: use set_immutables"
        )
    return variable


def _infer(call: Call, schema: Schema, window: Window, inputs: tuple[str, ...], collection: str) -> tuple[str, ...]:
    """Return which variables the function makes or changes, seen on one partition."""
    dataset = window.read(schema, inputs)
    before = dataset.copy(deep=True)
    made = _compute(call, dataset, schema, window, collection)
    return tuple(
        name for name, given in made.items() if name not in before.variables or not _is_same(before, name, given)
    )


def _is_same(before: xr.Dataset, name: str, given: Any) -> bool:
    old = before.variables.get(name)
    return old is not None and isinstance(given, xr.Variable) and bool(old.equals(given))


def _compute(
    call: Call, dataset: xr.Dataset, schema: Schema, window: Window, collection: str
) -> dict[str, xr.Variable | Any]:
    """Return what the function makes of a window, by variable: labelled where it has labels."""
    result = call(dataset, window, schema.dimension)
    if isinstance(result, xr.Dataset):
        return {str(name): variable.to_base_variable() for name, variable in result.variables.items()}
    if isinstance(result, Mapping):
        return {str(name): value for name, value in result.items()}
    raise InvalidInputError(
        f"the function to update collection {collection} with returned {type(result).__name__} in partition "
        f"{window.name}; it has to return a dict of arrays by variable, or an xarray.Dataset"
    )


def _encoded(job: UpdateJob, variable: SchemaVariable, given: Any) -> Values:
    """Return the partition's own values of a variable, as stored."""
    try:
        made = given if hasattr(given, "dims") else _labelled(variable, given)
        dims, values = tuple(made.dims), np.asarray(made.values)
    except (TypeError, ValueError) as error:
        raise _wrong(job, f"returned no array for {variable.name}: {error}") from error
    if dims != variable.dims:
        raise _wrong(job, f"returned {variable.name} with dimensions {dims}, and it has {variable.dims}")
    own, rows = job.window.own_rows, job.window.rows
    expected = variable.shape(rows if job.trim else own.stop - own.start)
    if values.shape != expected:
        hint = (
            "; with trim=True it returns values for all rows that it gets"
            if job.trim and len(job.window.sizes) > 1
            else ""
        )
        raise _wrong(job, f"returned {variable.name} with shape {values.shape}, and it needs {expected}{hint}")
    check_dtype(variable, values.dtype, f"variable {variable.name} of collection {job.collection}")
    if job.trim:
        values = values[(slice(None),) * variable.split_axis + (own,)]
    try:
        return encode(variable, values)
    except InvalidInputError as error:
        raise InvalidInputError(f"{job.window.name}: {error}") from error


def _labelled(variable: SchemaVariable, given: Any) -> xr.Variable:
    """Return an array, or a pair of dimensions and one, as xarray understands it: what is masked is missing."""
    if isinstance(given, tuple) and len(given) == 2:
        return xr.Variable(*given)
    values = given if hasattr(given, "shape") else np.asarray(given)
    dims = variable.dims if values.ndim == len(variable.dims) else [f"dim_{i}" for i in range(values.ndim)]
    return xr.Variable(dims, values)


def _wrong(job: UpdateJob, what: str) -> InvalidInputError:
    return InvalidInputError(f"{job.window.name}: the function to update collection {job.collection} with {what}")
