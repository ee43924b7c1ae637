"""Run by test_encoder_fast_kernels.py in a process of its own, where Triton interprets kernels on the CPU."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch.nn import functional

from embedctl.encoder import fused, skinny
from embedctl.encoder.architecture import Architecture, Layer, Linear, Norm
from embedctl.encoder.attention import Row, attention
from embedctl.encoder.forward import Forward, PlainSteps
from embedctl.encoder.packed_attention import packed_attention
from embedctl.encoder.packing import attention_tiles, pack, runs
from embedctl.encoder.precision import eight_bit_layers
from embedctl.encoder.precision_forward import EightBitForward

EIGHT = torch.float8_e4m3fn


def close(ours: torch.Tensor, theirs: torch.Tensor, within: float) -> None:
    worst = (ours.float() - theirs.float()).abs().max().item()
    assert worst <= within, f"off by {worst}, {within} is allowed"


def about(rounded: torch.Tensor, factor: float, expected: torch.Tensor) -> None:
    """On the whole as e4m3 rounds. Not number by number: Triton's interpreter loses the carry of a mantissa
    that rounds up to the next power of two."""
    assert rounded.dtype is EIGHT
    off = (rounded.float() / factor - expected.float()).abs().mean() / expected.float().abs().mean()
    assert off <= 0.2, f"off by {off:.3f} on average"


def check_attention(lengths: list[int], behind: int, block: int, heads: int = 2, depth: int = 16) -> None:
    """Each text's rows against plain attention over that text alone, with `behind` rows of nobody's."""
    tokens, width = sum(lengths) + behind, heads * depth
    qkv = torch.randn(tokens, 3 * width).half()
    qkv[sum(lengths) :] = torch.nan  # whatever lies there must not reach a text
    bounds = np.concatenate(([0], np.cumsum(lengths)))
    starts, ends = (torch.zeros(tokens, dtype=torch.int32) for _ in range(2))
    for begin, end in pairwise(bounds.tolist()):
        starts[begin:end], ends[begin:end] = begin, end
    tiles = np.concatenate((attention_tiles(lengths, block), np.zeros((2, 4), np.int32)))
    arguments = (qkv, starts, ends, torch.from_numpy(tiles), heads, block)
    mixed, eight = packed_attention(*arguments), packed_attention(*arguments, eight=8.0)
    about(eight[: sum(lengths)], 8, mixed[: sum(lengths)])
    for begin, end in pairwise(bounds.tolist()):
        q, k, v = (x.view(-1, heads, depth).transpose(0, 1).float() for x in qkv[begin:end].chunk(3, 1))
        expected = functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(-1, width)
        close(mixed[begin:end], expected, 3e-3)


def check_products(inputs: int, outputs: int, tokens: int) -> None:
    x, weight = torch.randn(tokens, inputs).half(), (torch.randn(outputs, inputs) * 0.05).half()
    bias, residual = torch.randn(outputs).half(), torch.randn(tokens, outputs).half()
    gamma, beta = torch.rand(outputs).half(), torch.rand(outputs).half()
    product = functional.linear(x.float(), weight.float(), bias.float())
    scale = (gamma, beta, 1e-5)
    close(skinny.linear(x, weight, bias), product, 5e-3)
    gelu = functional.gelu(product, approximate="tanh")
    close(skinny.linear(x, weight, bias, gelu=True), gelu, 5e-3)
    normed = functional.layer_norm(product + residual.float(), (outputs,), gamma.float(), beta.float(), 1e-5)
    close(skinny.linear_add_norm(x, weight, bias, residual, *scale)[0], normed, 5e-3)

    # The same with 8-bit inputs, which are exact here because they are rounded beforehand.
    x8, weight8 = (x * 4).to(EIGHT), (weight * 64).to(EIGHT)
    product = functional.linear(x8.float(), weight8.float()) / 256 + bias.float()
    close(skinny.linear(x8, weight8, bias, scale=1 / 256), product, 5e-3)
    gelu = functional.gelu(product, approximate="tanh")
    rounded = skinny.linear(x8, weight8, bias, scale=1 / 256, gelu=True, eight=2.0)
    about(rounded, 2, gelu)
    normed = functional.layer_norm(product + residual.float(), (outputs,), gamma.float(), beta.float(), 1e-5)
    ours, rounded = skinny.linear_add_norm(x8, weight8, bias, residual, *scale, scale=1 / 256, eight=16.0)
    close(ours, normed, 5e-3)
    about(rounded, 16, normed)


def check_eight_bit_forward() -> None:
    """A small model with 8-bit products beside itself in float32, alone and with another text beside it."""
    torch.manual_seed(1)
    model = small_model()
    layers = eight_bit_layers(model, lambda linear: 4.0)
    plain = Forward(model, attention("grouped", model.heads), PlainSteps(model))
    eight = EightBitForward(model, layers)
    for lengths in ([5], [40, 30, 3]):  # by our own products, and by torch's
        row = packed_row(lengths)
        cosines = functional.cosine_similarity(plain(row, normalize=True), eight(row, normalize=True))
        assert 0.99 < cosines.min() < 0.99999, cosines


def small_model(width: int = 128, layers: int = 2) -> Architecture:
    def linear(outputs: int, inputs: int) -> Linear:
        return Linear((torch.randn(outputs, inputs) * 0.05).half(), torch.randn(outputs).half() * 0.1)

    norm = Norm(torch.rand(width).half() + 0.5, torch.randn(width).half() * 0.1, 1e-5)
    return Architecture(
        words=torch.randn(50, width).half(),
        positions=torch.randn(60, width).half(),
        token_type=torch.randn(width).half(),
        embedding_norm=norm,
        layers=tuple(
            Layer(
                linear(3 * width, width), linear(width, width), norm,
                linear(2 * width, width), linear(width, 2 * width), norm,
            )
            for _ in range(layers)
        ),
        depth=layers, heads=4, width=width, eps=norm.eps, first_position=0, skipped_id=None, max_tokens=60,
        truncation_side="right", pooling="cls", steps=(), head=(), normalizes=True, dimension=width,
        truncate_dim=None, prompt="",
    )  # fmt: skip


def packed_row(lengths: list[int]) -> Row:
    texts = [np.random.default_rng(n).integers(0, 50, n).astype(np.int32) for n in lengths]
    batch = pack(texts, first_position=0, skipped_id=None)
    starts, ends = np.repeat(batch.bounds[:-1], lengths), np.repeat(batch.bounds[1:], lengths)
    numbers = (batch.ids, batch.positions, batch.bounds, starts, ends, attention_tiles(lengths, 16))
    ids, positions, bounds, first, last, tiles = (torch.from_numpy(part.astype(np.int32)) for part in numbers)
    return Row(ids, positions, bounds, max(lengths), runs(batch.lengths), first, last, tiles, 16)


def check_rows() -> None:
    width = 48
    words, positions, token_type = torch.randn(30, width), torch.randn(20, width), torch.randn(width)
    gamma, beta = torch.rand(width), torch.rand(width)
    ids = torch.tensor([3, 29, 5], dtype=torch.int32)
    places = torch.tensor([2, 3, 19], dtype=torch.int32)
    summed = words[ids.long()] + positions[places.long()] + token_type
    expected = functional.layer_norm(summed, (width,), gamma, beta, 1e-5)
    x, eight = fused.embed_norm(ids, places, words, positions, token_type, gamma, beta, 1e-5, eight=16.0)
    close(x, expected, 1e-5)
    about(eight, 16, expected)
    x, residual = torch.randn(3, width), torch.randn(3, width)
    expected = functional.layer_norm(x + residual, (width,), gamma, beta, 1e-5)
    x, eight = fused.add_norm_(x, residual, gamma, beta, 1e-5, eight=16.0)
    close(x, expected, 1e-5)
    about(eight, 16, expected)
    hidden = torch.randn(7, 80) * 3
    expected = functional.gelu(hidden, approximate="tanh")
    about(fused.gelu_eight(hidden, 16.0), 16, expected)
    assert fused.gelu_eight(hidden, 1e6).float().max() == 448  # cut, not infinite


def check_finish() -> None:
    x = torch.randn(5, 48)
    close(fused.finish(x, normalize=True), functional.normalize(x, dim=1), 1e-6)
    close(fused.finish(x, normalize=False), x, 0)
    for asked in (0, 1):
        flag = torch.tensor([asked], dtype=torch.int32)
        close(fused.finish(x, normalize=flag), fused.finish(x, normalize=bool(asked)), 0)
    x[1, 3], x[2, 0], x[3] = torch.inf, torch.nan, 0
    spoiled = fused.finish(x, normalize=True).isnan()
    assert spoiled[1:4].all() and not spoiled[[0, 4]].any()


if __name__ == "__main__":
    torch.manual_seed(0)
    for lengths in ([1], [16], [17], [3, 5, 1, 16, 17, 40], [70, 16, 16, 1, 1], [33, 2, 2, 2, 2, 2, 30]):
        for behind in (0, 7):
            check_attention(lengths, behind, block=16)
    check_products(inputs=1024, outputs=64, tokens=5)
    check_products(inputs=384, outputs=32, tokens=16)
    check_products(inputs=256, outputs=96, tokens=33)
    check_rows()
    check_finish()
    check_eight_bit_forward()
