"""8-bit products (float8 e4m3): the factors that numbers are rounded with, and whether it may be done.

Numbers are multiplied by a fixed factor before they are rounded to 8 bits: one for each matrix of weights,
one for each product's inputs. e4m3 is a floating-point form: over 15 powers of two its relative error is the
same (at most 1/16), so that a factor need not fit closely. Weights fill its range; inputs stay `_MARGIN`
times below its largest number, as far as known texts show. An input beyond it is cut to the largest number
and costs accuracy, never a NaN. Fixed factors need no pass over the data to find a maximum, and the kernels
that make an input can round it as they write it.

What 8 bits do to a model's vectors cannot be told beforehand, so `shortfall` compares them with 16-bit ones
on texts that the factors were not taken from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import torch
from torch import Tensor

from embedctl.encoder.architecture import Architecture, Layer, Linear, Norm
from embedctl.encoder.attention import Row
from embedctl.encoder.forward import Steps
from embedctl.encoder.runner import Vectors

EIGHT_BIT: Final = torch.float8_e4m3fn
NAME: Final = "float8_e4m3"
"""As a dtype in fingerprints."""
_LARGEST: Final = torch.finfo(EIGHT_BIT).max
_MARGIN: Final = 8.0

LEAST_COSINE: Final = 0.98
MEDIAN_COSINE: Final = 0.985
WORST_SIMILARITY_ERROR: Final = 0.04
"""What 8-bit vectors must keep to beside 16-bit ones. Sound rounding gives cosines around 0.998 (README.md);
0.98 is a turn by 11 degrees, which a wrong factor exceeds at once. Neighbours are ordered by similarity: with
errors of at most 0.03, two texts can change places only if they were less than 0.06 apart."""

_LONG = (
    "A heat pump moves heat from outside air into a building; its efficiency falls as the air gets colder. "
    "Die Wärmepumpe braucht Strom, liefert aber ein Mehrfaches davon als Wärme. "
    "Le rendement dépend aussi de la température du circuit de chauffage. "
    "Насос следует обслуживать раз в год, обычно перед началом отопительного сезона. "
    "设备应安装在通风良好的地方，远离卧室的窗户。 室外機の音は夜間に気になることがあります。 "
)
GATE_TEXTS: Final = (
    "yes",
    "heat pump",
    "How do I reset my password?",
    "What does the warranty cover, and for how long?",
    "Wie lange ist die Garantie, und was deckt sie ab?",
    "¿Cuánto tarda el envío a las islas?",
    "Quels documents faut-il pour s'inscrire ?",
    "Где находится ближайшая аптека?",
    "最近的地铁站在哪里？",
    "充電に何時間かかりますか。",
    "कल बारिश होगी या नहीं?",
    "كم تبلغ تكلفة الاشتراك السنوي؟",
    "def mean(values):\n    return sum(values) / len(values)",
    "SELECT name, price FROM products WHERE stock > 0 ORDER BY price;",
    "The committee postponed the vote until the figures for the third quarter were published.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "Der Zug nach Basel fährt heute von Gleis sieben ab, mit zwanzig Minuten Verspätung.",
    "La receta lleva tomates maduros, aceite de oliva, ajo, sal y un poco de orégano.",
    "0.25 mg/kg, twice daily, for 7–10 days; max. 40 mg",
    _LONG,
    _LONG[::-1],
    _LONG * 3,
    _LONG * 8,
)
"""Texts of 3 to some 1,200 tokens. None of them is a canary text, from which the factors are taken."""


@dataclass(frozen=True, slots=True)
class EightBitLinear:
    """`(x * into).round() @ weight.T * scale + bias`, where `round` is to 8 bits."""

    weight: Tensor
    """e4m3, shape (out, in)."""
    bias: Tensor
    into: float
    scale: float
    from_input: Tensor
    from_weight: Tensor
    """float32, of one number each: what undoes the factors of inputs and weights."""


@dataclass(frozen=True, slots=True)
class EightBitLayer:
    qkv: EightBitLinear
    out: EightBitLinear
    up: EightBitLinear
    down: EightBitLinear


class PeakSteps:
    """Steps that note the largest input of every product, and leave the work to others."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._peaks: dict[int, Tensor] = {}

    def peak(self, linear: Linear) -> float:
        """The largest absolute input so far."""
        return float(self._peaks[linear.weight.data_ptr()])

    def embed(self, row: Row) -> Tensor:
        return self._steps.embed(row)

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        return self._steps.linear(self._note(x, linear), linear)

    def linear_add_norm(self, x: Tensor, linear: Linear, residual: Tensor, norm: Norm) -> Tensor:
        return self._steps.linear_add_norm(self._note(x, linear), linear, residual, norm)

    def expand(self, x: Tensor, linear: Linear) -> Tensor:
        return self._steps.expand(self._note(x, linear), linear)

    def finish(self, x: Tensor, *, normalize: bool | Tensor) -> Tensor:
        return self._steps.finish(x, normalize=normalize)

    def _note(self, x: Tensor, linear: Linear) -> Tensor:
        peak = x.detach().abs().amax().float()
        key = linear.weight.data_ptr()
        self._peaks[key] = torch.maximum(self._peaks[key], peak) if key in self._peaks else peak
        return x


