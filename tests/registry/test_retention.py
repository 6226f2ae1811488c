"""What expires and what stays: by uids, whatever versions have rows of a group; pins, pinned views and hunks."""

import datetime as dt
import threading
from collections.abc import Callable
from typing import Any

import pytest

from registry import (
    CollectionRecord,
    Cut,
    Expired,
    Expiring,
    InvalidInputError,
    KeyValues,
    NotFoundError,
    Registry,
    Run,
    Selection,
    Statistic,
    VersionExpiredError,
    pad_key,
)
from registry.changes import ClosePartitions, Commit, PutFragments
from registry.sql import tables
from registry.sql.engine import writing
from tests.conftest import both_engines

from .conftest import Sql, change, commit, drop, eventually, fragment, live_uids, write
from .test_parts import kept, part

pytestmark = both_engines

NOW = dt.datetime.now(dt.UTC)

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


def path_of(names: Any, slot: Any, uid: str) -> str:
    return f"{'/'.join(map(str, slot.key[: len(names)]))}/{uid}"


def expire(registry: Registry, keep: int | None = 1, name: str = "made/a", **options: Any) -> Expired:
    older_than = options.pop("older_than", None)
    return registry.expire(name, Expiring(keep, older_than), path_of, **options)


def garbage(sql: Sql) -> set[str]:
    """The uids of what may be deleted, one day."""
    return {path.rpartition("/")[2] for (path,) in sql("SELECT path FROM garbage")}


def expired(registry: Registry, name: str = "made/a") -> list[int]:
    return [each.number for each in registry.versions(name) if each.expired_at is not None]


def overwrite(registry: Registry, collection: CollectionRecord, times: int, *key: int) -> list[str]:
    """Write a partition anew, some times; return the uids of its groups."""
    return [_written(registry, collection, key or (2022, 1)) for _ in range(times)]


def _written(registry: Registry, collection: CollectionRecord, key: KeyValues) -> str:
    each = fragment(*key)
    write(registry, collection, each)
    return each.uid


# Which versions


