"""The frame around every write: intents first, then data, then one commit; or nothing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from registry import COMMITTED_AFTER_ALL, CollectionRecord, Registry, Slot, Transaction

from ..errors import InvalidInputError, ZCollectionError
from ..execution import Execution
from ..storage.location import Location, is_in_memory, remove


@dataclass(frozen=True)
class Intent:
    """A fragment about to be written."""

    slot: Slot
    uid: str
    path: str


def check_reach(location: Location, how: Execution) -> None:
    """Raise InvalidInputError if workers would write where nobody else can read."""
    if is_in_memory(location) and not how.in_this_process:
        raise InvalidInputError(
            f"the location {location.url} is in this process's memory, and the work would be done by other processes: "
            "run it with scheduler='threads', or keep the collection elsewhere"
        )


@contextmanager
def staged(
    registry: Registry,
    collection: CollectionRecord,
    location: Location,
    intents: Sequence[Intent],
    *,
    version: int,
    message: str,
) -> Iterator[Transaction]:
    """Open a transaction that reads ``version`` and has recorded its intents; commit it inside the block.

    If the block raises, the transaction is fenced first and what it staged deleted then: were it the other way
    round, a commit still in flight could make fragments visible whose data is gone.
    """
    recorded = [(collection, intent.slot, intent.uid) for intent in intents]
    with registry.begin((collection, version), intents=recorded, message=message) as transaction:
        try:
            yield transaction
        except BaseException as error:
            _undo(transaction, location, intents, error)
            raise


def _undo(transaction: Transaction, location: Location, intents: Sequence[Intent], error: BaseException) -> None:
    try:
        if transaction.abort():
            remove(location, [intent.path for intent in intents])
        else:
            error.add_note(COMMITTED_AFTER_ALL)
    except ZCollectionError as failure:
        # The first error is the one to report. What is left behind is recorded as intents, and invisible.
        error.add_note(f"what was staged in {location.url} could not be deleted: {failure}")
