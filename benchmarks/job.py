"""A cron job: a process that appends a day, and prints what that cost it beyond its imports, as JSON.

``python -m benchmarks.job ours|xarray DIRECTORY DAY``
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable

import dask.array  # noqa: F401 - like the next ones, for both jobs: so that what they cost is no part of the append
import xarray as xr
import zarr  # noqa: F401 - see above

from .shapes import along_track


def _ours() -> Callable[[str, xr.Dataset], object]:
    import intake_zcollection as izc

    for name in izc.__all__:  # all of ours, and SQLAlchemy
        getattr(izc, name)
    return lambda directory, data: izc.open_collection(f"sqlite:///{directory}/registry.db", "b/data").insert(data)


def _xarray() -> Callable[[str, xr.Dataset], object]:
    return lambda directory, data: data.to_zarr(f"{directory}/store", append_dim="time", consolidated=False)


def _main(who: str, directory: str, day: int) -> None:
    append = {"ours": _ours, "xarray": _xarray}[who]()
    data = along_track(24 * day, 24)
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    append(directory, data)
    os.sync()
    after, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - start
    system = after.ru_stime - before.ru_stime
    print(json.dumps({"cpu": after.ru_utime - before.ru_utime + system, "wall": wall, "system": system}))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
