from __future__ import annotations

import numpy as np
import pytest

from embedctl.store.thinning import Block, overlay, thin

NAN = np.nan


def raw(at_ms: list[int], *metrics: list[float]) -> Block:
    values = np.array(metrics, dtype=np.float64).T
    there = (~np.isnan(values)).astype(np.float64)
    return Block(np.array(at_ms), values, values, values, there, np.arange(len(at_ms), dtype=np.float64))


def counters(*marks: bool) -> np.ndarray:
    return np.array(marks)


def test_a_bucket_keeps_the_extremes_the_mean_and_the_number_of_readings() -> None:
    thinned = thin(raw([0, 1000, 9000, 10_000], [4, 1, 7, 5]), 10_000, counters(False))
    assert thinned.at_ms.tolist() == [0, 10_000]
    assert thinned.low[:, 0].tolist() == [1, 5]
    assert thinned.mean[:, 0].tolist() == [4, 5]
    assert thinned.high[:, 0].tolist() == [7, 5]
    assert thinned.count[:, 0].tolist() == [3, 1]


def test_a_metric_absent_in_part_of_a_bucket_is_not_diluted() -> None:
    thinned = thin(raw([0, 1000, 2000], [6, NAN, 8], [NAN, NAN, NAN]), 10_000, counters(False, False))
    assert thinned.mean[0, 0] == 7
    assert thinned.count[0].tolist() == [2, 0]
    assert np.isnan([thinned.low[0, 1], thinned.mean[0, 1], thinned.high[0, 1]]).all()


def test_a_counter_keeps_its_last_reading_even_when_the_bucket_ends_without_one() -> None:
    thinned = thin(raw([0, 1000, 2000, 10_000], [5, 9, NAN, NAN]), 10_000, counters(True))
    assert thinned.mean[0, 0] == 9
    assert thinned.low[0, 0] == 5
    assert np.isnan(thinned.mean[1, 0])


def test_a_flag_becomes_the_share_of_readings_that_had_it_set() -> None:
    thinned = thin(raw([0, 1000, 2000, 3000], [0, 0, 1, 0]), 10_000, counters(False))
    assert (thinned.mean[0, 0], thinned.high[0, 0]) == (0.25, 1)


def test_thinning_in_two_steps_equals_thinning_at_once() -> None:
    rng = np.random.default_rng(7)
    at_ms = np.sort(rng.choice(1_800_000, 900, replace=False))
    values = np.where(rng.random((900, 3)) < 0.3, NAN, rng.normal(50, 20, (900, 3)))
    block = raw(at_ms.tolist(), *values.T.tolist())
    marks = counters(False, True, False)
    once = thin(block, 600_000, marks)
    twice = thin(thin(thin(block, 10_000, marks), 60_000, marks), 600_000, marks)
    for part in ("at_ms", "low", "high", "count", "provenance"):
        np.testing.assert_array_equal(getattr(once, part), getattr(twice, part))
    np.testing.assert_allclose(once.mean, twice.mean)


def test_rounding_never_carries_a_mean_past_the_extremes() -> None:
    thinned = thin(raw([0, 1, 2, 3, 4, 5, 6], [0.1] * 7), 10_000, counters(False))
    assert thinned.low[0, 0] == thinned.mean[0, 0] == thinned.high[0, 0]


def test_overlay_takes_the_newer_entry_where_both_have_the_moment() -> None:
    both = overlay(raw([0, 10, 30], [1, 1, 1]), raw([10, 20], [2, 2]))
    assert both.at_ms.tolist() == [0, 10, 20, 30]
    assert both.mean[:, 0].tolist() == [1, 2, 2, 1]


@pytest.mark.parametrize("resolution", [10_000, 600_000])
def test_nothing_thinned_is_nothing(resolution: int) -> None:
    empty = Block(np.empty(0, np.int64), *(np.empty((0, 1)) for _ in range(4)), np.empty(0))
    assert len(thin(empty, resolution, counters(False))) == 0
