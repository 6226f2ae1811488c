"""Who writes: every write records its author, the login that the database knows, and a message."""

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from sqlalchemy.engine import make_url

import intake_zcollection as izc
from registry.sql.engine import reading
from registry.transaction import system_login
from tests.conftest import make_grid
from tests.postgres import PostgresServer, run_sql
from tests.verbs import MORE, VIEW_WRITING, WRITING, view_over

TEMPLATE = xr.Dataset(
    {"level": ("time", [1.0, 2.0])},
    {"time": np.array(["2022-01-01", "2022-02-01"], "M8[ns]"), "gauge": ("place", [1, 2])},
    {"title": "levels"},
)


@pytest.fixture
def login(registry: izc.Registry) -> str:
    """Who runs the tests, as the server or the operating system knows them."""
    return registry._url.username or getpass.getuser()


@pytest.fixture
def collection(make_collection: Callable[..., izc.Collection]) -> izc.Collection:
    """A partition of two parts."""
    made = make_collection(MORE)
    made.insert(make_grid(days=2))
    made.insert(make_grid("2022-01-11", days=2))
    return made


each_write = pytest.mark.parametrize("verb", WRITING)


@each_write
def test_a_write_records_author_login_and_message(collection: izc.Collection, login: str, verb: str) -> None:
    version = WRITING[verb](collection, author="nightly job", message="of the new gauge")
    assert version == collection.version
    assert (version.operation, version.author, version.login) == (verb, "nightly job", login)
    what = {
        "add_statistics": "count: ",
        "add_variable": "added: ",
        "rename_variable": "ice → snow: ",
        "drop_variable": "quality: ",
    }
    assert version.message == what.get(verb, "") + "of the new gauge"


@pytest.mark.parametrize("verb", VIEW_WRITING)
def test_a_write_of_a_view_records_author_login_and_message(collection: izc.Collection, login: str, verb: str) -> None:
    view = view_over(collection)
    before = view.version.number
    VIEW_WRITING[verb](view, author="nightly job", message="of the new gauge")
    version = view.version
    assert (version.number, collection.version.number) == (before + 1, 2)
    assert (version.operation, version.author, version.login) == (verb, "nightly job", login)
    assert version.message.endswith("of the new gauge")


@each_write
@pytest.mark.parametrize("author", ["", " ", 5, b"me", "n\0o", "\ud800"], ids=ascii)
def test_what_is_no_author_is_refused_before_anything_is_written(
    collection: izc.Collection, verb: str, author: Any
) -> None:
    before = collection.version
    with pytest.raises(izc.InvalidInputError, match=r"author=.* is not a name"):
        WRITING[verb](collection, author=author)
    assert collection.version == before


@pytest.mark.parametrize("message", [None, 5, "n\0o", "\udcff"], ids=ascii)
def test_what_no_database_keeps_as_a_message_is_refused(collection: izc.Collection, message: Any) -> None:
    with pytest.raises(izc.InvalidInputError, match=r"message=.* is not text"):
        collection.set_attributes({"title": "x"}, message=message)


def test_who_does_not_say_who_they_are_is_who_the_environment_says_or_the_login(
    collection: izc.Collection, login: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    authors = []
    for name in (None, "nightly", "", " "):
        if name is not None:
            monkeypatch.setenv("ZC_AUTHOR", name)
        authors.append(collection.set_attributes({"title": f"by {name}"}).author)
    assert authors == [login, "nightly", login, login]
    monkeypatch.setenv("ZC_AUTHOR", "nightly")
    made = collection.set_attributes({"title": "last"}, author="the lead")
    assert (made.author, made.login) == ("the lead", login)


def test_an_author_in_the_environment_that_is_no_text_is_refused_by_its_name(
    collection: izc.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = collection.version
    monkeypatch.setenv("ZC_AUTHOR", "\udcff")  # so Python has the bytes that are not UTF-8
    with pytest.raises(izc.InvalidInputError, match=r"ZC_AUTHOR='\\udcff' in the environment is not a name"):
        collection.insert(MORE)
    assert collection.version == before


def test_a_login_that_is_no_text_is_recorded_as_far_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "g\udce9rard")
    system_login.cache_clear()
    try:
        assert system_login() == "g?rard"
    finally:
        system_login.cache_clear()


def test_collections_are_created_copied_renamed_and_dropped_by_somebody(registry: izc.Registry, tmp_path: Path) -> None:
    options: Any = {"axis": "time", "partitioning": izc.Date("time", "M"), "location": f"{tmp_path}/a"}
    made = izc.create_collection(registry, "made/a", TEMPLATE, **options, author="a founder", message="of all gauges")
    assert (made.version.author, made.version.message) == ("a founder", "of all gauges")
    made.insert(TEMPLATE)
    copied = made.copy("made/b", f"{tmp_path}/b", author="a guest", message="for a talk")
    told = ("a guest", "copy of made/a, version 1: for a talk")
    assert [(each.author, each.message) for each in copied.versions()] == [told, told]
    izc.rename_collection(registry, "made/b", "made/c", author="an editor", message="a better name")
    izc.drop_collection(registry, "made/c", author="a cleaner")
    assert transactions(registry)[-2:] == [("an editor", "a better name"), ("a cleaner", "drop made/c")]


def transactions(registry: izc.Registry) -> list[tuple[str, str]]:
    """Author and message of each transaction, in their order."""
    with reading(registry._url) as connection:
        rows = connection.exec_driver_sql('SELECT author, message FROM "transaction" ORDER BY id')
        return [(row.author, row.message) for row in rows]


def test_on_postgres_the_login_is_the_user_of_the_session_whatever_its_role(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(postgres_url)
    for statement in ("CREATE ROLE writers", "CREATE ROLE anna LOGIN PASSWORD 'x' IN ROLE writers"):
        run_sql(postgres.url, statement)
    try:
        for statement in (
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO writers",
            "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO writers",
            "ALTER ROLE anna SET role = writers",
        ):
            run_sql(url, statement)
        theirs = url.set(username="anna", password="x").render_as_string(hide_password=False)
        with izc.connect(theirs) as registry:
            options: Any = {"axis": "time", "partitioning": izc.Date("time", "M"), "location": f"{tmp_path}/a"}
            collection = izc.create_collection(registry, "made/a", TEMPLATE, **options)
            made = [collection.version, collection.insert(TEMPLATE), collection.set_attributes({"title": "x"})]
            assert [(each.author, each.login) for each in made] == [("anna", "anna")] * 3
            monkeypatch.setenv("ZC_AUTHOR", "nightly")
            made = [collection.update(lambda rows: {"level": rows.level}), collection.version]
            assert [(each.author, each.login) for each in made] == [("nightly", "anna")] * 2
    finally:
        run_sql(url, "DROP OWNED BY anna, writers")
        run_sql(postgres.url, "DROP ROLE anna, writers")
