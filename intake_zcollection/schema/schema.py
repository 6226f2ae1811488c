"""A collection's schema: its variables, how each is stored, and its attributes. Values only, to and from JSON."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from registry import CollectionRecord, SchemaRecord, VariableRecord

from .attributes import Attributes

TEXT = np.dtype(object, metadata={"element_type": str})
"""The dtype of text of any length; the metadata tells xarray's writers so, which need not look at all values then."""


@dataclass(frozen=True)
class Variable:
    """A variable to add to a collection.

    Parameters
    ----------
    name
        Its name.
    dtype
        The dtype that readers see; ``str`` or ``object`` for text of any length.
    dims
        Its dimensions, all of which the collection has; the split one among them.
    attrs
        Its attributes.
    encoding
        How it is stored, as in xarray: chunks, shards, compressors, filters, packing, time units.
    fill_value
        What it reads as in partitions that have no values of it yet; None for NaN, NaT, 0, False or empty text.
    lossy
        Whether the filters of its encoding may round its values; where they may not, what would come back as another
        value is refused.
    """

    name: str
    dtype: npt.DTypeLike
    dims: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    encoding: Mapping[str, Any] = field(default_factory=dict)
    fill_value: Any = None
    lossy: bool = False


@dataclass(frozen=True)
class SchemaVariable:
    """One variable: what a reader sees of it, and what decodes its bytes."""

    id: int
    name: str
    stored_name: str
    """The array's name inside a fragment, unique in the collection for all time."""
    dtype: np.dtype[Any]
    """The dtype a reader sees, after CF decoding."""
    dims: tuple[str, ...]
    sizes: tuple[int | None, ...]
    """One size per dimension; None for the split dimension."""
    is_coordinate: bool
    array: Mapping[str, Any]
    """The Zarr metadata document of its arrays, codecs resolved, less ``shape`` and the user's attributes."""
    cf: Mapping[str, Any]
    """The CF attributes that decode it: units, calendar, packing, fill value."""
    attrs: Attributes
    """The user's attributes."""
    lives: tuple[tuple[int, int | None], ...] = ((0, None),)
    """From which version to which (not included; None for no end) it was there; fragments of other schemas lack it."""
    fill_value: Any = None
    """What it reads as where a fragment does not hold it; None for what stands for no value in its dtype."""
    lossy: bool = False
    """Whether its codecs may round its values, as whoever brought it said."""
    statistics: bool = False
    """Whether the smallest and the largest value of each part are recorded."""

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: a copy, for another thread may be computing one of the properties below."""
        return dict(vars(self))

    @cached_property
    def array_text(self) -> str:
        """The document as text: what arrays of equal documents have in common."""
        return json.dumps(self.array, sort_keys=True)

    @cached_property
    def stored_dtype(self) -> np.dtype[Any]:
        """The dtype of its stored arrays."""
        return dtype_of(self.array)

    @property
    def is_immutable(self) -> bool:
        """Whether it lacks the split dimension, and is stored once per collection."""
        return None not in self.sizes

    @property
    def split_axis(self) -> int:
        """The position of the split dimension."""
        return self.sizes.index(None)

    @property
    def row_nbytes(self) -> int:
        """The bytes of one row in memory (of the whole variable if it is immutable)."""
        return int(np.prod([size for size in self.sizes if size is not None], dtype=np.int64)) * self.dtype.itemsize

    def shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape with ``rows`` rows along the split dimension."""
        return tuple(rows if size is None else size for size in self.sizes)

    def was_there(self, version: int) -> bool:
        """Whether it was one of the variables of a version."""
        return any(begin <= version and (end is None or version < end) for begin, end in self.lives)

    def to_record(self) -> VariableRecord:
        """Return what the registry keeps of it."""
        return VariableRecord(
            id=self.id,
            name=self.name,
            stored_name=self.stored_name,
            dtype=self.dtype.str,
            dimensions=self.dims,
            sizes=self.sizes,
            role="coordinate" if self.is_coordinate else "data",
            encoding={"array": self.array, "cf": self.cf} | ({"lossy": True} if self.lossy else {}),
            fill_value=self.fill_value,
            attributes=self.attrs.recorded,
            lives=self.lives,
            statistics=self.statistics,
        )

    @classmethod
    def from_record(cls, record: VariableRecord) -> "SchemaVariable":
        """Return the variable that the registry recorded."""
        return cls(
            id=record.id,
            name=record.name,
            stored_name=record.stored_name,
            dtype=TEXT if record.dtype == TEXT.str else np.dtype(record.dtype),
            dims=record.dimensions,
            sizes=record.sizes,
            is_coordinate=record.role == "coordinate",
            array=record.encoding["array"],
            cf=record.encoding["cf"],
            attrs=Attributes(record.attributes),
            lives=record.lives,
            fill_value=record.fill_value,
            lossy=record.encoding.get("lossy", False),
            statistics=record.statistics,
        )


