"""The partition table against numpy's concatenation, and the blocks that a dataset is cut into."""

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from intake_zcollection.errors import InvalidInputError
from intake_zcollection.reading.blocks import plan_blocks
from intake_zcollection.reading.table import PartitionTable
from intake_zcollection.schema import Schema, SchemaVariable
from intake_zcollection.schema.template import schema_from_template
from registry import FragmentColumns, FragmentRecord


def columns_of(names: tuple[str, ...], *rows: FragmentRecord) -> FragmentColumns:
    """What the registry returns for some fragments."""
    keys = {f"k{place}": [row.key[place] for row in rows] for place in range(len(names))}
    fields = {name: [getattr(row, name) for row in rows] for name in FragmentRecord._fields[1:]}
    fields["axis_unique"] = [-1 if value is None else int(value) for value in fields["axis_unique"]]
    return FragmentColumns(names, {**keys, **fields})


def record(key: tuple[int, ...], layer: int, uid: str, rows: int, **fields: Any) -> FragmentRecord:
    """A fragment of a part that begins at axis value 0, unless another is given."""
    defaults: dict[str, Any] = {"axis_min": 0, "start": 0, "group_rows": rows, "nbytes": 0, "axis_max": 9, "path": None}
    versions = {"begin_version": 0, "written_version": 0, "schema_version": 0}
    return FragmentRecord(key=key, layer_id=layer, uid=uid, rows=rows, **(defaults | versions | fields))


def make_table(*pieces: tuple[int, int, int] | int) -> PartitionTable:
    """A table of partitions of one part with so many rows, of some of which only ``(rows, start, stop)`` are left."""
    whole = [piece if isinstance(piece, tuple) else (piece, 0, piece) for piece in pieces]
    rows = (record((number,), 0, f"u{number}", piece[0]) for number, piece in enumerate(whole))
    table = PartitionTable.of(("k",), columns_of(("k",), *rows), {})
    starts, stops = ([piece[end] for piece in whole] for end in (1, 2))
    return table.take(range(len(whole)), starts, stops)


def rows_of(table: PartitionTable) -> list[tuple[str | None, int]]:
    """Which rows of which groups, one by one."""
    variable = make_schema().variables["ssh"]
    return [(each.path, row) for each in table.stretches(variable) for row in range(each.start, each.stop)]


@st.composite
def tables(draw: st.DrawFn) -> PartitionTable:
    """Tables of up to six partitions of one part or two, some of them cropped, some of them empty."""
    rows: list[FragmentRecord] = []
    starts, stops = [], []
    for key in range(draw(st.integers(0, 6))):
        for axis_min in range(0, 20, 10)[: draw(st.integers(1, 2))]:
            count = draw(st.integers(0, 7))
            offset = draw(st.integers(0, 2))
            start, stop = sorted(draw(st.tuples(st.integers(0, count), st.integers(0, count))))
            part = {"axis_min": axis_min, "axis_max": axis_min + 9, "start": offset, "group_rows": count + offset}
            rows.append(record((key,), 0, f"u{len(rows)}", count, **part))
            starts.append(start)
            stops.append(stop)
    table = PartitionTable.of(("k",), columns_of(("k",), *rows), {})
    return table.take(range(len(rows)), starts, stops)


# Rows


@given(table=tables(), data=st.data())
def test_the_rows_of_a_range_are_those_of_the_concatenation(table: PartitionTable, data: st.DataObject) -> None:
    everything = rows_of(table)
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(everything))] * 2)))
    some = table.slice_rows(start, stop)
    assert (rows_of(some), some.rows, sum(some.sizes)) == (everything[start:stop], stop - start, stop - start)
    assert np.all(some.piece_sizes > 0)
    assert set(some.keys) <= set(table.keys)


@given(table=tables(), data=st.data())
def test_a_table_is_cut_into_partitions(table: PartitionTable, data: st.DataObject) -> None:
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(table))] * 2)))
    some = table.cut(start, stop)
    assert (some.keys, some.sizes) == (table.keys[start:stop], table.sizes[start:stop])
    before = sum(table.sizes[:start])
    assert rows_of(some) == rows_of(table)[before : before + some.rows]


@given(table=tables())
def test_a_table_is_the_same_after_it_was_pickled(table: PartitionTable) -> None:
    again = pickle.loads(pickle.dumps(table))
    assert (str(again), again.keys, again.token) == (str(table), table.keys, table.token)


