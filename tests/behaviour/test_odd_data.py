"""Odd data of every kind comes back value for value, by every way of reading; what cannot is refused by name."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cftime
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import xarray as xr
import zarr.codecs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import intake_zcollection as izc
from tests.conftest import NewRegistry
from tests.examples import scaled

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")  # of plain readers

Make = Callable[..., izc.Collection]
Values = npt.NDArray[Any]

ROWS = 12
TIMES = np.datetime64("2022-01-30", "ns") + np.arange(ROWS) * np.timedelta64(9, "h")
"""Five days in two months."""
NAT = np.datetime64("NaT", "ns")
WORDS = ["", "é", "naïve", "日本語", "🌊", "a b", "ß", "nul\0l", "\n", "Ω" * 6, "x", "tab\t"]


def numbers(dtype: str, *extreme: Any, seed: int = 0) -> Values:
    """Return a row of values each, the extreme ones among them."""
    values = np.random.default_rng(seed).integers(0, 100, ROWS).astype(dtype)
    values[: len(extreme)] = extreme
    return values


def times(dtype: str, step: int, missing: Any = None) -> Values:
    values = (np.arange(ROWS) * step).astype(f"{dtype}[ns]")
    if missing is not None:
        values[3:5] = missing
    return values


def cube(*shape: int, dtype: str = "f4") -> Values:
    return np.random.default_rng(1).integers(-50, 50, shape).astype(dtype)


@dataclass(frozen=True)
class Odd:
    """A variable "v"; one along time is shuffled with its rows."""

    values: Any
    dims: tuple[str, ...] = ("time",)
    encoding: Mapping[str, Any] = field(default_factory=dict)
    format_3: Mapping[str, Any] = field(default_factory=dict)
    """What its encoding has in Zarr's format 3 only."""
    coordinate: bool = False
    name: str = "v"
    others: Mapping[str, Any] = field(default_factory=dict)
    """Other variables of the dataset."""

    def dataset(self, zarr_format: int) -> xr.Dataset:
        encoding = {**self.encoding, **(self.format_3 if zarr_format == 3 else {})}
        odd = xr.Variable(self.dims, self.values, {"note": "odd"}, encoding)
        data = xr.Dataset({self.name: odd, **self.others}, {"time": ("time", TIMES)})
        return data.set_coords(self.name) if self.coordinate else data


TEXT = np.array(WORDS, object)
BYTES = np.array([word.encode()[:9] for word in WORDS])
PACKED = {"dtype": "int16", "scale_factor": 0.5, "add_offset": 10.0}
GRID = {"w": (("time", "y", "x"), cube(ROWS, 2, 3))}
STORED: dict[str, dict[str, Any]] = {
    "by_default": {},
    "chunked": {"encoding": {"chunks": (5,)}},
    "sharded": {"format_3": {"chunks": (2,), "shards": (4,)}},
    "gzip": {"format_3": {"compressors": zarr.codecs.GzipCodec(level=1)}},
    "zstd": {"format_3": {"compressors": zarr.codecs.ZstdCodec(level=1)}},
    "uncompressed": {"encoding": {"compressors": None}},
}
TEXTS = {"text": np.array(WORDS), "bytes": BYTES, "objects": TEXT}

