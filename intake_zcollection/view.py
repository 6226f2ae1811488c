"""The facade of a view: a collection as an object, over a base. No logic."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from registry import Filters, Registry, Signature, Version, version_number

from .changes import Changes
from .collection import Collection, as_registry
from .errors import InvalidInputError, ReadOnlyError
from .execution import Execution
from .handle import Handle
from .operations.create_view import copy_view, filter_text
from .operations.sync import Syncing, set_filters, stale, sync
from .operations.update import record, update
from .reading.selection import NO_PARTITIONS
from .reading.window import Call
from .schema import Variable
from .storage.location import open_location
from .writing.updating import Updating

_REFUSED = {
    "insert": "insert into its base {base}, and sync the view",
    "drop rows": "drop them in its base {base}, and sync the view",
    "drop_partitions": "drop them in its base {base}, or take others by set_filters",
    "set_immutables": "set them in its base {base}",
    "create_index": "create it on the collection that it is over, and look up by it here",
    "drop_index": "drop that of the collection that it is over",
    "add_statistics": "add them to its base {base}; its own values are read",
    "rewrite": "its own values are one group a partition after each update; rewrite its base {base}",
}
"""What there is to do instead of what a view does not do."""


class View(Collection):
    """A collection of its own variables over a base, which it shows and never writes.

    Made by :func:`create_view`, and opened by :func:`open_collection`. Rows are its base's, and so are the variables
    that it shows; own ones are computed from these by :meth:`update`, and again by :meth:`sync` where the base has
    changed.
    """

    @cached_property
    def base(self) -> Collection:
        """The collection, or the view, that it is over, at its head."""
        handle = self._handle.base
        assert handle is not None  # it is a view's
        return shown(handle)

    @property
    def base_version(self) -> int:
        """The number of the version of the base that it is over: its head's, unless it is pinned or at a version."""
        return self._handle.select(NO_PARTITIONS).own.base_version

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
        where: Any = None,
        repeatable: bool = True,
        run: bool = True,
        rowwise: bool = False,
        code_version: str | None = None,
        author: str | None = None,
        message: str = "",
        scheduler: Any = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> Version:
        """Compute own variables from what the view shows of its base, partition by partition; see
        :meth:`Collection.update`.

        What an importable function computes is recorded as the view's definition of these variables, which :meth:`sync`
        repeats; a lambda, or a function of ``__main__``, runs and is not recorded.

        Parameters
        ----------
        run
            False records the definition alone; outputs have to be given then.
        rowwise
            Whether each row is computed from that row alone. Where rows come to the base, a sync then computes these,
            and no others.
        code_version
            Of the function: where another one is declared later, all that was computed is stale.
        func, args, kwargs, inputs, outputs, depth, trim, filters, where
            As in :meth:`Collection.update`; inputs are variables of the base, outputs own ones.
        repeatable, author, message, scheduler, workers, progress
            As in :meth:`Collection.update`.

        Raises
        ------
        InvalidInputError
            As in :meth:`Collection.update`; and outputs that are the base's, inputs that are own, or a definition that
            cannot be recorded, with ``run=False``.
        """
        self._check_writable("update")
        updating = Updating(Call(func, tuple(args), kwargs or {}), inputs, outputs, depth, trim, rowwise, code_version)
        signature = Signature(author, message)
        if not run:
            return record(self._handle, updating, signature)
        how, chosen = Execution(scheduler, workers, progress), self._select(filters, where)
        return update(self._handle, updating, chosen, how, signature=signature, repeatable=repeatable)

    def stale(self, *, filters: Filters | None = None) -> Changes:
        """Return what of the own variables has to be computed, and why; nothing is read from storage.

        Returns
        -------
        Changes
            By partition, with a ``reason``: ``"new"`` (it was never computed), ``"rows"`` (rows came to the base, went,
            or were written over), ``"inputs"`` (variables were that it was computed from), ``"neighbour"`` (a partition
            within its depth has changed), ``"code"`` (another code version was declared), ``"gone"`` (the base has no
            such partition any more).
        """
        return Changes(self._handle, stale(self._handle, self._select(filters, None)))

    def is_synced(self) -> bool:
        """Whether nothing is stale."""
        return not self.stale()

    def sync(
        self,
        *,
        filters: Filters | None = None,
        pinned_version: int | Version | None = None,
        dry_run: bool = False,
        author: str | None = None,
        message: str = "",
        scheduler: Any = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> Changes:
        """Compute what is stale of the own variables that have a definition, and nothing else.

        Parameters
        ----------
        filters
            Which partitions, see :meth:`load`.
        pinned_version
            Pin the view at this version of its base, in the same transaction.
        dry_run
            Compute nothing, and tell what is stale.
        author, message, scheduler, workers, progress
            As in :meth:`update`.

        Returns
        -------
        Changes
            What was stale: that was computed where a definition is known, and is still to be done where there is none.

        Raises
        ------
        InvalidInputError
            A definition's function cannot be imported, or its module is not trusted, see :func:`trust`; or there are
            values over a later version of the base than it is to be pinned at.
        """
        self._check_writable("sync")
        syncing = Syncing(None if pinned_version is None else version_number(pinned_version))
        done = sync(
            self._handle,
            syncing,
            self._select(filters, None),
            Execution(scheduler, workers, progress),
            dry_run=dry_run,
            signature=Signature(author, message),
        )
        return Changes(self._handle, done)

    def set_filters(self, filters: Filters | None, *, author: str | None = None, message: str = "") -> Version:
        """Take other partitions of the base, by their keys; None for all. Own values stay, seen or not.

        Raises
        ------
        InvalidInputError
            The filter is not understood, or is a function or keys, which the registry cannot keep.
        """
        self._check_writable("set_filters")
        return set_filters(self._handle, filter_text(filters, self._handle.record.keys), Signature(author, message))

    def copy(
        self,
        name: str,
        location: str,
        *,
        reg: Registry | str | None = None,
        filters: Filters | None = None,
        as_view: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        author: str | None = None,
        message: str = "",
        scheduler: Any = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> Collection:
        """Copy what this view shows, and has of its own, into a collection; or make another view like it.

        Parameters
        ----------
        as_view
            Return a view of the same base, with the same variables and definitions, and over the version of the base
            that this one is at, if it is at one. Its own values are computed by its first :meth:`sync`.
        name, location, reg, filters, storage_options, author, message, scheduler, workers, progress
            As in :meth:`Collection.copy`; a view is in the registry of its base.

        Raises
        ------
        InvalidInputError
            With ``as_view``: another registry, or filters that the registry cannot keep.
        """
        signature = Signature(author, message)
        if not as_view:
            return super().copy(
                name,
                location,
                reg=reg,
                filters=filters,
                storage_options=storage_options,
                author=author,
                message=message,
                scheduler=scheduler,
                workers=workers,
                progress=progress,
            )
        registry = self._handle.registry
        if reg is not None and as_registry(reg).url != registry.url:
            raise InvalidInputError(f"a view is in the registry of its base, {registry.url}: copy {self.name} to there")
        record = copy_view(
            self._handle,
            name,
            location=location,
            filters=filters,
            storage_options=storage_options,
            signature=signature,
        )
        place = open_location(record.location, record.storage_options, storage_options)
        return View(replace(self._handle, record=record, location=place, version=None))

    @property
    def lineage(self) -> str:
        """What its own variables are computed from, and by what, a line each."""
        selected = self._handle.select(NO_PARTITIONS)
        over, names = selected.own, {each.id: name for name, each in selected.schema.variables.items()}
        lines = [f"{self.name} ← {over.base.name}, version {over.base_version}{', pinned' * over.is_pinned}"]
        for each in over.definitions:
            made, read = (", ".join(names[id_] for id_ in ids if id_ in names) for ids in (each.outputs, each.inputs))
            details = [" row by row" * each.rowwise, f" with {each.depth} neighbours" if each.depth else ""]
            version = f" (code {each.code_version})" if each.code_version else ""
            lines.append(f"{made} ← {read} by {each.function}{version}{''.join(details)}")
        return "\n".join(lines)

    def _facts(self) -> list[tuple[str, str]]:
        if self._handle.registry.collection(self._handle.record).base_id is None:
            return [("base", "dropped, and nothing is left to show"), ("location", self.location)]
        base, *computed = self.lineage.splitlines()
        return [("base", base.partition(" ← ")[2]), *super()._facts(), *(("computed", each) for each in computed)]

    def _check_writable(self, verb: str) -> None:
        if verb in _REFUSED:
            what = _REFUSED[verb].format(base=self.base.name)
            raise ReadOnlyError(f"view {self.name} shows its base, and never writes it: {what}")
        super()._check_writable(verb)


def shown(handle: Handle) -> Collection:
    """Return what is open as an object: a view if it has a base."""
    return Collection(handle) if handle.base is None else View(handle)
