"""What all tests share: a registry in a file, and collections small enough to read."""

import itertools
import os
import shutil
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import settings
from sqlalchemy.engine import URL, Engine, make_url

import intake_zcollection as izc
from registry.sql import postgres as sql_postgres
from registry.sql import sqlite
from tests.connections import kept_connections
from tests.ftp import FTPServer, running_ftp_server
from tests.postgres import PostgresServer, running_postgres
from tests.postgres_server import quick_place
from tests.processes import processes_of_dask
from tests.s3 import S3Server, running_server

# Of hypothesis' profiles, "ci" tries the same examples in each run and is the default where CI is in the environment.
# This one is "ci" but for that: .ci/run uses it with a seed, which it prints.
settings.register_profile("random", settings.get_profile("ci"), derandomize=False)


LONGEST = (
    *("tests/stateful/", "tests/test_benchmarks.py", "tests/test_docs.py", "tests/behaviour/test_conflicts.py"),
    *("tests/behaviour/test_crash.py", "tests/behaviour/test_demo.py", "tests/behaviour/test_dropping.py"),
    *("tests/behaviour/test_execution.py", "tests/behaviour/test_replicas.py"),
)
"""Where tests are that take long, each or together."""


@pytest.hookimpl(trylast=True)  # what is chosen by its name is chosen from all
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has nothing new for an engine, and begin with the longest tests.

    A test that takes ``engine``, most often by ``registry``, runs in SQLite with all that it is parametrized with, and
    in Postgres once: a registry there is no other one to the next store, format or dtype. One that is marked with
    ``both_engines`` runs there with all of it too, or with each value of the parameters that the mark names; one that
    is marked with ``one_engine`` only in the database that the mark names.
    """
    cases = set[object]()
    chosen, left_out = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        case = case_of(item)
        (left_out if case is None or case in cases else chosen).append(item)
        cases.add(case)
    config.hook.pytest_deselected(items=left_out)
    if hasattr(config, "workerinput"):  # several processes share them, and one would end long after the others
        chosen.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
    items[:] = chosen


def parameters_of(item: pytest.Item) -> Mapping[str, Any]:
    """What a test is parametrized with, its engine among it."""
    return item.callspec.params if hasattr(item, "callspec") else {}


def case_of(item: pytest.Item) -> object:
    """What a test tries: the same for some that are one on Postgres. None where it is about the other database."""
    engine = parameters_of(item).get("engine")
    only, both = item.get_closest_marker("one_engine"), item.get_closest_marker("both_engines")
    if engine and only and only.args[0] != engine:
        return None
    if engine != "postgres" or (both and not both.args):
        return item
    return item.nodeid.partition("[")[0], *(parameters_of(item)[name] for name in (both.args if both else ()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """See that a test gives back all connections to registries: a pool that misses some has soon no more."""
    with fewer_examples(item) if parameters_of(item).get("engine") == "postgres" else nullcontext():
        result = yield
    assert not (kept := kept_connections()), f"connections to a registry are left checked out: {kept}"
    return result


@contextmanager
def fewer_examples(item: pytest.Item) -> Iterator[None]:
    """Let hypothesis try a fifth of what it tries otherwise: most of a test's examples differ in what no SQL sees."""
    test, name = getattr(item, "obj", None), "_hypothesis_internal_use_settings"  # it has no other place for them
    if (usual := getattr(test, name, None)) is None:
        yield
        return
    setattr(test, name, settings(usual, max_examples=max(1, usual.max_examples // 5)))
    try:
        yield
    finally:
        setattr(test, name, usual)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty registry's file, to be copied: making its tables takes twenty times as long."""
    path = tmp_path_factory.mktemp("empty") / "registry.db"
    with izc.connect(f"sqlite:///{path}", create=True):
        return path


@contextmanager
def compiling_once(database: ModuleType, url: str) -> Iterator[None]:
    """Have the engines of all registries of a kind share what they compile: each test has one or more."""
    original = database.create_engine
    first = original(make_url(url))
    with first.connect():  # or its dialect would know nothing of the database
        pass

    def create_engine(url: URL) -> Engine:
        engine = original(url)
        engine.dialect, engine._compiled_cache = first.dialect, first._compiled_cache  # the dialect is part of the keys
        return engine

    first.dispose()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "create_engine", create_engine)
        yield


@pytest.fixture(scope="session", autouse=True)
def _the_disk_is_not_waited_for() -> Iterator[None]:
    """Synchronize nothing: only a failure of power would tell, and all that others have written is waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sync", lambda: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _processes_of_dask_are_forked() -> Iterator[None]:
    """Spawned ones import everything first; one test of a pool and one of a cluster have those, as users do."""
    with processes_of_dask("forkserver"):
        yield


@pytest.fixture(scope="session", autouse=True)
def _statements_for_sqlite_are_compiled_once(empty_database: Path) -> Iterator[None]:
    with compiling_once(sqlite, f"sqlite:///{empty_database}"):
        yield


Copies = Callable[[], AbstractContextManager[str]]
"""A function that makes an empty registry, which is there inside a block that gets its URL."""


@pytest.fixture(scope="session")
def sqlite_copies(empty_database: Path) -> Copies:
    """A function that makes empty registries in SQLite."""

    @contextmanager
    def copy() -> Iterator[str]:
        with TemporaryDirectory(dir=quick_place()) as folder:  # each commit would wait for a disk
            shutil.copyfile(empty_database, f"{folder}/registry.db")
            yield f"sqlite:///{folder}/registry.db"

    return copy


@pytest.fixture
def sqlite_url(sqlite_copies: Copies) -> Iterator[str]:
    """The URL of an empty registry in SQLite."""
    with sqlite_copies() as url:
        yield url


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server of Postgres, one for all tests."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def empty_postgres(postgres: PostgresServer) -> Iterator[str]:
    """The URL of an empty registry in Postgres, to be copied."""
    with postgres.database() as url:
        izc.connect(url, create=True).close()
        with compiling_once(sql_postgres, url):
            yield url


@pytest.fixture(scope="session")
def postgres_copies(postgres: PostgresServer, empty_postgres: str) -> Copies:
    """A function that makes empty registries in Postgres."""
    return lambda: postgres.database(empty_postgres)


@pytest.fixture
def postgres_url(postgres_copies: Copies) -> Iterator[str]:
    """The URL of an empty registry in Postgres."""
    with postgres_copies() as url:
        yield url


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> str:
    """The database that a registry is in: one after the other, see ``pytest_collection_modifyitems``."""
    return request.param


NewRegistry = Callable[[], AbstractContextManager[izc.Registry]]


@pytest.fixture(scope="module")
def new_registry(request: pytest.FixtureRequest, engine: str) -> NewRegistry:
    """A function that makes an empty registry, open inside a block: for fixtures of many tests, and for examples."""
    copies: Copies = request.getfixturevalue(f"{engine}_copies")

    @contextmanager
    def make() -> Iterator[izc.Registry]:
        with copies() as url, izc.connect(url) as registry:
            yield registry

    return make


@pytest.fixture
def registry(request: pytest.FixtureRequest, engine: str) -> Iterator[izc.Registry]:
    """An empty registry, in SQLite and in Postgres."""
    with izc.connect(request.getfixturevalue(f"{engine}_url")) as registry:
        yield registry


both_engines = pytest.mark.both_engines


@pytest.fixture(params=[3, 2], ids=["zarr3", "zarr2"])
def zarr_format(request: pytest.FixtureRequest) -> int:
    """Both formats, one after the other: for what each stores in a way of its own."""
    return request.param


@pytest.fixture
def one_format(request: pytest.FixtureRequest) -> int:
    """The default format; both of them where a test is marked with ``both_formats``, as one of each kind is."""
    return getattr(request, "param", 3)


both_formats = pytest.mark.parametrize("one_format", [3, 2], ids=["zarr3", "zarr2"], indirect=True)


def make_grid(start: str = "2022-01-01", days: int = 90, seed: int = 0) -> xr.Dataset:
    """Daily maps with everything a product has: packing, fill values, attributes, coordinates, a bounds variable."""
    rng = np.random.default_rng(seed)
    time = np.arange(days) * np.timedelta64(1, "D") + np.datetime64(start, "ns")
    sst = np.round(rng.uniform(270, 300, (days, 3, 4)), 2)
    sst[rng.random(sst.shape) < 0.1] = np.nan
    packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}
    return xr.Dataset(
        {
            "sst": (("time", "lat", "lon"), sst, {"units": "K", "grid_mapping": "crs"}, packing),
            "ice": (("time", "lat", "lon"), rng.random((days, 3, 4)).astype("f4"), {"units": "1"}),
            "count": ("time", rng.integers(0, 100, days).astype("i4"), {"long_name": "observations"}),
            "time_bnds": (("time", "bnds"), np.stack([time, time + np.timedelta64(1, "D")], axis=1)),
            "crs": ((), np.int32(0), {"grid_mapping_name": "latitude_longitude", "earth_radius": 6371229.0}),
        },
        {
            "time": ("time", time, {"standard_name": "time", "bounds": "time_bnds"}),
            "quality": ("time", rng.integers(0, 3, days).astype("i1")),
            "lat": ("lat", np.array([-10.0, 0.0, 10.0], "f4"), {"units": "degrees_north"}),
            "lon": ("lon", np.arange(4.0), {"units": "degrees_east"}),
        },
        {"title": "made data", "Conventions": "CF-1.8"},
    )


@pytest.fixture
def grid() -> xr.Dataset:
    """Ninety daily maps from 2022-01-01: January, February and March."""
    return make_grid()


def without_unit(kind: type[np.datetime64 | np.timedelta64], value: Any) -> Any:
    """A time of numpy's that has no unit, of which numpy 2.5 warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return kind(value)


@pytest.fixture
def make_collection(registry: izc.Registry, tmp_path: Path) -> Callable[..., izc.Collection]:
    """A function that creates a collection by month from a template, under a fresh name and location."""
    numbers = itertools.count()

    def make(template: xr.Dataset, **options: Any) -> izc.Collection:
        name = f"made/c{next(numbers)}"
        options = {"axis": "time", "partitioning": izc.Date("time", "M"), "location": f"{tmp_path}/{name}", **options}
        return izc.create_collection(registry, name, template, **options)

    return make


@dataclass(frozen=True)
class Store:
    """A place for collections, of any kind, where nothing is yet."""

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def location(self, name: str) -> str:
        """The URL of a location in it."""
        return f"{self.url}/{name}"

    def objects(self, location: str) -> set[str]:
        """All objects at a location, by their paths below it."""
        fs, root = fsspec.url_to_fs(location, **self.storage_options)
        fs.invalidate_cache()
        return {path.removeprefix(f"{root}/") for path in fs.find(root) if not path.endswith("/")}


@pytest.fixture(autouse=True)
def _forget_what_is_in_memory() -> Iterator[None]:
    """Empty fsspec's memory after each test: it looks through all of it at each request."""
    yield
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A server of S3, one for all tests; what the environment says of another one is forgotten."""
    with pytest.MonkeyPatch.context() as patch, running_server() as server:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        yield server


@pytest.fixture(scope="session")
def ftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FTPServer]:
    """A server of FTP, one for all tests."""
    with running_ftp_server(tmp_path_factory.mktemp("ftp")) as server:
        yield server


@pytest.fixture(params=["local", "memory", "s3", "ftp"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A place on a disk, in memory, in S3 and on a server of FTP, one after the other."""
    if request.param == "local":
        return Store(f"{tmp_path}/store")
    if request.param == "memory":
        return Store(f"memory://{uuid.uuid4().hex}")
    server: S3Server | FTPServer = request.getfixturevalue(request.param)
    return Store(server.fresh_url(), server.storage_options)
