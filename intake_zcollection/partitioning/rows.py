"""From the keys of all rows to the rows of each key."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from registry import KeyValues

Rows = slice | npt.NDArray[np.intp]
"""Which rows, in the order in which they are stored: a slice where they are contiguous."""

Keys = npt.NDArray[np.int64]
Axis = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PartitionRows:
    """The rows of one key, from one input or several."""

    key: KeyValues
    pieces: tuple[tuple[int, Rows], ...]
    """The number of each input that has some, and which, sorted by the axis."""
    order: npt.NDArray[np.intp] | None
    """What sorts the pieces, put one after the other, by the axis; None if they are sorted so."""
    count: int


def split_rows(inputs: Sequence[tuple[Keys, Axis]]) -> list[PartitionRows]:
    """Return the rows of each key, in the order of the keys.

    Parameters
    ----------
    inputs
        The key of each row, of shape (rows, keys), and its axis value, of each input.

    Returns
    -------
    list of PartitionRows
        Within a key rows are sorted by the axis; equal axis values keep their order.

    >>> keys = np.array([[1], [0], [1]])
    >>> [(part.key, part.pieces) for part in split_rows([(keys, np.array([5, 6, 4]))])]
    [((0,), ((0, slice(1, 2, None)),)), ((1,), ((0, array([2, 0])),))]
    """
    pieces: dict[KeyValues, list[tuple[int, Rows]]] = {}
    for number, (keys, axis) in enumerate(inputs):
        for key, rows in _split_input(keys, axis):
            pieces.setdefault(key, []).append((number, rows))
    return [_join_pieces(key, tuple(pieces[key]), inputs) for key in sorted(pieces)]


def _split_input(keys: Keys, axis: Axis) -> list[tuple[KeyValues, Rows]]:
    if len(axis) == 0:
        return []
    order = np.lexsort((axis, *keys.T[::-1]))  # lexsort is stable, its last key the most significant
    ordered = keys[order]
    starts = np.flatnonzero(np.any(np.diff(ordered, axis=0, prepend=ordered[:1] - 1) != 0, axis=1))
    stops = np.append(starts[1:], len(order))
    return [
        (tuple(ordered[start].tolist()), _as_slice(order[start:stop]))
        for start, stop in zip(starts, stops, strict=True)
    ]


def _join_pieces(
    key: KeyValues, pieces: tuple[tuple[int, Rows], ...], inputs: Sequence[tuple[Keys, Axis]]
) -> PartitionRows:
    values = np.concatenate([inputs[number][1][rows] for number, rows in pieces])
    order = np.argsort(values, kind="stable") if np.any(values[1:] < values[:-1]) else None
    return PartitionRows(key, pieces, order, len(values))


def _as_slice(rows: npt.NDArray[np.intp]) -> Rows:
    if np.all(np.diff(rows) == 1):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows
