"""Which rows have which values: entries of indexes, which are layers, and statistics of values.

Revision 0010, after 0009. No index was recorded before, and no statistic.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_RELEASE = "0.1.0"
"""The first that reads this revision."""

_COLUMNS = 4
"""How many columns an index may have."""


def upgrade() -> None:
    for name, kind in (("definition", sa.Text()), ("begin_version", sa.Integer()), ("end_version", sa.Integer())):
        op.add_column("layer", sa.Column(name, kind, nullable=True))
    op.add_column("variable", sa.Column("statistics", sa.Boolean(), nullable=False, server_default=sa.false()))
    _create_index_entry()
    _create_statistic()
    columns = sa.column("revision", sa.String()), sa.column("release", sa.Text())
    op.bulk_insert(sa.table("release", *columns), [{"revision": revision, "release": _RELEASE}])


def _create_index_entry() -> None:
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    kinds: dict[str, Any] = {"v": sa.BigInteger(), "t": text}
    values = {f"{kind}{place}": type_ for kind, type_ in kinds.items() for place in range(_COLUMNS)}
    numbers = "row_start", "row_stop", "axis_min", "axis_max"
    op.create_table(
        "index_entry",
        sa.Column("collection_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("uid", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("layer_id", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in numbers),
        *(sa.Column(name, type_, nullable=True) for name, type_ in values.items()),
        sa.PrimaryKeyConstraint("collection_id", "uid", "number", name="pk_index_entry"),
        sqlite_with_rowid=False,
    )
    others = [f"v{place}" for place in range(1, _COLUMNS)]
    for name in values:
        there = sa.column(name).is_not(None)
        op.create_index(
            f"ix_index_entry_collection_id_layer_id_{name}",
            "index_entry",
            ["collection_id", "layer_id", name, *(others if name == "v0" else [])],
            sqlite_where=there,
            postgresql_where=there,
        )


def _create_statistic() -> None:
    op.create_table(
        "statistic",
        sa.Column("collection_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("uid", sa.String(length=32), nullable=False),
        sa.Column("variable_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("row_start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("row_stop", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=True) for name in ("low", "high")),
        *(sa.Column(name, sa.Double(), nullable=True) for name in ("low_float", "high_float")),
        sa.Column("missing", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("collection_id", "uid", "variable_id", "row_start", name="pk_statistic"),
        sqlite_with_rowid=False,
    )
