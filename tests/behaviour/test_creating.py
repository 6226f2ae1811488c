"""Creators and droppers at one place, in many orders of their steps, and killed at each: at most one is there.

A step is all that happens between two gates: an SQL transaction, or a call of the store. Each actor is a thread that
waits at its gates; a run lets one of them pass at a time, in an order of its own, and many orders are tried.
"""

import datetime as dt
import itertools
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import xarray as xr

import intake_zcollection as izc
from intake_zcollection.handle import Handle
from intake_zcollection.storage.location import Location
from intake_zcollection.storage.marker import Marker, read_marker
from intake_zcollection.storage.objects import FsspecStore, LocalStore
from intake_zcollection.writing.marking import creating, ensure_marker
from registry import UNSIGNED, CollectionDefinition, CollectionRecord
from registry.sql.engine import engine_of, parse_url
from registry.transaction import Transaction
from tests.conftest import Store
from tests.examples import scaled

TEMPLATE = xr.Dataset({"ssh": ("time", np.zeros(2))}, {"time": np.array(["2022-01-01", "2022-01-02"], "M8[ns]")})

EXPECTED = (izc.AlreadyExistsError, izc.ConflictError, izc.NotFoundError)
"""What those get who were not the first: each of them says what to do."""


class KilledError(BaseException):
    """The end of an actor that does nothing any more, not even to clean up."""


@dataclass
class Actor:
    """A thread that stops at gates."""

    act: Callable[[], object]
    killed_at: int | None = None
    """The gate that it never passes; None for none."""
    gates: int = 0
    ended: bool = False
    error: BaseException | None = None
    may_pass: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def arrive(self, stage: "Stage") -> None:
        """Wait for one's turn, or die."""
        if self.gates == self.killed_at:
            raise KilledError
        self.gates += 1
        stage.waits.release()
        assert self.may_pass.acquire(timeout=20)


class Stage:
    """Where actors act, one step of one of them at a time."""

    def __init__(self) -> None:
        self.waits = threading.Semaphore(0)
        self.actors: dict[str, Actor] = {}

    def gate(self, *_: object) -> None:
        """Stop the actor whose thread this is; other threads pass."""
        actor = self.actors.get(threading.current_thread().name)
        if actor is not None:
            actor.arrive(self)

    def play(self, actors: Sequence[Actor], choose: Callable[[list[int]], int]) -> None:
        """Have all of them act; whose turn it is, among those who wait, is chosen at each step."""
        self.actors = {f"actor {number}": actor for number, actor in enumerate(actors)}
        threads = [threading.Thread(target=self._run, name=name, args=(name,)) for name in self.actors]
        for thread in threads:
            thread.start()
            assert self.waits.acquire(timeout=20)
        while alive := [number for number, actor in enumerate(actors) if not actor.ended]:
            actors[choose(alive)].may_pass.release()
            assert self.waits.acquire(timeout=20)
        for thread in threads:
            thread.join()
        self.actors = {}

    def _run(self, name: str) -> None:
        actor = self.actors[name]
        try:
            actor.act()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            actor.error = error
        actor.ended = True
        self.waits.release()


def orders(play: Callable[[Callable[[list[int]], int]], None], switches: int) -> int:
    """Play once in each order in which an actor is stopped for another one so often; return how many there are.

    Two such switches are known to show most of what all orders would: Musuvathi and Qadeer, "Iterative Context
    Bounding for Systematic Testing of Multithreaded Programs".
    """
    prefix: list[int] = []
    for played in itertools.count(1):
        taken: list[tuple[int, int]] = []
        left, acting = switches, -1

        def choose(alive: list[int], prefix: list[int] = prefix, taken: list[tuple[int, int]] = taken) -> int:
            nonlocal left, acting
            goes_on = acting in alive
            choices = [acting] * goes_on + [each for each in alive if each != acting] * (left > 0 or not goes_on)
            place = prefix[len(taken)] if len(taken) < len(prefix) else 0
            left -= goes_on and place > 0
            taken.append((place, len(choices)))
            acting = choices[place]
            return acting

        play(choose)
        while taken and taken[-1][0] + 1 == taken[-1][1]:
            taken.pop()
        if not taken:
            return played
        prefix = [place for place, _ in taken[:-1]] + [taken[-1][0] + 1]
    raise AssertionError


