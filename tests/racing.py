"""Two writers at once, in an order that is forced: one stops just before its commit, and others go first."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import xarray as xr

import intake_zcollection as izc
from registry.sql import tables
from registry.sql.engine import reading
from registry.transaction import Transaction

Verb = Callable[[izc.Collection], Any]

BEGIN = np.datetime64("2022-01-01", "ns")
HOUR = np.timedelta64(1, "h")
MONTH = 31 * 24
"""The hours from there on are in the second partition."""


def rows(hours: Sequence[int], source: float = 0, **more: float) -> xr.Dataset:
    """Rows at some hours from January 2022 on; their values tell them and their source from all others."""
    values = np.array(hours, "f8") + source * 10_000
    data = xr.Dataset(
        {"a": ("time", values), "b": ("time", -values), **{n: ("time", values + v) for n, v in more.items()}}
    )
    data["time"] = BEGIN + np.array(hours) * HOUR
    return data


def hours_of(data: xr.Dataset) -> list[int]:
    hours: list[int] = ((data.time.values - BEGIN) // HOUR).tolist()
    return hours


def held(collection: izc.Collection, name: str = "a") -> dict[int, float]:
    """The values of a variable, by the hours of the rows, none of which is there twice."""
    data = collection.load().compute()
    return dict(zip(hours_of(data), data[name].values.tolist(), strict=True))


def before_its_commits(patch: pytest.MonkeyPatch, *actions: Callable[[], Any]) -> list[Any]:
    """Have the writer that comes next do an action before each try to commit, in turn; returns what is left to do.

    Whatever it writes is written by then. The commits of the actions themselves are not counted.
    """
    left, commit, acting = list(actions), Transaction.commit, list[bool]()
    tries = itertools.count()

    def act_and_commit(self: Transaction, commits: Any) -> Any:
        assert next(tries) < 40, "it is run again and again, though nobody is in its way"
        if left and not acting:
            acting.append(True)
            try:
                left.pop(0)()
            finally:
                acting.pop()
        return commit(self, commits)

    patch.setattr(Transaction, "commit", act_and_commit)
    return left


def selected(registry: izc.Registry, *columns: Any) -> list[tuple[Any, ...]]:
    """Rows of a table of the registry."""
    with reading(registry._url) as connection:
        return [tuple(row) for row in connection.execute(sa.select(*columns))]


def garbage_of(registry: izc.Registry, collection: izc.Collection) -> set[str]:
    """The groups that nobody needs, by the part of their names that intents have."""
    table = tables.garbage.c
    location = collection._handle.record.location
    return {_intent(path) for where, path in selected(registry, table.location, table.path) if where == location}


def groups_on_disk(collection: izc.Collection) -> set[str]:
    """The groups that lie at a location, likewise."""
    return {_intent(path.parent.as_posix()) for path in Path(collection.location).rglob("zarr.json") if _is_group(path)}


def _is_group(document: Path) -> bool:
    return len(document.parent.name) == 32


def _intent(path: str) -> str:
    return path.rsplit("/", 1)[-1][:24]


def assert_clean(registry: izc.Registry, collection: izc.Collection) -> None:
    """See that all that lies at the location is known, none of it twice, and that writers left nothing else behind."""
    live = {uid[:24] for (uid,) in selected(registry, tables.fragment.c.group_uid)}
    past = {uid[:24] for (uid,) in selected(registry, tables.past_fragment.c.group_uid)}
    garbage = garbage_of(registry, collection)
    assert not garbage & (live | past), "a group that is read is to be deleted"
    on_disk = groups_on_disk(collection)
    assert on_disk <= live | past | garbage, "groups that nobody knows"
    assert garbage <= on_disk, "what nobody has written is to be deleted"
    staged = sa.select(tables.staged.c.uid).join(tables.transaction).where(tables.transaction.c.state != "aborted")
    with reading(registry._url) as connection:
        assert connection.execute(staged).all() == []
    assert selected(registry, tables.pin.c.id) == []
    assert selected(registry, tables.queue.c.id) == []
    numbers = [version.number for version in collection.versions()]
    assert numbers == list(range(len(numbers)))
    report = collection.validate()
    assert report.ok, report
