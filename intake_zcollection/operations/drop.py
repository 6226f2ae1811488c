"""Dropping: partitions, and whole collections."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

import numpy as np

from registry import Filters, Registry, Selection, Version
from registry.changes import ClosePartitions

from ..errors import InvalidInputError
from ..handle import Handle
from ..storage import layout
from ..storage.location import open_location
from ..storage.marker import release
from ..storage.write import remove_attempts

Time = str | dt.date | np.datetime64
"""A time, in UTC if it does not say otherwise; a date is its first instant."""


def drop_partitions(handle: Handle, *, filters: Filters | None, written_before: Time | None) -> Version:
    """Drop partitions; see :meth:`intake_zcollection.Collection.drop_partitions`."""
    if filters is None and written_before is None:
        raise InvalidInputError(
            f"which partitions of collection {handle.record.name}? Give filters or written_before; filters='True' has "
            "no meaning, and all are dropped with written_before a time to come"
        )
    limit = None if written_before is None else parse_time(written_before)
    selection = Selection.of(filters, handle.record.keys)
    return handle.commit("drop_partitions", ClosePartitions(selection, limit))


def parse_time(time: Time) -> dt.datetime:
    """Return a time with its zone.

    >>> parse_time("2022-03-01")
    datetime.datetime(2022, 3, 1, 0, 0, tzinfo=datetime.timezone.utc)

    Raises
    ------
    InvalidInputError
        It is no time.
    """
    match time:
        case np.datetime64() if not np.isnat(time):
            parsed: dt.datetime = time.astype("M8[us]").item()
        case str():
            try:
                parsed = dt.datetime.fromisoformat(time)
            except ValueError as error:
                raise InvalidInputError(f"{time!r} is not a time; write 2022-03-01 or 2022-03-01T12:00") from error
        case dt.datetime():
            parsed = time
        case dt.date():
            parsed = dt.datetime(time.year, time.month, time.day)
        case _:
            raise InvalidInputError(f"{time!r} is not a time")
    return parsed.replace(tzinfo=dt.UTC) if parsed.tzinfo is None else parsed


def drop_collection(registry: Registry, name: str, storage_options: Mapping[str, Any] | None) -> None:
    """Drop a collection and its data; see :func:`intake_zcollection.drop_collection`."""
    collection = registry.collection(name)
    place = open_location(collection.location, collection.storage_options, storage_options)
    # Forgotten first: a registry that names data which is gone would be worse than data that nobody names.
    fragments = registry.drop_collection(name)
    paths = [path or layout.slot_path(collection.keys, slot, uid) for slot, uid, path in fragments]
    remove_attempts(place, paths)
    release(place, collection.uid)
