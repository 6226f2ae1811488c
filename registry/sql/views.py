"""Views: SELECT statements on what they take of their bases and have of their own, and what the rows become."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby

import sqlalchemy as sa

from ..errors import StaleViewError, VersionExpiredError
from ..keys import MAX_KEYS, KeyValues, format_key, name_values
from ..overlay import (
    NEVER_STORED,
    Asked,
    Computed,
    Definition,
    Overlay,
    OwnFragment,
    OwnPartition,
    Stale,
    Stored,
    stale_rows,
    visible,
)
from ..partitions import FragmentColumns
from ..records import CollectionRecord, Hunk, SchemaRecord, Totals, Version
from ..selection import Selection
from ..snapshot import Snapshot
from . import queries, tables
from .bases import (
    ViewState,
    check_base,
    columns_at,
    hunks_between,
    hunks_of,
    immutable_at,
    layers_of,
    read_definitions,
    read_state,
    read_view_schema,
    root_at,
    stored_at,
    taken_at,
    taken_by,
    taking,
    totals_at,
)
from .fragments import chosen, read_keys
from .lookup import among_numbers, key_columns, keys_parameter, numbers_parameter

_NO_SCHEMA = SchemaRecord((), {})


def read_needs(
    connection: sa.Connection, base_id: int, variables: Iterable[int] | None = None
) -> list[tuple[str, int]]:
    """Return the names of views, and which variables of their base each shows: some, or all of them."""
    need = tables.view_need
    query = queries.collections_query().join(need, need.c.view_id == tables.collection.c.id)
    query = query.with_only_columns(queries.FULL_NAME, need.c.variable_id).where(need.c.base_id == base_id)
    if variables is not None:
        query = query.where(need.c.variable_id.in_([*variables]))
    return [(name, variable) for name, variable in connection.execute(query)]


def read_snapshot(
    connection: sa.Connection,
    collection: CollectionRecord,
    version: int | Version | None,
    selection: Selection,
    asked: Asked,
) -> Snapshot:
    """Return a version of a collection, or of a view: its schema, and the partitions of a selection."""
    if collection.kind == "view":
        return _read_view(connection, collection, version, selection, asked)
    return queries.read_snapshot(connection, collection, version, selection)


def read_rows(
    connection: sa.Connection, collection: CollectionRecord, version: int, selection: Selection, *, head: bool
) -> FragmentColumns:
    """Return the fragments of rows of a version; of a view's head, those that its base has now."""
    if collection.kind == "view" and head:
        state = read_state(connection, collection, version, head=True)
        collection, version, selection = state.base, state.base_version, state.chosen(selection)
    return columns_at(connection, collection, version, selection)


def read_totals(connection: sa.Connection, collection: CollectionRecord, version: int, *, head: bool) -> Totals:
    """Return how much a version has: of a view, the partitions and rows that it takes, and the bytes of its own."""
    if collection.kind != "view":
        return totals_at(connection, collection, version, Selection())
    state = read_state(connection, collection, version, head=head)
    totals = totals_at(connection, state.base, state.base_version, state.chosen(Selection()))
    own = _read_fragments(connection, collection, version, Selection())
    return replace(totals, nbytes=sum(each.nbytes for each in own))


def _read_view(
    connection: sa.Connection,
    view: CollectionRecord,
    version: int | Version | None,
    selection: Selection,
    asked: Asked,
) -> Snapshot:
    """Return a version of a view: its schema, partitions of its base, and what it has of its own over them.

    At which version of the base each partition is read is known before any is left out by its bounds.
    """
    number = queries.check_version(connection, view, version)
    state = read_state(connection, view, number, head=version is None)
    if asked.base_version is not None:
        state = replace(state, base_version=queries.check_version(connection, state.base, asked.base_version))
    schema = read_view_schema(connection, view, number, state)
    own_ids = {each.id for each in schema.variables if each.id >= state.own_ids}
    named = {each.id for each in schema.variables if asked.names is None or each.name in asked.names}
    definitions = read_definitions(connection, view, number)
    selection = state.chosen(selection.with_schema(schema))
    own = _Own(connection, view, number, state, selection, frozenset(own_ids & named), definitions, schema)
    behind = own.behind() if asked.stale in ("last", "raise") else {}
    _check_behind(connection, view, state.base, behind)
    fragments = _read_base(connection, state, selection, behind)
    stale = own.stale(fragments.count_rows()) if asked.tells or asked.stale in ("raise", "skip") else {}
    if asked.stale == "raise" and stale:
        raise _stale_error(view, stale)
    if asked.stale == "skip" and stale:
        fragments = fragments.of(lambda key: key not in stale)
    return Snapshot(
        collection=view,
        version=number,
        schema=schema,
        fragments=fragments,
        immutable=immutable_at(connection, state.base, state.base_version),
        layers=own.base_layers,
        overlay=own.overlay(stale, behind),
    )


