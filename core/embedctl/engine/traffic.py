"""Requests in flight and their latencies, per backend; and the gate that routes each one.

Routing and counting happen under one lock, so a switch can flip the active backend and then wait for
exactly the requests that still go to the old one: none is lost, none arrives after the drain.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from embedctl.errors import BackendTimeoutError
from embedctl.metrics import BACKENDS
from embedctl.records import BackendName

WINDOW = 60.0
"""Seconds of recent requests that p50 and p95 are taken from; a probe is shown as long."""
RATE_WINDOW = 10.0
"""Seconds of recent requests that texts/s is taken from."""
_KEPT = 4096
"""Requests kept per backend: at higher rates the window is shorter, never the memory larger."""


@dataclass(slots=True)
class _Finished:
    at: float
    milliseconds: float
    texts: int


def percentile(ordered: list[float], share: float) -> float:
    """The nearest-rank percentile of an ascending, non-empty list: always a value that was measured."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Traffic:
    """Routes requests to the active backend and remembers how long they took."""

    def __init__(self, active: BackendName, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._active = active
        self._held = False
        self._in_flight = dict.fromkeys(BACKENDS, 0)
        self._finished: dict[str, deque[_Finished]] = {name: deque(maxlen=_KEPT) for name in BACKENDS}
        self._probes: dict[str, tuple[float, float]] = {}

    @property
    def active(self) -> BackendName:
        return self._active

    def flip(self, active: BackendName) -> None:
        """Requests that come from now on go to `active`."""
        with self._changed:
            self._active = active

    def in_flight(self, backend: BackendName) -> int:
        return self._in_flight[backend]

    @contextmanager
    def held(self) -> Iterator[None]:
        """While inside, new requests for the active backend wait (a switch of what does not fit beside)."""
        with self._changed:
            self._held = True
        try:
            yield
        finally:
            with self._changed:
                self._held = False
                self._changed.notify_all()

    @contextmanager
    def request(
        self, backend: BackendName | None, texts: int, timeout: float | None
    ) -> Iterator[BackendName]:
        """Route one request; inside, it counts as in flight. A failed request leaves no latency behind.

        Raises:
            BackendTimeoutError: A switch held requests for longer than `timeout` seconds.
        """
        started = self._monotonic()
        with self._changed:
            if backend is None and not self._changed.wait_for(lambda: not self._held, timeout):
                raise BackendTimeoutError(
                    "The request was not started",
                    why=f"a switch held new requests for more than {timeout:g} s",
                    remedy="try again, or allow a longer timeout",
                )
            name = backend or self._active
            self._in_flight[name] += 1
        finished: _Finished | None = None
        try:
            yield name
            ended = self._monotonic()
            finished = _Finished(ended, (ended - started) * 1e3, texts)
        finally:
            with self._changed:
                self._in_flight[name] -= 1
                if finished:
                    self._finished[name].append(finished)
                self._changed.notify_all()

    def drained(self, backend: BackendName, timeout: float) -> bool:
        """Wait until nothing is in flight to `backend`; false if that takes longer than `timeout`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._in_flight[backend] == 0, timeout)

    def record_probe(self, backend: BackendName, milliseconds: float) -> None:
        with self._changed:
            self._probes[backend] = (self._monotonic(), milliseconds)

    def idle_for(self, backend: BackendName) -> float:
        """Seconds since the last request to `backend` ended; infinite if there was none."""
        with self._changed:
            finished = self._finished[backend]
            return self._monotonic() - finished[-1].at if finished else math.inf

    def figures(self) -> dict[str, float]:
        """The traffic metrics of `embedctl.metrics` as of now; what has no recent request is left out."""
        with self._changed:
            now = self._monotonic()
            finished = {
                name: [e for e in kept if now - e.at <= WINDOW] for name, kept in self._finished.items()
            }
            probes = {name: ms for name, (at, ms) in self._probes.items() if now - at <= WINDOW}
        values = {f"{name}_probe": milliseconds for name, milliseconds in probes.items()}
        for name, recent in finished.items():
            if not recent:
                continue
            ordered = sorted(entry.milliseconds for entry in recent)
            values[f"{name}_p50"] = percentile(ordered, 0.50)
            values[f"{name}_p95"] = percentile(ordered, 0.95)
            lately = [entry for entry in recent if now - entry.at <= RATE_WINDOW]
            values[f"{name}_rate"] = sum(entry.texts for entry in lately) / RATE_WINDOW
        return values
