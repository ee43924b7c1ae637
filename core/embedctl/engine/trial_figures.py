"""The figures of a trial: counts, cosines and latencies, and no text."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import deque
from typing import Final

from embedctl.engine.traffic import percentile
from embedctl.records import BackendName, EmbedResult, Trial, TrialReport

_KEPT: Final = 20_000
"""Latencies, and cosines, that percentiles are taken from: the newest. The least cosine is of all."""


class _Newest:
    """The newest values, kept by size too: a percentile is then one look, and requests ask for many."""

    def __init__(self) -> None:
        self._by_age: deque[float] = deque()
        self._by_size: list[float] = []

    def add(self, value: float) -> None:
        if len(self._by_age) == _KEPT:
            del self._by_size[bisect_left(self._by_size, self._by_age.popleft())]
        self._by_age.append(value)
        insort(self._by_size, value)

    def percentile(self, share: float) -> float | None:
        return percentile(self._by_size, share) if self._by_size else None


class Figures:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active_ms = _Newest()
        self._candidate_ms = _Newest()
        self._cosines = _Newest()
        self._least: float | None = None
        self._shadowed = self._compared = self._dropped = self._failed = self._shared = 0

    def active(self, milliseconds: float) -> None:
        """The active backend has answered a request."""
        with self._lock:
            self._active_ms.add(milliseconds)

    def shared(self, milliseconds: float | None) -> None:
        """The candidate has answered a request; None: it waited for something else than the candidate."""
        with self._lock:
            self._shared += 1
            if milliseconds is not None:
                self._candidate_ms.add(milliseconds)

    def dropped(self) -> None:
        with self._lock:
            self._dropped += 1

    def failed(self) -> None:
        with self._lock:
            self._failed += 1

    def compared(self, active: EmbedResult, candidate: EmbedResult, milliseconds: float) -> float | None:
        """The candidate has embedded the texts of a request that the active backend answered.

        Returns:
            The least cosine of its texts; None if none of them could be compared.
        """
        found = cosines(active, candidate)
        with self._lock:
            self._shadowed += 1
            self._compared += len(found)
            self._candidate_ms.add(milliseconds)
            for cosine in found:
                self._cosines.add(cosine)
            least = min(found, default=None)
            if least is not None:
                self._least = least if self._least is None else min(self._least, least)
        return least

    def report(self, trial: Trial, active: BackendName, since: float) -> TrialReport:
        with self._lock:
            return TrialReport(
                trial=trial,
                active=active,
                since=since,
                shadowed=self._shadowed,
                compared=self._compared,
                dropped=self._dropped,
                failed=self._failed,
                shared=self._shared,
                least_cosine=self._least,
                low_cosine=self._cosines.percentile(0.01),
                median_cosine=self._cosines.percentile(0.50),
                active_p50_ms=self._active_ms.percentile(0.50),
                active_p95_ms=self._active_ms.percentile(0.95),
                candidate_p50_ms=self._candidate_ms.percentile(0.50),
                candidate_p95_ms=self._candidate_ms.percentile(0.95),
            )


def cosines(active: EmbedResult, candidate: EmbedResult) -> list[float]:
    """One cosine per text that both have embedded; vectors of different dimension agree by 0."""
    import numpy as np

    failed = {failure.index for result in (active, candidate) for failure in result.failures}
    good = [row for row in range(len(active.vectors)) if row not in failed]
    if active.vectors.shape != candidate.vectors.shape:
        return [0.0] * len(good)
    a = active.vectors[good].astype(np.float64)
    b = candidate.vectors[good].astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.sum(a * b, axis=1) / norms
    return [float(value) for value in np.nan_to_num(found, nan=0.0)]
