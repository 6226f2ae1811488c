"""Dropping rows: parts are cut around them, and only what stays between some of them is written again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from ..reading.bounds import AxisRange, Bound, Where, parse_bounds
from ..reading.origin import Origin
from ..reading.selection import Selected, Selection
from ..schema import SchemaVariable
from ..schema.names import find_variable
from ..writing.axes import read_axes
from ..writing.existing import Existing, counts_of
from ..writing.plan import Again, Plan, Step, Target, is_wanted
from ..writing.rows import RowsJob
from ..writing.write import write


@dataclass(frozen=True)
class Dropping:
    """Dropping that was asked for: what it plans on any head."""

    axis_range: AxisRange
    others: Mapping[str, tuple[Bound | float, Bound | float]]
    """Bounds on other variables than the axis."""

    def plan(self, handle: Handle, how: Execution, head: Selected, again: Again | None) -> Plan | None:
        """Return a step per partition that has such rows; None if there are none."""
        partitions = [each for each in Existing.all_of(head) if is_wanted(each.key, again)]
        plans = self._by_values(handle, head, partitions, how) if self.others else self._by_axis(head, partitions, how)
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
        self, handle: Handle, head: Selected, partitions: Sequence[Existing], how: Execution
    ) -> list[CutPlan | None]:
        """Plan where rows have to be looked at, of all parts."""
        variables = [_row_variable(head, name) for name in self.others]
        axis = head.schema.variables[head.schema.axis]
        bounds = tuple(_value_bounds(each, self.others[each.name]) for each in variables)
        jobs = [
            LookJob(existing.origin(handle.location, existing.table), axis, self.axis_range, tuple(variables), bounds)
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
    axis = handle.record.axis
    others = {name: bounds for name, bounds in where.items() if name != axis}
    selection = Selection.of(handle.record, None, {axis: where[axis]} if axis in where else None, crop=not others)
    dropping = Dropping(selection.chosen.axis_range, others)
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
    variables: tuple[SchemaVariable, ...]
    bounds: tuple[tuple[Any, Any], ...]
    """Of each variable, as it has its values."""


def _look(job: LookJob, _: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the axis of a partition, and which rows meet all bounds."""
    times = job.rows.read(job.axis).astype(np.int64)
    gone = _between(times, *job.axis_range)
    for variable, bounds in zip(job.variables, job.bounds, strict=True):
        gone &= _between(job.rows.read(variable), *bounds)
    return times, gone


def _between(values: npt.NDArray[Any], low: Any, high: Any) -> npt.NDArray[np.bool_]:
    """Return which values lie in a range; missing ones do not."""
    inside = np.ones(len(values), bool)
    if values.dtype.kind in "fM":
        inside &= ~np.isnat(values) if values.dtype.kind == "M" else ~np.isnan(values)
    if low is not None:
        inside &= values >= low
    if high is not None:
        inside &= values <= high
    return inside


def _row_variable(head: Selected, name: str) -> SchemaVariable:
    """Return a variable that has one value a row; raises InvalidInputError."""
    variable = find_variable(head.schema, name, head.collection.name)
    if variable.dims != (head.schema.dimension,) or variable.dtype.kind not in "iufM":
        raise InvalidInputError(
            f"variable {name} of collection {head.collection.name} has not one number or time a row, by which rows "
            "could be dropped"
        )
    return variable


def _value_bounds(variable: SchemaVariable, bounds: Any) -> tuple[Any, Any]:
    """Return bounds as the variable has its values; raises InvalidInputError."""
    if variable.dtype.kind == "M":
        low, high = parse_bounds(bounds, variable.name)
        return tuple(None if bound is None else np.datetime64(bound, "ns") for bound in (low, high))  # type: ignore[return-value]  # a pair stays one
    if not isinstance(bounds, tuple | list) or len(bounds) != 2 or not all(map(_is_number, bounds)):
        raise InvalidInputError(
            f"where={{{variable.name!r}: {bounds!r}}} is not a pair (low, high) of numbers; None leaves a side open"
        )
    return bounds[0], bounds[1]


def _is_number(bound: Any) -> bool:
    """Whether it is a number, or open."""
    number = isinstance(bound, int | float | np.integer | np.floating) and not isinstance(bound, bool)
    return bound is None or (number and bound == bound)
