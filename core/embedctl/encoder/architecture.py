"""Which models the fast path understands, and where their weights are.

A model is understood when it is a sentence-transformers chain of a BERT-shaped transformer (BERT, RoBERTa,
XLM-RoBERTa: post-layer-norm, absolute positions, GELU), one pooling that a packed row can carry out by text,
and modules that work on the pooled vector alone. For anything else `recognise` raises `Unsupported` with the
reason, and the caller stays with sentence-transformers' own forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from torch import Tensor, nn
from transformers import BertModel, RobertaModel, XLMRobertaModel

from embedctl.errors import EmbedctlError

PoolingKind = Literal["cls", "mean", "lasttoken"]

_POOLINGS: tuple[PoolingKind, ...] = ("cls", "mean", "lasttoken")


class Unsupported(EmbedctlError):
    """The fast path does not know this model; `why` says what it stumbled over."""


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer norm over the last axis."""

    gamma: Tensor
    beta: Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class Linear:
    """`x @ weight.T + bias`."""

    weight: Tensor
    """Shape (out, in)."""
    bias: Tensor


@dataclass(frozen=True, slots=True)
class Layer:
    qkv: Linear
    """Queries, keys and values in one product, shape (3 * width, width)."""
    out: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    output_norm: Norm


@dataclass(frozen=True, slots=True)
class Architecture:
    """One model's weights and rules. The tensors are the model's own, not copies."""

    words: Tensor
    positions: Tensor
    token_type: Tensor
    """The row of token type 0, which every token of a single text has, shape (width,)."""
    embedding_norm: Norm
    layers: tuple[Layer, ...]
    heads: int
    width: int
    first_position: int
    """Position of a text's first token: padding index + 1 for RoBERTa and XLM-R, 0 for BERT."""
    skipped_id: int | None
    """A token that takes no position of its own: the padding token, for RoBERTa and XLM-R."""
    max_tokens: int
    pooling: PoolingKind
    head: tuple[nn.Module, ...]
    """Modules on the pooled vector, a closing `Normalize` left out."""
    normalizes: bool
    """The chain ends in `Normalize`."""
    dimension: int
    truncate_dim: int | None
    prompt: str
    """Put before every text, as `encode` would."""

    @property
    def device(self) -> torch.device:
        return self.words.device

    @property
    def dtype(self) -> torch.dtype:
        return self.words.dtype


def recognise(model: SentenceTransformer) -> Architecture:
    """Find the parts of `model` that the fast path works on.

    Queries', keys' and values' weights are joined into one tensor, and the model's own parameters become
    views of it: the model goes on working and no memory is spent twice.

    Raises:
        Unsupported: The model has a part that is not known.
    """
    modules: list[Any] = list(model)
    if not modules or type(modules[0]) is not Transformer:
        raise _unsupported(f"the first module is {_names(modules[:1])}, not Transformer")
    if len(modules) < 2 or type(modules[1]) is not Pooling:
        raise _unsupported(f"the second module is {_names(modules[1:2])}, not Pooling")
    transformer, pooling, *rest = modules
    backbone = transformer.model
    _check_backbone(transformer, backbone)
    _check_pooling(pooling)

    head: list[Any] = list(rest)
    for module in head:
        names = (getattr(module, "module_input_name", None), getattr(module, "module_output_name", None))
        if type(module) not in (Dense, Normalize) or names != ("sentence_embedding", "sentence_embedding"):
            raise _unsupported(f"it has a module {_names([module])} that works on more than the vector")
    normalizes = bool(head) and isinstance(head[-1], Normalize)
    if normalizes:
        head.pop()

    embeddings = backbone.embeddings
    skipped = None if isinstance(backbone, BertModel) else int(embeddings.padding_idx)
    first = 0 if skipped is None else skipped + 1
    limit = embeddings.position_embeddings.weight.shape[0] - first
    dimension = next(
        (m.out_features for m in reversed(head) if isinstance(m, Dense)), backbone.config.hidden_size
    )
    if model.truncate_dim is not None:
        dimension = min(dimension, model.truncate_dim)
    return Architecture(
        words=embeddings.word_embeddings.weight.detach(),
        positions=embeddings.position_embeddings.weight.detach(),
        token_type=embeddings.token_type_embeddings.weight.detach()[0],
        embedding_norm=_norm(embeddings.LayerNorm),
        layers=tuple(_layer(layer) for layer in backbone.encoder.layer),
        heads=backbone.config.num_attention_heads,
        width=backbone.config.hidden_size,
        first_position=first,
        skipped_id=skipped,
        max_tokens=min(limit, model.max_seq_length or limit),
        pooling=pooling.pooling_mode,
        head=tuple(head),
        normalizes=normalizes,
        dimension=int(dimension),
        truncate_dim=model.truncate_dim,
        prompt=(model.prompts.get(model.default_prompt_name) or "") if model.default_prompt_name else "",
    )


