"""The engine's side of a worker: starts the process, multiplexes requests, notices its end, stops it.

One thread per worker starts the process and then reads its answers until the socket ends; callers wait on
futures. Nothing polls.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from embedctl.encoder.texts import require_strings
from embedctl.errors import (
    BackendError,
    BackendNotLoadedError,
    BackendTimeoutError,
    BackendUnavailableError,
    Cancelled,
    EmbedctlError,
    UsageError,
    WorkerCrashedError,
)
from embedctl.progress import CancelToken, Progress, silent
from embedctl.records import CanaryReport, TextFailure, TuneReport
from embedctl.worker.channel import Channel
from embedctl.worker.frames import Frame, FrameError, pack_texts
from embedctl.worker.process import WorkerExit, bytecode_folder, log_tail, open_log, spawn
from embedctl.worker.protocol import (
    WorkerMemory,
    WorkerOptions,
    WorkerReady,
    error_from,
    memory_from,
    ready_from,
)

if TYPE_CHECKING:
    from embedctl.records.backends import Vectors

log = logging.getLogger(__name__)

_STOP_GRACE_S = 3.0
"""How long a worker may take to go after each of: the end of the socket, SIGTERM."""
_SEND_TIMEOUT_S = 30.0
"""Its reader does nothing but read: a worker that leaves bytes for so long hangs with the GIL held."""


@dataclass(frozen=True, slots=True)
class WorkerAnswer:
    """The vectors of one request, as `EmbedResult` describes them."""

    vectors: Vectors
    tokens: int
    truncated: tuple[int, ...]
    failures: tuple[TextFailure, ...]
    notes: tuple[str, ...]


class WorkerClient:
    """One worker process, from its start to its end. All methods may be called from any thread.

    Args:
        options: What to load.
        log_file: Where the worker's output goes.
        on_exit: Called on the worker's thread when a worker that was ready ends without having been told to.
    """

    def __init__(
        self,
        options: WorkerOptions,
        *,
        log_file: Path,
        on_exit: Callable[[WorkerExit], None] | None = None,
    ) -> None:
        self._options = options
        self._log_path = log_file
        self._on_exit = on_exit
        self._lock = threading.Lock()
        self._pending: dict[int, Future[Frame]] = {}
        self._ids = itertools.count(1)
        self._ready: Future[WorkerReady] = Future()
        self._progress: Progress = silent
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._end: WorkerExit | None = None
        self._ended = threading.Event()

    @property
    def pid(self) -> int | None:
        """The worker's process, while there is one."""
        process = self._process
        return process.pid if process is not None and not self._ended.is_set() else None

    @property
    def alive(self) -> bool:
        return self._process is not None and not self._ended.is_set()

    def start(
        self, progress: Progress = silent, cancel: CancelToken | None = None, *, timeout: float = 600.0
    ) -> WorkerReady:
        """Start the process, load the model, run the canary. For one call.

        Raises:
            Cancelled: `cancel` was set; the process is gone.
            BackendTimeoutError: It took longer than `timeout` seconds; the process is gone.
            WorkerCrashedError: The process ended while it loaded; says how.
            BackendError: The load failed; says why. The process is gone.
        """
        cancel = cancel or CancelToken()
        cancel.raise_if_cancelled()
        self._progress = progress
        progress("starting Python")
        self._thread = threading.Thread(target=self._run, name="native-worker", daemon=True)
        self._thread.start()
        cancel.on_cancel(lambda: None if self._ready.done() else self.kill())
        try:
            return self._ready.result(timeout)
        except TimeoutError:
            self.kill()
            raise BackendTimeoutError(
                f"The model was not loaded within {timeout:g} s",
                why="the worker process was ended",
                remedy="raise native.load_timeout_s, or look at the worker's log",
            ) from None
        except EmbedctlError:
            self.kill()
            cancel.raise_if_cancelled()
            raise

    def embed(
        self,
        texts: Sequence[str],
        *,
        batch_size: int | None = None,
        normalize: bool = True,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
    ) -> WorkerAnswer:
        """Embed texts; see `Encoder.encode`.

        Raises:
            Cancelled: `cancel` was set; the request is taken back.
            InvalidTextError: A text is no string.
            BackendTimeoutError: No answer within `timeout` seconds; the request is taken back.
            BackendNotLoadedError: The worker was stopped.
            WorkerCrashedError: The worker ended before it answered.
            BackendError: The worker could not do it.
        """
        import numpy as np

        require_strings(texts)
        header = {"kind": "embed", "count": len(texts), "batch_size": batch_size, "normalize": normalize}
        frame = self._request(header, pack_texts(texts), timeout=timeout, cancel=cancel)
        answer = frame.header
        vectors = np.frombuffer(frame.payload, dtype="<f4").astype(np.float32, copy=False)
        return WorkerAnswer(
            vectors=vectors.reshape(answer["rows"], answer["dimension"]),
            tokens=answer["tokens"],
            truncated=tuple(answer["truncated"]),
            failures=tuple(TextFailure(index, what) for index, what in answer["failures"]),
            notes=tuple(answer["notes"]),
        )

    def ping(self, timeout: float = 5.0) -> None:
        """Ask for a sign of life, which comes even while the worker embeds. Raises as `embed` does."""
        self._request({"kind": "ping"}, timeout=timeout)

    def memory(self, timeout: float = 5.0) -> WorkerMemory:
        """What the worker holds now; answered even while it embeds. Raises as `embed` does."""
        return memory_from(self._request({"kind": "memory"}, timeout=timeout).header)

    def memory_later(self, receive: Callable[[WorkerMemory], None]) -> None:
        """Ask for `memory` without waiting; `receive` gets it on the worker's thread, if it comes.

        Raises:
            BackendNotLoadedError: The worker was stopped.
        """

        def deliver(future: Future[Frame]) -> None:
            if future.exception() is None:
                receive(memory_from(future.result().header))

        _, future = self._submit({"kind": "memory"}, b"")
        future.add_done_callback(deliver)

    def canary(self, timeout: float = 60.0) -> CanaryReport:
        """Embed the known texts again and judge them. Raises as `embed` does."""
        return CanaryReport(**self._request({"kind": "canary"}, timeout=timeout).header["report"])

    def tune(self, cancel: CancelToken | None = None) -> TuneReport:
        """Have the worker measure its token budget, which takes a minute or more. Raises as `embed` does."""
        report = self._request({"kind": "tune"}, cancel=cancel).header["report"]
        rates = tuple((int(budget), float(rate)) for budget, rate in report["rates"])
        return TuneReport(**{**report, "rates": rates})

    def stop(self) -> None:
        """End the process: ask, then terminate, then kill. Returns when it is gone."""
        with self._lock:
            self._stopping = True
        channel, process = self._channel, self._process
        if channel is not None:
            channel.end()
        if process is not None and not self._ended.wait(_STOP_GRACE_S):
            process.terminate()
            if not self._ended.wait(_STOP_GRACE_S):
                process.kill()
        self._join()

    def kill(self) -> None:
        """End the process at once. Returns when it is gone."""
        with self._lock:
            self._stopping = True
            process = self._process
        if process is not None:
            process.kill()
        self._join()

    def _join(self) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    # Requests

    def _request(
        self,
        header: dict[str, object],
        payload: bytes = b"",
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
    ) -> Frame:
        number, future = self._submit(header, payload)
        heed_no_more = cancel.on_cancel(lambda: self._take_back(number)) if cancel is not None else None
        try:
            return future.result(timeout)
        except TimeoutError:
            self._take_back(number)
            raise BackendTimeoutError(
                f"The native worker did not answer within {timeout:g} s",
                why="it is busy with this or with earlier requests",
                remedy="send fewer texts at once, or raise native.request_timeout_s",
            ) from None
        finally:
            if heed_no_more is not None:
                heed_no_more()

    def _submit(self, header: dict[str, object], payload: bytes) -> tuple[int, Future[Frame]]:
        channel = self._require_channel()
        future: Future[Frame] = Future()
        number = next(self._ids)
        with self._lock:
            if self._stopping:
                raise _not_loaded()
            if self._end is not None:
                raise _crashed(self._end)
            self._pending[number] = future
        try:
            channel.send(Frame({**header, "id": number}, payload))
        except FrameError as error:
            with self._lock:
                self._pending.pop(number, None)
            raise UsageError(
                "The request is too large", why=str(error), remedy="send the texts in several requests"
            ) from error
        except BlockingIOError:
            log.warning("the worker has not read for %g s and is killed", _SEND_TIMEOUT_S)
            if self._process is not None:  # its end is then told as if it had died by itself
                self._process.kill()
        except OSError:
            log.debug("the worker is gone; its thread fails the request with the reason")
        return number, future

    def _take_back(self, number: int) -> None:
        """Have the worker drop a request that it has not answered; its caller gets `Cancelled`."""
        with self._lock:
            future = self._pending.pop(number, None)
        if future is None:
            return
        with contextlib.suppress(OSError):  # a worker that is gone computes nothing anyway
            self._require_channel().send_if_free(Frame({"kind": "cancel", "id": number}))
        future.set_exception(Cancelled())

    def _require_channel(self) -> Channel:
        if self._channel is None:
            raise _not_loaded()
        return self._channel

    # The worker's thread

    def _run(self) -> None:
        try:
            with open_log(self._log_path) as log_file:
                process = self._spawn(log_file)
                self._read()
                self._finish(_wait(process), log_file)
        except OSError as error:
            self._ended.set()
            self._ready.set_exception(
                BackendUnavailableError(
                    "The native worker cannot be started",
                    why=str(error),
                    remedy=f"see that {self._log_path.parent} can be written and that memory is free",
                )
            )

    def _spawn(self, log_file: IO[bytes]) -> subprocess.Popen[bytes]:
        ours, theirs = socket.socketpair()
        with theirs:  # while this process held it too, the worker's end would go unnoticed
            try:
                bytecode = bytecode_folder(self._log_path.parent / "bytecode")
                process = spawn(theirs, log_file, self._options.threads, bytecode)
            except OSError:
                ours.close()
                raise
        with self._lock:
            self._channel = Channel(ours, send_timeout=_SEND_TIMEOUT_S)
            self._process = process
            if self._stopping:  # cancelled while the process was being started
                process.kill()
        with contextlib.suppress(OSError):  # a worker that is gone already is noticed by `_read`
            self._channel.send(Frame({"kind": "load", "options": asdict(self._options)}))
        return process

    def _read(self) -> None:
        channel = self._require_channel()
        try:
            while (frame := channel.receive()) is not None:
                self._deliver(frame)
        except Exception as error:  # also words that this release does not know: who waits must be told
            log.info("the worker's connection ended: %r", error)
        finally:
            channel.close()

    def _deliver(self, frame: Frame) -> None:
        match frame.kind:
            case "step":
                self._progress(str(frame.header["name"]))
            case "ready":
                self._ready.set_result(ready_from(frame.header))
            case "failed":
                self._ready.set_exception(error_from(frame.header["error"]))
            case kind:
                with self._lock:
                    future = self._pending.pop(frame.id, None)
                if future is None:
                    return  # its caller has stopped waiting
                if kind == "error":
                    future.set_exception(error_from(frame.header["error"]))
                else:
                    future.set_result(frame)

    def _finish(self, code: int | None, log_file: IO[bytes]) -> None:
        end = WorkerExit(code, log_tail(log_file))
        with self._lock:
            self._end = end
            self._ended.set()
            told = self._stopping
            pending, self._pending = list(self._pending.values()), {}
        served = self._ready.done() and self._ready.exception() is None
        if served and not told and self._on_exit is not None:
            try:  # first: a caller that tries again at once must not find this worker in place
                self._on_exit(end)
            except Exception:  # those who wait below must be told in any case
                log.exception("what follows a worker's end failed")
        for future in pending:
            future.set_exception(_not_loaded() if told else _crashed(end))
        if not self._ready.done():
            self._ready.set_exception(_crashed(end, "while it loaded the model"))


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code of a process whose socket has ended; it is killed if it lingers."""
    try:
        return process.wait(_STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _not_loaded() -> BackendError:
    return BackendNotLoadedError(
        "The native backend is not loaded", why="its worker was stopped", remedy="load it first"
    )


def _crashed(end: WorkerExit, when: str = "while it was needed") -> WorkerCrashedError:
    return WorkerCrashedError(
        f"The native worker ended {when}", why=str(end), remedy="look at the worker's log; then try again"
    )
