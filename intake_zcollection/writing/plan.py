"""The values of a write: what a verb wants done on a head. Nothing has happened yet."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from registry import (
    IMMUTABLE_SLOT,
    Cut,
    Definition,
    Entry,
    Identity,
    KeyRange,
    KeyValues,
    PartitionKey,
    Place,
    Run,
    Slot,
    Snapshot,
    Statistic,
    Written,
    columns_of,
    counted,
)
from registry.changes import (
    AddVariables,
    BaseRead,
    Commit,
    NoOtherPart,
    NothingBetween,
    OwnUnchanged,
    PutFragments,
    Requirement,
    SchemaUnchanged,
    Unchanged,
    Update,
)
from registry.overlay import Rows
from registry.records import IMMUTABLE_LAYER, ROWS_LAYER, AxisSpan, Layer

from ..errors import ConflictError
from ..reading.selection import Selected
from ..reading.table import PartitionTable
from ..schema import Schema, SchemaVariable, Values
from ..storage import layout
from ..storage.location import Location
from .own import put_own

Arrays = Mapping[str, Sequence[Any]]
"""The pieces of each variable, encoded, one per input; dask's arrive computed."""


@dataclass(frozen=True)
class Target:
    """One group about to be written: the intent, and what its metadata are made of.

    ``uid`` and ``path`` are beginnings: each attempt to write it adds letters of its own, so that none tears what
    another one wrote.
    """

    location: Location
    schema: Schema
    schema_version: int | None
    """The version of the schema; None for the one that the commit makes."""
    layer: Layer
    key: KeyValues
    """All six key columns."""
    uid: str
    path: str
    base_version: int | None = None
    """Of a view: the version of its base over whose rows it lies."""

    @property
    def partition(self) -> str:
        """The partition, as text, for messages."""
        return self.path.rpartition("/")[0]

    @classmethod
    def of_partition(
        cls, place: Location, schema: Schema, schema_version: int | None, key: PartitionKey, layer: Layer = ROWS_LAYER
    ) -> "Target":
        """Return a new group of one partition: its rows, or a layer over them."""
        uid = layout.new_intent()
        values = columns_of(key)
        return cls(place, schema, schema_version, layer, values, uid, layout.fragment_path(key, uid))

    def over(self, base_version: int | None) -> "Target":
        """Return it as one of a view, over rows of a version of its base."""
        return replace(self, base_version=base_version)

    @classmethod
    def of_immutables(cls, place: Location, schema: Schema, schema_version: int | None) -> "Target":
        """Return a new group of the immutable variables."""
        uid = layout.new_intent()
        path = layout.immutable_path(uid)
        return cls(place, schema, schema_version, IMMUTABLE_LAYER, IMMUTABLE_SLOT.key, uid, path)


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a group that are one part of a partition."""

    key: KeyValues
    """All six key columns."""
    rows: int
    bounds: tuple[int | None, int | None] = (None, None)
    """The smallest and largest axis value, as the registry keeps them; None for immutable variables."""
    unique: bool | None = None
    """Whether no axis value is repeated, if that is known."""
    written_version: int | None = None
    """The version that its values come from; None for the one that the commit makes."""
    base_row: int | None = None
    """Of a view's own values: over which rows of its base, by the first."""


def part_of(key: KeyValues, axis: npt.NDArray[np.int64], written_version: int | None = None) -> Part:
    """Return a part by its axis values, sorted."""
    unique = bool(np.all(axis[1:] > axis[:-1]))
    return Part(key, len(axis), (int(axis[0]), int(axis[-1])), unique, written_version)


def parts_of(key: KeyValues, rows: PartitionTable) -> tuple[Part, ...]:
    """Return the parts that a partition has."""
    columns = (rows.parts[name].tolist() for name in ("low", "high", "unique"))
    return tuple(
        Part(key, size, (low, high), None if unique < 0 else bool(unique))
        for size, low, high, unique in zip(rows.piece_sizes.tolist(), *columns, strict=True)
    )