def eight_bit_layers(model: Architecture, peak: Callable[[Linear], float]) -> tuple[EightBitLayer, ...]:
    """The layers' weights in 8 bits. They are copies: a byte for each weight, beside the model's own.

    Args:
        peak: The largest input that a product was seen to have.
    """
    return tuple(_layer(layer, peak) for layer in model.layers)


def _layer(layer: Layer, peak: Callable[[Linear], float]) -> EightBitLayer:
    parts: dict[str, Linear] = {field.name: getattr(layer, field.name) for field in fields(EightBitLayer)}
    return EightBitLayer(**{name: _linear(linear, peak(linear)) for name, linear in parts.items()})


def _linear(linear: Linear, peak: float) -> EightBitLinear:
    largest = float(linear.weight.abs().amax())
    into = _LARGEST / (_MARGIN * peak) if peak > 0 else 1.0
    weight_factor = _LARGEST / largest if largest > 0 else 1.0
    device = linear.weight.device
    return EightBitLinear(
        weight=(linear.weight.float() * weight_factor).to(EIGHT_BIT),
        bias=linear.bias,
        into=into,
        scale=1 / (into * weight_factor),
        from_input=torch.tensor(1 / into, device=device),
        from_weight=torch.tensor(1 / weight_factor, device=device),
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """8-bit vectors beside 16-bit ones of the same texts."""

    least_cosine: float
    median_cosine: float
    similarity_error: float
    """The most by which the cosine of two texts has changed."""

    def __str__(self) -> str:
        return (
            f"least cosine {self.least_cosine:.4f} and median {self.median_cosine:.4f} to 16 bits, "
            f"similarities off by at most {self.similarity_error:.4f}"
        )


def compare(vectors: Vectors, expected: Vectors) -> Comparison:
    """Both of shape (n, dimension), of unit length."""
    cosines = (vectors * expected).sum(axis=1)
    errors = np.abs(vectors @ vectors.T - expected @ expected.T)
    return Comparison(float(cosines.min()), float(np.median(cosines)), float(errors.max()))


def shortfall(vectors: Vectors, expected: Vectors) -> str | None:
    """Why 8-bit vectors are not good enough; None if they are."""
    if not np.isfinite(vectors).all():
        return "a vector is not finite"
    found = compare(vectors, expected)
    if not (
        found.least_cosine >= LEAST_COSINE
        and found.median_cosine >= MEDIAN_COSINE
        and found.similarity_error <= WORST_SIMILARITY_ERROR
    ):
        return str(found)
    return None
