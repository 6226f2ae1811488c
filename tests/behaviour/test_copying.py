"""Copies of collections: anywhere, in any registry, of any version; whole, or not at all."""

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from distributed import Client

import intake_zcollection as izc
from intake_zcollection.storage.objects import LocalStore
from intake_zcollection.writing import write
from intake_zcollection.writing.group import put_down
from tests.behaviour.test_updating import make_flow
from tests.conftest import NewRegistry, Store, both_formats, make_grid
from tests.processes import processes_of_dask

Make = Callable[..., izc.Collection]


def files_below(location: Any) -> list[str]:
    return sorted(str(path.relative_to(location)) for path in Path(location).rglob("*") if path.is_file())


@pytest.fixture
def maps(make_collection: Make, one_format: int) -> izc.Collection:
    """January to March."""
    options: dict[str, Any] = {"merge": "upsert", "description": "daily maps", "metadata": {"owner": "me"}}
    collection = make_collection(make_grid(), zarr_format=one_format, **options)
    collection.insert(make_grid())
    return collection


def shapes_of(collection: izc.Collection) -> list[Any]:
    return [(partition.key, partition.rows, partition.bounds) for partition in collection.partitions()]


def edited(collection: izc.Collection) -> izc.Collection:
    """Put a history behind it: layers, and variables renamed, dropped, added, and added again."""
    collection.update(lambda d: {"ice": d.ice * 2}, filters="month != 2")
    collection.update(lambda d: {"ice": d.ice + 1, "sst": d.sst - 1}, filters="month == 1")
    collection.rename_variable("ice", "cover")
    collection.drop_variable("count")
    collection.add_variable(izc.Variable("count", "f4", ("time",), {"units": "1"}, fill_value=8.0))
    collection.add_variable(izc.Variable("ice", "f8", ("time", "lat")))
    collection.update(lambda d: {"ice": d.sst.mean("lon", skipna=False)}, filters="month == 3")
    collection.set_immutables(xr.Dataset({"mask": ("lat", np.array([1, 0, 1], "i1"))}))
    collection.drop_partitions(filters="month == 2")
    february = make_grid(seed=4).isel(time=slice(31, 40)).drop_vars(["count", "ice"])
    collection.insert(february, missing="fill")
    collection.set_attributes({"title": "edited"})
    return collection


@pytest.fixture
def target(new_registry: NewRegistry) -> Iterator[izc.Registry]:
    """Another registry."""
    with new_registry() as registry:
        yield registry


@both_formats
@pytest.mark.parametrize("elsewhere", [False, True], ids=["same registry", "other registry"])
def test_a_copy_is_equal_and_one_fragment_per_partition(
    maps: izc.Collection, registry: izc.Registry, target: izc.Registry, tmp_path: Path, elsewhere: bool
) -> None:
    edited(maps)
    head, files = maps.version, files_below(maps.location)
    copy = maps.copy("copies/c", f"{tmp_path}/copy", reg=target.url if elsewhere else None)
    xr.testing.assert_identical(copy.load().compute(), maps.load().compute())
    assert {name: each.encoding for name, each in copy.load().variables.items()} == {
        name: each.encoding for name, each in maps.load().variables.items()
    }
    assert shapes_of(copy) == shapes_of(maps)
    assert all(len(set(partition.fragments.values())) == 1 for partition in copy.partitions())
    assert [version.operation for version in copy.versions()] == ["create", "copy"]
    assert copy.version.summary["rows"] == sum(partition.rows for partition in maps.partitions())
    assert copy.version.summary["created"] == 3
    objects = [path for path in (tmp_path / "copy").rglob("*") if path.is_file() and path.name != ".zcollection"]
    assert copy.version.summary["bytes"] == sum(path.stat().st_size for path in objects)
    assert copy.validate().ok
    assert (maps.version, files_below(maps.location)) == (head, files)
    record = (target if elsewhere else registry).collection("copies/c")
    original = registry.collection(maps.name)
    for field in ("axis", "dimension", "partitioning", "zarr_format", "merge", "description"):
        assert getattr(record, field) == getattr(original, field)
    assert record.uid != original.uid


