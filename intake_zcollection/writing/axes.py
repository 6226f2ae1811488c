"""The axis of parts that a write meets, read before it is planned: by a map over the partitions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from registry import KeyValues

from .. import execution
from ..execution import Execution
from ..reading.origin import read_pieces
from ..reading.selection import Selected
from ..reading.table import Piece
from ..schema import SchemaVariable
from ..storage.location import Location

Axis = npt.NDArray[np.int64]


@dataclass(frozen=True)
class AxisJob:
    """The parts of one partition whose axis is read."""

    location: Location
    axis: SchemaVariable
    pieces: Sequence[Piece]


def read_axes(
    head: Selected, pieces: Mapping[KeyValues, Mapping[int, Piece]], how: Execution
) -> dict[KeyValues, dict[int, Axis]]:
    """Return the axis of parts, as integers (times: ns since 1970), by partition and the numbers given to them."""
    origin, axis = head.origins[head.schema.axis], head.schema.variables[head.schema.axis]
    wanted = {key: parts for key, parts in pieces.items() if parts}
    jobs = [(AxisJob(origin.location, axis, list(parts.values())), dict[str, Any]()) for parts in wanted.values()]
    found = execution.run(_read, jobs, how, what=f"read {axis.name} of {head.collection.name}") if jobs else []
    return {
        key: dict(zip(parts, _split(values, parts.values()), strict=True))
        for (key, parts), values in zip(wanted.items(), found, strict=True)
    }


def _read(job: AxisJob, _: Any) -> Axis:
    rows = sum(map(len, job.pieces))
    return read_pieces(job.location, job.axis, job.pieces, (slice(0, rows),)).astype(np.int64)


def _split(values: Axis, pieces: Any) -> list[Axis]:
    return np.split(values, np.cumsum([len(piece) for piece in pieces])[:-1])
