"""SQLite: the file, its journal, and connections to it."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from ..errors import InvalidInputError, RegistryUnavailableError
from .files import Connection, Files, has_content

_BUSY_TIMEOUT_MS = 60_000


OPTIONS = ("journal",)
"""The options of an address."""


def check_url(url: URL) -> URL:
    """Return the URL with the file's path made absolute; raises InvalidInputError for a registry in memory."""
    if url.host or url.username or url.port:  # SQLAlchemy leaves them out, as "data" of sqlite://data/registry.db
        raise InvalidInputError(
            "the registry's address has a host, and SQLite has files: write three slashes before a relative path, "
            "'sqlite:///data/registry.db', and four with an absolute one, 'sqlite:////data/registry.db'"
        )
    if url.database in (None, "", ":memory:"):
        raise InvalidInputError(
            "a registry in memory could not be shared between threads; write 'sqlite:///path/to/registry.db'"
        )
    if url.query.get("journal", "wal") not in ("wal", "delete"):
        raise InvalidInputError(f"journal={url.query['journal']!r} is neither 'wal', the default, nor 'delete'")
    return url.set(database=str(Path(str(url.database)).expanduser().absolute()))


def file_of(url: URL) -> Path:
    """Return the database's file."""
    return Path(str(url.database))


def is_made(url: URL) -> bool:
    """Whether the file is there, and somebody has begun to fill it."""
    return has_content(file_of(url))


def create_file(url: URL) -> None:
    """Make the database file with write-ahead logging, where there is none.

    Raises
    ------
    RegistryUnavailableError
        It cannot be made, or what is left of another one would be lost.
    """
    path = file_of(url)
    log = Files(path).log
    if has_content(log) and not has_content(path):  # in this order: another process may be making both
        raise RegistryUnavailableError(
            f"the registry at {path} is not created: {log} is left of one whose file was deleted or "
            "truncated, and would be deleted; put that file back, or move the log away to begin anew"
        )
    journal = url.query.get("journal", "wal")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RegistryUnavailableError(f"the registry at {path} cannot be created: {error}") from error
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


def keep_copy(path: Path, mark: str) -> Path:
    """Copy a database beside itself, below its name with a mark (and a number, if that is taken); return the copy.

    It is one state of the database, with what its write-ahead log has, and may be read by whoever may read that.

    Raises
    ------
    RegistryUnavailableError
        There is no place for it, or no permission; nothing is left of it then.
    """
    try:
        copy = _new_file(path, mark)
        try:
            shutil.copymode(path, copy)
            with closing(sqlite3.connect(_address(path), uri=True)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
        except BaseException:
            copy.unlink()
            raise
    except (OSError, sqlite3.Error) as error:
        raise RegistryUnavailableError(
            f"the registry at {path} is not upgraded, since no copy of it can be kept beside it: {error}"
        ) from error
    return copy


def _new_file(path: Path, mark: str) -> Path:
    """Make an empty file, for its owner alone."""
    for number in count(1):
        file = path.with_name(f"{path.name}.{mark}{f'.{number}' if number > 1 else ''}")
        try:
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            continue
        return file
    raise AssertionError  # there are enough numbers


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


def create_engine(url: URL) -> sa.Engine:
    """Return an engine whose connections never make a file, and never outlive it."""
    path = file_of(url)
    files = Files(path)
    # Who may only read opens the file anew each time: what it may assume of it changes with the writers.
    pool = sa.QueuePool if _may_write(path) else sa.NullPool
    engine = sa.create_engine(
        url.set(query={}), creator=lambda: files.open(_address(path), timeout=_BUSY_TIMEOUT_MS), poolclass=pool
    )
    sa.event.listen(engine, "checkout", files.compare)
    return engine


@contextmanager
def references_unchecked(connection: sa.Connection) -> Iterator[None]:
    """Let tables be dropped that others refer to; with checks, their rows would be deleted first, and those of others.

    Around a transaction: inside one, SQLite leaves it as it is.
    """
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def check_references(connection: sa.Connection) -> None:
    """Raise RegistryUnavailableError if a row refers to one that is not there."""
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise RegistryUnavailableError(
            f"the registry at {file_of(connection.engine.url)} is damaged: row {broken[1]} of table {broken[0]} refers "
            f"to one of table {broken[2]} that is not there; it is left as it was, repair it or restore it from a copy"
        )


def in_use(engine: sa.Engine) -> bool:
    """Whether some thread has one of its connections to a file."""
    return engine.dialect.name == "sqlite" and isinstance(engine.pool, sa.QueuePool) and engine.pool.checkedout() > 0


def check_in_place(connection: sa.Connection) -> None:
    """Raise RegistryUnavailableError if a connection to a file writes to what is not at its path any more."""
    opened = connection.connection.dbapi_connection
    if isinstance(opened, Connection):
        opened.files.check(opened)


def is_read_only(error: BaseException) -> bool:
    """Whether SQLite has refused to write a file that it may only read."""
    reason = error.orig if isinstance(error, DBAPIError) else error
    return getattr(reason, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY  # the rest of the code says why


def may_only_read(url: URL) -> str:
    """Return what to do for who wants to write, and may not."""
    return (
        f"you may read only: ask its owner for the right to write {file_of(url)} and the directory that it lies in, "
        "where SQLite keeps its journal"
    )


def _may_write(path: Path) -> bool:
    return os.access(path.parent, os.W_OK) and (os.access(path, os.W_OK) or not path.exists())


def _address(path: Path) -> str:
    """Return the file's address for SQLite; a URL alone never creates a file.

    Raises
    ------
    RegistryUnavailableError
        Who may only read it cannot see what was committed last.
    """
    if _may_write(path):
        return f"{path.as_uri()}?mode=rw"
    # Who may not write can read a write-ahead log, but shall not make one, nor the shared memory beside it. Where these
    # are missing, no writer has the file open: then it may be read as it is.
    log = Files(path).log
    logged = _header(path)[18:19] == b"\x02"  # https://www.sqlite.org/fileformat.html#1.3
    if not logged or path.with_name(f"{path.name}-shm").exists():
        return f"{path.as_uri()}?mode=ro"
    if has_content(log):
        raise RegistryUnavailableError(
            f"the registry at {path} cannot be read: what was committed last is in {log}, which was left, or copied, "
            "without its -shm, and takes the right to write to be read; have somebody who may write there open the "
            "registry once"
        )
    return f"{path.as_uri()}?mode=ro&immutable=1"


def _header(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(20)
    except OSError:  # SQLite will say what is wrong with it
        return b""
