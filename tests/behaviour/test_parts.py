"""A partition is a list of parts: what each write reads and writes of it, counted, and that nothing else tells.

Each row of each variable is an object of its own here, in a storage that notes what it is asked for: so objects that
are read and written are rows that are read and written.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import intake_zcollection as izc
from intake_zcollection.storage.objects import LocalStore
from tests.counting import READS, WRITES, counted_location, paths_of, requests_to, statements

Make = Callable[..., izc.Collection]

BEGIN = np.datetime64("2022-01-01", "ns")
HOUR = np.timedelta64(1, "h")
DAY = 24


def rows(hours: Sequence[int], source: float = 0, **more: float) -> xr.Dataset:
    """Rows at some hours of January 2022; their values tell them and their source from all others."""
    each = {"chunks": (1,)}
    values = np.array(hours, "f8") + source * 10_000
    data = xr.Dataset(
        {"a": ("time", values), "b": ("time", -values), **{n: ("time", values + v) for n, v in more.items()}}
    )
    data["time"] = BEGIN + np.array(hours) * HOUR
    for name in ("a", "b", "time", *more):
        data[name].encoding = dict(each)
    return data


def day(number: int, source: float = 0, per_day: int = 4) -> xr.Dataset:
    """The rows of a day of January, the first is 0."""
    return rows([number * DAY + n * DAY // per_day for n in range(per_day)], source)


def held(collection: izc.Collection, name: str = "a") -> list[tuple[int, float]]:
    """The rows of a collection, as hours and values of a variable."""
    data = collection.load().compute()
    hours = (data.time.values - BEGIN) // HOUR
    return list(zip(hours.tolist(), data[name].values.tolist(), strict=True))


def as_held(*datasets: xr.Dataset) -> list[tuple[int, float]]:
    found = [
        (int(hour), float(value))
        for data in datasets
        for hour, value in zip((data.time.values - BEGIN) // HOUR, data.a.values, strict=True)
    ]
    return sorted(found, key=lambda row: row[0])


@dataclass
class Cost:
    """The rows that a write read and wrote, by variable."""

    version: Any = None
    read: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)
    groups_read: set[str] = field(default_factory=set)
    twice: list[str] = field(default_factory=list)
    """What was read more than once."""


def inserting(data: Any, **options: Any) -> Callable[[izc.Collection], Any]:
    return lambda collection: collection.insert(data, **options)


def cost_of(collection: izc.Collection, write: Callable[[izc.Collection], Any]) -> Cost:
    cost = Cost()
    with requests_to(collection.location) as requests:
        cost.version = write(collection)
    reads = [path for path in paths_of(requests, READS) if "/c." in path or path.endswith("zarr.json")]
    cost.twice = [path for path, times in Counter(reads).items() if times > 1]
    for path in reads:
        group, variable, _ = path.rsplit("/", 2)
        cost.read[variable] += 1
        cost.groups_read.add(group)
    for path in paths_of(requests, WRITES):
        if "/c." in path:
            cost.written[path.rsplit("/", 2)[1]] += 1
    return cost


@pytest.fixture
def month(registry: izc.Registry) -> Iterator[izc.Collection]:
    """A collection by month, in the counted storage, that has nothing yet."""
    with counted_location() as location:
        yield izc.create_collection(
            registry, "made/month", rows([]), axis="time", partitioning=izc.Date("time", "M"), location=location
        )


def parts_of(collection: izc.Collection) -> list[int]:
    """The numbers of rows of the parts of the only partition."""
    (record,) = collection._handle.select().snapshot.partitions
    bounds = [part.bounds for part in record.parts]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(bounds)), "parts touch"
    return [part.rows for part in record.parts]


# The five inserts

OLD = [10, 20, 30, 40]

INSERTS: dict[str, tuple[list[int], str, list[int], int, int]] = {
    # what it is: (the hours inserted, merge, rows of the parts after it, axis rows read, rows read)
    "past the end": ([50, 60], "append", [4, 2], 0, 0),
    "before the begin": ([1, 5], "append", [2, 4], 0, 0),
    "into a hole": ([12, 18], "append", [1, 2, 3], 4, 0),
    "overlapping": ([30, 35, 50], "upsert", [2, 4], 4, 1),
    "interleaved": ([5, 15, 25], "append", [5, 2], 4, 2),
    "over all of it": ([5, 45], "time_series", [2], 0, 0),
    "over one row": ([20], "time_series", [1, 1, 2], 4, 0),
}


@pytest.mark.parametrize("what", INSERTS)
def test_an_insert_reads_and_writes_what_lies_in_the_range_of_its_rows(month: izc.Collection, what: str) -> None:
    hours, merge, parts, axis_read, read = INSERTS[what]
    month.insert(rows(OLD))
    cost = cost_of(month, inserting(rows(hours, 1), merge=merge))
    kept = [hour for hour in OLD if (hour, float(hour)) in held(month)]
    expected = [*OLD, *hours] if merge == "append" else [*kept, *hours]
    assert [hour for hour, _ in held(month)] == sorted(expected)
    assert parts_of(month) == parts
    assert cost.read == Counter({name: n for name, n in {"time": axis_read, "a": read, "b": read}.items() if n})
    inside = [hour for hour in kept if min(hours) <= hour <= max(hours)]
    stay = 0 if merge == "time_series" else len(inside)
    assert set(cost.written.values()) == {len(hours) + stay}
    summary = cost.version.summary
    assert (summary["rows"], summary["rows_replaced"]) == (len(hours), len(OLD) - len(kept))
    assert month.validate().ok


def test_rows_at_both_ends_of_a_partition_leave_it_alone(month: izc.Collection) -> None:
    month.insert(rows(OLD))
    cost = cost_of(month, inserting(rows([1, 99], 1), merge="concat"))
    assert (cost.read, cost.written) == ({}, {"a": 2, "b": 2, "time": 2})
    assert parts_of(month) == [1, 4, 1]
    (partition,) = month.partitions()
    assert (partition.parts, partition.groups, partition.rows) == (3, 2, 6)
    assert cost.version.summary.items() >= {"parts_made": 2, "parts_cut": 0, "parts_rewritten": 0}.items()


# Chains of deliveries


def test_thirty_daily_appends_write_what_they_bring_and_read_nothing(month: izc.Collection) -> None:
    for number in range(30):
        cost = cost_of(month, inserting(day(number)))
        assert (cost.read, cost.written) == ({}, {"a": 4, "b": 4, "time": 4})
    assert held(month) == as_held(*map(day, range(30)))
    assert parts_of(month) == [4] * 30


def test_days_that_repeat_the_last_row_of_the_day_before_read_one_days_axis_each(month: izc.Collection) -> None:
    month.insert(day(0))
    for number in range(1, 12):
        with_yesterdays = xr.concat([day(number - 1, number).isel(time=[-1]), day(number, number)], "time")
        cost = cost_of(month, inserting(with_yesterdays, merge="upsert"))
        assert cost.written == {"a": 5, "b": 5, "time": 5}
        assert cost.read["a"] == 0
        assert cost.read["time"] <= 5
        assert len(cost.groups_read) == 1
    expected = {hour: value for number in range(12) for hour, value in as_held(day(number, number))}
    expected |= {hour: value + 10_000 for hour, value in expected.items() if hour % DAY == 18 and hour < 11 * DAY}
    assert held(month) == sorted(expected.items())
    assert parts_of(month) == [3] + [4] * 10 + [5]


def test_deliveries_with_gaps_and_a_tolerance_read_the_axis_at_their_ends(month: izc.Collection) -> None:
    dense = [list(range(number * DAY, number * DAY + 8)) for number in range(10)]
    for number, hours in enumerate(dense):
        # Each delivery brings the end of the day before again, and its own day.
        brings = [*(dense[number - 1][-2:] if number else []), *hours]
        data = rows(brings, number)
        cost = cost_of(month, inserting(data, merge="time_series", tolerance=3 * HOUR))
        assert set(cost.written.values()) == {len(brings)}
        assert cost.read["a"] == 0
        assert cost.read["time"] <= 10
    assert [hour for hour, _ in held(month)] == [hour for hours in dense for hour in hours]
    assert all(value == hour + 10_000 * min(9, hour // DAY + (hour % DAY > 5)) for hour, value in held(month))


def test_a_straggler_of_the_first_day_that_comes_with_the_last_writes_what_is_brought(month: izc.Collection) -> None:
    per_day = 12
    for number in range(29):
        month.insert(day(number, per_day=per_day))
    brought = xr.concat([rows([1], 1), day(29, 1, per_day)], "time")
    cost = cost_of(month, inserting(brought))
    count = brought.sizes["time"]
    assert max(cost.written.values()) <= 1.1 * count
    assert cost.read["a"] == cost.read["b"] == 0
    assert cost.read["time"] == per_day, "the axis of the part that it meets, once"
    assert cost.twice == []
    assert held(month) == as_held(*(day(n, per_day=per_day) for n in range(29)), brought)


@pytest.mark.parametrize("merge", ["upsert", "concat"])
def test_a_correction_of_an_hour_reads_and_writes_the_rows_around_it(month: izc.Collection, merge: str) -> None:
    month.insert([rows(range(n * DAY, (n + 1) * DAY)) for n in range(4)])
    corrected = rows([30, 33], 1)
    cost = cost_of(month, inserting(corrected, merge=merge))
    inside = 2 if merge == "upsert" else 4
    assert cost.read["a"] == inside
    assert cost.read["time"] == 4 * DAY
    assert set(cost.written.values()) == {2 + inside}


# Dropping and rewriting


def three_days(month: izc.Collection) -> None:
    for number in range(3):
        month.insert(day(number))


def test_dropping_by_the_axis_reads_the_axis_of_the_parts_that_a_bound_cuts_and_nothing_else(
    month: izc.Collection,
) -> None:
    for number in range(5):
        month.insert(day(number))
    where = {"time": (BEGIN + (DAY + 12) * HOUR, BEGIN + 3 * DAY * HOUR)}
    cost = cost_of(month, lambda c: c.drop_rows(where=where))
    assert (cost.read, cost.written, len(cost.groups_read)) == ({"time": 8}, {}, 2)
    everything = as_held(*map(day, range(5)))
    assert held(month) == [row for row in everything if not DAY + 12 <= row[0] <= 3 * DAY]
    assert cost.version.summary["rows_removed"] == 7
    assert parts_of(month) == [4, 2, 3, 4]
    assert held(month.at(version=5)) == everything
    whole = cost_of(month, lambda c: c.drop_rows(where={"time": ("2022-01-04", None)}))
    assert (whole.read, whole.written) == ({}, {})
    assert parts_of(month) == [4, 2]
    nothing = cost_of(month, lambda c: c.drop_rows(where={"time": ("2022-02-01", None)}))
    assert (nothing.read, nothing.version) == ({}, whole.version)


def test_dropping_by_another_variable_writes_what_lies_between_dropped_rows_at_most(
    make_collection: Make,
) -> None:
    hours = [*range(600), 300]  # one tie
    data = rows(hours).assign(flag=("time", np.zeros(601, "i4")))
    for name in data.variables:
        data[name].encoding = {}
    data.flag[[10, 12, 300]] = 1
    collection = make_collection(data.isel(time=slice(0)))
    collection.insert(data)
    version = collection.drop_rows(where={"flag": (1, 1)})
    assert version.summary["rows_removed"] == 3
    assert [hour for hour, _ in held(collection)] == sorted([*range(10), 11, *range(13, 600)])
    (record,) = collection._handle.select().snapshot.partitions
    new = {fragment.uid: fragment.group_rows for fragment in record.fragments if fragment.begin_version == 2}
    written = sum(rows for uid, rows in new.items() if uid not in {record.parts[0].fragments[0].uid})
    assert written == 2, "the row between the first two, and the tie of the third"
    assert collection.validate().ok


def test_rows_dropped_close_to_each_other_are_written_again_between_them(make_collection: Make) -> None:
    data = rows(range(700)).assign(flag=("time", np.arange(700, dtype="i4") % 100 == 50))
    data["flag"] = data.flag.astype("i4")
    for name in data.variables:
        data[name].encoding = {}
    collection = make_collection(data.isel(time=slice(0)))
    collection.insert(data)
    collection.drop_rows(where={"flag": (1, None)})
    (record,) = collection._handle.select().snapshot.partitions
    assert [part.rows for part in record.parts] == [50, 6 * 99, 49]
    assert record.groups == 2
    assert 6 * 99 <= 256 * 7
    assert held(collection) == [(hour, float(hour)) for hour in range(700) if hour % 100 != 50]


def layered(month: izc.Collection) -> xr.Dataset:
    """Several parts, some of them cut, and a layer over them; what it holds."""
    three_days(month)
    month.insert(rows([30, 31], 1), merge="upsert")
    month.update(lambda d: {"b": d.b * 2}, inputs=["b"], outputs=["b"])
    month.insert(day(4))
    month.drop_rows(where={"time": ("2022-01-01T06", "2022-01-01T06")})
    return month.load().compute()


def written_versions(month: izc.Collection) -> list[int]:
    """The versions that the values of the only partition are said to come from, part by part, the rows' first."""
    (record,) = month._handle.select().snapshot.partitions
    return [fragment.written_version for fragment in record.fragments]


