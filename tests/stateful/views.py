"""The rules of views in the machine, over the collection that all other rules change: against values that tell what
they were computed from.

A function of a view gives each row a number that nothing else has, and notes what it saw for it: so a value that stands
beside another row, or is older than it should be, is found out wherever it comes from.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import count
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import intake_zcollection as izc
from tests.conftest import Store

from .model import Array, Case, Key, Rows, State

OWN_NAMES = ("w", "s", "u")

KINDS = {"number": ("f8", None), "integer": ("i8", -1)}
"""The dtype and the fill value of own variables."""

HOWS = ("rows", "partition", "neighbours")
"""What a value is computed from: its row, its partition, or the partitions next to it too."""

one_of = st.sampled_from
often = one_of([True, True, True, False])
seldom = one_of([False, False, False, True])

# The functions that views are computed by


@dataclass(frozen=True)
class Seen:
    """What a value was computed from."""

    definition: int
    row: int
    """The number of the row itself."""
    rows: Counter[int]
    """The numbers of all rows of the partition that it depends on."""


SEEN: dict[int, Seen] = {}
"""By the value."""

CALLED: list[int] = []
"""Which definitions were called."""

OUTPUTS: dict[int, tuple[str, ...]] = {}
"""How the outputs of each definition are called by now."""

MEANWHILE: list[Callable[[], None]] = []
"""What others do while a function runs, once."""


def number_of(*values: object) -> int:
    """A number that a float holds exactly, and no other values have; small ones can be added."""
    return int.from_bytes(blake2b(repr(values).encode(), digest_size=6).digest()) // 4 * 4


def numbers_of(rows: int, arrays: Iterable[Array], once: Iterable[Array]) -> list[int]:
    """A number per row, of some variables in any order, and of others that are stored once."""
    common = sum(number_of(array.tolist()) for array in once)
    columns = [[number_of(value) for value in array.tolist()] for array in arrays]
    return [(common + sum(column[row] for column in columns)) % 2**47 for row in range(rows)]


def values_of(definition: int, how: str, rows: Sequence[int], own: slice) -> list[int]:
    """The values of a partition's own rows, by the numbers of all that are seen."""
    values = []
    for row in rows[own]:
        value = number_of(definition, row, *([] if how == "rows" else rows))
        SEEN[value] = Seen(definition, row, Counter([row] if how == "rows" else rows[own]))
        values.append(value)
    return values


def compute(dataset: xr.Dataset, definition: int, how: str, partition_info: tuple[str, slice]) -> dict[str, Any]:
    """What an importable function of a view is."""
    CALLED.append(definition)
    while MEANWHILE:
        MEANWHILE.pop()()
    dimension, own = partition_info
    arrays = [each.transpose(dimension, ...).values for each in dataset.variables.values() if dimension in each.dims]
    once = [each.values for each in dataset.variables.values() if dimension not in each.dims]
    rows = numbers_of(dataset.sizes[dimension], arrays, once)
    values = values_of(definition, how, rows, own)
    around = [0] * own.start, [0] * (len(rows) - own.stop)
    return {
        name: np.array([*around[0], *(value + place for value in values), *around[1]], "i8")
        for place, name in enumerate(OUTPUTS[definition])
    }


compute_unrecorded = lambda dataset, definition, how, partition_info: compute(  # noqa: E731 - that nobody can import
    dataset, definition, how, partition_info
)


# What a view has to be


@dataclass(frozen=True)
class Defined:
    """A function that own variables were computed by."""

    how: str
    inputs: frozenset[int]
    """The ids of the base's variables in the model."""
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class ViewState:
    """A view at one version."""

    base_version: int
    text: str | None
    takes: Callable[[Key], bool]
    shown: Mapping[int, str]
    """The names of variables of the base, by their ids in the model."""
    own: Mapping[int, tuple[str, str]]
    """The names and kinds of own variables."""
    pinned: bool = False


