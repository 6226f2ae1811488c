"""From a template dataset to a schema: every encoding resolved once, when the collection is created.

xarray itself writes a sample of one element per variable into memory; the Zarr documents that it makes
(codecs, fill values, CF attributes, in either format) become the schema. So whatever xarray would write, we
write, and nothing is left to a default that a later release may change.
"""

import json
import math
import warnings
from collections.abc import Container, Hashable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numcodecs
import numpy as np
import xarray as xr
import zarr
import zarr.codecs
import zarr.storage

from .encoding import decode_cf
from .errors import InvalidInputError
from .schema import Schema, SchemaVariable, attributes_to_json

_CHUNK_NBYTES = 16 * 2**20
"""The size that default chunks stay below, in memory: some tenths of a second from an object store."""

_CHUNK_RATIO = 8
"""How many more rows than the widest variable's a default chunk of a narrow one has at most. Eight chunks are dask's
default block of 128 MiB, and so no chunk of a narrow variable is read for more than one block."""

_CF_KEYS = ("_FillValue", "missing_value", "scale_factor", "add_offset", "dtype", "units", "calendar")
_STORAGE_KEYS = ("chunks", "shards", "compressors", "filters", "serializer")
_UNSUPPORTED_KEYS = ("_Unsigned",)
_RELATION_KEYS = ("grid_mapping", "bounds", "cell_measures", "ancillary_variables", "formula_terms")

