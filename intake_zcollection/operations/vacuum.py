"""Vacuuming: objects that are nobody's any more are deleted, and then the rows that named them."""

import datetime as dt
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from dask.utils import format_bytes

from registry import MARKER, CollectionRecord, Leftover, Registry, counted

from ..errors import NotFoundError, ZCollectionError
from ..handle import Handle
from ..merging import parse_span
from ..storage.location import Location, check_whose, open_location
from ..storage.write import attempts_at
from ..writing.marking import remove_left_behind

logger = logging.getLogger(__name__)

PlaceOf = Callable[[str, Mapping[str, Any]], Location]
"""What opens a location by its URL and the options that are recorded."""


@dataclass
class Freed:
    """What was deleted at a location, or would be."""

    location: str
    groups: int = 0
    nbytes: int = 0
    """The bytes stored, as far as they are known: nobody knows those of what was never committed."""
    problem: str = ""
    """Why something is there still; the next vacuum tries again."""


@dataclass(frozen=True)
class VacuumReport:
    """What a vacuum freed, or would; print it."""

    places: tuple[Freed, ...]
    fenced: int
    """How many writers were found dead, none of which can commit any more."""
    dead_nbytes: int
    """The bytes of rows that no newest version has, inside groups of which it has others: ``rewrite`` frees them."""
    dry_run: bool

    @property
    def groups(self) -> int:
        """How many groups."""
        return sum(each.groups for each in self.places)

    @property
    def nbytes(self) -> int:
        """How many bytes, as far as they are known."""
        return sum(each.nbytes for each in self.places)

    @property
    def ok(self) -> bool:
        """Whether everything that was to be deleted is."""
        return not any(each.problem for each in self.places)

    def __str__(self) -> str:
        freed = f"{'would be ' * self.dry_run}freed: {counted(self.groups, 'groups')}, {format_bytes(self.nbytes)}"
        dead = f"dead inside groups that live: {format_bytes(self.dead_nbytes)} (rewrite frees that)"
        lines = [f"vacuum: {freed}; {counted(self.fenced, 'writers')} fenced; {dead}"]
        width = max((len(each.location) for each in self.places), default=0)
        for each in self.places:
            problem = f"  {each.problem}" if each.problem else ""
            lines.append(f"  {each.location:<{width}}  {each.groups:>6}  {format_bytes(each.nbytes):>10}{problem}")
        return "\n".join(lines)

    __repr__ = __str__


@dataclass
class Vacuuming:
    """One vacuum at work."""

    registry: Registry
    place_of: PlaceOf
    grace: dt.timedelta
    dry_run: bool
    freed: dict[str, Freed] = field(default_factory=dict)

    def run(self, record: CollectionRecord | None) -> VacuumReport:
        """Vacuum a collection, or all that the registry has and had."""
        fenced = 0 if self.dry_run else self.registry.fence(self.grace)
        for some in self.registry.leftovers(record, lapsed=self.grace if self.dry_run else None):
            deleted = [each for place, rows in _by_place(some) for each in self._delete(place, rows)]
            if not self.dry_run and deleted:
                self.registry.forget_leftovers(deleted, self.grace)
        if record is None and not self.dry_run:
            self._clear_claims()
        report = VacuumReport(tuple(self.freed.values()), fenced, self._dead_nbytes(record), self.dry_run)
        logger.info("%s", str(report).partition("\n")[0])
        return report

    def _delete(self, place: tuple[str, str], rows: Sequence[Leftover]) -> Sequence[Leftover]:
        """Delete what rows name at a location; return those of which nothing is there any more."""
        freed = self.freed.setdefault(place[0], Freed(place[0]))
        if freed.problem:
            return ()  # it is asked once
        try:
            location = self.place_of(place[0], rows[0].options)
            kept = {each.keep for each in rows if each.keep}
            groups = attempts_at(location, [each.path for each in rows if each.path != MARKER], kept)
            if not self.dry_run:
                location.store.remove(groups)
                if any(each.path == MARKER for each in rows):
                    remove_left_behind(self.registry, location)
        except ZCollectionError as error:
            logger.warning("%s is not vacuumed: %s", place[0], error)
            freed.problem = str(error)
            return ()
        freed.groups += len(groups)
        freed.nbytes += sum(each.nbytes or 0 for each in rows)
        return rows

    def _clear_claims(self) -> None:
        """Take away what killed creators left at locations that are no collection's."""
        for claimed in self.registry.dead_claims():
            try:
                remove_left_behind(self.registry, self.place_of(claimed.location, claimed.options))
            except ZCollectionError as error:
                self.freed.setdefault(claimed.location, Freed(claimed.location)).problem = str(error)
            else:
                self.registry.forget_claim(claimed)

    def _dead_nbytes(self, record: CollectionRecord | None) -> int:
        records = self.registry.collections() if record is None else (record,)
        return sum(self._dead_in(each) for each in records)

    def _dead_in(self, record: CollectionRecord) -> int:
        try:
            return self.registry.dead_nbytes(record)
        except NotFoundError:  # it was dropped meanwhile
            return 0


def _by_place(rows: Sequence[Leftover]) -> Iterator[tuple[tuple[str, str], list[Leftover]]]:
    def place(each: Leftover) -> tuple[str, str]:
        return each.location, str(each.options)

    for where, some in groupby(sorted(rows, key=place), place):
        yield where, list(some)


def vacuum(handle: Handle, *, grace: Any, dry_run: bool) -> VacuumReport:
    """Delete what is nobody's of a collection; see :meth:`intake_zcollection.Collection.vacuum`."""
    here = handle.location

    def place_of(url: str, options: Mapping[str, Any]) -> Location:
        return here if url == here.url else open_location(url, options, None)

    return Vacuuming(handle.registry, place_of, parse_span(grace, "grace"), dry_run).run(handle.record)


def vacuum_all(
    registry: Registry, *, storage_options: Mapping[str, Any] | None, grace: Any, dry_run: bool
) -> VacuumReport:
    """Delete what is nobody's, wherever this registry wrote; see :func:`intake_zcollection.vacuum`."""
    places = [(each.location, each.storage_options.get("endpoint_url")) for each in registry.collections()]

    def place_of(url: str, options: Mapping[str, Any]) -> Location:
        check_whose(storage_options, [*places, (url, options.get("endpoint_url"))])
        return open_location(url, options, storage_options)

    return Vacuuming(registry, place_of, parse_span(grace, "grace"), dry_run).run(None)
