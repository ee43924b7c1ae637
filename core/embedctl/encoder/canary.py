"""The canary: known texts are embedded after every load, and their vectors must be right.

A kernel that does not fit the GPU may return NaN or nonsense without raising (pytorch#176243,
GuigsEvt/dgx_spark_config#5), so every load is judged by its vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from embedctl.encoder.base import Encoded, Encoder
from embedctl.records import CanaryReport

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_PARAGRAPH = (
    "The museum opens at nine and closes at six. Eintrittskarten gibt es an der Kasse oder im Netz. "
    "Les enfants de moins de douze ans ne paient pas. El jardín está abierto hasta la puesta del sol. "
    "Билеты действительны в течение одного дня. 周一闭馆，节假日除外。 يُرجى عدم لمس المعروضات. "
    "Guided tours start every hour; 案内は日本語でも聞けます。 Ogni visitatore riceve una mappa gratuita. "
)

TEXTS: Final = (
    "embedding",
    "What is the capital of Switzerland?",
    "Ein Gerät mit einem Speicher für Prozessor und Grafik.",
    "Какая сегодня погода в Москве?",
    "向量数据库用于语义搜索。",
    "ما هي أسرع طريقة للوصول إلى المحطة؟",
    _PARAGRAPH,
    _PARAGRAPH * 5,
)
"""Six short texts, one of 108 tokens and one of 528 (as XLM-RoBERTa counts)."""

REFERENCE: Final = "the same model and dtype under math attention, one text at a time"

LEAST_COSINE: Final = {"float32": 0.9999, "float16": 0.999, "bfloat16": 0.995, "float8_e4m3": 0.97}
"""By dtype, against the reference. A sound kernel differs from math by rounding: BGE-M3-shaped models stay
within 0.99996 (float16) and 0.9996 (bfloat16) of float32, so these leave room for other models and none for a
wrong kernel. 8-bit products have passed a gate of their own by then (see `precision`)."""

_NORM_TOLERANCE = 1e-3
_SAME = 0.9999
"""When no two of the texts are less alike than this, the model returns one vector for everything."""


def reference_vectors(model: SentenceTransformer) -> NDArray[np.float32]:
    """The canary's texts under math attention; shape (len(TEXTS), dimension), NaN where that failed too."""
    from embedctl.encoder.reference import ReferenceEncoder

    return _one_by_one(ReferenceEncoder(model, attention="math")).vectors


def check(encoder: Encoder, reference: NDArray[np.float32]) -> CanaryReport:
    """Embed the texts with `encoder` and judge the vectors.

    Each text goes alone, and then all in one batch: padding selects another kernel than none does, because
    flash attention takes no mask. On a CPU the longest stays out of the batch, where padding the others to
    its length would cost seconds and show nothing new.
    """
    batched = TEXTS[:-1] if encoder.info.device == "cpu" else TEXTS
    parts = (_one_by_one(encoder), encoder.encode(batched, batch_size=len(batched)))
    vectors = np.concatenate([part.vectors for part in parts])
    reasons = [failure.what for part in parts for failure in part.failures]
    return judge(vectors, np.concatenate([reference, reference[: len(batched)]]), encoder.info.dtype, reasons)


def judge(
    vectors: NDArray[np.float32], reference: NDArray[np.float32], dtype: str, reasons: list[str]
) -> CanaryReport:
    """Hold vectors against the reference, both of shape (n, dimension); `reasons` are failures so far."""
    dimension = int(vectors.shape[1])
    norm_error: float | None = None
    cosine: float | None = None
    problems = list(dict.fromkeys(reasons))
    if dimension != reference.shape[1]:
        problems.append(f"dimension {dimension} instead of {reference.shape[1]}")
    elif not np.isfinite(reference).all():
        problems.append("not finite even under math attention: the dtype or the weights are at fault")
    elif not np.isfinite(vectors).all():
        problems.append("a vector is not finite")
    else:
        norm_error = float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max())
        cosine = float((vectors * reference).sum(axis=1).min())
        needed = LEAST_COSINE.get(dtype, LEAST_COSINE["float32"])
        if norm_error > _NORM_TOLERANCE:
            problems.append(f"norms are off by up to {norm_error:.2g}")
        if cosine < needed:
            problems.append(f"cosine {cosine:.5f} to the reference, at least {needed} is needed")
        if float((vectors @ vectors.T).min()) >= _SAME:
            problems.append("every text gets the same vector")
    return CanaryReport(
        passed=not problems,
        texts=len(TEXTS),
        dimension=dimension,
        worst_norm_error=norm_error,
        least_cosine=cosine,
        reference=REFERENCE,
        detail="; ".join(problems),
    )


def _one_by_one(encoder: Encoder) -> Encoded:
    parts = [encoder.encode([text]) for text in TEXTS]
    return Encoded(
        vectors=np.concatenate([part.vectors for part in parts]),
        token_counts=np.concatenate([part.token_counts for part in parts]),
        truncated=(),
        failures=tuple(failure for part in parts for failure in part.failures),
    )