Content = dict[Key, dict[int, Array]]
"""What is loaded: by partition, and by the ids of variables in the model."""


@dataclass(eq=False)
class MadeView:
    """A view, and what it has to be."""

    view: izc.View
    history: list[State]
    """Of its base."""
    base: str
    states: list[ViewState]
    needs: set[int]
    """What its base may not drop."""
    definitions: dict[int, Defined] = field(default_factory=dict)
    current: dict[int, int] = field(default_factory=dict)
    """The recorded definition of own variables that have one."""
    computed: dict[tuple[int, Key], int] = field(default_factory=dict)
    """Over which version of the base the own variables of partitions were computed last."""
    laid: dict[Key, int] = field(default_factory=dict)
    """Over the rows of which version of the base the own values of partitions lie."""
    contents: list[tuple[Content, Content]] = field(default_factory=list)
    """What each version showed when it was new: with stale="fill", and with "last"."""
    checked: tuple[int, int] | None = None

    @property
    def state(self) -> ViewState:
        return self.states[-1]

    @property
    def base_version(self) -> int:
        """The version of the base that its head is over."""
        return self.state.base_version if self.state.pinned else len(self.history) - 1

    def keys(self, state: ViewState, version: int) -> list[Key]:
        return [key for key in self.history[version].keys if state.takes(key)]

    def names_in_base(self, version: int) -> dict[int, str]:
        return {each.id: name for name, each in self.history[version].variables.items()}

    def rows_of(self, definition: Defined, key: Key, version: int) -> list[int] | None:
        """The numbers of the rows of a partition; None if an input is not there any more."""
        state, names = self.history[version], self.names_in_base(version)
        if not definition.inputs <= names.keys():
            return None
        rows, variables = state.partitions[key], [names[each] for each in definition.inputs]
        once = [v for each in variables if (v := state.variables[each].values) is not None]
        arrays = [rows[each] for each in variables if not state.variables[each].is_immutable]
        return numbers_of(len(rows["time"]), [rows["time"], *arrays], once)

    def values(self, number: int, key: Key, version: int) -> list[int] | None:
        """What a definition computes of a partition, from scratch."""
        definition, keys = self.definitions[number], self.keys(self.state, version)
        depth, place = int(definition.how == "neighbours"), keys.index(key)
        near = keys[max(0, place - depth) : place + depth + 1]
        numbers = [self.rows_of(definition, each, version) for each in near]
        if any(each is None for each in numbers):
            return None
        start = sum(len(each or ()) for each in numbers[: near.index(key)])
        own = slice(start, start + len(numbers[near.index(key)] or ()))
        return values_of(number, definition.how, [row for each in numbers for row in each or ()], own)


