"""Views over views: each is over a version of the one below, and all rows are those of the collection under them."""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
from tests.views import (
    ANOMALY,
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
    view_of,
    winter_in,
)

QUADRUPLE = izc.Variable("quadruple", "f8", ("time",))
LIFTED = izc.Variable("lifted", "f8", ("time",))


def quadruple(data: xr.Dataset) -> dict[str, Any]:
    return {"quadruple": data.double * 2}


def lifted(data: xr.Dataset) -> dict[str, Any]:
    return {"lifted": data.quadruple + data.anomaly.mean()}


@pytest.fixture
def chain(registry: izc.Registry, tmp_path: Path) -> list[Any]:
    """A collection of three months, and three views, each over the one before."""
    base = winter_in(registry, tmp_path / "base")
    first = view_of(base)
    first.update(double, outputs=[DOUBLE], inputs=["ssh"], rowwise=True)
    first.update(anomaly, outputs=[ANOMALY], inputs=["ssh"])
    second = izc.create_view(
        registry, "made/second", first, location=str(tmp_path / "second"), variables=["ssh", "double", "anomaly"]
    )
    second.update(quadruple, outputs=[QUADRUPLE], inputs=["double"], rowwise=True)
    third = izc.create_view(registry, "made/third", second, location=str(tmp_path / "third"))
    third.update(lifted, outputs=[LIFTED], inputs=["quadruple", "anomaly"])
    return [base, first, second, third]


def assert_consistent(views: list[Any]) -> None:
    """No own value lies beside others than those that it was computed from, whatever is stale."""
    for view in views:
        for stale in ("last", "fill"):
            data = view.load(stale=stale).compute()
            for made, of, factor in (("double", "ssh", 2), ("quadruple", "double", 2)):
                if made in data:
                    there = data[made].notnull()
                    np.testing.assert_array_equal(
                        data[made][there], factor * data[of][there], err_msg=f"{made}, {stale}"
                    )
            assert not data.indexes["time"].has_duplicates


def assert_synced(chain: list[Any]) -> None:
    base, *views = chain
    for view in views:
        view.sync()
        assert view.is_synced()
    rows, data = base.load().compute(), views[-1].load().compute()
    months = rows.ssh.groupby("time.month")
    anomalies = (months - months.mean()).drop_vars("month") if rows.sizes["time"] else rows.ssh
    np.testing.assert_array_equal(data.quadruple, 4 * rows.ssh)
    np.testing.assert_allclose(data.anomaly, anomalies)
    np.testing.assert_allclose(data.lifted, 4 * rows.ssh, atol=1e-9)  # the mean of an anomaly is nothing


def test_a_view_shows_what_the_one_below_has_of_its_own(chain: list[Any]) -> None:
    assert_synced(chain)
    third = chain[-1]
    assert isinstance(third.base, izc.View)
    assert third.base.name == "made/second"
    assert [each.version.number for each in chain] == [1, 2, 1, 1]
    assert third.lineage.splitlines()[0] == "made/third ← made/second, version 1"
    assert third.validate().ok
    assert {*third.load().data_vars} == {"ssh", "double", "anomaly", "quadruple", "lifted"}


def test_a_correction_is_seen_where_the_view_below_has_it(chain: list[Any]) -> None:
    base, first, second, third = chain
    base.insert(days("2022-02-10", 2, level=100.0))
    assert [view.is_synced() for view in (first, second, third)] == [False, True, True]
    # It is over a version of the view below, as that is over one of its base.
    assert float(second.load().ssh.max()) < 100
    assert_consistent(chain[1:])
    first.sync()
    assert {key: (each.reason, each.changed) for key, each in second.stale().items()} == {FEBRUARY: ("rows", 2)}
    assert_consistent(chain[1:])
    second.sync()
    assert {key: each.reason for key, each in third.stale().items()} == {FEBRUARY: "rows"}
    assert_consistent(chain[1:])
    assert_synced(chain)


