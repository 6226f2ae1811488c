"""Alembic's migrations, and the two questions asked of them: which revision is this, and make it the newest."""

import io
import threading

import sqlalchemy as sa

from ..errors import RegistryRevisionError

HEAD_REVISION = "0005"
"""The revision this code reads and writes; a test holds it equal to Alembic's head."""

_alembic = threading.Lock()
"""Alembic keeps its context in a module: one thread at a time."""

_alembic_version = sa.table("alembic_version", sa.column("version_num", sa.String))


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
    """
    revision = connection.scalar(sa.select(_alembic_version.c.version_num))
    if revision != HEAD_REVISION:
        raise RegistryRevisionError(
            f"the registry has revision {revision} and this code needs {HEAD_REVISION}: "
            "upgrade it with connect(url, create=True), or, if it is the newer one, upgrade intake-zcollection"
        )


def upgrade(connection: sa.Connection) -> None:
    """Bring the database to :data:`HEAD_REVISION`, inside the connection's transaction."""
    revision = revision_of(connection)
    if revision is not None and revision > HEAD_REVISION:
        check_revision(connection)
    if revision != HEAD_REVISION:
        _run_alembic(connection=connection)


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
