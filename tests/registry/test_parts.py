"""Partitions of several parts: what is closed, cut and checked is a part, never its whole key."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from registry import (
    CollectionRecord,
    ConflictError,
    Cut,
    FragmentRecord,
    Identity,
    Kept,
    KeyValues,
    Registry,
    Run,
    Selection,
    Totals,
    Version,
    Written,
    pad_key,
)
from registry.changes import ClosePartitions, Commit, NoOtherPart, PutFragments, Requirement, Unchanged
from tests.conftest import both_engines

from .conftest import (
    Sql,
    commit,
    fragment,
    identity_of,
    in_threads,
    live_uids,
    partition,
    parts_of,
    slot,
    slot_of,
    write,
)

pytestmark = both_engines

KEY = pad_key((2022, 1))
BELOW, ABOVE = frozenset({1}), frozenset({0, 1})


def part(low: int, high: int, layer: int | frozenset[int] = 0, key: KeyValues = (2022, 1), **fields: Any) -> Written:
    """Rows of a partition, one for each axis value."""
    rows = high - low + 1
    return fragment(
        *key, layer=layer, **({"axis_min": low, "axis_max": high, "rows": rows, "nbytes": 8 * rows} | fields)
    )


def kept(low: int, high: int, of: int = 0) -> Kept:
    """What is kept of a part that begins at an axis value."""
    return Kept(low - of, high - low + 1, low, high, True)


def put(
    registry: Registry,
    collection: CollectionRecord,
    *written: Written,
    cuts: tuple[Cut, ...] = (),
    ranges: tuple[tuple[int, int], ...] = (),
    needs: tuple[Requirement, ...] = (),
) -> Version:
    """Write into ranges of a partition's axis."""
    runs = tuple(Run(KEY, each) for each in ranges)
    (version,) = commit(registry, Commit(collection, "insert", needs, (PutFragments(written, cuts, runs),)))
    return version


def alone(*span: int | None, known: tuple[int, ...] = ()) -> NoOtherPart:
    """The demand that there are no parts in a range but known ones."""
    low, high = span
    return NoOtherPart(((KEY, low, high),), frozenset((KEY, each) for each in known))


@pytest.fixture
def two(registry: Registry, collection: CollectionRecord) -> tuple[Written, Written]:
    """A partition of two parts, from 0 to 9 and from 20 to 29, in one group."""
    first = part(0, 9, group_rows=20)
    second = part(20, 29, uid=first.uid, start=10, group_rows=20)
    put(registry, collection, first, second, ranges=((0, 29),))
    return first, second


Two = tuple[Written, Written]


def fragments(registry: Registry, layer: int = 0, **selection: Any) -> list[FragmentRecord]:
    found = partition(registry, 2022, 1, **selection)
    return [each for each in found.fragments if each.layer_id == layer]


# What ends


def test_rows_beside_others_join_their_partition_and_close_nothing(
    registry: Registry, collection: CollectionRecord, two: Two, sql: Sql
) -> None:
    put(registry, collection, part(10, 19), ranges=((10, 19),))
    assert parts_of(registry, 2022, 1) == [(0, 9, 10), (10, 19, 10), (20, 29, 10)]
    assert parts_of(registry, 2022, 1, version=1) == [(0, 9, 10), (20, 29, 10)]
    assert [each.begin_version for each in fragments(registry)] == [1, 2, 1]
    assert sql("SELECT count(*) FROM past_fragment") == [(0,)]


def test_a_whole_partition_ends_with_all_parts_and_layers_whatever_came_meanwhile(
    registry: Registry, collection: CollectionRecord, two: Two
) -> None:
    put(registry, collection, part(0, 9, BELOW), part(40, 49), part(5, 6, key=(2022, 2)))
    new = part(3, 4)
    write(registry, collection, new)
    assert live_uids(registry)[2022, 1] == (new.uid,)
    assert len(registry.partitions("made/a", version=2, keys=[(2022, 1)])[0].parts) == 3
    assert len(live_uids(registry)) == 2


