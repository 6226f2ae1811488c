"""Postgres: what its connections are told, and what its errors mean."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from ..errors import InvalidInputError

OPTIONS = ("prepare",)
"""The options of an address that are ours; all others are libpq's."""

KEEPALIVES: dict[str, Any] = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""How soon a server that went away without a word is noticed, in seconds (the last in milliseconds): in a minute.

Without, who waits for an answer would wait for hours. What an address says goes before.
"""

SNAPSHOT: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""The options of a transaction that only reads: all its statements see one state."""

WRITING: dict[str, Any] = {"isolation_level": "READ COMMITTED"}
"""The options of one that writes, whatever is the database's default: what is checked after a lock is what is there."""

LOCK_TIMEOUT = 10.0
"""How many seconds a statement waits for a lock before its transaction lets go of its own."""

_UPGRADE = 0x7A636F6C6C
"""The number of the lock that keeps writers and upgrades apart: of a database, which is the registry's own."""

IDLE_TIMEOUT = 60.0
"""How many seconds a transaction that writes may be without a statement: a process that hangs in one has its locks."""

GIVING_WAY = frozenset({"40001", "40P01", "55P03"})
"""The SQLSTATE of a serialization failure, a deadlock, and a lock that was not to be had: nothing was committed."""

CANCELLED = "57014"
"""The SQLSTATE of a statement that an administrator ended, or a timeout of the server's: nothing was committed."""

READ_ONLY = {
    "25006": "it is a standby, or read-only for you: write to the primary (of several hosts in the address, "
    "?target_session_attrs=read-write chooses it)",
    "42501": "you may read only: ask the registry's owner for INSERT, UPDATE and DELETE on its tables, and USAGE on "
    "its sequences; to make or upgrade them takes the owner",
}
"""What to do, by SQLSTATE, where a database does not let this user write: nothing was committed."""

MISTAKES = ("22", "42")
"""The classes of SQLSTATE of statements and values that are wrong, whatever becomes of the server."""


def check_url(url: URL) -> URL:
    """Return the URL if it can be one; raises InvalidInputError."""
    if url.get_driver_name() != "psycopg":
        raise InvalidInputError(
            f"a registry in Postgres is reached by the driver psycopg, not by {url.get_driver_name()!r}: "
            "write 'postgresql://user@host/database'"
        )
    prepare = url.query.get("prepare", "0")
    if not (isinstance(prepare, str) and prepare.isdecimal() and prepare.isascii()):
        raise InvalidInputError(
            f"prepare={prepare!r} is not a number: it says how often a statement is executed before it is prepared"
        )
    return url


def known_options() -> frozenset[str] | None:
    """Return the names of the options of an address; None where the driver is not installed, which knows most."""
    try:
        from psycopg import pq  # here, because it is an extra and takes time
    except ImportError:
        return None  # connecting will say so
    return frozenset(OPTIONS).union(option.keyword.decode() for option in pq.Conninfo.get_defaults())


def create_engine(url: URL) -> sa.Engine:
    """Return an engine whose pooled connections are tried before they are used: servers and proxies close idle ones."""
    told = {name: value for name, value in KEEPALIVES.items() if name not in url.query}
    # What a session has prepared is not there in the next one that a pooler gives: only where it is asked for.
    prepare = url.query.get("prepare")
    told["prepare_threshold"] = None if prepare is None else int(str(prepare))
    return sa.create_engine(url.difference_update_query(OPTIONS), pool_pre_ping=True, connect_args=told)


def begin_writing(connection: sa.Connection, *, upgrading: bool) -> None:
    """Let this transaction wait for locks no longer than :data:`LOCK_TIMEOUT`, and others for it :data:`IDLE_TIMEOUT`.

    Not the session, which others get from a pooler. Unless it is ``upgrading``, no upgrade is under way, and none
    begins before it ends: until then the tables are those of the revision that it sees.
    """
    driver: Any = connection.connection.driver_connection
    # After a read SQLAlchemy leaves False, and so READ WRITE, which a standby refuses by another code.
    driver.read_only = None
    limits = {"lock_timeout": LOCK_TIMEOUT, "idle_in_transaction_session_timeout": IDLE_TIMEOUT}
    calls = ", ".join(f"set_config('{name}', '{seconds * 1000:.0f}ms', true)" for name, seconds in limits.items())
    lock = "" if upgrading else f", pg_advisory_xact_lock_shared({_UPGRADE})"
    connection.exec_driver_sql(f"SELECT {calls}{lock}")


def lock_for_upgrade(connection: sa.Connection) -> None:
    """Wait for all who write or upgrade, and hold others off until this transaction ends; there may be no table yet."""
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_UPGRADE})")
