"""Connections: URLs, one engine per URL and process, and the two kinds of SQL transaction.

``reading`` is one snapshot, ``writing`` takes its locks at once. Everything that a database driver raises
leaves here as an error of ours.
"""

import atexit
import datetime as dt
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from .errors import InvalidInputError, RegistryUnavailableError
from .tables import UTCDateTime

_BUSY_TIMEOUT_MS = 60_000

_WRITING = "registry_writing"

_engines: dict[tuple[str, int], sa.Engine] = {}
_engines_lock = threading.Lock()


class database_clock(FunctionElement[dt.datetime]):  # noqa: N801 - reads as a SQL function
    """The database's own clock: the only one that machines share. Not the start of the transaction."""

    type = UTCDateTime()
    inherit_cache = True


@compiles(database_clock, "sqlite")
def _sqlite_clock(element: Any, compiler: Any, **options: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f', 'now')"


@compiles(database_clock, "postgresql")
def _postgresql_clock(element: Any, compiler: Any, **options: Any) -> str:
    return "clock_timestamp()"


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
        if parsed.database in (None, "", ":memory:"):
            raise InvalidInputError(
                "a registry in memory could not be shared between threads; write 'sqlite:///path/to/registry.db'"
            )
        if parsed.query.get("journal", "wal") not in ("wal", "delete"):
            raise InvalidInputError(f"journal={parsed.query['journal']!r} is neither 'wal', the default, nor 'delete'")
        parsed = parsed.set(database=str(Path(str(parsed.database)).expanduser().absolute()))
    return parsed


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
    with _engines_lock:
        if key not in _engines:
            _engines[key] = _create_sqlite_engine(url) if url.get_backend_name() == "sqlite" else sa.create_engine(url)
            sa.event.listen(_engines[key], "begin", _begin)
        return _engines[key]


@atexit.register
def _dispose_all() -> None:
    with _engines_lock:
        for (_, process), engine in _engines.items():
            if process == os.getpid():  # a forked child leaves its parent's connections alone
                engine.dispose()


def dispose(url: URL) -> None:
    """Close this process's connections to ``url``."""
    engine = _engines.pop((url.render_as_string(hide_password=False), os.getpid()), None)
    if engine is not None:
        engine.dispose()


def create_sqlite_file(url: URL) -> None:
    """Make the database file with write-ahead logging, where there is none."""
    path = Path(str(url.database))
    journal = url.query.get("journal", "wal")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RegistryUnavailableError(f"the registry at {path} cannot be created: {error}") from error
    with _driver_errors(url):
        connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_TIMEOUT_MS / 1000)
        try:
            mode = _set_journal(connection, str(journal))
        finally:
            connection.close()
    if mode != journal:
        raise RegistryUnavailableError(
            f"the file system of {path} does not take SQLite's write-ahead log (a network file system?): "
            "add '?journal=delete' to the URL for use from one machine, or keep the registry in Postgres"
        )


def _set_journal(connection: sqlite3.Connection, journal: str) -> str:
    """Set the journal mode of a new file, and return the one it got."""
    while True:
        connection.execute("BEGIN IMMEDIATE")  # waits for whoever is at it, which the change of mode does not
        connection.execute("COMMIT")
        try:
            (mode,) = connection.execute(f"PRAGMA journal_mode={journal}").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                continue  # another one came in between
            raise
        return str(mode)


def _create_sqlite_engine(url: URL) -> sa.Engine:
    path = Path(str(url.database))

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(_sqlite_uri(path), uri=True, isolation_level=None, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
        except BaseException:
            connection.close()
            raise
        return connection

    # Who may only read opens the file anew each time: what it may assume of it changes with the writers.
    pool = sa.QueuePool if os.access(path.parent, os.W_OK) else sa.NullPool
    engine = sa.create_engine(url.set(query={}), creator=connect, poolclass=pool)
    _forget_replaced_files(engine, path)
    return engine


def _forget_replaced_files(engine: sa.Engine, path: Path) -> None:
    """Let no pooled connection outlive its file: somebody may delete a registry and make another in its place."""

    @sa.event.listens_for(engine, "connect")
    def remember(connection: Any, record: Any) -> None:
        record.info["file"] = _identity(path)

    @sa.event.listens_for(engine, "checkout")
    def compare(connection: Any, record: Any, proxy: Any) -> None:
        if record.info["file"] != _identity(path):
            raise sa.exc.DisconnectionError


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _sqlite_uri(path: Path) -> str:
    """Return the file's address for SQLite; a URL alone never creates a file."""
    if os.access(path.parent, os.W_OK):
        return f"{path.as_uri()}?mode=rw"
    # In a directory that may not be written, a write-ahead log can be read, but not made. Where a file that has one
    # is without, no writer has it open: then it may be read as it is.
    log = path.with_name(f"{path.name}-wal")
    logged = _header(path)[18:19] == b"\x02"  # https://www.sqlite.org/fileformat.html#1.3
    return f"{path.as_uri()}?mode=ro{'&immutable=1' if logged and not log.exists() else ''}"


def _header(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(20)
    except OSError:  # SQLite will say what is wrong with it
        return b""


def _begin(connection: sa.Connection) -> None:
    # The driver runs in autocommit mode, so BEGIN is ours. A deferred BEGIN that upgrades to a write
    # ignores the busy timeout; BEGIN IMMEDIATE waits.
    if connection.dialect.name == "sqlite":
        writing = connection.get_execution_options().get(_WRITING, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


@contextmanager
def reading(url: URL) -> Iterator[sa.Connection]:
    """One read-only snapshot: every statement inside sees the same committed state."""
    options: dict[str, Any] = {}
    if url.get_backend_name() == "postgresql":
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with _driver_errors(url), engine_of(url).connect().execution_options(**options) as connection, connection.begin():
        yield connection


@contextmanager
def writing(url: URL) -> Iterator[sa.Connection]:
    """One SQL transaction that commits at the end of the block, or rolls back on any exception."""
    options = {_WRITING: True}
    with _driver_errors(url), engine_of(url).connect().execution_options(**options) as connection, connection.begin():
        yield connection


@contextmanager
def _driver_errors(url: URL) -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise  # the statement's own business
    except (DBAPIError, sqlite3.Error) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise RegistryUnavailableError(f"the registry at {hide_password(url)} cannot be used: {reason}") from error
