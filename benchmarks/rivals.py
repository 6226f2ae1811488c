"""What we compare to: plain xarray, and the bare limit.

The bare limit is the least that storing can cost: the same chunks, coded by the same codec and written to files of
their own, or read and decoded into arrays, by as many threads; with no metadata, no checks and no registry.
"""

import importlib.util
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.system import CPU_COUNT
from zarr.codecs import BloscCodec

import intake_zcollection as izc

Arrays = Mapping[str, npt.NDArray[Any]]

CODEC = numcodecs.Blosc(cname="zstd", clevel=3, shuffle=numcodecs.Blosc.SHUFFLE)
"""The library's default."""


@dataclass(frozen=True)
class Chunk:
    """One stored chunk: of which variable, which region of it, and the shape it is padded to."""

    number: int
    variable: str
    region: tuple[slice, ...]
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Where the bare limit keeps it: some files per directory, as ours."""
        return f"{self.number // 8}/{self.number}"


# The bare limit


def chunks_of(collection: izc.Collection) -> list[Chunk]:
    """Return the chunks of the split variables that a collection has stored, found in its fragments' Zarr metadata."""
    result: list[Chunk] = []
    offset = 0
    for partition in collection.partitions():
        ((path,),) = set(partition.fragments.values())
        group = json.loads((Path(collection.location) / path / "zarr.json").read_text())
        for name, document in group["consolidated_metadata"]["metadata"].items():
            sizes = document["chunk_grid"]["configuration"]["chunk_shape"]
            starts = [range(0, size, step) for size, step in zip(document["shape"], sizes, strict=True)]
            axis = document["dimension_names"].index(collection.dimension)
            for corner in itertools.product(*starts):
                ends = [min(c + s, n) for c, s, n in zip(corner, sizes, document["shape"], strict=True)]
                shift = [offset * (i == axis) for i in range(len(sizes))]
                region = tuple(slice(c + s, e + s) for c, e, s in zip(corner, ends, shift, strict=True))
                result.append(Chunk(len(result), name, region, tuple(sizes)))
        offset += partition.rows
    return result


def write_bare(dataset: xr.Dataset, chunks: Sequence[Chunk], directory: Path) -> None:
    """Encode chunks and write a file for each, and wait for the disk."""
    arrays = {str(name): _as_stored(dataset.variables[name].values) for name in dataset.variables}
    for name in {chunk.name.partition("/")[0] for chunk in chunks}:
        (directory / name).mkdir(parents=True)

    def write(chunk: Chunk) -> None:
        block = arrays[chunk.variable][chunk.region]
        if block.shape != chunk.shape:
            padded = np.zeros(chunk.shape, block.dtype)
            padded[tuple(slice(0, size) for size in block.shape)] = block
            block = padded
        (directory / chunk.name).write_bytes(CODEC.encode(np.ascontiguousarray(block)))

    _in_threads(write, chunks)
    os.sync()


def read_bare(dataset: xr.Dataset, chunks: Sequence[Chunk], directory: Path) -> Arrays:
    """Read and decode chunks into new arrays like the dataset's."""
    arrays = {str(name): np.empty(v.shape, _as_stored(v.values[:0]).dtype) for name, v in dataset.variables.items()}

    def read(chunk: Chunk) -> None:
        target = arrays[chunk.variable][chunk.region]
        target[...] = _decoded(chunk, directory, target.dtype)[tuple(slice(0, size) for size in target.shape)]

    _in_threads(read, chunks)
    return arrays


def sum_bare(dataset: xr.Dataset, variable: str, chunks: Sequence[Chunk], directory: Path) -> float:
    """Read, decode and add up the chunks of a variable."""
    dtype = dataset.variables[variable].dtype
    wanted = [chunk for chunk in chunks if chunk.variable == variable]
    return float(sum(_in_threads(lambda chunk: _decoded(chunk, directory, dtype).sum(), wanted)))


def _decoded(chunk: Chunk, directory: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    data = CODEC.decode((directory / chunk.name).read_bytes())
    return np.frombuffer(data, dtype).reshape(chunk.shape)


def _as_stored(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.view(np.int64) if values.dtype.kind == "M" else values


def _in_threads(function: Callable[[Chunk], Any], chunks: Sequence[Chunk]) -> list[Any]:
    with ThreadPoolExecutor(CPU_COUNT) as pool:
        return list(pool.map(function, chunks))


# Plain xarray


def write_xarray(dataset: xr.Dataset, chunks: Sequence[Chunk], store: Path, **options: Any) -> None:
    """Write one Zarr store with the chunks and the compressor of ours, and wait for the disk."""
    shapes: dict[str, tuple[int, ...]] = {}
    for chunk in chunks:
        shapes[chunk.variable] = max(shapes.get(chunk.variable, chunk.shape), chunk.shape)
    compressors = (BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),)
    encoding: dict[str, dict[str, Any]] = {n: {"chunks": s, "compressors": compressors} for n, s in shapes.items()}
    encoding["time"] |= {"units": "nanoseconds since 1970-01-01", "dtype": "int64"}
    dataset.to_zarr(store, encoding=encoding, consolidated=False, **options)
    os.sync()


def shapes_of(dataset: xr.Dataset) -> dict[str, tuple[int, ...]]:
    """Return chunks of whole datasets like this one: a chunk each, for those that arrive one by one."""
    return {str(name): variable.shape for name, variable in dataset.variables.items()}


def create_store(template: xr.Dataset, store: Any) -> None:
    """Make a store without rows, which datasets like a template are appended to: a chunk each, our compressor."""
    compressors = (BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),)
    encoding: dict[str, dict[str, Any]] = {
        name: {"chunks": shape, "compressors": compressors} for name, shape in shapes_of(template).items()
    }
    encoding["time"] |= {"units": "nanoseconds since 1970-01-01", "dtype": "int64"}
    template.isel(time=slice(0)).to_zarr(store, encoding=encoding, consolidated=False)


def has_icechunk() -> bool:
    """Whether icechunk is installed."""
    return importlib.util.find_spec("icechunk") is not None


def append_icechunk(directory: Path, template: xr.Dataset) -> Callable[[xr.Dataset], object]:
    """Return what appends rows to a new repository of icechunk's, and commits them."""
    import icechunk

    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(directory / "data")))
    session = repository.writable_session("main")
    create_store(template, session.store)
    session.commit("created")

    def append(dataset: xr.Dataset) -> None:
        session = repository.writable_session("main")
        dataset.to_zarr(session.store, append_dim="time", consolidated=False)
        session.commit("appended")
        os.sync()

    return append


def append_xarray(dataset: xr.Dataset, store: Path) -> None:
    """Append rows to a store, and wait for the disk."""
    dataset.to_zarr(store, append_dim="time", consolidated=False)
    os.sync()


def open_xarray(store: Path) -> xr.Dataset:
    """Open a store lazily, in the dask chunks that xarray chooses."""
    return xr.open_zarr(store, consolidated=False, chunks="auto")
