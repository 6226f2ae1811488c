"""What an update plans on a head: variables computed partition by partition, as layers over rows that stay."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from registry import Asked, Definition, KeyValues, PartitionKey, Snapshot, columns_of, pad_key
from registry.changes import (
    NoOtherPart,
    NothingBetween,
    RecordDefinitions,
    Requirement,
    Unchanged,
    Update,
    VariablesAlive,
)
from registry.overlay import Rows
from registry.records import ROWS_LAYER

from ..errors import InvalidInputError
from ..functions import is_plain, path_of_function
from ..handle import Handle
from ..reading.placing import label_names
from ..reading.selection import Selected
from ..reading.window import Call, Window, input_names, plan_windows
from ..schema import Schema, SchemaVariable, Variable
from ..schema.names import find_variable
from .check import protected_names
from .computing import Computation, UpdateJob
from .own import new_variable_of, own_need
from .plan import (
    Again,
    Evolution,
    Plan,
    Step,
    Target,
    immutable_need,
    is_wanted,
)


@dataclass(eq=False)
class Updating:
    """An update that was asked for: what it plans on any head. The fields are those of ``Collection.update``."""

    call: Call
    inputs: Iterable[str] | None
    outputs: Iterable[str | Variable] | None
    depth: int
    trim: bool
    rowwise: bool = False
    code_version: str | None = None
    _inferred: tuple[str, ...] | None = field(default=None, init=False)
    """The outputs, where the function itself says what they are: found once for all partitions."""

    def __post_init__(self) -> None:
        """Keep what can be gone through only once.

        Raises InvalidInputError for what contradicts itself.
        """
        if not isinstance(self.rowwise, bool):
            raise InvalidInputError(f"rowwise={self.rowwise!r} is neither True nor False")
        if self.rowwise and self.depth:
            raise InvalidInputError(
                f"rowwise=True says that each row is computed from that row alone, and depth={self.depth!r} that the "
                "function sees neighbour partitions: leave one of them out"
            )
        if not isinstance(self.code_version, str | None):
            raise InvalidInputError(f"code_version={self.code_version!r} is not text")
        for name in ("inputs", "outputs"):
            if isinstance(given := getattr(self, name), Iterator):
                setattr(self, name, tuple(given))

    def plan(
        self,
        handle: Handle,
        head: Selected,
        again: Again | None,
        rows: Mapping[KeyValues, tuple[Rows, ...]] | None = None,
    ) -> Plan | None:
        """Return a step per partition; None if there are none, and nothing is to be recorded either.

        Of a view, perhaps of some partitions alone, and of some rows of these: by all six key columns.
        """
        whole = handle.whole(head, NOTHING_OF_ITS_OWN) if self.depth else head
        seen = _input_names(head, self.inputs)
        schema, wanted = _add_outputs(head, self.outputs)
        whole = whole.evolved(schema)
        windows = plan_windows(whole, self._keys(head, again, rows), self.depth)
        if not windows:
            return None if head.snapshot.overlay is None or not wanted else self._recording(head)
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
            *_inputs_of_indexes(head, schema, written),
        }
        steps = self._steps(handle, whole, windows, seen, wanted, evolution, used, rows)
        alive = VariablesAlive(
            {head.schema.variables[name].id: name for name in wanted if name in head.schema.variables}
        )
        requirements: list[Requirement] = [*evolution.requirements, alive]
        if head.snapshot.overlay is None and any(schema.variables[name].is_immutable for name in used):
            requirements.append(immutable_need(head.snapshot))
        title, summary = f"update {head.collection.name}", {"updated": 0, "rows": 0}
        definition = self.definition(head, schema, used, wanted)
        computes = () if head.snapshot.overlay is None else (definition,)
        updates = (*evolution.updates, *self.recorded(computes))
        return Plan(head, "update", title, steps, tuple(requirements), updates, summary, computes)

    def record(self, head: Selected, _: Again | None) -> Plan:
        """Return what makes it the definition of a view's outputs, which nothing is computed for."""
        plan = self._recording(head)
        if plan is None:
            raise InvalidInputError(
                f"the function to update view {head.collection.name} with cannot be recorded: it has to be importable, "
                "by its module and name, and its arguments have to be what JSON can hold"
            )
        return plan

    def _recording(self, head: Selected) -> Plan | None:
        """Return what records it; None if no other process can do the same."""
        name = head.collection.name
        seen = _input_names(head, self.inputs)
        schema, wanted = _add_outputs(head, self.outputs)
        if not wanted:
            raise InvalidInputError(f"which variables of view {name} does the function compute? Give outputs")
        for each in wanted:
            _check_output(schema, head, each)
        evolution = Evolution(head.schema, schema, head.version)
        definition = self.definition(head, schema, seen, wanted)
        updates = (*evolution.updates, *self.recorded((definition,)))
        if definition.function is None:
            return None
        return Plan(head, "define", f"define {', '.join(wanted)} of {name}", (), evolution.requirements, updates)

    def recorded(self, definitions: tuple[Definition, ...]) -> tuple[Update, ...]:
        """Return the update that makes definitions a view's, as far as another process can do the same."""
        recordable = tuple(each for each in definitions if each.function is not None)
        return (RecordDefinitions(recordable),) if recordable else ()

    def definition(self, head: Selected, schema: Schema, inputs: Iterable[str], outputs: Iterable[str]) -> Definition:
        """Return how the outputs are computed, in terms that outlive their names."""
        seen, over = sorted(schema.variables[name].id for name in inputs), head.snapshot.overlay
        below = {} if over is None or over.below is None else over.below.uses
        args, kwargs = self.call.args, dict(self.call.kwargs)
        path = path_of_function(self.call.function) if is_plain(args, kwargs) else None
        return Definition(
            function=path,
            inputs=tuple(seen),
            through=tuple(sorted(frozenset().union(*(below.get(id_, frozenset()) for id_ in seen)))),
            outputs=tuple(sorted(schema.variables[name].id for name in outputs)),
            depth=self.depth,
            rowwise=self.rowwise,
            trim=self.trim,
            code_version=self.code_version,
            args=args if path else (),
            kwargs=kwargs if path else {},
        )

    def _computation(self, head: Selected, schema: Schema, window: Window, inputs: tuple[str, ...]) -> Computation:
        return Computation(head.collection.name, schema, window, inputs, self.call, self.trim)

    def _keys(
        self, head: Selected, again: Again | None, rows: Mapping[KeyValues, tuple[Rows, ...]] | None
    ) -> list[PartitionKey]:
        # One that came next to others, which see it now, cannot have come afterwards.
        planned = again.planned if self.depth and again is not None else None
        return [
            key
            for key in head.rows.keys
            if (rows is None or columns_of(key) in rows)
            and (is_wanted(columns := columns_of(key), again) or (planned is not None and columns not in planned))
        ]

    def _steps(
        self,
        handle: Handle,
        whole: Selected,
        windows: Iterable[Window],
        seen: tuple[str, ...],
        wanted: tuple[str, ...],
        evolution: Evolution,
        used: Iterable[str],
        rows: Mapping[KeyValues, tuple[Rows, ...]] | None,
    ) -> tuple[Step, ...]:
        schema, over = evolution.after, whole.snapshot.overlay
        layer = frozenset(schema.variables[name].id for name in wanted)
        read = layer | {schema.variables[name].id for name in used}
        needs = _needs(whole.snapshot, self.depth, read) if over is None else {}
        steps = []
        for window in windows:
            target = Target.of_partition(handle.location, schema, evolution.schema_version, window.key, layer=layer)
            ranges: tuple[Rows, ...] | None = None
            if over is not None:
                target = target.over(over.base_version)
                ranges = ((0, window.alone.rows),) if rows is None else rows[target.key]
                window = window.of_rows(ranges) if self.rowwise and rows is not None else window
            count = window.alone.rows
            job = UpdateJob(target, wanted, self._computation(whole, schema, window, seen), ranges)
            need = needs[window.key] if over is None else (own_need(over, [target.key]),)
            counts = {"updated": 1, "rows": count}
            steps.append(Step(target.key, job, {}, need, counts, title=window.name))
        return tuple(steps)