ODD = {f"{kind}_{how}": Odd(values, **options) for kind, values in TEXTS.items() for how, options in STORED.items()} | {
    "text_coordinate": Odd(np.array(WORDS), coordinate=True),
    "text_all_empty": Odd(np.full(ROWS, "", "U3")),
    "text_cube": Odd(np.array(WORDS * 6).reshape(2, ROWS, 3), ("x", "time", "y")),
    "objects_coordinate": Odd(TEXT, coordinate=True),
    "objects_all_empty": Odd(np.full(ROWS, "", object)),
    "objects_cube": Odd(np.tile(TEXT, 6).reshape(2, 3, ROWS), ("x", "y", "time"), {"chunks": (1, 2, 5)}),
    "objects_long": Odd(np.array(["ä" * 10**n for n in (0, 5)] * 6, object)),
    "objects_ending_in_nul": Odd(np.array(["\0", "a\0", "", "\0\0"] * 3, object)),
    "objects_no_values": Odd(np.empty((ROWS, 0), object), ("time", "x")),
    "string_dtype": Odd(np.array(WORDS, np.dtypes.StringDType())),
    "bool": Odd(np.arange(ROWS) % 3 == 0),
    "bool_cube": Odd(cube(2, ROWS, 3) > 0, ("x", "time", "y"), {"chunks": (1, 5, 2)}),
    "datetime": Odd(times("M8", 10**17 + 1, NAT)),
    "datetime_ends": Odd(times("M8", 1) + np.array([2**63 - 1 - 11, -(2**63) + 1] * 6).astype("m8[ns]")),
    "datetime_packed": Odd(
        times("M8", 3600 * 10**9), encoding={"units": "seconds since 2000-01-01", "dtype": "i8", "scale_factor": 3600.0}
    ),
    **{
        f"datetime_in_{units}": Odd(
            times("M8", 864 * 10**11, missing), encoding={"units": units, "dtype": dtype, **fill}
        )
        for units, dtype, missing, fill in (
            ("seconds since 2000-01-01", "i4", None, {}),
            ("days since 1950-01-01", "i2", NAT, {"_FillValue": -32768}),
            ("minutes since 1970-01-01", "i8", NAT, {"missing_value": -9}),
            ("days since 1970-01-01", "f8", NAT, {}),
        )
    },
    "datetime_microseconds": Odd(times("M8", 10**9, NAT).astype("M8[us]")),
    "delay": Odd(times("m8", 10**17 + 1, np.timedelta64("NaT", "ns"))),
    "delay_in_seconds": Odd(times("m8", 10**9), encoding={"units": "seconds", "dtype": "int16"}),
    "delay_filled": Odd(times("m8", 10**9, NAT - NAT), encoding={"units": "seconds", "dtype": "i4", "_FillValue": -1}),
    "no_values": Odd(np.empty((ROWS, 0)), ("time", "x")),
    "no_values_before": Odd(np.empty((0, ROWS, 3)), ("x", "time", "y"), PACKED | {"_FillValue": 0}),
    "no_values_of_time": Odd(np.empty((ROWS, 2, 0), "M8[ns]"), ("time", "x", "y")),
    "cube_second": Odd(cube(3, ROWS, 2), ("x", "time", "y"), {"chunks": (2, 5, 1)}),
    "cube_last": Odd(cube(3, 2, ROWS), ("x", "y", "time"), {"chunks": (2, 2, 5)}),
    "tesseract_third": Odd(cube(2, 3, ROWS, 2), ("x", "y", "time", "z"), {"chunks": (1, 2, 5, 2)}),
    "tesseract": Odd(cube(ROWS, 3, 2, 2), ("time", "x", "y", "z"), {"chunks": (2, 1, 2, 1)}, {"shards": (4, 2, 2, 2)}),
    "float16": Odd(numbers("f2", np.nan, np.inf, -np.inf, -0.0, 6e-8, 65504, 1e-5)),
    "float32_filled": Odd(numbers("f4", np.nan, np.inf, 1e-45), encoding={"_FillValue": np.float32(1e20)}),
    "float64": Odd(numbers("f8", np.nan, -np.inf, 5e-324, np.finfo("f8").max)),
    "complex64": Odd(numbers("c8", 1 + 2j, complex(np.inf, -0.0), complex(3, np.nan))),
    "complex128": Odd(numbers("c16", 1 + 2j, complex(np.nan, 4))),
    "uint64": Odd(numbers("u8", 2**64 - 1, 2**63, 0)),
    "int64": Odd(numbers("i8", 2**63 - 1, -(2**63))),
    "int8": Odd(numbers("i1", -128, 127), encoding={"chunks": (5,)}, format_3=STORED["sharded"]["format_3"]),
    "packed": Odd(numbers("f8", np.nan), encoding=PACKED | {"_FillValue": np.int16(-1), "missing_value": np.int16(-1)}),
    "masked": Odd(numbers("f8", np.nan), encoding={"dtype": "u2", "scale_factor": 0.5, "missing_value": 65535}),
    "bounds": Odd(np.stack([TIMES, TIMES], 1), ("time", "bnds"), {"units": "minutes since 1999-12-31", "dtype": "i8"}),
    "scalar": Odd(np.float32(2.5), (), coordinate=True),
    "scalar_time": Odd(np.datetime64("2001-02-03T04:05:06.789", "ns"), (), coordinate=True),
    "scalar_day": Odd(np.datetime64("2001-02-03", "ns"), (), {"units": "days since 1900-01-01", "dtype": "i4"}),
    "scalar_text": Odd(np.array("日本"), (), coordinate=True),
    "scalar_object": Odd(np.array("日本", object), (), coordinate=True),
    "scalar_delay": Odd(np.timedelta64(5, "s").astype("m8[ns]"), (), coordinate=True),
    "immutable_text": Odd(np.array(["é", "", "abc"]), ("x",)),
    "immutable_objects": Odd(np.array([["é", ""], ["abc", "日"]], object), ("x", "y"), {"chunks": (2, 1)}),
    "labels": Odd(np.array(["é", "", "abc"]), ("x",), name="x", others=GRID),
    "labels_objects": Odd(np.array(["é", "", "abc"], object), ("x",), name="x", others=GRID),
    "labels_bytes": Odd(np.array([b"a", b"", b"abc"]), ("x",), name="x", others=GRID),
    "named_like_a_dimension": Odd(cube(ROWS), name="x", others=GRID),
    "lat_of_two_dimensions": Odd(cube(2, 3), ("y", "x"), coordinate=True, name="lat", others=GRID),
    "time2d": Odd(TIMES[:, None] + np.arange(3).astype("m8[ns]"), ("time", "x"), coordinate=True, name="time2d"),
    "unicode_name": Odd(cube(ROWS), name="Température moyenne (°C) 🌡"),
    "unicode_coordinate": Odd(cube(ROWS), name="Größe", coordinate=True, others=GRID),
    "name_with_wildcards": Odd(cube(ROWS), name="v[a-z]*?"),
}


