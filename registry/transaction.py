"""The unit of work: begin with a lease, record intents before any data, then check and commit, or raise.

The registry's COMMIT is the only commit point of a write. A transaction's row is its fence: whoever turns it
from ``open`` into something else (``committed`` by its writer, ``aborted`` by its writer, ``expired`` by
vacuum) has decided, under the row's lock, and no clock has. After Kleppmann, *Designing Data-Intensive
Applications*, "Fencing tokens".
"""

import datetime as dt
import getpass
import logging
import os
import threading
import uuid
from collections.abc import Iterable, Sequence
from functools import cache
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError

from . import queue
from .changes import Commit
from .changes.commit import CarriedOut, carry_out, check_commits, written_by
from .errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    RegistryRevisionError,
    RegistryUnavailableError,
    TransactionClosedError,
)
from .lease import keep_renewing
from .migrations import check_revision
from .records import CollectionRecord, Place, Signature, Version, is_text
from .sql import queries, tables
from .sql.engine import hide_password, inserted_id, reading, retried, writing
from .sql.functions import database_clock, database_login
from .sql.writes import Write, write_all

COMMITTED_AFTER_ALL = "the connection to the registry was lost, but the write was committed: do not repeat it"

logger = logging.getLogger(__name__)


class Transaction:
    """Staged changes to one or more collections, committed once. A context manager: leaving it open aborts it.

    One that is not entered begins and ends with its commit, in one SQL transaction: what touches the registry alone
    needs no lease, no pins and no intents.

    Parameters
    ----------
    url
        The registry's database.
    reads
        Collections and the versions that the work will read; pinned while the transaction is open.
    intents
        What is known already of what will be written: collections, and of each group the uid and the path, or what
        these begin with.
    signature
        Recorded with the versions it makes.
    lease
        How long the transaction survives its writer's silence. A thread renews it while the writer lives.
    """

    def __init__(
        self,
        url: URL,
        reads: Iterable[tuple[CollectionRecord, int]] = (),
        intents: Iterable[tuple[CollectionRecord, str, str]] = (),
        *,
        signature: Signature,
        lease: dt.timedelta,
    ) -> None:
        self.uid = uuid.uuid4().hex
        self.is_tried_again = False
        """Whether what it stages may be written by several attempts, as a cluster's workers do when others were lost:
        then its intents outlive the commit, and vacuum deletes what lost attempts have written, or are about to."""
        self._url = url
        self._reads = tuple(reads)
        self._intents = tuple(intents)
        self._signature = signature
        self._lease = lease
        self._entered = False
        self._staged_more = False
        self._is_queued = False
        self._stopped = threading.Event()

    @property
    def is_open(self) -> bool:
        """Whether it may still be committed, as far as this process knows."""
        return self._entered and not self._stopped.is_set()

    def __enter__(self) -> Self:
        try:
            self._open()
        except RegistryRevisionError:
            raise  # nothing was begun, and nothing is written to the tables of another release
        except RegistryUnavailableError:
            if not self._is_recorded():  # the connection may have been lost after COMMIT took effect
                raise
        self._entered = True
        logger.debug("transaction %s: begun, with %d intents", self.uid, len(self._intents))
        keep_renewing(f"lease-{self.uid}", self._lease, self._renew, self._stopped)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._stopped.is_set() and not self.abort() and error is not None:
            error.add_note(COMMITTED_AFTER_ALL)

    @retried  # and not what is around it: who asks whether it was recorded leaves a row if it was not
    def _open(self) -> None:
        with writing(self._url) as connection:
            until = self._begin(connection)
            self._pin(connection, self._reads, until)
            self._stage(connection, self._intents)

    @retried
    def _is_recorded(self) -> bool:
        with writing(self._url) as connection:
            return self._state_at_last(connection) == "open"

    def stage(self, collection: CollectionRecord, intents: Iterable[tuple[str, str]]) -> None:
        """Record what is about to be written, uid and path of each group, before any of it is.

        Raises
        ------
        TransactionClosedError
            The transaction has ended or was fenced.
        """
        self._record([(collection, uid, path) for uid, path in intents])
        self._staged_more = True

    @retried
    def pin(self, collection: CollectionRecord, version: int) -> None:
        """Have one more version kept while the transaction is open.

        Raises
        ------
        TransactionClosedError
            The transaction has ended or was fenced.
        NotFoundError
            The collection was dropped.
        """
        with writing(self._url) as connection:
            self._lock(connection)
            now = connection.execute(sa.select(database_clock())).scalar_one()
            self._pin(connection, [(collection, version)], now + self._lease)

    @retried
    def queue(self, collection: CollectionRecord, places: Sequence[Place]) -> None:
        """Have all others who write at some places wait before they stage, until this transaction ends.

        Raises TransactionClosedError.
        """
        with writing(self._url) as connection:
            self._lock(connection)
            queue.join(connection, collection.id, self._id, places)
        if not self._is_queued:
            self._is_queued = True
            keep_renewing(f"turn-{self.uid}", queue.LEASE, self._renew_turn, self._stopped)

    def others(self, collection: CollectionRecord) -> tuple[Place, ...]:
        """Return the places at which it has to wait for others: for all who queue, or those before it if it does."""
        with reading(self._url) as connection:
            return queue.read_queue(connection, collection.id, self._id if self._is_queued else None)

    def commit(self, commits: Sequence[Commit]) -> tuple[Version, ...]:
        """Make all changes visible at once, each as the next version of its collection.

        Return the versions of those that changed something.

        Raises
        ------
        ConflictError
            A requirement of a commit is not met; nothing was committed.
        TransactionClosedError
            The transaction has ended or was fenced.
        RegistryUnavailableError
            The database is out of reach; nothing was committed, or the message says that this is not known.
        ReadOnlyError
            The database is a standby, or may not be written by this user; nothing was committed.
        """
        check_commits(commits)
        try:
            made = self._commit(commits)
        except RegistryRevisionError:
            raise  # as above
        except RegistryUnavailableError as error:
            # The connection may have been lost after COMMIT took effect. Ask, under the row's lock.
            logger.warning("transaction %s: asking what became of its commit, for %s", self.uid, error)
            settled = self._find_out(error)
            if settled is None:
                raise
            made = settled
        except ConflictError as conflict:
            logger.info("transaction %s: %s", self.uid, conflict)
            raise
        self._stopped.set()
        for version in made:
            logger.info(
                "transaction %s: committed %s, version %d (%s by %s)",
                *(self.uid, version.collection, version.number, version.operation, version.author),
            )
        return made

    def abort(self) -> bool:
        """Fence this transaction: after this it can never commit, and what it staged may be deleted.

        Return whether that is so; False if it was committed after all, which a lost connection can hide.
        """
        self._stopped.set()
        fenced = self._settle() is None
        logger.warning("transaction %s: %s", self.uid, "aborted" if fenced else COMMITTED_AFTER_ALL)
        return fenced

    def _begin(self, connection: sa.Connection) -> dt.datetime:
        """Record the transaction as open, and return until when it holds."""
        check_revision(connection)
        return self._insert(connection, "open")

    def _insert(self, connection: sa.Connection, state: str) -> dt.datetime:
        """Record the transaction, and return until when it holds."""
        now, login = connection.execute(sa.select(database_clock(), database_login())).one()
        self._signed = sign(self._signature, login or system_login())
        times = {"created_at": now, "lease_until": now + self._lease}
        row = {"uid": self.uid, "state": state, **self._signed, **times}
        self._id = inserted_id(connection.execute(sa.insert(tables.transaction).values(row)))
        return times["lease_until"]

    def _pin(
        self, connection: sa.Connection, reads: Iterable[tuple[CollectionRecord, int]], until: dt.datetime
    ) -> None:
        for collection, version in reads:
            pin = {"collection_id": collection.id, "version": version, "transaction_id": self._id}
            gone = NotFoundError(f"collection {collection.name} was dropped just now")
            if queries.uid_of(connection, collection.id) != collection.uid:
                raise gone
            try:
                connection.execute(sa.insert(tables.pin).values(pin | {"lease_until": until}))
            except IntegrityError as error:
                raise gone from error

    @retried
    def _record(self, intents: Sequence[tuple[CollectionRecord, str, str]]) -> None:
        with writing(self._url) as connection:
            self._lock(connection)
            self._stage(connection, intents)

    def _stage(self, connection: sa.Connection, intents: Iterable[tuple[CollectionRecord, str, str]]) -> None:
        # An intent stands alone: it may outlive its collection.
        rows = [
            {"transaction_id": self._id, "uid": uid, "path": path, "collection_id": collection.id}
            | {"location": collection.location, "options": collection.storage_options}
            for collection, uid, path in intents
        ]
        if rows:
            connection.execute(sa.insert(tables.staged), rows)

    @retried
    def _commit(self, commits: Sequence[Commit]) -> tuple[Version, ...]:
        with writing(self._url) as connection:
            if self._entered:
                check_revision(connection)
                self._lock(connection)
            else:
                self._begin(connection)
            leaving = self._leaving(connection, commits)
            versions, writes = self._carry_out(connection, commits)
            write_all(connection, [*writes, *leaving, *self._ending("committed")])
            return versions

    def _carry_out(self, connection: sa.Connection, commits: Sequence[Commit]) -> CarriedOut:
        """Do what the transaction is for, inside the one SQL transaction that ends it; return what is left to write."""
        return carry_out(connection, commits, self._id, self._signed)

    def _leaving(self, connection: sa.Connection, commits: Sequence[Commit]) -> list[Write]:
        """Return what is left to vacuum: groups put down by work that was run again, and what lost attempts wrote."""
        if not (self._staged_more or self.is_tried_again):
            return []
        kept = {each.uid for commit in commits for each in written_by(commit)}
        mine = tables.staged.c.transaction_id == self._id
        staged = connection.scalars(sa.select(tables.staged.c.uid).where(mine)).all()
        begun = {each[:length]: each for length in {len(uid) for uid in staged} for each in kept}
        if self.is_tried_again:
            keeping = [{"of_id": self._id, "of_uid": uid, "kept": begun.get(uid, "")} for uid in staged]
            return [(_keeping(), keeping)] if keeping else []
        dead = [{"of_id": self._id, "of_uid": uid} for uid in staged if uid not in begun]
        return [(_discarding(), dead)] if dead else []

    def _lock(self, connection: sa.Connection) -> None:
        state = self._state(connection)
        if state == "committed":
            raise TransactionClosedError(f"transaction {self.uid} was committed already: begin another one")
        if state != "open":
            what = state or f"gone from {hide_password(self._url)} (has another registry been put there?)"
            raise TransactionClosedError(
                f"transaction {self.uid} is {what}: nothing of it was made visible; repeat the write"
            )

    def _state(self, connection: sa.Connection) -> str | None:
        """Lock the row, and return its state, None where there is none. Its number is right from then on."""
        row = connection.execute(_locked_state(), {"of_uid": self.uid}).first()
        if row is None:
            return None
        self._id = row.id
        state: str = row.state
        return state

    def _state_at_last(self, connection: sa.Connection) -> str | None:
        """As :meth:`_state`, after a connection was lost: where there is no row by now, there will never be one."""
        state = self._state(connection)
        if state is not None or self._entered:
            return state
        # It may be about to come, by a COMMIT that is still at work. It cannot be seen or locked, but who inserts one
        # with its uid waits for it; and if it does not come, that one is in its place.
        try:
            with connection.begin_nested():
                self._insert(connection, "aborted")
        except IntegrityError:
            logger.info("transaction %s: its row came late", self.uid)
        return self._state(connection)

    def _ending(self, state: str) -> list[Write]:
        """Return what ends it, to be written last."""
        ending, unpinning, forgetting = _endings()
        mine = {"of_id": self._id}
        writes: list[Write] = [(ending, mine | {"new_state": state})]
        if state == "committed":  # the intents of others are kept for vacuum: zombie workers may still write
            writes.append((forgetting, mine))
        writes.append((unpinning, mine))
        return [*writes, queue.leaving(self._id)] if self._is_queued else writes

    def _find_out(self, error: RegistryUnavailableError) -> tuple[Version, ...] | None:
        """As :meth:`_settle`, after an error; where nobody answers, neither outcome may be told."""
        try:
            return self._settle()
        except (RegistryUnavailableError, ReadOnlyError) as silence:
            raise RegistryUnavailableError(
                f"{error}; whether transaction {self.uid} was committed is not known, for then {silence}: look for its "
                "version, by versions(), before it is repeated"
            ) from error

    @retried
    def _settle(self) -> tuple[Version, ...] | None:
        """Abort if still open, and return None; if it was committed after all, return the versions it made."""
        with writing(self._url) as connection:
            state = self._state_at_last(connection)
            if state == "open":
                write_all(connection, self._ending("aborted"))
            return queries.versions_of(connection, self._id) if state == "committed" else None

    def _renew(self) -> bool:
        """Renew the lease, and the pins; return whether that was to be."""
        with writing(self._url) as connection:
            if self._state(connection) != "open":
                logger.warning("transaction %s: its lease is not renewed, it was fenced", self.uid)
                return False
            now = connection.execute(sa.select(database_clock())).scalar_one()
            for table, column in ((tables.transaction, "id"), (tables.pin, "transaction_id")):
                mine = sa.update(table).where(table.c[column] == self._id)
                connection.execute(mine.values(lease_until=now + self._lease))
            return True

    def _renew_turn(self) -> bool:
        with writing(self._url) as connection:
            return self._state(connection) == "open" and queue.renew(connection, self._id)


