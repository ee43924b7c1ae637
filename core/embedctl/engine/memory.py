"""Whether a backend fits: pure arithmetic over a sample, and the latest sample to do it with."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from embedctl.lab.window import held_bytes as held_bytes  # by this name for the engine
from embedctl.records import GpuProcess, Machine, Sample

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Room:
    """The memory that a load on this machine draws from."""

    total: int | None
    available: int | None
    used_by_gpu: int | None
    floor: int
    source: str

    def fits(self, expected: int | None, *, freed: int = 0) -> bool | None:
        """Whether `expected` more bytes, once `freed` are back, leave the floor; None if nobody can say."""
        if expected is None or self.available is None:
            return None
        return self.available + freed - expected >= self.floor


def room(machine: Machine | None, sample: Sample | None, floor_gib: float | None) -> Room:
    """The room for a load: the card's own memory, or the pool that CPU and GPU share.

    On a unified pool (GB10) and without a GPU this is MemAvailable, not cudaMemGetInfo's figure, which leaves
    out reclaimable cache (unsloth#10704). MemAvailable is no guarantee either, hence the floor (vllm#56824).
    """
    gpu = machine.gpu if machine else None
    values = sample.values if sample else {}
    used = values.get("gpu_memory_used")
    if gpu is not None and gpu.unified is not True:
        total = values.get("gpu_memory_total")
        available = total - used if total is not None and used is not None else None
        source = "the card's total less what is in use, by NVML"
    else:
        total = values.get("host_memory_total")
        available = values.get("host_memory_available")
        source = "MemAvailable of the pool"
    return Room(
        total=int(total) if total is not None else None,
        available=int(available) if available is not None else None,
        used_by_gpu=int(used) if used is not None else None,
        floor=memory_floor(total, floor_gib),
        source=source,
    )


def memory_floor(total: float | None, floor_gib: float | None) -> int:
    """Bytes that a load must leave available: the setting, else an eighth of the pool, at most 8 GiB."""
    if floor_gib is not None:
        return int(floor_gib * GIB)
    return min(8 * GIB, int(total / 8)) if total is not None else GIB


class Watcher(Protocol):
    """Gets every sample while it watches."""

    def see(self, sample: Sample) -> None: ...

    def see_earlier(self, sample: Sample) -> None:
        """One whose reading began before it watched, so that it tells of something else."""


W = TypeVar("W", bound=Watcher)


class LatestSample:
    """The newest sample, and a way to wait for the next one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sample: Sample | None = None
        self._processes: tuple[GpuProcess, ...] = ()
        self._count = 0
        self._begun = -math.inf
        """When the reading of the newest began, by the monotonic clock."""
        self._watchers: tuple[tuple[Watcher, float], ...] = ()
        """With the moment from which each watches."""

    @property
    def sample(self) -> Sample | None:
        return self._sample

    @property
    def processes(self) -> tuple[GpuProcess, ...]:
        return self._processes

    def after(self, moment: float, timeout: float) -> Sample | None:
        """The newest sample. One whose reading began before `moment` (monotonic), or none, is given only when
        no other comes within `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._begun > moment, timeout)
            return self._sample

    def put(self, sample: Sample, processes: tuple[GpuProcess, ...], *, begun: float | None = None) -> None:
        """Take the next sample; `begun` (monotonic) is when its reading began, None: just now."""
        with self._changed:
            self._sample = sample
            self._processes = processes
            self._count += 1
            self._begun = time.monotonic() if begun is None else begun
            for watcher, since in self._watchers:
                (watcher.see if self._begun >= since else watcher.see_earlier)(sample)
            self._changed.notify_all()

    @contextmanager
    def watched(self, watcher: W) -> Iterator[W]:
        """Show every sample to `watcher` while inside; the one that is there as an earlier one."""
        with self._changed:
            if self._sample is not None:
                watcher.see_earlier(self._sample)
            self._watchers = (*self._watchers, (watcher, time.monotonic()))
        try:
            yield watcher
        finally:
            with self._changed:
                self._watchers = tuple(pair for pair in self._watchers if pair[0] is not watcher)

    def wait_until(
        self, good: Callable[[Sample], bool], timeout: float, *, stop: Callable[[], bool] = lambda: False
    ) -> bool:
        """Wait for a sample taken from now on that is `good`; false after `timeout` seconds or on `stop`."""
        with self._changed:
            before = self._count
            arrived = self._changed.wait_for(
                lambda: stop() or (self._count > before and self._sample is not None and good(self._sample)),
                timeout,
            )
            return arrived and not stop()
