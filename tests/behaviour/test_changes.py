"""What changed between two versions: of each partition, which rows came, went or have other values."""

import datetime as dt
import shutil
from collections.abc import Callable
from itertools import combinations
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import intake_zcollection as izc

JANUARY, FEBRUARY, MARCH = ((("year", 2022), ("month", month)) for month in (1, 2, 3))

Make = Callable[..., izc.Collection]


def hours(first: str, count: int, level: float = 0.0) -> xr.Dataset:
    """So many hours, all at one level."""
    time = np.datetime64(first, "ns") + np.arange(count) * np.timedelta64(1, "h")
    return xr.Dataset(
        {"level": ("time", np.full(count, level)), "flag": ("time", np.zeros(count, "i1"))},
        {"time": time, "gauge": ("place", [1, 2])},
    )


@pytest.fixture
def levels(make_collection: Make) -> izc.Collection:
    """January and February of 2022, an hour a row, in version 1."""
    collection = make_collection(hours("2022-01-01", 1))
    collection.insert(hours("2022-01-01", 59 * 24))
    return collection


def only(changes: izc.Changes) -> izc.Change:
    """The change of the one partition that changed."""
    (change,) = changes.values()
    return change


def times(data: xr.Dataset) -> list[str]:
    """The hours of a dataset."""
    return np.datetime_as_string(data["time"].values, "h").tolist()


def test_a_corrected_hour_shows_an_hour_and_loads_as_one(levels: izc.Collection) -> None:
    made = levels.insert(hours("2022-01-10T05", 1, level=2.0), merge="upsert")
    changes = levels.changes_since(made.number - 1)
    assert list(changes) == [JANUARY]
    change = only(changes)
    assert (change.kind, change.added, change.changed, change.removed) == ("changed", 0, 1, 0)
    assert change.axis_range == (np.datetime64("2022-01-10T05", "ns"),) * 2
    assert set(change.variables) == {"time", "level", "flag"}
    assert (changes.since, changes.until) == (1, 2)
    loaded = changes.load()
    assert times(loaded) == ["2022-01-10T05"]
    assert loaded.level.values.tolist() == [2.0]
    assert loaded.sel(time="2022-01-10").sizes["time"] == 1


@pytest.mark.parametrize("chunks", ["auto", None])
def test_of_parts_that_have_been_joined_the_rows_that_changed_are_loaded_alone(
    levels: izc.Collection, chunks: Any
) -> None:
    levels.insert(hours("2022-01-10T05", 1, level=2.0), merge="upsert")
    levels.insert(hours("2022-01-20T07", 2, level=3.0), merge="upsert")
    levels.rewrite()
    loaded = levels.changes_since(1).load(chunks=chunks)
    assert times(loaded) == ["2022-01-10T05", "2022-01-20T07", "2022-01-20T08"]
    assert loaded.level.values.tolist() == [2.0, 3.0, 3.0]
    assert loaded.sel(time=slice("2022-01-11", None)).level.values.tolist() == [3.0, 3.0]


def test_rows_that_come_between_others_are_added_and_loaded_alone(levels: izc.Collection) -> None:
    levels.drop_rows(where={"time": ("2022-01-10T05", "2022-01-10T06")})
    since = levels.version
    levels.insert(hours("2022-01-10T05", 2, level=1.0))
    levels.insert(hours("2022-03-01", 3))
    changes = levels.changes_since(since)
    assert [(each.kind, each.added, each.changed, each.removed) for each in changes.values()] == [
        ("changed", 2, 0, 0),
        ("added", 3, 0, 0),
    ]
    assert times(changes.load(variables="level")) == [
        *("2022-01-10T05", "2022-01-10T06"),
        *("2022-03-01T00", "2022-03-01T01", "2022-03-01T02"),
    ]
    assert levels.diff(1, 3)[JANUARY].changed == 2  # to what was there before they went, they are another two rows


