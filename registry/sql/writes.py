"""Statements whose results nobody waits for: they are sent together, in their order.

Postgres is not waited for until all are sent: however many there are, a lock is held for one way there and back.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

Row = Mapping[str, Any]

Write = tuple[sa.Executable, Row | Sequence[Row]]
"""A statement, and what it is executed with: once, or once for each."""


def write_all(connection: sa.Connection, writes: Iterable[Write]) -> None:
    """Execute statements that return nothing; raise what one of them does, and whatever came before is rolled back."""
    with _sent_together(connection):
        for statement, rows in writes:
            connection.execute(statement, rows)


@contextmanager
def _sent_together(connection: sa.Connection) -> Iterator[None]:
    """Have Postgres answer at the end of the block; SQLite is no server."""
    if connection.dialect.name != "postgresql":
        yield
        return
    import psycopg  # here, because it is an extra and takes time

    driver: Any = connection.connection.driver_connection
    if not psycopg.Pipeline.is_supported():  # by the libpq that is there: then each is waited for
        yield
        return
    refused: DBAPIError | None = None
    try:
        with driver.pipeline():
            try:
                yield
            except DBAPIError as error:  # kept, since psycopg would warn of what else it hears when it leaves with one
                refused = error
    except psycopg.Error as error:  # it came with the last answers, when no statement of SQLAlchemy's was under way
        if driver.closed:
            connection.invalidate(error)
        if refused is None:
            raise DBAPIError.instance(None, None, error, psycopg.Error, dialect=connection.dialect) from error
    if refused is not None:
        raise refused
