"""Updating: variables computed from others, partition by partition; written as layers over rows that stay."""

from dataclasses import replace
from functools import partial

from registry import Signature, Version

from ..execution import Execution
from ..handle import Handle
from ..reading.selection import Selection
from ..writing.updating import NOTHING_OF_ITS_OWN, Updating
from ..writing.write import write


def record(handle: Handle, updating: Updating, signature: Signature) -> Version:
    """Record how a view's variables are computed, and compute nothing; see :meth:`intake_zcollection.View.update`."""
    return write(handle, updating.record, Execution(scheduler="synchronous"), signature=signature)


def update(
    handle: Handle, updating: Updating, selection: Selection, how: Execution, *, signature: Signature, repeatable: bool
) -> Version:
    """Compute variables, and return the version it made; see :meth:`intake_zcollection.Collection.update`."""
    selection = replace(selection, asked=NOTHING_OF_ITS_OWN)
    plan = partial(updating.plan, handle)
    return write(handle, plan, how, signature=signature, selection=selection, repeatable=repeatable)
