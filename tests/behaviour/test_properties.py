"""Whatever is inserted, in whatever order and form, comes out as an oracle of plain lists says.

The oracle remembers where each row came from: the number of its insert, and its number there. A partition is a list
of such pairs, a version a dict of partitions.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import xarray as xr
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import intake_zcollection as izc
from intake_zcollection.merging import runs
from tests.conftest import NewRegistry
from tests.examples import scaled

Key = tuple[int, ...]
Row = tuple[int, int]
"""The number of an insert, and of a row in it."""
State = dict[Key, list[Row]]
"""The rows of each partition, in their order."""

KEY_NAMES = {"Y": 1, "M": 2, "D": 3, "h": 4, "m": 5, "s": 6}
ALL_KEY_NAMES = ("year", "month", "day", "hour", "minute", "second")


def examples(number: int) -> settings:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=scaled(number), deadline=None, suppress_health_check=slow, print_blob=True)


# Random datasets


def _with_missing(rng: np.random.Generator, values: npt.NDArray[Any], missing: Any) -> npt.NDArray[Any]:
    values[rng.random(values.shape) < 0.2] = missing
    return values


@dataclass(frozen=True)
class Kind:
    """A kind of values, and how they are stored: exactly, so that equal values have to come back."""

    values: Callable[[np.random.Generator, tuple[int, ...]], npt.NDArray[Any]]
    encoding: Mapping[str, Any] = field(default_factory=dict)


KINDS = {
    "float64": Kind(lambda rng, shape: _with_missing(rng, rng.normal(size=shape), np.nan)),
    "float32": Kind(lambda rng, shape: rng.normal(size=shape).astype("f4")),
    "int64": Kind(lambda rng, shape: rng.integers(-(2**63), 2**63 - 1, shape)),
    "uint8": Kind(lambda rng, shape: rng.integers(0, 256, shape).astype("u1")),
    "bool": Kind(lambda rng, shape: rng.random(shape) < 0.5),
    "complex": Kind(lambda rng, shape: (rng.normal(size=shape) + 1j).astype("c8")),
    "packed": Kind(
        lambda rng, shape: _with_missing(rng, rng.integers(-999, 999, shape) * 0.5 + 100, np.nan),
        {"dtype": "int16", "scale_factor": 0.5, "add_offset": 100.0, "_FillValue": -32768},
    ),
    "packed_small": Kind(
        lambda rng, shape: _with_missing(rng, rng.integers(0, 255, shape) * 0.25, np.nan),
        {"dtype": "uint8", "scale_factor": 0.25, "_FillValue": 255},
    ),
    "filled": Kind(
        lambda rng, shape: _with_missing(rng, rng.integers(0, 99, shape).astype("f8"), np.nan),
        {"dtype": "int32", "_FillValue": -1},
    ),
    "date": Kind(
        lambda rng, shape: _with_missing(
            rng, rng.integers(-(10**18), 10**18, shape).astype("M8[ns]"), np.datetime64("NaT", "ns")
        )
    ),
    "delay": Kind(lambda rng, shape: rng.integers(-(10**15), 10**15, shape).astype("m8[ns]")),
}

TIME_ENCODINGS: dict[str, tuple[dict[str, Any], int]] = {
    "default": ({}, 1),
    "seconds": ({"units": "seconds since 2000-01-01", "dtype": "int64"}, 10**9),
    "quarter_days": ({"units": "days since 1950-01-01", "dtype": "float64"}, 6 * 3600 * 10**9),
}
"""Encodings of the times, and the nanoseconds between those that they hold exactly."""

_SECOND = 10**9
_DAY = 86400 * _SECOND
_MIDNIGHTS = [pd.Timestamp(text).value for text in ("1970-01-01", "2020-02-29", "2020-03-01", "2022-01-01")]
_STEPS = [n * unit for unit in (_SECOND, 60 * _SECOND, 3600 * _SECOND, _DAY) for n in (-1, 1)]

# Around the ends of years, months and days, so that rows share partitions and times, and bounds cut just there.
_midnights = st.sampled_from(_MIDNIGHTS)
instants = st.one_of(
    st.builds(operator.add, _midnights, st.sampled_from([-1, 0])),
    st.builds(operator.add, _midnights, st.sampled_from(_STEPS)),
    st.builds(operator.add, _midnights, st.integers(-400 * _DAY, 400 * _DAY)),
)


@dataclass(frozen=True)
class Layout:
    """What all datasets of an example share."""

    axis: str
    dimension: str
    resolution: Any
    times: str
    kinds: tuple[tuple[str, tuple[str, ...]], ...]
    """The kinds of the variables, and their dimensions."""
    coordinates: frozenset[str]
    zarr_format: Any
    width: int

    @property
    def keys(self) -> tuple[str, ...]:
        return ALL_KEY_NAMES[: KEY_NAMES[self.resolution]]


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    axis = draw(st.sampled_from(["time", "orbit"]))
    dimension = draw(st.sampled_from([axis, "row"]))
    dims = st.sampled_from([(dimension,), (dimension, "x"), ("x", dimension)])
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), max_size=4, unique=True))
    return Layout(
        axis=axis,
        dimension=dimension,
        resolution=draw(st.sampled_from(sorted(KEY_NAMES))),
        times=draw(st.sampled_from(sorted(TIME_ENCODINGS))),
        kinds=tuple((kind, draw(dims)) for kind in kinds),
        coordinates=frozenset(draw(st.lists(st.sampled_from(kinds), max_size=2)) if kinds else ()),
        zarr_format=draw(st.sampled_from([2, 3])),
        width=draw(st.integers(1, 3)),
    )


def make_dataset(layout: Layout, times: Sequence[int], seed: int) -> xr.Dataset:
    """Rows at some times, in the order given; all but the times follows from the seed."""
    rng = np.random.default_rng(seed)
    encoding, step = TIME_ENCODINGS[layout.times]
    rows, dimension = len(times), layout.dimension
    sizes = {dimension: rows, "x": layout.width}
    time = np.array([time // step * step for time in times], "i8").astype("M8[ns]")
    data = xr.Dataset(coords={"x": np.arange(float(layout.width))})
    data["time"] = xr.Variable(dimension, time, {}, encoding)
    if layout.axis == "orbit":
        data["orbit"] = xr.Variable(dimension, rng.integers(-3, 4, rows))
    for name, dims in layout.kinds:
        values = KINDS[name].values(rng, tuple(sizes[dim] for dim in dims))
        data[name] = xr.Variable(dims, values, {"made": name}, dict(KINDS[name].encoding))
    return data.set_coords(layout.coordinates | {"time"})


@dataclass(frozen=True)
class Insert:
    """A dataset, how it is inserted, and the chunks it has if it is dask's."""

    data: xr.Dataset
    merge: str
    chunks: int | None
    scheduler: str | None

    def given(self) -> xr.Dataset:
        return self.data if self.chunks is None else self.data.chunk(self.chunks)


