"""Two writers at once: whatever they do, it is as if they had come one after the other.

The order is forced: the first one has written everything, and stops just before its commit; the second one goes
first. The same two writes, one after the other in the order of their commits, say what has to come out.
"""

import logging
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import pytest
import sqlalchemy as sa
import xarray as xr

import intake_zcollection as izc
import intake_zcollection.writing.write
from intake_zcollection.handle import Handle
from intake_zcollection.writing import group
from registry.sql import tables
from registry.sql.engine import writing
from tests.conftest import both_engines
from tests.processes import start_fork_server
from tests.racing import (
    BEGIN,
    HOUR,
    MONTH,
    Verb,
    assert_clean,
    before_its_commits,
    garbage_of,
    groups_on_disk,
    held,
    rows,
    selected,
)

Make = Callable[..., izc.Collection]

OLD = [10, 20, 30, 40]
NEW = izc.Variable("new", "f8", ("time",))
GAP = np.timedelta64(3, "h")


def insert(hours: Sequence[int], source: float, merge: Any = "append", **options: Any) -> Verb:
    return lambda collection: collection.insert(rows(hours, source), merge=merge, **options)


def halves(existing: xr.Dataset, inserted: xr.Dataset, **_: Any) -> xr.Dataset:
    """A merge function of somebody's: every other row gives way."""
    return xr.concat([existing.isel(time=slice(None, None, 2)), inserted], "time")


def update(name: str, of: str | None = None, **options: Any) -> Verb:
    """A verb that computes a variable of one that is there, itself if none is named."""
    of = of or name

    def compute(data: xr.Dataset) -> dict[str, Any]:
        return {name: data[of].values * 3 + 1}

    return lambda collection: collection.update(compute, **{"inputs": [of], "outputs": [name]} | options)


def add_and_fill(collection: izc.Collection) -> Any:
    return collection.update(lambda d: {"new": d.a + 0.5}, inputs=["a"], outputs=[NEW])


def metres(hours: Sequence[int]) -> xr.Dataset:
    """Rows that say in which units they are."""
    data = rows(hours, 1)
    data.a.attrs["units"] = "m"
    return data


def smooth(data: xr.Dataset) -> dict[str, Any]:
    return {"a": data.a + data.a.sum()}


def drop(low: int, high: int) -> Verb:
    return lambda collection: collection.drop_rows(where={"time": (BEGIN + low * HOUR, BEGIN + high * HOUR)})


DAYS = tuple(rows([24 * day + hour for hour in (0, 6, 12, 18)]) for day in range(3))
"""Three deliveries, which are three parts."""


@dataclass(frozen=True)
class Race:
    """Two writes, the second of which commits in the middle of the first."""

    first: Verb
    second: Verb
    reruns: int = 0
    """How often the first one is run again."""
    left: int | None = None
    """How many groups it has written in vain; one each time unless said otherwise."""
    before: Sequence[xr.Dataset] = (rows(OLD),)
    """What is inserted first."""
    afterwards: Verb | None = None
    """What the first one would be if it had begun after the second one, if that is told in another way."""


def merges(merge: Any, **options: Any) -> dict[str, Race]:
    """Two inserts of one strategy, into a partition that is there and into one that is not."""
    first, second = insert([15, 20, 26], 1, merge, **options), insert([20, 23, 35], 2, merge, **options)
    name = merge if isinstance(merge, str) else "a function"
    return {
        f"{name} × {name}": Race(first, second, 1),
        f"{name} × {name}, into nothing": Race(first, second, 1, before=()),
        f"{name} × {name}, into another partition": Race(
            insert([MONTH + 15, MONTH + 26], 1, merge, **options), second, 0
        ),
    }


