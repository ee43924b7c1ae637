"""The statistics of a run. Pure functions; every interval says when it cannot be given.

What was chosen and why (`tests/unit/lab/test_lab_statistics.py` repeats the simulations):

- Percentiles: order statistics, exact for any distribution. Requests are taken as independent.
- Ratios of paired blocks: on logarithms, by signed ranks from 12 blocks on, by Student's t from fewer. Both
  cover what they promise; the percentile bootstrap of 6 to 12 blocks covers 85 to 90 % instead of 95 %. With
  even noise the two are alike. Where one request in fifty comes late, t tells a difference of 12 % from none
  in half of the runs with 40 blocks, signed ranks in all; of 6 blocks they give wider intervals than t.
- Percentiles of two separate runs: their ratio by bootstrap. Combining the two intervals would cover 98 %.
- Blocks of two separate runs: Welch's t on logarithms.
- Means over queries: Student's t over clusters of those that share an answer, which depend on each other.
- Growth over time: least squares, with as many degrees of freedom as the readings are worth after their
  own correlation: neighbouring readings of memory depend on each other. Short and very sluggish series
  are covered in 86 to 92 % of cases instead of 95 %.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Final

from embedctl.records import Figure, Interval
from embedctl.verdicts import THRESHOLD as THRESHOLD
from embedctl.verdicts import verdict as verdict

ENOUGH: Final = {0.50: 6, 0.95: 72, 0.99: 368}
"""Requests from which a distribution-free 95 % interval of a percentile has an upper end: q^n ≤ 0.025."""
_FEWEST_READINGS: Final = 20
_FEWEST_CLUSTERS: Final = 10
_RESAMPLES: Final = 4_000
_RANKED_FROM: Final = 12
"""Paired blocks from which on signed ranks decide more than Student's t."""


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile, a value that was measured; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def percentile_interval(values: Sequence[float], share: float, *, level: float = 0.95) -> Interval | None:
    """A percentile with its distribution-free interval; an end that so few values cannot bound is None.

    The upper end misses with at most half of 1 - `level`; the lower end with what that leaves, so that the
    steps between ranks do not make the interval wider than it must be.
    """
    estimate = percentile(values, share)
    if estimate is None:
        return None
    lower, upper = _ranks(len(values), share, level)
    ordered = sorted(values)
    return Interval(
        estimate,
        ordered[lower - 1] if lower >= 1 else None,
        ordered[upper - 1] if upper <= len(values) else None,
        level,
    )


@lru_cache(maxsize=256)
def _ranks(count: int, share: float, level: float) -> tuple[int, int]:
    """The interval's ranks, from 1; 0 below and `count` + 1 above stand for "no such value"."""
    from scipy.stats import binom  # 0.5 s to import: only where a run has been measured

    miss = 1 - level
    upper = int(binom.isf(miss / 2, count, share)) + 1
    left = miss - (float(binom.sf(upper - 1, count, share)) if upper <= count else 0.0)
    lower = int(binom.ppf(left, count, share))
    return (lower if binom.cdf(lower - 1, count, share) <= left else lower - 1), upper


def percentile_figure(values: Sequence[float], share: float) -> Figure:
    """The percentile of latencies in ms as `p50_ms`, `p95_ms` or `p99_ms`, with interval and note."""
    found = percentile_interval(values, share)
    name, note = f"p{share * 100:.0f}_ms", percentile_note(len(values), share)
    if found is None:
        return Figure(name, None, "ms", note="no good request")
    return Figure(name, found.estimate, "ms", found.low, found.high, note)


def percentile_note(count: int, share: float) -> str:
    """Why a percentile of `count` values is not to be trusted; empty if it is."""
    return "" if count >= ENOUGH[share] else f"n too small ({count} of {ENOUGH[share]})"


def mean_interval(values: Sequence[float], *, level: float = 0.95) -> Interval | None:
    """The mean of block values with Student's t interval; without ends from fewer than three."""
    if not values:
        return None
    mean = statistics.fmean(values)
    if len(values) < 3:
        return Interval(mean, None, None, level)
    half = _t(len(values) - 1, level) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half, level)


