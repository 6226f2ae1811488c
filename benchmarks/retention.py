"""The shape of space: a month of corrections, an expiry and a vacuum each night; and very many versions that expire."""

import datetime as dt
import itertools
import multiprocessing
import re
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import sqlalchemy as sa
import xarray as xr

import intake_zcollection as izc
from registry import CollectionRecord, Expiring
from registry.sql import tables
from registry.sql.engine import writing

from .measure import Cost, measure, peak_memory
from .report import Row
from .shapes import START, Sizes
from .writers import ENGINES

MOST = 1.3
"""So many times the bytes of the live data may be stored."""

MOST_MEMORY = 300 * 2**20
"""So many bytes a process may take to have versions expire, whatever their number."""

_DAY = np.timedelta64(1, "D")


def retention(directory: Path, sizes: Sizes) -> Iterator[Row]:
    """Correct a day of a year each day, and give space back each night; then expire all versions but three at once."""
    yield _nights(directory / "nights", sizes)
    yield _in_s3(directory, sizes)
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


def _in_s3(directory: Path, sizes: Sizes) -> Row:
    """Free the groups of corrections in S3: all at once, and each by itself, as who deletes folders would."""
    from tests.s3 import running_server  # of the extra "test"

    def corrected(name: str) -> izc.Collection:
        collection = izc.create_collection(
            *(registry, f"b/{name}", data),
            axis="time",
            partitioning=izc.Date("time", "M"),
            location=f"{url}/{name}",
            storage_options=server.storage_options,
        )
        for _ in range(sizes.days + 1):
            collection.insert(data, merge="replace", progress=False)
        return collection

    with running_server() as server, izc.connect(f"sqlite:///{directory}/s3.db", create=True) as registry:
        url, data = server.fresh_url(), _hours(31)
        ours, others = corrected("ours"), corrected("others")
        fs, root = fsspec.url_to_fs(others.location, **server.storage_options)
        folders = [f"{root}/{each}" for each in sorted(_folders(server.keys(others.location)))[: sizes.days]]
        ours.expire(keep=1, grace="0s")
        with server.traffic(url) as freeing:
            cost = measure(ours.vacuum)
        with server.traffic(url) as removing:
            one_by_one = measure(lambda: [fs.rm(folder, recursive=True) for folder in folders])
        if left := len(_folders(server.keys(ours.location))) - 1:
            raise AssertionError(f"{left} groups are left")
    requests = [replace(each, requests=len(sent.requests)) for each, sent in ((cost, freeing), (one_by_one, removing))]
    return Row(f"S3: {sizes.days} groups are freed", requests[0], (("one after the other, by fsspec", requests[1]),))


def _folders(keys: Iterable[str]) -> set[str]:
    """Return the folders of groups of rows among objects."""
    return {key[: found.end()] for key in keys if (found := re.match("year=.*/[0-9a-f]{32}", key))}


def _very_many(registry: izc.Registry, engine: str, sizes: Sizes) -> Row:
    few, many = (_filled(registry, versions, 10 * sizes.expired) for versions in (sizes.expired // 10, sizes.expired))
    told = measure(lambda: registry.expect_expiry(many, Expiring(3)), before=lambda: None)
    done, tenth = (_in_process(registry, record) for record in (many, few))
    compared = ("a dry run of it", told), ("a tenth of these versions, of as many partitions", tenth)
    return Row(f"{engine}: {sizes.expired:,} versions expire", done, compared, peak=MOST_MEMORY)


def _in_process(registry: izc.Registry, record: CollectionRecord) -> Cost:
    """Return what an expiry of all versions but three costs in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "sqlalchemy.dialects.sqlite", "psycopg"])
    with ProcessPoolExecutor(1, mp_context=context) as process:
        cost = process.submit(_expire, registry._url.render_as_string(hide_password=False), record.name).result()
    left = sum(each.expired_at is None for each in registry.versions(record))
    if left != 3:
        raise AssertionError(f"{left} versions are left")
    return cost


def _expire(url: str, name: str) -> Cost:
    with izc.connect(url) as registry:
        record = registry.collection(name)
        cost = measure(lambda: registry.expire(record, Expiring(3), lambda *_: uuid.uuid4().hex), before=lambda: None)
    return replace(cost, peak=peak_memory())


def _filled(registry: izc.Registry, versions: int, partitions: int) -> CollectionRecord:
    data = _hours(1)
    location = f"memory://{uuid.uuid4().hex}"
    by_day: dict[str, Any] = {"axis": "time", "partitioning": izc.Date("time", "D"), "location": location}
    record = registry.collection(izc.create_collection(registry, f"b/many{versions}", data, **by_day).name)
    _fill(registry, record, versions, partitions)
    return record


def _fill(registry: izc.Registry, record: CollectionRecord, versions: int, partitions: int) -> None:
    """Record versions, each of which writes some of the partitions anew, as inserts would."""
    live = {number: _fragment(record, number, 1) for number in range(partitions)}
    past, hunks = [], [_hunk(record, number, 1, 0) for number in live]
    places = itertools.cycle(range(0, len(live), 7))
    for version in range(2, versions + 1):
        for number in itertools.islice(places, 20):
            if live[number]["begin_version"] < version:
                past.append(live[number] | {"end_version": version})
                live[number] = _fragment(record, number, version)
                hunks.append(_hunk(record, number, version, 10))
    now = dt.datetime.now(dt.UTC)
    made = {"collection_id": record.id, "committed_at": now, "operation": "insert", "summary": {}}
    made |= {"author": "", "message": ""}
    committed = [made | {"version": each} for each in range(1, versions + 1)]
    with writing(registry._url) as connection:
        rows = ((tables.version, committed), (tables.fragment, [*live.values()]), (tables.past_fragment, past))
        for table, some in (*rows, (tables.change, hunks)):
            for first in range(0, len(some), 50_000):
                connection.execute(sa.insert(table), some[first : first + 50_000])
        head = sa.update(tables.collection).where(tables.collection.c.id == record.id)
        connection.execute(head.values(head_version=versions))


def _key(number: int) -> dict[str, int]:
    return {"k0": number // 366, "k1": number % 366, **{f"k{place}": 0 for place in range(2, 6)}}


def _fragment(record: CollectionRecord, number: int, version: int) -> dict[str, Any]:
    places = {"collection_id": record.id, **_key(number), "axis_min": 0, "layer_id": 0, "begin_version": version}
    values = {"written_version": version, "schema_version": 0, "group_uid": uuid.uuid4().hex, "start": 0, "rows": 10}
    return places | values | {"group_rows": 10, "packed": False, "nbytes": 80, "axis_max": 9, "transaction_id": 1}


def _hunk(record: CollectionRecord, number: int, version: int, removed: int) -> dict[str, Any]:
    place = {"collection_id": record.id, **_key(number), "version": version, "layer_id": 0, "row_start": 0}
    return place | {"removed": removed, "added": 10, "axis_min": 0, "axis_max": 9}
