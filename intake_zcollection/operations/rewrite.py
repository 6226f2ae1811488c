"""Rewriting: partitions of many parts, with layers or rows that are gone, as one group each; the values stay."""

from functools import partial

from registry import Cut, Signature, Version

from ..execution import Execution
from ..handle import Handle
from ..reading.selection import Selected, Selection
from ..writing.existing import Existing
from ..writing.plan import Again, Plan, Step, Target, is_wanted
from ..writing.rows import RowsJob
from ..writing.write import write


def rewrite(handle: Handle, selection: Selection, how: Execution, *, signature: Signature) -> Version:
    """Write partitions anew; see :meth:`intake_zcollection.Collection.rewrite`."""
    return write(handle, partial(_plan, handle), how, signature=signature, selection=selection)


def _plan(handle: Handle, head: Selected, again: Again | None) -> Plan | None:
    """Return a step per partition that is not one whole group already; None if all are."""
    partitions = [each for each in Existing.all_of(head) if is_wanted(each.key, again)]
    steps = tuple(_step(handle, head, existing) for existing in partitions if not _is_one_group(existing))
    if not steps:
        return None
    summary = {"rewritten": 0, "rows": 0, "parts_rewritten": 0}
    return Plan(head, "rewrite", f"rewrite {head.collection.name}", steps, summary=summary)


def _is_one_group(existing: Existing) -> bool:
    fragment, *others = existing.record.fragments
    return not others and fragment.rows == fragment.group_rows


def _step(handle: Handle, head: Selected, existing: Existing) -> Step:
    record = existing.record
    target = Target.of_partition(handle.location, head.schema, head.version, record.key)
    # Its values are not new: a layer that is newer than they are stays so.
    written = max(fragment.written_version for fragment in record.fragments)
    origin = existing.origin(handle.location, existing.table)
    job = RowsJob(target, head.collection.name, str(record), None, existing=origin, written_version=written)
    counts = {"rewritten": 1, "rows": record.rows, "parts_rewritten": len(record.parts)}
    cuts = tuple(Cut(existing.key, low) for low in existing.bounds.lows.tolist())
    return Step(existing.key, job, {}, existing.needs_of_joined(), counts, cuts, title=str(record))
