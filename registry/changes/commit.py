"""The steps of a commit inside one SQL transaction: lock, check all, and have all written, and the version."""

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
from ..sql.functions import database_clock
from ..sql.writes import Write
from .locked import Locked
from .requirements import conflict
from .updates import apply
from .values import (
    AddVariables,
    BaseRead,
    ClosePartitions,
    Commit,
    EditSchema,
    NoOtherPart,
    OwnUnchanged,
    PutFragments,
    PutOwn,
    RememberSources,
    SourcesUnchanged,
    Unchanged,
)

# Each is planned on what was there before the commit, and would not see the other.
_ONCE: dict[str, tuple[type, ...]] = {
    "rows": (PutFragments, PutOwn, ClosePartitions),
    "variables": (AddVariables, EditSchema),
    "sources": (RememberSources,),
}


def check_commits(commits: Sequence[Commit]) -> None:
    """Refuse what contradicts itself, before any of it is done."""
    names = [commit.collection.name for commit in commits]
    for commit in commits:
        if names.count(commit.collection.name) > 1:
            raise InvalidInputError(f"collection {commit.collection.name} is changed twice in one commit")
        for what, kinds in _ONCE.items():
            if sum(isinstance(update, kinds) for update in commit.updates) > 1:
                name = commit.collection.name
                raise InvalidInputError(f"the {what} of collection {name} are changed twice in one commit")
        slots = Counter((each.key, each.axis_min, each.layer) for each in written_by(commit))
        for (key, axis_min, layer), count in slots.items():
            if count > 1:
                what = _describe(commit.collection, Slot(key, axis_min, layer if layer == IMMUTABLE_LAYER else 0))
                raise InvalidInputError(f"collection {commit.collection.name}: {what} is written twice in one commit")


CarriedOut = tuple[tuple[Version, ...], list[Write]]
"""The versions that are made, and what is still to be written for them."""


def carry_out(
    connection: sa.Connection, commits: Iterable[Commit], transaction_id: int, signed: Mapping[str, Any]
) -> CarriedOut:
    """Lock the collections and check commits; return what they make, each the next version of its collection.

    Author, login and message are given by the names of their columns.
    """
    commits = sorted(commits, key=lambda commit: commit.collection.id)
    heads = lock_collections(connection, [commit.collection for commit in commits])
    times, indexed = _after_locks(connection, heads)
    versions, writes = [], list[Write]()
    for commit in commits:
        id_ = commit.collection.id
        locked = Locked(
            *(connection, commit.collection, heads[id_] + 1, transaction_id),
            indexed=id_ in indexed,
            keys=frozenset(_wanted(commit)),
            names=frozenset(_named(commit)),
        )
        check_all(locked, commit)
        summary = apply_all(locked, commit)
        if summary is not None:
            made = {"operation": commit.operation, "summary": summary, "committed_at": times[id_], **signed}
            versions.append(add_version(locked, made, of_base(locked, commit.base)))
        writes += locked.writes
    return tuple(versions), writes


def _wanted(commit: Commit) -> Iterator[KeyValues]:
    """Yield the keys whose live fragments requirements and updates look at, all at once."""
    for requirement in commit.requirements:
        match requirement:
            case Unchanged(slots):
                yield from (slot.key for slot in slots)
            case NoOtherPart(spans):
                yield from (key for key, _, _ in spans)
            case OwnUnchanged(fragments):
                yield from fragments
    for update in commit.updates:
        match update:
            case PutFragments(written, cuts, runs):
                yield from (each.key for concerned in (written, cuts, runs) for each in concerned)
            case PutOwn(keys):
                yield from keys


def _named(commit: Commit) -> Iterator[str]:
    """Yield the names of the sources that requirements and updates ask for, all at once."""
    for requirement in commit.requirements:
        if isinstance(requirement, SourcesUnchanged):
            yield from requirement.known
    for update in commit.updates:
        if isinstance(update, RememberSources):
            yield from (source.name for source in update.sources)


