"""The steps of a commit inside one SQL transaction: lock, check all, apply all, add the version."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa

from ..errors import ConflictError, InvalidInputError
from ..keys import KeyValues, format_key, name_values
from ..records import IMMUTABLE_LAYER, IMMUTABLE_SLOT, CollectionRecord, Slot, Version, Written
from ..sql import queries, tables
from ..sql.engine import database_clock
from .locked import Locked
from .requirements import conflict
from .updates import apply
from .values import ClosePartitions, Commit, NoOtherPart, PutFragments, Unchanged


def check_commits(commits: Sequence[Commit]) -> None:
    """Refuse what contradicts itself, before any of it is done."""
    names = [commit.collection.name for commit in commits]
    for commit in commits:
        if names.count(commit.collection.name) > 1:
            raise InvalidInputError(f"collection {commit.collection.name} is changed twice in one commit")
        if sum(isinstance(update, PutFragments | ClosePartitions) for update in commit.updates) > 1:
            # Each is counted from what was live before the commit.
            raise InvalidInputError(f"the rows of collection {commit.collection.name} are changed twice in one commit")
        slots = Counter((each.key, each.axis_min, each.layer) for each in written_by(commit))
        for (key, axis_min, layer), count in slots.items():
            if count > 1:
                what = _describe(commit.collection, Slot(key, axis_min, layer if layer == IMMUTABLE_LAYER else 0))
                raise InvalidInputError(f"collection {commit.collection.name}: {what} is written twice in one commit")


def carry_out(
    connection: sa.Connection, commits: Iterable[Commit], transaction_id: int, signed: Mapping[str, Any]
) -> tuple[Version, ...]:
    """Check and apply commits, each as the next version of its collection; return the versions made.

    Author, login and message are given by the names of their columns.
    """
    commits = sorted(commits, key=lambda commit: commit.collection.id)
    heads = lock_collections(connection, [commit.collection for commit in commits])
    now = connection.execute(sa.select(database_clock())).scalar_one()  # after the locks: later than their last holder
    row = {"transaction_id": transaction_id, "committed_at": now, **signed}
    versions = []
    for commit in commits:
        keys = frozenset(_wanted(commit))
        locked = Locked(connection, commit.collection, heads[commit.collection.id] + 1, transaction_id, keys)
        check_all(locked, commit)
        summary = apply_all(locked, commit)
        if summary is not None:
            made = {"version": locked.version, "operation": commit.operation, "summary": summary}
            versions.append(add_version(connection, commit.collection, row | made))
    return tuple(versions)


def _wanted(commit: Commit) -> Iterator[KeyValues]:
    """Yield the keys whose live fragments requirements and updates look at, all at once."""
    for requirement in commit.requirements:
        match requirement:
            case Unchanged(slots):
                yield from (slot.key for slot in slots)
            case NoOtherPart(spans):
                yield from (key for key, _, _ in spans)
    for update in commit.updates:
        if isinstance(update, PutFragments):
            for concerned in (update.written, update.cuts, update.runs):
                yield from (each.key for each in concerned)


def written_by(commit: Commit) -> Iterator[Written]:
    """Yield the fragments that a commit makes live."""
    for update in commit.updates:
        if isinstance(update, PutFragments):
            yield from update.written


def lock_collections(connection: sa.Connection, collections: Iterable[CollectionRecord]) -> dict[int, int]:
    """Lock the collections in the order of their ids, and return their head versions; raises ConflictError."""
    table = tables.collection
    wanted = {collection.id: collection for collection in collections}
    rows = connection.execute(
        sa.select(table.c.id, table.c.uid, table.c.head_version)
        .where(table.c.id.in_(wanted))
        .order_by(table.c.id)
        .with_for_update(key_share=True)
    )
    heads: dict[int, int] = {row.id: row.head_version for row in rows if row.uid == wanted[row.id].uid}
    for id_, collection in wanted.items():
        if id_ not in heads:
            raise ConflictError(f"collection {collection.name} was dropped while it was being written")
    return heads


def check_all(now: Locked, commit: Commit) -> None:
    """Raise ConflictError unless everything a commit depends on is as it was read."""
    conflicts = tuple(found for each in commit.requirements if (found := conflict(now, each)) is not None)
    if not conflicts:
        return
    slots = sorted({slot for each in conflicts for slot in each.slots})
    keys = tuple(dict.fromkeys(_describe(commit.collection, slot) for slot in slots))
    what = [each.what for each in conflicts if not each.slots]
    if keys:
        more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
        what.append(f"changed {', '.join(keys[:5])}{more}")
    everywhere = IMMUTABLE_SLOT in slots or any(not each.slots for each in conflicts)
    versions = queries.read_versions_since(
        now.connection, commit.collection, None if everywhere else {slot.key for slot in slots}
    )
    repeat = "" if any(each.final for each in conflicts) else ", repeat it"
    raise ConflictError(
        f"collection {commit.collection.name}: another writer {' and '.join(what)} while this {commit.operation} "
        f"was being prepared{_by_whom(versions)}; nothing was written{repeat}",
        keys,
        conflicts,
        versions,
    )


def _by_whom(versions: Sequence[Version]) -> str:
    """Return who may have done it, for a message."""
    if not versions:
        return ""
    authors = ", ".join(dict.fromkeys(version.author for version in versions))
    first, last = versions[0].number, versions[-1].number
    return f" (version {first}, by {authors})" if first == last else f" (versions {first} to {last}, by {authors})"


def _describe(collection: CollectionRecord, slot: Slot) -> str:
    if slot.layer_id == IMMUTABLE_LAYER:
        return "the immutable variables"
    return format_key(name_values(collection.keys, slot.key[: len(collection.keys)]))


def apply_all(now: Locked, commit: Commit) -> dict[str, int] | None:
    """Apply the updates; return the version's summary, None if none of them makes a version."""
    counts = [apply(now, update) for update in commit.updates]
    made = [each for each in counts if each is not None]
    return {**commit.summary, **{name: n for each in made for name, n in each.items()}} if made else None


def add_version(connection: sa.Connection, collection: CollectionRecord, row: dict[str, Any]) -> Version:
    """Record the version, not earlier than the last one, and raise the head."""
    last = connection.scalar(_last_commit(), {"of_collection": collection.id})
    row = row | {"committed_at": max(row["committed_at"], last) if last else row["committed_at"]}
    connection.execute(sa.insert(tables.version), row | {"collection_id": collection.id})
    head = {"head_version": row["version"]}
    connection.execute(sa.update(tables.collection).where(tables.collection.c.id == collection.id).values(head))
    fields = ("operation", "message", "author", "login", "committed_at", "summary")
    return Version(collection.name, row["version"], **{name: row[name] for name in fields})


@cache
def _last_commit() -> sa.Select[tuple[dt.datetime]]:
    table = tables.version
    mine = table.c.collection_id == sa.bindparam("of_collection")
    return sa.select(table.c.committed_at).where(mine).order_by(table.c.version.desc()).limit(1)
