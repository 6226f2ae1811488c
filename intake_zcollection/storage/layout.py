"""Where things lie below a collection's location. The only module that spells paths.

::

    <location>/
    ├── .zcollection                  what this directory is
    ├── immutable/0f3c…9a1e/          a fragment of immutable variables
    └── year=2022/month=01/
        └── 7be1…04c2/                a fragment: one Zarr group
            └── time/ …
"""

import re
import uuid
from collections.abc import Sequence

from registry import IMMUTABLE_SLOT, PartitionKey, Slot, format_key, name_values

_INTENT = 24

_UID = re.compile(rf"[0-9a-f]{{{_INTENT}}}([0-9a-f]{{8}})?")


def new_intent() -> str:
    """Return the first 24 characters of a uid that never was: every write goes to a new path."""
    return uuid.uuid4().hex[:_INTENT]


def new_attempt() -> str:
    """Return the last 8 characters of a uid: what one attempt writes, no other one tears."""
    return uuid.uuid4().hex[_INTENT:]


def is_intent(name: str) -> bool:
    """Whether a group's name is only the beginning that all attempts to write it share."""
    return len(name) == _INTENT


def is_group(path: str) -> bool:
    """Whether a path below the location is that of a group, or what all attempts to write one begin with.

    Nothing else is ever deleted with all that is in it.

    >>> is_group("year=2022/month=01/" + 32 * "0"), is_group("year=2022/month=01"), is_group("../" + 32 * "0")
    (True, False, False)
    """
    *directories, name = path.split("/")
    return _UID.fullmatch(name) is not None and bool(directories) and not {"", ".", ".."} & {*directories}


def uid_of(path: str) -> str:
    """Return the name of the group at a path."""
    return path.rpartition("/")[2]


def intent_of(path: str) -> str:
    """Return the beginning of the name of the group at a path."""
    return uid_of(path)[:_INTENT]


def partition_path(key: PartitionKey) -> str:
    """Return the directory of a partition's fragments below the location."""
    return format_key(key)


def group_path(directory: str, uid: str) -> str:
    """Return the path of a group in the directory of its partition."""
    return f"{directory}/{uid}"


def fragment_path(key: PartitionKey, uid: str) -> str:
    """Return a fragment's path below the location.

    >>> fragment_path((("year", 2022), ("month", 1)), "0f3c")
    'year=2022/month=01/0f3c'
    """
    return group_path(partition_path(key), uid)


def immutable_path(uid: str) -> str:
    """Return the path of a fragment of immutable variables; no key's text can be its first segment."""
    return f"immutable/{uid}"


def slot_path(names: Sequence[str], slot: Slot, uid: str) -> str:
    """Return the path of what is, or was, live in a slot; ``names`` are those of the keys."""
    if slot == IMMUTABLE_SLOT:
        return immutable_path(uid)
    return fragment_path(name_values(names, slot.key[: len(names)]), uid)


def partition_of(path: str) -> str:
    """Return what a fragment is of, for a message: the text of its key, or the immutable variables.

    >>> partition_of("year=2022/month=01/0f3c"), partition_of("immutable/0f3c")
    ('year=2022/month=01', 'the immutable variables')
    """
    key = path.rpartition("/")[0]
    return "the immutable variables" if key == "immutable" else key


def chunk_name(index: Sequence[int], zarr_format: int) -> str:
    """Return the name of a chunk inside its array.

    >>> chunk_name((0, 1), 3), chunk_name((0, 1), 2), chunk_name((), 3), chunk_name((), 2)
    ('c.0.1', '0.1', 'c', '0')
    """
    text = ".".join(str(i) for i in index)
    if zarr_format == 2:
        return text or "0"
    return f"c.{text}" if text else "c"
