"""Which partitions, as a value."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from .keys import KeyValues
from .predicate import Predicate, parse_predicate
from .records import KeyRange

Filters = str | Callable[[dict[str, int]], bool]
"""A filter on partition keys: text of the predicate language, or a function of the key as a dict."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which partitions: those that meet every condition."""

    predicate: Predicate | None = None
    """On their keys."""
    keep: Callable[[dict[str, int]], bool] | None = None
    """On their keys too: a user's function, asked of what the database has chosen."""
    axis_range: tuple[int | None, int | None] = (None, None)
    """On their axis bounds: the smallest and largest value asked for, both included; None is open."""
    parts: bool = False
    """Whether each part has to meet the bounds: of a partition the others are left out then."""
    keys: Collection[KeyValues] | None = None
    """Their very keys."""
    key_range: KeyRange | None = None
    """The first and the last of their keys, where that follows from the other conditions."""

    @classmethod
    def of(
        cls,
        filters: Filters | None,
        names: tuple[str, ...],
        *,
        axis_range: tuple[int | None, int | None] = (None, None),
        keys: Collection[KeyValues] | None = None,
    ) -> "Selection":
        """Return what a caller asked for, of a collection whose keys have these names.

        >>> Selection.of("year == 2022", ("year",)).keep is None
        True

        Raises
        ------
        InvalidInputError
            The filter is not understood.
        """
        if callable(filters):
            return cls(keep=filters, axis_range=axis_range, keys=keys)
        predicate = None if filters is None else parse_predicate(filters, names)
        return cls(predicate, axis_range=axis_range, keys=keys)
