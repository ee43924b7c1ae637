"""Loading and unloading backends: one at a time each, only into memory that is there, always recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Final

from embedctl.backends.base import Backend
from embedctl.engine.breaker import Breaker
from embedctl.engine.deadline import Deadline, wait_for
from embedctl.engine.journal import Journal
from embedctl.engine.memory import GIB, Room
from embedctl.engine.traffic import Traffic
from embedctl.errors import (
    BackendError,
    BackendNotLoadedError,
    BackendOutOfMemoryError,
    BackendTimeoutError,
    Cancelled,
    EmbedctlError,
    UsageError,
)
from embedctl.progress import CancelToken, Progress, silent
from embedctl.records import BackendName, BackendState, LoadReport, Severity

_LOOK_AGAIN_S: Final = 0.1
_CANCEL_EVERY_S: Final = 0.2
"""How often a wait for somebody else's load looks whether it was cancelled."""
IN_USE_S: Final = 60.0
"""A backend that answered a request within so many seconds is in use."""


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
        settle_timeout: float,
    ) -> None:
        self._backends = backends
        self._traffic = traffic
        self._room = room
        self._journal = journal
        self._drain_timeout = drain_timeout
        self._settle_timeout = settle_timeout
        self._unloaded = float("-inf")
        self.load_ended = float("-inf")
        """When the last load ended, by the monotonic clock: older figures of the memory are of no use."""
        self._locks = {name: threading.RLock() for name in backends}
        self._admission = threading.Lock()
        """Held from the look at the memory to the end of a load: two loads must not count the same bytes."""
        self._ours: set[BackendName] = set()
        self._wanted: dict[BackendName, tuple[Future[None], CancelToken]] = {}
        """Loads that requests wait for."""
        self._wanting = threading.Lock()
        self._breakers = {name: Breaker() for name in backends}
        self._closed = False

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
        with _held(self._locks[name], cancel):
            try:
                if self.ready(name):
                    return backend.load(progress, cancel)
                progress("preflight")
                with self.admitted(backend, cancel) as loaded:
                    report = backend.load(progress, cancel)
                if loaded:
                    return report
            except Cancelled:
                raise
            except EmbedctlError as error:
                self._journal.add_failure(f"loading {name} failed", error, name, during="load")
                raise
            self._ours.add(name)
            self._breakers[name].succeeded()
            self._journal.add(
                "load",
                f"{name} loaded in {report.seconds:.1f} s",
                name,
                Severity.WARNING if report.notes else Severity.OK,
                {
                    "seconds": report.seconds,
                    "way": report.way,
                    "notes": list(report.notes),
                    "least_cosine": report.canary.least_cosine if report.canary else None,
                },
            )
            return report

    def ensure_ready(self, name: BackendName, deadline: Deadline, cancel: CancelToken | None = None) -> None:
        """Load the backend unless it is loaded; callers that arrive meanwhile wait for the one load.

        The load goes on when a caller stops waiting: the next request finds it further. Where loads fail one
        after the other, a growing pause follows each, in which requests fail at once with its reason.

        Raises:
            BackendTimeoutError: The deadline passed first.
            Cancelled: `cancel` was set first.
            BackendError: It could not be loaded.
        """
        if self.ready(name):
            return
        try:
            wait_for(self._wanted_load(name), deadline, cancel)
        except TimeoutError:
            raise BackendTimeoutError(
                "The request was not started",
                why=f"{name} was not loaded within {deadline.seconds:g} s; its load goes on",
                remedy="try again in a moment, or allow a longer timeout",
            ) from None

    def close(self) -> None:
        """Cancel the loads that requests wait for; no new one begins."""
        with self._wanting:
            self._closed = True
            tokens = [token for _, token in self._wanted.values()]
        for token in tokens:
            token.cancel()

    def _wanted_load(self, name: BackendName) -> Future[None]:
        with self._wanting:
            if name in self._wanted:
                return self._wanted[name][0]
            if self._closed:
                raise BackendNotLoadedError(f"{name} is not loaded any more", why="embedctl is closing")
            if self.backend(name).status().state is BackendState.FAILED:  # what else is amiss costs no load
                self._breakers[name].raise_if_open()
            load, token = self._wanted[name] = (Future(), CancelToken())
        threading.Thread(
            target=self._load_for_requests, args=(name, load, token), name=f"load-{name}", daemon=True
        ).start()
        return load

    def _load_for_requests(self, name: BackendName, load: Future[None], token: CancelToken) -> None:
        failure: Exception | None = None
        try:
            with self._locks[name]:
                if not self.ready(name):
                    self.load(name, silent, token)
        except Cancelled:
            failure = BackendNotLoadedError(f"{name} was not loaded", why="embedctl is closing")
        except Exception as error:
            failure = error
            if isinstance(error, EmbedctlError):
                self._breakers[name].failed(error)
        with self._wanting:  # before it is told: who comes after it is not to be told of this one
            del self._wanted[name]
        if failure is not None:
            load.set_exception(failure)
        else:
            load.set_result(None)

    def unload(self, name: BackendName, cancel: CancelToken | None = None) -> None:
        """Give the backend's memory back, whatever runs on it.

        Raises:
            Cancelled: `cancel` was set while somebody else's load was waited for.
        """
        backend = self.backend(name)
        with _held(self._locks[name], cancel or CancelToken()):
            had_memory = self.ready(name)
            backend.unload()
            self._ours.discard(name)
            if had_memory:
                self._unloaded = time.monotonic()
                self._journal.add("unload", f"{name} unloaded", name)

    def unload_when_idle(self, name: BackendName, cancel: CancelToken | None = None) -> None:
        """Unload once the requests in flight have their answers.

        Raises:
            BackendError: Requests still run after the drain time-out; the backend stays loaded.
            Cancelled: `cancel` was set meanwhile.
        """
        cancel = cancel or CancelToken()
        with self._traffic.idle(name, self._drain_timeout, cancel) as idle:
            cancel.raise_if_cancelled()
            if not idle:
                raise BackendError(
                    f"{name} was not unloaded",
                    why=f"{self._traffic.in_flight(name)} requests still run after {self._drain_timeout:g} s",
                    remedy="try when there is less load, or raise engine.drain_timeout_s",
                )
            self.unload(name, cancel)

    @contextmanager
    def away(self, name: BackendName, progress: Progress) -> Iterator[None]:
        """A loaded backend unloaded for a while: its requests wait, and find it loaded again.

        Where it cannot be loaded again, the next request for it is told why.

        Raises:
            BackendError: It is in use; nothing was done.
        """
        unused = self._traffic.idle_for(name) >= IN_USE_S
        with self._traffic.idle(name, self._drain_timeout if unused else 0.0) as idle:
            if not (unused and idle):
                raise BackendError(
                    f"{name} was not unloaded for a while",
                    why="applications are using it, and their requests would have to wait",
                    remedy=f"try again when no request has come for {IN_USE_S:g} s",
                )
            self.unload(name)
            try:
                yield
            finally:
                with suppress(BackendError):  # the journal has it, and what was done meanwhile stands
                    self.load(name, progress, CancelToken())  # a cancel must not stop the way back

    @contextmanager
    def guest(self, backend: Backend, progress: Progress, cancel: CancelToken) -> Iterator[None]:
        """A backend that is none of the engine's, loaded for the time of the block and closed after it.

        Raises:
            BackendOutOfMemoryError: It would not leave the memory floor free; nothing was tried.
            BackendError: It could not be loaded.
            Cancelled: `cancel` was set.
        """
        try:
            with self.admitted(backend, cancel):
                backend.load(progress, cancel)
            yield
        finally:
            backend.close()
            self._unloaded = time.monotonic()

    @contextmanager
    def admitted(self, backend: Backend, cancel: CancelToken) -> Iterator[bool]:
        """While inside, nothing else is loaded, and there is the memory for this backend.

        Gives whether it has become loaded while it was waited for, as when its worker was just being started
        again: then its memory is not asked for a second time.

        Raises:
            BackendOutOfMemoryError: It would not leave the memory floor free.
            BackendError: It cannot be loaded.
            Cancelled: `cancel` was set while another load was waited for.
        """
        with _held(self._admission, cancel):
            try:
                loaded = backend.status().state is BackendState.READY
                if not loaded:
                    self._admit(backend.name, backend.preflight().expected_bytes, cancel)
                yield loaded
            finally:
                self.load_ended = time.monotonic()

    def _admit(self, name: BackendName, expected: int | None, cancel: CancelToken) -> None:
        """Refuse what does not fit; what was unloaded a moment ago has time to give its memory back first."""
        while True:
            room = self._room()
            if room.fits(expected) is not False or expected is None or room.available is None:
                return
            if time.monotonic() - self._unloaded >= self._settle_timeout:
                break
            cancel.wait(_LOOK_AGAIN_S)
            cancel.raise_if_cancelled()
        raise BackendOutOfMemoryError(
            f"{name} was not loaded: too little memory",
            why=f"it needs about {expected / GIB:.1f} GiB, {room.available / GIB:.1f} GiB are free "
            f"({room.source}), and {room.floor / GIB:.1f} GiB are kept free",
            remedy="end what else uses memory, unload a backend, or lower engine.memory_floor_gib",
        )


@contextmanager
def _held(lock: threading.Lock | threading.RLock, cancel: CancelToken) -> Iterator[None]:
    """Inside, the lock is held. Raises `Cancelled` when `cancel` is set before it is free."""
    while not lock.acquire(timeout=_CANCEL_EVERY_S):
        cancel.raise_if_cancelled()
    try:
        yield
    finally:
        lock.release()
