"""What is dropped and renamed: partitions, and whole collections; and what stays."""

import datetime as dt
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import intake_zcollection as izc
from tests.conftest import Store, both_formats, make_grid
from tests.counting import counted_location, requests_to, stored_below

Make = Callable[..., izc.Collection]


@pytest.fixture
def maps(make_collection: Make, one_format: int) -> izc.Collection:
    """January to March, in one insert."""
    collection = make_collection(make_grid(), zarr_format=one_format)
    collection.insert(make_grid())
    return collection


def months_of(collection: izc.Collection) -> list[int]:
    return [dict(partition.key)["month"] for partition in collection.partitions()]


def files_below(location: str) -> dict[str, bytes]:
    return {str(p.relative_to(location)): p.read_bytes() for p in Path(location).rglob("*") if p.is_file()}


# Partitions


@both_formats
@pytest.mark.parametrize("filters", ["month >= 2", lambda key: key["month"] >= 2], ids=["text", "function"])
def test_partitions_are_dropped_by_their_keys_and_older_versions_have_them(maps: izc.Collection, filters: Any) -> None:
    before, files = maps.load().compute(), files_below(maps.location)
    maps.update(lambda d: {"ice": d.ice * 0}, filters="month == 2")
    version = maps.drop_partitions(filters=filters)
    assert version == maps.version
    assert (version.number, version.operation, version.summary) == (3, "drop_partitions", {"dropped": 2, "rows": 59})
    assert months_of(maps) == [1]
    xr.testing.assert_identical(maps.load().compute(), before.isel(time=slice(31)))
    xr.testing.assert_identical(maps.at(version=1).load().compute(), before)
    assert float(maps.at(version=2).load(filters="month == 2").ice.max()) == 0
    assert files.items() <= files_below(maps.location).items()


def test_dropping_makes_no_request_to_the_storage(make_collection: Make) -> None:
    with counted_location() as location:
        collection = make_collection(make_grid(), location=location)
        collection.insert(make_grid())
        objects = stored_below(location)
        with requests_to(location) as requests:
            collection.drop_partitions(filters="month == 1")
        assert requests == []
        assert stored_below(location) == objects


@both_formats
def test_dropped_keys_can_be_inserted_and_dropped_again(maps: izc.Collection) -> None:
    shown = [maps.load().compute()]
    for seed in (1, 2):
        maps.drop_partitions(filters="month != 2")
        shown.append(maps.load().compute())
        maps.insert(make_grid(seed=seed).isel(time=slice(31)), merge="refuse")
        maps.insert(make_grid(seed=seed).isel(time=slice(59, None)))
        maps.update(lambda d: {"count": d["count"] + 1}, filters="month == 1")
        shown.append(maps.load().compute())
    assert [each.sizes["time"] for each in shown] == [90, 28, 90, 28, 90]
    for version, expected in zip((1, 2, 5, 6, 9), shown, strict=True):
        xr.testing.assert_identical(maps.at(version=version).load().compute(), expected)
    np.testing.assert_array_equal(shown[-1]["count"][:31], make_grid(seed=2)["count"][:31] + 1)
    assert maps.validate().ok


@both_formats
@pytest.mark.parametrize("merge", ["time_series", "upsert", "concat", "replace"])
def test_an_insert_of_any_merge_fills_what_was_dropped(maps: izc.Collection, merge: str) -> None:
    maps.drop_partitions(filters="month == 2")
    maps.insert(make_grid(seed=3).isel(time=slice(31, 59)), merge=merge)
    np.testing.assert_array_equal(maps.load()["count"][31:59], make_grid(seed=3)["count"][31:59])


def test_all_partitions_can_be_dropped_and_the_collection_goes_on(maps: izc.Collection) -> None:
    assert maps.drop_partitions(all=True).summary == {"dropped": 3, "rows": 90}
    assert (maps.partitions(), maps.load().sizes["time"]) == ((), 0)
    maps.insert(make_grid())
    assert months_of(maps) == [1, 2, 3]


@pytest.mark.parametrize(
    "wrong", [5, {"week": 1}, {}, ["month == 1"], b"month == 1", True, False, "", "month ="], ids=repr
)
def test_a_filter_that_is_none_drops_nothing(maps: izc.Collection, wrong: Any) -> None:
    with pytest.raises(izc.InvalidInputError):
        maps.drop_partitions(filters=wrong)
    assert maps.version.number == 1
    assert months_of(maps) == [1, 2, 3]


