"""What a collection promises, it promises on a disk, in memory, in S3 and on a server of FTP."""

from collections.abc import Callable
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import FsspecStore

import intake_zcollection as izc
from tests.conftest import Store, make_grid
from tests.processes import processes_of_dask

Make = Callable[..., izc.Collection]

DATA = make_grid("2022-01-30", days=4)  # two days of January, two of February

MARKER = ".zcollection"


@pytest.fixture
def make(registry: izc.Registry, store: Store) -> Make:
    """A function that creates a collection by month, empty, in each store."""

    def make(name: str = "made/a", **options: Any) -> izc.Collection:
        options = {"axis": "time", "partitioning": izc.Date("time", "M"), "location": store.location("a"), **options}
        return izc.create_collection(registry, name, DATA, storage_options=store.storage_options, **options)

    return make


@pytest.fixture
def filled(make: Make) -> izc.Collection:
    """The data, as version 1."""
    collection = make()
    collection.insert(DATA)
    return collection


def join(*parts: xr.Dataset) -> xr.Dataset:
    return xr.concat(parts, "time", data_vars="minimal", coords="minimal", compat="override", join="exact")


def assert_holds(collection: izc.Collection, expected: xr.Dataset) -> None:
    xr.testing.assert_allclose(collection.load().compute(), expected, rtol=1e-12)


def fails_late() -> xr.Dataset:
    """The data in lazy blocks, the last of which has a value that its packing cannot hold."""
    lazy = DATA.chunk(time=1)
    return lazy.assign(sst=lazy.sst.where(DATA.time < DATA.time[-1], 1e6))


# Writing


@pytest.mark.parametrize(("resolution", "partitions"), [("D", 4), ("M", 2)])
def test_what_is_inserted_comes_back(make: Make, zarr_format: int, resolution: Any, partitions: int) -> None:
    collection = make(partitioning=izc.Date("time", resolution), zarr_format=zarr_format)
    collection.insert(DATA)
    assert len(collection.partitions()) == partitions
    assert_holds(collection, DATA)


def test_upserted_rows_take_the_place_of_those_at_their_times(filled: izc.Collection) -> None:
    newer = make_grid("2022-01-31", days=2, seed=1)
    filled.insert(newer, merge="upsert")
    assert_holds(filled, join(DATA.isel(time=[0]), newer, DATA.isel(time=[3])))


def test_replaced_partitions_hold_what_was_inserted_alone(filled: izc.Collection) -> None:
    newer = make_grid("2022-02-05", days=1, seed=1)
    filled.insert(newer, merge="replace")
    assert_holds(filled, join(DATA.isel(time=slice(0, 2)), newer))


def test_a_failed_insert_leaves_the_marker_alone(make: Make, store: Store) -> None:
    collection = make()
    with pytest.raises(izc.InvalidInputError, match="sst"):
        collection.insert(fails_late(), workers=1)
    assert store.objects(collection.location) == {MARKER}
    assert collection.partitions() == ()


def test_a_failed_insert_takes_nothing_from_what_was_there(filled: izc.Collection, store: Store) -> None:
    before = store.objects(filled.location)
    with pytest.raises(izc.InvalidInputError, match="sst"):
        filled.insert(fails_late(), merge="replace", workers=1)
    assert store.objects(filled.location) == before
    assert_holds(filled, DATA)


def test_a_location_belongs_to_one_collection(filled: izc.Collection, make: Make, store: Store) -> None:
    before = store.objects(filled.location)
    with pytest.raises(izc.AlreadyExistsError, match="belongs to collection made/a"):
        make("made/b")
    assert store.objects(filled.location) == before


# Reading


def test_a_filter_chooses_partitions(filled: izc.Collection) -> None:
    loaded = filled.load(filters="month == 2").compute()
    xr.testing.assert_allclose(loaded, DATA.isel(time=slice(2, 4)), rtol=1e-12)


def test_bounds_choose_rows(filled: izc.Collection) -> None:
    loaded = filled.load(where={"time": ("2022-01-31", "2022-02-01")}).compute()
    xr.testing.assert_allclose(loaded, DATA.isel(time=slice(1, 3)), rtol=1e-12)


def test_variables_are_chosen(filled: izc.Collection) -> None:
    loaded = filled.load(variables=["ice"])
    assert list(loaded.data_vars) == ["ice"]
    np.testing.assert_array_equal(loaded.ice.values, DATA.ice.values)


