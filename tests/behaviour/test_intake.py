"""The intake driver, through intake itself: catalogs in YAML, entries, sources."""

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import dask.array as da
import intake
import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
from intake_zcollection.drivers.source import ZCollectionSource
from tests.conftest import NewRegistry, make_grid

DEMO_CATALOG = Path(__file__).parents[2] / "catalogs" / "demo.yaml"

OpenEntry = Callable[..., ZCollectionSource]


GRID = make_grid()  # January, February and March 2022


@pytest.fixture(scope="module")
def shared_registry(new_registry: NewRegistry) -> Iterator[izc.Registry]:
    with new_registry() as registry:
        yield registry


def make(registry: izc.Registry, name: str, folder: Path, *inserts: xr.Dataset) -> izc.Collection:
    """A collection by month."""
    collection = izc.create_collection(
        registry, name, inserts[0], axis="time", partitioning=izc.Date("time", "M"), location=f"{folder}/{name}"
    )
    for data in inserts:
        collection.insert(data)
    return collection


@pytest.fixture(scope="module")
def collection(shared_registry: izc.Registry, tmp_path_factory: pytest.TempPathFactory) -> izc.Collection:
    """Three months; tests only read it."""
    return make(shared_registry, "made/three", tmp_path_factory.mktemp("data"), GRID)


@pytest.fixture(scope="module")
def two_versions(shared_registry: izc.Registry, tmp_path_factory: pytest.TempPathFactory) -> izc.Collection:
    """Version 1 has three months, version 2 four; tests only read it."""
    return make(shared_registry, "made/two", tmp_path_factory.mktemp("data"), GRID, make_grid("2022-04-01", days=30))


@pytest.fixture
def fresh(registry: izc.Registry, tmp_path: Path) -> izc.Collection:
    """Three months, for tests that write or delete."""
    return make(registry, "made/fresh", tmp_path, GRID)


@pytest.fixture
def url(shared_registry: izc.Registry) -> str:
    return shared_registry.url


@pytest.fixture
def open_catalog(tmp_path: Path) -> Callable[[str], intake.Catalog]:
    """A function that writes a catalog's YAML to a file and opens that."""

    def opened(text: str) -> intake.Catalog:
        path = tmp_path / "catalog.yaml"
        path.write_text(text)
        return intake.open_catalog(str(path))

    return opened


@pytest.fixture
def open_entry(open_catalog: Callable[[str], intake.Catalog], collection: izc.Collection) -> OpenEntry:
    """A function that makes a catalog of one entry, with further arguments as lines of YAML, and opens the entry."""

    def opened(*arguments: str, of: izc.Collection = collection, registry: str | None = None) -> ZCollectionSource:
        head = ["sources:", "  grid:", "    driver: zcollection", "    args:"]
        lines = [f'registry: "{registry or of._handle.registry.url}"', f"collection: {of.name}", *arguments]
        return open_catalog("\n".join([*head, *(f"      {line}" for line in lines)])).grid

    return opened


def delete_data(collection: izc.Collection) -> None:
    shutil.rmtree(collection.location)


def is_in_memory(dataset: xr.Dataset) -> bool:
    return all(isinstance(variable._data, np.ndarray) or variable._in_memory for variable in dataset.variables.values())


def same(loaded: xr.Dataset, expected: xr.Dataset) -> None:
    xr.testing.assert_allclose(loaded, expected, rtol=1e-12)


# The driver


def test_the_driver_is_found_by_its_entry_point() -> None:
    (entry_point,) = entry_points(group="intake.drivers", name="zcollection")

    assert entry_point.load() is ZCollectionSource
    assert intake.registry["zcollection"] is ZCollectionSource


def test_the_driver_has_the_version_of_the_package() -> None:
    assert ZCollectionSource.version == version("intake-zcollection")


def test_an_entry_is_a_source_of_xarray_data(open_entry: OpenEntry) -> None:
    source = open_entry()

    assert isinstance(source, ZCollectionSource)
    assert source.container == "xarray"
    assert source.describe()["driver"] == ["zcollection"]


def test_open_zcollection_opens_without_a_catalog(collection: izc.Collection, url: str) -> None:
    source = intake.open_zcollection(registry=url, collection=collection.name, filters="month == 2")

    same(source.read(), GRID.sel(time="2022-02"))


