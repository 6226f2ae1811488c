"""What a view is over: a collection, or another view, at one of its versions; the same is asked of both.

A view's version is over one version of its base, and so its rows are those of a collection in the end. What a version
of a view did to these is what its base did since the version before, and then what it has written itself.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

import sqlalchemy as sa

from ..difference import follow
from ..errors import NotFoundError
from ..keys import KeyValues
from ..overlay import OWN_IDS, Definition, hunks_after
from ..partitions import FragmentColumns
from ..predicate import And, Predicate, parse_predicate
from ..records import CollectionRecord, FragmentRecord, Hunk, SchemaRecord, Totals
from ..selection import Selection
from . import queries, tables
from .fragments import read_columns, read_immutable, read_totals
from .hunks import read_hunks, read_hunks_of, read_last_immutables
from .lookup import AnySelect

Hunks = list[tuple[int, list[Hunk]]]
"""What was done to a partition, in its order, by the versions; several entries of one are one after the other."""


@dataclass(frozen=True)
class ViewState:
    """What a view takes of its base, at one of its versions."""

    base: CollectionRecord
    base_version: int
    """The version of the base that it is over."""
    pinned_version: int | None
    filters: str | None
    own_ids: int
    """From here on its own variables and layers are numbered: those of what it is over are below."""

    def chosen(self, selection: Selection) -> Selection:
        """Return what a selection chooses of what the view takes."""
        if self.filters is None:
            return selection
        taken = parse_predicate(self.filters, self.base.keys)
        if selection.predicate is None:
            return replace(selection, predicate=taken)
        both = And((taken.condition, selection.predicate.condition))
        return replace(selection, predicate=Predicate(f"({taken.text}) and ({selection.predicate.text})", both))


def read_state(connection: sa.Connection, view: CollectionRecord, version: int, *, head: bool) -> ViewState:
    """Return what a view takes at a version: of that of the base then, or, for the head, of the base now."""
    base = read_base(connection, view)
    row = connection.execute(_at(tables.view_state), {"of_view": view.id, "at_version": version}).one()
    if row.pinned_version is not None:
        number = row.pinned_version
    elif head:
        number = base.head_version
    else:
        number = queries.read_base_version(connection, view.id, version)
    number = queries.check_version(connection, base, number)
    return ViewState(base, number, row.pinned_version, row.filters, OWN_IDS * _depth(connection, view))


def _depth(connection: sa.Connection, collection: CollectionRecord) -> int:
    """Return how many views lie over each other, with this one."""
    return 1 + _depth(connection, read_base(connection, collection)) if collection.kind == "view" else 0


def read_base(connection: sa.Connection, view: CollectionRecord) -> CollectionRecord:
    """Return the base of a view as it is now; raises NotFoundError if it was dropped."""
    base = None if view.base_id is None else queries.read_head(connection, view.base_id)
    if base is None:
        raise NotFoundError(
            f"the base of view {view.name} was dropped, and nothing is left that it could show; drop it"
        )
    return base


def check_base(connection: sa.Connection, collection: CollectionRecord, version: int) -> None:
    """Raise NotFoundError if the base of a view was dropped, or its version that the view is over has expired."""
    if collection.kind == "view":
        read_state(connection, collection, version, head=version == collection.head_version)


def check_pinned(connection: sa.Connection, base: CollectionRecord, version: int) -> None:
    """Raise VersionExpiredError if a view cannot stay over a version; until this ends, it does not expire."""
    row = tables.collection.c
    # An expiry locks the collection against this; other writers of it do not.
    connection.execute(sa.select(row.id).where(row.id == base.id).with_for_update(read=True, key_share=True))
    queries.check_kept(connection, base, version)


@cache
def _at(table: sa.Table) -> AnySelect:
    """Select what a view has in a table at a version."""
    row, version = table.c, sa.bindparam("at_version", type_=sa.Integer)
    alive = row.begin_version <= version, sa.or_(row.end_version.is_(None), row.end_version > version)
    return sa.select(table).where(row.collection_id == sa.bindparam("of_view"), *alive)


def read_shown(connection: sa.Connection, view: CollectionRecord, version: int) -> dict[int, str]:
    """Return the names of the base's variables that a view shows, by their ids."""
    rows = connection.execute(_at(tables.view_variable), {"of_view": view.id, "at_version": version})
    return {row.base_variable_id: row.name for row in rows}


