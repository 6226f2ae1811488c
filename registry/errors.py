"""The errors a caller can handle, drawn by what a handler would do.

::

    ZCollectionError                 catch everything of ours
    ├── NotFoundError                a name, version or key does not exist: choose another
    │   └── VersionExpiredError      it existed, and its data has been given up
    ├── AlreadyExistsError           the name, location or partition is taken: choose another, or replace
    ├── InvalidInputError            the arguments or the data are wrong: correct them
    ├── ConflictError                somebody else was faster: read again and repeat
    │   └── TransactionClosedError   this transaction has ended (committed, aborted or fenced)
    ├── StaleViewError               own values of a view are not those of its base any more: sync it, or take them
    ├── ReadOnlyError                this is not written by you: open the head, or the primary, as who may
    └── RegistryUnavailableError     the database is out of reach, locked, or not ours: look at the server
        └── RegistryRevisionError    its tables are older or newer than this code: upgrade one of them

``intake_zcollection.errors`` re-exports these classes and adds the storage's below the same root.
"""

from typing import Any


class ZCollectionError(Exception):
    """The root of every error raised on purpose by ``registry`` and ``intake_zcollection``."""


class NotFoundError(ZCollectionError, LookupError):
    """A collection, version, partition or variable that does not exist."""

    # LookupError is KeyError's parent, not KeyError itself: KeyError prints its message quoted.


class VersionExpiredError(NotFoundError):
    """A version that existed and whose data has been given up by ``expire``."""


class AlreadyExistsError(ZCollectionError):
    """A name, a location or a partition that is taken."""


class InvalidInputError(ZCollectionError, ValueError):
    """Arguments or data that cannot be accepted; nothing was written."""


class ConflictError(ZCollectionError):
    """Another writer committed something this write depends on; nothing was written.

    ``keys`` holds the texts of the partition keys in conflict (``"year=2022/month=01"``), ``conflicts`` the
    :class:`registry.Conflict` of each requirement that was not met, ``versions`` the :class:`registry.Version` of each
    commit that may have been in the way.
    """

    def __init__(
        self,
        message: str,
        keys: tuple[str, ...] = (),
        conflicts: tuple[Any, ...] = (),
        versions: tuple[Any, ...] = (),
    ) -> None:
        super().__init__(message, keys, conflicts, versions)  # an error that is pickled is made again of these
        self.keys = keys
        self.conflicts = conflicts
        self.versions = versions

    def __str__(self) -> str:
        return str(self.args[0])


class TransactionClosedError(ConflictError):
    """The transaction is no longer open: committed, aborted, or expired and fenced."""


class StaleViewError(ZCollectionError):
    """Own values of a view are not those of its base any more, and the caller wanted no others."""


class ReadOnlyError(ZCollectionError):
    """A write through an object that is bound to one version, or to a database that does not take it."""


class RegistryUnavailableError(ZCollectionError):
    """The registry's database cannot be reached, is locked, or is not a registry."""


class RegistryRevisionError(RegistryUnavailableError):
    """The registry's tables are of another revision than this code."""
