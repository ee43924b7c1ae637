"""The fast encoder's vectors on a CUDA device, beside float32 `encode` on the same weights."""

from __future__ import annotations

import ctypes
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

try:
    ctypes.CDLL("libcuda.so.1")
except OSError:  # importing torch, to be told the same, takes each process that collects this some seconds
    pytest.skip("needs a CUDA device", allow_module_level=True)

import torch

from embedctl.encoder import precision
from embedctl.encoder.fast import FastEncoder
from embedctl.encoder.loading import load_model
from embedctl.encoder.packing import pack
from embedctl.errors import Cancelled
from tests.support.shaped_models import Shape, shaped_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

BGE_M3 = Shape("xlm-roberta", "cls", width=1024, layers=24, heads=16, positions=8194, limit=8192)
MINI = Shape("bert", "mean", width=384, layers=6, heads=12, positions=512, limit=512)
MINI_DENSE = Shape("bert", "cls", width=384, layers=3, heads=12, positions=512, limit=512, dense=128)
LENGTHS = [2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513]
LONG = [2047, 2048, 2049, 8191, 8192]


def text_of(tokens: int, seed: int = 0) -> str:
    """A text of exactly so many tokens: one a byte, and two special ones."""
    return "".join(random.Random(f"{tokens} {seed}").choices("abcdefghij klmnop qrstuvwxyz", k=tokens - 2))


