"""The intake driver ``zcollection``: a catalog entry becomes a lazy dataset.

.. code-block:: yaml

    sources:
      sst:
        driver: zcollection
        args:
          registry: env:ZC_REGISTRY
          collection: ocean/sst
          filters: "year == 2022"
"""

from collections.abc import Iterable, Mapping
from typing import Any

import xarray as xr
from intake.source.base import DataSource, Schema

from registry import Filters, PartitionKey, show_url

from ..collection import Collection
from ..opening import open_collection
from ..reading.lookup import Index, Unindexed
from ..schema.attributes import attributes_to_json
from ..storage.location import hide_secrets
from ..view import View


class ZCollectionSource(DataSource):  # type: ignore[misc]  # intake has no types
    """A collection, or a part of one, as an intake data source.

    Parameters
    ----------
    registry
        The registry's URL, or ``env:NAME`` for the URL in an environment variable, which keeps passwords out of
        catalogs.
    collection
        The full name, ``namespace/name``.
    version
        The version's number, or its text, which templates make; None or "" is the newest.
    filters, where, index, unindexed, variables, chunks
        As in :meth:`intake_zcollection.Collection.load`. In YAML, which has no tuples, a range of an index is
        ``{low: 3, high: 9}``.
    storage_options
        What fsspec needs to reach the data.
    metadata
        The entry's own.
    """

    # What intake reads of a driver.
    name = "zcollection"
    version = "0.1.0"
    container = "xarray"
    partition_access = True

    # Intake calls __init__ again to unpickle and to list entries: it only keeps its arguments.
    def __init__(
        self,
        registry: str,
        collection: str,
        version: int | str | None = None,
        filters: Filters | None = None,
        where: Mapping[str, Any] | None = None,
        index: Index | None = None,
        unindexed: Unindexed = "compute",
        variables: Iterable[str] | None = None,
        chunks: Any = "auto",
        storage_options: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(storage_options=dict(storage_options or {}), metadata=dict(metadata or {}))
        self._registry = registry
        self._collection = collection
        self._version = None if version in (None, "") else int(version)
        chosen, looked_up = (None if each == "" else each for each in (filters, index))  # which templates make
        self._selection = {
            **{"filters": chosen, "where": where, "index": looked_up, "unindexed": unindexed},
            **{"variables": variables, "chunks": chunks},
        }
        self._partitions: tuple[PartitionKey, ...] = ()

    def discover(self) -> dict[str, Any]:
        """Return dtypes, sizes of whole partitions, number of partitions and attributes, of the version then newest."""
        self._schema = None
        described: dict[str, Any] = super().discover()
        return described

    def to_dask(self) -> xr.Dataset:
        """Return the lazy dataset, of the newest version if the entry names none; only the registry is read."""
        return self._open(self._version).load(**self._selection)

    def read(self) -> xr.Dataset:
        """Return the dataset in memory."""
        return self.to_dask().compute()

    def _open(self, version: int | None) -> Collection:
        return open_collection(self._registry, self._collection, version=version, storage_options=self.storage_options)

    def _get_schema(self) -> Schema:
        """Describe the data from the registry alone: ``shape`` has the sizes of whole partitions."""
        head = self._open(self._version)
        # No version of a view tells how the base is by now, which it follows.
        follows = isinstance(head, View) and not head.read_only
        self._described = head if follows else self._open(head.version.number)
        dataset = self._described.load(**self._selection, crop=False)
        selection = {name: self._selection[name] for name in ("filters", "where", "index")}
        self._partitions = tuple(partition.key for partition in self._described.partitions(**selection))
        return Schema(
            datashape=None,
            dtype={str(name): str(variable.dtype) for name, variable in dataset.variables.items()},
            shape=dict(dataset.sizes),
            npartitions=len(self._partitions),
            extra_metadata=attributes_to_json(dataset.attrs, "the dataset"),  # as plain values, for YAML and JSON
        )

    def _get_partition(self, i: int) -> xr.Dataset:
        wanted = dict(self._partitions[i])
        return self._described.load(**self._selection | {"filters": lambda key: key == wanted}).compute()

    def _close(self) -> None:
        self._schema = None

    def _yaml(self) -> dict[str, Any]:
        """Return the entry as intake shows it, in ``repr`` too: without passwords and secrets."""
        described: dict[str, Any] = super()._yaml()
        arguments = described["sources"][self.name]["args"]
        arguments["registry"] = show_url(self._registry)
        if self.storage_options:
            arguments["storage_options"] = hide_secrets(self.storage_options)
        return described