def test_a_rewrite_and_other_attributes_show_nothing(levels: izc.Collection) -> None:
    levels.insert(hours("2022-01-10T05", 1, level=2.0), merge="upsert")
    levels.update(lambda rows: {"flag": rows.flag + 1}, filters="month == 2")
    since = levels.version
    levels.rewrite()
    levels.set_attributes({"units": "m"}, "level")
    changes = levels.changes_since(since)
    assert (len(changes), bool(changes), changes.variables, changes.immutables) == (0, False, {}, False)
    assert (
        repr(changes) == f"<Changes of {levels.name} from version {since.number} to {since.number + 2}: 0 partitions>"
    )
    assert changes.load().sizes["time"] == 0


def test_an_update_shows_its_variables_and_the_rows_of_its_partitions(levels: izc.Collection) -> None:
    made = levels.update(lambda rows: {"flag": rows.flag + 1}, filters="month == 2")
    change = only(levels.diff(made.number - 1, made))
    assert (change.key, change.kind, change.changed, change.variables) == (FEBRUARY, "changed", 28 * 24, ("flag",))


def test_a_variable_that_is_gone_shows_nothing_of_its_values(levels: izc.Collection) -> None:
    levels.update(
        lambda rows: {"flag": rows.flag + 1, "new": rows.level}, outputs=["flag", izc.Variable("new", "f8", ("time",))]
    )
    levels.rename_variable("level", "height")
    levels.drop_variable("flag")
    changes = levels.changes_since(1)
    assert changes.variables == {"flag": "dropped", "height": "renamed from level", "new": "added"}
    assert {each.variables for each in changes.values()} == {("new",)}
    levels.drop_variable("new")
    changes = levels.changes_since(1)
    assert (len(changes), bool(changes)) == (0, True)
    assert len(levels.diff(1, 2)) == 2  # where it was there still


def test_a_variable_that_was_dropped_is_told_of_where_another_has_its_name(levels: izc.Collection) -> None:
    levels.drop_variable("flag")
    levels.add_variable(izc.Variable("flag", "f8", ("time",)))
    assert levels.changes_since(1).variables == {"flag": "dropped, added"}
    levels.drop_variable("flag")
    levels.rename_variable("level", "flag")
    assert levels.changes_since(1).variables == {"flag": "dropped, renamed from level"}


def test_a_dropped_partition_is_removed_and_one_that_came_again_has_changed(levels: izc.Collection) -> None:
    levels.drop_partitions(filters="month == 2")
    change = only(levels.changes_since(1))
    assert (change.key, change.kind, change.removed) == (FEBRUARY, "removed", 28 * 24)
    assert levels.changes_since(1).load().sizes["time"] == 0
    levels.insert(hours("2022-02-03", 5))
    change = only(levels.changes_since(1))
    assert (change.kind, change.added, change.changed, change.removed) == ("changed", 0, 5, 28 * 24 - 5)
    assert only(levels.changes_since(2)).kind == "added"
    levels.insert(hours("2022-03-01", 2))
    levels.drop_partitions(filters="month == 3")
    assert list(levels.changes_since(1)) == [FEBRUARY]  # what came and went in between is not told


def test_immutable_variables_are_told_of(levels: izc.Collection) -> None:
    assert levels.diff(0, 1).immutables
    levels.set_immutables(xr.Dataset(coords={"gauge": ("place", [3, 4])}))
    changes = levels.changes_since(1)
    assert (len(changes), bool(changes), changes.immutables) == (0, True, True)
    assert "immutable variables were stored" in repr(changes)


def test_what_changed_is_known_without_the_storage(levels: izc.Collection) -> None:
    levels.insert(hours("2022-01-10T05", 1, level=2.0), merge="upsert")
    shutil.rmtree(levels.location)
    assert only(levels.changes_since(1)).changed == 1


def test_a_collection_at_a_version_compares_with_that(levels: izc.Collection) -> None:
    levels.insert(hours("2022-01-10T05", 1, level=2.0), merge="upsert")
    levels.insert(hours("2022-02-10T05", 1, level=2.0), merge="upsert")
    old = levels.at(version=2)
    assert list(old.changes_since(1)) == [JANUARY]
    assert list(old.diff(1, 3)) == [JANUARY, FEBRUARY]
    assert list(levels.diff(levels.version, levels.version)) == []


@pytest.mark.parametrize(
    ("versions", "error", "message"),
    [
        ((2, 1), izc.InvalidInputError, "from version 2 to 1.* older version first"),
        ((0, 7), izc.NotFoundError, "no version 7: it has versions 0 to 2"),
        ((-1, 1), izc.NotFoundError, "no version -1"),
        (("1", 2), izc.InvalidInputError, "neither a version's number nor its record"),
    ],
)
def test_what_is_no_pair_of_versions_is_refused(
    levels: izc.Collection, versions: Any, error: type[Exception], message: str
) -> None:
    levels.set_attributes({"title": "x"})
    with pytest.raises(error, match=message):
        levels.diff(*versions)


def test_changes_are_shown_as_a_table(levels: izc.Collection) -> None:
    levels.insert(hours("2022-01-10T05", 1, level=2.0), merge="upsert")
    levels.update(lambda rows: {"flag": rows.flag + 1}, filters="month == 2")
    shown = repr(levels.changes_since(1)).splitlines()
    assert shown[0] == f"<Changes of {levels.name} from version 1 to 3: 2 partitions>"
    assert shown[1].split() == ["partition", "kind", "added", "changed", "removed", "first", "last", "variables"]
    assert shown[2].split() == ["year=2022/month=01", "changed", "1", *["2022-01-10T05:00:00.000000000"] * 2, "all"]
    assert shown[3].split()[-1] == "flag"
    assert "<td>year=2022/month=01</td>" in levels.changes_since(1)._repr_html_()


def test_of_many_partitions_the_first_are_shown(make_collection: Make) -> None:
    collection = make_collection(hours("2022-01-01", 1), partitioning=izc.Date("time", "D"))
    collection.insert(hours("2022-01-01", 30 * 24))
    shown = repr(collection.changes_since(0)).splitlines()
    assert shown[1 + 1 + 20 :] == ["… and 10 more partitions", "immutable variables were stored"]
    assert collection.changes_since(0)._repr_html_().count("<tr>") == 21


def test_on_an_axis_of_integers_bounds_are_integers(make_collection: Make) -> None:
    data = xr.Dataset({"level": ("record", [1.0, 2.0])}, {"record": [5, 6], "cycle": ("record", [1, 1])})
    collection = make_collection(data, axis="record", partitioning=izc.Sequence(("cycle",)))
    collection.insert(data)
    assert only(collection.changes_since(0)).axis_range == (5, 6)


def do_something(collection: izc.Collection, rng: Random) -> None:
    """Write something, whatever it is, to a collection of five days by day."""
    at = f"2022-01-0{rng.randint(1, 5)}T{rng.randint(0, 23):02d}"
    match rng.choice(["upsert", "append", "drop_rows", "drop", "update", "rewrite", "replace"]):
        case "append":
            collection.insert(hours(at, rng.randint(1, 30), rng.random()), merge="keep")
        case "drop_rows":
            collection.drop_rows(where={"time": (at, at)})
        case "drop":
            collection.drop_partitions(filters={"day": rng.randint(1, 5)})
        case "update":
            collection.update(lambda rows: {"flag": rows.flag + 1}, filters={"day": [rng.randint(1, 5)]})
        case "rewrite":
            collection.rewrite()
        case merge:
            collection.insert(hours(at, rng.randint(1, 30), rng.random()), merge=merge)


def rows_of(collection: izc.Collection, version: int) -> dict[izc.PartitionKey, xr.Dataset]:
    """The rows of each partition at a version."""
    found: dict[izc.PartitionKey, xr.Dataset] = collection.at(version=version).map(lambda rows: rows)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_are_not_told_of_are_the_same_in_both_versions(make_collection: Make, seed: int) -> None:
    rng, collection = Random(seed), make_collection(hours("2022-01-01", 1), partitioning=izc.Date("time", "D"))
    for _ in range(12):
        do_something(collection, rng)
    versions = {number: rows_of(collection, number) for number in range(collection.version.number + 1)}
    for a, b in combinations(versions, 2):
        changes, before, after = collection.diff(a, b), versions[a], versions[b]
        assert [*changes] == sorted(changes)
        loaded = changes.load().compute()
        told = 0
        for key in {*before, *after, *changes}:
            change = changes.get(key)
            if change is None:
                assert before[key].identical(after[key])
                continue
            kind = "removed" if key not in after else "added" if key not in before else "changed"
            assert change.kind == kind
            sizes = [each[key].sizes["time"] if key in each else 0 for each in (before, after)]
            assert sizes[0] + change.added - change.removed == sizes[1]
            told += change.added + change.changed
        assert loaded.sizes["time"] == told
        check_the_rest(before, after, loaded)


