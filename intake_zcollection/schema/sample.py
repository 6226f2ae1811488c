"""What xarray and zarr make of an encoding: a sample of one element is written into memory, and read back."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numcodecs.abc
import numpy as np
import xarray as xr
import zarr
import zarr.abc.codec
import zarr.errors
import zarr.storage

from ..errors import InvalidInputError
from .attributes import attributes_to_json
from .encoding import PACKING_KEYS, decode_cf

CF_KEYS = ("_FillValue", "missing_value", "scale_factor", "add_offset", "dtype", "units", "calendar")
"""The attributes by which values are decoded, and the dtype that they are stored in."""


def sample_documents(
    template: xr.Dataset, encodings: Mapping[str, Mapping[str, Any]], zarr_format: Literal[2, 3]
) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return each variable's Zarr document and CF attributes, as xarray writes them."""
    documents = {}
    for name, encoding in encodings.items():
        variable = template.variables[name]
        # Alone, under its own name and without attributes: nothing of its neighbours (bounds, coordinates) mixes in.
        sample = xr.Variable(variable.dims, _sample_values(name, variable, encoding), {}, dict(encoding))
        dataset = xr.Dataset({name: sample.to_base_variable()}).reset_coords()
        try:
            documents[name] = _written(_Sample(name, zarr_format, _recipe(name, sample, zarr_format), dataset))
        except (TypeError, ValueError, OverflowError, KeyError) as error:
            raise unstorable(name, str(error)) from error
    return documents


@dataclass(frozen=True)
class _Sample:
    """A variable of one element; two with one recipe are written alike."""

    name: str
    zarr_format: Literal[2, 3]
    recipe: str | None
    """All that decides how it is written, as a text; None where that has no exact text."""
    dataset: xr.Dataset = field(compare=False)


def _recipe(name: str, sample: xr.Variable, zarr_format: int) -> str | None:
    """Return the text of all that decides how a sample is written; its value follows from these."""
    try:
        encoding = {str(key): _exact_text(value) for key, value in sample.encoding.items()}
    except TypeError:
        return None
    return repr((name, sample.dims, sample.dtype, encoding, zarr_format, zarr.config.config))


def _exact_text(value: Any) -> str:
    """Return a text that equal values have alone; raises TypeError for what is not known to have one."""
    kind = type(value)
    if kind in (tuple, list):
        return f"{kind.__name__}({', '.join(map(_exact_text, value))})"
    if kind in (type(None), bool, int, float, str) or isinstance(value, np.generic | np.dtype):
        return repr(value)
    if isinstance(value, zarr.abc.codec.Codec) and kind.__module__.startswith("zarr."):
        return f"{kind} {value!r}"
    if isinstance(value, numcodecs.abc.Codec) and kind.__module__.startswith("numcodecs."):
        return f"{kind} {value.get_config()!r}"  # their own texts leave out what they find too long
    raise TypeError(kind)


def _sample_values(name: str, variable: xr.Variable, encoding: Mapping[str, Any]) -> Any:
    shape = (1,) * variable.ndim
    if variable.dtype.kind == "m":
        return np.zeros(shape, "m8[ns]")
    if variable.dtype.kind in "OT":
        return np.full(shape, "", object)
    if "dtype" in encoding and any(key in encoding for key in PACKING_KEYS) and variable.dtype.kind in "iuf":
        return np.full(shape, encoding.get("add_offset", 0), np.float64)  # stored as 0, which any dtype holds
    if variable.dtype.kind != "M":
        return np.zeros(shape, variable.dtype.newbyteorder("="))
    cf = {key: encoding[key] for key in ("units", "calendar") if key in encoding}
    try:
        origin = decode_cf(cf, np.zeros(shape, np.int64))
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(
            f"variable {name} has the time encoding {cf}, which is not understood: {error}"
        ) from error
    if origin.dtype.kind != variable.dtype.kind:
        raise InvalidInputError(
            f"variable {name} has the time encoding {cf}, which datetime64[ns] cannot hold (units of months or "
            "years, a reference date outside of 1678 to 2262, or a calendar other than the standard one): convert the "
            "times, and delete units and calendar from its encoding, or choose others"
        )
    return origin


def _written(sample: _Sample) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the Zarr document and the CF attributes of a sample; they are the caller's own."""
    text = _write_sample(sample) if sample.recipe is not None else _write_sample.__wrapped__(sample)
    document, cf = json.loads(text)
    return document, cf


@lru_cache(maxsize=1024)
def _write_sample(sample: _Sample) -> str:
    """Write a sample into memory and return what xarray made of it, as JSON.

    That takes some milliseconds, the greatest part of creating a collection: a product's collections have most of
    their variables in common.
    """
    store, name = zarr.storage.MemoryStore(), sample.name
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # a filter's business with the sample says nothing
        # A missing _FillValue concerns values, and those are checked when they come.
        warnings.simplefilter("ignore", xr.SerializationWarning)
        # Zarr's specification of text of a fixed width is a draft; zarr-python and others read it all the same.
        warnings.simplefilter("ignore", zarr.errors.UnstableSpecificationWarning)
        sample.dataset.to_zarr(store, zarr_format=sample.zarr_format, consolidated=False)
        raw = xr.open_zarr(store, consolidated=False, decode_cf=False, chunks=None)
        document: dict[str, Any] = dict(zarr.open_array(store, path=name, mode="r").metadata.to_dict())
    cf = attributes_to_json({key: raw[name].attrs[key] for key in CF_KEYS if key in raw[name].attrs}, name)
    attributes = document.pop("attributes", {})
    document["attributes"] = {key: attributes[key] for key in CF_KEYS if key in attributes}
    del document["shape"]
    return json.dumps([document, cf])


def unstorable(name: str, why: str) -> InvalidInputError:
    """Return the error for an encoding that cannot be meant."""
    return InvalidInputError(f"variable {name} cannot be stored with the encoding it has: {why}")
