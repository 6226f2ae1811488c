"""What becomes of the rows a partition has when others are inserted: pure functions of two datasets."""

from .strategies import NAMES, Merge, MergeFunction, concat, replace, strategy_of, time_series, upsert

__all__ = ["NAMES", "Merge", "MergeFunction", "concat", "replace", "strategy_of", "time_series", "upsert"]
