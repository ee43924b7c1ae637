"""What is measured, and sending it a request: timed, checked, counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from embedctl.errors import BackendError
from embedctl.lab.tokens import TokenCounter
from embedctl.progress import CancelToken
from embedctl.records import BackendName, EmbedResult, Fingerprint


class Pace(Protocol):
    """The lab's sense of time."""

    def now(self) -> float:
        """Seconds that never jump."""

    def wall(self) -> float:
        """Unix seconds."""

    def sleep(self, seconds: float) -> None:
        """Pause, at most until the run is cancelled."""


class RealPace:
    """The system's clocks."""

    def __init__(self, cancel: CancelToken) -> None:
        self._cancel = cancel

    def now(self) -> float:
        return time.perf_counter()

    def wall(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        self._cancel.wait(seconds)


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a backend, from nothing to ready."""

    seconds: float
    steps: tuple[tuple[str, float], ...]
    """The steps that the backend told of, and the seconds that each took."""
    scenario: str
    """What the machine remembered: `first load of this run`, `page cache warm`, `page cache dropped`."""


@dataclass(frozen=True, slots=True)
class Target:
    """One backend to measure."""

    name: BackendName
    embed: Callable[[Sequence[str], int | None], EmbedResult]
    fingerprint: Callable[[], Fingerprint]
    claimed: Callable[[], tuple[int | None, str]] = lambda: (None, "the backend does not say")
    """Bytes that the backend says it holds, and what it said so with."""
    first_start: Start | None = None
    """The load at the beginning of this run, where there was one."""
    restart: Callable[[bool], Start] | None = None
    """Unload and load again, with the model's files dropped from the page cache first or not."""
    why_no_restart: str = "it was loaded before the run, and others may be using it"
    why_no_disk_start: str = ""
    """Why its files cannot be dropped from the page cache; empty if they can."""


@dataclass(slots=True)
class Tally:
    """What one backend showed in one row."""

    latencies_ms: list[float] = field(default_factory=list)
    texts: int = 0
    tokens: int = 0
    errors: int = 0
    last_error: str = ""

    def add(self, answer: Answer, texts: int, tokens: int) -> None:
        """Count an answer. An error is counted and never timed: a fast failure is no speed."""
        if answer.error:
            self.errors += 1
            self.last_error = answer.error
            return
        self.latencies_ms.append(round(answer.seconds * 1e3, 4))  # beyond that it is the clock's noise
        self.texts += texts
        self.tokens += tokens


@dataclass(frozen=True, slots=True)
class Answer:
    """How one request went."""

    seconds: float
    error: str = ""


def send(target: Target, texts: Sequence[str], now: Callable[[], float]) -> Answer:
    """One request, timed. An answer that cannot be right is an error as well as one that does not come."""
    started = now()
    try:
        result = target.embed(texts, len(texts))
    except BackendError as error:
        return Answer(now() - started, error.what)
    seconds = now() - started
    return Answer(seconds, fault(result, len(texts)))


def fault(result: EmbedResult, texts: int) -> str:
    """What is wrong with an answer to `texts` texts; empty if nothing is."""
    import numpy as np

    if result.failures:
        return f"text {result.failures[0].index}: {result.failures[0].what}"
    if len(result.vectors) != texts:
        return f"{len(result.vectors)} vectors for {texts} texts"
    if result.truncated:
        return f"text {result.truncated[0]} was cut"
    return "" if np.isfinite(result.vectors).all() else "a vector is not finite"


def tokens_of(texts: Sequence[str], count: TokenCounter | None) -> int:
    return count(texts) if count is not None else 0