APPENDS = {
    "side by side": Race(insert([100, 106], 1), insert([50, 56], 2)),
    "side by side, into nothing": Race(insert([100, 106], 1), insert([50, 56], 2), before=()),
    "of different months": Race(insert([MONTH, MONTH + 5], 1), insert([50, 56], 2)),
    "in between": Race(insert([100, 110], 1), insert([105], 2), 1),
    "around": Race(insert([100, 110], 1), insert([90, 120], 2), 1),
    "overlapping, into nothing": Race(insert([100, 110], 1), insert([105, 115], 2), 1, before=()),
    "into two holes of one part": Race(insert([15], 1), insert([35], 2), 1),
    "into two parts": Race(insert([3], 1), insert([27], 2), before=DAYS),
    "of many months, one of them in conflict": Race(
        insert([100, 110, MONTH + 100, 2 * MONTH + 100], 1), insert([105], 2), 1
    ),
    "of many months, two of them in conflict": Race(
        insert([100, 110, MONTH + 100, MONTH + 110, 2 * MONTH + 100], 1), insert([105, MONTH + 105], 2), 1, 2
    ),
}
MERGES = {
    **merges("upsert"),
    **merges("upsert", tolerance=GAP),
    **merges("keep"),
    **merges("concat"),
    **merges("time_series"),
    **merges("time_series", tolerance=GAP),
    **merges(halves),
    "replace × replace": Race(insert([1, 2], 1, "replace"), insert([3, 50], 2, "replace")),
    "replace × replace, into nothing": Race(insert([1], 1, "replace"), insert([3], 2, "replace"), before=()),
    "replace × append": Race(insert([1, 2], 1, "replace"), insert([50], 2)),
    "append × replace": Race(insert([50], 1), insert([1, 2], 2, "replace")),
    "append into a hole × replace": Race(insert([15], 1), insert([1, 2], 2, "replace"), 1),
    "upsert × replace": Race(insert([10, 20], 1, "upsert"), insert([20], 2, "replace"), 1),
    "time_series × upsert elsewhere": Race(insert([0, 6], 1, "time_series"), insert([30], 2, "upsert"), before=DAYS),
    "upsert × upsert of another day": Race(insert([6], 1, "upsert"), insert([30], 2, "upsert"), before=DAYS),
    "keep × drop_rows of what was left out": Race(insert([10, 50], 1, "keep"), drop(10, 10), 1),
    "keep of nothing new × append": Race(insert([10, MONTH], 1, "keep"), insert([50], 2)),
    "refuse × append elsewhere": Race(insert([MONTH], 1, "refuse"), insert([50], 2)),
}
UPDATES = {
    "append × update": Race(insert([50, 56], 1), update("a")),
    "append into a hole × update": Race(insert([15], 1), update("a"), 0),
    "upsert of all in its range × update": Race(insert([20, 26], 1, "upsert"), update("a")),
    "upsert × update": Race(insert([15, 26], 1, "upsert"), update("a"), 1),
    "concat × update of another variable": Race(insert([15, 25], 1, "concat"), update("b"), 1),
    "time_series × update": Race(insert([0, 99], 1, "time_series"), update("a"), 0),
    "function × update": Race(insert([15], 1, halves), update("a"), 1),
    "update × append": Race(update("a"), insert([50], 2), 1),
    "update × upsert": Race(update("a"), insert([20, 21], 2, "upsert"), 1),
    "update × replace": Race(update("a"), insert([20, 21], 2, "replace"), 1),
    "update × drop_rows": Race(update("a"), drop(20, 30), 1),
    "update × drop_partitions": Race(update("a"), lambda c: c.drop_partitions(all=True), 1),
    "update × update": Race(update("a"), update("a"), 1),
    "update × update of what it reads": Race(update("a", "b"), update("b"), 1),
    "update × update of another variable": Race(update("a"), update("b")),
    "update × update of both": Race(
        update("a"), lambda c: c.update(lambda d: {"a": d.a + 7, "b": d.b * 2}, outputs=["a", "b"]), 1
    ),
    "update × rewrite": Race(update("a"), lambda c: c.rewrite(), 1, before=DAYS),
    "update × add a variable": Race(update("a"), add_and_fill),
    "update that adds × the same": Race(
        lambda c: c.update(lambda d: {"mine": d.a}, inputs=["a"], outputs=[izc.Variable("mine", "f8", ("time",))]),
        add_and_fill,
        1,
    ),
    "update with neighbours × a new neighbour": Race(
        lambda c: c.update(smooth, inputs=["a"], outputs=["a"], depth=1, filters="month == 1"),
        insert([MONTH, MONTH + 1], 2),
        1,
    ),
    "update with neighbours × a neighbour's values": Race(
        lambda c: c.update(smooth, inputs=["a"], outputs=["a"], depth=1, filters="month == 1"),
        lambda c: c.update(lambda d: {"a": d.a * 2}, outputs=["a"], filters="month == 2"),
        1,
        before=(rows([10, MONTH + 5]),),
    ),
    "update with neighbours × a new neighbour that it is about too": Race(
        lambda c: c.update(smooth, inputs=["a"], outputs=["a"], depth=1),
        insert([MONTH, 3 * MONTH], 2),
        1,
        3,
        before=(rows([10, 2 * MONTH, 10 * MONTH]),),
    ),
    "update with neighbours × one beyond them": Race(
        lambda c: c.update(smooth, inputs=["a"], outputs=["a"], depth=1, filters="month == 1"),
        insert([2 * MONTH + 50], 2),
        before=(rows([10, MONTH + 5]),),
    ),
}
OTHERS = {
    "append × rewrite": Race(insert([100], 1), lambda c: c.rewrite(), before=DAYS),
    "append into a hole × rewrite": Race(insert([3], 1), lambda c: c.rewrite(), 1, before=DAYS),
    "rewrite × append past the end": Race(lambda c: c.rewrite(), insert([100], 2), before=DAYS),
    "rewrite × append into a hole": Race(lambda c: c.rewrite(), insert([3], 2), 1, before=DAYS),
    "rewrite × append to some of its parts": Race(lambda c: c.rewrite(), insert([5, 99], 2), 1, before=DAYS),
    "rewrite × update": Race(lambda c: c.rewrite(), update("a"), 1, before=DAYS),
    "rewrite × add and fill a variable": Race(lambda c: c.rewrite(), add_and_fill, 1, before=DAYS),
    "rewrite × drop_partitions": Race(lambda c: c.rewrite(), lambda c: c.drop_partitions(all=True), 1, before=DAYS),
    "rewrite × rewrite": Race(lambda c: c.rewrite(), lambda c: c.rewrite(), 1, before=DAYS),
    "drop_rows × append elsewhere": Race(drop(20, 35), insert([50], 2)),
    "drop_rows × append between": Race(drop(20, 35), insert([25], 2), 1, 0),
    "drop_rows of all before × append before them": Race(
        lambda c: c.drop_rows(where={"time": (None, BEGIN + 30 * HOUR)}), insert([5], 2), 1, 0
    ),
    "drop_rows of all after × append after them": Race(
        lambda c: c.drop_rows(where={"time": (BEGIN + 30 * HOUR, None)}), insert([50], 2), 1, 0
    ),
    "drop_rows × update": Race(drop(20, 35), update("a")),
    "drop_rows × drop_rows": Race(drop(20, 30), drop(25, 40), 1, 0),
    "drop_rows × drop_rows of the same": Race(drop(20, 30), drop(20, 30), 1, 0),
    "drop_rows by values × append": Race(lambda c: c.drop_rows(where={"a": (20, 30)}), insert([50], 0), 1, 0),
    "drop_rows by values × add and fill a variable": Race(
        lambda c: c.drop_rows(where={"a": (6, 24)}), add_and_fill, 1, 0, before=DAYS
    ),
    "drop_rows by values × update": Race(lambda c: c.drop_rows(where={"a": (25, 70)}), update("a"), 1, 0),
    "append × drop_rows": Race(insert([15], 1), drop(20, 30), 1),
    "append × drop_partitions": Race(insert([15], 1), lambda c: c.drop_partitions(all=True), 1),
    "append past the end × drop_partitions": Race(insert([50], 1), lambda c: c.drop_partitions(all=True)),
    "drop_partitions × a new one that it is about": Race(
        lambda c: c.drop_partitions(filters="month in (1, 2)"), insert([MONTH, 2 * MONTH], 2)
    ),
    "set_attributes × append": Race(lambda c: c.set_attributes({"units": "m"}, "a"), insert([50], 2)),
    "append of other units × set_attributes": Race(
        lambda c: c.insert(metres([50, MONTH]), attributes="convert"),
        lambda c: c.set_attributes({"units": "km"}, "a"),
        1,
        2,
    ),
    "append of other units × set_attributes of what says nothing of them": Race(
        lambda c: c.insert(metres([50, MONTH]), attributes="convert"),
        lambda c: c.set_attributes({"comment": "corrected", "long_name": "height"}, "a"),
    ),
    "append × set_attributes": Race(insert([50], 2), lambda c: c.set_attributes({"title": "t"})),
}
FILLED = {"missing": "fill"}
SCHEMA = {
    "append × add a variable": Race(
        insert([50], 1), lambda c: c.add_variable(NEW), afterwards=insert([50], 1, **FILLED)
    ),
    "append × add and fill a variable": Race(insert([50], 1), add_and_fill, afterwards=insert([50], 1, **FILLED)),
    "append into a hole × add and fill a variable": Race(
        insert([15], 1), add_and_fill, afterwards=insert([15], 1, **FILLED)
    ),
    "append × an append that brings a variable": Race(
        insert([50], 1),
        lambda c: c.insert(rows([60], 2, new=0.5), unknown="add"),
        afterwards=insert([50], 1, **FILLED),
    ),
    **{
        f"{name} × add and fill a variable": Race(
            insert([15, 25], 1, merge), add_and_fill, 1, afterwards=insert([15, 25], 1, merge, **FILLED)
        )
        for name, merge in {"upsert": "upsert", "concat": "concat", "a function": halves}.items()
    },
    "an upsert of two months × add and fill a variable": Race(
        insert([15, 25, MONTH + 15], 1, "upsert"),
        add_and_fill,
        1,
        afterwards=insert([15, 25, MONTH + 15], 1, "upsert", **FILLED),
    ),
    "upsert × an upsert that brings a variable": Race(
        insert([15, 25, MONTH], 1, "upsert"),
        lambda c: c.insert(rows([20, 21], 2, new=0.5), merge="upsert", unknown="add"),
        1,
        afterwards=insert([15, 25, MONTH], 1, "upsert", **FILLED),
    ),
    "an upsert that brings a variable × upsert": Race(
        lambda c: c.insert(rows([15, 25, MONTH], 1, new=0.5), merge="upsert", unknown="add"),
        insert([20, 21], 2, "upsert"),
        1,
    ),
    "an upsert that brings a variable × another one that does": Race(
        lambda c: c.insert(rows([15, 25, MONTH], 1, new=0.5), merge="upsert", unknown="add"),
        lambda c: c.insert(rows([20, 21], 2, other=0.5), merge="upsert", unknown="add"),
        1,
        2,
        afterwards=lambda c: c.insert(rows([15, 25, MONTH], 1, new=0.5), merge="upsert", unknown="add", missing="fill"),
    ),
    "an append that brings a variable × one that brings the same": Race(
        lambda c: c.insert(rows([50, MONTH], 1, new=0.5), unknown="add"),
        lambda c: c.insert(rows([60], 2, new=0.25), unknown="add"),
        1,
        2,
    ),
    "update × rename another variable": Race(update("a"), lambda c: c.rename_variable("b", "c")),
    "update × drop another variable": Race(update("a"), lambda c: c.drop_variable("b")),
}


