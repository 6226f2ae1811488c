"""What becomes of the rows a partition has when others are inserted: pure functions of axis values."""

from .runs import Bounds, CutPlan, RunPlan, kept_rows, parts_to_read, plan_cuts, repeated
from .strategies import NAMES, Local, Merge, MergeFunction, check_merge, local_strategy
from .tolerance import parse_tolerance

__all__ = [
    "NAMES",
    "Bounds",
    "CutPlan",
    "Local",
    "Merge",
    "MergeFunction",
    "RunPlan",
    "check_merge",
    "kept_rows",
    "local_strategy",
    "parse_tolerance",
    "parts_to_read",
    "plan_cuts",
    "repeated",
]
