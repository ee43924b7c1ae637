"""A scripted stand-in for the `pynvml` module, with profiles of machines that were seen in the wild."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from pynvml import NVMLError

GIB = 2**30
MIB = 2**20

NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, NO_LIBRARY, NO_FUNCTION, LOST, MISMATCH = (
    3,
    4,
    9,
    12,
    13,
    15,
    18,
)


@dataclass(frozen=True)
class Fails:
    """An answer that is NVML's error `code`."""

    code: int


class FakeNvml:
    """Answers calls from `answers`: a value, a callable over the call's arguments, or `Fails`.

    A call without an answer is Not Supported. `asked` lists the calls made; `fail_all` overrides everything.
    """

    nvmlMemory_v2 = 0x02000028  # noqa: N815  (the name is NVML's)

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {"nvmlInit": None, "nvmlShutdown": None, "nvmlDeviceGetCount": 1}
        self.answers["nvmlDeviceGetHandleByIndex"] = lambda index: index
        self.answers |= answers
        self.asked: list[str] = []
        self.fail_all: int | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def call(*args: Any) -> Any:
            self.asked.append(name)
            answer = self.answers.get(name, Fails(NOT_SUPPORTED))
            if self.fail_all is not None:
                answer = Fails(self.fail_all)
            if callable(answer):
                answer = answer(*args)
            if isinstance(answer, Fails):
                raise NVMLError(answer.code)
            return answer

        return call


def process(pid: int, used: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)


def memory(total: int, used: int) -> SimpleNamespace:
    return SimpleNamespace(total=total, used=used, free=total - used)


def h200(**answers: Any) -> FakeNvml:
    """A discrete card on which everything works."""

    def clock(_handle: int, kind: int) -> int:
        return {1: 1980, 2: 3201}[kind]

    return FakeNvml(
        **{
            "nvmlDeviceGetName": "NVIDIA H200",
            "nvmlDeviceGetUUID": "GPU-aaaa",
            "nvmlDeviceGetPciInfo": SimpleNamespace(busId="00000000:0F:00.0"),
            "nvmlDeviceGetCudaComputeCapability": (9, 0),
            "nvmlSystemGetDriverVersion": "580.159.03",
            "nvmlSystemGetCudaDriverVersion_v2": 13000,
            "nvmlDeviceGetMemoryInfo": memory(143_771 * MIB, 3 * GIB),
            "nvmlDeviceGetBAR1MemoryInfo": SimpleNamespace(bar1Total=262_144 * MIB),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=87, memory=40),
            "nvmlDeviceGetTemperature": 54,
            "nvmlDeviceGetPowerUsage": 412_500,
            "nvmlDeviceGetClockInfo": clock,
            "nvmlDeviceGetMaxClockInfo": 1980,
            "nvmlDeviceGetTotalEnergyConsumption": 7_250_000,
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetCurrentClocksEventReasons": 0,
            "nvmlDeviceGetComputeRunningProcesses": [],
            "nvmlDeviceGetGraphicsRunningProcesses": [],
            "nvmlDeviceGetMPSComputeRunningProcesses": [],
        }
        | answers
    )


def gb10(**answers: Any) -> FakeNvml:
    """GB10 as its driver answers: no memory information, no limits, no BAR1; per-process bytes work."""

    def clock(_handle: int, kind: int) -> Any:
        return 2405 if kind == 1 else Fails(NOT_SUPPORTED)

    return FakeNvml(
        **{
            "nvmlDeviceGetName": "NVIDIA GB10",
            "nvmlDeviceGetUUID": "GPU-bbbb",
            "nvmlDeviceGetPciInfo": SimpleNamespace(busId="0000000F:01:00.0"),
            "nvmlDeviceGetCudaComputeCapability": (12, 1),
            "nvmlSystemGetDriverVersion": "580.95.05",
            "nvmlSystemGetCudaDriverVersion_v2": 13000,
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=12, memory=0),
            "nvmlDeviceGetTemperature": 41,
            "nvmlDeviceGetPowerUsage": 11_300,
            "nvmlDeviceGetClockInfo": clock,
            "nvmlDeviceGetTotalEnergyConsumption": 1_000_500,
            "nvmlDeviceGetCurrentClocksEventReasons": 0,
            "nvmlDeviceGetComputeRunningProcesses": [],
            "nvmlDeviceGetGraphicsRunningProcesses": [],
        }
        | answers
    )