def with_mask(data: xr.Dataset, mask: float) -> xr.Dataset:
    """Rows, and a variable that is stored once."""
    return data.assign(mask=((), mask), shore=((), -1.0))


def set_mask(name: str, value: float) -> Verb:
    return lambda collection: collection.set_immutables(xr.Dataset({name: ((), value)}))


MASKED = (with_mask(rows(OLD), 7),)
IMMUTABLES = {
    "insert × set_immutables to what they are": Race(
        lambda c: c.insert(with_mask(rows([50, MONTH]), 7)), set_mask("mask", 7), 1, 2, before=MASKED
    ),
    "insert without them × set_immutables": Race(insert([50], 1), set_mask("mask", 8), before=MASKED),
    "insert × insert, which both bring them first": Race(
        lambda c: c.insert(with_mask(rows([50]), 7)), lambda c: c.insert(with_mask(rows([60]), 7)), 1, 2, before=()
    ),
    "insert that brings them × insert that does not": Race(
        lambda c: c.insert(with_mask(rows([50]), 7)), insert([60], 2), before=()
    ),
    "set_immutables × insert": Race(set_mask("mask", 8), insert([50], 1), before=MASKED),
    "set_immutables × set_immutables": Race(set_mask("mask", 8), set_mask("shore", 9), 1, before=MASKED),
    "update that sees them × set_immutables": Race(
        lambda c: c.update(lambda d: {"a": d.a + d.mask}, inputs=["a", "mask"], outputs=["a"]),
        set_mask("mask", 8),
        1,
        before=MASKED,
    ),
}


