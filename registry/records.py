"""The registry's values: what its queries return and what a transaction commits."""

import datetime as dt
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from .errors import InvalidInputError
from .keys import KeyValues, pad_key

Json = Any
"""Anything ``json.dumps`` takes, with finite numbers only."""

ROWS_LAYER = 0
"""The layer of rows fragments: those that define a partition's rows."""

IMMUTABLE_LAYER = -1
"""The layer of the fragment of immutable variables; all its keys are 0."""

PUBLIC_OPTIONS = ("endpoint_url", "region", "anon", "profile")
"""What is recorded of a location's storage options; the rest may be secret, and is given again at each opening."""

MAX_COLUMNS = 4
"""How many columns an index may have."""

MAX_SOURCE_NAME = 1024
"""How many characters the name of a source may have."""

MARKER = ".zcollection"
"""The object that says at a location whose it is."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def parse_name(name: str) -> tuple[str, str]:
    """Split a full name into namespace and name.

    >>> parse_name("altimetry/ssh")
    ('altimetry', 'ssh')

    Raises
    ------
    InvalidInputError
        The name is not ``namespace/name``, both ``[a-z][a-z0-9_]*`` (intake shows them as attributes).
    """
    parts = name.split("/") if isinstance(name, str) else ()
    if len(parts) != 2 or not all(_NAME.fullmatch(part) for part in parts):
        raise InvalidInputError(
            f"{name!r} is not a full collection name: write 'namespace/name', "
            "both of lower-case letters, digits and underscores, beginning with a letter"
        )
    return parts[0], parts[1]


@dataclass(frozen=True, slots=True)
class VariableRecord:
    """One variable of a schema. What decodes its bytes never changes under one ``id``."""

    id: int
    name: str
    stored_name: str
    """The array's name inside a fragment, unique in the collection for all time."""
    dtype: str
    """The dtype a reader sees, after decoding."""
    dimensions: tuple[str, ...]
    sizes: tuple[int | None, ...]
    """One size per dimension; None for the split dimension."""
    role: Literal["coordinate", "data"]
    encoding: Json
    fill_value: Json
    attributes: Json
    lives: tuple[tuple[int, int | None], ...] = ((0, None),)
    """From which version to which (not included; None for no end) it was there, under whatever name: the fragments of
    other schemas do not hold it."""
    statistics: bool = False
    """Whether the smallest and the largest value of each part are recorded."""


@dataclass(frozen=True, slots=True)
class SchemaRecord:
    """The variables and dataset attributes alive at one version."""

    variables: tuple[VariableRecord, ...]
    attributes: Json
    next_id: int = field(default=0, compare=False)
    """The id for the next variable: no id is given twice, not even that of one that was dropped."""
    stored_names: tuple[str, ...] = field(default=(), compare=False)
    """The stored names of all variables that there ever were; none is given twice."""


@dataclass(frozen=True, slots=True)
class CollectionDefinition:
    """What ``Registry.creating`` records: everything but what the registry itself assigns."""

    name: str
    location: str
    axis: str
    dimension: str
    keys: tuple[str, ...]
    partitioning: Json
    zarr_format: Literal[2, 3]
    merge: str
    schema: SchemaRecord
    storage_options: Json = field(default_factory=dict)
    description: str = ""
    metadata: Json = field(default_factory=dict)
    base: "BaseDefinition | None" = None
    """Of a view: what it shows."""


@dataclass(frozen=True, slots=True)
class BaseDefinition:
    """What a view takes of its base."""

    collection: "CollectionRecord"
    pinned_version: int | None
    """None follows the head."""
    filters: str | None
    """Which partitions, as text of the predicate language."""
    shown: Mapping[int, str]
    """The names of the base's variables that it shows, by their ids."""
    definitions: tuple[Json, ...] = ()
    """How its own variables are computed, where that is known from the start."""


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """A collection as the registry holds it."""

    id: int
    uid: str
    name: str
    """The full name, ``namespace/name``."""
    kind: Literal["collection", "view"]
    location: str
    storage_options: Json
    axis: str
    dimension: str
    keys: tuple[str, ...]
    """The names of the partition keys, in order."""
    partitioning: Json
    zarr_format: Literal[2, 3]
    merge: str
    head_version: int
    description: str
    metadata: Json
    created_at: dt.datetime
    base_id: int | None = None
    """Of a view: the number of its base; None where that was dropped."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """What lies at a location and is nobody's any more, by paths below that."""

    paths: tuple[str, ...]
    """Of groups, and of what all attempts to write one begin with."""
    ids: tuple[int, ...]
    """The rows by which it is known."""


class Leftover(NamedTuple):
    """What lies at a location and is nobody's any more, as a row of garbage or of an intent has it."""

    collection_id: int
    location: str
    options: Json
    path: str
    """Of a group, of what all attempts to write one begin with, or of the marker."""
    nbytes: int | None
    """None where that is not known."""
    keep: str | None
    """The uid of the one attempt that was committed, where the others are to be deleted; empty where none was."""
    number: int
    """The number of the row of garbage, or of the transaction that had the intent."""
    uid: str | None = None
    """The intent's; None for garbage."""
    again_at: dt.datetime | None = None
    """When the intent's attempts are to be deleted for the second time; None before the first."""


