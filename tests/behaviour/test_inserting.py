"""What can be inserted, in which pieces, and what becomes of the rows that are there."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
from tests.conftest import make_grid

Make = Callable[..., izc.Collection]


def assert_holds(collection: izc.Collection, expected: xr.Dataset) -> None:
    loaded = collection.load().compute()
    for name in expected.variables:
        np.testing.assert_allclose(
            loaded[name].values.astype("f8"), expected[name].values.astype("f8"), err_msg=str(name)
        )


# Sequences


@pytest.fixture
def tracks() -> xr.Dataset:
    """Rows of a satellite's tracks, keys in several runs: cycles 0 to 2, passes -1 to 3."""
    rng = np.random.default_rng(5)
    count = 300
    time = np.datetime64("2019-01-01", "ns") + np.sort(rng.integers(0, 10**13, count)).astype("m8[ns]")
    return xr.Dataset(
        {
            "ssh": ("row", rng.random(count)),
            "cycle": ("row", rng.integers(0, 3, count).astype("i2")),
            "pass": ("row", rng.integers(-1, 4, count).astype("i1")),
        },
        {"time": ("row", time)},
    )


def expected_order(data: xr.Dataset, *keys: Any) -> xr.Dataset:
    return data.isel(row=np.lexsort([data.time.values, *reversed(keys)]))


def test_rows_divided_by_sequence_come_back_in_the_order_of_keys_and_time(make_collection: Make, tracks: Any) -> None:
    collection = make_collection(tracks, partitioning=izc.Sequence(("cycle", "pass")))
    collection.insert(tracks.isel(row=np.random.default_rng(0).permutation(300)))
    assert_holds(collection, expected_order(tracks, tracks.cycle.values, tracks["pass"].values))
    assert [str(partition) for partition in collection.partitions(filters="cycle == 1 and pass <= 0")] == [
        "cycle=1/pass=-1",
        "cycle=1/pass=0",
    ]


def test_rows_divided_into_buckets_come_back(make_collection: Make, tracks: Any) -> None:
    collection = make_collection(tracks, partitioning=izc.GroupedSequence(("cycle", "pass"), size=2, start=1))
    collection.insert(tracks)
    bucket = tracks["pass"].values - (tracks["pass"].values - 1) % 2
    assert_holds(collection, expected_order(tracks, tracks.cycle.values, bucket))
    assert {dict(partition.key)["pass"] for partition in collection.partitions()} == {-1, 1, 3}


def test_a_sequence_of_floats_is_refused_at_creation(make_collection: Make, tracks: Any) -> None:
    with pytest.raises(izc.InvalidInputError, match="needs integer variables, and ssh is float64"):
        make_collection(tracks, partitioning=izc.Sequence(("ssh",)))


# Several inputs


def thirds(data: xr.Dataset) -> list[xr.Dataset]:
    return [data.isel(time=slice(start, None, 3)) for start in range(3)]


def on_disk(data: xr.Dataset, path: Path) -> Path:
    data.to_zarr(path, zarr_format=2, consolidated=False)
    return path


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(lambda parts, path: parts, id="list"),
        pytest.param(lambda parts, path: iter(parts), id="generator"),
        pytest.param(lambda parts, path: [part.chunk(time=7) for part in parts], id="dask"),
        pytest.param(lambda parts, path: [lambda part=part: part for part in parts], id="functions"),
        pytest.param(
            lambda parts, path: [
                partial(xr.open_zarr, on_disk(part, path / f"{i}.zarr"), consolidated=False, chunks=None)
                for i, part in enumerate(parts)
            ],
            id="functions that open files",
        ),
        pytest.param(
            lambda parts, path: [
                xr.open_zarr(on_disk(part, path / f"{i}.zarr"), consolidated=False, chunks=None)
                for i, part in enumerate(parts)
            ],
            id="lazily opened files",
        ),
    ],
)
def test_several_datasets_are_one_transaction(
    make_collection: Make, grid: xr.Dataset, tmp_path: Path, prepare: Callable[..., Any]
) -> None:
    grid.time.encoding = {"units": "days since 1970-01-01", "dtype": "int64"}
    grid.time_bnds.encoding = dict(grid.time.encoding)
    collection = make_collection(grid)
    version = collection.insert(prepare(thirds(grid), tmp_path))
    assert version.number == 1
    assert (version.summary["created"], version.summary["rows"]) == (3, 90)
    assert_holds(collection, grid)


