"""CF encoding: what goes in comes out, plain xarray reads the same, and what cannot be held is refused by name."""

import re
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from intake_zcollection.errors import InvalidInputError
from intake_zcollection.schema import SchemaVariable, Values
from intake_zcollection.schema.encoding import decode, encode
from intake_zcollection.schema.template import schema_from_template

PLAIN_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)

TIMES: dict[str, tuple[dict[str, Any], int]] = {
    "days_float32": ({"units": "days since 1950-01-01", "dtype": "float32"}, 99_000),
    "days_float64": ({"units": "days since 1950-01-01", "dtype": "float64"}, 99_000),
    "days_float64_filled": ({"units": "days since 1950-01-01", "dtype": "float64", "_FillValue": 1e20}, 99_000),
    "days_int32": ({"units": "days since 1950-01-01", "dtype": "int32"}, 99_000),
    "days_int16_filled": ({"units": "days since 1950-01-01", "dtype": "int16", "_FillValue": -32768}, 32_767),
    "days_int32_missing": ({"units": "days since 1950-01-01", "dtype": "int32", "missing_value": 999_999}, 99_000),
    "hours_since_noon": ({"units": "hours since 1990-01-01 12:00:00", "dtype": "int32"}, 2_000_000),
    "seconds_int64": ({"units": "seconds since 2000-01-01"}, 8_000_000_000),
    "seconds_int32_filled": (
        {"units": "seconds since 2000-01-01", "dtype": "int32", "_FillValue": -(2**31)},
        2**31 - 1,
    ),
    "microseconds": ({"units": "microseconds since 1970-01-01"}, 9 * 10**15),
    "nanoseconds": ({"units": "nanoseconds since 1970-01-01"}, 9 * 10**18),
    "nanoseconds_filled": ({"units": "nanoseconds since 1970-01-01", "_FillValue": -(2**62)}, 4 * 10**18),
    "standard": ({"units": "days since 1950-01-01", "calendar": "standard", "dtype": "int32"}, 99_000),
    "gregorian": ({"units": "days since 1950-01-01", "calendar": "gregorian", "dtype": "int32"}, 99_000),
    "proleptic": ({"units": "days since 1950-01-01", "calendar": "proleptic_gregorian", "dtype": "int32"}, 99_000),
}
"""Encodings of times, and the largest number on either side of 0 that datetime64[ns] and the dtype can hold."""

DURATIONS: dict[str, tuple[dict[str, Any], int]] = {
    "nanoseconds": ({}, 9 * 10**18),
    "days_int32": ({"units": "days", "dtype": "int32"}, 99_000),
    "hours_int64": ({"units": "hours", "dtype": "int64"}, 2_000_000),
    "hours_float64": ({"units": "hours", "dtype": "float64"}, 2_000_000),
    "seconds_int16_filled": ({"units": "seconds", "dtype": "int16", "_FillValue": -32768}, 32_767),
    "minutes_missing": ({"units": "minutes", "dtype": "int32", "missing_value": -1}, 10_000_000),
    "half_days": ({"units": "days", "dtype": "int16", "scale_factor": 0.5}, 32_767),
    "days_after_five": ({"units": "days", "dtype": "int16", "add_offset": 5}, 32_767),
}

PACKINGS: dict[str, dict[str, Any]] = {
    "celsius_int16": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768},
    "uint8": {"dtype": "uint8", "scale_factor": 0.5, "_FillValue": 255},
    "falling": {"dtype": "int16", "scale_factor": -0.25, "_FillValue": 32767},
    "offset_alone": {"dtype": "int32", "add_offset": 1000.0, "_FillValue": -1_000_000},
    "int32": {"dtype": "int32", "scale_factor": 1e-6, "add_offset": -3.0, "_FillValue": -(2**31)},
    "missing_value": {"dtype": "int16", "scale_factor": 0.1, "missing_value": -9999},
}

MASKINGS: dict[str, dict[str, Any]] = {
    "int8": {"dtype": "int8", "_FillValue": -128},
    "uint8": {"dtype": "uint8", "_FillValue": 255},
    "int16": {"dtype": "int16", "_FillValue": -1},
    "int32": {"dtype": "int32", "_FillValue": 0},
    "int64": {"dtype": "int64", "_FillValue": -(2**63)},
    "uint64": {"dtype": "uint64", "_FillValue": 2**64 - 1},
    "missing_value": {"dtype": "int16", "missing_value": -9999},
}


