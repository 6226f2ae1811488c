"""A collection under its lock: what requirements ask of it, and updates change."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import sqlalchemy as sa

from ..indexes import IndexRecord
from ..keys import KeyValues
from ..records import IMMUTABLE_LAYER, ROWS_LAYER, CollectionRecord, FragmentRecord, SchemaRecord, Slot, SourceRecord
from ..sql import queries
from ..sql.bases import ViewState, read_state, read_view_schema
from ..sql.fragments import read_live
from ..sql.writes import Row, Write


@dataclass(eq=False)
class Locked:
    """A collection that nobody else can commit to while this lives.

    What is read of it is read once, and by one statement each. What is written is kept to be sent when all has been
    read: a read sees what was there before the commit.
    """

    connection: sa.Connection
    record: CollectionRecord
    """As it was when the commit was planned."""
    version: int
    """The version that is being made."""
    transaction_id: int
    keys: frozenset[KeyValues] = field(default=frozenset())
    """Of which partitions the live fragments are wanted, by all requirements and updates."""
    indexed: bool = False
    """Whether it has an index."""
    names: frozenset[str] = field(default=frozenset())
    """Which sources are asked for, by all of them."""
    writes: list[Write] = field(default_factory=list)
    """What updates have written."""

    def write(self, statement: sa.Executable, rows: Row | Sequence[Row]) -> None:
        """Have a statement executed that returns nothing, once or for each of some rows, after those before it."""
        if rows:
            self.writes.append((statement, rows))

    def write_once(self, statement: sa.Executable) -> None:
        """Have a statement executed that has all its values in it."""
        self.writes.append((statement, {}))

    @property
    def id(self) -> int:
        """The collection's id."""
        return self.record.id

    @cached_property
    def collection(self) -> CollectionRecord:
        """The collection's record as it is now."""
        record = queries.read_head(self.connection, self.id)
        assert record is not None  # nobody drops what is locked
        return record

    @cached_property
    def live(self) -> dict[Slot, FragmentRecord]:
        """What is live in each occupied slot of the wanted keys, in the order of keys, parts and layers."""
        return {each.slot: each for each in read_live(self.connection, self.id, self.keys)}

    @cached_property
    def parts(self) -> dict[KeyValues, list[FragmentRecord]]:
        """The rows fragments of the wanted keys, in the order of the axis."""
        parts: dict[KeyValues, list[FragmentRecord]] = {}
        for slot, fragment in self.live.items():
            if slot.layer_id == ROWS_LAYER:
                parts.setdefault(slot.key, []).append(fragment)
        return parts

    def layers_of(self, key: KeyValues, axis_min: int) -> list[int]:
        """Return the layers of a part of the wanted keys, that of its rows and indexes among them."""
        return self._layers.get((key, axis_min), [])

    @cached_property
    def _layers(self) -> dict[tuple[KeyValues, int], list[int]]:
        layers: dict[tuple[KeyValues, int], list[int]] = {}
        for slot in self.live:
            if slot.layer_id != IMMUTABLE_LAYER:
                layers.setdefault((slot.key, slot.axis_min), []).append(slot.layer_id)
        return layers

    @cached_property
    def layers(self) -> dict[int, frozenset[int]]:
        """The ids of the variables of each layer."""
        return self._layers_and_indexes[0]

    @cached_property
    def indexes(self) -> list[IndexRecord]:
        """Its indexes."""
        return [each for each in self.all_indexes if each.end_version is None] if self.indexed else []

    @property
    def all_indexes(self) -> list[IndexRecord]:
        """All indexes that there ever were."""
        return self._layers_and_indexes[1]

    @cached_property
    def _layers_and_indexes(self) -> tuple[queries.Layers, list[IndexRecord]]:
        return queries.read_layers_and_indexes(self.connection, self.id)

    @cached_property
    def schema(self) -> SchemaRecord:
        """The schema of the head; of a collection's, not the attributes of the dataset."""
        if self.record.kind == "view":
            return read_view_schema(self.connection, self.record, self.version, self.state)
        return queries.read_variables(self.connection, self.id, self.version)

    @cached_property
    def state(self) -> ViewState:
        """What a view takes of its base now."""
        return read_state(self.connection, self.record, self.version, head=True)

    @cached_property
    def sources(self) -> dict[str, SourceRecord]:
        """What is known of the sources that are asked for, by name."""
        return queries.read_sources(self.connection, self.id, self.names)


def same(old: object, new: object) -> bool:
    """Whether two values are equal, NaN in attributes too, which is not equal to itself."""
    return old == new or repr(old) == repr(new)


def end(now: Locked, table: sa.Table, *which: sa.ColumnElement[bool]) -> None:
    """End the rows of a table in which the collection has something from a version on."""
    open_ = table.c.collection_id == now.id, table.c.end_version.is_(None), *which
    now.write(sa.update(table).where(*open_), {"end_version": now.version})
