"""What a database is asked that its SQL has no common word for."""

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from .tables import UTCDateTime


class database_clock(FunctionElement[dt.datetime]):  # noqa: N801 - reads as a SQL function
    """The database's own clock: the only one that machines share. Not the start of the transaction."""

    type = UTCDateTime()
    inherit_cache = True


class database_login(FunctionElement[str]):  # noqa: N801 - reads as a SQL function
    """Who the connection's user is, whatever role was taken since; NULL in SQLite, which knows no users."""

    type = sa.Text()
    inherit_cache = True


def _spell(function: type[FunctionElement[Any]], **texts: str) -> None:
    """Say how a function without arguments is written in each database."""
    for dialect, text in texts.items():
        compiles(function, dialect)(lambda element, compiler, text=text, **options: text)


_spell(database_clock, sqlite="strftime('%Y-%m-%d %H:%M:%f', 'now')", postgresql="clock_timestamp()")
_spell(database_login, sqlite="NULL", postgresql="session_user")
