"""What changed between two versions: all that has to be read for it."""

from itertools import islice

import sqlalchemy as sa

from ..difference import Difference, PartitionChange, by_partition, partition_change
from ..records import CollectionRecord
from ..selection import Selection
from .fragments import read_partitions
from .hunks import has_new_immutables, read_hunks
from .queries import read_layers, read_schema

_AT_A_TIME = 10_000
"""Of so many partitions the hunks are in memory."""


def read_difference(connection: sa.Connection, collection: CollectionRecord, since: int, until: int) -> Difference:
    """Return what changed from a version to a later one."""
    before, after = (read_schema(connection, collection.id, version) for version in (since, until))
    alive = {variable.id for variable in after.variables}
    layers = {id_: ids & alive for id_, ids in read_layers(connection, collection.id).items()}
    changes: list[PartitionChange] = []
    changed = by_partition(read_hunks(connection, collection, since, until))
    while batch := list(islice(changed, _AT_A_TIME)):
        keys = [key[: len(collection.keys)] for key, _ in batch]
        there = read_partitions(connection, collection, until, Selection(keys=keys))
        rows = {partition.values: partition.rows for partition in there}
        for (key, commits), values in zip(batch, keys, strict=True):
            change = partition_change(collection, key, commits, layers, rows.get(values, 0))
            changes += [change] if change is not None else []
    partitions = {change.key: change for change in changes}
    immutables = has_new_immutables(connection, collection, since, until)
    return Difference(collection, since, until, partitions, before, after, immutables)
