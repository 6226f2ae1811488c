"""Inserted rows merged with those that a partition has."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from registry import KeyValues

from ..errors import InvalidInputError
from ..merging import MergeFunction
from ..partitioning import Partitioning
from ..reading.origin import Origin, in_memory, read_dataset
from ..schema import Schema, Values
from ..schema.encoding import decode, encode
from .check import check_dataset


@dataclass(frozen=True)
class Merging:
    """With what, and how, the inserted rows of a partition are merged."""

    existing: Origin
    """The partition, alone."""
    function: MergeFunction
    partitioning: Partitioning
    key: KeyValues

    def merge(self, schema: Schema, stored: Mapping[str, Values], collection: str) -> dict[str, Values]:
        """Return the encoded rows that result, sorted by the axis; raises InvalidInputError if they cannot be its."""
        inserted = in_memory(schema, {name: decode(schema.variables[name], values) for name, values in stored.items()})
        existing = read_dataset(schema, dict.fromkeys(stored, self.existing), stored)
        merged = self.function(existing, inserted, axis=schema.axis, dimension=schema.dimension)
        check_dataset(schema, merged, collection)
        keys = self.partitioning.key_values(
            {name: merged.variables[name].values for name in self.partitioning.variables}
        )
        if np.any(keys != np.array(self.key)):
            raise InvalidInputError("the merge function returned rows of another partition")
        order = np.argsort(merged.variables[schema.axis].values, kind="stable")
        merged = merged.isel({schema.dimension: order})
        return {name: encode(schema.variables[name], merged.variables[name].values) for name in stored}
