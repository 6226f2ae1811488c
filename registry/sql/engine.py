"""Connections: URLs, one engine per URL and process, and the two kinds of SQL transaction.

``reading`` is one snapshot, ``writing`` takes its locks at once; what is ``retried`` is done again where the database
asks for it. Everything that a database driver raises leaves here as an error of ours.
"""

import atexit
import functools
import itertools
import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from ..errors import InvalidInputError, ReadOnlyError, RegistryUnavailableError
from . import postgres, sqlite
from .options import check_options

P = ParamSpec("P")
T = TypeVar("T")

_WRITING, _UPGRADING = "registry_writing", "registry_upgrading"
"""The names of the options of connections that tell how their transactions begin."""

RETRY_SECONDS = 60.0
"""For how long a transaction that gave way is begun again: less than a third of a lease, so that it is renewed."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 1.0
"""Between two tries, in seconds: at most the first one, then twice as much each time. How much of it is drawn."""

logger = logging.getLogger(__name__)

_engines: dict[tuple[str, int], sa.Engine] = {}
"""By URL and process. No lock: it could be held at a fork, and would be for ever in the child."""

_torn: dict[str, int] = {}
"""The URLs of files that were in use at a fork, and which process forked: its children cannot use them."""

_FORK_PATIENCE = 1.0
"""For how many seconds a fork waits for other threads' transactions."""


def parse_url(url: str) -> URL:
    """Return the URL with ``env:NAME`` looked up and a file's path made absolute.

    Raises
    ------
    InvalidInputError
        Not a database URL, not SQLite or Postgres, or the environment variable is missing.
    """
    text = url
    if url.startswith("env:"):
        text = os.environ.get(url.removeprefix("env:"), "")
        if not text:
            raise InvalidInputError(f"the registry is given as {url!r}, and that environment variable is not set")
    try:
        parsed = make_url(text)
        backend = parsed.get_backend_name()
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError):  # the last for a port that is no number
        raise InvalidInputError(
            "the registry's address is not a database URL; write 'sqlite:///path/to/registry.db' "
            "or 'postgresql://user@host/database'"
        ) from None
    if backend not in ("sqlite", "postgresql"):
        raise InvalidInputError(f"a registry lives in SQLite or Postgres, not in {backend!r}")
    if backend == "sqlite":
        check_options(text, parsed, sqlite.OPTIONS)
        return sqlite.check_url(parsed)
    check_options(text, parsed, postgres.known_options() if parsed.query else None)
    return postgres.check_url(parsed)


def is_sqlite(url: URL) -> bool:
    """Whether the registry is a file of SQLite."""
    return url.get_backend_name() == "sqlite"


def hide_password(url: URL) -> str:
    """Return the URL as it may be shown."""
    secrets = {name: "***" for name in url.query if "password" in name.lower()}
    return url.update_query_dict(secrets).render_as_string(hide_password=True)


def show_url(url: str) -> str:
    """Return a URL as given, but for its password.

    >>> show_url("postgresql://me:secret@host/db"), show_url("env:ZC_REGISTRY")
    ('postgresql://me:***@host/db', 'env:ZC_REGISTRY')
    """
    try:
        return url if url.startswith("env:") else hide_password(make_url(url))
    except (ArgumentError, ValueError):
        return "***"


def engine_of(url: URL) -> sa.Engine:
    """Return this process's engine for ``url``; a forked process gets its own."""
    key = (url.render_as_string(hide_password=False), os.getpid())
    engine = _engines.get(key)
    if engine is None:
        if _torn.get(key[0], key[1]) != key[1]:
            raise RegistryUnavailableError(
                f"the registry at {hide_password(url)} cannot be used in this process, which was forked while another "
                "thread was in a transaction: SQLite takes its locks for this one's. Fork when no thread uses the "
                "registry, or start processes by 'spawn' or 'forkserver'"
            )
        made = (sqlite if is_sqlite(url) else postgres).create_engine(url)
        sa.event.listen(made, "begin", _begin)
        engine = _engines.setdefault(key, made)  # another thread may have been faster
    return engine


