"""Expire and vacuum that end at any of their steps: everything is read still, and the next ones finish the work."""

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import xarray as xr
from fsspec.implementations.local import LocalFileSystem

import intake_zcollection as izc
from intake_zcollection.storage.objects import LocalStore
from tests.processes import start_fork_server
from tests.retention import NOTHING_LEFT, groups_among, let_pass, named_groups, rows_left
from tests.sql import run_sql
from tests.views import create_base, days

from .test_retention import DAY


class KilledError(Exception):
    """What nobody handles: what a database does not hear of is undone."""


EVENTS = ("do_execute", "do_executemany", "do_execute_no_params", "commit")
"""What happens when a statement is about to be sent, or a COMMIT."""


@contextmanager
def killed_at(step: int) -> Iterator[list[int]]:
    """End whatever is done inside before one of its SQL statements, COMMITs and deletions; count them."""
    done = [0]

    def count(*_: Any) -> None:
        done[0] += 1
        if done[0] == step:
            raise KilledError

    rm, rmdir = LocalFileSystem.rm, LocalFileSystem.rmdir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalFileSystem, "rm", lambda *args, **how: (count(), rm(*args, **how)))
        patch.setattr(LocalFileSystem, "rmdir", lambda *args: (count(), rmdir(*args)))
        for name in EVENTS:
            sa.event.listen(sa.Engine, name, count)
        try:
            yield done
        except KilledError:
            pass
        finally:
            for name in EVENTS:
                sa.event.remove(sa.Engine, name, count)


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


@pytest.mark.both_engines
@pytest.mark.parametrize("verb", [expire, vacuum], ids=["expire", "vacuum"])
def test_one_that_is_killed_at_any_step_takes_nothing_away_and_the_next_finishes_its_work(
    registry: izc.Registry, collection: izc.Collection, verb: Callable[[izc.Collection], None]
) -> None:
    for step in itertools.count(1):
        data = leave_something(collection, step)
        if verb is vacuum:
            expire(collection)
        with killed_at(step) as done:
            verb(collection)
        xr.testing.assert_identical(collection.load().compute(), data)
        for version in [each for each in collection.versions()[-2:] if each.expired_at is None]:
            collection.at(version=version).load().compute()
        verb(collection)
        if done[0] < step:
            break
    izc.open_collection(registry, collection.name).expire(keep=1, grace="0s")
    for _ in range(2):
        izc.vacuum(registry, grace="0s")
    assert groups_among({str(path) for path in Path(collection.location).rglob("*")}) == named_groups(registry)
    assert rows_left(registry) == NOTHING_LEFT
    assert step > 10


# Killed by the kernel


def vacuum_and_die(url: str, owner: str, name: str) -> None:
    """Vacuum a registry in this process, which dies when it comes to a step."""

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    setattr({"store": LocalStore, "registry": izc.Registry}[owner], name, die)
    izc.vacuum(url)


@pytest.mark.parametrize("step", ["store remove", "registry forget_leftovers"])
def test_a_vacuum_whose_process_is_killed_is_finished_by_another_one(
    registry: izc.Registry, collection: izc.Collection, step: str
) -> None:
    start_fork_server()
    leave_something(collection, 1)
    data = leave_something(collection, 2)
    expire(collection)
    process = multiprocessing.get_context("forkserver").Process(
        target=vacuum_and_die, args=(registry.url, *step.split())
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert run_sql(registry, "SELECT count(*) FROM garbage")[0][0] > 0
    xr.testing.assert_identical(collection.load().compute(), data)
    for _ in range(2):
        let_pass(registry, 2 * DAY)
        assert izc.vacuum(registry).ok
    assert groups_among({str(path) for path in Path(collection.location).rglob("*")}) == named_groups(registry)
    assert rows_left(registry) == NOTHING_LEFT
