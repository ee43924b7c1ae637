"""The machine, what is measured on it, and its time line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from embedctl.metrics import METRICS
from embedctl.records import (
    Capability,
    Event,
    Finding,
    GpuInfo,
    GpuProcess,
    Machine,
    Provenance,
    Sample,
    Severity,
)
from embedctl.series import History, Series

NOW: Final = 1_772_625_600.0
"""2026-03-04 12:00:00 UTC: the moment at which every scripted engine starts."""
MIB: Final = 2**20
GIB: Final = 2**30
POOL: Final = int(121.6 * GIB)


def gb10(*, simulated: bool = False) -> Machine:
    """A DGX Spark: one pool for CPU and GPU, NVML's memory figures not supported."""
    return Machine(
        hostname="spark-3f2a",
        system="Linux 6.11.0 aarch64",
        processor="NVIDIA Grace (20 cores)",
        cores=20,
        memory_total=POOL,
        driver="580.95.05",
        cuda="13.0",
        gpus=(
            GpuInfo(
                index=0,
                name="NVIDIA GB10",
                uuid="GPU-6b2f4c1e",
                memory_total=POOL,
                memory_source="unified pool: sum of NVML's bytes per process",
                unified=True,
                compute_capability=(12, 1),
            ),
        ),
        chosen_gpu=0,
        gpu_absence=None,
        capabilities=(
            Capability("GPU memory of the device", False, "NVML answers Not Supported on this GPU"),
            Capability("GPU memory per process", True, "nvmlDeviceGetComputeRunningProcesses"),
        ),
        simulated=simulated,
    )


def without_gpu() -> Machine:
    """A laptop: host figures only."""
    return replace(
        gb10(),
        hostname="laptop",
        processor="AMD Ryzen 7",
        cores=16,
        memory_total=32 * GIB,
        driver=None,
        cuda=None,
        gpus=(),
        chosen_gpu=None,
        gpu_absence="no NVIDIA driver (libnvidia-ml.so.1 was not found)",
        capabilities=(),
    )


_GPU_SOURCES: Final[Mapping[str, Provenance]] = {
    "gpu_memory_total": Provenance(source="/proc/meminfo MemTotal (unified pool)"),
    "gpu_memory_used": Provenance(source="sum of NVML's bytes per process"),
    "gpu_throttled": Provenance(absence="reads 0 even while power-capped on this GPU"),
    "ollama_p95": Provenance(absence="fewer than 20 requests in the window"),
}


def sample(at: float = NOW, *, native: bool = True, ollama: bool = True, gpu: bool = True) -> Sample:
    """One reading, gently moving with time; the flags say what is loaded and whether there is a GPU."""
    wave = math.sin(at / 40.0)
    ripple = math.sin(at / 7.0)
    values: dict[str, float] = {
        "host_memory_total": float(POOL),
        "host_memory_available": (88.2 + 0.4 * wave) * GIB,
        "host_memory_free": (41.5 + 0.3 * wave) * GIB,
        "host_memory_reclaimable": 46.7 * GIB,
        "host_swap_used": 0.0,
        "host_pressure_some": 0.0,
        "host_pressure_full": 0.0,
    }
    native_bytes = (2.13 + 0.11 * max(0.0, wave)) * GIB if native else 0.0
    ollama_bytes = (1.34 + 0.05 * max(0.0, ripple)) * GIB if ollama else 0.0
    if native:
        values |= {
            "native_gpu_memory": native_bytes,
            "native_rss": 3.02 * GIB,
            "native_p50": 24.6 + 2.1 * wave + 0.8 * ripple,
            "native_p95": 37.8 + 3.4 * wave + 1.9 * ripple,
            "native_probe": 21.9 + 1.1 * ripple,
            "native_rate": 262.0 + 18 * wave,
        }
    if ollama:
        values |= {
            "ollama_gpu_memory": ollama_bytes,
            "ollama_rss": 0.71 * GIB,
            "ollama_p50": 96.4 + 6.5 * wave + 3.1 * ripple,
            "ollama_p95": 131.0 + 9.0 * wave + 4.4 * ripple,
            "ollama_probe": 88.1 + 3.9 * ripple,
            "ollama_rate": 9.7 + 0.6 * wave,
        }
    if gpu:
        other = 0.42 * GIB
        values |= {
            "gpu_memory_total": float(POOL),
            "gpu_memory_used": native_bytes + ollama_bytes + other,
            "gpu_memory_other": other,
            "gpu_utilization": 31 + 9 * wave,
            "gpu_temperature": 47 + 2 * wave,
            "gpu_power": 18.4 + 4 * wave,
            "gpu_sm_clock": 2411.0,
            "gpu_energy": 1_250_000 + 18.4 * (at - NOW),
        }
    return Sample(at=at, values=values, provenance=_GPU_SOURCES if gpu else {})


