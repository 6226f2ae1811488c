"""Whatever is done to a collection, in whatever order, it holds what the model says; so does each older version.

A machine of hypothesis calls the operations at random, on a collection and on the model (``model.py``). After each
step the invariants hold. ``ZC_EXAMPLES=5 python -m pytest tests/stateful`` tries five times as many examples.
"""

import functools
import itertools
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import fsspec
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import intake_zcollection as izc
from intake_zcollection.merging import runs
from tests.conftest import NewRegistry, Store
from tests.counting import requests_to
from tests.examples import scaled
from tests.s3 import S3Server
from tests.sql import Sql, connected

from .indexes import IndexRules
from .model import (
    KINDS,
    WIDTH,
    Case,
    Key,
    Rows,
    State,
    Variable,
    appends_again,
    join,
    take,
    to_numbers,
    weighted_neighbours,
)
from .views import ViewRules

pytestmark = pytest.mark.hypothesis  # it marks its own tests alone

NAMES = ("a", "b", "c", "d", "e")
"""The names of variables: few, so that those that were dropped come back."""

IMMUTABLE_NAMES = ("mask", "crs")

ATTRIBUTES = st.fixed_dictionaries(
    {}, optional={"long_name": st.sampled_from(["x", "y", None]), "note": st.sampled_from([1, "two", [3, 4], None])}
)

one_of = st.sampled_from
often = one_of([True, True, True, False])
seldom = one_of([False, False, False, True])
numbers = itertools.count()


def without_nothing(attrs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attrs.items() if value is not None}


# Functions to merge and to update with. They know xarray's datasets, and the model nothing of those.


def half_of_the_old(existing: xr.Dataset, inserted: xr.Dataset, *, axis: str, dimension: str) -> xr.Dataset:
    kept = existing.isel({dimension: slice(None, None, 2)})
    return xr.concat([inserted, kept], dimension, data_vars="all", coords="different", compat="equals", join="outer")


def only_the_old(existing: xr.Dataset, inserted: xr.Dataset, *, axis: str, dimension: str) -> xr.Dataset:
    return existing


MERGE_FUNCTIONS: dict[Callable[..., xr.Dataset], Callable[[Rows, Rows], Rows]] = {
    half_of_the_old: lambda old, new: join([new, take(old, range(0, len(old["time"]), 2))]),
    only_the_old: lambda old, new: old,
}


CUTTING = ("append", "keep", "concat", "time_series", "upsert")
MERGES: tuple[Any, ...] = ("refuse", "replace", *CUTTING, *MERGE_FUNCTIONS)


@dataclass(frozen=True)
class Difference:
    """A function to update with: of a row of ``source`` and its neighbours. It checks what it gets."""

    case: Case
    state: State
    source: str
    outputs: tuple[str, ...]
    kinds: dict[str, str]
    depth: int
    form: str
    """What it returns: ``"numpy"``, ``"own"`` rows alone, ``"labelled"``, ``"dataset"``."""
    partly: bool
    """Whether it leaves the last output out where the partition has an odd number of rows."""
    fails_in: Key | None = None
    meanwhile: list[Callable[[], None]] = field(default_factory=list)
    """What another writer does while it runs, once."""

    def made(self, rows: int) -> tuple[str, ...]:
        return self.outputs[:-1] if self.partly and rows % 2 else self.outputs

    def __call__(self, dataset: xr.Dataset, partition_info: tuple[str, slice]) -> Any:
        dimension, own = partition_info
        assert dimension == self.case.dimension
        times = dataset["time"].values
        orbits = dataset["orbit"].values if "orbit" in dataset else times
        key = self.case.key(times[own.start], int(orbits[own.start]))
        self._check_window(times, own, key)
        if key == self.fails_in:
            raise ZeroDivisionError("as asked")
        for action in self.meanwhile:
            action()
        values = dataset[self.source].transpose(dimension, ...).values
        numbers = weighted_neighbours(to_numbers(values))
        if self.form == "own":
            numbers = numbers[own]
        result = {name: self._labelled(name, numbers) for name in self.made(own.stop - own.start)}
        if self.form == "dataset":
            return dataset.assign(result)
        if self.form == "labelled":
            return result
        return {name: variable.values for name, variable in result.items()}

    def _check_window(self, times: Any, own: slice, key: Key) -> None:
        keys = self.state.keys
        place = keys.index(key)
        seen = keys[max(0, place - self.depth) : place + self.depth + 1]
        np.testing.assert_array_equal(times, np.concatenate([self.state.partitions[each]["time"] for each in seen]))
        np.testing.assert_array_equal(times[own], self.state.partitions[key]["time"])

    def _labelled(self, name: str, numbers: Any) -> xr.Variable:
        kind = KINDS[self.kinds[name]]
        values = kind.from_numbers(numbers)
        return xr.Variable(kind.dims(self.case.dimension), values.T if kind.x == 2 else values)


@dataclass(frozen=True)
class Place:
    """Where the collections of a machine go."""

    registry: izc.Registry
    sql: Sql
    stores: tuple[Store, ...]


