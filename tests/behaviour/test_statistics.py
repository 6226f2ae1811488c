"""Rows by their values: bounds on any variable give what numpy would, and read what statistics do not rule out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
from intake_zcollection.reading import bounds, crop
from tests.conftest import Store
from tests.counting import READS, counted_location, requests_to
from tests.racing import before_its_commits
from tests.s3 import S3Server

Make = Callable[..., izc.Collection]

DAYS, HOURS = 12, 24

PLACES = ("latitude", "longitude")

BEGIN = np.datetime64("2022-01-01", "ns")


def track(days: int = DAYS, first: int = 0, **more: Any) -> xr.Dataset:
    """What a satellite sees: longitudes of an hour each, and days that are 30 degrees apart; a gap at noon."""
    hours = np.arange(first * HOURS, (first + days) * HOURS)
    latitude, longitude = 80 * np.sin(hours / 29), (30.0 * (hours // HOURS) + hours % HOURS) % 360
    latitude[hours % HOURS == 12] = longitude[hours % HOURS == 12] = np.nan
    packing = {"dtype": "int16", "scale_factor": 0.25, "_FillValue": -32768}
    return xr.Dataset(
        {"ssh": ("time", hours.astype("f8")), "cycle": ("time", (hours // 50).astype("i4")), **more},
        {
            "time": BEGIN + hours * np.timedelta64(1, "h"),
            "latitude": ("time", np.round(latitude * 4) / 4, {"units": "degrees_north"}, packing),
            "longitude": ("time", longitude.astype("f4"), {"units": "degrees_east"}),
        },
    )


def create(registry: izc.Registry, location: str, template: xr.Dataset, **options: Any) -> izc.Collection:
    defaults: dict[str, Any] = {"axis": "time", "partitioning": izc.Date("time", "D"), "statistics": PLACES}
    return izc.create_collection(registry, "made/track", template, location=location, **(defaults | options))


@pytest.fixture
def tracks(registry: izc.Registry, tmp_path: Path) -> izc.Collection:
    """Twelve days, of which the statistics of the places are kept."""
    collection = create(registry, f"{tmp_path}/track", track())
    collection.insert(track())
    return collection


@pytest.fixture
def _told_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process has said of other tests' collections is forgotten."""
    monkeypatch.setattr(bounds, "_told", set())


unknown = pytest.mark.filterwarnings("ignore:no statistics are kept:UserWarning")


def inside(data: xr.Dataset, where: dict[str, Any]) -> xr.Dataset:
    """The rows that numpy finds; longitudes go round."""
    keep = np.ones(data.sizes["time"], bool)
    for name, (low, high) in where.items():
        values = data[name].values
        if name == "longitude":
            values, low, high = (values.astype("f8") - low) % 360, 0, (high - low) % 360
        keep &= (values >= low) & (values <= high)
    return data.isel(time=keep)


def days_of(collection: izc.Collection, **selection: Any) -> list[int]:
    return [each.key[2][1] for each in collection.partitions(**selection)]


MED = {"latitude": (30, 46), "longitude": (350, 10)}


BOXES: tuple[dict[str, Any], ...] = (
    MED,
    {"latitude": (30, 46), "longitude": (-10, 10)},
    {"longitude": (80, -170)},
    {"latitude": (-90, -79.75)},
    {"latitude": (79, 80), "longitude": (90, 91)},
    {"latitude": (30, 30.001)},
)


def test_rows_in_a_box_are_those_that_numpy_finds(tracks: izc.Collection) -> None:
    for where in BOXES:
        expected = inside(track(), where).compute()
        for chunks in ("auto", "partition", None):
            xr.testing.assert_identical(tracks.load(where=where, chunks=chunks).compute(), expected)
        both = tracks.load(where={**where, "time": ("2022-01-03T10", None)}, variables=["ssh"])
        late = expected.sel(time=slice("2022-01-03T10", None))
        xr.testing.assert_identical(both.compute(), late[["ssh"]].drop_vars(PLACES))
        chosen = days_of(tracks, where=where)
        assert {each.astype("M8[D]").item().day for each in expected.time.values} <= {*chosen}
        assert len(chosen) < DAYS
        assert tracks.load(where=where, crop=False).sizes["time"] == HOURS * len(chosen)


def test_rows_in_a_box_are_found_on_every_store(store: Store, registry: izc.Registry) -> None:
    location, options = store.location("a"), {"storage_options": store.storage_options}
    collection = create(registry, location, track(2), statistics=["longitude"], **options)
    collection.insert(track(2))
    version = collection.add_statistics(["latitude"])
    assert version.number == 2
    loaded = collection.load(where={"latitude": (60, 70), "longitude": (-330, 60)})
    xr.testing.assert_identical(loaded.compute(), inside(track(2), {"latitude": (60, 70), "longitude": (30, 60)}))


