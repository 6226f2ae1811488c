"""The operations on each shape, ours and the compared ones, measured on the same data in the same process."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import numpy as np
import xarray as xr

import intake_zcollection as izc

from . import rivals
from .measure import Cost, measure
from .memory import cost_in_process
from .report import Row
from .shapes import START, Sizes, along_track, lazy_maps, one_year

GIB = 2**30


def _collection(directory: Path, template: xr.Dataset, resolution: str) -> izc.Collection:
    """Return an empty collection with a registry of its own, in an empty directory."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    registry = izc.connect(f"sqlite:///{directory}/registry.db", create=True)
    date = izc.Date("time", resolution)
    return izc.create_collection(
        registry, "b/data", template, axis="time", partitioning=date, location=str(directory / "data")
    )


def _insert(directory: Path, data: xr.Dataset, resolution: str, repeats: int) -> tuple[izc.Collection, Cost]:
    """Return a collection with the data, and the cost of inserting it."""
    collections: list[izc.Collection] = []
    cost = measure(
        lambda: collections[-1].insert(data, progress=False),
        repeats=repeats,
        before=lambda: collections.append(_collection(directory, data, resolution)),
    )
    return collections[-1], cost.with_files(directory / "data")


def _write(directory: Path, write: Callable[[Path], None], repeats: int) -> Cost:
    """Return the cost of writing into an empty directory."""
    cost = measure(
        lambda: write(directory), repeats=repeats, before=lambda: shutil.rmtree(directory, ignore_errors=True)
    )
    return cost.with_files(directory)