def test_a_part_that_is_cut_ends_and_what_is_kept_of_it_are_rows_of_the_same_groups(
    registry: Registry, collection: CollectionRecord, two: Two
) -> None:
    layer = part(20, 29, BELOW, start=100, group_rows=500, nbytes=1000)
    put(registry, collection, layer)
    new = part(24, 25)
    cut = Cut(KEY, 20, (kept(20, 23, 20), kept(26, 29, 20)))
    put(registry, collection, new, cuts=(cut,), ranges=((24, 25),))
    rows = fragments(registry)
    assert parts_of(registry, 2022, 1) == [(0, 9, 10), (20, 23, 4), (24, 25, 2), (26, 29, 4)]
    uid = two[0].uid
    assert [each.identity for each in rows] == [(uid, 0, 10), (uid, 10, 4), (new.uid, 0, 2), (uid, 16, 4)]
    assert [each.group_rows for each in rows] == [20, 20, 2, 20]
    assert [each.nbytes for each in rows] == [80, 32, 16, 32]
    assert [each.axis_unique for each in rows] == [None, True, None, True]
    layers = fragments(registry, 1)
    assert [(each.identity, each.axis_min, each.axis_max) for each in layers] == [
        ((layer.uid, 100, 4), 20, 23),
        ((layer.uid, 106, 4), 26, 29),
    ]
    assert [(each.group_rows, each.nbytes) for each in layers] == [(500, 400)] * 2


def test_what_is_kept_has_the_values_of_before_and_begins_now(
    registry: Registry, collection: CollectionRecord, two: Two
) -> None:
    put(registry, collection, part(0, 9, BELOW))
    put(registry, collection, cuts=(Cut(KEY, 0, (kept(5, 9),)),), ranges=((0, 4),))
    moved, stayed = fragments(registry)
    (layer,) = fragments(registry, 1)
    assert [(each.begin_version, each.written_version) for each in (moved, stayed, layer)] == [(3, 1), (1, 1), (3, 2)]
    assert parts_of(registry, 2022, 1, version=2) == [(0, 9, 10), (20, 29, 10)]


def test_a_cut_moves_on_from_which_row_of_its_base_a_fragment_lies(
    registry: Registry, collection: CollectionRecord, two: Two, sql: Sql
) -> None:
    sql("UPDATE fragment SET base_version = 7, base_row = 1000 WHERE axis_min = 20")
    cut = Cut(KEY, 20, (kept(20, 21, 20), kept(25, 29, 20)))
    put(registry, collection, cuts=(cut, Cut(KEY, 0, (kept(3, 9),))), ranges=((0, 2), (22, 24)))
    found = sql("SELECT axis_min, base_version, base_row FROM fragment ORDER BY axis_min")
    assert found == [(3, None, None), (20, 7, 1000), (25, 7, 1005)]


def test_what_is_kept_of_a_part_may_be_cut_again_and_again(registry: Registry, collection: CollectionRecord) -> None:
    written = part(0, 99)
    put(registry, collection, written, ranges=((0, 99),))
    for first in range(10, 50, 10):
        cut = Cut(KEY, first - 10, (kept(first, 99, first - 10),))
        put(registry, collection, cuts=(cut,), ranges=((first - 10, first - 1),))
        assert fragments(registry)[0].identity == Identity(written.uid, first, 100 - first)
    for last in range(90, 50, -10):  # what is kept has the name of the part that ends
        put(registry, collection, cuts=(Cut(KEY, 40, (kept(40, last - 1, 40),)),), ranges=((last, last + 9),))
        assert fragments(registry)[0].identity == Identity(written.uid, 40, last - 40)
    rows = [sum(each.rows for each in registry.partitions("made/a", version=version)) for version in range(10)]
    assert rows == [0, 100, 90, 80, 70, 60, 50, 40, 30, 20]


def test_a_part_that_is_cut_beside_the_immutable_variables_leaves_them_alone(
    registry: Registry, collection: CollectionRecord
) -> None:
    immutable = fragment(layer=-1)
    put(registry, collection, part(0, 9, key=(0, 0)), immutable)
    zero = pad_key((0, 0))
    cut = Cut(zero, 0, (kept(0, 4),))
    update = PutFragments((), (cut,), (Run(zero, (5, 9)),))
    commit(registry, Commit(collection, "drop", updates=(update,)))
    found = registry.resolve("made/a").immutable
    assert found is not None
    assert (found.uid, found.begin_version) == (immutable.uid, 1)
    registry.commit(Commit(collection, "drop_partitions", updates=(ClosePartitions(Selection()),)))
    assert registry.resolve("made/a").immutable == found


