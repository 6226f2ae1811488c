"""Adding statistics: computed of what is there, and kept of all that comes, in the transaction that says so."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from registry import FragmentRecord, PartitionRecord, SchemaRecord, Signature, Statistic, Version
from registry.changes import EditSchema, PutStatistics, VariablesAlive
from registry.records import ROWS_LAYER

from .. import execution
from ..errors import InvalidInputError
from ..execution import Execution
from ..handle import Handle
from ..reading.selection import Selected, Selection
from ..schema import SchemaVariable
from ..schema.names import find_variable
from ..storage import layout
from ..writing.plan import Again, Plan
from ..writing.statistics import HeldRows, StatisticsJob, check_can_have_statistics, read_statistics_of
from ..writing.write import write


def add_statistics(handle: Handle, names: Iterable[str], how: Execution, *, signature: Signature) -> Version:
    """Keep statistics of variables; see :meth:`intake_zcollection.Collection.add_statistics`."""
    wanted = tuple(dict.fromkeys([names] if isinstance(names, str) else names))
    if not wanted:
        raise InvalidInputError(f"of which variables of collection {handle.record.name} are statistics to be kept?")
    adding = Adding(wanted)
    signature = signature.saying(", ".join(map(str, wanted)))
    return write(handle, partial(adding.plan, handle, how), how, signature=signature, selection=Selection())


@dataclass(frozen=True)
class Adding:
    """Statistics that were asked for: what is planned on any head."""

    names: tuple[str, ...]

    def plan(self, handle: Handle, how: Execution, head: Selected, _: Again | None) -> Plan | None:
        """Return what records them; reads what nothing is known of yet. None if all is known, and they are kept."""
        collection, schema = head.collection.name, head.schema
        variables = [find_variable(schema, name, collection) for name in self.names]
        for each in variables:
            check_can_have_statistics(schema, each, collection)
        known = _Known(handle.registry.statistics(head.collection, [each.id for each in variables]))
        held = (tuple(_held(handle, head, each, variables, known)) for each in head.snapshot.partitions)
        jobs = [(StatisticsJob(each), dict[str, Any]()) for each in held if each]
        found = execution.run(read_statistics_of, jobs, how, what=f"statistics of {collection}") if jobs else []
        if not found and all(each.statistics for each in variables):
            return None
        ids = frozenset(each.id for each in variables)
        return Plan(
            head,
            "add_statistics",
            f"add statistics to {collection}",
            (),
            (VariablesAlive({each.id: each.name for each in variables}),),
            (EditSchema(partial(_keeping, ids)), PutStatistics(tuple(each for some in found for each in some))),
        )


def _keeping(ids: frozenset[int], schema: SchemaRecord) -> SchemaRecord:
    """Return a schema in which the statistics of some variables are kept."""
    return replace(
        schema,
        variables=tuple(replace(each, statistics=each.statistics or each.id in ids) for each in schema.variables),
    )


def _held(
    handle: Handle,
    head: Selected,
    partition: PartitionRecord,
    variables: Iterable[SchemaVariable],
    known: "_Known",
) -> Iterator[HeldRows]:
    """Yield the rows of a partition that hold variables, and nothing is known of."""
    for fragment in partition.fragments:
        path = fragment.path or layout.fragment_path(partition.key, fragment.uid)
        for variable in variables:
            if _holds(head, fragment, variable) and not known.of_all(fragment, variable):
                yield HeldRows(
                    *(handle.location, variable, fragment.uid, path),
                    *(fragment.start, fragment.rows, fragment.group_rows),
                )


def _holds(head: Selected, fragment: FragmentRecord, variable: SchemaVariable) -> bool:
    if fragment.layer_id == ROWS_LAYER:
        return variable.was_there(fragment.schema_version)
    return variable.id in head.snapshot.layers.get(fragment.layer_id, ())


class _Known:
    """What is known already."""

    def __init__(self, statistics: Iterable[Statistic]) -> None:
        self._rows: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for each in sorted(statistics):
            self._rows.setdefault((each.uid, each.variable_id), []).append((each.row_start, each.row_stop))

    def of_all(self, fragment: FragmentRecord, variable: SchemaVariable) -> bool:
        """Whether all rows of a fragment are: by what begins at the first of them, or last before it."""
        rows = self._rows.get((fragment.uid, variable.id), [])
        place = bisect_right(rows, fragment.start, key=lambda each: each[0])
        return place > 0 and (
            rows[place - 1][0] == fragment.start or rows[place - 1][1] >= fragment.start + fragment.rows
        )