def assert_same(found: xr.Variable, expected: xr.Variable, name: Any) -> None:
    assert found.dims == expected.dims, name
    dtypes: dict[str, Any] = {"M": "M8[ns]", "m": "m8[ns]", "T": object}
    kind = expected.dtype.kind
    values = expected.values.astype(dtypes[kind] if kind in dtypes else expected.dtype.newbyteorder("="))
    np.testing.assert_array_equal(found.values, values, err_msg=str(name), strict=True)
    if values.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(found.values), np.signbit(values))
    if values.dtype == object:
        assert {type(value) for value in found.values.flat} <= {str}


def assert_holds(collection: izc.Collection, expected: xr.Dataset) -> None:
    """Fail unless all ways of reading give these values: ours, and plain xarray's of each part's group."""
    expected = expected.sortby("time")
    for loaded in (collection.load().compute(), collection.load(chunks="partition"), collection.load(chunks=None)):
        assert set(loaded.data_vars) == set(expected.data_vars)
        for name, variable in expected.variables.items():
            assert_same(loaded.variables[name], variable, name)
    first = 0
    records = collection._handle.registry.partitions(collection.name)
    for partition, record in zip(collection.partitions(), records, strict=True):
        (paths,) = set(partition.fragments.values())
        for part in record.parts:
            (fragment,) = part.fragments
            (path,) = (path for path in paths if path.endswith(f"/{fragment.uid}"))
            values = expected.isel(time=slice(first, first + part.rows)).drop_vars(collection.schema.immutable)
            rows = slice(fragment.start, fragment.start + part.rows)
            assert_plain(Path(collection.location, path), values, rows)
            first += part.rows
    assert first == expected.sizes["time"]
    if collection.schema.immutable:
        (group,) = Path(collection.location, "immutable").iterdir()
        assert_plain(group, expected.drop_vars(collection.schema.partitioned))


