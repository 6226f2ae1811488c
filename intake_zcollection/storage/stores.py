"""Objects in whatever fsspec reaches: a location, and the few things we ask of it."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from ..errors import AlreadyExistsError, CorruptedDataError, InvalidInputError, StorageUnavailableError
from . import layout

PUBLIC_OPTIONS = ("endpoint_url", "region", "anon", "profile")
"""What is recorded of ``storage_options``; the rest may be secret, and is given again at each opening."""


@dataclass(frozen=True)
class Location:
    """A place below which a collection's objects lie. Plain data: workers receive it pickled."""

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "storage_options": self.storage_options}

    @cached_property
    def _opened(self) -> tuple[fsspec.AbstractFileSystem, str]:
        try:
            fs, root = url_to_fs(self.url, **self.storage_options)
        except (ImportError, ValueError, TypeError) as error:
            raise InvalidInputError(f"the location {self.url} cannot be opened: {error}") from error
        return fs, root.rstrip("/") or root

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The file system; fsspec keeps one instance for equal options."""
        return self._opened[0]

    def path(self, name: str) -> str:
        """Return the path of an object in the file system."""
        return f"{self._opened[1].rstrip('/')}/{name}"


def resolve_location(url: str, storage_options: Mapping[str, Any] | None) -> Location:
    """Return the location in its recorded form: local paths absolute, no trailing slash."""
    fs, root = Location(url, storage_options or {})._opened
    if isinstance(fs, LocalFileSystem):
        url = os.path.abspath(root)  # noqa: PTH100 - pathlib resolves no "..", and following links would surprise
    elif not url.endswith("://"):
        url = url.rstrip("/")
    return Location(url, storage_options or {})


def public_options(storage_options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of storage options that may be recorded."""
    return {name: value for name, value in storage_options.items() if name in PUBLIC_OPTIONS}


def put(location: Location, objects: Mapping[str, bytes]) -> None:
    """Write objects, by their paths below the location; concurrently where the file system can.

    Raises
    ------
    StorageUnavailableError
        The storage refused one; some of the others may have been written.
    """
    fs = location.filesystem
    with _storage_errors(location, "written"):
        if isinstance(fs, LocalFileSystem):
            for directory in {name.rpartition("/")[0] for name in objects}:
                fs.makedirs(location.path(directory), exist_ok=True)
        fs.pipe({location.path(name): data for name, data in objects.items()})


def make_durable(location: Location) -> None:
    """Return once what was written survives a power cut. Object stores promise that by themselves."""
    if isinstance(location.filesystem, LocalFileSystem) and hasattr(os, "sync"):
        os.sync()  # once for all files: an fsync for each of a fragment's dozen would cost more than writing them


def get(location: Location, names: Sequence[str]) -> list[bytes]:
    """Read whole objects, concurrently where the file system can.

    Raises
    ------
    CorruptedDataError
        One is missing.
    StorageUnavailableError
        The storage does not answer.
    """
    fs = location.filesystem
    paths = [location.path(name) for name in names]
    with _storage_errors(location, "read"):
        try:
            # With a start, s3fs sends one GET; without, it asks for the size first.
            if len(paths) == 1:
                return [fs.cat_file(paths[0], start=0)]
            return list(fs.cat_ranges(paths, [0] * len(paths), [None] * len(paths), on_error="raise"))
        except FileNotFoundError as error:
            raise CorruptedDataError(
                f"an object that the registry knows is missing in {location.url}: {error}; restore it from a copy"
            ) from error


def remove(location: Location, directories: Iterable[str]) -> None:
    """Delete directories of fragments, those that exist."""
    fs = location.filesystem
    with _storage_errors(location, "deleted"):
        for directory in directories:
            if fs.exists(location.path(directory)):
                fs.rm(location.path(directory), recursive=True)


def claim(location: Location, collection: str, uid: str) -> None:
    """Mark a location as a collection's own, for people and for recovery; so it is shown to be writable.

    Raises
    ------
    AlreadyExistsError
        The location belongs to another collection.
    StorageUnavailableError
        It cannot be written.
    """
    owner = read_marker(location)
    if owner is not None:
        raise AlreadyExistsError(
            f"the location {location.url} belongs to collection {owner.get('collection')} ({owner.get('uid')}), "
            "perhaps of another registry: choose another, "
            f"or delete {layout.MARKER} there if that collection is gone for good"
        )
    marker = {
        "what": "A collection of intake-zcollection: partitions in Zarr, their versions in an SQL registry. "
        "Each directory named by 32 hexadecimal digits is a Zarr group that any Zarr library opens.",
        "collection": collection,
        "uid": uid,
    }
    try:
        put(location, {layout.MARKER: json.dumps(marker, indent=2).encode()})
    except StorageUnavailableError:
        _remove_marker(location)  # a part of it may be there
        raise


def read_marker(location: Location) -> dict[str, Any] | None:
    """Return what the location says of itself, None if nothing."""
    fs = location.filesystem
    with _storage_errors(location, "read"):
        try:
            marker: dict[str, Any] = json.loads(fs.cat_file(location.path(layout.MARKER), start=0))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            return {}
        return marker


def release(location: Location, uid: str) -> None:
    """Take back :func:`claim`, if it is this collection's, and as far as the storage lets it."""
    with suppress(StorageUnavailableError):
        if (read_marker(location) or {}).get("uid") == uid:
            _remove_marker(location)


def _remove_marker(location: Location) -> None:
    with suppress(OSError):
        location.filesystem.rm(location.path(layout.MARKER))


@contextmanager
def _storage_errors(location: Location, verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageUnavailableError(f"the location {location.url} cannot be {verb}: {error}") from error
