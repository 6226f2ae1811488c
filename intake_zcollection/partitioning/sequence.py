"""Partitions by the values of integer variables: cycles, passes, orbits, stations."""

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from registry import KEY_LIMITS, MAX_KEYS, KeyRange, KeyValues, pad_key

from ..errors import InvalidInputError
from ..schema import Values


@dataclass(frozen=True)
class Sequence:
    """Partitions by the values of one to six integer variables: ``cycle_number=12/pass_number=345``.

    Parameters
    ----------
    variables
        Their names, the coarsest first; they become the names of the keys.

    Notes
    -----
    The form is that of CNES's zcollection (``zcollection.partitioning.Sequence``).

    >>> Sequence(("cycle_number", "pass_number")).keys
    ('cycle_number', 'pass_number')
    """

    variables: tuple[str, ...]

    kind: ClassVar[str] = "Sequence"

    def __post_init__(self) -> None:
        object.__setattr__(self, "variables", _check_names(self.variables))

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the variables."""
        return self.variables

    def check_dtypes(self, dtypes: Mapping[str, np.dtype[Any]]) -> None:
        """Raise InvalidInputError unless all variables hold integers."""
        for name in self.variables:
            if dtypes[name].kind not in "iu":
                raise InvalidInputError(
                    f"{self.kind} needs integer variables, and {name} is {dtypes[name]}; convert it in the template (a "
                    "_FillValue in its encoding makes xarray read integers as floats)"
                )

    def key_values(self, values: Mapping[str, Values]) -> npt.NDArray[np.int64]:
        """Return the values of each row, of shape (rows, keys); raises InvalidInputError beyond 64 bits."""
        return np.stack([_to_int64(name, values[name]) for name in self.variables], axis=1)

    def key_range(self, low: int | None, high: int | None) -> KeyRange | None:
        """Return from which key to which the rows lie whose values of the one variable are in a range."""
        if len(self.variables) != 1 or (low is None and high is None):
            return None
        first, last = (None if bound is None else self._key_at(bound) for bound in (low, high))
        return first, last

    def _key_at(self, value: int) -> KeyValues | None:
        try:
            (key,) = self.key_values({self.variables[0]: np.array([value], np.int64)})
        except InvalidInputError:  # it would be in a bucket that begins where there are no integers
            return None
        return pad_key(tuple(key.tolist()))

    def to_json(self) -> dict[str, Any]:
        """Return what the registry keeps."""
        return {"kind": self.kind, "variables": list(self.variables)}


@dataclass(frozen=True)
class GroupedSequence(Sequence):
    """Like :class:`Sequence`, with the values of the last variable in buckets.

    Parameters
    ----------
    variables
        The names of one to six integer variables, the coarsest first.
    size
        How many consecutive values make a bucket.
    start
        The first value of some bucket. The key is the first value of the row's bucket.

    Notes
    -----
    The form is that of CNES's zcollection (``zcollection.partitioning.GroupedSequence``).

    >>> grouped = GroupedSequence(("cycle", "pass"), size=100, start=1)
    >>> grouped.key_values({"cycle": np.array([7, 7]), "pass": np.array([100, 101])}).tolist()
    [[7, 1], [7, 101]]
    """

    size: int
    start: int = 0

    kind: ClassVar[str] = "GroupedSequence"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.size, int) or self.size < 1:
            raise InvalidInputError(f"GroupedSequence(size={self.size!r}): a bucket has at least one value")

    def key_values(self, values: Mapping[str, Values]) -> npt.NDArray[np.int64]:
        """Return the values of each row, the last as the first of its bucket."""
        keys = super().key_values(values)
        last = keys[:, -1]
        within = (last % self.size - self.start % self.size) % self.size  # no intermediate result leaves 64 bits
        if np.any(last < KEY_LIMITS[0] + within):
            raise InvalidInputError(f"variable {self.variables[-1]}: the bucket of {last.min()} begins below -2**63")
        keys[:, -1] = last - within
        return keys

    def to_json(self) -> dict[str, Any]:
        """Return what the registry keeps."""
        return {**super().to_json(), "size": self.size, "start": self.start}


def _check_names(variables: SequenceOf[str]) -> tuple[str, ...]:
    names = (variables,) if isinstance(variables, str) else tuple(variables)
    if not 1 <= len(names) <= MAX_KEYS or len(set(names)) != len(names):
        raise InvalidInputError(f"a sequence has one to {MAX_KEYS} different variables, not {names}")
    return names


def _to_int64(name: str, values: Values) -> npt.NDArray[np.int64]:
    too_large = np.flatnonzero(values > KEY_LIMITS[1]) if values.dtype.kind == "u" else np.empty(0, np.intp)
    if too_large.size:
        raise InvalidInputError(
            f"variable {name}: row {too_large[0]} is {values[too_large[0]]}, and a partition key reaches to 2**63 - 1"
        )
    return values.astype(np.int64)