def check_the_rest(
    before: dict[izc.PartitionKey, xr.Dataset], after: dict[izc.PartitionKey, xr.Dataset], loaded: xr.Dataset
) -> None:
    """See that all rows but those that were loaded are there in both versions, with the same values."""
    if not after:
        return
    whole = xr.concat(list(after.values()), "time")
    same = whole.isel(time=~np.isin(whole["time"].values, loaded["time"].values))
    if same.sizes["time"]:
        xr.testing.assert_equal(xr.concat(list(before.values()), "time").sel(time=same["time"]), same)
    changed = whole.sel(time=loaded["time"].values)
    assert changed.level.values.tolist() == loaded.level.values.tolist()
    assert changed.flag.values.tolist() == loaded.flag.values.tolist()


FILTERS: dict[str, Any] = {
    "text": "month == 2",
    "a dict": {"month": 2},
    "a dict of some": {"year": [2021, 2022], "month": (2, 3)},
    "a dict of numpy's": {"month": np.int64(2), "year": np.array([2022])},
    "a dict of a range": {"month": range(2, 9)},
    "a key": FEBRUARY,
    "a key in another order": FEBRUARY[::-1],
    "keys": [FEBRUARY, MARCH],
    "a set of keys": {FEBRUARY},
    "the text of a key": ["year=2022/month=02"],
    "what map made": {FEBRUARY: 5.0},
    "a function": lambda key: key["month"] == 2,
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_are_text_equalities_functions_or_keys(levels: izc.Collection, name: str) -> None:
    assert [each.key for each in levels.partitions(filters=FILTERS[name])] == [FEBRUARY]


def test_keys_may_come_from_a_generator(levels: izc.Collection) -> None:
    assert levels.load(filters=(key for key in (FEBRUARY, MARCH))).sizes["time"] == 28 * 24


@pytest.mark.parametrize("nothing", [(), [], set()], ids=repr)
def test_no_keys_are_no_partitions(levels: izc.Collection, nothing: Any) -> None:
    assert levels.load(filters=nothing).sizes["time"] == 0


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({}, r"filters=\{\} says nothing: leave it out for all partitions, or give \(\) for none"),
        ({"week": 2}, "not partitioned by week, but by year, month"),
        ({"month": "2"}, "'2' is no integer of 64 bits"),
        ({"month": [1.0]}, "1.0 is no integer"),
        ({"month": True}, "True is no integer"),
        ({"month": 2**63}, "is no integer of 64 bits"),
        ([(2022, 1)], r"\(2022, 1\) is no key of a partition of this collection, as year=…/month=… is"),
        ((("year", 2022),), r"\(\('year', 2022\),\) is no key"),
        ([(("year", 2022), ("week", 1))], "is no key of a partition"),
        (["month == 2"], "filters: 'month == 2' is no key .* conditions are text, not in a list"),
        (5, "filters=5: write text, 'year == 2022"),
        (b"month == 2", "write text"),
    ],
    ids=str,
)
def test_what_is_no_filter_is_refused(levels: izc.Collection, filters: Any, message: str) -> None:
    with pytest.raises(izc.InvalidInputError, match=message):
        levels.drop_partitions(filters=filters)
    assert levels.version.number == 1


