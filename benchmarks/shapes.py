"""The data: deterministic, smooth with some noise and a limited precision, so that it compresses like real data."""

from dataclasses import dataclass

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

START = np.datetime64("2022-01-01", "ns")

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sizes:
    """How much of each shape."""

    partitions: int = 2000
    """Of the small shape: hours."""
    following: int = 50
    """Hours that are appended to it one by one."""
    grid: tuple[int, int] = (620, 360)
    """Of the large shape's maps, four of them a day for a year: 1.3 GB."""
    nbytes: int = 4 * 2**30
    """Of the shape for memory."""
    days: int = 30
    """Appended to one month."""
    parts: int = 300_000
    """Of the collection whose load is measured."""
    rounds: int = 9
    """Of the shape for start-up: each kind of process is run so often."""
    writers: int = 16
    """Processes that write at once."""
    inserts: int = 20
    """Of each of them."""
    registered: int = 1_000_000
    """Partitions of a large registry."""
    asked: int = 5
    """How often each question is asked of it; the least counts."""
    synced: int = 365
    """Days of hourly rows, of which an hour is corrected under a view."""
    shown: int = 10_000
    """Partitions of a view that is loaded; and of another one, a tenth."""
    indexed: int = 300_000
    """Partitions with an index."""
    expired: int = 10_000
    """Versions that expire at once; of ten times as many partitions."""


QUICK = Sizes(
    partitions=20,
    grid=(62, 36),
    nbytes=128 * 2**20,
    days=3,
    parts=3000,
    rounds=1,
    writers=2,
    inserts=3,
    registered=20_000,
    synced=40,
    shown=100,
    indexed=2000,
    expired=300,
)


def along_track(first: int, hours: int, rows: int = 100, width: int = 240) -> xr.Dataset:
    """Return the small shape's hours from ``first`` on: a swath of sea surface heights along a satellite's track."""
    row = np.arange(first * rows, (first + hours) * rows)
    random = np.random.default_rng([1, first])
    along, across = row[:, None] / 100, np.arange(width)[None, :] / 40
    ssh = (np.sin(along) * np.cos(across) + 0.3 * np.sin(5 * along + 3 * across)).astype(np.float32)
    ssh += random.normal(0, 0.01, ssh.shape).astype(np.float32)
    ssh = np.round(ssh, 3)
    ssh[np.broadcast_to(np.sin(along / 3 + across / 4) > 0.7, ssh.shape)] = np.nan  # land
    quality = (random.random(ssh.shape, dtype=np.float32) > 0.97).astype(np.int8)
    rate = np.timedelta64(3600 * 10**9 // rows, "ns")
    return xr.Dataset(
        {
            "ssh": (("time", "num_pixels"), ssh, {"units": "m", "standard_name": "sea_surface_height"}),
            "quality": (("time", "num_pixels"), quality, {"flag_values": [0, 1], "flag_meanings": "good bad"}),
            "cycle_number": ("time", (row // 50_000).astype(np.int16)),
            "pass_number": ("time", (row // 200 % 500).astype(np.int16)),
        },
        {
            "time": ("time", START + row * rate),
            "longitude": ("time", np.round(row * 0.2531 % 360, 6), {"units": "degrees_east"}),
            "latitude": ("time", np.round(66 * np.sin(row / 160), 6), {"units": "degrees_north"}),
        },
        {"title": "Along-track heights"},
    )


def maps(steps: npt.NDArray[np.int64], grid: tuple[int, int]) -> Floats:
    """Return one map of temperatures per step, of shape (steps, *grid)."""
    latitude, longitude = (np.linspace(0, 6, size, dtype=np.float32) for size in grid)
    noise = np.random.default_rng(2).normal(0, 0.05, grid).astype(np.float32)
    result = np.empty((len(steps), *grid), np.float32)
    for target, step in zip(result, steps.tolist(), strict=True):
        np.multiply(8 * np.cos(latitude[:, None] / 2), np.sin(3 * longitude + step / 50, dtype=np.float32), out=target)
        target += np.roll(noise, 37 * step)
        np.round(target * 100, out=target)
        target /= 100
    return result


def one_year(grid: tuple[int, int]) -> xr.Dataset:
    """Return the large shape, in memory: four maps a day for twelve months."""
    steps = np.arange(365 * 4)
    return _dataset(maps(steps, grid), np.timedelta64(6, "h"))


def lazy_maps(nbytes: int) -> xr.Dataset:
    """Return maps of 512 by 1024, two a day, made block by block by dask, 48 MiB each; a month has 120 MiB."""
    grid = (512, 1024)
    steps = da.arange(nbytes // (2 * 2**20), chunks=24)
    temperature = da.map_blocks(
        lambda block: maps(block, grid),
        steps,
        dtype=np.float32,
        chunks=(steps.chunks[0], *((size,) for size in grid)),
        new_axis=[1, 2],
        meta=np.empty((0, 0, 0), np.float32),
    )
    return _dataset(temperature, np.timedelta64(12, "h"))


def _dataset(temperature: Floats | da.Array, step: np.timedelta64) -> xr.Dataset:
    times = START + np.arange(temperature.shape[0]) * step
    return xr.Dataset(
        {"temperature": (("time", "latitude", "longitude"), temperature, {"units": "degC"})},
        {
            "time": times,
            "latitude": np.linspace(-90, 90, temperature.shape[1]),
            "longitude": np.linspace(0, 360, temperature.shape[2], endpoint=False),
        },
    )
