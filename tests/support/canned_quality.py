"""A study of search quality as `embedctl quality` keeps it: 8-bit products against the configured dtype."""

from __future__ import annotations

from typing import Final

import numpy as np

from embedctl.records import Interval, Study
from embedctl.records.quality import (
    LostQuery,
    QualityDifference,
    QualityReport,
    QualityScore,
    QualitySet,
    QualityVariant,
)
from embedctl.study_data import data_of
from tests.support.canned import NOW, fingerprint

_SETS: Final = (("xquad-de", 1_190, 240), ("xquad-zh", 1_190, 240), ("nfcorpus", 323, 3_633))


def quality_study(study_id: int = 5, *, at: float = NOW - 7_200) -> Study:
    rng = np.random.default_rng(11)
    queries = sum(count for _, count, _ in _SETS)
    changes = np.where(rng.random(queries) < 0.94, 0.0, rng.normal(-0.02, 0.12, queries))
    names = ("native", "native dtype=float8")

    def around(value: float, half: float = 0.012) -> Interval:
        return Interval(value, value - half, value + half)

    report = QualityReport(
        verdict="no difference that matters",
        reasons=("NDCG@10 changes by -0.0012 (-0.0031 to +0.0007) over all sets, 0.01 would matter",),
        threshold=0.01,
        sets=tuple(QualitySet(name, "659f68213ee0", count, documents) for name, count, documents in _SETS),
        variants=tuple(
            QualityVariant(name, "native", changed, fingerprint("native"), 6_816, 0, 12)
            for name, changed in zip(names, ({}, {"dtype": "float8"}), strict=True)
        ),
        scores=tuple(
            QualityScore(variant, name, count, documents, around(0.941), around(0.925), around(0.998, 0.002))
            for name, count, documents in _SETS
            for variant in names
        ),
        differences=(
            QualityDifference("all sets", "ndcg@10", *names, Interval(-0.0012, -0.0031, 0.0007),
                              "no difference that matters"),
            QualityDifference("xquad-de", "ndcg@10", *names, Interval(-0.0004, -0.0021, 0.0012),
                              "no difference that matters"),
            QualityDifference("xquad-zh", "ndcg@10", *names, Interval(-0.0151, -0.0188, -0.0114), "worse"),
            QualityDifference("nfcorpus", "recall@100", *names, Interval(0.0021, -0.0119, 0.0161),
                              "undecided"),
        ),
        lost=(
            LostQuery("xquad-zh", "这座桥是什么时候建成的？", names[1], 1.0, 0.387),
            LostQuery("nfcorpus", "Do cholesterol statin drugs cause breast cancer?", names[1], 0.631, 0.302),
        ),
        changes={names[1]: tuple(float(value) for value in changes)},
    )  # fmt: skip
    return Study(
        id=study_id,
        at=at,
        kind="quality",
        title="native dtype=float8 against native",
        verdict=report.verdict,
        headline=report.reasons[0],
        backends=("native",),
        fingerprints=(fingerprint("native"),),
        seconds=341.0,
        data=data_of(report),
    )
