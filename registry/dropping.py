"""Dropping: in one SQL transaction a collection is forgotten and its data is garbage; objects are deleted after it."""

import datetime as dt

import sqlalchemy as sa
from sqlalchemy.engine import URL

from .changes.commit import CarriedOut, lock_collections
from .errors import InvalidInputError
from .records import MARKER, CollectionRecord, Garbage, Signature
from .sql import tables
from .sql.creating import PathOf, break_views, forget_collection
from .sql.engine import reading, retried, writing
from .sql.views import read_needs
from .transaction import Transaction


class Dropping(Transaction):
    """A transaction that forgets a collection; it begins and ends with its commit, which can be found out like others.

    Parameters
    ----------
    url
        The registry's database.
    collection
        That very one, by whatever name.
    path_of
        Spells the paths of its groups.
    break_views
        Whether views of it may be left without their base.
    signature, lease
        As of others.

    Raises InvalidInputError for the base of views that may not break.
    """

    def __init__(
        self,
        url: URL,
        collection: CollectionRecord,
        path_of: PathOf,
        *,
        break_views: bool,
        signature: Signature,
        lease: dt.timedelta,
    ) -> None:
        super().__init__(url, signature=signature.saying(f"drop {collection.name}"), lease=lease)
        self._collection = collection
        self._path_of = path_of
        self._break_views = break_views

    def _carry_out(self, connection: sa.Connection, commits: object) -> CarriedOut:
        lock_collections(connection, [self._collection])
        if needs := read_needs(connection, self._collection.id):
            if not self._break_views:
                names = ", ".join(dict.fromkeys(view for view, _ in needs))
                raise InvalidInputError(
                    f"collection {self._collection.name} is the base of views: {names}; drop them first, or say "
                    "views='break', and they show nothing any more"
                )
            break_views(connection, self._collection.id)
        forget_collection(connection, self._collection, self._path_of)
        return (), []


def read_garbage(url: URL, collection: CollectionRecord) -> Garbage:
    """Return what there is to delete of a collection that was dropped, the marker aside.

    What its writers were about to write is among the paths, since none of them can commit any more. But their rows stay
    until they are known to have ended.
    """
    garbage, staged = tables.garbage, tables.staged
    with reading(url) as connection:
        mine = sa.select(garbage.c.id, garbage.c.path).where(garbage.c.collection_id == collection.id)
        rows = connection.execute(mine).all()
        intents = connection.scalars(sa.select(staged.c.path).where(staged.c.collection_id == collection.id)).all()
    paths = dict.fromkeys((*(row.path for row in rows if row.path != MARKER), *intents))
    return Garbage(tuple(paths), tuple(row.id for row in rows))


@retried
def forget_garbage(url: URL, garbage: Garbage) -> None:
    """Forget what has been deleted."""
    if not garbage.ids:  # a new collection has the marker's place, and there was nothing else
        return
    with writing(url) as connection:
        gone = sa.delete(tables.garbage).where(tables.garbage.c.id == sa.bindparam("of_id"))
        connection.execute(gone, [{"of_id": id_} for id_ in garbage.ids])