def clustered_mean(values: Sequence[float], clusters: Sequence[Hashable], *, level: float = 0.95) -> Interval:
    """The mean, with a t interval that lets values of one cluster depend on each other.

    Without ends from fewer than ten clusters. Shapes (n,).
    """
    import numpy as np

    rows = np.asarray(values, np.float64)
    mean = float(rows.mean())
    numbers: dict[Hashable, int] = {}
    place = [numbers.setdefault(cluster, len(numbers)) for cluster in clusters]
    count = len(numbers)
    if count < _FEWEST_CLUSTERS:
        return Interval(mean, None, None, level)
    sums = np.bincount(place, rows - mean)
    error = math.sqrt(count / (count - 1) * float((sums**2).sum())) / len(rows)
    half = _t(count - 1, level) * error
    return Interval(mean, mean - half, mean + half, level)


def ratio_interval(baseline: Sequence[float], candidate: Sequence[float], *, level: float = 0.95) -> Interval:
    """How many times as fast the candidate is, from times paired block by block.

    What slowed a whole block down slowed both, and cancels out. From a dozen blocks on it is the median of
    the ratios' pairwise geometric means (Hodges and Lehmann), with the interval that Wilcoxon's signed-rank
    test does not reject: a few late requests move neither. From fewer, the geometric mean with Student's t
    interval on logarithms.

    Args:
        baseline: One positive time per block, shape (n,).
        candidate: As many, in the same order.

    Raises:
        ValueError: The lengths differ or are zero.
    """
    if len(baseline) != len(candidate) or not baseline:
        raise ValueError("paired times are needed")
    logs = [math.log(a / b) for a, b in zip(baseline, candidate, strict=True)]
    found = _ranked(logs, level) if len(logs) >= _RANKED_FROM else mean_interval(logs, level=level)
    assert found is not None
    return Interval(math.exp(found.estimate), _exp(found.low), _exp(found.high), level)


def _ranked(values: Sequence[float], level: float) -> Interval:
    """The middle of symmetric values by their pairwise means, with its distribution-free interval."""
    import numpy as np

    rows, columns = np.triu_indices(len(values))
    found = np.asarray(values)
    means = np.sort((found[rows] + found[columns]) / 2)
    outside = _outside(len(values), level)
    return Interval(float(np.median(means)), float(means[outside]), float(means[-1 - outside]), level)


