"""What is known of values: which fragments cannot have any that is asked for, and the rows that say so."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from ..records import ROWS_LAYER, Statistic
from ..selection import ValueRange
from . import tables


def may_meet(fragment: sa.Table, wanted: ValueRange, layers: Iterable[int]) -> sa.ColumnElement[int]:
    """Return whether a fragment may have a value that is asked for, as 1 or 0.

    The layers are those with the variable. What nothing is known of may have any value; what does not hold the variable
    has none, but for rows, which read as its fill value then.
    """
    is_rows, schema = fragment.c.layer_id == ROWS_LAYER, fragment.c.schema_version
    had = (schema >= begin if end is None else sa.and_(schema >= begin, schema < end) for begin, end in wanted.lives)
    holds = sa.or_(sa.and_(is_rows, sa.or_(*had)), fragment.c.layer_id.in_(sorted(layers)))
    return sa.case((holds, _looked_up(fragment, wanted)), (is_rows, int(wanted.fill_meets)), else_=0)


def _looked_up(fragment: sa.Table, wanted: ValueRange) -> sa.ColumnElement[int]:
    """Return what the last statistic says that begins at the fragment's rows or before, if it is of all of them.

    As a value, not as a join: so that the primary key is used, whatever a database believes of the table.
    """
    known = tables.statistic.c
    covers = known.row_stop >= fragment.c.start + fragment.c.rows
    kind: sa.types.TypeEngine[Any] = sa.Double() if wanted.is_float else sa.BigInteger()
    low, high = (known.low_float, known.high_float) if wanted.is_float else (known.low, known.high)
    meets = sa.or_(
        sa.false(),
        *(
            sa.and_(
                low.is_not(None),  # none has a value where all are missing
                *((high >= sa.literal(first, kind),) if first is not None else ()),
                *((low <= sa.literal(last, kind),) if last is not None else ()),
            )
            for first, last in wanted.intervals
        ),
    )
    found = (
        sa.select(sa.case((sa.and_(covers, sa.not_(meets)), 0), else_=1))
        .where(
            known.collection_id == fragment.c.collection_id,
            known.uid == fragment.c.group_uid,
            known.variable_id == wanted.variable_id,
            known.row_start <= fragment.c.start,
        )
        .order_by(known.row_start.desc())
        .limit(1)
        .correlate(fragment)
        .scalar_subquery()
    )
    return sa.func.coalesce(found, 1)


def statistic_row(collection_id: int, statistic: Statistic) -> dict[str, Any]:
    """Return the row of a statistic; floats have columns of their own."""
    row = statistic._asdict() | {"collection_id": collection_id, "low_float": None, "high_float": None}
    if isinstance(statistic.low, float):
        row |= {"low": None, "high": None, "low_float": statistic.low, "high_float": statistic.high}
    return row


def read_statistics(connection: sa.Connection, collection_id: int, variables: Iterable[int]) -> list[Statistic]:
    """Return what is known of variables."""
    table = tables.statistic
    columns = [table.c[name] for name in Statistic._fields]
    query = sa.select(*columns, table.c.low_float, table.c.high_float).where(
        table.c.collection_id == collection_id, table.c.variable_id.in_(sorted(variables))
    )
    found = ((Statistic(*fields), low, high) for *fields, low, high in connection.execute(query))
    return [each if low is None else each._replace(low=low, high=high) for each, low, high in found]
