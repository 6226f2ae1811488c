"""Collections of array data, partitioned, stored in Zarr, recorded in an SQL registry, opened lazily.

>>> import tempfile, numpy as np, xarray as xr
>>> import intake_zcollection as izc
>>> folder = tempfile.mkdtemp()
>>> days = np.arange("2022-01-01", "2022-03-01", dtype="M8[D]").astype("M8[ns]")
>>> data = xr.Dataset({"ssh": ("time", np.arange(59.0))}, {"time": days})
>>> registry = izc.connect(f"sqlite:///{folder}/registry.db", create=True)
>>> collection = izc.create_collection(
...     registry, "altimetry/ssh", data, axis="time", partitioning=izc.Date("time", "M"), location=f"{folder}/ssh"
... )
>>> version = collection.insert(data)
>>> [str(partition) for partition in collection.partitions()]
['year=2022/month=01', 'year=2022/month=02']
>>> float(collection.load(filters="month == 2").ssh.mean())
44.5
"""

import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from registry import CollectionRecord, PartitionKey, PartitionRecord, Source, Version, format_key, parse_key

from .errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptedDataError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    RegistryRevisionError,
    RegistryUnavailableError,
    StaleViewError,
    StorageUnavailableError,
    TransactionClosedError,
    VersionExpiredError,
    ZCollectionError,
)

__all__ = [
    "AlreadyExistsError",
    "Change",
    "Changes",
    "Collection",
    "CollectionRecord",
    "ConflictError",
    "CorruptedDataError",
    "Date",
    "ExpiryReport",
    "GroupedSequence",
    "InvalidInputError",
    "NotFoundError",
    "Partition",
    "PartitionKey",
    "PartitionRecord",
    "Problem",
    "ReadOnlyError",
    "Registry",
    "RegistryRevisionError",
    "RegistryUnavailableError",
    "Report",
    "Schema",
    "SchemaVariable",
    "Sequence",
    "Source",
    "StaleViewError",
    "StorageUnavailableError",
    "TransactionClosedError",
    "VacuumReport",
    "Variable",
    "Version",
    "VersionExpiredError",
    "View",
    "ZCollectionError",
    "connect",
    "create_collection",
    "create_view",
    "drop_collection",
    "format_key",
    "open_collection",
    "open_dataset",
    "parse_key",
    "rename_collection",
    "trust",
    "vacuum",
]

# Who does not set logging up is told nothing; Python would print warnings.
logging.getLogger(__name__).addHandler(logging.NullHandler())

if TYPE_CHECKING:
    from registry import Registry, connect

    from .changes import Change, Changes
    from .collection import Collection, Partition
    from .opening import (
        create_collection,
        create_view,
        drop_collection,
        open_collection,
        open_dataset,
        rename_collection,
        trust,
        vacuum,
    )
    from .operations.expire import ExpiryReport
    from .operations.vacuum import VacuumReport
    from .operations.validate import Problem, Report
    from .partitioning import Date, GroupedSequence, Sequence
    from .schema import Schema, SchemaVariable, Variable
    from .view import View
else:
    # What loads xarray, zarr, dask or SQLAlchemy, by module; a test holds it equal to the imports above.
    _LAZY = {
        ".changes": ("Change", "Changes"),
        ".collection": ("Collection", "Partition"),
        ".opening": (
            "create_collection",
            "create_view",
            "drop_collection",
            "open_collection",
            "open_dataset",
            "rename_collection",
            "trust",
            "vacuum",
        ),
        ".operations.expire": ("ExpiryReport",),
        ".operations.vacuum": ("VacuumReport",),
        ".operations.validate": ("Problem", "Report"),
        ".partitioning": ("Date", "GroupedSequence", "Sequence"),
        ".schema": ("Schema", "SchemaVariable", "Variable"),
        ".view": ("View",),
        "registry": ("Registry", "connect"),
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
