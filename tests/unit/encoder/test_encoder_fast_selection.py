"""The packed path is what a load gets, unless it does not know the model or gives wrong vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.late import late
from tests.support.tiny_models import XLM_R, tiny_model

torch = late("torch")
fast = late("embedctl.encoder.fast")
factory = late("embedctl.encoder.factory")
loading = late("embedctl.encoder.loading")

pytestmark = pytest.mark.torch


@pytest.fixture
def model() -> Any:
    return loading.load_model(tiny_model(XLM_R), device="cpu")


def test_a_known_model_gets_the_packed_path(model: Any) -> None:
    selection = factory.select_encoder(model, factory.EncoderOptions())
    assert selection.encoder.info.kind == "packed"
    assert selection.canary.passed
    assert selection.notes == ()


def test_a_kernel_asked_for_by_name_gets_the_reference(model: Any) -> None:
    assert factory.select_encoder(model, factory.EncoderOptions("math")).encoder.info.kind == "reference"


def test_an_unknown_model_falls_back_and_says_why(model: Any) -> None:
    model[1].pooling_mode = "max"
    selection = factory.select_encoder(model, factory.EncoderOptions())
    assert selection.encoder.info.kind == "reference"
    assert selection.canary.passed
    (note,) = selection.notes
    assert note.startswith("the packed path is not used") and "pooling is 'max'" in note


def test_a_packed_path_that_fails_the_canary_falls_back_and_says_why(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = factory.build_encoder(model, factory.EncoderOptions("math")).encode(["text"]).vectors
    encode = fast.FastEncoder.encode

    def wrong(self: Any, texts: list[str], **options: Any) -> Any:
        encoded = encode(self, texts, **options)
        encoded.vectors[:] = np.roll(encoded.vectors, 1, axis=1)
        return encoded

    monkeypatch.setattr(fast.FastEncoder, "encode", wrong)
    selection = factory.select_encoder(model, factory.EncoderOptions())
    assert selection.encoder.info.kind == "reference"
    assert "cosine" in selection.notes[0]
    np.testing.assert_allclose(selection.encoder.encode(["text"]).vectors, expected, atol=1e-6)


@pytest.mark.parametrize("raises", [False, True])
def test_attention_that_is_not_finite_or_raises_is_not_taken_for_agreement(
    model: Any, monkeypatch: pytest.MonkeyPatch, raises: bool
) -> None:
    sound = torch.nn.functional.scaled_dot_product_attention

    def attention(*args: Any, **kwargs: Any) -> Any:
        if not torch.backends.cuda.flash_sdp_enabled():
            return sound(*args, **kwargs)
        if raises:
            raise RuntimeError("No available kernel.")
        return sound(*args, **kwargs) * float("nan")

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    selection = factory.select_encoder(model, factory.EncoderOptions())
    assert selection.encoder.info.kind == "reference"
    assert selection.encoder.info.attention == "math"
