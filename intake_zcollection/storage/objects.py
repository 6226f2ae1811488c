"""Objects below a location, by name: one small protocol, and the two kinds of store behind it.

Which of the two a location has is decided in ``location`` alone.
"""

import errno
import ftplib
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import PurePosixPath
from typing import Protocol

from fsspec import AbstractFileSystem

from ..errors import CorruptedDataError, StorageUnavailableError, ZCollectionError

_AT_ONCE = 16
"""How many directories of an object store are listed at the same time."""

_BATCH_NBYTES = 32 * 2**20
"""How much is written at a time: enough that many small objects go out together."""


class Store(Protocol):
    """Objects below a location, by their paths from there.

    Raises errors of ours alone, StorageUnavailableError where the storage refuses or does not answer.
    """

    shared: bool
    """Whether other processes reach what is written there."""

    def put(self, objects: Iterable[tuple[str, bytes]]) -> int:
        """Write objects, concurrently where the storage can. Return how many bytes they have.

        They are taken as they are made: no more than some tens of MiB wait at a time. If one is refused, some of the
        others may have been written. What making them raises comes out as it is.
        """

    def get(self, names: Sequence[str]) -> list[bytes]:
        """Return whole objects, read concurrently where the storage can.

        Raises CorruptedDataError if one is missing.
        """

    def ranges(self, wanted: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Return the bytes from ``start`` to before ``stop``, which is more, of each (name, start, stop).

        Raises CorruptedDataError if an object is missing, or ends before.
        """

    def remove(self, directories: Iterable[str], objects: Iterable[str] = ()) -> None:
        """Delete directories with all that is in them, and single objects; those that exist.

        Where directories are more than parts of names, those above go too if nothing is left in them, the location's
        own at last.
        """

    def claim(self, name: str, data: bytes) -> bool:
        """Write an object where none is, and return whether none was. Nobody sees a part of it on a local disk.

        Of several claimers one succeeds, on a local disk, in memory and in S3. Elsewhere it is looked for first, and
        read again: then the last one has it. If it fails, nothing is left.
        """

    def sync(self) -> None:
        """Return once what this machine wrote survives a power cut; object stores promise that by themselves."""

    def list(self, directory: str) -> list[str]:
        """Return the names of the objects and directories that lie directly in a directory, sorted; as they are now."""


class FsspecStore(Store):
    """Whatever fsspec reaches."""

    _tries = 10
    """How often a directory is made before what prevents it is believed: others may be ahead at each one above it."""

    def __init__(
        self,
        url: str,
        root: str,
        connect: Callable[[], AbstractFileSystem],
        *,
        shared: bool,
        has_directories: bool,
        is_local: bool,
        refuses: bool,
    ) -> None:
        """Take how each call gets its file system, and what is special about that.

        ``has_directories``: writing into them does not make them. ``is_local``: this machine's kernel writes it.
        ``refuses``: it can be told to write no object that is there.
        """
        self.shared = shared
        self._url = url
        self._root = root.rstrip("/")
        self._connect = connect
        self._has_directories = has_directories
        self._is_local = is_local
        self._refuses = refuses

    @contextmanager
    def _connected(self, verb: str) -> Iterator[AbstractFileSystem]:
        with storage_errors(self._url, verb):
            yield self._connect()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def put(self, objects: Iterable[tuple[str, bytes]]) -> int:
        """Write them in batches."""
        made: set[str] = set()
        written = 0
        for batch in _batches(objects):
            paths = {self._path(name): data for name, data in batch.items()}
            with self._connected("written") as fs:
                if self._has_directories:
                    directories = {path.rpartition("/")[0] for path in paths} - made
                    for directory in sorted(directories):
                        self._make_directory(fs, directory)
                    made |= directories
                self._write(fs, paths)
            written += sum(map(len, batch.values()))
        return written

    def get(self, names: Sequence[str]) -> list[bytes]:
        """Ask for all at the same time."""
        with self._connected("read") as fs:
            # With a start, s3fs sends one GET; without, it asks for the size first. cat_file through a cache asks too.
            return list(self._read(fs, [(name, 0, None) for name in names]))

    def ranges(self, wanted: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Ask for all at the same time."""
        with self._connected("read") as fs:
            found = self._read(fs, wanted)
        for (name, start, stop), data in zip(wanted, found, strict=True):
            if len(data) != stop - start:
                raise CorruptedDataError(
                    f"the object {name} in {self._url} ends too early: it has {len(data)} of the {stop - start} bytes "
                    f"from {start} on; {_RESTORE}"
                )
        return list(found)

    def remove(self, directories: Iterable[str], objects: Iterable[str] = ()) -> None:
        """Delete the directories, then the objects, then what is empty above them."""
        directories, objects = list(directories), list(objects)
        with self._connected("deleted") as fs:
            _forget_listings(fs)
            if fs.async_impl and not self._has_directories:
                self._remove_together(fs, directories)
                directories = []
            for name in directories:
                with suppress(FileNotFoundError):
                    fs.rm(self._path(name), recursive=True)
            for name in objects:
                with suppress(FileNotFoundError):
                    if not self._has_directories or fs.exists(self._path(name)):  # not all say what is wrong with it
                        fs.rm(self._path(name))
            if self._has_directories:
                above = {str(parent) for name in [*directories, *objects] for parent in PurePosixPath(name).parents}
                for name in sorted(above, key=len, reverse=True):
                    with suppress(Exception):  # each file system has an error of its own for one that is not empty
                        fs.rmdir(self._path(name).removesuffix("/."))

    def _remove_together(self, fs: AbstractFileSystem, directories: Sequence[str]) -> None:
        """Delete directories of an object store: all are listed at the same time, and a request deletes a thousand."""
        if not directories:
            return
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = [path for some in pool.map(fs.find, map(self._path, directories)) for path in some]
            if found:
                fs.rm(found)
            # An answer has errors of single objects in it, which s3fs does not look at: of what may not be deleted.
            left = {name for some in pool.map(self.list, {_parent(name) for name in directories}) for name in some}
        if kept := sorted(left.intersection(directories)):
            more = f" and {len(kept) - 5} more" if len(kept) > 5 else ""
            raise StorageUnavailableError(
                f"the location {self._url} cannot be deleted from: {', '.join(kept[:5])}{more} are there still; "
                f"{_ADVICE['deleted']}"
            )

    def claim(self, name: str, data: bytes) -> bool:
        """See that nothing is there, and write it; where another one may be as fast, see whose it is."""
        with nullcontext() if self.shared else _in_this_process:
            if self._look(name) is not None:
                return False
            if self._refuses:
                return self._create(name, data)
            try:
                self.put([(name, data)])
            except StorageUnavailableError:
                with suppress(StorageUnavailableError):
                    self.remove((), [name])  # a part of it may be there
                raise
            return not self.shared or self._look(name) == data

    def _look(self, name: str) -> bytes | None:
        """Return an object, None if there is none."""
        with self._connected("read") as fs:
            try:
                data: bytes = fs.cat_file(self._path(name), start=0)
            except FileNotFoundError as error:
                if not _is_missing(error):
                    raise
                return None
        return data

    def _create(self, name: str, data: bytes) -> bool:
        """Write an object unless one is there, by one request."""
        try:
            with self._connected("written") as fs:
                *_, innermost = chain_of(fs)  # a cache forgets how it is to be written, and has the same paths
                innermost.pipe_file(self._path(name), data, mode="create")
        except StorageUnavailableError:
            # Servers say in several ways that it is there; and it may be this one, whose answer was lost.
            if self._look(name) is None:
                raise
            return False
        return True

    def sync(self) -> None:
        """Have the kernel write all files, if it is this machine's."""
        if self._is_local and hasattr(os, "sync"):
            os.sync()  # once for all: an fsync for each of a fragment's dozen files would cost more than writing them

    def list(self, directory: str) -> list[str]:
        """Ask for it, and for nothing that was listed before."""
        path = self._path(directory).strip("/")
        with self._connected("listed") as fs:
            _forget_listings(fs)
            try:
                # Without details, some say it in another way.
                found = [each["name"].strip("/") for each in fs.ls(self._path(directory), detail=True)]
            except (FileNotFoundError, NotADirectoryError):
                return []
        inside = {each.rpartition("/")[2] for each in found if each != path}  # of an object, some list itself
        return sorted(str(PurePosixPath(directory, name)) for name in inside)

    def _make_directory(self, fs: AbstractFileSystem, path: str) -> None:
        """Make a directory and those above it, while others make the same ones, or take away those that are empty."""
        for left in reversed(range(self._tries)):
            try:
                self._makedirs(fs, path)
            except Exception:
                if not left:
                    raise
                fs = self._connect()  # this one may remember that the directory is not there
            else:
                return

    def _makedirs(self, fs: AbstractFileSystem, path: str) -> None:
        fs.makedirs(path, exist_ok=True)

    def _write(self, fs: AbstractFileSystem, objects: Mapping[str, bytes]) -> None:
        fs.pipe(objects)

    def _read(self, fs: AbstractFileSystem, wanted: Sequence[tuple[str, int, int | None]]) -> Sequence[bytes]:
        paths = [self._path(name) for name, _, _ in wanted]
        starts, stops = [start for _, start, _ in wanted], [stop for _, _, stop in wanted]
        return [_found(each) for each in fs.cat_ranges(paths, starts, stops, on_error="return")]


class LocalStore(FsspecStore):
    """A directory of this machine: what fsspec does around each file costs as much as a small one."""

    _tries = 100  # they cost nothing

    def __init__(self, url: str, root: str, fs: AbstractFileSystem) -> None:
        super().__init__(url, root, lambda: fs, shared=True, has_directories=True, is_local=True, refuses=True)

    def claim(self, name: str, data: bytes) -> bool:
        """Write the file beside its place, and link it there, which fails if one is there."""
        with self._connected("written") as fs:
            for _ in range(self._tries):
                with suppress(FileNotFoundError):  # who deletes something there takes the empty directory away too
                    return self._claim(fs, self._path(name), data)
            return self._claim(fs, self._path(name), data)

    def _claim(self, fs: AbstractFileSystem, path: str, data: bytes) -> bool:
        self._make_directory(fs, path.rpartition("/")[0])
        written = f"{path}.{uuid.uuid4().hex}"
        try:
            self._write_file(written, data)
            os.link(written, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return self._create_file(path, data)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(written)  # noqa: PTH108 - parsing a Path costs as much as opening a small file
        return True

    def _create_file(self, path: str, data: bytes) -> bool:
        """Make a file that is seen before it is whole, where the file system has no links."""
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            return False
        try:
            self._write_file(path, data)
        except BaseException:
            os.unlink(path)  # noqa: PTH108 - see above
            raise
        return True

    def _makedirs(self, fs: AbstractFileSystem, path: str) -> None:
        os.makedirs(path, exist_ok=True)  # noqa: PTH103 - see above

    def _write(self, fs: AbstractFileSystem, objects: Mapping[str, bytes]) -> None:
        for path, data in objects.items():
            self._write_file(path, data)

    def _read(self, fs: AbstractFileSystem, wanted: Sequence[tuple[str, int, int | None]]) -> Sequence[bytes]:
        return [self._read_file(self._path(name), start, stop) for name, start, stop in wanted]

    def _write_file(self, path: str, data: bytes) -> None:
        with open(path, "wb", buffering=0) as file:  # noqa: PTH123 - see above
            written = file.write(data)
            while written < len(data):  # a disk that fills up takes a part of it, and refuses the rest
                written += file.write(data[written:])

    def _read_file(self, path: str, start: int, stop: int | None) -> bytes:
        with open(path, "rb", buffering=0 if stop is None else -1) as file:  # noqa: PTH123 - see above
            if stop is None:
                return file.read()
            file.seek(start)
            return file.read(stop - start)


_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""What the kernel says where a file system has no links."""

_in_this_process = threading.Lock()
"""What is in its memory is claimed by one thread at a time."""

_RESTORE = "restore it from a copy"

_ADVICE = {
    "opened": "see that it is there, and that storage_options lead to it",
    "read": "see that it can be reached, and that you may read there",
    "listed": "see that it can be reached, and that you may read there",
    "written": "see that it can be reached, has room and lets you write, or choose another",
    "deleted": "see that it can be reached, and lets you delete",
}


@contextmanager
def storage_errors(url: str, verb: str) -> Iterator[None]:
    """Have what is raised inside come out as ours, with the location in it and what to do.

    StorageUnavailableError, but CorruptedDataError for an object to be read that is missing.
    """
    try:
        yield
    except ZCollectionError:
        raise
    except Exception as error:  # each file system has errors of its own: botocore's are no OSError, nor are ftplib's
        reason = str(error) or type(error).__name__
        if verb == "read" and _is_missing(error):
            what = f"an object that the registry knows is missing in {url}: {reason}; {_RESTORE}"
            raise CorruptedDataError(what) from error
        raise StorageUnavailableError(f"the location {url} cannot be {verb}: {reason}; {_ADVICE[verb]}") from error


def _is_missing(error: Exception) -> bool:
    """Whether an object is not there; fsspec says so too where a server of FTP says that it is busy."""
    return isinstance(error, FileNotFoundError) and not isinstance(error.__cause__, ftplib.error_temp)


def chain_of(fs: AbstractFileSystem | None) -> Iterator[AbstractFileSystem]:
    """Yield a file system, the one inside it, as caches have one, and so on."""
    while isinstance(fs, AbstractFileSystem):
        yield fs
        fs = getattr(fs, "fs", None)


def _forget_listings(fs: AbstractFileSystem) -> None:
    """Have it see what others wrote and deleted meanwhile."""
    for each in chain_of(fs):
        each.invalidate_cache()


def _found(answer: bytes | Exception) -> bytes:
    if isinstance(answer, OSError) and answer.errno == errno.EINVAL:
        return b""  # S3 refuses (416) what begins at the end or behind it; all others find nothing there
    if isinstance(answer, Exception):
        raise answer
    return answer


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


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
