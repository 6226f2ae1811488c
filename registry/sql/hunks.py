"""What commits did, as they recorded it: SELECT statements on hunks, and what their rows become."""

from collections.abc import Iterator
from functools import cache
from itertools import islice

import sqlalchemy as sa

from ..difference import Difference, PartitionChange, by_partition, partition_change
from ..keys import MAX_KEYS
from ..records import IMMUTABLE_LAYER, ROWS_LAYER, CollectionRecord, Hunk
from ..selection import Selection
from . import tables
from .fragments import AnySelect, key_columns, read_partitions
from .queries import read_layers, read_schema

_AT_A_TIME = 10_000
"""Of so many partitions the hunks are in memory."""


@cache
def hunks_query() -> AnySelect:
    """Select the hunks of the versions after ``since``, up to ``until``, by ``of_collection``: by key and version."""
    table = tables.change
    names = "layer_id", "row_start", "removed", "added", "axis_min", "axis_max"
    within = table.c.version > sa.bindparam("since"), table.c.version <= sa.bindparam("until")
    mine = table.c.collection_id == sa.bindparam("of_collection"), table.c.layer_id >= ROWS_LAYER
    # Expressions are in the order of no index: the few versions are found by theirs, and what is found is sorted.
    order = *(column + 0 for column in key_columns(table)), table.c.version
    columns = *key_columns(table), table.c.version, *(table.c[name] for name in names)
    return sa.select(*columns).where(*mine, *within).order_by(*order)


def read_hunks(
    connection: sa.Connection, collection: CollectionRecord, since: int, until: int
) -> Iterator[tuple[int, Hunk]]:
    """Yield the versions between two, and what they did to partitions, in the order of keys and versions."""
    wanted = {"of_collection": collection.id, "since": since, "until": until}
    for row in connection.execute(hunks_query(), wanted):
        yield row.version, Hunk(tuple(row[:MAX_KEYS]), *row[MAX_KEYS + 1 :])


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
    immutables = _has_new_immutables(connection, collection, since, until)
    return Difference(collection, since, until, partitions, before, after, immutables)


def _has_new_immutables(connection: sa.Connection, collection: CollectionRecord, since: int, until: int) -> bool:
    table = tables.change
    here = table.c.collection_id == collection.id, *(column == 0 for column in key_columns(table))
    within = table.c.version > since, table.c.version <= until, table.c.layer_id == IMMUTABLE_LAYER
    return bool(connection.scalar(sa.select(sa.exists().where(*here, *within))))