def assert_plain(path: Path, expected: xr.Dataset, rows: slice | None = None) -> None:
    with xr.open_zarr(path, consolidated=False, chunks=None) as group:
        plain = group if rows is None else group.isel(time=rows)
        assert set(plain.variables) == set(expected.variables)
        assert set(plain.coords) == set(expected.coords)
        for name, variable in expected.variables.items():
            # Plain xarray reads text of any length as numpy's StringDType.
            read = plain.variables[name].astype(object) if variable.dtype.kind in "OT" else plain.variables[name]
            assert_same(read, variable, name)


def swapped(data: xr.Dataset) -> xr.Dataset:
    """Return the dataset in the other byte order."""
    changed = {}
    for name, variable in data.variables.items():
        if variable.dtype.kind in "iufcMmU" and variable.ndim:
            changed[name] = (variable.dims, variable.values.astype(variable.dtype.newbyteorder(">")), variable.attrs)
    return data.drop_indexes(list(data.indexes)).assign(changed)


def shuffled(data: xr.Dataset, seed: int = 0) -> xr.Dataset:
    return data.isel(time=np.random.default_rng(seed).permutation(data.sizes["time"]))


def joined(*parts: xr.Dataset) -> xr.Dataset:
    return xr.concat(list(parts), "time", data_vars="minimal", coords="minimal", compat="override", join="override")


FIRST_OF_EACH_KIND = {*{name.partition("_")[0]: name for name in reversed(ODD)}.values()}

IN_BOTH_FORMATS = {
    *FIRST_OF_EACH_KIND,
    *("bytes_chunked", "objects_uncompressed", "objects_cube", "objects_no_values", "immutable_objects"),
    *("bool_cube", "datetime_packed", "datetime_in_days since 1950-01-01", "delay_in_seconds", "delay_filled"),
    *("no_values_before", "scalar_time", "scalar_text", "scalar_object", "labels_objects", "unicode_coordinate"),
}
"""What a format stores in a way of its own: dtypes and fill values, objects, scalars, chunks, no values, names."""


GROUPS = {
    "texts": ("text", "bytes", "objects", "string"),
    "times": ("datetime", "delay", "bounds"),
    "shapes": ("no", "cube", "tesseract", "bool"),
    "once": ("scalar", "immutable"),
}
"""What is stored together, by the first words of names; all others that are called by default are numbers."""


def group_of(name: str) -> str:
    odd = ODD[name]
    if odd.name != "v" or odd.others:  # its name is what it is about
        return name
    return next((group for group, kinds in GROUPS.items() if name.partition("_")[0] in kinds), "numbers")


def together(names: Collection[str], zarr_format: int) -> dict[str, xr.Dataset]:
    """Datasets of all that can be stored together, each variable with its own name and dimensions."""
    groups: dict[str, list[xr.Dataset]] = {}
    for name, odd in ODD.items():
        if name in names:
            data = odd.dataset(zarr_format)
            if (group := group_of(name)) != name:
                data = data.rename({"v": name, **{dim: f"{dim} of {name}" for dim in data.dims if dim != "time"}})
            groups.setdefault(group, []).append(data)
    return {group: xr.merge(each, compat="equals", join="exact") for group, each in groups.items()}


@pytest.mark.parametrize(
    ("zarr_format", "resolution", "data"),
    [
        pytest.param(zarr_format, resolution, data, id=f"zarr{zarr_format}-{resolution}-{group}")
        for zarr_format, resolution, names in (
            (3, "M", ODD),
            (3, "D", FIRST_OF_EACH_KIND),  # a partition per row
            (2, "M", IN_BOTH_FORMATS),
        )
        for group, data in together(names, zarr_format).items()
    ],
)
def test_rows_in_any_order_come_back_by_all_ways_of_reading(
    make_collection: Make, zarr_format: int, resolution: Any, data: xr.Dataset
) -> None:
    partitioning = izc.Date("time", resolution)
    collection = make_collection(data, partitioning=partitioning, zarr_format=zarr_format)
    collection.insert(shuffled(data.isel(time=slice(0, 8))))
    assert_holds(collection, data.isel(time=slice(0, 8)))
    rolled = data.assign(
        {name: v.roll(time=3) for name, v in data.variables.items() if name != "time" and "time" in v.dims}
    )
    late = swapped(shuffled(rolled.isel(time=slice(5, 12)), 1))
    collection.insert(late.chunk({dim: 1 if str(dim).startswith("x") else 4 for dim in late.dims}), merge="upsert")
    assert_holds(collection, joined(data.isel(time=slice(0, 5)), rolled.isel(time=slice(5, 12))))


