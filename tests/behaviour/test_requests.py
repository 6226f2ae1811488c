"""What S3 is asked for, counted by the server: opening asks nothing, each object takes one request, many at a time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
from registry import MARKER
from tests.behaviour.test_lazy import ALL_CHUNKS, make_hourly
from tests.conftest import NewRegistry
from tests.s3 import S3Server

pytestmark = pytest.mark.one_engine("sqlite", "requests to stores are counted")

HOURS = 3

DATA = make_hourly(hours=HOURS)

CHUNKS = {
    "sst": ["c.0.0", "c.0.1", "c.1.0", "c.1.1"],
    "flag": ["c.0"],
    "received": ["c.0"],
    "time": ["c.0"],
}
"""The chunks of each variable in one partition, an hour; x is immutable."""


def create(registry: izc.Registry, location: str, **options: Any) -> izc.Collection:
    defaults: dict[str, Any] = {"axis": "time", "partitioning": izc.Date("time", "h")}
    return izc.create_collection(registry, "made/hourly", DATA, location=location, **(defaults | options))


@pytest.fixture
def empty(registry: izc.Registry, s3: S3Server) -> izc.Collection:
    return create(registry, s3.fresh_url(), storage_options=s3.storage_options)


@pytest.fixture
def hourly(empty: izc.Collection) -> izc.Collection:
    """Three partitions."""
    empty.insert(DATA)
    return empty


@pytest.fixture(scope="module")
def shared_registry(new_registry: NewRegistry) -> Iterator[izc.Registry]:
    """The registry of what tests only read."""
    with new_registry() as registry:
        yield registry


@pytest.fixture(scope="module")
def only_read(shared_registry: izc.Registry, s3: S3Server) -> izc.Collection:
    """Three partitions, for tests that only read them."""
    collection = create(shared_registry, s3.fresh_url(), storage_options=s3.storage_options)
    collection.insert(DATA)
    return collection


def chunks_of(partition: izc.Partition, *variables: str) -> list[str]:
    """The keys of variables' chunks in one partition."""
    return sorted(f"{partition.fragments[name][0]}/{name}/{chunk}" for name in variables for chunk in CHUNKS[name])


def objects_of(partition: izc.Partition) -> list[str]:
    """The keys of all objects of one partition."""
    fragment = partition.fragments["time"][0]
    metadata = [f"{fragment}/zarr.json", *(f"{fragment}/{name}/zarr.json" for name in CHUNKS)]
    return sorted([*metadata, *chunks_of(partition, *CHUNKS)])


# Opening


@pytest.mark.parametrize("chunks", ALL_CHUNKS, ids=str)
def test_opening_and_loading_lazily_makes_no_request(
    shared_registry: izc.Registry, only_read: izc.Collection, s3: S3Server, chunks: Any
) -> None:
    with s3.traffic(only_read.location) as traffic:
        dataset = izc.open_dataset(shared_registry, only_read.name, chunks=chunks, storage_options=s3.storage_options)
        repr(dataset)
    assert traffic.requests == []


def test_what_a_collection_says_of_itself_takes_no_request(only_read: izc.Collection, s3: S3Server) -> None:
    with s3.traffic(only_read.location) as traffic:
        repr(only_read), only_read.partitions(), only_read.versions(), only_read.at(version=1).load()
    assert traffic.requests == []


# Reading


@pytest.mark.parametrize("variables", [["sst"], ["flag"], ["sst", "flag", "received", "time"]], ids="-".join)
@pytest.mark.parametrize("chunks", ["auto", "partition", {"time": 2}, None], ids=str)
def test_each_chunk_takes_one_get_and_nothing_else_is_asked(
    only_read: izc.Collection, s3: S3Server, chunks: Any, variables: list[str]
) -> None:
    second = only_read.partitions()[1]
    dataset = only_read.load(filters="hour == 1", chunks=chunks)
    with s3.traffic(only_read.location) as traffic:
        values = {name: dataset[name].values for name in variables}
    assert traffic.keys("GET") == chunks_of(second, *variables)
    assert len(traffic.requests) == len(chunks_of(second, *variables))
    for name in variables:
        expected = DATA[name].values[2:4]
        np.testing.assert_allclose(values[name].astype("f8"), expected.astype("f8"), rtol=1e-12)