@both_formats
def test_a_copy_lives_on_by_itself(maps: izc.Collection, registry: izc.Registry, tmp_path: Path) -> None:
    before = edited(maps).load().compute()
    copy = maps.copy("copies/c", f"{tmp_path}/copy")
    copy.rename_variable("cover", "snow")
    copy.add_variable(izc.Variable("cover", "f8", ("time",)))
    copy.update(lambda d: {"cover": d["count"].astype("f8"), "sst": d.sst + 1})
    copy.insert(copy.load(filters="month == 1").compute(), merge="concat")
    copy.set_immutables(xr.Dataset({"mask": ("lat", np.array([0, 0, 1], "i1"))}))
    assert copy.load().sizes["time"] == before.sizes["time"] + 31
    assert copy.validate().ok
    xr.testing.assert_identical(maps.load().compute(), before)
    izc.drop_collection(registry, maps.name)
    assert copy.validate().ok
    np.testing.assert_array_equal(copy.load(filters="month == 3").snow, before.sel(time="2022-03").cover)


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ("month == 2", "month == 2"),
        (lambda key: key["month"] == 2, "<lambda>"),
        (["year=2022/month=02"], "1 partitions by their keys"),
    ],
    ids=["text", "function", "keys"],
)
def test_chosen_partitions_are_copied_with_all_immutable_variables(
    maps: izc.Collection, registry: izc.Registry, tmp_path: Path, filters: Any, told: str
) -> None:
    copy = maps.copy("copies/c", f"{tmp_path}/copy", filters=filters)
    xr.testing.assert_identical(copy.load().compute(), maps.load(filters=filters).compute())
    lineage = registry.collection("copies/c").metadata["copied_from"]
    assert lineage["filters"] == told
    none = maps.copy("copies/none", f"{tmp_path}/none", filters="month == 9")
    assert none.partitions() == ()
    np.testing.assert_array_equal(none.load().lat, [-10, 0, 10])


def test_any_version_can_be_copied(maps: izc.Collection, tmp_path: Path) -> None:
    edited(maps)
    for version in maps.versions():
        old = maps.at(version=version)
        copy = old.copy(f"copies/v{version.number}", f"{tmp_path}/v{version.number}")
        xr.testing.assert_identical(copy.load().compute(), old.load().compute())
        assert not copy.read_only
        assert copy._handle.record.metadata["copied_from"]["version"] == version.number
        assert copy.validate().ok


def test_the_lineage_says_where_it_is_from(maps: izc.Collection, target: izc.Registry, tmp_path: Path) -> None:
    uid = maps._handle.record.uid
    first = maps.copy("copies/first", f"{tmp_path}/first", reg=target)
    metadata = target.collection("copies/first").metadata
    assert metadata["owner"] == "me"
    expected = {"registry": maps._handle.registry.url, "collection": maps.name, "uid": uid, "version": 1}
    assert metadata["copied_from"].items() >= expected.items()
    first.copy("copies/second", f"{tmp_path}/second")
    assert target.collection("copies/second").metadata["copied_from"]["collection"] == "copies/first"
    json.dumps(metadata)


@pytest.mark.parametrize("there", ["memory", "local"])
def test_copies_go_from_one_kind_of_store_to_another(make_collection: Make, tmp_path: Path, there: str) -> None:
    places = {"memory": f"memory://{uuid.uuid4().hex}", "local": f"{tmp_path}/place"}
    target = places.pop(there)
    (source,) = places.values()
    collection = make_collection(make_grid(), location=source)
    collection.insert(make_grid())
    edited(collection)
    copy = collection.copy("copies/c", target)
    xr.testing.assert_identical(copy.load().compute(), collection.load().compute())
    assert copy.validate().ok


def test_storage_options_of_the_target_are_its_own(maps: izc.Collection, store: Store, registry: izc.Registry) -> None:
    copy = maps.copy("copies/c", store.location("copy"), storage_options=store.storage_options)
    assert copy.validate().ok
    assert "secret" not in json.dumps(dict(registry.collection("copies/c").storage_options))
    izc.drop_collection(registry, "copies/c", storage_options=store.storage_options)
    assert store.objects(copy.location) == set()


@pytest.mark.parametrize(
    ("scheduler", "zarr_format"),  # processes take seconds to start, and are the same for both formats
    [("threads", 3), ("threads", 2), ("synchronous", 3), ("processes", 2), ("client", 3)],
)
def test_any_scheduler_copies_every_kind_of_variable(
    make_collection: Make, tmp_path: Path, zarr_format: int, scheduler: Any
) -> None:
    flow = make_flow(rows_first=False)
    collection = make_collection(flow, zarr_format=zarr_format)
    collection.insert(flow)
    if scheduler == "client":
        # Spawned, as a user's: a worker that has imported nothing.
        with processes_of_dask("spawn"), Client(n_workers=1, threads_per_worker=1, dashboard_address=":0") as client:
            copy = collection.copy("copies/c", f"{tmp_path}/copy", scheduler=client)
    else:
        copy = collection.copy("copies/c", f"{tmp_path}/copy", scheduler=scheduler)
    xr.testing.assert_identical(copy.load().compute(), collection.load().compute())


