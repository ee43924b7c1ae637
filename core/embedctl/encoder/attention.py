"""Attention inside each text of a packed row, three ways.

| kind | where | what it costs |
|---|---|---|
| tiled | CUDA, 16-bit, Triton | our kernel; short texts share tiles |
| varlen | CUDA, 16-bit | torch's `varlen_attn`; every text has tiles of its own |
| grouped | anywhere, any type | one `scaled_dot_product_attention` for each run of equally long texts |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from embedctl.encoder.packing import Run

AttentionKind = Literal["tiled", "varlen", "grouped"]


@dataclass(frozen=True, slots=True)
class Row:
    """A packed batch on the model's device. Index tensors are int32."""

    ids: Tensor
    positions: Tensor
    bounds: Tensor
    """Shape (texts + 1,). Behind the last text: empty texts, in a captured graph."""
    longest: int
    runs: list[Run] = field(default_factory=list)
    """For grouped attention."""
    starts: Tensor | None = None
    ends: Tensor | None = None
    tiles: Tensor | None = None
    """For tiled attention; see `packed_attention`."""
    block: int = 64


Attention = Callable[[Tensor, Row], Tensor]
"""From queries, keys and values side by side, shape (tokens, 3 * width), to shape (tokens, width)."""


def attention(kind: AttentionKind, heads: int) -> Attention:
    """The attention function of `kind`.

    Raises:
        ImportError: What `kind` needs is not installed.
    """
    if kind == "tiled":
        from embedctl.encoder.packed_attention import packed_attention

        return partial(_tiled, packed_attention, heads)
    if kind == "varlen":
        from torch.nn.attention.varlen import varlen_attn

        return partial(_varlen, varlen_attn, heads)
    return partial(_grouped, heads)


def _tiled(kernel: Callable[..., Tensor], heads: int, qkv: Tensor, row: Row) -> Tensor:
    return kernel(qkv, row.starts, row.ends, row.tiles, heads, row.block)


def _varlen(kernel: Callable[..., Any], heads: int, qkv: Tensor, row: Row) -> Tensor:
    tokens = qkv.shape[0]
    query, key, value = qkv.view(tokens, 3, heads, -1).unbind(1)
    mixed = kernel(query, key, value, row.bounds, row.bounds, row.longest, row.longest)
    rows: Tensor = mixed.reshape(tokens, -1)
    return rows


def _grouped(heads: int, qkv: Tensor, row: Row) -> Tensor:
    width = qkv.shape[1] // 3
    mixed = torch.empty((qkv.shape[0], width), dtype=qkv.dtype, device=qkv.device)
    for run in row.runs:
        rows = slice(run.first, run.first + run.texts * run.length)
        # (rows, 3 * width) -> 3 x (texts, heads, length, depth)
        query, key, value = qkv[rows].view(run.texts, run.length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        answer = functional.scaled_dot_product_attention(query, key, value)
        mixed[rows] = answer.transpose(1, 2).reshape(-1, width)
    return mixed
