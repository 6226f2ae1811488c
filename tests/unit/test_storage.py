"""Fragments as bytes: what is written is read, by us and by zarr, chunk by chunk; and what storage may answer."""

import dataclasses
import itertools
import pickle
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import fsspec
import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr
import zarr.codecs
import zarr.storage
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.buffer import cpu

from intake_zcollection.errors import (
    AlreadyExistsError,
    CorruptedDataError,
    InvalidInputError,
    StorageUnavailableError,
)
from intake_zcollection.schema import Schema, Values, encoding
from intake_zcollection.schema.template import schema_from_template
from intake_zcollection.storage.arrays import array_layout, chunk_codec
from intake_zcollection.storage.location import Location, public_options, resolve_location
from intake_zcollection.storage.marker import Marker, put_marker, read_marker, remove_marker
from intake_zcollection.storage.read import Region, read_region
from intake_zcollection.storage.write import fragment_objects, write_fragment
from registry import MARKER

DIMS = ("time", "y", "x", "z")


class CountingFileSystem(MemoryFileSystem):
    """A memory file system of its own that remembers what was asked of it."""

    protocol = "counting"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    asked: ClassVar[list[tuple[str, str]]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("counting://"))

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        self.asked.append(("read", path))
        return super().cat_file(path, *args, **kwargs)

    def _open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        self.asked.append(("open" if mode == "rb" else "write", path))
        return super()._open(path, mode, *args, **kwargs)

    def info(self, path: str, **kwargs: Any) -> Any:
        self.asked.append(("info", path))
        return super().info(path, **kwargs)

    def ls(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self.asked.append(("list", path))
        return super().ls(path, *args, **kwargs)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[CountingFileSystem]:
    # fsspec.registry is a read-only view of this dict; register_implementation could not be undone.
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "counting", CountingFileSystem)
    CountingFileSystem.store.clear()
    CountingFileSystem.asked.clear()
    return CountingFileSystem


@pytest.fixture
def location(tmp_path: Path) -> Location:
    return resolve_location(str(tmp_path / "data"), None)


def fresh_memory() -> Location:
    """A place in memory where nothing is yet."""
    return Location(f"memory://{uuid.uuid4().hex}")


def schema_of(template: xr.Dataset, zarr_format: Literal[2, 3] = 3) -> Schema:
    return schema_from_template(template, axis="time", dimension="time", zarr_format=zarr_format)


def schema_like(values: Values, zarr_format: Literal[2, 3] = 3, split: int | None = 0, **encoding: Any) -> Schema:
    """The schema of one variable "ssh" like ``values``, whose dimension at position ``split`` is split."""
    others = iter(DIMS[1:])
    dims = tuple("time" if i == split else next(others, "w") for i in range(values.ndim))
    return schema_of(xr.Dataset({"ssh": xr.Variable(dims, values, {}, encoding)}), zarr_format)


def rows_of(schema: Schema, values: Values) -> int:
    variable = schema.variables["ssh"]
    return 0 if variable.is_immutable else values.shape[variable.split_axis]


def whole(values: Values) -> Region:
    return tuple(slice(0, size) for size in values.shape)


def as_zarr_store(objects: Mapping[str, bytes]) -> zarr.storage.MemoryStore:
    """A store of zarr's with the objects of a fragment at the path "f"."""
    return zarr.storage.MemoryStore(
        {name.removeprefix("f/"): cpu.Buffer.from_bytes(data) for name, data in objects.items()}
    )


# Codecs: those that go through numcodecs, and those that go through zarr


def _shards(ndim: int, chunks: tuple[int, ...]) -> dict[str, Any]:
    return {"chunks": chunks, "shards": tuple(2 * chunk for chunk in chunks)}