@pytest.mark.one_engine("sqlite", "requests to stores are counted")
def test_only_partitions_that_may_match_are_asked_for_what_decides_and_the_axis_of_those_that_are_cut(
    registry: izc.Registry, s3: S3Server
) -> None:
    collection = create(registry, s3.fresh_url(), track(), storage_options=s3.storage_options)
    collection.insert(track())
    first, *_, last = collection.partitions(where={"longitude": (350, 10)})
    assert [str(each).rpartition("=")[2] for each in (first, last)] == ["01", "12"]
    with s3.traffic(collection.location) as traffic:
        dataset = collection.load(where={"longitude": (350, 10)})
    asked = sorted(f"{each.fragments[name][0]}/{name}/c.0" for each in (first, last) for name in ("longitude", "time"))
    assert traffic.keys("GET") == [key for key in asked if key in traffic.keys("GET")]
    assert len(traffic.requests) <= len(asked)
    assert dataset.sizes["time"] == inside(track(), {"longitude": (350, 10)}).sizes["time"]
    with s3.traffic(collection.location) as traffic:
        collection.load(where=MED, crop=False), collection.partitions(where=MED)
    assert traffic.requests == []


def test_whole_partitions_are_mapped_and_updated_that_may_have_such_values(tracks: izc.Collection) -> None:
    chosen = days_of(tracks, where=MED)
    assert 0 < len(chosen) < DAYS
    assert [key[2][1] for key in tracks.map(lambda data: data.sizes["time"], where=MED)] == chosen
    version = tracks.update(lambda data: {"ssh": data.ssh + 1}, where=MED, outputs=["ssh"])
    assert version.summary["updated"] == len(chosen)


def test_rows_that_go_round_are_dropped_and_of_other_partitions_nothing_is_read(registry: izc.Registry) -> None:
    with counted_location() as location:
        collection = create(registry, location, track())
        collection.insert(track())
        far = [each.fragments["time"][0] for each in collection.partitions() if each.key[2][1] not in (1, 12)]
        with requests_to(location) as requests:
            version = collection.drop_rows(where={"longitude": (350, 10)})
        assert not [path for kind, path in requests if kind in READS and any(each in path for each in far)]
        left = collection.load().compute()
    gone = inside(track(), {"longitude": (350, 10)})
    assert version.summary["rows_removed"] == gone.sizes["time"]
    xr.testing.assert_identical(left, track().drop_sel(time=gone.time).compute())


@pytest.mark.parametrize("zarr_format", [3, 2])
def test_integers_times_packed_and_many_valued_variables_are_bounded(make_collection: Make, zarr_format: int) -> None:
    data = track(
        big=("time", (2**63 + np.arange(DAYS * HOURS, dtype="u8"))),
        seen=("time", track().time.values + np.timedelta64(90, "D")),
        profile=(("x", "time"), np.stack([np.arange(DAYS * HOURS), np.arange(DAYS * HOURS) + 100]).astype("f4")),
    )
    data.seen[3] = np.datetime64("NaT", "ns")
    names = (*PLACES, "cycle", "big", "seen", "profile")
    template = data.isel(time=slice(0))
    options = {"statistics": names, "zarr_format": zarr_format, "partitioning": izc.Date("time", "D")}
    collection = make_collection(template, **options)
    collection.insert(data)
    loaded = collection.load().compute()
    for where, expected in {
        ("cycle", 1.5, 3.5): (loaded.cycle >= 2) & (loaded.cycle <= 3),
        ("big", 2**63 + 30, None): loaded.big.values >= np.uint64(2**63 + 30),
        ("big", None, 2**63 - 1): np.zeros(loaded.sizes["time"], bool),
        ("seen", "2022-04", "2022-04-03"): (loaded.seen >= BEGIN + np.timedelta64(90, "D")).values
        & (loaded.seen < np.datetime64("2022-04-04")).values,
        ("profile", 140, 150): ((loaded.profile >= 140) & (loaded.profile <= 150)).any("x"),
        ("latitude", -3.25, 12.5): (loaded.latitude >= -3.25) & (loaded.latitude <= 12.5),
    }.items():
        name, low, high = where
        found = collection.load(where={name: (low, high)}).compute()
        xr.testing.assert_identical(found, loaded.isel(time=np.asarray(expected)))
    assert len(days_of(collection, where={"cycle": (1.5, 3.5)})) == 5
    assert len(days_of(collection, where={"profile": (0, 5)})) == 1
    assert len(days_of(collection, where={"seen": ("2022-04-12", None)})) == 1


# What is there already, and what comes


