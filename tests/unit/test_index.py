"""The lazy index: its labels are read when they are needed, never before, and they alone decide what belongs together.

Reads are counted. Results are compared with those of xarray's own index, on the data that was inserted.
"""

import copy
import io
import itertools
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from xarray.indexes import PandasIndex

import intake_zcollection as izc
from intake_zcollection.reading.index import LazyIndex
from intake_zcollection.reading.labels import Segments
from tests.conftest import NewRegistry, make_grid
from tests.counting import counted_location, requests_to, stored_below
from tests.examples import scaled

pytestmark = pytest.mark.one_engine("sqlite", "an index asks no registry")

GRID = make_grid()  # ninety days: January, February and March 2022


@pytest.fixture(scope="module")
def collection(new_registry: NewRegistry) -> Iterator[izc.Collection]:
    """Three months; version 2 replaces February by other values on the same days, version 3 by ten days."""
    with counted_location() as location, new_registry() as registry:
        collection = izc.create_collection(
            registry, "made/a", GRID, axis="time", partitioning=izc.Date("time", "M"), location=location
        )
        collection.insert(GRID)
        collection.insert(make_grid(seed=1).sel(time="2022-02"), merge="replace")
        collection.insert(GRID.sel(time=slice("2022-02-01", "2022-02-10")), merge="replace")
        yield collection


@pytest.fixture
def dataset(collection: izc.Collection) -> xr.Dataset:
    """All ninety days, nothing read yet."""
    return collection.at(version=1).load()


@pytest.fixture
def again(collection: izc.Collection) -> xr.Dataset:
    """The same, loaded a second time."""
    return collection.at(version=1).load()


def axis_chunks(collection: izc.Collection, version: int) -> list[str]:
    """Where the labels of the time axis are stored, at a version."""
    return sorted(
        f"{partition.fragments['time'][0]}/time/{name}"
        for partition in collection.at(version=version).partitions()
        for name in stored_below(f"{collection.location}/{partition.fragments['time'][0]}/time")
        if name.startswith("c")
    )


# Nothing is read


def _assign(dataset: xr.Dataset) -> None:
    dataset["double"] = dataset.ice * 2
    dataset["numbers"] = ("time", np.arange(90))
    dataset.attrs["title"] = "another"
    dataset.time.attrs["comment"] = "another"


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(repr, id="repr"),
        pytest.param(lambda ds: ds._repr_html_(), id="html"),
        pytest.param(lambda ds: repr(ds.ice), id="repr of a variable"),
        pytest.param(lambda ds: repr(ds.time), id="repr of the axis"),
        pytest.param(lambda ds: (repr(ds.xindexes), repr(ds.xindexes["time"])), id="repr of the indexes"),
        pytest.param(lambda ds: ds.info(io.StringIO()), id="info"),
        pytest.param(lambda ds: ds.copy(), id="copy"),
        pytest.param(lambda ds: ds.copy(deep=True), id="copy(deep=True)"),
        pytest.param(copy.copy, id="copy.copy"),
        pytest.param(copy.deepcopy, id="copy.deepcopy"),
        pytest.param(lambda ds: pickle.loads(pickle.dumps(ds)), id="pickle"),
        pytest.param(lambda ds: repr(pickle.loads(pickle.dumps(ds.ice))), id="pickle of a variable"),
        pytest.param(lambda ds: ds.isel(time=slice(10, 50)), id="isel slice"),
        pytest.param(lambda ds: ds.isel(time=slice(None, None, -1)), id="isel backwards"),
        pytest.param(lambda ds: ds.isel(time=[3, 1, 80]), id="isel list"),
        pytest.param(lambda ds: ds.isel(time=np.arange(90) % 2 == 0), id="isel mask"),
        pytest.param(lambda ds: ds.isel(time=-1), id="isel number"),
        pytest.param(lambda ds: ds.isel(time=xr.DataArray([1, 2], dims="point")), id="isel points"),
        pytest.param(lambda ds: ds.isel(lat=1, lon=slice(2)), id="isel of other dimensions"),
        pytest.param(lambda ds: (ds.head(time=3), ds.tail(time=3), ds.thin(time=3)), id="head, tail, thin"),
        pytest.param(lambda ds: ds.ice * 2 - ds.sst, id="arithmetic"),
        pytest.param(lambda ds: np.sqrt(ds.ice), id="ufunc"),
        pytest.param(lambda ds: ds.ice.mean("time"), id="reduction"),
        pytest.param(lambda ds: ds.where(ds.ice > 0.5), id="where"),
        pytest.param(lambda ds: ds.ice.shift(time=1), id="shift"),
        pytest.param(lambda ds: ds.ice.rolling(time=3).mean(), id="rolling"),
        pytest.param(lambda ds: ds.assign(double=ds.ice * 2), id="assign"),
        pytest.param(_assign, id="setitem"),
        pytest.param(lambda ds: ds.assign_coords(day=("time", np.arange(90))), id="assign_coords"),
        pytest.param(lambda ds: ds.reset_coords("quality").set_coords("count"), id="set_coords"),
        pytest.param(lambda ds: ds[["ice"]].drop_vars("quality"), id="select variables"),
        pytest.param(lambda ds: ds.drop_indexes("time"), id="drop_indexes"),
        pytest.param(lambda ds: ds.transpose("lon", ...), id="transpose"),
        pytest.param(lambda ds: ds.expand_dims("member"), id="expand_dims"),
        pytest.param(lambda ds: ds.chunk(time=10), id="chunk"),
        pytest.param(lambda ds: xr.merge([ds[["ice"]], ds[["sst"]]]), id="merge"),
        pytest.param(lambda ds: ds.rename(ice="cover"), id="rename of a variable"),
        pytest.param(lambda ds: ds.rename_dims(bnds="bounds"), id="rename of another dimension"),
    ],
)
def test_nothing_is_read_by(
    collection: izc.Collection, dataset: xr.Dataset, use: Callable[[xr.Dataset], object]
) -> None:
    with requests_to(collection.location) as requests:
        use(dataset)

    assert requests == []


