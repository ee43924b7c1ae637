"""A simulated DGX Spark for the demo: the probe's real code over a made-up NVML and a made-up pool.

`SimulatedNvml` answers as GB10's driver does: memory information, power limits, memory clock, fan and BAR1
are Not Supported, bytes per process work, and the throttle reasons of the moment always read 0. So the demo
takes the same paths through `NvmlProbe` as a real GB10. The source of every simulated figure says so; real
are only the resident sizes of the backends' processes and the pressure on the machine that plays the GB10.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import psutil

from embedctl.metrics import BACKENDS
from embedctl.records import Machine, Provenance
from embedctl.telemetry.cuda_driver import bus_key
from embedctl.telemetry.gb10_model import POOL_TOTAL, Gb10Model, Load
from embedctl.telemetry.host import HostProbe
from embedctl.telemetry.nvml import NvmlProbe
from embedctl.telemetry.probe import Owners, Readings
from embedctl.telemetry.process_tree import ProcessTrees
from embedctl.telemetry.readings import SharedProvenance, absence, source

_BUS_ID = "0000000F:01:00.0"
_LABEL = "simulated: "


class SimulatedNvmlError(Exception):
    """As pynvml's NVMLError: `value` is NVML's error code."""

    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


class SimulatedNvml:
    """The part of the `pynvml` module that `NvmlProbe` uses, for one simulated GB10.

    Calls that are not here read as absent from the module; those in `_NOT_SUPPORTED` are refused.
    """

    _NOT_SUPPORTED = frozenset(
        {
            "nvmlDeviceGetMemoryInfo",
            "nvmlDeviceGetEnforcedPowerLimit",
            "nvmlDeviceGetFanSpeed",
            "nvmlDeviceGetBAR1MemoryInfo",
            "nvmlDeviceGetMPSComputeRunningProcesses",
            "nvmlDeviceGetFieldValues",
        }
    )
    _CLOCK_SM = 1

    def __init__(self, device: Gb10Model) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name in self._NOT_SUPPORTED:
            return _refuse
        raise AttributeError(name)

    def nvmlInit(self) -> None:  # noqa: N802  (the names are NVML's)
        """Nothing to start."""

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Nothing to end."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return "NVIDIA GB10 (simulated)"

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return "GPU-simulated-gb10"

    def nvmlDeviceGetPciInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(busId=_BUS_ID)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802
        return 12, 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.95.05 (simulated)"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802
        return 13000

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=self._device.utilization)

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:  # noqa: N802
        return round(self._device.temperature)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        return round(self._device.power * 1e3)

    def nvmlDeviceGetClockInfo(self, handle: int, clock: int) -> int:  # noqa: N802
        if clock != self._CLOCK_SM:
            _refuse()
        return self._device.sm_clock

    def nvmlDeviceGetMaxClockInfo(self, handle: int, clock: int) -> int:  # noqa: N802
        return 3003

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        return round(self._device.energy * 1e3)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: int) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetViolationStatus(self, handle: int, policy: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(violationTime=self._device.throttled_ns if policy == 1 else 0)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:  # noqa: N802
        return [SimpleNamespace(pid=p, usedGpuMemory=held) for p, held in self._device.holdings.items()]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: int) -> list[SimpleNamespace]:  # noqa: N802
        return []


class SimulatedGB10:
    """A `Probe` that shows a GB10 driven by the real processes of the backends.

    Args:
        host: Gives the resident sizes and what the simulation leaves as it is; None: this machine.
        trees: The backends' processes; the same object as the host probe's where one is given.
        clock: Seconds; equal clocks and equal processes give equal figures.
    """

    def __init__(
        self,
        host: HostProbe | None = None,
        *,
        trees: ProcessTrees | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._trees = trees or ProcessTrees()
        self._host = host or HostProbe(trees=self._trees)
        self._clock = clock
        real = self._host.machine()
        self._device = Gb10Model(real.cores)
        self._gpu = NvmlProbe(
            SimulatedNvml(self._device),
            pool_total=POOL_TOTAL,
            trees=self._trees,
            integrated=lambda: ({bus_key(_BUS_ID): True}, ""),
        )
        self._labels = _Labels()
        self._provenance = SharedProvenance()
        self._machine = replace(
            real,
            memory_total=POOL_TOTAL,
            driver=self._gpu.driver,
            cuda=self._gpu.cuda,
            gpus=tuple(replace(g, memory_source=_LABEL + g.memory_source) for g in self._gpu.gpus),
            chosen_gpu=self._gpu.chosen,
            gpu_absence=None,
            capabilities=tuple(
                replace(capability, detail=_LABEL + capability.detail)
                for capability in self._gpu.capabilities
            ),
            simulated=True,
        )

    def machine(self) -> Machine:
        return self._machine

    def read(self, owners: Owners) -> Readings:
        self._trees.update(owners)
        self._device.advance(self._clock(), self._loads())
        host, gpu = self._host.read(owners), self._gpu.read(owners)
        provenance = self._provenance.join(host.provenance, self._labels.of(gpu.provenance), _POOL_SOURCES)
        pool = {**self._device.host(), "host_swap_used": 0.0}
        return Readings({**host.values, **gpu.values, **pool}, provenance, gpu.processes)

    def close(self) -> None:
        self._gpu.close()
        self._host.close()

    def _loads(self) -> dict[int, Load]:
        loads: dict[int, Load] = {}
        for backend in BACKENDS:
            for process in self._trees.processes(backend):
                try:
                    times = process.cpu_times()
                    loads[process.pid] = Load(process.memory_info().rss, times.user + times.system)
                except psutil.Error:
                    continue  # ended since the last look
        return loads


class _Labels:
    """Puts the word "simulated" in front of every source and reason."""

    def __init__(self) -> None:
        self._plain: Mapping[str, Provenance] | None = None
        self._labelled: Mapping[str, Provenance] = {}

    def of(self, provenance: Mapping[str, Provenance]) -> Mapping[str, Provenance]:
        if provenance is not self._plain:
            self._plain = provenance
            self._labelled = {
                key: source(_LABEL + note.source) if note.source else absence(_LABEL + (note.absence or ""))
                for key, note in provenance.items()
            }
        return self._labelled


_POOL_SOURCES: Mapping[str, Provenance] = {
    "host_memory_total": source(_LABEL + "the size of GB10's pool"),
    "host_memory_available": source(_LABEL + "total − host use − GPU use"),
    "host_memory_free": source(_LABEL + "available − reclaimable"),
    "host_memory_reclaimable": source(_LABEL + "page cache"),
    "host_swap_used": source(_LABEL + "a machine that does not swap"),
}


def _refuse(*_: object) -> Any:
    raise SimulatedNvmlError(3)  # NVML_ERROR_NOT_SUPPORTED
