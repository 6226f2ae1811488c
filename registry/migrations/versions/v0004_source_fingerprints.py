"""Sources have fingerprints, and begin and end with versions, as variables do.

Revision 0004, after 0003. What was known is known from the version on that last brought it, without a fingerprint.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _rebuild()
    else:
        _alter()


def _rebuild() -> None:
    """Copy the rows into a new table: SQLite changes no primary key."""
    op.rename_table("source", "source_0002")
    op.create_table(
        "source",
        sa.Column("collection_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=1024), nullable=False),
        sa.Column("begin_version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("end_version", sa.Integer(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["collection_id"], ["collection.id"], name=op.f("fk_source_collection_id_collection"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("collection_id", "name", "begin_version", name=op.f("pk_source")),
    )
    op.execute(
        "INSERT INTO source (collection_id, name, begin_version) "
        "SELECT collection_id, name, version FROM source_0002 ORDER BY collection_id, name"
    )
    op.drop_table("source_0002")


def _alter() -> None:
    op.alter_column("source", "version", new_column_name="begin_version")
    op.add_column("source", sa.Column("end_version", sa.Integer(), nullable=True))
    op.add_column("source", sa.Column("fingerprint", sa.Text(), nullable=True))
    op.drop_constraint(op.f("pk_source"), "source", type_="primary")
    op.create_primary_key(op.f("pk_source"), "source", ["collection_id", "name", "begin_version"])
