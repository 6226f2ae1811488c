"""What cannot be accepted is refused by name, before anything of it becomes visible or stays in the storage."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
from tests.conftest import NewRegistry

from ..conftest import make_grid

Change = Callable[[xr.Dataset], xr.Dataset]
"""What is done to good data to make it bad."""

backed = pytest.mark.parametrize("chunks", [None, {"time": 7}], ids=["numpy", "dask"])


# The data: maps from January to March are stored, and those of April come


def april(chunks: Mapping[str, int] | None = None) -> xr.Dataset:
    """Maps that fit."""
    data = make_grid("2022-04-01", 30, seed=1)
    return data if chunks is None else data.chunk(chunks)


def with_value(name: str, value: Any, dtype: str | None = None) -> Change:
    """Put a value into the third row of a variable, which may have to change its dtype for it."""

    def change(data: xr.Dataset) -> xr.Dataset:
        variable = data.variables[name].copy(deep=True)
        values = variable.values.astype(dtype or variable.dtype)
        values[2] = value
        return data.assign({name: (variable.dims, values, variable.attrs)})

    return change


def with_dtype(name: str, dtype: Any) -> Change:
    return lambda data: data.assign({name: data.variables[name].astype(dtype)})


def make_profile(rows: int = 4, **variables: Any) -> xr.Dataset:
    """Daily values, with variables made to measure."""
    days = np.datetime64("2022-01-30", "ns") + np.arange(rows) * np.timedelta64(1, "D")
    return xr.Dataset(variables, {"time": ("time", days)})


def along_time(values: Any, **encoding: Any) -> xr.Variable:
    return xr.Variable("time", values, {}, encoding)


# What is the same before and after


def files_below(folder: str | Path) -> dict[str, bytes]:
    """All files, with their bytes, but for the registry's."""
    paths = (path for path in Path(folder).rglob("*") if path.is_file() and not path.name.startswith("registry.db"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def seen(registry: izc.Registry) -> list[Any]:
    """All that a reader of the registry sees."""
    return [(c, registry.versions(c.name), registry.partitions(c.name)) for c in registry.collections()]


@contextmanager
def refused(
    registry: izc.Registry, folder: str | Path, error: type[Exception], *parts: str
) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """See that a block raises an error whose message has some parts, and that nothing has changed by it."""
    collections, files = seen(registry), files_below(folder)
    with pytest.raises(error) as caught:
        yield caught
    for part in parts:
        assert part in str(caught.value)
    assert seen(registry) == collections
    assert files_below(folder) == files


def assert_insert_refused(
    collection: izc.Collection,
    data: Any,
    *parts: str,
    merge: str | None = "replace",
    error: type[Exception] = izc.InvalidInputError,
) -> None:
    """Insert, and see that it is refused; by default replacing, so that nothing else can be the reason."""
    with refused(collection._handle.registry, collection.location, error, *parts):
        collection.insert(data, merge=merge)


@pytest.fixture(scope="module")
def shared_registry(new_registry: NewRegistry) -> Iterator[izc.Registry]:
    with new_registry() as registry:
        yield registry


@pytest.fixture(scope="module")
def opened(shared_registry: izc.Registry) -> list[izc.Collection]:
    return []


@pytest.fixture
def shared(
    opened: list[izc.Collection], shared_registry: izc.Registry, tmp_path_factory: pytest.TempPathFactory
) -> izc.Collection:
    """The stored maps, at version 1; the same for all tests, as long as nothing changes them."""
    if not opened or opened[-1].version.number != 1:
        if opened:
            izc.drop_collection(shared_registry, "made/maps")
        place, by_month = tmp_path_factory.mktemp("shared") / "maps", izc.Date("time", "M")
        opened[:] = [
            izc.create_collection(
                shared_registry, "made/maps", make_grid(), axis="time", partitioning=by_month, location=str(place)
            )
        ]
        opened[-1].insert(make_grid())
    return opened[-1]


MakeCollection = Callable[..., izc.Collection]


# Names, dimensions and dtypes of what is inserted


def test_a_missing_variable_is_refused(shared: izc.Collection) -> None:
    assert_insert_refused(shared, april().drop_vars("ice"), "lacks ice", "made/maps")


def test_all_missing_variables_are_named(shared: izc.Collection) -> None:
    assert_insert_refused(shared, april().drop_vars(["ice", "quality"]), "ice", "quality")


def test_a_missing_axis_is_refused(shared: izc.Collection) -> None:
    assert_insert_refused(shared, april().drop_vars("time"), "lacks time")


def test_an_unknown_variable_is_refused_and_a_near_match_suggested(shared: izc.Collection) -> None:
    data = april()
    assert_insert_refused(shared, data.assign(sts=data.sst), "no variable sts", "did you mean sst?", "drop_vars")


def test_an_unknown_coordinate_is_refused(shared: izc.Collection) -> None:
    assert_insert_refused(shared, april().assign_coords(depth=5.0), "no variable depth", "made/maps")


@backed
@pytest.mark.parametrize(
    ("name", "dtype", "given"),
    [
        ("ice", "f8", "float64"),
        ("ice", "i4", "int32"),
        ("count", "i8", "int64"),
        ("count", "u4", "uint32"),
        ("count", "f4", "float32"),
        ("count", "m8[s]", "timedelta64[s]"),
        ("sst", "c16", "complex128"),
        ("sst", "M8[ns]", "datetime64[ns]"),
        ("time", "i8", "int64"),
        ("count", "U", "<U"),
        ("lat", "f8", "float64"),
    ],
)
def test_a_dtype_that_would_lose_values_is_refused(
    shared: izc.Collection, name: str, dtype: str, given: str, chunks: Mapping[str, int] | None
) -> None:
    data = with_dtype(name, dtype)(april(chunks))
    stored = str(shared.schema.variables[name].dtype)
    assert_insert_refused(shared, data, f"variable {name}", "made/maps", stored, given, f"data[{name!r}].astype(")


def test_python_objects_are_refused(shared: izc.Collection) -> None:
    assert_insert_refused(shared, with_dtype("count", object)(april()), "variable count", "int32", "Python objects")


def test_dates_of_another_calendar_are_refused_with_the_way_to_convert_them(shared: izc.Collection) -> None:
    data = april().convert_calendar("noleap", use_cftime=True)
    assert_insert_refused(shared, data, "variable time (noleap)", "datetime64", "cftime", "convert_calendar('standard'")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda data: data.transpose("time", "lon", "lat", ...), ("('time', 'lat', 'lon')", "('time', 'lon', 'lat')")),
        (lambda data: data.transpose("lat", "lon", "time", ...), ("('time', 'lat', 'lon')", "('lat', 'lon', 'time')")),
        (lambda data: data.drop_vars("lat").rename_dims(lat="y"), ("('time', 'lat', 'lon')", "('time', 'y', 'lon')")),
        (lambda data: data.assign(count=data["count"].expand_dims("n")), ("variable count", "('n', 'time')")),
        (lambda data: data.assign(crs=("time", np.zeros(30, "i4"))), ("variable crs", "()", "('time',)")),
        (lambda data: data.swap_dims(time="t"), ("('time',", "('t',")),
        (
            lambda data: data.drop_vars("time").rename_dims(time="t").assign_coords(time=data.time[0]),
            ("axis time", "()"),
        ),
        (lambda data: data.isel(time=0), ("axis time", "()", "data.expand_dims('time')")),
    ],
    ids=["swapped", "split_last", "renamed", "one_more", "immutable_split", "split_renamed", "axis_scalar", "one_row"],
)
def test_other_dimensions_are_refused(shared: izc.Collection, change: Change, parts: tuple[str, ...]) -> None:
    assert_insert_refused(shared, change(april()), "made/maps", "has dimensions", *parts)


