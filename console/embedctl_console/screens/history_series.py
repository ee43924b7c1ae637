"""Which series the History screen shows, where, and in which colours. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from embedctl.series import History, Series
from embedctl_console.widgets.chart import ChartSeries

RANGES: Final = (
    ("15 min", 900.0),
    ("1 h", 3_600.0),
    ("6 h", 21_600.0),
    ("24 h", 86_400.0),
    ("7 d", 604_800.0),
    ("30 d", 2_592_000.0),
)
MEMORY: Final = {
    "native_gpu_memory": "native",
    "ollama_gpu_memory": "ollama",
    "gpu_memory_used": "GPU used",
    "gpu_memory_other": "other",
}
PROCESSES: Final = {"native_rss": "native", "ollama_rss": "ollama"}
"""In place of `MEMORY` where no GPU was ever read: what the backends hold of the host's memory."""
HOST: Final = {"host_memory_available": "available", "host_memory_reclaimable": "reclaimable"}
LATENCY: Final = {
    "native_p50": "native p50",
    "ollama_p50": "ollama p50",
    "native_p95": "native p95",
    "ollama_p95": "ollama p95",
}
"""Metric keys with the labels of their legends."""
KEYS: Final = (*MEMORY, *PROCESSES, *HOST, *LATENCY)

_COLORS: Final = {
    "native_gpu_memory": "$series-native",
    "ollama_gpu_memory": "$series-ollama",
    "gpu_memory_used": "$series-gpu",
    "gpu_memory_other": "$series-other",
    "native_rss": "$series-native",
    "ollama_rss": "$series-ollama",
    "host_memory_available": "$success",
    "host_memory_reclaimable": "$series-other",
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
    host: tuple[ChartSeries, ...]
    latency: tuple[ChartSeries, ...]


def chart_lines(history: History, *, host_apart: bool) -> ChartLines:
    """The lines of a window; `host_apart` says whether host memory has a chart of its own.

    Host memory is of another size than a model: without a chart of its own it stands beside the GPU's in
    figures only, as a line it would press the others flat.
    """
    held = _any(history, PROCESSES) and not _any(history, MEMORY)
    aside = () if host_apart else _lines(history, {"host_memory_available": "available"}, visible=False)
    return ChartLines(
        "Backends' host memory" if held else "GPU memory",
        _lines(history, PROCESSES if held else MEMORY) + aside,
        _lines(history, HOST),
        _lines(history, LATENCY),
    )


def _any(history: History, keys: Mapping[str, str]) -> bool:
    return any(key in history.series and len(history.series[key]) for key in keys)


def _lines(history: History, labels: Mapping[str, str], *, visible: bool = True) -> tuple[ChartSeries, ...]:
    return tuple(
        ChartSeries(key, label, history.series.get(key, Series.empty(key)), _COLORS.get(key), visible=visible)
        for key, label in labels.items()
    )
