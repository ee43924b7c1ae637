"""Products of few rows with what follows them, as GPU kernels written in Triton.

Such a product reads its weights and does little else; cuBLAS's tiles, made for more rows, leave most of the
device idle. Inputs and weights are both 16-bit, or both 8-bit with one factor for their product.

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

from embedctl.encoder.fused import gelu, layer_norm, norm_warps, to_eight
from embedctl.encoder.precision import EIGHT_BIT

MOST_ROWS = 64
_BLOCK_K = 128
_BLOCK_N = 32


# One kernel serves any number of rows: by itself, Triton would compile others for 1 and for multiples of 16.
@triton.jit(do_not_specialize=["tokens"])
def _product_kernel(
    out_ptr, x_ptr, weight_ptr, bias_ptr, tokens, outputs, scale, factor, INPUTS: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PARTS: tl.constexpr,
    BIAS: tl.constexpr, GELU: tl.constexpr, EIGHT: tl.constexpr,
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
    total *= scale
    if BIAS:
        total += tl.load(bias_ptr + columns).to(tl.float32)[None, :]
    if GELU:
        total = gelu(total)
    if EIGHT:
        tl.store(target, to_eight(total * factor), mask=exists)
    else:
        tl.store(target, total, mask=exists)


@triton.jit(do_not_specialize=["tokens"])
def _sum_norm_kernel(
    out_ptr, eight_ptr, parts_ptr, bias_ptr, residual_ptr, gamma_ptr, beta_ptr, tokens, width, eps, factor,
    PARTS: tl.constexpr, EIGHT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    mask = columns < width
    x = tl.load(residual_ptr + row * width + columns, mask=mask, other=0.0).to(tl.float32)
    x += tl.load(bias_ptr + columns, mask=mask, other=0.0).to(tl.float32)
    for part in tl.static_range(PARTS):
        x += tl.load(parts_ptr + (part * tokens + row) * width + columns, mask=mask, other=0.0)
    y = layer_norm(x, mask, gamma_ptr, beta_ptr, columns, width, eps)
    tl.store(out_ptr + row * width + columns, y, mask=mask)
    if EIGHT:
        tl.store(eight_ptr + row * width + columns, to_eight(y * factor), mask=mask)


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether the products here take these shapes, (tokens, in) and (out, in)."""
    outputs, inputs = weight.shape
    return (
        x.shape[0] <= MOST_ROWS
        and x.dtype in (torch.float16, torch.bfloat16, EIGHT_BIT)
        and inputs % _BLOCK_K == 0
        and outputs % _BLOCK_N == 0
    )


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    scale: float = 1.0,
    gelu: bool = False,
    eight: float | None = None,
) -> Tensor:
    """`scale * x @ weight.T + bias`, then GELU (tanh form) if asked, for at most `MOST_ROWS` rows.

    Args:
        eight: Give the result in 8 bits, times this; None gives it in the bias's type.
    """
    tokens, (outputs, inputs) = x.shape[0], weight.shape
    dtype = bias.dtype if eight is None else EIGHT_BIT
    out = torch.empty((tokens, outputs), dtype=dtype, device=x.device)
    _product_kernel[(outputs // _BLOCK_N, 1)](
        out, x, weight, bias, tokens, outputs, scale, eight or 0.0, INPUTS=inputs, ROWS=_rows(tokens),
        BLOCK_N=_BLOCK_N, BLOCK_K=_BLOCK_K, PARTS=1, BIAS=True, GELU=gelu, EIGHT=eight is not None,
        num_warps=4, num_stages=_stages(x),
    )  # fmt: skip
    return out


def linear_add_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    *,
    scale: float = 1.0,
    eight: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Layer norm of `residual + scale * x @ weight.T + bias`, for at most `MOST_ROWS` rows.

    The product's inputs are split over several programs, whose partial sums the norm adds up: with as few
    outputs as one layer is wide, one program for each block of outputs would not fill the device.

    Returns:
        The norm in the residual's type, and times `eight` in 8 bits (the same tensor if `eight` is None).
    """
    tokens, (outputs, inputs) = x.shape[0], weight.shape
    parts = next(parts for parts in (8, 4, 2, 1) if inputs % (parts * _BLOCK_K) == 0)
    sums = torch.empty((parts, tokens, outputs), dtype=torch.float32, device=x.device)
    long = inputs // parts > _BLOCK_K
    _product_kernel[(outputs // _BLOCK_N, parts)](
        sums, x, weight, bias, tokens, outputs, scale, 0.0, INPUTS=inputs, ROWS=_rows(tokens),
        BLOCK_N=_BLOCK_N, BLOCK_K=_BLOCK_K, PARTS=parts, BIAS=False, GELU=False, EIGHT=False,
        num_warps=2 if long else 4, num_stages=_stages(x),
    )  # fmt: skip
    out = torch.empty((tokens, outputs), dtype=residual.dtype, device=x.device)
    rounded = out if eight is None else torch.empty_like(out, dtype=EIGHT_BIT)
    block = triton.next_power_of_2(outputs)
    _sum_norm_kernel[(tokens,)](
        out, rounded, sums, bias, residual, gamma, beta, tokens, outputs, eps, eight or 0.0,
        PARTS=parts, EIGHT=eight is not None, BLOCK=block, num_warps=norm_warps(block),
    )  # fmt: skip
    return out, rounded


def _rows(tokens: int) -> int:
    return max(16, 1 << (tokens - 1).bit_length())


def _stages(x: Tensor) -> int:
    """As many blocks in flight as 96 KiB of shared memory hold, which every GPU of the last years has."""
    return min(5, 96 * 1024 // ((_rows(x.shape[0]) + _BLOCK_N) * _BLOCK_K * x.element_size()))
