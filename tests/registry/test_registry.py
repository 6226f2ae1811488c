"""What a registry answers about collections, versions and partitions, and how a collection comes into being."""

import dataclasses
import datetime as dt
import json
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.dialects import sqlite

from registry import (
    AlreadyExistsError,
    CollectionRecord,
    ConflictError,
    InvalidInputError,
    KeyValues,
    NotFoundError,
    Registry,
    SchemaRecord,
    Source,
    SourceRecord,
    VersionExpiredError,
)
from registry.changes import Commit, RememberSources, SourcesUnchanged
from registry.sql import queries
from registry.sql.lookup import names_parameter

from .conftest import (
    SCHEMA,
    Sql,
    change,
    commit,
    create,
    fragment,
    in_threads,
    live_uids,
    make_definition,
    make_variable,
    partition,
    write,
)


def names(records: tuple[CollectionRecord, ...]) -> list[str]:
    return [record.name for record in records]


# Collections


@pytest.fixture
def four(registry: Registry) -> Registry:
    """Four collections in two namespaces, not created in the order of their names."""
    create(registry, "ocean/sst", description="Surface temperature, 100% ice-free")
    create(registry, "altimetry/swh", description="Wave height", schema=schema_of("swh"))
    create(registry, "altimetry/ssh", description="Surface height")
    create(registry, "ocean/x_y", description="50 \\ 1")
    return registry


def schema_of(*variables: str) -> SchemaRecord:
    return SchemaRecord(tuple(make_variable(i, name) for i, name in enumerate(("time", *variables))), {})


def test_an_empty_registry_has_no_collections(registry: Registry) -> None:
    assert registry.collections() == ()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, ["altimetry/ssh", "altimetry/swh", "ocean/sst", "ocean/x_y"]),
        ({"namespace": "altimetry"}, ["altimetry/ssh", "altimetry/swh"]),
        ({"namespace": "altimet"}, []),
        ({"text": "HEIGHT"}, ["altimetry/ssh", "altimetry/swh"]),
        ({"text": "y/s"}, ["altimetry/ssh", "altimetry/swh"]),
        ({"text": "0%"}, ["ocean/sst"]),
        ({"text": "_"}, ["ocean/x_y"]),
        ({"text": "\\"}, ["ocean/x_y"]),
        ({"variable": "ssh"}, ["altimetry/ssh", "ocean/sst", "ocean/x_y"]),
        ({"variable": "ss"}, []),
        ({"namespace": "altimetry", "text": "height", "variable": "swh"}, ["altimetry/swh"]),
        ({"namespace": "ocean", "variable": "swh"}, []),
    ],
)
def test_collections_are_found_by_namespace_text_and_variable(
    four: Registry, wanted: dict[str, str], expected: list[str]
) -> None:
    assert names(four.collections(**wanted)) == expected


def test_a_dropped_variable_finds_nothing(four: Registry, sql: Sql) -> None:
    sql("UPDATE variable SET end_version = 1 WHERE name = 'swh'")
    assert four.collections(variable="swh") == ()


def test_a_collection_is_recorded_as_it_was_defined(registry: Registry) -> None:
    definition = make_definition(
        "made/a",
        axis="cycle",
        dimension="row",
        keys=("cycle", "pass"),
        partitioning={"type": "sequence", "variables": ["cycle", "pass"]},
        zarr_format=2,
        merge="replace",
        storage_options={"endpoint_url": "https://s3", "anon": True},
        description="première",
        metadata={"owner": {"name": "me"}, "rank": [1, 2.5, None]},
    )
    with registry.creating(definition) as creation:
        record = creation.record()
    assert registry.collection("made/a") == record
    assert registry.collections() == (record,)
    for field in dataclasses.fields(definition):
        if field.name not in ("schema", "base"):
            assert getattr(record, field.name) == getattr(definition, field.name), field.name
    assert (record.kind, record.head_version, len(record.uid)) == ("collection", 0, 32)
    assert abs(record.created_at - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)


def test_a_wrong_name_is_answered_with_the_near_matches(four: Registry) -> None:
    with pytest.raises(NotFoundError, match=r"no collection altimetry/shh in .*did you mean .*altimetry/ssh") as caught:
        four.collection("altimetry/shh")
    assert "ocean" not in str(caught.value).partition("did you mean")[2]
    assert four.url in str(caught.value)


