"""Any writes that were planned on one version, and committed one after the other, do what each does alone.

An oracle of plain arrays says what a verb makes of the version before its commit, whatever it was planned on: either
what it read has not changed, or it is run again.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import intake_zcollection as izc
from intake_zcollection.merging import runs
from registry.transaction import Transaction
from tests.behaviour.test_properties import MONTH, Plain, assert_plain, examples, shared_registry

__all__ = ["shared_registry"]  # a fixture

NAMES = ("x", "y", "z")
LAYERS = (("y",), ("z",), ("y", "z"))
BEGIN = np.datetime64("2022-01-01", "ns")
HOUR = np.timedelta64(1, "h")

_numbers = itertools.count()


@dataclass(frozen=True)
class Write:
    """A verb, and what it makes of a version; None where it raises."""

    name: str
    run: Callable[[izc.Collection], izc.Version]
    alone: Callable[[Plain], Plain | None]
    selects: bool = False
    """Whether it is about the partitions that are there; one that comes meanwhile is as if it had come after it."""

    def may_make(self, before: Plain, there: set[bool]) -> list[Plain | None]:
        """What may come of a version, if some partitions were there when the verb began."""
        result = self.alone(before)
        if result is None or not self.selects or there >= partitions(before):
            return [result]
        old = [second in there for second in (result.hours >= MONTH).tolist()]
        new = [second not in there for second in (before.hours >= MONTH).tolist()]
        return [result, result.take(np.array(old, bool)).join(before.take(np.array(new, bool)))]


def partitions(of: Plain) -> set[bool]:
    """Whether rows are in January (False) and February (True)."""
    return set((of.hours >= MONTH).tolist())


def dataset(of: Plain) -> xr.Dataset:
    variables = {name: ("time", values) for name, values in of.values.items()}
    return xr.Dataset(variables, {"time": BEGIN + of.hours * HOUR})


def halves(existing: xr.Dataset, inserted: xr.Dataset, **_: Any) -> xr.Dataset:
    return xr.concat([existing.isel(time=slice(None, None, 2)), inserted], "time")


def by_partition(of: Plain, change: Callable[[Plain], Plain]) -> Plain:
    parts = [change(of.take((of.hours >= MONTH) == second)) for second in (False, True)]
    return parts[0].join(parts[1])


def halved(old: Plain, new: Plain) -> Plain:
    """What the merge function makes of the partitions that get rows."""
    concerned = np.unique(new.hours >= MONTH)

    def change(part: Plain) -> Plain:
        here = len(part.hours) and part.hours[0] >= MONTH
        return part.take(slice(None, None, 2)) if here in concerned else part

    return by_partition(old, change).join(new)


HOURS = st.integers(0, 40) | st.integers(MONTH - 6, MONTH + 8)
ONE_PARTITION = st.integers(0, 40)


@dataclass
class Draw:
    """Random verbs; each value that one brings is different from all others."""

    draw: Any
    hours: Any
    values: Iterator[float] = field(default_factory=lambda: itertools.count(1.0))

    def insert(self) -> Write:
        kinds = ["append"] * 4 + ["keep", "upsert", "upsert", "concat", "time_series", "replace", "a function"]
        merge = self.draw(st.sampled_from(kinds), "merge")
        low = self.draw(self.hours, "from")
        near = st.integers(low, low + self.draw(st.sampled_from([0, 2, 9, 30]), "width"))
        hours = np.array(self.draw(st.lists(near, min_size=1, max_size=5), "hours"), "i8")
        new = Plain(hours, {name: np.array([next(self.values) for _ in hours]) for name in NAMES})
        new = new.take([]).join(new)
        tolerant = merge in ("upsert", "time_series")
        tolerance = self.draw(st.sampled_from([None, 1, 3]), "tolerance") if tolerant else None
        alone: Callable[[Plain], Plain | None]
        alone = functools.partial(Plain.merged, new=new, merge=merge, tolerance=tolerance)
        if merge == "replace":
            alone = lambda old: old.without_partitions_of(new).join(new)  # noqa: E731 - of one line
        elif merge == "a function":
            alone = lambda old: halved(old, new)  # noqa: E731 - of one line
        step = None if tolerance is None else np.timedelta64(tolerance, "h")
        how: Any = halves if merge == "a function" else merge
        return Write(merge, lambda collection: collection.insert(dataset(new), merge=how, tolerance=step), alone)

    def update(self) -> Write:
        outputs = self.draw(st.sampled_from(LAYERS), "outputs")
        depth = self.draw(st.sampled_from([0, 0, 1]), "depth")
        second = self.draw(st.sampled_from([None, None, False, True]), "of February")
        shift = next(self.values)

        def compute(of: Any) -> Any:
            return of["x"] + 3 * of["y"] + shift + (depth and of["x"].sum())

        def function(data: xr.Dataset) -> dict[str, Any]:
            made = compute({name: data[name].values for name in ("x", "y")})
            return dict.fromkeys(outputs, made)

        def alone(old: Plain) -> Plain:
            if depth:  # two partitions are neighbours
                made = compute(old.values)
            else:
                made = by_partition(old, lambda part: Plain(part.hours, dict.fromkeys(NAMES, compute(part.values))))
                made = made.values["x"]
            here = np.ones(len(old.hours), bool) if second is None else (old.hours >= MONTH) == second
            changed = {name: np.where(here, made, old.values[name]) for name in outputs}
            return Plain(old.hours, old.values | changed)

        filters = None if second is None else f"month == {1 + second}"
        options = {"inputs": ["x", "y"], "outputs": outputs, "depth": depth, "filters": filters}
        name = "update" if not depth else "update with neighbours"
        return Write(name, lambda collection: collection.update(function, **options), alone, selects=True)

    def drop_rows(self) -> Write:
        low = self.draw(self.hours, "first")
        bounds = low, low + self.draw(st.integers(0, 9), "hours")
        return Write(
            "drop_rows",
            lambda collection: collection.drop_rows(where={"time": tuple(BEGIN + each * HOUR for each in bounds)}),
            lambda old: old.take((old.hours < bounds[0]) | (old.hours > bounds[1])),
            selects=True,
        )

    def drop_rows_by_values(self) -> Write:
        least = self.draw(st.integers(1, 30), "least")
        return Write(
            "drop_rows by values",
            lambda collection: collection.drop_rows(where={"x": (least, 3 * least)}),
            lambda old: old.take((old.values["x"] < least) | (old.values["x"] > 3 * least)),
            selects=True,
        )

    def rewrite(self) -> Write:
        return Write("rewrite", lambda collection: collection.rewrite(), lambda old: old)

    def drop_partitions(self) -> Write:
        second = self.draw(st.booleans(), "February")
        return Write(
            "drop_partitions",
            lambda collection: collection.drop_partitions(filters=f"month == {1 + second}"),
            lambda old: old.take((old.hours >= MONTH) != second),
        )


VERBS = [*[Draw.insert] * 6, *[Draw.update] * 3, *[Draw.drop_rows] * 2, Draw.drop_rows_by_values]
VERBS += [Draw.rewrite, Draw.drop_partitions]


@dataclass
class History:
    """A collection, and what its newest version has to hold."""

    collection: izc.Collection
    now: Plain

    def run_planned_on_one_version(self, writes: list[Write]) -> None:
        """Run writes of which each stops before its commit until all after it in the list have ended."""
        left, commit = list(writes), Transaction.commit

        def let_others_go_first(transaction: Transaction, commits: Any) -> Any:
            if left:
                self.run(left.pop(0))
            return commit(transaction, commits)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Transaction, "commit", let_others_go_first)
            while left:  # more than once, if one had nothing to do
                self.run(left.pop(0))

    def run(self, write: Write) -> None:
        """Run a write, and see that it makes of the version before it what the oracle says."""
        there = partitions(self.now)
        try:
            version = write.run(self.collection)
        except izc.AlreadyExistsError:
            assert write.alone(self.now) is None, f"{write.name} raises, and would not alone"
            return
        *others, expected = write.may_make(self.now, there)
        assert expected is not None, f"{write.name} would raise alone"
        assert self.collection.version == version
        loaded = self.collection.load(chunks=None)
        for other in others:
            if other is not None and same(loaded, other):
                expected = other
        assert_plain(loaded, expected, dataset)
        if write.name == "replace":
            assert "reruns" not in version.summary, "it depends on nothing"
        self.now = expected


def same(loaded: xr.Dataset, expected: Plain) -> bool:
    return loaded.equals(dataset(expected))


EMPTY = Plain(np.empty(0, "i8"), {name: np.empty(0) for name in NAMES})


def create(registry: izc.Registry) -> izc.Collection:
    name = f"made/read_set{next(_numbers)}"
    return izc.create_collection(
        registry,
        name,
        dataset(EMPTY),
        axis="time",
        partitioning=izc.Date("time", "M"),
        location=f"memory://properties/{name}",
    )


@examples(25)
@given(data=st.data())
def test_writes_planned_on_one_version_do_what_they_do_alone(
    shared_registry: izc.Registry, data: st.DataObject
) -> None:
    draw = Draw(data.draw, data.draw(st.sampled_from([HOURS, ONE_PARTITION]), "one partition or two"))
    history = History(create(shared_registry), EMPTY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "APART", 3)  # in place of 256 rows, so that few divide runs
        for together in data.draw(st.lists(st.sampled_from([1, 2, 2, 3]), min_size=1, max_size=8), "at once"):
            verbs = [data.draw(st.sampled_from(VERBS), "verb") for _ in range(together)]
            history.run_planned_on_one_version([verb(draw) for verb in verbs])
    versions = history.collection.versions()
    assert [version.number for version in versions] == list(range(len(versions)))
    assert history.collection.validate().ok
