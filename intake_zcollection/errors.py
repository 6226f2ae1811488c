"""The registry's errors, and the storage's, in one tree.

::

    ZCollectionError                 the root, see :mod:`registry.errors` for the rest of the tree
    ├── …
    ├── StorageUnavailableError      the location cannot be written or reached: look at it, and at the credentials
    └── CorruptedDataError           an object is missing or does not decode: restore it from a copy
"""

from registry.errors import (
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


class StorageUnavailableError(ZCollectionError):
    """A location that cannot be reached, or does not let itself be written."""


class CorruptedDataError(ZCollectionError):
    """An object that the registry knows is missing in the storage, or does not decode.

    Where one is missing of what was loaded lazily, the registry has been asked again, and lists it still.
    """


__all__ = [
    "AlreadyExistsError",
    "ConflictError",
    "CorruptedDataError",
    "InvalidInputError",
    "NotFoundError",
    "ReadOnlyError",
    "RegistryRevisionError",
    "RegistryUnavailableError",
    "StaleViewError",
    "StorageUnavailableError",
    "TransactionClosedError",
    "VersionExpiredError",
    "ZCollectionError",
]
