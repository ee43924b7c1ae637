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

from embedctl.engine.deadline import Deadline
from embedctl.errors import BackendError, BackendTimeoutError, InvalidTextError
from embedctl.metrics import BACKENDS
from embedctl.progress import CancelToken
from embedctl.records import BackendName

WINDOW = 60.0
"""Seconds of recent requests that p50 and p95 are taken from; a probe is shown as long."""
RATE_WINDOW = 10.0
"""Seconds of recent requests that texts/s is taken from."""
_KEPT = 4096
"""Requests kept per backend: at higher rates the window is shorter, never the memory larger."""


@dataclass(slots=True)
class Ticket:
    """One request in flight."""

    backend: BackendName
    started: float
    """When it came, by the traffic's clock: what it waits at the gate counts in its latency."""
    cold: bool = False
    """It waited for a load: its texts count, its latency would say nothing of the backend's speed."""


@dataclass(frozen=True, slots=True)
class _Finished:
    at: float
    milliseconds: float | None
    """None for a cold request."""
    texts: int


@dataclass(frozen=True, slots=True)
class Pulse:
    """What live requests say of a backend's health."""

    in_flight: int
    """Requests that it works on; those that wait for its load are not among them."""
    silent_for: float
    """Seconds that requests have been in flight without one ending; 0 when none is in flight."""
    answered_ago: float
    """Seconds since a request was answered; infinite if none was."""
    failures: int
    """Requests that failed since the last answer."""
    failed_with: str
    """What the last of them said; empty when there is none."""


