"""The first tables: collections and schemas, fragments, versions, transactions, tags; and the public SQL views.

Revision 0001. A migration is a historical record: it repeats the tables as they were, and is never edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "fragment",
        sa.Column("collection_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("k0", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("k1", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("k2", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("k3", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("k4", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("k5", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("layer_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("begin_version", sa.Integer(), nullable=False),
        sa.Column("written_version", sa.Integer(), nullable=False),
        sa.Column("schema_version", sa.Integer(), nullable=False),
        sa.Column("uid", sa.String(length=32), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("nbytes", sa.BigInteger(), nullable=False),
        sa.Column("axis_min", sa.BigInteger(), nullable=True),
        sa.Column("axis_max", sa.BigInteger(), nullable=True),
        sa.Column("transaction_id", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint(
            "collection_id", "k0", "k1", "k2", "k3", "k4", "k5", "layer_id", name=op.f("pk_fragment")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_fragment_collection_id_begin_version"), "fragment", ["collection_id", "begin_version"], unique=False
    )
    op.create_table(
        "garbage",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("collection_id", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_garbage")),
    )
    op.create_table(
        "namespace",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_namespace")),
        sa.UniqueConstraint("name", name=op.f("uq_namespace_name")),
    )
    op.create_table(
        "past_fragment",
        sa.Column("collection_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("k0", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("k1", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("k2", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("k3", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("k4", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("k5", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("layer_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("begin_version", sa.Integer(), nullable=False),
        sa.Column("end_version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("written_version", sa.Integer(), nullable=False),
        sa.Column("schema_version", sa.Integer(), nullable=False),
        sa.Column("uid", sa.String(length=32), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("nbytes", sa.BigInteger(), nullable=False),
        sa.Column("axis_min", sa.BigInteger(), nullable=True),
        sa.Column("axis_max", sa.BigInteger(), nullable=True),
        sa.Column("transaction_id", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint(
            "collection_id",
            "k0",
            "k1",
            "k2",
            "k3",
            "k4",
            "k5",
            "layer_id",
            "end_version",
            name=op.f("pk_past_fragment"),
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_past_fragment_collection_id_begin_version"),
        "past_fragment",
        ["collection_id", "begin_version"],
        unique=False,
    )
    op.create_index(
        op.f("ix_past_fragment_collection_id_end_version"),
        "past_fragment",
        ["collection_id", "end_version"],
        unique=False,
    )
    op.create_table(
        "transaction",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("uid", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('open', 'committed', 'aborted', 'expired')", name=op.f("ck_transaction_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transaction")),
        sa.UniqueConstraint("uid", name=op.f("uq_transaction_uid")),
    )
    op.create_table(
        "collection",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("uid", sa.String(length=32), nullable=False),
        sa.Column("namespace_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("storage_options", sa.Text(), nullable=False),
        sa.Column("axis", sa.Text(), nullable=False),
        sa.Column("dimension", sa.Text(), nullable=False),
        sa.Column("keys", sa.Text(), nullable=False),
        sa.Column("partitioning", sa.Text(), nullable=False),
        sa.Column("zarr_format", sa.SmallInteger(), nullable=False),
        sa.Column("merge", sa.Text(), nullable=False),
        sa.Column("head_version", sa.Integer(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("base_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("base_version", sa.Integer(), nullable=True),
        sa.Column("filters", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('collection', 'view')", name=op.f("ck_collection_kind")),
        sa.ForeignKeyConstraint(["base_id"], ["collection.id"], name=op.f("fk_collection_base_id_collection")),
        sa.ForeignKeyConstraint(["namespace_id"], ["namespace.id"], name=op.f("fk_collection_namespace_id_namespace")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_collection")),
        sa.UniqueConstraint("location", name=op.f("uq_collection_location")),
        sa.UniqueConstraint("namespace_id", "name", name=op.f("uq_collection_namespace_id_name")),
        sa.UniqueConstraint("uid", name=op.f("uq_collection_uid")),
    )
    op.create_table(
        "staged",
        sa.Column("transaction_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("uid", sa.String(length=32), nullable=False),
        sa.Column("collection_id", sa.BigInteger(), nullable=False),
        sa.Column("k0", sa.BigInteger(), nullable=False),
        sa.Column("k1", sa.BigInteger(), nullable=False),
        sa.Column("k2", sa.BigInteger(), nullable=False),
        sa.Column("k3", sa.BigInteger(), nullable=False),
        sa.Column("k4", sa.BigInteger(), nullable=False),
        sa.Column("k5", sa.BigInteger(), nullable=False),
        sa.Column("layer_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["transaction_id"],
            ["transaction.id"],
            name=op.f("fk_staged_transaction_id_transaction"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("transaction_id", "uid", name=op.f("pk_staged")),
    )
    op.create_table(
        "tag",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("namespace_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(["namespace_id"], ["namespace.id"], name=op.f("fk_tag_namespace_id_namespace")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tag")),
        sa.UniqueConstraint("namespace_id", "name", name=op.f("uq_tag_namespace_id_name")),
    )
    op.create_table(
        "dataset_attributes",
        sa.Column("collection_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("begin_version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("end_version", sa.Integer(), nullable=True),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collection.id"],
            name=op.f("fk_dataset_attributes_collection_id_collection"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("collection_id", "begin_version", name=op.f("pk_dataset_attributes")),
    )
    op.create_table(
        "layer",
        sa.Column("collection_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("variable_ids", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"], ["collection.id"], name=op.f("fk_layer_collection_id_collection"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("collection_id", "id", name=op.f("pk_layer")),
    )
    op.create_table(
        "pin",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("collection_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("transaction_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"], ["collection.id"], name=op.f("fk_pin_collection_id_collection"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["transaction_id"], ["transaction.id"], name=op.f("fk_pin_transaction_id_transaction"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pin")),
    )
    op.create_index(op.f("ix_pin_collection_id"), "pin", ["collection_id"], unique=False)
    op.create_index(op.f("ix_pin_transaction_id"), "pin", ["transaction_id"], unique=False)
    op.create_table(
        "tag_member",
        sa.Column("tag_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("collection_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"],
            ["collection.id"],
            name=op.f("fk_tag_member_collection_id_collection"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tag_id"], ["tag.id"], name=op.f("fk_tag_member_tag_id_tag"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tag_id", "collection_id", name=op.f("pk_tag_member")),
    )
    op.create_table(
        "variable",
        sa.Column("collection_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("begin_version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("end_version", sa.Integer(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("stored_name", sa.Text(), nullable=False),
        sa.Column("dtype", sa.Text(), nullable=False),
        sa.Column("dimensions", sa.Text(), nullable=False),
        sa.Column("sizes", sa.Text(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("encoding", sa.Text(), nullable=False),
        sa.Column("fill_value", sa.Text(), nullable=True),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.CheckConstraint("role IN ('coordinate', 'data')", name=op.f("ck_variable_role")),
        sa.ForeignKeyConstraint(
            ["collection_id"], ["collection.id"], name=op.f("fk_variable_collection_id_collection"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("collection_id", "id", "begin_version", name=op.f("pk_variable")),
    )
    op.create_table(
        "version",
        sa.Column("collection_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("transaction_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("base_version", sa.Integer(), nullable=True),
        sa.Column("committed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("operation", sa.String(length=32), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["collection_id"], ["collection.id"], name=op.f("fk_version_collection_id_collection"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["transaction_id"], ["transaction.id"], name=op.f("fk_version_transaction_id_transaction")
        ),
        sa.PrimaryKeyConstraint("collection_id", "version", name=op.f("pk_version")),
    )
    op.execute(
        """
        CREATE VIEW current_partition AS
        SELECT n.name AS namespace, c.name AS collection, c.head_version AS version,
               f.k0, f.k1, f.k2, f.k3, f.k4, f.k5,
               f.rows, f.nbytes, f.axis_min, f.axis_max, f.begin_version AS changed_in, f.uid
        FROM fragment f
        JOIN collection c ON c.id = f.collection_id
        JOIN namespace n ON n.id = c.namespace_id
        WHERE f.layer_id = 0
        """
    )
    op.execute(
        """
        CREATE VIEW history AS
        SELECT n.name AS namespace, c.name AS collection, v.version, v.committed_at, v.author,
               v.operation, v.message, v.summary
        FROM version v
        JOIN collection c ON c.id = v.collection_id
        JOIN namespace n ON n.id = c.namespace_id
        """
    )