@cache
def variable(dtype: str, zarr_format: Literal[2, 3] = 3, /, **encoding: Any) -> SchemaVariable:
    """The schema's variable of a template with this dtype and encoding."""
    template = xr.Dataset({"ssh": ("time", np.zeros(1, dtype), {}, encoding)})
    schema = schema_from_template(template, axis="time", dimension="time", zarr_format=zarr_format)
    return schema.variables["ssh"]


def read_by_xarray(variable: SchemaVariable, stored: Values) -> Values:
    """What plain xarray makes of stored values and the attributes that a fragment has."""
    dims = tuple(f"d{i}" for i in range(np.ndim(stored)))
    return xr.decode_cf(xr.Dataset({"ssh": (dims, stored, dict(variable.cf))})).ssh.values


def assert_same_bits(actual: Values, expected: Values) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert np.ascontiguousarray(actual).tobytes() == np.ascontiguousarray(expected).tobytes()


def assert_comes_back(variable: SchemaVariable, values: Values) -> None:
    """Encode, decode here and in plain xarray: the same values each time, NaN and NaT included."""
    stored = encode(variable, values)
    assert stored.dtype == variable.stored_dtype
    assert decode(variable, stored).dtype == variable.dtype
    for back in (decode(variable, stored), read_by_xarray(variable, stored)):
        np.testing.assert_array_equal(back, values, strict=False)


# Values stored as they are


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", PLAIN_DTYPES)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_plain_values_come_back_bit_for_bit(dtype: str, zarr_format: int, data: st.DataObject) -> None:
    values = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
    plain = variable(dtype, zarr_format)
    stored = encode(plain, values)
    assert plain.dtype == np.dtype(dtype)
    assert_same_bits(decode(plain, stored), values)
    assert_same_bits(read_by_xarray(plain, stored), values)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_special_numbers_come_back_bit_for_bit(dtype: str) -> None:
    info = np.finfo(dtype)
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, info.smallest_subnormal, info.max, info.min], dtype)
    plain = variable(dtype)
    assert_same_bits(decode(plain, encode(plain, values)), values)


@pytest.mark.parametrize("fill", [np.nan, -999.0, 1e20])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_floats_with_a_fill_value_come_back_equal(dtype: str, fill: float, data: st.DataObject) -> None:
    width: Any = 8 * np.dtype(dtype).itemsize
    numbers = st.floats(width=width).filter(lambda x: x != np.dtype(dtype).type(fill))
    assert_comes_back(
        variable(dtype, _FillValue=fill), data.draw(hnp.arrays(dtype, st.integers(0, 6), elements=numbers))
    )


def test_a_fill_value_other_than_nan_stands_for_nan_in_the_stored_values() -> None:
    stored = encode(variable("float32", _FillValue=-999.0), np.array([1.5, np.nan], "f4"))
    assert stored.tolist() == [1.5, -999.0]


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int64", np.array([1, -2], "i2")),
        ("float64", np.array([1, 2**53, -(2**53)])),
        ("float64", np.array([0.1, np.nan], "f4")),
        ("float32", np.array([True, False])),
        ("complex128", np.array([1.5, -0.0])),
        ("complex128", np.array([np.nan, np.inf])),
        ("complex64", np.array([7], "i2")),
    ],
)
def test_values_of_a_narrower_dtype_are_widened_exactly(dtype: str, values: Values) -> None:
    plain = variable(dtype)
    back = decode(plain, encode(plain, values))
    assert back.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(back, values)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@settings(deadline=None, max_examples=30)
@given(values=hnp.arrays("int64", st.integers(1, 4), elements=st.integers(-(2**60), 2**60)))
def test_integers_come_back_from_floats_equal_or_are_refused(dtype: str, values: Values) -> None:
    plain = variable(dtype)
    exact = all(int(np.dtype(dtype).type(int(value))) == int(value) for value in values)
    if exact:
        assert decode(plain, encode(plain, values)).tolist() == [float(int(value)) for value in values]
    else:
        with pytest.raises(InvalidInputError, match=f"variable ssh: .* have no exact {dtype}"):
            encode(plain, values)


@pytest.mark.parametrize("number", [np.int64(2**53 + 1), np.int64(2**63 - 1), np.uint64(2**64 - 1)])
def test_integers_that_no_float_holds_are_refused(number: np.integer[Any]) -> None:
    with pytest.raises(InvalidInputError, match=rf"1 of 2 values, the first of them {number}, have no exact float64"):
        encode(variable("float64"), np.array([number, 1], number.dtype))


