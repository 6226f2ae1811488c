"""The commands of ``.ci/run`` one by one, each in an environment of its own: ``pip install nox``, then ``nox -l``."""

import tempfile
from pathlib import Path

import nox

ROOT = Path(__file__).parent

PYTHONS = ("3.11", "3.12", "3.13", "3.14")

LINT = ("ruff check .", "ruff format --check .", "mypy", "lint-imports")
"""What the hooks of pre-commit run too."""

nox.options.sessions = ["lint", "tests", "demo"]
nox.options.error_on_missing_interpreters = False


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types and floors."""
    session.install("-e", ".[test,lint]")
    for command in LINT:
        session.run(*command.split())


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests, or those that are named after ``--``."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """What README.md and docs/ show, run; also among the tests."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "tests/test_docs.py", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """The demo as a stranger runs it: installed from a wheel, in another directory."""
    with tempfile.TemporaryDirectory() as place:
        session.run("python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", place, str(ROOT))
        (wheel,) = Path(place).glob("*.whl")
        session.install(f"{wheel}[demo]")
        with session.chdir(place):
            session.run("zregistry", "demo")
