"""What the protocol of stores promises, on each kind of storage; and what comes out where it cannot be kept."""

import errno
import itertools
import os
import resource
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from s3fs import S3FileSystem

from intake_zcollection.errors import CorruptedDataError, StorageUnavailableError
from intake_zcollection.storage.location import Location, resolve_location
from intake_zcollection.storage.objects import FsspecStore, LocalStore, Store
from tests.ftp import FTPServer
from tests.s3 import S3Server


class OwnFileSystem(LocalFileSystem):
    """The local file system with a protocol of its own, as some sites have."""

    protocol = "own"

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return super()._strip_protocol(str(path).removeprefix("own://"))


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "own", OwnFileSystem)


@pytest.fixture(params=["local", "memory", "s3", "ftp", "own", "dir", "dir in memory", "dir in s3", "dir on ftp"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """A place where nothing is yet, in each kind of storage."""
    outer, _, inner = request.param.rpartition(" in " if " in " in request.param else " on ")
    prefix = "dir://below::" if outer or inner == "dir" else ""
    match inner:
        case "memory":
            return resolve_location(f"{prefix}memory://{uuid.uuid4().hex}/data", None)
        case "s3" | "ftp":
            server = request.getfixturevalue(inner)
            return resolve_location(f"{prefix}{server.fresh_url()}/data", dict(server.storage_options))
        case "own":
            request.getfixturevalue("own")
            return resolve_location(f"own://{tmp_path}/data", None)
    return resolve_location(f"{prefix}file://{tmp_path}/data", None)


@pytest.fixture
def store(location: Location) -> Store:
    return location.store


def test_one_class_serves_the_local_disk_and_the_other_all_the_rest(location: Location) -> None:
    assert type(location.store) is (LocalStore if location.url.startswith("/") else FsspecStore)
    assert location.store is location.store
    assert location.store.shared == ("memory" not in location.url)


# Putting and getting


def test_objects_come_back_in_the_order_asked_for(store: Store) -> None:
    objects = {"a/1": b"one", "a/b/2": b"two" * 100_000, "3": b""}
    assert store.put(objects.items()) == 300_003
    assert store.get(["3", "a/b/2", "a/1"]) == [b"", b"two" * 100_000, b"one"]
    assert store.get(["a/1"]) == [b"one"]


def test_what_makes_the_objects_may_fail_in_its_own_way(store: Store) -> None:
    def objects() -> Iterator[tuple[str, bytes]]:
        yield "a/1", b"one"
        raise LookupError("of its own")

    with pytest.raises(LookupError, match="of its own"):
        store.put(objects())


def test_threads_write_and_read_at_the_same_time(store: Store) -> None:
    def write_and_read(i: int) -> list[bytes]:
        names = [f"a/b/{i % 4}/{i}/{j}" for j in range(3)]
        store.put((name, name.encode()) for name in names)
        assert store.get(names) == [name.encode() for name in names]
        return store.ranges([(name, 0, 5) for name in names])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(write_and_read, range(24))) == [[f"a/b/{i % 4}".encode()] * 3 for i in range(24)]


@pytest.mark.parametrize("names", [["x"], ["a/1", "a/x"]])
def test_a_missing_object_is_corruption(names: list[str], location: Location) -> None:
    location.store.put([("a/1", b"")])
    with pytest.raises(CorruptedDataError, match=rf"missing in {location.url}: .*x"):
        location.store.get(names)


# Ranges


def test_ranges_are_what_slices_are(store: Store) -> None:
    data = bytes(range(256)) * 1000
    store.put([("a/1", data), ("2", b"abc")])
    wanted = [("a/1", 1000, 200_000), ("2", 0, 1), ("a/1", 0, 1), ("a/1", 255_999, 256_000), ("2", 1, 3)]
    parts = store.ranges(wanted)
    assert parts == [data[1000:200_000], b"a", b"\x00", b"\xff", b"bc"]
    assert store.ranges([]) == []


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (1, 100), (2, 4), (3, 4), (50, 60)])
def test_a_range_that_is_not_all_there_is_corruption(start: int, stop: int, location: Location) -> None:
    location.store.put([("a", b"abc"), ("whole", b"0123456789" * 10)])
    with pytest.raises(CorruptedDataError, match=rf"{location.url} ends too early.*restore it"):
        location.store.ranges([("whole", start, stop), ("a", start, stop)])


