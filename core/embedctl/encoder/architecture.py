"""Which models the packed path understands, and where their weights are.

A model is understood when it is a sentence-transformers chain of a BERT-shaped transformer (BERT, RoBERTa,
XLM-RoBERTa: post-layer-norm, absolute positions, GELU), one pooling that a packed row can carry out by text,
and modules that work on the pooled vector alone. For anything else `recognise` raises `Unsupported` with the
reason, and the caller stays with sentence-transformers' own forward.

The weights come from a loaded model (`recognise`) or from its files (`direct`); `build` asks either for the
same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from embedctl.encoder.spec import DenseSpec, ModelSpec, PoolingKind, Residual, spec_fields
from embedctl.errors import EmbedctlError

if TYPE_CHECKING:  # takes seconds, and a direct load does without it
    from sentence_transformers import SentenceTransformer

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
class DenseStep:
    """What a Dense module does to pooled vectors, shape (texts, in) to (texts, out)."""

    weight: Tensor
    bias: Tensor | None
    activation: nn.Module
    residual: Residual
    projection: Tensor | None
    """Of a `projected` residual, shape (out, in)."""

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(functional.linear(x, self.weight, self.bias))
        if self.residual == "none":
            return y
        return y + (x if self.projection is None else functional.linear(x, self.projection))


class NormalizeStep:
    """What a Normalize module does."""

    def __call__(self, x: Tensor) -> Tensor:
        return functional.normalize(x, p=2.0, dim=-1)


@dataclass(frozen=True, slots=True)
class Architecture(ModelSpec):
    """One model's rules and weights."""

    words: Tensor
    positions: Tensor
    token_type: Tensor
    """The row of token type 0, which every token of a single text has, shape (width,)."""
    embedding_norm: Norm
    layers: tuple[Layer, ...]
    head: tuple[DenseStep | NormalizeStep, ...]
    """`steps`, ready to be called."""

    @property
    def device(self) -> torch.device:
        return self.words.device

    @property
    def dtype(self) -> torch.dtype:
        return self.words.dtype


class Weights(Protocol):
    """A model's parameters, by transformers' names for a bare backbone ("encoder.layer.0.output.dense.bias"),
    and "2.linear.weight" for a module of the chain."""

    def __call__(self, *names: str) -> Tensor:
        """The parameters of these names one after the other along their first axis."""


def build(spec: ModelSpec, weights: Weights) -> Architecture:
    """Ask for all weights of a model, once each."""

    def norm(name: str) -> Norm:
        return Norm(weights(f"{name}.weight"), weights(f"{name}.bias"), spec.eps)

    def linear(*names: str) -> Linear:
        return Linear(
            weights(*(f"{name}.weight" for name in names)), weights(*(f"{name}.bias" for name in names))
        )

    def layer(number: int) -> Layer:
        name = f"encoder.layer.{number}"
        return Layer(
            qkv=linear(*(f"{name}.attention.self.{part}" for part in ("query", "key", "value"))),
            out=linear(f"{name}.attention.output.dense"),
            attention_norm=norm(f"{name}.attention.output.LayerNorm"),
            up=linear(f"{name}.intermediate.dense"),
            down=linear(f"{name}.output.dense"),
            output_norm=norm(f"{name}.output.LayerNorm"),
        )

    def step(dense: DenseSpec) -> DenseStep:
        return DenseStep(
            weights(f"{dense.place}.linear.weight"),
            weights(f"{dense.place}.linear.bias") if dense.bias else None,
            getattr(nn, dense.activation)(),
            dense.residual,
            weights(f"{dense.place}.residual.weight") if dense.residual == "projected" else None,
        )

    return Architecture(
        **spec_fields(spec),
        words=weights("embeddings.word_embeddings.weight"),
        positions=weights("embeddings.position_embeddings.weight"),
        token_type=weights("embeddings.token_type_embeddings.weight")[0],
        embedding_norm=norm("embeddings.LayerNorm"),
        layers=tuple(layer(number) for number in range(spec.depth)),
        head=tuple(NormalizeStep() if dense is None else step(dense) for dense in spec.steps),
    )


def recognise(model: SentenceTransformer) -> Architecture:
    """Find the parts of `model` that the packed path works on.

    The tensors are the model's own, not copies. Queries', keys' and values' weights are joined into one
    tensor, and the model's own parameters become views of it: the model goes on working and no memory is
    spent twice.

    Raises:
        Unsupported: The model has a part that is not known.
    """
    return build(_specify(model), _ModelWeights(model))


