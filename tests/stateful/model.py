"""What a collection has to hold, in dicts of numpy arrays: one state per version, and nothing that is clever.

All arrays have the rows first, whatever the dimensions of the variable. What merging and updating mean is written down
here once more, from the documentation and not from the library.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

import intake_zcollection as izc

Key = tuple[int, ...]
Array = npt.NDArray[Any]
Rows = dict[str, Array]
"""The rows of one partition, or of one dataset: an array per variable, of equal lengths."""

WIDTH = 2
"""The size of the dimension x."""

# Kinds of values


@dataclass(frozen=True)
class Kind:
    """A kind of variable: its dtype, where the dimension x stands (0 for none), how it is stored, what is missing."""

    dtype: str
    x: int = 0
    encoding: Mapping[str, Any] = field(default_factory=dict)
    missing: Any = np.nan
    fill: Any = None
    """A value other than the missing one, as a fill value."""

    def dims(self, dimension: str) -> tuple[str, ...]:
        return ((dimension,), (dimension, "x"), ("x", dimension))[self.x]

    def from_numbers(self, numbers: Array) -> Array:
        """Values of this kind that stand for numbers, which are multiples of a half; NaN is missing."""
        if self.x:
            numbers = numbers[:, None] + 0.5 * np.arange(WIDTH)
        nothing, known = np.isnan(numbers), np.nan_to_num(numbers)
        match np.dtype(self.dtype).kind:
            case "b":
                values = known % 3 == 0
            case "M":
                values = np.datetime64("2000-01-01", "ns") + known.astype("i8") * np.timedelta64(1, "D")
            case "O":
                values = np.array([f"n{number}" for number in known.ravel()], object).reshape(known.shape)
            case _:
                values = known.astype(self.dtype)
        return np.where(nothing, np.array(self.missing, self.dtype), values)

    def filled(self, rows: int, fill_value: Any) -> Array:
        value = self.missing if fill_value is None else fill_value
        return np.full((rows, WIDTH) if self.x else (rows,), value, self.dtype)


KINDS = {
    "float": Kind("f8", fill=-1.0),
    "int": Kind("i4", missing=0, fill=-9),
    "flag": Kind("?", missing=False, fill=True),
    "date": Kind("M8[ns]", missing=np.datetime64("NaT", "ns")),
    "text": Kind("O", missing="", fill="none"),
    "packed": Kind("f8", encoding={"dtype": "int16", "scale_factor": 0.5, "_FillValue": -32768}, fill=2.5),
    "map": Kind("f4", x=1, fill=3.0),
    "turned": Kind("f8", x=2, fill=4.0),
}


def to_numbers(values: Array) -> Array:
    """One number per row, of values of any kind: what a function of several kinds can compute with."""
    match values.dtype.kind:
        case "M":
            numbers = np.where(np.isnat(values), 0, values.astype("M8[D]").astype("i8"))
        case "O" | "T" | "U":
            numbers = np.array([len(str(value)) for value in values.ravel()]).reshape(values.shape)
        case _:
            numbers = np.nan_to_num(values.astype("f8"))
    numbers = numbers.astype("f8")
    return numbers.sum(axis=1) if numbers.ndim > 1 else numbers


def weighted_neighbours(numbers: Array) -> Array:
    """A function of each row and of both its neighbours, which tells before from after."""
    before, after = np.append(0, numbers[:-1]), np.append(numbers[1:], 0)
    return (numbers + 3 * before + 5 * after) % 64


# States


@dataclass(frozen=True)
class Variable:
    """A variable of the schema; immutable ones have values, and no kind."""

    kind: str | None
    fill_value: Any = None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    values: Array | None = None
    """Of an immutable variable: its values, None before they are stored."""
    id: int = field(default_factory=count(1).__next__)
    """It stays, whatever the name: what views show goes by it."""

    @property
    def is_immutable(self) -> bool:
        return self.kind is None


@dataclass(frozen=True)
class State:
    """A collection at one version. It is never changed: each write makes another one."""

    partitions: Mapping[Key, Rows] = field(default_factory=dict)
    variables: Mapping[str, Variable] = field(default_factory=dict)
    """All but those that every collection of the case has: the axis, and what partitions."""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    written: Mapping[Key, int] = field(default_factory=dict)
    """The version that last wrote each partition."""

    @property
    def keys(self) -> list[Key]:
        return sorted(self.partitions)

    def names(self, *, immutable: bool) -> list[str]:
        return [name for name, variable in self.variables.items() if variable.is_immutable == immutable]

    def with_partitions(self, partitions: Mapping[Key, Rows], version: int) -> "State":
        written = {**self.written, **dict.fromkeys(partitions, version)}
        return replace(self, partitions={**self.partitions, **partitions}, written=written)

    def without_partitions(self, keys: Iterable[Key]) -> "State":
        gone = set(keys)
        return replace(
            self,
            partitions={key: rows for key, rows in self.partitions.items() if key not in gone},
            written={key: version for key, version in self.written.items() if key not in gone},
        )

    def with_variable(self, name: str, variable: Variable) -> "State":
        """The state with a variable more, which reads as its fill value; or with another value of an immutable one."""
        state = replace(self, variables={**self.variables, name: variable})
        if variable.is_immutable:
            return state
        kind = KINDS[str(variable.kind)]
        filled = {
            key: {**rows, name: kind.filled(len(rows["time"]), variable.fill_value)}
            for key, rows in self.partitions.items()
        }
        return replace(state, partitions=filled)

    def without_variable(self, name: str) -> "State":
        return replace(
            self,
            variables={each: variable for each, variable in self.variables.items() if each != name},
            partitions={
                key: {each: values for each, values in rows.items() if each != name}
                for key, rows in self.partitions.items()
            },
        )

    def renamed(self, old: str, new: str) -> "State":
        def by_new_name(items: Mapping[str, Any]) -> dict[str, Any]:
            return {new if name == old else name: item for name, item in items.items()}

        partitions = {key: by_new_name(rows) for key, rows in self.partitions.items()}
        return replace(self, variables=by_new_name(self.variables), partitions=partitions)

    def inserted(
        self, turns: Sequence[Mapping[Key, Rows]], merge: Any, tolerance: Any, version: int, function: Any = None
    ) -> "Inserted":
        """The state after an insert of several datasets, given by key. ``function`` merges whole partitions."""
        partitions, came, gone = {}, 0, 0
        for key in dict.fromkeys(key for turn in turns for key in turn):
            new = [turn[key] for turn in turns if key in turn]
            old = self.partitions.get(key, take(new[0], []))
            if function is not None and key in self.partitions:
                rows = sort(function(old, sort(join(new))))
                came += sum(len(each["time"]) for each in new)
            elif merge in ("refuse", "replace") or function is not None:
                rows = sort(join(new))
                came += len(rows["time"])
                gone += len(old["time"])
            else:
                rows = {**old, ORIGIN: np.zeros(len(old["time"]), "?")}
                for each in new:
                    rows = merged(merge, tolerance, rows, {**each, ORIGIN: np.ones(len(each["time"]), "?")})
                origin = rows.pop(ORIGIN)
                if not origin.any():
                    continue  # all were left out
                came += int(origin.sum())
                gone += len(old["time"]) - int((~origin).sum())
            partitions[key] = rows
        return Inserted(self.with_partitions(partitions, version), came, gone, len(partitions))

    def without_rows(self, where: Mapping[str, tuple[Any, Any]], version: int) -> tuple["State", int]:
        """The state without the rows that meet all bounds, and how many these are; missing values meet none."""
        kept, total = {}, 0
        for key, rows in self.partitions.items():
            gone = np.ones(len(rows["time"]), bool)
            for name, (low, high) in where.items():
                values = rows[name]
                with np.errstate(invalid="ignore"):
                    gone &= (values == values) & (low is None or values >= low) & (high is None or values <= high)
            if gone.any():
                total += int(gone.sum())
                kept[key] = take(rows, np.flatnonzero(~gone).tolist())
        state = self.with_partitions(kept, version)
        return state.without_partitions([key for key, rows in kept.items() if not len(rows["time"])]), total

    def updated(
        self,
        source: str,
        outputs: Callable[[int], Sequence[str]],
        keys: Iterable[Key],
        depth: int,
        version: int,
    ) -> "State":
        """The state after an update; ``outputs`` tells what the function makes of a partition of so many rows."""
        ordered, partitions = self.keys, {}
        for key in keys:
            place = ordered.index(key)
            seen = ordered[max(0, place - depth) : place + depth + 1]
            numbers = weighted_neighbours(np.concatenate([to_numbers(self.partitions[each][source]) for each in seen]))
            start = sum(len(self.partitions[each]["time"]) for each in seen if each < key)
            rows = dict(self.partitions[key])
            own = numbers[start : start + len(rows["time"])]
            for name in outputs(len(own)):
                rows[name] = KINDS[str(self.variables[name].kind)].from_numbers(own)
            partitions[key] = rows
        return self.with_partitions(partitions, version)


@dataclass(frozen=True)
class Inserted:
    """What an insert makes of a state."""

    state: State
    came: int
    """How many inserted rows there are now."""
    gone: int
    """How many existing rows are not there any more."""
    changed: int
    """How many partitions are not as they were."""


ORIGIN = " origin"
"""Which rows are inserted, while they are merged; no variable's name."""