def test_parts_become_one_with_the_version_that_their_values_came_from(
    registry: Registry, collection: CollectionRecord, two: Two
) -> None:
    put(registry, collection, part(40, 49), ranges=((40, 49),))
    joined = part(0, 49, rows=30, written_version=2)
    put(registry, collection, joined, cuts=tuple(Cut(KEY, low) for low in (0, 20, 40)))
    (found,) = fragments(registry)
    assert (found.identity, found.begin_version, found.written_version) == (identity_of(joined), 3, 2)
    assert registry.changes("made/a", 3) == {(2022, 1): 2}


def test_a_layer_covers_others_of_its_part_alone(registry: Registry, collection: CollectionRecord, two: Two) -> None:
    below = [part(0, 9, BELOW), part(20, 29, BELOW)]
    put(registry, collection, *below)
    above = part(0, 9, ABOVE)
    put(registry, collection, above)
    uid = two[0].uid
    assert live_uids(registry) == {(2022, 1): (uid, above.uid, uid, below[1].uid)}


def test_a_part_written_where_another_is_live_and_not_cut_is_refused(
    registry: Registry, collection: CollectionRecord, two: Two, visible: Callable[[], object]
) -> None:
    before = visible()
    with pytest.raises(ConflictError, match="another writer was faster"):
        put(registry, collection, part(20, 24), ranges=((20, 24),))
    assert visible() == before


# What has changed


@pytest.mark.parametrize(
    "known",
    [
        Identity("0" * 32, 10, 10),
        Identity("{uid}", 0, 10),
        Identity("{uid}", 10, 9),
    ],
)
def test_a_part_is_as_it_was_if_group_start_and_rows_are(
    registry: Registry, collection: CollectionRecord, two: Two, known: Identity
) -> None:
    other = known._replace(uid=known.uid.format(uid=two[0].uid))
    with pytest.raises(ConflictError) as caught:
        put(registry, collection, needs=(Unchanged({slot_of(two[1]): other}),))
    assert caught.value.keys == ("year=2022/month=01",)
    assert caught.value.conflicts[0].slots == (slot_of(two[1]),)
    put(registry, collection, needs=(Unchanged({slot_of(two[1]): identity_of(two[1])}),))


def test_a_part_that_was_cut_meanwhile_is_a_conflict_and_its_neighbour_none(
    registry: Registry, collection: CollectionRecord, two: Two
) -> None:
    first, second = (Unchanged({slot_of(each): identity_of(each)}) for each in two)
    put(registry, collection, cuts=(Cut(KEY, 20, (kept(20, 24, 20),)),), ranges=((25, 29),))
    put(registry, collection, part(5, 5), cuts=(Cut(KEY, 0, (kept(0, 4), kept(6, 9))),), needs=(first,))
    with pytest.raises(ConflictError, match="changed year=2022/month=01 while"):
        put(registry, collection, needs=(second,))


def test_a_layer_that_came_over_a_part_disturbs_who_read_this_part_alone(
    registry: Registry, collection: CollectionRecord, two: Two
) -> None:
    first, second = (Unchanged({slot_of(each): identity_of(each)}) for each in two)
    put(registry, collection, part(20, 29, BELOW))
    put(registry, collection, needs=(first,))
    with pytest.raises(ConflictError) as caught:
        put(registry, collection, needs=(second,))
    assert caught.value.conflicts[0].slots == (slot(2022, 1, layer=1, axis_min=20),)


@pytest.mark.parametrize(
    ("span", "known", "found"),
    [
        ((None, None), (), (0, 20)),
        ((None, None), (0, 20), ()),
        ((None, None), (0,), (20,)),
        ((10, 19), (), ()),
        ((9, 19), (), (0,)),
        ((10, 20), (), (20,)),
        ((9, 20), (20,), (0,)),
        ((5, 5), (), (0,)),
        ((30, None), (), ()),
        ((29, None), (), (20,)),
        ((None, -1), (), ()),
        ((None, 0), (), (0,)),
        ((None, 0), (5,), (0,)),
    ],
)
def test_other_parts_are_those_that_a_range_meets_its_ends_included(
    registry: Registry,
    collection: CollectionRecord,
    two: Two,
    span: tuple[int | None, int | None],
    known: tuple[int, ...],
    found: tuple[int, ...],
) -> None:
    needs = (alone(*span, known=known),)
    if not found:
        assert put(registry, collection, needs=needs).number == 2
        return
    with pytest.raises(ConflictError, match="another writer changed year=2022/month=01 while") as caught:
        put(registry, collection, needs=needs)
    assert caught.value.keys == ("year=2022/month=01",)
    assert caught.value.conflicts[0].slots == tuple(slot(2022, 1, axis_min=each) for each in found)


