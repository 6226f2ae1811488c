"""The documentation is a contract: what README.md and docs/ show runs, what they name exists."""

import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import intake
import numpy as np
import pytest
import yaml
from click import Group
from click.testing import CliRunner
from sqlalchemy.engine import make_url

import intake_zcollection
import registry
from intake_zcollection.cli import main
from intake_zcollection.drivers.source import ZCollectionSource
from tests.conftest import both_engines
from tests.ftp import FTPServer
from tests.postgres import PostgresServer, run_sql
from tests.processes import start_fork_server
from tests.s3 import SECRET, S3Server

ROOT = Path(__file__).parents[1]

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

CATALOGS = sorted((ROOT / "catalogs").glob("*.y*ml"))

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

README = (ROOT / "README.md").read_text()


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    code: str
    line: int
    """Of the code's first line in its file."""
    prints: str | None
    """What the comment after it says that it prints; … stands for anything."""


def blocks_of(text: str) -> Iterator[Block]:
    """The fenced blocks of a document, in their order."""
    fences = re.finditer(r"^```(\w*)\n(.*?)^```$(?:\n<!-- prints (.*?) -->)?", text, re.MULTILINE | re.DOTALL)
    for fence in fences:
        yield Block(fence[1], fence[2], text.count("\n", 0, fence.start()) + 2, fence[3])


def commands() -> list[str]:
    """The README's shell commands."""
    return [block.code.strip() for block in blocks_of(README) if block.language in ("console", "bash", "sh")]


def registry_url(text: str) -> str:
    """The registry that a document creates, which its catalogs then find in the environment."""
    created = re.search(r'connect\("([^"]+)", create=True\)', text)
    return created[1] if created else ""


# What is shown runs


@pytest.fixture
def text(document: Path, engine: str, request: pytest.FixtureRequest) -> str:
    """A document; for Postgres, with a registry there in place of the file that it makes, and a bucket of its own."""
    text = document.read_text()
    if engine == "sqlite":
        return text
    if not (created := registry_url(text)):
        pytest.skip("it creates no registry")
    file = re.escape(created.removeprefix("sqlite:///"))
    text = re.sub(rf"(sqlite:///)?\b{file}\b", request.getfixturevalue("postgres_url"), text)
    return text.replace("s3://ocean", "s3://ocean-2")  # the server is the same one


@pytest.fixture
def environment(text: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a document's reader has in the environment: the registry's URL, and servers of S3 and FTP if it has some."""
    monkeypatch.setenv("ZC_REGISTRY", registry_url(text))
    if "S3_ENDPOINT" in text:
        server: S3Server = request.getfixturevalue("s3")
        server.client.create_bucket(Bucket=re.findall(r"s3://([\w-]+)", text)[0])
        for name, value in (("ENDPOINT", server.endpoint_url), ("KEY", "testing"), ("SECRET", SECRET)):
            monkeypatch.setenv(f"S3_{name}", value)
    if "FTP_URL" in text:
        ftp: FTPServer = request.getfixturevalue("ftp")
        monkeypatch.setenv("FTP_URL", ftp.fresh_url())
        monkeypatch.setenv("FTP_PASSWORD", ftp.storage_options["password"])
    if "LocalCluster" in text:
        start_fork_server()  # before distributed does, with less
    if "OWNER_URL" in text:
        request.getfixturevalue("people_of_postgres")


@pytest.fixture
def people_of_postgres(postgres: PostgresServer, document: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A database of Postgres, by the addresses of its owner and of those to whom a document gives an account."""
    text = document.read_text()
    with postgres.database() as address:
        url = make_url(address)
        monkeypatch.setenv("OWNER_URL", address)
        accounts = re.findall(r"CREATE ROLE (\w+) LOGIN PASSWORD '(\w[^']*)' IN ROLE ocean_(\w+)s;", text)
        for name, password, kind in accounts:
            account = url.set(username=name, password=password).render_as_string(hide_password=False)
            monkeypatch.setenv(f"{kind.upper()}_URL", account)
        yield
        for role in re.findall(r"^CREATE ROLE (\w+)", text, re.MULTILINE):
            run_sql(url, f"DROP OWNED BY {role}")
            run_sql(url, f"DROP ROLE {role}")


def run_commands(lines: str) -> None:
    """Run what a console is told, line by line, and print what it says."""
    for line in lines.splitlines():
        result = CliRunner().invoke(main, shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
        print(result.output)


@both_engines
@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_python_blocks_of_a_document_run_in_order(
    document: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    waiting = ""  # YAML, for the file that the next Python block opens
    for block in blocks_of(text):
        if block.language == "yaml":
            waiting = block.code
        if block.language == "console" and block.code.startswith("zregistry"):
            run_commands(block.code)
        elif block.language == "sql":
            run_sql(make_url(os.environ["OWNER_URL"]), block.code)
        elif module := re.match(r"# (\w+)\.py\n", block.code):  # for the blocks after it to import
            Path(f"{module[1]}.py").write_text(block.code)
            sys.modules.pop(module[1], None)  # another document's, or that of the other engine
            importlib.invalidate_caches()
            continue
        elif block.language != "python":
            continue
        if waiting:
            (name,) = re.findall(r'open_catalog\("([^"]+)"\)', block.code)
            Path(name).write_text(waiting)
            waiting = ""
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.code, str(document), "exec"), namespace)
        printed = capsys.readouterr().out
        if block.prints is not None:
            shape = ".*".join(re.escape(part.strip()) for part in block.prints.split("…"))
            assert re.fullmatch(shape, printed.strip(), re.DOTALL if block.language == "console" else 0), (
                block.prints,
                printed,
            )
    assert not waiting, "a YAML block is opened by no Python block after it"


def test_the_readme_has_blocks_of_each_kind() -> None:
    languages = [block.language for block in blocks_of(README)]

    assert languages.count("python") >= 3
    assert {"python", "yaml", "console"} == set(languages)
    assert README.count("```") == 2 * len(languages)


def test_what_the_readme_shows_is_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(block for block in blocks_of(README) if block.language == "python")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}

    exec(first.code, names)

    assert [version.message for version in names["collection"].versions()][1:] == [
        str(day)[:10] for day in np.unique(names["hours"].astype("M8[D]"))
    ]
    assert names["dataset"].time.values[[0, -1]].astype("M8[D]").astype(str).tolist() == ["2022-01-20", "2022-02-28"]
    assert names["january"].equals(names["data"].sel(time="2022-01"))
    assert [(part.rows, part.parts) for part in names["collection"].partitions()] == [(31 * 24, 31), (28 * 24, 28)]


