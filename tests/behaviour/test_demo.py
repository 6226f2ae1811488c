"""``zregistry demo`` as a stranger runs it: in a process and a directory of its own."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import intake
import numpy as np
import pytest
import zarr
from click.testing import CliRunner

import intake_zcollection as izc
from intake_zcollection.cli import main

COMMAND = Path(sys.executable).with_name("zregistry")


@dataclass(frozen=True)
class Run:
    """A run of the demo: where, and what came of it."""

    folder: Path
    home: Path
    result: subprocess.CompletedProcess[str]

    @property
    def lines(self) -> list[str]:
        return self.result.stdout.splitlines()

    @property
    def words(self) -> str:
        """The output, wherever its lines are broken."""
        return " ".join(self.result.stdout.split())

    @property
    def collection(self) -> izc.Collection:
        return izc.open_collection(f"sqlite:///{self.folder}/zcollection-demo/registry.db", "demo/sst")


def run_demo(folder: Path, **variables: str) -> Run:
    """Run the demo in a folder beside a home and a place for temporary files, both empty; warnings are errors there."""
    home, temporary = folder.with_name(f"{folder.name}-home"), folder.with_name(f"{folder.name}-tmp")
    for directory in (folder, home, temporary):
        directory.mkdir(exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LC_ALL", "SYSTEMROOT")}
    places = {"HOME": str(home), "USERPROFILE": str(home), "TMPDIR": str(temporary)}
    result = subprocess.run(
        [COMMAND, "demo"],
        cwd=folder,
        env=inherited | places | {"PYTHONWARNINGS": "error", "PYTHONUTF8": "1"} | variables,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    return Run(folder, home, result)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The first run in an empty directory; tests only look at it."""
    return run_demo(tmp_path_factory.mktemp("stranger"))


def test_it_succeeds_and_complains_of_nothing(run: Run) -> None:
    assert (run.result.returncode, run.result.stderr) == (0, "")


def test_it_says_where_it_writes_and_whose_the_data_is(run: Run) -> None:
    assert re.sub(r"\s", "", str(run.folder / "zcollection-demo")) in re.sub(r"\s", "", run.result.stdout)
    assert "OSTIA" in run.words
    assert "Open Government Licence" in run.words


def test_it_shows_the_entries_of_the_catalog(run: Run) -> None:
    assert re.search(r"^ +sst\(\) +Sea surface temperature", run.result.stdout, re.MULTILINE)
    assert re.search(r"^ +sst_year\(year=2006\) +The same", run.result.stdout, re.MULTILINE)


def test_it_shows_a_lazy_dataset(run: Run) -> None:
    assert "<xarray.Dataset>" in run.result.stdout
    assert re.search(r"surface_temperature +\(time, latitude, longitude\) float32 .* dask\.array<", run.result.stdout)


def test_it_lists_the_versions(run: Run) -> None:
    heading = next(i for i, line in enumerate(run.lines) if line.startswith("version"))
    listed = [line.split() for line in run.lines[heading + 1 : heading + 6]]

    versions = run.collection.versions()
    assert [words[0] for words in listed] == [str(version.number) for version in versions[-5:]]
    assert [version.message for version in versions[:3]] == ["", "2006-04 arrived", "2006-05 arrived"]
    assert [" ".join(words[2:5]) for words in listed[:4]] == [f"insert 2010-{n:02} arrived" for n in range(6, 10)]
    assert listed[4][2:] == ["insert", "2008-01", "corrected", "0", "1", "1"]


def test_each_month_is_appended_to_its_year_and_the_corrected_one_is_written_alone(run: Run) -> None:
    years = {2006: 9, 2007: 12, 2008: 12, 2009: 12, 2010: 9}
    assert [line for line in run.lines if line.startswith("year=")] == [f"year={y} {n} {n}" for y, n in years.items()]
    assert [(part.rows, part.parts) for part in run.collection.partitions()] == [(n, n) for n in years.values()]
    summary = run.collection.versions()[-1].summary
    assert {name: summary[name] for name in ("rows", "rows_replaced", "parts_made", "parts_rewritten")} == {
        "rows": 1,
        "rows_replaced": 1,
        "parts_made": 1,
        "parts_rewritten": 1,
    }


def test_two_versions_have_two_means(run: Run) -> None:
    means = re.findall(r"^(\d\d) (\d{3}\.\d{3})$", run.result.stdout, re.MULTILINE)

    assert [version for version, _ in means] == ["54", "55"]
    before, after = (float(mean) for _, mean in means)
    assert before - after == pytest.approx(0.25, abs=0.0011)


def test_of_its_view_the_year_of_the_correction_alone_is_computed_again(run: Run) -> None:
    assert [line for line in run.lines if line.startswith("computed again")] == ["computed again: year=2008, rows"]
    assert "nothing is stale: True" in run.lines


def test_it_shows_a_tree_of_files_that_exist(run: Run) -> None:
    assert "zcollection-demo/" in run.lines
    fragment = run.collection.partitions(filters="year == 2008")[0].fragments["time"][0]
    uid = fragment.rpartition("/")[2]
    assert re.search(rf"── {uid}/ +← version 55$", run.result.stdout, re.MULTILINE)
    shown = re.findall(r"── (\S*(?:zarr\.json|/c\.\S+))$", run.result.stdout, re.MULTILINE)
    assert "zarr.json" in shown
    assert "surface_temperature/zarr.json" in shown
    assert any(name.startswith("surface_temperature/c.") for name in shown)
    assert all((run.folder / "zcollection-demo" / "sst" / fragment / name).is_file() for name in shown)


