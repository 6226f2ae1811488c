"""What becomes of the rows a partition has when others are inserted: pure functions of axis values."""

from .runs import Bounds, CutPlan, parts_to_read, plan_cuts, plan_drop_range, plan_drop_rows, repeated
from .strategies import NAMES, Local, Merge, MergeFunction, check_merge, local_strategy
from .tolerance import parse_duration, parse_span, parse_tolerance

__all__ = [
    "NAMES",
    "Bounds",
    "CutPlan",
    "Local",
    "Merge",
    "MergeFunction",
    "check_merge",
    "local_strategy",
    "parse_duration",
    "parse_span",
    "parse_tolerance",
    "parts_to_read",
    "plan_cuts",
    "plan_drop_range",
    "plan_drop_rows",
    "repeated",
]