def test_nothing_to_insert_makes_no_version(make_collection: Make, grid: xr.Dataset) -> None:
    collection = make_collection(grid)
    assert collection.insert([]).number == 0
    assert len(collection.versions()) == 1


@pytest.mark.parametrize("data", [b"path.nc", 5, {"a": 1}, None])
def test_what_is_no_dataset_is_refused(make_collection: Make, grid: xr.Dataset, data: Any) -> None:
    with pytest.raises(izc.InvalidInputError, match=r"made/c0 takes an xarray\.Dataset, a function .*, or an iterable"):
        make_collection(grid).insert(data)


@pytest.mark.parametrize("other", [slice(1, None), slice(None, None, -1)], ids=["fewer", "another order"])
def test_a_function_that_gives_other_rows_when_it_is_called_again_is_refused(
    make_collection: Make, grid: xr.Dataset, other: slice
) -> None:
    collection = make_collection(grid)
    given = iter([grid, grid.isel(time=other)])
    with pytest.raises(izc.InvalidInputError, match="opened once more, it had other values of time"):
        collection.insert(lambda: next(given), scheduler="synchronous")
    assert collection.partitions() == ()


def test_a_function_that_returns_no_dataset_is_refused(make_collection: Make, grid: xr.Dataset) -> None:
    with pytest.raises(izc.InvalidInputError, match="the function to insert from returned is of type list"):
        make_collection(grid).insert(lambda: [1])  # type: ignore[arg-type]  # the mistake


def test_immutable_variables_that_differ_between_datasets_are_refused(make_collection: Make, grid: xr.Dataset) -> None:
    first, second, _ = thirds(grid)
    second = second.assign_coords(lat=second.lat + 1)
    collection = make_collection(grid)
    with pytest.raises(izc.InvalidInputError, match=r"the immutable variable lat .* differs between"):
        collection.insert([first, second])
    assert len(collection.versions()) == 1


# Merging


@pytest.mark.parametrize("backed", ["numpy", "dask"])
def test_a_month_is_merged_row_by_row(make_collection: Make, grid: xr.Dataset, backed: str) -> None:
    collection = make_collection(grid, merge="upsert")
    collection.insert(grid.isel(time=slice(0, 40)))
    late = make_grid(days=90, seed=9).isel(time=slice(30, 90))
    version = collection.insert(late.chunk(time=11) if backed == "dask" else late)
    summary = {name: version.summary[name] for name in ("created", "replaced", "merged", "skipped", "rows")}
    assert summary == {"created": 1, "replaced": 0, "merged": 2, "skipped": 0, "rows": 60}
    joined = xr.concat(
        [grid.isel(time=slice(0, 30)), late],
        "time",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="exact",
    )
    assert_holds(collection, joined)
    assert_holds(collection.at(version=1), grid.isel(time=slice(0, 40)))


def test_time_series_with_gaps_keeps_what_lies_in_them(make_collection: Make, grid: xr.Dataset) -> None:
    collection = make_collection(grid)
    collection.insert(grid)
    again = make_grid(seed=2).isel(time=[2, 3, 20, 21])
    collection.insert(again, merge="time_series", tolerance=np.timedelta64(3, "D"))
    loaded = collection.load(filters="month == 1").compute()
    assert loaded.sizes["time"] == 31
    new = loaded["count"].values == make_grid(seed=2)["count"].values[:31]
    assert new[[2, 3, 20, 21]].all()
    np.testing.assert_array_equal(loaded["count"].values[4:20], grid["count"].values[4:20])


@pytest.mark.parametrize("merge", ["time_series", "upsert", "refuse"])
def test_a_tolerance_that_is_no_duration_is_refused_before_anything_is_opened(
    make_collection: Make, grid: xr.Dataset, merge: str
) -> None:
    collection = make_collection(grid)
    with pytest.raises(izc.InvalidInputError, match=r"tolerance=60 has no unit"):
        collection.insert(lambda: pytest.fail("opened"), merge=merge, tolerance=60)


