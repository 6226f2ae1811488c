"""The schema over time: variables added, renamed and dropped, attributes and immutable variables set."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
from tests.conftest import both_formats, make_grid
from tests.counting import counted_location, requests_to, statements

Make = Callable[..., izc.Collection]


def make_days(start: str = "2022-01-01", days: int = 59, **values: float) -> xr.Dataset:
    """Daily values: a, and b of two columns; others as they are given."""
    time = np.datetime64(start, "ns") + np.arange(days) * np.timedelta64(1, "D")
    a, b = np.arange(1.0, days + 1), np.ones((days, 2))
    data = xr.Dataset({"a": ("time", a), "b": (("time", "x"), b)}, {"time": time})
    return data.assign({name: ("time", np.full(days, value)) for name, value in values.items()})


@pytest.fixture
def days(make_collection: Make, one_format: int) -> izc.Collection:
    """January and February."""
    collection = make_collection(make_days(), zarr_format=one_format)
    collection.insert(make_days())
    return collection


def values_of(collection: izc.Collection, name: str) -> Any:
    return collection.load()[name].values


def new(name: Any = "new", **options: Any) -> izc.Variable:
    return izc.Variable(name, **({"dtype": "f8", "dims": ("time",)} | options))


# In the registry alone


EDITS: dict[str, Callable[[izc.Collection], izc.Version]] = {
    "add_variable": lambda c: c.add_variable(new()),
    "rename_variable": lambda c: c.rename_variable("a", "other"),
    "drop_variable": lambda c: c.drop_variable("b"),
    "set_attributes": lambda c: c.set_attributes({"long_name": "day"}, "time"),
    "set_attributes of the dataset": lambda c: c.set_attributes({"title": "t"}),
}


def cost_of_edits(make_collection: Make, partitions: int) -> dict[str, list[str]]:
    data = make_days(days=partitions)
    with counted_location() as location:
        collection = make_collection(data, partitioning=izc.Date("time", "D"), location=location)
        collection.insert(data)
        assert len(collection.partitions()) == partitions
        costs = {}
        with requests_to(location) as requests:
            for name, edit in EDITS.items():
                with statements() as seen:
                    version = edit(collection)
                assert (version.operation, version) == (name.split()[0], collection.version)
                costs[name] = list(seen)
        assert requests == []
        assert all(partition.version == 1 for partition in collection.partitions())
    return costs


def test_edits_cost_the_same_statements_whatever_the_number_of_partitions(make_collection: Make) -> None:
    few, many = cost_of_edits(make_collection, 3), cost_of_edits(make_collection, 300)
    assert {name: len(cost) for name, cost in few.items()} == {name: len(cost) for name, cost in many.items()}
    assert all(few.values())


@both_formats
def test_older_versions_show_what_was_then(days: izc.Collection) -> None:
    days.set_attributes({"units": "m", "note": "old"}, "a")
    days.set_attributes({"units": "cm", "note": None}, "a")
    days.rename_variable("a", "height")
    days.add_variable(new(fill_value=7.0, attrs={"units": "s"}))
    days.drop_variable("height")
    days.set_attributes({"title": "days"})
    days.set_attributes({"title": None})
    shown = [days.at(version=version).load() for version in days.versions()[1:]]
    assert [sorted({"a", "height", "new"} & set(each.variables)) for each in shown] == [
        *[["a"]] * 3,
        ["height"],
        ["height", "new"],
        *[["new"]] * 3,
    ]
    assert [each["a"].attrs for each in shown[:3]] == [{}, {"units": "m", "note": "old"}, {"units": "cm"}]
    assert [each.attrs for each in shown[-3:]] == [{}, {"title": "days"}, {}]
    np.testing.assert_array_equal(shown[4]["height"].values, make_days().a.values)
    np.testing.assert_array_equal(shown[-1]["new"].values, np.full(59, 7.0))
    assert shown[-1]["new"].attrs == {"units": "s"}


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c.rename_variable("a", "a"),
        lambda c: c.set_attributes({}),
        lambda c: c.set_attributes({"nothing": None}, "a"),
        lambda c: c.set_attributes({"title": "made data"}),
        lambda c: c.set_attributes({"limit": np.nan}),
        lambda c: c.drop_partitions(filters="month == 12"),
        lambda c: c.drop_partitions(written_before="2000-01-01"),
        lambda c: c.update(lambda d: {"a": d.a}, filters="month == 12"),
    ],
)
def test_a_write_that_changes_nothing_returns_the_head_and_makes_no_version(make_collection: Make, edit: Any) -> None:
    collection = make_collection(make_days().assign_attrs(title="made data", limit=np.nan))
    collection.insert(make_days())
    assert edit(collection) == collection.version
    assert collection.version.number == 1


@pytest.mark.parametrize(
    "write",
    [
        *(pytest.param(edit, id=name) for name, edit in EDITS.items()),
        pytest.param(lambda c: c.update(lambda d: {"a": d.a}), id="update"),
        pytest.param(lambda c: c.set_immutables(xr.Dataset({"k": 1})), id="set_immutables"),
        pytest.param(lambda c: c.drop_partitions(filters="month == 1"), id="drop_partitions"),
        pytest.param(lambda c: c.insert(make_days(), merge="replace"), id="insert"),
    ],
)
def test_versions_are_read_only(make_collection: Make, registry: izc.Registry, write: Any) -> None:
    collection = make_collection(make_days())
    collection.insert(make_days())
    for bound in (collection.at(version=1), izc.open_collection(registry, collection.name, version=0)):
        with pytest.raises(izc.ReadOnlyError, match="versions never change"):
            write(bound)
    assert collection.version.number == 1


# Added


@pytest.mark.parametrize(
    ("variable", "missing"),
    [
        (new(), np.nan),
        (new(fill_value=3.5), 3.5),
        (new(dtype="i2"), 0),
        (new(dtype="i2", fill_value=-1), -1),
        (new(dtype=bool, fill_value=True), True),
        (new(dtype="M8[ns]"), np.datetime64("NaT", "ns")),
        (new(dtype="m8[ns]"), np.timedelta64("NaT", "ns")),
        (new(dtype=object), ""),
        (new(dtype="U3", fill_value="no"), "no"),
        (new(dims=("time", "x")), np.nan),
        (new(dims=("x", "time"), dtype="i4", fill_value=2), 2),
        (new(encoding={"dtype": "i2", "scale_factor": 0.1, "_FillValue": -9}), np.nan),
        (new(encoding={"dtype": "i2", "scale_factor": 0.5}, fill_value=1.5), 1.5),
        (new(encoding={"dtype": "i2", "scale_factor": 0.5, "_FillValue": -9}, fill_value=1.5), 1.5),
        (new(dims=("time", "x"), encoding={"chunks": (10, 1), "compressors": None}), np.nan),
        (xr.DataArray(np.ones((2, 2), "f4"), dims=("time", "x"), name="new"), np.nan),
    ],
    ids=lambda value: "" if isinstance(value, izc.Variable | xr.DataArray) else None,
)
def test_an_added_variable_fills_what_is_there_and_holds_what_comes(
    days: izc.Collection, variable: Any, missing: Any
) -> None:
    days.add_variable(variable)
    old = values_of(days, "new")
    assert old.dtype.kind == np.dtype(variable.dtype).kind
    np.testing.assert_array_equal(old, np.full(old.shape, missing, old.dtype))
    shape = [31 if dim == "time" else 2 for dim in variable.dims]
    came = np.resize(np.array(["a", "b", ""]) if old.dtype.kind in "UO" else np.arange(3).astype(old.dtype), shape)
    later = make_days("2022-03-01", 31).assign(new=(variable.dims, came.astype(old.dtype)))
    days.insert(later)
    axis = variable.dims.index("time")
    np.testing.assert_array_equal(values_of(days, "new"), np.concatenate([old, came.astype(old.dtype)], axis))
    days.insert(later.isel(time=slice(3)).assign(time=later.time[:3] - np.timedelta64(20, "D")), merge="upsert")
    np.testing.assert_array_equal(np.moveaxis(values_of(days, "new"), axis, 0)[39:42], np.moveaxis(came, axis, 0)[:3])
    assert days.validate().ok
    assert "new" not in days.at(version=1).load()


@pytest.mark.parametrize(
    ("variable", "error"),
    [
        (new("a"), izc.AlreadyExistsError),
        (new("time"), izc.AlreadyExistsError),
        (new(dims=("x",)), izc.InvalidInputError),
        (new(dims=()), izc.InvalidInputError),
        (new(dims=("time", "y")), izc.InvalidInputError),
        (new(dims=("time", "time")), izc.InvalidInputError),
        (new("in/valid"), izc.InvalidInputError),
        (new(""), izc.InvalidInputError),
        (new(5), izc.InvalidInputError),
        (new(dtype="nonsense"), izc.InvalidInputError),
        (new(fill_value="text"), izc.InvalidInputError),
        (new(dtype="i1", fill_value=300), izc.InvalidInputError),
        (new(dtype="i4", fill_value=0.5), izc.InvalidInputError),
        (new(encoding={"dtype": "i2", "scale_factor": 0.1}), izc.InvalidInputError),
        (new(encoding={"chunks": (0,)}), izc.InvalidInputError),
        (new(attrs={"o": object()}), izc.InvalidInputError),
        (new(attrs={"scale_factor": 2.0}), izc.InvalidInputError),
        (xr.DataArray(np.ones(2), dims=("time",)), izc.InvalidInputError),
        (xr.DataArray(np.ones((2, 5)), dims=("time", "x"), name="new"), izc.InvalidInputError),
        ("new", izc.InvalidInputError),
        (None, izc.InvalidInputError),
    ],
    ids=lambda value: "" if isinstance(value, xr.DataArray) else str(value)[:60],
)
def test_what_cannot_be_added_is_refused(days: izc.Collection, variable: Any, error: Any) -> None:
    with pytest.raises(error):
        days.add_variable(variable)
    assert days.version.number == 1
    days.load().compute()


# Renamed and dropped


REFUSED = {
    "rename the axis": (lambda c: c.rename_variable("time", "t"), izc.InvalidInputError, "rows have their place"),
    "drop the axis": (lambda c: c.drop_variable("time"), izc.InvalidInputError, "rows have their place"),
    "rename nothing": (lambda c: c.rename_variable("aa", "t"), izc.NotFoundError, "did you mean a"),
    "drop nothing": (lambda c: c.drop_variable("aa"), izc.NotFoundError, "did you mean a"),
    "a taken name": (lambda c: c.rename_variable("a", "b"), izc.AlreadyExistsError, "variable b already"),
    "a bad name": (lambda c: c.rename_variable("a", "x/y"), izc.InvalidInputError, "x/y"),
    "attributes of nothing": (lambda c: c.set_attributes({"k": 1}, "aa"), izc.NotFoundError, "did you mean a"),
    "attributes that are none": (lambda c: c.set_attributes(5), izc.InvalidInputError, None),
    "attributes without a form": (
        lambda c: c.set_attributes({"k": object()}),
        izc.InvalidInputError,
        "'k' of the data",
    ),
    "a decoding attribute": (lambda c: c.set_attributes({"_FillValue": 1}, "a"), izc.InvalidInputError, "decode"),
    "time units": (lambda c: c.set_attributes({"units": "days since 2000-01-01"}, "a"), izc.InvalidInputError, "units"),
    "other time units": (lambda c: c.set_attributes({"units": "days since 2000"}, "time"), izc.InvalidInputError, None),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_edited_is_refused(days: izc.Collection, what: str) -> None:
    edit, error, match = REFUSED[what]
    with pytest.raises(error, match=match):
        edit(days)
    assert days.version.number == 1


def test_what_partitions_is_protected(make_collection: Make) -> None:
    data = make_days().assign(cycle=("time", np.ones(59, "i4")))
    collection = make_collection(data, partitioning=izc.Sequence(("cycle",)))
    for edit in (lambda: collection.rename_variable("cycle", "c"), lambda: collection.drop_variable("cycle")):
        with pytest.raises(izc.InvalidInputError, match="rows have their place"):
            edit()


STEPS: dict[str, Callable[[izc.Collection], Any]] = {
    "drop": lambda c: c.drop_variable("a"),
    "rename": lambda c: c.rename_variable("a", next(name for name in "uvw" if name not in c.schema.variables)),
    "add": lambda c: c.add_variable(new("a", fill_value=-1.0)),
}


@both_formats
@pytest.mark.parametrize("order", list(itertools.product(["drop", "rename"], repeat=3)), ids="-".join)
def test_a_name_never_brings_back_what_had_it(days: izc.Collection, order: tuple[str, ...]) -> None:
    oracle = {month: {"a": np.full(n, k)} for month, n, k in ((1, 31, 0.0), (2, 28, 0.0))}
    days.insert(make_days().assign(a=("time", np.zeros(59))), merge="replace")
    for count, step in enumerate(order, start=1):
        free = next(name for name in "uvw" if name not in days.schema.variables)
        STEPS[step](days)
        for values in oracle.values():
            moved = values.pop("a")
            if step == "rename":
                values[free] = moved
        if count == 2:  # an insert while there is no variable a
            data = make_days(days=31).drop_vars("a").assign({n: ("time", np.full(31, 50.0)) for n in oracle[1]})
            days.insert(data, merge="replace")
            oracle[1] = {name: np.full(31, 50.0) for name in oracle[1]}
        STEPS["add"](days)
        oracle[1]["a"], oracle[2]["a"] = np.full(31, -1.0), np.full(28, -1.0)
        assert_both(days, oracle)
        data = make_days("2022-02-01", 28).assign({n: ("time", np.full(28, 1.0 * count)) for n in oracle[2]})
        days.insert(data, merge="replace")
        oracle[2] = {name: np.full(28, 1.0 * count) for name in oracle[2]}
        days.update(lambda d, count=count: {"a": d.a * 0 + 100 + count}, filters="month == 1")
        oracle[1]["a"] = np.full(31, 100.0 + count)
        assert_both(days, oracle)
    stored = [variable.stored_name for variable in days.schema.variables.values()]
    assert len(set(stored)) == len(stored)
    assert days.validate().ok
    np.testing.assert_array_equal(values_of(days.at(version=1), "a"), make_days().a.values)


def assert_both(collection: izc.Collection, oracle: dict[int, dict[str, Any]]) -> None:
    loaded = collection.load().compute()
    assert set(loaded.variables) == {"time", "b", *oracle[1]}
    for name in oracle[1]:
        np.testing.assert_array_equal(loaded[name], np.concatenate([oracle[1][name], oracle[2][name]]), err_msg=name)


@pytest.mark.parametrize("suffix", range(6))
def test_stored_names_never_clash_even_with_names_like_ours(make_collection: Make, suffix: int) -> None:
    data = make_days(**{f"a.{suffix}": 7.0})  # type: ignore[arg-type]  # no argument has this name
    collection = make_collection(data)
    collection.drop_variable("a")
    collection.add_variable(new("a"))
    collection.insert(data)
    np.testing.assert_array_equal(values_of(collection, "a"), data.a.values)
    np.testing.assert_array_equal(values_of(collection, f"a.{suffix}"), np.full(59, 7.0))


def test_a_name_of_the_longest_length_can_be_dropped_and_added(make_collection: Make) -> None:
    name = "n" * 255
    collection = make_collection(make_days(**{name: 1.0}))  # type: ignore[arg-type]  # no argument has this name
    collection.drop_variable(name)
    collection.add_variable(new(name))
    collection.insert(make_days(**{name: 2.0}))  # type: ignore[arg-type]  # no argument has this name
    np.testing.assert_array_equal(values_of(collection, name), np.full(59, 2.0))


@both_formats
def test_inserts_go_by_the_new_names(days: izc.Collection) -> None:
    days.rename_variable("a", "height")
    march = make_days("2022-03-01", 31)
    with pytest.raises(izc.InvalidInputError, match="has no variable a"):
        days.insert(march)
    days.insert(march.rename(a="height"))
    days.insert(march.drop_vars("a").assign(time=march.time + np.timedelta64(31, "D")), missing="fill")
    days.insert(march.rename(a="height").assign(a=march.a * 3), unknown="add", merge="upsert")
    expected = np.concatenate([make_days().a, march.a, np.full(31, np.nan)])
    np.testing.assert_array_equal(values_of(days, "height"), expected)
    expected = np.concatenate([np.full(59, np.nan), march.a * 3, np.full(31, np.nan)])
    np.testing.assert_array_equal(values_of(days, "a"), expected)
    days.add_variable(new("level", fill_value=4.0))
    days.insert(march.assign(time=march.time + np.timedelta64(70, "D")), missing="fill", merge="replace")
    assert set(values_of(days, "level")) == {4.0}


MEANWHILE: dict[str, tuple[Callable[[izc.Collection], Any], dict[str, Any] | str]] = {
    "renamed": (lambda c: c.rename_variable("a", "u"), "renamed a to u"),
    "renamed and added": (lambda c: (c.rename_variable("a", "u"), STEPS["add"](c)), "renamed a to u"),
    "dropped": (lambda c: c.drop_variable("a"), "dropped a"),
    "dropped and added": (lambda c: (c.drop_variable("a"), STEPS["add"](c)), "dropped a"),
    "another added": (lambda c: c.add_variable(new(fill_value=3.0)), {"a": 9.0, "new": 3.0}),
    "another renamed and added": (
        lambda c: (c.add_variable(new("t", fill_value=5.0)), c.rename_variable("t", "u")),
        {"a": 9.0, "u": 5.0},
    ),
    "swapped": (
        lambda c: (c.add_variable(new("t", fill_value=5.0)), c.rename_variable("a", "u"), c.rename_variable("t", "a")),
        "renamed a to u",
    ),
}


@pytest.mark.parametrize("merge", ["replace", "concat"])
@pytest.mark.parametrize("what", MEANWHILE)
def test_an_insert_that_was_planned_before_an_edit_keeps_its_values_or_names_the_variable_that_is_gone(
    registry: izc.Registry, days: izc.Collection, what: str, merge: str
) -> None:
    edit, expected = MEANWHILE[what]
    once = iter([edit])

    def merge_meanwhile(existing: xr.Dataset, inserted: xr.Dataset, **_: Any) -> xr.Dataset:
        for act in once:
            act(izc.open_collection(registry, days.name))
        return inserted if merge == "replace" else xr.concat([existing, inserted], "time")

    data = make_days().assign(a=("time", np.full(59, 9.0)), time=make_days().time + np.timedelta64(1, "h"))
    if isinstance(expected, str):
        with pytest.raises(izc.ConflictError, match=expected):
            days.insert(data, merge=merge_meanwhile, scheduler="synchronous")
        np.testing.assert_array_equal(days.load().b, make_days().b)
        return
    days.insert(data, merge=merge_meanwhile, scheduler="synchronous")
    loaded = days.load().compute()
    assert set(loaded.data_vars) == {"b", *expected}
    inserted = loaded.sel(time=data.time)
    for name, value in expected.items():
        np.testing.assert_array_equal(inserted[name], np.full(59, value), err_msg=name)
    days.insert(loaded, merge="replace")
    xr.testing.assert_equal(days.load().compute(), loaded)


# Immutable variables


@pytest.fixture
def maps(make_collection: Make) -> izc.Collection:
    collection = make_collection(make_grid())
    collection.insert(make_grid())
    return collection


def test_immutable_variables_are_replaced_in_part_and_older_versions_have_theirs(maps: izc.Collection) -> None:
    lat, mask = xr.DataArray(np.array([1, 2, 3], "f4"), dims="lat"), np.eye(3, 4, dtype="i1")
    version = maps.set_immutables(xr.Dataset(coords={"lat": lat}), message="moved")
    assert (version.number, version.operation, version.message) == (2, "set_immutables", "moved")
    maps.set_immutables(xr.Dataset({"mask": (("lat", "lon"), mask, {"units": "1"})}))
    loaded, old = maps.load(), maps.at(version=1).load()
    np.testing.assert_array_equal(loaded.lat, [1, 2, 3])
    np.testing.assert_array_equal(loaded.mask, mask)
    np.testing.assert_array_equal(old.lat, [-10, 0, 10])
    assert "mask" not in maps.at(version=2).load()
    np.testing.assert_array_equal(maps.at(version=2).load().lat, [1, 2, 3])
    for each in (loaded, old):
        np.testing.assert_array_equal(each.lon, np.arange(4.0))
        assert each.lat.attrs == {"units": "degrees_north"}
        assert each.crs.attrs["earth_radius"] == 6371229.0
    assert maps.validate().ok
    april = make_grid("2022-04-01", 30)
    with pytest.raises(izc.InvalidInputError, match="immutable variable lat"):
        maps.insert(april)
    maps.insert(april.assign_coords(lat=("lat", lat.values)).assign(mask=(("lat", "lon"), mask)))
    assert maps.load().sizes["time"] == 120


def test_immutable_variables_can_be_dropped_renamed_and_set_again(maps: izc.Collection) -> None:
    maps.drop_variable("crs")
    maps.rename_variable("lat", "latitude")
    maps.set_immutables(xr.Dataset({"crs": ((), np.float64(2.5)), "latitude": ("lat", np.array([4, 5, 6], "f4"))}))
    loaded = maps.load()
    assert (float(loaded.crs), list(loaded.latitude.values)) == (2.5, [4, 5, 6])
    assert "lat" not in loaded.variables
    for name in ("crs", "latitude", "lon"):
        maps.drop_variable(name)
    assert not {"crs", "latitude", "lon"} & set(maps.load().variables)
    maps.insert(make_grid("2022-04-01", 30).drop_vars(["crs", "lat", "lon"]))
    assert maps.validate().ok
    maps.set_immutables(xr.Dataset({"lon": ("lon", np.array([0.0, 1, 2, 3]))}))
    np.testing.assert_array_equal(maps.load().lon, [0, 1, 2, 3])


@pytest.mark.parametrize(
    "data",
    [
        xr.Dataset({"count": ("time", np.zeros(90, "i4"))}),
        xr.Dataset({"fresh": ("time", np.zeros(5))}),
        xr.Dataset({"lat": ("lat", np.zeros(5, "f4"))}),
        xr.Dataset({"lat": ("lon", np.zeros(4, "f4"))}),
        xr.Dataset({"lat": ("lat", np.zeros(3, "f8"))}),
        xr.Dataset({"crs": ("lat", np.zeros(3, "i4"))}),
        xr.Dataset({"fresh": ("lat", np.zeros(5))}),
        xr.Dataset({"fresh": ("lat", np.array([object()] * 3))}),
        xr.Dataset(),
        {"crs": 1},
        xr.DataArray(1, name="crs"),
    ],
    ids=[
        "along time",
        "new along time",
        "another size",
        "other dimensions",
        "another dtype",
        "more dimensions",
        "a dimension of another size",
        "objects",
        "nothing",
        "a dict",
        "a data array",
    ],
)
def test_immutable_variables_that_do_not_fit_are_refused(maps: izc.Collection, data: Any) -> None:
    files = sorted(Path(maps.location).rglob("*"))
    with pytest.raises(izc.InvalidInputError):
        maps.set_immutables(data)
    assert maps.version.number == 1
    assert sorted(Path(maps.location).rglob("*")) == files


def test_an_insert_that_compared_with_others_compares_again(registry: izc.Registry, maps: izc.Collection) -> None:
    once = iter([xr.Dataset({"crs": ((), np.int32(8))})])

    def merge(existing: xr.Dataset, inserted: xr.Dataset, **_: Any) -> xr.Dataset:
        for data in once:
            izc.open_collection(registry, maps.name).set_immutables(data)
        return inserted

    with pytest.raises(izc.ConflictError, match="immutable"):
        maps.insert(make_grid(seed=2), merge=merge, scheduler="synchronous", repeatable=False)
    once = iter([xr.Dataset({"crs": ((), np.int32(7))})])
    with pytest.raises(izc.InvalidInputError, match="immutable variable crs"):
        maps.insert(make_grid(seed=2).assign(crs=((), np.int32(8))), merge=merge, scheduler="synchronous")
    once = iter([xr.Dataset({"crs": ((), np.int32(9))})])
    maps.insert(make_grid(seed=2).drop_vars(["crs", "lat", "lon"]), merge=merge, scheduler="synchronous")
    assert int(maps.load().crs) == 9
    np.testing.assert_array_equal(maps.load()["count"], make_grid(seed=2)["count"])
