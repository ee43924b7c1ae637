"""Which series the History screen shows, where, and in which colours. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from embedctl.series import History, Series
from embedctl_console.widgets.chart import ChartSeries
from embedctl_console.widgets.chart.pool import POOL_METRICS, PoolChart, pool_chart

RANGES: Final = (
    ("1m", 60.0),
    ("15m", 900.0),
    ("1h", 3_600.0),
    ("6h", 21_600.0),
    ("24h", 86_400.0),
    ("7d", 604_800.0),
    ("30d", 2_592_000.0),
    ("90d", 7_776_000.0),
)
FIRST_RANGE: Final = 1
"""Index of the range that the screen opens with."""
MEMORY: Final = {
    "native_gpu_memory": "native",
    "ollama_gpu_memory": "ollama",
    "gpu_memory_used": "GPU used",
    "gpu_memory_other": "other",
}
PROCESSES: Final = {"native_rss": "native", "ollama_rss": "ollama"}
"""In place of `MEMORY` where no GPU was ever read: what the backends hold of the host's memory."""
HOST: Final = {"host_memory_available": "available"}
LATENCY: Final = {
    "native_p50": "native p50",
    "ollama_p50": "ollama p50",
    "native_p95": "native p95",
    "ollama_p95": "ollama p95",
}
"""Metric keys with the labels of their legends."""
KEYS: Final = tuple(dict.fromkeys((*MEMORY, *PROCESSES, *HOST, *LATENCY, *POOL_METRICS)))
"""What is read for a window."""
OVERVIEW: Final = ("gpu_memory_used", "host_memory_total", "host_memory_available")
"""What the overview of the whole range is made of."""
STATISTICS: Final = (*MEMORY, *PROCESSES, *HOST, *LATENCY)
"""What the statistics beside the charts are about."""

_COLORS: Final = {
    "native_gpu_memory": "$series-native",
    "ollama_gpu_memory": "$series-ollama",
    "gpu_memory_used": "$series-gpu",
    "gpu_memory_other": "$series-other",
    "native_rss": "$series-native",
    "ollama_rss": "$series-ollama",
    "host_memory_available": "$success",
    "native_p50": "$series-native",
    "ollama_p50": "$series-ollama",
    "native_p95": "$series-native-p95",
    "ollama_p95": "$series-ollama-p95",
}
"""Theme variables, so that a backend has one colour on every screen."""


@dataclass(frozen=True, slots=True)
class ChartLines:
    """What each of the three charts shows."""

    memory_title: str
    memory: tuple[ChartSeries, ...]
    pool: PoolChart
    latency: tuple[ChartSeries, ...]


def chart_lines(history: History, *, pool_apart: bool, unified: bool, floor_gib: float | None) -> ChartLines:
    """The lines of a window; `pool_apart` says whether the pool has a chart of its own on the screen.

    What is available is of another size than a model: without a chart of its own it stands beside the GPU's
    memory in figures only, as a line it would press the others flat. For the rest see `pool_chart`.
    """
    held = _any(history, PROCESSES) and not _any(history, MEMORY)
    aside = () if pool_apart else _lines(history, HOST, visible=False)
    return ChartLines(
        "Backends' host memory" if held else "GPU memory",
        _lines(history, PROCESSES if held else MEMORY) + aside,
        pool_chart(
            lambda key: history.series.get(key, Series.empty(key)), unified=unified, floor_gib=floor_gib
        ),
        _lines(history, LATENCY),
    )


def used_memory(history: History) -> Series:
    """What the overview draws: memory in use on the GPU or, where none was read, on the host."""
    used = history.series["gpu_memory_used"]
    total, available = (history.series[f"host_memory_{what}"] for what in ("total", "available"))
    if len(used) or not len(total) or not len(available):
        return used
    size = float(total.mean[-1])
    return Series(
        "host_memory_used",
        available.at,
        size - available.high,
        size - available.mean,
        size - available.low,
        available.gap,
    )


def _any(history: History, keys: Mapping[str, str]) -> bool:
    return any(key in history.series and len(history.series[key]) for key in keys)


def _lines(history: History, labels: Mapping[str, str], *, visible: bool = True) -> tuple[ChartSeries, ...]:
    return tuple(
        ChartSeries(key, label, history.series.get(key, Series.empty(key)), _COLORS.get(key), visible=visible)
        for key, label in labels.items()
    )
