"""The write loop keeps its promises: plans do nothing, attempts tear nothing, other machines sync what they wrote."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
from intake_zcollection import execution
from intake_zcollection.execution import Execution
from intake_zcollection.operations.insert import Insertion
from intake_zcollection.reading.selection import NO_PARTITIONS
from intake_zcollection.storage.objects import LocalStore
from intake_zcollection.writing.group import put_down, this_machine
from intake_zcollection.writing.plan import Job, Plan, _joined
from intake_zcollection.writing.sources import gather
from registry import Identity, Slot, pad_key
from registry.changes import (
    AttributesUnchanged,
    NoOtherPart,
    NothingBetween,
    Requirement,
    SourcesUnchanged,
    Unchanged,
    VariablesAlive,
)

Make = Callable[..., izc.Collection]


def make_days(days: int = 59) -> xr.Dataset:
    time = np.datetime64("2022-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D")
    return xr.Dataset({"ssh": ("time", np.arange(float(days)))}, {"time": time})


@pytest.fixture
def days(make_collection: Make) -> izc.Collection:
    return make_collection(make_days())


def insertion(*data: xr.Dataset) -> Insertion:
    """What ``collection.insert(data)`` asks for."""
    return Insertion(gather(data, (), None, "made/c0"), None, None, "refuse", "refuse", "refuse", "insert")


def plan_of(collection: izc.Collection, *data: xr.Dataset) -> Plan:
    plan = insertion(*data).plan(collection._handle, Execution(), collection._handle.select(NO_PARTITIONS), None)
    assert plan is not None
    return plan


def groups(collection: izc.Collection) -> set[str]:
    """The groups that lie in the storage, by their paths."""
    root = Path(collection.location)
    return {str(path.parent.relative_to(root)) for path in root.glob("*/*/*/zarr.json")}


# Planning


def test_a_planner_can_be_asked_any_number_of_times_and_does_nothing(days: izc.Collection) -> None:
    head = days._handle.select(NO_PARTITIONS)
    planner = insertion(make_days())
    first, second = (planner.plan(days._handle, Execution(), head, None) for _ in range(2))
    assert first is not None
    assert second is not None
    assert [step.counts for step in first.steps] == [step.counts for step in second.steps]
    uids = [job.target.uid for plan in (first, second) for job, _ in plan.jobs if isinstance(job, Job)]
    assert len(set(uids)) == len(uids)  # what is written never has a path that was given before
    assert groups(days) == set()
    assert [version.number for version in days.versions()] == [0]


def test_a_plan_says_what_each_partition_depends_on(days: izc.Collection) -> None:
    days.insert(make_days(31))
    planned = plan_of(days, make_days().isel(time=slice(31, None)))
    (step,) = planned.steps
    first, last = (int(np.datetime64(day, "ns").astype(int)) for day in ("2022-02-01", "2022-02-28"))
    assert step.needs == (NoOtherPart(((pad_key((2022, 2)), first, last),)),)
    alive, meant = planned.requirements
    assert alive == VariablesAlive({0: "ssh", 1: "time"})
    assert isinstance(meant, AttributesUnchanged)
    assert {id_: set(names.values()) for id_, names in meant.attributes.items()} == {0: {None}, 1: {None}}


def test_the_needs_of_many_steps_are_asked_as_one_of_each_kind() -> None:
    january, february, march = (pad_key((2022, month)) for month in (1, 2, 3))
    a, b = Identity("a", 0, 31), Identity("b", 0, 28)
    needs: list[Requirement] = [
        Unchanged({Slot(january, 0): a}, frozenset({1})),
        NoOtherPart(((january, 0, 5),), frozenset({(january, 0)})),
        NothingBetween(((None, february),), frozenset({january, february})),
        Unchanged({Slot(february, 7): b}, frozenset({1})),
        NoOtherPart(((february, 7, None),)),
        NothingBetween(((january, march),), frozenset({january, february, march})),
        SourcesUnchanged({"a.nc": None}),
    ]
    assert _joined(needs) == [
        SourcesUnchanged({"a.nc": None}),
        NoOtherPart(((january, 0, 5), (february, 7, None)), frozenset({(january, 0)})),
        Unchanged({Slot(january, 0): a, Slot(february, 7): b}, frozenset({1})),
        NothingBetween(((None, march),), frozenset({january, february, march})),
    ]


# Attempts


def run_twice(function: Callable[..., Any], jobs: Any, how: execution.Execution, *, what: str) -> list[Any]:
    """Run each job twice, as a cluster does that has lost the first result."""
    return [[function(*job) for _ in range(2)][-1] for job in jobs]


def test_a_job_that_is_run_again_tears_nothing_of_what_it_wrote_before(
    days: izc.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(execution, "run", run_twice)
        days.insert(make_days())
    written = groups(days)
    live = {path for partition in days.partitions() for paths in partition.fragments.values() for path in paths}
    assert len(written) == 4  # two attempts at each of two months
    assert live < written
    assert len({path[:-8] for path in written}) == 2  # the intent's name is the beginning of both
    for path in written:
        assert xr.open_zarr(f"{days.location}/{path}", consolidated=False).time.size in (31, 28)
    xr.testing.assert_equal(days.load().compute(), make_days())


def test_all_attempts_of_a_write_that_fails_are_deleted(days: izc.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    days.insert(make_days(31))
    before = groups(days)

    def run_and_fail(*args: Any, **kwargs: Any) -> list[Any]:
        run_twice(*args, **kwargs)
        assert len(groups(days)) == len(before) + 2
        raise RuntimeError("lost")

    monkeypatch.setattr(execution, "run", run_and_fail)
    with pytest.raises(RuntimeError, match="lost"):
        days.insert(make_days().isel(time=slice(31, None)))
    assert groups(days) == before


# Durability


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One item for each time that this machine's files were made durable."""
    made: list[None] = []
    monkeypatch.setattr(LocalStore, "sync", lambda self: made.append(None))
    return made


def test_one_sync_makes_all_groups_durable_that_this_machine_wrote(days: izc.Collection, syncs: list[None]) -> None:
    days.insert(make_days())
    assert len(syncs) == 1


@pytest.mark.parametrize("coordinator", ["another kernel", None], ids=["another", "unknown"])
def test_a_worker_on_another_machine_makes_its_own_group_durable(
    days: izc.Collection, syncs: list[None], coordinator: str | None
) -> None:
    jobs = plan_of(days, make_days()).jobs
    for job, arrays in jobs:
        put_down(coordinator, (), job, arrays)
    assert len(syncs) == len(jobs) == 2
    put_down(this_machine(), (), *jobs[0])
    assert len(syncs) == len(jobs)


# What an operator reads


def test_the_log_tells_what_was_committed_and_what_was_undone(
    days: izc.Collection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    days.insert(make_days(31))
    assert f"committed {days.name}, version 1 (insert by " in caplog.text
    with pytest.raises(izc.AlreadyExistsError):
        days.insert(make_days(31))
    caplog.clear()
    with pytest.raises(ZeroDivisionError):
        days.update(lambda dataset: {"ssh": dataset.ssh / (1 // 0)}, outputs=["ssh"])
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == ["aborted"]


@pytest.mark.parametrize("name", ["registry", "intake_zcollection"])
def test_who_does_not_set_logging_up_is_told_nothing(name: str) -> None:
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger(name).handlers)
