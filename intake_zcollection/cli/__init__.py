"""The command line, ``zregistry``."""

from collections.abc import Callable
from typing import Any

import click


@click.group()
@click.version_option(package_name="intake-zcollection")
def main() -> None:
    """Collections of array data in Zarr, recorded in an SQL registry."""


def _looking(command: Callable[..., None]) -> click.Command:
    """Return a command that tells of a registry."""
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    where = click.option("-r", "--registry", envvar="ZC_REGISTRY", help="Its URL or its file's path; or ZC_REGISTRY.")
    return main.command()(where(as_json(command)))


_name = click.argument("name")
_version = click.option("--version", type=int, help="Its number; the newest if it is left out.")
_filters = click.option("--filters", help="Which partitions, by their keys: 'year == 2022 and month in (1, 2)'.")
_limit = click.option("--limit", type=click.IntRange(1), help="How many at most.")


@main.command()
def demo() -> None:
    """Tell the whole idea in a minute, on real data.

    Makes a collection of sea surface temperatures below ./zcollection-demo, and opens it through intake.
    """
    from .demo import run_demo  # the arrays' libraries take seconds to import: only for commands that need them

    run_demo()


@_looking
@click.option("--namespace", help="Those of a namespace alone.")
@click.option("--text", help="Those with a text in name or description.")
def list(registry: str | None, as_json: bool, namespace: str | None, text: str | None) -> None:  # noqa: A001 - the word that a user writes
    """Tell which collections there are."""
    from . import look  # SQL takes time to import, too

    with look.opened(registry) as found:
        look.print_rows(look.collections(found, namespace, text), as_json=as_json, nothing="there are no collections")


@_looking
@_name
@_version
def show(registry: str | None, as_json: bool, name: str, version: int | None) -> None:
    """Tell what a collection is, and what it has."""
    from . import look

    with look.opened(registry) as found:
        look.print_facts(look.facts(found, name, version), as_json=as_json)


@_looking
@_name
@_version
@_filters
@_limit
def partitions(registry: str | None, as_json: bool, name: str, **chosen: Any) -> None:
    """Tell which partitions a collection has."""
    from . import look

    with look.opened(registry) as found:
        look.print_rows(look.partitions(found, name, **chosen), as_json=as_json, nothing="there are no such partitions")


@_looking
@_name
@_filters
@_limit
def versions(registry: str | None, as_json: bool, name: str, **chosen: Any) -> None:
    """Tell which versions a collection has, or which of them touched some partitions; the newest first."""
    from . import look

    with look.opened(registry) as found:
        look.print_rows(look.versions(found, name, **chosen), as_json=as_json, nothing="there are no such versions")


@_looking
@_name
@click.option("--since", type=int, required=True, help="The number of the older version.")
@click.option("--until", type=int, help="That of the later one; the newest if it is left out.")
@_limit
def changes(registry: str | None, as_json: bool, name: str, **chosen: Any) -> None:
    """Tell what changed between two versions of a collection, partition by partition."""
    from . import look

    with look.opened(registry) as found:
        look.print_rows(look.changes(found, name, **chosen), as_json=as_json, nothing="no partition changed")


@_looking
@_name
@_filters
@click.option(
    "--trust", "trusted", multiple=True, metavar="MODULE", help="Import functions from it, and below; may be repeated."
)
@click.option("--dry-run", is_flag=True, help="Compute nothing.")
@click.option("--message", default="", help="Recorded with the version.")
def sync(registry: str | None, as_json: bool, name: str, **chosen: Any) -> None:
    """Compute what of a view is stale, and tell which partitions that was."""
    from . import look
    from .sync import synced  # the arrays' libraries, too

    with look.opened(registry) as found:
        look.print_rows(synced(found, name, **chosen), as_json=as_json, nothing="nothing is stale")


_grace = click.option("--grace", default="1d", show_default=True, help="How long what was given up stays: 12h, 7d.")
_dry_run = click.option("--dry-run", is_flag=True, help="Change nothing, and tell what would be done.")


@_looking
@_name
@click.option("--keep", type=click.IntRange(1), help="How many of the newest versions stay.")
@click.option("--older-than", metavar="SPAN", help="Versions that were committed longer ago expire: 30d.")
@_grace
@_dry_run
@click.option("--message", default="", help="Recorded with the transaction.")
def expire(registry: str | None, as_json: bool, name: str, **chosen: Any) -> None:
    """Give up old versions of a collection, by --keep or --older-than; vacuum deletes what no other version has."""
    from . import look
    from .retention import expired, print_report

    with look.opened(registry) as found:
        print_report(expired(found, name, **chosen), as_json=as_json)


@_looking
@click.argument("name", required=False)
@_grace
@_dry_run
def vacuum(registry: str | None, as_json: bool, name: str | None, **chosen: Any) -> None:
    """Delete what is nobody's any more of a collection, or of all that the registry has and had."""
    from . import look
    from .retention import print_report, vacuumed

    with look.opened(registry) as found:
        print_report(vacuumed(found, name, **chosen), as_json=as_json)
