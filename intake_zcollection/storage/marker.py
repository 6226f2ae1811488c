"""Who owns a place: an object in it that says so, for people and for recovery."""

import json
from contextlib import suppress
from typing import Any

from ..errors import AlreadyExistsError, CorruptedDataError, StorageUnavailableError
from . import layout
from .location import Location


def claim(location: Location, collection: str, uid: str) -> None:
    """Mark a location as a collection's own; so it is shown to be writable.

    Raises
    ------
    AlreadyExistsError
        The location belongs to another collection.
    StorageUnavailableError
        It cannot be written.
    """
    marker = {
        "what": "A collection of intake-zcollection: partitions in Zarr, their versions in an SQL registry. "
        "Each directory named by 32 hexadecimal digits is a Zarr group that any Zarr library opens.",
        "collection": collection,
        "uid": uid,
    }
    if not location.store.claim(layout.MARKER, json.dumps(marker, indent=2).encode()):
        owner = read_marker(location) or {}
        raise AlreadyExistsError(
            f"the location {location.url} belongs to collection {owner.get('collection')} ({owner.get('uid')}), "
            "perhaps of another registry: choose another, "
            f"or delete {layout.MARKER} there if that collection is gone for good"
        )


def read_marker(location: Location) -> dict[str, Any] | None:
    """Return what the location says of itself, None if nothing.

    Raises
    ------
    StorageUnavailableError
        It cannot be read.
    """
    try:
        marker: dict[str, Any] = json.loads(location.store.get([layout.MARKER])[0])
    except CorruptedDataError:
        return None
    except ValueError:
        return {}
    return marker


def release(location: Location, uid: str) -> None:
    """Take back :func:`claim`, if it is this collection's, and as far as the storage lets it."""
    with suppress(StorageUnavailableError):
        if (read_marker(location) or {}).get("uid") == uid:
            location.store.remove((), [layout.MARKER])