_TIME_ENCODING = {
    "M": {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian", "dtype": np.dtype("int64")},
    "m": {"units": "nanoseconds", "dtype": np.dtype("int64")},
}


def schema_from_template(template: xr.Dataset, *, axis: str, dimension: str, zarr_format: Literal[2, 3]) -> Schema:
    """Return the schema of a dataset like ``template``, of which only metadata is used.

    Parameters
    ----------
    template
        Any dataset with the collection's variables; may be lazy, nothing is computed. Each variable's
        ``encoding`` says how it is stored: chunks, shards, compressors, filters, packing, fill value, time units.
    axis, dimension
        The ordering variable, and the dimension that is split.
    zarr_format
        2 or 3.

    Raises
    ------
    InvalidInputError
        A variable or an attribute that cannot be stored.
    """
    names = [_check_name(name) for name in template.variables]
    encodings = {name: _resolve_encoding(name, template.variables[name], zarr_format) for name in names}
    documents = _sample_documents(template, encodings, zarr_format)
    variables = {}
    for id_, name in enumerate(names):
        variable = template.variables[name]
        array, cf = documents[name]
        sizes = tuple(None if dim == dimension else size for dim, size in variable.sizes.items())
        dtype = decode_cf(cf, np.zeros(0, array.get("data_type") or array["dtype"])).dtype
        if zarr_format == 3:  # "." makes a file per chunk in one directory, the default "/" a directory per dimension
            array["chunk_key_encoding"] = {"name": "default", "configuration": {"separator": "."}}
        variables[name] = SchemaVariable(
            id=id_,
            name=name,
            stored_name=name,
            dtype=dtype,
            dims=tuple(str(dim) for dim in variable.dims),
            sizes=sizes,
            is_coordinate=name in template.coords,
            array=array,
            cf=cf,
            attrs=attributes_to_json(_attributes(variable), f"variable {name}"),
        )
    requested = {name for name, encoding in encodings.items() if "chunks" in encoding or "shards" in encoding}
    variables = _with_default_chunks(variables, requested)
    return Schema(axis, dimension, zarr_format, variables, attributes_to_json(template.attrs, "the dataset"))


def _check_name(name: Hashable) -> str:
    if not isinstance(name, str) or not name or "/" in name or name.startswith((".", "__")) or name == "zarr.json":
        raise InvalidInputError(
            f"the variable name {name!r} cannot be a Zarr array's: use text without '/', not hidden"
        )
    return name


def _attributes(variable: xr.Variable) -> dict[Hashable, Any]:
    # With decode_coords="all", xarray moves the relations between variables into the encoding.
    relations = {key: variable.encoding[key] for key in _RELATION_KEYS if key in variable.encoding}
    return {**relations, **variable.attrs}


def _resolve_encoding(name: str, variable: xr.Variable, zarr_format: int) -> dict[str, Any]:
    if variable.dtype.kind not in "biufcMm":
        calendar = " (a calendar that datetime64 cannot hold?)" if _holds_cftime(variable) else ""
        raise InvalidInputError(
            f"variable {name} is {variable.dtype}{calendar}: numbers, bool, datetime64, timedelta64 can be stored"
        )
    given = dict(variable.encoding)
    for key in _UNSUPPORTED_KEYS:
        if key in given:
            raise InvalidInputError(f"variable {name}: the encoding {key!r} is not supported; use an unsigned dtype")
    if "compressor" in given:  # the name it had in xarray for format 2
        compressor = given.pop("compressor")
        given.setdefault("compressors", (compressor,) if compressor is not None else None)
    encoding = {key: given[key] for key in _CF_KEYS + _STORAGE_KEYS if given.get(key) is not None}
    encoding.setdefault("_FillValue", None)  # xarray would give floats one, and a float16 would come back as float32
    if variable.dtype.kind in _TIME_ENCODING:
        defaults = _TIME_ENCODING[variable.dtype.kind]
        encoding = {**defaults, **encoding} if "units" not in encoding else {"dtype": np.dtype("int64"), **encoding}
    if "compressors" not in given or given.get("compressors") == "auto":
        encoding["compressors"] = _default_compressor(zarr_format)
    elif given["compressors"] is None:
        encoding["compressors"] = None
    return encoding


def _holds_cftime(variable: xr.Variable) -> bool:
    if variable.dtype != object or variable.size == 0:
        return False
    first = variable[(0,) * variable.ndim].values.item()
    return hasattr(first, "calendar")


def _default_compressor(zarr_format: int) -> Any:
    if zarr_format == 2:
        return numcodecs.Blosc(cname="zstd", clevel=3, shuffle=numcodecs.Blosc.SHUFFLE)
    return zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")


def _sample_documents(
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
            documents[name] = _write_sample(dataset, name, zarr_format)
        except (TypeError, ValueError, OverflowError, KeyError) as error:
            raise InvalidInputError(f"variable {name} cannot be stored with the encoding it has: {error}") from error
    return documents


def _sample_values(name: str, variable: xr.Variable, encoding: Mapping[str, Any]) -> Any:
    shape = (1,) * variable.ndim
    if variable.dtype.kind not in "Mm":
        return np.zeros(shape, variable.dtype)
    cf = {key: encoding[key] for key in ("units", "calendar") if key in encoding}
    try:
        origin = decode_cf(cf, np.zeros(shape, np.int64))
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(
            f"variable {name} has the time encoding {cf}, which is not understood: {error}"
        ) from error
    if origin.dtype.kind != variable.dtype.kind:
        raise InvalidInputError(
            f"variable {name} has the time encoding {cf}, which datetime64 cannot hold (units of months or years, or a "
            "calendar other than the standard one): convert the times, and delete units and calendar from its encoding"
        )
    return origin


def _write_sample(dataset: xr.Dataset, name: str, zarr_format: Literal[2, 3]) -> tuple[dict[str, Any], dict[str, Any]]:
    store = zarr.storage.MemoryStore()
    with warnings.catch_warnings():
        # A missing _FillValue concerns values, and those are checked when they come.
        warnings.simplefilter("ignore", xr.SerializationWarning)
        dataset.to_zarr(store, zarr_format=zarr_format, consolidated=False)
    raw = xr.open_zarr(store, consolidated=False, decode_cf=False, chunks=None)
    metadata = zarr.open_array(store, path=name, mode="r").metadata
    document: dict[str, Any] = json.loads(json.dumps(metadata.to_dict()))
    cf = attributes_to_json({key: raw[name].attrs[key] for key in _CF_KEYS if key in raw[name].attrs}, name)
    attributes = document.pop("attributes", {})
    document["attributes"] = {key: attributes[key] for key in _CF_KEYS if key in attributes}
    del document["shape"]
    return document, cf


def _with_default_chunks(
    variables: Mapping[str, SchemaVariable], requested: Container[str]
) -> dict[str, SchemaVariable]:
    """Return the variables, with default chunks where their encoding does not name any."""
    widest = max((variable.row_nbytes for variable in variables.values() if not variable.is_immutable), default=1)
    rows = _CHUNK_RATIO * max(1, _CHUNK_NBYTES // max(1, widest))
    return {
        name: variable if name in requested else replace(variable, array=_chunked(variable, rows))
        for name, variable in variables.items()
    }


def _chunked(variable: SchemaVariable, most_rows: int) -> dict[str, Any]:
    """Return the document with chunks of whole rows; a row that does not fit is cut along its longest dimensions."""
    chunks = [1 if size is None else max(1, size) for size in variable.sizes]
    while (nbytes := math.prod(chunks) * variable.dtype.itemsize) > _CHUNK_NBYTES:
        longest = chunks.index(max(chunks))
        chunks[longest] = -(-chunks[longest] // 2)
    if not variable.is_immutable:
        chunks[variable.split_axis] = min(most_rows, max(1, _CHUNK_NBYTES // nbytes))
    if "chunks" in variable.array:
        return {**variable.array, "chunks": chunks}
    return {**variable.array, "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}}}
