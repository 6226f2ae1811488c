"""What of a view is stale, and why; computing just that; and what is read of a view that is behind its base."""

import importlib
import multiprocessing
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
from intake_zcollection import functions
from tests import views
from tests.behaviour.test_crash import STEPS, act_at, assert_unchanged, die, run_until_killed, state_of
from tests.processes import start_fork_server
from tests.racing import before_its_commits
from tests.views import (
    ANOMALY,
    APRIL,
    CALLS,
    DOUBLE,
    FEBRUARY,
    JANUARY,
    MARCH,
    SMOOTH,
    anomaly,
    assert_computed,
    days,
    double,
    reasons,
    smooth,
    times,
    view_of,
    winter_in,
)

_processes = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module", autouse=True)
def _children_start_fast() -> None:
    start_fork_server()


@pytest.fixture
def base(registry: izc.Registry, tmp_path: Path) -> izc.Collection:
    """Three months, in version 1."""
    return winter_in(registry, tmp_path / "base")


@pytest.fixture
def view(base: izc.Collection) -> izc.View:
    """A view with nothing of its own."""
    return view_of(base)


@pytest.fixture
def derived(view: izc.View) -> izc.View:
    """A view with one variable computed row by row, and one by whole partitions."""
    view.update(double, outputs=[DOUBLE], inputs=["ssh"], rowwise=True)
    view.update(anomaly, outputs=[ANOMALY], inputs=["ssh"])
    CALLS.clear()
    return view


def correct(base: izc.Collection, first: str = "2022-02-10", count: int = 2) -> izc.Version:
    """Write some days over by others."""
    return base.insert(days(first, count, level=100.0))


def own_groups(view: izc.View, name: str) -> dict[Any, set[str]]:
    """The groups that an own variable lies in, by partition."""
    return {each.key: set(each.fragments[name]) for each in view.partitions() if name in each.fragments}


# Why something is stale


def test_nothing_of_a_view_without_own_variables_is_ever_stale(view: izc.View) -> None:
    correct(view.base)
    assert view.is_synced()
    assert view.sync() == {}
    assert view.version.number == 0


def test_what_was_never_computed_is_new(view: izc.View) -> None:
    view.add_variable(DOUBLE)
    stale = view.stale()
    assert reasons(stale) == {JANUARY: "new", FEBRUARY: "new", MARCH: "new"}
    assert {each.variables for each in stale.values()} == {("double",)}
    title, head, first, *_ = repr(stale).splitlines()
    assert title == "<Stale in made/view, version 1, over version 1 of its base: 3 partitions>"
    assert head.split()[:2] == ["partition", "reason"]
    assert first.split()[:2] == ["year=2022/month=01", "new"]
    view.update(double, outputs=["double"], filters="month == 2")
    assert reasons(view.stale()) == {JANUARY: "new", MARCH: "new"}


