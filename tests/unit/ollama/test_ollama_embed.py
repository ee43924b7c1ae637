"""Embedding through a server that is well, and through each way in which one is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from embedctl.backends.base import EmbedRequest
from embedctl.backends.ollama import OllamaBackend
from embedctl.errors import (
    BackendAnswerError,
    BackendError,
    BackendNotLoadedError,
    BackendTimeoutError,
    BackendUnavailableError,
    Cancelled,
    InvalidTextError,
    ModelMissingError,
)
from embedctl.progress import CancelToken, silent
from embedctl.records import BackendState
from tests.support import ollama_faults as faults
from tests.support.ollama_faults import Journal, made_up_vector, running_ollama

MakeBackend = Callable[..., OllamaBackend]
TEXTS = [f"text number {number}" for number in range(7)]


def unit(text: str) -> np.ndarray[Any, Any]:
    vector = np.asarray(made_up_vector(text), dtype=np.float32)
    return vector / np.linalg.norm(vector)


def loaded(make: MakeBackend, host: str, **given: Any) -> OllamaBackend:
    backend = make(host, **given)
    backend.load(silent, CancelToken())
    return backend


def test_vectors_come_in_order_as_unit_float32(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, _):
        result = loaded(backend_at, server.host).embed(EmbedRequest(TEXTS, batch_size=3))
    assert result.vectors.dtype == np.float32
    assert result.vectors.flags.c_contiguous
    np.testing.assert_allclose(result.vectors, [unit(text) for text in TEXTS], atol=1e-6)
    assert result.tokens == 5 * len(TEXTS)
    assert (result.truncated, result.failures, result.notes) == ((), (), ())


def test_an_answer_that_waited_for_other_weights_changes_the_fingerprint_before_it_is_given(
    backend_at: MakeBackend,
) -> None:
    repulled = faults.Repulled()
    with running_ollama(repulled) as (server, _):
        backend = loaded(backend_at, server.host)
        before = backend.fingerprint()
        backend.embed(EmbedRequest(TEXTS))
        assert backend.fingerprint().digest == before.digest
        repulled.happened = True
        backend.embed(EmbedRequest(TEXTS))
        assert backend.fingerprint().revision == repulled.DIGEST
        assert backend.fingerprint().digest != before.digest


def test_batches_hold_at_most_batch_size_texts(backend_at: MakeBackend) -> None:
    journal = Journal()
    with running_ollama(journal=journal) as (server, _):
        backend = loaded(backend_at, server.host)
        journal.requests.clear()
        backend.embed(EmbedRequest(TEXTS, batch_size=3))
    assert [len(body["input"]) for body in journal.bodies("/api/embed")] == [3, 3, 1]


def test_every_request_sends_the_same_options_so_that_the_runner_is_loaded_once(
    backend_at: MakeBackend,
) -> None:
    journal = Journal()
    with running_ollama(journal=journal) as (server, weights):
        backend = loaded(backend_at, server.host)
        backend.embed(EmbedRequest(TEXTS))
        backend.unload()
    bodies = journal.bodies("/api/embed")
    assert len(bodies) >= 4
    assert all(body["options"] == {"num_ctx": 8192, "num_batch": 8192} for body in bodies)
    assert len(weights.runners) == 1


def test_no_texts_give_no_rows_of_the_models_width(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, _):
        result = loaded(backend_at, server.host).embed(EmbedRequest([]))
    assert result.vectors.shape == (0, faults.DIMENSION)


def test_asking_for_raw_vectors_is_answered_with_a_note(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, _):
        result = loaded(backend_at, server.host).embed(EmbedRequest(TEXTS, normalize=False))
    assert "always normalises" in result.notes[0]


def test_vectors_that_are_not_of_unit_norm_are_normalised_and_it_is_said(backend_at: MakeBackend) -> None:
    doubled = faults.changes(
        lambda texts, rows: [[2 * value for value in row] for row in rows] if texts == TEXTS else rows
    )
    with running_ollama(doubled) as (server, _):
        result = loaded(backend_at, server.host).embed(EmbedRequest(TEXTS))
    np.testing.assert_allclose(np.linalg.norm(result.vectors, axis=1), 1, atol=1e-6)
    assert "normalised here" in result.notes[0]


# One bad text ---------------------------------------------------------------------------------------------

BAD_TEXT_FAULTS = {
    "HTTP 500 with NaN": faults.refuses(
        TEXTS[4], 500, "failed to encode response: json: unsupported value: NaN"
    ),
    "HTTP 400 with NaN": faults.refuses(TEXTS[4], 400, "embedding contains NaN or Inf values"),
    "the runner fails": faults.refuses(TEXTS[4], 500, "do embedding request: unexpected EOF"),
    "NaN in the answer": faults.value_for(TEXTS[4], float("nan")),
    "null in the answer": faults.value_for(TEXTS[4], None),
}


@pytest.mark.parametrize("fault", BAD_TEXT_FAULTS.values(), ids=BAD_TEXT_FAULTS.keys())
def test_one_bad_text_costs_its_own_row_only(fault: faults.Interceptor, backend_at: MakeBackend) -> None:
    with running_ollama(fault) as (server, _):
        result = loaded(backend_at, server.host).embed(EmbedRequest(TEXTS))
    assert [failure.index for failure in result.failures] == [4]
    assert np.isnan(result.vectors[4]).all()
    others = [row for row in range(len(TEXTS)) if row != 4]
    np.testing.assert_allclose(result.vectors[others], [unit(TEXTS[row]) for row in others], atol=1e-6)


def test_a_bad_text_alone_gives_a_row_of_nan(backend_at: MakeBackend) -> None:
    fault = faults.refuses("bad", 400, "embedding contains NaN or Inf values")
    with running_ollama(fault) as (server, _):
        result = loaded(backend_at, server.host).embed(EmbedRequest(["bad"]))
    assert result.vectors.shape == (1, faults.DIMENSION)
    assert np.isnan(result.vectors).all()
    assert "NaN" in result.failures[0].what


def test_bad_texts_in_several_batches_keep_their_places(backend_at: MakeBackend) -> None:
    bad = {TEXTS[0], TEXTS[3], TEXTS[6]}

    def intercept(path: str, body: Mapping[str, Any], proceed: Callable[[], faults.Reply]) -> faults.Reply:
        if path == "/api/embed" and bad & set(body["input"]):
            return faults.Reply(400, {"error": "embedding contains NaN or Inf values"})
        return proceed()

    with running_ollama(intercept) as (server, _):
        result = loaded(backend_at, server.host).embed(EmbedRequest(TEXTS, batch_size=4))
    assert [failure.index for failure in result.failures] == [0, 3, 6]
    np.testing.assert_allclose(result.vectors[5], unit(TEXTS[5]), atol=1e-6)


def test_when_every_text_fails_for_an_unknown_reason_the_request_fails(backend_at: MakeBackend) -> None:
    broken = threading.Event()

    def intercept(path: str, body: Mapping[str, Any], proceed: Callable[[], faults.Reply]) -> faults.Reply:
        if broken.is_set() and path == "/api/embed" and body["input"]:
            return faults.Reply(500, {"error": "llama runner process has terminated"})
        return proceed()

    with running_ollama(intercept) as (server, _):
        backend = loaded(backend_at, server.host)
        broken.set()
        with pytest.raises(BackendError) as caught:
            backend.embed(EmbedRequest(TEXTS))
    assert "has terminated" in caught.value.why


def test_a_server_that_breaks_in_the_middle_is_not_asked_about_every_text(backend_at: MakeBackend) -> None:
    journal = Journal()
    texts = [f"text number {number}" for number in range(256)]

    def intercept(path: str, body: Mapping[str, Any], proceed: Callable[[], faults.Reply]) -> faults.Reply:
        if (path == "/api/embed" and texts[100] in body["input"]) or len(journal.bodies("/api/embed")) > 12:
            return faults.Reply(500, {"error": "llama runner process has terminated"})
        return proceed()

    with running_ollama(intercept, journal=journal) as (server, _):
        backend = loaded(backend_at, server.host)
        journal.requests.clear()
        with pytest.raises(BackendError, match="failed while embedding"):
            backend.embed(EmbedRequest(texts))
    assert len(journal.bodies("/api/embed")) < 50


def test_a_bad_text_in_each_of_many_batches_costs_a_bounded_number_of_requests(
    backend_at: MakeBackend,
) -> None:
    journal = Journal()
    texts = [f"text number {number}" for number in range(320)]
    bad = set(texts[7::32])

    def intercept(path: str, body: Mapping[str, Any], proceed: Callable[[], faults.Reply]) -> faults.Reply:
        if path == "/api/embed" and bad & set(body["input"]):
            return faults.Reply(500, {"error": "failed to encode response: json: unsupported value: NaN"})
        return proceed()

    with running_ollama(intercept, journal=journal) as (server, _):
        backend = loaded(backend_at, server.host)
        journal.requests.clear()
        result = backend.embed(EmbedRequest(texts, batch_size=32))
    assert [failure.index for failure in result.failures] == list(range(7, 320, 32))
    assert np.isnan(result.vectors[7::32]).all()
    good = [row for row in range(320) if row % 32 != 7]
    np.testing.assert_allclose(result.vectors[good], [unit(texts[row]) for row in good], atol=1e-6)
    assert len(journal.bodies("/api/embed")) == 10 * (1 + 2 * 5)  # a batch of 32 is halved five times


@pytest.mark.parametrize("status", [500, 503])
def test_a_runner_that_is_stuck_at_loading_fails_the_request_at_once(
    status: int, backend_at: MakeBackend
) -> None:
    journal = Journal()
    stuck = threading.Event()

    def intercept(path: str, body: Mapping[str, Any], proceed: Callable[[], faults.Reply]) -> faults.Reply:
        if stuck.is_set() and path == "/api/embed" and body["input"]:
            return faults.Reply(status, {"error": "llm server loading model"})
        return proceed()

    with running_ollama(intercept, journal=journal) as (server, _):
        backend = loaded(backend_at, server.host)
        journal.requests.clear()
        stuck.set()
        with pytest.raises(BackendTimeoutError, match="still loading"):
            backend.embed(EmbedRequest(TEXTS))
    assert len(journal.bodies("/api/embed")) == 1


def test_a_request_that_nobody_wants_any_more_sends_no_further_batch(backend_at: MakeBackend) -> None:
    journal = Journal()
    cancel = CancelToken()

    def intercept(path: str, body: Mapping[str, Any], proceed: Callable[[], faults.Reply]) -> faults.Reply:
        if path == "/api/embed" and TEXTS[2] in body["input"]:
            cancel.cancel()
        return proceed()

    with running_ollama(intercept, journal=journal) as (server, _):
        backend = loaded(backend_at, server.host)
        journal.requests.clear()
        with pytest.raises(Cancelled):
            backend.embed(EmbedRequest(TEXTS, batch_size=2, cancel=cancel))
    assert len(journal.bodies("/api/embed")) == 2


def test_a_text_that_is_no_string_is_named_before_anything_is_sent(backend_at: MakeBackend) -> None:
    journal = Journal()
    with running_ollama(journal=journal) as (server, _):
        backend = loaded(backend_at, server.host)
        journal.requests.clear()
        with pytest.raises(InvalidTextError) as caught:
            backend.embed(EmbedRequest(["fine", 7]))  # type: ignore[list-item]
    assert caught.value.index == 1
    assert not journal.bodies("/api/embed")


# Length -----------------------------------------------------------------------------------------------------


def words(count: int) -> str:
    return " ".join(f"w{number}" for number in range(count))


def test_a_text_of_the_full_context_is_not_cut(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, _):
        result = loaded(backend_at, server.host).embed(EmbedRequest([words(8190)]))
    assert result.truncated == ()
    assert result.tokens == 8192
    np.testing.assert_allclose(result.vectors[0], unit(words(8190)), atol=1e-6)


def test_texts_that_are_cut_are_named_and_still_get_vectors(backend_at: MakeBackend) -> None:
    texts = ["short", words(9000), "also short", words(8500)]
    with running_ollama() as (server, _):
        result = loaded(backend_at, server.host).embed(EmbedRequest(texts))
    assert result.truncated == (1, 3)
    assert result.failures == ()
    np.testing.assert_allclose(result.vectors[1], unit(words(8190)), atol=1e-6)
    np.testing.assert_allclose(result.vectors[2], unit("also short"), atol=1e-6)
    assert "2 of 4 texts were cut by Ollama at 8,192 tokens" in result.notes


def test_texts_beside_one_that_is_too_long_are_embedded_once(backend_at: MakeBackend) -> None:
    texts = [words(9000 + number) if number in (3, 4, 11, 13) else f"text {number}" for number in range(16)]
    with running_ollama() as (server, weights):
        backend = loaded(backend_at, server.host)
        before = len(weights.runners[0].embedded)
        result = backend.embed(EmbedRequest(texts))
        asked = weights.runners[0].embedded[before:]
    assert result.truncated == (3, 4, 11, 13)
    assert asked[:3] == texts[:3], "they stood before the first one that was refused"
    assert sorted(asked[3:]) == sorted(texts)


def test_the_smaller_of_num_ctx_and_num_batch_is_where_texts_are_cut(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, _):
        backend = loaded(backend_at, server.host, num_batch=2048)
        result = backend.embed(EmbedRequest([words(3000)]))
        assert backend.status().max_tokens == 2048
    assert result.truncated == (0,)


def test_a_server_that_refuses_to_cut_costs_that_text_only(backend_at: MakeBackend) -> None:
    fault = faults.refuses(TEXTS[2], 400, "the input length exceeds the context length")  # ollama#14186
    with running_ollama(fault) as (server, _):
        result = loaded(backend_at, server.host).embed(EmbedRequest(TEXTS))
    assert [(failure.index, "refused to cut" in failure.what) for failure in result.failures] == [(2, True)]


def test_a_count_of_exactly_2048_for_a_long_text_is_suspicious(backend_at: MakeBackend) -> None:
    def intercept(path: str, body: Mapping[str, Any], proceed: Callable[[], faults.Reply]) -> faults.Reply:
        reply = proceed()
        if path == "/api/embed" and reply.body and "prompt_eval_count" in reply.body:
            return faults.Reply(200, {**reply.body, "prompt_eval_count": 2048})
        return reply

    with running_ollama(intercept) as (server, _):
        result = loaded(backend_at, server.host).embed(EmbedRequest([words(4000)]))
    assert result.truncated == ()  # not certain
    assert any("ollama#14259" in note for note in result.notes)


# Failures of the whole request ----------------------------------------------------------------------------


def test_a_wrong_count_is_never_paired_with_texts(backend_at: MakeBackend) -> None:
    one_less = faults.changes(lambda texts, rows: rows[:-1] if texts == TEXTS else rows)
    with running_ollama(one_less) as (server, _), pytest.raises(BackendAnswerError, match="6 vectors for 7"):
        loaded(backend_at, server.host).embed(EmbedRequest(TEXTS))


def test_a_wrong_dimension_is_an_error(backend_at: MakeBackend) -> None:
    shorter = faults.changes(lambda texts, rows: [row[:8] for row in rows] if texts == TEXTS else rows)
    with (
        running_ollama(shorter) as (server, _),
        pytest.raises(BackendAnswerError, match="8 dimensions, not 16"),
    ):
        loaded(backend_at, server.host).embed(EmbedRequest(TEXTS))


def test_a_server_that_hangs_ends_in_a_timeout(backend_at: MakeBackend) -> None:
    hang = faults.Hang(only=lambda body: body["input"] == TEXTS)
    with running_ollama(hang) as (server, _):
        backend = loaded(backend_at, server.host)
        try:
            with pytest.raises(BackendTimeoutError):
                backend.embed(EmbedRequest(TEXTS, timeout=0.1))
        finally:
            hang.release()


def test_the_timeout_is_for_all_batches_together(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, _):
        backend = loaded(backend_at, server.host)
        with pytest.raises(BackendTimeoutError):
            backend.embed(EmbedRequest(TEXTS * 200, batch_size=1, timeout=0.02))


def test_a_connection_that_is_cut_is_said_to_be_lost(backend_at: MakeBackend) -> None:
    cut = threading.Event()

    def intercept(path: str, body: Mapping[str, Any], proceed: Callable[[], faults.Reply]) -> faults.Reply:
        return faults.cuts_connection(path, body, proceed) if cut.is_set() else proceed()

    with running_ollama(intercept) as (server, _):
        backend = loaded(backend_at, server.host)
        cut.set()
        with pytest.raises(BackendUnavailableError, match="connection to Ollama was lost"):
            backend.embed(EmbedRequest(TEXTS))


def test_a_model_removed_meanwhile_is_missing_and_the_status_says_so(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, _):
        backend = loaded(backend_at, server.host)
        server.scheduler.present = False
        with pytest.raises(ModelMissingError) as caught:
            backend.embed(EmbedRequest(TEXTS))
        assert "ollama pull bge-m3" in caught.value.remedy
        assert backend.status().state is BackendState.MODEL_MISSING


def test_embedding_before_loading_is_refused(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, _), pytest.raises(BackendNotLoadedError):
        backend_at(server.host).embed(EmbedRequest(TEXTS))


def test_closing_ends_a_request_that_waits(backend_at: MakeBackend) -> None:
    hang = faults.Hang(only=lambda body: body["input"] == TEXTS)
    with running_ollama(hang) as (server, _):
        backend = loaded(backend_at, server.host)
        raised: list[Exception] = []

        def embed() -> None:
            try:
                backend.embed(EmbedRequest(TEXTS))
            except Exception as error:
                raised.append(error)

        thread = threading.Thread(target=embed)
        thread.start()
        assert hang.reached.wait(10)
        started = time.monotonic()
        closer = threading.Thread(target=backend.close)  # then unloads, which waits for the hanging request
        closer.start()
        thread.join(5)
        took = time.monotonic() - started
        hang.release()
        closer.join(10)
    assert not thread.is_alive()
    assert took < 2
    assert isinstance(raised[0], BackendUnavailableError)


def test_requests_of_many_threads_each_get_their_own_vectors(backend_at: MakeBackend) -> None:
    with running_ollama() as (server, _):
        backend = loaded(backend_at, server.host)
        found: dict[int, Any] = {}

        def embed(number: int) -> None:
            found[number] = backend.embed(
                EmbedRequest([f"thread {number} text {i}" for i in range(3)])
            ).vectors

        threads = [threading.Thread(target=embed, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number, vectors in found.items():
        np.testing.assert_allclose(vectors, [unit(f"thread {number} text {i}") for i in range(3)], atol=1e-6)
    assert len(found) == 8
