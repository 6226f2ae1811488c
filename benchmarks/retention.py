"""The shape of space: a month of corrections, an expiry and a vacuum each night; and very many versions that expire."""

import datetime as dt
import itertools
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
import xarray as xr

import intake_zcollection as izc
from registry import CollectionRecord, Expiring
from registry.sql import tables
from registry.sql.engine import writing

from .measure import Cost, measure
from .report import Row
from .shapes import START, Sizes
from .writers import ENGINES

MOST = 1.3
"""So many times the bytes of the live data may be stored."""

_DAY = np.timedelta64(1, "D")


def retention(directory: Path, sizes: Sizes) -> Iterator[Row]:
    """Correct a day of a year each day, and give space back each night; then expire all versions but three at once."""
    yield _nights(directory / "nights", sizes)
    for name, running in ENGINES.items():
        with running(directory) as url, izc.connect(url, create=True) as registry:
            yield _very_many(registry, name, sizes)


def _nights(directory: Path, sizes: Sizes) -> Row:
    registry = izc.connect(f"sqlite:///{directory}.db", create=True)
    data = _hours(365)
    collection = izc.create_collection(
        *(registry, "b/year", data),
        axis="time",
        partitioning=izc.Date("time", "M"),
        location=str(directory),
        merge="upsert",
    )
    collection.insert(data, progress=False)
    live = Cost(0, 0).with_files(directory)
    nights, writes = Cost(0, 0), Cost(0, 0)
    for day in range(sizes.days):
        corrected = _hours(1, 11 * day % 365)
        writes = _sum(writes, measure(lambda corrected=corrected: collection.insert(corrected, progress=False)))
        nights = _sum(nights, measure(lambda: (collection.expire(keep=3, grace="0s"), collection.vacuum())))
    nights, live = nights.with_files(directory), replace(writes, files=live.files, nbytes=live.nbytes)
    if (nights.nbytes or 0) > MOST * (live.nbytes or 0):
        raise AssertionError(f"{nights.nbytes} bytes are stored for {live.nbytes} of live data")
    return Row(f"expire(keep=3) and vacuum, {sizes.days} nights", nights, (("corrections; live data", live),))


def _sum(one: Cost, other: Cost) -> Cost:
    return Cost(one.cpu + other.cpu, one.wall + other.wall, one.system + other.system)


def _hours(days: int, first: int = 0) -> xr.Dataset:
    time = START + first * _DAY + np.arange(24 * days) * np.timedelta64(1, "h")
    values = np.random.default_rng(first).normal(0, 1, (time.size, 100)).astype(np.float32)
    return xr.Dataset({"ssh": (("time", "x"), np.round(values, 2))}, {"time": time})


def _very_many(registry: izc.Registry, engine: str, sizes: Sizes) -> Row:
    data = _hours(1)
    location = f"memory://{uuid.uuid4().hex}"
    by_day: dict[str, Any] = {"axis": "time", "partitioning": izc.Date("time", "D"), "location": location}
    record = registry.collection(izc.create_collection(registry, "b/many", data, **by_day).name)
    _fill(registry, record, sizes)
    told = measure(lambda: registry.expect_expiry(record, Expiring(3)), before=lambda: None)
    done = measure(lambda: registry.expire(record, Expiring(3), lambda *_: uuid.uuid4().hex), before=lambda: None)
    left = sum(each.expired_at is None for each in registry.versions(record))
    if left != 3:
        raise AssertionError(f"{left} versions are left")
    return Row(f"{engine}: {sizes.expired:,} versions expire", done, (("a dry run of it", told),))


def _fill(registry: izc.Registry, record: CollectionRecord, sizes: Sizes) -> None:
    """Record versions, each of which writes some of the partitions anew, as inserts would."""
    live = {number: _fragment(record, number, 1) for number in range(sizes.expired * 10)}
    past, hunks = [], [_hunk(record, number, 1, 0) for number in live]
    places = itertools.cycle(range(0, len(live), 7))
    for version in range(2, sizes.expired + 1):
        for number in itertools.islice(places, 20):
            if live[number]["begin_version"] < version:
                past.append(live[number] | {"end_version": version})
                live[number] = _fragment(record, number, version)
                hunks.append(_hunk(record, number, version, 10))
    now = dt.datetime.now(dt.UTC)
    made = {"collection_id": record.id, "committed_at": now, "operation": "insert", "summary": {}}
    versions = [made | {"version": each, "author": "", "message": ""} for each in range(1, sizes.expired + 1)]
    with writing(registry._url) as connection:
        rows = ((tables.version, versions), (tables.fragment, [*live.values()]), (tables.past_fragment, past))
        for table, some in (*rows, (tables.change, hunks)):
            for first in range(0, len(some), 50_000):
                connection.execute(sa.insert(table), some[first : first + 50_000])
        connection.execute(sa.update(tables.collection).values(head_version=sizes.expired))


def _key(number: int) -> dict[str, int]:
    return {"k0": number // 366, "k1": number % 366, **{f"k{place}": 0 for place in range(2, 6)}}


def _fragment(record: CollectionRecord, number: int, version: int) -> dict[str, Any]:
    places = {"collection_id": record.id, **_key(number), "axis_min": 0, "layer_id": 0, "begin_version": version}
    values = {"written_version": version, "schema_version": 0, "group_uid": uuid.uuid4().hex, "start": 0, "rows": 10}
    return places | values | {"group_rows": 10, "packed": False, "nbytes": 80, "axis_max": 9, "transaction_id": 1}


def _hunk(record: CollectionRecord, number: int, version: int, removed: int) -> dict[str, Any]:
    place = {"collection_id": record.id, **_key(number), "version": version, "layer_id": 0, "row_start": 0}
    return place | {"removed": removed, "added": 10, "axis_min": 0, "axis_max": 9}
