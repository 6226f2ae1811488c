"""Dropping: partitions, and whole collections."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

import numpy as np

from registry import Filters, Registry, Selection, Signature, Version
from registry.changes import ClosePartitions

from ..errors import InvalidInputError
from ..handle import Handle
from ..storage import layout
from ..storage.location import open_location
from ..storage.marker import remove_marker
from ..storage.write import remove_attempts

Time = str | dt.date | np.datetime64
"""A time of the registry's clock: text, a date (its first instant), a datetime64, in UTC; or a datetime with a zone."""


def drop_partitions(
    handle: Handle,
    *,
    filters: Filters | None,
    written_before: Time | None,
    all: bool,  # noqa: A002 - the word that a user writes
    signature: Signature,
) -> Version:
    """Drop partitions; see :meth:`intake_zcollection.Collection.drop_partitions`."""
    if not isinstance(all, bool):
        raise InvalidInputError(f"all={all!r} is neither True nor False")
    given = filters is not None or written_before is not None
    if all and given:
        raise InvalidInputError("all=True drops every partition, so filters and written_before have no meaning with it")
    if not (all or given):
        raise InvalidInputError(
            f"which partitions of collection {handle.record.name}? Give filters or written_before, or all=True to drop "
            "every one"
        )
    limit = None if written_before is None else parse_time(written_before)
    selection = Selection.of(filters, handle.record.keys)
    return handle.commit("drop_partitions", ClosePartitions(selection, limit), signature=signature)


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
    registry: Registry, name: str, storage_options: Mapping[str, Any] | None, signature: Signature
) -> None:
    """Drop a collection and its data; see :func:`intake_zcollection.drop_collection`."""
    collection = registry.collection(name)
    place = open_location(collection.location, collection.storage_options, storage_options)
    # Forgotten first, or readers would find a collection whose data is gone. Rows name what is left until all of it is.
    garbage = registry.drop_collection(collection, layout.slot_path, signature=signature)
    remove_attempts(place, garbage.paths)
    remove_marker(place, collection.uid)
    registry.forget_garbage(garbage)
