"""What a caller asked to see, parsed once, and what that chose: partitions by their keys, rows by their values."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace

import numpy as np

import registry
from registry import (
    Asked,
    CollectionRecord,
    Filters,
    KeyValues,
    Overlay,
    PartitionKey,
    Snapshot,
    columns_of,
    pad_key,
)
from registry.indexes import Rows

from ..errors import InvalidInputError
from ..partitioning import partitioning_from_json
from ..schema import Schema
from .bounds import Bound, Conditions, Where, parse_where
from .listing import Listing
from .lookup import Lookup
from .origin import Origin, change_origins
from .rows import Places, RowsByKey
from .table import PartitionTable


@dataclass(frozen=True)
class Selection:
    """Which partitions, and whether those that a bound cuts lose the rows beyond it."""

    chosen: registry.Selection = field(default_factory=registry.Selection)
    crop: bool = False
    bounds: tuple[Bound, ...] = ()
    """The bounds on the axis as they were given: their kind is checked once the schema is known."""
    conditions: Conditions | None = None
    """The bounds on other variables."""
    rows: Places | None = None
    """Which rows of each partition; None for all."""
    lookup: Lookup | None = None
    """What is looked up in an index."""
    asked: Asked = field(default_factory=Asked)
    """Of a view: which variables are wanted, and what is to be done where its own are stale."""

    @classmethod
    def of(
        cls,
        collection: CollectionRecord,
        filters: Filters | None = None,
        where: Where | None = None,
        *,
        crop: bool = False,
        lookup: Lookup | None = None,
        rows: RowsByKey | None = None,
    ) -> "Selection":
        """Return what a caller asked for.

        Raises
        ------
        InvalidInputError
            A filter that is not understood, or bounds that are no pair; on the axis, a bound that is no date and no
            integer, or the larger one first; rows that name no partitions, or were found in another collection.
        """
        axis_range, others = parse_where(where or {}, collection.axis)
        conditions = Conditions(collection, others) if others else None
        chosen = registry.Selection.of(filters, collection.keys, axis_range=axis_range)
        partitioning = partitioning_from_json(collection.partitioning)
        along = partitioning.variables == (collection.axis,)
        key_range = partitioning.key_range(*axis_range) if along else None
        chosen = replace(chosen, key_range=key_range, values=conditions)
        selection = cls(chosen, crop, (where or {}).get(collection.axis, ()), conditions, lookup=lookup)
        if rows is None:
            return replace(selection, chosen=replace(chosen, parts=crop))
        places = Places.of(rows, collection)  # they count in whole partitions
        keys = frozenset(values for values in places.rows if chosen.takes(values, collection.keys))
        return replace(selection, chosen=replace(chosen, keys=keys), rows=places)

    def among(self, keys: Iterable[KeyValues], names: tuple[str, ...]) -> "Selection":
        """Return it with some partitions alone, by all six key columns; nothing is looked up any more."""
        wanted = frozenset(key[: len(names)] for key in keys)
        if self.chosen.keys is not None:
            wanted &= frozenset(self.chosen.keys)
        return replace(self, chosen=replace(self.chosen, keys=wanted), lookup=None)

    def check(self, schema: Schema) -> None:
        """Raise InvalidInputError unless the bounds are of the axis' kind."""
        axis = schema.variables[schema.axis]
        integers = axis.dtype.kind != "M"
        for bound in self.bounds:
            if bound is not None and isinstance(bound, int | np.integer) != integers:
                needed = "an integer" if integers else "a date"
                raise InvalidInputError(
                    f"the bound {bound!r} on {axis.name}, which is {axis.dtype}, has to be {needed}"
                )


NO_PARTITIONS = Selection(registry.Selection(keys=()))


@dataclass(frozen=True)
class Selected:
    """What a selection chose at one version, as one SQL snapshot has it. Nothing is read from storage for it."""

    snapshot: Snapshot
    schema: Schema
    origins: Mapping[str, Origin]
    """Where each variable lies. All have the same rows, partition by partition."""
    listing: Listing
    """Who says so."""
    found: tuple[Rows, ...] | None = None
    """The rows that an index has of what was looked up; None where nothing was."""

    @property
    def collection(self) -> CollectionRecord:
        """The collection, as it is called now."""
        return self.snapshot.collection

    @property
    def version(self) -> int:
        """The number of the version."""
        return self.snapshot.version

    @property
    def read(self) -> tuple[tuple[CollectionRecord, int], ...]:
        """The collections that it is made of, and their versions: a view has a base."""
        over = self.snapshot.overlay
        return ((self.collection, self.version), *(over.read if over else ()))

    @property
    def base_versions(self) -> dict[PartitionKey, int]:
        """Of a view, at which version of its base each partition is read; nothing of a collection."""
        over = self.snapshot.overlay
        if over is None:
            return {}
        return {key: over.behind.get(columns_of(key), over.base_version) for key in self.rows.keys}

    @property
    def own(self) -> Overlay:
        """What a view has of its own; a collection is not asked."""
        over = self.snapshot.overlay
        assert over is not None  # only views are
        return over

    @property
    def inputs(self) -> Schema:
        """The variables from which others are computed: all, or, in a view, those of its base."""
        over = self.snapshot.overlay
        if over is None:
            return self.schema
        known = {name: each for name, each in self.schema.variables.items() if each.id < over.own_ids}
        return replace(self.schema, variables=known)

    @property
    def rows(self) -> PartitionTable:
        """The rows that all partitioned variables have."""
        return self.origins[self.schema.axis].rows

    @property
    def bounds(self) -> dict[KeyValues, tuple[int, int]]:
        """The first and the last axis value of each partition, by all six key columns."""
        ends = np.cumsum(self.rows.counts)
        lows = self.rows.parts["low"][ends - self.rows.counts].tolist()
        highs = self.rows.parts["high"][ends - 1].tolist()
        keys = (pad_key(tuple(values)) for values in self.rows.values.tolist())
        return dict(zip(keys, zip(lows, highs, strict=True), strict=True))

    def table_of(self, name: str) -> PartitionTable:
        """Return where a variable lies: in the rows, or once."""
        return self.origins[name].table_of(self.schema.variables[name])

    def among(self, keys: Set[KeyValues]) -> "Selected":
        """Return it with some partitions alone, by all six key columns."""
        numbers = [place for place, values in enumerate(self.rows.values.tolist()) if pad_key(tuple(values)) in keys]
        snapshot = replace(self.snapshot, fragments=self.snapshot.fragments.of(lambda key: key in keys))
        ends = np.concatenate([[0], np.cumsum(self.rows.sizes)]).tolist()
        ranges = [(ends[place], ends[place + 1]) for place in numbers]
        origins = change_origins(self.origins, lambda origin: replace(origin, rows=origin.rows.of_rows(ranges)))
        return replace(self, snapshot=snapshot, origins=origins)

    def evolved(self, schema: Schema) -> "Selected":
        """Return it with variables that a write adds; where they have no values yet, they read as missing."""
        origins = dict.fromkeys(schema.variables, self.origins[self.schema.axis])
        return replace(self, schema=schema, origins=origins | dict(self.origins))
