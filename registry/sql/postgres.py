"""Postgres: what its connections are told."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

SNAPSHOT: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""The options of a transaction that only reads: all its statements see one state."""

WRITING: dict[str, Any] = {"isolation_level": "READ COMMITTED"}
"""The options of one that writes, whatever is the database's default: what is checked after a lock is what is there."""

LOCK_TIMEOUT = 10.0
"""How many seconds a statement waits for a lock before its transaction lets go of its own."""

GIVING_WAY = frozenset({"40001", "40P01", "55P03"})
"""The SQLSTATE of a serialization failure, a deadlock, and a lock that was not to be had: nothing was committed."""


def known_options() -> frozenset[str] | None:
    """Return the names of what an address may tell libpq; None where its driver is not installed."""
    try:
        from psycopg import pq  # here, because it is an extra and takes time
    except ImportError:
        return None  # connecting will say so
    return frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())


def create_engine(url: URL) -> sa.Engine:
    """Return an engine whose pooled connections are tried before they are used: servers and proxies close idle ones."""
    return sa.create_engine(url, pool_pre_ping=True)


def limit_waits(connection: sa.Connection) -> None:
    """Let statements of this transaction wait for locks no longer than :data:`LOCK_TIMEOUT`."""
    # Not for the session, which others get from a pooler.
    connection.exec_driver_sql("SELECT set_config('lock_timeout', %s, true)", (f"{LOCK_TIMEOUT * 1000:.0f}ms",))