def test_what_inputs_were_computed_from_counts_too(chain: list[Any]) -> None:
    base, first, second, third = chain
    base.update(lambda data: {"ssh": data.ssh + 1}, filters="month == 3")
    first.update(double, outputs=["double"], inputs=["ssh"], filters="month == 1", rowwise=True)
    # In March, double is gone from the view below: there it has nothing that goes with the new values.
    assert second.stale()[MARCH].reason == "inputs"
    assert_consistent(chain[1:])
    assert third.is_synced()
    assert_synced(chain)


def test_a_difference_tells_of_all_that_changed_below(chain: list[Any]) -> None:
    base, first, second, third = chain
    before = third.version
    base.insert(days("2022-02-10", 2, level=100.0))
    for view in (first, second, third):
        view.sync()
    changes = third.diff(before)
    assert list(changes) == [FEBRUARY]
    assert repr(changes).splitlines()[0] == (
        "<Changes of made/third from version 1 to 2, over version 2 of its base: 1 partition>"
    )
    assert set(changes[FEBRUARY].variables) == {"ssh", "double", "anomaly", "quadruple", "lifted", "time"}
    older = third.at(version=before).load().compute()
    assert float(older.ssh.max()) < 100
    np.testing.assert_array_equal(older.quadruple, 4 * older.ssh)


def test_a_view_below_others_keeps_what_they_show(chain: list[Any], registry: izc.Registry) -> None:
    _, first, second, third = chain
    for refused in (
        lambda: first.drop_variable("double"),
        lambda: first.drop_variable("ssh"),
        lambda: izc.drop_collection(registry, second.name),
    ):
        with pytest.raises(izc.InvalidInputError, match=r"made/second|made/third"):
            refused()
    second.rename_variable("double", "twice")  # kept by its id
    assert "double" in third.load()
    izc.drop_collection(registry, third.name)
    izc.drop_collection(registry, second.name)
    first.drop_variable("double")


def test_a_pinned_view_over_a_view_stays(chain: list[Any], registry: izc.Registry, tmp_path: Path) -> None:
    base, first, *_ = chain
    pinned = izc.create_view(registry, "made/pinned", first, location=str(tmp_path / "pinned"), pinned_version=2)
    pinned.update(quadruple, outputs=[QUADRUPLE], inputs=["double"], rowwise=True)
    before = pinned.load().compute()
    base.insert(days("2022-02-10", 2, level=100.0))
    first.sync()
    xr.testing.assert_identical(pinned.load().compute(), before)
    assert pinned.is_synced()
    pinned.sync(pinned_version=first.version)
    data = pinned.load().compute()
    np.testing.assert_array_equal(data.quadruple, 4 * data.ssh)
    assert float(data.ssh.max()) > 90


def test_a_neighbour_that_the_view_below_takes_no_more_or_again_is_another_one(
    registry: izc.Registry, tmp_path: Path
) -> None:
    first = view_of(winter_in(registry, tmp_path / "base"))
    second = izc.create_view(registry, "made/second", first, location=str(tmp_path / "second"))
    second.update(smooth, outputs=[SMOOTH], inputs=["ssh"], depth=1)
    first.set_filters("month != 2")
    assert reasons(second.stale()) == {JANUARY: "neighbour", MARCH: "neighbour"}
    second.sync()
    assert_computed(second.load().compute(), "smooth")
    assert second.is_synced()
    first.set_filters("month > 0")
    # What was computed of February, between both, lay there meanwhile.
    assert reasons(second.stale()) == {JANUARY: "neighbour", MARCH: "neighbour"}
    second.sync()
    assert_computed(second.load().compute(), "smooth")
    assert second.is_synced()


def test_what_the_view_below_takes_no_more_or_again_is_told_as_gone_and_as_added(
    registry: izc.Registry, tmp_path: Path
) -> None:
    base = winter_in(registry, tmp_path / "base")
    first = view_of(base)
    second = izc.create_view(registry, "made/second", first, location=str(tmp_path / "second"))
    second.update(double, outputs=[DOUBLE], inputs=["ssh"], rowwise=True)

    def told(since: izc.Version) -> dict[Any, str]:
        return {key: each.kind for key, each in second.diff(since).items()}

    oldest = second.version
    first.set_filters("month != 2")
    assert second.is_synced()
    assert told(oldest) == {FEBRUARY: "removed"}
    base.insert(days("2022-02-10", 2, level=100.0))
    base.insert(days("2022-03-10", 2, level=100.0))
    first.sync()
    second.sync()
    assert told(oldest) == {FEBRUARY: "removed", MARCH: "changed"}
    without = second.version
    first.set_filters("month > 0")
    assert reasons(second.stale()) == {FEBRUARY: "rows"}
    second.sync()
    assert told(without) == {FEBRUARY: "added"}
    assert told(oldest) == {FEBRUARY: "changed", MARCH: "changed"}


