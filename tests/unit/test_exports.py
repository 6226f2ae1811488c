"""The packages' public names, imported when they are used: what static tools see is what there is."""

import ast
import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import intake_zcollection
import registry

PACKAGES = pytest.mark.parametrize("package", [intake_zcollection, registry], ids=lambda package: package.__name__)


def branches(package: ModuleType) -> tuple[list[ast.stmt], list[ast.stmt]]:
    """What a package says to static tools alone, and to Python alone."""
    body = ast.parse(inspect.getsource(package)).body
    (branch,) = [node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return branch.body, branch.orelse


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, where nothing has been used yet."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@PACKAGES
def test_static_tools_see_the_names_that_are_imported_late(package: ModuleType) -> None:
    shown = {
        "." * node.level + (node.module or ""): tuple(alias.name for alias in node.names)
        for node in branches(package)[0]
        if isinstance(node, ast.ImportFrom)
    }
    assert shown == package._LAZY


@PACKAGES
def test_static_tools_do_not_see_the_function_that_would_have_any_name(package: ModuleType) -> None:
    functions = [node.name for node in branches(package)[1] if isinstance(node, ast.FunctionDef)]
    assert functions == ["__getattr__", "__dir__"]


@PACKAGES
def test_the_late_names_are_public_and_sorted(package: ModuleType) -> None:
    names = [name for names in package._LAZY.values() for name in names]
    assert set(names) <= set(package.__all__)
    assert len(set(names)) == len(names)
    assert list(package._LAZY) == sorted(package._LAZY)
    assert all(list(names) == sorted(names) for names in package._LAZY.values())


@PACKAGES
def test_before_anything_is_used_all_names_are_listed_and_a_star_imports_them(package: ModuleType) -> None:
    name = package.__name__
    done = run(
        f"import {name} as package\n"
        "assert not set(package._MODULES) & set(vars(package)), 'something was imported early'\n"
        "assert set(package.__all__) <= set(dir(package))\n"
        f"from {name} import *\n"
        "assert set(package.__all__) <= set(globals())\n"
        "assert all(globals()[name] is getattr(package, name) for name in package.__all__)\n"
    )
    assert done.returncode == 0, done.stderr


@PACKAGES
def test_a_name_that_does_not_exist_is_missed_as_python_does(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match=f"^module '{package.__name__}' has no attribute 'conect'$") as caught:
        getattr(package, "conect")  # noqa: B009 - as an expression, it would be useless
    assert (caught.value.name, caught.value.obj) == ("conect", package)
    assert not hasattr(package, "__wrapped__")
    error = run(f"import {package.__name__} as package; package.conect").stderr
    assert error.endswith("has no attribute 'conect'. Did you mean: 'connect'?\n")


@PACKAGES
def test_importing_a_name_that_does_not_exist_is_an_import_error(package: ModuleType) -> None:
    error = run(f"from {package.__name__} import conect").stderr
    assert f"ImportError: cannot import name 'conect' from '{package.__name__}'" in error
