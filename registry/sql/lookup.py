"""How a statement names what it is about: keys, ranges of keys, versions, names; any number of them as one parameter.

What is known without looking comes first in every statement: SQLite plans without statistics, and a wrong index of a
million rows is not seen on ten. So keys are joined in their order, and versions, of which an index is seldom the right
one, are compared as expressions, which have none.
"""

import json
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from ..keys import MAX_KEYS, KeyValues, pad_key
from ..records import KeyRange

AnySelect = sa.Select[*tuple[Any, ...]]
AnyRow = sa.Row[*tuple[Any, ...]]
AnyCompound = sa.CompoundSelect[*tuple[Any, ...]]

KEY_NAMES = [f"k{i}" for i in range(MAX_KEYS)]

_FIRST_KEY, _LAST_KEY = (-(2**63),) * MAX_KEYS, (2**63 - 1,) * MAX_KEYS
"""Where a range of keys is open: nothing lies before the one, or after the other."""


def key_row(key: KeyValues) -> dict[str, int]:
    """Return the key columns of a row; the key has all six values."""
    return dict(zip(KEY_NAMES, key, strict=True))


def key_columns(table: sa.FromClause) -> list[sa.ColumnElement[int]]:
    """Return the table's key columns, in order."""
    return [table.c[name] for name in KEY_NAMES]


# Many keys are one parameter of a statement, so that it is one statement for any number, compiled once.


class _each(FunctionElement[str]):  # noqa: N801 - reads as a SQL function
    """The elements of a JSON array, as rows."""

    name = "each"
    inherit_cache = True


@compiles(_each, "sqlite")
def _sqlite_each(element: Any, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_each, "postgresql")
def _postgresql_each(element: Any, compiler: Any, **options: Any) -> str:
    return f"json_array_elements(CAST({compiler.process(element.clauses, **options)} AS JSON))"


class Lookup(sa.Join):
    """For each row of the left table, in turn, those of the right one: an inner join that keeps this order.

    What it is joined by is all that is looked up: the collection too.
    """

    inherit_cache = True


@compiles(Lookup, "sqlite")
def _sqlite_lookup(element: Any, compiler: Any, **options: Any) -> str:
    options["asfrom"] = True
    left, right = (compiler.process(side, **options) for side in (element.left, element.right))
    options["asfrom"] = False
    return f"{left} CROSS JOIN {right} ON {compiler.process(element.onclause, **options)}"


@compiles(Lookup, "postgresql")
def _postgresql_lookup(element: Any, compiler: Any, **options: Any) -> str:
    # An OFFSET keeps it from being made an ordinary join, for which Postgres may read the whole table: before ANALYZE
    # it guesses that there are as many keys as rows.
    options["asfrom"] = True
    left, right = (compiler.process(side, **options) for side in (element.left, element.right))
    options["asfrom"] = False
    found = f"SELECT * FROM {right} WHERE {compiler.process(element.onclause, **options)} OFFSET 0"
    return f"{left} CROSS JOIN LATERAL ({found}) AS {right}"


def keys_parameter(keys: Iterable[KeyValues], count: int = MAX_KEYS) -> dict[str, str]:
    """Return the parameter of a statement about some keys, without those that are there twice: so many values each."""
    wanted = {pad_key(key) for key in keys} if count == MAX_KEYS else {key[:count] for key in keys}
    return {"of_keys": json.dumps(sorted(wanted), separators=(",", ":"))}


def among_keys(table: sa.Table, mine: sa.ColumnElement[bool], count: int = MAX_KEYS) -> sa.FromClause:
    """Return the rows of a collection in a table that have one of the keys in :func:`keys_parameter`.

    A key has so many values; the other columns are 0, which is not asked of each.
    """
    wanted = given("of_keys")
    values = [*numbers_in(wanted, count), *[bigint(0)] * (MAX_KEYS - count)]
    return Lookup(wanted, table, sa.and_(mine, *map(operator.eq, key_columns(table), values)))


def some(values: Iterable[int | str], kind: sa.types.TypeEngine[Any]) -> AnySelect:
    """Select values that are one parameter, however many they are."""
    rows = sa.literal(json.dumps([[value] for value in values]), sa.Text)
    wanted = _each(rows).table_valued("value", name="wanted")
    return sa.select(sa.cast(text_in(wanted, 0), kind))


def given(name: str) -> sa.FromClause:
    """Return the rows of a parameter, each of which is a list."""
    return _each(sa.bindparam(name, type_=sa.Text)).table_valued("value", name="wanted")


def numbers_in(wanted: sa.FromClause, count: int = MAX_KEYS) -> list[sa.ColumnElement[int]]:
    """Return the integers that a row of a parameter begins with."""
    return [sa.cast(text_in(wanted, place), sa.BigInteger) for place in range(count)]