def test_rows_that_leave_the_collection_leave_all_views_over_it(registry: izc.Registry, tmp_path: Path) -> None:
    base = winter_in(registry, tmp_path / "base")
    first = view_of(base)
    first.update(double, outputs=[DOUBLE], inputs=["ssh"], rowwise=True)
    second = izc.create_view(registry, "made/second", first, location=str(tmp_path / "second"))
    base.drop_rows(where={"time": ("2022-02-01", "2022-02-10")})
    assert first.is_synced()  # what is left is what it was
    assert second.load().sizes["time"] == 90
    assert first.sync() == {}
    assert second.load().sizes["time"] == 80
    assert first.sync() == {}
    assert first.version.number == 2  # there was nothing more to tell


def test_what_a_late_writer_of_the_view_below_wrote_counts_the_rows_that_it_saw(
    registry: izc.Registry, tmp_path: Path
) -> None:
    base = winter_in(registry, tmp_path / "base")
    base.drop_rows(where={"time": ("2022-02-01", "2022-02-05")})
    first = view_of(base)
    first.update(double, outputs=[DOUBLE], inputs=["ssh"], rowwise=True)
    second = izc.create_view(registry, "made/second", first, location=str(tmp_path / "second"))
    second.update(quadruple, outputs=[QUADRUPLE], inputs=["double"], rowwise=True)

    def while_rows_come(data: xr.Dataset) -> dict[str, Any]:
        if base.version.number == 2:
            base.insert(days("2022-02-01", 5))
            # A version over the newest of the base, which is not the one that is read.
            first.set_filters("year == 2022")
        return {"double": data.ssh * 3}

    first.update(
        while_rows_come, outputs=["double"], inputs=["ssh"], filters="month == 2", rowwise=True, scheduler="synchronous"
    )
    assert first.version.number == 3
    assert {key: (each.reason, each.changed) for key, each in second.stale().items()} == {FEBRUARY: ("rows", 28)}
    data = second.load(stale="fill", filters="month == 2").compute()
    assert data.quadruple.isnull().all()
    assert int(data.double.count()) == 23


def change(base: izc.Collection, random: Random) -> None:
    """Do something to the collection under the views."""
    first = np.datetime64("2022-01-01") + np.timedelta64(random.randrange(100), "D")
    what = random.choice(["insert", "insert", "update", "drop", "rewrite"])
    if what == "insert":
        base.insert(days(str(first), random.randint(1, 20), level=float(random.randrange(100))))
    elif what == "update":
        base.update(lambda data: {"ssh": data.ssh + random.randint(1, 9)}, filters=f"month == {random.randint(1, 4)}")
    elif what == "drop":
        base.drop_rows(where={"time": (str(first), str(first + np.timedelta64(random.randint(0, 9), "D")))})
    else:
        base.rewrite()


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_below_nothing_lies_beside_what_it_was_not_computed_from(chain: list[Any], seed: int) -> None:
    random, second = Random(seed), chain[2]
    second.update(smooth, outputs=[SMOOTH], inputs=["ssh"], depth=1)
    for _ in range(7):
        at, what = random.randrange(1, 4), random.random()
        if what < 0.5:
            at = 0
            change(chain[0], random)
        elif what < 0.8:
            chain[at].sync(filters=random.choice([None, f"month == {random.randint(1, 4)}"]))
        else:
            chain[at].set_filters(f"month {random.choice(['==', '!=', '<'])} {random.randint(1, 4)}")
        assert_consistent(chain[max(at, 1) : at + 2])  # those above are over versions that have not changed
    assert_consistent(chain[1:])
    for view in chain[1:]:
        view.set_filters("month > 0")
    assert_synced(chain)
    assert_computed(second.load().compute(), "smooth")
