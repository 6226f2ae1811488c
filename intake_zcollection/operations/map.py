"""Mapping: a function of each partition, its results collected or left to dask."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from registry import PartitionKey

from .. import execution
from ..execution import Execution
from ..handle import Handle
from ..reading.listing import Listing
from ..reading.placing import Labels
from ..reading.rows import Mapped
from ..reading.selection import Selection
from ..reading.window import Call, Window, input_names, plan_windows
from ..schema import Schema


@dataclass(frozen=True)
class MapJob:
    """One call of the function: all that a worker needs."""

    collection: str
    """The collection's name, for messages."""
    schema: Schema
    window: Window
    names: tuple[str, ...]
    call: Call
    trim: bool
    listing: Listing


def map_partitions(
    handle: Handle,
    call: Call,
    *,
    inputs: Iterable[str] | None,
    depth: int,
    trim: bool,
    selection: Selection,
    lazy: bool,
    how: Execution,
) -> Any:
    """Call a function with each partition; see :meth:`intake_zcollection.Collection.map`."""
    if inputs is not None and not isinstance(inputs, str):
        inputs = tuple(inputs)
        selection = replace(selection, asked=selection.asked._replace(names=frozenset(inputs)))
    chosen = handle.select(selection)
    whole = handle.whole(chosen, selection.asked) if depth else chosen
    names = input_names(chosen.schema, inputs, chosen.collection.name)
    windows = plan_windows(whole, chosen.rows.keys, depth)
    collection = chosen.collection.name
    jobs = [MapJob(collection, chosen.schema, window, names, call, trim, chosen.listing) for window in windows]
    if lazy:
        return _bag(jobs)
    results = execution.run(_run, [(job, {}) for job in jobs], how, what=f"map over {collection}")
    by_key = {window.key: result for window, result in zip(windows, results, strict=True)}
    return Mapped(by_key, chosen.collection, chosen.version, chosen.base_versions)


def _run(job: MapJob, _: Any) -> Any:
    with job.listing.asked_again():
        dataset = job.window.read(job.schema, job.names)
    labels = Labels.of(job.schema, job.window, dataset)
    result = job.call(dataset, job.window, job.schema.dimension)
    what = f"{job.window.name}: the function to map over collection {job.collection} returned {type(result).__name__}"
    return labels.trim(result, what) if job.trim else result


def _pair(job: MapJob) -> list[tuple[PartitionKey, Any]]:
    return [(job.window.key, _run(job, None))]


def _bag(jobs: list[MapJob]) -> Any:
    import dask.bag  # half a second to import, and seldom needed
    from dask.delayed import delayed

    if not jobs:
        return dask.bag.from_sequence([], npartitions=1)
    return dask.bag.from_delayed([delayed(partial(_pair, job))() for job in jobs])