class _Own:
    """What a view has of its own in the partitions of a selection, and what of some variables is stale."""

    def __init__(
        self,
        connection: sa.Connection,
        view: CollectionRecord,
        version: int,
        state: ViewState,
        selection: Selection,
        variables: frozenset[int],
        definitions: tuple[Definition, ...] = (),
        schema: SchemaRecord = _NO_SCHEMA,
    ) -> None:
        self._connection, self._state, self._variables, self._definitions = connection, state, variables, definitions
        self._selection = selection
        self._layers = queries.read_layers(connection, view.id)
        self.base_layers = layers_of(connection, state.base)
        self._defined = {id_: each for each in definitions for id_ in each.outputs}
        self._immutable_ids = frozenset(each.id for each in schema.variables if None not in each.sizes)
        taken = taken_at(connection, state.base, state.base_version, selection)
        found = _read_fragments(connection, view, version, replace(taken, axis_range=(None, None), parts=False))
        computed = _read_computed(connection, view, {each.written_version for each in found})
        self._own = self._with_hunks(found, {each: computed[each.written_version] for each in found})
        self._changed = {key for key, each in self._own.items() if each.since}
        self._known: dict[tuple[int, str | None], tuple[list[KeyValues], set[KeyValues]]] = {}

    def _with_hunks(
        self, found: Iterable[OwnFragment], computed: Mapping[OwnFragment, Mapping[frozenset[int], Computed]]
    ) -> dict[KeyValues, OwnPartition]:
        by_fragment = {each: _of_layer(computed[each], self._layers[each.layer_id]) for each in found}
        since: dict[KeyValues, int] = {}
        for each, what in by_fragment.items():
            since[each.key] = min(since.get(each.key, what.base_version), what.base_version, each.base_version)
        hunks = hunks_of(self._connection, self._state.base, since, self._state.base_version)
        own = {}
        for key, group in groupby(by_fragment, key=lambda each: each.key):
            fragments = tuple(group)
            mine = {each: by_fragment[each] for each in fragments}
            own[key] = OwnPartition(fragments, mine, hunks.get(key, ()), self.base_layers)
        return own

    def behind(self) -> dict[KeyValues, int]:
        """Return the partitions that are read as they were, and when: what their values were computed from is gone."""
        length = len(self._state.base.keys)
        changed = Selection(keys={key[:length] for key in self._changed})
        rows = columns_at(self._connection, self._state.base, self._state.base_version, changed).count_rows()
        behind = {}
        for key in self._changed & rows.keys():
            own = self._own[key]
            stale = self._stale(key, rows[key], own.placed(self._state.base_version, self._stored))
            shown = {each for id_ in self._variables for each in visible(self._holding(own, id_))}
            used = shown & {*own.left(self._stored)}
            if stale and own.used_were_replaced(used):
                behind[key] = own.base_version
        return behind

    def _holding(self, own: OwnPartition, variable: int) -> list[OwnFragment]:
        return [each for each in own.fragments if variable in self._layers[each.layer_id]]

    def _stale(self, key: KeyValues, rows: int, placed: Sequence[OwnFragment]) -> dict[int, Stale]:
        own = self._own.get(key)
        given = own, placed, self._layers, self._defined, self._stored
        found = {id_: stale_rows(id_, rows, *given) for id_ in self._variables}
        return {id_: each for id_, each in found.items() if each is not None}

    @cached_property
    def _stored(self) -> Stored:
        used = (each.by.uses for own in self._own.values() for each in own.computed.values())
        if not self._immutable_ids & frozenset().union(*used):
            return NEVER_STORED  # it does not matter when
        return Stored(self._immutable_ids, stored_at(self._connection, self._state.base, self._state.base_version))

    def stale(self, rows: Mapping[KeyValues, int]) -> dict[KeyValues, dict[int, Stale]]:
        """Return what is stale in partitions of so many rows."""
        if not self._variables:
            return {}
        at = self._state.base_version
        stale = {}
        for key, count in rows.items():
            placed = self._own[key].placed(at, self._stored) if key in self._own else ()
            stale[key] = self._of_neighbours(key, count) | self._stale(key, count, placed)
        return {key: found for key, found in stale.items() if found}

    def _of_neighbours(self, key: KeyValues, rows: int) -> dict[int, Stale]:
        """Return what is stale since a neighbour partition changed, or came between."""
        own = self._own.get(key)
        if own is None:
            return {}
        return {
            id_: Stale("neighbour", ((0, rows),))
            for id_ in self._variables
            for each in visible(self._holding(own, id_))
            if own.computed[each].by.depth and self._has_other_neighbours(key, own.computed[each])
        }

    def _has_other_neighbours(self, key: KeyValues, computed: Computed) -> bool:
        """Whether partitions within its depth have changed since, were taken then alone, or are now."""
        keys, otherwise = self._taken_since(computed.base_version, computed.filters)
        place, depth = bisect_left(keys, key), computed.by.depth
        near = {*keys[max(0, place - depth) : place + depth + 1]} - {key}
        hunks = (done for each in near for done in self._done.get(each, ()))
        return bool(near & otherwise) or any(computed.saw(at, hunk, self.base_layers) for at, hunk in hunks)

    def _taken_since(self, version: int, filters: str | None) -> tuple[list[KeyValues], set[KeyValues]]:
        """Return the partitions that the view took at a version of its base, by its filters then, or takes now; and
        those that only one of both filters takes.
        """
        if (version, filters) not in self._known:
            base_now = self._state.base_version
            then, now = self._taking(version, filters), self._taking(base_now, self._state.filters)
            changed = (key for key, hunks in self._done.items() if hunks[-1][0] > version)
            every = {key: (then(key), now(key)) for key in {*self._there, *changed}}
            taken = sorted(key for key, by in every.items() if any(by))
            self._known[version, filters] = taken, {key for key in taken if not all(every[key])}
        return self._known[version, filters]

    def _taking(self, version: int, filters: str | None) -> Callable[[KeyValues], bool]:
        """Return what says whether the view, by a filter, and what it is over at a version take a partition."""
        then = replace(self._state, base_version=version, filters=filters)
        return taking(taken_by(self._connection, then), self._state.base.keys)

    @cached_property
    def _there(self) -> set[KeyValues]:
        """The partitions of the collection below, whatever is taken of them: others may have been."""
        root, version = root_at(self._connection, self._state.base, self._state.base_version)
        return read_keys(self._connection, root, version, Selection())

    @cached_property
    def _done(self) -> dict[KeyValues, list[tuple[int, Hunk]]]:
        """What was done to each partition of the base since values of neighbours were computed, by its versions."""
        deep = [each for own in self._own.values() for each in own.computed.values() if each.by.depth]
        base, since = self._state.base, min(each.base_version for each in deep)
        done: dict[KeyValues, list[tuple[int, Hunk]]] = {}
        for version, hunk in hunks_between(self._connection, base, since, self._state.base_version):
            done.setdefault(hunk.key, []).append((version, hunk))
        return done

    def _uses(self) -> dict[int, frozenset[int]]:
        uses: dict[int, frozenset[int]] = {}
        for own in self._own.values():
            for each, computed in own.computed.items():
                for id_ in self._layers[each.layer_id]:
                    uses[id_] = uses.get(id_, frozenset()) | computed.by.uses
        return uses

    def _below(self, behind: Mapping[KeyValues, int]) -> Overlay | None:
        """Return what the base has of its own, if it is a view, at the versions at which its partitions are read."""
        base, length = self._state.base, len(self._state.base.keys)
        if base.kind != "view":
            return None
        below = own_at(self._connection, base, self._state.base_version, replace(self._selection, keep=None))
        for version in set(behind.values()):
            keys = {key for key, at in behind.items() if at == version}
            chosen = Selection(keys={key[:length] for key in keys})
            below = below.with_older(own_at(self._connection, base, version, chosen), keys)
        return below

    def overlay(self, stale: Mapping[KeyValues, Mapping[int, Stale]], behind: Mapping[KeyValues, int]) -> Overlay:
        """Return all of it, as it lies over the partitions as they are read."""
        at = self._state.base_version
        return Overlay(
            base=self._state.base,
            base_version=at,
            live={key: each.fragments for key, each in self._own.items()},
            placed={
                key: each.left(self._stored) if key in behind else each.placed(at, self._stored)
                for key, each in self._own.items()
            },
            layers=self._layers,
            stale=stale,
            behind=behind,
            definitions=self._definitions,
            is_pinned=self._state.pinned_version is not None,
            filters=self._state.filters,
            own_ids=self._state.own_ids,
            uses=self._uses(),
            below=self._below(behind),
        )


