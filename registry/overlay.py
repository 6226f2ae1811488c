"""A view's own values over rows of its base: where they lie at another version of that, and what of them is stale.

An own fragment belongs to rows of the base, as these are at one version of it. Where they are at a later one, the hunks
of the base tell. Nothing is compared and nothing is read: as in :mod:`registry.difference`, integers are added.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from .difference import RowChange, Stretch, account, follow
from .keys import KeyValues
from .records import ROWS_LAYER, CollectionRecord, Hunk, Identity, Json, Slot

OWN_IDS = 2**20
"""From here on a view numbers its own variables, and their layers: no collection has so many. One over another view,
from twice this, and so on."""

Rows = tuple[int, int]
"""Rows of a partition: the first, and the one after the last."""

Reason = Literal["new", "rows", "inputs", "neighbour", "code", "gone"]
"""Why own values have to be computed: they never were; rows came or went; variables that they were computed from, or a
neighbour partition, changed; another code version was declared; or their partition is gone."""

WhenStale = Literal["last", "raise", "fill", "skip"]
"""What a load does with partitions of which own values are stale; see :meth:`intake_zcollection.Collection.load`."""


@dataclass(frozen=True, slots=True)
class Definition:
    """How own variables of a view are computed."""

    function: str | None
    """``module:name``; None for what cannot be imported, which is never recorded as a view's definition."""
    inputs: tuple[int, ...]
    """The ids of the base's variables."""
    outputs: tuple[int, ...]
    """The ids of the own variables."""
    depth: int = 0
    rowwise: bool = False
    trim: bool = True
    code_version: str | None = None
    args: Json = ()
    kwargs: Json = field(default_factory=dict)
    through: tuple[int, ...] = ()
    """The ids of what inputs were computed from themselves, where these are another view's own."""

    @property
    def uses(self) -> frozenset[int]:
        """The ids of all that the outputs depend on."""
        return frozenset((*self.inputs, *self.through))

    def does_as(self, other: "Definition") -> bool:
        """Whether it is the same code, as far as that was declared, and what it is called with."""
        if self.code_version != other.code_version or not (self.function and other.function):
            return self.code_version == other.code_version  # what cannot be imported is compared with nothing
        mine, its = (json.dumps([each.args, each.kwargs], sort_keys=True) for each in (self, other))
        return self.function == other.function and mine == its  # as text: 1 is equal to True

    def to_json(self) -> Json:
        """Return it as a document."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Definition":
        """Return what was recorded."""
        listed = {name: tuple(document[name]) for name in ("inputs", "outputs", "args", "through")}
        return cls(**{**document, **listed})


@dataclass(frozen=True, slots=True)
class Computed:
    """What own values were computed from."""

    base_version: int
    by: Definition
    filters: str | None = None
    """Which partitions of the base the view took then."""

    def saw(self, version: int, hunk: Hunk, layers: Mapping[int, frozenset[int]]) -> bool:
        """Whether what a later version of the base did is something that they depend on."""
        if version <= self.base_version:
            return False
        return hunk.layer_id == ROWS_LAYER or bool(layers.get(hunk.layer_id, frozenset()) & self.by.uses)


@dataclass(frozen=True, slots=True)
class Stored:
    """The immutable variables of a base."""

    ids: frozenset[int]
    version: int
    """That which stored them last."""

    def since(self, computed: Computed) -> bool:
        """Whether values were computed from others."""
        return computed.base_version < self.version and bool(self.ids & computed.by.uses)


NEVER_STORED = Stored(frozenset(), 0)


class OwnFragment(NamedTuple):
    """Own values in one immutable Zarr group, over rows of the base."""

    key: KeyValues
    """All six key columns."""
    layer_id: int
    uid: str
    start: int
    rows: int
    group_rows: int
    nbytes: int
    schema_version: int
    written_version: int
    base_version: int
    """The version of the base whose rows it lies over."""
    base_row: int
    """The first of them, in their partition."""
    path: str | None = None

    @property
    def slot(self) -> Slot:
        """Where it is live: a view's fragments are named by their first row, as a collection's are by the axis."""
        return Slot(self.key, self.base_row, self.layer_id)

    @property
    def identity(self) -> Identity:
        """What it is, wherever it is live."""
        return Identity(self.uid, self.start, self.rows)

    @property
    def at(self) -> Rows:
        """The rows that it lies over."""
        return self.base_row, self.base_row + self.rows

    def moved(self, rows: Rows, to: int, version: int) -> "OwnFragment":
        """Return some of its rows (counted in it), as they lie from a row on at another version of the base."""
        first, last = rows
        share = self.nbytes * last // self.rows - self.nbytes * first // self.rows
        return self._replace(
            start=self.start + first, rows=last - first, nbytes=share, base_version=version, base_row=to
        )


@dataclass(frozen=True)
class OwnPartition:
    """The own values of one partition, and what happened to its rows in the base since they were computed."""

    fragments: tuple[OwnFragment, ...]
    """Those that are live. All lie over the rows of one version of the base."""
    computed: Mapping[OwnFragment, Computed]
    since: Sequence[tuple[int, Sequence[Hunk]]]
    """What was done to the partition, by the versions of the base, since the oldest of its values was computed."""
    base_layers: Mapping[int, frozenset[int]]

    @property
    def base_version(self) -> int:
        """The version of the base over whose rows all of them lie."""
        return self.fragments[0].base_version

    @property
    def script(self) -> list[Stretch]:
        """The partition's rows now, in terms of those that the fragments lie over."""
        return follow((hunks for version, hunks in self.since if version > self.base_version), self.base_layers)

    def left(self, stored: Stored) -> tuple[OwnFragment, ...]:
        """Return those whose immutable inputs are the same still: of these, a dataset has those of one version."""
        return tuple(each for each in self.fragments if not stored.since(self.computed[each]))

    def placed(self, version: int, stored: Stored = NEVER_STORED) -> tuple[OwnFragment, ...]:
        """Return what is left of them at a version of the base: cut where rows came, without what is replaced."""
        left = self.left(stored)
        if not any(at > self.base_version for at, _ in self.since):
            return tuple(each._replace(base_version=version) for each in left)
        script = self.script
        return tuple(piece for each in left for piece in _placed(each, script, self.computed[each].by.uses, version))

    def used_were_replaced(self, of: "Iterable[OwnFragment]") -> bool:
        """Whether rows, or inputs, from which some of the fragments were computed are other ones now."""
        changes = account(self.script)
        return any(_was_used(each, change, self.computed[each].by) for each in of for change in changes)

    def outdated(self, fragment: OwnFragment) -> Reason | None:
        """Return why a fragment that is not computed row by row is stale as a whole, None if it is not."""
        computed = self.computed[fragment]
        if computed.by.rowwise:
            return None
        seen = [hunk for at, some in self.since for hunk in some if computed.saw(at, hunk, self.base_layers)]
        return ("rows" if any(each.layer_id == ROWS_LAYER for each in seen) else "inputs") if seen else None


