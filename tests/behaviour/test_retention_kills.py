"""Expire and vacuum that end at any of their steps: everything is read still, and the next ones finish the work."""

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import xarray as xr
from fsspec.implementations.local import LocalFileSystem

import intake_zcollection as izc
from tests.processes import start_fork_server
from tests.retention import NOTHING_LEFT, groups_among, let_pass, named_groups, rows_left
from tests.views import create_base, days

from .test_retention import DAY, drop_and_create_halfway

_processes = multiprocessing.get_context("forkserver")


def die_at(step: int) -> None:
    """Have this process killed before so many SQL statements, COMMITs and deletions have been sent."""
    left = itertools.count(step - 1, -1)

    def count(*_: Any) -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("do_execute", "do_executemany", "do_execute_no_params", "commit"):
        sa.event.listen(sa.Engine, name, count)
    for name in ("rm", "rmdir"):
        setattr(LocalFileSystem, name, _after(count, getattr(LocalFileSystem, name)))


def _after(first: Callable[[], None], then: Callable[..., Any]) -> Callable[..., Any]:
    def both(*args: Any, **how: Any) -> Any:
        first()
        return then(*args, **how)

    return both


def do_and_die(url: str, name: str, verb: Callable[[izc.Collection], None], step: int) -> None:
    """Expire or vacuum a collection, in a process that is killed at a step, if it comes so far."""
    with izc.connect(url) as registry:
        collection = izc.open_collection(registry, name)
        die_at(step)
        verb(collection)


def vacuum_and_die(url: str, step: int) -> None:
    """Vacuum all of a registry, in such a process."""
    with izc.connect(url) as registry:
        die_at(step)
        izc.vacuum(registry)


def was_killed(function: Callable[..., None], *args: object) -> bool:
    """Run one of them, and tell whether it has been killed before its end."""
    process = _processes.Process(target=function, args=args)
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.fixture
def collection(registry: izc.Registry, tmp_path: Path) -> izc.Collection:
    return create_base(registry, tmp_path / "base")


def leave_something(collection: izc.Collection, level: int) -> xr.Dataset:
    """Have a version to expire, whose group goes, and a group that was put down for nothing."""
    collection.insert(days("2022-01-30", 2, level), merge="replace", scheduler="synchronous")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("registry.transaction.Transaction.commit", lambda *_: 1 / 0)
        patch.setattr("intake_zcollection.writing.write.remove_attempts", lambda *_: None)
        with pytest.raises(ZeroDivisionError):
            collection.insert(days("2022-03-01", 1), scheduler="synchronous")
    return collection.load().compute()


def expire(collection: izc.Collection) -> None:
    collection.expire(keep=1, grace="0s")


def vacuum(collection: izc.Collection) -> None:
    collection.vacuum(grace="0s")


def state_of(collection: izc.Collection) -> tuple[Any, ...]:
    """What is there: rows of what is to be deleted, versions, and objects."""
    registry, location = collection._handle.registry, Path(collection.location)
    expired = [each.number for each in collection.versions() if each.expired_at is not None]
    return rows_left(registry), expired, sorted(location.rglob("*"))


@pytest.mark.both_engines
@pytest.mark.parametrize("verb", [expire, vacuum], ids=["expire", "vacuum"])
def test_one_that_is_killed_at_any_step_takes_nothing_away_and_the_next_finishes_its_work(
    registry: izc.Registry, collection: izc.Collection, verb: Callable[[izc.Collection], None]
) -> None:
    start_fork_server()
    collection.insert(days("2022-01-30", 2), scheduler="synchronous")
    before = None
    for step in itertools.count(1):
        if state_of(collection) != before:  # otherwise the last one was killed before it had done anything
            data = leave_something(collection, step)
            if verb is vacuum:
                expire(collection)
            before = state_of(collection)
        killed = was_killed(do_and_die, registry.url, collection.name, verb, step)
        xr.testing.assert_identical(collection.load().compute(), data)
        for version in [each for each in collection.versions()[-2:] if each.expired_at is None]:
            collection.at(version=version).load().compute()
        if not killed:
            break
        if state_of(collection) != before:
            verb(collection)
    collection.expire(keep=1, grace="0s")
    for _ in range(2):
        izc.vacuum(registry, grace="0s")
    assert groups_among({str(path) for path in Path(collection.location).rglob("*")}) == named_groups(registry)
    assert rows_left(registry) == NOTHING_LEFT
    assert step > 20


@pytest.mark.both_engines
def test_what_killed_droppers_and_creators_left_is_deleted_though_each_vacuum_is_killed_a_step_later_than_the_last(
    registry: izc.Registry, collection: izc.Collection, tmp_path: Path
) -> None:
    start_fork_server()
    collection.insert(days("2022-01-30", 1), scheduler="synchronous")
    elsewhere = tmp_path / "elsewhere"
    drop_and_create_halfway(registry, collection, elsewhere)
    steps = itertools.count(1)
    killed = sum(itertools.takewhile(bool, (was_killed(vacuum_and_die, registry.url, step) for step in steps)))
    assert killed > 20
    let_pass(registry, 2 * DAY)
    assert izc.vacuum(registry).ok
    assert not [each for place in (Path(collection.location), elsewhere) for each in place.rglob("*") if each.is_file()]
    assert rows_left(registry) == NOTHING_LEFT