CHANGES: dict[str, tuple[Callable[[izc.Collection], Any], dict[Any, str], list[tuple[str, int]]]] = {
    "days after the last": (
        lambda base: base.insert(days("2022-04-01", 3)),
        {APRIL: "new"},
        [("anomaly", 3), ("double", 3)],
    ),
    "a day within a month": (
        lambda base: correct(base, count=1),
        {FEBRUARY: "rows"},
        [("anomaly", 28), ("double", 1)],
    ),
    "days of two months": (
        lambda base: correct(base, "2022-01-30", 3),
        {JANUARY: "rows", FEBRUARY: "rows"},
        [("anomaly", 28), ("anomaly", 31), ("double", 1), ("double", 2)],
    ),
    "dropped days": (
        lambda base: base.drop_rows(where={"time": ("2022-02-10", "2022-02-11")}),
        {FEBRUARY: "rows"},
        [("anomaly", 26)],
    ),
    "an input": (
        lambda base: base.update(lambda data: {"ssh": data.ssh + 7}, filters="month == 3"),
        {MARCH: "inputs"},
        [("anomaly", 31), ("double", 31)],
    ),
    "a dropped month": (lambda base: base.drop_partitions(filters="month == 2"), {FEBRUARY: "gone"}, []),
    "a replaced month": (
        lambda base: base.insert(days("2022-02-03", 5), merge="replace"),
        {FEBRUARY: "rows"},
        [("anomaly", 5), ("double", 5)],
    ),
    "a month that went and came": (
        lambda base: (base.drop_partitions(filters="month == 2"), base.insert(days("2022-02-03", 5))),
        {FEBRUARY: "rows"},
        [("anomaly", 5), ("double", 5)],
    ),
    "no input": (lambda base: base.update(lambda data: {"flag": data.flag + 1}), {}, []),
    "an attribute": (lambda base: base.set_attributes({"units": "m"}, "ssh"), {}, []),
    "another name": (lambda base: base.rename_variable("ssh", "height"), {}, []),
    "another variable": (lambda base: base.add_variable(izc.Variable("late", "f8", ("time",))), {}, []),
    "what is stored once": (lambda base: base.set_immutables(xr.Dataset(coords={"x": [3, 4]})), {}, []),
    "a rewrite": (lambda base: (correct(base), base.rewrite()), {FEBRUARY: "rows"}, [("anomaly", 28), ("double", 2)]),
    "a rewrite alone": (lambda base: base.rewrite(), {}, []),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_base_does_makes_stale_what_depends_on_it_and_a_sync_computes_just_that(
    derived: izc.View, change: str
) -> None:
    act, stale, computed = CHANGES[change]
    before = own_groups(derived, "double")
    act(derived.base)
    assert reasons(derived.stale()) == stale
    assert derived.is_synced() is (not stale)
    assert reasons(derived.sync(dry_run=True)) == stale
    assert CALLS == []
    assert reasons(derived.sync()) == stale
    assert CALLS.told() == computed
    assert derived.is_synced()
    assert derived.sync() == {}
    loaded = derived.load().compute()
    assert_computed(loaded, "double", "anomaly")
    assert loaded.sizes["time"] == derived.base.load().sizes["time"]
    assert derived.version.number == 2 + bool(stale)
    for key, groups in own_groups(derived, "double").items():  # what is computed row by row stays where it is
        assert groups >= before.get(key, set()) or stale.get(key) != "rows" or len(groups) == 1
    assert derived.validate().ok


def test_own_values_of_old_rows_stay_in_the_groups_that_they_were_written_to(derived: izc.View) -> None:
    (old,) = own_groups(derived, "double")[FEBRUARY]
    correct(derived.base, count=1)
    derived.sync()
    groups = derived.partitions()[1].fragments["double"]
    assert len(groups) == 2
    assert old in groups
    assert own_groups(derived, "anomaly")[FEBRUARY] & {old} == set()
    assert derived.version.summary["rows"] == 28  # of what took most


def test_stale_tells_rows_and_variables(derived: izc.View) -> None:
    derived.base.insert(days("2022-04-01", 3))
    stale = derived.stale()
    assert (stale[APRIL].changed, stale[APRIL].variables) == (3, ("double", "anomaly"))
    assert stale[APRIL].axis_range == (np.datetime64("2022-04-01", "ns"), np.datetime64("2022-04-03", "ns"))
    derived.sync()
    derived.drop_variable("anomaly")
    correct(derived.base, count=1)
    (change,) = derived.stale().values()
    assert (change.changed, change.variables) == (1, ("double",))
    loaded = derived.stale().load().compute()
    assert loaded.time.values.tolist() == [np.datetime64("2022-02-10", "ns").astype("i8")]
    assert loaded.ssh.values.tolist() == [140.0]
    assert np.isnan(loaded.double.values).all()


def test_stale_partitions_are_a_filter(derived: izc.View) -> None:
    correct(derived.base, "2022-01-30", 3)
    stale = derived.stale()
    assert derived.base.map(lambda data: data.sizes["time"], filters=stale) == {JANUARY: 31, FEBRUARY: 28}
    assert list(derived.stale(filters="month == 2")) == [FEBRUARY]
    derived.update(double, outputs=["double"], inputs=["ssh"], rowwise=True, filters=stale)
    assert {each.variables for each in derived.stale().values()} == {("anomaly",)}


def test_a_neighbour_that_changed_makes_stale_what_has_seen_it(view: izc.View) -> None:
    view.update(smooth, outputs=[SMOOTH], inputs=["ssh"], depth=1)
    CALLS.clear()
    correct(view.base, "2022-01-31", 1)
    assert reasons(view.stale()) == {JANUARY: "rows", FEBRUARY: "neighbour"}
    view.sync()
    assert CALLS.told() == [("smooth", 59), ("smooth", 90)]
    assert_computed(view.load().compute(), "smooth")
    view.base.update(lambda data: {"flag": data.flag + 1})
    assert view.is_synced()
    view.base.update(lambda data: {"ssh": data.ssh + 1}, filters="month == 3")
    assert reasons(view.stale()) == {FEBRUARY: "neighbour", MARCH: "inputs"}
    view.sync()
    assert_computed(view.load().compute(), "smooth")


def test_a_neighbour_that_came_or_went_makes_stale_what_is_next_to_it(view: izc.View) -> None:
    view.update(smooth, outputs=[SMOOTH], inputs=["ssh"], depth=1)
    view.base.insert(days("2022-04-01", 2))
    assert reasons(view.stale()) == {MARCH: "neighbour", APRIL: "new"}
    view.sync()
    view.base.drop_partitions(filters="month == 2")
    assert reasons(view.stale()) == {JANUARY: "neighbour", FEBRUARY: "gone", MARCH: "neighbour"}
    view.sync()
    assert_computed(view.load().compute(), "smooth")
    assert view.is_synced()
    view.set_filters("month != 1")
    assert view.is_synced() or reasons(view.stale()) == {MARCH: "neighbour"}


def test_another_code_version_makes_all_stale(derived: izc.View) -> None:
    made = derived.update(double, outputs=["double"], inputs=["ssh"], rowwise=True, code_version="2", run=False)
    assert (made.operation, CALLS) == ("define", [])
    assert reasons(derived.stale()) == {JANUARY: "code", FEBRUARY: "code", MARCH: "code"}
    assert {each.variables for each in derived.stale().values()} == {("double",)}
    assert_computed(derived.load().compute(), "double", "anomaly")  # what it was computed from is as it was
    derived.sync()
    assert CALLS.told() == [("double", 28), ("double", 31), ("double", 31)]
    assert derived.is_synced()
    assert (
        derived.update(double, outputs=["double"], inputs=["ssh"], rowwise=True, code_version="2", run=False).number
        == 4
    )


# Definitions


def test_a_definition_alone_is_recorded_without_computing_and_a_sync_computes_it(view: izc.View) -> None:
    made = view.update(double, outputs=[DOUBLE], run=False, rowwise=True)
    assert (made.operation, CALLS.told()) == ("define", [])
    assert reasons(view.stale()) == {JANUARY: "new", FEBRUARY: "new", MARCH: "new"}
    view.sync()
    assert_computed(view.load().compute(), "double")
    with pytest.raises(izc.InvalidInputError, match="Give outputs"):
        view.update(double, run=False)


def test_arguments_are_part_of_a_definition(view: izc.View) -> None:
    view.update(times, outputs=[DOUBLE], args=(2.0,), kwargs={"more": 0.0}, rowwise=True)
    view.base.insert(days("2022-04-01", 2))
    view.sync()
    assert_computed(view.load().compute(), "double")


def test_a_method_that_is_importable_is_recorded(view: izc.View) -> None:
    view.update(views.Functions.double, outputs=[DOUBLE], rowwise=True)
    assert "tests.views:Functions.double" in repr(view)
    correct(view.base)
    view.sync()
    assert_computed(view.load().compute(), "double")


def _named_main(data: xr.Dataset) -> dict[str, Any]:
    return {"double": data["ssh"] * 2}


_named_main.__module__ = "__main__"


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (lambda data: {"double": data.ssh * 2}, ()),
        (_named_main, ()),
        (times, (np.float32(2.0),)),
        (times, ((2.0, 3.0),)),
        (times, (float("nan"),)),
    ],
    ids=["a lambda", "of __main__", "an argument of numpy's", "a tuple", "not a number"],
)
def test_what_cannot_be_repeated_elsewhere_runs_and_is_not_recorded(view: izc.View, func: Any, args: Any) -> None:
    works = not args or not isinstance(args[0], tuple)
    if works:
        view.update(func, outputs=[DOUBLE], args=args)
        assert "computed" not in repr(view)
        correct(view.base)
        assert reasons(view.sync()) == {FEBRUARY: "rows"}  # is still to be done
        assert reasons(view.stale()) == {FEBRUARY: "rows"}
        assert view.version.number == 1
    with pytest.raises(izc.InvalidInputError, match="update view made/view with cannot be recorded"):
        view.update(func, outputs=["double"] if works else [DOUBLE], args=args, run=False)


