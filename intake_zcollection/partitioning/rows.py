"""From the keys of all rows to the rows of each key."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from registry import KeyValues

from ..schema import Values

Rows = slice | npt.NDArray[np.intp]
"""Which rows, in the order in which they are stored: a slice where they are contiguous."""


@dataclass(frozen=True)
class PartitionRows:
    """The rows of one key, sorted by the axis."""

    key: KeyValues
    rows: Rows
    count: int


def split_rows(keys: npt.NDArray[np.int64], axis: Values) -> list[PartitionRows]:
    """Return the rows of each key, in the order of the keys.

    Parameters
    ----------
    keys
        The key of each row, of shape (rows, keys).
    axis
        The axis value of each row.

    Returns
    -------
    list of PartitionRows
        Within a key rows are sorted by the axis; equal axis values keep their order.

    >>> keys = np.array([[1], [0], [1]])
    >>> [(part.key, part.rows) for part in split_rows(keys, np.array([5, 6, 4]))]
    [((0,), slice(1, 2, None)), ((1,), array([2, 0]))]
    """
    if len(axis) == 0:
        return []
    order = np.lexsort((axis, *keys.T[::-1]))  # lexsort is stable, its last key the most significant
    ordered = keys[order]
    starts = np.flatnonzero(np.any(np.diff(ordered, axis=0, prepend=ordered[:1] - 1) != 0, axis=1))
    stops = np.append(starts[1:], len(order))
    return [
        PartitionRows(tuple(ordered[start].tolist()), _as_slice(order[start:stop]), int(stop - start))
        for start, stop in zip(starts, stops, strict=True)
    ]


def _as_slice(rows: npt.NDArray[np.intp]) -> Rows:
    if np.all(np.diff(rows) == 1):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows
