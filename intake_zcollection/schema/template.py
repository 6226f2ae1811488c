"""From a template dataset to a schema: every encoding resolved once, when the collection is created.

xarray itself writes a sample of one element per variable into memory; the Zarr documents that it makes
(codecs, fill values, CF attributes, in either format) become the schema. So whatever xarray would write, we
write, and nothing is left to a default that a later release may change.
"""

import math
from collections.abc import Container, Hashable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numcodecs
import numpy as np
import xarray as xr
import zarr.codecs

from ..errors import InvalidInputError
from .attributes import NUMBER_KEYS, Attributes, check_attributes
from .encoding import DURATION_UNITS, PACKING_KEYS, decode_cf, encode, missing_value
from .foreign import check_calendars, pandas_remedy
from .names import check_name
from .sample import CF_KEYS, sample_documents, unstorable
from .schema import Schema, SchemaVariable, Variable, dtype_of

_CHUNK_NBYTES = 16 * 2**20
"""The size that default chunks stay below, in memory: some tenths of a second from an object store."""

_CHUNK_RATIO = 8
"""How many more rows than the widest variable's a default chunk of a narrow one has at most. Eight chunks are dask's
default block of 128 MiB, and so no chunk of a narrow variable is read for more than one block."""

_STORAGE_KEYS = ("chunks", "shards", "compressors", "filters", "serializer")
_UNSUPPORTED_KEYS = ("_Unsigned",)
_RELATION_KEYS = ("grid_mapping", "bounds", "cell_measures", "ancillary_variables", "formula_terms")

_TIME_ENCODING = {
    "units": "nanoseconds since 1970-01-01",
    "calendar": "proleptic_gregorian",
    "dtype": np.dtype("int64"),
}


def schema_from_template(template: xr.Dataset, *, axis: str, dimension: str, zarr_format: Literal[2, 3]) -> Schema:
    """Return the schema of a dataset like ``template``, of which only metadata is used.

    Parameters
    ----------
    template
        Any dataset with the collection's variables; may be lazy, nothing is computed (but the first of Python objects
        of which nothing is known: they may be dates). Each variable's ``encoding`` says how it is stored: chunks,
        shards, compressors, filters, packing, fill value, time units; and by ``lossy`` whether its filters may round.
    axis, dimension
        The ordering variable, and the dimension that is split.
    zarr_format
        2 or 3.

    Raises
    ------
    InvalidInputError
        A variable or an attribute that cannot be stored.
    """
    names = [check_name(name) for name in template.variables]
    check_calendars(template, names)
    encodings = {name: _resolve_encoding(name, template.variables[name], zarr_format) for name in names}
    documents = sample_documents(template, encodings, zarr_format)
    variables = {}
    for id_, name in enumerate(names):
        variable = template.variables[name]
        array, cf = documents[name]
        sizes = tuple(None if dim == dimension else size for dim, size in variable.sizes.items())
        if zarr_format == 3:  # "." makes a file per chunk in one directory, the default "/" a directory per dimension
            array["chunk_key_encoding"] = {"name": "default", "configuration": {"separator": "."}}
        variables[name] = SchemaVariable(
            id=id_,
            name=name,
            stored_name=name,
            dtype=_dtype_to_read(variable, dtype_of(array), cf),
            dims=tuple(str(dim) for dim in variable.dims),
            sizes=sizes,
            is_coordinate=name in template.coords or variable.dims == (name,),
            array=array,
            cf=cf,
            attrs=Attributes.of(_attributes(variable), f"variable {name}"),
            lossy=_is_lossy(name, variable, dimension),
        )
    requested = {name for name, encoding in encodings.items() if "chunks" in encoding or "shards" in encoding}
    variables = _with_default_chunks(variables, requested)
    attrs = Attributes.of(template.attrs, "the dataset")
    return Schema(axis, dimension, zarr_format, variables, attrs, len(names), tuple(names))


