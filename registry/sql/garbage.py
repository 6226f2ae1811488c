"""Putting groups among the garbage: all that vacuum is told of them."""

import datetime as dt
import json
from collections.abc import Iterable
from functools import cache

import sqlalchemy as sa

from ..records import CollectionRecord
from . import tables
from .lookup import given, text_in


@cache
def _putting() -> sa.Insert:
    wanted, garbage = given("of_groups"), tables.garbage
    same = garbage.c.collection_id, garbage.c.location, garbage.c.options, garbage.c.not_before
    path, nbytes = text_in(wanted, 0), sa.cast(text_in(wanted, 1), sa.BigInteger)
    rows = sa.select(*(sa.bindparam(f"of_{each.name}", type_=each.type) for each in same), path, nbytes)
    return sa.insert(garbage).from_select([*(each.name for each in same), "path", "nbytes"], rows)


def put_garbage(
    connection: sa.Connection,
    collection: CollectionRecord,
    groups: Iterable[tuple[str, int | None]],
    not_before: dt.datetime,
) -> None:
    """Leave groups to vacuum, by their paths, and by their bytes where these are known: all as one parameter."""
    same = {
        "of_collection_id": collection.id,
        "of_location": collection.location,
        "of_options": collection.storage_options,
        "of_not_before": not_before,
    }
    connection.execute(_putting(), same | {"of_groups": json.dumps([*groups])})
