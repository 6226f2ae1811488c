"""Updating: variables computed from others, partition by partition; written as layers over rows that stay."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from registry import (
    IMMUTABLE_SLOT,
    Change,
    CollectionRecord,
    Filters,
    PartitionKey,
    Registry,
    Slot,
    Snapshot,
    Version,
    Written,
    pad_key,
)

from .. import execution
from ..errors import InvalidInputError
from ..execution import Execution
from ..reading.window import Call, Window, plan_windows, read_set
from ..schema import Schema, SchemaVariable, Values, Variable
from ..schema.encoding import encode
from ..schema.names import find_variable, near
from ..schema.template import new_variable
from ..storage import layout
from ..storage.location import Location, make_durable
from ..storage.write import write_fragment
from ..writing.check import check_dtype, protected_names
from ..writing.staging import Intent, check_reach, staged
from .load import Where, select
from .map import input_names


@dataclass(frozen=True)
class UpdateJob:
    """One layer to compute and write: all that a worker needs."""

    location: Location
    schema: Schema
    collection: str
    window: Window
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    call: Call
    trim: bool
    intent: Intent


def update(
    registry: Registry,
    collection: CollectionRecord,
    location: Location,
    call: Call,
    *,
    inputs: Iterable[str] | None,
    outputs: Iterable[str | Variable] | None,
    depth: int,
    trim: bool,
    filters: Filters | None,
    where: Where | None,
    message: str,
    how: Execution,
) -> Version:
    """Compute variables, and return the version it made; see :meth:`intake_zcollection.Collection.update`."""
    check_reach(location, how)
    chosen, before, _ = select(registry, collection, version=None, filters=filters, where=where or {})
    collection = chosen.collection  # as it is called now
    snapshot = registry.resolve(collection, version=chosen.version) if depth else chosen
    keys = [partition.key for partition in chosen.partitions]
    windows = plan_windows(snapshot, keys, depth)
    seen = input_names(before, inputs, collection.name)
    schema, wanted = _add_outputs(before, outputs, chosen.version)
    if not windows:
        return registry.versions(collection)[-1]
    if wanted is None:
        wanted = _infer(call, location, before, windows[0], seen, collection.name)
    written = [_check_output(schema, collection, name).id for name in wanted]
    if not written:
        raise InvalidInputError(f"the function to update collection {collection.name} with returned no variable")
    layer = registry.layer_of(collection, written)
    jobs = [
        UpdateJob(location, schema, collection.name, window, seen, wanted, call, trim, _intent(window.key, layer))
        for window in windows
    ]
    intents = [job.intent for job in jobs]
    with staged(registry, collection, location, intents, version=chosen.version, message=message) as transaction:
        sizes = execution.run(_write_layer, [(job, {}) for job in jobs], how, what=f"update {collection.name}")
        make_durable(location)
        read = frozenset({before.variables[name].id for name in seen} | set(written))
        requires, ranges = read_set(snapshot, keys, depth, read)
        change = Change(
            collection=collection,
            schema_version=chosen.version,
            operation="update",
            writes=tuple(_written(job, nbytes) for job, nbytes in zip(jobs, sizes, strict=True)),
            requires=requires | _immutable_read(before, seen, snapshot),
            summary={
                "updated": len(jobs),
                "rows": sum(len(job.window.pieces[job.window.own]) for job in jobs),
                "bytes": sum(sizes),
            },
            adds=tuple(schema.variables[name].to_record() for name in schema.variables if name not in before.variables),
            variables=read,
            ranges=ranges,
        )
        (version,) = transaction.commit([change])
    return version


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


def _check_output(schema: Schema, collection: CollectionRecord, name: str) -> SchemaVariable:
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


def _intent(key: PartitionKey, layer: int) -> Intent:
    uid = layout.new_uid()
    return Intent(Slot(pad_key(tuple(value for _, value in key)), layer), uid, layout.fragment_path(key, uid))


def _immutable_read(schema: Schema, seen: Iterable[str], snapshot: Snapshot) -> dict[Slot, str | None]:
    if not any(schema.variables[name].is_immutable for name in seen):
        return {}
    return {IMMUTABLE_SLOT: snapshot.immutable.uid if snapshot.immutable else None}


def _written(job: UpdateJob, nbytes: int) -> Written:
    piece = job.window.pieces[job.window.own]
    return Written(job.intent.slot, job.intent.uid, piece.rows, nbytes, *piece.bounds, piece.unique)


def _write_layer(job: UpdateJob, _: Any) -> int:
    """Compute one partition's variables and write them; runs in a worker. Return the bytes stored."""
    dataset = job.window.read(job.location, job.schema, job.inputs)
    before = dataset.copy(deep=True)
    stored = {}
    for name, given in _compute(job.call, dataset, job.schema, job.window, job.collection).items():
        if name not in job.outputs:
            if _is_same(before if job.trim else before.isel({job.schema.dimension: job.window.own_rows}), name, given):
                continue  # what came in goes out again, as with dataset.assign(…)
            raise _wrong(job, f"returned {name}, which is not among the outputs; {near(name, job.outputs)}")
        try:
            stored[name] = _encoded(job, job.schema.variables[name], given)
        except InvalidInputError:
            raise
        except Exception as error:  # of the function's own, if what it returned is lazy
            error.add_note(f"in partition {job.window.name}")
            raise
    own = Window(job.window.key, (job.window.pieces[job.window.own],), 0, ())
    kept = own.read(job.location, job.schema, [name for name in job.outputs if name not in stored])
    stored |= {str(name): encode(job.schema.variables[str(name)], each.values) for name, each in kept.variables.items()}
    in_order = {name: stored[name] for name in job.outputs}
    return write_fragment(job.location, job.intent.path, job.schema, in_order, own.rows)


def _infer(
    call: Call, location: Location, schema: Schema, window: Window, inputs: tuple[str, ...], collection: str
) -> tuple[str, ...]:
    """Return which variables the function makes or changes, seen on one partition."""
    dataset = window.read(location, schema, inputs)
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
            if job.trim and len(job.window.pieces) > 1
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
