"""Attributes: with their dtypes, as JSON values, and those that would change how readers decode a variable."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import InvalidInputError

NUMBER_KEYS = ("_FillValue", "missing_value", "scale_factor", "add_offset")
"""The attributes by which numbers are decoded."""

_DECODING_KEYS = (*NUMBER_KEYS, "_Unsigned", "_Encoding", "dtype")

_DTYPE, _VALUE = "$dtype", "$value"
"""The names in a tag."""


class Attributes(Mapping[str, Any]):
    """The attributes of a variable or a dataset, their numbers in the dtypes that they were given in.

    They are kept as the registry records them, in JSON: numbers that JSON would give back in another dtype, and arrays,
    are tagged, ``{"$dtype": "int8", "$value": [0, 1]}``. Looked up, they are numpy's, made anew each time.

    Parameters
    ----------
    recorded
        The attributes in that form; what has no tags is what it is.
    """

    __slots__ = ("recorded",)

    def __init__(self, recorded: Mapping[str, Any] | None = None) -> None:
        self.recorded: dict[str, Any] = dict(recorded or {})

    @classmethod
    def of(cls, attrs: Mapping[Any, Any], owner: str) -> "Attributes":
        """Return the attributes that a user gave; raises as :func:`attributes_to_json`."""
        return cls(
            {
                _attribute_name(name, owner): _tagged(value, f"attribute {name!r} of {owner}")
                for name, value in attrs.items()
            }
        )

    @property
    def plain(self) -> dict[str, Any]:
        """As Zarr's JSON has them, and any of its readers sees them: without dtypes."""
        return {name: _plain(value) for name, value in self.recorded.items()}

    def updated(self, others: "Attributes") -> "Attributes":
        """Return these with others set over them; those that are None are taken away."""
        recorded = {**self.recorded, **others.recorded}
        return Attributes({name: value for name, value in recorded.items() if value is not None})

    def __getitem__(self, name: str) -> Any:
        return _typed(self.recorded[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.recorded)

    def __len__(self) -> int:
        return len(self.recorded)

    def __eq__(self, other: object) -> bool:
        """Whether the other ones are the same, in dtype too; NaN is the same as NaN."""
        if not isinstance(other, Mapping):
            return NotImplemented
        others = other if isinstance(other, Attributes) else Attributes.of(other, "the other ones")
        return json.dumps(self.recorded, sort_keys=True) == json.dumps(others.recorded, sort_keys=True)

    __hash__ = None  # type: ignore[assignment]  # as a dict has none

    def __repr__(self) -> str:
        return repr(dict(self))


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
    return Attributes.of(attrs, owner).plain


def _attribute_name(name: Any, owner: str) -> str:
    if not isinstance(name, str):
        raise InvalidInputError(f"the attribute name {name!r} of {owner} is not text")
    return name


def _tagged(value: Any, what: str) -> Any:
    """Return a value in JSON, from which :func:`_typed` makes it again."""
    match value:
        case None | bool() | int() | float() | str():
            # Subclasses (numpy.float64, an IntEnum) are reduced to what JSON gives back.
            return (
                next(kind(value) for kind in (bool, int, float, str) if isinstance(value, kind))
                if value is not None
                else None
            )
        case np.ndarray() if value.ndim == 0:
            return _tagged(value[()], what)
        case np.generic() if value.dtype.kind in "bU" or value.dtype == np.int64:
            return value.item()  # JSON gives back the same
        case np.ndarray() if value.dtype.kind == "U":
            return value.tolist()
        case np.generic() | np.ndarray() if value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
            return {_DTYPE: value.dtype.name, _VALUE: value.tolist()}
        case list() | tuple():
            return [_tagged(item, what) for item in value]
        case dict():
            tagged = {str(name): _tagged(item, what) for name, item in value.items()}
            return {_DTYPE: "dict", _VALUE: tagged} if _is_tag(tagged) else tagged
    raise InvalidInputError(
        f"{what} is of type {type(value).__name__}, which Zarr's JSON cannot hold: use numbers, text, or lists of them"
    )


def _is_tag(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {_DTYPE, _VALUE}


def _plain(value: Any) -> Any:
    """Return a recorded value without its tags."""
    if _is_tag(value):
        inner = value[_VALUE]
        return {name: _plain(item) for name, item in inner.items()} if value[_DTYPE] == "dict" else inner
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _typed(value: Any) -> Any:
    """Return a recorded value as it was given."""
    if _is_tag(value):
        inner = value[_VALUE]
        if value[_DTYPE] == "dict":
            return {name: _typed(item) for name, item in inner.items()}
        array = np.array(inner, value[_DTYPE])
        return array if array.ndim else array[()]
    if isinstance(value, dict):
        return {name: _typed(item) for name, item in value.items()}
    return [_typed(item) for item in value] if isinstance(value, list) else value