def test_rewriting_makes_one_part_without_layers_and_changes_no_value(month: izc.Collection) -> None:
    before = layered(month)
    (old,) = month.partitions()
    assert (old.parts, old.groups) == (7, 6)
    newest = max(written_versions(month))
    version = month.rewrite()
    (new,) = month.partitions()
    assert written_versions(month) == [newest]
    assert (new.parts, new.groups, new.rows) == (1, 1, old.rows)
    assert len(set(new.fragments.values())) == 1
    xr.testing.assert_identical(month.load().compute(), before)
    assert new.version == old.version == version.number - 1, "its values are not new"
    assert len(month.versions(filters="month == 1")) == version.number - 1
    xr.testing.assert_identical(month.at(version=old.version).load().compute(), before)
    assert month.rewrite() == version, "there is nothing to do"
    assert month.validate().ok


def test_a_rewrite_is_of_the_partitions_that_are_asked_for(month: izc.Collection) -> None:
    for number in (0, 1, 31, 32):
        month.insert(day(number))
    month.rewrite(filters="month == 2")
    assert [partition.parts for partition in month.partitions()] == [2, 1]


def test_a_correction_stays_when_other_parts_are_rewritten_cut_and_appended(month: izc.Collection) -> None:
    month.insert(day(0))
    month.update(lambda d: {"a": d.a + 0.5}, inputs=["a"], outputs=["a"])
    month.insert(day(1))
    corrected = [(hour, value + 0.5) for hour, value in as_held(day(0))]
    assert held(month) == corrected + as_held(day(1))
    month.insert(rows([3], 1))  # cuts the part that is corrected
    assert held(month) == sorted([*corrected, *as_held(day(1)), (3, 10_003.0)])
    month.rewrite()
    month.insert(rows([4], 1))
    assert held(month) == sorted([*corrected, *as_held(day(1)), (3, 10_003.0), (4, 10_004.0)])