@pytest.mark.parametrize(
    "combine",
    [
        pytest.param(lambda a, b: a.ice - b.sst, id="arithmetic"),
        pytest.param(lambda a, b: a[["ice", "sst"]] + b[["ice", "sst"]], id="arithmetic of datasets"),
        pytest.param(lambda a, b: a.ice.isel(time=slice(5, 30)) + b.ice.isel(time=slice(5, 30)), id="equal slices"),
        pytest.param(lambda a, b: a.ice.isel(time=[7, 3]) + b.ice.isel(time=[7, 3]), id="equal lists"),
        pytest.param(lambda a, b: a.assign(other=b.ice), id="assign"),
        pytest.param(lambda a, b: xr.align(a, b, join="exact"), id="align"),
        pytest.param(lambda a, b: xr.where(a.ice > 0.5, b.ice, 0), id="where"),
        pytest.param(lambda a, b: a.ice + pickle.loads(pickle.dumps(b)).ice, id="an unpickled copy"),
        pytest.param(lambda a, b: a.ice + b.copy(deep=True).ice, id="a deep copy"),
    ],
)
def test_two_loads_of_one_version_are_combined_without_reading(
    collection: izc.Collection,
    dataset: xr.Dataset,
    again: xr.Dataset,
    combine: Callable[[xr.Dataset, xr.Dataset], object],
) -> None:
    with requests_to(collection.location) as requests:
        combine(dataset, again)

    assert requests == []


def test_loading_reads_nothing_and_gives_each_dimension_label_a_lazy_index(collection: izc.Collection) -> None:
    with requests_to(collection.location) as requests:
        dataset = collection.load()

    assert requests == []
    assert {name: type(index) for name, index in dataset.xindexes.items()} == dict.fromkeys(
        ("time", "lat", "lon"), LazyIndex
    )
    assert repr(dataset.xindexes["time"]) == "LazyIndex('time', 72 labels, not read yet)"


def test_its_repr_shows_the_labels_once_they_are_read(dataset: xr.Dataset) -> None:
    dataset.indexes["time"]

    assert "DatetimeIndex(['2022-01-01'" in repr(dataset.xindexes["time"])


# Labels are read once


@pytest.mark.parametrize(
    ("label", "months"),
    [
        pytest.param(slice("2022-01-09", "2022-03"), [1], id="a slice that ends with a partition"),
        pytest.param(slice("2022-01-09", "2022-03-09"), [1, 3], id="a slice that cuts two"),
        pytest.param(slice("2022-02", "2022-02"), [], id="a slice of whole partitions"),
        pytest.param(slice(None, np.datetime64("2021")), [], id="a slice before all"),
        pytest.param(np.datetime64("2022-02-09"), [2], id="an instant"),
        pytest.param([np.datetime64("2022-02-09"), np.datetime64("2022-03-31")], [2, 3], id="two instants"),
    ],
)
def test_selecting_by_label_reads_only_the_axis_of_partitions_that_it_cuts(
    collection: izc.Collection, dataset: xr.Dataset, label: Any, months: list[int]
) -> None:
    with requests_to(collection.location) as requests:
        selected = dataset.sel(time=label)

    assert [path for _, path in requests] == [axis_chunks(collection, version=1)[month - 1] for month in months]
    xr.testing.assert_equal(selected.load(), GRID.sel(time=label))


