"""The demo's server keeps Ollama's rules: what loads, reloads and ends the runner, and what is cut where."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from embedctl.demo.ollama_api import OllamaApi
from embedctl.demo.ollama_scheduler import Embedded, Scheduler, keep_alive_seconds
from tests.support.ollama_faults import CONTEXT, MODEL, MadeUpWeights, made_up_vector

LONG = " ".join("word" for _ in range(3000))
OURS = {"num_ctx": 8192, "num_batch": 8192}


@pytest.fixture
def weights() -> MadeUpWeights:
    return MadeUpWeights()


@pytest.fixture
def api(weights: MadeUpWeights) -> Iterator[OllamaApi]:
    scheduler = Scheduler(MODEL, weights)
    yield OllamaApi(scheduler, pause=lambda seconds: None)
    scheduler.unload()


def embed(api: OllamaApi, given: Any, **body: Any) -> Any:
    reply = api.answer("POST", "/api/embed", {"model": "bge-m3", "input": given, **body})
    assert reply.body is not None
    return {"status": reply.status, **reply.body}


@pytest.mark.parametrize(
    "value,seconds",
    [(None, 300), ("30m", 1800), ("1h30m", 5400), ("1.5s", 1.5), (0, 0), (-1, -1), ("-1m", -60), (90, 90)],
)
def test_keep_alive_is_read_as_ollama_reads_it(value: object, seconds: float) -> None:
    assert keep_alive_seconds(value) == seconds


@pytest.mark.parametrize("value", ["300", "-1", "soon", ""])
def test_a_number_as_text_is_no_duration(value: str) -> None:
    with pytest.raises(ValueError, match="missing unit"):
        keep_alive_seconds(value)


def test_vectors_are_normalised_in_embed_and_raw_in_embeddings(api: OllamaApi) -> None:
    answer = embed(api, ["a text"])
    raw = api.answer("POST", "/api/embeddings", {"model": "bge-m3", "prompt": "a text"}).body
    assert raw is not None
    assert raw["embedding"] == made_up_vector("a text")
    assert np.linalg.norm(answer["embeddings"][0]) == pytest.approx(1)
    assert answer["prompt_eval_count"] == 4


def test_dimensions_cuts_and_normalises_again(api: OllamaApi) -> None:
    cut = np.asarray(embed(api, "a text", dimensions=4)["embeddings"][0])
    whole = np.asarray(embed(api, "a text")["embeddings"][0])
    assert cut.shape == (4,)
    np.testing.assert_allclose(cut, whole[:4] / np.linalg.norm(whole[:4]))


def test_long_texts_are_cut_at_2048_unless_both_options_are_sent(api: OllamaApi) -> None:
    assert embed(api, LONG)["prompt_eval_count"] == 2048
    assert embed(api, LONG, options={"num_ctx": 8192})["prompt_eval_count"] == 2048
    assert embed(api, LONG, options=OURS)["prompt_eval_count"] == 3002


def test_without_truncation_a_long_text_is_refused(api: OllamaApi) -> None:
    answer = embed(api, [LONG, "short"], truncate=False)
    assert (answer["status"], answer["error"]) == (400, "the input length exceeds the context length")


def test_a_refusal_comes_before_the_long_one_and_those_after_it_are_embedded(
    api: OllamaApi, weights: MadeUpWeights
) -> None:
    embed(api, ["first", LONG, *["never reached"] * 5], truncate=False)
    assert weights.runners[0].embedded == ["first"]


def test_other_options_load_the_runner_again(api: OllamaApi, weights: MadeUpWeights) -> None:
    embed(api, "a", options=OURS)
    embed(api, "b", options=OURS)
    assert len(weights.runners) == 1
    embed(api, "c")
    assert [runner.closed for runner in weights.runners] == [True, False]


def test_an_empty_request_loads_and_with_keep_alive_zero_unloads(
    api: OllamaApi, weights: MadeUpWeights
) -> None:
    embed(api, [], options=OURS)
    assert weights.open == 1
    embed(api, [], options=OURS, keep_alive=0)
    assert (weights.open, len(weights.runners)) == (0, 1)
    assert api.answer("GET", "/api/ps", {}).body == {"models": []}


def test_the_runner_ends_when_keep_alive_is_over(weights: MadeUpWeights) -> None:
    now = [1000.0]
    scheduler = Scheduler(MODEL, weights, clock=lambda: now[0])
    with scheduler.lease(scheduler.options({}), 60):
        pass
    scheduler._expire()  # the timer fired early, or for an older request
    assert weights.open == 1
    now[0] = 1060.0
    scheduler._expire()
    assert weights.open == 0


def test_ps_states_the_context_and_the_expiry(api: OllamaApi) -> None:
    embed(api, "a", options=OURS, keep_alive=-1)
    body = api.answer("GET", "/api/ps", {}).body
    assert body is not None
    entry = body["models"][0]
    assert entry["context_length"] == CONTEXT
    assert entry["size_vram"] == MODEL.size
    assert entry["expires_at"].startswith("2318")


def test_texts_are_embedded_one_at_a_time_even_for_several_clients() -> None:
    met = threading.Event()

    class Meeting:
        """Notices when two texts are in it at once."""

        def __init__(self) -> None:
            self._both = threading.Barrier(2)

        def embed(self, text: str) -> Embedded:
            with contextlib.suppress(threading.BrokenBarrierError):
                self._both.wait(0.05)
                met.set()
            return Embedded([1.0], 1, False)

        def close(self) -> None:
            pass

    scheduler = Scheduler(MODEL, lambda limit: Meeting())
    both_lease = threading.Barrier(2, timeout=10)

    def client() -> None:
        with scheduler.lease(scheduler.options({}), 0) as lease:
            both_lease.wait()
            lease.embed("a")

    threads = [threading.Thread(target=client) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not met.is_set()


def test_unknown_models_and_paths_are_404(api: OllamaApi) -> None:
    reply = api.answer("POST", "/api/embed", {"model": "other", "input": "a"})
    assert (reply.status, reply.body) == (404, {"error": 'model "other" not found, try pulling it first'})
    assert api.answer("GET", "/api/nothing", {}).status == 404


def test_a_deleted_model_is_pulled_layer_by_layer(api: OllamaApi) -> None:
    api.answer("DELETE", "/api/delete", {"model": "bge-m3"})
    assert api.answer("GET", "/api/tags", {}).body == {"models": []}
    lines = api.answer("POST", "/api/pull", {"model": "bge-m3"}).lines
    assert lines is not None
    seen = list(lines)
    assert [line["status"] for line in (seen[0], *seen[-3:])] == [
        "pulling manifest",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    assert {line["digest"] for line in seen if "digest" in line} == {digest for digest, _ in MODEL.layers}
    assert embed(api, "a")["status"] == 200


def test_a_pull_of_another_model_ends_in_an_error_line(api: OllamaApi) -> None:
    lines = api.answer("POST", "/api/pull", {"model": "nothing"}).lines
    assert lines is not None
    assert list(lines)[-1] == {"error": "pull model manifest: file does not exist"}


def test_a_pull_that_was_cut_goes_on_where_it_was(weights: MadeUpWeights) -> None:
    api = OllamaApi(Scheduler(MODEL, weights), pull_rate=10_000, pause=lambda seconds: None)
    api.answer("DELETE", "/api/delete", {"model": "bge-m3"})
    first = api.answer("POST", "/api/pull", {"model": "bge-m3"}).lines
    assert first is not None
    reached = [line["completed"] for line, _ in zip(first, range(4), strict=False) if "completed" in line]
    second = api.answer("POST", "/api/pull", {"model": "bge-m3"}).lines
    assert second is not None
    resumed = next(line["completed"] for line in second if "completed" in line)
    assert resumed >= reached[-1] > 0
