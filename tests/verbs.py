"""Every verb of a collection of maps (:func:`tests.conftest.make_grid`), by its name: for what holds of all of them.

They are for a collection that has the first two days, and perhaps others of January: each does something there.
"""

from collections.abc import Callable
from typing import Any

import xarray as xr

import intake_zcollection as izc
from tests.conftest import make_grid

MORE = make_grid("2022-03-01", days=2)
"""Rows of another month."""

Verb = Callable[..., Any]
"""A function of a collection; one that writes takes ``author`` and ``message`` too."""


def double(data: xr.Dataset) -> dict[str, Any]:
    """Compute the counts of a partition anew."""
    return {"count": data["count"].values * 2}


READING: dict[str, Verb] = {
    "load": lambda each: each.load().compute(),
    "load an old version": lambda each: each.at(version=1).load().compute(),
    "at": lambda each: each.at(version=0),
    "partitions": lambda each: each.partitions(),
    "version": lambda each: each.version,
    "versions": lambda each: each.versions(),
    "diff": lambda each: each.diff(0),
    "load what changed": lambda each: each.changes_since(0).load().compute(),
    "schema": lambda each: each.schema,
    "map": lambda each: each.map(double),
    "validate": lambda each: each.validate(),
    "repr": repr,
}

WRITING: dict[str, Verb] = {
    "insert": lambda each, **by: each.insert(MORE, **by),
    "update": lambda each, **by: each.update(double, **by),
    "rewrite": lambda each, **by: each.rewrite(**by),
    "drop_rows": lambda each, **by: each.drop_rows(where={"time": ("2022-01-01", "2022-01-01")}, **by),
    "drop_partitions": lambda each, **by: each.drop_partitions(all=True, **by),
    "add_variable": lambda each, **by: each.add_variable(izc.Variable("added", "i4", ("time",)), **by),
    "rename_variable": lambda each, **by: each.rename_variable("ice", "snow", **by),
    "drop_variable": lambda each, **by: each.drop_variable("quality", **by),
    "set_attributes": lambda each, **by: each.set_attributes({"title": "other"}, **by),
    "set_immutables": lambda each, **by: each.set_immutables(MORE[["crs"]] + 1, **by),
}
"""Those that make a version, by the name of its operation."""

COPYING: dict[str, Verb] = {"copy": lambda each: each.copy("made/copy", f"{each.location}_copy")}