def test_a_range_of_a_missing_object_is_corruption(location: Location) -> None:
    location.store.put([("a", b"abc")])
    with pytest.raises(CorruptedDataError, match=rf"missing in {location.url}"):
        location.store.ranges([("a", 0, 1), ("x", 0, 1)])


# Removing and listing


def test_a_directory_lists_what_is_in_it_now(store: Store) -> None:
    assert store.list("") == store.list("a") == []
    store.put((name, b"") for name in ("a/b/1", "a/2", "a/c/d/3", "4"))
    assert store.list("") == ["4", "a"]
    assert store.list("a") == ["a/2", "a/b", "a/c"]
    store.put([("a/e/5", b"")])
    store.remove(["a/c"], ["a/2"])
    assert store.list("a") == ["a/b", "a/e"]
    assert store.list("a/never") == []


def test_what_others_wrote_is_listed_and_removed(location: Location) -> None:
    location.store.put([("a/b/1", b"")])
    assert location.store.list("a/b") == ["a/b/1"]
    for kind in (DirFileSystem, S3FileSystem):
        kind.clear_instance_cache()  # as in another process
    Location(location.url, location.storage_options).store.put([("a/b/2", b""), ("a/b/c/3", b"")])
    assert location.store.list("a/b") == ["a/b/1", "a/b/2", "a/b/c"]
    location.store.remove(["a/b"])
    assert location.store.list("") == []


def test_directories_are_removed_where_they_exist_and_those_above_when_empty(store: Store) -> None:
    store.put((name, b"one") for name in ("a/b/1", "a/c/1", "d/e/f/1", "2"))
    store.remove(["a/b", "a/never", "d/e/f"], ["never"])
    assert store.list("") == ["2", "a"]
    assert store.get(["a/c/1"]) == [b"one"]
    store.remove(["a/c"], ["2"])
    assert store.list("") == []


