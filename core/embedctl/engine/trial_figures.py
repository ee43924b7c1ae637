"""The figures of a trial: counts, cosines and latencies, and no text."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from embedctl.engine.traffic import percentile
from embedctl.records import BackendName, EmbedResult, Trial, TrialReport

_KEPT: Final = 20_000
"""Latencies, and cosines, that percentiles are taken from: the newest. The least cosine is of all."""


class Figures:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active_ms: deque[float] = deque(maxlen=_KEPT)
        self._candidate_ms: deque[float] = deque(maxlen=_KEPT)
        self._cosines: deque[float] = deque(maxlen=_KEPT)
        self._least: float | None = None
        self._shadowed = self._compared = self._dropped = self._failed = self._shared = 0

    def active(self, milliseconds: float) -> None:
        """The active backend has answered a request."""
        with self._lock:
            self._active_ms.append(milliseconds)

    def shared(self, milliseconds: float | None) -> None:
        """The candidate has answered a request; None: it waited for something else than the candidate."""
        with self._lock:
            self._shared += 1
            if milliseconds is not None:
                self._candidate_ms.append(milliseconds)

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
            self._candidate_ms.append(milliseconds)
            self._cosines.extend(found)
            least = min(found, default=None)
            if least is not None:
                self._least = least if self._least is None else min(self._least, least)
        return least

    def report(self, trial: Trial, active: BackendName, since: float) -> TrialReport:
        with self._lock:
            ordered = sorted(self._cosines)
            active_ms, candidate_ms = sorted(self._active_ms), sorted(self._candidate_ms)
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
                low_cosine=percentile(ordered, 0.01) if ordered else None,
                median_cosine=percentile(ordered, 0.50) if ordered else None,
                active_p50_ms=percentile(active_ms, 0.50) if active_ms else None,
                active_p95_ms=percentile(active_ms, 0.95) if active_ms else None,
                candidate_p50_ms=percentile(candidate_ms, 0.50) if candidate_ms else None,
                candidate_p95_ms=percentile(candidate_ms, 0.95) if candidate_ms else None,
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
