"""What nobody needs any more, as rows have it: garbage that is due, and intents of those who died; and fencing them.

A worker of a dead writer may still be at work. So what an intent names is deleted twice, one grace apart, and only then
its row; and who has seen a row as it was changes no other one, for several may be at it.
"""

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from ..records import Claimed, Leftover
from . import tables
from .lookup import given, numbers_in, numbers_parameter
from .retention import read_clock

AT_A_TIME = 1000
"""So many rows are read, and forgotten, at a time."""


def fence_dead(connection: sa.Connection, grace: dt.timedelta) -> int:
    """Expire the open transactions whose lease ran out longer ago than the grace, with their pins; return how many.

    Who is at work in one, and has its row locked, lives.
    """
    row = tables.transaction.c
    before = read_clock(connection) - grace
    dead = sa.select(row.id).where(row.state == "open", row.lease_until < before).order_by(row.id)
    found = [*connection.scalars(dead.with_for_update(skip_locked=True))]
    wanted = given("of_numbers")
    numbers, parameters = sa.select(numbers_in(wanted, 1)[0]), numbers_parameter(found)
    connection.execute(sa.update(tables.transaction).where(row.id.in_(numbers)).values(state="expired"), parameters)
    for table in (tables.pin, tables.queue):
        connection.execute(sa.delete(table).where(table.c.transaction_id.in_(numbers)), parameters)
    lapsed = tables.pin.c.transaction_id.is_(None), tables.pin.c.lease_until < before
    connection.execute(sa.delete(tables.pin).where(*lapsed))
    return len(found)


def read_due_garbage(connection: sa.Connection, collection_id: int | None, after: int) -> list[Leftover]:
    """Return garbage that may be deleted, after a row: of a collection, or of all."""
    row, now = tables.garbage.c, read_clock(connection)
    columns = row.collection_id, row.location, row.options, row.path, row.nbytes, sa.null(), row.id
    due = sa.select(*columns).where(row.not_before <= now, row.id > after)
    due = due if collection_id is None else due.where(row.collection_id == collection_id)
    return [Leftover(*each) for each in connection.execute(due.order_by(row.id).limit(AT_A_TIME))]


def read_dead_intents(
    connection: sa.Connection, collection_id: int | None, after: tuple[int, str], lapsed: dt.timedelta | None
) -> list[Leftover]:
    """Return intents whose attempts may be deleted, after one, by their transactions: of a collection, or of all.

    Those of transactions that were aborted or fenced, and lost attempts of committed ones; with ``lapsed``, those that
    would be fenced by this grace too, for who only asks.
    """
    staged, row, now = tables.staged.c, tables.transaction.c, read_clock(connection)
    ended = row.state.in_(("aborted", "expired")) | ((row.state == "committed") & staged.keep.is_not(None))
    if lapsed is not None:
        ended |= (row.state == "open") & (row.lease_until < now - lapsed)
    columns: Sequence[sa.ColumnElement[Any]] = (
        *(staged.collection_id, staged.location, staged.options, staged.path, sa.null(), staged.keep),
        *(staged.transaction_id, staged.uid, staged.again_at),
    )
    joined = sa.join(tables.staged, tables.transaction, row.id == staged.transaction_id)
    following = sa.or_(staged.transaction_id > after[0], (staged.transaction_id == after[0]) & (staged.uid > after[1]))
    due = sa.select(*columns).select_from(joined).where(ended, following)
    due = due.where(staged.again_at.is_(None) | (staged.again_at <= now))
    due = due if collection_id is None else due.where(staged.collection_id == collection_id)
    rows = connection.execute(due.order_by(staged.transaction_id, staged.uid).limit(AT_A_TIME))
    return [Leftover(*each) for each in rows]


def forget(connection: sa.Connection, deleted: Iterable[Leftover], grace: dt.timedelta) -> None:
    """Forget what has been deleted; an intent's attempts after the first time are to be deleted once more."""
    deleted, again_at = tuple(deleted), read_clock(connection) + grace
    garbage, staged = tables.garbage, tables.staged
    number: sa.BindParameter[int] = sa.bindparam("of_number")
    uid: sa.BindParameter[str] = sa.bindparam("of_uid")
    mine = staged.c.transaction_id == number, staged.c.uid == uid
    first = sa.update(staged).where(*mine, staged.c.again_at.is_(None)).values(again_at=again_at)
    second = sa.delete(staged).where(*mine, staged.c.again_at == sa.bindparam("seen", type_=staged.c.again_at.type))
    of_intents = [each for each in deleted if each.uid is not None]
    for statement, rows in (
        (
            sa.delete(garbage).where(garbage.c.id == number),
            [{"of_number": each.number} for each in deleted if each.uid is None],
        ),
        (first, [_intent(each) for each in of_intents if each.again_at is None]),
        (second, [_intent(each) | {"seen": each.again_at} for each in of_intents if each.again_at is not None]),
    ):
        if rows:
            connection.execute(statement, rows)


def _intent(each: Leftover) -> dict[str, Any]:
    return {"of_number": each.number, "of_uid": each.uid}


def read_dead_claims(connection: sa.Connection) -> list[Claimed]:
    """Return the locations that are claimed by transactions that have ended."""
    claim, row = tables.claim, tables.transaction
    joined = sa.join(claim, row, row.c.id == claim.c.transaction_id)
    columns = claim.c.location, claim.c.options, row.c.uid
    ended = sa.select(*columns).select_from(joined).where(row.c.state != "open").order_by(claim.c.id)
    return [Claimed._make(each) for each in connection.execute(ended)]


def read_due_totals(connection: sa.Connection, collection_id: int) -> tuple[int, int]:
    """Return how much garbage of a collection may be deleted: the number of groups, and the bytes that are known."""
    row, now = tables.garbage.c, read_clock(connection)
    due = sa.select(sa.func.count(), sa.func.sum(row.nbytes)).where(
        row.collection_id == collection_id, row.not_before <= now
    )
    count, nbytes = connection.execute(due).one()
    return int(count), int(nbytes or 0)


def read_dead_nbytes(connection: sa.Connection, collection_id: int) -> int:
    """Return how many bytes of the groups of the newest version are of rows that it does not have."""
    row = tables.fragment.c
    rows = sa.func.sum(row.rows)
    groups = (
        sa.select((1.0 * sa.func.sum(row.nbytes) * (sa.func.max(row.group_rows) - rows) / rows).label("dead"))
        .where(row.collection_id == collection_id, row.layer_id >= 0, row.rows > 0)
        .group_by(row.group_uid)
        .subquery()
    )
    return int(connection.scalar(sa.select(sa.func.sum(groups.c.dead))) or 0)