@cache
def _locked_state() -> sa.Select[*tuple[Any, ...]]:
    row = tables.transaction.c
    # By the uid: a number is given again, where the row's INSERT was rolled back.
    return sa.select(row.id, row.state).where(row.uid == sa.bindparam("of_uid")).with_for_update()


@cache
def _endings() -> tuple[sa.Update, sa.Delete, sa.Delete]:
    """Return the statements that end a transaction, take its pins away, and forget its intents, but for those kept."""
    id_: sa.BindParameter[int] = sa.bindparam("of_id")
    return (
        sa.update(tables.transaction).where(tables.transaction.c.id == id_).values(state=sa.bindparam("new_state")),
        sa.delete(tables.pin).where(tables.pin.c.transaction_id == id_),
        sa.delete(tables.staged).where(tables.staged.c.transaction_id == id_, tables.staged.c.keep.is_(None)),
    )


@cache
def _keeping() -> sa.Update:
    """Return the statement that has an intent outlive its commit, with the attempt that was committed, if any was."""
    row = tables.staged.c
    mine = row.transaction_id == sa.bindparam("of_id"), row.uid == sa.bindparam("of_uid")
    return sa.update(tables.staged).where(*mine).values(keep=sa.bindparam("kept"))


@cache
def _discarding() -> sa.Insert:
    """Return the statement that leaves a group to vacuum."""
    names = ["collection_id", "location", "options", "path"]
    mine = tables.staged.c.transaction_id == sa.bindparam("of_id"), tables.staged.c.uid == sa.bindparam("of_uid")
    staged = sa.select(*(tables.staged.c[name] for name in names), database_clock()).where(*mine)
    return sa.insert(tables.garbage).from_select([*names, "not_before"], staged)


def sign(signature: Signature, login: str) -> dict[str, str]:
    """Return what is recorded of a signature, by the names of the columns."""
    author = signature.author or _author_of_environment() or login
    return {"author": author, "login": login, "message": signature.message}


def _author_of_environment() -> str | None:
    author = os.environ.get("ZC_AUTHOR", "")
    if not is_text(author):
        raise InvalidInputError(f"ZC_AUTHOR={author!r} in the environment is not a name, for it is not UTF-8")
    return author if author.strip() else None


@cache
def system_login() -> str:
    """Return the operating system's name of the user, as far as it is text."""
    try:
        return getpass.getuser().encode(errors="replace").decode()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"