def test_a_layer_ends_only_where_a_later_one_or_new_rows_come(month: izc.Collection) -> None:
    three_days(month)
    month.update(lambda d: {"a": d.a + 0.25}, inputs=["a"], outputs=["a"])
    month.insert(day(1, 1), merge="time_series")  # new rows: without the layer
    expected = [(h, v + 0.25) for h, v in as_held(day(0), day(2))] + as_held(day(1, 1))
    assert held(month) == sorted(expected)
    month.update(lambda d: {"a": d.a + 0.5, "b": d.b}, inputs=["a", "b"], outputs=["a", "b"])
    assert held(month) == sorted((hour, value + 0.5) for hour, value in expected)
    (record,) = month._handle.select().snapshot.partitions
    assert [len(part.fragments) for part in record.parts] == [2, 2, 2], "the first layer is covered"


def test_the_newer_of_two_layers_counts_in_what_is_kept_of_a_part(month: izc.Collection) -> None:
    month.insert(rows(OLD))
    for outputs in (["a"], ["a", "b"], ["a"]):  # the layer that came first is the newest in the end
        month.update(lambda d, names=outputs: {n: d[n] + 0.25 for n in names}, inputs=["a", "b"], outputs=outputs)
    assert written_versions(month) == [1, 4, 3]
    month.insert(rows([15], 1))
    assert held(month) == sorted([*((hour, hour + 0.75) for hour in OLD), (15, 10_015.0)])
    assert written_versions(month) == [1, 4, 3, 5, 1, 4, 3]


