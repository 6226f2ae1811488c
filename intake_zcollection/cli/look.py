"""What ``zregistry`` tells of a registry: tables for people, JSON for programs. No library of arrays is needed."""

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import click
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from registry import (
    Asked,
    CollectionRecord,
    IndexRecord,
    Registry,
    SchemaRecord,
    VariableRecord,
    ZCollectionError,
    connect,
    counted,
    format_key,
    pad_key,
)
from registry.indexes import Choice, Wanted

Row = Mapping[str, Any]
"""What is told of one thing, by the name of the column."""

_TABLES = "definitions", "indexes", "variables"
"""The facts that are tables."""

_EPOCH = dt.datetime(1970, 1, 1)


@contextmanager
def opened(address: str | None) -> Iterator[Registry]:
    """Open a registry by its URL, or by the path of its file; what goes wrong is told without a traceback."""
    if address is None:
        raise click.UsageError("which registry? Give -r URL or PATH, or set ZC_REGISTRY")
    is_url = "://" in address or address.startswith("env:")
    try:
        with connect(address if is_url else f"sqlite:///{address}") as registry:
            yield registry
    except ZCollectionError as error:
        raise click.ClickException(str(error)) from error


def collections(registry: Registry, namespace: str | None, text: str | None) -> list[Row]:
    """Return a row per collection."""
    return [
        {
            "collection": record.name,
            "version": record.head_version,
            "axis": record.axis,
            "keys": "/".join(record.keys),
            "location": record.location,
            "description": record.description,
        }
        for record in registry.collections(namespace=namespace, text=text)
    ]


def facts(registry: Registry, name: str, version: int | None) -> dict[str, Any]:
    """Return what there is to say of a collection at a version, with its variables."""
    snapshot = registry.resolve(name, version=version, keys=())
    record, made = snapshot.collection, registry.version(name, snapshot.version)
    totals = registry.totals(name, version)  # of a view that follows its base, the newest version has more than it had
    low, high = _bounds(record, snapshot.schema, totals.bounds)
    return {
        "collection": record.name,
        "description": record.description,
        **(_view_facts(registry, name, version) if record.kind == "view" else {}),
        "version": made.number,
        "committed": _time(made.committed_at),
        "author": made.author,
        "login": made.login,
        "partitions": totals.partitions,
        "rows": totals.rows,
        "bytes": totals.nbytes,
        "first": low,
        "last": high,
        "axis": record.axis,
        "dimension": record.dimension,
        "keys": "/".join(record.keys),
        "merge": record.merge,
        "zarr_format": record.zarr_format,
        "location": record.location,
        "storage_options": record.storage_options,
        "metadata": record.metadata,
        "indexes": [_index(registry, record, snapshot.version, each) for each in snapshot.indexes],
        "variables": [_variable(each) for each in snapshot.schema.variables],
    }


def _index(registry: Registry, record: CollectionRecord, version: int, index: IndexRecord) -> Row:
    """Return what an index is, and of how many parts it knows nothing: a look-up reads these."""
    nothing = Wanted({name: Choice(frozenset()) for name in index.columns})
    return {
        "index": index.name,
        "columns": ", ".join(f"{name} ({kind})" for name, kind in index.columns.items()),
        "inputs": ", ".join(index.inputs.values()),
        "function": index.function,
        "per": index.per,
        "unindexed": len(registry.look_up(record, version, index, nothing).unindexed),
    }


def _view_facts(registry: Registry, name: str, version: int | None) -> dict[str, Any]:
    """Return what a view is over, how its own variables are computed, and in how many partitions some are stale."""
    snapshot = registry.resolve(name, version=version, asked=Asked(stale="fill", tells=True))
    names, over = {each.id: each.name for each in snapshot.schema.variables}, snapshot.overlay
    assert over is not None  # it is a view's
    reasons = over.reasons(pad_key(each.values) for each in snapshot.partitions)
    return {
        "base": over.base.name,
        "base_version": over.base_version,
        "pinned_version": over.base_version if over.is_pinned else None,
        "filters": over.filters,
        "stale": dict(sorted(Counter(reasons.values()).items())),
        "definitions": [
            {
                "outputs": ", ".join(names[id_] for id_ in each.outputs),
                "inputs": ", ".join(names[id_] for id_ in each.inputs if id_ in names),
                "function": each.function,
                "rowwise": each.rowwise,
                "depth": each.depth,
                "code_version": each.code_version,
            }
            for each in over.definitions
        ],
    }


