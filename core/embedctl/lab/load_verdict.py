"""Two backends under the same share of their capacity, judged block by block. Pure.

Below its capacity a backend is judged by p95 from the intended send times; at it and above, where latency
grows for as long as the load lasts, by the requests that it answers in time. The interval is Student's t on
the blocks' log ratios: requests in one queue depend on each other, blocks do not. In simulations of such
queues it holds what it promises (94 to 99 % of cases), where the bootstrap of single requests covered 28 to
88 % and that of stretches of requests 58 to 96 %.

A share is one of a capacity that was measured, and the nearer to 1 it is, the more an error of that capacity
weighs: at 80 % one of 1 % moves p95 by 4 %. It widens the interval; without it, the same backend twice was
told apart in up to a third of all runs. At 100 % it weighs without bounds, and no interval can be given.

The same backend twice gets "no difference that matters" where the data allow it. In simulations of a queue of
one with a capacity that is known exactly (`tests/unit/lab/test_load_same.py`), p95 at 20 to 60 % is known to
within 7 to 8 % after 1,800 services (`standard`'s 9 s at 200 texts/s), which cannot show that 5 % are not
exceeded; to within 3 % after 12,000 (`thorough`'s 60 s), where two runs of three say so; from 30,000 on all
do. Slower backends get "undecided" at these lengths, and `embedctl.verdicts.times_as_long` tells with it how
much longer it would take.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from embedctl.lab.statistics import ENOUGH, percentile, ratio_interval, verdict
from embedctl.records import BackendName, Comparison, Interval

_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class LoadBlock:
    """What came of one block of arrivals."""

    latencies: tuple[float, ...]
    """Seconds from the intended send time, of the good requests."""
    in_time: int
    """Answered within the goal."""
    seconds: float


def compare_loads(
    shape: str,
    share: float,
    baseline: tuple[BackendName, Sequence[LoadBlock]],
    candidate: tuple[BackendName, Sequence[LoadBlock]],
    *,
    capacities: tuple[Interval, Interval],
) -> tuple[Comparison, ...]:
    """How many times as fast the candidate is; nothing where one of them answered nothing.

    The interval has no ends (n is too small) where a whole load has fewer than 72 good requests, or a block
    none.

    Args:
        share: Of each backend's own capacity.
        baseline, candidate: Name and blocks, paired by their order.
        capacities: Theirs, as measured.
    """
    (of_a, a), (of_b, b) = baseline, candidate
    below = share < 1
    metric: Literal["p95", "goodput"] = "p95" if below else "goodput"
    costs = [[_p95(block) if below else _seconds_each(block) for block in blocks] for blocks in (a, b)]
    pairs = [(x, y) for x, y in zip(*costs, strict=True) if x and y]
    whole = [_p95(_joined(blocks)) if below else _seconds_each(_joined(blocks)) for blocks in (a, b)]
    if whole[0] is None or whole[1] is None:
        return ()
    ratio = Interval(whole[0] / whole[1], None, None)
    counted = min(len(_joined(blocks).latencies) for blocks in (a, b))
    if len(pairs) == len(a) and counted >= ENOUGH[_SHARE]:
        ratio = ratio_interval([x for x, _ in pairs], [y for _, y in pairs])
        ratio = widened(ratio, share, capacities)
    return (Comparison(shape, metric, of_a, of_b, ratio, verdict(ratio)),)


def widened(ratio: Interval, share: float, capacities: tuple[Interval, Interval]) -> Interval:
    """The interval with what the capacities' own errors add to it; without ends where that is unknown.

    As in a queue with random arrivals: waiting grows with share / (1 - share); beyond capacity the time until
    answers come too late, with the inverse of what is too much.
    """
    unknown = Interval(ratio.estimate, None, None, ratio.level)
    if ratio.low is None or ratio.high is None or share == 1:
        return unknown
    error = 0.0
    for one in capacities:
        if not one.low or not one.high:
            return unknown
        error = math.hypot(error, math.log(one.high / one.low) / 2)
    error *= share / abs(1 - share)
    down = math.hypot(math.log(ratio.estimate / ratio.low), error)
    up = math.hypot(math.log(ratio.high / ratio.estimate), error)
    return Interval(
        ratio.estimate, ratio.estimate * math.exp(-down), ratio.estimate * math.exp(up), ratio.level
    )


def _p95(block: LoadBlock) -> float | None:
    return percentile(block.latencies, _SHARE)


def _seconds_each(block: LoadBlock) -> float | None:
    """Seconds per request that was answered in time; None without one."""
    return block.seconds / block.in_time if block.in_time else None


def _joined(blocks: Sequence[LoadBlock]) -> LoadBlock:
    return LoadBlock(
        tuple(latency for block in blocks for latency in block.latencies),
        sum(block.in_time for block in blocks),
        sum(block.seconds for block in blocks),
    )
