"""What is recorded of values: the smallest, the largest, and how many are missing, for the rows of each part."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from registry import Statistic

from ..errors import InvalidInputError
from ..reading.bounds import as_bigint, check_comparable
from ..schema import Schema, SchemaVariable, Values
from ..schema.encoding import decode, is_missing
from ..storage.location import Location
from ..storage.read import read_region
from .plan import Arrays, Content, Target


def statistics_of(target: Target, uid: str, content: Content) -> tuple[Statistic, ...]:
    """Return the statistics of what a group holds, of the variables of which they are kept."""
    kept = [target.schema.variables[name] for name in content.values if target.schema.variables[name].statistics]
    return tuple(each for variable in kept for each in _of_parts(variable, uid, content))


def _of_parts(variable: SchemaVariable, uid: str, content: Content) -> Iterator[Statistic]:
    start, stored = 0, content.values[variable.name]
    for part in content.parts:
        rows = (slice(None),) * variable.split_axis + (slice(start, start + part.rows),)
        yield _of_values(variable, uid, start, part.rows, decode(variable, stored[rows]))
        start += part.rows


def _of_values(variable: SchemaVariable, uid: str, start: int, rows: int, values: Values) -> Statistic:
    missing = is_missing(values)
    there = values[~missing]
    low = high = None
    if there.size:
        counted = there.astype("M8[ns]").view(np.int64) if there.dtype.kind == "M" else there
        low, high = (each.item() for each in (counted.min(), counted.max()))
        if isinstance(low, int):
            low, high = as_bigint(low), as_bigint(high)
    return Statistic(uid, variable.id, start, start + rows, low, high, int(np.count_nonzero(missing)))


@dataclass(frozen=True)
class HeldRows:
    """Rows of a variable in a group that is there, which statistics are to be kept of."""

    location: Location
    variable: SchemaVariable
    uid: str
    path: str
    start: int
    rows: int
    group_rows: int

    def read(self) -> Statistic:
        """Return what they are."""
        shape = self.variable.shape(self.rows)
        region = tuple(
            slice(self.start, self.start + size) if axis == self.variable.split_axis else slice(0, size)
            for axis, size in enumerate(shape)
        )
        values = read_region(self.location, self.path, self.variable, self.group_rows, region)
        return _of_values(self.variable, self.uid, self.start, self.rows, values)


@dataclass(frozen=True)
class StatisticsJob:
    """A partition whose values are read for their statistics."""

    held: tuple[HeldRows, ...]


def read_statistics_of(job: StatisticsJob, _: Arrays) -> tuple[Statistic, ...]:
    """Return the statistics of a partition: what a worker does, which writes nothing."""
    return tuple(each.read() for each in job.held)


def check_can_have_statistics(schema: Schema, variable: SchemaVariable, collection: str) -> None:
    """Raise InvalidInputError unless statistics can be kept of a variable."""
    check_comparable(variable, collection)
    if variable.name == schema.axis:
        raise InvalidInputError(
            f"{variable.name} is the axis of collection {collection}, whose bounds are known in any case: leave it out "
            "of the statistics"
        )
    if variable.lossy:
        raise InvalidInputError(
            f"variable {variable.name} of collection {collection} is lossy: what is read may lie outside of what was "
            "written, of which statistics would be kept; bounds on it work without, by reading it"
        )
