"""Partitions by calendar date, from years down to seconds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from registry import KeyRange, KeyValues, pad_key

from ..errors import InvalidInputError
from ..schema import Values

Resolution = Literal["Y", "M", "D", "h", "m", "s"]

_NAT = int(np.iinfo(np.int64).min)

_NAMES = ("year", "month", "day", "hour", "minute", "second")


@dataclass(frozen=True)
class Date:
    """Partitions by the date of a datetime64 variable: ``year=2022/month=01`` for resolution ``"M"``.

    Parameters
    ----------
    variable
        The name of the variable, often the axis.
    resolution
        ``"Y"``, ``"M"``, ``"D"``, ``"h"``, ``"m"`` or ``"s"``: the finest key is the year … second.

    Notes
    -----
    The form is that of CNES's zcollection (``zcollection.partitioning.Date``).

    >>> Date("time", "D").keys
    ('year', 'month', 'day')
    """

    variable: str
    resolution: Resolution

    kind: ClassVar[str] = "Date"

    def __post_init__(self) -> None:
        if self.resolution not in get_args(Resolution):
            raise InvalidInputError(
                f"the resolution {self.resolution!r} is not one of {', '.join(map(repr, get_args(Resolution)))}"
            )

    @property
    def variables(self) -> tuple[str, ...]:
        """The one variable."""
        return (self.variable,)

    @property
    def keys(self) -> tuple[str, ...]:
        """``("year", …)`` down to the resolution."""
        return _NAMES[: get_args(Resolution).index(self.resolution) + 1]

    def check_dtypes(self, dtypes: Mapping[str, np.dtype[Any]]) -> None:
        """Raise InvalidInputError unless the variable holds datetimes."""
        dtype = dtypes[self.variable]
        if dtype.kind != "M":
            raise InvalidInputError(
                f"Date({self.variable!r}) needs a datetime64 variable, and {self.variable} is {dtype}"
            )

    def key_values(self, values: Mapping[str, Values]) -> npt.NDArray[np.int64]:
        """Return the date of each row, of shape (rows, keys); raises InvalidInputError for NaT."""
        times = values[self.variable]
        missing = np.flatnonzero(np.isnat(times))
        if missing.size:
            raise InvalidInputError(
                f"variable {self.variable}: row {missing[0]} is NaT ({missing.size} of {times.size} rows), "
                "and a row without a date belongs to no partition; drop or fill these rows"
            )
        years = times.astype("M8[Y]")
        columns = [years.astype(np.int64) + 1970]
        coarse: Values = years
        for unit in get_args(Resolution)[1 : len(self.keys)]:
            fine = times.astype(f"M8[{unit}]")
            # Months and days count from 1, hours and smaller from 0.
            columns.append((fine - coarse.astype(fine.dtype)).astype(np.int64) + (unit in "MD"))
            coarse = fine
        return np.stack(columns, axis=1)

    def key_range(self, low: int | None, high: int | None) -> KeyRange | None:
        """Return from which date to which the rows lie whose times (ns since 1970) are in a range."""
        first, last = (None if bound in (None, _NAT) else self._key_at(bound) for bound in (low, high))
        return None if first is None and last is None else (first, last)

    def _key_at(self, time: int | None) -> KeyValues:
        (key,) = self.key_values({self.variable: np.array([time], np.int64).view("M8[ns]")})
        return pad_key(tuple(key.tolist()))

    def to_json(self) -> dict[str, Any]:
        """Return what the registry keeps."""
        return {"kind": self.kind, **asdict(self)}
