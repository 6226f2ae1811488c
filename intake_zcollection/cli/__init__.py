"""The command line, ``zregistry``."""

import click


@click.group()
@click.version_option(package_name="intake-zcollection")
def main() -> None:
    """Collections of array data in Zarr, recorded in an SQL registry."""


@main.command()
def demo() -> None:
    """Tell the whole idea in a minute, on real data.

    Makes a collection of sea surface temperatures below ./zcollection-demo, and opens it through intake.
    """
    from .demo import run_demo  # the arrays' libraries take seconds to import: only for commands that need them

    run_demo()
