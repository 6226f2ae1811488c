"""What expires, what it leaves that no version has any more, and what stays: statements on whole sets of rows.

Versions expire, and groups are given up, by their *uid*: a group may have rows in many versions, whatever cuts and
restores did with it. A row of ``past_fragment`` is in the versions from its begin to its end, so it is gone where all
of these are: inside a *gap*, between two versions that are kept.
"""

import datetime as dt
import json
from collections.abc import Generator, Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import sqlalchemy as sa

from ..errors import ConflictError
from ..records import ROWS_LAYER, CollectionRecord, Slot
from . import queries, tables
from .functions import database_clock
from .lookup import KEY_NAMES, AnySelect, Lookup, given, key_columns, numbers_in, numbers_parameter, text_in

_AT_A_TIME = 10_000
"""So many groups are in memory."""

Gap = tuple[int, int]
"""Versions that are gone: those after the first number, and before the second, which are kept."""


class DeadGroup(NamedTuple):
    """A group that no version has any more."""

    slot: Slot
    """Where it was, or one such place."""
    uid: str
    path: str | None
    """Only where the storage layout cannot spell it."""
    nbytes: int
    """All that it holds, as far as that is known of its rows."""


def lock_for_expiry(connection: sa.Connection, collection: CollectionRecord) -> int:
    """Lock a collection against writers and new pins, and return its head; raises ConflictError if it was dropped."""
    row = tables.collection.c
    mine = sa.select(row.uid, row.head_version).where(row.id == collection.id).with_for_update()
    found = connection.execute(mine).one_or_none()
    if found is None or found.uid != collection.uid:
        raise ConflictError(f"collection {collection.name} was dropped just now")
    return int(found.head_version)


def read_clock(connection: sa.Connection) -> dt.datetime:
    """Return the database's time."""
    now: dt.datetime = connection.execute(sa.select(database_clock())).scalar_one()
    return now


def read_versions_left(connection: sa.Connection, collection_id: int) -> list[tuple[int, dt.datetime]]:
    """Return the versions that have not expired, oldest first, and when each was committed."""
    row = tables.version.c
    left = sa.select(row.version, row.committed_at).where(row.collection_id == collection_id, row.expired_at.is_(None))
    return [(number, at) for number, at in connection.execute(left.order_by(row.version))]


def read_held(connection: sa.Connection, collection_id: int, *, locking: bool) -> set[int]:
    """Return the versions that pins, tags and pinned views hold: of this collection, or of views of it.

    With ``locking``, who is about to renew a pin is waited for, and waits.
    """
    pin, member = tables.pin.c, tables.tag_member.c
    pins = sa.select(pin.version, pin.lease_until).where(pin.collection_id == collection_id)
    found = connection.execute(pins.with_for_update(read=True) if locking else pins).all()
    now = read_clock(connection)  # after the locks
    held = {row.version for row in found if row.lease_until > now}
    held |= {*connection.scalars(sa.select(member.version).where(member.collection_id == collection_id))}
    for view_id in _views_of(connection, collection_id):
        state = tables.view_state.c
        current = sa.select(state.pinned_version).where(state.collection_id == view_id, state.end_version.is_(None))
        held |= {*connection.scalars(current.where(state.pinned_version.is_not(None)))}
        for version in read_held(connection, view_id, locking=locking):
            held.add(queries.read_base_version(connection, view_id, version))
    return held


def _views_of(connection: sa.Connection, collection_id: int) -> list[int]:
    row = tables.collection.c
    return [*connection.scalars(sa.select(row.id).where(row.base_id == collection_id).order_by(row.id))]


def gaps_between(kept: Iterable[int]) -> list[Gap]:
    """Return where versions are gone, by those that are kept, in their order.

    >>> gaps_between([3, 4, 9])
    [(-1, 3), (4, 9)]
    """
    return [(low, high) for low, high in pairwise([-1, *kept]) if high - low > 1]


def _gaps_parameter(gaps: Iterable[Gap]) -> dict[str, str]:
    return {"of_gaps": json.dumps(list(gaps))}


@cache
def dead_groups_query() -> AnySelect:
    """Select the groups of which all rows are in gaps, ``of_gaps``, by ``of_collection``, and how many bytes they have.

    A row is in one gap at most: so of a group that is gone, as many are found in gaps as there are.
    """
    past, live = tables.past_fragment, tables.fragment
    wanted = given("of_gaps")
    low, high = numbers_in(wanted, 2)
    mine = past.c.collection_id == sa.bindparam("of_collection")
    inside = past.c.end_version > low, past.c.end_version <= high, past.c.begin_version + 0 > low
    nbytes = sa.case((past.c.rows > 0, 1.0 * past.c.nbytes * past.c.group_rows / past.c.rows), else_=past.c.nbytes)
    found = (
        sa.select(
            *(sa.func.min(column).label(column.name) for column in (*key_columns(past), past.c.layer_id)),
            past.c.group_uid,
            sa.func.max(past.c.path).label("path"),
            sa.func.max(nbytes).label("nbytes"),
            sa.func.count().label("gone"),
        )
        .select_from(Lookup(wanted, past, sa.and_(mine, *inside)))
        .group_by(past.c.group_uid)
        .subquery()
    )
    every = past.alias("every")
    here: sa.BindParameter[int] = sa.bindparam("of_collection")
    rows = sa.select(sa.func.count()).where(every.c.collection_id == here, every.c.group_uid == found.c.group_uid)
    alive = sa.select(live.c.group_uid).where(live.c.collection_id == here, live.c.group_uid == found.c.group_uid)
    fields = *(found.c[name] for name in (*KEY_NAMES, "layer_id")), found.c.group_uid, found.c.path, found.c.nbytes
    return sa.select(*fields).where(found.c.gone == rows.scalar_subquery(), ~alive.exists())


