"""The unit of work, with fragments that were never written: all or nothing, no lost update, and the fence."""

import copy
import datetime as dt
import itertools
import random
import threading
from collections.abc import Callable

import pytest

from registry import (
    IMMUTABLE_SLOT,
    CollectionRecord,
    ConflictError,
    InvalidInputError,
    KeyValues,
    Registry,
    RegistryUnavailableError,
    SchemaRecord,
    Selection,
    Signature,
    Source,
    TransactionClosedError,
    Version,
    ZCollectionError,
)
from registry.changes import AddVariables, ClosePartitions, Commit, EditSchema, PutFragments, RememberSources, Update

from .conftest import (
    Sql,
    change,
    commit,
    create,
    eventually,
    fragment,
    identity_of,
    in_processes,
    in_threads,
    intents,
    live_uids,
    make_variable,
    slot,
    slot_of,
    write,
)

Visible = Callable[[], object]


def states(sql: Sql) -> list[str]:
    """Of the transactions in their order, but for those that created collections."""
    rows = sql("SELECT state FROM \"transaction\" WHERE message NOT LIKE 'create %' ORDER BY id")
    return [state for (state,) in rows]


def add(registry: Registry, collection: CollectionRecord, name: str) -> Version:
    """Add a variable to the schema."""

    def edit(schema: SchemaRecord) -> SchemaRecord:
        added = make_variable(schema.next_id, name, stored_name=f"{name}{schema.next_id}")
        return SchemaRecord((*schema.variables, added), schema.attributes)

    (version,) = registry.commit(Commit(collection, "add_variable", updates=(EditSchema(edit),)))
    return version


# Versions


def test_commits_make_versions_without_gaps(registry: Registry, collection: CollectionRecord) -> None:
    made = [write(registry, collection, fragment(2022, month)) for month in (1, 2, 3)]
    assert [version.number for version in made] == [1, 2, 3]
    assert registry.versions("made/a")[1:] == tuple(made)
    assert registry.collection("made/a").head_version == 3


def test_the_last_versions_are_told_without_the_others(registry: Registry, collection: CollectionRecord) -> None:
    for month in (1, 2, 1):
        registry.commit(change(collection, fragment(2022, month)))
    assert [each.number for each in registry.versions(collection.name, limit=2)] == [0, 1]
    assert [each.number for each in registry.versions(collection.name, limit=2, newest_first=True)] == [3, 2]
    filters = "month == 1"
    assert [
        each.number for each in registry.versions(collection.name, filters=filters, limit=1, newest_first=True)
    ] == [3]
    with pytest.raises(InvalidInputError, match="limit=0 is not a number of versions"):
        registry.versions(collection.name, limit=0)


def test_a_failed_commit_leaves_no_gap(registry: Registry, collection: CollectionRecord) -> None:
    write(registry, collection, fragment(2022, 1))
    with pytest.raises(ConflictError):
        write(registry, collection, fragment(2022, 1), requires={slot(2022, 1): None})
    assert write(registry, collection, fragment(2022, 2)).number == 2


def test_a_version_says_who_did_what_why_and_when(registry: Registry, collection: CollectionRecord) -> None:
    second = dt.timedelta(seconds=1)
    begin = dt.datetime.now(dt.UTC)
    (version,) = commit(registry, change(collection, fragment(2022, 1)), signature=Signature("me", "corrected"))
    end = dt.datetime.now(dt.UTC)
    assert (version.collection, version.operation, version.author, version.message) == (
        "made/a",
        "insert",
        "me",
        "corrected",
    )
    assert version.summary == {"created": 1}
    assert begin - second < version.committed_at < end + second  # the database's clock is this machine's


def test_a_fragment_is_recorded_as_it_was_written(registry: Registry, collection: CollectionRecord) -> None:
    low, high = -(2**63), 2**63 - 1
    written = fragment(high, low, rows=2**40, nbytes=2**50, axis_min=low, axis_max=high)
    write(registry, collection, written)
    (partition,) = registry.partitions("made/a")
    (found,) = partition.fragments
    assert partition.key == (("year", high), ("month", low))
    assert (found.uid, found.rows, found.nbytes, *partition.bounds) == (written.uid, 2**40, 2**50, low, high)
    assert (found.begin_version, found.written_version, found.schema_version, found.path) == (1, 1, 0, None)


