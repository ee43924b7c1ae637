"""Numbers over time, as the charts draw them and the store returns them. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedctl.metrics import METRICS
from embedctl.records import Event

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Series:
    """One metric over time; the four arrays have one length, shape (n,), times ascending.

    A raw reading has `low == mean == high`. Time without a reading has no entry: two neighbours further
    apart than `gap` seconds are not connected.
    """

    key: str
    at: Floats
    """Unix seconds; the start of the bucket for a thinned tier."""
    low: Floats
    mean: Floats
    high: Floats
    gap: float
    """Seconds between neighbours above which the line breaks."""

    def __len__(self) -> int:
        return len(self.at)

    @classmethod
    def empty(cls, key: str, gap: float = 3.0) -> Series:
        nothing = np.empty(0, dtype=np.float64)
        return cls(key, nothing, nothing, nothing, nothing, gap)


@dataclass(frozen=True, slots=True)
class History:
    """A window of recorded time."""

    since: float
    until: float
    resolution: float
    """Seconds per entry of the tier that was read."""
    series: Mapping[str, Series]
    """By metric key; a metric without a reading in the window is present and empty."""
    events: tuple[Event, ...]


def history_document(history: History) -> dict[str, Any]:
    """A window as plain data for JSON; metrics without a reading are left out."""
    return {
        "since": history.since,
        "until": history.until,
        "resolution": history.resolution,
        "series": {
            key: {
                "unit": METRICS[key].unit,
                "at": series.at.tolist(),
                "low": series.low.tolist(),
                "mean": series.mean.tolist(),
                "high": series.high.tolist(),
            }
            for key, series in history.series.items()
            if len(series)
        },
        "events": [asdict(event) for event in history.events],
    }


@dataclass(frozen=True, slots=True)
class Columns:
    """A series as it passes equal columns of time; arrays of shape (count,), NaN where it is absent."""

    low: Floats
    mean: Floats
    high: Floats


@dataclass(frozen=True, slots=True)
class Reading:
    """One entry of a series."""

    at: float
    low: float
    mean: float
    high: float


@dataclass(frozen=True, slots=True)
class WindowStatistics:
    """A series over a window: true extremes, the others over the entries' means."""

    count: int
    low: float
    mean: float
    p50: float
    p95: float
    p99: float
    high: float
    first: float
    last: float


def columns(series: Series, since: float, until: float, count: int) -> Columns:
    """The extent of a series in each of `count` equal columns of [since, until).

    A column covers its entries and the line through it from its neighbours, so that adjacent columns touch
    where the series is connected and no extreme is lost, however many entries share a column.

    Raises:
        ValueError: `count` is not positive, or `until` is not after `since`.
    """
    if count <= 0 or not until > since:
        raise ValueError(f"no columns between {since} and {until} (count {count})")
    at = series.at
    edges = since + (until - since) / count * np.arange(count + 1)
    index = np.searchsorted(at, edges)
    low = _per_column(np.fmin, series.low, index)
    high = _per_column(np.fmax, series.high, index)
    total = _per_column(np.add, series.mean, index)
    inside = np.diff(index)
    mean = np.divide(total, inside, out=np.full(count, np.nan), where=inside > 0)

    if len(at) > 1:
        right = np.clip(index, 1, len(at) - 1)
        left = right - 1
        distance = at[right] - at[left]
        connected = (index > 0) & (index < len(at)) & (distance <= series.gap)
        share = np.where(connected, (edges - at[left]) / np.where(distance > 0, distance, 1.0), np.nan)
        at_low = series.low[left] * (1 - share) + series.low[right] * share
        at_high = series.high[left] * (1 - share) + series.high[right] * share
        at_mean = series.mean[left] * (1 - share) + series.mean[right] * share
        low = np.fmin(low, np.fmin(at_low[:-1], at_low[1:]))
        high = np.fmax(high, np.fmax(at_high[:-1], at_high[1:]))
        mean = np.where(inside > 0, mean, (at_mean[:-1] + at_mean[1:]) / 2)
    return Columns(low, mean, high)


def _per_column(reduce: np.ufunc, values: Floats, index: NDArray[np.intp]) -> Floats:
    """Reduce `values[index[c]:index[c + 1]]` for each column c; NaN for an empty column."""
    result = np.full(len(index) - 1, np.nan)
    filled = index[1:] > index[:-1]
    if filled.any():
        # Between two filled columns lie only empty ones, so each filled start ends the one before it.
        result[filled] = reduce.reduceat(values[: index[-1]], index[:-1][filled])
    return result


def reading_at(series: Series, at: float, reach: float) -> Reading | None:
    """The entry nearest to `at`, or None when none lies within `reach` seconds."""
    if not len(series):
        return None
    right = int(np.searchsorted(series.at, at))
    nearest = min(
        (i for i in (right - 1, right) if 0 <= i < len(series)), key=lambda i: abs(float(series.at[i]) - at)
    )
    if abs(float(series.at[nearest]) - at) > reach:
        return None
    return Reading(
        float(series.at[nearest]),
        float(series.low[nearest]),
        float(series.mean[nearest]),
        float(series.high[nearest]),
    )


def extent(series: Series, since: float, until: float) -> tuple[float, float] | None:
    """The least low and the greatest high of the entries in [since, until); None without an entry."""
    start, end = np.searchsorted(series.at, (since, until))
    if start == end:
        return None
    return float(series.low[start:end].min()), float(series.high[start:end].max())


def window_statistics(series: Series, since: float, until: float) -> WindowStatistics | None:
    """Statistics of the entries in [since, until); None without an entry."""
    start, end = np.searchsorted(series.at, (since, until))
    if start == end:
        return None
    mean = series.mean[start:end]
    p50, p95, p99 = np.percentile(mean, (50, 95, 99))
    return WindowStatistics(
        count=int(end - start),
        low=float(series.low[start:end].min()),
        mean=float(mean.mean()),
        p50=float(p50),
        p95=float(p95),
        p99=float(p99),
        high=float(series.high[start:end].max()),
        first=float(mean[0]),
        last=float(mean[-1]),
    )


def counted(series: Series, since: float, until: float) -> float | None:
    """How much a counter grew in [since, until), entries being its readings; None with fewer than two.

    A reading below the one before it means that the counter began anew: what it shows then, counts.
    """
    start, end = np.searchsorted(series.at, (since, until))
    if end - start < 2:
        return None
    values = series.mean[start:end]
    steps = np.diff(values)
    return float(np.where(steps < 0, values[1:], steps).sum())


def integrated(series: Series, since: float, until: float) -> float | None:
    """A rate per second added up over the connected time in [since, until); None without such time."""
    start, end = np.searchsorted(series.at, (since, until))
    at, mean = series.at[start:end], series.mean[start:end]
    distance = np.diff(at)
    connected = distance <= series.gap
    if not connected.any():
        return None
    return float(((mean[1:] + mean[:-1]) / 2 * distance)[connected].sum())
