"""Others who have their hands on a registry's file: they create, upgrade, delete or replace it, and fork."""

import os
import pickle
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa

from registry import Registry, RegistryUnavailableError, TransactionClosedError, connect
from registry.migrations import HEAD_REVISION
from registry.sql import engine
from registry.sql.engine import parse_url, reading, writing
from tests.sql import run_in_file

from .conftest import change, create, fragment, in_processes, meet
from .test_migrations import make_revision

pytestmark = pytest.mark.one_engine("sqlite", "its files, and what a fork does to its locks")

T = TypeVar("T")


def names(registry: Registry) -> list[str]:
    return [record.name for record in registry.collections()]


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


# Creating and upgrading


def create_or_upgrade(url: str) -> list[str]:
    meet()
    return names(connect(url, create=True))


def test_eight_processes_may_create_a_registry_at_once(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    assert in_processes(create_or_upgrade, [(url_of(path),)] * 8) == [[]] * 8
    assert run_in_file(path, "SELECT version_num FROM alembic_version") == [(HEAD_REVISION,)]


def test_eight_processes_may_upgrade_a_registry_at_once_and_one_copy_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    make_revision(path, "0004")
    assert in_processes(create_or_upgrade, [(url_of(path),)] * 8) == [[]] * 8
    assert run_in_file(path, "SELECT version_num FROM alembic_version") == [(HEAD_REVISION,)]
    copies = [file for file in tmp_path.iterdir() if "revision" in file.name]
    assert [file.name for file in copies] == ["registry.db.revision-0004"]
    assert run_in_file(copies[0], "SELECT version_num FROM alembic_version") == [("0004",)]


# Files that are not what they were


@pytest.fixture
def path(registry: Registry) -> Path:
    """The file of a registry with a collection, made/a, in use, most of it in its write-ahead log."""
    create(registry)
    path = Path(str(parse_url(registry.url).database))
    assert path.with_name("registry.db-wal").stat().st_size > 0
    return path


def other_registry(path: Path) -> Path:
    """Another registry, complete in one file, with a collection made/other."""
    other = path.with_name("other.db")
    with connect(url_of(other), create=True) as registry:
        create(registry, "made/other")
    return other


def delete(path: Path) -> None:
    path.unlink()


def delete_all(path: Path) -> None:
    for file in path.parent.glob("registry.db*"):
        file.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def replace(path: Path) -> None:
    other_registry(path).replace(path)


def replace_all(path: Path) -> None:
    other = other_registry(path)
    delete_all(path)
    other.replace(path)


def move_the_log(path: Path) -> None:
    path.with_name("registry.db-wal").rename(path.with_name("old-wal"))


@pytest.mark.parametrize(
    ("happens", "told"),
    [
        (delete, "it is not there .*put it back"),
        (delete_all, "it is not there .*put it back"),
        (truncate, "is empty: it was truncated.*put a copy in its place"),
        (replace, "was replaced while it was in use.*move .*registry.db-wal"),
    ],
)
def test_what_happened_to_a_file_in_use_is_told_and_nothing_is_made_or_written(
    registry: Registry, path: Path, happens: Callable[[Path], None], told: str
) -> None:
    record = registry.collection("made/a")
    happens(path)
    left = {file.name: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm")}
    for verb in (
        registry.collections,
        lambda: registry.resolve(record),
        lambda: registry.rename_collection(record, "made/b"),
        lambda: create(registry, "made/c"),
        lambda: registry.begin().__enter__(),
    ):
        with pytest.raises(RegistryUnavailableError, match=f"registry.db:? {told}"):
            verb()
    assert left == {file.name: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm")}


def test_once_the_log_of_the_old_one_is_moved_away_names_are_those_of_the_new_one(
    registry: Registry, path: Path
) -> None:
    replace(path)
    with pytest.raises(RegistryUnavailableError, match="write-ahead log of the old one"):
        registry.collections()
    for name in ("registry.db-wal", "registry.db-shm"):
        path.with_name(name).unlink()
    assert names(registry) == ["made/other"]
    create(registry, "made/b")
    assert names(registry) == ["made/b", "made/other"]


def test_a_registry_that_is_replaced_with_its_log_is_the_new_one_at_once(registry: Registry, path: Path) -> None:
    replace_all(path)
    assert names(registry) == ["made/other"]
    create(registry, "made/b")
    assert run_in_file(path, "SELECT name FROM collection ORDER BY name") == [("b",), ("other",)]


@pytest.mark.parametrize("happens", [delete, delete_all, truncate, replace, replace_all, move_the_log])
def test_a_transaction_in_a_file_that_is_not_there_any_more_is_not_committed(
    registry: Registry, path: Path, happens: Callable[[Path], None]
) -> None:
    def write() -> None:
        with writing(parse_url(registry.url)) as connection:
            connection.execute(sa.text("UPDATE collection SET name = 'unfound'"))
            happens(path)

    with pytest.raises(RegistryUnavailableError, match=r"registry\.db was moved, replaced, deleted or truncated"):
        write()
    assert not any(b"unfound" in file.read_bytes() for file in path.parent.glob("registry.db*"))
    if happens is move_the_log:
        assert names(registry) == ["made/a"]


@pytest.mark.parametrize("in_use", [True, False])
def test_what_began_in_a_registry_is_not_committed_to_another_one_in_its_place(
    registry: Registry, path: Path, in_use: bool
) -> None:
    collection = registry.collection("made/a")

    def write() -> None:
        with registry.begin() as transaction:
            if not in_use:
                registry.close()
            replace_all(path)
            transaction.commit([change(collection, fragment(2022, 1))])

    with pytest.raises(TransactionClosedError, match=r"gone from .*registry\.db .*another registry"):
        write()
    assert run_in_file(path, "SELECT name, head_version FROM collection") == [("other", 0)]


@pytest.mark.parametrize("happens", [delete, truncate])
def test_no_registry_is_created_over_the_log_of_one_that_was_lost(
    registry: Registry, path: Path, happens: Callable[[Path], None]
) -> None:
    happens(path)
    log = path.with_name("registry.db-wal")
    left = log.read_bytes()
    with pytest.raises(RegistryUnavailableError, match=r"registry\.db-wal is left of one.*move the log away"):
        connect(registry.url, create=True)
    assert log.read_bytes() == left
    registry.close()
    log.rename(path.with_name("moved"))
    path.unlink(missing_ok=True)
    assert names(connect(registry.url, create=True)) == []


def test_a_log_that_is_deleted_between_two_writes_takes_none_of_them(registry: Registry, path: Path) -> None:
    path.with_name("registry.db-wal").unlink()
    create(registry, "made/b")
    assert run_in_file(path, "SELECT name FROM collection ORDER BY name") == [("a",), ("b",)]


# Forks. They are made by processes with one thread and nothing of pytest's in it.


@contextmanager
def forked(function: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Run a function in a forked child; yield what waits for its result, and raises what it raised."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)  # what waits for ever is killed
        try:
            result: Any = (True, function())
        except BaseException as error:  # noqa: BLE001 - it is passed on
            result = (False, error)
        os.write(writer, pickle.dumps(result))
        os._exit(0)
    os.close(writer)

    def result_of_child() -> T:
        with os.fdopen(reader, "rb") as pipe:
            data = pipe.read()
        os.waitpid(pid, 0)
        assert data, "the child was killed: it waited for ever"
        fine, value = pickle.loads(data)
        if not fine:
            raise value
        return value

    yield result_of_child


def write_on_both_sides_of_a_fork(url: str) -> None:
    registry = connect(url)
    create(registry, "made/before")
    ready, go = os.pipe(), os.pipe()

    def child() -> None:
        create(registry, "made/child")
        os.write(ready[1], b".")
        os.read(go[0], 1)
        create(registry, "made/later")

    with forked(child) as result:
        os.read(ready[0], 1)
        create(registry, "made/parent")
        registry.close()  # the last one to close takes the write-ahead log away
        os.write(go[1], b".")
        result()


def test_what_a_forked_child_commits_is_there_whatever_its_parent_does(registry: Registry) -> None:
    registry.close()  # or this process would keep the log
    in_processes(write_on_both_sides_of_a_fork, [(registry.url,)])
    with closing(sqlite3.connect(str(parse_url(registry.url).database))) as connection:
        found = connection.execute("SELECT name FROM collection ORDER BY name").fetchall()
    assert [name for (name,) in found] == ["before", "child", "later", "parent"]


def use_in_a_fork_during_a_read(url: str) -> list[str]:
    registry = connect(url)
    began, end = threading.Event(), threading.Event()

    def read() -> None:
        with reading(parse_url(url)):
            began.set()
            end.wait()

    thread = threading.Thread(target=read)
    thread.start()
    began.wait()
    engine._FORK_PATIENCE = 0.0
    try:
        with forked(lambda: names(registry)) as result:
            message = ""
            try:
                result()
            except RegistryUnavailableError as error:
                message = str(error)
    finally:
        end.set()
        thread.join()
    create(registry, "made/parent")
    with forked(lambda: names(registry)) as result:
        return [message, *result()]


def test_a_child_that_was_forked_during_a_transaction_is_told_so_and_the_next_one_is_not(registry: Registry) -> None:
    ((message, *found),) = in_processes(use_in_a_fork_during_a_read, [(registry.url,)])
    assert "forked while another thread was in a transaction" in message
    assert "'spawn' or 'forkserver'" in message
    assert found == ["made/parent"]


def create_in_a_fork_during_an_upgrade(url: str) -> list[str]:
    from registry import migrations

    held, end = threading.Event(), threading.Event()

    def upgrade() -> None:
        with migrations._alembic:
            held.set()
            end.wait()

    thread = threading.Thread(target=upgrade)
    thread.start()
    held.wait()
    try:
        with forked(lambda: names(connect(url, create=True))) as result:
            return result()
    finally:
        end.set()
        thread.join()


def test_a_child_that_was_forked_while_a_thread_upgraded_can_upgrade(tmp_path: Path) -> None:
    assert in_processes(create_in_a_fork_during_an_upgrade, [(url_of(tmp_path / "new.db"),)]) == [[]]