def test_a_function_may_merge(make_collection: Make, grid: xr.Dataset) -> None:
    def keep_the_old_means(existing: xr.Dataset, inserted: xr.Dataset, *, axis: str, dimension: str) -> xr.Dataset:
        assert (axis, dimension) == ("time", "time")
        return inserted.assign(ice=(inserted.ice + existing.ice.values) / 2)

    collection = make_collection(grid)
    collection.insert(grid)
    collection.insert(make_grid(seed=3), merge=keep_the_old_means)
    mean = (grid.ice + make_grid(seed=3).ice.values) / 2
    np.testing.assert_allclose(collection.load().ice.values, mean.values, rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda existing, inserted, **_: inserted.isel(time=slice(0, 0)), "year=2022/month=01: .* is empty"),
        (lambda existing, inserted, **_: inserted.drop_vars("ice"), "year=2022/month=01: the dataset lacks ice"),
        (
            lambda existing, inserted, **_: inserted.assign_coords(time=inserted.time + np.timedelta64(40, "D")),
            "year=2022/month=01: the merge function returned rows of another partition",
        ),
    ],
)
def test_what_a_function_returns_is_checked(
    make_collection: Make, grid: xr.Dataset, function: Any, message: str
) -> None:
    collection = make_collection(grid)
    collection.insert(grid)
    with pytest.raises(izc.InvalidInputError, match=message):
        collection.insert(grid.isel(time=slice(0, 31)), merge=function)
    assert len(collection.versions()) == 2


def test_an_occupied_partition_tells_the_choices(make_collection: Make, grid: xr.Dataset) -> None:
    collection = make_collection(grid)
    collection.insert(grid)
    with pytest.raises(izc.AlreadyExistsError, match=r"month=02 \(28 values, from 2022-02-01.*merge='keep'.*'replace'"):
        collection.insert(grid)
    with pytest.raises(izc.AlreadyExistsError, match=r"month=02 \(28 rows\).*merge='append', 'keep', 'replace', "):
        collection.insert(grid, merge="refuse")


def test_a_merge_of_a_partition_that_changed_meanwhile_is_a_conflict(make_collection: Make, grid: xr.Dataset) -> None:
    collection = make_collection(grid)
    collection.insert(grid)

    def slow(existing: xr.Dataset, inserted: xr.Dataset, **_: Any) -> xr.Dataset:
        other = izc.open_collection(collection._handle.registry, collection.name)
        other.insert(grid.isel(time=slice(0, 31)), merge="replace")
        return inserted

    with pytest.raises(izc.ConflictError, match="year=2022/month=01"):
        collection.insert(grid.isel(time=slice(0, 31)), merge=slow, repeatable=False)
    assert [version.number for version in collection.versions()] == [0, 1, 2]


# Re-deliveries and drift


def test_a_source_that_was_committed_is_skipped(make_collection: Make, grid: xr.Dataset) -> None:
    parts, names = thirds(grid), ["a.nc", "b.nc", "c.nc"]
    collection = make_collection(grid, merge="concat")
    collection.insert(parts[:2], sources=names[:2], seen="skip")
    version = collection.insert(parts, sources=names, seen="skip")
    assert (version.summary["skipped"], version.summary["rows"]) == (2, 30)
    assert_holds(collection, grid)
    assert collection.insert(parts, sources=names, seen="skip") == version
    assert len(collection.versions()) == 3


def test_a_skipped_function_is_not_called(make_collection: Make, grid: xr.Dataset) -> None:
    collection = make_collection(grid)
    collection.insert(grid, sources=["a.nc"])

    def open_it() -> xr.Dataset:
        raise AssertionError("it was opened")

    assert collection.insert(open_it, sources=["a.nc"], seen="skip").number == 1


def test_a_source_may_be_inserted_again(make_collection: Make, grid: xr.Dataset) -> None:
    collection = make_collection(grid)
    for _ in range(2):
        collection.insert(grid, sources=["a.nc"], merge="replace")
    assert len(collection.versions()) == 3


def test_a_failed_insert_remembers_no_source(make_collection: Make, grid: xr.Dataset) -> None:
    collection = make_collection(grid)
    collection.insert(grid)
    with pytest.raises(izc.AlreadyExistsError):
        collection.insert(grid, sources=["a.nc"], seen="skip")
    assert collection.insert(grid, merge="replace", sources=["a.nc"], seen="skip").number == 2


def test_skipping_needs_a_source_for_each_dataset(make_collection: Make, grid: xr.Dataset) -> None:
    collection = make_collection(grid)
    with pytest.raises(izc.InvalidInputError, match="seen='skip' needs sources"):
        collection.insert(grid, seen="skip")
    with pytest.raises(izc.InvalidInputError, match="2 sources for 1 datasets"):
        collection.insert(grid, sources=["a", "b"])


