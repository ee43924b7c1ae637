"""How well queries find their documents, and whether a change of backend, precision or limit costs any of it.

Differences are paired by query: what makes a query hard is hard for both. Their interval is Student's t over
*clusters* of queries that share an answer: XQuAD asks five questions of each paragraph, and the same question
in six languages, so that taking each for an independent draw would promise too narrow an interval. Where no
two queries share an answer it is the plain paired interval. A bootstrap over the same clusters gives the same
within a few percent from some thirty clusters on (`tests/unit/lab/test_quality.py` repeats the simulation).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from embedctl.errors import BackendError
from embedctl.lab.quality_search import MEASURES, Search, measure, names_of
from embedctl.lab.quality_sets import XQUAD, SearchSet
from embedctl.lab.statistics import clustered_mean
from embedctl.progress import CancelToken
from embedctl.records import (
    BackendName,
    EmbedResult,
    Fingerprint,
    Interval,
    LostQuery,
    QualityDifference,
    QualityMeasure,
    QualityReport,
    QualityScore,
    QualityVariant,
    QualityVerdict,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

THRESHOLD: Final = 0.01
"""A mean loss of one hundredth of NDCG@10 is less than reviewers of rankings notice."""
ALL_SETS: Final = "all sets"
_BLOCK: Final = 128
"""Texts per request."""
_REMEMBERED: Final = 50_000
"""Up to so many texts each is embedded once, however many sets it is in."""
_FAILURES_IN_A_ROW: Final = 3
_LOST_SHOWN: Final = 10
_CHARACTERS_SHOWN: Final = 240
_WORST_FIRST: Final = ("worse", "undecided", "no difference that matters", "better")


@dataclass(frozen=True, slots=True)
class QualityTarget:
    """One loaded backend, under the settings that are asked about."""

    name: str
    backend: BackendName
    changes: Mapping[str, str]
    embed: Callable[[Sequence[str]], EmbedResult]
    fingerprint: Fingerprint
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What one variant found, in numbers."""

    variant: QualityVariant
    values: Mapping[str, Mapping[QualityMeasure, Mapping[str, float]]]
    """By set, measure and query."""


def work_of(sets: Sequence[SearchSet]) -> int:
    """How many texts `collect` embeds for one variant."""
    if _remembers(sets):
        return len({text for one in sets for part in (one.queries, one.documents) for text in part.values()})
    return sum(len(one.queries) + len(one.documents) for one in sets)


def collect(
    target: QualityTarget,
    sets: Sequence[SearchSet],
    report: Callable[[str, float], None],
    cancel: CancelToken,
) -> Found:
    """Search every set with one variant's vectors.

    Args:
        report: Told the step and the texts embedded so far, of `work_of(sets)`.

    Raises:
        BackendError: Three requests in a row failed.
        Cancelled: `cancel` was set.
    """
    texts = _Vectors(target, remember=_remembers(sets), report=report, cancel=cancel)
    values = {}
    for one in sets:
        texts.step = f"{target.name}: {one.name}"
        search = Search(texts.of(list(one.queries.values())))
        documents = list(one.documents.values())
        for start in range(0, len(documents), 8 * _BLOCK):
            search.add(texts.of(documents[start : start + 8 * _BLOCK]))
        found = names_of(search.found(), list(one.queries), list(one.documents))
        values[one.name] = measure(found, {query: one.relevant[query] for query in one.queries})
    variant = QualityVariant(
        target.name, target.backend, dict(target.changes), target.fingerprint,
        texts.embedded, texts.failed, texts.cut, target.notes,
    )  # fmt: skip
    return Found(variant, values)


def judge(
    found: Sequence[Found], sets: Sequence[SearchSet], *, threshold: float = THRESHOLD
) -> QualityReport:
    """The scores of all variants, and each one's differences from the first."""
    scores = [_score(one, each) for each in sets for one in found]
    base, others = found[0], found[1:]
    differences: list[QualityDifference] = []
    changes: dict[str, tuple[float, ...]] = {}
    for other in others:
        differences += _differences(base, other, sets, threshold)
        changes[other.variant.name] = tuple(
            round(value, 6) for one in sets for value in _change(base, other, one, "ndcg@10")
        )
    verdict, reasons = _answer(found, differences, len(sets))
    return QualityReport(
        verdict=verdict if others else "measured",
        reasons=reasons,
        threshold=threshold,
        sets=tuple(one.described() for one in sets),
        variants=tuple(one.variant for one in found),
        scores=tuple(scores),
        differences=tuple(differences),
        lost=_lost(base, others, sets),
        changes=changes,
    )


def headline(report: QualityReport) -> str:
    """The answer in one sentence, the verdict's word first."""
    scope = ALL_SETS if len(report.sets) > 1 else report.sets[0].name
    if report.verdict == "measured":
        ndcg = math.fsum(one.ndcg.estimate for one in report.scores) / len(report.scores)
        return f"measured: {report.variants[0].name}, NDCG@10 {ndcg:.3f}, {scope}"
    worst = min(
        (one for one in report.differences if one.set == scope and one.measure == "ndcg@10"),
        key=lambda one: _WORST_FIRST.index(one.verdict),
    )
    return f"{report.verdict}: {worst.variant} against {worst.baseline}, {in_words(worst)}"


def in_words(one: QualityDifference) -> str:
    """A difference with its interval: `ndcg@10 −0.0031 (−0.0052 to −0.0010), xquad-de`."""
    low, high = one.change.low, one.change.high
    ends = "too few queries for an interval" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"
    return f"{one.measure} {one.change.estimate:+.4f} ({ends}), {one.set}"