def _is_lossy(name: str, variable: xr.Variable, dimension: str) -> bool:
    """Whether the codecs of a variable may round its values: whoever brings it has to say so."""
    lossy = variable.encoding.get("lossy", False)
    if not isinstance(lossy, bool):
        raise unstorable(name, f"lossy is {lossy!r}, and has to be True or False")
    if lossy and dimension not in variable.dims:
        raise unstorable(name, f"it lacks the dimension {dimension!r}: it is stored once, and exactly")
    return lossy


def _dtype_to_read(variable: xr.Variable, stored: np.dtype[Any], cf: Mapping[str, Any]) -> np.dtype[Any]:
    """Return the dtype that readers see: the template's, where what is stored decodes to numbers of that kind.

    xarray would choose by the packing, whose dtype JSON does not keep: float64 for what the template has in float32.
    """
    if variable.dtype.kind == "m":
        return np.dtype("m8[ns]")
    decoded = decode_cf(cf, np.zeros(0, stored)).dtype
    if variable.dtype.kind != decoded.kind or decoded.kind not in "iufc" or variable.dtype.char in "gG":
        return decoded
    given: np.dtype[Any] = variable.dtype.newbyteorder("=")
    return given


def new_variable(schema: Schema, variable: Variable | xr.DataArray) -> SchemaVariable:
    """Return a variable for a schema; of a DataArray only the metadata is used.

    Raises
    ------
    InvalidInputError
        It cannot be stored, its dimensions are not the collection's, or its values cannot be missing.
    """
    template, fill_value = _template_of(schema, variable), getattr(variable, "fill_value", None)
    (name,) = template.variables
    like = schema_from_template(template, axis=schema.axis, dimension=schema.dimension, zarr_format=schema.zarr_format)
    made = replace(like.variables[str(name)], is_coordinate=False, fill_value=_checked(like, str(name), fill_value))
    for dim, size in zip(made.dims, made.sizes, strict=True):
        known = schema.sizes.get(dim, size)
        if size != known:
            raise InvalidInputError(f"variable {name} has size {size} along {dim!r}, and the collection {known}")
    one = np.full((1,) * len(made.dims), missing_value(made), made.dtype)
    try:
        encode(made, one)
    except InvalidInputError as error:
        raise InvalidInputError(f"partitions that are there have no values of {name}, and {error}") from error
    return made


def _template_of(schema: Schema, variable: Variable | xr.DataArray) -> xr.Dataset:
    """Return a dataset of one variable alone."""
    if isinstance(variable, xr.DataArray):
        if not variable.name:
            raise InvalidInputError("the DataArray has no name; give it one, data.rename(…)")
        return xr.Dataset({variable.name: variable.variable.to_base_variable()}).reset_coords()
    if not isinstance(variable, Variable):
        raise InvalidInputError(f"{variable!r} is neither a Variable nor an xarray.DataArray")
    dims = (variable.dims,) if isinstance(variable.dims, str) else tuple(variable.dims)
    if len(set(dims)) < len(dims):
        raise InvalidInputError(f"variable {variable.name} has a dimension twice: {dims}")
    unknown = [dim for dim in dims if dim != schema.dimension and dim not in schema.sizes]
    if unknown:
        raise InvalidInputError(
            f"variable {variable.name} has the dimension {', '.join(map(repr, unknown))}, whose size is not "
            f"known: give a DataArray, or use {', '.join([schema.dimension, *schema.sizes])}"
        )
    try:
        dtype = np.dtype(variable.dtype)
    except TypeError as error:
        raise InvalidInputError(f"variable {variable.name}: {error}") from error
    zero = np.array("", object) if dtype in (np.dtype(object), np.dtype(str)) else np.zeros((), dtype)
    values = np.broadcast_to(zero, [schema.sizes.get(dim, 1) for dim in dims])
    lossy = {"lossy": variable.lossy} if variable.lossy else {}
    made = xr.Variable(dims, values, dict(variable.attrs), {**variable.encoding, **lossy})
    return xr.Dataset({variable.name: made.to_base_variable()}).reset_coords()


