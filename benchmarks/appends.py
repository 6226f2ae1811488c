"""Daily files into a monthly partition, next to what others do; and what a load costs of very many parts."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

import intake_zcollection as izc
from registry import Run, Written, pad_key
from registry.changes import Commit, PutFragments

from . import rivals
from .measure import Cost, measure
from .report import Row
from .shapes import START, Sizes, along_track

_HOUR = 3600 * 10**9


def appends(directory: Path, sizes: Sizes) -> list[Row]:
    """Append a day at a time, and load where parts are many."""
    # Half a minute a row, 240 pixels: the days of one month.
    days = [along_track(24 * day, 24, rows=120) for day in range(sizes.days)]
    whole = xr.concat(days, "time")
    ours = _appended(directory / "ours", days, _insert_into)
    plain = _appended(directory / "plain", days, _append_xarray)
    compared = [("to_zarr(append_dim)", plain)]
    if rivals.has_icechunk():
        compared.append(("icechunk, to_zarr(append_dim)", _appended(directory / "ice", days, rivals.append_icechunk)))
    compared.sort(key=lambda each: each[1].cpu)  # the better one is the one to beat
    rows = [Row(f"{len(days)} daily appends into one month", ours, tuple(compared), cpu_ratio=0.7)]
    rows.append(Row("the same at once", _at_once(directory / "once", whole), (("day by day", ours),)))
    return [*rows, *_many_parts(directory / "many", sizes)]


def _appended(
    directory: Path, days: Sequence[xr.Dataset], how: Callable[[Path, xr.Dataset], Callable[[xr.Dataset], object]]
) -> Cost:
    """Return the cost of appending days, of which the least of three runs counts; the empty store is made before."""
    made: list[Callable[[xr.Dataset], object]] = []

    def before() -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        made.append(how(directory, days[0]))

    cost = measure(lambda: [made[-1](day) for day in days], repeats=3, before=before)
    return cost.with_files(directory / "data")


def _insert_into(directory: Path, template: xr.Dataset) -> Callable[[xr.Dataset], object]:
    registry = izc.connect(f"sqlite:///{directory}/registry.db", create=True)
    chunked = template.copy()
    for variable, shape in rivals.shapes_of(template).items():
        chunked[variable].encoding["chunks"] = shape
    month = izc.Date("time", "M")
    collection = izc.create_collection(
        registry, "b/days", chunked, axis="time", partitioning=month, location=f"{directory}/data"
    )
    return lambda day: collection.insert(day, progress=False)


def _append_xarray(directory: Path, template: xr.Dataset) -> Callable[[xr.Dataset], object]:
    store = directory / "data"
    rivals.create_store(template, str(store))
    return lambda day: rivals.append_xarray(day, store)


def _at_once(directory: Path, whole: xr.Dataset) -> Cost:
    return _appended(directory, [whole], _insert_into)


def _many_parts(directory: Path, sizes: Sizes) -> Iterator[Row]:
    """Load, and select by label, of a collection of many parts and of one of few."""
    many, few = (_of_parts(directory / str(count), count) for count in (sizes.parts, sizes.parts // 100))
    loads = [measure(lambda each=each: each.load(variables=["height"]), repeats=3) for each in (many, few)]
    yield Row(f"lazy dataset of {sizes.parts} parts", loads[0], (("of a hundredth", loads[1]),), cpu=1.5)
    selected = [_selected(each.load(variables=["height"], chunks=None)) for each in (many, few)]
    yield Row("1,000 × sel there", selected[0], (("of a hundredth", selected[1]),), cpu_ratio=2.0)


def _of_parts(directory: Path, count: int) -> izc.Collection:
    """Return a collection of many parts by year, of which the registry alone knows: nothing of it can be read."""
    directory.mkdir(parents=True)
    registry = izc.connect(f"sqlite:///{directory}/registry.db", create=True)
    template = xr.Dataset({"height": ("time", np.zeros(1))}, {"time": [START]})
    year = izc.Date("time", "Y")
    collection = izc.create_collection(
        registry, "b/parts", template, axis="time", partitioning=year, location=f"{directory}/data"
    )
    first = int(START.astype(np.int64))
    starts = first + np.arange(count) * 4 * _HOUR
    years = starts.astype("M8[ns]").astype("M8[Y]").astype(np.int64) + 1970
    written = tuple(
        Written(pad_key((key,)), 0, f"{number:032x}", 24, 400, 0, low, low + 3 * _HOUR, True)
        for number, (key, low) in enumerate(zip(years.tolist(), starts.tolist(), strict=True))
    )
    runs = tuple(Run(pad_key((key,))) for key in sorted(set(years.tolist())))
    registry.commit(Commit(registry.collection("b/parts"), "insert", updates=(PutFragments(written, (), runs),)))
    return collection


def _selected(dataset: xr.Dataset) -> Cost:
    """Return the cost of selecting between parts, where no label has to be read."""
    total = dataset.sizes["time"] // 24
    places = np.linspace(0, total - 3, 1000).astype(np.int64)
    lows = START + (places * 4 + 3) * np.timedelta64(_HOUR, "ns") + np.timedelta64(1800, "s")
    highs = lows + np.timedelta64(4 * _HOUR, "ns")
    dataset.sel(time=slice(lows[0], highs[0]))  # what is prepared once
    return measure(lambda: [dataset.sel(time=slice(*each)) for each in zip(lows, highs, strict=True)])
