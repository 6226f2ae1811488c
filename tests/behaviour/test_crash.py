"""Writers that die, fail, or run out of room, at every step of a write: what was there before is there still.

The kill is a real SIGKILL of a real process, which sends it to itself on entering or leaving the one function
that makes a step.
"""

import errno
import functools
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import fsspec
import numpy as np
import pytest
import xarray as xr
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

import intake_zcollection as izc
import intake_zcollection.storage.write
import intake_zcollection.writing.group
import intake_zcollection.writing.write
import registry.changes.commit
import registry.creation
import registry.transaction
from intake_zcollection.storage.objects import LocalStore
from registry.creation import Creation
from registry.transaction import Transaction
from tests.processes import start_fork_server
from tests.sql import run_sql

_processes = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module", autouse=True)
def _children_start_fast() -> None:
    start_fork_server()


each_step = pytest.mark.both_engines("step")
"""In Postgres with each step, and whatever else comes first."""


# The data


def make_days(start: str, days: int, seed: int) -> xr.Dataset:
    """Daily profiles whose values come back exactly, packed ones too."""
    rng = np.random.default_rng(seed)
    sst = rng.integers(0, 100, (days, 3)) * 0.5
    sst[rng.random(sst.shape) < 0.1] = np.nan
    packing = {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1}
    return xr.Dataset(
        {
            "ssh": (("time", "x"), rng.random((days, 3))),
            "sst": (("time", "x"), sst, {"units": "K"}, packing),
            "count": ("time", rng.integers(0, 9, days).astype("i4")),
        },
        {"time": np.datetime64(start, "ns") + np.arange(days) * np.timedelta64(1, "D"), "x": [1.0, 2.0, 3.0]},
    )


def january_and_february() -> xr.Dataset:
    return make_days("2022-01-01", 59, seed=0)


def march_and_april() -> xr.Dataset:
    return make_days("2022-03-01", 61, seed=1)


def february_and_march() -> xr.Dataset:
    return make_days("2022-02-01", 59, seed=2)


def around_the_end_of_january() -> xr.Dataset:
    return make_days("2022-01-20", 20, seed=3)


@dataclass(frozen=True)
class Write:
    """An insert that is interrupted: what was there before it, what it brings, and what it would leave."""

    before: Callable[[], xr.Dataset] | None
    data: Callable[[], xr.Dataset]
    merge: str
    fragments: int

    def after(self) -> xr.Dataset:
        """Everything in the collection once the write has succeeded."""
        if self.before is None:
            return self.data()
        old = self.before()
        kept = old.isel(time=~old.time.isin(self.data().time))
        return xr.concat([kept, self.data()], "time", data_vars="minimal").sortby("time")


WRITES = {
    "first": Write(None, january_and_february, "refuse", fragments=3),  # one of the immutable variables
    "append": Write(january_and_february, march_and_april, "refuse", fragments=2),
    "replace": Write(january_and_february, february_and_march, "replace", fragments=2),
    "cut": Write(january_and_february, around_the_end_of_january, "upsert", fragments=2),
}
every_write = pytest.mark.parametrize("write", WRITES)


# The steps of a write


@dataclass(frozen=True)
class Step:
    """A place in a write: entering or leaving a call of a function; and what the write has put down until there."""

    owner: Any
    function: str
    moment: Literal["entering", "leaving"]
    call: int = 1
    intents: bool = True
    objects: Literal["none", "some", "all"] = "all"


