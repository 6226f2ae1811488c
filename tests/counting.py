"""A storage in memory that notes every request made to it, so that tests count requests instead of timing them.

``counting://name/…`` is a URL like any other, to be given as a collection's location::

    with counted_location() as location:
        collection = izc.create_collection(registry, "made/a", template, location=location, …)
        with requests_to(location) as requests:
            collection.load()
        assert requests == []

A request is a pair ``(operation, path)``: the method of fsspec that was called from outside, and the path it was
called with. What one method does by calling others is noted once, under the name of the first; an operation on many
paths (``cat_ranges``) is noted once per path, as an object store is asked once per object.
"""

import functools
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, ClassVar

import fsspec
import sqlalchemy as sa
from fsspec.implementations.memory import MemoryFileSystem

Request = tuple[str, str]
"""An operation and a path."""

READS = frozenset({"cat_file", "cat_ranges", "open", "get_file"})
"""Operations that fetch the bytes of an object."""

WRITES = frozenset({"pipe_file", "open_write", "put_file", "cp_file", "mv", "touch"})
"""Operations that put an object."""

LISTINGS = frozenset({"ls", "find", "glob", "walk", "du", "tree", "expand_path"})
"""Operations that ask which objects there are."""

QUERIES = frozenset({"info", "exists", "lexists", "isfile", "isdir", "size", "checksum", "ukey", "created", "modified"})
"""Operations that ask about one path."""

DELETIONS = frozenset({"rm", "rm_file", "_rm", "rmdir"})
"""Operations that take objects away."""

_OTHERS = frozenset({"mkdir", "makedirs"})


class CountingFileSystem(MemoryFileSystem):
    """fsspec's file system in memory, under the protocol ``counting`` and with a store of its own, noting requests.

    All instances share the store and the notes, as threads and unpickled copies reach the same storage.
    """

    protocol = "counting"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    requests: ClassVar[list[Request]] = []
    """All requests made by this process, oldest first."""

    _inside = threading.local()

    @classmethod
    def _strip_protocol(cls, path: str | PurePath) -> str:
        stripped: str = super()._strip_protocol(str(path).removeprefix("counting://"))
        return stripped

    @contextmanager
    def _noting(self, operation: str, paths: Iterable[str]) -> Iterator[None]:
        if getattr(self._inside, "an_operation", False):
            yield
            return
        self.requests.extend((operation, self._strip_protocol(path)) for path in paths)
        self._inside.an_operation = True
        try:
            yield
        finally:
            self._inside.an_operation = False

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        with self._noting("open" if mode == "rb" else "open_write", [path]):
            return super()._open(path, mode, **options)


def _noted(operation: str) -> Callable[..., Any]:
    """Return the method that notes the operation, then does what the file system in memory does."""
    original = getattr(MemoryFileSystem, operation)

    @functools.wraps(original)
    def method(self: CountingFileSystem, path: Any, *arguments: Any, **options: Any) -> Any:
        paths: list[Any] = [path] if isinstance(path, str | PurePath) else list(path)
        with self._noting(operation, paths):
            return original(self, path, *arguments, **options)

    return method


for _operation in (READS | WRITES | LISTINGS | QUERIES | DELETIONS | _OTHERS) - {"open", "open_write"}:
    if hasattr(MemoryFileSystem, _operation):  # not every release of fsspec has all of them
        setattr(CountingFileSystem, _operation, _noted(_operation))

fsspec.register_implementation("counting", CountingFileSystem, clobber=True)


@contextmanager
def counted_location() -> Iterator[str]:
    """Make the URL of a place where nothing is yet; what was put there is forgotten at the end."""
    name = uuid.uuid4().hex
    try:
        yield f"counting://{name}"
    finally:
        for path in [path for path in CountingFileSystem.store if path.startswith(f"/{name}/")]:
            del CountingFileSystem.store[path]


@contextmanager
def requests_to(location: str) -> Iterator[list[Request]]:
    """Collect the requests made inside the block, the paths relative to the location; filled at its end."""
    requests: list[Request] = []
    before = len(CountingFileSystem.requests)
    try:
        yield requests
    finally:
        root = CountingFileSystem._strip_protocol(location)
        made = CountingFileSystem.requests[before:]
        requests.extend((operation, path.removeprefix(f"{root}/")) for operation, path in made)


def paths_of(requests: Iterable[Request], operations: Iterable[str]) -> list[str]:
    """Return the paths of the requests of some kinds, such as READS, in the order they were made."""
    return [path for operation, path in requests if operation in operations]


def stored_below(location: str) -> dict[str, bytes]:
    """Return all objects at a location, by their relative paths; this is not counted."""
    root = CountingFileSystem._strip_protocol(location)
    return {
        path.removeprefix(f"{root}/"): file.getvalue()
        for path, file in CountingFileSystem.store.items()
        if path.startswith(f"{root}/")
    }


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect the SQL statements of a block."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
