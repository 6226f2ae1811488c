"""Rows looked up by values: whatever is written, what an index finds is what a scan of all rows finds."""

import importlib
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
from tests.counting import counted_location, requests_to
from tests.racing import before_its_commits
from tests.sql import run_sql

Make = Callable[..., izc.Collection]
Scan = Callable[[xr.Dataset], Any]

BEGIN, HOUR = np.datetime64("2022-01-01", "ns"), np.timedelta64(1, "h")
FEBRUARY = (("year", 2022), ("month", 2))
MONTHS = (31 + 28 + 31) * 24


def track(hours: Any, level: float = 0.0) -> xr.Dataset:
    """Rows along an orbit, at some hours from January 2022 on: half orbits of eight hours, ten in a cycle."""
    hours = np.asarray(hours)
    half = hours // 8
    seen = BEGIN + hours // 24 * 24 * HOUR
    seen[hours % 5 == 0] = np.datetime64("NaT")
    return xr.Dataset(
        {
            "cycle_number": ("time", (half // 10).astype("i2")),
            "pass_number": ("time", (half % 10).astype("i4")),
            "station": ("time", np.array(["Brest", "brest", "Žilina"], object)[half % 3]),
            "seen": ("time", seen),
            "ice": ("time", half % 7 == 0),
            "ssh": ("time", hours + level),
        },
        {"time": BEGIN + hours * HOUR},
    )


ALL = np.arange(0, MONTHS, 4)
"""Every fourth hour of three months: two of each half orbit."""


def tens(data: xr.Dataset) -> dict[str, Any]:
    """A function of each row."""
    return {
        "tens": data["ssh"].values.astype("i8") // 10,
        "parity": np.array([f"{int(v) % 4}" for v in data["ssh"].values]),
    }


def extremes(data: xr.Dataset) -> dict[str, Any]:
    """A function of a partition: three rows around its highest one, and its first two rows, which may be the same."""
    top, rows = int(data["ssh"].values.argmax()), data.sizes["time"]
    return {"kind": [1, 2], "start": [max(top - 2, 0), 0], "stop": [top + 1, min(2, rows)]}


def high(data: xr.Dataset) -> dict[str, Any]:
    """A function of a partition, which finds nothing in January, and says so by lists."""
    rows = np.flatnonzero(data["ssh"].values > 1500).tolist()
    return {"name": [f"high {row % 2}" for row in rows], "start": rows, "stop": [row + 1 for row in rows]}


def scan_extremes(kinds: set[int]) -> Scan:
    def scan(data: xr.Dataset) -> Any:
        found = np.zeros(data.sizes["time"], bool)
        for month in np.unique(data["time"].dt.month.values):
            rows = np.flatnonzero(data["time"].dt.month.values == month)
            told = extremes(data.isel(time=rows))
            for kind, start, stop in zip(*told.values(), strict=True):
                if kind in kinds:
                    found[rows[start:stop]] = True
        return found

    return scan


LOOK_UPS: dict[str, tuple[Any, Scan]] = {
    "values of one column, a range of the other": (
        {"pass_number": [1, 2, 77], "cycle_number": (3, 12)},
        lambda d: np.isin(d.pass_number, [1, 2]) & (d.cycle_number.values >= 3) & (d.cycle_number.values <= 12),
    ),
    "a range that is open": ({"cycle_number": slice(None, 4)}, lambda d: d.cycle_number.values <= 4),
    "an expression": (
        "cycle_number == 3 or pass_number in (0, 9) and not cycle_number > 8",
        lambda d: (d.cycle_number.values == 3) | (np.isin(d.pass_number, [0, 9]) & ~(d.cycle_number.values > 8)),
    ),
    "below the name of the index": ({"half_orbit": {"cycle_number": 7}}, lambda d: d.cycle_number.values == 7),
    "text": ({"station": "brest"}, lambda d: d.station.values == "brest"),
    "a range of text": ({"station": ("C", None)}, lambda d: d.station.values.astype(str) >= "C"),
    "a month": ({"seen": "2022-02"}, lambda d: d.seen.dt.month.values == 2),
    "days": ({"seen": ("2022-01-30", "2022-02-02")}, lambda d: np.isin(d.seen, BEGIN + np.arange(29, 33) * 24 * HOUR)),
    "flags": ({"ice": True}, lambda d: d.ice.values),
    "a function of rows": (
        {"tens": (20, 90), "parity": ["0", "3"]},
        lambda d: np.isin(d.ssh.values // 10, range(20, 91)) & np.isin(d.ssh.values.astype(int) % 4, [0, 3]),
    ),
    "ranges of partitions": ({"kind": 1}, scan_extremes({1})),
    "ranges that overlap": ({"kind": [1, 2]}, scan_extremes({1, 2})),
}


def assert_found(source: izc.Collection, names: Iterable[str] = LOOK_UPS, **selection: Any) -> None:
    """See that look-ups find what a scan of all rows does."""
    whole = source.load(chunks=None).compute()
    chosen = np.isin(whole["time"], source.load(**selection)["time"])
    for index, scan in (LOOK_UPS[name] for name in names):
        found = source.load(index=index, chunks=None, variables=["ssh"], **selection)
        expected = whole[["ssh"]].isel(time=np.flatnonzero(scan(whole) & chosen))
        xr.testing.assert_equal(found.compute(), expected)


@pytest.fixture
def orbits(make_collection: Make) -> izc.Collection:
    """Three months and some indexes, of which one is older than the rows; in version 4."""
    collection = make_collection(track(ALL))
    collection.create_index("half_orbit", ("cycle_number", "pass_number"))
    collection.insert(track(ALL))
    collection.create_index("stations", "station")
    collection.create_index("extremes", ["kind"], extremes, inputs=["ssh"], per="partition")
    return collection


@pytest.fixture
def indexed(orbits: izc.Collection) -> izc.Collection:
    """The same with indexes of all kinds, in version 7."""
    orbits.create_index("days", "seen")
    orbits.create_index("ice", "ice")
    orbits.create_index("levels", ("tens", "parity"), tens, inputs=["ssh"])
    return orbits


def drop_first(existing: xr.Dataset, inserted: xr.Dataset, *, axis: str, dimension: str) -> xr.Dataset:
    """A merge function of a user's."""
    return xr.concat([existing.isel({dimension: slice(1, None)}), inserted], dimension)


ODD = np.arange(700, 800, 3)
"""Hours, some of which have rows, around the first of February."""

WRITES: dict[str, Callable[[izc.Collection], Any]] = {
    "upsert": lambda each: each.insert(track(ODD, 500), merge="upsert"),
    "append": lambda each: each.insert(track([701, 703, 5000])),
    "keep": lambda each: each.insert(track(ODD, 500), merge="keep"),
    "time series": lambda each: each.insert(track(ODD, 500), merge="time_series"),
    "replace": lambda each: each.insert(track(ODD, 500), merge="replace"),
    "concat": lambda each: each.insert(track(ODD, 500), merge="concat"),
    "a function that merges": lambda each: each.insert(track(ODD, 500), merge=drop_first),
    "update": lambda each: each.update(
        lambda d: {"pass_number": (d.pass_number + 1) % 10, "ssh": -d.ssh}, outputs=["pass_number", "ssh"]
    ),
    "update of some partitions": lambda each: each.update(
        lambda d: {"station": d.station.str.upper(), "seen": d.seen.shift(time=1)}, filters="month == 2"
    ),
    "drop rows": lambda each: each.drop_rows(where={"time": ("2022-02-03T03", "2022-03-02T17")}),
    "drop rows by values": lambda each: each.drop_rows(where={"pass_number": (3, 5)}),
    "drop partitions": lambda each: each.drop_partitions(filters="month == 2"),
    "rewrite": lambda each: (each.insert(track(ODD, 500), merge="upsert"), each.rewrite()),
    "names": lambda each: (each.rename_variable("ssh", "ssh2"), each.rename_variable("ssh2", "ssh")),
}


@pytest.mark.filterwarnings("ignore:index extremes is computed now")
@pytest.mark.parametrize("what", WRITES)
def test_after_each_kind_of_write_what_is_found_is_what_a_scan_finds_then_and_before(
    indexed: izc.Collection, what: str
) -> None:
    WRITES[what](indexed)
    assert_found(indexed)
    assert_found(indexed.at(version=7), ["an expression", "text", "ranges that overlap"])
    week = {"time": ("2022-01-28", "2022-02-03T07")}
    assert_found(indexed, ["a range that is open", "a month", "ranges of partitions"], filters="month < 3", where=week)
    assert indexed.load(index={"station": "brest"}, unindexed="raise").sizes["time"] > 0


def test_what_is_looked_up_is_read_and_nothing_else(new_registry: Any) -> None:
    with new_registry() as registry, counted_location() as location:
        orbits = izc.create_collection(
            registry, "made/orbits", track(ALL), axis="time", partitioning=izc.Date("time", "M"), location=location
        )
        orbits.insert(track(ALL))
        orbits.create_index("half_orbit", ("cycle_number", "pass_number"))
        with requests_to(location) as opening:
            found = orbits.load(index={"cycle_number": 10, "pass_number": 3}, variables=["ssh"])
            orbits.partitions(index="cycle_number > 11")
        with requests_to(location) as reading:
            assert found["ssh"].values.tolist() == [824, 828]
    assert opening == []
    assert len(reading) == 1


def test_partitions_are_chosen_as_a_whole_without_cropping(orbits: izc.Collection) -> None:
    some = {"cycle_number": 10, "pass_number": [2, 3]}
    assert [str(each) for each in orbits.partitions(index=some)] == ["year=2022/month=02"]
    assert list(orbits.map(lambda data: data.sizes["time"], index=some).items()) == [(FEBRUARY, 28 * 6)]
    assert orbits.load(index=some, crop=False).sizes["time"] == 28 * 6
    assert orbits.load(index=some).sizes["time"] == 4
    nothing = orbits.load(index={"station": "Oslo"})
    assert (nothing.sizes["time"], nothing["station"].dtype) == (0, orbits.load()["station"].dtype)


def test_rows_by_their_places_are_among_those_that_are_looked_up(orbits: izc.Collection) -> None:
    orbits.insert(track(ODD, 0), merge="keep")
    whole = orbits.load().compute()
    found = orbits.map(lambda data: data["ssh"].values % 3 == 0)
    loaded = orbits.load(index={"pass_number": [1, 2]}, rows=found, where={"time": ("2022-01-20", None)}).compute()
    wanted = np.isin(whole.pass_number, [1, 2]) & (whole.ssh.values % 3 == 0)
    xr.testing.assert_equal(loaded, whole.isel(time=wanted).sel(time=slice("2022-01-20", None)))
    week = orbits.load(index={"pass_number": [1, 2]}, rows={FEBRUARY: slice(3, 40)}).compute()
    february = whole.sel(time="2022-02").isel(time=slice(3, 40))
    xr.testing.assert_equal(week, february.isel(time=np.isin(february.pass_number, [1, 2])))


# Which index, and since when


def test_of_indexes_with_a_column_in_common_one_has_to_be_named(orbits: izc.Collection) -> None:
    orbits.create_index("by_station", ("station", "cycle_number"))
    with pytest.raises(izc.InvalidInputError, match=r"half_orbit, by_station .* say which, index=\{'half_orbit': …\}"):
        orbits.load(index={"cycle_number": 3})
    with pytest.raises(izc.InvalidInputError, match="say which"):
        orbits.load(index="cycle_number == 3")
    sizes = {orbits.load(index={name: {"cycle_number": 3}}).sizes["time"] for name in ("half_orbit", "by_station")}
    assert sizes == {orbits.load(index={"by_station": "cycle_number == 3"}).sizes["time"]} == {20}
    assert orbits.load(index={"cycle_number": 3, "station": "brest"}).sizes["time"] == 6


def test_an_index_is_there_from_its_version_until_it_is_dropped(orbits: izc.Collection) -> None:
    with pytest.raises(izc.InvalidInputError, match=r"no index .* has such columns at this version.*half_orbit"):
        orbits.at(version=2).load(index={"station": "brest"})
    dropped = orbits.drop_index("stations")
    orbits.create_index("stations", "pass_number")
    with pytest.raises(izc.InvalidInputError, match="no index"):
        orbits.load(index={"station": "brest"})
    orbits.insert(track([701]))
    assert orbits.load(index={"stations": {"pass_number": 7}}).sizes["time"] == 55
    assert orbits.at(version=dropped.number - 1).load(index={"station": "brest"}).sizes["time"] == 180
    assert [each.name for each in orbits.at(version=3).indexes()] == ["half_orbit", "stations"]


def test_an_index_follows_a_variable_that_is_renamed_and_keeps_it_from_being_dropped(orbits: izc.Collection) -> None:
    orbits.rename_variable("station", "port")
    orbits.insert(track([701]).rename(station="port"))
    assert orbits.load(index={"station": "brest"}, unindexed="raise")["port"].values.tolist() == ["brest"] * 180
    with pytest.raises(izc.InvalidInputError, match=r"index stations of .* drop_index it first"):
        orbits.drop_variable("port")


def test_rows_of_a_variable_that_was_added_are_found_by_its_fill_value(orbits: izc.Collection) -> None:
    orbits.add_variable(izc.Variable("orbit", "i4", ("time",), fill_value=-1))
    orbits.create_index("orbits", "orbit")
    orbits.insert(track([5000]), missing="fill")
    orbits.update(lambda data: {"orbit": data.pass_number}, outputs=["orbit"], filters="month == 2")
    assert orbits.load(index={"orbit": -1}, unindexed="raise").sizes["time"] == 62 * 6 + 1
    assert orbits.load(index={"orbit": 3}, unindexed="raise").sizes["time"] == 18


def test_the_table_of_an_index_has_all_entries_and_where_they_are(orbits: izc.Collection) -> None:
    orbits.create_index("days", "seen")
    orbits.insert(track(ODD, 500), merge="upsert")
    table, whole = orbits.index("half_orbit").table(keys=True), orbits.load().compute()
    assert list(orbits.index("half_orbit").table()) == ["cycle_number", "pass_number"]
    months = dict(iter(whole.groupby("time.month")))
    assert table["stop"].sub(table["start"]).sum() == whole.sizes["time"]
    for row in table.itertuples():
        some = months[row.month].isel(time=slice(row.start, row.stop))
        assert {*some.cycle_number.values, *some.pass_number.values + 100} == {row.cycle_number, row.pass_number + 100}
    assert orbits.index("days").table()["seen"].dtype == "M8[ns]"
    assert "half_orbit" in repr(orbits.index("half_orbit"))


# What is not indexed


def test_a_partition_of_an_index_of_whole_ones_is_not_indexed_once_it_is_written_to(orbits: izc.Collection) -> None:
    orbits.load(index={"kind": 1}, unindexed="raise")
    orbits.insert(track([701], 5000))
    with pytest.raises(izc.InvalidInputError, match=r"knows nothing of 3 parts .*create_index\('extremes', …\) again"):
        orbits.load(index={"kind": 1}, unindexed="raise")
    assert orbits.load(index={"kind": 1}, filters="month != 1", unindexed="raise").sizes["time"] == 6
    with pytest.warns(UserWarning, match="index extremes is computed now for 3 parts"):
        found = orbits.load(index={"kind": 1})
    assert 5701.0 in found["ssh"].values
    orbits.create_index("extremes", ["kind"], extremes, inputs=["ssh"], per="partition")
    xr.testing.assert_equal(orbits.load(index={"kind": 1}, unindexed="raise").compute(), found.compute())


def test_a_function_may_find_nothing_in_some_partitions(orbits: izc.Collection, make_collection: Make) -> None:
    orbits.create_index("high", "name", high, inputs=["ssh"], per="partition")
    orbits.insert(track([5]))
    orbits.create_index("high", "name", high, inputs=["ssh"], per="partition")
    assert orbits.load(index={"name": ["high 0", "high 1"]}, unindexed="raise")["ssh"].values[0] == 1504
    with pytest.raises(izc.InvalidInputError, match=r"of what kind name of index high .* cannot be known"):
        make_collection(track(ALL)).create_index("high", "name", high, inputs=["ssh"], per="partition")


@pytest.mark.parametrize("kept", [(), ("ssh",)], ids=["read", "by statistics"])
def test_values_that_are_looked_up_go_together_with_bounds_on_values_and_rows_by_their_places(
    orbits: izc.Collection, kept: tuple[str, ...]
) -> None:
    """Places count in whole partitions, of which bounds may have left parts out."""
    orbits.insert(track(ODD, 0.5), merge="upsert")
    if kept:
        orbits.add_statistics(kept)
    whole, places = orbits.load().compute(), slice(20, 150)
    inside = (whole.ssh.values >= 500) & (whole.ssh.values <= 1200.5)
    looked_up = np.isin(whole.pass_number.values, [1, 2, 7])
    month = whole.time.dt.month.values
    within = np.zeros(len(month), bool)
    for number in (1, 2):
        within[np.flatnonzero(month == number)[places]] = True
    rows = {(("year", 2022), ("month", number)): places for number in (1, 2)}
    asked: dict[str, Any] = {"where": {"ssh": (500, 1200.5)}, "index": {"pass_number": [1, 2, 7]}, "rows": rows}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what has no statistics it is told once
        for names, mask in (
            (("where", "index"), inside & looked_up),
            (("where", "rows"), inside & within),
            (("where", "index", "rows"), inside & looked_up & within),
        ):
            assert 0 < mask.sum() < len(mask)
            found = orbits.load(**{name: asked[name] for name in names})
            xr.testing.assert_identical(found.compute(), whole.isel(time=mask))


@pytest.fixture
def absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with a function, which was imported when its index was created and has to be trusted now."""
    name = f"made_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text('def tens(data):\n    return data["ssh"].values.astype("i8") // 10\n')
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize("on_missing", ["defer", "raise"])
def test_a_writer_that_may_not_import_the_function_leaves_its_rows_unindexed_or_raises(
    make_collection: Make, absent: str, on_missing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    collection, module = make_collection(track(ALL)), importlib.import_module(absent)
    collection.insert(track(ALL))
    collection.create_index("tens", "tens", module.tens, inputs=["ssh"], on_missing=on_missing)
    del sys.modules[absent]
    if on_missing == "raise":
        with pytest.raises(izc.InvalidInputError, match=rf"index tens of .* is computed by {absent}:tens"):
            collection.insert(track([701]))
        assert collection.version.number == 2
        return
    collection.insert(track([701]))
    assert "what is written is not indexed" in caplog.text
    with pytest.raises(izc.InvalidInputError, match="knows nothing of 1 part"):
        collection.load(index={"tens": 70}, unindexed="raise")
    with (
        pytest.raises(izc.InvalidInputError, match=rf"import {absent} yourself, or call trust"),
        pytest.warns(UserWarning, match="computed now"),
    ):
        collection.load(index={"tens": 70})
    module = importlib.import_module(absent)
    with pytest.warns(UserWarning, match="computed now for 1 part"):
        assert collection.load(index={"tens": 70})["ssh"].values.tolist() == [700, 701, 704, 708]
    collection.create_index("tens", "tens", module.tens, inputs=["ssh"])
    assert collection.load(index={"tens": 70}, unindexed="raise").sizes["time"] == 4


def test_rows_that_come_while_an_index_is_created_are_in_it(
    orbits: izc.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = izc.open_collection(orbits._handle.registry, orbits.name)
    left = before_its_commits(monkeypatch, lambda: other.insert(track([701, 5000])))
    orbits.create_index("hours", "time")
    assert left == []
    at = {"hours": {"time": [BEGIN + 701 * HOUR, BEGIN + 5000 * HOUR]}}
    assert orbits.load(index=at, unindexed="raise")["ssh"].values.tolist() == [701, 5000]


def test_columns_of_one_index_that_are_updated_at_once_are_found_together(
    orbits: izc.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither function sees the other column, and the index has both."""
    other = izc.open_collection(orbits._handle.registry, orbits.name)
    cycles, passes = ("cycle_number",), ("pass_number",)
    left = before_its_commits(
        monkeypatch, lambda: other.update(lambda data: {"cycle_number": data["cycle_number"] + 50}, inputs=cycles)
    )
    orbits.update(lambda data: {"pass_number": data["pass_number"] + 20}, inputs=passes)
    assert left == []
    whole = orbits.load().compute()
    mask = (whole.cycle_number.values >= 60) & (whole.pass_number.values == 21)
    assert mask.any()
    found = orbits.load(index={"cycle_number": (60, None), "pass_number": 21}, unindexed="raise")
    xr.testing.assert_identical(found.compute(), whole.isel(time=mask))


def test_rows_of_a_writer_that_did_not_know_of_the_index_are_known_to_be_unindexed(
    orbits: izc.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, hours = izc.open_collection(orbits._handle.registry, orbits.name), {"hours": {"time": BEGIN + 701 * HOUR}}
    left = before_its_commits(monkeypatch, lambda: other.create_index("hours", "time"))
    orbits.insert(track([701]))
    assert left == []
    with pytest.raises(izc.InvalidInputError, match="index hours knows nothing of 1 part"):
        orbits.load(index=hours, unindexed="raise")
    with pytest.warns(UserWarning, match="index hours is computed now for 1 part"):
        assert orbits.load(index=hours)["ssh"].values.tolist() == [701]
    orbits.create_index("hours", "time")
    assert orbits.load(index=hours, unindexed="raise")["ssh"].values.tolist() == [701]


def odd_alone(data: xr.Dataset) -> Any:
    """A function that has no value for rows of one level."""
    return data["ssh"].values[data["ssh"].values != 701].astype("i8")


def test_a_function_that_does_not_fit_is_told_with_the_partition_and_nothing_is_written(orbits: izc.Collection) -> None:
    orbits.create_index("odd", ["odd"], odd_alone, inputs=["ssh"])
    version = orbits.version.number
    with pytest.raises(
        izc.InvalidInputError, match=r"^year=2022/month=01: index odd of .* has 0 values of odd for 1 rows"
    ):
        orbits.insert(track([701]))
    assert orbits.version.number == version


def test_an_index_that_is_dropped_meanwhile_is_in_nobodys_way(
    orbits: izc.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = izc.open_collection(orbits._handle.registry, orbits.name)
    left = before_its_commits(monkeypatch, lambda: other.drop_index("stations"))
    orbits.insert(track([701]))
    assert left == []
    assert [each.name for each in orbits.indexes()] == ["half_orbit", "extremes"]
    entries = "SELECT count(*) FROM index_entry WHERE layer_id = -3 AND axis_min = "
    at = int((BEGIN + 701 * HOUR).astype("i8"))
    assert run_sql(orbits._handle.registry, f"{entries}{at}") == [(0,)]
    assert orbits.load(index={"cycle_number": 8, "pass_number": 7}, unindexed="raise")["ssh"].values.tolist()[-1] == 701


# Views


def test_a_view_looks_up_what_its_base_has_indexed(orbits: izc.Collection, tmp_path: Path) -> None:
    registry = orbits._handle.registry
    view = izc.create_view(
        registry, "made/view", orbits, location=f"{tmp_path}/view", variables={"height": "ssh"}, filters="month > 1"
    )
    view.update(lambda data: {"double": data["height"] * 2}, outputs=[izc.Variable("double", "f8", ("time",))])
    over = izc.create_view(registry, "made/over", view, location=f"{tmp_path}/over", filters="month < 3")
    whole = orbits.load().compute()
    brest = whole.isel(time=whole.station.values == "brest")
    found = view.load(index={"station": "brest"}).compute()
    np.testing.assert_array_equal(found["double"], brest.sel(time=slice("2022-02", None)).ssh * 2)
    np.testing.assert_array_equal(over.load(index={"station": "brest"})["height"], brest.sel(time="2022-02").ssh)
    orbits.drop_rows(where={"time": ("2022-02-01", "2022-02-10")})
    orbits.insert(track(ODD[ODD > 31 * 24], 500), merge="upsert")
    with pytest.warns(UserWarning, match="index stations is computed now"):  # of February, which is read as it was
        xr.testing.assert_equal(view.load(index={"station": "brest"}).compute(), found)
    now = view.load(index={"station": "brest"}, stale="fill", unindexed="raise")
    expected = orbits.load(index={"station": "brest"}, filters="month > 1")
    np.testing.assert_array_equal(now["height"], expected["ssh"])
    assert [each.name for each in over.indexes()] == [each.name for each in orbits.indexes()]
    assert view.index("stations").table().equals(orbits.index("stations").table())
    with pytest.raises(izc.ReadOnlyError, match="create it on the collection that it is over"):
        view.create_index("heights", "height")


# What is refused


def of_rows(data: xr.Dataset) -> Any:
    return data["ssh"].values


REFUSED: dict[str, tuple[Callable[[izc.Collection], Any], str]] = {
    "floats": (lambda each: each.create_index("i", "ssh"), "ssh .* float64, .* floats are equal by chance.*where="),
    "floats of a function": (lambda each: each.create_index("i", "x", of_rows), "x .* float64"),
    "a function without a name": (lambda each: each.create_index("i", "x", lambda d: d.ssh), "define it in a module"),
    "too few columns": (lambda each: each.create_index("i", "x", extremes), "has no x: its function has to return"),
    "other columns": (lambda each: each.create_index("ice", "station"), "computed in another way"),
    "an unknown column": (lambda each: each.load(index={"port": 1}), "index=port: no index .* it has half_orbit by"),
    "another kind": (lambda each: each.load(index={"ice": "yes"}), r"index=\{'ice': 'yes'\}: .* integers"),
    "a tuple of three": (lambda each: each.load(index={"pass_number": (1, 2, 3)}), "write a list"),
    "a range backwards": (lambda each: each.load(index={"pass_number": (3, 1)}), "above the high one"),
    "conditions on text": (lambda each: each.load(index={"stations": "station == 1"}), "station"),
    "nothing": (lambda each: each.load(index={}), r"write \{column: value\}"),
    "another choice": (lambda each: each.load(index={"ice": 1}, unindexed="skip"), "not one of 'compute', 'raise'"),  # type: ignore[arg-type]  # it is wrong
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.one_engine("sqlite", "nothing is asked of it")
def test_what_is_no_index_or_not_looked_up_so_is_refused(refusing: izc.Collection, what: str) -> None:
    call, match = REFUSED[what]
    with pytest.raises((izc.InvalidInputError, izc.AlreadyExistsError), match=match):
        call(refusing)


@pytest.fixture(scope="module")
def refusing(new_registry: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A few rows and some indexes; tests change nothing."""
    with new_registry() as registry:
        collection = izc.create_collection(
            registry,
            "made/orbits",
            track(ALL),
            axis="time",
            partitioning=izc.Date("time", "M"),
            location=f"{tmp_path_factory.mktemp('data')}/orbits",
        )
        collection.insert(track([1, 2, 3]))
        collection.create_index("half_orbit", ("cycle_number", "pass_number"))
        collection.create_index("stations", "station")
        collection.create_index("ice", "ice")
        yield collection


@pytest.mark.parametrize(("text", "why"), [("a\0b", "has a NUL"), ("é" * 1001, "has 2002 bytes, and 2000 is the most")])
def test_text_that_no_database_can_look_up_is_refused_by_name(orbits: izc.Collection, text: str, why: str) -> None:
    odd = track([701]).assign(station=("time", np.array([text], object)))
    with pytest.raises(izc.InvalidInputError, match=f"index stations of .* has a value of station .* it {why}"):
        orbits.insert(odd)
    with pytest.raises(izc.InvalidInputError, match=why):
        orbits.load(index={"station": text})
    orbits.insert(odd.assign(station=("time", np.array(["é" * 1000], object))))
    assert orbits.load(index={"station": ["é" * 1000]})["ssh"].values.tolist() == [701]
    orbits.drop_index("stations")
    assert orbits.insert(odd.assign_coords(time=odd.time + HOUR * 2)).operation == "insert"
