"""Partition keys: ordered ``(name, int)`` pairs, and their Hive-style text."""

import re
from collections.abc import Iterable
from functools import cache

from .errors import InvalidInputError

PartitionKey = tuple[tuple[str, int], ...]
"""``(("year", 2022), ("month", 1))``; its text is ``year=2022/month=01``."""

KeyValues = tuple[int, ...]
"""The integers of a key alone, in the order of the collection's key names."""

MAX_KEYS = 6
"""The registry's tables have this many key columns, ``k0`` … ``k5``."""

KEY_LIMITS = (-(2**63), 2**63 - 1)
"""Key values are stored as signed 64-bit integers."""

# Dates are padded so that a plain listing of a directory sorts in time.
_WIDTHS = {"year": 4, "month": 2, "day": 2, "hour": 2, "minute": 2, "second": 2}

_PAIR = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>-?\d+)")


def format_key(key: PartitionKey) -> str:
    """Return the text of a key, one Hive-style segment per pair.

    >>> format_key((("year", 2022), ("month", 1)))
    'year=2022/month=01'
    >>> format_key((("cycle", 12), ("pass", 345)))
    'cycle=12/pass=345'
    """
    names, values = zip(*key, strict=True) if key else ((), ())
    return _template(names) % values


@cache
def _template(names: tuple[str, ...]) -> str:
    return "/".join(f"{name.replace('%', '%%')}=%0{_WIDTHS.get(name, 0)}d" for name in names)


def parse_key(text: str) -> PartitionKey:
    """Return the key whose text is ``text``; the inverse of :func:`format_key`.

    >>> parse_key("year=2022/month=01")
    (('year', 2022), ('month', 1))

    Raises
    ------
    InvalidInputError
        A segment is not ``name=integer``.
    """
    pairs = []
    for segment in text.strip("/").split("/"):
        match = _PAIR.fullmatch(segment)
        if match is None:
            raise InvalidInputError(f"{segment!r} in the partition key {text!r} is not of the form name=integer")
        pairs.append((match["name"], int(match["value"])))
    return tuple(pairs)


def name_values(names: Iterable[str], values: Iterable[int]) -> PartitionKey:
    """Pair key names with the integers of one partition.

    >>> name_values(("year", "month"), (2022, 1))
    (('year', 2022), ('month', 1))
    """
    return tuple(zip(names, values, strict=True))


def columns_of(key: PartitionKey) -> KeyValues:
    """Return the values of all key columns of a key.

    >>> columns_of((("year", 2022), ("month", 1)))
    (2022, 1, 0, 0, 0, 0)
    """
    return pad_key(tuple(value for _, value in key))


def pad_key(values: KeyValues) -> KeyValues:
    """Return the values of all key columns: unused ones are 0."""
    return values + (0,) * (MAX_KEYS - len(values))