# What tells parts apart, and what does not


def loaded_at(collection: izc.Collection, low: int, high: int) -> xr.Dataset:
    return collection.load(where={"time": (BEGIN + low * HOUR, BEGIN + high * HOUR)})


def test_two_parts_of_one_group_have_tokens_and_keys_of_their_own(month: izc.Collection) -> None:
    month.insert(rows([10, 20]))
    month.insert(rows([15], 1))
    month.drop_rows(where={"time": (BEGIN + 15 * HOUR, BEGIN + 15 * HOUR)})
    assert parts_of(month) == [1, 1]
    (partition,) = month.partitions()
    assert partition.groups == 1
    assert_told_apart(loaded_at(month, 10, 10), loaded_at(month, 20, 20))


def test_two_stretches_of_one_part_have_tokens_and_keys_of_their_own(month: izc.Collection) -> None:
    month.insert(rows([10, 20]))
    assert_told_apart(loaded_at(month, 10, 10), loaded_at(month, 20, 20))


def assert_told_apart(first: xr.Dataset, second: xr.Dataset) -> None:
    """The first is of hour 10, the second of hour 20; dask and xarray see that before they have read anything."""
    assert first.a.data.name != second.a.data.name
    assert (first + second).sizes["time"] == 0, "their axes are not equal"
    both = xr.concat([first, second], "time").compute()
    assert both.a.values.tolist() == [10.0, 20.0]
    assert ((both.time.values - BEGIN) // HOUR).tolist() == [10, 20]


def divided(month: izc.Collection) -> izc.Collection:
    """Rows in parts, as one insert of them would have made one part."""
    month.insert(day(1))
    month.insert(day(0))
    month.insert(rows([2, 3], 1))
    return month


def test_what_map_update_and_an_uncropped_load_see_does_not_depend_on_parts(
    registry: izc.Registry, month: izc.Collection
) -> None:
    whole = month.copy("made/whole", f"{month.location}_whole")
    divided(month)
    whole.insert(month.load().compute())
    assert (parts_of(month), parts_of(whole)) == ([1, 2, 3, 4], [10])
    where = {"time": (BEGIN + DAY * HOUR, None)}
    seen: dict[str, list[Any]] = {}
    for collection in (month, whole):
        loads = [
            collection.load(where=where, crop=False).compute(),
            collection.load(where=where).compute(),
            *collection.map(lambda d: d.copy(deep=True), where=where).values(),
        ]
        sizes: list[int] = []
        collection.update(
            lambda d, sizes=sizes: (sizes.append(d.sizes["time"]), {"b": d.b * d.sizes["time"]})[1],
            inputs=["b"],
            outputs=["b"],
            where=where,
            scheduler="synchronous",
        )
        seen[collection.name] = [*loads, sizes, collection.load().compute()]
    for one, other in zip(*seen.values(), strict=True):
        if isinstance(one, list):
            assert one == other == [10]
        else:
            xr.testing.assert_identical(one, other)
    assert seen["made/month"][0].sizes["time"] == 10
    assert seen["made/month"][1].sizes["time"] == 4


def test_a_cropped_load_reads_the_parts_that_it_selects_alone(month: izc.Collection) -> None:
    three_days(month)
    with requests_to(month.location) as requests:
        values = month.load(where={"time": ("2022-01-02", "2022-01-02")}).a.values
    assert values.tolist() == [value for _, value in as_held(day(1))]
    assert len(paths_of(requests, READS)) == 4


# Other writers


def racing(data: xr.Dataset, action: Callable[[], Any]) -> xr.Dataset:
    """Rows whose values are computed after the insert was planned, while another writer does something, once."""
    once = [action]

    def compute(block: Any) -> Any:
        while once:
            once.pop()()
        return block

    lazy = da.from_array(data.a.values, chunks=-1).map_blocks(compute, dtype="f8", meta=np.empty(0))
    return data.assign(a=("time", lazy, data.a.attrs))


NEW = izc.Variable("new", "f8", ("time",))


def add_and_fill(collection: izc.Collection) -> None:
    collection.update(lambda d: {"new": d.a + 0.5}, inputs=["a"], outputs=[NEW])


@pytest.mark.parametrize(
    ("hours", "merge"),
    [
        pytest.param([90], "append", id="past the end"),
        pytest.param([12], "append", id="in a hole of a part"),
        pytest.param([15, 25], "concat", id="merged with rows"),
        pytest.param([0, 99], "time_series", id="in the place of all"),
    ],
)
def test_values_of_a_variable_that_another_writer_adds_meanwhile_are_all_there(
    month: izc.Collection, hours: list[int], merge: str
) -> None:
    month.insert(rows(OLD))
    lazy = racing(rows(hours, 1), lambda: add_and_fill(month))
    month.insert(lazy, merge=merge, scheduler="synchronous")
    after = dict(held(month, "new"))
    expected = {} if merge == "time_series" else {hour: hour + 0.5 for hour in OLD}
    assert {hour: value for hour, value in after.items() if not np.isnan(value)} == expected
    assert [hour for hour, value in after.items() if np.isnan(value)] == hours, "inserted before it was known"
    assert month.validate().ok


@pytest.fixture
def on_disk(make_collection: Make) -> izc.Collection:
    """A collection by month on a disk, three days in three parts."""
    collection = make_collection(rows([]))
    for number in range(3):
        collection.insert(day(number))
    return collection


def meanwhile(patch: pytest.MonkeyPatch, action: Callable[[], Any]) -> None:
    """Let another writer do something once, when a write has put its groups down and has not committed yet."""
    once, sync = [action], LocalStore.sync

    def act_and_sync(self: LocalStore) -> None:
        while once:
            once.pop()()
        sync(self)

    patch.setattr(LocalStore, "sync", act_and_sync)


def test_dropping_by_the_axis_beside_a_new_layer_and_other_days_is_no_conflict(
    on_disk: izc.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def others() -> None:
        add_and_fill(on_disk)
        on_disk.insert(day(9, 1), missing="fill")

    where = {"time": ("2022-01-01T06", "2022-01-02T06")}
    with monkeypatch.context() as patch:
        meanwhile(patch, others)
        version = on_disk.drop_rows(where=where)
    assert version.number == 6
    expected = [hour for hour, _ in as_held(day(0), day(1), day(2)) if not 6 <= hour <= 30]
    found = held(on_disk, "new")
    assert [(hour, value) for hour, value in found if hour < 9 * DAY] == [(hour, hour + 0.5) for hour in expected]
    assert len(found) == len(expected) + 4


def test_two_appends_of_different_days_at_once_both_succeed(month: izc.Collection) -> None:
    month.insert(day(0))
    first = racing(day(5), lambda: month.insert(day(3)))
    version = month.insert(first, scheduler="synchronous")
    assert version.number == 3
    assert held(month) == as_held(day(0), day(3), day(5))
    assert month.validate().ok


@pytest.mark.parametrize("other", [[120, 126], [123], [100, 130]], ids=["the same", "between", "around"])
def test_two_appends_to_one_stretch_at_once_conflict_by_name_where_they_may_not_be_repeated(
    month: izc.Collection, other: list[int]
) -> None:
    month.insert(day(0))
    data = racing(day(5), lambda: month.insert(rows(other, 1)))
    with pytest.raises(izc.ConflictError, match="year=2022/month=01"):
        month.insert(data, scheduler="synchronous", repeatable=False)
    assert held(month) == as_held(day(0), rows(other, 1))
    assert len(month.versions()) == 3


def test_the_second_of_two_deliveries_into_one_part_is_run_again_rather_than_cut_it_wrongly(
    month: izc.Collection,
) -> None:
    month.insert(rows(OLD))
    version = month.insert(racing(rows([15]), lambda: month.insert(rows([35]))), scheduler="synchronous")
    assert version.summary["reruns"] == 1
    assert [hour for hour, _ in held(month)] == [10, 15, 20, 30, 35, 40]


# The strategies that say no, and those that leave out


def test_an_append_of_what_is_there_names_the_partition_the_values_and_the_choices(month: izc.Collection) -> None:
    month.insert([day(0), day(31)])
    with pytest.raises(izc.AlreadyExistsError) as caught:
        month.insert([rows([5, 6, 7, 12, 30]), day(31), rows([40 * DAY])])
    said = str(caught.value)
    assert "year=2022/month=01 (2 values, from 2022-01-01T06:00:00.000000000 to 2022-01-01T12:00:00.000000000)" in said
    assert "year=2022/month=02 (4 values, from 2022-02-01T00" in said
    for choice in ("'keep'", "'upsert'", "'time_series'", "'concat'", "'replace'"):
        assert choice in said
    assert "time" in said
    with pytest.raises(izc.AlreadyExistsError, match=r"month=01 \(one value, 2022-01-01T06:00:00.000000000\)"):
        month.insert(rows([6]))
    with pytest.raises(izc.AlreadyExistsError, match=r"one value, 2022-01-05T00"):
        month.insert([day(4), rows([4 * DAY], 1)])
    assert len(month.versions()) == 2


def test_an_append_that_is_refused_has_read_the_axis_of_the_parts_that_it_meets(month: izc.Collection) -> None:
    three_days(month)

    def insert(collection: izc.Collection) -> None:
        with pytest.raises(izc.AlreadyExistsError):
            collection.insert(day(1, 1))

    cost = cost_of(month, insert)
    assert (cost.read, cost.written) == ({"time": 4}, {})


def test_append_is_what_is_done_unless_the_collection_or_the_caller_says_otherwise(make_collection: Make) -> None:
    collection = make_collection(rows([]), merge="upsert")
    for source in (1, 2):
        collection.insert(day(0, source))
    assert held(collection) == as_held(day(0, 2))
    with pytest.raises(izc.AlreadyExistsError):
        collection.insert(day(0), merge="append")


def test_an_append_keeps_equal_values_of_one_dataset(month: izc.Collection) -> None:
    month.insert(rows([5, 5, 6]))
    assert held(month) == [(5, 5.0), (5, 5.0), (6, 6.0)]


def test_keep_adds_what_is_new_and_makes_no_version_of_nothing(month: izc.Collection) -> None:
    month.insert(day(0))
    version = month.insert(xr.concat([day(0, 1), day(1, 1)], "time"), merge="keep")
    assert held(month) == as_held(day(0), day(1, 1))
    assert version.summary["rows"] == 4
    cost = cost_of(month, inserting(xr.concat([day(0, 2), day(1, 2)], "time"), merge="keep"))
    assert (cost.version, cost.written, cost.read) == (version, {}, {"time": 8})
    assert len(month.versions()) == 3


def test_rows_that_keep_left_out_come_if_others_go_meanwhile(month: izc.Collection) -> None:
    month.insert(day(0))
    data = xr.concat([day(0, 1), day(1, 1)], "time")
    month.insert(
        racing(data, lambda: month.drop_rows(where={"time": (None, BEGIN)})), merge="keep", scheduler="synchronous"
    )
    assert [hour for hour, _ in held(month)] == [hour for hour, _ in as_held(day(0), day(1))]


def test_rows_of_a_partition_that_was_to_get_none_come_too(month: izc.Collection) -> None:
    month.insert(day(0))
    data = xr.concat([day(0, 1), day(40, 1)], "time")  # all of January is left out, February is new
    month.insert(
        racing(data, lambda: month.drop_partitions(filters="month == 1")), merge="keep", scheduler="synchronous"
    )
    assert [hour for hour, _ in held(month)] == [hour for hour, _ in as_held(day(0), day(40))]


# Dry runs


def test_a_dry_run_writes_nothing_and_tells_what_each_partition_would_get(month: izc.Collection) -> None:
    month.insert([rows(OLD), day(31)])
    data = [rows([20, 25], 1), day(32, 1), rows([60 * DAY])]
    cost = cost_of(month, inserting(data, merge="upsert", dry_run=True))
    plan = cost.version
    assert cost.written == {}
    assert len(month.versions()) == 2
    lines = str(plan).splitlines()
    assert "version 1" in lines[0]
    said = {line.split(":")[0]: line for line in lines[1:]}
    assert list(said) == ["year=2022/month=01", "year=2022/month=02", "year=2022/month=03"]
    assert "2 rows" in said["year=2022/month=01"]
    assert "1 row replaced" in said["year=2022/month=01"]
    assert "1 part cut" in said["year=2022/month=01"]
    assert "cut" not in said["year=2022/month=02"]
    assert "1 created" in said["year=2022/month=03"]
    version = month.insert(data, merge="upsert")
    counts = {name: count for name, count in version.summary.items() if name != "bytes"}
    assert counts == plan.counts


def test_a_dry_run_refuses_what_the_insert_would(month: izc.Collection) -> None:
    month.insert(day(0))
    with pytest.raises(izc.AlreadyExistsError):
        month.insert(day(0), dry_run=True)
    assert month.insert(day(0), merge="keep", dry_run=True) is None


# Immutable variables, whose keys are recorded as zeros


@pytest.mark.parametrize("axis", [0, 5], ids=["at axis value 0", "elsewhere"])
def test_what_becomes_of_the_partition_of_key_0_leaves_the_immutable_variables_alone(
    make_collection: Make, axis: int
) -> None:
    when = axis + np.array([0, 2, 4])
    data = xr.Dataset(
        {"a": ("time", when * 1.0), "orbit": ("time", [0, 0, 0]), "mask": ((), 7.0)}, coords={"time": when}
    )
    collection = make_collection(data, partitioning=izc.Sequence(("orbit",)))
    collection.insert(data)
    collection.insert(data.isel(time=[0]).assign_coords(time=when[:1] + 1))  # cuts its only part
    assert collection.load().a.values.tolist() == [axis, axis, axis + 2, axis + 4]
    assert collection.load().mask.values == 7
    collection.rewrite()
    collection.drop_rows(where={"time": (axis, axis + 1)})
    assert collection.load().mask.values == 7
    collection.insert(data, merge="replace")
    assert collection.load().mask.values == 7
    collection.drop_partitions(all=True)
    assert collection.load().mask.values == 7


def test_keep_that_leaves_all_rows_out_still_adds_a_variable_that_comes_with_them(month: izc.Collection) -> None:
    month.insert(rows(OLD))
    version = month.insert(rows(OLD, 1, new=0), merge="keep", unknown="add")
    assert (version.number, version.summary["rows"]) == (2, 0)
    assert np.isnan(month.load().new.values).all()
    assert held(month) == as_held(rows(OLD))
    assert month.partitions()[0].version == 1


# Statements


def statements_of_verbs(make_collection: Make, count: int) -> dict[str, int]:
    """How many statements each verb takes, on so many partitions of as many parts."""
    by_day = make_collection(rows([]), partitioning=izc.Date("time", "D"))
    by_month = make_collection(rows([]), partitioning=izc.Date("time", "M"))
    by_day.insert([day(number) for number in range(count)])
    for number in range(count):
        by_month.insert(day(number))
    verbs: dict[str, Callable[[izc.Collection], Any]] = {
        "partitions": lambda c: c.partitions(),
        "partitions of a filter": lambda c: c.partitions(filters="month == 1"),
        "partitions of a period": lambda c: c.partitions(where={"time": ("2022-01-01T12", "2022-01-02")}),
        "repr": repr,
        "load": lambda c: c.load(),
        "crop": lambda c: c.load(where={"time": ("2022-01-01T12", None)}),
        "versions": lambda c: c.versions(filters="month == 1"),
        "append": inserting(day(count)),
        "upsert": inserting([day(number) for number in range(count)], merge="upsert"),
        "update": lambda c: c.update(lambda data: {"a": data.a + 1}),
        "drop_rows": lambda c: c.drop_rows(where={"time": ("2022-01-01T12", "2022-01-02T03")}),
        "rewrite": lambda c: c.rewrite(),
        "validate": lambda c: c.validate(),
        "drop_partitions": lambda c: c.drop_partitions(all=True),
    }
    costs = {}
    for name, verb in verbs.items():
        for where, collection in {"by day": by_day, "by month": by_month}.items():
            with statements() as seen:
                verb(collection)
            costs[f"{name}, {where}"] = len(seen)
    return costs


def test_each_verb_takes_the_same_statements_whatever_the_number_of_partitions_and_parts(make_collection: Make) -> None:
    few, many = statements_of_verbs(make_collection, 3), statements_of_verbs(make_collection, 12)
    assert few == many
