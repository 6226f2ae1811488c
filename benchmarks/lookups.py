"""The shape of look-ups: a key among very many entries of an index, on both kinds of registry; and creating an index.

The entries and fragments are put into the tables by SQL: no data is anywhere. Each fragment has three entries, as where
a partition has three half orbits; as many have ended.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import sqlalchemy as sa
import xarray as xr

import intake_zcollection as izc
from registry import IndexRecord
from registry.indexes import Choice, Wanted

from .measure import measure
from .report import Row
from .scale import on_each_engine
from .shapes import START, Sizes

HALF_ORBIT = IndexRecord(
    "0" * 32, "half_orbit", {"cycle": "integer", "pass": "integer"}, {1: "cycle", 2: "pass"}, id=-2, begin_version=1
)
PASSES, ENTRIES = 254, 3
"""Of a cycle, and of a fragment."""

KEYS = "collection_id, k0, k1, k2, k3, k4, k5, axis_min, layer_id, begin_version"
FRAGMENT = """
INSERT INTO {table} ({keys}, written_version, schema_version, group_uid, start, rows, group_rows, packed, nbytes,
  axis_max, axis_unique, transaction_id{end_column})
SELECT {of}, n / 8760, n / 720, n / 24, n, 0, 0, n * 10, {layer}, {begin}, 1, 0, {uid}, 0, 99, 99, {no}, 0,
  n * 10 + 9, {yes}, 1{end} FROM {numbers}
"""
ENTRY = """
INSERT INTO index_entry (collection_id, uid, number, layer_id, row_start, row_stop, axis_min, axis_max, v0, v1)
SELECT {of}, {uid}, {number}, -2, {number} * 33, {number} * 33 + 33, n * 10 + {number}, n * 10 + {number},
  (n * 3 + {number}) / 254, n * 3 + {number} - (n * 3 + {number}) / 254 * 254 FROM {numbers}
