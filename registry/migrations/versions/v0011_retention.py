"""How much garbage there is, and what of it is due: asked of a collection, at each write.

Revision 0011, after 0010. What was garbage before has no number of bytes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_RELEASE = "0.1.0"
"""The first that reads this revision."""


def upgrade() -> None:
    op.add_column("garbage", sa.Column("nbytes", sa.BigInteger(), nullable=True))
    op.create_index("ix_garbage_collection_id_not_before", "garbage", ["collection_id", "not_before"])
    columns = sa.column("revision", sa.String()), sa.column("release", sa.Text())
    op.bulk_insert(sa.table("release", *columns), [{"revision": revision, "release": _RELEASE}])