@pytest.mark.parametrize(
    ("dtype", "encoding", "value"),
    [
        ("float32", {}, np.float64(0.1)),
        ("float32", {}, np.float64(1e300)),
        ("float32", {"_FillValue": -999.0}, np.float64(0.1)),
        ("float32", {"_FillValue": -999.0}, np.float64(1e300)),
        ("int8", {}, np.int16(300)),
        ("int16", {}, np.float64(7.5)),
        ("uint8", {}, np.int8(-1)),
    ],
)
def test_values_that_a_narrower_dtype_would_change_are_refused(
    dtype: str, encoding: dict[str, Any], value: Any
) -> None:
    message = re.escape(f"variable ssh: 1 of 2 values, the first of them {value}")
    with pytest.raises(InvalidInputError, match=message):
        encode(variable(dtype, **encoding), np.array([1, value], value.dtype))


# Masked integers


@pytest.mark.parametrize("encoding", MASKINGS.values(), ids=MASKINGS)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_masked_integers_come_back_equal(encoding: dict[str, Any], data: st.DataObject) -> None:
    masked = variable("float64", **encoding)
    limits, digits = np.iinfo(encoding["dtype"]), 2 ** (np.finfo(masked.dtype).nmant + 1)
    fill = encoding.get("_FillValue", encoding.get("missing_value"))
    numbers = st.integers(max(limits.min, -digits), min(limits.max, digits)).filter(lambda number: number != fill)
    values = np.array(data.draw(st.lists(st.just(np.nan) | numbers, max_size=6)), masked.dtype)
    assert_comes_back(masked, values)


def test_masked_integers_are_stored_as_these_integers() -> None:
    stored = encode(variable("float64", dtype="int16", _FillValue=-1), np.array([7.0, np.nan, -3.0]))
    assert stored.dtype == np.int16
    assert stored.tolist() == [7, -1, -3]


def test_integers_are_taken_for_masked_integers() -> None:
    stored = encode(variable("float64", dtype="int16", _FillValue=-1), np.array([7, 300], "i4"))
    assert stored.tolist() == [7, 300]


def test_a_fraction_in_a_masked_integer_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"ssh: 1 of 2 values, the first of them 7.5, are no integers.*int16"):
        encode(variable("float64", dtype="int16", _FillValue=-1), np.array([7.0, 7.5]))


@pytest.mark.parametrize("value", [32768.0, -32769.0, np.inf, -np.inf])
def test_a_masked_integer_outside_its_dtype_is_refused(value: float) -> None:
    with pytest.raises(InvalidInputError, match=rf"first of them {value}, are outside the range .* int16, -32768 to"):
        encode(variable("float64", dtype="int16", _FillValue=-1), np.array([0.0, value]))


@pytest.mark.parametrize("value", [2.0**63, -(2.0**63) - 2048])
def test_a_masked_integer_just_outside_int64_is_refused(value: float) -> None:
    with pytest.raises(InvalidInputError, match="outside the range that it can store as int64"):
        encode(variable("float64", dtype="int64", _FillValue=-1), np.array([value]))


def test_the_largest_float_below_the_end_of_int64_is_stored() -> None:
    masked = variable("float64", dtype="int64", _FillValue=-1)
    assert encode(masked, np.array([2.0**63 - 1024])).tolist() == [2**63 - 1024]


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_an_integer_that_would_be_read_back_rounded_is_refused(dtype: str) -> None:
    # Masked integers are read as float64.
    masked = variable("float64", dtype=dtype, _FillValue=0)
    with pytest.raises(InvalidInputError, match=f"1 of 2 values, the first of them {2**53 + 1}"):
        encode(masked, np.array([1, 2**53 + 1], dtype))


# Packed numbers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("encoding", PACKINGS.values(), ids=PACKINGS)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_packed_numbers_come_back_within_half_a_step(encoding: dict[str, Any], dtype: str, data: st.DataObject) -> None:
    packed = variable("float64", **encoding)
    scale, offset = encoding.get("scale_factor", 1.0), encoding.get("add_offset", 0.0)
    fill = encoding.get("_FillValue", encoding.get("missing_value"))
    limits = np.iinfo(encoding["dtype"])
    # Away from the ends and from the fill value: those have tests of their own.
    steps: Any = st.floats(0.99 * limits.min, 0.99 * limits.max)
    steps = steps.filter(lambda step: abs(step - fill) > 1)
    numbers = st.just(np.nan) | steps.map(lambda step: step * scale + offset)
    values = np.array(data.draw(st.lists(numbers, max_size=6)), dtype)
    stored = encode(packed, values)
    assert stored.dtype == np.dtype(encoding["dtype"])
    for back in (decode(packed, stored), read_by_xarray(packed, stored)):
        assert back.dtype == packed.dtype
        np.testing.assert_array_equal(np.isnan(back), np.isnan(values))
        rounding = np.finfo(packed.dtype).eps * (abs(values) + abs(offset))
        assert not np.any(abs(back.astype("f8") - values) > abs(scale) / 2 + 2 * rounding)