def test_the_parts_of_other_partitions_and_the_immutable_variables_are_no_other_parts(
    registry: Registry, collection: CollectionRecord
) -> None:
    put(registry, collection, part(0, 9, key=(2022, 2)), part(0, 9, key=(0, 0)), fragment(layer=-1))
    put(registry, collection, needs=(alone(None, None),))
    immutable_only = NoOtherPart(((pad_key((0, 0)), 10, None),))
    put(registry, collection, needs=(immutable_only,))


@pytest.mark.parametrize(("low", "succeeds"), [(10, True), (40, True), (9, False), (25, False)])
def test_what_another_writer_put_into_the_range_is_a_conflict_and_beside_it_is_none(
    registry: Registry, collection: CollectionRecord, low: int, succeeds: bool
) -> None:
    mine, theirs = part(low, low + 5), part(20, 29)
    needs = (alone(low, low + 20),)
    with registry.begin((collection, 0)) as transaction:
        put(registry, collection, theirs if not succeeds else part(80, 89), ranges=((20, 29),))
        update = PutFragments((mine,), (), (Run(KEY, (low, low + 5)),))
        commits = [Commit(collection, "insert", needs, (update,))]
        if succeeds:
            transaction.commit(commits)
        else:
            with pytest.raises(ConflictError, match="year=2022/month=01"):
                transaction.commit(commits)
    assert (mine.uid in live_uids(registry)[2022, 1]) == succeeds


def append_ten(registry: Registry, writer: int, writers: int) -> int:
    """Append ten parts, each where no other writer does."""
    for number in range(10):
        low = 10 * (writers * number + writer)
        run = (low, low + 9)
        put(registry, registry.collection("made/a"), part(*run), ranges=(run,), needs=(alone(*run),))
    return writer


