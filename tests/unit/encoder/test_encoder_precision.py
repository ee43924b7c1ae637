"""8-bit products: their factors, the gate that judges them, and what happens where they cannot be had."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from embedctl.encoder.packing import pack
from tests.support.late import late
from tests.support.tiny_models import tiny_model

torch = late("torch")
precision = late("embedctl.encoder.precision")
architecture = late("embedctl.encoder.architecture")
attention = late("embedctl.encoder.attention")
factory = late("embedctl.encoder.factory")
forward = late("embedctl.encoder.forward")
loading = late("embedctl.encoder.loading")
runner = late("embedctl.encoder.runner")

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def model() -> architecture.Architecture:
    return architecture.recognise(loading.load_model(tiny_model(), device="cpu"))


def watched(model: architecture.Architecture, ids: list[int]) -> precision.PeakSteps:
    peaks = precision.PeakSteps(forward.PlainSteps(model))
    host = runner.HostRunner(
        forward.Forward(model, attention.attention("grouped", model.heads), peaks), model.device
    )
    batch = pack([np.array(ids, np.int32)], first_position=model.first_position, skipped_id=model.skipped_id)
    host.stage(batch, normalize=True).launch().collect()
    return peaks


def test_inputs_keep_their_margin_and_weights_fill_the_range(model: architecture.Architecture) -> None:
    peaks = watched(model, [0, 7, 9, 2])
    layers = precision.eight_bit_layers(model, peaks.peak)
    for layer, rounded in zip(model.layers, layers, strict=True):
        assert rounded.up.into * peaks.peak(layer.up) == pytest.approx(448 / 8)
        assert rounded.up.weight.dtype is torch.float8_e4m3fn
        assert float(rounded.up.weight.float().abs().max()) == 448
        back = rounded.up.weight.float() * rounded.up.from_weight
        assert float((back - layer.up.weight).norm() / layer.up.weight.norm()) < 0.04
        assert rounded.up.scale == pytest.approx(float(rounded.up.from_input * rounded.up.from_weight))


def test_the_peak_is_the_largest_input_of_all_that_was_seen(model: architecture.Architecture) -> None:
    first, second = watched(model, [0, 7, 2]), watched(model, [0, 11, 13, 2])
    both = watched(model, [0, 7, 2])
    for steps, x in ((first, 1.0), (both, 1e4)):
        steps.linear(torch.full((1, model.width), x), model.layers[0].qkv)
    assert both.peak(model.layers[0].qkv) == 1e4
    assert first.peak(model.layers[0].down) != second.peak(model.layers[0].down)


def unit(rows: Any) -> Any:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_the_gate_lets_rounding_pass_and_stops_what_is_worse() -> None:
    chance = np.random.default_rng(1)
    expected = unit(chance.normal(size=(20, 256)))
    off = chance.normal(size=expected.shape) / 16
    assert precision.shortfall(unit(expected + 0.05 * off), expected) is None
    assert "least cosine" in (precision.shortfall(unit(expected + 0.5 * off), expected) or "")
    one_bad = expected.copy()
    one_bad[3] = unit(expected[3:4] + 0.4 * off[3:4])[0]
    assert "least cosine 0.9" in (precision.shortfall(one_bad, expected) or "")
    one_bad[3] = np.nan
    assert precision.shortfall(one_bad, expected) == "a vector is not finite"


def test_the_gate_looks_at_similarities_too() -> None:
    """All vectors drawn towards one direction: each has hardly moved, but their order has."""
    expected = unit(np.random.default_rng(2).normal(size=(20, 256)))
    drawn = unit(expected + 0.2 * expected[0])
    assert (drawn * expected).sum(axis=1).min() > precision.LEAST_COSINE - 0.01
    assert "similarities off" in (precision.shortfall(drawn, expected) or "")


def test_without_cuda_the_model_goes_on_as_it_is_and_says_so() -> None:
    selection = factory.select_encoder(
        loading.load_model(tiny_model(), device="cpu"), factory.EncoderOptions(eight_bit=True)
    )
    info = selection.encoder.info
    assert (info.kind, info.dtype) == ("packed", "float32")
    assert any("8-bit products are off" in note for note in info.notes)