def test_unknown_variables_are_dropped_or_added_on_request(make_collection: Make, grid: xr.Dataset) -> None:
    collection = make_collection(grid)
    collection.insert(grid)
    later = make_grid("2022-04-01", days=30, seed=4)
    later["wind"] = ("time", np.arange(30.0), {"units": "m s-1"})
    with pytest.raises(izc.InvalidInputError, match=r"no variable wind.*unknown='drop', or add it with unknown='add'"):
        collection.insert(later)
    collection.insert(later.isel(time=slice(0, 10)), unknown="drop")
    assert "wind" not in collection.schema.variables
    collection.insert(later.isel(time=slice(10, 30)), unknown="add", merge="concat")
    wind = collection.load().wind
    assert wind.attrs == {"units": "m s-1"}
    assert np.isnan(wind.values[:90]).all()
    np.testing.assert_array_equal(wind.values[100:], np.arange(10.0, 30.0))
    assert "wind" not in collection.at(version=2).load()


def test_variables_may_be_added_one_after_the_other_to_partitions_that_are_merged(
    make_collection: Make, grid: xr.Dataset
) -> None:
    collection = make_collection(grid, merge="concat")
    collection.insert(grid.isel(time=slice(0, 10)))
    for start, name in ((10, "wind"), (20, "rain")):
        part = grid.isel(time=slice(start, start + 10))
        collection.insert(part.assign({name: ("time", np.ones(10))}), unknown="add", missing="fill")
    loaded = collection.load().compute()
    assert loaded.wind.notnull().values.tolist() == [False] * 10 + [True] * 10 + [False] * 10
    assert loaded.rain.notnull().values.tolist() == [False] * 20 + [True] * 10


def test_missing_variables_are_filled_on_request(make_collection: Make, grid: xr.Dataset) -> None:
    collection = make_collection(grid)
    with pytest.raises(izc.InvalidInputError, match=r"the dataset lacks ice.*missing='fill'"):
        collection.insert(grid.drop_vars("ice"))
    collection.insert(grid.drop_vars(["ice", "count", "time_bnds"]), missing="fill")
    loaded = collection.load().compute()
    assert np.isnan(loaded.ice.values).all()
    assert (loaded["count"].values == 0).all()
    assert np.isnat(loaded.time_bnds.values).all()


def test_a_missing_axis_is_never_filled(make_collection: Make, grid: xr.Dataset) -> None:
    with pytest.raises(izc.InvalidInputError, match="the dataset lacks time"):
        make_collection(grid).insert(grid.drop_vars("time"), missing="fill")


def test_a_lazy_axis_is_computed_once(make_collection: Make, tracks: xr.Dataset) -> None:
    computed = []

    def count(block: Any) -> Any:
        computed.append(len(block))
        return block

    lazy = tracks.chunk(row=150)
    counted = lazy.time.data.map_blocks(count, dtype="M8[ns]", meta=np.array((), "M8[ns]"))
    collection = make_collection(tracks)
    collection.insert(lazy.assign_coords(time=("row", counted)))
    assert computed == [150, 150]
    assert_holds(collection, tracks)


def test_no_name_for_a_merge_is_refused(make_collection: Make, grid: xr.Dataset) -> None:
    with pytest.raises(izc.InvalidInputError, match="merge='' is not one of"):
        make_collection(grid).insert(grid, merge="")


def test_thousands_of_keys_are_inserted_at_once_whatever_their_order(make_collection: Make) -> None:
    rng = np.random.default_rng(0)
    rows = rng.permutation(2_000)
    data = xr.Dataset(
        {"cycle": ("row", (rows // 100 - 15).astype("i2")), "pass": ("row", (rows % 100).astype("u1"))},
        {"time": ("row", rows.astype("M8[s]").astype("M8[ns]"))},
    )
    collection = make_collection(
        data, partitioning=izc.Sequence(("cycle", "pass")), location=f"memory://{rng.integers(2**60)}"
    )
    version = collection.insert(data)
    assert version.summary["created"] == len(collection.partitions()) == 2_000
    loaded = collection.load().compute()
    np.testing.assert_array_equal(loaded["cycle"].values * 100 + loaded["pass"].values, np.arange(-1500, 500))
    np.testing.assert_array_equal(loaded.time.values.astype("i8"), np.arange(2_000) * 10**9)