@pytest.mark.parametrize("seed", range(4))
def test_every_version_of_a_random_history_reads_as_it_was(registry: Registry, seed: int) -> None:
    rng = random.Random(seed)
    collections = [create(registry, name) for name in ("made/a", "made/b")]
    keys = list(itertools.product((2021, 2022), (1, 2, 3)))
    model: dict[str, dict[KeyValues, dict[int, str]]] = {"made/a": {}, "made/b": {}}
    past = {name: [copy.deepcopy(model[name])] for name in model}
    for _ in range(30):
        collection = rng.choice(collections)
        live = model[collection.name]
        rows = [fragment(*key) for key in rng.sample(keys, rng.randint(0, 3))]
        taken = {slot_of(each).key[:2] for each in rows}
        layered = [key for key in live if key not in taken and rng.random() < 0.3]
        layers = [fragment(*key, layer=rng.randint(1, 2)) for key in layered]
        for each in rows + layers:
            kept = live.get(slot_of(each).key[:2], {}) if slot_of(each).layer_id else {}
            live[slot_of(each).key[:2]] = kept | {slot_of(each).layer_id: each.uid}
        write(registry, collection, *rows, *layers)
        past[collection.name].append(copy.deepcopy(live))

    def as_model(snapshot: dict[KeyValues, dict[int, str]], select: Callable[[KeyValues], bool]) -> object:
        return [
            (key, tuple(uid for _, uid in sorted(snapshot[key].items()))) for key in sorted(snapshot) if select(key)
        ]

    for name, snapshots in past.items():
        for number, snapshot in enumerate(snapshots):
            read = [
                live_uids(registry, name, version=number),
                live_uids(registry, name, version=number, filters="year == 2022 and month != 2"),
                live_uids(registry, name, version=number, filters=lambda key: key["month"] < 3),
            ]
            assert [list(each.items()) for each in read] == [
                as_model(snapshot, lambda key: True),
                as_model(snapshot, lambda key: key[0] == 2022 and key[1] != 2),
                as_model(snapshot, lambda key: key[1] < 3),
            ]


def test_replacing_the_rows_closes_all_layers_of_that_key_alone(
    registry: Registry, collection: CollectionRecord
) -> None:
    near = [fragment(2022, 1), fragment(2022, 1, layer=1), fragment(2022, 1, layer=2)]
    far = [fragment(2022, 2), fragment(2022, 2, layer=1)]
    write(registry, collection, *near, *far)
    new = fragment(2022, 1)
    write(registry, collection, new)
    assert live_uids(registry) == {(2022, 1): (new.uid,), (2022, 2): tuple(each.uid for each in far)}


def test_the_immutable_variables_and_a_partition_whose_keys_are_zero_do_not_meet(registry: Registry) -> None:
    collection = create(registry, keys=("cycle", "pass"))
    immutable, rows, layer = fragment(layer=-1), fragment(0, 0), fragment(0, 0, layer=1)
    assert slot_of(immutable) == IMMUTABLE_SLOT
    write(registry, collection, immutable, rows, layer)
    new = fragment(0, 0)
    write(registry, collection, new)
    snapshot = registry.resolve("made/a")
    assert snapshot.immutable is not None
    assert snapshot.immutable.uid == immutable.uid
    assert live_uids(registry) == {(0, 0): (new.uid,)}
    newer = fragment(layer=-1)
    write(registry, collection, newer)
    assert live_uids(registry) == {(0, 0): (new.uid,)}
    found = [registry.resolve("made/a", version=version).immutable for version in range(4)]
    assert [each and each.uid for each in found] == [None, immutable.uid, immutable.uid, newer.uid]


def test_a_commit_of_nothing_makes_no_version(registry: Registry, collection: CollectionRecord, sql: Sql) -> None:
    assert commit(registry) == ()
    assert [version.number for version in registry.versions("made/a")] == [0]
    assert states(sql) == ["committed"]


def test_times_never_run_backwards_even_if_the_clock_does(
    registry: Registry, collection: CollectionRecord, other: CollectionRecord, sql: Sql
) -> None:
    future = dt.datetime(2999, 1, 1, tzinfo=dt.UTC)
    sql("UPDATE version SET committed_at = '2999-01-01 00:00:00.000000' WHERE collection_id = ?", collection.id)
    first = commit(registry, change(collection, fragment(2022, 1)), change(other, fragment(2022, 1)))
    second = commit(registry, change(other, fragment(2022, 2)), change(collection, fragment(2022, 2)))
    times = {name: [each.committed_at for each in registry.versions(name)] for name in ("made/a", "made/b")}
    assert times["made/a"] == [future] * 3
    assert times["made/b"] == sorted(times["made/b"])
    assert times["made/b"][-1] < future  # each collection has a time of its own
    assert [version.committed_at for version in first] == [times["made/a"][1], times["made/b"][1]]
    assert {version.collection: version.committed_at for version in second}["made/a"] == future


# Conflicts


