"""Space comes back: what expires, what a vacuum deletes and when, and what those are told who wanted it."""

import datetime as dt
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3fs
import xarray as xr
from click.testing import CliRunner

import intake_zcollection as izc
from intake_zcollection.cli import main
from intake_zcollection.execution import Execution
from intake_zcollection.storage import layout
from intake_zcollection.storage.objects import FsspecStore, LocalStore
from registry.transaction import Transaction
from tests.conftest import Store, make_grid
from tests.retention import NOTHING_LEFT, groups_among, let_pass, named_groups, rows_left
from tests.s3 import S3Server
from tests.sql import run_sql
from tests.views import DOUBLE, double, view_of, winter_in
from tests.views import days as days_of

Make = Callable[..., izc.Collection]

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


def days(first: str, count: int, level: float = 0.0) -> xr.Dataset:
    """So many days of one value each."""
    time = np.datetime64(first, "ns") + np.arange(count) * np.timedelta64(1, "D")
    return xr.Dataset({"ssh": ("time", np.full(count, level)), "x": ("n", [1.0])}, {"time": time})


def levels(collection: izc.Collection, **at: int) -> list[float]:
    """The values of all rows."""
    found = collection.at(**at) if at else collection
    return found.load().ssh.values.tolist()


def corrected(make_collection: Make, **options: Any) -> izc.Collection:
    """A collection of four days, which came in version 1 and were corrected twice."""
    collection = make_collection(days("2022-01-01", 4), merge="upsert", **options)
    for level in range(3):
        collection.insert(days("2022-01-01", 4, level))
    return collection


@pytest.fixture
def collection(make_collection: Make) -> izc.Collection:
    return corrected(make_collection)


def objects(collection: izc.Collection) -> set[str]:
    root = Path(collection.location)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


# Expire and vacuum


def test_what_expired_is_deleted_after_the_grace_and_what_stays_is_read(
    registry: izc.Registry, make_collection: Make, store: Store
) -> None:
    collection = corrected(make_collection, location=store.location("c"), storage_options=store.storage_options)
    assert len(groups_among(store.objects(collection.location))) == 4
    report = collection.expire(keep=1)
    assert (report.versions, report.groups, report.nbytes > 0) == ((0, 1, 2), 2, True)
    assert collection.vacuum().groups == 0
    let_pass(registry, DAY)
    freed = collection.vacuum()
    assert (freed.ok, freed.groups, freed.nbytes) == (True, 2, report.nbytes)
    assert groups_among(store.objects(collection.location)) == named_groups(registry)
    assert rows_left(registry) == NOTHING_LEFT
    assert levels(collection) == [2.0] * 4
    assert collection.validate().ok
    assert collection.vacuum().groups == 0


def test_a_dry_run_of_either_tells_the_same_and_changes_nothing(
    registry: izc.Registry, collection: izc.Collection
) -> None:
    before = objects(collection)
    told = collection.expire(keep=2, dry_run=True)
    assert [each.expired_at for each in collection.versions()] == [None] * 4
    done = collection.expire(keep=2, older_than="0s", grace="0s")
    assert (
        (told.versions, told.groups, told.nbytes)
        == (done.versions, done.groups, done.nbytes)
        == ((0, 1), 1, done.nbytes)
    )
    assert "a dry run" in str(told)
    would = collection.vacuum(dry_run=True)
    assert objects(collection) == before
    freed = izc.vacuum(registry)
    assert (would.groups, would.nbytes) == (freed.groups, freed.nbytes) == (1, done.nbytes)
    assert len(before) > len(objects(collection))


def test_reports_print_what_they_tell(registry: izc.Registry, collection: izc.Collection) -> None:
    with collection.at(version=1).pin():
        assert repr(collection.expire(keep=1, grace="0s")).splitlines()[:3] == [
            f"expiry of {collection.name}",
            "  versions  0, 2 (2)",
            "  held      1 (1)",
        ]
    collection.drop_rows(where={"time": ("2022-01-01", "2022-01-01")})
    freed = collection.vacuum()
    assert freed.dead_nbytes > 0
    assert repr(freed).startswith("vacuum: freed: 1 group, ")
    assert f"  {collection.location}  " in repr(freed)


WRONG: list[dict[str, Any]] = [{}, {"keep": 0}, {"older_than": 30}, {"older_than": "30"}, {"keep": 1, "grace": "a day"}]


