"""What a view takes of its base, version by version, and what its own variables are computed from.

Revision 0009, after 0008. No view was recorded before. The changes of one are told by the axis of its base.
"""

import sqlalchemy as sa
from alembic import op

from registry.migrations.versions.v0008_views import changes

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_RELEASE = "0.1.0"
"""The first that reads this revision."""

_ROOT = """(
            WITH RECURSIVE under(id, base_id) AS (
                SELECT c.id, c.base_id
                UNION ALL SELECT b.id, b.base_id FROM under JOIN collection b ON b.id = under.base_id
            )
            SELECT under.id FROM under WHERE under.base_id IS NULL
        )"""
"""The collection that is under a view, and under that which it is over: it has the axis."""

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.execute("DROP VIEW changes")
    op.execute(changes(op.get_context().dialect.name == "sqlite", axis_of=_ROOT))
    for name in ("base_version", "filters"):  # they have versions now
        op.drop_column("collection", name)
    op.add_column("version", sa.Column("reads", sa.Text(), nullable=True))
    _create("view_state", sa.Column("pinned_version", sa.Integer()), sa.Column("filters", sa.Text()))
    _create("view_variable", sa.Column("name", sa.Text(), nullable=False), key="base_variable_id")
    _create("view_definition", sa.Column("definition", sa.Text(), nullable=False), key="id")
    op.create_table(
        "view_need",
        sa.Column("base_id", _ID, nullable=False),
        sa.Column("variable_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("view_id", _ID, nullable=False),
        *(
            sa.ForeignKeyConstraint(
                [column], ["collection.id"], name=f"fk_view_need_{column}_collection", ondelete="CASCADE"
            )
            for column in ("base_id", "view_id")
        ),
        sa.PrimaryKeyConstraint("base_id", "variable_id", "view_id", name="pk_view_need"),
    )
    columns = sa.column("revision", sa.String()), sa.column("release", sa.Text())
    op.bulk_insert(sa.table("release", *columns), [{"revision": revision, "release": _RELEASE}])


def _create(table: str, *columns: sa.Column[object], key: str = "") -> None:
    """Make a table of what a view has from a version to another."""
    names = ["collection_id", *([key] if key else []), "begin_version"]
    op.create_table(
        table,
        sa.Column("collection_id", _ID, nullable=False),
        *(sa.Column(name, sa.Integer(), autoincrement=False, nullable=False) for name in names[1:]),
        sa.Column("end_version", sa.Integer(), nullable=True),
        *columns,
        sa.ForeignKeyConstraint(
            ["collection_id"], ["collection.id"], name=f"fk_{table}_collection_id_collection", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(*names, name=f"pk_{table}"),
    )
