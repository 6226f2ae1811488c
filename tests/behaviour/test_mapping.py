"""Functions called with partitions: what they get, where they run, and what others write meanwhile."""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import dask.bag
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import intake_zcollection as izc
from tests.behaviour.test_updating import assert_holds, assert_refused, flow, make_flow, stored, twice
from tests.processes import start_fork_server

Make = Callable[..., izc.Collection]
__all__ = ["flow", "stored"]  # fixtures


# What it gets


def test_it_gets_the_inputs_and_the_axis_decoded_and_in_memory(stored: izc.Collection) -> None:
    seen: list[xr.Dataset] = []

    def look(dataset: xr.Dataset, scale: float, *, shift: float) -> dict[str, Any]:
        seen.append(dataset.copy(deep=True))
        return {"a": dataset.packed * scale + shift}

    stored.update(look, args=[3.0], kwargs={"shift": 1.0}, inputs=["packed"], outputs=["a"], scheduler="synchronous")
    data = make_flow()
    assert [set(each.variables) for each in seen] == [{"packed", "time"}] * 3
    xr.testing.assert_equal(xr.concat(seen, "time").sortby("time"), data[["packed"]])
    assert all(not each.chunks for each in seen)
    assert_holds(stored, data.assign(a=data.packed * 3 + 1))


class Asking:
    """A callable object that asks for the rows."""

    def __call__(self, dataset: xr.Dataset, partition_info: Any) -> dict[str, Any]:
        return {"a": dataset.a * 0 + partition_info[1].stop - partition_info[1].start}


class NotAsking:
    """A callable object that does not."""

    def __call__(self, dataset: xr.Dataset, **kwargs: Any) -> dict[str, Any]:
        assert not kwargs
        return {"a": dataset.a * 0 - 1}


def asks(dataset: xr.Dataset, scale: int, partition_info: Any = None) -> dict[str, Any]:
    assert partition_info[0] == "time"
    return {"a": dataset.a * 0 + scale * (partition_info[1].stop - partition_info[1].start)}


def does_not_ask(dataset: xr.Dataset, scale: int, **kwargs: Any) -> dict[str, Any]:
    assert kwargs == {}
    return {"a": dataset.a * 0 - scale}


@pytest.mark.parametrize(
    ("function", "scale"),
    [
        pytest.param(functools.partial(asks, scale=1), 1, id="partial"),
        pytest.param(lambda d, partition_info: asks(d, 1, partition_info), 1, id="lambda"),
        pytest.param(Asking(), 1, id="object"),
        pytest.param(functools.partial(does_not_ask, scale=1), 0, id="partial that does not ask"),
        pytest.param(NotAsking(), 0, id="object that does not ask"),
    ],
)
def test_only_functions_that_ask_get_the_rows_of_their_partition(
    stored: izc.Collection, function: Any, scale: int
) -> None:
    stored.update(function, outputs=["a"])
    lengths = np.repeat([31, 28, 31], [31, 28, 31])
    np.testing.assert_array_equal(stored.load().a.values, lengths if scale else np.full(90, -1.0))


# Neighbours


def smooth(dataset: xr.Dataset) -> dict[str, Any]:
    mean = dataset.a.rolling(time=7, center=True, min_periods=1).mean()
    return {"a": mean, "c": dataset.c.shift(time=2, fill_value=-1)}


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_with_neighbours_and_trimming_partitions_have_no_edges(
    make_collection: Make, flow: xr.Dataset, depth: int
) -> None:
    collection = make_collection(flow)
    collection.insert(flow)
    collection.update(smooth, inputs=["a", "c"], depth=depth)
    expected = flow.assign(smooth(flow))
    loaded = collection.load()
    np.testing.assert_allclose(loaded.a.values, expected.a.values, rtol=1e-12)
    np.testing.assert_array_equal(loaded.c.values, expected.c.transpose(*flow.c.dims).values)