def test_text_is_taken_from_arrays_of_any_width_that_it_fits(make_collection: Make, zarr_format: int) -> None:
    data = Odd(np.array(["日本語é"] * ROWS)).dataset(zarr_format)
    collection = make_collection(data, zarr_format=zarr_format)
    parts = [data.isel(time=slice(start, start + 2)) for start in range(0, ROWS, 2)]
    dtypes: list[Any] = ["U2", "U4", "U99", ">U7", object, np.dtypes.StringDType()]
    texts = [np.array(["é", ""]).astype(dtype) for dtype in dtypes]
    given = [part.assign(v=("time", text)) for part, text in zip(parts, texts, strict=True)]
    collection.insert([part.chunk(time=1) if i in (2, 3) else part for i, part in enumerate(given)])
    assert_holds(collection, data.assign(v=("time", np.array(["é", ""] * 6, "U4"))))


def test_missing_text_is_filled_with_empty_text(make_collection: Make, zarr_format: int) -> None:
    data = Odd(TEXT, others={"w": ("time", np.array(WORDS))}).dataset(zarr_format)
    collection = make_collection(data, zarr_format=zarr_format)
    collection.insert(data[["time"]], missing="fill")
    assert_holds(collection, data.assign(v=("time", np.full(ROWS, "", object)), w=("time", np.full(ROWS, "", "U6"))))


def test_a_template_may_come_from_a_file_of_odd_data(make_collection: Make, zarr_format: int, tmp_path: Path) -> None:
    others = {
        name: ODD[name].values
        for name in ("text_gzip", "bytes_gzip", "bool", "complex64", "delay", "datetime", "float16")
    }
    data = Odd(TEXT, others={name: ("time", values) for name, values in others.items()}).dataset(zarr_format)
    data.to_zarr(tmp_path / "file.zarr", zarr_format=zarr_format, consolidated=False)
    with xr.open_zarr(tmp_path / "file.zarr", consolidated=False, chunks=None) as template:
        collection = make_collection(template, zarr_format=zarr_format)
        collection.insert(template)
    assert_holds(collection, data)


ATTRIBUTES: dict[str, tuple[Any, Any]] = {
    "list": ([1, 2.5, "é"], [1, 2.5, "é"]), "tuple": ((1, 2), [1, 2]), "empty": ([], []), "nothing": (None, None),
    "nested": ({"a": [{"b": True}]}, {"a": [{"b": True}]}), "bool": (np.True_, True), "text": (np.str_("日"), "日"),
    "int64": (np.int64(5), 5), "0-d": (np.array(5), 5), "nan": (np.nan, np.nan), "float64": (np.float64(9), 9.0),
    "texts": (np.array(["a", "é"]), ["a", "é"]), "Größe ☃": ("\n", "\n"), "": ("no name", "no name"),
    "$float": ("nan", "nan"), "dict": ({"$float": "nan"}, {"$float": "nan"}),
    "like_a_tag": ({"$dtype": "int8", "$value": 3}, {"$dtype": "int8", "$value": 3}),
}  # fmt: skip
"""Attributes, and what they are for all readers."""

TYPED = {
    "int8": np.int8(-128), "uint64": np.uint64(2**64 - 1), "float32": np.float32(0.1), "float16": np.float16("inf"),
    "flag_values": np.array([0, 1, 2], "i1"), "valid_range": np.array([-5, 5], "f4"), "wide": np.array([1, 2]),
    "array": np.array([[1], [3]], "i2"), "nans": np.array([np.nan, 1]), "none": np.zeros(0, "u2"),
    "bools": np.array([True, False]), "of_0_dimensions": np.array(5, "i1")[()], "single_nan": np.float32("nan"),
}  # fmt: skip
"""Attributes that come back in their dtype, and are plain numbers in the JSON of Zarr."""