def test_an_empty_collection_can_be_copied(make_collection: Make, tmp_path: Path) -> None:
    collection = make_collection(make_grid())
    copy = collection.copy("copies/c", f"{tmp_path}/copy")
    assert copy.schema == collection.schema
    assert (copy.partitions(), copy.version.number) == ((), 0)
    copy.insert(make_grid())
    assert copy.validate().ok


@pytest.mark.parametrize(
    ("name", "location", "error"),
    [
        ("made/c0", "free", izc.AlreadyExistsError),
        ("copies/c", "made/c0", izc.AlreadyExistsError),
        ("copies/c", "made/c0/inside", izc.AlreadyExistsError),
        ("copies/c", "made", izc.AlreadyExistsError),
        ("copies/c", "claimed", izc.AlreadyExistsError),
        ("copies", "free", izc.InvalidInputError),
        ("copies/c", "file/below", izc.StorageUnavailableError),
    ],
)
def test_names_and_places_that_are_taken_are_refused_and_left_alone(
    maps: izc.Collection, registry: izc.Registry, tmp_path: Path, name: str, location: str, error: type[Exception]
) -> None:
    (tmp_path / "claimed").mkdir()
    (tmp_path / "claimed" / ".zcollection").write_text('{"collection": "far/away", "uid": "0"}')
    (tmp_path / "file").write_text("mine")
    files = [path for path in files_below(tmp_path) if "registry.db" not in path]
    with pytest.raises(error):
        maps.copy(name, f"{tmp_path}/{location}")
    assert [path for path in files_below(tmp_path) if "registry.db" not in path] == files
    assert [record.name for record in registry.collections()] == [maps.name]
    assert maps.validate().ok


@pytest.mark.parametrize(
    "options", [{"filters": "month ="}, {"filters": 5}, {"reg": "sqlite:////nowhere/r.db"}], ids=str
)
def test_wrong_arguments_leave_nothing(maps: izc.Collection, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(izc.ZCollectionError):
        maps.copy("copies/c", f"{tmp_path}/copy", **options)
    assert not (tmp_path / "copy").exists()


def test_a_copy_whose_source_is_dropped_meanwhile_says_so_and_leaves_nothing(
    maps: izc.Collection, registry: izc.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drop_before(*args: Any) -> Any:
        if registry.collections():  # each group is put down by a call of its own
            izc.drop_collection(registry, maps.name)
        return put_down(*args)

    with monkeypatch.context() as patched:
        patched.setattr(write, "put_down", drop_before)
        with pytest.raises(izc.ConflictError, match=f"{maps.name} was dropped meanwhile, and its data with it"):
            maps.copy("made/copy", f"{tmp_path}/copy", scheduler="synchronous")
    assert registry.collections() == ()
    assert files_below(f"{tmp_path}/copy") == []


@pytest.mark.parametrize(
    ("other_registry", "scheduler"), [(False, None), (True, None), (False, "synchronous"), (True, "threads")]
)
def test_a_copy_that_fails_in_the_middle_leaves_nothing(
    maps: izc.Collection,
    registry: izc.Registry,
    target: izc.Registry,
    tmp_path: Path,
    other_registry: bool,
    scheduler: Any,
) -> None:
    fragment = Path(maps.location) / maps.partitions()[2].fragments["sst"][0] / "sst"
    next(path for path in fragment.iterdir() if path.name[-1].isdigit()).unlink()
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "notes.txt").write_text("mine")
    chosen = target if other_registry else registry
    with pytest.raises(izc.CorruptedDataError, match="missing"):
        maps.copy("copies/c", f"{tmp_path}/copy", reg=chosen, scheduler=scheduler)
    assert files_below(tmp_path / "copy") == ["notes.txt"]
    assert "copies/c" not in [record.name for record in chosen.collections()]
    copy = maps.copy("copies/c", f"{tmp_path}/copy", reg=chosen, filters="month < 3")
    assert copy.validate().ok


def test_an_interrupted_copy_leaves_nothing(
    maps: izc.Collection, registry: izc.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalStore, "sync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        maps.copy("copies/c", f"{tmp_path}/copy")
    assert files_below(tmp_path / "copy") == []
    assert [record.name for record in registry.collections()] == [maps.name]
