"""The canary catches wrong kernels, and the next safer one is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from embedctl.encoder.canary import TEXTS, check, judge, reference_vectors
from embedctl.errors import CanaryError
from tests.support.late import late
from tests.support.tiny_models import XLM_R, tiny_model

torch = late("torch")
attention_kernels = late("embedctl.encoder.attention_kernels")
factory = late("embedctl.encoder.factory")
loading = late("embedctl.encoder.loading")

pytestmark = pytest.mark.torch

Spoil = Callable[[Any], Any]


@pytest.fixture
def model() -> Any:
    return loading.load_model(tiny_model(XLM_R), device="cpu")


def by_ladder(model: Any) -> Any:
    """What is selected where the packed path is not tried."""
    return factory.select_encoder(model, factory.EncoderOptions(fast=False))


def plant(monkeypatch: pytest.MonkeyPatch, spoil: Spoil, *, in_math: bool = False) -> None:
    """Have torch's fused attention (and math too, if asked) give `spoil` of what it should give."""
    sound = torch.nn.functional.scaled_dot_product_attention

    def attention(*args: Any, **kwargs: Any) -> Any:
        output = sound(*args, **kwargs)
        fused = torch.backends.cuda.flash_sdp_enabled()
        return spoil(output) if fused or in_math else output

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)


def not_finite(output: Any) -> Any:
    return output * float("nan")


def wrong(output: Any) -> Any:
    return output.flip(-1)


def refused(output: Any) -> Any:
    raise RuntimeError("No available kernel. Aborting execution.\nmore")


def test_a_sound_model_passes_on_the_fastest_kernel(model: Any) -> None:
    selection = by_ladder(model)
    report = selection.canary
    assert report.passed
    assert (report.texts, report.dimension, report.detail) == (len(TEXTS), 32, "")
    assert report.least_cosine == pytest.approx(1, abs=1e-5)
    assert report.worst_norm_error is not None
    assert report.worst_norm_error < 1e-5
    assert selection.encoder.info.attention == "sdpa"
    assert selection.notes == ()


@pytest.mark.parametrize(
    ("spoil", "told"), [(not_finite, "not finite"), (wrong, "cosine"), (refused, "No available kernel")]
)
def test_a_kernel_that_fails_gives_way_to_the_next_safer_one(
    model: Any, monkeypatch: pytest.MonkeyPatch, spoil: Spoil, told: str
) -> None:
    expected = factory.build_encoder(model, factory.EncoderOptions("math")).encode(["text"]).vectors
    plant(monkeypatch, spoil)
    selection = by_ladder(model)
    assert selection.encoder.info.attention == "math"
    assert len(selection.notes) == 1
    assert selection.notes[0].startswith("attention kernel sdpa failed the canary")
    assert told in selection.notes[0]
    np.testing.assert_allclose(selection.encoder.encode(["text"]).vectors, expected, atol=1e-6)


def test_a_kernel_asked_for_by_name_is_not_replaced(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, not_finite)
    with pytest.raises(CanaryError) as caught:
        factory.select_encoder(model, factory.EncoderOptions("sdpa"))
    assert "attention kernel sdpa" in caught.value.why
    assert factory.select_encoder(model, factory.EncoderOptions("eager")).encoder.info.attention == "eager"


def test_weights_that_are_broken_fail_under_every_kernel(model: Any) -> None:
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(CanaryError) as caught:
        by_ladder(model)
    assert "even under math attention" in caught.value.why
    assert "eager" in caught.value.why


def test_the_canary_can_be_asked_again(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    selection = by_ladder(model)
    assert check(selection.encoder, selection.reference).passed
    plant(monkeypatch, wrong)
    assert not check(selection.encoder, selection.reference).passed


def test_the_texts_are_of_several_lengths_and_scripts() -> None:
    lengths = sorted(len(text) for text in TEXTS)
    assert lengths[0] < 20
    assert lengths[-1] > 1500
    assert any("一" <= character <= "鿿" for text in TEXTS for character in text)


def unit(rows: int, columns: int = 8, seed: int = 0) -> Any:
    vectors = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_each_fault_of_vectors_has_its_own_words() -> None:
    good = unit(4)
    same = np.repeat(good[:1], 4, axis=0)
    assert judge(good, good, "float32", []).passed
    assert "every text gets the same vector" in judge(same, same, "float32", []).detail
    assert "norms are off" in judge(good * 1.1, good, "float32", []).detail
    assert "dimension 8 instead of 6" in judge(good, unit(4, 6), "float32", []).detail
    assert "cosine" in judge(unit(4, seed=1), good, "float32", []).detail
    assert judge(good, good, "float32", ["a text failed"]).detail == "a text failed"


def test_half_precision_may_differ_by_its_rounding_and_no_more() -> None:
    good = unit(4)
    near = good + 0.02 * unit(4, seed=2)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    assert judge(near, good, "float16", []).passed
    assert not judge(near, good, "float32", []).passed


def test_the_ladder_goes_from_fast_to_safe_and_knows_what_a_cpu_lacks() -> None:
    assert attention_kernels.ladder("auto", torch.device("cuda")) == ("sdpa", "efficient", "math", "eager")
    assert attention_kernels.ladder("auto", torch.device("cpu")) == ("sdpa", "math", "eager")
    assert attention_kernels.ladder("math", torch.device("cuda")) == ("math",)


def test_the_reference_is_computed_under_math_even_when_fused_kernels_fail(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = reference_vectors(model)
    plant(monkeypatch, not_finite)
    np.testing.assert_allclose(reference_vectors(model), expected, atol=1e-6)
