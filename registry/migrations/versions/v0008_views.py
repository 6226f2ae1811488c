"""The public SQL views as they read well: keys and axis bounds as text, the hunks of each version, who wrote it.

Revision 0008, after 0007. On Postgres, tables whose rows come and go, or change, are told so.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_RELEASE = "0.1.0"
"""The first that reads this revision."""

_KEYS = tuple(f"k{i}" for i in range(6))
_WIDTHS = {"year": 4, "month": 2, "day": 2, "hour": 2, "minute": 2, "second": 2}

_SECOND = 1_000_000_000
"""In the unit of an axis of times."""

# The share of a table's rows that may be dead, or unknown to the planner, and a number besides. By default, a fifth of
# millions of fragments would be, and who looks for what is live would pass by it.
_VACUUMED = {
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 500,
    "autovacuum_analyze_scale_factor": 0.02,
    "autovacuum_analyze_threshold": 500,
}
_STORAGE = {
    "fragment": _VACUUMED,  # what ends is moved away: deleted here
    "staged": _VACUUMED,  # comes and goes with each write
    "pin": {"fillfactor": 70} | _VACUUMED,  # leases are renewed
    "transaction": {"fillfactor": 80} | _VACUUMED,  # so are these, and the state changes at the end
    "collection": {"fillfactor": 50} | _VACUUMED | {"autovacuum_vacuum_threshold": 50},  # the head, at each commit
}
"""With room on its page, a row that changes stays there, and no index has to be told."""


def upgrade() -> None:
    on_sqlite = op.get_context().dialect.name == "sqlite"
    for view in ("current_partition", "history"):
        op.execute(f"DROP VIEW {view}")
    for statement in (_current_partition, _history, changes):
        op.execute(statement(on_sqlite))
    if not on_sqlite:
        _set_storage()
    columns = sa.column("revision", sa.String()), sa.column("release", sa.Text())
    op.bulk_insert(sa.table("release", *columns), [{"revision": revision, "release": _RELEASE}])


def _set_storage() -> None:
    for table, parameters in _STORAGE.items():
        settings = ", ".join(f"{name} = {value}" for name, value in parameters.items())
        op.execute(f'ALTER TABLE "{table}" SET ({settings})')


# Views


def _current_partition(on_sqlite: bool) -> str:
    """Return the statement of the view with a row per partition of the head.

    All that a WHERE names is grouped by, so that both databases look for it before they sum up; and nothing is that
    would have SQLite sort the fragments, which are in order.
    """
    keys, rows = ", ".join(f"f.{name}" for name in _KEYS), "FILTER (WHERE f.layer_id = 0)"
    same = " AND ".join(f"h.{name} = p.{name}" for name in _KEYS)
    return f"""
        CREATE VIEW current_partition AS
        SELECT p.namespace, p.collection, p.version, {_key_text("p", "p.names", on_sqlite)} AS partition,
               {", ".join(f"p.{name}" for name in _KEYS)}, p.rows, p.parts, p.groups, p.nbytes,
               {_axis_text("p.first", "a.dtype", on_sqlite)} AS axis_min,
               {_axis_text("p.last", "a.dtype", on_sqlite)} AS axis_max,
               (SELECT h.version FROM change h WHERE h.collection_id = p.collection_id AND {same} AND h.layer_id >= 0
                ORDER BY h.version DESC LIMIT 1) AS changed_in
        FROM (
        SELECT n.name AS namespace, c.name AS collection, c.head_version AS version, c.keys AS names, c.axis AS axis,
               f.collection_id, {keys},
               CAST(sum(f.rows) {rows} AS BIGINT) AS rows, count(f.rows) {rows} AS parts,
               count(DISTINCT f.group_uid) AS groups, CAST(sum(f.nbytes) AS BIGINT) AS nbytes,
               min(f.axis_min) {rows} AS first, max(f.axis_max) {rows} AS last
        FROM namespace n
        JOIN collection c ON c.namespace_id = n.id
        JOIN fragment f ON f.collection_id = c.id
        WHERE f.layer_id >= 0
        GROUP BY f.collection_id, {keys}, n.name, c.name, c.head_version, c.keys, c.axis
        HAVING min(f.layer_id) = 0
        ) p
        LEFT JOIN variable a ON a.collection_id = p.collection_id AND a.name = p.axis AND a.end_version IS NULL
        """


def _history(on_sqlite: bool) -> str:
    """Return the statement of the view with a row per version."""
    summary = "v.summary" if on_sqlite else "CAST(v.summary AS JSONB)"
    return f"""
        CREATE VIEW history AS
        SELECT n.name AS namespace, c.name AS collection, v.version, v.committed_at, v.author, v.login,
               v.operation, v.message, {summary} AS summary
        FROM namespace n
        JOIN collection c ON c.namespace_id = n.id
        JOIN version v ON v.collection_id = c.id
        """


def changes(on_sqlite: bool, axis_of: str = "c.id") -> str:
    """Return the statement of the view with a row per hunk; the axis is a variable of the collection of that id."""
    return f"""
        CREATE VIEW changes AS
        SELECT n.name AS namespace, c.name AS collection, h.version,
               CASE WHEN h.layer_id >= 0 THEN {_key_text("h", "c.keys", on_sqlite)} END AS partition,
               {", ".join(f"h.{name}" for name in _KEYS)},
               CASE h.layer_id WHEN 0 THEN 'rows' WHEN -1 THEN 'immutable' ELSE 'variables' END AS what,
               CASE WHEN h.layer_id > 0 THEN ({_variable_names(on_sqlite)}) END AS variables,
               h.row_start, h.removed, h.added,
               {_axis_text("h.axis_min", "a.dtype", on_sqlite)} AS axis_min,
               {_axis_text("h.axis_max", "a.dtype", on_sqlite)} AS axis_max
        FROM namespace n
        JOIN collection c ON c.namespace_id = n.id
        LEFT JOIN variable a ON a.collection_id = {axis_of} AND a.name = c.axis AND a.end_version IS NULL
        JOIN change h ON h.collection_id = c.id
        """


def _variable_names(on_sqlite: bool) -> str:
    """Return the query of the names that the variables of a hunk's layer had at its version, as a JSON array."""
    if on_sqlite:
        made, ids = "json_group_array(d.name)", "json_each(l.variable_ids) e"
    else:
        made, ids = "jsonb_agg(d.name ORDER BY d.id)", "json_array_elements_text(CAST(l.variable_ids AS JSON)) e(value)"
    named = f"""
                SELECT v.id, v.name FROM layer l, {ids}, variable v
                WHERE l.collection_id = h.collection_id AND l.id = h.layer_id
                AND v.collection_id = h.collection_id AND v.id = CAST(e.value AS INTEGER)
                AND v.begin_version <= h.version AND (v.end_version IS NULL OR v.end_version > h.version)
                ORDER BY v.id"""
    return f"SELECT {made} FROM ({named}) d"


