"""Studies of quality laid side by side, alone and beside runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from embedctl.errors import UsageError
from embedctl.headlines import headline
from embedctl.lab.compare import compare
from embedctl.lab.quality_run import as_run, with_quality
from embedctl.records import Interval, Study
from embedctl.study_data import data_of, quality_report
from tests.support import canned


def shifted(by: float, **changes: Any) -> Study:
    """The canned study with every NDCG of Ollama's moved."""
    study = canned.quality_study()
    report = quality_report(study)

    def moved(one: Interval) -> Interval:
        assert one.low is not None and one.high is not None
        return Interval(one.estimate + by, one.low + by, one.high + by)

    scores = tuple(
        replace(one, ndcg=moved(one.ndcg)) if one.variant == "ollama" else one for one in report.scores
    )
    return replace(study, data=data_of(replace(report, scores=scores)), **changes)


def test_a_loss_is_told_by_its_interval_and_the_same_study_is_none() -> None:
    both = compare(
        as_run(shifted(0.0)), as_run(shifted(-0.05)), fail_on="ollama:ndcg<-0.01,native:ndcg<-0.01"
    )
    told = {(one.text, one.outcome) for one in both.conditions}
    assert told == {("ollama:ndcg<-0.01", "met"), ("native:ndcg<-0.01", "undecided")}
    change = both.conditions[0].delta.change
    assert change is not None and change.low is not None and change.high is not None
    assert change.estimate == pytest.approx(-0.05)
    assert change.high - change.low == pytest.approx(2 * 0.011 * 2**0.5)
    assert not both.conflicts
    assert headline(as_run(shifted(0.0))) == "xquad-en: native NDCG@10 0.942"


def test_a_study_of_other_vectors_does_not_belong_to_a_run() -> None:
    study = shifted(0.0)
    run = replace(as_run(study), id=3, measurements=(), workload="texts 01ab")
    beside = with_quality(run, study)
    assert {one.shape for one in beside.measurements} == {"xquad-en", "xquad-de"}
    assert beside.workload.startswith("texts 01ab; xquad-en 0a1b2c3d4e5f")
    other = replace(run, fingerprints=tuple(replace(mark, dtype="other") for mark in run.fingerprints))
    with pytest.raises(UsageError, match="does not belong to run 3"):
        with_quality(other, study)


def test_variants_beside_a_run_are_compared_only_with_those_of_the_same_vectors() -> None:
    study = shifted(0.0)
    run = replace(as_run(study), fingerprints=as_run(study).fingerprints[:1], measurements=())  # native alone
    report = quality_report(study)
    other = tuple(
        replace(one, fingerprint=replace(one.fingerprint, dtype="float8")) if one.name == "ollama" else one
        for one in report.variants
    )
    changed = replace(study, data=data_of(replace(report, variants=other)))
    (conflict,) = compare(with_quality(run, study), with_quality(run, changed)).conflicts
    assert conflict.startswith("ollama dtype: ") and conflict.endswith("→ float8")
