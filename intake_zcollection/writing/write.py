"""The one life of a write: intents first, then data, then one commit; or nothing."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from registry import COMMITTED_AFTER_ALL, Transaction, Version

from .. import execution
from ..errors import InvalidInputError, ZCollectionError
from ..execution import Execution
from ..handle import Handle
from ..reading.selection import NO_PARTITIONS, Selection
from ..storage.location import Location
from ..storage.write import remove_attempts
from .group import put_down, this_machine
from .plan import Planner

logger = logging.getLogger(__name__)


def write(
    handle: Handle, planner: Planner, how: Execution, *, message: str = "", selection: Selection = NO_PARTITIONS
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
    message
        Recorded with the version.
    selection
        Which partitions of the head the verb is shown.

    Raises
    ------
    ConflictError
        Another writer was faster; nothing was written.
    Exception
        What the planner or a job raises; what had been written is deleted then.
    """
    check_reach(handle.location, how)
    plan = planner(handle.select(selection))
    if plan is None:
        return handle.newest()
    collection, targets = plan.head.collection, [job.target for job, _ in plan.jobs]
    intents = [(collection, target.uid, target.path) for target in targets]
    with (
        handle.registry.begin((collection, plan.head.version), intents=intents, message=message) as transaction,
        _undoing(transaction, handle.location, [target.path for target in targets]),
    ):
        results = execution.run(partial(put_down, this_machine()), plan.jobs, how, what=plan.title)
        handle.location.store.sync()
        logger.debug("%s: %d groups written in transaction %s", plan.title, len(results), transaction.uid)
        (version,) = transaction.commit([plan.commit(results)])
    return version


def check_reach(location: Location, how: Execution) -> None:
    """Raise InvalidInputError if workers would write where nobody else can read."""
    if not location.store.shared and not how.in_this_process:
        raise InvalidInputError(
            f"the location {location.url} is in this process's memory, and the work would be done by other processes: "
            "run it with scheduler='threads', or keep the collection elsewhere"
        )


@contextmanager
def _undoing(transaction: Transaction, location: Location, paths: Sequence[str]) -> Iterator[None]:
    """Undo what the block does if it raises.

    The transaction is fenced first, and what it staged deleted then: were it the other way round, a commit still in
    flight could make fragments visible whose data is gone.
    """
    try:
        yield
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