def verdict_of(change: Interval, threshold: float) -> QualityVerdict:
    """A difference's interval against the threshold."""
    if change.low is None or change.high is None:
        return "undecided"
    if change.high < -threshold:
        return "worse"
    if change.low > threshold:
        return "better"
    return (
        "no difference that matters" if -threshold <= change.low <= change.high <= threshold else "undecided"
    )


class _Vectors:
    """Texts as vectors; those of one text are made once where they are remembered."""

    def __init__(
        self,
        target: QualityTarget,
        *,
        remember: bool,
        report: Callable[[str, float], None],
        cancel: CancelToken,
    ) -> None:
        self._target = target
        self._known: dict[str, NDArray[np.float32]] | None = {} if remember else None
        self._report = report
        self._cancel = cancel
        self._failed_in_a_row = 0
        self._width: int | None = target.fingerprint.dimension
        self.step = target.name
        self.embedded = 0
        self.failed = 0
        self.cut = 0

    def of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (n, dimension); NaN where a text has no vector."""
        if self._known is None:
            return np.concatenate([self._ask(texts[at : at + _BLOCK]) for at in range(0, len(texts), _BLOCK)])
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for at in range(0, len(new), _BLOCK):
            some = new[at : at + _BLOCK]
            self._known |= zip(some, self._ask(some), strict=True)
        return np.stack([self._known[text] for text in texts])

    def _ask(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self._cancel.raise_if_cancelled()
        self._report(self.step, self.embedded)
        try:
            result = self._target.embed(texts)
        except BackendError:
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= _FAILURES_IN_A_ROW or self._width is None:
                raise
            rows = np.full((len(texts), self._width), np.nan, np.float32)
        else:
            self._failed_in_a_row = 0
            self.cut += len(result.truncated)
            rows = result.vectors
            self._width = rows.shape[1]
        self.embedded += len(texts)
        self.failed += int((~np.isfinite(rows).all(axis=1)).sum())
        return rows


def _remembers(sets: Sequence[SearchSet]) -> bool:
    return sum(len(one.queries) + len(one.documents) for one in sets) <= _REMEMBERED


def _clusters(one: SearchSet) -> list[Hashable]:
    """Per query, what it shares with others: its answers. XQuAD's have the same names in every language."""
    family = XQUAD if one.name.startswith(f"{XQUAD}-") else one.name
    return [(family, tuple(sorted(one.relevant[query]))) for query in one.queries]


def _score(found: Found, one: SearchSet) -> QualityScore:
    values = found.values[one.name]
    ndcg, mrr, recall = (
        clustered_mean([values[kind][query] for query in one.queries], _clusters(one)) for kind in MEASURES
    )
    return QualityScore(found.variant.name, one.name, len(one.queries), len(one.documents), ndcg, mrr, recall)


def _change(base: Found, other: Found, one: SearchSet, kind: QualityMeasure) -> list[float]:
    before, after = base.values[one.name][kind], other.values[one.name][kind]
    return [after[query] - before[query] for query in one.queries]


def _differences(
    base: Found, other: Found, sets: Sequence[SearchSet], threshold: float
) -> list[QualityDifference]:
    groups = [(one.name, [one]) for one in sets]
    if len(sets) > 1:
        groups.append((ALL_SETS, list(sets)))
    rows = []
    for name, group in groups:
        clusters = [cluster for one in group for cluster in _clusters(one)]
        for kind in MEASURES:
            changes = [value for one in group for value in _change(base, other, one, kind)]
            change = clustered_mean(changes, clusters)
            rows.append(
                QualityDifference(
                    name, kind, base.variant.name, other.variant.name, change, verdict_of(change, threshold)
                )
            )
    return rows


def _answer(
    found: Sequence[Found], differences: Sequence[QualityDifference], sets: int
) -> tuple[QualityVerdict, tuple[str, ...]]:
    reasons = [
        f"{one.variant.name} gave no usable vector for {one.variant.failed:,} of {one.variant.texts:,} texts"
        for one in found
        if one.variant.failed
    ]
    reasons += _untried_limits([one.variant for one in found])
    reasons += [
        f"{one.variant} is worse than {one.baseline}: {in_words(one)}"
        for one in differences
        if one.measure == "ndcg@10" and one.verdict == "worse"
    ]
    deciding = [
        one.verdict for one in differences if one.measure == "ndcg@10" and (one.set == ALL_SETS or sets == 1)
    ]
    worst = min(deciding, key=_WORST_FIRST.index) if deciding else "undecided"
    if worst == "undecided" and deciding:
        reasons.append("too few queries to tell within the threshold")
    return worst, tuple(reasons)


def _untried_limits(variants: Sequence[QualityVariant]) -> list[str]:
    """Of length limits laid against each other: those that cut nothing are the same to these texts."""
    limits = sorted(
        int(one.changes["max_tokens"])
        for one in variants
        if "max_tokens" in one.changes and not one.cut and not one.failed
    )
    if len(limits) < 2:
        return []
    told = " and ".join(f"{limit:,}" for limit in limits)
    return [f"no text has more than {limits[0]:,} tokens, so that limits of {told} cannot differ on this set"]


def _lost(base: Found, others: Sequence[Found], sets: Sequence[SearchSet]) -> tuple[LostQuery, ...]:
    lost = [
        LostQuery(one.name, text[:_CHARACTERS_SHOWN], other.variant.name, before, after)
        for other in others
        for one in sets
        for query, text in one.queries.items()
        if (before := base.values[one.name]["ndcg@10"][query])
        > (after := other.values[one.name]["ndcg@10"][query])
    ]
    lost.sort(key=lambda one: one.variant_ndcg - one.baseline_ndcg)
    return tuple(lost[:_LOST_SHOWN])
