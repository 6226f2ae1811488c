"""What is inserted: datasets of any kind, checked against the schema and encoded, in memory or lazily by dask."""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from typing import Any, Literal

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import delayed

from ..errors import InvalidInputError
from ..partitioning import Partitioning
from ..schema import Schema, SchemaVariable, Values
from ..schema.axis import check_axis
from ..schema.encoding import encode, missing_value, to_nanoseconds
from ..schema.foreign import check_calendars
from ..schema.template import new_variable
from .check import check_dataset, unknown_names
from .meaning import AttributesChoice, Conversion, conversions
from .naming import naming
from .sources import Item

Unknown = Literal["refuse", "drop", "add"]
Missing = Literal["refuse", "fill"]


@dataclass(frozen=True)
class Input:
    """One dataset to insert, with the key and the axis value of each of its rows."""

    stored: Mapping[str, Any]
    """The encoded values of all partitioned variables: numpy's if they were in memory, otherwise dask's."""
    immutable: Mapping[str, Any]
    """The encoded values of the immutable variables that it brings."""
    keys: npt.NDArray[np.int64]
    axis: npt.NDArray[np.int64]
    names: frozenset[str]
    """All variables that it brings."""
    label: str
    """What errors call it."""


def open_item(item: Item, collection: str) -> xr.Dataset:
    """Return the dataset, or what the function returns, or what is in the file."""
    dataset = item.data() if callable(item.data) else item.data
    if not isinstance(dataset, xr.Dataset):
        what = "what the function to insert from returned" if callable(item.data) else "an item"
        raise InvalidInputError(
            f"collection {collection} takes xarray.Dataset objects, functions that return one, and paths of files, and "
            f"{what} is of type {type(dataset).__name__}"
        )
    return dataset


def adapt_schema(schema: Schema, items: Iterable[Item], collection: str, *, unknown: Unknown, head: int) -> Schema:
    """Return the schema with the variables that datasets have and it lacks, if they are to be added.

    Only then are they opened, one after the other.
    """
    if unknown != "add":
        return schema
    for item in items:
        with naming(item.label):
            schema = _with_added(schema, open_item(item, collection), head)
    return schema


def _with_added(schema: Schema, dataset: xr.Dataset, head: int) -> Schema:
    for name in unknown_names(schema, dataset):
        variable = new_variable(schema, dataset[name])
        if variable.is_immutable:
            raise InvalidInputError(
                f"variable {name} lacks the dimension {schema.dimension!r}: unknown='add' adds variables that are "
                "stored with each partition; set_immutables adds others"
            )
        # No fragment up to the head holds it, not even those of variables that the head itself added.
        variable = replace(variable, is_coordinate=name in dataset.coords)
        schema = schema.added(variable, begin_version=head + 1)
    return schema


def plan_input(
    item: Item,
    schema: Schema,
    partitioning: Partitioning,
    *,
    collection: str,
    unknown: Unknown,
    may_lack: Set[str],
    attributes: AttributesChoice,
) -> Input:
    """Check a dataset against the schema, and return it encoded; the partitioned variables that it may lack are filled.

    Of what a function opens, only what planning needs is kept.

    Raises
    ------
    InvalidInputError
        It does not fit, or a value in memory cannot be stored exactly.
    """
    with naming(item.label):
        dataset = open_item(item, collection)
        if unknown == "drop":
            dataset = dataset.drop_vars(unknown_names(schema, dataset))
        needed = {schema.axis, *partitioning.variables}
        _check_times(schema, dataset, collection)
        check_dataset(schema, dataset, collection, may_lack=may_lack - needed)
        # Computed once, for planning and for storing: a source need not give the same twice.
        planned = {name: dataset.variables[name].values for name in needed}
        axis = _axis_values(schema.variables[schema.axis], planned[schema.axis])
        keys = partitioning.key_values({name: planned[name] for name in partitioning.variables})
        converted = conversions(schema, dataset, collection, attributes, fixed=needed)
        immutable = {
            name: encode(variable, converted.get(name, np.asarray)(dataset.variables[name].values))
            for name, variable in schema.immutable.items()
            if name in dataset.variables
        }
        names = frozenset(map(str, dataset.variables))
        call = _later(item, schema, axis) if callable(item.data) else None
        stored = _encoded(schema, dataset, planned, converted, call, item.label)
        return Input(stored, immutable, keys, axis, names, item.label)