@backed
def test_another_size_of_another_dimension_is_refused(shared: izc.Collection, chunks: Mapping[str, int] | None) -> None:
    data = april(chunks).isel(lat=[0, 1]).drop_vars("lat")
    assert_insert_refused(shared, data, "made/maps", "size 3 along 'lat'", "the dataset's 2")


def test_an_empty_dataset_is_refused(shared: izc.Collection) -> None:
    assert_insert_refused(shared, april().isel(time=slice(0)), "empty", "no rows along 'time'", "made/maps")


@pytest.mark.parametrize("data", [None, {"sst": 1}, april().sst, b"sst.nc"], ids=["None", "dict", "DataArray", "bytes"])
def test_what_is_not_a_dataset_is_refused(shared: izc.Collection, data: Any) -> None:
    assert_insert_refused(shared, data, "made/maps", "xarray.Dataset", type(data).__name__)


# Values


@backed
def test_a_missing_time_is_refused_with_its_row(shared: izc.Collection, chunks: Mapping[str, int] | None) -> None:
    data = with_value("time", np.datetime64("NaT", "ns"))(april()).chunk(chunks or {})
    assert_insert_refused(shared, data if chunks else data.compute(), "axis time", "NaT in row 2", "1 of 30 rows")


@backed
def test_a_missing_date_of_partitioning_is_refused_with_its_row(
    make_collection: MakeCollection, chunks: Mapping[str, int] | None
) -> None:
    data = make_profile(day=along_time(np.arange("2022-03-01", "2022-03-05", dtype="M8[D]").astype("M8[ns]")))
    collection = make_collection(data, partitioning=izc.Date("day", "M"))
    bad = with_value("day", np.datetime64("NaT", "ns"))(data)
    assert_insert_refused(collection, bad if chunks is None else bad.chunk(chunks), "variable day", "row 2 is NaT")


