"""An error of one of many inputs says of which, wherever it comes from, and keeps its class."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc

Make = Callable[..., izc.Collection]

DAYS = 3


def product(day: int = 1, **variables: Any) -> xr.Dataset:
    """Some days of January, with variables made to measure."""
    time = np.datetime64(f"2022-01-{day:02}", "ns") + np.arange(DAYS) * np.timedelta64(1, "D")
    packed = {"dtype": "int16", "scale_factor": 0.1, "_FillValue": -1}
    given = {"level": ("time", np.arange(float(DAYS)), {}, packed), "lat": ("y", np.arange(4.0)), "orbit": ((), 7)}
    return xr.Dataset(given | variables, {"time": time})


def three() -> list[xr.Dataset]:
    return [product(1), product(11), product(21)]


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


@pytest.fixture
def levels(make_collection: Make) -> izc.Collection:
    return make_collection(product(), merge="upsert")


def with_level(data: xr.Dataset, value: float) -> xr.Dataset:
    return data.assign(level=("time", np.full(DAYS, value)))


BAD: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "axis": lambda data: data.assign_coords(time=("time", np.full(DAYS, "NaT", "M8[ns]"))),
    "missing": lambda data: data.drop_vars("level"),
    "unknown": lambda data: data.assign(other=1),
    "dtype": lambda data: data.assign(level=("time", np.arange(DAYS) * 1j)),
    "value": lambda data: with_level(data, 1e9),
    "lazy": lambda data: with_level(data, 1e9).chunk(time=1),
    "empty": lambda data: data.isel(time=slice(0)),
}


@pytest.mark.parametrize("form", ["dataset", "function"])
@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_what_is_wrong_with_one_of_three_datasets_names_its_number_or_source(
    levels: izc.Collection, change: Callable[[xr.Dataset], xr.Dataset], form: str
) -> None:
    good, bad, other = three()
    data: list[Any] = [good, change(bad), other]
    if form == "function":
        data = [partial(xr.Dataset.copy, each) for each in data]
    with pytest.raises(izc.InvalidInputError, match=r"^input 2 of 3: ") as caught:
        levels.insert(data)
    assert isinstance(caught.value.__cause__, izc.InvalidInputError)
    assert str(caught.value) == f"input 2 of 3: {caught.value.__cause__}"
    with pytest.raises(izc.InvalidInputError, match=r"^b\.nc \(input 2 of 3\): "):
        levels.insert(data, sources=["a.nc", "b.nc", "c.nc"])
    with pytest.raises(izc.InvalidInputError, match=r"^b\.nc: "):
        levels.insert(data[1], sources="b.nc")
    assert len(levels.versions()) == 1


def test_a_single_dataset_without_a_name_is_not_numbered(levels: izc.Collection) -> None:
    with pytest.raises(izc.InvalidInputError, match=r"^the dataset lacks level"):
        levels.insert([BAD["missing"](product())])


def test_what_is_no_dataset_is_named(levels: izc.Collection) -> None:
    data: list[Any] = [product(), lambda: 5]
    with pytest.raises(izc.InvalidInputError, match=r"^input 2 of 2: .* returned is of type int"):
        levels.insert(data)


def test_a_variable_that_cannot_be_added_is_named_with_its_input(levels: izc.Collection) -> None:
    data = [product(1), product(11).assign(label=("time", np.full(DAYS, object())))]
    with pytest.raises(izc.InvalidInputError, match=r"^input 2 of 2: variable label is object"):
        levels.insert(data, unknown="add")


class ReaderError(OSError):
    """A reader's own."""


def test_an_error_of_opening_keeps_its_class_and_tells_of_what(levels: izc.Collection) -> None:
    def fail() -> xr.Dataset:
        raise ReaderError(5, "no such tape")

    with pytest.raises(ReaderError, match="no such tape") as caught:
        levels.insert([product(), fail], sources=["a.nc", "b.nc"])
    assert notes(caught.value) == "in b.nc (input 2 of 2)"


