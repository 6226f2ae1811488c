"""From a template to a schema: what the encodings say is resolved once, the rest has defaults, nothing is read."""

import dataclasses
import datetime as dt
import enum
import json
import math
from typing import Any, Literal

import cftime
import dask
import dask.array as da
import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr.codecs

from intake_zcollection.errors import InvalidInputError
from intake_zcollection.schema import Schema, SchemaVariable
from intake_zcollection.schema.attributes import Attributes, attributes_to_json
from intake_zcollection.schema.template import schema_from_template
from registry import SchemaRecord, VariableRecord

MEBI = 2**20


def schema_of(template: xr.Dataset, zarr_format: Literal[2, 3] = 3) -> Schema:
    return schema_from_template(template, axis="time", dimension="time", zarr_format=zarr_format)


def variable_of(values: Any, zarr_format: Literal[2, 3] = 3, /, **encoding: Any) -> SchemaVariable:
    """The variable of a template that has only this one; ``values`` are a dtype, or one row of values."""
    row = np.zeros(1, values) if isinstance(values, str | type) else np.asarray(values)[np.newaxis]
    dims = ("time", "y", "x", "z")[: row.ndim]
    return schema_of(xr.Dataset({"ssh": (dims, row, {}, encoding)}), zarr_format).variables["ssh"]


def chunks_of(variable: SchemaVariable) -> list[int]:
    document = variable.array
    chunks: list[int] = document.get("chunks") or document["chunk_grid"]["configuration"]["chunk_shape"]
    return chunks


def codecs_of(variable: SchemaVariable) -> dict[str, dict[str, Any]]:
    return {codec["name"]: codec.get("configuration", {}) for codec in variable.array["codecs"]}


def unreadable(shape: tuple[int, ...], dtype: Any) -> da.Array:
    """A lazy array whose values nobody may ask for."""

    def read() -> np.ndarray[Any, Any]:
        raise AssertionError("lazy data was read")

    return da.from_delayed(dask.delayed(read)(), shape, np.dtype(dtype))


# Only metadata is used


def test_lazy_data_is_not_read(zarr_format: Literal[2, 3]) -> None:
    packing = {"dtype": "int16", "scale_factor": 0.1, "_FillValue": -1}
    template = xr.Dataset(
        {
            "ssh": (("time", "x"), unreadable((1000, 50), "f8"), {}, packing),
            "end": ("time", unreadable((1000,), "M8[ns]")),
            "age": ("time", unreadable((1000,), "m8[ns]")),
        },
        {"place": (("time", "x"), unreadable((1000, 50), "f4"))},
    )
    schema = schema_of(template, zarr_format)
    assert {name: variable.dtype.str for name, variable in schema.variables.items()} == {
        "ssh": "<f8",
        "end": "<M8[ns]",
        "age": "<m8[ns]",
        "place": "<f4",
    }


def test_a_lazy_variable_of_objects_whose_encoding_says_what_it_is_is_not_read() -> None:
    lazy = unreadable((5,), object)
    assert schema_of(xr.Dataset({"name": ("time", lazy, {}, {"dtype": str})})).variables["name"].dtype == object
    dates = {"units": "days since 1950-01-01", "calendar": "noleap", "dtype": "int64"}
    with pytest.raises(InvalidInputError, match=r"variable end \(noleap\): dates of another calendar"):
        schema_of(xr.Dataset({"end": ("time", lazy, {}, dates)}))


def test_of_other_lazy_objects_the_first_tells_text_from_dates() -> None:
    read = []

    def first(block: Any) -> Any:
        read.append(len(block))
        return block

    def lazy(values: list[Any]) -> Any:
        array = da.from_array(np.array(values, object), chunks=2)
        return array.map_blocks(first, dtype=object, meta=np.empty(0, object))

    assert schema_of(xr.Dataset({"name": ("time", lazy(["a", "b", "c", "d"]))})).variables["name"].dtype == object
    assert read == [2]
    dates = [cftime.Datetime360Day(2022, 2, 30)] * 4
    with pytest.raises(InvalidInputError, match=r"variable end \(360_day\): dates of another calendar"):
        schema_of(xr.Dataset({"end": ("time", lazy(dates))}))


def test_a_template_without_rows_serves() -> None:
    schema = schema_of(xr.Dataset({"ssh": (("time", "x"), np.zeros((0, 3)))}, {"time": np.zeros(0, "M8[ns]")}))
    assert schema.variables["ssh"].sizes == (None, 3)
    assert schema.variables["time"].dtype == np.dtype("M8[ns]")


def test_the_template_is_left_alone() -> None:
    template = xr.Dataset({"ssh": ("time", [1.0], {"units": "m"}, {"zlib": True, "chunks": (1,)})})
    before = template.copy(deep=True)
    encoding = dict(template.ssh.encoding)
    schema_of(template)
    xr.testing.assert_identical(template, before)
    assert template.ssh.encoding == encoding


