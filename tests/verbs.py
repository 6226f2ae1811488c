"""Every verb of a collection of maps (:func:`tests.conftest.make_grid`), by its name: for what holds of all of them.

They are for a collection that has the first two days, and perhaps others of January: each does something there. And
every verb of a view over such a collection (:func:`view_over`).
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
    "add_statistics": lambda each, **by: each.add_statistics(["count"], **by),
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


def twice(data: xr.Dataset) -> dict[str, Any]:
    """Compute an own variable of a view."""
    return {"doubled": data["count"].values * 2.0}


def view_over(base: izc.Collection, name: str = "made/view", location: str | None = None) -> izc.View:
    """Create a view with a definition, by which nothing is computed yet, and another own variable."""
    view = izc.create_view(base._handle.registry, name, base, location=location or f"{base.location}_view")
    view.update(twice, outputs=[izc.Variable("doubled", "f8", ("time",))], run=False)
    view.add_variable(izc.Variable("own", "f8", ("time",)))
    return view


VIEW_READING: dict[str, Verb] = {
    **READING,
    "base": lambda each: each.base.load().compute(),
    "load without what is stale": lambda each: each.load(stale="skip").compute(),
    "stale": lambda each: each.stale().load().compute(),
    "is_synced": lambda each: each.is_synced(),
    "a dry run": lambda each: each.sync(dry_run=True),
}

VIEW_WRITING: dict[str, Verb] = {
    "update": lambda each, **by: each.update(lambda data: {"own": data["count"] * 3.0}, outputs=["own"], **by),
    "sync": lambda each, **by: each.sync(**by),
    "define": lambda each, **by: each.update(twice, outputs=["doubled"], code_version="2", run=False, **by),
    "add_variable": lambda each, **by: each.add_variable(izc.Variable("added", "f4", ("time",)), **by),
    "rename_variable": lambda each, **by: each.rename_variable("ice", "snow", **by),
    "drop_variable": lambda each, **by: each.drop_variable("quality", **by),
    "set_attributes": lambda each, **by: each.set_attributes({"title": "other"}, **by),
    "set_filters": lambda each, **by: each.set_filters("month < 7", **by),
}
"""Those of a view that make a version, by the name of its operation."""

VIEW_COPYING: dict[str, Verb] = {
    "copy": lambda each: each.copy("made/copy_of_view", f"{each.location}_copy"),
    "copy as a view": lambda each: each.copy("made/view_like_it", f"{each.location}_like_it", as_view=True),
}