def test_a_slot_expected_empty_and_taken_meanwhile_is_a_conflict(
    registry: Registry, collection: CollectionRecord, visible: Visible
) -> None:
    writes = fragment(2022, 1), fragment(2022, 2)
    with registry.begin() as transaction:
        transaction.stage(collection, intents(*writes))
        write(registry, collection, fragment(2022, 2))
        before = visible()
        with pytest.raises(ConflictError, match=r"collection made/a: another writer changed year=2022/month=02 ") as e:
            transaction.commit([change(collection, *writes, requires={slot_of(each): None for each in writes})])
    assert e.value.keys == ("year=2022/month=02",)
    assert "nothing was written, repeat it" in str(e.value)
    assert visible() == before


def test_a_fragment_replaced_meanwhile_is_a_conflict(
    registry: Registry, collection: CollectionRecord, visible: Visible
) -> None:
    old, new = fragment(2022, 1), fragment(2022, 1)
    write(registry, collection, old)
    write(registry, collection, new)
    before = visible()
    with pytest.raises(ConflictError, match="year=2022/month=01 while this merge was being prepared"):
        write(registry, collection, fragment(2022, 1), requires={slot_of(old): identity_of(old)}, operation="merge")
    assert visible() == before
    write(registry, collection, fragment(2022, 1), requires={slot_of(new): identity_of(new)}, operation="merge")


def test_a_fragment_read_and_not_written_must_not_change_either(
    registry: Registry, collection: CollectionRecord
) -> None:
    neighbour = fragment(2022, 1)
    write(registry, collection, neighbour)
    write(registry, collection, fragment(2022, 1))
    with pytest.raises(ConflictError) as caught:
        write(registry, collection, fragment(2022, 2), requires={slot_of(neighbour): identity_of(neighbour)})
    assert caught.value.keys == ("year=2022/month=01",)


def test_immutable_variables_written_meanwhile_are_a_conflict(
    registry: Registry, collection: CollectionRecord, visible: Visible
) -> None:
    write(registry, collection, fragment(layer=-1))
    before = visible()
    with pytest.raises(ConflictError, match=r"made/a: another writer changed the immutable variables ") as caught:
        write(registry, collection, fragment(2022, 1), fragment(layer=-1), requires={IMMUTABLE_SLOT: None})
    assert caught.value.keys == ("the immutable variables",)
    assert visible() == before


def test_a_layer_that_appeared_in_a_merged_partition_is_a_conflict(
    registry: Registry, collection: CollectionRecord, visible: Visible
) -> None:
    rows, layer = fragment(2022, 1), fragment(2022, 1, layer=1)
    write(registry, collection, rows)
    merged = change(collection, fragment(2022, 1), requires={slot_of(rows): identity_of(rows)}, operation="merge")
    write(registry, collection, layer, requires={slot_of(rows): identity_of(rows)}, operation="update")
    before = visible()
    with pytest.raises(ConflictError, match="year=2022/month=01"):  # or the update would be lost
        commit(registry, merged)
    assert visible() == before


def test_another_layer_that_appeared_does_not_disturb_an_update(
    registry: Registry, collection: CollectionRecord
) -> None:
    rows, one, two = (fragment(2022, 1, layer=layer) for layer in (0, frozenset({0}), frozenset({1})))
    write(registry, collection, rows)
    for id_, layer in enumerate((one, two)):
        own = frozenset({id_})
        write(
            registry, collection, layer, requires={slot_of(rows): identity_of(rows)}, operation="update", variables=own
        )
    assert live_uids(registry) == {(2022, 1): (rows.uid, one.uid, two.uid)}


def test_a_layer_that_appeared_disturbs_an_update_that_has_read_its_variables(
    registry: Registry, collection: CollectionRecord
) -> None:
    rows, other = fragment(2022, 1), fragment(2022, 1, layer=frozenset({0, 1}))
    write(registry, collection, rows, other)
    mine = fragment(2022, 1, layer=frozenset({0}))
    with pytest.raises(ConflictError) as caught:
        write(registry, collection, mine, requires={slot_of(rows): identity_of(rows)}, variables=frozenset({0}))
    assert caught.value.keys == ("year=2022/month=01",)


def test_a_layer_closes_those_whose_variables_it_has_too(registry: Registry, collection: CollectionRecord) -> None:
    add(registry, collection, "third")
    small, other, large = map(frozenset, ({0}, {1, 2}, {0, 1}))
    rows, below, beside, above = (fragment(2022, 1, layer=layer) for layer in (0, small, other, large))
    write(registry, collection, rows, below, beside)
    write(registry, collection, above)
    assert live_uids(registry) == {(2022, 1): (rows.uid, beside.uid, above.uid)}