def test_between_two_partitions_the_nearest_label_is_known_without_reading(
    collection: izc.Collection, dataset: xr.Dataset
) -> None:
    with requests_to(collection.location) as requests:
        nearest = dataset.sel(time=np.datetime64("2022-01-31T18:00"), method="nearest")

    assert requests == []
    assert nearest.time.values == np.datetime64("2022-02-01")


def test_a_day_s_text_is_a_period_or_an_instant_by_all_labels(collection: izc.Collection, dataset: xr.Dataset) -> None:
    with requests_to(collection.location) as requests:
        day = dataset.sel(time="2022-02-09")

    assert {path for _, path in requests} == set(axis_chunks(collection, version=1))
    assert day.sizes == GRID.sel(time="2022-02-09").sizes


@st.composite
def segmented_labels(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """Sorted labels with duplicates and gaps, and where they are cut into segments."""
    labels = np.sort(draw(st.lists(st.integers(0, 40), min_size=1, max_size=25)))
    cuts = draw(st.sets(st.integers(1, 25), max_size=5)) & set(range(1, len(labels)))
    return labels, [0, *sorted(cuts), len(labels)]


def lazy_index(labels: np.ndarray, edges: list[int], known: bool) -> LazyIndex:
    starts, stops = np.array(edges[:-1]), np.array(edges[1:])
    numbers = labels.astype("i8")
    unique = [int(np.all(np.diff(numbers[a:b]))) if known else -1 for a, b in itertools.pairwise(edges)]
    segments = Segments.of(stops - starts, numbers[starts], numbers[stops - 1], unique)
    return LazyIndex.from_lazy("x", xr.Variable("x", labels), "token", segments)


def outcome(index: PandasIndex, label: Any, **options: Any) -> Any:
    """The positions that a selection finds, or the kind of its error."""
    try:
        found = index.sel({"x": label}, **options).dim_indexers["x"]
    except (KeyError, pd.errors.InvalidIndexError) as error:
        return type(error)
    return np.arange(len(index.index))[found].tolist()


@pytest.mark.parametrize("method", ["nearest", "pad", "backfill"])
def test_labels_that_are_repeated_in_the_next_segment_are_as_repeated_as_within_one(method: str) -> None:
    labels = np.array([0, 0, 1])
    lazy = cast("Any", lazy_index(labels, [0, 1, 2, 3], known=True))
    assert outcome(lazy, 2, method=method) == outcome(cast("Any", PandasIndex(labels, "x")), 2, method=method)


@pytest.mark.parametrize("dtype", ["i8", "M8[ns]"])
@settings(max_examples=scaled(150), deadline=None)
@given(made=segmented_labels(), data=st.data())
def test_a_sample_of_the_labels_finds_what_all_of_them_find(
    made: tuple[np.ndarray, list[int]], data: st.DataObject, dtype: str
) -> None:
    labels, edges = made[0].astype(dtype), made[1]
    bound = st.integers(-2, 42).map(lambda number: np.array(number).astype(dtype)[()])
    kind = data.draw(st.sampled_from(["slice", "scalar", "array", "nearest", "pad", "backfill"]))
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(labels))] * 2)))
    lazy, eager = cast(
        "tuple[Any, Any]", (lazy_index(labels, edges, data.draw(st.booleans())), PandasIndex(labels, "x"))
    )
    if data.draw(st.booleans()) and start < stop:
        lazy, eager = (index.isel({"x": slice(start, stop)}) for index in (lazy, eager))

    if kind == "slice":
        label: Any = slice(data.draw(st.none() | bound), data.draw(st.none() | bound))
    else:
        label = np.array(data.draw(st.lists(bound, min_size=1, max_size=4))) if kind == "array" else data.draw(bound)
    options = {"method": kind} if kind in ("nearest", "pad", "backfill") else {}

    assert outcome(lazy, label, **options) == outcome(eager, label, **options)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(lambda collection: collection.insert(GRID), id="insert"),
        pytest.param(
            lambda collection: [collection.insert(GRID.isel(time=slice(i, None, 2))) for i in (0, 1)], id="merge"
        ),
        pytest.param(
            lambda collection: [
                collection.insert(GRID),
                collection.update(lambda ds: {"count": ds["count"] + 1}, outputs=["count"]),
            ],
            id="update",
        ),
    ],
)
def written(request: pytest.FixtureRequest, new_registry: NewRegistry) -> Iterator[list[izc.Collection]]:
    """A collection in which labels may be repeated and none is, and a copy of it."""
    with counted_location() as location, counted_location() as elsewhere, new_registry() as registry:
        collection = izc.create_collection(
            registry,
            "made/b",
            GRID,
            axis="time",
            partitioning=izc.Date("time", "M"),
            location=location,
            merge="concat",
        )
        request.param(collection)
        yield [collection, collection.copy("made/c", location=elsewhere)]


