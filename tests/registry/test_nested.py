"""Two creations at once, of which one lies inside the other: one of them is refused, whoever comes first."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from registry import AlreadyExistsError, Registry
from tests.conftest import both_engines
from tests.postgres import connect

from .conftest import Sql, eventually, in_processes, in_threads, make_definition, meet

PLACES = [("made/outer", "/data/a"), ("made/inner", "/data/a/b")]


def create_at(registry: Registry, name: str, location: str) -> str:
    """Create a collection, but not before others have claimed their locations too, or were refused."""
    with ExitStack() as stack:
        try:
            creation = stack.enter_context(registry.creating(make_definition(name, location=location)))
        except AlreadyExistsError as error:
            meet()
            return str(error)
        meet()
        return creation.record().name


def assert_one_is_there(registry: Registry, answers: list[str]) -> None:
    (made,) = registry.collections()
    assert made.name in answers
    (refused,) = set(answers) - {made.name}
    assert f"is at work in {made.location} since" in refused


@both_engines
@pytest.mark.parametrize("at_once", [in_threads, in_processes])
def test_of_two_nested_creations_one_is_refused_while_the_other_is_at_work(
    registry: Registry, at_once: Callable[..., list[str]]
) -> None:
    assert_one_is_there(registry, at_once(create_at, [(registry, *place) for place in PLACES]))


@pytest.mark.one_engine("postgres", "in SQLite, no two have begun to write")
def test_of_two_nested_creations_that_have_begun_and_claimed_nothing_one_is_refused(
    registry: Registry, sql: Sql
) -> None:
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as pool, connect(registry._url) as other:
        with other.transaction():
            other.execute("LOCK TABLE claim")
            creating = pool.submit(in_threads, create_at, [(registry, *place) for place in PLACES])
            assert eventually(lambda: len(sql(waiting)) == 2)
        assert_one_is_there(registry, creating.result())
