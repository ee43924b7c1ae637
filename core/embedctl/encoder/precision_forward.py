"""The forward pass with 8-bit products.

The residual stream, norms, attention and sums stay in 16 and 32 bits; what enters a product is rounded to 8
bits by the kernel that makes it: the norm, the attention, the GELU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from embedctl.encoder import fused, skinny
from embedctl.encoder.architecture import Architecture, Norm
from embedctl.encoder.attention import Row, attention
from embedctl.encoder.forward import Forward, FusedSteps
from embedctl.encoder.packed_attention import packed_attention
from embedctl.encoder.precision import EightBitLayer, EightBitLinear

Stream = tuple[Tensor, Tensor]
"""The same rows twice: as they are, and in 8 bits times the factor of the product that they go into."""


class EightBitForward(Forward):
    """From a packed row, with tiles for attention, to one float32 vector a text."""

    def __init__(self, model: Architecture, layers: Sequence[EightBitLayer]) -> None:
        super().__init__(model, attention("tiled", model.heads), FusedSteps(model))
        self._eight = layers

    def _hidden(self, row: Row, wanted: Tensor | None) -> Tensor:
        model, eight = self._model, self._eight
        norm = model.embedding_norm
        stream = fused.embed_norm(
            row.ids, row.positions, model.words, model.positions, model.token_type,
            norm.gamma, norm.beta, norm.eps, eight=eight[0].qkv.into,
        )  # fmt: skip
        last = len(eight) - 1
        for number in range(len(eight)):
            after = None if number == last else eight[number + 1].qkv.into
            stream = self._eight_bit_layer(number, stream, row, after, wanted if number == last else None)
        return stream[0]

    def _eight_bit_layer(
        self, number: int, stream: Stream, row: Row, after: float | None, wanted: Tensor | None
    ) -> Stream:
        """`after`: The factor of the next layer's first product; None behind the last layer."""
        layer, eight = self._model.layers[number], self._eight[number]
        assert row.starts is not None and row.ends is not None and row.tiles is not None
        x, rounded = stream
        mixed = packed_attention(
            _linear(rounded, eight.qkv), row.starts, row.ends, row.tiles, self._model.heads, row.block,
            eight=eight.out.into,
        )  # fmt: skip
        if wanted is not None:
            mixed = mixed.view(torch.uint8).index_select(0, wanted).view(mixed.dtype)
            x = x.index_select(0, wanted)
        x, rounded = _linear_add_norm(mixed, eight.out, x, layer.attention_norm, eight.up.into)
        hidden = _expand(rounded, eight.up, eight.down.into)
        return _linear_add_norm(hidden, eight.down, x, layer.output_norm, after)


def _linear(x: Tensor, linear: EightBitLinear) -> Tensor:
    if skinny.fits(x, linear.weight):
        return skinny.linear(x, linear.weight, linear.bias, scale=linear.scale)
    return _product(x, linear)


def _expand(x: Tensor, linear: EightBitLinear, into: float) -> Tensor:
    if skinny.fits(x, linear.weight):
        return skinny.linear(x, linear.weight, linear.bias, scale=linear.scale, gelu=True, eight=into)
    return fused.gelu_eight(_product(x, linear), into)


def _linear_add_norm(
    x: Tensor, linear: EightBitLinear, residual: Tensor, norm: Norm, into: float | None
) -> Stream:
    scale = (norm.gamma, norm.beta, norm.eps)
    if skinny.fits(x, linear.weight):
        return skinny.linear_add_norm(
            x, linear.weight, linear.bias, residual, *scale, scale=linear.scale, eight=into
        )
    return fused.add_norm_(_product(x, linear), residual, *scale, eight=into)


def _product(x: Tensor, linear: EightBitLinear) -> Tensor:
    """In the bias's type. The fast accumulator loses less than the rounding of what it adds up."""
    product: Tensor = torch._scaled_mm(
        x, linear.weight.t(), linear.from_input, linear.from_weight, bias=linear.bias,
        out_dtype=linear.bias.dtype, use_fast_accum=True,
    )  # fmt: skip
    return product
