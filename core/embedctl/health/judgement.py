"""From what was seen of a backend to how it does. Pure: the same evidence gives the same judgement.

A backend that does not answer can be hung or busy with a long request, so silence alone is no proof: a probe
is sent into it, and a probe that is answered clears the backend.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from embedctl.format import format_duration, without_password
from embedctl.records import BackendState, BackendStatus, Condition

SILENT_S: Final = 30.0
"""Requests in flight of which none ends for so long make a probe due, and a backend suspect."""
LOADING_S: Final = 300.0
"""A load that takes longer is stuck: gigabytes of weights come from a slow disk in less."""
FAILURES: Final = 3
"""So many requests that failed one after the other are no coincidence."""
SLOW_FACTOR: Final = 4.0
SLOW_EXTRA_MS: Final = 50.0
"""A probe is slow beyond `SLOW_FACTOR` times the usual latency, and that by this much at least."""
_USUAL_OF: Final = 60
"""Probes that the usual latency is taken from."""
_USUAL_FROM: Final = 6
"""Fewer say nothing of what is usual."""

ANSWERING: Final = frozenset({Condition.HEALTHY, Condition.SLOW, Condition.THROTTLED, Condition.CPU_FALLBACK})
"""Conditions in which requests are answered."""


@dataclass(frozen=True, slots=True)
class ProbeSeen:
    """The last probe of a backend."""

    ago: float
    """Seconds since it ended."""
    ms: float | None
    """None: it was not answered."""
    timed_out: bool = False
    failure: str = ""
    """Why it was not answered."""
    usual_ms: float | None = None
    """What probes usually take; None while that is not known."""
    slow: bool = False
    """This probe and the one before took far longer than usual."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen of one backend. Durations are seconds; infinite where it never happened."""

    status: BackendStatus
    gpu_expected: bool = False
    """There is a GPU on this machine and nothing says that the backend should not use it."""
    probe: ProbeSeen | None = None
    in_flight: int = 0
    silent_for: float = 0.0
    answered_ago: float = math.inf
    failures: int = 0
    """Requests that failed since the last answer."""
    failed_with: str = ""
    loading_for: float = 0.0
    throttled_by: str = ""
    """What holds the GPU's clocks back; empty when nothing does."""


@dataclass(frozen=True, slots=True)
class Judgement:
    condition: Condition
    why: str


def judge(seen: Evidence) -> Judgement:
    """How the backend does, the worst first, and the evidence for it in one sentence."""
    status = seen.status
    match status.state:
        case BackendState.UNKNOWN:
            return Judgement(Condition.UNKNOWN, "not looked at yet")
        case BackendState.UNAVAILABLE | BackendState.MODEL_MISSING | BackendState.FAILED:
            return Judgement(Condition.DOWN, without_password(status.detail) or status.state.value)
        case BackendState.UNLOADED | BackendState.UNLOADING:
            return Judgement(Condition.IDLE, "not loaded: the next request loads it first")
        case BackendState.LOADING:
            condition = Condition.HUNG if seen.loading_for > LOADING_S else Condition.IDLE
            return Judgement(condition, f"has been loading for {format_duration(seen.loading_for)}")
    return _silence(seen) or _shortfall(seen) or Judgement(Condition.HEALTHY, _sign_of_life(seen))


def _silence(seen: Evidence) -> Judgement | None:
    """Whether it answers at all."""
    probe = seen.probe
    if probe is not None and probe.ms is None and probe.ago < seen.answered_ago:
        if probe.timed_out:
            return Judgement(Condition.HUNG, f"a probe got no answer: {probe.failure}")
        return Judgement(Condition.DOWN, f"a probe failed: {probe.failure}")
    cleared_ago = probe.ago if probe is not None and probe.ms is not None else math.inf
    if seen.silent_for > SILENT_S and cleared_ago > SILENT_S:
        why = (
            f"{seen.in_flight} requests in flight, and none has ended for {format_duration(seen.silent_for)}"
        )
        return Judgement(Condition.HUNG, why)
    if seen.failures >= FAILURES and cleared_ago > SILENT_S:
        return Judgement(Condition.DOWN, f"the last {seen.failures} requests failed: {seen.failed_with}")
    return None


def _shortfall(seen: Evidence) -> Judgement | None:
    """Whether it answers as it should."""
    device = seen.status.device or ""
    if seen.gpu_expected and device.startswith("cpu"):
        return Judgement(Condition.CPU_FALLBACK, f"it runs on {device}, and this machine has a GPU")
    if seen.throttled_by and not device.startswith("cpu"):
        return Judgement(Condition.THROTTLED, f"the GPU's clocks are held back: {seen.throttled_by}")
    probe = seen.probe
    if probe is not None and probe.slow and probe.ms is not None and probe.usual_ms is not None:
        return Judgement(Condition.SLOW, f"a probe took {probe.ms:.0f} ms, usual are {probe.usual_ms:.1f} ms")
    return None


def _sign_of_life(seen: Evidence) -> str:
    probe = seen.probe
    if probe is not None and probe.ms is not None and probe.ago <= seen.answered_ago:
        return f"a probe was answered in {probe.ms:.1f} ms, {format_duration(probe.ago)} ago"
    if math.isfinite(seen.answered_ago):
        return f"a request was answered {format_duration(seen.answered_ago)} ago"
    return "loaded, and nobody has asked it anything yet"


@dataclass(slots=True)
class UsualLatency:
    """What a backend's probes usually take. Slow ones are left out, or they would become the usual."""

    _good: deque[float] = field(default_factory=lambda: deque(maxlen=_USUAL_OF))
    _slow_before: bool = False

    @property
    def ms(self) -> float | None:
        return statistics.median(self._good) if len(self._good) >= _USUAL_FROM else None

    def see(self, milliseconds: float) -> bool:
        """Take in one probe; whether it and the one before it were slow."""
        usual = self.ms
        slow = usual is not None and milliseconds > max(SLOW_FACTOR * usual, usual + SLOW_EXTRA_MS)
        if not slow:
            self._good.append(milliseconds)
        both, self._slow_before = slow and self._slow_before, slow
        return both
