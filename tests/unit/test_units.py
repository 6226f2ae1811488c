"""Which units are one, with pint and without, and values in others."""

import sys

import numpy as np
import pytest

from intake_zcollection.schema.units import convert_units, is_same_unit, spelling_of

SPELLINGS = [
    ("m/s", "m s-1"),
    ("meter second-1", "m/s"),
    ("m.s-1", "m*s**-1"),
    ("m s^-1", " m   s-1 "),
    ("metres per second", "m s⁻¹"),
    ("kg m-2 s-1", "kilogram/m2/s"),
    ("m2", "m²"),
    ("m m", "m2"),
    ("1/s", "s-1"),
    ("K", "kelvin"),
    ("degC", "degree_Celsius"),
    ("celsius", "°C"),
    ("degrees_north", "degree_N"),
    ("days", "d"),
    ("%", "percent"),
    ("1", ""),
    ("0.10 m", "1e-1 m"),
]

OTHERS = [
    ("K", "celsius"),
    ("m", "km"),
    ("m s-1", "m s"),
    ("m s-2", "m s-1"),
    ("m/s", "s/m"),
    ("1000001 m", "1000000 m"),
    ("mm", "Mm"),
    ("k", "K"),
    ("%", "1"),
    ("Pa s", "Pas"),
    ("days since 2000-01-01", "days since 2001-01-01"),
    ("(m", "m"),
    ("nonsense", "rubbish"),
]


@pytest.fixture
def no_pint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pint", None)


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
def test_spellings_of_one_unit_are_one(one: str, other: str, no_pint: None) -> None:
    assert is_same_unit(one, other)
    assert is_same_unit(other, one)


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_other_units_are_others_without_pint(one: str, other: str, no_pint: None) -> None:
    assert not is_same_unit(one, other)


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_other_units_are_others(one: str, other: str) -> None:
    assert not is_same_unit(one, other)


@pytest.mark.parametrize(("one", "other"), [("hPa", "mbar"), ("km", "1000 m"), ("J", "N m"), ("Hz", "s-1")])
def test_pint_knows_other_names_of_a_unit(one: str, other: str) -> None:
    assert is_same_unit(one, other)


def test_numbers_as_units_are_texts() -> None:
    assert is_same_unit(1, "1")
    assert not is_same_unit(np.float64(0.01), 1)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("celsius", "K", [273.15, 283.15]),
        ("degF", "degC", [-160 / 9, -110 / 9]),
        ("hPa", "Pa", [0, 1000]),
        ("km h-1", "m/s", [0, 10 / 3.6]),
        ("%", "1", [0, 0.1]),
        ("1e-3 m", "km", [0, 1e-5]),
        ("degrees_north", "radian", [0, np.pi / 18]),
    ],
)
def test_values_are_converted(source: str, target: str, expected: list[float]) -> None:
    np.testing.assert_allclose(convert_units(np.array([0, 10]), source, target), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "source", ["kg", "9**9**9**9 m", "__import__('os') m", "nonsense", "m-s", "m**999999999", "(m)", "0-1 m", "1e999 m"]
)
def test_what_is_no_unit_or_of_another_kind_is_not_converted_nor_evaluated(source: str) -> None:
    with pytest.raises(ValueError, match="into 'm'"):
        convert_units(np.zeros(1), source, "m")


def test_what_is_not_understood_is_compared_as_text() -> None:
    assert spelling_of("days  since 2000-01-01") == "days since 2000-01-01"