def test_attributes_come_back_in_their_dtypes_and_as_json_has_them(make_collection: Make, zarr_format: int) -> None:
    given = {name: before for name, (before, _) in ATTRIBUTES.items()} | TYPED
    expected = {name: after for name, (_, after) in ATTRIBUTES.items()}
    data = Odd(cube(ROWS)).dataset(zarr_format).assign_attrs(given)
    data.v.attrs = given
    collection = make_collection(data, zarr_format=zarr_format)
    collection.insert(data)
    for attrs in (collection.load().attrs, collection.load().v.attrs):
        assert repr(attrs) == repr(expected | TYPED)
    path = Path(collection.location, collection.partitions()[0].fragments["v"][0])
    with xr.open_zarr(path, consolidated=False, chunks=None) as plain:
        numbers = {name: np.asarray(value).tolist() for name, value in TYPED.items()}
        for attrs in (plain.attrs, plain.v.attrs):
            assert repr({name: attrs[name] for name in given}) == repr(expected | numbers)


def test_attributes_go_back_to_netcdf_in_their_dtypes(make_collection: Make, tmp_path: Path) -> None:
    attrs = {name: value for name, value in TYPED.items() if name not in ("float16", "bools", "array", "none")}
    data = Odd(cube(ROWS)).dataset(3).assign_attrs(attrs)
    data.v.attrs = attrs
    data.to_netcdf(tmp_path / "before.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "before.nc", engine="h5netcdf") as before:
        collection = make_collection(before)
        collection.insert(before)
        collection.load().to_netcdf(tmp_path / "after.nc", engine="h5netcdf")
        with xr.open_dataset(tmp_path / "after.nc", engine="h5netcdf") as after:
            for name in attrs:
                for old, new in ((before.attrs[name], after.attrs[name]), (before.v.attrs[name], after.v.attrs[name])):
                    np.testing.assert_array_equal(new, old, strict=True)


def test_setting_an_attribute_to_what_it_is_changes_nothing_and_another_dtype_does(make_collection: Make) -> None:
    data = Odd(cube(ROWS)).dataset(3)
    data.v.attrs = TYPED
    collection = make_collection(data)
    assert collection.set_attributes(TYPED, "v").number == 0
    assert collection.set_attributes({"int8": np.int16(-128)}, "v").number == 1
    assert collection.set_attributes({"int8": np.int16(-128), "valid_range": None}, "v").number == 2
    attrs = collection.load().v.attrs
    assert (attrs["int8"].dtype, "valid_range" in attrs) == (np.int16, False)


def test_an_attribute_that_a_user_changes_stays_what_it_is_in_the_schema(make_collection: Make) -> None:
    data = Odd(cube(ROWS)).dataset(3).assign_attrs(TYPED)
    schema = make_collection(data).schema
    schema.attrs["flag_values"][0] = 9
    assert schema.attrs["flag_values"].tolist() == [0, 1, 2]


# What cannot be stored


def assert_refused(collection: izc.Collection, data: xr.Dataset, match: str, **options: Any) -> None:
    """Fail unless inserting is refused by the variable's name, and nothing is left of it."""
    with pytest.raises(izc.InvalidInputError, match=match):
        collection.insert(data, **options)
    assert [path.name for path in Path(collection.location).rglob("*") if path.is_file()] == [".zcollection"]
    assert len(collection.versions()) == 1


@pytest.mark.parametrize("chunks", [None, 5], ids=["numpy", "dask"])
@pytest.mark.parametrize("template", ["U4", object])
@pytest.mark.parametrize("bad", [None, np.nan, b"x", 5, "\ud800", ["a"], cftime.DatetimeNoLeap(2022, 2, 28)], ids=ascii)
def test_objects_that_are_no_text_are_refused(
    make_collection: Make, template: Any, bad: Any, chunks: int | None
) -> None:
    values = np.array([text[:4] for text in TEXT], object)  # what is too long may be found before
    values[7] = bad
    data = Odd(np.array(["abc"] * ROWS, template)).dataset(3)
    given = data.assign(v=("time", values))
    assert_refused(make_collection(data), given.chunk(time=chunks) if chunks else given, "variable v: 1 of .* no text")


@pytest.mark.parametrize("chunks", [None, 5], ids=["numpy", "dask"])
@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("U2", np.array(["é"] * 11 + ["ééé"])),
        ("U2", np.array(["é"] * 11 + ["ééé"], object)),
        ("U2", np.array(["a"] * 11 + ["a\0"], object)),
        ("S2", np.array([b"a"] * 11 + [b"abc"])),
        ("S2", np.array(["ab"] * ROWS)),
        ("S30", np.arange(ROWS)),
        ("U2", np.array([b"ab"] * ROWS)),
        ("U2", np.zeros(ROWS, "V2")),
        (object, np.arange(ROWS)),
        ("S2", np.zeros(ROWS, "V2")),
        ("M8[ns]", np.array(["3000-01-01"] * ROWS, "M8[s]")),
        ("m8[ns]", np.array([10**12] * ROWS, "m8[s]")),
        ("M8[ns]", np.full(ROWS, cftime.DatetimeNoLeap(2022, 2, 28))),
        ("f8", np.zeros(ROWS, [("a", "f8"), ("b", "i4")])),
        ("f8", np.full(ROWS, None)),
        ("f2", np.full(ROWS, 65536.0)),
        ("c8", np.full(ROWS, 1e-300 + 0j)),
        ("bool", np.arange(ROWS)),
        ("i8", np.full(ROWS, 2**63, "u8")),
        ("i8", pd.array([1] * ROWS, dtype="Int64")),
    ],
    ids=lambda value: str(getattr(value, "dtype", value)),
)
def test_values_that_do_not_fit_are_refused_by_name(
    make_collection: Make, template: Any, values: Values, chunks: int | None
) -> None:
    data = Odd(np.zeros(ROWS, template) if template is not object else TEXT).dataset(3)
    given = data.drop_vars("v").assign(v=("time", values))
    # dask has no blocks of pandas' dtypes
    lazy = given.chunk(time=chunks) if chunks and isinstance(values.dtype, np.dtype) else given
    assert_refused(make_collection(data), lazy, r"variable v\b")


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(ROWS, "V4"),
        np.zeros(ROWS, [("a", "f8")]),
        np.full(ROWS, None),
        np.full(ROWS, b"abc", object),
        np.full(ROWS, cftime.DatetimeNoLeap(2022, 2, 28)),
        np.array([b"a"] * ROWS, "S1"),
        np.zeros(ROWS, np.longdouble),
        pd.array([1] * ROWS, dtype="Int64"),
    ],
    ids=lambda values: f"{type(values[0]).__name__}",
)
def test_what_no_schema_has_is_refused_at_creation_and_at_adding(make_collection: Make, values: Values) -> None:
    data = Odd(cube(ROWS)).dataset(3)
    bad = data.assign(bad=("time", values))
    with pytest.raises(izc.InvalidInputError, match=r"variable bad\b"):
        make_collection(bad)
    assert_refused(make_collection(data), bad, r"variable bad\b", unknown="add")


