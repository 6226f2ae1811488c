"""Variables computed from others: what becomes of what a function returns, and what is refused."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
from registry import MARKER
from tests.conftest import NewRegistry, make_grid
from tests.counting import READS, WRITES, counted_location, paths_of, requests_to, stored_below

Make = Callable[..., izc.Collection]


def make_flow(start: str = "2022-01-01", days: int = 90, seed: int = 0, rows_first: bool = True) -> xr.Dataset:
    """Daily values of every kind that update has to write again: packed, text, dates, and two dimensions."""
    rng = np.random.default_rng(seed)
    time = np.datetime64(start, "ns") + np.arange(days) * np.timedelta64(1, "D")
    grid = rng.random((days, 3))
    dims = ("time", "x") if rows_first else ("x", "time")
    packing = {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -999}
    return xr.Dataset(
        {
            "a": ("time", rng.random(days)),
            "b": ("time", rng.integers(0, 99, days).astype("i4")),
            "c": (dims, grid if rows_first else grid.T.copy(), {"units": "m"}),
            "packed": ("time", rng.integers(0, 9, days) * 0.5, {}, packing),
            "name": ("time", np.array([f"day {i}" for i in range(days)], object)),
            "short": ("time", np.array([f"{i % 100:03}" for i in range(days)])),
            "seen": ("time", time + np.timedelta64(6, "h")),
            "offset": ((), np.float64(4.0)),
        },
        {"time": time, "x": [1.0, 2.0, 3.0]},
    )


@pytest.fixture(params=[True, False], ids=["rows first", "rows last"])
def flow(request: pytest.FixtureRequest) -> xr.Dataset:
    return make_flow(rows_first=request.param)


@pytest.fixture
def stored(make_collection: Make) -> izc.Collection:
    """Three months."""
    collection = make_collection(make_flow())
    collection.insert(make_flow())
    return collection


def assert_holds(collection: izc.Collection, expected: xr.Dataset) -> None:
    """All values are exactly these, and nothing else is there."""
    loaded = collection.load().compute()
    assert set(loaded.variables) == set(expected.variables)
    for name, variable in expected.variables.items():
        assert loaded[name].dtype.kind == variable.dtype.kind, name
        assert loaded[name].dims == variable.dims, name
        np.testing.assert_array_equal(loaded[name].values, variable.values, err_msg=str(name))


def assert_refused(collection: izc.Collection, error: type[Exception], match: str, *args: Any, **kwargs: Any) -> Any:
    """The update raises, and leaves the version and the storage as they were."""
    head, files = collection.versions(), sorted(Path(collection.location).rglob("*"))
    kept = collection.load().compute()
    with pytest.raises(error, match=match) as caught:
        collection.update(*args, **kwargs)
    assert collection.versions() == head
    assert [p for p in sorted(Path(collection.location).rglob("*")) if p.is_file()] == [p for p in files if p.is_file()]
    xr.testing.assert_identical(collection.load().compute(), kept)
    return caught.value


def twice(dataset: xr.Dataset) -> dict[str, Any]:
    return {"a": dataset.a * 2}


# What it returns

RETURNED = {
    "array": lambda d: {"a": d.a.values * 2},
    "data array": lambda d: {"a": d.a * 2},
    "variable": lambda d: {"a": d.a.variable * 2},
    "pair": lambda d: {"a": ("time", d.a.values * 2)},
    "dims in a tuple": lambda d: {"a": (("time",), d.a.values * 2)},
    "list": lambda d: {"a": list(d.a.values * 2)},
    "dask": lambda d: {"a": da.from_array(d.a.values * 2)},
    "lazy data array": lambda d: {"a": (d.a * 2).chunk(time=5)},
    "dataset": lambda d: xr.Dataset({"a": d.a * 2}),
    "all variables": lambda d: d.assign(a=d.a * 2),
    "all variables copied": lambda d: d.copy(deep=True).assign(a=d.a * 2),
    "all variables indexed": lambda d: d.assign(a=d.a * 2).isel(time=slice(None)),
    "in place": lambda d: (d.a.values.__imul__(2), d)[1],
}


@pytest.fixture(scope="module")
def doubled(new_registry: NewRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, izc.Collection]]:
    """A collection of three months per format, which each form of returning values doubles once more."""
    folder, data = tmp_path_factory.mktemp("doubled"), make_flow()
    with new_registry() as registry:
        made = {}
        for number in (3, 2):
            name = f"made/zarr{number}"
            options: dict[str, Any] = {"axis": "time", "partitioning": izc.Date("time", "M"), "zarr_format": number}
            made[number] = izc.create_collection(registry, name, data, location=f"{folder}/{name}", **options)
            made[number].insert(data)
        yield made


@pytest.mark.parametrize(("outputs", "zarr_format"), [(None, 3), (["a"], 2)], ids=["inferred-zarr3", "named-zarr2"])
@pytest.mark.parametrize("form", RETURNED)
def test_a_function_may_return_values_in_many_forms(
    doubled: dict[int, izc.Collection], zarr_format: int, form: str, outputs: Any
) -> None:
    collection = doubled[zarr_format]
    before, data = collection.version, collection.load().compute()
    version = collection.update(RETURNED[form], outputs=outputs)
    assert version == collection.version
    assert (version.number, version.operation) == (before.number + 1, "update")
    assert (version.summary["updated"], version.summary["rows"]) == (3, 90)
    assert_holds(collection, data.assign(a=data.a * 2))
    assert_holds(collection.at(version=before.number), data)
    assert_holds(collection.at(version=1), make_flow())


UPDATES: dict[str, Callable[[xr.Dataset], dict[str, Any]]] = {
    "a": lambda d: {"a": d.a + d.b},
    "b": lambda d: {"b": d.b + 1},
    "c": lambda d: {"c": d.c * d.offset + d.x},
    "packed": lambda d: {"packed": xr.where(d.packed > 2, np.nan, d.packed + 0.5)},
    "name": lambda d: {"name": ("time", np.array([f"{each} and a lot more" for each in d["name"].values], object))},
    "short": lambda d: {"short": ("time", np.array([each[::-1] for each in d.short.values]))},
    "seen": lambda d: {"seen": d.seen + np.timedelta64(1, "h")},
}


@pytest.mark.parametrize("name", UPDATES)
def test_variables_of_every_kind_can_be_updated(
    make_collection: Make, flow: xr.Dataset, zarr_format: int, name: str
) -> None:
    collection = make_collection(flow, zarr_format=zarr_format)
    collection.insert(flow)
    collection.update(UPDATES[name])
    expected = flow.assign(UPDATES[name](flow))
    assert_holds(collection, expected.transpose(*flow.c.dims))
    assert collection.load()[name].attrs == flow[name].attrs
    assert collection.validate().ok


def test_a_coordinate_can_be_updated_by_a_dataset(make_collection: Make) -> None:
    grid = make_grid()
    collection = make_collection(grid)
    collection.insert(grid)
    collection.update(lambda d: d.assign_coords(quality=d.quality + 1), outputs=["quality"])
    np.testing.assert_array_equal(collection.load().quality.values, grid.quality.values + 1)


def test_masked_values_are_missing_or_refused_and_never_stored(stored: izc.Collection) -> None:
    try:
        stored.update(lambda d: {"a": np.ma.masked_less(d.a.values, 0.5)})
    except izc.InvalidInputError:
        return
    a = make_flow().a.values
    np.testing.assert_array_equal(stored.load().a.values, np.where(a < 0.5, np.nan, a))


def test_what_a_function_does_not_return_everywhere_keeps_its_values(stored: izc.Collection) -> None:
    data = make_flow()
    stored.update(lambda d: {"a": d.a * 0} if d.time.dt.month[0] == 2 else {"b": d.b * 0}, outputs=["a", "b"])
    february = data.time.dt.month == 2
    assert_holds(stored, data.assign(a=xr.where(february, 0, data.a), b=xr.where(february, data.b, 0).astype("i4")))


# Which partitions, and what is written


@pytest.mark.parametrize(
    "which",
    [
        {"filters": "month == 2"},
        {"filters": lambda key: key["month"] == 2},
        {"where": {"time": ("2022-02-10", "2022-02-11")}},
        {"filters": "month <= 2", "where": {"time": ("2022-02-10", None)}},
    ],
    ids=["filters", "function", "where", "both"],
)
def test_chosen_partitions_are_updated_as_a_whole(stored: izc.Collection, which: dict[str, Any]) -> None:
    version = stored.update(twice, **which)
    assert (version.summary["updated"], version.summary["rows"]) == (1, 28)
    data = make_flow()
    assert_holds(stored, data.assign(a=xr.where(data.time.dt.month == 2, data.a * 2, data.a)))
    assert [partition.version for partition in stored.partitions()] == [1, 2, 1]


def test_no_chosen_partition_makes_no_version(stored: izc.Collection) -> None:
    assert stored.update(twice, filters="month == 7") == stored.version
    assert stored.version.number == 1


def test_only_the_changed_variables_are_written_once_per_partition(
    registry: izc.Registry, make_collection: Make
) -> None:
    with counted_location() as location:
        collection = make_collection(make_flow(), location=location)
        collection.insert(make_flow())
        before = stored_below(location)
        with requests_to(location) as requests:
            version = collection.update(twice, outputs=["a"], inputs=["a"])
        after = stored_below(location)
        new = sorted(after.keys() - before.keys())
        assert {path: after[path] for path in before} == before
        assert sorted(paths_of(requests, WRITES)) == new
        read = [path for path in paths_of(requests, READS) if path != MARKER]
        assert {path.split("/")[-2] for path in read} == {"a", "time"}
        assert len(read) == 6
        assert sorted(path.split("/", 3)[-1] for path in new) == sorted(["zarr.json", "a/zarr.json", "a/c.0"] * 3)
        assert version.summary["bytes"] == sum(len(after[path]) for path in new)
        first = collection.partitions()[0].fragments
        assert first["a"] != first["b"] == first["time"]
        assert collection.partitions()[0].nbytes == sum(len(d) for p, d in after.items() if "month=01/" in p)
        collection.update(twice, outputs=["a"])
        assert collection.partitions()[0].fragments["a"] not in (first["a"], first["b"])


# Layers over layers


def test_layers_that_overlap_partly_show_the_newest_values_and_older_versions_theirs(
    make_collection: Make, zarr_format: int
) -> None:
    data = make_flow()
    collection = make_collection(data, zarr_format=zarr_format)
    collection.insert(data)
    states = [data]
    sets = [("a",), ("a", "b"), ("b", "c"), ("a",), ("c",), ("a", "b", "c"), ("b",), ("a", "b")]
    months = [(1, 2, 3), (1, 2), (2, 3), (2,), (1, 3), (3,), (1, 2, 3), (2,)]
    for step, (names, chosen) in enumerate(zip(sets, months, strict=True), start=1):

        def add(dataset: xr.Dataset, names: Any = names, step: int = step) -> dict[str, Any]:
            return {name: (dataset[name] + step).astype(dataset[name].dtype) for name in names}

        version = collection.update(add, filters=lambda key, chosen=chosen: key["month"] in chosen)
        assert version.number == step + 1
        before, inside = states[-1], states[-1].time.dt.month.isin(chosen)
        states.append(before.assign({name: xr.where(inside, new, before[name]) for name, new in add(before).items()}))
        assert_holds(collection, states[-1])
    for number, state in enumerate(states, start=1):
        assert_holds(collection.at(version=number), state)
    assert collection.validate().ok


@pytest.mark.parametrize("merge", ["upsert", "time_series", "concat", "replace"])
def test_an_insert_merges_with_what_the_layers_hold_and_then_covers_them(make_collection: Make, merge: str) -> None:
    data, later = make_flow(), make_flow("2022-02-10", 40, seed=7)
    collection = make_collection(data)
    collection.insert(data)
    collection.update(lambda d: {"a": d.a + 1, "packed": d.packed + 0.5})
    collection.update(lambda d: {"b": d.b + 1, "a": d.a + 1})
    collection.update(lambda d: {"extra": d.a * 10}, outputs=[izc.Variable("extra", "f8", ("time",))])
    updated = data.assign(a=data.a + 1 + 1, b=data.b + 1, packed=data.packed + 0.5)
    updated = updated.assign(extra=updated.a * 10)
    later = later.assign(extra=later.a).drop_vars("offset")
    collection.insert(later, merge=merge)
    inside = updated.time >= np.datetime64("2022-02-01" if merge == "replace" else "2022-02-10")
    if merge in ("upsert", "time_series"):
        inside &= updated.time <= later.time[-1]
    kept = updated if merge == "concat" else updated.isel(time=~inside)
    expected = xr.concat([kept.drop_vars("offset"), later], "time", data_vars="minimal").sortby("time")
    assert_holds(collection, expected.assign(offset=updated.offset))
    # What came lies in one group with all of its variables; beside it, rows of before have their layers still.
    for partition in collection.partitions(filters="month in (2, 3)"):
        assert len(set.intersection(*map(set, partition.fragments.values()))) == 1
        assert (len(set(partition.fragments.values())) == 1) == (merge == "replace")
    collection.update(twice)
    assert_holds(collection, expected.assign(offset=updated.offset, a=expected.a * 2))
    assert collection.validate().ok


def test_a_new_variable_is_made_with_its_values_and_fills_the_partitions_that_were_not_chosen(
    stored: izc.Collection,
) -> None:
    new = izc.Variable("speed", "f4", ("time", "x"), {"units": "m/s"}, fill_value=-5.0)
    stored.update(lambda d: {"speed": d.c.astype("f4")}, outputs=[new], filters="month != 2")
    data = make_flow()
    speed = xr.where(data.time.dt.month != 2, data.c.astype("f4"), np.float32(-5))
    assert_holds(stored, data.assign(speed=speed))
    assert stored.load().speed.attrs == {"units": "m/s"}
    assert "speed" not in stored.at(version=1).schema.variables
    stored.drop_variable("speed")
    stored.add_variable(izc.Variable("speed", "i2", ("time",)))
    np.testing.assert_array_equal(stored.load().speed.values, np.zeros(90))


# Refused

REFUSED: dict[str, tuple[Any, str]] = {
    "unknown variable": (lambda d: {"aa": d.a}, r"has no variable aa; did you mean a\?"),
    "nothing": (lambda d: {}, "returned no variable"),
    "no dict": (lambda d: d.a, "returned DataArray in partition year=2022/month=01"),
    "none": (lambda d: None, "returned NoneType in partition"),
    "a scalar": (lambda d: {"a": 1.0}, r"year=2022/month=0\d: .* a with (shape|dimensions) \(\)"),
    "no value": (lambda d: {"a": None}, r"year=2022/month=0\d: "),
    "too few rows": (lambda d: {"a": d.a.values[:-1]}, r"year=2022/month=0\d: .* shape"),
    "ragged": (lambda d: {"a": [[1.0], [2.0, 3.0]]}, r"year=2022/month=0\d: "),
    "other dimensions": (lambda d: {"c": d.c.T}, r"year=2022/month=0\d: .* c with dimensions \('x', 'time'\)"),
    "dimensions that do not fit": (lambda d: {"a": (("time", "x"), d.a.values)}, r"year=2022/month=0\d: "),
    "other dimension names": (lambda d: {"a": ("t", d.a.values)}, r"year=2022/month=0\d: .* dimensions \('t',\)"),
    "floats for integers": (lambda d: {"b": d.b * 0.5}, "would lose values"),
    "wider integers": (lambda d: {"b": d.b.astype("i8")}, "would lose values"),
    "text for numbers": (lambda d: {"a": d.short}, "variable a of collection"),
    "numbers for text": (lambda d: {"short": d.a}, "is text of dtype"),
    "integers for dates": (lambda d: {"seen": d.b}, "variable seen of collection"),
    "what packing cannot hold": (lambda d: {"packed": d.packed + 1e6}, r"year=2022/month=0\d: .*outside the range"),
    "text that is too long": (lambda d: {"short": ("time", d.short.values + np.array("!"))}, "are longer than"),
    "the axis": (lambda d: {"time": d.time}, "variable time of collection .* cannot be updated: rows have their place"),
    "another axis": (lambda d: d.assign_coords(time=d.time + np.timedelta64(1, "h")).assign(a=d.a + 1), "time"),
    "immutable": (lambda d: {"offset": d.offset + 1}, "offset .* use set_immutables"),
    "immutable labels": (lambda d: {"x": d.x.values + 1}, "x .* use set_immutables"),
    "other labels": (lambda d: d.assign_coords(x=d.x + 1).assign(a=d.a + 1), "x"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_and_leaves_nothing(stored: izc.Collection, what: str) -> None:
    function, match = REFUSED[what]
    error = izc.NotFoundError if what == "unknown variable" else izc.InvalidInputError
    assert_refused(stored, error, match, function)


NEW = izc.Variable("new", "f8", ("time",))


@pytest.mark.parametrize(
    ("outputs", "error", "match"),
    [
        (["aa"], izc.NotFoundError, "did you mean a"),
        ("a", izc.InvalidInputError, "outputs='a' is not a list"),
        ([5], izc.InvalidInputError, "5 is neither"),
        ([NEW, NEW], izc.InvalidInputError, "new"),
        ([izc.Variable("a", "f8", ("time",))], izc.InvalidInputError, "give its name alone"),
        ([izc.Variable("new", "f8", ("x",))], izc.InvalidInputError, "new"),
        ([izc.Variable("new", "f8", ("time", "y"))], izc.InvalidInputError, "'y'"),
        (["time"], izc.InvalidInputError, "rows have their place"),
        (["offset"], izc.InvalidInputError, "set_immutables"),
        (["b"], izc.InvalidInputError, r"returned a, which is not among the outputs"),
        ([], izc.InvalidInputError, "variable"),
    ],
    ids=str,
)
def test_outputs_that_cannot_be_are_refused(stored: izc.Collection, outputs: Any, error: Any, match: str) -> None:
    assert_refused(stored, error, match, twice, outputs=outputs)


def test_values_changed_in_place_that_are_no_outputs_are_refused_or_kept_out(stored: izc.Collection) -> None:
    def change(dataset: xr.Dataset) -> xr.Dataset:
        dataset.b.values[:] = 0
        return dataset.assign(a=dataset.a * 2)

    assert_refused(stored, izc.InvalidInputError, "b, which is not among the outputs", change, outputs=["a"])


@pytest.mark.parametrize(("inputs", "error"), [(["aa"], izc.NotFoundError), ("a", izc.InvalidInputError)])
def test_inputs_that_are_not_there_are_refused(stored: izc.Collection, inputs: Any, error: Any) -> None:
    assert_refused(stored, error, "a", twice, inputs=inputs)


def test_a_partitioning_variable_cannot_be_updated(make_collection: Make) -> None:
    data = make_flow().drop_vars(["name", "short"])
    collection = make_collection(data, partitioning=izc.Sequence(("b",)))
    collection.insert(data)
    assert_refused(collection, izc.InvalidInputError, "b of .* rows have their place", lambda d: {"b": d.b + 1})


def test_a_lazy_result_that_fails_names_the_partition(stored: izc.Collection) -> None:
    def fail(block: Any) -> Any:
        raise KeyError("no such buoy")

    lazy = lambda d: {"a": da.from_array(d.a.values).map_blocks(fail, dtype="f8", meta=np.empty(0))}  # noqa: E731 - a function of one line
    error = assert_refused(stored, KeyError, "no such buoy", lazy, outputs=["a"])
    assert any("year=2022/month=" in note for note in getattr(error, "__notes__", ()))


def test_shards_can_be_updated(make_collection: Make) -> None:
    data = make_flow(rows_first=False)
    data.c.encoding = {"chunks": (3, 5), "shards": (3, 10)}
    collection = make_collection(data)
    collection.insert(data)
    collection.update(lambda d: {"c": d.c * 2})
    assert_holds(collection, data.assign(c=data.c * 2))