@pytest.mark.parametrize(
    "label",
    [
        pytest.param([np.datetime64("2022-02-09"), np.datetime64("2022-02-11")], id="a list"),
        pytest.param(pd.Timestamp("2022-02-09"), id="a Timestamp"),
        pytest.param(xr.DataArray(np.array(["2022-02-09", "2022-02-03"], "M8[s]"), dims="point"), id="points"),
        pytest.param(slice(None, np.array("2022-02-09", "M8[ns]")), id="a bound that is an array"),
    ],
)
def test_where_no_label_is_repeated_a_selection_reads_no_other_partitions(
    written: list[izc.Collection], label: Any
) -> None:
    for each in written:
        dataset = each.load()
        with requests_to(each.location) as requests:
            dataset.sel(time=label)
            dataset.sel(time=label)

        assert [path for _, path in requests] == axis_chunks(each, version=each.version.number)[1:2]


def test_in_a_partition_with_a_repeated_label_all_labels_say_that_several_cannot_be_selected(
    make_collection: Callable[..., izc.Collection],
) -> None:
    collection = make_collection(GRID)
    collection.insert(GRID.isel(time=[*range(90), 89]))

    for _ in range(2):
        with pytest.raises(pd.errors.InvalidIndexError, match="uniquely valued"):
            collection.load().sel(time=GRID.time.values[[0, 1]])
        with pytest.raises(pd.errors.InvalidIndexError, match="uniquely valued"):
            collection.load().sel(time=GRID.time.values[0], method="nearest")


def test_labels_that_were_read_are_not_read_again(collection: izc.Collection, dataset: xr.Dataset) -> None:
    dataset.indexes["time"]

    with requests_to(collection.location) as requests:
        dataset.sel(time="2022-03")
        dataset.ice.sel(time="2022-03")

    assert requests == []


def test_the_labels_of_a_part_are_read_from_that_part_only(collection: izc.Collection, dataset: xr.Dataset) -> None:
    march = dataset.isel(time=slice(59, 90))

    with requests_to(collection.location) as requests:
        march.sel(time=np.datetime64("2022-03-09"))

    assert [path for _, path in requests] == axis_chunks(collection, version=1)[-1:]


def test_versions_with_other_fragments_are_compared_by_reading_their_labels(collection: izc.Collection) -> None:
    first, second = (collection.at(version=number).load() for number in (1, 2))

    with requests_to(collection.location) as requests:
        difference = second.ice - first.ice

    read = {path for _, path in requests if "/time/" in path}
    assert read == {*axis_chunks(collection, version=1), *axis_chunks(collection, version=2)}
    assert difference.sizes["time"] == 90
    assert (difference != 0).any(("lat", "lon")).groupby("time.month").all().values.tolist() == [False, True, False]


# Selecting


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param({"time": "2022-02-09"}, id="a day"),
        pytest.param({"time": "2022-02"}, id="a partial date"),
        pytest.param({"time": "2022"}, id="a year"),
        pytest.param({"time": np.datetime64("2022-02-09")}, id="datetime64"),
        pytest.param({"time": pd.Timestamp("2022-02-09")}, id="Timestamp"),
        pytest.param({"time": slice("2022-01-20", "2022-02-03")}, id="a slice"),
        pytest.param({"time": slice("2022-01", "2022-02")}, id="a slice of partial dates"),
        pytest.param({"time": slice("2022-03-30", None)}, id="an open slice"),
        pytest.param({"time": slice("2023", None)}, id="a slice of nothing"),
        pytest.param({"time": slice("2022-01-05", "2022-03-01", 7)}, id="a slice with a step"),
        pytest.param({"time": ["2022-03-01", "2022-01-01"]}, id="a list"),
        pytest.param({"time": GRID.time.values[5:80:5]}, id="an array"),
        pytest.param({"time": xr.DataArray(GRID.time.values[[3, 1]], dims="point")}, id="points"),
        pytest.param({"lat": 10.0}, id="a number"),
        pytest.param({"lon": slice(1, 2)}, id="a slice of numbers"),
        pytest.param({"time": "2022-02", "lat": [-10.0, 10.0], "lon": 3.0}, id="several dimensions"),
    ],
)
def test_selecting_by_label_gives_what_xarrays_own_index_gives(dataset: xr.Dataset, labels: dict[str, Any]) -> None:
    xr.testing.assert_allclose(dataset.sel(labels), GRID.sel(labels), rtol=1e-12)


