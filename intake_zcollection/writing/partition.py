"""What a worker does for one partition: gather its rows, merge them with those it has, write one fragment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from registry import KeyValues

from ..errors import InvalidInputError
from ..merging import MergeFunction
from ..partitioning import Partitioning
from ..reading.table import Piece
from ..reading.window import Window, in_memory
from ..schema import Schema, SchemaVariable, Values
from ..schema.encoding import decode, encode
from ..storage.location import Location
from ..storage.write import write_fragment
from .check import check_dataset
from .staging import Intent

Arrays = Mapping[str, Sequence[Any]]
"""The pieces of each variable, encoded, one per input."""


@dataclass(frozen=True)
class MergeJob:
    """With what, and how, the inserted rows of a partition are merged."""

    existing: Piece
    function: MergeFunction
    partitioning: Partitioning
    key: KeyValues


@dataclass(frozen=True)
class FragmentJob:
    """One fragment to write: all that a worker needs but the values."""

    location: Location
    schema: Schema
    intent: Intent
    collection: str
    """The collection's name, for messages."""
    partition: str
    """The partition's, likewise."""
    order: npt.NDArray[np.intp] | None = None
    """What sorts the pieces, put one after the other, by the axis."""
    merge: MergeJob | None = None


@dataclass(frozen=True)
class FragmentResult:
    """What a worker wrote."""

    rows: int
    nbytes: int
    bounds: tuple[int | None, int | None]
    """The smallest and largest axis value, as the registry keeps them; None for immutable variables."""
    unique: bool | None
    """Whether no axis value is repeated."""


def write_partition(job: FragmentJob, arrays: Arrays) -> FragmentResult:
    """Write one partition's fragment; runs in a worker, which never uses the registry."""
    try:
        stored = {name: _gather(job, job.schema.variables[name], pieces) for name, pieces in arrays.items()}
        if job.merge is not None:
            stored = _merge(job, job.merge, stored)
    except InvalidInputError as error:
        raise InvalidInputError(f"{job.partition}: {error}") from error
    axis = job.schema.variables[job.schema.axis]
    if axis.name not in stored:
        return FragmentResult(
            0, write_fragment(job.location, job.intent.path, job.schema, stored, 0), (None, None), None
        )
    values = decode(axis, stored[axis.name]).astype(np.int64)
    nbytes = write_fragment(job.location, job.intent.path, job.schema, stored, len(values))
    unique = bool(np.all(values[1:] > values[:-1]))
    return FragmentResult(len(values), nbytes, (int(values[0]), int(values[-1])), unique)


def _gather(job: FragmentJob, variable: SchemaVariable, pieces: Sequence[Values]) -> Values:
    if variable.is_immutable:
        return pieces[0]
    joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=variable.split_axis)
    return joined if job.order is None else joined.take(job.order, axis=variable.split_axis)


def _merge(job: FragmentJob, merge: MergeJob, stored: Mapping[str, Values]) -> dict[str, Values]:
    schema = job.schema
    inserted = in_memory(schema, {name: decode(schema.variables[name], values) for name, values in stored.items()})
    existing = Window((), (merge.existing,), 0, ()).read(job.location, schema, stored)
    merged = merge.function(existing, inserted, axis=schema.axis, dimension=schema.dimension)
    check_dataset(schema, merged, job.collection)
    _check_keys(merge, merged)
    order = np.argsort(merged.variables[schema.axis].values, kind="stable")
    merged = merged.isel({schema.dimension: order})
    return {name: encode(schema.variables[name], merged.variables[name].values) for name in stored}


def _check_keys(merge: MergeJob, merged: xr.Dataset) -> None:
    names = merge.partitioning.variables
    keys = merge.partitioning.key_values({name: merged.variables[name].values for name in names})
    if np.any(keys != np.array(merge.key)):
        raise InvalidInputError("the merge function returned rows of another partition")
