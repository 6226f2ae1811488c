"""Claims: who is about to make a collection at which location, and what is left of those who did not get there."""

from collections.abc import Mapping

import sqlalchemy as sa

from ..errors import AlreadyExistsError
from ..records import MARKER, CollectionDefinition
from . import queries, tables
from .creating import check_name
from .functions import database_clock


def lock_claims(connection: sa.Connection) -> None:
    """Wait for all others who claim locations, or record what they claimed; on SQLite, whoever writes has done so."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("LOCK TABLE claim IN SHARE ROW EXCLUSIVE MODE"))


def take_claim(connection: sa.Connection, definition: CollectionDefinition, transaction_id: int) -> None:
    """Claim the location for a transaction, under the lock of all claims; who died claiming it is fenced.

    Raises AlreadyExistsError if the name or the location is taken, or if somebody is at work there, above or below it.
    """
    check_name(connection, definition)
    _check_location(connection, definition)
    claim = tables.claim
    rows = connection.execute(sa.select(claim.c.id, claim.c.location, claim.c.transaction_id)).all()
    found = [row for row in rows if _overlap(definition.location, row.location)]
    _fence_dead(connection, definition, {row.transaction_id: row.location for row in found})
    mine = {"transaction_id": transaction_id, "options": definition.storage_options}
    for row in found:
        if row.location == definition.location:
            connection.execute(sa.update(claim).where(claim.c.id == row.id).values(mine))
            return
    connection.execute(sa.insert(claim).values(mine | {"location": definition.location}))


def _fence_dead(connection: sa.Connection, definition: CollectionDefinition, claimed: Mapping[int, str]) -> None:
    """Expire the transactions that claimed locations, by number; raises AlreadyExistsError if one of them lives."""
    row = tables.transaction.c
    columns = row.id, row.state, row.lease_until, row.author, row.message, row.created_at
    locked = sa.select(*columns).where(row.id.in_(claimed)).order_by(row.id).with_for_update()
    found = [each for each in connection.execute(locked) if each.state == "open"]
    now = connection.execute(sa.select(database_clock())).scalar_one()  # after the locks: a lease may have been renewed
    for each in found:
        if each.lease_until > now:
            raise AlreadyExistsError(
                f"the location {definition.location} is not free: {each.author} is at work in {claimed[each.id]} since "
                f"{each.created_at:%Y-%m-%d %H:%M:%S} UTC ({each.message}); wait for that to end. If it was killed, "
                f"its claim lapses at {each.lease_until:%H:%M:%S} UTC: try again then"
            )
    dead = [each.id for each in found]
    connection.execute(sa.update(tables.transaction).where(row.id.in_(dead)).values(state="expired"))
    connection.execute(sa.delete(tables.pin).where(tables.pin.c.transaction_id.in_(dead)))


def holds_claim(connection: sa.Connection, location: str, transaction_id: int) -> bool:
    """Whether a location is claimed by this very transaction."""
    claim = tables.claim.c
    mine = sa.select(claim.id).where(claim.location == location, claim.transaction_id == transaction_id)
    return connection.scalar(mine) is not None


def release_claim(connection: sa.Connection, uid: str) -> None:
    """Forget what a transaction that has ended claims."""
    row = tables.transaction.c
    ended = sa.select(row.id).where(row.uid == uid, row.state != "open")
    connection.execute(sa.delete(tables.claim).where(tables.claim.c.transaction_id.in_(ended)))


def _check_location(connection: sa.Connection, definition: CollectionDefinition) -> None:
    rows = connection.execute(
        queries.collections_query().with_only_columns(queries.FULL_NAME, tables.collection.c.location)
    )
    for name, location in rows:
        if _overlap(definition.location, location):
            raise AlreadyExistsError(
                f"the location {definition.location} overlaps with {location}, which belongs to collection {name}"
            )


def _overlap(location: str, other: str) -> bool:
    return f"{location}/".startswith(f"{other}/") or f"{other}/".startswith(f"{location}/")


def is_left_behind(connection: sa.Connection, location: str, uid: str, transaction_uid: str | None) -> bool:
    """Whether a marker that names a collection, and who created it, was left by what this registry knows to be gone.

    What an earlier release wrote names no creator: then it is garbage if this registry says so.
    """
    if connection.scalar(sa.select(tables.collection.c.id).where(tables.collection.c.uid == uid)) is not None:
        return False
    row, garbage = tables.transaction.c, tables.garbage.c
    if transaction_uid is not None:
        return connection.scalar(sa.select(row.state).where(row.uid == transaction_uid)) not in (None, "open")
    return (
        connection.scalar(sa.select(garbage.id).where(garbage.location == location, garbage.path == MARKER)) is not None
    )


def creator_of(connection: sa.Connection, collection_id: int) -> str | None:
    """Return the uid of the transaction that created a collection, None where an earlier release did."""
    version, row = tables.version, tables.transaction
    first = sa.select(row.c.uid).join(version, version.c.transaction_id == row.c.id)
    return connection.scalar(first.where(version.c.collection_id == collection_id, version.c.version == 0))