@pytest.mark.parametrize("method", ["nearest", "ffill", "bfill"])
def test_selecting_the_nearest_label(dataset: xr.Dataset, method: Any) -> None:
    wanted = ["2022-01-10T07:00", "2022-02-28T18:00"]

    selected = dataset.sel(time=wanted, method=method)

    np.testing.assert_array_equal(selected.time, GRID.sel(time=wanted, method=method).time)


def test_the_nearest_label_may_not_be_farther_than_the_tolerance(dataset: xr.Dataset) -> None:
    with pytest.raises(KeyError, match="not all values found in index 'time'"):
        dataset.sel(time="2022-06-01", method="nearest", tolerance=np.timedelta64(1, "D"))  # type: ignore[arg-type]  # xarray takes it


def test_a_label_that_is_not_there_is_a_key_error(dataset: xr.Dataset) -> None:
    with pytest.raises(KeyError, match="not all values found in index 'time'"):
        dataset.sel(time="2023-01-01")


@pytest.mark.parametrize(
    "positions",
    [slice(10, 50), slice(None, None, -1), slice(80, 10, -7), slice(5, 5), [3, 1, 80], [-1], np.arange(90) % 2 == 0],
    ids=str,
)
def test_an_index_selected_by_position_has_the_labels_of_its_coordinate(dataset: xr.Dataset, positions: Any) -> None:
    selected = dataset.isel(time=positions).isel(time=slice(0, 20))

    expected = GRID.time.values[positions][:20]
    np.testing.assert_array_equal(selected.xindexes["time"].to_pandas_index(), expected)
    np.testing.assert_array_equal(selected.time, expected)


def test_a_selection_of_a_selection_finds_its_labels(dataset: xr.Dataset) -> None:
    february = dataset.sel(time="2022-02")

    assert february.sel(time=slice("2022-02-20", "2022-03-20")).sizes["time"] == 9
    with pytest.raises(KeyError, match="not all values found in index 'time'"):
        february.sel(time="2022-03-01")


# Aligning: by label, never by position


def combined(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
    return (a + b).compute()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(slice(0, 40), slice(20, 90), id="overlapping"),
        pytest.param(slice(0, 30), slice(10, 40), id="of equal size"),
        pytest.param(slice(0, 10), slice(50, 60), id="disjoint, of equal size"),
        pytest.param(slice(0, 90), slice(0, 90, 7), id="every seventh"),
        pytest.param(slice(0, 30), [*range(29, -1, -1)], id="the same backwards"),
        pytest.param([5, 3, 9], [9, 5, 3], id="the same in another order"),
        pytest.param(slice(5, 10), [5, 6, 7, 8, 9], id="the same, selected in two ways"),
        pytest.param(slice(0, 90), slice(5, 5), id="nothing"),
    ],
)
@pytest.mark.parametrize("join", ["inner", "outer", "left", "right"])
def test_selections_of_a_collection_are_joined_by_label(
    dataset: xr.Dataset, again: xr.Dataset, one: Any, other: Any, join: Any
) -> None:
    with xr.set_options(arithmetic_join=join):
        result = combined(dataset.ice.isel(time=one), again.ice.isel(time=other))
        expected = combined(GRID.ice.isel(time=one), GRID.ice.isel(time=other))

    xr.testing.assert_equal(result, expected)


def test_an_exact_join_of_different_selections_is_refused(dataset: xr.Dataset) -> None:
    with pytest.raises(xr.AlignmentError, match="'time'"):
        xr.align(dataset.isel(time=slice(0, 30)), dataset.isel(time=slice(10, 40)), join="exact")


def test_versions_with_other_rows_are_joined_by_label(collection: izc.Collection) -> None:
    first, third = (collection.at(version=number).load() for number in (1, 3))

    difference = (third.ice - first.ice).compute()

    assert difference.sizes["time"] == 90 - 18
    assert (difference == 0).all()


def test_labels_of_another_collection_are_compared_by_value(
    dataset: xr.Dataset, make_collection: Callable[..., izc.Collection]
) -> None:
    other = make_collection(GRID)
    other.insert(GRID.isel(time=slice(0, 31)))
    other.insert(GRID.isel(time=slice(40, 59)))

    xr.testing.assert_equal(
        combined(dataset.ice, other.load().ice), combined(GRID.ice, GRID.ice.isel(time=[*range(31), *range(40, 59)]))
    )