CODECS: dict[str, tuple[Literal[2, 3], Any]] = {
    "v3-default": (3, lambda ndim, chunks: {}),
    "v3-none": (3, lambda ndim, chunks: {"compressors": None}),
    "v3-zstd": (3, lambda ndim, chunks: {"compressors": zarr.codecs.ZstdCodec(level=2, checksum=True)}),
    "v3-gzip": (3, lambda ndim, chunks: {"compressors": zarr.codecs.GzipCodec()}),
    "v3-blosc": (3, lambda ndim, chunks: {"compressors": zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle")}),
    "v3-two": (3, lambda ndim, chunks: {"compressors": (zarr.codecs.ZstdCodec(), zarr.codecs.GzipCodec())}),
    "v3-big-endian": (3, lambda ndim, chunks: {"serializer": zarr.codecs.BytesCodec(endian="big")}),
    "v3-crc32c": (3, lambda ndim, chunks: {"compressors": (zarr.codecs.GzipCodec(), zarr.codecs.Crc32cCodec())}),
    "v3-transpose": (
        3,
        lambda ndim, chunks: {"filters": [zarr.codecs.TransposeCodec(order=tuple(reversed(range(ndim))))]},
    ),
    "v3-shards": (3, _shards),
    "v2-default": (2, lambda ndim, chunks: {}),
    "v2-none": (2, lambda ndim, chunks: {"compressors": None}),
    "v2-zstd": (2, lambda ndim, chunks: {"compressors": numcodecs.Zstd(level=2)}),
    "v2-gzip": (2, lambda ndim, chunks: {"compressors": numcodecs.GZip()}),
    "v2-blosc": (2, lambda ndim, chunks: {"compressors": numcodecs.Blosc(cname="lz4", shuffle=2)}),
    "v2-delta": (2, lambda ndim, chunks: {"filters": [numcodecs.Delta("<i4")]}),
    "v2-two-filters": (2, lambda ndim, chunks: {"filters": [numcodecs.Delta("<i4"), numcodecs.Shuffle(4)]}),
}
"""By name: the format, and the encoding for a number of dimensions and chunks."""


@st.composite
def fragments(draw: st.DrawFn, codec: str) -> tuple[Schema, Values]:
    """A schema of one variable, and values for it: any shape, any chunks, any position of the split dimension."""
    zarr_format, make_encoding = CODECS[codec]
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=codec in ("v3-transpose", "v3-shards"), max_size=4)))
    split = draw(st.sampled_from([None, *range(len(shape))]))
    chunks = tuple(draw(st.integers(1, size + 2)) for size in shape)
    dtype = "<i4" if "delta" in codec or "filters" in codec else draw(st.sampled_from(["<i4", "<f8", "?", "<u2"]))
    values = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 9, shape).astype(dtype)
    encoding = make_encoding(len(shape), chunks)
    if "chunks" not in encoding and draw(st.booleans()):
        encoding["chunks"] = chunks
    if len(shape) == 0:
        encoding.pop("chunks", None)
    return schema_like(values, zarr_format, split, **encoding), values


def draw_region(data: st.DataObject, shape: tuple[int, ...]) -> Region:
    bounds = [sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size)))) for size in shape]
    return tuple(slice(*pair) for pair in bounds)


@pytest.mark.parametrize("codec", CODECS)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_any_region_of_a_fragment_is_what_numpy_slices(codec: str, data: st.DataObject) -> None:
    schema, values = data.draw(fragments(codec))
    location, rows = fresh_memory(), rows_of(schema, values)
    nbytes = write_fragment(location, "f", schema, {"ssh": values}, rows)
    assert nbytes == fsspec.filesystem("memory").du(location.url)
    region = draw_region(data, values.shape)
    read = read_region(location, "f", schema.variables["ssh"], rows, region)
    np.testing.assert_array_equal(read, values[region], strict=True)