@st.composite
def inserts(draw: st.DrawFn, layout: Layout) -> Insert:
    times = st.lists(instants, min_size=draw(st.sampled_from([1, 5, 9])), max_size=12)
    return Insert(
        data=make_dataset(layout, draw(times), draw(st.integers(0, 999))),
        merge=draw(st.sampled_from(["append", "keep", "refuse", "replace"])),
        chunks=draw(st.none() | st.integers(1, 5)),
        scheduler=draw(st.sampled_from([None, "synchronous"])),
    )


# The oracle


def key_of(time: np.datetime64, keys: Sequence[str]) -> Key:
    stamp = pd.Timestamp(time)
    return tuple(int(getattr(stamp, name)) for name in keys)


@dataclass
class Oracle:
    """What a collection has to hold, at each of its versions."""

    layout: Layout
    inserts: list[xr.Dataset] = field(default_factory=list)
    history: list[State] = field(default_factory=lambda: [{}])
    changed: list[dict[Key, int]] = field(default_factory=lambda: [{}])
    """By version, which one changed each partition last."""

    def insert(self, insert: Insert) -> bool:
        """Take an insert in; tell whether it is to be refused."""
        number, new = len(self.inserts), dict[Key, list[Row]]()
        for row, time in enumerate(insert.data["time"].values):
            new.setdefault(key_of(time, self.layout.keys), []).append((number, row))
        self.inserts.append(insert.data)
        for rows in new.values():
            rows.sort(key=self.axis_value)
        before, merge = self.history[-1], insert.merge
        there = {key: {self.axis_value(row) for row in before.get(key, [])} for key in new}
        again = any(self.axis_value(row) in there[key] for key, rows in new.items() for row in rows)
        if (merge == "refuse" and new.keys() & before.keys()) or (merge == "append" and again):
            return True
        if merge == "keep":
            new = {key: [row for row in rows if self.axis_value(row) not in there[key]] for key, rows in new.items()}
        new = {key: rows for key, rows in new.items() if rows}
        if merge in ("append", "keep"):
            new = {key: sorted([*before.get(key, []), *rows], key=self.axis_value) for key, rows in new.items()}
        if new:
            self.changed.append(self.changed[-1] | dict.fromkeys(new, len(self.history)))
            self.history.append(dict(sorted((before | new).items())))
        return False

    def axis_value(self, row: Row) -> int:
        number, index = row
        return int(self.inserts[number][self.layout.axis].values[index].astype("i8"))

    def values(self, template: xr.Dataset, name: str, rows: Sequence[Row]) -> npt.NDArray[Any]:
        """The values of a variable in some rows."""
        split = template[name].dims.index(self.layout.dimension)
        one_row = [np.take(self.inserts[number][name].values, [row], split) for number, row in rows]
        return np.concatenate([np.take(template[name].values, [], split), *one_row], split)


