"""The facade: a collection as an object. No logic."""

import html
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Self, get_args

import xarray as xr
from dask.utils import format_bytes

from registry import (
    Asked,
    Filters,
    PartitionKey,
    Registry,
    Signature,
    Version,
    WhenStale,
    connect,
    format_key,
    version_number,
)

from .changes import Changes, changes_between
from .errors import InvalidInputError, NotFoundError, ReadOnlyError
from .execution import Execution
from .handle import Handle
from .index import Index
from .merging import Merge, parse_span
from .operations.copy import copy
from .operations.create_index import OnMissing, Per, create_index, drop_index
from .operations.drop import Dropped, Duration, Time, drop_partitions
from .operations.drop_rows import drop_rows
from .operations.expire import ExpiryReport, expire
from .operations.immutable import set_immutables
from .operations.insert import Insertion, insert, plan_insert
from .operations.load import load
from .operations.map import map_partitions
from .operations.rewrite import rewrite
from .operations.statistics import add_statistics
from .operations.update import update
from .operations.vacuum import VacuumReport, vacuum
from .operations.validate import Report, validate
from .operations.variables import add_variable, drop_variable, rename_variable, set_attributes
from .partitioning import Partitioning, partitioning_from_json
from .reading.blocks import Chunks
from .reading.bounds import Where
from .reading.indexing import find_index
from .reading.lookup import Index as IndexValues
from .reading.lookup import Lookup, Unindexed
from .reading.rows import RowsByKey
from .reading.selection import NO_PARTITIONS, Selection
from .reading.window import Call
from .schema import Schema, Variable
from .writing.check import Views
from .writing.inputs import Missing, Unknown
from .writing.meaning import AttributesChoice
from .writing.sources import Data, Seen, Sources, gather
from .writing.updating import Updating


@dataclass(frozen=True)
class Partition:
    """One partition at one version."""

    key: PartitionKey
    rows: int
    parts: int
    """How many parts it has: rows that lie together in a group. See :meth:`Collection.rewrite`."""
    groups: int
    """In how many Zarr groups its values lie."""
    nbytes: int
    """The bytes stored."""
    bounds: tuple[Any, Any]
    """The smallest and largest axis value: numpy.datetime64[ns] or int."""
    version: int
    """The version that last changed it."""
    fragments: Mapping[str, tuple[str, ...]]
    """Where each variable lies that has values: the paths of its Zarr groups below the collection's location, in the
    order of the rows."""

    def __str__(self) -> str:
        return format_key(self.key)