def percentile(ordered: list[float], share: float) -> float:
    """The nearest-rank percentile of an ascending, non-empty list: always a value that was measured."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class _Lane:
    """One backend's requests. Guarded by the traffic's lock."""

    def __init__(self) -> None:
        self.tickets: dict[int, Ticket] = {}
        self.finished: deque[_Finished] = deque(maxlen=_KEPT)
        self.ended = -math.inf
        self.answered = -math.inf
        self.failures = 0
        self.failed_with = ""
        self.probe: tuple[float, float] | None = None


class Traffic:
    """Routes requests to the active backend and remembers how long they took."""

    def __init__(self, active: BackendName, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._active = active
        self._held: list[BackendName] = []
        """Backends at whose gate requests wait; one that is held twice stands here twice."""
        self._lanes = {name: _Lane() for name in BACKENDS}

    @property
    def active(self) -> BackendName:
        return self._active

    def flip(self, active: BackendName) -> None:
        """Requests that come from now on go to `active`."""
        with self._changed:
            self._active = active
            self._changed.notify_all()

    def in_flight(self, backend: BackendName) -> int:
        return len(self._lanes[backend].tickets)

    @contextmanager
    def held(self, *backends: BackendName) -> Iterator[None]:
        """While inside, new requests that would go to one of `backends` wait."""
        with self._changed:
            self._held.extend(backends)
        try:
            yield
        finally:
            self._release(backends)

    @contextmanager
    def idle(self, backend: BackendName, timeout: float, cancel: CancelToken | None = None) -> Iterator[bool]:
        """Wait until nothing is in flight to `backend`, and hold what comes then.

        Gives false after `timeout` seconds or once cancelled. Nothing is held while it waits: a backend that
        is in use stays in use.
        """
        if cancel is not None:
            cancel.on_cancel(self._wake)
        with self._changed:
            empty = self._empty_within(backend, timeout, cancel)
            held = (backend,) if empty else ()
            self._held.extend(held)
        try:
            yield empty
        finally:
            self._release(held)

    def drained(self, backend: BackendName, timeout: float, cancel: CancelToken | None = None) -> bool:
        """Wait until nothing is in flight to `backend`; false after `timeout` seconds or once cancelled."""
        if cancel is not None:
            cancel.on_cancel(self._wake)
        with self._changed:
            return self._empty_within(backend, timeout, cancel)

    @contextmanager
    def request(
        self,
        backend: BackendName | None,
        texts: int,
        deadline: Deadline,
        cancel: CancelToken | None = None,
    ) -> Iterator[Ticket]:
        """Route one request; inside, it counts as in flight. A failed request leaves no latency behind.

        Raises:
            BackendTimeoutError: A switch held the request until its deadline.
            Cancelled: `cancel` was set while it was held.
        """
        started = self._monotonic()
        ticket = self._admit(backend, started, deadline, cancel)
        lane = self._lanes[ticket.backend]
        fault: BackendError | None = None
        answered = False
        try:
            yield ticket
            answered = True
        except InvalidTextError:  # the caller's fault says nothing of the backend
            raise
        except BackendError as error:
            fault = error
            raise
        finally:
            with self._changed:
                now = self._monotonic()
                del lane.tickets[id(ticket)]
                lane.ended = now
                if answered:
                    took = None if ticket.cold else (now - started) * 1e3
                    lane.finished.append(_Finished(now, took, texts))
                    lane.answered, lane.failures, lane.failed_with = now, 0, ""
                elif fault is not None and not ticket.cold:
                    lane.failures += 1
                    lane.failed_with = fault.what
                self._changed.notify_all()

    def record_probe(self, backend: BackendName, milliseconds: float) -> None:
        with self._changed:
            self._lanes[backend].probe = (self._monotonic(), milliseconds)

    def idle_for(self, backend: BackendName) -> float:
        """Seconds since the last request to `backend` was answered; infinite if there was none."""
        with self._changed:
            return self._monotonic() - self._lanes[backend].answered

    def pulse(self, backend: BackendName) -> Pulse:
        with self._changed:
            lane, now = self._lanes[backend], self._monotonic()
            working = [ticket.started for ticket in lane.tickets.values() if not ticket.cold]
            silent = now - max(min(working), lane.ended) if working else 0.0
            return Pulse(len(working), silent, now - lane.answered, lane.failures, lane.failed_with)

    def figures(self) -> dict[str, float]:
        """The traffic metrics of `embedctl.metrics` as of now; what has no recent request is left out."""
        with self._changed:
            now = self._monotonic()
            finished = {
                name: [e for e in lane.finished if now - e.at <= WINDOW] for name, lane in self._lanes.items()
            }
            probes = {name: lane.probe for name, lane in self._lanes.items() if lane.probe is not None}
        values = {f"{name}_probe": took for name, (at, took) in probes.items() if now - at <= WINDOW}
        for name, recent in finished.items():
            if not recent:
                continue
            ordered = sorted(entry.milliseconds for entry in recent if entry.milliseconds is not None)
            if ordered:
                values[f"{name}_p50"] = percentile(ordered, 0.50)
                values[f"{name}_p95"] = percentile(ordered, 0.95)
            lately = [entry for entry in recent if now - entry.at <= RATE_WINDOW]
            values[f"{name}_rate"] = sum(entry.texts for entry in lately) / RATE_WINDOW
        return values

    # Inside ---

    def _admit(
        self, backend: BackendName | None, started: float, deadline: Deadline, cancel: CancelToken | None
    ) -> Ticket:
        with self._changed:
            if (backend or self._active) in self._held:
                self._wait_at_the_gate(backend, deadline, cancel)
            ticket = Ticket(backend or self._active, started)
            self._lanes[ticket.backend].tickets[id(ticket)] = ticket
            return ticket

    def _wait_at_the_gate(
        self, backend: BackendName | None, deadline: Deadline, cancel: CancelToken | None
    ) -> None:
        if cancel is not None:
            cancel.on_cancel(self._wake)

        def may_go() -> bool:
            return (cancel is not None and cancel.cancelled) or (backend or self._active) not in self._held

        if not self._changed.wait_for(may_go, deadline.left()):
            raise BackendTimeoutError(
                "The request was not started",
                why=f"a switch held new requests for more than {deadline.seconds:g} s",
                remedy="try again, or allow a longer timeout",
            )
        if cancel is not None:
            cancel.raise_if_cancelled()

    def _empty_within(self, backend: BackendName, timeout: float, cancel: CancelToken | None) -> bool:
        tickets = self._lanes[backend].tickets

        def over() -> bool:
            return not tickets or (cancel is not None and cancel.cancelled)

        return self._changed.wait_for(over, timeout) and not tickets

    def _release(self, backends: tuple[BackendName, ...]) -> None:
        with self._changed:
            for backend in backends:
                self._held.remove(backend)
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