def text_in(wanted: sa.FromClause, place: int) -> sa.ColumnElement[str]:
    """Return a value of a row of a parameter, as text."""
    return wanted.c.value.op("->>", return_type=sa.Text())(sa.literal_column(str(place)))


def numbers_parameter(numbers: Iterable[int]) -> dict[str, str]:
    """Return the parameter of a statement about some versions."""
    return {"of_numbers": json.dumps([[number] for number in sorted(numbers)])}


def among_numbers(table: sa.Table, mine: sa.ColumnElement[bool]) -> sa.FromClause:
    """Return the rows of a collection in a table that have one of the versions in :func:`numbers_parameter`."""
    wanted = given("of_numbers")
    return Lookup(wanted, table, sa.and_(mine, table.c.version == numbers_in(wanted)[0]))


def among_names(table: sa.Table, mine: sa.ColumnElement[bool]) -> sa.FromClause:
    """Return the rows of a collection in a table that have one of the names in :func:`names_parameter`."""
    wanted = given("of_names")
    return Lookup(wanted, table, sa.and_(mine, table.c.name == text_in(wanted, 0)))


def names_parameter(names: Iterable[str]) -> dict[str, str]:
    """Return the parameter of a statement about some names."""
    return {"of_names": json.dumps([[name] for name in sorted(set(names))])}


def among_ranges(table: sa.Table, mine: sa.ColumnElement[bool]) -> sa.FromClause:
    """Return the rows of a collection in a table that have a key in one of the ranges in :func:`ranges_parameter`."""
    wanted = given("of_ranges")
    key, limits = sa.tuple_(*key_columns(table)), numbers_in(wanted, 2 * MAX_KEYS)
    first, last = sa.tuple_(*limits[:MAX_KEYS]), sa.tuple_(*limits[MAX_KEYS:])
    return Lookup(wanted, table, sa.and_(mine, key >= first, key <= last))


def ranges_parameter(ranges: Iterable[KeyRange]) -> dict[str, str]:
    """Return the parameter of a statement about some ranges of keys."""
    return {"of_ranges": json.dumps([[*(first or _FIRST_KEY), *(last or _LAST_KEY)] for first, last in ranges])}


class _follows(FunctionElement[bool]):  # noqa: N801 - reads as a SQL function
    """A condition that follows from others, for Postgres' planner; SQLite's needs none."""

    type = sa.Boolean()
    name = "follows"
    inherit_cache = True


@compiles(_follows, "sqlite")
def _sqlite_follows(element: Any, compiler: Any, **options: Any) -> str:
    return "1"


@compiles(_follows, "postgresql")
def _postgresql_follows(element: Any, compiler: Any, **options: Any) -> str:
    return f"({compiler.process(element.clauses, **options)})"


class rare(FunctionElement[bool]):  # noqa: N801 - reads as a SQL function
    """A condition that few rows meet, for SQLite's planner: that it looks these up, and not all of the collection.

    It has no type, or SQLAlchemy would compare it with 1, and nothing would be looked up by it.
    """

    name = "rare"
    inherit_cache = True


@compiles(rare, "sqlite")
def _sqlite_rare(element: Any, compiler: Any, **options: Any) -> str:
    return f"likelihood({compiler.process(element.clauses, **options)}, 0.000001)"


@compiles(rare, "postgresql")
def _postgresql_rare(element: Any, compiler: Any, **options: Any) -> str:
    return f"({compiler.process(element.clauses, **options)})"


def within_keys(columns: Sequence[sa.ColumnElement[int]], keys: KeyRange) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of a range of keys, on all six columns."""
    key, (first, last) = sa.tuple_(*columns), keys
    return [
        *([key >= sa.tuple_(*map(bigint, first))] if first is not None else ()),
        *([key <= sa.tuple_(*map(bigint, last))] if last is not None else ()),
        *(_between_values(columns, first, last) if first is not None and last is not None else ()),
    ]


def _between_values(
    columns: Iterable[sa.ColumnElement[int]], first: KeyValues, last: KeyValues
) -> Iterator[sa.ColumnElement[bool]]:
    """Yield what a range of keys says of the values that they begin with, up to one that differs.

    Of two comparisons of rows Postgres does not see that they are a range: of one in the middle it guesses that it is a
    quarter of the table, which it reads then.
    """
    for column, low, high in zip(columns, first, last, strict=True):
        yield _follows(column >= bigint(low))
        yield _follows(column <= bigint(high))
        if low != high:
            return


def bigint(value: int) -> sa.ColumnElement[int]:
    """Return an integer of 64 bits."""
    return sa.literal(value, sa.BigInteger)
