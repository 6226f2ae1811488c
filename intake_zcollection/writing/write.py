"""The one life of a write: intents first, then data, then one commit; or nothing.

Who was overtaken plans again what is in conflict, on the new head, and keeps what it has put down of the rest:
optimistic concurrency control (Kung and Robinson, 1981), at the grain of partitions, ranges of their axis, and layers.
Who was overtaken too often has the others wait.
"""

import logging
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from registry import COMMITTED_AFTER_ALL, CollectionRecord, Creation, KeyValues, Place, Signature, Transaction, Version
from registry.changes import VariablesAlive

from .. import execution
from ..errors import (
    ConflictError,
    CorruptedDataError,
    InvalidInputError,
    NotFoundError,
    TransactionClosedError,
    VersionExpiredError,
    ZCollectionError,
)
from ..execution import Execution
from ..handle import Handle
from ..reading.selection import NO_PARTITIONS, Selected, Selection
from ..schema import Schema
from ..storage.location import Location
from ..storage.write import remove_attempts
from .derived import indexers_of
from .group import is_in_a_job, put_down, this_machine
from .marking import ensure_marker
from .plan import Again, Finding, Job, Plan, Planner, Result, Step

logger = logging.getLogger(__name__)

Ask = Callable[[Again | None], Plan | None]
"""A planner, asked about the head as it is now."""

_LOSSES = 3
"""So often a writer is overtaken before it has the others wait."""

_TOO_OFTEN = 100
"""So often a writer is overtaken before it gives up: others wait for it, so it is in its own way."""

_PATIENCE = 15 * 60
"""So many seconds a writer waits for others before it tries its luck."""


def write(
    handle: Handle,
    planner: Planner,
    how: Execution,
    *,
    signature: Signature,
    selection: Selection = NO_PARTITIONS,
    repeatable: bool = True,
) -> Version:
    """Do what a verb plans on the head; return the version that it makes, the newest if there is nothing to do.

    Parameters
    ----------
    handle
        The collection that is written.
    planner
        The verb: it is shown the head, and what it reads besides it reads at the head's version.
    how
        Where its jobs are run.
    signature
        Recorded with the version.
    selection
        Which partitions of the head the verb is shown.
    repeatable
        Whether the verb is asked again where another writer was faster.

    Raises
    ------
    ConflictError
        Another writer was faster, and the work cannot be repeated, or shall not, or was repeated too often; nothing was
        written.
    Exception
        What the planner or a job raises; what had been written is deleted then.
    """
    check_reach(handle.location, how)

    def ask(again: Again | None) -> Plan | None:
        head = handle.select(selection)
        if again is not None:
            _check_alive(again, head)
        try:
            return planner(head, again)
        except VersionExpiredError:
            if handle.select(selection).read == head.read:
                raise  # it is another one that is read
            return ask(again)  # others wrote, and the head that was has expired since

    plan = _in_turn(partial(ask, None), partial(handle.registry.queue, handle.record))
    if plan is None:
        return handle.newest()
    first, results, losses = plan.head, dict[Step, Result](), 0
    intents = [(first.collection, *intent) for intent in _intents(plan, results)]
    with (
        handle.registry.begin(*first.read, intents=intents, signature=signature) as transaction,
        undoing(transaction, handle.location) as staged,
    ):
        transaction.is_tried_again = how.tries_again
        ensure_marker(handle)  # not before: who may not write the registry changes nothing in the storage
        while plan is not None:
            staged += [path for _, path in _intents(plan, results)]
            with knowing_whether_dropped(handle):
                results |= _put_down(plan, results, handle.location, how)
            try:
                made = transaction.commit([plan.commit(results, losses)])
                _tell_garbage(handle)
                return made[0] if made else handle.newest()
            except ConflictError as conflict:
                if not (repeatable and _may_repeat(conflict)):
                    raise
                losses += 1
                again = _again(plan, conflict, first.schema, losses)
            plan = _plan_again(transaction, ask, again, plan, losses)
            if plan is not None:
                for collection, number in plan.head.read:
                    transaction.pin(collection, number)
                transaction.stage(first.collection, _intents(plan, results))
    return handle.newest()


