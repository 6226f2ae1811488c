"""How fragments end, wholly or but for what is kept of their rows: the statements, built once.

All are executed with the parameters ``of_collection``, ``now``, the version that is being made, and ``of_…`` for the
columns that tell what ends: a partition, a part or a slot.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa

from ..records import IMMUTABLE_LAYER
from . import tables
from .lookup import KEY_NAMES

KEY = tuple(KEY_NAMES)
PART = (*KEY, "axis_min")
SLOT = (*PART, "layer_id")

_NOW = sa.bindparam("now", type_=sa.Integer)


def _at(table: sa.Table, columns: Sequence[str]) -> sa.ColumnElement[bool]:
    here = [table.c[name] == sa.bindparam(f"of_{name}") for name in columns]
    if columns is not SLOT:  # the immutable variables lie beside a partition whose keys are 0
        here.append(table.c.layer_id != IMMUTABLE_LAYER)
    return sa.and_(table.c.collection_id == sa.bindparam("of_collection"), *here)


@cache
def moving(columns: tuple[str, ...]) -> tuple[sa.Insert, sa.Delete]:
    """Return what moves live fragments to the past ones, found by some columns: alive until this version."""
    live, past = tables.fragment, tables.past_fragment
    here = _at(live, columns)
    names = [column.name for column in live.c]
    moved = sa.select(*live.c, _NOW).where(here)
    return sa.insert(past).from_select([*names, "end_version"], moved), sa.delete(live).where(here)


@cache
def keeping() -> sa.Insert:
    """Return what makes some rows of a fragment live that has just been moved: ``new_…`` are the fields of ``Kept``."""
    live, past = tables.fragment, tables.past_fragment
    rows, offset = sa.bindparam("new_rows", type_=sa.BigInteger), sa.bindparam("new_offset", type_=sa.BigInteger)
    changed: dict[str, sa.ColumnElement[Any]] = {
        "axis_min": sa.bindparam("new_axis_min", type_=sa.BigInteger),
        "axis_max": sa.bindparam("new_axis_max", type_=sa.BigInteger),
        "axis_unique": sa.bindparam("new_axis_unique", type_=sa.Boolean),
        "begin_version": _NOW,
        "start": past.c.start + offset,
        "base_row": past.c.base_row + offset,
        "rows": rows,
        "nbytes": sa.cast(1.0 * past.c.nbytes * rows / past.c.rows, sa.BigInteger),
    }
    names = [column.name for column in live.c]
    # By the whole primary key: a part of the same name may have ended at any version before.
    ended = sa.select(*(changed.get(name, past.c[name]) for name in names)).where(
        _at(past, SLOT), past.c.end_version == _NOW
    )
    return sa.insert(live).from_select(names, ended)
