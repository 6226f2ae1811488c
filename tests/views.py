"""Views for tests: a base of three months, functions that compute own variables, and what a view has to show.

The functions are importable, so that they are recorded as definitions. Each notes what it was called with, for tests
that count what is computed.
"""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import intake_zcollection as izc

JANUARY, FEBRUARY, MARCH, APRIL = ((("year", 2022), ("month", month)) for month in (1, 2, 3, 4))

BEGIN, DAY = np.datetime64("2022-01-01", "ns"), np.timedelta64(1, "D")

DOUBLE = izc.Variable("double", "f8", ("time",))
ANOMALY = izc.Variable("anomaly", "f8", ("time",))
SMOOTH = izc.Variable("smooth", "f8", ("time",))


def days(first: str, count: int, level: float = 0.0) -> xr.Dataset:
    """So many days; their heights tell the day, counted from the first of 2022, and the level."""
    time = np.datetime64(first, "ns") + np.arange(count) * DAY
    height = (time - BEGIN) / DAY + level
    return xr.Dataset(
        {
            "ssh": ("time", height),
            "sst": (("time", "x"), np.stack([height, -height], axis=1)),
            "flag": ("time", np.zeros(count, "i1")),
        },
        {"time": time, "x": [1, 2]},
        {"title": "made days"},
    )


WINTER = days("2022-01-01", 90)
"""January, February and March."""


class Calls(list[tuple[str, int]]):
    """The functions that were called since it was emptied, and with how many rows; in no order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def note(self, name: str, data: xr.Dataset) -> None:
        with self._lock:
            self.append((name, data.sizes["time"]))

    def told(self) -> list[tuple[str, int]]:
        """Return them in order, and forget them."""
        found = sorted(self)
        self.clear()
        return found


CALLS = Calls()


def double(data: xr.Dataset) -> dict[str, Any]:
    """Compute each row from that row."""
    CALLS.note("double", data)
    return {"double": data["ssh"] * 2}


def times(data: xr.Dataset, factor: float = 1.0, *, more: float = 0.0) -> dict[str, Any]:
    """Compute each row from that row, and from what is given."""
    return {"double": data["ssh"] * factor + more}


def anomaly(data: xr.Dataset) -> dict[str, Any]:
    """Compute each row from all of the partition."""
    CALLS.note("anomaly", data)
    return {"anomaly": data["ssh"] - data["ssh"].mean()}


def both(data: xr.Dataset) -> dict[str, Any]:
    """Compute two variables at once."""
    CALLS.note("both", data)
    return {"double": data["ssh"] * 2, "anomaly": data["ssh"] - data["ssh"].mean()}


def smooth(data: xr.Dataset) -> dict[str, Any]:
    """Compute each row from the days before and after, across partitions."""
    CALLS.note("smooth", data)
    return {"smooth": data["ssh"].rolling(time=3, center=True, min_periods=1).mean()}


class Functions:
    """A place for a function that is importable, but not by a name of its module alone."""

    @staticmethod
    def double(data: xr.Dataset) -> dict[str, Any]:
        return {"double": data["ssh"] * 2}


EXPECTED: Mapping[str, Callable[[xr.Dataset], xr.DataArray]] = {
    "double": lambda data: data["ssh"] * 2,
    "anomaly": lambda data: data["ssh"] - data["ssh"].groupby("time.month").mean().sel(month=data["time.month"]),
    "smooth": lambda data: data["ssh"].rolling(time=3, center=True, min_periods=1).mean(),
}
"""What own variables are, computed from all rows of the base at once."""


def assert_computed(data: xr.Dataset, *names: str) -> None:
    """See that own variables are what comes of the rows beside them."""
    for name in names:
        np.testing.assert_allclose(data[name].values, EXPECTED[name](data).values, err_msg=name)


def create_base(registry: izc.Registry | str, location: Path | str, **options: Any) -> izc.Collection:
    """Create a collection by month, empty, of which days are written over by others."""
    options = {"axis": "time", "partitioning": izc.Date("time", "M"), "merge": "upsert", **options}
    return izc.create_collection(registry, "made/days", WINTER, location=str(location), **options)


def winter_in(registry: izc.Registry, location: Path) -> izc.Collection:
    """Create a collection of three months, in version 1."""
    base = create_base(registry, location)
    base.insert(WINTER)
    return base


def view_of(base: izc.Collection, name: str = "made/view", location: str | None = None, **options: Any) -> izc.View:
    """Create a view beside its base."""
    location = location or f"{base.location.rpartition('/')[0]}/{name.replace('/', '_')}"
    return izc.create_view(base._handle.registry, name, base, location=location, **options)


def reasons(changes: izc.Changes) -> dict[Any, str]:
    """Why each partition of some is stale."""
    return {key: each.reason for key, each in changes.items()}
