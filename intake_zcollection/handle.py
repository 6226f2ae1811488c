"""One collection at one place and one version: what every verb is given."""

from dataclasses import dataclass, replace

from registry import CollectionRecord, Registry, Signature, Version
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
        snapshot = self.registry.resolve(self.record, version=self.version, selection=selection.chosen)
        schema = Schema.of(snapshot.collection, snapshot.schema)
        selection.check(schema.variables[schema.axis])
        bare = replace(self.record, description="", metadata={}, partitioning={})  # each task that reads gets it
        listing = Listing(self.registry, bare, snapshot.version)
        return Selected(snapshot, schema, dict.fromkeys(schema.variables, Origin.of(self.location, snapshot)), listing)

    def newest(self) -> Version:
        """Return the version of the head."""
        return self.registry.version(self.record)

    def commit(self, operation: str, update: Update, *, signature: Signature) -> Version:
        """Commit what touches the registry alone; return the version it made, the newest if nothing changed."""
        commit = Commit(self.registry.collection(self.record), operation, updates=(update,))
        made = self.registry.commit(commit, signature=signature)
        return made[0] if made else self.newest()