def test_packing_rounds_to_the_nearest_step() -> None:
    packed = variable("float64", **PACKINGS["celsius_int16"])
    assert encode(packed, np.array([280.0, 280.014, 280.016, 279.984, np.nan])).tolist() == [0, 1, 2, -2, -32768]


@pytest.mark.parametrize(("value", "stored"), [(607.67, 32767), (607.674, 32767), (-47.67, -32767)])
def test_packed_numbers_at_the_ends_of_the_range_are_stored(value: float, stored: int) -> None:
    assert encode(variable("float64", **PACKINGS["celsius_int16"]), np.array([value])).tolist() == [stored]


@pytest.mark.parametrize("value", [607.68, -48.0, 1e30, np.inf, -np.inf])
def test_packed_numbers_outside_the_range_are_refused(value: float) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        encode(variable("float64", **PACKINGS["celsius_int16"]), np.array([280.0, np.nan, value]))
    message = (
        f"variable ssh: 1 of 3 values, the first of them {value}, are outside the range that it can store as int16"
    )
    assert message in str(refusal.value)
    assert "-47.68 to 607.67" in str(refusal.value)


def test_the_range_of_a_negative_scale_is_named_from_low_to_high() -> None:
    with pytest.raises(InvalidInputError, match=r"int16, -8191.75 to 8192;"):
        encode(variable("float64", **PACKINGS["falling"]), np.array([9000.0]))


def test_a_scale_factor_in_an_array_of_one_is_its_number() -> None:
    # Some netCDF files have their packing attributes like that, and xarray leaves them so.
    template = xr.Dataset({"ssh": ("time", [0.0], {}, {"dtype": "int16", "scale_factor": np.array([0.5])})})
    packed = schema_from_template(template, axis="time", dimension="time", zarr_format=3).variables["ssh"]
    assert encode(packed, np.array([1.0, 2.5])).tolist() == [2, 5]


@pytest.mark.parametrize("value", [1e38, 123456789.1, 2000000.1], ids=["overflow", "many steps", "one step"])
def test_numbers_packed_as_floats_are_refused_where_they_lose_more_than_half_a_step(value: float) -> None:
    packed = variable("float64", dtype="float32", scale_factor=0.1)
    with pytest.raises(InvalidInputError, match=r"variable ssh: 1 of 2 values"):
        encode(packed, np.array([1.0, value]))


def test_float64_that_float32_would_move_by_many_steps_is_refused() -> None:
    # The template's dtype is float32, whose numbers near 1234 are a hundred steps apart.
    packed = variable("float32", dtype="int32", scale_factor=1e-6, add_offset=1000.0)
    assert packed.dtype == np.float32
    encode(packed, np.array([1234.5678], "f4"))
    with pytest.raises(InvalidInputError, match=r"1 of 2 values, the first of them 1234.56789, have no exact float32"):
        encode(packed, np.array([1000.0, 1234.56789]))


@pytest.mark.parametrize("scale", [2, np.int16(2)], ids=["int", "int16"])
def test_a_scale_of_integers_leaves_floats_floats(scale: Any) -> None:
    # xarray decodes to integers by it, which NaN is none of.
    packed = variable("float32", dtype="int16", scale_factor=scale, _FillValue=-1)
    assert_comes_back(packed, np.array([4, np.nan, -6], "f4"))


def test_float32_is_decoded_in_float32_where_its_packing_is_float32() -> None:
    packed = variable("float32", dtype="int16", scale_factor=np.float32(0.001), add_offset=np.float32(273.15))
    stored = np.arange(-(2**15), 2**15).astype("i2")
    expected = stored.astype("f4") * np.float32(0.001) + np.float32(273.15)
    assert_same_bits(decode(packed, stored), expected)
    assert encode(packed, expected).tolist() == stored.tolist()


def test_a_variable_recorded_as_float64_is_read_so_as_before() -> None:
    # What earlier releases recorded of float32 packed by a float32 scale.
    recorded = replace(variable("float32", dtype="int16", scale_factor=np.float32(0.01)), dtype=np.dtype("float64"))
    back = decode(recorded, np.array([29012], "i2"))
    assert_same_bits(back, np.array([29012 * float(np.float32(0.01))]))


