"""Do two backends find the same neighbours, and may an index of one be searched with queries of the other?

After a switch on an existing index the documents are the old backend's and the queries the new one's. That is
measured here as it happens: documents of A, queries of B.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

DEPTH: Final = 10


def nearest(queries: NDArray[Any], documents: NDArray[Any], depth: int = DEPTH) -> NDArray[np.intp]:
    """Per query the places of its nearest documents, nearest first; ties go to the earlier document.

    Args:
        queries: Shape (q, dimension), unit rows.
        documents: Shape (d, dimension), unit rows.

    Returns:
        Shape (q, min(depth, d)).
    """
    scores = queries.astype(np.float64) @ documents.astype(np.float64).T
    return np.argsort(-scores, axis=1, kind="stable")[:, :depth]


def overlap(first: NDArray[np.intp], second: NDArray[np.intp]) -> float:
    """Mean share of the neighbours that both have, whatever their order. Shapes (q, depth)."""
    shared = [len(np.intersect1d(a, b)) for a, b in zip(first, second, strict=True)]
    return float(np.mean(shared)) / float(first.shape[1])


def ndcg(found: NDArray[np.intp], relevant: Sequence[int]) -> Floats:
    """NDCG@depth per query where one document is relevant: 1 / log2(1 + its rank), 0 if it was not found."""
    hits = found == np.asarray(relevant)[:, None]
    gains = 1 / np.log2(np.arange(2, found.shape[1] + 2))
    return np.asarray((hits * gains).sum(axis=1), np.float64)
