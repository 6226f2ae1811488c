"""What somebody else does to a registry by SQL, in either database."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from registry import Registry
from registry.sql.engine import is_sqlite
from tests import postgres

Row = tuple[Any, ...]

Sql = Callable[..., list[Row]]
"""A function that executes a statement, whose values are marked by ``?``, and returns the rows that it gives."""


@contextmanager
def connected(registry: Registry) -> Iterator[Sql]:
    """Connect to a registry's database as somebody else, in autocommit mode."""
    url = registry._url
    if is_sqlite(url):
        with closing(sqlite3.connect(str(url.database), isolation_level=None, timeout=60)) as connection:
            yield lambda statement, *values: connection.execute(statement, values).fetchall()
    else:
        with postgres.connect(url) as session:
            yield lambda statement, *values: postgres.execute(session, statement, *values)


def run_sql(registry: Registry, statement: str, *values: object) -> list[Row]:
    """Execute one statement by a connection of its own."""
    with connected(registry) as sql:
        return sql(statement, *values)


def run_in_file(path: str | Path, statement: str, *values: object) -> list[Row]:
    """Likewise, in a file of SQLite, whether it is a registry or not."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection:
        return connection.execute(statement, values).fetchall()
