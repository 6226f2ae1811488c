"""A range of keys on Postgres: where it is little of a large table, the planner has to know, to look it up."""

from collections.abc import Iterator

import pytest
from sqlalchemy.dialects import postgresql

import registry as zregistry
from registry import Registry, Selection, pad_key
from registry.sql.fragments import fragments_query
from tests.conftest import Copies
from tests.sql import run_sql

from .conftest import create

YEARS = 500
FILL = f"""
INSERT INTO fragment (
  collection_id, k0, k1, k2, k3, k4, k5, axis_min, layer_id, begin_version, written_version, schema_version, group_uid,
  start, rows, group_rows, packed, nbytes, axis_max, axis_unique, transaction_id
)
SELECT 1, 1600 + n / 100, n % 100, 0, 0, 0, 0, n, 0, 0, 0, 0, md5(n::text), 0, 30, 30, FALSE, 4000, n, TRUE, 1
FROM generate_series(0, {100 * YEARS - 1}) n
"""


@pytest.fixture(scope="module")
def registry(postgres_copies: Copies) -> Iterator[Registry]:
    """A collection of 50,000 partitions, a hundred a year."""
    with postgres_copies() as url, zregistry.connect(url) as registry:
        create(registry)
        for statement in (FILL, "ANALYZE fragment"):
            run_sql(registry, statement)
        yield registry


@pytest.mark.parametrize(
    ("first", "last", "count"),
    [((1700, 5), (1702, 9), 205), ((1700, 5), (1700, 9), 5), (None, (1601, 0), 101), ((2098, 50), None, 150)],
)
def test_postgres_knows_how_little_a_range_of_keys_is(
    registry: Registry, first: tuple[int, ...] | None, last: tuple[int, ...] | None, count: int
) -> None:
    limits = first and pad_key(first), last and pad_key(last)
    query = fragments_query(registry.collection("made/a"), 0, Selection(key_range=limits))
    text = str(query.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}))
    assert len(run_sql(registry, text)) == count
    (((plan,),),) = run_sql(registry, f"EXPLAIN (FORMAT JSON) {text}")
    assert plan["Plan"]["Plan Rows"] < 1000  # of 50,000; of two comparisons of rows it guesses a quarter of them