def test_the_chunks_of_a_block_are_fetched_at_the_same_time(only_read: izc.Collection, s3: S3Server) -> None:
    sst = only_read.load(chunks="partition", filters="hour == 1").sst.data
    assert sst.npartitions == 1
    with s3.traffic(only_read.location, together=4) as traffic:
        sst.compute(scheduler="sync")
    assert len(traffic.requests) == traffic.at_once["GET"] == 4


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda c: c.load(chunks="auto").flag.data.compute(scheduler="sync"), id="a dask block"),
        pytest.param(lambda c: c.load(chunks=None).flag.values, id="no dask"),
    ],
)
def test_the_small_partitions_of_a_block_are_fetched_at_the_same_time(
    only_read: izc.Collection, s3: S3Server, read: Callable[[izc.Collection], Any]
) -> None:
    with s3.traffic(only_read.location, together=HOURS) as traffic:
        values = read(only_read)
    assert len(traffic.requests) == traffic.at_once["GET"] == HOURS
    np.testing.assert_array_equal(values, DATA.flag.values)


def test_bounds_that_cut_partitions_read_their_axis_once(only_read: izc.Collection, s3: S3Server) -> None:
    first, _, last = only_read.partitions()
    with s3.traffic(only_read.location) as traffic:
        dataset = only_read.load(where={"time": ("2022-01-01T00:30", "2022-01-01T02:10")})
    assert traffic.keys("GET") == sorted(chunks_of(first, "time") + chunks_of(last, "time"))
    assert len(traffic.requests) == 2
    assert dataset.sizes["time"] == 4


# Writing


def test_creating_neither_lists_nor_deletes(registry: izc.Registry, s3: S3Server) -> None:
    location = s3.fresh_url()
    with s3.traffic(location) as traffic:
        create(registry, location, storage_options=s3.storage_options)
    assert traffic.requests == [("GET", MARKER, ""), ("PUT", MARKER, "")]


@pytest.mark.parametrize("merge", ["append", "refuse", "replace"])
def test_an_insert_of_one_partition_puts_its_objects_at_the_same_time_and_asks_for_the_marker_alone(
    hourly: izc.Collection, s3: S3Server, merge: str
) -> None:
    start = "2022-01-01" if merge == "replace" else "2022-01-02"
    with s3.traffic(hourly.location, together=2) as traffic:
        hourly.insert(make_hourly(start, hours=1, seed=1).drop_vars("x"), merge=merge)
    partition = next(partition for partition in hourly.partitions() if partition.version == 2)
    assert len(objects_of(partition)) == 5 + 7
    assert traffic.keys("PUT") == objects_of(partition)
    assert traffic.keys("GET") == [MARKER]
    assert len(traffic.requests) == len(objects_of(partition)) + 1
    assert traffic.at_once["PUT"] > 1


def test_an_insert_in_format_2_puts_each_of_its_objects_once(registry: izc.Registry, s3: S3Server) -> None:
    location = s3.fresh_url()
    collection = create(registry, location, storage_options=s3.storage_options, zarr_format=2)
    with s3.traffic(location) as traffic:
        collection.insert(make_hourly(hours=1).drop_vars("x"))
    assert set(traffic.keys("PUT")) | {MARKER} == s3.keys(location)
    assert traffic.keys("GET") == [MARKER]
    assert len(traffic.requests) == 3 + 2 * 4 + 7 + 1


def test_a_merge_gets_each_chunk_that_it_merges_once(hourly: izc.Collection, s3: S3Server) -> None:
    before, *_ = hourly.partitions()
    with s3.traffic(hourly.location) as traffic:
        hourly.insert(make_hourly(hours=1, seed=1).drop_vars("x"), merge="upsert")
    after, *_ = hourly.partitions()
    # No existing row is left, so no other variable matters.
    assert traffic.keys("GET") == sorted([MARKER, *chunks_of(before, "time")])
    assert traffic.keys("PUT") == objects_of(after)
    assert len(traffic.requests) == 1 + len(chunks_of(before, "time")) + len(objects_of(after))


def test_a_merge_that_keeps_existing_rows_between_new_ones_gets_the_axis_and_the_chunks_of_these_rows(
    hourly: izc.Collection, s3: S3Server
) -> None:
    before, *_ = hourly.partitions()
    fragment = before.fragments["time"][0]
    around = make_hourly("2022-01-01T00:15", hours=1, seed=1).drop_vars("x")  # at 00:15 and 00:45; there is 00:30
    with s3.traffic(hourly.location) as traffic:
        hourly.insert(around)
    after, *_ = hourly.partitions()
    assert (after.rows, after.parts) == (4, 2)
    second_row = [f"{fragment}/{chunk}" for chunk in ("sst/c.1.0", "sst/c.1.1", "flag/c.0", "received/c.0")]
    axis = f"{fragment}/time/c.0"  # to decide, and it is not read again to write that row
    assert traffic.keys("GET") == sorted([MARKER, *second_row, axis])
    assert len(traffic.requests) == 1 + 5 + 5 + 9


