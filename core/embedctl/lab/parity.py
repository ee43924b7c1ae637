"""Parity: how far two backends' vectors of the same texts agree, text by text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from embedctl.records import ParityGroup, WorstText
from embedctl.similarity import cosines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embedctl.similarity import Cosines

SPANS: Final = (0, 16, 32, 64, 128, 256, 512)
"""Lower ends of the spans of lengths, in tokens: up to 16, 17–32, …, over 512."""
WORST_SHOWN: Final = 10
_CHARACTERS_SHOWN: Final = 240


def low_percentile(values: Cosines) -> float | None:
    """The 1st percentile by nearest rank; None of nothing."""
    return float(np.quantile(values, 0.01, method="inverted_cdf")) if len(values) else None


def parity_groups(
    found: Cosines, groups: Sequence[str], tokens: Sequence[int] | None
) -> tuple[ParityGroup, ...]:
    """All texts, then by group (language), then by length where tokens could be counted."""
    named = np.asarray(groups)
    rows = [_group("all", found)]
    rows += [_group(name, found[named == name]) for name in dict.fromkeys(groups)]
    if tokens is not None:
        counted = np.asarray(tokens)
        for over, to in pairwise((*SPANS, np.inf)):
            inside = found[(counted > over) & (counted <= to)]
            if np.isfinite(inside).any():
                rows.append(_group(_span(over, to), inside))
    return tuple(rows)


def worst_texts(
    found: Cosines, texts: Sequence[str], groups: Sequence[str], tokens: Sequence[int] | None
) -> tuple[WorstText, ...]:
    """The lowest cosines, lowest first; texts that one of the two has no vector of are not among them."""
    order = [int(place) for place in np.argsort(found, kind="stable") if np.isfinite(found[place])]
    return tuple(
        WorstText(
            texts[place][:_CHARACTERS_SHOWN],
            groups[place],
            tokens[place] if tokens is not None else None,
            float(found[place]),
        )
        for place in order[:WORST_SHOWN]
    )


def steps(vectors: Mapping[int, NDArray[Any]]) -> dict[int, float]:
    """By length, how far one more token turned the vector: 1 − cosine of neighbours such as 512 and 513."""
    return {
        length: 1 - float(cosines(vectors[length - 1][None], vectors[length][None])[0])
        for length in sorted(vectors)
        if length - 1 in vectors
    }


def _group(name: str, found: Cosines) -> ParityGroup:
    good = found[np.isfinite(found)]
    if not len(good):
        return ParityGroup(name, 0, None, None, None)
    return ParityGroup(name, len(good), float(good.min()), low_percentile(good), float(np.median(good)))


def _span(over: float, to: float) -> str:
    if over == 0:
        return f"up to {to:.0f} tokens"
    return f"over {over:.0f} tokens" if to == np.inf else f"{over + 1:.0f}–{to:.0f} tokens"
