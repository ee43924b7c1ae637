"""Unloading and closing, and what becomes of a loaded model without being asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from embedctl.backends.ollama import OllamaBackend
from embedctl.errors import (
    BackendTimeoutError,
)
from embedctl.progress import CancelToken, silent
from embedctl.records import BackendState, BackendStatus, Event
from tests.support import ollama_faults as faults
from tests.support.fake_processes import FakeProcesses
from tests.support.ollama_faults import MODEL, running_ollama

MakeBackend = Callable[..., OllamaBackend]
NOBODY = "http://127.0.0.1:9"


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
