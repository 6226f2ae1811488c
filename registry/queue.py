"""The queue of writers: who has lost too often names what it writes, and others let it pass before they stage.

Without it, work of minutes would never get past a stream of short appends: each commits while it is done.
The oldest transaction of a queue waits for nobody, so no two wait for each other.
"""

import datetime as dt
from collections.abc import Iterable
from functools import cache
from typing import Any

import sqlalchemy as sa

from .records import Place
from .sql import tables
from .sql.functions import database_clock
from .sql.lookup import KEY_NAMES, key_row
from .sql.writes import Write

LEASE = dt.timedelta(minutes=1)
"""How long others wait for a writer of which nothing is heard any more."""


def join(connection: sa.Connection, collection_id: int, transaction_id: int, places: Iterable[Place]) -> None:
    """Take a turn at some places, for as long as the transaction is open and its lease is renewed."""
    now = connection.execute(sa.select(database_clock())).scalar_one()
    mine = {"collection_id": collection_id, "transaction_id": transaction_id, "lease_until": now + LEASE}
    connection.execute(sa.insert(tables.queue), [mine | _columns(place) for place in places])


def read_queue(connection: sa.Connection, collection_id: int, before: int | None) -> tuple[Place, ...]:
    """Return the places that others have a turn at: all, or those of transactions that are older than one."""
    rows = connection.execute(_queue_query(), {"of_collection": collection_id}).all()
    return tuple(
        Place(None if key[0] is None else tuple(key), low, high)
        for id_, lease_until, now, low, high, *key in rows
        if lease_until > now and (before is None or id_ < before)
    )


@cache
def _queue_query() -> sa.Select[*tuple[Any, ...]]:
    queue, transaction = tables.queue.c, tables.transaction.c
    columns = transaction.id, queue.lease_until, database_clock(), queue.axis_min, queue.axis_max
    return (
        sa.select(*columns, *(queue[name] for name in KEY_NAMES))
        .join_from(tables.queue, tables.transaction, transaction.id == queue.transaction_id)
        .where(queue.collection_id == sa.bindparam("of_collection"), transaction.state == "open")
        .order_by(queue.id)
    )


def renew(connection: sa.Connection, transaction_id: int) -> bool:
    """Have others wait on; return whether there is anything to wait for."""
    now = connection.execute(sa.select(database_clock())).scalar_one()
    mine = tables.queue.c.transaction_id == transaction_id
    return connection.execute(sa.update(tables.queue).where(mine).values(lease_until=now + LEASE)).rowcount > 0


def leaving(transaction_id: int) -> Write:
    """Return what lets others pass."""
    return _leaving(), {"of_id": transaction_id}


@cache
def _leaving() -> sa.Delete:
    return sa.delete(tables.queue).where(tables.queue.c.transaction_id == sa.bindparam("of_id"))


def _columns(place: Place) -> dict[str, int | None]:
    key = dict.fromkeys(KEY_NAMES) if place.key is None else key_row(place.key)
    return {**key, "axis_min": place.low, "axis_max": place.high}
