"""Where own values of a view lie, and what of them is stale, against a partition that is a list of numbered rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.difference import follow
from registry.overlay import (
    Computed,
    Definition,
    OwnFragment,
    OwnPartition,
    Rows,
    Stale,
    Stored,
    joined,
    rows_after,
    stale_rows,
    visible,
    without,
)
from registry.records import Hunk

KEY = (1, 0, 0, 0, 0, 0)
X, Y = 7, 8
BASE_LAYERS = {1: frozenset({X}), 2: frozenset({X, Y})}
OWN, OTHER = 2**20, 2**20 + 1
OWN_LAYERS = {1: frozenset({OWN}), 2: frozenset({OWN, OTHER}), 3: frozenset({OTHER})}

ranges = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda ends: (min(ends), max(ends))), max_size=6
)
seeds = st.integers(0, 2**32)


def numbers(some: Iterable[Rows]) -> list[int]:
    return [number for first, last in some for number in range(first, last)]


# Ranges of rows


@given(ranges)
def test_joined_ranges_have_the_same_rows_in_order_and_do_not_touch(some: list[Rows]) -> None:
    found = joined(some)
    assert numbers(found) == sorted({*numbers(some)})
    assert all(before[1] < after[0] for before, after in pairwise(found))


@given(ranges, ranges)
def test_the_rows_without_others_are_those_that_are_in_none_of_them(some: list[Rows], others: list[Rows]) -> None:
    found = without(some, others)
    assert numbers(found) == sorted({*numbers(some)} - {*numbers(others)})
    assert all(first < last for first, last in found)


# Rows of the base that come, go and change


@dataclass
class Base:
    """A partition whose rows know who they are, and how often each of their variables was written."""

    rows: list[tuple[int, int, int]]
    """Who it is, and the values of X and Y."""
    version: int = 0
    commits: list[tuple[int, list[Hunk]]] = field(default_factory=list)
    past: list[list[tuple[int, int, int]]] = field(default_factory=list)
    born: int = 1000

    def commit(self, rng: Random) -> None:
        """Do something to disjoint stretches of rows, and record the hunks, in no order."""
        self.past.append(list(self.rows))
        self.version += 1
        hunks, rows, at = [], list(self.rows), len(self.rows)
        while at >= 0 and rng.random() < 0.7:
            stop = rng.randint(0, at)
            start = rng.randint(max(0, stop - 3), stop)
            layer = rng.choice([0, 0, 1, 2])
            self.born += 10
            if layer and stop > start:
                hunks.append(Hunk(KEY, layer, start, stop - start, stop - start))
                changed = BASE_LAYERS[layer]
                rows[start:stop] = [
                    (who, self.born if X in changed else x, self.born if Y in changed else y)
                    for who, x, y in rows[start:stop]
                ]
            elif not layer:
                added = rng.randint(0 if stop > start else 1, 3)
                hunks.append(Hunk(KEY, 0, start, stop - start, added))
                rows[start:stop] = [(self.born + number, 0, 0) for number in range(added)]
            at = start - 1  # hunks do not meet
        rng.shuffle(hunks)
        if hunks:
            self.commits.append((self.version, hunks))
        self.rows = rows

    def at(self, version: int) -> list[tuple[int, int, int]]:
        return self.past[version] if version < self.version else self.rows


def a_base(seed: int, commits: int) -> tuple[Base, Random]:
    rng = Random(seed)
    base = Base([(number, 0, 0) for number in range(rng.randint(0, 10))])
    for _ in range(commits):
        base.commit(rng)
    return base, rng


@given(seeds, st.integers(0, 5))
def test_rows_are_found_after_commits_as_far_as_they_are_there(seed: int, commits: int) -> None:
    base, rng = a_base(seed, commits)
    before, after = base.at(0), base.rows
    first = rng.randint(0, len(before))
    some = first, rng.randint(first, len(before))
    names = {who for who, *_ in before[slice(*some)]}
    found = rows_after(some, follow((hunks for _, hunks in base.commits), BASE_LAYERS))
    assert numbers(found) == [place for place, (who, *_) in enumerate(after) if who in names]


# Own fragments


def fragment(
    rows: Rows, *, start: int = 0, version: int = 1, over: int = 0, layer: int = 1, uid: str = "a"
) -> OwnFragment:
    first, last = rows
    return OwnFragment(KEY, layer, uid, start, last - first, 100, 800, 1, version, over, first)


def by(*inputs: int, rowwise: bool = True, code: str | None = None) -> Definition:
    return Definition("m:f", inputs, (OWN,), rowwise=rowwise, code_version=code)


def own_over(base: Base, fragments: Sequence[OwnFragment], definition: Definition, computed_at: int) -> OwnPartition:
    since = [(at, hunks) for at, hunks in base.commits if at > computed_at]
    computed = dict.fromkeys(fragments, Computed(computed_at, definition))
    return OwnPartition(tuple(fragments), computed, since, BASE_LAYERS)


def some_fragments(rng: Random, rows: int, over: int) -> list[OwnFragment]:
    """Over some of the rows, in several groups, each from any of its rows on."""
    edges = sorted({0, rows, *(rng.randint(0, rows) for _ in range(3))})
    pairs = [(low, high) for low, high in pairwise(edges) if rng.random() < 0.8]
    return [fragment(each, start=rng.randint(0, 50), over=over, uid=f"g{n}") for n, each in enumerate(pairs)]


@given(seeds, st.integers(0, 6), st.sampled_from([(), (X,), (Y,), (X, Y)]))
def test_own_values_stay_beside_the_rows_and_inputs_that_they_were_computed_from(
    seed: int, commits: int, inputs: tuple[int, ...]
) -> None:
    base, rng = a_base(seed, commits)
    over = rng.randint(0, base.version)
    before, after = base.at(over), base.rows
    if not (fragments := some_fragments(rng, len(before), over)):
        return
    own = own_over(base, fragments, by(*inputs), computed_at=over)

    def seen(row: tuple[int, int, int]) -> tuple[int, ...]:
        who, x, y = row
        return who, *((x,) if X in inputs else ()), *((y,) if Y in inputs else ())

    expected = {}
    for each in fragments:
        for row in range(each.rows):
            expected[seen(before[each.base_row + row])] = each.uid, each.start + row
    found: dict[int, tuple[str, int]] = {}
    for piece in own.placed(base.version):
        assert piece.base_version == base.version
        assert piece.rows > 0
        for row in range(piece.rows):
            assert piece.base_row + row not in found, "two own values of one row"
            found[piece.base_row + row] = piece.uid, piece.start + row
    assert found == {place: expected[seen(row)] for place, row in enumerate(after) if seen(row) in expected}


@given(seeds, st.integers(1, 6), st.sampled_from([(), (X,), (X, Y)]), st.booleans())
def test_a_partition_is_read_as_it_was_where_rows_or_inputs_that_were_used_are_other_ones(
    seed: int, commits: int, inputs: tuple[int, ...], rowwise: bool
) -> None:
    base, rng = a_base(seed, 1)
    before = list(base.rows)
    over = base.version
    if not (own := some_fragments(rng, len(before), over)):
        return
    for _ in range(commits):
        base.commit(rng)
    partition = own_over(base, own, by(*inputs, rowwise=rowwise), computed_at=over)
    there = {who: (x, y) for who, x, y in base.rows}
    used = [before[row] for each in own for row in range(*each.at)]
    changed = any(
        who in there and any(there[who][place] != values[place] for place, id_ in enumerate((X, Y)) if id_ in inputs)
        for who, *values in used
    )
    gone = any(who not in there for who, *_ in used)
    replaced = partition.used_were_replaced(own)
    if changed or (gone and not rowwise):
        assert replaced
    if not changed and not gone:
        assert not replaced


@pytest.mark.parametrize(
    ("hunk", "inputs", "rowwise", "replaced"),
    [
        (Hunk(KEY, 0, 10, 0, 5), (X,), True, False),  # rows came behind
        (Hunk(KEY, 0, 4, 0, 5), (X,), False, False),  # between
        (Hunk(KEY, 0, 4, 2, 2), (X,), True, True),  # instead of some
        (Hunk(KEY, 0, 4, 2, 0), (X,), True, False),  # some went: the others are what they were
        (Hunk(KEY, 0, 4, 2, 0), (X,), False, True),  # but for what was computed from all
        (Hunk(KEY, 1, 4, 2, 2), (X,), True, True),
        (Hunk(KEY, 1, 4, 2, 2), (Y,), False, False),
        (Hunk(KEY, 0, 12, 2, 2), (X,), True, False),  # where it has no values
    ],
)
def test_whether_what_was_used_is_replaced(hunk: Hunk, inputs: tuple[int, ...], rowwise: bool, replaced: bool) -> None:
    own = fragment((0, 10))
    partition = OwnPartition((own,), {own: Computed(0, by(*inputs, rowwise=rowwise))}, [(1, [hunk])], BASE_LAYERS)
    assert partition.used_were_replaced([own]) == replaced


def test_bytes_are_shared_out_by_rows_and_none_is_lost() -> None:
    own = fragment((0, 7))._replace(nbytes=100)
    pieces = [own.moved(rows, 0, 1) for rows in ((0, 2), (2, 3), (3, 7))]
    assert sum(each.nbytes for each in pieces) == 100


# What is seen of fragments over each other


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5), st.integers(1, 3), st.sampled_from([1, 2])), max_size=6)
)
def test_of_two_values_of_a_row_the_one_that_was_written_later_is_seen(some: list[tuple[int, int, int, int]]) -> None:
    fragments = {
        fragment((first, first + rows), version=version, layer=layer, uid=f"g{n}")
        for n, (first, rows, version, layer) in enumerate(some)
    }
    seen: dict[int, list[OwnFragment]] = {}
    for each, shown in visible(fragments).items():
        assert {*numbers(shown)} <= {*range(*each.at)}
        for row in numbers(shown):
            seen.setdefault(row, []).append(each)
    assert seen.keys() == {row for each in fragments for row in range(*each.at)}
    for row, (one, *more) in seen.items():
        assert not more
        others = [each for each in fragments if row in range(*each.at)]
        assert (one.written_version, one.layer_id) == max((each.written_version, each.layer_id) for each in others)


# What is stale


NEVER_STORED = Stored(frozenset(), 0)


def stale_of(
    base: Base, fragments: Sequence[OwnFragment], definition: Definition, over: int, code: str | None = None
) -> Stale | None:
    own = own_over(base, fragments, definition, over) if fragments else None
    placed = own.placed(base.version) if own else ()
    return stale_rows(OWN, len(base.rows), own, placed, OWN_LAYERS, {OWN: by(code=code)}, NEVER_STORED)


@given(seeds, st.integers(0, 6), st.sampled_from([(), (X,), (Y,), (X, Y)]))
def test_of_what_is_computed_row_by_row_the_rows_are_stale_that_have_no_value(
    seed: int, commits: int, inputs: tuple[int, ...]
) -> None:
    base, rng = a_base(seed, commits)
    over = rng.randint(0, base.version)
    fragments = some_fragments(rng, len(base.at(over)), over)
    stale = stale_of(base, fragments, by(*inputs), over)
    placed = own_over(base, fragments, by(*inputs), over).placed(base.version) if fragments else ()
    lacking = {*range(len(base.rows))} - {row for each in placed for row in range(*each.at)}
    if not fragments:
        assert stale == Stale("new", ((0, len(base.rows)),))
    elif not lacking:
        assert stale is None
    else:
        assert stale is not None
        assert numbers(stale.rows) == sorted(lacking)


@given(seeds, st.integers(0, 6), st.sampled_from([(), (X,), (Y,), (X, Y)]))
def test_what_is_computed_from_a_whole_partition_is_stale_by_any_row_or_input(
    seed: int, commits: int, inputs: tuple[int, ...]
) -> None:
    base, rng = a_base(seed, commits)
    over = rng.randint(0, base.version)
    rows = len(base.at(over))
    if not rows:
        return
    stale = stale_of(base, [fragment((0, rows), over=over)], by(*inputs, rowwise=False), over)
    hunks = [hunk for at, some in base.commits if at > over for hunk in some]
    of_rows = any(each.layer_id == 0 for each in hunks)
    of_inputs = any(BASE_LAYERS[each.layer_id] & {*inputs} for each in hunks if each.layer_id)
    if of_rows or of_inputs:
        assert stale == Stale("rows" if of_rows else "inputs", ((0, len(base.rows)),))
    else:
        assert stale is None


def test_another_code_version_makes_all_rows_stale() -> None:
    base, _ = a_base(1, 0)
    base.rows = [(number, 0, 0) for number in range(5)]
    own = [fragment((0, 5))]
    assert stale_of(base, own, by(X, code="1"), 0, code="1") is None
    assert stale_of(base, own, by(X, code="1"), 0, code="2") == Stale("code", ((0, 5),))


@pytest.mark.parametrize(("inputs", "version", "is_stale"), [((X,), 4, True), ((Y,), 4, False), ((X,), 3, False)])
def test_immutable_variables_that_were_stored_since_make_all_rows_stale_that_used_them(
    inputs: tuple[int, ...], version: int, is_stale: bool
) -> None:
    own = fragment((0, 5), over=3)
    partition = OwnPartition((own,), {own: Computed(3, by(*inputs))}, (), BASE_LAYERS)
    stale = stale_rows(OWN, 5, partition, partition.placed(5), OWN_LAYERS, {}, Stored(frozenset({X}), version))
    assert stale == (Stale("inputs", ((0, 5),)) if is_stale else None)


def test_what_happened_before_it_was_computed_is_nothing_to_a_value() -> None:
    own = fragment((0, 5), over=3)
    computed = {own: Computed(3, by(X, rowwise=False))}
    earlier = OwnPartition((own,), computed, [(3, [Hunk(KEY, 0, 0, 1, 1)])], BASE_LAYERS)
    assert stale_rows(OWN, 5, earlier, earlier.placed(4), OWN_LAYERS, {}, NEVER_STORED) is None
    later = OwnPartition((own,), computed, [(4, [Hunk(KEY, 0, 5, 0, 1)])], BASE_LAYERS)
    assert stale_rows(OWN, 6, later, later.placed(4), OWN_LAYERS, {}, NEVER_STORED) == Stale("rows", ((0, 6),))
