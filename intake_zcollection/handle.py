"""One collection at one place and one version: what every verb is given."""

from dataclasses import dataclass, replace

from registry import Asked, CollectionRecord, Overlay, Registry, Signature, Snapshot, Version
from registry.changes import Commit, Update

from .reading.listing import Listing
from .reading.origin import Origin
from .reading.selection import Selected, Selection
from .schema import Schema
from .storage.location import Location

_ALL = Selection()


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
        """Return what a selection chooses, from the registry alone.

        Raises
        ------
        NotFoundError
            There is no such collection any more.
        InvalidInputError
            A bound is not of the axis' kind.
        """
        snapshot = self.registry.resolve(
            self.record, version=self.version, selection=selection.chosen, asked=selection.asked
        )
        schema = Schema.of(snapshot.collection, snapshot.schema)
        selection.check(schema.variables[schema.axis])
        bare = replace(self.record, description="", metadata={}, partitioning={})  # each task that reads gets it
        listing = Listing(self.registry, bare, snapshot.version)
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
