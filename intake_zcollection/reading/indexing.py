"""Indexes as numpy has them: which rows have which values, computed from variables in memory.

Runs of equal values are run-length encoding; a function of whole partitions that tells the ranges itself is what
zcollection calls an indexer.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from registry import IndexRecord
from registry.indexes import ColumnKind, Value
from registry.records import MAX_COLUMNS

from ..errors import InvalidInputError
from ..functions import import_function
from ..schema import Schema, SchemaVariable, Values
from ..schema.names import near
from .lookup import why_no_text

_KINDS: dict[str, ColumnKind] = {**dict.fromkeys("iub", "integer"), "M": "time", **dict.fromkeys("UO", "text")}
"""What numpy's kinds are looked up as."""


class Run(NamedTuple):
    """Consecutive rows with the same values."""

    start: int
    stop: int
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Indexer:
    """An index and what computes it, in this process."""

    record: IndexRecord
    collection: str
    """The collection's name, for messages."""
    function: Callable[[xr.Dataset], Any] | None = None

    @classmethod
    def of(cls, record: IndexRecord, collection: str) -> "Indexer":
        """Return it; raises InvalidInputError if its function cannot be imported here, or may not be."""
        if record.function is None:
            return cls(record, collection)
        what = f"index {record.name} of collection {collection}"
        return cls(record, collection, import_function(what, record.function))

    def inputs(self, schema: Schema) -> list[SchemaVariable]:
        """Return the variables that it is computed from."""
        return [variable for variable in schema.variables.values() if variable.id in self.record.inputs]

    def runs(self, schema: Schema, values: Mapping[int, Values], partition: str) -> list[Run]:
        """Return which rows have which values, of the decoded values of the inputs by their ids."""
        result = self.call(schema, values, partition)
        arrays = self.arrays(result, partition)
        kinds = self.record.columns
        columns = {name: self._column(arrays[name], name, kind, partition) for name, kind in kinds.items()}
        rows = next(len(each) for id_, each in values.items() if id_ in self.record.inputs)
        if self.record.per == "partition":
            return self._ranges(result, columns, rows, partition)
        for name, found in columns.items():
            if len(found) != rows:
                raise self.wrong(partition, f"has {len(found)} values of {name} for {rows} rows")
        return list(_runs(columns.values(), rows))

    def call(self, schema: Schema, values: Mapping[int, Values], partition: str) -> Any:
        """Return what the function makes of the inputs, or these."""
        names = self.record.inputs
        dataset = xr.Dataset(
            {names[each.id]: xr.Variable(each.dims, values[each.id], dict(each.attrs)) for each in self.inputs(schema)}
        )
        if self.function is None:
            return dataset
        try:
            return self.function(dataset)
        except Exception as error:
            error.add_note(f"in {partition}, for index {self.record.name} of collection {self.collection}")
            raise

    def wrong(self, partition: str, what: str) -> InvalidInputError:
        """Return the error of what does not fit."""
        return InvalidInputError(f"{partition}: index {self.record.name} of collection {self.collection} {what}")

    def arrays(self, result: Any, partition: str) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of what was computed."""
        return {name: self._array(result, name, partition) for name in self.record.columns}

    def _column(self, values: npt.NDArray[Any], name: str, kind: ColumnKind, partition: str) -> npt.NDArray[Any]:
        found = _KINDS.get(values.dtype.kind)
        if not len(values):  # of an empty list numpy says that it has floats
            return np.array([], object if kind == "text" else np.int64)
        if found != kind:
            raise self.wrong(partition, f"has {name} as {values.dtype}, and its values are of the kind {kind!r}")
        if kind == "time":
            return values.astype("M8[ns]").astype(np.int64)
        if kind == "text":
            return self._texts(values.astype(object), name, partition)
        if values.dtype == np.uint64 and len(values) and values.max() > np.iinfo(np.int64).max:
            raise self.wrong(partition, f"has values of {name} beyond what 64 bits with a sign can hold")
        return values.astype(np.int64)

    def _texts(self, values: npt.NDArray[Any], name: str, partition: str) -> npt.NDArray[Any]:
        """Return texts; None is a missing one."""
        for value in {*values.tolist()} - {None}:
            if why := why_no_text(value):
                raise self.wrong(
                    partition, f"has a value of {name} that is no text to look up, it {why}: {value!r:.60}"
                )
        return values

    def _array(self, result: Any, name: str, partition: str) -> npt.NDArray[Any]:
        """Return a column of what a function returned: an array of the only one, or what has columns by name."""
        by_position = isinstance(result, np.ndarray | xr.DataArray) and result.dtype.names is None
        if by_position and len(self.record.columns) == 1 and name in self.record.columns:
            return np.asarray(result)
        try:
            values = np.asarray(result[name])
        except (KeyError, IndexError, ValueError, TypeError):
            raise self.wrong(
                partition,
                f"has no {name}: its function has to return arrays by these names, {', '.join(self._wanted)}, and "
                f"returned {type(result).__name__}",
            ) from None
        if values.ndim != 1:
            raise self.wrong(partition, f"has {name} with {values.ndim} dimensions, and needs one value each")
        return values

    @property
    def _wanted(self) -> list[str]:
        more = ["start", "stop"] if self.record.per == "partition" else []
        return [*self.record.columns, *more]

    def _ranges(self, result: Any, columns: Mapping[str, npt.NDArray[Any]], rows: int, partition: str) -> list[Run]:
        starts, stops = (self._array(result, name, partition) for name in ("start", "stop"))
        lengths = {len(each) for each in (starts, stops, *columns.values())}
        if len(lengths) > 1 or any(each.dtype.kind not in "iu" for each in (starts, stops) if len(each)):
            raise self.wrong(partition, "needs as many starts and stops, integers, as values")
        runs = [
            Run(int(start), int(stop), tuple(values))
            for start, stop, *values in zip(starts, stops, *map(_plain, columns.values()), strict=True)
        ]
        if wrong := next((run for run in runs if not 0 <= run.start < run.stop <= rows), None):
            raise self.wrong(partition, f"has the range {wrong.start} to {wrong.stop} of {rows} rows")
        return sorted(run for run in runs if None not in run.values)


def _plain(values: npt.NDArray[Any]) -> list[Any]:
    """Return values as Python has them; None where a time is missing."""
    return [None if value == _NAT else value for value in values.tolist()]


_NAT = np.iinfo(np.int64).min


def _runs(columns: Iterable[npt.NDArray[Any]], rows: int) -> Iterable[Run]:
    """Yield the runs of equal values, but for those of missing times."""
    if not rows:
        return
    columns = list(columns)
    new = np.zeros(rows, bool)
    new[0] = True
    for values in columns:
        new[1:] |= values[1:] != values[:-1]
    starts = np.flatnonzero(new)
    stops = np.append(starts[1:], rows)
    of_runs = (_plain(each[starts]) for each in columns)
    for start, stop, *found in zip(starts.tolist(), stops.tolist(), *of_runs, strict=True):
        if None not in found:
            yield Run(start, stop, tuple(found))


def divided(runs: Iterable[Run], ends: Sequence[int]) -> Iterator[tuple[int, int, int, tuple[Value, ...]]]:
    """Yield runs of rows that are parts one after the other, divided where one ends: which part, and which rows.

    ``ends`` has 0 and where each part ends.
    """
    for run in runs:
        first, last = bisect_right(ends, run.start) - 1, bisect_left(ends, run.stop)
        edges = [run.start, *ends[first + 1 : last], run.stop]
        for number, (start, stop) in enumerate(pairwise(edges), first):
            yield number, start, stop, run.values


def kind_of(dtype: np.dtype[Any], name: str, collection: str) -> ColumnKind:
    """Return as what the values of a column are looked up; raises InvalidInputError for what cannot be."""
    if dtype.kind in _KINDS:
        return _KINDS[dtype.kind]
    why = (
        "floats are equal by chance: keep statistics (add_statistics), and select by where="
        if dtype.kind == "f"
        else "an index takes integers, times and text"
    )
    raise InvalidInputError(
        f"{name} of collection {collection} is {dtype}, which cannot be a column of an index: {why}"
    )


def check_columns(columns: Iterable[str], collection: str) -> tuple[str, ...]:
    """Return the names of the columns of an index; raises InvalidInputError."""
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    if not names or len(names) > MAX_COLUMNS or len(set(names)) < len(names):
        raise InvalidInputError(
            f"columns={columns!r} of an index of collection {collection}: give 1 to {MAX_COLUMNS} different names"
        )
    if wrong := [name for name in names if not isinstance(name, str) or not name.isidentifier()]:
        raise InvalidInputError(f"columns={columns!r} of an index of collection {collection}: {wrong[0]!r} is no name")
    return names


def find_index(indexes: Iterable[IndexRecord], name: str, collection: str) -> IndexRecord:
    """Return the index of a name; raises InvalidInputError."""
    by_name = {each.name: each for each in indexes}
    if name not in by_name:
        raise InvalidInputError(f"collection {collection} has no index {name} at this version; {near(name, by_name)}")
    return by_name[name]
