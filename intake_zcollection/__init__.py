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

from registry import (
    CollectionRecord,
    PartitionKey,
    PartitionRecord,
    Registry,
    Version,
    connect,
    format_key,
    parse_key,
)

from .collection import Collection, Partition
from .errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptedDataError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    RegistryRevisionError,
    RegistryUnavailableError,
    StorageUnavailableError,
    TransactionClosedError,
    VersionExpiredError,
    ZCollectionError,
)
from .opening import create_collection, drop_collection, open_collection, open_dataset, rename_collection
from .operations.validate import Problem, Report
from .partitioning import Date, GroupedSequence, Sequence
from .schema import Schema, SchemaVariable, Variable

__all__ = [
    "AlreadyExistsError",
    "Collection",
    "CollectionRecord",
    "ConflictError",
    "CorruptedDataError",
    "Date",
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
    "StorageUnavailableError",
    "TransactionClosedError",
    "Variable",
    "Version",
    "VersionExpiredError",
    "ZCollectionError",
    "connect",
    "create_collection",
    "drop_collection",
    "format_key",
    "open_collection",
    "open_dataset",
    "parse_key",
    "rename_collection",
]
