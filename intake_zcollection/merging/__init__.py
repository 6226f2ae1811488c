"""What becomes of the rows a partition has when others are inserted: pure functions of two datasets."""

from .strategies import NAMES, Merge, MergeFunction, concat, replace, strategy_of, time_series, upsert
from .tolerance import parse_tolerance

__all__ = [
    "NAMES",
    "Merge",
    "MergeFunction",
    "concat",
    "parse_tolerance",
    "replace",
    "strategy_of",
    "time_series",
    "upsert",
]
