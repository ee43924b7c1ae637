"""What a measurement depends on beside the backends: kernel, clocks, governor, load, who else is there."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Final

import psutil

import embedctl
from embedctl.records import Sample

_GOVERNOR: Final = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_FIGURES: Final = (
    *("gpu_sm_clock", "gpu_temperature", "gpu_power", "gpu_throttled", "gpu_memory_used", "gpu_memory_other"),
    *("host_memory_available", "host_swap_used"),
)
_BUSY_PERCENT: Final = 20.0
_MOST: Final = 5
LOOK_S: Final = 0.3
"""Between two looks at what other processes compute."""


def surroundings(sample: Sample | None) -> dict[str, Any]:
    """The machine now, as far as it can be seen; what cannot be read is None. Takes 0.3 s: it looks twice."""
    own = psutil.Process()
    figures = {key: sample.get(key) for key in _FIGURES} if sample is not None else {}
    return {
        "embedctl": embedctl.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "governor": _read(_GOVERNOR),
        "load_average": list(os.getloadavg()),
        "console_rss_bytes": own.memory_info().rss,
        "co_tenants": _busy_processes(own),
        "pid": own.pid,
        "pid_started": own.create_time(),
        **figures,
    }


def _busy_processes(own: psutil.Process) -> list[str]:
    """Other processes that compute right now, by name and share of a core."""
    ours = {own.pid, *(child.pid for child in own.children(recursive=True))}
    seen: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            process.cpu_percent()
        except psutil.Error:
            continue
        seen.append(process)
    psutil.cpu_percent(interval=LOOK_S)
    busy = []
    for process in seen:
        try:
            share = process.cpu_percent()
            if share >= _BUSY_PERCENT and process.pid not in ours:
                busy.append((share, f"{process.name()} {share:.0f} %"))
        except psutil.Error:
            continue
    return [text for _, text in sorted(busy, reverse=True)[:_MOST]]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return None