@pytest.mark.parametrize("codec", CODECS)
@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_zarr_and_xarray_read_what_is_written(codec: str, data: st.DataObject) -> None:
    schema, values = data.draw(fragments(codec))
    store = as_zarr_store(dict(fragment_objects(schema, {"ssh": values}, rows_of(schema, values), "f")))
    group = zarr.open_group(store, mode="r")
    assert group.metadata.zarr_format == schema.zarr_format
    np.testing.assert_array_equal(zarr.open_array(store, path="ssh", mode="r")[...], values, strict=True)
    for consolidated in (False, True):
        with xr.open_zarr(store, consolidated=consolidated, chunks=None) as dataset:
            assert dataset.ssh.dims == schema.variables["ssh"].dims
            np.testing.assert_array_equal(dataset.ssh.values, values, strict=True)


@pytest.mark.parametrize("codec", CODECS)
@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_what_zarr_writes_with_the_same_metadata_is_read(codec: str, data: st.DataObject) -> None:
    schema, values = data.draw(fragments(codec))
    rows = rows_of(schema, values)
    written = dict(fragment_objects(schema, {"ssh": values}, rows, "f"))
    documents = {name: data for name, data in written.items() if name.rpartition("/")[2].startswith((".", "zarr.json"))}
    store = as_zarr_store(documents)
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.open_array(store, path="ssh", mode="r+")[...] = values
    objects = {f"f/{name}": buffer.to_bytes() for name, buffer in store._store_dict.items()}
    assert objects.keys() == written.keys()
    location = fresh_memory()
    location.store.put(objects.items())
    read = read_region(location, "f", schema.variables["ssh"], rows, whole(values))
    np.testing.assert_array_equal(read, values, strict=True)


@pytest.mark.parametrize(
    "codec", [codec for codec in CODECS if codec not in ("v3-gzip", "v3-two", "v2-gzip", "v3-crc32c")]
)
def test_chunks_are_the_bytes_that_zarr_writes(codec: str) -> None:
    # But for those of gzip, whose header has the time.
    zarr_format, make_encoding = CODECS[codec]
    values = np.arange(8 * 6, dtype="<i4").reshape(8, 6) ** 2
    schema = schema_like(values, zarr_format, **{"chunks": (4, 3)} | make_encoding(2, (4, 3)))
    written = dict(fragment_objects(schema, {"ssh": values}, 8, "f"))
    store = as_zarr_store({name: data for name, data in written.items() if "/ssh/c." not in name})
    zarr.open_array(store, path="ssh", mode="r+")[...] = values
    assert {f"f/{name}": buffer.to_bytes() for name, buffer in store._store_dict.items()} == written


@pytest.mark.parametrize("fill", [0, 7])
def test_shards_of_nothing_but_fill_values_are_written_and_read(fill: int) -> None:
    values = np.full((8, 3), fill, "i4")
    schema = schema_like(values, chunks=(2, 3), shards=(4, 3))
    location = fresh_memory()
    write_fragment(location, "f", schema, {"ssh": values}, 8)
    read = read_region(location, "f", schema.variables["ssh"], 8, whole(values))
    np.testing.assert_array_equal(read, values, strict=True)


