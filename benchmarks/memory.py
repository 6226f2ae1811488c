"""The memory shape: a process of its own writes a lazy dataset and prints its cost as JSON.

``python -m benchmarks.memory ours|xarray|nothing DIRECTORY NBYTES``
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import intake_zcollection as izc

from .measure import Cost, measure, peak_memory
from .rivals import Chunk, write_xarray
from .shapes import lazy_maps


def cost_in_process(what: str, directory: Path, nbytes: int) -> Cost:
    """Return the cost of one writer, measured in a fresh process."""
    directory.mkdir(parents=True)
    command = [sys.executable, "-m", "benchmarks.memory", what, str(directory), str(nbytes)]
    printed = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, stdout=subprocess.PIPE).stdout
    return Cost(**json.loads(printed))


def _insert(directory: Path, nbytes: int) -> None:
    data = lazy_maps(nbytes)
    registry = izc.connect(f"sqlite:///{directory}/registry.db", create=True)
    collection = izc.create_collection(
        registry, "b/memory", data, axis="time", partitioning=izc.Date("time", "M"), location=str(directory / "data")
    )
    collection.insert(data, progress=False)


def _to_zarr(directory: Path, nbytes: int) -> None:
    chunks = [Chunk(0, "temperature", (), (8, 512, 1024)), Chunk(0, "time", (), (32,))]
    write_xarray(lazy_maps(nbytes), chunks, directory / "data")


_WRITERS: dict[str, Callable[[Path, int], None]] = {
    "ours": _insert,
    "xarray": _to_zarr,
    "nothing": lambda _directory, nbytes: lazy_maps(nbytes),
}


if __name__ == "__main__":
    writer, place, size = _WRITERS[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3])
    cost = measure(lambda: writer(place, size)).with_files(place / "data")
    print(json.dumps(asdict(replace(cost, peak=peak_memory()))))