def test_a_variable_of_other_rows_is_assigned_by_label(dataset: xr.Dataset, again: xr.Dataset) -> None:
    dataset["late"] = again.ice.isel(time=slice(60, 90))

    expected = GRID.assign(late=GRID.ice.isel(time=slice(60, 90)))
    xr.testing.assert_equal(dataset.late.compute(), expected.late)


def test_repeated_labels_are_no_hindrance_to_arithmetic(make_collection: Callable[..., izc.Collection]) -> None:
    twice = GRID.isel(time=[0, 0, 1, 1, 2])
    collection = make_collection(GRID)
    collection.insert(twice)

    xr.testing.assert_equal(combined(collection.load().ice, collection.load().ice), 2 * twice.ice)
    assert collection.load().sel(time="2022-01-02").sizes["time"] == 2


# Alignment with plain datasets


@pytest.mark.parametrize("swap", [False, True], ids=["collection first", "plain first"])
def test_a_plain_dataset_with_equal_labels_fits(dataset: xr.Dataset, swap: bool) -> None:
    pair = (GRID.ice, dataset.ice) if swap else (dataset.ice, GRID.ice)

    xr.testing.assert_equal(combined(*pair), 2 * GRID.ice)


def test_a_plain_variable_with_equal_labels_can_be_assigned(dataset: xr.Dataset) -> None:
    dataset["plain"] = GRID.ice

    xr.testing.assert_equal(dataset.plain.compute(), GRID.ice)


@pytest.mark.parametrize("swap", [False, True], ids=["collection first", "plain first"])
@pytest.mark.parametrize(
    "plain",
    [
        pytest.param(GRID.ice.isel(time=slice(0, 50)), id="fewer"),
        pytest.param(GRID.ice.assign_coords(time=GRID.time + np.timedelta64(1, "D")), id="shifted"),
        pytest.param(GRID.ice.isel(time=slice(None, None, -1)), id="backwards"),
        pytest.param(GRID.ice.assign_coords(lat=[0.0, 10.0, 20.0]), id="of another dimension"),
    ],
)
def test_other_labels_of_a_plain_dataset_are_refused_or_joined_and_never_taken_by_position(
    dataset: xr.Dataset, plain: xr.DataArray, swap: bool
) -> None:
    try:
        result = combined(*((plain, dataset.ice) if swap else (dataset.ice, plain)))
    except xr.AlignmentError as error:
        assert "conflicting indexes" in str(error)  # noqa: PT017 - one of two right answers
    else:
        xr.testing.assert_equal(result, combined(*((plain, GRID.ice) if swap else (GRID.ice, plain))))


def test_a_plain_variable_without_labels_has_to_have_the_size(dataset: xr.Dataset) -> None:
    numbers = xr.DataArray(np.arange(90), dims="time")

    xr.testing.assert_equal(combined(dataset["count"], numbers), GRID["count"] + numbers)
    with pytest.raises(xr.AlignmentError, match="time"):
        combined(dataset["count"], numbers[:50])


def test_with_xarrays_own_index_set_other_labels_are_joined(dataset: xr.Dataset) -> None:
    ordinary = dataset.drop_indexes(["time", "lat", "lon"])
    for name in ("time", "lat", "lon"):
        ordinary = ordinary.set_xindex(name)

    part = GRID.ice.isel(time=slice(10, 50))
    xr.testing.assert_equal(combined(ordinary.ice, part), 2 * part)


# What one does with time series


def test_groupby_months(dataset: xr.Dataset) -> None:
    xr.testing.assert_allclose(
        dataset.sst.groupby("time.month").mean().compute(), GRID.sst.groupby("time.month").mean()
    )


def test_anomalies_from_the_mean_of_their_group(dataset: xr.Dataset) -> None:
    def anomalies(array: xr.DataArray) -> xr.DataArray:
        return (array.groupby("time.month") - array.groupby("time.month").mean()).compute()

    xr.testing.assert_allclose(anomalies(dataset.sst), anomalies(GRID.sst))


def test_resample(dataset: xr.Dataset) -> None:
    xr.testing.assert_allclose(dataset.sst.resample(time="10D").mean().compute(), GRID.sst.resample(time="10D").mean())


def test_where_drop(dataset: xr.Dataset) -> None:
    def february(data: xr.Dataset) -> xr.Dataset:
        return data[["ice", "sst"]].where(data.time.dt.month == 2, drop=True)

    xr.testing.assert_allclose(february(dataset).compute(), february(GRID), rtol=1e-12)


def test_interp(dataset: xr.Dataset) -> None:
    noon = GRID.time[3:80:9] + np.timedelta64(12, "h")
    xr.testing.assert_allclose(dataset.ice.interp(time=noon).compute(), GRID.ice.interp(time=noon))
    xr.testing.assert_allclose(dataset.ice.interp(lat=[-5.0, 5.0]).compute(), GRID.ice.interp(lat=[-5.0, 5.0]))