def test_dimensions_sizes_and_roles_are_those_of_the_template() -> None:
    template = xr.Dataset(
        {"ssh": (("x", "time"), np.zeros((3, 2))), "depth": ("x", np.zeros(3)), "crs": ((), np.int32(0))},
        {"time": ("time", np.zeros(2, "M8[ns]")), "lat": ("x", np.zeros(3))},
    )
    schema = schema_of(template)
    assert schema.variables["ssh"].dims == ("x", "time")
    assert schema.variables["ssh"].sizes == (3, None)
    assert schema.sizes == {"x": 3}
    assert set(schema.immutable) == {"depth", "crs", "lat"}
    assert {name for name, variable in schema.variables.items() if variable.is_coordinate} == {"time", "lat"}
    assert len({variable.id for variable in schema.variables.values()}) == 5


# What an encoding says is respected, and resolved


def test_chunks_are_respected(zarr_format: Literal[2, 3]) -> None:
    assert chunks_of(variable_of(np.zeros((4, 6)), zarr_format, chunks=(10, 2, 3))) == [10, 2, 3]


def test_shards_are_respected() -> None:
    variable = variable_of(np.zeros(6), chunks=(5, 3), shards=(20, 6))
    assert chunks_of(variable) == [20, 6]
    assert codecs_of(variable)["sharding_indexed"]["chunk_shape"] == [5, 3]


@pytest.mark.parametrize("encoding", [{}, {"chunks": "auto"}, {"chunks": (4,)}], ids=str)
def test_shards_without_chunks_are_refused(encoding: dict[str, Any]) -> None:
    # Left alone, zarr chooses chunks of a single value inside of them, by the sample it sees.
    with pytest.raises(InvalidInputError, match=r"variable ssh.*chunks"):
        variable_of(np.zeros(6), shards=(20, 6), **encoding)


def test_shards_of_size_0_are_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="variable ssh cannot be stored with the encoding it has"):
        variable_of(np.zeros(6), chunks=(2, 3), shards=(0, 6))


def test_compressors_are_respected_in_format_3() -> None:
    variable = variable_of("f4", compressors=(zarr.codecs.GzipCodec(level=7), zarr.codecs.Crc32cCodec()))
    assert list(codecs_of(variable)) == ["bytes", "gzip", "crc32c"]
    assert codecs_of(variable)["gzip"] == {"level": 7}


def test_compressors_are_respected_in_format_2() -> None:
    assert variable_of("f4", 2, compressors=numcodecs.GZip(level=7)).array["compressor"] == {"id": "gzip", "level": 7}


@pytest.mark.parametrize("none", [None, ()])
def test_no_compressor_is_respected(none: Any, zarr_format: Literal[2, 3]) -> None:
    document = variable_of("f4", zarr_format, compressors=none).array
    assert [codec["name"] for codec in document.get("codecs", [])] == (["bytes"] if zarr_format == 3 else [])
    assert document.get("compressor") is None


def test_filters_are_respected_in_format_2() -> None:
    variable = variable_of("i4", 2, filters=[numcodecs.Delta("i4")])
    assert [config["id"] for config in variable.array["filters"]] == ["delta"]


def test_filters_are_respected_in_format_3() -> None:
    variable = variable_of(np.zeros(3, "i4"), filters=[zarr.codecs.TransposeCodec(order=(1, 0))])
    assert codecs_of(variable)["transpose"] == {"order": [1, 0]}


def test_a_serializer_is_respected() -> None:
    variable = variable_of("i4", serializer=zarr.codecs.BytesCodec(endian="big"))
    assert codecs_of(variable)["bytes"] == {"endian": "big"}


@pytest.mark.parametrize("given", [{}, {"compressors": "auto"}], ids=["absent", "auto"])
def test_the_default_compressor_is_named_and_complete(given: dict[str, Any], zarr_format: Literal[2, 3]) -> None:
    variable = variable_of("f4", zarr_format, **given)
    if zarr_format == 2:
        blosc = variable.array["compressor"]
        assert blosc.pop("id") == "blosc"
        assert blosc == {"cname": "zstd", "clevel": 3, "shuffle": 1, "blocksize": 0}
    else:
        expected = {"cname": "zstd", "clevel": 3, "shuffle": "shuffle", "blocksize": 0, "typesize": 4}
        assert codecs_of(variable)["blosc"] == expected


def test_the_legacy_compressor_key_is_taken_in_format_2() -> None:
    assert variable_of("f4", 2, compressor=numcodecs.Zstd(level=5)).array["compressor"]["id"] == "zstd"
    assert variable_of("f4", 2, compressor=None).array["compressor"] is None