class Claimed(NamedTuple):
    """A location that was claimed by who died creating a collection there."""

    location: str
    options: Json
    transaction_uid: str


@dataclass(frozen=True, slots=True)
class Expired:
    """What of a collection expired, or would."""

    collection: str
    versions: tuple[int, ...]
    """The numbers of the versions."""
    held: tuple[int, ...]
    """Of those that would have expired, too, but for pins, tags or pinned views."""
    groups: int
    """How many groups no version has any more."""
    nbytes: int
    """The bytes stored in them."""
    not_before: dt.datetime | None
    """From when on they may be deleted; None where nothing was done."""


class Identity(NamedTuple):
    """What tells a live fragment from all others, through time: consecutive rows of a group."""

    uid: str
    """The group's."""
    start: int
    """Its first row there."""
    rows: int


class FragmentRecord(NamedTuple):
    """A part's rows in one immutable Zarr group, as recorded. A tuple, since there may be very many."""

    key: KeyValues
    axis_min: int
    """The part's first axis value (datetimes: ns since 1970), by which it is named; 0 in the immutable layer."""
    layer_id: int
    uid: str
    """The group's."""
    start: int
    """The first of the group's rows."""
    rows: int
    group_rows: int
    """All rows of the group, of which the Zarr metadata of its arrays follow."""
    nbytes: int
    """The bytes stored: of the group, the share of these rows."""
    axis_max: int | None
    """The part's last axis value; None in the immutable layer."""
    begin_version: int
    written_version: int
    """The version that its values come from: of two layers with a variable, the higher one counts."""
    schema_version: int
    path: str | None
    """Only where the storage layout cannot spell it from the key and the uid."""
    axis_unique: bool | None = None
    """Whether no axis value is repeated; None where nobody recorded it."""

    @property
    def slot(self) -> "Slot":
        """Where it is, or was, live."""
        return Slot(pad_key(self.key), self.axis_min, self.layer_id)

    @property
    def identity(self) -> Identity:
        """What it is, wherever it is live."""
        return Identity(self.uid, self.start, self.rows)


@dataclass(frozen=True, slots=True)
class Totals:
    """How much a version has."""

    partitions: int
    rows: int
    nbytes: int
    bounds: tuple[int, int] | None
    """The smallest and the largest axis value; None if there are no rows."""


@dataclass(frozen=True, slots=True)
class Source:
    """What rows came from: a file's name, or any other, and what tells its content from that of all others.

    Raises
    ------
    InvalidInputError
        The name is not a text of 1 to 1024 characters, or the fingerprint no text.
    """

    name: str
    fingerprint: str | None = None
    """Equal for equal content, as far as anybody can tell; None where nothing is known but the name."""

    def __post_init__(self) -> None:
        """Refuse what the registry could not keep."""
        if not is_text(self.name) or not 0 < len(self.name) <= MAX_SOURCE_NAME:
            raise InvalidInputError(
                f"the source {self.name!r} cannot be recorded: a name is text, of 1 to {MAX_SOURCE_NAME} characters"
            )
        if self.fingerprint is not None and not (is_text(self.fingerprint) and self.fingerprint):
            raise InvalidInputError(f"source {self.name} has the fingerprint {self.fingerprint!r}, which is no text")


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """A source as a collection remembers it at one version."""

    source: Source
    begin_version: int
    """The version that brought it, in this form."""


def is_text(value: object) -> bool:
    """Whether every database keeps it as it is."""
    try:
        return isinstance(value, str) and "\0" not in value and bool(value.encode() or True)
    except UnicodeEncodeError:  # half of a surrogate pair, as a file's name may have
        return False


@dataclass(frozen=True, slots=True)
class Signature:
    """Who writes, and what they say about it: recorded with the versions that are made."""

    author: str | None = None
    """None for ``ZC_AUTHOR`` in the environment, or else the login."""
    message: str = ""

    def __post_init__(self) -> None:
        if not is_text(self.message):
            raise InvalidInputError(f"message={self.message!r} is not text")
        if self.author is not None and (not is_text(self.author) or not self.author.strip()):
            raise InvalidInputError(f"author={self.author!r} is not a name")

    def saying(self, what: str) -> "Signature":
        """Return it with what is said without its author's doing, before the message."""
        return replace(self, message=f"{what}: {self.message}" if self.message else what)


UNSIGNED = Signature()


