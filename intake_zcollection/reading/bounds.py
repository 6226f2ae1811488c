"""Bounds on values: what a caller says, and the intervals that SQL and numpy compare values with, the same ones."""

import datetime as dt
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from registry import KEY_LIMITS, CollectionRecord, SchemaRecord, ValueRange

from ..errors import InvalidInputError
from ..schema import Schema, SchemaVariable, Values
from ..schema.encoding import is_missing, missing_value
from ..schema.names import find_variable

Bound = str | dt.date | np.datetime64 | int | float | None
"""A bound on times: a date, perhaps a partial one (``"2022-03"``); on numbers: a number; None is open."""

Where = Mapping[str, tuple[Bound, Bound]]
"""Closed bounds on values, by variable."""

AxisRange = tuple[int | None, int | None]

Limits = tuple[Any, Any]

_DATE = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d(\.\d{1,9})?)?)?)?)?)?")

_NS = np.dtype("datetime64[ns]")

_EAST = frozenset({"degrees_east", "degree_east", "degrees_E", "degree_E", "degreeE", "degreesE"})
"""What CF calls the units of longitudes (CF-1.11, chapter 4.2)."""

_TURN = 360

_ANGLES = -2 * _TURN, 3 * _TURN
"""Angles that are compared as they are: those of any convention. Others are turned first."""


_told: set[tuple[str, int]] = set()
"""The variables, by collection and number, of which this process has said that there are no statistics."""


@dataclass(frozen=True)
class Within:
    """Which values of a variable are asked for: those in any of some intervals. Missing ones never are."""

    variable: SchemaVariable
    intervals: tuple[Limits, ...]
    """Closed, None open: in the variable's dtype, as integers of any size, or as ns since 1970."""
    turns: bool = False
    """Whether the values are angles, the same again after a turn."""

    @classmethod
    def of(cls, variable: SchemaVariable, bounds: Any, collection: str) -> "Within":
        """Return what bounds on a variable mean.

        Raises
        ------
        InvalidInputError
            The variable cannot be compared, or the bounds are not of its kind, or the first is the larger one.
        """
        check_comparable(variable, collection)
        kind, name = variable.dtype.kind, variable.name
        if kind == "M":
            return cls(variable, (_check_order(_times(bounds, name), bounds, name),))
        pair = _numbers(bounds, name)
        if is_angle(variable):
            return cls(variable, tuple(_rounded(variable, _turned(pair, name))), turns=True)
        return cls(variable, tuple(_rounded(variable, [_check_order(pair, bounds, name)])))

    def holds(self, values: Values) -> npt.NDArray[np.bool_]:
        """Return which values are asked for."""
        inside, there = np.zeros(values.shape, bool), ~is_missing(values)
        compared = values.astype(_NS).view(np.int64) if values.dtype.kind == "M" else values
        if self.turns:
            compared = _as_any_angle(compared)
        for low, high in self.intervals:
            here = there.copy()
            if low is not None:
                here &= compared >= low
            if high is not None:
                here &= compared <= high
            inside |= here
        return inside

    def rows(self, values: Values) -> npt.NDArray[np.bool_]:
        """Return the rows that have such a value: of several in a row, any."""
        others = tuple(axis for axis in range(values.ndim) if axis != self.variable.split_axis)
        return np.asarray(self.holds(values).any(axis=others))

    @property
    def range(self) -> ValueRange:
        """The same for the registry, by what it keeps: integers of 64 bits, or floats."""
        is_float = self.variable.dtype.kind == "f"
        recorded = float if is_float else as_bigint
        intervals = [
            (low if low is None else recorded(low), high if high is None else recorded(high))
            for low, high in self.intervals
        ]
        if self.turns and intervals:
            intervals += [(None, recorded(_ANGLES[0])), (recorded(_ANGLES[1]), None)]
        fill = np.full((1,), missing_value(self.variable), self.variable.dtype)
        variable = self.variable
        return ValueRange(variable.id, tuple(intervals), is_float, variable.lives, bool(self.holds(fill)[0]))