def own_at(connection: sa.Connection, view: CollectionRecord, version: int, selection: Selection) -> Overlay:
    """Return what a view has of its own at one of its versions, over the rows of its base then."""
    state = read_state(connection, view, version, head=False)
    schema = read_view_schema(connection, view, version, state)
    own = _Own(connection, view, version, state, selection, frozenset(), schema=schema)
    return own.overlay({}, {})


def _read_fragments(
    connection: sa.Connection, view: CollectionRecord, version: int, selection: Selection
) -> list[OwnFragment]:
    """Return the own fragments of partitions, by their keys and rows."""
    if selection.keys is not None and not selection.keys:
        return []
    fields = "layer_id", "group_uid", *OwnFragment._fields[3:]
    both = [tables.fragment, *([tables.past_fragment] if version < view.head_version else [])]
    branches = [
        chosen(table, (*key_columns(table), *(table.c[name] for name in fields)), view, version, selection)
        for table in both
    ]
    query = sa.union_all(*branches) if len(branches) > 1 else branches[0]
    rows = connection.execute(query, {} if selection.keys is None else keys_parameter(selection.keys, len(view.keys)))
    found = [OwnFragment._make((tuple(row[:MAX_KEYS]), *row[MAX_KEYS:])) for row in rows]
    if (keep := selection.keep) is not None:
        kept = {key for key in {each.key for each in found} if keep(dict(zip(view.keys, key, strict=False)))}
        found = [each for each in found if each.key in kept]
    return sorted(found, key=lambda each: (each.key, each.base_row, each.layer_id))


