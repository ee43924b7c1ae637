"""Run by test_encoder_fast_kernels.py in a process of its own, where Triton interprets kernels on the CPU."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch.nn import functional

from embedctl.encoder import fused
from embedctl.encoder.packing import attention_tiles


def close(ours: torch.Tensor, theirs: torch.Tensor, within: float) -> None:
    worst = (ours.float() - theirs.float()).abs().max().item()
    assert worst <= within, f"off by {worst}, {within} is allowed"


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
    mixed = fused.packed_attention(qkv, starts, ends, torch.from_numpy(tiles), heads, block)
    for begin, end in pairwise(bounds.tolist()):
        q, k, v = (x.view(-1, heads, depth).transpose(0, 1).float() for x in qkv[begin:end].chunk(3, 1))
        expected = functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(-1, width)
        close(mixed[begin:end], expected, 3e-3)


def check_products(inputs: int, outputs: int, tokens: int) -> None:
    x, weight = torch.randn(tokens, inputs).half(), (torch.randn(outputs, inputs) * 0.05).half()
    bias, residual = torch.randn(outputs).half(), torch.randn(tokens, outputs).half()
    gamma, beta = torch.rand(outputs).half(), torch.rand(outputs).half()
    product = functional.linear(x.float(), weight.float(), bias.float())
    assert fused.fits_skinny(x, weight)
    close(fused.skinny_linear(x, weight, bias), product, 5e-3)
    close(fused.skinny_linear(x, weight, bias, gelu=True), functional.gelu(product, approximate="tanh"), 5e-3)
    normed = functional.layer_norm(product + residual.float(), (outputs,), gamma.float(), beta.float(), 1e-5)
    close(fused.skinny_linear_add_norm(x, weight, bias, residual, gamma, beta, 1e-5), normed, 5e-3)


def check_rows() -> None:
    width = 48
    words, positions, token_type = torch.randn(30, width), torch.randn(20, width), torch.randn(width)
    gamma, beta = torch.rand(width), torch.rand(width)
    ids = torch.tensor([3, 29, 5], dtype=torch.int32)
    places = torch.tensor([2, 3, 19], dtype=torch.int32)
    summed = words[ids.long()] + positions[places.long()] + token_type
    expected = functional.layer_norm(summed, (width,), gamma, beta, 1e-5)
    close(fused.embed_norm(ids, places, words, positions, token_type, gamma, beta, 1e-5), expected, 1e-5)
    x, residual = torch.randn(3, width), torch.randn(3, width)
    expected = functional.layer_norm(x + residual, (width,), gamma, beta, 1e-5)
    close(fused.add_norm_(x, residual, gamma, beta, 1e-5), expected, 1e-5)


def check_finish() -> None:
    x = torch.randn(5, 48)
    close(fused.finish(x, normalize=True), functional.normalize(x, dim=1), 1e-6)
    close(fused.finish(x, normalize=False), x, 0)
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
