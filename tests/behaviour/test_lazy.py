"""Opening reads no storage, and computing reads no more than it needs: counted, not timed."""

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
from registry import MARKER
from tests.conftest import NewRegistry
from tests.counting import (
    DELETIONS,
    LISTINGS,
    READS,
    WRITES,
    counted_location,
    paths_of,
    requests_to,
    stored_below,
)

HOURS = 1000

ALL_CHUNKS = ["auto", "partition", {}, {"time": 30}, {"time": 30, "x": 1}, 7, -1, None]


def make_hourly(start: str = "2022-01-01", hours: int = HOURS, seed: int = 0) -> xr.Dataset:
    """Two rows per hour: CF times in coarse units, a packed variable of four chunks per hour, labels of a dimension."""
    rng = np.random.default_rng(seed)
    time = np.datetime64(start, "ns") + np.arange(2 * hours) * np.timedelta64(30, "m")
    minutes = {"units": "minutes since 2000-01-01", "dtype": "int32"}
    packing = {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -32768, "chunks": (1, 2)}
    return xr.Dataset(
        {
            "sst": (("time", "x"), np.round(rng.uniform(0, 30, (2 * hours, 4)), 2), {"units": "degC"}, packing),
            "flag": ("time", rng.integers(0, 9, 2 * hours).astype("i1")),
            "received": ("time", time + np.timedelta64(3, "h"), {}, {**minutes, "_FillValue": -1}),
        },
        {"time": ("time", time, {"standard_name": "time"}, minutes), "x": np.arange(4.0)},
    )


def create(registry: izc.Registry, location: str, template: xr.Dataset) -> izc.Collection:
    return izc.create_collection(
        registry, "made/hourly", template, axis="time", partitioning=izc.Date("time", "h"), location=location
    )


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    return make_hourly()


@pytest.fixture(scope="module")
def thousand(new_registry: NewRegistry, data: xr.Dataset) -> Iterator[izc.Collection]:
    """A thousand partitions; tests only read it."""
    with counted_location() as location, new_registry() as registry:
        collection = create(registry, location, data)
        collection.insert(data)
        yield collection


@pytest.fixture
def small(registry: izc.Registry) -> Iterator[izc.Collection]:
    """Three partitions, for tests that write."""
    with counted_location() as location:
        collection = create(registry, location, make_hourly(hours=3))
        collection.insert(make_hourly(hours=3))
        yield collection


def chunks_of(collection: izc.Collection, partition: izc.Partition, variable: str) -> list[str]:
    """The chunks of a variable in one partition, as they are stored."""
    array = f"{partition.fragments[variable][0]}/{variable}"
    return sorted(f"{array}/{name}" for name in stored_below(f"{collection.location}/{array}") if name.startswith("c"))


def rows_of(dataset: xr.Dataset, partition: izc.Partition) -> slice:
    """The positions of a partition's rows in the dataset of all."""
    start = int(np.searchsorted(dataset.time.values, partition.bounds[0]))
    return slice(start, start + partition.rows)


# What counts


@pytest.mark.parametrize(
    ("operation", "use"),
    [
        ("cat_file", lambda fs, path: fs.cat_file(path)),
        ("cat_file", lambda fs, path: fs.cat(path)),
        ("cat_file", lambda fs, path: fs.read_block(path, 0, 1) and fs.cat_file(path)),
        ("cat_ranges", lambda fs, path: fs.cat_ranges([path], [0], [1])),
        ("open", lambda fs, path: fs.open(path, "rb").read()),
        ("open", lambda fs, path: fs.open(path, "r").read()),
        ("open", lambda fs, path: fs.head(path)),
        ("open_write", lambda fs, path: fs.open(path, "wb").close()),
        ("pipe_file", lambda fs, path: fs.pipe(path, b"x")),
        ("pipe_file", lambda fs, path: fs.pipe({path: b"x"})),
        ("info", lambda fs, path: fs.info(path)),
        ("size", lambda fs, path: fs.size(path)),
        ("exists", lambda fs, path: fs.exists(path)),
        ("isfile", lambda fs, path: fs.isfile(path)),
        ("isdir", lambda fs, path: fs.isdir(path)),
        ("ls", lambda fs, path: fs.ls(path)),
        ("ls", lambda fs, path: fs.listdir(path)),
        ("find", lambda fs, path: fs.find(path)),
        ("glob", lambda fs, path: fs.glob(path)),
        ("walk", lambda fs, path: list(fs.walk(path))),
        ("rm", lambda fs, path: fs.rm(path)),
        ("mkdir", lambda fs, path: fs.mkdir(f"{path}.d")),
    ],
)
def test_every_way_to_touch_the_storage_is_counted(operation: str, use: Callable[[Any, str], Any]) -> None:
    with counted_location() as location:
        fs, root = fsspec.url_to_fs(location)
        fs.pipe_file(f"{root}/object", b"bytes")

        with requests_to(location) as requests:
            use(fs, f"{root}/object")

    assert operation in {made for made, _ in requests}
    assert all(path.startswith("object") for _, path in requests)


