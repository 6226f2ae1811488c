"""What must still hold when a commit takes effect, and what it does. Values only: no SQL is needed to make them.

Requirements and updates as values are pyiceberg's idea (``table/update``).
"""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidInputError
from ..indexes import IndexRecord
from ..keys import KeyValues
from ..overlay import Definition
from ..records import (
    AxisSpan,
    CollectionRecord,
    Conflict,
    Cut,
    Entry,
    Identity,
    KeyRange,
    Run,
    SchemaRecord,
    Slot,
    Source,
    Statistic,
    VariableRecord,
    Written,
)
from ..selection import Selection


@dataclass(frozen=True)
class Unchanged:
    """Fragments are as they were read, and nothing new lies over the parts that were."""

    slots: Mapping[Slot, Identity | None]
    """What was live in each slot; None where nothing was."""
    variables: frozenset[int] | None = None
    """The ids of the variables that the result depends on; a new layer of others does not matter. None for all."""


@dataclass(frozen=True)
class NoOtherPart:
    """In ranges of the axis of partitions there are no parts but known ones."""

    spans: tuple[AxisSpan, ...]
    known: frozenset[tuple[KeyValues, int]] = frozenset()
    """By key and first axis value."""


@dataclass(frozen=True)
class NothingBetween:
    """In ranges of keys there are no partitions but known ones."""

    ranges: tuple[KeyRange, ...]
    known: frozenset[KeyValues]


@dataclass(frozen=True)
class VariablesAlive:
    """Nobody has dropped these variables, or given them other names."""

    names: Mapping[int, str]
    """By their ids."""

    def conflict(self, schema: SchemaRecord) -> Conflict | None:
        """Return what a schema has not any more."""
        alive = {variable.id: variable.name for variable in schema.variables}
        dropped = [name for id_, name in self.names.items() if id_ not in alive]
        renamed = [f"{name} to {alive[id_]}" for id_, name in self.names.items() if alive.get(id_, name) != name]
        what = [f"{verb} {', '.join(found)}" for verb, found in (("dropped", dropped), ("renamed", renamed)) if found]
        return Conflict(f"{' and '.join(what)}, which it has", final=True) if what else None


@dataclass(frozen=True)
class AttributesUnchanged:
    """Attributes of variables are what they were."""

    attributes: Mapping[int, Mapping[str, Any]]
    """By the ids of the variables; None for an attribute that there was not."""


@dataclass(frozen=True)
class SchemaUnchanged:
    """Nobody has added a variable, of whatever name, nor given another one of these names."""

    next_id: int
    names: frozenset[str]


@dataclass(frozen=True)
class SourcesUnchanged:
    """What is known of sources is what was."""

    known: Mapping[str, int | None]
    """By name, the version that brought it last; None where it was not known."""


@dataclass(frozen=True)
class OwnUnchanged:
    """A view has in these partitions of its own what it had, no more and no less."""

    fragments: Mapping[KeyValues, frozenset[tuple[Slot, Identity]]]


Requirement = (
    OwnUnchanged
    | Unchanged
    | NoOtherPart
    | NothingBetween
    | VariablesAlive
    | AttributesUnchanged
    | SchemaUnchanged
    | SourcesUnchanged
)
"""What must still hold."""


@dataclass(frozen=True)
class PutFragments:
    """Make fragments live: rows in the place of what is cut, a layer in that of those which it covers, part by part."""

    written: tuple[Written, ...]
    cuts: tuple[Cut, ...] = ()
    """The parts that end, wholly or but for what is kept; each once."""
    runs: tuple[Run, ...] = ()
    """Where rows came and went, for the record: none if the same values lie elsewhere only. Whole partitions end."""
    entries: tuple[Entry, ...] = ()
    """Of the indexes' fragments among what is written."""
    statistics: tuple[Statistic, ...] = ()


@dataclass(frozen=True)
class PutStatistics:
    """Record what is known of values of groups that are there."""

    statistics: tuple[Statistic, ...]


@dataclass(frozen=True)
class ClosePartitions:
    """Close the partitions of a selection, as far as they meet what else is given."""

    selection: Selection
    before: dt.datetime | None = None
    """They were last written before it; with a zone, and not in the future."""
    age: int | None = None
    """Their last axis value, a time, lies more than so many nanoseconds before now."""

    def __post_init__(self) -> None:
        if self.before is not None and self.before.utcoffset() is None:
            raise InvalidInputError(f"the datetime {self.before} has no zone, and the registry's clock is UTC")


@dataclass(frozen=True)
class AddVariables:
    """Add variables to the schema."""

    variables: tuple[VariableRecord, ...]


@dataclass(frozen=True)
class EditSchema:
    """Replace the schema by what a function makes of it, whatever the number of partitions."""

    edit: Callable[[SchemaRecord], SchemaRecord]
    break_views: bool = False
    """Whether variables may go that views show."""


@dataclass(frozen=True)
class CreateIndex:
    """Have rows looked up by values from now on; parts without entries in the same commit are unindexed."""

    index: IndexRecord


@dataclass(frozen=True)
class DropIndex:
    """Look up no rows by an index any more."""

    name: str


@dataclass(frozen=True)
class RememberSources:
    """Remember what was inserted; what is known of the same names ends."""

    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Rename:
    """Give the collection another full name. A name belongs to all versions, so this makes none."""

    name: str


@dataclass(frozen=True)
class PutOwn:
    """Make fragments of a view live, in the place of all that it has in some partitions."""

    keys: tuple[KeyValues, ...]
    """The partitions: what is live there ends."""
    written: tuple[Written, ...]
    """What is new, and what stays of what was there; that has a written version."""
    bounds: Mapping[KeyValues, tuple[int, int]] = field(default_factory=dict)
    """The axis ranges of the partitions, for the record."""


@dataclass(frozen=True)
class EditView:
    """Change what a view takes of its base; None leaves something as it is."""

    pinned_version: int | None = None
    filters: "Taken | None" = None
    moves: bool = False
    """Whether a version is made even if all stays as it is: it is over a newer version of the base."""


@dataclass(frozen=True)
class Taken:
    """Which partitions of its base a view takes, as text of the predicate language; None for all."""

    filters: str | None


@dataclass(frozen=True)
class RecordDefinitions:
    """Remember how own variables of a view are computed; what is known of the same ones ends."""

    definitions: tuple[Definition, ...]


@dataclass(frozen=True)
class BaseRead:
    """Which version of its base a view was computed from, and what of it."""

    version: int
    definitions: tuple[Definition, ...] = ()
    filters: str | None = None
    """Which partitions of it the view took: which were neighbours."""


Update = (
    PutOwn
    | EditView
    | RecordDefinitions
    | PutFragments
    | PutStatistics
    | ClosePartitions
    | AddVariables
    | EditSchema
    | CreateIndex
    | DropIndex
    | RememberSources
    | Rename
)
"""What is done."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What a transaction asks of one collection."""

    collection: CollectionRecord
    operation: str
    requirements: tuple[Requirement, ...] = ()
    updates: tuple[Update, ...] = ()
    """In the order in which they are applied."""
    summary: Mapping[str, int] = field(default_factory=dict)
    """Counts for the version; those of its updates join them."""
    base: BaseRead | None = None
    """Of a view: what was computed from."""
