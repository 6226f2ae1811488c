"""Connections: URLs, one engine per URL and process, and the two kinds of SQL transaction.

``reading`` is one snapshot, ``writing`` takes its locks at once. Everything that a database driver raises
leaves here as an error of ours.
"""

import datetime as dt
import json
import math
import os
import sqlite3
from collections.abc import Iterator, Mapping
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
    except (ArgumentError, NoSuchModuleError):
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
        parsed = parsed.set(database=str(Path(str(parsed.database)).expanduser().absolute()))
    return parsed


def hide_password(url: URL) -> str:
    """Return the URL as it may be shown."""
    return url.render_as_string(hide_password=True)


def show_url(url: str) -> str:
    """Return a URL as given, but for its password.

    >>> show_url("postgresql://me:secret@host/db"), show_url("env:ZC_REGISTRY")
    ('postgresql://me:***@host/db', 'env:ZC_REGISTRY')
    """
    try:
        return url if url.startswith("env:") else hide_password(make_url(url))
    except ArgumentError:
        return "***"


def engine_of(url: URL) -> sa.Engine:
    """Return this process's engine for ``url``; a forked process gets its own."""
    key = (url.render_as_string(hide_password=False), os.getpid())
    if key not in _engines:
        _engines[key] = _create_sqlite_engine(url) if url.get_backend_name() == "sqlite" else _create_engine(url)
        sa.event.listen(_engines[key], "begin", _begin)
    return _engines[key]


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
            (mode,) = connection.execute(f"PRAGMA journal_mode={'delete' if journal == 'delete' else 'wal'}").fetchone()
        finally:
            connection.close()
    if mode != journal:
        raise RegistryUnavailableError(
            f"the file system of {path} does not take SQLite's write-ahead log (a network file system?): "
            "add '?journal=delete' to the URL for use from one machine, or keep the registry in Postgres"
        )


def _create_sqlite_engine(url: URL) -> sa.Engine:
    def connect() -> sqlite3.Connection:
        # mode=rw: a URL alone never creates a file.
        connection = sqlite3.connect(
            f"{Path(str(url.database)).as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
        )
        connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    return _create_engine(url.set(query={}), creator=connect)


def _create_engine(url: URL, **options: Any) -> sa.Engine:
    return sa.create_engine(url, json_serializer=_to_json_text, json_deserializer=_from_json_text, **options)


def _to_json_text(value: Any) -> str:
    """JSON has no word for NaN and the infinities, which are common in attributes; Postgres refuses them."""
    return json.dumps(_tag_non_finite(value), allow_nan=False)


def _tag_non_finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return {"$float": str(value)}
        case Mapping():
            return {name: _tag_non_finite(item) for name, item in value.items()}
        case list() | tuple():
            return [_tag_non_finite(item) for item in value]
    return value


def _from_json_text(text: str) -> Any:
    return json.loads(text, object_hook=lambda value: float(value["$float"]) if value.keys() == {"$float"} else value)


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