def test_a_variable_is_read_from_the_newest_fragment_that_holds_it() -> None:
    def table_of(*layers: tuple[int, int]) -> PartitionTable:
        rows = (record((1,), id_, f"u{id_}", 5, written_version=version, schema_version=2) for id_, version in layers)
        return PartitionTable.of(("k",), columns_of(("k",), *rows), held)

    def one(begin: int, end: int | None = None) -> SchemaVariable:
        return replace(make_schema().variables["ssh"], id=7, lives=((begin, end),))

    held = {1: frozenset({7}), 2: frozenset({7, 8}), 3: frozenset({8})}
    paths = [
        next(table_of(*written).stretches(variable)).path
        for variable, written in [
            (one(2), [(0, 2)]),
            (one(3), [(0, 2)]),  # added after the rows were written
            (one(1, 2), [(0, 2)]),  # dropped before
            (one(3), [(0, 2), (1, 3)]),
            (one(2), [(0, 2), (1, 4), (2, 3), (3, 9)]),
            (one(2), [(0, 5), (1, 5)]),  # written together
        ]
    ]
    assert paths == ["k=1/u0", None, None, "k=1/u1", "k=1/u1", "k=1/u1"]


def test_each_part_has_layers_of_its_own() -> None:
    rows = [
        record((1,), 0, "a", 5),
        record((1,), 1, "b", 5, written_version=3, start=2, group_rows=9),
        record((1,), 0, "c", 4, axis_min=10, axis_max=19),
    ]
    table = PartitionTable.of(("k",), columns_of(("k",), *rows), {1: frozenset({7})})
    variable = replace(make_schema().variables["ssh"], id=7)
    assert [tuple(each) for each in table.stretches(variable)] == [("k=1/b", 2, 7, 9), ("k=1/c", 0, 4, 4)]
    assert table.paths_of(variable) == [("k=1/b", "k=1/c")]
    assert [tuple(each) for each in table.slice_rows(4, 6).stretches(variable)] == [
        ("k=1/b", 6, 7, 9),
        ("k=1/c", 0, 1, 4),
    ]


def test_two_parts_of_one_group_have_different_tokens() -> None:
    def token(start: int) -> tuple[str, str]:
        table = PartitionTable.of(("k",), columns_of(("k",), record((1,), 0, "a", 5, start=start, group_rows=10)), {})
        return table.token, table.token_of(make_schema().variables["ssh"])

    assert all(one != other for one, other in zip(token(0), token(5), strict=True))


def test_a_table_prints_what_is_read_of_each_part() -> None:
    rows = record((2022,), 0, "a", 10, start=5, group_rows=20), record((2023,), 0, "b", 3)
    table = PartitionTable.of(("year",), columns_of(("year",), *rows), {}).take([0, 1], [4, 0], [10, 3])
    assert str(table).splitlines() == [
        "year=2022  4:10 of 10 rows  year=2022/a[9:15]",
        "year=2023  0:3 of 3 rows  year=2023/b[0:3]",
    ]


def test_a_table_has_whole_partitions_in_the_order_of_the_registry() -> None:
    rows = record((2022, 1), 0, "uid1", 31), record((2022, 2), 0, "uid2", 28, path="elsewhere/x")
    table = PartitionTable.of(("year", "month"), columns_of(("year", "month"), *rows), {})
    assert table.keys == ((("year", 2022), ("month", 1)), (("year", 2022), ("month", 2)))
    assert [tuple(each) for each in table.stretches(make_schema().variables["ssh"])] == [
        ("year=2022/month=01/uid1", 0, 31, 31),
        ("elsewhere/x", 0, 28, 28),
    ]
    assert table.sizes == [31, 28]


# Blocks


WIDE = 10 * 20 * 8
"""The bytes of a row of the widest variable of the schema below."""


@cache
def make_schema() -> Schema:
    """One wide variable, a narrow one, the axis, and two immutable ones, all with Zarr chunks of their own."""
    template = xr.Dataset(
        {
            "ssh": (("time", "y", "x"), np.zeros((1, 10, 20)), {}, {"chunks": (4, 5, 20)}),
            "flag": (("x", "time"), np.zeros((20, 1), "i1"), {}, {"chunks": (10, 6)}),
            "time": ("time", np.zeros(1, "M8[ns]"), {}, {"chunks": (7,)}),
            "mask": (("y", "x"), np.zeros((10, 20), "i1"), {}, {"chunks": (3, 8)}),
            "depth": ("z", np.zeros(9), {}, {"chunks": (4,)}),
        }
    )
    return schema_from_template(template, axis="time", dimension="time", zarr_format=3)


