"""The watched GPU's figures, through the `pynvml` module of nvidia-ml-py.

Every figure fails alone: GB10 answers Not Supported to some calls and well to others, and a figure that NVML
does not give is absent with NVML's reason, never 0. A call that is Not Supported is not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import psutil

from embedctl.metrics import BACKENDS
from embedctl.records import Capability, GpuInfo, GpuProcess, Provenance
from embedctl.telemetry.gpu_memory import (
    POOL_TOTAL,
    PROCESS_SUM,
    DeviceMemory,
    implausible,
    resembles_pool,
    why_hidden,
)
from embedctl.telemetry.host import NO_PROCESS, UNKNOWN_PROCESSES
from embedctl.telemetry.nvml_device import (
    Device,
    NoGpu,
    compute_capability,
    decoded,
    integrated_as_told,
    reason,
    text_answer,
)
from embedctl.telemetry.probe import Owners, Readings
from embedctl.telemetry.process_tree import ProcessTrees, process_name
from embedctl.telemetry.readings import ReadingBuilder
from embedctl.telemetry.throttling import ThrottleReader, Unanswered


@dataclass(frozen=True, slots=True)
class _Figure:
    """A figure that one NVML call gives, under one of several names and times a factor."""

    key: str
    calls: tuple[tuple[str, tuple[int, ...]], ...]
    value: Callable[[Any], float]


_FIGURES = (
    _Figure("gpu_utilization", (("nvmlDeviceGetUtilizationRates", ()),), lambda rates: rates.gpu),
    _Figure(
        "gpu_temperature",
        # Sensor 0 is NVML_TEMPERATURE_GPU; the first name goes with CUDA 14.
        (("nvmlDeviceGetTemperature", (0,)), ("nvmlDeviceGetTemperatureV", (0,))),
        float,
    ),
    _Figure("gpu_power", (("nvmlDeviceGetPowerUsage", ()),), lambda milliwatt: milliwatt / 1e3),
    _Figure("gpu_sm_clock", (("nvmlDeviceGetClockInfo", (1,)),), float),  # 1 is NVML_CLOCK_SM
    _Figure(
        "gpu_energy", (("nvmlDeviceGetTotalEnergyConsumption", ()),), lambda millijoule: millijoule / 1e3
    ),
)

_EXTRAS: tuple[tuple[str, str, tuple[int, ...], Callable[[Any], str]], ...] = (
    # Not sampled; looked up once, for doctor and the fingerprint.
    ("gpu_power_limit", "nvmlDeviceGetEnforcedPowerLimit", (), lambda mw: f"{mw / 1e3:.0f} W"),
    ("gpu_memory_clock", "nvmlDeviceGetClockInfo", (2,), lambda mhz: f"{mhz} MHz"),
    ("gpu_max_sm_clock", "nvmlDeviceGetMaxClockInfo", (1,), lambda mhz: f"{mhz} MHz"),
    ("gpu_fan", "nvmlDeviceGetFanSpeed", (), lambda percent: f"{percent} %"),
    ("gpu_bar1_memory", "nvmlDeviceGetBAR1MemoryInfo", (), lambda b: f"{b.bar1Total / 2**20:.0f} MiB"),
)


class NvmlProbe:
    """Reads one GPU and attributes its memory to the backends. Used from one thread.

    Args:
        nvml: The `pynvml` module, or anything that answers its calls.
        index: The GPU to watch, by NVML's order; None: the first.
        pool_total: The host's MemTotal, bytes.
        trees: The backends' processes, shared with the host's probe.
        nested: This process lives in a container's PID namespace, where NVML's PIDs may mean nothing.
        integrated: Asks the CUDA driver which GPUs are integrated (`cuda_driver.integrated_gpus`).

    Raises:
        NoGpu: NVML does not work here, or there is no such GPU.
    """

    def __init__(
        self,
        nvml: Any,
        *,
        index: int | None = None,
        pool_total: int | None = None,
        trees: ProcessTrees | None = None,
        nested: bool = False,
        integrated: Callable[[], tuple[dict[str, bool], str]],
    ) -> None:
        self._nvml = nvml
        self._pool_total = pool_total
        self._trees = trees or ProcessTrees()
        self._nested = nested
        self._provenance: Mapping[str, Provenance] = {}
        self._names: dict[int, str | None] = {}
        try:
            nvml.nvmlInit()
            count = int(nvml.nvmlDeviceGetCount())
        except Exception as error:
            raise NoGpu(reason(error)) from error
        if count == 0:
            raise NoGpu("the NVIDIA driver finds no GPU")
        self.chosen = index or 0
        if self.chosen >= count:
            raise NoGpu(f"there is no GPU {self.chosen}: NVML lists {count}, counted from 0")
        self._device = Device(nvml, self.chosen)
        answers, why = integrated()
        self.gpus = tuple(self._describe(number, answers) for number in range(count))
        self._gpu = self.gpus[self.chosen]
        self._throttling = ThrottleReader(self._device.ask, silence_tells=not self._gpu.unified)
        self.driver = self._system("nvmlSystemGetDriverVersion")
        self.cuda = self._cuda_version()
        self.capabilities = self._look(integrated_as_told(self._device, answers), why)

    def read(self, owners: Owners) -> Readings:
        """One reading of every `gpu_*` figure and every `<backend>_gpu_memory`. Never raises.

        A backend that `owners` does not name has processes that nobody knows, so its memory is absent; one
        with an empty set runs no process and holds 0.
        """
        figures = ReadingBuilder(self._provenance)
        for figure in _FIGURES:
            self._read_figure(figures, figure)
        self._throttling.read(figures)
        processes = self._read_memory(figures, owners)
        readings = figures.finish(processes)
        self._provenance = readings.provenance
        return readings

    def close(self) -> None:
        with suppress(Exception):  # a lost GPU or driver: nothing is left to give back
            self._nvml.nvmlShutdown()

    # The machine

    def _describe(self, index: int, integrated: Mapping[str, bool]) -> GpuInfo:
        try:
            device = self._device if index == self.chosen else Device(self._nvml, index)
        except NoGpu as error:
            return GpuInfo(index, "unknown GPU", "", None, str(error), None)
        gpu = GpuInfo(
            index=index,
            name=text_answer(device, "nvmlDeviceGetName") or "unknown GPU",
            uuid=text_answer(device, "nvmlDeviceGetUUID") or "",
            memory_total=None,
            memory_source="",
            unified=integrated_as_told(device, integrated),
            compute_capability=compute_capability(device),
        )
        try:
            memory, refusal = device.memory(), ""
        except Unanswered as error:
            memory, refusal = None, str(error)
        if gpu.unified is None and self._looks_unified(device, memory):
            gpu = replace(gpu, unified=True)
        if memory is not None:
            why = implausible(memory, unified=gpu.unified, pool_total=self._pool_total, process_sum=0)
            if why is None:
                return replace(gpu, memory_total=memory.total, memory_source=memory.source)
            refusal = why
        if gpu.unified:
            origin = f"{POOL_TOTAL}; used: {PROCESS_SUM} ({refusal})"
            return replace(gpu, memory_total=self._pool_total, memory_source=origin)
        return replace(gpu, memory_source=f"{PROCESS_SUM} ({refusal})")

    def _looks_unified(self, device: Device, memory: DeviceMemory | None) -> bool:
        """The fallback when the CUDA driver cannot say: no BAR1 window, and no memory figure of its own.

        A discrete card always has the window through which the CPU reaches its memory.
        """
        if device.supports("nvmlDeviceGetBAR1MemoryInfo"):
            return False
        return memory is None or memory.total == 0 or resembles_pool(memory, self._pool_total)

    def _system(self, call: str) -> str | None:
        try:
            return decoded(getattr(self._nvml, call)())
        except Exception:
            return None

    def _cuda_version(self) -> str | None:
        for call in ("nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion"):
            try:
                number = int(getattr(self._nvml, call)())
            except Exception:  # noqa: S112  (the older name is tried next)
                continue
            return f"{number // 1000}.{number % 1000 // 10}"
        return None

    def _look(self, told: bool | None, driver_silence: str) -> tuple[Capability, ...]:
        readings = self.read({})
        found = [
            Capability(key, key in readings.values, note.source or note.absence or "")
            for key, note in readings.provenance.items()
            if key.startswith("gpu_")
        ]
        try:
            found.append(Capability("gpu_memory_info", True, self._device.memory().source))
        except Unanswered as error:
            found.append(Capability("gpu_memory_info", False, str(error)))
        try:
            listed = len(self._device.processes())
            found.append(Capability("gpu_processes", True, f"NVML lists {listed} at the start"))
        except Unanswered as error:
            found.append(Capability("gpu_processes", False, str(error)))
        for name, call, args, show in _EXTRAS:
            try:
                found.append(Capability(name, True, f"{show(self._device.ask(call, *args))} ({call})"))
            except Unanswered as error:
                found.append(Capability(name, False, str(error)))
        if told is not None:
            detail = f"the CUDA attribute `integrated` is {int(told)}"
        elif self._gpu.unified:
            detail = "taken for one: NVML has no BAR1 window and no memory figure of the GPU's own"
        else:
            detail = driver_silence or "the CUDA driver does not name this GPU"
        found.append(Capability("gpu_unified_pool", bool(self._gpu.unified), detail))
        return tuple(found)

    # One reading

    def _read_figure(self, figures: ReadingBuilder, figure: _Figure) -> None:
        refusal = ""
        for call, args in figure.calls:
            try:
                figures.put(figure.key, figure.value(self._device.ask(call, *args)), call)
                return
            except Unanswered as error:
                refusal = refusal or str(error)
        figures.lack(figure.key, refusal)

    def _read_memory(self, figures: ReadingBuilder, owners: Owners) -> tuple[GpuProcess, ...]:
        self._trees.update(owners)
        listing: dict[int, int | None] = {}
        blind: str | None = None
        try:
            listing = self._device.processes()
        except Unanswered as error:
            blind = f"no memory per process: {error}"
        memory, refusal = self._device_memory(listing)
        if blind is None:
            foreign = self._nested and any(not psutil.pid_exists(pid) for pid in listing)
            blind = why_hidden(listing, memory=memory, foreign_pids=foreign, nested=self._nested)
        processes = self._attribute(listing)

        if memory is not None:
            figures.put("gpu_memory_total", memory.total, memory.source)
            figures.put("gpu_memory_used", memory.used, memory.source)
        else:
            self._read_pool(figures, processes, blind, refusal)
        for backend in BACKENDS:
            _read_share(figures, backend, owners, processes, blind)
        _read_other(figures, memory, processes, blind)
        return processes

    def _device_memory(self, listing: Mapping[int, int | None]) -> tuple[DeviceMemory | None, str]:
        """NVML's memory information if it can be believed; else None and why."""
        try:
            memory = self._device.memory()
        except Unanswered as error:
            return None, str(error)
        why = implausible(
            memory,
            unified=self._gpu.unified,
            pool_total=self._pool_total,
            process_sum=sum(figure or 0 for figure in listing.values()),
        )
        return (memory, "") if why is None else (None, why)

    def _read_pool(
        self, figures: ReadingBuilder, processes: tuple[GpuProcess, ...], blind: str | None, refusal: str
    ) -> None:
        """Total and use where NVML has no memory figure of the device."""
        if self._gpu.unified and self._pool_total is not None:
            figures.put("gpu_memory_total", self._pool_total, POOL_TOTAL)
        else:
            figures.lack("gpu_memory_total", refusal)
        known = [process.gpu_memory for process in processes if process.gpu_memory is not None]
        silent = len(processes) - len(known)
        if blind is not None:
            figures.lack("gpu_memory_used", blind)
        elif silent and not known:
            figures.lack("gpu_memory_used", "NVML lists processes without their memory")
        else:
            missing = f", {silent} of them without a figure" if silent else ""
            figures.put("gpu_memory_used", sum(known), PROCESS_SUM + missing)

    def _attribute(self, listing: Mapping[int, int | None]) -> tuple[GpuProcess, ...]:
        self._names = {pid: self._names.get(pid) or process_name(pid) for pid in listing}
        processes = (
            GpuProcess(pid, self._names[pid], figure, self._trees.owner_of(pid) or "other")
            for pid, figure in listing.items()
        )
        return tuple(sorted(processes, key=lambda process: (-(process.gpu_memory or 0), process.pid)))