def processes(*, native: bool = True, ollama: bool = True) -> tuple[GpuProcess, ...]:
    """The processes that hold GPU memory."""
    found = []
    if native:
        found.append(GpuProcess(41207, "embedctl worker", int(2.13 * GIB), "native"))
    if ollama:
        found.append(GpuProcess(38811, "ollama runner", int(1.34 * GIB), "ollama"))
    found.append(GpuProcess(2210, "Xorg", int(0.42 * GIB), "other"))
    return tuple(found)


def findings() -> tuple[Finding, ...]:
    return (
        Finding("python", "Python 3.12.3", Severity.OK, "3.11 or newer is needed"),
        Finding("torch", "torch 2.15.0 has code for this GPU", Severity.OK, "sm_120 code runs on sm_121"),
        Finding(
            "memory",
            "CPU and GPU share one pool",
            Severity.INFO,
            "121.6 GiB in all; NVML answers Not Supported for the device, so bytes per process are used",
        ),
        Finding(
            "ollama",
            "Ollama 0.13.0 cuts long texts",
            Severity.WARNING,
            "versions before 0.13.2 embed only the first num_batch tokens of a text",
            "update Ollama: curl -fsSL https://ollama.com/install.sh | sh",
        ),
        Finding(
            "compile",
            "ptxas does not know sm_121a",
            Severity.ERROR,
            "torch.compile would fail: the bundled ptxas is from CUDA 12.8",
            "export TRITON_PTXAS_PATH=/usr/local/cuda/bin/ptxas",
        ),
        Finding("disk", "412.7 GiB free where models lie", Severity.OK, "the model needs 2.1 GiB"),
    )


def events() -> tuple[Event, ...]:
    """Newest first, as the engine gives them."""
    return (
        Event(NOW - 340, "load", "ollama is ready after 4.2 s", "ollama", id=14),
        Event(NOW - 900, "run", "quick benchmark: native 3.9× faster for one text", id=13),
        Event(NOW - 1_150, "switch", "ollama → native in 9.8 s", "native", id=12),
        Event(NOW - 1_260, "load", "native is ready after 8.4 s", "native", id=11),
        Event(
            NOW - 1_900,
            "error",
            "native: the worker ended with signal 9",
            "native",
            Severity.ERROR,
            id=10,
        ),
        Event(NOW - 2_400, "download", "BAAI/bge-m3 is complete (2.14 GiB)", id=9),
        Event(NOW - 2_700, "start", "embedctl 0.1.0", id=8),
    )


def history(
    since: float,
    until: float,
    *,
    metrics: Sequence[str] | None = None,
    points: int = 600,
    native: bool = True,
    ollama: bool = True,
    gpu: bool = True,
) -> History:
    """The window as `sample` would have read it, in about `points` entries per metric.

    Nothing is recorded later than `NOW`, and nothing between 40 and 43 minutes before it (a pause).
    """
    step = max(1.0, (until - since) / max(1, points))
    times = np.arange(math.ceil(since / step) * step, min(until, NOW) + step / 2, step)
    times = times[(times < NOW - 2_580) | (times > NOW - 2_400)]
    readings = [sample(float(t), native=native, ollama=ollama, gpu=gpu).values for t in times]
    series = {}
    for key in metrics if metrics is not None else METRICS:
        rows = [(t, reading[key]) for t, reading in zip(times, readings, strict=True) if key in reading]
        if not rows:
            series[key] = Series.empty(key)
            continue
        at, mean = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
        spread = 0.0 if step <= 1.0 else 0.03
        series[key] = Series(key, at, mean * (1 - spread), mean, mean * (1 + spread), gap=3 * step)
    inside = tuple(event for event in events() if since <= event.at <= until)
    return History(since, until, step, series, inside)