def test_writers_of_different_ranges_of_one_partition_all_succeed(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    in_threads(append_ten, [(registry, writer, 3) for writer in range(3)])
    assert parts_of(registry, 2022, 1) == [(10 * n, 10 * n + 9, 10) for n in range(30)]
    assert registry.collection("made/a").head_version == 30
    assert sql("SELECT version, sum(removed), sum(added) FROM change GROUP BY version ORDER BY version") == [
        (version, 0, 10) for version in range(1, 31)
    ]


# What the record of changes is asked


def test_a_run_is_recorded_in_rows_of_what_was_there_before(
    registry: Registry, collection: CollectionRecord, two: Two, sql: Sql
) -> None:
    cut = Cut(KEY, 20, (kept(20, 23, 20), kept(26, 29, 20)))
    put(
        registry,
        collection,
        part(12, 13),
        part(15, 15),
        part(24, 25),
        cuts=(cut,),
        ranges=((12, 13), (15, 15), (24, 25)),
    )
    hunks = sql("SELECT layer_id, row_start, removed, added, axis_min, axis_max FROM change WHERE version = 2")
    assert hunks == [(0, 10, 0, 3, 12, 15), (0, 14, 2, 2, 24, 25)]


def test_a_layer_over_one_part_is_recorded_of_its_rows(
    registry: Registry, collection: CollectionRecord, two: Two, sql: Sql
) -> None:
    put(registry, collection, part(20, 29, BELOW), fragment(layer=-1))
    hunks = sql("SELECT k0, layer_id, row_start, removed, added, axis_min, axis_max FROM change WHERE version = 2")
    assert sorted(hunks) == [(0, -1, 0, 0, 0, None, None), (2022, 1, 10, 10, 10, 20, 29)]


def test_versions_of_some_partitions_are_those_that_changed_rows_or_values_of_them(
    registry: Registry, collection: CollectionRecord
) -> None:
    write(registry, collection, part(0, 9), part(0, 9, key=(2022, 2)))
    put(registry, collection, part(10, 19), ranges=((10, 19),))
    put(registry, collection, part(0, 19, written_version=2), cuts=(Cut(KEY, 0), Cut(KEY, 10)))  # the same values
    put(registry, collection, part(0, 9, BELOW, key=(2022, 2)))
    put(registry, collection, fragment(layer=-1))
    put(registry, collection, cuts=(Cut(KEY, 0, (kept(0, 14),)),), ranges=((15, 19),))
    registry.commit(
        Commit(collection, "drop_partitions", updates=(ClosePartitions(Selection.of("month == 1", collection.keys)),))
    )

    def numbers(filters: Any) -> list[int]:
        return [version.number for version in registry.versions("made/a", filters=filters)]

    assert numbers(None) == list(range(8))
    assert numbers("month == 1") == numbers(lambda key: key["month"] == 1) == [1, 2, 6, 7]
    assert numbers("month == 2") == [1, 4]
    assert numbers("year == 0") == []
    assert registry.changes("made/a", 7) == {(2022, 1): 7, (2022, 2): 4}
    assert registry.changes("made/a", 5) == {(2022, 1): 2, (2022, 2): 4}
    assert registry.changes("made/a", 3, [(2022, 1), (2030, 1)]) == {(2022, 1): 2}
    assert registry.changes("made/a", 0) == {}


def test_partitions_are_closed_by_when_their_rows_or_values_changed_last(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    for month in (1, 2, 3):
        write(registry, collection, part(0, 9, key=(2022, month)))
    sql("UPDATE version SET committed_at = '2020-01-01 00:00:00.000000'")
    put(registry, collection, part(0, 9, written_version=1), cuts=(Cut(KEY, 0),))  # the same values, written today
    put(registry, collection, part(0, 9, BELOW, key=(2022, 2)))
    before = ClosePartitions(Selection(), dt.datetime(2021, 1, 1, tzinfo=dt.UTC))
    (version,) = registry.commit(Commit(collection, "drop_partitions", updates=(before,)))
    assert version.summary == {"dropped": 2, "rows": 20}
    assert list(live_uids(registry)) == [(2022, 2)]
    hunks = sql("SELECT k1, layer_id, row_start, removed, added, axis_min, axis_max FROM change WHERE version = 6")
    assert sorted(hunks) == [(1, 0, 0, 10, 0, 0, 9), (3, 0, 0, 10, 0, 0, 9)]


# What is read


def test_partitions_are_chosen_by_their_own_bounds_and_parts_by_theirs(
    registry: Registry, collection: CollectionRecord, two: Two
) -> None:
    put(registry, collection, part(100, 109, key=(2022, 2)))

    def found(low: int | None, high: int | None, parts: bool, version: int) -> list[tuple[int, ...]]:
        selection = Selection(axis_range=(low, high), parts=parts)
        snapshot = registry.resolve("made/a", version=version, selection=selection)
        return [tuple(each.bounds[0] for each in partition.parts) for partition in snapshot.partitions]

    for version in (1, 2):
        assert found(12, 15, False, version) == [(0, 20)]  # in a hole of it
        assert found(12, 15, True, version) == []
        assert found(5, None, True, version)[0] == (0, 20)
        assert found(10, 40, True, version) == [(20,)]
        assert found(10, 40, False, version) == [(0, 20)]
        assert found(None, -1, False, version) == []
        assert found(109, None, False, version) == ([(100,)] if version == 2 else [])


def test_the_totals_of_a_version_are_those_of_its_partitions(
    registry: Registry, collection: CollectionRecord, two: Two
) -> None:
    put(registry, collection, part(0, 9, BELOW, nbytes=1000), part(-5, -1, key=(2021, 1)), fragment(layer=-1))
    put(registry, collection, cuts=(Cut(KEY, 20),), ranges=((20, 29),))
    assert registry.totals("made/a", 0) == Totals(0, 0, 0, None)
    for version in (1, 2, 3):
        found = registry.partitions("made/a", version=version)
        sums = (sum(each.rows for each in found), sum(each.nbytes for each in found))
        bounds = min(each.bounds[0] for each in found), max(each.bounds[1] for each in found)
        assert registry.totals("made/a", version) == Totals(len(found), *sums, bounds)
    assert registry.totals("made/a") == Totals(2, 15, 1120, (-5, 9))