@pytest.mark.parametrize(
    "compute",
    [
        pytest.param(lambda array: array.diff("time"), id="diff"),
        pytest.param(lambda array: array - array.shift(time=1), id="shift"),
        pytest.param(lambda array: array.roll(time=3, roll_coords=True), id="roll"),
        pytest.param(lambda array: array.rolling(time=5, center=True).mean(), id="rolling"),
        pytest.param(lambda array: array.coarsen(time=7, boundary="trim").mean(), id="coarsen"),
        pytest.param(lambda array: array.cumsum("time"), id="cumsum"),
        pytest.param(lambda array: array.differentiate("time"), id="differentiate"),
        pytest.param(lambda array: array.sortby("time", ascending=False), id="sortby"),
        pytest.param(lambda array: array.drop_sel(time="2022-02-01"), id="drop_sel"),
        pytest.param(lambda array: array.weighted(np.cos(np.deg2rad(array.lat))).mean(("lat", "lon")), id="weighted"),
        pytest.param(lambda array: array.stack(place=("lat", "lon")).unstack("place"), id="stack"),
        pytest.param(lambda array: array.reindex(lat=[10.0, 5.0, 0.0]), id="reindex latitudes"),
        pytest.param(
            lambda array: array.reindex(time=pd.date_range("2021-12-30", "2022-01-05")), id="reindex to other times"
        ),
        pytest.param(lambda array: array.reindex_like(GRID.isel(time=slice(5, 9))), id="reindex_like"),
    ],
)
def test_it_computes_as_xarrays_own_index_does(
    dataset: xr.Dataset, compute: Callable[[xr.DataArray], xr.DataArray]
) -> None:
    xr.testing.assert_allclose(compute(dataset.ice).compute(), compute(GRID.ice))


# Putting together


def test_concat_puts_labels_one_after_the_other(dataset: xr.Dataset) -> None:
    months = [dataset.sel(time=f"2022-0{month}") for month in (1, 2, 3)]

    joined = xr.concat(months, "time", data_vars="minimal", coords="minimal", compat="override", join="exact")

    xr.testing.assert_allclose(joined, GRID, rtol=1e-12)
    assert joined.sel(time="2022-02").sizes["time"] == 28


def test_concat_in_another_order_keeps_labels_and_rows_together(dataset: xr.Dataset) -> None:
    late, early = dataset.ice.sel(time="2022-03"), dataset.ice.sel(time="2022-01")

    joined = xr.concat([late, early], "time")

    xr.testing.assert_equal(joined.sel(time="2022-01-05").compute(), GRID.ice.sel(time="2022-01-05"))
    xr.testing.assert_equal(joined.compute(), GRID.ice.isel(time=[*range(59, 90), *range(31)]))


def test_what_was_concatenated_joins_by_label_with_what_it_came_from(dataset: xr.Dataset) -> None:
    two_months = xr.concat([dataset.ice.sel(time="2022-01"), dataset.ice.sel(time="2022-03")], "time")

    expected = xr.concat([GRID.ice.sel(time="2022-01"), GRID.ice.sel(time="2022-03")], "time") + GRID.ice
    xr.testing.assert_equal(combined(two_months, dataset.ice), expected)


def test_what_was_joined_joins_again(dataset: xr.Dataset) -> None:
    overlap = dataset.ice.isel(time=slice(0, 40)) + dataset.ice.isel(time=slice(20, 90))

    xr.testing.assert_equal(combined(overlap, dataset.ice), 3 * GRID.ice.isel(time=slice(20, 40)))


# Renaming, dropping, setting


def test_a_renamed_axis_is_selected_by_its_new_name(dataset: xr.Dataset) -> None:
    renamed = dataset.rename(time="t")

    xr.testing.assert_allclose(renamed.sel(t="2022-02"), GRID.rename(time="t").sel(t="2022-02"), rtol=1e-12)
    assert "time" not in renamed.xindexes


def test_a_renamed_axis_still_aligns(dataset: xr.Dataset, again: xr.Dataset) -> None:
    one, other = dataset.rename(time="t").ice, again.rename(time="t").ice.isel(t=slice(10, 20))

    xr.testing.assert_equal(combined(one, other), 2 * GRID.rename(time="t").ice.isel(t=slice(10, 20)))


def test_swapping_dimensions_gives_the_axis_up(dataset: xr.Dataset) -> None:
    swapped = dataset.swap_dims(time="quality")

    assert "time" not in swapped.xindexes
    xr.testing.assert_equal(swapped.time.variable.load(), GRID.swap_dims(time="quality").time.variable)


