"""The start-up shape: what fresh interpreters cost, to import, to print a help and to append a day."""

import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import intake_zcollection as izc

from .measure import Cost, measure
from .report import Row
from .shapes import Sizes, along_track

IMPORTS = {
    "nothing": "pass",
    "arrays": "import xarray, zarr, dask.array",
    "with SQL": "import xarray, zarr, dask.array, sqlalchemy",
    "open_collection": "from intake_zcollection import open_collection",
    "all": "from intake_zcollection import *",
    "click": "import click",
    "help": "import sys; from intake_zcollection.cli import main; sys.exit(main(['--help']))",
}


def startup(directory: Path, sizes: Sizes) -> list[Row]:
    """Run the start-up shape: all kinds of process one after the other, several times, and the median of each."""
    _prepare(directory)
    costs: dict[str, list[Cost]] = defaultdict(list)
    for number in range(sizes.rounds):
        for name, cost in _one_round(directory, number + 1):
            costs[name].append(cost)
    typical = {name: _median(all_costs) for name, all_costs in costs.items()}

    def compared(*names: str) -> tuple[tuple[str, Cost], ...]:
        return tuple((IMPORTS.get(name, name), typical[name]) for name in names)

    return [
        Row(IMPORTS["open_collection"], typical["open_collection"], compared("arrays"), cpu_ratio=1.15),
        Row(IMPORTS["all"], typical["all"], compared("with SQL", "arrays")),
        Row("zregistry --help", typical["help"], compared("click"), cpu=0.3),
        Row("append a day, beyond the imports", typical["append"], compared("to_zarr(append_dim)"), cpu=0.15),
        Row("all of the job that appends", typical["job"], compared("the job with to_zarr", "with SQL", "arrays")),
    ]


def _prepare(directory: Path) -> None:
    """Make a collection and a store, each with a first day."""
    data = along_track(0, 24)
    collection = izc.create_collection(
        izc.connect(f"sqlite:///{directory}/registry.db", create=True),
        "b/data",
        data,
        axis="time",
        partitioning=izc.Date("time", "D"),
        location=str(directory / "data"),
    )
    collection.insert(data, progress=False)
    data.to_zarr(directory / "store", consolidated=False)


def _one_round(directory: Path, day: int) -> Iterator[tuple[str, Cost]]:
    for name, code in IMPORTS.items():
        yield name, _process("-c", code)[0]
    for who, whole, append in (("ours", "job", "append"), ("xarray", "the job with to_zarr", "to_zarr(append_dim)")):
        cost, printed = _process("-m", "benchmarks.job", who, str(directory), str(day))
        yield whole, cost
        yield append, Cost(**json.loads(printed))


def _process(*arguments: str) -> tuple[Cost, str]:
    """Return what a fresh interpreter cost, and what it printed."""
    printed: list[str] = []

    def run() -> None:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, stdout=subprocess.PIPE, text=True)
        printed.append(done.stdout)

    return measure(run, before=lambda: None), printed[0]


def _median(costs: list[Cost]) -> Cost:
    """Return the costs in the middle; each kind by itself, since another process can delay one and not the other."""
    cpu, wall, system = (statistics.median(getattr(c, name) for c in costs) for name in ("cpu", "wall", "system"))
    return Cost(cpu, wall, system)
