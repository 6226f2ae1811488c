"""What only the machine noticed, said once more as plain examples."""

from collections.abc import Callable

import numpy as np
import xarray as xr

import intake_zcollection as izc


def test_rows_that_a_function_merges_in_disorder_are_sorted(make_collection: Callable[..., izc.Collection]) -> None:
    time = np.datetime64("2022-01-01", "ns") + np.arange(6) * np.timedelta64(1, "D")
    data = xr.Dataset({"level": ("time", np.arange(6.0))}, {"time": time})
    collection = make_collection(data)
    collection.insert(data.isel(time=[0, 2, 4]))

    def join_in_disorder(existing: xr.Dataset, inserted: xr.Dataset, *, axis: str, dimension: str) -> xr.Dataset:
        return xr.concat([inserted, existing], dimension, join="outer")

    collection.insert(data.isel(time=[1, 3, 5]), merge=join_in_disorder)
    assert collection.load().level.values.tolist() == [0, 1, 2, 3, 4, 5]