def test_an_error_of_opening_again_in_a_worker_tells_of_what(levels: izc.Collection) -> None:
    calls = []

    def once() -> xr.Dataset:
        calls.append(1)
        if len(calls) > 1:
            raise ReaderError("it was moved")
        return product()

    with pytest.raises(ReaderError) as caught:
        levels.insert([product(11), once])
    assert notes(caught.value) == "in input 2 of 2"


def test_an_error_of_the_iterable_itself_tells_for_which_input(levels: izc.Collection) -> None:
    def opened() -> Iterator[xr.Dataset]:
        yield product()
        raise ReaderError("it was moved")

    with pytest.raises(ReaderError) as caught:
        levels.insert(opened())
    assert notes(caught.value) == "in the iterable that is inserted, for input 2"


def damaged(path: Path) -> Path:
    """A file that opens, and whose values of ``level`` do not come out of their compression."""
    data = product(11)
    data["level"] = ("time", np.arange(DAYS) / 7)
    data.to_netcdf(path, engine="h5netcdf", encoding={"level": {"zlib": True, "chunksizes": (DAYS,)}})
    with h5py.File(path) as file:
        chunk = file["level"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("scheduler", [None, "synchronous", "processes"])
@pytest.mark.parametrize("form", ["path", "function", "lazily opened"])
def test_a_damaged_file_is_named_by_the_readers_own_error(
    levels: izc.Collection, tmp_path: Path, form: str, scheduler: str | None
) -> None:
    path = damaged(tmp_path / "b.nc")
    product(1).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    paths = [tmp_path / "a.nc", path]
    opener = partial(xr.open_dataset, engine="h5netcdf")
    data: dict[str, list[Any]] = {
        "path": list(paths),
        "function": [partial(opener, each) for each in paths],
        "lazily opened": [opener(each) for each in paths],
    }
    workers = 1 if scheduler == "processes" else None  # each takes seconds to start
    with pytest.raises(OSError, match="filter") as caught:
        levels.insert(data[form], sources=["a.nc", "b.nc"], scheduler=scheduler, workers=workers)
    assert "in b.nc (input 2 of 2)" in notes(caught.value)
    assert len(levels.versions()) == 1


def test_what_is_no_file_xarray_knows_is_named(levels: izc.Collection, tmp_path: Path) -> None:
    (tmp_path / "b.nc").write_text("<html>404</html>")
    product(1).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="engine") as caught:
        levels.insert([tmp_path / "a.nc", tmp_path / "b.nc"])
    assert notes(caught.value) == f"in {tmp_path}/b.nc (input 2 of 2)"


