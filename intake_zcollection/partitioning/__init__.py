"""Strategies that turn values into partition keys and rows. Pure functions of arrays."""

from .base import Partitioning
from .date import Date
from .kinds import partitioning_from_json
from .rows import PartitionRows, split_rows
from .sequence import GroupedSequence, Sequence

__all__ = [
    "Date",
    "GroupedSequence",
    "PartitionRows",
    "Partitioning",
    "Sequence",
    "partitioning_from_json",
    "split_rows",
]