def deliver(hours: dict[str, int], seen: Any = "skip") -> Verb:
    """Insert a row of each of several named sources."""
    return lambda collection: collection.insert(
        [rows([hour]) for hour in hours.values()], sources=dict.fromkeys(hours, "1"), seen=seen
    )


SOURCES = {
    "the same source": Race(deliver({"a.nc": 50, "b.nc": 60}), deliver({"a.nc": 50}), 1),
    "the same source in another month": Race(deliver({"a.nc": 50, "b.nc": MONTH}), deliver({"a.nc": 50}), 1, 2),
    "the same two sources": Race(deliver({"a.nc": 50, "b.nc": 60}), deliver({"b.nc": 60, "a.nc": 50}), 1),
    "other sources": Race(deliver({"a.nc": 50}), deliver({"b.nc": 60})),
}
RACES = {**APPENDS, **MERGES, **UPDATES, **OTHERS, **SCHEMA, **IMMUTABLES, **SOURCES}


def outcome(verb: Verb, collection: izc.Collection) -> BaseException | None:
    """What a verb raises."""
    try:
        verb(collection)
    except izc.ZCollectionError as error:
        return error
    return None


def run(
    make: Make, patch: pytest.MonkeyPatch, race: Race
) -> tuple[izc.Collection, izc.Collection, tuple[BaseException | None, BaseException | None]]:
    """Run a race, and the same two writes one after the other; return both collections, and what the first raised."""
    raced, alone = (make(with_mask(rows([]), 0)) for _ in range(2))
    for collection in (raced, alone):
        for data in race.before:
            collection.insert(data)
    with patch.context() as patched:
        left = before_its_commits(patched, lambda: race.second(raced))
        raised = outcome(race.first, raced)
        assert left == [], "the first one has not come to its commit"
    assert outcome(race.second, alone) is None
    return raced, alone, (raised, outcome(race.afterwards or race.first, alone))


def reruns_told(caplog: pytest.LogCaptureFixture) -> int:
    """How often the log says that a write is run again."""
    told = [record for record in caplog.records if record.name == "intake_zcollection.writing.write"]
    return sum("is planned again" in record.getMessage() for record in told)