@pytest.mark.parametrize("name", ["a/b", ".hidden", "__a", "", "nul\0", "\ud800", "é" * 200, "back\\slash"])
def test_names_that_no_directory_can_have_are_refused_at_creation(make_collection: Make, name: str) -> None:
    with pytest.raises(izc.InvalidInputError, match="variable"):
        make_collection(Odd(cube(ROWS), name=name).dataset(3))


@pytest.mark.parametrize(
    ("values", "attrs"),
    [
        (cube(ROWS, dtype="i1"), {"_Unsigned": "true"}),
        (cube(ROWS, dtype="i1"), {"dtype": "bool"}),
        (cube(ROWS, dtype="i8"), {"dtype": "timedelta64[ns]", "units": "seconds"}),
        (cube(ROWS, dtype="i8"), {"units": "days since 2000-01-01"}),
        (TEXT, {"units": "days since 2000-01-01"}),
        (np.array(["é".encode()] * ROWS), {"_Encoding": "utf-8"}),
        (cube(ROWS), {"scale_factor": 2.0}),
        (cube(ROWS), {"bad": b"bytes"}),
        (cube(ROWS), {"bad": 1j}),
        (cube(ROWS), {"bad": np.datetime64("2022-01-01")}),
    ],
    ids=lambda value: " ".join(map(ascii, value.items())) if isinstance(value, dict) else str(value.dtype),
)
def test_attributes_that_would_be_lost_or_change_the_values_are_refused_by_name(
    make_collection: Make, values: Values, attrs: dict[str, Any]
) -> None:
    with pytest.raises(izc.InvalidInputError, match=r"variable v\b"):
        make_collection(Odd(values).dataset(3).assign(v=("time", values, attrs)))