def test_a_set_of_variables_has_one_layer(registry: Registry, collection: CollectionRecord) -> None:
    write(registry, collection, fragment(2022, 1))
    for ids in ({2, 1}, {1}, {1, 2}):
        write(registry, collection, fragment(2022, 1, layer=frozenset(ids)))
    assert registry.resolve("made/a").layers == {1: {1, 2}, 2: {1}}


def test_a_partition_that_came_between_two_neighbours_is_a_conflict(
    registry: Registry, collection: CollectionRecord
) -> None:
    first, last = fragment(2022, 1), fragment(2022, 5)
    write(registry, collection, first, last)
    write(registry, collection, fragment(2022, 3))
    requires = {slot_of(each): identity_of(each) for each in (first, last)}
    beyond = [(slot_of(last).key, None), (None, slot_of(first).key)]
    write(registry, collection, fragment(2022, 1), requires=requires, ranges=tuple(beyond))
    between = (slot_of(first).key, slot_of(last).key)
    with pytest.raises(ConflictError) as caught:
        write(registry, collection, fragment(2022, 5), requires={slot_of(last): identity_of(last)}, ranges=(between,))
    assert caught.value.keys == ("year=2022/month=01", "year=2022/month=03")


def test_a_partition_in_conflict_is_named_once(registry: Registry, collection: CollectionRecord) -> None:
    rows, layer = fragment(2022, 1), fragment(2022, 1, layer=1)
    write(registry, collection, rows, layer)
    write(registry, collection, fragment(2022, 1))
    with pytest.raises(ConflictError) as caught:
        write(
            registry,
            collection,
            fragment(2022, 1),
            requires={slot_of(rows): identity_of(rows), slot_of(layer): identity_of(layer)},
        )
    assert caught.value.keys == ("year=2022/month=01",)


def test_a_conflict_names_all_keys_in_order_and_shows_the_first(
    registry: Registry, collection: CollectionRecord
) -> None:
    keys = [(year, month) for year in range(600) for month in (2, 1)]  # more than one statement takes
    there = [key for key in keys if key[0] % 100 == 0]
    write(registry, collection, *(fragment(*key) for key in there))
    with pytest.raises(ConflictError, match=r"year=0000/month=01, .*, year=0200/month=01 and 7 more while") as caught:
        write(registry, collection, fragment(1, 1), requires={slot(*key): None for key in keys})
    assert caught.value.keys == tuple(f"year={year:04d}/month={month:02d}" for year, month in sorted(there))


def test_the_other_keys_of_a_conflict_may_be_committed_by_the_same_transaction(
    registry: Registry, collection: CollectionRecord
) -> None:
    write(registry, collection, fragment(2022, 1))
    first, second = fragment(2022, 1), fragment(2022, 2)
    with registry.begin() as transaction:
        transaction.stage(collection, intents(first, second))
        with pytest.raises(ConflictError):
            transaction.commit([change(collection, first, second, requires={slot_of(first): None})])
        third = fragment(2022, 3)
        transaction.stage(collection, intents(third))
        (version,) = transaction.commit([change(collection, second, third)])
    assert version.number == 2
    assert {(2022, 2): (second.uid,), (2022, 3): (third.uid,)}.items() <= live_uids(registry).items()


def test_two_writers_of_different_partitions_both_succeed(registry: Registry, collection: CollectionRecord) -> None:
    one, two = fragment(2022, 1), fragment(2022, 2)
    with registry.begin((collection, 0)) as first, registry.begin((collection, 0)) as second:
        first.stage(collection, intents(one))
        second.stage(collection, intents(two))
        (later,) = second.commit([change(collection, two, requires={slot_of(two): None})])
        (latest,) = first.commit([change(collection, one, requires={slot_of(one): None})])
    assert (later.number, latest.number) == (1, 2)
    assert live_uids(registry) == {(2022, 1): (one.uid,), (2022, 2): (two.uid,)}


def test_a_blind_replacement_closes_what_appeared_meanwhile(registry: Registry, collection: CollectionRecord) -> None:
    mine, theirs = fragment(2022, 1), fragment(2022, 1)
    with registry.begin((collection, 0)) as transaction:
        transaction.stage(collection, intents(mine))
        write(registry, collection, theirs)
        transaction.commit([change(collection, mine)])
    found = [live_uids(registry, version=version) for version in range(3)]
    assert found == [{}, {(2022, 1): (theirs.uid,)}, {(2022, 1): (mine.uid,)}]