def test_an_append_after_the_rows_of_a_partition_puts_its_objects_and_gets_the_marker_alone(
    hourly: izc.Collection, s3: S3Server
) -> None:
    with s3.traffic(hourly.location) as traffic:
        hourly.insert(make_hourly("2022-01-01T00:40", hours=1, seed=1).isel(time=[0]).drop_vars("x"))
    (partition, *_) = hourly.partitions()
    assert (partition.rows, partition.parts) == (3, 2)
    assert traffic.keys("GET") == [MARKER]
    assert len(traffic.requests) == 1 + len(traffic.keys("PUT")) == 1 + 5 + 5


def test_a_refused_insert_makes_no_request(hourly: izc.Collection, s3: S3Server) -> None:
    with s3.traffic(hourly.location) as traffic, pytest.raises(izc.AlreadyExistsError):
        hourly.insert(DATA, merge="refuse")
    assert traffic.requests == []


def test_an_append_that_is_refused_has_got_the_axis_alone(hourly: izc.Collection, s3: S3Server) -> None:
    axis = sorted(chunk for partition in hourly.partitions() for chunk in chunks_of(partition, "time"))
    with s3.traffic(hourly.location) as traffic, pytest.raises(izc.AlreadyExistsError):
        hourly.insert(DATA.drop_vars("x"))
    assert traffic.keys("GET") == axis
    assert len(traffic.requests) == len(axis)


# Through a cache


@pytest.fixture
def chained(registry: izc.Registry, s3: S3Server, tmp_path: Path) -> izc.Collection:
    """Three partitions, written through a cache on disk."""
    collection = create(registry, f"simplecache::{s3.fresh_url()}", storage_options=cached(s3, tmp_path / "writer"))
    collection.insert(DATA)
    return collection


def cached(s3: S3Server, folder: Path) -> dict[str, Any]:
    return {"s3": s3.storage_options, "simplecache": {"cache_storage": str(folder)}}


def plain_url(collection: izc.Collection) -> str:
    return collection.location.removeprefix("simplecache::")


def test_what_is_written_through_a_cache_lies_in_s3(chained: izc.Collection, s3: S3Server) -> None:
    objects = {key for partition in chained.partitions() for key in objects_of(partition)}
    stored = s3.keys(plain_url(chained))
    assert objects < stored
    assert {key.partition("/")[0] for key in stored - objects} == {".zcollection", "immutable"}


def test_a_second_read_through_a_cache_makes_no_request(
    registry: izc.Registry, chained: izc.Collection, s3: S3Server, tmp_path: Path
) -> None:
    reader = izc.open_collection(registry, chained.name, storage_options=cached(s3, tmp_path / "reader"))
    with s3.traffic(plain_url(chained)) as first:
        xr.testing.assert_allclose(reader.load().compute(), DATA, rtol=1e-12)
    assert len(first.keys("GET")) == HOURS * 7 + 1
    with s3.traffic(plain_url(chained)) as second:
        xr.testing.assert_allclose(reader.load().compute(), DATA, rtol=1e-12)
    assert second.requests == []


@pytest.mark.parametrize("variable", ["sst", "flag"])
def test_a_first_read_through_a_cache_takes_one_get_for_each_chunk(
    registry: izc.Registry, chained: izc.Collection, s3: S3Server, tmp_path: Path, variable: str
) -> None:
    reader = izc.open_collection(registry, chained.name, storage_options=cached(s3, tmp_path / "reader"))
    with s3.traffic(plain_url(chained)) as traffic:
        reader.load(filters="hour == 1")[variable].variable.compute()
    assert traffic.keys("GET") == chunks_of(chained.partitions()[1], variable)
    assert len(traffic.requests) == len(CHUNKS[variable])


def test_a_failed_insert_through_a_cache_leaves_nothing_behind(chained: izc.Collection, s3: S3Server) -> None:
    before = s3.keys(plain_url(chained))
    lazy = DATA.chunk(time=2)
    bad = lazy.assign(sst=lazy.sst.where(DATA.time < DATA.time[-1], 1e6))  # more than its packing holds
    with pytest.raises(izc.InvalidInputError, match="sst"):
        chained.insert(bad, merge="replace", workers=1)
    assert s3.keys(plain_url(chained)) == before
