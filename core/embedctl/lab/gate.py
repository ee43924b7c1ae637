"""The gate before any verdict: a backend whose vectors are wrong is not fast, it is broken. [MLPerf]"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from embedctl.errors import BackendError
from embedctl.lab.targets import Target, fault

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NORM: Final = 1e-3
_SAME: Final = 0.9999


def gate(target: Target, texts: Sequence[str]) -> str:
    """What is wrong with the vectors of different texts; empty if nothing was found.

    It finds what makes a speed meaningless: errors, values that are not finite, wrong norms, a wrong
    dimension, one vector for all texts, an order that depends on the request. Agreement with another backend
    is `embedctl check`'s business.
    """
    import numpy as np

    try:
        together = target.embed(texts, len(texts))
        alone = target.embed(texts[-1:], 1)
    except BackendError as error:
        return error.what
    wrong = fault(together, len(texts)) or fault(alone, 1)
    if wrong:
        return wrong
    vectors = together.vectors
    expected = target.fingerprint().dimension
    if expected is not None and vectors.shape[1] != expected:
        return f"vectors of {vectors.shape[1]} dimensions where {expected} were announced"
    off = float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max())
    if off > _NORM:
        return f"vectors are not of unit norm (off by {off:.2g})"
    if _alike(vectors) > _SAME:
        return "different texts get the same vector"
    if float(vectors[-1] @ alone.vectors[0]) < 0.99:
        return "a text's vector depends on the texts beside it"
    return ""


def _alike(vectors: NDArray[np.float32]) -> float:
    """The least cosine between the first vector and the others: 1 where all are the same."""
    return float((vectors[1:] @ vectors[0]).min()) if len(vectors) > 1 else 0.0
