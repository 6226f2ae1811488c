"""Writers wait for those that lost too often, and a location is claimed before a collection is recorded there.

Revision 0006, after 0005. On SQLite, no number of a collection or of a transaction is given twice; a server's sequences
never did.
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
    if op.get_context().dialect.name == "sqlite":
        _rebuild("collection", _collection(), ("staged", "garbage"))
        _rebuild("transaction", _transaction(), ())
    _make_claim()
    _make_queue()
    columns = sa.column("revision", sa.String()), sa.column("release", sa.Text())
    op.bulk_insert(sa.table("release", *columns), [{"revision": revision, "release": _RELEASE}])


def _rebuild(table: str, items: list[sa.schema.SchemaItem], others: tuple[str, ...]) -> None:
    """Copy the rows into a new table that never gives a number again, nor one that rows of others name.

    No table is renamed, or SQLite would follow in what refers to it: foreign keys and views name the new one.
    """
    op.execute(f'CREATE TABLE {table}_0005 AS SELECT * FROM "{table}"')
    op.drop_table(table)
    op.create_table(table, *items, sqlite_autoincrement=True)
    columns = ", ".join(item.name for item in items if isinstance(item, sa.Column))
    op.execute(f'INSERT INTO "{table}" ({columns}) SELECT {columns} FROM {table}_0005 ORDER BY id')
    op.drop_table(f"{table}_0005")
    given = [f'SELECT id FROM "{table}"', *(f"SELECT {table}_id FROM {other}" for other in others)]
    op.execute(f"DELETE FROM sqlite_sequence WHERE name = '{table}'")
    op.execute(
        f"INSERT INTO sqlite_sequence (name, seq) SELECT '{table}', coalesce(max(id), 0) FROM ({' UNION '.join(given)})"
    )


def _collection() -> list[sa.schema.SchemaItem]:
    return [
        sa.Column("id", _ID, nullable=False),
        sa.Column("uid", sa.String(length=32), nullable=False),
        sa.Column("namespace_id", _ID, nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("location", "storage_options", "axis", "dimension")),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("keys", "partitioning")),
        sa.Column("zarr_format", sa.SmallInteger(), nullable=False),
        sa.Column("merge", sa.Text(), nullable=False),
        sa.Column("head_version", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("description", "metadata")),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("base_id", _ID, nullable=True),
        sa.Column("base_version", sa.Integer(), nullable=True),
        sa.Column("filters", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('collection', 'view')", name=op.f("ck_collection_kind")),
        sa.ForeignKeyConstraint(["base_id"], ["collection.id"], name=op.f("fk_collection_base_id_collection")),
        sa.ForeignKeyConstraint(["namespace_id"], ["namespace.id"], name=op.f("fk_collection_namespace_id_namespace")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_collection")),
        sa.UniqueConstraint("location", name=op.f("uq_collection_location")),
        sa.UniqueConstraint("namespace_id", "name", name=op.f("uq_collection_namespace_id_name")),
        sa.UniqueConstraint("uid", name=op.f("uq_collection_uid")),
    ]


def _transaction() -> list[sa.schema.SchemaItem]:
    return [
        sa.Column("id", _ID, nullable=False),
        sa.Column("uid", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("author", "message")),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('open', 'committed', 'aborted', 'expired')", name=op.f("ck_transaction_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transaction")),
        sa.UniqueConstraint("uid", name=op.f("uq_transaction_uid")),
    ]


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