@backed
@pytest.mark.parametrize(
    ("units", "dtype", "offset"),
    [
        ("days since 2000-01-01", "int64", np.timedelta64(1, "h")),
        ("hours since 2000-01-01", "int32", np.timedelta64(1, "ns")),
        ("seconds since 2000-01-01", "int32", np.timedelta64(36_500, "D")),
        ("days since 2022-01-01", "uint8", np.timedelta64(-60, "D")),
    ],
    ids=["finer", "much_finer", "too_late", "too_early"],
)
def test_times_that_the_units_cannot_hold_are_refused(
    make_collection: MakeCollection,
    units: str,
    dtype: str,
    offset: np.timedelta64,
    chunks: Mapping[str, int] | None,
) -> None:
    template = make_profile(ssh=along_time(np.arange(4.0)))
    template.time.encoding.update(units=units, dtype=dtype)
    collection = make_collection(template)
    data = template.assign_coords(time=template.time + offset)
    first = str(data.time.values[0])
    assert_insert_refused(
        collection, data if chunks is None else data.chunk(chunks), "variable time", first, dtype, units, "template"
    )


@backed
@pytest.mark.parametrize("name", ["time", "time_bnds"])
@pytest.mark.parametrize("date", ["3000-01-01", "1500-06-01"])
def test_dates_that_nanoseconds_cannot_count_are_refused(
    shared: izc.Collection, name: str, date: str, chunks: Mapping[str, int] | None
) -> None:
    data = with_value(name, np.datetime64(date, "s"), "M8[s]")(april())
    assert_insert_refused(shared, data if chunks is None else data.chunk(chunks), f"{name}", date)


@backed
def test_dates_of_partitioning_that_nanoseconds_cannot_count_are_refused(
    make_collection: MakeCollection, chunks: Mapping[str, int] | None
) -> None:
    data = make_profile(day=along_time(np.arange("2022-03-01", "2022-03-05", dtype="M8[D]").astype("M8[ns]")))
    collection = make_collection(data, partitioning=izc.Date("day", "M"))
    bad = with_value("day", np.datetime64("3000-01-01", "s"), "M8[s]")(data)
    assert_insert_refused(collection, bad if chunks is None else bad.chunk(chunks), "variable day", "3000-01-01")


def test_an_axis_beyond_64_bits_is_refused(make_collection: MakeCollection) -> None:
    data = make_profile().assign_coords(orbit=along_time(np.arange(4, dtype="u8")))
    collection = make_collection(data, axis="orbit")
    assert_insert_refused(collection, with_value("orbit", 2**63)(data), "axis orbit", str(2**63), "2**63 - 1")


@backed
@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (1e6, ("1000000.0", "outside the range", "int16", "-47.68 to 607.67")),
        (-1e6, ("-1000000.0", "outside the range")),
        (np.inf, ("inf", "outside the range")),
        (280 - 327.68, ("-47.68", "stored as -32768, the fill value", "would read as missing")),
    ],
    ids=["above", "below", "infinite", "fill_value"],
)
def test_values_that_the_packing_cannot_hold_are_refused(
    shared: izc.Collection, value: float, parts: tuple[str, ...], chunks: Mapping[str, int] | None
) -> None:
    data = with_value("sst", value)(april())
    assert_insert_refused(shared, data if chunks is None else data.chunk(chunks), "variable sst", *parts)