def take(rows: Rows, which: Sequence[int]) -> Rows:
    return {name: values[list(which)] if len(which) else values[:0] for name, values in rows.items()}


def join(parts: Sequence[Rows]) -> Rows:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def sort(rows: Rows) -> Rows:
    """The rows in the order of the axis; of equal values the first stays the first."""
    times = list(rows["time"])
    return take(rows, sorted(range(len(times)), key=times.__getitem__))


def merged(merge: str, tolerance: Any, old: Rows, new: Rows) -> Rows:
    """The rows of a partition and those of one dataset, merged as the table in the documentation says."""
    times, there = list(new["time"]), set(old["time"].tolist())
    if merge == "keep":
        new = take(new, [row for row, time in enumerate(new["time"].tolist()) if time not in there])
    elif merge == "upsert":
        reach = tolerance if tolerance is not None else times[0] - times[0]
        old = take(old, [row for row, at in enumerate(old["time"]) if all(abs(at - each) > reach for each in times)])
    elif merge == "time_series":
        times = sorted(times)
        periods = [[times[0], times[0]]]
        for time in times:
            if tolerance is not None and time - periods[-1][1] > tolerance:
                periods.append([time, time])
            periods[-1][1] = time
        outside = [not any(first <= time <= last for first, last in periods) for time in old["time"]]
        old = take(old, np.flatnonzero(outside).tolist())
    else:
        assert merge in ("append", "concat")
    return sort(join([old, sort(new)]))


