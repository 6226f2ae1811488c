"""What was found of views by thinking as the machine does, said as plain examples."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc

DAYS = np.arange("2022-01-01", "2022-06-01", dtype="M8[D]").astype("M8[ns]")
DATA = xr.Dataset({"a": ("time", np.arange(len(DAYS)) * 1.0), "b": ("time", np.zeros(len(DAYS)))}, {"time": DAYS})
OWN = [izc.Variable(name, "f8", ("time",)) for name in ("w", "s")]


def around(dataset: xr.Dataset) -> dict[str, Any]:
    return {"s": np.full(dataset.sizes["time"], float(dataset["a"].sum()))}


def both(dataset: xr.Dataset) -> dict[str, Any]:
    return {"w": dataset["a"], "s": 2 * dataset["a"]}


def one(dataset: xr.Dataset) -> dict[str, Any]:
    return {"w": dataset["b"] + 1000}


def more_of_b(dataset: xr.Dataset) -> dict[str, Any]:
    return {"b": dataset["b"] + 1}


@pytest.fixture
def base(make_collection: Callable[..., izc.Collection]) -> izc.Collection:
    base = make_collection(DATA, merge="upsert")
    base.insert(DATA)
    return base


@pytest.fixture
def view(registry: izc.Registry, base: izc.Collection, tmp_path: Path) -> izc.View:
    return izc.create_view(registry, "made/view", base, location=f"{tmp_path}/view")


def months(changes: izc.Changes) -> dict[int, str]:
    return {key[1][1]: change.reason for key, change in changes.items()}


def test_who_has_a_neighbour_since_another_is_gone_sees_that_it_changes(base: izc.Collection, view: izc.View) -> None:
    view.update(around, outputs=OWN[1:], depth=1)
    base.drop_partitions(filters="month == 3")
    view.sync(filters="month in (2, 4)")
    assert months(view.stale()) == {3: "gone"}
    base.insert(DATA.sel(time=["2022-04-10"]) + 1)
    assert months(view.stale()) == {2: "neighbour", 3: "gone", 4: "rows", 5: "neighbour"}
    view.sync()
    assert view.is_synced()


def test_who_has_other_neighbours_since_the_view_takes_other_partitions_is_stale(view: izc.View) -> None:
    view.update(around, outputs=OWN[1:], depth=1)
    view.set_filters("month != 2")
    assert months(view.stale()) == {1: "neighbour", 3: "neighbour"}
    view.sync()
    view.set_filters(None)
    assert months(view.stale()) == {1: "neighbour", 3: "neighbour"}  # 2 is what it was computed as
    view.sync()
    view.set_filters("month in (2, 3)")
    assert months(view.stale()) == {2: "neighbour", 3: "neighbour"}


def test_an_older_value_is_not_seen_again_where_the_newer_one_ends(base: izc.Collection, view: izc.View) -> None:
    view.update(both, outputs=OWN, inputs=["a"], rowwise=True)
    view.update(one, outputs=["w"], inputs=["b"], rowwise=True)
    assert view.load()["s"].equals((2 * base.load()["a"]).rename("s"))
    base.update(more_of_b, outputs=["b"], filters="month == 1")
    assert months(view.stale()) == {1: "inputs"}
    assert np.isnan(view.load(stale="fill", filters="month == 1")["w"].values).all()
    view.sync()
    loaded = view.load()
    np.testing.assert_array_equal(loaded["w"], loaded["b"] + 1000)
    np.testing.assert_array_equal(loaded["s"], 2 * loaded["a"])
    assert view.validate().ok


# What mistakes would do


SEEN: list[int] = []
"""How many rows each call of a function has seen."""

MEANWHILE: list[Callable[[], object]] = []


def doubled(dataset: xr.Dataset) -> dict[str, Any]:
    SEEN.append(dataset.sizes["time"])
    while MEANWHILE:
        MEANWHILE.pop()()
    return {"w": 2 * dataset["a"]}


def more(count: int) -> xr.Dataset:
    """Days after the last of the data."""
    days = DAYS[-1] + np.arange(1, count + 1) * np.timedelta64(1, "D")
    return xr.Dataset({"a": ("time", np.full(count, 7.0)), "b": ("time", np.zeros(count))}, {"time": days})


@pytest.fixture
def june(base: izc.Collection) -> izc.Collection:
    base.insert(more(20))
    return base


def test_rows_that_came_are_seen_at_once_and_have_no_own_value_yet(june: izc.Collection, view: izc.View) -> None:
    view.update(doubled, outputs=OWN[:1], rowwise=True)
    june.insert(more(23).isel(time=slice(20, 23)))
    loaded = view.load(filters="month == 6")
    assert loaded.sizes["time"] == 23
    assert np.isnan(loaded["w"].values).tolist() == [False] * 20 + [True] * 3


def test_a_partition_is_seen_as_it_was_where_what_it_was_computed_from_is_replaced(
    june: izc.Collection, view: izc.View
) -> None:
    view.update(doubled, outputs=OWN[:1], rowwise=True)
    june.insert(more(1) + 1)
    assert view.load(filters="month == 6")["a"].values[0] == 7
    assert view.load(filters="month == 6", variables=["a"])["a"].values[0] == 8


def test_a_sync_row_by_row_calls_the_function_with_the_rows_that_came(june: izc.Collection, view: izc.View) -> None:
    view.update(doubled, outputs=OWN[:1], rowwise=True)
    june.insert(more(23).isel(time=slice(20, 23)))
    june.insert(DATA.isel(time=[3, 4]) + 1)
    SEEN.clear()
    view.sync(scheduler="synchronous")
    assert sorted(SEEN) == [2, 3]
    loaded = view.load()
    np.testing.assert_array_equal(loaded["w"], 2 * loaded["a"])


def test_who_computed_the_same_partitions_meanwhile_is_noticed(view: izc.View) -> None:
    view.update(doubled, outputs=OWN[:1])
    MEANWHILE.append(lambda: view.update(both, outputs=["w", OWN[1]], filters="month == 2"))
    with pytest.raises(izc.ConflictError, match="computed the same partitions"):
        view.update(doubled, outputs=["w"], scheduler="synchronous", repeatable=False)


def test_a_pinned_view_stays_as_it_is(registry: izc.Registry, base: izc.Collection, tmp_path: Path) -> None:
    view = izc.create_view(registry, "made/pinned", base, location=f"{tmp_path}/pinned", pinned_version=1)
    before = view.load().compute()
    base.insert(DATA + 1)
    base.insert(more(3))
    xr.testing.assert_identical(view.load().compute(), before)
    view.sync(pinned_version=3)
    xr.testing.assert_equal(view.load().compute(), base.load().compute())


def test_a_view_is_not_pinned_before_what_it_was_over(base: izc.Collection, view: izc.View) -> None:
    assert view.version.number == 0  # it was made over version 1, and has nothing of its own
    with pytest.raises(izc.InvalidInputError, match=f"was over version 1 of {base.name}"):
        view.sync(pinned_version=0)


def test_nor_before_what_values_of_partitions_lie_over_that_it_does_not_take_now(
    june: izc.Collection, view: izc.View
) -> None:
    view.update(doubled, outputs=OWN[:1])
    june.insert(DATA.isel(time=slice(0, 2)) + 1)
    view.sync()
    view.set_filters("month > 1")
    with pytest.raises(izc.InvalidInputError, match="pinned there or later"):
        view.sync(pinned_version=2)


def test_what_a_view_shows_is_not_dropped_unasked(base: izc.Collection, view: izc.View) -> None:
    with pytest.raises(izc.InvalidInputError, match=view.name):
        base.drop_variable("b")
    base.drop_variable("b", views="break")
    assert "b" not in view.load()


def test_a_view_takes_what_its_filter_says(view: izc.View) -> None:
    view.set_filters("month in (2, 3)")
    assert view.load().sizes["time"] == 28 + 31
    assert [str(each.key[1][1]) for each in view.partitions(filters="month > 2")] == ["3"]


def test_what_was_computed_and_what_changed_below_is_what_changed_in_a_view(
    june: izc.Collection, view: izc.View
) -> None:
    view.update(doubled, outputs=OWN[:1], rowwise=True)
    computed = view.diff(0, 1)
    assert {(each.changed, each.variables) for each in computed.values()} >= {(31, ("w",)), (20, ("w",))}
    assert len(computed) == 6
    june.insert(more(1) + 1)
    assert months(view.changes_since(1)).keys() == {6}
    view.sync()
    (change,) = view.diff(1, 2).values()
    assert change.changed == 1
    assert not view.changes_since(2)
