"""The axis of parts that a write meets, read before it is planned: by a map over the partitions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from registry import KeyValues

from .. import execution
from ..execution import Execution
from ..reading.origin import read_rows
from ..reading.selection import Selected
from ..reading.table import PartitionTable
from ..schema import SchemaVariable
from ..storage.location import Location

Axis = npt.NDArray[np.int64]


@dataclass(frozen=True)
class AxisJob:
    """The parts of one partition whose axis is read."""

    location: Location
    axis: SchemaVariable
    rows: PartitionTable


def read_axes(
    head: Selected, wanted: Mapping[KeyValues, tuple[PartitionTable, Sequence[int]]], how: Execution
) -> dict[KeyValues, dict[int, Axis]]:
    """Return the axis of parts, as integers (times: ns since 1970), by partition and by number.

    Of each partition its table is given, and the numbers of the parts that are wanted.
    """
    origin, axis = head.origins[head.schema.axis], head.schema.variables[head.schema.axis]
    chosen = {key: (table.take(numbers), numbers) for key, (table, numbers) in wanted.items() if numbers}
    jobs = [(AxisJob(origin.location, axis, table), dict[str, Any]()) for table, _ in chosen.values()]
    found = execution.run(_read, jobs, how, what=f"read {axis.name} of {head.collection.name}") if jobs else []
    return {
        key: dict(zip(numbers, np.split(values, np.cumsum(table.piece_sizes)[:-1]), strict=True))
        for (key, (table, numbers)), values in zip(chosen.items(), found, strict=True)
    }


def _read(job: AxisJob, _: Any) -> Axis:
    return read_rows(job.location, job.axis, job.rows, (slice(0, job.rows.rows),)).astype(np.int64)
