"""The rules of indexes and statistics in the machine: they find what a scan of all rows finds, at any version."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import intake_zcollection as izc

from .model import Array, Case, Rows, State, join, take

INDEXED = ("int", "flag", "date", "text")
"""The kinds of variables that can be columns."""

BOUNDED = ("float", "int", "date", "packed", "map", "turned")
"""Those of which there can be statistics."""

one_of = st.sampled_from


def remainder(dataset: xr.Dataset) -> Any:
    """A function of each row: of its time."""
    return dataset["time"].values.astype("i8") // 10**9 % 3


def halves(dataset: xr.Dataset) -> dict[str, Any]:
    """A function of a partition: ranges of its rows, which overlap."""
    rows = dataset.sizes[dataset["time"].dims[0]]
    ranges = [(0, 0, rows // 2), (1, rows // 3, rows)]
    there = [each for each in ranges if each[1] < each[2]]
    return {name: np.array([each[at] for each in there], "i8") for at, name in enumerate(("half", "start", "stop"))}


@dataclass(frozen=True)
class Known:
    """An index, as the model has it."""

    name: str
    columns: Mapping[str, int | str]
    """Of each the id of its variable, or the name of what places rows, or the function."""
    begin: int
    end: int | None = None

    def is_there(self, version: int) -> bool:
        return self.begin <= version and (self.end is None or version < self.end)


def column(state: State, rows: Rows, what: int | str) -> Array:
    """The values of a column in rows."""
    if what == "remainder":
        return rows["time"].astype("i8") // 10**9 % 3
    if isinstance(what, str):
        return rows[what]
    return rows[next(name for name, each in state.variables.items() if each.id == what)]


class IndexRules(RuleBasedStateMachine):
    """Indexes and statistics of the collection that the machine changes."""

    # Of the machine
    collection: izc.Collection
    case: Case
    history: list[State]
    writes: int
    record: Callable[[izc.Version, State], None]
    record_nothing: Callable[[izc.Version], None]
    no_rows: Callable[[State], Rows]
    check_values: Callable[[xr.Dataset, State, Rows, Sequence[str]], None]

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, list[Known]] = {}

    # Rules

    @property
    def indexes(self) -> list[Known]:
        """All that the collection ever had."""
        return self.known.setdefault(self.collection._handle.record.id, [])

    @property
    def live(self) -> list[Known]:
        return [each for each in self.indexes if each.end is None]

    def is_indexed(self, name: str) -> bool:
        """Whether a live index is computed from a variable, which cannot be dropped then."""
        id_ = self.history[-1].variables[name].id
        return any(id_ in each.columns.values() for each in self.live)

    @precondition(lambda self: len(self.live) < 2)
    @rule(data=st.data(), how=one_of(["equal", "equal", "row", "partition"]))
    def create_index(self, data: st.DataObject, how: str) -> None:
        state = self.history[-1]
        columns: dict[str, int | str] = {each: each for each in self.case.placing}
        columns |= {name: each.id for name, each in state.variables.items() if each.kind in INDEXED}
        options: dict[str, Any] = {}
        if how == "equal":
            chosen = data.draw(st.lists(one_of(sorted(columns)), min_size=1, max_size=2, unique=True), "columns")
            columns = {name: columns[name] for name in chosen}
        else:
            columns = {"remainder": "remainder"} if how == "row" else {"half": "halves"}
            options = {"func": remainder if how == "row" else halves, "inputs": ["time"], "per": how}
        name = next(each for each in ("i", "j", "k") if each not in {known.name for known in self.live})
        version = self.collection.create_index(name, list(columns), **options)
        self.indexes.append(Known(name, columns, version.number))
        self.record(version, state)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def drop_index(self, data: st.DataObject) -> None:
        known = data.draw(one_of(self.live), "index")
        version = self.collection.drop_index(known.name)
        self.indexes[self.indexes.index(known)] = replace(known, end=version.number)
        self.record(version, self.history[-1])

    @precondition(lambda self: any("halves" in each.columns.values() for each in self.live))
    @rule()
    def index_what_is_not(self) -> None:
        """Partitions that were written to are not indexed any more, if the function is of whole ones."""
        known = next(each for each in self.live if "halves" in each.columns.values())
        version = self.collection.create_index(known.name, ["half"], halves, inputs=["time"], per="partition")
        if version.number == len(self.history):
            self.record(version, self.history[-1])
        else:
            self.record_nothing(version)
        self.collection.load(index={known.name: {"half": 0}}, unindexed="raise")

    @precondition(lambda self: any(each.kind in BOUNDED for each in self.history[-1].variables.values()))
    @rule(data=st.data())
    def add_statistics(self, data: st.DataObject) -> None:
        names = sorted(name for name, each in self.history[-1].variables.items() if each.kind in BOUNDED)
        chosen = data.draw(st.lists(one_of(names), min_size=1, max_size=2, unique=True), "with statistics")
        version = self.collection.add_statistics(chosen)
        if version.number == len(self.history):
            self.record(version, self.history[-1])
        else:
            self.record_nothing(version)

    # Invariants

    @invariant()
    def what_is_loaded_by_values_is_what_a_scan_finds(self) -> None:
        if getattr(self, "bounded_at", None) == self.writes or not hasattr(self, "collection"):
            return
        self.bounded_at = self.writes
        version = self.writes * 104729 % len(self.history) if self.writes % 2 else len(self.history) - 1
        state = self.history[version]
        names = sorted(name for name, each in state.variables.items() if each.kind in BOUNDED)
        if not names or not state.partitions:
            return
        name, keys = names[self.writes % len(names)], state.keys
        values = state.partitions[keys[self.writes % len(keys)]][name].ravel()
        known = values[~np.isnat(values)] if values.dtype.kind == "M" else values[~np.isnan(values)]
        if not len(known):
            return
        low, high = sorted([known[self.writes % len(known)], known[self.writes // 2 % len(known)]])
        found = []
        for key in keys:
            rows = state.partitions[key]
            inside = (rows[name] >= low) & (rows[name] <= high)
            found.append(take(rows, np.flatnonzero(inside.reshape(len(inside), -1).any(axis=1)).tolist()))
        source = self.collection if version == len(self.history) - 1 else self.collection.at(version=version)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = source.load(where={name: (low, high)}, chunks=None)
        self.check_values(loaded, state, join([self.no_rows(state), *found]), list(state.variables))

    @invariant()
    def what_is_looked_up_is_what_a_scan_finds(self) -> None:
        if getattr(self, "looked_at", None) == self.writes or not hasattr(self, "collection"):
            return
        self.looked_at = self.writes
        for known in self.indexes:
            version = self.writes * 7919 % len(self.history) if self.writes % 2 else len(self.history) - 1
            if not known.is_there(version):
                continue
            state = self.history[version]
            wanted, found = self.asked_for(known, state)
            if wanted is None:
                continue
            source = self.collection if version == len(self.history) - 1 else self.collection.at(version=version)
            unindexed = "compute" if "halves" in known.columns.values() else "raise"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loaded = source.load(index={known.name: wanted}, chunks=None, unindexed=unindexed)  # type: ignore[arg-type]  # a literal
            self.check_values(loaded, state, join([self.no_rows(state), *found]), list(state.variables))

    def asked_for(self, known: Known, state: State) -> tuple[dict[str, Any] | None, list[Rows]]:
        """Values that some row has, and all rows that have them, partition by partition."""
        keys = state.keys
        if not keys:
            return None, []
        if "halves" in known.columns.values():
            half = self.writes % 2
            found = [state.partitions[key] for key in keys]
            sizes = [len(rows["time"]) for rows in found]
            ranges = [range(size // 2) if half == 0 else range(size // 3, size) for size in sizes]
            return {"half": half}, [take(rows, each) for rows, each in zip(found, ranges, strict=True)]
        some = state.partitions[keys[self.writes % len(keys)]]
        row = self.writes // 3 % len(some["time"])
        values = {name: column(state, some, what)[row] for name, what in known.columns.items()}
        if any(isinstance(value, np.datetime64) and np.isnat(value) for value in values.values()):
            return None, []
        found = []
        for key in keys:
            rows = state.partitions[key]
            mask = np.ones(len(rows["time"]), bool)
            for name, what in known.columns.items():
                mask &= column(state, rows, what) == values[name]
            found.append(take(rows, np.flatnonzero(mask).tolist()))
        return values, found
