"""Looks after the backends in the background: what they say of themselves, and how fast they answer now."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from embedctl.backends.base import Backend, EmbedRequest
from embedctl.engine.traffic import Traffic
from embedctl.errors import BackendTimeoutError, EmbedctlError
from embedctl.health.judgement import FAILURES, SILENT_S, ProbeSeen, UsualLatency
from embedctl.records import BackendName, BackendState

log = logging.getLogger(__name__)

PROBE_TEXT = "How long does one short text take?"
PROBE_SECONDS = 10.0
REFRESH_EVERY = 5.0
"""Seconds between two looks at the backends: a server that went away is seen within this time."""


@dataclass(slots=True)
class _Record:
    """What the watch remembers of one backend between its looks."""

    loaded: float | None = None
    """Which load the figures below belong to: its `ready_since`."""
    usual: UsualLatency = field(default_factory=UsualLatency)
    began: float = float("-inf")
    """When the last probe was sent."""
    ended: float = float("-inf")
    probe: ProbeSeen | None = None
    loading_since: float | None = None


class BackendWatch:
    """A thread that refreshes every backend and probes the latency of those that this engine loaded.

    Only those are probed: a probe of a model that somebody else holds in Ollama would keep it in memory.
    A backend that answers requests needs no probe, one that lets them wait or fails them does; and nothing is
    probed while `quiet()` says that a measurement runs.
    """

    def __init__(
        self,
        backends: Iterable[Backend],
        traffic: Traffic,
        *,
        probe_every: float,
        ours: Callable[[BackendName], bool],
        quiet: Callable[[], bool],
        after_look: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`after_look` is called after each round."""
        self._backends = tuple(backends)
        self._traffic = traffic
        self._probe_every = probe_every
        self._ours = ours
        self._quiet = quiet
        self._after_look = after_look
        self._monotonic = monotonic
        self._records = {backend.name: _Record() for backend in self._backends}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="backend-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a probe under way may outlive this call by its own timeout."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def probe_seen(self, backend: BackendName) -> ProbeSeen | None:
        """The last probe since the backend was loaded."""
        record = self._records[backend]
        probe = record.probe
        return None if probe is None else replace(probe, ago=self._monotonic() - record.ended)

    def loading_for(self, backend: BackendName) -> float:
        """Seconds since the backend was first seen to load; 0 while it does not."""
        since = self._records[backend].loading_since
        return 0.0 if since is None else self._monotonic() - since

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except Exception:  # one bad round must not leave every later state unseen
                log.exception("a look at the backends failed")
            self._stop.wait(REFRESH_EVERY)

    def look(self) -> None:
        """One round: refresh everything, probe what is due."""
        for backend in self._backends:
            self._note(backend.name, backend.refresh().state, backend.status().ready_since)
        for backend in self._backends:
            if not self._stop.is_set() and self._due(backend):
                self._probe(backend)
        if not self._stop.is_set():
            self._after_look()

    def _note(self, name: BackendName, state: BackendState, ready_since: float | None) -> None:
        record = self._records[name]
        if ready_since != record.loaded:
            record.loaded, record.probe, record.usual = ready_since, None, UsualLatency()
        if state is not BackendState.LOADING:
            record.loading_since = None
        elif record.loading_since is None:
            record.loading_since = self._monotonic()

    def _due(self, backend: Backend) -> bool:
        if not self._probe_every or self._quiet() or not self._ours(backend.name):
            return False
        if backend.status().state is not BackendState.READY:
            return False
        since_probe = self._monotonic() - self._records[backend.name].began
        pulse = self._traffic.pulse(backend.name)
        if pulse.silent_for > SILENT_S or pulse.failures >= FAILURES:
            return since_probe >= self._probe_every
        if self._traffic.in_flight(backend.name):
            return False
        return min(since_probe, pulse.answered_ago) >= self._probe_every

    def _probe(self, backend: Backend) -> None:
        record = self._records[backend.name]
        record.began = started = self._monotonic()
        try:
            backend.embed(EmbedRequest([PROBE_TEXT], timeout=PROBE_SECONDS))
        except EmbedctlError as error:
            log.warning("the probe of %s failed: %s", backend.name, error)
            timed_out = isinstance(error, BackendTimeoutError)
            seen = ProbeSeen(0.0, None, timed_out=timed_out, failure=error.what)
        else:
            milliseconds = (self._monotonic() - started) * 1e3
            usual = record.usual.ms
            seen = ProbeSeen(0.0, milliseconds, usual_ms=usual, slow=record.usual.see(milliseconds))
            self._traffic.record_probe(backend.name, milliseconds)
        record.ended = self._monotonic()
        record.probe = seen
