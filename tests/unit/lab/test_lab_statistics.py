from __future__ import annotations

import math
import random

import pytest

from embedctl.headlines import describe
from embedctl.lab.statistics import ENOUGH_FOR_P95, p95_note, percentile, ratio_interval, verdict
from embedctl.records import Comparison, Interval


def test_percentiles_are_measured_values() -> None:
    assert percentile([], 0.5) is None
    assert percentile([7.0], 0.95) == 7.0
    values = [float(n) for n in range(1, 101)]
    random.Random(1).shuffle(values)
    assert percentile(values, 0.5) == 50.0
    assert percentile(values, 0.95) == 95.0


def test_p95_is_trusted_from_the_number_of_requests_that_bounds_it() -> None:
    # The largest of n values lies above p95 with probability 1 - 0.95^n, which must be 97.5 % or more.
    assert 0.95**ENOUGH_FOR_P95 <= 0.025 < 0.95 ** (ENOUGH_FOR_P95 - 1)
    assert p95_note(ENOUGH_FOR_P95) == ""
    assert "n too small" in p95_note(ENOUGH_FOR_P95 - 1)


def test_the_ratio_of_paired_times_cancels_what_slows_both() -> None:
    noise = random.Random(3)
    slow = [noise.lognormvariate(0, 1) for _ in range(12)]  # a machine that is busy now and then
    ratio = ratio_interval([3 * s for s in slow], slow)
    assert ratio.estimate == pytest.approx(3)
    assert ratio.low == pytest.approx(3) and ratio.high == pytest.approx(3)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """1,000 experiments of 8 blocks each with a true ratio of 2: 95 % ± 2 of the intervals hold it."""
    noise = random.Random(5)
    hits = 0
    for _ in range(1_000):
        a = [2 * noise.lognormvariate(0, 0.2) for _ in range(8)]
        b = [noise.lognormvariate(0, 0.2) for _ in range(8)]
        ratio = ratio_interval(a, b)
        assert ratio.low is not None and ratio.high is not None
        hits += ratio.low <= 2 <= ratio.high
    assert 0.93 <= hits / 1_000 <= 0.97


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