def test_a_name_like_no_other_is_answered_with_their_number(four: Registry) -> None:
    with pytest.raises(NotFoundError, match=r"no collection zz/zz in .*it has 4 collections"):
        four.collection("zz/zz")


QUERIES: dict[str, Callable[[Registry, str], Any]] = {
    "collection": Registry.collection,
    "resolve": Registry.resolve,
    "partitions": Registry.partitions,
    "versions": Registry.versions,
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_every_query_refuses_a_name_that_is_unknown_or_none(
    collection: CollectionRecord, registry: Registry, query: Callable[[Registry, str], Any]
) -> None:
    with pytest.raises(NotFoundError, match=r"made/b .*did you mean made/a"):
        query(registry, "made/b")
    with pytest.raises(InvalidInputError, match="'a' is not a full collection name: write 'namespace/name'"):
        query(registry, "a")


@pytest.mark.parametrize(
    "name", ["", "a", "a/b/c", "a/", "/a", "A/b", "a/B", "1a/b", "a/_b", "a-b/c", "a/b c", "a/é", "a/b\n", None, 3]
)
def test_a_name_is_two_words_in_lower_case(registry: Registry, name: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a full collection name"):
        create(registry, name, location="/data/a")
    assert registry.collections() == ()


# Versions


def test_versions_come_oldest_first_and_begin_with_the_creation(
    registry: Registry, collection: CollectionRecord, other: CollectionRecord
) -> None:
    write(registry, other, fragment(2022, 1))
    made = [write(registry, collection, fragment(2022, month)) for month in (1, 2)]
    creation, *writes = registry.versions("made/a")
    assert (creation.collection, creation.number, creation.operation) == ("made/a", 0, "create")
    assert creation.committed_at == collection.created_at
    assert writes == made


def test_a_version_is_an_integer_where_one_is_needed(registry: Registry, collection: CollectionRecord) -> None:
    version = write(registry, collection, fragment(2022, 1))
    assert int(version) == 1
    assert "ab"[version] == "b"


@pytest.mark.parametrize("version", [-1, 2, 2**40, 2**70])
def test_a_version_that_does_not_exist_is_answered_with_those_that_do(
    registry: Registry, collection: CollectionRecord, version: int
) -> None:
    write(registry, collection, fragment(2022, 1))
    with pytest.raises(NotFoundError, match=rf"made/a has no version {version}: it has versions 0 to 1"):
        registry.resolve("made/a", version=version)
    with pytest.raises(NotFoundError, match=rf"no version {version}"):
        registry.partitions("made/a", version=version)


def test_a_version_may_be_given_by_its_record(registry: Registry, collection: CollectionRecord) -> None:
    first, second = (write(registry, collection, fragment(2022, month)) for month in (1, 2))
    assert list(live_uids(registry, version=first)) == [(2022, 1)]
    assert registry.resolve("made/a", version=second).version == 2


@pytest.mark.parametrize("version", [True, "1", 1.0])
def test_what_is_no_version_is_refused(registry: Registry, collection: CollectionRecord, version: Any) -> None:
    write(registry, collection, fragment(2022, 1))
    with pytest.raises(InvalidInputError, match=f"version={version!r}"):
        registry.resolve("made/a", version=version)


def test_an_expired_version_says_when_and_the_others_are_still_read(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    for month in (1, 2):
        write(registry, collection, fragment(2022, month))
    sql("UPDATE version SET expired_at = '2024-02-03 04:05:06.000000' WHERE version = 1")
    with pytest.raises(VersionExpiredError, match=r"version 1 of collection made/a expired at 2024-02-03 04:05:06"):
        registry.resolve("made/a", version=1)
    assert issubclass(VersionExpiredError, NotFoundError)
    assert [len(registry.partitions("made/a", version=version)) for version in (0, 2)] == [0, 2]


# Partitions


@pytest.fixture
def months(registry: Registry, collection: CollectionRecord) -> Registry:
    """January to June of two years, each month ten values wide; the last month of each was corrected in version 2."""
    keys = [(year, month) for year in (2022, 2021) for month in (6, 5, 4, 3, 2, 1)]
    write(registry, collection, *(fragment(*key, **bounds_of(key)) for key in keys))
    write(registry, collection, *(fragment(year, 6, rows=7, **bounds_of((year, 6))) for year in (2021, 2022)))
    return registry


def bounds_of(key: KeyValues) -> dict[str, int]:
    low = (key[0] - 2021) * 1000 + key[1] * 10
    return {"axis_min": low, "axis_max": low + 9}


def test_partitions_come_in_the_order_of_their_keys(months: Registry) -> None:
    expected = [(year, month) for year in (2021, 2022) for month in range(1, 7)]
    assert list(live_uids(months)) == expected
    assert list(live_uids(months, version=1)) == expected


def test_a_partition_shows_its_size_bounds_key_and_last_change(
    registry: Registry, collection: CollectionRecord
) -> None:
    rows = fragment(2022, 1, rows=7, nbytes=56, axis_min=-3, axis_max=4)
    write(registry, collection, rows)
    write(registry, collection, fragment(2022, 1, layer=1, rows=7, nbytes=14, axis_min=-3, axis_max=4))
    (partition,) = registry.partitions("made/a")
    assert partition.key == (("year", 2022), ("month", 1))
    assert str(partition) == "year=2022/month=01"
    assert (partition.rows, partition.nbytes, partition.bounds, partition.groups) == (7, 70, (-3, 4), 2)
    assert registry.changes("made/a", 2) == {(2022, 1): 2}
    assert [each.layer_id for each in partition.fragments] == [0, 1]


@pytest.mark.parametrize("unique", [True, False, None])
def test_whether_an_axis_value_is_repeated_is_known_of_every_version(
    registry: Registry, collection: CollectionRecord, unique: bool | None
) -> None:
    write(registry, collection, fragment(2022, 1, axis_unique=unique))
    write(registry, collection, fragment(2022, 1))

    found = [next(partition(registry, 2022, 1, version=number).fragments).axis_unique for number in (1, 2)]
    assert found == [unique, None]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (None, 12),
        ("year == 2022", 6),
        ("month in (1, 6) and year != 2021", 2),
        ("year * 12 + month < 0", 0),
        (lambda key: key["year"] == 2022, 6),
        (lambda key: key == {"year": 2021, "month": 6}, 1),
        (lambda key: [], 0),
    ],
)
@pytest.mark.parametrize("version", [None, 1, 2])
def test_filters_select_by_key_in_every_version(
    months: Registry, filters: str | Callable[[dict[str, int]], bool] | None, expected: int, version: int | None
) -> None:
    assert len(months.partitions("made/a", filters=filters, version=version)) == expected


def test_a_filter_selects_from_the_version_it_is_asked_of(months: Registry) -> None:
    old, new = (months.partitions("made/a", filters="month == 6", version=version) for version in (1, 2))
    assert [each.key for each in old] == [each.key for each in new]
    assert [each.rows for each in old + new] == [10, 10, 7, 7]


def test_a_filter_that_is_not_understood_is_refused(months: Registry) -> None:
    with pytest.raises(InvalidInputError, match=r"no key 'mnth', did you mean month"):
        months.partitions("made/a", filters="mnth == 1")
    with pytest.raises(InvalidInputError, match=r"the keys are year, month"):
        months.partitions("made/a", filters="")


@pytest.mark.parametrize(
    ("axis_range", "expected"),
    [
        ((None, None), [(2021, 5), (2021, 6), (2022, 1)]),
        ((69, None), [(2021, 6), (2022, 1)]),
        ((70, None), [(2022, 1)]),
        ((None, 1009), [(2021, 5), (2021, 6)]),
        ((None, 1010), [(2021, 5), (2021, 6), (2022, 1)]),
        ((59, 60), [(2021, 5), (2021, 6)]),
        ((62, 63), [(2021, 6)]),
        ((70, 1009), []),
        ((63, 62), [(2021, 6)]),  # upside down: what a bound cuts, the caller crops
        ((-(2**63), 2**63 - 1), [(2021, 5), (2021, 6), (2022, 1)]),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_an_axis_range_selects_the_partitions_it_touches_both_ends_included(
    months: Registry, axis_range: tuple[int | None, int | None], expected: list[KeyValues], version: int
) -> None:
    here = "year == 2021 and month >= 5 or year == 2022 and month == 1"
    snapshot = months.resolve("made/a", version=version, axis_range=axis_range, filters=here)
    assert [tuple(value for _, value in partition.key) for partition in snapshot.partitions] == expected


@pytest.mark.parametrize("keys", [[], [(2021, 6)], {(2022, 1), (2021, 6)}, [(2021, 6), (2021, 6), (2030, 1)]])
@pytest.mark.parametrize("version", [1, 2])
def test_keys_select_the_very_partitions_that_exist(months: Registry, keys: Any, version: int) -> None:
    found = months.resolve("made/a", version=version, keys=keys).partitions
    assert [tuple(value for _, value in each.key) for each in found] == sorted(set(keys) - {(2030, 1)})


@pytest.mark.parametrize("number", [500, 501, 1200])
def test_more_keys_than_one_statement_takes_select_the_same(
    registry: Registry, collection: CollectionRecord, number: int
) -> None:
    keys = [(year, month) for year in range(500) for month in range(1, 13)]
    here = [key for key in keys[:600] if key[0] % 2]
    write(registry, collection, *(fragment(*key) for key in here))
    found = registry.resolve("made/a", keys=keys[1 : number + 1], filters="month > 1").partitions
    expected = [key for key in here if key in keys[1 : number + 1] and key[1] > 1]
    assert [tuple(value for _, value in each.key) for each in found] == expected


def test_all_conditions_hold_together(months: Registry) -> None:
    keys = [(2021, 4), (2021, 5), (2021, 6), (2022, 5)]
    snapshot = months.resolve("made/a", filters="year == 2021", axis_range=(50, None), keys=keys)
    assert [str(partition) for partition in snapshot.partitions] == ["year=2021/month=05", "year=2021/month=06"]


def test_conditions_spare_the_immutable_fragment(months: Registry) -> None:
    immutable = fragment(layer=-1)
    write(months, months.collection("made/a"), immutable)
    snapshot = months.resolve("made/a", filters="year == 0", axis_range=(0, 1), keys=[])
    assert snapshot.partitions == ()
    assert snapshot.immutable is not None
    assert (snapshot.immutable.uid, snapshot.immutable.axis_max) == (immutable.uid, None)


def test_a_snapshot_has_the_schema_of_its_version(registry: Registry, sql: Sql) -> None:
    collection = create(registry)
    write(registry, collection, fragment(2022, 1))
    sql("UPDATE variable SET end_version = 1 WHERE name = 'ssh'")
    sql("UPDATE dataset_attributes SET end_version = 1")
    sql('INSERT INTO dataset_attributes VALUES (?, 1, NULL, \'{"title": "new"}\')', collection.id)
    ended = dataclasses.replace(SCHEMA.variables[1], lives=((0, 1),))
    assert registry.resolve("made/a", version=0).schema == dataclasses.replace(
        SCHEMA, variables=(SCHEMA.variables[0], ended)
    )
    newest = registry.resolve("made/a")
    assert newest.schema == SchemaRecord(SCHEMA.variables[:1], {"title": "new"})
    assert (newest.version, newest.collection.head_version) == (1, 1)


def test_collections_do_not_see_each_others_partitions(
    registry: Registry, collection: CollectionRecord, other: CollectionRecord
) -> None:
    for collection_ in (collection, other, collection):
        commit(registry, change(collection_, fragment(2022, 1), fragment(layer=-1)))
    found = [live_uids(registry, name, version=1) for name in ("made/a", "made/b")]
    assert found[0].keys() == found[1].keys() == {(2022, 1)}
    assert found[0] != found[1]
    assert registry.resolve("made/b").immutable != registry.resolve("made/a", version=1).immutable


def test_a_snapshot_is_of_one_version_while_others_commit(registry: Registry, collection: CollectionRecord) -> None:
    keys = [(2022, month) for month in range(1, 13)]
    done = threading.Event()

    def replace_all() -> bool:
        try:
            for _ in range(20):
                write(registry, collection, *(fragment(*key) for key in keys), fragment(layer=-1))
        finally:
            done.set()
        return True

    def read_all() -> bool:
        torn = 0
        while not done.is_set():
            snapshot = registry.resolve("made/a")
            fragments = [each for partition in snapshot.partitions for each in partition.fragments]
            fragments += [snapshot.immutable] if snapshot.immutable else []
            expected = [snapshot.version] * (13 if snapshot.version else 0)
            torn += [each.begin_version for each in fragments] != expected
        return not torn

    assert in_threads(lambda work: work(), [(replace_all,), (read_all,), (read_all,)]) == [True] * 3


# Creating a collection


def test_a_new_collection_is_empty_at_version_0(registry: Registry) -> None:
    record = create(registry)
    assert record.head_version == 0
    snapshot = registry.resolve("made/a", version=0)
    assert (snapshot.collection, snapshot.version, snapshot.schema) == (record, 0, SCHEMA)
    assert (snapshot.partitions, snapshot.immutable) == ((), None)
    assert [version.number for version in registry.versions("made/a")] == [0]


def test_a_name_that_is_taken_is_refused(registry: Registry, collection: CollectionRecord) -> None:
    with pytest.raises(AlreadyExistsError, match="a collection made/a already; open it, or choose another name"):
        create(registry, location="/elsewhere")
    assert registry.collections() == (collection,)


def test_a_name_may_be_repeated_in_another_namespace(registry: Registry, collection: CollectionRecord) -> None:
    create(registry, "other/a")
    assert names(registry.collections()) == ["made/a", "other/a"]


@pytest.mark.parametrize(
    ("location", "other"),
    [
        ("/data/a", "/data/a"),
        ("/data/a", "/data/a/b/c"),
        ("/data/a/b/c", "/data/a"),
        ("s3://bucket/a", "s3://bucket/a"),
        ("s3://bucket", "s3://bucket/a"),
        ("/data/a/", "/data/a"),
        ("/data/a", "/data/a/"),
        ("/data/100%_a", "/data/100%_a/b"),
    ],
)
def test_a_location_in_anothers_or_around_it_is_refused(registry: Registry, location: str, other: str) -> None:
    create(registry, "made/first", location=location)
    with pytest.raises(AlreadyExistsError, match=rf"{other} overlaps with {location}, .* collection made/first"):
        create(registry, "made/second", location=other)
    assert names(registry.collections()) == ["made/first"]


@pytest.mark.parametrize(
    ("location", "other"),
    [("/data/a", "/data/ab"), ("/data/ab", "/data/a"), ("/data/a", "/data/b"), ("s3://b/a", "/b/a"), ("/a_b", "/a%b")],
)
def test_neighbouring_locations_are_free(registry: Registry, location: str, other: str) -> None:
    create(registry, "made/first", location=location)
    create(registry, "made/second", location=other)
    assert len(registry.collections()) == 2


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_exception_in_the_block_leaves_no_trace(registry: Registry, sql: Sql, error: type[BaseException]) -> None:
    with pytest.raises(error, match="no space"), registry.creating(make_definition()):
        raise error("no space")
    for table in ("namespace", "collection", "variable", "dataset_attributes", "version"):
        assert sql(f"SELECT * FROM {table}") == []
    create(registry)


def test_nobody_sees_a_collection_before_it_is_recorded(registry: Registry) -> None:
    with registry.creating(make_definition()) as creation:
        assert registry.collections() == ()
        creation.record()
    assert names(registry.collections()) == ["made/a"]


def test_of_several_that_create_one_collection_one_succeeds(registry: Registry) -> None:
    def attempt(number: int) -> bool:
        try:
            create(registry, location=f"/data/{number}")
        except AlreadyExistsError:
            return False
        return True

    assert sorted(in_threads(attempt, [(number,) for number in range(5)])) == [False] * 4 + [True]
    assert names(registry.collections()) == ["made/a"]


def test_a_schema_comes_back_as_it_was_recorded(registry: Registry) -> None:
    encoding = {"chunks": [100, 3], "codecs": [{"name": "zstd", "level": 3}], "scale_factor": 0.1}
    grid = make_variable(1, "ssh", dimensions=("time", "lat"), sizes=(None, 3), encoding=encoding, fill_value=-32768)
    scalar = make_variable(2, "crs", dimensions=(), sizes=(), dtype="|S1", fill_value="", stored_name="crs_1")
    schema = SchemaRecord((*SCHEMA.variables[:1], grid, scalar), {"title": "été", "levels": [1, 2], "empty": {}})
    create(registry, schema=schema)
    assert registry.resolve("made/a").schema == schema


NUMBERS = [math.nan, math.inf, -math.inf, 0.0, -0.0, 0.1, 1e3, 5e-324, 1.7976931348623157e308, -(2**63), 2**64 - 1]


@pytest.mark.parametrize("value", NUMBERS)
def test_every_number_survives_in_attributes_encodings_and_metadata(registry: Registry, value: float) -> None:
    nested = {"_FillValue": value, "valid_range": [value, {"deep": (value,)}]}
    variable = make_variable(1, "ssh", attributes=nested, encoding=nested)
    create(registry, schema=SchemaRecord((variable,), nested), metadata=nested)
    snapshot = registry.resolve("made/a")
    (found,) = snapshot.schema.variables
    expected = repr({"_FillValue": value, "valid_range": [value, {"deep": [value]}]})  # NaN equals nothing
    for read in (found.attributes, found.encoding, snapshot.schema.attributes, snapshot.collection.metadata):
        assert repr(read) == expected


@pytest.mark.parametrize("value", [None, "", "1e3", True, *NUMBERS])
def test_every_fill_value_survives(registry: Registry, value: object) -> None:
    create(registry, schema=SchemaRecord((make_variable(1, "ssh", fill_value=value),), {}))
    (found,) = registry.resolve("made/a").schema.variables
    assert repr(found.fill_value) == repr(value)


def test_json_in_the_database_is_json(registry: Registry, sql: Sql) -> None:
    create(registry, metadata={"a": math.nan})
    ((text,),) = sql("SELECT metadata FROM collection")
    assert list(json.loads(text, parse_constant=pytest.fail)) == ["a"]  # NaN is a constant of Python's alone


@pytest.mark.parametrize("metadata", [{"$float": "fast"}, {"a": {"$float": "nan"}}, {"a": [{"$float": 1}]}])
def test_metadata_that_looks_like_our_own_marks_survives(registry: Registry, metadata: dict[str, Any]) -> None:
    create(registry, metadata=metadata)
    assert repr(registry.collection("made/a").metadata) == repr(metadata)


# Sources


def remember(registry: Registry, collection: CollectionRecord, *sources: Source, **known: int | None) -> None:
    needs = (SourcesUnchanged(known),)
    commit(registry, Commit(collection, "insert", needs, (RememberSources(sources),)))


def test_a_source_that_comes_again_ends_and_begins_and_only_the_last_is_known(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    remember(registry, collection, Source("a", "1"), Source("b"))
    remember(registry, collection, Source("a", "2"), Source("a", "3"))
    assert registry.known_sources("made/a", ["a", "b", "c"]) == {
        "a": SourceRecord(Source("a", "3"), 2),
        "b": SourceRecord(Source("b"), 1),
    }
    rows = sql("SELECT name, fingerprint, begin_version, end_version FROM source ORDER BY name, begin_version")
    assert rows == [("a", "1", 1, 2), ("a", "3", 2, None), ("b", None, 1, None)]


def test_sources_belong_to_their_collection(
    registry: Registry, collection: CollectionRecord, other: CollectionRecord
) -> None:
    remember(registry, collection, Source("a", "1"))
    remember(registry, other, Source("a", "2"), a=None)
    assert registry.known_sources("made/a", ["a"])["a"].source.fingerprint == "1"


@pytest.mark.parametrize("known", [None, 1, 3])
def test_a_source_that_is_known_otherwise_than_it_was_is_a_conflict(
    registry: Registry, collection: CollectionRecord, known: int | None
) -> None:
    for fingerprint in ("1", "2"):
        remember(registry, collection, Source("a", fingerprint))
    with pytest.raises(ConflictError, match="another writer committed a while this insert"):
        remember(registry, collection, Source("b"), a=known)
    remember(registry, collection, Source("b"), a=2, b=None)


def test_more_sources_than_fit_into_a_statement_are_found(registry: Registry, collection: CollectionRecord) -> None:
    names = [f"{number}.nc" for number in range(1201)]
    remember(registry, collection, *map(Source, names))
    assert registry.known_sources("made/a", names).keys() == set(names)


@pytest.mark.one_engine("sqlite", "its plan")
def test_a_source_is_found_by_the_key_of_its_table(registry: Registry, collection: CollectionRecord, sql: Sql) -> None:
    query = queries.sources_query().params(names_parameter(["a", "b"]) | {"of_collection": 1})
    text = query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    plan = [row[-1] for row in sql(f"EXPLAIN QUERY PLAN {text}")]
    assert plan[1:] == ["SEARCH source USING INDEX sqlite_autoindex_source_1 (collection_id=? AND name=?)"]