def test_arguments_may_be_given_by_position(collection: izc.Collection, url: str) -> None:
    assert ZCollectionSource(url, collection.name).to_dask().sizes["time"] == 90


# The registry's address


def test_env_in_a_template_is_looked_up(open_entry: OpenEntry, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZC_TEST_REGISTRY", url)

    assert open_entry(registry="{{ env(ZC_TEST_REGISTRY) }}").to_dask().sizes["time"] == 90


def test_env_with_a_colon_is_looked_up_when_it_is_used(
    open_entry: OpenEntry, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZC_TEST_REGISTRY", raising=False)
    source = open_entry(registry="env:ZC_TEST_REGISTRY")

    monkeypatch.setenv("ZC_TEST_REGISTRY", url)

    assert source.to_dask().sizes["time"] == 90


def test_a_missing_environment_variable_is_named(open_entry: OpenEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZC_TEST_REGISTRY", raising=False)
    source = open_entry(registry="env:ZC_TEST_REGISTRY")

    with pytest.raises(izc.InvalidInputError, match=r"ZC_TEST_REGISTRY.*not set"):
        source.to_dask()


def test_a_template_whose_variable_is_missing_says_what_an_address_is(
    open_entry: OpenEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZC_TEST_REGISTRY", raising=False)
    source = open_entry(registry="{{ env(ZC_TEST_REGISTRY) }}")

    with pytest.raises(izc.InvalidInputError, match=r"sqlite:///path/to/registry\.db"):
        source.to_dask()


# Reading


def test_read_gives_the_data_in_memory(open_entry: OpenEntry, fresh: izc.Collection) -> None:
    dataset = open_entry(of=fresh).read()
    delete_data(fresh)

    assert is_in_memory(dataset)
    same(dataset, GRID)


def test_to_dask_reads_nothing(open_entry: OpenEntry, fresh: izc.Collection) -> None:
    delete_data(fresh)

    dataset = open_entry(of=fresh).to_dask()

    assert isinstance(dataset.sst.data, da.Array)
    assert dataset.sizes == {"time": 90, "lat": 3, "lon": 4, "bnds": 2}
    with pytest.raises(izc.CorruptedDataError, match="missing"):
        dataset.sst.mean().compute()


def test_to_dask_gives_the_data_lazily(open_entry: OpenEntry) -> None:
    same(open_entry().to_dask().compute(), GRID)


def test_discover_needs_the_registry_alone(open_entry: OpenEntry, fresh: izc.Collection) -> None:
    delete_data(fresh)

    described = open_entry(of=fresh).discover()

    assert described["dtype"] == {name: str(variable.dtype) for name, variable in GRID.variables.items()}
    assert described["shape"] == {"time": 90, "lat": 3, "lon": 4, "bnds": 2}
    assert described["npartitions"] == 3
    assert described["metadata"].items() >= {"title": "made data", "Conventions": "CF-1.8"}.items()


def test_discover_describes_the_selection_by_whole_partitions(open_entry: OpenEntry, fresh: izc.Collection) -> None:
    delete_data(fresh)

    described = open_entry('where: {time: ["2022-01-20", "2022-02-03"]}', "variables: [ice]", of=fresh).discover()

    assert described["dtype"] == {"ice": "float32", "time": "datetime64[ns]", "lat": "float32", "lon": "float64"}
    assert described["shape"] == {"time": 59, "lat": 3, "lon": 4}
    assert described["npartitions"] == 2


def test_a_view_that_follows_its_base_is_described_with_what_the_base_has_by_now(
    open_entry: OpenEntry, fresh: izc.Collection, registry: izc.Registry, tmp_path: Path
) -> None:
    view = izc.create_view(registry, "made/view", fresh, location=f"{tmp_path}/view", variables=["ice"])
    view.set_attributes({"title": "made over the data"})
    fresh.insert(make_grid("2022-04-01", days=30))

    source = open_entry(of=view)
    assert (source.discover()["npartitions"], source.shape["time"]) == (4, 120)
    same(source.read_partition(3), view.load(filters="month == 4").compute())
    assert open_entry("version: 0", of=view).discover()["npartitions"] == 3


def test_discover_fills_the_attributes_that_intake_has_for_it(open_entry: OpenEntry) -> None:
    source = open_entry()

    described = source.discover()

    assert (source.npartitions, source.shape, source.dtype) == (3, described["shape"], described["dtype"])


def test_discover_gives_attributes_of_any_dtype_as_plain_numbers(open_entry: OpenEntry, make_collection: Any) -> None:
    attrs = {"flag_values": np.array([0, 1], "i1"), "valid_min": np.float32(0.5)}

    described = open_entry(of=make_collection(GRID.assign_attrs(attrs))).discover()["metadata"]

    plain = json.loads(json.dumps(described))
    assert (plain["title"], plain["flag_values"], plain["valid_min"]) == (GRID.title, [0, 1], 0.5)


def test_entering_a_source_discovers_it(open_entry: OpenEntry) -> None:
    with open_entry() as source:
        assert source.npartitions == 3


def test_a_closed_source_can_be_used_again(open_entry: OpenEntry) -> None:
    source = open_entry()
    source.discover()

    source.close()

    assert source.read_partition(1).sizes["time"] == 28
    same(source.read(), GRID)


def test_read_partition_reads_one_partition(open_entry: OpenEntry) -> None:
    february = open_entry().read_partition(1)

    assert is_in_memory(february)
    same(february, GRID.sel(time="2022-02"))


@pytest.mark.parametrize("number", [3, -1])
def test_a_partition_that_is_not_there_is_an_index_error(open_entry: OpenEntry, number: int) -> None:
    with pytest.raises(IndexError, match="out of range"):
        open_entry().read_partition(number)


def test_read_chunked_gives_one_partition_after_the_other(open_entry: OpenEntry) -> None:
    parts = list(open_entry().read_chunked())

    assert [part.sizes["time"] for part in parts] == [31, 28, 31]
    for month, part in enumerate(parts, 1):
        same(part, GRID.sel(time=f"2022-0{month}"))


def test_partitions_are_those_of_the_selection_and_cropped_like_it(open_entry: OpenEntry) -> None:
    source = open_entry("filters: month > 1", 'where: {time: ["2022-01-20", "2022-03-05"]}', "variables: [ice]")

    parts = list(source.read_chunked())

    assert source.npartitions == len(parts) == 2
    expected = GRID[["ice"]].drop_vars("quality")
    same(parts[0], expected.sel(time="2022-02"))
    same(parts[1], expected.sel(time=slice("2022-03-01", "2022-03-05")))


def test_a_selection_of_nothing_has_no_partitions_and_no_rows(open_entry: OpenEntry) -> None:
    source = open_entry("filters: year == 1999")

    assert source.discover()["npartitions"] == 0
    assert list(source.read_chunked()) == []
    assert source.read().sizes["time"] == 0
    assert source.read().sst.dtype == "f8"


def test_every_partition_is_read_from_the_version_that_was_discovered(
    open_entry: OpenEntry, fresh: izc.Collection
) -> None:
    source = open_entry(of=fresh)
    parts = source.read_chunked()
    first = next(parts)

    fresh.insert(GRID.isel(time=slice(31, 33)), merge="replace")

    assert [first.sizes["time"], *(part.sizes["time"] for part in parts)] == [31, 28, 31]
    source.discover()
    assert source.read_partition(1).sizes["time"] == 2


# Versions


def test_a_version_can_be_pinned_in_the_entry(open_entry: OpenEntry, two_versions: izc.Collection) -> None:
    source = open_entry("version: 1", of=two_versions)

    assert source.discover()["npartitions"] == 3
    same(source.read(), GRID)


def test_a_version_can_be_given_at_the_call(open_entry: OpenEntry, two_versions: izc.Collection) -> None:
    source = open_entry(of=two_versions)

    same(source(version=1).read(), GRID)
    assert source.read().sizes["time"] == 120


def test_a_version_given_at_the_call_wins_over_the_entrys(open_entry: OpenEntry, two_versions: izc.Collection) -> None:
    assert open_entry("version: 1", of=two_versions)(version=2).to_dask().sizes["time"] == 120


def test_the_newest_version_is_followed(open_entry: OpenEntry, fresh: izc.Collection) -> None:
    source = open_entry(of=fresh)
    before = (source.to_dask(), source.discover())

    fresh.insert(make_grid("2022-04-01", days=30))

    after = (source.to_dask(), source.discover())
    assert [dataset.sizes["time"] for dataset, _ in (before, after)] == [90, 120]
    assert [described["shape"]["time"] for _, described in (before, after)] == [90, 120]
    assert [described["npartitions"] for _, described in (before, after)] == [3, 4]
    assert source.read_partition(3).sizes["time"] == 30


def test_a_version_that_does_not_exist_is_reported_on_use(open_entry: OpenEntry) -> None:
    source = open_entry("version: 7")

    with pytest.raises(izc.NotFoundError, match="made/three has no version 7: it has versions 0 to 1"):
        source.to_dask()


# Arguments from YAML


def test_filters_choose_partitions(open_entry: OpenEntry) -> None:
    same(open_entry('filters: "month in (1, 3)"').read(), GRID.isel(time=[*range(31), *range(59, 90)]))


@pytest.mark.parametrize(
    ("where", "days"),
    [
        pytest.param('["2022-01-20", "2022-02"]', slice("2022-01-20", "2022-02"), id="text"),
        pytest.param("[2022-01-20, 2022-02-03]", slice("2022-01-20", "2022-02-03"), id="YAML dates"),
        pytest.param("[2022-01-20T00:00:00, 2022-02-03 12:00:00]", slice("2022-01-20", "2022-02-03"), id="YAML times"),
        pytest.param("[2022-03-20, null]", slice("2022-03-20", None), id="open"),
    ],
)
def test_where_chooses_rows(open_entry: OpenEntry, where: str, days: slice) -> None:
    same(open_entry(f"where: {{time: {where}}}").read(), GRID.sel(time=days))


def test_an_index_chooses_rows(open_entry: OpenEntry, fresh: izc.Collection) -> None:
    fresh.create_index("quality_and_count", ("quality", "count"))
    fresh.create_index("times", "time")
    good, many = GRID.quality.values > 0, GRID["count"].values >= 60
    same(open_entry("index: {quality: [1, 2], count: {low: 60}}", of=fresh).read(), GRID.isel(time=good & many))
    same(
        open_entry("index: {times: {time: {low: 2022-03-01, high: null}}}", of=fresh).read(),
        GRID.isel(time=slice(59, None)),
    )
    source = open_entry('index: "quality > 0 and count >= 60"', 'filters: "month < 3"', of=fresh)
    same(source.read_partition(1), GRID.isel(time=good & many).sel(time="2022-02"))
    assert source.discover()["npartitions"] == 2
    same(open_entry('index: ""', "unindexed: raise", of=fresh).read(), GRID)


def test_variables_are_chosen(open_entry: OpenEntry) -> None:
    dataset = open_entry("variables: [ice, quality]").to_dask()

    assert set(dataset.variables) == {"ice", "quality", "time", "lat", "lon"}


@pytest.mark.parametrize(
    ("chunks", "blocks"),
    [("auto", (90,)), ("partition", (31, 28, 31)), ("{time: 40}", (40, 40, 10)), ("45", (45, 45))],
)
def test_chunks_are_chosen(open_entry: OpenEntry, chunks: str, blocks: tuple[int, ...]) -> None:
    assert open_entry(f"chunks: {chunks}").to_dask().chunksizes["time"] == blocks


def test_chunks_null_gives_no_dask(open_entry: OpenEntry, collection: izc.Collection) -> None:
    dataset = open_entry("chunks: null").to_dask()

    assert dataset.chunks == {}
    assert not dataset.sst.variable._in_memory
    same(dataset.compute(), GRID)


def test_metadata_of_the_entry_is_kept(
    open_catalog: Callable[[str], intake.Catalog], collection: izc.Collection
) -> None:
    catalog = open_catalog(f"""
        sources:
          grid:
            driver: zcollection
            description: a made grid
            metadata: {{team: currents}}
            args: {{registry: env:ZC_TEST_REGISTRY, collection: {collection.name}}}
    """)

    assert catalog.grid.metadata["team"] == "currents"
    assert catalog.grid.description == "a made grid"


PARAMETERS = """
sources:
  grid:
    driver: zcollection
    args:
      registry: "{url}"
      collection: made/two
      version: "{{{{ version }}}}"
      filters: "month == {{{{ month }}}}"
      where:
        time: ["{{{{ start }}}}", null]
    parameters:
      month: {{type: int, default: 2, min: 1, max: 3, description: Which month}}
      version: {{type: int, default: 1, description: Which version}}
      start: {{type: datetime, default: 2022-01-20, description: The first day}}
"""


def test_parameters_reach_the_arguments(
    open_catalog: Callable[[str], intake.Catalog], two_versions: izc.Collection
) -> None:
    catalog = open_catalog(PARAMETERS.format(url=two_versions._handle.registry.url))

    same(catalog.grid.read(), GRID.sel(time="2022-02"))
    same(catalog.grid(month=1).read(), GRID.sel(time=slice("2022-01-20", "2022-01-31")))
    assert catalog.grid(month=3, version=0).read().sizes["time"] == 0


# Intake 2.0.9 (catalog/utils.py, expand_defaults) warns so of every parameter that is given as text.
@pytest.mark.filterwarnings("ignore:Shell command not executed due to getshell=False:UserWarning")
def test_a_parameter_may_be_a_date_as_text(
    open_catalog: Callable[[str], intake.Catalog], two_versions: izc.Collection
) -> None:
    source = open_catalog(PARAMETERS.format(url=two_versions._handle.registry.url)).grid(month=3, start="2022-03-09")

    same(source.read(), GRID.sel(time=slice("2022-03-09", "2022-03-31")))


def test_a_parameter_outside_its_range_is_refused(
    open_catalog: Callable[[str], intake.Catalog], two_versions: izc.Collection
) -> None:
    catalog = open_catalog(PARAMETERS.format(url=two_versions._handle.registry.url))

    with pytest.raises(ValueError, match="greater than 3"):
        catalog.grid(month=4)


# The demo's catalog


@pytest.fixture
def demo_catalog(
    registry: izc.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[intake.Catalog, xr.Dataset]:
    """The real file, on a small collection of its name: 2006 and 2007, month by month."""
    time = np.arange("2006-01", "2008-01", dtype="M8[M]").astype("M8[ns]")
    data = xr.Dataset({"surface_temperature": ("time", np.arange(24.0))}, {"time": time})
    collection = izc.create_collection(
        registry,
        "demo/sst",
        data,
        axis="time",
        partitioning=izc.Date("time", "M"),
        location=str(tmp_path / "sst"),
    )
    collection.insert(data.sel(time="2006"))
    collection.insert(data.sel(time="2007"))
    monkeypatch.setenv("ZC_DEMO_REGISTRY", registry.url)
    return intake.open_catalog(str(DEMO_CATALOG)), data


def test_the_demos_catalog_opens_the_collection(demo_catalog: tuple[intake.Catalog, xr.Dataset]) -> None:
    catalog, data = demo_catalog

    assert list(catalog) == ["sst", "sst_year", "sst_anomaly"]
    same(catalog.sst.to_dask().compute(), data)
    same(catalog.sst(version=1).read(), data.sel(time="2006"))


def test_the_demos_catalog_has_a_year_as_parameter(demo_catalog: tuple[intake.Catalog, xr.Dataset]) -> None:
    catalog, data = demo_catalog

    same(catalog.sst_year.read(), data.sel(time="2006"))
    same(catalog.sst_year(year=2007).read(), data.sel(time="2007"))
    assert catalog.sst_year(year=2007).discover()["npartitions"] == 12
    with pytest.raises(ValueError, match="2010"):
        catalog.sst_year(year=2011)


# Sources as objects


def test_a_source_can_be_pickled_before_and_after_use(open_entry: OpenEntry) -> None:
    source = open_entry("filters: month == 2")

    before = pickle.loads(pickle.dumps(source))
    source.discover()
    source.read_partition(0)
    after = pickle.loads(pickle.dumps(source))

    for restored in (before, after, pickle.loads(pickle.dumps(after))):
        same(restored.read(), GRID.sel(time="2022-02"))
        same(restored.read_partition(0), GRID.sel(time="2022-02"))
        assert restored.discover()["npartitions"] == 1


def test_the_lazy_dataset_of_a_source_can_be_pickled(open_entry: OpenEntry) -> None:
    same(pickle.loads(pickle.dumps(open_entry().to_dask())).compute(), GRID)


ABSENT = "sqlite:////nowhere/at/all/registry.db"


def test_making_showing_and_pickling_a_source_reaches_for_nothing(
    open_entry: OpenEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*arguments: object, **options: object) -> None:
        raise AssertionError("a source reached for its registry before it was used")

    monkeypatch.setattr("intake_zcollection.drivers.source.open_collection", unexpected)
    monkeypatch.setattr("sqlite3.connect", unexpected)
    source = open_entry("filters: not understood", "where: {nothing: 1}", "chunks: neither", registry=ABSENT)

    assert "made/three" in repr(source)
    assert "made/three" in repr(pickle.loads(pickle.dumps(source)))
    assert source(version=3).npartitions == 0
    source.close()


@pytest.mark.parametrize(
    "use",
    [
        lambda source: source.to_dask(),
        lambda source: source.read(),
        lambda source: source.discover(),
        lambda source: source.read_partition(0),
        lambda source: list(source.read_chunked()),
    ],
    ids=["to_dask", "read", "discover", "read_partition", "read_chunked"],
)
def test_an_absent_registry_is_reported_on_use(open_entry: OpenEntry, use: Callable[[Any], object]) -> None:
    source = open_entry(registry=ABSENT)

    with pytest.raises(izc.RegistryUnavailableError, match=r"no registry at sqlite:////nowhere/at/all/registry\.db"):
        use(source)


def test_a_source_never_creates_a_registry(open_entry: OpenEntry, tmp_path: Path) -> None:
    source = open_entry(registry=f"sqlite:///{tmp_path}/another.db")

    with pytest.raises(izc.RegistryUnavailableError, match="create=True"):
        source.read()
    assert not (tmp_path / "another.db").exists()


def test_a_collection_that_does_not_exist_is_reported_with_near_names(collection: izc.Collection, url: str) -> None:
    source = intake.open_zcollection(url, "made/threee")

    with pytest.raises(izc.NotFoundError, match=r"no collection made/threee.*did you mean made/three"):
        source.to_dask()


def test_a_wrong_filter_is_reported_on_use(open_entry: OpenEntry) -> None:
    source = open_entry("filters: week == 1")

    with pytest.raises(izc.InvalidInputError, match="week"):
        source.read()


# Secrets


SECRET_URL = "postgresql://me:pass-word@db.example/registry"
OPTIONS = {
    "key": "AKIA-hidden",
    "secret": "hidden-secret",
    "client_kwargs": {"aws_session_token": "hidden-token"},
    "endpoint_url": "https://s3.example",
    "anon": False,
}


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(ZCollectionSource(SECRET_URL, "made/a", storage_options=OPTIONS), id="by position"),
        pytest.param(
            ZCollectionSource(registry=SECRET_URL, collection="made/a", storage_options=OPTIONS), id="by name"
        ),
    ],
)
@pytest.mark.parametrize("show", [repr, str, lambda s: s.yaml(), lambda s: repr(pickle.loads(pickle.dumps(s)))])
def test_passwords_and_secrets_are_not_shown(source: ZCollectionSource, show: Callable[[Any], str]) -> None:
    text = show(source)

    assert "pass-word" not in text
    assert "hidden" not in text
    assert "postgresql://me:***@db.example/registry" in text
    assert "endpoint_url: https://s3.example" in text
    assert "made/a" in text


def test_an_entrys_secrets_are_not_shown(open_entry: OpenEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZC_TEST_REGISTRY", SECRET_URL)
    monkeypatch.setenv("ZC_TEST_SECRET", "hidden-secret")

    source = open_entry(
        'storage_options: {secret: "{{ env(ZC_TEST_SECRET) }}", region: somewhere}',
        registry="{{ env(ZC_TEST_REGISTRY) }}",
    )

    for text in (repr(source), source.yaml(), str(source.describe()), repr(source(version=2))):
        assert "pass-word" not in text
        assert "hidden" not in text
    assert "region: somewhere" in repr(source)
    assert source.storage_options["secret"] == "hidden-secret"


def test_an_address_from_the_environment_is_shown_by_its_name(
    open_entry: OpenEntry, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZC_TEST_REGISTRY", url)
    source = open_entry(registry="env:ZC_TEST_REGISTRY")
    source.discover()

    assert "registry: env:ZC_TEST_REGISTRY" in source.yaml()
    assert url not in source.yaml()


def test_the_yaml_of_a_source_opens_the_same_data(
    open_entry: OpenEntry, open_catalog: Callable[[str], intake.Catalog]
) -> None:
    source = open_entry("filters: month == 2", "variables: [ice]")

    again = open_catalog(source.yaml())

    assert list(again) == ["grid"]
    xr.testing.assert_identical(again.grid.read(), source.read())
