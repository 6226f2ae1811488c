"""Where values belong that a function returns: at their labels, if they have any."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import intake_zcollection as izc
from tests.behaviour.test_updating import assert_holds, assert_refused, flow, make_flow, stored
from tests.conftest import NewRegistry
from tests.examples import scaled

Make = Callable[..., izc.Collection]
__all__ = ["flow", "stored"]  # fixtures


# Update


def turned(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.isel(time=slice(None, None, -1))


def spread(dataset: xr.Dataset) -> xr.DataArray:
    """Return the doubled values of odd rows, and then those of even ones, backwards."""
    odd, even = dataset.a.isel(time=slice(1, None, 2)), dataset.a.isel(time=slice(0, None, 2))
    return xr.concat([odd * 2, turned(even) * 2], "time")


LABELLED: dict[str, Callable[[xr.Dataset], Any]] = {
    "turned round": lambda d: {"a": turned(d).a * 2},
    "in pieces": lambda d: {"a": spread(d)},
    "sorted": lambda d: {"a": d.a.sortby(d.a) * 2},
    "a dataset": lambda d: turned(xr.Dataset({"a": d.a * 2})),
    "all variables": lambda d: turned(d.assign(a=d.a * 2)),
    "all variables sorted": lambda d: d.assign(a=d.a * 2).sortby(["b", "a"]).sortby("x", ascending=False),
    "lazy": lambda d: {"a": (turned(d).a * 2).chunk(time=5)},
    "a pair": lambda d: {"a": ("time", turned(d).a * 2)},
    "a series": lambda d: {"a": d.a.to_series().sort_values() * 2},
    "a pair with a series": lambda d: {"a": ("time", d.a.to_series().sort_values() * 2)},
    "labels in seconds": lambda d: {"a": turned(d.assign_coords(time=d.time.values.astype("M8[s]"))).a * 2},
    "its own rows alone": lambda d: {"a": turned(d.isel(time=d.time.dt.month == d.time.dt.month.median())).a * 2},
}


@pytest.mark.parametrize("outputs", [None, ["a"]], ids=["inferred", "named"])
@pytest.mark.parametrize("form", LABELLED)
def test_labelled_values_are_laid_at_their_labels(stored: izc.Collection, form: str, outputs: Any) -> None:
    stored.update(LABELLED[form], outputs=outputs)
    assert_holds(stored, make_flow().assign(a=make_flow().a * 2))


@pytest.mark.parametrize("form", LABELLED)
def test_labelled_values_are_laid_at_their_labels_among_neighbours(stored: izc.Collection, form: str) -> None:
    stored.update(LABELLED[form], depth=1, filters="month == 2")
    data = make_flow()
    assert_holds(stored, data.assign(a=xr.where(data.time.dt.month == 2, data.a * 2, data.a)))


@pytest.mark.parametrize(
    "values",
    [
        lambda a: a.values[::-1],
        lambda a: a.variable[::-1],
        lambda a: a[::-1].drop_vars("time"),
        lambda a: list(a.values[::-1]),
        lambda a: ("time", a.values[::-1]),
        lambda a: pd.Series(a.values[::-1]),
    ],
    ids=["array", "variable", "data array", "list", "pair", "series"],
)
def test_values_without_labels_are_laid_by_position(stored: izc.Collection, values: Any) -> None:
    stored.update(lambda d: {"a": values(d.a)})
    expected = np.concatenate([month.a.values[::-1] for _, month in make_flow().groupby("time.month")])
    np.testing.assert_array_equal(stored.load().a.values, expected)


@pytest.mark.parametrize("inputs", [None, ["c"]], ids=["seen", "not seen"])
def test_labels_of_all_dimensions_count(make_collection: Make, flow: xr.Dataset, inputs: Any) -> None:
    collection = make_collection(flow)
    collection.insert(flow)
    x = [3.0, 1.0, 2.0]
    collection.update(lambda d: {"c": turned(d.assign_coords(x=flow.x).c).sel(x=x) * 2}, inputs=inputs)
    assert_holds(collection, flow.assign(c=flow.c * 2))


def shift(dataset: xr.Dataset, **by: int) -> xr.Dataset:
    return dataset.assign_coords(time=dataset.time + np.timedelta64(by.get("hours", 0) + 24 * by.get("days", 0), "h"))


def first_nat(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.assign_coords(time=dataset.time.where(np.arange(dataset.sizes["time"]) > 0))


MISLABELLED: dict[str, tuple[Any, str]] = {
    "shifted by an hour": (
        lambda d: {"a": shift(d, hours=1).a},
        r"at time=2022-0\d-01 01:00:00 and \d\d more, which is",
    ),
    "shifted by a day": (lambda d: {"a": shift(d, days=1).a}, r"at time=2022-0\d-01 00:00:00, which is no label"),
    "shifted, a series": (lambda d: {"a": shift(d, days=1).a.to_series()}, "no label along 'time'"),
    "more than the rows": (lambda d: {"a": d.a.resample(time="12h").nearest()}, "12:00:00 and .*no label along 'time'"),
    "no times": (lambda d: {"a": d.a.assign_coords(time=np.arange(d.sizes["time"]))}, "at time=0 and .*no label"),
    "NaT": (lambda d: {"a": first_nat(d).a}, "at time=NaT, which is no label"),
    "too few": (lambda d: {"a": d.a[3:]}, r"without values at time=2022-0\d-01 00:00:00 and 2 more; .*reindex_like"),
    "too few, in a dataset": (lambda d: d.assign(a=d.a + 1).isel(time=slice(1, None)), "without values at time="),
    "some twice": (lambda d: {"a": xr.concat([d.a, d.a[5:7]], "time")}, "more than once at time=.* and 1 more"),
    "one for another": (lambda d: {"a": d.a.isel(time=[0, *range(d.sizes["time"] - 1)])}, "more than once at time="),
    "a series by something else": (
        lambda d: {"a": d[["a", "b"]].to_dataframe().set_index("b").a},
        "by b, and not by time",
    ),
    "a numbered series": (lambda d: {"a": pd.Series(d.a.values).sort_values()}, "no label along 'time'"),
    "a series of two dimensions": (lambda d: {"a": d.c.to_series()}, "by time, x, and not by time"),
    "labels of another dimension": (
        lambda d: {"c": d.c.assign_coords(x=d.x + 1)},
        "at x=4.0, which is no label along 'x'",
    ),
    "not seen ones": (lambda d: {"c": d.c.drop_vars("x").assign_coords(x=[1, 2, 4])}, "at x=4.*, which is no label"),
    "too few of another dimension": (lambda d: {"c": d.c.isel(x=[0, 1])}, "without values at x=3.0"),
    "a pair with other dimensions": (lambda d: {"c": (("x", "time"), d.c)}, r"\('x', 'time'\) are given for those of"),
}


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("what", MISLABELLED)
def test_labels_that_do_not_say_where_values_belong_are_refused(stored: izc.Collection, what: str, depth: int) -> None:
    function, match = MISLABELLED[what]
    inside = {"depth": depth, "trim": not depth, "outputs": ["a", "c"]}

    def of_own(dataset: xr.Dataset, partition_info: Any) -> Any:
        return function(dataset.isel(dict([partition_info])))

    match = rf"year=2022/month=0\d: the function to update collection {stored.name} with returned .*{match}"
    assert_refused(stored, izc.InvalidInputError, match, of_own, **inside)


def make_track(passes: int = 3, number: bool = True) -> xr.Dataset:
    """Rows without a coordinate of their dimension, but with times; and, or not, with numbers that repeat."""
    rows = passes * 20
    data = xr.Dataset(
        {"a": ("row", np.random.default_rng(1).random(rows)), "k": ("row", np.arange(rows, dtype="i4") // 20)},
        {"t": ("row", np.datetime64("2022-01-01", "ns") + np.arange(rows) * np.timedelta64(1, "s"))},
    )
    return data.assign_coords(row=np.arange(rows) % 20) if number else data


BACK = {"row": slice(None, None, -1)}
TRACKS: dict[str, Callable[[xr.Dataset], Any]] = {
    "turned round": lambda d: {"a": d.a.isel(BACK) * 2},
    "all variables": lambda d: d.assign(a=d.a * 2).isel(BACK),
    "sorted": lambda d: {"a": d.a.sortby(d.a) * 2},
    "without labels": lambda d: {"a": (d.a.drop_vars(["row", "t"], errors="ignore") * 2)},
    "a series by time": lambda d: {"a": pd.Series(d.a.values, pd.Index(d.t.values, name="t"))[::-1] * 2},
}


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("number", [False, True], ids=["times", "times and numbers that repeat"])
@pytest.mark.parametrize("form", TRACKS)
def test_the_axis_tells_rows_apart_where_their_dimension_does_not(
    make_collection: Make, form: str, number: bool, depth: int
) -> None:
    data = make_track(number=number)
    collection = make_collection(data, axis="t", partitioning=izc.Sequence(("k",)))
    collection.insert(data)
    collection.update(TRACKS[form], depth=depth)
    assert_holds(collection, data.assign(a=data.a * 2))


UNNUMBERED: dict[str, Callable[[xr.Dataset], Any]] = {
    "a sorted table": lambda d: {"a": d.to_dataframe().sort_values("a").a * 2},
    "a sorted table as an array": lambda d: {"a": d.to_dataframe().sort_values("a").a.to_xarray() * 2},
    "rows that are named by the axis": lambda d: {"a": d.set_index(row="t").a.isel(BACK) * 2},
    "new numbers next to the axis": lambda d: {"a": d.a.isel(BACK).assign_coords(row=np.arange(d.sizes["row"])) * 2},
}


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("form", UNNUMBERED)
def test_rows_without_a_coordinate_of_their_dimension_are_numbered_or_named_by_the_axis(
    make_collection: Make, form: str, depth: int
) -> None:
    data = make_track(number=False)
    collection = make_collection(data, axis="t", partitioning=izc.Sequence(("k",)))
    collection.insert(data)
    collection.update(UNNUMBERED[form], depth=depth)
    assert_holds(collection, data.assign(a=data.a * 2))


def test_an_axis_among_the_data_labels_the_rows_of_a_dataset(make_collection: Make) -> None:
    data = make_track(number=False).reset_coords("t")
    collection = make_collection(data, axis="t", partitioning=izc.Sequence(("k",)))
    collection.insert(data)
    collection.update(lambda d: d.assign(a=d.a * 2).isel(BACK))
    assert_holds(collection, data.assign(a=data.a * 2))


def test_labels_that_repeat_are_kept_in_their_order_or_refused(make_collection: Make) -> None:
    data = make_flow().assign_coords(time=make_flow().time.values[np.arange(90) // 2 * 2])
    collection = make_collection(data)
    collection.insert(data)
    collection.update(lambda d: {"a": d.a * 2}, depth=1)
    match = r"not unique \(time=2022-0\d-\d\d 00:00:00 and \d\d more\).*drop_vars\(\['time'\]\)"
    for wrong in (turned, lambda d: d.isel(time=slice(1, None)), lambda d: d.isel(time=d.time.dt.month == 2)):
        assert_refused(collection, izc.InvalidInputError, match, lambda d, w=wrong: {"a": w(d).a}, depth=1)
    np.testing.assert_array_equal(collection.load().a.values, data.a.values * 2)


def test_labels_that_the_collection_does_not_have_say_nothing(make_collection: Make) -> None:
    data = make_flow().drop_vars("x")
    collection = make_collection(data)
    collection.insert(data)
    collection.update(lambda d: {"c": d.c.assign_coords(x=[20, 10, 30]) * 2})
    assert_holds(collection, data.assign(c=data.c * 2))


def test_labels_are_compared_with_those_that_the_function_got_and_not_what_it_made_of_them(
    make_collection: Make,
) -> None:
    def turn_times(dataset: xr.Dataset) -> dict[str, Any]:
        dataset.t.values[:] = dataset.t.values[::-1].copy()
        return {"a": dataset.a * 2}

    data = make_track(number=False)
    collection = make_collection(data, axis="t", partitioning=izc.Sequence(("k",)))
    collection.insert(data)
    collection.update(turn_times)
    expected = np.concatenate([rows.a.values[::-1] * 2 for _, rows in data.groupby("k")])
    np.testing.assert_array_equal(collection.load().a.values, expected)


@pytest.fixture(scope="module")
def shuffled(new_registry: NewRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[izc.Collection]:
    """Three months, again and again with other values."""
    folder, data = tmp_path_factory.mktemp("shuffled"), make_flow()
    with new_registry() as registry:
        place = f"{folder}/data"
        collection = izc.create_collection(
            registry, "made/shuffled", data, axis="time", partitioning=izc.Date("time", "M"), location=place
        )
        collection.insert(data)
        yield collection


@settings(max_examples=scaled(15), deadline=None)
@given(
    seed=st.integers(0, 999),
    x=st.permutations([1.0, 2.0, 3.0]),
    depth=st.integers(0, 2),
    form=st.sampled_from(["arrays", "dataset", "all", "lazy"]),
    own=st.booleans(),
)
def test_labelled_rows_in_any_order_are_stored_as_they_are_in_order(
    shuffled: izc.Collection, seed: int, x: list[float], depth: int, form: str, own: bool
) -> None:
    def compute(dataset: xr.Dataset, partition_info: Any) -> Any:
        made = dataset.assign(a=dataset.a + seed, c=dataset.c.cumsum("x") / 2)
        rows = np.arange(dataset.sizes["time"])[partition_info[1] if own else slice(None)]
        made = made.isel(time=np.random.default_rng(seed).permutation(rows)).sel(x=x)
        made = made.chunk(time=7) if form == "lazy" else made
        return made if form == "all" else made[["a", "c"]] if form == "dataset" else {"a": made.a, "c": made.c}

    before = shuffled.load().compute()
    shuffled.update(compute, depth=depth, scheduler="synchronous")
    expected = before.assign(a=before.a + seed, c=before.c.cumsum("x") / 2)
    xr.testing.assert_equal(shuffled.load().compute(), expected)


# Map


def own_month(key: Any) -> xr.Dataset:
    data = make_flow()
    return data.isel(time=data.time.dt.month == dict(key)["month"])


PARTIAL: dict[str, Callable[[xr.Dataset], Any]] = {
    "some rows": lambda d: d.a.where(d.a > 0.5).dropna("time"),
    "some rows of a dataset": lambda d: d[["a", "c"]].isel(time=d.b > 30),
    "some rows, lazily": lambda d: d.a.isel(time=d.b > 30).chunk(time=4),
    "no rows": lambda d: d.a.isel(time=d.b > 1000),
    "another order": lambda d: turned(d).c,
    "sorted": lambda d: d.a.sortby(d.a),
    "a row of each month": lambda d: d.a.resample(time="MS").first(),
    "a series": lambda d: d.a.to_series().sort_values(),
    "a table": lambda d: d[["a", "b"]].to_dataframe().query("b > 30"),
    "a table of two dimensions": lambda d: d[["c"]].to_dataframe().query("c > 0.5"),
}


@pytest.mark.parametrize("depth", [1, 5])
@pytest.mark.parametrize("form", PARTIAL)
def test_results_are_cut_to_the_partitions_own_rows_by_labels(stored: izc.Collection, form: str, depth: int) -> None:
    results = stored.map_overlap(PARTIAL[form], depth=depth)
    assert len(results) == 3
    for key, result in results.items():
        expected = PARTIAL[form](own_month(key))
        if isinstance(result, pd.Series | pd.DataFrame):
            assert result.equals(expected.reindex(result.index))
            assert len(result) == len(expected)
        else:
            xr.testing.assert_equal(result, expected)


AS_THEY_ARE: dict[str, Callable[[xr.Dataset], Any]] = {
    "without the dimension": lambda d: d.c.mean("time"),
    "one row": lambda d: d.a.isel(time=0),
    "by month": lambda d: d.a.groupby("time.month").mean(),
    "under other labels": lambda d: d.a.resample(time="2D", offset="1h").mean(),
    "a table by something else": lambda d: d[["a", "b"]].to_dataframe().groupby("b").mean(),
    "a numbered table": lambda d: d[["a", "b"]].to_dataframe().reset_index().query("b > 30"),
    "numpy of another length": lambda d: d.a.values[d.b.values > 30],
    "numpy without dimensions": lambda d: np.array(d.a.values.max()),
    "a number": lambda d: float(d.a.mean()),
}


@pytest.mark.parametrize("form", AS_THEY_ARE)
def test_results_that_are_not_of_rows_are_left_as_they_are(stored: izc.Collection, form: str) -> None:
    results = stored.map_overlap(AS_THEY_ARE[form], depth=5)
    expected = AS_THEY_ARE[form](make_flow())
    for result in results.values():
        np.testing.assert_array_equal(result, expected)


UNCLEAR: dict[str, tuple[Callable[[xr.Dataset], Any], str]] = {
    "some rows without labels": (
        lambda d: d.a[5:].drop_vars("time"),
        "DataArray of size .* without labels.*coordinate time",
    ),
    "some rows of a variable": (lambda d: d.c.variable[5:], "Variable of size"),
    "some rows of a dataset": (lambda d: d[["a"]].isel(time=d.b > 30).drop_vars("time"), "Dataset of size"),
    "rows and others": (lambda d: d.a.resample(time="12h").nearest(), "at time=2022-.* 12:00:00 and .* no row's"),
    "shifted rows": (lambda d: shift(d, days=1).a, "at time=.*, which is no row's.*trim=False"),
    "other rows, as many": (lambda d: shift(d, hours=1).a, "at time=.* and .* more, which is no row's"),
}


@pytest.mark.parametrize("form", UNCLEAR)
def test_results_that_may_have_neighbours_rows_and_do_not_say_which_are_refused(
    stored: izc.Collection, form: str
) -> None:
    function, match = UNCLEAR[form]
    match = rf"year=2022/month=\d\d: the function to map over collection {stored.name} returned .*{match}"
    with pytest.raises(izc.InvalidInputError, match=match):
        stored.map_overlap(function)
    whole = stored.map_overlap(function, trim=False, depth=5)
    assert all(result.sizes == function(make_flow()).sizes for result in whole.values())
    assert len(stored.map(function)) == 3


@pytest.mark.parametrize("number", [False, True], ids=["times", "times and numbers that repeat"])
def test_the_axis_tells_a_neighbours_rows_from_the_partitions(make_collection: Make, number: bool) -> None:
    data = make_track(number=number)
    collection = make_collection(data, axis="t", partitioning=izc.Sequence(("k",)))
    collection.insert(data)
    for inputs in (None, ["a"]):
        results = collection.map_overlap(lambda d: d.a.isel(row=d.a > 0.5), inputs=inputs)
        for key, result in results.items():
            own = data.isel(row=(data.k == dict(key)["k"]) & (data.a > 0.5))
            np.testing.assert_array_equal(result.values, own.a.values)


def test_rows_that_share_their_labels_with_a_neighbours_are_refused_in_another_order(make_collection: Make) -> None:
    data = make_track(number=False)
    data = data.assign_coords(t=data.t[np.arange(60) % 20])
    collection = make_collection(data, axis="t", partitioning=izc.Sequence(("k",)))
    collection.insert(data)
    for key, result in collection.map_overlap(lambda d: d.a).items():
        np.testing.assert_array_equal(result.values, data.a.values[data.k == dict(key)["k"]])
    with pytest.raises(izc.InvalidInputError, match=r"at t=.*rows of the partition and of neighbours; return all rows"):
        collection.map_overlap(lambda d: d.a.isel(BACK))
