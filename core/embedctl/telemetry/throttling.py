"""Whether the GPU's clocks are held back, by NVML's reasons of the moment and by its counters.

GB10 answers "no reason" while it is power-capped, so the reasons alone are not to be believed: the counters
of time spent under a limit are read too, and a counter that moved since the last reading says throttled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from embedctl.telemetry.readings import ReadingBuilder

KEY = "gpu_throttled"

_REASONS = (
    # Bits of nvmlClocksEventReason*. Idle, a user's own clock setting and sync boost are no throttling.
    (0x04, "power limit"),
    (0x08, "hardware slowdown"),
    (0x20, "temperature"),
    (0x40, "temperature (hardware)"),
    (0x80, "power brake"),
)
_REASON_CALLS = (
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",  # its name before driver 535
)
_FIELDS = (
    # NVML_FI_DEV_PERF_POLICY_*, and the counters that newer drivers have under CLOCKS_EVENT_REASON_*.
    (74, "power limit"),
    (75, "temperature"),
    (77, "board limit"),
    (269, "temperature (software)"),
    (270, "temperature (hardware)"),
    (271, "power brake"),
)
_POLICIES = (
    # NVML_PERF_POLICY_*, for drivers without the fields.
    (0, "power limit"),
    (1, "temperature"),
    (3, "board limit"),
)

Ask = Callable[..., Any]
"""Calls an NVML function on the device by name; raises `Unanswered`."""


class Unanswered(Exception):
    """NVML gave no figure; the text says why."""


class ThrottleReader:
    """Puts `gpu_throttled` (1 or 0) into each reading; the source names what holds the clocks back.

    Args:
        ask: Calls NVML.
        silence_tells: That no reason is given means that there is none; not so on GB10.
    """

    def __init__(self, ask: Ask, *, silence_tells: bool = True) -> None:
        self._ask = ask
        self._silence_tells = silence_tells
        self._counters: Mapping[str, int] = {}

    def read(self, figures: ReadingBuilder) -> None:
        reasons, refusal = self._reasons()
        counters = self._read_counters()
        moved = [name for name, count in counters.items() if count > self._counters.get(name, count)]
        comparable = bool(counters.keys() & self._counters.keys())
        self._counters = counters
        if reasons:
            figures.put(KEY, 1.0, "NVML clock event reasons: " + ", ".join(reasons))
        elif moved:
            figures.put(KEY, 1.0, "NVML violation counters: " + ", ".join(moved))
        elif comparable:
            figures.put(
                KEY,
                0.0,
                "NVML clock event reasons and violation counters"
                if reasons is not None
                else "NVML violation counters",
            )
        elif reasons is not None and (counters or self._silence_tells):
            figures.put(KEY, 0.0, "NVML clock event reasons")
        elif reasons is not None:
            figures.lack(KEY, "NVML has no violation counters here, and gives no reason even while throttled")
        elif counters:
            figures.lack(KEY, "two readings of the violation counters are needed")
        else:
            figures.lack(KEY, refusal)

    def _reasons(self) -> tuple[list[str] | None, str]:
        """What holds the clocks back now; None and why if NVML does not say."""
        refusal = ""
        for call in _REASON_CALLS:
            try:
                bits = int(self._ask(call))
            except Unanswered as error:
                refusal = refusal or str(error)
                continue
            return [name for bit, name in _REASONS if bits & bit], ""
        return None, refusal

    def _read_counters(self) -> dict[str, int]:
        """Time spent under each limit; empty if NVML does not count it."""
        try:
            answers = self._ask("nvmlDeviceGetFieldValues", [number for number, _ in _FIELDS])
            counted = {
                name: int(answer.value.ullVal)
                for (_, name), answer in zip(_FIELDS, answers, strict=True)
                if answer.nvmlReturn == 0
            }
            if counted:
                return counted
        except Unanswered:
            pass
        counted = {}
        for policy, name in _POLICIES:
            try:
                counted[name] = int(self._ask("nvmlDeviceGetViolationStatus", policy).violationTime)
            except Unanswered:
                continue
        return counted
