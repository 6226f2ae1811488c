"""People who may read only, on both engines: they see everything, and every verb that writes says what to ask for."""

import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy.engine import make_url

import intake_zcollection as izc
from intake_zcollection.cli import main
from registry import MARKER
from tests import verbs
from tests.conftest import make_grid
from tests.postgres import role, run_sql
from tests.processes import start_fork_server
from tests.registry.conftest import only_reading
from tests.verbs import MORE, Verb, view_over

_processes = multiprocessing.get_context("forkserver")

PARTITIONING = izc.Date("time", "M")


@pytest.fixture(scope="module", autouse=True)
def _children_start_fast() -> None:
    start_fork_server()


def create(registry: izc.Registry | str, name: str, location: str) -> izc.Collection:
    return izc.create_collection(registry, name, MORE, axis="time", partitioning=PARTITIONING, location=location)


def fill(url: str, location: Path) -> None:
    """Make a collection with a partition of two parts, and take its marker away, as a late drop would."""
    collection = create(izc.connect(url, create=True), "made/c", str(location))
    collection.insert(make_grid(days=2))
    collection.insert(make_grid("2022-01-11", days=2))
    view = view_over(collection)
    verbs.VIEW_WRITING["update"](view)
    for each in (location, Path(view.location)):
        (each / MARKER).unlink()


def fill_and_be_killed(url: str, location: Path) -> None:
    fill(url, location)
    os.kill(os.getpid(), signal.SIGKILL)


READING: dict[str, Verb] = {**verbs.READING, "a dry run": lambda each: each.insert(MORE, dry_run=True)}

WRITING: dict[str, Verb] = {
    **verbs.WRITING,
    **verbs.COPYING,
    "create_collection": lambda each: create(registry_of(each), "made/new", f"{each.location}_new"),
    "rename_collection": lambda each: izc.rename_collection(registry_of(each), each.name, "made/z"),
    "drop_collection": lambda each: izc.drop_collection(registry_of(each), each.name),
}
"""All that writes somewhere."""

VIEW_WRITING: dict[str, Verb] = {
    **verbs.VIEW_WRITING,
    **verbs.VIEW_COPYING,
    "create_view": lambda each: view_over(each, "made/over_it"),
    "drop_collection": lambda each: izc.drop_collection(registry_of(each), each.name),
}


def registry_of(collection: izc.Collection) -> izc.Registry:
    return collection._handle.registry


def files_below(directory: Path) -> dict[Path, int]:
    """All that lies in a directory, and when it was changed."""
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*")}


def see_that_it_is_read(url: str) -> None:
    """All that only reads works, in Python and from the command line."""
    collection = izc.open_collection(izc.connect(url, create=True), "made/c")
    for read in READING.values():
        read(collection)
    assert collection.load().sizes["time"] == 4
    view = izc.open_collection(collection._handle.registry, "made/view")
    for read in verbs.VIEW_READING.values():
        read(view)
    for command in (["list"], ["show", "made/c"], ["partitions", "made/c"], ["versions", "made/c"]):
        told = CliRunner().invoke(main, [*command, "-r", url])
        assert (told.exit_code, told.exception) == (0, None), told.output


def see_that_it_is_not_written(url: str, storage: Path, match: str) -> None:
    """All that writes says that this user may not, and changes nothing in the storage."""
    before = files_below(storage)
    for name, writing in (("made/c", WRITING), ("made/view", VIEW_WRITING)):
        collection = izc.open_collection(url, name)
        for verb, call in writing.items():
            with pytest.raises(izc.ReadOnlyError, match=match):
                pytest.fail(f"{verb} returned {call(collection)!r}")
            assert files_below(storage) == before, verb


def see_that_it_is_copied(url: str, directory: Path) -> None:
    """A copy in a registry of one's own is had, and can be written."""
    collection = izc.open_collection(url, "made/c")
    with izc.connect(f"sqlite:///{directory}/own.db", create=True) as own:
        copy = collection.copy("made/mine", f"{directory}/mine", reg=own)
        assert copy.load().equals(collection.load())
        assert copy.insert(MORE).number == 2


# A file in a directory that may not be written


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may reach; unlike pytest's, all directories above it, too."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        for directory in ("closed", "killed", "data", "nobodys"):
            (place / directory).mkdir()
            (place / directory).chmod(0o777)
        yield place


def url_in(directory: Path) -> str:
    return f"sqlite:///{directory}/registry.db"


def read_without_writing(place: Path) -> None:
    closed, killed = place / "closed", place / "killed"
    # What is imported when it is first needed may lie where nobody cannot read: all of it is used before.
    see_that_it_is_read(url_in(closed))
    see_that_it_is_copied(url_in(closed), place)
    izc.Registry(url_in(closed)).close()
    assert [path.name for path in closed.iterdir()] == ["registry.db"]
    with only_reading(closed, killed):
        see_that_it_is_copied(url_in(killed), place / "nobodys")
        for directory in (closed, killed):
            see_that_it_is_read(url_in(directory))
            match = (
                f"is not written: .* you may read only: ask its owner for the right to write {directory}/registry.db"
            )
            see_that_it_is_not_written(url_in(directory), place, match)


def test_a_file_in_a_directory_that_may_not_be_written_is_read_and_copied_and_every_verb_that_writes_says_so(
    place: Path,
) -> None:
    closed, killed = place / "closed", place / "killed"
    writer = _processes.Process(target=fill_and_be_killed, args=(url_in(killed), place / "data" / "c"))
    writer.start()
    writer.join(60)
    assert {path.name for path in killed.iterdir()} == {"registry.db", "registry.db-wal", "registry.db-shm"}
    shutil.copytree(killed, closed, dirs_exist_ok=True)
    with ProcessPoolExecutor(1, _processes) as pool:
        pool.submit(read_without_writing, place).result(timeout=60)


# A role that may only select


def test_a_role_that_may_select_reads_and_copies_and_every_verb_that_writes_says_what_to_grant(
    postgres_url: str, tmp_path: Path
) -> None:
    fill(postgres_url, tmp_path / "data" / "c")
    url = make_url(postgres_url)
    with role(url) as theirs:
        run_sql(url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {theirs.username}")
        run_sql(url, f"GRANT INSERT ON pin TO {theirs.username}")
        reader = theirs.render_as_string(hide_password=False)
        see_that_it_is_read(reader)
        see_that_it_is_copied(reader, tmp_path)
        match = "is not written: permission denied .* you may read only: ask the registry's owner for INSERT, UPDATE"
        see_that_it_is_not_written(reader, tmp_path / "data", match)
        izc.Registry(reader).close()
