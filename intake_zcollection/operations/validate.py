"""Validating: what the registry names is in the storage, decodes, and is what the registry says. Nothing is deleted."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from registry import Filters, format_key

from .. import execution
from ..errors import ZCollectionError
from ..execution import Execution
from ..handle import Handle
from ..reading.origin import Origin, read_rows
from ..reading.selection import Selected, Selection
from ..reading.table import PartitionTable
from ..schema import Schema, SchemaVariable
from ..storage.location import Location
from ..storage.read import chunk_regions, read_region
from ..storage.write import DECODING_KEYS, array_documents, consolidated, group_documents


@dataclass(frozen=True)
class Problem:
    """Something wrong in the storage."""

    partition: str
    """The partition's key as text, empty for the immutable variables."""
    variable: str
    """Its name, empty for the metadata of the group."""
    path: str
    """Of the object or the array, below the location."""
    what: str

    def __str__(self) -> str:
        where = self.partition or "the immutable variables"
        return f"{where}: {self.variable or self.path}: {self.what}"


@dataclass(frozen=True)
class Report:
    """What a validation looked at, and what it found."""

    collection: str
    version: int
    partitions: int
    chunks: int
    """How many chunks were read and decoded."""
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        found = f"{len(self.problems)} problems" if self.problems else "nothing wrong"
        head = f"{self.collection}, version {self.version}: {self.partitions} partitions, {self.chunks} chunks, {found}"
        return "\n".join([head, *map(str, self.problems)])


@dataclass(frozen=True)
class ValidateJob:
    """One partition to look at: all that a worker needs."""

    location: Location
    schema: Schema
    partition: str
    rows: PartitionTable
    names: tuple[str, ...]
    data: bool


def validate(handle: Handle, *, filters: Filters | None, data: bool, how: Execution) -> Report:
    """Look at all that a version has in the storage; see :meth:`intake_zcollection.Collection.validate`."""
    selected = handle.select(Selection.of(handle.record, filters))
    collection = selected.collection.name
    results = execution.run(_look, [(job, {}) for job in _jobs(selected, data)], how, what=f"validate {collection}")
    return Report(
        collection=collection,
        version=selected.version,
        partitions=len(selected.rows.keys),
        chunks=sum(chunks for chunks, _ in results),
        problems=tuple(problem for _, problems in results for problem in problems),
    )


def _jobs(selected: Selected, data: bool) -> Iterator[ValidateJob]:
    """Yield what to look at of each origin: partitions, and what is stored once."""
    schema, names = selected.schema, dict[Origin, list[str]]()
    for name in schema.variables:
        names.setdefault(selected.origins[name], []).append(name)
    for origin, here in names.items():
        partitioned = tuple(name for name in here if not schema.variables[name].is_immutable)
        for place, key in enumerate(origin.rows.keys):
            rows = origin.rows.cut(place, place + 1)
            yield ValidateJob(origin.location, schema, format_key(key), rows, partitioned, data)
        immutable = tuple(name for name in here if schema.variables[name].is_immutable)
        if len(origin.immutables):
            yield ValidateJob(origin.location, schema, "", origin.immutables, immutable, data)


def _look(job: ValidateJob, _: Any) -> tuple[int, list[Problem]]:
    """Return how many chunks of a partition were read, and what is wrong with it; runs in a worker."""
    chunks = 0
    problems: list[Problem] = []
    for (path, rows), held in _groups(job).items():
        problems += _metadata(job, path, rows, [job.schema.variables[name] for name in held])
        for name, live in held.items() if job.data else ():
            variable = job.schema.variables[name]
            read, wrong = _chunks(job, variable, path, rows, live)
            chunks += read
            problems += wrong
    axis = job.schema.axis
    if job.partition and axis in job.names and job.data and not any(problem.variable == axis for problem in problems):
        problems += _axis(job, job.schema.variables[axis])
    return chunks, problems