def test_a_legacy_compressor_is_refused_in_format_3() -> None:
    with pytest.raises(InvalidInputError, match=r"variable ssh cannot be stored .* BytesBytesCodec"):
        variable_of("f4", 3, compressor=numcodecs.Zstd(level=5))


@pytest.mark.parametrize(
    "encoding",
    [
        {"shards": (4,), "chunks": (2,)},
        {"filters": [zarr.codecs.TransposeCodec(order=(0,))]},
        {"compressors": zarr.codecs.GzipCodec()},
        {"serializer": zarr.codecs.BytesCodec()},
    ],
    ids=lambda encoding: next(iter(encoding)),
)
def test_codecs_of_format_3_are_refused_by_name_in_format_2(encoding: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="variable ssh cannot be stored with the encoding it has"):
        variable_of("f4", 2, **encoding)


@pytest.mark.parametrize("chunks", [(2.5,), ((5, 5),), (-1,), (0,), ("a",)], ids=str)
def test_chunks_that_no_array_can_have_are_refused_by_name(chunks: Any) -> None:
    with pytest.raises(InvalidInputError, match="variable ssh cannot be stored with the encoding it has"):
        variable_of("f4", chunks=chunks)


@pytest.mark.parametrize("chunks", [(5,), (5, 5, 5), "auto"], ids=str)
def test_chunks_that_do_not_fit_the_dimensions_give_way_to_the_default(chunks: Any, zarr_format: Literal[2, 3]) -> None:
    # What a variable opened from Zarr keeps in its encoding after isel: xarray ignores it too.
    assert chunks_of(variable_of(np.zeros(6), zarr_format, chunks=chunks)) == chunks_of(variable_of(np.zeros(6)))


def test_shards_that_do_not_fit_the_dimensions_give_way_to_the_default_with_their_chunks() -> None:
    variable = variable_of(np.zeros(6), chunks=(5, 3, 2), shards=(20, 6, 4))
    assert variable.array == variable_of(np.zeros(6)).array


def test_a_number_for_chunks_is_the_size_along_each_dimension(zarr_format: Literal[2, 3]) -> None:
    assert chunks_of(variable_of(np.zeros(6), zarr_format, chunks=4)) == [4, 4]


def test_encodings_of_netcdf_are_ignored(zarr_format: Literal[2, 3]) -> None:
    netcdf = {
        "chunksizes": (1, 1),
        "zlib": True,
        "complevel": 4,
        "shuffle": True,
        "fletcher32": False,
        "contiguous": False,
        "compression": "gzip",
        "source": "/data/ssh.nc",
        "original_shape": (77, 5),
        "preferred_chunks": {"time": 1, "x": 1},
        "unlimited_dims": {"time"},
        "szip": False,
        "zstd": False,
        "bzip2": False,
        "blosc": False,
    }
    assert variable_of(np.zeros(5), zarr_format, **netcdf) == variable_of(np.zeros(5), zarr_format)


def test_a_dataset_read_from_netcdf_makes_a_schema_with_its_packing(tmp_path: Any, zarr_format: Literal[2, 3]) -> None:
    values = np.array([[1.0, np.nan], [2.5, 3.0]])
    packing = {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1, "zlib": True, "chunksizes": (1, 2)}
    time = np.array(["2022-01-01", "2022-01-02"], "M8[ns]")
    written = xr.Dataset({"ssh": (("time", "x"), values, {"units": "m"}, packing)}, {"time": time})
    written.time.encoding = {"units": "days since 1950-01-01", "dtype": "float64"}
    written.to_netcdf(tmp_path / "ssh.nc", engine="h5netcdf", unlimited_dims=["time"])
    with xr.open_dataset(tmp_path / "ssh.nc", engine="h5netcdf") as template:
        schema = schema_of(template, zarr_format)
    ssh, axis = schema.variables["ssh"], schema.variables["time"]
    assert dict(ssh.cf) == {"scale_factor": 0.5, "_FillValue": -1}
    assert ssh.attrs == {"units": "m"}
    assert (ssh.array.get("data_type") or ssh.array["dtype"]) in ("int16", "<i2")
    assert axis.cf["units"].startswith("days since 1950-01-01")
    assert (axis.array.get("data_type") or axis.array["dtype"]) in ("float64", "<f8")


def test_a_dataset_read_from_zarr_makes_the_same_schema_again(zarr_format: Literal[2, 3]) -> None:
    store = zarr.storage.MemoryStore()
    packing = {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1, "chunks": (4, 2)}
    written = xr.Dataset(
        {"ssh": (("time", "x"), np.zeros((8, 2)), {"units": "m"}, packing)}, {"time": np.arange(8).astype("M8[ns]")}
    )
    written.to_zarr(store, zarr_format=zarr_format, consolidated=False)
    read = schema_of(xr.open_zarr(store, consolidated=False), zarr_format).variables["ssh"]
    assert chunks_of(read) == [4, 2]
    assert read.cf == schema_of(written, zarr_format).variables["ssh"].cf


