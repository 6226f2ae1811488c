"""The steps of an insert: what each partition gets, what that cuts of its parts, and what it depends on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from registry import KeyValues, Run, format_key, name_values, pad_key
from registry.changes import NoOtherPart, Requirement

from ..errors import AlreadyExistsError
from ..execution import Execution
from ..merging import Bounds, Local, Merge, MergeFunction, parts_to_read, plan_cuts, repeated
from ..partitioning import PartitionRows, partitioning_from_json
from ..reading.selection import Selected
from ..storage.location import Location
from .axes import Axis, read_axes
from .existing import Existing, counts_of
from .inputs import Input
from .merge import Merging
from .naming import listing
from .plan import Evolution, Step, Target
from .rows import RowsJob

COUNTS = (
    *("created", "replaced", "merged", "skipped"),
    *("rows", "rows_replaced", "parts_made", "parts_cut", "parts_rewritten"),
)
"""What an insert counts: partitions by what became of them, sources left out; rows that came, and existing ones that
were given up for them; new parts, parts of which something is kept, and those that are wholly in new ones."""


@dataclass(frozen=True)
class Steps:
    """What the steps of all partitions have in common."""

    head: Selected
    place: Location
    evolution: Evolution
    merge: Merge
    local: Local | None
    """The strategy, if it is about axis values; otherwise ``merge`` is about whole partitions."""
    inputs: Sequence[Input]

    def of(self, split: Sequence[PartitionRows], present: Mapping[KeyValues, Existing], how: Execution) -> list[Step]:
        """Return a step per partition; reads the axis of the parts that the rows meet.

        Raises AlreadyExistsError where the strategy does not say what becomes of what is there.
        """
        if self.merge == "refuse":
            self._check_vacant(present)
        if self.local is None:
            return [self._of_whole(rows, present.get(rows.key)) for rows in split]
        wanted = {
            rows.key: (there.table, parts_to_read(self.local, self._axes(rows), there.bounds))
            for rows in split
            if (there := present.get(rows.key)) is not None
        }
        axes = read_axes(self.head, wanted, how)
        if self.local.name == "append":
            self._check_new(split, axes)
        return [self._of_runs(rows, present.get(rows.key), axes.get(rows.key, {}), self.local) for rows in split]

    def _axes(self, rows: PartitionRows) -> list[Axis]:
        """Return the axis of each input's rows of a partition."""
        return [self.inputs[number].axis[which] for number, which in rows.pieces]

    def _of_runs(self, rows: PartitionRows, existing: Existing | None, axes: Mapping[int, Axis], local: Local) -> Step:
        """Return what is done where only the ranges of runs matter: nothing if all rows are left out."""
        bounds = existing.bounds if existing else Bounds.of(())
        plan = plan_cuts(local, self._axes(rows), bounds, axes)
        key = pad_key(rows.key)
        if existing is not None and not plan.runs:
            return Step(key, None, needs=tuple(existing.needs_of_runs(plan)), title=self._name(rows.key))
        origin = existing.read_origin(self.place, plan) if existing else None
        order = None if np.array_equal(plan.order, np.arange(rows.count)) and origin is None else plan.order
        job = RowsJob(
            self._target(rows.key),
            self.head.collection.name,
            self._title(rows),
            order,
            tuple(run.rows for run in plan.runs),
            origin,
            Existing.read_axis(plan, axes),
        )
        counts = {"merged" if existing else "created": 1, "rows": plan.inserted, "rows_replaced": plan.given_up}
        needs: list[Requirement] = [NoOtherPart(tuple((key, *run.axis_range) for run in plan.runs))]
        if existing is not None:
            needs = existing.needs_of_runs(plan)
        return Step(
            key,
            job,
            self._arrays(rows),
            tuple(needs),
            counts | counts_of(plan),
            existing.cuts(plan) if existing else (),
            tuple(Run(key, run.axis_range) for run in plan.runs),
            self._name(rows.key),
        )

    def _of_whole(self, rows: PartitionRows, present: Existing | None) -> Step:
        """Return what is done where all of a partition matters, or nothing of it."""
        key = pad_key(rows.key)
        blind = self.merge == "replace"
        merging = None
        needs: tuple[Requirement, ...] = () if blind else (NoOtherPart(((key, None, None),)),)
        if present is not None and not blind:
            assert callable(self.merge)  # "refuse" has been checked
            needs = present.needs_of_all()
            merging = self._merging(present, self.merge, rows.key)
        what = "created" if present is None else "replaced" if blind else "merged"
        counts = {what: 1, "rows": rows.count, "parts_made": 1}
        counts["rows_replaced"] = present.record.rows if present is not None and blind else 0
        title = self._title(rows)
        job = RowsJob(self._target(rows.key), self.head.collection.name, title, rows.order, merging=merging)
        return Step(key, job, self._arrays(rows), needs, counts, (), (Run(key),), self._name(rows.key))

    def _merging(self, there: Existing, function: MergeFunction, key: KeyValues) -> Merging:
        partitioning = partitioning_from_json(self.head.collection.partitioning)
        return Merging(there.origin(self.place, there.table), function, partitioning, key)

    def _target(self, key: KeyValues) -> Target:
        names = name_values(self.head.collection.keys, key)
        return Target.of_partition(self.place, self.evolution.after, self.evolution.schema_version, names)

    def _name(self, key: KeyValues) -> str:
        return format_key(name_values(self.head.collection.keys, key))

    def _title(self, rows: PartitionRows) -> str:
        """Return what errors call a partition: by its key, and the inputs whose rows go there."""
        labels = [self.inputs[number].label for number, _ in rows.pieces if self.inputs[number].label]
        return f"{self._name(rows.key)} (rows of {listing(labels)})" if labels else self._name(rows.key)

    def _arrays(self, rows: PartitionRows) -> Mapping[str, Sequence[Any]]:
        """Return the rows of a partition, of each input that has some; nothing is computed."""
        return {
            name: [
                self.inputs[number].stored[name][(slice(None),) * variable.split_axis + (which,)]
                for number, which in rows.pieces
            ]
            for name, variable in self.evolution.after.partitioned.items()
        }

    def _check_vacant(self, present: Mapping[KeyValues, Existing]) -> None:
        taken = [f"{each.record} ({each.record.rows} rows)" for each in present.values()]
        if taken:
            raise AlreadyExistsError(
                f"collection {self.head.collection.name} has data already in {listing(taken, 5)}; say what becomes of "
                "it: insert with merge='append', 'keep', 'replace', 'concat', 'time_series', 'upsert' or a function"
            )

    def _check_new(self, split: Sequence[PartitionRows], axes: Mapping[KeyValues, Mapping[int, Axis]]) -> None:
        found = []
        for rows in split:
            known = axes.get(rows.key, {})
            there = np.concatenate(list(known.values())) if known else np.empty(0, np.int64)
            again = repeated(self._axes(rows), there)
            if len(again):
                values = "one value" if len(again) == 1 else f"{len(again)} values"
                found.append(f"{self._name(rows.key)} ({values}, {self._span(again)})")
        if found:
            axis = self.head.schema.axis
            raise AlreadyExistsError(
                f"collection {self.head.collection.name} has rows already at values of {axis} that are inserted, or "
                f"several inputs have rows at the same: {listing(found, 5)}; nothing was written. Say what becomes of "
                "them: insert with merge='keep' to leave those out that are there, 'upsert' or 'time_series' to "
                "replace the existing ones, 'concat' to have both, 'replace' for a whole new partition"
            )

    def _span(self, values: Axis) -> str:
        axis = self.head.schema.variables[self.head.schema.axis]
        shown: Any = values.view("M8[ns]") if axis.dtype.kind == "M" else values
        return str(shown[0]) if len(values) == 1 else f"from {shown[0]} to {shown[-1]}"
