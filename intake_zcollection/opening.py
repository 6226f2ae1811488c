"""Creating, opening, renaming and dropping collections. No logic.

Each function imports what it calls: a program that only names one does not load the libraries of arrays and of SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import xarray as xr

    from registry import CollectionRecord, Filters, Registry, Version

    from .collection import Collection
    from .handle import Handle
    from .operations.vacuum import VacuumReport
    from .partitioning import Partitioning
    from .reading.blocks import Chunks
    from .reading.bounds import Where
    from .reading.lookup import Index, Unindexed
    from .reading.rows import RowsByKey
    from .view import View


def create_collection(
    reg: Registry | str,
    name: str,
    template: xr.Dataset,
    *,
    axis: str,
    partitioning: Partitioning,
    location: str,
    merge: str = "append",
    statistics: Iterable[str] = (),
    zarr_format: Literal[2, 3] = 3,
    storage_options: Mapping[str, Any] | None = None,
    description: str = "",
    metadata: Mapping[str, Any] | None = None,
    author: str | None = None,
    message: str = "",
) -> Collection:
    """Create a collection.

    Parameters
    ----------
    reg
        The registry, or its URL.
    name
        The full name, ``namespace/name``.
    template
        A dataset with the collection's variables, attributes and encodings; only its metadata is used. ``lossy`` in an
        encoding says that its filters may round.
    axis
        The ordering variable: datetime64 or integer, of one dimension, which is the one that is split.
    partitioning
        How rows are divided, :class:`Date` for one.
    location
        Where the data goes: a directory, or a URL that fsspec understands. It must not belong to another collection.
    merge
        What :meth:`Collection.insert` does by default to partitions that have data.
    statistics
        The variables of which the smallest and the largest value of each part are recorded, as numbers of latitude and
        longitude: bounds on them, see :meth:`Collection.load`, choose partitions in the registry then. See
        :meth:`Collection.add_statistics`.
    zarr_format
        3, or 2 for the classic files.
    storage_options
        What fsspec needs to reach the location, flat, or by URL prefix (``{"s3://bucket": {…}}``). ``endpoint_url``,
        ``region``, ``anon`` and ``profile`` are recorded; the rest may be secret, and is given at each opening.
    description, metadata
        For people and searches; metadata takes what JSON can hold.
    author, message
        Recorded with version 0, see :meth:`Collection.insert`.

    Raises
    ------
    InvalidInputError
        Something cannot be stored as asked.
    AlreadyExistsError
        The name or the location is taken.
    StorageUnavailableError
        The location cannot be written.
    """
    from registry import Signature

    from .collection import as_registry
    from .operations.create import create

    registry = as_registry(reg)
    record = create(
        registry,
        name,
        template,
        axis=axis,
        partitioning=partitioning,
        location=location,
        merge=merge,
        statistics=statistics,
        zarr_format=zarr_format,
        storage_options=storage_options,
        description=description,
        metadata=metadata,
        signature=Signature(author, message),
    )
    return _collection(registry, record, storage_options)


def create_view(
    reg: Registry | str,
    name: str,
    base: Collection | str,
    *,
    location: str,
    pinned_version: int | Version | None = None,
    filters: Filters | None = None,
    variables: Iterable[str] | Mapping[str, str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    description: str = "",
    metadata: Mapping[str, Any] | None = None,
    author: str | None = None,
    message: str = "",
) -> View:
    """Create a view: a collection of its own variables over a base, which it shows and never writes.

    Parameters
    ----------
    reg
        The registry, or its URL; that of the base too.
    name
        The full name, ``namespace/name``.
    base
        The collection, or another view, or its full name; another team's namespace is as good as the own one. One that
        is open at a version is taken at that.
    location
        Where the own variables go; it must not belong to another collection.
    pinned_version
        The version of the base that it stays over; None follows the base's head. See :meth:`View.sync`.
    filters
        Which partitions of the base, as text or as a dict of equalities; None for all.
    variables
        Which variables of the base it shows: their names, or those of the base by the names that they get here,
        ``{"ssh_base": "ssh"}``, which leaves a name free for an own variable. None for all. The axis comes along.
    storage_options
        What fsspec needs to reach its location, and its base's, by URL prefix if these differ.
    description, metadata, author, message
        As in :func:`create_collection`.

    Raises
    ------
    NotFoundError
        There is no such base, or version, or variable.
    InvalidInputError
        The base is in another registry; or something cannot be recorded as asked.
    AlreadyExistsError
        The name or the location is taken.
    """
    from registry import Signature, version_number

    from .collection import Collection, as_registry
    from .errors import InvalidInputError
    from .operations.create_view import create_view as create
    from .view import View

    registry = as_registry(reg)
    if isinstance(base, Collection):
        if base.registry_url != registry.url:
            raise InvalidInputError(
                f"the base {base.name} of view {name} is in the registry at {base.registry_url}, and a view is where "
                f"its base is, not at {registry.url}"
            )
        if base.read_only and pinned_version is None:
            pinned_version = base.version
        base = base.name
    under = _handle(registry, registry.collection(base), storage_options)
    record = create(
        under,
        name,
        location=location,
        pinned_version=None if pinned_version is None else version_number(pinned_version),
        filters=filters,
        variables=variables,
        storage_options=storage_options,
        description=description,
        metadata=metadata,
        signature=Signature(author, message),
    )
    return View(_handle(registry, record, storage_options))


def trust(module: str) -> None:
    """Let the functions of views be imported from a module, and from those below it.

    A registry names the functions that its views are computed by. Such code is imported only if this process has
    imported its module, or trusts it.
    """
    from .functions import trust as trust_module

    trust_module(module)


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
    from .collection import as_registry

    registry = as_registry(reg)
    collection = _collection(registry, registry.collection(name), storage_options)
    return collection if version is None else collection.at(version=version)


def open_dataset(
    reg: Registry | str,
    name: str,
    *,
    version: int | Version | None = None,
    filters: Filters | None = None,
    where: Where | None = None,
    index: Index | None = None,
    unindexed: Unindexed = "compute",
    crop: bool = True,
    rows: RowsByKey | None = None,
    variables: Iterable[str] | None = None,
    chunks: Chunks = "auto",
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Open a collection and load it lazily: :func:`open_collection`, then :meth:`Collection.load`."""
    collection = open_collection(reg, name, version=version, storage_options=storage_options)
    return collection.load(
        filters=filters,
        where=where,
        index=index,
        unindexed=unindexed,
        crop=crop,
        rows=rows,
        variables=variables,
        chunks=chunks,
    )


