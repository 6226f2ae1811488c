"""The marker of a collection's location: put before anything else is there, and put right by who writes there."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from registry import COMMITTED_AFTER_ALL, MARKER, CollectionDefinition, Creation, Registry, Signature

from ..errors import NotFoundError, StorageUnavailableError, ZCollectionError
from ..handle import Handle
from ..storage.location import Location
from ..storage.marker import Marker, put_marker, read_marker, remove_marker

logger = logging.getLogger(__name__)

_UNFINISHED = re.compile(rf"{re.escape(MARKER)}\.[0-9a-f]{{32}}")
"""What a marker is written as on a local disk, before it is linked to its place."""


@contextmanager
def creating(
    registry: Registry, definition: CollectionDefinition, place: Location, *, signature: Signature
) -> Iterator[Creation]:
    """Claim and mark a location for a collection, which the block records; if it raises, both are taken back.

    Raises
    ------
    AlreadyExistsError
        The name or the location is taken, or somebody is creating a collection there.
    StorageUnavailableError
        The location cannot be written.
    """
    with registry.creating(definition, signature=signature) as creation:
        marker = Marker(definition.name, creation.collection.uid, creation.uid)
        try:
            put_marker(place, marker, lambda found: _is_left_behind(registry, place, found))
        except StorageUnavailableError:
            raise  # whether it is there is not known, so the claim stays; asking would wait for what does not answer
        except BaseException as error:
            _undo(creation, place, error)
            raise
        try:
            yield creation
        except BaseException as error:
            _undo(creation, place, error)
            raise


def _undo(creation: Creation, place: Location, error: BaseException) -> None:
    """Fence a creation, and take back its marker and its claim, in this order: what is there has a row."""
    try:
        if not creation.abort():
            error.add_note(COMMITTED_AFTER_ALL)
            return
        remove_marker(place, creation.collection.uid)
        creation.release()
    except ZCollectionError as failure:  # the first error is the one to report; the claim can be taken over
        error.add_note(f"the claim of collection {creation.collection.name} on {place.url} is left: {failure}")


def ensure_marker(handle: Handle) -> None:
    """Put the marker right: the undo of another creation, or a late drop, may have taken it away, or left its own.

    Raises
    ------
    NotFoundError
        The collection was dropped.
    StorageUnavailableError
        The location cannot be read, or written.
    """
    record, place = handle.record, handle.location
    found = read_marker(place)
    if found is not None and found.uid == record.uid:
        return
    if found is not None and found.uid is not None and not _is_left_behind(handle.registry, place, found):
        logger.warning("%s belongs to %s too (%s), as its marker says", place.url, found.collection, found.uid)
        return
    marker = Marker(record.name, record.uid, handle.registry.creator(record))
    put_marker(place, marker, lambda found: found.uid is None or _is_left_behind(handle.registry, place, found))
    try:
        handle.registry.collection(record)
    except NotFoundError:  # who dropped it may have looked before the marker was there
        remove_marker(place, record.uid)
        raise


def remove_left_behind(registry: Registry, place: Location) -> None:
    """Take away the marker of what this registry knows to be gone, and what its creator was about to make one.

    Raises StorageUnavailableError.
    """
    found = read_marker(place)
    if found is not None and _is_left_behind(registry, place, found):
        place.store.remove((), [MARKER])
    place.store.remove((), [name for name in place.store.list("") if _UNFINISHED.fullmatch(name)])


def _is_left_behind(registry: Registry, place: Location, marker: Marker) -> bool:
    return marker.uid is not None and registry.is_left_behind(place.url, marker.uid, marker.transaction)
