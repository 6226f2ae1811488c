"""Make each mistake in a copy of the packages, and see whether its tests notice: ``python -m tests.mutations``.

With arguments, they are what pytest runs for each mistake, in place of the tests that it names.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]

COPIED = ("registry", "intake_zcollection", "tests")

OUTCOMES = {0: "SURVIVED", 1: "killed"}
"""By the exit code of pytest; others are its failures to run."""


def outcome(mutation: Mutation, arguments: Sequence[str]) -> str:
    """Say what became of a mutation."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        for edit in mutation.edits:
            source = (copy / edit.file).read_text()
            if source.count(edit.old) != 1:
                return f"NOT APPLIED: {edit.file} has its text {source.count(edit.old)} times"
            (copy / edit.file).write_text(source.replace(edit.old, edit.new))
        options = ("-x", "-q", "-n0", "-p", "no:cacheprovider")  # the first failure ends it, so one process will do
        command = [sys.executable, "-m", "pytest", *options, *(arguments or mutation.tests)]
        # The copies come before what is installed.
        environment = {**os.environ, "PYTHONPATH": folder}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return OUTCOMES.get(done.returncode, f"NOT RUN: {done.stdout[-400:]}{done.stderr[-400:]}")


def main(arguments: Sequence[str]) -> int:
    outcomes = []
    width = max(len(mutation.name) for mutation in MUTATIONS)
    for mutation in MUTATIONS:
        outcomes.append(outcome(mutation, arguments))
        print(f"{mutation.name:<{width}}  {outcomes[-1]}", flush=True)
    return 0 if all(each == "killed" for each in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