@pytest.mark.parametrize("codec", ["v3-crc32c", "v3-shards", "v3-default"])
def test_chunks_are_coded_without_changing_the_configuration_of_zarr(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is the process's: of two threads that set it for a while, the later one restores what the earlier one set.
    monkeypatch.setattr("gzip.time.time", lambda: 1.6e9)  # gzip writes the second in which it compresses
    location, schema = _written(codec)
    (data,) = location.store.get(["f/ssh/c.0.0"])
    codec_ = chunk_codec(schema.variables["ssh"])

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the configuration of zarr was changed")

    monkeypatch.setattr(type(zarr.config), "set", refuse)
    chunk = codec_.decode(data, (50, 1))
    assert codec_.encode(chunk) == data


def test_column_major_chunks_of_format_2_are_written_and_read() -> None:
    values = np.arange(30, dtype="i4").reshape(10, 3)
    schema = schema_like(values, 2, chunks=(4, 2), compressors=None)
    variable = schema.variables["ssh"]
    variable = dataclasses.replace(variable, array={**variable.array, "order": "F"})
    schema = dataclasses.replace(schema, variables={"ssh": variable})
    objects = dict(fragment_objects(schema, {"ssh": values}, 10, "f"))
    assert np.frombuffer(objects["f/ssh/0.0"], "<i4").tolist() == [0, 3, 6, 9, 1, 4, 7, 10]
    np.testing.assert_array_equal(zarr.open_array(as_zarr_store(objects), path="ssh", mode="r")[...], values)
    location = fresh_memory()
    location.store.put(objects.items())
    np.testing.assert_array_equal(read_region(location, "f", variable, 10, whole(values)), values)


# What a fragment looks like from outside


def test_a_fragment_on_disk_opens_in_plain_xarray_as_the_dataset_it_was(
    grid: xr.Dataset, zarr_format: Literal[2, 3], location: Location
) -> None:
    schema = schema_of(grid, zarr_format)
    stored = {name: encoding.encode(variable, grid[name].values) for name, variable in schema.variables.items()}
    write_fragment(location, "f", schema, stored, grid.sizes["time"])
    options: Any
    for options in ({}, {"consolidated": False}):
        with xr.open_zarr(f"{location.url}/f", **options) as dataset:
            xr.testing.assert_allclose(dataset, grid)
            assert set(dataset.coords) == set(grid.coords)
            assert dataset.attrs == grid.attrs
            assert {name: v.attrs for name, v in dataset.variables.items()} == {
                name: v.attrs for name, v in grid.variables.items()
            }
            np.testing.assert_array_equal(np.isnan(dataset.sst), np.isnan(grid.sst))


def test_data_variables_name_their_coordinates_and_the_group_those_left_over(zarr_format: Literal[2, 3]) -> None:
    template = xr.Dataset(
        {"ssh": (("time", "x"), np.zeros((2, 3))), "flag": ("time", np.zeros(2))},
        {
            "time": np.zeros(2, "M8[ns]"),
            "orbit": ("time", np.zeros(2)),
            "lat": ("x", np.zeros(3)),
            "height": (("y", "z"), np.zeros((1, 1))),
        },
    )
    values: dict[Any, Any] = {name: np.zeros(variable.shape) for name, variable in template.variables.items()}
    values["time"] = np.zeros(2, "i8")
    store = as_zarr_store(dict(fragment_objects(schema_of(template, zarr_format), values, 2, "f")))
    group = zarr.open_group(store, mode="r")
    named = {name: array.attrs.get("coordinates") for name, array in group.arrays()}
    assert {name: set(str(text).split()) for name, text in named.items() if text} == {
        "ssh": {"orbit", "lat"},
        "flag": {"orbit"},
    }
    assert group.attrs["coordinates"] == "height"
    with xr.open_zarr(store, chunks=None) as dataset:
        assert set(dataset.coords) == {"time", "orbit", "lat", "height"}


def test_a_fragment_holds_the_variables_it_is_given_and_no_others(location: Location) -> None:
    template = xr.Dataset({"ssh": ("time", np.zeros(3)), "swh": ("time", np.zeros(3))})
    write_fragment(location, "a/b", schema_of(template), {"swh": np.arange(3.0)}, 3)
    group = zarr.open_group(f"{location.url}/a/b", mode="r")
    assert list(group) == ["swh"]


def test_a_variable_lies_under_its_stored_name(location: Location) -> None:
    schema = schema_of(xr.Dataset({"ssh": ("time", np.zeros(3))}))
    renamed = dataclasses.replace(schema.variables["ssh"], name="sla")
    schema = dataclasses.replace(schema, variables={"sla": renamed})
    write_fragment(location, "f", schema, {"sla": np.arange(3.0)}, 3)
    assert np.asarray(zarr.open_array(f"{location.url}/f/ssh", mode="r")[:]).tolist() == [0, 1, 2]
    assert read_region(location, "f", renamed, 3, (slice(1, 3),)).tolist() == [1, 2]


def test_edge_chunks_are_padded_to_whole_ones() -> None:
    values = np.arange(1, 11, dtype="i4").reshape(5, 2)
    schema = schema_like(values, chunks=(3, 2), compressors=None)
    objects = dict(fragment_objects(schema, {"ssh": values}, 5, "f"))
    chunks = {name: data for name, data in objects.items() if not name.endswith("zarr.json")}
    assert list(chunks) == ["f/ssh/c.0.0", "f/ssh/c.1.0"]
    assert np.frombuffer(chunks["f/ssh/c.0.0"], "<i4").tolist() == [1, 2, 3, 4, 5, 6]
    assert np.frombuffer(chunks["f/ssh/c.1.0"], "<i4").tolist() == [7, 8, 9, 10, 0, 0]


@pytest.mark.parametrize(("rows", "chunks"), [(5, (5, 4)), (100, (50, 4)), (1, (1, 4)), (0, (1, 4))])
def test_chunks_are_clipped_to_the_partition(rows: int, chunks: tuple[int, ...]) -> None:
    schema = schema_like(np.zeros((1, 4)), chunks=(50, 7))
    assert array_layout(schema.variables["ssh"], rows).chunks == chunks


@pytest.mark.parametrize(("rows", "chunks"), [(5, (6, 4)), (100, (12, 4)), (1, (3, 4)), (7, (9, 4))])
def test_shards_are_clipped_to_whole_chunks(rows: int, chunks: tuple[int, ...]) -> None:
    schema = schema_like(np.zeros((1, 4)), chunks=(3, 2), shards=(12, 8))
    assert array_layout(schema.variables["ssh"], rows).chunks == chunks


def test_a_fragment_without_rows_is_read(zarr_format: Literal[2, 3]) -> None:
    schema, location = schema_like(np.zeros((1, 4)), zarr_format), fresh_memory()
    write_fragment(location, "f", schema, {"ssh": np.zeros((0, 4))}, 0)
    assert read_region(location, "f", schema.variables["ssh"], 0, (slice(0, 0), slice(0, 4))).shape == (0, 4)


def test_values_are_read_decoded() -> None:
    values = np.array([1.5, np.nan, -3.0])
    schema = schema_like(values, dtype="int16", scale_factor=0.5, _FillValue=-1)
    location = fresh_memory()
    write_fragment(location, "f", schema, {"ssh": encoding.encode(schema.variables["ssh"], values)}, 3)
    read = read_region(location, "f", schema.variables["ssh"], 3, (slice(1, 3),))
    np.testing.assert_array_equal(read, [np.nan, -3.0])


# Reads


REGIONS: dict[str, tuple[Region, list[str]]] = {
    "one value": ((slice(4, 5), slice(2, 3)), ["1.0"]),
    "inside a chunk": ((slice(3, 6), slice(0, 4)), ["1.0"]),
    "across an edge": ((slice(2, 4), slice(0, 1)), ["0.0", "1.0"]),
    "the last chunk": ((slice(9, 10), slice(4, 6)), ["3.1"]),
    "a column": ((slice(0, 10), slice(5, 6)), ["0.1", "1.1", "2.1", "3.1"]),
    "all": ((slice(0, 10), slice(0, 6)), [f"{i}.{j}" for i, j in itertools.product(range(4), range(2))]),
    "no rows": ((slice(4, 4), slice(0, 6)), []),
    "no columns": ((slice(0, 10), slice(3, 3)), []),
}


@pytest.mark.parametrize(("region", "chunks"), REGIONS.values(), ids=REGIONS)
@pytest.mark.parametrize("codec", ["v3-default", "v3-crc32c", "v2-default"])
def test_each_chunk_that_a_region_touches_is_read_once_and_nothing_else(
    codec: str, region: Region, chunks: list[str], counting: type[CountingFileSystem]
) -> None:
    values = np.arange(60.0).reshape(10, 6)
    zarr_format, make_encoding = CODECS[codec]
    schema = schema_like(values, zarr_format, **make_encoding(2, (3, 4)), chunks=(3, 4))
    location = Location("counting://place")
    write_fragment(location, "f", schema, {"ssh": values}, 10)
    counting.asked.clear()
    read = read_region(location, "f", schema.variables["ssh"], 10, region)
    np.testing.assert_array_equal(read, values[region])
    prefix = "c." if zarr_format == 3 else ""
    reads = [path for what, path in counting.asked if what in ("read", "open")]
    assert sorted(reads) == sorted(f"/place/f/ssh/{prefix}{chunk}" for chunk in chunks)
    assert len(reads) == len(counting.asked)


def test_writing_reads_and_lists_nothing(counting: type[CountingFileSystem]) -> None:
    schema = schema_like(np.zeros((10, 6)), chunks=(3, 4))
    write_fragment(Location("counting://place"), "f", schema, {"ssh": np.zeros((10, 6))}, 10)
    assert {what for what, _ in counting.asked} <= {"write", "info"}
    assert not [path for what, path in counting.asked if what == "read"]


# Damage


@pytest.fixture
def damaged() -> tuple[Location, Schema]:
    """A fragment of four chunks, for tests to damage."""
    return _written("v3-default")


def _written(codec: str) -> tuple[Location, Schema]:
    zarr_format, make_encoding = CODECS[codec]
    values = _incompressible()
    chunks = {"chunks": (25, 1), "shards": (50, 1)} if codec == "v3-shards" else {"chunks": (50, 1)}
    schema = schema_like(values, zarr_format, **make_encoding(2, (50, 1)) | chunks)
    location = fresh_memory()
    write_fragment(location, "f", schema, {"ssh": values}, len(values))
    return location, schema


def _incompressible() -> Values:
    """Random values: what compressors store as it is."""
    return np.random.default_rng(0).integers(-(2**31), 2**31, (100, 2)).astype("<i4")


@pytest.mark.parametrize("region", [(slice(50, 51), slice(0, 1)), (slice(0, 100), slice(0, 2))], ids=["one", "several"])
def test_a_missing_chunk_is_corruption_by_its_name(damaged: tuple[Location, Schema], region: Region) -> None:
    location, schema = damaged
    location.store.remove((), ["f/ssh/c.1.0"])
    with pytest.raises(CorruptedDataError, match=r"missing in memory://.*f/ssh/c\.1\.0"):
        read_region(location, "f", schema.variables["ssh"], 100, region)


def test_chunks_beside_the_missing_one_are_read(damaged: tuple[Location, Schema]) -> None:
    location, schema = damaged
    location.store.remove((), ["f/ssh/c.1.0"])
    region = (slice(0, 50), slice(0, 2))
    np.testing.assert_array_equal(
        read_region(location, "f", schema.variables["ssh"], 100, region), _incompressible()[:50]
    )


DAMAGES: dict[str, Any] = {
    "empty": lambda data: b"",
    "a byte less": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "the header alone": lambda data: data[:16],
    "a few bytes": lambda data: data[:8],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("codec", [*CODECS])
def test_a_truncated_chunk_is_corruption_by_its_name(codec: str, damage: Any) -> None:
    location, schema = _written(codec)
    name = "f/ssh/c.1.0" if schema.zarr_format == 3 else "f/ssh/1.0"
    (data,) = location.store.get([name])
    location.store.put({name: damage(data)}.items())
    with pytest.raises(CorruptedDataError, match=rf"the chunk {name} in memory://\w+ does not decode"):
        read_region(location, "f", schema.variables["ssh"], 100, (slice(60, 61), slice(0, 1)))


@pytest.mark.parametrize("codec", [codec for codec in CODECS if not codec.endswith(("none", "delta", "filters"))])
def test_garbage_instead_of_a_chunk_is_corruption_by_its_name(codec: str) -> None:
    location, schema = _written(codec)
    name = "f/ssh/c.1.0" if schema.zarr_format == 3 else "f/ssh/1.0"
    location.store.put({name: b"\x17garbage" * 30}.items())
    with pytest.raises(CorruptedDataError, match=rf"the chunk {name} in memory://\w+ does not decode"):
        read_region(location, "f", schema.variables["ssh"], 100, (slice(60, 61), slice(0, 1)))


@pytest.mark.parametrize("codec", ["v3-default", "v3-none", "v2-default", "v2-gzip"])
def test_a_chunk_of_another_size_is_corruption(codec: str) -> None:
    location, schema = _written(codec)
    name = "f/ssh/c.1.0" if schema.zarr_format == 3 else "f/ssh/1.0"
    location.store.put({name: chunk_codec(schema.variables["ssh"]).encode(np.zeros((49, 1), "<i4"))}.items())
    with pytest.raises(CorruptedDataError, match=f"the chunk {name}"):
        read_region(location, "f", schema.variables["ssh"], 100, (slice(60, 61), slice(0, 1)))


# Locations


def never(_: Marker) -> bool:
    """That a marker is left behind by what is gone."""
    return False


WRITES: dict[str, Callable[[Location], Any]] = {
    "put": lambda location: location.store.put({"a/b": b""}.items()),
    "put_marker": lambda location: put_marker(location, Marker("ns/name", "0f3c"), never),
    "write": lambda location: write_fragment(location, "f", schema_like(np.zeros(2)), {"ssh": np.zeros(2)}, 2),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_location_below_a_file_cannot_be_written(tmp_path: Path, write: Callable[[Location], Any]) -> None:
    (tmp_path / "file").write_text("not a directory")
    location = resolve_location(str(tmp_path / "file" / "data"), None)
    with pytest.raises(StorageUnavailableError, match=rf"the location {location.url} cannot be written"):
        write(location)


def test_a_location_below_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    location = resolve_location(str(tmp_path / "file" / "data"), None)
    with pytest.raises(StorageUnavailableError, match=rf"the location {location.url} cannot be read"):
        location.store.get(["a"])


def test_a_location_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="the location nowhere://a cannot be opened"):
        resolve_location("nowhere://a", None)


@pytest.mark.parametrize("url", ["memory", "local"])
def test_a_claimed_location_says_so_and_is_refused_to_others(tmp_path: Path, url: str) -> None:
    location = fresh_memory() if url == "memory" else resolve_location(str(tmp_path), None)
    assert read_marker(location) is None
    marker = Marker("altimetry/ssh", "0f3c", "d00d")
    put_marker(location, marker, never)
    assert read_marker(location) == marker
    with pytest.raises(AlreadyExistsError, match=r"belongs to collection altimetry/ssh \(0f3c\).*choose another"):
        put_marker(location, Marker("waves/swh", "77aa"), never)
    assert read_marker(location) == marker
    put_marker(location, marker, never)  # it is its own


def test_a_marker_that_was_left_behind_is_replaced() -> None:
    location, asked = fresh_memory(), []
    put_marker(location, Marker("altimetry/ssh", "0f3c", "d00d"), never)
    put_marker(location, Marker("waves/swh", "77aa"), lambda found: not asked.append(found))
    assert asked == [Marker("altimetry/ssh", "0f3c", "d00d")]
    assert read_marker(location) == Marker("waves/swh", "77aa")


def test_a_marker_of_an_earlier_release_names_no_creator() -> None:
    location = fresh_memory()
    location.store.put({MARKER: b'{"what": "A collection", "collection": "altimetry/ssh", "uid": "0f3c"}'}.items())
    assert read_marker(location) == Marker("altimetry/ssh", "0f3c")


@pytest.mark.parametrize("text", [b"not json", b"[]", b"null", b'{"uid": 7}'])
def test_a_marker_that_is_not_understood_is_somebodys_too(text: bytes) -> None:
    location = fresh_memory()
    location.store.put({MARKER: text}.items())
    with pytest.raises(AlreadyExistsError, match=r"belongs to collection None"):
        put_marker(location, Marker("altimetry/ssh", "0f3c"), never)


def test_a_location_whose_marker_was_removed_can_be_marked_again() -> None:
    location = fresh_memory()
    put_marker(location, Marker("altimetry/ssh", "0f3c"), never)
    remove_marker(location, "0f3c")
    assert read_marker(location) is None
    put_marker(location, Marker("waves/swh", "77aa"), never)


def test_only_its_own_collection_removes_a_marker() -> None:
    location = fresh_memory()
    remove_marker(location, "0f3c")  # there is none
    put_marker(location, Marker("altimetry/ssh", "0f3c"), never)
    remove_marker(location, "77aa")
    assert read_marker(location) == Marker("altimetry/ssh", "0f3c")


def test_a_marker_that_comes_and_goes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    location = fresh_memory()
    monkeypatch.setattr(location.store, "claim", lambda name, data: False)
    with pytest.raises(StorageUnavailableError, match=rf"{location.url} cannot be marked"):
        put_marker(location, Marker("altimetry/ssh", "0f3c"), never)


def test_the_same_directory_is_the_same_location_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    expected = f"{tmp_path}/data"
    for url in (
        "data",
        "./data",
        "data/",
        "sub/../data",
        f"{expected}//",
        f"file://{expected}",
        f"{expected}/.",
        expected,
    ):
        assert resolve_location(url, None).url == expected, url


def test_a_home_directory_is_resolved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_location("~/data", None).url == f"{tmp_path}/data"


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert resolve_location(f"{tmp_path}/link", None).url == f"{tmp_path}/link"


@pytest.mark.parametrize("url", ["memory://a/b", "memory://a/b/", "memory://a/b//"])
def test_locations_in_memory_lose_their_trailing_slashes(url: str) -> None:
    assert resolve_location(url, None).url == "memory://a/b"


@pytest.mark.parametrize("url", ["/", "file:///", "memory://"])
def test_a_root_is_resolved_to_itself(url: str) -> None:
    location = resolve_location(url, None)
    fs, root = fsspec.core.url_to_fs(url)
    again = fsspec.core.url_to_fs(location.url)
    assert again == (fs, root)


def test_a_location_pickles_even_when_it_has_been_used(location: Location) -> None:
    location.store.put({"a/b": b"data"}.items())
    copy = pickle.loads(pickle.dumps(location))
    assert copy == location
    assert copy.store.get(["a/b"]) == [b"data"]
    assert len(pickle.dumps(location)) < 300  # the file system does not travel


def test_only_the_public_storage_options_are_recorded() -> None:
    options = {"endpoint_url": "http://s3", "anon": False, "key": "me", "secret": "hidden", "profile": "team"}
    assert public_options(options) == {"endpoint_url": "http://s3", "anon": False, "profile": "team"}


@pytest.mark.parametrize("url", ["x::y", "/data/x::y", "/data/x::", "::y", "memory://x::y", "simplecache::/data/x::y"])
def test_a_location_whose_end_fsspec_would_leave_out_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match=r"'::' in it, which chains file systems"):
        resolve_location(url, None)


@pytest.mark.parametrize("url", ["simplecache::memory://x", "simplecache::/data/x", "dir://x::memory://y"])
def test_file_systems_around_others_are_understood(url: str) -> None:
    assert resolve_location(url, None).url == url


@pytest.mark.parametrize("name", ["what?", "a#b", "100%", "a%20b", "a b", "a:b", "a*", "[a]", "é", "a&b=c"])
def test_a_path_with_characters_of_urls_is_that_very_directory(tmp_path: Path, name: str) -> None:
    resolve_location(f"{tmp_path}/{name}", None).store.put([("object", b"mine")])
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == [name, f"{name}/object"]


@pytest.mark.parametrize("name", ["x/a*b", "x/a?b", "x/a[12]b"])
def test_a_location_that_fsspec_takes_for_a_pattern_of_others_is_refused_but_on_a_disk(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="for a pattern"):
        resolve_location(f"memory://{name}", None)
    assert resolve_location(f"{tmp_path}/{name}", None).url == f"{tmp_path}/{name}"
