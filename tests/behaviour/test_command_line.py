"""``zregistry``: what there is in a registry, as tables for people and as JSON for programs."""

import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner, Result

import intake_zcollection as izc
from intake_zcollection import functions
from intake_zcollection.cli import main

Look = Callable[..., Result]


@pytest.fixture
def levels(registry: izc.Registry, tmp_path: Path) -> izc.Collection:
    """Two months of hours, one of them with a layer, in three versions; and another collection."""
    time = np.arange("2022-01-31", "2022-02-02", dtype="M8[h]").astype("M8[ns]")
    data = xr.Dataset({"level": ("time", np.arange(48.0), {"units": "m"})}, {"time": time})
    by_month: dict[str, Any] = {"axis": "time", "partitioning": izc.Date("time", "M")}
    collection = izc.create_collection(
        registry, "hydro/level", data, location=f"{tmp_path}/level", description="Gauges [of all rivers]", **by_month
    )
    collection.insert(data, message="both months")
    collection.update(lambda each: {"level": each.level + 1}, filters="month == 2", message="the datum")
    izc.create_collection(registry, "ocean/ssh", data, location=f"{tmp_path}/ssh", **by_month)
    return collection


@pytest.fixture
def look(levels: izc.Collection, registry: izc.Registry) -> Look:
    """A function that runs a command on the registry, by its URL."""

    def run(*arguments: str, address: str = str(registry._url)) -> Result:
        return CliRunner().invoke(main, [*arguments, "-r", address])

    return run


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_list_tells_of_all_collections_or_of_some(look: Look, tmp_path: Path) -> None:
    assert [row["collection"] for row in told(look("list", "--json"))] == ["hydro/level", "ocean/ssh"]
    (row,) = told(look("list", "--json", "--namespace", "hydro"))
    assert row == {
        "collection": "hydro/level",
        "version": 2,
        "axis": "time",
        "keys": "year/month",
        "location": f"{tmp_path}/level",
        "description": "Gauges [of all rivers]",
    }
    assert told(look("list", "--json", "--text", "rivers")) == [row]
    assert look("list", "--text", "nothing").output == "there are no collections\n"


def test_show_tells_what_a_collection_is_and_has_at_a_version(look: Look) -> None:
    facts = told(look("show", "hydro/level", "--json"))
    assert (facts["version"], facts["partitions"], facts["rows"]) == (2, 2, 48)
    assert (facts["first"], facts["last"]) == ("2022-01-31T00:00:00.000000000", "2022-02-01T23:00:00.000000000")
    assert facts["variables"][0] | {"role": ""} == {
        "variable": "level",
        "dtype": "<f8",
        "dimensions": "time",
        "role": "",
        "units": "m",
        "statistics": "",
    }
    before = told(look("show", "hydro/level", "--json", "--version", "0"))
    assert (before["partitions"], before["rows"], before["first"]) == (0, 0, None)


def highest(rows: xr.Dataset) -> dict[str, Any]:
    """Where a partition is highest, for an index."""
    place = int(rows.level.values.argmax())
    return {"height": [int(rows.level[place])], "start": [place], "stop": [place + 1]}


def test_show_tells_of_indexes_and_how_much_is_not_indexed(look: Look, levels: izc.Collection) -> None:
    levels.create_index("hours", "time")
    levels.create_index("peaks", "height", highest, inputs=["level"], per="partition")
    levels.update(lambda rows: {"level": rows.level}, filters="month == 2")
    facts = told(look("show", "hydro/level", "--json"))
    hours = {"index": "hours", "columns": "time (time)", "inputs": "time", "function": None}
    assert facts["indexes"] == [
        hours | {"per": "row", "unindexed": 0},
        {
            **{"index": "peaks", "columns": "height (integer)", "inputs": "level"},
            **{"function": f"{__name__}:highest", "per": "partition", "unindexed": 1},
        },
    ]
    assert told(look("show", "hydro/level", "--json", "--version", "3"))["indexes"] == [
        hours | {"per": "row", "unindexed": 0}
    ]
    assert re.search(r"^hours +time \(time\) +time +— +row +0 *$", look("show", "hydro/level").output, re.MULTILINE)


def test_partitions_tells_of_each_with_bounds_as_text(look: Look) -> None:
    january, february = told(look("partitions", "hydro/level", "--json"))
    assert january["partition"] == "year=2022/month=01"
    assert (january["rows"], january["groups"], january["version"]) == (24, 1, 1)
    assert (february["rows"], february["groups"], february["version"]) == (24, 2, 2)
    assert (february["first"], february["last"]) == ("2022-02-01T00:00:00.000000000", "2022-02-01T23:00:00.000000000")
    assert told(look("partitions", "hydro/level", "--json", "--filters", "month == 2")) == [february]
    assert told(look("partitions", "hydro/level", "--json", "--limit", "1")) == [january]
    (_, old) = told(look("partitions", "hydro/level", "--json", "--version", "1"))
    assert (old["groups"], old["version"]) == (1, 1)