def test_statistics_are_added_of_what_is_there_in_one_version_and_kept_of_what_comes(
    registry: izc.Registry, tmp_path: Path
) -> None:
    collection = create(registry, f"{tmp_path}/track", track(), statistics=())
    collection.insert(track(6))
    collection.drop_rows(where={"time": ("2022-01-02T05", "2022-01-02T07")})
    collection.update(lambda data: {"longitude": data.longitude}, outputs=["longitude"], filters="day == 3")
    version = collection.add_statistics(PLACES)
    assert (version.operation, version.message, version.number) == ("add_statistics", "latitude, longitude", 4)
    assert collection.add_statistics("latitude") == collection.version == version
    east = {"longitude": (60, 70)}
    assert days_of(collection, where=east) == [3]
    collection.insert(track(6, 6))
    assert days_of(collection, where={"longitude": (60, 95)}) == [3, 4]
    assert days_of(collection, where={"longitude": (330, 340)}) == [12]
    dropped = collection.drop_rows(where={"time": ("2022-01-08T05", "2022-01-08T07")})
    assert collection.add_statistics(PLACES) == dropped, "what is cut is known by what was whole"
    old = collection.at(version=1)
    assert days_of(old, where=east) == [2, 3], "where rows were dropped since, groups are known in part"
    xr.testing.assert_identical(old.load(where=east).compute(), inside(old.load().compute(), east))


def test_what_another_writer_put_down_meanwhile_is_read_and_completed_by_adding_again(
    registry: izc.Registry, tmp_path: Path
) -> None:
    collection = create(registry, f"{tmp_path}/track", track(), statistics=())
    collection.insert(track(2))
    with pytest.MonkeyPatch.context() as patch:
        before_its_commits(patch, lambda: collection.add_statistics(PLACES))
        collection.insert(track(2, 2))
    east = {"longitude": (30, 40)}
    assert days_of(collection, where=east) == [2, 3, 4]
    xr.testing.assert_identical(collection.load(where=east).compute(), inside(track(4), east).compute())
    assert collection.add_statistics(PLACES).number == 4
    assert days_of(collection, where=east) == [2]


def test_a_rename_meanwhile_is_told_of_and_one_before_changes_nothing(tracks: izc.Collection) -> None:
    tracks.rename_variable("longitude", "east")
    east = {"east": (60, 70)}
    assert days_of(tracks, where=east) == [3]
    tracks.set_attributes({"units": "1"}, "east")
    with pytest.raises(izc.InvalidInputError, match="lower bound first"):
        tracks.load(where={"east": (350, 10)})


def test_rows_from_before_a_variable_read_as_its_fill_value(tracks: izc.Collection) -> None:
    tracks.add_variable(izc.Variable("level", "i4", ("time",), fill_value=5))
    tracks.add_variable(izc.Variable("depth", "f8", ("time",)))
    tracks.add_statistics(["level", "depth"])
    tracks.update(lambda data: {"level": 0 * data.cycle + 7}, outputs=["level"], filters="day == 2")
    assert days_of(tracks, where={"level": (7, 9)}) == [2]
    assert tracks.load(where={"level": (5, 5)}).sizes["time"] == (DAYS - 1) * HOURS
    assert (
        tracks.load(where={"level": (None, 4)}).sizes["time"]
        == tracks.load(where={"depth": (None, 0)}).sizes["time"]
        == 0
    )
    assert days_of(tracks, where={"depth": (None, 0)}) == []


@unknown
def test_a_copy_has_statistics_of_its_own(tracks: izc.Collection, registry: izc.Registry, tmp_path: Path) -> None:
    tracks.drop_variable("ssh")  # the copy numbers its variables anew
    copied = tracks.copy("made/copy", f"{tmp_path}/copy")
    izc.drop_collection(registry, tracks.name)
    assert days_of(copied, where={"longitude": (60, 70)}) == [3]
    xr.testing.assert_identical(copied.load(where=MED).compute(), inside(copied.load().compute(), MED))


# Without statistics


@pytest.mark.usefixtures("_told_anew")
def test_a_variable_without_statistics_is_read_and_that_is_said_once(
    tracks: izc.Collection, registry: izc.Registry
) -> None:
    high = {"ssh": (100, 110)}
    with pytest.warns(UserWarning, match="ssh of collection made/track.*add_statistics"):
        found = tracks.load(where=high)
    xr.testing.assert_identical(found.compute(), inside(track(), high).compute())
    assert len(izc.open_collection(registry, tracks.name).partitions(where=high)) == DAYS, "nothing is said again"


@unknown
def test_what_is_read_need_not_be_in_memory_together(tracks: izc.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crop, "_AT_A_TIME", 7 * 8)  # rows, across parts and partitions
    where = {"ssh": (20, 100), "latitude": (0, 70)}
    xr.testing.assert_identical(tracks.load(where=where).compute(), inside(track(), where).compute())


# Views