def test_dropping_without_saying_what_is_refused(maps: izc.Collection) -> None:
    with pytest.raises(izc.InvalidInputError, match=r"which partitions of collection .* all=True"):
        maps.drop_partitions()
    assert maps.version.number == 1


@pytest.mark.parametrize(
    "options",
    [{"all": True, "filters": "month == 1"}, {"all": True, "written_before": "2022-01-01"}, {"all": 1}, {"all": "no"}],
    ids=repr,
)
def test_all_is_true_or_false_and_stands_alone(maps: izc.Collection, options: dict[str, Any]) -> None:
    with pytest.raises(izc.InvalidInputError, match="all="):
        maps.drop_partitions(**options)
    assert maps.version.number == 1


@pytest.mark.parametrize(
    "wrong",
    [
        *["soon", "2022-13-01", "", 2022, object(), np.datetime64("NaT", "ns"), pd.NaT],
        *[np.datetime64("12022-01-01"), np.datetime64(2**62, "D"), "0001-01-01T00:00+09:00"],
    ],
    ids=["soon", "2022-13-01", "empty", "2022", "object", "NaT", "pandas' NaT", "year 12022", "far", "year 0"],
)
def test_what_is_no_time_is_refused(maps: izc.Collection, wrong: Any) -> None:
    with pytest.raises(izc.InvalidInputError, match="is not a time"):
        maps.drop_partitions(written_before=wrong)
    assert maps.version.number == 1


@pytest.mark.parametrize("kind", [dt.datetime, pd.Timestamp])
def test_a_datetime_without_a_zone_is_refused_with_the_line_that_gives_it_one(maps: izc.Collection, kind: Any) -> None:
    with pytest.raises(izc.InvalidInputError, match=r"no zone.*datetime\.now\(timezone\.utc\).*\.astimezone\(\)"):
        maps.drop_partitions(written_before=kind(2022, 1, 1))
    assert maps.drop_partitions(written_before=kind(2022, 1, 1, tzinfo=dt.UTC)).number == 1


@pytest.mark.parametrize("ahead", [dt.timedelta(minutes=1), dt.timedelta(hours=9), dt.timedelta(days=365_000)], ids=str)
def test_a_time_in_the_future_is_refused_and_drops_nothing(maps: izc.Collection, ahead: dt.timedelta) -> None:
    with pytest.raises(izc.InvalidInputError, match=r"in the future.*database's clock says 2.*all=True"):
        maps.drop_partitions(written_before=dt.datetime.now(dt.UTC) + ahead)
    assert months_of(maps) == [1, 2, 3]
    assert maps.drop_partitions(written_before=dt.datetime.now(dt.UTC)).summary["dropped"] == 3


TOKYO = """
import datetime as dt, sys, time
import intake_zcollection as izc

assert time.tzname == ("JST", "JST")
levels = izc.open_collection(*sys.argv[1:])
an_hour_ago = dt.datetime.now() - dt.timedelta(hours=1)
for wrong in (an_hour_ago, an_hour_ago.isoformat()):  # text is UTC, and so this is in the future
    try:
        levels.drop_partitions(written_before=wrong)
    except izc.InvalidInputError as error:
        print("refused")
levels.drop_partitions(written_before=an_hour_ago.astimezone())
print(len(levels.partitions()))
"""


