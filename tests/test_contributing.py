"""What CONTRIBUTING.md, nox, pre-commit and the workflow say is the same, and is what there is."""

import ast
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()

WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text())


def nox_constant(name: str) -> list[str]:
    """A constant of noxfile.py, which is not imported: nox need not be installed."""
    assignments = [node for node in ast.parse((ROOT / "noxfile.py").read_text()).body if isinstance(node, ast.Assign)]
    (value,) = [node.value for node in assignments if ast.unparse(node.targets[0]) == name]
    return list(ast.literal_eval(value))


def test_nox_pre_commit_and_the_documents_run_the_same_checks() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    checks = [f".venv/bin/{command}" for command in nox_constant("LINT")]

    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in repository["hooks"]] == checks
    for document in (CONTRIBUTING, (ROOT / "docs" / "development.md").read_text()):
        assert " && ".join(checks) in document.splitlines()


def test_each_python_is_tested_by_nox_and_by_the_workflow() -> None:
    job = WORKFLOW["jobs"]["ci"]
    project = (ROOT / "pyproject.toml").read_text()
    (oldest,) = re.findall(r'requires-python = ">=(.*)"', project)

    assert job["strategy"]["matrix"]["python"] == nox_constant("PYTHONS")
    assert job["strategy"]["matrix"]["python"][0] == oldest
    assert set(re.findall(r":: (3\.\d+)", project)) <= set(nox_constant("PYTHONS"))
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]


def test_what_contributing_names_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", CONTRIBUTING)
    paths = re.findall(r"(?<=[` ])((?:[\w.]+/)+[\w.]*)(?=[` ])", CONTRIBUTING.replace(".venv/bin/", ""))

    assert "registry/sql/tables.py" in paths
    assert [name for name in links + paths if not (ROOT / name).exists() and not list(ROOT.glob(f"*/{name}"))] == []