def test_the_first_python_block_fits_a_glance() -> None:
    first = next(block for block in blocks_of(README) if block.language == "python")

    assert len(first.code.splitlines()) <= 16


def test_the_paths_that_the_readme_shows_have_the_form_of_real_ones() -> None:
    assert re.search(r"ssh/year=2022/month=01/[0-9a-f]{4}…[0-9a-f]{4}/", README)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_local_links_of_a_document_lead_to_files(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())

    assert [target for target in targets if not (document.parent / target).exists()] == []


# Commands


def test_the_readme_has_two_commands() -> None:
    assert len(commands()) == 2


def test_the_continuous_integration_runs_the_readmes_test_command_word_for_word() -> None:
    (command,) = [command for command in commands() if "pytest" in command]

    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_continuous_integration_can_be_executed() -> None:
    script = ROOT / ".ci" / "run"

    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


def test_the_extras_that_the_readme_installs_are_declared() -> None:
    extras = re.findall(r"\.\[(\w+)\]", "\n".join(commands()))

    assert sorted(extras) == ["demo", "test"]
    assert set(extras) <= set(PROJECT["optional-dependencies"])


def test_the_console_command_of_the_readme_is_declared() -> None:
    (words,) = re.findall(r"\.venv/bin/(z\w+) (\w+)", "\n".join(commands()))
    script, subcommand = words

    assert PROJECT["scripts"][script] == "intake_zcollection.cli:main"
    assert isinstance(main, Group)
    assert subcommand in main.commands


def test_the_readme_asks_for_the_python_that_the_project_asks_for() -> None:
    (needed,) = re.findall(r"Python (\d\.\d+) or newer", README)

    assert PROJECT["requires-python"] == f">={needed}"


# Catalogs


def test_there_is_a_catalog() -> None:
    assert [path.name for path in CATALOGS] == ["demo.yaml"]


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.name)
def test_a_catalog_opens_with_intake(path: Path) -> None:
    catalog = intake.open_catalog(str(path))

    names = list(catalog)
    assert names == list(yaml.safe_load(path.read_text())["sources"])
    for name in names:
        assert isinstance(catalog[name], ZCollectionSource)
        assert catalog[name].description


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.name)
def test_a_catalog_is_shipped_in_the_package(path: Path) -> None:
    assert (ROOT / "intake_zcollection" / "catalogs" / path.name).read_text() == path.read_text()


# Names


@pytest.mark.parametrize("module", [intake_zcollection, registry], ids=lambda module: module.__name__)
def test_every_public_name_exists(module: ModuleType) -> None:
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert len(set(module.__all__)) == len(module.__all__)


def own_docstring(thing: Any) -> str:
    """A docstring that somebody wrote: dataclasses make one up from their fields."""
    text = getattr(thing, "__doc__", None) or ""
    return "" if text.startswith(f"{getattr(thing, '__name__', '')}(") else text


def documented(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The public classes and functions of a module, and the public methods and properties that they define."""
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing):
            yield name, thing
            for attribute, member in vars(thing).items():
                is_method = inspect.isroutine(member) or isinstance(member, property | classmethod | staticmethod)
                if is_method and not attribute.startswith("_"):
                    yield f"{name}.{attribute}", getattr(thing, attribute)
        elif inspect.isroutine(thing):
            yield name, thing


@pytest.mark.parametrize("module", [intake_zcollection, registry], ids=lambda module: module.__name__)
def test_every_public_class_function_and_method_has_a_docstring(module: ModuleType) -> None:
    things = dict(documented(module))

    assert len(things) > len(module.__all__) / 2
    assert [name for name, thing in things.items() if not own_docstring(thing)] == []


def test_what_the_readme_calls_exists() -> None:
    code = "\n".join(block.code for block in blocks_of(README) if block.language == "python")

    called = set(re.findall(r"\bizc\.(\w+)", code))

    assert called
    assert called <= set(intake_zcollection.__all__)


# Machines


def tracked_files() -> list[Path]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_no_tracked_file_has_the_path_of_somebodys_machine() -> None:
    # A path begins where a word does not; "sqlite:////tmp/…" is one, "a/tmp/b" is not.
    path_of_a_machine = re.compile(r"(?<![\w.}\])*-])/(?:tmp|root|work|home|Users|mnt)(?:/|\b(?!-))")
    found = []
    for path in tracked_files():
        if path.is_relative_to(ROOT / "tests") or not path.is_file():
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}:{n}: {line}" for n, line in enumerate(lines, 1) if path_of_a_machine.search(line)
        ]
    assert found == []
