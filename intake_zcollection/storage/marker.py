"""Who owns a place: an object in it that says so, for people, for recovery, and for other registries."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from registry import MARKER

from ..errors import AlreadyExistsError, CorruptedDataError, StorageUnavailableError
from .location import Location

_TRIES = 10
"""How often somebody may take the marker away, just when it was found."""


@dataclass(frozen=True)
class Marker:
    """What a location says of itself."""

    collection: str | None = None
    """The name that the collection had when it was created."""
    uid: str | None = None
    """The collection's; None where the object says something else."""
    transaction: str | None = None
    """The uid of who created it; None in those of earlier releases."""


def put_marker(location: Location, marker: Marker, is_left_behind: Callable[[Marker], bool]) -> None:
    """Mark a location as a collection's own; so it is shown to be writable.

    Parameters
    ----------
    location, marker
        Where, and what.
    is_left_behind
        Whether another marker is known to be nobody's; it is replaced then.

    Raises
    ------
    AlreadyExistsError
        The location belongs to another collection.
    StorageUnavailableError
        It cannot be written.
    """
    what = (
        "A collection of intake-zcollection: partitions in Zarr, their versions in an SQL registry. "
        "Each directory named by 32 hexadecimal digits is a Zarr group that any Zarr library opens."
    )
    data = json.dumps({"what": what} | asdict(marker), indent=2).encode()
    for _ in range(_TRIES):
        if location.store.claim(MARKER, data):
            return
        found = read_marker(location)
        if found is None:
            continue
        if found.uid == marker.uid:
            return
        if not is_left_behind(found):
            raise AlreadyExistsError(
                f"the location {location.url} belongs to collection {found.collection} ({found.uid}), "
                f"perhaps of another registry: choose another, or delete {MARKER} there if that collection is gone for "
                "good"
            )
        location.store.remove((), [MARKER])
    raise StorageUnavailableError(
        f"the location {location.url} cannot be marked: {MARKER} is there, and is not; see who else is at work there"
    )


def read_marker(location: Location) -> Marker | None:
    """Return what the location says of itself, None if nothing.

    Raises
    ------
    StorageUnavailableError
        It cannot be read.
    """
    try:
        document = json.loads(location.store.get([MARKER])[0])
    except CorruptedDataError:
        return None
    except ValueError:
        return Marker()
    if not isinstance(document, dict):
        return Marker()
    texts = {name: document.get(name) for name in ("collection", "uid", "transaction")}
    return Marker(**{name: text for name, text in texts.items() if isinstance(text, str)})


def remove_marker(location: Location, uid: str) -> None:
    """Take the marker away, if it is this collection's.

    Raises
    ------
    StorageUnavailableError
        It cannot be read, or deleted.
    """
    found = read_marker(location)
    if found is not None and found.uid == uid:
        location.store.remove((), [MARKER])
