"""Dropping rows: parts are cut around them, and only what stays between some of them is written again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from registry import Run, Signature, Version
from registry.changes import NoOtherPart, Requirement

from .. import execution
from ..errors import InvalidInputError
from ..execution import Execution
from ..handle import Handle
from ..merging import CutPlan, plan_drop_range, plan_drop_rows
from ..reading.bounds import AxisRange, Conditions, Where, Within
from ..reading.origin import Origin
from ..reading.selection import Selected, Selection
from ..schema import SchemaVariable
from ..writing.axes import read_axes
from ..writing.existing import Existing, counts_of
from ..writing.plan import Again, Plan, Step, Target, is_wanted
from ..writing.rows import RowsJob
from ..writing.write import write


@dataclass(frozen=True)
class Dropping:
    """Dropping that was asked for: what it plans on any head."""

    axis_range: AxisRange
    others: Conditions | None
    """Bounds on other variables than the axis."""

    def plan(self, handle: Handle, how: Execution, head: Selected, again: Again | None) -> Plan | None:
        """Return a step per partition that has such rows; None if there are none."""
        partitions = [each for each in Existing.all_of(head) if is_wanted(each.key, again)]
        plans: Sequence[CutPlan | None]
        if self.others is None:
            plans = self._by_axis(head, partitions, how)
        else:
            plans = self._by_values(handle, head, partitions, self.others.of(head.schema), how)
        steps = tuple(
            self._step(handle, head, existing, plan)
            for existing, plan in zip(partitions, plans, strict=True)
            if plan is not None and plan.given_up
        )
        if not steps:
            return None
        summary = dict.fromkeys(("partitions", "rows_removed", "parts_made", "parts_cut", "parts_rewritten"), 0)
        return Plan(head, "drop_rows", f"drop rows of {head.collection.name}", steps, summary=summary)

    def _by_axis(self, head: Selected, partitions: Sequence[Existing], how: Execution) -> list[CutPlan]:
        """Plan where only the axis of the parts that a bound cuts has to be read."""
        ranges = {existing.key: self._range(existing) for existing in partitions}
        wanted = {existing.key: (existing.table, _cut_by(existing, *ranges[existing.key])) for existing in partitions}
        axes = read_axes(head, wanted, how)
        return [
            plan_drop_range(*ranges[existing.key], existing.bounds, axes.get(existing.key, {}))
            for existing in partitions
        ]

    def _range(self, existing: Existing) -> tuple[int, int]:
        low, high = self.axis_range
        bounds = existing.bounds
        return int(bounds.lows[0]) if low is None else low, int(bounds.highs[-1]) if high is None else high

    def _needs_by_axis(self, existing: Existing, plan: CutPlan) -> tuple[Requirement, ...]:
        """Return what it depends on: where a bound is open, rows that come before or after all others are meant too."""
        low, high = self.axis_range
        known = frozenset((existing.key, int(existing.bounds.lows[number])) for number in plan.kept)
        return *existing.needs_of_runs(plan), NoOtherPart(((existing.key, low, high),), known)

    def _by_values(
        self,
        handle: Handle,
        head: Selected,
        partitions: Sequence[Existing],
        conditions: tuple[Within, ...],
        how: Execution,
    ) -> list[CutPlan | None]:
        """Plan where rows have to be looked at, of all parts."""
        for each in conditions:
            _check_row_variable(head, each.variable)
        axis = head.schema.variables[head.schema.axis]
        jobs = [
            LookJob(existing.origin(handle.location, existing.table), axis, self.axis_range, conditions)
            for existing in partitions
        ]
        what = f"look for rows of {head.collection.name}"
        found = execution.run(_look, [(job, dict[str, Any]()) for job in jobs], how, what=what) if jobs else []
        plans: list[CutPlan | None] = []
        for existing, (times, gone) in zip(partitions, found, strict=True):
            axes = dict(enumerate(np.split(times, np.cumsum(existing.bounds.rows)[:-1])))
            plans.append(plan_drop_rows(gone, existing.bounds, axes) if gone.any() else None)
        return plans

    def _step(self, handle: Handle, head: Selected, existing: Existing, plan: CutPlan) -> Step:
        record = existing.record
        origin = existing.read_origin(handle.location, plan)
        job = None
        if origin is not None:
            target = Target.of_partition(handle.location, head.schema, head.version, record.key)
            rows = tuple(run.rows for run in plan.runs if run.rows)
            job = RowsJob(target, head.collection.name, str(record), plan.order, rows, origin)
        # What lies in the parts that were not asked for does not matter if the axis alone decides.
        needs = existing.needs_of_all() if self.others else self._needs_by_axis(existing, plan)
        counts = {"partitions": 1, "rows_removed": plan.given_up, **counts_of(plan)}
        runs = tuple(Run(existing.key, run.axis_range) for run in plan.runs)
        return Step(existing.key, job, {}, needs, counts, existing.cuts(plan), runs, str(record))


def drop_rows(handle: Handle, where: Where, how: Execution, *, signature: Signature) -> Version:
    """Drop rows by their values; see :meth:`intake_zcollection.Collection.drop_rows`."""
    if not isinstance(where, Mapping) or not where:
        raise InvalidInputError(
            f"which rows of collection {handle.record.name}? Give where={{variable: (low, high)}}, both included, None "
            "open; drop_partitions drops whole partitions"
        )
    selection = Selection.of(handle.record, None, where, crop=not where.keys() - {handle.record.axis})
    dropping = Dropping(selection.chosen.axis_range, selection.conditions)
    selection = replace(selection, conditions=None)  # that all partitions are read is what is to be expected
    return write(handle, partial(dropping.plan, handle, how), how, signature=signature, selection=selection)


def _cut_by(existing: Existing, low: int, high: int) -> list[int]:
    """Return the numbers of the parts that reach beyond a range."""
    bounds = existing.bounds
    return list(map(int, np.flatnonzero((bounds.lows < low) | (bounds.highs > high))))


@dataclass(frozen=True)
class LookJob:
    """A partition whose rows are looked at: all that a worker needs."""

    rows: Origin
    axis: SchemaVariable
    axis_range: AxisRange
    conditions: tuple[Within, ...]


def _look(job: LookJob, _: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the axis of a partition, and which rows meet all bounds."""
    times = job.rows.read(job.axis).astype(np.int64)
    low, high = job.axis_range
    gone = (times >= low) if low is not None else np.ones(len(times), bool)
    gone &= (times <= high) if high is not None else True
    for each in job.conditions:
        gone &= each.rows(job.rows.read(each.variable))
    return times, gone


def _check_row_variable(head: Selected, variable: SchemaVariable) -> None:
    """Raise InvalidInputError unless a variable has one value a row."""
    if variable.dims != (head.schema.dimension,):
        raise InvalidInputError(
            f"variable {variable.name} of collection {head.collection.name} has not one number or time a row, by which "
            "rows could be dropped"
        )
