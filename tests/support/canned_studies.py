"""Studies of quality and of coexistence, of both backends, as the program would keep them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from embedctl.records import (
    Coexistence,
    CoexistReport,
    CoexistVerdict,
    Figure,
    Interval,
    LostQuery,
    QualityDifference,
    QualityReport,
    QualityScore,
    QualitySet,
    QualityVariant,
    QualityVerdict,
    Study,
)
from embedctl.study_data import data_of
from tests.support.canned import GIB, NOW, fingerprint


def quality_study(study_id: int = 5, *, at: float = NOW - 1_800, **changes: Any) -> Study:
    """Two sets, where Ollama loses a little on one of them."""

    def score(variant: str, name: str, ndcg: float) -> QualityScore:
        near = Interval(ndcg, ndcg - 0.011, ndcg + 0.011)
        return QualityScore(variant, name, 1_190, 240, near, near, Interval(0.998, 0.996, 1.0))

    def difference(name: str, change: float, half: float, verdict: QualityVerdict) -> QualityDifference:
        found = Interval(change, change - half, change + half)
        return QualityDifference(name, "ndcg@10", "native", "ollama", found, verdict)

    rng = np.random.default_rng(9)
    per_query = np.where(rng.random(2_380) < 0.05, rng.normal(-0.02, 0.2, 2_380), 0.0)
    same: QualityVerdict = "no difference that matters"
    report = QualityReport(
        verdict=same,
        reasons=(),
        threshold=0.01,
        sets=(
            QualitySet("xquad-en", "0a1b2c3d4e5f", 1_190, 240),
            QualitySet("xquad-de", "5f4e3d2c1b0a", 1_190, 240),
        ),
        variants=tuple(
            QualityVariant(name, name, {}, fingerprint(name), 2_860, 0, 0) for name in ("native", "ollama")
        ),
        scores=tuple(
            score(variant, name, ndcg)
            for name, ndcg in (("xquad-en", 0.942), ("xquad-de", 0.931))
            for variant in ("native", "ollama")
        ),
        differences=(
            difference("xquad-en", 0.0, 0.0004, same),
            difference("xquad-de", -0.0031, 0.0021, same),
            difference("all sets", -0.0015, 0.0011, same),
        ),
        lost=(LostQuery("xquad-de", "Wie viele Punkte gab die Verteidigung ab?", "ollama", 1.0, 0.63),),
        changes={"ollama": tuple(float(round(value, 6)) for value in per_query)},
    )
    study = Study(
        id=study_id,
        at=at,
        kind="quality",
        title="native and ollama",
        verdict=report.verdict,
        headline=f"{same}: ollama against native, ndcg@10 -0.0015 (-0.0026 to -0.0004), all sets",
        backends=("native", "ollama"),
        fingerprints=(fingerprint("native"), fingerprint("ollama")),
        seconds=96.0,
        data=data_of(report),
    )
    return replace(study, **changes)


def coexist_study(study_id: int = 6, *, at: float = NOW - 900, **changes: Any) -> Study:
    """A language model that is slowed down more by one backend than by the other."""
    rng = np.random.default_rng(11)

    def p99(latencies: np.ndarray) -> Figure:
        return Figure("p99_ms", float(latencies[396]), "ms", float(latencies[390]), float(latencies[399]))

    def row(backend: str, verdict: CoexistVerdict, kept: float, slower: float, reason: str) -> Coexistence:
        alone = np.sort(rng.gamma(9.0, 2.6, 400))
        together = np.sort(alone * slower)
        return Coexistence(
            backend=backend,
            verdict=verdict,
            reasons=(reason,) if reason else (),
            rounds=6,
            tokens_alone=Interval(41.2, 40.6, 41.8),
            tokens_together=Interval(41.2 * kept, 40.6 * kept, 41.8 * kept),
            tokens_kept=Interval(kept, kept - 0.02, kept + 0.02),
            p50_alone_ms=float(alone[200]),
            p50_together_ms=float(together[200]),
            p99_alone=p99(alone),
            p99_together=p99(together),
            p99_ratio=Interval(slower, slower * 0.9, slower * 1.1),
            offered_per_s=12.5,
            errors=0,
            least_memory=Figure("least_memory", 96.5 * GIB, "bytes", note="MemAvailable of the pool"),
            memory_floor=8 * GIB,
            latencies_alone_ms=tuple(float(round(value, 3)) for value in alone),
            latencies_together_ms=tuple(float(round(value, 3)) for value in together),
        )

    loses = "the model keeps 61% of its tokens/s (59% to 63%)"
    report = CoexistReport(
        verdict="disturb each other",
        reasons=(f"ollama: {loses}",),
        model="llama3.2:1b",
        simulated=False,
        block_seconds=10.0,
        rows=(
            row("native", "fit side by side", 0.93, 1.3, ""),
            row("ollama", "disturb each other", 0.61, 1.7, loses),
        ),
        limits={"tokens_kept": 0.8, "p99_ratio": 2.0},
    )
    study = Study(
        id=study_id,
        at=at,
        kind="coexist",
        title="llama3.2:1b beside native and ollama",
        verdict=report.verdict,
        headline="disturb each other: llama3.2:1b; beside native it keeps 93% of its tokens/s, embedding p99 "
        "1.30×; beside ollama it keeps 61% of its tokens/s, embedding p99 1.70×",
        backends=("native", "ollama"),
        fingerprints=(fingerprint("native"), fingerprint("ollama")),
        seconds=380.0,
        data=data_of(report),
    )
    return replace(study, **changes)