def read_definitions(connection: sa.Connection, view: CollectionRecord, version: int) -> tuple[Definition, ...]:
    """Return how the own variables of a view are computed, in the order in which that was recorded."""
    query = _at(tables.view_definition).order_by(tables.view_definition.c.id)
    rows = connection.execute(query, {"of_view": view.id, "at_version": version})
    return tuple(Definition.from_json(row.definition) for row in rows)


def read_view_schema(connection: sa.Connection, view: CollectionRecord, version: int, state: ViewState) -> SchemaRecord:
    """Return the schema of a view: what it shows of its base, under its names, and its own variables."""
    own = queries.read_schema(connection, view.id, version)
    base = schema_at(connection, state.base, state.base_version)
    names = read_shown(connection, view, version)
    shown = (replace(each, name=names[each.id]) for each in base.variables if each.id in names)
    attributes = {**base.attributes, **own.attributes}
    return replace(
        own, variables=(*shown, *own.variables), attributes=attributes, next_id=max(own.next_id, state.own_ids)
    )


def schema_at(connection: sa.Connection, collection: CollectionRecord, version: int) -> SchemaRecord:
    """Return the schema of a version."""
    if collection.kind == "view":
        state = read_state(connection, collection, version, head=False)
        return read_view_schema(connection, collection, version, state)
    return queries.read_schema(connection, collection.id, version)


def root_at(connection: sa.Connection, collection: CollectionRecord, version: int) -> tuple[CollectionRecord, int]:
    """Return the collection, and its version, whose rows a version has."""
    while collection.kind == "view":
        state = read_state(connection, collection, version, head=False)
        collection, version = state.base, state.base_version
    return collection, version


def taken_at(connection: sa.Connection, collection: CollectionRecord, version: int, selection: Selection) -> Selection:
    """Return what a selection chooses of what a version has: views take some partitions alone."""
    while collection.kind == "view":
        state = read_state(connection, collection, version, head=False)
        selection, collection, version = state.chosen(selection), state.base, state.base_version
    return selection


def taken_by(connection: sa.Connection, state: ViewState) -> Predicate | None:
    """Return which partitions a view takes of the collection below: what it is over takes some alone. None for all."""
    return taken_at(connection, state.base, state.base_version, state.chosen(Selection())).predicate


def taking(predicate: Predicate | None, names: tuple[str, ...]) -> Callable[[KeyValues], bool]:
    """Return what says whether a predicate takes the partition of a key, of all six columns."""
    if predicate is None:
        return lambda _: True
    return lambda key: predicate.evaluate(dict(zip(names, key, strict=False)))


def columns_at(
    connection: sa.Connection, collection: CollectionRecord, version: int, selection: Selection
) -> FragmentColumns:
    """Return the rows of the partitions of a version, and what else is in their groups.

    Of values, nothing is known but of those of the collection itself: what views compute may be anything.
    """
    selection = taken_at(connection, collection, version, selection)
    root, number = root_at(connection, collection, version)
    known = tuple(each for each in selection.ranges if each.variable_id < OWN_IDS)
    layers = queries.read_layers(connection, root.id) if known else {}
    return read_columns(connection, root, number, replace(selection, ranges=known), layers)


def totals_at(connection: sa.Connection, collection: CollectionRecord, version: int, selection: Selection) -> Totals:
    """Return how much of a selection a version has; the bytes are those of the rows' groups."""
    selection = taken_at(connection, collection, version, selection)
    return read_totals(connection, *root_at(connection, collection, version), selection)