def _tell_garbage(handle: Handle) -> None:
    """Log how much there is to vacuum, where somebody listens; what cannot be asked is not told."""
    if not logger.isEnabledFor(logging.INFO):
        return
    try:
        groups, nbytes = handle.registry.due_garbage(handle.record)
    except ZCollectionError as error:
        logger.info("how much of %s is due to be vacuumed is not known: %s", handle.record.name, error)
        return
    if groups:
        logger.info("%s: %d groups, %d bytes, are due to be vacuumed", handle.record.name, groups, nbytes)


def _again(plan: Plan, conflict: ConflictError, before: Schema, losses: int) -> Again:
    """Return what a planner is asked again, after some losses; raises the conflict where that has no end."""
    if losses >= _TOO_OFTEN:
        conflict.add_note(
            f"it was done {losses} times, and overtaken each time, though others let it pass: see that no function "
            "that it calls writes to what it depends on"
        )
        raise conflict
    overtaken = str(conflict).partition(";")[0]  # what to do next is for those who are told by an error
    logger.info("%s is planned again, as it was overtaken: %s", plan.title, overtaken)
    return Again(before, plan.in_conflict(conflict), plan.keys, plan.requirements)


def _plan_again(transaction: Transaction, ask: Ask, again: Again, plan: Plan, losses: int) -> Plan | None:
    """Return what is planned on the new head, after a pause; who has lost often has the others wait meanwhile."""
    collection = plan.head.collection
    if losses >= _LOSSES:
        transaction.queue(collection, plan.places_of(again))
    time.sleep(random.uniform(0, min(0.005 * 2**losses, 0.1)))
    return _in_turn(partial(_join, ask, again, plan), partial(transaction.others, collection))


def write_first(creation: Creation, plan: Plan, location: Location, how: Execution) -> CollectionRecord:
    """Do a plan in a collection that is being created, and record that with what was written; return its record.

    Nobody else writes there before, so there is nothing to conflict with. If it raises, what was written is deleted;
    the claim on the location is the caller's.
    """
    intents = _intents(plan, {})
    creation.is_tried_again = how.tries_again
    with undoing(creation, location) as staged:
        creation.stage(creation.collection, intents)
        staged += [path for _, path in intents]
        return creation.record(plan.commit(_put_down(plan, {}, location, how), 0))


def _intents(plan: Plan, results: Mapping[Step, Result]) -> list[tuple[str, str]]:
    """Return uid and path, or what they begin with, of each group that is to be written yet."""
    targets = (job.target for _, job in _to_do(plan, results) if isinstance(job, Job))
    return [(target.uid, target.path) for target in targets]


def _to_do(plan: Plan, results: Mapping[Step, Result]) -> list[tuple[Step, Job | Finding]]:
    return [(step, step.job) for step in plan.all_steps if step.job is not None and step not in results]


def _put_down(plan: Plan, results: Mapping[Step, Result], location: Location, how: Execution) -> dict[Step, Result]:
    """Run the jobs whose results are not there; return theirs, once they survive a power cut."""
    steps = _to_do(plan, results)
    jobs = [(job, step.arrays) for step, job in steps]
    indexers = indexers_of(plan.head.collection, plan.head.snapshot.indexes)
    made = execution.run(partial(put_down, this_machine(), indexers), jobs, how, what=plan.title)
    location.store.sync()
    logger.debug("%s: %d groups are put down", plan.title, len(made))
    return {step: result for (step, _), result in zip(steps, made, strict=True)}