def test_versions_tells_of_the_newest_first(look: Look) -> None:
    rows = told(look("versions", "hydro/level", "--json"))
    assert [(row["version"], row["operation"], row["message"]) for row in rows] == [
        (2, "update", "the datum"),
        (1, "insert", "both months"),
        (0, "create", ""),
    ]
    assert rows[0]["summary"]["updated"] == 1
    assert told(look("versions", "hydro/level", "--json", "--limit", "2")) == rows[:2]
    assert told(look("versions", "hydro/level", "--json", "--filters", "month == 1")) == [rows[1]]


def test_changes_tells_what_changed_in_each_partition(look: Look) -> None:
    january, february = told(look("changes", "hydro/level", "--json", "--since", "0", "--until", "1"))
    assert january == {
        **{"partition": "year=2022/month=01", "kind": "added", "added": 24, "changed": 0, "removed": 0},
        **{"first": "2022-01-31T00:00:00.000000000", "last": "2022-01-31T23:00:00.000000000", "variables": "all"},
    }
    (updated,) = told(look("changes", "hydro/level", "--json", "--since", "1"))
    assert (updated["kind"], updated["changed"], updated["variables"]) == ("changed", 24, "level")
    assert february["partition"] == updated["partition"]
    assert told(look("changes", "hydro/level", "--json", "--since", "0", "--limit", "1"))[0]["added"] == 24
    assert look("changes", "hydro/level", "--since", "2").output == "no partition changed\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(["list"], ["hydro/level", "Gauges [of all rivers]"], id="list"),
        pytest.param(["show", "hydro/level"], ["Gauges [of all rivers]", "rows", "48", "<f8"], id="show"),
        pytest.param(["partitions", "hydro/level"], ["year=2022/month=02", "parts", "24"], id="partitions"),
        pytest.param(
            ["versions", "hydro/level"], ["the datum", "1 updated, 24 rows", "2 parts made", "UTC"], id="versions"
        ),
        pytest.param(["changes", "hydro/level", "--since", "1"], ["month=02", "changed", "24"], id="changes"),
    ],
)
def test_people_get_tables_whose_lines_are_whole_in_a_pipe(
    look: Look, arguments: list[str], expected: list[str]
) -> None:
    result = look(*arguments)
    assert result.exit_code == 0, result.output
    for text in expected:
        assert text in result.output


@pytest.mark.one_engine("sqlite", "the path of its file")
def test_a_registry_is_given_by_its_path_or_by_the_environment_too(
    look: Look, registry: izc.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_url = look("list", "--json")
    assert told(look("list", "--json", address=str(registry._url.database))) == told(by_url)
    monkeypatch.setenv("ZC_REGISTRY", str(registry._url))
    assert CliRunner().invoke(main, ["list", "--json"]).output == by_url.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["show", "hydro/levels"], "did you mean hydro/level?", id="a name"),
        pytest.param(["show", "hydro/level", "--version", "9"], "has no version 9", id="a version"),
        pytest.param(["partitions", "hydro/level", "--filters", "moth == 1"], "moth", id="a filter"),
        pytest.param(["versions", "hydro/level", "--limit", "0"], "limit", id="a limit"),
        pytest.param(["changes", "hydro/level", "--since", "2", "--until", "1"], "older version first", id="an order"),
    ],
)
def test_what_is_wrong_is_told_without_a_traceback(look: Look, arguments: list[str], message: str) -> None:
    result = look(*arguments)
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)
    assert message in result.output


def test_without_a_registry_it_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZC_REGISTRY", raising=False)
    result = CliRunner().invoke(main, ["list"])
    assert result.exit_code == 2
    assert "ZC_REGISTRY" in result.output


# Views


@pytest.fixture
def view(levels: izc.Collection, registry: izc.Registry, tmp_path: Path) -> izc.View:
    """A view of the levels, one variable computed row by row, and one by whole months, which is not recorded."""
    view = izc.create_view(
        registry, "hydro/rise", levels, location=f"{tmp_path}/rise", variables=["level"], filters="month > 0"
    )
    new = [izc.Variable(name, "f8", ("time",)) for name in ("doubled", "anomaly")]
    view.update(doubled, inputs=["level"], outputs=new[:1], rowwise=True, code_version="1")
    view.update(lambda month: {"anomaly": month.level - month.level.mean()}, inputs=["level"], outputs=new[1:])
    return view


def doubled(data: xr.Dataset) -> dict[str, xr.DataArray]:
    """What can be imported, and is recorded."""
    return {"doubled": data.level * 2}


