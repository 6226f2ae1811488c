"""Attributes: as JSON values, and those that would change how readers decode a variable."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InvalidInputError

NUMBER_KEYS = ("_FillValue", "missing_value", "scale_factor", "add_offset")
"""The attributes by which numbers are decoded."""

_DECODING_KEYS = (*NUMBER_KEYS, "_Unsigned", "_Encoding", "dtype")


def check_attributes(name: str, dtype: np.dtype[Any], attrs: Mapping[Any, Any]) -> None:
    """Raise InvalidInputError for attributes by which readers would decode a variable."""
    decoding = [key for key in _DECODING_KEYS if key in attrs]
    decoding += [key for key in ("units", "calendar") if key in attrs and dtype.kind in "Mm"]
    if dtype.kind not in "Mm" and " since " in str(attrs.get("units")):
        decoding.append("units")
    for key in decoding:
        raise InvalidInputError(
            f"variable {name} has {key} among its attributes, by which readers would decode it: open its file with "
            f"xarray's decoding, or move {key} into the variable's encoding"
        )


def attributes_to_json(attrs: Mapping[Any, Any], owner: str) -> dict[str, Any]:
    """Return attributes as JSON values: numpy scalars as numbers, arrays as lists.

    Raises
    ------
    InvalidInputError
        A name is not text, or a value has no form in JSON; ``owner`` says whose it is.
    """
    return {
        _attribute_name(name, owner): _to_json(value, f"attribute {name!r} of {owner}") for name, value in attrs.items()
    }


def _attribute_name(name: Any, owner: str) -> str:
    if not isinstance(name, str):
        raise InvalidInputError(f"the attribute name {name!r} of {owner} is not text")
    return name


def _to_json(value: Any, what: str) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            # Subclasses (numpy.float64, an IntEnum) are reduced to what JSON gives back.
            return (
                next(kind(value) for kind in (bool, int, float, str) if isinstance(value, kind))
                if value is not None
                else None
            )
        case np.generic() if value.dtype.kind in "biufU":
            return value.item()
        case np.ndarray() if value.dtype.kind in "biufU":
            return value.tolist()
        case list() | tuple():
            return [_to_json(item, what) for item in value]
        case dict():
            return {str(name): _to_json(item, what) for name, item in value.items()}
    raise InvalidInputError(
        f"{what} is of type {type(value).__name__}, which Zarr's JSON cannot hold: use numbers, text, or lists of them"
    )
