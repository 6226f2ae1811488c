"""What changed between two versions: the hunks of the commits between them, composed into one account of rows.

Nothing is compared, and nothing but the hunks is asked: they are integers, and compose by counting, as the edits of a
text do (Ellis and Gibbs, "Concurrency control in groupware systems", 1989). Rows that were written anew with the values
that they had count as changed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

from .keys import KeyValues, PartitionKey, format_key, name_values
from .records import ROWS_LAYER, CollectionRecord, Hunk, SchemaRecord

Kind = Literal["added", "changed", "removed"]


class RowChange(NamedTuple):
    """Consecutive rows of a partition that came, went, or have other values."""

    before: tuple[int, int]
    """Which rows they were in the older version: the first, and the one after the last."""
    after: tuple[int, int]
    """Which rows they are in the newer one."""
    variables: frozenset[int] | None = None
    """The ids of the variables that have other values; None where rows went or came, and with them all values."""


@dataclass(frozen=True, slots=True)
class PartitionChange:
    """What changed in a partition."""

    key: PartitionKey
    kind: Kind
    """Whether the partition came, is another one, or went."""
    rows: tuple[RowChange, ...]
    """Where, in the order of the rows."""
    axis_range: tuple[int | None, int | None]
    """Between which axis values; datetimes as ns since 1970, None where it is not known."""
    reason: str = ""
    """Of what has to be computed: why."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many rows were added, changed and removed: as many as were written over others count as changed."""
        added = changed = removed = 0
        for each in self.rows:
            gone, come = each.before[1] - each.before[0], each.after[1] - each.after[0]
            both = min(gone, come)
            added, changed, removed = added + come - both, changed + both, removed + gone - both
        return added, changed, removed

    @property
    def variables(self) -> frozenset[int] | None:
        """The ids of the variables with other values; None for all of them, where rows went or came."""
        changed = [each.variables for each in self.rows]
        return None if None in changed else frozenset().union(*(each for each in changed if each is not None))

    def __str__(self) -> str:
        return format_key(self.key)


@dataclass(frozen=True)
class Difference:
    """What changed from one version of a collection to a later one."""

    collection: CollectionRecord
    since: int
    until: int
    partitions: Mapping[PartitionKey, PartitionChange]
    """In the order of the keys."""
    before: SchemaRecord
    after: SchemaRecord
    immutables: bool
    """Whether immutable variables were stored, or replaced."""
    base_version: int | None = None
    """Of a view: the version of its base that the newer version is over."""
    is_stale: bool = False
    """Whether it tells of own values of a view that have to be computed, not of what was done between two versions."""


class Stretch(NamedTuple):
    """Consecutive rows of a partition: some that were there from row ``origin`` on, or (None) that came since.

    Of those that were there, some variables may have other values.
    """

    origin: int | None
    rows: int
    variables: frozenset[int] = frozenset()


_UNKNOWN = 2**62
"""How many rows a partition had that nobody has asked about: more than there are."""

Layers = Mapping[int, frozenset[int]]
"""The ids of the variables of each layer."""


def compose(commits: Iterable[Sequence[Hunk]], layers: Layers) -> tuple[RowChange, ...]:
    """Return what commits did to one partition, of whose variables some are alive, as if it were one commit.

    Parameters
    ----------
    commits
        The hunks of each commit, in any order; the commits in theirs.
    layers
        The ids of the variables of each layer, without those that nobody sees any more.

    >>> first, second = Hunk((1,), 0, 10, 2, 5), Hunk((1,), 0, 14, 3, 0)
    >>> compose([[first], [second]], {})
    (RowChange(before=(10, 14), after=(10, 14), variables=None),)
    """
    return account(follow(commits, layers))


def follow(commits: Iterable[Sequence[Hunk]], layers: Layers) -> list[Stretch]:
    """Return the rows of one partition after some commits, in terms of those before them; as :func:`compose`.

    The last stretch has no end.
    """
    scripts = [script for hunks in commits for script in _scripts(hunks, layers)]
    while len(scripts) > 1:  # neighbours first: many small commits would cost their square one after the other
        scripts = [
            _then(*scripts[at : at + 2]) if at + 1 < len(scripts) else scripts[at] for at in range(0, len(scripts), 2)
        ]
    return scripts[0] if scripts else [Stretch(0, _UNKNOWN)]


def account(script: Iterable[Stretch]) -> tuple[RowChange, ...]:
    """Return what became of rows, but for those that are as they were."""
    return tuple(_account(script))


