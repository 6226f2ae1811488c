"""``zregistry expire`` and ``zregistry vacuum``: giving old versions up, and deleting what is nobody's any more."""

import json
from dataclasses import asdict
from typing import Any

import click

from registry import Registry

from ..opening import open_collection, vacuum
from ..operations.expire import ExpiryReport
from ..operations.vacuum import VacuumReport


def expired(registry: Registry, name: str, **how: Any) -> ExpiryReport:
    """Expire versions of a collection."""
    return open_collection(registry, name).expire(**how)


def vacuumed(registry: Registry, name: str | None, **how: Any) -> VacuumReport:
    """Vacuum a collection, or all."""
    return vacuum(registry, **how) if name is None else open_collection(registry, name).vacuum(**how)


def print_report(report: ExpiryReport | VacuumReport, *, as_json: bool) -> None:
    """Print a report as a table, or as an object in JSON; raises an error of the command line if it tells problems."""
    if not as_json:
        click.echo(str(report))
    elif isinstance(report, ExpiryReport):
        not_before = report.not_before and report.not_before.isoformat()
        click.echo(json.dumps(asdict(report) | {"not_before": not_before}, indent=2))
    else:
        click.echo(json.dumps({"groups": report.groups, "nbytes": report.nbytes, **asdict(report)}, indent=2))
    if isinstance(report, VacuumReport) and not report.ok:
        raise click.ClickException("not all was deleted: see above, and vacuum again")
