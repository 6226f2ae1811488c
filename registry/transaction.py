"""The unit of work: begin with a lease, record intents before any data, then check and commit, or raise.

The registry's COMMIT is the only commit point of a write. A transaction's row is its fence: whoever turns it
from ``open`` into something else (``committed`` by its writer, ``aborted`` by its writer, ``expired`` by
vacuum) has decided, under the row's lock, and no clock has. After Kleppmann, *Designing Data-Intensive
Applications*, "Fencing tokens".
"""

import datetime as dt
import getpass
import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError

from . import queries, tables
from .engine import database_clock, writing
from .errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RegistryUnavailableError,
    TransactionClosedError,
)
from .keys import format_key, name_values
from .migrations import check_revision
from .records import IMMUTABLE_LAYER, ROWS_LAYER, Change, CollectionRecord, Slot, VariableRecord, Version

_KEY_NAMES = [f"k{i}" for i in range(6)]


COMMITTED_AFTER_ALL = "the connection to the registry was lost, but the write was committed: do not repeat it"


class Transaction:
    """Staged changes to one or more collections, committed once. A context manager: leaving it open aborts it.

    Parameters
    ----------
    url
        The registry's database.
    reads
        Collections and the versions that the work will read; pinned while the transaction is open.
    message, author
        Recorded with the versions it makes.
    lease
        How long the transaction survives its writer's silence. A thread renews it while the writer lives.
    """

    def __init__(
        self,
        url: URL,
        reads: Iterable[tuple[CollectionRecord, int]],
        *,
        message: str,
        author: str,
        lease: dt.timedelta,
    ) -> None:
        self.uid = uuid.uuid4().hex
        self._url = url
        self._reads = tuple(reads)
        self._message = message
        self._author = author
        self._lease = lease
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        with writing(self._url) as connection:
            check_revision(connection)
            now = connection.execute(sa.select(database_clock())).scalar_one()
            row = {
                "uid": self.uid,
                "state": "open",
                "lease_until": now + self._lease,
                "author": self._author,
                "message": self._message,
                "created_at": now,
            }
            inserted = connection.execute(sa.insert(tables.transaction).values(row))
            self._id = inserted_id(inserted)
            for collection, version in self._reads:
                pin = {"collection_id": collection.id, "version": version, "transaction_id": self._id}
                try:
                    connection.execute(sa.insert(tables.pin).values(pin | {"lease_until": now + self._lease}))
                except IntegrityError as error:
                    raise NotFoundError(f"collection {collection.name} was dropped just now") from error
        threading.Thread(target=self._renew, name=f"lease-{self.uid}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._stopped.is_set() and not self.abort() and error is not None:
            error.add_note(COMMITTED_AFTER_ALL)

    def stage(self, collection: CollectionRecord, intents: Iterable[tuple[Slot, str]]) -> None:
        """Record what is about to be written, slot and fragment uid, before any of it is.

        Raises
        ------
        TransactionClosedError
            The transaction has ended or was fenced.
        """
        rows = [
            {"transaction_id": self._id, "uid": uid, "collection_id": collection.id, "layer_id": slot.layer_id}
            | dict(zip(_KEY_NAMES, slot.key, strict=True))
            for slot, uid in intents
        ]
        with writing(self._url) as connection:
            self._lock(connection)
            if rows:
                connection.execute(sa.insert(tables.staged), rows)

    def commit(self, changes: Sequence[Change]) -> tuple[Version, ...]:
        """Make all changes visible at once, each as the next version of its collection.

        Raises
        ------
        ConflictError
            Something in a change's read set is no longer what it was; nothing was committed.
        TransactionClosedError
            The transaction has ended or was fenced.
        RegistryUnavailableError
            The database is out of reach; nothing was committed.
        """
        _check_changes(changes)
        try:
            versions = self._commit(changes)
        except RegistryUnavailableError:
            # The connection may have been lost after COMMIT took effect. Ask, under the row's lock.
            versions = self._settle()
            if not versions:
                raise
        self._stopped.set()
        return versions

    def abort(self) -> bool:
        """Fence this transaction: after this it can never commit, and what it staged may be deleted.

        Return whether that is so; False if it was committed after all, which a lost connection can hide.
        """
        self._stopped.set()
        return not self._settle()

    def _commit(self, changes: Sequence[Change]) -> tuple[Version, ...]:
        with writing(self._url) as connection:
            check_revision(connection)
            self._lock(connection)
            heads = _lock_collections(connection, changes)
            now = connection.execute(sa.select(database_clock())).scalar_one()
            for change in sorted(changes, key=lambda change: change.collection.id):
                _check_reads(connection, change)
                _remember_sources(connection, change, heads[change.collection.id] + 1)
                _add_variables(connection, change, heads[change.collection.id] + 1)
                _apply(connection, change, heads[change.collection.id] + 1, self._id)
                _add_version(connection, change, self._version_row(change, heads[change.collection.id] + 1, now))
            self._end(connection, "committed")
            return _versions_of(connection, self._id)

    def _version_row(self, change: Change, number: int, now: dt.datetime) -> dict[str, object]:
        return {
            "collection_id": change.collection.id,
            "version": number,
            "transaction_id": self._id,
            "committed_at": now,
            "author": self._author,
            "message": self._message,
            "operation": change.operation,
            "summary": dict(change.summary),
        }

    def _lock(self, connection: sa.Connection) -> None:
        row = tables.transaction.c
        state = connection.scalar(sa.select(row.state).where(row.id == self._id).with_for_update())
        if state == "committed":
            raise TransactionClosedError(f"transaction {self.uid} was committed already: begin another one")
        if state != "open":
            raise TransactionClosedError(
                f"transaction {self.uid} is {state or 'gone'}: nothing of it was made visible; repeat the write"
            )

    def _end(self, connection: sa.Connection, state: str) -> None:
        row = tables.transaction.c
        connection.execute(sa.update(tables.transaction).where(row.id == self._id).values(state=state))
        connection.execute(sa.delete(tables.pin).where(tables.pin.c.transaction_id == self._id))
        if state == "committed":  # the intents of others are kept for vacuum: zombie workers may still write
            connection.execute(sa.delete(tables.staged).where(tables.staged.c.transaction_id == self._id))

    def _settle(self) -> tuple[Version, ...]:
        """Abort if still open; return the versions it made if it was committed after all."""
        with writing(self._url) as connection:
            row = tables.transaction.c
            state = connection.scalar(sa.select(row.state).where(row.id == self._id).with_for_update())
            if state == "open":
                self._end(connection, "aborted")
            return _versions_of(connection, self._id) if state == "committed" else ()

    def _renew(self) -> None:
        while not self._stopped.wait(self._lease.total_seconds() / 3):
            try:
                with writing(self._url) as connection:
                    now = connection.execute(sa.select(database_clock())).scalar_one()
                    until = {"lease_until": now + self._lease}
                    mine = tables.transaction.c.id == self._id, tables.transaction.c.state == "open"
                    if connection.execute(sa.update(tables.transaction).where(*mine).values(until)).rowcount == 0:
                        return  # it was fenced: there is nothing to keep
                    connection.execute(
                        sa.update(tables.pin).where(tables.pin.c.transaction_id == self._id).values(until)
                    )
            except RegistryUnavailableError:
                continue  # the next try is a third of a lease away; if all fail, the fence decides


def inserted_id(result: sa.CursorResult[Any]) -> int:
    """Return the id that the database gave to an inserted row."""
    key = result.inserted_primary_key
    assert key is not None  # it was an INSERT
    return int(key[0])


def default_author() -> str:
    """Return the operating system's name of the user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"


def _check_changes(changes: Sequence[Change]) -> None:
    """Refuse what contradicts itself, before any of it is done."""
    names = [change.collection.name for change in changes]
    for change in changes:
        if names.count(change.collection.name) > 1:
            raise InvalidInputError(f"collection {change.collection.name} is changed twice in one commit")
        slots = Counter(fragment.slot for fragment in change.writes)
        for slot, count in slots.items():
            if count > 1:
                what = _describe(change.collection, slot)
                raise InvalidInputError(f"collection {change.collection.name}: {what} is written twice in one commit")


def _lock_collections(connection: sa.Connection, changes: Sequence[Change]) -> dict[int, int]:
    table = tables.collection
    wanted = {change.collection.id: change.collection.name for change in changes}
    rows = connection.execute(
        sa.select(table.c.id, table.c.head_version)
        .where(table.c.id.in_(wanted))
        .order_by(table.c.id)
        .with_for_update(key_share=True)
    )
    heads: dict[int, int] = {row.id: row.head_version for row in rows}
    for id_, name in wanted.items():
        if id_ not in heads:
            raise ConflictError(f"collection {name} was dropped while it was being written")
    return heads


def _check_reads(connection: sa.Connection, change: Change) -> None:
    live = queries.read_live_uids(connection, change.collection.id, (slot.key for slot in change.requires))
    changed = [slot for slot, uid in change.requires.items() if live.get(slot) != uid]
    # A merge has read all layers of the partition whose rows it writes: one that is new would be lost.
    merged = {fragment.slot.key for fragment in change.writes if fragment.slot.layer_id == ROWS_LAYER}
    merged &= {slot.key for slot in change.requires if slot.layer_id == ROWS_LAYER}
    changed += [
        slot for slot in live if slot.layer_id > ROWS_LAYER and slot.key in merged and slot not in change.requires
    ]
    if changed:
        keys = tuple(dict.fromkeys(_describe(change.collection, slot) for slot in sorted(changed)))
        shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
        raise ConflictError(
            f"collection {change.collection.name}: another writer changed {shown} while this {change.operation} "
            "was being prepared; nothing was written, repeat it",
            keys,
        )


def _describe(collection: CollectionRecord, slot: Slot) -> str:
    if slot.layer_id == IMMUTABLE_LAYER:
        return "the immutable variables"
    return format_key(name_values(collection.keys, slot.key[: len(collection.keys)]))


def _apply(connection: sa.Connection, change: Change, version: int, transaction_id: int) -> None:
    written = {fragment.slot for fragment in change.writes}
    rewritten = {slot.key for slot in written if slot.layer_id == ROWS_LAYER}
    live = queries.read_live_uids(connection, change.collection.id, (slot.key for slot in written))
    closed = [slot for slot in live if slot in written or (slot.key in rewritten and slot.layer_id > ROWS_LAYER)]
    _close(connection, change.collection.id, closed, version)
    rows = [
        {
            "collection_id": change.collection.id,
            "layer_id": fragment.slot.layer_id,
            "begin_version": version,
            "written_version": version,
            # What was written with added variables belongs to the schema that this very version makes.
            "schema_version": version if change.adds else change.schema_version,
            "uid": fragment.uid,
            "rows": fragment.rows,
            "nbytes": fragment.nbytes,
            "axis_min": fragment.axis_min,
            "axis_max": fragment.axis_max,
            "transaction_id": transaction_id,
        }
        | dict(zip(_KEY_NAMES, fragment.slot.key, strict=True))
        for fragment in change.writes
    ]
    if rows:
        try:
            connection.execute(sa.insert(tables.fragment), rows)
        except IntegrityError as error:
            raise ConflictError(f"collection {change.collection.name}: another writer was faster") from error


def _close(connection: sa.Connection, collection_id: int, slots: Sequence[Slot], version: int) -> None:
    """Move live fragments to the past ones: alive until ``version``."""
    if not slots:
        return
    live, past = tables.fragment, tables.past_fragment
    columns = [column.name for column in live.c]
    here = sa.and_(
        live.c.collection_id == collection_id,
        live.c.layer_id == sa.bindparam("layer"),
        *(live.c[name] == sa.bindparam(f"of_{name}") for name in _KEY_NAMES),
    )
    moved = sa.select(*(live.c[name] for name in columns), sa.literal(version, sa.Integer)).where(here)
    where = [
        {"layer": slot.layer_id} | {f"of_{name}": value for name, value in zip(_KEY_NAMES, slot.key, strict=True)}
        for slot in slots
    ]
    connection.execute(sa.insert(past).from_select([*columns, "end_version"], moved), where)
    connection.execute(sa.delete(live).where(here), where)


def _remember_sources(connection: sa.Connection, change: Change, version: int) -> None:
    collection_id = change.collection.id
    seen = queries.read_seen_sources(connection, collection_id, change.sources)
    if seen and change.unseen:
        raise ConflictError(
            f"collection {change.collection.name}: another writer committed {', '.join(sorted(seen)[:5])} meanwhile; "
            "nothing was written, repeat the insert"
        )
    table = tables.source
    again = sa.and_(table.c.collection_id == collection_id, table.c.name == sa.bindparam("of_name"))
    if seen:
        connection.execute(sa.update(table).where(again).values(version=version), [{"of_name": name} for name in seen])
    new = [
        {"collection_id": collection_id, "name": name, "version": version}
        for name in dict.fromkeys(change.sources)
        if name not in seen
    ]
    if new:
        connection.execute(sa.insert(table), new)


def _add_variables(connection: sa.Connection, change: Change, version: int) -> None:
    if not change.adds:
        return
    alive = queries.read_schema(connection, change.collection.id, version).variables
    taken = {variable.name for variable in alive} & {variable.name for variable in change.adds}
    if taken or {variable.id for variable in alive} & {variable.id for variable in change.adds}:
        raise ConflictError(
            f"collection {change.collection.name}: another writer changed its variables meanwhile; nothing was "
            "written, repeat it"
        )
    connection.execute(sa.insert(tables.variable), variable_rows(change.adds, change.collection.id, version))


def variable_rows(variables: Iterable[VariableRecord], collection_id: int, version: int) -> list[dict[str, object]]:
    """Return the rows of variables that begin at a version."""
    begin = {"collection_id": collection_id, "begin_version": version}
    fields = [name for name in VariableRecord.__dataclass_fields__ if name != "begin_version"]
    return [begin | {name: getattr(variable, name) for name in fields} for variable in variables]


def _add_version(connection: sa.Connection, change: Change, row: dict[str, object]) -> None:
    table = tables.version
    last = connection.scalar(
        sa.select(table.c.committed_at)
        .where(table.c.collection_id == change.collection.id)
        .order_by(table.c.version.desc())
        .limit(1)
    )
    row["committed_at"] = max(row["committed_at"], last) if last else row["committed_at"]
    connection.execute(sa.insert(table).values(row))
    head = {"head_version": row["version"]}
    connection.execute(sa.update(tables.collection).where(tables.collection.c.id == change.collection.id).values(head))


def _versions_of(connection: sa.Connection, transaction_id: int) -> tuple[Version, ...]:
    table = tables.version
    query = (
        sa.select(table, queries.FULL_NAME)
        .join(tables.collection, tables.collection.c.id == table.c.collection_id)
        .join(tables.namespace, tables.namespace.c.id == tables.collection.c.namespace_id)
        .where(table.c.transaction_id == transaction_id)
        .order_by(table.c.collection_id)
    )
    return tuple(queries.version_record(row, row.full_name) for row in connection.execute(query))
