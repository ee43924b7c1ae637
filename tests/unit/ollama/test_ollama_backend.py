"""The backend's life: finding the server, loading with a canary, unloading, pulling, its status."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from embedctl.backends.base import EmbedRequest
from embedctl.backends.ollama import OllamaBackend
from embedctl.backends.ollama.errors import Translator
from embedctl.errors import (
    BackendAnswerError,
    BackendError,
    BackendOutOfMemoryError,
    BackendTimeoutError,
    BackendUnavailableError,
    CanaryError,
    Cancelled,
    ModelMissingError,
    SettingsError,
)
from embedctl.progress import CancelToken, silent
from embedctl.records import BackendState, BackendStatus, Event, ProgressItem
from tests.support import ollama_faults as faults
from tests.support.fake_processes import FakeProcesses
from tests.support.ollama_faults import MODEL, Journal, running_ollama

MakeBackend = Callable[..., OllamaBackend]
NOBODY = "http://127.0.0.1:9"


def test_before_the_first_look_the_state_is_unknown(backend_at: MakeBackend) -> None:
    assert backend_at(None).status().state is BackendState.UNKNOWN


def test_nothing_answers_and_nothing_is_installed() -> None:
    error = Translator(NOBODY, "bge-m3", which=lambda name: None)(ConnectionError(), "looking")
    assert isinstance(error, BackendUnavailableError)
    assert error.what == "Ollama is not installed"


def test_nothing_answers_but_it_is_installed() -> None:
    error = Translator(NOBODY, "bge-m3", which=lambda name: "/usr/bin/ollama")(ConnectionError(), "looking")
    assert error.what == "Ollama is not running"
    assert "ollama serve" in error.remedy


def test_a_remote_server_that_does_not_answer_is_not_called_missing_here() -> None:
    error = Translator("http://spark.lan:11434", "bge-m3", which=lambda name: None)(
        ConnectionError(), "looking"
    )
    assert "spark.lan" in error.what
    assert "ollama.host" in error.remedy


def test_refresh_never_raises_when_nobody_answers(backend_at: MakeBackend) -> None:
    status = backend_at(NOBODY).refresh()
    assert status.state is BackendState.UNAVAILABLE
    assert status.remedy


def test_a_missing_model_says_how_to_pull_it(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, _):
        backend = backend_at(server.host, tag="mxbai-embed-large")
        status = backend.refresh()
        with pytest.raises(ModelMissingError):
            backend.preflight()
    assert status.state is BackendState.MODEL_MISSING
    assert "ollama pull mxbai-embed-large" in status.remedy


def test_an_old_server_is_refused_with_its_version(backend_at: MakeBackend) -> None:
    with running_ollama(version="0.1.48") as (server, _):
        backend = backend_at(server.host)
        assert backend.refresh().state is BackendState.UNAVAILABLE
        with pytest.raises(BackendUnavailableError, match=r"0\.1\.48 is too old"):
            backend.load(silent, CancelToken())


def test_something_that_is_not_ollama_is_recognised(backend_at: MakeBackend) -> None:
    with running_ollama(faults.replies("/api/version", 404, {"error": "nope"})) as (server, _):
        status = backend_at(server.host).refresh()
    assert status.state is BackendState.UNAVAILABLE
    assert "Ollama server" in status.remedy


@pytest.mark.parametrize("tag", ["bge-m3", "bge-m3:latest", "BGE-M3"])
def test_names_with_and_without_latest_mean_the_same_model(tag: str, backend_at: MakeBackend) -> None:
    with running_ollama() as (server, _):
        assert backend_at(server.host, tag=tag).refresh().state is BackendState.UNLOADED


def test_a_look_tells_version_digest_dtype_and_limits(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, _):
        status = backend_at(server.host).refresh()
    assert (status.version, status.revision, status.dtype) == ("0.33.0", MODEL.digest, "F16")
    assert (status.dimension, status.max_tokens) == (faults.DIMENSION, faults.CONTEXT)
    assert status.claimed_bytes is None


def test_show_is_asked_once_for_a_digest(backend_at: MakeBackend) -> None:
    journal = Journal()
    with running_ollama(journal=journal) as (server, _):
        backend = backend_at(server.host)
        backend.refresh()
        backend.refresh()
    assert len(journal.bodies("/api/show")) == 1


# Load ---------------------------------------------------------------------------------------------------


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


# Unload and what happens without being asked ------------------------------------------------------------


def test_unload_returns_once_the_server_lists_the_model_no_more(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, weights):
        backend = backend_at(server.host)
        backend.load(silent, CancelToken())
        backend.unload()
        assert weights.open == 0
        assert backend.status().state is BackendState.UNLOADED
        assert backend.status().claimed_bytes is None


def test_unloading_what_is_not_loaded_does_not_load_it(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, weights):
        backend_at(server.host).unload()
        assert weights.runners == []


def test_unloading_when_the_server_is_gone_is_no_error(backend_at: MakeBackend) -> None:
    backend = backend_at(NOBODY)
    backend.unload()
    assert backend.status().state is BackendState.UNAVAILABLE


def test_unload_waits_for_the_runner_process_too(backend_at: MakeBackend, processes: FakeProcesses) -> None:
    waited: list[float] = []

    def pause(seconds: float) -> None:
        waited.append(seconds)
        processes.end(200)

    with running_ollama() as (server, _):
        processes.add(100, 1, "ollama", "ollama", "serve")
        processes.add(200, 100, "llama-server", "llama-server", "--model", MODEL.blob)
        processes.listeners[server.port] = 100
        backend = backend_at(server.host, pause=pause)
        backend.load(silent, CancelToken())
        assert backend.pids() == {200}
        backend.unload()
    assert len(waited) == 1
    assert backend.pids() == frozenset()


def test_a_model_that_stays_loaded_is_reported(backend_at: MakeBackend) -> None:
    entry = {"model": "bge-m3:latest", "name": "bge-m3:latest", "size": 1, "size_vram": 1}
    with running_ollama(faults.replies("/api/ps", 200, {"models": [entry]})) as (server, _):
        backend = backend_at(server.host, pause=lambda seconds: None)
        backend.refresh()
        with pytest.raises(BackendTimeoutError, match="still holds"):
            backend._the_api().unload(0.05, lambda: False, lambda seconds: None)


def test_closing_unloads_what_this_engine_loaded(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, weights):
        backend = backend_at(server.host)
        backend.load(silent, CancelToken())
        backend.close()
        backend.close()
        assert weights.open == 0


@pytest.fixture
def loaded_by_another(backend_at: MakeBackend) -> Iterator[tuple[OllamaBackend, faults.MadeUpWeights, Any]]:
    with running_ollama() as (server, weights):
        backend_at(server.host, num_ctx=512).load(silent, CancelToken())
        yield backend_at(server.host), weights, server


def test_closing_leaves_alone_what_another_program_loaded(loaded_by_another: Any) -> None:
    backend, weights, _ = loaded_by_another
    assert backend.refresh().state is BackendState.READY
    backend.close()
    assert weights.open == 1


def test_a_model_that_another_program_loaded_is_ready_and_its_shorter_context_is_noted(
    loaded_by_another: Any,
) -> None:
    backend, _, _ = loaded_by_another
    notes = " ".join(backend.refresh().notes)
    assert "another program" in notes
    assert "context of 512" in notes
    report = backend.load(silent, CancelToken())
    assert "loaded again" in report.notes[0]
    assert not any("context of" in note for note in backend.status().notes)


def test_the_end_of_keep_alive_is_an_event(backend_at: MakeBackend) -> None:
    events: list[Event] = []
    with running_ollama() as (server, _):
        backend = backend_at(server.host, on_event=events.append)
        backend.load(silent, CancelToken())
        server.scheduler.unload()
        assert backend.refresh().state is BackendState.UNLOADED
        backend.refresh()
    assert [(event.kind, event.backend) for event in events] == [("unload", "ollama")]


def test_our_own_unload_is_no_surprise(backend_at: MakeBackend) -> None:
    events: list[Event] = []
    with running_ollama() as (server, _):
        backend = backend_at(server.host, on_event=events.append)
        backend.load(silent, CancelToken())
        backend.unload()
        backend.refresh()
    assert events == []


def test_a_server_that_goes_away_while_loaded_is_one_event(backend_at: MakeBackend) -> None:
    events: list[Event] = []
    with running_ollama() as (server, _):
        backend = backend_at(server.host, on_event=events.append)
        backend.load(silent, CancelToken())
    backend.refresh()
    backend.refresh()
    assert [event.kind for event in events] == ["error"]
    assert backend.status().state is BackendState.UNAVAILABLE


def test_changes_are_told_once(backend_at: MakeBackend) -> None:
    told: list[BackendStatus] = []
    with running_ollama() as (server, _):
        backend = backend_at(server.host, on_change=told.append)
        backend.refresh()
        backend.refresh()
        backend.load(silent, CancelToken())
    states = [status.state for status in told]
    assert states[:2] == [BackendState.UNLOADED, BackendState.LOADING]
    assert states[-1] is BackendState.READY


# Pull ---------------------------------------------------------------------------------------------------


def test_a_pull_shows_each_layer_and_ends_with_the_model_there(backend_at: MakeBackend) -> None:
    seen: list[tuple[str, float | None, tuple[ProgressItem, ...]]] = []

    def progress(step: str, *, done: float | None = None, items: Any = (), **_: Any) -> None:
        seen.append((step, done, items))

    with running_ollama() as (server, _):
        server.api.answer("DELETE", "/api/delete", {"model": "bge-m3"})
        backend = backend_at(server.host)
        assert backend.refresh().state is BackendState.MODEL_MISSING
        backend.pull(progress, CancelToken())
        assert backend.status().state is BackendState.UNLOADED
    assert seen[0][0] == "pulling manifest"
    assert seen[-1][0] == "success"
    last = seen[-1][2]
    assert [(item.name, item.done, item.total, item.state) for item in last] == [
        ("daec91ffb5dd", 4000, 4000, "done"),
        ("a406579cd136", 1000, 1000, "done"),
    ]
    done = [amount for _, amount, _ in seen if amount is not None]
    assert done == sorted(done)
    assert done[-1] == 5000


PULL_ERRORS = {
    "pull model manifest: file does not exist": (ModelMissingError, "model.ollama_tag"),
    "write /models/blobs/sha256-1-partial: no space left on device": (BackendError, "free space"),
    "pull model manifest: dial tcp: lookup library: no such host": (BackendUnavailableError, "network"),
    "pull model manifest: 412: requires a newer version of Ollama": (BackendError, "update Ollama"),
}


@pytest.mark.parametrize("said", PULL_ERRORS)
def test_an_error_line_ends_the_pull_with_its_remedy(said: str, backend_at: MakeBackend) -> None:
    def intercept(path: str, body: Mapping[str, Any], proceed: Callable[[], faults.Reply]) -> faults.Reply:
        if path == "/api/pull":
            return faults.Reply(lines=iter([{"status": "pulling manifest"}, {"error": said}]))
        return proceed()

    kind, remedy = PULL_ERRORS[said]
    with running_ollama(intercept) as (server, _), pytest.raises(kind) as caught:
        backend_at(server.host).pull(silent, CancelToken())
    assert remedy in caught.value.remedy
    assert caught.value.why == said


def test_a_pull_that_stops_before_success_is_an_error(backend_at: MakeBackend) -> None:
    def intercept(path: str, body: Mapping[str, Any], proceed: Callable[[], faults.Reply]) -> faults.Reply:
        return (
            faults.Reply(lines=iter([{"status": "pulling manifest"}])) if path == "/api/pull" else proceed()
        )

    with (
        running_ollama(intercept) as (server, _),
        pytest.raises(BackendUnavailableError, match="before it was"),
    ):
        backend_at(server.host).pull(silent, CancelToken())


def test_a_cancelled_pull_closes_the_stream(backend_at: MakeBackend) -> None:
    cancel = CancelToken()
    stopped = threading.Event()

    def lines() -> Iterator[Mapping[str, Any]]:
        try:
            while True:
                yield {"status": "pulling daec91ffb5dd", "digest": "sha256:daec", "total": 10, "completed": 1}
        finally:
            stopped.set()

    def intercept(path: str, body: Mapping[str, Any], proceed: Callable[[], faults.Reply]) -> faults.Reply:
        return faults.Reply(lines=lines()) if path == "/api/pull" else proceed()

    def progress(step: str, **_: Any) -> None:
        cancel.cancel()

    with running_ollama(intercept) as (server, _):
        with pytest.raises(Cancelled):
            backend_at(server.host).pull(progress, cancel)
        assert stopped.wait(10)


# What it says of itself ---------------------------------------------------------------------------------


def test_preflight_adds_buffers_to_the_weights_and_names_its_source(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, _):
        backend = backend_at(server.host)
        before = backend.preflight()
        backend.load(silent, CancelToken())
        after = backend.preflight()
    assert before.expected_bytes is not None
    assert before.expected_bytes > MODEL.size
    assert "estimated" in before.expected_source
    assert "flash attention" in before.warnings[0]
    assert after.expected_bytes == MODEL.size
    assert "already loaded" in after.expected_source


def test_the_fingerprint_names_what_vectors_depend_on(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, _):
        backend = backend_at(server.host)
        backend.load(silent, CancelToken())
        fingerprint = backend.fingerprint()
    assert (fingerprint.backend, fingerprint.backend_version) == ("ollama", "0.33.0")
    assert (fingerprint.model, fingerprint.revision) == ("bge-m3", MODEL.digest)
    assert (fingerprint.dtype, fingerprint.pooling, fingerprint.device) == ("F16", "cls", "gpu")
    assert fingerprint.options == {"num_ctx": 8192, "num_batch": 8192}
    assert fingerprint.max_tokens == 8192


def test_a_remote_server_has_no_processes_here_and_says_so(
    backend_at: MakeBackend, processes: FakeProcesses
) -> None:
    processes.add(200, 1, "llama-server")
    backend = backend_at("http://192.0.2.7:11434")
    assert backend.pids() == frozenset()
    assert backend.status().notes[0].startswith("runs on another machine")


def test_an_unloaded_backend_looks_for_no_processes(
    backend_at: MakeBackend, processes: FakeProcesses
) -> None:
    with running_ollama() as (server, _):
        backend = backend_at(server.host)
        backend.refresh()
        assert backend.pids() == frozenset()
    assert processes.scans == 0