def assert_holds(loaded: xr.Dataset, oracle: Oracle, rows: Sequence[Row], template: xr.Dataset) -> None:
    """See that a dataset in memory has these rows, value for value, and the variables that it has are as inserted."""
    for name, variable in loaded.variables.items():
        expected = template.variables[name]
        assert variable.dtype == expected.dtype, name
        assert variable.dims == expected.dims, name
        split = oracle.layout.dimension in expected.dims
        values = oracle.values(template, str(name), rows) if split else expected.values
        np.testing.assert_array_equal(variable.values, values, str(name))


# The collections


@pytest.fixture(scope="module")
def shared_registry(new_registry: NewRegistry) -> Iterator[izc.Registry]:
    """One for all examples: making one costs more than an example."""
    with new_registry() as registry, dask.config.set(scheduler="synchronous"):
        yield registry
    for path in [path for path in MemoryFileSystem.store if path.startswith("/properties/")]:
        del MemoryFileSystem.store[path]  # rm takes quadratic time


_numbers = itertools.count()


def create(registry: izc.Registry, layout: Layout) -> izc.Collection:
    """A new collection; its template has no rows."""
    name = f"made/c{next(_numbers)}"
    return izc.create_collection(
        registry,
        name,
        make_dataset(layout, [], 0),
        axis=layout.axis,
        partitioning=izc.Date("time", layout.resolution),
        location=f"memory://properties/{name}",
        zarr_format=layout.zarr_format,
    )


def insert_all(collection: izc.Collection, layout: Layout, steps: Sequence[Insert]) -> Oracle:
    """Insert into a collection and an oracle, and see that they refuse the same."""
    oracle = Oracle(layout)
    for step in steps:
        with dask.config.set(scheduler=None):
            if oracle.insert(step):
                with pytest.raises(izc.AlreadyExistsError):
                    collection.insert(step.given(), merge=step.merge, scheduler=step.scheduler)
            else:
                version = collection.insert(step.given(), merge=step.merge, scheduler=step.scheduler)
                assert version.number == len(oracle.history) - 1
    return oracle


def all_rows(state: State) -> list[Row]:
    return [row for rows in state.values() for row in rows]


# Random selections


@dataclass(frozen=True)
class Selection:
    """What is asked of ``load``, and the rows that it selects."""

    arguments: dict[str, Any]
    rows: list[Row]


COMPARISONS = ["{} == {}", "{} != {}", "{} <= {}", "{} > {}", "{} in ({}, 7)", "{} not in range({}, 2100, 2)"]
COMPARISONS += ["not {} == {}", "{} % 2 == {} % 2", "{} - 1 < {}", "0 <= {} < {}"]