@pytest.fixture
def stage(registry: izc.Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A stage with a gate before each SQL transaction and each call of a store; leases last as long as a test says."""
    made = Stage()
    for kind in (FsspecStore, LocalStore):
        for name in {"claim", "get", "remove"} & vars(kind).keys():
            monkeypatch.setattr(kind, name, _behind(made.gate, getattr(kind, name)))
    monkeypatch.setattr(Transaction, "_renew", lambda self: False)
    engine = engine_of(parse_url(registry.url))

    def gate(connection: sa.Connection) -> None:
        try:
            made.gate()
        except KilledError:
            connection.close()  # nobody else has it yet
            raise

    sa.event.listen(engine, "engine_connect", gate)
    yield made
    sa.event.remove(engine, "engine_connect", gate)


def _behind(gate: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        gate()
        return function(*args, **kwargs)

    return wrapper


@pytest.fixture(params=["memory", "local"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store("memory://stage" if request.param == "memory" else f"{tmp_path}/stage")


@dataclass(frozen=True)
class Scene:
    """A registry and a place, and what is done there."""

    registry: izc.Registry
    place: Store
    definition: CollectionDefinition

    def create(self, name: str, location: str) -> CollectionRecord:
        """Create a collection at a location below the place."""
        url = self.place.location(location)
        definition = replace(self.definition, name=name, location=url)
        with creating(self.registry, definition, Location(url), signature=UNSIGNED) as creation:
            return creation.record()

    def check(self, actors: Sequence[Actor]) -> None:
        """See that each actor has ended as it should, and that what is there is one collection's at most, and named."""
        for actor in actors:
            assert actor.error is None or isinstance(actor.error, (*EXPECTED, KilledError)), actor.error
        records = self.registry.collections()
        assert not any(f"{a.location}/".startswith(f"{b.location}/") for a in records for b in records if a is not b)
        self.check_names()
        for record in records:
            location = Location(record.location)
            ensure_marker(Handle(self.registry, record, location))
            found = read_marker(location)
            assert found is not None
            assert found.uid == record.uid
        self.check_names()

    def check_names(self) -> None:
        """See that rows name what lies there, or that it names a transaction which, its row says, has ended."""
        names = {record.location for record in self.registry.collections()}
        names |= {location for (location,) in self.sql("SELECT location FROM claim")}
        names |= {path for (path,) in self.sql("SELECT location || '/' || path FROM garbage")}
        for path in self.place.objects(self.place.url):
            full = self.place.location(path)
            if not any(f"{full}/".startswith(f"{name}/") for name in names):
                location = Location(full.removesuffix("/.zcollection"))
                found = read_marker(location) or Marker()
                assert self.registry.is_left_behind(location.url, str(found.uid), found.transaction), path

    def sql(self, statement: str) -> list[Any]:
        with engine_of(parse_url(self.registry.url)).begin() as connection:
            result = connection.exec_driver_sql(statement)
            return list(result) if result.returns_rows else []

    def clear(self) -> None:
        """Let all leases lapse, and see that what is there can be dropped, and what is not be created."""
        self.sql("UPDATE \"transaction\" SET lease_until = '2000-01-01 00:00:00.000000' WHERE state = 'open'")
        if not self.registry.collections():
            self.create("made/again", "there")
        for record in self.registry.collections():
            izc.drop_collection(self.registry, record.name)
        self.check([])


@pytest.fixture
def scene(registry: izc.Registry, place: Store) -> Scene:
    options: dict[str, Any] = {"axis": "time", "partitioning": izc.Date("time", "M")}
    first = izc.create_collection(registry, "made/first", TEMPLATE, location=place.location("there"), **options)
    record = registry.collection(first.name)
    names = [each.name for each in fields(CollectionDefinition) if each.name not in ("schema", "base")]
    given = {name: getattr(record, name) for name in names}
    definition = CollectionDefinition(schema=registry.resolve(record).schema, **given)
    izc.drop_collection(registry, "made/first")
    return Scene(registry, place, definition)


@pytest.fixture(params=[False, True], ids=["alive", "lapsed"])
def lapsed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether leases lapse at once: then each claim of another one is taken over."""
    if request.param:
        let_leases_lapse_at_once(monkeypatch)
    return request.param


def let_leases_lapse_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    keywords = izc.Registry.creating.__kwdefaults__ or {}
    monkeypatch.setattr(izc.Registry.creating, "__kwdefaults__", {**keywords, "lease": dt.timedelta(0)})


def try_orders(scene: Scene, stage: Stage, switches: int, cast: Callable[[], list[Actor]]) -> list[int]:
    """Play in many orders; return how many collections there were after each. ZC_EXAMPLES=50 plays all there are."""
    ends = []

    def play(choose: Callable[[list[int]], int]) -> None:
        actors = cast()
        stage.play(actors, choose)
        scene.check(actors)
        ends.append(len(scene.registry.collections()))
        scene.clear()

    assert orders(play, scaled(switches)) == len(ends)
    return ends


@pytest.mark.parametrize("other", ["there", "there/below"])
def test_of_two_creators_one_has_the_location(scene: Scene, stage: Stage, lapsed: bool, other: str) -> None:
    ends = try_orders(
        scene,
        stage,
        2,
        lambda: [
            Actor(lambda: scene.create("made/a", "there")),
            Actor(lambda: scene.create("made/b", other)),
        ],
    )
    assert len(ends) > 5
    assert set(ends) <= {0, 1} if lapsed else set(ends) == {1}


def test_of_two_creators_of_one_name_one_has_it(scene: Scene, stage: Stage) -> None:
    ends = try_orders(
        scene,
        stage,
        2,
        lambda: [
            Actor(lambda: scene.create("made/a", "there")),
            Actor(lambda: scene.create("made/a", "elsewhere")),
        ],
    )
    assert set(ends) == {1}


@pytest.mark.both_engines("killed_at")
@pytest.mark.parametrize("killed_at", range(5))
def test_a_creator_that_is_killed_hinders_nobody_whose_turn_comes_when_its_claim_has_lapsed(
    scene: Scene, stage: Stage, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    let_leases_lapse_at_once(monkeypatch)
    killed = []

    def cast() -> list[Actor]:
        killed.append(Actor(lambda: scene.create("made/a", "there"), killed_at))
        return [killed[-1], Actor(lambda: scene.create("made/b", "there"))]

    ends = try_orders(scene, stage, 1, cast)
    assert any(isinstance(actor.error, KilledError) for actor in killed)
    assert set(ends) <= {0, 1}


@pytest.mark.both_engines("killed_at")
@pytest.mark.parametrize("killed_at", [*range(8), None])
def test_a_dropper_leaves_the_location_to_a_creator_wherever_it_is_killed(
    scene: Scene, stage: Stage, killed_at: int | None
) -> None:
    def cast() -> list[Actor]:
        scene.create("made/old", "there")
        drop = lambda: izc.drop_collection(scene.registry, "made/old")  # noqa: E731 - a function of one line
        return [Actor(drop, killed_at), Actor(lambda: scene.create("made/new", "there"))]

    assert set(try_orders(scene, stage, 1, cast)) <= {0, 1}


@pytest.mark.parametrize("seed", range(10))
def test_two_creators_a_dropper_and_a_kill_in_any_order_leave_one_collection_at_most(
    scene: Scene, stage: Stage, lapsed: bool, seed: int
) -> None:
    chance = random.Random(seed)
    scene.create("made/old", "there")
    actors = [
        Actor(lambda: izc.drop_collection(scene.registry, "made/old")),
        Actor(lambda: scene.create("made/a", "there")),
        Actor(lambda: scene.create("made/b", chance.choice(["there", "there/below"]))),
    ]
    chance.choice(actors).killed_at = chance.choice([None, *range(8)])
    stage.play(actors, chance.choice)
    scene.check(actors)
    scene.clear()


# The marker


MARKERS = {
    "none": None,
    "half of one": b'{"uid": "0',
    "one of a creator that has ended": b'{"collection": "made/b", "uid": "0f3c", "transaction": "%s"}',
}


@pytest.mark.parametrize("found", MARKERS)
def test_the_next_writer_puts_a_marker_right(registry: izc.Registry, tmp_path: Path, found: str) -> None:
    options: dict[str, Any] = {"axis": "time", "partitioning": izc.Date("time", "M")}
    collection = izc.create_collection(registry, "made/a", TEMPLATE, location=f"{tmp_path}/there", **options)
    marker, text = tmp_path / "there" / ".zcollection", MARKERS[found]
    right = marker.read_bytes()
    with registry.begin() as ended:
        pass
    marker.unlink() if text is None else marker.write_bytes(text.replace(b"%s", ended.uid.encode()))
    collection.insert(TEMPLATE)
    assert marker.read_bytes() == right


def test_a_writer_leaves_the_marker_of_another_registry_alone_and_says_so(
    registry: izc.Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"axis": "time", "partitioning": izc.Date("time", "M")}
    collection = izc.create_collection(registry, "made/a", TEMPLATE, location=f"{tmp_path}/there", **options)
    marker, foreign = tmp_path / "there" / ".zcollection", b'{"collection": "far/away", "uid": "0f3c"}'
    marker.write_bytes(foreign)
    collection.insert(TEMPLATE)
    assert marker.read_bytes() == foreign
    assert "belongs to far/away too (0f3c)" in caplog.text