@backed
@pytest.mark.parametrize(
    ("encoding", "value", "parts"),
    [
        ({"dtype": "int16", "scale_factor": 0.5}, np.nan, ("1 of 4 values", "NaN", "no _FillValue")),
        ({"_FillValue": -9.0}, -9.0, ("1 of 4 values", "-9.0", "the fill value", "would read as missing")),
        ({"missing_value": -9.0}, -9.0, ("1 of 4 values", "-9.0", "would read as missing")),
    ],
    ids=["nan_without_fill_value", "fill_value", "missing_value"],
)
def test_values_that_would_read_as_others_are_refused(
    make_collection: MakeCollection,
    encoding: dict[str, Any],
    value: float,
    parts: tuple[str, ...],
    chunks: Mapping[str, int] | None,
) -> None:
    data = make_profile(ssh=along_time(np.arange(4.0), **encoding))
    bad = with_value("ssh", value)(data)
    assert_insert_refused(make_collection(data), bad if chunks is None else bad.chunk(chunks), "variable ssh", *parts)


@backed
def test_integers_that_are_stored_as_a_fill_value_are_refused(
    make_collection: MakeCollection, chunks: Mapping[str, int] | None
) -> None:
    data = make_profile(count=along_time(np.arange(4, dtype="i4"), _FillValue=np.int32(-9)))
    bad = with_value("count", -9)(data)
    assert_insert_refused(
        make_collection(data), bad if chunks is None else bad.chunk(chunks), "variable count", "-9", "the fill value"
    )


@backed
def test_integers_that_floats_cannot_hold_are_refused(
    make_collection: MakeCollection, chunks: Mapping[str, int] | None
) -> None:
    data = make_profile(count=along_time(np.arange(4.0)))
    bad = with_value("count", 2**53 + 1, "i8")(data)
    assert_insert_refused(
        make_collection(data), bad if chunks is None else bad.chunk(chunks), "variable count", str(2**53 + 1), "float64"
    )


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", None])
def test_a_bad_value_in_the_last_block_of_many_leaves_nothing_of_the_others(
    shared: izc.Collection, scheduler: str | None
) -> None:
    data = make_grid("2022-04-01", 150, seed=1)
    data.sst[-1, -1, -1] = 1e6
    with refused(shared._handle.registry, shared.location, izc.InvalidInputError, "variable sst", "1000000.0"):
        shared.insert(data.chunk(time=7), merge="replace", scheduler=scheduler)


# Occupied partitions, immutable variables, read-only objects


def test_an_occupied_partition_is_refused_with_its_key_its_rows_and_the_remedy(shared: izc.Collection) -> None:
    assert_insert_refused(
        shared,
        make_grid("2022-03-20", 30),
        "made/maps",
        "year=2022/month=03 (31 rows)",
        "merge='append', 'keep', 'replace'",
        merge="refuse",
        error=izc.AlreadyExistsError,
    )


def test_rows_that_are_there_are_refused_with_their_partition_their_axis_values_and_the_remedies(
    shared: izc.Collection,
) -> None:
    assert_insert_refused(
        shared,
        make_grid("2022-03-20", 30),
        "made/maps",
        "year=2022/month=03 (12 values, from 2022-03-20T00:00:00.000000000 to 2022-03-31T00:00:00.000000000)",
        "merge='keep'",
        "'upsert'",
        merge=None,
        error=izc.AlreadyExistsError,
    )


def test_a_message_that_is_no_text_is_refused(shared: izc.Collection) -> None:
    with refused(shared._handle.registry, shared.location, izc.InvalidInputError, "message", "None"):
        shared.insert(april(), message=None)  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize("merge", ["add", "Replace", 5])
def test_a_merge_that_does_not_exist_is_refused(shared: izc.Collection, merge: Any) -> None:
    assert_insert_refused(shared, april(), f"merge={merge!r}", "'refuse', 'replace'", merge=merge)


@backed
@pytest.mark.parametrize(
    ("name", "change", "count"),
    [
        ("crs", lambda data: data.assign(crs=((), np.int32(7), data.crs.attrs)), "1 of 1"),
        ("lat", lambda data: data.assign_coords(lat=data.lat + np.float32(1)), "3 of 3"),
        ("lon", lambda data: data.assign_coords(lon=data.lon.where(data.lon > 0)), "1 of 4"),
    ],
    ids=["crs", "lat", "nan"],
)
def test_immutable_variables_with_other_values_are_refused(
    shared: izc.Collection, name: str, change: Change, count: str, chunks: Mapping[str, int] | None
) -> None:
    data = change(april(chunks))
    assert_insert_refused(shared, data, f"immutable variable {name}", "made/maps", f"{count} differ", "drop_vars")


