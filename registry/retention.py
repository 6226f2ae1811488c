"""Which versions stay readable: expiring the others, in one SQL transaction, and pins of those who read for long."""

import datetime as dt
import logging
import threading
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError

from .changes.commit import CarriedOut
from .errors import InvalidInputError, NotFoundError, ReadOnlyError
from .lease import keep_renewing
from .records import IMMUTABLE_LAYER, CollectionRecord, Expired, Signature
from .sql import queries, tables
from .sql.creating import PathOf
from .sql.engine import inserted_id, retried, writing
from .sql.garbage import put_garbage
from .sql.retention import (
    DeadGroup,
    Gap,
    delete_hunks,
    delete_past,
    expire_versions,
    forget_uids,
    gaps_between,
    lock_for_expiry,
    read_clock,
    read_dead_groups,
    read_held,
    read_versions_left,
    read_view_floor,
)
from .transaction import Transaction

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Expiring:
    """Which versions expire: those that meet all that is given, and that nobody holds; the newest never does.

    Raises InvalidInputError if nothing is given, or no number of versions.
    """

    keep: int | None = None
    """Older than so many newest ones."""
    older_than: dt.timedelta | None = None
    """Committed longer ago than this."""

    def __post_init__(self) -> None:
        """Refuse what would expire everything by mistake."""
        if self.keep is None and self.older_than is None:
            raise InvalidInputError("which versions expire? Give keep, a number of versions that stay, or older_than")
        if self.keep is not None and (not isinstance(self.keep, int) or isinstance(self.keep, bool) or self.keep < 1):
            raise InvalidInputError(f"keep={self.keep!r} is not a number of versions, from 1: the newest never expires")

    def chosen(self, left: Sequence[tuple[int, dt.datetime]], head: int, now: dt.datetime) -> list[int]:
        """Return which of the versions that are left are meant, by their numbers and times."""
        newest = head if self.keep is None else head - self.keep + 1
        limit = now if self.older_than is None else now - self.older_than
        return [number for number, at in left if number < min(newest, head) and at <= limit]


@dataclass(frozen=True)
class Expectation:
    """What an expiry does to a collection, as it is locked, or as it was read."""

    collection: CollectionRecord
    versions: tuple[int, ...]
    held: tuple[int, ...]
    kept: tuple[int, ...]
    now: dt.datetime

    @property
    def gaps(self) -> list[Gap]:
        """Where versions are gone then."""
        return gaps_between(self.kept)

    def told(self, groups: int, nbytes: int, not_before: dt.datetime | None) -> Expired:
        """Return the record of it, with how many groups it gives up."""
        return Expired(self.collection.name, self.versions, self.held, groups, nbytes, not_before)


def expect(
    connection: sa.Connection, collection: CollectionRecord, head: int, expiring: Expiring, *, locking: bool
) -> Expectation:
    """Return which versions expire, which are held, and which stay."""
    held = read_held(connection, collection.id, locking=locking)
    left, now = read_versions_left(connection, collection.id), read_clock(connection)
    chosen = expiring.chosen(left, head, now)
    versions = tuple(number for number in chosen if number not in held)
    gone = {*versions}
    kept = tuple(number for number, _ in left if number not in gone)
    return Expectation(collection, versions, tuple(number for number in chosen if number in held), kept, now)


def expect_expiry(connection: sa.Connection, collection: CollectionRecord, expiring: Expiring) -> Expired:
    """Return what would expire; nothing is written."""
    expected = expect(connection, collection, collection.head_version, expiring, locking=False)
    groups = nbytes = 0
    for some in read_dead_groups(connection, collection.id, expected.gaps) if expected.versions else ():
        stored = _stored(some)
        groups, nbytes = groups + len(stored), nbytes + sum(each.nbytes for each in stored)
    return expected.told(groups, nbytes, None)


def _stored(groups: Iterable[DeadGroup]) -> list[DeadGroup]:
    """Return those that are in the storage: the fragments of indexes have entries alone."""
    return [each for each in groups if each.slot.layer_id >= IMMUTABLE_LAYER]


