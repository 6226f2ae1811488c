"""What a collection remembers of what was inserted: names and fingerprints, and what is taken of what comes again."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
from intake_zcollection.storage.location import file_system
from tests.counting import READS, counted_location, requests_to
from tests.s3 import S3Server
from tests.sql import run_sql

from .test_bad_input import refused

Make = Callable[..., izc.Collection]
Choice = Literal["insert", "skip", "changed", "refuse"]


def product(month: int, level: float = 0.0) -> xr.Dataset:
    """Three days of a month."""
    time = np.datetime64(f"2022-{month:02}-01", "ns") + np.arange(3) * np.timedelta64(1, "D")
    return xr.Dataset({"level": ("time", np.full(3, level))}, {"time": time})


def write_file(folder: Path, month: int, level: float = 0.0) -> Path:
    path = folder / f"month{month}.nc"
    path.unlink(missing_ok=True)  # xarray keeps files open: what is written anew is another
    product(month, level).to_netcdf(path, engine="h5netcdf")
    return path


@pytest.fixture
def levels(make_collection: Make) -> izc.Collection:
    return make_collection(product(1), merge="upsert")


def values(collection: izc.Collection) -> dict[int, float]:
    """The level of each month."""
    loaded = collection.load().compute()
    return {month: float(group.level.mean()) for month, group in loaded.groupby("time.month")}


def known(collection: izc.Collection, *names: str) -> dict[str, tuple[str | None, int]]:
    """The fingerprint of each name, and the version that brought it."""
    found = collection._handle.registry.known_sources(collection._handle.record, names)
    return {name: (each.source.fingerprint, each.begin_version) for name, each in found.items()}


# Names and fingerprints as the caller gives them


@pytest.mark.parametrize(
    "sources",
    [
        izc.Source("a.nc", "1"),
        [izc.Source("a.nc", "1")],
        [("a.nc", "1")],
        {"a.nc": "1"},
        iter([("a.nc", "1")]),
    ],
    ids=["source", "sources", "pairs", "dict", "iterator"],
)
def test_a_fingerprint_is_remembered_however_it_is_given(levels: izc.Collection, sources: Any) -> None:
    levels.insert(product(1), sources=sources)
    assert known(levels, "a.nc", "b.nc") == {"a.nc": ("1", 1)}


@pytest.mark.parametrize("sources", ["a.nc", Path("a.nc"), ["a.nc"], [Path("a.nc")], {"a.nc": None}], ids=str)
def test_a_name_alone_is_remembered_without_a_fingerprint(levels: izc.Collection, sources: Any) -> None:
    levels.insert(product(1), sources=sources)
    assert known(levels, "a.nc") == {"a.nc": (None, 1)}


@pytest.mark.parametrize(
    ("seen", "taken"),
    [
        ("insert", ["same", "other", "new"]),
        ("skip", ["other", "new"]),
        ("changed", ["other"]),
    ],
)
def test_of_what_is_known_names_and_fingerprints_decide_what_is_taken(
    levels: izc.Collection, seen: Choice, taken: list[str]
) -> None:
    levels.insert([product(1), product(2)], sources={"same": "1", "other": "1"})
    months = {"same": 1, "other": 2, "new": 3}
    version = levels.insert(
        [product(month, level=5.0) for month in months.values()],
        sources={"same": "1", "other": "2", "new": "1"},
        seen=seen,
    )
    assert version.number == 2
    assert (version.summary["skipped"], version.summary["rows"]) == (3 - len(taken), 3 * len(taken))
    assert {months[name] for name in taken} == {month for month, level in values(levels).items() if level == 5.0}
    expected = {"same": ("1", 1), "other": ("1", 1)}
    expected |= {name: ("2" if name == "other" else "1", 2) for name in taken}
    assert known(levels, *months) == expected


@pytest.mark.parametrize(("before", "now"), [(None, "1"), ("1", None), (None, None)])
@pytest.mark.parametrize("seen", ["skip", "changed"])
def test_where_a_fingerprint_is_missing_the_name_decides(
    levels: izc.Collection, before: str | None, now: str | None, seen: Choice
) -> None:
    levels.insert(product(1), sources={"a.nc": before})
    assert levels.insert(product(1, level=5.0), sources={"a.nc": now}, seen=seen).number == 1


def test_a_known_source_is_refused_on_request_whatever_its_fingerprint(levels: izc.Collection) -> None:
    levels.insert(product(1), sources={"a.nc": "1"})
    parts = "1 of 2 sources", "a.nc (version 1)", "seen='skip'"
    with refused(levels._handle.registry, levels.location, izc.AlreadyExistsError, *parts):
        levels.insert([product(1), product(2)], sources={"a.nc": "2", "b.nc": "1"}, seen="refuse")
    assert levels.insert(product(2), sources={"b.nc": "1"}, seen="refuse").number == 2


@pytest.mark.parametrize("seen", ["skip", "changed"])
def test_if_all_is_left_out_there_is_no_version_and_the_log_says_so(
    levels: izc.Collection, seen: Choice, caplog: pytest.LogCaptureFixture
) -> None:
    head = levels.insert(product(1), sources={"a.nc": "1"})
    with caplog.at_level(logging.INFO, "intake_zcollection.operations.insert"):
        assert levels.insert(product(1), sources={"a.nc": "1"}, seen=seen) == head
    assert [record.getMessage() for record in caplog.records] == [
        f"{levels.name} stays at version 1: all 1 sources are left out by seen='{seen}'"
    ]
    assert len(levels.versions()) == 2


def test_what_another_writer_did_with_a_source_meanwhile_is_a_conflict(make_collection: Make) -> None:
    collection = make_collection(product(1))
    collection.insert(product(1), sources={"a.nc": "1"})

    def meanwhile(existing: xr.Dataset, inserted: xr.Dataset, **_: Any) -> xr.Dataset:
        collection.insert(product(2), sources={"a.nc": "2"})
        return inserted

    with pytest.raises(izc.ConflictError, match=r"committed a\.nc"):
        collection.insert(product(1), sources={"a.nc": "3"}, seen="changed", merge=meanwhile, repeatable=False)
    assert known(collection, "a.nc") == {"a.nc": ("2", 2)}


def test_a_source_begins_and_ends_with_versions(levels: izc.Collection, registry: izc.Registry) -> None:
    for fingerprint in ("1", "2"):
        levels.insert(product(1), sources={"a.nc": fingerprint})
    rows = run_sql(registry, "SELECT name, fingerprint, begin_version, end_version FROM source")
    assert sorted(rows, key=str) == [("a.nc", "1", 1, 2), ("a.nc", "2", 2, None)]


@pytest.mark.parametrize(
    ("sources", "parts"),
    [
        ([5], ("source 5", "Source(name, fingerprint)")),
        ([("a", 5)], ("source a", "fingerprint 5")),
        ([("a", "")], ("source a", "fingerprint ''")),
        ([""], ("source ''", "1 to 1024")),
        (["x" * 1025], ("1 to 1024",)),
        (["half \ud800"], ("cannot be recorded",)),
        (["a\0b"], ("cannot be recorded",)),
    ],
    ids=ascii,
)
def test_a_source_that_cannot_be_recorded_is_refused(
    levels: izc.Collection, sources: Any, parts: tuple[str, ...]
) -> None:
    with refused(levels._handle.registry, levels.location, izc.InvalidInputError, *parts):
        levels.insert(product(1), sources=sources)


def test_one_name_for_two_contents_is_refused_and_for_two_parts_of_one_is_not(levels: izc.Collection) -> None:
    data = [product(1), product(2)]
    with pytest.raises(izc.InvalidInputError, match=r"source a\.nc is given twice, with two fingerprints"):
        levels.insert(data, sources=[("a.nc", "1"), ("a.nc", "2")])
    levels.insert(data, sources=[("a.nc", "1"), ("a.nc", "1")])
    assert known(levels, "a.nc") == {"a.nc": ("1", 1)}


@pytest.mark.parametrize("items", [1, 0], ids=["some", "none"])
@pytest.mark.parametrize(
    ("argument", "wrong", "choices"),
    [
        ("seen", "skipped", "'insert', 'skip', 'changed', 'refuse'"),
        ("seen", None, "'insert', 'skip'"),
        ("missing", "fil", "'refuse', 'fill'"),
        ("missing", True, "'refuse', 'fill'"),
        ("unknown", "ignore", "'refuse', 'drop', 'add'"),
    ],
)
def test_a_choice_that_there_is_not_is_refused_whatever_is_inserted(
    levels: izc.Collection, argument: str, wrong: Any, choices: str, items: int
) -> None:
    options: dict[str, Any] = {argument: wrong}
    with pytest.raises(izc.InvalidInputError) as caught:
        levels.insert([product(1)] * items, **options)
    assert f"{argument}={wrong!r} is not one of {choices}" in str(caught.value)


# Files by their paths


@pytest.mark.parametrize("scheduler", [None, "synchronous", "processes"])
def test_files_given_by_their_paths_are_inserted(levels: izc.Collection, tmp_path: Path, scheduler: str | None) -> None:
    paths = [write_file(tmp_path, month, month) for month in (1, 2)]
    workers = 1 if scheduler == "processes" else None  # each takes seconds to start
    version = levels.insert(paths, scheduler=scheduler, workers=workers)
    assert version.summary["rows"] == 6
    assert values(levels) == {1: 1.0, 2: 2.0}
    assert set(known(levels, *map(str, paths))) == set(map(str, paths))


@pytest.mark.parametrize("spelling", [str, Path, "file://{}".format, lambda path: [str(path)]])
def test_a_path_is_text_or_a_path_or_a_url(levels: izc.Collection, tmp_path: Path, spelling: Any) -> None:
    assert levels.insert(spelling(write_file(tmp_path, 1))).summary["rows"] == 3


def test_spellings_of_one_path_are_one_source(
    levels: izc.Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    levels.insert("month1.nc")
    assert levels.insert("./month1.nc", seen="skip").number == 1


@pytest.mark.parametrize("seen", ["skip", "changed"])
def test_a_corrected_file_of_the_same_name_is_taken(levels: izc.Collection, tmp_path: Path, seen: Choice) -> None:
    paths = [write_file(tmp_path, month) for month in (1, 2)]
    levels.insert(paths)
    before = paths[1].stat()
    write_file(tmp_path, 2, level=9.0)
    os.utime(paths[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert paths[1].stat().st_size == before.st_size  # nothing but the content tells
    version = levels.insert(paths, seen=seen)
    assert (version.number, version.summary["skipped"]) == (2, 1)
    assert values(levels) == {1: 0.0, 2: 9.0}
    assert levels.insert(paths, seen=seen) == version


def test_a_file_that_was_only_touched_has_not_changed(levels: izc.Collection, tmp_path: Path) -> None:
    path = write_file(tmp_path, 1)
    levels.insert(path)
    os.utime(path, (0, 0))
    assert levels.insert(path, seen="skip").number == 1


def test_names_given_for_files_are_kept_and_their_fingerprints_filled_in(
    levels: izc.Collection, tmp_path: Path
) -> None:
    path = write_file(tmp_path, 1)
    levels.insert(path, sources="january")
    ((fingerprint, version),) = known(levels, "january").values()
    assert version == 1
    assert fingerprint is not None
    assert fingerprint.startswith(f"size={path.stat().st_size} sha256=")
    levels.insert(path, sources=izc.Source("january", "mine"), seen="changed")
    assert known(levels, "january") == {"january": ("mine", 2)}


def test_files_and_datasets_may_come_together(levels: izc.Collection, tmp_path: Path) -> None:
    path = write_file(tmp_path, 1)
    levels.insert([path, product(2)])
    assert list(known(levels, str(path))) == [str(path)]
    with pytest.raises(izc.InvalidInputError, match="seen='skip' needs sources"):
        levels.insert([path, product(2)], seen="skip")


def test_a_file_that_changes_while_it_is_inserted_has_changed_the_next_time(
    levels: izc.Collection, tmp_path: Path
) -> None:
    path = write_file(tmp_path, 1)
    levels.insert(path)

    def correct_it(existing: xr.Dataset, inserted: xr.Dataset, **_: Any) -> xr.Dataset:
        write_file(tmp_path, 1, level=7.0)
        return inserted

    write_file(tmp_path, 1, level=5.0)
    levels.insert(path, seen="skip", merge=correct_it)
    assert levels.insert(path, seen="skip").number == 3
    assert values(levels) == {1: 7.0}


@pytest.mark.parametrize("library", ["scipy", "h5netcdf"])
def test_formats_are_xarrays_to_guess(levels: izc.Collection, tmp_path: Path, library: Any) -> None:
    product(1, level=3.0).to_netcdf(tmp_path / "any.nc", engine=library)
    levels.insert(tmp_path / "any.nc")
    assert values(levels) == {1: 3.0}


def test_a_zarr_store_is_refused_by_name_with_what_takes_it(levels: izc.Collection, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    product(1).to_zarr(path, consolidated=False)
    parts = str(path), "is a directory", "lambda: xarray.open_zarr"
    with refused(levels._handle.registry, levels.location, izc.InvalidInputError, *parts):
        levels.insert(path)
    levels.insert(
        lambda: xr.open_zarr(path, consolidated=False, chunks=None), sources=[izc.Source(str(path), "1")], seen="skip"
    )
    assert values(levels) == {1: 0.0}


def test_a_file_given_twice_is_refused(levels: izc.Collection, tmp_path: Path) -> None:
    path = write_file(tmp_path, 1)
    with pytest.raises(izc.InvalidInputError, match=r"month1\.nc is given twice"):
        levels.insert([path, str(path)])


def test_a_url_with_a_password_is_refused_unshown(levels: izc.Collection) -> None:
    url = "ftp://me:hidden@nowhere.invalid/a.nc"
    for data, sources in ((url, ()), (url, "a.nc"), (product(1), url)):
        with pytest.raises(izc.InvalidInputError, match="password") as caught:
            levels.insert(data, sources=sources)
        assert "hidden" not in str(caught.value)


# Files elsewhere


@pytest.fixture
def remote(tmp_path: Path) -> Callable[[str, int, float], None]:
    """A function that puts a file at a URL of the store that counts."""

    def put(url: str, month: int, level: float) -> None:
        fs, path = file_system(url, {})
        fs.pipe_file(path, write_file(tmp_path, month, level).read_bytes())

    return put


def test_a_file_elsewhere_is_read_once_for_its_fingerprint_and_opened_for_its_data(
    levels: izc.Collection, remote: Any
) -> None:
    with counted_location() as folder:
        urls = [f"{folder}/{month}.nc" for month in (1, 2)]
        for month, url in enumerate(urls, 1):
            remote(url, month, 0.0)
        levels.insert(urls[0])
        with requests_to(folder) as requests:
            assert levels.insert(urls[0], seen="skip").number == 1
        assert [operation for operation, _ in requests if operation in READS] == ["open"]
        with requests_to(folder) as requests:
            levels.insert(urls, seen="changed")
        assert {path.rpartition("/")[2] for _, path in requests} == {"1.nc"}  # of what is not known, nothing is asked
        with requests_to(folder) as requests, pytest.raises(izc.AlreadyExistsError):
            levels.insert(urls, seen="refuse")
        assert requests == []


def test_on_s3_the_etag_is_the_fingerprint_and_what_is_skipped_is_not_read(
    levels: izc.Collection, s3: S3Server, tmp_path: Path
) -> None:
    folder = s3.fresh_url()
    url, key = f"{folder}/a.nc", folder.removeprefix("s3://bucket/") + "/a.nc"
    options = {"s3://bucket": s3.storage_options}

    def put(level: float) -> str:
        body = write_file(tmp_path, 1, level).read_bytes()
        return str(s3.client.put_object(Bucket="bucket", Key=key, Body=body)["ETag"]).strip('"')

    etag = put(1.0)
    levels.insert(url, storage_options=options)
    ((fingerprint, _),) = known(levels, url).values()
    assert fingerprint is not None
    assert fingerprint.endswith(f"etag={etag}")
    with s3.traffic(folder) as traffic:
        assert levels.insert(url, storage_options=options, seen="skip").number == 1
    assert [method for method, _, _ in traffic.requests] == ["HEAD"]
    put(2.0)
    assert levels.insert(url, storage_options=options, seen="skip").number == 2
    assert values(levels) == {1: 2.0}


def test_a_version_of_the_whole_grid_by_paths_is_the_one_by_datasets(
    make_collection: Make, grid: xr.Dataset, tmp_path: Path
) -> None:
    for name in ("time", "time_bnds"):
        grid[name].encoding = {"units": "days since 1970-01-01", "dtype": "int64"}
    collection = make_collection(grid)
    parts = [grid.isel(time=slice(start, None, 3)) for start in range(3)]
    for number, part in enumerate(parts):
        part.to_netcdf(tmp_path / f"{number}.nc", engine="h5netcdf")
    collection.insert(tmp_path / f"{number}.nc" for number in range(3))
    expected = make_collection(grid)
    expected.insert(parts)
    xr.testing.assert_equal(collection.load().compute(), expected.load().compute())