# Anything


KINDS = ["?", "i1", "u8", ">i4", "f2", "<f4", ">f8", "c8", ">c16", "M8[ns]", ">M8[s]", "m8[ns]", "U3", ">U5", "S4", "O"]


@st.composite
def anything(draw: st.DrawFn) -> tuple[xr.Dataset, xr.Dataset, dict[str, Any]]:
    """Return a dataset, the same perhaps as dask has it, and how a collection stores it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = draw(st.integers(1, 9))
    when = np.datetime64("2021-12-30", "ns") + rng.permutation(rows * 7)[:rows] * np.timedelta64(7, "h")
    variables = {}
    sizes = {"x": draw(st.integers(0, 3)), "y": draw(st.integers(0, 2)), "z": 2}
    for number in range(draw(st.integers(1, 3))):
        dims = draw(st.lists(st.sampled_from(sorted(sizes)), max_size=3, unique=True))
        dims.insert(draw(st.integers(0, len(dims))), "time")
        shape = tuple(rows if dim == "time" else sizes[dim] for dim in dims)
        dtype = np.dtype(draw(st.sampled_from(KINDS)))
        encoding = {"chunks": tuple(draw(st.integers(1, 4)) for _ in dims)} if draw(st.booleans()) else {}
        variables[f"v{number}"] = xr.Variable(dims, random_values(rng, dtype, shape), {}, encoding)
    data = xr.Dataset(variables, {"time": when})
    chunks = {dim: draw(st.integers(1, 4)) for dim in data.dims}
    options = {
        "partitioning": izc.Date("time", draw(st.sampled_from("YMDh"))),
        "zarr_format": draw(st.sampled_from([2, 3])),
    }
    return data, data.chunk(chunks) if draw(st.booleans()) else data, options


def random_values(rng: np.random.Generator, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Values:
    if dtype.kind in "USO":
        letters = np.array(["", "a", "é", "日", "\n"] if dtype.kind != "S" else ["", "a", "B", "0", "\n"])
        text = ["".join(letters[rng.integers(0, 5, 3)]) for _ in range(int(np.prod(shape)))]
        return np.array(text, object).astype(dtype).reshape(shape)
    if dtype.kind in "Mm":
        counts = rng.integers(-(10**9), 10**9, shape)
        return np.where(rng.random(shape) < 0.2, np.iinfo("i8").min, counts).view(dtype.newbyteorder("=")).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    return np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(
        shape
    )  # NaN, infinities and subnormals among them


@settings(max_examples=scaled(20), deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(example=anything())
def test_anything_in_any_shape_comes_back(
    new_registry: NewRegistry, example: tuple[xr.Dataset, xr.Dataset, dict[str, Any]]
) -> None:
    data, inserted, options = example
    with TemporaryDirectory() as path, new_registry() as registry:
        collection = izc.create_collection(
            registry, "any/thing", data, axis="time", location=f"{path}/thing", **options
        )
        collection.insert(inserted, scheduler="synchronous")
        assert_holds(collection, data)
