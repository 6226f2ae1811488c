"""The partition table against numpy's concatenation, and the blocks that a dataset is cut into."""

import itertools
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
from intake_zcollection.reading.table import (
    Fragment,
    PartitionTable,
    Piece,
    partition_piece,
    partition_table,
    split_table,
)
from intake_zcollection.schema import Schema
from intake_zcollection.schema.template import schema_from_template
from registry import FragmentRecord, PartitionRecord


def make_table(*pieces: tuple[int, int, int] | int) -> PartitionTable:
    """A table of pieces ``(rows, start, stop)``, or of whole partitions with so many rows."""
    whole = [piece if isinstance(piece, tuple) else (piece, 0, piece) for piece in pieces]
    return PartitionTable(
        tuple((("k", i),) for i in range(len(whole))),
        tuple(Piece((Fragment(f"k={i}/uid", 0, 0),), *piece, (0, 9)) for i, piece in enumerate(whole)),
    )


def rows_of(pieces: tuple[Piece, ...]) -> list[tuple[str, int]]:
    """Which rows of which fragments, one by one."""
    return [(piece.fragments[0].path, row) for piece in pieces for row in range(piece.start, piece.stop)]


@st.composite
def tables(draw: st.DrawFn) -> PartitionTable:
    """Tables of up to six pieces, some of them cropped, some of them empty."""
    pieces = []
    for rows in draw(st.lists(st.integers(0, 7), max_size=6)):
        start, stop = sorted(draw(st.tuples(st.integers(0, rows), st.integers(0, rows))))
        pieces.append((rows, start, stop))
    return make_table(*pieces)


# Pieces


@given(table=tables(), data=st.data())
def test_the_pieces_of_a_range_are_its_rows_of_the_concatenation(table: PartitionTable, data: st.DataObject) -> None:
    everything = rows_of(table.pieces)
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(everything))] * 2)))
    pieces = table.pieces_of(start, stop)
    assert rows_of(pieces) == everything[start:stop]
    assert all(len(piece) for piece in pieces)
    assert {piece.fragments: piece.rows for piece in pieces}.items() <= {
        p.fragments: p.rows for p in table.pieces
    }.items()


@given(table=tables(), data=st.data())
def test_a_split_table_has_the_rows_of_each_block(table: PartitionTable, data: st.DataObject) -> None:
    everything = rows_of(table.pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(everything)), max_size=5)))
    edges = [0, *cuts, len(everything)]
    blocks = split_table(table, np.diff(edges).tolist())
    assert [rows_of(pieces) for pieces in blocks] == [everything[a:b] for a, b in itertools.pairwise(edges)]
    assert all(len(piece) for pieces in blocks for piece in pieces)


@given(table=tables(), data=st.data())
def test_a_split_table_has_the_pieces_of_each_range(table: PartitionTable, data: st.DataObject) -> None:
    total = sum(table.sizes)
    size = data.draw(st.integers(1, total + 1))
    starts = range(0, total, size)
    blocks = split_table(table, [min(size, total - start) for start in starts])
    expected = [table.pieces_of(start, start + size) for start in starts]
    assert [rows_of(pieces) for pieces in blocks] == [rows_of(pieces) for pieces in expected]
    assert [len(pieces) for pieces in blocks] == [len(pieces) for pieces in expected]


def test_a_piece_is_cut_relative_to_itself() -> None:
    fragments = (Fragment("p", 7, 7),)
    piece = Piece(fragments, 100, 20, 50, (0, 9)).cut(5, 10)
    assert (piece.fragments, piece.rows, piece.start, piece.stop, len(piece)) == (fragments, 100, 25, 30, 5)


def test_a_variable_is_read_from_the_newest_fragment_that_holds_it() -> None:
    def partition(*layers: tuple[int, int]) -> PartitionRecord:
        fragments = (FragmentRecord((1,), id_, f"u{id_}", 5, 0, 0, 1, v, v, 2, None) for id_, v in layers)
        return PartitionRecord((("k", 1),), tuple(fragments))

    old, new = (replace(make_schema().variables["ssh"], id=7, begin_version=version) for version in (2, 3))
    layers = {1: frozenset({7}), 2: frozenset({7, 8}), 3: frozenset({8})}
    paths = [
        partition_piece(partition(*written), layers).path_of(variable)
        for variable, written in [
            (old, [(0, 2)]),
            (new, [(0, 2)]),  # added after the rows were written
            (new, [(0, 2), (1, 3)]),
            (old, [(0, 2), (1, 4), (2, 3), (3, 9)]),
            (old, [(0, 5), (1, 5)]),  # written together
        ]
    ]
    assert paths == ["k=1/u0", None, "k=1/u1", "k=1/u1", "k=1/u1"]


def test_a_table_prints_what_is_read_of_each_partition() -> None:
    table = PartitionTable(
        ((("year", 2022),), (("year", 2023),)),
        tuple(
            Piece((Fragment(path, 0, 0),), rows, start, stop, (0, 9))
            for path, rows, start, stop in [("year=2022/a", 10, 4, 10), ("year=2023/b", 3, 0, 3)]
        ),
    )
    assert str(table).splitlines() == [
        "year=2022  4:10 of 10 rows  year=2022/a",
        "year=2023  0:3 of 3 rows  year=2023/b",
    ]


def test_a_table_has_whole_partitions_in_the_order_of_the_registry() -> None:
    def partition(month: int, rows: int, path: str | None) -> PartitionRecord:
        fragment = FragmentRecord((2022, month), 0, f"uid{month}", rows, 0, 0, 1, 1, 1, 0, path)
        return PartitionRecord((("year", 2022), ("month", month)), (fragment,))

    table = partition_table([partition(1, 31, None), partition(2, 28, "elsewhere/x")], {})
    assert table.keys == ((("year", 2022), ("month", 1)), (("year", 2022), ("month", 2)))
    assert [(p.fragments[0].path, p.rows, p.start, p.stop) for p in table.pieces] == [
        ("year=2022/month=01/uid1", 31, 0, 31),
        ("elsewhere/x", 28, 0, 28),
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
    assert split_table(table, blocks["time"]) == [()]


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