@pytest.fixture
def view(tracks: izc.Collection, registry: izc.Registry, tmp_path: Path) -> izc.View:
    """A view with a name of its own for longitudes, and a variable of its own."""
    variables = {"ssh": "ssh", "latitude": "latitude", "east": "longitude"}
    view = izc.create_view(registry, "made/view", tracks, location=f"{tmp_path}/view", variables=variables)
    outputs = [izc.Variable("double", "f8", ("time",))]
    view.update(lambda data: {"double": 2 * data.ssh}, outputs=outputs, inputs=["ssh"])
    return view


@unknown
def test_a_view_leaves_out_what_its_base_knows_to_have_no_such_values(
    view: izc.View, tracks: izc.Collection, registry: izc.Registry, tmp_path: Path
) -> None:
    east = {"east": (350, 10)}
    assert days_of(view, where=east) == [1, 12]
    every = view.load().compute()
    assert (
        view.load(where=east).east.values.tolist()
        == inside(track(), {"longitude": (350, 10)}).longitude.values.tolist()
    )
    own = {"double": (80, 92), "east": (50, 58)}
    expected = inside(every, own)
    assert expected.sizes["time"] == 3
    xr.testing.assert_identical(view.load(where=own).compute(), expected)
    above = izc.create_view(registry, "made/above", view, location=f"{tmp_path}/above")
    assert days_of(above, where=east) == [1, 12]
    xr.testing.assert_identical(above.load(where=own).compute(), expected)
    with pytest.raises(izc.ReadOnlyError, match="its base made/track"):
        view.add_statistics(["double"])


@unknown
def test_a_partition_that_is_read_at_an_older_version_is_chosen_by_what_it_had_then(
    view: izc.View, tracks: izc.Collection
) -> None:
    moved = track(1, 2).assign(ssh=("time", np.zeros(HOURS)))
    moved["longitude"] = moved.longitude.copy(data=np.full(HOURS, 200.5, "f4"))
    tracks.insert(moved, merge="upsert")
    assert days_of(tracks, where={"longitude": (60, 70)}) == []
    assert days_of(view, where={"east": (60, 70)}) == [3], "own values of that day were computed from what it was"
    assert view.load(where={"east": (60, 70)}, stale="fill").sizes["time"] == 0
    assert view.load(where={"east": (200.5, 200.5)}, stale="fill").sizes["time"] == HOURS
    expected = view.load().compute()
    xr.testing.assert_identical(view.load(where={"east": (60, 70)}).compute(), inside(expected, {"east": (60, 70)}))


# Bad input


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["ssh", "latitud"], ("no variable latitud", "latitude")),
        (["time"], ("is the axis", "leave it out")),
        (["good"], ("good", "True and False", "as numbers")),
        (["name"], ("name", "text")),
        (["took"], ("took", "durations")),
        (["x"], ("stored once",)),
        (["rough"], ("rough", "is lossy", "bounds on it work without")),
        ([], ("of which variables",)),
    ],
    ids=str,
)
def test_statistics_of_what_has_none_are_refused_by_name(
    registry: izc.Registry, tmp_path: Path, names: list[str], parts: tuple[str, ...]
) -> None:
    count = DAYS * HOURS
    data = track(
        good=("time", np.ones(count, bool)),
        name=("time", np.array(["a"] * count)),
        took=("time", np.ones(count, "m8[ns]")),
        rough=("time", np.ones(count), {}, {"lossy": True}),
    ).assign_coords(x=("x", [1.0, 2.0]))
    if names:
        with pytest.raises((izc.InvalidInputError, izc.NotFoundError)) as caught:
            create(registry, f"{tmp_path}/track", data, statistics=names)
        assert all(part in str(caught.value) for part in ("made/track", *parts))
    collection = create(registry, f"{tmp_path}/track", data)
    with pytest.raises((izc.InvalidInputError, izc.NotFoundError)) as caught:
        collection.add_statistics(names)
    assert all(part in str(caught.value) for part in ("made/track", *parts))
    assert collection.version.number == 0


@pytest.mark.parametrize("verb", ["load", "partitions", "map", "drop_rows"])
def test_bounds_that_mean_nothing_are_refused_by_each_verb(tracks: izc.Collection, verb: str) -> None:
    arguments = (lambda data: None,) if verb == "map" else ()
    for where, error, part in [
        ({"latitude": (46, 30)}, izc.InvalidInputError, "lower bound first"),
        ({"latitude": ("2022", None)}, izc.InvalidInputError, "not a number"),
        ({"time": ("2022-02", "2022-01")}, izc.InvalidInputError, "lower bound first"),
        ({"longitude": (None, 10)}, izc.InvalidInputError, "give both"),
        ({"longitud": (0, 10)}, izc.NotFoundError, "did you mean longitude"),
    ]:
        with pytest.raises(error, match=part):
            getattr(tracks, verb)(*arguments, where=where)
