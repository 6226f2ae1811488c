"""What a dataset's labels do is what they do in memory, whatever has been read before.

The yardstick is the same dataset in memory, built by xarray alone from plain arrays: the same values, or an error of
the same type.
"""

import datetime as dt
import itertools
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import intake_zcollection as izc
from intake_zcollection.reading.index import LazyIndex
from tests.conftest import NewRegistry, make_grid, without_unit
from tests.counting import counted_location, requests_to
from tests.examples import scaled

GRID = make_grid().drop_vars("sst")  # which is packed, and so comes back only nearly


@pytest.fixture(scope="module")
def registry(new_registry: NewRegistry) -> Iterator[izc.Registry]:
    with new_registry() as registry:
        yield registry


@pytest.fixture(scope="module")
def grid(registry: izc.Registry) -> Iterator[izc.Collection]:
    """Ninety days in three months, with latitudes and longitudes; tests only read it."""
    with counted_location() as location:
        collection = izc.create_collection(
            registry, "made/grid", GRID, axis="time", partitioning=izc.Date("time", "M"), location=location
        )
        collection.insert(GRID)
        yield collection


# Identical

USES = [
    pytest.param(lambda ds: ds, id="all"),
    pytest.param(lambda ds: ds.sel(time="2022-02"), id="sel"),
    pytest.param(lambda ds: ds.sel(time=slice("2022-01-09", "2022-03-09"), lat=[0.0, 10.0]), id="sel that cuts"),
    pytest.param(lambda ds: ds.sel(lon=2.0), id="sel of a number"),
    pytest.param(lambda ds: ds.isel(time=slice(10, 50)), id="isel"),
    pytest.param(lambda ds: ds.isel(time=[3, 1, 80], lat=[2, 0]), id="isel list"),
    pytest.param(lambda ds: ds.isel(time=5), id="isel number"),
    pytest.param(lambda ds: ds.isel(time=slice(5, 5)), id="isel nothing"),
    pytest.param(lambda ds: ds.isel(time=slice(1, 5, -1), lat=[2, 0]), id="isel nothing, backwards"),
    pytest.param(lambda ds: ds.isel(time=slice(None, None, -1)), id="isel backwards"),
    pytest.param(lambda ds: pickle.loads(pickle.dumps(ds)), id="pickle"),
    pytest.param(lambda ds: ds.copy(deep=True), id="copy"),
    pytest.param(lambda ds: ds.rename(time="t", lat="y"), id="rename"),
    pytest.param(lambda ds: ds.drop_vars("lon"), id="drop_vars"),
    pytest.param(lambda ds: ds.drop_indexes("time"), id="drop_indexes"),
    pytest.param(lambda ds: ds.reindex(lat=[10.0, 0.0]), id="reindex"),
    pytest.param(lambda ds: xr.concat([ds.ice[5:6], ds.ice[3:4]], "time"), id="concat"),
    pytest.param(lambda ds: xr.align(ds, ds.isel(time=slice(9, 20)), join="inner")[0], id="align"),
    pytest.param(lambda ds: ds.ice, id="a variable"),
    pytest.param(lambda ds: ds.time, id="the axis"),
    pytest.param(lambda ds: ds.time[5:9], id="a part of the axis"),
    pytest.param(lambda ds: ds.time[[5, 3]], id="some of the axis"),
    pytest.param(lambda ds: ds.lat.sortby("lat", ascending=False), id="latitudes backwards"),
]


@pytest.mark.parametrize("load", ["compute", "load"])
@pytest.mark.parametrize("use", USES)
def test_what_is_computed_is_identical_to_what_was_inserted(
    grid: izc.Collection, use: Callable[[Any], Any], load: str
) -> None:
    for loaded in (use(getattr(grid.load(), load)()), getattr(use(grid.load()), load)()):
        xr.testing.assert_identical(loaded, use(GRID))
        xr.testing.assert_identical(use(GRID), loaded)
        xr.testing.assert_identical(pickle.loads(pickle.dumps(loaded)), use(GRID))


