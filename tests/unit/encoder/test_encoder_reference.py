"""The reference encoder: the same vectors as sentence-transformers, and what it survives beyond that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from embedctl.errors import BackendOutOfMemoryError, Cancelled, InvalidTextError
from embedctl.records import TextFailure
from tests.support.late import late
from tests.support.tiny_models import BERT, BERT_DENSE, XLM_R, TinyModel, tiny_model

torch = late("torch")
loading = late("embedctl.encoder.loading")
reference = late("embedctl.encoder.reference")

pytestmark = pytest.mark.torch


TEXTS = ["short", "a text of medium length", "", "  ", "Grüße 向量 😀", "x" * 200, "nul \x00 inside", "short"]


@pytest.fixture(scope="module")
def model() -> Any:
    return loading.load_model(tiny_model(XLM_R), device="cpu")


@pytest.fixture
def encoder(model: Any) -> reference.ReferenceEncoder:
    return reference.ReferenceEncoder(model, batch_size=3)


def fail_in_forward(monkeypatch: pytest.MonkeyPatch, model: Any, when: Any, error: Exception) -> list[int]:
    """Have the forward pass raise when `when(rows, width)` says so; returns the batch sizes tried."""
    forward, tried = model.forward, []

    def scripted(features: Any, **kwargs: Any) -> Any:
        rows, width = features["input_ids"].shape
        tried.append(rows)
        if when(rows, width):
            raise error
        return forward(features, **kwargs)

    monkeypatch.setattr(model, "forward", scripted)
    return tried


@pytest.mark.parametrize("kind", [XLM_R, BERT, BERT_DENSE, TinyModel("xlm-roberta", "mean", normalize=False)])
def test_vectors_are_those_of_sentence_transformers(kind: TinyModel) -> None:
    model = loading.load_model(tiny_model(kind), device="cpu")
    encoded = reference.ReferenceEncoder(model, batch_size=3).encode(TEXTS)
    expected = model.encode(TEXTS, batch_size=1, normalize_embeddings=True, show_progress_bar=False)
    assert encoded.vectors.dtype == np.float32
    np.testing.assert_allclose(encoded.vectors, expected, atol=2e-6)
    assert encoded.failures == ()


def test_unnormalised_vectors_are_the_models_own(model: Any) -> None:
    raw = loading.load_model(tiny_model(BERT_DENSE), device="cpu")
    encoded = reference.ReferenceEncoder(raw).encode(TEXTS, normalize=False)
    np.testing.assert_allclose(encoded.vectors, raw.encode(TEXTS, show_progress_bar=False), atol=2e-6)
    assert np.abs(np.linalg.norm(encoded.vectors, axis=1) - 1).max() > 0.1
    # A model that ends with Normalize has no other vectors to give.
    unit = reference.ReferenceEncoder(model).encode(TEXTS, normalize=False)
    np.testing.assert_allclose(np.linalg.norm(unit.vectors, axis=1), 1, atol=1e-5)


def test_tokens_are_counted_and_cut_texts_are_named(encoder: reference.ReferenceEncoder) -> None:
    texts = ["ab", "x" * 62, "x" * 63, "", "ü"]  # the tokenizer makes one token per byte, and two around them
    encoded = encoder.encode(texts)
    assert encoded.token_counts.tolist() == [4, 64, 64, 2, 4]
    assert encoded.truncated == (2,)


def test_a_prompt_of_the_model_is_used_and_counted(encoder: reference.ReferenceEncoder) -> None:
    prompted = loading.load_model(tiny_model(XLM_R), device="cpu")
    prompted.prompts, prompted.default_prompt_name = {"query": "query: "}, "query"
    encoded = reference.ReferenceEncoder(prompted).encode(["ab"])
    plain = encoder.encode(["query: ab"])
    np.testing.assert_allclose(encoded.vectors, plain.vectors, atol=1e-6)
    assert encoded.token_counts.tolist() == plain.token_counts.tolist()


def test_no_texts_give_no_rows(encoder: reference.ReferenceEncoder) -> None:
    encoded = encoder.encode([])
    assert encoded.vectors.shape == (0, encoder.info.dimension)
    assert encoded.token_counts.shape == (0,)


def test_what_is_no_string_is_refused_before_anything_is_embedded(
    encoder: reference.ReferenceEncoder, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = fail_in_forward(monkeypatch, model, lambda rows, width: False, RuntimeError())
    with pytest.raises(InvalidTextError, match="Text 1 is not a string") as caught:
        encoder.encode(["fine", None])  # type: ignore[list-item]
    assert caught.value.index == 1
    assert tried == []


def test_a_lone_surrogate_costs_its_own_row_only(encoder: reference.ReferenceEncoder) -> None:
    encoded = encoder.encode(["fine", "bad \udc00", "also fine"])
    assert encoded.failures == (TextFailure(1, "not valid Unicode: lone surrogate U+DC00 at character 4"),)
    assert np.isnan(encoded.vectors[1]).all()
    np.testing.assert_allclose(
        encoded.vectors[[0, 2]], encoder.encode(["fine", "also fine"]).vectors, atol=1e-6
    )
    assert encoded.token_counts[1] == 0


def test_a_vector_that_is_not_finite_costs_its_own_row_only(
    encoder: reference.ReferenceEncoder, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = model.forward

    def spoil_the_widest(features: Any, **kwargs: Any) -> Any:
        output = forward(features, **kwargs)
        counts = features["attention_mask"].sum(dim=1)
        output["sentence_embedding"][counts == 20, 5] = float("inf")
        return output

    monkeypatch.setattr(model, "forward", spoil_the_widest)
    encoded = encoder.encode(["a", "x" * 18, "b"])
    assert [failure.index for failure in encoded.failures] == [1]
    assert "not finite" in encoded.failures[0].what
    assert np.isnan(encoded.vectors[1]).all()
    assert np.isfinite(encoded.vectors[[0, 2]]).all()


def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    encoder: reference.ReferenceEncoder, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text {n}" for n in range(16)]
    expected = encoder.encode(texts).vectors
    tried = fail_in_forward(monkeypatch, model, lambda rows, width: rows > 2, torch.OutOfMemoryError("CUDA"))
    encoded = encoder.encode(texts, batch_size=16)
    assert tried == [16, 8, 4] + [2] * 8
    assert encoded.failures == ()
    assert encoded.notes == ("out of memory on cpu with 16 texts per batch: went on with 2",)
    np.testing.assert_allclose(encoded.vectors, expected, atol=1e-6)


def test_a_text_that_does_not_fit_alone_costs_its_own_row_only(
    encoder: reference.ReferenceEncoder, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
    fail_in_forward(monkeypatch, model, lambda rows, width: width > 30, RuntimeError(message))
    encoded = encoder.encode(["a", "x" * 50, "b", "c"])
    assert [failure.index for failure in encoded.failures] == [1]
    assert "memory" in encoded.failures[0].what
    assert np.isfinite(encoded.vectors[[0, 2, 3]]).all()


def test_when_nothing_fits_the_request_fails(
    encoder: reference.ReferenceEncoder, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_in_forward(
        monkeypatch, model, lambda rows, width: True, torch.OutOfMemoryError("CUDA out of memory")
    )
    with pytest.raises(BackendOutOfMemoryError):
        encoder.encode(["a", "b"])


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    encoder: reference.ReferenceEncoder, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = fail_in_forward(monkeypatch, model, lambda rows, width: True, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        encoder.encode(["a", "b"])
    assert tried == [2]


def test_cancelling_stops_between_batches(
    encoder: reference.ReferenceEncoder, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = fail_in_forward(monkeypatch, model, lambda rows, width: False, RuntimeError())
    with pytest.raises(Cancelled):
        encoder.encode(["a"] * 9, cancelled=lambda: len(tried) == 2)
    assert tried == [3, 3]


def test_info_says_what_was_loaded(encoder: reference.ReferenceEncoder) -> None:
    info = encoder.info
    assert (info.kind, info.device, info.dtype, info.attention) == ("reference", "cpu", "float32", "sdpa")
    assert (info.dimension, info.max_tokens, info.pooling) == (32, 64, "cls")