def test_what_the_tree_shows_is_plain_zarr(run: Run) -> None:
    fragment = run.collection.partitions(filters="year == 2008")[0].fragments["time"][0]

    group = zarr.open_group(run.folder / "zcollection-demo" / "sst" / fragment, mode="r")

    assert group["surface_temperature"].shape == (1, 18, 432)  # type: ignore[union-attr]  # an array


def test_output_into_a_pipe_has_no_escape_codes(run: Run) -> None:
    assert "\x1b" not in run.result.stdout
    assert "[b]" not in run.result.stdout
    assert "[/" not in run.result.stdout


def test_it_writes_only_below_its_own_directory(run: Run) -> None:
    assert [path.name for path in run.folder.iterdir()] == ["zcollection-demo"]
    assert list(run.home.iterdir()) == []
    assert {path.name for path in (run.folder / "zcollection-demo").iterdir()} >= {"registry.db", "sst"}


def test_the_packages_catalog_opens_what_it_made(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZC_DEMO_REGISTRY", raising=False)
    monkeypatch.chdir(run.folder)
    packaged = resources.files("intake_zcollection") / "catalogs" / "demo.yaml"

    with resources.as_file(packaged) as path:
        catalog = intake.open_catalog(str(path))
        month = catalog.sst(version=54).read().sel(time="2008-01")
        year = catalog.sst_year(year=2010).to_dask()
        view = catalog.sst_anomaly.read()

    assert list(catalog) == ["sst", "sst_year", "sst_anomaly"]
    assert float(month.surface_temperature.mean()) == pytest.approx(300.06, abs=0.01)
    assert year.sizes["time"] == 9
    assert set(year.time.dt.year.values.tolist()) == {2010}
    means = view.surface_temperature.groupby("time.year").mean("time")
    np.testing.assert_allclose(view.anomaly, view.surface_temperature.groupby("time.year") - means, atol=1e-4)


def test_what_it_tells_to_go_on_with_works(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.folder)
    (call,) = re.findall(r"izc\.open_dataset\(.*?\)}\)", run.words)

    dataset = eval(call, {"izc": izc})

    assert dataset.time.dt.month.values.tolist() == [6, 7, 8]


@dataclass(frozen=True)
class Again:
    """A second run, in a copy of the first one's directory and with another registry in the environment."""

    run: Run
    other: izc.Registry
    seen_location: str
    """Where the collection lies now, to a process that had opened it before the second run."""


@pytest.fixture(scope="module")
def again(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Again:
    folder = tmp_path_factory.mktemp("again")
    other = izc.connect(f"sqlite:///{folder.with_name('other')}/registry.db", create=True)
    shutil.copytree(run.folder, folder, dirs_exist_ok=True)
    with izc.connect(f"sqlite:///{folder}/zcollection-demo/registry.db") as registry:
        assert registry.collection("demo/sst").location == str(run.folder / "zcollection-demo" / "sst")
        second = run_demo(folder, ZC_DEMO_REGISTRY=other.url)
        return Again(second, other, registry.collection("demo/sst").location)


def test_a_second_run_starts_anew(run: Run, again: Again) -> None:
    assert (again.run.result.returncode, again.run.result.stderr) == (0, "")
    collection = again.run.collection
    assert [version.number for version in collection.versions()] == list(range(56))
    assert collection.location == str(again.run.folder / "zcollection-demo" / "sst")
    assert collection.partitions()[0].fragments != run.collection.partitions()[0].fragments
    assert len(list((again.run.folder / "zcollection-demo").glob("sst/year=2008/*"))) == 13


def test_a_process_that_had_opened_the_first_run_sees_the_second(again: Again) -> None:
    assert again.seen_location == str(again.run.folder / "zcollection-demo" / "sst")


def test_a_registry_in_the_environment_is_neither_used_nor_touched(again: Again) -> None:
    assert again.run.result.returncode == 0
    assert again.other.collections() == ()


def test_a_directory_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "here" / "zcollection-demo"
    foreign.mkdir(parents=True)
    (foreign / "registry.db").write_text("precious")

    run = run_demo(tmp_path / "here")

    assert run.result.returncode == 1
    assert "was not made by this demo" in " ".join(run.result.stderr.split())
    assert "Traceback" not in run.result.stderr
    assert [path.name for path in foreign.iterdir()] == ["registry.db"]
    assert (foreign / "registry.db").read_text() == "precious"


def test_a_file_in_the_place_of_its_directory_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("zcollection-demo").write_text("precious")

    result = CliRunner().invoke(main, ["demo"])

    assert result.exit_code == 1
    assert "was not made by this demo" in " ".join(result.output.split())
    assert Path("zcollection-demo").read_text() == "precious"


def test_without_its_data_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "iris_sample_data", None)

    result = CliRunner().invoke(main, ["demo"])

    assert result.exit_code == 1
    assert "pip install 'intake-zcollection[demo]'" in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def test_the_help_names_the_demo() -> None:
    assert re.search(r"^ +demo +", CliRunner().invoke(main, ["--help"]).output, re.MULTILINE)
