"""A study of retrieval quality as rows of a run, so that `compare` and --fail-on judge quality, too.

Scores of two studies are compared as separate estimates: their interval is wider than that of two variants
within one study, which is paired by query.
"""

from __future__ import annotations

from dataclasses import replace

from embedctl.errors import UsageError
from embedctl.records import Figure, Interval, Measurement, QualityReport, QualityScore, Run, Study
from embedctl.study_data import quality_report


def as_run(study: Study) -> Run:
    """The study alone; each variant takes a backend's place, and each set that of a shape.

    Raises:
        UsageError: It is of another kind.
    """
    if study.kind != "quality":
        raise UsageError(
            f"Study {study.id} has no retrieval quality to compare",
            why=f"it is of kind {study.kind}",
            remedy="`embedctl quality` makes one that has",
        )
    report = quality_report(study)
    return Run(
        id=study.id,
        at=study.at,
        preset="quality",
        seconds=study.seconds,
        backends=tuple(variant.name for variant in report.variants),
        measurements=tuple(_row(report, score) for score in report.scores),
        comparisons=(),
        fingerprints=tuple(replace(variant.fingerprint, backend=variant.name) for variant in report.variants),
        workload=", ".join(f"{one.name} {one.digest}" for one in report.sets),
        title=study.title,
    )


def with_quality(run: Run, study: Study) -> Run:
    """The run with the study's rows beside its own.

    Raises:
        UsageError: The study is of another kind, or of other vectors than the run.
    """
    quality = as_run(study)
    known = {mark.backend: mark.digest for mark in run.fingerprints}
    other = [
        mark.backend for mark in quality.fingerprints if known.get(mark.backend, mark.digest) != mark.digest
    ]
    if other:
        raise UsageError(
            f"Study {study.id} does not belong to run {run.id}",
            why=f"{' and '.join(other)} had another model, precision or length limit",
            remedy="choose a study of the same vectors",
        )
    return replace(
        run,
        measurements=(*run.measurements, *quality.measurements),
        fingerprints=(
            *run.fingerprints, *(mark for mark in quality.fingerprints if mark.backend not in known),
        ),
        workload=f"{run.workload}; {quality.workload}",
    )  # fmt: skip


def _row(report: QualityReport, score: QualityScore) -> Measurement:
    failed = next(variant.failed for variant in report.variants if variant.name == score.variant)
    return Measurement(
        backend=score.variant, shape=score.set, batch=1, requests=score.queries, errors=failed,
        latencies_ms=(), p50_ms=None, p95_ms=None, p95_note="", texts_per_s=None, tokens_per_s=None,
        tokens=None, peak_bytes=None, peak_source="", kind="quality",
        figures=(
            _figure("ndcg", score.ndcg), _figure("mrr", score.mrr), _figure("recall", score.recall),
        ),
    )  # fmt: skip


def _figure(name: str, value: Interval) -> Figure:
    return Figure(name, value.estimate, low=value.low, high=value.high)