# Missing values


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("encoding", "stored"),
    [
        ({"dtype": "int16", "scale_factor": 0.001, "add_offset": 293.0, "_FillValue": -32768}, -32768),
        ({"dtype": "int32", "scale_factor": 1e-4, "add_offset": 1.3e6, "missing_value": 2**31 - 1}, 2**31 - 1),
        ({"dtype": "uint8", "scale_factor": 0.5, "add_offset": 1.0, "_FillValue": 255}, 255),
        ({"dtype": "uint8", "scale_factor": -1.0, "add_offset": -5.0, "_FillValue": 0}, 0),
    ],
    ids=["kelvin", "range", "unsigned", "falling"],
)
def test_nan_is_the_fill_value_where_the_packing_has_no_zero(dtype: str, encoding: dict[str, Any], stored: int) -> None:
    packed = variable(dtype, **encoding)
    assert encode(packed, np.array([np.nan], dtype)).tolist() == [stored]
    assert np.isnan(decode(packed, np.array([stored], packed.stored_dtype)))


@pytest.mark.parametrize(
    "encoding",
    [{"dtype": "int16", "scale_factor": 0.1}, {"dtype": "int32", "add_offset": 5.0}],
    ids=["scale", "offset"],
)
def test_nan_is_refused_where_there_is_no_fill_value(encoding: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"ssh: 2 of 3 values, .*are missing.*, and it has no _FillValue"):
        encode(variable("float64", **encoding), np.array([1.0, np.nan, np.nan]))


@pytest.mark.parametrize(
    ("dtype", "encoding", "value"),
    [
        ("float32", {"_FillValue": -999.0}, -999.0),
        ("float64", {"missing_value": 1e20}, 1e20),
        ("float64", {"dtype": "int16", "_FillValue": -1}, -1.0),
        ("float64", {"dtype": "int16", "missing_value": -1}, -1.0),
        ("float64", {"dtype": "int16", "scale_factor": 0.5, "_FillValue": 20}, 10.0),
        ("float64", {"dtype": "int16", "scale_factor": 0.5, "_FillValue": 20}, 10.1),
    ],
)
def test_a_value_stored_as_the_fill_value_is_refused(dtype: str, encoding: dict[str, Any], value: float) -> None:
    values = np.array([1.0, value, np.nan], dtype)
    with pytest.raises(InvalidInputError) as refusal:
        encode(variable(dtype, **encoding), values)
    assert f"variable ssh: 1 of 3 values, the first of them {values[1]}, are stored as" in str(refusal.value)
    assert "the fill value, and would read as missing" in str(refusal.value)


# Times