@pytest.fixture
def schema() -> Schema:
    return make_schema()


@pytest.fixture
def target() -> Iterator[int]:
    """Dask's chunk size: eight rows of the widest variable, two of its Zarr chunks."""
    with dask.config.set({"array.chunk-size": 8 * WIDE}):
        yield 8


def blocks_of(schema: Schema, table: PartitionTable, chunks: Any, names: Any = None) -> dict[str, tuple[int, ...]]:
    return plan_blocks(schema, names or schema.variables, table, chunks)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (make_table(8), (8,)),
        (make_table(3, 3, 3), (6, 3)),
        (make_table(1, 1, 1, 1, 1, 1, 1, 1, 1), (8, 1)),
        (make_table(20), (8, 8, 4)),
        (make_table(2, 20, 3), (2, 8, 8, 4, 3)),
        (make_table(2, 0, 3), (5,)),
        (make_table((30, 5, 30)), (3, 8, 8, 6)),
        (make_table((30, 8, 20)), (8, 4)),
        (make_table((30, 9, 10)), (1,)),
    ],
    ids=str,
)
@pytest.mark.usefixtures("target")
def test_auto_coalesces_small_partitions_and_cuts_large_ones_along_their_zarr_chunks(
    schema: Schema, table: PartitionTable, expected: tuple[int, ...]
) -> None:
    blocks = blocks_of(schema, table, "auto")
    assert blocks["time"] == expected
    assert (blocks["y"], blocks["x"]) == ((10,), (20,))


@pytest.mark.usefixtures("target")
def test_auto_never_cuts_inside_a_zarr_chunk(schema: Schema) -> None:
    with dask.config.set({"array.chunk-size": 6 * WIDE}):
        assert blocks_of(schema, make_table(20), "auto")["time"] == (4,) * 5


def test_auto_cuts_rows_larger_than_a_block_along_their_zarr_chunks(schema: Schema) -> None:
    with dask.config.set({"array.chunk-size": WIDE // 2}):
        blocks = blocks_of(schema, make_table(6), "auto")
    assert (blocks["time"], blocks["y"], blocks["x"]) == ((4, 2), (5, 5), (20,))


@pytest.mark.parametrize("size", ["12800", "12.8 kB", 12800])
def test_the_size_of_blocks_is_configured_as_dask_does(schema: Schema, size: Any) -> None:
    with dask.config.set({"array.chunk-size": size}):
        assert blocks_of(schema, make_table(20), "auto")["time"] == (8, 8, 4)


@pytest.mark.usefixtures("target")
def test_auto_goes_by_the_widest_variable_selected(schema: Schema) -> None:
    table = make_table(20, 20, 20)
    assert blocks_of(schema, table, "auto", ["time"])["time"] == (60,)
    assert blocks_of(schema, table, "auto", ["time", "flag"])["time"] == (60,)
    assert max(blocks_of(schema, table, "auto", ["time", "ssh", "flag"])["time"]) == 8


def test_partition_makes_a_block_of_each_partition_that_has_rows(schema: Schema, target: int) -> None:
    blocks = blocks_of(schema, make_table(3, 0, 100, (31, 2, 9)), "partition")
    assert blocks["time"] == (3, 100, 7)
    assert blocks["y"] == (10,)


def test_an_empty_dict_makes_blocks_of_the_zarr_chunks_of_the_widest(schema: Schema) -> None:
    blocks = blocks_of(schema, make_table(10, 3, (9, 2, 9)), {})
    assert blocks["time"] == (4, 4, 2, 3, 2, 4, 1)
    assert blocks["y"] == (5, 5)
    assert blocks["x"] == (20,)
    assert blocks["z"] == (4, 4, 1)


def test_an_integer_is_the_size_along_every_dimension(schema: Schema) -> None:
    blocks = blocks_of(schema, make_table(10, 3), 6)
    assert blocks == {"time": (6, 6, 1), "y": (6, 4), "x": (6, 6, 6, 2), "z": (6, 3)}


def test_minus_one_is_one_block(schema: Schema) -> None:
    assert blocks_of(schema, make_table(10, 3), -1) == {"time": (13,), "y": (10,), "x": (20,), "z": (9,)}


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ({"time": 6}, {"time": (6, 6, 1), "y": (5, 5), "x": (20,)}),
        ({"x": 7}, {"time": (4, 4, 2, 3), "y": (5, 5), "x": (7, 7, 6)}),
        ({"time": -1, "y": 10}, {"time": (13,), "y": (10,), "x": (20,)}),
        ({"time": (3, 10)}, {"time": (3, 10), "y": (5, 5), "x": (20,)}),
        ({"time": "partition"}, {"time": (10, 3), "y": (5, 5), "x": (20,)}),
        ({"time": "auto"}, {"time": (8, 2, 3), "y": (5, 5), "x": (20,)}),
        ({"time": "auto", "x": 5}, {"time": (8, 2, 3), "y": (5, 5), "x": (5, 5, 5, 5)}),
        ({"time": None}, {"time": (4, 4, 2, 3), "y": (5, 5), "x": (20,)}),
    ],
    ids=str,
)
@pytest.mark.usefixtures("target")
def test_a_dict_says_the_blocks_of_some_dimensions_and_the_others_are_as_stored(
    schema: Schema, chunks: Mapping[str, Any], expected: dict[str, tuple[int, ...]]
) -> None:
    blocks = blocks_of(schema, make_table(10, 3), chunks)
    assert {dim: blocks[dim] for dim in expected} == expected


