"""The command: ``python -m benchmarks``, from the root of the repository."""

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import click
from dask.system import CPU_COUNT

from . import runs
from .appends import appends
from .lookups import lookups
from .report import Row, as_json, nbytes, show
from .retention import retention
from .scale import scale
from .shapes import QUICK, Sizes
from .startup import startup
from .views import views
from .writers import writers

SHAPES: dict[str, Callable[[Path, Sizes], Iterable[Row]]] = {
    "small": runs.small,
    "large": runs.large,
    "appends": appends,
    "memory": runs.memory,
    "startup": startup,
    "writers": writers,
    "scale": scale,
    "views": views,
    "lookups": lookups,
    "retention": retention,
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="Little data: whether it runs, in some seconds. Its figures mean nothing.")
@click.option("--only", type=click.Choice(list(SHAPES)), multiple=True, help="Only this shape; may be repeated.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the figures to this file.")
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False), help="Where the data goes for a while.")
def main(quick: bool, only: tuple[str, ...], json_file: Path | None, directory: Path | None) -> None:
    """Measure the library next to plain xarray and the bare limit, and print a table per shape."""
    sizes = QUICK if quick else Sizes()
    tables: dict[str, Sequence[Row]] = {}
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
    for shape in only or SHAPES:
        with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=directory) as place:
            if shape not in ("memory", "startup", "writers") and not quick:  # those have processes of their own
                runs.warm_up(Path(place) / "warm")
            tables[shape] = list(SHAPES[shape](Path(place), sizes))
        show(f"{shape}: {_title(shape, sizes)}", tables[shape], _notes(shape))
        if json_file is not None:
            json_file.write_text(json.dumps(as_json(tables), indent=1))


def _title(shape: str, sizes: Sizes) -> str:
    match shape:
        case "small":
            return f"{sizes.partitions} hours of 100 × 240 pixels, 7 variables"
        case "large":
            size = 4 * 365 * 4 * sizes.grid[0] * sizes.grid[1]
            return f"12 months of maps of {sizes.grid[0]} × {sizes.grid[1]}, {nbytes(size)}"
        case "appends":
            return f"{sizes.days} days of 2,880 × 240 pixels, 7 variables; {sizes.parts} parts"
        case "startup":
            return f"fresh interpreters, median of {sizes.rounds} in turn"
        case "writers":
            return (
                f"{sizes.writers} processes insert {sizes.inserts} hours each at once, of 100 × 24 pixels, 7 variables"
            )
        case "scale":
            return f"a registry of {sizes.registered:,} partitions by hour, with a layer each, and of a hundredth"
        case "lookups":
            return f"an index of {sizes.indexed:,} partitions by hour, with three entries each, and of a hundredth"
        case "views":
            return (
                f"{sizes.synced} days of hourly rows of 100 values, one of which is corrected; {sizes.shown} partitions"
            )
        case "retention":
            return f"a year by months, a day corrected {sizes.days} times; {10 * sizes.expired:,} partitions"
    return f"{nbytes(sizes.nbytes)} made by dask, in a process of its own"


def _notes(shape: str) -> list[str]:
    if shape == "startup":
        return [
            "CPU: of whole processes, imports included; beyond the imports: from opening to the end of the write.",
            "×: ours over theirs. A day: 2,400 rows of 240 pixels, 7 variables; to_zarr chooses its chunks.",
        ]
    if shape == "writers":
        return ["CPU: of all processes, imports not included; wall: until the last has ended. ×: together over one."]
    if shape == "scale":
        return ["CPU: of this process, least of five; server: of Postgres beside it, mean. No data is written or read."]
    if shape == "lookups":
        return ["CPU: of this process, least of five. Of the registry alone, but where an index is created."]
    if shape == "views":
        return ["CPU: of all threads, least of five; of what computes everything, one. A correction is not in it."]
    if shape == "retention":
        return ["CPU: of this process. Stored: after the last night, next to what was there before any correction."]
    notes = [
        f"CPU: of all threads ({CPU_COUNT} work), with the system's part. Writing includes waiting for the disk.",
        "×: ours over theirs. Bare limit: the same chunks, coded by the same codec, as files; no metadata.",
    ]
    if shape == "small":
        notes.append("A mean or × N: measured on fewer partitions, and scaled to what ours did.")
    return notes


if __name__ == "__main__":
    main()