@pytest.mark.one_engine("sqlite", "a process in another zone")
def test_an_hour_ago_in_tokyo_does_not_drop_what_was_written_a_minute_ago(
    registry: izc.Registry, maps: izc.Collection
) -> None:
    command = [sys.executable, "-c", TOKYO, registry.url, maps.name]
    environment = {**os.environ, "TZ": "Asia/Tokyo"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused", "refused", "3"]


@pytest.fixture
def written(maps: izc.Collection) -> list[dt.datetime]:
    """When January to March were written last, February by an update: the times of the versions 2 to 4, in UTC."""
    maps.insert(make_grid(seed=1).isel(time=slice(31)), merge="replace")
    maps.update(lambda d: {"count": d["count"]}, filters="month == 2")
    maps.insert(make_grid(seed=1).isel(time=slice(59, None)), merge="upsert")
    return [version.committed_at for version in maps.versions()[2:]]


EAST = dt.timezone(dt.timedelta(hours=9))
FORMS: dict[str, Callable[[dt.datetime], Any]] = {
    "with a zone": lambda time: time,
    "of another zone": lambda time: time.astimezone(EAST),
    "pandas": pd.Timestamp,
    "numpy": lambda time: np.datetime64(time.astimezone(dt.UTC).replace(tzinfo=None), "us"),
    "numpy, ns": lambda time: np.datetime64(time.astimezone(dt.UTC).replace(tzinfo=None), "ns"),
    "text": lambda time: time.isoformat(),
    "naive text": lambda time: time.astimezone(dt.UTC).replace(tzinfo=None).isoformat(sep=" "),
    "text of another zone": lambda time: time.astimezone(EAST).isoformat(),
}


@pytest.mark.parametrize("form", FORMS)
def test_partitions_written_before_a_time_are_dropped(
    maps: izc.Collection, written: list[dt.datetime], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert maps.drop_partitions(written_before=FORMS[form](written[0])).number == 4
    for count, time in enumerate(written[1:], start=1):
        maps.drop_partitions(written_before=FORMS[form](time))
        assert months_of(maps) == [1, 2, 3][count:]
    maps.drop_partitions(written_before=FORMS[form](written[-1] + dt.timedelta(microseconds=1000)))
    assert months_of(maps) == []


def test_days_are_their_first_instant_and_both_conditions_count(
    maps: izc.Collection, written: list[dt.datetime]
) -> None:
    today = written[0].astimezone(dt.UTC).date()
    for day in (today, today.isoformat(), np.datetime64(today)):
        assert maps.drop_partitions(written_before=day).number == 4
    maps.drop_partitions(written_before=dt.datetime.now(dt.UTC), filters="month == 3")
    assert months_of(maps) == [1, 2]
    maps.drop_partitions(written_before=written[1], filters=lambda key: key["month"] == 2)
    assert months_of(maps) == [1, 2]


def test_what_is_merged_with_a_partition_that_is_dropped_meanwhile_is_all_it_has(
    registry: izc.Registry, maps: izc.Collection
) -> None:
    def merge(existing: xr.Dataset, inserted: xr.Dataset, **_: Any) -> xr.Dataset:
        izc.open_collection(registry, maps.name).drop_partitions(filters="month == 1")
        return inserted

    with pytest.raises(izc.ConflictError, match="year=2022/month=01"):
        maps.insert(make_grid().isel(time=slice(9)), merge=merge, scheduler="synchronous", repeatable=False)
    assert months_of(maps) == [2, 3]
    maps.insert(make_grid().isel(time=slice(31)))
    version = maps.insert(make_grid().isel(time=slice(9)), merge=merge, scheduler="synchronous")
    assert version.summary["reruns"] == 1
    assert months_of(maps) == [1, 2, 3]
    assert maps.partitions()[0].rows == 9


# Collections


def add_history(collection: izc.Collection) -> None:
    """Fragments of every kind: live, past, layers, immutable, dropped."""
    collection.insert(make_grid())
    collection.insert(make_grid(seed=1), merge="upsert")
    collection.update(lambda d: {"ice": d.ice * 2})
    collection.update(lambda d: {"ice": d.ice * 2, "count": d["count"]}, filters="month == 1")
    collection.set_immutables(xr.Dataset({"crs": ((), np.int32(4))}))
    collection.drop_partitions(filters="month == 3")


@pytest.mark.parametrize(
    ("store", "zarr_format"),  # the names of a format's objects are the same in S3
    [("local", 3), ("local", 2), ("memory", 3), ("memory", 2), ("s3", 3)],
    indirect=True,
)
def test_a_dropped_collection_takes_its_objects_along_and_no_others(
    registry: izc.Registry, store: Store, zarr_format: int
) -> None:
    options: dict[str, Any] = {"axis": "time", "partitioning": izc.Date("time", "M"), "zarr_format": zarr_format}
    options["storage_options"] = dict(store.storage_options)
    make = lambda name: izc.create_collection(  # noqa: E731 - a function of one line
        registry, f"made/{name}", make_grid(), location=store.location(name), **options
    )
    dropped, kept = make("dropped"), make("dropped2")
    add_history(dropped)
    add_history(kept)
    foreign = ["notes.txt", "year=2022/month=01/notes.txt", "year=2022/notes.txt", "immutable/notes.txt", "other/x/y"]
    dropped._handle.location.store.put((name, b"mine") for name in foreign)
    izc.drop_collection(registry, "made/dropped", storage_options=store.storage_options)
    assert store.objects(dropped.location) == set(foreign)
    assert kept.validate().ok
    assert [record.name for record in registry.collections()] == ["made/dropped2"]
    with pytest.raises(izc.NotFoundError):
        dropped.load()
    again = make("dropped")
    again.insert(make_grid())
    assert again.validate().ok


def test_dropping_an_empty_or_unknown_collection(registry: izc.Registry, make_collection: Make) -> None:
    collection = make_collection(make_grid())
    izc.drop_collection(registry, collection.name)
    assert files_below(collection.location) == {}
    with pytest.raises(izc.NotFoundError):
        izc.drop_collection(registry, "made/c0")


@pytest.mark.parametrize("chunks", ["auto", None])
def test_what_was_loaded_lazily_of_a_collection_that_is_dropped_then_is_gone_and_not_corrupt(
    registry: izc.Registry, maps: izc.Collection, chunks: Any
) -> None:
    data = maps.load(chunks=chunks)
    izc.drop_collection(registry, maps.name)
    with pytest.raises(izc.NotFoundError, match=rf"{maps.name} was dropped .*, since this was loaded: an object"):
        data.compute(scheduler="synchronous")


def test_an_insert_into_a_collection_that_is_dropped_meanwhile_leaves_nothing(
    registry: izc.Registry, maps: izc.Collection
) -> None:
    def merge(existing: xr.Dataset, inserted: xr.Dataset, **_: Any) -> xr.Dataset:
        if registry.collections():
            izc.drop_collection(registry, maps.name)
        return inserted

    with pytest.raises(izc.ConflictError, match="dropped"):
        maps.insert(make_grid().isel(time=slice(31)), merge=merge, scheduler="synchronous")
    assert files_below(maps.location) == {}


@pytest.mark.parametrize("name", ["made/other", "fresh/other"])
def test_a_renamed_collection_is_the_same_under_its_new_name(
    registry: izc.Registry, maps: izc.Collection, name: str
) -> None:
    before, old = maps.load().compute(), maps.name
    izc.rename_collection(registry, old, name)
    renamed = izc.open_collection(registry, name)
    xr.testing.assert_identical(renamed.load().compute(), before)
    assert (renamed.name, renamed.location, len(renamed.versions())) == (name, maps.location, 2)
    assert [record.name for record in registry.collections()] == [name]
    assert [record.name for record in registry.collections(namespace="fresh")] == [name] * (name == "fresh/other")
    with pytest.raises(izc.NotFoundError):
        izc.open_collection(registry, old)
    renamed.insert(make_grid(seed=2), merge="upsert")
    assert renamed.validate().ok
    izc.rename_collection(registry, name, old)
    assert maps.load().sizes["time"] == 90


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("made/c0", "made/c1", izc.AlreadyExistsError),
        ("made/c9", "made/c8", izc.NotFoundError),
        ("made/c0", "c", izc.InvalidInputError),
        ("made/c0", "a/b/c", izc.InvalidInputError),
        ("made/c0", "", izc.InvalidInputError),
        ("made/c0", "/c", izc.InvalidInputError),
        ("made/c0", None, izc.InvalidInputError),
    ],
)
def test_names_that_are_taken_unknown_or_none_are_refused(
    registry: izc.Registry, make_collection: Make, old: str, new: Any, error: type[Exception]
) -> None:
    make_collection(make_grid()), make_collection(make_grid())
    with pytest.raises(error):
        izc.rename_collection(registry, old, new)
    assert [record.name for record in registry.collections()] == ["made/c0", "made/c1"]


