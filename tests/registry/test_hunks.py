"""The hunks of a commit, against plain lists of numbered rows: what they name changed, and what they do not did not."""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import (
    CollectionRecord,
    Cut,
    FragmentRecord,
    Hunk,
    Kept,
    Registry,
    Run,
    Slot,
    Version,
    Written,
    pad_key,
)
from registry.changes import PutFragments
from registry.changes.hunks import hunks_of_layers, hunks_of_runs, joined
from tests.conftest import both_engines

from .conftest import Sql, change, commit, fragment

pytestmark = both_engines

KEY = pad_key((2022, 1))
LAYER = frozenset({1})

Row = tuple[int, int]
"""An axis value, and a number that no other row has: neither another one at this value nor a later one in its place."""

Range = tuple[int, int]


# Rules, on a few rows


def part(low: int, high: int, rows: int | None = None, layer: int | frozenset[int] = 0) -> Written:
    """Rows of a partition, one for each axis value if nothing else is said."""
    rows = high - low + 1 if rows is None else rows
    return fragment(2022, 1, layer=layer, axis_min=low, axis_max=high, rows=rows, nbytes=8 * rows)


def live(*written: Written, begin: int = 1) -> list[FragmentRecord]:
    """Parts as they are recorded."""
    return [
        FragmentRecord(KEY, e.axis_min, 0, e.uid, e.start, e.rows, e.rows, e.nbytes, e.axis_max, begin, begin, 0, None)
        for e in written
    ]


def hunks(before: Sequence[FragmentRecord], update: PutFragments) -> list[tuple[int, ...]]:
    """The hunks of rows, without their key and layer."""
    found = joined(hunks_of_runs({KEY: list(before)}, update))
    assert all((hunk.key, hunk.layer_id) == (KEY, 0) for hunk in found)
    return [(hunk.row_start, hunk.removed, hunk.added, *bounds(hunk)) for hunk in found]


def bounds(hunk: Hunk) -> Range:
    assert hunk.axis_min is not None
    assert hunk.axis_max is not None
    return hunk.axis_min, hunk.axis_max


def test_rows_that_come_before_between_and_behind_parts_have_a_hunk_there() -> None:
    before = live(part(10, 19), part(40, 49))
    ranges = [(0, 5), (25, 30), (60, 60)]
    update = PutFragments(tuple(part(*each) for each in ranges), runs=tuple(Run(KEY, each) for each in ranges))
    assert hunks(before, update) == [(0, 0, 6, 0, 5), (10, 0, 6, 25, 30), (20, 0, 1, 60, 60)]


def test_what_a_run_cuts_out_of_a_part_went() -> None:
    before = live(part(0, 9), part(20, 29))
    kept = Kept(0, 4, 0, 3), Kept(6, 4, 6, 9)
    update = PutFragments((part(4, 5, rows=7),), (Cut(KEY, 0, kept),), (Run(KEY, (4, 5)),))
    assert hunks(before, update) == [(4, 2, 7, 4, 5)]


def test_what_a_run_over_several_parts_meets_of_each_went() -> None:
    before = live(part(0, 9), part(20, 29), part(40, 49))
    cuts = Cut(KEY, 0, (Kept(0, 5, 0, 4),)), Cut(KEY, 20), Cut(KEY, 40, (Kept(1, 9, 41, 49),))
    assert hunks(before, PutFragments((), cuts, (Run(KEY, (5, 40)),))) == [(5, 16, 0, 5, 40)]


def test_a_run_in_a_hole_within_a_part_divides_it_and_nothing_went() -> None:
    before = live(part(0, 9, rows=4))  # at 0, 1, 8 and 9
    kept = Kept(0, 2, 0, 1), Kept(2, 2, 8, 9)
    update = PutFragments((part(4, 5),), (Cut(KEY, 0, kept),), (Run(KEY, (4, 5)),))
    assert hunks(before, update) == [(2, 0, 2, 4, 5)]


def test_runs_between_which_no_row_stands_have_one_hunk_and_others_their_own() -> None:
    before = live(part(0, 9), part(100, 109))
    ranges = [(20, 21), (30, 30), (40, 42), (120, 120)]
    update = PutFragments(tuple(part(*each) for each in ranges), runs=tuple(Run(KEY, each) for each in ranges))
    assert hunks(before, update) == [(10, 0, 6, 20, 42), (20, 0, 1, 120, 120)]