def _own_engines() -> dict[str, sa.Engine]:
    """Return this process's engines, by URL; a forked child leaves its parent's alone."""
    return {url: engine for (url, process), engine in list(_engines.items()) if process == os.getpid()}


@atexit.register
def _dispose_all() -> None:
    for engine in _own_engines().values():
        engine.dispose()


def _close_before_fork() -> None:
    """Close this process's connections, once other threads have ended their transactions.

    What SQLite has open at a fork, it takes for locked in the child too, where it is not: another process then deletes
    the write-ahead log under the child's hands, and what the child commits is lost.
    """
    end = time.monotonic() + _FORK_PATIENCE
    while (busy := [url for url, engine in _own_engines().items() if sqlite.in_use(engine)]) and time.monotonic() < end:
        time.sleep(0.001)
    for url in [url for url, process in _torn.items() if process == os.getpid()]:
        del _torn[url]
    _torn.update(dict.fromkeys(busy, os.getpid()))
    _dispose_all()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_close_before_fork)


def dispose(url: URL) -> None:
    """Close this process's connections to ``url``, those that another thread uses when it gives them back."""
    engine = _engines.pop((url.render_as_string(hide_password=False), os.getpid()), None)
    if engine is not None:
        sa.event.listen(engine.pool, "checkin", lambda _, record: record.close())
        engine.dispose()


def may_exist(url: URL) -> bool:
    """Whether there can be a database: False where its file is missing."""
    return not is_sqlite(url) or sqlite.file_of(url).is_file()


def create_database(url: URL) -> None:
    """Make the file of an SQLite registry, where there is none; a server's database is its owner's affair."""
    if is_sqlite(url) and not sqlite.is_made(url):
        with _driver_errors(url):
            sqlite.create_file(url)


def _begin(connection: sa.Connection) -> None:
    writing = connection.get_execution_options().get(_WRITING, False)
    if connection.dialect.name == "sqlite":
        # The driver runs in autocommit mode, so BEGIN is ours. A deferred BEGIN that upgrades to a write
        # ignores the busy timeout; BEGIN IMMEDIATE waits.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
    elif writing:
        postgres.begin_writing(connection, upgrading=connection.get_execution_options().get(_UPGRADING, False))


@contextmanager
def reading(url: URL) -> Iterator[sa.Connection]:
    """One read-only snapshot: every statement inside sees the same committed state."""
    options = {} if is_sqlite(url) else postgres.SNAPSHOT
    with _driver_errors(url), engine_of(url).connect().execution_options(**options) as connection, connection.begin():
        yield connection


@contextmanager
def writing(url: URL, *, upgrading: bool = False) -> Iterator[sa.Connection]:
    """One SQL transaction that commits at the end of the block, or rolls back on any exception.

    A function with such a block is :func:`retried`, since the database may have it give way to another transaction.
    No upgrade is under way meanwhile, unless this is one.
    """
    options = {_WRITING: True, _UPGRADING: upgrading} | ({} if is_sqlite(url) else postgres.WRITING)
    with (
        _driver_errors(url, writing=True),
        engine_of(url).connect().execution_options(**options) as connection,
        _begun(connection),
    ):
        yield connection


@contextmanager
def _begun(connection: sa.Connection) -> Iterator[None]:
    """Commit at the end, unless that would go into a file that nobody will find."""
    with connection.begin():
        yield
        sqlite.check_in_place(connection)


class _GaveWayError(RegistryUnavailableError):
    """A transaction that the database rolled back for the sake of others: it may succeed if it is begun again."""