# Opening


@pytest.mark.parametrize("chunks", ALL_CHUNKS, ids=str)
def test_loading_a_thousand_partitions_makes_no_request(thousand: izc.Collection, chunks: Any) -> None:
    with requests_to(thousand.location) as requests:
        dataset = thousand.load(chunks=chunks)

    assert requests == []
    assert dataset.sizes == {"time": 2 * HOURS, "x": 4}
    assert dataset.sst.dtype == "f8"
    assert dataset.received.dtype == "M8[ns]"


@pytest.mark.parametrize(
    "opening",
    [
        pytest.param(lambda c: izc.open_dataset(c._handle.registry, c.name), id="open_dataset"),
        pytest.param(lambda c: izc.open_collection(c._handle.registry, c.name), id="open_collection"),
        pytest.param(lambda c: c.at(version=1).load(), id="load at a version"),
        pytest.param(lambda c: c.partitions(), id="partitions"),
        pytest.param(lambda c: c.partitions(where={"time": ("2022-01-03T05:30", None)}), id="partitions where"),
        pytest.param(lambda c: (c.version, c.versions(), c.schema, c.read_only), id="what it says of itself"),
        pytest.param(repr, id="repr of a collection"),
        pytest.param(lambda c: c._repr_html_(), id="html of a collection"),
        pytest.param(lambda c: repr(c.load()), id="repr of a dataset"),
        pytest.param(lambda c: c.load()._repr_html_(), id="html of a dataset"),
        pytest.param(lambda c: repr(c.load(chunks=None)), id="repr without dask"),
        pytest.param(lambda c: repr(c.load().sst), id="repr of a variable"),
        pytest.param(lambda c: c.load(filters="day == 3"), id="filters"),
        pytest.param(lambda c: c.load(filters=lambda key: key["hour"] == 5), id="filters by a function"),
        pytest.param(lambda c: c.load(variables=["sst"]), id="variables"),
    ],
)
def test_looking_at_a_collection_makes_no_request(
    thousand: izc.Collection, opening: Callable[[izc.Collection], object]
) -> None:
    with requests_to(thousand.location) as requests:
        opening(thousand)

    assert requests == []


# Cropping


def expected_cuts(collection: izc.Collection, hours: list[str]) -> list[str]:
    """The axis chunks of the partitions of some hours."""
    partitions = {str(partition): partition for partition in collection.partitions()}
    return sorted(path for hour in hours for path in chunks_of(collection, partitions[hour], "time"))


THIRD_AT_5 = "year=2022/month=01/day=03/hour=05"
SEVENTH_AT_12 = "year=2022/month=01/day=07/hour=12"


@pytest.mark.parametrize("chunks", ["auto", "partition", None], ids=str)
@pytest.mark.parametrize(
    ("where", "cut"),
    [
        pytest.param(("2022-01-03T05:30", None), [THIRD_AT_5], id="low"),
        pytest.param((None, "2022-01-07T12:10"), [SEVENTH_AT_12], id="high"),
        pytest.param(("2022-01-03T05:30", "2022-01-07T12:10"), [THIRD_AT_5, SEVENTH_AT_12], id="both"),
        pytest.param(("2022-01-03T05:30", "2022-01-03T05:45"), [THIRD_AT_5], id="both in one partition"),
    ],
)
def test_a_crop_reads_the_axis_of_the_cut_partitions_once(
    thousand: izc.Collection, data: xr.Dataset, where: tuple[str | None, str | None], cut: list[str], chunks: Any
) -> None:
    with requests_to(thousand.location) as requests:
        dataset = thousand.load(where={"time": where}, chunks=chunks)

    assert sorted(paths_of(requests, READS)) == expected_cuts(thousand, cut)
    assert len(requests) == len(cut)
    np.testing.assert_array_equal(dataset.time, data.time.sel(time=slice(*where)))


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        pytest.param((None, None), 2 * HOURS, id="open"),
        pytest.param(("2022-01-03", "2022-01-04"), 2 * 48, id="whole days"),
        pytest.param(("2022-01-03T05", "2022-01-03T05"), 2, id="a whole partition"),
        pytest.param((np.datetime64("2022-01-03T05"), np.datetime64("2022-01-03T06:30")), 4, id="first and last row"),
        pytest.param(("2022-01-03T05:31", "2022-01-03T05:45"), 0, id="between two rows"),
        pytest.param(("1999", "2000"), 0, id="before all"),
    ],
)
def test_bounds_that_coincide_with_partitions_read_nothing(
    thousand: izc.Collection, where: tuple[Any, Any], rows: int
) -> None:
    with requests_to(thousand.location) as requests:
        dataset = thousand.load(where={"time": where})

    assert requests == []
    assert dataset.sizes["time"] == rows