def test_of_runs_that_cut_neighbouring_rows_the_hunks_are_one() -> None:
    before = live(part(0, 9))
    cuts = (Cut(KEY, 0, (Kept(0, 4, 0, 3), Kept(6, 4, 6, 9))),)
    update = PutFragments((part(4, 4), part(5, 5)), cuts, (Run(KEY, (4, 4)), Run(KEY, (5, 5))))
    assert hunks(before, update) == [(4, 2, 2, 4, 5)]


@pytest.mark.parametrize("before", [live(), live(part(0, 9)), live(part(0, 9), part(20, 29))])
def test_of_a_whole_partition_all_rows_went_and_all_written_ones_came(before: list[FragmentRecord]) -> None:
    update = PutFragments((part(5, 6), part(50, 59)), runs=(Run(KEY),))
    low = 0 if before else 5
    assert hunks(before, update) == [(0, sum(each.rows for each in before), 12, low, 59)]


def test_where_nothing_was_and_nothing_came_there_is_no_hunk() -> None:
    before = live(part(0, 9), part(20, 29))
    assert hunks(before, PutFragments((), runs=(Run(KEY, (12, 18)),))) == []
    assert hunks([], PutFragments((), runs=(Run(KEY),))) == []


def test_the_same_values_elsewhere_make_no_hunk() -> None:
    before = live(part(0, 9), part(20, 29))
    assert hunks(before, PutFragments((part(0, 29, rows=20),), (Cut(KEY, 0), Cut(KEY, 20)))) == []


def test_a_layer_changes_the_rows_of_the_parts_that_it_is_written_over() -> None:
    before = {KEY: live(part(0, 9), part(20, 24), part(40, 42))}
    written = [Slot(KEY, 0, 1), Slot(KEY, 20, 1), Slot(KEY, 40, 2), Slot((0,) * 6, 0, -1)]
    assert joined(hunks_of_layers(before, written)) == [
        Hunk((0,) * 6, -1, 0, 0, 0),
        Hunk(KEY, 1, 0, 15, 15, 0, 24),
        Hunk(KEY, 2, 15, 3, 3, 40, 42),
    ]


def test_a_layer_over_pieces_of_a_part_changes_its_rows_once_and_over_new_rows_none() -> None:
    before = {KEY: live(part(0, 9))}
    assert joined(hunks_of_layers(before, [Slot(KEY, 0, 1), Slot(KEY, 6, 1), Slot(KEY, 30, 1)])) == [
        Hunk(KEY, 1, 0, 10, 10, 0, 9)
    ]


# Histories of a partition


@dataclass
class Step:
    """What a commit does, and what it did to numbered rows."""

    update: PutFragments
    touched: frozenset[int] = frozenset()
    """The numbers of the rows that were there and lay in the range of a run."""
    computed: frozenset[int] = frozenset()
    """Those over which a layer was written."""


