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

from .collection import Collection, Partition, create_collection, open_collection, open_dataset
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
from .partitioning import Date, GroupedSequence, Sequence
from .schema import Schema, SchemaVariable

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
    "ReadOnlyError",
    "Registry",
    "RegistryRevisionError",
    "RegistryUnavailableError",
    "Schema",
    "SchemaVariable",
    "Sequence",
    "StorageUnavailableError",
    "TransactionClosedError",
    "Version",
    "VersionExpiredError",
    "ZCollectionError",
    "connect",
    "create_collection",
    "format_key",
    "open_collection",
    "open_dataset",
    "parse_key",
]