def correct(levels: izc.Collection) -> None:
    """Make an hour of February another one."""
    time = np.array(["2022-02-01T05"], "M8[ns]")
    levels.insert(xr.Dataset({"level": ("time", [9.0])}, {"time": time}), merge="upsert")


def corrected(view: izc.View) -> float:
    """What the view computed from the hour."""
    return float(view.load(variables=["doubled"], stale="raise").doubled.sel(time="2022-02-01T05"))


def test_show_tells_what_a_view_is_over_how_it_is_computed_and_what_is_stale(
    look: Look, levels: izc.Collection, view: izc.View
) -> None:
    facts = told(look("show", "hydro/rise", "--json"))
    assert (facts["base"], facts["base_version"], facts["pinned_version"]) == ("hydro/level", 2, None)
    assert (facts["filters"], facts["stale"]) == ("month > 0", {})
    assert facts["definitions"] == [
        {
            **{"outputs": "doubled", "inputs": "level, time", "function": f"{__name__}:doubled"},
            **{"rowwise": True, "depth": 0, "code_version": "1"},
        }
    ]
    correct(levels)
    facts = told(look("show", "hydro/rise", "--json"))
    assert (facts["base_version"], facts["stale"]) == (3, {"rows": 1})
    assert told(look("show", "hydro/rise", "--json", "--version", "2"))["base_version"] == 2
    levels.drop_partitions(filters="month == 1")
    facts = told(look("show", "hydro/rise", "--json"))
    assert (facts["partitions"], facts["rows"], facts["stale"]) == (1, 24, {"gone": 1, "rows": 1})
    assert "1 by Date" in repr(view)  # the base as it is now, too
    assert "base" not in told(look("show", "hydro/level", "--json"))


def test_people_see_of_a_view_what_is_stale_and_its_definitions(
    look: Look, levels: izc.Collection, view: izc.View
) -> None:
    assert re.search(r"^stale +nothing *$", look("show", "hydro/rise").output, re.MULTILINE)
    correct(levels)
    shown = look("show", "hydro/rise").output
    assert re.search(r"^stale +1 partition: rows *$", shown, re.MULTILINE)
    assert re.search(rf"^doubled +level, time +{__name__}:doubled +True +0 +1 *$", shown, re.MULTILINE)


def test_a_view_has_partitions_versions_and_changes_as_a_collection_has(look: Look, view: izc.View) -> None:
    january, february = told(look("partitions", "hydro/rise", "--json"))
    assert (january["partition"], january["rows"], january["version"]) == ("year=2022/month=01", 24, 2)
    assert (february["first"], february["last"]) == ("2022-02-01T00:00:00.000000000", "2022-02-01T23:00:00.000000000")
    assert [row["operation"] for row in told(look("versions", "hydro/rise", "--json"))] == [
        "update",
        "update",
        "create",
    ]
    changed = told(look("changes", "hydro/rise", "--json", "--since", "1"))
    assert [(row["kind"], row["changed"], row["variables"]) for row in changed] == [("changed", 24, "anomaly")] * 2


def test_sync_computes_what_is_stale_and_tells_what_that_was(
    look: Look, levels: izc.Collection, view: izc.View
) -> None:
    assert look("sync", "hydro/rise").output == "nothing is stale\n"
    correct(levels)
    stale = [{"partition": "year=2022/month=02", "reason": "rows", "rows": 24, "variables": "doubled, anomaly"}]
    assert told(look("sync", "hydro/rise", "--dry-run", "--json")) == stale
    assert told(look("sync", "hydro/rise", "--filters", "month == 1", "--json")) == []
    assert view.version.number == 2
    assert told(look("sync", "hydro/rise", "--message", "every night", "--json")) == stale
    assert (view.version.operation, view.version.message) == ("sync", "every night")
    assert corrected(view) == 18
    # What was computed without a definition is stale still.
    assert [row["variables"] for row in told(look("sync", "hydro/rise", "--json"))] == ["anomaly"]


def test_sync_imports_the_functions_of_modules_that_it_is_told_to_trust(
    look: Look, levels: izc.Collection, view: izc.View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tripling.py").write_text("def tripled(data):\n    return {'doubled': data.level * 3}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(functions, "_trusted", set())
    tripled = importlib.import_module("tripling").tripled
    view.update(tripled, inputs=["level"], outputs=["doubled"], run=False)
    correct(levels)
    monkeypatch.delitem(sys.modules, "tripling")
    refused = look("sync", "hydro/rise")
    assert refused.exit_code == 1
    assert "trust('tripling')" in refused.output
    assert "tripling" not in sys.modules
    assert look("sync", "hydro/rise", "--trust", "tripling").exit_code == 0
    assert corrected(view) == 27


def test_what_is_no_view_is_not_synced(look: Look) -> None:
    result = look("sync", "hydro/level")
    assert result.exit_code == 1
    assert "hydro/level is a collection" in result.output
