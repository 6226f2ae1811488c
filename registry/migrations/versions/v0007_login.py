"""Who wrote, as the database or the operating system knows them, beside who they said they are.

Revision 0007, after 0006. Of what earlier releases wrote, it is not known.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_RELEASE = "0.1.0"
"""The first that reads this revision."""


def upgrade() -> None:
    for table in ("transaction", "version"):
        op.add_column(table, sa.Column("login", sa.Text(), nullable=True))
    columns = sa.column("revision", sa.String()), sa.column("release", sa.Text())
    op.bulk_insert(sa.table("release", *columns), [{"revision": revision, "release": _RELEASE}])
