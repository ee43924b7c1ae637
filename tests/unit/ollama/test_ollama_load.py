"""Loading with a canary: what is told of it, how it fails, how it is cancelled, and keep_alive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from embedctl.backends.base import EmbedRequest
from embedctl.backends.ollama import OllamaBackend
from embedctl.errors import (
    BackendAnswerError,
    BackendError,
    BackendOutOfMemoryError,
    BackendUnavailableError,
    CanaryError,
    Cancelled,
    SettingsError,
)
from embedctl.progress import CancelToken, silent
from embedctl.records import BackendState
from tests.support import ollama_faults as faults
from tests.support.fake_processes import FakeProcesses
from tests.support.ollama_faults import MODEL, Journal, running_ollama

MakeBackend = Callable[..., OllamaBackend]


def test_a_load_runs_the_canary_and_is_ready_with_claims(backend_at: MakeBackend) -> None:
    steps: list[str] = []

    def progress(step: str, **_: Any) -> None:
        steps.append(step)

    with running_ollama() as (server, weights):
        backend = backend_at(server.host, clock=lambda: 1000.0)
        report = backend.load(progress, CancelToken())
        status = backend.status()
        assert weights.open == 1
    assert report.canary is not None
    assert report.canary.passed
    assert report.canary.dimension == faults.DIMENSION
    assert report.canary.least_cosine == pytest.approx(1, abs=1e-6)
    assert status.state is BackendState.READY
    assert status.claimed_bytes == MODEL.size
    assert status.claimed_source is not None
    assert "/api/ps" in status.claimed_source
    assert status.ready_since == 1000.0
    assert status.expires_at is not None
    assert steps == ["asking the server", "loading bge-m3 into Ollama", "checking its vectors"]


CANARY_FAULTS = {
    "one vector for all": (faults.constant_vector(), "same vector"),
    "NaN": (
        faults.changes(lambda texts, rows: [[float("nan"), *row[1:]] for row in rows]),
        "NaN",
    ),
    "a batch shifts the rows": (
        faults.changes(lambda texts, rows: rows[1:] + rows[:1]),
        "alone and in a list",
    ),
}


@pytest.mark.parametrize("fault,why", CANARY_FAULTS.values(), ids=CANARY_FAULTS.keys())
def test_wrong_vectors_fail_the_load_and_give_the_memory_back(
    fault: faults.Interceptor, why: str, backend_at: MakeBackend
) -> None:
    with running_ollama(fault) as (server, weights):
        backend = backend_at(server.host)
        with pytest.raises(CanaryError) as caught:
            backend.load(silent, CancelToken())
        assert weights.open == 0
        assert backend.refresh().state is BackendState.FAILED
    assert why in caught.value.why


def test_a_dimension_other_than_expected_fails_the_load(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, weights):
        with pytest.raises(BackendAnswerError, match="16 dimensions, not 1024"):
            backend_at(server.host, expected_dimension=1024).load(silent, CancelToken())
        assert weights.open == 0


def test_a_failed_load_is_forgotten_once_one_succeeds(backend_at: MakeBackend) -> None:
    broken = threading.Event()
    broken.set()
    constant = faults.constant_vector()

    def intercept(path: str, body: Mapping[str, Any], proceed: Callable[[], faults.Reply]) -> faults.Reply:
        return constant(path, body, proceed) if broken.is_set() else proceed()

    with running_ollama(intercept) as (server, _):
        backend = backend_at(server.host)
        with pytest.raises(CanaryError):
            backend.load(silent, CancelToken())
        broken.clear()
        backend.load(silent, CancelToken())
        assert backend.status().state is BackendState.READY


def test_out_of_memory_while_loading_is_said_as_such(backend_at: MakeBackend) -> None:
    def intercept(path: str, body: Mapping[str, Any], proceed: Callable[[], faults.Reply]) -> faults.Reply:
        if path == "/api/embed":
            return faults.Reply(
                500, {"error": "model requires more system memory (5.6 GiB) than is available"}
            )
        return proceed()

    with running_ollama(intercept) as (server, _), pytest.raises(BackendOutOfMemoryError):
        backend_at(server.host).load(silent, CancelToken())


def test_a_load_that_hangs_is_cancelled_at_once(backend_at: MakeBackend) -> None:
    hang = faults.Hang(only=lambda body: bool(body["input"]))
    cancel = CancelToken()
    with running_ollama(hang) as (server, weights):
        backend = backend_at(server.host)
        outcome: list[BaseException] = []

        def load() -> None:
            try:
                backend.load(silent, cancel)
            except Cancelled as cancelled:
                outcome.append(cancelled)

        thread = threading.Thread(target=load)
        thread.start()
        assert hang.reached.wait(10)
        cancel.cancel()
        thread.join(4)
        assert outcome
        assert backend.refresh().state is BackendState.UNLOADED
        assert weights.open == 0
        hang.release()


def test_closing_ends_a_load_that_hangs(backend_at: MakeBackend) -> None:
    hang = faults.Hang(only=lambda body: bool(body["input"]))
    with running_ollama(hang) as (server, weights):
        backend = backend_at(server.host)
        outcome: list[BaseException] = []

        def load() -> None:
            try:
                backend.load(silent, CancelToken())
            except BackendError as error:
                outcome.append(error)

        thread = threading.Thread(target=load)
        thread.start()
        assert hang.reached.wait(10)
        backend.close()
        thread.join(4)
        assert isinstance(outcome[0], BackendUnavailableError)
        assert weights.open == 0
        hang.release()


def test_the_runner_is_known_as_soon_as_the_load_is_done(
    backend_at: MakeBackend, processes: FakeProcesses
) -> None:
    processes.add(100, 1, "ollama", "ollama", "serve")
    with running_ollama() as (server, _):
        backend = backend_at(server.host)

        def progress(step: str, **_: Any) -> None:
            backend.pids()  # the sampler asks while it loads, and finds no runner yet
            if step.startswith("checking"):
                processes.add(200, 100, "llama-server", "llama-server", "--model", MODEL.blob)

        backend.load(progress, CancelToken())
        assert backend.pids() == {200}
        assert backend.status().pids == {200}


def test_cancelled_before_it_began_nothing_is_asked(backend_at: MakeBackend) -> None:
    journal, cancel = Journal(), CancelToken()
    cancel.cancel()
    with running_ollama(journal=journal) as (server, _), pytest.raises(Cancelled):
        backend_at(server.host).load(silent, cancel)
    assert journal.requests == []


@pytest.mark.parametrize(
    "given,sent", [("30m", "30m"), ("1h30m", "1h30m"), ("-1", -1), ("300", 300), ("90s", "90s")]
)
def test_keep_alive_is_sent_as_ollama_reads_it(given: str, sent: object, backend_at: MakeBackend) -> None:
    """A Go server takes seconds only as a number: "300" would be "missing unit in duration"."""
    journal = Journal()
    with running_ollama(journal=journal) as (server, _):
        backend_at(server.host, keep_alive=given).load(silent, CancelToken())
        assert {body["keep_alive"] for body in journal.bodies("/api/embed")} == {sent}


def test_keep_alive_zero_stays_usable_though_never_listed_as_loaded(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, weights):
        backend = backend_at(server.host, keep_alive="0")
        report = backend.load(silent, CancelToken())
        assert backend.refresh().state is BackendState.READY
        assert backend.embed(EmbedRequest(["a text"])).failures == ()
        assert weights.open == 0
    assert "keep_alive is 0" in report.notes[0]


def test_a_malformed_keep_alive_names_the_setting() -> None:
    from embedctl.settings import ModelSettings, OllamaSettings

    with pytest.raises(SettingsError, match=r"ollama\.keep_alive"):
        OllamaBackend(OllamaSettings(keep_alive="half an hour"), ModelSettings())