def _read_computed(
    connection: sa.Connection, view: CollectionRecord, versions: Iterable[int]
) -> dict[int, dict[frozenset[int], Computed]]:
    """Return what own values were computed from, by the version that wrote them and the variables of their layer."""
    query = sa.select(tables.version.c.version, tables.version.c.reads)
    query = query.select_from(among_numbers(tables.version, tables.version.c.collection_id == view.id))
    rows = connection.execute(query, numbers_parameter(versions))
    return {
        row.version: {
            frozenset(each["outputs"]): Computed(
                row.reads["base_version"], Definition.from_json(each), row.reads["filters"]
            )
            for each in row.reads["definitions"]
        }
        for row in rows
    }


def _of_layer(computed: Mapping[frozenset[int], Computed], variables: frozenset[int]) -> Computed:
    """Return what a layer was computed from: it may have lost variables since, to newer ones."""
    return next(each for outputs, each in computed.items() if variables <= outputs)


def _read_base(
    connection: sa.Connection, state: ViewState, selection: Selection, behind: Mapping[KeyValues, int]
) -> FragmentColumns:
    """Return partitions of the base, each at the version at which it is read: whole ones, for own values count rows."""
    base, length, selection = state.base, len(state.base.keys), replace(selection, parts=False)
    columns = columns_at(connection, base, state.base_version, selection)
    if not behind:
        return columns
    read = [columns.of(lambda key: key not in behind)]
    for version in set(behind.values()):
        keys = {key[:length] for key, at in behind.items() if at == version}
        read.append(columns_at(connection, base, version, replace(selection, keys=keys)))
    return FragmentColumns.merged(read)


def _check_behind(
    connection: sa.Connection, view: CollectionRecord, base: CollectionRecord, behind: Mapping[KeyValues, int]
) -> None:
    """Raise StaleViewError if partitions are read at versions of the base that have expired."""
    gone: dict[int, VersionExpiredError] = {}
    for version in sorted(set(behind.values())):
        try:
            queries.check_version(connection, base, version)
            check_base(connection, base, version)
        except VersionExpiredError as error:
            gone[version] = error
    if gone:
        names = _names(view, [key for key, version in behind.items() if version in gone])
        raise StaleViewError(
            f"view {view.name}: own values of {names} are stale, and what they were computed from can be read no more: "
            f"{'; '.join(map(str, gone.values()))}. Compute them by sync(), or load with stale='fill', without them"
        )


def _stale_error(view: CollectionRecord, stale: Mapping[KeyValues, object]) -> StaleViewError:
    return StaleViewError(
        f"view {view.name}: own values of {_names(view, stale)} are stale; sync() computes them, and "
        "stale='last' or 'fill' shows what there is"
    )


def _names(view: CollectionRecord, keys: Iterable[KeyValues]) -> str:
    """Return the first partitions of some, as text."""
    length = len(view.keys)
    names = [format_key(name_values(view.keys, key[:length])) for key in sorted(keys)]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"
