"""The pool's layers: they add up to its size, and what is not known is a gap in all of them."""

from __future__ import annotations

import numpy as np
import pytest

from embedctl.series import Series
from embedctl_console.widgets.chart.pool import POOL_METRICS, PoolChart, pool_chart
from tests.support import canned
from tests.support.canned import GIB, NOW, POOL


def chart(unified: bool = True, floor: float | None = None, *, without: tuple[str, ...] = ()) -> PoolChart:
    found = canned.history(NOW - 600, NOW, metrics=POOL_METRICS).series
    return pool_chart(
        lambda key: Series.empty(key) if key in without else found[key], unified=unified, floor_gib=floor
    )


def layer(shown: PoolChart, label: str) -> Series:
    return next(one.series for one in shown.series if one.label == label)


def test_the_layers_add_up_to_the_pool() -> None:
    shown = chart()
    areas = [one for one in shown.series if one.stacked]
    assert [one.label for one in areas] == [
        "native",
        "ollama",
        "GPU other",
        "other use",
        "reclaimable",
        "free",
    ]
    assert sum(one.series.mean for one in areas) == pytest.approx(POOL)
    assert shown.total == POOL
    assert [one.texture for one in areas][-2:] == ["dense", "sparse"]


def test_the_line_of_what_is_in_use_keeps_the_extremes_of_what_was_available() -> None:
    at = np.array([NOW - 60, NOW])
    total = Series("host_memory_total", at, *[np.full(2, 100.0)] * 3, gap=180)
    low, mean, high = np.array([5.0, 50.0]), np.array([60.0, 55.0]), np.array([70.0, 60.0])
    found = {
        "host_memory_total": total,
        "host_memory_available": Series("host_memory_available", at, low, mean, high, gap=180),
    }
    line = layer(pool_chart(lambda k: found.get(k, Series.empty(k)), unified=True), "in use")
    assert (line.low.tolist(), line.high.tolist()) == ([30.0, 40.0], [95.0, 50.0])


def test_without_a_shared_pool_the_layers_are_resident_memory() -> None:
    shown = chart(unified=False)
    assert shown.title == "Host memory"
    assert [one.key for one in shown.series][:3] == ["native_rss", "ollama_rss", "pool_other"]
    assert layer(shown, "native").mean[0] == pytest.approx(3.02 * GIB)


def test_where_free_memory_is_not_known_no_layer_is_drawn() -> None:
    found = dict(canned.history(NOW - 600, NOW, metrics=POOL_METRICS).series)
    free = found["host_memory_free"]
    keep = (free.at < NOW - 300) | (free.at > NOW - 200)
    found["host_memory_free"] = Series(
        free.key, free.at[keep], free.low[keep], free.mean[keep], free.high[keep], free.gap
    )
    shown = pool_chart(found.__getitem__, unified=True)
    for one in shown.series:
        if one.stacked:
            assert not ((one.series.at > NOW - 299) & (one.series.at < NOW - 201)).any(), one.label


def test_a_backend_without_figures_leaves_its_share_in_other() -> None:
    without = chart(without=("native_gpu_memory",))
    more = layer(without, "other use").mean - layer(chart(), "other use").mean
    assert more == pytest.approx(canned.history(NOW - 600, NOW).series["native_gpu_memory"].mean)


@pytest.mark.parametrize(("floor", "label"), [(None, "floor 8 GiB"), (2.5, "floor 2.5 GiB")])
def test_the_floor_is_a_line_below_the_ceiling(floor: float | None, label: str) -> None:
    (threshold,) = chart(floor=floor).thresholds
    assert threshold.label == label
    assert threshold.value == pytest.approx(POOL - float(label.split()[1]) * GIB)
    assert chart(floor=0.0).thresholds == ()


def test_without_the_hosts_figures_there_is_nothing_to_draw() -> None:
    assert chart(without=("host_memory_total",)).series == ()
