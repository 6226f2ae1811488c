"""``connect`` and ``Registry``: what the rest of the package can do, in one place."""

import datetime as dt
import difflib
import html
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from .changes import Commit, Rename
from .creation import Creation
from .difference import Difference
from .dropping import Dropping, forget_garbage, read_garbage
from .errors import InvalidInputError, NotFoundError, RegistryUnavailableError
from .indexes import Found, IndexRecord, Rows, Value, Wanted
from .keys import KeyValues
from .migrations import HEAD_REVISION, check_revision, revision_of, upgrade
from .overlay import Asked
from .partitions import FragmentColumns, PartitionRecord
from .queue import read_queue
from .records import (
    PUBLIC_OPTIONS,
    UNSIGNED,
    Claimed,
    CollectionDefinition,
    CollectionRecord,
    Expired,
    Garbage,
    Leftover,
    Place,
    Signature,
    SourceRecord,
    Statistic,
    Totals,
    Version,
    parse_name,
)
from .retention import Expiring, Expiry, Pin, expect_expiry
from .selection import Filters, Selection
from .snapshot import Snapshot
from .sql import queries, tables
from .sql.bases import check_base, read_base
from .sql.claims import creator_of, is_left_behind
from .sql.creating import PathOf
from .sql.differences import read_difference
from .sql.engine import (
    create_database,
    dispose,
    hide_password,
    may_exist,
    parse_url,
    reading,
    retried,
    standby_note,
    upgrading,
)
from .sql.entries import read_entries, read_indexes, read_table
from .sql.hunks import read_last_changes
from .sql.leftovers import read_dead_nbytes, read_due_totals
from .sql.statistics import read_statistics
from .sql.views import read_rows, read_snapshot, read_totals
from .transaction import Transaction
from .vacuuming import dead_claims, fence, forget_claim, forget_leftovers, leftovers

Name = str | CollectionRecord
"""A collection's full name, or its record: that very collection, by whatever name."""

_EVERYTHING = Asked()

LEASE = dt.timedelta(minutes=15)

GRACE = dt.timedelta(days=1)
"""How long what nobody needs any more stays, for those who are still reading or writing it."""

CLAIM = dt.timedelta(minutes=1)
"""How long a location is kept for a creator that is silent: who was killed can soon be run again."""


def connect(url: str, *, create: bool = False) -> "Registry":
    """Open a registry.

    Parameters
    ----------
    url
        ``sqlite:///path/to/registry.db``, ``postgresql://user@host/database``, or ``env:NAME`` for the URL in an
        environment variable. With ``?journal=delete``, SQLite works without shared memory. To Postgres, options are
        libpq's (``?sslmode=require``), and ``?prepare=5`` has a statement prepared on the server when it was executed
        so often: faster, but not through a pooler of transactions, so no statement is without.
    create
        Make the database's tables where there are none, and upgrade older ones.

    Raises
    ------
    InvalidInputError
        The URL is none of these, or has an option that there is not.
    RegistryUnavailableError
        There is no registry (and ``create`` is false), or the database cannot be reached.
    RegistryRevisionError
        Its tables are older or newer than this code.
    """
    registry = Registry(url)
    if create:
        registry.upgrade()
    registry.check()
    return registry


