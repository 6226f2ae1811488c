"""What changed between two versions, as a value: printed, loaded, and taken as a filter."""

import html
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import xarray as xr

import registry
from registry import Difference, Kind, PartitionChange, PartitionKey, format_key

from .handle import Handle
from .operations.load import load
from .reading.blocks import Chunks
from .reading.rows import Places
from .reading.selection import Selection
from .schema import Schema

_SHOWN = 20
"""So many partitions are shown of many."""

_COLUMNS = "partition", "kind", "added", "changed", "removed", "first", "last", "variables"


@dataclass(frozen=True)
class Change:
    """What changed in a partition."""

    key: PartitionKey
    kind: Kind
    """``"added"`` or ``"removed"`` if the partition is there in one of the versions alone, or ``"changed"``."""
    added: int
    """Rows that came."""
    changed: int
    """Rows that were written over, or of which a variable was; what was written may be equal to what was there."""
    removed: int
    """Rows that went."""
    axis_range: tuple[Any, Any]
    """The axis values between which all of it lies: numpy.datetime64[ns] or int; None where it is not known."""
    variables: tuple[str, ...]
    """Those with other values; all of them where rows came or went."""
    reason: str = ""
    """Of what :meth:`View.stale` tells: why it has to be computed, ``"new"``, ``"rows"``, ``"inputs"``,
    ``"neighbour"``, ``"code"`` or ``"gone"``."""

    def __str__(self) -> str:
        return format_key(self.key)


class Changes(Mapping[PartitionKey, Change]):
    """What changed between two versions of a collection, by partition, in the order of their keys.

    It is known from what the commits between them recorded, so that a rewrite shows nothing, and a corrected hour shows
    an hour. Its keys are the partitions that changed, those that are gone among them: taken as ``filters=`` it chooses
    these, as far as they are there.
    """

    def __init__(self, handle: Handle, difference: Difference) -> None:
        self._handle = handle
        self._difference = difference
        self._schema = Schema.of(difference.collection, difference.after)

    @property
    def since(self) -> int:
        """The number of the older version."""
        return self._difference.since

    @property
    def until(self) -> int:
        """The number of the newer version: the one to go on from."""
        return self._difference.until

    @property
    def immutables(self) -> bool:
        """Whether immutable variables were stored, or replaced."""
        return self._difference.immutables

    @cached_property
    def variables(self) -> dict[str, str]:
        """What became of variables, by their names: ``"added"``, ``"dropped"``, or ``"renamed from …"``.

        Of one that was dropped, and has given its name to another, both are told: ``"dropped, added"``.
        """
        before = {each.id: each.name for each in self._difference.before.variables}
        after = {each.id: each.name for each in self._difference.after.variables}
        told = {name: "dropped" for id_, name in before.items() if id_ not in after}
        for id_, name in after.items():
            if before.get(id_) != name:
                came = f"renamed from {before[id_]}" if id_ in before else "added"
                told[name] = f"{told[name]}, {came}" if name in told else came
        return told

    def load(self, *, variables: Iterable[str] | None = None, chunks: Chunks = "auto") -> xr.Dataset:
        """Return the rows that came or have other values, as they are in the newer version, as a lazy dataset.

        Of the parts that are not wanted as a whole, the axis is read. For parameters, see :meth:`Collection.load`.
        """
        changed = self._difference.partitions.values()
        rows = {
            tuple(value for _, value in each.key): [slice(*row.after) for row in each.rows]
            for each in changed
            if any(row.after[0] < row.after[1] for row in each.rows)
        }
        asked = registry.Asked(stale="fill", base_version=self._difference.base_version)
        selection = Selection(registry.Selection(keys=frozenset(rows)), crop=True, rows=Places(rows), asked=asked)
        return load(self._handle.at(self.until), selection, variables, chunks)

    def __getitem__(self, key: PartitionKey) -> Change:
        return self._change(self._difference.partitions[key])

    def __iter__(self) -> Iterator[PartitionKey]:
        return iter(self._difference.partitions)

    def __len__(self) -> int:
        return len(self._difference.partitions)

    def __bool__(self) -> bool:
        """Whether anything changed: partitions, or variables, or what is stored once."""
        return bool(len(self) or self.variables or self.immutables)

    def _change(self, change: PartitionChange) -> Change:
        ids = change.variables
        names = (each.name for each in self._schema.partitioned.values() if ids is None or each.id in ids)
        low, high = map(self._schema.axis_value, change.axis_range)
        return Change(change.key, change.kind, *change.counts, (low, high), tuple(names), change.reason)

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for each in islice(self.values(), _SHOWN):
            everything = len(each.variables) == len(self._schema.partitioned)
            counts = (str(count) if count else "" for count in (each.added, each.changed, each.removed))
            bounds = ("…" if bound is None else str(bound) for bound in each.axis_range)
            yield (
                str(each),
                each.reason or each.kind,
                *counts,
                *bounds,
                "all" if everything else ", ".join(each.variables),
            )

    def _more(self) -> list[str]:
        """Return what there is to say beside the partitions that are shown."""
        told = [f"… and {len(self) - _SHOWN} more partitions"] if len(self) > _SHOWN else []
        told += [f"variable {name}: {what}" for name, what in self.variables.items()]
        return told + ["immutable variables were stored"] * self.immutables

    def _title(self) -> str:
        told, count = self._difference, f"{len(self)} partition{'s' * (len(self) != 1)}"
        over = "" if told.base_version is None else f", over version {told.base_version} of its base"
        if told.is_stale:
            return f"Stale in {told.collection.name}, version {self.until}{over}: {count}"
        return f"Changes of {told.collection.name} from version {self.since} to {self.until}{over}: {count}"

    @property
    def _columns(self) -> tuple[str, ...]:
        return tuple("reason" if name == "kind" and self._difference.is_stale else name for name in _COLUMNS)

    def __repr__(self) -> str:
        rows = list(self._rows())
        widths = [max(map(len, column)) for column in zip(self._columns, *rows, strict=True)]
        lines = [self._columns, *rows] if rows else []
        table = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        return "\n".join([f"<{self._title()}>", *table, *self._more()])

    def _repr_html_(self) -> str:
        def row(cells: Iterable[str], tag: str) -> str:
            return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

        table = f"<table>{row(self._columns, 'th')}{''.join(row(each, 'td') for each in self._rows())}</table>"
        more = "".join(f"<p>{html.escape(each)}</p>" for each in self._more())
        return f"<p><b>{html.escape(self._title())}</b></p>{table if len(self) else ''}{more}"


def changes_between(handle: Handle, since: int, until: int | None) -> Changes:
    """Return what changed from a version to a later one; None for the newest."""
    return Changes(handle, handle.registry.diff(handle.record, since, until))
