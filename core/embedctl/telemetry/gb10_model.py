"""How a GB10 with BGE-M3 on it would look, driven by what the demo's processes really do. Pure; no I/O.

The demo runs a small model on the CPU. Each of its processes stands for one that would hold BGE-M3 on the
GPU:

- its resident size says how far it is: up to 128 MiB it is a bare interpreter and holds nothing on the GPU;
  by 512 MiB torch is there and with it the CUDA context (0.45 GiB); by 832 MiB the model is loaded and with
  it BGE-M3's weights (568 million parameters in fp16, 1.06 GiB). In between in proportion. A worker with
  sentence-transformers and the demo's model was seen at 850 to 900 MiB.
- its share of the CPU stands for the GPU's, as far as its weights are there: utilisation, and through it
  activations (up to 0.5 GiB, kept once taken, as a caching allocator does), power, temperature and clock.

Figures ease towards where they belong, so loads and unloads look like curves and not like steps. Idle and
full figures are of the size that owners of a DGX Spark report.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

GIB = 2**30
MIB = 2**20

POOL_TOTAL = int(121.6 * GIB)
_CONTEXT = 0.45 * GIB
_WEIGHTS = 568e6 * 2
_ACTIVATIONS = 0.5 * GIB
_CHUNK = 2 * MIB  # CUDA hands out memory in chunks of this size

_SYSTEM_USE = 6.5 * GIB  # the operating system and its services
_CACHE = 21 * GIB

_IDLE_CLOCK, _FULL_CLOCK, _CAPPED_CLOCK = 208, 2418, 2106  # MHz
_IDLE_POWER, _FULL_POWER = 4.0, 72.0  # W
_IDLE_TEMPERATURE, _FULL_TEMPERATURE = 37.0, 70.0  # °C
_CAP_TEMPERATURE = 67.0  # the clock is held back from here on

_MEMORY_TAU, _RETURN_TAU, _BUSY_TAU, _TEMPERATURE_TAU = 0.8, 0.6, 0.7, 25.0  # seconds
_LONGEST_STEP = 60.0  # a longer pause (a suspended machine) counts as this long


@dataclass(frozen=True, slots=True)
class Load:
    """What one process really does."""

    resident: int
    """Bytes."""
    cpu_seconds: float
    """Since its start."""


class Gb10Model:
    """The simulated device. `advance` moves it to a moment; the attributes are its figures then.

    Attributes:
        holdings: Bytes on the GPU by PID.
        utilization: Per cent.
        power: Watt.
        temperature: Degrees Celsius.
        sm_clock: Megahertz.
        energy: Joule since the start.
        throttled_ns: Nanoseconds spent with the clock held back.
    """

    def __init__(self, cores: int) -> None:
        self._cores = max(1, cores)
        self._now: float | None = None
        self._loads: Mapping[int, Load] = {}
        self._held: dict[int, float] = {}
        self._activations: dict[int, float] = {}
        self._returning = 0.0
        self._busy = 0.0
        self.holdings: dict[int, int] = {}
        self.temperature = _IDLE_TEMPERATURE
        self.energy = 0.0
        self.throttled_ns = 0

    @property
    def utilization(self) -> float:
        return round(100 * self._busy)

    @property
    def power(self) -> float:
        return _IDLE_POWER + (_FULL_POWER - _IDLE_POWER) * math.pow(self._busy, 0.8)

    @property
    def throttled(self) -> bool:
        return self.temperature >= _CAP_TEMPERATURE and self._busy > 0.5

    @property
    def sm_clock(self) -> int:
        if self._busy < 0.02:
            return _IDLE_CLOCK
        return _CAPPED_CLOCK if self.throttled else _FULL_CLOCK

    def advance(self, now: float, loads: Mapping[int, Load]) -> None:
        """Move on to `now` (seconds of any clock) with the processes that run then."""
        step = 0.0 if self._now is None else min(max(0.0, now - self._now), _LONGEST_STEP)
        self._now = now
        busy = self._shares(loads, step)
        self._loads = dict(loads)
        self._busy += (min(1.0, sum(busy.values())) - self._busy) * _eased(step, _BUSY_TAU)
        goal = _IDLE_TEMPERATURE + (_FULL_TEMPERATURE - _IDLE_TEMPERATURE) * self._busy
        self.temperature += (goal - self.temperature) * _eased(step, _TEMPERATURE_TAU)
        self.energy += self.power * step
        self.throttled_ns += int(step * 1e9) if self.throttled else 0
        self._move_memory(loads, busy, step)

    def host(self) -> dict[str, float]:
        """The pool's host side, bytes: total, available, free and reclaimable, consistent with `holdings`.

        It breathes slowly as a function of the clock alone, so equal times give equal figures.
        """
        now = self._now or 0.0
        used = _SYSTEM_USE * (1 + 0.04 * math.sin(now / 97) + 0.02 * math.sin(now / 23))
        used += sum(load.resident for load in self._loads.values())
        available = POOL_TOTAL - used - sum(self.holdings.values()) - self._returning
        cache = min(_CACHE * (1 + 0.03 * math.sin(now / 211)), max(0.0, available))
        return {
            "host_memory_total": float(POOL_TOTAL),
            "host_memory_available": float(max(0, int(available))),
            "host_memory_free": float(max(0, int(available) - int(cache))),
            "host_memory_reclaimable": float(int(cache)),
        }

    def _shares(self, loads: Mapping[int, Load], step: float) -> dict[int, float]:
        """What each process computes on the GPU: its share of the whole CPU since the last step, 0 to 1."""
        if step <= 0:
            return {}
        return {
            pid: max(0.0, load.cpu_seconds - self._loads[pid].cpu_seconds)
            / (step * self._cores)
            * _loaded(load.resident)
            for pid, load in loads.items()
            if pid in self._loads
        }

    def _move_memory(self, loads: Mapping[int, Load], busy: Mapping[int, float], step: float) -> None:
        self._returning *= 1 - _eased(step, _RETURN_TAU)
        for pid in self._held.keys() - loads.keys():  # an ended process holds nothing at once,
            self._returning += self._held.pop(pid)  # while the pool takes a moment to have it back
            self._activations.pop(pid, None)
        for pid, load in loads.items():
            lasting = _lasting_bytes(load.resident)
            peak = max(self._activations.get(pid, 0.0), _ACTIVATIONS * min(1.0, busy.get(pid, 0.0)))
            self._activations[pid] = peak * _loaded(load.resident)
            held = self._held.get(pid, 0.0)
            held += (lasting + self._activations[pid] - held) * _eased(step, _MEMORY_TAU)
            self._held[pid] = held
        self.holdings = {
            pid: round(held / _CHUNK) * _CHUNK for pid, held in self._held.items() if held >= _CHUNK
        }


def _lasting_bytes(resident: int) -> float:
    """Context and weights that a process of this resident size stands for."""
    context = _share(resident, 128 * MIB, 512 * MIB)
    return context * _CONTEXT + _loaded(resident) * _WEIGHTS


def _loaded(resident: int) -> float:
    """How much of the weights is there, 0 to 1."""
    return _share(resident, 512 * MIB, 832 * MIB)


def _share(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _eased(step: float, tau: float) -> float:
    """The part of a distance covered in `step` seconds by first-order easing."""
    return 1 - math.exp(-step / tau)
