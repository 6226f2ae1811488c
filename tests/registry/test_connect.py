"""Opening a registry: addresses, files that are none, revisions, and what is shown of it."""

import pickle
import shutil
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import sqlalchemy as sa

import registry as registry_package
from registry import (
    InvalidInputError,
    ReadOnlyError,
    Registry,
    RegistryRevisionError,
    RegistryUnavailableError,
    connect,
)
from registry.migrations import HEAD_REVISION
from registry.sql.engine import engine_of, parse_url, reading, writing
from tests.connections import kept_connections
from tests.sql import run_in_file

from .conftest import (
    Sql,
    change,
    create,
    eventually,
    fragment,
    in_processes,
    in_threads,
    intents,
    make_definition,
    meet,
    nobody,
    only_reading,
)


def journal_of(path: Path) -> str:
    ((mode,),) = run_in_file(path, "PRAGMA journal_mode")
    return mode


# Addresses


def test_a_relative_path_is_taken_from_where_the_registry_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    registry = connect("sqlite:///registry.db", create=True)
    monkeypatch.chdir(elsewhere)
    copy = pickle.loads(pickle.dumps(registry))
    assert copy.url == registry.url == f"sqlite:///{tmp_path}/registry.db"
    assert copy.collections() == ()
    assert list(elsewhere.iterdir()) == []


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert connect("sqlite:///~/registry.db", create=True).url == f"sqlite:///{tmp_path}/registry.db"


@pytest.mark.parametrize(
    ("written", "name"),
    [("a b", "a b"), ("é", "é"), ("a#b", "a#b"), ("a&mode=memory", "a&mode=memory"), ("a%3Fb", "a?b")],
)
def test_a_path_may_have_characters_that_mean_something_in_a_url(tmp_path: Path, written: str, name: str) -> None:
    registry = connect(f"sqlite:///{tmp_path}/{written}/registry.db", create=True)
    create(registry)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [record.name for record in connect(registry.url).collections()] == ["made/a"]


def test_env_is_the_url_in_an_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MADE_REGISTRY", f"sqlite:///{tmp_path}/registry.db")
    registry = connect("env:MADE_REGISTRY", create=True)
    monkeypatch.delenv("MADE_REGISTRY")
    assert pickle.loads(pickle.dumps(registry)).url == f"sqlite:///{tmp_path}/registry.db"


@pytest.mark.parametrize("value", [None, ""])
def test_env_without_the_variable_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("MADE_REGISTRY", raising=False)
    if value is not None:
        monkeypatch.setenv("MADE_REGISTRY", value)
    with pytest.raises(InvalidInputError, match=r"'env:MADE_REGISTRY'.* not set"):
        connect("env:MADE_REGISTRY")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match=r"in memory .*'sqlite:///path/to/registry\.db'"):
        connect(url, create=True)


@pytest.mark.parametrize("url", ["", "registry.db", "/data/registry.db", "http://host/db", "postgres_://host/db"])
def test_what_is_not_a_database_url_is_refused_with_examples(url: str) -> None:
    with pytest.raises(InvalidInputError, match=r"not a database URL.*sqlite:///.*postgresql://"):
        connect(url, create=True)


@pytest.mark.parametrize("backend", ["mysql", "oracle"])
def test_another_database_is_refused_by_its_name(backend: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"SQLite or Postgres, not in '{backend}'"):
        connect(f"{backend}://me@host/db")