def immutable_at(connection: sa.Connection, collection: CollectionRecord, version: int) -> FragmentRecord | None:
    """Return the fragment of the immutable variables of a version, None before there is any."""
    root, number = root_at(connection, collection, version)
    return read_immutable(connection, root.id, number)


def stored_at(connection: sa.Connection, collection: CollectionRecord, version: int) -> int:
    """Return the last version, up to one, with immutable variables that the version before had not."""
    if collection.kind != "view":
        return read_last_immutables(connection, collection, version)
    over = _Versions(connection, collection, 0, version)
    return over.version_with(stored_at(connection, read_base(connection, collection), over.base_of(version)))


def layers_of(connection: sa.Connection, collection: CollectionRecord) -> dict[int, frozenset[int]]:
    """Return the ids of the variables of each layer, of all that it is over too."""
    below = layers_of(connection, read_base(connection, collection)) if collection.kind == "view" else {}
    return below | queries.read_layers(connection, collection.id)


def hunks_of(
    connection: sa.Connection, collection: CollectionRecord, since: Mapping[KeyValues, int], until: int
) -> dict[KeyValues, Hunks]:
    """Return what versions did to partitions, each after a version of its own."""
    if collection.kind != "view":
        return read_hunks_of(connection, collection, since, until)
    since = {key: version for key, version in since.items() if version < until}
    if not since:
        return {}
    base = read_base(connection, collection)
    over = _Versions(connection, collection, min(since.values()), until)
    below = hunks_of(connection, base, {key: over.base_of(at) for key, at in since.items()}, over.base_of(until))
    own = read_hunks_of(connection, collection, since, until)
    layers = layers_of(connection, base)
    return {key: over.composed(below.get(key, []), own.get(key, []), layers) for key in below.keys() | own.keys()}


def hunks_between(
    connection: sa.Connection, collection: CollectionRecord, since: int, until: int
) -> Iterator[tuple[int, Hunk]]:
    """Yield what versions did to partitions, and which version: by key. The rows of hunks of views mean nothing."""
    if collection.kind != "view" or since >= until:
        yield from read_hunks(connection, collection, since, until)
        return
    over = _Versions(connection, collection, since, until)
    below = hunks_between(connection, read_base(connection, collection), over.base_of(since), over.base_of(until))
    found = [(over.version_with(at), hunk) for at, hunk in below]
    found += read_hunks(connection, collection, since, until)
    yield from sorted(found, key=lambda each: (each[1].key, each[0]))


class _Versions:
    """Which versions of its base versions of a view are over."""

    def __init__(self, connection: sa.Connection, view: CollectionRecord, since: int, until: int) -> None:
        table = tables.version
        query = sa.select(table.c.version, table.c.base_version, table.c.reads).order_by(table.c.version)
        mine = table.c.collection_id == view.id, table.c.version >= since, table.c.version <= until
        rows = connection.execute(query.where(*mine)).all()
        self._numbers = [row.version for row in rows]
        self._bases = [row.base_version for row in rows]
        self._read = {row.version: row.reads["base_version"] for row in rows if row.reads is not None}

    def base_of(self, version: int) -> int:
        """Return which version of the base a version is over."""
        at: int = self._bases[self._numbers.index(version)]
        return at

    def version_with(self, base_version: int) -> int:
        """Return the first version that is over a version of the base, or a later one."""
        number: int = self._numbers[bisect_left(self._bases, base_version)]
        return number

    def composed(self, below: Hunks, own: Hunks, layers: Mapping[int, frozenset[int]]) -> Hunks:
        """Return what was done to a partition below and by the view itself, one after the other."""
        hunks = [(self.version_with(at), 0, at, some) for at, some in below]
        for version, some in own:
            # It counts rows as they were at the version that was read; another writer may have been over a later one.
            read, over = self._read[version], self.base_of(version)
            script = follow((each for at, each in below if read < at <= over), layers)
            hunks.append((version, 1, version, hunks_after(some, script)))
        return [(version, some) for version, *_, some in sorted(hunks, key=lambda each: each[:3])]