def test_chunk_files_of_format_3_lie_in_one_directory() -> None:
    encoding = variable_of("f4").array["chunk_key_encoding"]
    assert encoding == {"name": "default", "configuration": {"separator": "."}}


def test_relations_that_xarray_keeps_in_the_encoding_become_attributes() -> None:
    template = xr.Dataset({"ssh": ("time", [0.0], {"units": "m"}, {"grid_mapping": "crs"})})
    assert schema_of(template).variables["ssh"].attrs == {"grid_mapping": "crs", "units": "m"}


# Defaults


@pytest.mark.parametrize(
    ("row", "dtype"), [(1, "f8"), (1000, "f8"), (3, "i1"), (100_000, "f4"), (4 * MEBI, "f4"), (2 * MEBI + 1, "f8")]
)
def test_default_chunks_are_whole_rows_of_at_most_16_mebibytes(row: int, dtype: str) -> None:
    template = xr.Dataset({"ssh": (("time", "x"), unreadable((2, row), dtype))})
    variable = schema_of(template).variables["ssh"]
    rows, width = chunks_of(variable)
    nbytes = width * variable.dtype.itemsize
    assert width == min(row, -(-row // math.ceil(row * variable.dtype.itemsize / (16 * MEBI))))
    assert rows * nbytes <= 16 * MEBI
    assert (rows + 1) * nbytes > 16 * MEBI  # and no smaller than they have to be


def test_a_row_too_large_for_a_chunk_is_cut_along_its_longest_dimensions() -> None:
    template = xr.Dataset({"ssh": (("time", "y", "x"), unreadable((2, 4000, 9000), "f8"))})
    rows, height, width = chunks_of(schema_of(template).variables["ssh"])
    assert rows == 1
    assert 4 * MEBI < height * width * 8 <= 16 * MEBI
    assert 0.5 <= height / width <= 2


def test_an_immutable_variable_too_large_for_a_chunk_is_cut() -> None:
    template = xr.Dataset({"mask": (("y", "x"), unreadable((8192, 8192), "f8"))})
    chunks = chunks_of(schema_of(template).variables["mask"])
    assert 4 * MEBI < math.prod(chunks) * 8 <= 16 * MEBI


def test_default_chunks_of_narrow_variables_have_at_most_8_times_the_rows_of_the_widest() -> None:
    template = xr.Dataset(
        {
            "ssh": (("time", "x"), unreadable((2, MEBI), "f8")),
            "wind": (("time", "y"), unreadable((2, MEBI), "f4")),
            "mask": ("z", unreadable((8 * MEBI,), "f8")),  # immutable: it does not count
        },
        {"time": ("time", np.zeros(2, "M8[ns]"))},
    )
    schema = schema_of(template)
    assert chunks_of(schema.variables["ssh"]) == [2, MEBI]
    assert chunks_of(schema.variables["wind"]) == [4, MEBI]
    assert chunks_of(schema.variables["time"]) == [16]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
def test_a_float_without_a_fill_value_gets_none(dtype: str, zarr_format: Literal[2, 3]) -> None:
    variable = variable_of(dtype, zarr_format)
    assert variable.dtype == np.dtype(dtype)
    assert variable.cf == {}
    assert variable.array["attributes"] == {}
    if zarr_format == 2:
        assert variable.array["fill_value"] is None


@pytest.mark.parametrize("fill", [np.nan, -999.0, np.float32(1e20)])
def test_a_fill_value_is_kept(fill: float, zarr_format: Literal[2, 3]) -> None:
    variable = variable_of("float32", zarr_format, _FillValue=fill)
    np.testing.assert_equal(variable.cf["_FillValue"], float(fill))
    assert type(variable.cf["_FillValue"]) is float


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_a_packing_without_zero_makes_a_schema_without_a_warning(dtype: str, zarr_format: Literal[2, 3]) -> None:
    # Warnings are errors here: the sample that xarray writes must not be outside the range.
    packing = {"dtype": "int32", "scale_factor": 1e-4, "add_offset": 1.3e6, "_FillValue": -1}
    assert dict(variable_of(dtype, zarr_format, **packing).cf) == {
        key: packing[key] for key in packing if key != "dtype"
    }


@pytest.mark.parametrize(
    ("dtype", "encoding", "expected"),
    [
        ("float32", {"dtype": "int16", "scale_factor": np.float32(0.01)}, "float32"),
        ("float32", {"dtype": "int16", "scale_factor": 0.01}, "float32"),
        ("float64", {"dtype": "int16", "_FillValue": -1}, "float64"),
        ("float16", {"dtype": "int8", "scale_factor": 0.5}, "float16"),
        (">f4", {"dtype": "int32", "_FillValue": -1}, "float32"),
        ("float64", {"dtype": "float32"}, "float64"),
        ("int64", {"dtype": "int16"}, "int64"),
        ("int16", {"dtype": "int16", "scale_factor": 0.5}, "float64"),
        ("int16", {"dtype": "int16", "_FillValue": -1}, "float32"),
    ],
    ids=str,
)
def test_the_dtype_is_that_of_the_template_where_its_kind_is_read(
    dtype: str, encoding: dict[str, Any], expected: str, zarr_format: Literal[2, 3]
) -> None:
    assert variable_of(dtype, zarr_format, **encoding).dtype == np.dtype(expected)


@pytest.mark.parametrize("packing", [{"scale_factor": 1.0}, {"scale_factor": np.float32(1), "add_offset": 0}], ids=str)
def test_a_packing_of_floats_that_changes_nothing_is_left_out(packing: dict[str, Any]) -> None:
    assert variable_of("float32", **packing) == variable_of("float32")
    assert dict(variable_of("float32", dtype="int16", **packing).cf) == {key: float(packing[key]) for key in packing}


def test_an_integer_zero_is_no_fill_value(zarr_format: Literal[2, 3]) -> None:
    variable = variable_of("int32", zarr_format)
    assert variable.cf == {}
    assert variable.array["fill_value"] == (None if zarr_format == 2 else 0)


@pytest.mark.parametrize(
    ("dtype", "cf"),
    [
        ("M8[ns]", {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}),
        ("M8[s]", {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}),
        ("m8[ns]", {"units": "nanoseconds", "dtype": "timedelta64[ns]"}),
        ("m8[s]", {"units": "nanoseconds", "dtype": "timedelta64[ns]"}),
    ],
)
def test_times_are_int64_nanoseconds_by_default(dtype: str, cf: dict[str, str], zarr_format: Literal[2, 3]) -> None:
    variable = variable_of(dtype, zarr_format)
    assert dict(variable.cf) == cf
    assert variable.dtype == np.dtype(f"{dtype[:2]}[ns]")
    assert np.dtype(variable.array.get("data_type") or variable.array["dtype"]) == np.int64


@pytest.mark.parametrize(
    "encoding",
    [
        {"units": "hours", "dtype": "float64"},
        {"units": "hours"},
        {"units": "hours", "dtype": "float32", "_FillValue": np.nan},
        {"units": "months", "dtype": "int32"},
        {"units": "days since 1950-01-01", "dtype": "int32"},
        {"dtype": "int32"},
    ],
    ids=str,
)
def test_durations_that_are_no_integers_of_a_fixed_unit_are_stored_as_nanoseconds(encoding: dict[str, Any]) -> None:
    variable = variable_of("m8[ns]", **encoding, chunks=(7,), compressors=None)
    assert dict(variable.cf) == {"units": "nanoseconds", "dtype": "timedelta64[ns]"}
    assert variable.array["data_type"] == "int64"
    assert chunks_of(variable) == [7]
    assert list(codecs_of(variable)) == ["bytes"]


def test_durations_as_integers_of_a_unit_keep_it(zarr_format: Literal[2, 3]) -> None:
    variable = variable_of("m8[ns]", zarr_format, units="hours", dtype="int16", _FillValue=-1)
    assert dict(variable.cf) == {"units": "hours", "dtype": "timedelta64[ns]", "_FillValue": -1}
    assert variable.dtype == np.dtype("m8[ns]")
    assert np.dtype(variable.array.get("data_type") or variable.array["dtype"]) == np.int16


def test_times_with_units_are_int64_by_default(zarr_format: Literal[2, 3]) -> None:
    variable = variable_of("M8[ns]", zarr_format, units="days since 1950-01-01")
    assert dict(variable.cf) == {"units": "days since 1950-01-01", "calendar": "proleptic_gregorian"}
    assert np.dtype(variable.array.get("data_type") or variable.array["dtype"]) == np.int64


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int16"])
def test_the_dtype_and_the_fill_value_of_times_are_respected(dtype: str, zarr_format: Literal[2, 3]) -> None:
    variable = variable_of("M8[ns]", zarr_format, units="days since 1950-01-01", dtype=dtype, _FillValue=-1)
    assert variable.cf["_FillValue"] == -1
    assert np.dtype(variable.array.get("data_type") or variable.array["dtype"]) == np.dtype(dtype)


def test_bounds_of_a_time_have_units_of_their_own() -> None:
    time = np.zeros(2, "M8[ns]")
    template = xr.Dataset({"time_bnds": (("time", "bnds"), np.stack([time, time], 1))}, {"time": time})
    template.time.attrs["bounds"] = "time_bnds"
    template.time.encoding["units"] = "days since 1950-01-01"
    schema = schema_of(template)
    assert schema.variables["time"].cf["units"] == "days since 1950-01-01"
    assert schema.variables["time_bnds"].cf["units"] == "nanoseconds since 1970-01-01"


# Refusals


@pytest.mark.parametrize("values", [[b"a"], [None], [{"a": 1}]], ids=str)
def test_objects_are_refused(values: list[Any]) -> None:
    with pytest.raises(InvalidInputError, match="is object: numbers, bool, datetime64, timedelta64 and text can"):
        schema_of(xr.Dataset({"name": ("time", np.array(values, object))}))


@pytest.mark.parametrize(
    ("dtype", "why"),
    [("V4", "numbers, bool, datetime64, timedelta64 and text can"), ("S1", "single bytes")],
)
def test_raw_and_single_bytes_are_refused(dtype: str, why: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"variable name .*{why}"):
        schema_of(xr.Dataset({"name": ("time", np.zeros(1, dtype))}))


def test_a_fill_value_of_text_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"variable name .* text has no _FillValue"):
        schema_of(xr.Dataset({"name": ("time", np.array(["a"]), {}, {"_FillValue": "-"})}))


def test_times_of_another_calendar_are_refused_by_the_reason() -> None:
    times = np.array([cftime.DatetimeNoLeap(2020, 2, 28)], object)
    with pytest.raises(InvalidInputError, match=r"variable time \(noleap\): dates of another calendar"):
        schema_of(xr.Dataset(coords={"time": ("time", times)}))


@pytest.mark.parametrize(
    "encoding",
    [
        {"units": "months since 1950-01-01"},
        {"units": "years since 1950-01-01"},
        {"units": "days since 1950-01-01", "calendar": "noleap"},
        {"units": "days since 1950-01-01", "calendar": "360_day"},
        {"units": "days since 1950-01-01", "calendar": "julian"},
        {"units": "days since 0001-01-01"},
        {"units": "days"},
        {"units": "kelvin"},
        {"units": "days since forever"},
        {"calendar": "noleap"},
    ],
    ids=str,
)
def test_a_time_encoding_that_datetime64_cannot_hold_is_refused(encoding: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match="variable ssh has the time encoding"):
        variable_of("M8[ns]", **encoding)


def test_unsigned_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"variable ssh.* '_Unsigned' is not supported; use an unsig"):
        variable_of("int16", _Unsigned="true")


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "..", "__private", "zarr.json", 5, ("a", "b"), None], ids=repr)
def test_names_that_no_array_can_have_are_refused(name: Any) -> None:
    with pytest.raises(InvalidInputError, match="cannot be a Zarr array's"):
        schema_of(xr.Dataset({name: ("time", [1.0])}))