@st.composite
def filters_on(draw: st.DrawFn, names: Sequence[str], keys: Sequence[Key]) -> tuple[Any, Callable[[Key], bool]]:
    """A filter, and what it means, which Python says."""
    values = st.sampled_from(keys) if keys else st.just((2022, 1, 1, 0, 0, 0))

    def comparison() -> str:
        position = draw(st.integers(0, len(names) - 1))
        name, value = names[position], draw(values)[position]
        return draw(st.sampled_from(COMPARISONS)).format(name, value)

    text = comparison()
    for _ in range(draw(st.integers(0, 2))):
        text = f"({text}) {draw(st.sampled_from(['and', 'or']))} {comparison()}"

    def evaluate(key: Key) -> bool:
        return bool(eval(text, {"range": range}, dict(zip(names, key, strict=True))))

    if draw(st.booleans()):
        return text, evaluate
    return lambda key: evaluate(tuple(key[name] for name in names)), evaluate


@st.composite
def bounds_on(draw: st.DrawFn, is_time: bool, values: Sequence[int]) -> tuple[tuple[Any, Any], tuple[int, int]]:
    """Bounds near some axis values, partial dates among them; and the integers that they stand for."""
    near = st.builds(operator.add, st.sampled_from(values or [0]), st.sampled_from([0, 0, -1, 1]))
    ends = draw(st.tuples(near, near))
    (low, first), (high, last) = (
        draw(st.just((None, open_end)) | _bounds_of(is_time, end, side))
        for side, (open_end, end) in enumerate(zip((-(2**63), 2**63 - 1), sorted(ends), strict=True))
    )
    return (low, high), (first, last)


def _bounds_of(is_time: bool, value: int, side: int) -> st.SearchStrategy[tuple[Any, int]]:
    """An axis value as a bound, low (0) or high (1), and the integer that it stands for."""
    if not is_time:
        return st.just((value, value))
    time = np.datetime64(value, "ns")

    def partial(unit: Any) -> tuple[str, int]:
        period = time.astype(f"M8[{unit}]")
        return str(period), int((period + np.timedelta64(side, unit)).astype("M8[ns]").astype("i8")) - side

    return st.just((time, value)) | st.sampled_from(["Y", "M", "D", "h", "m", "s"]).map(partial)


def chunkings(layout: Layout) -> st.SearchStrategy[Any]:
    sizes = st.sampled_from([1, 2, 3, 100, -1, "auto"])
    by_dimension = st.dictionaries(st.sampled_from([layout.dimension, "x"]), sizes)
    return st.sampled_from(["auto", "partition", None, 1, 4, -1]) | by_dimension


@st.composite
def selections(draw: st.DrawFn, oracle: Oracle, state: State) -> Selection:
    """Random filters, bounds, variables and chunks."""
    layout, arguments = oracle.layout, dict[str, Any]()
    selected = dict(state)
    often = st.sampled_from([True, True, False])
    if not draw(often):
        arguments["filters"], selects = draw(filters_on(layout.keys, list(state)))
        selected = {key: rows for key, rows in selected.items() if selects(key)}
    if draw(often):
        values = [oracle.axis_value(row) for row in all_rows(state)]
        given, (low, high) = draw(bounds_on(layout.axis == "time", values))
        arguments["where"], arguments["crop"] = {layout.axis: given}, draw(often)
        for key, rows in list(selected.items()):
            inside = [row for row in rows if low <= oracle.axis_value(row) <= high]
            first, last = oracle.axis_value(rows[0]), oracle.axis_value(rows[-1])
            touched = low <= last and first <= high
            selected[key] = inside if arguments["crop"] else rows if touched else []
    if draw(st.booleans()):
        names = ["time", "x", *(name for name, _ in layout.kinds)]
        arguments["variables"] = draw(st.lists(st.sampled_from(names), unique=True))
    arguments["chunks"] = draw(chunkings(layout))
    return Selection(arguments, all_rows(selected))


