"""The names of variables: which an array can have, and which a wrong one may have meant."""

import difflib
import re
from collections.abc import Collection, Hashable, Iterable
from typing import Any

from ..errors import InvalidInputError, NotFoundError
from .schema import Schema, SchemaVariable

_NAME = re.compile(r"(?!\.|__|zarr\.json$)[^/\\\0]+", re.DOTALL)


def check_name(name: Hashable) -> str:
    """Return the name of a variable; raises InvalidInputError if no array can have it."""
    if isinstance(name, str) and is_unicode(name) and _NAME.fullmatch(name) and len(name.encode()) <= 255:
        return name
    raise InvalidInputError(
        f"the variable name {name!r} cannot be a Zarr array's: use text without '/', of at most 255 bytes, not hidden"
    )


def is_unicode(value: Any) -> bool:
    """Whether a value is text that has an UTF-8 form."""
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def find_variable(schema: Schema, name: str, collection: str) -> SchemaVariable:
    """Return a variable of the schema; raises NotFoundError with the near names."""
    if name not in schema.variables:
        raise NotFoundError(f"collection {collection} has no variable {name}; {near(name, schema.variables)}")
    return schema.variables[name]


def near(name: str, names: Iterable[str]) -> str:
    """Return the names like a wrong one, or all, for a message."""
    close = difflib.get_close_matches(str(name), list(names), n=2)
    return f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(names) or 'none'}"


def check_choice(argument: str, value: Any, choices: Collection[str]) -> None:
    """Raise InvalidInputError unless an argument is one of its choices, which the message names."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidInputError(f"{argument}={value!r} is not one of {', '.join(map(repr, choices))}")
