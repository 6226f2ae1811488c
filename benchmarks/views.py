"""The shape of views: a sync after one corrected hour, next to computing everything; lazy loads, next to the base's."""

import gc
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import xarray as xr

import intake_zcollection as izc

from .measure import Cost, measure
from .report import Row
from .shapes import START, Sizes

_HOUR = np.timedelta64(1, "h")

Function = Callable[[xr.Dataset], dict[str, xr.DataArray]]


def row_by_row(data: xr.Dataset) -> dict[str, xr.DataArray]:
    """Compute each row for itself."""
    return {"own": data.ssh * 2}


def by_partitions(data: xr.Dataset) -> dict[str, xr.DataArray]:
    """Compute what depends on all rows of a partition."""
    return {"own": data.ssh - data.ssh.mean("time")}


def views(directory: Path, sizes: Sizes) -> Iterator[Row]:
    """Sync views of a year by day and by month, and load views of many partitions."""
    gc.freeze()  # or it would be looked through before each of many measures
    functions: tuple[tuple[str, Function], ...] = ("rows", row_by_row), ("partitions", by_partitions)
    for (name, resolution), (what, function) in itertools.product((("days", "D"), ("months", "M")), functions):
        place = directory / f"{name} {what}"
        yield _synced(place, f"year by {name}, computed by {what}", resolution, function, sizes)
    for count in (sizes.shown // 10, sizes.shown):
        yield from _shown(directory / f"{count}", count, sizes.asked)
    gc.unfreeze()


def _hours(hours: int, width: int) -> xr.Dataset:
    values = np.random.default_rng(3).normal(0, 1, (hours, width)).astype(np.float32)
    return xr.Dataset({"ssh": (("time", "x"), np.round(values, 2))}, {"time": START + np.arange(hours) * _HOUR})


def _view(directory: Path, data: xr.Dataset, resolution: str, function: Function) -> tuple[izc.Collection, izc.View]:
    """Return a collection with the data, and a view of it whose own variable is computed."""
    directory.mkdir(parents=True)
    registry = izc.connect(f"sqlite:///{directory}/registry.db", create=True)
    date = izc.Date("time", resolution)
    base = izc.create_collection(
        registry, "b/base", data, axis="time", partitioning=date, location=f"{directory}/base", merge="upsert"
    )
    base.insert(data, progress=False)
    view = izc.create_view(registry, "b/view", base, location=f"{directory}/view")
    new = izc.Variable("own", "f4", ("time", "x"))
    view.update(function, outputs=[new], rowwise=function is row_by_row, progress=False)
    return base, view


def _synced(directory: Path, title: str, resolution: str, function: Function, sizes: Sizes) -> Row:
    """Correct an hour of the base again and again, and sync; next to computing everything, and to a collection."""
    days = sizes.synced
    data = _hours(24 * days, 100)
    base, view = _view(directory, data, resolution, function)
    base.update(function, outputs=[izc.Variable("own", "f4", ("time", "x"))], progress=False)
    hour = data.isel(time=[12 * days])
    seen = 0  # the version of the base before the newest correction

    def correct() -> None:
        nonlocal hour, seen
        seen, hour = base.version.number, hour + 1
        base.insert(hour, missing="fill", progress=False)

    ours = measure(lambda: view.sync(progress=False), repeats=sizes.asked, before=correct)
    written = f"{view.version.summary['rows']} rows computed, {view.version.summary['updated']} groups"
    again = measure(lambda: base.update(function, filters=base.changes_since(seen), progress=False), before=correct)
    anew = base.version.summary["rows"]
    everything = measure(lambda: view.update(function, outputs=["own"], progress=False), before=correct)
    plain = measure(lambda: base.update(function, outputs=["own"], progress=False))
    compared = (
        (f"a collection's update of the partition: {anew} rows", again),
        (f"the view's update of all {24 * days} rows", everything),
        ("a collection's", plain),
    )
    return Row(f"sync of a {title}, after one hour: {written}", ours, compared)


def _shown(directory: Path, count: int, repeats: int) -> Iterator[Row]:
    """Load a view, and its base; with all that is its own, and after a correction that makes a partition stale."""
    data = _hours(count, 1)
    base, view = _view(directory, data, "h", row_by_row)
    alone, title = _loaded(base, repeats), f"lazy dataset of a view of {count} partitions"
    yield Row(title, _loaded(view, repeats), (("of its base alone", alone),))
    base.insert(data.isel(time=[count // 2]) + 1, progress=False)
    yield Row(
        f"{title}, one of which is stale", _loaded(view, repeats), (("of its base alone", _loaded(base, repeats)),)
    )
    told = measure(view.stale, repeats=repeats)
    yield Row(f"what of {count} partitions is stale", told, (("lazy dataset of the base", alone),))


def _loaded(collection: izc.Collection, repeats: int) -> Cost:
    return measure(collection.load, repeats=repeats)
