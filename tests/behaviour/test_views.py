"""Views: own variables over a base that is shown and never written; creating, reading, writing and dropping."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import intake
import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
from tests.counting import counted_location, requests_to
from tests.racing import before_its_commits
from tests.views import (
    APRIL,
    DOUBLE,
    FEBRUARY,
    JANUARY,
    MARCH,
    SMOOTH,
    WINTER,
    assert_computed,
    create_base,
    days,
    double,
    smooth,
    view_of,
    winter_in,
)


@pytest.fixture
def base(registry: izc.Registry, tmp_path: Path) -> izc.Collection:
    """Three months, in version 1."""
    return winter_in(registry, tmp_path / "base")


@pytest.fixture
def view(base: izc.Collection) -> izc.View:
    """A view with nothing of its own."""
    return view_of(base)


@pytest.fixture
def doubled(view: izc.View) -> izc.View:
    """A view with an own variable that is computed row by row, in version 1."""
    view.update(double, outputs=[DOUBLE], rowwise=True)
    return view


def months(data: xr.Dataset) -> list[int]:
    """The months that a dataset has rows of."""
    return np.unique(data["time"].dt.month).tolist()


# Creating


def test_a_new_view_shows_its_base_and_nothing_else(view: izc.View, base: izc.Collection) -> None:
    xr.testing.assert_identical(view.load().compute(), base.load().compute())
    assert (view.version.number, view.version.operation) == (0, "create")
    assert (view.base.name, view.base_version) == (base.name, 1)
    assert view.base.insert(days("2022-04-01", 1)).number == 2  # it is the collection, at its head
    assert view.base_version == 2


def test_a_view_is_opened_as_one(registry: izc.Registry, view: izc.View) -> None:
    opened = izc.open_collection(registry, view.name)
    assert type(opened) is izc.View
    assert type(opened.at(version=0)) is izc.View
    assert type(opened.base) is izc.Collection
    assert [each.name for each in registry.views_of("made/days")] == ["made/view"]
    assert {each.name: each.kind for each in registry.collections()} == {"made/days": "collection", "made/view": "view"}


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        (None, {"time": "time", "ssh": "ssh", "sst": "sst", "flag": "flag", "x": "x"}),
        (["flag"], {"time": "time", "flag": "flag"}),
        (iter(["sst", "x"]), {"time": "time", "sst": "sst", "x": "x"}),
        ({"ssh_base": "ssh", "sst": "flag"}, {"time": "time", "ssh_base": "ssh", "sst": "flag"}),
        ({"ssh": "ssh", "time": "time"}, {"time": "time", "ssh": "ssh"}),
        ([], {"time": "time"}),
    ],
    ids=["all", "names", "names of an iterator", "other names", "the axis too", "none"],
)
def test_a_view_shows_the_variables_that_it_was_told_by_their_names_here(
    base: izc.Collection, variables: Any, shown: dict[str, str]
) -> None:
    loaded = view_of(base, variables=variables).load().compute()
    assert set(loaded.variables) == set(shown)
    for name, there in shown.items():
        np.testing.assert_array_equal(loaded[name].values, WINTER[there].values)


@pytest.mark.parametrize(
    ("variables", "error", "match"),
    [
        (["shs"], izc.NotFoundError, "made/days has no variable shs.*ssh"),
        ({"shown": "shs"}, izc.NotFoundError, "made/days has no variable shs"),
        ("ssh", izc.InvalidInputError, "'ssh' is not a list of names"),
        ({"one": "ssh", "two": "ssh"}, izc.InvalidInputError, "ssh is shown twice, as one and as two"),
        (["ssh", "ssh"], None, ""),
        ({"when": "time"}, izc.InvalidInputError, "the axis time .* keeps its name"),
        ({"time": "ssh"}, izc.InvalidInputError, "the axis time .* keeps its name"),
        ({"a/b": "ssh"}, izc.InvalidInputError, "a/b"),
        ({"ssh": 3}, izc.NotFoundError, "no variable 3"),
        ([3], izc.InvalidInputError, "variable name 3"),
    ],
    ids=str,
)
def test_variables_that_cannot_be_shown_are_refused_by_name(
    registry: izc.Registry, base: izc.Collection, variables: Any, error: type[Exception] | None, match: str
) -> None:
    if error is None:
        assert set(view_of(base, variables=variables).schema.variables) == {"time", "ssh"}
        return
    with pytest.raises(error, match=match):
        view_of(base, variables=variables)
    assert registry.views_of(base.name) == ()


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ("month >= 2", [2, 3]),
        ({"month": (1, 3)}, [1, 3]),
        ({"year": 2022, "month": {2}}, [2]),
        ({"month": ()}, []),
    ],
    ids=str,
)
def test_a_view_takes_the_partitions_that_its_filter_chooses(
    base: izc.Collection, filters: Any, kept: list[int]
) -> None:
    view = view_of(base, filters=filters)
    assert months(view.load().compute()) == kept
    assert [dict(each.key)["month"] for each in view.partitions()] == kept
    assert months(view.load(filters="month != 3").compute()) == [month for month in kept if month != 3]
    assert months(view.load(where={"time": ("2022-01-20", "2022-02-10")})) == [m for m in kept if m != 3]


@pytest.mark.parametrize(
    "filters",
    [
        lambda key: True,
        JANUARY,
        [JANUARY],
        {"month": "1"},
        {"month": True},
        {"month": ("1",)},
        "month ==",
        "day == 1",
        3,
        {},
        {"day": 1},
    ],
)
def test_a_filter_that_the_registry_cannot_keep_is_refused(
    registry: izc.Registry, base: izc.Collection, filters: Any
) -> None:
    with pytest.raises(izc.InvalidInputError, match=r"filter|key"):
        view_of(base, filters=filters)
    assert registry.views_of(base.name) == ()


def test_a_view_may_be_over_a_version_of_its_base_and_stays_there(base: izc.Collection) -> None:
    version = base.version
    base.insert(days("2022-04-01", 3))
    pinned, following = view_of(base, "made/pinned", pinned_version=version), view_of(base, "made/following")
    of_old = view_of(base.at(version=1), "made/of_old")
    base.insert(days("2022-04-02", 1, level=100.0))
    assert (pinned.base_version, of_old.base_version, following.base_version) == (1, 1, 3)
    for view in (pinned, of_old):
        xr.testing.assert_identical(view.load().compute(), base.at(version=1).load().compute())
    xr.testing.assert_identical(following.load().compute(), base.load().compute())
    with pytest.raises(izc.NotFoundError, match="made/days has no version 9"):
        view_of(base, pinned_version=9)


def test_a_base_is_given_by_its_name_or_as_an_object(registry: izc.Registry, base: izc.Collection) -> None:
    bases: tuple[izc.Collection | str, ...] = base.name, base
    for number, given in enumerate(bases):
        for where in (registry, registry.url):
            name = f"made/v{number}_{len(registry.collections())}"
            view = izc.create_view(where, name, given, location=f"{base.location}_{name[5:]}")
            assert view.load().sizes["time"] == 90


def test_a_base_that_is_not_there_or_elsewhere_is_refused_by_its_name(
    registry: izc.Registry, base: izc.Collection, tmp_path: Path
) -> None:
    with pytest.raises(izc.NotFoundError, match="made/day"):
        izc.create_view(registry, "made/view", "made/day", location=f"{tmp_path}/view")
    with (
        izc.connect(f"sqlite:///{tmp_path}/other.db", create=True) as other,
        pytest.raises(
            izc.InvalidInputError, match=r"base made/days of view made/view is in the registry at .*other.db"
        ),
    ):
        izc.create_view(other, "made/view", base, location=f"{tmp_path}/view")


def test_a_name_or_a_location_that_is_taken_is_refused(base: izc.Collection, view: izc.View) -> None:
    with pytest.raises(izc.AlreadyExistsError, match="made/view"):
        view_of(base, location=f"{base.location}_other")
    with pytest.raises(izc.AlreadyExistsError, match="made/days"):
        view_of(base, "made/days", location=f"{base.location}_other")
    for taken in (base.location, f"{base.location}/below", view.location):
        with pytest.raises(izc.AlreadyExistsError, match=r"location|belongs"):
            view_of(base, "made/other", location=taken)


def test_what_a_view_says_of_itself_names_its_base_and_how_it_is_computed(doubled: izc.View) -> None:
    for told in (repr(doubled), doubled._repr_html_()):
        for what in ("View", "made/view", "made/days, version 1", "by tests.views:double row by row", "90 rows"):
            assert what in told
        assert "pinned" not in told
    doubled.sync(pinned_version=1)
    assert "made/days, version 1, pinned" in repr(doubled)


def test_description_and_metadata_of_a_view_are_kept(registry: izc.Registry, base: izc.Collection) -> None:
    view_of(base, description="heights, doubled", metadata={"team": "levels"}, author="ada", message="a try")
    record = registry.collection("made/view")
    assert (record.description, record.metadata) == ("heights, doubled", {"team": "levels"})
    (version,) = registry.versions("made/view")
    assert (version.author, version.message) == ("ada", "a try")


def test_intake_opens_a_view_by_the_same_words(registry: izc.Registry, doubled: izc.View, tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(
        f"sources:\n  winter:\n    driver: zcollection\n    args: {{registry: '{registry.url}', collection: made/view}}"
    )
    for source in (
        intake.open_zcollection(registry.url, doubled.name),
        intake.open_catalog(f"{tmp_path}/catalog.yaml").winter,
    ):
        assert_computed(source.read(), "double")
    assert_computed(izc.open_dataset(registry, doubled.name).compute(), "double")


# Reading


def test_opening_and_loading_a_view_lazily_reads_no_storage(registry: izc.Registry) -> None:
    every_chunks: tuple[Any, ...] = "auto", "partition", {}, None
    with counted_location() as place:
        base = create_base(registry, f"{place}/base")
        base.insert(WINTER)
        view_of(base, location=f"{place}/view").update(double, outputs=[DOUBLE], rowwise=True)
        base.insert(days("2022-02-10", 1, level=100.0))
        with requests_to(place) as requests:
            view = izc.open_collection(registry, "made/view")
            assert isinstance(view, izc.View)
            for stale in ("last", "fill", "skip"):
                for chunks in every_chunks:
                    repr(view.load(stale=stale, chunks=chunks))
            view.stale(), view.is_synced(), view.sync(dry_run=True), view.partitions(), view.versions(), view.diff(0)
            view.at(version=0).load(), repr(view), view.load(where={"time": ("2022-02", None)})
        assert requests == []
        with requests_to(place) as requests:
            view.load(variables=["double"], filters="month == 1").double.data.compute()
        assert requests
        assert not any(path.startswith("base/") for _, path in requests), "what is the base's was not asked for"


@pytest.mark.parametrize("chunks", ["auto", "partition", {}, {"time": 7}, None], ids=str)
def test_own_and_shown_values_do_not_depend_on_the_chunks(doubled: izc.View, chunks: Any) -> None:
    doubled.base.insert(days("2022-02-10", 2, level=100.0))
    doubled.base.insert(days("2022-03-28", 9))
    doubled.sync()
    loaded = doubled.load(chunks=chunks).compute()
    assert_computed(loaded, "double")
    np.testing.assert_array_equal(loaded.ssh.values, doubled.base.load().ssh.values)


def test_a_crop_takes_own_values_with_their_rows(doubled: izc.View) -> None:
    doubled.base.insert(days("2022-02-10", 1, level=100.0))
    doubled.sync()
    loaded = doubled.load(where={"time": ("2022-01-30", "2022-02-10")}).compute()
    assert loaded.sizes["time"] == 12
    assert_computed(loaded, "double")
    whole = doubled.load(where={"time": ("2022-01-30", "2022-02-10")}, crop=False).compute()
    assert whole.sizes["time"] == 59
    assert_computed(doubled.load().sel(time="2022-02-10").compute().expand_dims("time"), "double")


def test_variables_are_chosen_and_unknown_ones_refused(doubled: izc.View) -> None:
    assert set(doubled.load(variables=["double"]).variables) == {"time", "double"}
    assert set(doubled.load(variables="ssh").variables) == {"time", "ssh"}
    with pytest.raises(izc.NotFoundError, match=r"made/view has no variable doubl .*double"):
        doubled.load(variables=["doubl"])


def test_map_and_map_overlap_see_own_variables_beside_shown_ones(doubled: izc.View) -> None:
    def differs(data: xr.Dataset) -> float:
        return float(abs(data["double"] - 2 * data["ssh"]).max())

    assert doubled.map(differs) == {JANUARY: 0.0, FEBRUARY: 0.0, MARCH: 0.0}
    assert doubled.map_overlap(lambda data: data.sizes["time"], depth=1) == {JANUARY: 59, FEBRUARY: 90, MARCH: 59}
    assert doubled.map(lambda data: set(data.variables), inputs=["double"], filters="month == 1") == {
        JANUARY: {"time", "double"}
    }


def test_partitions_of_a_view_are_its_bases_with_what_is_its_own(doubled: izc.View) -> None:
    january = doubled.partitions()[0]
    of_base = doubled.base.partitions()[0]
    assert (january.key, january.rows, january.bounds) == (JANUARY, 31, of_base.bounds)
    assert january.fragments["ssh"] == of_base.fragments["ssh"]
    (path,) = january.fragments["double"]
    assert (Path(doubled.location) / path / "double").is_dir()


def test_validate_reads_what_is_the_views_own(doubled: izc.View) -> None:
    assert doubled.validate().ok
    (path,) = doubled.partitions()[1].fragments["double"]
    for chunk in (Path(doubled.location) / path / "double").glob("c*"):
        chunk.unlink() if chunk.is_file() else chunk.rename(f"{chunk}_gone")
    report = doubled.validate()
    assert {(each.variable, each.partition) for each in report.problems} == {("double", "year=2022/month=02")}


def test_a_view_and_what_is_loaded_of_it_can_be_sent_to_other_processes(doubled: izc.View) -> None:
    again = pickle.loads(pickle.dumps(doubled))
    assert type(again) is izc.View
    assert_computed(pickle.loads(pickle.dumps(again.load(chunks="partition"))).compute(), "double")


def test_a_copy_as_a_view_has_the_same_base_and_definitions_and_computes_for_itself(doubled: izc.View) -> None:
    doubled.rename_variable("flag", "quality")
    copy = doubled.copy("made/copy", f"{doubled.location}_copy", as_view=True, filters={"month": (2, 3)})
    assert isinstance(copy, izc.View)
    assert copy.base.name == "made/days"
    assert set(copy.schema.variables) == set(doubled.schema.variables)
    assert {key: each.reason for key, each in copy.stale().items()} == {FEBRUARY: "new", MARCH: "new"}
    copy.sync()
    loaded = copy.load(stale="raise").compute()
    assert_computed(loaded, "double")
    assert months(loaded) == [2, 3]
    copy.drop_variable("double")
    assert_computed(doubled.load().compute(), "double")


def test_a_copy_of_a_view_that_is_behind_has_what_a_load_shows(doubled: izc.View) -> None:
    before = doubled.load().compute()
    doubled.base.insert(days("2022-02-10", 1, level=100.0))
    for number, view in enumerate((doubled, doubled.at(version=1))):
        copy = view.copy(f"made/copy{number}", f"{doubled.location}_copy{number}")
        xr.testing.assert_identical(copy.load().compute(), before)


@pytest.mark.parametrize("filters", [None, "month == 2"])
def test_a_copy_of_a_view_is_a_collection_of_what_it_shows(
    registry: izc.Registry, base: izc.Collection, filters: str | None
) -> None:
    view = view_of(base, variables={"ssh": "ssh", "sea": "sst"})
    view.update(double, outputs=[DOUBLE], rowwise=True)
    copy = view.copy("made/copy", f"{base.location}_copy", filters=filters)
    assert type(copy) is type(izc.open_collection(registry, "made/copy")) is izc.Collection
    xr.testing.assert_identical(copy.load().compute(), view.load(filters=filters).compute())
    copy.insert(copy.load().compute().isel(time=[0]), merge="upsert")
    assert registry.views_of("made/copy") == ()
    copy.add_variable(izc.Variable("more", "f8", ("time",)))
    copy.update(lambda data: {"more": data.double + 1})
    assert (copy.load().more == copy.load().double + 1).all()


def test_versions_of_a_view_are_its_own_and_its_diff_tells_of_own_variables(doubled: izc.View) -> None:
    assert [(each.number, each.operation) for each in doubled.versions()] == [(0, "create"), (1, "update")]
    assert {"updated": 3, "rows": 90}.items() <= doubled.version.summary.items()
    changes = doubled.diff(0, 1)
    assert {key: (each.changed, each.variables) for key, each in changes.items()} == {
        JANUARY: (31, ("double",)),
        FEBRUARY: (28, ("double",)),
        MARCH: (31, ("double",)),
    }
    assert changes.variables == {"double": "added"}
    assert_computed(changes.load().compute(), "double")


def test_changes_of_a_view_tell_what_changed_in_its_base(doubled: izc.View) -> None:
    doubled.base.insert(days("2022-02-10", 2, level=100.0))
    doubled.base.insert(days("2022-04-01", 1))
    doubled.base.drop_partitions(filters="month == 1")
    changes = doubled.changes_since(1)
    assert {key: (each.kind, each.added, each.changed, each.removed) for key, each in changes.items()} == {
        JANUARY: ("removed", 0, 0, 31),
        FEBRUARY: ("changed", 0, 2, 0),
        APRIL: ("added", 1, 0, 0),
    }


def test_an_older_version_of_a_view_is_over_the_base_as_it_was_then(doubled: izc.View) -> None:
    before = doubled.load().compute()
    doubled.base.insert(days("2022-02-10", 2, level=100.0))
    doubled.base.drop_partitions(filters="month == 3")
    doubled.sync()
    old = doubled.at(version=1)
    assert (old.base_version, doubled.base_version) == (1, 3)
    xr.testing.assert_identical(old.load().compute(), before)
    assert_computed(doubled.load().compute(), "double")
    with pytest.raises(izc.ReadOnlyError, match="made/view is open at version 1"):
        old.sync()
    with pytest.raises(izc.NotFoundError, match="made/view has no version 7"):
        doubled.at(version=7)


OWN: dict[str, tuple[izc.Variable, Callable[[xr.Dataset], Any]]] = {
    "text": (izc.Variable("own", "U3", ("time",), fill_value="?"), lambda d: np.where(d.ssh > 40, "yes", "no")),
    "integers": (izc.Variable("own", "i4", ("time",), fill_value=-1), lambda d: d.ssh.values.astype("i4") * 2),
    "two dimensions": (izc.Variable("own", "f4", ("time", "x")), lambda d: (d.sst * 2).astype("f4").values),
    "bools": (izc.Variable("own", "?", ("time",), fill_value=False), lambda d: d.ssh.values > 40),
    "times": (izc.Variable("own", "M8[ns]", ("time",)), lambda d: d.time.values + np.timedelta64(1, "h")),
}


@pytest.mark.parametrize("kind", OWN)
def test_own_variables_of_all_kinds_come_back_and_are_missing_where_rows_came(base: izc.Collection, kind: str) -> None:
    variable, compute = OWN[kind]
    view = view_of(base)
    view.update(lambda data: {"own": compute(data)}, outputs=[variable], rowwise=True)
    base.insert(days("2022-04-01", 2))
    loaded = view.load().compute()
    np.testing.assert_array_equal(loaded.own.values[:90], compute(loaded.isel(time=slice(90))))
    missing = loaded.own.values[90:]
    expected = {"text": ["?", "?"], "integers": [-1, -1], "bools": [False, False]}.get(kind)
    if expected is not None and missing.dtype.kind != "f":
        assert missing.tolist() == expected
    else:
        assert bool(np.all(np.isnat(missing) if missing.dtype.kind == "M" else np.isnan(missing)))


# Writing


def test_only_own_variables_are_stored_at_the_views_location(doubled: izc.View) -> None:
    arrays = {path.parent.name for path in Path(doubled.location).rglob("*/zarr.json")}
    assert "double" in arrays
    assert not arrays & {"ssh", "sst", "flag", "time", "x"}


def test_inputs_are_what_the_function_sees(base: izc.Collection) -> None:
    view = view_of(base, variables={"height": "ssh", "flag": "flag"})
    seen = []

    def note(data: xr.Dataset) -> dict[str, Any]:
        seen.append(set(data.variables))
        return {"double": data["height"] * 2}

    view.update(note, outputs=[DOUBLE], inputs=["height"])
    view.update(note, outputs=["double"])  # what is its own is not seen
    assert [each for each in seen if each != {"time", "height"}] == [{"time", "height", "flag"}] * 3


def test_over_a_base_without_rows_a_function_is_recorded_and_a_sync_computes_what_comes(
    registry: izc.Registry, tmp_path: Path
) -> None:
    base = create_base(registry, tmp_path / "base")
    view = view_of(base)
    assert view.update(lambda data: {"double": data.ssh}, outputs=[DOUBLE]).number == 0  # there is nothing to do
    assert view.update(double, outputs=[DOUBLE], rowwise=True).operation == "define"
    base.insert(WINTER)
    view.sync()
    assert_computed(view.load(stale="raise").compute(), "double")


def test_outputs_that_are_not_told_are_found_by_what_the_function_returns(view: izc.View) -> None:
    view.add_variable(DOUBLE)
    view.update(double, rowwise=True)
    assert_computed(view.load().compute(), "double")
    assert view.is_synced()


def test_the_rows_that_filters_and_bounds_choose_are_computed_by_partitions(view: izc.View) -> None:
    view.update(double, outputs=[DOUBLE], filters="month == 1")
    assert np.isfinite(view.load().double.values).sum() == 31
    view.update(double, outputs=["double"], where={"time": ("2022-02-10", "2022-02-11")})
    assert np.isfinite(view.load(stale="fill").double.values).sum() == 59
    assert list(view.stale()) == [MARCH]


def test_own_variables_are_stored_in_the_format_of_the_base(registry: izc.Registry, tmp_path: Path) -> None:
    base = create_base(registry, tmp_path / "base", zarr_format=2)
    base.insert(WINTER)
    view = view_of(base)
    view.update(lambda data: data.assign(double=data["ssh"] * 2), outputs=[DOUBLE], rowwise=True)
    assert list(Path(view.location).rglob("double/.zarray"))
    assert_computed(view.load().compute(), "double")
    assert view.validate().ok


def test_neighbours_are_seen_within_a_depth(view: izc.View) -> None:
    view.update(smooth, outputs=[SMOOTH], depth=1)
    assert_computed(view.load().compute(), "smooth")
    view.update(lambda data: {"smooth": data.ssh * 0}, outputs=["smooth"])
    assert not view.load().smooth.values.any()


def test_without_trim_the_function_returns_its_own_rows(view: izc.View) -> None:
    def own(data: xr.Dataset, partition_info: Any) -> dict[str, Any]:
        return {"double": data["ssh"].values[partition_info[1]] * 2}

    view.update(own, outputs=[DOUBLE], depth=1, trim=False)
    assert_computed(view.load().compute(), "double")


def test_labels_of_the_base_place_what_a_function_returns(view: izc.View) -> None:
    view.update(lambda data: {"double": (data.ssh * 2).sortby("time", ascending=False)}, outputs=[DOUBLE])
    assert_computed(view.load().compute(), "double")
    wide = izc.Variable("wide", "f8", ("time", "x"))
    view.update(lambda data: {"wide": data.sst.sel(x=[2, 1])}, outputs=[wide])
    np.testing.assert_array_equal(view.load().wide.values, WINTER.sst.values)


def test_a_base_variable_is_modified_by_an_own_one_of_its_name(base: izc.Collection) -> None:
    view = view_of(base, variables={"ssh_base": "ssh", "flag": "flag"})
    view.update(lambda data: {"ssh": data.ssh_base - 1}, outputs=[izc.Variable("ssh", "f8", ("time",))])
    loaded = view.load().compute()
    np.testing.assert_array_equal(loaded.ssh_base.values, WINTER.ssh.values)
    np.testing.assert_array_equal(loaded.ssh.values, WINTER.ssh.values - 1)
    np.testing.assert_array_equal(base.load().ssh.values, WINTER.ssh.values)


def test_a_shown_variable_gives_way_to_an_own_one_by_a_rename(view: izc.View) -> None:
    with pytest.raises(izc.InvalidInputError, match=r"ssh of view made/view is its base's.*rename_variable\('ssh'"):
        view.update(lambda data: {"ssh": data.ssh}, outputs=["ssh"])
    with pytest.raises(izc.AlreadyExistsError, match="made/view has a variable ssh already"):
        view.add_variable(izc.Variable("ssh", "f8", ("time",)))
    view.rename_variable("ssh", "ssh_base")
    view.update(lambda data: {"ssh": data.ssh_base + 5}, outputs=[izc.Variable("ssh", "f8", ("time",))])
    loaded = view.load().compute()
    np.testing.assert_array_equal(loaded.ssh.values, loaded.ssh_base.values + 5)
    assert set(view.at(version=0).load().variables) == set(WINTER.variables)


def test_own_variables_are_added_renamed_and_dropped(doubled: izc.View) -> None:
    doubled.rename_variable("double", "twice")
    loaded = doubled.load().compute()
    np.testing.assert_array_equal(loaded.twice.values, WINTER.ssh.values * 2)
    doubled.add_variable(izc.Variable("more", "f4", ("time", "x"), {"units": "m"}))
    assert np.isnan(doubled.load().more.values).all()
    assert doubled.load().more.attrs["units"] == "m"
    doubled.drop_variable("twice")
    assert "twice" not in doubled.load()
    assert "double" in doubled.at(version=1).load()
    assert [each.operation for each in doubled.versions()][2:] == ["rename_variable", "add_variable", "drop_variable"]


def test_shown_variables_are_renamed_and_dropped_here_and_stay_in_the_base(doubled: izc.View) -> None:
    doubled.rename_variable("flag", "quality")
    doubled.drop_variable("sst")
    assert set(doubled.load().variables) == {"time", "ssh", "quality", "x", "double"}
    assert set(doubled.base.load().variables) == set(WINTER.variables)
    doubled.base.drop_variable("sst")  # nobody needs it now
    assert_computed(doubled.load().compute(), "double")


def test_a_variable_that_is_renamed_in_the_base_keeps_its_name_in_views(doubled: izc.View) -> None:
    doubled.base.rename_variable("ssh", "height")
    assert_computed(doubled.load().compute(), "double")
    assert doubled.is_synced()
    doubled.base.insert(days("2022-04-01", 1).rename(ssh="height"))
    doubled.sync()
    assert_computed(doubled.load().compute(), "double")


def test_a_variable_that_comes_to_the_base_is_not_shown(view: izc.View) -> None:
    view.base.add_variable(izc.Variable("late", "f8", ("time",)))
    assert "late" not in view.load()
    view.update(lambda data: {"late": data.ssh}, outputs=[izc.Variable("late", "f8", ("time",))])
    np.testing.assert_array_equal(view.load().late.values, WINTER.ssh.values)


@pytest.mark.parametrize(
    ("refused", "what"),
    [
        (lambda view: view.insert(days("2022-04-01", 1)), "insert into its base made/days, and sync the view"),
        (lambda view: view.drop_rows(where={"time": ("2022-01-01", None)}), "drop them in its base made/days, and"),
        (lambda view: view.drop_partitions(all=True), "drop them in its base made/days, or take others by set_filters"),
        (lambda view: view.set_immutables(WINTER[["x"]]), "set them in its base made/days"),
        (lambda view: view.rewrite(), "rewrite its base made/days"),
    ],
    ids=["insert", "drop_rows", "drop_partitions", "set_immutables", "rewrite"],
)
def test_what_would_change_rows_is_refused_with_what_to_do(
    doubled: izc.View, refused: Callable[[izc.View], Any], what: str
) -> None:
    with pytest.raises(izc.ReadOnlyError, match=f"view made/view shows its base, and never writes it: .*{what}"):
        refused(doubled)
    assert (doubled.version.number, doubled.base.version.number) == (1, 1)


@pytest.mark.parametrize(
    ("update", "match"),
    [
        ({"func": double, "outputs": ["ssh"]}, "ssh of view made/view is its base's"),
        ({"func": double, "outputs": ["double"], "inputs": ["double"]}, "double are own variables of view made/view"),
        ({"func": double, "outputs": ["time"]}, "time of view made/view is its base's"),
        ({"func": double, "outputs": "double"}, "'double' is not a list"),
        ({"func": double, "outputs": [DOUBLE]}, "double, which is there"),
        ({"func": double, "outputs": ["double"], "rowwise": True, "depth": 1}, "rowwise=True says .* and depth=1 that"),
        ({"func": double, "outputs": ["double"], "rowwise": "yes"}, "rowwise='yes' is neither"),
        ({"func": double, "outputs": ["double"], "code_version": 3}, "code_version=3 is not text"),
        ({"func": double, "outputs": ["dubble"]}, "made/view has no variable dubble"),
        ({"func": lambda data: {}, "outputs": ["double"]}, "returned no double, which a view has to compute together"),
        ({"func": lambda data: None, "outputs": ["double"]}, "returned NoneType"),
        ({"func": lambda data: {"double": [1.0]}, "outputs": ["double"]}, r"double with shape \(1,\)"),
        ({"func": lambda data: {"double": data.ssh, "ssh": data.ssh + 1}, "outputs": ["double"]}, "returned ssh"),
        ({"func": lambda data: {"double": data.ssh, "more": data.ssh}, "outputs": ["double"]}, "returned more"),
    ],
)
def test_an_update_that_does_not_fit_is_refused_by_name_and_leaves_no_trace(
    doubled: izc.View, update: dict[str, Any], match: str
) -> None:
    before = sorted(Path(doubled.location).rglob("*"))
    with pytest.raises((izc.InvalidInputError, izc.NotFoundError), match=match):
        doubled.update(**update)
    assert doubled.version.number == 1
    assert [path for path in sorted(Path(doubled.location).rglob("*")) if path.is_file()] == [
        path for path in before if path.is_file()
    ]


@pytest.mark.parametrize("dtype", ["i4", "?", "U3", "u1", "S2"])
def test_what_has_no_missing_value_needs_a_fill_value(view: izc.View, dtype: str) -> None:
    without = izc.Variable("own", dtype, ("time",))
    for add in (lambda: view.add_variable(without), lambda: view.update(double, outputs=[without])):
        with pytest.raises(izc.InvalidInputError, match=r"own of view made/view .* give a Variable with a fill_value"):
            add()
    assert view.version.number == 0


def test_own_variables_have_the_dimension_that_is_split(view: izc.View) -> None:
    with pytest.raises(izc.InvalidInputError, match="lacks the dimension 'time': all own variables of a view have it"):
        view.add_variable(izc.Variable("own", "f8", ("x",)))


def test_attributes_of_a_view_are_its_own_and_shown_variables_keep_their_bases(doubled: izc.View) -> None:
    doubled.set_attributes({"title": "doubled", "by": "ada"})
    doubled.set_attributes({"units": "m"}, "double")
    loaded = doubled.load()
    assert (loaded.attrs, loaded.double.attrs["units"]) == ({"title": "doubled", "by": "ada"}, "m")
    assert doubled.base.load().attrs == {"title": "made days"}
    with pytest.raises(izc.InvalidInputError, match="ssh of view made/view is its base's"):
        doubled.set_attributes({"units": "m"}, "ssh")
    doubled.base.set_attributes({"units": "mm"}, "ssh")
    doubled.base.set_attributes({"title": "other", "more": 1})
    assert doubled.load().ssh.attrs["units"] == "mm"
    assert doubled.load().attrs == {"title": "doubled", "by": "ada", "more": 1}


def test_the_axis_stays_what_it_is(doubled: izc.View) -> None:
    for change in (lambda: doubled.rename_variable("time", "t"), lambda: doubled.drop_variable("time")):
        with pytest.raises(izc.InvalidInputError, match=r"time of \w+ made/view cannot be"):
            change()


def test_other_filters_make_a_version_and_older_ones_keep_theirs(doubled: izc.View) -> None:
    made = doubled.set_filters("month > 1")
    assert (made.number, made.operation) == (2, "set_filters")
    assert months(doubled.load().compute()) == [2, 3]
    assert months(doubled.at(version=1).load().compute()) == [1, 2, 3]
    assert doubled.set_filters("month > 1") == made
    assert doubled.set_filters({"month": 1}).number == 3
    assert_computed(doubled.load().compute(), "double")  # what it had there is there still
    assert doubled.set_filters(None).number == 4
    assert_computed(doubled.load().compute(), "double")
    assert doubled.is_synced()
    with pytest.raises(izc.InvalidInputError, match="cannot be kept"):
        doubled.set_filters([JANUARY])
    assert doubled.version.number == 4


def test_values_of_partitions_that_are_filtered_out_are_kept_true(doubled: izc.View) -> None:
    doubled.set_filters("month == 1")
    doubled.base.insert(days("2022-02-10", 1, level=100.0))
    doubled.base.insert(days("2022-04-01", 1))
    assert doubled.is_synced()
    assert doubled.sync() == {}
    doubled.set_filters(None)
    assert list(doubled.stale()) == [FEBRUARY, APRIL]
    doubled.sync()
    assert_computed(doubled.load().compute(), "double")


# Dropping what views need


def test_a_variable_that_views_show_is_not_dropped_unless_they_may_break(doubled: izc.View) -> None:
    base = doubled.base
    view_of(base, "made/other", variables=["ssh"])
    with pytest.raises(izc.InvalidInputError, match=r"made/days: made/(view, made/other|other, made/view)"):
        base.drop_variable("ssh")
    with pytest.raises(izc.InvalidInputError, match=r"made/days: made/view; drop it there first \(drop_variable\)"):
        base.drop_variable("flag")
    assert base.version.number == 1
    base.drop_variable("ssh", views="break")
    loaded = doubled.load().compute()
    assert "ssh" not in loaded
    np.testing.assert_array_equal(loaded.double.values, WINTER.ssh.values * 2)  # what was computed is there
    assert "ssh" in doubled.at(version=1).load()
    with pytest.raises(izc.InvalidInputError, match="views"):
        base.drop_variable("flag", views="perhaps")  # type: ignore[arg-type]  # it is refused


def test_a_variable_that_is_dropped_while_a_view_is_being_created_is_missed(
    base: izc.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_its_commits(monkeypatch, lambda: base.drop_variable("ssh"))
    with pytest.raises(
        izc.InvalidInputError, match=r"ssh of collection made/days were dropped just now; create the view"
    ):
        view_of(base)
    assert base._handle.registry.views_of(base.name) == ()
    view_of(base)  # its name and its place are free


def test_what_is_shown_no_more_may_be_dropped_in_the_base(view: izc.View) -> None:
    view.drop_variable("flag")
    view.base.drop_variable("flag")
    assert "flag" not in view.load()


def test_a_collection_that_has_views_is_not_dropped_unless_they_may_break(
    registry: izc.Registry, doubled: izc.View
) -> None:
    location = doubled.base.location
    with pytest.raises(izc.InvalidInputError, match="made/view"):
        izc.drop_collection(registry, "made/days")
    assert doubled.load().sizes["time"] == 90
    izc.drop_collection(registry, "made/days", views="break")
    assert "dropped, and nothing is left to show" in repr(doubled)
    assert not Path(location).exists()
    for use in (lambda: doubled.load(), lambda: izc.open_collection(registry, "made/view"), lambda: doubled.sync()):
        with pytest.raises(izc.NotFoundError, match=r"base of view made/view was dropped"):
            use()
    izc.drop_collection(registry, "made/view")
    assert registry.collections() == ()
    assert not Path(doubled.location).exists()


def test_a_view_is_dropped_with_what_is_its_own_alone(registry: izc.Registry, doubled: izc.View) -> None:
    base = doubled.base
    izc.drop_collection(registry, "made/view")
    assert not Path(doubled.location).exists()
    assert base.validate().ok
    base.drop_variable("ssh")
    izc.drop_collection(registry, "made/days")


def test_a_base_is_cut_dropped_and_rewritten_though_views_show_it(doubled: izc.View) -> None:
    base = doubled.base
    base.insert(days("2022-02-10", 2, level=100.0))
    base.rewrite()
    base.drop_rows(where={"time": ("2022-03-01", "2022-03-05")})
    base.drop_partitions(filters="month == 1")
    assert base.version.number == 5


def test_a_renamed_base_is_followed(registry: izc.Registry, doubled: izc.View) -> None:
    izc.rename_collection(registry, "made/days", "other/daily")
    assert doubled.base.name == "other/daily"
    assert "other/daily, version 1" in repr(doubled)
    assert_computed(doubled.load().compute(), "double")
