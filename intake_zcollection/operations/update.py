"""Updating: variables computed from others, partition by partition; written as layers over rows that stay."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from registry import KeyValues, PartitionKey, Signature, Snapshot, Version, pad_key
from registry.changes import NoOtherPart, NothingBetween, Requirement, Unchanged, VariablesAlive
from registry.records import ROWS_LAYER

from ..errors import InvalidInputError
from ..execution import Execution
from ..handle import Handle
from ..reading.placing import Labels, as_variable, label_names
from ..reading.selection import Selected, Selection
from ..reading.window import Call, Window, input_names, plan_windows
from ..schema import Schema, SchemaVariable, Values, Variable
from ..schema.encoding import encode
from ..schema.names import find_variable, near
from ..schema.template import new_variable
from ..writing.check import check_dtype, protected_names
from ..writing.plan import (
    Again,
    Arrays,
    Content,
    Evolution,
    Plan,
    Step,
    Target,
    immutable_need,
    is_wanted,
    parts_of,
)
from ..writing.write import write


@dataclass(frozen=True)
class Computation:
    """A function to call with one partition."""

    collection: str
    """The collection's name, for messages."""
    schema: Schema
    window: Window
    inputs: tuple[str, ...]
    call: Call
    trim: bool

    def run(self) -> "Returned":
        """Call the function."""
        dataset = self.window.read(self.schema, self.inputs)
        before = dataset.copy(deep=True)
        labels = Labels.of(self.schema, self.window, before)
        result = self.call(dataset, self.window, self.schema.dimension)
        if isinstance(result, xr.Dataset):
            own = before.isel({self.schema.dimension: self.window.own_rows}).variables
            return Returned(self, labels, _by_name(result, self.schema.axis), {str(name): own[name] for name in own})
        if isinstance(result, Mapping):
            return Returned(self, labels, {str(name): value for name, value in result.items()}, {})
        raise InvalidInputError(
            f"the function to update collection {self.collection} with returned {type(result).__name__} in partition "
            f"{self.window.name}; it has to return a dict of arrays by variable, or an xarray.Dataset"
        )

    def wrong(self, what: str) -> InvalidInputError:
        """Return the error of a result that does not fit."""
        return InvalidInputError(f"{self.window.name}: the function to update collection {self.collection} with {what}")


@dataclass(frozen=True)
class Returned:
    """What a function made of a partition."""

    of: Computation
    labels: Labels
    given: Mapping[str, Any]
    """As it was returned, by variable."""
    seen: Mapping[str, xr.Variable]
    """What the partition had before, of all that may come back unchanged: in a dataset, as with dataset.assign(…)."""

    def is_unchanged(self, name: str) -> bool:
        """Whether a variable came back as it was."""
        return name in self.seen and bool(self.own(name).equals(self.seen[name]))

    def own(self, name: str) -> xr.Variable:
        """Return the partition's own values of a variable, in the order of its rows and of all other labels."""
        try:
            return self._find_own(name).compute()
        except InvalidInputError:
            raise
        except Exception as error:  # of the function's own, if what it returned is lazy
            error.add_note(f"in partition {self.of.window.name}")
            raise

    def _find_own(self, name: str) -> xr.Variable:
        variable, window, trim = self.of.schema.variables[name], self.of.window, self.of.trim
        try:
            made, labelled = as_variable(self.of.schema, variable, self.given[name])
        except (TypeError, ValueError) as error:
            raise self.of.wrong(f"returned no array for {name}: {error}") from error
        if made.dims != variable.dims:
            raise self.of.wrong(f"returned {name} with dimensions {made.dims}, and it has {variable.dims}")
        own, what = window.own_rows, f"returned {name}"
        expected = variable.shape(window.rows if trim else own.stop - own.start)
        places: dict[Any, Any] = {}
        for dimension, size in zip(variable.dims, expected, strict=True):
            found = self.labels.find_own(labelled, dimension, trim=trim, what=str(self.of.wrong(what)))
            if found is not None:
                places[dimension] = found
            elif made.sizes[dimension] != size:
                hint = "; with trim=True it returns values for all rows that it gets" * (trim and len(window.sizes) > 1)
                raise self.of.wrong(f"{what} with shape {made.shape}, and it needs {expected}{hint}")
            elif dimension == self.of.schema.dimension and trim:
                places[dimension] = own
        return made.isel(places)


@dataclass(frozen=True)
class UpdateJob:
    """One layer to compute."""

    target: Target
    outputs: tuple[str, ...]
    computation: Computation

    def content(self, _: Arrays) -> Content:
        """Compute one partition's variables; what the function does not return keeps its values."""
        schema, window = self.computation.schema, self.computation.window
        returned = self.computation.run()
        stored = {}
        for name in returned.given:
            if name in self.outputs:
                stored[name] = self._encoded(schema.variables[name], returned)
            elif not returned.is_unchanged(name):
                raise self.computation.wrong(
                    f"returned {name}, which is not among the outputs; {near(name, self.outputs)}"
                )
        own = window.alone
        kept = own.read(schema, [name for name in self.outputs if name not in stored])
        stored |= {str(name): encode(schema.variables[str(name)], kept[name].values) for name in kept.variables}
        parts = parts_of(self.target.key, own.origins[schema.axis].rows)
        return Content({name: stored[name] for name in self.outputs}, parts)

    def _encoded(self, variable: SchemaVariable, returned: Returned) -> Values:
        """Return the partition's own values of a variable, as stored."""
        values = np.asarray(returned.own(variable.name).values)
        check_dtype(variable, values.dtype, f"variable {variable.name} of collection {self.computation.collection}")
        try:
            return encode(variable, values)
        except InvalidInputError as error:
            raise InvalidInputError(f"{self.computation.window.name}: {error}") from error