def test_immutable_variables_that_do_not_come_together_are_refused(make_collection: MakeCollection) -> None:
    collection = make_collection(make_grid())
    assert_insert_refused(collection, make_grid().drop_vars(["crs", "lon"]), "immutable", "together", "crs", "lon")


@pytest.mark.parametrize("version", [0, 1])
def test_a_collection_at_a_version_takes_no_insert(shared: izc.Collection, version: int) -> None:
    parts = f"made/maps is open at version {version}", "open_collection(registry, name)"
    assert_insert_refused(shared.at(version=version), april(), *parts, error=izc.ReadOnlyError)
    opened = izc.open_collection(shared._handle.registry, "made/maps", version=version)
    assert_insert_refused(opened, april(), *parts, error=izc.ReadOnlyError)


# Creating


def assert_creation_refused(
    registry: izc.Registry,
    folder: Path,
    error: type[Exception],
    *parts: str,
    template: Any = None,
    name: Any = "made/new",
    **options: Any,
) -> None:
    """Create a collection below a folder, and see that it is refused."""
    defaults: dict[str, Any] = {"axis": "time", "partitioning": izc.Date("time", "M"), "location": f"{folder}/new"}
    template = make_grid(days=5) if template is None else template
    with refused(registry, folder, error, *parts):
        izc.create_collection(registry, name, template, **(defaults | options))


@pytest.mark.parametrize(
    ("axis", "parts"),
    [
        ("tiem", ("axis tiem is not in the template", "time")),
        ("sst", ("axis sst", "('time', 'lat', 'lon')", "exactly one")),
        ("crs", ("axis crs", "()", "exactly one")),
        ("lon", ("axis lon is float64", "datetime64 or integers")),
        ("flag", ("axis flag is bool", "datetime64 or integers")),
        ("age", ("axis age is timedelta64[ns]", "datetime64 or integers")),
    ],
)
def test_a_bad_axis_is_refused(registry: izc.Registry, tmp_path: Path, axis: str, parts: tuple[str, ...]) -> None:
    template = make_grid(days=5).assign(flag=("time", np.zeros(5, bool)), age=("time", np.zeros(5, "m8[ns]")))
    assert_creation_refused(registry, tmp_path, izc.InvalidInputError, *parts, template=template, axis=axis)


@pytest.mark.parametrize(
    ("variable", "parts"),
    [
        ("tiem", ("partitioning variable tiem is not in the template",)),
        ("count", ("Date('count')", "datetime64", "count is int32")),
        ("time_bnds", ("partitioning variable time_bnds", "('time', 'bnds')", "('time',)")),
        ("lat", ("partitioning variable lat", "('lat',)", "('time',)")),
    ],
)
def test_a_bad_partitioning_variable_is_refused(
    registry: izc.Registry, tmp_path: Path, variable: str, parts: tuple[str, ...]
) -> None:
    partitioning = izc.Date(variable, "M")
    assert_creation_refused(registry, tmp_path, izc.InvalidInputError, *parts, partitioning=partitioning)


@pytest.mark.parametrize("partitioning", [None, "M", izc.Date])
def test_what_is_no_partitioning_is_refused(registry: izc.Registry, tmp_path: Path, partitioning: Any) -> None:
    parts = "partitioning", repr(partitioning)
    assert_creation_refused(registry, tmp_path, izc.InvalidInputError, *parts, partitioning=partitioning)


def test_a_description_that_is_no_text_is_refused(registry: izc.Registry, tmp_path: Path) -> None:
    assert_creation_refused(registry, tmp_path, izc.InvalidInputError, "description", "None", description=None)