@pytest.mark.parametrize("zarr_format", [2, 3])
@settings(deadline=None, max_examples=30)
@given(values=hnp.arrays("M8[ns]", hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
def test_any_time_comes_back_bit_for_bit_by_default(zarr_format: int, values: Values) -> None:
    time = variable("M8[ns]", zarr_format)
    stored = encode(time, values)
    assert stored.dtype == np.int64
    assert_same_bits(decode(time, stored), values)
    assert_same_bits(read_by_xarray(time, stored), values)


def test_times_before_1970_to_the_nanosecond_and_missing_ones_come_back_by_default() -> None:
    times = ["1969-12-31T23:59:59.999999999", "1677-09-21T00:12:43.145224193", "NaT", "2262-04-11T23:47:16.854775807"]
    assert_comes_back(variable("M8[ns]"), np.array(times, "M8[ns]"))


@settings(deadline=None, max_examples=30)
@given(
    values=hnp.arrays(
        "m8[ns]",
        st.integers(0, 5),
        elements=hnp.from_dtype(np.dtype("m8[ns]")).filter(lambda value: not np.isnat(value)),
    )
)
def test_any_duration_comes_back_bit_for_bit_by_default(values: Values) -> None:
    duration = variable("m8[ns]")
    stored = encode(duration, values)
    assert_same_bits(decode(duration, stored), values)
    assert_same_bits(read_by_xarray(duration, stored), values)


def test_a_missing_duration_comes_back_by_default() -> None:
    assert_comes_back(variable("m8[ns]"), np.array(["NaT", 5], "m8[ns]"))


@pytest.mark.parametrize(("encoding", "most"), TIMES.values(), ids=TIMES)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_times_come_back_equal_in_the_units_of_the_schema(
    encoding: dict[str, Any], most: int, data: st.DataObject
) -> None:
    time = variable("M8[ns]", **encoding)
    values = read_by_xarray(time, _stored_numbers(time, most, data))
    assert_comes_back(time, values)


@pytest.mark.parametrize(("encoding", "most"), DURATIONS.values(), ids=DURATIONS)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_durations_come_back_equal_in_the_units_of_the_schema(
    encoding: dict[str, Any], most: int, data: st.DataObject
) -> None:
    duration = variable("m8[ns]", **encoding)
    values = read_by_xarray(duration, _stored_numbers(duration, most, data)).astype("m8[ns]")
    assert_comes_back(duration, values)


def _stored_numbers(variable: SchemaVariable, most: int, data: st.DataObject) -> Values:
    """Numbers as they may be stored: integers, fractions where the dtype has them, fill values where it has one."""
    dtype = variable.stored_dtype
    fill = variable.cf.get("_FillValue", variable.cf.get("missing_value"))
    numbers: st.SearchStrategy[Any] = st.integers(-most, most)
    if dtype.kind == "f":
        width: Any = 8 * dtype.itemsize
        floats = st.floats(-most, most, width=width)
        numbers = numbers | floats | st.just(np.nan if fill is None else fill)
    elif fill is not None:
        numbers = numbers | st.just(fill)
    return np.array(data.draw(st.lists(numbers, min_size=1, max_size=5)), dtype)


def test_times_near_the_origin_of_float_units_come_back() -> None:
    # A float near 0 is finer than a nanosecond, and xarray truncates to one.
    time = variable("M8[ns]", units="days since 1950-01-01", dtype="float64")
    assert_comes_back(time, read_by_xarray(time, np.array([-1e-5, *np.linspace(-10, 10, 500)])))


def test_the_schema_has_durations_in_nanoseconds_whatever_their_units() -> None:
    # As xarray reads them; a template's own data fits its schema.
    assert variable("m8[ns]", units="days", dtype="int32").dtype == np.dtype("m8[ns]")


def test_a_duration_does_not_depend_on_the_values_beside_it() -> None:
    # xarray decodes floats of durations by the finest resolution that any of them needs.
    duration = variable("m8[ns]", units="hours", dtype="float64")
    values = np.array([1029620247616476032, 514285714285], "m8[ns]")
    stored = encode(duration, values)
    alone = np.concatenate([decode(duration, stored[i : i + 1]) for i in range(2)])
    np.testing.assert_array_equal(alone, values)


@pytest.mark.parametrize("encoding", [{}, {"units": "days", "dtype": "int32"}], ids=["default", "days"])
def test_no_durations_are_read_in_nanoseconds_too(encoding: dict[str, Any]) -> None:
    # xarray reads an empty array in other units than a full one.
    duration = variable("m8[ns]", **encoding)
    assert decode(duration, encode(duration, np.zeros(0, "m8[ns]"))).dtype == np.dtype("m8[ns]")


def test_times_are_stored_as_numbers_of_the_units() -> None:
    time = variable("M8[ns]", units="days since 1950-01-01", dtype="int32", _FillValue=-1)
    stored = encode(time, np.array(["1950-01-11", "NaT", "1949-12-30"], "M8[ns]"))
    assert stored.dtype == np.int32
    assert stored.tolist() == [10, -1, -2]


@pytest.mark.parametrize("dtype", ["int32", "float64"])
@pytest.mark.parametrize(
    ("origin", "date"), [("1700-01-01", "2200-01-01"), ("2200-01-01", "1700-01-01"), ("1800-01-01", "2100-01-01")]
)
def test_times_too_far_from_the_origin_of_their_units_are_refused(origin: str, date: str, dtype: str) -> None:
    # More than 292 years apart: more nanoseconds than an int64 counts, and plain xarray would not read them either.
    time = variable("M8[ns]", units=f"days since {origin}", dtype=dtype)
    with pytest.raises(InvalidInputError, match=f"{date}.* cannot be held exactly as {dtype} 'days since {origin}'"):
        encode(time, np.array([date], "M8[ns]"))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "D"])
def test_times_of_coarser_resolution_are_taken(unit: str) -> None:
    dates = np.array(["1960-02-29", "2022-01-01"], f"M8[{unit}]")
    time = variable("M8[ns]")
    assert_same_bits(decode(time, encode(time, dates)), dates.astype("M8[ns]"))


