"""Damage of every kind is found, named, and left as it is; what is whole is said to be whole."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
from intake_zcollection.storage.write import write_fragment
from tests.conftest import NewRegistry, both_formats, make_grid
from tests.counting import DELETIONS, LISTINGS, READS, WRITES, counted_location, paths_of, requests_to

Make = Callable[..., izc.Collection]


def make_data(**encoding: Any) -> xr.Dataset:
    """The grid, with a time stored in days, and what encoding is asked for all numbers."""
    data = make_grid()
    data["seen"] = ("time", data.time.values, {}, {"units": "days since 2000-01-01", "dtype": "int64"})
    data["name"] = ("time", np.array([f"day {i}" for i in range(90)], object))
    for name in ("sst", "ice", "count", "seen"):
        data[name].encoding |= encoding
    return data


def fill(collection: izc.Collection) -> izc.Collection:
    """January to March: a layer of ice in February, a variable renamed, one added without values."""
    collection.insert(make_data())
    collection.update(lambda d: {"ice": d.ice * 2}, filters="month == 2")
    collection.rename_variable("count", "observations")
    collection.add_variable(izc.Variable("later", "f8", ("time",)))
    collection.set_attributes({"units": "kelvin"}, "sst")
    return collection


@pytest.fixture
def changing(make_collection: Make, one_format: int) -> izc.Collection:
    """A collection, still whole, for tests that damage it and write to it."""
    return fill(make_collection(make_data(), zarr_format=one_format))


@pytest.fixture(scope="module")
def whole(new_registry: NewRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, izc.Collection]]:
    """A collection per format, with a copy of its files beside it."""
    folder = tmp_path_factory.mktemp("whole")
    with new_registry() as registry:
        made = {}
        for number in (3, 2):
            name = f"made/zarr{number}"
            options: dict[str, Any] = {"axis": "time", "partitioning": izc.Date("time", "M"), "zarr_format": number}
            location = f"{folder}/{name}"
            made[number] = fill(izc.create_collection(registry, name, make_data(), location=location, **options))
            shutil.copytree(location, f"{location}.copy")
        yield made


@pytest.fixture
def damaged(whole: dict[int, izc.Collection], zarr_format: int) -> Iterator[izc.Collection]:
    """The same collection for all tests, still whole: they damage its files and write nothing to it."""
    collection = whole[zarr_format]
    shutil.rmtree(collection.location, ignore_errors=True)
    shutil.copytree(f"{collection.location}.copy", collection.location)
    versions = collection.versions()
    yield collection
    assert collection.versions() == versions


def fragment_of(collection: izc.Collection, month: int, variable: str) -> Path:
    (partition,) = collection.partitions(filters=f"month == {month}")
    return Path(collection.location) / partition.fragments[variable][0]


def chunk_of(collection: izc.Collection, month: int, variable: str, stored: str | None = None) -> Path:
    folder = fragment_of(collection, month, variable) / (stored or variable)
    return min(path for path in folder.iterdir() if "json" not in path.name and not path.name.startswith("."))


def immutable_fragment(collection: izc.Collection) -> Path:
    (fragment,) = (Path(collection.location) / "immutable").iterdir()
    return fragment


def files_of(collection: izc.Collection) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(collection.location).rglob("*") if path.is_file()}


def found_in(collection: izc.Collection, **options: Any) -> izc.Report:
    """Validate; see that nothing is changed by it, and that problems mean not ok."""
    files, versions = files_of(collection), collection.versions()
    report = collection.validate(**options)
    assert (files_of(collection), collection.versions()) == (files, versions)
    assert report.ok == (not report.problems)
    assert all(str(problem) in str(report) for problem in report.problems)
    return report


# Whole


@both_formats
def test_a_whole_collection_is_ok_at_every_version(changing: izc.Collection) -> None:
    changing.drop_partitions(filters="month == 3")
    changing.drop_variable("quality")
    for version in changing.versions():
        report = found_in(changing.at(version=version))
        assert report.ok, str(report)
        assert (report.collection, report.version) == (changing.name, version.number)
        assert report.partitions == len(changing.at(version=version).partitions())
    assert "nothing wrong" in str(found_in(changing))


@pytest.mark.parametrize(
    ("scheduler", "zarr_format"),  # processes take seconds to start, and are the same for both formats
    [("threads", 3), ("threads", 2), ("synchronous", 3), ("synchronous", 2), ("processes", 3)],
)
def test_every_chunk_is_read_once_or_none_is(make_collection: Make, damaged: izc.Collection, scheduler: str) -> None:
    report = found_in(damaged, scheduler=scheduler)
    assert report.chunks == 3 * 8 + 3
    assert found_in(damaged, data=False, scheduler=scheduler).chunks == 0
    assert found_in(damaged, filters="month == 2").partitions == 1


def test_it_only_reads(make_collection: Make) -> None:
    with counted_location() as location:
        collection = make_collection(make_grid(), location=location)
        collection.insert(make_grid())
        with requests_to(location) as requests:
            assert collection.validate().ok
        assert paths_of(requests, WRITES | DELETIONS | LISTINGS) == []
        with requests_to(location) as requests:
            assert collection.validate(data=False).ok
        assert not [path for path in paths_of(requests, READS) if path.rpartition("/")[2].startswith("c")]


# Damage


def overwrite(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


CHUNK_DAMAGE: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    "empty": overwrite(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "cut to a header": lambda path: path.write_bytes(path.read_bytes()[:16]),
    "garbage": overwrite(b"\x00\xffgarbage" * 9),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", CHUNK_DAMAGE)
@pytest.mark.parametrize(
    ("zarr_format", "month", "variable", "stored"),
    [
        *((3, 1, "sst", None), (3, 3, "observations", "count"), (3, 2, "ice", None), (3, 1, "name", None)),
        *((2, 3, "observations", "count"), (2, 2, "ice", None)),
    ],
)
def test_a_damaged_chunk_is_found(
    damaged: izc.Collection, month: int, variable: str, stored: str | None, damage: str
) -> None:
    chunk = chunk_of(damaged, month, variable, stored)
    CHUNK_DAMAGE[damage](chunk)
    (problem,) = found_in(damaged).problems
    assert (problem.partition, problem.variable) == (f"year=2022/month={month:02}", variable)
    assert str(chunk.relative_to(damaged.location)).startswith(problem.path)
    assert found_in(damaged, data=False).ok
    assert found_in(damaged, filters=f"month != {month}").ok
    assert damaged.at(version=0).validate().ok


@pytest.mark.parametrize("compressor", ["zlib", "zstd", "none"])
@pytest.mark.parametrize("damage", [damage for damage in CHUNK_DAMAGE if damage not in ("longer", "a directory")])
def test_it_is_found_with_other_codecs(make_collection: Make, compressor: str, damage: str) -> None:
    import numcodecs

    codec = {"zlib": numcodecs.Zlib(1), "zstd": numcodecs.Zstd(1), "none": None}[compressor]
    data = make_data(compressors=None if codec is None else (codec,))
    collection = make_collection(data, zarr_format=2)
    collection.insert(data)
    CHUNK_DAMAGE[damage](chunk_of(collection, 1, "sst"))
    assert [problem.variable for problem in found_in(collection).problems] == ["sst"]


def test_values_that_do_not_decode_are_found(make_collection: Make, zarr_format: int) -> None:
    data = make_data(compressors=None)
    collection = make_collection(data, zarr_format=zarr_format)
    collection.insert(data)
    chunk = chunk_of(collection, 2, "seen")
    chunk.write_bytes(np.full(len(chunk.read_bytes()) // 8, 2**62).tobytes())
    assert [problem.variable for problem in found_in(collection).problems] == ["seen"]
    with pytest.raises(izc.CorruptedDataError):
        collection.load().seen.compute()


DOCUMENTS = {
    3: ["zarr.json", "sst/zarr.json", "count/zarr.json"],
    2: [".zgroup", ".zattrs", ".zmetadata", "sst/.zarray", "sst/.zattrs", "count/.zarray"],
}
DOCUMENT_DAMAGE: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    **{
        content.decode("latin-1"): overwrite(content)
        for content in (b"", b"[]", b"null", b"3", b'"text"', b"\xff", b"{")
    },
}


@pytest.mark.parametrize("damage", DOCUMENT_DAMAGE)
@pytest.mark.parametrize(("zarr_format", "name"), [(n, name) for n, names in DOCUMENTS.items() for name in names])
def test_a_metadata_document_that_is_missing_or_none_is_found(damaged: izc.Collection, name: str, damage: str) -> None:
    path = fragment_of(damaged, 1, "sst") / name
    DOCUMENT_DAMAGE[damage](path)
    for options in ({}, {"data": False}, {"filters": "month == 1"}):
        problems = found_in(damaged, **options).problems
        assert problems
        assert {problem.partition for problem in problems} == {"year=2022/month=01"}
        assert str(path.relative_to(damaged.location)) in {problem.path for problem in problems}


CHANGES: dict[str, tuple[list[Any], Any]] = {
    "shape": (["shape"], [30, 3, 4]),
    "format": (["zarr_format"], 7),
    "fill value": (["fill_value"], 5),
    "data type": (["data_type"], "int32"),
    "chunks": (["chunk_grid", "configuration", "chunk_shape"], [1, 1, 1]),
    "names": (["dimension_names"], ["time", "lon", "lat"]),
    "codecs": (["codecs"], [{"name": "bytes", "configuration": {"endian": "little"}}]),
    "scale": (["attributes", "scale_factor"], 5.0),
    "no scale": (["attributes", "scale_factor"], None),
    "fill attribute": (["attributes", "_FillValue"], None),
}


@pytest.mark.parametrize("consolidated", [False, True], ids=["own", "consolidated"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("zarr_format", [3])
def test_changed_metadata_is_found(damaged: izc.Collection, change: str, consolidated: bool) -> None:
    keys, value = CHANGES[change]
    path = fragment_of(damaged, 1, "sst") / ("zarr.json" if consolidated else "sst/zarr.json")
    document = json.loads(path.read_text())
    inner = document["consolidated_metadata"]["metadata"]["sst"] if consolidated else document
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    if value is None:
        del inner[keys[-1]]
    path.write_text(json.dumps(document))
    assert {(problem.partition, problem.variable) for problem in found_in(damaged, data=False).problems} == {
        ("year=2022/month=01", "sst")
    }


@pytest.mark.parametrize("zarr_format", [2])
@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        (".zarray", "shape", [1, 3, 4]),
        (".zarray", "dtype", "<i4"),
        (".zarray", "order", "F"),
        (".zarray", "compressor", None),
        (".zattrs", "scale_factor", 5.0),
        (".zattrs", "add_offset", 0),
        (".zattrs", "_ARRAY_DIMENSIONS", ["time", "lon", "lat"]),
    ],
)
def test_changed_metadata_of_format_2_is_found(damaged: izc.Collection, name: str, key: str, value: Any) -> None:
    path = fragment_of(damaged, 1, "sst") / "sst" / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert {problem.variable for problem in found_in(damaged, data=False).problems} == {"sst"}


# The axis


@dataclass(frozen=True)
class AxisDamage:
    """Other axis values, and what is said of them."""

    change: Callable[[Any], Any]
    says: str


AXIS_DAMAGE = {
    "unsorted": AxisDamage(lambda values: values[[1, 0, *range(2, len(values))]], "sorted"),
    "reversed": AxisDamage(lambda values: values[::-1], "sorted"),
    "unsorted inside": AxisDamage(lambda values: values[[0, 2, 1, *range(3, len(values))]], "sorted"),
    "starts later": AxisDamage(lambda values: np.maximum(values, values[1]), "bounds"),
    "ends earlier": AxisDamage(lambda values: np.minimum(values, values[-2]), "bounds"),
    "elsewhere": AxisDamage(lambda values: values + 86_400_000_000_000, "bounds"),
}


def rewrite_axis(collection: izc.Collection, month: int, change: Callable[[Any], Any]) -> None:
    """Write the axis of a partition again by hand: valid Zarr, but other values."""
    fragment, scratch = fragment_of(collection, month, "time"), "scratch"
    values = collection.load(filters=f"month == {month}").time.values.astype("i8")
    write_fragment(collection._handle.location, scratch, collection.schema, {"time": change(values)}, len(values))
    made = Path(collection.location) / scratch
    for path in (made / "time").iterdir():
        if "json" not in path.name and not path.name.startswith("."):
            (fragment / "time" / path.name).write_bytes(path.read_bytes())


@pytest.mark.parametrize("damage", AXIS_DAMAGE)
def test_an_axis_that_is_not_what_the_registry_says_is_found(damaged: izc.Collection, damage: str) -> None:
    rewrite_axis(damaged, 3, AXIS_DAMAGE[damage].change)
    (problem,) = found_in(damaged).problems
    assert (problem.partition, problem.variable) == ("year=2022/month=03", "time")
    assert AXIS_DAMAGE[damage].says in problem.what
    assert found_in(damaged, data=False).ok


def test_one_damage_does_not_hide_another(damaged: izc.Collection) -> None:
    rewrite_axis(damaged, 3, AXIS_DAMAGE["unsorted"].change)
    chunk_of(damaged, 3, "sst").unlink()
    (
        fragment_of(damaged, 3, "sst") / "name" / next(iter({".zarray", "zarr.json"} & set(damaged_names(damaged))))
    ).unlink()
    chunk_of(damaged, 2, "ice").unlink()
    (immutable_fragment(damaged) / "lat").rename(Path(damaged.location) / "lat")
    report = found_in(damaged)
    assert {(problem.partition[-8:], problem.variable) for problem in report.problems} >= {
        ("month=03", "time"),
        ("month=03", "sst"),
        ("month=03", "name"),
        ("month=02", "ice"),
        ("", "lat"),
    }
    assert len(str(report).splitlines()) == 1 + len(report.problems)


def damaged_names(collection: izc.Collection) -> list[str]:
    return [path.name for path in (fragment_of(collection, 3, "sst") / "name").iterdir()]


# Layers and immutable variables


@both_formats
def test_a_whole_fragment_that_is_missing_is_found_where_a_version_has_it(changing: izc.Collection) -> None:
    layer = fragment_of(changing, 2, "ice")
    for path in sorted(layer.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    layer.rmdir()
    assert {(problem.partition, problem.variable) for problem in found_in(changing).problems} >= {
        ("year=2022/month=02", "ice")
    }
    assert {problem.partition for problem in found_in(changing).problems} == {"year=2022/month=02"}
    assert found_in(changing.at(version=1)).ok
    changing.update(lambda d: {"ice": d.sst.astype("f4") * 0}, inputs=["sst"], outputs=["ice"], filters="month == 2")
    assert found_in(changing).ok


@pytest.mark.parametrize("damage", CHUNK_DAMAGE)
def test_a_damaged_immutable_variable_is_found(changing: izc.Collection, damage: str) -> None:
    folder = immutable_fragment(changing) / "lat"
    (chunk,) = (path for path in folder.iterdir() if "json" not in path.name and not path.name.startswith("."))
    CHUNK_DAMAGE[damage](chunk)
    for options in ({}, {"filters": "month == 9"}):
        (problem,) = found_in(changing, **options).problems
        assert (problem.partition, problem.variable) == ("", "lat")
        assert "immutable" in str(problem)
    changing.drop_variable("lat")
    assert found_in(changing).ok
    assert not found_in(changing.at(version=1)).ok


def test_a_location_that_is_gone_is_reported_and_does_not_raise(damaged: izc.Collection, tmp_path: Path) -> None:
    Path(damaged.location).rename(tmp_path / "away")
    report = damaged.validate()
    assert not report.ok
    assert {problem.partition for problem in report.problems} == {"", *map(str, damaged.partitions())}