def one_part(key: KeyValues, rows: PartitionTable) -> Part:
    """Return the parts of a partition as one."""
    parts = parts_of(key, rows)
    unique = None if any(part.unique is None for part in parts) else all(part.unique for part in parts)
    return Part(key, rows.rows, (parts[0].bounds[0], parts[-1].bounds[1]), unique)


def own_parts(key: KeyValues, ranges: Iterable[Rows]) -> tuple[Part, ...]:
    """Return the parts of a view's own values over ranges of rows of its base."""
    return tuple(Part(key, last - first, (first, None), base_row=first) for first, last in ranges)


@dataclass(frozen=True)
class Content:
    """What a group holds: encoded values by variable, and whose rows they are, one part after the other."""

    values: Mapping[str, Values]
    parts: tuple[Part, ...]
    read: Callable[[SchemaVariable], Values] | None = None
    """Of a layer: what reads another variable in the same rows, decoded."""


@runtime_checkable
class Job(Protocol):
    """All that a worker needs to write a group, but the arrays. Small, and pickled whole."""

    @property
    def target(self) -> Target:
        """Which group."""

    def content(self, arrays: Arrays) -> Content:
        """Read and compute what it holds; it never uses SQL, and writes nothing."""


@dataclass(frozen=True)
class Result:
    """What a worker put down, or found out; all that comes back."""

    fragments: tuple[Written, ...]
    entries: tuple[Entry, ...] = ()
    """Of the indexes' fragments among them."""
    statistics: tuple[Statistic, ...] = ()
    """Of the values."""


class Finding(Protocol):
    """All that a worker needs to find out something of values that are there: no group is written."""

    def find(self) -> Result:
        """Read and compute; it never uses SQL, and writes nothing."""


