"""Whatever is inserted, in whatever order and form, comes out as an oracle of plain lists says.

The oracle remembers where each row came from: the number of its insert, and its number there. A partition is a list
of such pairs, a version a dict of partitions.
"""

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
        merge=draw(st.sampled_from(["refuse", "replace", "replace"])),
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

    def insert(self, insert: Insert) -> bool:
        """Take an insert in; tell whether it is to be refused."""
        number, new = len(self.inserts), dict[Key, list[Row]]()
        for row, time in enumerate(insert.data["time"].values):
            new.setdefault(key_of(time, self.layout.keys), []).append((number, row))
        if insert.merge == "refuse" and new.keys() & self.history[-1].keys():
            return True
        self.inserts.append(insert.data)
        for rows in new.values():
            rows.sort(key=self.axis_value)
        self.history.append(dict(sorted((self.history[-1] | new).items())))
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
def shared_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[izc.Registry]:
    """One for all examples: making one costs more than an example."""
    url = f"sqlite:///{tmp_path_factory.mktemp('registry')}/registry.db"
    with izc.connect(url, create=True) as registry, dask.config.set(scheduler="synchronous"):
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
                assert version.summary["rows"] == step.data.sizes[layout.dimension]
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
            assert partitions[key].version == rows[0][0] + 1
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