def written_by(commit: Commit) -> Iterator[Written]:
    """Yield the fragments that a commit makes live."""
    for update in commit.updates:
        if isinstance(update, PutFragments | PutOwn):
            yield from update.written


def lock_collections(connection: sa.Connection, collections: Iterable[CollectionRecord]) -> dict[int, int]:
    """Lock the collections in the order of their ids, and return their head versions; raises ConflictError."""
    wanted = {collection.id: collection for collection in collections}
    rows = connection.execute(_locked_heads(), {"of_ids": list(wanted)})
    heads: dict[int, int] = {row.id: row.head_version for row in rows if row.uid == wanted[row.id].uid}
    for id_, collection in wanted.items():
        if id_ not in heads:
            raise ConflictError(f"collection {collection.name} was dropped while it was being written")
    return heads


@cache
def _locked_heads() -> sa.Select[*tuple[Any, ...]]:
    row = tables.collection.c
    mine = row.id.in_(sa.bindparam("of_ids", expanding=True))
    return sa.select(row.id, row.uid, row.head_version).where(mine).order_by(row.id).with_for_update(key_share=True)


def _after_locks(connection: sa.Connection, locked: Iterable[int]) -> tuple[dict[int, dt.datetime], set[int]]:
    """Return when the versions are committed: now, all of them, but none before the last one of its collection; and
    which collections have an index.
    """
    rows = connection.execute(_clock_and_last(), {"of_ids": list(locked)}).all()
    times = {row.id: max(rows[0].now, row.committed_at or rows[0].now) for row in rows}
    return times, {row.id for row in rows if row.indexed}


@cache
def _clock_and_last() -> sa.Select[*tuple[Any, ...]]:
    # After the locks, by a statement of its own: later than their last holder, whose version is seen.
    collection, version = tables.collection, tables.version
    newest = sa.and_(version.c.collection_id == collection.c.id, version.c.version == collection.c.head_version)
    index = tables.layer
    of_index = index.c.collection_id == collection.c.id, index.c.id < IMMUTABLE_LAYER, index.c.end_version.is_(None)
    indexed = sa.exists().where(*of_index).label("indexed")
    columns = collection.c.id, database_clock().label("now"), version.c.committed_at, indexed
    mine = collection.c.id.in_(sa.bindparam("of_ids", expanding=True))
    return sa.select(*columns).select_from(sa.outerjoin(collection, version, newest)).where(mine)


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
    """Have the updates written; return the version's summary, None if none of them makes a version."""
    counts = [apply(now, update) for update in commit.updates]
    made = [each for each in counts if each is not None]
    return {**commit.summary, **{name: n for each in made for name, n in each.items()}} if made else None


def of_base(now: Locked, read: BaseRead | None) -> dict[str, Any]:
    """Return what is recorded with the version of a view: the version of its base, and what was computed from it.

    Of two writers, the later one may have read the older version; the view lies over the newest one that it was over.
    """
    if now.record.kind != "view":
        return {}
    newest = queries.read_base_version(now.connection, now.id, now.version - 1)
    computed = read and {
        "base_version": read.version,
        "definitions": [each.to_json() for each in read.definitions],
        "filters": read.filters,
    }
    return {"base_version": max(now.state.base_version if read is None else read.version, newest), "reads": computed}


def add_version(now: Locked, row: Mapping[str, Any], of_base: Mapping[str, Any]) -> Version:
    """Have the version recorded, and the head raised."""
    begin = {"collection_id": now.id, "version": now.version, "transaction_id": now.transaction_id}
    now.write(sa.insert(tables.version), {**begin, **row, **of_base})
    now.write(_raising(), {"of_id": now.id, "new_head": now.version})
    return Version(now.record.name, now.version, **row)


@cache
def _raising() -> sa.Update:
    mine = tables.collection.c.id == sa.bindparam("of_id")
    return sa.update(tables.collection).where(mine).values(head_version=sa.bindparam("new_head"))
