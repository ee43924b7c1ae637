from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest

from embedctl.headlines import describe
from embedctl.lab.statistics import (
    ENOUGH,
    growth,
    mean_interval,
    percentile,
    percentile_interval,
    percentile_note,
    percentile_ratio,
    ratio_interval,
    unpaired_difference,
    unpaired_ratio,
    verdict,
)
from embedctl.records import Comparison, Interval
from tests.support.late import late

signal = late("scipy.signal")


def test_percentiles_are_measured_values() -> None:
    assert percentile([], 0.5) is None
    assert percentile([7.0], 0.95) == 7.0
    values = [float(n) for n in range(1, 101)]
    random.Random(1).shuffle(values)
    assert percentile(values, 0.5) == 50.0
    assert percentile(values, 0.95) == 95.0


@pytest.mark.parametrize("share", [0.50, 0.95, 0.99])
def test_a_percentile_is_trusted_from_the_number_of_requests_that_bounds_it(share: float) -> None:
    # The largest of n values lies above it with probability 1 - share^n, which must be 97.5 % or more.
    enough = ENOUGH[share]
    assert share**enough <= 0.025 < share ** (enough - 1)
    assert percentile_note(enough, share) == ""
    assert "n too small" in percentile_note(enough - 1, share)
    for count, bounded in ((enough - 1, False), (enough, True)):
        found = percentile_interval([float(n) for n in range(count)], share)
        assert found is not None and (found.high is not None) is bounded


def test_nothing_has_no_interval() -> None:
    assert percentile_interval([], 0.5) is None and mean_interval([]) is None
    assert percentile_ratio([], [1.0], 0.5) is None


@pytest.mark.parametrize(
    ("share", "count"), [(0.50, 20), (0.50, 100), (0.95, 72), (0.95, 200), (0.99, 368), (0.99, 1000)]
)
def test_a_percentiles_interval_covers_the_truth_as_often_as_it_says(share: float, count: int) -> None:
    """Within 2 points of 95 % for skewed latencies, whatever their distribution."""
    random_ = np.random.default_rng(count)
    truth = math.exp(0.5 * statistics.NormalDist().inv_cdf(share))
    found = [
        percentile_interval(values.tolist(), share) for values in random_.lognormal(0, 0.5, (1_500, count))
    ]
    hits = sum(i is not None and (i.low or 0) <= truth <= (i.high or math.inf) for i in found)
    assert 0.93 <= hits / len(found) <= 0.97 + 0.011  # and the simulation's own two standard errors


def test_the_ratio_of_paired_times_cancels_what_slows_both() -> None:
    noise = random.Random(3)
    slow = [noise.lognormvariate(0, 1) for _ in range(12)]  # a machine that is busy now and then
    ratio = ratio_interval([3 * s for s in slow], slow)
    assert ratio.estimate == pytest.approx(3)
    assert ratio.low == pytest.approx(3) and ratio.high == pytest.approx(3)


@pytest.mark.parametrize("blocks", [6, 8, 12])
def test_a_ratios_interval_covers_the_truth_and_a_bootstrap_of_so_few_blocks_does_not(blocks: int) -> None:
    """Why Student's t: 95 % ± 2 of its intervals hold a true ratio of 2; of the bootstrap's under 92 %."""
    random_ = np.random.default_rng(blocks)
    hits = hits_of_bootstrap = 0
    for _ in range(1_000):
        a = 2 * random_.lognormal(0, 0.2, blocks)
        b = random_.lognormal(0, 0.2, blocks)
        ratio = ratio_interval(a.tolist(), b.tolist())
        assert ratio.low is not None and ratio.high is not None
        hits += ratio.low <= 2 <= ratio.high
        means = random_.choice(np.log(a / b), (200, blocks)).mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        hits_of_bootstrap += bool(low <= math.log(2) <= high)
    assert 0.93 <= hits / 1_000 <= 0.97
    assert hits_of_bootstrap / 1_000 < 0.92


@pytest.mark.parametrize("blocks", [11, 24])
def test_late_requests_drown_no_difference_where_there_are_blocks_enough(blocks: int) -> None:
    """One block in fifty three times as late: ranks of 24 blocks find a true 12 % nine times in ten."""
    random_ = np.random.default_rng(5)
    hits = found = 0
    for _ in range(400):
        late = np.where(random_.random((2, blocks)) < 0.02, 3.0, 1.0)
        a, b = random_.lognormal(0, 0.05, (2, blocks)) * late
        ratio = ratio_interval((1.12 * a).tolist(), b.tolist())
        assert ratio.low is not None and ratio.high is not None
        hits += ratio.low <= 1.12 <= ratio.high
        found += verdict(ratio) == "faster"
    assert hits / 400 >= 0.93
    assert (found / 400 >= 0.9) is (blocks == 24)


