"""Units, and whatever else says what numbers mean, that change between deliveries."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
from intake_zcollection.writing.meaning import Conversion

Make = Callable[..., izc.Collection]


def delivery(day: int = 1, values: Any = (280.0, np.nan, 290.5), encoding: Any = None, **attrs: Any) -> xr.Dataset:
    """Three rows of a month."""
    time = np.datetime64("2022-01-01", "ns") + (day + np.arange(3)) * np.timedelta64(1, "D")
    sst = xr.Variable("time", np.asarray(values), {"units": "K", **attrs}, encoding or {})
    return xr.Dataset({"sst": sst}, {"time": time})


KELVIN = delivery()
CELSIUS = delivery(4, (6.85, np.nan, 17.35), units="celsius")

FORMS: dict[str, Callable[[xr.Dataset, Path], Any]] = {
    "in memory": lambda data, path: data,
    "dask": lambda data, path: data.chunk(time=2),
    "opened": lambda data, path: xr.open_dataset(path, engine="h5netcdf"),
    "opened by dask": lambda data, path: xr.open_dataset(path, engine="h5netcdf", chunks={}),
    "a function": lambda data, path: lambda: xr.open_dataset(path, engine="h5netcdf"),
    "a function, in memory": lambda data, path: lambda: data,
    "several": lambda data, path: [data.isel(time=slice(2)), data.isel(time=slice(2, 3))],
}


@pytest.fixture(params=FORMS)
def celsius(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Degrees in each form that an insert takes."""
    CELSIUS.to_netcdf(tmp_path / "celsius.nc", engine="h5netcdf")
    return FORMS[request.param](CELSIUS, tmp_path / "celsius.nc")


@pytest.fixture
def sst(make_collection: Make) -> izc.Collection:
    """A collection with three rows, in kelvin."""
    collection = make_collection(KELVIN, merge="upsert")
    collection.insert(KELVIN)
    return collection


def test_other_units_are_refused_by_name_with_what_to_do(sst: izc.Collection, celsius: Any) -> None:
    with pytest.raises(
        izc.InvalidInputError,
        match=r"variable sst has units 'celsius' in the dataset, and 'K' in collection made/c0.*'convert'.*'keep'",
    ):
        sst.insert(celsius)
    assert sst.version.number == 1


def test_values_are_converted_if_asked(sst: izc.Collection, celsius: Any) -> None:
    sst.insert(celsius, attributes="convert")
    loaded = sst.load()
    np.testing.assert_allclose(loaded.sst, [280, np.nan, 290.5, 280, np.nan, 290.5])
    assert loaded.sst.attrs["units"] == "K"


def test_a_wrong_attribute_is_left_aside_if_asked(sst: izc.Collection, celsius: Any) -> None:
    sst.insert(celsius, attributes="keep")
    np.testing.assert_array_equal(sst.load().sst[3:], CELSIUS.sst)
    assert sst.load().sst.attrs["units"] == "K"


def test_nothing_is_computed_to_convert_lazy_values_before_they_are_written(sst: izc.Collection) -> None:
    def fail(block: Any) -> Any:
        pytest.fail("computed")

    data = CELSIUS.chunk(time=1)
    data["sst"].data = data.sst.data.map_blocks(fail, dtype="f8", meta=np.empty(0))
    with pytest.raises(izc.AlreadyExistsError):
        sst.insert(data, attributes="convert", merge="refuse")


@pytest.mark.parametrize("attributes", ["refuse", "convert", "keep"])
@pytest.mark.parametrize("units", ["kelvin", "degrees_K", " K "])
def test_another_spelling_of_a_unit_is_no_difference(sst: izc.Collection, units: str, attributes: Any) -> None:
    sst.insert(delivery(4, units=units), attributes=attributes)
    np.testing.assert_array_equal(sst.load().sst[3:], KELVIN.sst)


def test_units_on_one_side_alone_are_no_difference(make_collection: Make) -> None:
    bare = delivery()
    del bare.sst.attrs["units"]
    make_collection(KELVIN).insert(bare)
    make_collection(bare).insert(CELSIUS)


MEANINGS: dict[str, tuple[Any, Any, Any]] = {
    "standard_name": ("sea_surface_temperature", "air_temperature", "sea_surface_temperature "),
    "calendar": ("standard", "noleap", "standard"),
    "flag_values": (np.array([0, 1], "i1"), [0, 2], [0, 1]),
    "flag_masks": (np.array([1, 2], "i1"), [1, 4], np.array([1, 2], "i8")),
    "flag_meanings": ("good bad", "bad good", "good  bad"),
}


@pytest.mark.parametrize("name", MEANINGS)
def test_what_else_says_what_numbers_mean_is_refused_if_it_differs(make_collection: Make, name: str) -> None:
    own, other, same = MEANINGS[name]
    collection = make_collection(delivery(**{name: own}), merge="upsert")
    collection.insert(delivery(**{name: same}))
    for attributes in ("refuse", "convert"):
        with pytest.raises(izc.InvalidInputError, match=rf"variable sst has {name} .*attributes='keep'"):
            collection.insert(delivery(**{name: other}), attributes=attributes)
    collection.insert(delivery(**{name: other}), attributes="keep")


def test_attributes_that_say_nothing_of_numbers_may_differ(make_collection: Make) -> None:
    make_collection(delivery(long_name="a", comment="b")).insert(delivery(long_name="c", history="d"))


@pytest.mark.parametrize("sources", [(), ("a.nc", "b.nc", "c.nc")])
def test_among_several_inputs_the_message_says_which(sst: izc.Collection, sources: tuple[str, ...]) -> None:
    which = r"b\.nc \(input 2 of 3\)" if sources else "^input 2 of 3"
    with pytest.raises(izc.InvalidInputError, match=f"{which}: variable sst has units 'celsius'"):
        sst.insert([delivery(8), CELSIUS, delivery(12)], sources=sources)


