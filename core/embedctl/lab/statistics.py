"""The statistics of a run. Pure functions; every interval says when it cannot be given."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from embedctl.records import Interval

ENOUGH_FOR_P95 = 72
"""Requests from which a distribution-free 95 % interval of p95 has an upper end: 0.95^n ≤ 0.025."""

Verdict = Literal["faster", "slower", "no difference that matters", "undecided"]


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile, a value that was measured; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def p95_note(count: int) -> str:
    """Why p95 of `count` requests is not to be trusted; empty if it is."""
    return "" if count >= ENOUGH_FOR_P95 else f"n too small ({count} of {ENOUGH_FOR_P95})"


def ratio_interval(baseline: Sequence[float], candidate: Sequence[float], *, level: float = 0.95) -> Interval:
    """How many times as fast the candidate is, from times paired block by block.

    The geometric mean of baseline over candidate, with Student's t interval on the logarithms of the
    per-block ratios: what slowed a whole block down slowed both, and cancels out.

    Args:
        baseline: One positive time per block, shape (n,).
        candidate: As many, in the same order.

    Raises:
        ValueError: The lengths differ or are zero.
    """
    if len(baseline) != len(candidate) or not baseline:
        raise ValueError("paired times are needed")
    logs = [math.log(a / b) for a, b in zip(baseline, candidate, strict=True)]
    mean = statistics.fmean(logs)
    if len(logs) < 3:  # an interval of two blocks spans everything
        return Interval(math.exp(mean), None, None, level)
    from scipy.special import stdtrit  # 0.3 s to import: only where a run has been measured

    half = float(stdtrit(len(logs) - 1, 0.5 + level / 2)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half), level)


def verdict(ratio: Interval, *, threshold: float = 1.05) -> Verdict:
    """The interval against a threshold: a difference under 5 % matters to nobody."""
    if ratio.low is None or ratio.high is None:
        return "undecided"
    if ratio.low > threshold:
        return "faster"
    if ratio.high < 1 / threshold:
        return "slower"
    if ratio.low >= 1 / threshold and ratio.high <= threshold:
        return "no difference that matters"
    return "undecided"