@dataclass(frozen=True)
class Conditions:
    """Bounds on variables other than the axis, as they were given: they are understood once the schema is known."""

    collection: CollectionRecord
    where: Where

    def of(self, schema: Schema) -> tuple[Within, ...]:
        """Return what they mean.

        Raises
        ------
        NotFoundError
            There is no such variable.
        InvalidInputError
            As :meth:`Within.of`.
        """
        name = self.collection.name
        return tuple(Within.of(find_variable(schema, each, name), bounds, name) for each, bounds in self.where.items())

    def tell(self, schema: Schema) -> None:
        """Say once of each variable that no statistics are kept of it, which would spare reading."""
        for name in self.where:
            which = self.collection.uid, schema.variables[name].id
            if not schema.variables[name].statistics and which not in _told:
                _told.add(which)
                warnings.warn(
                    f"no statistics are kept of {name} of collection {self.collection.name}: bounds on it choose no "
                    f"partitions, and a load reads it in all of them; add_statistics([{name!r}]) keeps some, of a view "
                    "on its base",
                    UserWarning,
                    stacklevel=2,
                )

    def __call__(self, schema: SchemaRecord) -> tuple[ValueRange, ...]:
        """Return the same for the registry."""
        return tuple(each.range for each in self.of(Schema.of(self.collection, schema)))


def is_angle(variable: SchemaVariable) -> bool:
    """Whether values are degrees east, in which 350 … 10 is a range, and 350 and -10 are the same."""
    return variable.attrs.get("units") in _EAST


def check_comparable(variable: SchemaVariable, collection: str) -> None:
    """Raise InvalidInputError unless a variable has numbers or times in each row."""
    if variable.is_immutable:
        raise InvalidInputError(
            f"variable {variable.name} of collection {collection} is stored once, and has no values of rows to be "
            "compared: load it, and select by isel"
        )
    if variable.dtype.kind not in "iufM":
        what = {"b": "True and False", "m": "durations", "c": "complex numbers"}.get(variable.dtype.kind, "text")
        raise InvalidInputError(
            f"variable {variable.name} of collection {collection} has {what}, and bounds and statistics are of numbers "
            "and times: select by it from what is loaded, or keep it as numbers"
        )


def as_bigint(value: Any) -> int:
    """Return an integer as the registry keeps it: those beyond 64 bits as the last one, on either side."""
    return max(KEY_LIMITS[0], min(int(value), KEY_LIMITS[1]))


def parse_where(where: Any, axis: str) -> tuple[AxisRange, dict[str, Any]]:
    """Return bounds on the axis as integers, ns since 1970 for dates; and those on other variables as they are.

    >>> parse_where({"time": ("1970-01-01", "1970-01-01"), "latitude": (30, 46)}, "time")
    ((0, 86399999999999), {'latitude': (30, 46)})

    Raises
    ------
    InvalidInputError
        What is no pair of bounds; or, on the axis, a bound that is no date and no integer, or the larger one first.
    """
    if not isinstance(where, Mapping):
        raise InvalidInputError(f"where={where!r} is not of the form {{{axis!r}: (low, high)}}")
    others = {name: _check_pair(bounds, name) for name, bounds in where.items() if name != axis}
    bounds = where.get(axis, (None, None))
    return _check_order(parse_bounds(bounds, axis), bounds, axis), others


def parse_bounds(bounds: Any, name: str) -> AxisRange:
    """Return bounds on a variable as integers, ns since 1970 for dates; raises InvalidInputError as the one above."""
    low, high = _check_pair(bounds, name)
    return _period(low, name)[0], _period(high, name)[1]


def _check_pair(bounds: Any, name: str) -> tuple[Any, Any]:
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise InvalidInputError(f"where={{{name!r}: {bounds!r}}} is not a pair (low, high); None leaves a side open")
    return bounds[0], bounds[1]


def _check_order(limits: Limits, bounds: Any, name: str) -> Limits:
    """Return limits; raises InvalidInputError if the first is the larger one."""
    low, high = limits
    if low is not None and high is not None and low > high:
        raise InvalidInputError(
            f"where={{{name!r}: {bounds!r}}} begins after its end: give the lower bound first. A range goes round in "
            "degrees east alone, by the units of a variable"
        )
    return limits


# Times


def _times(bounds: Any, name: str) -> AxisRange:
    for bound in _check_pair(bounds, name):
        if isinstance(bound, int | float | np.number) and not isinstance(bound, np.timedelta64):
            raise InvalidInputError(f"the bound {bound!r} on {name}, which has times, has to be a date")
    return parse_bounds(bounds, name)


