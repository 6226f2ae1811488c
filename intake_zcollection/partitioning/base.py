"""What every partitioning is."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from registry import KeyRange

from ..schema import Values


@runtime_checkable
class Partitioning(Protocol):
    """Values of some variables in, partition keys out."""

    kind: ClassVar[str]

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables whose values make the key, one-dimensional along the split dimension."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the keys, in order."""

    def check_dtypes(self, dtypes: Mapping[str, np.dtype[Any]]) -> None:
        """Raise InvalidInputError unless keys can be made of variables of these dtypes."""

    def key_values(self, values: Mapping[str, Values]) -> npt.NDArray[np.int64]:
        """Return the key of each row, of shape (rows, keys); raises InvalidInputError for rows without one."""

    def key_range(self, low: int | None, high: int | None) -> KeyRange | None:
        """Return in which range of keys the rows lie whose one variable is in a range.

        The range is of integers (times: ns since 1970), the keys have all six columns. None where keys are not in the
        order of the variable, or nothing is known.
        """

    def to_json(self) -> dict[str, Any]:
        """Return what the registry keeps."""
