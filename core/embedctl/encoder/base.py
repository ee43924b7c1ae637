"""What every encoder can do: the reference over `SentenceTransformer.encode`, and the fast path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedctl.records import TextFailure


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """What is fixed once a model is loaded."""

    kind: str
    """`"reference"` (sentence-transformers' own forward) or the name of a faster path."""
    device: str
    dtype: str
    attention: str
    """The attention kernel in use, such as `sdpa`, `math`, `varlen`."""
    dimension: int
    max_tokens: int
    pooling: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Encoded:
    vectors: NDArray[np.float32]
    """Shape (n, dimension), in the order given; a failed text's row is NaN."""
    token_counts: NDArray[np.int32]
    """Shape (n,): tokens embedded per text, special tokens included."""
    truncated: tuple[int, ...]
    """Indices of texts cut at `max_tokens`."""
    failures: tuple[TextFailure, ...] = ()
    notes: tuple[str, ...] = ()


Answer = tuple[int, Encoded | Exception]
"""A submitted request's key, and what came of it."""


class Encoder(Protocol):
    """Turns texts into vectors. May be called from any thread."""

    @property
    def info(self) -> EncoderInfo: ...

    def encode(
        self,
        texts: Sequence[str],
        *,
        batch_size: int | None = None,
        normalize: bool = True,
        cancelled: Callable[[], bool] | None = None,
    ) -> Encoded:
        """Embed texts of any length and order.

        `cancelled` is asked between batches; when it says true, `Cancelled` is raised.

        Raises:
            InvalidTextError: A text is not a string; names its index. Nothing was embedded.
            BackendOutOfMemoryError: No batch size fitted, not even one text.
        """
