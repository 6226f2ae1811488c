"""The merge strategies.

Each takes the existing and the inserted rows of one partition, both sorted by the axis, and returns the rows
that the partition has from then on. All of ours keep every inserted row, and differ in which existing rows
survive. After a merge the rows are stably sorted by the axis: of equal axis values, the existing come first.

``time_series`` is after ``merge_time_series`` of CNES's zcollection, ``upsert`` after its later ``upsert``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..errors import InvalidInputError
from .tolerance import Tolerance, parse_tolerance

MergeFunction = Callable[..., xr.Dataset]
"""``(existing, inserted, *, axis, dimension) -> Dataset``, with numpy arrays in all of them."""

Merge = str | MergeFunction
"""The name of a strategy, or a function."""

Axis = npt.NDArray[np.uint64]


def replace(existing: xr.Dataset, inserted: xr.Dataset, *, axis: str, dimension: str) -> xr.Dataset:
    """Give all existing rows up."""
    return inserted


def concat(existing: xr.Dataset, inserted: xr.Dataset, *, axis: str, dimension: str) -> xr.Dataset:
    """Keep all rows."""
    return _join(existing, inserted, np.ones(existing.sizes[dimension], bool), axis, dimension)


def time_series(
    existing: xr.Dataset, inserted: xr.Dataset, *, axis: str, dimension: str, tolerance: Tolerance = None
) -> xr.Dataset:
    """Replace the existing rows inside the period of the inserted ones, first to last axis value included.

    With ``tolerance``, the inserted rows are several periods, wherever two neighbours are further apart than that, and
    existing rows between the periods survive.
    """
    times, new = _axis(existing, axis), _axis(inserted, axis)
    reach = _reach(tolerance, existing[axis].dtype)
    gaps = np.flatnonzero(np.diff(new) > reach) if tolerance is not None else np.empty(0, np.intp)
    starts, stops = new[np.r_[0, gaps + 1]], new[np.r_[gaps, len(new) - 1]]
    # The last period that begins at or before a row is the only one that can contain it.
    last = np.searchsorted(starts, times, "right") - 1
    inside = (last >= 0) & (times <= stops[last])
    return _join(existing, inserted, ~inside, axis, dimension)


def upsert(
    existing: xr.Dataset, inserted: xr.Dataset, *, axis: str, dimension: str, tolerance: Tolerance = None
) -> xr.Dataset:
    """Replace the existing rows that have the axis value of an inserted one, or one within ``tolerance`` of it."""
    times, new = _axis(existing, axis), _axis(inserted, axis)
    reach = _reach(tolerance, existing[axis].dtype)
    after = np.searchsorted(new, times, "left")
    near = np.zeros(len(times), bool)
    for neighbour in (after - 1, after):
        known = (neighbour >= 0) & (neighbour < len(new))
        one, other = new[neighbour[known]], times[known]
        near[known] |= np.maximum(one, other) - np.minimum(one, other) <= reach
    return _join(existing, inserted, ~near, axis, dimension)


STRATEGIES: dict[str, MergeFunction] = {
    "replace": replace,
    "concat": concat,
    "time_series": time_series,
    "upsert": upsert,
}

NAMES = ("refuse", *STRATEGIES)
TOLERANT = ("time_series", "upsert")


def strategy_of(merge: Merge, tolerance: Tolerance = None) -> MergeFunction | None:
    """Return the function of a strategy; None for ``"refuse"``, which has nothing to merge.

    Raises
    ------
    InvalidInputError
        No such strategy, or a tolerance for one that has none.
    """
    name = merge if isinstance(merge, str) else getattr(merge, "__name__", "a function")
    if merge not in NAMES and not callable(merge):
        raise InvalidInputError(f"merge={merge!r} is not one of {', '.join(map(repr, NAMES))}, nor a function")
    if tolerance is not None and merge not in TOLERANT:
        raise InvalidInputError(f"merge={name!r} takes no tolerance; {' and '.join(TOLERANT)} do")
    if not isinstance(merge, str):
        return merge
    if tolerance is not None:
        return partial(STRATEGIES[merge], tolerance=tolerance)
    return STRATEGIES.get(merge)


def _axis(dataset: xr.Dataset, axis: str) -> Axis:
    """Return the axis as numbers from 0 on, in the same order: of these, no difference wraps around."""
    values = dataset[axis].values
    if values.dtype.kind == "u":
        return values.astype(np.uint64)
    return values.astype(np.int64).view(np.uint64) ^ np.uint64(1 << 63)


def _reach(tolerance: Tolerance, axis: np.dtype[Any]) -> int:
    parsed = parse_tolerance(tolerance, axis)
    return 0 if parsed is None else int(parsed.astype(np.int64)) if isinstance(parsed, np.timedelta64) else parsed


def _join(
    existing: xr.Dataset, inserted: xr.Dataset, survives: npt.NDArray[np.bool_], axis: str, dimension: str
) -> xr.Dataset:
    """Return the surviving and the inserted rows, stably sorted by the axis."""
    times = np.concatenate([existing[axis].values[survives], inserted[axis].values])
    order = np.argsort(times, kind="stable")
    variables = {}
    for name, variable in inserted.variables.items():
        position = variable.dims.index(dimension)
        kept = np.compress(survives, existing.variables[name].values, position)
        values = np.concatenate([kept, variable.values], position).take(order, position)
        variables[name] = xr.Variable(variable.dims, values, variable.attrs)
    return xr.Dataset(variables).set_coords(list(inserted.coords))
