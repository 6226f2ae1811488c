"""What changed between two versions: all that has to be read for it."""

from collections.abc import Mapping
from itertools import islice

import sqlalchemy as sa

from ..difference import Difference, PartitionChange, RowChange, by_partition, partition_change
from ..keys import KeyValues, pad_key
from ..partitions import PartitionRecord
from ..records import CollectionRecord, Hunk
from ..selection import Selection
from .bases import (
    ViewState,
    columns_at,
    hunks_between,
    hunks_of,
    layers_of,
    read_state,
    read_view_schema,
    root_at,
    taken_by,
    taking,
)
from .fragments import read_partitions
from .hunks import read_hunks, read_last_immutables
from .queries import read_base_version, read_layers, read_schema

_AT_A_TIME = 10_000
"""Of so many partitions the hunks are in memory."""


def _read_view_difference(
    connection: sa.Connection, view: CollectionRecord, since: int, until: int, *, head: bool
) -> Difference:
    """Return what changed of what a view shows, from a version to a later one, or to its head over that of its base.

    Its rows and shown variables change with its base, its own with its versions.
    """
    first, last = read_state(connection, view, since, head=False), read_state(connection, view, until, head=head)
    before, after = (
        read_view_schema(connection, view, version, state) for version, state in ((since, first), (until, last))
    )
    alive = {variable.id for variable in after.variables}
    layers = {id_: ids & alive for id_, ids in layers_of(connection, view).items()}
    taken_before, taken = (taken_by(connection, state) for state in (first, last))
    takes = taking(taken, last.base.keys)
    commits = _commits(connection, view, (since, until), last)
    there = columns_at(connection, last.base, last.base_version, last.chosen(Selection())).partitions
    rows = {pad_key(partition.values): partition for partition in there}
    changes: dict[KeyValues, PartitionChange] = {}
    for key in sorted(filter(takes, commits)):
        count = rows[key].rows if key in rows else 0
        if (change := partition_change(view, key, commits[key], layers, count)) is not None:
            changes[key] = change
    if taken_before != taken:
        gone = columns_at(connection, first.base, first.base_version, first.chosen(Selection())).partitions
        changes |= _taken_otherwise(view, {pad_key(each.values): each for each in gone}, rows)
    partitions = {changes[key].key: changes[key] for key in sorted(changes)}
    (root, oldest), (_, newest) = (root_at(connection, each.base, each.base_version) for each in (first, last))
    immutables = read_last_immutables(connection, root, newest) > oldest
    return Difference(view, since, until, partitions, before, after, immutables, last.base_version)


def _commits(
    connection: sa.Connection, view: CollectionRecord, versions: tuple[int, int], last: ViewState
) -> dict[KeyValues, list[list[Hunk]]]:
    """Return what was done to each partition of a view's base: up to a version, and by that since."""
    since, until = versions
    then = read_base_version(connection, view.id, until)
    keys = {hunk.key for _, hunk in hunks_between(connection, view, since, until)}
    later = {hunk.key for _, hunk in hunks_between(connection, last.base, then, last.base_version)}
    done = hunks_of(connection, view, dict.fromkeys(keys, since), until)
    more = hunks_of(connection, last.base, dict.fromkeys(later, then), last.base_version)
    return {key: [hunks for _, hunks in (*done.get(key, ()), *more.get(key, ()))] for key in keys | later}


def _taken_otherwise(
    view: CollectionRecord, before: Mapping[KeyValues, PartitionRecord], after: Mapping[KeyValues, PartitionRecord]
) -> dict[KeyValues, PartitionChange]:
    """Return the partitions that a view takes at one of two versions alone."""
    changes = {}
    for key, each in {**before, **after}.items():
        rows = (0, each.rows)
        if key not in after:
            changes[key] = PartitionChange(each.key, "removed", (RowChange(rows, (0, 0)),), each.bounds)
        elif key not in before:
            changes[key] = PartitionChange(each.key, "added", (RowChange((0, 0), rows),), each.bounds)
    return changes


def read_difference(
    connection: sa.Connection, collection: CollectionRecord, since: int, until: int, *, head: bool
) -> Difference:
    """Return what changed from a version to a later one; of a view, that may be its head over that of its base."""
    if collection.kind == "view":
        return _read_view_difference(connection, collection, since, until, head=head)
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
    immutables = read_last_immutables(connection, collection, until) > since
    return Difference(collection, since, until, partitions, before, after, immutables)
