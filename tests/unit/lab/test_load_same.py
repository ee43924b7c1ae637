"""Poisson loads of a queue: the same backend twice is not told apart, in one run or in two."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from embedctl.lab.compare import compare
from embedctl.lab.load_verdict import LoadBlock, compare_loads, widened
from embedctl.lab.open_loop import CAPACITY, poisson
from embedctl.lab.parts import goodput_change, parts_of
from embedctl.records import Comparison, Figure, FigureDelta, Interval, Measurement, Run
from embedctl.verdicts import times_as_long
from tests.support import canned

_SERVICE = 0.005
_BLOCKS = 6
_GOAL_MS = 200.0
EXACT = Interval(200.0, 200.0, 200.0)


def served(arrivals: Sequence[float], noise: random.Random, slower: float = 1.0) -> tuple[float, ...]:
    """Seconds from each arrival to its answer: one after the other, 5 ms each with a tenth of scatter."""
    free, found = 0.0, []
    for at in arrivals:
        free = max(free, at) + _SERVICE * slower * noise.lognormvariate(0, 0.1)
        found.append(free - at)
    return tuple(found)


def blocks(share: float, length: float, seed: int, *, arrivals: int, error: float) -> list[LoadBlock]:
    """A load whose capacity was measured with such an error."""
    noise = random.Random(seed)
    rate = share / _SERVICE * noise.lognormvariate(0, error)
    each = length / _BLOCKS
    made = (
        served(poisson(rate, each, random.Random(f"{arrivals}:{block}")), noise) for block in range(_BLOCKS)
    )
    return [LoadBlock(some, sum(1e3 * one <= _GOAL_MS for one in some), each) for some in made]


def within_runs(
    share: float, length: float, *capacities: Interval, error: float = 0.0
) -> list[list[Comparison]]:
    """What 20 runs say for each capacity that they may have been told."""
    found: list[list[Comparison]] = [[] for _ in capacities]
    for seed in range(20):
        a, b = (blocks(share, length, 2 * seed + one, arrivals=seed, error=error) for one in (0, 1))
        for said, capacity in zip(found, capacities, strict=True):
            said += compare_loads("load", share, ("a", a), ("b", b), capacities=(capacity, capacity))
    return found


def test_enough_requests_tell_that_nothing_differs_and_too_few_tell_how_many_it_takes() -> None:
    (long,) = within_runs(0.4, 150.0, EXACT)
    assert Counter(one.verdict for one in long)["no difference that matters"] >= 19
    (short,) = within_runs(0.4, 9.0, EXACT)
    assert {one.verdict for one in short} <= {"undecided", "no difference that matters"}
    longer = sorted(times for one in short if (times := times_as_long(one.ratio)) is not None)
    assert 2 < longer[len(longer) // 2] < 20  # 150 s are 17 times as long


def test_the_error_of_a_capacity_makes_no_difference_of_backends() -> None:
    """Two in a hundred: at 80 % of capacity that alone moves p95 by a twelfth."""
    known = Interval(200.0, 200 * math.exp(-0.04), 200 * math.exp(0.04))
    found, as_if_exact = within_runs(0.8, 40.0, known, EXACT, error=0.02)
    assert Counter(one.verdict for one in found)["undecided"] >= 19
    assert sum(one.verdict in ("faster", "slower") for one in as_if_exact) >= 3


@pytest.mark.parametrize(("share", "low"), [(0.2, 1 / 1.11), (0.8, 1 / 1.182), (1.0, None), (1.2, 1 / 1.252)])
def test_an_error_weighs_the_more_the_nearer_the_load_is_to_capacity(share: float, low: float | None) -> None:
    two = Interval(100.0, 100 / 1.024, 100 * 1.024)
    found = widened(Interval(1.0, 1 / 1.105, 1.105), share, (two, two))
    assert found.low == (None if low is None else pytest.approx(low, abs=0.005))
    assert (found.low is None) == (found.high is None)
    unknown = Interval(100.0, None, None)
    assert widened(Interval(1.0, 0.9, 1.1), share, (two, unknown)).low is None


def run_of(
    seed: int, share: float = 0.6, *, length: float = 9.0, slower: float = 1.0, told: bool = True
) -> Run:
    """A run of one load, as it is stored."""
    noise = random.Random(seed)
    each, intended, latencies = length / _BLOCKS, [], []
    for block in range(_BLOCKS):
        arrivals = poisson(share / _SERVICE, each, noise)
        intended += [block * each + at for at in arrivals]
        latencies += [1e3 * one for one in served(arrivals, noise, slower)]
    count = len(latencies)
    row = Measurement(
        "native", f"load {share * 100:.0f} %", 1, count, 0, tuple(latencies), None, None, "", None, None,
        None, None, "", kind="open loop",
        figures=(
            Figure("offered_per_s", count / length),
            Figure("goodput_per_s", 1.0, note=f"answered within {_GOAL_MS:g} ms"),
            Figure("blocks", float(_BLOCKS)),
        ),
        series={"intended_s": tuple(intended)} if told else {},
    )  # fmt: skip
    capacity = replace(
        row, shape=CAPACITY, kind="closed loop", series={}, latencies_ms=(),
        figures=(Figure("texts_per_s", 200.0, "per_second", 200.0, 200.0),),
    )  # fmt: skip
    return replace(canned.run(seed), measurements=(capacity, row), fingerprints=canned.run().fingerprints)


def change(a: Run, b: Run, name: str) -> FigureDelta:
    return next(one for one in compare(a, b).figures if one.name == name and one.shape.startswith("load"))


def test_two_runs_of_the_same_load_are_not_told_apart_and_a_slower_one_is() -> None:
    said = Counter(change(run_of(2 * n), run_of(2 * n + 1), "p95").verdict for n in range(40))
    assert said["better"] + said["worse"] <= 3, said  # single requests told half of them apart
    slower = change(run_of(1), run_of(2, slower=1.4), "p95")
    assert slower.verdict == "worse"


def test_the_blocks_are_read_from_what_is_stored() -> None:
    run = run_of(1)
    row = run.measurements[1]
    parts = parts_of(row)
    assert len(parts) == _BLOCKS
    assert sum((part.latencies_ms for part in parts), ()) == row.latencies_ms
    assert parts_of(replace(row, figures=row.figures[:2])) == parts  # a run of before does not tell how many
    assert all(part.seconds >= 1.5 for part in parts)


def test_without_its_times_a_load_decides_nothing() -> None:
    """Such as the stored run in assets, whose series were left out."""
    found = change(run_of(1), run_of(2, slower=2.0, told=False), "p95")
    assert found.verdict == "undecided"
    assert found.change is not None and found.change.low is None


def test_at_capacity_latency_tells_of_the_loads_length_and_goodput_of_the_backend() -> None:
    a, b = run_of(1, 1.2), run_of(2, 1.2, slower=1.5)
    assert change(a, b, "p95").verdict == "undecided"
    assert change(a, b, "goodput_per_s").verdict == "worse"
    kept_up = [run_of(seed, 0.2).measurements[1] for seed in (1, 2)]
    assert goodput_change(*kept_up) is None  # both answered what was offered
