"""Partitions have parts: a fragment is a range of rows of a group, and what each version changed is kept as hunks.

Revision 0005, after 0004. A partition of before is one part, which is the whole of its group. ``uid`` is renamed: what
an older release asks for then fails, where it would have taken one part for the partition.
"""

import json

import sqlalchemy as sa
from alembic import op

from registry.keys import format_key, name_values

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_RELEASE = "0.1.0"
"""The first that reads this revision."""

_KEYS = ("k0", "k1", "k2", "k3", "k4", "k5")
_PARTITION = ("collection_id", *_KEYS)
_PART = (*_PARTITION, "axis_min", "layer_id")
_PRIMARY = {"fragment": _PART, "past_fragment": (*_PART, "end_version")}
_INDEXED = {
    "fragment": ("begin_version", "group_uid"),
    "past_fragment": ("begin_version", "end_version", "group_uid"),
}


def upgrade() -> None:
    op.execute("DROP VIEW current_partition")
    on_sqlite = op.get_context().dialect.name == "sqlite"
    if not on_sqlite:  # a writer that has begun ends before this, and no other one comes between the steps
        op.execute("LOCK TABLE fragment, past_fragment, staged IN ACCESS EXCLUSIVE MODE")
    _make_hunks()
    if on_sqlite:
        _rebuild_fragments()
        _rebuild_staged()
    else:
        _alter_fragments()
        _alter_staged()
    _make_view()
    _make_releases()


# Hunks


def _make_hunks() -> None:
    """Make the table, and the hunks of all versions, from fragments with the columns of before."""
    op.create_table(
        "change",
        sa.Column("collection_id", sa.BigInteger(), autoincrement=False, nullable=False),
        *(sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=False) for name in _KEYS),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("layer_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("row_start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("removed", sa.BigInteger(), nullable=False),
        sa.Column("added", sa.BigInteger(), nullable=False),
        sa.Column("axis_min", sa.BigInteger(), nullable=True),
        sa.Column("axis_max", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint(*_PARTITION, "version", "layer_id", "row_start", name=op.f("pk_change")),
        sqlite_with_rowid=False,
    )
    op.execute(_hunks())
    op.create_index(op.f("ix_change_collection_id_version"), "change", ["collection_id", "version"], unique=False)


def _hunks() -> str:
    """Return the statement: of each partition all rows that end and begin at a version, and layers over kept rows.

    Where a bound is not known of all that ends and begins, it is not known of the hunk: it may be anywhere.
    """
    events = [_event("past_fragment", "end_version", "f.rows", "0", "f.layer_id = 0")]
    for table in ("fragment", "past_fragment"):
        kept = f"f.layer_id > 0 AND NOT ({_rows_begin('fragment')} OR {_rows_begin('past_fragment')})"
        events += [
            _event(table, "begin_version", "0", "f.rows", "f.layer_id = 0"),
            _event(table, "begin_version", "f.rows", "f.rows", kept),
            _event(table, "begin_version", "0", "0", "f.layer_id = -1", bounds="NULL"),
        ]
    hunk = ", ".join((*_PARTITION, "version", "layer_id"))
    low, high = (
        f"CASE WHEN count({bound}) = count(*) THEN {which}({bound}) END"
        for which, bound in (("min", "axis_min"), ("max", "axis_max"))
    )
    return (
        f"INSERT INTO change ({hunk}, row_start, removed, added, axis_min, axis_max) "
        f"SELECT {hunk}, 0, sum(removed), sum(added), {low}, {high} "
        f"FROM ({' UNION ALL '.join(events)}) AS event GROUP BY {hunk} ORDER BY {hunk}"
    )


def _event(table: str, version: str, removed: str, added: str, where: str, bounds: str | None = None) -> str:
    low, high = (f"CAST({bounds or f'f.{name}'} AS BIGINT) AS {name}" for name in ("axis_min", "axis_max"))
    partition = ", ".join(f"f.{name}" for name in _PARTITION)
    return (
        f"SELECT {partition}, f.{version} AS version, f.layer_id, {removed} AS removed, {added} AS added, "
        f"{low}, {high} FROM {table} AS f WHERE {where}"
    )


def _rows_begin(table: str) -> str:
    return f"EXISTS (SELECT 1 FROM {table} AS r WHERE {_same_rows()} AND r.begin_version = f.begin_version)"


def _same_rows() -> str:
    """Return the condition that ``r`` is a rows fragment of the partition of ``f``."""
    return " AND ".join((*(f"r.{name} = f.{name}" for name in _PARTITION), "r.layer_id = 0"))


# Fragments


def _axis_min(live: str, past: str) -> str:
    """Return the expression that names the part of ``f``: its first axis value, 0 for what has none."""
    lived = "r.begin_version <= f.begin_version"
    rows = [
        f"(SELECT max(r.axis_min) FROM {table} AS r WHERE {_same_rows()} AND {condition})"
        for table, condition in ((live, lived), (past, f"{lived} AND r.end_version > f.begin_version"))
    ]
    return f"CASE WHEN f.layer_id < 0 THEN 0 ELSE coalesce(f.axis_min, {', '.join(rows)}, 0) END"


def _rebuild_fragments() -> None:
    """Copy the rows into new tables: SQLite changes no primary key."""
    for table in _PRIMARY:
        op.rename_table(table, f"{table}_0004")
    for table, primary in _PRIMARY.items():
        for name in _INDEXED[table]:
            if name != "group_uid":  # that one is new; the others keep their names when their table is renamed
                op.drop_index(op.f(f"ix_{table}_collection_id_{name}"), f"{table}_0004")
        _create_fragments(table, primary)
        columns = {
            **{name: f"f.{name}" for name in (*primary, "begin_version", "written_version", "schema_version")},
            **{"group_uid": "f.uid", "start": "0", "rows": "f.rows", "group_rows": "f.rows", "packed": "0"},
            **{name: f"f.{name}" for name in ("nbytes", "axis_max", "axis_unique", "transaction_id", "path")},
            "axis_min": _axis_min("fragment_0004", "past_fragment_0004"),
        }
        order = ", ".join(str(1 + list(columns).index(name)) for name in primary)
        op.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) "
            f"SELECT {', '.join(columns.values())} FROM {table}_0004 AS f ORDER BY {order}"
        )
        for name in _INDEXED[table]:
            _create_index(table, name)
    for table in _PRIMARY:
        op.drop_table(f"{table}_0004")


