"""What changed between two versions: the hunks of the commits between them, composed into one account of rows.

Nothing is compared, and nothing but the hunks is asked: they are integers, and compose by counting, as the edits of a
text do (Ellis and Gibbs, "Concurrency control in groupware systems", 1989). Rows that were written anew with the values
that they had count as changed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    immutables: bool = field(default=False)
    """Whether immutable variables were stored, or replaced."""


class _Stretch(NamedTuple):
    """Consecutive rows of a partition: some that were there from row ``origin`` on, or (None) that came since."""

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
    stretches = [_Stretch(0, _UNKNOWN)]
    for hunks in commits:
        # Rows are counted as they were before the commit: from the last one on, what is before stays where it is.
        for hunk in sorted(hunks, key=lambda each: (each.layer_id > ROWS_LAYER, each.row_start), reverse=True):
            first = _split(stretches, hunk.row_start)
            last = _split(stretches, hunk.row_start + hunk.removed)
            if hunk.layer_id == ROWS_LAYER:
                stretches[first:last] = [_Stretch(None, hunk.added)] if hunk.added else []
            elif changed := layers.get(hunk.layer_id):
                stretches[first:last] = [
                    each._replace(variables=each.variables | changed) for each in stretches[first:last]
                ]
    return tuple(_account(stretches))


def _split(stretches: list[_Stretch], row: int) -> int:
    """Have a stretch begin at a row, and return its number."""
    end = 0
    for number, each in enumerate(stretches):
        if end == row:
            return number
        end += each.rows
        if end > row:
            head = each.rows - (end - row)
            tail = None if each.origin is None else each.origin + head
            stretches[number : number + 1] = [each._replace(rows=head), each._replace(origin=tail, rows=end - row)]
            return number + 1
    return len(stretches)


def _account(stretches: Iterable[_Stretch]) -> Iterator[RowChange]:
    before = after = come = 0  # rows told of already, in both versions, and those that came since
    told: RowChange | None = None
    for each in stretches:
        if each.origin is None:
            come += each.rows
            continue
        if come or each.origin > before:
            if told is not None:
                yield told
            yield RowChange((before, each.origin), (after, after + come))
            told = None
        after += come
        end = each.origin + each.rows, after + each.rows
        if told is not None and told.variables == each.variables:
            told = told._replace(before=(told.before[0], end[0]), after=(told.after[0], end[1]))
        else:
            if told is not None:
                yield told
            told = RowChange((each.origin, end[0]), (after, end[1]), each.variables) if each.variables else None
        before, after, come = *end, 0
    assert told is None  # the last rows are those that nobody has asked about


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
