"""What the samples of a stretch of time say: memory held, the pool's low-water mark, swap, power, energy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import pairwise

from embedctl.records import BackendName, Figure, Sample


@dataclass(slots=True)
class SampleWindow:
    """The samples taken while it was open, in the order of time; filled by the sampler's thread."""

    samples: list[Sample] = field(default_factory=list)
    discrete: bool = False
    """The GPU has memory of its own."""

    def see(self, sample: Sample) -> None:
        self.samples.append(sample)

    def joined(self, later: SampleWindow) -> SampleWindow:
        """One window of the samples of both."""
        return SampleWindow([*self.samples, *later.samples], self.discrete or later.discrete)

    def peak(self, backend: BackendName) -> tuple[int | None, str]:
        """The most bytes that a backend's own processes held, and where that was read or why it is absent."""
        held = [
            (bytes_, sample) for sample in self.samples if (bytes_ := held_bytes(sample, backend)) is not None
        ]
        if not held:
            last = self.samples[-1] if self.samples else None
            return None, last.absence(f"{backend}_gpu_memory") if last else "no sample was taken meanwhile"
        most, sample = max(held, key=lambda pair: pair[0])
        note = sample.provenance.get(f"{backend}_{'gpu_memory' if _on_gpu(sample, backend) else 'rss'}")
        return most, (note.source if note else None) or "sampled"

    def held(self, backend: BackendName) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Times (Unix seconds) and bytes of all readings of a backend's memory."""
        found = [
            (sample.at, float(held))
            for sample in self.samples
            if (held := held_bytes(sample, backend)) is not None
        ]
        return tuple(at for at, _ in found), tuple(held for _, held in found)

    def memory_figures(self) -> tuple[Figure, ...]:
        """The low-water marks of the pools, and the most swap and memory pressure."""
        return (
            *([self._gpu_low()] if self.discrete else []),
            self._extreme("pool_low_bytes", "host_memory_available", "bytes", min),
            self._extreme("swap_peak_bytes", "host_swap_used", "bytes", max),
            self._extreme("pressure_peak_percent", "host_pressure_some", "percent", max),
        )

    def _gpu_low(self) -> Figure:
        free = [
            total - used
            for sample in self.samples
            if (total := sample.get("gpu_memory_total")) is not None
            and (used := sample.get("gpu_memory_used")) is not None
        ]
        if free:
            return Figure("gpu_low_bytes", min(free), "bytes", note=self._source("gpu_memory_used"))
        why = self.samples[-1].absence("gpu_memory_used") if self.samples else "no sample was taken meanwhile"
        return Figure("gpu_low_bytes", None, "bytes", note=why)

    def mean_power(self) -> tuple[float | None, str]:
        """Mean watts over the window, and how they were had: energy counter, else integrated power.

        Both need two readings; without them None and the reason.
        """
        counted = [
            (sample.at, joule) for sample in self.samples if (joule := sample.get("gpu_energy")) is not None
        ]
        if len(counted) >= 2 and counted[-1][1] > counted[0][1]:
            (begin, first), (end, last) = counted[0], counted[-1]
            return (last - first) / (end - begin), f"energy counter, {self._source('gpu_energy')}"
        drawn = [
            (sample.at, watt) for sample in self.samples if (watt := sample.get("gpu_power")) is not None
        ]
        if len(drawn) >= 2 and drawn[-1][0] > drawn[0][0]:
            joule = sum((b - a) * (p + q) / 2 for (a, p), (b, q) in pairwise(drawn))
            return joule / (drawn[-1][0] - drawn[0][0]), f"integrated power, {self._source('gpu_power')}"
        if not self.samples:
            return None, "no sample was taken meanwhile"
        return None, self.samples[-1].absence("gpu_energy")

    def throttled(self) -> bool:
        return any(sample.get("gpu_throttled") for sample in self.samples)

    def _extreme(self, name: str, key: str, unit: str, choose: Callable[[list[float]], float]) -> Figure:
        values = [value for sample in self.samples if (value := sample.get(key)) is not None]
        if values:
            return Figure(name, choose(values), unit, note=self._source(key))
        why = self.samples[-1].absence(key) if self.samples else "no sample was taken meanwhile"
        return Figure(name, None, unit, note=why)

    def _source(self, key: str) -> str:
        notes = (sample.provenance.get(key) for sample in reversed(self.samples))
        return next((note.source for note in notes if note and note.source), "sampled")


Sampling = Callable[[], AbstractContextManager[SampleWindow]]
"""Opens a window that stays filled while the block runs."""


def held_bytes(sample: Sample | None, backend: BackendName) -> int | None:
    """What a backend's processes hold: on the GPU where that can be seen, else in host memory."""
    if sample is None:
        return None
    value = sample.get(f"{backend}_gpu_memory")
    if not value:  # a worker on the CPU holds nothing on the GPU: its host memory is what it costs
        value = sample.get(f"{backend}_rss")
    return int(value) if value is not None else None


def _on_gpu(sample: Sample, backend: BackendName) -> bool:
    return bool(sample.get(f"{backend}_gpu_memory"))
