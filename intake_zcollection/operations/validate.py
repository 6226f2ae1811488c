"""Validating: what the registry names is in the storage, decodes, and is what the registry says. Nothing is deleted."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from registry import CollectionRecord, Filters, Registry, Snapshot, format_key

from .. import execution
from ..assembly.dataset import immutable_table
from ..assembly.plan import Piece
from ..errors import ZCollectionError
from ..execution import Execution
from ..schema import Schema, SchemaVariable
from ..storage import stores
from ..storage.read import chunk_regions, read_region
from ..storage.stores import Location
from ..storage.write import array_documents
from .load import select
from .window import plan_windows


@dataclass(frozen=True)
class Problem:
    """Something wrong in the storage."""

    partition: str
    """The partition's key as text, empty for the immutable variables."""
    variable: str
    path: str
    """Of the object or the array, below the location."""
    what: str

    def __str__(self) -> str:
        return f"{self.partition or 'the immutable variables'}: {self.variable}: {self.what}"


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
    piece: Piece
    names: tuple[str, ...]
    data: bool


def validate(
    registry: Registry,
    collection: CollectionRecord,
    location: Location,
    *,
    version: int | None,
    filters: Filters | None,
    data: bool,
    how: Execution,
) -> Report:
    """Look at all that a version has in the storage; see :meth:`intake_zcollection.Collection.validate`."""
    snapshot, schema, _ = select(registry, collection, version=version, filters=filters, where={})
    jobs = list(_jobs(location, schema, snapshot, data))
    results = execution.run(_look, [(job, {}) for job in jobs], how, what=f"validate {collection.name}")
    return Report(
        collection=collection.name,
        version=snapshot.version,
        partitions=len(snapshot.partitions),
        chunks=sum(chunks for chunks, _ in results),
        problems=tuple(problem for _, problems in results for problem in problems),
    )


def _jobs(location: Location, schema: Schema, snapshot: Snapshot, data: bool) -> Iterator[ValidateJob]:
    for window in plan_windows(snapshot, [partition.key for partition in snapshot.partitions], 0):
        (piece,) = window.pieces
        yield ValidateJob(location, schema, format_key(window.key), piece, tuple(schema.partitioned), data)
    for piece in immutable_table(snapshot.immutable).pieces:
        yield ValidateJob(location, schema, "", piece, tuple(schema.immutable), data)


def _look(job: ValidateJob, _: Any) -> tuple[int, list[Problem]]:
    """Return how many chunks of a partition were read, and what is wrong with it; runs in a worker."""
    chunks = 0
    problems: list[Problem] = []
    for name in job.names:
        variable = job.schema.variables[name]
        path = job.piece.path_of(variable)
        if path is None:
            continue
        problems += _documents(job, variable, path)
        if job.data:
            read, wrong = _chunks(job, variable, path)
            chunks += read
            problems += wrong
    if job.data and not problems and job.schema.axis in job.names:
        problems += _axis(job)
    return chunks, problems


def _documents(job: ValidateJob, variable: SchemaVariable, path: str) -> Iterable[Problem]:
    """Compare the Zarr metadata with what the schema says; attributes may be those of an older version."""
    for name, expected in array_documents(variable, job.piece.rows).items():
        place = f"{path}/{variable.stored_name}/{name}"
        try:
            found = json.loads(stores.get(job.location, [place])[0])
        except (ZCollectionError, ValueError) as error:
            yield Problem(job.partition, variable.name, place, f"the metadata cannot be read: {error}")
            continue
        wrong = [key for key, value in _plain(expected).items() if found.get(key) != value and key != "attributes"]
        if wrong:
            yield Problem(job.partition, variable.name, place, f"the metadata has another {', '.join(wrong)}")


def _plain(document: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(document))
    return plain


def _chunks(job: ValidateJob, variable: SchemaVariable, path: str) -> tuple[int, list[Problem]]:
    read, problems = 0, []
    for region in chunk_regions(variable, job.piece.rows):
        try:
            read_region(job.location, path, variable, job.piece.rows, region)
            read += 1
        except ZCollectionError as error:
            problems.append(Problem(job.partition, variable.name, f"{path}/{variable.stored_name}", str(error)))
    return read, problems


def _axis(job: ValidateJob) -> Iterable[Problem]:
    """See that the axis is sorted, and has the bounds that the registry keeps."""
    variable = job.schema.variables[job.schema.axis]
    path = job.piece.path_of(variable)
    if path is None:
        return
    values = read_region(job.location, path, variable, job.piece.rows, (slice(0, job.piece.rows),)).astype(np.int64)
    place = f"{path}/{variable.stored_name}"
    if np.any(np.diff(values) < 0):
        yield Problem(job.partition, variable.name, place, "the axis is not sorted")
    elif (int(values[0]), int(values[-1])) != job.piece.bounds:
        yield Problem(job.partition, variable.name, place, "the axis has other bounds than the registry")
