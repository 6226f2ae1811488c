"""Who loses three times takes a place in the queue, and then all others whose rows meet it let it pass.

Nothing here waits for a while: a writer is known to wait by what it asks of the registry.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
import xarray as xr

import intake_zcollection as izc
import intake_zcollection.writing.write as write
from registry.sql import tables
from registry.sql.engine import writing
from registry.sql.functions import database_clock
from registry.transaction import Transaction
from tests.conftest import both_engines
from tests.processes import start_fork_server
from tests.racing import BEGIN, HOUR, MONTH, Verb, assert_clean, held, rows, selected

Make = Callable[..., izc.Collection]

TOO_OFTEN = 8
"""Whoever loses so often has no queue that others respect."""


@dataclass
class Asking:
    """Which threads ask the registry who is in the queue, and how often."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    times: dict[int, int] = field(default_factory=dict)
    rows_added: int = 0

    def note(self, connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "queue" not in statement:
            return
        with self.changed:
            me = threading.get_ident()
            self.times[me] = self.times.get(me, 0) + statement.lstrip().startswith(("SELECT", "WITH"))
            self.rows_added += statement.lstrip().startswith("INSERT")
            self.changed.notify_all()

    def until_it_waits_or_ends(self, writer: "Writer") -> None:
        """Return once a writer asks again and again, or has ended."""
        with self.changed:
            assert self.changed.wait_for(lambda: writer.ended or self._again(writer), timeout=120)

    def _again(self, writer: "Writer") -> bool:
        return self.times.get(writer.ident, 0) >= writer.asked_before + 4


@pytest.fixture
def asking() -> Iterator[Asking]:
    asking = Asking()
    sa.event.listen(sa.Engine, "before_cursor_execute", asking.note)
    yield asking
    sa.event.remove(sa.Engine, "before_cursor_execute", asking.note)


class Writer:
    """A verb in a thread of its own."""

    def __init__(self, asking: Asking, verb: Verb, collection: izc.Collection) -> None:
        self.ident, self.asked_before, self.ended = 0, 0, False
        self._asking = asking
        self._result: Future[Any] = Future()
        self._thread = threading.Thread(target=self._run, args=(verb, collection), daemon=True)
        self._thread.start()

    def _run(self, verb: Verb, collection: izc.Collection) -> None:
        self.ident = threading.get_ident()
        self.asked_before = self._asking.times.get(self.ident, 0)  # the number may have been another thread's
        try:
            self._result.set_result(verb(collection))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            self._result.set_exception(error)
        with self._asking.changed:
            self.ended = True
            self._asking.changed.notify_all()

    def result(self) -> Any:
        self._thread.join(timeout=120)
        return self._result.result(timeout=0)


def insert(hours: list[int], source: float, merge: str = "append", **options: Any) -> Verb:
    return lambda collection: collection.insert(rows(hours, source), merge=merge, scheduler="synchronous", **options)


def double(data: xr.Dataset) -> dict[str, Any]:
    return {"a": data.a * 2}


def double_all(collection: izc.Collection) -> Any:
    return collection.update(double, inputs=["a"], outputs=["a"], filters="month == 1", scheduler="synchronous")


@contextmanager
def before_each_commit_of(thread: int, action: Callable[[int], Any]) -> Iterator[None]:
    """Have an action done before each try of a thread to commit; it gets the number of the try, from 0."""
    commit, tries = Transaction.commit, iter(range(1000))

    def act_and_commit(self: Transaction, commits: Any) -> Any:
        if threading.get_ident() == thread:
            action(next(tries))
        return commit(self, commits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transaction, "commit", act_and_commit)
        yield


@dataclass
class Beside:
    """A writer that has lost until it got into the queue, and that stops there just before its commit."""

    losses: int
    others: list[Writer]
    """Those that came in its last try, and wait or have ended."""


def lose_into_the_queue(
    collection: izc.Collection,
    asking: Asking,
    loser: Verb,
    others: Callable[[int], Verb],
    then: Callable[[Beside], Any] = lambda _: None,
) -> tuple[Any, Beside]:
    """Run a verb beside others, one of which comes before each of its tries to commit, until one of them waits."""
    beside = Beside(0, [])

    def interfere(number: int) -> None:
        if number >= TOO_OFTEN:
            return
        other = Writer(asking, others(number), collection)
        asking.until_it_waits_or_ends(other)
        if other.ended:
            other.result()
            beside.losses += 1
        else:
            beside.others.append(other)
            then(beside)

    with before_each_commit_of(threading.get_ident(), interfere):
        made = loser(collection)
    for other in beside.others:
        other.result()
    return made, beside


def appends(number: int) -> Verb:
    return insert([100 + number], 1)


def corrections(number: int) -> Verb:
    return insert([10], number, "upsert")


MERGE = insert([10], 9, "concat")
"""It is overtaken by all corrections."""


@pytest.fixture
def stored(make_collection: Make) -> izc.Collection:
    collection = make_collection(rows([]))
    collection.insert(rows([10, 20, MONTH]))
    return collection


@both_engines
def test_a_long_update_beside_a_stream_of_appends_ends_after_a_few_losses(
    registry: izc.Registry, stored: izc.Collection, asking: Asking
) -> None:
    version, beside = lose_into_the_queue(stored, asking, double_all, lambda number: insert([100 + number], 1))
    assert 0 < beside.losses == version.summary["reruns"] <= 3
    assert len(beside.others) == 1, "the append that came then waited"
    before = stored.at(version=version.number - 1)
    after = stored.at(version=version)
    assert list(held(before)) == [10, 20, *range(100, 100 + beside.losses), MONTH]
    assert held(after) == {hour: value * (1 + (hour < MONTH)) for hour, value in held(before).items()}
    assert held(stored)[100 + beside.losses] == 10_100.0 + beside.losses, "it came afterwards"
    assert_clean(registry, stored)


def test_a_merge_that_has_lost_too_often_goes_before_other_merges(
    registry: izc.Registry, stored: izc.Collection, asking: Asking
) -> None:
    version, beside = lose_into_the_queue(stored, asking, MERGE, corrections)
    assert 0 < beside.losses == version.summary["reruns"] <= 3
    assert_clean(registry, stored)


STARVING: dict[str, tuple[Verb, Callable[[int], Verb]]] = {
    "deliveries into other holes of the part that it cuts": (
        insert([25], 9),
        lambda n: insert([89 + 2 * (TOO_OFTEN - n)], 1),
    ),
    "partitions that come next to the one it computes": (
        lambda c: c.update(double, inputs=["a"], outputs=["a"], depth=1, filters="month == 2", scheduler="synchronous"),
        lambda n: insert([(10 - n) * MONTH], 1),
    ),
    "updates of what it merges": (insert([25, 91], 9, "concat"), lambda _: double_all),
    "rows dropped from what it computes": (
        double_all,
        lambda n: lambda c: c.drop_rows(where={"time": (BEGIN + (90 + 2 * n) * HOUR,) * 2}),
    ),
    "replacements of what it merges": (insert([15, 25], 9, "concat"), lambda n: insert([10, 20, 30], n, "replace")),
    "rows that it leaves out, again and again": (
        insert([10, 15], 9, "keep"),
        lambda n: insert([10], n, "upsert"),
    ),
}


@both_engines
@pytest.mark.parametrize("name", STARVING)
def test_whatever_makes_a_writer_lose_waits_in_the_end(
    registry: izc.Registry, stored: izc.Collection, asking: Asking, name: str
) -> None:
    verb, others = STARVING[name]
    stored.insert(rows([20, 30, *range(90, 90 + 2 * (TOO_OFTEN + 1), 2)]), merge="replace")
    stored.insert(rows([10]))
    version, beside = lose_into_the_queue(stored, asking, verb, others)
    assert 0 < beside.losses == version.summary["reruns"] <= 3
    assert_clean(registry, stored)


def test_another_long_update_waits_too_and_both_end(
    registry: izc.Registry, stored: izc.Collection, asking: Asking
) -> None:
    version, beside = lose_into_the_queue(stored, asking, double_all, lambda _: double_all)
    assert version.summary["reruns"] <= 3
    assert held(stored)[10] == 10 * 2 ** (beside.losses + 2)
    assert_clean(registry, stored)


ELSEWHERE: dict[str, Verb] = {
    "an append to another partition": insert([MONTH + 5], 3),
    "an update of another partition": lambda c: c.update(double, inputs=["a"], outputs=["a"], filters="month == 2"),
    "a new partition": insert([3 * MONTH], 3),
}
BESIDE: dict[str, Verb] = {
    "an append before it": insert([1], 3),
    "an append after it": insert([50, 60], 3),
    "a merge after it": insert([30], 3, "upsert"),
}
MEETING: dict[str, Verb] = {
    "an append": insert([50], 3),
    "a blind replace": insert([50], 3, "replace"),
    "an upsert": insert([10], 3, "upsert"),
    "an update": double_all,
    "a rewrite": lambda c: c.rewrite(filters="month == 1"),
    "drop_rows": lambda c: c.drop_rows(where={"time": (BEGIN, BEGIN + 15 * HOUR)}),
}


def in_the_queue(
    collection: izc.Collection, asking: Asking, loser: Verb, others: Callable[[int], Verb], verb: Verb
) -> bool:
    """Whether a verb waits for one that is in the queue."""
    waited: list[bool] = []
    writers: list[Writer] = []

    def look(_: Beside) -> None:
        writers.append(Writer(asking, verb, collection))
        asking.until_it_waits_or_ends(writers[0])
        waited.append(not writers[0].ended)

    lose_into_the_queue(collection, asking, loser, others, look)
    writers[0].result()
    assert len(waited) == 1
    return waited[0]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_writers_of_other_partitions_do_not_wait(
    registry: izc.Registry, stored: izc.Collection, asking: Asking, name: str
) -> None:
    assert not in_the_queue(stored, asking, double_all, appends, ELSEWHERE[name])
    assert_clean(registry, stored)


@pytest.mark.parametrize("name", BESIDE)
def test_writers_of_other_rows_of_the_same_partition_do_not_wait(
    registry: izc.Registry, stored: izc.Collection, asking: Asking, name: str
) -> None:
    stored.insert(rows([30]))  # a part of its own
    assert not in_the_queue(stored, asking, MERGE, corrections, BESIDE[name])
    assert_clean(registry, stored)


@pytest.mark.parametrize("name", MEETING)
def test_whatever_writes_the_same_partition_waits(
    registry: izc.Registry, stored: izc.Collection, asking: Asking, name: str
) -> None:
    stored.insert(rows([30]))  # so that there is something to rewrite
    assert in_the_queue(stored, asking, double_all, appends, MEETING[name])
    assert_clean(registry, stored)


@both_engines
def test_a_place_in_the_queue_names_what_is_in_conflict_and_ends_with_its_transaction(
    registry: izc.Registry, stored: izc.Collection, asking: Asking
) -> None:
    found: list[list[tuple[Any, ...]]] = []
    table = tables.queue.c

    def look(_: Beside) -> None:
        columns = (table.collection_id, table.k0, table.k1, table.axis_min, table.axis_max, table.transaction_id)
        found.append(selected(registry, *columns))

    lose_into_the_queue(stored, asking, insert([10, MONTH + 5], 9, "concat"), corrections, look)
    ((row,),) = found
    collection, year, month, low, high, transaction = row
    assert collection == stored._handle.record.id
    assert (year, month) == (2022, 1)
    assert low <= (BEGIN + 10 * HOUR).astype("i8") <= high, "what it writes, or more"
    states = dict(selected(registry, tables.transaction.c.id, tables.transaction.c.state))
    assert states[transaction] == "committed"
    assert selected(registry, table.id) == []


def test_a_place_in_the_queue_ends_with_a_writer_that_fails(
    registry: izc.Registry, stored: izc.Collection, asking: Asking
) -> None:
    def fail(_: Beside) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lose_into_the_queue(stored, asking, double_all, appends, fail)
    assert selected(registry, tables.queue.c.id) == []
    stored.insert(rows([60], 1))


# Functions that write themselves


def test_a_function_that_writes_to_what_it_depends_on_ends_with_an_error_that_says_so(
    registry: izc.Registry, stored: izc.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "_TOO_OFTEN", 5)
    calls: list[int] = []

    def append_and_double(data: xr.Dataset) -> dict[str, Any]:
        calls.append(1)
        insert([100 + len(calls)], 1)(stored)
        return double(data)

    with pytest.raises(izc.ConflictError) as caught:
        stored.update(append_and_double, inputs=["a"], outputs=["a"], filters="month == 1", scheduler="synchronous")
    assert any("writes to what it depends on" in note for note in caught.value.__notes__)
    assert len(calls) == 5
    assert list(held(stored)) == [10, 20, 101, 102, 103, 104, 105, MONTH]
    assert_clean(registry, stored)


# Those that are not repeatable


@both_engines
def test_a_writer_that_is_not_repeatable_lets_others_pass_and_never_queues(
    registry: izc.Registry, stored: izc.Collection, asking: Asking
) -> None:
    assert in_the_queue(stored, asking, double_all, appends, insert([200], 3, repeatable=False))
    assert held(stored)[200] == 30_200.0
    added = asking.rows_added
    not_repeatable = lambda c: c.update(double, outputs=["a"], repeatable=False)  # noqa: E731 - of one line
    for _ in range(5):
        with pytest.raises(izc.ConflictError):
            lose_into_the_queue(stored, asking, not_repeatable, lambda n: insert([10], n, "upsert"))
    assert asking.rows_added == added
    assert_clean(registry, stored)


# Killed in the queue

_processes = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def _children_start_fast() -> None:
    start_fork_server()


def lose_and_die(url: str, name: str) -> None:
    """Lose until there is a row in the queue, and die with it."""
    registry = izc.connect(url)
    collection = izc.open_collection(registry, name)

    def interfere(number: int) -> None:
        if selected(registry, tables.queue.c.id):
            os.kill(os.getpid(), signal.SIGKILL)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(appends(number), collection).result()

    with before_each_commit_of(threading.get_ident(), lambda number: number < TOO_OFTEN and interfere(number)):
        double_all(collection)


@both_engines
@pytest.mark.usefixtures("_children_start_fast")
def test_a_writer_that_is_killed_in_the_queue_stops_others_until_its_lease_has_run_out(
    registry: izc.Registry, stored: izc.Collection, asking: Asking
) -> None:
    url = registry._url.render_as_string(hide_password=False)
    process = _processes.Process(target=lose_and_die, args=(url, stored.name))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL
    ((lease,),) = selected(registry, tables.queue.c.lease_until)
    ((now,),) = selected(registry, database_clock())
    assert (lease - now).total_seconds() <= 61, "a minute, or it would stop others for long"
    other = Writer(asking, insert([200], 3), stored)
    asking.until_it_waits_or_ends(other)
    assert not other.ended
    with writing(registry._url) as connection:
        connection.execute(sa.update(tables.queue).values(lease_until=now))
    assert other.result().number == stored.version.number
    assert held(stored)[200] == 30_200.0
    assert stored.validate().ok