def test_equal_backends_are_called_different_no_more_often_than_stated() -> None:
    """The interval of A = A leaves 1 out in 5 % ± 2 of experiments; a verdict needs much more than that."""
    random_ = np.random.default_rng(9)
    found = [ratio_interval(*random_.lognormal(0, 0.05, (2, 12)).tolist()) for _ in range(1_000)]
    apart = sum(not (i.low or 0) <= 1 <= (i.high or 0) for i in found)
    assert 0.03 <= apart / 1_000 <= 0.07
    assert sum(verdict(i) in ("faster", "slower") for i in found) / 1_000 < 0.005


@pytest.mark.parametrize(("share", "counts"), [(0.5, (40, 40)), (0.95, (120, 80)), (0.99, (400, 400))])
def test_the_ratio_of_two_runs_percentiles_covers_the_truth(share: float, counts: tuple[int, int]) -> None:
    random_ = np.random.default_rng(counts[0])
    hits = 0
    for _ in range(600):
        a, b = random_.lognormal(0, 0.3, counts[0]), 1.5 * random_.lognormal(0, 0.3, counts[1])
        found = percentile_ratio(a.tolist(), b.tolist(), share)
        assert found is not None and found.low is not None and found.high is not None
        hits += found.low <= 1.5 <= found.high
    assert 0.93 <= hits / 600 <= 0.97 + 0.014


def test_a_ratio_of_percentiles_from_too_few_requests_has_no_interval() -> None:
    found = percentile_ratio([1.0] * 71, [2.0] * 500, 0.95)
    assert found is not None and (found.estimate, found.low, found.high) == (2.0, None, None)


def test_separate_estimates_combine_their_distances() -> None:
    ratio = unpaired_ratio(Interval(10, 9, 11), Interval(20, 20, 20))
    assert ratio is not None
    assert (ratio.estimate, ratio.low, ratio.high) == pytest.approx((2, 20 / 11, 20 / 9))
    open_end = unpaired_ratio(Interval(10, 9, None), Interval(20, 18, 22))
    assert open_end is not None and open_end.low is None and open_end.high is not None
    assert unpaired_ratio(Interval(0, 0, 0), Interval(1, 1, 1)) is None
    difference = unpaired_difference(Interval(0.5, 0.46, 0.53), Interval(0.4, 0.36, 0.44))
    assert (difference.estimate, difference.low, difference.high) == pytest.approx(
        (-0.1, -0.15, -0.04343), abs=1e-4
    )


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_growth_is_covered_although_readings_depend_on_each_other(correlation: float) -> None:
    random_ = np.random.default_rng(3)
    times = [float(n) for n in range(300)]
    hits = 0
    for _ in range(400):
        noise = signal.lfilter([1.0], [1.0, -correlation], random_.normal(size=400))[100:]
        found = growth(times, (noise + 0.01 * np.arange(300)).tolist())
        assert found is not None and found.low is not None and found.high is not None
        hits += found.low <= 0.01 <= found.high
    assert 0.91 <= hits / 400 <= 0.98


def test_growth_of_too_few_readings_is_unknown_and_of_a_line_exact() -> None:
    assert growth([1.0, 2.0], [5.0, 6.0]) is None
    assert growth([1.0] * 30, [5.0] * 30) is None
    found = growth([float(n) for n in range(30)], [7.0 + 2 * n for n in range(30)])
    assert found is not None and (found.low, found.high) == pytest.approx((2, 2))


def test_two_blocks_give_no_interval() -> None:
    ratio = ratio_interval([2.0, 4.0], [1.0, 1.0])
    assert ratio.estimate == pytest.approx(math.sqrt(8))
    assert ratio.low is None and ratio.high is None
    assert verdict(ratio) == "undecided"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.2, 1.6, "faster"),
        (0.5, 0.8, "slower"),
        (0.98, 1.02, "no difference that matters"),
        (0.9, 1.3, "undecided"),
        (1.01, 1.2, "undecided"),
    ],
)
def test_a_verdict_is_the_interval_against_the_threshold(low: float, high: float, expected: str) -> None:
    assert verdict(Interval(math.sqrt(low * high), low, high)) == expected


def test_unpaired_times_are_refused() -> None:
    with pytest.raises(ValueError, match="paired"):
        ratio_interval([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="paired"):
        ratio_interval([], [])


def test_a_large_ratio_is_written_as_people_write_it() -> None:
    comparison = Comparison(
        "one text", "latency", "ollama", "native", Interval(123.4, 99.7, 1520.0), "faster"
    )
    assert describe(comparison) == "one text: native 123× as fast as ollama (100–1,520), faster"