@pytest.mark.parametrize("wrong", WRONG)
def test_what_says_no_versions_and_no_time_is_refused(collection: izc.Collection, wrong: dict[str, Any]) -> None:
    with pytest.raises(izc.InvalidInputError):
        collection.expire(**wrong)
    with pytest.raises(izc.ReadOnlyError):
        collection.at(version=1).expire(keep=1)


def test_freeing_groups_in_s3_lists_each_once_and_deletes_all_by_one_request(
    registry: izc.Registry, make_collection: Make, s3: S3Server
) -> None:
    url = s3.fresh_url()
    grid = make_grid(days=59)
    collection = make_collection(grid, location=url, storage_options=s3.storage_options)
    collection.insert(grid)
    collection.insert(grid, merge="replace")
    collection.expire(keep=1, grace="0s")
    with s3.traffic(url) as traffic:
        assert collection.vacuum().groups == 2
    methods = [method for method, _, _ in traffic.requests]
    assert (methods.count("POST"), methods.count("DELETE"), methods.count("HEAD")) == (1, 0, 0)
    assert methods.count("GET") <= 4  # a listing of each group, and of where it lay


def test_what_a_store_does_not_delete_is_told_and_stays_to_be_deleted(
    registry: izc.Registry, make_collection: Make, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> list[str]:
        return []  # as it does where it may not delete

    collection = corrected(make_collection, location=s3.fresh_url(), storage_options=s3.storage_options)
    collection.expire(keep=1, grace="0s")
    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "_bulk_delete", refuse)
        report = collection.vacuum()
    assert not report.ok
    assert "there still" in repr(report)
    assert rows_left(registry)["garbage"] == 2
    assert collection.vacuum().ok
    assert rows_left(registry) == NOTHING_LEFT