def test_an_empty_location_is_refused(registry: izc.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_creation_refused(registry, tmp_path, izc.InvalidInputError, "location", "''", location="")


@pytest.mark.parametrize("resolution", ["W", "y", "month", None])
def test_a_bad_resolution_is_refused(resolution: Any) -> None:
    with pytest.raises(izc.InvalidInputError, match=f"{resolution!r} is not one of 'Y', 'M', 'D', 'h', 'm', 's'"):
        izc.Date("time", resolution)


@pytest.mark.parametrize("zarr_format", [1, 4, "3", None])
def test_a_bad_zarr_format_is_refused(registry: izc.Registry, tmp_path: Path, zarr_format: Any) -> None:
    parts = f"zarr_format is {zarr_format!r}", "2 and 3"
    assert_creation_refused(registry, tmp_path, izc.InvalidInputError, *parts, zarr_format=zarr_format)


@pytest.mark.parametrize("merge", ["add", "", None, max])
def test_a_bad_default_merge_is_refused(registry: izc.Registry, tmp_path: Path, merge: Any) -> None:
    parts = f"merge={merge!r}", "'refuse', 'replace'"
    assert_creation_refused(registry, tmp_path, izc.InvalidInputError, *parts, merge=merge)


@pytest.mark.parametrize(
    "name", ["new", "made/new/er", "Made/new", "made/New", "/new", "made/", "1made/new", "made/n-w", "", "made/n\n", 5]
)
def test_a_bad_name_is_refused(registry: izc.Registry, tmp_path: Path, name: Any) -> None:
    parts = repr(name), "namespace/name", "lower-case"
    assert_creation_refused(registry, tmp_path, izc.InvalidInputError, *parts, name=name)
    with refused(registry, tmp_path, izc.InvalidInputError, *parts):
        izc.open_collection(registry, name)


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        (make_grid(days=5).sst, ("template", "DataArray", "xarray.Dataset")),
        (make_grid(days=5).assign(who=("time", np.zeros(5, "V2"))), ("variable who", "V2", "numbers")),
        (make_grid(days=5).assign(who=("time", np.full(5, None))), ("variable who", "object", "numbers")),
        (make_grid(days=5).rename(sst="sea/sst"), ("variable name 'sea/sst'", "'/'")),
        (make_grid(days=5).assign_attrs(made_by=object()), ("attribute 'made_by'", "object", "JSON")),
    ],
    ids=["DataArray", "raw", "objects", "slash", "attribute"],
)
def test_a_template_that_cannot_be_stored_is_refused(
    registry: izc.Registry, tmp_path: Path, template: Any, parts: tuple[str, ...]
) -> None:
    assert_creation_refused(registry, tmp_path, izc.InvalidInputError, *parts, template=template)


def test_dates_of_another_calendar_make_no_axis(registry: izc.Registry, tmp_path: Path) -> None:
    template = make_grid(days=5).convert_calendar("noleap", use_cftime=True)
    assert_creation_refused(
        registry, tmp_path, izc.InvalidInputError, "variable time (noleap)", "calendar", "datetime64", template=template
    )


def test_a_name_that_exists_is_refused(registry: izc.Registry, make_collection: MakeCollection, tmp_path: Path) -> None:
    name = make_collection(make_grid(days=5)).name
    parts = f"collection {name} already", "open it, or choose another name"
    assert_creation_refused(registry, tmp_path, izc.AlreadyExistsError, *parts, name=name)


@pytest.mark.parametrize(
    "place",
    ["{}", "{}/", "{}/../c0", "file://{}", "local://{}", "{}/inside", "{}/year=2022/month=01", "{}/.."],
)
def test_a_location_in_use_or_inside_or_around_one_is_refused(
    registry: izc.Registry, make_collection: MakeCollection, tmp_path: Path, place: str
) -> None:
    collection = make_collection(make_grid(days=5))
    parts = collection.location, f"belongs to collection {collection.name}"
    location = place.format(collection.location)
    assert_creation_refused(registry, tmp_path, izc.AlreadyExistsError, *parts, location=location)


def test_a_link_to_a_location_in_use_is_refused(
    registry: izc.Registry, make_collection: MakeCollection, tmp_path: Path
) -> None:
    collection = make_collection(make_grid(days=5))
    (tmp_path / "link").symlink_to(collection.location)
    parts = "link", f"belongs to collection {collection.name}"
    assert_creation_refused(registry, tmp_path, izc.AlreadyExistsError, *parts, location=f"{tmp_path}/link")


def test_a_location_that_begins_like_another_is_free(make_collection: MakeCollection) -> None:
    first = make_collection(make_grid(days=5))
    assert make_collection(make_grid(days=5), location=f"{first.location}_2").location == f"{first.location}_2"


def test_a_location_of_another_registry_is_refused(
    make_collection: MakeCollection, new_registry: NewRegistry, tmp_path: Path
) -> None:
    collection = make_collection(make_grid(days=5))
    with new_registry() as other:
        parts = collection.location, f"belongs to collection {collection.name}", "another registry", ".zcollection"
        assert_creation_refused(other, tmp_path, izc.AlreadyExistsError, *parts, location=collection.location)


