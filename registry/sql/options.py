"""The options of a registry's address, ``?name=value&…``: all of them are known, and none is left out.

SQLite has ``journal``, ``wal`` or ``delete``. Postgres has those of libpq, and ``prepare``: after how many executions a
statement is prepared on the server. Without, none is: a pooler that lends a connection for one transaction at a time
would have it prepared on another one.
"""

from collections.abc import Collection
from difflib import get_close_matches
from urllib.parse import unquote_plus

from sqlalchemy.engine import URL

from ..errors import InvalidInputError

_REPEATED = ("host", "port")
"""Those that may be given several times, for several servers."""


def check_options(text: str, url: URL, known: Collection[str] | None) -> None:
    """Raise InvalidInputError unless an address has only options that are known, each once and with a value.

    ``url`` is what SQLAlchemy made of the text: it leaves out what stands behind the question mark and is no
    ``name=value``. With None for ``known``, any name will do. No message has a value, which may be secret.
    """
    names = _names(text, url)
    for name in names:
        if known is not None and name not in known:
            close = get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there is {', '.join(sorted(known))}"
            raise InvalidInputError(
                f"the registry's address has an option {name!r}, which there is not; {hint} (in a path, '?' is %3F)"
            )
        if names.count(name) > 1 and name not in _REPEATED:
            raise InvalidInputError(f"the registry's address has the option {name} {names.count(name)} times")


def _names(text: str, url: URL) -> list[str]:
    # A user's name and password may have question marks in them.
    _, mark, query = (text if url.username is None else text.partition("@")[2]).partition("?")
    names = []
    for option in query.split("&") if mark else ():
        name, _, value = option.partition("=")
        if not (name and value):
            raise InvalidInputError(
                f"the registry's address has {f'the option {name!r} without a value' if name else 'no option'} behind "
                "its '?'; write '?name=value&…', and %3F for a '?' in a path"
            )
        names.append(unquote_plus(name))
    return names