def test_a_collection_dropped_meanwhile_is_a_conflict(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    with registry.begin() as transaction:
        sql("DELETE FROM collection WHERE id = ?", collection.id)
        with pytest.raises(ConflictError, match="collection made/a was dropped"):
            transaction.commit([change(collection, fragment(2022, 1))])
    assert sql("SELECT * FROM fragment") == []


def test_reading_a_collection_dropped_meanwhile_is_an_error_of_ours(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    sql("DELETE FROM version WHERE collection_id = ?", collection.id)
    sql("DELETE FROM collection WHERE id = ?", collection.id)
    with pytest.raises(ZCollectionError, match="made/a"), registry.begin((collection, 0)):
        pass


# Several collections


def test_several_collections_commit_together(
    registry: Registry, collection: CollectionRecord, other: CollectionRecord
) -> None:
    write(registry, other, fragment(2022, 1))
    a, b = fragment(2022, 1), fragment(2022, 1)
    versions = commit(registry, change(other, b), change(collection, a))
    assert {version.collection: version.number for version in versions} == {"made/a": 1, "made/b": 2}
    assert live_uids(registry, "made/a") == {(2022, 1): (a.uid,)}
    assert live_uids(registry, "made/b") == {(2022, 1): (b.uid,)}


def test_the_same_key_of_another_collection_is_no_conflict(
    registry: Registry, collection: CollectionRecord, other: CollectionRecord
) -> None:
    writes = [fragment(2022, 1), fragment(layer=-1)]
    write(registry, other, *writes)
    vacant = {slot_of(each): None for each in writes}
    write(registry, collection, fragment(2022, 1), fragment(layer=-1), requires=vacant)
    write(registry, other, fragment(2022, 1), requires={slot_of(each): identity_of(each) for each in writes})


def test_a_conflict_in_one_collection_changes_none(
    registry: Registry, collection: CollectionRecord, other: CollectionRecord, visible: Visible
) -> None:
    write(registry, other, fragment(2022, 1))
    before = visible()
    good = change(collection, fragment(2022, 1))
    bad = change(other, fragment(2022, 1), requires={slot(2022, 1): None})
    for changes in ([good, bad], [bad, good]):
        with pytest.raises(ConflictError, match="collection made/b"):
            commit(registry, *changes)
        assert visible() == before


def test_two_changes_to_one_collection_in_one_commit_are_refused_by_its_name(
    registry: Registry, collection: CollectionRecord, visible: Visible
) -> None:
    before = visible()
    with pytest.raises(InvalidInputError, match="made/a"):
        commit(registry, change(collection, fragment(2022, 1)), change(collection, fragment(2022, 2)))
    assert visible() == before


@pytest.mark.parametrize(
    "second", [ClosePartitions(Selection()), PutFragments((fragment(2022, 2),))], ids=["closed", "written"]
)
def test_rows_are_changed_once_in_a_commit(
    registry: Registry, collection: CollectionRecord, visible: Visible, second: Update
) -> None:
    before = visible()
    twice = Commit(collection, "insert", updates=(PutFragments((fragment(2022, 1),)), second))
    with pytest.raises(InvalidInputError, match="the rows of collection made/a are changed twice in one commit"):
        registry.commit(twice)
    assert visible() == before


@pytest.mark.parametrize(
    ("update", "what"),
    [
        (EditSchema(lambda schema: schema), "variables"),
        (AddVariables((make_variable(2, "sla"),)), "variables"),
        (RememberSources((Source("a.nc"),)), "sources"),
    ],
)
def test_variables_and_sources_are_changed_once_in_a_commit(
    registry: Registry, collection: CollectionRecord, visible: Visible, update: Update, what: str
) -> None:
    before = visible()
    with pytest.raises(InvalidInputError, match=f"the {what} of collection made/a are changed twice in one commit"):
        registry.commit(Commit(collection, "edit", updates=(update, update)))
    assert visible() == before


def test_a_partition_written_twice_in_one_commit_is_refused_by_its_key(
    registry: Registry, collection: CollectionRecord, visible: Visible
) -> None:
    before = visible()
    with pytest.raises(InvalidInputError, match=r"year=2022/month=01"):  # no conflict: repeating it would not help
        write(registry, collection, fragment(2022, 1), fragment(2022, 1))
    assert visible() == before


# The end of a transaction


def test_an_aborted_transaction_can_never_commit_nor_stage(
    registry: Registry, collection: CollectionRecord, sql: Sql, visible: Visible
) -> None:
    writes = fragment(2022, 1)
    before = visible()
    with registry.begin() as transaction:
        transaction.abort()
        with pytest.raises(TransactionClosedError, match=rf"transaction {transaction.uid} is aborted"):
            transaction.commit([change(collection, writes)])
        with pytest.raises(TransactionClosedError, match="is aborted"):
            transaction.stage(collection, intents(writes))
        transaction.abort()  # again does no harm
    assert states(sql) == ["aborted"]
    assert sql("SELECT * FROM staged") == []
    assert visible() == before


def test_a_transaction_expired_by_somebody_else_can_never_commit_nor_stage(
    registry: Registry, collection: CollectionRecord, sql: Sql, visible: Visible
) -> None:
    writes = fragment(2022, 1)
    before = visible()
    with registry.begin() as transaction:
        sql("UPDATE \"transaction\" SET state = 'expired'")
        with pytest.raises(TransactionClosedError, match="is expired: nothing of it was made visible; repeat"):
            transaction.stage(collection, intents(writes))
        with pytest.raises(TransactionClosedError, match="is expired: nothing of it was made visible; repeat"):
            transaction.commit([change(collection, writes)])
    assert states(sql) == ["expired"]
    assert sql("SELECT * FROM staged") == []
    assert visible() == before


def test_a_transaction_whose_row_is_gone_can_never_commit(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    with registry.begin() as transaction:
        sql("DELETE FROM \"transaction\" WHERE state = 'open'")
        with pytest.raises(TransactionClosedError, match="is gone"):
            transaction.commit([change(collection, fragment(2022, 1))])
    assert live_uids(registry) == {}


def test_no_clock_decides_only_the_fence_does(registry: Registry, collection: CollectionRecord, sql: Sql) -> None:
    with registry.begin() as transaction:
        sql("UPDATE \"transaction\" SET lease_until = '2000-01-01 00:00:00.000000'")
        (version,) = transaction.commit([change(collection, fragment(2022, 1))])
    assert version.number == 1


def test_a_transaction_commits_once_and_says_so(registry: Registry, collection: CollectionRecord, sql: Sql) -> None:
    with registry.begin() as transaction:
        transaction.commit([change(collection, fragment(2022, 1))])
        with pytest.raises(TransactionClosedError, match="committed") as caught:
            transaction.commit([change(collection, fragment(2022, 2))])
    assert "nothing of it was made visible" not in str(caught.value)  # something was
    assert list(live_uids(registry)) == [(2022, 1)]
    assert states(sql) == ["committed"]


def test_a_committed_transaction_cannot_be_aborted(registry: Registry, collection: CollectionRecord, sql: Sql) -> None:
    with registry.begin() as transaction:
        transaction.commit([change(collection, fragment(2022, 1))])
        assert not transaction.abort()
    assert states(sql) == ["committed"]
    assert list(live_uids(registry)) == [(2022, 1)]


def test_leaving_the_block_without_a_commit_aborts(registry: Registry, collection: CollectionRecord, sql: Sql) -> None:
    with registry.begin() as transaction:
        transaction.stage(collection, intents(fragment(2022, 1)))
        assert states(sql) == ["open"]
    assert states(sql) == ["aborted"]
    with pytest.raises(TransactionClosedError):
        transaction.commit([change(collection, fragment(2022, 1))])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_in_the_block_aborts_and_goes_on(registry: Registry, sql: Sql, error: type[BaseException]) -> None:
    with pytest.raises(error, match="mine"), registry.begin():
        raise error("mine")
    assert states(sql) == ["aborted"]


def test_an_exception_after_the_commit_undoes_nothing(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    def commit_and_fail() -> None:
        with registry.begin() as transaction:
            transaction.commit([change(collection, fragment(2022, 1))])
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        commit_and_fail()
    assert states(sql) == ["committed"]
    assert list(live_uids(registry)) == [(2022, 1)]


# Intents, pins and the lease


def test_intents_are_recorded_before_the_commit_and_gone_after(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    writes = [fragment(2022, 1), fragment(2022, 2, layer=3)]
    with registry.begin() as transaction:
        transaction.stage(collection, intents(*writes[:1]))
        transaction.stage(collection, iter(intents(*writes[1:])))
        recorded = sql("SELECT uid, path, collection_id, location FROM staged")
        place = (collection.id, collection.location)
        assert sorted(recorded) == sorted((*intent, *place) for intent in intents(*writes))
        transaction.commit([change(collection, *writes)])
        assert sql("SELECT * FROM staged") == []


def test_intents_are_kept_after_an_abort_for_those_who_clean_up(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    left = fragment(2022, 1)
    with registry.begin() as transaction:
        transaction.stage(collection, intents(left))
    write(registry, collection, fragment(2022, 1))  # which has intents of its own
    assert sql("SELECT uid FROM staged") == [(left.uid,)]


def test_what_is_read_is_pinned_while_the_transaction_is_open(
    registry: Registry, collection: CollectionRecord, other: CollectionRecord, sql: Sql
) -> None:
    write(registry, collection, fragment(2022, 1))
    pins = "SELECT collection_id, version, lease_until > CURRENT_TIMESTAMP FROM pin ORDER BY id"
    with registry.begin((collection, 1), (other, 0)) as transaction:
        with registry.begin((collection, 0)):
            assert sql(pins) == [(collection.id, 1, 1), (other.id, 0, 1), (collection.id, 0, 1)]
        assert sql(pins) == [(collection.id, 1, 1), (other.id, 0, 1)]  # the abort unpinned its own alone
        transaction.commit([change(collection, fragment(2022, 2))])
        assert sql(pins) == []


def test_an_exception_unpins(registry: Registry, collection: CollectionRecord, sql: Sql) -> None:
    with pytest.raises(ValueError, match="mine"), registry.begin((collection, 0)):
        raise ValueError("mine")
    assert sql("SELECT * FROM pin") == []


def test_the_lease_is_renewed_while_the_transaction_is_open(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    def leases() -> list[str]:
        open_ = "SELECT lease_until FROM \"transaction\" WHERE state = 'open'"
        return [lease for (lease,) in sql(f"{open_} UNION ALL SELECT lease_until FROM pin")]

    with registry.begin((collection, 0), lease=dt.timedelta(seconds=0.3)) as transaction:
        for _ in range(2):
            before = leases()
            assert len(before) == 2
            assert eventually(lambda before=before: all(new > old for new, old in zip(leases(), before, strict=True)))  # type: ignore[misc]  # mypy infers no defaults of lambdas
        transaction.commit([change(collection, fragment(2022, 1))])


def test_the_lease_of_an_expired_transaction_is_not_renewed(registry: Registry, sql: Sql) -> None:
    def lease(uid: str) -> str:
        return sql('SELECT lease_until FROM "transaction" WHERE uid = ?', uid)[0][0]

    short = dt.timedelta(seconds=0.1)
    with registry.begin(lease=short) as fenced, registry.begin(lease=short) as open_:
        sql("UPDATE \"transaction\" SET state = 'expired' WHERE uid = ?", fenced.uid)
        last = lease(fenced.uid)
        for _ in range(3):  # the other one's thread tells the time
            before = lease(open_.uid)
            assert eventually(lambda before=before: lease(open_.uid) > before)  # type: ignore[misc]  # mypy infers no defaults of lambdas
        assert lease(fenced.uid) == last


@pytest.mark.parametrize("committed", [True, False])
def test_the_thread_that_renews_ends_with_the_transaction(registry: Registry, committed: bool) -> None:
    def running() -> bool:
        return any(thread.name == f"lease-{transaction.uid}" for thread in threading.enumerate())

    with registry.begin() as transaction:
        assert running()
        if committed:
            transaction.commit([])
    assert eventually(lambda: not running())


# A connection lost at COMMIT


def test_a_commit_that_took_effect_before_the_connection_was_lost_returns_its_versions(
    registry: Registry, collection: CollectionRecord, other: CollectionRecord, sql: Sql, lose: Callable[..., None]
) -> None:
    a, b = fragment(2022, 1), fragment(2022, 1)
    with registry.begin() as transaction:
        transaction.stage(collection, intents(a))
        lose(True)
        versions = transaction.commit([change(other, b), change(collection, a)])
    assert versions == (registry.versions("made/a")[1], registry.versions("made/b")[1])
    assert states(sql) == ["committed"]
    assert sql("SELECT * FROM staged") == []


@pytest.mark.parametrize("took_effect", [True, False])
def test_what_became_of_an_edit_whose_commit_lost_the_connection_is_found_out(
    registry: Registry, collection: CollectionRecord, sql: Sql, lose: Callable[..., None], took_effect: bool
) -> None:
    lose(took_effect)
    if took_effect:
        assert add(registry, collection, "sst").number == 1
    else:
        with pytest.raises(RegistryUnavailableError, match="the connection was lost"):
            add(registry, collection, "sst")
    assert [version.number for version in registry.versions("made/a")] == ([0, 1] if took_effect else [0])
    assert states(sql) == ["committed" if took_effect else "aborted"]  # so that it cannot come later
    assert add(registry, collection, "third").number == 1 + took_effect


def test_an_edit_has_a_transaction_of_its_own_by_which_its_version_is_known(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    add(registry, collection, "sst")
    assert sql('SELECT v.version FROM version v JOIN "transaction" t ON t.id = v.transaction_id') == [(0,), (1,)]


def test_a_commit_that_did_not_take_effect_before_the_connection_was_lost_raises_and_is_fenced(
    registry: Registry, collection: CollectionRecord, sql: Sql, visible: Visible, lose: Callable[..., None]
) -> None:
    writes = fragment(2022, 1)
    before = visible()
    with registry.begin((collection, 0)) as transaction:
        transaction.stage(collection, intents(writes))
        lose(False)
        with pytest.raises(RegistryUnavailableError, match="the connection was lost"):
            transaction.commit([change(collection, writes)])
        assert states(sql) == ["aborted"]
        with pytest.raises(TransactionClosedError):
            transaction.commit([change(collection, writes)])
    assert visible() == before
    assert sql("SELECT uid FROM staged") == [(writes.uid,)]
    assert sql("SELECT * FROM pin") == []


def test_while_nobody_can_tell_the_outcome_the_transaction_stays_as_it_is(
    registry: Registry, collection: CollectionRecord, sql: Sql, visible: Visible, lose: Callable[..., None]
) -> None:
    before = visible()
    with registry.begin() as transaction:
        lose(False, False)
        with pytest.raises(RegistryUnavailableError, match="the connection was lost"):
            transaction.commit([change(collection, fragment(2022, 1))])
        assert states(sql) == ["open"]
    assert states(sql) == ["aborted"]  # when the database could be reached again
    assert visible() == before


def test_an_outcome_learned_late_is_told(
    registry: Registry, collection: CollectionRecord, sql: Sql, lose: Callable[..., None]
) -> None:
    writes = fragment(2022, 1)

    def commit_and_lose() -> None:
        with registry.begin() as transaction:
            lose(True, False)
            transaction.commit([change(collection, writes)])

    with pytest.raises(ZCollectionError, match="was committed"):
        commit_and_lose()
    assert states(sql) == ["committed"]
    assert live_uids(registry) == {(2022, 1): (writes.uid,)}


# Many writers


def insert_ten(registry: Registry, year: int) -> list[int]:
    collection = registry.collection("made/a")
    writes = [fragment(year, month) for month in range(10)]
    return [write(registry, collection, each, requires={slot_of(each): None}).number for each in writes]


@pytest.mark.parametrize(("at_once", "writers"), [(in_threads, 4), (in_processes, 3)])
def test_writers_of_different_partitions_all_succeed_and_leave_no_gap(
    registry: Registry, collection: CollectionRecord, at_once: Callable[..., list[list[int]]], writers: int
) -> None:
    numbers = at_once(insert_ten, [(registry, 2000 + writer) for writer in range(writers)])
    assert all(each == sorted(each) for each in numbers)
    assert sorted(itertools.chain(*numbers)) == list(range(1, 10 * writers + 1))
    versions = registry.versions("made/a")
    assert [version.number for version in versions] == list(range(10 * writers + 1))
    assert [version.committed_at for version in versions] == sorted(version.committed_at for version in versions)
    assert list(live_uids(registry)) == [(2000 + writer, month) for writer in range(writers) for month in range(10)]


def insert_or_conflict(registry: Registry, uid: str) -> bool:
    writes = fragment(2022, 1, uid=uid)
    try:
        write(registry, registry.collection("made/a"), writes, requires={slot_of(writes): None})
    except ConflictError:
        return False
    return True


def test_of_many_writers_into_one_empty_slot_one_succeeds(registry: Registry, collection: CollectionRecord) -> None:
    uids = [f"{number:032x}" for number in range(6)]
    won = in_threads(insert_or_conflict, [(registry, uid) for uid in uids])
    assert won.count(True) == 1
    assert live_uids(registry) == {(2022, 1): (uids[won.index(True)],)}
    assert registry.collection("made/a").head_version == 1


def count_up(registry: Registry, times: int) -> None:
    """Add one to a partition's number of rows, and repeat that on what others made of it."""
    done = 0
    while done < times:
        (partition,) = registry.partitions("made/a")
        (found,) = partition.fragments
        writes = fragment(*found.key, rows=found.rows + 1)
        try:
            write(registry, registry.collection("made/a"), writes, requires={slot_of(writes): found.identity})
        except ConflictError:
            continue
        done += 1


def test_no_update_is_lost_where_writers_repeat_after_a_conflict(
    registry: Registry, collection: CollectionRecord
) -> None:
    write(registry, collection, fragment(2022, 1, rows=0))
    in_threads(count_up, [(registry, 5)] * 3)
    rows = [registry.partitions("made/a", version=version)[0].rows for version in range(1, 17)]
    assert rows == list(range(16))
    assert registry.collection("made/a").head_version == 16
