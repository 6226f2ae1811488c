"""The fence: who has lost its row, or its number, ends and renews nothing that is another one's."""

import datetime as dt
import threading
from collections.abc import Callable

import pytest

from registry import CollectionRecord, NotFoundError, Registry, RegistryUnavailableError, TransactionClosedError
from registry.transaction import Transaction

from .conftest import Row, Sql, change, create, drop, eventually, fragment, intents

SHORT = dt.timedelta(seconds=0.1)

no_number_twice_in_postgres = pytest.mark.one_engine("sqlite", "a sequence gives no number twice, rolled back or not")


def steal_number(sql: Sql, zombie: Transaction) -> None:
    """Have the next transaction get the number of this one, as where its INSERT was rolled back."""
    ((id_,),) = sql('SELECT id FROM "transaction" WHERE uid = ?', zombie.uid)
    sql('DELETE FROM "transaction" WHERE id = ?', id_)
    sql("DELETE FROM pin WHERE transaction_id = ?", id_)
    sql("UPDATE sqlite_sequence SET seq = ? WHERE name = 'transaction'", id_ - 1)


def rows_of(sql: Sql, transaction: Transaction) -> list[list[Row]]:
    """What there is of a transaction: its row, and those that have its number."""
    ((id_,),) = sql('SELECT id FROM "transaction" WHERE uid = ?', transaction.uid)
    asked = [sql('SELECT * FROM "transaction" WHERE id = ?', id_)]
    return asked + [sql(f"SELECT * FROM {name} WHERE transaction_id = ?", id_) for name in ("pin", "staged")]


ZOMBIES: dict[str, Callable[[Transaction, CollectionRecord], object]] = {
    "abort": lambda zombie, _: zombie.abort(),
    "stage": lambda zombie, collection: zombie.stage(collection, intents(fragment(2022, 1))),
    "commit": lambda zombie, collection: zombie.commit([change(collection, fragment(2022, 1))]),
}


@no_number_twice_in_postgres
@pytest.mark.parametrize("act", ZOMBIES)
def test_a_transaction_whose_number_another_one_has_does_nothing_to_that(
    registry: Registry, collection: CollectionRecord, sql: Sql, act: str
) -> None:
    with registry.begin((collection, 0)) as zombie:
        steal_number(sql, zombie)
        with registry.begin((collection, 0), intents=[(collection, "u", "a/u")]) as other:
            before = rows_of(sql, other)
            assert all(before)
            if act == "abort":
                assert zombie.abort()
            else:
                with pytest.raises(TransactionClosedError, match="is gone"):
                    ZOMBIES[act](zombie, collection)
            assert rows_of(sql, other) == before
            (version,) = other.commit([change(collection, fragment(2022, 1))])
    assert version.number == 1


@no_number_twice_in_postgres
def test_a_transaction_whose_number_another_one_has_does_not_renew_the_pins_of_that(
    registry: Registry, collection: CollectionRecord, sql: Sql
) -> None:
    with registry.begin((collection, 0), lease=SHORT) as zombie:
        steal_number(sql, zombie)
        with registry.begin((collection, 0)) as other:
            before = rows_of(sql, other)
            assert eventually(lambda: not _renews(zombie))
            assert rows_of(sql, other) == before


def _renews(transaction: Transaction) -> bool:
    return any(thread.name == f"lease-{transaction.uid}" for thread in threading.enumerate())


@no_number_twice_in_postgres
def test_what_has_the_number_of_a_dropped_collection_is_not_pinned_in_its_place(registry: Registry, sql: Sql) -> None:
    dropped = create(registry)
    drop(registry, "made/a")
    sql("UPDATE sqlite_sequence SET seq = 0 WHERE name = 'collection'")
    assert create(registry, "made/b").id == dropped.id
    with pytest.raises(NotFoundError, match="collection made/a was dropped just now"), registry.begin((dropped, 0)):
        pytest.fail("it has begun")
    assert sql("SELECT * FROM \"transaction\" WHERE state = 'open'") == sql("SELECT * FROM pin") == []


@pytest.mark.parametrize("error", [ValueError, RegistryUnavailableError])
def test_the_thread_that_renews_survives_whatever_happens_and_says_so(
    registry: Registry,
    sql: Sql,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[Exception],
) -> None:
    def lease() -> str:
        return sql('SELECT lease_until FROM "transaction"')[0][0]

    def fail(*_: object) -> None:
        raise error("once")

    with registry.begin(lease=SHORT) as transaction:
        with monkeypatch.context() as patched:
            patched.setattr(Transaction, "_state", fail)
            assert eventually(lambda: f"lease-{transaction.uid} could not be renewed: once" in caplog.text)
        before = lease()
        assert eventually(lambda: lease() > before)


# A connection lost when it begins


def test_a_transaction_that_has_begun_when_the_connection_is_lost_goes_on(
    registry: Registry, collection: CollectionRecord, lose: Callable[..., None]
) -> None:
    lose(True)
    with registry.begin((collection, 0)) as transaction:
        assert transaction.commit([change(collection, fragment(2022, 1))])[0].number == 1


def test_a_transaction_that_has_not_begun_when_the_connection_is_lost_raises_and_is_nowhere(
    registry: Registry, collection: CollectionRecord, lose: Callable[..., None], sql: Sql
) -> None:
    lose(False)
    with pytest.raises(RegistryUnavailableError, match="was lost"), registry.begin((collection, 0)):
        pytest.fail("it has begun")
    assert sql("SELECT * FROM \"transaction\" WHERE state = 'open'") == []
