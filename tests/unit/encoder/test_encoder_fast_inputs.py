"""Whatever is given as a text gives its right vector or an error that names it, and disturbs no other."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from embedctl.errors import InvalidTextError
from tests.support.late import late
from tests.support.tiny_models import BERT, BERT_DENSE, XLM_R, TinyModel, tiny_model

torch = late("torch")
sentence_transformers = late("sentence_transformers")
fast = late("embedctl.encoder.fast")

pytestmark = pytest.mark.torch

MODELS = [XLM_R, BERT, BERT_DENSE, TinyModel("bert", "cls"), TinyModel("xlm-roberta", "mean", dense=24)]
NAMES = ["xlm-r cls", "bert mean", "bert mean dense", "bert cls", "xlm-r mean dense"]

STRANGE = [
    "",
    " ",
    "\u00a0\u2003\u3000",
    "\n\r\t\v\f\u2028\u2029",
    "a",
    "ab",
    "\x00",
    "nul \x00 inside",
    "".join(map(chr, range(32))),
    "\x7f\x80\x9f\ufeff\u200b\u200e\u202e",
    "e" + "\u0301" * 40,
    "\u0301\u0302 marks alone",
    "👩‍🔬🏳️‍🌈👍🏽🇨🇭",
    "\U0010ffff\U000e0001\ue000\ufffe\uffff",
    "ﷺ ﬀ Ⅷ ①",
    "مرحبا بالعالم",
    "東京は今日も雨です",
    "<s></s><pad><unk><mask>",
    "[CLS][SEP][PAD]",
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def load(model: TinyModel = XLM_R) -> tuple[sentence_transformers.SentenceTransformer, fast.FastEncoder]:
    loaded = sentence_transformers.SentenceTransformer(str(tiny_model(model)), device="cpu")
    return loaded, fast.FastEncoder.build(loaded, token_budget=256)


def made_up(seed: int, count: int) -> list[str]:
    """Texts of random characters from all of Unicode but the surrogates, and of random lengths."""
    chooser = random.Random(seed)
    ranges = [(0, 0x7F), (0, 0x1F), (0x80, 0x2FF), (0x300, 0x36F), (0x370, 0xD7FF), (0xE000, 0x10FFFF)]
    return [
        "".join(
            chr(chooser.randint(*chooser.choice(ranges))) for _ in range(chooser.choice((0, 1, 2, 5, 30)))
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_strange_texts_get_the_vectors_of_encode_whatever_their_neighbours(model: TinyModel) -> None:
    original, encoder = load(model)
    texts = [*STRANGE, *made_up(1, 40)]
    expected = np.concatenate(
        [original.encode([t], show_progress_bar=False, normalize_embeddings=True) for t in texts]
    )
    for seed in range(3):
        order = random.Random(seed).sample(range(len(texts)), len(texts))
        result = encoder.encode([texts[i] for i in order])
        assert result.failures == ()
        assert (result.vectors * expected[order]).sum(axis=1).min() >= 0.9999
        np.testing.assert_allclose(result.vectors, expected[order], atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_bad_texts_fail_by_index_and_leave_the_others_as_they_were(seed: int) -> None:
    _, encoder = load()
    chooser = random.Random(seed)
    good = [*STRANGE, *made_up(seed, 20)]
    clean = encoder.encode(good).vectors
    texts: list[str] = list(good)
    bad = sorted(chooser.sample(range(len(good) + 4), 4))
    for index in bad:
        place = chooser.randint(0, 3)
        texts.insert(
            index, "x" * place + chr(chooser.randint(0xD800, 0xDFFF)) + chooser.choice(("", " tail"))
        )
    result = encoder.encode(texts)
    assert [failure.index for failure in result.failures] == bad
    assert all("lone surrogate U+D" in failure.what for failure in result.failures)
    assert np.isnan(result.vectors[bad]).all() and not result.token_counts[bad].any()
    np.testing.assert_allclose(np.delete(result.vectors, bad, axis=0), clean, atol=1e-5)


@pytest.mark.parametrize("intruder", [None, 7, 1.5, b"bytes", ["nested"], np.array(["a"]), float("nan")])
@pytest.mark.parametrize("index", [0, 3])
def test_what_is_no_string_is_named_before_anything_is_embedded(intruder: Any, index: int) -> None:
    _, encoder = load()
    texts: list[Any] = ["fine"] * 4
    texts[index] = intruder
    before = encoder.batches
    with pytest.raises(InvalidTextError) as caught:
        encoder.encode(texts)
    assert caught.value.index == index
    assert type(intruder).__name__ in caught.value.why
    assert encoder.batches == before


def test_a_subclass_of_str_is_a_string() -> None:
    _, encoder = load()
    np.testing.assert_array_equal(encoder.encode([np.str_("ab")]).vectors, encoder.encode(["ab"]).vectors)


def test_a_request_of_bad_texts_alone_is_answered_without_a_batch() -> None:
    _, encoder = load()
    before = encoder.batches
    result = encoder.encode(["\ud800", "\udfff"])
    assert [failure.index for failure in result.failures] == [0, 1]
    assert encoder.batches == before


@pytest.mark.parametrize("character", ["z", "\U0001f469"])
def test_a_megabyte_is_cut_and_reported_and_its_neighbours_stay(character: str) -> None:
    _, encoder = load()
    text = character * (1_000_000 // len(character.encode()))
    result = encoder.encode(["before", text, "after"])
    assert result.failures == ()
    assert result.truncated == (1,)
    assert result.token_counts.tolist() == [8, 64, 7]
    expected = encoder.encode(["before", text[:100], "after"]).vectors
    np.testing.assert_allclose(result.vectors, expected, atol=1e-5)


def test_a_hundred_thousand_texts_keep_their_order() -> None:
    encoder = fast.FastEncoder.build(load(TinyModel("bert", "cls"))[0], token_budget=8192)
    distinct = ["", *"abcdefghij"]
    known = encoder.encode(distinct).vectors
    picks = np.random.default_rng(3).integers(0, len(distinct), 100_000)
    result = encoder.encode([distinct[i] for i in picks])
    np.testing.assert_allclose(result.vectors, known[picks], atol=1e-5)
    assert result.token_counts.tolist() == [len(distinct[i]) + 2 for i in picks]
