"""The merge strategies.

Ours are about axis values alone: which existing rows survive when others are inserted, and which inserted ones are
left out. So they are *local*: rows outside the range of what is inserted (widened by the tolerance) are not touched,
and what a strategy means does not depend on how a partition is divided into parts. A function of the user's is given
all rows of a partition.

After a merge the rows are stably sorted by the axis: of equal axis values, the existing come first. The datasets of one
insert count as if they came one after the other.

``time_series`` is after ``merge_time_series`` of CNES's zcollection, ``upsert`` after its later ``upsert``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..errors import InvalidInputError
from .tolerance import Tolerance

MergeFunction = Callable[..., xr.Dataset]
"""``(existing, inserted, *, axis, dimension) -> Dataset``, with numpy arrays in all of them."""

Merge = str | MergeFunction
"""The name of a strategy, or a function."""

Axis = npt.NDArray[np.int64]
"""Axis values, sorted: times as ns since 1970."""

Mask = npt.NDArray[np.bool_]

_FIRST, _LAST = (int(limit) for limit in (np.iinfo(np.int64).min, np.iinfo(np.int64).max))

Name = Literal["append", "keep", "concat", "time_series", "upsert"]


@dataclass(frozen=True)
class Local:
    """A strategy of ours.

    - ``"append"``: rows at axis values that are not there; others are an error
    - ``"keep"``: rows at axis values that are not there; others are left out
    - ``"concat"``: all rows, existing and inserted
    - ``"time_series"``: existing rows inside the period of the inserted ones, first to last axis value included, are
      given up; with a tolerance, these are several periods, wherever two neighbours are further apart than that
    - ``"upsert"``: existing rows at the axis value of an inserted one, or within the tolerance of it, are given up
    """

    name: Name
    tolerance: int | None = None

    @property
    def reach(self) -> int:
        """How far from an inserted row an existing one may be that it concerns."""
        return (self.tolerance or 0) if self.name == "upsert" else 0

    def periods(self, new: Axis) -> tuple[Axis, Axis]:
        """Return the first and the last value of each period of inserted rows."""
        gaps = np.empty(0, np.intp)
        if self.tolerance is not None:
            gaps = np.flatnonzero(np.diff(new.view(np.uint64)) > np.uint64(self.tolerance))
        return new[np.r_[0, gaps + 1]], new[np.r_[gaps, len(new) - 1]]

    def survives(self, times: Axis, new: Axis) -> Mask:
        """Return which rows survive that others are inserted after them."""
        if self.name == "time_series":
            starts, stops = self.periods(new)
            # The last period that begins at or before a row is the only one that can contain it.
            last = np.searchsorted(starts, times, "right") - 1
            return np.asarray((last < 0) | (times > stops[last]))
        if self.name == "upsert":
            low, high = shifted(times, -self.reach), shifted(times, self.reach)
            return np.asarray(np.searchsorted(new, low, "left") == np.searchsorted(new, high, "right"))
        return np.ones(len(times), bool)

    def is_left_out(self, new: Axis, times: Axis) -> Mask:
        """Return which inserted rows are left out since others are there."""
        if self.name != "keep":
            return np.zeros(len(new), bool)
        return np.isin(new, times)


def shifted(values: Axis, by: int) -> Axis:
    """Return values moved by a distance, as far as there are integers."""
    if by == 0:
        return values
    # Modulo 2**64, where distances between any two have a place.
    places, distance = values.view(np.uint64), np.uint64(abs(by))
    if by > 0:
        return np.where(np.uint64(_LAST) - places < distance, _LAST, (places + distance).view(np.int64))
    return np.where(places - np.uint64(-_FIRST) < distance, _FIRST, (places - distance).view(np.int64))


LOCAL: tuple[str, ...] = get_args(Name)
NAMES = ("append", "refuse", "replace", *LOCAL[1:])
TOLERANT = ("time_series", "upsert")


def check_merge(merge: Any, tolerance: Tolerance = None) -> None:
    """Refuse what is no strategy.

    Raises
    ------
    InvalidInputError
        No such strategy, or a tolerance for one that has none.
    """
    if not callable(merge) and merge not in NAMES:
        raise InvalidInputError(f"merge={merge!r} is not one of {', '.join(map(repr, NAMES))}, nor a function")
    if tolerance is not None and merge not in TOLERANT:
        name = merge if isinstance(merge, str) else getattr(merge, "__name__", "a function")
        raise InvalidInputError(f"merge={name!r} takes no tolerance; {' and '.join(TOLERANT)} do")


def local_strategy(merge: Merge, tolerance: Tolerance = None) -> Local | None:
    """Return the strategy of ours that is about axis values; None for ``"refuse"``, ``"replace"`` and functions.

    Raises as :func:`check_merge`.
    """
    check_merge(merge, tolerance)
    if not isinstance(merge, str) or merge not in LOCAL:
        return None
    distance = tolerance.astype(np.int64) if isinstance(tolerance, np.timedelta64) else tolerance
    return Local(merge, None if distance is None else min(int(distance), _LAST - _FIRST))  # type: ignore[arg-type]  # one of the names
