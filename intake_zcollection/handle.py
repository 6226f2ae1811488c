"""One collection at one place and one version: what every verb is given."""

from dataclasses import dataclass, replace

from registry import Asked, CollectionRecord, KeyValues, Overlay, Registry, Signature, Snapshot, Version
from registry.changes import Commit, Update
from registry.indexes import Found

from .reading.finding import Finder, without_partitions
from .reading.listing import Listing
from .reading.lookup import Lookup
from .reading.origin import Origin
from .reading.selection import NO_PARTITIONS, Selected, Selection
from .schema import Schema
from .storage.location import Location

_ALL = Selection()


def _bare(record: CollectionRecord) -> CollectionRecord:
    """Return what of a record each task that reads gets."""
    return replace(record, description="", metadata={}, partitioning={})


def _under(snapshot: Snapshot) -> tuple[tuple[CollectionRecord, int], ...]:
    """Return what a view is over, at all versions at which it is read."""
    over = snapshot.overlay
    if over is None:
        return ()
    read = [*over.read, *((over.base, version) for version in sorted(set(over.behind.values())))]
    return tuple((_bare(record), version) for record, version in read)


@dataclass(frozen=True)
class Handle:
    """A collection that is open. Plain data; nothing is read for it."""

    registry: Registry
    record: CollectionRecord
    """As it was when it was opened; another name may be its name now."""
    location: Location
    version: int | None = None
    """None follows the head."""
    base: "Handle | None" = None
    """Of a view: what it is over, at no version of its own."""

    def at(self, version: int) -> "Handle":
        """Return it at a version, which is there."""
        return replace(self, version=version)

    def select(self, selection: Selection = _ALL) -> Selected:
        """Return what a selection chooses, from the registry alone; parts that an index knows nothing of are read.

        Raises
        ------
        NotFoundError
            There is no such collection any more, or no variable that a bound is on.
        InvalidInputError
            A bound is not of the kind of the axis, or of the other variable that it is on; or there is no such index,
            or it knows nothing of some parts and is not to compute.
        """
        return self._resolve(selection) if selection.lookup is None else self._look_up(selection, selection.lookup)

    def _look_up(self, selection: Selection, lookup: Lookup) -> Selected:
        """Return the partitions with rows that are looked up, and which rows these are.

        Those of a collection are known before they are selected, those of a view afterwards: it reads some of its base
        as they were.
        """
        keys = self.record.keys
        if self.base is None:
            handle = self if self.version is not None else self.at(self.registry.collection(self.record).head_version)
            version, own = handle.version, handle
            assert version is not None
            index, wanted = lookup.resolve(self.registry.indexes(self.record, version), self.record.name)
            found = self.registry.look_up(self.record, version, index, wanted)
            selected = handle._resolve(_whole(selection.among(_keys_of(found), keys)))
        else:
            handle, selected = self, self._resolve(_whole(replace(selection, lookup=None)))
            (own, version), over = self._root(selected), selected.own
            index, wanted = lookup.resolve(self.registry.indexes(own.record, version), own.record.name)
            found = self.registry.look_up(own.record, version, index, wanted)
            found = without_partitions(found, over.behind.keys(), selected.rows)
        finder = Finder(own.record.name, index, wanted, lookup.unindexed)
        schema = selected.schema if self.base is None else own.at(version).select(NO_PARTITIONS).schema
        rows = (*found.rows, *finder.compute(selected, schema, found.unindexed))
        if not selection.crop:  # whole partitions: those that have such rows
            selected = selected.among({each.key for each in rows})
        return replace(selected, found=rows)

    @property
    def root(self) -> "Handle":
        """The collection whose rows it has, at their version: itself, or what a view is over in the end."""
        if self.base is None:
            return self
        own, version = self._root(self._resolve(NO_PARTITIONS))
        return own.at(version)

    def _root(self, selected: Selected) -> "tuple[Handle, int]":
        """Return the collection that a view is over in the end, and at which version."""
        handle: Handle = self
        while handle.base is not None:
            handle = handle.base
        return handle, selected.read[-1][1]

    def _resolve(self, selection: Selection) -> Selected:
        snapshot = self.registry.resolve(
            self.record, version=self.version, selection=selection.chosen, asked=selection.asked
        )
        schema = Schema.of(snapshot.collection, snapshot.schema)
        selection.check(schema)
        if selection.conditions is not None and self.version is None:  # to older versions none can be added
            selection.conditions.tell(schema)
        listing = Listing(self.registry, _bare(self.record), snapshot.version, _under(snapshot))
        return Selected(snapshot, schema, self._origins(snapshot, schema), listing)

    def _origins(self, snapshot: Snapshot, schema: Schema) -> dict[str, Origin]:
        """Return where variables lie: in the collection, or in a view over it, each of which has its own numbers."""
        places: list[tuple[Handle, Overlay]] = []
        handle, over = self, snapshot.overlay
        while handle.base is not None and over is not None:
            places.append((handle, over))
            handle, over = handle.base, over.below
        rows = Origin.of(handle.location, snapshot)
        origins = [(0, rows)]
        for view, own in reversed(places):
            origins.append((own.own_ids, Origin.of_own(view.location, view.record, own, rows)))
        return {
            name: next(origin for first, origin in reversed(origins) if each.id >= first)
            for name, each in schema.variables.items()
        }

    def whole(self, chosen: Selected, asked: Asked) -> Selected:
        """Return all partitions, as they are where some were chosen."""
        over = chosen.snapshot.overlay
        asked = asked if over is None else asked._replace(base_version=over.base_version)
        return self.at(chosen.version).select(Selection(asked=asked))

    def newest(self) -> Version:
        """Return the version of the head."""
        return self.registry.version(self.record)

    def commit(self, operation: str, update: Update, *, signature: Signature) -> Version:
        """Commit what touches the registry alone; return the version it made, the newest if nothing changed."""
        commit = Commit(self.registry.collection(self.record), operation, updates=(update,))
        made = self.registry.commit(commit, signature=signature)
        return made[0] if made else self.newest()


def _whole(selection: Selection) -> Selection:
    """Return it with all parts of its partitions: an index of whole ones may have to be computed."""
    return replace(selection, chosen=replace(selection.chosen, parts=False))


def _keys_of(found: Found) -> set[KeyValues]:
    return {each.key for each in found.rows} | {key for key, _ in found.unindexed}
