"""Nothing comes back silently different: packed floats in their dtype, NaN by every door, codecs that change values."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
import zarr.codecs
import zarr.codecs.numcodecs as zn

import intake_zcollection as izc
from intake_zcollection.storage.arrays import ChunkCodec

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
    paths = [Path(collection.location, partition.fragments[name][0]) for partition in collection.partitions()]
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


# Codecs that change values


@dataclass(frozen=True)
class Filtered:
    """A filter, and values that it gives back, changes, and rounds."""

    name: str
    configuration: Mapping[str, Any]
    kept: Values
    changed: Values
    """None of them by rounding alone."""
    rounded: Values | None = None

    def encoding(self, zarr_format: int, **others: Any) -> dict[str, Any]:
        if zarr_format == 2:
            return {"filters": [numcodecs.get_codec({"id": self.name, **self.configuration})], **others}
        codecs: dict[str, Any] = {"fixedscaleoffset": zn.FixedScaleOffset, "delta": zn.Delta, "astype": zn.AsType}
        codecs |= {"quantize": zn.Quantize, "bitround": zn.BitRound}
        return {"filters": [codecs[self.name](**self.configuration)], **others}


def numbers(*first: float, dtype: str = "f8") -> Values:
    """These numbers, and ones between them and 300 in tenths."""
    return np.array([*first, *(285 + np.arange(24 - len(first)) / 8)]).astype(dtype)


FILTERS: dict[str, Filtered] = {
    "offset_nan": Filtered(
        "fixedscaleoffset", {"offset": 285, "scale": 8, "dtype": "f8", "astype": "u1"}, numbers(), numbers(np.nan)
    ),
    "offset_range": Filtered(
        "fixedscaleoffset",
        {"offset": 285, "scale": 8, "dtype": "f8", "astype": "u1"},
        numbers(),
        numbers(284, 500),
        numbers(285.3),
    ),
    "delta": Filtered("delta", {"dtype": "f8"}, numbers(), numbers(np.nan)),
    "delta_rounding": Filtered("delta", {"dtype": "f4"}, numbers(dtype="f4"), numbers(1e8, 0.1, dtype="f4")),
    "delta_narrow": Filtered(
        "delta", {"dtype": "i4", "astype": "i1"}, np.arange(24, dtype="i4"), np.array([0, 200, *[9] * 22], "i4")
    ),
    "astype": Filtered(
        "astype", {"encode_dtype": "f4", "decode_dtype": "f8"}, numbers(), numbers(1e300), numbers(285.1)
    ),
    "astype_integers": Filtered(
        "astype", {"encode_dtype": "i2", "decode_dtype": "f8"}, np.arange(24.0), numbers(np.nan), numbers(285.5)
    ),
    "quantize": Filtered("quantize", {"digits": 1, "dtype": "f8"}, numbers(), numbers(1.7e308), numbers(285.11)),
    "bitround": Filtered("bitround", {"keepbits": 20}, numbers(), numbers(np.finfo("f8").max), numbers(285.1)),
}

not_of_the_standard = pytest.mark.filterwarnings(
    "ignore:Numcodecs codecs are not in the Zarr version 3 specification:UserWarning"
)


@pytest.fixture(params=FILTERS)
def filtered(request: pytest.FixtureRequest) -> Filtered:
    """Each filter, one after the other."""
    return FILTERS[request.param]


def assert_nothing_left(collection: izc.Collection, version: int = 0) -> None:
    """Fail if there is another version than this, or a file that no version has."""
    assert collection.version.number == version
    if version == 0:
        files = [path.name for path in Path(collection.location).rglob("*") if path.is_file()]
        assert files == [".zcollection"]


@not_of_the_standard
@pytest.mark.parametrize("lazy", [False, True], ids=["numpy", "dask"])
def test_values_that_a_filter_would_change_are_refused_by_variable_and_partition(
    make_collection: Make, zarr_format: int, filtered: Filtered, lazy: bool
) -> None:
    data = dataset(filtered.changed, **filtered.encoding(zarr_format))
    collection = make_collection(data, zarr_format=zarr_format)
    message = (
        rf"^year=2022/month=0[12]: variable v: \d+ of 12 values, .* would come back as .* from {filtered.name} in its"
    )
    with pytest.raises(izc.InvalidInputError, match=message):
        collection.insert(data.chunk(time=5) if lazy else data)
    assert_nothing_left(collection)


@not_of_the_standard
@pytest.mark.parametrize("chunks", [(24,), (5,)], ids=["one_chunk", "edges"])
def test_values_that_a_filter_gives_back_are_stored(
    make_collection: Make, zarr_format: int, filtered: Filtered, chunks: tuple[int]
) -> None:
    # What fills a chunk beyond the edge is 0, which some of these filters would change.
    data = dataset(filtered.kept, **filtered.encoding(zarr_format, chunks=chunks))
    collection = make_collection(data, zarr_format=zarr_format)
    collection.insert(data)
    np.testing.assert_array_equal(collection.load().v.values, filtered.kept, strict=True)
    np.testing.assert_array_equal(plain(collection).values, filtered.kept, strict=True)


@not_of_the_standard
@pytest.mark.parametrize("name", [name for name, filtered in FILTERS.items() if filtered.rounded is not None])
def test_rounding_is_stored_where_it_is_said_to_be_wanted_and_refused_where_not(
    make_collection: Make, zarr_format: int, name: str
) -> None:
    filtered = FILTERS[name]
    data = dataset(filtered.rounded, **filtered.encoding(zarr_format))
    unsaid = make_collection(data, zarr_format=zarr_format)
    assert not unsaid.schema.variables["v"].lossy
    with pytest.raises(izc.InvalidInputError, match=r"variable v: .* from .* say that rounding is wanted, by lossy=Tr"):
        unsaid.insert(data)
    assert_nothing_left(unsaid)
    data.v.encoding["lossy"] = True
    collection = make_collection(data, zarr_format=zarr_format)
    assert collection.schema.variables["v"].lossy
    collection.insert(data)
    values = collection.load().v.values
    assert np.any(values != filtered.rounded)
    np.testing.assert_allclose(values, np.asarray(filtered.rounded), atol=1)
    assert collection.validate().ok
    collection.insert(data.isel(time=slice(3)), merge="upsert")  # what was rounded is not rounded again
    np.testing.assert_array_equal(collection.load().v.values, values)


@not_of_the_standard
@pytest.mark.parametrize("name", [name for name in FILTERS if "delta" not in name])  # which says nothing of rounding
def test_rounding_that_is_wanted_is_no_leave_to_lose_values(make_collection: Make, zarr_format: int, name: str) -> None:
    filtered = FILTERS[name]
    data = dataset(filtered.changed, **filtered.encoding(zarr_format, lossy=True))
    collection = make_collection(data, zarr_format=zarr_format)
    with pytest.raises(izc.InvalidInputError, match=r"variable v: .* which goes further than rounding; store it witho"):
        collection.insert(data)
    assert_nothing_left(collection)


@not_of_the_standard
def test_a_missing_value_stays_one_where_rounding_is_wanted(make_collection: Make, zarr_format: int) -> None:
    values = numbers(np.nan, np.inf, -np.inf, 0.0)
    encoding = FILTERS["bitround"].encoding(zarr_format, lossy=True)
    collection = make_collection(dataset(values, **encoding), zarr_format=zarr_format)
    collection.insert(dataset(values))
    np.testing.assert_array_equal(collection.load().v.values[:4], values[:4])
    packed = {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -32767}
    tens = Filtered("fixedscaleoffset", {"offset": 0, "scale": 0.1, "dtype": "i2", "astype": "i2"}, values, values)
    collection = make_collection(
        dataset(values, **packed, **tens.encoding(zarr_format, lossy=True)), zarr_format=zarr_format
    )
    with pytest.raises(
        izc.InvalidInputError, match=r"variable v: 1 of 12 values, the first of them nan, would come ba"
    ):
        collection.insert(dataset(numbers(np.nan)))


@not_of_the_standard
def test_every_writer_refuses_what_a_filter_would_change(make_collection: Make, zarr_format: int) -> None:
    filtered = FILTERS["quantize"]
    data = dataset(filtered.kept, **filtered.encoding(zarr_format))
    data["once"] = ("x", np.array([0.5, 0.25]), {}, filtered.encoding(zarr_format))
    collection = make_collection(data, zarr_format=zarr_format)
    collection.insert(data)
    with pytest.raises(izc.InvalidInputError, match=r"^year=2022/month=0[12]: variable v: 12 of 12 values, .* quant"):
        collection.update(lambda part: {"v": part.v + 0.01})
    with pytest.raises(izc.InvalidInputError, match=r"^year=2022/month=02: variable v: 1 of 1 values, .* 285.11"):
        collection.insert(data.isel(time=[-1]).assign(v=("time", [285.11])), merge="upsert")
    with pytest.raises(izc.InvalidInputError, match=r"^the immutable variables: variable once: 1 of 2 values, .* 0.11"):
        collection.set_immutables(xr.Dataset({"once": ("x", [0.11, 0.5])}))
    new = data.assign(w=("time", filtered.rounded, {}, filtered.encoding(zarr_format)))
    with pytest.raises(izc.InvalidInputError, match=r"^year=2022/month=0[12]: variable w: 1 of 12 values"):
        collection.insert(new, unknown="add", merge="replace")
    assert_nothing_left(collection, version=1)
    np.testing.assert_array_equal(collection.load().v.values, filtered.kept)


@not_of_the_standard
def test_a_new_variable_may_be_lossy(make_collection: Make, zarr_format: int) -> None:
    data = dataset(numbers())
    collection = make_collection(data, zarr_format=zarr_format)
    collection.insert(data)
    encoding = FILTERS["quantize"].encoding(zarr_format)
    exact = izc.Variable("exact", "f8", ("time",), encoding=encoding)
    lossy = izc.Variable("lossy", "f8", ("time",), encoding=encoding, lossy=True)
    with pytest.raises(izc.InvalidInputError, match="variable exact: 12 of 12 values"):
        collection.update(lambda part: {"exact": part.v + 0.01}, outputs=[exact])
    collection.update(lambda part: {"lossy": part.v + 0.01}, outputs=[lossy])
    assert collection.schema.variables["lossy"].lossy
    np.testing.assert_allclose(collection.load().lossy.values, data.v.values, atol=0.05)
    copied = collection.copy("made/copied", f"{collection.location}-copied")
    assert copied.schema.variables["lossy"].lossy
    np.testing.assert_array_equal(copied.load().lossy.values, collection.load().lossy.values)


@pytest.mark.parametrize("name", ["time", "cycle"])
def test_a_variable_by_which_rows_have_their_place_cannot_be_lossy(make_collection: Make, name: str) -> None:
    data = dataset(numbers()).assign(cycle=("time", np.arange(24)))
    data[name].encoding["lossy"] = True
    with pytest.raises(izc.InvalidInputError, match=f"variable {name} is lossy, and rows have their place by it"):
        make_collection(data, partitioning=izc.Sequence(("cycle",)))


def test_a_variable_that_is_stored_once_cannot_be_lossy(make_collection: Make) -> None:
    data = dataset(numbers()).assign(once=("x", [1.0], {}, {"lossy": True}))
    with pytest.raises(izc.InvalidInputError, match=r"variable once cannot be .* lacks the dimension 'time'"):
        make_collection(data)


@pytest.mark.parametrize("lossy", [1, "yes", 0.5])
def test_lossy_is_true_or_false(make_collection: Make, lossy: Any) -> None:
    with pytest.raises(izc.InvalidInputError, match=f"variable v cannot be .* lossy is {lossy!r}"):
        make_collection(dataset(numbers(), lossy=lossy))


@not_of_the_standard
def test_filters_inside_shards_are_compared_too(make_collection: Make) -> None:
    filtered = FILTERS["offset_nan"]
    encoding = filtered.encoding(3, chunks=(2,), shards=(4,))
    collection = make_collection(dataset(filtered.changed, **encoding))
    with pytest.raises(izc.InvalidInputError, match=r"variable v: 1 of 4 values, the first of them nan"):
        collection.insert(dataset(filtered.changed))
    collection.insert(dataset(filtered.kept))
    np.testing.assert_array_equal(collection.load().v.values, filtered.kept)


EXACT: dict[str, tuple[int, dict[str, Any]]] = {
    "default_3": (3, {}),
    "default_2": (2, {}),
    "none": (3, {"compressors": None}),
    "gzip": (3, {"compressors": (zarr.codecs.GzipCodec(), zarr.codecs.Crc32cCodec())}),
    "sharded": (3, {"chunks": (2,), "shards": (4,), "filters": [zarr.codecs.TransposeCodec(order=(0,))]}),
    "big": (3, {"serializer": zarr.codecs.BytesCodec(endian="big"), "compressors": zarr.codecs.ZstdCodec()}),
    "shuffle": (2, {"filters": [numcodecs.Shuffle(8)], "compressors": numcodecs.Zlib()}),
    "delta": (2, {"filters": [numcodecs.Delta("i8")], "compressors": numcodecs.LZ4()}),
    "bz2": (2, {"compressors": numcodecs.BZ2()}),
    "lzma": (2, {"filters": [numcodecs.Adler32()], "compressors": numcodecs.LZMA()}),
}


@pytest.mark.parametrize(("zarr_format", "encoding"), EXACT.values(), ids=EXACT)
def test_codecs_that_give_back_every_bit_do_so_and_are_not_asked(
    make_collection: Make, zarr_format: int, encoding: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bits = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 24).view("f8")  # NaN of all kinds among them
    bits[:3] = np.nan, -0.0, np.inf
    data = dataset(bits, **encoding).assign(word=("time", np.array(["é", "日本"] * 12, object)))
    collection = make_collection(data, zarr_format=zarr_format)
    with monkeypatch.context() as patch:
        patch.setattr(ChunkCodec, "decode", lambda *_: pytest.fail("what was encoded was decoded again"))
        collection.insert(data)
    assert collection.load().v.values.tobytes() == bits.tobytes()


@not_of_the_standard
def test_a_codec_that_refuses_values_is_named_with_its_variable(make_collection: Make, zarr_format: int) -> None:
    encoding = FILTERS["delta_narrow"].encoding(zarr_format)
    collection = make_collection(dataset(np.arange(24, dtype="i4"), **encoding), zarr_format=zarr_format)
    with pytest.raises(
        izc.InvalidInputError, match=r"^year=2022/month=0[12]: variable v cannot be stored .* 300 out of bo"
    ):
        collection.insert(dataset(np.array([300] * 24, "i4")), scheduler="synchronous")
    assert_nothing_left(collection)