@pytest.mark.parametrize("name", ["ssh", "SSH-2", "c.0", "température", "a b"])
def test_other_names_are_taken(name: str) -> None:
    assert list(schema_of(xr.Dataset({name: ("time", [1.0])})).variables) == [name]


@pytest.mark.parametrize("fill", [np.nan, 70000])
def test_a_fill_value_that_the_dtype_cannot_hold_is_refused(fill: float) -> None:
    with pytest.raises(InvalidInputError, match="variable ssh cannot be stored with the encoding it has"):
        variable_of("float64", dtype="int16", _FillValue=fill)


@pytest.mark.parametrize("encoding", [{}, {"units": "days since 1950-01-01"}], ids=["default", "days"])
def test_nan_is_refused_as_fill_value_of_times_that_become_integers(encoding: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match="variable ssh cannot be stored with the encoding it has"):
        variable_of("M8[ns]", _FillValue=np.nan, **encoding)


def test_a_fill_value_of_bool_is_refused() -> None:
    # xarray reads such an array as objects.
    with pytest.raises(InvalidInputError, match="variable ssh"):
        variable_of("bool", _FillValue=-1)


@pytest.mark.parametrize("name", ["_FillValue", "missing_value", "scale_factor", "add_offset"])
def test_attributes_by_which_xarray_would_decode_are_refused(name: str) -> None:
    # A template opened with mask_and_scale=False: in the fragments, plain xarray would read other values than we do.
    with pytest.raises(InvalidInputError, match=f"variable ssh.*{name}"):
        schema_of(xr.Dataset({"ssh": ("time", np.zeros(1, "f4"), {name: np.float32(2)})}))


