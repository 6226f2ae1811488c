"""Hunks of many commits as one account of rows, against a partition that is a list of numbered rows."""

from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.difference import RowChange, compose
from registry.records import Hunk

KEY = (1, 0, 0, 0, 0, 0)
LAYERS = {1: frozenset({7}), 2: frozenset({7, 8})}


@dataclass
class Partition:
    """A partition whose rows know who they are, and which of their variables have been written over."""

    rows: list[tuple[int, frozenset[int]]]
    commits: list[list[Hunk]] = field(default_factory=list)
    born: int = 1000

    def commit(self, rng: Random) -> None:
        """Do something to disjoint stretches of rows, and record the hunks, in no order."""
        hunks, rows, at = [], list(self.rows), len(self.rows)
        while at >= 0 and rng.random() < 0.8:
            stop = rng.randint(0, at)
            start = rng.randint(max(0, stop - 3), stop)
            kind = rng.choice(["rows", "layer"])
            if kind == "layer" and stop > start:
                layer = rng.choice([1, 2])
                hunks.append(Hunk(KEY, layer, start, stop - start, stop - start, 0, 9))
                rows[start:stop] = [(who, changed | LAYERS[layer]) for who, changed in rows[start:stop]]
            elif kind == "rows":
                added = rng.randint(0 if stop > start else 1, 3)
                hunks.append(Hunk(KEY, 0, start, stop - start, added, 0, 9))
                rows[start:stop] = [(self.born + number, frozenset()) for number in range(added)]
                self.born += added
            at = start - 1  # hunks do not meet
        rng.shuffle(hunks)
        self.rows = rows
        self.commits.append(hunks)


@given(st.integers(0, 2**32), st.integers(0, 12), st.integers(0, 8))
def test_the_account_says_of_each_row_whether_it_came_went_or_changed(seed: int, size: int, count: int) -> None:
    rng, before = Random(seed), [(number, frozenset[int]()) for number in range(size)]
    partition = Partition(list(before))
    for _ in range(count):
        partition.commit(rng)
    changes = compose(partition.commits, LAYERS)
    after = partition.rows
    # Rows between the changes are the same ones, one by one.
    old = new = 0
    for change in (*changes, RowChange((size, size), (len(after), len(after)))):
        assert change.before[0] - old == change.after[0] - new >= 0
        assert after[new : change.after[0]] == before[old : change.before[0]]
        gone, come = before[slice(*change.before)], after[slice(*change.after)]
        if change.variables is None:
            assert not {who for who, _ in gone} & {who for who, _ in come}
        else:
            assert [who for who, _ in gone] == [who for who, _ in come]
            assert {changed for _, changed in come} == {change.variables}
        old, new = change.before[1], change.after[1]
    # Nothing is told twice, and neighbours of one kind are one.
    assert all(a.before[1] < b.before[0] or a.variables != b.variables for a, b in pairwise(changes))


def test_what_came_and_went_again_is_not_told() -> None:
    came, went = Hunk(KEY, 0, 5, 0, 3), Hunk(KEY, 0, 5, 3, 0)
    assert compose([[came], [went]], {}) == ()


def test_a_layer_of_which_no_variable_is_alive_is_not_told() -> None:
    assert compose([[Hunk(KEY, 1, 0, 5, 5)]], {1: frozenset()}) == ()


@pytest.mark.parametrize("last_first", [False, True])
def test_the_hunks_of_one_commit_are_counted_in_what_was_there_before_all_of_them(last_first: bool) -> None:
    hunks = [Hunk(KEY, 0, 0, 1, 4), Hunk(KEY, 0, 10, 2, 0), Hunk(KEY, 1, 20, 1, 1)]
    expected = (RowChange((0, 1), (0, 4)), RowChange((10, 12), (13, 13)), RowChange((20, 21), (21, 22), LAYERS[1]))
    assert compose([hunks[::-1] if last_first else hunks], LAYERS) == expected