def test_the_newest_versions_stay_and_the_others_are_listed_as_expired(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    uids = overwrite(registry, collection, 4)
    done = expire(registry, keep=2)
    assert (done.versions, done.held, done.groups, done.nbytes) == ((0, 1, 2), (), 2, 160)
    assert expired(registry) == [0, 1, 2]
    assert [each.number for each in registry.versions("made/a")] == [0, 1, 2, 3, 4]
    assert garbage(sql) == set(uids[:2])
    assert live_uids(registry, version=3) == {(2022, 1): (uids[2],)}
    with pytest.raises(VersionExpiredError, match="version 2 of collection made/a expired at"):
        registry.partitions("made/a", version=2)
    expired_at = registry.versions("made/a")[0].expired_at
    assert done.not_before is not None
    assert expired_at is not None
    assert done.not_before - expired_at == DAY
    assert expire(registry, keep=2).versions == ()
    assert write(registry, collection, fragment(2022, 1)).number == 5


def test_versions_expire_by_their_age_and_both_have_to_be_met(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    overwrite(registry, collection, 4)
    sql("UPDATE version SET committed_at = '2022-01-01 00:00:00.000000' WHERE version < 3")
    assert expire(registry, None, older_than=100 * 365 * DAY).versions == ()
    assert expire(registry, 4, older_than=DAY).versions == (0,)
    assert expire(registry, None, older_than=DAY).versions == (1, 2)
    assert expire(registry, None, older_than=0 * DAY).versions == (3,)
    assert expired(registry) == [0, 1, 2, 3]


@pytest.mark.parametrize("given", [{}, {"keep": 0}, {"keep": True}, {"keep": "3"}])
def test_what_says_no_number_of_versions_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="keep"):
        Expiring(**given)


def test_what_would_expire_is_told_and_nothing_is_changed(
    registry: Registry, collection: CollectionRecord, visible: Callable[[], Any], sql: Sql
) -> None:
    overwrite(registry, collection, 4)
    before = visible()
    expected = registry.expect_expiry("made/a", Expiring(1))
    assert (visible(), garbage(sql)) == (before, set())
    done = expire(registry)
    assert expected.not_before is None
    assert (expected.versions, expected.groups, expected.nbytes) == (done.versions, done.groups, done.nbytes)


def test_a_collection_that_was_dropped_does_not_expire(registry: Registry, collection: CollectionRecord) -> None:
    drop(registry)
    with pytest.raises(NotFoundError, match="dropped"):
        registry.expire(collection, Expiring(1), path_of)


# Which groups: by uids


def test_a_group_of_which_a_row_is_live_or_in_a_version_that_stays_is_kept(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    cut, back, seen = part(0, 9), fragment(2022, 2), fragment(2022, 3)
    write(registry, collection, cut, back, seen)
    between = Cut(pad_key((2022, 1)), 0, (kept(0, 3), kept(6, 9)))
    new = part(4, 5, key=(2022, 1))
    commit(
        registry,
        change(collection, new, cuts=(between,), runs=(Run(pad_key((2022, 1)), (4, 5)),)),
    )
    write(registry, collection, fragment(2022, 2))
    write(registry, collection, back)  # as a restore does
    write(registry, collection, fragment(2022, 2), fragment(2022, 3))
    assert expire(registry, keep=2).versions == (0, 1, 2, 3)
    rows = {uid for (uid,) in sql("SELECT group_uid FROM fragment UNION SELECT group_uid FROM past_fragment")}
    assert {cut.uid, back.uid, seen.uid} <= rows
    assert len(garbage(sql)) == 1  # that which was there when it was not
    assert not garbage(sql) & rows
    assert sql("SELECT DISTINCT begin_version FROM past_fragment WHERE end_version < 5") == []
    expire(registry)
    assert {seen.uid, back.uid} <= garbage(sql)
    assert cut.uid not in garbage(sql)


def test_what_was_closed_between_versions_that_stay_is_kept_and_gaps_are_not(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    uids = overwrite(registry, collection, 6)
    with registry.pin((collection, 2), (collection, 4), lease=HOUR):
        done = expire(registry)
    assert (done.versions, done.held) == ((0, 1, 3, 5), (2, 4))
    assert garbage(sql) == {uids[0], uids[2], uids[4]}
    assert live_uids(registry, version=2) == {(2022, 1): (uids[1],)}
    expire(registry)
    assert garbage(sql) == set(uids[:5])


def test_what_is_known_of_a_group_goes_with_it_and_the_immutable_variables_too(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    for _ in range(2):
        rows, once = fragment(2022, 1), fragment(layer=-1)
        known = Statistic(rows.uid, 1, 0, 10, 0.0, 1.0, 0)
        put = PutFragments((rows, once), (), (Run(pad_key((2022, 1))),), (), (known,))
        commit(registry, Commit(collection, "insert", (), (put,)))
    expire(registry)
    assert sql("SELECT uid FROM statistic") == [(rows.uid,)]
    assert len(garbage(sql)) == 2
    assert once.uid not in garbage(sql)


# Which hunks


def test_hunks_after_the_oldest_version_stay_and_the_last_of_each_partition(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    overwrite(registry, collection, 1, 2022, 1)
    overwrite(registry, collection, 3, 2022, 2)
    before = registry.changes("made/a", 4), registry.diff("made/a", 3).partitions
    expire(registry, keep=2)
    assert (registry.changes("made/a", 4), registry.diff("made/a", 3).partitions) == before
    assert sorted(sql("SELECT k1, version FROM change")) == [(1, 1), (2, 3), (2, 4)]
    late = ClosePartitions(Selection(), registry.versions("made/a")[3].committed_at)  # 3 is not before itself
    (version,) = registry.commit(Commit(collection, "drop_partitions", updates=(late,)))
    assert version.summary["dropped"] == 1


# Who holds


def test_a_pin_holds_its_version_while_its_block_runs(registry: Registry, collection: CollectionRecord) -> None:
    overwrite(registry, collection, 3)
    with registry.pin((collection, 1), lease=HOUR):
        assert expire(registry).held == (1,)
    assert expire(registry).versions == (1,)


def test_a_version_that_has_expired_is_not_pinned_and_leaves_no_pin(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    overwrite(registry, collection, 2)
    expire(registry)
    with pytest.raises(VersionExpiredError), registry.pin((collection, 2), (collection, 1), lease=HOUR):
        pass
    assert sql("SELECT * FROM pin") == []


def test_the_version_that_an_open_transaction_reads_is_held_until_its_lease_runs_out(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    overwrite(registry, collection, 3)
    with registry.begin((collection, 1)):
        assert expire(registry).held == (1,)
        sql("UPDATE pin SET lease_until = '2022-01-01 00:00:00.000000'")
        assert expire(registry).versions == (1,)


def test_a_pin_is_renewed_and_one_that_lapsed_is_not_once_its_version_has_expired(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    overwrite(registry, collection, 3)
    with registry.pin((collection, 1), lease=HOUR) as pin:
        sql("UPDATE pin SET lease_until = '2022-01-01 00:00:00.000000'")
        assert pin._renew()
        assert expire(registry).held == (1,)
        sql("UPDATE pin SET lease_until = '2022-01-01 00:00:00.000000'")
        assert expire(registry).versions == (1,)
        assert not pin._renew()
    assert sql("SELECT * FROM pin") == []


@pytest.mark.one_engine("postgres", "in SQLite, who writes is alone")
def test_who_pins_while_versions_expire_waits_and_is_told(registry: Registry, collection: CollectionRecord) -> None:
    overwrite(registry, collection, 2)
    told: list[BaseException] = []

    def pin() -> None:
        try:
            with registry.pin((collection, 1), lease=HOUR):
                pass
        except VersionExpiredError as error:
            told.append(error)

    waiting = threading.Thread(target=pin)
    with writing(registry._url) as connection:
        connection.execute(tables.collection.select().with_for_update())
        waiting.start()
        assert not eventually(lambda: not waiting.is_alive(), 0.2)
        connection.execute(tables.version.update().where(tables.version.c.version == 1).values(expired_at=NOW))
    waiting.join(20)
    assert told