BEFORE_COMMIT = {
    "before_the_intents": Step(Transaction, "_stage", "entering", intents=False, objects="none"),
    "after_the_intents": Step(intake_zcollection.writing.write, "put_down", "entering", objects="none"),
    "before_the_first_object": Step(LocalStore, "_write_file", "entering", objects="none"),
    "in_the_first_fragment": Step(LocalStore, "_write_file", "leaving", call=3, objects="some"),
    "after_the_first_fragment": Step(intake_zcollection.writing.group, "write_fragment", "leaving", objects="some"),
    "after_all_fragments": Step(LocalStore, "sync", "entering"),
    "before_the_commit": Step(Transaction, "commit", "entering"),
    "in_the_commit_before_its_check": Step(registry.changes.commit, "check_all", "entering"),
    "in_the_commit_after_its_check": Step(registry.changes.commit, "apply_all", "leaving"),
    "in_the_commit_before_it_is_written": Step(registry.changes.commit, "add_version", "leaving"),
    "in_the_commit_before_COMMIT": Step(registry.transaction, "write_all", "leaving"),
}
AFTER_COMMIT = {
    "after_COMMIT": Step(Transaction, "_commit", "leaving"),
    "after_the_commit": Step(Transaction, "commit", "leaving"),
}
CREATING = {
    "before_the_claim": Step(Creation, "_begin", "entering"),
    "in_the_claim_before_COMMIT": Step(registry.creation, "take_claim", "leaving"),
    "before_the_marker": Step(LocalStore, "claim", "entering"),
    "after_the_marker": Step(LocalStore, "claim", "leaving"),
    "before_the_record": Step(Creation, "record", "entering"),
    "in_the_record_before_COMMIT": Step(registry.transaction, "write_all", "leaving"),
}
DROPPING_BEFORE_COMMIT = {
    "before_the_drop": Step(Transaction, "commit", "entering"),
    "in_the_drop_before_COMMIT": Step(registry.transaction, "write_all", "leaving"),
}
DROPPING_AFTER_COMMIT = {
    "after_the_drop": Step(Transaction, "_commit", "leaving"),
    "before_the_objects": Step(LocalStore, "remove", "entering"),
    "among_the_objects": Step(LocalFileSystem, "rm", "leaving"),
    "after_the_objects": Step(LocalStore, "remove", "leaving"),
    "before_the_marker_is_removed": Step(LocalStore, "remove", "entering", call=2),
    "after_the_marker_is_removed": Step(LocalStore, "remove", "leaving", call=2),
    "before_the_garbage_is_forgotten": Step(izc.Registry, "forget_garbage", "entering"),
}
DROPPING = DROPPING_BEFORE_COMMIT | DROPPING_AFTER_COMMIT
STEPS = BEFORE_COMMIT | AFTER_COMMIT | CREATING | DROPPING

WITH_ALL = ("in_the_first_fragment", "in_the_commit_after_its_check", "in_the_commit_before_COMMIT")
"""Where it matters which write it is: a part of it is done, in the storage or in the transaction."""


