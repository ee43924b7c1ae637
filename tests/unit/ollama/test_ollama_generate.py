"""A language model on an Ollama server: chosen, generating, let go; and the demo's own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from ollama import Client

from embedctl.backends.ollama.generate import language_model
from embedctl.demo.language_model import TAG, DemoLanguageModel
from embedctl.demo.ollama_api import Reply
from embedctl.demo.ollama_server import OllamaServer
from embedctl.errors import BackendError, ModelMissingError
from tests.support.ollama_faults import MODEL, MadeUpWeights, running_ollama


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OllamaServer]:
    monkeypatch.setattr("embedctl.demo.language_model._SIDE", 8)  # its cost is not what is tested
    with OllamaServer(MODEL, MadeUpWeights(), language_model=DemoLanguageModel()) as running:
        yield running


def test_the_demos_model_streams_words_with_counts_and_durations(server: OllamaServer) -> None:
    client = Client(server.host)
    pieces = list(client.generate(TAG, "two words", stream=True, options={"num_predict": 5}))
    assert [piece.response for piece in pieces[:3]] == ["the ", "lamp ", "is "]
    last = pieces[-1]
    assert (last.done, last.eval_count, last.prompt_eval_count, last.response) == (True, 5, 2, "")
    assert last.eval_duration is not None
    assert last.eval_duration > 0
    whole = client.generate(TAG, "x", options={"num_predict": 3})
    assert (whole.response, whole.eval_count) == ("the lamp is ", 3)
    listed = {entry.model for entry in client.ps().models}
    assert TAG in listed


def test_an_embedding_model_does_not_generate(server: OllamaServer) -> None:
    with pytest.raises(Exception, match="does not support generate"):
        Client(server.host).generate(MODEL.tag, "x")
    with pytest.raises(Exception, match="not found"):
        Client(server.host).generate("absent", "x")


def test_the_smallest_that_generates_is_taken_and_let_go(server: OllamaServer) -> None:
    client = Client(server.host)
    with language_model(server.host, None) as model:
        assert (model.name, model.simulated) == (TAG, True)
        assert len(list(itertools.islice(model.pieces(lambda: False), 3000))) == 3000  # beyond one request
        assert TAG in {entry.model for entry in client.ps().models}
    assert TAG not in {entry.model for entry in client.ps().models}


def test_one_that_was_loaded_stays(server: OllamaServer) -> None:
    client = Client(server.host)
    client.generate(TAG, "x", options={"num_predict": 1})
    with language_model(server.host, "demo-llm") as model:
        stopped = iter([False, False, True, True])
        assert len(list(model.pieces(lambda: next(stopped)))) == 1
    assert TAG in {entry.model for entry in client.ps().models}


def test_without_one_the_error_says_what_to_do() -> None:
    with running_ollama() as (server, _):
        with (
            pytest.raises(ModelMissingError, match="Ollama has no language model") as raised,
            language_model(server.host, None),
        ):
            pass
        assert "ollama pull" in raised.value.remedy
        with (
            pytest.raises(ModelMissingError, match="does not have the model 'absent:1b'"),
            language_model(server.host, "absent:1b"),
        ):
            pass


def test_an_error_in_the_midst_of_words_is_told(server: OllamaServer) -> None:
    def breaks(path: str, body: Mapping[str, Any], proceed: Any) -> Reply:
        if path == "/api/generate" and body.get("prompt"):
            return Reply(lines=iter([{"model": TAG, "response": "the ", "done": False}, {"error": "killed"}]))
        return proceed()  # type: ignore[no-any-return]

    server.intercept = breaks
    with (
        language_model(server.host, None) as model,
        pytest.raises(BackendError, match="Ollama") as raised,
    ):
        list(model.pieces(lambda: False))
    assert "killed" in f"{raised.value.what} {raised.value.why}"
