"""Pulling a model: progress by layer, errors with their remedy, cancel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from embedctl.backends.ollama import OllamaBackend
from embedctl.errors import (
    BackendError,
    BackendUnavailableError,
    Cancelled,
    ModelMissingError,
)
from embedctl.progress import CancelToken, silent
from embedctl.records import BackendState, ProgressItem
from tests.support import ollama_faults as faults
from tests.support.ollama_faults import running_ollama

MakeBackend = Callable[..., OllamaBackend]


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
