"""What a caller wants to be looked up in an index, parsed once it is known which indexes there are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from registry import KEY_LIMITS, IndexRecord, parse_predicate
from registry.indexes import Choice, ColumnKind, Wanted

from ..errors import InvalidInputError
from ..schema.names import is_unicode
from .bounds import parse_bounds

Index = str | Mapping[str, Any]
"""What is looked up: ``{column: value}``, where a value is one, a list of them, or a closed range: ``(low, high)``,
``slice(low, high)`` or, where there are no tuples, as in YAML, ``{"low": low, "high": high}``, None for open; a text of
conditions on columns of integers; either below the name of the index, ``{name: …}``."""

Unindexed = Literal["compute", "raise"]


@dataclass(frozen=True)
class Lookup:
    """What is looked up, and what is done of parts that the index knows nothing of."""

    index: Index
    unindexed: Unindexed = "compute"

    def __post_init__(self) -> None:
        """Refuse what is no look-up."""
        if self.unindexed not in get_args(Unindexed):
            raise InvalidInputError(f"unindexed={self.unindexed!r} is not one of 'compute', 'raise'")
        if not isinstance(self.index, str | Mapping) or not self.index:
            raise InvalidInputError(
                f"index={self.index!r}: write {{column: value}}, with a list or a pair (low, high) for several, or a "
                "text as 'cycle_number == 3 and pass_number in (1, 2)'"
            )

    def resolve(self, indexes: Sequence[IndexRecord], collection: str) -> tuple[IndexRecord, Wanted]:
        """Return which of the indexes of a version is asked, and for what; raises InvalidInputError."""
        if isinstance(self.index, str):
            return self._by_text(self.index, indexes, collection)
        by_name = {each.name: each for each in indexes}
        if len(self.index) == 1 and isinstance(next(iter(self.index.values())), Mapping | str):
            ((name, inner),) = self.index.items()
            if name in by_name and not (name in by_name[name].columns and _is_value(inner)):
                return Lookup(inner).resolve([by_name[name]], collection)
        columns = {*self.index}
        having = [each for each in indexes if columns <= each.columns.keys()]
        index = _only(having, indexes, ", ".join(map(str, self.index)), collection)
        return index, Wanted({name: _choice(wanted, index.columns[name], name) for name, wanted in self.index.items()})

    def _by_text(self, text: str, indexes: Sequence[IndexRecord], collection: str) -> tuple[IndexRecord, Wanted]:
        names = {each.name: _integers(each) for each in indexes}
        having = [each for each in indexes if _understands(text, names[each.name])]
        if not having and indexes:
            parse_predicate(text, sorted({name for some in names.values() for name in some}))  # says what is wrong
        index = _only(having, indexes, repr(text), collection)
        return index, Wanted(predicate=parse_predicate(text, names[index.name]))


def _is_value(wanted: Mapping[str, Any] | str) -> bool:
    """Whether it is what is wanted of a column, where an index is called as one of its columns."""
    return isinstance(wanted, str) or (len(wanted) > 0 and wanted.keys() <= {"low", "high"})


def _integers(index: IndexRecord) -> tuple[str, ...]:
    return tuple(name for name, kind in index.columns.items() if kind == "integer")


def _understands(text: str, names: Sequence[str]) -> bool:
    try:
        parse_predicate(text, names)
    except InvalidInputError:
        return False
    return True


def _only(having: Sequence[IndexRecord], indexes: Iterable[IndexRecord], what: str, collection: str) -> IndexRecord:
    if len(having) == 1:
        return having[0]
    if having:
        names = ", ".join(each.name for each in having)
        raise InvalidInputError(
            f"index={what}: {names} of collection {collection} have such columns: say which, "
            f"index={{{having[0].name!r}: …}}"
        )
    known = "; ".join(f"{each.name} by {', '.join(each.columns)}" for each in indexes)
    raise InvalidInputError(
        f"index={what}: no index of collection {collection} has such columns at this version"
        f"{f': it has {known}' if known else ''}; create_index makes one"
    )


def _choice(wanted: Any, kind: ColumnKind, name: str) -> Choice:
    """Return which values of a column are wanted."""
    match wanted:
        case slice(start=low, stop=high, step=None):
            return _range((low, high), kind, name)
        case tuple():
            return _range(wanted, kind, name)
        case Mapping() if wanted and wanted.keys() <= {"low", "high"}:
            return _range((wanted.get("low"), wanted.get("high")), kind, name)
        case list() | set() | frozenset() | range() | np.ndarray():
            return Choice(frozenset(_value(each, kind, name) for each in wanted))
    if kind == "time":
        return Choice(None, *parse_bounds((wanted, wanted), name))
    return Choice(frozenset([_value(wanted, kind, name)]))


def _range(bounds: Any, kind: ColumnKind, name: str) -> Choice:
    if len(bounds) != 2:
        raise _wrong(bounds, name, "a tuple is a range (low, high); write a list of values")
    if kind == "time":
        return Choice(None, *parse_bounds(tuple(bounds), name))
    low, high = (None if each is None else _value(each, kind, name) for each in bounds)
    if low is not None and high is not None and low > high:  # type: ignore[operator]  # both are of the column's kind
        raise _wrong(bounds, name, "the low bound is above the high one")
    return Choice(None, low, high)


def _value(value: Any, kind: ColumnKind, name: str) -> int | str:
    if kind == "text":
        if why := why_no_text(value):
            raise _wrong(value, name, f"its values are text; this {why}")
        return str(value)
    if kind == "time":
        low, high = parse_bounds((value, value), name)
        if low is None or low != high:
            raise _wrong(value, name, "in a list are moments; a period is a range ('2022-03', '2022-03')")
        return low
    if isinstance(value, int | np.integer | np.bool_) and KEY_LIMITS[0] <= int(value) <= KEY_LIMITS[1]:
        return int(value)
    raise _wrong(value, name, "its values are integers of 64 bits")


def why_no_text(value: Any) -> str | None:
    """Return why something is no text that an index can have, None if it is one: databases have their limits."""
    if not is_unicode(value):
        return "is not Unicode" if isinstance(value, str) else f"is {type(value).__name__}"
    if "\0" in value:
        return "has a NUL"
    size = len(value.encode())
    return f"has {size} bytes, and {_LONGEST_TEXT} is the most" if size > _LONGEST_TEXT else None


_LONGEST_TEXT = 2000
"""In bytes: an index of Postgres has no room for 2,700."""


def _wrong(value: Any, name: str, why: str) -> InvalidInputError:
    return InvalidInputError(f"index={{{name!r}: {value!r}}}: {why}")