def _create_fragments(table: str, primary: tuple[str, ...]) -> None:
    end = [sa.Column("end_version", sa.Integer(), autoincrement=False, nullable=False)]
    op.create_table(
        table,
        sa.Column("collection_id", sa.BigInteger(), autoincrement=False, nullable=False),
        *(sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=False) for name in _KEYS),
        sa.Column("axis_min", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("layer_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("begin_version", sa.Integer(), nullable=False),
        *(end if "end_version" in primary else ()),
        sa.Column("written_version", sa.Integer(), nullable=False),
        sa.Column("schema_version", sa.Integer(), nullable=False),
        sa.Column("group_uid", sa.String(length=32), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("group_rows", sa.BigInteger(), nullable=False),
        sa.Column("packed", sa.Boolean(), nullable=False),
        sa.Column("base_version", sa.Integer(), nullable=True),
        sa.Column("base_row", sa.BigInteger(), nullable=True),
        sa.Column("nbytes", sa.BigInteger(), nullable=False),
        sa.Column("axis_max", sa.BigInteger(), nullable=True),
        sa.Column("axis_unique", sa.Boolean(), nullable=True),
        sa.Column("transaction_id", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint(*primary, name=op.f(f"pk_{table}")),
        sqlite_with_rowid=False,
    )


def _alter_fragments() -> None:
    for table in _PRIMARY:
        op.alter_column(table, "uid", new_column_name="group_uid")
        for name, type_, value in (("start", sa.BigInteger(), "0"), ("packed", sa.Boolean(), "false")):
            op.add_column(table, sa.Column(name, type_, server_default=sa.text(value), nullable=False))
            op.alter_column(table, name, server_default=None)
        op.add_column(table, sa.Column("group_rows", sa.BigInteger(), nullable=True))
        op.add_column(table, sa.Column("base_version", sa.Integer(), nullable=True))
        op.add_column(table, sa.Column("base_row", sa.BigInteger(), nullable=True))
    for table, primary in _PRIMARY.items():
        named = _axis_min("fragment", "past_fragment")
        op.execute(f"UPDATE {table} AS f SET group_rows = f.rows, axis_min = {named}")
        op.alter_column(table, "group_rows", nullable=False)
        op.alter_column(table, "axis_min", nullable=False)
        op.drop_constraint(op.f(f"pk_{table}"), table, type_="primary")
        op.create_primary_key(op.f(f"pk_{table}"), table, list(primary))
        _create_index(table, "group_uid")


def _create_index(table: str, name: str) -> None:
    op.create_index(op.f(f"ix_{table}_collection_id_{name}"), table, ["collection_id", name], unique=False)


# Intents and garbage


def _rebuild_staged() -> None:
    op.rename_table("staged", "staged_0004")
    op.create_table(
        "staged",
        sa.Column("transaction_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("uid", sa.String(length=32), nullable=False),
        sa.Column("collection_id", sa.BigInteger(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("keep", sa.String(length=32), nullable=True),
        sa.Column("again_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["transaction_id"],
            ["transaction.id"],
            name=op.f("fk_staged_transaction_id_transaction"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("transaction_id", "uid", name=op.f("pk_staged")),
    )
    _insert_staged(_standing_alone("staged_0004"))
    op.drop_table("staged_0004")
    op.drop_table("garbage")  # nothing has ever been written to it
    op.create_table(
        "garbage",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("collection_id", sa.BigInteger(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_garbage")),
    )


def _alter_staged() -> None:
    rows = _standing_alone("staged")
    op.execute("DELETE FROM staged")
    for name in (*_KEYS, "layer_id"):
        op.drop_column("staged", name)
    for name in ("location", "options", "path"):
        op.add_column("staged", sa.Column(name, sa.Text(), nullable=False))
    op.add_column("staged", sa.Column("keep", sa.String(length=32), nullable=True))
    op.add_column("staged", sa.Column("again_at", sa.DateTime(timezone=True), nullable=True))
    _insert_staged(rows)
    for name in ("location", "options"):  # nothing has ever been written to it
        op.add_column("garbage", sa.Column(name, sa.Text(), nullable=False))


def _standing_alone(table: str) -> list[dict[str, object]]:
    """Return the intents of collections that there are, with their whole paths.

    Of a database that is not at hand there are none: what is rendered makes one from the first revision on.
    """
    if op.get_context().as_sql:
        return []
    staged = sa.table(table, *map(sa.column, ("transaction_id", "uid", "collection_id", *_KEYS, "layer_id")))
    collection = sa.table("collection", *map(sa.column, ("id", "location", "storage_options", "keys")))
    query = sa.select(staged, *(collection.c[name] for name in ("location", "storage_options", "keys")))
    rows = op.get_bind().execute(query.join_from(staged, collection, collection.c.id == staged.c.collection_id))
    return [
        {
            "transaction_id": row.transaction_id,
            "uid": row.uid,
            "collection_id": row.collection_id,
            "location": row.location,
            "options": row.storage_options,
            "path": _path(json.loads(row._mapping["keys"]), row),
        }
        for row in rows
    ]


def _path(names: list[str], row: sa.Row[*tuple[object, ...]]) -> str:
    if row.layer_id == -1:
        return f"immutable/{row.uid}"
    key = format_key(name_values(names, [row._mapping[name] for name in _KEYS[: len(names)]]))
    return f"{key}/{row.uid}"


def _insert_staged(rows: list[dict[str, object]]) -> None:
    columns = ("transaction_id", "uid", "collection_id", "location", "options", "path")
    if rows:
        op.bulk_insert(sa.table("staged", *map(sa.column, columns)), rows)


# Views and releases


def _make_view() -> None:
    """Make the view again, with one row per partition: ``uid`` is the group of its rows, NULL if there are several."""
    keys = ", ".join(f"f.{name}" for name in _KEYS)
    rows = "FILTER (WHERE f.layer_id = 0)"
    op.execute(
        f"""
        CREATE VIEW current_partition AS
        SELECT n.name AS namespace, c.name AS collection, c.head_version AS version, {keys},
               CAST(sum(f.rows) {rows} AS BIGINT) AS rows, CAST(sum(f.nbytes) {rows} AS BIGINT) AS nbytes,
               min(f.axis_min) {rows} AS axis_min, max(f.axis_max) {rows} AS axis_max,
               max(f.begin_version) {rows} AS changed_in,
               CASE WHEN count(DISTINCT f.group_uid) {rows} = 1 THEN min(f.group_uid) {rows} END AS uid,
               count(*) {rows} AS parts, count(DISTINCT f.group_uid) AS groups
        FROM fragment f
        JOIN collection c ON c.id = f.collection_id
        JOIN namespace n ON n.id = c.namespace_id
        WHERE f.layer_id >= 0
        GROUP BY n.name, c.name, c.head_version, f.collection_id, {keys}
        HAVING min(f.layer_id) = 0
        """
    )


def _make_releases() -> None:
    op.create_table(
        "release",
        sa.Column("revision", sa.String(length=32), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_release")),
    )
    columns = sa.column("revision", sa.String()), sa.column("release", sa.Text())
    op.bulk_insert(sa.table("release", *columns), [{"revision": revision, "release": _RELEASE}])