WRITES: dict[str, Callable[[izc.Collection], Any]] = {
    "insert": lambda c: c.insert(make_grid(seed=9), merge="replace"),
    "update": lambda c: c.update(lambda d: {"count": d["count"] + 1}, outputs=["count"]),
    "add_variable": lambda c: c.add_variable(izc.Variable("new", "f8", ("time",))),
    "rename_variable": lambda c: c.rename_variable("ice", "snow"),
    "drop_variable": lambda c: c.drop_variable("ice"),
    "set_attributes": lambda c: c.set_attributes({"title": "x"}),
    "set_immutables": lambda c: c.set_immutables(xr.Dataset({"crs": ((), np.int32(1))})),
    "drop_partitions": lambda c: c.drop_partitions(filters="month == 1"),
    "drop_partitions by time": lambda c: c.drop_partitions(written_before=dt.datetime.now(dt.UTC)),
    "drop_partitions of all": lambda c: c.drop_partitions(all=True),
}
READS: dict[str, Callable[[izc.Collection], Any]] = {
    "load": lambda c: c.load().sizes["time"],
    "partitions": lambda c: len(c.partitions()),
    "schema": lambda c: list(c.schema.variables),
    "map": lambda c: list(c.map(len).values()),
    "validate": lambda c: c.validate().ok,
    "version": lambda c: c.version.number,
    "versions": lambda c: len(c.versions()),
    "at": lambda c: c.at(version=1).load().sizes["time"],
    "copy": lambda c: c.copy(f"made/c{id(c)}", f"{c.location}_{id(c)}").load().sizes["time"],
}