def _key_text(row: str, names: str, on_sqlite: bool) -> str:
    """Return the expression of a key as it is spelled everywhere, ``year=2022/month=01``."""
    pairs = (_pair(place, f"{row}.{column}", names, on_sqlite) for place, column in enumerate(_KEYS))
    return f"substr({' || '.join(pairs)}, 2)"


def _pair(place: int, value: str, names: str, on_sqlite: bool) -> str:
    widths = " ".join(f"WHEN '{name}' THEN {width}" for name, width in _WIDTHS.items())
    name = f"json_extract({names}, '$[{place}]')" if on_sqlite else f"(CAST({names} AS JSON) ->> {place})"
    width = f"CASE {name} {widths} ELSE 0 END"
    if on_sqlite:
        text, count = f"printf('/%s=%0*d', {name}, {width}, {value})", f"json_array_length({names})"
    else:
        sign, digits = f"CASE WHEN {value} < 0 THEN '-' ELSE '' END", f"ltrim(CAST({value} AS TEXT), '-')"
        # What is longer would be cut off, and a sign takes a place.
        padded = f"lpad({digits}, greatest(length({digits}), {width} - length({sign})), '0')"
        text, count = f"'/' || {name} || '=' || {sign} || {padded}", f"json_array_length(CAST({names} AS JSON))"
    return f"CASE WHEN {count} > {place} THEN {text} ELSE '' END"


def _axis_text(value: str, dtype: str, on_sqlite: bool) -> str:
    """Return the expression of an axis value as text: of a time, in ISO's form with all nine digits."""
    # Both databases divide towards zero, and what is before 1970 is negative. (A % would be doubled by who renders it.)
    rest = f"({value} - {value} / {_SECOND} * {_SECOND})"
    before = f"CASE WHEN {rest} < 0 THEN 1 ELSE 0 END"
    seconds, rest = f"{value} / {_SECOND} - {before}", f"{rest} + {_SECOND} * {before}"
    if on_sqlite:
        is_time = f"instr({dtype}, 'M8') > 0"
        text = f"strftime('%Y-%m-%dT%H:%M:%S', {seconds}, 'unixepoch') || printf('.%09d', {rest})"
    else:
        is_time = f"strpos({dtype}, 'M8') > 0"
        instant = f"TIMESTAMP '1970-01-01' + ({seconds}) * INTERVAL '1 second'"
        digits = f"lpad(CAST({rest} AS TEXT), 9, '0')"
        text = f"to_char({instant}, 'YYYY-MM-DD\"T\"HH24:MI:SS') || '.' || {digits}"
    return f"CASE WHEN {is_time} THEN {text} ELSE CAST({value} AS TEXT) END"