# Attributes


class Quality(enum.IntEnum):
    GOOD = 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        (None, None),
        (True, True),
        (np.bool_(True), True),
        (np.True_, True),
        (7, 7),
        (Quality.GOOD, 1),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (1.5, 1.5),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (math.inf, math.inf),
        (np.str_("text"), "text"),
        (np.array([1, 2], "i2"), [1, 2]),
        (np.array([[1.5], [2.0]]), [[1.5], [2.0]]),
        (np.array([True, False]), [True, False]),
        (np.array(["a", "bc"]), ["a", "bc"]),
        (np.array(5), 5),
        ([np.int16(1), "a", None], [1, "a", None]),
        ((1, (2, np.float32(0.25))), [1, [2, 0.25]]),
        ({"a": np.int8(1), "b": [np.bool_(False)]}, {"a": 1, "b": [False]}),
        ([], []),
    ],
    ids=repr,
)
def test_attributes_become_json_values(value: Any, expected: Any) -> None:
    result = attributes_to_json({"a": value}, "the dataset")["a"]
    assert result == expected
    assert type(result) is type(expected)
    assert json.loads(json.dumps(result)) == expected


def test_attributes_are_equal_by_value_and_dtype() -> None:
    given = {"a": np.int8(1), "b": np.array([1, np.nan], "f4"), "c": math.nan}
    attributes = Attributes.of(given, "the dataset")
    assert attributes == Attributes.of(dict(reversed(given.items())), "another")
    assert attributes == given
    assert attributes != given | {"a": 1}
    assert attributes != given | {"a": np.int16(1)}
    assert attributes != given | {"b": np.array([1, np.nan])}
    assert attributes != {"a": np.int8(1)}
    assert attributes != 5