def test_a_location_whose_marker_is_not_understood_is_refused(registry: izc.Registry, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".zcollection").write_text("{")
    assert_creation_refused(registry, tmp_path, izc.AlreadyExistsError, f"{tmp_path}/new", "delete .zcollection")


@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below"])
def test_a_location_that_cannot_be_written_is_refused(registry: izc.Registry, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    location = f"{tmp_path}/{place}"
    parts = f"location {location} cannot be written", "directory" if place != "file" else "exists"
    assert_creation_refused(registry, tmp_path, izc.StorageUnavailableError, *parts, location=location)


def test_a_location_that_fsspec_does_not_understand_is_refused(registry: izc.Registry, tmp_path: Path) -> None:
    parts = "madeup://data", "cannot be opened", "madeup"
    assert_creation_refused(registry, tmp_path, izc.InvalidInputError, *parts, location="madeup://data")


# Opening


def test_a_missing_collection_is_named_with_near_matches(shared: izc.Collection) -> None:
    with pytest.raises(izc.NotFoundError, match=r"no collection made/mapps .* did you mean made/maps"):
        izc.open_collection(shared._handle.registry, "made/mapps")


def test_a_missing_collection_without_near_matches_is_named(shared: izc.Collection) -> None:
    with pytest.raises(izc.NotFoundError, match=r"no collection altimetry/ssh .* 1 collection"):
        izc.open_collection(shared._handle.registry, "altimetry/ssh")


def test_a_missing_registry_is_not_created_by_opening(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/none.db"
    missing = re.escape(f"no registry at {url}") + ".*create=True"
    with pytest.raises(izc.RegistryUnavailableError, match=missing):
        izc.connect(url)
    with pytest.raises(izc.RegistryUnavailableError, match=missing):
        izc.open_collection(url, "made/maps")
    with pytest.raises(izc.RegistryUnavailableError, match=missing):
        izc.open_dataset(url, "made/maps")
    with pytest.raises(izc.RegistryUnavailableError, match=missing):
        izc.create_collection(
            url,
            "made/maps",
            make_grid(days=5),
            axis="time",
            partitioning=izc.Date("time", "M"),
            location=f"{tmp_path}/maps",
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["registry.db", "mysql://host/db", "sqlite://", "env:NOT_SET_ANYWHERE"])
def test_a_url_that_is_no_registrys_is_refused(url: str) -> None:
    with pytest.raises(izc.InvalidInputError, match="registry"):
        izc.open_collection(url, "made/maps")


@pytest.mark.parametrize("version", [2, 99, -1])
def test_a_version_that_does_not_exist_is_named_with_those_that_do(shared: izc.Collection, version: int) -> None:
    missing = f"made/maps has no version {version}: it has versions 0 to 1"
    with pytest.raises(izc.NotFoundError, match=missing):
        shared.at(version=version)
    with pytest.raises(izc.NotFoundError, match=missing):
        izc.open_collection(shared._handle.registry, "made/maps", version=version)
    with pytest.raises(izc.NotFoundError, match=missing):
        izc.open_dataset(shared._handle.registry, "made/maps", version=version)


@pytest.mark.parametrize("version", ["newest", 1.5, [1], float("nan"), b"x"])
def test_a_version_that_is_no_number_is_refused(shared: izc.Collection, version: Any) -> None:
    with pytest.raises(izc.InvalidInputError, match=f"version.*{re.escape(repr(version))}"):
        shared.at(version=version)
    with pytest.raises(izc.InvalidInputError, match=f"version.*{re.escape(repr(version))}"):
        izc.open_collection(shared._handle.registry, "made/maps", version=version)


# Loading


def assert_load_refused(collection: izc.Collection, *parts: str, **selection: Any) -> None:
    for load in (collection.load, collection.at(version=1).load):
        with refused(collection._handle.registry, collection.location, izc.InvalidInputError, *parts):
            load(**selection)


@pytest.mark.parametrize(
    ("filters", "problem"),
    [
        ("", "it is empty"),
        ("year = 2022", "instead of '=' use '=='"),
        ("yaer == 2022", "no key 'yaer', did you mean year"),
        ("time > 5", "no key 'time'"),
        ("year", "compare it"),
        ("year == 2022 and", "it ends early"),
        ("year == '2022'", "not part of the language"),
        ("__import__('os')", "no key '__import__'"),
        (2022, "write text"),
        (True, "write text"),
        ({"yaer": 2022}, "not partitioned by yaer"),
        ({"year": "2022"}, "no integer"),
    ],
    ids=str,
)
def test_a_bad_filter_is_refused(shared: izc.Collection, filters: Any, problem: str) -> None:
    assert_load_refused(shared, "filter", str(filters), problem, filters=filters)
    with refused(shared._handle.registry, shared.location, izc.InvalidInputError, "filter", str(filters), problem):
        shared.partitions(filters=filters)


@pytest.mark.parametrize(
    ("where", "parts"),
    [
        ({"lat": (0, 1)}, ("variable lat", "stored once", "isel")),
        ({"sst": ("2022", None), "time": ("2022", None)}, ("'2022' on sst", "not a number")),
        ({"time": ("2022-02", "2022-01")}, ("lower bound first",)),
        ({"time": "2022-01"}, ("'2022-01'", "pair (low, high)")),
        ({"time": ("2022-01",)}, ("('2022-01',)", "pair (low, high)")),
        ({"time": ("2022", "2023", "2024")}, ("pair (low, high)",)),
        ({"time": (5, None)}, ("bound 5 on time", "datetime64[ns]", "a date")),
        ({"time": (None, np.int64(5))}, ("5", "on time", "a date")),
        ({"time": (1.5, None)}, ("1.5", "on time")),
        ({"time": (True, None)}, ("True", "on time")),
        ({"time": (np.timedelta64(1, "D"), None)}, ("timedelta64", "on time")),
        ({"time": ("soon", None)}, ("'soon'", "not a date", "2022-03-31")),
        ({"time": ("2022-13", None)}, ("'2022-13'", "not a date")),
        ({"time": ("now", None)}, ("'now'", "not a date")),
        ({"time": ("2022-01-01T00:00Z", None)}, ("'2022-01-01T00:00Z'", "not a date")),
        (["time"], ("where=['time']", "{'time': (low, high)}")),
        ({"time": (np.datetime64("NaT", "ns"), None)}, ("NaT", "on time")),
        ({"time": ("3000", None)}, ("3000", "1678 to 2262")),
        ({"time": (None, "1500-01-01")}, ("1500-01-01", "1678 to 2262")),
    ],
)
def test_bad_bounds_are_refused(shared: izc.Collection, where: Any, parts: tuple[str, ...]) -> None:
    assert_load_refused(shared, *parts, where=where)
    with refused(shared._handle.registry, shared.location, izc.InvalidInputError, *parts):
        shared.partitions(where=where)


@pytest.mark.parametrize(
    ("bound", "parts"),
    [
        ("2022", ("'2022'", "int64", "an integer")),
        (np.datetime64("2022-01-01"), ("2022-01-01", "an integer")),
        (1.0, ("1.0", "on orbit")),
        (2**63, (str(2**63), "on orbit")),
    ],
)
def test_bad_bounds_on_an_axis_of_integers_are_refused(
    make_collection: MakeCollection, bound: Any, parts: tuple[str, ...]
) -> None:
    data = make_profile().assign_coords(orbit=along_time(np.arange(4)))
    collection = make_collection(data, axis="orbit")
    collection.insert(data)
    assert_load_refused(collection, *parts, where={"orbit": (bound, None)})
    assert_load_refused(collection, *parts, where={"orbit": (None, bound)})


@pytest.mark.parametrize(
    ("variables", "missing"),
    [(["sts"], "sts at version 1; did you mean sst"), (["sst", "depth"], "depth at version 1; it has"), ([5], "5 ")],
)
def test_a_variable_that_does_not_exist_is_named_with_near_matches(
    shared: izc.Collection, variables: Any, missing: str
) -> None:
    with pytest.raises(izc.NotFoundError, match=f"made/maps has no variable {missing}"):
        shared.load(variables=variables)


@pytest.mark.parametrize(
    "chunks",
    ["automatic", 1.5, ["time"], 0, -2, {"time": 0}, {"time": -2}, {"time": 2.5}, {"time": (1, 2)}, {"time": "many"}],
    ids=repr,
)
def test_bad_chunks_are_refused(shared: izc.Collection, chunks: Any) -> None:
    assert_load_refused(shared, "chunks", chunks=chunks)


def test_chunks_along_a_dimension_that_does_not_exist_are_refused(shared: izc.Collection) -> None:
    assert_load_refused(shared, "chunks", "'tiem'", chunks={"tiem": 5})
