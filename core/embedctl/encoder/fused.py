"""The steps between the matrix products as single GPU kernels, written in Triton.

A post-layer-norm encoder layer is four matrix products and attention; what stands between them moves memory
and computes little, so each step here reads its inputs once and writes its output once:

- `embed_norm`: three table look-ups, their sum and a layer norm;
- `add_norm_`: the residual sum and its layer norm, in place;
- `gelu_eight`: GELU and the rounding to 8 bits;
- `finish`: the cast to float32, the unit norm and the finite check in one pass.

The norms can round what they give to 8 bits as well, for the product that follows (see `precision`). Products
of few rows are in `skinny`, attention is in `packed_attention`.

Imported only on CUDA (`forward.FusedSteps`), since Triton is not installed everywhere.
"""

# Kernels are Triton's language, not Python: their compile-time parameters are upper case, they have no types.
# ruff: noqa: N803
# mypy: disable-error-code="untyped-decorator, no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from embedctl.encoder.precision import EIGHT_BIT


@triton.jit
def gelu(x):
    """The tanh form, as cuBLAS has it, so that a text's vector is the same alone and in a batch.

    0.5 * x * (1 + tanh(u)) is x * sigmoid(2 * u), with u = sqrt(2 / pi) * (x + 0.044715 * x ** 3).
    """
    twice = 1.5957691216057308 * x * (1.0 + 0.044715 * x * x)
    return x / (1.0 + tl.exp2(-1.4426950408889634 * twice))


@triton.jit
def to_eight(x):
    """e4m3; what is beyond its range becomes its largest number."""
    return tl.clamp(x, -448.0, 448.0, propagate_nan=tl.PropagateNan.ALL).to(tl.float8e4nv)


@triton.jit
def layer_norm(x, mask, gamma_ptr, beta_ptr, columns, width, eps):
    mean = tl.sum(x, axis=0) / width
    centred = tl.where(mask, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / width
    gamma = tl.load(gamma_ptr + columns, mask=mask, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + columns, mask=mask, other=0.0).to(tl.float32)
    return centred * tl.rsqrt(variance + eps) * gamma + beta


@triton.jit
def _embed_norm_kernel(
    out_ptr, eight_ptr, ids_ptr, places_ptr, words_ptr, positions_ptr, type_ptr, gamma_ptr, beta_ptr,
    width, eps, factor, EIGHT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    mask = columns < width
    word = tl.load(ids_ptr + row).to(tl.int64)
    place = tl.load(places_ptr + row).to(tl.int64)
    x = tl.load(words_ptr + word * width + columns, mask=mask, other=0.0).to(tl.float32)
    x += tl.load(type_ptr + columns, mask=mask, other=0.0).to(tl.float32)
    x += tl.load(positions_ptr + place * width + columns, mask=mask, other=0.0).to(tl.float32)
    y = layer_norm(x, mask, gamma_ptr, beta_ptr, columns, width, eps)
    target = row.to(tl.int64) * width + columns
    tl.store(out_ptr + target, y, mask=mask)
    if EIGHT:
        tl.store(eight_ptr + target, to_eight(y * factor), mask=mask)


@triton.jit
def _add_norm_kernel(
    x_ptr, eight_ptr, residual_ptr, gamma_ptr, beta_ptr, width, eps, factor,
    EIGHT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    columns = tl.arange(0, BLOCK)
    mask = columns < width
    places = tl.program_id(0).to(tl.int64) * width + columns
    x = tl.load(x_ptr + places, mask=mask, other=0.0).to(tl.float32)
    x += tl.load(residual_ptr + places, mask=mask, other=0.0).to(tl.float32)
    y = layer_norm(x, mask, gamma_ptr, beta_ptr, columns, width, eps)
    tl.store(x_ptr + places, y, mask=mask)
    if EIGHT:
        tl.store(eight_ptr + places, to_eight(y * factor), mask=mask)


@triton.jit
def _gelu_eight_kernel(out_ptr, x_ptr, size, factor, BLOCK: tl.constexpr):
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = places < size
    x = tl.load(x_ptr + places, mask=mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + places, to_eight(gelu(x) * factor), mask=mask)


@triton.jit
def _finish_kernel(
    out_ptr, x_ptr, unit_ptr, width, ASK: tl.constexpr, NORMALIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    mask = columns < width
    x = tl.load(x_ptr + row * width + columns, mask=mask, other=0.0).to(tl.float32)
    length = tl.sqrt(tl.sum(x * x, axis=0))
    sound = (length > 0) & (length < float("inf"))  # false for NaN too
    if ASK:
        x = tl.where(tl.load(unit_ptr) != 0, x / length, x)
    elif NORMALIZE:
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
    *,
    eight: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The input of the first layer, shape (tokens, width), and the same times `eight` in 8 bits.

    Args:
        ids, places: int32, shape (tokens,): rows of the tables `words` and `positions`.
        words, positions: Shape (n, width).
        token_type: Added to every row, shape (width,).
        eight: None leaves the 8-bit form out; the second tensor is then the first one.
    """
    width = words.shape[1]
    out = torch.empty((ids.shape[0], width), dtype=words.dtype, device=words.device)
    rounded = out if eight is None else torch.empty_like(out, dtype=EIGHT_BIT)
    block = triton.next_power_of_2(width)
    _embed_norm_kernel[(ids.shape[0],)](
        out, rounded, ids, places, words, positions, token_type, gamma, beta, width, eps, eight or 0.0,
        EIGHT=eight is not None, BLOCK=block, num_warps=norm_warps(block),
    )  # fmt: skip
    return out, rounded


def add_norm_(
    x: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, eps: float, *, eight: float | None = None
) -> tuple[Tensor, Tensor]:
    """Layer norm of `x + residual`, written over `x`, shape (tokens, width); `eight` as in `embed_norm`."""
    width = x.shape[1]
    rounded = x if eight is None else torch.empty_like(x, dtype=EIGHT_BIT)
    block = triton.next_power_of_2(width)
    _add_norm_kernel[(x.shape[0],)](
        x, rounded, residual, gamma, beta, width, eps, eight or 0.0,
        EIGHT=eight is not None, BLOCK=block, num_warps=norm_warps(block),
    )  # fmt: skip
    return x, rounded


def gelu_eight(x: Tensor, eight: float) -> Tensor:
    """GELU (tanh form) of `x`, times `eight`, in 8 bits."""
    out = torch.empty_like(x, dtype=EIGHT_BIT)
    block = 4096
    _gelu_eight_kernel[(triton.cdiv(x.numel(), block),)](out, x, x.numel(), eight, BLOCK=block, num_warps=8)
    return out


def finish(x: Tensor, *, normalize: bool | Tensor) -> Tensor:
    """`x` as float32, its rows of unit length if asked; NaN throughout a row that is zero or not finite.

    Args:
        x: Shape (texts, width), contiguous.
        normalize: A tensor of one int32 is looked at when the kernel runs, so that a captured graph can be
            asked for either.
    """
    texts, width = x.shape
    out = torch.empty((texts, width), dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(width)
    ask = isinstance(normalize, Tensor)
    _finish_kernel[(texts,)](
        out, x, normalize if ask else x, width, ASK=ask, NORMALIZE=not ask and normalize, BLOCK=block,
        num_warps=norm_warps(block),
    )  # fmt: skip
    return out


def norm_warps(block: int) -> int:
    """Sixteen bytes a thread and step in 16-bit types."""
    return min(8, max(1, block // 256))