@pytest.mark.parametrize("use", USES)
def test_what_is_not_computed_equals_what_was_inserted_both_ways_round(
    grid: izc.Collection, use: Callable[[Any], Any]
) -> None:
    assert use(grid.load()).broadcast_equals(use(GRID))
    assert use(GRID).broadcast_equals(use(grid.load()))
    xr.testing.assert_equal(use(grid.load()), use(GRID))  # which is equals, and says what differs
    xr.testing.assert_equal(use(GRID), use(grid.load()))


@pytest.mark.parametrize("use", USES)
def test_xarray_finds_its_own_invariants(grid: izc.Collection, use: Callable[[Any], Any]) -> None:
    default = "time" in use(GRID).xindexes or "time" not in use(GRID).dims  # which is dropped with drop_indexes
    for loaded in (use(grid.load()), use(grid.load()).compute()):
        xr.testing.assertions._assert_internal_invariants(loaded, check_default_indexes=default)


def test_other_labels_and_other_attributes_are_not_identical(grid: izc.Collection) -> None:
    loaded = grid.load().compute()

    assert not loaded.identical(GRID.assign_coords(time=GRID.time + np.timedelta64(1, "ns")))
    assert not loaded.identical(GRID.assign_coords(lat=("lat", GRID.lat.values)))


def test_nothing_of_a_computed_dataset_is_ours(grid: izc.Collection) -> None:
    loaded = grid.load().compute()

    assert {type(index) for index in loaded.xindexes.values()} == {xr.indexes.PandasIndex}
    assert {type(loaded[name].variable) for name in loaded.xindexes} == {xr.IndexVariable}
    assert b"intake_zcollection" not in pickle.dumps(loaded)


def test_a_computed_dataset_asks_the_storage_for_nothing(grid: izc.Collection) -> None:
    loaded = grid.load().compute()

    with requests_to(grid.location) as requests:
        loaded.sel(time="2022-02-09", lat=[0.0]).ice + loaded.ice  # for what it does
        xr.testing.assert_identical(pickle.loads(pickle.dumps(loaded)), GRID)

    assert requests == []


def test_labels_that_a_coordinate_reads_are_read_for_selections_too(grid: izc.Collection) -> None:
    dataset = grid.load()
    assert dataset.time.values[0] == GRID.time.values[0]

    with requests_to(grid.location) as requests:
        dataset.sel(time="2022-02-09")

    assert requests == []


def test_threads_may_read_the_labels_while_others_use_them(grid: izc.Collection) -> None:
    plain = GRID.isel(time=slice(40))
    uses: list[Callable[[xr.Dataset], Any]] = [
        lambda ds: ds.sel(time=GRID.time.values[[3, 50]]),
        lambda ds: ds.sel(time="2022-02-03"),
        lambda ds: ds.isel(time=slice(3, 9)),
        lambda ds: ds.rename(time="t"),
        lambda ds: ds.time[3:5].values,
        lambda ds: ds.copy(deep=True),
        lambda ds: ds.indexes["time"],
        lambda ds: pickle.dumps(ds),
        lambda ds: ds.ice + plain.ice,
        repr,
    ]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(uses)) as threads:
            for _ in range(20):
                dataset = grid.load()
                assert len(list(threads.map(lambda use, ds=dataset: use(ds), uses))) == len(uses)
                xr.testing.assert_identical(dataset.compute(), GRID)
    finally:
        sys.setswitchinterval(before)


# Labels are not assigned to

NEW_PANDAS = pytest.mark.skipif(
    pd.__version__.startswith("2."), reason="pandas 2 lets the values of any index be changed, behind its back"
)

ASSIGNMENTS = [
    pytest.param(lambda ds: ds.lat.__setitem__(0, 5), id="an item"),
    pytest.param(lambda ds: ds.time.__setitem__(slice(0, 3), np.datetime64("2000-01-01", "ns")), id="a slice"),
    pytest.param(lambda ds: ds.lat.loc.__setitem__(0.0, 5), id="by label"),
    pytest.param(lambda ds: ds.lat.variable.__setitem__(0, 5), id="of the variable"),
    pytest.param(lambda ds: setattr(ds.lat, "values", [1, 2, 3]), id="values"),
    pytest.param(lambda ds: setattr(ds.lat.variable, "data", np.zeros(3)), id="data"),
    pytest.param(lambda ds: ds.lat.values.__setitem__(0, 5), id="an item of values", marks=NEW_PANDAS),
    pytest.param(
        lambda ds: ds.time.values.__setitem__(0, np.datetime64("2000-01-01", "ns")),
        id="a time of values",
        marks=NEW_PANDAS,
    ),
    pytest.param(
        lambda ds: ds.time.data.__setitem__(0, np.datetime64("2000-01-01", "ns")), id="a time of data", marks=NEW_PANDAS
    ),
    pytest.param(lambda ds: ds.lat.__iadd__(1), id="in place"),
]


