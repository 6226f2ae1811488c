"""The tables, for people and as JSON."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .measure import Cost

RATIO = 1.3
"""The target for what is compared with the bare limit, where it has one."""


@dataclass(frozen=True)
class Row:
    """One operation: what it cost us, and what it cost others."""

    operation: str
    ours: Cost
    compared: tuple[tuple[str, Cost], ...] = ()
    cpu: float | None = None
    """The target in CPU seconds."""
    ratio: bool = False
    """Whether the target is to cost at most RATIO times the first one compared, in CPU and wall."""
    cpu_ratio: float | None = None
    """The target in CPU, as a multiple of the first one compared."""
    peak: int | None = None
    """The target in bytes of memory."""

    @property
    def target(self) -> str:
        """The target in words."""
        parts = [f"≤ {seconds(self.cpu or 0)}"] * (self.cpu is not None) + [f"≤ {RATIO} ×"] * self.ratio
        parts += [f"≤ {self.cpu_ratio} × CPU"] * (self.cpu_ratio is not None)
        return ", ".join(parts + [f"< {nbytes(self.peak)}"] * (self.peak is not None))

    @property
    def is_met(self) -> bool:
        """Whether all targets are met."""
        met = [self.cpu is None or self.ours.cpu <= self.cpu]
        if self.ratio:
            limit = self.compared[0][1]
            met += [self.ours.cpu <= RATIO * limit.cpu, self.ours.wall <= RATIO * limit.wall]
        if self.cpu_ratio is not None:
            met.append(self.ours.cpu <= self.cpu_ratio * self.compared[0][1].cpu)
        if self.peak is not None:
            met.append(self.ours.peak is not None and self.ours.peak < self.peak)
        return all(met)


def show(title: str, rows: Sequence[Row], notes: Sequence[str]) -> None:
    """Print one shape's table."""
    table = Table(title=title, title_justify="left", caption="\n".join(notes), caption_justify="left")
    table.add_column("operation")
    for heading in ("CPU", "(system)", "wall", "target"):
        table.add_column(heading, justify="right")
    table.add_column("compared to")
    counted = [name for name in _COUNTED if any(getattr(row.ours, name) is not None for row in rows)]
    for heading in ("CPU", "(system)", "wall", "× CPU", "× wall", "files", "stored", "SQL", *counted):
        table.add_column(heading, justify="right")
    for row in rows:
        target = Text(row.target, "" if not row.target else "green" if row.is_met else "bold red")
        table.add_row(row.operation, *_seconds(row.ours), target, *[""] * 6, *_counts(row.ours, counted))
        for name, cost in row.compared:
            ratios = row.ours.cpu / cost.cpu, row.ours.wall / cost.wall
            table.add_row(*[""] * 5, name, *_seconds(cost), *map(_ratio, ratios), *_counts(cost, counted))
        table.add_section()
    console = Console()
    if not console.is_terminal:  # a file has room
        console.width = 200
    console.print(table)


def _seconds(cost: Cost) -> list[str]:
    return [seconds(cost.cpu), f"({seconds(cost.system)})", seconds(cost.wall)]


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 100 else "–"


def _counts(cost: Cost, counted: Sequence[str]) -> list[str]:
    texts = [_count(cost.files), nbytes(cost.nbytes), _count(cost.statements)]
    return texts + [_COUNTED[name](getattr(cost, name)) for name in counted]


def _count(value: float | None) -> str:
    return "" if not value else f"{value:.3g}" if value < 1 else f"{value:.0f}"


def seconds(value: float) -> str:
    """Return a duration in three digits."""
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"


def nbytes(value: float | None) -> str:
    """Return a size in three digits."""
    if not value:
        return ""
    unit, name = next((u, n) for u, n in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")) if value >= u)
    return f"{value / unit:.3g} {name}"


_COUNTED: dict[str, Callable[[float | None], str]] = {"peak": nbytes, "requests": _count}
"""What only some shapes count, and how it is written: it has a column in their tables alone."""


def as_json(tables: dict[str, Sequence[Row]]) -> dict[str, Any]:
    """Return all rows, and the versions they were measured with."""
    packages = ("intake-zcollection", "dask", "numcodecs", "numpy", "sqlalchemy", "xarray", "zarr")
    rows = {shape: [asdict(row) | {"met": row.is_met} for row in rows] for shape, rows in tables.items()}
    return {"python": platform.python_version(), "packages": {n: version(n) for n in packages}, "shapes": rows}
