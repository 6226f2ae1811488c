"""Writers wait for those that lost too often, and a location is claimed before a collection is recorded there.

Revision 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_RELEASE = "0.1.0"
"""The first that reads this revision."""

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _make_claim()
    _make_queue()
    columns = sa.column("revision", sa.String()), sa.column("release", sa.Text())
    op.bulk_insert(sa.table("release", *columns), [{"revision": revision, "release": _RELEASE}])


def _make_claim() -> None:
    op.create_table(
        "claim",
        sa.Column("id", _ID, nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("transaction_id", _ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["transaction_id"], ["transaction.id"], name=op.f("fk_claim_transaction_id_transaction")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_claim")),
        sa.UniqueConstraint("location", name=op.f("uq_claim_location")),
    )


def _make_queue() -> None:
    op.create_table(
        "queue",
        sa.Column("id", _ID, nullable=False),
        sa.Column("collection_id", _ID, nullable=False),
        *(sa.Column(f"k{i}", sa.BigInteger(), nullable=True) for i in range(6)),
        sa.Column("axis_min", sa.BigInteger(), nullable=True),
        sa.Column("axis_max", sa.BigInteger(), nullable=True),
        sa.Column("transaction_id", _ID, nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"], ["collection.id"], name=op.f("fk_queue_collection_id_collection"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["transaction_id"], ["transaction.id"], name=op.f("fk_queue_transaction_id_transaction"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_queue")),
    )
    op.create_index(op.f("ix_queue_collection_id"), "queue", ["collection_id"], unique=False)
    op.create_index(op.f("ix_queue_transaction_id"), "queue", ["transaction_id"], unique=False)
