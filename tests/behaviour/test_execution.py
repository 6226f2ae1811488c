"""Where the work is run: threads, dask's schedulers, and a real cluster of processes."""

import io
import itertools
import os
import signal
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client, KilledWorker, LocalCluster

import intake_zcollection as izc
from tests.conftest import make_grid

Make = Callable[..., izc.Collection]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two worker processes on this machine."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        yield cluster


def assert_holds(collection: izc.Collection, expected: xr.Dataset) -> None:
    loaded = collection.load(chunks="partition").compute()
    np.testing.assert_array_equal(loaded["count"].values, expected["count"].values)
    np.testing.assert_array_equal(loaded.ice.values, expected.ice.values)


@pytest.mark.parametrize(
    ("scheduler", "chunks"),  # processes take seconds to start
    [*itertools.product([None, "threads", "synchronous"], [None, {"time": 7}]), ("processes", {"time": 7})],
    ids=str,
)
def test_any_scheduler_inserts_and_merges(
    make_collection: Make, grid: xr.Dataset, scheduler: str | None, chunks: dict[str, int] | None
) -> None:
    collection = make_collection(grid)
    collection.insert(grid.chunk(chunks) if chunks else grid, scheduler=scheduler)
    later = make_grid(seed=1)
    version = collection.insert(later.chunk(chunks) if chunks else later, merge="upsert", scheduler=scheduler)
    assert version.summary["merged"] == 3
    assert_holds(collection, later)
    assert_holds(collection.at(version=1), grid)


def test_an_active_client_is_used_and_its_workers_need_no_registry(
    make_collection: Make, grid: xr.Dataset, registry: izc.Registry, cluster: LocalCluster, tmp_path: Path
) -> None:
    collection = make_collection(grid)
    with Client(cluster) as client:
        client.run(_forbid_the_registry)
        collection.insert(grid.chunk(time=10))
        collection.insert(make_grid(seed=1), merge=partial(_replace_elsewhere, os.getpid()))
        assert_holds(collection, make_grid(seed=1))


def _replace_elsewhere(here: int, existing: xr.Dataset, inserted: xr.Dataset, **_: Any) -> xr.Dataset:
    assert os.getpid() != here
    return inserted


def _forbid_the_registry() -> None:
    import registry.sql.engine

    def refuse(*args: Any) -> Any:
        raise AssertionError("a worker asked the registry")

    registry.sql.engine.engine_of = refuse  # type: ignore[assignment]  # whatever it is asked for


def test_a_client_may_be_given(make_collection: Make, grid: xr.Dataset, cluster: LocalCluster) -> None:
    collection = make_collection(grid)
    with Client(cluster, set_as_default=False) as client:
        collection.insert(grid, scheduler=client)
    assert_holds(collection, grid)


def test_a_client_may_be_the_current_one_for_a_while(
    make_collection: Make, grid: xr.Dataset, cluster: LocalCluster
) -> None:
    collection = make_collection(grid)
    collection.insert(grid)
    elsewhere = partial(_replace_elsewhere, os.getpid())
    with Client(cluster, set_as_default=False) as client:
        with client.as_current():
            collection.insert(make_grid(seed=1), merge=elsewhere)
        with pytest.raises(AssertionError):
            collection.insert(grid, merge=elsewhere)
        with dask.config.set(scheduler=client):
            collection.insert(make_grid(seed=2), merge=elsewhere)
    assert_holds(collection, make_grid(seed=2))


@pytest.mark.parametrize(
    ("scheduler", "chunks"),
    [("threads", None), ("threads", {"time": 7}), ("synchronous", {"time": 7}), ("processes", None)],
    ids=str,
)
def test_a_scheduler_may_be_configured_and_comes_before_an_active_client(
    make_collection: Make, grid: xr.Dataset, cluster: LocalCluster, scheduler: str, chunks: dict[str, int] | None
) -> None:
    collection = make_collection(grid)
    with Client(cluster) as client, dask.config.set(scheduler=scheduler):
        client.run(_forbid_to_write)
        collection.insert(grid.chunk(chunks) if chunks else grid)
        client.run(_forbid_to_write, False)
    assert_holds(collection, grid)


def _forbid_to_write(forbidden: bool = True) -> None:
    from intake_zcollection.storage.write import write_fragment
    from intake_zcollection.writing import group

    def refuse(*args: Any) -> Any:
        raise AssertionError("a worker was used")

    vars(group)["write_fragment"] = refuse if forbidden else write_fragment


def test_what_dask_no_longer_takes_from_its_configuration_is_refused_as_dask_does(
    make_collection: Make, grid: xr.Dataset
) -> None:
    collection = make_collection(grid)
    with dask.config.set(get=dask.get), pytest.raises(ValueError, match="get= keyword has been removed"):
        collection.insert(grid)


def test_what_fails_on_a_worker_undoes_the_insert(
    make_collection: Make, grid: xr.Dataset, cluster: LocalCluster
) -> None:
    collection = make_collection(grid)
    collection.insert(grid)
    bad = make_grid("2022-04-01", days=30, seed=5)
    bad["sst"].values[3] = 1e6  # outside of the packing
    with Client(cluster), pytest.raises(izc.InvalidInputError, match=r"sst: .* outside the range"):
        collection.insert(bad.chunk(time=10))
    assert [version.number for version in collection.versions()] == [0, 1]
    assert not any(Path(collection.location).glob("year=2022/month=04/*"))