@dataclass
class Numbered:
    """A partition as plain lists: of each part the record, and its rows."""

    rng: random.Random
    parts: list[tuple[FragmentRecord, list[Row]]] = field(default_factory=list)
    count: int = 0
    groups: dict[str, list[Row]] = field(default_factory=dict)
    """The rows of each group that was written, by its uid."""

    @property
    def rows(self) -> list[Row]:
        """All rows, in the order of the axis."""
        return [row for _, rows in self.parts for row in rows]

    def records(self) -> list[FragmentRecord]:
        """The parts as they are recorded."""
        return [record for record, _ in self.parts]

    def step(self, version: int) -> Step:
        """Do something; return what it asks for."""
        what = self.rng.random()
        if what < 0.15 and self.parts:
            return self.compute()
        if what < 0.25:
            return self.rewrite(version)
        if what < 0.35:
            return self.replace(version)
        return self.cut(version)

    def some(self, low: int, high: int, least: int = 0) -> list[Row]:
        """Some new rows in a range, which may repeat an axis value."""
        times = sorted(self.rng.randint(low, high) for _ in range(self.rng.randint(least, 4)))
        self.count += len(times)
        return list(zip(times, range(self.count - len(times), self.count), strict=True))

    def put(self, rows: list[Row], version: int) -> Written:
        """Write rows as a part."""
        low, high = rows[0][0], rows[-1][0]
        written = part(low, high, len(rows))
        self.groups[written.uid] = rows
        self.parts.append((live(written, begin=version)[0], rows))
        self.parts.sort(key=lambda each: each[0].axis_min)
        return written

    def ranges(self) -> list[Range]:
        """Some ranges of the axis that do not touch."""
        edges = sorted(self.rng.sample(range(40), 2 * self.rng.randint(1, 3)))
        pairs = list(zip(edges[::2], edges[1::2], strict=True))
        return [(low, self.rng.choice([low, high])) for low, high in pairs]

    def cut(self, version: int) -> Step:
        """Runs: of the rows in their ranges some go, some are written again with new ones, the rest stays in place."""
        ranges, before = self.ranges(), self.parts
        inside = [[row for row in self.rows if low <= row[0] <= high] for low, high in ranges]
        self.parts, cuts = [], []
        for record, rows in before:
            assert record.axis_max is not None
            if not any(record.axis_min <= high and low <= record.axis_max for low, high in ranges):
                self.parts.append((record, rows))
                continue
            kept = [self.keep(record, rows, offset, last, version) for offset, last in pieces(rows, ranges)]
            cuts.append(Cut(KEY, record.axis_min, tuple(kept)))
        written = []
        for (low, high), old in zip(ranges, inside, strict=True):
            stay = [row for row in old if self.rng.random() < 0.5]
            if rows := sorted(stay + self.some(low, high)):
                written.append(self.put(rows, version))
        self.parts.sort(key=lambda each: each[0].axis_min)
        runs = tuple(Run(KEY, each) for each in ranges)
        touched = frozenset(number for rows in inside for _, number in rows)
        return Step(PutFragments(tuple(written), tuple(cuts), runs), touched)

    def keep(self, record: FragmentRecord, rows: list[Row], offset: int, last: int, version: int) -> Kept:
        """Keep some rows of a part, in the same group."""
        times = [row[0] for row in rows[offset:last]]
        kept = Kept(offset, last - offset, times[0], times[-1], len(set(times)) == len(times))
        ends = record._replace(axis_min=kept.axis_min, axis_max=kept.axis_max, axis_unique=kept.axis_unique)
        here = ends._replace(start=record.start + offset, rows=kept.rows, begin_version=version)
        self.parts.append((here, rows[offset:last]))
        return kept

    def replace(self, version: int) -> Step:
        """The whole partition goes, and new rows may come."""
        touched = frozenset(number for _, number in self.rows)
        self.parts = []
        rows = self.some(0, 39)
        written = (self.put(rows, version),) if rows else ()
        return Step(PutFragments(written, (), (Run(KEY),)), touched)

    def rewrite(self, version: int) -> Step:
        """All parts become one, with the same values."""
        cuts, rows = tuple(Cut(KEY, record.axis_min) for record, _ in self.parts), self.rows
        self.parts = []
        return Step(PutFragments((self.put(rows, version),) if rows else (), cuts))

    def compute(self) -> Step:
        """A layer is written over some parts."""
        chosen = self.rng.sample(self.parts, self.rng.randint(1, len(self.parts)))
        written = []
        for record, rows in chosen:
            assert record.axis_max is not None
            written.append(part(record.axis_min, record.axis_max, len(rows), LAYER))
            self.groups[written[-1].uid] = rows
        numbers = frozenset(number for _, rows in chosen for _, number in rows)
        return Step(PutFragments(tuple(written)), computed=numbers)


def pieces(rows: list[Row], ranges: list[Range]) -> Iterator[Range]:
    """Which rows stay between ranges: from the first to the last of each piece, that not included."""
    lows, highs = [low for low, _ in ranges], [high for _, high in ranges]
    edges = [0]
    for low, high in zip(lows, highs, strict=True):
        edges += [sum(t < low for t, _ in rows), sum(t <= high for t, _ in rows)]
    edges.append(len(rows))
    return ((first, last) for first, last in zip(edges[::2], edges[1::2], strict=True) if first < last)


def follow(count: int, history: Sequence[Sequence[Hunk]]) -> tuple[list[int | None], set[int]]:
    """Where rows are after the hunks of some versions, None for those that went; and those with other values."""
    places: list[int | None] = list(range(count))
    changed = set()
    for made in history:
        for row, place in enumerate(places):
            if place is None:
                continue
            hit = {hunk.layer_id for hunk in made if hunk.row_start <= place < hunk.row_start + hunk.removed}
            changed |= {row} if hit - {0} else set()
            before = [hunk for hunk in made if hunk.layer_id == 0 and hunk.row_start + hunk.removed <= place]
            places[row] = None if 0 in hit else place + sum(hunk.added - hunk.removed for hunk in before)
    return places, changed