@contextmanager
def knowing_whether_dropped(handle: Handle) -> Iterator[None]:
    """Have data that is missing told from a collection that was dropped, and its data with it: ConflictError."""
    try:
        yield
    except CorruptedDataError as error:
        name = handle.record.name
        try:
            for each in (handle, handle.base) if handle.base else (handle,):
                name = each.record.name
                handle.registry.collection(each.record)
        except NotFoundError:
            raise ConflictError(f"collection {name} was dropped meanwhile, and its data with it") from error
        raise


def _may_repeat(conflict: ConflictError) -> bool:
    """Whether the same work can be done again: its collection, its variables and its transaction are there still."""
    fenced = isinstance(conflict, TransactionClosedError)
    return bool(conflict.conflicts) and not fenced and not any(each.final for each in conflict.conflicts)


def _check_alive(again: Again, head: Selected) -> None:
    """Raise ConflictError if variables that a write has are gone: its verb would only say that there are none such."""
    for need in again.needs:
        if isinstance(need, VariablesAlive) and (found := need.conflict(head.snapshot.schema)) is not None:
            raise ConflictError(
                f"collection {head.collection.name}: another writer {found.what} while that was being written; nothing "
                "was committed",
                conflicts=(found,),
            )


def _join(ask: Ask, again: Again, plan: Plan) -> Plan | None:
    """Return a plan with those partitions planned again that were in conflict; None if nothing is left to do."""
    new = ask(again)
    return new if again.keys is None else plan.joined(new, again.keys)


def _in_turn(ask: Callable[[], Plan | None], others: Callable[[], Collection[Place]]) -> Plan | None:
    """Return what is planned at a time when nobody who was overtaken too often is at the same places."""
    if is_in_a_job():  # of a writer that others may wait for: it would wait for this one
        return ask()
    until, pause = time.monotonic() + _PATIENCE, 0.01
    while (plan := ask()) is not None and _meets(plan, others()):
        logger.info("%s waits for others, who were overtaken too often", plan.title)
        while _meets(plan, others()):
            if time.monotonic() > until:
                logger.warning("%s has waited for %d minutes, and tries its luck", plan.title, _PATIENCE // 60)
                return plan
            time.sleep(random.uniform(pause / 2, pause))
            pause = min(1.5 * pause, 1)
    return plan


def _meets(plan: Plan, others: Collection[Place]) -> bool:
    at: dict[KeyValues | None, list[Place]] = {}
    for other in others:
        at.setdefault(other.key, []).append(other)
    return bool(at) and any(
        mine.meets(other)
        for mine in plan.places
        for other in (*at.get(None, ()), *(others if mine.key is None else at.get(mine.key, ())))
    )


def check_reach(location: Location, how: Execution) -> None:
    """Raise InvalidInputError if workers would write where nobody else can read."""
    if not location.store.shared and not how.in_this_process:
        raise InvalidInputError(
            f"the location {location.url} is in this process's memory, and the work would be done by other processes: "
            "run it with scheduler='threads', or keep the collection elsewhere"
        )


@contextmanager
def undoing(transaction: Transaction, location: Location) -> Iterator[list[str]]:
    """Undo what the block does, unless it commits; it adds the paths that it stages to the list that it gets.

    The transaction is fenced first, and what it staged deleted then: were it the other way round, a commit still in
    flight could make fragments visible whose data is gone.
    """
    paths: list[str] = []
    try:
        yield paths
    except BaseException as error:
        try:
            if transaction.abort():
                remove_attempts(location, paths)
            else:
                error.add_note(COMMITTED_AFTER_ALL)
        except ZCollectionError as failure:
            # The first error is the one to report. What is left behind is recorded as intents, and invisible.
            logger.error("transaction %s: what it staged in %s is left there", transaction.uid, location.url)  # noqa: TRY400 - the note has the reason
            error.add_note(f"what was staged in {location.url} could not be deleted: {failure}")
        raise
    if transaction.is_open:  # there was nothing left to do
        transaction.abort()
        remove_attempts(location, paths)