def _collection(registry: Registry, record: CollectionRecord, storage_options: Mapping[str, Any] | None) -> Collection:
    from .view import shown

    return shown(_handle(registry, record, storage_options))


def _handle(registry: Registry, record: CollectionRecord, storage_options: Mapping[str, Any] | None) -> Handle:
    from .handle import Handle
    from .operations.create_view import check_options_of_view
    from .storage.location import open_location

    base = _handle(registry, registry.base(record), storage_options) if record.kind == "view" else None
    place = open_location(record.location, record.storage_options, storage_options)
    if base is not None:
        check_options_of_view(storage_options, place, base.location)
    return Handle(registry, record, place, base=base)


def rename_collection(
    reg: Registry | str, name: str, new_name: str, *, author: str | None = None, message: str = ""
) -> None:
    """Give a collection another full name, in the registry alone. Objects that are open follow it.

    Author and message are recorded with the transaction.

    Raises
    ------
    NotFoundError, AlreadyExistsError
        There is none of the old name, or one of the new name.
    InvalidInputError
        The new name is not of the form ``namespace/name``.
    """
    from registry import Signature

    from .collection import as_registry

    as_registry(reg).rename_collection(name, new_name, signature=Signature(author, message))


def drop_collection(
    reg: Registry | str,
    name: str,
    *,
    views: Literal["refuse", "break"] = "refuse",
    storage_options: Mapping[str, Any] | None = None,
    author: str | None = None,
    message: str = "",
) -> None:
    """Drop a collection, with all its versions and its data.

    Only what this registry wrote is deleted, once the collection is forgotten. Author and message are recorded with the
    transaction. The base of views is not dropped, unless these may break: they show nothing any more then.

    Raises
    ------
    NotFoundError
        There is no such collection.
    InvalidInputError
        It is the base of views, and ``views="refuse"``.
    StorageUnavailableError
        Data could not be deleted; the collection is forgotten all the same.
    """
    from registry import Signature

    from .collection import as_registry
    from .operations.drop import drop_collection as drop

    drop(as_registry(reg), name, storage_options, views, Signature(author, message))


def vacuum(
    reg: Registry | str,
    *,
    grace: Any = "1d",
    dry_run: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> VacuumReport:
    """Delete what is nobody's any more, wherever this registry wrote: see :meth:`Collection.vacuum`.

    What collections left that were dropped is deleted too, and the marks of creators who were killed.

    Parameters
    ----------
    reg
        The registry, or its URL.
    grace, dry_run
        As in :meth:`Collection.vacuum`.
    storage_options
        What fsspec needs to reach the locations, by URL prefix if they are on several.

    Returns
    -------
    VacuumReport
        What was freed, by location. One that cannot be reached is told there, and keeps nothing else from being done.

    Raises
    ------
    InvalidInputError
        Storage options that may be secret do not say for which of several places they are.
    """
    from .collection import as_registry
    from .operations.vacuum import vacuum_all

    return vacuum_all(as_registry(reg), storage_options=storage_options, grace=grace, dry_run=dry_run)
