"""What commits change of views, and what views keep of their bases from being dropped."""

from collections.abc import Callable, Collection
from dataclasses import replace

import sqlalchemy as sa

from ..errors import InvalidInputError
from ..records import SchemaRecord
from ..sql import queries, tables
from ..sql.bases import check_pinned, read_definitions
from ..sql.views import read_needs
from .locked import Locked, end, same
from .values import EditSchema, EditView, RecordDefinitions


def edit_view(now: Locked, update: EditView | RecordDefinitions) -> dict[str, int] | None:
    """Have it written what a view takes of its base, or how it is computed; None if nothing changes."""
    if isinstance(update, RecordDefinitions):
        return _record_definitions(now, update)
    pinned = now.state.pinned_version if update.pinned_version is None else update.pinned_version
    filters = now.state.filters if update.filters is None else update.filters.filters
    if (pinned, filters) == (now.state.pinned_version, now.state.filters):
        return {} if update.moves else None
    if pinned is not None:
        check_pinned(now.connection, now.state.base, pinned)
    end(now, tables.view_state)
    begin = {"collection_id": now.id, "begin_version": now.version}
    now.write(sa.insert(tables.view_state), begin | {"pinned_version": pinned, "filters": filters})
    return {}


def _record_definitions(now: Locked, update: RecordDefinitions) -> dict[str, int] | None:
    known = read_definitions(now.connection, now.record, now.version)
    new = [each for each in update.definitions if not any(same(each.to_json(), old.to_json()) for old in known)]
    if not new:
        return None
    computed = {id_ for each in new for id_ in each.outputs}
    _end_definitions(now, lambda outputs, _: bool(computed & {*outputs}))
    last = now.connection.scalar(
        sa.select(sa.func.max(tables.view_definition.c.id)).where(tables.view_definition.c.collection_id == now.id)
    )
    rows = [
        {"collection_id": now.id, "begin_version": now.version, "id": number, "definition": each.to_json()}
        for number, each in enumerate(new, 1 + (last or 0))
    ]
    now.write(sa.insert(tables.view_definition), rows)
    return {}


def _end_definitions(now: Locked, ends: Callable[[Collection[int], Collection[int]], bool]) -> None:
    """End the definitions that are told by their outputs and inputs."""
    table = tables.view_definition
    alive = sa.select(table).where(table.c.collection_id == now.id, table.c.end_version.is_(None))
    ended = [
        row.id for row in now.connection.execute(alive) if ends(row.definition["outputs"], row.definition["inputs"])
    ]
    if ended:
        end(now, table, table.c.id.in_(ended))


def own_schemas(now: Locked, update: EditSchema) -> tuple[SchemaRecord, SchemaRecord, bool]:
    """Return a view's own schema before and after a change, and whether that changed what it shows, which is written.

    Raises InvalidInputError for what would change the base.
    """
    before = now.schema
    after = update.edit(before)
    gone_ids = {each.id for each in before.variables} - {each.id for each in after.variables}
    check_needs(now, gone_ids, break_views=update.break_views)
    own = queries.read_schema(now.connection, now.id, now.version)
    shown = _show(now, before, after)
    if gone := [name for name in before.attributes if name not in after.attributes and name not in own.attributes]:
        raise InvalidInputError(f"the attributes {', '.join(gone)} of view {now.record.name} are its base's")
    attributes = {
        name: value
        for name, value in after.attributes.items()
        if name in own.attributes or not same(value, before.attributes.get(name))
    }
    variables = tuple(each for each in after.variables if each.id >= now.state.own_ids)
    there = {each.id for each in after.variables}
    _end_definitions(now, lambda outputs, inputs: not {*outputs, *inputs} <= there)
    return own, replace(after, variables=variables, attributes=attributes), shown


def _show(now: Locked, before: SchemaRecord, after: SchemaRecord) -> bool:
    """Write what a view shows of its base from now on; return whether that is something else."""
    names = {each.id: each for each in after.variables if each.id < now.state.own_ids}
    old = {each.id: each for each in before.variables if each.id < now.state.own_ids}
    for id_, each in names.items():
        if not same(replace(each, name=old[id_].name), old[id_]):
            raise InvalidInputError(
                f"variable {each.name} of view {now.record.name} is its base's, and cannot be changed here: change it "
                f"in {now.state.base.name}, or add a variable to the view"
            )
    changed = [id_ for id_ in old if id_ not in names or names[id_].name != old[id_].name]
    if not changed:
        return False
    table = tables.view_variable
    end(now, table, table.c.base_variable_id.in_(changed))
    begin = {"collection_id": now.id, "begin_version": now.version}
    now.write(
        sa.insert(table),
        [begin | {"base_variable_id": id_, "name": names[id_].name} for id_ in changed if id_ in names],
    )
    need, gone = tables.view_need.c, [id_ for id_ in changed if id_ not in names]
    if gone:
        now.write(
            sa.delete(tables.view_need).where(need.view_id == sa.bindparam("of_view"), need.variable_id.in_(gone)),
            {"of_view": now.id},
        )
    return True


def check_needs(now: Locked, dropped: Collection[int], *, break_views: bool) -> None:
    """Raise InvalidInputError if views show variables that are dropped, unless they may break."""
    needs = read_needs(now.connection, now.id, dropped) if dropped else []
    if not needs:
        return
    if not break_views:
        names = ", ".join(dict.fromkeys(view for view, _ in needs))
        raise InvalidInputError(
            f"views show what is to be dropped of collection {now.record.name}: {names}; drop it there first "
            "(drop_variable), or say views='break', and they show it no more"
        )
    need = tables.view_need.c
    now.write(
        sa.delete(tables.view_need).where(need.base_id == sa.bindparam("of_base"), need.variable_id.in_([*dropped])),
        {"of_base": now.id},
    )
