"""Postgres: what its connections are told."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

SNAPSHOT: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""The options of a transaction that only reads: all its statements see one state."""


def create_engine(url: URL) -> sa.Engine:
    """Return an engine."""
    return sa.create_engine(url)
