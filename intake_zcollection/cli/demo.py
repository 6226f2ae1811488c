"""``zregistry demo``: from files to a versioned, lazily opened collection."""

import os
import shutil
from importlib import import_module, resources
from pathlib import Path

import click
import intake
import xarray as xr
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.tree import Tree

from registry import Registry, Version, connect

from ..collection import Collection
from ..errors import ZCollectionError
from ..opening import create_collection, create_view
from ..partitioning import Date
from ..schema import Variable

FOLDER = Path("zcollection-demo")
REGISTRY = f"sqlite:///{FOLDER}/registry.db"
CORRECTED = "2008-01"

console = Console(highlight=False)


def run_demo() -> None:
    """Run all steps, printing what each does."""
    source = _open_source()
    _start_anew()
    try:
        _tell(source)
    except ZCollectionError as error:
        raise click.ClickException(str(error)) from error
    finally:
        source.close()


def _tell(source: xr.Dataset) -> None:
    _title("1  A registry, and a collection divided by year")
    registry = connect(REGISTRY, create=True)
    _code(f"""
        registry = izc.connect("{REGISTRY}", create=True)
        collection = izc.create_collection(
            registry, "demo/sst", template=dataset, axis="time",
            partitioning=izc.Date("time", "Y"), location="{FOLDER}/sst",
        )""")
    collection = create_collection(
        registry,
        "demo/sst",
        source,
        axis="time",
        partitioning=Date("time", "Y"),
        location=str(FOLDER / "sst"),
        description="Sea surface temperature around the equator, monthly means 2006–2010 (OSTIA)",
    )

    _title("2  A file arrives each month: appended to its year, one version each")
    _code("""
        for month in ("2006-04", "2006-05", …):
            collection.insert(dataset.sel(time=month), message=f"{month} arrived")""")
    for month in source.time.dt.strftime("%Y-%m").values.tolist():
        collection.insert(source.sel(time=month), message=f"{month} arrived")
    _show_partitions(collection)

    _title("3  A month comes again, corrected: no other month is written")
    _code(f'collection.insert(corrected, merge="upsert", message="{CORRECTED} corrected")')
    corrected = source.sel(time=CORRECTED).load()
    corrected["surface_temperature"] -= 0.25  # a made correction: the real data needs none
    last = collection.insert(corrected, merge="upsert", message=f"{CORRECTED} corrected")
    _show_versions(registry)

    _title("4  Anybody opens it through intake: lazily, from the registry alone")
    catalog_path = resources.files("intake_zcollection") / "catalogs" / "demo.yaml"
    with resources.as_file(catalog_path) as path:
        catalog = intake.open_catalog(str(path))
        _show_catalog(catalog)
        _code("dataset = catalog.sst.to_dask()")
        console.out(str(catalog.sst.to_dask()))
        _title("5  Every version can be read, now and later")
        _compare_versions(catalog, last)

    _title("6  A view: variables of one's own over a collection that it never writes")
    _compute_over(registry, last)

    _title("7  On disk: plain Zarr, which any Zarr library opens")
    _show_tree(collection)
    _show_next_steps()


def _open_source() -> xr.Dataset:
    try:
        folder = Path(import_module("iris_sample_data").path)
        return xr.open_dataset(folder / "ostia_monthly.nc", engine="h5netcdf", decode_timedelta=False)
    except (ImportError, ValueError) as error:  # xarray reports a missing engine as a ValueError
        raise click.ClickException(
            f"the demo needs its data and a NetCDF reader ({error}): pip install 'intake-zcollection[demo]'"
        ) from error


def _start_anew() -> None:
    """Delete what an earlier run made, and nothing else."""
    console.print(f"Everything is written to [b]{FOLDER.absolute()}[/b], and nowhere else.")
    console.print(
        "The data is the Met Office's OSTIA sea surface temperature, from iris-sample-data, "
        "under the UK Open Government Licence."
    )
    mark = FOLDER / ".made-by-zregistry-demo"
    if FOLDER.exists() and not mark.exists():
        raise click.ClickException(
            f"{FOLDER.absolute()} exists and was not made by this demo: move it, or run elsewhere"
        )
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    mark.touch()
    os.environ.pop("ZC_DEMO_REGISTRY", None)  # the catalog's other registry is not this run's


def _title(text: str) -> None:
    console.print()
    console.rule(f"[b]{text}", align="left")


def _code(text: str) -> None:
    lines = text.strip("\n").splitlines()
    indent = min(len(line) - len(line.lstrip()) for line in lines)
    code = "\n".join(f"    {line[indent:]}" for line in lines)
    console.print(Syntax(code, "python", background_color="default", word_wrap=True))


