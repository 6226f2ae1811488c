"""The metadata registry: collections, their schemas, partitions and versions, in SQLite or Postgres.

It knows nothing of arrays: it needs SQLAlchemy and Alembic alone, and can be queried where neither zarr nor
dask is installed. ``intake_zcollection`` writes it and builds datasets from what it returns.

>>> import tempfile
>>> registry = connect(f"sqlite:///{tempfile.mkdtemp()}/registry.db", create=True)
>>> registry.collections()
()
"""

from .errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    RegistryRevisionError,
    RegistryUnavailableError,
    TransactionClosedError,
    VersionExpiredError,
    ZCollectionError,
)
from .keys import KEY_LIMITS, MAX_KEYS, KeyValues, PartitionKey, format_key, name_values, pad_key, parse_key
from .predicate import Predicate, parse_predicate
from .records import (
    IMMUTABLE_SLOT,
    PUBLIC_OPTIONS,
    Change,
    CollectionDefinition,
    CollectionRecord,
    FragmentRecord,
    KeyRange,
    PartitionRecord,
    SchemaRecord,
    Slot,
    Snapshot,
    VariableRecord,
    Version,
    Written,
    version_number,
)
from .registry import Registry, connect
from .selection import Filters, Selection
from .sql.engine import show_url
from .transaction import COMMITTED_AFTER_ALL, Transaction

__all__ = [
    "COMMITTED_AFTER_ALL",
    "IMMUTABLE_SLOT",
    "KEY_LIMITS",
    "MAX_KEYS",
    "PUBLIC_OPTIONS",
    "AlreadyExistsError",
    "Change",
    "CollectionDefinition",
    "CollectionRecord",
    "ConflictError",
    "Filters",
    "FragmentRecord",
    "InvalidInputError",
    "KeyRange",
    "KeyValues",
    "NotFoundError",
    "PartitionKey",
    "PartitionRecord",
    "Predicate",
    "ReadOnlyError",
    "Registry",
    "RegistryRevisionError",
    "RegistryUnavailableError",
    "SchemaRecord",
    "Selection",
    "Slot",
    "Snapshot",
    "Transaction",
    "TransactionClosedError",
    "VariableRecord",
    "Version",
    "VersionExpiredError",
    "Written",
    "ZCollectionError",
    "connect",
    "format_key",
    "name_values",
    "pad_key",
    "parse_key",
    "parse_predicate",
    "show_url",
    "version_number",
]