def test_without_crop_whole_partitions_come_and_nothing_is_read(thousand: izc.Collection) -> None:
    with requests_to(thousand.location) as requests:
        dataset = thousand.load(where={"time": ("2022-01-03T05:30", "2022-01-03T06:10")}, crop=False)

    assert requests == []
    assert dataset.sizes["time"] == 4


# Computing


@pytest.mark.parametrize("chunks", ["partition", {"time": 2}, None], ids=str)
@pytest.mark.parametrize("variable", ["sst", "flag", "received", "time"])
def test_one_variable_of_one_partition_takes_one_request_for_each_of_its_chunks(
    thousand: izc.Collection, data: xr.Dataset, variable: str, chunks: Any
) -> None:
    partition = thousand.partitions()[500]
    dataset = thousand.load(chunks=chunks)

    with requests_to(thousand.location) as requests:
        values = dataset[variable].isel(time=rows_of(data, partition)).values

    assert sorted(paths_of(requests, READS)) == chunks_of(thousand, partition, variable)
    assert len(requests) == {"sst": 4}.get(variable, 1)
    np.testing.assert_allclose(
        values.astype("f8"), data[variable].isel(time=rows_of(data, partition)).astype("f8"), rtol=1e-12
    )


def test_without_dask_only_the_chunks_that_are_indexed_are_read(thousand: izc.Collection) -> None:
    partition = thousand.partitions()[0]
    dataset = thousand.load(chunks=None)

    with requests_to(thousand.location) as requests:
        dataset.sst[1, 3].values  # noqa: B018 - read for what it does

    assert paths_of(requests, READS) == [f"{partition.fragments['sst'][0]}/sst/c.1.1"]
    assert len(requests) == 1


def test_chunks_as_stored_take_one_request_per_block(thousand: izc.Collection, data: xr.Dataset) -> None:
    partition = thousand.partitions()[500]
    dataset = thousand.load(chunks={})

    with requests_to(thousand.location) as requests:
        dataset.sst.isel(time=rows_of(data, partition)).data.compute()

    assert dataset.sst.chunks == ((1,) * 2 * HOURS, (2, 2))
    assert sorted(paths_of(requests, READS)) == chunks_of(thousand, partition, "sst")
    assert len(requests) == 4


@pytest.mark.parametrize("chunks", ["auto", "partition", {"time": 30}, 7, -1, None], ids=str)
def test_computing_everything_reads_each_object_once_and_asks_for_nothing_else(
    small: izc.Collection, chunks: Any
) -> None:
    chunk_paths = sorted(path for path in stored_below(small.location) if path.rpartition("/")[2].startswith("c"))
    dataset = small.load(chunks=chunks)

    with requests_to(small.location) as requests:
        computed = dataset.compute()

    # Four chunks of sst, and one each of flag, received and time, in three partitions; and the labels of x.
    assert len(chunk_paths) == 3 * 7 + 1
    assert sorted(paths_of(requests, READS)) == chunk_paths
    assert len(requests) == len(chunk_paths)
    xr.testing.assert_allclose(computed, make_hourly(hours=3), rtol=1e-12)


def test_variables_that_are_not_asked_for_are_not_read(thousand: izc.Collection) -> None:
    with requests_to(thousand.location) as requests:
        thousand.load(variables=["flag"], filters="day == 3").compute()

    read = {path.split("/")[-2] for path in paths_of(requests, READS)}
    assert read == {"flag", "time"}


# The graph


@pytest.mark.parametrize("variable", ["sst", "received"])
def test_the_graph_pickles_to_less_than_a_thousand_bytes_per_task(thousand: izc.Collection, variable: str) -> None:
    array = thousand.load(chunks="partition")[variable].data

    graph = dict(array.__dask_graph__())

    assert len(graph) == HOURS
    assert len(pickle.dumps(graph)) < 1000 * len(graph)
    assert max(len(pickle.dumps(task)) for task in graph.values()) < 5000  # each with all that a worker needs
    assert len(pickle.dumps(array)) < 1000 * len(graph)