def retried(function: Callable[P, T]) -> Callable[P, T]:
    """Have a function called again where its transaction gave way to others, for :data:`RETRY_SECONDS`.

    Whatever it does, it does in one ``writing`` block, or after that. In SQLite no transaction gives way: they wait.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        end = time.monotonic() + RETRY_SECONDS
        for tries in itertools.count(1):
            try:
                return function(*args, **kwargs)
            except _GaveWayError as error:
                # Drawn, or those who met once would meet again.
                pause = random.uniform(0, min(_FIRST_PAUSE * 2**tries, _LONGEST_PAUSE))
                if time.monotonic() + pause > end:
                    raise RegistryUnavailableError(
                        f"{error}; it was tried {tries} times in {RETRY_SECONDS:g} s: look for what holds its locks "
                        "(in the view pg_locks), and repeat it"
                    ) from error
                logger.info("%s; trying again", error)
                time.sleep(pause)
        raise AssertionError  # it was returned or raised

    return call


@contextmanager
def upgrading(url: URL) -> Iterator[sa.Connection]:
    """As :func:`writing`, for whoever makes tables anew that others refer to: SQLite looks at that when it ends."""
    if not is_sqlite(url):
        with writing(url, upgrading=True) as connection:
            yield connection
        return
    options = {_WRITING: True}
    with (
        _driver_errors(url, writing=True),
        engine_of(url).connect().execution_options(**options) as connection,
        sqlite.references_unchecked(connection),
        _begun(connection),
    ):
        yield connection
        sqlite.check_references(connection)


def standby_note(connection: sa.Connection) -> str:
    """Return what to do where a database may lag behind, as a standby does; nothing where it does not."""
    if connection.dialect.name == "sqlite":
        return ""
    replayed = connection.exec_driver_sql(
        "SELECT pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC' WHERE pg_is_in_recovery()"
    ).first()
    if replayed is None:
        return ""
    until = "" if replayed[0] is None else f", and has what was committed up to {replayed[0]:%Y-%m-%d %H:%M:%S} UTC"
    return (
        f"the database at {hide_password(connection.engine.url)} is a standby, which may lag behind{until}: ask it "
        "again later, or ask the primary"
    )


def inserted_id(result: sa.CursorResult[Any]) -> int:
    """Return the id that the database gave to an inserted row."""
    key = result.inserted_primary_key
    assert key is not None  # it was an INSERT
    return int(key[0])


def sqlstate_of(error: BaseException) -> str:
    """Return the code of an error of Postgres'; nothing where it has none, as where the connection was lost."""
    reason = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(reason, "sqlstate", None) or "")


@contextmanager
def _driver_errors(url: URL, *, writing: bool = False) -> Iterator[None]:
    """Have what the driver raises be an error of ours, by its code; not what is a mistake of ours."""
    try:
        yield
    except IntegrityError:
        raise  # the statement's own business
    except sa.exc.TimeoutError as error:
        raise RegistryUnavailableError(
            f"{error}: more threads of this process use the registry at {hide_password(url)} than it has connections "
            "for, and none became free; use fewer"
        ) from error
    except (DBAPIError, sqlite3.Error) as error:
        state, where = sqlstate_of(error), f"the registry at {hide_password(url)}"
        reason = str(error.orig if isinstance(error, DBAPIError) else error)
        if is_sqlite(url) and sqlite.is_read_only(error):
            if writing:
                raise ReadOnlyError(f"{where} is not written: {reason}; {sqlite.may_only_read(url)}") from error
            raise RegistryUnavailableError(
                f"{where} cannot be read: a writer was killed in the middle of a commit, and undoing that takes the "
                "right to write; have somebody who may write there open the registry once"
            ) from error
        what = reason.partition("\n")[0]  # other lines are of tuples and processes
        if state in postgres.GIVING_WAY and not writing:  # on a standby, which waits for no reader for long
            raise RegistryUnavailableError(
                f"{where} has ended a read that was in the way of what it takes from the primary: {what}; read it again"
            ) from error
        if state in postgres.GIVING_WAY:
            raise _GaveWayError(f"{where} is busy with other writers: {what}") from error
        if state in postgres.READ_ONLY and writing:
            raise ReadOnlyError(f"{where} is not written: {what}; {postgres.READ_ONLY[state]}") from error
        if state == "42501":
            raise RegistryUnavailableError(f"{where} may not be read: {what}; ask its owner for SELECT") from error
        if state == postgres.CANCELLED:
            raise RegistryUnavailableError(
                f"{where} has cancelled a statement, and rolled back its transaction: {what}; repeat it, and if it is "
                "too slow for a timeout of the server, have that raised"
            ) from error
        if state.startswith(postgres.MISTAKES):
            raise
        raise RegistryUnavailableError(f"{where} cannot be used: {reason}") from error
