"""Serving under load: a migration on trial, and how well each backend does."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from embedctl.records.backends import BackendName


@dataclass(frozen=True, slots=True)
class Trial:
    """A gradual migration: the candidate works beside the active backend before the switch.

    Shadowed requests are answered by the active backend; the candidate embeds the same texts afterwards, and
    only the comparison is kept. Shared requests are answered by the candidate itself.
    """

    candidate: BackendName
    shadow: float = 0.0
    """Share of the requests that the active backend answers which the candidate embeds too, 0 to 1."""
    share: float = 0.0
    """Share of all requests without a backend's name that the candidate answers, 0 to 1."""
    advance_after: int | None = None
    """After so many compared requests without a fault the share goes on, to 0.05, 0.5 and 1, and at a fault
    back to 0: a text whose vectors do not agree, or a request that the candidate cannot answer. None: the
    share stays as it is."""


@dataclass(frozen=True, slots=True)
class TrialReport:
    """What a trial has shown so far. Figures are None until there is something to take them from."""

    trial: Trial
    active: BackendName
    since: float
    shadowed: int
    """Requests that the candidate embedded too."""
    compared: int
    """Texts whose two vectors were compared; cosines and latencies are of the newest of them."""
    dropped: int
    """Requests that were to be shadowed but found the candidate busy: live traffic never waits for it."""
    failed: int
    """Shadowed or shared requests that the candidate could not answer."""
    shared: int
    """Requests that the candidate answered."""
    least_cosine: float | None
    low_cosine: float | None
    """1st percentile."""
    median_cosine: float | None
    active_p50_ms: float | None
    active_p95_ms: float | None
    candidate_p50_ms: float | None
    candidate_p95_ms: float | None
    step_compared: int = 0
    """Requests compared since an automatic trial went on to this share."""
    rolled_back: str = ""
    """Why an automatic trial's share went back to 0; empty when it did not."""


class Condition(StrEnum):
    """How a backend does, told apart by a probe and the machine's figures."""

    HEALTHY = "healthy"
    IDLE = "idle"
    """Not loaded: the next request loads it first."""
    SLOW = "slow"
    """Answers, but far beyond its own usual latency."""
    THROTTLED = "throttled"
    """The GPU runs below its clocks for heat or power."""
    CPU_FALLBACK = "on the CPU"
    """It should run on the GPU and does not."""
    HUNG = "hung"
    """Requests are in flight and none has ended for longer than the limit, or the probe got no answer."""
    DOWN = "down"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class BackendHealth:
    backend: BackendName
    condition: Condition
    why: str
    """The evidence in one sentence."""
    at: float
    probe_ms: float | None = None
    """Latency of the last probe; None if there was none or it got no answer."""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the active backend can answer now, and how every backend does."""

    at: float
    ready: bool
    """The active backend answered a probe, or live requests, lately."""
    active: BackendName
    backends: tuple[BackendHealth, ...]