def test_of_what_a_lambda_has_computed_nothing_is_repeated_by_an_older_definition(derived: izc.View) -> None:
    derived.update(lambda data: {"double": data.ssh * 3}, outputs=["double"])
    correct(derived.base)
    CALLS.clear()
    derived.sync()
    data = derived.load(filters="month == 2").compute()
    values = data.double.values / data.ssh.values
    assert set(values.tolist()) in ({2.0}, {3.0}), "two functions' values in one partition"


def test_a_newer_definition_takes_the_place_of_an_older_one(derived: izc.View) -> None:
    derived.update(times, args=(2.0,), outputs=["double"], rowwise=True)
    assert repr(derived).count("computed:      double") == 1
    correct(derived.base)
    CALLS.clear()
    derived.sync()
    assert CALLS.told() == [("anomaly", 28)]
    assert_computed(derived.load().compute(), "double", "anomaly")


def test_a_definition_goes_with_a_variable_that_it_reads_or_makes(derived: izc.View) -> None:
    derived.drop_variable("double")
    assert "computed:      double" not in repr(derived)
    correct(derived.base)
    CALLS.clear()
    derived.sync()
    assert CALLS.told() == [("anomaly", 28)]
    derived.drop_variable("ssh")
    assert "computed" not in repr(derived)