def by_turns(steps: Iterable[str], others: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Each step with one of the others, in turn, and those where it matters with all of them."""
    turns = itertools.cycle(others)
    return [(step, *other) for step in steps for other in (others if step in WITH_ALL else [next(turns)])]


def act_at(step: Step, action: Callable[[], None], patch: Callable[[Any, str, Any], None] = setattr) -> None:
    """Have ``action`` called at a step, once."""
    original = getattr(step.owner, step.function)
    calls = itertools.count(1)

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        now = next(calls) == step.call
        if now and step.moment == "entering":
            action()
        result = original(*args, **kwargs)
        if now and step.moment == "leaving":
            action()
        return result

    patch(step.owner, step.function, wrapper)


# The processes that die


def die() -> None:
    """End this process as the kernel ends it when memory is short: at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def insert_and_die(url: str, step: str, write: str) -> None:
    """Insert, in order, one fragment after the other; and die at a step."""
    collection = izc.open_collection(url, "made/days")
    act_at(STEPS[step], die)
    collection.insert(WRITES[write].data(), merge=WRITES[write].merge, scheduler="synchronous")


def insert_and_die_in_an_object(url: str, write: str) -> None:
    """Insert, and die with an object half written."""
    collection = izc.open_collection(url, "made/days")
    writes = itertools.count(1)

    def write_file(store: LocalStore, path: str, value: bytes) -> None:
        half = next(writes) == 3
        Path(path).write_bytes(value[: len(value) // 2] if half else value)
        if half:
            die()

    LocalStore._write_file = write_file  # type: ignore[method-assign,assignment]  # its arguments have other names
    collection.insert(WRITES[write].data(), merge=WRITES[write].merge, scheduler="synchronous")


def create_and_die(url: str, step: str, location: str) -> None:
    """Create a collection, and die at a step."""
    act_at(STEPS[step], die)
    create_days(izc.connect(url), location)


def create_and_die_in_the_marker(url: str, location: str) -> None:
    """Create a collection, and die with the marker half written."""

    def write_file(store: LocalStore, path: str, value: bytes) -> None:
        Path(path).write_bytes(value[: len(value) // 2])
        die()

    LocalStore._write_file = write_file  # type: ignore[method-assign,assignment]  # its arguments have other names
    create_days(izc.connect(url), location)


def create_and_die_after_its_record(url: str, location: str) -> None:
    """Create a collection, and die before that is known."""
    act_at(STEPS["after_COMMIT"], die)
    create_days(izc.connect(url), location)


def drop_and_die(url: str, step: str) -> None:
    """Drop a collection, and die at a step."""
    act_at(STEPS[step], die)
    izc.drop_collection(url, "made/days")


def copy_and_die(url: str, step: str, location: str) -> None:
    """Copy a collection, and die at a step."""
    collection = izc.open_collection(url, "made/days")
    act_at(STEPS[step], die)
    collection.copy("made/copy", location, scheduler="synchronous")


def run_until_killed(function: Callable[..., None], *arguments: str) -> None:
    """Run a function in another process, and see that it was killed, and neither ended nor raised."""
    process = _processes.Process(target=function, args=arguments)
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL


# What a collection looks like


def create_days(registry: izc.Registry, location: str) -> izc.Collection:
    return izc.create_collection(
        registry,
        "made/days",
        january_and_february(),
        axis="time",
        partitioning=izc.Date("time", "M"),
        location=location,
    )


@dataclass(frozen=True)
class State:
    """All that a reader sees of a collection."""

    versions: tuple[izc.Version, ...]
    partitions: tuple[izc.Partition, ...]
    data: xr.Dataset


def state_of(collection: izc.Collection) -> State:
    return State(collection.versions(), collection.partitions(), collection.load().compute())


def assert_unchanged(collection: izc.Collection, before: State) -> None:
    assert collection.versions() == before.versions
    assert collection.partitions() == before.partitions
    xr.testing.assert_identical(collection.load().compute(), before.data)


def assert_holds(collection: izc.Collection, expected: xr.Dataset) -> None:
    xr.testing.assert_equal(collection.load().compute(), expected)


def files_below(location: str) -> dict[str, bytes]:
    """All objects of a local location, with their bytes."""
    paths = (path for path in Path(location).rglob("*") if path.is_file())
    return {path.relative_to(location).as_posix(): path.read_bytes() for path in paths}


def fragments_of(files: dict[str, bytes]) -> set[str]:
    """The names in the paths of objects, as intents have them: an attempt adds eight letters of its own."""
    return {part[:24] for path in files for part in path.split("/") if len(part) == 32}


def staged_uids(registry: izc.Registry) -> set[str]:
    return {uid for (uid,) in run_sql(registry, "SELECT uid FROM staged")}


def assert_nothing_open(registry: izc.Registry) -> None:
    """No transaction, no pin: as if nobody had ever tried."""
    states = {state for (state,) in run_sql(registry, 'SELECT state FROM "transaction"')}
    assert states <= {"committed", "aborted"}
    assert run_sql(registry, "SELECT * FROM pin") == []


@pytest.fixture
def days(registry: izc.Registry, tmp_path: Path, request: pytest.FixtureRequest) -> izc.Collection:
    """The collection as it is before the test's write."""
    collection = create_days(registry, f"{tmp_path}/days")
    before = WRITES[request.getfixturevalue("write")].before
    if before is not None:
        collection.insert(before())
    return collection


def new_files(collection: izc.Collection, before: dict[str, bytes]) -> dict[str, bytes]:
    """The objects written since."""
    return {path: data for path, data in files_below(collection.location).items() if path not in before}


def assert_put_down(registry: izc.Registry, files: dict[str, bytes], step: Step, write: Write) -> None:
    """See that the writer came to the very step: which intents it had recorded, and which objects written."""
    assert len(staged_uids(registry)) == (write.fragments if step.intents else 0)
    written = len(fragments_of(files))
    match step.objects:
        case "none":
            assert written == 0
        case "some":
            assert 0 < written < write.fragments
        case "all":
            assert written == write.fragments


# Killed


@each_step
@pytest.mark.parametrize(("step", "write"), by_turns(BEFORE_COMMIT, [(write,) for write in WRITES]))
def test_a_writer_killed_before_its_commit_has_changed_nothing_and_hinders_nobody(
    registry: izc.Registry, days: izc.Collection, step: str, write: str
) -> None:
    before, files = state_of(days), files_below(days.location)
    run_until_killed(insert_and_die, registry.url, step, write)
    assert_unchanged(days, before)
    assert_put_down(registry, new_files(days, files), STEPS[step], WRITES[write])
    version = days.insert(WRITES[write].data(), merge=WRITES[write].merge)
    assert days.versions() == (*before.versions, version)
    assert version.number == before.versions[-1].number + 1
    assert_holds(days, WRITES[write].after())
    xr.testing.assert_identical(days.at(version=before.versions[-1]).load().compute(), before.data)


@every_write
@pytest.mark.parametrize("step", ["in_the_first_fragment", "in_the_commit_before_COMMIT"])
def test_intents_name_all_that_a_killed_writer_leaves_behind(
    registry: izc.Registry, days: izc.Collection, step: str, write: str
) -> None:
    files = files_below(days.location)
    run_until_killed(insert_and_die, registry.url, step, write)
    assert fragments_of(new_files(days, files)) <= staged_uids(registry)


@every_write
def test_a_writer_killed_with_an_object_half_written_has_changed_nothing(
    registry: izc.Registry, days: izc.Collection, write: str
) -> None:
    before = state_of(days)
    run_until_killed(insert_and_die_in_an_object, registry.url, write)
    assert_unchanged(days, before)
    days.insert(WRITES[write].data(), merge=WRITES[write].merge)
    assert_holds(days, WRITES[write].after())


@each_step
@every_write
@pytest.mark.parametrize("step", AFTER_COMMIT)
def test_a_writer_killed_after_its_commit_has_written_everything(
    registry: izc.Registry, days: izc.Collection, step: str, write: str
) -> None:
    before = state_of(days)
    run_until_killed(insert_and_die, registry.url, step, write)
    assert days.versions()[:-1] == before.versions
    assert days.version.number == before.versions[-1].number + 1
    assert_holds(days, WRITES[write].after())
    xr.testing.assert_identical(days.at(version=before.versions[-1]).load().compute(), before.data)
    assert_nothing_open(registry)


@every_write
def test_what_a_killed_writer_committed_can_be_replaced(
    registry: izc.Registry, days: izc.Collection, write: str
) -> None:
    run_until_killed(insert_and_die, registry.url, "after_COMMIT", write)
    committed = state_of(days)
    again = make_days("2022-04-01", 30, seed=3)
    days.insert(again, merge="replace")
    kept = WRITES[write].after().sel(time=slice(None, "2022-03-31"))
    assert_holds(days, xr.concat([kept, again], "time", data_vars="minimal"))
    xr.testing.assert_identical(days.at(version=committed.versions[-1]).load().compute(), committed.data)


def test_several_killed_writers_in_a_row_change_nothing(registry: izc.Registry, tmp_path: Path) -> None:
    collection = create_days(registry, f"{tmp_path}/days")
    collection.insert(january_and_february())
    before = state_of(collection)
    for step in ("after_the_intents", "in_the_first_fragment", "in_the_commit_before_COMMIT"):
        run_until_killed(insert_and_die, registry.url, step, "replace")
    assert_unchanged(collection, before)
    collection.insert(february_and_march(), merge="replace")
    assert_holds(collection, WRITES["replace"].after())


@each_step
@pytest.mark.parametrize("step", CREATING)
def test_a_collection_whose_creator_was_killed_does_not_exist(
    registry: izc.Registry, tmp_path: Path, step: str
) -> None:
    url = registry.url
    run_until_killed(create_and_die, url, step, f"{tmp_path}/days")
    assert registry.collections() == ()
    with pytest.raises(izc.NotFoundError, match="no collection made/days"):
        izc.open_collection(registry, "made/days")


@pytest.mark.parametrize("step", CREATING)
def test_a_collection_whose_creator_was_killed_can_be_created_elsewhere(
    registry: izc.Registry, tmp_path: Path, step: str
) -> None:
    run_until_killed(create_and_die, registry.url, step, f"{tmp_path}/days")
    collection = create_days(registry, f"{tmp_path}/elsewhere")
    collection.insert(january_and_february())
    assert_holds(collection, january_and_february())


def let_leases_lapse(registry: izc.Registry) -> None:
    """Have all the time pass that others wait for those who died."""
    run_sql(registry, "UPDATE \"transaction\" SET lease_until = '2000-01-01 00:00:00.000000' WHERE state = 'open'")


def taken(registry: izc.Registry) -> set[str]:
    """The locations that are a collection's, or claimed."""
    return {place for (place,) in run_sql(registry, "SELECT location FROM collection UNION SELECT location FROM claim")}


def garbage(registry: izc.Registry) -> set[str]:
    """The paths of what is to be deleted."""
    return {path for (path,) in run_sql(registry, "SELECT location || '/' || path FROM garbage")}


def assert_all_is_named(registry: izc.Registry, location: str) -> None:
    """Rows say of each file whose it is, or that it is to be deleted."""
    names = taken(registry) | garbage(registry)
    for file in files_below(location):
        assert any(f"{location}/{file}/".startswith(f"{name}/") for name in names), file


@each_step
@pytest.mark.parametrize("step", CREATING)
def test_a_creator_that_was_killed_is_run_again_by_the_same_words_once_its_claim_has_lapsed(
    registry: izc.Registry, tmp_path: Path, step: str
) -> None:
    location = f"{tmp_path}/days"
    run_until_killed(create_and_die, registry.url, step, location)
    assert_all_is_named(registry, location)
    if taken(registry):
        with pytest.raises(izc.AlreadyExistsError, match=r"at work in .*days since .* UTC \(create made/days\); wait"):
            create_days(registry, location)
        let_leases_lapse(registry)
    collection = create_days(registry, location)
    collection.insert(january_and_february())
    assert_holds(collection, january_and_february())
    assert (taken(registry), garbage(registry)) == ({location}, set())
    assert run_sql(registry, "SELECT * FROM \"transaction\" WHERE state = 'open'") == []


def test_a_creator_that_was_killed_in_the_middle_of_its_marker_is_run_again(
    registry: izc.Registry, tmp_path: Path
) -> None:
    location = f"{tmp_path}/days"
    run_until_killed(create_and_die_in_the_marker, registry.url, location)
    assert_all_is_named(registry, location)
    let_leases_lapse(registry)
    create_days(registry, location).insert(january_and_february())


def test_a_creator_that_was_killed_after_its_record_has_made_the_collection(
    registry: izc.Registry, tmp_path: Path
) -> None:
    run_until_killed(create_and_die_after_its_record, registry.url, f"{tmp_path}/days")
    izc.open_collection(registry, "made/days").insert(january_and_february())
    assert_nothing_open(registry)


# Copied


COPYING = [
    *("before_the_claim", "after_the_marker", "before_the_intents", "after_the_intents", "in_the_first_fragment"),
    *("after_all_fragments", "before_the_record", "in_the_commit_before_it_is_written", "in_the_record_before_COMMIT"),
]


@pytest.mark.parametrize("step", COPYING)
def test_a_copy_that_was_killed_does_not_exist_and_is_made_again_by_the_same_words(
    registry: izc.Registry, tmp_path: Path, step: str
) -> None:
    days, location = create_days(registry, f"{tmp_path}/days"), f"{tmp_path}/copy"
    days.insert(january_and_february())
    run_until_killed(copy_and_die, registry.url, step, location)
    assert [record.name for record in registry.collections()] == ["made/days"]
    assert_all_is_named(registry, location)
    left = fragments_of(files_below(location))
    assert left <= staged_uids(registry)
    let_leases_lapse(registry)
    copied = days.copy("made/copy", location)
    assert [version.operation for version in copied.versions()] == ["create", "copy"]
    assert_holds(copied, january_and_february())
    assert left <= staged_uids(registry)  # for vacuum


# Dropped


@each_step
@pytest.mark.parametrize("step", DROPPING)
def test_what_a_killed_dropper_leaves_is_named_and_its_location_is_free(
    registry: izc.Registry, tmp_path: Path, step: str
) -> None:
    location = f"{tmp_path}/days"
    create_days(registry, location).insert(january_and_february())
    run_until_killed(drop_and_die, registry.url, step)
    assert_all_is_named(registry, location)
    assert_nothing_open(registry)
    if step in DROPPING_BEFORE_COMMIT:
        izc.open_collection(registry, "made/days").insert(march_and_april())
        izc.drop_collection(registry, "made/days")
        assert files_below(location) == {}
        assert (taken(registry), garbage(registry)) == (set(), set())
    else:
        with pytest.raises(izc.NotFoundError):
            izc.open_collection(registry, "made/days")
        again = create_days(registry, location)
        again.insert(february_and_march())
        assert_holds(again, february_and_march())
        assert f"{location}/.zcollection" not in garbage(registry)  # it is the new one's


@pytest.mark.parametrize("step", ["among_the_objects", "after_the_objects"])
def test_what_cannot_be_deleted_of_a_dropped_collection_is_named(
    registry: izc.Registry, tmp_path: Path, step: str
) -> None:
    location = f"{tmp_path}/days"
    create_days(registry, location).insert(january_and_february())
    with pytest.MonkeyPatch.context() as patched:
        act_at(STEPS[step], fail_with(UnforeseenError), patched.setattr)
        with pytest.raises((UnforeseenError, izc.StorageUnavailableError), match="in the middle"):
            izc.drop_collection(registry, "made/days")
    assert files_below(location)
    assert_all_is_named(registry, location)


# Failed


class UnforeseenError(Exception):
    """What no handler expects."""


def fail_with(error: type[BaseException]) -> Callable[[], None]:
    def fail() -> None:
        raise error("in the middle")

    return fail


def insert_and_fail(
    collection: izc.Collection, write: str, step: Step, error: type[BaseException], scheduler: str | None = None
) -> BaseException:
    """Insert, with an error raised at a step; return what the caller gets: of the storage, an error of ours."""
    with pytest.MonkeyPatch.context() as patched:
        act_at(step, fail_with(error), patched.setattr)
        with pytest.raises((error, izc.StorageUnavailableError), match="in the middle") as caught:
            collection.insert(WRITES[write].data(), merge=WRITES[write].merge, scheduler=scheduler)
    return caught.value


FAILURES = [(UnforeseenError, "first"), (KeyboardInterrupt, "append"), (UnforeseenError, "replace")]


@each_step
@pytest.mark.parametrize(("step", "error", "write"), by_turns(BEFORE_COMMIT, FAILURES))
def test_a_failed_insert_leaves_nothing_behind(
    registry: izc.Registry, days: izc.Collection, step: str, error: type[BaseException], write: str
) -> None:
    before, files = state_of(days), files_below(days.location)
    insert_and_fail(days, write, STEPS[step], error, scheduler="synchronous")
    assert_unchanged(days, before)
    assert files_below(days.location) == files
    assert_nothing_open(registry)
    days.insert(WRITES[write].data(), merge=WRITES[write].merge)
    assert_holds(days, WRITES[write].after())


@pytest.mark.parametrize("chunks", [None, {"time": 7}], ids=["numpy", "dask"])
@pytest.mark.parametrize("scheduler", [None, "threads"])
@pytest.mark.parametrize("write", ["append"])
def test_what_one_thread_still_writes_when_another_has_failed_is_deleted(
    registry: izc.Registry, days: izc.Collection, scheduler: str | None, chunks: dict[str, int] | None, write: str
) -> None:
    deleted, written, calls = threading.Event(), threading.Event(), itertools.count(1)
    write_fragment = intake_zcollection.storage.write.write_fragment

    def write_one_and_fail_for_another(*args: Any) -> int:
        if next(calls) == 2:
            raise UnforeseenError("in the middle")
        deleted.wait(0.5)  # in vain, where the insert waits for this thread
        try:
            return write_fragment(*args)
        finally:
            written.set()

    files, data = files_below(days.location), WRITES[write].data()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(intake_zcollection.writing.group, "write_fragment", write_one_and_fail_for_another)
        act_at(Step(LocalStore, "remove", "leaving"), deleted.set, patched.setattr)
        with pytest.raises(UnforeseenError, match="in the middle"):
            days.insert(data if chunks is None else data.chunk(chunks), scheduler=scheduler)
    assert written.wait(60)
    assert files_below(days.location) == files
    assert_nothing_open(registry)


@pytest.mark.parametrize(("error", "write"), FAILURES)
@pytest.mark.parametrize("step", AFTER_COMMIT)
def test_an_error_after_the_commit_takes_nothing_back(
    registry: izc.Registry, days: izc.Collection, step: str, error: type[BaseException], write: str
) -> None:
    insert_and_fail(days, write, STEPS[step], error)
    assert_holds(days, WRITES[write].after())
    assert_nothing_open(registry)


@every_write
def test_a_connection_lost_after_the_commit_took_effect_is_a_success(
    registry: izc.Registry, days: izc.Collection, write: str
) -> None:
    def lose_the_connection() -> None:
        raise izc.RegistryUnavailableError("the connection is lost")

    with pytest.MonkeyPatch.context() as patched:
        act_at(STEPS["after_COMMIT"], lose_the_connection, patched.setattr)
        version = days.insert(WRITES[write].data(), merge=WRITES[write].merge)
    assert version == days.version
    assert_holds(days, WRITES[write].after())
    assert_nothing_open(registry)


@every_write
def test_a_registry_lost_before_the_commit_leaves_the_data_to_vacuum(
    registry: izc.Registry, days: izc.Collection, write: str
) -> None:
    # Nobody knows whether such a transaction was fenced: deleting its data could tear a version.
    def unreachable(*args: object, **kwargs: object) -> None:
        raise izc.RegistryUnavailableError("the server is gone")

    before, files = state_of(days), files_below(days.location)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Transaction, "_commit", unreachable)
        patched.setattr(Transaction, "_settle", unreachable)
        with pytest.raises(izc.RegistryUnavailableError, match="is gone") as lost:
            days.insert(WRITES[write].data(), merge=WRITES[write].merge)
    assert any("could not be deleted" in note for note in lost.value.__notes__)
    assert_unchanged(days, before)
    assert fragments_of(new_files(days, files)) == staged_uids(registry)


@pytest.mark.parametrize(("step", "error"), by_turns(CREATING, [(UnforeseenError,), (KeyboardInterrupt,)]))
def test_a_failed_creation_leaves_nothing_behind(
    registry: izc.Registry, tmp_path: Path, step: str, error: type[BaseException]
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        act_at(STEPS[step], fail_with(error), patched.setattr)
        with pytest.raises(error, match="in the middle"):
            create_days(registry, f"{tmp_path}/days")
    assert registry.collections() == ()
    assert files_below(f"{tmp_path}/days") == {}
    create_days(registry, f"{tmp_path}/days").insert(january_and_february())


@pytest.mark.parametrize(("step", "error"), by_turns(COPYING, [(UnforeseenError,), (KeyboardInterrupt,)]))
def test_a_copy_that_fails_leaves_nothing_behind(
    registry: izc.Registry, tmp_path: Path, step: str, error: type[BaseException]
) -> None:
    days, location = create_days(registry, f"{tmp_path}/days"), f"{tmp_path}/copy"
    days.insert(january_and_february())
    with pytest.MonkeyPatch.context() as patched:
        act_at(STEPS[step], fail_with(error), patched.setattr)
        with pytest.raises((error, izc.StorageUnavailableError), match="in the middle"):
            days.copy("made/copy", location, scheduler="synchronous")
    assert [record.name for record in registry.collections()] == ["made/days"]
    assert files_below(location) == {}
    assert taken(registry) == {days.location}
    assert_nothing_open(registry)


# Out of room


class SmallDisk(MemoryFileSystem):
    """A disk in memory with room for so many objects; the first that does not fit is written in half."""

    protocol = "smalldisk"
    store: dict[str, Any] = {}  # noqa: RUF012 - the base class's way of being one disk for all instances
    pseudo_dirs = [""]  # noqa: RUF012 - likewise
    room: float = float("inf")
    deletes = True

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("smalldisk://"))

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        cls = type(self)
        cls.room -= 1
        if cls.room < 0:
            super().pipe_file(path, value[: len(value) // 2], **options)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        super().pipe_file(path, value, **options)

    def rm(self, path: str | list[str], recursive: bool = False, maxdepth: int | None = None) -> None:
        if not self.deletes:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        super().rm(path, recursive, maxdepth)

    @classmethod
    def contents(cls) -> dict[str, bytes]:
        return {path: file.getvalue() for path, file in cls.store.items()}


@pytest.fixture
def small_disk() -> Iterator[type[SmallDisk]]:
    """An empty one."""
    fsspec.register_implementation("smalldisk", SmallDisk, clobber=True)
    SmallDisk.store.clear()
    SmallDisk.room = float("inf")
    SmallDisk.deletes = True
    yield SmallDisk
    SmallDisk.store.clear()


@pytest.fixture
def stored_days(registry: izc.Registry, small_disk: type[SmallDisk], request: pytest.FixtureRequest) -> izc.Collection:
    """The collection before the test's write, on a small disk."""
    collection = create_days(registry, "smalldisk://days")
    before = WRITES[request.getfixturevalue("write")].before
    if before is not None:
        collection.insert(before())
    return collection


def refusal_of(collection: izc.Collection, write: Write) -> str | None:
    """Insert; return what the storage says if it refuses."""
    try:
        collection.insert(write.data(), merge=write.merge)
    except izc.StorageUnavailableError as error:
        return str(error)
    return None


@every_write
def test_an_insert_that_finds_the_disk_full_at_any_object_is_undone(
    registry: izc.Registry, stored_days: izc.Collection, small_disk: type[SmallDisk], write: str
) -> None:
    before, contents = state_of(stored_days), small_disk.contents()
    small_disk.room, needed = 0, 0
    while (refusal := refusal_of(stored_days, WRITES[write])) is not None:
        assert "smalldisk://days cannot be written" in refusal
        assert "No space left" in refusal
        assert small_disk.contents() == contents
        assert stored_days.versions() == before.versions
        assert stored_days.partitions() == before.partitions
        small_disk.room = needed = needed + 1
    assert small_disk.room == 0, "each object was the one without room once"
    assert needed == len(small_disk.contents()) - len(contents) > 10
    assert_nothing_open(registry)
    assert_holds(stored_days, WRITES[write].after())
    xr.testing.assert_identical(stored_days.at(version=before.versions[-1]).load().compute(), before.data)


@pytest.mark.parametrize("write", ["replace"])
def test_what_cannot_even_be_deleted_is_invisible_and_recorded(
    registry: izc.Registry, stored_days: izc.Collection, small_disk: type[SmallDisk], write: str
) -> None:
    before, contents = state_of(stored_days), small_disk.contents()
    small_disk.room, small_disk.deletes = 5, False
    with pytest.raises(izc.StorageUnavailableError, match="No space left") as full:
        stored_days.insert(WRITES[write].data(), merge=WRITES[write].merge)
    assert any("could not be deleted" in note for note in full.value.__notes__)
    assert_unchanged(stored_days, before)
    assert_nothing_open(registry)
    left = {path: data for path, data in small_disk.contents().items() if path not in contents}
    assert fragments_of(left)
    assert fragments_of(left) <= staged_uids(registry)


def test_a_creation_that_finds_the_disk_full_is_undone(registry: izc.Registry, small_disk: type[SmallDisk]) -> None:
    small_disk.room = 0
    with pytest.raises(izc.StorageUnavailableError, match="No space left"):
        create_days(registry, "smalldisk://days")
    assert registry.collections() == ()
    assert small_disk.contents() == {}
    small_disk.room = float("inf")
    create_days(registry, "smalldisk://days").insert(january_and_february())


@every_write
def test_a_local_disk_that_is_full_leaves_no_fragment(days: izc.Collection, write: str) -> None:
    before, files = state_of(days), files_below(days.location)

    def write_half(store: LocalStore, path: str, value: bytes) -> None:
        Path(path).write_bytes(value[: len(value) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LocalStore, "_write_file", write_half)
        with pytest.raises(izc.StorageUnavailableError, match="No space left"):
            days.insert(WRITES[write].data(), merge=WRITES[write].merge)
    assert files_below(days.location) == files
    assert_unchanged(days, before)
