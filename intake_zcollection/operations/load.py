"""Loading: registry → origins → lazy dataset. Only an exact crop of rows reads, and only what it is about."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import xarray as xr

import registry
from registry import Asked, KeyValues, PartitionKey, format_key, name_values, pad_key

from ..errors import InvalidInputError, NotFoundError
from ..handle import Handle
from ..reading.blocks import Chunks
from ..reading.crop import crop_axis, crop_found, crop_rows, crop_values
from ..reading.dataset import build_dataset
from ..reading.rows import Mapped, Places, Range, ranges_of
from ..reading.selection import Selected, Selection
from ..schema.names import near


def load(handle: Handle, selection: Selection, variables: Iterable[str] | None, chunks: Chunks) -> xr.Dataset:
    """Return a lazy dataset; see :meth:`intake_zcollection.Collection.load`."""
    if isinstance(variables, str):
        variables = [variables]
    if variables is not None:
        variables = tuple(variables)
        selection = replace(selection, asked=selection.asked._replace(names=frozenset(variables)))
    selected = handle.select(selection)
    names = _loaded_names(selected, variables)
    rows = None if selection.rows is None else _ranges(handle, selected, selection, selection.rows)
    if selection.crop:
        selected = _cropped(selected, rows, selection)
    elif rows is not None:  # whole partitions: those of which there are any
        selected = selected.among({pad_key(values) for values, some in rows.items() if some})
    return build_dataset(selected, names, chunks)


def _cropped(selected: Selected, rows: Mapping[KeyValues, Sequence[Range]] | None, selection: Selection) -> Selected:
    """Return the rows that were looked up, have these places, and lie within bounds, as far as any are given."""
    if selected.found is not None:
        selected = crop_found(selected, selected.found, rows)
    elif rows is not None:
        selected = crop_rows(selected, rows)
    selected = crop_axis(selected, selection.chosen.axis_range)
    return selected if selection.conditions is None else crop_values(selected, selection.conditions.of(selected.schema))


def _loaded_names(selected: Selected, variables: Iterable[str] | None) -> list[str]:
    """Return the names to load: those asked for and the axis; immutable ones once they have been stored."""
    schema, snapshot = selected.schema, selected.snapshot
    wanted = list(schema.variables) if variables is None else list(variables)
    for name in wanted:
        if name not in schema.variables:
            raise NotFoundError(
                f"collection {snapshot.collection.name} has no variable {name} at version {snapshot.version}; "
                f"{near(name, schema.variables)}"
            )
    labels = {dim for name in wanted for dim in schema.variables[name].dims} | {schema.axis}
    return [
        name
        for name, variable in schema.variables.items()
        if (name in wanted or name in labels) and not (variable.is_immutable and snapshot.immutable is None)
    ]


def _ranges(handle: Handle, selected: Selected, selection: Selection, places: Places) -> dict[KeyValues, list[Range]]:
    """Return the ranges of rows that are wanted of each partition, as they are at this version.

    Raises InvalidInputError where they are not rows of it, or were found at a version where the partition is another.
    """
    _check_there(handle, selected, selection)
    if places.found is not None:
        _check_unchanged(handle, selected, places.found)
    table, ranges = selected.rows, {}
    for values, key, size in zip(table.values.tolist(), table.keys, table.sizes, strict=True):
        where = f"collection {selected.collection.name}, partition {format_key(key)}"
        ranges[tuple(values)] = ranges_of(places.rows[tuple(values)], size, where)
    return ranges


def _check_there(handle: Handle, selected: Selected, selection: Selection) -> None:
    """Raise InvalidInputError if a partition that is named is not there; bounds may have left it out, or a view."""
    left_out = {*(selection.chosen.keys or ())} - {*map(tuple, selected.rows.values.tolist())}
    if not left_out:
        return
    asked = Asked(stale="fill", base_version=selected.own.base_version if handle.base else None)
    there = handle.at(selected.version).select(Selection(registry.Selection(keys=left_out), asked=asked))
    gone = left_out - {*map(tuple, there.rows.values.tolist())}
    if gone:
        named = _some(name_values(selected.collection.keys, each) for each in gone)
        raise InvalidInputError(
            f"collection {selected.collection.name} has no partition {named} at version {selected.version}, and rows= "
            "names it"
        )


def _check_unchanged(handle: Handle, selected: Selected, found: Mapped) -> None:
    """Raise InvalidInputError if partitions have changed between the version where rows were found and this one."""
    (first, last), keys = sorted((found.version, selected.version)), selected.rows.keys
    changed = _changed_below(handle.base, found.base_versions, selected.base_versions)
    if first < last:
        values = [tuple(each) for each in selected.rows.values.tolist()]
        changes = handle.registry.changes(selected.collection, last, values)
        changed |= {key for key, each in zip(keys, values, strict=True) if changes.get(each, 0) > first}
    if changed:
        # Which version of the base a view shows depends on what of its own is loaded.
        or_else = f"or load at(version={found.version})" if handle.base is None else "with the inputs that are loaded"
        raise InvalidInputError(
            f"these rows were found at version {found.version} of {selected.collection.name}, and at version "
            f"{selected.version} these partitions are other ones: {_some(changed)}; call map again, {or_else}"
        )


def _changed_below(
    base: Handle | None, then: Mapping[PartitionKey, int], now: Mapping[PartitionKey, int]
) -> set[PartitionKey]:
    """Return the partitions of a view that were read at a version of its base at which they are other ones."""
    spans: dict[tuple[int, ...], set[PartitionKey]] = {}
    for key, version in now.items():
        if (other := then.get(key, version)) != version:
            spans.setdefault(tuple(sorted((other, version))), set()).add(key)
    changed = set[PartitionKey]()
    for (first, last), keys in spans.items():
        assert base is not None  # or there are no such versions
        changed |= keys & base.registry.diff(base.record, first, last).partitions.keys()
    return changed


def _some(keys: Iterable[PartitionKey]) -> str:
    """Name partitions: the first ones of many."""
    first, *others = sorted(keys)
    return f"{format_key(first)} and {len(others)} more" if others else format_key(first)