@lru_cache(maxsize=64)
def _outside(count: int, level: float) -> int:
    """How many of the sorted pairwise means of `count` values lie below the interval, and above it."""
    import numpy as np

    ways = np.zeros(count * (count + 1) // 2 + 1)  # of each sum of the ranks of the values above the middle
    ways[0] = 1.0
    for rank in range(1, count + 1):
        ways[rank:] = (ways[rank:] + ways[:-rank]) / 2
        ways[:rank] /= 2
    return int(np.searchsorted(np.cumsum(ways), (1 - level) / 2, side="right")) - 1


def percentile_ratio(
    a: Sequence[float], b: Sequence[float], share: float, *, level: float = 0.95
) -> Interval | None:
    """B's percentile over A's, of two separate runs; without ends where either has too few values.

    By bootstrap: the percentile of a resample is the value at a rank that follows a Beta law, which is drawn
    from directly. The same values always give the same interval.
    """
    of_a, of_b = percentile(a, share), percentile(b, share)
    if not of_a or of_b is None:
        return None
    if min(len(a), len(b)) < ENOUGH[share]:
        return Interval(of_b / of_a, None, None, level)
    import numpy as np

    random = np.random.default_rng(0)

    def resampled(values: Sequence[float]) -> np.typing.NDArray[np.float64]:
        count = len(values)
        rank = max(1, math.ceil(share * count))
        places = random.beta(rank, count - rank + 1, _RESAMPLES) * count
        return np.sort(np.asarray(values))[np.minimum(count - 1, places.astype(np.int64))]

    low, high = np.quantile(resampled(b) / resampled(a), [(1 - level) / 2, (1 + level) / 2])
    return Interval(of_b / of_a, float(low), float(high), level)


def separate_ratio(a: Sequence[float], b: Sequence[float], *, level: float = 0.95) -> Interval | None:
    """B over A from positive block values of two separate runs, which nothing pairs; None from fewer than
    three of either.

    The ratio of geometric means, with Welch's t interval on logarithms.
    """
    if min(len(a), len(b)) < 3:
        return None
    logs = [[math.log(value) for value in values] for values in (a, b)]
    errors = [statistics.variance(values) / len(values) for values in logs]
    middle, error = statistics.fmean(logs[1]) - statistics.fmean(logs[0]), sum(errors)
    if not error:
        return Interval(math.exp(middle), math.exp(middle), math.exp(middle), level)
    degrees = error**2 / sum(one**2 / (len(values) - 1) for one, values in zip(errors, logs, strict=True))
    half = _t(degrees, level) * math.sqrt(error)
    return Interval(math.exp(middle), math.exp(middle - half), math.exp(middle + half), level)


def reading_interval(
    ratio: float, alike: Sequence[float], *, least: float = 0.0, level: float = 0.95
) -> Interval:
    """A single ratio with the interval that the scatter of others like it gives; without ends from fewer than
    three of those.

    Args:
        alike: Positive ratios of the same thing, this one among them.
        least: What it may be off by at least, as a share of it.
    """
    if len(alike) < 3:
        return Interval(ratio, None, None, level)
    spread = statistics.stdev(math.log(one) for one in alike)
    half = max(least, _t(len(alike) - 1, level) * spread)
    return Interval(ratio, ratio * math.exp(-half), ratio * math.exp(half), level)


def unpaired_ratio(a: Interval, b: Interval) -> Interval | None:
    """B over A from two separate, positive estimates with their intervals; None where one is not positive.

    Each end takes the distances of both estimates to their own ends, on a logarithmic scale (MOVER; Zou and
    Donner 2008); where one of these ends is unknown, so is the ratio's.
    """
    if a.estimate <= 0 or b.estimate <= 0:
        return None
    ratio = b.estimate / a.estimate

    def end(of_b: float | None, of_a: float | None, sign: int) -> float | None:
        if of_b is None or of_a is None or of_b <= 0 or of_a <= 0:
            return None
        distance = math.hypot(math.log(of_b / b.estimate), math.log(of_a / a.estimate))
        return ratio * math.exp(sign * distance)

    return Interval(ratio, end(b.low, a.high, -1), end(b.high, a.low, 1), a.level)


def unpaired_difference(a: Interval, b: Interval) -> Interval:
    """B less A from two separate estimates with their intervals."""

    def end(of_b: float | None, of_a: float | None, sign: int) -> float | None:
        if of_b is None or of_a is None:
            return None
        return difference + sign * math.hypot(of_b - b.estimate, of_a - a.estimate)

    difference = b.estimate - a.estimate
    return Interval(difference, end(b.low, a.high, -1), end(b.high, a.low, 1), a.level)


def growth(times: Sequence[float], values: Sequence[float], *, level: float = 0.95) -> Interval | None:
    """The slope of `values` over `times`, in units of value per unit of time, with its interval.

    None from fewer than 20 readings, or readings of one moment.
    """
    count = len(times)
    if count < _FEWEST_READINGS or times[-1] <= times[0]:
        return None
    slope, intercept = statistics.linear_regression(times, values)
    residuals = [value - slope * at - intercept for at, value in zip(times, values, strict=True)]
    square = sum(r * r for r in residuals)
    mean = statistics.fmean(times)
    spread = sum((at - mean) ** 2 for at in times)
    if square <= 1e-18 * slope * slope * spread:  # a line without noise, or rounding alone
        return Interval(slope, slope, slope, level)
    correlation = sum(a * b for a, b in itertools.pairwise(residuals)) / square
    correlation += (1 + 4 * correlation) / count  # it comes out too low from few readings
    correlation = min(0.999, max(0.0, correlation))
    worth = max(3.0, count * (1 - correlation) / (1 + correlation))
    error = math.sqrt(square / (count - 2) / spread * count / worth)
    half = _t(max(1.0, worth - 2), level) * error
    return Interval(slope, slope - half, slope + half, level)


def _t(degrees: float, level: float) -> float:
    from scipy.special import stdtrit  # 0.3 s to import: only where a run has been measured

    return float(stdtrit(degrees, 0.5 + level / 2))


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(value)
