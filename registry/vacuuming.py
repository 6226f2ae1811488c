"""The registry's part of vacuum: who died is fenced, what is left is told, and forgotten when it is gone."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import sqlalchemy as sa
from sqlalchemy.engine import URL

from .records import Claimed, Leftover
from .sql.claims import release_claim
from .sql.engine import reading, retried, writing
from .sql.leftovers import fence_dead, forget, read_dead_claims, read_dead_intents, read_due_garbage


@retried
def fence(url: URL, grace: dt.timedelta) -> int:
    """Fence the transactions whose writers died longer ago than the grace; return how many: none of them can commit."""
    with writing(url) as connection:
        return fence_dead(connection, grace)


def leftovers(url: URL, collection_id: int | None, lapsed: dt.timedelta | None) -> Iterator[list[Leftover]]:
    """Yield what may be deleted, some at a time, in the order in which it became so; see :meth:`Registry.leftovers`."""
    number = 0
    while found := _read(url, partial(read_due_garbage, collection_id=collection_id, after=number)):
        yield found
        number = found[-1].number
    after = 0, ""
    while found := _read(url, partial(read_dead_intents, collection_id=collection_id, after=after, lapsed=lapsed)):
        yield found
        after = found[-1].number, found[-1].uid or ""


def _read(url: URL, read: Callable[[sa.Connection], list[Leftover]]) -> list[Leftover]:
    with reading(url) as connection:  # closed before anything is deleted
        return read(connection)


@retried
def forget_leftovers(url: URL, deleted: Sequence[Leftover], grace: dt.timedelta) -> None:
    """Forget what has been deleted; see :meth:`Registry.forget_leftovers`."""
    with writing(url) as connection:
        forget(connection, deleted, grace)


def dead_claims(url: URL) -> list[Claimed]:
    """Return what killed creators claimed."""
    with reading(url) as connection:
        return read_dead_claims(connection)


@retried
def forget_claim(url: URL, claimed: Claimed) -> None:
    """Forget a claim, if it is still of a transaction that has ended."""
    with writing(url) as connection:
        release_claim(connection, claimed.transaction_uid)
