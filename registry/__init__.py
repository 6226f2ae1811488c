"""The metadata registry: collections, their schemas, partitions and versions, in SQLite or Postgres.

It knows nothing of arrays: it needs SQLAlchemy and Alembic alone, and can be queried where neither zarr nor
dask is installed. ``intake_zcollection`` writes it and builds datasets from what it returns.

>>> import tempfile
>>> from registry import connect
>>> registry = connect(f"sqlite:///{tempfile.mkdtemp()}/registry.db", create=True)
>>> registry.collections()
()
"""

import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .difference import Difference, Kind, PartitionChange, RowChange
from .errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    RegistryRevisionError,
    RegistryUnavailableError,
    StaleViewError,
    TransactionClosedError,
    VersionExpiredError,
    ZCollectionError,
)
from .indexes import IndexRecord
from .keys import KEY_LIMITS, MAX_KEYS, KeyValues, PartitionKey, columns_of, format_key, name_values, pad_key, parse_key
from .overlay import OWN_IDS, Asked, Definition, Overlay, OwnFragment, Stale, WhenStale, without
from .partitions import FragmentColumns, PartitionRecord, PartRecord
from .predicate import Predicate, parse_predicate
from .records import (
    IMMUTABLE_SLOT,
    MARKER,
    PUBLIC_OPTIONS,
    UNSIGNED,
    BaseDefinition,
    Claimed,
    CollectionDefinition,
    CollectionRecord,
    Conflict,
    Cut,
    Entry,
    Expired,
    FragmentRecord,
    Garbage,
    Hunk,
    Identity,
    Kept,
    KeyRange,
    Leftover,
    Place,
    Run,
    SchemaRecord,
    Signature,
    Slot,
    Source,
    SourceRecord,
    Statistic,
    Totals,
    VariableRecord,
    Version,
    Written,
    counted,
    version_number,
)
from .selection import Filters, Selection, ValueRange, key_values
from .snapshot import Snapshot

__all__ = [
    "COMMITTED_AFTER_ALL",
    "IMMUTABLE_SLOT",
    "KEY_LIMITS",
    "MARKER",
    "MAX_KEYS",
    "OWN_IDS",
    "PUBLIC_OPTIONS",
    "UNSIGNED",
    "AlreadyExistsError",
    "Asked",
    "BaseDefinition",
    "Claimed",
    "CollectionDefinition",
    "CollectionRecord",
    "Conflict",
    "ConflictError",
    "Creation",
    "Cut",
    "Definition",
    "Difference",
    "Entry",
    "Expired",
    "Expiring",
    "Filters",
    "FragmentColumns",
    "FragmentRecord",
    "Garbage",
    "Hunk",
    "Identity",
    "IndexRecord",
    "InvalidInputError",
    "Kept",
    "KeyRange",
    "KeyValues",
    "Kind",
    "Leftover",
    "NotFoundError",
    "Overlay",
    "OwnFragment",
    "PartRecord",
    "PartitionChange",
    "PartitionKey",
    "PartitionRecord",
    "Pin",
    "Place",
    "Predicate",
    "ReadOnlyError",
    "Registry",
    "RegistryRevisionError",
    "RegistryUnavailableError",
    "RowChange",
    "Run",
    "SchemaRecord",
    "Selection",
    "Signature",
    "Slot",
    "Snapshot",
    "Source",
    "SourceRecord",
    "Stale",
    "StaleViewError",
    "Statistic",
    "Totals",
    "Transaction",
    "TransactionClosedError",
    "ValueRange",
    "VariableRecord",
    "Version",
    "VersionExpiredError",
    "WhenStale",
    "Written",
    "ZCollectionError",
    "columns_of",
    "connect",
    "counted",
    "format_key",
    "key_values",
    "name_values",
    "pad_key",
    "parse_key",
    "parse_predicate",
    "show_url",
    "version_number",
    "without",
]

# Who does not set logging up is told nothing; Python would print warnings.
logging.getLogger(__name__).addHandler(logging.NullHandler())

if TYPE_CHECKING:
    from .creation import Creation
    from .registry import Registry, connect
    from .retention import Expiring, Pin
    from .sql.engine import show_url
    from .transaction import COMMITTED_AFTER_ALL, Transaction
else:
    # What loads SQLAlchemy (a fifth of a second), by module; a test holds it equal to the imports above.
    _LAZY = {
        ".creation": ("Creation",),
        ".registry": ("Registry", "connect"),
        ".retention": ("Expiring", "Pin"),
        ".sql.engine": ("show_url",),
        ".transaction": ("COMMITTED_AFTER_ALL", "Transaction"),
    }
    _MODULES = {name: module for module, names in _LAZY.items() for name in names}

    def __getattr__(name: str) -> Any:
        """Return what is imported when it is first used, and keep it."""
        if name not in _MODULES:
            # With `name` and `obj` Python itself finds near matches for the traceback, among what `dir` says.
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message, name=name, obj=sys.modules[__name__])
        value = getattr(import_module(_MODULES[name], __name__), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
