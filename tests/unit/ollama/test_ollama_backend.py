"""Finding the server and the model, and what the backend says of itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from embedctl.backends.ollama import OllamaBackend
from embedctl.backends.ollama.errors import Translator
from embedctl.errors import (
    BackendUnavailableError,
    ModelMissingError,
)
from embedctl.progress import CancelToken, silent
from embedctl.records import BackendState
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
