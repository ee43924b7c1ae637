"""Stored latencies of requests that depend on each other, in parts that do not. Pure.

Requests in one queue wait for each other: taken for independent, two runs of the same backend under 60 % load
are told apart in a quarter to a half of all cases. Of an open loop the parts are its blocks, each of which
began when all of the one before was answered; of clients at once, and of a soak, they are stretches far
longer than a request has influence (batch means).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from embedctl.lab.statistics import ENOUGH, percentile, separate_ratio
from embedctl.records import BackendName, Interval, Measurement, Run

_BLOCKS: Final = 6
"""Of the Poisson loads of runs that do not tell."""
_STRETCHES: Final = 10
_AT_ONCE: Final = "at once"
_LOAD: Final = re.compile(r"load (\d+) %")
_GOAL: Final = re.compile(r"within ([\d.]+) ms")
_KEPT_UP: Final = 0.97
"""Of what was offered, answered in time: what was answered tells what was offered, and no more."""


@dataclass(frozen=True, slots=True)
class Part:
    latencies_ms: tuple[float, ...]
    """Of the good requests."""
    in_time: int
    """Of an open loop: answered within its goal."""
    seconds: float
    """Of an open loop: from its beginning until all was answered, as long as it had arrivals at least."""


def depend(row: Measurement) -> bool:
    """Whether the row's requests may have waited for each other."""
    return row.kind in ("open loop", "soak") or row.shape.endswith(_AT_ONCE)


def load_share(row: Measurement) -> float | None:
    """Of an open loop: what was offered, as a share of the backend's own capacity."""
    found = _LOAD.fullmatch(row.shape)
    return int(found[1]) / 100 if found and row.kind == "open loop" else None


def capacity(run: Run, backend: BackendName) -> Interval:
    """Texts/s of clients at once, of which the run's loads were shares; without ends where it is not told."""
    for row in run.measurements:
        figure = row.figure("texts_per_s")
        if row.backend == backend and row.shape.endswith(_AT_ONCE) and figure is not None and figure.value:
            return Interval(figure.value, figure.low, figure.high)
    return Interval(0.0, None, None)


def parts_of(row: Measurement) -> tuple[Part, ...]:
    """Empty where they cannot be told: the run was stored without its times."""
    if row.kind == "open loop":
        return _blocks(row)
    count = len(row.latencies_ms)
    ends = [number * count // _STRETCHES for number in range(_STRETCHES + 1)]
    return tuple(Part(row.latencies_ms[begin:end], 0, 0.0) for begin, end in pairwise(ends))


def percentile_change(a: Measurement, b: Measurement, share: float) -> Interval | None:
    """B's percentile over A's. Without ends where requests are too few, or the load reaches capacity:
    latencies then grow for as long as it lasts, and tell of its length."""
    of_a, of_b = percentile(a.latencies_ms, share), percentile(b.latencies_ms, share)
    if not of_a or not of_b:
        return None
    whole = Interval(of_b / of_a, None, None)
    if min(len(a.latencies_ms), len(b.latencies_ms)) < ENOUGH[share] or (load_share(a) or 0.0) >= 1:
        return whole
    x, y = ([percentile(part.latencies_ms, share) for part in parts_of(row)] for row in (a, b))
    return _between(x, y) or whole


def goodput_change(a: Measurement, b: Measurement) -> Interval | None:
    """B's goodput over A's, with ends where both show what a backend can do and not what was offered.

    Whoever is called worse, or alike, must have fallen behind; whoever is called better need not.
    """
    x, y = ([part.in_time / part.seconds for part in parts_of(row) if part.seconds] for row in (a, b))
    change = _between(x, y)
    if change is None or change.low is None or change.high is None:
        return None
    behind = [sum(part.in_time for part in parts_of(row)) < _KEPT_UP * row.requests for row in (a, b)]
    tells = behind[0] if change.low > 1 else behind[1] if change.high < 1 else all(behind)
    return change if tells else None


def _between(x: Sequence[float | None], y: Sequence[float | None]) -> Interval | None:
    known = [[value for value in values if value] for values in (x, y)]
    if len(known[0]) < len(x) or len(known[1]) < len(y):
        return None  # a part without an answer has no percentile, and leaving it out would favour it
    return separate_ratio(*known)


def _blocks(row: Measurement) -> tuple[Part, ...]:
    offered, counted, goodput = (row.figure(name) for name in ("offered_per_s", "blocks", "goodput_per_s"))
    intended = row.series.get("intended_s", ())
    if offered is None or not offered.value or len(intended) != len(row.latencies_ms):
        return ()
    count = int(counted.value) if counted is not None and counted.value else _BLOCKS
    length = row.requests / offered.value / count
    goal = _GOAL.search(goodput.note) if goodput is not None else None
    within = float(goal[1]) if goal else 0.0
    latencies: list[list[float]] = [[] for _ in range(count)]
    ended = [length] * count
    for at, latency in zip(intended, row.latencies_ms, strict=True):
        place = min(count - 1, int(at / length))
        latencies[place].append(latency)
        ended[place] = max(ended[place], at + latency / 1e3 - place * length)
    return tuple(
        Part(tuple(some), sum(latency <= within for latency in some), seconds)
        for some, seconds in zip(latencies, ended, strict=True)
    )
