"""Scripted backends and a machine of their own, on a clock that passes only when somebody waits or works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from embedctl.errors import BackendError
from embedctl.lab.stages import Bench
from embedctl.lab.targets import Start, Target
from embedctl.lab.window import SampleWindow
from embedctl.lab.workloads import Workload
from embedctl.progress import CancelToken
from embedctl.records import EmbedResult, Fingerprint, Provenance, Sample, TextFailure

WORKLOAD = Workload(
    "test",
    tuple(f"question {n}" for n in range(20)),
    tuple(f"passage {n}" for n in range(40)),
    "0123456789ab",
)
GIB = 1024**3


@dataclass
class VirtualPace:
    """Time that passes when it is slept or worked away, and shows every half second of it to the windows."""

    at: float = 0.0
    figures: Callable[[float], dict[str, float]] = lambda at: {}
    open: list[SampleWindow] = field(default_factory=list)
    _sampled: float = 0.0
    _last: Sample | None = None

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return 1_000.0 + self.at

    def sleep(self, seconds: float) -> None:
        end = self.at + seconds
        while self.open and self._sampled + 0.5 <= end:
            self._sampled += 0.5
            self._last = self.sample(self._sampled)
            for window in self.open:
                window.see(self._last)
        self._sampled = self._sampled if self.open else end
        self.at = end

    def sample(self, at: float) -> Sample:
        values = self.figures(at)
        return Sample(1_000.0 + at, values, {key: Provenance(source=f"scripted {key}") for key in values})

    @contextmanager
    def sampling(self) -> Iterator[SampleWindow]:
        window = SampleWindow(before=self._last)
        self.open.append(window)
        try:
            yield window
        finally:
            self.open = [one for one in self.open if one is not window]


class Scripted:
    """A backend that takes `seconds(texts)` for a request; every attribute may be changed by a test."""

    def __init__(self, name: str, pace: VirtualPace, seconds: Callable[[int], float]) -> None:
        self.name, self.pace, self.seconds = name, pace, seconds
        self.seconds_of: Callable[[Sequence[str]], float] = lambda texts: self.seconds(len(texts))
        self.log: list[tuple[str, ...]] = []
        self.fails: Callable[[Sequence[str]], bool] = lambda texts: False
        self.failures: tuple[TextFailure, ...] = ()
        self.vectors: Callable[[Sequence[str]], np.ndarray] = unit_vectors
        self.restart: Callable[[bool], Start] | None = None
        self.first_start: Start | None = None
        self.max_tokens = 512

    def embed(self, texts: Sequence[str], batch_size: int | None) -> EmbedResult:
        assert batch_size == len(texts)
        self.log.append(tuple(texts))
        if self.fails(texts):
            raise BackendError("It stalled")
        self.pace.sleep(self.seconds_of(texts))
        return EmbedResult(self.vectors(texts), self.name, None, (), self.failures, 0.0)

    def target(self) -> Target:
        mark = Fingerprint(
            self.name,
            "1",
            "m",
            None,
            "float32",
            "cls",
            True,
            self.max_tokens,
            8,
            "cpu",
            None,
            None,
            None,
            None,
        )
        claimed = (2 * GIB, "scripted claim")
        return Target(self.name, self.embed, lambda: mark, lambda: claimed, self.first_start, self.restart)


def unit_vectors(texts: Sequence[str]) -> np.ndarray:
    """The same unit vector for the same text; different texts are far apart. Shape (n, 8)."""
    return np.stack([_unit_vector(text) for text in texts])


@lru_cache(maxsize=256)
def _unit_vector(text: str) -> np.ndarray:
    row = np.random.default_rng(list(text.encode())).normal(size=8)
    return (row / np.linalg.norm(row)).astype(np.float32)


def bench_of(*backends: Scripted, pace: VirtualPace, seed: int = 0) -> Bench:
    """What a stage needs to measure these."""
    import random

    return Bench(
        [backend.target() for backend in backends], WORKLOAD, lambda texts: 10 * len(texts), 512,
        random.Random(seed), pace, CancelToken(), pace.sampling,
    )  # fmt: skip
