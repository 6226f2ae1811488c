"""The facade: collections as objects, and the functions that create and open them. No logic."""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from dask.utils import format_bytes

from registry import CollectionRecord, Filters, PartitionKey, Registry, Version, connect, format_key, version_number

from .assembly.plan import Chunks
from .errors import ReadOnlyError
from .execution import Execution
from .merging import Merge
from .operations.create import create
from .operations.inputs import Data, Missing, Unknown
from .operations.insert import Seen, insert
from .operations.load import Where, load, schema_of, select
from .partitioning import Partitioning, partitioning_from_json
from .schema import Schema
from .storage import layout
from .storage.stores import Location, open_location


@dataclass(frozen=True)
class Partition:
    """One partition at one version."""

    key: PartitionKey
    rows: int
    nbytes: int
    """The bytes stored."""
    bounds: tuple[Any, Any]
    """The smallest and largest axis value: numpy.datetime64[ns] or int."""
    version: int
    """The version that last changed it."""
    fragments: Mapping[str, str]
    """Where each variable lies: the path of its Zarr group below the collection's location."""

    def __str__(self) -> str:
        return format_key(self.key)


class Collection:
    """A named set of partitions that share one schema.

    Made by :func:`create_collection` and :func:`open_collection`. An object follows the collection's head, and sees
    the newest version in each call; one that was opened at a version stays there, and is read-only.
    """

    def __init__(
        self, registry: Registry, record: CollectionRecord, location: Location, version: int | None = None
    ) -> None:
        self._registry = registry
        self._record = record
        self._location = location
        self._version = version

    @property
    def name(self) -> str:
        """The full name, ``namespace/name``."""
        return self._record.name

    @property
    def version(self) -> Version:
        """The version it is at: the one it was opened at, or the head."""
        versions = self._registry.versions(self.name)
        return versions[-1 if self._version is None else self._version]

    @property
    def schema(self) -> Schema:
        """The variables, dimensions, attributes and encodings."""
        return schema_of(self._record, self._registry.resolve(self.name, version=self._version, keys=()).schema)

    @property
    def axis(self) -> str:
        """The name of the ordering variable."""
        return self._record.axis

    @property
    def dimension(self) -> str:
        """The name of the dimension that is split."""
        return self._record.dimension

    @property
    def partitioning(self) -> Partitioning:
        """The strategy that turns values into partition keys."""
        return partitioning_from_json(self._record.partitioning)

    @property
    def location(self) -> str:
        """Where the data lies: a URL that fsspec understands."""
        return self._location.url

    @property
    def read_only(self) -> bool:
        """Whether it is bound to one version."""
        return self._version is not None

    def load(
        self,
        *,
        filters: Filters | None = None,
        where: Where | None = None,
        crop: bool = True,
        variables: Iterable[str] | None = None,
        chunks: Chunks = "auto",
    ) -> xr.Dataset:
        """Return the data as a lazy dataset of dask arrays, built from the registry alone.

        Parameters
        ----------
        filters
            Partitions by their keys: ``"year == 2022 and month in (1, 2)"``, or a function of the key as a dict.
        where
            Rows by their axis value: ``{"time": (low, high)}``, both included; a bound may be a partial date
            (``"2022-03"`` is the whole month), None is open. Partitions are chosen by the bounds in the registry; in
            those that a bound cuts, the axis is read to find the rows.
        crop
            False keeps whole partitions, and reads nothing.
        variables
            The variables to load; None for all. The axis and the coordinates that label their dimensions come along.
        chunks
            ``"auto"``: small partitions joined, large ones split along their Zarr chunks, near dask's
            ``array.chunk-size``; ``"partition"``: one dask chunk each; ``{}``: as stored; a dict of sizes by dimension;
            None: no dask, but xarray's lazy indexing.

        Returns
        -------
        xarray.Dataset
            Rows in the order of the partition keys, and of the axis within. The axis and dimension labels are lazily
            read, not dask's. No match gives zero rows.

        Raises
        ------
        InvalidInputError
            A filter or bound that is not understood.
        NotFoundError
            A variable that the collection does not have.
        """
        return load(
            self._registry,
            self._record,
            self._location,
            version=self._version,
            filters=filters,
            where=where,
            crop=crop,
            variables=variables,
            chunks=chunks,
        )

    def insert(
        self,
        data: Data,
        *,
        merge: Merge | None = None,
        tolerance: Any = None,
        missing: Missing = "refuse",
        unknown: Unknown = "refuse",
        sources: Sequence[str] = (),
        seen: Seen = "insert",
        message: str = "",
        scheduler: Any = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> Version:
        """Insert rows, in any order, in one transaction.

        Parameters
        ----------
        data
            A dataset with all partitioned variables of the schema, of numpy or dask arrays or lazily opened from a
            file; or a function that returns one, which the workers call again; or an iterable of these, of which each
            partition is merged once. Immutable variables (those without the split dimension) are stored by the first
            insert that brings them; later ones bring equal values or leave them out.
        merge
            What happens to partitions that have data: ``"refuse"`` raises; ``"replace"`` gives the old rows up;
            ``"concat"`` keeps all; ``"time_series"`` replaces the rows inside the inserted period; ``"upsert"`` those
            with an inserted axis value; a function ``(existing, inserted, *, axis, dimension) -> Dataset`` decides
            itself. None is the collection's own choice.
        tolerance
            For ``"time_series"``, the longest distance between rows of one period: existing rows survive inside longer
            gaps. For ``"upsert"``, how far an axis value may be off. A numpy.timedelta64, or an integer for an integer
            axis.
        missing
            What happens if a variable is not in the data: ``"refuse"``, or ``"fill"`` with NaN, NaT, 0 or False.
        unknown
            What happens to variables that the schema does not have: ``"refuse"``, ``"drop"``, or ``"add"`` them to it.
        sources
            A name for each dataset, a file's for one: the registry remembers what has been committed.
        seen
            ``"skip"`` leaves out the datasets whose source has been committed already.
        message
            Recorded with the version.
        scheduler
            A dask scheduler's name or a ``distributed.Client``; None is the active client, or else threads.
        workers
            How many partitions are worked on at a time.
        progress
            Whether to show a progress bar; None shows it in a terminal.

        Returns
        -------
        Version
            The version it made; its ``summary`` counts partitions created, replaced and merged, sources skipped, rows
            and bytes. If all sources were skipped, no version is made, and this is the newest.

        Raises
        ------
        InvalidInputError
            The dataset does not fit the schema, or a value cannot be stored exactly.
        AlreadyExistsError
            A partition has data, and merge is ``"refuse"``.
        ConflictError
            Another writer was faster; repeat.
        ReadOnlyError
            This object is bound to one version.
        StorageUnavailableError
            The location cannot be written.
        """
        self._check_writable("insert")
        return insert(
            self._registry,
            self._record,
            self._location,
            data,
            merge=merge,
            tolerance=tolerance,
            missing=missing,
            unknown=unknown,
            sources=sources,
            seen=seen,
            message=message,
            how=Execution(scheduler, workers, progress),
        )

    def partitions(self, *, filters: Filters | None = None, where: Where | None = None) -> tuple[Partition, ...]:
        """Return the partitions, in the order of their keys; those that :meth:`load` would take from."""
        snapshot, schema, _ = select(
            self._registry, self._record, version=self._version, filters=filters, where=where or {}
        )
        is_time = schema.variables[schema.axis].dtype.kind == "M"
        return tuple(
            Partition(
                key=record.key,
                rows=record.rows,
                nbytes=record.nbytes,
                bounds=tuple(np.datetime64(bound, "ns") if is_time else bound for bound in record.bounds),  # type: ignore[arg-type]  # a pair stays one
                version=record.version,
                fragments=dict.fromkeys(schema.partitioned, layout.recorded_path(record.key, record.fragments[0])),
            )
            for record in snapshot.partitions
        )

    def versions(self) -> tuple[Version, ...]:
        """Return all versions, oldest first; version 0 is the creation."""
        return self._registry.versions(self.name)

    def at(self, *, version: int | Version) -> "Collection":
        """Return the collection as it was at a version, read-only.

        Raises
        ------
        NotFoundError
            There is no such version.
        VersionExpiredError
            Its data has been given up.
        """
        snapshot = self._registry.resolve(self.name, version=version_number(version), keys=())
        return Collection(self._registry, self._record, self._location, snapshot.version)

    def _check_writable(self, verb: str) -> None:
        if self._version is not None:
            raise ReadOnlyError(
                f"collection {self.name} is open at version {self._version}, and versions never change: {verb} through "
                "open_collection(registry, name)"
            )

    def __repr__(self) -> str:
        return "\n".join([f"<Collection {self.name}>", *(f"{name + ':':<15}{value}" for name, value in self._facts())])

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{html.escape(n)}</th><td>{html.escape(v)}</td></tr>" for n, v in self._facts())
        return f"<p><b>Collection</b> <code>{html.escape(self.name)}</code></p><table>{rows}</table>"

    def _facts(self) -> list[tuple[str, str]]:
        version = self.version
        partitions = self.partitions()
        rows, nbytes = sum(p.rows for p in partitions), sum(p.nbytes for p in partitions)
        facts = [
            (
                "version",
                f"{version.number}{', read-only' * self.read_only} ({version.committed_at:%Y-%m-%d %H:%M} UTC)",
            ),
            ("partitions", f"{len(partitions)} by {self.partitioning}, {rows} rows, {format_bytes(nbytes)} stored"),
            ("axis", f"{self.axis} along {self.dimension!r}"),
            ("variables", ", ".join(self.schema.variables)),
            ("location", self.location),
        ]
        if partitions:
            low, high = min(p.bounds[0] for p in partitions), max(p.bounds[1] for p in partitions)
            facts.insert(2, ("extent", f"{low} … {high}"))
        return facts


def create_collection(
    reg: Registry | str,
    name: str,
    template: xr.Dataset,
    *,
    axis: str,
    partitioning: Partitioning,
    location: str,
    merge: str = "refuse",
    zarr_format: Literal[2, 3] = 3,
    storage_options: Mapping[str, Any] | None = None,
    description: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> Collection:
    """Create a collection.

    Parameters
    ----------
    reg
        The registry, or its URL.
    name
        The full name, ``namespace/name``.
    template
        A dataset with the collection's variables, attributes and encodings; only its metadata is used.
    axis
        The ordering variable: datetime64 or integer, of one dimension, which is the one that is split.
    partitioning
        How rows are divided, :class:`Date` for one.
    location
        Where the data goes: a directory, or a URL that fsspec understands. It must not belong to another collection.
    merge
        What :meth:`Collection.insert` does by default to partitions that have data.
    zarr_format
        3, or 2 for the classic files.
    storage_options
        What fsspec needs to reach the location, flat, or by URL prefix (``{"s3://bucket": {…}}``). ``endpoint_url``,
        ``region``, ``anon`` and ``profile`` are recorded; the rest may be secret, and is given at each opening.
    description, metadata
        For people and searches; metadata takes what JSON can hold.

    Raises
    ------
    InvalidInputError
        Something cannot be stored as asked.
    AlreadyExistsError
        The name or the location is taken.
    StorageUnavailableError
        The location cannot be written.
    """
    registry = as_registry(reg)
    record = create(
        registry,
        name,
        template,
        axis=axis,
        partitioning=partitioning,
        location=location,
        merge=merge,
        zarr_format=zarr_format,
        storage_options=storage_options,
        description=description,
        metadata=metadata,
    )
    return _collection(registry, record, storage_options, None)


def open_collection(
    reg: Registry | str,
    name: str,
    *,
    version: int | Version | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Collection:
    """Open a collection; with ``version``, as it was then, and read-only.

    Raises
    ------
    NotFoundError
        No such collection or version.
    RegistryUnavailableError
        The registry cannot be reached.
    """
    registry = as_registry(reg)
    collection = _collection(registry, registry.collection(name), storage_options, None)
    return collection if version is None else collection.at(version=version)


def open_dataset(
    reg: Registry | str,
    name: str,
    *,
    version: int | Version | None = None,
    filters: Filters | None = None,
    where: Where | None = None,
    crop: bool = True,
    variables: Iterable[str] | None = None,
    chunks: Chunks = "auto",
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Open a collection and load it lazily: :func:`open_collection`, then :meth:`Collection.load`."""
    collection = open_collection(reg, name, version=version, storage_options=storage_options)
    return collection.load(filters=filters, where=where, crop=crop, variables=variables, chunks=chunks)


def as_registry(reg: Registry | str) -> Registry:
    """Return the registry itself, or the one at a URL."""
    return connect(reg) if isinstance(reg, str) else reg


def _collection(
    registry: Registry, record: CollectionRecord, storage_options: Mapping[str, Any] | None, version: int | None
) -> Collection:
    return Collection(
        registry, record, open_location(record.location, record.storage_options, storage_options), version
    )
