"""Where variables lie, and their values in memory: the only concatenation."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from registry import CollectionRecord, Overlay, Snapshot

from ..schema import Schema, SchemaVariable, Values
from ..schema.encoding import missing_value
from ..storage.location import Location
from ..storage.read import Region, Stored, read_region, read_regions
from .table import PartitionTable


@dataclass(frozen=True, eq=False)
class Origin:
    """Where variables lie: a place, the rows of those that are partitioned, and what is stored once.

    A collection has one for all its variables, a view another one for its own. Of several origins of a dataset all have
    the same rows, partition by partition; they may be divided in other ways.
    """

    location: Location
    space: str
    """The uid of the collection whose variable ids its fragments speak of."""
    rows: PartitionTable
    immutables: PartitionTable
    """One piece, or none before the immutable variables are stored."""

    @classmethod
    def of(cls, location: Location, snapshot: Snapshot) -> "Origin":
        """Return the origin of all that a snapshot has; of a view's, of all that is its base's."""
        rows = PartitionTable.of(snapshot.collection.keys, snapshot.fragments, snapshot.layers)
        stored = snapshot.immutable
        immutables = PartitionTable.of_immutables(*((stored.uid, stored.schema_version) if stored else (None,)))
        whose = snapshot.collection if snapshot.overlay is None else snapshot.overlay.root
        return cls(location, whose.uid, rows, immutables)

    @classmethod
    def of_own(cls, location: Location, view: CollectionRecord, own: Overlay, base: "Origin") -> "Origin":
        """Return the origin of the own variables of a view, over the rows of its base."""
        rows = PartitionTable.of_own(base.rows, own.placed, own.layers)
        return cls(location, view.uid, rows, PartitionTable.of_immutables(None))

    def table_of(self, variable: SchemaVariable) -> PartitionTable:
        """Return the rows of a variable, or the one piece of an immutable one."""
        return self.immutables if variable.is_immutable else self.rows

    def cut(self, start: int, stop: int) -> "Origin":
        """Return it with the partitions ``start`` … ``stop`` alone."""
        return replace(self, rows=self.rows.cut(start, stop))

    def read(self, variable: SchemaVariable) -> Values:
        """Return all values of a variable, in memory; an immutable one has been stored."""
        table = self.table_of(variable)
        everything = tuple(slice(0, size) for size in variable.shape(table.rows))
        return read_rows(self.location, variable, table, everything)


def change_origins(origins: Mapping[str, Origin], change: Callable[[Origin], Origin]) -> dict[str, Origin]:
    """Return what a function makes of each origin; variables that share one share it afterwards."""
    changed = {id(origin): change(origin) for origin in {id(each): each for each in origins.values()}.values()}
    return {name: changed[id(origin)] for name, origin in origins.items()}


def read_dataset(schema: Schema, origins: Mapping[str, Origin], names: Iterable[str]) -> xr.Dataset:
    """Return variables in memory, all rows of their origins; without the immutable ones that were never stored."""
    variables = [schema.variables[name] for name in names]
    values = {
        variable.name: origins[variable.name].read(variable)
        for variable in variables
        if not variable.is_immutable or len(origins[variable.name].immutables)
    }
    return in_memory(schema, values)


def in_memory(schema: Schema, values: Mapping[str, Values]) -> xr.Dataset:
    """Return a dataset of decoded values."""
    variables = {
        name: xr.Variable(schema.variables[name].dims, array, dict(schema.variables[name].attrs))
        for name, array in values.items()
    }
    dataset = xr.Dataset(variables, attrs=dict(schema.attrs))
    return dataset.set_coords([name for name in values if schema.variables[name].is_coordinate])


def read_rows(location: Location, variable: SchemaVariable, table: PartitionTable, others: Region) -> Values:
    """Return the values of all rows of a table, one after the other along the split dimension: the only concatenation.

    Where a part has no values of the variable, which was added later, they are missing ones.
    """
    if variable.is_immutable:
        (stored,) = table.stretches(variable)
        if stored.path is None:
            return np.full([s.stop - s.start for s in others], missing_value(variable), variable.dtype)
        return read_region(location, stored.path, variable, stored.group_rows, others)
    axis = variable.split_axis
    shape = [s.stop - s.start for s in others]
    shape[axis] = table.rows
    sources: list[Stored] = []
    absent: list[Region] = []
    offset = 0
    for each in table.stretches(variable):
        rows = each.stop - each.start
        target = _replaced(tuple(map(slice, shape)), axis, slice(offset, offset + rows))
        if each.path is None:
            absent.append(target)
        else:
            region = _replaced(others, axis, slice(each.start, each.stop))
            sources.append(Stored(each.path, each.group_rows, region, target))
        offset += rows
    values = read_regions(location, variable, shape, sources)
    for target in absent:
        values[target] = missing_value(variable)
    return values


def _replaced(region: Region, axis: int, along: slice) -> Region:
    return (*region[:axis], along, *region[axis + 1 :])
