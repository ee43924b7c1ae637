"""The Dashboard's live charts: which of them have room, and the lines that each draws. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from embedctl.metrics import BACKENDS, Unit
from embedctl_console.widgets.chart.pool import PoolChart, pool_chart
from embedctl_console.widgets.chart.scene import ChartSeries

if TYPE_CHECKING:
    from embedctl_console.state import ConsoleState


@dataclass(frozen=True, slots=True)
class LiveChart:
    """What of a chart stays the same."""

    name: str
    title: str
    unit: Unit
    empty: str
    ceiling: float | None = None


CHARTS: Final = (
    LiveChart("memory", "Memory", "bytes", "No readings yet."),
    LiveChart(
        "latency", "Latency", "ms", "No requests yet. A loaded backend is probed every few seconds."
    ),
    LiveChart(
        "traffic", "Traffic, texts/s", "per_second",
        "No requests in these minutes. `embedctl serve` answers OpenAI's and Ollama's embedding calls.",
    ),
    LiveChart("load", "GPU busy, memory pressure", "percent", "This machine tells neither.", ceiling=100.0),
)  # fmt: skip

_ALONE: Final = tuple((chart.name,) for chart in CHARTS)
_ALL: Final = tuple(chart.name for chart in CHARTS)

WIDE, VERY_TALL = 100, 46
"""Cells from which on two charts stand side by side, and lines from which on also two above each other."""


def chart_choices(width: int, height: int) -> tuple[tuple[str, ...], ...]:
    """What the user can choose on a screen of this size: names of charts shown at once, most first."""
    if width < WIDE:
        return _ALONE
    together = (_ALL,) if height >= VERY_TALL else (_ALL[:2], _ALL[2:])
    return (*together, *_ALONE)


def memory_chart(state: ConsoleState, floor_gib: float | None) -> PoolChart:
    """The pool in layers; for a GPU with memory of its own, who holds how much of that."""
    machine = state.status.machine
    gpu = machine.gpu if machine is not None else None
    if gpu is not None and gpu.unified is not True:
        return PoolChart("GPU memory", _gpu_memory(state), None)
    pool = pool_chart(state.recent.series, unified=gpu is not None, floor_gib=floor_gib)
    title = f"{pool.title} (no GPU)" if machine is not None and gpu is None else pool.title
    layers = tuple(one for one in pool.series if one.stacked)  # here they leave no room for the line as well
    return PoolChart(title, layers, pool.total, pool.thresholds)


def _gpu_memory(state: ConsoleState) -> tuple[ChartSeries, ...]:
    keys = (("gpu_memory_used", "used", "$series-gpu"), *_of_backends("gpu_memory"))
    return tuple(ChartSeries(key, label, state.recent.series(key), color) for key, label, color in keys)


def latency_lines(state: ConsoleState, since: float) -> tuple[ChartSeries, ...]:
    """Percentiles of every backend with requests since then, the probe of every other one."""
    recent = state.recent
    lines = []
    for what, shade in (("p50", ""), ("p95", "-p95"), ("probe", "-probe")):
        for name in BACKENDS:
            key = f"{name}_{what}"
            if recent.has(key, since) and not (what == "probe" and recent.has(f"{name}_p50", since)):
                lines.append(ChartSeries(key, f"{name} {what}", recent.series(key), f"$series-{name}{shade}"))
    return tuple(lines)


def traffic_lines(state: ConsoleState, since: float) -> tuple[ChartSeries, ...]:
    """Texts per second of every backend with requests since then."""
    return tuple(
        ChartSeries(key, label, state.recent.series(key), color)
        for key, label, color in _of_backends("rate")
        if state.recent.has(key, since)
    )


def load_lines(state: ConsoleState) -> tuple[ChartSeries, ...]:
    """How busy the GPU is, and how often programs waited for memory; what the machine lacks is left out."""
    keys = (
        ("gpu_utilization", "GPU busy", "$series-gpu"),
        ("host_pressure_some", "memory pressure", "$series-other"),
    )
    found = ((key, label, state.recent.series(key), color) for key, label, color in keys)
    return tuple(ChartSeries(key, label, series, color) for key, label, series, color in found if len(series))


def _of_backends(what: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((f"{name}_{what}", name, f"$series-{name}") for name in BACKENDS)
