"""Creations and drops in the registry alone: claims, who takes them over, and what a lost connection hides."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.engine import URL

from registry import (
    AlreadyExistsError,
    CollectionRecord,
    ConflictError,
    NotFoundError,
    Registry,
    RegistryUnavailableError,
    Signature,
    TransactionClosedError,
)
from registry.sql.engine import reading
from tests.conftest import both_engines

from .conftest import Sql, change, create, drop, fragment, in_threads, intents, live_uids, make_definition, write

pytestmark = both_engines

SHORT = dt.timedelta(0)
"""A lease that has run out when it is given; its thread would have renewed it."""


@pytest.fixture(autouse=True)
def _nothing_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.transaction.Transaction._renew", lambda self: False)


def claims(sql: Sql) -> list[str]:
    return [location for (location,) in sql("SELECT location FROM claim ORDER BY location")]


def states(sql: Sql) -> list[str]:
    return [state for (state,) in sql('SELECT state FROM "transaction" ORDER BY id')]


def test_a_claim_is_there_until_the_collection_is_recorded(registry: Registry, sql: Sql) -> None:
    with registry.creating(make_definition()) as creation:
        assert (claims(sql), states(sql), registry.collections()) == (["/data/made/a"], ["open"], ())
        record = creation.record()
    assert (claims(sql), states(sql), registry.collections()) == ([], ["committed"], (record,))
    assert record.uid == creation.collection.uid
    assert registry.creator("made/a") == creation.uid


def test_a_creation_that_is_left_is_aborted_and_its_claim_can_be_released(registry: Registry, sql: Sql) -> None:
    with registry.creating(make_definition()) as creation:
        creation.release()
        assert claims(sql) == ["/data/made/a"]  # while it is open, it keeps it
    assert (claims(sql), states(sql)) == (["/data/made/a"], ["aborted"])
    creation.release()
    assert claims(sql) == []


@pytest.mark.parametrize("location", ["/data/x", "/data/x/below", "/data"])
def test_who_lives_keeps_others_out_and_is_told_by_what_it_does(registry: Registry, sql: Sql, location: str) -> None:
    mine = make_definition(location="/data/x")
    told = rf"{location} is not free: me is at work in /data/x since .* UTC \(moving\); wait .* lapses at .* UTC"
    with registry.creating(mine, signature=Signature("me", "moving")) as creation:
        with pytest.raises(AlreadyExistsError, match=told):
            create(registry, "made/b", location=location)
        assert creation.record().location == "/data/x"
    assert states(sql) == ["committed"]


@pytest.mark.parametrize("location", ["/data/x", "/data/x/below", "/data"])
def test_a_claim_that_has_lapsed_is_taken_over_and_its_owner_can_not_record(
    registry: Registry, sql: Sql, location: str
) -> None:
    with registry.creating(make_definition(location="/data/x"), lease=SHORT) as slow:
        other = create(registry, "made/b", location=location)
        with pytest.raises(TransactionClosedError, match="is expired: nothing of it was made visible"):
            slow.record()
    slow.release()
    assert registry.collections() == (other,)
    assert states(sql) == ["expired", "committed"]


def test_a_slow_creator_gives_up_no_claim_but_its_own(registry: Registry, sql: Sql) -> None:
    other = registry.creating(make_definition("made/b", location="/data/made/a"))
    with registry.creating(make_definition(), lease=SHORT) as slow, other:
        assert slow.abort()
        slow.release()
        assert claims(sql) == ["/data/made/a"]
        other.record()


def test_a_slow_creator_whose_claim_nobody_wants_records(registry: Registry) -> None:
    with registry.creating(make_definition(), lease=SHORT) as slow:
        assert slow.record().head_version == 0


def test_a_name_that_is_taken_meanwhile_is_refused_at_the_record(registry: Registry, sql: Sql) -> None:
    with registry.creating(make_definition(location="/data/x")) as creation:
        create(registry, "made/a", location="/data/y")
        with pytest.raises(AlreadyExistsError, match="there is a collection made/a"):
            creation.record()
    assert states(sql) == ["aborted", "committed"]


def test_who_drops_it_at_once_is_told_to_its_creator(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:

    def drop_and_read(url: URL) -> Any:
        monkeypatch.undo()
        drop(registry, "made/a")
        return reading(url)

    monkeypatch.setattr("registry.creation.reading", drop_and_read)
    with pytest.raises(NotFoundError, match="made/a"), registry.creating(make_definition()) as creation:
        creation.record()
    assert registry.collections() == ()


def test_what_is_written_meanwhile_is_recorded_with_the_collection(registry: Registry, sql: Sql) -> None:
    writes = fragment(2022, 1)
    with registry.creating(make_definition()) as creation:
        creation.stage(creation.collection, intents(writes))
        assert sql("SELECT uid, location FROM staged") == [(writes.uid, "/data/made/a")]
        creation.record(change(creation.collection, writes))
    assert live_uids(registry) == {(2022, 1): (writes.uid,)}
    assert [each.operation for each in registry.versions("made/a")] == ["create", "insert"]
    assert sql("SELECT * FROM staged") == []


def attempt(registry: Registry, number: int, location: str) -> bool:
    try:
        create(registry, f"made/c{number}", location=location)
    except AlreadyExistsError:
        return False
    return True


def test_of_many_who_create_above_and_below_each_other_one_succeeds(registry: Registry, sql: Sql) -> None:
    places = ["/data", "/data/x", "/data/x/y", "/data/x/y/z"]
    assert sum(in_threads(attempt, [(registry, number, place) for number, place in enumerate(places)])) == 1
    assert len(registry.collections()) == 1
    assert claims(sql) == [] or "committed" in states(sql)


# A lost connection


@pytest.mark.parametrize("took_effect", [True, False])
def test_what_became_of_a_record_whose_commit_lost_the_connection_is_found_out(
    registry: Registry, sql: Sql, lose: Callable[..., None], took_effect: bool
) -> None:
    with registry.creating(make_definition()) as creation:
        lose(took_effect)
        if took_effect:
            assert creation.record() == registry.collection("made/a")
        else:
            with pytest.raises(RegistryUnavailableError, match="was lost"):
                creation.record()
    assert states(sql) == ["committed" if took_effect else "aborted"]
    assert len(registry.collections()) == took_effect


def test_a_claim_that_was_made_when_the_connection_was_lost_is_ones_own(
    registry: Registry, sql: Sql, lose: Callable[..., None]
) -> None:
    lose(True)
    create(registry)
    assert (claims(sql), states(sql)) == ([], ["committed"])


@pytest.mark.parametrize("took_effect", [True, False])
def test_what_became_of_a_drop_whose_commit_lost_the_connection_is_found_out(
    registry: Registry,
    collection: CollectionRecord,
    lose: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    took_effect: bool,
) -> None:
    writes = fragment(2022, 1)
    write(registry, collection, writes)
    monkeypatch.setattr(Registry, "collection", lambda *_: collection)  # or it would be lost while it looks
    lose(took_effect)
    if took_effect:
        (path,) = drop(registry).paths
        assert writes.uid in path
    else:
        with pytest.raises(RegistryUnavailableError, match="was lost"):
            drop(registry)
    assert len(registry.collections()) == (not took_effect)


# Drops


def test_a_dropped_collection_is_garbage_until_that_is_forgotten(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    first, second = fragment(2022, 1), fragment(2022, 1)
    write(registry, collection, first)
    write(registry, collection, second)
    with registry.begin((collection, 2), intents=[(collection, "u", "year=2022/u")]) as writer:
        garbage = registry.drop_collection("made/a", lambda names, slot, uid: f"x/{uid}")
        rows = {path for (path,) in sql("SELECT path FROM garbage")}
        assert rows == {".zcollection", f"x/{first.uid}", f"x/{second.uid}"}
        assert set(garbage.paths) == rows - {".zcollection"} | {"year=2022/u"}
        registry.forget_garbage(garbage)
        assert sql("SELECT * FROM garbage") == []
        assert sql("SELECT path FROM staged") == [("year=2022/u",)]  # its writer is at work, and clears it
        with pytest.raises(ConflictError, match="was dropped"):
            writer.commit([change(collection, fragment(2022, 2))])


def test_a_collection_that_is_dropped_twice_at_once_is_dropped_once(
    registry: Registry, collection: CollectionRecord
) -> None:
    def attempt_drop(_: int) -> bool:
        try:
            drop(registry)
        except (NotFoundError, ConflictError):
            return False
        return True

    assert sorted(in_threads(attempt_drop, [(0,), (1,), (2,)])) == [False, False, True]