def _check_backbone(transformer: Any, backbone: Any) -> None:
    if type(backbone) not in (BertModel, RobertaModel, XLMRobertaModel):
        raise _unsupported(f"its transformer is a {type(backbone).__name__}")
    config = backbone.config
    if config.hidden_act != "gelu":
        raise _unsupported(f"its activation is {config.hidden_act!r}")
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        raise _unsupported(f"its positions are {config.position_embedding_type!r}")
    if config.is_decoder or config.add_cross_attention:
        raise _unsupported("it is a decoder")
    if getattr(config, "embedding_size", config.hidden_size) != config.hidden_size:
        raise _unsupported("its attention is narrower or wider than its layers")
    if transformer.tokenizer is None or not hasattr(transformer.tokenizer, "backend_tokenizer"):
        raise _unsupported("it has no tokenizer of the tokenizers library")
    if transformer.tokenizer.backend_tokenizer.post_processor is None:
        raise _unsupported("its tokenizer adds its special tokens outside the tokenizers library")
    for name in ("query_expansion", "processing_kwargs", "query_length", "document_length"):
        if getattr(transformer, name, None):
            raise _unsupported(f"its tokenizing is changed by {name}")
    if "message" in getattr(transformer, "modality_config", {}):
        raise _unsupported("it takes chat messages")


def _check_pooling(pooling: Any) -> None:
    if pooling.pooling_mode not in _POOLINGS:
        raise _unsupported(f"its pooling is {pooling.pooling_mode!r}")
    if not pooling.include_prompt:
        raise _unsupported("its pooling leaves out the prompt")


def _layer(layer: Any) -> Layer:
    attention = layer.attention.self
    return Layer(
        qkv=_join(attention.query, attention.key, attention.value),
        out=_linear(layer.attention.output.dense),
        attention_norm=_norm(layer.attention.output.LayerNorm),
        up=_linear(layer.intermediate.dense),
        down=_linear(layer.output.dense),
        output_norm=_norm(layer.output.LayerNorm),
    )


def _join(*parts: nn.Linear) -> Linear:
    weight = torch.cat([part.weight.detach() for part in parts])
    bias = torch.cat([part.bias.detach() for part in parts])
    size = parts[0].weight.shape[0]
    for index, part in enumerate(parts):
        rows = slice(index * size, (index + 1) * size)
        part.weight = nn.Parameter(weight[rows], requires_grad=False)
        part.bias = nn.Parameter(bias[rows], requires_grad=False)
    return Linear(weight, bias)


def _linear(module: Any) -> Linear:
    if type(module) is not nn.Linear or module.bias is None:
        raise _unsupported(f"one of its products is a {type(module).__name__} the fast path does not know")
    return Linear(module.weight.detach(), module.bias.detach())


def _norm(module: Any) -> Norm:
    return Norm(module.weight.detach(), module.bias.detach(), module.eps)


def _names(modules: list[Any]) -> str:
    return ", ".join(type(module).__name__ for module in modules) or "missing"


def _unsupported(why: str) -> Unsupported:
    return Unsupported("The fast path does not know this model", why=why)
