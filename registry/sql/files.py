"""The files of an SQLite registry: whether what is open is still what lies at its path.

SQLite goes on with what it has open, whoever deletes or replaces it: what is committed there, nobody finds. And it
takes the write-ahead log that another database has left for its own, and writes that into the file.
"""

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy.exc import InvalidatePoolError

from ..errors import RegistryUnavailableError

Identity = tuple[int, int]


class Connection(sqlite3.Connection):
    """A connection that knows which files it has open, whatever lies in their place later."""

    files: "Files"
    file: Identity | None
    log: Identity | None


class Files:
    """A database's file and its log, as this process finds them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path.with_name(f"{path.name}-wal")
        self._foreign: tuple[Identity | None, int] | None = None
        """A log that belongs to a file which lay here before, and when it was last written."""

    def open(self, address: str, *, timeout: int) -> Connection:
        """Open the file, and its log with it; ``timeout`` is how long to wait for locks, in milliseconds.

        Raises
        ------
        RegistryUnavailableError
            It is gone or empty, or lies beside the log of another one.
        """
        file = identity(self.path)
        self._check(file)
        connection = sqlite3.connect(
            address, uri=True, isolation_level=None, check_same_thread=False, factory=Connection
        )
        try:
            connection.execute(f"PRAGMA busy_timeout={timeout}")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA schema_version")  # which opens the log
            connection.files, connection.file, connection.log = self, file, identity(self.log)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, file: Identity | None) -> None:
        if file is None:
            raise RegistryUnavailableError(
                f"unable to open the registry's file {self.path}: it is not there (any more); put it back, or make a "
                "new registry with connect(url, create=True)"
            )
        if not has_content(self.path):
            raise RegistryUnavailableError(
                f"the registry's file {self.path} is empty: it was truncated, or never filled; put a copy in its "
                "place, or make a new registry with connect(url, create=True)"
            )
        if self._foreign is not None and self._foreign == self._written_log():
            raise RegistryUnavailableError(
                f"the registry's file {self.path} was replaced while it was in use, and the write-ahead log of the old "
                f"one is still beside it: SQLite would write that into the new one. Close all that uses the registry, "
                f"move {self.log} (and -shm) away, to where the old file is if you keep that, and connect again"
            )

    def _written_log(self) -> tuple[Identity | None, int] | None:
        """Return which log there is and when it was last written; None if there is nothing in it."""
        return (identity(self.log), self.log.stat().st_mtime_ns) if has_content(self.log) else None

    def compare(self, connection: Connection, *_: Any) -> None:
        """Have the pool open its connections anew if other files lie at the path now."""
        if self._has_open(connection):
            return
        if identity(self.path) != connection.file and identity(self.log) == connection.log:
            self._foreign = self._written_log()
        raise InvalidatePoolError("the file was replaced")

    def check(self, connection: Connection) -> None:
        """Raise RegistryUnavailableError if a connection writes to what is not at the path any more."""
        if not self._has_open(connection):
            raise RegistryUnavailableError(
                f"the registry's file {self.path} was moved, replaced, deleted or truncated, or its -wal was, while it "
                "was written to: nothing of this is in what lies there now; see what happened to it, and repeat"
            )

    def _has_open(self, connection: Connection) -> bool:
        found = identity(self.path), identity(self.log)
        if connection.log is None:  # there was none yet when it was opened, while another process made the registry
            connection.log = found[1]
        return found == (connection.file, connection.log) and has_content(self.path)


def identity(path: Path) -> Identity | None:
    """Return what tells a file from another one of the same name; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def has_content(path: Path) -> bool:
    """Whether there is a file, and it is not empty."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
