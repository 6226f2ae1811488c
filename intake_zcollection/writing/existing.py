"""A partition that is there, as the planner of a write sees it: its parts, what cuts them, and what depends on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from registry import Cut, FragmentColumns, Identity, KeyValues, PartitionRecord, Slot, pad_key
from registry.changes import NoOtherPart, Requirement, Unchanged
from registry.records import ROWS_LAYER

from ..merging import Bounds, CutPlan
from ..reading.origin import Origin
from ..reading.selection import Selected
from ..reading.table import PartitionTable
from ..storage.location import Location
from .axes import Axis


@dataclass(frozen=True)
class Existing:
    """A partition that is there."""

    record: PartitionRecord
    table: PartitionTable
    bounds: Bounds
    space: str
    """The uid of the collection."""

    @classmethod
    def all_of(cls, head: Selected, fragments: FragmentColumns | None = None) -> "list[Existing]":
        """Return what a planner knows of all partitions of a selection, or of others at its version."""
        collection, columns = head.collection, head.snapshot.fragments if fragments is None else fragments
        rows = PartitionTable.of(collection.keys, columns, head.snapshot.layers)
        return [
            cls(record, table := rows.cut(place, place + 1), _bounds(table), collection.uid)
            for place, record in enumerate(columns.partitions)
        ]

    @property
    def key(self) -> KeyValues:
        """All six key columns."""
        return pad_key(self.record.values)

    def origin(self, place: Location, table: PartitionTable) -> Origin:
        """Return where some of its rows lie, at a place."""
        return Origin(place, self.space, table, PartitionTable.of_immutables(None))

    def read_origin(self, place: Location, plan: CutPlan) -> Origin | None:
        """Return where the rows lie that a plan reads; None if it reads none."""
        read = [rows for run in plan.runs for rows in run.read]
        return self.origin(place, self.table.take(*zip(*read, strict=True))) if read else None

    @staticmethod
    def read_axis(plan: CutPlan, axes: Mapping[int, Axis]) -> Axis | None:
        """Return the axis of the rows that a plan reads; None if it reads none."""
        read = [axes[number][start:stop] for run in plan.runs for number, start, stop in run.read]
        return np.concatenate(read) if read else None

    def cuts(self, plan: CutPlan) -> tuple[Cut, ...]:
        """Return the parts that end, and what is kept of them."""
        return tuple(Cut(self.key, int(self.bounds.lows[number]), kept) for number, kept in plan.kept.items())

    def needs_of_runs(self, plan: CutPlan) -> list[Requirement]:
        """Return what runs depend on: the parts that they cut, with the values of those that are read; no others."""
        bounds = self.bounds
        # Parts of which something stays reach beyond the runs: whoever cuts them there is in the way too.
        parts = sorted({*plan.kept} | {*plan.left_out})
        reach = [(int(bounds.lows[number]), int(bounds.highs[number])) for number in parts]
        spans = tuple((self.key, low, high) for low, high in (*(run.axis_range for run in plan.runs), *reach))
        known = frozenset((self.key, low) for low, _ in reach)
        read = sorted({number for run in plan.runs for number, _, _ in run.read})
        others = [number for number in parts if number not in read]
        needs: list[Requirement] = [NoOtherPart(spans, known)]
        needs += [Unchanged(self._slots(read, layers=True))] * bool(read)
        # Of those of which the axis alone was read, layers do not matter.
        needs += [Unchanged(self._slots(others, layers=False), frozenset())] * bool(others)
        return needs

    def needs_of_all(self) -> tuple[Requirement, ...]:
        """Return what depends on all rows and values of the partition, and that no others came."""
        return self._needs_between(None, None)

    def needs_of_joined(self) -> tuple[Requirement, ...]:
        """Return what depends on all rows and values that are there; what comes before or after does not matter."""
        return self._needs_between(*self.record.bounds)

    def _needs_between(self, low: int | None, high: int | None) -> tuple[Requirement, ...]:
        known = frozenset((self.key, first) for first in self.bounds.lows.tolist())
        slots = self._slots(range(len(self.record.parts)), layers=True)
        return NoOtherPart(((self.key, low, high),), known), Unchanged(slots)

    def _slots(self, numbers: Sequence[int], *, layers: bool) -> dict[Slot, Identity]:
        """Return what is live of some parts: their rows alone, or all layers."""
        return {
            fragment.slot: fragment.identity
            for number in numbers
            for fragment in self.record.parts[number].fragments
            if layers or fragment.layer_id == ROWS_LAYER
        }


def _bounds(table: PartitionTable) -> Bounds:
    parts = table.parts
    return Bounds(parts["low"], parts["high"], parts["rows"])


def counts_of(plan: CutPlan) -> dict[str, int]:
    """Return what a plan does to parts, for the summary."""
    kept = plan.kept.values()
    made = sum(bool(run.rows) for run in plan.runs)
    return {"parts_made": made, "parts_cut": sum(map(bool, kept)), "parts_rewritten": len(kept) - sum(map(bool, kept))}