def slices(size: int) -> st.SearchStrategy[slice]:
    """Slices, but for empty ones with a negative step: xarray 2026.9 itself fails at these on all that it loads."""
    return st.slices(size).filter(lambda cut: (cut.step or 1) > 0 or bool(range(size)[cut]))


# The properties


@examples(24)
@given(data=st.data())
def test_every_version_holds_what_was_inserted_until_then(shared_registry: izc.Registry, data: st.DataObject) -> None:
    layout = data.draw(layouts(), "layout")
    steps = data.draw(st.lists(inserts(layout), min_size=1, max_size=3), "inserts")
    template, collection = make_dataset(layout, [], 0), create(shared_registry, layout)
    oracle = insert_all(collection, layout, steps)
    assert [version.number for version in collection.versions()] == list(range(len(oracle.history)))
    for version, state in enumerate(oracle.history):
        then = collection.at(version=version)
        loaded = then.load().compute()
        assert set(loaded.variables) == set(template.variables) - ({"x"} if version == 0 else set())
        assert set(loaded.coords) == set(template.coords) & set(loaded.variables)
        assert_holds(loaded, oracle, all_rows(state), template)
        partitions = {tuple(value for _, value in each.key): each for each in then.partitions()}
        assert {key: each.rows for key, each in partitions.items()} == {key: len(rows) for key, rows in state.items()}
        assert list(partitions) == list(state)
        for key, rows in state.items():
            assert partitions[key].version == oracle.changed[version][key]
            bounds = [int(np.asarray(bound).astype("i8")) for bound in partitions[key].bounds]
            assert bounds == [oracle.axis_value(rows[0]), oracle.axis_value(rows[-1])]


@examples(24)
@given(data=st.data())
def test_any_selection_loads_the_rows_that_it_names(shared_registry: izc.Registry, data: st.DataObject) -> None:
    layout = data.draw(layouts(), "layout")
    steps = data.draw(st.lists(inserts(layout), min_size=1, max_size=2), "inserts")
    template, collection = make_dataset(layout, [], 0), create(shared_registry, layout)
    oracle = insert_all(collection, layout, steps)
    for _ in range(6):
        version = len(oracle.history) - 1 - data.draw(st.integers(0, min(1, len(oracle.history) - 1)), "before head")
        selection = data.draw(selections(oracle, oracle.history[version]), "selection")
        loaded = collection.at(version=version).load(**selection.arguments)
        wanted = set(selection.arguments.get("variables", template.variables)) - ({"x"} if version == 0 else set())
        assert wanted | {layout.axis} <= set(loaded.variables)
        assert_holds(loaded.compute(), oracle, selection.rows, template)


@examples(12)
@given(data=st.data())
def test_a_lazy_dataset_indexed_and_computed_equals_one_computed_and_indexed(
    shared_registry: izc.Registry, data: st.DataObject
) -> None:
    layout = data.draw(layouts(), "layout")
    steps = data.draw(st.lists(inserts(layout), min_size=1, max_size=2), "inserts")
    collection = create(shared_registry, layout)
    oracle = insert_all(collection, layout, steps)
    eager = collection.load(chunks=None).compute()
    rows = len(all_rows(oracle.history[-1]))
    for _ in range(3):
        chunks = data.draw(chunkings(layout), "chunks")
        one = st.integers(-rows, rows - 1)
        indexer = data.draw(slices(rows) | st.lists(one, max_size=5) | one, "rows")
        column = data.draw(slices(layout.width) | st.integers(0, layout.width - 1), "columns")
        lazy = collection.load(chunks=chunks)
        xr.testing.assert_identical(lazy.compute(), eager)
        by = {layout.dimension: indexer, "x": column}
        xr.testing.assert_identical(lazy.isel(by).compute(), eager.isel(by))