def test_a_file_that_is_not_there_is_named(levels: izc.Collection, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        levels.insert([tmp_path / "a.nc"])
    assert notes(caught.value) == f"in {tmp_path}/a.nc"


def test_where_dask_reads_by_itself_the_error_says_what_would_name_the_input(levels: izc.Collection) -> None:
    def fail(block: Any) -> Any:
        raise ReaderError("it was moved")

    lazy = product(11).chunk()
    lazy["level"] = ("time", lazy.level.data.map_blocks(fail, dtype="f8", meta=np.empty(0)))
    assert isinstance(lazy.level.data, da.Array)
    with pytest.raises(ReaderError) as caught:
        levels.insert([product(1), lazy])
    assert "while 2 inputs were inserted" in notes(caught.value)
    assert "paths of files" in notes(caught.value)


def test_an_error_of_merging_tells_the_partition_and_whose_rows_it_gets(levels: izc.Collection) -> None:
    levels.insert(product())
    february = product().assign_coords(time=product().time + np.timedelta64(31, "D"))
    names = ["a.nc", "b.nc", "c.nc", "d.nc", "e.nc"]
    data = [product(1), product(5), product(9), product(13), february]

    def fail(existing: xr.Dataset, inserted: xr.Dataset, **_: Any) -> xr.Dataset:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        levels.insert(data, sources=names, merge=fail)
    rows = "a.nc (input 1 of 5), b.nc (input 2 of 5), c.nc (input 3 of 5) and 1 more"
    assert notes(caught.value) == f"in year=2022/month=01 (rows of {rows})"

    def lose_rows(existing: xr.Dataset, inserted: xr.Dataset, **_: Any) -> xr.Dataset:
        return inserted.isel(time=slice(0))

    with pytest.raises(izc.InvalidInputError) as refused:
        levels.insert(data, sources=names, merge=lose_rows)
    assert str(refused.value).startswith(f"year=2022/month=01 (rows of {rows}): the dataset is empty")


# Immutable variables


def test_immutable_variables_that_differ_between_inputs_say_between_which_and_by_how_much(
    levels: izc.Collection,
) -> None:
    noisy = product(11, lat=("y", np.arange(4.0) + np.array([0, 1e-14, 0, 0])))
    with pytest.raises(izc.InvalidInputError) as caught:
        levels.insert([product(1), product(21), noisy], sources=["a.nc", "b.nc", "c.nc"])
    message = str(caught.value)
    assert "lat of collection made/c0 differs between a.nc (input 1 of 3) and c.nc (input 3 of 3)" in message
    assert "(1 of 4 differ, by 9.9920" in message
    assert "stored already" not in message
    assert "if that is rounding, leave it out of all inputs but one, data.drop_vars('lat')" in message
    levels.insert([product(1), product(21), noisy.drop_vars("lat")])  # as it says


def test_immutable_variables_that_differ_from_those_stored_say_of_which_input(levels: izc.Collection) -> None:
    levels.insert(product())
    with pytest.raises(izc.InvalidInputError, match=r"is stored already, and input 2 of 2 has other values \(4 of 4"):
        levels.insert([product(11), product(21, lat=("y", np.arange(4.0) + 1))])


def test_a_scalar_that_differs_per_input_is_advised_to_have_the_split_dimension(make_collection: Make) -> None:
    files = [product(1), product(11, orbit=((), 8))]
    with pytest.raises(
        izc.InvalidInputError, match=r"orbit .* differs between input 1 of 2 and input 2 of 2"
    ) as caught:
        make_collection(product()).insert(files)
    remedy = "data.assign(orbit=data['orbit'].expand_dims(time=data.sizes['time']))"
    assert "(1 of 1 differ, by 1.0 at most)" in str(caught.value)
    assert remedy in str(caught.value)
    mended = [eval(remedy, {"data": data}) for data in files]
    collection = make_collection(mended[0])
    collection.insert(mended)
    assert collection.load().orbit.values.tolist() == [7, 7, 7, 8, 8, 8]


@pytest.mark.parametrize(
    ("first", "other", "difference"),
    [
        (np.array(["a", "b"], "U1"), np.array(["a", "c"], "U1"), "1 of 2 differ, np.str_('b') from np.str_('c')"),
        (np.array([1.0, np.nan]), np.array([1.0, 2.0]), "1 of 2 differ, missing in one of them"),
        (np.array([1, 5]), np.array([4, 0]), "2 of 2 differ, by 5.0 at most"),
        (np.array([0, 1], "M8[s]"), np.array([0, 61], "M8[s]"), "1 of 2 differ, by 60000000000 nanoseconds at most"),
        (np.array([True, True]), np.array([True, False]), "1 of 2 differ, np.True_ from np.False_"),
    ],
    ids=["text", "missing", "integers", "times", "bool"],
)
def test_a_difference_is_told_for_every_dtype(make_collection: Make, first: Any, other: Any, difference: str) -> None:
    data = [product(1, fixed=("n", first)), product(11, fixed=("n", other))]
    with pytest.raises(izc.InvalidInputError) as caught:
        make_collection(data[0]).insert(data)
    assert f"({difference}" in str(caught.value)