def _checked(schema: Schema, name: str, fill_value: Any) -> Any:
    """Return a fill value as JSON has it."""
    if fill_value is None:
        return None
    dtype = schema.variables[name].dtype
    try:
        value = np.asarray(fill_value).astype(dtype, casting="same_kind")
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(f"variable {name}: {dtype} has no fill value {fill_value!r}") from error
    if dtype.kind not in "biufUO" or value.ndim or (value.item() != fill_value and value.item() == value.item()):
        raise InvalidInputError(f"variable {name}: {dtype} has no fill value {fill_value!r}")
    return value.item()


def _attributes(variable: xr.Variable) -> dict[Hashable, Any]:
    # With decode_coords="all", xarray moves the relations between variables into the encoding.
    relations = {key: variable.encoding[key] for key in _RELATION_KEYS if key in variable.encoding}
    return {**relations, **variable.attrs}


def _resolve_encoding(name: str, variable: xr.Variable, zarr_format: int) -> dict[str, Any]:
    """Return what is said about storing a variable: its own encoding, and our choice where it is silent."""
    if not isinstance(variable.dtype, np.dtype):
        raise InvalidInputError(f"variable {name} is pandas' {variable.dtype}; {pandas_remedy(name, variable)}")
    if variable.dtype.kind not in "biufcMmUSOT" or not _may_be_text(variable):
        raise InvalidInputError(
            f"variable {name} is {variable.dtype}: numbers, bool, datetime64, timedelta64 and text can be stored"
        )
    given = {key: value for key, value in variable.encoding.items() if value is not None}
    _check_encoding(name, variable, given)
    if variable.dtype.kind in "USOT":
        return _resolve_text(name, variable, given, zarr_format)
    encoding = {key: given[key] for key in CF_KEYS + _STORAGE_KEYS if key in given}
    encoding.setdefault("_FillValue", None)  # xarray would give floats one, and a float16 would come back as float32
    if "dtype" in encoding:
        encoding["dtype"] = np.dtype(encoding["dtype"]).newbyteorder("=")
    for key in NUMBER_KEYS:
        if encoding.get(key) is not None:
            encoding[key] = np.asarray(encoding[key]).reshape(())[()]  # a NetCDF attribute may be an array of one
    if variable.dtype.kind == "f":
        encoding = _resolve_packing(encoding, variable.dtype)
    if variable.dtype.kind == "M":
        defaults = {"dtype": np.dtype("int64")} if "units" in encoding else _TIME_ENCODING
        encoding = {**defaults, **encoding}
    if variable.dtype.kind == "m" and not _is_whole_duration(encoding):
        storage = {key: value for key, value in encoding.items() if key in _STORAGE_KEYS}
        encoding = {**storage, "units": "nanoseconds", "dtype": np.dtype("int64"), "_FillValue": None}
    _check_fill(name, encoding, np.dtype(encoding.get("dtype", variable.dtype)))
    encoding |= _resolve_chunks(name, encoding.pop("chunks", None), encoding.pop("shards", None), variable.ndim)
    encoding["compressors"] = _resolve_compressors(variable.encoding, zarr_format)
    return encoding