@examples(12)
@given(data=st.data())
def test_the_order_of_the_rows_and_the_chunks_make_no_difference_where_times_differ(
    shared_registry: izc.Registry, data: st.DataObject
) -> None:
    layout = data.draw(layouts().filter(lambda layout: layout.axis == "time"), "layout")
    step = TIME_ENCODINGS[layout.times][1]
    times = data.draw(st.lists(instants, min_size=1, max_size=12, unique_by=lambda time: time // step), "times")
    ordered = make_dataset(layout, times, 0)
    order = data.draw(st.permutations(range(len(times))), "order")
    shuffled = ordered.isel({layout.dimension: list(order)})
    if (chunks := data.draw(st.none() | st.integers(1, 5), "chunks")) is not None:
        shuffled = shuffled.chunk(chunks)
    first, second = create(shared_registry, layout), create(shared_registry, layout)
    first.insert(ordered)
    second.insert(shuffled)
    xr.testing.assert_identical(first.load().compute(), second.load().compute())


# Any writes, one after the other: one partition or two, of many parts

HOURS = st.integers(0, 40)
MONTH = 31 * 24
"""The hours from there on are in the second partition."""
PLAIN = ("a", "b", "c")
"""The names of variables; the first is there from the beginning."""


@dataclass
class Plain:
    """All rows of a version, in the order of the axis, as arrays of numpy."""

    hours: npt.NDArray[np.int64]
    values: dict[str, npt.NDArray[np.float64]]

    def take(self, which: Any) -> "Plain":
        return Plain(self.hours[which], {name: values[which] for name, values in self.values.items()})

    def join(self, new: "Plain") -> "Plain":
        hours = np.concatenate([self.hours, new.hours])
        order = np.argsort(hours, kind="stable")
        values = {name: np.concatenate([each, new.values[name]])[order] for name, each in self.values.items()}
        return Plain(hours[order], values)

    def without_partitions_of(self, new: "Plain") -> "Plain":
        return self.take(~np.isin(self.hours >= MONTH, new.hours >= MONTH))

    def merged(self, new: "Plain", merge: str, tolerance: int | None) -> "Plain | None":
        """With one dataset more; None if it is refused. Strategies are about the rows of one partition."""
        second = [self.hours >= MONTH, new.hours >= MONTH]
        result = []
        for which in (False, True):
            old_rows, new_rows = (rows.take(mask == which) for rows, mask in zip((self, new), second, strict=True))
            if (one := old_rows._merged_in_one(new_rows, merge, tolerance)) is None:
                return None
            result.append(one)
        return result[0].join(result[1])

    def _merged_in_one(self, new: "Plain", merge: str, tolerance: int | None) -> "Plain | None":
        if not len(new.hours):
            return self
        distance = np.abs(self.hours[:, None] - new.hours).min(axis=1)
        if merge == "append" and (distance == 0).any():
            return None
        if merge == "keep":
            return self.join(new.take(~np.isin(new.hours, self.hours)))
        survives = np.ones(len(self.hours), bool)
        if merge == "upsert":
            survives = distance > (tolerance or 0)
        if merge == "time_series":
            ordered = np.sort(new.hours)
            gaps = np.flatnonzero(np.diff(ordered) > (np.inf if tolerance is None else tolerance))
            for period in np.split(ordered, gaps + 1):
                survives &= (self.hours < period[0]) | (self.hours > period[-1])
        return self.take(survives).join(new)


@dataclass
class Writes:
    """A collection written at random, and what each of its versions has to hold."""

    draw: Any
    collection: izc.Collection
    history: list[Plain]
    counter: Iterator[float] = field(default_factory=lambda: itertools.count(1.0))

    @property
    def now(self) -> Plain:
        return self.history[-1]

    def note(self, version: izc.Version, after: Plain | None) -> None:
        """What a write made; None if it was to make nothing."""
        if after is not None:
            self.history.append(after)
        assert version.number == len(self.history) - 1

    def dataset(self, rows: Plain) -> xr.Dataset:
        time = np.datetime64("2022-01-01", "ns") + rows.hours * np.timedelta64(1, "h")
        return xr.Dataset({name: ("time", values) for name, values in rows.values.items()}, {"time": time})

    def insert(self) -> None:
        merge = self.draw(st.sampled_from(["append", "keep", "concat", "upsert", "time_series", "replace"]), "merge")
        tolerant = merge in ("upsert", "time_series")
        tolerance = self.draw(st.sampled_from([None, 0, 1, 3]), "tolerance") if tolerant else None
        offset = st.sampled_from([0, 0, 0, MONTH - 20])
        hours = st.builds(operator.add, HOURS, offset) if self.draw(st.booleans()) else HOURS
        given = self.draw(st.lists(st.lists(hours, min_size=1, max_size=5), min_size=1, max_size=3), "hours")
        brought = [
            Plain(
                np.array(each, "i8"),
                {name: np.array([next(self.counter) for _ in each]) for name in self.now.values},
            )
            for each in given
        ]
        datasets = [self.dataset(each) for each in brought]
        after: Plain | None = self.now
        if merge == "replace":
            nothing = self.now.take([])
            everything = functools.reduce(Plain.join, brought, nothing)
            after = self.now.without_partitions_of(everything).join(everything)
        else:
            for each in brought:
                ordered = each.take([]).join(each)
                after = after and after.merged(ordered, merge, tolerance)
        step = None if tolerance is None else np.timedelta64(tolerance, "h")
        if after is None:
            with pytest.raises(izc.AlreadyExistsError):
                self.collection.insert(datasets, merge=merge)
            return
        version = self.collection.insert(datasets, merge=merge, tolerance=step)
        unchanged = merge == "keep" and len(after.hours) == len(self.now.hours)
        self.note(version, None if unchanged else after)

    def update(self) -> None:
        names = list(self.now.values)
        outputs = self.draw(st.lists(st.sampled_from(names), min_size=1, unique=True), "outputs")
        shift = next(self.counter) / 64

        def compute(dataset: xr.Dataset) -> dict[str, Any]:
            return {name: np.nan_to_num(dataset[name].values) + shift for name in outputs}

        version = self.collection.update(compute, outputs=outputs)
        changed = {name: np.nan_to_num(self.now.values[name]) + shift for name in outputs}
        after = Plain(self.now.hours, self.now.values | changed) if len(self.now.hours) else None
        self.note(version, after)

    def drop_rows(self) -> None:
        low = self.draw(HOURS, "first")
        high = low + self.draw(st.integers(0, 6), "hours")
        bounds = tuple(np.datetime64("2022-01-01", "ns") + hour * np.timedelta64(1, "h") for hour in (low, high))
        gone = (self.now.hours >= low) & (self.now.hours <= high)
        where: dict[str, Any] = {"time": bounds}
        if self.draw(st.booleans(), "by values"):
            least = self.draw(st.sampled_from([*self.now.values["a"], 0.0]), "least")
            where = {"a": (least, None)} | (where if self.draw(st.booleans(), "and the axis") else {})
            gone = (gone if "time" in where else True) & (self.now.values["a"] >= least)
        version = self.collection.drop_rows(where=where)
        self.note(version, self.now.take(~gone) if gone.any() else None)

    def drop_partitions(self) -> None:
        second = self.draw(st.booleans(), "February")
        gone = (self.now.hours >= MONTH) == second
        version = self.collection.drop_partitions(filters=f"month == {1 + second}")
        self.note(version, self.now.take(~gone) if gone.any() else None)

    def rewrite(self) -> None:
        many = any((each.parts, each.groups) != (1, 1) for each in self.collection.partitions())
        version = self.collection.rewrite()
        assert not many or version.number == len(self.history)
        self.note(version, self.now if version.number == len(self.history) else None)

    def edit_the_schema(self) -> None:
        names, count = self.now.values, len(self.now.hours)
        name = self.draw(st.sampled_from(PLAIN[1:]), "variable")
        if name not in names:
            fill = self.draw(st.sampled_from([None, -1.0]), "fill value")
            attrs = {"units": self.draw(st.sampled_from(["1", "degrees_east"]), "units")}
            version = self.collection.add_variable(izc.Variable(name, "f8", ("time",), attrs, fill_value=fill))
            after = {**names, name: np.full(count, np.nan if fill is None else fill)}
        elif (other := PLAIN[3 - PLAIN.index(name)]) not in names and self.draw(st.booleans(), "rename"):
            version = self.collection.rename_variable(name, other)
            after = {other if each == name else each: values for each, values in names.items()}
        else:
            version = self.collection.drop_variable(name)
            after = {each: values for each, values in names.items() if each != name}
        self.note(version, Plain(self.now.hours, after))

    def add_statistics(self) -> None:
        name = self.draw(st.sampled_from([*self.now.values]), "variable")
        kept = self.collection.schema.variables[name].statistics
        version = self.collection.add_statistics(name)
        self.note(version, None if kept else self.now)

    def check(self, version: int) -> None:
        loaded = self.collection.at(version=version).load(chunks=None)
        assert_plain(loaded, self.history[version], self.dataset)

    def check_statistics(self) -> None:
        """See that of what is live all is known: all who put rows down keep them."""
        head = self.collection._handle.select()
        kept = [each for each in head.schema.variables.values() if each.statistics]
        known = self.collection._handle.registry.statistics(self.collection.name, [each.id for each in kept])
        for fragment in (each for partition in head.snapshot.partitions for each in partition.fragments):
            for each in kept:
                layer = head.snapshot.layers.get(fragment.layer_id, frozenset())
                if each.id in layer if fragment.layer_id else each.was_there(fragment.schema_version):
                    mine = [row for row in known if (row.uid, row.variable_id) == (fragment.uid, each.id)]
                    last = fragment.start + fragment.rows
                    assert any(row.row_start <= fragment.start and last <= row.row_stop for row in mine)

    def check_a_box(self, version: int) -> None:
        """Load rows of a version by their values."""
        collection, rows = self.collection.at(version=version), self.history[version]
        where, inside = dict[str, Any](), np.ones(len(rows.hours), bool)
        for name in self.draw(st.lists(st.sampled_from([*rows.values]), min_size=1, unique=True), "bounds on"):
            values = rows.values[name]
            known = sorted({0.0, 400.0, *values[~np.isnan(values)].tolist()})
            low, high = self.draw(st.tuples(st.sampled_from(known), st.sampled_from(known)), "bounds")
            if collection.schema.variables[name].attrs.get("units") == "degrees_east":
                where[name] = low - 360, high - 360  # these are exact, as the values are
                inside &= (values - low) % 360 <= (high - low if low <= high else (high - low) % 360)
            else:
                low, high = where[name] = min(low, high), max(low, high)
                inside &= (values >= low) & (values <= high)
        assert_plain(collection.load(where=where), rows.take(inside), self.dataset)


def assert_plain(loaded: xr.Dataset, expected: Plain, dataset: Callable[[Plain], xr.Dataset]) -> None:
    xr.testing.assert_equal(loaded.compute().drop_vars("time"), dataset(expected).drop_vars("time"))
    np.testing.assert_array_equal(loaded.time.values, dataset(expected).time.values)


VERBS = [*[Writes.insert] * 6, *[Writes.update] * 2, *[Writes.drop_rows] * 2]
VERBS += [Writes.rewrite, Writes.edit_the_schema, Writes.edit_the_schema, Writes.drop_partitions]
VERBS += [Writes.add_statistics]


@pytest.mark.filterwarnings("ignore:no statistics are kept:UserWarning")
@examples(25)
@given(data=st.data())
def test_any_writes_read_at_every_version_as_plain_arrays(shared_registry: izc.Registry, data: st.DataObject) -> None:
    nothing = Plain(np.empty(0, "i8"), {"a": np.empty(0)})
    name = f"made/c{next(_numbers)}"
    writes = Writes(data.draw, None, [nothing])  # type: ignore[arg-type]  # it comes now
    writes.collection = izc.create_collection(
        shared_registry,
        name,
        writes.dataset(nothing),
        axis="time",
        partitioning=izc.Date("time", "M"),
        location=f"memory://properties/{name}",
        statistics=data.draw(st.sampled_from([(), ("a",)]), "statistics"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "APART", 3)  # in place of 256 rows, so that few divide runs
        for verb in data.draw(st.lists(st.sampled_from(VERBS), min_size=1, max_size=12), "writes"):
            verb(writes)
            writes.check(len(writes.history) - 1)
            writes.check_statistics()
    for version in range(len(writes.history) - 1):
        writes.check(version)
    for version in range(len(writes.history)):
        writes.check_a_box(version)
    assert writes.collection.validate().ok
