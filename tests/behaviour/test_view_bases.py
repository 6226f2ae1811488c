"""A view's base is never written: not its files, not a row of it in the registry; and it may lie anywhere."""

import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import intake_zcollection as izc
from registry.sql import tables
from registry.sql.engine import is_sqlite
from tests import verbs
from tests.conftest import Store, make_grid
from tests.processes import start_fork_server
from tests.registry.conftest import only_reading
from tests.s3 import S3Server
from tests.sql import connected, run_sql
from tests.views import ANOMALY, DOUBLE, FEBRUARY, WINTER, anomaly, assert_computed, create_base, days, double, view_of

_processes = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module", autouse=True)
def _children_start_fast() -> None:
    start_fork_server()


def use(base: izc.Collection, name: str) -> None:
    """Do all that a view can do over a base, which gets no new rows meanwhile."""
    view = verbs.view_over(base, name, f"{base.location}_{name[5:]}")
    for call in verbs.VIEW_WRITING.values():
        call(view)
    for call in verbs.VIEW_READING.values():
        call(view)
    reg = base._handle.registry
    copies = [view.copy(f"{name}_copy{n}", f"{view.location}_copy{n}", as_view=bool(n)) for n in (0, 1)]
    view.sync(pinned_version=view.base_version)
    izc.rename_collection(reg, name, f"{name}_renamed")
    for each in (view, *copies):
        izc.drop_collection(reg, each.name)


# In the registry


NOT_THE_BASES = {"pin", "view_need"}
"""What a view may write with its base's number: a lease while it reads, and what it needs."""


def guard(base: izc.Collection) -> None:
    """Have the database raise at whatever writes a row of a collection."""
    reg, id_ = base._handle.registry, base._handle.record.id
    owners = {
        table.name: name
        for table in tables.metadata.sorted_tables
        for name in ("collection_id", "base_id")
        if name in table.columns and table.name not in NOT_THE_BASES
    } | {"collection": "id"}
    assert {"fragment", "past_fragment", "version", "variable", "change", "layer", "staged"} <= owners.keys()
    with connected(reg) as sql:
        if not is_sqlite(reg._url):
            body = "BEGIN RAISE EXCEPTION ''the base is written: % of %'', TG_OP, TG_TABLE_NAME; END"
            sql(f"CREATE FUNCTION guard() RETURNS trigger AS '{body}' LANGUAGE plpgsql")
        for table, owner in owners.items():
            for verb, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("UPDATE", "OLD"), ("DELETE", "OLD")):
                does = f"BEGIN SELECT RAISE(ABORT, 'the base is written: {verb} of {table}'); END"
                sql(
                    f"CREATE TRIGGER guard_{table}_{verb}_{row} BEFORE {verb} ON {table} FOR EACH ROW "
                    f"WHEN ({row}.{owner} = {id_}) {does if is_sqlite(reg._url) else 'EXECUTE FUNCTION guard()'}"
                )


def test_no_verb_of_a_view_writes_a_row_of_its_base(registry: izc.Registry, tmp_path: Path) -> None:
    base = izc.create_collection(
        registry, "made/c", verbs.MORE, axis="time", partitioning=izc.Date("time", "M"), location=f"{tmp_path}/base"
    )
    base.insert(make_grid(days=2))
    base.insert(make_grid("2022-01-11", days=2))
    guard(base)
    use(base, "made/view")
    assert registry.views_of("made/c") == ()
    for verb in ("insert", "update", "set_attributes", "drop_partitions"):
        with pytest.raises(Exception, match="the base is written"):
            verbs.WRITING[verb](base)


def test_no_sync_after_any_change_of_its_base_writes_a_row_of_that(registry: izc.Registry, tmp_path: Path) -> None:
    base = create_base(registry, tmp_path / "base")
    base.insert(WINTER)
    view = view_of(base)
    view.update(double, outputs=[DOUBLE], inputs=["ssh"], rowwise=True)
    view.update(anomaly, outputs=[ANOMALY], inputs=["ssh"], depth=0)
    base.insert(days("2022-02-10", 2, level=100.0))
    base.insert(days("2022-04-01", 2))
    base.drop_partitions(filters="month == 1")
    base.rewrite()
    guard(base)
    view.sync()
    assert_computed(view.load(stale="raise").compute(), "double", "anomaly")
    izc.drop_collection(registry, view.name)


# Its files


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may reach, and write; unlike pytest's, all directories above it, too."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o777)
        yield place


def use_without_writing_its_files(url: str, location: str) -> None:
    base = izc.open_collection(url, "made/c")
    use(base, "made/rehearsed")  # what is imported when it is first needed may lie where nobody cannot read
    base._handle.registry.close()
    directories = [Path(location), *(path for path in Path(location).rglob("*") if path.is_dir())]
    with only_reading(*directories):
        base = izc.open_collection(url, "made/c")
        with pytest.raises(OSError, match="Permission"):
            (Path(location) / "new").write_text("written")
        use(base, "made/view")
        assert base.validate().ok