def test_attributes_are_shown_as_they_were_given() -> None:
    given = {"flag_values": np.array([0, 1], "i1"), "valid_min": np.float32(0.5), "units": "m"}
    assert repr(Attributes.of(given, "the dataset")) == repr(given)


def test_attributes_that_were_recorded_without_dtypes_are_what_they_were() -> None:
    recorded = {"flag_values": [0, 1], "valid_min": 0.5, "nested": {"a": [1, {"b": None}]}}
    assert dict(Attributes(recorded)) == recorded
    assert Attributes(recorded).plain == recorded


@pytest.mark.parametrize(
    "value",
    [
        {"$dtype": "dict", "$value": {"a": 1}},
        {"$dtype": "int8", "$value": {"$dtype": "int8", "$value": 1}},
        {"a": {"$dtype": 1, "$value": [np.int8(3)]}},
        [{"$dtype": "int8"}, {"$value": 3}],
    ],
    ids=str,
)
def test_attributes_that_look_like_tags_are_what_they_were(value: Any) -> None:
    recorded = json.loads(json.dumps(Attributes.of({"a": value}, "the dataset").recorded))
    assert repr(Attributes(recorded)["a"]) == repr(value)


@pytest.mark.parametrize("nan", [math.nan, np.float32("nan"), np.float64("nan")], ids=lambda nan: type(nan).__name__)
def test_nan_in_attributes_survives_json(nan: float) -> None:
    (value,) = json.loads(json.dumps(attributes_to_json({"a": [nan]}, "the dataset")))["a"]
    assert math.isnan(value)


