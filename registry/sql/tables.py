"""The tables: collections, their schemas, their fragments through all versions, and the writes under way.

Two tables hold fragments. ``fragment`` has the live ones, and its primary key makes the database itself
guarantee one live fragment per part and layer; ``past_fragment`` has those that a later version closed.
Version ``v`` is the live rows that began at or before ``v`` and the past rows that were alive at ``v``.
A part of a partition is named by its first axis value, so the order of the key is the reading order; its layers
carry the same. ``change`` has the hunks: which rows of a partition a version removed, and how many it put there.
None of the three has foreign keys: a bulk insert would pay for each row.
"""

import datetime as dt
import json
import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    column,
    false,
)

from ..keys import MAX_KEYS
from ..records import MAX_COLUMNS, MAX_SOURCE_NAME


class UTCDateTime(TypeDecorator[dt.datetime]):
    """Aware datetimes in UTC. SQLite keeps no time zone, so there they are stored without it."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Convert to UTC, and drop the zone where the database has none."""
        if value is None:
            return None
        value = value.astimezone(dt.UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Return an aware datetime in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


class Document(TypeDecorator[Any]):
    """JSON in a text column, with the numbers that JSON lacks: NaN and the infinities, common in attributes.

    Text, because SQLite takes a column declared JSON for numeric, and makes 1000 of a stored ``1000.0``; and because
    Postgres refuses NaN in its own type, which a cast gives where it is wanted (``summary::json``).
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        """Return the text of a value."""
        return json.dumps(_escape(value), allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Return the value of a text."""
        return None if value is None else json.loads(value, object_hook=_unescape)


def _escape(value: Any) -> Any:
    """Write NaN as ``{"$float": "nan"}``, and a name that begins with ``$`` with one more."""
    match value:
        case float() if not math.isfinite(value):
            return {"$float": str(value)}
        case Mapping():
            return {f"${name}" if name.startswith("$") else name: _escape(item) for name, item in value.items()}
        case list() | tuple():
            return [_escape(item) for item in value]
    return value


def _unescape(value: dict[str, Any]) -> Any:
    if value.keys() == {"$float"}:
        return float(value["$float"])
    return {name.removeprefix("$"): item for name, item in value.items()}


# SQLite numbers rows by itself only for a column declared INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[Any]:
    return Column("id", _Id, primary_key=True)


def _collection_id(**options: Any) -> Column[Any]:
    return Column("collection_id", ForeignKey("collection.id", ondelete="CASCADE"), nullable=False, **options)


def _lives() -> list[Column[Any]]:
    """Return the columns of what a collection has from a version on, to another (not included; NULL for no end)."""
    return [
        Column("begin_version", Integer, primary_key=True, autoincrement=False),
        Column("end_version", Integer),
    ]


def _keys(**options: Any) -> list[Column[Any]]:
    return [Column(f"k{i}", BigInteger, nullable=False, **options) for i in range(MAX_KEYS)]


namespace = Table("namespace", metadata, _id(), Column("name", String(128), nullable=False, unique=True))

collection = Table(
    "collection",
    metadata,
    _id(),
    Column("uid", String(32), nullable=False, unique=True),
    Column("namespace_id", ForeignKey("namespace.id"), nullable=False),
    Column("name", String(128), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("location", Text, nullable=False, unique=True),
    Column("storage_options", Document, nullable=False),
    Column("axis", Text, nullable=False),
    Column("dimension", Text, nullable=False),
    Column("keys", Document, nullable=False),
    Column("partitioning", Document, nullable=False),
    Column("zarr_format", SmallInteger, nullable=False),
    Column("merge", Text, nullable=False),
    Column("head_version", Integer, nullable=False),
    Column("description", Text, nullable=False),
    Column("metadata", Document, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    # Of views only; NULL once the base was dropped under them.
    Column("base_id", ForeignKey("collection.id")),
    UniqueConstraint("namespace_id", "name"),
    CheckConstraint("kind IN ('collection', 'view')", name="kind"),
    sqlite_autoincrement=True,  # no number is given twice: intents and garbage still name it when its row is gone
)

variable = Table(
    "variable",
    metadata,
    _collection_id(primary_key=True),
    Column("id", Integer, primary_key=True, autoincrement=False),
    *_lives(),
    Column("name", Text, nullable=False),
    Column("stored_name", Text, nullable=False),
    Column("dtype", Text, nullable=False),
    Column("dimensions", Document, nullable=False),
    Column("sizes", Document, nullable=False),
    Column("role", String(16), nullable=False),
    Column("encoding", Document, nullable=False),
    Column("fill_value", Document),
    Column("attributes", Document, nullable=False),
    Column("statistics", Boolean, nullable=False, server_default=false()),
    CheckConstraint("role IN ('coordinate', 'data')", name="role"),
)

dataset_attributes = Table(
    "dataset_attributes",
    metadata,
    _collection_id(primary_key=True),
    *_lives(),
    Column("attributes", Document, nullable=False),
)

layer = Table(
    "layer",
    metadata,
    _collection_id(primary_key=True),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("variable_ids", Document, nullable=False),
    # Of an index, whose fragments have entries instead of values: what it is, and from which version on to which.
    Column("definition", Document),
    Column("begin_version", Integer),
    Column("end_version", Integer),
)


def _fragment_columns(*end: Column[Any]) -> list[Column[Any]]:
    """Return the columns of a fragment; ``end`` is when it ended, of one that did."""
    return [
        Column("collection_id", BigInteger, primary_key=True, autoincrement=False),
        *_keys(primary_key=True, autoincrement=False),
        Column("axis_min", BigInteger, primary_key=True, autoincrement=False),
        Column("layer_id", Integer, primary_key=True, autoincrement=False),
        Column("begin_version", Integer, nullable=False),
        *end,
        Column("written_version", Integer, nullable=False),
        Column("schema_version", Integer, nullable=False),
        # The group may have rows of other fragments too: these are its rows from start on.
        Column("group_uid", String(32), nullable=False),
        Column("start", BigInteger, nullable=False),
        Column("rows", BigInteger, nullable=False),
        Column("group_rows", BigInteger, nullable=False),
        Column("packed", Boolean, nullable=False),
        # Of views only, whose fragments are named by the row of the base that they begin at: axis_min has it too.
        Column("base_version", Integer),
        Column("base_row", BigInteger),
        Column("nbytes", BigInteger, nullable=False),
        Column("axis_max", BigInteger),
        Column("axis_unique", Boolean),
        Column("transaction_id", BigInteger, nullable=False),
        Column("path", Text),
    ]


def _entry_values() -> list[Column[Any]]:
    """Return the columns of the values of an entry: integers and times, or text, compared by its code points."""
    text = Text().with_variant(Text(collation="C"), "postgresql")
    return [
        *(Column(f"v{place}", BigInteger) for place in range(MAX_COLUMNS)),
        *(Column(f"t{place}", text) for place in range(MAX_COLUMNS)),
    ]


def _index_of_values(name: str) -> Index:
    """Return an index of a column, of the rows that use it; of the first one with all others of integers after it."""
    used = column(name).is_not(None)
    others = [f"v{place}" for place in range(1, MAX_COLUMNS)] if name == "v0" else []
    naming = f"ix_index_entry_collection_id_layer_id_{name}"
    return Index(naming, "collection_id", "layer_id", name, *others, sqlite_where=used, postgresql_where=used)


fragment = Table(
    "fragment",
    metadata,
    *_fragment_columns(),
    Index(None, "collection_id", "begin_version"),
    Index(None, "collection_id", "group_uid"),
    sqlite_with_rowid=False,
)

past_fragment = Table(
    "past_fragment",
    metadata,
    *_fragment_columns(Column("end_version", Integer, primary_key=True, autoincrement=False)),
    Index(None, "collection_id", "begin_version"),
    Index(None, "collection_id", "end_version"),
    Index(None, "collection_id", "group_uid"),
    sqlite_with_rowid=False,
)

# Which rows of an index's fragment have which values.
index_entry = Table(
    "index_entry",
    metadata,
    Column("collection_id", BigInteger, primary_key=True, autoincrement=False),
    Column("uid", String(32), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("layer_id", Integer, nullable=False),
    Column("row_start", BigInteger, nullable=False),
    Column("row_stop", BigInteger, nullable=False),
    Column("axis_min", BigInteger, nullable=False),
    Column("axis_max", BigInteger, nullable=False),
    *_entry_values(),
    *(_index_of_values(each.name) for each in _entry_values()),
    sqlite_with_rowid=False,
)

# What is known of the values of a group's rows: no value lies outside, and so many are missing.
statistic = Table(
    "statistic",
    metadata,
    Column("collection_id", BigInteger, primary_key=True, autoincrement=False),
    Column("uid", String(32), primary_key=True),
    Column("variable_id", Integer, primary_key=True, autoincrement=False),
    Column("row_start", BigInteger, primary_key=True, autoincrement=False),
    Column("row_stop", BigInteger, nullable=False),
    # Integers and times, or floats; NULL where all are missing.
    Column("low", BigInteger),
    Column("high", BigInteger),
    Column("low_float", Double),
    Column("high_float", Double),
    Column("missing", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

change = Table(
    "change",
    metadata,
    Column("collection_id", BigInteger, primary_key=True, autoincrement=False),
    *_keys(primary_key=True, autoincrement=False),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("layer_id", Integer, primary_key=True, autoincrement=False),
    # Counted in the partition as it was before the version.
    Column("row_start", BigInteger, primary_key=True, autoincrement=False),
    Column("removed", BigInteger, nullable=False),
    Column("added", BigInteger, nullable=False),
    # NULL where the range is not known, and for variables that lack the axis.
    Column("axis_min", BigInteger),
    Column("axis_max", BigInteger),
    Index(None, "collection_id", "version"),
    sqlite_with_rowid=False,
)

transaction = Table(
    "transaction",
    metadata,
    _id(),
    Column("uid", String(32), nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("lease_until", UTCDateTime, nullable=False),
    Column("author", Text, nullable=False),
    Column("login", Text),
    Column("message", Text, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    CheckConstraint("state IN ('open', 'committed', 'aborted', 'expired')", name="state"),
    sqlite_autoincrement=True,
)

staged = Table(
    "staged",
    metadata,
    Column("transaction_id", ForeignKey("transaction.id", ondelete="CASCADE"), nullable=False, primary_key=True),
    Column("uid", String(32), primary_key=True),
    # No foreign key: the data of a dropped collection still has to be deleted. So a row says by itself where it lies.
    Column("collection_id", BigInteger, nullable=False),
    Column("location", Text, nullable=False),
    Column("options", Document, nullable=False),
    Column("path", Text, nullable=False),
    # Of a committed group: its uid. What else begins with that of the intent was written by lost attempts.
    Column("keep", String(32)),
    Column("again_at", UTCDateTime),
)

pin = Table(
    "pin",
    metadata,
    _id(),
    _collection_id(),
    Column("version", Integer, nullable=False),
    Column("transaction_id", ForeignKey("transaction.id", ondelete="CASCADE")),
    Column("lease_until", UTCDateTime, nullable=False),
    Index(None, "collection_id"),
    Index(None, "transaction_id"),
)

garbage = Table(
    "garbage",
    metadata,
    _id(),
    Column("collection_id", BigInteger, nullable=False),
    Column("location", Text, nullable=False),
    Column("options", Document, nullable=False),
    Column("path", Text, nullable=False),
    Column("not_before", UTCDateTime, nullable=False),
    # NULL where that is not known, as of what was never committed.
    Column("nbytes", BigInteger),
    Index(None, "collection_id", "not_before"),
)

# Where a location is about to become a collection's: the row of its creator, who has not recorded it yet.
claim = Table(
    "claim",
    metadata,
    _id(),
    Column("location", Text, nullable=False, unique=True),
    Column("options", Document, nullable=False),
    Column("transaction_id", ForeignKey("transaction.id"), nullable=False),
)

# Who has lost too often, and what it writes: others let it pass. Without keys, all of the collection.
queue = Table(
    "queue",
    metadata,
    _id(),
    _collection_id(),
    *(Column(f"k{i}", BigInteger) for i in range(MAX_KEYS)),
    # NULL is open.
    Column("axis_min", BigInteger),
    Column("axis_max", BigInteger),
    Column("transaction_id", ForeignKey("transaction.id", ondelete="CASCADE"), nullable=False),
    Column("lease_until", UTCDateTime, nullable=False),
    Index(None, "collection_id"),
    Index(None, "transaction_id"),
)

version = Table(
    "version",
    metadata,
    _collection_id(primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("transaction_id", ForeignKey("transaction.id")),
    Column("base_version", Integer),
    Column("committed_at", UTCDateTime, nullable=False),
    Column("expired_at", UTCDateTime),
    Column("author", Text, nullable=False),
    Column("login", Text),
    Column("message", Text, nullable=False),
    Column("operation", String(32), nullable=False),
    Column("summary", Document, nullable=False),
    # Of a view's that computed something: what from.
    Column("reads", Document),
)

# What a view takes of its base.
view_state = Table(
    "view_state",
    metadata,
    _collection_id(primary_key=True),
    *_lives(),
    # NULL follows the head.
    Column("pinned_version", Integer),
    Column("filters", Text),
)

view_variable = Table(
    "view_variable",
    metadata,
    _collection_id(primary_key=True),
    Column("base_variable_id", Integer, primary_key=True, autoincrement=False),
    *_lives(),
    Column("name", Text, nullable=False),
)

# How a view's own variables are computed.
view_definition = Table(
    "view_definition",
    metadata,
    _collection_id(primary_key=True),
    Column("id", Integer, primary_key=True, autoincrement=False),
    *_lives(),
    Column("definition", Document, nullable=False),
)

# What may not be dropped of a collection: variables that views show.
view_need = Table(
    "view_need",
    metadata,
    Column("base_id", ForeignKey("collection.id", ondelete="CASCADE"), primary_key=True),
    Column("variable_id", Integer, primary_key=True, autoincrement=False),
    Column("view_id", ForeignKey("collection.id", ondelete="CASCADE"), primary_key=True),
)

source = Table(
    "source",
    metadata,
    _collection_id(primary_key=True),
    Column("name", String(MAX_SOURCE_NAME), primary_key=True),
    *_lives(),
    Column("fingerprint", Text),
)

tag = Table(
    "tag",
    metadata,
    _id(),
    Column("namespace_id", ForeignKey("namespace.id"), nullable=False),
    Column("name", String(128), nullable=False),
    UniqueConstraint("namespace_id", "name"),
)

tag_member = Table(
    "tag_member",
    metadata,
    Column("tag_id", ForeignKey("tag.id", ondelete="CASCADE"), primary_key=True),
    _collection_id(primary_key=True),
    Column("version", Integer, nullable=False),
)

# Which release reads a registry of a revision: who meets a later one than its own can say what to install.
release = Table(
    "release",
    metadata,
    Column("revision", String(32), primary_key=True),
    Column("release", Text, nullable=False),
)
