"""Loading: registry → origins → lazy dataset. Only an exact row crop reads, and only the axis."""

from collections.abc import Iterable
from dataclasses import replace

import xarray as xr

from ..errors import NotFoundError
from ..handle import Handle
from ..reading.blocks import Chunks
from ..reading.crop import crop_axis, crop_found, crop_rows
from ..reading.dataset import build_dataset
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
    if selected.found is not None:
        selected = crop_found(selected, selected.found)
    if selection.crop:
        selected = crop_axis(selected, selection.chosen.axis_range)
    if selection.rows is not None:
        selected = crop_rows(selected, selection.rows)
    return build_dataset(selected, names, chunks)


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
