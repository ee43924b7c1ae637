"""What the packed path has to know of a model besides its weights. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

PoolingKind = Literal["cls", "mean", "lasttoken"]
Residual = Literal["none", "input", "projected"]


@dataclass(frozen=True, slots=True)
class DenseSpec:
    """A Dense module: a product on the pooled vector, and a function of each number."""

    place: int
    """In the chain of modules; names its weights."""
    activation: str
    """A class in torch.nn."""
    bias: bool
    residual: Residual
    """What is added to the product: nothing, the module's input, or a product of it."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model's shape and rules, as sentence-transformers understood them."""

    depth: int
    """Layers."""
    heads: int
    width: int
    eps: float
    """Of every layer norm."""
    first_position: int
    """Position of a text's first token: padding index + 1 for RoBERTa and XLM-R, 0 for BERT."""
    skipped_id: int | None
    """A token that takes no position of its own: the padding token, for RoBERTa and XLM-R."""
    max_tokens: int
    truncation_side: str
    """Where texts beyond `max_tokens` lose tokens: `right` or `left`."""
    pooling: PoolingKind
    steps: tuple[DenseSpec | None, ...]
    """What is done to the pooled vector; None stands for Normalize. A closing Normalize is left out."""
    normalizes: bool
    """The chain ends in Normalize."""
    dimension: int
    truncate_dim: int | None
    prompt: str
    """Put before every text, as `encode` would."""


def spec_fields(spec: ModelSpec) -> dict[str, Any]:
    """The fields of `ModelSpec` by name, also of a record that has more."""
    return {field.name: getattr(spec, field.name) for field in fields(ModelSpec)}


def to_json(spec: ModelSpec) -> dict[str, Any]:
    steps = [None if step is None else asdict(step) for step in spec.steps]
    return {**spec_fields(spec), "steps": steps}


def from_json(values: Mapping[str, Any]) -> ModelSpec:
    """The inverse of `to_json`.

    Raises:
        TypeError, KeyError: These are not the fields of a spec.
    """
    steps = tuple(None if step is None else DenseSpec(**step) for step in values["steps"])
    return ModelSpec(**{**values, "steps": steps})
