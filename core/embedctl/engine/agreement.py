"""Do two backends give the same vectors? A quick look at a few texts before a switch.

The lab measures parity properly; this only keeps an application from being switched to something that is
plainly another model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from embedctl.backends.base import Backend, EmbedRequest
from embedctl.errors import SwitchError

if TYPE_CHECKING:
    from embedctl.progress import CancelToken
    from embedctl.records.backends import Vectors

WARN_BELOW: Final = 0.99
"""Least cosine under which a switch warns. Identical weights give ≥ 0.999 across engines (fp16 rounding)."""

TEXTS: Final = (
    "How do I reset my password?",
    "The memory of this machine is shared by the processor and the graphics unit.",
    "Wie hoch ist der Berg, an dessen Fuß die Stadt liegt?",
    "¿Cuál es la capital de la provincia más grande?",
    "这座桥是什么时候建成的？",
    "متى بدأت الحرب وكم سنة استمرت؟",
    "Какие книги написал этот автор?",
    "def cosine(a, b): return a @ b / (norm(a) * norm(b))",
)


def known_vectors(backend: Backend, *, seconds: float = 60.0, cancel: CancelToken | None = None) -> Vectors:
    """The backend's vectors of `TEXTS`: shape (len(TEXTS), dimension).

    Raises:
        BackendError: It could not embed, or not within `seconds`.
        Cancelled: `cancel` was set.
    """
    return backend.embed(EmbedRequest(TEXTS, timeout=seconds, cancel=cancel)).vectors


def least_cosine(first: Vectors, second: Vectors) -> float:
    """The least per-text cosine between two backends' vectors of `TEXTS`.

    Vectors of different dimension do not agree at all: 0.0. Not finite counts as 0.0, too.
    """
    import numpy as np

    if first.shape != second.shape:
        return 0.0
    cosines = np.sum(first.astype(np.float64) * second, axis=1)
    return float(np.min(np.nan_to_num(cosines, nan=0.0)))


def require_agreement(active: Backend, candidate: Backend) -> None:
    """Check that the candidate's vectors may stand beside the active backend's in one index.

    Raises:
        SwitchError: They may not.
        BackendError: One of the two could not embed.
    """
    agreement = least_cosine(known_vectors(active), known_vectors(candidate))
    if agreement < WARN_BELOW:
        raise SwitchError(
            f"No request is shared with {candidate.name}",
            why=f"its vectors are not those of {active.name}: least cosine {agreement:.4f}, "
            f"under {WARN_BELOW}",
            remedy="compare them with a shadow alone, which answers nobody",
        )