def test_a_variable_that_is_added_has_the_units_of_the_first_that_brings_it(sst: izc.Collection) -> None:
    first = delivery(4).assign(wind=("time", np.zeros(3), {"units": "m/s"}))
    second = delivery(8).assign(wind=("time", np.ones(3), {"units": "km/h"}))
    with pytest.raises(izc.InvalidInputError, match="input 2 of 2: variable wind has units 'km/h'"):
        sst.insert([first, second], unknown="add")
    sst.insert([first, second], unknown="add", attributes="convert")
    np.testing.assert_allclose(sst.load().wind[6:], 1 / 3.6)


def test_the_schema_at_the_head_counts(sst: izc.Collection) -> None:
    sst.set_attributes({"units": "celsius"}, "sst")
    sst.insert(CELSIUS)
    with pytest.raises(izc.InvalidInputError, match="units 'K'"):
        sst.insert(KELVIN)


@pytest.mark.parametrize(
    ("encoding", "dtype"),
    [({}, "f4"), ({"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}, "f8")],
    ids=["float32", "packed"],
)
def test_converted_values_are_encoded_as_any_others(make_collection: Make, encoding: Any, dtype: str) -> None:
    collection = make_collection(delivery(values=KELVIN.sst.values.astype(dtype), encoding=encoding))
    collection.insert(CELSIUS.astype(dtype), attributes="convert")
    np.testing.assert_allclose(collection.load().sst, [280, np.nan, 290.5], atol=0.005)
    assert collection.load().sst.dtype == collection.schema.variables["sst"].dtype


def test_integers_are_converted_where_they_stay_integers(make_collection: Make) -> None:
    collection = make_collection(delivery(values=[1000, 2000, 3000], units="m"))
    collection.insert(delivery(values=[1, 2, 3], units="km"), attributes="convert")
    assert collection.load().sst.values.tolist() == [1000, 2000, 3000]
    with pytest.raises(izc.InvalidInputError, match="are no integers"):
        collection.insert(delivery(values=[1, 2, 3], units="mm"), attributes="convert", merge="replace")


@pytest.mark.parametrize(("name", "units"), [("depth", "km"), ("cycle", "%")])
def test_axis_and_keys_are_never_converted(make_collection: Make, name: str, units: str) -> None:
    rows = xr.Dataset({"cycle": ("row", [1, 2], {"units": "1"}), "depth": ("row", [10, 20], {"units": "m"})})
    collection = make_collection(rows, axis="depth", partitioning=izc.Sequence(("cycle",)))
    other = rows.copy(deep=True)
    other[name].attrs["units"] = units
    for attributes in ("refuse", "convert"):
        with pytest.raises(izc.InvalidInputError, match=f"variable {name} has units.*'keep'"):
            collection.insert(other, attributes=attributes)
    with pytest.raises(izc.InvalidInputError, match=f"rows have their place by {name}"):
        collection.insert(other, attributes="convert")
    collection.insert(other, attributes="keep")


@pytest.mark.parametrize(
    ("attrs", "match"),
    [
        ({"units": "kg"}, "no conversion.*mass"),
        ({"units": "nonsense"}, "no conversion.*nonsense"),
        ({"units": "celsius", "standard_name": "x"}, "only units are converted"),
        ({"units": "celsius", "units_metadata": "temperature: difference"}, "differences of temperatures"),
    ],
)
def test_what_cannot_be_converted_is_refused(make_collection: Make, attrs: Any, match: str) -> None:
    collection = make_collection(delivery(standard_name="sea_surface_temperature"))
    with pytest.raises(izc.InvalidInputError, match=match):
        collection.insert(delivery(**attrs), attributes="convert")


def test_without_pint_a_conversion_says_what_to_install(sst: izc.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pint", None)
    with pytest.raises(izc.InvalidInputError, match=r"pip install 'intake-zcollection\[units\]'"):
        sst.insert(CELSIUS, attributes="convert")
    with pytest.raises(izc.InvalidInputError, match="units 'celsius'"):
        sst.insert(CELSIUS)
    sst.insert(delivery(units="degK"), attributes="convert")


@pytest.mark.parametrize("wrong", ["Refuse", "drop", None, True])
def test_a_choice_that_there_is_not_is_refused(sst: izc.Collection, wrong: Any) -> None:
    with pytest.raises(izc.InvalidInputError, match=r"attributes=.* is not one of 'refuse', 'keep', 'convert'"):
        sst.insert(delivery(8), attributes=wrong)


def test_immutable_variables_are_compared_and_converted_too(make_collection: Make) -> None:
    def with_depth(values: list[float], units: str) -> xr.Dataset:
        return KELVIN.assign(depth=("level", values, {"units": units}))

    collection = make_collection(with_depth([1000.0, 2000.0], "m"), merge="replace")
    collection.insert(with_depth([1000.0, 2000.0], "m"))
    with pytest.raises(izc.InvalidInputError, match="variable depth has units 'km'"):
        collection.insert(with_depth([1.0, 2.0], "km"))
    collection.insert(with_depth([1.0, 2.0], "km"), attributes="convert")
    with pytest.raises(izc.InvalidInputError, match="variable depth has units 'km'"):
        collection.set_immutables(with_depth([1.0, 2.0], "km")[["depth"]])
    assert collection.load().depth.values.tolist() == [1000, 2000]


def test_a_conversion_can_be_sent_to_workers(sst: izc.Collection) -> None:
    conversion = pickle.loads(pickle.dumps(Conversion(sst.schema.variables["sst"], "celsius", "K")))
    np.testing.assert_allclose(conversion(np.array([0.0])), [273.15])