def _encoded(
    schema: Schema,
    dataset: xr.Dataset,
    planned: Mapping[str, Values],
    converted: Mapping[str, Conversion],
    call: Any,
    label: str,
) -> dict[str, Any]:
    """Return the partitioned variables as stored: those in memory now, so that bad ones are refused; lazily by dask."""
    stored = dict[str, Any]()
    for name, variable in schema.partitioned.items():
        if name in planned:
            stored[name] = encode(variable, planned[name])
        elif name not in dataset.variables:
            stored[name] = _filled(variable, dataset.sizes[schema.dimension])
        else:
            given = _lazy(name, dataset.variables[name], call, label)
            values = converted[name](given) if name in converted else given
            lazily = isinstance(values, da.Array)
            stored[name] = _encode_later(variable, values, label) if lazily else encode(variable, values)
    return stored


def _check_times(schema: Schema, dataset: xr.Dataset, collection: str) -> None:
    """Refuse what is no axis, and dates where the schema has none of text, with what helps."""
    if schema.axis in dataset.variables:
        check_axis(dataset, schema.axis, schema.dimension, of=f"collection {collection}")
    given = [name for name, variable in schema.variables.items() if variable.dtype.kind not in "USO"]
    check_calendars(dataset, [name for name in given if name in dataset.variables])


def _axis_values(variable: SchemaVariable, values: Values) -> npt.NDArray[np.int64]:
    """Return the axis as it comes back: integers, ns since 1970 for datetimes."""
    if values.dtype.kind == "M":
        missing = np.flatnonzero(np.isnat(values))
        if missing.size:
            raise InvalidInputError(
                f"the axis {variable.name} is NaT in row {missing[0]} ({missing.size} of {values.size} rows); "
                "rows have their place by the axis: drop or fill these"
            )
    if values.dtype.kind == "u" and values.max() > np.iinfo(np.int64).max:
        raise InvalidInputError(
            f"the axis {variable.name} reaches {values.max()}, and the registry counts to 2**63 - 1"
        )
    return (to_nanoseconds(variable, values) if values.dtype.kind == "M" else values).astype(np.int64)


def _later(item: Item, schema: Schema, axis: npt.NDArray[np.int64]) -> Any:
    """Return the call of a function, to be made by the workers, of whose rows the axis is known."""
    opened = partial(_values_of, item.label, schema.variables[schema.axis], _digest(axis))
    return delayed(opened)(item.data)


def _values_of(label: str, axis: SchemaVariable, planned: bytes, function: Callable[[], xr.Dataset]) -> dict[str, Any]:
    with naming(label):
        values = {str(name): variable.values for name, variable in function().variables.items()}
        if axis.name not in values or _digest(_axis_values(axis, values[axis.name])) != planned:
            raise InvalidInputError(
                f"opened once more, it had other values of {axis.name}, and rows have their places by those it had at "
                "first: it has to give the same rows each time; keep files as they are while they are inserted"
            )
        return values


def _digest(axis: npt.NDArray[np.int64]) -> bytes:
    return blake2b(np.ascontiguousarray(axis).tobytes(), digest_size=16).digest()


@dataclass(frozen=True, eq=False)
class _Unread:
    """A variable that was opened from a file, as dask takes arrays; an error of reading it names the file."""

    variable: xr.Variable
    label: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.variable.shape

    @property
    def ndim(self) -> int:
        return self.variable.ndim

    @property
    def dtype(self) -> Any:
        return self.variable.dtype

    def __getitem__(self, key: Any) -> Values:
        with naming(self.label):
            return np.asarray(self.variable[key].values)


def _lazy(name: str, variable: xr.Variable, call: Any, label: str) -> Any:
    """Return dask's array of what is not in memory, or is there only because ``call`` opened it to look."""
    if variable.chunks is not None:
        return variable.data
    if not variable._in_memory:  # opened from a file, and not read yet; xarray has no public word for it
        meta = np.empty((0,) * variable.ndim, variable.dtype)
        return da.from_array(_Unread(variable, label), chunks=-1, name=False, meta=meta)
    if call is not None:
        return da.from_delayed(call[name], variable.shape, variable.dtype)
    return variable.values


def _encode_later(variable: SchemaVariable, values: Any, label: str) -> Any:
    dtype, meta = variable.stored_dtype, np.empty((0,) * values.ndim, variable.stored_dtype)
    return da.map_blocks(partial(_encode_named, label, variable), values, dtype=dtype, meta=meta)


def _encode_named(label: str, variable: SchemaVariable, values: Any) -> Values:
    with naming(label):
        return encode(variable, values)


def _filled(variable: SchemaVariable, rows: int) -> Any:
    shape = variable.shape(rows)
    one = encode(variable, np.full((1,) * len(shape), missing_value(variable), variable.dtype))
    return np.broadcast_to(one, shape)