def test_without_trimming_the_function_cuts_the_neighbours_off_itself(make_collection: Make, flow: xr.Dataset) -> None:
    def cut(dataset: xr.Dataset, partition_info: tuple[str, slice]) -> dict[str, Any]:
        return {name: each.isel(dict([partition_info])) for name, each in smooth(dataset).items()}

    collection = make_collection(flow)
    collection.insert(flow)
    collection.update(cut, depth=1, trim=False)
    np.testing.assert_allclose(collection.load().a.values, smooth(flow)["a"].values, rtol=1e-12)


def test_neighbours_are_seen_though_they_are_not_chosen(stored: izc.Collection) -> None:
    stored.update(smooth, depth=1, filters="month == 2")
    data, february = make_flow(), make_flow().time.dt.month == 2
    expected = xr.where(february, smooth(data)["a"], data.a)
    np.testing.assert_allclose(stored.load().a.values, expected.values, rtol=1e-12)


@pytest.mark.parametrize("trim", [True, False])
def test_values_for_other_rows_than_asked_for_are_refused(stored: izc.Collection, trim: bool) -> None:
    def wrong(dataset: xr.Dataset, partition_info: Any) -> dict[str, Any]:
        return {"a": dataset.a.values[partition_info[1]] if trim else dataset.a.values}

    match = r"year=2022/month=0\d.*returned a with shape" + (".*trim=True" if trim else "")
    assert_refused(stored, izc.InvalidInputError, match, wrong, depth=1, trim=trim)


@pytest.mark.parametrize("depth", [-1, 1.5, True, "1", None])
def test_a_depth_that_is_no_number_of_partitions_is_refused(stored: izc.Collection, depth: Any) -> None:
    assert_refused(stored, izc.InvalidInputError, "depth=", twice, depth=depth)