def test_what_was_computed_is_computed_again_just_where_a_correction_came(levels: izc.Collection) -> None:
    levels.update(lambda rows: {"flag": rows.level.astype("i1")})
    seen = levels.version
    levels.insert(hours("2022-02-10T05", 1, level=2.0), merge="upsert")
    made = levels.update(lambda rows: {"flag": rows.level.astype("i1")}, filters=levels.changes_since(seen))
    assert (made.summary["updated"], made.summary["rows"]) == (1, 28 * 24)
    assert levels.load(where={"time": ("2022-02-10T05", "2022-02-10T05")}).flag.values.tolist() == [2]
    nothing = levels.changes_since(made)
    assert levels.update(lambda rows: {"flag": rows.level.astype("i1")}, filters=nothing) == made


def test_every_verb_takes_changes_as_filters(levels: izc.Collection, tmp_path: Any) -> None:
    levels.insert(hours("2022-02-10T05", 1, level=2.0), merge="upsert")
    changes = levels.changes_since(1)
    assert [*levels.map(lambda rows: 0, filters=changes)] == [FEBRUARY]
    assert [each.number for each in levels.versions(filters=changes)] == [1, 2]
    assert levels.validate(filters=changes).ok
    copied = levels.copy("made/copied", f"{tmp_path}/copied", filters=changes)
    assert [each.key for each in copied.partitions()] == [FEBRUARY]
    assert levels.rewrite(filters=changes).summary["rewritten"] == 1
    assert levels.drop_partitions(filters=changes).summary["dropped"] == 1


def recent(hours_ago: int) -> xr.Dataset:
    """An hour, so many hours ago."""
    return hours(str(np.datetime64("now", "h") - np.timedelta64(hours_ago, "h")), 1)


@pytest.mark.parametrize("age", [np.timedelta64(36, "h"), "timedelta", "pandas"], ids=str)
def test_partitions_older_than_some_time_are_dropped(make_collection: Make, age: Any) -> None:
    age = {"timedelta": dt.timedelta(hours=36), "pandas": pd.Timedelta("36h")}.get(age, age)
    collection = make_collection(recent(0), partitioning=izc.Date("time", "h"))
    for ago in (0, 30, 40, 50):
        collection.insert(recent(ago))
    kept = [each.key for each in collection.partitions()][2:]
    made = collection.drop_partitions(older_than=age)
    assert (made.summary["dropped"], [each.key for each in collection.partitions()]) == (2, kept)
    assert collection.drop_partitions(older_than=age) == made  # nothing is left that is older


def test_of_a_partition_the_last_value_decides_how_old_it_is(make_collection: Make) -> None:
    cycle = xr.concat([recent(0), recent(20 * 24)], "time", data_vars="minimal").assign(cycle=("time", [1, 1]))
    collection = make_collection(cycle, partitioning=izc.Sequence(("cycle",)))
    before = collection.insert(cycle)
    assert collection.drop_partitions(older_than=np.timedelta64(10, "D")) == before
    collection.drop_rows(where={"time": (recent(10).time.values[0], None)})
    assert collection.drop_partitions(older_than=np.timedelta64(30, "D")) == collection.version
    assert collection.drop_partitions(older_than=np.timedelta64(10, "D"), filters="cycle == 2") == collection.version
    assert len(collection.partitions()) == 1
    collection.drop_partitions(older_than=np.timedelta64(10, "D"))
    assert collection.partitions() == ()


@pytest.mark.parametrize(
    ("age", "message"),
    [
        (5, "older_than=5 has no unit"),
        (np.timedelta64(1, "M"), "older_than=.*calendar units"),
        (np.timedelta64(-1, "D"), "older_than=.* is negative"),
        (np.timedelta64("NaT", "s"), "older_than is NaT"),
    ],
    ids=str,
)
def test_what_is_no_age_is_refused(levels: izc.Collection, age: Any, message: str) -> None:
    with pytest.raises(izc.InvalidInputError, match=message):
        levels.drop_partitions(older_than=age)


def test_integers_have_no_age(make_collection: Make) -> None:
    data = xr.Dataset({"level": ("record", [1.0])}, {"record": [5], "cycle": ("record", [1])})
    collection = make_collection(data, axis="record", partitioning=izc.Sequence(("cycle",)))
    collection.insert(data)
    with pytest.raises(izc.InvalidInputError, match="the axis record of collection made/c0 holds integers"):
        collection.drop_partitions(older_than=np.timedelta64(1, "D"))