def test_an_unknown_journal_is_refused_and_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="journal"):
        connect(f"sqlite:///{tmp_path}/registry.db?journal=memory", create=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("query", "match"),
    [
        ("jurnal=delete", r"option 'jurnal', .*did you mean journal\?"),
        ("mode=ro", r"option 'mode', .*there is journal"),
        ("Journal=delete", "option 'Journal'.*journal"),
        ("journal=delete&journal=delete", "option journal 2 times"),
        ("journal=delete&timeout=5", "option 'timeout'"),
        ("journal", "option 'journal' without a value"),
        ("journal=", "option 'journal' without a value"),
        ("=delete", "no option"),
        ("", "no option"),
        ("journal=delete&", "no option"),
    ],
)
def test_an_option_that_there_is_not_is_refused_and_makes_no_file(tmp_path: Path, query: str, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        connect(f"sqlite:///{tmp_path}/registry.db?{query}", create=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rest", ["what?/registry.db", "what?journal=delete/registry.db", "what?a=b/registry.db", "a?"])
def test_a_question_mark_in_a_path_never_leads_to_another_file(tmp_path: Path, rest: str) -> None:
    with pytest.raises(InvalidInputError):
        connect(f"sqlite:///{tmp_path}/{rest}", create=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite://data/registry.db", "sqlite://me:x@host/registry.db", "sqlite://h:1/a.db"])
def test_a_host_before_the_path_of_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match=r"has a host.*'sqlite:///data/registry\.db'"):
        connect(url, create=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("query", "match"),
    [
        ("aplication_name=x", r"option 'aplication_name', .*did you mean application_name"),
        ("sslmode=require&ssl_mode=require", r"did you mean sslmode"),
        ("sslmode", "'sslmode' without a value"),
        ("sslmode=a&sslmode=b", "sslmode 2 times"),
    ],
)
@pytest.mark.parametrize("user", ["", "me@", "me:a?b@"])
def test_an_option_that_libpq_does_not_know_is_refused(user: str, query: str, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        Registry(f"postgresql://{user}host/db?{query}")


@pytest.mark.parametrize(
    "rest",
    [
        "host/db",
        "host/db?sslmode=require&connect_timeout=5",
        "/db?host=a:1&host=b:2",
        "/db?service=x&options=-c%20a%3Db",
    ],
)
def test_what_libpq_knows_is_passed_on(rest: str) -> None:
    assert Registry(f"postgresql://{rest}").url.startswith("postgresql://")


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("postgresql://host/db?prepare=often", "prepare='often' is not a number"),
        ("postgresql://host/db?prepare=-1", "prepare='-1' is not a number"),
        ("postgresql+psycopg2://host/db", "by the driver psycopg, not by 'psycopg2'"),
    ],
)
def test_what_cannot_be_told_to_the_driver_is_refused(address: str, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        Registry(address)


def test_without_the_driver_no_name_is_known_to_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "nosuch" in Registry("postgresql://host/db?nosuch=1").url


# Passwords. This one is not spelled in the tests, whose lines are part of a traceback.

PASSWORD = "".join(["hun", "ter2"])


@pytest.mark.parametrize("rest", [":{}@host/db", "@host/db?password={}"])
def test_a_password_is_never_shown(rest: str) -> None:
    registry = Registry(f"postgresql://me{rest.format(PASSWORD)}")
    assert PASSWORD not in f"{registry!r} {registry.url}"
    assert "me" in registry.url
    assert "host/db" in registry.url


def test_a_server_that_does_not_answer_is_unavailable_and_the_password_stays_hidden() -> None:
    with pytest.raises(RegistryUnavailableError, match=r"postgresql://me:\*\*\*@localhost:1/db .*refused") as caught:
        connect(f"postgresql://me:{PASSWORD}@localhost:1/db")
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["postgresql://me:{}@host:port/db", "mysql://me:{}@host/db", "nosuch://me:{}@host/db"])
def test_a_refused_address_is_shown_without_its_password(url: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        connect(url.format(PASSWORD))
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


# Creating


@pytest.mark.parametrize("name", ["registry.db", "missing/registry.db"])
def test_a_url_alone_creates_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(RegistryUnavailableError, match=rf"no registry at sqlite:///{tmp_path}/{name}.*create=True"):
        connect(f"sqlite:///{tmp_path}/{name}")
    with pytest.raises(RegistryUnavailableError, match="unable to open"):
        Registry(f"sqlite:///{tmp_path}/{name}").collections()
    assert list(tmp_path.iterdir()) == []


def test_creating_makes_the_directories_too(tmp_path: Path) -> None:
    assert connect(f"sqlite:///{tmp_path}/a/b/registry.db", create=True).collections() == ()


def test_creating_below_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RegistryUnavailableError, match=r"cannot be created"):
        connect(f"sqlite:///{tmp_path}/file/registry.db", create=True)


def test_creating_what_exists_keeps_it(registry: Registry) -> None:
    create(registry)
    again = connect(registry.url, create=True)
    assert [record.name for record in again.collections()] == ["made/a"]


def create_and_count(*urls: str) -> list[int]:
    counts = []
    for url in urls:
        meet()
        counts.append(len(connect(url, create=True).collections()))
    return counts


@pytest.mark.parametrize("at_once", [in_threads, in_processes])
def test_a_registry_may_be_created_by_several_at_once(tmp_path: Path, at_once: Callable[..., list[list[int]]]) -> None:
    paths = [tmp_path / f"{number}.db" for number in range(8)]
    urls = [f"sqlite:///{path}" for path in paths]
    assert at_once(create_and_count, [urls] * 3) == [[0] * 8] * 3
    assert {journal_of(path) for path in paths} == {"wal"}


def test_creating_waits_for_somebody_who_is_at_it(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other, ThreadPoolExecutor(1) as pool:
        other.execute("BEGIN IMMEDIATE")
        creating = pool.submit(connect, f"sqlite:///{path}", create=True)
        assert not eventually(creating.done, seconds=0.3)
        other.execute("COMMIT")
        assert creating.result().collections() == ()
    assert journal_of(path) == "wal"


def test_threads_may_create_several_registries_at_once(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/{number}.db" for number in range(8)]
    assert in_threads(create_and_count, [(url,) for url in urls]) == [[0]] * 8


@pytest.mark.one_engine("sqlite", "its journal")
def test_the_write_ahead_log_is_set_once_and_for_all(registry: Registry) -> None:
    assert journal_of(Path(str(parse_url(registry.url).database))) == "wal"


def test_an_empty_file_becomes_a_registry_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.touch()  # what a creator leaves that dies early
    assert connect(f"sqlite:///{path}", create=True).collections() == ()
    assert journal_of(path) == "wal"


def test_another_journal_can_be_asked_for_by_the_url(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    registry = connect(f"sqlite:///{path}?journal=delete", create=True)
    create(registry)
    assert journal_of(path) == "delete"
    assert [file.name for file in tmp_path.iterdir()] == ["registry.db"]
    assert [record.name for record in connect(f"sqlite:///{path}?journal=delete").collections()] == ["made/a"]


# What is not a registry


@pytest.mark.parametrize("create", [False, True])
def test_a_file_that_is_no_database_is_unavailable_and_left_alone(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"netCDF, perhaps" * 100)
    with pytest.raises(RegistryUnavailableError, match=rf"sqlite:///{path} cannot be used: file is not a database"):
        connect(f"sqlite:///{path}", create=create)
    assert path.read_bytes() == b"netCDF, perhaps" * 100


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells open files by Linux's /proc")
def test_a_file_that_is_no_database_is_closed_again(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"netCDF, perhaps" * 100)
    with pytest.raises(RegistryUnavailableError) as caught:
        connect(f"sqlite:///{path}")
    opened = [file.readlink() for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    assert path not in opened
    del caught  # until here it would have kept a forgotten connection open


@pytest.mark.parametrize("create", [False, True])
def test_a_directory_is_unavailable(tmp_path: Path, create: bool) -> None:
    with pytest.raises(RegistryUnavailableError, match=str(tmp_path)):
        connect(f"sqlite:///{tmp_path}", create=create)


def test_a_database_of_something_else_is_no_registry_until_one_is_created_in_it(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    run_in_file(path, "CREATE TABLE measurement (value REAL)")
    with pytest.raises(RegistryUnavailableError, match=r"has no registry; create it with .*create=True"):
        connect(f"sqlite:///{path}")
    assert run_in_file(path, "SELECT name FROM sqlite_master") == [("measurement",)]
    assert connect(f"sqlite:///{path}", create=True).collections() == ()
    assert run_in_file(path, "SELECT * FROM measurement") == []


# Revisions


@pytest.mark.parametrize("revision", ["0000", "9999"])
def test_a_registry_of_another_revision_is_refused_with_both_remedies(
    registry: Registry, sql: Sql, revision: str
) -> None:
    sql("UPDATE alembic_version SET version_num = ?", revision)
    with pytest.raises(RegistryRevisionError, match=rf"{revision} .*{HEAD_REVISION}.*create=True.*upgrade "):
        connect(registry.url)


def test_a_newer_registry_is_not_downgraded(registry: Registry, sql: Sql) -> None:
    sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(RegistryRevisionError, match="9999"):
        connect(registry.url, create=True)
    assert sql("SELECT * FROM alembic_version") == [("9999",)]


def test_nothing_is_written_to_a_registry_that_was_upgraded_meanwhile(
    registry: Registry, sql: Sql, visible: Callable[[], object]
) -> None:
    collection = create(registry)
    before = visible()
    writes = fragment(2022, 1)
    with registry.begin() as transaction:
        transaction.stage(collection, intents(writes))
        sql("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(RegistryRevisionError, match="9999"):
            transaction.commit([change(collection, writes)])
    assert visible() == before
    assert sql('SELECT state FROM "transaction" WHERE uid = ?', transaction.uid) == [("aborted",)]


def test_nothing_is_begun_or_created_in_a_registry_that_was_upgraded_meanwhile(registry: Registry, sql: Sql) -> None:
    sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(RegistryRevisionError), registry.begin():
        pass
    with pytest.raises(RegistryRevisionError), registry.creating(make_definition()):
        pass
    assert sql('SELECT * FROM "transaction"') == sql("SELECT * FROM collection") == []


# Connections


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as Python can, which shows what is not safe between them."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.one_engine("sqlite", "its pragmas")
def test_connections_are_durable_check_foreign_keys_and_wait_for_locks(registry: Registry) -> None:
    with reading(parse_url(registry.url)) as connection:
        pragmas = ("synchronous", "foreign_keys", "busy_timeout")
        values = [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in pragmas]
    assert values == [2, 1, 60_000]


@pytest.mark.one_engine("sqlite", "one writer at a time")
def test_a_writer_takes_its_lock_at_the_beginning_and_a_reader_none(registry: Registry) -> None:
    url = parse_url(registry.url)
    with closing(sqlite3.connect(str(url.database), isolation_level=None, timeout=0)) as impatient:
        with writing(url), pytest.raises(sqlite3.OperationalError, match="locked"):
            impatient.execute("BEGIN IMMEDIATE")
        with reading(url) as connection:
            connection.execute(sa.text("SELECT * FROM collection"))
            impatient.execute("BEGIN IMMEDIATE")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that everybody may read; unlike pytest's, all directories above it, too."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def names_read(directory: Path, url: str) -> list[str]:
    with only_reading(directory):
        return [record.name for record in connect(url).collections()]


@pytest.mark.parametrize("in_use", [True, False])
@pytest.mark.parametrize("options", ["", "?journal=delete"])
def test_who_may_not_write_the_directory_reads_all_the_same(open_directory: Path, options: str, in_use: bool) -> None:
    url = f"sqlite:///{open_directory}/registry.db{options}"
    with connect(url, create=True) as registry:
        create(registry)
        if not in_use:
            registry.close()
        assert in_processes(names_read, [(open_directory, url)]) == [["made/a"]]


def test_what_was_committed_last_in_a_log_that_cannot_be_read_is_not_left_out(open_directory: Path) -> None:
    url = f"sqlite:///{open_directory}/registry.db"
    with connect(url, create=True) as registry:
        create(registry)
        copied = open_directory / "copied"
        copied.mkdir()
        for name in ("registry.db", "registry.db-wal"):
            shutil.copy(open_directory / name, copied / name)
    with pytest.raises(
        RegistryUnavailableError, match=r"registry\.db-wal, .* without its -shm.* open the registry once"
    ):
        in_processes(names_read, [(copied, f"sqlite:///{copied}/registry.db")])


def test_a_commit_that_a_killed_writer_left_half_done_is_not_read_by_who_cannot_undo_it(open_directory: Path) -> None:
    url = f"sqlite:///{open_directory}/registry.db?journal=delete"
    killed = open_directory / "killed"
    killed.mkdir()
    with connect(url, create=True), writing(parse_url(url)) as connection:
        connection.exec_driver_sql("PRAGMA cache_size=1")  # more than that is written to the file before the commit
        many = [(f"{number:01000}",) for number in range(100)]
        connection.exec_driver_sql("INSERT INTO namespace (name) VALUES (?)", many)
        for name in ("registry.db", "registry.db-journal"):
            shutil.copy(open_directory / name, killed / name)
    with pytest.raises(RegistryUnavailableError, match=r"in the middle of a commit.* open the registry once"):
        in_processes(names_read, [(killed, f"sqlite:///{killed}/registry.db")])


def files_after_a_read(directory: Path, url: str) -> list[str]:
    directory.chmod(0o777)  # as that of temporary files
    (directory / "registry.db").chmod(0o444)
    with nobody():
        assert [record.name for record in connect(url).collections()] == ["made/a"]
        with pytest.raises(ReadOnlyError, match="right to write"):
            create(connect(url), "made/b")
        return [path.name for path in directory.iterdir()]


def test_who_may_write_the_directory_and_not_the_file_leaves_nothing_that_its_owner_could_not_write(
    open_directory: Path,
) -> None:
    url = f"sqlite:///{open_directory}/registry.db"
    with connect(url, create=True) as registry:
        create(registry)
    assert in_processes(files_after_a_read, [(open_directory, url)]) == [["registry.db"]]


def write_during_a_read(directory: Path, url: str) -> str:
    path = directory / "registry.db"
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as writer, ExitStack() as stack:
        writer.execute("SELECT * FROM collection")  # which opens the file while it may be written
        with only_reading(directory):
            stack.enter_context(reading(parse_url(url))).execute(sa.text("SELECT * FROM collection"))
        try:
            writer.execute("UPDATE collection SET name = 'z'")
        except sqlite3.OperationalError as error:
            return str(error)
    return "written"


def test_without_a_write_ahead_log_who_only_reads_holds_writers_off_too(open_directory: Path) -> None:
    url = f"sqlite:///{open_directory}/registry.db?journal=delete"
    with connect(url, create=True) as registry:
        create(registry)
    assert in_processes(write_during_a_read, [(open_directory, url)]) == ["database is locked"]


def test_threads_share_one_engine_from_the_beginning(registry: Registry, switching: None) -> None:
    for _ in range(50):
        registry.close()
        engines = in_threads(engine_of, [(parse_url(registry.url),)] * 8)
        assert len(set(map(id, engines))) == 1


def test_a_connection_that_a_test_keeps_is_noticed_once(registry: Registry) -> None:
    with reading(registry._url):
        (told,) = kept_connections(patience=0)
        assert "Current Checked out connections: 1" in told
        assert kept_connections(patience=0) == []


def test_a_closed_registry_opens_again(registry: Registry) -> None:
    create(registry)
    registry.close()
    with registry:
        assert len(registry.collections()) == 1
    assert len(registry.collections()) == 1


def test_a_registry_made_in_the_place_of_another_is_seen_by_those_who_had_that_open(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/registry.db"
    with connect(url, create=True) as registry:
        create(registry, "made/old")
        for file in tmp_path.iterdir():
            file.unlink()
        create(connect(url, create=True), "made/new")
        assert [record.name for record in registry.collections()] == ["made/new"]


def test_a_registry_in_use_can_be_pickled_and_used_by_another_process(registry: Registry) -> None:
    create(registry)
    assert in_processes(Registry.collections, [(registry,)]) == [registry.collections()]


# What is shown


def test_repr_is_the_address(sqlite_url: str) -> None:
    with connect(sqlite_url) as registry:
        assert repr(registry) == f"<Registry {sqlite_url}>"


def test_notebooks_show_the_collections_and_no_foreign_markup(registry: Registry) -> None:
    create(registry, description="<script>sea & ice</script>", location="/data/<b>")
    html = registry._repr_html_()
    assert "<td>made/a</td><td>0</td><td>/data/&lt;b&gt;</td>" in html
    assert "&lt;script&gt;sea &amp; ice&lt;/script&gt;" in html
    assert registry.url in html


def test_the_package_exports_what_it_lists() -> None:
    assert all(hasattr(registry_package, name) for name in registry_package.__all__)
