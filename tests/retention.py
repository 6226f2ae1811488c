"""Time that passes for a registry, and what its rows name in the storage: for tests of expire and vacuum."""

import datetime as dt
import re

import intake_zcollection as izc
from registry.sql.engine import is_sqlite
from tests.sql import connected

TIMES = {
    "transaction": ("lease_until", "created_at"),
    "pin": ("lease_until",),
    "garbage": ("not_before",),
    "staged": ("again_at",),
    "queue": ("lease_until",),
    "version": ("committed_at", "expired_at"),
}
"""The columns of times, by table."""


def let_pass(registry: izc.Registry, time: dt.timedelta) -> None:
    """Have all times in a registry lie further back: for what it knows, the clock was moved on."""
    seconds = time.total_seconds()
    with connected(registry) as sql:
        for table, columns in TIMES.items():
            for column in columns:
                moved = f"{column} - INTERVAL '{seconds} seconds'"
                if is_sqlite(registry._url):
                    moved = f"strftime('%Y-%m-%d %H:%M:%f', {column}, '-{seconds} seconds') || '000'"
                sql(f'UPDATE "{table}" SET {column} = {moved}')


def named_groups(registry: izc.Registry) -> set[str]:
    """The uids of the groups that versions have."""
    query = "SELECT group_uid FROM {} WHERE layer_id >= -1"
    with connected(registry) as sql:
        return {uid for table in ("fragment", "past_fragment") for (uid,) in sql(query.format(table))}


def groups_among(paths: set[str]) -> set[str]:
    """The uids of the groups that objects are in."""
    return {part for path in paths for part in path.split("/") if re.fullmatch("[0-9a-f]{32}", part)}


def rows_left(registry: izc.Registry) -> dict[str, int]:
    """How many rows there are of what is to be deleted, or is at work."""
    with connected(registry) as sql:
        return {table: sql(f"SELECT count(*) FROM {table}")[0][0] for table in ("garbage", "staged", "pin", "claim")}


NOTHING_LEFT = {"garbage": 0, "staged": 0, "pin": 0, "claim": 0}