@pytest.mark.one_engine("postgres", "who reads files is another user than who writes the registry")
def test_no_verb_of_a_view_writes_a_file_of_its_base(registry: izc.Registry, place: Path) -> None:
    base = izc.create_collection(
        registry, "made/c", verbs.MORE, axis="time", partitioning=izc.Date("time", "M"), location=f"{place}/base"
    )
    base.insert(make_grid(days=2))
    with ProcessPoolExecutor(1, _processes) as pool:
        pool.submit(use_without_writing_its_files, registry.url, base.location).result(timeout=60)


# Other places


def test_a_view_lies_in_any_store_over_a_base_on_a_disk(registry: izc.Registry, store: Store, tmp_path: Path) -> None:
    base = create_base(registry, tmp_path / "base")
    base.insert(WINTER)
    options = {store.url: store.storage_options} if store.storage_options else None
    view = view_of(base, location=store.location("view"), storage_options=options)
    view.update(double, outputs=[DOUBLE], inputs=["ssh"], rowwise=True)
    base.insert(days("2022-02-10", 2, level=100.0))
    opened = izc.open_collection(registry, view.name, storage_options=options)
    assert isinstance(opened, izc.View)
    assert list(opened.sync()) == [FEBRUARY]
    assert_computed(opened.load(stale="raise").compute(), "double")
    assert_computed(opened.load(where={"time": ("2022-02-09", "2022-02-11")}, chunks=None).compute(), "double")
    assert opened.validate().ok
    assert any("/double/" in path for path in store.objects(view.location))
    izc.drop_collection(registry, view.name, storage_options=options)
    assert store.objects(view.location) == set()
    assert base.validate().ok


def test_a_view_on_a_disk_lies_over_a_base_in_any_store(registry: izc.Registry, store: Store, tmp_path: Path) -> None:
    options: Any = dict(store.storage_options)
    base = create_base(registry, store.location("base"), storage_options=options)
    base.insert(WINTER)
    before = store.objects(base.location)
    keyed = {store.url: options} if options else None
    view = izc.create_view(registry, "other/view", base.name, location=f"{tmp_path}/view", storage_options=keyed)
    view.update(double, outputs=[DOUBLE], rowwise=True)
    view.update(anomaly, outputs=[ANOMALY], inputs=["ssh"], scheduler="synchronous")
    assert store.objects(base.location) == before
    assert_computed(view.load(stale="raise").compute(), "double", "anomaly")
    base.insert(days("2022-02-10", 2, level=100.0))
    view.sync()
    assert_computed(view.load(stale="raise").compute(), "double", "anomaly")


def test_a_base_and_its_view_have_credentials_of_their_own(registry: izc.Registry, s3: S3Server) -> None:
    here, there = s3.fresh_url(), s3.fresh_url()
    theirs, ours = ({**s3.storage_options, "key": key} for key in ("their-key", "our-key"))
    base = create_base(registry, f"{there}/base", storage_options=theirs)
    base.insert(WINTER)
    options = {there: theirs, here: ours}
    view = izc.create_view(registry, "ours/view", base, location=f"{here}/view", storage_options=options)
    view.update(double, outputs=[DOUBLE], rowwise=True)
    opened = izc.open_collection(registry, "ours/view", storage_options=options)
    keys = [handle.location.storage_options["key"] for handle in (opened._handle, opened._handle.base) if handle]
    assert keys == ["our-key", "their-key"]
    assert_computed(opened.load(stale="raise").compute(), "double")
    record = registry.collection("ours/view")
    assert set(record.storage_options) <= {"endpoint_url"}


def test_flat_options_that_may_be_secret_go_to_one_place_only(registry: izc.Registry, s3: S3Server) -> None:
    base = create_base(registry, s3.fresh_url(), storage_options=s3.storage_options)
    with pytest.raises(izc.InvalidInputError, match=r"key, secret.* which of .*s3://other.*key them by URL prefix"):
        view_of(base, location="s3://other/view", storage_options=s3.storage_options)
    assert registry.views_of(base.name) == ()
    view = view_of(base, location=s3.fresh_url(), storage_options=s3.storage_options)  # they are in one bucket
    run_sql(registry, "UPDATE collection SET location = 's3://other/view' WHERE kind = 'view'")
    with pytest.raises(izc.InvalidInputError, match="key them by URL prefix"):
        izc.open_collection(registry, view.name, storage_options=s3.storage_options)


def test_another_namespace_has_a_view_of_ones_collection(registry: izc.Registry, tmp_path: Path) -> None:
    base = create_base(registry, tmp_path / "base")
    base.insert(WINTER)
    view = izc.create_view(registry, "theirs/view", "made/days", location=f"{tmp_path}/view")
    np.testing.assert_array_equal(view.load().ssh.values, WINTER.ssh.values)
    assert [each.name for each in registry.views_of(base.name)] == ["theirs/view"]
    with pytest.raises(izc.InvalidInputError, match="theirs/view"):
        base.drop_variable("ssh")
