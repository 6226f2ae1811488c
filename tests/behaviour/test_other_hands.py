"""Collections that stay open for long, while others rename, drop, replace or upgrade what they hold; and forks."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask.config
import numpy as np
import pytest

import intake_zcollection as izc
from registry.migrations import HEAD_REVISION
from tests.conftest import Store, make_grid
from tests.processes import start_fork_server
from tests.sql import run_sql
from tests.verbs import (
    COPYING,
    MORE,
    READING,
    VIEW_COPYING,
    VIEW_READING,
    VIEW_WRITING,
    WRITING,
    double,
    view_over,
)

_processes = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module", autouse=True)
def _children_start_fast() -> None:
    start_fork_server()


def by_another(function: Callable[..., object], *arguments: Any) -> None:
    """Have another process do something."""
    with ProcessPoolExecutor(1, _processes) as pool:
        pool.submit(function, *arguments).result(timeout=60)


VERBS = READING | WRITING | COPYING
VERBS["insert nothing new"] = lambda collection: collection.insert(make_grid(days=2), merge="keep")


@pytest.fixture
def held(make_collection: Callable[..., izc.Collection]) -> izc.Collection:
    """A collection with two days in it, which is open."""
    collection = make_collection(MORE)
    collection.insert(make_grid(days=2))
    return collection


def drop(url: str, name: str) -> None:
    izc.drop_collection(url, name)


def drop_and_create(url: str, name: str, location: str) -> None:
    izc.drop_collection(url, name)
    partitioning = izc.Date("time", "M")
    new = izc.create_collection(url, name, MORE, axis="time", partitioning=partitioning, location=location)
    new.insert(make_grid(days=2, seed=1))


@pytest.mark.parametrize("again", [False, True], ids=["dropped", "dropped and created again"])
def test_who_holds_a_dropped_collection_is_told_so_by_every_verb_and_never_reaches_another_one(
    held: izc.Collection, registry: izc.Registry, again: bool
) -> None:
    name, location = held.name, held.location
    if again:
        by_another(drop_and_create, registry.url, name, location)
    else:
        by_another(drop, registry.url, name)
    for verb, call in VERBS.items():
        with pytest.raises(izc.NotFoundError, match=f"{name} was dropped"):
            pytest.fail(f"{verb} returned {call(held)!r}")
    if again:
        there = izc.open_collection(registry, name)
        assert there.version.number == 1
        np.testing.assert_array_equal(there.load().ice.values, make_grid(days=2, seed=1).ice.values)
    else:
        assert not Path(location).exists()


def test_who_holds_a_renamed_collection_goes_on_with_it(held: izc.Collection, registry: izc.Registry) -> None:
    by_another(izc.rename_collection, registry.url, held.name, "made/renamed")
    for call in (WRITING | COPYING).values():
        call(held)
    for call in READING.values():
        call(held)
    assert held.name == "made/renamed"
    assert izc.open_collection(registry, "made/renamed").version == held.version


def test_who_holds_a_dropped_view_is_told_so_by_every_verb(held: izc.Collection, registry: izc.Registry) -> None:
    view = view_over(held)
    by_another(drop, registry.url, view.name)
    for verb, call in (VIEW_READING | VIEW_WRITING | VIEW_COPYING).items():
        if verb != "base":
            with pytest.raises(izc.NotFoundError, match="made/view was dropped"):
                pytest.fail(f"{verb} returned {call(view)!r}")
    assert not Path(view.location).exists()
    assert held.load().sizes["time"] == 2


def rename_both(url: str, base: str) -> None:
    izc.rename_collection(url, base, "made/renamed")
    izc.rename_collection(url, "made/view", "made/renamed_view")


def test_who_holds_a_view_goes_on_with_it_though_it_and_its_base_are_renamed(
    held: izc.Collection, registry: izc.Registry
) -> None:
    view = view_over(held)
    by_another(rename_both, registry.url, held.name)
    for call in (VIEW_WRITING | VIEW_COPYING | VIEW_READING).values():
        call(view)
    assert (view.name, view.base.name) == ("made/renamed_view", "made/renamed")


def upgrade_to_the_future(registry: izc.Registry) -> None:
    revision = f"{int(HEAD_REVISION) + 1:04}"
    run_sql(registry, "UPDATE alembic_version SET version_num = ?", revision)
    run_sql(registry, 'INSERT INTO "release" (revision, "release") VALUES (?, ?)', revision, "9.1")


def test_who_holds_a_collection_of_an_upgraded_registry_is_told_what_to_install(
    held: izc.Collection, registry: izc.Registry
) -> None:
    by_another(upgrade_to_the_future, registry)
    for verb, call in VERBS.items():
        with pytest.raises(izc.RegistryRevisionError, match=r"newer than this release.*intake-zcollection>=9\.1"):
            pytest.fail(f"{verb} returned {call(held)!r}")
    for ask in (registry.collections, lambda: registry.collection(held.name)):
        with pytest.raises(izc.RegistryRevisionError, match="newer than this release"):
            ask()


# Forks


def use_in_forks(url: str, name: str, options: dict[str, Any]) -> list[int]:
    """Use a collection, and then let forked children use it too, by the very object."""
    collection = izc.open_collection(url, name, storage_options=options)
    collection.insert(make_grid(days=2))
    collection.load().compute()  # by threads, which children do not have
    numbers: list[int] = []
    for month in (2, 3):
        reader, writer = os.pipe()
        if os.fork() == 0:
            signal.alarm(30)  # what waits for ever is killed
            try:
                collection.insert(make_grid(f"2022-{month:02}-01", days=2))
                collection.update(double)
                with ThreadPoolExecutor(2) as pool, dask.config.set(pool=pool):
                    os.write(writer, bytes([collection.load().compute().sizes["time"]]))
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            numbers += pipe.read()
        os.wait()
    return [*numbers, collection.insert(make_grid("2022-04-01", days=2)).number]


def test_forked_children_use_what_their_parent_has_opened(
    make_collection: Callable[..., izc.Collection], registry: izc.Registry, store: Store
) -> None:
    if store.url.startswith("memory:"):
        pytest.skip("the memory of a process is its own")
    options = dict(store.storage_options)
    collection = make_collection(MORE, location=store.location("a"), storage_options=options)
    registry.close()  # or this process would keep SQLite's log, whatever the others do
    with ProcessPoolExecutor(1, _processes) as pool:
        assert pool.submit(use_in_forks, registry.url, collection.name, options).result(timeout=60) == [4, 6, 6]
    assert collection.load().sizes["time"] == 8
