"""What is known of the machine: figures, processes, capabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a figure comes from, or why it is absent. Exactly one of the two is set."""

    source: str | None = None
    """For example `"nvmlDeviceGetMemoryInfo"` or `"/proc/meminfo MemAvailable"`."""
    absence: str | None = None
    """For example `"NVML answers Not Supported on this GPU"`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of the machine. A metric that is not in `values` is absent; `absence` says why."""

    at: float
    values: Mapping[str, float]
    """By metric key (see `embedctl.metrics`)."""
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    """By metric key; shared between samples while nothing changes."""

    def get(self, key: str) -> float | None:
        return self.values.get(key)

    def absence(self, key: str) -> str:
        """Why `key` is missing, in a few words."""
        note = self.provenance.get(key)
        return (note.absence if note and note.absence else None) or "not measured"


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """One process that holds memory on a GPU."""

    pid: int
    name: str | None
    gpu_memory: int | None
    owner: str
    """`"native"`, `"ollama"` or `"other"`."""


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """What is fixed about one GPU while the program runs."""

    index: int
    name: str
    uuid: str
    memory_total: int | None
    memory_source: str
    """Where memory figures of this GPU come from, or why there are none."""
    unified: bool | None
    """True where CPU and GPU share one pool (the CUDA attribute `integrated`); None if nobody could say."""
    compute_capability: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Capability:
    """Whether one figure can be read on this machine."""

    name: str
    available: bool
    detail: str
    """The source when available, the reason when not."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What is fixed about this machine while the program runs."""

    hostname: str
    system: str
    processor: str
    cores: int
    memory_total: int | None
    driver: str | None
    cuda: str | None
    """The newest CUDA version that the driver supports."""
    gpus: tuple[GpuInfo, ...]
    chosen_gpu: int | None
    """Index into NVML's list of the GPU that is watched; None without a GPU."""
    gpu_absence: str | None
    """Why there is no GPU, when there is none."""
    capabilities: tuple[Capability, ...] = ()
    simulated: bool = False

    @property
    def gpu(self) -> GpuInfo | None:
        return next((gpu for gpu in self.gpus if gpu.index == self.chosen_gpu), None)