def _read_share(
    figures: ReadingBuilder,
    backend: str,
    owners: Owners,
    processes: tuple[GpuProcess, ...],
    blind: str | None,
) -> None:
    key = f"{backend}_gpu_memory"
    mine = [process.gpu_memory for process in processes if process.owner == backend]
    known = [figure for figure in mine if figure is not None]
    if backend not in owners:
        figures.lack(key, UNKNOWN_PROCESSES)
    elif not owners[backend]:
        figures.put(key, 0, NO_PROCESS)
    elif not mine and blind is not None:
        figures.lack(key, blind)
    elif len(known) < len(mine):
        figures.lack(key, "NVML lists this backend's process without its memory")
    else:
        figures.put(key, sum(known), "NVML's bytes of the backend's processes")


def _read_other(
    figures: ReadingBuilder,
    memory: DeviceMemory | None,
    processes: tuple[GpuProcess, ...],
    blind: str | None,
) -> None:
    """What the GPU holds beyond the backends."""
    key = "gpu_memory_other"
    if blind is not None:
        figures.lack(key, blind)
    elif memory is None:
        others = [process.gpu_memory or 0 for process in processes if process.owner == "other"]
        figures.put(key, sum(others), "NVML's bytes of all other processes")
    elif any(process.gpu_memory is None and process.owner != "other" for process in processes):
        figures.lack(key, "NVML lists a backend's process without its memory")
    else:
        owned = sum(process.gpu_memory or 0 for process in processes if process.owner != "other")
        figures.put(key, max(0, memory.used - owned), f"{memory.source} used − the backends' bytes")
