"""Dropping: partitions, and whole collections."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from registry import Filters, Registry, Selection, Signature, Version
from registry.changes import ClosePartitions

from ..errors import InvalidInputError
from ..handle import Handle
from ..merging import parse_duration
from ..reading.selection import NO_PARTITIONS
from ..storage import layout
from ..storage.location import open_location
from ..storage.marker import remove_marker
from ..storage.write import remove_attempts
from ..writing.check import Views, may_break

Time = str | dt.date | np.datetime64
"""A time of the registry's clock: text, a date (its first instant), a datetime64, in UTC; or a datetime with a zone."""

Duration = dt.timedelta | np.timedelta64
"""A time between two: Python's, pandas' or numpy's, but for months and years."""


@dataclass(frozen=True)
class Dropped:
    """Which partitions: those that meet all that is given."""

    filters: Filters | None
    written_before: Time | None
    older_than: Duration | None
    all: bool


def drop_partitions(handle: Handle, which: Dropped, signature: Signature) -> Version:
    """Drop partitions; see :meth:`intake_zcollection.Collection.drop_partitions`."""
    if not isinstance(which.all, bool):
        raise InvalidInputError(f"all={which.all!r} is neither True nor False")
    given = [name for name in ("filters", "written_before", "older_than") if getattr(which, name) is not None]
    if which.all and given:
        raise InvalidInputError(f"all=True drops every partition: leave {' and '.join(given)} out, or all")
    if not (which.all or given):
        raise InvalidInputError(
            f"which partitions of collection {handle.record.name}? Give filters, written_before or older_than, or "
            "all=True to drop every one"
        )
    closing = ClosePartitions(
        Selection.of(which.filters, handle.record.keys),
        None if which.written_before is None else parse_time(which.written_before),
        None if which.older_than is None else _nanoseconds(handle, which.older_than),
    )
    return handle.commit("drop_partitions", closing, signature=signature)


def _nanoseconds(handle: Handle, duration: Duration) -> int:
    axis = handle.record.axis
    dtype = handle.select(NO_PARTITIONS).schema.variables[axis].dtype
    if dtype.kind != "M":
        raise InvalidInputError(
            f"older_than={duration!r}: the axis {axis} of collection {handle.record.name} holds integers, not times; "
            "choose partitions by filters"
        )
    return parse_duration(duration, "older_than")


def parse_time(time: Time) -> dt.datetime:
    """Return a time of the registry's clock, in UTC.

    >>> parse_time("2022-03-01")
    datetime.datetime(2022, 3, 1, 0, 0, tzinfo=datetime.timezone.utc)

    Raises
    ------
    InvalidInputError
        It is no time, or a datetime without a zone: those that Python makes are local.
    """
    parsed = None
    match time:
        case np.datetime64() if not np.isnat(time):
            year = time.astype("M8[Y]").astype(np.int64) + 1970
            parsed = time.astype("M8[us]").item() if dt.MINYEAR <= year <= dt.MAXYEAR else None
        case str():
            try:
                parsed = dt.datetime.fromisoformat(time)
            except ValueError as error:
                raise InvalidInputError(f"{time!r} is not a time; write 2022-03-01 or 2022-03-01T12:00") from error
        case dt.datetime() if time == time:  # pandas' NaT is one too, and not equal to itself
            if time.utcoffset() is None:
                raise InvalidInputError(
                    f"the datetime {time} has no zone, and Python's are local times, where the registry's clock is "
                    "UTC: write datetime.now(timezone.utc) for now, or time.astimezone() for a local time"
                )
            parsed = time
        case dt.date() if not isinstance(time, dt.datetime):
            parsed = dt.datetime(time.year, time.month, time.day)
    try:
        if isinstance(parsed, dt.datetime):
            return parsed.replace(tzinfo=dt.UTC) if parsed.utcoffset() is None else parsed.astimezone(dt.UTC)
    except OverflowError:
        pass  # next to the first or the last year, UTC has no such time
    raise InvalidInputError(f"{time!r} is not a time")


def drop_collection(
    registry: Registry, name: str, storage_options: Mapping[str, Any] | None, views: Views, signature: Signature
) -> None:
    """Drop a collection and its data; see :func:`intake_zcollection.drop_collection`."""
    breaks = may_break(views)
    collection = registry.collection(name)
    place = open_location(collection.location, collection.storage_options, storage_options)
    # Forgotten first, or readers would find a collection whose data is gone. Rows name what is left until all of it is.
    garbage = registry.drop_collection(collection, layout.slot_path, break_views=breaks, signature=signature)
    remove_attempts(place, garbage.paths)
    remove_marker(place, collection.uid)
    registry.forget_garbage(garbage)
