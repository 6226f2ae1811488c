"""Mapping: a function of each partition, its results collected or left to dask."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from registry import CollectionRecord, Filters, PartitionKey, Registry

from .. import execution
from ..errors import InvalidInputError
from ..execution import Execution
from ..reading.window import Call, Window, plan_windows, trim
from ..schema import Schema
from ..schema.names import find_variable
from ..storage.location import Location
from .load import Where, select


@dataclass(frozen=True)
class MapJob:
    """One call of the function: all that a worker needs."""

    location: Location
    schema: Schema
    window: Window
    names: tuple[str, ...]
    call: Call
    trim: bool


def map_partitions(
    registry: Registry,
    collection: CollectionRecord,
    location: Location,
    call: Call,
    *,
    version: int | None,
    inputs: Iterable[str] | None,
    depth: int,
    trim: bool,
    filters: Filters | None,
    where: Where | None,
    lazy: bool,
    how: Execution,
) -> Any:
    """Call a function with each partition; see :meth:`intake_zcollection.Collection.map`."""
    chosen, schema, _ = select(registry, collection, version=version, filters=filters, where=where or {})
    snapshot = registry.resolve(collection, version=chosen.version) if depth else chosen
    names = input_names(schema, inputs, collection.name)
    windows = plan_windows(snapshot, [partition.key for partition in chosen.partitions], depth)
    jobs = [MapJob(location, schema, window, names, call, trim) for window in windows]
    if lazy:
        return _bag(jobs)
    results = execution.run(_run, [(job, {}) for job in jobs], how, what=f"map over {collection.name}")
    return {window.key: result for window, result in zip(windows, results, strict=True)}


def input_names(schema: Schema, inputs: Iterable[str] | None, collection: str) -> tuple[str, ...]:
    """Return the variables that a function sees: those named and the axis, or all."""
    if inputs is None:
        return tuple(schema.variables)
    if isinstance(inputs, str):
        raise InvalidInputError(f"inputs={inputs!r} is not a list of names")
    wanted = {find_variable(schema, name, collection).name for name in inputs} | {schema.axis}
    return tuple(name for name in schema.variables if name in wanted)


def _run(job: MapJob, _: Any) -> Any:
    dataset = job.window.read(job.location, job.schema, job.names)
    result = job.call(dataset, job.window, job.schema.dimension)
    return trim(result, job.window, job.schema.dimension) if job.trim else result


def _pair(job: MapJob) -> list[tuple[PartitionKey, Any]]:
    return [(job.window.key, _run(job, None))]


def _bag(jobs: list[MapJob]) -> Any:
    import dask.bag  # half a second to import, and seldom needed
    from dask.delayed import delayed

    if not jobs:
        return dask.bag.from_sequence([], npartitions=1)
    return dask.bag.from_delayed([delayed(partial(_pair, job))() for job in jobs])
