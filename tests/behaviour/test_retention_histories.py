"""Random histories of writers, zombies, readers, pins, views, expire and vacuum, with a clock that the test moves on.

Whoever is at work may be interrupted, before it writes, commits or deletes, by whatever else there is. What a version
that stays, a pin, or a reader within the grace needs is never missing; and in the end what is stored is what rows name.
"""

import datetime as dt
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
import intake_zcollection.writing.write
from intake_zcollection.storage import layout
from intake_zcollection.storage.objects import FsspecStore
from registry.transaction import Transaction
from tests.examples import scaled
from tests.retention import NOTHING_LEFT, groups_among, let_pass, named_groups, rows_left
from tests.sql import run_sql
from tests.views import DOUBLE, create_base, days, double, view_of

DAY = dt.timedelta(days=1)


class KilledError(BaseException):
    """What ends a process at once."""


class History:
    """A collection, a view of it, and all who are at work."""

    def __init__(self, registry: izc.Registry, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.registry, self.folder, self.now = registry, folder, 0.0
        self.base = create_base(registry, folder / "base")
        self.base.insert(days("2022-01-01", 40), scheduler="synchronous")
        self.view = view_of(self.base, location=f"{folder}/view", pinned_version=1)
        self.view.update(double, outputs=[DOUBLE], scheduler="synchronous")
        self.seen: dict[tuple[str, int], xr.Dataset] = {}
        self.pins: list[tuple[Any, izc.Collection, float]] = []
        self.lazy: list[tuple[xr.Dataset, int]] = []
        self.busy, self.overtaken, self.dies = 0, 0, False

    # What may happen

    def insert(self) -> None:
        first = np.datetime64("2022-01-01") + self.random.randrange(50)
        merge = self.random.choice(["upsert", "time_series", "replace"])
        self.base.insert(days(str(first), self.random.randint(1, 20), self.random.random()), merge=merge, **HERE)

    def drop(self) -> None:
        if self.random.random() < 0.5:
            self.base.drop_partitions(filters=f"month == {self.random.randint(1, 2)}")
        else:
            first = np.datetime64("2022-01-01") + self.random.randrange(40)
            self.base.drop_rows(where={"time": (str(first), str(first + 5))}, **HERE)

    def compute(self) -> None:
        self.base.update(lambda data: {"flag": data["flag"] + 1}, **HERE)

    def rewrite(self) -> None:
        self.base.rewrite(**HERE)

    def sync(self) -> None:
        self.view.sync(pinned_version=self.base.version, **HERE)

    def killed(self) -> None:
        self.dies = True
        with suppress(KilledError):
            self.insert()
        self.dies = False

    def zombie(self) -> None:
        rows = run_sql(
            self.registry,
            'SELECT s.location, s.path FROM staged s JOIN "transaction" t ON t.id = s.transaction_id '
            "WHERE t.state IN ('aborted', 'expired') ORDER BY s.uid",
        )
        if rows:
            group = Path(*self.random.choice(rows))
            late = group.with_name(group.name + layout.new_attempt())
            late.mkdir(parents=True)
            (late / "zarr.json").write_text("{}")

    def expire(self) -> None:
        which: dict[str, Any] = self.random.choice([{"keep": 1}, {"keep": 2}, {"older_than": "1d"}])
        self.random.choice([self.base, self.base, self.view]).expire(**which)

    def vacuum(self) -> None:
        assert izc.vacuum(self.registry).ok

    def wait(self) -> None:
        hours = self.random.choice([1, 8, 20, 30])
        self.now += hours / 24
        let_pass(self.registry, dt.timedelta(hours=hours))

    def pin(self) -> None:
        left = [each for each in self.base.versions() if each.expired_at is None]
        pin = self.base.at(version=self.random.choice(left)).pin("12h")
        self.pins.append((pin, pin.__enter__(), self.now + 0.5))

    def read(self) -> None:
        left = [each for each in self.base.versions() if each.expired_at is None]
        version = self.random.choice(left)
        self.lazy.append((self.base.at(version=version).load(), version.number))

    # Who interrupts whom

    def between(self) -> None:
        """Let others do something, while one is in the middle of what it does."""
        if self.busy or self.random.random() < 0.5:
            return
        self.busy += 1
        try:
            for _ in range(self.random.randint(1, 3)):
                self.random.choice([self.expire, self.vacuum, self.wait, self.zombie, self.overtake])()
        finally:
            self.busy -= 1

    def overtake(self) -> None:
        """Write, unless that was done so often that the one who is interrupted has others wait: all are one thread."""
        if self.overtaken < 2:
            self.overtaken += 1
            self.insert()

    def step(self) -> None:
        """Let something happen."""
        self.overtaken = 0
        with suppress(izc.TransactionClosedError):  # it was fenced
            getattr(self, self.random.choice(KINDS))()
        self.busy += 1  # nobody interrupts who looks
        self.check()
        self.busy -= 1

    def interrupting(self, patch: pytest.MonkeyPatch) -> None:
        def before(owner: Any, name: str, act: Callable[..., None]) -> None:
            original = getattr(owner, name)

            def wrapper(*args: Any, **kwargs: Any) -> Any:
                act()
                return original(*args, **kwargs)

            patch.setattr(owner, name, wrapper)

        def die_or_wait() -> None:
            if self.dies:
                raise KilledError
            self.between()

        before(intake_zcollection.writing.write, "put_down", self.between)
        before(Transaction, "commit", die_or_wait)
        before(FsspecStore, "remove", self.between)
        leave = Transaction.__exit__
        patch.setattr(Transaction, "__exit__", lambda each, *e: None if self.dies else leave(each, *e))
        abort = Transaction.abort
        patch.setattr(Transaction, "abort", lambda each: each._stopped.set() if self.dies else abort(each))

    # What has to be

    def check(self) -> None:
        """See that all that somebody needs is there, with the values that it had."""
        expired = {each.number: each.expired_at for each in self.base.versions()}
        for each in (self.base, self.view):
            for version in each.versions():
                if version.expired_at is None and not (each is self.view and version != self.view.version):
                    self._see(each, version.number)
        for pin, _, _ in [each for each in self.pins if each[2] <= self.now]:
            pin.__exit__(None, None, None)
        self.pins = [each for each in self.pins if each[2] > self.now]
        for _, snapshot, _ in self.pins:
            self._see(snapshot, snapshot.version.number)
        for data, number in self.lazy:
            gone = expired[number]
            try:
                xr.testing.assert_identical(data.compute(), self.seen[self.base.name, number])
            except izc.VersionExpiredError:
                assert gone is not None
                assert dt.datetime.now(dt.UTC) - gone > DAY - dt.timedelta(minutes=1)

    def _see(self, each: izc.Collection, number: int) -> None:
        data = (each if each is self.view else each.at(version=number)).load().compute()
        xr.testing.assert_identical(data, self.seen.setdefault((each.name, number), data))

    def end(self) -> None:
        """Let all be over, and see that nothing is left but what rows name."""
        for pin, _, _ in self.pins:
            pin.__exit__(None, None, None)
        for _ in range(3):
            let_pass(self.registry, 2 * DAY)
            self.vacuum()
        assert rows_left(self.registry) == NOTHING_LEFT
        assert groups_among({str(path) for path in self.folder.rglob("*")}) == named_groups(self.registry)
        assert self.base.validate().ok


HERE: dict[str, Any] = {"scheduler": "synchronous"}

OFTEN = ("insert", "insert", "drop", "compute", "rewrite", "sync", "killed", "zombie", "expire", "expire", "vacuum")
KINDS = (*OFTEN, "vacuum", "wait", "wait", "pin", "read")


@pytest.mark.parametrize("seed", range(scaled(3)))
def test_whatever_happens_nothing_that_is_needed_is_missing_and_nothing_else_is_left(
    registry: izc.Registry, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(registry, tmp_path, seed)
    with monkeypatch.context() as patch:
        history.interrupting(patch)
        for _ in range(16):
            history.step()
    history.end()
