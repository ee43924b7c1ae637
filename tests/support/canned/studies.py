"""Studies of both backends, of each kind, as the program would keep them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from embedctl.records import (
    CheckReport,
    CheckRow,
    Coexistence,
    CoexistReport,
    CoexistVerdict,
    Figure,
    Interval,
    LengthAgreement,
    LengthLimit,
    LostQuery,
    Outcome,
    ParityGroup,
    QualityDifference,
    QualityReport,
    QualityScore,
    QualitySet,
    QualityVariant,
    QualityVerdict,
    Retrieval,
    Study,
    StudySummary,
    Threshold,
    WorstText,
)
from embedctl.study_data import data_of
from tests.support.canned.backends import fingerprint
from tests.support.canned.machine import GIB, NOW


def check_study(study_id: int = 4, *, at: float = NOW - 3_600, **changes: Any) -> Study:
    """A check in which Ollama cuts long texts without saying so."""
    rng = np.random.default_rng(5)
    cosines = np.sort(1 - rng.exponential(2e-5, 1_240))[::-1]
    languages = ("en", "de", "es", "zh", "ar", "ru")
    cut = "texts over 2,047 tokens are cut by ollama, silently (it claims 8,192)"
    same = "one text, a list, concurrent requests, a list of mixed lengths: the same vectors"
    whole = "1,240 texts in lists: finite, unit norm, 1,024 dimensions, distinct"
    report = CheckReport(
        verdict="safe with limits",
        reasons=(cut,),
        backends=("native", "ollama"),
        not_compared="",
        texts="xquad-6-languages, 1000 questions, 240 passages 659f68213ee0",
        settings={"native.dtype": "auto", "ollama.num_ctx": "8192"},
        rows=(
            CheckRow("vectors", "native", Outcome.OK, whole),
            CheckRow("requests", "native", Outcome.OK, f"{same} (least cosine 0.999998)"),
            CheckRow("limit", "native", Outcome.OK, "reads 8,192 tokens, as it says; longer texts are cut"),
            CheckRow("vectors", "ollama", Outcome.OK, whole),
            CheckRow("requests", "ollama", Outcome.OK, f"{same} (least cosine 1.000000)"),
            CheckRow("limit", "ollama", Outcome.LIMIT, cut),
            CheckRow("parity", None, Outcome.OK, "least cosine 0.99986, 1st percentile 0.99991"),
            CheckRow("neighbours", None, Outcome.OK, "99.4% of the 10 nearest of 240 passages are the same"),
        ),
        limits=(
            LengthLimit("native", "tokens", 8192, 8192, False, False, True, 8192, 3),
            LengthLimit("ollama", "tokens", 8192, 2047, False, False, False, 2047, 15),
        ),
        parity=tuple(
            ParityGroup(name, texts, float(cosines[-1]), 0.99991, 0.99998)
            for name, texts in (("all", 1_240), *((language, 206) for language in languages))
        ),
        worst=(
            WorstText("这座桥是什么时候建成的？", "zh", 14, float(cosines[-1])),
            WorstText("How many points did the Panthers defense surrender?", "en", 12, float(cosines[-2])),
        ),
        lengths=tuple(LengthAgreement(length, 0.9999) for length in (8, 64, 512, 513, 1024, 2047)),
        overlap=0.994,
        retrieval=(
            Retrieval("native", "native", 0.942),
            Retrieval("ollama", "ollama", 0.942),
            Retrieval("native", "ollama", 0.941, -0.0004, -0.0016, 0.0008),
            Retrieval("ollama", "native", 0.942, 0.0001, -0.0009, 0.0011),
        ),
        thresholds=(Threshold("least cosine", 0.999, 0.95, "the same weights give 0.999 across engines"),),
        cosines=tuple(float(value) for value in cosines),
    )
    study = Study(
        id=study_id,
        at=at,
        kind="check",
        title="native and ollama",
        verdict=report.verdict,
        headline=f"safe with limits: {cut}",
        backends=report.backends,
        fingerprints=(fingerprint("native"), fingerprint("ollama")),
        seconds=212.0,
        data=data_of(report),
    )
    return replace(study, **changes)


def study_summary(of: Study) -> StudySummary:
    return StudySummary(
        of.id, of.at, of.kind, of.title, of.verdict, of.headline, of.backends, of.seconds, of.state
    )


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