def test_variables_of_a_definition_may_be_renamed(derived: izc.View) -> None:
    derived.update(lambda data: {"double": data.ssh * 2}, outputs=["double"], run=True)
    derived.rename_variable("anomaly", "difference")
    correct(derived.base)
    with pytest.raises(izc.InvalidInputError, match="returned anomaly"):
        derived.sync()  # what a function calls its variables, it still does


TRUSTED = '''
"""A module that nobody has imported."""
def half(data):
    return {"half": data["ssh"] / 2}
'''


def sync_elsewhere(url: str, name: str, directory: str) -> list[str]:
    """Sync a view in a process that has imported nothing, trusting one module after the other; return what came."""
    sys.path.insert(0, directory)
    view = izc.open_collection(url, name)
    assert isinstance(view, izc.View)
    told = []
    for trusted in ("half_of_height", "half_of_heights.more", "half_of_heights"):
        izc.trust(trusted)
        try:
            view.sync()
            data = view.load(stale="raise").compute()
            told.append("computed" if (data.half == data.ssh / 2).all() else "wrong")
        except izc.InvalidInputError as error:
            told.append(f"{'half_of_heights' in sys.modules}: {error}")
    return told


def test_a_function_that_the_registry_names_is_imported_only_where_that_is_allowed(
    registry: izc.Registry, view: izc.View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_of_heights.py").write_text(TRUSTED)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("half_of_heights")
    view.update(module.half, outputs=[izc.Variable("half", "f8", ("time",))], rowwise=True)
    correct(view.base)
    refused = "view made/view is computed by half_of_heights:half, and code that a registry names is not imported"
    with ProcessPoolExecutor(1, _processes) as pool:
        first, second, third = pool.submit(sync_elsewhere, registry.url, view.name, str(tmp_path)).result(timeout=60)
    assert first.startswith(f"False: {refused}")
    assert second.endswith("import half_of_heights yourself, or call trust('half_of_heights')")
    assert third == "computed"
    correct(view.base, "2022-03-01")
    view.sync()  # it is imported here
    monkeypatch.delitem(sys.modules, "half_of_heights")
    correct(view.base, "2022-03-10")
    with pytest.raises(izc.InvalidInputError, match=refused):
        view.sync()


def test_what_is_below_a_trusted_module_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "_trusted", {"xml"})
    sys.modules.pop("xml.sax.saxutils", None)
    assert functions.import_function("view made/view", "xml.sax.saxutils:escape").__name__ == "escape"
    for name in ("", 3, None):
        with pytest.raises(izc.InvalidInputError, match="name of a module"):
            izc.trust(name)  # type: ignore[arg-type]  # it is refused