def _show_partitions(collection: Collection) -> None:
    _code("""
        for partition in collection.partitions():
            print(partition, partition.rows, partition.parts)""")
    for partition in collection.partitions():
        console.print(f"{partition} {partition.rows} {partition.parts}")


def _show_versions(registry: Registry) -> None:
    _code('registry.versions("demo/sst")[-5:]')
    table = Table(box=None, pad_edge=False)
    for heading in ("version", "at (UTC)", "operation", "message", "created", "rows", "replaced"):
        table.add_column(heading, justify="right" if heading in ("version", "created", "rows", "replaced") else "left")
    for version in registry.versions("demo/sst")[-5:]:
        counts = [str(version.summary.get(name, "")) for name in ("created", "rows", "rows_replaced")]
        committed = f"{version.committed_at:%H:%M:%S}"
        table.add_row(str(version.number), committed, version.operation, version.message, *counts)
    console.print(table)


def _show_catalog(catalog: intake.Catalog) -> None:
    _code('catalog = intake.open_catalog("demo.yaml")')
    for name in catalog:
        parameters = ", ".join(f"{p['name']}={p['default']}" for p in catalog[name].describe()["user_parameters"])
        console.print(f"  [b]{name}[/b]({parameters})  {catalog[name].describe()['description']}")


def _compare_versions(catalog: intake.Catalog, last: Version) -> None:
    before = last.number - 1
    _code(f"""
        for version in ({before}, {last.number}):
            month = catalog.sst(version=version).to_dask().sel(time="{CORRECTED}")
            print(version, float(month.surface_temperature.mean()))""")
    for version in (before, last.number):
        month = catalog.sst(version=version).to_dask().sel(time=CORRECTED)
        console.print(f"{version} {float(month.surface_temperature.mean()):.3f}")


def anomaly(year: xr.Dataset) -> dict[str, xr.DataArray]:
    """Compute what each month has beside the mean of its year."""
    return {"anomaly": year.surface_temperature - year.surface_temperature.mean("time", skipna=False)}


def _compute_over(registry: Registry, last: Version) -> None:
    before = last.number - 1
    _code(f"""
        view = izc.create_view(
            registry, "demo/anomaly", base=collection, pinned_version={before},
            location="{FOLDER}/anomaly",
        )
        new = izc.Variable("anomaly", "f4", ("time", "latitude", "longitude"))
        view.update(anomaly, outputs=[new])
        for change in view.sync(pinned_version={last.number}).values():
            print("computed again:", change, change.reason)""")
    view = create_view(
        registry,
        "demo/anomaly",
        "demo/sst",
        location=str(FOLDER / "anomaly"),
        pinned_version=before,
        description="Sea surface temperature, and what it has beside the mean of its year",
    )
    view.update(anomaly, outputs=[Variable("anomaly", "f4", ("time", "latitude", "longitude"), {"units": "K"})])
    for change in view.sync(pinned_version=last).values():
        console.print(f"computed again: {change}, {change.reason}")
    console.print(f"nothing is stale: {view.is_synced()}")


def _show_tree(collection: Collection) -> None:
    tree = Tree(f"{FOLDER}/")
    tree.add("registry.db")
    tree.add("anomaly/  [dim]←[/dim] [dim]what the view computed")
    branch = tree.add("sst/")
    first, *others = collection.partitions(filters="year == 2008")[0].fragments["time"]
    year, uid = first.split("/")
    (before,) = {group.name for group in (FOLDER / "sst" / year).iterdir()} - {
        path.split("/")[1] for path in (first, *others)
    }
    branch.add("immutable/…")
    branch.add("year=2006/…")
    branch.add("year=2007/…")
    groups = branch.add(f"{year}/")
    group = groups.add(f"{uid}/   [dim]←[/dim] [green]version {collection.version.number}")
    for file in sorted((FOLDER / "sst" / first).rglob("*")):
        if file.is_file() and file.parent.name in (uid, "surface_temperature"):
            group.add(str(file.relative_to(FOLDER / "sst" / first)))
    group.add("time/ …")
    groups.add(f"{before}/   [dim]←[/dim] [dim]the earlier versions")
    groups.add(f"…   [dim]←[/dim] [dim]{len(others)} more, the months from February to December, in both")
    branch.add("…")
    console.print(tree)


def _show_next_steps() -> None:
    console.print()
    console.print("Go on from here, in this directory:")
    _code(f"""
        import intake_zcollection as izc
        izc.open_dataset("{REGISTRY}", "demo/sst", where={{"time": ("2009-06", "2009-08")}})""")
