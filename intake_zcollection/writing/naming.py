"""Errors that name where they come from: one of many inputs, or the partition that many made."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import ZCollectionError

_NOTE = "in "


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Name ``what`` in errors of the block, which keep their class: ours in the message, others in a note.

    Nothing is named if it is empty: there is nothing else that could be meant.
    """
    try:
        yield
    except ZCollectionError as error:
        if not what:
            raise
        named = copy.copy(error)
        named.args = (f"{what}: {error}", *error.args[1:])
        raise named from error
    except Exception as error:
        if what:
            error.add_note(f"{_NOTE}{what}")
        raise


def is_named(error: BaseException) -> bool:
    """Whether an error tells where it comes from."""
    return isinstance(error, ZCollectionError) or any(note.startswith(_NOTE) for note in _notes(error))


def _notes(error: BaseException) -> Sequence[str]:
    return getattr(error, "__notes__", ())


def label(name: str | None, number: int, count: int) -> str:
    """Return what errors call an input: by its source, and its number where there are others.

    >>> label("a.nc", 0, 3), label(None, 1, 3), label("a.nc", 0, 1)
    ('a.nc (input 1 of 3)', 'input 2 of 3', 'a.nc')
    """
    if count == 1:
        return name or ""
    which = f"input {number + 1} of {count}"
    return which if name is None else f"{name} ({which})"


def listing(names: Sequence[str], most: int = 3) -> str:
    """Return the first names, and how many more there are.

    >>> listing(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
