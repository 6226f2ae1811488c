"""Filters as SQL: a predicate becomes a WHERE clause that selects what its ``evaluate`` selects.

>>> from sqlalchemy import BigInteger, column
>>> from ..predicate import parse_predicate
>>> key_columns = {"year": column("k0", BigInteger), "month": column("k1", BigInteger)}
>>> clause = compile_predicate(parse_predicate("year == 2022 and month in (1, 2)", ("year", "month")), key_columns)
>>> print(clause.compile(compile_kwargs={"literal_binds": True}))
k0 = 2022 AND k1 IN (1, 2)

The clause fails for no row: a database may evaluate it on the rows of other collections too, before
it looks at ``collection_id``.
"""

from collections.abc import Iterable, Mapping

from sqlalchemy import BigInteger, ColumnElement, and_, bindparam, case, false, literal, not_, or_

from ..predicate import (
    OPERATORS,
    And,
    Arithmetic,
    Bounded,
    Comparison,
    Condition,
    Constant,
    Expression,
    Key,
    Membership,
    Not,
    Or,
    Predicate,
)

Columns = Mapping[str, ColumnElement[int]]


def compile_predicate(predicate: Predicate, columns: Mapping[str, ColumnElement[int]]) -> ColumnElement[bool]:
    """Return the clause of a predicate over the columns that hold the keys, by key name.

    The columns are BIGINT NOT NULL.
    """
    return _condition(predicate.condition, columns)


def _condition(condition: Condition, columns: Columns) -> ColumnElement[bool]:
    match condition:
        case And(terms):
            return and_(*(_condition(term, columns) for term in terms))
        case Or(terms):
            return or_(*(_condition(term, columns) for term in terms))
        case Not(term):
            return not_(_condition(term, columns))
        case Bounded(names, limit, term):
            # Not an AND: a database may compute its right side first, and overflow.
            small = and_(*(columns[name].between(_bind(-limit), _bind(limit)) for name in names))
            return case((small, _condition(term, columns)), else_=false())
        case Membership(item, range() as values):
            return _in_range(_expression(item, columns), values)
        case Membership(item, values):
            return _among(_expression(item, columns), values)
        case Comparison(left, sign, right):
            compared: ColumnElement[bool] = OPERATORS[sign](_expression(left, columns), _expression(right, columns))
            return compared


def _in_range(item: ColumnElement[int], values: range) -> ColumnElement[bool]:
    if not values:
        return false()
    first, last, step = min(values[0], values[-1]), max(values[0], values[-1]), abs(values.step)
    if not values[2:]:  # with a third, the step has fewer than 64 bits
        return _among(item, {first, last})
    between = item.between(_bind(first), _bind(last))
    if step == 1:
        return between
    # The remainder has the sign of the item in SQL, so a residue shows as one of two numbers.
    residue = first % step
    return and_(between, _among(item % _bind(step), {residue, residue - step}))


def _among(item: ColumnElement[int], values: Iterable[int]) -> ColumnElement[bool]:
    return item.in_(bindparam(None, sorted(values), BigInteger, expanding=True, unique=True))


def _expression(expression: Expression, columns: Columns) -> ColumnElement[int]:
    match expression:
        case Key(name):
            return columns[name]
        case Constant(value):
            return _bind(value)
        case Arithmetic(left, "//", Constant(divisor)):
            return _floor_divide(_expression(left, columns), divisor)
        case Arithmetic(left, "%", Constant(divisor)):
            # SQL's remainder has the sign of the dividend, Python's that of the divisor.
            return (_expression(left, columns) % _bind(divisor) + _bind(divisor)) % _bind(divisor)
        case Arithmetic(left, sign, right):
            computed: ColumnElement[int] = OPERATORS[sign](_expression(left, columns), _expression(right, columns))
            return computed


def _floor_divide(dividend: ColumnElement[int], divisor: int) -> ColumnElement[int]:
    # SQLAlchemy's // is SQL's / on integers, which rounds towards zero.
    remainder = dividend % _bind(divisor)
    inexact = remainder < _bind(0) if divisor > 0 else remainder > _bind(0)
    return dividend // _bind(divisor) - case((inexact, _bind(1)), else_=_bind(0))


def _bind(value: int) -> ColumnElement[int]:
    return literal(value, BigInteger)
