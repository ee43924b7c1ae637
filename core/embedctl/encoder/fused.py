"""The steps between the matrix products as single GPU kernels, written in Triton.

A post-layer-norm encoder layer is four matrix products and attention; what stands between them moves memory
and computes little, so each step here reads its inputs once and writes its output once:

- `embed_norm`: three table look-ups, their sum and a layer norm;
- `add_norm_`: the residual sum and its layer norm, in place;
- `skinny_linear`, `skinny_linear_add_norm`: products of few rows, with what follows them;
- `packed_attention`: attention of many texts packed into one row, block-diagonal by text;
- `finish`: the cast to float32, the unit norm and the finite check in one pass.

`packed_attention` covers what torch's `varlen_attn` does badly: there every text has tiles of its own, so a
19-token query fills 15 % of a 128-row tile. Here a tile of rows spans as many texts as fit, and each row's
mask is its own text's range. The number of texts and the longest of them are not arguments of the launch, so
one captured CUDA graph serves any mix of texts of its size.

Imported only on CUDA (`forward.FusedSteps`, `attention`), since Triton is not installed everywhere.
"""

# Kernels are Triton's language, not Python: their compile-time parameters are upper case, they have no types.
# ruff: noqa: N803
# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = 1.4426950408889634


@triton.jit
def _layer_norm(x, mask, gamma_ptr, beta_ptr, columns, width, eps):
    mean = tl.sum(x, axis=0) / width
    centred = tl.where(mask, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / width
    gamma = tl.load(gamma_ptr + columns, mask=mask, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + columns, mask=mask, other=0.0).to(tl.float32)
    return centred * tl.rsqrt(variance + eps) * gamma + beta


@triton.jit
def _embed_norm_kernel(
    out_ptr, ids_ptr, places_ptr, words_ptr, positions_ptr, type_ptr, gamma_ptr, beta_ptr,
    width, eps, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    mask = columns < width
    word = tl.load(ids_ptr + row).to(tl.int64)
    place = tl.load(places_ptr + row).to(tl.int64)
    x = tl.load(words_ptr + word * width + columns, mask=mask, other=0.0).to(tl.float32)
    x += tl.load(type_ptr + columns, mask=mask, other=0.0).to(tl.float32)
    x += tl.load(positions_ptr + place * width + columns, mask=mask, other=0.0).to(tl.float32)
    y = _layer_norm(x, mask, gamma_ptr, beta_ptr, columns, width, eps)
    tl.store(out_ptr + row.to(tl.int64) * width + columns, y, mask=mask)


@triton.jit
def _add_norm_kernel(x_ptr, residual_ptr, gamma_ptr, beta_ptr, width, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    mask = columns < width
    x = tl.load(x_ptr + row * width + columns, mask=mask, other=0.0).to(tl.float32)
    x += tl.load(residual_ptr + row * width + columns, mask=mask, other=0.0).to(tl.float32)
    y = _layer_norm(x, mask, gamma_ptr, beta_ptr, columns, width, eps)
    tl.store(x_ptr + row * width + columns, y, mask=mask)


@triton.jit
def _gelu(x):
    """The tanh form, as cuBLAS has it, so that a text's vector is the same alone and in a batch.

    0.5 * x * (1 + tanh(u)) is x * sigmoid(2 * u), with u = sqrt(2 / pi) * (x + 0.044715 * x ** 3).
    """
    twice = 1.5957691216057308 * x * (1.0 + 0.044715 * x * x)
    return x / (1.0 + tl.exp2(-1.4426950408889634 * twice))


@triton.jit
def _skinny_kernel(
    out_ptr, x_ptr, weight_ptr, bias_ptr, tokens, outputs, INPUTS: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PARTS: tl.constexpr,
    BIAS: tl.constexpr, GELU: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(1)
    rows = tl.arange(0, ROWS)
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    exists = (rows < tokens)[:, None]
    share: tl.constexpr = INPUTS // PARTS
    total = tl.zeros([ROWS, BLOCK_N], tl.float32)
    for first in range(0, share, BLOCK_K):
        places = part * share + first + tl.arange(0, BLOCK_K)
        x = tl.load(x_ptr + rows[:, None] * INPUTS + places[None, :], mask=exists, other=0.0)
        weight = tl.load(weight_ptr + columns[None, :].to(tl.int64) * INPUTS + places[:, None])
        total = tl.dot(x, weight, total)
    target = out_ptr + part * tokens * outputs + rows[:, None] * outputs + columns[None, :]
    if BIAS:
        total += tl.load(bias_ptr + columns).to(tl.float32)[None, :]
    if GELU:
        total = _gelu(total)
    tl.store(target, total, mask=exists)


@triton.jit
def _sum_norm_kernel(
    out_ptr, parts_ptr, bias_ptr, residual_ptr, gamma_ptr, beta_ptr, tokens, width, eps,
    PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    mask = columns < width
    x = tl.load(residual_ptr + row * width + columns, mask=mask, other=0.0).to(tl.float32)
    x += tl.load(bias_ptr + columns, mask=mask, other=0.0).to(tl.float32)
    for part in tl.static_range(PARTS):
        x += tl.load(parts_ptr + (part * tokens + row) * width + columns, mask=mask, other=0.0)
    y = _layer_norm(x, mask, gamma_ptr, beta_ptr, columns, width, eps)
    tl.store(out_ptr + row * width + columns, y, mask=mask)


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
    out_ptr, qkv_ptr, starts_ptr, ends_ptr, tiles_ptr, width, scale,
    DEPTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
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
    tl.store(out_ptr + offsets[:, None] * width + head * DEPTH + depths[None, :], mixed, mask=exists[:, None])


@triton.jit
def _finish_kernel(out_ptr, x_ptr, width, NORMALIZE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    mask = columns < width
    x = tl.load(x_ptr + row * width + columns, mask=mask, other=0.0).to(tl.float32)
    length = tl.sqrt(tl.sum(x * x, axis=0))
    sound = (length > 0) & (length < float("inf"))  # false for NaN too
    if NORMALIZE:
        x = x / length
    x = tl.where(sound, x, float("nan"))
    tl.store(out_ptr + row * width + columns, x, mask=mask)


def embed_norm(
    ids: Tensor,
    places: Tensor,
    words: Tensor,
    positions: Tensor,
    token_type: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
) -> Tensor:
    """The input of the first layer, shape (tokens, width).

    Args:
        ids, places: int32, shape (tokens,): rows of the tables `words` and `positions`.
        words, positions: Shape (n, width).
        token_type: Added to every row, shape (width,).
    """
    width = words.shape[1]
    out = torch.empty((ids.shape[0], width), dtype=words.dtype, device=words.device)
    block = triton.next_power_of_2(width)
    _embed_norm_kernel[(ids.shape[0],)](
        out, ids, places, words, positions, token_type, gamma, beta, width, eps,
        BLOCK=block, num_warps=_norm_warps(block),
    )  # fmt: skip
    return out


def add_norm_(x: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """Layer norm of `x + residual`, written over `x`; shape (tokens, width)."""
    width = x.shape[1]
    block = triton.next_power_of_2(width)
    _add_norm_kernel[(x.shape[0],)](
        x, residual, gamma, beta, width, eps, BLOCK=block, num_warps=_norm_warps(block)
    )
    return x


SKINNY_ROWS = 64
"""Most rows of the products below."""
_BLOCK_K = 128
_BLOCK_N = 32


def fits_skinny(x: Tensor, weight: Tensor) -> bool:
    """Whether the skinny products take these shapes, (tokens, in) and (out, in)."""
    outputs, inputs = weight.shape
    return (
        x.shape[0] <= SKINNY_ROWS
        and x.dtype in (torch.float16, torch.bfloat16)
        and inputs % _BLOCK_K == 0
        and outputs % _BLOCK_N == 0
    )


def skinny_linear(x: Tensor, weight: Tensor, bias: Tensor, *, gelu: bool = False) -> Tensor:
    """`x @ weight.T + bias`, then GELU (tanh form) if asked, for at most `SKINNY_ROWS` rows.

    Such a product reads its weights and does little else; cuBLAS's tiles, made for more rows, leave most of
    the device idle.
    """
    tokens, (outputs, inputs) = x.shape[0], weight.shape
    out = torch.empty((tokens, outputs), dtype=x.dtype, device=x.device)
    _skinny_kernel[(outputs // _BLOCK_N, 1)](
        out, x, weight, bias, tokens, outputs, INPUTS=inputs, ROWS=_rows(tokens), BLOCK_N=_BLOCK_N,
        BLOCK_K=_BLOCK_K, PARTS=1, BIAS=True, GELU=gelu, num_warps=4, num_stages=_stages(tokens),
    )  # fmt: skip
    return out


def skinny_linear_add_norm(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, eps: float
) -> Tensor:
    """Layer norm of `residual + x @ weight.T + bias`, for at most `SKINNY_ROWS` rows.

    The product's inputs are split over several programs, whose partial sums the norm adds up: with as few
    outputs as one layer is wide, one program for each block of outputs would not fill the device.
    """
    tokens, (outputs, inputs) = x.shape[0], weight.shape
    parts = next(parts for parts in (8, 4, 2, 1) if inputs % (parts * _BLOCK_K) == 0)
    sums = torch.empty((parts, tokens, outputs), dtype=torch.float32, device=x.device)
    long = inputs // parts > _BLOCK_K
    _skinny_kernel[(outputs // _BLOCK_N, parts)](
        sums, x, weight, bias, tokens, outputs, INPUTS=inputs, ROWS=_rows(tokens), BLOCK_N=_BLOCK_N,
        BLOCK_K=_BLOCK_K, PARTS=parts, BIAS=False, GELU=False, num_warps=2 if long else 4,
        num_stages=_stages(tokens),
    )  # fmt: skip
    out = torch.empty((tokens, outputs), dtype=x.dtype, device=x.device)
    block = triton.next_power_of_2(outputs)
    _sum_norm_kernel[(tokens,)](
        out, sums, bias, residual, gamma, beta, tokens, outputs, eps,
        PARTS=parts, BLOCK=block, num_warps=_norm_warps(block),
    )  # fmt: skip
    return out


def _rows(tokens: int) -> int:
    return max(16, 1 << (tokens - 1).bit_length())


def _stages(tokens: int) -> int:
    """As many blocks in flight as 96 KiB of shared memory hold, which every GPU of the last years has."""
    return min(5, 96 * 1024 // ((_rows(tokens) + _BLOCK_N) * _BLOCK_K * 2))


def _norm_warps(block: int) -> int:
    """Sixteen bytes a thread and step in 16-bit types."""
    return min(8, max(1, block // 256))


def packed_attention(
    qkv: Tensor, starts: Tensor, ends: Tensor, tiles: Tensor, heads: int, block: int
) -> Tensor:
    """Attention of each row over the rows of its own text.

    Args:
        qkv: Shape (tokens, 3 * width), 16-bit: queries, keys, values side by side.
        starts, ends: int32, shape (tokens,): the range of each row's text.
        tiles: int32, shape (n, 4), of `packing.attention_tiles`; empty tiles (all 0) do nothing.
        block: The tiles' greatest number of rows.

    Returns:
        Shape (tokens, width). Rows in no tile are left as they were in memory.
    """
    tokens, triple = qkv.shape
    width = triple // 3
    depth = width // heads
    out = torch.empty((tokens, width), dtype=qkv.dtype, device=qkv.device)
    _packed_attention_kernel[(tiles.shape[0], heads)](
        out, qkv, starts, ends, tiles, width, depth**-0.5 * LOG2_E,
        DEPTH=depth, BLOCK_M=block, BLOCK_N=min(block, 64), num_warps={64: 4, 128: 8}.get(block, 2),
        num_stages=3,
    )  # fmt: skip
    return out


def finish(x: Tensor, *, normalize: bool) -> Tensor:
    """`x` as float32, its rows of unit length if asked; NaN throughout a row that is zero or not finite.

    Args:
        x: Shape (texts, width), contiguous.
    """
    texts, width = x.shape
    out = torch.empty((texts, width), dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(width)
    _finish_kernel[(texts,)](out, x, width, NORMALIZE=normalize, BLOCK=block, num_warps=_norm_warps(block))
    return out
