"""The native backend on a stage: a scripted worker, and clock, timers and admission in the test's hands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from embedctl.backends.native import NativeBackend
from embedctl.errors import (
    BackendError,
)
from embedctl.progress import CancelToken, Progress, silent
from embedctl.records import BackendState, BackendStatus, CanaryReport, Event
from embedctl.settings import ModelSettings, NativeSettings
from embedctl.worker.client import WorkerAnswer
from embedctl.worker.process import WorkerExit
from embedctl.worker.protocol import WorkerMemory, WorkerOptions, WorkerReady

CANARY = CanaryReport(True, 8, 4, 0.0, 1.0, "math")


class FakeWorker:
    """Stands in for `WorkerClient`; the test says how loads go and when it dies."""

    made: ClassVar[list[FakeWorker]] = []
    failures: ClassVar[list[BackendError]] = []
    canary_report = CANARY

    def __init__(
        self, options: WorkerOptions, *, log_file: Path, on_exit: Callable[[WorkerExit], None]
    ) -> None:
        self.options = options
        self.on_exit = on_exit
        self.alive = False
        self.pid: int | None = None
        FakeWorker.made.append(self)

    def start(self, progress: Progress, cancel: CancelToken, *, timeout: float) -> WorkerReady:
        cancel.raise_if_cancelled()
        progress("canary")
        if FakeWorker.failures:
            raise FakeWorker.failures.pop(0)
        self.alive, self.pid = True, 1000 + len(FakeWorker.made)
        return WorkerReady(
            encoder="reference",
            device="cuda:0",
            device_name="GB10",
            dtype="float16",
            attention="math",
            dimension=4,
            max_tokens=8192,
            pooling="cls",
            versions={"torch": "2.15", "sentence-transformers": "6.2", "transformers": "5.23"},
            notes=("attention kernel sdpa failed the canary: a vector is not finite",),
            canary=CANARY,
            memory=WorkerMemory(rss=10, reserved=2_000, pids=(self.pid, 77)),
            way="loaded directly",
        )

    def embed(self, texts: list[str], **_: Any) -> WorkerAnswer:
        return WorkerAnswer(np.zeros((len(texts), 4), np.float32), len(texts), (), (), ())

    def memory(self, timeout: float) -> WorkerMemory:
        assert self.pid is not None
        return WorkerMemory(rss=20, reserved=3_000, pids=(self.pid,))

    def memory_later(self, receive: Callable[[WorkerMemory], None]) -> None:
        receive(self.memory(1.0))

    def canary(self, timeout: float) -> CanaryReport:
        return FakeWorker.canary_report

    def stop(self) -> None:
        self.alive, self.pid = False, None

    kill = stop

    def die(self, code: int = -9) -> None:
        self.stop()
        self.on_exit(WorkerExit(code, ("last words",)))


class FakeTimer:
    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self.seconds = seconds
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Stage:
    """A backend with everything around it in the test's hands."""

    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        self.now = 1_000.0
        self.folder: Path | None = tmp_path
        self.events: list[Event] = []
        self.states: list[BackendState] = []
        self.timers: list[FakeTimer] = []
        self.on_event: Callable[[Event], None] = lambda _: None
        """What else happens while an event is being told."""
        self.no_room: BackendError | None = None
        """Why a restart is not let in."""
        self.backend = NativeBackend(
            NativeSettings(**settings),
            ModelSettings(repo="org/model", revision="abc"),
            folder=lambda: self.folder,
            log_dir=tmp_path,
            references=tmp_path / "references",
            on_change=self.note,
            on_event=self.hear,
            clock=lambda: self.now,
            after=self.after,
            admitted=self.admitted,
        )

    @contextmanager
    def admitted(self, cancel: CancelToken) -> Iterator[None]:
        cancel.raise_if_cancelled()
        if self.no_room is not None:
            raise self.no_room
        yield

    def hear(self, event: Event) -> None:
        self.events.append(event)
        self.on_event(event)

    def note(self, status: BackendStatus) -> None:
        self.states.append(status.state)

    def after(self, seconds: float, call: Callable[[], None]) -> FakeTimer:
        self.timers.append(FakeTimer(seconds, call))
        return self.timers[-1]

    def load(self) -> FakeWorker:
        self.backend.load(silent, CancelToken())
        return FakeWorker.made[-1]

    @property
    def status(self) -> BackendStatus:
        return self.backend.status()
