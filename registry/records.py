"""The registry's values: what its queries return and what a transaction commits."""

import datetime as dt
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from .errors import InvalidInputError
from .keys import KeyValues, PartitionKey, format_key, pad_key

Json = Any
"""Anything ``json.dumps`` takes, with finite numbers only."""

ROWS_LAYER = 0
"""The layer of rows fragments: those that define a partition's rows."""

IMMUTABLE_LAYER = -1
"""The layer of the fragment of immutable variables; all its keys are 0."""

PUBLIC_OPTIONS = ("endpoint_url", "region", "anon", "profile")
"""What is recorded of a location's storage options; the rest may be secret, and is given again at each opening."""

MAX_SOURCE_NAME = 1024
"""How many characters the name of a source may have."""

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
    begin_version: int = 0
    """The version that brought it, under whatever name; fragments of an older schema do not hold it."""


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
    """What ``Registry.create_collection`` records: everything but what the registry itself assigns."""

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


class FragmentRecord(NamedTuple):
    """One immutable Zarr group, as recorded. A tuple, since there may be very many."""

    key: KeyValues
    layer_id: int
    uid: str
    rows: int
    nbytes: int
    axis_min: int | None
    """The smallest axis value (datetimes: ns since 1970); None in the immutable layer."""
    axis_max: int | None
    begin_version: int
    written_version: int
    schema_version: int
    path: str | None
    """Only where the storage layout cannot spell it from the key and the uid."""
    axis_unique: bool | None = None
    """Whether no axis value is repeated; None where nobody recorded it."""

    @property
    def slot(self) -> "Slot":
        """Where it is, or was, live."""
        return Slot(pad_key(self.key), self.layer_id)


@dataclass(frozen=True, slots=True)
class PartitionRecord:
    """A partition at one version: its key and its fragments, the rows fragment first."""

    key: PartitionKey
    fragments: tuple[FragmentRecord, ...]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.fragments[0].rows

    @property
    def nbytes(self) -> int:
        """The bytes stored, of all fragments."""
        return sum(fragment.nbytes for fragment in self.fragments)

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        """The smallest and largest axis value."""
        return self.fragments[0].axis_min, self.fragments[0].axis_max

    @property
    def axis_unique(self) -> bool | None:
        """Whether no axis value is repeated in it; None where nobody recorded it."""
        return self.fragments[0].axis_unique

    @property
    def version(self) -> int:
        """The version that last changed this partition."""
        return max(fragment.begin_version for fragment in self.fragments)

    def __str__(self) -> str:
        return format_key(self.key)


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
        if not _is_text(self.name) or not 0 < len(self.name) <= MAX_SOURCE_NAME:
            raise InvalidInputError(
                f"the source {self.name!r} cannot be recorded: a name is text, of 1 to {MAX_SOURCE_NAME} characters"
            )
        if self.fingerprint is not None and not (_is_text(self.fingerprint) and self.fingerprint):
            raise InvalidInputError(f"source {self.name} has the fingerprint {self.fingerprint!r}, which is no text")


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """A source as a collection remembers it at one version."""

    source: Source
    begin_version: int
    """The version that brought it, in this form."""


def _is_text(value: object) -> bool:
    """Whether every database keeps it as it is."""
    try:
        return isinstance(value, str) and "\0" not in value and bool(value.encode() or True)
    except UnicodeEncodeError:  # half of a surrogate pair, as a file's name may have
        return False


@dataclass(frozen=True, slots=True)
class Version:
    """An immutable committed state of one collection."""

    collection: str
    number: int
    operation: str
    message: str
    author: str
    committed_at: dt.datetime
    summary: Mapping[str, int]
    """What the write did, as counts: an insert's are ``created``, ``replaced``, ``merged``, ``skipped``, ``rows`` and
    ``bytes``."""

    def __int__(self) -> int:
        return self.number

    __index__ = __int__


def version_number(version: int | Version) -> int:
    """Return the number of a version given by it or by its record; raises InvalidInputError for anything else."""
    if isinstance(version, bool) or not hasattr(version, "__index__"):
        raise InvalidInputError(f"version={version!r} is neither a version's number nor its record")
    return operator.index(version)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of a collection, whole or filtered, read in one SQL snapshot."""

    collection: CollectionRecord
    version: int
    schema: SchemaRecord
    partitions: tuple[PartitionRecord, ...]
    """In the order of their keys."""
    immutable: FragmentRecord | None
    layers: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """The ids of the variables of each layer above the rows."""


Identity = str
"""What tells a live fragment from all others: its uid."""


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """Where at most one fragment is live: a partition key and a layer."""

    key: KeyValues
    layer_id: int = ROWS_LAYER


IMMUTABLE_SLOT = Slot((0,) * 6, IMMUTABLE_LAYER)


Layer = int | frozenset[int]
"""A layer by its number, or by the ids of its variables: the commit that makes it live numbers it then."""


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
    axis_min: int | None = None
    axis_max: int | None = None
    axis_unique: bool | None = None


KeyRange = tuple[KeyValues | None, KeyValues | None]
"""The first and the last key (all six of its columns), None for open."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """What is not as it was read. Without slots it has no place: it concerns a schema, or a source."""

    what: str
    """What another writer did."""
    slots: tuple[Slot, ...] = ()