def partitions(registry: Registry, name: str, version: int | None, filters: str | None, limit: int | None) -> list[Row]:
    """Return a row per partition, in the order of their keys."""
    snapshot = registry.resolve(name, version=version, filters=filters)
    record = snapshot.collection
    found = list(islice(snapshot.partitions, limit))
    changed = registry.changes(record, snapshot.version, [each.values for each in found])
    rows: list[Row] = []
    for each in found:
        low, high = _bounds(record, snapshot.schema, each.bounds)
        rows.append(
            {
                "partition": format_key(each.key),
                "rows": each.rows,
                "parts": len(each.parts),
                "groups": each.groups,
                "bytes": each.nbytes,
                "first": low,
                "last": high,
                "version": changed.get(each.values),
            }
        )
    return rows


def versions(registry: Registry, name: str, filters: str | None, limit: int | None) -> list[Row]:
    """Return a row per version, the newest first."""
    found = registry.versions(name, filters=filters, limit=limit, newest_first=True)
    return [
        {
            "version": each.number,
            "committed": _time(each.committed_at),
            "operation": each.operation,
            "author": each.author,
            "login": each.login,
            "summary": dict(each.summary),
            "message": each.message,
            "expired": each.expired_at and _time(each.expired_at),
        }
        for each in found
    ]


def changes(registry: Registry, name: str, since: int, until: int | None, limit: int | None) -> list[Row]:
    """Return a row per partition that changed between two versions, in the order of their keys."""
    found = registry.diff(name, since, until)
    names = {variable.id: variable.name for variable in found.after.variables}
    rows: list[Row] = []
    for each in islice(found.partitions.values(), limit):
        first, last = _bounds(found.collection, found.after, each.axis_range)
        counts = dict(zip(("added", "changed", "removed"), each.counts, strict=True))
        variables = None if each.variables is None else ", ".join(names[id_] for id_ in sorted(each.variables))
        told = {"partition": str(each), "kind": each.kind, **counts}
        rows.append(told | {"first": first, "last": last, "variables": variables or "all"})
    return rows


def print_rows(rows: Sequence[Row], *, as_json: bool, nothing: str) -> None:
    """Print a table, or a list in JSON."""
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif not rows:
        click.echo(nothing)
    else:
        _console().print(_table(rows))


def print_facts(told: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what there is to say of a collection, and a table of its variables; or an object in JSON."""
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    sheet = Table(box=None, show_header=False, pad_edge=False)
    for name, value in told.items():
        if name not in _TABLES and (name == "stale" or value not in (None, "", {})):
            sheet.add_row(f"[bold]{name}[/bold]", _text(name, value))
    console = _console()
    console.print(sheet)
    for name in _TABLES:
        if rows := told.get(name):
            console.print()
            console.print(_table(rows))


def _console() -> Console:
    # In a pipe lines are as long as what they tell: who cuts or greps them wants all of it.
    console = Console(highlight=False, markup=True)
    return console if console.is_terminal else Console(highlight=False, width=10_000)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, value in rows[0].items():
        table.add_column(name, justify="right" if isinstance(value, int) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(name, value) for name, value in row.items()))
    return table


def _text(name: str, value: Any) -> str:
    match value:
        case None:
            return "—"
        case int() if name == "bytes":
            return decimal(value)
        case Mapping() if name == "stale":
            text = (
                ", ".join(f"{counted(count, 'partitions')}: {reason}" for reason, count in value.items()) or "nothing"
            )
        case Mapping() if name == "summary":
            text = ", ".join(counted(count, what) for what, count in value.items() if count)
        case Mapping():
            text = json.dumps(value)
        case _:
            text = str(value)
    return text.replace("[", r"\[")  # which rich would take for a style


def _variable(variable: VariableRecord) -> Row:
    sized = zip(variable.dimensions, variable.sizes, strict=True)
    shape = (name if size is None else f"{name}: {size}" for name, size in sized)
    return {
        "variable": variable.name,
        "dtype": variable.dtype,
        "dimensions": ", ".join(shape),
        "role": variable.role,
        "units": str(variable.attributes.get("units", "")) if isinstance(variable.attributes, Mapping) else "",
        "statistics": "kept" if variable.statistics else "",
    }


def _bounds(
    record: CollectionRecord, schema: SchemaRecord, bounds: tuple[int | None, int | None] | None
) -> tuple[Any, Any]:
    """Return bounds of the axis as they are read: times as ISO text with nine digits; None for what is not known."""
    low, high = bounds or (None, None)
    dtype = next(variable.dtype for variable in schema.variables if variable.name == record.axis)
    if "M8" not in dtype:
        return low, high
    return low if low is None else format_instant(low), high if high is None else format_instant(high)


def format_instant(nanoseconds: int) -> str:
    """Return a time of the axis, ns since 1970, as text.

    >>> format_instant(1_640_995_200_000_000_001)
    '2022-01-01T00:00:00.000000001'
    """
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{(_EPOCH + dt.timedelta(seconds=seconds)).isoformat()}.{rest:09d}"


def _time(time: dt.datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
