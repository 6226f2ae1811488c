"""Filters on partition keys: a small language of integers, parsed into values.

>>> spring = parse_predicate("year == 2022 and 3 <= month < 6", ("year", "month"))
>>> spring.evaluate({"year": 2022, "month": 4}), spring.evaluate({"year": 2022, "month": 6})
(True, False)

The language is the part of Python that these words and signs can write, and means what Python means
by it: ``== != < <= > >=`` (chained too), ``and or not``, ``in`` and ``not in`` a tuple, list or set of
integers or a ``range(…)``, ``+ - * // %``, parentheses, decimal integers, key names. A divisor is a
constant other than zero. :mod:`registry.where` says the same in SQL.

Integers have 64 bits, here as in the databases. An expression that cannot be computed in them for all
keys below 2**24 is refused (``year * month * day``). Where a larger key might make an intermediate
result leave 64 bits (beyond 2**56 in ``year*100 + month > 202203``), the comparison is false, whatever
its operator. No limit applies where nothing is computed (``key > 5``).
"""

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from .errors import InvalidInputError
from .keys import KEY_LIMITS

MAX_LENGTH = 10_000
MAX_COMPARISONS = 500  # SQLite refuses trees deeper than 1000, and "a or b or …" is as deep as it is long
MAX_DEPTH = 32

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    **{"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge},
    **{"+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod},
}


@dataclass(frozen=True, slots=True)
class Constant:
    """An integer."""

    value: int


@dataclass(frozen=True, slots=True)
class Key:
    """The value of one key."""

    name: str


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """``left operator right``, a number; the right side of ``//`` and ``%`` is a constant."""

    left: "Expression"
    operator: str
    right: "Expression"


@dataclass(frozen=True, slots=True)
class Comparison:
    """``left operator right``, true or false."""

    left: "Expression"
    operator: str
    right: "Expression"


@dataclass(frozen=True, slots=True)
class Membership:
    """``item in values``."""

    item: "Expression"
    values: frozenset[int] | range


@dataclass(frozen=True, slots=True)
class Bounded:
    """``term`` where the keys ``names`` are within ±``limit``, otherwise false."""

    names: tuple[str, ...]
    limit: int
    term: "Condition"


@dataclass(frozen=True, slots=True)
class Not:
    """``not term``."""

    term: "Condition"


@dataclass(frozen=True, slots=True)
class And:
    """All of ``terms``."""

    terms: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of ``terms``."""

    terms: tuple["Condition", ...]


Expression = Constant | Key | Arithmetic
Condition = Comparison | Membership | Bounded | Not | And | Or


@dataclass(frozen=True, slots=True)
class Predicate:
    """A parsed filter: its text, and the condition that the text stands for."""

    text: str
    condition: Condition = field(repr=False)

    def evaluate(self, key: Mapping[str, int]) -> bool:
        """Tell whether the filter selects the partition of this key.

        >>> parse_predicate("cycle % 2 == 1", ["cycle"]).evaluate({"cycle": -3})
        True
        """
        return _holds(self.condition, key)


def parse_predicate(text: str, names: Sequence[str]) -> Predicate:
    """Parse a filter on the keys of a collection.

    >>> parse_predicate("pass in range(1, 300, 2)", ("cycle", "pass"))
    Predicate(text='pass in range(1, 300, 2)')

    Parameters
    ----------
    text
        The filter: at most 10,000 characters and 500 comparisons, nested at most 32 deep.
    names
        The collection's key names. A key called ``and``, ``or``, ``not``, ``in`` or ``range``
        cannot be written in a filter; any other name can, ``pass`` for instance.

    Raises
    ------
    InvalidInputError
        The text is not of the language, or names a key that the collection does not have.
    """
    return Predicate(text, _Parser(text, names).parse())


def _holds(condition: Condition, key: Mapping[str, int]) -> bool:
    match condition:
        case And(terms):
            return all(_holds(term, key) for term in terms)
        case Or(terms):
            return any(_holds(term, key) for term in terms)
        case Not(term):
            return not _holds(term, key)
        case Bounded(names, limit, term):
            return all(-limit <= key[name] <= limit for name in names) and _holds(term, key)
        case Membership(item, values):
            return _value(item, key) in values
        case Comparison(left, sign, right):
            return bool(OPERATORS[sign](_value(left, key), _value(right, key)))


def _value(expression: Expression, key: Mapping[str, int]) -> int:
    match expression:
        case Key(name):
            return operator.index(key[name])  # a numpy integer would wrap around
        case Constant(value):
            return value
        case Arithmetic(left, sign, right):
            return int(OPERATORS[sign](_value(left, key), _value(right, key)))


_ANY_KEY = -KEY_LIMITS[0]
_LIMITS = (_ANY_KEY, *(2**bits - 1 for bits in range(63, 23, -1)))

_DIVISION_DEPTH = 8  # SQL has to write the left side of // twice: each nested one doubles the statement

_ALLOWED = (
    'A filter compares keys and integers, as in "year == 2022 and month in (1, 2)", with == != < <= > >=, '
    "in, range(), and, or, not, + - * // % and parentheses"
)
_WORDS = ("and", "or", "not", "in", "range")
_HINTS = {"=": "==", "&": "and", "|": "or", "~": "not", "!": "not", "/": "//", "is": "=="}
_TOKEN = re.compile(
    r"(?P<sign>// | [=!<>]= | [-+*%<>,()\[\]{}]) | (?P<number>[0-9][\w.]*) | (?P<word>[^\W\d]\w*) | \S", re.VERBOSE
)
_SIGNS: dict[type[ast.AST], str] = {
    **{ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="},
    **{ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%"},
}


class _Parser:
    """Turns one text into a condition: mask the names, let Python parse, translate node by node."""

    def __init__(self, text: str, names: Sequence[str]) -> None:
        self.text = text
        self.names = names
        self.source = " ".join(text.split()) if isinstance(text, str) else ""

    def parse(self) -> Condition:
        if not self.source:
            raise self.error("it is empty" if isinstance(self.text, str) else "it is not a string")
        if len(self.source) > MAX_LENGTH:
            raise self.error(f"it has {len(self.source):,} characters, more than {MAX_LENGTH:,}")
        # Names become underscores. So any name parses, keywords too, and what a node stands for is
        # found at its place in the source, which has not moved.
        masked = _TOKEN.sub(self.mask, self.source)
        try:
            tree = ast.parse(masked, mode="eval").body
        except SyntaxError as error:
            rest = self.source[error.offset - 1 :] if error.offset else ""  # 0 is the end
            raise self.error(f"{error.msg.partition('.')[0]} at {_quoted(rest)}" if rest else "it ends early") from None
        except (RecursionError, MemoryError):
            raise self.error("it is nested too deeply") from None
        self.measure(tree)
        return self.condition(tree)

    def error(self, problem: str) -> InvalidInputError:
        text, keys = _quoted(self.text, 200), ", ".join(self.names)
        return InvalidInputError(f"The filter {text} is not understood: {problem}. {_ALLOWED}; the keys are {keys}.")

    def quote(self, node: ast.expr) -> str:
        return _quoted(self.source[node.col_offset : node.end_col_offset])

    def mask(self, match: re.Match[str]) -> str:
        """Check one token and return what Python shall see in its place, of the same length."""
        token = match[0]
        if match["sign"] or token in _WORDS:
            return token
        if match["number"]:
            return self.number(token)
        if token in self.names:
            return "_" * len(token)
        if token in _HINTS:
            raise self.error(f"instead of {_quoted(token)} use {_HINTS[token]!r}")
        if not match["word"] or token in ("True", "False", "None"):
            raise self.error(f"{_quoted(token)} is not part of the language")
        close = get_close_matches(token.lower(), [*self.names, *_WORDS])
        raise self.error(
            f"there is no key {_quoted(token)}" + (f", did you mean {' or '.join(close)}?" if close else "")
        )

    def number(self, token: str) -> str:
        if not re.fullmatch(r"[0-9](_?[0-9])*", token):
            raise self.error(f"{_quoted(token)} is not a decimal integer")
        if len(token.replace("_", "")) > len(str(_ANY_KEY)):
            raise self.error(f"{_quoted(token)} does not fit in 64 bits")
        if token.startswith("0") and token != "0":
            raise self.error(f"write {token.lstrip('0_') or '0'}, not {token}")
        return token

    def measure(self, tree: ast.AST) -> None:
        """Refuse what would exhaust a stack, here or in the database."""
        comparisons, waiting = 0, [(tree, 0)]
        while waiting:
            node, depth = waiting.pop()
            if depth > MAX_DEPTH:
                raise self.error(f"it is nested more than {MAX_DEPTH} levels deep (a // counts as {_DIVISION_DEPTH})")
            comparisons += isinstance(node, ast.cmpop)
            step = _DIVISION_DEPTH if isinstance(node, ast.BinOp) and isinstance(node.op, ast.FloorDiv) else 1
            waiting.extend((child, depth + step) for child in ast.iter_child_nodes(node))
        if comparisons > MAX_COMPARISONS:
            raise self.error(f"it has {comparisons} comparisons, more than {MAX_COMPARISONS}; 'in' takes long lists")

    def condition(self, node: ast.expr) -> Condition:
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                return And(tuple(map(self.condition, values)))
            case ast.BoolOp(values=values):
                return Or(tuple(map(self.condition, values)))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Not(self.condition(operand))
            case ast.Compare(left=left, ops=signs, comparators=others):
                pairs = zip(pairwise([left, *others]), signs, strict=True)
                links = tuple(self.comparison(first, sign, second) for (first, second), sign in pairs)
                return And(links) if len(links) > 1 else links[0]
        self.expression(node)  # knows better what is wrong if this is not a number
        raise self.error(f"{self.quote(node)} is a number: compare it, as in {self.quote(node)[1:-1]} == 0")

    def comparison(self, left: ast.expr, sign: ast.cmpop, right: ast.expr) -> Condition:
        item = self.expression(left)
        if isinstance(sign, ast.In | ast.NotIn):
            member = Membership(item, self.collection(right))
            return self.bound(left, member if isinstance(sign, ast.In) else Not(member), item)
        other = self.expression(right)
        return self.bound(left, Comparison(item, _SIGNS[type(sign)], other), item, other)

    def bound(self, node: ast.expr, term: Condition, *sides: Expression) -> Condition:
        """Guard a comparison against keys that are too large to compute with."""
        parts = [part for side in sides if isinstance(side, Arithmetic) for part in _walk(side)]
        results = [part for part in parts if isinstance(part, Arithmetic)]
        for limit in _LIMITS:
            if all(_magnitude(result, limit) <= KEY_LIMITS[1] for result in results):
                names = dict.fromkeys(part.name for part in parts if isinstance(part, Key))
                return term if limit == _ANY_KEY else Bounded(tuple(names), limit, term)
        raise self.error(f"what is compared at {_quoted(self.source[node.col_offset :])} can leave 64 bits")

    def expression(self, node: ast.expr) -> Expression:
        match node:
            case ast.Name(id=name) if name != "range":
                return Key(self.source[node.col_offset : node.end_col_offset])
            case ast.Constant(value=int(value)):
                return self.constant(node, value)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(value))):
                return self.constant(node, -value)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.arithmetic(node, Constant(0), "-", self.expression(operand))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.expression(operand)
            case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _SIGNS:
                return self.arithmetic(node, self.expression(left), _SIGNS[type(sign)], self.expression(right))
            case ast.BoolOp() | ast.Compare() | ast.UnaryOp(op=ast.Not()):
                raise self.error(f"{self.quote(node)} is a condition where a number is expected")
            case ast.Tuple() | ast.List() | ast.Set() | ast.Call(func=ast.Name(id="range")):
                raise self.error(f"{self.quote(node)} is only understood after 'in'")
        raise self.error(f"{self.quote(node)} is not part of the language")

    def arithmetic(self, node: ast.expr, left: Expression, sign: str, right: Expression) -> Expression:
        if sign in ("//", "%") and (not isinstance(right, Constant) or right.value == 0):
            raise self.error(f"{self.quote(node)} does not divide by a constant other than zero")
        if isinstance(left, Constant) and isinstance(right, Constant):
            return self.constant(node, OPERATORS[sign](left.value, right.value))
        return Arithmetic(left, sign, right)

    def constant(self, node: ast.expr, value: int) -> Constant:
        if not KEY_LIMITS[0] <= value <= KEY_LIMITS[1]:
            raise self.error(f"{self.quote(node)} does not fit in 64 bits")
        return Constant(value)

    def collection(self, node: ast.expr) -> frozenset[int] | range:
        match node:
            case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
                return frozenset(map(self.integer, items))
            case ast.Call(func=ast.Name(id="range"), args=[_, *more] as items, keywords=[]) if len(more) < 3:
                limits = [self.integer(item) for item in items]
                if limits[2:] != [0]:
                    return range(*limits)
        expected = "a list such as (1, 2) or (1,), nor a range() of one to three integers whose step is not zero"
        raise self.error(f"what follows 'in', {self.quote(node)}, is not {expected}")

    def integer(self, node: ast.expr) -> int:
        expression = self.expression(node)
        if isinstance(expression, Constant):
            return expression.value
        raise self.error(f"{self.quote(node)} is not an integer")


def _quoted(text: str, length: int = 60) -> str:
    shown = repr(text)
    return shown if len(shown) <= length else f"{shown[:length]}…"


def _walk(expression: Expression) -> Iterator[Expression]:
    yield expression
    if isinstance(expression, Arithmetic):
        yield from _walk(expression.left)
        yield from _walk(expression.right)


def _magnitude(expression: Expression, limit: int) -> int:
    """Bound the absolute value of an expression over keys in ±``limit``."""
    match expression:
        case Key():
            return limit
        case Constant(value):
            return abs(value)
        case Arithmetic(left, "//", right):
            return _magnitude(left, limit) // _magnitude(right, limit) + 1  # rounded down
        case Arithmetic(_, "%", right):
            return 2 * _magnitude(right, limit)  # which SQL needs on the way to the result
        case Arithmetic(left, "*", right):
            return _magnitude(left, limit) * _magnitude(right, limit)
        case Arithmetic(left, _, right):
            return _magnitude(left, limit) + _magnitude(right, limit)
