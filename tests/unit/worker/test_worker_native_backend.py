"""The native backend's states, crashes and restarts, with a scripted worker; and once with a real one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embedctl.backends.base import Backend, EmbedRequest
from embedctl.backends.native import NativeBackend
from embedctl.backends.native import backend as native
from embedctl.errors import (
    BackendError,
    BackendNotLoadedError,
    CanaryError,
    Cancelled,
    ModelMissingError,
)
from embedctl.progress import CancelToken, silent
from embedctl.records import BackendState, CanaryReport
from embedctl.settings import ModelSettings, NativeSettings
from tests.support.native_stage import CANARY, FakeWorker, Stage


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