def create_another(registry: izc.Registry, name: str, location: Path, template: xr.Dataset) -> izc.Collection:
    options: dict[str, Any] = {"axis": "time", "partitioning": izc.Date("time", "M"), "location": str(location)}
    other = izc.create_collection(registry, name, template, **options)
    other.insert(template)
    return other


# A name is looked up in one way by all that reads, and in one by all that writes.
ONE_OF_EACH = ["load", "map", "insert", "drop_partitions"]


@pytest.mark.parametrize(
    ("use", "taken"),
    [*((use, False) for use in [*WRITES, *READS]), *((use, True) for use in ONE_OF_EACH)],
    ids=lambda value: {False: "free", True: "taken by another"}.get(value, value),
)
def test_open_objects_follow_a_renamed_collection(
    registry: izc.Registry, make_collection: Make, tmp_path: Path, use: str, taken: bool
) -> None:
    maps = make_collection(make_grid())
    maps.insert(make_grid())
    bound = maps.at(version=1)
    izc.rename_collection(registry, maps.name, "fresh/name")
    renamed = izc.open_collection(registry, "fresh/name")
    if taken:
        template = xr.Dataset({"z": ("time", np.zeros(90))}, {"time": make_grid().time})
        other = create_another(registry, "made/c0", tmp_path / "another", template)
        before = other.load().compute()
    if use in WRITES:
        assert WRITES[use](maps).number == renamed.version.number == 2
        assert renamed.validate().ok
        with pytest.raises(izc.ReadOnlyError):
            WRITES[use](bound)
    else:
        assert READS[use](maps) == READS[use](renamed) == READS[use](bound)
        assert renamed.version.number == 1
    if taken:
        assert other.version.number == 1
        xr.testing.assert_identical(other.load().compute(), before)


def test_open_objects_know_the_new_name(registry: izc.Registry, maps: izc.Collection) -> None:
    izc.rename_collection(registry, maps.name, "fresh/name")
    assert maps.drop_partitions(filters="month == 1").collection == "fresh/name"
    assert maps.version.collection == maps.at(version=1).name == maps.name == "fresh/name"
    assert "fresh/name" in repr(maps)


@pytest.mark.parametrize(
    ("use", "same"),
    [*((use, False) for use in [*WRITES, *READS]), *((use, True) for use in ONE_OF_EACH)],
    ids=lambda value: {False: "of another schema", True: "of the same schema"}.get(value, value),
)
def test_objects_of_a_dropped_collection_are_void_though_another_has_its_name(
    registry: izc.Registry, make_collection: Make, tmp_path: Path, use: str, same: bool
) -> None:
    maps = make_collection(make_grid())
    maps.insert(make_grid())
    bound = maps.at(version=1)
    izc.drop_collection(registry, maps.name)
    template = make_grid() if same else xr.Dataset({"z": ("time", np.zeros(90))}, {"time": make_grid().time})
    other = create_another(registry, "made/c0", tmp_path / "another", template)
    before = other.load().compute()
    for each in (maps, bound) if use in READS else (maps,):
        with pytest.raises((izc.NotFoundError, izc.ConflictError)):
            (READS | WRITES)[use](each)
    assert len(other.versions()) == 2
    xr.testing.assert_identical(other.load().compute(), before)
    assert files_below(maps.location) == {}


@pytest.mark.parametrize("merge", ["refuse", "replace", "upsert"])
def test_an_insert_never_gets_into_another_collection_of_the_same_name(
    registry: izc.Registry, make_collection: Make, tmp_path: Path, merge: str
) -> None:
    maps, calls = make_collection(make_grid()), iter(range(9))

    def read() -> xr.Dataset:
        if next(calls) == 1:  # the first call was to look at it
            izc.drop_collection(registry, maps.name)
            create_another(registry, "made/c0", tmp_path / "another", make_grid()).drop_partitions(filters="month == 2")
        return make_grid(seed=5).isel(time=slice(31, 59))

    with pytest.raises(izc.ConflictError, match="dropped"):
        maps.insert(read, merge=merge, scheduler="synchronous")
    other = izc.open_collection(registry, "made/c0")
    assert (months_of(other), other.version.number) == ([1, 3], 2)
    assert files_below(maps.location) == {}
