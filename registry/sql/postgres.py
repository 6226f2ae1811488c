"""Postgres: what its connections are told."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

SNAPSHOT: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""The options of a transaction that only reads: all its statements see one state."""


def known_options() -> frozenset[str] | None:
    """Return the names of what an address may tell libpq; None where its driver is not installed."""
    try:
        from psycopg import pq  # here, because it is an extra and takes time
    except ImportError:
        return None  # connecting will say so
    return frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())


def create_engine(url: URL) -> sa.Engine:
    """Return an engine."""
    return sa.create_engine(url)
