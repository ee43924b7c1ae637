"""What `embedctl coexist` found: a language model and an embedding backend at work side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from embedctl.records.backends import BackendName
from embedctl.records.runs import Figure, Interval

CoexistVerdict = Literal["fit side by side", "disturb each other", "do not fit", "undecided"]


@dataclass(frozen=True, slots=True)
class Coexistence:
    """One backend beside the language model."""

    backend: BackendName
    verdict: CoexistVerdict
    reasons: tuple[str, ...]
    rounds: int
    tokens_alone: Interval | None
    """Tokens a second of the language model, mean over the rounds."""
    tokens_together: Interval | None
    tokens_kept: Interval | None
    """Together over alone, paired by round; 0.8 means that a fifth was lost."""
    p50_alone_ms: float | None
    p50_together_ms: float | None
    p99_alone: Figure
    """Of the latency from the intended send time, in ms."""
    p99_together: Figure
    p99_ratio: Interval | None
    """Together over alone."""
    offered_per_s: float
    """Texts a second that were sent, the same alone and together."""
    errors: int
    """Requests that failed, or were not answered in time."""
    least_memory: Figure
    """What was left of the memory at the worst moment of both together."""
    memory_floor: int
    latencies_alone_ms: tuple[float, ...]
    latencies_together_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CoexistReport:
    """The whole answer."""

    verdict: CoexistVerdict
    """That of the backend that fares worst."""
    reasons: tuple[str, ...]
    model: str
    """The language model's Ollama tag."""
    simulated: bool
    """Its server says of itself that it is simulated."""
    block_seconds: float
    rows: tuple[Coexistence, ...]
    limits: Mapping[str, float]
    """What the verdict goes by: `tokens_kept` at least, `p99_ratio` at most."""
    notes: tuple[str, ...] = ()