def appends_again(state: State, turns: Sequence[Mapping[Key, Rows]]) -> bool:
    """Whether a dataset brings an axis value that is in its partition, or that one before it brings."""
    there = {key: set(rows["time"].tolist()) for key, rows in state.partitions.items()}
    for turn in turns:
        for key, rows in turn.items():
            times = set(rows["time"].tolist())
            if times & there.setdefault(key, set()):
                return True
            there[key] |= times
    return False


# What all collections of an example share


@dataclass(frozen=True)
class Case:
    """How a collection is partitioned, and what its rows may be."""

    by: Any
    """``"D"`` or ``"M"``, the resolution of dates; or ``"orbit"``, an integer."""
    dimension: str
    zarr_format: int
    has_labels: bool
    """Whether the dimension x has labels, which are immutable."""

    @property
    def is_date(self) -> bool:
        return self.by != "orbit"

    @property
    def partitioning(self) -> Any:
        return izc.Date("time", self.by) if self.is_date else izc.Sequence(("orbit",))

    @property
    def key_names(self) -> tuple[str, ...]:
        return {"M": ("year", "month"), "D": ("year", "month", "day"), "orbit": ("orbit",)}[self.by]

    @property
    def placing(self) -> tuple[str, ...]:
        """The variables by which rows have their place."""
        return ("time",) if self.is_date else ("time", "orbit")

    def time(self, number: int) -> Any:
        """The axis value of a number in 0 … 19: few, so that rows collide; in three to five partitions of dates."""
        if not self.is_date:
            return np.int64(number)
        step = np.timedelta64(number * (6 if self.by == "D" else 5 * 24), "h")
        return np.datetime64("2021-12-30" if self.by == "D" else "2021-12-03", "ns") + step

    def tolerance(self, number: int) -> Any:
        return self.time(number) - self.time(0) if self.is_date else number

    def key(self, time: Any, orbit: int) -> Key:
        """The key of a row, from the text of its date."""
        if not self.is_date:
            return (orbit,)
        return tuple(int(part) for part in str(time)[:10].split("-"))[: len(self.key_names)]

    def by_key(self, rows: Rows) -> dict[Key, Rows]:
        """The rows of each key, sorted by the axis."""
        orbits = rows.get("orbit", rows["time"])
        keys = [self.key(time, int(orbit)) for time, orbit in zip(rows["time"], orbits, strict=True)]
        return {
            key: sort(take(rows, [row for row, each in enumerate(keys) if each == key])) for key in sorted(set(keys))
        }

    def dataset(self, state: State, rows: Rows, immutables: Iterable[str] = ()) -> xr.Dataset:
        """Rows as a dataset that can be inserted; it has what the rows have, of the state's variables."""
        data = {}
        for name, values in rows.items():
            if name in self.placing:
                data[name] = xr.Variable((self.dimension,), values)
                continue
            variable = state.variables[name]
            kind = KINDS[str(variable.kind)]
            data[name] = xr.Variable(
                kind.dims(self.dimension),
                values.T if kind.x == 2 else values,
                dict(variable.attrs),
                dict(kind.encoding),
            )
        for name in immutables:
            variable = state.variables[name]
            assert variable.values is not None
            data[name] = xr.Variable(("x",) * variable.values.ndim, variable.values, dict(variable.attrs))
        return xr.Dataset(data, attrs=dict(state.attrs)).set_coords([name for name in ("time", "x") if name in data])
