"""What keeps times from being an axis, or from being kept at all, is refused with the line that mends it; it does."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import intake_zcollection as izc

from .test_bad_input import refused

Make = Callable[..., izc.Collection]


def days(count: int = 4) -> Any:
    return np.datetime64("2022-01-30", "ns") + np.arange(count) * np.timedelta64(1, "D")


def line_of(error: BaseException, beginning: str) -> str:
    """The calls in a message that begin with ``data.`` for one, up to the last parenthesis."""
    text = str(error)
    start = text.index(beginning)
    depth = 0
    for place, letter in enumerate(text[start:], start):
        depth += (letter == "(") - (letter == ")")
        if letter == ")" and depth == 0 and not re.match(r"\.\w", text[place + 1 :]):
            return text[start : place + 1]
    raise AssertionError(text)


def mended(error: BaseException, data: xr.Dataset, beginning: str = "data.") -> xr.Dataset:
    """The dataset as the message says to make it."""
    made = eval(line_of(error, beginning), {"data": data, "pandas": pd, "xarray": xr})
    assert isinstance(made, xr.Dataset)
    return made


# The axis


def refusal(make: Callable[[], Any]) -> izc.InvalidInputError:
    with pytest.raises(izc.InvalidInputError) as caught:
        make()
    return caught.value


def test_a_scalar_time_is_told_to_become_a_row(make_collection: Make) -> None:
    data = xr.Dataset({"ssh": ("x", np.arange(3.0))}, {"time": days()[0]})
    error = refusal(lambda: make_collection(data))
    assert "data.expand_dims('time')" in str(error)
    collection = make_collection(mended(error, data))
    again = refusal(lambda: collection.insert(data))
    assert collection.insert(mended(again, data)).summary["rows"] == 1


def test_a_scalar_time_of_a_collection_split_along_another_dimension_too(make_collection: Make) -> None:
    template = xr.Dataset({"ssh": ("row", np.arange(4.0))}, {"time": ("row", days())})
    collection = make_collection(template)
    data = xr.Dataset({"ssh": 5.0}, {"time": days()[0]})
    error = refusal(lambda: collection.insert(data))
    assert collection.insert(mended(error, data)).summary["rows"] == 1


def test_of_a_two_dimensional_time_a_row_time_is_made(make_collection: Make) -> None:
    times = days()[:, None] + np.arange(3) * np.timedelta64(1, "s")
    data = xr.Dataset({"ssh": (("line", "pixel"), np.zeros((4, 3)))}, {"time": (("line", "pixel"), times)})
    error = refusal(lambda: make_collection(data))
    assert "axis='row_time'" in str(error)
    by_row = mended(error, data)
    collection = make_collection(by_row, axis="row_time", partitioning=izc.Date("row_time", "M"))
    assert collection.insert(by_row).summary["rows"] == 4
    plain = make_collection(data.assign_coords(time=("line", days())))
    assert plain.insert(mended(refusal(lambda: plain.insert(data)), data)).summary["rows"] == 4


@pytest.mark.parametrize("attribute", ["_FillValue", "missing_value"])
def test_integers_that_a_fill_value_made_floats_are_told_so(
    make_collection: Make, tmp_path: Path, attribute: str
) -> None:
    orbit = xr.Variable("orbit", np.arange(4, dtype="i4"), {}, {attribute: np.int32(-9)})
    xr.Dataset({"ssh": ("orbit", np.zeros(4))}, {"orbit": orbit}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    data = xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf")
    options: dict[str, Any] = {"axis": "orbit", "partitioning": izc.Sequence(("orbit",))}
    error = refusal(lambda: make_collection(data, **options))
    assert f"Its {attribute}, -9, made floats of int32" in str(error)
    collection = make_collection(mended(error, data), **options)
    assert collection.insert(mended(refusal(lambda: collection.insert(data)), data)).summary["rows"] == 4


def test_times_that_were_not_decoded_are_told_so(make_collection: Make) -> None:
    data = xr.Dataset(coords={"time": ("time", np.arange(4.0), {"units": "days since 2022-01-01"})})
    error = refusal(lambda: make_collection(data))
    assert make_collection(mended(error, data, "xarray.")).axis == "time"


def test_other_floats_make_no_axis_and_are_told_how_they_would(make_collection: Make) -> None:
    data = xr.Dataset(coords={"orbit": ("orbit", np.arange(4.0))})
    error = refusal(lambda: make_collection(data, axis="orbit", partitioning=izc.Sequence(("orbit",))))
    assert mended(error, data).orbit.dtype == np.int64


# Zones


def with_zone() -> xr.Dataset:
    zoned = pd.date_range("2022-01-30", periods=4, tz="Europe/Paris")
    return xr.Dataset({"ssh": ("time", np.zeros(4)), "end": ("time", zoned)}, {"time": zoned})


def test_times_with_a_zone_are_converted_by_the_line_that_the_message_has(make_collection: Make) -> None:
    data = with_zone()
    error = refusal(lambda: make_collection(data))
    assert "axis time is pandas' datetime64" in str(error)
    data = mended(error, data)
    error = refusal(lambda: make_collection(data))
    assert "variable end is pandas'" in str(error)
    data = mended(error, data)
    collection = make_collection(data)
    error = refusal(lambda: collection.insert(with_zone().drop_vars("end").assign(end=data.end.variable)))
    assert "tz_convert(None)" in str(error)
    error = refusal(lambda: collection.insert(with_zone().assign_coords(time=data.time.variable)))
    assert "tz_convert(None)" in str(error)
    collection.insert(data)
    expected = pd.DatetimeIndex(["2022-01-29T23", "2022-01-30T23", "2022-01-31T23", "2022-02-01T23"])
    loaded = collection.load()
    for name in ("time", "end"):
        np.testing.assert_array_equal(loaded[name].values, expected.values)


# Calendars


def other_calendar(calendar: str = "noleap") -> xr.Dataset:
    time = xr.date_range("2022-02-26", periods=4, calendar=calendar, use_cftime=True)
    data = xr.Dataset({"ssh": ("time", np.zeros(4)), "time_bnds": (("time", "n"), np.stack([time, time], axis=1))})
    data = data.assign_coords(time=("time", time, {"bounds": "time_bnds"}))
    data.time.encoding = {"units": "days since 2000-01-01", "calendar": calendar}
    return data


Prepare = Callable[[xr.Dataset, Path], xr.Dataset]


def opened(data: xr.Dataset, path: Path, **options: Any) -> xr.Dataset:
    data.to_netcdf(path / "a.nc", engine="h5netcdf")
    return xr.open_dataset(path / "a.nc", engine="h5netcdf", **options)


prepared = pytest.mark.parametrize(
    "prepare",
    [
        lambda data, path: data,
        lambda data, path: data.chunk(),
        opened,
        lambda data, path: opened(data, path, chunks={}),
    ],
    ids=["in memory", "dask", "opened lazily", "opened by dask"],
)


@prepared
@pytest.mark.parametrize("calendar", ["noleap", "360_day", "julian"])
def test_another_calendar_is_refused_at_creation_for_axis_and_bounds_at_once(
    make_collection: Make, registry: izc.Registry, tmp_path: Path, prepare: Prepare, calendar: str
) -> None:
    data = prepare(other_calendar(calendar), tmp_path)
    parts = f"variable time ({calendar})", f"variable time_bnds ({calendar})", "calendar"
    with refused(registry, tmp_path, izc.InvalidInputError, *parts):
        make_collection(data)


@prepared
def test_the_remedy_serves_axis_and_bounds_and_the_collection_can_be_used(
    make_collection: Make, tmp_path: Path, prepare: Prepare
) -> None:
    data = prepare(other_calendar(), tmp_path)
    better = mended(refusal(lambda: make_collection(data)), data)
    collection = make_collection(better)
    collection.insert(better)
    loaded = collection.load().compute()
    expected = np.array(["2022-02-26", "2022-02-27", "2022-02-28", "2022-03-01"], "M8[ns]")
    np.testing.assert_array_equal(loaded.time.values, expected)
    np.testing.assert_array_equal(loaded.time_bnds.values, np.stack([expected, expected], axis=1))


@prepared
def test_bounds_of_another_calendar_alone_are_refused_at_creation_and_at_insertion(
    make_collection: Make, tmp_path: Path, prepare: Prepare
) -> None:
    data = prepare(other_calendar(), tmp_path).assign_coords(time=("time", days()))
    error = refusal(lambda: make_collection(data))
    assert str(error).startswith("variable time_bnds (noleap): dates of another calendar")
    collection = make_collection(mended(error, data))
    error = refusal(lambda: collection.insert(data))
    assert str(error).startswith("variable time_bnds (noleap): dates of another calendar")
    collection.insert(mended(error, data))


@prepared
def test_a_variable_of_another_calendar_is_not_added(make_collection: Make, tmp_path: Path, prepare: Prepare) -> None:
    data = prepare(other_calendar(), tmp_path).assign_coords(time=("time", days()))
    collection = make_collection(data.drop_vars("time_bnds").assign(n_size=("n", [1, 2])))
    error = refusal(lambda: collection.insert(data.assign(n_size=("n", [1, 2])), unknown="add"))
    assert "variable time_bnds (noleap)" in str(error)


def test_of_a_calendar_with_thirty_days_each_month_the_dates_that_there_are_not_are_dropped_first(
    make_collection: Make,
) -> None:
    data = other_calendar("360_day")
    error = refusal(lambda: make_collection(data))
    with pytest.raises(ValueError, match="2022-02-29"):
        mended(error, data)
    fewer = mended(error, data, "data.convert_calendar")
    collection = make_collection(mended(error, fewer))
    expected = np.array(["2022-02-26", "2022-02-27", "2022-02-28"], "M8[ns]")
    collection.insert(mended(error, fewer))
    np.testing.assert_array_equal(collection.load().time_bnds.values[:, 0], expected)
