"""What a plan of cuts makes of a partition, on plain lists: what the workers and the registry do with it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from intake_zcollection.merging import Bounds, CutPlan, Local

Row = tuple[int, int]
"""An axis value, and a number that tells the row from all others."""
Rows = list[Row]


def axis_of(rows: Rows) -> npt.NDArray[np.int64]:
    return np.array([time for time, _ in rows], np.int64)


def bounds_of(parts: Sequence[Rows]) -> Bounds:
    return Bounds.of([(part[0][0], part[-1][0], len(part)) for part in parts])


def applied(plan: CutPlan, parts: Sequence[Rows], inserted: Sequence[Rows] = ()) -> list[Rows]:
    """The parts that a plan makes; what it says of those that it keeps has to be right."""
    read = [parts[number][first:last] for run in plan.runs for number, first, last in run.read]
    pool = [row for rows in [*read, *inserted] for row in rows]
    chosen = iter([pool[place] for place in plan.order.tolist()])
    result = [[next(chosen) for _ in range(run.rows)] for run in plan.runs]
    assert next(chosen, None) is None
    for number, part in enumerate(parts):
        if number not in plan.kept:
            result.append(part)
        for kept in plan.kept.get(number, ()):
            rows = part[kept.offset : kept.offset + kept.rows]
            times = [time for time, _ in rows]
            assert len(rows) == kept.rows > 0
            assert (kept.axis_min, kept.axis_max) == (times[0], times[-1])
            assert kept.axis_unique == (len(set(times)) == len(times))
            result.append(rows)
    return sorted(filter(None, result), key=lambda rows: rows[0])


def merged_alone(strategy: Local, old: Rows, new: Rows) -> Rows:
    """One dataset merged with all rows of a partition: the whole meaning of a strategy."""
    new, tolerance = sorted(new, key=lambda row: row[0]), strategy.tolerance
    there, times = {time for time, _ in old}, [time for time, _ in new]
    survives: Callable[[int], Any] = lambda time: True  # noqa: E731 - there are others
    match strategy.name:
        case "append":
            if again := there & set(times):
                raise KeyError(sorted(again))
        case "keep":
            new = [row for row in new if row[0] not in there]
        case "upsert":
            survives = lambda time: all(abs(time - each) > (tolerance or 0) for each in times)  # noqa: E731 - as above
        case "time_series":
            periods: list[list[int]] = []
            for time in times:
                if periods and (tolerance is None or time - periods[-1][-1] <= tolerance):
                    periods[-1].append(time)
                else:
                    periods.append([time])
            survives = lambda time: not any(each[0] <= time <= each[-1] for each in periods)  # noqa: E731 - as above
    return sorted([*(row for row in old if survives(row[0])), *new], key=lambda row: row[0])


def merged_in_turn(strategy: Local, old: Rows, inserted: Sequence[Rows]) -> Rows:
    """Several datasets, each merged with all that was there before it."""
    for new in inserted:
        old = merged_alone(strategy, old, new)
    return old