class Collection:
    """A named set of partitions that share one schema.

    Made by :func:`create_collection` and :func:`open_collection`. An object follows the collection's head, and sees
    the newest version in each call; one that was opened at a version stays there, and is read-only.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    @property
    def name(self) -> str:
        """The full name, ``namespace/name``, that it has now; the last one, if it was dropped."""
        with suppress(NotFoundError):
            return self._handle.registry.collection(self._handle.record).name
        return self._handle.record.name

    @property
    def version(self) -> Version:
        """The version it is at: the one it was opened at, or the head."""
        return self._handle.registry.version(self._handle.record, self._handle.version)

    @property
    def schema(self) -> Schema:
        """The variables, dimensions, attributes and encodings."""
        return self._handle.select(NO_PARTITIONS).schema

    @property
    def axis(self) -> str:
        """The name of the ordering variable."""
        return self._handle.record.axis

    @property
    def dimension(self) -> str:
        """The name of the dimension that is split."""
        return self._handle.record.dimension

    @property
    def partitioning(self) -> Partitioning:
        """The strategy that turns values into partition keys."""
        return partitioning_from_json(self._handle.record.partitioning)

    @property
    def location(self) -> str:
        """Where the data lies: a URL that fsspec understands."""
        return self._handle.location.url

    @property
    def registry_url(self) -> str:
        """The address of the registry that records it, its password hidden."""
        return self._handle.registry.url

    @property
    def read_only(self) -> bool:
        """Whether it is bound to one version."""
        return self._handle.version is not None

    def load(
        self,
        *,
        filters: Filters | None = None,
        where: Where | None = None,
        index: IndexValues | None = None,
        unindexed: Unindexed = "compute",
        crop: bool = True,
        rows: RowsByKey | None = None,
        variables: Iterable[str] | None = None,
        chunks: Chunks = "auto",
        stale: WhenStale = "last",
    ) -> xr.Dataset:
        """Return the data as a lazy dataset of dask arrays, built from the registry alone.

        Parameters
        ----------
        filters
            Partitions by their keys: ``"year == 2022 and month in (1, 2)"``, the same as a dict (``{"year": 2022,
            "month": (1, 2)}``), a function of the key as a dict, a key, or several, :class:`Changes` for one.
        where
            Rows by their values: ``{"time": (low, high), "latitude": (30, 46)}``, both included; a bound on times may
            be a partial date (``"2022-03"`` is the whole month), None is open. By the axis, partitions are chosen by
            their bounds in the registry, and in those that a bound cuts the axis is read to find the rows. By another
            variable with the split dimension, of numbers or times, those are left out that cannot have such values by
            the statistics that are kept of it, and it is read in the others. A row stays if any of its values lies
            inside; missing ones never do. In degrees east, by its units, ``(350, 10)`` and ``(-10, 10)`` are the same
            range, in whichever of both ways the values are written.
        index
            Rows by what an index has of them: ``{"pass_number": [1, 2], "cycle_number": (3, 9)}``. Of each column a
            value, a list of them, or a range ``(low, high)`` or ``slice(low, high)``, both included, None open; or a
            text of conditions on columns of integers, ``"cycle_number == 3 and not pass_number in (1, 2)"``, which
            holds for an entry: rows without one never match. Where several indexes have such columns, below the name of
            one: ``{"half_orbit": {"pass_number": 1}}``. Of a view, the indexes of the collection that it is over.
        unindexed
            What happens with parts that the index knows nothing of: ``"compute"`` it for them now, from storage, with a
            warning; or ``"raise"``.
        crop
            False keeps whole partitions, and reads nothing.
        rows
            Rows by their places, as :meth:`map` found them: by partition (its key, or the key's text) a slice, a list
            of slices, a mask of all its rows, or ascending positions; places count in whole partitions, as in what map
            shows. Partitions without an entry have no rows in the result. Of parts that are cut, the axis is read.
        variables
            The variables to load; None for all. The axis and the coordinates that label their dimensions come along.
        chunks
            ``"auto"``: small partitions joined, large ones split along their Zarr chunks, near dask's
            ``array.chunk-size``; ``"partition"``: one dask chunk each; ``{}``: as stored; a dict of sizes by dimension;
            None: no dask, but xarray's lazy indexing.
        stale
            Of a view, what happens to partitions where own variables that are loaded are stale. ``"last"``: where what
            they were computed from is another by now, the partition is as it was then; elsewhere rows that came since
            have no own values yet. ``"fill"``: all partitions as they are in the base, without own values where these
            have no place any more. ``"skip"`` leaves such partitions out, and ``"raise"`` raises.

        Returns
        -------
        xarray.Dataset
            Rows in the order of the partition keys, and of the axis within. The axis and dimension labels are lazily
            read, not dask's. No match gives zero rows.

        Raises
        ------
        InvalidInputError
            A filter or bound that is not understood; bounds that are not of the variable's kind, or the wrong way
            round; rows that a partition does not have, that were found in another collection, or at a version since or
            before which one of their partitions changed.
        NotFoundError
            A variable that the collection does not have.
        StaleViewError
            Own variables are stale, and ``stale="raise"``.
        """
        if stale not in get_args(WhenStale):
            raise InvalidInputError(f"stale={stale!r} is not one of {', '.join(map(repr, get_args(WhenStale)))}")
        chosen = self._select(filters, where, index, unindexed, rows, crop=crop)
        chosen = replace(chosen, asked=Asked(stale=stale))
        return load(self._handle, chosen, variables, chunks)

    def insert(
        self,
        data: Data,
        *,
        merge: Merge | None = None,
        tolerance: Any = None,
        missing: Missing = "refuse",
        unknown: Unknown = "refuse",
        attributes: AttributesChoice = "refuse",
        sources: Sources = (),
        seen: Seen = "insert",
        storage_options: Mapping[str, Any] | None = None,
        repeatable: bool = True,
        dry_run: bool = False,
        author: str | None = None,
        message: str = "",
        scheduler: Any = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> Any:
        """Insert rows, in any order, in one transaction.

        Parameters
        ----------
        data
            A dataset with all partitioned variables of the schema, of numpy or dask arrays or lazily opened from a
            file; or a function that returns one, which the workers call again; or the path or URL of a file, which
            ``xarray.open_dataset`` opens, in the workers again; or an iterable of these, of which each partition is
            merged once. Immutable variables (those without the split dimension) are stored by the first
            insert that brings them; later ones bring equal values or leave them out.
        merge
            What happens to rows that are there. ``"append"`` adds rows at axis values that are not there, and raises
            for others; ``"keep"`` leaves these out; ``"upsert"`` gives the existing rows with an inserted axis value
            up; ``"time_series"`` those inside the inserted period; ``"concat"`` keeps all. These touch what lies in the
            range of the inserted rows, and cost what they bring. ``"replace"`` gives up all rows of the partitions,
            ``"refuse"`` raises if there are any, and a function ``(existing, inserted, *, axis, dimension) -> Dataset``
            of whole partitions decides itself. None is the collection's own choice.
        tolerance
            For ``"time_series"``, the longest distance between rows of one period: existing rows survive inside longer
            gaps. For ``"upsert"``, how far an axis value may be off. A numpy.timedelta64, datetime.timedelta or
            pandas.Timedelta, without months and years; an integer for an integer axis.
        missing
            What happens if a variable is not in the data: ``"refuse"``, or ``"fill"`` with its fill value: NaN, NaT, 0,
            False or empty text, unless it was added with another.
        unknown
            What happens to variables that the schema does not have: ``"refuse"``, ``"drop"``, or ``"add"`` them to it.
        attributes
            What happens if ``units``, ``standard_name``, ``calendar`` or the flags of a variable are in the data and in
            the schema, and differ: ``"refuse"``, ``"keep"`` the collection's and take the values as they are, or
            ``"convert"`` values to its units (by pint, in the extra ``units``). Spellings of one unit do not differ.
        sources
            A name for each dataset, a file's for one, or a :class:`Source` of a name and a fingerprint (also as pairs,
            or a dict): the registry remembers what has been committed. Where data are paths or URLs, these are the
            names, and fingerprints are filled in: the size, and a digest of the content, or what the file system
            has instead of one (an etag).
        seen
            What happens to sources that have been committed: ``"insert"`` takes them; ``"skip"`` leaves out those whose
            fingerprint is the same, and takes what is new or has changed; ``"changed"`` takes nothing but known ones
            that have changed; ``"refuse"`` raises. Where one of the fingerprints is missing, the name decides.
        storage_options
            Passed to fsspec where data are URLs, flat or keyed by URL prefix; keyed if they lie in several buckets or
            on several hosts.
        repeatable
            Whether what is in conflict with another writer is planned and written again, on what that one made of it:
            partition by partition, with datasets that are read again. False raises ConflictError instead.
        dry_run
            Return the plan, to be printed, and write nothing: which partitions get how many rows, and what is cut.
        author, message
            Recorded with the version. An author is a person or a job, by any name; None for what the environment has as
            ``ZC_AUTHOR``, or else for the login: the user of a Postgres server's session, or the operating system's
            with SQLite, which is recorded beside the author.
        scheduler
            A dask scheduler's name or a ``distributed.Client``; None is the active client, or else threads.
        workers
            How many partitions are worked on at a time; a cluster works on as many as it can.
        progress
            Whether to show a progress bar; None shows it in a terminal.

        Returns
        -------
        Version
            The version it made; its ``summary`` counts partitions created, replaced and merged, sources skipped, rows
            that came and existing ones that were given up, parts made, cut and rewritten, and bytes; and ``reruns``, if
            there were any. If all sources or rows were left out, no version is made, and this is the newest. With
            ``dry_run``, the plan, or None.

        Raises
        ------
        InvalidInputError
            The dataset does not fit the schema, or a value cannot be stored exactly.
        AlreadyExistsError
            Rows are there already, and merge is ``"append"`` or ``"refuse"``; or a source has been committed, and seen
            is ``"refuse"``.
        ConflictError
            Another writer dropped or renamed a variable that it brings, or dropped the collection; with
            ``repeatable=False``, another writer was faster.
        ReadOnlyError
            This object is bound to one version.
        StorageUnavailableError
            The location cannot be written.
        Exception
            What reading raises, with a note that names the source.
        """
        self._check_writable("insert")
        how = Execution(scheduler, workers, progress)
        items = gather(data, sources, storage_options, self._handle.record.name)
        insertion = Insertion(items, merge, tolerance, missing, unknown, attributes, seen)
        if dry_run:
            return plan_insert(self._handle, insertion, how)
        return insert(self._handle, insertion, how, signature=Signature(author, message), repeatable=repeatable)

    def update(
        self,
        func: Callable[..., Any],
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        inputs: Iterable[str] | None = None,
        outputs: Iterable[str | Variable] | None = None,
        depth: int = 0,
        trim: bool = True,
        filters: Filters | None = None,
        where: Where | None = None,
        repeatable: bool = True,
        author: str | None = None,
        message: str = "",
        scheduler: Any = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> Version:
        """Compute variables from others, partition by partition, in one transaction; only these are written.

        Parameters
        ----------
        func
            ``func(dataset, *args, **kwargs)``; the dataset is one partition's, in memory. It returns a dict of arrays
            by variable, or a dataset: values with labels are laid at their labels, values without by position. If it
            has a parameter ``partition_info``, it gets ``(dimension, slice)`` there: the rows of the partition itself.
            What it does not return keeps its values.
        args, kwargs
            Passed to func.
        inputs
            The variables that func sees, next to the axis; None for all.
        outputs
            The variables that func makes: names, and :class:`Variable` objects for new ones, which are created. None:
            what it makes of the first partition, which is computed twice then.
        depth
            How many neighbour partitions func sees on either side, as far as there are any.
        trim
            Whether func returns values for all rows it sees, of which the neighbours' are cut off; with labels, at
            least for the partition's own. False if it returns these alone.
        filters, where
            Which partitions, see :meth:`load`; they are updated as a whole. By values that are not the axis': all that
            may have such ones, by the statistics.
        repeatable
            Whether func is called again, with what another writer made of a partition meanwhile. False raises
            ConflictError instead.
        author, message
            Recorded with the version, see :meth:`insert`.
        scheduler, workers, progress
            Where it is run, see :meth:`insert`.

        Returns
        -------
        Version
            The version it made; its ``summary`` counts partitions ``updated``, rows and bytes, and ``reruns``, if there
            were any. The newest if there are no such partitions.

        Raises
        ------
        InvalidInputError
            What func returned does not fit, has labels that do not say where it belongs, or cannot be stored exactly.
        NotFoundError
            A variable that the collection does not have.
        ConflictError
            Another writer dropped or renamed a variable that it makes, or dropped the collection; with
            ``repeatable=False``, another writer changed what it depends on.
        Exception
            What func raises, with a note that names the partition; nothing is written then.
        """
        self._check_writable("update")
        how = Execution(scheduler, workers, progress)
        updating = Updating(Call(func, tuple(args), kwargs or {}), inputs, outputs, depth, trim)
        chosen = self._select(filters, where)
        return update(self._handle, updating, chosen, how, signature=Signature(author, message), repeatable=repeatable)

    def map(
        self,
        func: Callable[..., Any],
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        inputs: Iterable[str] | None = None,
        filters: Filters | None = None,
        where: Where | None = None,
        index: IndexValues | None = None,
        lazy: bool = False,
        scheduler: Any = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> Any:
        """Call a function with each partition, and return its results by partition key, in the order of the keys.

        The dict knows the version that it was found at: where results are rows of the partitions (slices, masks or
        positions), :meth:`load` takes it as ``rows=``.

        Parameters
        ----------
        func, args, kwargs, inputs, filters, where
            As in :meth:`update`; func returns anything.
        index
            Whole partitions with rows that an index has, see :meth:`load`.
        lazy
            Return a ``dask.bag.Bag`` of pairs ``(key, result)`` instead; nothing is computed.
        scheduler, workers, progress
            Where it is run, see :meth:`insert`.
        """
        return self.map_overlap(
            func,
            depth=0,
            args=args,
            kwargs=kwargs,
            inputs=inputs,
            filters=filters,
            where=where,
            index=index,
            lazy=lazy,
            scheduler=scheduler,
            workers=workers,
            progress=progress,
        )

    def map_overlap(
        self,
        func: Callable[..., Any],
        *,
        depth: int = 1,
        trim: bool = True,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        inputs: Iterable[str] | None = None,
        filters: Filters | None = None,
        where: Where | None = None,
        index: IndexValues | None = None,
        lazy: bool = False,
        scheduler: Any = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> Any:
        """Call a function with each partition and ``depth`` neighbours on either side; otherwise as :meth:`map`.

        With ``trim``, results are cut to the partition's own rows: those of xarray and pandas by their labels, and what
        has all the rows without labels (numpy along its first dimension) by position. What is not of rows (a mean, or
        under other labels), or is numpy or pandas of another length, is left as it is; so are collections of arrays.

        Raises
        ------
        InvalidInputError
            With ``trim``, a result of xarray may have rows of neighbours, and does not say which.
        """
        return map_partitions(
            self._handle,
            Call(func, tuple(args), kwargs or {}),
            inputs=inputs,
            depth=depth,
            trim=trim,
            selection=self._select(filters, where, index),
            lazy=lazy,
            how=Execution(scheduler, workers, progress),
        )

    def add_variable(
        self, variable: Variable | xr.DataArray, *, author: str | None = None, message: str = ""
    ) -> Version:
        """Add a variable to the schema: in the registry alone, whatever the number of partitions.

        Parameters
        ----------
        variable
            A :class:`Variable`, or a DataArray of which only the metadata is used. Partitions that are there read as
            its fill value.

        Raises
        ------
        AlreadyExistsError
            There is one of that name.
        InvalidInputError
            It cannot be stored, or its dimensions are not the collection's.
        """
        self._check_writable("add_variable")
        return add_variable(self._handle, variable, Signature(author, message))

    def rename_variable(self, old: str, new: str, *, author: str | None = None, message: str = "") -> Version:
        """Rename a variable, in the registry alone. What is stored keeps its name, and older versions show the old one.

        Raises
        ------
        NotFoundError, AlreadyExistsError
            There is none of the old name, or one of the new name.
        InvalidInputError
            Rows have their place by it (the axis, and what partitions), or the new name is no variable's.
        """
        self._check_writable("rename_variable")
        return rename_variable(self._handle, old, new, Signature(author, message))

    def drop_variable(
        self, name: str, *, views: Views = "refuse", author: str | None = None, message: str = ""
    ) -> Version:
        """Drop a variable, in the registry alone: older versions still have it, and its name never brings it back.

        Parameters
        ----------
        name
            Its name.
        views
            ``"break"`` drops it even if views show it, which have it no more then.
        author, message
            Recorded with the version, see :meth:`insert`.

        Raises
        ------
        NotFoundError
            There is none of that name.
        InvalidInputError
            Rows have their place by it (the axis, and what partitions), or views show it.
        """
        self._check_writable("drop_variable")
        return drop_variable(self._handle, name, views, Signature(author, message))

    def set_attributes(
        self, attrs: Mapping[str, Any], variable: str | None = None, *, author: str | None = None, message: str = ""
    ) -> Version:
        """Set attributes of a variable, or of the dataset, in the registry alone; others stay, and None takes one away.

        Raises
        ------
        NotFoundError
            There is no such variable.
        InvalidInputError
            Zarr cannot hold a value, or readers would decode the variable by it.
        """
        self._check_writable("set_attributes")
        return set_attributes(self._handle, attrs, variable, Signature(author, message))

    def add_statistics(
        self,
        names: Iterable[str],
        *,
        author: str | None = None,
        message: str = "",
        scheduler: Any = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> Version:
        """Keep the smallest and the largest value of variables, part by part: of what is there, which is read for it,
        and of all that is written from now on. Bounds on them choose partitions in the registry then, see :meth:`load`.

        Parameters
        ----------
        names
            Variables with the split dimension, of numbers or times.
        author, message
            Recorded with the version, see :meth:`insert`.
        scheduler, workers, progress
            Where it is run, see :meth:`insert`.

        Returns
        -------
        Version
            The version it made; the newest if they are kept, and nothing was missing. Of what others write meanwhile
            they may be missing, which costs reading; calling it again completes them.

        Raises
        ------
        NotFoundError
            There is no such variable.
        InvalidInputError
            A variable has no numbers or times, is stored once, or is lossy; or it is the axis.
        ConflictError
            Another writer dropped or renamed such a variable, or dropped the collection.
        """
        self._check_writable("add_statistics")
        how = Execution(scheduler, workers, progress)
        return add_statistics(self._handle, names, how, signature=Signature(author, message))

    def set_immutables(self, data: xr.Dataset, *, author: str | None = None, message: str = "") -> Version:
        """Store immutable variables (those without the split dimension), or replace them; new ones join the schema.

        Those that ``data`` does not have keep their values. Older versions have the old ones.

        Raises
        ------
        InvalidInputError
            A variable has the split dimension, or does not fit the schema, in its units for one; or some have never
            been stored.
        """
        self._check_writable("set_immutables")
        return set_immutables(self._handle, data, signature=Signature(author, message))

    def drop_rows(
        self,
        *,
        where: Mapping[str, tuple[Any, Any]],
        author: str | None = None,
        message: str = "",
        scheduler: Any = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> Version:
        """Drop the rows whose values lie within bounds; what they cost to drop does not depend on what stays.

        Parameters
        ----------
        where
            ``{variable: (low, high)}``, both included, None open; rows that meet all bounds are dropped. Of the axis,
            as in :meth:`load`: only the axis of parts that a bound cuts is read. Of another variable with one number
            or time a row, that and the axis are read first, where its statistics do not say that there are none;
            missing values lie within no bounds.
        author, message
            Recorded with the version, see :meth:`insert`.
        scheduler, workers, progress
            Where it is run, see :meth:`insert`.

        Returns
        -------
        Version
            The version it made; the newest if no rows were dropped.

        Raises
        ------
        InvalidInputError
            A bound is not of its variable's kind, or the larger one comes first.
        NotFoundError
            There is no such variable.
        ConflictError
            The collection was dropped meanwhile.
        """
        self._check_writable("drop rows")
        return drop_rows(
            self._handle, where, Execution(scheduler, workers, progress), signature=Signature(author, message)
        )

    def rewrite(
        self,
        *,
        filters: Filters | None = None,
        author: str | None = None,
        message: str = "",
        scheduler: Any = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> Version:
        """Write partitions of many parts, with layers or dropped rows, as one group each; all values stay.

        Parameters
        ----------
        filters
            Which partitions, see :meth:`load`; those that are one group already are left alone.
        author, message
            Recorded with the version, see :meth:`insert`.
        scheduler, workers, progress
            Where it is run, see :meth:`insert`.

        Returns
        -------
        Version
            The version it made; the newest if there was nothing to do.

        Raises
        ------
        ConflictError
            The collection was dropped meanwhile.
        """
        self._check_writable("rewrite")
        how = Execution(scheduler, workers, progress)
        return rewrite(self._handle, self._select(filters, None), how, signature=Signature(author, message))

    def create_index(
        self,
        name: str,
        columns: Iterable[str],
        func: Callable[[xr.Dataset], Any] | None = None,
        *,
        inputs: Iterable[str] | None = None,
        per: Per = "row",
        on_missing: OnMissing = "defer",
        author: str | None = None,
        message: str = "",
        scheduler: Any = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> Version:
        """Have rows looked up by values, by ``load(index=…)``: the entries are written with the rows from now on.

        Created again as it was, it indexes what is not indexed.

        Parameters
        ----------
        name
            Its name, an identifier.
        columns
            One to four names: without a function, of variables along the split dimension alone, of integers, times or
            text. An entry is a run of rows with equal values of all of them.
        func
            A function that computes the columns: called with a dataset of the inputs, in memory, it returns arrays by
            the names of the columns (in a dict, a Dataset, a DataFrame or a structured array), or the array of the only
            one. It is recorded by its module and name, and imported by whoever writes: from modules that the process
            has imported, or that :func:`trust` names.
        inputs
            The variables that the function sees; None for all that are not immutable. Where one of them is written, the
            index is computed anew.
        per
            ``"row"``: the function is called with any consecutive rows, and returns a value for each, which depends on
            that row alone; so each write pays for the rows that it brings. ``"partition"``: it is called with all rows
            of a partition, and returns ranges of them too, as arrays ``start`` and ``stop``, which may overlap. Any
            write to a partition leaves it unindexed then, until the index is created again: a look-up reads it.
        on_missing
            What a writer does that cannot import the function: it leaves its rows unindexed (``"defer"``, with a line
            in the log), or ``"raise"``.
        author, message
            Recorded with the version, see :meth:`insert`.
        scheduler, workers, progress
            Where it is run, see :meth:`insert`: partition by partition, which are read once.

        Returns
        -------
        Version
            The version it made; the newest if all is indexed.

        Raises
        ------
        InvalidInputError
            Columns that cannot be looked up: floats for one; a function that nobody could import; what it returns does
            not fit.
        AlreadyExistsError
            There is another index of that name.
        NotFoundError
            A variable that the collection does not have.
        """
        self._check_writable("create_index")
        return create_index(
            self._handle,
            name,
            columns,
            func,
            inputs=inputs,
            per=per,
            on_missing=on_missing,
            how=Execution(scheduler, workers, progress),
            signature=Signature(author, message),
        )

    def drop_index(self, name: str, *, author: str | None = None, message: str = "") -> Version:
        """Look up no rows by an index any more, and write none of its entries; older versions still have it.

        Raises
        ------
        InvalidInputError
            There is no index of that name.
        """
        self._check_writable("drop_index")
        return drop_index(self._handle, name, signature=Signature(author, message))

    def indexes(self) -> tuple[Index, ...]:
        """Return the indexes, in the order in which they were created; of a view, those of what it is over."""
        handle = self._handle.root
        return tuple(Index(record, handle) for record in handle.registry.indexes(handle.record, handle.version))

    def index(self, name: str) -> Index:
        """Return an index; raises InvalidInputError if there is none of that name."""
        known = self.indexes()
        record = find_index([each.record for each in known], name, self.name)
        return next(each for each in known if each.record is record)

    def drop_partitions(
        self,
        *,
        filters: Filters | None = None,
        written_before: Time | None = None,
        older_than: Duration | None = None,
        all: bool = False,  # noqa: A002 - the word that a user writes
        author: str | None = None,
        message: str = "",
    ) -> Version:
        """Drop partitions; older versions still have them. One of the four is required.

        Parameters
        ----------
        filters
            By their keys, see :meth:`load`.
        written_before
            Those last written before a time of the registry's clock: text, a ``date`` (its first instant) or a
            ``datetime64``, all in UTC if they name no zone; or a ``datetime``, which has to have a zone.
        older_than
            Those of which the last axis value lies before now, by the registry's clock, minus this: a timedelta of
            Python's, numpy's (without months and years) or pandas'. The axis has to be of times.
        all
            Whether to drop every partition; alone.
        author, message
            Recorded with the version, see :meth:`insert`.

        Returns
        -------
        Version
            The version it made; its ``summary`` counts partitions ``dropped``, and rows. The newest if there are none.

        Raises
        ------
        InvalidInputError
            A filter that is not understood; a time that is none, a datetime without a zone (Python's are local), or a
            time in the future; ``older_than`` that is no duration, or for an axis of integers.
        """
        self._check_writable("drop_partitions")
        by = Signature(author, message)
        which = Dropped(filters, written_before, older_than, all)
        return drop_partitions(self._handle, which, by)

    def copy(
        self,
        name: str,
        location: str,
        *,
        reg: Registry | str | None = None,
        filters: Filters | None = None,
        storage_options: Mapping[str, Any] | None = None,
        author: str | None = None,
        message: str = "",
        scheduler: Any = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> "Collection":
        """Copy this collection, at the version it is at, and return the new one.

        Parameters
        ----------
        name, location
            The new collection's, in any file system.
        reg
            The registry to record it in; None for this one's.
        filters
            Which partitions, see :meth:`load`.
        storage_options
            Of the new location; keyed by URL prefix if this one's is another bucket or endpoint of the same protocol.
        author, message
            Recorded with its versions, see :meth:`insert`.
        scheduler, workers, progress
            Where it is run, see :meth:`insert`.

        Returns
        -------
        Collection
            With this one's schema and data, one fragment per partition, and no history; its metadata tells under
            ``copied_from`` what it was copied from.
        """
        target = self._handle.registry if reg is None else as_registry(reg)
        new = copy(
            self._handle,
            name,
            location,
            target=target,
            filters=filters,
            storage_options=storage_options,
            how=Execution(scheduler, workers, progress),
            signature=Signature(author, message),
        )
        return Collection(new)

    def validate(
        self,
        *,
        filters: Filters | None = None,
        data: bool = True,
        scheduler: Any = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> Report:
        """See that all that this version has is in the storage, and decodes. Nothing is changed or deleted.

        Parameters
        ----------
        filters
            Which partitions, see :meth:`load`.
        data
            Whether to read every chunk; False looks at the metadata alone.
        scheduler, workers, progress
            Where it is run, see :meth:`insert`.

        Returns
        -------
        Report
            ``report.ok``, and ``report.problems`` with partition, variable, path and what is wrong; print it.
        """
        return validate(
            self._handle,
            filters=filters,
            data=data,
            how=Execution(scheduler, workers, progress),
        )

    def partitions(
        self, *, filters: Filters | None = None, where: Where | None = None, index: IndexValues | None = None
    ) -> tuple[Partition, ...]:
        """Return the partitions, in the order of their keys; those that :meth:`load` would take from."""
        selected = self._handle.select(self._select(filters, where, index))
        schema, partitions = selected.schema, selected.snapshot.partitions
        some = None if filters is None and where is None and index is None else [record.values for record in partitions]
        changed = self._handle.registry.changes(selected.collection, selected.version, some)
        paths_of = {name: selected.origins[name].rows.paths_of(each) for name, each in schema.partitioned.items()}
        return tuple(
            Partition(
                key=record.key,
                rows=record.rows,
                parts=len(record.parts),
                groups=record.groups,
                nbytes=record.nbytes,
                bounds=(schema.axis_value(record.bounds[0]), schema.axis_value(record.bounds[1])),
                version=changed.get(record.values, 0),
                fragments={name: paths for name in schema.partitioned if (paths := paths_of[name][place])},
            )
            for place, record in enumerate(partitions)
        )

    @contextmanager
    def pin(self, lease: str | Duration = "1h") -> Iterator[Self]:
        """Keep the version that it is at from expiring, inside a block that gets the collection at that version.

        ``with collection.pin() as snapshot: …``

        Parameters
        ----------
        lease
            How long it is kept if this process is killed: ``"15min"``, ``"1h"`` or a timedelta. It is renewed while the
            block runs.

        Raises
        ------
        InvalidInputError
            The lease is no duration.
        VersionExpiredError
            The version has expired.
        ReadOnlyError
            This user may not write into the registry's table of pins.
        """
        read = self._handle.select(NO_PARTITIONS).read
        with self._handle.registry.pin(*read, lease=parse_span(lease, "lease")):
            yield type(self)(self._handle.at(read[0][1]))

    def expire(
        self,
        *,
        keep: int | None = None,
        older_than: str | Duration | None = None,
        grace: str | Duration = "1d",
        dry_run: bool = False,
        author: str | None = None,
        message: str = "",
    ) -> ExpiryReport:
        """Give up old versions, and what no other version has; :meth:`vacuum` deletes that, after the grace.

        The newest version never expires, and numbers are never given again: :meth:`versions` lists what expired. Kept
        are versions that are pinned (:meth:`pin`), that a writer works on, or that a pinned view is over.

        Parameters
        ----------
        keep
            How many of the newest versions stay.
        older_than
            Versions that were committed longer ago expire: ``"30d"`` or a timedelta. Of both, both have to be met.
        grace
            How long nothing is deleted, so that who reads an expired version can end; likewise.
        dry_run
            Give nothing up, and tell what would be.
        author, message
            Recorded with the transaction.

        Returns
        -------
        ExpiryReport
            The versions, those that would have expired but are held, and how many groups and bytes; print it.

        Raises
        ------
        InvalidInputError
            Neither ``keep`` nor ``older_than`` is given, or something is no number of versions, or no duration.
        ConflictError
            The collection was dropped just now.
        ReadOnlyError
            This object is bound to one version.
        """
        self._check_writable("expire")
        by = Signature(author, message)
        return expire(self._handle, keep=keep, older_than=older_than, grace=grace, dry_run=dry_run, signature=by)

    def vacuum(self, *, grace: str | Duration = "1d", dry_run: bool = False) -> VacuumReport:
        """Delete what is nobody's any more: expired groups that are due, and what dead writers, or aborted ones, left.

        Only what this registry wrote below its recorded locations is deleted. Others may read, write and vacuum
        meanwhile, and it may be killed: the next one goes on. See :func:`intake_zcollection.vacuum` for a registry.

        Parameters
        ----------
        grace
            How long ago the lease of a writer ran out before it is taken for dead; and how long after that, or after
            it has given up, its workers may go on writing: what it left is deleted a second time then.
        dry_run
            Delete nothing, and tell what would be.

        Returns
        -------
        VacuumReport
            The groups and bytes that were freed, by location, and why something is there still; print it.

        Raises
        ------
        InvalidInputError
            The grace is no duration.
        ReadOnlyError
            This object is bound to one version; or the registry's database is not written by this user.
        """
        self._check_writable("vacuum")
        return vacuum(self._handle, grace=grace, dry_run=dry_run)

    def versions(
        self, *, filters: Filters | None = None, limit: int | None = None, newest_first: bool = False
    ) -> tuple[Version, ...]:
        """Return all versions, oldest first, or those that touched such partitions; version 0 is the creation.

        ``limit`` is how many at most, from the end that comes first.
        """
        return self._handle.registry.versions(
            self._handle.record, filters=filters, limit=limit, newest_first=newest_first
        )

    def diff(self, a: int | Version, b: int | Version | None = None) -> Changes:
        """Return what changed from a version to a later one; None is the version it is at.

        It is known from what commits recorded, in rows: nothing is read from storage, and nothing is compared. What was
        written counts as changed, if it is equal to what was there; what a rewrite moves does not.

        Returns
        -------
        Changes
            A mapping of partition keys to what changed in each; print it, :meth:`Changes.load` it, or take it as
            ``filters=``.

        Raises
        ------
        NotFoundError
            There is no such version.
        VersionExpiredError
            The data of one of the versions has been given up.
        InvalidInputError
            The first is the later one.
        """
        since = version_number(a)
        return changes_between(self._handle, since, self._handle.version if b is None else version_number(b))

    def changes_since(self, version: int | Version) -> Changes:
        """Return what changed since a version, up to the one it is at; :attr:`Changes.until` is where to go on from.

        Raises as :meth:`diff`.
        """
        return self.diff(version)

    def at(self, *, version: int | Version) -> Self:
        """Return the collection as it was at a version, read-only.

        Raises
        ------
        NotFoundError
            There is no such version.
        VersionExpiredError
            Its data has been given up.
        """
        return type(self)(self._handle.at(self._handle.at(version_number(version)).select(NO_PARTITIONS).version))

    def _select(
        self,
        filters: Filters | None,
        where: Where | None,
        index: IndexValues | None = None,
        unindexed: Unindexed = "compute",
        rows: RowsByKey | None = None,
        *,
        crop: bool = False,
    ) -> Selection:
        lookup = None if index is None else Lookup(index, unindexed)
        return Selection.of(self._handle.record, filters, where, crop=crop, lookup=lookup, rows=rows)

    def _check_writable(self, verb: str) -> None:
        if self.read_only:
            raise ReadOnlyError(
                f"collection {self.name} is open at version {self._handle.version}, and versions never change: {verb} "
                "through open_collection(registry, name)"
            )

    def __repr__(self) -> str:
        return "\n".join(
            [f"<{type(self).__name__} {self.name}>", *(f"{name + ':':<15}{value}" for name, value in self._facts())]
        )

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{html.escape(n)}</th><td>{html.escape(v)}</td></tr>" for n, v in self._facts())
        return f"<p><b>{type(self).__name__}</b> <code>{html.escape(self.name)}</code></p><table>{rows}</table>"

    def _facts(self) -> list[tuple[str, str]]:
        version = self.version
        totals, schema = self._handle.registry.totals(self._handle.record, self._handle.version), self.schema
        facts = [
            (
                "version",
                f"{version.number}{', read-only' * self.read_only} ({version.committed_at:%Y-%m-%d %H:%M} UTC)",
            ),
            (
                "partitions",
                f"{totals.partitions} by {self.partitioning}, {totals.rows} rows, {format_bytes(totals.nbytes)} stored",
            ),
            ("axis", f"{self.axis} along {self.dimension!r}"),
            ("variables", ", ".join(schema.variables)),
            ("location", self.location),
        ]
        if totals.bounds is not None:
            low, high = map(schema.axis_value, totals.bounds)
            facts.insert(2, ("extent", f"{low} … {high}"))
        return facts


def as_registry(reg: Registry | str) -> Registry:
    """Return the registry itself, or the one at a URL."""
    return connect(reg) if isinstance(reg, str) else reg
