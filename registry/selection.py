"""Which partitions, as a value."""

import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from .errors import InvalidInputError
from .keys import KEY_LIMITS, KeyValues, PartitionKey, parse_key
from .predicate import And, Comparison, Constant, Key, Membership, Predicate, parse_predicate
from .records import KeyRange, SchemaRecord

Equalities = Mapping[str, int | Iterable[int]]
"""What some values of a key are, or may be: ``{"year": 2022, "month": (1, 2)}``."""

Filters = str | Callable[[dict[str, int]], bool] | Equalities | PartitionKey | Iterable[PartitionKey | str]
"""A filter on partition keys: text of the predicate language, a function of the key as a dict, equalities, a key, or
keys, also as texts; what has keys, as the changes between two versions, is a filter too."""


Limits = tuple[int | float | None, int | float | None]
"""The smallest and the largest value, both included; None is open."""


@dataclass(frozen=True, slots=True)
class ValueRange:
    """Which values of a variable are asked for: what cannot have any of them is left out."""

    variable_id: int
    intervals: tuple[Limits, ...]
    """A value inside any of them is asked for: integers, times as ns since 1970; or floats."""
    is_float: bool
    """Whether the variable has floats: its statistics are kept apart."""
    lives: tuple[tuple[int, int | None], ...]
    """From which version to which (not included; None for no end) the schema had it: other rows do not hold it."""
    fill_meets: bool
    """Whether what these read as is asked for."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which partitions: those that meet every condition."""

    predicate: Predicate | None = None
    """On their keys."""
    keep: Callable[[dict[str, int]], bool] | None = None
    """On their keys too: a user's function, asked of what the database has chosen."""
    axis_range: tuple[int | None, int | None] = (None, None)
    """On their axis bounds: the smallest and largest value asked for, both included; None is open."""
    parts: bool = False
    """Whether each part has to meet the bounds: of a partition the others are left out then."""
    keys: Collection[KeyValues] | None = None
    """Their very keys."""
    key_range: KeyRange | None = None
    """The first and the last of their keys, where that follows from the other conditions."""
    values: Callable[[SchemaRecord], tuple[ValueRange, ...]] | None = None
    """On their values: what is asked for is known once the schema is."""
    ranges: tuple[ValueRange, ...] = ()
    """The same, once it is known: by the statistics that are kept."""

    def with_schema(self, schema: SchemaRecord) -> "Selection":
        """Return it with what is asked for of values, by the schema of the version that is read."""
        return self if self.values is None else replace(self, values=None, ranges=self.values(schema))

    @classmethod
    def of(
        cls,
        filters: Filters | None,
        names: tuple[str, ...],
        *,
        axis_range: tuple[int | None, int | None] = (None, None),
        keys: Collection[KeyValues] | None = None,
    ) -> "Selection":
        """Return what a caller asked for, of a collection whose keys have these names.

        >>> Selection.of("year == 2022", ("year",)).keep is None
        True

        Raises
        ------
        InvalidInputError
            The filter is not understood.
        """
        if callable(filters):
            return cls(keep=filters, axis_range=axis_range, keys=keys)
        if filters is None or isinstance(filters, str):
            predicate = None if filters is None else parse_predicate(filters, names)
            return cls(predicate, axis_range=axis_range, keys=keys)
        if _are_equalities(filters):
            return cls(_predicate_of(filters, names), axis_range=axis_range, keys=keys)
        wanted = frozenset(key_values(key, names, "filters") for key in _keys_in(filters))
        return cls(axis_range=axis_range, keys=wanted if keys is None else wanted & {*keys})

    def takes(self, values: KeyValues, names: tuple[str, ...]) -> bool:
        """Whether a key of these values meets the conditions that are on keys."""
        key = dict(zip(names, values, strict=True))
        return (
            (self.keys is None or values in self.keys)
            and (self.predicate is None or self.predicate.evaluate(key))
            and (self.keep is None or bool(self.keep(key)))
        )


def _are_equalities(filters: object) -> TypeGuard[Equalities]:
    if not isinstance(filters, Mapping) or not all(isinstance(name, str) for name in filters):
        return False
    if not filters and isinstance(filters, dict):
        raise InvalidInputError("filters={} says nothing: leave it out for all partitions, or give () for none")
    return len(filters) > 0  # what has no names at all is a mapping of keys


def _predicate_of(equalities: Equalities, names: tuple[str, ...]) -> Predicate:
    """Return the predicate that says the same."""
    unknown = [name for name in equalities if name not in names]
    if unknown:
        raise InvalidInputError(
            f"filters={equalities!r}: the collection is not partitioned by {', '.join(unknown)}, but by "
            f"{', '.join(names)}"
        )
    terms: list[Comparison | Membership] = []
    text = f"filters={equalities!r}"
    for name, value in equalities.items():
        if isinstance(value, Iterable) and not isinstance(value, str | bytes):
            terms.append(Membership(Key(name), frozenset(_integer(each, text) for each in value)))
        else:
            terms.append(Comparison(Key(name), "==", Constant(_integer(value, text))))
    return Predicate(repr(dict(equalities)), And(tuple(terms)))


def _integer(value: Any, given: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not KEY_LIMITS[0] <= number <= KEY_LIMITS[1]:
        raise InvalidInputError(f"{given}: {value!r} is no integer of 64 bits, as the values of keys are")
    return number


def _is_key(filters: object) -> TypeGuard[PartitionKey]:
    return isinstance(filters, tuple) and bool(filters) and all(_is_pair(each) for each in filters)


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and not isinstance(value[1], str)


def _keys_in(filters: Any) -> Iterable[Any]:
    if _is_key(filters):
        return (filters,)
    if not isinstance(filters, Iterable) or isinstance(filters, bytes):
        raise InvalidInputError(
            f"filters={filters!r}: write text, 'year == 2022 and month in (1, 2)' for one, a dict of equalities, a "
            "function of the key, or keys"
        )
    return filters


def key_values(key: Any, names: tuple[str, ...], argument: str) -> KeyValues:
    """Return the integers of a key, or of its text, in the order of a collection's names.

    Raises
    ------
    InvalidInputError
        It is no such key; the message names the argument that has it.
    """
    try:
        pairs = parse_key(key) if isinstance(key, str) else key
    except InvalidInputError:
        pairs = None
    if not _is_key(pairs) or len(pairs) != len(names) or {name for name, _ in pairs} != {*names}:
        example = "/".join(f"{name}=…" for name in names)
        raise InvalidInputError(
            f"{argument}: {key!r} is no key of a partition of this collection, as {example} is"
            + ("; conditions are text, not in a list" if argument == "filters" else "")
        )
    named = dict(pairs)
    return tuple(_integer(named[name], f"{argument}: {key!r}") for name in names)