def _placed(
    fragment: OwnFragment, script: Iterable[Stretch], inputs: frozenset[int], version: int
) -> Iterable[OwnFragment]:
    first, _ = fragment.at
    pieces: list[tuple[Rows, int]] = []
    for (low, high), to, changed in _followed(fragment.at, script):
        if changed & inputs:
            continue
        last = pieces[-1] if pieces else None
        if last is not None and last[0][1] == low and last[1] + last[0][1] - last[0][0] == to:
            pieces[-1] = (last[0][0], high), last[1]
        else:
            pieces.append(((low, high), to))
    return [fragment.moved((low - first, high - first), to, version) for (low, high), to in pieces]


def rows_after(rows: Rows, script: Iterable[Stretch]) -> list[Rows]:
    """Return where rows are after some commits, as far as they are there."""
    return joined((to, to + high - low) for (low, high), to, _ in _followed(rows, script))


def hunks_after(hunks: Iterable[Hunk], script: Iterable[Stretch]) -> list[Hunk]:
    """Return hunks of a view's own values, over the rows as these are after some commits, as far as they are there."""
    script = tuple(script)
    return [
        replace(hunk, row_start=start, removed=stop - start, added=stop - start)
        for hunk in hunks
        for start, stop in rows_after((hunk.row_start, hunk.row_start + hunk.removed), script)
    ]


def _followed(rows: Rows, script: Iterable[Stretch]) -> Iterator[tuple[Rows, int, frozenset[int]]]:
    """Yield what is left of rows after some commits, where it begins then, and which variables have other values."""
    after = 0
    for each in script:
        if each.origin is not None:
            low, high = max(rows[0], each.origin), min(rows[1], each.origin + each.rows)
            if low < high:
                yield (low, high), after + low - each.origin, each.variables
        after += each.rows


def _was_used(fragment: OwnFragment, change: RowChange, by: Definition) -> bool:
    if max(change.before[0], fragment.at[0]) >= min(change.before[1], fragment.at[1]):
        return False  # rows that came between those that it lies over are none of them
    if change.variables is not None:
        return bool(change.variables & by.uses)
    came = change.after[1] > change.after[0]
    return came or not by.rowwise


def visible(fragments: Iterable[OwnFragment]) -> dict[OwnFragment, list[Rows]]:
    """Return which rows each fragment shows of a variable that all of them have: of two, the one written later."""
    shown: dict[OwnFragment, list[Rows]] = {}
    covered: list[Rows] = []
    for each in sorted(fragments, key=lambda each: (-each.written_version, -each.layer_id)):
        shown[each] = without([each.at], covered)
        covered = joined([*covered, each.at])
    return shown


def joined(ranges: Iterable[Rows]) -> list[Rows]:
    """Return the rows of some ranges, in order, as few ranges."""
    result: list[Rows] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1]:
            result[-1] = result[-1][0], max(result[-1][1], last)
        elif first < last:
            result.append((first, last))
    return result