@dataclass(frozen=True)
class Schema:
    """All variables of a collection at one version, by name, and the dataset's attributes."""

    axis: str
    """The ordering variable, one-dimensional along ``dimension``."""
    dimension: str
    """The dimension that is split."""
    zarr_format: Literal[2, 3]
    variables: Mapping[str, SchemaVariable]
    attrs: Attributes = field(default_factory=Attributes)
    next_id: int = field(default=0, compare=False)
    """The id for the next variable."""
    stored_names: tuple[str, ...] = field(default=(), compare=False)
    """The stored names of all variables that there ever were."""

    def added(self, variable: SchemaVariable, begin_version: int) -> "Schema":
        """Return the schema with one more variable, which gets an id and a stored name that none ever had."""
        # Its name may be that of an array of a variable that was dropped, or has another name now.
        others = (f"variable.{number}" for number in itertools.count(self.next_id))
        stored_name = next(name for name in itertools.chain([variable.name], others) if name not in self.stored_names)
        new = replace(variable, id=self.next_id, stored_name=stored_name, lives=((begin_version, None),))
        return replace(
            self,
            variables={**self.variables, new.name: new},
            next_id=self.next_id + 1,
            stored_names=(*self.stored_names, stored_name),
        )

    @property
    def partitioned(self) -> dict[str, SchemaVariable]:
        """The variables with the split dimension: stored once per partition."""
        return {name: variable for name, variable in self.variables.items() if not variable.is_immutable}

    @property
    def immutable(self) -> dict[str, SchemaVariable]:
        """The variables without it: stored once per collection."""
        return {name: variable for name, variable in self.variables.items() if variable.is_immutable}

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of all dimensions but the split one."""
        return {
            dim: size
            for variable in self.variables.values()
            for dim, size in zip(variable.dims, variable.sizes, strict=True)
            if size is not None
        }

    def axis_value(self, value: int | None) -> Any:
        """Return a value of the axis as it has it, from the registry's integer: numpy.datetime64[ns], or int."""
        return value if value is None or self.variables[self.axis].dtype.kind != "M" else np.datetime64(value, "ns")

    def to_record(self) -> SchemaRecord:
        """Return what the registry keeps of it."""
        return SchemaRecord(
            variables=tuple(variable.to_record() for variable in self.variables.values()),
            attributes=self.attrs.recorded,
        )

    @classmethod
    def of(cls, collection: CollectionRecord, record: SchemaRecord) -> "Schema":
        """Return the schema that the registry recorded of a collection."""
        place = {"axis": collection.axis, "dimension": collection.dimension}
        return cls.from_record(record, zarr_format=collection.zarr_format, **place)

    @classmethod
    def from_record(cls, record: SchemaRecord, *, axis: str, dimension: str, zarr_format: Literal[2, 3]) -> "Schema":
        """Return the schema of a record."""
        variables = {variable.name: SchemaVariable.from_record(variable) for variable in record.variables}
        attrs = Attributes(record.attributes)
        return cls(axis, dimension, zarr_format, variables, attrs, record.next_id, record.stored_names)


def dtype_of(document: Mapping[str, Any]) -> np.dtype[Any]:
    """Return numpy's dtype of the arrays of a Zarr document; text of any length is numpy's object.

    >>> dtype_of({"data_type": {"name": "fixed_length_utf32", "configuration": {"length_bytes": 12}}})
    dtype('<U3')
    """
    match document.get("data_type") or document["dtype"]:
        case "string":
            return TEXT
        case {"name": "fixed_length_utf32", "configuration": {"length_bytes": int(nbytes)}}:
            return np.dtype(f"<U{nbytes // 4}")
        case {"name": "null_terminated_bytes", "configuration": {"length_bytes": int(nbytes)}}:
            return np.dtype(f"S{nbytes}")
        case name:
            return np.dtype(str(name))


Values = npt.NDArray[Any]
"""The values of a variable in one partition: an array in memory."""
