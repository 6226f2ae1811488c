"""What is read of a collection, or of a view, in one SQL snapshot."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .indexes import IndexRecord
from .overlay import Overlay
from .partitions import FragmentColumns, PartitionRecord
from .records import CollectionRecord, FragmentRecord, SchemaRecord


@dataclass(frozen=True)
class Snapshot:
    """One version of a collection, whole or filtered, read in one SQL snapshot."""

    collection: CollectionRecord
    version: int
    schema: SchemaRecord
    fragments: FragmentColumns
    """Of its partitions, in the order of their keys."""
    immutable: FragmentRecord | None
    layers: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """The ids of the variables of each layer above the rows."""
    indexes: tuple[IndexRecord, ...] = ()
    """Those of the collection; a view has none."""
    overlay: Overlay | None = None
    """Of a view: what it has of its own. Fragments and what is stored once are its base's then."""

    @property
    def partitions(self) -> tuple[PartitionRecord, ...]:
        """Its partitions, in the order of their keys."""
        return self.fragments.partitions