def without(ranges: Iterable[Rows], others: Iterable[Rows]) -> list[Rows]:
    """Return the rows of some ranges that are in none of the others."""
    gone = joined(others)
    rest: list[Rows] = []
    for first, last in joined(ranges):
        edges = [first, *(min(max(edge, first), last) for each in gone for edge in each), last]
        rest += [(low, high) for low, high in list(pairwise(edges))[::2] if low < high]
    return rest


@dataclass(frozen=True, slots=True)
class Stale:
    """What of one own variable has to be computed in a partition, and why."""

    reason: Reason
    rows: tuple[Rows, ...]
    """Which rows have no value, or, of what is computed by whole partitions, all."""


_REASONS: tuple[Reason, ...] = ("new", "rows", "inputs", "neighbour", "code")


def first_reason(stale: Iterable[Stale]) -> Reason:
    """Return the one that is told of several."""
    return min((each.reason for each in stale), key=_REASONS.index)


def stale_rows(
    variable: int,
    rows: int,
    partition: OwnPartition | None,
    placed: Sequence[OwnFragment],
    layers: Mapping[int, frozenset[int]],
    definitions: Mapping[int, Definition],
    stored: Stored,
) -> Stale | None:
    """Return what of a variable is stale in a partition of so many rows; None if nothing is.

    Parameters
    ----------
    variable
        Its id.
    rows
        How many rows the partition has at the version of the base that is asked about.
    partition, placed
        The own fragments as they are live, and where they lie at that version; None if there are none.
    layers
        The ids of the variables of each own layer.
    definitions
        How variables are computed now, by variable, as far as that is known.
    stored
        When immutable variables were stored last.
    """
    everything = ((0, rows),)
    mine = [each for each in partition.fragments if variable in layers[each.layer_id]] if partition else []
    if partition is None or not mine:
        return Stale("new", everything)
    for each, shown in visible(mine).items():
        if not shown:
            continue
        if (reason := partition.outdated(each)) is not None:
            return Stale(reason, everything)
        computed = partition.computed[each]
        if stored.since(computed):
            return Stale("inputs", everything)
        if variable in definitions and not computed.by.does_as(definitions[variable]):
            return Stale("code", everything)
    missing = without(everything, [each.at for each in placed if variable in layers[each.layer_id]])
    if not missing:
        return None
    changed = {change.variables is not None for change in account(partition.script)}
    return Stale("inputs" if changed == {True} else "rows", tuple(missing))


@dataclass(frozen=True)
class Overlay:
    """What a view has of its own, over the rows of a snapshot, which are its base's."""

    base: CollectionRecord
    base_version: int
    """The base's version that the view is over; single partitions may be read at an older one."""
    live: Mapping[KeyValues, tuple[OwnFragment, ...]]
    """The own fragments of each partition that has some, as they are recorded."""
    placed: Mapping[KeyValues, tuple[OwnFragment, ...]]
    """The same, where they lie over the rows of the snapshot."""
    layers: Mapping[int, frozenset[int]]
    """The ids of the variables of each own layer."""
    stale: Mapping[KeyValues, Mapping[int, Stale]]
    """By partition and variable, of the variables that were asked for."""
    behind: Mapping[KeyValues, int]
    """The partitions that are read at an older version of the base, and which."""
    definitions: tuple[Definition, ...]
    is_pinned: bool
    """Whether it stays over this version of its base."""
    filters: str | None
    """Which partitions of its base it takes, None for all."""
    own_ids: int
    """From here on its own variables are numbered."""
    uses: Mapping[int, frozenset[int]]
    """By own variable, the ids of all that its values depend on."""
    below: "Overlay | None"
    """What its base has of its own, which is a view then."""

    def with_older(self, older: "Overlay", keys: Iterable[KeyValues]) -> "Overlay":
        """Return it with what some partitions had at an older version, of all that it is over too."""
        placed = {**self.placed, **{key: older.placed.get(key, ()) for key in keys}}
        below = self.below and older.below and self.below.with_older(older.below, keys)
        return replace(self, placed=placed, below=below)

    @property
    def root(self) -> CollectionRecord:
        """The collection whose rows they are."""
        return self.base if self.below is None else self.below.root

    @property
    def read(self) -> tuple[tuple[CollectionRecord, int], ...]:
        """What it is over, and what that is over, at which versions."""
        return ((self.base, self.base_version), *(self.below.read if self.below else ()))

    def reasons(self, there: Iterable[KeyValues]) -> dict[KeyValues, Reason]:
        """Return why own values have to be computed, by partition, where some have: of several reasons, the first.

        What is there are the partitions of the base that it takes; without the others, it has to give up own values.
        """
        found: dict[KeyValues, Reason] = dict.fromkeys(self.live.keys() - {*there}, "gone")
        return found | {key: first_reason(stale.values()) for key, stale in self.stale.items()}


class Asked(NamedTuple):
    """What is asked of a view: which variables, and what is to be done with partitions where they are stale."""

    names: frozenset[str] | None = None
    """None for all."""
    stale: WhenStale = "last"
    tells: bool = False
    """Whether all that is stale is to be told."""
    base_version: int | None = None
    """The version of its base that it is over; None for that of its version, or, for the head, of the base's head."""