def test_auto_joins_small_partitions_into_few_tasks(thousand: izc.Collection) -> None:
    dataset = thousand.load(chunks="auto")

    assert {name: dataset[name].data.npartitions for name in ("sst", "flag", "received")} == {
        "sst": 1,
        "flag": 1,
        "received": 1,
    }


def test_two_versions_share_no_dask_keys(small: izc.Collection) -> None:
    small.insert(make_hourly("2022-01-01T01", hours=1, seed=1), merge="replace")

    first, second = (small.at(version=number).load(chunks="partition") for number in (1, 2))

    assert set(first.__dask_graph__()).isdisjoint(second.__dask_graph__())
    assert not first.sst.equals(second.sst)


def test_two_versions_share_no_dask_keys_where_nothing_changed_between_them(small: izc.Collection) -> None:
    small.insert(make_hourly("2022-01-01T01", hours=1, seed=1), merge="replace")

    first, second = (small.at(version=number).load(filters="hour == 0") for number in (1, 2))

    assert set(first.__dask_graph__()).isdisjoint(second.__dask_graph__())
    assert first.equals(second)


def test_two_loads_of_one_version_share_their_dask_keys(small: izc.Collection) -> None:
    first, second = small.load(), small.load()

    assert set(first.__dask_graph__()) == set(second.__dask_graph__())


def test_two_collections_share_no_dask_keys(registry: izc.Registry, small: izc.Collection) -> None:
    with counted_location() as location:
        other = izc.create_collection(
            registry,
            "made/other",
            make_hourly(hours=3),
            axis="time",
            partitioning=izc.Date("time", "h"),
            location=location,
        )
        other.insert(make_hourly(hours=3, seed=1))

        assert set(small.load().__dask_graph__()).isdisjoint(other.load().__dask_graph__())


# Inserting


def test_an_insert_of_one_partition_writes_its_fragment_and_asks_for_the_marker_alone(small: izc.Collection) -> None:
    before = set(stored_below(small.location))

    with requests_to(small.location) as requests:
        small.insert(make_hourly("2022-01-02", hours=1).drop_vars("x"))

    (partition,) = small.partitions(filters="day == 2")
    fragment = partition.fragments["time"][0]
    arrays = {"sst": ["c.0.0", "c.0.1", "c.1.0", "c.1.1"], "flag": ["c.0"], "received": ["c.0"], "time": ["c.0"]}
    objects = {f"{fragment}/zarr.json"} | {
        f"{fragment}/{name}/{file}" for name, chunks in arrays.items() for file in ["zarr.json", *chunks]
    }
    assert sorted(paths_of(requests, WRITES)) == sorted(objects)
    assert paths_of(requests, READS) == [MARKER]
    assert len(requests) == len(objects) + 1
    assert set(stored_below(small.location)) - before == objects


def test_an_insert_reads_the_immutable_variables_that_it_brings_again_and_nothing_else(small: izc.Collection) -> None:
    with requests_to(small.location) as requests:
        small.insert(make_hourly("2022-01-02", hours=1))

    (read,) = (path for path in paths_of(requests, READS) if path != MARKER)
    assert read.startswith("immutable/")
    assert read.endswith("/x/c.0")
    assert len(paths_of(requests, WRITES)) == len(requests) - 2


@pytest.mark.parametrize("merge", ["append", "refuse", "replace"])
def test_an_insert_neither_lists_nor_deletes(small: izc.Collection, merge: str) -> None:
    day = 1 if merge == "replace" else 2
    before = stored_below(small.location)

    with requests_to(small.location) as requests:
        small.insert(make_hourly(f"2022-01-0{day}", hours=1, seed=1).drop_vars("x"), merge=merge)

    assert paths_of(requests, LISTINGS | DELETIONS | READS) == [MARKER]
    assert stored_below(small.location).items() >= before.items()


def test_a_refused_insert_makes_no_request(small: izc.Collection) -> None:
    with requests_to(small.location) as requests, pytest.raises(izc.AlreadyExistsError, match="hour=00"):
        small.insert(make_hourly(hours=1), merge="refuse")

    assert requests == []


def test_an_append_that_is_refused_has_read_the_axis_of_the_parts_that_it_meets_alone(small: izc.Collection) -> None:
    (axis,) = (partition.fragments["time"][0] for partition in small.partitions()[:1])

    with requests_to(small.location) as requests, pytest.raises(izc.AlreadyExistsError, match="hour=00"):
        small.insert(make_hourly(hours=1).drop_vars("x"))

    assert paths_of(requests, READS) == [f"{axis}/time/c.0"]
    assert len(requests) == 1