@pytest.mark.parametrize(
    "encoding", [{}, {"units": "days since 1950-01-01", "dtype": "float64"}], ids=["default", "days"]
)
@pytest.mark.parametrize(
    ("unit", "date"), [("s", "3000-01-01"), ("us", "1600-01-01"), ("D", "2262-04-12"), ("s", "1677-09-21")]
)
def test_times_that_nanoseconds_cannot_count_are_refused(encoding: dict[str, Any], unit: str, date: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"variable ssh: 1 of 2 values, the first of them {date}"):
        encode(variable("M8[ns]", **encoding), np.array(["2022-01-01", date], f"M8[{unit}]"))


@pytest.mark.parametrize("encoding", [{}, {"units": "days", "dtype": "float64"}], ids=["default", "days"])
@pytest.mark.parametrize("seconds", [10**11, -(10**11)])
def test_durations_that_nanoseconds_cannot_count_are_refused(encoding: dict[str, Any], seconds: int) -> None:
    with pytest.raises(InvalidInputError, match=rf"variable ssh: 1 of 2 values, the first of them {seconds}"):
        encode(variable("m8[ns]", **encoding), np.array([1, seconds], "m8[s]"))


@pytest.mark.parametrize(
    ("encoding", "time"),
    [
        ({"units": "days since 1950-01-01", "dtype": "int32"}, "2022-01-01T12:00"),
        ({"units": "days since 1950-01-01", "dtype": "int32"}, "2022-01-01T00:00:00.000000001"),
        ({"units": "seconds since 2000-01-01"}, "1999-12-31T23:59:59.5"),
        ({"units": "days since 1950-01-01", "dtype": "float32"}, "2022-01-01T00:00:01"),
        ({"units": "days since 1950-01-01", "dtype": "float64"}, "2022-01-01T00:00:00.000000001"),
        ({"units": "microseconds since 1970-01-01", "_FillValue": -1}, "2022-01-01T00:00:00.000000001"),
        ({"units": "days since 1950-01-01", "dtype": "int16"}, "2049-01-01"),
        ({"units": "days since 1950-01-01", "dtype": "uint16"}, "1949-12-31"),
        ({"units": "seconds since 2000-01-01", "dtype": "int32"}, "2068-12-31"),
        ({"dtype": "int32"}, "2022-01-01"),
        ({"units": "days since 1950-01-01", "dtype": "int32", "_FillValue": 10}, "1950-01-11"),
        ({"units": "nanoseconds since 2200-01-01"}, "1700-01-01"),
        ({"units": "nanoseconds since 1700-01-01"}, "2200-01-01"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_times_that_the_units_cannot_hold_are_refused(encoding: dict[str, Any], time: str) -> None:
    coarse = variable("M8[ns]", **encoding)
    exact = decode(coarse, np.zeros(1, coarse.stored_dtype))
    wrong = np.array([time], "M8[ns]")
    with pytest.raises(InvalidInputError) as refusal:
        encode(coarse, np.concatenate([exact, wrong]))
    message = f"1 of 2 values, the first of them {wrong[0]}, cannot be held exactly as {coarse.stored_dtype} '"
    assert message in str(refusal.value)
    assert "since" in str(refusal.value)


@pytest.mark.parametrize(
    ("encoding", "nanoseconds"),
    [
        ({"units": "days", "dtype": "int32"}, 1),
        ({"units": "seconds", "dtype": "int16", "_FillValue": -1}, 10**8),
        ({"units": "seconds", "dtype": "int16", "_FillValue": -1}, 40_000 * 10**9),
        ({"units": "hours", "dtype": "int32"}, 3_600_000_000_001),
        ({"units": "milliseconds", "dtype": "int64"}, 999_999),
    ],
)
def test_durations_that_the_units_cannot_hold_are_refused(encoding: dict[str, Any], nanoseconds: int) -> None:
    with pytest.raises(InvalidInputError, match=r"variable ssh: 1 of 2 values.* cannot be held exactly as .* '\w+'"):
        encode(variable("m8[ns]", **encoding), np.array([0, nanoseconds], "m8[ns]"))


@pytest.mark.parametrize("dtype", ["M8[ns]", "m8[ns]"])
def test_nat_is_refused_in_integers_without_a_fill_value(dtype: str) -> None:
    units = "days since 1950-01-01" if dtype == "M8[ns]" else "days"
    values = np.array([0, "NaT", "NaT"], dtype)
    with pytest.raises(InvalidInputError, match=r"ssh: 2 of 3 values, .*NaT, are missing.*, and it has no _FillValue"):
        encode(variable(dtype, units=units, dtype="int32"), values)


# All kinds of encoding alike


KINDS: dict[str, tuple[str, dict[str, Any], Any, Any]] = {
    "plain": ("float64", {}, 1.5, np.nan),
    "masked_float": ("float64", {"_FillValue": -999.0}, 1.5, np.nan),
    "masked_integer": ("float64", {"dtype": "int16", "_FillValue": -1}, 7.0, np.nan),
    "packed": ("float64", {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1}, 1.5, np.nan),
    "time": ("M8[ns]", {}, np.datetime64("2022-01-01", "ns"), np.datetime64("NaT", "ns")),
    "days": (
        "M8[ns]",
        {"units": "days since 1950-01-01", "dtype": "int32", "_FillValue": -1},
        np.datetime64("2022-01-01", "ns"),
        np.datetime64("NaT", "ns"),
    ),
    "float_days": (
        "M8[ns]",
        {"units": "days since 1950-01-01", "dtype": "float64"},
        np.datetime64("2022-01-01", "ns"),
        np.datetime64("NaT", "ns"),
    ),
    "duration": (
        "m8[ns]",
        {"units": "seconds", "dtype": "int32", "_FillValue": -1},
        np.timedelta64(10**9, "ns"),
        np.timedelta64("NaT", "ns"),
    ),
}


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3), (2, 3)], ids=str)
@pytest.mark.parametrize("missing", [False, True], ids=["present", "missing"])
@pytest.mark.parametrize("kind", KINDS)
def test_values_of_any_shape_keep_it(kind: str, missing: bool, shape: tuple[int, ...]) -> None:
    dtype, _, value, gap = KINDS[kind]
    values = np.full(shape, gap if missing else value, dtype)
    encoded = encode(_variable_of(kind), values)
    assert encoded.shape == shape
    decoded = decode(_variable_of(kind), encoded)
    assert decoded.shape == shape
    np.testing.assert_array_equal(decoded.astype(dtype), values)


