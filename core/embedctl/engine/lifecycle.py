"""Loading and unloading backends: one at a time each, only into memory that is there, always recorded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from embedctl.backends.base import Backend
from embedctl.engine.journal import Journal
from embedctl.engine.memory import GIB, Room
from embedctl.engine.traffic import Traffic
from embedctl.errors import BackendError, BackendOutOfMemoryError, Cancelled, EmbedctlError, UsageError
from embedctl.progress import CancelToken, Progress, silent
from embedctl.records import BackendName, BackendState, LoadReport, Severity


class Lifecycle:
    """Brings the engine's backends up and down."""

    def __init__(
        self,
        backends: Mapping[BackendName, Backend],
        traffic: Traffic,
        room: Callable[[], Room],
        journal: Journal,
        *,
        drain_timeout: float,
    ) -> None:
        self._backends = backends
        self._traffic = traffic
        self._room = room
        self._journal = journal
        self._drain_timeout = drain_timeout
        self._locks = {name: threading.RLock() for name in backends}
        self._admission = threading.Lock()
        """Held from the look at the memory to the end of a load: two loads must not count the same bytes."""
        self._ours: set[BackendName] = set()

    def backend(self, name: BackendName) -> Backend:
        """The backend of that name.

        Raises:
            UsageError: There is none.
        """
        try:
            return self._backends[name]
        except KeyError:
            raise UsageError(
                f"There is no backend {name!r}",
                why="it is none of those that embedctl knows",
                remedy=f"use {' or '.join(self._backends)}",
            ) from None

    def ours(self, name: BackendName) -> bool:
        """Whether this engine loaded the backend and has not unloaded it since."""
        return name in self._ours

    def ready(self, name: BackendName) -> bool:
        return self.backend(name).status().state is BackendState.READY

    def load(self, name: BackendName, progress: Progress, cancel: CancelToken) -> LoadReport:
        """Load a backend and check its vectors; checks again if it is loaded.

        Raises:
            BackendOutOfMemoryError: It would not leave the memory floor free; nothing was tried.
            BackendError: It could not be loaded.
            Cancelled: `cancel` was set.
        """
        backend = self.backend(name)
        with self._locks[name]:
            was_ready = self.ready(name)
            try:
                if was_ready:
                    return backend.load(progress, cancel)
                progress("preflight")
                with self._admitted(name, backend, cancel):
                    report = backend.load(progress, cancel)
            except Cancelled:
                raise
            except EmbedctlError as error:
                self._journal.add_failure(f"loading {name} failed", error, name, during="load")
                raise
            self._ours.add(name)
            self._journal.add(
                "load",
                f"{name} loaded in {report.seconds:.1f} s",
                name,
                Severity.WARNING if report.notes else Severity.OK,
                {
                    "seconds": report.seconds,
                    "notes": list(report.notes),
                    "least_cosine": report.canary.least_cosine if report.canary else None,
                },
            )
            return report

    def ensure_ready(self, name: BackendName) -> None:
        """Load the backend unless it is loaded; callers that arrive meanwhile wait for the one load."""
        if self.ready(name):
            return
        with self._locks[name]:
            if not self.ready(name):
                self.load(name, silent, CancelToken())

    def unload(self, name: BackendName) -> None:
        """Give the backend's memory back, whatever runs on it."""
        backend = self.backend(name)
        with self._locks[name]:
            had_memory = self.ready(name)
            backend.unload()
            self._ours.discard(name)
            if had_memory:
                self._journal.add("unload", f"{name} unloaded", name)

    def unload_when_idle(self, name: BackendName) -> None:
        """Unload once the requests in flight have their answers.

        Raises:
            BackendError: Requests still run after the drain time-out; the backend stays loaded.
        """
        if not self._traffic.drained(name, self._drain_timeout):
            raise BackendError(
                f"{name} was not unloaded",
                why=f"{self._traffic.in_flight(name)} requests still run after {self._drain_timeout:g} s",
                remedy="try when there is less load, or raise engine.drain_timeout_s",
            )
        self.unload(name)

    @contextmanager
    def _admitted(self, name: BackendName, backend: Backend, cancel: CancelToken) -> Iterator[None]:
        while not self._admission.acquire(timeout=0.2):
            cancel.raise_if_cancelled()
        try:
            self._admit(name, backend.preflight().expected_bytes)
            yield
        finally:
            self._admission.release()

    def _admit(self, name: BackendName, expected: int | None) -> None:
        room = self._room()
        if room.fits(expected) is False and expected is not None and room.available is not None:
            raise BackendOutOfMemoryError(
                f"{name} was not loaded: too little memory",
                why=f"it needs about {expected / GIB:.1f} GiB, {room.available / GIB:.1f} GiB are free "
                f"({room.source}), and {room.floor / GIB:.1f} GiB are kept free",
                remedy="end what else uses memory, unload a backend, or lower engine.memory_floor_gib",
            )
