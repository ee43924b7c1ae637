"""The Ollama backend: somebody else's server, asked over its HTTP API.

embedctl did not start that server, and other programs may use it at the same time. So it unloads only the
configured model, and by itself (`close`, a failed load) only when it was this object that loaded it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from embedctl.backends.base import EmbedRequest
from embedctl.backends.ollama.host import find_host, is_local, port_of
from embedctl.backends.ollama.keep_alive import parse_keep_alive
from embedctl.backends.ollama.runner import ProcessTable, RunnerFinder
from embedctl.backends.ollama.status import Standing, fingerprint_of, load_notes, status_of, why_lost
from embedctl.backends.ollama.view import View, preflight_of
from embedctl.errors import (
    BackendError,
    BackendNotLoadedError,
    BackendUnavailableError,
    Cancelled,
    EmbedctlError,
    ModelMissingError,
)
from embedctl.progress import CancelToken, Progress
from embedctl.records import (
    BackendName,
    BackendState,
    BackendStatus,
    EmbedResult,
    Event,
    Fingerprint,
    LoadReport,
    Preflight,
    Severity,
)
from embedctl.settings import ModelSettings, OllamaSettings

if TYPE_CHECKING:
    from embedctl.backends.ollama.api import ModelApi

BATCH_SIZE = 32
"""Texts per request unless told otherwise. Ollama embeds a list one by one: more would only wait longer."""
UNLOAD_SECONDS = 30.0
CLOSE_SECONDS = 5.0
RELOADED_S = 0.2
"""From so much `load_duration` on, an answer waited for a load; for a loaded model it is milliseconds."""


class OllamaBackend:
    """`Backend` over an Ollama server. See `backends.base.Backend` for what each method promises.

    Args:
        settings: The server's address, keep_alive and length options.
        model: Its `ollama_tag` is the model served.
        on_change: Told each new status; called on the thread that caused it.
        on_event: Told what happened without being asked for, such as the end of keep_alive.
        clock: Unix seconds.
        expected_dimension: What the vectors must have; None: what the model's own metadata says.
        table: The operating system's processes, for tests.
        pause: Waits between two looks while unloading; for tests.

    Raises:
        SettingsError: The address or keep_alive is malformed.
    """

    def __init__(
        self,
        settings: OllamaSettings,
        model: ModelSettings,
        *,
        on_change: Callable[[BackendStatus], None] | None = None,
        on_event: Callable[[Event], None] | None = None,
        clock: Callable[[], float] = time.time,
        expected_dimension: int | None = None,
        table: ProcessTable | None = None,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self._settings = settings
        self._tag = model.ollama_tag
        self._url = find_host(settings.host)
        self._keep_alive = parse_keep_alive(settings.keep_alive)
        self._options = {"num_ctx": settings.num_ctx, "num_batch": settings.num_batch}
        self._on_change = on_change
        self._on_event = on_event
        self._clock = clock
        self._expected_dimension = expected_dimension
        self._finder = RunnerFinder(port_of(self._url), table) if is_local(self._url) else None
        self._closing = threading.Event()
        self._pause = pause or time.sleep
        self._lock = threading.RLock()
        """Guards the fields below; never held over a request."""
        self._action_lock = threading.Lock()
        """One load or unload at a time."""
        self._view = View()
        self._now = Standing(dimension=expected_dimension)
        self._actions = 0
        """Loads and unloads that have ended."""
        self._api: ModelApi | None = None
        self._status = self._describe()

    # What is known ---------------------------------------------------------------------------------------

    @property
    def name(self) -> BackendName:
        return "ollama"

    @property
    def url(self) -> str:
        """The server's base URL."""
        return self._url

    def status(self) -> BackendStatus:
        return self._status

    def pids(self) -> frozenset[int]:
        with self._lock:
            looked_for = self._now.loaded or self._now.phase is not None
            details = self._view.details
        if self._finder is None or not looked_for:
            return frozenset()
        return self._finder.find(details.blob if details else None).pids

    def fingerprint(self) -> Fingerprint:
        with self._lock:
            view, status = self._view, self._status
        return fingerprint_of(self._tag, view, status, self._options)

    def refresh(self) -> BackendStatus:
        with self._lock:
            before, actions = self._view, self._actions
            was_loaded = self._now.loaded
        view = self._look()
        lost = ""
        with self._lock:
            # What was seen while a load or unload ran says nothing about the state after it.
            resting = self._now.phase is None and self._actions == actions
            if resting and was_loaded:
                lost = why_lost(before, view, on_demand=self._keep_alive == 0)
            if lost:
                self._now.gone()
                self._now.dimension = self._expected_dimension
            elif resting and not self._now.loaded and view.running is not None and self._now.failure is None:
                self._now.loaded, self._now.ready_since = True, self._clock()
        if lost and self._finder is not None:
            self._finder.forget()
        if lost:
            self._tell("unload", f"Ollama no longer holds {self._tag}", lost)
        elif was_loaded and isinstance(view.error, BackendUnavailableError) and before.error is None:
            self._tell("error", view.error.what, view.error.why, Severity.ERROR)
        return self._publish()

    def preflight(self) -> Preflight:
        view = self._look()
        self._publish()
        if view.error is not None:
            raise view.error
        return preflight_of(view, self._settings)

    # Doing ------------------------------------------------------------------------------------------------

    def load(self, progress: Progress, cancel: CancelToken) -> LoadReport:
        with self._acting(BackendState.LOADING):
            cancel.raise_if_cancelled()
            progress("asking the server")
            started = time.monotonic()
            view = self._look()
            if view.error is not None:
                raise view.error
            with self._lock:
                self._now.ours = self._now.ours or view.running is None
            notes = load_notes(view, self._settings, on_demand=self._keep_alive == 0)
            api = self._the_api()
            connection = api.connect()
            cancel.on_cancel(connection.abort)
            try:
                progress(f"loading {self._tag} into Ollama")
                api.load(connection)
                cancel.raise_if_cancelled()
                progress("checking its vectors")
                canary = api.canary(connection, self._expected_dimension or view.dimension)
                cancel.raise_if_cancelled()
            except Exception as error:
                if cancel.cancelled:
                    self._undo_load(None)
                    raise Cancelled from None
                self._undo_load(error)
                raise
            finally:
                connection.close()
            with self._lock:
                self._now.loaded, self._now.failure = True, None
                self._now.dimension = canary.dimension
                self._now.ready_since = self._clock()
            if self._finder is not None:
                self._finder.find(view.details.blob if view.details else None, now=True)
        self.refresh()
        return LoadReport(self.name, time.monotonic() - started, canary, notes)

    def embed(self, request: EmbedRequest) -> EmbedResult:
        from embedctl.backends.ollama.embedding import check_texts

        with self._lock:
            loaded, failure, view = self._now.loaded, self._now.failure, self._view
            dimension = self._now.dimension or view.dimension
        if not loaded:
            raise BackendNotLoadedError(
                "The Ollama backend is not loaded",
                why=failure.what if failure else "",
                remedy="load it first: key l in the console, or `embedctl switch ollama`",
            )
        check_texts(request.texts)
        started = time.monotonic()
        api = self._the_api()
        try:
            outcome = api.embed(
                request.texts,
                seconds=self._settings.request_timeout_s if request.timeout is None else request.timeout,
                batch_size=request.batch_size or BATCH_SIZE,
                normalize=request.normalize,
                dimension=dimension,
                max_tokens=view.max_tokens(self._settings),
                cancel=request.cancel,
            )
        except ModelMissingError as error:
            self._model_gone(error)
            raise
        if outcome.longest_load >= RELOADED_S:
            # The tag may name other weights by now: whoever asks for the fingerprint next must learn of it.
            self._look()
            self._publish()
        return EmbedResult(
            vectors=outcome.vectors,
            backend=self.name,
            tokens=outcome.tokens,
            truncated=tuple(outcome.truncated),
            failures=tuple(outcome.failures),
            seconds=time.monotonic() - started,
            notes=tuple(outcome.notes),
            rescaled=tuple(outcome.rescaled),
        )

    def unload(self) -> None:
        """Have Ollama let go of the configured model, whoever loaded it; other models stay.

        Raises:
            BackendTimeoutError: The model is still loaded after `UNLOAD_SECONDS`.
        """
        with self._acting(BackendState.UNLOADING):
            self._unload(UNLOAD_SECONDS)
            with self._lock:
                self._now.failure = None
        self.refresh()

    def pull(self, progress: Progress, cancel: CancelToken) -> None:
        """Have the server fetch the model from Ollama's library. A cancelled pull can be resumed.

        Raises:
            ModelMissingError: The library has no such model.
            BackendError: The pull failed.
            Cancelled: `cancel` was set.
        """
        api = self._the_api()
        connection = api.connect()
        cancel.on_cancel(connection.abort)
        try:
            api.pull(connection, progress)
        except BackendError:
            if cancel.cancelled:
                raise Cancelled from None
            raise
        finally:
            connection.close()
            self.refresh()

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        with self._lock:
            api, ours = self._api, self._now.ours
            self._now.loaded = False
        if api is None:
            return
        api.close()
        if ours:
            with contextlib.suppress(EmbedctlError):
                self._unload(CLOSE_SECONDS)

    # Looking ----------------------------------------------------------------------------------------------

    def _look(self) -> View:
        with self._lock:
            before = self._view
        view = self._the_api().look(before)
        with self._lock:
            self._view = view
        return view

    def _describe(self) -> BackendStatus:
        sighting = self._finder.last if self._finder else None
        return status_of(self._tag, self._url, self._settings, self._view, self._now, sighting)

    def _publish(self) -> BackendStatus:
        with self._lock:
            status = self._describe()
            changed, self._status = status != self._status, status
        if changed and self._on_change is not None:
            self._on_change(status)
        return status

    # Parts of doing ---------------------------------------------------------------------------------------

    def _the_api(self) -> ModelApi:
        """Made on first use: it imports httpx, which the console's start does without."""
        from embedctl.backends.ollama.api import ModelApi

        with self._lock:
            if self._api is None:
                self._api = ModelApi(
                    self._url,
                    self._tag,
                    options=self._options,
                    keep_alive=self._keep_alive,
                    request_seconds=self._settings.request_timeout_s,
                )
            return self._api

    def _undo_load(self, error: Exception | None) -> None:
        """After a failed load, or a cancelled one (no error): nothing of ours stays loaded."""
        with self._lock:
            self._now.loaded = False
            self._now.ready_since = None
            self._now.failure = error if isinstance(error, EmbedctlError) else None
            ours = self._now.ours
        if ours:
            with contextlib.suppress(EmbedctlError):
                self._unload(CLOSE_SECONDS)

    def _unload(self, seconds: float) -> None:
        try:
            self._the_api().unload(seconds, self._runner_lives, self._pause)
        finally:
            with self._lock:
                self._now.gone()
            if self._finder is not None:
                self._finder.forget()

    def _runner_lives(self) -> bool:
        """Whether a runner seen before still runs; none seen before: no."""
        if self._finder is None or not self._finder.last.rows:
            return False
        seen = self._finder.last.pids
        return bool(self._finder.find(None).pids & seen)

    def _model_gone(self, error: ModelMissingError) -> None:
        with self._lock:
            self._now.loaded = self._now.ours = False
            self._view = replace(self._view, running=None, details=None, digest=None, error=error)
        self._publish()

    @contextlib.contextmanager
    def _acting(self, phase: BackendState) -> Iterator[None]:
        with self._action_lock:
            if self._closing.is_set():
                raise BackendUnavailableError("The Ollama backend was closed")
            with self._lock:
                self._now.phase = phase
            self._publish()
            try:
                yield
            finally:
                with self._lock:
                    self._now.phase = None
                    self._actions += 1
                self._publish()

    def _tell(self, kind: str, title: str, detail: str, severity: Severity = Severity.INFO) -> None:
        if self._on_event is not None:
            self._on_event(
                Event(self._clock(), kind, title, self.name, severity, {"detail": detail, "model": self._tag})
            )
