"""What a caller asked to see, parsed once, and what that chose: partitions by their keys, rows by the axis."""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import registry
from registry import KEY_LIMITS, Asked, CollectionRecord, Filters, KeyValues, Overlay, Snapshot, pad_key

from ..errors import InvalidInputError
from ..partitioning import partitioning_from_json
from ..schema import Schema, SchemaVariable
from .listing import Listing
from .origin import Origin
from .table import PartitionTable

Bound = str | dt.date | np.datetime64 | int | None
"""A bound on the axis: a date, perhaps a partial one (``"2022-03"``), or an integer; None is open."""

Where = Mapping[str, tuple[Bound, Bound]]
"""Closed bounds on values, by variable."""

AxisRange = tuple[int | None, int | None]

_DATE = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d(\.\d{1,9})?)?)?)?)?)?")

_NS = np.dtype("datetime64[ns]")


@dataclass(frozen=True)
class Selection:
    """Which partitions, and whether those that a bound cuts lose the rows beyond it."""

    chosen: registry.Selection = field(default_factory=registry.Selection)
    crop: bool = False
    bounds: tuple[Bound, ...] = ()
    """The bounds as they were given: their kind is checked once the schema is known."""
    rows: Mapping[KeyValues, Sequence[tuple[int, int]]] | None = None
    """Which rows of each partition: the first, and the one after the last, in their order."""
    asked: Asked = field(default_factory=Asked)
    """Of a view: which variables are wanted, and what is to be done where its own are stale."""

    @classmethod
    def of(
        cls,
        collection: CollectionRecord,
        filters: Filters | None = None,
        where: Where | None = None,
        *,
        crop: bool = False,
    ) -> "Selection":
        """Return what a caller asked for.

        Raises
        ------
        InvalidInputError
            A filter that is not understood, a bound on another variable than the axis, or one that is no date and no
            integer.
        """
        axis_range = parse_where(where or {}, collection.axis)
        chosen = registry.Selection.of(filters, collection.keys, axis_range=axis_range)
        partitioning = partitioning_from_json(collection.partitioning)
        along = partitioning.variables == (collection.axis,)
        key_range = partitioning.key_range(*axis_range) if along else None
        return cls(replace(chosen, parts=crop, key_range=key_range), crop, (where or {}).get(collection.axis, ()))

    def check(self, axis: SchemaVariable) -> None:
        """Raise InvalidInputError unless the bounds are of the axis' kind."""
        integers = axis.dtype.kind != "M"
        for bound in self.bounds:
            if bound is not None and isinstance(bound, int | np.integer) != integers:
                needed = "an integer" if integers else "a date"
                raise InvalidInputError(
                    f"the bound {bound!r} on {axis.name}, which is {axis.dtype}, has to be {needed}"
                )


NO_PARTITIONS = Selection(registry.Selection(keys=()))


@dataclass(frozen=True)
class Selected:
    """What a selection chose at one version, as one SQL snapshot has it. Nothing is read from storage for it."""

    snapshot: Snapshot
    schema: Schema
    origins: Mapping[str, Origin]
    """Where each variable lies. All have the same rows, partition by partition."""
    listing: Listing
    """Who says so."""

    @property
    def collection(self) -> CollectionRecord:
        """The collection, as it is called now."""
        return self.snapshot.collection

    @property
    def version(self) -> int:
        """The number of the version."""
        return self.snapshot.version

    @property
    def read(self) -> tuple[tuple[CollectionRecord, int], ...]:
        """The collections that it is made of, and their versions: a view has a base."""
        over = self.snapshot.overlay
        return ((self.collection, self.version), *(over.read if over else ()))

    @property
    def own(self) -> Overlay:
        """What a view has of its own; a collection is not asked."""
        over = self.snapshot.overlay
        assert over is not None  # only views are
        return over

    @property
    def inputs(self) -> Schema:
        """The variables from which others are computed: all, or, in a view, those of its base."""
        over = self.snapshot.overlay
        if over is None:
            return self.schema
        known = {name: each for name, each in self.schema.variables.items() if each.id < over.own_ids}
        return replace(self.schema, variables=known)

    @property
    def rows(self) -> PartitionTable:
        """The rows that all partitioned variables have."""
        return self.origins[self.schema.axis].rows

    @property
    def bounds(self) -> dict[KeyValues, tuple[int, int]]:
        """The first and the last axis value of each partition, by all six key columns."""
        ends = np.cumsum(self.rows.counts)
        lows = self.rows.parts["low"][ends - self.rows.counts].tolist()
        highs = self.rows.parts["high"][ends - 1].tolist()
        keys = (pad_key(tuple(values)) for values in self.rows.values.tolist())
        return dict(zip(keys, zip(lows, highs, strict=True), strict=True))

    def table_of(self, name: str) -> PartitionTable:
        """Return where a variable lies: in the rows, or once."""
        return self.origins[name].table_of(self.schema.variables[name])

    def evolved(self, schema: Schema) -> "Selected":
        """Return it with variables that a write adds; where they have no values yet, they read as missing."""
        origins = dict.fromkeys(schema.variables, self.origins[self.schema.axis])
        return replace(self, schema=schema, origins=origins | dict(self.origins))


def parse_where(where: Where, axis: str) -> AxisRange:
    """Return bounds on the axis as integers, ns since 1970 for dates.

    >>> parse_where({"time": ("1970-01-01", "1970-01-01")}, "time")
    (0, 86399999999999)

    Raises
    ------
    InvalidInputError
        A bound on another variable, or one that is no date and no integer.
    """
    if not isinstance(where, Mapping):
        raise InvalidInputError(f"where={where!r} is not of the form {{{axis!r}: (low, high)}}")
    others = [name for name in where if name != axis]
    if others:
        raise InvalidInputError(
            f"where= takes bounds on the axis {axis}, not on {', '.join(others)}; select those from the result"
        )
    return parse_bounds(where.get(axis, (None, None)), axis)


def parse_bounds(bounds: Any, name: str) -> AxisRange:
    """Return bounds on a variable as integers, ns since 1970 for dates; raises InvalidInputError as the one above."""
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise InvalidInputError(f"where={{{name!r}: {bounds!r}}} is not a pair (low, high); None leaves a side open")
    low, high = bounds
    return _period(low, name)[0], _period(high, name)[1]


def _period(bound: Bound, axis: str) -> tuple[int | None, int | None]:
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
