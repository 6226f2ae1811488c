"""Functions that a registry names: by which module and name, and from where they may be imported."""

import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import InvalidInputError

_trusted: set[str] = set()
"""The modules that may be imported because a registry names them."""


def trust(module: str) -> None:
    """Let functions of views and indexes be imported from a module, and from those below it: a registry names them."""
    if not isinstance(module, str) or not module:
        raise InvalidInputError(f"{module!r} is not the name of a module")
    _trusted.add(module)


def path_of_function(function: Callable[..., Any]) -> str | None:
    """Return ``module:name`` of a function that another process can import, None for any other."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module in (None, "__main__", "builtins") or "<" in name:
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is function else None


def import_function(what: str, path: str) -> Callable[..., Any]:
    """Return the function by which something is computed: a view, or an index of a collection.

    Raises
    ------
    InvalidInputError
        Its module has not been imported, and is not trusted; or it is not there.
    """
    module, _, name = path.partition(":")
    if module not in sys.modules and not any(module == each or module.startswith(f"{each}.") for each in _trusted):
        raise InvalidInputError(
            f"{what} is computed by {path}, and code that a registry names is not imported unasked: import "
            f"{module} yourself, or call trust({module!r})"
        )
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise InvalidInputError(f"{what} is computed by {path}, which is not there: {error}") from error
    function: Callable[..., Any] = found
    return function


def is_plain(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether arguments are the same to whom a registry tells them."""
    given = [list(args), dict(kwargs)]
    try:
        return bool(json.loads(json.dumps(given, allow_nan=False)) == given)
    except (TypeError, ValueError):
        return False
