"""Where a collection lies: a URL and what is needed to reach it, as plain data; and which store that is."""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from fsspec import AbstractFileSystem, available_protocols, get_filesystem_class
from fsspec.core import url_to_fs
from fsspec.implementations.cached import CachingFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from registry import PUBLIC_OPTIONS

from ..errors import InvalidInputError
from .objects import FsspecStore, LocalStore, Store, chain_of, storage_errors

_WITH_DIRECTORIES = frozenset({"ftp", "sftp", "ssh"})
"""Protocols of file systems that make no directories by themselves; besides the local one."""

_CREATING = frozenset({"s3", "s3a"})
"""Protocols of file systems whose ``pipe_file(…, mode="create")`` is one request that fails if the object is there."""


@dataclass(frozen=True)
class Location:
    """A place below which a collection's objects lie. Plain data: workers receive it pickled."""

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "storage_options": self.storage_options}

    @property
    def store(self) -> Store:
        """The one way to its objects; opened once per process, since connections survive neither pickling nor a fork.

        Raises
        ------
        InvalidInputError
            There is no such kind of storage, or it has other options.
        StorageUnavailableError
            It cannot be reached.
        """
        stores: dict[int, Store] = self.__dict__.setdefault("_stores", {})
        pid = os.getpid()
        if pid not in stores:
            stores[pid] = _store_of(self.url, self.storage_options)
        return stores[pid]


def _store_of(url: str, options: Mapping[str, Any]) -> Store:
    """Return the store of a URL: the one place that decides which of the two kinds it is."""
    fs, root = _open(url, options)
    if type(fs) is LocalFileSystem:  # of a subclass, the methods are not ours to go around
        return LocalStore(url, root, fs)
    chain = list(chain_of(fs))
    innermost = chain[-1]
    protocols = {innermost.protocol} if isinstance(innermost.protocol, str) else set(innermost.protocol)
    is_local = isinstance(innermost, LocalFileSystem)
    return FsspecStore(
        url,
        root,
        _connector(url, options, chain),
        shared=not isinstance(innermost, MemoryFileSystem),
        has_directories=is_local or not protocols.isdisjoint(_WITH_DIRECTORIES),
        is_local=is_local,
        refuses=not protocols.isdisjoint(_CREATING) and all(isinstance(each, CachingFileSystem) for each in chain[:-1]),
    )


def _connector(url: str, options: Mapping[str, Any], chain: list[AbstractFileSystem]) -> Callable[[], Any]:
    """Return how a call gets its file system, so that no two threads use one that serves them badly.

    One that is asynchronous inside serves all. Of others fsspec keeps one per thread, or none at all: a connection of
    FTP can neither be shared, nor be trusted after an error or an idle hour.
    """
    if chain[-1].async_impl:
        return lambda: chain[0]
    # One that is asynchronous itself and contains another (dir) would be kept for all threads.
    fresh = any(not each.cachable or type(each).async_impl for each in chain)
    return lambda: _open(url, options, skip_instance_cache=fresh)[0]


def _open(url: str, options: Mapping[str, Any], **how: bool) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a URL, and the path in it."""
    with storage_errors(url, "opened"):
        try:
            fs, root = url_to_fs(url, **_options_by_protocol(url, options), **how)
        except (ImportError, ValueError, TypeError) as error:
            raise InvalidInputError(f"the location {url} cannot be opened: {error}") from error
    return fs, root


def resolve_location(url: str, storage_options: Mapping[str, Any] | None) -> Location:
    """Return the location in its recorded form: local paths absolute, no trailing slash."""
    check_no_password("location", url)
    _check_chain(url)
    options = options_for(url, storage_options)
    fs, root = _open(url, options)
    if type(fs) is LocalFileSystem:  # a subclass has a protocol of its own, which the URL has to keep
        url = os.path.abspath(root)  # noqa: PTH100 - pathlib resolves no "..", and following links would surprise
    elif any(sign in root for sign in "*?["):
        raise InvalidInputError(
            f"the location {url} has one of '*', '?' and '[' in it, which fsspec takes for a pattern: what is deleted "
            "there would be deleted in all locations that fit; choose another"
        )
    elif not url.endswith("://"):
        url = url.rstrip("/")
    return Location(url, options)


def open_location(url: str, recorded: Mapping[str, Any], storage_options: Mapping[str, Any] | None) -> Location:
    """Return a location as it is recorded, with the options that are given for it now."""
    return Location(url, {**recorded, **options_for(url, storage_options)})


def file_system(url: str, storage_options: Mapping[str, Any] | None) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a file that is read, and the path in it.

    Raises
    ------
    InvalidInputError
        There is no such kind of storage, or it has other options.
    """
    return _open(url, options_for(url, storage_options))


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
    prefixes = [name for name in options if _is_prefix(name)]
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


def check_whose(storage_options: Mapping[str, Any] | None, places: Iterable[tuple[str, str | None]]) -> None:
    """Refuse flat options that may be secret where they would go to several places of one kind, or to the wrong one.

    Parameters
    ----------
    storage_options
        What is given for them.
    places
        A URL and an endpoint each; those of one bucket (or host) at one endpoint are one place.

    Raises
    ------
    InvalidInputError
        It is not said whose they are.
    """
    options = dict(storage_options or {})
    secret = [name for name in options if name not in PUBLIC_OPTIONS and not _is_prefix(name)]
    found: dict[str, dict[tuple[str, str | None], str]] = {}
    for url, endpoint in places if secret else ():
        protocol, separator, rest = url.rpartition("::")[2].partition("://")
        if separator and protocol not in ("file", "local", "memory"):
            prefix = f"{protocol}://{rest.partition('/')[0]}"
            found.setdefault(protocol.replace("s3a", "s3"), {}).setdefault((prefix, endpoint), prefix)
    for several in found.values():
        if len(several) > 1:
            names = [prefix if endpoint is None else f"{prefix} at {endpoint}" for prefix, endpoint in several]
            keyed = ", ".join(f"{prefix!r}: {{…}}" for prefix in dict.fromkeys(several.values()))
            raise InvalidInputError(
                f"storage_options has {', '.join(secret)}, and does not say for which of {' and '.join(names)}: they "
                f"would be sent to the wrong one; key them by URL prefix, storage_options={{{keyed}}}, and give each "
                "only what is its own"
            )


def _is_prefix(name: str) -> bool:
    return "://" in name or name.startswith("/")


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
        check_no_password(f"storage option {name}", str(value))
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


def _check_chain(url: str) -> None:
    """Refuse "::" behind what contains no other file system: fsspec would take what is before it for the location."""
    *outer, _ = url.split("::")
    for part in outer:
        if not _contains_others(part):
            raise InvalidInputError(
                f"the location {url} has '::' in it, which chains file systems (simplecache::s3://…): the data would "
                f"lie in {part!r}, which contains no other; choose a path without '::'"
            )


def _contains_others(part: str) -> bool:
    """Whether a part of a URL is a file system around another one: a cache, an archive, a directory."""
    protocol, separator, _ = part.partition("://")
    if not separator and part not in available_protocols():
        return False  # a path
    try:
        kind = get_filesystem_class(protocol)
    except (ImportError, ValueError):
        return True  # opening it says what is wrong
    return any("target_protocol" in inspect.signature(each.__init__).parameters for each in kind.__mro__)


def check_no_password(what: str, url: str) -> None:
    """Raise InvalidInputError if a URL that would be recorded has a password in it."""
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