@pytest.mark.parametrize("name", RACES)
def test_two_writes_at_once_are_as_one_after_the_other(
    registry: izc.Registry,
    make_collection: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    race = RACES[name]
    with caplog.at_level(logging.INFO, "intake_zcollection.writing.write"):
        raced, alone, raised = run(make_collection, monkeypatch, race)
    assert raised == (None, None)
    xr.testing.assert_identical(raced.load().compute(), alone.load().compute())
    assert [each.number for each in raced.versions()] == [each.number for each in alone.versions()]
    assert reruns_told(caplog) == race.reruns
    *_, last = raced.versions()
    if last.number == len(race.before) + 2:  # otherwise there was nothing left to do
        assert last.summary.get("reruns") == (race.reruns or None)
        assert len(garbage_of(registry, raced)) == (race.reruns if race.left is None else race.left)
    assert_clean(registry, raced)


# What is raised

ERRORS: dict[str, tuple[Race, type[Exception]]] = {
    "the same rows, appended twice": (Race(insert([50, 56], 1), insert([50, 56], 2), 1), izc.AlreadyExistsError),
    "the same rows into nothing": (Race(insert([50], 1), insert([50], 2), 1, before=()), izc.AlreadyExistsError),
    "the same rows, in one of two months": (
        Race(insert([50, MONTH], 1), insert([50, 56], 2), 1),
        izc.AlreadyExistsError,
    ),
    "refuse of a partition that has come": (
        Race(insert([MONTH, MONTH + 9], 1, "refuse"), insert([MONTH + 5], 2), 1),
        izc.AlreadyExistsError,
    ),
    "immutable variables that are others now": (
        Race(lambda c: c.insert(with_mask(rows([50]), 7)), set_mask("mask", 8), 1, before=MASKED),
        izc.InvalidInputError,
    ),
    "two first inserts with other immutable variables": (
        Race(lambda c: c.insert(with_mask(rows([50]), 7)), lambda c: c.insert(with_mask(rows([60]), 8)), 1, before=()),
        izc.InvalidInputError,
    ),
    "a source that is refused twice": (
        Race(deliver({"a.nc": 50, "b.nc": 60}, "refuse"), deliver({"a.nc": 70}), 1),
        izc.AlreadyExistsError,
    ),
    "a variable that both add": (
        Race(add_and_fill, lambda c: c.add_variable(NEW), 1),
        izc.InvalidInputError,
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_write_that_is_run_again_raises_what_it_raises_alone_and_leaves_nothing(
    registry: izc.Registry,
    make_collection: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    race, kind = ERRORS[name]
    with caplog.at_level(logging.INFO, "intake_zcollection.writing.write"):
        raced, alone, (raised, expected) = run(make_collection, monkeypatch, race)
    assert type(raised) is type(expected) is kind
    assert str(raised) == str(expected).replace(alone.name, raced.name)
    assert reruns_told(caplog) == race.reruns
    xr.testing.assert_identical(raced.load().compute(), alone.load().compute())
    assert garbage_of(registry, raced) == set(), "it is deleted at once"
    assert len(groups_on_disk(raced)) == len(groups_on_disk(alone))
    assert_clean(registry, raced)


GONE: dict[str, tuple[Verb, Verb, str]] = {
    "append × drop": (insert([50], 1), lambda c: c.drop_variable("b"), "b"),
    "upsert × drop": (insert([15, 25], 1, "upsert"), lambda c: c.drop_variable("b"), "b"),
    "upsert × drop, and rows": (
        insert([15, 25], 1, "upsert"),
        lambda c: (c.drop_variable("b"), c.insert(rows([20]).drop_vars("b"), merge="upsert")),
        "b",
    ),
    "upsert × rename, and rows": (
        insert([15, 25], 1, "upsert"),
        lambda c: (c.rename_variable("b", "c"), c.insert(rows([20]).rename(b="c"), merge="upsert")),
        "b",
    ),
    "update × drop": (update("b"), lambda c: c.drop_variable("b"), "b"),
    "update × drop and add": (
        update("b"),
        lambda c: (c.drop_variable("b"), c.add_variable(izc.Variable("b", "f8", ("time",)))),
        "b",
    ),
}


@pytest.mark.parametrize("name", GONE)
def test_what_a_write_brings_of_a_variable_that_is_gone_is_a_conflict_by_name(
    registry: izc.Registry,
    make_collection: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    first, second, variable = GONE[name]
    collection = make_collection(rows([]))
    collection.insert(rows(OLD))
    with monkeypatch.context() as patched, caplog.at_level(logging.INFO, "intake_zcollection.writing.write"):
        before_its_commits(patched, lambda: second(collection))
        with pytest.raises(izc.ConflictError, match=rf"\b{variable}\b") as caught:
            first(collection)
    assert caught.type is izc.ConflictError
    assert collection.name in str(caught.value)
    assert reruns_told(caplog) == 0
    assert_clean(registry, collection)


@pytest.mark.parametrize(
    "edit",
    [lambda c: c.drop_variable("mask"), lambda c: c.rename_variable("mask", "cover")],
    ids=["dropped", "renamed"],
)
def test_values_of_an_immutable_variable_that_is_gone_are_a_conflict_by_name(
    registry: izc.Registry, make_collection: Make, monkeypatch: pytest.MonkeyPatch, edit: Verb
) -> None:
    collection = make_collection(with_mask(rows([]), 0))
    collection.insert(with_mask(rows(OLD), 7))
    with monkeypatch.context() as patched:
        before_its_commits(patched, lambda: edit(collection))
        with pytest.raises(izc.ConflictError, match=r"\bmask\b"):
            set_mask("mask", 8)(collection)
    assert [float(v) for name, v in collection.load().compute().variables.items() if name == "cover"] in ([], [7.0])
    assert_clean(registry, collection)


def test_what_is_planned_again_has_the_version_pinned_that_it_reads(
    registry: izc.Registry, make_collection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = make_collection(rows([]))
    collection.insert(rows(OLD))
    pinned: list[int] = []

    def look() -> None:
        pinned.extend(sorted(version for (version,) in selected(registry, tables.pin.c.version)))

    with monkeypatch.context() as patched:
        before_its_commits(patched, lambda: collection.insert(rows([20], 2), merge="upsert"), look)
        collection.insert(rows([20, 25], 1), merge="upsert")
    assert pinned == [1, 2]


def test_a_variable_that_goes_while_a_write_is_about_to_be_planned_again_is_a_conflict_by_name_too(
    registry: izc.Registry, make_collection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = make_collection(rows([]))
    collection.insert(rows(OLD))
    with monkeypatch.context() as patched:
        before_its_commits(patched, lambda: collection.insert(rows([20], 2), merge="upsert"))
        # Between the loss and the new plan it only waits.
        patched.setattr(time, "sleep", lambda _: collection.rename_variable("b", "c"))
        with pytest.raises(izc.ConflictError, match="another writer renamed b to c, which it has"):
            collection.insert(rows([20, 25], 1), merge="upsert")
    assert held(collection, "c")[20] == -20_020
    assert_clean(registry, collection)


@both_engines
def test_a_write_that_is_not_repeatable_says_who_was_faster_and_leaves_nothing(
    registry: izc.Registry, make_collection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = make_collection(rows([]))
    collection.insert(rows([*OLD, MONTH, 2 * MONTH - 5, 2 * MONTH, 2 * MONTH + 5]))
    others: list[izc.Version] = []

    def interfere() -> None:
        others.append(collection.insert(rows([20], 2), merge="upsert", message="a correction"))
        others.append(collection.insert(rows([MONTH + 50], 2)))  # of rows that nobody else touches
        others.append(collection.insert(rows([2 * MONTH], 2), merge="upsert"))

    for verb in (
        insert([15, 25, 30, MONTH + 5, 2 * MONTH - 1, 2 * MONTH + 1], 1, "concat", repeatable=False),
        lambda c: c.update(lambda d: {"a": d.a}, outputs=["a"], filters="month in (1, 3)", repeatable=False),
    ):
        others.clear()
        with monkeypatch.context() as patched:
            before_its_commits(patched, interfere)
            with pytest.raises(izc.ConflictError) as caught:
                verb(collection)
        error = caught.value
        assert error.keys == ("year=2022/month=01", "year=2022/month=03")
        assert all(conflict.what for conflict in error.conflicts)
        assert {slot.key[1] for conflict in error.conflicts for slot in conflict.slots} == {1, 3}
        assert error.versions == (others[0], others[2])
        numbers = f"versions {others[0].number} to {others[2].number}"
        for part in (collection.name, "year=2022/month=01", others[0].author, numbers):
            assert part in str(error)
        assert collection.versions()[-1] == others[2]
        collection.drop_rows(where={"time": (BEGIN + (MONTH + 50) * HOUR, BEGIN + (MONTH + 50) * HOUR)})
        assert_clean(registry, collection)
    assert garbage_of(registry, collection) == set()


# What is run again


@pytest.fixture
def jobs_run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the groups that are put down."""
    paths: list[str] = []
    put_down = group.put_down

    def note_and_put_down(coordinator: Any, indexers: Any, job: Any, arrays: Any) -> Any:
        paths.append(job.target.path)
        return put_down(coordinator, indexers, job, arrays)

    monkeypatch.setattr(intake_zcollection.writing.write, "put_down", note_and_put_down)
    return paths


def months_of(paths: Sequence[str]) -> list[int]:
    return [int(path.split("month=")[1][:2]) for path in paths]


@both_engines
def test_only_the_partitions_in_conflict_are_written_again_each_under_a_new_name(
    registry: izc.Registry, make_collection: Make, monkeypatch: pytest.MonkeyPatch, jobs_run: list[str]
) -> None:
    collection = make_collection(rows([]))
    collection.insert(rows(OLD))
    del jobs_run[:]
    with monkeypatch.context() as patched:
        before_its_commits(patched, lambda: collection.insert(rows([105, 3 * MONTH - 30], 2)))
        data = rows([100, 110, MONTH + 100, MONTH + 110, 2 * MONTH], 1)
        version = collection.insert(data, scheduler="synchronous")
    first, others, again = jobs_run[:3], jobs_run[3:5], jobs_run[5:]
    assert (sorted(months_of(first)), sorted(months_of(others)), months_of(again)) == ([1, 2, 3], [1, 4], [1])
    in_vain = {path for path in first if months_of([path]) == [1]}
    assert garbage_of(registry, collection) == {path.rsplit("/", 1)[-1] for path in in_vain}
    paths = [path for part in collection.partitions() for group in part.fragments.values() for path in group]
    for each in {*first, *others, *again} - in_vain:
        assert any(path.startswith(each) for path in paths)
    assert version.summary["reruns"] == 1
    assert_clean(registry, collection)


@both_engines
def test_a_write_may_lose_several_times_each_time_elsewhere(
    registry: izc.Registry, make_collection: Make, monkeypatch: pytest.MonkeyPatch, jobs_run: list[str]
) -> None:
    collection, alone = make_collection(rows([])), make_collection(rows([]))
    others = [add_and_fill, insert([MONTH + 15], 2, **FILLED), insert([25], 3, **FILLED)]
    first = insert([12, 28, MONTH + 12, MONTH + 18, 2 * MONTH + 3], 1, "upsert", scheduler="synchronous", **FILLED)
    for each in (collection, alone):
        each.insert(rows([*OLD, MONTH + 10, MONTH + 20]))
    del jobs_run[:]
    with monkeypatch.context() as patched:
        left = before_its_commits(patched, *(lambda verb=verb: verb(collection) for verb in others))
        version = first(collection)
    assert left == []
    assert version.summary["reruns"] == 3
    for verb in (*others, first):
        verb(alone)
    xr.testing.assert_identical(collection.load().compute(), alone.load().compute())
    assert len(garbage_of(registry, collection)) == 3
    assert_clean(registry, collection)


def test_no_stored_value_of_a_variable_that_came_meanwhile_reads_as_missing(
    registry: izc.Registry, make_collection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = make_collection(rows([]))
    collection.insert(rows([*OLD, MONTH + 10, MONTH + 20]))
    with monkeypatch.context() as patched:
        # January is in conflict by its rows and its layer; of February nothing is read.
        before_its_commits(patched, lambda: add_and_fill(collection), lambda: collection.insert(rows([22], 2, new=3)))
        version = collection.insert(rows([15, 25, MONTH + 30], 1), merge="upsert", missing="fill")
    assert version.summary["reruns"] == 2
    found = held(collection, "new")
    stored = {hour: hour + 0.5 for hour in (*OLD, MONTH + 10, MONTH + 20)} | {22: 20_022.0 + 3}
    assert {hour: value for hour, value in found.items() if not np.isnan(value)} == stored
    assert sorted(found) == sorted([*stored, 15, 25, MONTH + 30])
    assert_clean(registry, collection)


@both_engines
def test_values_that_an_insert_brings_of_a_new_variable_are_all_there_though_it_is_run_again(
    registry: izc.Registry, make_collection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = make_collection(rows([]))
    collection.insert(rows([*OLD, MONTH + 10, MONTH + 20]))
    other = izc.Variable("other", "f8", ("time",))
    with monkeypatch.context() as patched:
        before_its_commits(
            patched,
            lambda: collection.insert(rows([22], 2), merge="upsert"),  # January alone is written again
            lambda: collection.update(lambda d: {"other": d.a + 0.25}, inputs=["a"], outputs=[other]),
            lambda: collection.insert(rows([MONTH + 15], 2, other=0.25)),
        )
        data = rows([15, 25, MONTH + 12, MONTH + 18, 2 * MONTH], 1, new=0.5)
        version = collection.insert(data, merge="upsert", unknown="add", missing="fill")
    assert version.summary["reruns"] == 3
    brought = {int(hour): 10_000 + hour + 0.5 for hour in (15, 25, MONTH + 12, MONTH + 18, 2 * MONTH)}
    assert {hour: value for hour, value in held(collection, "new").items() if not np.isnan(value)} == brought
    computed = {hour: hour + 0.25 for hour in (*OLD, MONTH + 10, MONTH + 20)}
    computed |= {22: 20_022.25, MONTH + 15: 20_000 + MONTH + 15.25}
    assert {hour: value for hour, value in held(collection, "other").items() if not np.isnan(value)} == computed
    assert_clean(registry, collection)


def test_lazy_values_are_computed_again_for_the_partitions_in_conflict_alone(
    registry: izc.Registry, make_collection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, computed = make_collection(rows([])), list[float]()
    collection.insert(rows(OLD))

    def note(block: Any) -> Any:
        computed.append(float(block[0]))
        return block

    data = rows([15, MONTH, 2 * MONTH], 1)
    lazy = da.from_array(data.a.values, chunks=1).map_blocks(note, dtype="f8", meta=np.empty(0))
    with monkeypatch.context() as patched:
        before_its_commits(patched, lambda: collection.insert(rows([16], 2)))
        collection.insert(data.assign(a=("time", lazy)), scheduler="synchronous")
    assert sorted(computed[:3]) == data.a.values.tolist()
    assert computed[3:] == [10_015.0]
    assert held(collection) == dict(
        sorted(
            (
                {h: float(h) for h in OLD}
                | {15: 10_015.0, 16: 20_016.0}
                | {MONTH: 10_000.0 + MONTH, 2 * MONTH: 10_000.0 + 2 * MONTH}
            ).items()
        )
    )


def test_an_update_is_run_again_in_the_partitions_in_conflict_alone(
    make_collection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, seen = make_collection(rows([])), list[int]()
    collection.insert(rows([10, MONTH + 10, 2 * MONTH + 10]))

    def compute(data: xr.Dataset) -> dict[str, Any]:
        seen.append(int(data.time.dt.month[0]))
        return {"a": data.a * 2}

    with monkeypatch.context() as patched:
        before_its_commits(patched, lambda: collection.insert(rows([MONTH + 11], 2)))
        version = collection.update(compute, outputs=["a"], scheduler="synchronous")
    assert sorted(seen[:3]) == [1, 2, 3]
    assert seen[3:] == [2]
    assert version.summary["updated"] == 3
    assert version.summary["rows"] == 4
    assert held(collection)[MONTH + 11] == 2 * (20_000 + MONTH + 11)


def test_the_summary_counts_what_was_committed_and_not_what_was_written_in_vain(
    make_collection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    raced, alone = make_collection(rows([])), make_collection(rows([]))
    first, second = insert([12, 28, MONTH], 1, "upsert"), insert([20, 25], 2, "upsert")
    for collection in (raced, alone):
        collection.insert(rows(OLD))
    with monkeypatch.context() as patched:
        before_its_commits(patched, lambda: second(raced))
        version = first(raced)
    second(alone)
    assert version.summary == {**first(alone).summary, "reruns": 1}


def test_a_partition_that_comes_during_an_update_is_as_if_it_had_come_after_it(
    make_collection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = make_collection(rows([]))
    collection.insert(rows(OLD))
    with monkeypatch.context() as patched:
        before_its_commits(patched, lambda: collection.insert(rows([MONTH], 2)))
        version = collection.update(lambda d: {"a": d.a * 2}, outputs=["a"])
    assert "reruns" not in version.summary
    assert held(collection) == {**{hour: 2.0 * hour for hour in OLD}, MONTH: 20_000.0 + MONTH}


@both_engines
def test_what_is_left_out_when_it_is_planned_again_has_to_be_there_still(
    registry: izc.Registry, make_collection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = make_collection(rows([]))
    collection.insert(rows([20]))
    with monkeypatch.context() as patched:
        # The row at 10 comes from somebody else, so there is nothing to do in January; and is gone again.
        left = before_its_commits(patched, lambda: collection.insert(rows([10], 2)), lambda: drop(10, 10)(collection))
        version = collection.insert(rows([10, MONTH], 1), merge="keep")
    assert left == []
    assert version.summary["reruns"] == 2
    assert held(collection) == {10: 10_010.0, 20: 20.0, MONTH: 10_000.0 + MONTH}
    assert_clean(registry, collection)


def test_a_write_into_a_collection_that_is_dropped_meanwhile_says_so_though_it_finds_data_missing(
    registry: izc.Registry, make_collection: Make
) -> None:
    collection = make_collection(rows([]))
    collection.insert(rows([10, MONTH]))
    seen: list[int] = []

    def compute(data: xr.Dataset) -> dict[str, Any]:
        if not seen:
            izc.drop_collection(registry, collection.name)
        seen.append(1)
        return {"a": data.a * 2}

    with pytest.raises(izc.ConflictError, match="was dropped"):
        collection.update(compute, inputs=["a"], outputs=["a"], scheduler="synchronous")


def test_a_neighbour_that_comes_before_an_update_is_planned_again_is_updated_too(
    registry: izc.Registry, make_collection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    raced, alone = make_collection(rows([])), make_collection(rows([]))
    others = [insert([MONTH + 5], 2), insert([3 * MONTH], 2)]
    for collection in (raced, alone):
        collection.insert(rows([10, MONTH, 5 * MONTH]))
    smoothen: Verb = lambda c: c.update(smooth, inputs=["a"], outputs=["a"], depth=1)  # noqa: E731 - of one line
    select = Handle.select

    def come_and_select(handle: Handle, *selection: Any) -> Any:
        if raced.version.number == 2 and len(others) == 2:  # the first one is in the way, and nobody knows of this one
            others.pop()(raced)
        return select(handle, *selection)

    with monkeypatch.context() as patched:
        before_its_commits(patched, lambda: (others[0](raced), patched.setattr(Handle, "select", come_and_select)))
        version = smoothen(raced)
    assert (len(others), version.number, version.summary["reruns"]) == (1, 4, 1)
    for verb in (others[0], insert([3 * MONTH], 2), smoothen):
        verb(alone)
    xr.testing.assert_identical(raced.load().compute(), alone.load().compute())
    assert_clean(registry, raced)


# What is never run again


@both_engines
def test_a_write_that_was_fenced_is_not_run_again(
    registry: izc.Registry, make_collection: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collection = make_collection(rows([]))
    collection.insert(rows(OLD))

    def fence() -> None:
        mine = tables.transaction.c.state == "open"
        with writing(registry._url) as connection:
            connection.execute(sa.update(tables.transaction).where(mine).values(state="expired"))

    with monkeypatch.context() as patched, caplog.at_level(logging.INFO, "intake_zcollection.writing.write"):
        before_its_commits(patched, fence)
        with pytest.raises(izc.TransactionClosedError, match="expired"):
            collection.insert(rows([50], 1))
    assert reruns_told(caplog) == 0
    assert held(collection) == dict(zip(OLD, map(float, OLD), strict=True))


@both_engines
def test_a_job_that_fails_when_it_is_run_again_leaves_nothing(
    registry: izc.Registry, make_collection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, calls = make_collection(rows([])), list[int]()
    collection.insert(rows(OLD))
    before = groups_on_disk(collection)

    def compute(data: xr.Dataset) -> dict[str, Any]:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError
        return {"a": data.a * 2}

    with monkeypatch.context() as patched:
        before_its_commits(patched, lambda: collection.insert(rows([50], 2)))
        with pytest.raises(ZeroDivisionError):
            collection.update(compute, outputs=["a"], inputs=["a"], scheduler="synchronous")
    assert len(groups_on_disk(collection) - before) == 1, "the other writer's"
    assert garbage_of(registry, collection) == set()
    assert_clean(registry, collection)


# Many at once


def deliver_corrections(url: str | izc.Registry, name: str, writer: int, count: int) -> None:
    """Correct the same rows again and again; the message tells whose values they are."""
    collection = izc.open_collection(url, name)
    for number in range(count):
        source = writer * count + number
        collection.insert(rows([10, 11, 12], source), merge="upsert", message=str(source), scheduler="synchronous")


def deliver_next_to_each_other(url: str, name: str, writer: int, count: int) -> None:
    """Append rows in a stretch of its own."""
    collection = izc.open_collection(url, name)
    for number in range(count):
        collection.insert(rows([writer * count + number], writer), scheduler="synchronous")


def deliver_between_each_other(url: str, name: str, writer: int, count: int) -> None:
    """Append rows that others' rows lie between."""
    collection = izc.open_collection(url, name)
    for number in range(count):
        hours = [number * 4 * WRITERS + writer + row * WRITERS for row in range(4)]
        collection.insert(rows(hours, writer), scheduler="synchronous")


WRITERS = 8
_processes = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def _children_start_fast() -> None:
    start_fork_server()


def run_all(function: Callable[..., None], registry: izc.Registry, collection: izc.Collection, count: int) -> None:
    """Run as many processes as there are writers, and see that none of them fails."""
    arguments = [
        (registry._url.render_as_string(hide_password=False), collection.name, n, count) for n in range(WRITERS)
    ]
    processes = [_processes.Process(target=function, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
    assert [process.exitcode for process in processes] == [0] * WRITERS


@both_engines
@pytest.mark.usefixtures("_children_start_fast")
def test_processes_that_correct_the_same_rows_all_succeed_and_the_last_one_wins(
    registry: izc.Registry, make_collection: Make
) -> None:
    count = 8
    collection = make_collection(rows([]))
    collection.insert(rows([*OLD, 14]))
    run_all(deliver_corrections, registry, collection, count)
    versions = collection.versions()[2:]
    assert sorted(int(version.message) for version in versions) == list(range(WRITERS * count))
    others = {hour: float(hour) for hour in (14, 20, 30, 40)}
    for version in [*versions[::8], versions[-1]]:
        brought = {hour: int(version.message) * 10_000.0 + hour for hour in (10, 11, 12)}
        assert held(collection.at(version=version)) == brought | others
    assert_clean(registry, collection)


@pytest.mark.usefixtures("_children_start_fast")
@pytest.mark.parametrize(
    ("deliver", "per_writer"),
    [(deliver_next_to_each_other, 1), (deliver_between_each_other, 4)],
    ids=["beside", "between"],
)
def test_processes_that_append_rows_of_their_own_to_one_partition_all_succeed(
    registry: izc.Registry, make_collection: Make, deliver: Callable[..., None], per_writer: int
) -> None:
    count = 8
    collection = make_collection(rows([]))
    run_all(deliver, registry, collection, count)
    found = held(collection)
    assert list(found) == list(range(WRITERS * count * per_writer))
    whose = {hour: hour // count if per_writer == 1 else hour % WRITERS for hour in found}
    assert found == {hour: writer * 10_000.0 + hour for hour, writer in whose.items()}
    assert_clean(registry, collection)


def test_threads_that_correct_the_same_rows_all_succeed(registry: izc.Registry, make_collection: Make) -> None:
    collection = make_collection(rows([]))
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(deliver_corrections, registry, collection.name, n, 4) for n in range(4)]
        assert [each.result() for each in done] == [None] * 4
    versions = collection.versions()[1:]
    assert len(versions) == 16
    source = int(versions[-1].message)
    assert held(collection) == {hour: source * 10_000.0 + hour for hour in (10, 11, 12)}
    assert_clean(registry, collection)