@pytest.mark.parametrize("kind", KINDS)
def test_big_endian_values_are_taken(kind: str) -> None:
    dtype, _, value, gap = KINDS[kind]
    values = np.array([value, gap], dtype)
    swapped = values.astype(values.dtype.newbyteorder(">"))
    encoded = encode(_variable_of(kind), swapped)
    assert encoded.dtype == _variable_of(kind).stored_dtype
    np.testing.assert_array_equal(decode(_variable_of(kind), encoded).astype(dtype), values)


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_leaves_the_given_values_alone(kind: str) -> None:
    dtype, _, value, gap = KINDS[kind]
    values = np.array([value, gap], dtype)
    before = values.copy()
    encode(_variable_of(kind), values)
    assert_same_bits(values, before)


def _variable_of(kind: str) -> SchemaVariable:
    dtype, encoding, *_ = KINDS[kind]
    return variable(dtype, **encoding)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", [">f4", ">i2", ">c16", ">u8"])
def test_a_big_endian_template_is_read_in_the_dtype_of_the_schema(dtype: str, zarr_format: int) -> None:
    swapped = variable(dtype, zarr_format)
    back = decode(swapped, encode(swapped, np.array([1, 2], dtype)))
    assert back.dtype == swapped.dtype
    assert back.tolist() == [1, 2]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("dtype", "encoding"),
    [
        ("f4", {"dtype": ">f4"}),
        ("i2", {"dtype": ">i2"}),
        ("f8", {"dtype": ">i2", "scale_factor": 0.5}),
        ("f8", {"dtype": ">i4", "_FillValue": -1}),
        ("M8[ns]", {"dtype": ">i8"}),
        ("M8[ns]", {"dtype": ">f8", "units": "days since 1950-01-01"}),
        ("m8[ns]", {"dtype": ">i4", "units": "nanoseconds"}),
    ],
    ids=str,
)
def test_a_big_endian_encoding_is_read_in_the_dtype_of_the_schema(
    dtype: str, encoding: dict[str, Any], zarr_format: int
) -> None:
    # The encoding of whatever was read from classic NetCDF.
    swapped = variable(dtype, zarr_format, **encoding)
    values = np.array(["1970-01-01", "1980-01-01"], dtype) if dtype == "M8[ns]" else np.array([0, 1], dtype)
    stored = encode(swapped, values)
    assert stored.dtype == swapped.stored_dtype
    for back in (decode(swapped, stored), read_by_xarray(swapped, stored)):
        np.testing.assert_array_equal(back, values)
    assert decode(swapped, stored).dtype == swapped.dtype
