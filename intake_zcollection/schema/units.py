"""Units of CF, as UDUNITS spells them: which are one, and values in others.

Spellings are compared here, without any other package; what they mean is asked of pint, where it is installed.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

_NAMES = {
    **{"meter": "m", "metre": "m", "kilometer": "km", "kilometre": "km", "centimeter": "cm", "centimetre": "cm"},
    **{"millimeter": "mm", "millimetre": "mm", "gram": "g", "kilogram": "kg", "mole": "mol"},
    **{"second": "s", "sec": "s", "minute": "min", "hour": "h", "hr": "h", "day": "d", "hertz": "Hz"},
    **{"pascal": "Pa", "hectopascal": "hPa", "newton": "N", "joule": "J", "watt": "W", "percent": "%", "psu": "psu"},
    **dict.fromkeys(("kelvin", "degk", "deg_k", "degree_k", "degrees_k", "degree_kelvin", "degrees_kelvin"), "K"),
    **dict.fromkeys(("celsius", "degc", "deg_c", "degree_c", "degrees_c", "degree_celsius", "degrees_celsius"), "degC"),
    **dict.fromkeys(("degree_north", "degrees_north", "degree_n", "degrees_n", "degreen", "degreesn"), "degrees_north"),
    **dict.fromkeys(("degree_east", "degrees_east", "degree_e", "degrees_e", "degreee", "degreese"), "degrees_east"),
    **{"degree": "degree", "deg": "degree", "radian": "rad"},
}
"""Names of units in small letters, and their symbols."""

_FACTOR = re.compile(
    r"\s*(?P<by>/|\bper\b|\*(?!\*)|[.·×])?\s*"
    r"(?:(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![A-Za-z])|(?P<symbol>[A-Za-zµμ°%_]+))"
    r"(?:(?P<mark>\*\*|\^)?(?P<power>[+-]?\d+))?"
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")

Spelling = frozenset[tuple[str, int]]
"""The units and numbers that are multiplied, each with its power; without 1, and each once."""


def is_same_unit(one: Any, other: Any) -> bool:
    """Whether two texts name one unit.

    >>> is_same_unit("m/s", "meter second-1"), is_same_unit("K", "celsius")
    (True, False)
    """
    if str(one) == str(other) or spelling_of(str(one)) == spelling_of(str(other)):
        return True
    try:
        converted = convert_units(np.array([0.0, 1.0]), one, other)
    except (ImportError, ValueError):
        return False
    return bool(np.allclose(converted, [0, 1], rtol=1e-12, atol=0))


def convert_units(values: npt.NDArray[Any], source: Any, target: Any) -> npt.NDArray[np.float64]:
    """Return numbers in other units.

    Raises
    ------
    ImportError
        pint is not installed.
    ValueError
        There is no conversion, or a unit is not known.
    """
    import pint

    try:
        (factor, one), (divisor, other) = _parsed(str(source)), _parsed(str(target))
        converted = _pint_units().convert(np.asarray(values, np.float64) * factor, one, other)
    except (pint.PintError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{source!r} into {target!r}: {error}") from error
    return np.asarray(converted, np.float64) / divisor


def spelling_of(text: str) -> Spelling | str:
    """Return what a text multiplies; the text itself, blanks apart, where it is spelled otherwise.

    >>> sorted(spelling_of("kg m**-2/sec"))
    [('kg', 1), ('m', -2), ('s', -1)]
    """
    plain = " ".join(text.translate(_SUPERSCRIPTS).split())
    factors = list(_factors(plain))
    if None in factors:
        return plain
    powers = Counter[str]()
    for symbol, power in filter(None, factors):
        powers[symbol] += power
    return frozenset((symbol, power) for symbol, power in powers.items() if power and symbol != "1.0")


def _factors(text: str) -> Iterator[tuple[str, int] | None]:
    """Yield units with their powers; None where a text is not understood."""
    position = 0
    while position < len(text):
        found = _FACTOR.match(text, position)
        if found is None or (found["number"] and found["power"] and not found["mark"]):
            yield None
            return
        power = int(found["power"] or 1)
        symbol = _symbol(found["symbol"]) if found["symbol"] else repr(float(found["number"]))
        yield symbol, -power if found["by"] in ("/", "per") else power
        position = found.end()


def _symbol(name: str) -> str:
    name = name.replace("°", "deg")
    lower = name.lower()
    if len(name) < 3:  # of symbols, capital letters are others
        return name
    return _NAMES.get(lower) or _NAMES.get(lower.removesuffix("s")) or name


def _parsed(text: str) -> tuple[float, Any]:
    """Return the product of the numbers in a text, and pint's unit of the rest."""
    spelling = spelling_of(text)
    if isinstance(spelling, str):  # pint evaluates what it is given, 9**9**9 too: only products of units
        raise ValueError(f"{text!r} is no product of units")  # noqa: TRY004 - it is the text that is wrong
    numbers = [float(symbol) ** power for symbol, power in spelling if symbol[0].isdigit()]
    units = [f"{symbol}**({power})" for symbol, power in sorted(spelling) if not symbol[0].isdigit()]
    return math.prod(numbers), _pint_units().parse_units(" * ".join(units) or "dimensionless")


@cache
def _pint_units() -> Any:
    """Return pint's units and those of CF that it has not; a registry of our own, since programs have theirs."""
    import pint

    units: Any = pint.UnitRegistry()
    units.define("@alias degree = degrees_north = degrees_east")
    units.define("psu = []")
    return units
