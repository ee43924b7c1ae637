"""The catalogue of everything that is sampled over time: key, unit and label.

A sample is one row of these figures. The store's columns, the charts' axes and the CSV's header are all
made from this list, so a new figure is added here and by a store migration, nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Unit = Literal["bytes", "percent", "celsius", "watt", "megahertz", "joule", "ms", "per_second", "flag"]

BACKENDS: Final = ("native", "ollama")
"""The backends that have figures of their own. A third one needs a store migration for its columns."""


@dataclass(frozen=True, slots=True)
class Metric:
    key: str
    """Column name in the store and in exports."""
    unit: Unit
    label: str
    """Short, for legends."""
    backend: str | None = None
    """The backend that the figure belongs to, if to one."""
    cumulative: bool = False
    """A counter that only grows (differences mean something, means do not)."""


def _backend_metrics(name: str) -> tuple[Metric, ...]:
    return (
        Metric(f"{name}_gpu_memory", "bytes", f"{name} GPU", name),
        Metric(f"{name}_rss", "bytes", f"{name} host", name),
        Metric(f"{name}_p50", "ms", f"{name} p50", name),
        Metric(f"{name}_p95", "ms", f"{name} p95", name),
        Metric(f"{name}_probe", "ms", f"{name} probe", name),
        Metric(f"{name}_rate", "per_second", f"{name} texts/s", name),
    )


METRICS: Final[dict[str, Metric]] = {
    metric.key: metric
    for metric in (
        # The GPU. On a unified pool (GB10) total and used come from other sources than on a discrete card;
        # the sample's provenance says which.
        Metric("gpu_memory_total", "bytes", "GPU total"),
        Metric("gpu_memory_used", "bytes", "GPU used"),
        Metric("gpu_memory_other", "bytes", "other on GPU"),
        Metric("gpu_utilization", "percent", "GPU"),
        Metric("gpu_temperature", "celsius", "temperature"),
        Metric("gpu_power", "watt", "power"),
        Metric("gpu_sm_clock", "megahertz", "SM clock"),
        Metric("gpu_energy", "joule", "energy", cumulative=True),
        Metric("gpu_throttled", "flag", "throttled"),
        # The host, from /proc or its equivalent.
        Metric("host_memory_total", "bytes", "total"),
        Metric("host_memory_available", "bytes", "available"),
        Metric("host_memory_free", "bytes", "free"),
        Metric("host_memory_reclaimable", "bytes", "reclaimable"),
        Metric("host_swap_used", "bytes", "swap"),
        Metric("host_pressure_some", "percent", "memory pressure"),
        Metric("host_pressure_full", "percent", "memory stall"),
        *(metric for name in BACKENDS for metric in _backend_metrics(name)),
    )
}
