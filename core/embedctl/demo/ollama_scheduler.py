"""Which model the demo's Ollama has, and when its runner starts and ends: Ollama's rules for one model.

A runner is loaded by the first request, loaded again when a request comes with other options, embeds one
text at a time, and ends when keep_alive has passed since the last request.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

DEFAULT_CONTEXT = 4096
DEFAULT_BATCH = 2048
"""llama-server is started with `-b min(2048, num_ctx)` unless the request sends num_batch."""
DEFAULT_KEEP_ALIVE = 300.0
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What is fixed about the model."""

    tag: str
    """With its `:latest`."""
    digest: str
    size: int
    blob: str
    """The path that a runner's command line would name."""
    dimension: int
    context_length: int
    architecture: str
    dtype: str
    info: Mapping[str, Any]
    """Further entries of `/api/show`'s model_info, without the architecture's prefix."""
    layers: tuple[tuple[str, int], ...]
    """Digest and size of each file that a pull fetches."""


@dataclass(frozen=True, slots=True)
class Embedded:
    vector: list[float]
    """As the model gives it, not normalised."""
    tokens: int
    truncated: bool


class Runner(Protocol):
    """A loaded model: the demo's `llama-server`."""

    def too_long(self, text: str) -> bool:
        """Whether `embed` would cut the text; counts its tokens and embeds nothing."""

    def embed(self, text: str) -> Embedded:
        """Embed one text, cut at the length limit that the runner was started with."""

    def close(self) -> None:
        """End it and give its memory back."""


StartRunner = Callable[[int], Runner]
"""Loads the model with a length limit in tokens."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options that a runner is started with; others reload it."""

    num_ctx: int
    num_batch: int

    @property
    def limit(self) -> int:
        return min(self.num_ctx, self.num_batch)


class Lease:
    """The runner for the time of one request."""

    def __init__(self, runner: Runner, one_text: threading.Lock, load_seconds: float) -> None:
        self.load_seconds = load_seconds
        self._runner = runner
        self._one_text = one_text

    def too_long(self, text: str) -> bool:
        return self._runner.too_long(text)

    def embed(self, text: str) -> Embedded:
        """One text at a time, whoever asks, as Ollama does it for embedding models."""
        with self._one_text:
            return self._runner.embed(text)


class Scheduler:
    """The runner's life. Thread-safe."""

    def __init__(
        self, model: ServedModel, start: StartRunner, clock: Callable[[], float] = time.time
    ) -> None:
        self.model = model
        self.present = True
        """Whether the model was pulled and not deleted."""
        self._start = start
        self._clock = clock
        self._idle = threading.Condition(threading.RLock())
        self._one_text = threading.Lock()
        self._runner: Runner | None = None
        self._options: Options | None = None
        self._users = 0
        self._expires_at: float | None = None
        self._timer: threading.Timer | None = None

    @property
    def loaded(self) -> tuple[Options, float] | None:
        """The runner's options and when it ends (infinite: never), if there is one."""
        with self._idle:
            if self._runner is None or self._options is None:
                return None
            return self._options, self._expires_at if self._expires_at is not None else float("inf")

    def options(self, given: Mapping[str, Any]) -> Options:
        num_ctx = min(int(given.get("num_ctx") or DEFAULT_CONTEXT), self.model.context_length)
        return Options(num_ctx, min(int(given.get("num_batch") or DEFAULT_BATCH), num_ctx))

    @contextmanager
    def lease(self, options: Options, keep_alive: float) -> Iterator[Lease]:
        """The runner with these options for one request; keep_alive in seconds counts from its end."""
        with self._idle:
            started = time.monotonic()
            while self._options != options and self._users:
                self._idle.wait()
            if self._options != options:
                self._end()
            if self._runner is None:
                self._runner = self._start(options.limit)
                self._options = options
            self._users += 1
            self._stop_timer()
            lease = Lease(self._runner, self._one_text, time.monotonic() - started)
        try:
            yield lease
        finally:
            with self._idle:
                self._users -= 1
                if not self._users:
                    self._keep(keep_alive)
                self._idle.notify_all()

    def unload(self) -> None:
        """End the runner once nobody uses it."""
        with self._idle:
            while self._users:
                self._idle.wait()
            self._end()

    def _keep(self, seconds: float) -> None:
        self._stop_timer()
        if seconds == 0:
            self._end()
            return
        self._expires_at = self._clock() + seconds if seconds > 0 else None
        if seconds > 0:
            self._timer = threading.Timer(seconds, self._expire)
            self._timer.daemon = True
            self._timer.start()

    def _expire(self) -> None:
        with self._idle:
            due = self._expires_at is not None and self._clock() >= self._expires_at - 0.01
            if due and not self._users:
                self._end()

    def _end(self) -> None:
        self._stop_timer()
        runner, self._runner = self._runner, None
        self._options = self._expires_at = None
        if runner is not None:
            runner.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def keep_alive_seconds(value: object) -> float:
    """Ollama's keep_alive: a Go duration as text, or a number of seconds; below 0: for ever.

    Raises:
        ValueError: It is neither, or a number written as text.
    """
    if value is None:
        return DEFAULT_KEEP_ALIVE
    if isinstance(value, int | float):
        return float(value)
    text = str(value)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text.lstrip("-"):
        raise ValueError(f'time: missing unit in duration "{text}"')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return -seconds if text.startswith("-") else seconds
