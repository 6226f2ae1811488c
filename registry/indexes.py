"""Indexes: which rows have which values of some columns, and what is asked of them. Values only."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, NamedTuple

from .keys import KeyValues
from .predicate import Predicate
from .records import Json

ColumnKind = Literal["integer", "time", "text"]

Value = int | str
"""Of a column; times are ns since 1970."""


@dataclass(frozen=True, slots=True)
class IndexRecord:
    """An index of a collection: its entries say which rows have which values.

    It is a layer, whose fragments have entries instead of values: they are opened, cut and closed with the rows.
    """

    uid: str
    name: str
    columns: Mapping[str, ColumnKind]
    """The names, in their order, and of what kind the values are."""
    inputs: Mapping[int, str]
    """The variables that it is computed from, by their ids: their names, as the function sees them."""
    function: str | None = None
    """By module and name; None for runs of equal values of the inputs."""
    per: Literal["row", "partition"] = "row"
    """What the function is called with: any rows, for each of which it returns values; or all rows of a partition, of
    which it returns ranges."""
    on_missing: Literal["defer", "raise"] = "defer"
    """What a writer does that cannot import the function: it leaves its rows unindexed, or raises."""
    id: int = 0
    """The layer that its fragments lie in: below that of what is stored once."""
    begin_version: int = 0
    end_version: int | None = None

    @property
    def unindexed(self) -> str:
        """What stands for the uid of a fragment that has no entries, since nobody has computed them."""
        return str(self.id)

    def to_json(self) -> Json:
        """Return what is recorded of it beside its layer and its versions."""
        document = asdict(self)
        columns, inputs = list(self.columns.items()), sorted(self.inputs.items())
        kept = {name: document[name] for name in ("uid", "name", "function", "per", "on_missing")}
        return kept | {"columns": columns, "inputs": inputs}

    @classmethod
    def from_json(cls, document: Json, id_: int, begin_version: int, end_version: int | None) -> "IndexRecord":
        """Return what was recorded."""
        tables = {name: dict(map(tuple, document[name])) for name in ("columns", "inputs")}
        return cls(**{**document, **tables}, id=id_, begin_version=begin_version, end_version=end_version)

    def is_like(self, other: "IndexRecord") -> bool:
        """Whether it is computed in the same way."""
        mine, its = self.to_json(), other.to_json()
        return all(mine[name] == its[name] for name in ("columns", "inputs", "function", "per"))


@dataclass(frozen=True, slots=True)
class Choice:
    """Which values of a column are wanted: some, or a range, its ends included; None is open."""

    values: frozenset[Value] | None = None
    low: Value | None = None
    high: Value | None = None

    def holds(self, value: Value) -> bool:
        """Whether a value is wanted."""
        if self.values is not None:
            return value in self.values
        above = self.low is None or self.low <= value  # type: ignore[operator]  # both are of the column's kind
        return above and (self.high is None or value <= self.high)  # type: ignore[operator]  # likewise


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries of an index: those that meet all choices, or a predicate."""

    choices: Mapping[str, Choice] = field(default_factory=dict)
    predicate: Predicate | None = None

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Whether an entry is wanted, by its values."""
        if self.predicate is not None:
            return self.predicate.evaluate(values)  # type: ignore[arg-type]  # its columns are integers
        return all(choice.holds(values[name]) for name, choice in self.choices.items())


class Rows(NamedTuple):
    """Rows of a part that meet what is wanted."""

    key: KeyValues
    """All six key columns."""
    part: int
    """The part, by its first axis value."""
    start: int
    stop: int
    """Which of its rows, the last one not included."""
    bounds: tuple[int, int] | None = None
    """Their first and last axis value; None where the part was cut in the middle of an entry."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an index knows of a version."""

    index: IndexRecord
    rows: tuple[Rows, ...]
    unindexed: tuple[tuple[KeyValues, int], ...]
    """Parts of which it knows nothing, by key and first axis value."""