class ViewRules(RuleBasedStateMachine):
    """What is done to views of the collection, and what they have to show."""

    registry: izc.Registry
    collection: izc.Collection
    history: list[State]
    case: Case
    store: Store
    new_place: Callable[[], tuple[str, str]]
    refused: Callable[..., AbstractContextManager[None]]
    insert_rows: Callable[..., None]
    filter_text: Callable[[Any], tuple[str, Callable[[Key], bool]]]

    def __init__(self) -> None:
        super().__init__()
        self.views: list[MadeView] = []
        self.numbers = count(1)
        self.looks = 0
        MEANWHILE.clear()

    # What the rules share

    def record_view(self, made: MadeView, version: izc.Version, state: ViewState) -> None:
        """Note a version that an operation on a view made."""
        state = replace(state, base_version=max(state.base_version, made.state.base_version))
        made.states.append(state)
        assert version.number == len(made.states) - 1
        self.note_content(made)

    def note_content(self, made: MadeView) -> None:
        then, state = made.view.at(version=len(made.states) - 1), made.state
        assert isinstance(then, izc.View)
        assert then.base_version == state.base_version
        fill = self.content(made, state, then.load(chunks=None, stale="fill"))
        last = self.content(made, state, then.load(chunks=None))
        self.check_content(made, state, fill, state.base_version)
        assert [*last] == [*fill]
        made.contents.append((fill, last))

    def now(self, made: MadeView, **changes: Any) -> ViewState:
        """The state that a commit makes now."""
        return replace(made.state, base_version=made.base_version, **changes)

    def names(self, made: MadeView, state: ViewState, version: int) -> dict[str, int]:
        """All that is shown, by name, with the ids in the model."""
        there = made.names_in_base(version)
        shown = {name: id_ for id_, name in state.shown.items() if id_ in there}
        return shown | {name: id_ for id_, (name, _) in state.own.items()}

    def content(self, made: MadeView, state: ViewState, loaded: xr.Dataset) -> Content:
        """Divide what was loaded by the keys of its rows; no partition comes twice."""
        ids = {name: id_ for id_, name in state.shown.items()} | {name: id_ for id_, (name, _) in state.own.items()}
        dimension, times = self.case.dimension, loaded["time"].values
        orbits = times if self.case.is_date else loaded["orbit"].values
        keys = [self.case.key(time, int(orbit)) for time, orbit in zip(times, orbits, strict=True)]
        assert keys == sorted(keys)
        arrays = {
            ids[str(name)]: each.transpose(dimension, ...).values
            for name, each in loaded.variables.items()
            if dimension in each.dims and name in ids
        }
        where = {key: slice(keys.index(key), keys.index(key) + keys.count(key)) for key in dict.fromkeys(keys)}
        return {
            key: {TIME: times[rows], **{id_: each[rows] for id_, each in arrays.items()}} for key, rows in where.items()
        }

    # Rules: making views

    @precondition(lambda self: len(self.views) < 2)
    @rule(data=st.data())
    def create_view(self, data: st.DataObject) -> None:
        draw = data.draw
        version = draw(st.integers(0, len(self.history) - 1), "pinned version") if draw(seldom, "pinned") else None
        over = self.history[-1 if version is None else version]
        text, takes = self.filter_text(draw) if draw(seldom, "filters") else (None, lambda _: True)
        chosen = draw(st.lists(one_of(sorted(over.variables)), unique=True), "shown") if over.variables else []
        shown = {over.variables[name].id: name for name in chosen}
        variables: Any = [*chosen, *self.case.placing]
        if draw(st.booleans(), "all"):
            shown, variables = {each.id: name for name, each in over.variables.items()}, None
        elif draw(st.booleans(), "other names"):
            shown = {id_: name if name == "x" else f"{name}_base" for id_, name in shown.items()}
            known = {each.id: name for name, each in over.variables.items()}
            variables = {name: known[id_] for id_, name in shown.items()} | {each: each for each in self.case.placing}
        name, location = self.new_place()
        options = self.store.storage_options
        view = izc.create_view(
            self.registry,
            name,
            self.collection,
            location=location,
            pinned_version=version,
            filters=text,
            variables=variables,
            storage_options=options,
        )
        at = len(self.history) - 1 if version is None else version
        state = ViewState(at, text, takes, shown, {}, version is not None)
        made = MadeView(view, self.history, self.collection.name, [state], {*shown})
        self.note_content(made)
        self.views.append(made)

    def a_view(self, draw: Any) -> MadeView:
        number = draw(st.integers(0, len(self.views) - 1), "view")
        return self.views[number]

    # Rules: computing

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def update_view(self, data: st.DataObject) -> None:
        self.compute_in_view(data.draw)

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def update_view_while_its_base_changes(self, data: st.DataObject) -> None:
        draw = data.draw
        MEANWHILE.append(lambda: self.insert_rows(draw, adding=False))
        self.compute_in_view(draw, scheduler="synchronous")
        MEANWHILE.clear()

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def define_in_view(self, data: st.DataObject) -> None:
        self.compute_in_view(data.draw, run=False)

    def compute_in_view(self, draw: Any, **options: Any) -> None:
        made = self.a_view(draw)
        state, at = made.state, made.base_version
        names = made.names_in_base(at)
        sources = sorted(name for id_, name in state.shown.items() if id_ in names)
        inputs = draw(st.lists(one_of(sources), unique=True, max_size=2), "inputs") if sources else []
        ids = {name: id_ for id_, name in state.shown.items()}
        number, how = next(self.numbers), draw(one_of(HOWS), "how")
        outputs, own, given = self.outputs(draw, state)
        definition = Defined(how, frozenset(ids[name] for name in inputs), outputs)
        made.definitions[number] = definition
        OUTPUTS[number] = tuple(own[id_][0] for id_ in outputs)
        recorded = "run" in options or draw(often, "importable")
        keys = made.keys(state, at)
        if "run" not in options and draw(seldom, "filters"):
            options["filters"], selects = self.filter_text(draw)
            keys = [key for key in keys if selects(key)]
        before = made.view.version.number
        version = made.view.update(
            compute if recorded else compute_unrecorded,
            args=(number, how),
            inputs=inputs,
            outputs=given,
            depth=int(how == "neighbours"),
            rowwise=how == "rows",
            code_version=str(number) if recorded else None,
            **options,
        )
        if "run" not in options and not keys and not recorded:
            assert version.number == before
            return
        if recorded:
            self.define(made, number)
        if "run" not in options:
            self.note_computed(made, outputs, keys, at)
        self.record_view(made, version, replace(state, base_version=at, own=own))

    def outputs(self, draw: Any, state: ViewState) -> tuple[tuple[int, ...], dict[int, tuple[str, str]], list[Any]]:
        """Own variables to compute, some of them new: their ids, all own variables, and what update is given."""
        own, given, outputs = dict(state.own), list[Any](), []
        known = {name: id_ for id_, (name, _) in own.items()}
        taken = {*state.shown.values()}
        for name in draw(st.lists(one_of(OWN_NAMES), min_size=1, max_size=2, unique=True), "outputs"):
            assert name not in taken
            if name in known:
                outputs.append(known[name])
                given.append(name)
                continue
            kind, id_ = draw(one_of(sorted(KINDS)), "kind"), -next(self.numbers)
            own[id_] = name, kind
            outputs.append(id_)
            dtype, fill = KINDS[kind]
            given.append(izc.Variable(name, dtype, (self.case.dimension,), fill_value=fill))
        return tuple(outputs), own, given

    def define(self, made: MadeView, number: int) -> None:
        outputs = {*made.definitions[number].outputs}
        for id_, each in [*made.current.items()]:
            if outputs & {*made.definitions[each].outputs}:
                del made.current[id_]
        made.current |= dict.fromkeys(outputs, number)

    def note_computed(self, made: MadeView, outputs: Iterable[int], keys: Iterable[Key], at: int) -> None:
        for key in keys:
            made.laid[key] = at
            made.computed |= {(id_, key): at for id_ in outputs}

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def sync_view(self, data: st.DataObject) -> None:
        draw, made = data.draw, self.a_view(data.draw)
        state, options, at = made.state, dict[str, Any](), made.base_version
        takes: Callable[[Key], bool] = lambda _: True  # noqa: E731 - a function of one line
        if draw(seldom, "filters"):
            options["filters"], takes = self.filter_text(draw)
        if draw(seldom, "pin"):
            at = options["pinned_version"] = draw(st.integers(made.state.base_version, len(made.history) - 1), "at")
            state = replace(state, pinned=True)
        dry = made.view.sync(**options, dry_run=True)
        told = self.told(dry)
        names = {id_: name for id_, (name, _) in state.own.items()}
        computing = {
            number: [key for key, each in told.items() if key is not None and self.concerns(made, number, each)]
            for number in dict.fromkeys(made.current.values())
        }
        gone = [key for key, each in told.items() if each.reason == "gone"]
        before = made.view.version.number
        CALLED.clear()
        done = made.view.sync(**options)
        assert repr(done).splitlines()[1:] == repr(dry).splitlines()[1:]
        assert Counter(CALLED) == Counter({number: len(keys) for number, keys in computing.items() if keys})
        for number, keys in computing.items():
            self.note_computed(made, made.definitions[number].outputs, keys, at)
        for key in gone:
            made.laid.pop(key, None)
            made.computed = {each: at for each, at in made.computed.items() if each[1] != key}
        version = made.view.version
        if not (any(computing.values()) or gone or state.pinned):
            assert version.number == before
        if version.number != before:
            self.record_view(made, version, replace(state, base_version=at))
        after = self.told(made.view.stale())
        synced = {names[id_] for id_ in made.current}
        for key, each in after.items():
            assert not takes(key) or (each.reason != "gone" and not synced & {*each.variables})

    def concerns(self, made: MadeView, number: int, change: izc.Change) -> bool:
        names = {made.state.own[id_][0] for id_ in made.definitions[number].outputs}
        return change.reason != "gone" and bool(names & {*change.variables})

    def told(self, changes: izc.Changes) -> dict[Key, izc.Change]:
        return {tuple(value for _, value in key): each for key, each in changes.items()}

    # Rules: what a view takes and shows

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def set_filters_of_view(self, data: st.DataObject) -> None:
        made = self.a_view(data.draw)
        text, takes = self.filter_text(data.draw) if data.draw(often, "some") else (None, lambda _: True)
        version = made.view.set_filters(text)
        if version.number == len(made.states):
            self.record_view(made, version, self.now(made, text=text, takes=takes))
        else:
            assert text == made.state.text

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def rename_in_view(self, data: st.DataObject) -> None:
        made = self.a_view(data.draw)
        state = made.state
        own = {name: id_ for id_, (name, _) in state.own.items()}
        there = made.names_in_base(made.base_version)
        shown = {name: id_ for id_, name in state.shown.items() if id_ in there and name != "x"}
        if not (own or shown):
            return
        old = data.draw(one_of(sorted(own | shown)), "old")
        new = data.draw(one_of([*OWN_NAMES, "p", "q"]), "new") if old in own else f"{old}2"
        if new in {**own, **dict.fromkeys(state.shown.values())} or len(new) > 20:
            return
        version = made.view.rename_variable(old, new)
        if old in own:
            after = self.now(made, own={**state.own, own[old]: (new, state.own[own[old]][1])})
        else:
            after = self.now(made, shown={**state.shown, shown[old]: new})
        self.record_view(made, version, after)
        for number, each in made.definitions.items():
            OUTPUTS[number] = tuple(made.state.own[id_][0] if id_ in made.state.own else "gone" for id_ in each.outputs)

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def drop_in_view(self, data: st.DataObject) -> None:
        made = self.a_view(data.draw)
        state, there = made.state, made.names_in_base(made.base_version)
        own = {name: id_ for id_, (name, _) in state.own.items()}
        shown = {name: id_ for id_, name in state.shown.items() if id_ in there and name != "x"}
        if not (own or shown) or not data.draw(seldom, "really"):
            return
        name = data.draw(one_of(sorted(own | shown)), "dropped")
        version, gone = made.view.drop_variable(name), (own | shown)[name]
        made.needs.discard(gone)
        for id_, number in [*made.current.items()]:
            if gone in {*made.definitions[number].outputs, *made.definitions[number].inputs}:
                del made.current[id_]
        own_left = {id_: each for id_, each in state.own.items() if id_ != gone}
        shown_left = {id_: each for id_, each in state.shown.items() if id_ != gone}
        self.record_view(made, version, self.now(made, own=own_left, shown=shown_left))

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def reopen_view(self, data: st.DataObject) -> None:
        made = self.a_view(data.draw)
        view = izc.open_collection(
            izc.connect(self.registry.url), made.view.name, storage_options=self.store.storage_options
        )
        assert isinstance(view, izc.View)
        made.view, made.checked = view, None

    def may_be_dropped(self, draw: Any, id_: int, name: str) -> dict[str, Any] | None:
        """See that a variable that views show is not dropped unasked; return how it is, None if it is not."""
        concerned = [each for each in self.views if each.base == self.collection.name and id_ in each.needs]
        if not concerned:
            return {}
        if draw(often, "refused"):
            with self.refused(izc.InvalidInputError):
                self.collection.drop_variable(name)
            return None
        for each in concerned:
            each.needs.discard(id_)
        return {"views": "break"}

    # Invariants

    @invariant()
    def views_show_their_base_and_what_was_computed_from_it(self) -> None:
        for made in self.views:
            if made.checked != (now := (made.base_version, len(made.states))):
                self.check_view(made)
                made.checked = now

    def check_view(self, made: MadeView) -> None:
        self.looks += 1
        state, at = made.state, made.base_version
        assert (made.view.version.number, made.view.base_version) == (len(made.states) - 1, at)
        told = self.told(made.view.stale())
        fill = self.content(made, state, made.view.load(chunks=None, stale="fill"))
        self.check_content(made, state, fill, at)
        last = self.content(made, state, made.view.load(chunks=None))
        assert [*last] == [*fill]
        for key in fill:
            self.check_stale(made, key, fill[key], told.get(key), at)
            self.check_last(made, key, last[key], fill[key], told.get(key), at)
        assert all((key not in fill) == (each.reason == "gone") for key, each in told.items())
        self.check_changes(made, fill)
        number, last_too = self.looks * 7919 % len(made.states), self.looks % 2
        then = made.view.at(version=number).load(chunks=None, stale="last" if last_too else "fill")
        self.check_same(made.contents[number][last_too], self.content(made, made.states[number], then))
        if self.looks % 3 == 0:
            self.check_choices(made, fill, {key for key in told if key in fill})

    def check_content(self, made: MadeView, state: ViewState, content: Content, at: int) -> None:
        """See that partitions are the base's at a version, and that own values are of these rows."""
        assert [*content] == made.keys(state, at)
        variables, names = made.history[at].variables, made.names_in_base(at)
        shown = {id_ for id_ in state.shown if id_ in names and not variables[names[id_]].is_immutable}
        for key, arrays in content.items():
            assert arrays.keys() == {TIME, *shown, *state.own}
            self.check_partition(made, state, key, arrays, at)

    def check_partition(
        self, made: MadeView, state: ViewState, key: Key, arrays: Mapping[int, Array], at: int, *, whole: bool = False
    ) -> None:
        base, names = made.history[at], made.names_in_base(at)
        rows: Rows = base.partitions[key]
        np.testing.assert_array_equal(arrays[TIME], rows["time"])
        for id_, name in state.shown.items():
            if id_ in arrays:  # or it was dropped from the base, and was there at the older version alone
                np.testing.assert_array_equal(arrays[id_], rows[names[id_]], name)
        for id_ in state.own:
            # What was moved along, when others were computed over newer rows, may have seen rows that are gone.
            lies_there = made.computed.get((id_, key)) == made.laid.get(key)
            self.check_own(made, key, arrays[id_], at, whole=whole and lies_there)

    def check_own(self, made: MadeView, key: Key, values: Array, at: int, *, whole: bool) -> None:
        """See that no own value stands beside a row that it was not computed from, or in another partition."""
        numbers: dict[int, list[int] | None] = {}
        for row, value in enumerate(values.tolist()):
            if value == value and value != -1:
                seen = SEEN[int(value) // 4 * 4]
                if seen.definition not in numbers:
                    numbers[seen.definition] = made.rows_of(made.definitions[seen.definition], key, at)
                if (here := numbers[seen.definition]) is not None:
                    assert here[row] == seen.row, "an own value stands beside another row"
                    assert not whole or not seen.rows - Counter(here), "an own value is from rows that are gone"

    def check_stale(
        self, made: MadeView, key: Key, arrays: Mapping[int, Array], change: izc.Change | None, at: int
    ) -> None:
        """See that what is not told to be stale is what would be computed, and that what is has a reason."""
        if change is not None and change.reason in ("rows", "inputs"):
            told = [id_ for id_, (name, _) in made.state.own.items() if name in change.variables]
            assert any(made.computed.get((id_, key), -1) < at for id_ in told), change
        for id_, (name, _) in made.state.own.items():
            if change is not None and name in change.variables:
                # A partition is told of once, with one reason; another variable may be stale for its code alone.
                if change.reason in ("rows", "inputs") and made.computed.get((id_, key), -1) >= at:
                    assert self.definitions_in(arrays[id_]) != {made.current[id_]}, change
                continue
            definitions = {SEEN[int(value) // 4 * 4].definition for value in arrays[id_].tolist()}
            assert len(definitions) == 1, name
            (number,) = definitions
            assert made.current.get(id_, number) == number
            expected = made.values(number, key, at)
            if expected is not None:
                place = made.definitions[number].outputs.index(id_)
                assert arrays[id_].tolist() == [value + place for value in expected], name

    @staticmethod
    def definitions_in(values: Array) -> set[int]:
        """What values were computed by, as far as there are any."""
        return {SEEN[int(value) // 4 * 4].definition for value in values.tolist() if value == value and value != -1}

    def check_last(
        self,
        made: MadeView,
        key: Key,
        arrays: Mapping[int, Array],
        fill: Mapping[int, Array],
        change: izc.Change | None,
        at: int,
    ) -> None:
        """See that a partition is at the base's head, or, where that is told to be stale, at its own version."""
        is_older = not equal(arrays, fill)
        assert change is not None or not is_older
        self.check_partition(made, made.state, key, arrays, made.laid[key] if is_older else at, whole=True)

    def check_same(self, old: Content, new: Content) -> None:
        assert [*old] == [*new]
        assert all(equal(old[key], new[key]) for key in old)

    def check_changes(self, made: MadeView, now: Content) -> None:
        """See that partitions that are not told to have changed are as they were."""
        number = self.looks * 104729 % len(made.states)
        then = made.contents[number][0]
        changes = made.view.changes_since(number)
        told = self.told(changes)
        for key in {*then, *now} - told.keys():
            assert key in then
            assert key in now
            common = then[key].keys() & now[key].keys()
            if changes.immutables:  # of which it is told once; what was computed from them ends everywhere
                common = {id_ for id_ in common if id_ >= 0}
            assert equal({id_: then[key][id_] for id_ in common}, {id_: now[key][id_] for id_ in common})

    def check_choices(self, made: MadeView, fill: Content, stale: set[Key]) -> None:
        skipped = self.content(made, made.state, made.view.load(chunks=None, stale="skip"))
        self.check_same({key: each for key, each in fill.items() if key not in stale}, skipped)
        if stale:
            with pytest.raises(izc.StaleViewError):
                made.view.load(stale="raise")
        else:
            self.check_same(fill, self.content(made, made.state, made.view.load(chunks=None, stale="raise")))

    def drop_views(self) -> None:
        for made in self.views:
            izc.drop_collection(self.registry, made.view.name, storage_options=self.store.storage_options)


TIME = 0
"""In place of the id of the axis."""


def equal(these: Mapping[int, Array], others: Mapping[int, Array]) -> bool:
    """Whether the same variables have the same values, missing ones too."""
    return these.keys() == others.keys() and all(
        repr(each.tolist()) == repr(others[id_].tolist()) for id_, each in these.items()
    )