def read_dead_groups(connection: sa.Connection, collection_id: int, gaps: Sequence[Gap]) -> Generator[list[DeadGroup]]:
    """Yield the groups that no version has which is outside of the gaps, some thousands at a time.

    To be closed by who does not take all: in Postgres they come by a cursor of the server.
    """
    wanted = {"of_collection": collection_id, **_gaps_parameter(gaps)}
    with connection.execute(dead_groups_query(), wanted, execution_options={"yield_per": _AT_A_TIME}) as rows:
        for some in rows.partitions():
            yield [
                DeadGroup(Slot(tuple(key), 0, layer), uid, path, int(nbytes or 0))
                for *key, layer, uid, path, nbytes in some
            ]


def forget_uids(connection: sa.Connection, collection_id: int, uids: Sequence[str]) -> None:
    """Forget the statistics and the entries of groups, and of fragments of indexes."""
    wanted = given("of_uids")
    named = sa.select(text_in(wanted, 0))
    for table in (tables.statistic, tables.index_entry):
        gone = sa.delete(table).where(table.c.collection_id == collection_id, table.c.uid.in_(named))
        connection.execute(gone, {"of_uids": json.dumps([[uid] for uid in uids])})


def delete_past(connection: sa.Connection, collection_id: int, gaps: Sequence[Gap]) -> None:
    """Delete the rows of what was live in gaps alone."""
    past = tables.past_fragment
    low, high = (sa.bindparam(name, type_=sa.Integer) for name in ("low", "high"))
    inside = past.c.end_version > low, past.c.end_version <= high, past.c.begin_version + 0 > low
    gone = sa.delete(past).where(past.c.collection_id == collection_id, *inside)
    connection.execute(gone, [{"low": low, "high": high} for low, high in gaps])


def delete_hunks(connection: sa.Connection, collection_id: int, floor: int) -> None:
    """Delete the hunks up to a version, but for the last ones of each partition: they say when that was changed."""
    change, later = tables.change, tables.change.alias("later")
    same = [
        later.c.collection_id == change.c.collection_id,
        *(one == other for one, other in zip(key_columns(later), key_columns(change), strict=True)),
        # The immutable variables lie beside a partition whose keys are 0.
        (later.c.layer_id >= ROWS_LAYER) == (change.c.layer_id >= ROWS_LAYER),
        later.c.version > change.c.version,
        later.c.version <= floor,
    ]
    mine = change.c.collection_id == collection_id, change.c.version <= floor
    connection.execute(sa.delete(change).where(*mine, sa.select(later.c.version).where(*same).exists()))


def expire_versions(connection: sa.Connection, collection_id: int, numbers: Iterable[int], now: dt.datetime) -> None:
    """Mark versions as expired."""
    row, wanted = tables.version.c, given("of_numbers")
    mine = row.collection_id == collection_id, row.version.in_(sa.select(numbers_in(wanted, 1)[0]))
    connection.execute(sa.update(tables.version).where(*mine).values(expired_at=now), numbers_parameter(numbers))


def read_view_floor(connection: sa.Connection, collection_id: int) -> int | None:
    """Return the oldest version that own values of views lie over or were computed at; None if there are none.

    What was done since is how it is known where they lie, and what of them is stale.
    """
    floors: list[int] = []
    for view_id in _views_of(connection, collection_id):
        floors += _own_floors(connection, view_id)
        above = read_view_floor(connection, view_id)
        if above is not None:
            floors.append(queries.read_base_version(connection, view_id, above))
    return min(floors, default=None)


def _own_floors(connection: sa.Connection, view_id: int) -> list[int]:
    """Return the versions of its base that own values of a view lie over, the oldest, or were computed at."""
    lies: list[int] = []
    written: set[int] = set()
    for table in (tables.fragment, tables.past_fragment):
        mine = table.c.collection_id == view_id, table.c.base_version.is_not(None)
        oldest = connection.scalar(sa.select(sa.func.min(table.c.base_version)).where(*mine))
        lies += [] if oldest is None else [oldest]
        written |= {*connection.scalars(sa.select(table.c.written_version).distinct().where(*mine))}
    row, wanted = tables.version.c, given("of_numbers")
    some = row.collection_id == view_id, row.version.in_(sa.select(numbers_in(wanted, 1)[0]))
    read = connection.scalars(sa.select(row.reads).where(*some), numbers_parameter(written))
    return [*lies, *(each["base_version"] for each in read if each is not None)]