# Schedulers


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    start_fork_server()  # before distributed does, with less
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture(
    params=[
        *(None, "threads", "synchronous", "processes"),
        "cluster",
    ]
)
def scheduler(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param != "cluster":
        yield request.param
        return
    with Client(request.getfixturevalue("cluster")) as client:
        yield client


def fail_in_march(dataset: xr.Dataset) -> dict[str, Any]:
    if dataset.time.dt.month[0] == 3:
        raise KeyError("no such buoy")
    return twice(dataset)


def test_any_scheduler_computes_the_same_and_keeps_errors_whole(stored: izc.Collection, scheduler: Any) -> None:
    error = assert_refused(stored, KeyError, "no such buoy", fail_in_march, outputs=["a"], scheduler=scheduler)
    assert any("year=2022/month=03" in note for note in error.__notes__)
    stored.update(smooth, depth=1, scheduler=scheduler)
    np.testing.assert_allclose(stored.load().a.values, smooth(make_flow())["a"].values, rtol=1e-12)


# Mapping


def mean(dataset: xr.Dataset) -> float:
    return float(dataset.a.mean())


KEYS = [(("year", 2022), ("month", month)) for month in (1, 2, 3)]
MEANS = [float(month.a.mean()) for _, month in make_flow().groupby("time.month")]


def test_results_come_by_key_in_the_order_of_keys(stored: izc.Collection, scheduler: Any) -> None:
    results = stored.map(mean, scheduler=scheduler)
    assert list(results) == KEYS
    np.testing.assert_allclose(list(results.values()), MEANS)
    assert stored.version.number == 1


def test_a_lazy_map_is_a_bag_of_keys_and_results(stored: izc.Collection) -> None:
    calls: list[int] = []
    bag = stored.map(lambda d: calls.append(1) or mean(d), lazy=True)
    assert isinstance(bag, dask.bag.Bag)
    assert calls == []
    pairs = bag.compute(scheduler="synchronous")
    assert [key for key, _ in pairs] == KEYS
    np.testing.assert_allclose([result for _, result in pairs], MEANS)
    assert bag.map(lambda pair: pair[1]).max().compute(scheduler="synchronous") == pytest.approx(max(MEANS))
    two = stored.map(mean, lazy=True), stored.map(lambda d: -mean(d), lazy=True)
    both = dask.compute(*two, scheduler="synchronous")
    np.testing.assert_allclose([a + b for (_, a), (_, b) in zip(*both, strict=True)], 0)
    assert stored.map(mean, lazy=True, filters="month == 9").compute(scheduler="synchronous") == []


def test_a_map_takes_inputs_arguments_and_filters(stored: izc.Collection) -> None:
    def tell(dataset: xr.Dataset, *args: Any, **kwargs: Any) -> Any:
        return set(dataset.variables), args, kwargs

    told = stored.map(tell, args=[1], kwargs={"k": 2}, inputs=["b"])
    assert list(told.values()) == [({"b", "time"}, (1,), {"k": 2})] * 3
    assert list(stored.map(mean, filters="month > 1")) == KEYS[1:]
    assert list(stored.map(mean, where={"time": ("2022-02-28", "2022-02-28")})) == KEYS[1:2]
    assert stored.map(mean, filters="month > 3") == {}
    for inputs, error in ((["aa"], izc.NotFoundError), ("a", izc.InvalidInputError)):
        with pytest.raises(error):
            stored.map(mean, inputs=inputs)


def test_a_map_at_a_version_sees_its_values(stored: izc.Collection) -> None:
    stored.update(twice)
    np.testing.assert_allclose(list(stored.at(version=1).map(mean).values()), MEANS)
    np.testing.assert_allclose(list(stored.map(mean).values()), np.multiply(MEANS, 2))


@pytest.mark.parametrize("lazy", [False, True])
def test_an_error_keeps_its_type_and_names_the_partition(stored: izc.Collection, lazy: bool) -> None:
    with pytest.raises(KeyError, match="no such buoy") as caught:
        stored.map(fail_in_march, scheduler="synchronous", lazy=lazy).compute(scheduler="synchronous")
    assert any("year=2022/month=03" in note for note in caught.value.__notes__)


TRIMMED = {
    "numpy": lambda d: d.a.values,
    "numpy of more dimensions": lambda d: d.c.transpose("time", "x").values,
    "data array": lambda d: d.c.transpose("x", "time"),
    "dataset": lambda d: d[["a", "c"]],
    "variable": lambda d: d.a.variable,
}


@pytest.mark.parametrize("form", TRIMMED)
def test_results_with_all_rows_are_cut_to_the_partitions_own(
    make_collection: Make, flow: xr.Dataset, form: str
) -> None:
    collection = make_collection(flow)
    collection.insert(flow)
    for key, result in collection.map_overlap(TRIMMED[form]).items():
        month = TRIMMED[form](flow.isel(time=flow.time.dt.month == dict(key)["month"]))
        np.testing.assert_array_equal(getattr(result, "a", result), getattr(month, "a", month))


def test_other_results_and_untrimmed_ones_are_left_alone(stored: izc.Collection) -> None:
    rows = stored.map_overlap(lambda d: (d.sizes["time"], list(d.a.values), np.zeros(5), "text", None))
    assert [result[0] for result in rows.values()] == [59, 90, 59]
    assert [len(result[1]) for result in rows.values()] == [59, 90, 59]
    assert [len(array) for array in stored.map_overlap(lambda d: d.a.values, trim=False).values()] == [59, 90, 59]
    info = stored.map_overlap(lambda d, partition_info: partition_info, filters="month == 2", depth=7)
    assert list(info.values()) == [("time", slice(31, 59))]


# Others, meanwhile: each is committed while the update computes its first partition


Write = Callable[[izc.Collection], Any]
NEW = izc.Variable("new", "f8", ("time",))


def racing(collection: izc.Collection, registry: izc.Registry, other: Write, **update: Any) -> Any:
    """Update, with another write committed in the middle of it; return the version."""
    once = iter([other])
    function = update.pop("function", twice)

    def compute(dataset: xr.Dataset) -> Any:
        for write in once:
            write(izc.open_collection(registry, collection.name))
        return function(dataset)

    options = {"inputs": ["a"], "outputs": ["a"], "scheduler": "synchronous", "filters": "month == 2"}
    return collection.update(compute, **options | update)


def add_one(name: str, month: int) -> Write:
    def write(collection: izc.Collection) -> Any:
        filters, inputs = f"month == {month}", [name]
        return collection.update(lambda d: {name: (d[name] + 1).astype(d[name].dtype)}, inputs=inputs, filters=filters)

    return write


def again(start: str, days: int, merge: str = "replace") -> Write:
    return lambda collection: collection.insert(make_flow(start, days, seed=5), merge=merge)


def insert_hourly_gap(collection: izc.Collection) -> Any:
    return collection.insert(make_flow("2021-12-05", 3, seed=5))


ALONE = {"depth": 0}
BOTH = {"depth": 1}
HARMLESS = {
    "another variable of the partition": (add_one("b", 2), ALONE),
    "the same variable of another partition": (add_one("a", 1), ALONE),
    "an insert into another partition": (again("2022-01-01", 31), ALONE),
    "a partition that comes": (again("2022-04-01", 5), ALONE),
    "another variable of a neighbour": (add_one("b", 1), BOTH),
    "a partition beyond the neighbours": (again("2022-04-01", 5), BOTH),
    "a partition dropped": (lambda c: c.drop_partitions(filters="month == 3"), ALONE),
    "a variable added": (lambda c: c.add_variable(izc.Variable("other", "f8", ("time",))), ALONE),
    "another variable dropped": (lambda c: c.drop_variable("b"), ALONE),
    "another variable renamed": (lambda c: c.rename_variable("b", "bb"), ALONE),
    "an attribute set": (lambda c: c.set_attributes({"units": "1"}, "a"), ALONE),
    "immutable variables that it does not see": (lambda c: c.set_immutables(xr.Dataset({"offset": 9.0})), ALONE),
    "a variable added with values": (
        lambda c: c.update(lambda d: {"new": d.a}, outputs=[NEW], filters="month == 2"),
        ALONE,
    ),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_it_does_not_depend_on_may_change_meanwhile(
    registry: izc.Registry, stored: izc.Collection, what: str
) -> None:
    other, options = HARMLESS[what]
    version = racing(stored, registry, other, **options)
    assert (version.number, len(stored.versions())) == (3, 4)
    during = stored.at(version=2).load().compute()
    doubled = make_flow().a.reindex(time=during.time) * 2
    expected = during.assign(a=xr.where(during.time.dt.month == 2, doubled, during.a))
    xr.testing.assert_equal(stored.load().compute(), expected)


CONFLICTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "the same variable": (add_one("a", 2), ALONE),
    "a layer that has it among others": (lambda c: c.update(lambda d: {"a": d.a, "b": d.b}), ALONE),
    "a variable that it reads": (add_one("b", 2), {"inputs": ["a", "b"]}),
    "a variable that it reads, of all": (add_one("b", 2), {"inputs": None}),
    "an insert into the partition": (again("2022-02-01", 28), ALONE),
    "an insert that merges": (again("2022-02-10", 2, "upsert"), ALONE),
    "the partition dropped": (lambda c: c.drop_partitions(filters="month == 2"), ALONE),
    "a neighbour's variable": (add_one("a", 3), BOTH),
    "a neighbour inserted again": (again("2022-01-01", 31), BOTH),
    "a neighbour dropped": (lambda c: c.drop_partitions(filters="month == 1"), BOTH),
    "a new neighbour after it": (again("2022-04-01", 5), BOTH | {"filters": "month == 3"}),
    "a new neighbour before it": (insert_hourly_gap, BOTH | {"filters": "month == 1"}),
    "its variable dropped": (lambda c: c.drop_variable("a"), ALONE),
    "its variable dropped and added": (
        lambda c: (c.drop_variable("a"), c.add_variable(izc.Variable("a", "f8", ("time",)))),
        ALONE,
    ),
    "labels by which values are laid": (
        lambda c: c.set_immutables(xr.Dataset(coords={"x": [3.0, 2.0, 1.0]})),
        {"inputs": ["c"], "outputs": ["c"], "function": lambda d: {"c": d.c}},
    ),
    "immutable variables that it sees": (lambda c: c.set_immutables(xr.Dataset({"offset": 9.0})), {"inputs": None}),
    "another variable added, as it adds one": (
        lambda c: c.add_variable(izc.Variable("other", "f8", ("time",))),
        {"outputs": [NEW], "function": lambda d: {"new": d.a}},
    ),
    "the variable that it adds": (
        lambda c: c.add_variable(NEW),
        {"outputs": [NEW], "function": lambda d: {"new": d.a}},
    ),
}


@pytest.mark.parametrize("what", CONFLICTS)
def test_what_it_depends_on_must_not_change_meanwhile(
    registry: izc.Registry, stored: izc.Collection, what: str
) -> None:
    other, options = CONFLICTS[what]
    with pytest.raises(izc.ConflictError):
        racing(stored, registry, other, repeatable=False, **options)
    assert stored.validate().ok
    live = {path for partition in stored.partitions() for paths in partition.fragments.values() for path in paths}
    before = stored.at(version=1).partitions()
    past = {path for partition in before for paths in partition.fragments.values() for path in paths}
    groups = Path(stored.location).glob("year=*/*/*/zarr.json")
    found = {str(path.parent.relative_to(stored.location)) for path in groups}
    assert found == live | past
    stored.update(lambda d: {"c": d.c}, inputs=["c"])


def test_an_update_of_a_collection_that_is_dropped_meanwhile_leaves_nothing(
    registry: izc.Registry, stored: izc.Collection
) -> None:
    with pytest.raises(izc.ConflictError, match="dropped"):
        racing(stored, registry, lambda c: izc.drop_collection(registry, c.name))
    assert [path for path in Path(stored.location).rglob("*") if path.is_file()] == []


def test_an_update_of_a_variable_that_is_renamed_meanwhile_is_a_conflict_by_its_names(
    registry: izc.Registry, stored: izc.Collection
) -> None:
    def rename_and_add(collection: izc.Collection) -> None:
        collection.rename_variable("a", "old")
        collection.add_variable(izc.Variable("a", "f8", ("time",)))

    with pytest.raises(izc.ConflictError, match="renamed a to old"):
        racing(stored, registry, rename_and_add, filters=None)
    np.testing.assert_array_equal(stored.load()["old"].values, make_flow().a.values)
    assert np.isnan(stored.load().a.values).all()


def test_threads_that_update_different_variables_all_succeed(registry: izc.Registry, stored: izc.Collection) -> None:
    def add_some(name: str) -> None:
        collection = izc.open_collection(registry, stored.name)
        for _ in range(4):
            collection.update(lambda d: {name: (d[name] + 1).astype(d[name].dtype)}, inputs=[name], outputs=[name])

    with ThreadPoolExecutor() as pool:
        list(pool.map(add_some, ["a", "b", "c"]))
    data = make_flow()
    assert stored.version.number == 13
    np.testing.assert_allclose(stored.load().a.values, data.a.values + 4)
    np.testing.assert_array_equal(stored.load().b.values, data.b.values + 4)
    np.testing.assert_allclose(stored.load().c.values, data.c.values + 4)


@pytest.mark.parametrize(
    ("updated", "come", "conflicts"), [(-3, -4, True), (-5, -6, True), (5, 6, True), (1, -4, False), (-1, 0, True)]
)
def test_neighbours_are_known_by_keys_below_zero_too(
    registry: izc.Registry, make_collection: Make, updated: int, come: int, conflicts: bool
) -> None:
    key = np.repeat(np.arange(-5, 6, 2, dtype="i4"), 10)
    data = xr.Dataset({"a": ("row", np.arange(60.0)), "k": ("row", key)}, {"t": ("row", np.arange(60))})
    collection = make_collection(data, axis="t", partitioning=izc.Sequence(("k",)))
    collection.insert(data)
    rows = data.isel(row=[0, 1]).assign(k=("row", np.full(2, come, "i4")))
    options = {"depth": 1, "filters": f"k == {updated}"}
    if conflicts:
        with pytest.raises(izc.ConflictError, match=f"k={come}"):
            racing(collection, registry, lambda c: c.insert(rows), repeatable=False, **options)
    else:
        racing(collection, registry, lambda c: c.insert(rows), **options)
    collection.update(smooth_rows, depth=1)
    expected = smooth_rows(collection.at(version=collection.version.number - 1).load().compute())
    np.testing.assert_allclose(collection.load().a.values, expected["a"].values)


def smooth_rows(dataset: xr.Dataset) -> dict[str, Any]:
    return {"a": dataset.a.rolling(row=5, min_periods=1, center=True).mean()}
