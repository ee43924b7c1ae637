"""Looks after the backends in the background: what they say of themselves, and how fast they answer now."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from embedctl.backends.base import Backend, EmbedRequest
from embedctl.engine.traffic import Traffic
from embedctl.errors import EmbedctlError
from embedctl.records import BackendName, BackendState

log = logging.getLogger(__name__)

PROBE_TEXT = "How long does one short text take?"
REFRESH_EVERY = 5.0
"""Seconds between two looks at the backends: a server that went away is seen within this time."""


class BackendWatch:
    """A thread that refreshes every backend and probes the latency of those that this engine loaded.

    Only those are probed: a probe of a model that somebody else holds in Ollama would keep it in memory.
    A backend that answers requests needs no probe, and nothing is probed while `quiet()` says that a
    measurement runs.
    """

    def __init__(
        self,
        backends: Iterable[Backend],
        traffic: Traffic,
        *,
        probe_every: float,
        ours: Callable[[BackendName], bool],
        quiet: Callable[[], bool],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backends = tuple(backends)
        self._traffic = traffic
        self._probe_every = probe_every
        self._ours = ours
        self._quiet = quiet
        self._monotonic = monotonic
        self._probed: dict[BackendName, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="backend-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a probe under way may outlive this call by its own timeout."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

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
            backend.refresh()
        for backend in self._backends:
            if not self._stop.is_set() and self._due(backend):
                self._probe(backend)

    def _due(self, backend: Backend) -> bool:
        if not self._probe_every or self._quiet() or not self._ours(backend.name):
            return False
        if backend.status().state is not BackendState.READY or self._traffic.in_flight(backend.name):
            return False
        since_probe = self._monotonic() - self._probed.get(backend.name, float("-inf"))
        return min(since_probe, self._traffic.idle_for(backend.name)) >= self._probe_every

    def _probe(self, backend: Backend) -> None:
        started = self._monotonic()
        self._probed[backend.name] = started
        try:
            backend.embed(EmbedRequest([PROBE_TEXT], timeout=10.0))
        except EmbedctlError as error:
            log.warning("the probe of %s failed: %s", backend.name, error)
            return
        self._traffic.record_probe(backend.name, (self._monotonic() - started) * 1e3)