def test_a_dropped_index_leaves_the_lazy_coordinate(collection: izc.Collection, dataset: xr.Dataset) -> None:
    bare = dataset.drop_indexes("time")

    with requests_to(collection.location) as requests:
        np.testing.assert_array_equal(bare.time, GRID.time)

    assert "time" not in bare.xindexes
    assert sorted(path for _, path in requests) == axis_chunks(collection, version=1)


def test_set_xindex_gives_xarrays_own_index(dataset: xr.Dataset) -> None:
    ordinary = dataset.drop_indexes("time").set_xindex("time")

    assert type(ordinary.xindexes["time"]) is PandasIndex
    xr.testing.assert_allclose(ordinary.sel(time="2022-02"), GRID.sel(time="2022-02"), rtol=1e-12)


def test_new_labels_replace_the_lazy_ones(dataset: xr.Dataset) -> None:
    later = dataset.assign_coords(time=GRID.time + np.timedelta64(365, "D"))

    assert later.sel(time="2023-02").sizes["time"] == 28


# Comparing, copying, writing


def test_two_loads_of_a_version_are_identical(dataset: xr.Dataset, again: xr.Dataset) -> None:
    assert dataset.identical(again)
    xr.testing.assert_identical(dataset, again)


def test_a_load_equals_what_was_inserted(dataset: xr.Dataset) -> None:
    loaded = dataset.drop_vars("sst")  # packed: equal to half a step

    assert loaded.equals(GRID.drop_vars("sst"))
    assert GRID.drop_vars("sst").equals(loaded)


def test_other_values_or_other_labels_are_not_equal(collection: izc.Collection, dataset: xr.Dataset) -> None:
    second, third = (collection.at(version=number).load() for number in (2, 3))

    assert not dataset.equals(second)
    assert not dataset.equals(third)
    assert not dataset.xindexes["time"].equals(third.xindexes["time"])
    assert not dataset.isel(time=slice(0, 5)).equals(dataset.isel(time=slice(1, 6)))


def test_equal_labels_of_other_fragments_are_equal(collection: izc.Collection, dataset: xr.Dataset) -> None:
    second = collection.at(version=2).load()

    assert dataset.xindexes["time"].equals(second.xindexes["time"])


def test_labels_of_two_dimensions_are_never_equal(dataset: xr.Dataset) -> None:
    assert not dataset.xindexes["lat"].equals(dataset.xindexes["lon"])


@pytest.mark.parametrize("read_before", [False, True])
def test_a_pickled_dataset_comes_back_whole(dataset: xr.Dataset, read_before: bool) -> None:
    if read_before:
        dataset.sel(time="2022-02-09")

    restored = pickle.loads(pickle.dumps(dataset))

    assert isinstance(restored.xindexes["time"], PandasIndex if read_before else LazyIndex)
    xr.testing.assert_allclose(restored.sel(time="2022-02"), GRID.sel(time="2022-02"), rtol=1e-12)
    xr.testing.assert_identical(restored.compute(), dataset.compute())


def test_changing_a_deep_copy_leaves_the_original(dataset: xr.Dataset) -> None:
    changed = dataset.copy(deep=True)
    changed.time.attrs["comment"] = "changed"
    changed["time"] = GRID.time + np.timedelta64(1, "D")

    assert "comment" not in dataset.time.attrs
    np.testing.assert_array_equal(dataset.time, GRID.time)


def test_a_loaded_dataset_needs_its_storage_no_more(collection: izc.Collection, dataset: xr.Dataset) -> None:
    loaded = dataset.compute()

    with requests_to(collection.location) as requests:
        xr.testing.assert_allclose(loaded.sel(time="2022-02"), GRID.sel(time="2022-02"), rtol=1e-12)

    assert requests == []


@pytest.mark.parametrize("rows", [slice(None), slice(20, 70)], ids=["all", "a part"])
def test_to_zarr_and_back(dataset: xr.Dataset, tmp_path: Path, rows: slice) -> None:
    dataset.isel(time=rows).to_zarr(tmp_path / "copy.zarr", consolidated=False)

    with xr.open_zarr(tmp_path / "copy.zarr", consolidated=False) as copied:
        xr.testing.assert_allclose(copied.compute(), GRID.isel(time=rows), rtol=1e-12)
        assert copied.sst.encoding["dtype"] == "int16"
        assert copied.time.encoding["units"] == "nanoseconds since 1970-01-01"


def test_to_dataframe(dataset: xr.Dataset) -> None:
    pd.testing.assert_frame_equal(dataset[["count"]].to_dataframe(), GRID[["count"]].to_dataframe())