@dataclass(eq=False)
class Updating:
    """An update that was asked for: what it plans on any head. The fields are those of ``Collection.update``."""

    call: Call
    inputs: Iterable[str] | None
    outputs: Iterable[str | Variable] | None
    depth: int
    trim: bool
    _inferred: tuple[str, ...] | None = field(default=None, init=False)
    """The outputs, where the function itself says what they are: found once for all partitions."""

    def __post_init__(self) -> None:
        """Keep what can be gone through only once."""
        for name in ("inputs", "outputs"):
            if isinstance(given := getattr(self, name), Iterator):
                setattr(self, name, tuple(given))

    def _computation(self, head: Selected, schema: Schema, window: Window, inputs: tuple[str, ...]) -> Computation:
        return Computation(head.collection.name, schema, window, inputs, self.call, self.trim)

    def plan(self, handle: Handle, head: Selected, again: Again | None) -> Plan | None:
        """Return a step per partition; None if there are none."""
        whole = handle.at(head.version).select() if self.depth else head
        seen = input_names(head.schema, self.inputs, head.collection.name)
        schema, wanted = _add_outputs(head.schema, self.outputs, head.version)
        whole = whole.evolved(schema)
        # One that came next to others, which see it now, cannot have come afterwards.
        planned = again.planned if self.depth and again is not None else None
        keys = [
            key
            for key in head.rows.keys
            if is_wanted(columns := _columns(key), again) or (planned is not None and columns not in planned)
        ]
        windows = plan_windows(whole, keys, self.depth)
        if not windows:
            return None
        if again is None or again.keys is None:
            self._inferred = None  # no step is left that goes by it
        if wanted is None:
            wanted = self._inferred = self._inferred or _infer(self._computation(head, schema, windows[0], seen))
        written = frozenset(_check_output(schema, head, name).id for name in wanted)
        if not written:
            raise InvalidInputError(
                f"the function to update collection {head.collection.name} with returned no variable"
            )
        evolution = Evolution(head.schema, schema, head.version)
        # Labels that the function does not see are read where a result has such ones.
        used = {
            *seen,
            *(label for name in wanted for d in schema.variables[name].dims for label in label_names(schema, d)),
        }
        read = written | {schema.variables[name].id for name in used}
        needs = _needs(whole.snapshot, self.depth, read)
        steps = []
        for window in windows:
            target = Target.of_partition(handle.location, schema, evolution.schema_version, window.key, layer=written)
            job = UpdateJob(target, wanted, self._computation(head, schema, window, seen))
            own = window.own_rows
            counts = {"updated": 1, "rows": own.stop - own.start}
            steps.append(Step(target.key, job, {}, needs[window.key], counts, title=window.name))
        alive = VariablesAlive(
            {head.schema.variables[name].id: name for name in wanted if name in head.schema.variables}
        )
        requirements = [*evolution.requirements, alive]
        if any(schema.variables[name].is_immutable for name in used):
            requirements.append(immutable_need(head.snapshot))
        title, summary = f"update {head.collection.name}", {"updated": 0, "rows": 0}
        return Plan(head, "update", title, tuple(steps), tuple(requirements), evolution.updates, summary)


def _columns(key: PartitionKey) -> KeyValues:
    """Return all six key columns."""
    return pad_key(tuple(value for _, value in key))


def update(
    handle: Handle, updating: Updating, selection: Selection, how: Execution, *, signature: Signature, repeatable: bool
) -> Version:
    """Compute variables, and return the version it made; see :meth:`intake_zcollection.Collection.update`."""
    plan = partial(updating.plan, handle)
    return write(handle, plan, how, signature=signature, selection=selection, repeatable=repeatable)


def _needs(snapshot: Snapshot, depth: int, variables: frozenset[int]) -> dict[PartitionKey, tuple[Requirement, ...]]:
    """Return what each window depends on: fragments of its rows and of variables; and that none comes between."""
    partitions, layers = snapshot.partitions, snapshot.layers
    keys = [pad_key(partition.values) for partition in partitions]
    needs: dict[PartitionKey, tuple[Requirement, ...]] = {}
    for place, partition in enumerate(partitions):
        low, high = place - depth, place + depth
        near = slice(max(0, low), high + 1)
        fragments = [fragment for each in partitions[near] for fragment in each.fragments]
        slots = {
            fragment.slot: fragment.identity
            for fragment in fragments
            if fragment.layer_id == ROWS_LAYER or layers[fragment.layer_id] & variables
        }
        parts = frozenset((slot.key, slot.axis_min) for slot in slots)
        alone = NoOtherPart(tuple((key, None, None) for key in keys[near]), parts)
        needs[partition.key] = (Unchanged(slots, variables), alone)
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


def _infer(computation: Computation) -> tuple[str, ...]:
    """Return which variables the function makes or changes, seen on one partition."""
    returned = computation.run()
    return tuple(name for name in returned.given if not returned.is_unchanged(name))


def _by_name(result: xr.Dataset, axis: str) -> dict[str, xr.DataArray]:
    """Return the variables of a dataset, with their labels."""
    labelled = result.set_coords(axis) if axis in result.variables else result
    return {str(name): labelled[name] for name in labelled.variables}
