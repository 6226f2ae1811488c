"""What is inserted, each with the source that it came from, and which of these are new."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import xarray as xr
from dask.system import CPU_COUNT

from registry import Source, SourceRecord

from ..errors import AlreadyExistsError, InvalidInputError
from ..storage.location import check_no_password, check_whose
from .files import File
from .naming import label, listing, naming

Path = str | os.PathLike[str]

Dataset = xr.Dataset | Callable[[], xr.Dataset] | Path
"""A dataset; or a function that opens one, or the path or URL of a file: these are opened again by the workers, so that
no data is kept meanwhile."""

Data = Dataset | Iterable[Dataset]

Sources = Path | Source | Iterable[Path | Source | tuple[str, str | None]] | Mapping[str, str | None]
"""A name for each dataset, alone or with a fingerprint."""

Seen = Literal["insert", "skip", "changed", "refuse"]

_CONNECTIONS = max(8, CPU_COUNT)
"""How many files are asked for their fingerprints at a time; mostly, that is waiting."""


@dataclass(frozen=True)
class Item:
    """One of the things to insert."""

    data: xr.Dataset | Callable[[], xr.Dataset]
    label: str
    """What errors call it; empty if nothing else can be meant."""
    given: Source | None = None
    """As which source it is remembered, as far as that was said, or is a file's name."""

    @property
    def name(self) -> str | None:
        """The name of its source."""
        return None if self.given is None else self.given.name

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint given, or else the file's, which is read for it if need be, once."""
        if self.given is None or self.given.fingerprint is not None or not isinstance(self.data, File):
            return None if self.given is None else self.given.fingerprint
        with naming(self.label):
            return self.data.fingerprint


def gather(
    data: Data, sources: Sources, storage_options: Mapping[str, Any] | None, collection: str
) -> tuple[Item, ...]:
    """Return what is to be inserted; raises InvalidInputError where names and data do not fit together."""
    found = [_opener(each, storage_options or {}) for each in _each(data, collection)]
    check_whose(storage_options, ((each.url, None) for each in found if isinstance(each, File)))
    given: Sequence[Source | None] = [_source(each) for each in _each_source(sources)]
    if given and len(given) != len(found):
        raise InvalidInputError(f"there are {len(given)} sources for {len(found)} datasets; name each, or none")
    if not given:
        given = [Source(each.url) if isinstance(each, File) else None for each in found]
    _check_once(found, given)
    named = enumerate(zip(found, given, strict=True))
    return tuple(
        Item(each, label(None if source is None else source.name, number, len(found)), source)
        for number, (each, source) in named
    )


def choose(items: Sequence[Item], known: Mapping[str, SourceRecord], seen: Seen) -> tuple[Item, ...]:
    """Return those to insert, by what is known of their sources.

    Raises
    ------
    InvalidInputError
        One has no source to be known by.
    AlreadyExistsError
        One is known, and seen is ``"refuse"``.
    """
    if seen == "insert":
        return tuple(items)
    if any(item.name is None for item in items):
        raise InvalidInputError(
            f"seen={seen!r} needs sources, to know the datasets by: name each, sources=[…], or give paths of files"
        )
    there = [item for item in items if item.name in known]
    if seen == "refuse":
        if there:
            names = listing([f"{item.name} (version {known[str(item.name)].begin_version})" for item in there], 5)
            raise AlreadyExistsError(
                f"{len(there)} of {len(items)} sources have been inserted already: {names}; leave them out with "
                "seen='skip', or insert them again with seen='insert' and what is to become of their rows, merge=…"
            )
        return tuple(items)
    fetch_fingerprints(item for item in there if known[str(item.name)].source.fingerprint is not None)
    changed = {id(item) for item in there if _has_changed(item, known[str(item.name)].source)}
    is_new = seen == "skip"
    return tuple(item for item in items if id(item) in changed or (is_new and item.name not in known))


def fetch_fingerprints(items: Iterable[Item]) -> None:
    """Have the fingerprints of files, several at a time.

    Before the files are opened: what is corrected while it is inserted is then remembered as it was, and found to have
    changed the next time.
    """
    files = [item for item in items if isinstance(item.data, File)]
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        list(pool.map(lambda item: item.fingerprint, files))


def to_remember(items: Iterable[Item]) -> tuple[Source, ...]:
    """Return the sources of items, by whatever is known of them."""
    return tuple(Source(item.name, item.fingerprint) for item in items if item.name is not None)


def _has_changed(item: Item, before: Source) -> bool:
    """Whether it is known to be another than before; without a fingerprint the name is all there is to go by."""
    return before.fingerprint is not None and item.fingerprint not in (None, before.fingerprint)


def _each(data: Data, collection: str) -> Iterator[Any]:
    """Yield the datasets, or what opens them."""
    if isinstance(data, xr.Dataset | str | os.PathLike) or callable(data):
        yield data
        return
    if isinstance(data, Mapping | bytes | xr.DataArray) or not isinstance(data, Iterable):
        raise InvalidInputError(
            f"collection {collection} takes an xarray.Dataset, a function that returns one, the path or URL of a file, "
            f"or an iterable of these, not {type(data).__name__}"
        )
    iterator, number = iter(data), 0
    while True:
        number += 1
        try:
            each = next(iterator)
        except StopIteration:
            return
        except Exception as error:
            error.add_note(f"in the iterable that is inserted, for input {number}")
            raise
        yield each


def _opener(each: Any, storage_options: Mapping[str, Any]) -> Any:
    return File.of(each, storage_options) if isinstance(each, str | os.PathLike) else each


def _each_source(sources: Sources) -> Iterable[Any]:
    if isinstance(sources, str | os.PathLike | Source):
        return (sources,)
    return sources.items() if isinstance(sources, Mapping) else sources


def _source(given: Any) -> Source:
    match given:
        case Source():
            source = given
        case str() | os.PathLike():
            source = Source(os.fspath(given))
        case (name, fingerprint):
            source = Source(name, fingerprint)
        case _:
            raise InvalidInputError(f"the source {given!r} is neither a name, nor a Source(name, fingerprint)")
    check_no_password("name of a source", source.name)
    return source


def _check_once(found: Sequence[Any], given: Sequence[Source | None]) -> None:
    """Raise InvalidInputError for a file that is given twice, and for a source that is said to be two."""
    files: set[str] = set()
    fingerprints: dict[str, str | None] = {}
    for each, source in zip(found, given, strict=True):
        if isinstance(each, File) and each.url in files:
            raise InvalidInputError(f"the file {each.url} is given twice, and would be inserted twice")
        files |= {each.url} if isinstance(each, File) else set()
        if source is not None and fingerprints.setdefault(source.name, source.fingerprint) != source.fingerprint:
            raise InvalidInputError(f"source {source.name} is given twice, with two fingerprints")
