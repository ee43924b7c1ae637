"""Searching by cosine, and what the measures of the field say of it.

The measures are ir-measures' (trec_eval underneath). It re-sorts equal scores by name, and keeps scores as
32-bit floats, in which near scores become equal; so it is given ranks in place of scores, and the order is
decided here alone: by cosine, and among equal cosines by the order of the corpus.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from embedctl.errors import UsageError
from embedctl.records import QualityMeasure

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEPTH: Final = 100
"""Documents found per query."""
MEASURES: Final[dict[QualityMeasure, str]] = {
    "ndcg@10": "nDCG@10",
    "mrr@10": "RR@10",
    "recall@100": "R@100",
}
"""Ours, and ir-measures' name."""
_SAME: Final = 9
"""Cosines that agree to so many decimals are equal: equal vectors then tie, wherever their rows lie."""
_ABSENT: Final = np.intp(-1)


class Search:
    """The nearest documents of a set of queries, found while the documents come in, block after block.

    Memory: the queries, and `depth` documents per query; a corpus of millions is never held as vectors.

    Args:
        queries: Shape (q, dimension), of any norm; a query that is not finite finds nothing.
    """

    def __init__(self, queries: NDArray[Any], depth: int = DEPTH) -> None:
        self._queries, self._usable = _unit(queries)
        self._depth = depth
        self._seen = 0
        shape = (len(self._queries), depth)
        self._scores = np.full(shape, -np.inf)
        self._places = np.full(shape, _ABSENT, np.intp)

    def add(self, documents: NDArray[Any]) -> None:
        """Search the next documents, shape (d, dimension); rows that are not finite are never found."""
        rows, usable = _unit(documents)
        scores = np.round(self._queries @ rows.T, _SAME)
        scores[:, ~usable] = -np.inf
        # Only what beats the last one kept: of equal cosines the earlier document stays.
        at_query, at_row = np.nonzero(scores > self._scores[:, -1:])
        starts = np.searchsorted(at_query, np.arange(len(self._queries) + 1))
        for query in np.unique(at_query):
            new = at_row[starts[query] : starts[query + 1]]
            self._keep(int(query), scores[query, new], new + self._seen)
        self._seen += len(rows)

    def found(self) -> list[NDArray[np.intp]]:
        """Per query the places of its nearest documents, nearest first, at most `depth`."""
        return [
            places[places != _ABSENT] if usable else places[:0]
            for places, usable in zip(self._places, self._usable.tolist(), strict=True)
        ]

    def _keep(self, query: int, scores: NDArray[np.float64], places: NDArray[np.intp]) -> None:
        together = np.concatenate((self._scores[query], scores))
        where = np.concatenate((self._places[query], places))
        # Old ones come first and places rise, so that a stable sort leaves the earlier document in front.
        best = np.argsort(-together, kind="stable")[: self._depth]
        self._scores[query], self._places[query] = together[best], where[best]


def measure(
    found: Mapping[str, Sequence[str]], relevant: Mapping[str, Mapping[str, int]]
) -> dict[QualityMeasure, dict[str, float]]:
    """Each measure per query; a query that found nothing has 0.

    Args:
        found: Names of documents by query, nearest first.
        relevant: Grade by document, by query.

    Raises:
        UsageError: ir-measures is not installed.
    """
    try:
        import ir_measures
    except ImportError as error:
        raise UsageError(
            "Retrieval quality cannot be measured here",
            why="the package ir-measures is not installed",
            remedy="pip install 'embedctl[quality]' (on Linux on Arm it is built, with a C compiler)",
        ) from error
    kinds = {ir_measures.parse_measure(theirs): ours for ours, theirs in MEASURES.items()}
    ranked = {
        query: {document: float(len(documents) - rank) for rank, document in enumerate(documents)}
        for query, documents in found.items()
    }
    values: dict[QualityMeasure, dict[str, float]] = {ours: dict.fromkeys(relevant, 0.0) for ours in MEASURES}
    for one in ir_measures.iter_calc(list(kinds), {q: dict(g) for q, g in relevant.items()}, ranked):
        values[kinds[one.measure]][one.query_id] = float(one.value)
    return values


def names_of(
    found: Iterable[NDArray[np.intp]], queries: Sequence[str], documents: Sequence[str]
) -> dict[str, list[str]]:
    """Places as names, by query."""
    return {
        query: [documents[int(place)] for place in places]
        for query, places in zip(queries, found, strict=True)
    }


def _unit(rows: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Rows of unit norm, and which of them are any good; the others are 0."""
    wide = rows.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    good = np.asarray(np.isfinite(scaled).all(axis=1))
    return np.where(good[:, None], scaled, 0.0), good
