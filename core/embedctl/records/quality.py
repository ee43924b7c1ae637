"""What `embedctl quality` found: how well queries find their documents, and what a change costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from embedctl.records.backends import BackendName, Fingerprint
from embedctl.records.runs import Interval

QualityMeasure = Literal["ndcg@10", "mrr@10", "recall@100"]
QualityVerdict = Literal["better", "worse", "no difference that matters", "undecided"]


@dataclass(frozen=True, slots=True)
class QualityVariant:
    """One way of making vectors."""

    name: str
    """`native`, `ollama`, or with what was varied: `native dtype=float16`."""
    backend: BackendName
    changes: Mapping[str, str]
    """Settings of the backend that differ from the configured ones."""
    fingerprint: Fingerprint
    texts: int
    """Texts embedded."""
    failed: int
    """Of these, texts without a usable vector: a document among them is never found."""
    cut: int
    """Of these, texts that the backend reported as cut at its length limit."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QualityScore:
    """One variant on one retrieval set: means over the queries, each with its 95 % interval."""

    variant: str
    set: str
    queries: int
    documents: int
    ndcg: Interval
    mrr: Interval
    recall: Interval


@dataclass(frozen=True, slots=True)
class QualityDifference:
    """One measure of one set, a variant less the baseline, paired by query."""

    set: str
    """A set's name, or `all sets`."""
    measure: QualityMeasure
    baseline: str
    variant: str
    change: Interval
    verdict: QualityVerdict


@dataclass(frozen=True, slots=True)
class LostQuery:
    """A query that a variant answers worse than the baseline."""

    set: str
    query: str
    """Its first characters."""
    variant: str
    baseline_ndcg: float
    variant_ndcg: float


@dataclass(frozen=True, slots=True)
class QualitySet:
    """What was searched, so that two studies of the same set can be told from two of different ones."""

    name: str
    digest: str
    """Of names, texts and relevance, first 12 hex digits of SHA-256."""
    queries: int
    documents: int
    note: str = ""
    """Which part of the set it is, where it is not all of it."""


@dataclass(frozen=True, slots=True)
class QualityReport:
    """The whole answer."""

    verdict: QualityVerdict | Literal["measured"]
    """Of all sets together and the worst variant; `measured` where there is nothing to compare."""
    reasons: tuple[str, ...]
    threshold: float
    """A mean difference of up to this does not matter."""
    sets: tuple[QualitySet, ...]
    variants: tuple[QualityVariant, ...]
    """The first is the baseline."""
    scores: tuple[QualityScore, ...]
    differences: tuple[QualityDifference, ...]
    lost: tuple[LostQuery, ...]
    """The greatest losses of NDCG, greatest first."""
    changes: Mapping[str, tuple[float, ...]]
    """By variant, the change of NDCG@10 per query over all sets, in their order; for a distribution."""
