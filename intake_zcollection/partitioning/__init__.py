"""Strategies that turn values into partition keys and rows. Pure functions of arrays."""

from .base import Partitioning
from .date import Date
from .kinds import partitioning_from_json
from .rows import PartitionRows, split_rows

__all__ = ["Date", "PartitionRows", "Partitioning", "partitioning_from_json", "split_rows"]