def small(directory: Path, sizes: Sizes) -> list[Row]:
    """Run the small shape: many partitions of little data."""
    count = sizes.partitions
    data = along_track(0, count)
    some = min(200, count)  # what xarray takes far longer for is done on some of the partitions
    hours = [data.isel(time=slice(i * 100, (i + 1) * 100)) for i in range(some)]
    collection, insert = _insert(directory / "small", data, "h", repeats=3)
    chunks = rivals.chunks_of(collection)
    bare = _write(directory / "bare", lambda where: rivals.write_bare(data, chunks, where), repeats=3)
    groups = _write(directory / "groups", lambda where: _write_groups(hours[: some // 2], chunks, where), repeats=1)
    rivals.write_xarray(hours[0], chunks, directory / "store")
    appends = _each(lambda hour: rivals.append_xarray(hour, directory / "store"), hours[1:])
    append_name, group_name = f"to_zarr(append_dim), mean of {some - 1}", f"to_zarr, a group each, mean of {some // 2}"
    group = groups.per(some // 2)
    rows = [
        Row(
            f"insert {count} partitions, per partition",
            insert.per(count),
            (("bare limit", bare.per(count)), (append_name, appends), (group_name, group)),
            cpu=0.0027,
        )
    ]
    rows += _small_loads(directory, collection, data, chunks, some)
    following = along_track(count, sizes.following)
    new = [following.isel(time=slice(i * 100, (i + 1) * 100)) for i in range(sizes.following)]
    ours = _each(lambda hour: collection.insert(hour, progress=False), new)
    per = len(chunks) // count
    numbers = iter(range(len(new)))
    one = _each(lambda hour: rivals.write_bare(hour, chunks[:per], directory / f"one{next(numbers)}"), new)
    compared = (("bare limit", one), (append_name, appends), (group_name, group))
    rows.append(Row(f"append one partition, mean of {sizes.following}", ours, compared, cpu=0.0065))
    return rows


def _each(function: Callable[[xr.Dataset], object], items: list[xr.Dataset]) -> Cost:
    return measure(lambda: [function(item) for item in items]).per(len(items))


def _write_groups(hours: list[xr.Dataset], chunks: list[rivals.Chunk], directory: Path) -> None:
    for number, hour in enumerate(hours):
        rivals.write_xarray(hour, chunks, directory / str(number))


def _small_loads(
    directory: Path, collection: izc.Collection, data: xr.Dataset, chunks: list[rivals.Chunk], some: int
) -> Iterator[Row]:
    """Load the small shape: lazily, a hundredth, and all of it."""
    count = data.sizes["time"] // 100
    store, bare = directory / "store", directory / "bare"
    groups = sorted((directory / "groups").iterdir())
    lazy = measure(collection.load, repeats=5)
    opened = measure(lambda: rivals.open_xarray(store), repeats=5)
    joined = measure(lambda: xr.open_mfdataset(groups, engine="zarr", consolidated=False))
    compared = (
        (f"open_zarr, one store of {some}", opened),
        (f"open_mfdataset of {len(groups)} groups, × {count // len(groups)}", joined.times(count // len(groups))),
    )
    yield Row(f"lazy dataset of {count} partitions", lazy, compared, cpu=0.026)

    few, first = max(1, count // 100), count // 20
    hour, instant = np.timedelta64(1, "h"), np.timedelta64(1, "ns")
    low, high = (START + (first + n) * hour for n in (0, few))
    chosen = [chunk for chunk in chunks if first * 100 <= chunk.region[0].start < (first + few) * 100]
    ours = measure(lambda: collection.load(where={"time": (low, high - instant)}).compute(), repeats=5)
    rows = slice(first * 100, (first + few) * 100)
    plain = measure(lambda: rivals.open_xarray(store).isel(time=rows).compute(), repeats=5)
    part = data.isel(time=rows)
    shifted = [rivals.Chunk(c.number, c.variable, _shift(c.region, rows.start), c.shape) for c in chosen]
    limit = measure(lambda: rivals.read_bare(part, shifted, bare), repeats=5)
    compared = (("bare limit", limit), (f"open_zarr, one store of {some}, isel, compute", plain))
    yield Row(f"load {few} of {count} partitions", ours, compared, cpu=0.026)

    ours = measure(lambda: collection.load().compute(), repeats=3)
    limit = measure(lambda: rivals.read_bare(data, chunks, bare), repeats=3)
    plain = measure(lambda: rivals.open_xarray(store).compute(), repeats=3)
    scaled = f"open_zarr, one store of {some}, × {count // some}"
    compared = (("bare limit", limit), (scaled, plain.times(count / some)))
    yield Row("scan everything: load().compute()", ours, compared, cpu=2.2)


def _shift(region: tuple[slice, ...], rows: int) -> tuple[slice, ...]:
    return (slice(region[0].start - rows, region[0].stop - rows), *region[1:])


def large(directory: Path, sizes: Sizes) -> list[Row]:
    """Run the large shape: few partitions of much data."""
    data = one_year(sizes.grid)
    collection, insert = _insert(directory / "large", data, "M", repeats=2)
    chunks = rivals.chunks_of(collection)
    bare, store = directory / "bare", directory / "store"
    limit = _write(bare, lambda where: rivals.write_bare(data, chunks, where), repeats=2)
    plain = _write(store, lambda where: rivals.write_xarray(data, chunks, where), repeats=2)
    rows = [Row("insert, numpy", insert, (("bare limit", limit), ("to_zarr", plain)), ratio=True)]

    step = max(chunk.shape[0] for chunk in chunks if chunk.variable == "temperature")
    lazy = data.chunk(time=2 * step)
    collection, insert = _insert(directory / "large", lazy, "M", repeats=2)
    plain = _write(store, lambda where: rivals.write_xarray(lazy, chunks, where), repeats=2)
    rows.append(Row("insert, dask", insert, (("bare limit", limit), ("to_zarr", plain)), ratio=True))

    def add_up(dataset: xr.Dataset) -> xr.Dataset:
        return dataset["temperature"].sum(skipna=False).compute()

    ours = measure(lambda: add_up(collection.load()), repeats=3)
    least = measure(lambda: rivals.sum_bare(data, "temperature", chunks, bare), repeats=3)
    plain = measure(lambda: add_up(rivals.open_xarray(store)), repeats=3)
    rows.append(Row("scan: sum", ours, (("bare limit", least), ("open_zarr, sum", plain)), ratio=True))

    month = data.sel(time="2022-01")
    chosen = [chunk for chunk in chunks if chunk.region[0].start < month.sizes["time"]]
    ours = measure(lambda: collection.load(filters="month == 1").compute(), repeats=5)
    least = measure(lambda: rivals.read_bare(month, chosen, bare), repeats=5)
    plain = measure(lambda: rivals.open_xarray(store).sel(time="2022-01").compute(), repeats=5)
    rows.append(Row("load one month", ours, (("bare limit", least), ("open_zarr, sel, compute", plain)), ratio=True))
    return rows


def memory(directory: Path, sizes: Sizes) -> list[Row]:
    """Run the memory shape, each writer in a process of its own."""
    ours, plain, nothing = (
        cost_in_process(what, directory / what, sizes.nbytes) for what in ("ours", "xarray", "nothing")
    )
    compared = (("to_zarr", plain), ("nothing is written", nothing))
    partitions = len(set(lazy_maps(sizes.nbytes)["time"].values.astype("M8[M]")))
    return [Row(f"insert {partitions} months from dask", ours, compared, peak=GIB)]


def warm_up(directory: Path) -> None:
    """Import and cache what the first call of each operation would be charged for."""
    small(directory / "small", Sizes(partitions=4))
    with dask.config.set({"array.chunk-size": "1MiB"}):
        large(directory / "large", Sizes(grid=(6, 4)))
    shutil.rmtree(directory)