class Expiry(Transaction):
    """A transaction that expires versions; it begins and ends with its commit, which can be found out like others.

    Parameters
    ----------
    url
        The registry's database.
    collection
        That very one, by whatever name.
    expiring
        Which versions.
    path_of
        Spells the paths of its groups.
    grace
        For how long their objects stay, so that who is reading can end.
    signature, lease
        As of others.
    """

    def __init__(
        self,
        url: URL,
        collection: CollectionRecord,
        expiring: Expiring,
        path_of: PathOf,
        *,
        grace: dt.timedelta,
        signature: Signature,
        lease: dt.timedelta,
    ) -> None:
        super().__init__(url, signature=signature.saying(f"expire {collection.name}"), lease=lease)
        self._collection = collection
        self._expiring = expiring
        self._path_of = path_of
        self._grace = grace
        self._expired: Expired | None = None

    def expire(self) -> Expired:
        """Do it, and return what it did.

        Raises
        ------
        ConflictError
            The collection was dropped.
        RegistryUnavailableError
            The database is out of reach; nothing has expired, or the message says that this is not known.
        """
        self.commit(())
        assert self._expired is not None  # it has been carried out
        return self._expired

    def _carry_out(self, connection: sa.Connection, commits: object) -> CarriedOut:
        head = lock_for_expiry(connection, self._collection)
        expected = expect(connection, self._collection, head, self._expiring, locking=True)
        not_before, groups, nbytes = expected.now + self._grace, 0, 0
        if expected.versions:
            with closing(read_dead_groups(connection, self._collection.id, expected.gaps)) as dead:
                for some in dead:
                    stored = _stored(some)
                    groups, nbytes = groups + len(stored), nbytes + sum(each.nbytes for each in stored)
                    put_garbage(connection, self._collection, map(self._garbage, stored), not_before)
                    forget_uids(connection, self._collection.id, [each.uid for each in some])
            self._forget(connection, expected)
        self._expired = expected.told(groups, nbytes, not_before)
        return (), []

    def _garbage(self, group: DeadGroup) -> tuple[str, int]:
        return group.path or self._path_of(self._collection.keys, group.slot, group.uid), group.nbytes

    def _forget(self, connection: sa.Connection, expected: Expectation) -> None:
        id_, gaps = self._collection.id, expected.gaps
        if gaps:
            delete_past(connection, id_, gaps)
        floor = read_view_floor(connection, id_)
        delete_hunks(connection, id_, expected.kept[0] if floor is None else min(expected.kept[0], floor))
        expire_versions(connection, id_, expected.versions, expected.now)


class Pin:
    """Versions that are kept while a block runs: a row each, with a lease that a thread renews. A context manager.

    Parameters
    ----------
    url
        The registry's database.
    reads
        Collections, and their versions: of a view, what it is over too.
    lease
        How long they are kept if this process is killed.
    """

    def __init__(self, url: URL, reads: Iterable[tuple[CollectionRecord, int]], *, lease: dt.timedelta) -> None:
        self._url = url
        self._reads = tuple(reads)
        self._lease = lease
        self._ids: list[int] = []
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        """Pin them.

        Raises
        ------
        VersionExpiredError
            One of them has expired.
        NotFoundError
            The collection was dropped.
        ReadOnlyError
            This user may not write into the table of pins.
        """
        self._ids = self._take()
        keep_renewing(f"pin-{self._ids[0]}", self._lease, self._renew, self._stopped)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._release(self._ids)

    @retried
    def _take(self) -> list[int]:
        with writing(self._url) as connection:
            until = read_clock(connection) + self._lease
            return [self._insert(connection, *each, until) for each in self._reads]

    def _insert(self, connection: sa.Connection, collection: CollectionRecord, version: int, until: dt.datetime) -> int:
        pin: dict[str, Any] = {"collection_id": collection.id, "version": version, "lease_until": until}
        try:
            # This waits for an expiry at work, since it refers to the collection; so it is seen by what is asked next.
            id_ = inserted_id(connection.execute(sa.insert(tables.pin).values(pin)))
        except IntegrityError as error:
            raise NotFoundError(f"collection {collection.name} was dropped just now") from error
        found = queries.read_head(connection, collection.id)
        if found is None or found.uid != collection.uid:
            raise NotFoundError(f"collection {collection.name} was dropped just now")
        queries.check_kept(connection, found, version)
        return id_

    def _renew(self) -> bool:
        """Take them anew, and give the old ones up; return whether that was to be.

        One that has lapsed is not renewed, since its version may have expired meanwhile; who looks for pins then, or
        has looked, would not see it.
        """
        try:
            taken = self._take()
        except NotFoundError as error:
            logger.warning("a pin is not renewed: %s", error)
            return False
        old, self._ids = self._ids, taken
        self._release([*old, *taken] if self._stopped.is_set() else old)
        return True

    def _release(self, ids: Sequence[int]) -> None:
        try:
            self._delete(ids)
        except ReadOnlyError as error:  # who may only add pins has them lapse
            logger.debug("pins are left to lapse: %s", error)

    @retried
    def _delete(self, ids: Sequence[int]) -> None:
        with writing(self._url) as connection:
            connection.execute(sa.delete(tables.pin).where(tables.pin.c.id.in_(ids)))
