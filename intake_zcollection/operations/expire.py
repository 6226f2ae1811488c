"""Expiring: old versions are given up, and with them the groups that no other version has."""

from dataclasses import dataclass
from itertools import count, groupby
from typing import Any

from dask.utils import format_bytes

from registry import Expired, Expiring, Signature, counted

from ..handle import Handle
from ..merging import parse_span
from ..storage import layout


@dataclass(frozen=True)
class ExpiryReport(Expired):
    """What expired, or would, which a dry run tells; print it."""

    def __str__(self) -> str:
        when = "a dry run: nothing has expired"
        if self.not_before is not None:
            when = f"deleted by a vacuum after {self.not_before:%Y-%m-%d %H:%M:%S} UTC"
        rows = [
            ("versions", numbers_as_text(self.versions)),
            *([("held", numbers_as_text(self.held))] if self.held else ()),
            ("given up", f"{counted(self.groups, 'groups')}, {format_bytes(self.nbytes)}"),
            ("when", when),
        ]
        return "\n".join([f"expiry of {self.collection}", *(f"  {name:<10}{value}" for name, value in rows)])

    __repr__ = __str__


def numbers_as_text(numbers: tuple[int, ...]) -> str:
    """Return numbers in their order, ranges of them by both ends.

    >>> numbers_as_text((0, 1, 2, 5, 7, 8)), numbers_as_text(())
    ('0 … 2, 5, 7 … 8 (6)', 'none')
    """
    runs = [
        [n for n, _ in run] for _, run in groupby(zip(numbers, count(), strict=False), lambda each: each[0] - each[1])
    ]
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]} … {run[-1]}" for run in runs]
    return f"{', '.join(texts)} ({len(numbers)})" if texts else "none"


def expire(
    handle: Handle, *, keep: int | None, older_than: Any, grace: Any, dry_run: bool, signature: Signature
) -> ExpiryReport:
    """Give up old versions; see :meth:`intake_zcollection.Collection.expire`."""
    expiring = Expiring(keep, None if older_than is None else parse_span(older_than, "older_than"))
    after = parse_span(grace, "grace")
    done: Expired
    if dry_run:
        done = handle.registry.expect_expiry(handle.record, expiring)
    else:
        done = handle.registry.expire(handle.record, expiring, layout.slot_path, grace=after, signature=signature)
    return ExpiryReport(**{name: getattr(done, name) for name in Expired.__dataclass_fields__})
