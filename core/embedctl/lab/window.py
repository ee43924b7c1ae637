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
    before: Sample | None = None
    """The last one whose reading began before it was open: power and energy in it are another stretch's."""

    def see(self, sample: Sample) -> None:
        self.samples.append(sample)

    def see_earlier(self, sample: Sample) -> None:
        self.before = sample

    @property
    def known(self) -> list[Sample]:
        """The samples for what hardly changes, such as memory: where none fell into it, the last before."""
        return self.samples or ([self.before] if self.before is not None else [])

    def joined(self, later: SampleWindow) -> SampleWindow:
        """One window of the samples of both."""
        return SampleWindow(
            [*self.samples, *later.samples], self.discrete or later.discrete, self.before or later.before
        )

    def peak(self, backend: BackendName) -> tuple[int | None, str]:
        """The most bytes that a backend's own processes held, and where that was read or why it is absent."""
        key, held = self._readings(backend)
        if not held:
            return None, self._absence(f"{backend}_gpu_memory")
        most, sample = max(((held, sample) for sample, held in held), key=lambda pair: pair[0])
        note = sample.provenance.get(key)
        source = (note.source if note else None) or "sampled"
        return int(most), source if self.samples else f"{source}, read right before"

    def held(self, backend: BackendName) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Times (Unix seconds) and bytes of all readings of a backend's memory."""
        _, found = self._readings(backend)
        return tuple(sample.at for sample, _ in found), tuple(held for _, held in found)

    def _readings(self, backend: BackendName) -> tuple[str, list[tuple[Sample, float]]]:
        """The key of a backend's memory and the readings: on the GPU if any is, else in host memory.

        Never both: a process that has yet to reach the GPU holds host memory, and the two are not one figure.
        """
        on_gpu = any(sample.get(f"{backend}_gpu_memory") for sample in self.known)
        key = f"{backend}_{'gpu_memory' if on_gpu else 'rss'}"
        return key, [(sample, held) for sample in self.known if (held := sample.get(key)) is not None]

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
            for sample in self.known
            if (total := sample.get("gpu_memory_total")) is not None
            and (used := sample.get("gpu_memory_used")) is not None
        ]
        if free:
            return Figure("gpu_low_bytes", min(free), "bytes", note=self._source("gpu_memory_used"))
        return Figure("gpu_low_bytes", None, "bytes", note=self._absence("gpu_memory_used"))

    def mean_power(self) -> tuple[float | None, str]:
        """Mean watts over the window, and how they were had: energy counter, else integrated power.

        Both need two readings within it; without them None and the reason.
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
        if counted or drawn:
            return None, "one sample was taken meanwhile, and power needs two"
        return None, self._absence("gpu_energy")

    def throttled(self) -> bool:
        return any(sample.get("gpu_throttled") for sample in self.known)

    def _absence(self, key: str) -> str:
        return self.known[-1].absence(key) if self.known else "no sample was taken meanwhile"

    def _extreme(self, name: str, key: str, unit: str, choose: Callable[[list[float]], float]) -> Figure:
        values = [value for sample in self.known if (value := sample.get(key)) is not None]
        if values:
            return Figure(name, choose(values), unit, note=self._source(key))
        return Figure(name, None, unit, note=self._absence(key))

    def _source(self, key: str) -> str:
        notes = (sample.provenance.get(key) for sample in reversed(self.known))
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
