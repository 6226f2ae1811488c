"""Loading: registry → partition table → lazy dataset. Only an exact row crop reads, and only the axis."""

import datetime as dt
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from registry import KEY_LIMITS, CollectionRecord, Filters, Registry, SchemaRecord, Snapshot

from ..errors import InvalidInputError, NotFoundError
from ..reading.blocks import Chunks
from ..reading.dataset import build_dataset, immutable_table
from ..reading.lazy import read_pieces
from ..reading.table import PartitionTable, Piece, partition_table
from ..schema import Schema, SchemaVariable
from ..schema.names import near
from ..storage.location import Location

Bound = str | dt.date | np.datetime64 | int | None
"""A bound on the axis: a date, perhaps a partial one (``"2022-03"``), or an integer; None is open."""

Where = Mapping[str, tuple[Bound, Bound]]
"""Closed bounds on values, by variable."""

AxisRange = tuple[int | None, int | None]

_DATE = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d(\.\d{1,9})?)?)?)?)?)?")

_NS = np.dtype("datetime64[ns]")


def load(
    registry: Registry,
    collection: CollectionRecord,
    location: Location,
    *,
    version: int | None,
    filters: Filters | None,
    where: Where | None,
    crop: bool,
    variables: Iterable[str] | None,
    chunks: Chunks,
) -> xr.Dataset:
    """Return a lazy dataset; see :meth:`intake_zcollection.Collection.load`."""
    snapshot, schema, axis_range = select(registry, collection, version=version, filters=filters, where=where or {})
    names = _select_variables(schema, snapshot, variables)
    table = partition_table(snapshot.partitions, snapshot.layers)
    if crop:
        table = _crop(table, snapshot, location, schema.variables[schema.axis], axis_range)
    tables = {False: table, True: immutable_table(snapshot.immutable)}
    return build_dataset(location, schema, names, tables, chunks=chunks, version=snapshot.version)


def select(
    registry: Registry, collection: CollectionRecord, *, version: int | None, filters: Filters | None, where: Where
) -> tuple[Snapshot, Schema, AxisRange]:
    """Return the partitions that a selection takes rows from, their schema, and its bounds on the axis."""
    axis_range = parse_where(where, collection.axis)
    snapshot = registry.resolve(collection, version=version, filters=filters, axis_range=axis_range)
    schema = schema_of(collection, snapshot.schema)
    _check_bounds(where, schema.variables[schema.axis])
    return snapshot, schema, axis_range


def schema_of(collection: CollectionRecord, record: SchemaRecord) -> Schema:
    """Return the schema of a registry's record."""
    return Schema.from_record(
        record, axis=collection.axis, dimension=collection.dimension, zarr_format=collection.zarr_format
    )


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
    bounds = where.get(axis, (None, None))
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise InvalidInputError(f"where={{{axis!r}: {bounds!r}}} is not a pair (low, high); None leaves a side open")
    low, high = bounds
    return _period(low, axis)[0], _period(high, axis)[1]


def _check_bounds(where: Where, axis: SchemaVariable) -> None:
    integers = axis.dtype.kind != "M"
    for bound in itertools.chain(*where.values()):
        if bound is not None and isinstance(bound, int | np.integer) != integers:
            needed = "an integer" if integers else "a date"
            raise InvalidInputError(f"the bound {bound!r} on {axis.name}, which is {axis.dtype}, has to be {needed}")


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


def _select_variables(schema: Schema, snapshot: Snapshot, variables: Iterable[str] | None) -> list[str]:
    """Return the names to load: those asked for and the axis; immutable ones once they have been stored."""
    if isinstance(variables, str):
        variables = [variables]
    wanted = list(schema.variables) if variables is None else list(variables)
    for name in wanted:
        if name not in schema.variables:
            raise NotFoundError(
                f"collection {snapshot.collection.name} has no variable {name} at version {snapshot.version}; "
                f"{near(name, schema.variables)}"
            )
    labels = {dim for name in wanted for dim in schema.variables[name].dims} | {schema.axis}
    return [
        name
        for name, variable in schema.variables.items()
        if (name in wanted or name in labels) and not (variable.is_immutable and snapshot.immutable is None)
    ]


def _crop(
    table: PartitionTable, snapshot: Snapshot, location: Location, axis: SchemaVariable, axis_range: AxisRange
) -> PartitionTable:
    """Cut the rows outside the range off the pieces that reach beyond it; only their axis is read."""
    pieces = tuple(
        _crop_piece(piece, location, axis, axis_range) if _is_cut(partition.bounds, axis_range) else piece
        for piece, partition in zip(table.pieces, snapshot.partitions, strict=True)
    )
    return PartitionTable(table.keys, pieces)


def _is_cut(bounds: tuple[Any, Any], axis_range: AxisRange) -> bool:
    low, high = axis_range
    return (low is not None and bounds[0] < low) or (high is not None and bounds[1] > high)


def _crop_piece(piece: Piece, location: Location, axis: SchemaVariable, axis_range: AxisRange) -> Piece:
    values = read_pieces(location, axis, (piece,), (slice(0, piece.rows),)).astype(np.int64)
    low, high = axis_range
    start = 0 if low is None else int(np.searchsorted(values, low, "left"))
    stop = piece.rows if high is None else int(np.searchsorted(values, high, "right"))
    rows = values[start:stop]
    bounds = (int(rows[0]), int(rows[-1])) if len(rows) else (None, None)
    return replace(piece, start=start, stop=max(start, stop), bounds=bounds)
