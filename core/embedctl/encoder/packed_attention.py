"""Attention of many texts packed into one row, block-diagonal by text, as a GPU kernel written in Triton.

It covers what torch's `varlen_attn` does badly: there every text has tiles of its own, so a 19-token query
fills 15 % of a 128-row tile. Here a tile of rows spans as many texts as fit, and each row's mask is its own
text's range. The number of texts and the longest of them are not arguments of the launch, so one captured
CUDA graph serves any mix of texts of its size.

Imported only on CUDA (`attention`), since Triton is not installed everywhere.
"""

# Kernels are Triton's language, not Python: their compile-time parameters are upper case, they have no types.
# ruff: noqa: N803
# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from embedctl.encoder.fused import to_eight
from embedctl.encoder.precision import EIGHT_BIT

LOG2_E = 1.4426950408889634


@triton.jit
def _attend(
    accumulator, peak, total, query, k_ptr, v_ptr, low, high, start, end, row_stride, scale,
    MASKED: tl.constexpr, BLOCK_N: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """One online-softmax sweep over the keys of [low, high)."""
    depths = tl.arange(0, DEPTH)
    for first in range(low, high, BLOCK_N):
        keys = first + tl.arange(0, BLOCK_N)
        rows = keys.to(tl.int64) * row_stride
        if MASKED:
            inside = (keys < high)[None, :]
            k = tl.load(k_ptr + rows[None, :] + depths[:, None], mask=inside, other=0.0)
        else:
            k = tl.load(k_ptr + rows[None, :] + depths[:, None])
        scores = tl.dot(query, k)
        if MASKED:
            own = (keys[None, :] >= start[:, None]) & (keys[None, :] < end[:, None])
            scores = tl.where(own, scores, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(scores, axis=1) * scale)
        shift = new_peak
        if MASKED:  # a row whose text is not among these keys has seen no score yet
            shift = tl.where(new_peak == float("-inf"), 0.0, new_peak)
        weights = tl.exp2(scores * scale - shift[:, None])
        decay = tl.exp2(peak - shift)
        total = total * decay + tl.sum(weights, axis=1)
        accumulator = accumulator * decay[:, None]
        if MASKED:
            v = tl.load(v_ptr + rows[:, None] + depths[None, :], mask=(keys < high)[:, None], other=0.0)
        else:
            v = tl.load(v_ptr + rows[:, None] + depths[None, :])
        accumulator = tl.dot(weights.to(v.dtype), v, accumulator)
        peak = new_peak
    return accumulator, peak, total


@triton.jit
def _packed_attention_kernel(
    out_ptr, qkv_ptr, starts_ptr, ends_ptr, tiles_ptr, width, scale, factor,
    DEPTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, EIGHT: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    head = tl.program_id(1)
    first = tl.load(tiles_ptr + tile * 4)
    last = tl.load(tiles_ptr + tile * 4 + 1)
    if first >= last:
        return
    low = tl.load(tiles_ptr + tile * 4 + 2)
    high = tl.load(tiles_ptr + tile * 4 + 3)
    shared = high == 0
    high = tl.where(shared, last, high)

    rows = first + tl.arange(0, BLOCK_M)
    exists = rows < last
    start = tl.load(starts_ptr + rows, mask=exists, other=0)
    end = tl.load(ends_ptr + rows, mask=exists, other=0)
    row_stride = 3 * width
    depths = tl.arange(0, DEPTH)
    offsets = rows.to(tl.int64)
    q_ptr = qkv_ptr + head * DEPTH
    query = tl.load(q_ptr + offsets[:, None] * row_stride + depths[None, :], mask=exists[:, None], other=0.0)
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    accumulator = tl.zeros([BLOCK_M, DEPTH], tl.float32)

    # Inside one long text every key is every row's own: no mask until the last, ragged block.
    whole = tl.where(shared, low, low + (high - low) // BLOCK_N * BLOCK_N)
    accumulator, peak, total = _attend(
        accumulator, peak, total, query, q_ptr + width, q_ptr + 2 * width, low, whole, start, end,
        row_stride, scale, False, BLOCK_N, DEPTH,
    )  # fmt: skip
    accumulator, peak, total = _attend(
        accumulator, peak, total, query, q_ptr + width, q_ptr + 2 * width, whole, high, start, end,
        row_stride, scale, True, BLOCK_N, DEPTH,
    )  # fmt: skip
    mixed = accumulator / tl.where(total == 0.0, 1.0, total)[:, None]
    target = out_ptr + offsets[:, None] * width + head * DEPTH + depths[None, :]
    if EIGHT:
        tl.store(target, to_eight(mixed * factor), mask=exists[:, None])
    else:
        tl.store(target, mixed, mask=exists[:, None])


def packed_attention(
    qkv: Tensor,
    starts: Tensor,
    ends: Tensor,
    tiles: Tensor,
    heads: int,
    block: int,
    *,
    eight: float | None = None,
) -> Tensor:
    """Attention of each row over the rows of its own text.

    Args:
        qkv: Shape (tokens, 3 * width), 16-bit: queries, keys, values side by side.
        starts, ends: int32, shape (tokens,): the range of each row's text.
        tiles: int32, shape (n, 4), of `packing.attention_tiles`; empty tiles (all 0) do nothing.
        block: The tiles' greatest number of rows.
        eight: Give the result in 8 bits, times this; None gives it in the type of `qkv`.

    Returns:
        Shape (tokens, width). Rows in no tile are left as they were in memory.
    """
    tokens, triple = qkv.shape
    width = triple // 3
    depth = width // heads
    out = torch.empty((tokens, width), dtype=qkv.dtype if eight is None else EIGHT_BIT, device=qkv.device)
    _packed_attention_kernel[(tiles.shape[0], heads)](
        out, qkv, starts, ends, tiles, width, depth**-0.5 * LOG2_E, eight or 0.0,
        DEPTH=depth, BLOCK_M=block, BLOCK_N=min(block, 64), EIGHT=eight is not None,
        num_warps={64: 4, 128: 8}.get(block, 2), num_stages=3,
    )  # fmt: skip
    return out