def _resolve_packing(encoding: Mapping[str, Any], dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the encoding of floats, its packing in floats; without the packing that changes nothing."""
    packing = {key: encoding[key] for key in PACKING_KEYS if encoding.get(key) is not None}
    others = {key: value for key, value in encoding.items() if key not in PACKING_KEYS}
    same = np.dtype(encoding.get("dtype", dtype)) == dtype.newbyteorder("=")
    if same and packing.get("scale_factor", 1) == 1 and packing.get("add_offset", 0) == 0:
        return others  # with it, xarray would read float32 as float64
    # A scale of integers would have xarray decode to integers, which NaN is none of.
    return others | {key: value if value.dtype.kind == "f" else float(value) for key, value in packing.items()}


def _resolve_text(name: str, variable: xr.Variable, given: Mapping[str, Any], zarr_format: int) -> dict[str, Any]:
    """Return what is said about storing text: of a fixed width (``U``, ``S``), or of any length (objects)."""
    if variable.dtype == np.dtype("S1"):
        raise unstorable(name, "xarray reads single bytes as the letters of one text: use S2, or U1")
    for key in ("_FillValue", "missing_value"):
        if key in given:
            raise unstorable(name, f"text has no {key}")
    # What says how text lies in a file (its dtype there, char_dim_name) does not concern Zarr; nor do HDF's filters.
    chunks = _resolve_chunks(name, given.get("chunks"), given.get("shards"), variable.ndim)
    return {**chunks, "compressors": _resolve_compressors(variable.encoding, zarr_format)}


def _may_be_text(variable: xr.Variable) -> bool:
    """Whether objects are text, as far as is known without reading any."""
    if variable.dtype != object or variable.size == 0 or not variable._in_memory:
        return True
    return isinstance(variable[(0,) * variable.ndim].values.item(), str)


def _check_encoding(name: str, variable: xr.Variable, encoding: Mapping[str, Any]) -> None:
    """Raise InvalidInputError for what cannot be meant, or would be read back as something else."""
    for key in _UNSUPPORTED_KEYS:
        if key in encoding:
            raise unstorable(name, f"{key!r} is not supported; use an unsigned dtype")
    check_attributes(name, variable.dtype, variable.attrs)
    for key in NUMBER_KEYS:
        if key in encoding and np.size(encoding[key]) != 1:
            raise unstorable(name, f"{key} is {encoding[key]!r}, and has to be one number")


def _check_fill(name: str, encoding: Mapping[str, Any], dtype: np.dtype[Any]) -> None:
    """Raise InvalidInputError unless the stored dtype has the value that stands for missing ones."""
    fill = encoding.get("_FillValue") if encoding.get("_FillValue") is not None else encoding.get("missing_value")
    if fill is None:
        return
    value = np.asarray(fill).reshape(())
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        holds = value.dtype.kind in "iuf" and value == np.around(value) and limits.min <= value <= limits.max
    else:
        holds = dtype.kind in "fcM" and value.dtype.kind in "iufc"
    if not holds:
        raise unstorable(name, f"{dtype} has no fill value {fill!r}")


def _resolve_chunks(name: str, chunks: Any, shards: Any, ndim: int) -> dict[str, tuple[int, ...]]:
    """Return the chunks and shards asked for; none for "auto", nor for those of another shape, which some file had."""
    sizes = {"chunks": _resolve_sizes(name, "chunks", chunks, ndim)}
    if shards is not None:
        sizes["shards"] = _resolve_sizes(name, "shards", shards, ndim)
        if sizes["shards"] is None:
            return {}
        if sizes["chunks"] is None:
            raise unstorable(name, "shards need the chunks inside them too")
    return {key: size for key, size in sizes.items() if size is not None}


def _resolve_sizes(name: str, key: str, sizes: Any, ndim: int) -> tuple[int, ...] | None:
    if isinstance(sizes, int):
        sizes = (sizes,) * ndim
    if not isinstance(sizes, tuple | list) or len(sizes) != ndim:
        return None
    if not all(isinstance(size, int | np.integer) and size >= 1 for size in sizes):
        raise unstorable(name, f"the {key} {tuple(sizes)} are not numbers from 1")
    return tuple(int(size) for size in sizes)


def _resolve_compressors(encoding: Mapping[Hashable, Any], zarr_format: int) -> Any:
    """Return the compressors asked for, None for none, ours where nothing is said."""
    if "compressors" in encoding:
        given = encoding["compressors"]
    elif "compressor" in encoding:  # the name it had in xarray for format 2
        given = None if encoding["compressor"] is None else (encoding["compressor"],)
    else:
        given = "auto"
    return _default_compressor(zarr_format) if isinstance(given, str) and given == "auto" else given


def _is_whole_duration(encoding: Mapping[str, Any]) -> bool:
    """Whether the template stores a timedelta64 as integers of a fixed unit; anything else would be inexact."""
    packed = "scale_factor" in encoding or "add_offset" in encoding
    whole = np.dtype(encoding.get("dtype", "f8")).kind in "iu"
    return encoding.get("units") in DURATION_UNITS and whole and not packed


def _default_compressor(zarr_format: int) -> Any:
    if zarr_format == 2:
        return numcodecs.Blosc(cname="zstd", clevel=3, shuffle=numcodecs.Blosc.SHUFFLE)
    return zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")


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