@pytest.mark.parametrize(
    "before",
    [lambda ds: ds, lambda ds: ds.indexes["time"], xr.Dataset.load],
    ids=["unread", "read", "loaded"],
)
@pytest.mark.parametrize("assign", ASSIGNMENTS)
def test_labels_are_assigned_to_no_more_than_those_of_any_dataset(
    grid: izc.Collection, assign: Callable[[xr.Dataset], None], before: Callable[[xr.Dataset], Any]
) -> None:
    dataset = grid.load()
    before(dataset)

    expected, found = (outcome(assign, each) for each in (GRID.copy(deep=True), dataset))

    assert found == expected
    assert isinstance(found, type)
    np.testing.assert_array_equal(dataset.time, GRID.time)
    np.testing.assert_array_equal(dataset.lat, dataset.indexes["lat"])


def outcome(function: Callable[[Any], Any], *arguments: Any) -> Any:
    """What a function returns, or the type of its error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas has some about odd labels
        try:
            return function(*arguments)
        except Exception as error:  # noqa: BLE001 - of any type: that of xarray counts
            return type(error)


# Selecting


@dataclass(frozen=True)
class Loaded:
    """A dataset of rows at labels x, and two of its kind: one with its labels read, and one made by xarray alone."""

    unread: bytes
    read: xr.Dataset
    plain: xr.Dataset

    def compare(self, some: slice, label: Any, options: dict[str, Any]) -> None:
        """See that a selection from some rows has one outcome in all three."""

        def select(data: xr.Dataset) -> Any:
            return data.isel(x=some).sel(x=label, **options).load()

        unread = pickle.loads(self.unread)
        assert isinstance(unread.xindexes["x"], LazyIndex)
        expected, before, after = (outcome(select, each) for each in (self.plain, unread, self.read))
        for found in (before, after):
            assert isinstance(found, type) == isinstance(expected, type), (found, expected)
            assert found == expected if isinstance(expected, type) else found.identical(expected), (found, expected)


def load(registry: izc.Registry, x: np.ndarray, parts: list[int], location: str | None = None) -> Loaded:
    """A collection of rows at some labels, in some partitions, just loaded."""
    data = xr.Dataset({"part": ("x", np.array(parts, "i8")), "row": ("x", np.arange(len(x)))}, {"x": x})
    number = len(registry.collections())
    location = location or f"memory://labels/{number}"
    collection = izc.create_collection(
        registry, f"made/c{number}", data, axis="x", partitioning=izc.Sequence(("part",)), location=location
    )
    if len(x):
        collection.insert(data)
    unread, read, again = (collection.load(variables=["row"], chunks=None) for _ in range(3))
    assert len(read.indexes["x"]) == len(x)
    return Loaded(
        pickle.dumps(unread), read, xr.Dataset({"row": ("x", again.row.values)}, {"x": again["x"].values.copy()})
    )


TIMES = st.integers(-3, 45).map(lambda number: np.datetime64("2021-01-30") + np.timedelta64(6 * number, "h"))
NUMBERS = st.integers(-3, 45)


@st.composite
def rows(draw: st.DrawFn, *, times: bool) -> tuple[np.ndarray, list[int]]:
    """Labels, and the partition of each: none or some, repeated or not, sorted from partition to partition or not."""
    numbers = st.integers(0, 42)
    labels = draw(st.lists(numbers, max_size=20, unique=draw(st.booleans())))
    parts = draw(
        st.just([number // 8 for number in labels])
        | st.just([0] * len(labels))
        | st.lists(st.integers(0, 3), min_size=len(labels), max_size=len(labels))
    )
    x = np.array(labels, "i8")
    return (np.datetime64("2021-01-30", "ns") + x * np.timedelta64(6, "h") if times else x), parts


def labels(bound: st.SearchStrategy[Any], *, times: bool) -> st.SearchStrategy[Any]:
    """Labels of all kinds: such as there are, near to them, and such as cannot be there."""
    texts = bound.map(str) | bound.map(lambda time: str(time)[:10]) | bound.map(lambda time: str(time)[:7])
    odd_times = [
        "1500-01-01", "2021", "2021-02", "2021-02-03T00Z", "never", np.datetime64("1500-01-01"),
        without_unit(np.datetime64, "NaT"), np.datetime64("NaT", "ns"), pd.NaT,
        pd.Timestamp("2021-02-03", tz="UTC"), dt.datetime(2021, 2, 3, tzinfo=dt.UTC),
        dt.date(2021, 2, 3), dt.time(6), np.timedelta64(1, "D"), 5, 5.0, np.float16(5), None,
    ]  # fmt: skip
    odd_numbers = [
        np.float16(5),
        5.0,
        5.5,
        np.nan,
        "5",
        True,
        None,
        10**30,
        np.uint64(2**63 + 1),
        np.datetime64("2021"),
    ]
    odd = st.sampled_from(odd_times if times else odd_numbers)
    scalar = (
        bound | odd | (texts | bound.map(pd.Timestamp) | bound.map(lambda time: time.item()) if times else st.nothing())
    )
    zero_d = bound.map(np.array) | bound.map(xr.DataArray) | bound.map(lambda value: xr.Variable((), value))
    many = st.lists(bound, max_size=4)
    array = st.one_of(
        many,
        many.map(np.array),
        many.map(lambda values: xr.DataArray(np.array(values, dtype="M8[s]" if times else "i4"), dims="point")),
        st.lists(bound, min_size=4, max_size=4).map(lambda values: xr.Variable(("a", "b"), np.reshape(values, (2, 2)))),
        st.lists(scalar, min_size=1, max_size=3),
    )
    side = st.none() | scalar | zero_d
    return scalar | zero_d | array | st.builds(slice, side, side, st.none() | st.sampled_from([1, 2, -1]))


def options(*, times: bool) -> st.SearchStrategy[dict[str, Any]]:
    """No method, mostly, or one, with a tolerance perhaps."""
    tolerances = [np.timedelta64(6, "h"), "3h"] if times else [1, 1.5]
    method = st.fixed_dictionaries(
        {"method": st.sampled_from(["nearest", "pad", "backfill"])},
        optional={"tolerance": st.sampled_from(tolerances)},
    )
    return st.just({}) | method


@pytest.mark.parametrize("times", [True, False], ids=["times", "integers"])
@settings(max_examples=scaled(30), deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(data=st.data())
def test_a_selection_is_the_same_before_and_after_labels_are_read_and_in_memory(
    registry: izc.Registry, data: st.DataObject, times: bool
) -> None:
    x, parts = data.draw(rows(times=times))
    loaded = load(registry, x, parts)
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(x))] * 2)))
    some = data.draw(st.sampled_from([slice(None), slice(start, stop), slice(start, None)]))

    for _ in range(8):
        label = data.draw(labels(TIMES if times else NUMBERS, times=times))
        loaded.compare(some, label, data.draw(options(times=times)))


DAYS = np.datetime64("2022-01-25", "ns") + np.arange(14) * np.timedelta64(1, "D")
REPEATED = np.sort(np.append(DAYS, DAYS[[2, 9, 9]]))


@pytest.fixture(scope="module")
def loaded_at(registry: izc.Registry) -> Iterator[Callable[[np.ndarray], Loaded]]:
    """A function that loads rows at some labels, of a collection that is made once."""
    made: dict[bytes, Loaded] = {}
    with counted_location() as place:  # what is in memory elsewhere is forgotten after each test

        def load_once(x: np.ndarray) -> Loaded:
            if x.tobytes() not in made:
                parts = [7 * (time >= np.datetime64("2022-02")) for time in x]
                made[x.tobytes()] = load(registry, x, parts, f"{place}/{len(made)}")
            return made[x.tobytes()]

        yield load_once


@pytest.mark.parametrize("x", [DAYS, REPEATED, DAYS[:0]], ids=["unique", "repeated", "empty"])
@pytest.mark.parametrize(
    ("label", "options"),
    [
        pytest.param(DAYS[[1, 12]], {}, id="two labels"),
        pytest.param(DAYS[9], {}, id="a label that may be repeated"),
        pytest.param(xr.DataArray(DAYS[9]), {}, id="the same as a DataArray"),
        pytest.param(xr.DataArray(DAYS[[9]], dims="point"), {}, id="in an array"),
        pytest.param(DAYS[9] + np.timedelta64(1, "h"), {"method": "nearest"}, id="the nearest to a repeated label"),
        pytest.param(DAYS[1], {"method": "nearest"}, id="the nearest elsewhere"),
        pytest.param(slice(np.array(DAYS[3]), xr.DataArray(DAYS[9])), {}, id="bounds that are arrays"),
        pytest.param(slice(DAYS[9], DAYS[9]), {}, id="a slice of repeated labels"),
        pytest.param(np.float16(5), {}, id="float16"),
        pytest.param("1500-01-01", {}, id="a text of long ago"),
        pytest.param(np.datetime64("1500-01-01"), {}, id="a time of long ago"),
        pytest.param(slice("1500-01-01", None), {}, id="a slice from long ago"),
        pytest.param(pd.Timestamp("2022-02-01", tz="UTC"), {}, id="a time with a zone"),
        pytest.param("2022-02-01T00:00Z", {}, id="a text with a zone"),
        pytest.param(without_unit(np.datetime64, "NaT"), {}, id="not a time"),
        pytest.param("2022-02-01T12", {}, id="a text that is not there"),
        pytest.param(slice(DAYS[3], DAYS[12], 2), {}, id="a step"),
        pytest.param(slice(None, None, -1), {}, id="backwards"),
        pytest.param(slice(DAYS[3], DAYS[12], -1), {}, id="nothing, backwards"),
        pytest.param(slice(DAYS[0] - np.timedelta64(1, "D"), None, -1), {}, id="backwards from before all"),
        pytest.param({"x": 1}, {}, id="a dict"),
        pytest.param([True, False] * 7, {}, id="a mask"),
    ],
)
def test_a_selection_that_once_depended_on_what_was_read(
    loaded_at: Callable[[np.ndarray], Loaded], x: np.ndarray, label: Any, options: dict[str, Any]
) -> None:
    for some in (slice(None), slice(3, 9), slice(5, 5)):
        loaded_at(x).compare(some, label, options)


def test_a_finer_label_anywhere_makes_a_date_a_period(registry: izc.Registry) -> None:
    x = np.array(["2022-01-01T00", "2022-01-01T06", "2022-01-02T00", "2022-02-01T00", "2022-02-03T00"], "M8[ns]")
    loaded = load(registry, x, [1, 1, 1, 2, 2])

    for label in ("2022-02-01", "2022-02-02", "2022-01-01"):
        loaded.compare(slice(None), label, {})


@pytest.mark.parametrize(
    ("name", "dtype"), [*itertools.product(["number", "half", "name"], ["f8", "f4", "i2", "U3", "O"])]
)
def test_labels_of_other_dimensions_are_selected_as_in_memory(registry: izc.Registry, name: str, dtype: str) -> None:
    stations = np.array(["1", "2", "3"]).astype(dtype)
    data = xr.Dataset({"x": ("x", [1, 2]), "v": (("x", "s"), np.arange(6).reshape(2, 3))}, {"s": stations})
    collection = izc.create_collection(
        registry,
        f"made/{name}_{dtype.lower()}",
        data,
        axis="x",
        partitioning=izc.Sequence(("x",)),
        location=f"memory://stations/{name}/{dtype}",
    )
    collection.insert(data)
    label = {"number": stations[1], "half": np.float16(2), "name": ["3", "1"]}[name]

    expected, found = (outcome(lambda each: each.sel(s=label).compute(), each) for each in (data, collection.load()))

    assert isinstance(found, type) == isinstance(expected, type)
    assert found == expected if isinstance(expected, type) else found.identical(expected)