def _specify(model: SentenceTransformer) -> ModelSpec:
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertModel

    modules: list[Any] = list(model)
    if not modules or type(modules[0]) is not Transformer:
        raise _unsupported(f"the first module is {_names(modules[:1])}, not Transformer")
    if len(modules) < 2 or type(modules[1]) is not Pooling:
        raise _unsupported(f"the second module is {_names(modules[1:2])}, not Pooling")
    transformer, pooling, *head = modules
    backbone = transformer.model
    _check_backbone(transformer, backbone)
    _check_pooling(pooling)
    steps = [_step(place, module) for place, module in enumerate(head, start=2)]
    normalizes = bool(head) and isinstance(head[-1], Normalize)
    if normalizes:
        steps.pop()

    embeddings = backbone.embeddings
    skipped = None if isinstance(backbone, BertModel) else int(embeddings.padding_idx)
    first = 0 if skipped is None else skipped + 1
    limit = embeddings.position_embeddings.weight.shape[0] - first
    outputs = [head[step.place - 2].out_features for step in steps if step is not None]
    dimension = outputs[-1] if outputs else backbone.config.hidden_size
    if model.truncate_dim is not None:
        dimension = min(dimension, model.truncate_dim)
    return ModelSpec(
        depth=len(backbone.encoder.layer),
        heads=backbone.config.num_attention_heads,
        width=backbone.config.hidden_size,
        eps=embeddings.LayerNorm.eps,
        first_position=first,
        skipped_id=skipped,
        max_tokens=min(limit, model.max_seq_length or limit),
        truncation_side=str(transformer.tokenizer.truncation_side),
        pooling=pooling.pooling_mode,
        steps=tuple(steps),
        normalizes=normalizes,
        dimension=int(dimension),
        truncate_dim=model.truncate_dim,
        prompt=(model.prompts.get(model.default_prompt_name) or "") if model.default_prompt_name else "",
    )


def _check_backbone(transformer: Any, backbone: Any) -> None:
    from transformers import BertModel, RobertaModel, XLMRobertaModel

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


def _step(place: int, module: Any) -> DenseSpec | None:
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    names = (getattr(module, "module_input_name", None), getattr(module, "module_output_name", None))
    if type(module) not in (Dense, Normalize) or names != ("sentence_embedding", "sentence_embedding"):
        raise _unsupported(f"it has a module {_names([module])} that works on more than the vector")
    if isinstance(module, Normalize):
        return None
    activation = module.activation_function
    name = type(activation).__name__
    plain = getattr(nn, name, None) is type(activation) and not list(activation.parameters())
    if not plain or repr(activation) != repr(type(activation)()):
        raise _unsupported(f"its Dense module has the activation {activation!r}")
    residual: Residual = "none"
    if module.use_residual:
        residual = "projected" if hasattr(module, "residual") else "input"
    return DenseSpec(place, name, module.linear.bias is not None, residual)


class _ModelWeights:
    """The weights of a loaded model (see `Weights`). Several at once become one tensor, and the model's own
    parameters views of it."""

    def __init__(self, model: SentenceTransformer) -> None:
        self._model = model
        self._backbone: nn.Module = cast(Any, model[0]).model

    def __call__(self, *names: str) -> Tensor:
        parameters = [self._find(name) for name in names]
        if len(parameters) == 1:
            return parameters[0][2].detach()
        joined = torch.cat([parameter.detach() for _, _, parameter in parameters])
        parts = torch.split(joined, [len(parameter) for _, _, parameter in parameters])
        for (module, name, _), part in zip(parameters, parts, strict=True):
            setattr(module, name, nn.Parameter(part, requires_grad=False))
        return joined

    def _find(self, name: str) -> tuple[nn.Module, str, Tensor]:
        path, _, own = name.rpartition(".")
        root: nn.Module = self._model if name[0].isdigit() else self._backbone
        module = root.get_submodule(path)
        parameter = getattr(module, own, None)
        if type(module) not in (nn.Linear, nn.LayerNorm, nn.Embedding) or not isinstance(parameter, Tensor):
            raise _unsupported(f"its part {path} is a {type(module).__name__} the fast path does not know")
        return module, own, parameter


def _names(modules: list[Any]) -> str:
    return ", ".join(type(module).__name__ for module in modules) or "missing"


def _unsupported(why: str) -> Unsupported:
    return Unsupported("The fast path does not know this model", why=why)
