"""Asking NVML about one GPU: calls by name, errors turned into reasons.

Works over the `pynvml` module of nvidia-ml-py. A call that is Not Supported is not made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedctl.telemetry.cuda_driver import bus_key
from embedctl.telemetry.gpu_memory import DeviceMemory, merge_processes
from embedctl.telemetry.throttling import Unanswered

_NOT_SUPPORTED, _NO_PERMISSION, _FUNCTION_NOT_FOUND = 3, 4, 13
_SETTLED = frozenset({_NOT_SUPPORTED, _FUNCTION_NOT_FOUND})
_REASONS: Mapping[int, str] = {
    1: "NVML was shut down",
    _NOT_SUPPORTED: "NVML answers Not Supported on this GPU",
    _NO_PERMISSION: "NVML refuses it to this user (no permission)",
    9: "the NVIDIA driver is not loaded",
    12: "the NVIDIA driver is not installed (no libnvidia-ml)",
    _FUNCTION_NOT_FOUND: "this driver's NVML does not have the call",
    15: "the GPU is lost: it has fallen off the bus and needs a reboot",
    16: "the GPU needs a reset",
    18: "driver and NVML library differ in version: reload the driver or reboot after its update",
}


class NoGpu(Exception):
    """There is no GPU to watch; the text says why."""


_PROCESS_LISTS = (
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses",
)


class Device:
    """One GPU of NVML's list: calls by name, with errors turned into reasons."""

    def __init__(self, nvml: Any, index: int) -> None:
        self._nvml = nvml
        self.index = index
        self._settled: dict[tuple[str, tuple[Any, ...]], str] = {}
        try:
            self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except Exception as error:
            raise NoGpu(f"GPU {index} cannot be opened: {reason(error)}") from error

    def ask(self, call: str, *args: Any) -> Any:
        """Call an NVML function on this device.

        Raises:
            Unanswered: It failed; the text says why.
        """
        question = (call, tuple(arg for arg in args if isinstance(arg, int)))
        if question in self._settled:
            raise Unanswered(self._settled[question])
        function = getattr(self._nvml, call, None)
        if function is None:
            self._settled[question] = why = f"the installed nvidia-ml-py does not have {call}"
            raise Unanswered(why)
        try:
            return function(self._handle, *args)
        except Exception as error:  # pynvml raises NVMLError, and ctypes what it likes
            why = reason(error)
            if getattr(error, "value", None) in _SETTLED:
                self._settled[question] = why
            raise Unanswered(why) from error

    def memory(self) -> DeviceMemory:
        """NVML's memory information. Version 2 leaves what the driver reserves for itself out of `used`.

        Raises:
            Unanswered: Neither version gives it.
        """
        version = getattr(self._nvml, "nvmlMemory_v2", None)
        if version is not None:
            try:
                info = self.ask("nvmlDeviceGetMemoryInfo", version)
                return DeviceMemory(int(info.total), int(info.used), "nvmlDeviceGetMemoryInfo v2")
            except Unanswered:
                pass  # a driver before 510 has only version 1
        info = self.ask("nvmlDeviceGetMemoryInfo")
        return DeviceMemory(int(info.total), int(info.used), "nvmlDeviceGetMemoryInfo")

    def processes(self) -> dict[int, int | None]:
        """Bytes by PID, None where NVML does not tell.

        Raises:
            Unanswered: The list of compute processes cannot be had; the other lists may fail.
        """
        lists = [self.ask(_PROCESS_LISTS[0])]
        for call in _PROCESS_LISTS[1:]:
            try:
                lists.append(self.ask(call))
            except Unanswered:
                continue
        return merge_processes(((int(p.pid), p.usedGpuMemory) for p in entries) for entries in lists)

    def supports(self, call: str) -> bool:
        try:
            self.ask(call)
        except Unanswered:
            return False
        return True


def reason(error: BaseException) -> str:
    """Why NVML failed, in words."""
    code = getattr(error, "value", None)
    if isinstance(code, int) and code in _REASONS:
        return _REASONS[code]
    return f"NVML fails: {error}"


def integrated_as_told(device: Device, integrated: Mapping[str, bool]) -> bool | None:
    """What the CUDA driver said about this GPU, matched by its PCI address."""
    for call in ("nvmlDeviceGetPciInfo", "nvmlDeviceGetPciInfo_v3"):
        try:
            return integrated.get(bus_key(decoded(device.ask(call).busId)))
        except Unanswered:
            continue
    return None


def compute_capability(device: Device) -> tuple[int, int] | None:
    try:
        major, minor = device.ask("nvmlDeviceGetCudaComputeCapability")
    except Unanswered:
        return None
    return int(major), int(minor)


def text_answer(device: Device, call: str) -> str | None:
    try:
        return decoded(device.ask(call))
    except Unanswered:
        return None


def decoded(text: str | bytes) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