def check(rows: Sequence[Sequence[Row]], steps: Sequence[Step], made: Sequence[Sequence[Hunk]]) -> None:
    """Between any two versions, the hunks name all rows that came, went or changed, and others only within runs."""
    for first in range(len(rows)):
        for last in range(first, len(rows)):
            places, changed = follow(len(rows[first]), made[first:last])
            touched = frozenset[int]().union(*(step.touched for step in steps[first:last]))
            computed = frozenset[int]().union(*(step.computed for step in steps[first:last]))
            stayed = {row: place for row, place in zip(rows[first], places, strict=True) if place is not None}
            assert {number for _, number in rows[first]} - {number for _, number in stayed} == touched & {
                number for _, number in rows[first]
            }
            assert all(rows[last][place] == row for row, place in stayed.items())
            assert list(stayed.values()) == sorted(set(stayed.values()))
            came = {row for place, row in enumerate(rows[last]) if place not in stayed.values()}
            assert {row for row in rows[last] if row not in rows[first]} <= came
            assert {number for _, number in came & set(rows[first])} <= touched
            # Rows that went may have changed before: nobody asks.
            here = {number for (_, number), place in zip(rows[first], places, strict=True) if place is not None}
            assert {rows[first][row][1] for row in changed} & here == computed & here


def apart(made: Sequence[Hunk]) -> bool:
    """Whether hunks of one layer are disjoint, in order, and do not meet."""
    return all(
        one.layer_id != two.layer_id or one.row_start + one.removed < two.row_start
        for one, two in itertools.pairwise(made)
    )


@given(st.randoms(use_true_random=False), st.integers(1, 8))
def test_hunks_composed_between_two_versions_name_every_row_that_came_went_or_changed(
    rng: random.Random, versions: int
) -> None:
    partition, rows, steps, made = Numbered(rng), list[list[Row]]([[]]), list[Step](), list[list[Hunk]]()
    for version in range(1, 1 + versions):
        before = {KEY: partition.records()}
        step = partition.step(version)
        slots = [Slot(each.key, each.axis_min, 1) for each in step.update.written if each.layer == LAYER]
        made.append(joined([*hunks_of_runs(before, step.update), *hunks_of_layers(before, slots)]))
        assert apart(made[-1])
        assert sum(hunk.added - hunk.removed for hunk in made[-1]) == len(partition.rows) - len(rows[-1])
        rows.append(partition.rows)
        steps.append(step)
    check(rows, steps, made)


@pytest.mark.parametrize("seed", range(4))
def test_the_registry_keeps_parts_and_hunks_of_a_random_history_as_the_lists_say(
    registry: Registry, collection: CollectionRecord, sql: Sql, seed: int
) -> None:
    numbered = Numbered(random.Random(seed))
    rows, steps, parts = list[list[Row]]([[]]), list[Step](), list[list[FragmentRecord]]([[]])
    last = 0
    for version in range(1, 16):
        step = numbered.step(version)
        put = step.update
        (made,) = commit(registry, change(collection, *put.written, cuts=put.cuts, runs=put.runs))
        assert made.number == version
        rows.append(numbered.rows)
        steps.append(step)
        parts.append(numbered.records())
        recorded = recorded_hunks(sql, made)
        last = version if recorded else last
        assert registry.changes("made/a", version) == ({(2022, 1): last} if last else {})
    for version, expected in enumerate(parts):
        found = registry.partitions("made/a", version=version)
        there = [each for partition in found for each in partition.parts]
        assert [each.fragments[0].identity for each in there] == [each.identity for each in expected]
        assert [each.bounds for each in there] == [(each.axis_min, each.axis_max) for each in expected]
        assert [each.fragments[0].begin_version for each in there] == [each.begin_version for each in expected]
        read = [row for each in there for row in rows_of(numbered, each.fragments[0])]
        assert read == rows[version]
        for each in there:
            assert all(rows_of(numbered, layer) == rows_of(numbered, each.fragments[0]) for layer in each.fragments)
    check(rows, steps, [recorded_hunks(sql, version) for version in registry.versions("made/a")[1:]])


def rows_of(numbered: Numbered, found: FragmentRecord) -> list[Row]:
    return numbered.groups[found.uid][found.start : found.start + found.rows]


def recorded_hunks(sql: Sql, version: Version) -> list[Hunk]:
    columns = "layer_id, row_start, removed, added, axis_min, axis_max"
    found = sql(f"SELECT {columns} FROM change WHERE version = ? ORDER BY layer_id, row_start", version.number)
    return [Hunk(KEY, *row) for row in found]
