"""Insertion: rows → keys → one step per partition."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

from registry import KeyValues, SchemaRecord, Signature, Version, pad_key
from registry.changes import RememberSources, Requirement, SourcesUnchanged, VariablesAlive

from ..execution import Execution
from ..handle import Handle
from ..merging import Merge, check_merge, local_strategy, parse_tolerance
from ..partitioning import Partitioning, PartitionRows, partitioning_from_json, split_rows
from ..reading.selection import NO_PARTITIONS, Selected
from ..schema import Schema, SchemaVariable
from ..schema.names import check_choice
from ..writing.existing import Existing
from ..writing.immutables import immutable_step, inserted_immutables
from ..writing.inputs import Input, Missing, Unknown, adapt_schema, plan_input
from ..writing.insertion import COUNTS, Steps
from ..writing.meaning import AttributesChoice, meaning_need
from ..writing.naming import is_named
from ..writing.plan import Again, Evolution, Plan, Target, immutable_need, is_wanted
from ..writing.sources import Item, Seen, choose, fetch_fingerprints, to_remember
from ..writing.write import write

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Insertion:
    """An insert that was asked for: what it plans on any head. The fields are those of ``Collection.insert``."""

    items: Sequence[Item]
    merge: Merge | None
    tolerance: Any
    missing: Missing
    unknown: Unknown
    attributes: AttributesChoice
    seen: Seen
    _opened: tuple[SchemaRecord, Sequence[Item], list[Input]] | None = field(default=None, init=False)
    """What it was planned with last, and the schema that this was checked against: to open it again takes time."""

    def __post_init__(self) -> None:
        """Refuse misspelt choices."""
        choices = {"missing": Missing, "unknown": Unknown, "attributes": AttributesChoice, "seen": Seen}
        for argument, kind in choices.items():
            check_choice(argument, getattr(self, argument), get_args(kind))

    def plan(self, handle: Handle, how: Execution, head: Selected, again: Again | None) -> Plan | None:
        """Return a step per partition; None if nothing is given, or all of it is left out."""
        collection = head.collection
        merge = collection.merge if self.merge is None else self.merge
        tolerance = parse_tolerance(self.tolerance, head.schema.variables[head.schema.axis].dtype)
        check_merge(merge, tolerance)
        partitioning = partitioning_from_json(collection.partitioning)
        items, known = self._chosen(handle, head)
        if not items:
            said = "all %d sources are left out by seen=%r" if self.items else "there is nothing to insert"
            arguments = (len(self.items), self.seen) if self.items else ()
            logger.info(f"{collection.name} stays at version %d: {said}", head.version, *arguments)
            return None
        fetch_fingerprints(items)
        schema = adapt_schema(head.schema, items, collection.name, unknown=self.unknown, head=head.version)
        evolution = Evolution(head.schema, schema, head.version)
        inputs = self._open(items, evolution, partitioning, head, again)
        rows = split_rows([(each.keys, each.axis) for each in inputs])
        split = [each for each in rows if is_wanted(pad_key(each.key), again)]
        make = Steps(head, handle.location, evolution, merge, local_strategy(merge, tolerance), inputs)
        steps = make.of(split, _present(handle, head, split), how)
        immutables = inserted_immutables(schema, inputs, head)
        if immutables and is_wanted(None, again):
            target = Target.of_immutables(handle.location, schema, evolution.schema_version)
            steps.append(immutable_step(target, immutables, head))
        names = {name for each in inputs for name in each.names} & head.schema.variables.keys()
        brought = [head.schema.variables[name] for name in sorted(names)]
        alive = VariablesAlive({variable.id: variable.name for variable in brought})
        requirements: list[Requirement] = [*evolution.requirements, alive]
        if self.attributes != "keep":
            requirements.append(meaning_need(brought))
        if any(each.immutable for each in inputs):
            requirements.append(immutable_need(head.snapshot))
        if known:
            requirements.append(SourcesUnchanged(known))
        sources, left_out = to_remember(items), len(self.items) - len(items)
        # If some partitions are planned again, nothing to do in them is a result that others may yet change.
        partly = again is not None and again.keys is not None
        if not (partly or any(step.does for step in steps) or sources or evolution.added):
            logger.info("%s stays at version %d: all rows that are inserted are there", collection.name, head.version)
            return None
        return Plan(
            head,
            "insert",
            f"insert into {collection.name}",
            tuple(steps),
            tuple(requirements),
            (*(RememberSources(sources),) * bool(sources), *evolution.updates),
            dict.fromkeys(COUNTS, 0) | {"skipped": left_out},
        )

    def _open(
        self,
        items: Sequence[Item],
        evolution: Evolution,
        partitioning: Partitioning,
        head: Selected,
        again: Again | None,
    ) -> list[Input]:
        """Return the items checked and encoded, or what came of it the last time."""
        known = None if evolution.added else head.snapshot.schema
        if known is not None and self._opened is not None and self._opened[:2] == (known, items):
            return self._opened[2]
        schema = evolution.after
        # A variable that came after the first plan is none that this insert could know of.
        own = (head.schema if again is None else again.first).variables
        lacking = {name for name in schema.partitioned if self.missing == "fill" or _is_new(schema, name, own)}
        checked = partial(
            plan_input,
            schema=schema,
            partitioning=partitioning,
            collection=head.collection.name,
            unknown=self.unknown,
            may_lack=lacking,
            attributes=self.attributes,
        )
        inputs = [checked(item) for item in items]
        self._opened = (known, items, inputs) if known is not None else None
        return inputs

    def _chosen(self, handle: Handle, head: Selected) -> tuple[Sequence[Item], Mapping[str, int | None]]:
        """Return the items to insert, and on what was known of which sources that depends."""
        if self.seen == "insert":
            return self.items, {}
        names = [item.name for item in self.items if item.name is not None]
        known = handle.registry.known_sources(head.collection, names)
        versions = {name: known[name].begin_version if name in known else None for name in names}
        return choose(self.items, known, self.seen), versions


def _is_new(schema: Schema, name: str, own: Mapping[str, SchemaVariable]) -> bool:
    return schema.variables[name].id not in {variable.id for variable in own.values()}


def insert(handle: Handle, insertion: Insertion, how: Execution, *, signature: Signature, repeatable: bool) -> Version:
    """Insert datasets, and return the version it made; see :meth:`intake_zcollection.Collection.insert`."""
    with _telling_of(insertion):
        return write(handle, partial(insertion.plan, handle, how), how, signature=signature, repeatable=repeatable)


def plan_insert(handle: Handle, insertion: Insertion, how: Execution) -> Plan | None:
    """Return what an insert would do now, and do nothing; None if there is nothing to do."""
    with _telling_of(insertion):
        return insertion.plan(handle, how, handle.select(NO_PARTITIONS), None)


@contextmanager
def _telling_of(insertion: Insertion) -> Iterator[None]:
    items = insertion.items
    try:
        yield
    except Exception as error:
        if len(items) > 1 and not is_named(error):
            # A task of somebody else's dask array: nothing of ours runs in it.
            error.add_note(
                f"while {len(items)} inputs were inserted. Dask arrays do not tell which of them could not be read: "
                "give paths of files, or functions that open them with chunks=None, and this will"
            )
        raise


def _present(handle: Handle, head: Selected, split: Iterable[PartitionRows]) -> dict[KeyValues, Existing]:
    keys = {part.key for part in split}
    fragments = handle.registry.fragments(head.collection, version=head.version, keys=keys)
    return {each.record.values: each for each in Existing.all_of(head, fragments)}
