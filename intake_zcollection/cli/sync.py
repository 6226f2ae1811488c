"""``zregistry sync``: computing what of a view is stale."""

import click

from registry import Registry

from ..opening import open_collection, trust
from ..view import View
from .look import Row


def synced(
    registry: Registry, name: str, *, filters: str | None, trusted: tuple[str, ...], dry_run: bool, message: str
) -> list[Row]:
    """Sync a view, and return a row per partition that was stale."""
    view = open_collection(registry, name)
    if not isinstance(view, View):
        raise click.ClickException(
            f"{view.name} is a collection, and not computed from another one: only views are synced"
        )
    for module in trusted:
        trust(module)
    done = view.sync(filters=filters, dry_run=dry_run, message=message)
    return [
        {
            "partition": str(each),
            "reason": each.reason,
            "rows": max(each.changed, each.removed),
            "variables": ", ".join(each.variables),
        }
        for each in done.values()
    ]
