"""Thinning: however many entries share a column, its extremes are kept."""

from __future__ import annotations

import numpy as np
import pytest

from embedctl.series import (
    Series,
    columns,
    counted,
    extent,
    integrated,
    reading_at,
    window_statistics,
)


def raw(at: list[float], values: list[float], gap: float = 3.0) -> Series:
    numbers = np.array(values, dtype=np.float64)
    return Series("x", np.array(at, dtype=np.float64), numbers, numbers, numbers, gap)


def random_series(seed: int) -> Series:
    """Irregular times with holes, and lows and highs apart from the mean."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 400))
    at = np.cumsum(rng.exponential(1.0, count)) + rng.uniform(-50, 50)
    at += np.cumsum(rng.random(count) < 0.02) * 20.0
    mean = rng.normal(0, 10, count)
    return Series("x", at, mean - rng.exponential(1, count), mean, mean + rng.exponential(1, count), gap=4.0)


@pytest.mark.parametrize("seed", range(60))
def test_no_extreme_is_lost(seed: int) -> None:
    series = random_series(seed)
    rng = np.random.default_rng(seed + 1000)
    since = float(rng.uniform(-100, 200))
    until = since + float(rng.uniform(0.5, 600))
    count = int(rng.integers(1, 300))
    thin = columns(series, since, until, count)
    inside = (series.at >= since) & (series.at < until)
    if inside.any():
        assert np.nanmax(thin.high) >= series.high[inside].max() - 1e-9
        assert np.nanmin(thin.low) <= series.low[inside].min() + 1e-9
    width = (until - since) / count
    for at, low, high in zip(series.at[inside], series.low[inside], series.high[inside], strict=True):
        place = (at - since) / width
        near = {min(count - 1, max(0, int(p))) for p in (place - 1e-6, place, place + 1e-6)}
        assert any(thin.low[c] <= low + 1e-9 and thin.high[c] >= high - 1e-9 for c in near)


@pytest.mark.parametrize("seed", range(60))
def test_nothing_is_made_up(seed: int) -> None:
    """A column shows no more than its entries and those just around it."""
    series = random_series(seed)
    rng = np.random.default_rng(seed + 2000)
    since = float(rng.uniform(-100, 200))
    until = since + float(rng.uniform(0.5, 600))
    count = int(rng.integers(1, 300))
    thin = columns(series, since, until, count)
    edges = since + (until - since) / count * np.arange(count + 1)
    for c in np.flatnonzero(~np.isnan(thin.high)):
        first = max(0, int(np.searchsorted(series.at, edges[c])) - 1)
        last = int(np.searchsorted(series.at, edges[c + 1])) + 1
        assert thin.high[c] <= series.high[first:last].max() + 1e-9
        assert thin.low[c] >= series.low[first:last].min() - 1e-9
        assert thin.low[c] <= thin.high[c]


@pytest.mark.parametrize("seed", range(30))
def test_connected_neighbours_touch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    at = np.arange(200) * 1.0
    values = rng.normal(0, 5, 200)
    thin = columns(Series("x", at, values, values, values, gap=3.0), 10.0, 150.0, int(rng.integers(5, 500)))
    assert not np.isnan(thin.low).any()
    assert (thin.low[1:] <= thin.high[:-1] + 1e-9).all()
    assert (thin.low[:-1] <= thin.high[1:] + 1e-9).all()


def test_a_gap_stays_empty() -> None:
    thin = columns(raw([0, 1, 2, 7, 8, 9], [1, 1, 1, 2, 2, 2]), 0, 10, 10)
    assert np.isnan(thin.low).tolist() == [False, False, False, True, True, True, True, False, False, False]


def test_a_lone_entry_shows_in_its_own_column_only() -> None:
    thin = columns(raw([4.5], [3.0]), 0, 10, 10)
    assert np.flatnonzero(~np.isnan(thin.high)).tolist() == [4]


def test_a_line_through_the_window_shows_without_an_entry_in_it() -> None:
    thin = columns(raw([0, 100], [0.0, 100.0], gap=200), 40, 60, 4)
    assert thin.low.tolist() == pytest.approx([40, 45, 50, 55])
    assert thin.high.tolist() == pytest.approx([45, 50, 55, 60])
    assert thin.mean.tolist() == pytest.approx([42.5, 47.5, 52.5, 57.5])


def test_the_mean_of_a_column_is_that_of_its_entries() -> None:
    thin = columns(raw([0, 1, 2, 3], [1.0, 2.0, 6.0, 8.0]), 0, 4, 2)
    assert thin.mean.tolist() == [1.5, 7.0]


def test_an_empty_series_gives_empty_columns() -> None:
    thin = columns(Series.empty("x"), 0, 1, 3)
    assert np.isnan(thin.low).all() and np.isnan(thin.mean).all() and np.isnan(thin.high).all()


@pytest.mark.parametrize(("since", "until", "count"), [(0, 0, 5), (5, 4, 5), (0, 1, 0)])
def test_a_window_without_columns_is_refused(since: float, until: float, count: int) -> None:
    with pytest.raises(ValueError, match="no columns"):
        columns(Series.empty("x"), since, until, count)


def test_the_nearest_entry_is_read_within_reach() -> None:
    series = raw([10, 20, 30], [1, 2, 3])
    nearest = reading_at(series, 24, 5)
    assert nearest is not None and (nearest.at, nearest.mean) == (20, 2)
    assert reading_at(series, 25, 4.9) is None
    assert reading_at(series, -100, 50) is None
    assert reading_at(Series.empty("x"), 0, 1e9) is None


def test_extent_and_statistics_cover_the_half_open_window() -> None:
    at = np.arange(5.0)
    mean = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    series = Series("x", at, mean - 0.5, mean, mean + 0.5, gap=3)
    assert extent(series, 1, 4) == (1.5, 4.5)
    found = window_statistics(series, 1, 4)
    assert found is not None
    assert (found.count, found.low, found.mean, found.p50, found.high) == (3, 1.5, 3.0, 3.0, 4.5)
    assert (found.first, found.last) == (2.0, 4.0)
    assert found.p95 == pytest.approx(3.9)
    assert found.p99 == pytest.approx(3.98)
    assert extent(series, 10, 20) is None
    assert window_statistics(series, 10, 20) is None


def test_a_counter_is_counted_through_a_restart() -> None:
    energy = raw([0, 1, 2, 3, 4], [100, 110, 130, 5, 20])
    assert counted(energy, 0, 5) == 10 + 20 + 5 + 15
    assert counted(energy, 1, 3) == 20
    assert counted(energy, 4, 5) is None, "one reading tells no growth"
    assert counted(raw([0, 100], [1, 9]), 0, 101) == 8, "it went on counting while nobody looked"


def test_a_rate_is_added_up_over_connected_time_only() -> None:
    power = raw([0, 1, 2, 50, 51], [10, 20, 30, 100, 100])
    assert integrated(power, 0, 60) == 15 + 25 + 100
    assert integrated(power, 2, 50.5) is None
