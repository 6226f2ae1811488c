"""Whether a dataset fits a schema; asked before anything is written."""

from collections.abc import Container
from typing import Any, Literal

import numpy as np
import xarray as xr

from registry import CollectionRecord

from ..errors import InvalidInputError
from ..partitioning import partitioning_from_json
from ..schema import Schema, SchemaVariable
from ..schema.encoding import is_plain
from ..schema.foreign import pandas_remedy
from ..schema.names import near

Views = Literal["refuse", "break"]
"""What happens if views need what is to be dropped."""


def may_break(views: Views) -> bool:
    """Whether views may lose what they need; raises InvalidInputError for another word."""
    if views not in ("refuse", "break"):
        raise InvalidInputError(f"views={views!r} is neither 'refuse' nor 'break'")
    return views == "break"


def unknown_names(schema: Schema, data: xr.Dataset) -> list[str]:
    """Return the names of variables that the schema does not have."""
    return [str(name) for name in data.variables if name not in schema.variables]


def check_dataset(schema: Schema, data: xr.Dataset, collection: str, *, may_lack: Container[str] = ()) -> None:
    """Raise InvalidInputError unless ``data`` can be inserted: its names, dimensions, sizes, dtypes, and some rows.

    Values are checked when they are encoded. Of the partitioned variables, it may lack ``may_lack``.
    """
    unknown = unknown_names(schema, data)
    if unknown:
        raise InvalidInputError(
            f"collection {collection} has no variable {', '.join(unknown)} ({near(unknown[0], schema.variables)}); "
            "leave it out with data.drop_vars(…) or unknown='drop', or add it with unknown='add'"
        )
    missing = [name for name in schema.partitioned if name not in data.variables and name not in may_lack]
    if missing:
        raise InvalidInputError(
            f"the dataset lacks {', '.join(missing)}, which collection {collection} has; add it"
            + (", or insert with missing='fill'" if schema.axis not in missing else "")
        )
    for name in data.variables:
        check_variable(schema, schema.variables[str(name)], data.variables[name], collection)
    if data.sizes[schema.dimension] == 0:
        raise InvalidInputError(
            f"the dataset is empty: it has no rows along {schema.dimension!r}, and would change nothing in {collection}"
        )


def check_variable(schema: Schema, variable: SchemaVariable, data: xr.Variable, collection: str) -> None:
    """Raise InvalidInputError unless dimensions, sizes and dtype are those of the schema."""
    what = f"variable {variable.name} of collection {collection}"
    if data.dims != variable.dims:
        raise InvalidInputError(
            f"{what} has dimensions {variable.dims}, and the dataset's {data.dims}; transpose or rename them"
        )
    for dim, size in data.sizes.items():
        expected = schema.sizes.get(str(dim), size)
        if size != expected:
            raise InvalidInputError(f"{what} has size {expected} along {dim!r}, and the dataset's {size}")
    if not isinstance(data.dtype, np.dtype):
        raise InvalidInputError(
            f"{what} is {variable.dtype}, and the dataset's is pandas' {data.dtype}; "
            f"{pandas_remedy(variable.name, data)}"
        )
    check_dtype(variable, data.dtype, what)


def check_dtype(variable: SchemaVariable, dtype: np.dtype[Any], what: str) -> None:
    """Raise InvalidInputError unless a variable holds all values of a dtype; ``what`` it is, for the message."""
    if not isinstance(dtype, np.dtype):
        raise InvalidInputError(
            f"{what} is {variable.dtype}, and the dataset's is pandas' {dtype}; convert it to numpy's"
        )
    if variable.dtype.kind in "USO":  # whether it fits is asked of the values
        if dtype.kind not in ("S" if variable.dtype.kind == "S" else "UOT"):
            raise InvalidInputError(f"{what} is text of dtype {variable.dtype}, and the dataset's is {dtype}")
        return
    if dtype.kind == "O":
        raise InvalidInputError(
            f"{what} is {variable.dtype}, and the dataset holds Python objects; dates of a calendar that datetime64 "
            "cannot hold (cftime) have to be converted, with data.convert_calendar('standard') for one"
        )
    packed = variable.dtype.kind == "f" and not is_plain(variable.cf)
    fits = dtype.kind in "iuf" if packed else np.can_cast(dtype, variable.dtype, "safe")
    if variable.dtype.kind in "Mm" and dtype.kind != variable.dtype.kind:
        fits = False  # numpy takes an integer for a timedelta
    if not fits:
        raise InvalidInputError(
            f"{what} is {variable.dtype}, and the dataset's {dtype} would lose values in it; convert it yourself, "
            f"data[{variable.name!r}].astype({str(variable.dtype)!r}), if that is meant"
        )


def protected_names(schema: Schema, collection: CollectionRecord) -> set[str]:
    """Return the variables by which rows have their place: the axis, and those that partition."""
    return {schema.axis, *partitioning_from_json(collection.partitioning).variables}
