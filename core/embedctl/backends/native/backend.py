"""The native backend: sentence-transformers in a worker process of its own.

This process never imports torch. A stop gives back all of the worker's memory, its CUDA context too; a crash
costs the requests under way, is told to their callers, and the worker is started again with growing pauses.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from embedctl.backends.base import EmbedRequest
from embedctl.backends.native.content import content_hash
from embedctl.backends.native.needs import Needs
from embedctl.backends.native.restarts import After, Restarts, start_timer
from embedctl.backends.native.status import NAME, Known, Records, is_local, not_serving, pids_of
from embedctl.backends.native.upkeep import MemoryNews
from embedctl.errors import (
    BackendNotLoadedError,
    BackendUnavailableError,
    CanaryError,
    Cancelled,
    EmbedctlError,
    ModelMissingError,
    WorkerCrashedError,
)
from embedctl.progress import CancelToken, Progress, silent
from embedctl.records import (
    BackendState,
    BackendStatus,
    EmbedResult,
    Event,
    Fingerprint,
    LoadReport,
    Preflight,
    Severity,
    TuneReport,
)
from embedctl.worker.client import WorkerClient
from embedctl.worker.process import WorkerExit
from embedctl.worker.protocol import WorkerMemory, WorkerReady

if TYPE_CHECKING:
    from embedctl.settings import ModelSettings, NativeSettings


_RESTART_REMEDY: Final = "look at the worker's log; load it again by hand"


class NativeBackend:
    """See `Backend`. Safe to use from any thread.

    Args:
        settings: How the worker loads and embeds.
        model: Which model it serves, for status and fingerprint.
        folder: The model's folder, or None while the model is not (completely) on disk.
        log_dir: Where the worker's log goes.
        budgets_file: Where measured token budgets are kept; None: nowhere.
        references: Where complete loads leave what quicker ones need; None: nowhere.
        memory_floor: Bytes of a shared pool that batches leave free; None: the worker's own default.
        on_change: Gets the status whenever the state changes, on the thread that changed it.
        on_event: Gets the crashes and restarts.
        admitted: Entered for each restart, with its token; raises where there is not the memory for it.
        clock: Unix seconds.
        after: Starts the timer of a restart.
    """

    def __init__(
        self,
        settings: NativeSettings,
        model: ModelSettings,
        *,
        folder: Callable[[], Path | None],
        log_dir: Path,
        budgets_file: Path | None = None,
        references: Path | None = None,
        memory_floor: int | None = None,
        on_change: Callable[[BackendStatus], None] | None = None,
        on_event: Callable[[Event], None] | None = None,
        admitted: Callable[[CancelToken], AbstractContextManager[object]] = lambda _: (
            contextlib.nullcontext()
        ),
        clock: Callable[[], float] = time.time,
        after: After = start_timer,
    ) -> None:
        self._settings = settings
        self._model = model
        self._needs = Needs(
            settings,
            model,
            folder=folder,
            budgets_file=budgets_file,
            references=references,
            memory_floor=memory_floor,
        )
        self._log_file = log_dir / "native-worker.log"
        self._on_change = on_change
        self._on_event = on_event
        self._admitted = admitted
        self._clock = clock
        self._restarts = Restarts(self._start_again, after=after)
        self._changing = threading.RLock()
        """Held for the whole of a load, a restart or an unload."""
        self._looking = threading.Lock()
        self._lock = threading.Lock()
        """Guards the fields below, for moments only."""
        self._records = Records(model, settings)
        self._memory_news = MemoryNews(self._keep_memory)
        self._known = Known()
        self._client: WorkerClient | None = None
        self._closed = False

    @property
    def name(self) -> str:
        return NAME

    # What is known

    def status(self) -> BackendStatus:
        with self._lock:
            known, pid = self._known, self._pid()
        return self._records.status(known, pid)

    def pids(self) -> frozenset[int]:
        with self._lock:
            return pids_of(self._pid(), self._known.memory)

    def fingerprint(self) -> Fingerprint:
        return self._records.fingerprint(self._known)

    def refresh(self) -> BackendStatus:
        with self._lock:
            client, state = self._client, self._known.state
        if client is not None and state is BackendState.READY:
            with contextlib.suppress(EmbedctlError):  # a worker that has just died says so by itself
                self._keep_memory(client.memory(timeout=2.0))
        else:
            with self._looking:  # a second look at the same time waits: what was known before is no answer
                # Not free: a load or unload is under way and tells the state.
                if self._changing.acquire(blocking=False):
                    try:
                        self._look()
                    finally:
                        self._changing.release()
        return self.status()

    def preflight(self) -> Preflight:
        ready = self._known.ready
        return self._needs.preflight(ready.device if ready else None)

    # Load and unload

    def load(self, progress: Progress, cancel: CancelToken) -> LoadReport:
        wait_alone = cancel.on_cancel(self._restarts.forget)  # a restart that runs is waited for, not undone
        with self._changing:
            wait_alone()
            restarting = self._restarts.take_over()
            with self._lock:
                client, ready = self._client, self._known.ready
            if client is not None and client.alive and ready is not None:
                return self._check(client, ready, progress)
            try:
                return self._start(progress, cancel)
            except Cancelled:
                raise
            except EmbedctlError as error:
                if restarting:  # else nothing would be tried until somebody asks again
                    self._plan_restart(error.sentence)
                raise

    def unload(self) -> None:
        self._restarts.forget()
        with self._changing:
            self._restarts.forget()  # a load that failed meanwhile may have left one due
            with self._lock:
                client = self._client
            if client is not None:
                self._enter(BackendState.UNLOADING, "the worker is being stopped")
                client.stop()
            self._let_go()
            if self._known.state in (BackendState.UNLOADING, BackendState.FAILED):
                self._enter(BackendState.UNLOADED)

    def close(self) -> None:
        self._restarts.forget()
        with self._lock:
            self._closed = True
            client = self._client
        if client is not None and self._known.state is not BackendState.READY:
            client.kill()  # a load that is under way fails, and its thread lets go of `_changing`
        self.unload()

    # Embedding

    def embed(self, request: EmbedRequest) -> EmbedResult:
        client = self._serving()
        started = time.perf_counter()
        answer = client.embed(
            request.texts,
            batch_size=request.batch_size,
            normalize=request.normalize,
            timeout=request.timeout if request.timeout is not None else self._settings.request_timeout_s,
            cancel=request.cancel,
        )
        seconds = time.perf_counter() - started
        self._memory_news.ask(client)
        return EmbedResult(
            vectors=answer.vectors,
            backend=NAME,
            tokens=answer.tokens,
            truncated=answer.truncated,
            failures=answer.failures,
            seconds=seconds,
            notes=answer.notes,
        )

    def tune(self, progress: Progress, cancel: CancelToken) -> TuneReport:
        """Measure the token budget on the loaded model, and keep it for the next load. [slow]

        Raises:
            BackendNotLoadedError: It is not loaded.
            UsageError: The loaded model has no token budget.
            Cancelled: `cancel` was set.
            BackendError: The worker could not do it.
        """
        client = self._serving()
        progress("measuring token budgets")
        return client.tune(cancel)

    def _serving(self) -> WorkerClient:
        with self._lock:
            client, known = self._client, self._known
        if client is None or known.state is not BackendState.READY:
            raise not_serving(known, restarting=self._restarts.pending)
        return client

    # Within a change

    def _check(self, client: WorkerClient, ready: WorkerReady, progress: Progress) -> LoadReport:
        """Loading what is loaded: the canary again."""
        started = time.perf_counter()
        progress("canary")
        report = client.canary(timeout=self._settings.request_timeout_s)
        if not report.passed:
            raise CanaryError(
                "The loaded model gives wrong vectors",
                why=report.detail,
                remedy="unload it and load it again; then look at `embedctl doctor`",
            )
        return LoadReport(NAME, time.perf_counter() - started, report, ("was loaded already", *ready.notes))

    def _start(self, progress: Progress, cancel: CancelToken) -> LoadReport:
        """Start a worker. The state afterwards is READY, or says why not."""
        started = time.perf_counter()
        folder = self._require_folder()
        client = WorkerClient(
            self._needs.options(folder),
            log_file=self._log_file,
            on_exit=lambda end: self._worker_ended(client, end),
        )
        with self._lock:
            if self._closed:
                raise BackendNotLoadedError("The native backend was closed")
            self._client = client
        self._enter(BackendState.LOADING, "the worker is loading the model")
        try:
            ready = client.start(progress, cancel, timeout=self._settings.load_timeout_s)
            self._serve(client, ready, folder)
        except EmbedctlError as error:
            self._let_go()
            if isinstance(error, Cancelled):
                self._enter(BackendState.UNLOADED)
            else:
                self._enter(BackendState.FAILED, error.sentence, error.remedy)
            raise
        return LoadReport(NAME, time.perf_counter() - started, ready.canary, ready.notes, ready.way)

    def _serve(self, client: WorkerClient, ready: WorkerReady, folder: Path) -> None:
        content = content_hash(folder) if is_local(self._model) else None
        with self._lock:
            if not client.alive:  # its end was not an accident of a serving worker: `_worker_ended` left it
                raise WorkerCrashedError(
                    "The native worker ended just after it had loaded",
                    remedy="look at its log; then try again",
                )
            self._known = Known(
                BackendState.READY,
                ready=ready,
                folder=folder,
                content=content,
                ready_since=self._clock(),
                memory=ready.memory,
            )
        self._tell()

    def _let_go(self) -> None:
        with self._lock:
            self._client = None
            self._known = Known(self._known.state, self._known.detail, self._known.remedy)

    # The worker's end, and its restart

    def _worker_ended(self, client: WorkerClient, end: WorkerExit) -> None:
        """On the worker's thread: a worker that was serving is gone."""
        why = f"the worker ended: {end.cause}"
        with self._lock:
            known = self._known
            if client is not self._client or known.state is not BackendState.READY:
                return
            # In one step: a request that comes now finds it failed and waits for its restart. Were it still
            # ready, the request would fail, though it was never under way.
            self._client = None
            self._known = Known(BackendState.FAILED, why, _RESTART_REMEDY)
        served = self._clock() - (known.ready_since or 0.0)
        self._restarts.stayed_up(served)
        log = {"log": list(end.log_tail)}
        self._plan_restart(why, lambda: self._record(f"native worker {end.cause}", Severity.ERROR, log))

    def _plan_restart(self, why: str, tell_cause: Callable[[], None] = lambda: None) -> None:
        """`tell_cause` is called once the timer runs: it may take long."""
        with self._lock:
            wanted = not self._closed and self._client is None  # else somebody loads it already
            if wanted:
                # Before the timer starts: an attempt that finds another state is not wanted any more.
                self._known = replace(
                    self._known, state=BackendState.FAILED, detail=why, remedy=_RESTART_REMEDY
                )
        attempt = self._restarts.schedule() if wanted else None
        tell_cause()
        if attempt is not None:
            self._enter_failed(f"{why}; {attempt}")
        elif wanted:
            given_up = f"given up after {self._restarts.made} restarts"
            self._record(f"native worker {given_up}", Severity.ERROR, {"why": why})
            self._enter_failed(f"{why}; {given_up}")

    def _enter_failed(self, why: str) -> None:
        """Say why it is down, unless it is being loaded meanwhile."""
        with self._lock:
            if self._known.state is not BackendState.FAILED or self._client is not None:
                return
            self._known = replace(self._known, detail=why)
        self._tell()

    def _start_again(self, cancel: CancelToken) -> None:
        """One attempt, on the timer's thread."""
        try:
            with self._admitted(cancel), self._changing:  # in the order of a load that is asked for
                if cancel.cancelled:
                    return
                if self._known.state is not BackendState.FAILED:  # the model's files are gone, say
                    self._restarts.settled()
                    return
                report = self._start(silent, cancel)
                self._restarts.settled()
        except Cancelled:
            return
        except EmbedctlError as error:  # not let in, or not started
            with self._changing:
                if not cancel.cancelled:
                    self._plan_restart(error.sentence)
            return
        detail = {"attempt": self._restarts.made, "seconds": round(report.seconds, 3)}
        self._record("native worker restarted", Severity.INFO, detail)

    # Small parts

    def _look(self) -> None:
        """Say whether a load could work, without hiding why the last one failed."""
        if self._known.state is BackendState.READY:
            return
        with contextlib.suppress(ModelMissingError, BackendUnavailableError):
            self._require_folder()
            if self._known.state is not BackendState.FAILED:
                self._enter(BackendState.UNLOADED)

    def _require_folder(self) -> Path:
        """The model's folder; where there is none to load, the state says so too."""
        try:
            return self._needs.folder()
        except ModelMissingError as error:
            self._enter(BackendState.MODEL_MISSING, error.what, error.remedy)
            raise
        except BackendUnavailableError as error:
            self._enter(BackendState.UNAVAILABLE, error.what, error.remedy)
            raise

    def _pid(self) -> int | None:
        return self._client.pid if self._client is not None else None

    def _keep_memory(self, memory: WorkerMemory) -> None:
        with self._lock:
            if self._client is not None:
                self._known = replace(self._known, memory=memory)

    def _enter(self, state: BackendState, detail: str = "", remedy: str = "") -> None:
        with self._lock:
            before = self._known
            self._known = replace(before, state=state, detail=detail, remedy=remedy)
            if self._known == before:
                return
        self._tell()

    def _tell(self) -> None:
        if self._on_change is not None:
            self._on_change(self.status())

    def _record(self, title: str, severity: Severity, detail: Mapping[str, object]) -> None:
        if self._on_event is not None:
            kind = "error" if severity is Severity.ERROR else "load"
            self._on_event(Event(self._clock(), kind, title, NAME, severity, detail))