@pytest.mark.parametrize("location", ["local", "own"], indirect=True)
def test_the_last_object_takes_the_directory_of_the_location_along(location: Location, tmp_path: Path) -> None:
    location.store.put([("a/1", b""), ("2", b"")])
    location.store.remove(["a"], ["2"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("location", ["local"], indirect=True)
def test_a_writer_bears_that_others_take_empty_directories_away(location: Location) -> None:
    # An insert that failed deletes its fragment in the very month that another one begins to write.
    stop = threading.Event()

    def undo() -> None:
        for i in itertools.count():
            if stop.is_set():
                return
            location.store.put([(f"a/b/c/undone{i}/1", b"")])
            location.store.remove([f"a/b/c/undone{i}"])

    with ThreadPoolExecutor(1) as pool:
        undoing = pool.submit(undo)
        try:
            for i in range(300):
                location.store.put([(f"a/b/c/{i}/d/1", b"")])
                location.store.remove([f"a/b/c/{i}"])
        finally:
            stop.set()
        undoing.result()


# Claiming


def test_the_first_claim_succeeds(store: Store) -> None:
    assert store.claim("mine", b"first")
    assert not store.claim("mine", b"second")
    assert store.get(["mine"]) == [b"first"]
    store.remove((), ["mine"])
    assert store.claim("mine", b"third")


def test_of_several_claims_at_the_same_time_one_succeeds_on_a_local_disk(tmp_path: Path) -> None:
    store = resolve_location(f"{tmp_path}/data", None).store
    with ThreadPoolExecutor(8) as pool:
        for i in range(50):
            assert sum(pool.map(lambda j: store.claim(f"mine{i}", str(j).encode()), range(8))) == 1  # noqa: B023 - the map ends before i changes


def test_a_claim_is_never_seen_before_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = resolve_location(f"{tmp_path}/data", None).store
    write_file, seen = LocalStore._write_file, []

    def write_and_look(store: LocalStore, path: str, data: bytes) -> None:
        write_file(store, path, data[:1])
        seen.append((tmp_path / "data" / "mine").exists())
        write_file(store, path, data)

    monkeypatch.setattr(LocalStore, "_write_file", write_and_look)
    assert store.claim("mine", b"whole")
    assert (seen, store.get(["mine"]), store.list("")) == ([False], [b"whole"], ["mine"])


def test_a_claim_succeeds_though_others_take_the_empty_directory_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, write_file = resolve_location(f"{tmp_path}/data", None).store, LocalStore._write_file
    others = [(tmp_path / "data").rmdir] * 3

    def remove_and_write(store: LocalStore, path: str, data: bytes) -> None:
        if others:
            others.pop()()
        write_file(store, path, data)

    monkeypatch.setattr(LocalStore, "_write_file", remove_and_write)
    assert store.claim("mine", b"first")
    assert (others, store.list("")) == ([], ["mine"])


def test_a_claim_needs_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    store = resolve_location(f"{tmp_path}/data", None).store
    assert store.claim("mine", b"first")
    assert not store.claim("mine", b"second")
    assert (store.get(["mine"]), store.list("")) == ([b"first"], ["mine"])


def test_of_several_claims_at_the_same_time_one_succeeds_in_memory() -> None:
    store = resolve_location(f"memory://{uuid.uuid4().hex}", None).store
    with ThreadPoolExecutor(8) as pool:
        for i in range(50):
            assert sum(pool.map(lambda j: store.claim(f"mine{i}", str(j).encode()), range(8))) == 1  # noqa: B023 - the map ends before i changes


@pytest.mark.parametrize("cache", ["", "simplecache::"])
def test_of_several_claims_that_found_nothing_one_succeeds_in_s3(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: str
) -> None:
    options: dict[str, Any] = dict(s3.storage_options)
    if cache:
        options = {"s3": options, "simplecache": {"cache_storage": str(tmp_path)}}
    stores = [Location(f"{cache}{s3.fresh_url()}", options).store] * 4
    look, met = FsspecStore._look, threading.Barrier(4)

    def look_together(store: FsspecStore, name: str) -> bytes | None:
        found = look(store, name)
        if found is None:
            met.wait(60)
        return found

    monkeypatch.setattr(FsspecStore, "_look", look_together)
    with ThreadPoolExecutor(4) as pool:
        claimed = list(pool.map(lambda i: stores[i].claim("mine", str(i).encode()), range(4)))
    assert claimed.count(True) == 1
    assert stores[0].get(["mine"]) == [str(claimed.index(True)).encode()]


def test_where_no_object_can_be_refused_the_last_of_several_claims_has_it(
    ftp: FTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Location(ftp.fresh_url(), ftp.storage_options).store
    put = FsspecStore.put

    def put_and_be_late(store: FsspecStore, objects: Iterable[tuple[str, bytes]]) -> int:
        written = put(store, objects)
        return written + put(store, [("mine", b"another's")])

    monkeypatch.setattr(FsspecStore, "put", put_and_be_late)
    assert not store.claim("mine", b"mine")


# What cannot be


CANNOT: dict[str, Callable[[Store], Any]] = {
    "put": lambda store: store.put([("a/1", b"")]),
    "put beside": lambda store: store.put([("1", b"")]),
    "claim": lambda store: store.claim("new", b""),
    "remove": lambda store: store.remove(["full"]),
}


@pytest.mark.parametrize("act", CANNOT.values(), ids=CANNOT)
def test_what_a_server_of_ftp_refuses_comes_out_as_ours(ftp: FTPServer, act: Callable[[Store], Any]) -> None:
    url = ftp.fresh_url()
    Location(url, ftp.storage_options).store.put([("full/1", b"")])
    with pytest.raises(
        StorageUnavailableError, match=rf"{url} cannot be \w+: 550 Not enough privileges.*; see that it"
    ):
        act(Location(url, ftp.reading).store)
    assert Location(url, ftp.reading).store.list("") == ["full"]


def test_a_server_of_ftp_may_hang_up_between_two_calls(ftp: FTPServer) -> None:
    store = Location(ftp.fresh_url(), ftp.storage_options).store
    store.put([("a/1", b"one")])
    ftp.hang_up()
    assert store.get(["a/1"]) == [b"one"]
    ftp.hang_up()
    assert not store.claim("a/1", b"two")


def test_a_server_of_ftp_that_is_busy_has_not_lost_anything(ftp: FTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import ftplib

    def busy(*_: Any, **__: Any) -> None:
        raise ftplib.error_temp("450 try later")

    url = ftp.fresh_url()
    store = Location(url, ftp.storage_options).store
    assert store.claim("mine", b"first")
    with monkeypatch.context() as patch:
        patch.setattr(ftplib.FTP, "retrbinary", busy)
        for act in (lambda: store.get(["mine"]), lambda: store.claim("mine", b"second")):
            with pytest.raises(StorageUnavailableError, match=f"{url} cannot be read"):
                act()
    assert store.get(["mine"]) == [b"first"]


def make_zip(folder: Path) -> str:
    import zipfile

    with zipfile.ZipFile(folder / "data.zip", "w") as archive:
        archive.writestr("a", b"")
    return f"zip::file://{folder}/data.zip"


UNREACHABLE: dict[str, Callable[[Path], tuple[str, dict[str, Any]]]] = {
    "no archive": lambda folder: (f"zip::file://{folder}/none.zip", {}),
    "no server": lambda folder: ("ftp://127.0.0.1:9/data", {}),
}


@pytest.mark.parametrize("place", UNREACHABLE.values(), ids=UNREACHABLE)
def test_what_is_not_there_comes_out_as_ours(place: Callable[[Path], Any], tmp_path: Path) -> None:
    url, options = place(tmp_path)
    for act in (lambda: resolve_location(url, options), lambda: Location(url, options).store):
        with pytest.raises(StorageUnavailableError, match=rf"the location {url} cannot be opened: .*; see that it is"):
            act()


def test_a_login_that_is_refused_comes_out_as_ours(ftp: FTPServer) -> None:
    with pytest.raises(StorageUnavailableError, match=r"cannot be opened: 530 .*storage_options lead to it") as refused:
        resolve_location(ftp.fresh_url(), {"username": "writer", "password": "hunter2"})
    assert "hunter2" not in str(refused.value)


def test_an_archive_cannot_be_written(tmp_path: Path) -> None:
    url = make_zip(tmp_path)
    for act in (lambda store: store.put([("b", b"")]), lambda store: store.claim("b", b"")):
        with pytest.raises(
            StorageUnavailableError, match=rf"the location {url} cannot be written: .*or choose another"
        ):
            act(resolve_location(url, None).store)


def test_a_disk_that_takes_a_part_of_an_object_has_not_taken_it(tmp_path: Path) -> None:
    # Of what does not fit, the kernel writes a part and says how much; it refuses only what comes then.
    store = resolve_location(f"{tmp_path}/data", None).store
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for act in (lambda: store.put([("a", b"x" * 3000)]), lambda: store.claim("b", b"x" * 3000)):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
            with pytest.raises(StorageUnavailableError, match=r"cannot be written: .*File too large"):
                act()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.list("") == ["a"]  # undone by who wrote it; a claim undoes itself