@dataclass(frozen=True, slots=True)
class Version:
    """An immutable committed state of one collection."""

    collection: str
    number: int
    operation: str
    message: str
    author: str
    """Who wrote it, as they say."""
    login: str | None
    """Who wrote it, as the Postgres server knows them, or the operating system for SQLite; None where earlier releases
    wrote."""
    committed_at: dt.datetime
    summary: Mapping[str, int]
    """What the write did, as counts: an insert's are ``created``, ``replaced``, ``merged``, ``skipped``, ``rows`` and
    ``bytes``."""
    expired_at: dt.datetime | None = None
    """When its data was given up; None while it can be read."""

    def __int__(self) -> int:
        return self.number

    __index__ = __int__


def counted(count: int, name: str) -> str:
    """Return a count of a summary in words: what is counted comes first in its name, in the plural.

    >>> counted(1, "rows_removed"), counted(2, "rows_removed"), counted(3, "created")
    ('1 row removed', '2 rows removed', '3 created')
    """
    noun, *rest = name.split("_")
    return " ".join([str(count), noun.removesuffix("s") if count == 1 else noun, *rest])


def version_number(version: int | Version) -> int:
    """Return the number of a version given by it or by its record; raises InvalidInputError for anything else."""
    if isinstance(version, bool) or not hasattr(version, "__index__"):
        raise InvalidInputError(f"version={version!r} is neither a version's number nor its record")
    return operator.index(version)


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """Where at most one fragment is live: a partition, a part of it by its first axis value, and a layer."""

    key: KeyValues
    axis_min: int
    layer_id: int = ROWS_LAYER


IMMUTABLE_SLOT = Slot((0,) * 6, 0, IMMUTABLE_LAYER)


Layer = int | frozenset[int] | str
"""A layer by its number, by the ids of its variables, which the commit that makes it live numbers then, or the uid of
an index."""


@dataclass(frozen=True, slots=True)
class Written:
    """A fragment that a transaction put down and asks to make live."""

    key: KeyValues
    """All six key columns."""
    layer: Layer
    uid: str
    rows: int
    nbytes: int
    schema_version: int | None
    """The version whose schema it was written with; None for the one that its commit makes."""
    axis_min: int = 0
    axis_max: int | None = None
    axis_unique: bool | None = None
    start: int = 0
    group_rows: int | None = None
    """All rows of the group; None where it has no others."""
    written_version: int | None = None
    """The version that its values come from; None for the one that its commit makes."""
    base_version: int | None = None
    base_row: int | None = None
    """Of a view's: over which rows of its base it lies."""


class Entry(NamedTuple):
    """Rows of an index's fragment that have the same values."""

    of_index: str
    """The index, by its uid."""
    uid: str
    """The fragment's."""
    row_start: int
    row_stop: int
    """Its rows, the last one not included."""
    axis_min: int
    axis_max: int
    """Their first and last axis value."""
    values: tuple[int | str, ...]
    """Of each column; times are ns since 1970."""


class Statistic(NamedTuple):
    """What is known of the values of a variable in rows of a group."""

    uid: str
    variable_id: int
    row_start: int
    row_stop: int
    """The rows, the last one not included."""
    low: int | float | None
    high: int | float | None
    """No value lies outside; None where all are missing. Times are ns since 1970."""
    missing: int
    """How many are NaN, or stand for no value."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows of a part that is cut, which stay where they are."""

    offset: int
    """The first of them, among the part's rows."""
    rows: int
    axis_min: int
    axis_max: int
    axis_unique: bool | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """A part that ends; what is kept of it are parts of the same groups, with all layers."""

    key: KeyValues
    axis_min: int
    kept: tuple[Kept, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """A range of a partition's axis where rows came and went: what lay there is gone, or was written again."""

    key: KeyValues
    axis_range: tuple[int, int] | None = None
    """The range, its ends included; None for the whole partition, whatever is in it."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """What a commit did to a partition: at a row of what was there before, some rows went, and some came.

    That of a layer says that its variables changed in these rows.
    """

    key: KeyValues
    layer_id: int
    row_start: int
    removed: int
    added: int
    axis_min: int | None = None
    axis_max: int | None = None


AxisSpan = tuple[KeyValues, int | None, int | None]
"""A partition, by all six of its key columns, and a range of its axis, its ends included; None is open."""

KeyRange = tuple[KeyValues | None, KeyValues | None]
"""The first and the last key (all six of its columns), None for open."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """What is not as it was read. Without slots it has no place: it concerns a schema, or a source."""

    what: str
    """What another writer did."""
    slots: tuple[Slot, ...] = ()
    final: bool = False
    """Whether the same work cannot be done any more: what it writes is gone, or has another name."""


class Place(NamedTuple):
    """What a writer depends on or changes: a range of a partition's axis, its ends included; None is open."""

    key: KeyValues | None = None
    """All six of its columns; None for the whole collection."""
    low: int | None = None
    high: int | None = None

    def meets(self, other: "Place") -> bool:
        """Whether two places have something in common."""
        return (
            (self.key is None or other.key is None or self.key == other.key)
            and (self.low is None or other.high is None or self.low <= other.high)
            and (self.high is None or other.low is None or self.high >= other.low)
        )