def test_a_location_that_cannot_be_reached_keeps_no_other_from_being_vacuumed(
    registry: izc.Registry, make_collection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = corrected(make_collection), corrected(make_collection)
    for each in (bad, good):
        each.expire(keep=1, grace="0s")
    remove = FsspecStore.remove

    def refuse(store: LocalStore, *args: Any) -> None:
        if store._url == bad.location:
            raise izc.StorageUnavailableError("no disk")
        remove(store, *args)

    with monkeypatch.context() as patch:
        patch.setattr(FsspecStore, "remove", refuse)
        report = izc.vacuum(registry)
    assert {each.location: each.problem for each in report.places} == {bad.location: "no disk", good.location: ""}
    assert rows_left(registry)["garbage"] == 2
    assert izc.vacuum(registry).groups == 2


def test_nothing_is_deleted_but_groups(registry: izc.Registry, collection: izc.Collection) -> None:
    collection.expire(keep=1, grace="0s")
    before = objects(collection)
    for wrong in ("", "year=2022", "..", f"../{'0' * 32}", f"/{'0' * 32}"):
        run_sql(registry, "UPDATE garbage SET path = ?", wrong)
        assert "no path of a group" in collection.vacuum().places[0].problem
    assert objects(collection) == before


def test_the_entries_of_an_index_go_with_the_rows_that_they_are_of(
    registry: izc.Registry, collection: izc.Collection
) -> None:
    collection.add_variable(izc.Variable("pass", "i4", ("time",), fill_value=0))
    collection.update(lambda data: {"pass": np.arange(data.sizes["time"], dtype="i4")})
    collection.create_index("passes", ("pass",))
    collection.insert(days("2022-01-02", 1, 5), missing="fill")
    found = collection.load(index={"pass": 3}).ssh.values.tolist()
    collection.expire(keep=1, grace="0s")
    report = collection.vacuum()
    select = "SELECT group_uid FROM {} WHERE layer_id < -1"
    uids = f"{select.format('fragment')} UNION {select.format('past_fragment')}"
    assert set(run_sql(registry, "SELECT uid FROM index_entry")) == set(run_sql(registry, uids)) != set()
    assert groups_among(objects(collection)) == named_groups(registry)
    assert (report.ok, found) == (True, collection.load(index={"pass": 3}).ssh.values.tolist())


# What the dead leave


@pytest.fixture
def dead(registry: izc.Registry, collection: izc.Collection, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The group that a writer put down before it was killed."""
    before = groups_among(objects(collection))
    with monkeypatch.context() as patch:
        # What a killed process does: nothing more.
        patch.setattr("registry.transaction.Transaction.commit", _die)
        patch.setattr("registry.transaction.Transaction.__exit__", lambda *_: None)
        patch.setattr("intake_zcollection.writing.write.remove_attempts", lambda *_: None)
        patch.setattr("registry.transaction.Transaction.abort", lambda _: False)
        with pytest.raises(KeyboardInterrupt):
            collection.insert(days("2022-02-01", 2))
    (uid,) = groups_among(objects(collection)) - before
    return Path(collection.location, "year=2022", "month=02", uid)


def _die(*_: Any) -> None:
    raise KeyboardInterrupt


def test_what_a_dead_writer_put_down_is_deleted_once_nobody_can_commit_it_and_once_more(
    registry: izc.Registry, collection: izc.Collection, dead: Path
) -> None:
    assert collection.vacuum().fenced == 0
    let_pass(registry, DAY)
    assert collection.vacuum(dry_run=True).groups == 0  # the lease ran out later than a day ago
    let_pass(registry, HOUR)
    assert (collection.vacuum(dry_run=True).groups, dead.exists()) == (1, True)
    report = collection.vacuum()
    assert (report.fenced, report.groups, dead.parent.exists()) == (1, 1, False)
    late = dead.with_name(dead.name[:24] + layout.new_attempt())
    late.mkdir(parents=True)  # a worker of it was at work still
    assert collection.vacuum().groups == 0
    let_pass(registry, DAY)
    assert collection.vacuum().groups == 1
    assert not late.exists()
    assert rows_left(registry) == NOTHING_LEFT
    assert groups_among(objects(collection)) == named_groups(registry)


def test_a_writer_that_was_fenced_cannot_commit_any_more(
    registry: izc.Registry, collection: izc.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Transaction.commit

    def late(self: Transaction, commits: Any) -> Any:
        let_pass(registry, 2 * DAY)
        assert collection.vacuum().fenced == 1
        return commit(self, commits)

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "commit", late)
        with pytest.raises(izc.TransactionClosedError, match="expired"):
            collection.insert(days("2022-02-01", 2))
    assert collection.version.number == 3
    assert groups_among(objects(collection)) == named_groups(registry)


@pytest.mark.parametrize("conflict", [False, True])
def test_what_lost_attempts_of_a_cluster_write_is_deleted_and_the_committed_one_stays(
    registry: izc.Registry, collection: izc.Collection, monkeypatch: pytest.MonkeyPatch, conflict: bool
) -> None:
    monkeypatch.setattr(Execution, "tries_again", True)
    other = izc.open_collection(registry, collection.name)
    overtake: list[Callable[[], Any]] = [lambda: other.insert(days("2022-02-02", 1, 9))]

    def data() -> xr.Dataset:
        return days("2022-02-02", 1, 7)

    if conflict:
        commit = Transaction.commit

        def overtaken(self: Transaction, commits: Any) -> Any:
            if overtake:
                overtake.pop()()
            return commit(self, commits)

        monkeypatch.setattr(Transaction, "commit", overtaken)
    collection.insert(data())
    kept = named_groups(registry)
    for path in {Path(collection.location, each).parents[1] for each in objects(collection) if "month=02" in each}:
        path.with_name(path.name[:24] + layout.new_attempt()).mkdir()
    let_pass(registry, DAY)
    collection.vacuum()
    month = Path(collection.location, "year=2022", "month=02")
    assert {each.name for each in month.iterdir()} <= kept
    assert collection.load(filters="month == 2").ssh.values.tolist() == [7.0]
    let_pass(registry, DAY)
    collection.vacuum()
    assert rows_left(registry) == NOTHING_LEFT
    assert levels(collection)[-1] == 7.0


def drop_and_create_halfway(registry: izc.Registry, collection: izc.Collection, elsewhere: Path) -> None:
    """Leave what a killed dropper does, and killed creators at another place, whose leases have run out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FsspecStore, "remove", _die)
        with pytest.raises(KeyboardInterrupt):
            izc.drop_collection(registry, collection.name)
        patch.setattr("registry.creation.Creation.record", _die)
        patch.setattr("registry.transaction.Transaction.abort", lambda _: False)
        with pytest.raises(KeyboardInterrupt):
            izc.create_collection(
                *(registry, "made/never", days("2022-01-01", 1)),
                axis="time",
                partitioning=izc.Date("time", "M"),
                location=str(elsewhere),
            )
    (elsewhere / f".zcollection.{'0' * 32}").touch()  # another one, killed earlier
    assert (Path(collection.location) / ".zcollection").exists()
    run_sql(registry, "UPDATE \"transaction\" SET lease_until = '2022-01-01 00:00:00.000000' WHERE state = 'open'")


def test_what_a_killed_drop_left_and_a_killed_creator_is_deleted_with_its_mark(
    registry: izc.Registry, collection: izc.Collection, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    drop_and_create_halfway(registry, collection, elsewhere)
    report = izc.vacuum(registry)
    assert (report.ok, report.fenced) == (True, 1)
    assert not Path(collection.location).exists()
    assert not elsewhere.exists()
    assert rows_left(registry) == NOTHING_LEFT


def test_the_mark_of_a_collection_that_is_there_is_left_alone(
    registry: izc.Registry, collection: izc.Collection
) -> None:
    place = "SELECT id, location, storage_options, '.zcollection', ? FROM collection"
    insert = "INSERT INTO garbage (collection_id, location, options, path, not_before) "
    run_sql(registry, insert + place.replace("?", "'2022-01-01 00:00:00.000000'"))
    assert izc.vacuum(registry).ok
    assert (Path(collection.location) / ".zcollection").exists()


# Readers


def test_a_pinned_version_is_read_and_kept_while_the_block_runs(
    registry: izc.Registry, collection: izc.Collection
) -> None:
    with collection.at(version=1).pin(lease="10min") as snapshot:
        assert (snapshot.version.number, snapshot.read_only) == (1, True)
        assert collection.expire(keep=1, grace="0s").held == (1,)
        collection.vacuum()
        assert levels(snapshot) == [0.0] * 4
    with collection.pin() as snapshot:
        collection.insert(days("2022-01-01", 4, 9))
        collection.expire(keep=1, grace="0s")
        collection.vacuum()
        assert levels(snapshot) == [2.0] * 4
    assert rows_left(registry)["pin"] == 0
    expired = collection.at(version=4)
    collection.insert(days("2022-01-01", 4, 10))
    collection.expire(keep=1)
    with pytest.raises(izc.VersionExpiredError), expired.pin():
        pass


def test_what_was_loaded_lazily_of_a_version_that_is_vacuumed_then_has_expired(
    registry: izc.Registry, collection: izc.Collection
) -> None:
    lazy, lazier = collection.at(version=1).load(), collection.at(version=1).load(chunks=None)
    collection.expire(keep=1)
    assert lazy.ssh.values.tolist() == [0.0] * 4  # it is there, for a day
    let_pass(registry, DAY)
    collection.vacuum()
    for each in (lazy, lazier):
        with pytest.raises(
            izc.VersionExpiredError, match=r"version 1 of collection made/c0 expired at .* since this was"
        ):
            each.ssh.compute()
    with pytest.raises(izc.VersionExpiredError, match="version 1 of collection made/c0 expired"):
        izc.open_collection(registry, collection.name, version=1)


def test_a_missing_object_of_what_stays_is_corrupt(collection: izc.Collection) -> None:
    lazy = collection.load()
    collection.expire(keep=1, grace="0s")
    collection.vacuum()
    shutil.rmtree(Path(collection.location) / "year=2022")
    with pytest.raises(izc.CorruptedDataError):
        lazy.ssh.compute()
    with pytest.raises(izc.CorruptedDataError):
        levels(collection)


# Views


@pytest.fixture
def base(registry: izc.Registry, tmp_path: Path) -> izc.Collection:
    return winter_in(registry, tmp_path / "base")


def correct(base: izc.Collection, month: int, level: float) -> None:
    base.insert(days_of(f"2022-0{month}-01", 1, level), merge="upsert")


def test_a_version_that_a_view_is_pinned_at_is_held_through_views_over_it(
    registry: izc.Registry, base: izc.Collection, tmp_path: Path
) -> None:
    under = view_of(base)
    under.update(double, outputs=[DOUBLE], rowwise=True)
    over = izc.create_view(registry, "made/over", under, location=f"{tmp_path}/over", pinned_version=under.version)
    before = over.load().compute()
    for level in range(2):
        correct(base, 1, level)
        under.sync()
    assert (base.expire(keep=1).held, under.expire(keep=1).held) == ((1,), (1,))
    xr.testing.assert_identical(over.load().compute(), before)


def test_stale_values_whose_base_version_has_expired_say_what_to_do(
    registry: izc.Registry, base: izc.Collection
) -> None:
    view = view_of(base)
    view.update(double, outputs=[DOUBLE])
    lazy = view.load()
    for level in (100.0, 200.0):
        base.insert(days_of("2022-02-01", 28, level), merge="replace")
    assert float(view.load(filters="month == 2").ssh.max()) == 58.0  # as it was when that was computed
    base.expire(keep=1, grace="0s")
    with pytest.raises(izc.StaleViewError, match=r"values of year=2022/month=02 are stale.*version 1.*sync\(\).*fill"):
        view.load()
    assert np.isnan(view.load(filters="month == 2", stale="fill").double.values).all()
    assert view.load(filters="month == 1").double.notnull().all()
    base.vacuum()
    with pytest.raises(izc.VersionExpiredError, match="version 1 of collection"):
        lazy.sel(time="2022-02-01").ssh.compute()
    view.sync()
    assert float(view.load(filters="month == 2").double[0]) == 2 * 231.0
    assert view.is_synced()


def test_a_view_stays_placed_over_what_came_since_versions_that_have_expired(base: izc.Collection) -> None:
    view = view_of(base)
    view.update(double, outputs=[DOUBLE], rowwise=True)
    base.insert(days_of("2021-12-30", 2))
    base.drop_rows(where={"time": ("2022-01-10", "2022-01-12")})
    base.insert(days_of("2022-01-10", 3), merge="upsert")
    before, stale = view.load(stale="fill").compute(), {str(each): each.reason for each in view.stale().values()}
    base.expire(keep=1)
    xr.testing.assert_identical(view.load(stale="fill").compute(), before)
    assert {str(each): each.reason for each in view.stale().values()} == stale


def test_a_view_is_not_pinned_at_a_version_that_has_expired(base: izc.Collection) -> None:
    view = view_of(base)
    correct(base, 1, 1.0)
    base.expire(keep=1)
    with pytest.raises(izc.VersionExpiredError):
        view.sync(pinned_version=1)
    with pytest.raises(izc.VersionExpiredError):
        view_of(base, name="made/pinned", location=f"{base.location}_pinned", pinned_version=1)


# Whoever looks after it


def test_a_write_tells_in_its_log_how_much_is_due(collection: izc.Collection, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "intake_zcollection.writing.write"):
        collection.insert(days("2022-02-01", 1))
        assert "due" not in caplog.text
        nbytes = collection.expire(keep=1, grace="0s").nbytes
        collection.insert(days("2022-02-02", 1))
    assert f"{collection.name}: 2 groups, {nbytes} bytes, are due to be vacuumed" in caplog.text


def test_versions_expire_and_space_comes_back_by_commands(registry: izc.Registry, collection: izc.Collection) -> None:
    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(main, [*arguments, "-r", str(registry._url), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    told = run("expire", collection.name, "--keep", "2", "--dry-run")
    assert (told["versions"], told["not_before"]) == ([0, 1], None)
    done = run("expire", collection.name, "--keep", "2", "--grace", "0s")
    assert (done["versions"], done["groups"], done["nbytes"]) == (told["versions"], told["groups"], told["nbytes"])
    assert [bool(row["expired"]) for row in run("versions", collection.name)] == [False, False, True, True]
    assert run("vacuum", collection.name, "--dry-run")["groups"] == 1
    freed = run("vacuum")
    assert (freed["groups"], freed["places"][0]["location"]) == (1, collection.location)
    assert CliRunner().invoke(main, ["expire", collection.name, "-r", str(registry._url)]).exit_code == 1


def test_a_vacuum_that_could_not_delete_fails_as_a_command(registry: izc.Registry, collection: izc.Collection) -> None:
    collection.expire(keep=1, grace="0s")
    run_sql(registry, "UPDATE garbage SET path = '..'")
    done = CliRunner().invoke(main, ["vacuum", "-r", str(registry._url)])
    assert done.exit_code == 1
    assert "no path of a group" in done.output
