"""The partitionings there are, by the name that the registry keeps."""

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidInputError
from .base import Partitioning
from .date import Date
from .sequence import GroupedSequence, Sequence

KINDS: dict[str, Any] = {kind.kind: kind for kind in (Date, Sequence, GroupedSequence)}


def partitioning_from_json(document: Mapping[str, Any]) -> Partitioning:
    """Return the partitioning that the registry recorded.

    >>> partitioning_from_json({"kind": "Date", "variable": "time", "resolution": "M"})
    Date(variable='time', resolution='M')
    """
    arguments = dict(document)
    kind = arguments.pop("kind")
    if kind not in KINDS:
        raise InvalidInputError(
            f"the partitioning {kind!r} is unknown to this release of intake-zcollection: upgrade it"
        )
    partitioning: Partitioning = KINDS[kind](**arguments)
    return partitioning
