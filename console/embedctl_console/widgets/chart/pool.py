"""Memory as layers of one pool: who holds what, what could be given back, what is free. Pure.

On a machine whose CPU and GPU share one pool (GB10) a backend's layer is its GPU memory; the host's figures
contain it. Elsewhere the layers of the host are the processes' resident memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embedctl.engine.memory import GIB, memory_floor
from embedctl.metrics import BACKENDS
from embedctl.series import Floats, Series
from embedctl_console.widgets.chart.scene import ChartSeries, Texture, Threshold

POOL_METRICS = (
    "host_memory_total",
    "host_memory_available",
    "host_memory_free",
    "host_memory_reclaimable",
    "gpu_memory_other",
    *(f"{name}_{what}" for name in BACKENDS for what in ("gpu_memory", "rss")),
)
"""What `pool_chart` asks for."""


@dataclass(frozen=True, slots=True)
class PoolChart:
    """What a chart of the pool shows."""

    title: str
    series: tuple[ChartSeries, ...]
    """Areas from the bottom up, then the line of what is in use, whose extremes are as they were read."""
    total: float | None
    """Size of the pool in bytes: the upper end of the value axis."""
    thresholds: tuple[Threshold, ...] = ()


def pool_chart(
    series: Callable[[str], Series], *, unified: bool, floor_gib: float | None = None
) -> PoolChart:
    """The layers of the host's memory.

    A backend without a figure counts as holding nothing; then its share, if it has one, is in "other". Where
    total, free or reclaimable is missing, all layers have a gap.

    Args:
        series: A metric's entries by its key, empty where there are none.
        unified: CPU and GPU share this memory.
        floor_gib: What a load must leave available, as the settings say; None: what follows from the size.
    """
    title = "Memory pool" if unified else "Host memory"
    total = series("host_memory_total")
    if not len(total):
        return PoolChart(title, (), None)
    at = total.at
    free, reclaimable = (_at(series(f"host_memory_{what}"), at) for what in ("free", "reclaimable"))
    known = ~np.isnan(free + reclaimable)
    own = "gpu_memory" if unified else "rss"
    layers: list[tuple[str, str, Series, str | None]] = []
    held = np.zeros(len(at))
    for name in BACKENDS:
        key = f"{name}_{own}"
        layers.append((key, name, series(key), f"$series-{name}"))
        held += np.nan_to_num(_at(series(key), at))
    if unified and len(series("gpu_memory_other")):
        layers.append(("gpu_memory_other", "GPU other", series("gpu_memory_other"), "$series-other"))
        held += np.nan_to_num(_at(series("gpu_memory_other"), at))
    other = (total.mean - free - reclaimable - held).clip(min=0.0)
    rest = Series("pool_other", at[known], other[known], other[known], other[known], total.gap)
    layers.append((rest.key, "other use", rest, "$series-gpu"))
    stack = [ChartSeries(k, label, _where(one, at[known]), c, stacked=True) for k, label, one, c in layers]
    back: tuple[tuple[str, str, Texture], ...] = (
        ("reclaimable", "$series-3", "dense"),
        ("free", "$success", "sparse"),
    )
    stack += [
        ChartSeries(one.key, what, one, color, stacked=True, texture=texture)
        for what, color, texture in back
        for one in [_where(series(f"host_memory_{what}"), at[known])]
    ]
    size = float(total.mean[-1])
    floor = memory_floor(size, floor_gib)
    return PoolChart(
        title,
        (*stack, ChartSeries("pool_in_use", "in use", _in_use(total, series), "$foreground")),
        size,
        (Threshold(size - floor, f"floor {floor / GIB:.3g} GiB"),) if floor else (),
    )


def _at(series: Series, at: Floats) -> Floats:
    """The means of the entries at exactly these times, NaN where there is none; shape (len(at),)."""
    values = np.full(len(at), np.nan)
    if len(series):
        index = np.searchsorted(series.at, at).clip(max=len(series) - 1)
        same = series.at[index] == at
        values[same] = series.mean[index[same]]
    return values


def _where(series: Series, at: Floats) -> Series:
    """The entries at these times alone, so that all layers have one gap."""
    if np.array_equal(series.at, at):  # nearly always, and quickly found
        return series
    kept = np.isin(series.at, at)
    return Series(
        series.key, series.at[kept], series.low[kept], series.mean[kept], series.high[kept], series.gap
    )


def _in_use(total: Series, series: Callable[[str], Series]) -> Series:
    """Total less available: the extremes are those of what was available, the other way round."""
    available = series("host_memory_available")
    size = _at(total, available.at)
    known = ~np.isnan(size)
    return Series(
        "pool_in_use",
        available.at[known],
        (size - available.high)[known],
        (size - available.mean)[known],
        (size - available.low)[known],
        available.gap,
    )