@pytest.mark.parametrize("chunks", ["partition", {}, {"time": 3, "lat": 2}, None], ids=str)
def test_values_do_not_depend_on_the_chunks(filled: izc.Collection, chunks: Any) -> None:
    xr.testing.assert_allclose(filled.load(chunks=chunks).compute(), DATA, rtol=1e-12)


def test_without_dask_a_selection_is_read_when_its_values_are_asked_for(filled: izc.Collection) -> None:
    lazy = filled.load(chunks=None).ice[1:3, 1, ::2]
    np.testing.assert_array_equal(lazy.values, DATA.ice.values[1:3, 1, ::2])


def test_labels_are_read_when_a_selection_needs_them(filled: izc.Collection) -> None:
    selection = {"time": "2022-02-01", "lat": 10.0, "lon": [3.0, 1.0]}
    loaded = filled.load().sel(selection).compute()
    xr.testing.assert_allclose(loaded, DATA.sel(selection), rtol=1e-12)


def test_an_older_version_stays_as_it_was(filled: izc.Collection) -> None:
    filled.insert(make_grid("2022-02-01", days=3, seed=1), merge="replace")
    assert_holds(filled.at(version=1), DATA)
    assert filled.at(version=0).load().sizes["time"] == 0


def test_a_view_has_what_is_its_own_beside_its_base(
    filled: izc.Collection, registry: izc.Registry, store: Store
) -> None:
    options: dict[str, Any] = {"location": store.location("view"), "storage_options": store.storage_options}
    view = izc.create_view(registry, "made/view", filled, **options)
    kelvin = izc.Variable("kelvin", "f8", DATA.sst.dims)
    view.update(lambda data: {"kelvin": data.sst + 273.15}, inputs=["sst"], outputs=[kelvin], rowwise=True)
    filled.drop_rows(where={"time": ("2022-01-30", "2022-01-30")})
    held = izc.open_collection(registry, view.name, storage_options=store.storage_options).load().compute()
    xr.testing.assert_allclose(held.kelvin.rename("sst"), DATA.sst[1:] + 273.15, rtol=1e-9)
    assert view.validate().ok
    izc.drop_collection(registry, view.name, storage_options=store.storage_options)
    assert filled.validate().ok


def test_another_process_opens_it_through_a_registry_of_its_own(
    filled: izc.Collection, store: Store, registry: izc.Registry
) -> None:
    with izc.connect(registry.url) as other:
        again = izc.open_collection(other, filled.name, storage_options=store.storage_options)
        assert_holds(again, DATA)
        again.insert(make_grid("2022-03-01", days=1), message="from elsewhere")
    assert filled.version.message == "from elsewhere"
    assert filled.load().sizes["time"] == 5


@pytest.mark.parametrize("store", ["local", "s3", "ftp"], indirect=True)  # a process sees no other's memory
def test_dask_reads_in_other_processes(filled: izc.Collection, store: Store) -> None:
    lazy = filled.load(chunks="partition")
    with processes_of_dask("spawn" if store.url.startswith("s3:") else "forkserver"):  # once as a user's
        xr.testing.assert_allclose(lazy.compute(scheduler="processes", num_workers=1), DATA, rtol=1e-12)


# Without this library


@pytest.mark.parametrize("store", ["local", "memory", "s3"], indirect=True)  # zarr's threads share a connection of FTP
def test_each_fragment_opens_in_zarr_and_xarray(make: Make, store: Store, zarr_format: int) -> None:
    collection = make(zarr_format=zarr_format)
    collection.insert(DATA)
    assert len(collection.partitions()) == 2
    for partition, rows in zip(collection.partitions(), (slice(0, 2), slice(2, 4)), strict=True):
        url = f"{collection.location}/{partition.fragments['ice'][0]}"
        stored = FsspecStore.from_mapper(fsspec.get_mapper(url, **store.storage_options))
        np.testing.assert_array_equal(zarr.open_array(stored, path="ice", mode="r")[...], DATA.ice.values[rows])
        opened = xr.open_zarr(fsspec.get_mapper(url, **store.storage_options), consolidated=False).compute()
        xr.testing.assert_allclose(opened, DATA.isel(time=rows).drop_vars(["lat", "lon", "crs"]), rtol=1e-12)
