"""The GPU's and the host's figures on a line or two. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from embedctl.format import ABSENT, format_bytes, format_value
from embedctl.metrics import METRICS
from embedctl_console.widgets.text import joined

if TYPE_CHECKING:
    from embedctl.records import Machine, Sample

_GPU = (
    ("util", "gpu_utilization"),
    ("temp", "gpu_temperature"),
    ("power", "gpu_power"),
    ("", "gpu_sm_clock"),
    ("energy", "gpu_energy"),
    ("throttled", "gpu_throttled"),
)


def gpu_line(machine: Machine | None, sample: Sample | None, width: int) -> Content:
    """The GPU's figures, as many as have room; `n/a` where one is missing, and why if all has room."""
    if machine is not None and machine.gpu is None:
        return Content.assemble(("GPU  ", "bold"), (machine.gpu_absence or "none", "$text-muted"))
    if sample is None:
        return Content.assemble(("GPU  ", "bold"), ("no reading yet", "$text-muted"))
    total = sample.get("gpu_memory_total")
    used = format_bytes(sample.get("gpu_memory_used"))
    parts = [_figure("memory", f"{used} of {format_bytes(total)}" if total else used)]
    reasons = []
    for label, key in _GPU:
        value = sample.get(key)
        if value is None:
            parts.append(_absent(label or "clock"))
            reasons.append((len(parts) - 1, sample.absence(key)))
        else:
            parts.append(_figure(label, format_value(value, METRICS[key].unit)))
    head = Content.styled("GPU  ", "bold")
    explained = list(parts)
    for index, reason in reasons:
        explained[index] = Content.assemble(parts[index], (f" ({reason})", "$text-muted"))
    whole = Content.assemble(head, joined(explained, "  "))
    return whole if whole.cell_length <= width else _fitting(head, parts, width)


def host_line(machine: Machine | None, sample: Sample | None, width: int) -> Content:
    """Memory of the host, which on a unified pool is the GPU's too; as many figures as have room."""
    if sample is None:
        return Content.assemble(("host ", "bold"), ("no reading yet", "$text-muted"))
    unified = machine is not None and machine.gpu is not None and machine.gpu.unified
    parts = [
        _figure("available", format_bytes(sample.get("host_memory_available"))),
        _figure("free", format_bytes(sample.get("host_memory_free"))),
        _figure("reclaimable", format_bytes(sample.get("host_memory_reclaimable"))),
        _figure("swap", format_bytes(sample.get("host_swap_used"))),
        _figure("pressure", format_value(sample.get("host_pressure_some"), "percent")),
    ]
    return _fitting(Content.styled("pool " if unified else "host ", "bold"), parts, width)


def _fitting(head: Content, parts: list[Content], width: int) -> Content:
    """The parts that have room, from the first on: half a figure would be a wrong one."""
    lines = (Content.assemble(head, joined(parts[:count], "  ")) for count in range(len(parts), 0, -1))
    return next((line for line in lines if line.cell_length <= width), head)


def _figure(label: str, value: str) -> Content:
    return Content.assemble((f"{label} " if label else "", "$text-muted"), value)


def _absent(label: str) -> Content:
    return Content.assemble((f"{label} ", "$text-muted"), ABSENT)