def once_per(count: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """An invariant that is looked at again only once something is counted: rules that load change nothing."""

    def decorated(check: Callable[[Any], None]) -> Callable[[Any], None]:
        @functools.wraps(check)
        def checked(self: Any) -> None:
            now = self.collection._handle.record.id, getattr(self, count)  # its name would be asked of the registry
            if self.checked.get(check.__name__) != now:
                check(self)
                self.checked[check.__name__] = now

        return checked

    return decorated


class CollectionMachine(ViewRules):
    """A collection, and the states that its versions have to be in."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.registry = place.registry
        self.collections: list[izc.Collection] = []
        self.writes = 0
        self.checked: dict[str, tuple[int, int]] = {}
        self.rows = itertools.count()

    # What the rules share

    def is_indexed(self, name: str) -> bool:
        """Whether a variable cannot be dropped, since an index is computed from it."""
        return False

    @property
    def state(self) -> State:
        return self.history[-1]

    @property
    def next_version(self) -> int:
        return len(self.history)

    def new_place(self) -> tuple[str, str]:
        name = f"made/c{next(numbers)}"
        return name, self.store.location(name)

    def record(self, version: izc.Version, state: State) -> None:
        """Note a version that an operation made."""
        self.history.append(state)
        assert version.number == self.next_version - 1
        self.writes += 1

    def record_nothing(self, version: izc.Version) -> None:
        assert version.number == self.next_version - 1
        self.writes += 1

    @contextmanager
    def refused(self, *errors: type[Exception]) -> Iterator[None]:
        """See that an operation raises; the invariants see then that nothing has changed."""
        self.writes += 1
        with pytest.raises(errors):
            yield

    def new_rows(self, draw: Any, names: Sequence[str], most: int = 8, at: Any = None) -> Rows:
        """Rows at random times, in a random order; each of their values tells where it is from."""
        anywhere = st.tuples(st.integers(0, 19), st.integers(-1, 2))
        places = draw(st.lists(anywhere if at is None else at, min_size=1, max_size=most), "rows")
        rows: Rows = {"time": np.array([self.case.time(number) for number, _ in places])}
        if not self.case.is_date:
            rows["orbit"] = np.array([orbit for _, orbit in places])
        counted = np.array([next(self.rows) for _ in places], "f8")
        for name in names:
            values = counted * 8 + NAMES.index(name)
            values[counted % 7 == 6] = np.nan
            rows[name] = KINDS[str(self.state.variables[name].kind)].from_numbers(values)
        return rows

    def new_variables(self, draw: Any, state: State, most: int) -> dict[str, Variable]:
        free = [name for name in NAMES if name not in state.variables]
        kinds = [name for name, kind in KINDS.items() if self.has_x(state) or not kind.x]
        chosen = draw(st.lists(one_of(free), min_size=1, max_size=most, unique=True), "new names") if free else []
        made = {}
        for name in chosen:
            kind = draw(one_of(kinds))
            fill = KINDS[kind].fill if draw(st.booleans()) else None
            made[name] = Variable(kind, fill, without_nothing(draw(ATTRIBUTES)))
        return made

    def as_array(self, name: str, variable: Variable) -> xr.DataArray:
        kind = KINDS[str(variable.kind)]
        values = kind.filled(3, None)
        made = xr.DataArray(values.T if kind.x == 2 else values, None, kind.dims(self.case.dimension), name)
        made.attrs, made.encoding = dict(variable.attrs), dict(kind.encoding)
        return made

    def as_given(self, name: str, variable: Variable) -> izc.Variable:
        kind = KINDS[str(variable.kind)]
        dims = kind.dims(self.case.dimension)
        dtype = "T" if kind.dtype == "O" else kind.dtype  # text of any length
        return izc.Variable(name, dtype, dims, dict(variable.attrs), dict(kind.encoding), variable.fill_value)

    def filter_text(self, draw: Any) -> tuple[str, Callable[[Key], bool]]:
        """A filter as text, and which keys it selects."""
        keys = self.state.keys
        names = self.case.key_names
        terms = []
        for _ in range(draw(st.integers(1, 2))):
            position = draw(st.integers(0, len(names) - 1))
            value = draw(one_of(keys))[position] if keys else 2022
            form = draw(one_of(["{} == {}", "{} != {}", "{} <= {}", "{} > {}", "{} in ({}, 1)", "not {} == {}"]))
            form = draw(one_of([form, "{} % 2 == {} % 2", "{} // 2 == {} // 2", "{} not in range({}, 40, 2)"]))
            terms.append(form.format(names[position], value))
        text = f" {draw(one_of(['and', 'or']))} ".join(f"({term})" for term in terms)

        def selects(key: Key) -> bool:
            return bool(eval(text, {"range": range}, dict(zip(names, key, strict=True))))

        return text, selects

    def filters(self, draw: Any) -> tuple[Any, list[Key]]:
        """A filter, and the partitions that it selects."""
        names, (text, selects) = self.case.key_names, self.filter_text(draw)
        selected = [key for key in self.state.keys if selects(key)]
        if draw(seldom):
            return lambda key: selects(tuple(key[name] for name in names)), selected
        return text, selected

    # Rules: creating

    @initialize(data=st.data())
    def create(self, data: st.DataObject) -> None:
        draw = data.draw
        self.store = draw(one_of(self.place.stores), "store")
        self.case = Case(
            by=draw(one_of(["D", "M", "orbit"])),
            dimension=draw(one_of(["time", "row"])),
            zarr_format=draw(one_of([3, 2])),
            has_labels=draw(st.booleans()),
        )
        labels = {"x": Variable(None)} if self.case.has_labels else {}
        first = {"a": Variable(draw(one_of(sorted(KINDS)))), "b": Variable(draw(one_of(["map", "turned"])))}
        self.history = [State({}, labels | first, {"title": "made"})]
        rows: Rows = {"time": np.array([self.case.time(0)])[:0]}
        if not self.case.is_date:
            rows["orbit"] = np.zeros(0, "i8")
        rows |= {name: KINDS[str(variable.kind)].filled(0, None) for name, variable in first.items()}
        template = self.case.dataset(self.state, rows)
        if labels:
            template["x"] = np.arange(float(WIDTH))
        name, location = self.new_place()
        self.collection = izc.create_collection(
            self.registry,
            name,
            template,
            axis="time",
            partitioning=self.case.partitioning,
            location=location,
            zarr_format=self.case.zarr_format,  # type: ignore[arg-type]  # a literal
            storage_options=self.store.storage_options,
        )
        self.collections.append(self.collection)
        if draw(often, "begins with data"):
            self.insert_rows(draw, adding=False, most=16)

    # Rules: inserting

    @rule(data=st.data())
    def insert(self, data: st.DataObject) -> None:
        self.insert_rows(data.draw, adding=False)

    @rule(data=st.data())
    def insert_with_new_variables(self, data: st.DataObject) -> None:
        self.insert_rows(data.draw, adding=True)

    @precondition(lambda self: any(len(set(rows["time"].tolist())) > 1 for rows in self.state.partitions.values()))
    @rule(data=st.data())
    def insert_between_rows_that_are_there(self, data: st.DataObject) -> None:
        """Cut parts: in holes of them, at rows, or around some."""
        several = [key for key, rows in self.state.partitions.items() if len(set(rows["time"].tolist())) > 1]
        key = data.draw(one_of(sorted(several)), "partition")
        times = self.state.partitions[key]["time"]
        inside = [number for number in range(20) if times[0] <= self.case.time(number) <= times[-1]]
        free = [number for number in inside if self.case.time(number) not in times]
        in_holes = data.draw(often, "in holes")
        places = one_of(free if free and in_holes else inside)
        self.insert_rows(data.draw, adding=False, most=3, at=st.tuples(places, st.just(key[0])), merges=CUTTING)

    def insert_rows(
        self, draw: Any, *, adding: bool, most: int = 8, at: Any = None, merges: Sequence[Any] = MERGES
    ) -> None:
        state = self.state
        merge = draw(one_of(merges), "merge")
        tolerance = None
        if merge in ("time_series", "upsert") and draw(st.booleans()):
            tolerance = self.case.tolerance(draw(st.integers(0, 4), "tolerance"))
        names = state.names(immutable=False)
        options: dict[str, Any] = {}
        if adding:
            added = {name: replace(each, fill_value=None) for name, each in self.new_variables(draw, state, 2).items()}
            options["unknown"] = "add"
            for name, variable in added.items():
                state = state.with_variable(name, variable)
                names.append(name)
        self.history.append(state)  # for the kinds of the new variables
        rows = self.new_rows(draw, names, most, at)
        self.history.pop()
        lacking = draw(st.lists(one_of(names), unique=True), "lacking") if names and draw(seldom) else []
        lacking = [name for name in lacking if name in self.state.variables]
        filled = dict(rows)
        for name in lacking:
            options["missing"] = "fill"
            variable = state.variables[name]
            filled[name] = KINDS[str(variable.kind)].filled(len(rows["time"]), variable.fill_value)
        given_rows = {name: values for name, values in rows.items() if name not in lacking}
        immutables, state = self.brought_immutables(draw, state)
        datasets, ranges = self.divided(draw, state, given_rows, immutables)
        turns = [self.case.by_key(take(filled, range(*each))) for each in ranges]
        options["scheduler"] = draw(one_of([None, "synchronous"]))
        keys = {key for turn in turns for key in turn}
        known = keys & state.partitions.keys()
        if (merge == "refuse" and known) or (merge == "append" and appends_again(state, turns)):
            with self.refused(izc.AlreadyExistsError):
                self.collection.insert(datasets, merge=merge, **options)
            return
        function = MERGE_FUNCTIONS[merge] if callable(merge) else None
        inserted = state.inserted(turns, merge, tolerance, self.next_version, function)
        version = self.collection.insert(datasets, merge=merge, tolerance=tolerance, **options)
        same_variables = state.variables.keys() == self.state.variables.keys()
        if not inserted.changed and same_variables and not self.immutables_differ(state):
            self.record_nothing(version)
            return
        summary = version.summary
        assert (summary["rows"], summary["rows_replaced"]) == (inserted.came, inserted.gone)
        assert summary["created"] == len(inserted.state.partitions.keys() - state.partitions.keys())
        self.record(version, inserted.state)

    def immutables_differ(self, state: State) -> bool:
        names = state.names(immutable=True)
        return any(state.variables[name].values is not self.state.variables[name].values for name in names)

    def brought_immutables(self, draw: Any, state: State) -> tuple[list[str], State]:
        """The immutable variables that an insert brings, all or none; the first one has values for them."""
        names = state.names(immutable=True)
        if not names or not draw(st.booleans(), "brings immutables"):
            return [], state
        for name in names:
            if state.variables[name].values is None:
                values = np.arange(float(WIDTH)) + next(self.rows)
                state = state.with_variable(name, replace(state.variables[name], values=values))
        return names, state

    def divided(
        self, draw: Any, state: State, rows: Rows, immutables: Sequence[str]
    ) -> tuple[Any, list[tuple[int, int]]]:
        """The rows as one dataset or as several, of numpy or dask, or given by a function; and which they are."""
        count = len(rows["time"])
        cuts = sorted({0, *draw(st.lists(st.integers(0, count - 1), max_size=2), "cuts"), count})
        ranges = list(itertools.pairwise(cuts))
        parts = [take(rows, range(start, stop)) for start, stop in ranges]
        datasets = [self.case.dataset(state, part, immutables) for part in parts]
        chunks = draw(one_of([None, None, 1, 3]), "chunks")
        if chunks is not None:
            datasets = [dataset.chunk({self.case.dimension: chunks}) for dataset in datasets]
        items = [(lambda dataset=dataset: dataset) if draw(seldom) else dataset for dataset in datasets]
        return items[0] if len(items) == 1 else items, ranges

    @precondition(lambda self: self.state.partitions)
    @rule(data=st.data(), how=one_of(["unknown", "lacking", "dtype", "immutable", "empty", "missing merge"]))
    def insert_what_does_not_fit(self, data: st.DataObject, how: str) -> None:
        state = self.state
        names = state.names(immutable=False)
        dataset = self.case.dataset(state, self.new_rows(data.draw, names))
        stored = [name for name, each in state.variables.items() if each.is_immutable and each.values is not None]
        options: dict[str, Any] = {"merge": "concat"}
        match how:
            case "unknown":
                dataset["zzz"] = xr.zeros_like(dataset["time"], int)
            case "lacking" if names:
                dataset = dataset.drop_vars(names[0])
            case "immutable" if stored:
                variable = state.variables[stored[0]]
                dataset[stored[0]] = ("x",) * variable.values.ndim, variable.values + 1  # type: ignore[operator, union-attr]  # it is stored
            case "empty":
                dataset = dataset.isel({self.case.dimension: slice(0)})
            case "missing merge":
                options["merge"] = "zzz"
            case _:
                dataset["time"] = dataset["time"].astype("f8")
        with self.refused(izc.InvalidInputError):
            self.collection.insert(dataset, **options)

    # Rules: updating

    def update_function(
        self, draw: Any, *, adding: bool = False, **options: Any
    ) -> tuple[Difference, dict[str, Any], State, list[Key]] | None:
        """A function, what update is called with, the state with the new variables, and the partitions chosen."""
        state = self.state
        sources = state.names(immutable=False)
        if not sources:
            return None
        new = self.new_variables(draw, state, 2) if adding else {}
        existing = draw(st.lists(one_of(sources), min_size=0 if new else 1, max_size=2, unique=True), "existing")
        for name, variable in new.items():
            state = state.with_variable(name, variable)
        outputs = tuple(draw(st.permutations([*existing, *new])))
        function = Difference(
            self.case,
            self.state,
            source=draw(one_of(sources), "source"),
            outputs=outputs,
            kinds={name: str(state.variables[name].kind) for name in outputs},
            depth=draw(st.integers(0, 2), "depth"),
            form=draw(one_of(["numpy", "own", "labelled", "dataset"]), "form"),
            partly=draw(seldom, "partly"),
            **options,
        )
        arguments: dict[str, Any] = {"depth": function.depth, "trim": function.form != "own"}
        keys = self.state.keys
        if draw(seldom, "filters"):
            arguments["filters"], keys = self.filters(draw)
        if not new and not function.partly and function.form in ("numpy", "own") and draw(seldom, "inferred"):
            pass  # the outputs are what it makes of the first partition
        else:
            arguments["outputs"] = [self.as_given(n, new[n]) if n in new else n for n in outputs]
        if draw(seldom, "inputs"):
            arguments["inputs"] = [function.source, *self.case.placing]
        arguments["scheduler"] = draw(one_of([None, "synchronous"]))
        return function, arguments, state, keys

    @precondition(lambda self: self.state.partitions)
    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        self.update_variables(data.draw, adding=False)

    @precondition(lambda self: self.state.partitions)
    @rule(data=st.data())
    def update_making_new_variables(self, data: st.DataObject) -> None:
        self.update_variables(data.draw, adding=True)

    def update_variables(self, draw: Any, *, adding: bool) -> None:
        if (made := self.update_function(draw, adding=adding)) is None:
            return
        function, arguments, state, keys = made
        version = self.collection.update(function, **arguments)
        if not keys:
            self.record_nothing(version)
            return
        assert version.summary["updated"] == len(keys)
        self.record(version, state.updated(function.source, function.made, keys, function.depth, self.next_version))

    @precondition(lambda self: self.state.partitions)
    @rule(data=st.data())
    def update_with_a_function_that_fails(self, data: st.DataObject) -> None:
        key = data.draw(one_of(self.state.keys), "fails in")
        made = self.update_function(data.draw, adding=data.draw(seldom), fails_in=key)
        if made is None or key not in made[3]:
            return
        function, arguments, _, _ = made
        with self.refused(ZeroDivisionError):
            self.collection.update(function, **arguments)

    @precondition(lambda self: self.state.partitions)
    @rule(data=st.data())
    def update_while_another_writer_drops_what_it_reads(self, data: st.DataObject) -> None:
        dropped: list[izc.Version] = []
        key = data.draw(one_of(self.state.keys), "dropped")
        text = " and ".join(f"{name} == {value}" for name, value in zip(self.case.key_names, key, strict=True))

        def drop() -> None:
            if not dropped:
                dropped.append(self.collection.drop_partitions(filters=text))

        made = self.update_function(data.draw, meanwhile=[drop])
        if made is None or key not in made[3]:
            return
        function, arguments, _, _ = made
        arguments |= {"scheduler": "synchronous", "repeatable": False}
        with self.refused(izc.ConflictError):
            self.collection.update(function, **arguments)
        self.record(dropped[0], self.state.without_partitions([key]))

    @precondition(lambda self: self.state.partitions and self.state.names(immutable=False))
    @rule(how=one_of(["shape", "unknown", "protected", "not an output", "no dict", "immutable"]), data=st.data())
    def update_wrongly(self, how: str, data: st.DataObject) -> None:
        name = data.draw(one_of(self.state.names(immutable=False)))
        outputs, error = [name], cast("type[Exception]", izc.InvalidInputError)
        result: Any = lambda dataset: {name: dataset[name].values}  # noqa: E731 - there are others
        match how:
            case "shape":
                result = lambda dataset: {name: np.zeros((100, 100))}  # noqa: E731 - a function of one line
            case "unknown":
                outputs, error = ["zzz"], izc.NotFoundError
            case "protected":
                outputs = ["time"]
            case "not an output":
                result = lambda dataset: {"zzz": dataset[name].values}  # noqa: E731 - a function of one line
            case "no dict":
                result = lambda dataset: dataset[name]  # noqa: E731 - a function of one line
            case _:
                outputs = self.state.names(immutable=True)[:1] or ["time"]
        with self.refused(error):
            self.collection.update(result, outputs=outputs)

    # Rules: the schema

    @rule(data=st.data())
    def add_variable(self, data: st.DataObject) -> None:
        for name, variable in self.new_variables(data.draw, self.state, 1).items():
            given: Any = self.as_given(name, variable)
            if variable.fill_value is None and data.draw(st.booleans(), "as a DataArray"):
                given = self.as_array(name, variable)
            self.record(self.collection.add_variable(given), self.state.with_variable(name, variable))

    @precondition(lambda self: len(self.state.variables) > 2)
    @rule(data=st.data())
    def drop_variable(self, data: st.DataObject) -> None:
        name = data.draw(one_of([name for name in self.state.variables if name != "x"] or ["zzz"]))
        if name != "zzz" and self.is_indexed(name):
            with self.refused(izc.InvalidInputError):
                self.collection.drop_variable(name)
            return
        if name == "zzz" or (how := self.may_be_dropped(data.draw, self.state.variables[name].id, name)) is None:
            return
        self.record(self.collection.drop_variable(name, **how), self.state.without_variable(name))

    @rule(data=st.data())
    def drop_a_variable_and_add_one_of_its_name(self, data: st.DataObject) -> None:
        if not (names := self.state.names(immutable=False)):
            return
        name = data.draw(one_of(names))
        variable = Variable(self.state.variables[name].kind)
        plain = not KINDS[str(variable.kind)].x
        if self.is_indexed(name):
            return
        if (how := self.may_be_dropped(data.draw, self.state.variables[name].id, name)) is None:
            return
        self.record(self.collection.drop_variable(name, **how), self.state.without_variable(name))
        if plain:
            version = self.collection.add_variable(self.as_given(name, variable))
            self.record(version, self.state.with_variable(name, variable))

    @rule(data=st.data())
    def rename_variable(self, data: st.DataObject) -> None:
        names = {immutable: self.state.names(immutable=immutable) for immutable in (False, True)}
        names[True] = [name for name in names[True] if name != "x"]
        immutable = data.draw(st.booleans(), "immutable") if all(names.values()) else bool(names[True])
        if not names[immutable]:
            return
        old = data.draw(one_of(names[immutable]))
        new = data.draw(one_of(IMMUTABLE_NAMES if immutable else NAMES))
        if new == old:
            self.record_nothing(self.collection.rename_variable(old, new))
        elif new in self.state.variables:
            with self.refused(izc.AlreadyExistsError):
                self.collection.rename_variable(old, new)
        else:
            self.record(self.collection.rename_variable(old, new), self.state.renamed(old, new))

    @rule(how=one_of(["rename the axis", "drop the axis", "drop none", "rename none", "add one there is", "load"]))
    def ask_for_what_cannot_be(self, how: str) -> None:
        match how:
            case "rename the axis":
                with self.refused(izc.InvalidInputError):
                    self.collection.rename_variable("time", "when")
            case "drop the axis":
                with self.refused(izc.InvalidInputError):
                    self.collection.drop_variable(self.case.placing[-1])
            case "drop none":
                with self.refused(izc.NotFoundError):
                    self.collection.drop_variable("zzz")
            case "rename none":
                with self.refused(izc.NotFoundError):
                    self.collection.rename_variable("zzz", "yyy")
            case "load":
                with self.refused(izc.NotFoundError):
                    self.collection.load(variables=["zzz"])
                with self.refused(izc.NotFoundError):
                    self.collection.at(version=self.next_version)
                with self.refused(izc.ReadOnlyError):
                    self.collection.at(version=self.next_version - 1).drop_variable("a")
            case _:
                with self.refused(izc.AlreadyExistsError):
                    self.collection.add_variable(izc.Variable("time", "f8", (self.case.dimension,)))

    @rule(data=st.data(), attrs=ATTRIBUTES)
    def set_attributes(self, data: st.DataObject, attrs: dict[str, Any]) -> None:
        state, name = self.state, data.draw(one_of([None, *self.state.variables]))
        if name is None:
            after = replace(state, attrs=without_nothing({**state.attrs, **attrs}))
        else:
            changed = replace(state.variables[name], attrs=without_nothing({**state.variables[name].attrs, **attrs}))
            after = replace(state, variables={**state.variables, name: changed})
        version = self.collection.set_attributes(attrs, name)
        if (after.attrs, after.variables) == (state.attrs, state.variables):
            self.record_nothing(version)
        else:
            self.record(version, after)

    @rule(data=st.data(), names=st.lists(one_of(IMMUTABLE_NAMES), unique=True))
    def set_immutables(self, data: st.DataObject, names: list[str]) -> None:
        state, given = self.state, xr.Dataset()
        missing = [name for name in state.names(immutable=True) if state.variables[name].values is None]
        some = data.draw(st.booleans(), "x too") and "x" in state.variables
        for name in dict.fromkeys([*missing, *names, *(["x"] if some else [])]):
            value = float(next(self.rows))
            known = state.variables.get(name)
            shape: tuple[int, ...] = () if name == "crs" else (WIDTH,)
            if known is not None and known.values is not None:
                shape = known.values.shape
            values = np.arange(float(WIDTH)) + value if shape else np.array(value)
            attrs = known.attrs if known else {"new": 1}
            given[name] = (("x",) * values.ndim, values, attrs)
            variable = replace(known, values=values) if known else Variable(None, None, attrs, values)
            state = state.with_variable(name, variable)
        if not given.variables:
            with self.refused(izc.InvalidInputError):
                self.collection.set_immutables(given)
            return
        self.record(self.collection.set_immutables(given), state)

    # Rules: partitions, copies, opening

    @precondition(lambda self: len(self.state.partitions) > 1)
    @rule(data=st.data())
    def drop_partitions(self, data: st.DataObject) -> None:
        filters, keys = self.filters(data.draw)
        version = self.collection.drop_partitions(filters=filters)
        if not keys:
            self.record_nothing(version)
            return
        assert version.summary["dropped"] == len(keys)
        self.record(version, self.state.without_partitions(keys))

    @precondition(lambda self: self.state.partitions)
    @rule(data=st.data())
    def drop_rows(self, data: st.DataObject) -> None:
        draw, state = data.draw, self.state
        comparable = [
            name
            for name in state.names(immutable=False)
            if not (kind := KINDS[str(state.variables[name].kind)]).x and np.dtype(kind.dtype).kind in "iufM"
        ]
        where: dict[str, tuple[Any, Any]] = {}
        if draw(often, "by the axis") or not comparable:
            ends = draw(st.tuples(st.integers(0, 19), st.integers(0, 5)), "range")
            where["time"] = self.case.time(ends[0]), self.case.time(sum(ends))
        if comparable and (not where or draw(seldom, "by values too")):
            name = draw(one_of(comparable), "variable")
            values = join([state.partitions[key] for key in state.keys])[name]
            known = sorted(set(values[values == values].tolist()))
            if not known:
                return
            low, high = sorted(draw(st.tuples(one_of(known), one_of(known)), "bounds"))
            if values.dtype.kind == "M":
                low, high = np.datetime64(low, "ns"), np.datetime64(high, "ns")
            where[name] = low, high
        left_open = draw(one_of([None, None, None, 0, 1]), "open")
        if left_open is not None:
            where = {name: (None, high) if left_open == 0 else (low, None) for name, (low, high) in where.items()}
        after, dropped = state.without_rows(where, self.next_version)
        version = self.collection.drop_rows(where=where, scheduler=draw(one_of([None, "synchronous"])))
        if not dropped:
            self.record_nothing(version)
            return
        assert version.summary["rows_removed"] == dropped
        self.record(version, after)

    @precondition(lambda self: self.state.partitions)
    @rule(data=st.data())
    def rewrite(self, data: st.DataObject) -> None:
        options, keys = dict[str, Any](), self.state.keys
        if data.draw(seldom, "filters"):
            options["filters"], keys = self.filters(data.draw)
        chosen = set(keys)

        def of_chosen() -> list[tuple[int, int]]:
            partitions = self.collection.partitions()
            return [(p.parts, p.groups) for p in partitions if tuple(value for _, value in p.key) in chosen]

        before, version = of_chosen(), self.collection.rewrite(**options)
        if any(each != (1, 1) for each in before):
            assert version.number == self.next_version
        if version.number < self.next_version:
            self.record_nothing(version)
        else:
            self.record(version, self.state)
        assert of_chosen() == [(1, 1)] * len(chosen)

    @precondition(lambda self: len(self.collections) < 3)
    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        version = data.draw(st.integers(0, self.next_version - 1), "version")
        state, source, options = self.history[version], self.collection, dict[str, Any]()
        if data.draw(st.booleans(), "an older version"):
            source = source.at(version=version)
        else:
            state = self.state
            if data.draw(seldom, "filters"):
                options["filters"], keys = self.filters(data.draw)
                state = state.without_partitions(state.partitions.keys() - set(keys))
        name, location = self.new_place()
        copy = source.copy(name, location, storage_options=self.store.storage_options, **options)
        self.collections.append(copy)
        nothing = {
            name: replace(each, values=None) if each.is_immutable else each for name, each in state.variables.items()
        }
        empty = replace(state, partitions={}, written={}, variables=nothing)
        has_data = state.partitions or any(each.values is not None for each in state.variables.values())
        state = replace(state, written=dict.fromkeys(state.partitions, 1))
        history = [empty, state] if has_data else [empty]
        assert copy.version.number == len(history) - 1
        self.check(copy, state)
        if data.draw(st.booleans(), "go on with the copy"):
            self.check(self.collection, self.state)
            self.collection, self.history = copy, history
            self.writes += 1

    @rule()
    def reopen(self) -> None:
        registry = izc.connect(self.registry.url)
        options = self.store.storage_options
        self.collection = izc.open_collection(registry, self.collection.name, storage_options=options)
        self.writes += 1

    @rule()
    def validate(self) -> None:
        report = self.collection.validate()
        assert report.ok, str(report)
        assert report.partitions == len(self.state.partitions)

    # Rules: loading

    @rule(data=st.data())
    def load_some(self, data: st.DataObject) -> None:
        draw, state, arguments = data.draw, self.state, dict[str, Any]()
        keys = state.keys
        if draw(seldom, "filters"):
            arguments["filters"], keys = self.filters(draw)
        ends = draw(st.tuples(st.integers(0, 19), st.integers(0, 19)), "range")
        low, high = (self.case.time(number) for number in sorted(ends))
        parts = [state.partitions[key] for key in keys]
        if draw(st.booleans(), "where"):
            arguments["where"] = {"time": (low, high)}
            if draw(often, "crop"):
                parts = [between(rows, low, high) for rows in parts]
            else:
                arguments["crop"] = False
                parts = [rows for rows in parts if rows["time"][0] <= high and low <= rows["time"][-1]]
        by_dimension = {self.case.dimension: 3} | ({"x": 1} if self.has_x(state) else {})
        arguments["chunks"] = draw(one_of(["auto", "partition", None, 1, 4, by_dimension]), "chunks")
        names = list(state.variables)
        if names and draw(seldom, "variables"):  # type: ignore[arg-type]  # mypy infers the type of the draw below
            names = arguments["variables"] = draw(st.lists(one_of(names), unique=True))
        loaded = self.collection.load(**arguments)
        expected = join([self.no_rows(state), *parts])
        count = len(expected["time"])
        if self.case.is_date and self.case.dimension == "time" and draw(st.booleans(), "sel"):
            loaded, expected = loaded.sel(time=slice(low, high)), between(expected, low, high)
        elif draw(st.booleans(), "isel"):
            lists = st.lists(st.integers(-count, count - 1), max_size=4) if count else st.just([])
            cut = draw(st.slices(count).filter(lambda cut: (cut.step or 1) > 0) | lists, "rows")
            loaded = loaded.isel({self.case.dimension: cut})
            expected = take(expected, range(count)[cut] if isinstance(cut, slice) else [range(count)[i] for i in cut])
        self.check_values(loaded, state, expected, names)

    # Checks

    def has_x(self, state: State) -> bool:
        """Whether the dimension x is known, by some variable that has it."""
        kinds = [KINDS[variable.kind] for variable in state.variables.values() if variable.kind is not None]
        immutable = [variable.values for variable in state.variables.values() if variable.values is not None]
        return "x" in state.variables or any(kind.x for kind in kinds) or any(values.ndim for values in immutable)

    def no_rows(self, state: State) -> Rows:
        rows: Rows = {"time": np.array([self.case.time(0)])[:0]}
        if not self.case.is_date:
            rows["orbit"] = np.zeros(0, "i8")
        kinds = {name: KINDS[str(state.variables[name].kind)] for name in state.names(immutable=False)}
        return rows | {name: kind.filled(0, None) for name, kind in kinds.items()}

    def check(self, collection: izc.Collection, state: State) -> None:
        """See that a collection is in a state: all values, names, attributes, partitions."""
        self.check_loaded(collection, state)
        self.check_partitions(collection, state)

    def check_loaded(self, collection: izc.Collection, state: State) -> None:
        if self.store.url.startswith("counting"):
            with requests_to(self.store.url) as requests:
                loaded = collection.load(chunks=None)
            assert requests == [], "opening has read"
        else:
            loaded = collection.load(chunks=None)
        assert loaded.attrs == state.attrs
        expected = join([self.no_rows(state), *(state.partitions[key] for key in state.keys)])
        self.check_values(loaded, state, expected, list(state.variables))

    def check_partitions(self, collection: izc.Collection, state: State) -> None:
        partitions = collection.partitions()
        assert [tuple(value for _, value in each.key) for each in partitions] == state.keys
        for key, each in zip(state.keys, partitions, strict=True):
            times = state.partitions[key]["time"]
            assert (each.rows, each.bounds) == (len(times), (times[0], times[-1])), str(each)
            assert each.version == state.written[key], str(each)

    def check_values(self, loaded: xr.Dataset, state: State, rows: Rows, names: Sequence[str]) -> None:
        stored = {name for name in names if not (v := state.variables[name]).is_immutable or v.values is not None}
        # Next to the variables asked for come the axis and the labels of x, once they are stored.
        present = set(loaded.variables)
        has_labels = "x" in state.variables and state.variables["x"].values is not None
        assert stored | {"time"} <= present <= stored | {*self.case.placing} | ({"x"} if has_labels else set())
        expected: Any
        attrs: Mapping[str, Any]
        dims: tuple[str, ...]
        for name, variable in loaded.variables.items():
            if name in self.case.placing:
                expected, attrs, dims = rows[str(name)], {}, (self.case.dimension,)
            else:
                known = state.variables[str(name)]
                expected, attrs = known.values if known.is_immutable else rows[str(name)], known.attrs
                kind = None if known.is_immutable else KINDS[str(known.kind)]
                dims = kind.dims(self.case.dimension) if kind else ("x",) * known.values.ndim  # type: ignore[union-attr]  # it is stored
                expected = expected.T if kind is not None and kind.x == 2 else expected
            assert variable.dims == dims, name
            assert variable.attrs == attrs, name
            assert variable.dtype == expected.dtype, name
            np.testing.assert_array_equal(variable.values, expected, str(name))

    def query(self, text: str) -> list[tuple[Any, ...]]:
        of = self.collection._handle.record.id
        return self.place.sql(text.replace(":of", str(of)))

    # Invariants

    @invariant()
    @once_per("writes")
    def what_is_loaded_is_what_the_model_holds(self) -> None:
        self.check_loaded(self.collection, self.state)

    @invariant()
    @once_per("next_version")
    def the_partitions_are_the_models_with_their_rows_and_bounds(self) -> None:
        self.check_partitions(self.collection, self.state)

    @invariant()
    @once_per("next_version")
    def an_older_version_is_what_it_was(self) -> None:
        version = self.writes * 7919 % self.next_version  # one of them, and not always the same
        if version < self.next_version - 1:
            check = self.check_loaded if self.writes % 3 else self.check_partitions
            check(self.collection.at(version=version), self.history[version])

    @invariant()
    @once_per("next_version")
    def partitions_that_are_not_told_to_have_changed_have_the_rows_that_they_had(self) -> None:
        version = self.writes * 7919 % self.next_version
        before, after = self.history[version].partitions, self.state.partitions
        changes = self.collection.changes_since(version)
        told = {tuple(value for _, value in key): change for key, change in changes.items()}
        assert told.keys() <= before.keys() | after.keys()
        for key in before.keys() | after.keys():
            old: Any = before[key]["time"] if key in before else []
            new: Any = after[key]["time"] if key in after else []
            if key not in told:
                np.testing.assert_array_equal(old, new)
                continue
            kind = "removed" if key not in after else "changed" if key in before else "added"
            change = told[key]
            assert (change.kind, len(old) + change.added - change.removed) == (kind, len(new))
        if self.writes % 4 == 0:  # it reads
            came = sum(each.added + each.changed for each in told.values())
            assert changes.load(variables=[]).sizes[self.case.dimension] == came

    @invariant()
    @once_per("writes")
    def versions_are_numbered_without_gaps(self) -> None:
        assert [version.number for version in self.collection.versions()] == list(range(self.next_version))

    @invariant()
    @once_per("writes")
    def the_parts_of_a_partition_do_not_touch_and_layers_lie_over_them(self) -> None:
        keys = [f"k{i}" for i in range(len(self.case.key_names))]
        columns = ", ".join([*keys, "axis_min", "axis_max", "rows"])
        live = f"SELECT {columns} FROM fragment WHERE collection_id = :of AND layer_id"
        parts: dict[Key, list[tuple[int, ...]]] = {}
        for row in self.query(f"{live} = 0 ORDER BY {columns}"):
            parts.setdefault(row[: len(keys)], []).append(row[len(keys) :])
        assert list(parts) == self.state.keys
        for key, each in parts.items():
            assert all(before[1] < after[0] for before, after in itertools.pairwise(each)), key
            assert sum(rows for *_, rows in each) == len(self.state.partitions[key]["time"])
        layers = {(row[: len(keys)], row[len(keys) :]) for row in self.query(f"{live} > 0")}
        assert layers <= {(key, part) for key, each in parts.items() for part in each}

    @invariant()
    @once_per("writes")
    def nothing_is_left_of_a_finished_operation(self) -> None:
        # The intents of what was aborted are kept for a vacuum: a worker that was given up may still write.
        intents = "staged JOIN \"transaction\" t ON t.id = staged.transaction_id AND t.state != 'aborted'"
        for left in (intents, "pin", "garbage", "\"transaction\" WHERE state = 'open'"):
            assert self.query(f"SELECT * FROM {left}") == [], left
        assert self.stored_uids() == self.recorded_uids()

    def stored_uids(self) -> set[str]:
        fs, root = fsspec.url_to_fs(self.collection.location, **self.store.storage_options)
        found = fs.store if hasattr(fs, "store") else fs.find(root, refresh=True) if "s3" in root else fs.find(root)
        below = [path.removeprefix(root) for path in found if path.startswith(f"{root}/")]
        return {uid for path in below for uid in re.findall("/([0-9a-f]{32})/", path)}

    def recorded_uids(self) -> set[str]:
        where = "WHERE collection_id = :of AND layer_id >= -1"  # indexes lie nowhere else
        union = f"SELECT group_uid FROM fragment {where} UNION SELECT group_uid FROM past_fragment {where}"
        return {uid for (uid,) in self.query(union)}

    def teardown(self) -> None:
        self.drop_views()
        for collection in self.collections:
            self.collection = collection
            options = self.store.storage_options
            izc.drop_collection(self.registry, collection.name, storage_options=options)
            assert self.stored_uids() == self.recorded_uids() == set()


class IndexedMachine(CollectionMachine, IndexRules):
    """One with indexes and statistics, and without views: these have nothing of their own to look up."""

    create_view = None  # type: ignore[assignment]  # so there is no such rule, and no others of views apply
    is_indexed = IndexRules.is_indexed


def between(rows: Rows, low: Any, high: Any) -> Rows:
    return take(rows, [row for row, time in enumerate(rows["time"]) if low <= time <= high])


# The tests


@pytest.fixture(scope="module")
def shared_registry(new_registry: NewRegistry) -> Iterator[tuple[izc.Registry, Sql]]:
    """One for all examples: making one costs more than an example."""
    with new_registry() as registry, connected(registry) as sql, pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "APART", 2)  # in place of 256 rows, so that few divide runs
        yield registry, sql


in_one_engine = pytest.mark.one_engine("sqlite", "to a registry all stores are the same")


def run(place: Place, examples: int, steps: int, machine: type[CollectionMachine] = CollectionMachine) -> None:
    how = settings(  # what is not said here is the profile's: whether each run tries other examples
        max_examples=scaled(examples),
        stateful_step_count=steps,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    run_state_machine_as_test(lambda: machine(place), settings=how)  # type: ignore[arg-type]  # a function that makes one will do


def test_whatever_is_done_in_memory_the_collection_holds_what_the_model_says(
    shared_registry: tuple[izc.Registry, Sql],
) -> None:
    stores = tuple(Store(f"{protocol}://{uuid.uuid4().hex}") for protocol in ("memory", "counting"))
    run(Place(*shared_registry, stores), examples=20, steps=30)


@in_one_engine
def test_whatever_is_done_on_a_disk_the_collection_holds_what_the_model_says(
    shared_registry: tuple[izc.Registry, Sql], tmp_path: Path
) -> None:
    run(Place(*shared_registry, (Store(f"{tmp_path}/store"),)), examples=4, steps=25)


@in_one_engine
def test_whatever_is_done_in_s3_the_collection_holds_what_the_model_says(
    shared_registry: tuple[izc.Registry, Sql], s3: S3Server
) -> None:
    run(Place(*shared_registry, (Store(s3.fresh_url(), s3.storage_options),)), examples=3, steps=25)


def test_whatever_is_done_indexes_and_statistics_find_what_a_scan_finds(
    shared_registry: tuple[izc.Registry, Sql], engine: str
) -> None:
    stores = tuple(Store(f"{protocol}://{uuid.uuid4().hex}") for protocol in ("memory", "counting"))
    examples, steps = (10, 30) if engine == "sqlite" else (6, 25)
    run(Place(*shared_registry, stores), examples, steps, IndexedMachine)
