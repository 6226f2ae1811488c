"""Where the work is run: threads, dask's schedulers, and a real cluster of processes."""

import io
import itertools
import os
import signal
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client, KilledWorker, LocalCluster, get_client, secede, worker_client

import intake_zcollection as izc
from tests.conftest import make_grid
from tests.processes import start_fork_server

Make = Callable[..., izc.Collection]

workers_use_no_sql = pytest.mark.one_engine("sqlite", "workers use no SQL: what they do is the same for any registry")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two worker processes on this machine."""
    start_fork_server()  # before distributed does, with less
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


@workers_use_no_sql
def test_an_active_client_is_used_and_its_workers_need_no_registry(
    make_collection: Make, grid: xr.Dataset, registry: izc.Registry, cluster: LocalCluster, tmp_path: Path
) -> None:
    collection = make_collection(grid)
    with Client(cluster) as client:
        client.run(_forbid_the_registry)
        collection.insert(grid.chunk(time=10))
        collection.insert(make_grid(seed=1), merge=partial(_replace_elsewhere, os.getpid()))
        client.run(_forbid_the_registry, False)
        assert_holds(collection, make_grid(seed=1))


def _replace_elsewhere(here: int, existing: xr.Dataset, inserted: xr.Dataset, **_: Any) -> xr.Dataset:
    assert os.getpid() != here
    return inserted


def _forbid_the_registry(forbidden: bool = True) -> None:
    from registry.sql import engine

    def refuse(*args: Any) -> Any:
        raise AssertionError("a worker asked the registry")

    usual = vars(engine).setdefault("usual_engine_of", engine.engine_of)
    vars(engine)["engine_of"] = refuse if forbidden else usual


@workers_use_no_sql
def test_a_client_may_be_given(make_collection: Make, grid: xr.Dataset, cluster: LocalCluster) -> None:
    collection = make_collection(grid)
    with Client(cluster, set_as_default=False) as client:
        collection.insert(grid, scheduler=client)
    assert_holds(collection, grid)


@workers_use_no_sql
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


@workers_use_no_sql
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


@workers_use_no_sql
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


@workers_use_no_sql
def test_a_worker_that_is_killed_is_replaced_and_the_insert_succeeds(
    make_collection: Make, grid: xr.Dataset, cluster: LocalCluster, deaths: Path
) -> None:
    collection = make_collection(grid)
    with Client(cluster):
        collection.insert(partial(_dies_in_a_worker, os.getpid(), deaths, 1, grid))
    assert len(list(deaths.iterdir())) == 1
    assert_holds(collection, grid)


@workers_use_no_sql
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


# Inside a task. As many tasks as the cluster has threads run at once: what waits for a place then, waits for ever.


def _double(data: xr.Dataset) -> dict[str, Any]:
    return {"count": data["count"].values * 2}


def _double_lazily(data: xr.Dataset) -> dict[str, Any]:
    """Return what dask has computed, wherever it does that, and what it has not."""
    chunked = data.chunk(time=5)
    return {"count": (chunked["count"] * 2).compute(), "ice": chunked["ice"] * 2}


def _replace(existing: xr.Dataset, inserted: xr.Dataset, **_: Any) -> xr.Dataset:
    return inserted


def _held(grid: xr.Dataset) -> xr.Dataset:
    """Have the cluster hold the arrays of a dataset."""
    return grid.chunk(time=10).persist(scheduler=get_client())


def _without_a_place(collection: izc.Collection, grid: xr.Dataset) -> None:
    secede()
    collection.insert(grid, merge="upsert", scheduler=get_client())


def _by_a_workers_client(collection: izc.Collection, grid: xr.Dataset) -> None:
    with worker_client() as client:
        collection.insert(grid.chunk(time=10), merge="upsert", scheduler=client)


Verb = Callable[[izc.Collection, xr.Dataset], object]

READING: dict[str, Verb] = {
    "load": lambda collection, _: collection.load().compute(),
    "load by dates": lambda collection, _: collection.load().sel(time="2022-02").mean().compute(),
    "load aligned": lambda collection, _: (collection.load() == collection.at(version=1).load()).compute(),
    "map": lambda collection, _: collection.map(_double),
    "map lazily": lambda collection, _: collection.map(_double, lazy=True).compute(),
    "map_overlap": lambda collection, _: collection.map_overlap(_double, trim=False),
    "validate": lambda collection, _: collection.validate(),
}

WRITING: dict[str, Verb] = {
    "insert": lambda collection, grid: collection.insert(grid, merge="upsert"),
    "insert lazily": lambda collection, grid: collection.insert(grid.chunk(time=10), merge="upsert"),
    "insert functions": lambda collection, grid: collection.insert([partial(grid.chunk, time=10)], merge="replace"),
    "insert with a function": lambda collection, grid: collection.insert(grid, merge=_replace),
    "update": lambda collection, _: collection.update(_double),
    "update with neighbours": lambda collection, _: collection.update(_double, depth=1),
    "update lazily": lambda collection, _: collection.update(_double_lazily),
    "drop_rows": lambda collection, _: collection.drop_rows(where={"time": ("2022-02-10", "2022-02-12")}),
    "drop_rows by values": lambda collection, _: collection.drop_rows(where={"count": (0, 50)}),
    "rewrite": lambda collection, _: collection.rewrite(),
    "copy": lambda collection, _: collection.copy(f"{collection.name}_copy", f"{collection.location}_copy"),
    "set_immutables": lambda collection, grid: collection.set_immutables(grid[["crs"]] + 1),
}

BY_OTHERS: dict[str, Verb] = {
    "insert by the cluster": lambda collection, grid: collection.insert(grid, merge="upsert", scheduler=get_client()),
    "insert what the cluster holds": lambda collection, grid: collection.insert(_held(grid), merge="upsert"),
    "update by the cluster": lambda collection, _: collection.update(_double_lazily, scheduler=get_client()),
    "update by threads": lambda collection, _: collection.update(_double_lazily, scheduler="threads"),
    "update by two threads": lambda collection, _: collection.update(_double_lazily, workers=2),
    "insert by two threads": lambda collection, grid: collection.insert(grid.chunk(time=9), merge="upsert", workers=2),
    "insert by a worker's client": _by_a_workers_client,
    "insert without a place": _without_a_place,
}


def _in_a_task(verbs: dict[str, Verb], url: str, grid: xr.Dataset, begun: Path, name: str) -> None:
    """Call verbs, one after the other; in ``begun`` there is a file for each that has begun."""
    collection = izc.open_collection(url, name)
    for number, (verb, call) in enumerate(verbs.items()):
        (begun / f"{name.replace('/', '_')} {number} {verb}").touch()
        while number == 0 and len(list(begun.iterdir())) < 2:  # until all threads of the cluster are taken
            time.sleep(0.01)
        call(collection, grid)


@pytest.mark.parametrize("verbs", [READING, WRITING, BY_OTHERS], ids=["reading", "writing", "by others"])
def test_inside_tasks_that_take_all_threads_of_a_cluster_every_verb_works(
    make_collection: Make,
    grid: xr.Dataset,
    registry: izc.Registry,
    cluster: LocalCluster,
    verbs: dict[str, Verb],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    *given, expected = [make_collection(grid) for _ in range(3)]
    for collection in (*given, expected):
        collection.insert(grid.isel(time=slice(0, None, 2)))
    begun = tmp_path_factory.mktemp("begun")
    with Client(cluster) as client:
        task = partial(_in_a_task, verbs, registry.url, grid, begun)
        tasks = client.map(task, [each.name for each in given])
        try:
            for future in tasks:
                future.result(timeout=60)
        except TimeoutError:
            pytest.fail(f"the last ones wait for ever: {sorted(path.name for path in begun.iterdir())}")
    for call in [WRITING["insert"]] if verbs is BY_OTHERS else verbs.values():
        call(expected, grid)
    for collection in given:
        assert_holds(collection, expected.load().compute())


def _deliver(url: str, name: str, hour: int) -> int:
    """Insert a file of half a day, as a task of a cluster does it: on its own."""
    time = np.datetime64("2022-01-01", "ns") + np.arange(hour, hour + 12) * np.timedelta64(1, "h")
    data = xr.Dataset({"hour": ("time", np.arange(hour, hour + 12))}, {"time": time})
    return izc.open_collection(url, name).insert(data).number


def test_a_delivery_of_many_files_may_be_mapped_over_a_cluster(
    make_collection: Make, registry: izc.Registry, cluster: LocalCluster
) -> None:
    hours = np.arange(60 * 12)
    time = np.datetime64("2022-01-01", "ns") + hours * np.timedelta64(1, "h")
    collection = make_collection(xr.Dataset({"hour": ("time", hours)}, {"time": time}))
    with Client(cluster) as client:
        deliver = partial(_deliver, registry.url, collection.name)
        versions = client.gather(client.map(deliver, range(0, 60 * 12, 12)))
    assert sorted(versions) == list(range(1, 61))
    assert len(collection.partitions()) == 1
    np.testing.assert_array_equal(collection.load().hour.values, hours)


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


@workers_use_no_sql
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
