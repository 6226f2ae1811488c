"""A soak: writers, readers, a view and its syncs, expire and vacuum side by side, and nobody misses anything.

``python -m benchmarks.soak --seconds 60``, from the root of the repository; with ``--registry URL`` in a Postgres that
is there. It prints what was done, and fails if a value was wrong, an object missing, or anything else was raised.
"""

import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import click
import numpy as np
import xarray as xr

import intake_zcollection as izc

DAYS, HOURS = 60, 24
START = np.datetime64("2022-01-01", "ns")

EXPECTED = {izc.VersionExpiredError: "expired", izc.StaleViewError: "stale", izc.ConflictError: "in conflict"}
"""What somebody may be told who reads or writes for long: by name, and how often is counted."""


def make_days(first: int, count: int, level: float) -> xr.Dataset:
    """Return hourly rows in which one variable tells what the other has to be."""
    values = level + np.arange(count * HOURS) / HOURS
    time_ = START + np.timedelta64(first, "D") + np.arange(count * HOURS) * np.timedelta64(1, "h")
    return xr.Dataset({"ssh": ("time", values), "twice": ("time", 2 * values)}, {"time": time_})


def thrice(data: xr.Dataset) -> dict[str, xr.DataArray]:
    """Compute the view's own variable."""
    return {"thrice": 3 * data.ssh}


@dataclass
class Soak:
    """Those who are at work, and what became of it."""

    base: izc.Collection
    view: izc.View
    registry: izc.Registry
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        """Have all of them work side by side for so long."""
        end = time.monotonic() + seconds
        jobs = {"write": self.write, "correct": self.write, "read for long": self.read, "load lazily": self.load_lazily}
        jobs |= {"sync": self.sync, "expire": self.expire, "vacuum": self.vacuum, "vacuum too": self.vacuum}
        threads = [threading.Thread(target=self._repeat, args=(name, job, end)) for name, job in jobs.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _repeat(self, name: str, job: Callable[[random.Random], None], end: float) -> None:
        chance = random.Random(name)
        while time.monotonic() < end:
            try:
                job(chance)
                self.done[name] += 1
            except tuple(EXPECTED) as error:
                kind = next(kind for kind in EXPECTED if isinstance(error, kind))
                self.done[f"{name}: {EXPECTED[kind]}"] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told in the end
                self.wrong.append(f"{name}: {type(error).__name__}: {error}")

    def write(self, chance: random.Random) -> None:
        """Correct some days."""
        days = make_days(chance.randrange(DAYS - 4), chance.randint(1, 4), float(chance.randrange(1000)))
        merge = chance.choice(["upsert", "upsert", "upsert", "time_series", "replace"])
        self.base.insert(days, merge=merge, scheduler="synchronous")

    def read(self, chance: random.Random) -> None:
        """Read a version again and again, that is pinned."""
        with self.base.pin("1min") as snapshot:
            first = _checked(snapshot.load().compute())
            for _ in range(3):
                time.sleep(chance.random() * 3)
                xr.testing.assert_identical(first, _checked(snapshot.load().compute()))

    def load_lazily(self, chance: random.Random) -> None:
        """Read later what was loaded lazily."""
        loaded = self.base.load()
        time.sleep(chance.random() * 2)
        _checked(loaded.compute())

    def sync(self, _: random.Random) -> None:
        """Compute what is stale in the view, and look at all of it."""
        self.view.sync(scheduler="synchronous")
        data = self.view.load().compute()
        known = ~np.isnan(data.thrice.values)
        np.testing.assert_array_equal(data.thrice.values[known], 3 * data.ssh.values[known])

    def expire(self, chance: random.Random) -> None:
        """Keep few versions; what is lazy has three seconds left."""
        self.base.expire(keep=chance.randint(1, 3), grace="3s")
        self.view.expire(keep=1, grace="3s")
        time.sleep(0.2)

    def vacuum(self, _: random.Random) -> None:
        """Delete what is due."""
        report = izc.vacuum(self.registry, grace="20s")
        self.done["groups freed"] += report.groups
        time.sleep(0.2)


def _checked(data: xr.Dataset) -> xr.Dataset:
    np.testing.assert_array_equal(data.twice.values, 2 * data.ssh.values)
    return data


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", default=60.0, show_default=True, help="For how long.")
@click.option("--registry", "url", help="The URL of a registry, in an empty database; SQLite if not given.")
def main(seconds: float, url: str | None) -> None:
    """Have writers, readers, syncs, expire and vacuum work side by side; fail if anything was missed."""
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        registry = izc.connect(url or f"sqlite:///{place}/registry.db", create=True)
        by_month = izc.Date("time", "M")
        rows = make_days(0, DAYS, 0.0)
        base = izc.create_collection(
            registry, "soak/base", rows, axis="time", partitioning=by_month, location=f"{place}/base", merge="upsert"
        )
        base.insert(rows, progress=False)
        view = izc.create_view(registry, "soak/view", base, location=f"{place}/view")
        view.update(thrice, outputs=[izc.Variable("thrice", "f8", ("time",))], rowwise=True, progress=False)
        soak = Soak(base, view, registry)
        soak.run(seconds)
    for what, count in sorted(soak.done.items()):
        print(f"{count:8,}  {what}")
    if soak.wrong:
        raise click.ClickException("\n".join([f"{len(soak.wrong)} went wrong:", *soak.wrong[:10]]))
    print("nothing was missed")


if __name__ == "__main__":
    main()