def _period(bound: Any, axis: str) -> tuple[int | None, int | None]:
    """Return the first and last axis value that a bound stands for: "2022-03" is a month long."""
    match bound:
        case None:
            return None, None
        case bool() | np.timedelta64():
            pass
        case int() | np.integer() if KEY_LIMITS[0] <= bound <= KEY_LIMITS[1]:
            return int(bound), int(bound)
        case dt.datetime():
            utc = bound.astimezone(dt.UTC).replace(tzinfo=None) if bound.tzinfo else bound
            return (_nanoseconds(np.datetime64(utc, "us"), axis),) * 2
        case dt.date():
            return _period(bound.isoformat(), axis)
        case np.datetime64() if not np.isnat(bound):
            return (_nanoseconds(bound, axis),) * 2
        case str():
            start = _parse_date(bound, axis)
            if np.datetime_data(start.dtype)[0] == "ns":
                return (_nanoseconds(start, axis),) * 2
            unit: Any = np.datetime_data(start.dtype)[0]
            return _nanoseconds(start, axis), _nanoseconds(start + np.timedelta64(1, unit), axis) - 1
    raise InvalidInputError(f"the bound {bound!r} on {axis} is neither a date nor an integer of 64 bits")


def _parse_date(text: str, axis: str) -> np.datetime64:
    # numpy would also take "now", which means another time at each load, and zones, which it then ignores.
    try:
        parsed = np.datetime64(text) if _DATE.fullmatch(text) else np.datetime64("NaT", "ns")
    except ValueError:
        parsed = np.datetime64("NaT", "ns")
    if np.isnat(parsed):
        raise InvalidInputError(
            f"the bound {text!r} on {axis} is not a date; write 2022, 2022-03, 2022-03-31 or 2022-03-31T12:00"
        )
    return parsed


def _nanoseconds(date: np.datetime64, axis: str) -> int:
    try:
        exact = date.astype(_NS)
    except OverflowError:  # from numpy 2.5 on; before, it wraps around
        exact = np.datetime64("NaT", "ns")
    if exact.astype(date.dtype) != date:
        raise InvalidInputError(f"the bound {date} on {axis} is outside of what nanoseconds can count, 1678 to 2262")
    return int(exact.astype(np.int64))


# Numbers


def _numbers(bounds: Any, name: str) -> Limits:
    """Return bounds as Python's numbers: integers stay integers, of any size."""
    pair = _check_pair(bounds, name)
    for bound in pair:
        number = isinstance(bound, int | float | np.integer | np.floating) and not isinstance(
            bound, bool | np.timedelta64
        )
        if bound is not None and not (number and bound == bound):
            raise InvalidInputError(
                f"the bound {bound!r} on {name} is not a number, which {name} has; None leaves a side open"
            )
    low, high = (bound.item() if isinstance(bound, np.generic) else bound for bound in pair)
    return low, high


def _rounded(variable: SchemaVariable, intervals: Iterable[Limits]) -> Iterator[Limits]:
    """Yield the intervals in the variable's dtype, but for those that have none of its values.

    Floats are compared in the variable's own precision, as numpy compares an array with a number. No integer lies
    between what is given and what is yielded.
    """
    if variable.dtype.kind == "f":
        for limits in intervals:
            with np.errstate(over="ignore"):
                low, high = (each if each is None else variable.dtype.type(_float(each)) for each in limits)
            yield low, high
        return
    info = np.iinfo(variable.dtype)
    for low, high in intervals:
        if (low is not None and low > info.max) or (high is not None and high < info.min):
            continue
        first = None if low is None or low <= info.min else math.ceil(low)
        last = None if high is None or high >= info.max else math.floor(high)
        if first is None or last is None or first <= last:
            yield first, last


def _float(number: float) -> float:
    """Return a number as a float; an integer that is too large for one as the last."""
    try:
        return float(number)
    except OverflowError:
        return math.copysign(math.inf, number)


def _turned(limits: Limits, name: str) -> Iterator[Limits]:
    """Yield the intervals of a range of angles, turn by turn, as far as angles are compared as they are."""
    low, high = limits
    if low is None and high is None:
        yield None, None
        return
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        raise InvalidInputError(
            f"the bounds {limits!r} on {name} leave a side open, and degrees east have no end: give both, as (350, 10) "
            "for what lies between them to the east"
        )
    if low > high:
        high += _TURN * math.ceil((low - high) / _TURN)
    if high - low >= _TURN:
        yield None, None
        return
    for turn in range(math.ceil((_ANGLES[0] - high) / _TURN), math.floor((_ANGLES[1] - low) / _TURN) + 1):
        yield low + _TURN * turn, high + _TURN * turn


def _as_any_angle(values: Values) -> Values:
    """Return angles with those that are turned too far as others of the same direction."""
    first, last = _ANGLES
    far = (values < first) | (values > last)
    with np.errstate(invalid="ignore"):  # infinities have no direction
        return np.where(far, np.mod(values, values.dtype.type(_TURN)), values) if np.any(far) else values
