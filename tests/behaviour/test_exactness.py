"""Nothing comes back silently different: packed floats in their dtype, NaN by every door, codecs that change values."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr

import intake_zcollection as izc

Make = Callable[..., izc.Collection]
Values = npt.NDArray[Any]

TIMES = np.datetime64("2022-01-20", "ns") + np.arange(24) * np.timedelta64(1, "D")
"""Two months."""

KELVIN = {"dtype": "int16", "scale_factor": 0.001, "add_offset": 293.0, "_FillValue": -32768}
RANGE = {"dtype": "int32", "scale_factor": 1e-4, "add_offset": 1.3e6, "missing_value": 2**31 - 1}
UNSIGNED = {"dtype": "uint8", "scale_factor": 0.5, "add_offset": 1.0, "_FillValue": 255}


def dataset(values: Any, /, **encoding: Any) -> xr.Dataset:
    """A dataset of one variable "v" along time."""
    return xr.Dataset({"v": ("time", values, {}, encoding)}, {"time": TIMES})


def plain(collection: izc.Collection, name: str = "v") -> xr.DataArray:
    """What plain xarray reads of all fragments, one after the other."""
    paths = [Path(collection.location, partition.fragments[name]) for partition in collection.partitions()]
    opened = [xr.open_zarr(path, consolidated=False, chunks=None)[name].compute() for path in paths]
    return xr.concat(opened, "time")


# Floats in their dtype

SINGLE = np.float32
FLOATS: dict[str, dict[str, Any]] = {
    "scale": {"dtype": "int16", "scale_factor": SINGLE(0.01), "_FillValue": np.int16(-1)},
    "scale_and_offset": {"dtype": "int16", "scale_factor": SINGLE(0.01), "add_offset": SINGLE(273.15)},
    "without_a_fill_value": {"dtype": "int16", "scale_factor": SINGLE(0.01)},
    "int32": {"dtype": "int32", "scale_factor": SINGLE(1e-6), "_FillValue": np.int32(-(2**31))},
    "a_scale_of_1": {"dtype": "float32", "scale_factor": SINGLE(1), "_FillValue": None},
    "an_offset_of_0": {"dtype": "float32", "scale_factor": SINGLE(1), "add_offset": SINGLE(0), "_FillValue": SINGLE(9)},
    "floats": {"dtype": "float32", "scale_factor": SINGLE(0.1), "add_offset": SINGLE(3), "_FillValue": None},
    "doubles": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 273.15},
    "masked": {"dtype": "int16", "_FillValue": np.int16(-1)},
}


@pytest.fixture(params=FLOATS)
def product(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[xr.Dataset]:
    """A product as xarray opens its file: temperatures packed in some way."""
    packing = FLOATS[request.param]
    values = 290.12 + np.random.default_rng(0).normal(0, 5, len(TIMES))
    values[::5] = np.nan if packing["dtype"] == "float32" or "_FillValue" in packing else 290.12
    data = dataset(np.round(values) if request.param == "masked" else values.astype("f4"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xr.SerializationWarning)  # there is no _FillValue, and no NaN either
        data.to_netcdf(tmp_path / "product.nc", engine="h5netcdf", encoding={"v": packing})
    with xr.open_dataset(tmp_path / "product.nc", engine="h5netcdf") as opened:
        yield opened


def test_packed_floats_come_back_bit_for_bit_in_the_dtype_of_the_product(
    make_collection: Make, zarr_format: int, product: xr.Dataset
) -> None:
    collection = make_collection(product, zarr_format=zarr_format)
    collection.insert(product)
    for loaded in (collection.load(), collection.load(chunks=None), collection.load(where={"time": ("2022-02", None)})):
        assert loaded.v.dtype == product.v.dtype
        expected = product.v.sel(time=loaded.time.values)
        np.testing.assert_array_equal(loaded.v.values, expected.values, strict=True)
    collection.update(lambda data: {"v": data.v})
    collection.insert(product.isel(time=slice(3)), merge="upsert")
    np.testing.assert_array_equal(collection.load().v.values, product.v.values, strict=True)


def test_a_plain_reader_sees_the_same_packed_floats_to_the_last_digit_of_their_dtype(
    make_collection: Make, zarr_format: int, product: xr.Dataset
) -> None:
    collection = make_collection(product, zarr_format=zarr_format)
    collection.insert(product)
    read, expected = plain(collection).values.astype(product.v.dtype), product.v.values
    if "add_offset" in product.v.encoding:
        np.testing.assert_allclose(read, expected, rtol=np.finfo(expected.dtype).eps)
    else:
        np.testing.assert_array_equal(read, expected, strict=True)


def test_floats_packed_by_a_scale_of_1_are_those_floats_for_a_plain_reader_too(
    make_collection: Make, zarr_format: int
) -> None:
    data = dataset(np.linspace(0, 1, 24, dtype="f4"), scale_factor=SINGLE(1), add_offset=SINGLE(0))
    collection = make_collection(data, zarr_format=zarr_format)
    collection.insert(data)
    np.testing.assert_array_equal(plain(collection).values, data.v.values, strict=True)


def test_packed_floats_go_back_to_netcdf_as_they_were(
    make_collection: Make, product: xr.Dataset, tmp_path: Path
) -> None:
    collection = make_collection(product)
    collection.insert(product)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xr.SerializationWarning)  # as above
        collection.load().to_netcdf(tmp_path / "again.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "again.nc", engine="h5netcdf") as again:
        np.testing.assert_array_equal(again.v.values, product.v.values, strict=True)


@pytest.mark.parametrize("encoding", [{"dtype": "float32"}, {"dtype": "float32", "_FillValue": -9.0}], ids=str)
def test_floats_stored_narrower_come_back_in_the_dtype_of_the_template_or_are_refused(
    make_collection: Make, zarr_format: int, encoding: dict[str, Any]
) -> None:
    data = dataset(np.arange(24) / 8, **encoding)
    collection = make_collection(data, zarr_format=zarr_format)
    collection.insert(data)
    assert plain(collection).dtype == np.float32
    np.testing.assert_array_equal(collection.load().v.values, data.v.values, strict=True)
    with pytest.raises(izc.InvalidInputError, match=r"variable v: 24 of 24 values, .* 0\.1, have no exact float32"):
        collection.insert(data.assign(v=("time", np.full(24, 0.1))), merge="replace")


def test_integers_stored_narrower_come_back_in_the_dtype_of_the_template_or_are_refused(
    make_collection: Make, zarr_format: int
) -> None:
    data = dataset(np.arange(24), dtype="int8")
    collection = make_collection(data, zarr_format=zarr_format)
    collection.insert(data)
    assert plain(collection).dtype == np.int8
    np.testing.assert_array_equal(collection.load().v.values, data.v.values, strict=True)
    with pytest.raises(izc.InvalidInputError, match=r"variable v: 1 of 24 values, .* 128, have no exact int8"):
        collection.insert(data.assign(v=("time", [128] + [0] * 23)), merge="replace")


# What is missing in packed integers


@pytest.mark.parametrize("lazy", [False, True], ids=["numpy", "dask"])
@pytest.mark.parametrize("packing", [KELVIN, RANGE, UNSIGNED], ids=["kelvin", "range", "unsigned"])
def test_nan_is_stored_where_the_packing_has_no_zero(
    make_collection: Make, zarr_format: int, packing: dict[str, Any], lazy: bool
) -> None:
    values = packing["add_offset"] + packing["scale_factor"] * np.arange(24)
    values[::3] = np.nan
    data = dataset(values, **packing)
    collection = make_collection(data, zarr_format=zarr_format)
    collection.insert(data.chunk(time=5) if lazy else data)
    for found in (collection.load().v.values, plain(collection).values):
        np.testing.assert_allclose(found, values, rtol=1e-12)


def test_nan_is_stored_by_an_update_where_the_packing_has_no_zero(make_collection: Make) -> None:
    data = dataset(np.full(24, 290.0), **KELVIN)
    collection = make_collection(data)
    collection.insert(data)
    collection.update(lambda part: {"v": part.v.where(part.v.time.dt.day > 25)})
    np.testing.assert_array_equal(np.isnan(collection.load().v.values), data.time.dt.day.values <= 25)


def test_nan_is_what_a_missing_variable_is_filled_with_where_the_packing_has_no_zero(make_collection: Make) -> None:
    data = dataset(np.full(24, 290.0), **KELVIN).assign(w=("time", np.zeros(24)))
    collection = make_collection(data)
    collection.insert(data[["w"]], missing="fill")
    assert np.isnan(collection.load().v.values).all()


@pytest.mark.parametrize("packing", [KELVIN, RANGE, UNSIGNED], ids=["kelvin", "range", "unsigned"])
def test_a_variable_is_added_where_the_packing_has_no_zero(make_collection: Make, packing: dict[str, Any]) -> None:
    data = dataset(np.zeros(24))
    collection = make_collection(data)
    collection.insert(data)
    collection.add_variable(izc.Variable("sst", "f8", ("time",), encoding=packing))
    assert np.isnan(collection.load().sst.values).all()
