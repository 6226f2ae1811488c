"""Putting rows down: inserted ones, and existing ones that are written again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..reading.origin import Origin
from ..schema import SchemaVariable, Values
from ..schema.encoding import decode, encode
from .merge import Merging
from .naming import naming
from .plan import Arrays, Content, Target, part_of


@dataclass(frozen=True)
class RowsJob:
    """The new rows of one partition: gathered from the inputs, and merged with those that they meet."""

    target: Target
    collection: str
    """The collection's name, for messages."""
    partition: str
    """The partition's, likewise, and whose rows go there."""
    order: npt.NDArray[np.intp] | None
    """Which rows: of the existing ones that are read, and of all pieces, put one after the other. None for all."""
    rows: tuple[int, ...] | None = None
    """How many each new part has; None for one part of all."""
    existing: Origin | None = None
    """The existing rows that are read, alone."""
    existing_axis: npt.NDArray[np.int64] | None = None
    """Their axis, where the planner has read it: it is not read again."""
    merging: Merging | None = None
    """A function of the user's, for all rows of the partition."""
    written_version: int | None = None
    """The version that the values come from; None for the one that the commit makes."""

    def content(self, arrays: Arrays) -> Content:
        """Return the rows, sorted by the axis."""
        schema = self.target.schema
        with naming(self.partition):
            stored = {name: self._gather(each, arrays.get(name, ())) for name, each in schema.partitioned.items()}
            if self.merging is not None:
                stored = self.merging.merge(schema, stored, self.collection)
        axis = decode(schema.variables[schema.axis], stored[schema.axis]).astype(np.int64)
        stops = np.cumsum(self.rows or (len(axis),))
        return Content(
            stored, tuple(part_of(self.target.key, rows, self.written_version) for rows in np.split(axis, stops[:-1]))
        )

    def _gather(self, variable: SchemaVariable, pieces: Sequence[Values]) -> Values:
        if self.existing is not None:
            pieces = [encode(variable, self._existing(self.existing, variable)), *pieces]
        joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=variable.split_axis)
        return joined if self.order is None else joined.take(self.order, axis=variable.split_axis)

    def _existing(self, origin: Origin, variable: SchemaVariable) -> Values:
        if self.existing_axis is None or variable.name != self.target.schema.axis:
            return origin.read(variable)
        return self.existing_axis.astype(variable.dtype)