@dataclass(frozen=True, eq=False)
class Step:
    """A job, what its result depends on, and what it adds to the summary."""

    key: KeyValues | None
    """The partition, by all six key columns; None for what is stored once."""
    job: Job | Finding | None
    """None if there is nothing to write: something ends."""
    arrays: Arrays = field(default_factory=dict)
    needs: tuple[Requirement, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    cuts: tuple[Cut, ...] = ()
    """The parts that end, wholly or but for what is kept."""
    runs: tuple[Run, ...] = ()
    """Where rows come and go."""
    title: str = ""
    """What it is about: the partition, as text."""

    @property
    def places(self) -> Iterator[Place]:
        """What it depends on or changes."""
        for need in self.needs:
            if isinstance(need, NoOtherPart):
                yield from (Place(*span) for span in need.spans)
        for run in self.runs:
            yield Place(run.key, *(run.axis_range or (None, None)))

    @property
    def does(self) -> bool:
        """Whether it changes anything; otherwise it says what has to stay as it is for that."""
        return bool(self.job or self.cuts or self.runs)

    def depends_on(self, keys: Set[KeyValues]) -> bool:
        """Whether it needs something of one of these partitions."""
        return any(_concerns(need, keys) for need in self.needs)

    def __str__(self) -> str:
        return f"{self.title}: {', '.join(counted(count, name) for name, count in self.counts.items() if count)}"


@dataclass(frozen=True)
class Plan:
    """What a verb wants done on a head."""

    head: Selected
    operation: str
    title: str
    """What is going on, for people who watch."""
    steps: tuple[Step, ...]
    requirements: tuple[Requirement, ...] = ()
    """What the whole depends on."""
    updates: tuple[Update, ...] = ()
    """What is done before the fragments are made live."""
    summary: Mapping[str, int] = field(default_factory=dict)
    """Counts by name, in the order in which they are told; steps add to them."""
    computes: tuple[Definition, ...] = ()
    """Of a view: how its own variables are computed, as it is recorded with them."""
    ended: tuple[KeyValues, ...] = ()
    """Of a view: the partitions of which nothing stays."""
    kept: "Plan | None" = None
    """What stays of an earlier plan, of which some steps were planned again. It has its own head."""

    @property
    def plans(self) -> "tuple[Plan, ...]":
        """All that are carried out together, the earliest first."""
        return (*(self.kept.plans if self.kept else ()), self)

    @property
    def all_steps(self) -> tuple[Step, ...]:
        """The steps of all that are carried out together."""
        return tuple(step for plan in self.plans for step in plan.steps)

    @property
    def jobs(self) -> list[tuple[Job | Finding, Arrays]]:
        """What is to be done, and with which arrays."""
        return [(step.job, step.arrays) for step in self.steps if step.job is not None]

    @property
    def counts(self) -> dict[str, int]:
        """What it does, counted, but for the bytes."""
        counts = dict(self.summary)
        for step in self.all_steps:
            for name, count in step.counts.items():
                counts[name] += count
        return counts

    def __str__(self) -> str:
        lines = [f"{self.title}, at version {self.head.version}: {counted(len(self.jobs), 'groups')} to write"]
        return "\n".join([*lines, *map(str, self.steps)])

    @property
    def places(self) -> Iterator[Place]:
        """What it depends on or changes."""
        return (place for step in self.all_steps for place in step.places)

    def places_of(self, again: "Again") -> list[Place]:
        """Return the places of what is planned again."""
        steps = [step for step in self.all_steps if again.keys is None or step.key in again.keys]
        # Partitions that may yet come between others are no place that could be named.
        if again.keys is None or any(isinstance(need, NothingBetween) for step in steps for need in step.needs):
            return [Place()]
        return list(dict.fromkeys(place for step in steps for place in step.places))

    def in_conflict(self, conflict: ConflictError) -> frozenset[KeyValues] | None:
        """Return the partitions whose steps depend on what has changed; None if all of it may."""
        slots = {slot for each in conflict.conflicts for slot in each.slots}
        if IMMUTABLE_SLOT in slots or not all(each.slots for each in conflict.conflicts):
            return None
        keys = {slot.key for slot in slots}
        return frozenset(step.key for step in self.all_steps if step.key is not None and step.depends_on(keys)) or None

    @property
    def keys(self) -> frozenset[KeyValues]:
        """The partitions that it is about."""
        return frozenset(step.key for step in self.all_steps if step.key is not None)

    def joined(self, new: "Plan | None", keys: Set[KeyValues]) -> "Plan | None":
        """Return what stays of it, and a new plan of some partitions; None if that does nothing."""
        kept = self._without(keys)
        joined = kept if new is None else replace(new, kept=kept)
        does = joined is not None and (joined.updates or any(step.does for step in joined.all_steps))
        return joined if does else None

    def _without(self, keys: Set[KeyValues]) -> "Plan | None":
        """Return what stays of it; a plan of which no step does, and what it depended on, is given up."""
        kept = self.kept and self.kept._without(keys)
        steps = tuple(step for step in self.steps if step.key not in keys)
        return replace(self, steps=steps, kept=kept) if steps else kept

    def commit(self, results: Mapping[Step, Result], reruns: int = 0) -> Commit:
        """Return what to ask of the registry, once all steps are done; and how often some had to be planned again."""
        steps = self.all_steps
        written = tuple(fragment for step in steps if step.job for fragment in results[step].fragments)
        summary = self.counts | {"bytes": sum(fragment.nbytes for fragment in written)}
        summary |= {"reruns": reruns} if reruns else {}
        cuts = tuple(cut for step in steps for cut in step.cuts)
        runs = tuple(run for step in steps for run in step.runs)
        # Joined plan by plan: what one of them knows, as it came meanwhile, another one may depend on.
        needs = [need for plan in self.plans for need in _joined([need for step in plan.steps for need in step.needs])]
        over = self.head.snapshot.overlay
        entries = tuple(entry for step in steps if step.job for entry in results[step].entries)
        statistics = tuple(each for step in steps if step.job for each in results[step].statistics)
        put: Update = PutFragments(written, cuts, runs, entries, statistics)
        if over is not None:
            put = put_own(over, written, self.ended, self.head.bounds)
        return Commit(
            collection=self.plans[0].head.collection,
            operation=self.operation,
            requirements=(*(need for plan in self.plans for need in plan.requirements), *needs),
            updates=(*self.updates, put),
            summary=summary,
            base=None if over is None else BaseRead(over.base_version, self.computes, over.filters),
        )


@dataclass(frozen=True)
class Again:
    """That a verb is asked once more, since others changed what its plan depends on."""

    first: Schema
    """The schema that it planned with at first: variables that came since are not its own."""
    keys: Set[KeyValues] | None = None
    """The partitions to plan again, by all six key columns; None for everything."""
    planned: Set[KeyValues] = frozenset()
    """Those that have been planned, these among them."""
    needs: tuple[Requirement, ...] = ()
    """What the plan as a whole depended on."""


def is_wanted(key: KeyValues | None, again: Again | None) -> bool:
    """Whether a verb is asked for a partition, or, by None, for what is stored once."""
    return again is None or again.keys is None or key in again.keys


Planner = Callable[[Selected, Again | None], Plan | None]
"""A verb, asked what it wants done on a head, any number of times; None back: nothing."""


def immutable_need(head: Snapshot) -> Unchanged:
    """Return what depends on the immutable variables, as they are or as there are none."""
    return Unchanged({IMMUTABLE_SLOT: head.immutable.identity if head.immutable else None})


@dataclass(frozen=True)
class Evolution:
    """How a schema changes with a write: by variables that it gains, or not at all."""

    before: Schema
    after: Schema
    version: int
    """Of the schema before."""

    @property
    def added(self) -> tuple[str, ...]:
        """The names of the new variables."""
        return tuple(name for name in self.after.variables if name not in self.before.variables)

    @property
    def schema_version(self) -> int | None:
        """The version that what is written belongs to."""
        return None if self.added else self.version

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """Nobody else changes the variables meanwhile, if it does."""
        return (SchemaUnchanged(self.before.next_id, frozenset(self.added)),) if self.added else ()

    @property
    def updates(self) -> tuple[Update, ...]:
        """Add the variables."""
        return (AddVariables(tuple(self.after.variables[name].to_record() for name in self.added)),) * bool(self.added)


def _concerns(need: Requirement, keys: Set[KeyValues]) -> bool:
    match need:
        case Unchanged(slots):
            return any(slot.key in keys for slot in slots)
        case NoOtherPart(spans):
            return any(key in keys for key, _, _ in spans)
        case NothingBetween(ranges):
            return any(_is_between(key, limits) for limits in ranges for key in keys)
        case _:
            return False


def _is_between(key: KeyValues, limits: KeyRange) -> bool:
    first, last = limits
    return (first is None or first <= key) and (last is None or key <= last)


def _joined(needs: Sequence[Requirement]) -> list[Requirement]:
    """Return the needs of all steps, those of one kind as one: each is then asked with one statement."""
    slots: dict[frozenset[int] | None, dict[Slot, Identity | None]] = {}
    ranges: list[KeyRange] = []
    known: set[KeyValues] = set()
    spans: list[AxisSpan] = []
    parts: set[tuple[KeyValues, int]] = set()
    others: list[Requirement] = []
    own: dict[KeyValues, frozenset[tuple[Slot, Identity]]] = {}
    for need in needs:
        match need:
            case OwnUnchanged():
                own.update(need.fragments)
            case Unchanged():
                slots.setdefault(need.variables, {}).update(need.slots)
            case NothingBetween():
                ranges += need.ranges
                known |= need.known
            case NoOtherPart():
                spans += need.spans
                parts |= need.known
            case _:
                others.append(need)
    if own:
        others.append(OwnUnchanged(own))
    if spans:
        others.append(NoOtherPart(tuple(spans), frozenset(parts)))
    joined = [*others, *(Unchanged(read, variables) for variables, read in slots.items())]
    return [*joined, NothingBetween(_without_overlaps(ranges), frozenset(known))] if ranges else joined


def _without_overlaps(ranges: Sequence[KeyRange]) -> tuple[KeyRange, ...]:
    """Return the ranges with those joined that overlap; they come in order."""
    joined: list[KeyRange] = []
    for first, last in ranges:
        if joined and (joined[-1][1] is None or first is None or first <= joined[-1][1]):
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return tuple(joined)
