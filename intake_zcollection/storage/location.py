"""Objects in whatever fsspec reaches: a location, and the few things we ask of it."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from registry import PUBLIC_OPTIONS

from ..errors import (
    AlreadyExistsError,
    CorruptedDataError,
    InvalidInputError,
    StorageUnavailableError,
    ZCollectionError,
)
from . import layout

_BATCH_NBYTES = 32 * 2**20
"""How much is written at a time: enough that many small objects go out together."""


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
            fs, root = url_to_fs(self.url, **_options_by_protocol(self.url, self.storage_options))
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
    _check_no_password("location", url)
    options = options_for(url, storage_options)
    fs, root = Location(url, options)._opened
    if type(fs) is LocalFileSystem:  # a subclass has a protocol of its own, which the URL has to keep
        url = os.path.abspath(root)  # noqa: PTH100 - pathlib resolves no "..", and following links would surprise
    elif not url.endswith("://"):
        url = url.rstrip("/")
    return Location(url, options)


def open_location(url: str, recorded: Mapping[str, Any], storage_options: Mapping[str, Any] | None) -> Location:
    """Return a location as it is recorded, with the options that are given for it now."""
    return Location(url, {**recorded, **options_for(url, storage_options)})


def options_for(url: str, storage_options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the storage options of a URL: all if they are flat, or else those under its longest prefix.

    >>> options_for("s3://ocean/ssh", {"s3://ocean": {"profile": "team"}, "s3://ocean/ice": {"anon": True}})
    {'profile': 'team'}

    Raises
    ------
    InvalidInputError
        Some are keyed by a URL, and some are not.
    """
    options = dict(storage_options or {})
    prefixes = [name for name in options if "://" in name or name.startswith("/")]
    if not prefixes:
        return options
    if len(prefixes) < len(options):
        flat = ", ".join(name for name in options if name not in prefixes)
        raise InvalidInputError(
            f"storage_options has options ({flat}) next to URLs ({', '.join(prefixes)}): one form only"
        )
    target = url.rpartition("::")[2]
    fitting = [prefix for prefix in prefixes if f"{target}/".startswith(f"{prefix.rstrip('/')}/")]
    return dict(options[max(fitting, key=len)]) if fitting else {}


def public_options(storage_options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of storage options that may be recorded.

    Raises
    ------
    InvalidInputError
        It has a password in it.
    """
    nested = [value for value in storage_options.values() if isinstance(value, Mapping)]  # those of a chain of URLs
    public = {name: value for options in nested for name, value in public_options(options).items()}
    public |= {name: value for name, value in storage_options.items() if name in PUBLIC_OPTIONS}
    for name, value in public.items():
        _check_no_password(f"storage option {name}", str(value))
    return public


def hide_secrets(storage_options: Mapping[str, Any]) -> dict[str, Any]:
    """Return storage options as they may be shown.

    >>> hide_secrets({"s3://ocean": {"secret": "…", "profile": "team"}})
    {'s3://ocean': {'secret': '***', 'profile': 'team'}}
    """
    return {
        name: hide_secrets(value) if isinstance(value, Mapping) else value if _is_public(name, value) else "***"
        for name, value in storage_options.items()
    }


def _is_public(name: str, value: Any) -> bool:
    return name in PUBLIC_OPTIONS and not _has_password(str(value))


def _has_password(url: str) -> bool:
    return any("://" in part and urlsplit(part).password for part in url.split("::"))


def _check_no_password(what: str, url: str) -> None:
    if _has_password(url):
        raise InvalidInputError(
            f"the {what} has a password in it, and would be recorded for all to read: give it in storage_options, "
            "as key and secret for one"
        )


def _options_by_protocol(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as fsspec takes them; in a chain of URLs, flat ones belong to the last."""
    target = url.rpartition("::")[2].partition("://")[0]
    flat = {name: value for name, value in options.items() if not ("::" in url and isinstance(value, Mapping))}
    nested = {name: dict(value) for name, value in options.items() if name not in flat}
    flat |= nested.pop(target, {})
    if target in ("s3", "s3a") and "region" in flat:  # a name of its own is missing there
        flat["client_kwargs"] = {**flat.get("client_kwargs", {}), "region_name": flat.pop("region")}
    return {**nested, target: flat} if "::" in url else flat


def put(location: Location, objects: Iterable[tuple[str, bytes]]) -> int:
    """Write objects, by their paths below the location; concurrently where the file system can.

    They are taken as they are made: no more than some tens of MiB wait at a time. Return how many bytes they have.

    Raises
    ------
    StorageUnavailableError
        The storage refused one; some of the others may have been written.
    """
    fs = location.filesystem
    made: set[str] = set()
    written = 0
    for batch in _batches(objects):
        paths = {location.path(name): data for name, data in batch.items()}
        with _storage_errors(location, "written"):
            if isinstance(fs, LocalFileSystem):
                for directory in {path.rpartition("/")[0] for path in paths} - made:
                    os.makedirs(directory, exist_ok=True)  # noqa: PTH103 - parsing a Path costs as much as making it
                    made.add(directory)
            if type(fs) is LocalFileSystem:  # what fsspec does around each file costs as much as a small one
                for path, data in paths.items():
                    _write_file(path, data)
            else:
                fs.pipe(paths)
        written += sum(map(len, batch.values()))
    return written


def _batches(objects: Iterable[tuple[str, bytes]]) -> Iterator[dict[str, bytes]]:
    batch: dict[str, bytes] = {}
    size = 0
    for name, data in objects:
        batch[name] = data
        size += len(data)
        if size >= _BATCH_NBYTES:
            yield batch
            batch, size = {}, 0
    if batch:
        yield batch


def _write_file(path: str, data: bytes) -> None:
    with open(path, "wb", buffering=0) as file:  # noqa: PTH123 - see above
        file.write(data)


def _read_file(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - see above
        return file.read()


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
            if type(fs) is LocalFileSystem:
                return [_read_file(path) for path in paths]
            # With a start, s3fs sends one GET; without, it asks for the size first. cat_file through a cache asks too.
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
            with suppress(FileNotFoundError):
                fs.rm(location.path(directory), recursive=True)


def remove_empty(location: Location, directories: Iterable[str]) -> None:
    """Delete the directories above those given, and the location itself, as far as nothing is left in them."""
    if not isinstance(location.filesystem, LocalFileSystem):
        return  # elsewhere, directories are only names
    above = {str(parent) for name in directories for parent in PurePosixPath(name).parents}
    for directory in sorted(above, key=len, reverse=True):
        with suppress(OSError):
            location.filesystem.rmdir(location.path("" if directory == "." else directory))


def is_in_memory(location: Location) -> bool:
    """Whether what is written there can be read by this process alone."""
    return isinstance(location.filesystem, MemoryFileSystem)


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
        put(location, [(layout.MARKER, json.dumps(marker, indent=2).encode())])
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
    except ZCollectionError:
        raise
    except Exception as error:  # each file system has errors of its own: botocore's are no OSError
        raise StorageUnavailableError(f"the location {location.url} cannot be {verb}: {error}") from error
