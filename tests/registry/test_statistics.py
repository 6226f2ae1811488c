"""What the registry knows of values: which partitions and parts cannot have any that are asked for."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from registry import CollectionRecord, Cut, Registry, Run, SchemaRecord, Selection, Statistic, ValueRange, Written
from registry.changes import AddVariables, Commit, EditSchema, PutFragments, PutStatistics, Update
from registry.records import Kept
from registry.sql.engine import engine_of, parse_url
from tests.conftest import both_engines

from .conftest import Sql, change, commit, create, fragment, make_variable, whole

LATITUDE = make_variable(2, "latitude", statistics=True)
CYCLE = make_variable(3, "cycle", dtype="<i4", statistics=True)
SCHEMA = SchemaRecord(
    (make_variable(0, "time", dtype="<M8[ns]", role="coordinate"), make_variable(1, "ssh"), LATITUDE), {}
)

Interval = tuple[float | None, float | None]


@pytest.fixture
def collection(registry: Registry) -> CollectionRecord:
    return create(registry, schema=SCHEMA)


def of_values(
    *intervals: Interval, variable: int = 2, fill_meets: bool = False, lives: Any = ((0, None),), is_float: bool = True
) -> ValueRange:
    return ValueRange(variable, intervals, is_float, lives, fill_meets)


def known(
    written: Written, low: float | None, high: float | None, rows: tuple[int, int] = (0, 10), variable: int = 2
) -> Statistic:
    return Statistic(written.uid, variable, *rows, low, high, 0)


def put(registry: Registry, collection: CollectionRecord, *pairs: tuple[Written, Any], before: Any = ()) -> None:
    """Write fragments, each with its statistics."""
    writes = tuple(written for written, _ in pairs)
    statistics = tuple(itertools.chain.from_iterable(some for _, some in pairs))
    update = PutFragments(writes, (), whole(*writes), statistics=statistics)
    commit(registry, Commit(registry.collection(collection), "insert", (), (*before, update)))


def chosen(registry: Registry, *ranges: ValueRange, version: int | None = None, **selection: Any) -> list[Any]:
    """The partitions that may have such values, or their parts: by the month, and the first axis value."""
    wanted = Selection(values=lambda _: ranges, **selection)
    found = registry.resolve("made/a", version=version, selection=wanted).partitions
    if selection.get("parts"):
        return [(each.values[1], part.bounds[0]) for each in found for part in each.parts]
    return [each.values[1] for each in found]


KNOWN: Mapping[str, tuple[Any, ...]] = {
    "below": (-9.0, 1.0),
    "touches": (-9.0, 2.0),
    "inside": (2.5, 2.5),
    "around": (-9.0, 9.0),
    "above": (4.5, 9.0),
    "infinite": (-math.inf, math.inf),
    "all missing": (None, None),
    "half covered": (4.5, 9.0, (0, 5)),
    "of later rows": (4.5, 9.0, (5, 10)),
    "of more rows": (4.5, 9.0, (0, 20)),
    "nothing": (),
}


@both_engines
@pytest.mark.parametrize("old", [False, True], ids=["head", "old version"])
def test_a_partition_is_left_out_only_if_what_is_known_of_all_its_rows_rules_it_out(
    registry: Registry, collection: CollectionRecord, old: bool
) -> None:
    pairs = []
    for month, what in enumerate(KNOWN.values(), 1):
        written = fragment(2022, month)
        pairs.append((written, [known(written, *what)] if what else []))
    put(registry, collection, *pairs)
    version = None
    if old:  # all of it is past
        version = 1
        put(registry, collection, *((fragment(2022, month), []) for month in range(1, len(KNOWN) + 1)))
        assert len(chosen(registry, of_values((2, 4)))) == len(KNOWN), "of the new ones nothing is known"
    names = [*KNOWN]
    may = ["touches", "inside", "around", "infinite", "half covered", "of later rows", "nothing"]
    assert [names[month - 1] for month in chosen(registry, of_values((2.0, 4.0)), version=version)] == may
    far = [
        "below",
        "touches",
        "around",
        "above",
        "infinite",
        "half covered",
        "of later rows",
        "of more rows",
        "nothing",
    ]
    assert [names[m - 1] for m in chosen(registry, of_values((None, 0.0), (8.0, None)), version=version)] == far
    unknown = ["half covered", "of later rows", "nothing"]
    assert [names[month - 1] for month in chosen(registry, of_values(), version=version)] == unknown


def test_integers_are_compared_as_such(registry: Registry, collection: CollectionRecord) -> None:
    first, second = fragment(2022, 1), fragment(2022, 2)
    put(registry, collection, (first, [known(first, 2**62, 2**62)]), (second, [known(second, 2**63 - 1, 2**63 - 1)]))
    assert chosen(registry, of_values((2**62 + 1, None), is_float=False)) == [2]
    assert chosen(registry, of_values((None, 2**62 + 1), is_float=False)) == [1]


@both_engines
def test_every_fragment_that_holds_the_variable_counts_and_what_lacks_it_reads_as_its_fill_value(
    registry: Registry, collection: CollectionRecord
) -> None:
    old, new, layered, other, unknown = (fragment(2022, month) for month in range(1, 6))
    put(registry, collection, *((each, []) for each in (old, layered, other, unknown)))
    put(
        registry,
        collection,
        (new := fragment(2022, 2, schema_version=2), [Statistic(new.uid, 3, 0, 10, 1, 3, 0)]),
        (layer := fragment(2022, 3, layer=frozenset({3}), schema_version=2), [Statistic(layer.uid, 3, 0, 10, 1, 3, 0)]),
        (fragment(2022, 4, layer=frozenset({1}), schema_version=2), []),
        (fragment(2022, 5, layer=frozenset({1, 3}), schema_version=2), []),
        before=(AddVariables((CYCLE,)),),
    )
    cycle: dict[str, Any] = {"variable": 3, "lives": ((2, None),), "is_float": False}
    assert chosen(registry, of_values((2, 2), **cycle)) == [2, 3, 5]
    assert chosen(registry, of_values((7, 7), **cycle)) == [5]
    assert chosen(registry, of_values((7, 7), **cycle, fill_meets=True)) == [1, 3, 4, 5], "but that of new rows"
    gone = {**cycle, "lives": ((0, 2),)}
    assert chosen(registry, of_values((7, 7), **gone)) == [1, 3, 4, 5], "what is held, and not known"


def test_parts_are_left_out_where_each_is_asked_for_and_partitions_for_all_of_theirs(
    registry: Registry, collection: CollectionRecord
) -> None:
    first, second = (fragment(2022, 1, axis_min=low, axis_max=low + 9) for low in (0, 10))
    third = fragment(2022, 2, axis_min=20, axis_max=29)
    runs = tuple(Run(each.key, (each.axis_min, each.axis_max or 0)) for each in (first, second, third))
    statistics = known(first, 0.0, 1.0), known(second, 5.0, 6.0), known(third, 5.0, 6.0)
    commit(
        registry, Commit(collection, "insert", (), (PutFragments((first, second, third), (), runs, (), statistics),))
    )
    assert chosen(registry, of_values((5.5, 9.0))) == [1, 2]
    assert chosen(registry, of_values((5.5, 9.0)), parts=True) == [(1, 10), (2, 20)]
    assert chosen(registry, of_values((5.5, 9.0)), parts=True, axis_range=(0, 15)) == [(1, 10)]
    assert chosen(registry, of_values((0.0, 0.5)), axis_range=(12, None)) == [1], "by the bounds of the partition"
    assert chosen(registry, of_values((0.0, 0.5)), axis_range=(12, None), parts=True) == []
    both = of_values((0.0, 0.5)), of_values((5.5, 6.0))
    assert (chosen(registry, *both), chosen(registry, *both, parts=True)) == ([1], [])
    assert chosen(registry, of_values((5.5, 9.0)), keys=[(2022, 2)]) == [2]


def test_what_is_cut_is_known_by_what_was_whole(registry: Registry, collection: CollectionRecord) -> None:
    written = fragment(2022, 1)
    put(registry, collection, (written, [known(written, 5.0, 6.0)]))
    cut = Cut(written.key, 0, (Kept(0, 4, 0, 3), Kept(6, 4, 6, 9)))
    commit(registry, change(registry.collection(collection), cuts=(cut,), runs=(Run(written.key, (4, 5)),)))
    assert chosen(registry, of_values((5.5, 5.5)), parts=True) == [(1, 0), (1, 6)]
    assert chosen(registry, of_values((7.0, 8.0)), parts=True) == []


@both_engines
def test_what_is_known_is_recorded_once(registry: Registry, collection: CollectionRecord, sql: Sql) -> None:
    written = fragment(2022, 1)
    put(registry, collection, (written, []))
    known_now = PutStatistics((known(written, 5.0, 6.0),))
    assert commit(registry, Commit(registry.collection(collection), "add", (), (known_now,)))
    again: tuple[Update, ...] = (known_now, EditSchema(lambda schema: schema))
    assert commit(registry, Commit(registry.collection(collection), "add", (), again)) == ()
    assert registry.statistics(collection, [2]) == [known(written, 5.0, 6.0)]
    registry.drop_collection("made/a", lambda names, slot, uid: uid)
    assert sql("SELECT count(*) FROM statistic") == [(0,)]


MADE = "WITH RECURSIVE made(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM made WHERE i < 9999)"
FILL = (
    "INSERT INTO fragment (collection_id, k0, k1, k2, k3, k4, k5, axis_min, layer_id, begin_version, written_version, "
    "schema_version, group_uid, start, rows, group_rows, packed, nbytes, axis_max, axis_unique, transaction_id) "
    f"{MADE} SELECT 1, i / 10, i % 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, CAST(i AS TEXT), 0, 10, 10, false, 80, 9, true, 1 "
    "FROM made",
    "INSERT INTO statistic (collection_id, uid, variable_id, row_start, row_stop, low_float, high_float, missing) "
    f"{MADE} SELECT 1, CAST(i AS TEXT), variable, 0, 10, i % 100, i % 100 + 0.5, 0 "
    "FROM made, (SELECT 1 AS variable UNION ALL SELECT 2) AS variables",
)


@both_engines
def test_of_ten_thousand_partitions_those_that_may_have_values_are_found_by_their_primary_key(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    for statement in FILL:
        sql(statement)
    statements = list[tuple[str, Any]]()
    engine = engine_of(parse_url(registry.url))
    sa.event.listen(engine, "before_cursor_execute", lambda c, k, text, values, *_: statements.append((text, values)))
    box = of_values((41.5, 43.0)), of_values((42.2, 42.3), variable=1)
    assert len(chosen(registry, *box)) == 100
    ((statement, values),) = [each for each in statements if "row_start" in each[0]]
    is_sqlite = make_url(registry.url).get_backend_name() == "sqlite"
    with engine.connect() as connection:
        explained = f"EXPLAIN {'QUERY PLAN ' * is_sqlite}{statement}"
        plan = [str(line) for line in connection.exec_driver_sql(explained, values) if "statistic" in str(line)]
    by_key = "SEARCH statistic USING PRIMARY KEY" if is_sqlite else "using pk_statistic on statistic"
    assert len(plan) == len(box)
    assert all(by_key in line for line in plan), plan