class Registry:
    """The collections, schemas, partitions and versions recorded in one SQL database.

    It holds a URL and no connection: it can be pickled, and shared between threads and processes.
    """

    def __init__(self, url: str) -> None:
        self._url = parse_url(url)

    @property
    def url(self) -> str:
        """The database's address, its password hidden."""
        return hide_password(self._url)

    @retried
    def upgrade(self) -> None:
        """Make the tables where there are none, and bring older ones up to date; else write nothing, nor ask to."""
        create_database(self._url)
        with reading(self._url) as connection:
            if revision_of(connection) == HEAD_REVISION:
                return
        with upgrading(self._url) as connection:
            upgrade(connection)

    def check(self) -> None:
        """Raise unless the database can be reached and has this code's tables."""
        if not may_exist(self._url):
            raise RegistryUnavailableError(
                f"there is no registry at {self.url}; create it with connect(url, create=True)"
            )
        with reading(self._url) as connection:
            revision = revision_of(connection)
            if revision is None:
                raise RegistryUnavailableError(
                    f"the database at {self.url} has no registry; create it with connect(url, create=True)"
                )
            if revision != HEAD_REVISION:
                check_revision(connection)

    def close(self) -> None:
        """Close this process's connections; the next query opens new ones."""
        dispose(self._url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def collections(
        self, *, namespace: str | None = None, text: str | None = None, variable: str | None = None
    ) -> tuple[CollectionRecord, ...]:
        """Return the collections, by name: of a namespace, with a text in name or description, with a variable."""
        with self._reading() as connection:
            rows = connection.execute(queries.matching_collections_query(namespace, text, variable))
            return tuple(queries.collection_record(row) for row in rows)

    def collection(self, name: Name) -> CollectionRecord:
        """Return one collection.

        Raises
        ------
        NotFoundError
            There is none of that name; the message has the near matches.
        """
        with self._snapshot(name) as (_, collection):
            return collection

    def resolve(
        self,
        name: Name,
        *,
        version: int | Version | None = None,
        filters: Filters | None = None,
        axis_range: tuple[int | None, int | None] = (None, None),
        keys: Collection[KeyValues] | None = None,
        selection: Selection | None = None,
        asked: Asked = _EVERYTHING,
    ) -> Snapshot:
        """Return a collection at one version: schema and partitions, read in one SQL snapshot.

        Parameters
        ----------
        name
            The collection's full name, or its record: the very same collection then, whatever its name is now.
        version
            The version's number; None for the newest.
        filters
            Which partitions, by their keys.
        axis_range
            Which partitions, by their axis bounds: the smallest and largest value asked for (datetimes as ns since
            1970), both included, None for open.
        keys
            Which partitions, by the integers of their very keys.
        selection
            All of these as one value, in their place.
        asked
            Of a view: which of its variables, and what is to be done where they are stale.

        Raises
        ------
        NotFoundError
            No such collection or version.
        VersionExpiredError
            The version's data has been given up.
        InvalidInputError
            The filter is not understood.
        StaleViewError
            Own values of a view are stale, and it was asked to raise then.
        """
        with self._snapshot(name) as (connection, collection):
            chosen = selection or Selection.of(filters, collection.keys, axis_range=axis_range, keys=keys)
            return read_snapshot(connection, collection, version, chosen, asked)

    def indexes(self, name: Name, version: int | Version | None = None) -> tuple[IndexRecord, ...]:
        """Return the indexes of a collection at a version; everything as in :meth:`resolve`."""
        with self._snapshot(name) as (connection, collection):
            return read_indexes(connection, collection, queries.check_version(connection, collection, version))

    def look_up(self, name: Name, version: int | Version | None, index: IndexRecord, wanted: Wanted) -> Found:
        """Return which rows of a version an index has for what is wanted, and the parts of which it knows nothing."""
        with self._snapshot(name) as (connection, collection):
            number = queries.check_version(connection, collection, version)
            return read_entries(connection, collection, number, index, wanted)

    def entries(
        self, name: Name, version: int | Version | None, index: IndexRecord
    ) -> list[tuple[Rows, tuple[Value, ...]]]:
        """Return all that an index has of a version: rows of parts, and their values."""
        with self._snapshot(name) as (connection, collection):
            number = queries.check_version(connection, collection, version)
            return list(read_table(connection, collection, number, index))

    def base(self, view: CollectionRecord) -> CollectionRecord:
        """Return the base of a view; raises NotFoundError if it was dropped."""
        with self._snapshot(view) as (connection, found):
            return read_base(connection, found)

    def views_of(self, name: Name) -> tuple[CollectionRecord, ...]:
        """Return the views of a collection, by name; raises NotFoundError if there is no such collection."""
        with self._snapshot(name) as (connection, collection):
            mine = queries.collections_query().where(tables.collection.c.base_id == collection.id)
            return tuple(queries.collection_record(row) for row in connection.execute(mine))

    def partitions(
        self,
        name: Name,
        *,
        filters: Filters | None = None,
        version: int | Version | None = None,
        keys: Collection[KeyValues] | None = None,
    ) -> tuple[PartitionRecord, ...]:
        """Return the partitions of a version, in the order of their keys; everything as in :meth:`resolve`."""
        return self.fragments(name, filters=filters, version=version, keys=keys).partitions

    def fragments(
        self,
        name: Name,
        *,
        filters: Filters | None = None,
        version: int | Version | None = None,
        keys: Collection[KeyValues] | None = None,
    ) -> FragmentColumns:
        """Return the fragments of the partitions of a version, by columns; everything as in :meth:`resolve`."""
        with self._snapshot(name) as (connection, collection):
            number = queries.check_version(connection, collection, version)
            chosen = Selection.of(filters, collection.keys, keys=keys)
            return read_rows(connection, collection, number, chosen, head=version is None)

    def statistics(self, name: Name, variables: Iterable[int]) -> list[Statistic]:
        """Return what is known of values of variables, in the groups of all versions."""
        with self._snapshot(name) as (connection, collection):
            return read_statistics(connection, collection.id, variables)

    def changes(self, name: Name, version: int, keys: Iterable[KeyValues] | None = None) -> dict[KeyValues, int]:
        """Return which version last did something to each of some partitions, up to a version; None for all."""
        with self._snapshot(name) as (connection, collection):
            return read_last_changes(connection, collection, version, keys)

    def totals(self, name: Name, version: int | Version | None = None) -> Totals:
        """Return how many partitions, rows and bytes a version has; everything as in :meth:`resolve`."""
        with self._snapshot(name) as (connection, collection):
            number = queries.check_version(connection, collection, version)
            return read_totals(connection, collection, number, head=version is None)

    def version(self, name: Name, version: int | Version | None = None) -> Version:
        """Return one version's record, the newest for None; raises NotFoundError."""
        with self._snapshot(name) as (connection, collection):
            return queries.read_version(connection, collection, version)

    def versions(
        self, name: Name, *, filters: Filters | None = None, limit: int | None = None, newest_first: bool = False
    ) -> tuple[Version, ...]:
        """Return the versions of a collection, oldest first.

        Parameters
        ----------
        name
            The collection's full name, or its record.
        filters
            Those that touched such partitions alone.
        limit
            How many at most, from the end that comes first.
        newest_first
            In the other order.

        Raises
        ------
        NotFoundError
            No such collection.
        InvalidInputError
            The filter is not understood, or the limit is no number from 1.
        """
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
            raise InvalidInputError(f"limit={limit!r} is not a number of versions, from 1")
        with self._snapshot(name) as (connection, collection):
            chosen = None if filters is None else Selection.of(filters, collection.keys)
            return queries.read_versions(connection, collection, chosen, limit, newest_first=newest_first)

    def diff(self, name: Name, since: int | Version, until: int | Version | None = None) -> Difference:
        """Return what changed from a version to a later one, the newest for None, by the hunks of those between them.

        Raises
        ------
        NotFoundError
            No such collection or version.
        VersionExpiredError
            The data of one of the versions has been given up.
        InvalidInputError
            The first is the later one.
        """
        with self._snapshot(name) as (connection, collection):
            first, last = (queries.check_version(connection, collection, each) for each in (since, until))
            if first > last:
                raise InvalidInputError(
                    f"what changed in collection {collection.name} from version {first} to {last}? Name the older "
                    "version first"
                )
            return read_difference(connection, collection, first, last, head=until is None)

    def look_again(self, name: Name, version: int) -> str:
        """Return why what a version lists may be given up by now: that this is a standby; nothing where it is not.

        Raises
        ------
        NotFoundError
            The collection was dropped.
        VersionExpiredError
            The version's data has been given up.
        """
        with self._snapshot(name) as (connection, collection):
            queries.check_version(connection, collection, version)
            check_base(connection, collection, version)
            return standby_note(connection)

    def queue(self, collection: CollectionRecord) -> tuple[Place, ...]:
        """Return the places at which writers wait for others, who were overtaken too often."""
        with reading(self._url) as connection:
            return read_queue(connection, collection.id, None)

    def known_sources(self, name: Name, sources: Iterable[str]) -> dict[str, SourceRecord]:
        """Return what the head of a collection knows of these sources, by name; raises NotFoundError."""
        with self._snapshot(name) as (connection, collection):
            return queries.read_sources(connection, collection.id, sources)

    def creating(
        self,
        definition: CollectionDefinition,
        *,
        signature: Signature = UNSIGNED,
        lease: dt.timedelta = CLAIM,
    ) -> Creation:
        """Return a transaction that makes a collection, to be entered by ``with``: that claims the location.

        Inside the block the caller marks it in the storage, writes what there is to write, and has the collection
        recorded by :meth:`Creation.record`. If that does not happen, there never was one.

        Parameters
        ----------
        definition
            What is recorded.
        signature
            Recorded with the versions it makes, and told to others who want the location meanwhile.
        lease
            How long others wait for a creator that was killed.

        Raises
        ------
        InvalidInputError
            The name is not of the form ``namespace/name``, or a storage option may be secret.
        AlreadyExistsError
            On entering: the name is taken, or the location is, or lies inside another collection's, or around one; or
            somebody else is creating one there.
        """
        parse_name(definition.name)
        secret = [option for option in definition.storage_options if option not in PUBLIC_OPTIONS]
        if secret:
            raise InvalidInputError(
                f"the storage options {', '.join(secret)} of collection {definition.name} may be secret: only "
                f"{', '.join(PUBLIC_OPTIONS)} are recorded; give the others at each opening"
            )
        return Creation(self._url, definition, signature=signature, lease=lease)

    def is_left_behind(self, location: str, uid: str, transaction_uid: str | None) -> bool:
        """Whether the marker of a collection, and of who created it, was left by what is gone, as this registry knows.

        What it does not know may be another registry's.
        """
        with reading(self._url) as connection:
            return is_left_behind(connection, location, uid, transaction_uid)

    def creator(self, name: Name) -> str | None:
        """Return the uid of the transaction that created a collection, None for one of an earlier release.

        Raises NotFoundError.
        """
        with self._snapshot(name) as (connection, collection):
            return creator_of(connection, collection.id)

    def rename_collection(self, name: Name, new_name: str, *, signature: Signature = UNSIGNED) -> None:
        """Give a collection another full name; raises NotFoundError and AlreadyExistsError."""
        self.commit(Commit(self.collection(name), "rename", updates=(Rename(new_name),)), signature=signature)

    def drop_collection(
        self, name: Name, path_of: PathOf, *, break_views: bool = False, signature: Signature = UNSIGNED
    ) -> Garbage:
        """Forget a collection and all its versions; return what is to be deleted of it.

        That is the caller's to do once this has returned, and then :meth:`forget_garbage`; until then, rows name all
        of it. The marker is among them, and is to be deleted only if it is this collection's.

        Parameters
        ----------
        name
            The collection's full name, or its record.
        path_of
            Spells the path of a group below the location: from the names of the keys, a slot, and the uid.
        break_views
            Whether views of it may be left without their base.
        signature
            Recorded with the transaction.

        Raises
        ------
        NotFoundError
            There is none of that name.
        InvalidInputError
            It is the base of views.
        ConflictError
            Somebody else dropped it just now.
        RegistryUnavailableError
            The database is out of reach; nothing was dropped, or, if it is lost for longer, nothing was deleted.
        """
        collection = self.collection(name)
        dropping = Dropping(self._url, collection, path_of, break_views=break_views, signature=signature, lease=LEASE)
        dropping.commit(())
        return read_garbage(self._url, collection)

    def forget_garbage(self, garbage: Garbage) -> None:
        """Forget what has been deleted."""
        forget_garbage(self._url, garbage)

    def expire(
        self,
        name: Name,
        expiring: Expiring,
        path_of: PathOf,
        *,
        grace: dt.timedelta = GRACE,
        signature: Signature = UNSIGNED,
    ) -> Expired:
        """Give up the data of versions, and return what that was; what no other version has is garbage then.

        Parameters
        ----------
        name
            The collection's full name, or its record.
        expiring
            Which versions. Those that pins, tags or pinned views hold stay, and the newest one.
        path_of
            Spells the path of a group below the location: from the names of the keys, a slot, and the uid.
        grace
            How long nothing is deleted, so that who reads an expired version can end.
        signature
            Recorded with the transaction.

        Raises
        ------
        NotFoundError
            There is none of that name.
        ConflictError
            Somebody dropped it just now.
        RegistryUnavailableError
            The database is out of reach; nothing has expired, or the message says that this is not known.
        """
        given = self.collection(name)
        return Expiry(self._url, given, expiring, path_of, grace=grace, signature=signature, lease=LEASE).expire()

    def expect_expiry(self, name: Name, expiring: Expiring) -> Expired:
        """Return what :meth:`expire` would do now; raises NotFoundError."""
        with self._snapshot(name) as (connection, collection):
            return expect_expiry(connection, collection, expiring)

    def pin(self, *reads: tuple[CollectionRecord, int], lease: dt.timedelta) -> Pin:
        """Return what keeps versions from expiring inside a block, to be entered by ``with``."""
        return Pin(self._url, reads, lease=lease)

    def fence(self, grace: dt.timedelta = GRACE) -> int:
        """Fence the transactions whose lease ran out longer ago than the grace; return how many.

        None of them can commit any more, whatever its writer still does; their pins are given up, and lapsed ones.
        """
        return fence(self._url, grace)

    def leftovers(self, name: Name | None = None, *, lapsed: dt.timedelta | None = None) -> Iterator[list[Leftover]]:
        """Yield what is nobody's any more and may be deleted now, some at a time.

        That is due garbage, what transactions that were aborted or fenced staged, and lost attempts of committed ones.
        When the objects are gone, :meth:`forget_leftovers`.

        Parameters
        ----------
        name
            The collection; None for all, those that were dropped among them.
        lapsed
            Tell too what would be left if transactions were fenced by this grace. They may commit yet, so nothing of
            that may be deleted.

        Raises
        ------
        NotFoundError
            There is no such collection.
        """
        return leftovers(self._url, None if name is None else self.collection(name).id, lapsed)

    def forget_leftovers(self, deleted: Sequence[Leftover], grace: dt.timedelta = GRACE) -> None:
        """Forget what has been deleted, as it was told; of an intent, after the second time, one grace later."""
        forget_leftovers(self._url, deleted, grace)

    def dead_claims(self) -> list[Claimed]:
        """Return the locations that are claimed by creators who have died and were fenced, or gave up."""
        return dead_claims(self._url)

    def forget_claim(self, claimed: Claimed) -> None:
        """Forget such a claim, unless another creator has taken it over."""
        forget_claim(self._url, claimed)

    def due_garbage(self, name: Name) -> tuple[int, int]:
        """Return how many groups of a collection, and how many bytes, a vacuum would delete of what was given up."""
        with self._snapshot(name) as (connection, collection):
            return read_due_totals(connection, collection.id)

    def dead_nbytes(self, name: Name) -> int:
        """Return how many bytes of the groups of the newest version are of rows that it does not have any more."""
        with self._snapshot(name) as (connection, collection):
            return read_dead_nbytes(connection, collection.id)

    def commit(self, *commits: Commit, signature: Signature = UNSIGNED) -> tuple[Version, ...]:
        """Commit what touches the registry alone, in one SQL transaction; return the versions that it made.

        Raises
        ------
        ConflictError
            A requirement is not met, or a collection was dropped.
        Exception
            What an update raises; nothing is changed then.
        """
        return self.begin(signature=signature).commit(commits)

    def begin(
        self,
        *reads: tuple[CollectionRecord, int],
        intents: Iterable[tuple[CollectionRecord, str, str]] = (),
        signature: Signature = UNSIGNED,
        lease: dt.timedelta = LEASE,
    ) -> Transaction:
        """Return a transaction, to be entered by ``with``.

        Parameters
        ----------
        reads
            Collections, and the versions of them that are pinned while it is open.
        intents
            What is known already of what it will write, see :meth:`Transaction.stage`.
        signature
            Recorded with the versions it makes.
        lease
            How long it survives its writer's silence.
        """
        return Transaction(self._url, reads, intents, signature=signature, lease=lease)

    @contextmanager
    def _snapshot(self, name: Name) -> Iterator[tuple[sa.Connection, CollectionRecord]]:
        """Read in one SQL snapshot, of a collection that is there."""
        with self._reading() as connection:
            yield connection, self._find(connection, name)

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """Read in one SQL snapshot; who holds a registry may see it upgraded, on Postgres between two statements."""
        try:
            with reading(self._url) as connection:
                check_revision(connection)
                yield connection
        except ProgrammingError:
            self.check()  # or it is a mistake of ours
            raise

    def _find(self, connection: sa.Connection, name: Name) -> CollectionRecord:
        if isinstance(name, CollectionRecord):
            found = queries.read_head(connection, name.id)
            if found is None or found.uid != name.uid:  # SQLite gives the number of a dropped row again
                raise NotFoundError(f"collection {name.name} was dropped from the registry at {self.url}")
            return found
        collection = queries.read_collection(connection, *parse_name(name))
        if collection is None:
            names = connection.scalars(queries.collections_query().with_only_columns(queries.FULL_NAME)).all()
            near = difflib.get_close_matches(name, names, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else f"; it has {len(names)} collections"
            if note := standby_note(connection):
                hint = f" yet{hint}; {note}"
            raise NotFoundError(f"there is no collection {name} in the registry at {self.url}{hint}")
        return collection

    def __repr__(self) -> str:
        return f"<Registry {self.url}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(record.name)}</td><td>{record.head_version}</td>"
            f"<td>{html.escape(record.location)}</td><td>{html.escape(record.description)}</td></tr>"
            for record in self.collections()
        )
        head = "<tr><th>collection</th><th>version</th><th>location</th><th>description</th></tr>"
        return f"<p>Registry <code>{html.escape(self.url)}</code></p><table>{head}{rows}</table>"