"""
VERSION = sa.text(
    "INSERT INTO version (collection_id, version, committed_at, author, message, operation, summary) "
    "VALUES (:of, :number, '2022-01-01 00:00:00', 'me', '', 'insert', '{}')"
)


def lookups(directory: Path, sizes: Sizes) -> Iterator[Row]:
    """Look up half orbits of a large collection and of a hundredth, and create an index of many partitions."""
    yield from on_each_engine(directory, partial(_on_one, sizes))
    yield _created(directory / "created", sizes)


def _on_one(sizes: Sizes, registry: izc.Registry, outside: sa.Engine, place: Path) -> Iterator[Row]:
    counts = sizes.indexed, sizes.indexed // 100
    names = [f"b/of_{count}" for count in counts]
    for name, count in zip(names, counts, strict=True):
        _create(registry, place, name)
        _fill(outside, registry.collection(name).id, count)
    some = 3 * counts[1] // 2  # an entry in the middle of the small one
    one = Wanted({"cycle": Choice(frozenset([some // PASSES])), "pass": Choice(frozenset([some % PASSES]))})
    for title, version in (("one key", None), ("one key, old version", 3)):
        questions = [partial(registry.look_up, name, version, HALF_ORBIT, one) for name in names]
        if any(len(question().rows) != 1 for question in questions):
            raise RuntimeError(f"{title}: it is not found")
        large, small = (measure(each, repeats=sizes.asked, before=_nothing) for each in questions)
        yield Row(f"{title} of {ENTRIES * counts[0]:,} entries", large, (("of a hundredth", small),), cpu=0.01)
    several = {"cycle": some // PASSES, "pass": (some % PASSES, None)}
    loads = [partial(izc.open_collection(registry, name).load, index=several) for name in names]
    large, small = (measure(each, repeats=sizes.asked, before=_nothing) for each in loads)
    yield Row(f"load part of a cycle lazily: {loads[0]().sizes['time']} rows", large, (("of a hundredth", small),))


def _nothing() -> None:
    """Prepare no run: no data is written that the disk would have to be waited for."""


def _create(registry: izc.Registry, place: Path, name: str) -> izc.Collection:
    variables = {each: ("time", np.zeros(1, "i4")) for each in ("cycle", "pass", "ssh")}
    template = xr.Dataset(variables, {"time": np.zeros(1, "M8[ns]")})
    by_hour = izc.Date("time", "h")
    return izc.create_collection(
        registry, name, template, axis="time", partitioning=by_hour, location=str(place / name)
    )


def _fill(outside: sa.Engine, of: int, count: int) -> None:
    """Put so many fragments of rows and of an index, those that ended, and their entries, into the tables."""
    on_sqlite = outside.dialect.name == "sqlite"
    counted = f"SELECT 0 AS n UNION ALL SELECT n + 1 FROM q WHERE n < {count} - 1"
    recursive, series = f"(WITH RECURSIVE q(n) AS ({counted}) SELECT n FROM q)", f"generate_series(0, {count} - 1) n"
    numbers = recursive if on_sqlite else series
    no, yes = ("0", "1") if on_sqlite else ("false", "true")

    def uid(kind: str) -> str:
        padded = "printf('%031d', n)" if on_sqlite else "lpad(CAST(n AS TEXT), 31, '0')"
        return f"'{kind}' || {padded}"

    with outside.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        layer = "INSERT INTO layer (collection_id, id, variable_ids, definition, begin_version) VALUES"
        connection.execute(sa.text(f"{layer} ({of}, -2, '[1, 2]', :is, 1)"), {"is": json.dumps(HALF_ORBIT.to_json())})
        lives = (("fragment", "", "", 5, "ab"), ("past_fragment", ", end_version", ", 5", 1, "cd"))
        for table, end_column, end, begin, kinds in lives:
            for layer_id, kind in zip((0, -2), kinds, strict=True):
                named = {"table": table, "keys": KEYS, "end_column": end_column, "end": end, "begin": begin}
                named |= {"layer": layer_id, "uid": uid(kind), "of": of, "numbers": numbers, "no": no, "yes": yes}
                connection.exec_driver_sql(FRAGMENT.format(**named))
            for number in range(ENTRIES):
                connection.exec_driver_sql(ENTRY.format(of=of, uid=uid(kinds[1]), number=number, numbers=numbers))
        connection.execute(VERSION, [{"of": of, "number": number} for number in range(1, 6)])
        connection.exec_driver_sql(f"UPDATE collection SET head_version = 5 WHERE id = {of}")
        connection.exec_driver_sql("COMMIT")
        if not on_sqlite:  # a server does it by itself, after a while
            connection.exec_driver_sql("VACUUM ANALYZE")


def _created(directory: Path, sizes: Sizes) -> Row:
    """Index partitions that are there; next to a map that reads the same variables of them."""
    directory.mkdir()
    registry = izc.connect(f"sqlite:///{directory}/registry.db", create=True)
    collection = _create(registry, directory, "b/made")
    rows = 30 * sizes.partitions
    times = START + np.arange(rows) * np.timedelta64(2, "m")
    numbers = np.arange(rows, dtype="i4") // 10
    values = {"cycle": numbers // PASSES, "pass": numbers % PASSES, "ssh": numbers}
    data = xr.Dataset({name: ("time", each) for name, each in values.items()}, {"time": times})
    collection.insert(data, progress=False)
    index = partial(collection.create_index, "half_orbit", ("cycle", "pass"), progress=False)
    indexed = measure(index)
    read = measure(lambda: collection.map(_look, inputs=("cycle", "pass"), progress=False))
    return Row(f"create an index of {sizes.partitions} partitions", indexed, (("map that reads the same", read),))


def _look(dataset: xr.Dataset) -> int:
    return int(dataset["cycle"].values[0]) + int(dataset["pass"].values[0])