@pytest.mark.parametrize("chunks", ["automatic", "", 2.5, [5], object])
def test_chunks_that_mean_nothing_are_refused(schema: Schema, chunks: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"chunks=.* is not 'auto', 'partition', a dict, an integer or None"):
        blocks_of(schema, make_table(10), chunks)


@pytest.mark.parametrize(
    "chunks", [{"time": "automatic"}, {"tme": 5}, {"time": (3, 3)}, {"x": 2.5}, {"time": 0}, 0], ids=str
)
def test_block_sizes_that_mean_nothing_are_refused(schema: Schema, chunks: Any) -> None:
    with pytest.raises(InvalidInputError, match="chunks"):
        blocks_of(schema, make_table(10), chunks)


CHUNKS = st.sampled_from(["auto", "partition", {}, 1, 3, -1, {"time": 4}, {"x": 6}, {"y": -1, "time": "partition"}])


@settings(deadline=None, max_examples=150)
@given(
    table=tables(), chunks=CHUNKS, names=st.sets(st.sampled_from(["ssh", "flag", "time", "mask", "depth"]), min_size=1)
)
def test_blocks_add_up_to_the_sizes_of_all_variables(table: PartitionTable, chunks: Any, names: set[str]) -> None:
    schema = make_schema()
    with dask.config.set({"array.chunk-size": 3 * WIDE}):
        blocks = plan_blocks(schema, names, table, chunks)
    rows = sum(table.sizes)
    assert set(blocks) == {dim for name in names for dim in schema.variables[name].dims}
    for name in names:
        variable = schema.variables[name]
        assert tuple(sum(blocks[dim]) for dim in variable.dims) == variable.shape(rows)
        da.zeros(variable.shape(rows), chunks=tuple(blocks[dim] for dim in variable.dims))  # dask accepts them
    if rows:
        assert all(size > 0 for sizes in blocks.values() for size in sizes)


@pytest.mark.parametrize("chunks", ["auto", "partition", {}, 5, -1, {"time": 3}], ids=str)
@pytest.mark.parametrize(
    "table", [make_table(), make_table(0), make_table((9, 4, 4), 0)], ids=["none", "empty", "cropped"]
)
def test_without_rows_there_is_one_block_of_none(schema: Schema, table: PartitionTable, chunks: Any) -> None:
    blocks = blocks_of(schema, table, chunks)
    assert blocks["time"] == (0,)
    assert sum(blocks["x"]) == 20
    assert len(table.slice_rows(0, 0)) == 0


@pytest.mark.parametrize("chunks", ["auto", "partition"])
def test_immutable_variables_are_whole_where_they_fit(schema: Schema, chunks: Any, target: int) -> None:
    assert blocks_of(schema, make_table(5), chunks, ["mask"]) == {"y": (10,), "x": (20,)}


def test_immutable_variables_share_the_blocks_of_the_others(schema: Schema) -> None:
    alone = blocks_of(schema, make_table(5), {}, ["mask"])
    assert alone == {"y": (3, 3, 3, 1), "x": (8, 8, 4)}
    assert blocks_of(schema, make_table(5), {}, ["mask", "ssh"])["y"] == (5, 5)


def test_a_dimension_of_size_0_has_one_block_of_none() -> None:
    template = xr.Dataset({"ssh": (("time", "x"), np.zeros((1, 0)))})
    schema = schema_from_template(template, axis="time", dimension="time", zarr_format=3)
    chunks: Any
    for chunks in ("auto", "partition", {}, 5, -1):
        assert blocks_of(schema, make_table(3), chunks)["x"] == (0,)