def test_a_bar_is_shown_on_request_and_not_in_a_pipe(
    make_collection: Make, grid: xr.Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    collection = make_collection(grid)
    collection.insert(grid)
    assert capsys.readouterr() == ("", "")
    collection.insert(grid, merge="replace", progress=True)
    assert "insert into made/c0" in capsys.readouterr().err


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_shown_in_a_terminal_for_more_than_one_partition(
    make_collection: Make, grid: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    collection = make_collection(grid)
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    collection.insert(grid.sel(time="2022-01"), progress=False)  # and what is stored once
    collection.insert(grid.sel(time="2022-02"))
    assert terminal.getvalue() == ""
    collection.insert(grid, merge="replace")
    assert "insert into made/c0" in terminal.getvalue()


@pytest.mark.parametrize("stderr", [None, object(), io.StringIO()], ids=["none", "odd", "closed"])
def test_a_process_may_be_without_stderr(
    make_collection: Make, grid: xr.Dataset, monkeypatch: pytest.MonkeyPatch, stderr: Any
) -> None:
    if isinstance(stderr, io.StringIO):
        stderr.close()
    monkeypatch.setattr(sys, "stderr", stderr)
    collection = make_collection(grid)
    assert collection.insert(grid).number == 1


@pytest.mark.parametrize(("name", "value"), [("FORCE_COLOR", "1"), ("TTY_COMPATIBLE", "1")])
def test_a_pipe_may_be_said_to_be_a_terminal(
    make_collection: Make,
    grid: xr.Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
) -> None:
    monkeypatch.setenv(name, value)
    make_collection(grid).insert(grid)
    assert "insert into made/c0" in capsys.readouterr().err


def test_workers_bound_how_many_partitions_are_worked_on_at_a_time(make_collection: Make, grid: xr.Dataset) -> None:
    running: set[int] = set()
    most = []

    def watch(existing: xr.Dataset, inserted: xr.Dataset, **_: Any) -> xr.Dataset:
        running.add(id(inserted))
        most.append(len(running))
        running.discard(id(inserted))
        return inserted

    collection = make_collection(grid)
    collection.insert(grid)
    collection.insert(make_grid(seed=1), merge=watch, workers=1)
    assert most == [1, 1, 1]


# Workers that die


def _dies_in_a_worker(here: int, deaths: Path, most: int, data: xr.Dataset) -> xr.Dataset:
    """Give a dataset; but in another process than ``here``, be killed, ``most`` times in all."""
    if os.getpid() != here and len(list(deaths.iterdir())) < most:
        (deaths / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return data


@pytest.fixture
def deaths(tmp_path: Path) -> Path:
    """A directory with a file for each worker that was killed."""
    directory = tmp_path / "deaths"
    directory.mkdir()
    return directory


def test_a_worker_that_is_killed_is_replaced_and_the_insert_succeeds(
    make_collection: Make, grid: xr.Dataset, cluster: LocalCluster, deaths: Path
) -> None:
    collection = make_collection(grid)
    with Client(cluster):
        collection.insert(partial(_dies_in_a_worker, os.getpid(), deaths, 1, grid))
    assert len(list(deaths.iterdir())) == 1
    assert_holds(collection, grid)


def test_an_insert_that_kills_every_worker_is_undone(make_collection: Make, grid: xr.Dataset, deaths: Path) -> None:
    collection = make_collection(grid)
    collection.insert(grid.sel(time="2022-01"))
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as fragile,
        Client(fragile),
        pytest.raises(KilledWorker),
    ):
        collection.insert(partial(_dies_in_a_worker, os.getpid(), deaths, 99, grid.sel(time=["2022-02-01"])))
    assert list(deaths.iterdir())
    assert [version.number for version in collection.versions()] == [0, 1]
    assert_holds(collection, grid.sel(time="2022-01"))
    assert not any(Path(collection.location).glob("year=2022/month=02/*"))


# What cannot be


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"scheduler": "nonsense"}, "is no scheduler of dask's"),
        ({"scheduler": 5}, "is no scheduler of dask's"),
        ({"workers": 0}, "from 1"),
        ({"workers": -1}, "from 1"),
        ({"workers": "4"}, "from 1"),
    ],
    ids=str,
)
def test_a_scheduler_or_number_of_workers_that_cannot_be_is_refused_before_anything_is_recorded(
    make_collection: Make, grid: xr.Dataset, options: dict[str, Any], why: str, tmp_path: Path
) -> None:
    collection = make_collection(grid)
    with pytest.raises(izc.InvalidInputError, match=why):
        collection.insert(grid, **options)
    assert [path.name for path in Path(collection.location).iterdir()] == [".zcollection"]


def test_a_collection_in_this_process_s_memory_is_not_given_to_other_processes(
    make_collection: Make, grid: xr.Dataset, cluster: LocalCluster
) -> None:
    collection = make_collection(grid, location="memory://made-for-execution")
    with pytest.raises(izc.InvalidInputError, match="in this process's memory"):
        collection.insert(grid, scheduler="processes")
    with Client(cluster):
        with pytest.raises(izc.InvalidInputError, match="in this process's memory"):
            collection.insert(grid)
        collection.insert(grid, scheduler="threads")
    assert_holds(collection, grid)


def test_of_what_functions_open_nothing_is_kept_while_the_insert_is_planned(
    make_collection: Make, grid: xr.Dataset
) -> None:
    opened: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []

    def product(day: int) -> xr.Dataset:
        data = grid.isel(time=[day]).copy(deep=True)
        alive.append(sum(reference() is not None for reference in opened))
        opened.append(weakref.ref(data.ice.values))
        return data

    collection = make_collection(grid)
    collection.insert([partial(product, day) for day in range(10)], scheduler="synchronous")
    assert max(alive[:10]) <= 1