NOTHING_OF_ITS_OWN = Asked(frozenset())
"""An update sees none of a view's own variables: what it reads is all at one version of the base."""


def _inputs_of_indexes(head: Selected, schema: Schema, written: frozenset[int]) -> Iterator[str]:
    """Yield the variables that are read to index what is written: an index is of several together."""
    indexes = [each for each in head.snapshot.indexes if each.per == "row" and written & each.inputs.keys()]
    used = {id_ for each in indexes for id_ in each.inputs}
    yield from (variable.name for variable in schema.variables.values() if variable.id in used)


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


def _input_names(head: Selected, inputs: Iterable[str] | None) -> tuple[str, ...]:
    """Return the variables that a function sees; of a view, those of its base."""
    known = head.inputs
    inputs = inputs if inputs is None or isinstance(inputs, str) else tuple(inputs)
    own = [name for name in inputs or () if name in head.schema.variables and name not in known.variables]
    if own:
        raise InvalidInputError(
            f"inputs: {', '.join(own)} are own variables of view {head.collection.name}, which are computed from those "
            "of its base alone; compute both in one function"
        )
    return input_names(known, inputs, head.collection.name)


def _add_outputs(head: Selected, outputs: Iterable[str | Variable] | None) -> tuple[Schema, tuple[str, ...] | None]:
    """Return the schema with the variables that are to be created, and the names of all outputs."""
    schema = head.schema
    if outputs is None:
        return schema, None
    if isinstance(outputs, str):
        raise InvalidInputError(f"outputs={outputs!r} is not a list of names and Variables")
    names = []
    for output in outputs:
        if not isinstance(output, str):
            new = new_variable_of(head.collection, schema, output)
            if new.name in schema.variables:
                raise InvalidInputError(f"outputs has a new variable {new.name}, which is there: give its name alone")
            schema = schema.added(new, begin_version=head.version + 1)
        names.append(output if isinstance(output, str) else output.name)
    return schema, tuple(dict.fromkeys(names))


def _check_output(schema: Schema, head: Selected, name: str) -> SchemaVariable:
    collection = head.collection
    variable = find_variable(schema, name, collection.name)
    over = head.snapshot.overlay
    if over is not None and variable.id < over.own_ids:
        raise InvalidInputError(
            f"variable {name} of view {collection.name} is its base's, which a view never writes: show it by another "
            f"name (rename_variable({name!r}, …)), and {name} is free for an own variable"
        )
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