def test_a_function_that_is_gone_is_told_and_nothing_is_computed(
    derived: izc.View, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct(derived.base)
    monkeypatch.delattr(views, "double")
    with pytest.raises(izc.InvalidInputError, match=r"tests\.views:double, which is not there"):
        derived.sync()
    assert (derived.version.number, CALLS.told()) == (2, [])
    assert reasons(derived.stale()) == {FEBRUARY: "rows"}


def test_who_cannot_import_a_function_reads_all_the_same(derived: izc.View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(views, "double")
    assert_computed(derived.load().compute(), "double")
    derived.stale(), repr(derived), derived.partitions()
    assert derived.sync() == {}  # there is nothing to do


# Some of it


def test_a_sync_of_some_partitions_leaves_the_others_stale(derived: izc.View) -> None:
    correct(derived.base, "2022-01-30", 3)
    done = derived.sync(filters="month == 2")
    assert list(done) == [FEBRUARY]
    assert CALLS.told() == [("anomaly", 28), ("double", 1)]
    assert list(derived.stale()) == [JANUARY]
    assert_computed(derived.load().compute(), "double", "anomaly")
    assert_computed(derived.load(stale="skip").compute(), "double", "anomaly")
    derived.sync()
    assert_computed(derived.load(stale="raise").compute(), "double", "anomaly")


def test_a_sync_of_partitions_that_others_have_ended_does_not_touch_those(derived: izc.View) -> None:
    derived.base.drop_partitions(filters="month == 1")
    correct(derived.base)
    derived.sync(filters="month == 2")
    assert_computed(derived.load().compute(), "double", "anomaly")
    derived.base.insert(days("2022-01-01", 31, level=5.0))
    derived.sync()
    assert_computed(derived.load(stale="raise").compute(), "double", "anomaly")


def test_a_sync_says_who_did_it_and_why(derived: izc.View) -> None:
    correct(derived.base)
    derived.sync(author="ada", message="the nightly one")
    version = derived.version
    assert (version.operation, version.author, version.message) == ("sync", "ada", "the nightly one")
    assert (version.summary["updated"], version.summary["rows"]) == (1, 28)


def test_two_outputs_of_one_function_are_computed_together(view: izc.View) -> None:
    view.update(views.both, outputs=[DOUBLE, ANOMALY], inputs=["ssh"])
    CALLS.clear()
    correct(view.base)
    view.sync()
    assert CALLS.told() == [("both", 28)]
    assert_computed(view.load(stale="raise").compute(), "double", "anomaly")
    view.update(double, outputs=["double"], inputs=["ssh"], rowwise=True, filters="month == 1")
    assert_computed(view.load().compute(), "double", "anomaly")
    assert {key: (each.reason, each.variables) for key, each in view.stale().items()} == {
        FEBRUARY: ("code", ("double",)),
        MARCH: ("code", ("double",)),
    }


# What is read of a view that is behind


def test_a_partition_whose_inputs_were_written_over_is_read_as_it_was(derived: izc.View) -> None:
    before = derived.load(filters="month == 2").compute()
    correct(derived.base)
    xr.testing.assert_identical(derived.load(filters="month == 2").compute(), before)
    assert_computed(derived.load().compute(), "double", "anomaly")
    assert derived.load(variables=["ssh"]).ssh.max() > 100  # nothing of its own is asked for
    assert derived.load(filters="month == 2", where={"time": ("2022-02-10", "2022-02-10")}).ssh.values.tolist() == [
        40.0
    ]


def test_rows_that_came_are_shown_without_own_values(derived: izc.View) -> None:
    derived.base.drop_rows(where={"time": ("2022-02-10", "2022-02-11")})
    derived.sync()
    derived.base.insert(days("2022-02-10", 2, level=100.0))
    derived.base.insert(days("2022-04-01", 2))
    loaded = derived.load().compute()
    assert loaded.sizes["time"] == 92  # all that is there, today's too
    missing = np.isnan(loaded.double.values)
    assert loaded.time.values[missing].astype("M8[D]").astype(str).tolist() == [
        *("2022-02-10", "2022-02-11"),
        *("2022-04-01", "2022-04-02"),
    ]
    np.testing.assert_array_equal(loaded.double.values[~missing], loaded.ssh.values[~missing] * 2)


def test_rows_that_went_leave_at_once_where_each_is_computed_alone(view: izc.View) -> None:
    view.update(double, outputs=[DOUBLE], rowwise=True)
    view.base.drop_rows(where={"time": ("2022-02-10", "2022-02-11")})
    loaded = view.load().compute()
    assert loaded.sizes["time"] == 88
    assert_computed(loaded, "double")
    assert view.is_synced()


def test_rows_that_went_stay_beside_what_was_computed_from_all_of_them(derived: izc.View) -> None:
    derived.base.drop_rows(where={"time": ("2022-02-10", "2022-02-11")})
    loaded = derived.load().compute()
    assert loaded.sizes["time"] == 90
    assert_computed(loaded, "double", "anomaly")
    assert derived.load(variables=["ssh", "double"]).sizes["time"] == 88
    filled = derived.load(stale="fill").compute()
    assert filled.sizes["time"] == 88


def test_a_partition_that_is_gone_leaves_at_once(derived: izc.View) -> None:
    derived.base.drop_partitions(filters="month == 2")
    for stale in ("last", "fill", "skip", "raise"):
        loaded = derived.load(stale=stale).compute()
        assert loaded.sizes["time"] == 62
        assert_computed(loaded, "double", "anomaly")


def test_what_is_stale_is_filled_skipped_or_raises_as_asked(derived: izc.View) -> None:
    correct(derived.base)
    filled = derived.load(stale="fill").compute()
    np.testing.assert_array_equal(filled.ssh.values, derived.base.load().ssh.values)
    known = np.isfinite(filled.double.values)
    assert known.sum() == 88
    np.testing.assert_array_equal(filled.double.values[known], filled.ssh.values[known] * 2)
    skipped = derived.load(stale="skip").compute()
    assert skipped.sizes["time"] == 62
    assert_computed(skipped, "double", "anomaly")
    with pytest.raises(izc.StaleViewError, match=r"view made/view: own values of year=2022/month=02 are stale; sync"):
        derived.load(stale="raise")
    derived.load(stale="raise", filters="month != 2"), derived.load(stale="raise", variables=["ssh"])
    with pytest.raises(izc.InvalidInputError, match="stale='old' is not one of"):
        derived.load(stale="old")  # type: ignore[arg-type]  # it is refused


def test_a_rewrite_of_the_base_changes_nothing_of_what_is_read(derived: izc.View) -> None:
    correct(derived.base)
    before = derived.load().compute()
    filled = derived.load(stale="fill").compute()
    derived.base.rewrite()
    xr.testing.assert_identical(derived.load().compute(), before)
    xr.testing.assert_identical(derived.load(stale="fill").compute(), filled)
    derived.sync()
    derived.base.rewrite()
    assert_computed(derived.load(stale="raise").compute(), "double", "anomaly")


def test_own_values_stay_beside_their_rows_through_all_that_a_base_does(derived: izc.View) -> None:
    base = derived.base
    acts: list[Callable[[], Any]] = [
        lambda: base.drop_rows(where={"time": ("2022-01-05", "2022-01-06")}),
        lambda: base.insert(days("2022-01-05", 2, level=50.0)),
        lambda: base.insert(days("2022-03-30", 5, level=20.0)),
        lambda: base.rewrite(filters="month == 1"),
        lambda: derived.sync(filters="month == 1"),
        lambda: base.insert(days("2021-12-30", 4)),
        lambda: base.update(lambda data: {"ssh": data.ssh + 1}, filters="month == 2"),
        lambda: base.drop_partitions(filters="month == 3"),
        lambda: base.insert(days("2022-03-01", 2)),
        lambda: derived.sync(),
    ]
    for act in acts:
        act()
        for stale in ("last", "fill", "skip"):
            loaded = derived.load(stale=stale).compute()
            assert len(np.unique(loaded.time.values)) == loaded.sizes["time"]
            known = np.isfinite(loaded.double.values)
            np.testing.assert_array_equal(loaded.double.values[known], loaded.ssh.values[known] * 2)
            if stale == "fill":
                np.testing.assert_array_equal(loaded.time.values, base.load().time.values)
    assert_computed(derived.load(stale="raise").compute(), "double", "anomaly")


def test_values_of_two_ages_in_one_partition_are_both_beside_their_rows(view: izc.View) -> None:
    view.update(double, outputs=[DOUBLE], rowwise=True)
    for number in range(4):
        correct(view.base, f"2022-02-{5 + 4 * number:02}", 1)
        view.sync()
    correct(view.base, "2022-02-13", 1)
    assert len(view.partitions()[1].fragments["double"]) == 5
    assert_computed(view.load().compute(), "double")
    view.sync()
    assert_computed(view.load(stale="raise").compute(), "double")
    assert_computed(view.load(where={"time": ("2022-02-08", "2022-02-14")}).compute(), "double")
    for version in range(1, view.version.number + 1):
        assert_computed(view.at(version=version).load().compute(), "double")


# Pinned


def test_a_pinned_view_does_not_move_until_it_is_told(base: izc.Collection) -> None:
    view = view_of(base, pinned_version=1)
    view.update(double, outputs=[DOUBLE], rowwise=True)
    view.update(anomaly, outputs=[ANOMALY])
    before = view.load().compute()
    correct(base)
    base.insert(days("2022-04-01", 3))
    base.drop_partitions(filters="month == 1")
    xr.testing.assert_identical(view.load().compute(), before)
    assert (view.is_synced(), view.base_version) == (True, 1)
    assert view.sync() == {}
    CALLS.clear()
    dry = view.sync(pinned_version=3, dry_run=True)
    assert reasons(dry) == {FEBRUARY: "rows", APRIL: "new"}
    assert (CALLS.told(), view.base_version) == ([], 1)
    assert reasons(view.sync(pinned_version=base.at(version=3).version)) == reasons(dry)
    assert (view.base_version, view.is_synced(), view.version.number) == (3, True, 3)
    view.sync(pinned_version=3)
    assert view.version.number == 3  # it is there
    loaded = view.load().compute()
    assert loaded.sizes["time"] == 93
    assert_computed(loaded, "double", "anomaly")
    xr.testing.assert_identical(view.at(version=2).load().compute(), before)


def test_a_pin_does_not_move_back_behind_what_was_computed(derived: izc.View) -> None:
    correct(derived.base)
    derived.sync()
    with pytest.raises(izc.InvalidInputError, match=r"made/view was over version 2 of made/days: .* version 1"):
        derived.sync(pinned_version=1)
    with pytest.raises(izc.NotFoundError, match="made/days has no version 9"):
        derived.sync(pinned_version=9)
    derived.sync(pinned_version=2)
    correct(derived.base)
    assert (derived.base_version, derived.is_synced()) == (2, True)


# Writers at once


def test_what_the_base_commits_while_own_values_are_computed_never_mixes_in(base: izc.Collection) -> None:
    view = view_of(base)
    first = threading.Event()

    def slow(data: xr.Dataset) -> dict[str, Any]:
        if not first.is_set():
            first.set()
            correct(base, "2022-01-30", 3)
            base.insert(days("2022-04-01", 1))
        return {"double": data["ssh"] * 2}

    view.update(slow, outputs=[DOUBLE], inputs=["ssh"], workers=1)
    assert view.versions()[-1].number == 1
    assert_computed(view.at(version=1).load(stale="raise").compute(), "double")
    assert reasons(view.stale()) == {JANUARY: "rows", FEBRUARY: "rows", APRIL: "new"}
    loaded = view.load().compute()
    known = np.isfinite(loaded.double.values)
    assert known.sum() == 90
    np.testing.assert_array_equal(loaded.double.values[known], loaded.ssh.values[known] * 2)


def test_what_the_base_commits_before_a_sync_does_never_conflicts(
    derived: izc.View, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct(derived.base)
    before_its_commits(monkeypatch, lambda: correct(derived.base, "2022-02-20"))
    derived.sync()
    assert [each.operation for each in derived.versions()][3:] == ["sync"]
    assert reasons(derived.stale()) == {FEBRUARY: "rows"}
    assert_computed(derived.load().compute(), "double", "anomaly")
    assert_computed(derived.at(version=3).load(stale="raise").compute(), "double", "anomaly")
    derived.sync()
    assert_computed(derived.load(stale="raise").compute(), "double", "anomaly")


@pytest.mark.parametrize(
    "write",
    [
        lambda view: view.sync(),
        lambda view: view.update(double, outputs=["double"], inputs=["ssh"], rowwise=True),
        lambda view: view.update(anomaly, outputs=["anomaly"], inputs=["ssh"]),
    ],
    ids=["sync", "rows", "partitions"],
)
def test_a_writer_that_is_overtaken_in_one_partition_computes_all_from_one_version_of_the_base(
    derived: izc.View, monkeypatch: pytest.MonkeyPatch, write: Callable[[izc.View], Any]
) -> None:
    base = derived.base
    correct(base, "2022-01-30", 3)

    def overtake() -> None:
        other_handle(derived).sync(filters="month == 1")
        correct(base, "2022-02-03", 1)
        base.drop_rows(where={"time": ("2022-02-01", "2022-02-01")})

    before_its_commits(monkeypatch, overtake)
    write(derived)
    assert derived.version.number == 4
    for view in (derived.at(version=4), derived):
        data = view.load(stale="fill").compute()
        known = np.isfinite(data.double.values)
        np.testing.assert_array_equal(data.double.values[known], data.ssh.values[known] * 2)
    derived.sync()
    assert_computed(derived.load(stale="raise").compute(), "double", "anomaly")


def other_handle(view: izc.View) -> izc.View:
    """The same view, as somebody else has opened it."""
    opened = izc.open_collection(view._handle.registry, view.name)
    assert isinstance(opened, izc.View)
    return opened


def test_of_two_syncs_at_once_the_second_finds_its_work_done(
    derived: izc.View, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct(derived.base)
    before_its_commits(monkeypatch, other_handle(derived).sync)
    derived.sync()
    assert [each.operation for each in derived.versions()][3:] == ["sync"]
    assert_computed(derived.load(stale="raise").compute(), "double", "anomaly")
    assert derived.validate().ok


def test_writers_of_different_variables_of_a_view_at_once_both_have_theirs(view: izc.View) -> None:
    view.add_variable(DOUBLE)
    view.add_variable(ANOMALY)
    barrier = threading.Barrier(2)
    waited = threading.local()

    def together(func: Callable[[xr.Dataset], Any]) -> Callable[[xr.Dataset], Any]:
        def wait(data: xr.Dataset) -> Any:
            if not getattr(waited, "once", False):
                waited.once = True
                barrier.wait(timeout=30)
            return func(data)

        return wait

    def update(name: str, func: Any) -> izc.Version:
        return other_handle(view).update(together(func), outputs=[name], inputs=["ssh"], scheduler="synchronous")

    with ThreadPoolExecutor(2) as pool:
        made = [pool.submit(update, "double", double), pool.submit(update, "anomaly", anomaly)]
        numbers = {each.result(timeout=60).number for each in made}
    assert numbers == {3, 4}
    assert_computed(view.load(stale="raise").compute(), "double", "anomaly")
    assert view.validate().ok


def test_a_writer_that_has_read_an_older_base_never_puts_its_values_beside_newer_rows(
    view: izc.View, monkeypatch: pytest.MonkeyPatch
) -> None:
    view.update(double, outputs=[DOUBLE], inputs=["ssh"], rowwise=True)
    view.add_variable(ANOMALY)

    def overtake() -> None:
        correct(view.base)
        view.sync()

    before_its_commits(monkeypatch, overtake)
    view.update(anomaly, outputs=["anomaly"], inputs=["ssh"])
    assert_computed(view.load().compute(), "double", "anomaly")
    view.sync()
    assert_computed(view.load(stale="raise").compute(), "double", "anomaly")
    for version in range(1, view.version.number + 1):
        old = view.at(version=version).load().compute()
        known = np.isfinite(old.double.values)
        np.testing.assert_array_equal(old.double.values[known], old.ssh.values[known] * 2)


def test_a_variable_that_is_dropped_while_it_is_computed_is_told(
    derived: izc.View, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct(derived.base)
    before_its_commits(monkeypatch, lambda: derived.drop_variable("double"))
    with pytest.raises(izc.ConflictError, match="double"):
        derived.update(double, outputs=["double"], rowwise=True)
    assert derived.version.operation == "drop_variable"


def test_other_filters_that_come_while_a_sync_computes_are_kept(
    derived: izc.View, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct(derived.base)
    before_its_commits(monkeypatch, lambda: derived.set_filters("month == 1"))
    derived.sync()
    assert derived.load().sizes["time"] == 31
    derived.set_filters(None)
    derived.sync()
    assert_computed(derived.load(stale="raise").compute(), "double", "anomaly")


# Writers that die


def sync_and_die(url: str, step: str) -> None:
    """Sync in order, one partition after the other; and die at a step."""
    view = izc.open_collection(url, "made/view")
    assert isinstance(view, izc.View)
    act_at(STEPS[step], die)
    view.sync(scheduler="synchronous")


@pytest.mark.parametrize(
    "step", ["after_the_intents", "in_the_first_fragment", "before_the_commit", "in_the_commit_before_COMMIT"]
)
def test_a_sync_that_is_killed_leaves_the_view_as_it_was(registry: izc.Registry, derived: izc.View, step: str) -> None:
    correct(derived.base, "2022-01-30", 3)
    before, base = state_of(derived), state_of(derived.base)
    run_until_killed(sync_and_die, registry.url, step)
    assert_unchanged(derived, before)
    assert_unchanged(derived.base, base)
    derived.sync()
    assert_computed(derived.load(stale="raise").compute(), "double", "anomaly")


def test_a_sync_that_fails_leaves_nothing_behind(derived: izc.View, monkeypatch: pytest.MonkeyPatch) -> None:
    correct(derived.base, "2022-01-30", 3)
    before = {path for path in Path(derived.location).rglob("*") if path.is_file()}

    def fails(data: xr.Dataset) -> dict[str, Any]:
        if data.sizes["time"] == 28:
            raise KeyError("no such height")
        return anomaly(data)

    fails.__module__, fails.__qualname__ = "tests.views", "anomaly"
    monkeypatch.setattr(views, "anomaly", fails)
    with pytest.raises(KeyError, match="no such height") as failure:
        derived.sync(workers=1)
    assert "in partition year=2022/month=02" in failure.value.__notes__
    assert {path for path in Path(derived.location).rglob("*") if path.is_file()} == before
    assert derived.version.number == 2


def test_what_was_computed_from_immutable_variables_ends_where_these_are_others(view: izc.View) -> None:
    weighted = izc.Variable("weighted", "f8", ("time",))
    view.update(lambda data: {"weighted": data["ssh"] * data["x"].sum()}, inputs=["ssh", "x"], outputs=[weighted])
    assert view.load()["weighted"].equals((3 * view.load()["ssh"]).rename("weighted"))
    view.base.set_immutables(xr.Dataset(coords={"x": [3, 4]}))
    assert reasons(view.stale()) == {JANUARY: "inputs", FEBRUARY: "inputs", MARCH: "inputs"}
    for stale in ("last", "fill"):
        assert view.load(stale=stale)["weighted"].isnull().all()  # the base's are stored once, and are others now
    view.update(lambda data: {"weighted": data["ssh"] * data["x"].sum()}, inputs=["ssh", "x"], outputs=["weighted"])
    assert view.is_synced()
    assert view.load()["weighted"].equals((7 * view.load()["ssh"]).rename("weighted"))
