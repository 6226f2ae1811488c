"""Creating: a claim on the location, then whatever is written there, then the record; until that, nobody sees it.

A claim is a row of the transaction that creates, and keeps other creators of this registry out while that lives. The
marker that is put there then, outside of any SQL lock, keeps those of other registries out.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import fields, replace

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError

from .changes import Commit
from .changes.commit import CarriedOut, carry_out, lock_collections
from .errors import AlreadyExistsError, NotFoundError, TransactionClosedError
from .records import CollectionDefinition, CollectionRecord, Signature
from .snapshot import Snapshot
from .sql import queries, tables
from .sql.claims import holds_claim, lock_claims, release_claim, take_claim
from .sql.creating import check_shown, record_collection, record_view
from .sql.engine import reading, retried, writing
from .sql.fragments import no_fragments
from .transaction import Transaction


class Creation(Transaction):
    """A transaction that makes a collection: entering it claims the location, and it ends with the collection's record.

    Whoever finds the claim of one that died takes it over, and fences that one.

    Parameters
    ----------
    url
        The registry's database.
    definition
        What is to be recorded.
    signature, lease
        As of others; without a message it tells what is created.
    """

    def __init__(
        self, url: URL, definition: CollectionDefinition, *, signature: Signature, lease: dt.timedelta
    ) -> None:
        self._said = signature.message  # others who want the location are told more
        told = signature if signature.message else signature.saying(f"create {definition.name}")
        super().__init__(url, signature=told, lease=lease)
        self._definition = definition
        given = {
            each.name: getattr(definition, each.name)
            for each in fields(definition)
            if each.name not in ("schema", "base")
        }
        self.collection = CollectionRecord(
            id=0,
            uid=uuid.uuid4().hex,
            kind="collection" if definition.base is None else "view",
            head_version=0,
            created_at=dt.datetime.now(dt.UTC),
            **given,
        )
        """What the record will be, but for its number and its time: what is staged and planned for it needs one."""

    @property
    def snapshot(self) -> Snapshot:
        """Its version 0, as that will be."""
        return Snapshot(self.collection, 0, self._definition.schema, no_fragments(self.collection), None)

    def record(self, *commits: Commit) -> CollectionRecord:
        """Record the collection, and what was written into it, at once; return its record.

        Parameters
        ----------
        commits
            What makes version 1, of :attr:`collection`.

        Raises
        ------
        AlreadyExistsError
            Its name was taken meanwhile.
        TransactionClosedError
            The lease had run out, and another creator took the claim; or it has ended.
        ConflictError
            A requirement of a commit is not met.
        RegistryUnavailableError
            The database is out of reach; nothing was recorded.
        NotFoundError
            It was recorded, and somebody has dropped it since.
        """
        try:
            self.commit(commits)
        except IntegrityError as error:
            raise AlreadyExistsError(
                f"there is a collection {self._definition.name} since just now; open it, or choose another name"
            ) from error
        mine = queries.collections_query().where(tables.collection.c.uid == self.collection.uid)
        with reading(self._url) as connection:
            row = connection.execute(mine).one_or_none()
        if row is None:
            raise NotFoundError(f"collection {self._definition.name} was created, and dropped just now")
        return queries.collection_record(row)

    @retried
    def release(self) -> None:
        """Give up the claim, if it is still this transaction's, and that has ended."""
        with writing(self._url) as connection:
            release_claim(connection, self.uid)

    def _begin(self, connection: sa.Connection) -> dt.datetime:
        until = super()._begin(connection)
        lock_claims(connection)
        take_claim(connection, self._definition, self._id)
        return until

    def _lock(self, connection: sa.Connection) -> None:
        lock_claims(connection)  # before the row: whoever takes a claim holds this, and then locks the row
        super()._lock(connection)

    def _carry_out(self, connection: sa.Connection, commits: Sequence[Commit]) -> CarriedOut:
        if not holds_claim(connection, self._definition.location, self._id):
            raise TransactionClosedError(
                f"the claim of {self._definition.name} on {self._definition.location} is gone: create it again"
            )
        signed = self._signed | {"message": self._said}
        first = {"transaction_id": self._id, **signed}
        base = self._definition.base
        heads = {} if base is None else lock_collections(connection, [base.collection])
        record = record_collection(connection, self._definition, self.collection.uid, first)
        if base is not None:
            check_shown(connection, base, heads[base.collection.id])
            record_view(connection, record, base, heads[base.collection.id])
        connection.execute(sa.delete(tables.claim).where(tables.claim.c.transaction_id == self._id))
        mine = [replace(commit, collection=record) for commit in commits]
        made, writes = carry_out(connection, mine, self._id, signed)
        return (queries.read_version(connection, record, 0), *made), writes