def _scripts(hunks: Iterable[Hunk], layers: Layers) -> Iterator[list[Stretch]]:
    """Yield the rows after a commit, in terms of those before it: layer by layer, and then the rows that came and went.

    All hunks are counted in what was before the commit, and layers move no rows.
    """
    of_layers: dict[int, list[Hunk]] = {}
    for hunk in sorted(hunks, key=lambda each: (-each.layer_id, each.row_start)):
        of_layers.setdefault(hunk.layer_id, []).append(hunk)
    for layer_id, some in of_layers.items():
        variables = layers.get(layer_id, frozenset())
        if layer_id != ROWS_LAYER and not variables:
            continue
        script: list[Stretch] = []
        at = 0
        for hunk in some:
            _append(script, Stretch(at, hunk.row_start - at))
            _append(
                script,
                Stretch(None, hunk.added)
                if layer_id == ROWS_LAYER
                else Stretch(hunk.row_start, hunk.removed, variables),
            )
            at = hunk.row_start + hunk.removed
        _append(script, Stretch(at, _UNKNOWN))
        yield script


def _then(first: Sequence[Stretch], second: Iterable[Stretch]) -> list[Stretch]:
    """Return the rows after two commits, in terms of those before both."""
    script: list[Stretch] = []
    number = start = 0  # a stretch of the first, and which row it begins at
    for each in second:
        if each.origin is None:
            _append(script, each)
            continue
        row, end = each.origin, each.origin + each.rows
        while row < end and number < len(first):
            here = first[number]
            skipped = row - start
            if skipped >= here.rows:
                number, start = number + 1, start + here.rows
                continue
            rows = min(here.rows - skipped, end - row)
            origin = None if here.origin is None else here.origin + skipped
            _append(script, Stretch(origin, rows, here.variables | each.variables))
            row += rows
    return script


def _append(script: list[Stretch], new: Stretch) -> None:
    """Append a stretch, or make the last one longer."""
    if new.origin is None:
        new = Stretch(None, new.rows)  # all values of new rows are new
    if script and script[-1].variables == new.variables and _end(script[-1]) == new.origin:
        script[-1] = script[-1]._replace(rows=script[-1].rows + new.rows)
    elif new.rows:
        script.append(new)


def _end(stretch: Stretch) -> int | None:
    """Return which row comes after it, None where that is another new one."""
    return None if stretch.origin is None else stretch.origin + stretch.rows


def _account(script: Iterable[Stretch]) -> Iterator[RowChange]:
    before = after = come = 0  # rows told of already, in both versions, and those that came since
    for each in script:
        if each.origin is None:
            come += each.rows
            continue
        if come or each.origin > before:
            yield RowChange((before, each.origin), (after, after + come))
        before, after, come = each.origin, after + come, 0
        if each.variables:
            yield RowChange((before, before + each.rows), (after, after + each.rows), each.variables)
        before, after = before + each.rows, after + each.rows


def by_partition(hunks: Iterable[tuple[int, Hunk]]) -> Iterator[tuple[KeyValues, list[list[Hunk]]]]:
    """Yield the hunks of each partition, commit by commit, of hunks with their versions in the order of both."""
    for key, group in groupby(hunks, key=lambda each: each[1].key):
        yield key, [[hunk for _, hunk in commit] for _, commit in groupby(group, key=lambda each: each[0])]


def partition_change(
    collection: CollectionRecord, key: KeyValues, commits: Sequence[Sequence[Hunk]], layers: Layers, rows: int
) -> PartitionChange | None:
    """Return what commits did to a partition that has so many rows after them; None for nothing that is seen."""
    changes = compose(commits, layers)
    if not changes:
        return None
    hunks = [hunk for commit in commits for hunk in commit if hunk.layer_id == ROWS_LAYER or layers.get(hunk.layer_id)]
    rows_before = rows - sum(each.added - each.removed for each in hunks if each.layer_id == ROWS_LAYER)
    kind: Kind = "changed" if rows and rows_before else "added" if rows else "removed"
    names = collection.keys
    return PartitionChange(name_values(names, key[: len(names)]), kind, changes, _range(hunks))


def _range(hunks: Iterable[Hunk]) -> tuple[int | None, int | None]:
    lows = [hunk.axis_min for hunk in hunks if hunk.removed or hunk.added]
    highs = [hunk.axis_max for hunk in hunks if hunk.removed or hunk.added]
    low = None if None in lows else min((each for each in lows if each is not None), default=None)
    return low, None if None in highs else max((each for each in highs if each is not None), default=None)