def _groups(job: ValidateJob) -> dict[tuple[str, int], dict[str, list[slice]]]:
    """Return the groups by path and number of rows, and which of their rows are a variable's: each group once."""
    groups: dict[tuple[str, int], dict[str, list[slice]]] = {}
    for name in job.names:
        variable = job.schema.variables[name]
        for rows in job.rows.stretches(variable):
            if rows.path is not None:
                held = groups.setdefault((rows.path, rows.group_rows), {})
                held.setdefault(name, []).append(slice(rows.start, rows.stop))
    return groups


def _metadata(job: ValidateJob, path: str, rows: int, variables: Sequence[SchemaVariable]) -> Iterator[Problem]:
    """Compare the Zarr metadata with what the schema says; the user's attributes may be those of an older version."""
    group = {name: _read_document(job, f"{path}/{name}") for name in group_documents(job.schema.zarr_format)}
    for name, found in group.items():
        if isinstance(found, str):
            yield Problem(job.partition, "", f"{path}/{name}", found)
    for variable in variables:
        for name, expected in array_documents(variable, rows).items():
            place = f"{path}/{variable.stored_name}/{name}"
            found = _read_document(job, place)
            if isinstance(found, str):
                yield Problem(job.partition, variable.name, place, found)
            elif wrong := _differences(_plain(expected), found):
                yield Problem(job.partition, variable.name, place, f"the metadata has another {', '.join(wrong)}")
            for at, document in consolidated(group, f"{variable.stored_name}/{name}"):
                if not isinstance(document, dict) or _differences(_plain(expected), document):
                    what = f"the consolidated metadata of {variable.name} is another"
                    yield Problem(job.partition, variable.name, f"{path}/{at}", what)


def _read_document(job: ValidateJob, place: str) -> dict[str, Any] | str:
    """Return a metadata document, or what is wrong with it."""
    try:
        found = json.loads(job.location.store.get([place])[0])
    except (ZCollectionError, ValueError) as error:
        return f"the metadata cannot be read: {error}"
    return found if isinstance(found, dict) else "the metadata is no JSON object"


def _differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return what differs of what decodes the values: all but the user's attributes."""
    wrong = [name for name, value in expected.items() if name != "attributes" and found.get(name) != value]
    wanted, given = (document.get("attributes", document) or {} for document in (expected, found))
    if wanted is not expected:
        wrong += [name for name, value in wanted.items() if given.get(name) != value]
    return wrong + [name for name in DECODING_KEYS if name in given and name not in wanted]


def _plain(document: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(document))
    return plain


def _chunks(
    job: ValidateJob, variable: SchemaVariable, path: str, rows: int, live: Sequence[slice]
) -> tuple[int, list[Problem]]:
    """Read the chunks that hold live rows, each once."""
    read, problems = 0, []
    for region in chunk_regions(variable, rows):
        if not variable.is_immutable and not any(_meet(region[variable.split_axis], part) for part in live):
            continue
        try:
            read_region(job.location, path, variable, rows, region)
            read += 1
        except ZCollectionError as error:
            problems.append(Problem(job.partition, variable.name, f"{path}/{variable.stored_name}", str(error)))
    return read, problems


def _meet(one: slice, other: slice) -> bool:
    return bool(one.start < other.stop and other.start < one.stop)


def _axis(job: ValidateJob, axis: SchemaVariable) -> Iterator[Problem]:
    """See that the axis is sorted, has the bounds that the registry keeps, and that no two parts touch."""
    last: int | None = None
    everything = read_rows(job.location, axis, job.rows, (slice(0, job.rows.rows),)).astype(np.int64)
    parts = np.split(everything, np.cumsum(job.rows.piece_sizes)[:-1])
    for values, part, rows in zip(parts, job.rows.parts, job.rows.stretches(axis), strict=True):
        place = f"{rows.path}/{axis.stored_name}"
        if np.any(np.diff(values) < 0):
            yield Problem(job.partition, axis.name, place, "the axis is not sorted")
        elif (values[0], values[-1]) != (part["low"], part["high"]):
            yield Problem(job.partition, axis.name, place, "the axis has other bounds than the registry")
        elif last is not None and int(values[0]) <= last:
            yield Problem(job.partition, axis.name, place, "the axis overlaps with that of the part before")
        last = int(values[-1])
