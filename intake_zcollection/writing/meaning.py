"""What numbers mean: attributes of the given data that say otherwise than the collection's, and values in its units."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr

from registry.changes import AttributesUnchanged

from ..errors import InvalidInputError
from ..schema import Schema, SchemaVariable
from ..schema.units import convert_units, is_same_unit

AttributesChoice = Literal["refuse", "keep", "convert"]
"""What happens if attributes that say what numbers mean differ."""

_MEANINGS = ("units", "standard_name", "calendar", "flag_values", "flag_meanings", "flag_masks")


@dataclass(frozen=True)
class Conversion:
    """Values of a variable in the collection's units. Plain data: workers receive it pickled."""

    variable: SchemaVariable
    source: Any
    target: Any

    def __call__(self, values: Any) -> Any:
        """Return numpy's or dask's array converted; dask's lazily."""
        if isinstance(values, da.Array):
            meta = np.empty((0,) * values.ndim, self._dtype)
            return da.map_blocks(self._convert, values, dtype=self._dtype, meta=meta)
        return self._convert(values)

    @property
    def _dtype(self) -> np.dtype[Any]:
        # What a float variable holds of a product is a rounded one; into integers, only whole numbers are encoded.
        return self.variable.dtype if self.variable.dtype.kind == "f" else np.dtype(np.float64)

    def _convert(self, values: Any) -> Any:
        try:
            converted = convert_units(np.asarray(values), self.source, self.target)
        except (ImportError, ValueError) as error:  # the former on a worker: the planner has asked already
            raise InvalidInputError(f"variable {self.variable.name} cannot be converted: {error}") from error
        return converted.astype(self._dtype)


def conversions(
    schema: Schema, data: xr.Dataset, collection: str, attributes: AttributesChoice, *, fixed: Container[str]
) -> Mapping[str, Conversion]:
    """Return what to convert, by variable; ``fixed`` are those whose values may not be touched.

    Raises
    ------
    InvalidInputError
        AttributesChoice differ that say what numbers mean, and they are not to be kept, or cannot be converted.
    """
    if attributes == "keep":
        return {}
    found = {name: differences(variable, data.variables[name]) for name, variable in _both(schema, data).items()}
    may = attributes == "convert"
    convertible = {name for name, each in found.items() if may and list(each) == ["units"] and name not in fixed}
    refused = {name: each for name, each in found.items() if each and name not in convertible}
    if refused:
        raise InvalidInputError(_refusal(refused, collection, attributes, fixed))
    return {name: _conversion(schema.variables[name], data.variables[name], collection) for name in convertible}


def check_meaning(schema: Schema, data: xr.Dataset, collection: str) -> None:
    """Raise InvalidInputError where attributes differ that say what numbers mean, for who cannot convert them."""
    found = {name: differences(variable, data.variables[name]) for name, variable in _both(schema, data).items()}
    refused = {name: each for name, each in found.items() if each}
    if refused:
        raise InvalidInputError(f"{_differing(refused, collection)}; convert the values, or correct the attribute")


def meaning_need(variables: Iterable[SchemaVariable]) -> AttributesUnchanged:
    """Return what depends on the numbers of variables meaning what they do."""
    return AttributesUnchanged(
        {each.id: {name: each.attrs.recorded.get(name) for name in _MEANINGS} for each in variables}
    )


def differences(variable: SchemaVariable, data: xr.Variable) -> dict[str, tuple[Any, Any]]:
    """Return by attribute what the collection and the data say, where both say something, and not the same."""
    there = [name for name in _MEANINGS if name in variable.attrs and name in data.attrs]
    pairs = {name: (variable.attrs[name], data.attrs[name]) for name in there}
    return {name: pair for name, pair in pairs.items() if not _same(name, *pair)}


def _both(schema: Schema, data: xr.Dataset) -> dict[str, SchemaVariable]:
    return {name: variable for name, variable in schema.variables.items() if name in data.variables}


def _same(name: str, one: Any, other: Any) -> bool:
    if name.startswith("flag_") and name != "flag_meanings":
        return np.array_equal(np.ravel(one), np.ravel(other))
    if name == "units":
        return is_same_unit(one, other)
    return str(one).split() == str(other).split()


def _differing(found: Mapping[str, Mapping[str, tuple[Any, Any]]], collection: str) -> str:
    each = [
        f"variable {variable} has {name} {_shown(given)} in the dataset, and {_shown(own)} in collection {collection}"
        for variable, pairs in found.items()
        for name, (own, given) in pairs.items()
    ]
    return "; ".join(each)


def _shown(value: Any) -> str:
    return repr(value.tolist() if isinstance(value, np.ndarray | np.generic) else value)


def _refusal(
    found: Mapping[str, Mapping[str, tuple[Any, Any]]],
    collection: str,
    attributes: AttributesChoice,
    fixed: Container[str],
) -> str:
    keep = "attributes='keep' if only the attribute is wrong, and the values are as the collection's"
    if attributes == "refuse":
        only_units = all(list(each) == ["units"] and name not in fixed for name, each in found.items())
        how = "insert with attributes='convert', or with " if only_units else "convert it yourself, or insert with "
        return f"{_differing(found, collection)}; {how}{keep}"
    kept = [name for name in found if name in fixed]
    why = f"rows have their place by {', '.join(kept)}" if kept else "only units are converted"
    return f"{_differing(found, collection)}; {why}: convert it yourself, or insert with {keep}"


def _conversion(variable: SchemaVariable, data: xr.Variable, collection: str) -> Conversion:
    """Return the conversion of a variable, after a try."""
    source, target = data.attrs["units"], variable.attrs["units"]
    what = f"variable {variable.name} of collection {collection} has units {target!r}, and the dataset's {source!r}"
    if variable.dtype.kind not in "iuf":
        raise InvalidInputError(f"{what}: {variable.dtype} is not converted; convert it yourself")
    said = (*variable.attrs.items(), *data.attrs.items())
    if any(name == "units_metadata" and "difference" in str(text) for name, text in said):
        raise InvalidInputError(f"{what}: differences of temperatures are not converted; convert it yourself")
    try:
        convert_units(np.zeros(1), source, target)
    except ImportError as error:
        raise InvalidInputError(
            f"{what}: attributes='convert' takes pint; pip install 'intake-zcollection[units]', or convert it yourself"
        ) from error
    except ValueError as error:
        raise InvalidInputError(f"{what}, and there is no conversion: {error}") from error
    return Conversion(variable, source, target)
