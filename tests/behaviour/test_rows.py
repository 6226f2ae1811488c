"""Rows by their places, as a map found them: which are loaded, what is read for it, and where they are other ones."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import intake_zcollection as izc
from registry import PartitionKey
from tests.conftest import NewRegistry
from tests.counting import counted_location, requests_to
from tests.views import (
    APRIL,
    DOUBLE,
    FEBRUARY,
    JANUARY,
    MARCH,
    create_base,
    days,
    double,
    view_of,
    winter_in,
)


def even(data: xr.Dataset) -> xr.DataArray:
    """The rows of even days of the year, as a mask."""
    mask: xr.DataArray = data["ssh"] % 2 == 0
    return mask


def first_week(data: xr.Dataset) -> slice:
    """The first seven rows."""
    return slice(0, 7)


@pytest.fixture(scope="module")
def worn(new_registry: NewRegistry) -> Iterator[izc.Collection]:
    """Three months of many parts, cut, merged and written over, in a storage that counts."""
    with new_registry() as registry, counted_location() as location:
        base = create_base(registry, location)
        base.insert(days("2022-01-05", 80))
        base.insert(days("2022-01-01", 12))
        base.drop_rows(where={"time": ("2022-02-10", "2022-02-12")})
        base.insert(days("2022-03-20", 11, level=100.0))
        base.update(lambda data: {"flag": data["flag"] + 1}, filters="month == 3")
        yield base


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_rows_of_any_form_are_what_numpy_takes_of_each_partition(worn: izc.Collection, data: st.DataObject) -> None:
    whole, rows, taken = worn.load().compute(), dict[PartitionKey | str, Any](), list[int]()
    months = whole["time"].dt.month.values
    for key in data.draw(st.sets(st.sampled_from([JANUARY, FEBRUARY, MARCH]))):
        month = key[1][1]
        places = np.flatnonzero(months == month)
        mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(places), max_size=len(places))))
        start = data.draw(st.integers(-len(places), len(places)))
        form, own = data.draw(
            st.sampled_from(
                [
                    *((each, places[mask]) for each in (mask, np.flatnonzero(mask), xr.DataArray(mask))),
                    (slice(start, None), places[start:]),
                    ([slice(0, 2), slice(5, -3)], np.concatenate([places[:2], places[5:-3]])),
                ]
            )
        )
        name: PartitionKey | str = key if data.draw(st.booleans()) else f"year=2022/month={month:02}"
        rows[name] = form
        taken += own.tolist()
    low, high = sorted(data.draw(st.tuples(*[st.integers(0, 89)] * 2)))
    bounds = [np.datetime64("2022-01-01", "ns") + day * np.timedelta64(1, "D") for day in (low, high)]
    filters = data.draw(st.sampled_from([None, "month > 1", lambda key: key["month"] != 2]))
    chosen = data.draw(st.sampled_from([{}, {"where": {"time": tuple(bounds)}}]))
    expected = whole.isel(time=sorted(taken))
    keep = np.ones(len(taken), bool)
    if chosen:
        keep &= (expected["time"].values >= bounds[0]) & (expected["time"].values <= bounds[1])
    if filters is not None:
        keep &= expected["time"].dt.month.values > 1 if filters == "month > 1" else expected["time"].dt.month != 2
    loaded = worn.load(rows=rows, filters=filters, **chosen, chunks=data.draw(st.sampled_from(["auto", None])))
    xr.testing.assert_equal(loaded.compute(), expected.isel(time=keep))


def test_what_map_found_is_loaded_and_the_axis_of_cut_parts_alone_is_read(worn: izc.Collection) -> None:
    whole = worn.load().compute()
    weeks = worn.map(first_week)
    with requests_to(worn.location) as requests:
        loaded = worn.load(rows=weeks, filters="month != 2")
    assert ["/time/" in path for _, path in requests] == [True] * 2  # of a part of January, and of one of March
    with requests_to(worn.location) as requests:
        worn.load(rows=dict.fromkeys(weeks, slice(None)))
        worn.load(rows={JANUARY: []})
    assert requests == []
    assert loaded["time"].dt.day.values.tolist() == [*range(1, 8)] * 2
    assert loaded.sel(time="2022-03").sizes["time"] == 7
    xr.testing.assert_equal(worn.load(rows=worn.map(even)).compute(), whole.isel(time=even(whole).values))


@pytest.fixture
def base(registry: izc.Registry, tmp_path: Path) -> izc.Collection:
    """Three months, in version 1."""
    return winter_in(registry, tmp_path / "base")


CHANGES: dict[str, Callable[[izc.Collection], Any]] = {
    "rows that came": lambda base: base.insert(days("2022-02-03", 1, level=0.5)),
    "values of a variable": lambda base: base.update(lambda data: {"flag": data["flag"] + 1}, filters="month == 2"),
    "rows that went": lambda base: base.drop_rows(where={"time": ("2022-02-03", "2022-02-03")}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_rows_are_refused_at_versions_where_their_partitions_are_other_ones(base: izc.Collection, what: str) -> None:
    found = base.map(first_week)
    CHANGES[what](base)
    refusal = r"found at version 1 of made/days, .* version 2 .* other ones: year=2022/month=02; .*at\(version=1\)"
    with pytest.raises(izc.InvalidInputError, match=refusal):
        base.load(rows=found)
    assert base.load(rows=found, filters="month != 2").sizes["time"] == 14
    assert base.at(version=1).load(rows=found).sizes["time"] == 21
    newer = base.map(first_week)
    assert base.load(rows=newer).sizes["time"] == 21
    with pytest.raises(izc.InvalidInputError, match=r"found at version 2 .* at version 1"):
        base.at(version=1).load(rows=newer)
    assert base.load(rows=dict(found)).sizes["time"] == 21  # who says nothing of a version means the one that is loaded


def test_rows_stay_where_they_were_found_through_all_that_does_not_change_their_partitions(
    base: izc.Collection,
) -> None:
    found = base.map(first_week, filters="month < 3")
    base.insert(days("2022-04-01", 3))
    base.insert(days("2022-03-31", 1))
    base.rewrite()
    base.rename_variable("flag", "flags")
    izc.rename_collection(base._handle.registry, base.name, "made/others")
    loaded = base.load(rows=pickle.loads(pickle.dumps(found)))
    assert np.unique(loaded["time"].dt.month).tolist() == [1, 2]
    assert base.at(version=3).load(rows=base.map(first_week, filters={"month": 2})).sizes["time"] == 7
    assert repr(found) == repr({JANUARY: slice(0, 7), FEBRUARY: slice(0, 7)})
    assert found.version == 1


def test_rows_of_another_collection_are_refused(base: izc.Collection, tmp_path: Path) -> None:
    copy = base.copy("made/copy", str(tmp_path / "copy"))
    with pytest.raises(izc.InvalidInputError, match="found in collection made/days, and this is made/copy"):
        copy.load(rows=base.map(first_week))


REFUSED: dict[str, tuple[Any, str]] = {
    "rows that a partition does not have": (
        {"year=2022/month=02": slice(20, 29)},
        "^collection made/days, partition year=2022/month=02: .* beyond the 28 rows",
    ),
    "a mask of another length": ({FEBRUARY: [True] * 31}, "partition year=2022/month=02: .* 31 values, .* 28 rows"),
    "a partition that is not there": (
        {APRIL: slice(0, 1), JANUARY: slice(0, 1)},
        "collection made/days has no partition year=2022/month=04 at version 1",
    ),
    "a key of another collection": ({"cycle=1": slice(0, 1)}, "rows: 'cycle=1' is no key .*as year=…/month=… is$"),
    "a partition twice": ({FEBRUARY: [1], "year=2022/month=2": [2]}, "made/days: rows= names the partition .* twice"),
    "no mapping": ([1, 2], "collection made/days: rows=list is no mapping"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_rows_that_are_not_there_are_refused_by_name(base: izc.Collection, what: str) -> None:
    rows, match = REFUSED[what]
    with pytest.raises(izc.InvalidInputError, match=match):
        base.load(rows=rows, where={"time": ("2022-01-01", "2022-02-20")})


def test_partitions_beyond_the_bounds_are_left_out_and_not_missed(base: izc.Collection) -> None:
    found, week = base.map(first_week), {"time": ("2022-01-01", "2022-02-03")}
    assert base.load(rows=found, where=week).sizes["time"] == 10
    assert base.load(rows=found, where=week, crop=False).sizes["time"] == 31 + 28
    assert izc.open_dataset(base._handle.registry, base.name, rows=found, where=week).sizes["time"] == 10
    later = base.load(rows={JANUARY: slice(3, None)}, where={"time": ("2022-01-06", "2022-01-09")})
    assert later["time"].dt.day.values.tolist() == [6, 7, 8, 9]
    assert base.load(rows={}).sizes["time"] == base.load(rows={JANUARY: []}, crop=False).sizes["time"] == 0


# Views


def test_what_a_view_shows_is_found_and_loaded_over_the_version_of_the_base_where_it_was_read(
    base: izc.Collection,
) -> None:
    view = view_of(base)
    view.update(double, outputs=[DOUBLE])
    found = view.map(first_week)
    assert view.load(rows=found)["double"].values.tolist() == [
        2 * day for day in (*range(7), *range(31, 38), *range(59, 66))
    ]
    base.insert(days("2022-04-01", 2))  # the base has another version now, and no other rows there
    assert view.load(rows=found).sizes["time"] == 21
    base.drop_rows(where={"time": ("2022-02-01", "2022-02-03")})
    shown = view.map(lambda data: slice(0, 1), inputs=["ssh"])  # the base's rows as they are now
    assert view.load(rows=shown, variables=["ssh"])["time"].dt.day.values.tolist() == [1, 4, 1, 1]
    assert view.load(rows=found).sizes["time"] == 21  # of February, those that the own values were computed from
    with pytest.raises(izc.InvalidInputError, match=r"of made/view, .* other ones: year=2022/month=02; call map again"):
        view.load(rows=found, variables=["ssh"])
    with pytest.raises(izc.InvalidInputError, match="year=2022/month=02"):
        view.load(rows=shown)
    assert view.load(rows={MARCH: [0], FEBRUARY: [0]}, stale="skip")["time"].dt.month.values.tolist() == [3]
    view.sync()
    with pytest.raises(izc.InvalidInputError, match="year=2022/month=02"):
        view.load(rows=found)