@pytest.mark.parametrize(
    "value",
    [
        dt.datetime(2020, 1, 1),
        dt.date(2020, 1, 1),
        np.datetime64("2020-01-01"),
        np.array(["2020-01-01"], "M8[D]"),
        b"bytes",
        1j,
        np.complex64(1),
        np.longdouble(1),
        {1, 2},
        object(),
        np.array([object()]),
        [dt.date(2020, 1, 1)],
        {"nested": b"bytes"},
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_attribute_without_a_form_in_json_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"attribute 'made' of variable ssh is of type \w+, which Zarr's JSON"):
        schema_of(xr.Dataset({"ssh": ("time", [1.0], {"made": value})}))
    with pytest.raises(InvalidInputError, match="attribute 'made' of the dataset is of type"):
        schema_of(xr.Dataset({"ssh": ("time", [1.0])}, attrs={"made": value}))


@pytest.mark.parametrize("name", [5, None, ("a",)])
def test_an_attribute_name_that_is_no_text_is_refused(name: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"the attribute name .* of variable ssh is not text"):
        schema_of(xr.Dataset({"ssh": ("time", [1.0], {name: 1})}))


# In the registry


def through_json(record: SchemaRecord) -> SchemaRecord:
    """What comes back from the registry, which keeps a schema as JSON text."""
    fields = json.loads(json.dumps(dataclasses.asdict(record)))
    tuples = {
        "dimensions": tuple,
        "sizes": tuple,
        "lives": lambda lives: tuple(map(tuple, lives)),
    }
    variables = [
        VariableRecord(**variable | {name: make(variable[name]) for name, make in tuples.items()})
        for variable in fields["variables"]
    ]
    return SchemaRecord(tuple(variables), fields["attributes"])


def test_a_schema_comes_back_equal_from_its_record(grid: xr.Dataset, zarr_format: Literal[2, 3]) -> None:
    grid["age"] = ("time", np.zeros(grid.sizes["time"], "m8[ns]"))
    grid["good"] = ("time", np.zeros(grid.sizes["time"], bool))
    schema = schema_of(grid.assign_attrs(numbers=np.arange(3), flag=np.True_), zarr_format)
    record = through_json(schema.to_record())
    back = Schema.from_record(record, axis="time", dimension="time", zarr_format=zarr_format)
    assert back == schema
    assert list(back.variables) == list(schema.variables)
    assert back.variables["sst"].split_axis == 0
    assert back.variables["lat"].is_immutable


def test_a_schema_with_codecs_comes_back_equal_from_its_record() -> None:
    encoding = {
        "chunks": (2, 3),
        "shards": (8, 6),
        "compressors": (zarr.codecs.ZstdCodec(level=2), zarr.codecs.Crc32cCodec()),
        "filters": [zarr.codecs.TransposeCodec(order=(1, 0))],
    }
    schema = schema_of(xr.Dataset({"ssh": (("time", "x"), np.zeros((1, 6)), {}, encoding)}))
    back = Schema.from_record(through_json(schema.to_record()), axis="time", dimension="time", zarr_format=3)
    assert back == schema


def test_nan_comes_back_from_the_record_of_a_schema(zarr_format: Literal[2, 3]) -> None:
    template = xr.Dataset({"ssh": ("time", [1.0], {"valid_max": np.nan}, {"_FillValue": np.nan})})
    record = through_json(schema_of(template, zarr_format).to_record())
    (variable,) = Schema.from_record(record, axis="time", dimension="time", zarr_format=zarr_format).variables.values()
    assert math.isnan(variable.attrs["valid_max"])
    assert math.isnan(variable.cf["_FillValue"])


def test_a_loaded_dataset_makes_the_same_schema_again(make_collection: Any, grid: xr.Dataset, zarr_format: Any) -> None:
    collection = make_collection(grid, zarr_format=zarr_format)
    collection.insert(grid)
    again = schema_of(collection.load(), zarr_format)
    for name, variable in collection.schema.variables.items():
        assert again.variables[name].cf == variable.cf, name
        assert again.variables[name].array == variable.array, name
        assert again.variables[name].attrs == variable.attrs, name


# Samples, which are written once


def test_schemas_of_one_template_are_equal_and_share_nothing(grid: xr.Dataset, zarr_format: Literal[2, 3]) -> None:
    first, second = schema_of(grid, zarr_format), schema_of(grid, zarr_format)
    assert first == second
    for variable in first.variables.values():
        variable.array["attributes"]["changed"] = True
        dict.clear(variable.cf)  # type: ignore[arg-type]  # it is one
    assert second == schema_of(grid, zarr_format)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"_FillValue": np.int16(1)}, {"_FillValue": np.int16(2)}),
        ({"scale_factor": 0.1, "dtype": "i2"}, {"scale_factor": np.float32(0.1), "dtype": "i2"}),
        ({"scale_factor": 0.1, "dtype": "i2"}, {"scale_factor": 0.1, "dtype": "i4"}),
        ({"compressors": zarr.codecs.BloscCodec()}, {"compressors": zarr.codecs.BloscCodec(shuffle="noshuffle")}),
        ({"compressors": zarr.codecs.GzipCodec(level=1)}, {"compressors": zarr.codecs.GzipCodec(level=2)}),
        ({"compressors": None}, {}),
        ({"chunks": (3, 2)}, {"chunks": (2, 3)}),
        ({"chunks": (2, 2)}, {"chunks": (2, 2), "shards": (4, 4)}),
        ({"serializer": zarr.codecs.BytesCodec(endian="big")}, {}),
    ],
    ids=["fill value", "dtype of a scale", "dtype", "blosc", "gzip", "compressors", "chunks", "shards", "serializer"],
)
def test_templates_that_differ_in_one_thing_have_schemas_that_do(one: dict[str, Any], other: dict[str, Any]) -> None:
    made = [variable_of(np.zeros(4), **encoding) for encoding in (one, other, one)]
    assert made[0] == made[2] != made[1]


class Doubling(numcodecs.abc.Codec):
    """A codec of the user's own, of which nobody knows what it depends on."""

    codec_id = "doubling"
    level = 1

    def encode(self, buf: Any) -> Any:
        return buf

    def decode(self, buf: Any, out: Any = None) -> Any:
        return buf

    def get_config(self) -> dict[str, Any]:
        return {"id": self.codec_id, "level": self.level}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Doubling":
        return cls()


def test_a_codec_of_the_users_own_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    numcodecs.register_codec(Doubling)
    monkeypatch.setattr(Doubling, "level", 7)
    assert variable_of("i4", 2, compressors=Doubling()).array["compressor"]["level"] == 7
    monkeypatch.setattr(Doubling, "level", 8)
    assert variable_of("i4", 2, compressors=Doubling()).array["compressor"]["level"] == 8
