"""Alembic's migrations, and the two questions asked of them: which revision is this, and make it the newest."""

import io
import logging
import os
import threading
import warnings
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, ProgrammingError

from ..errors import RegistryRevisionError, RegistryUnavailableError
from ..sql import postgres
from ..sql.engine import hide_password, sqlstate_of
from ..sql.sqlite import keep_copy

logger = logging.getLogger(__name__)

HEAD_REVISION = "0011"
"""The revision this code reads and writes; a test holds it equal to Alembic's head."""

_alembic = threading.Lock()
"""Alembic keeps its context in a module: one thread at a time."""

_NO_TABLE = "42P01"
"""Postgres' SQLSTATE of a table that is not there."""


def _renew_lock() -> None:
    global _alembic  # a thread that is not there in a forked child may have held it
    _alembic = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_lock)

_alembic_version = sa.table("alembic_version", sa.column("version_num", sa.String))
_newest = sa.select(_alembic_version.c.version_num)  # built once: every read asks it
_release = sa.table("release", sa.column("revision", sa.String), sa.column("release", sa.String))


def revision_of(connection: sa.Connection) -> str | None:
    """Return the database's revision, None where there are no tables of ours."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalar(sa.select(_alembic_version.c.version_num))


def check_revision(connection: sa.Connection) -> None:
    """Refuse a database of another revision.

    Raises
    ------
    RegistryRevisionError
        It is older, and has to be upgraded, or newer, and this code has to be.
    RegistryUnavailableError
        It is not there any more.
    """
    try:
        revision = connection.scalar(_newest)
    except ProgrammingError as error:
        if sqlstate_of(error) != _NO_TABLE:
            raise
        raise RegistryUnavailableError(
            f"the database at {hide_password(connection.engine.url)} has no registry any more: was it put up anew? "
            "Restore it, or create another one with connect(url, create=True)"
        ) from error
    if revision is not None and revision > HEAD_REVISION:
        raise RegistryRevisionError(
            f"the registry has revision {revision} and is newer than this release of intake-zcollection, which needs "
            f"{HEAD_REVISION}; connect(url, create=True) makes no registry older: upgrade intake-zcollection"
            f"{_by_what(connection, revision)}"
        )
    if revision != HEAD_REVISION:
        raise RegistryRevisionError(
            f"the registry has revision {revision} and this code needs {HEAD_REVISION}: "
            "upgrade it with connect(url, create=True), or, if it is the newer one, upgrade intake-zcollection"
        )


def _by_what(connection: sa.Connection, revision: str) -> str:
    """Return what to install for a later revision, if the registry tells; the transaction has to end then."""
    try:
        release = connection.scalar(sa.select(_release.c.release).where(_release.c.revision == revision))
    except DBAPIError:  # there is no such table, or it may not be read
        release = None
    return "" if release is None else f", by pip install 'intake-zcollection>={release}'"


def upgrade(connection: sa.Connection) -> None:
    """Bring the database to :data:`HEAD_REVISION`, inside the connection's transaction, which is :func:`upgrading`.

    A copy of an older database in a file is kept beside it.

    Raises
    ------
    RegistryRevisionError
        It is newer than this code.
    RegistryUnavailableError
        No copy can be kept; nothing is changed then.
    """
    revision = revision_of(connection)
    if connection.dialect.name == "postgresql" and (revision is None or revision < HEAD_REVISION):
        postgres.lock_for_upgrade(connection)
        revision = revision_of(connection)  # another process may have been at it
    if revision is None:
        _run_alembic(connection=connection)
    elif revision > HEAD_REVISION:
        check_revision(connection)
    elif revision < HEAD_REVISION:
        _upgrade_from(revision, connection)


def _upgrade_from(revision: str, connection: sa.Connection) -> None:
    copy = None
    if connection.dialect.name == "sqlite":
        # Or a table that is made anew would take with it the rows of others that refer to it.
        assert not connection.exec_driver_sql("PRAGMA foreign_keys").scalar(), "begin it with upgrading(url)"
        # Nobody else can commit now, so the copy is what is upgraded.
        copy = keep_copy(Path(str(connection.engine.url.database)), f"revision-{revision}")
    kept = "" if copy is None else f"; as it was, it is kept at {copy}, which may be deleted when all is well"
    message = f"the registry is upgraded from revision {revision} to {HEAD_REVISION}{kept}"
    try:
        warnings.warn(message, UserWarning, stacklevel=2)  # before it begins, and to who has not set logging up
        _run_alembic(connection=connection)
    except BaseException:
        if copy is not None:
            copy.unlink()  # it is what the registry still is
        raise
    logger.warning(message)


def render(dialect: str) -> str:
    """Return the SQL of all migrations for a database that is not at hand.

    >>> print(render("postgresql").splitlines()[0])
    BEGIN;
    """
    output = io.StringIO()
    _run_alembic(dialect=dialect, output=output)
    return output.getvalue().lstrip()


def _run_alembic(
    *, connection: sa.Connection | None = None, dialect: str | None = None, output: io.StringIO | None = None
) -> None:
    # Alembic is needed to migrate, not to read: opening a catalog does not pay for its import.
    from alembic import command
    from alembic.config import Config

    config = Config(output_buffer=output)
    config.set_main_option("script_location", "registry:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["dialect"] = dialect
    with _alembic:
        command.upgrade(config, "head", sql=connection is None)