def exact(model: Any, texts: list[str]) -> Any:
    return model.encode(texts, batch_size=1, normalize_embeddings=True, show_progress_bar=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shaped_model(BGE_M3, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    return load_model(folder, device="cuda", dtype="float32")


@pytest.fixture(scope="module")
def fast(folder: Path) -> Iterator[FastEncoder]:
    yield FastEncoder.build(load_model(folder, device="cuda", dtype="float16"))


def test_one_token_alone_and_beside_others(fast: FastEncoder, plain: Any) -> None:
    """No tokenizer here makes fewer than two, but some do: past it, then."""
    ids = [np.array([token], np.int32) for token in (5, 40, 77)]
    mask = torch.ones((1, 1), dtype=torch.int64, device="cuda")
    states = [plain[0].model(torch.tensor([[int(i[0])]], device="cuda"), mask).last_hidden_state for i in ids]
    expected = torch.nn.functional.normalize(torch.cat(states)[:, 0]).cpu().numpy()
    runner = fast._engine.runner
    for some in (ids[:1], ids, ids * 30):
        batch = pack(some, first_position=2, skipped_id=1)
        vectors = runner.stage(batch, normalize=True).launch().collect()
        assert (vectors * np.resize(expected, vectors.shape)).sum(axis=1).min() >= 0.9999


def test_every_accelerated_part_passed_its_check(fast: FastEncoder) -> None:
    assert fast.info.notes == ()
    assert fast.info.attention == "tiled"


def test_vectors_agree_with_float32_at_every_length(fast: FastEncoder, plain: Any) -> None:
    texts = [text_of(n) for n in LENGTHS + LONG]
    result = fast.encode(texts)
    assert result.token_counts.tolist() == LENGTHS + LONG
    cosines = (result.vectors * exact(plain, texts)).sum(axis=1)
    assert cosines.min() >= 0.9999, dict(zip(LENGTHS + LONG, cosines, strict=True))


def test_vectors_agree_with_float32_on_a_thousand_passages(fast: FastEncoder, plain: Any) -> None:
    lengths = np.random.default_rng(1).lognormal(5.15, 0.62, 1024).clip(8, 2334).astype(int)
    texts = [text_of(int(n), seed) for seed, n in enumerate(lengths)]
    expected = plain.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
    assert (fast.encode(texts).vectors * expected).sum(axis=1).min() >= 0.9999


def test_a_vector_does_not_depend_on_its_neighbours(fast: FastEncoder) -> None:
    texts = [text_of(n, seed) for n in LENGTHS + LONG[:3] for seed in range(3)]
    alone = np.concatenate([fast.encode([text]).vectors for text in texts])
    for seed in range(3):
        order = random.Random(seed).sample(range(len(texts)), len(texts))
        packed = fast.encode([texts[i] for i in order]).vectors
        assert np.abs(packed - alone[order]).max() <= 1e-3
        assert (packed * alone[order]).sum(axis=1).min() >= 0.99999


@pytest.mark.parametrize("attention", ["varlen", "grouped"])
def test_the_fallbacks_of_the_attention_agree_too(folder: Path, plain: Any, attention: str) -> None:
    encoder = FastEncoder.build(load_model(folder, device="cuda", dtype="float16"), attention=attention)
    texts = [text_of(n) for n in LENGTHS]
    assert encoder.info.attention == attention
    assert (encoder.encode(texts).vectors * exact(plain, texts)).sum(axis=1).min() >= 0.9999


@pytest.mark.parametrize("shape", [MINI, MINI_DENSE], ids=["mean", "dense"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_bert_with_mean_pooling_and_with_a_dense_module(shape: Shape, dtype: str, tmp_path: Path) -> None:
    folder = shaped_model(shape, tmp_path)
    encoder = FastEncoder.build(load_model(folder, device="cuda", dtype=dtype))
    texts = [text_of(n, seed) for seed, n in enumerate([*LENGTHS[:-1], 40, 40, 7, 300])]
    expected = exact(load_model(folder, device="cuda", dtype="float32"), texts)
    assert encoder.info.notes == ()
    assert (encoder.encode(texts).vectors * expected).sum(axis=1).min() >= 0.9999
    one_by_one = np.concatenate([encoder.encode([text]).vectors for text in texts])
    assert (one_by_one * expected).sum(axis=1).min() >= 0.9999


def test_concurrent_queries_and_a_bulk_job_get_their_own_vectors(fast: FastEncoder) -> None:
    queries = [text_of(5 + i % 40, i) for i in range(64)]
    bulk = [text_of(100 + i % 300, i) for i in range(600)]
    alone = [fast.encode([query]).vectors[0] for query in queries]
    expected = fast.encode(bulk).vectors
    with ThreadPoolExecutor(17) as pool:
        job = pool.submit(fast.encode, bulk)
        answers = list(pool.map(lambda query: fast.encode([query]).vectors[0], queries))
    assert (np.stack(answers) * np.stack(alone)).sum(axis=1).min() >= 0.99999
    assert (job.result().vectors * expected).sum(axis=1).min() >= 0.99999


def test_a_cancelled_job_frees_its_place(fast: FastEncoder) -> None:
    batches = 0

    def cancelled() -> bool:
        nonlocal batches
        batches += 1
        return batches > 3

    with pytest.raises(Cancelled):
        fast.encode([text_of(500, i) for i in range(400)], cancelled=cancelled)
    assert np.isfinite(fast.encode(["after it"]).vectors).all()
    assert threading.active_count() < 32


def test_vectors_that_are_not_unit_come_from_the_same_graphs(tmp_path: Path) -> None:
    folder = shaped_model(replace(MINI, normalized=False), tmp_path)
    encoder = FastEncoder.build(load_model(folder, device="cuda", dtype="float16"))
    plain = load_model(folder, device="cuda", dtype="float32")
    texts = [text_of(n) for n in (2, 17, 300)] * 9
    expected = plain.encode(texts, show_progress_bar=False)
    for some in (texts[:1], texts):
        vectors = encoder.encode(some, normalize=False).vectors
        off = np.linalg.norm(vectors - expected[: len(some)], axis=1)
        assert (off <= 0.01 * np.linalg.norm(expected[: len(some)], axis=1)).all()
        unit = encoder.encode(some, normalize=True).vectors
        assert np.abs(np.linalg.norm(unit, axis=1) - 1).max() <= 1e-5


def test_memory_does_not_grow_with_the_mix_of_sizes(fast: FastEncoder) -> None:
    fast.encode([text_of(8192), *[text_of(40, i) for i in range(300)]])
    before = torch.cuda.mem_get_info()[0]
    for seed in range(40):
        chance = random.Random(seed)
        texts = [
            text_of(chance.choice([3, 20, 60, 200, 700, 3000]), i) for i in range(chance.choice([1, 7, 90]))
        ]
        fast.encode(texts, normalize=seed % 2 == 0)
    assert before - torch.cuda.mem_get_info()[0] <= 2**26


# 8-bit products ---------------------------------------------------------------------------------------------


def has_eight_bit() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9)


@pytest.mark.skipif(not has_eight_bit(), reason="needs a device with 8-bit floating-point products")
def test_8_bit_products_pass_their_gate_and_say_so(folder: Path, fast: FastEncoder) -> None:
    model = load_model(folder, device="cuda", dtype="float16")
    encoder = FastEncoder.build(model, eight_bit=True)
    assert encoder.info.dtype == "float8_e4m3"
    assert len(encoder.info.notes) == 1 and "least cosine" in encoder.info.notes[0]
    texts = [text_of(n, seed) for n in LENGTHS + LONG[:3] for seed in range(3)]
    expected = fast.encode(texts).vectors
    alone = np.concatenate([encoder.encode([text]).vectors for text in texts])
    for vectors in (encoder.encode(texts).vectors, alone):
        assert (vectors * expected).sum(axis=1).min() >= precision.LEAST_COSINE


@pytest.mark.skipif(not has_eight_bit(), reason="needs a device with 8-bit floating-point products")
@pytest.mark.parametrize(
    ("field", "wrong"), [("from_weight", 1.5), ("into", 64.0), ("from_input", float("nan"))]
)
def test_a_wrong_factor_is_caught_and_the_16_bit_products_stay(
    folder: Path, field: str, wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = precision._linear

    def spoilt(linear: Any, peak: float) -> Any:
        rounded = sound(linear, peak)
        if linear.weight.shape[0] < linear.weight.shape[1]:  # the last product of each layer
            return replace(rounded, **{field: getattr(rounded, field) * wrong})
        return rounded

    monkeypatch.setattr(precision, "_linear", spoilt)
    encoder = FastEncoder.build(load_model(folder, device="cuda", dtype="float16"), eight_bit=True)
    assert encoder.info.dtype == "float16"
    assert len(encoder.info.notes) == 1 and "8-bit products are off" in encoder.info.notes[0]
    assert np.isfinite(encoder.encode(["after it"]).vectors).all()
