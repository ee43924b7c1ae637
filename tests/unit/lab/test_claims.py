"""The claims: each verdict by its evidence, and what is asked for where there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from embedctl.lab.claims import about, at_least, at_most, claims
from embedctl.records import Claim, ClaimsReport, Comparison, Figure, Interval, Measurement, Run, Study
from embedctl.study_data import check_report, coexist_report, data_of, quality_report
from tests.support import canned
from tests.support.canned import coexist_study, quality_study

AT = canned.NOW
GB = 10**9
DEFAULTS = {
    "ollama_one": (100.0, 10.0),
    "native_one": (25.0, 40.0),
    "ollama_32": (500.0, 64.0),
    "native_32": (110.0, 290.0),
    "native_16": (60.0, 270.0),
    "native_64": (230.0, 285.0),
    "native_128": (450.0, 284.0),
}
"""Milliseconds of a request and texts/s, by backend and shape."""


def row(backend: str, shape: str, ms: float, rate: float, *, peak: int | None = None) -> Measurement:
    """A hundred requests of one latency, so that the interval is narrow."""
    batch = 1 if shape == "one text" else int(shape.split()[-1])
    latencies = tuple(ms * (1 + (number - 50) / 5_000) for number in range(100))
    figure = Figure("texts_per_s", rate, "per_second", rate * 0.97, rate * 1.03)
    figures = (figure,) if batch > 1 else ()
    return Measurement(
        backend, shape, batch, 100, 0, latencies, ms, ms, "", rate, None, None, peak, "NVML", figures=figures
    )


def run(run_id: int = 1, **of: Any) -> Run:
    """A run as the design document would have it, but for what is given by `backend_shape`."""
    ms = DEFAULTS | {key: value for key, value in of.items() if key in DEFAULTS}
    peaks = {"ollama": of.get("ollama_peak", 5 * GB), "native": of.get("native_peak", int(1.9 * GB))}
    rows = []
    for key, (latency, rate) in ms.items():
        backend, _, size = key.partition("_")
        shape = "one text" if size == "one" else f"batch of {size}"
        rows.append(row(backend, shape, latency, rate, peak=peaks[backend]))
    one, batch = of.get("one_ratio", 4.0), of.get("batch_ratio", 4.5)
    comparisons = tuple(
        Comparison(shape, metric, "ollama", "native", Interval(ratio, ratio * 0.95, ratio * 1.05), "faster")
        for shape, metric, ratio in (("one text", "latency", one), ("batch of 32", "throughput", batch))
    )
    return replace(
        canned.run(run_id), measurements=tuple(rows), comparisons=comparisons, state=of.get("state", "done"),
        at=of.get("at", AT), fingerprints=of.get("marks", canned.run(run_id).fingerprints),
    )  # fmt: skip


def verdict(report: ClaimsReport, id_: str) -> str:
    return one(report, id_).verdict


def one(report: ClaimsReport, id_: str) -> Claim:
    return next(claim for claim in report.claims if claim.id == id_)


def test_without_evidence_every_claim_says_what_would_measure_it() -> None:
    report = claims([], [], at=AT)
    assert {claim.verdict for claim in report.claims} == {"not measured"}
    assert all(claim.ask.startswith(("embedctl ", "EMBEDCTL_")) for claim in report.claims)
    assert not report.charts
    assert len({claim.id for claim in report.claims}) == len(report.claims) == 22


@pytest.mark.parametrize(
    ("id_", "change", "expected"),
    [
        ("one-text-ollama", {}, "holds"),
        ("one-text-ollama", {"ollama_one": (40.0, 25.0)}, "does not hold"),
        ("one-text-ollama", {"ollama_one": (125.0, 8.0)}, "undecided"),
        ("one-text-native", {}, "holds"),
        ("one-text-native", {"native_one": (45.0, 22.0)}, "does not hold"),
        ("one-text-ratio", {}, "holds"),
        ("one-text-ratio", {"one_ratio": 3.05}, "undecided"),
        ("one-text-ratio", {"one_ratio": 1.2}, "does not hold"),
        ("batch-ollama", {}, "holds"),
        ("batch-native", {}, "holds"),
        ("batch-native", {"native_32": (260.0, 120.0)}, "does not hold"),
        ("batch-ratio", {}, "holds"),
        ("batch-ratio", {"batch_ratio": 2.0}, "does not hold"),
        ("sequential-ratio", {}, "holds"),
        ("throughput", {}, "holds"),
        ("throughput", {"native_32": (200.0, 160.0)}, "does not hold"),
        ("throughput-ratio", {"ollama_one": (100.0, 9.0)}, "holds"),
        ("throughput-ratio", {"ollama_one": (97.0, 10.3)}, "undecided"),
        ("throughput-ratio", {"ollama_one": (50.0, 20.0)}, "does not hold"),
        ("sequential-ollama", {}, "holds"),
        ("sequential-ollama", {"ollama_one": (50.0, 20.0)}, "does not hold"),
        ("memory-ollama", {}, "undecided"),
        ("memory-native", {}, "undecided"),
        ("memory-saved", {}, "undecided"),
        ("best-batch", {}, "holds"),
        ("best-batch", {"native_128": (300.0, 430.0)}, "does not hold"),
    ],
)
def test_what_a_run_says(id_: str, change: dict[str, Any], expected: str) -> None:
    report = claims([run(**change)], [], at=AT)
    assert verdict(report, id_) == expected, one(report, id_)
    assert one(report, id_).evidence == ("run 1",)
    assert set(report.sources) == {"run 1"}


def three_runs(**of: Any) -> list[Run]:
    """Peaks that differ by a hundredth."""
    sizes = {"ollama_peak": 5 * GB, "native_peak": 1.9 * GB, **of}
    return [
        run(number, **{key: int(size * by) for key, size in sizes.items()}, at=AT + number)
        for number, by in enumerate((0.99, 1.01, 1.0), 1)
    ]


@pytest.mark.parametrize(
    ("id_", "change", "expected"),
    [
        ("memory-ollama", {}, "holds"),
        ("memory-ollama", {"ollama_peak": 2 * GB}, "does not hold"),
        ("memory-native", {}, "holds"),
        ("memory-native", {"native_peak": 3 * GB}, "does not hold"),
        ("memory-native", {"native_peak": 2 * GB}, "undecided"),
        ("memory-saved", {}, "holds"),
        ("memory-saved", {"native_peak": 4 * GB}, "does not hold"),
        ("memory-saved", {"native_peak": 9 * GB}, "does not hold"),
    ],
)
def test_memory_takes_three_runs_for_an_interval(id_: str, change: dict[str, Any], expected: str) -> None:
    found = one(claims(three_runs(**change), [], at=AT), id_)
    assert found.verdict == expected, found
    assert found.evidence == ("run 3", "run 2", "run 1")
    assert found.interval is not None and "NVML; 3 runs" in found.why
    (newest, *_) = three_runs(**change)
    alone = one(claims([newest], [], at=AT), id_)
    assert (alone.verdict, alone.interval, alone.ask) == ("undecided", None, "embedctl bench run")


def with_rows(of: Run, backend: str, **changes: Any) -> Run:
    rows = (replace(row, **changes) if row.backend == backend else row for row in of.measurements)
    return replace(of, measurements=tuple(rows))


def test_what_a_load_holds_for_a_moment_is_not_what_a_backend_holds() -> None:
    runs = []
    for each in three_runs():
        start = replace(each.measurements[1], shape="cold start", kind="cold start", peak_bytes=9 * GB)
        runs.append(replace(each, measurements=(start, *each.measurements)))
    assert verdict(claims(runs, [], at=AT), "memory-native") == "holds"


def test_memory_that_was_read_at_two_places_is_named_and_makes_no_ratio() -> None:
    runs = [with_rows(each, "native", peak_source="resident memory, /proc") for each in three_runs()]
    found = one(claims(runs, [], at=AT), "memory-saved")
    assert found.verdict == "not measured"
    assert found.why == "not of one kind: of Ollama NVML, of native resident memory, /proc"
    assert "resident memory, /proc; 3 runs" in one(claims(runs, [], at=AT), "memory-native").why


def test_a_backend_of_wrong_vectors_is_fast_in_no_claim_and_an_older_run_does_not_speak_for_it() -> None:
    bad = replace(
        run(2, at=AT + 60), comparisons=(), notes=("native failed the gate, no verdicts: one vector for all",)
    )
    report = claims([run(1), bad], [], at=AT)
    for id_ in ("one-text-native", "one-text-ratio", "batch-native", "batch-ratio", "sequential-ratio",
                "throughput", "throughput-ratio", "memory-native", "memory-saved"):  # fmt: skip
        found = one(report, id_)
        assert (found.verdict, found.evidence, found.ask) == ("not measured", ("run 2",), "embedctl check")
        assert "it failed the gate: one vector for all" in found.why
    assert verdict(report, "one-text-ollama") == "holds"
    assert not any(chart.title.startswith("How many times") for chart in report.charts)


def test_failed_requests_make_no_claim_hold() -> None:
    found = one(claims([with_rows(run(), "native", errors=20)], [], at=AT), "throughput")
    assert (found.verdict, found.why) == ("not measured", "native, batch of 32: 20 of 100 requests failed")


def test_rates_of_different_texts_make_no_ratio() -> None:
    texts = {"turns_workloads": {"native": "xquad a1", "ollama": "xquad a1, questions"}}
    unlike = replace(run(), environment=texts)
    assert verdict(claims([unlike], [], at=AT), "sequential-ratio") == "not measured"
    alike = replace(run(), environment={"turns_workloads": {"native": "xquad a1", "ollama": "xquad a1"}})
    assert verdict(claims([alike], [], at=AT), "sequential-ratio") == "holds"


@pytest.mark.parametrize(
    ("backend", "holds"), [((0.9999999, "safe"), "holds"), ((0.99986, "safe"), "does not hold")]
)
def test_cosine_one_is_taken_at_its_word(backend: tuple[float, str], holds: str) -> None:
    study = canned.check_study()
    report = check_report(study)
    parity = tuple(replace(group, least=backend[0], low=backend[0]) for group in report.parity)
    study = replace(study, data=data_of(replace(report, parity=parity)))
    found = one(claims([], [study], at=AT), "cosine")
    assert found.verdict == holds
    assert "queries of ollama: NDCG@10 -0.0004" in found.why


def quality(**changes: Any) -> Study:
    study = quality_study()
    return replace(study, data=data_of(replace(quality_report(study), **changes)))


def msmarco(native: float, ollama: float, half: float = 0.004, **of: Any) -> Study:
    report = quality_report(quality_study())
    name = "mteb/msmarco dev"
    scores = tuple(
        replace(score, set=name, variant=variant, ndcg=Interval(value, value - half, value + half))
        for score, variant, value in zip(report.scores, ("native", "ollama"), (native, ollama), strict=False)
    )
    sets = (replace(report.sets[0], name=name, note=of.get("note", "")),)
    differences = tuple(replace(each, set=name) for each in report.differences[:1])
    return quality(scores=scores, sets=sets, differences=differences)


@pytest.mark.parametrize(
    ("native", "ollama", "half", "expected"),
    [
        (0.677, 0.678, 0.004, "holds"),
        (0.677, 0.6, 0.004, "does not hold"),
        (0.40, 0.40, 0.004, "does not hold"),
        (0.677, 0.677, 0.02, "undecided"),
    ],
)
def test_the_table_of_ms_marco(native: float, ollama: float, half: float, expected: str) -> None:
    found = one(claims([], [msmarco(native, ollama, half)], at=AT), "msmarco-ndcg")
    assert found.verdict == expected
    assert found.measured == f"native {native:.3f}, ollama {ollama:.3f}"


def test_a_part_of_ms_marco_is_told_to_be_one() -> None:
    found = one(
        claims([], [msmarco(0.677, 0.677, note="1,000 of 8,841,823 documents")], at=AT), "msmarco-ndcg"
    )
    assert "1,000 of 8,841,823 documents" in found.why
    assert found.ask.endswith("--split dev")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Interval(0.0, -0.004, 0.004), "holds"),
        (Interval(-0.03, -0.04, -0.02), "does not hold"),
        (Interval(0.03, 0.02, 0.04), "does not hold"),
        (Interval(-0.01, -0.02, 0.0), "undecided"),
        (Interval(0.0, None, None), "undecided"),
    ],
)
def test_both_alike_by_a_hundredth_whatever_the_study_was_asked_for(change: Interval, expected: str) -> None:
    report = quality_report(quality_study())
    study = quality(
        threshold=0.5,
        differences=tuple(
            replace(each, change=change, verdict="no difference that matters") for each in report.differences
        ),
    )
    assert verdict(claims([], [study], at=AT), "quality-alike") == expected


@pytest.mark.parametrize(
    ("low", "high", "note", "expected"),
    [
        (-0.004, 0.001, "", "holds"),
        (-0.03, -0.02, "", "does not hold"),
        (-0.02, 0.0, "", "undecided"),
        (-0.004, 0.001, "float8 was asked for, and this machine computes in float32", "not measured"),
    ],
)
def test_eight_bits(low: float, high: float, note: str, expected: str) -> None:
    report = quality_report(quality_study())
    first, second = report.variants
    variants = (
        replace(first, name="native dtype=float16", changes={"dtype": "float16"}),
        replace(
            second, name="native dtype=float8", backend="native", changes={"dtype": "float8"},
            notes=(note,) if note else (),
        ),
    )  # fmt: skip
    names = {"native": variants[0].name, "ollama": variants[1].name}
    study = quality(
        variants=variants,
        scores=tuple(replace(each, variant=names[each.variant]) for each in report.scores),
        differences=tuple(
            replace(
                each, baseline=variants[0].name, variant=variants[1].name,
                change=Interval((low + high) / 2, low, high),
            )
            for each in report.differences
        ),
    )  # fmt: skip
    found = one(claims([], [study], at=AT), "eight-bit")
    assert found.verdict == expected
    assert (note in found.why) if note else ("float16" in found.why)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("fit side by side", "holds"),
        ("disturb each other", "does not hold"),
        ("do not fit", "does not hold"),
        ("undecided", "undecided"),
    ],
)
def test_side_by_side(word: str, expected: str) -> None:
    study = coexist_study()
    report = coexist_report(study)
    rows = tuple(replace(each, verdict=word) for each in report.rows)  # type: ignore[arg-type]
    study = replace(study, data=data_of(replace(report, rows=rows)))
    assert verdict(claims([], [study], at=AT), "side-by-side") == expected
    if expected == "holds":
        lax = replace(study, data={**study.data, "limits": {"tokens_kept": 0.1, "p99_ratio": 9.0}})
        found = one(claims([], [lax], at=AT), "side-by-side")
        assert (found.verdict, found.ask) == ("undecided", "embedctl coexist")


@pytest.mark.parametrize(
    ("without", "expected"), [(285.0, "holds"), (150.0, "does not hold"), (275.0, "undecided")]
)
def test_flash_attention_needs_a_run_with_it_and_one_without(without: float, expected: str) -> None:
    mark = replace(canned.fingerprint("native"), device="cuda:0", attention="packed")
    with_it = run(1, marks=(mark,), native_32=(110.0, 290.0))
    off = run(2, marks=(replace(mark, attention="efficient"),), native_32=(110.0, without), at=AT + 1)
    narrow = [
        replace(each, measurements=tuple(_narrow(row) for row in each.measurements))
        for each in (with_it, off)
    ]
    report = claims(narrow, [], at=AT)
    assert verdict(report, "flash") == expected
    assert one(report, "flash").evidence == ("run 1", "run 2")
    assert verdict(claims(narrow[:1], [], at=AT), "flash") == "not measured"
    for other in (
        {"fingerprints": (replace(mark, attention="efficient", dtype="float32"),)},
        {"fingerprints": (replace(mark, attention="efficient", machine="another, NVIDIA H200"),)},
        {"workload": "other texts"},
    ):
        unlike = one(claims([narrow[0], replace(narrow[1], **other)], [], at=AT), "flash")
        assert (unlike.verdict, "differ in nothing else" in unlike.why) == ("not measured", True)


def _narrow(row: Measurement) -> Measurement:
    rate = row.texts_per_s or 0.0
    return replace(row, figures=(Figure("texts_per_s", rate, "per_second", rate * 0.995, rate * 1.005),))


def test_the_newest_complete_run_counts() -> None:
    old, new = run(1, one_ratio=1.0), run(2, one_ratio=4.0, at=AT + 60)
    broken = run(3, one_ratio=1.0, at=AT + 90, state="cancelled")
    report = claims([old, broken, new], [], at=AT)
    assert one(report, "one-text-ratio").evidence == ("run 2",)


def test_another_model_than_the_claims_is_told() -> None:
    mark = replace(canned.fingerprint("native"), model="all-MiniLM-L6-v2")
    assert "what was measured is all-MiniLM-L6-v2" in claims([run(marks=(mark,))], [], at=AT).notes[0]
    assert not claims([run()], [], at=AT).notes
    shares = [replace(run(), notes=(f"the lab's own share: {n} µs a request",)) for n in (2, 9)]
    (told,) = claims(shares, [], at=AT).notes
    assert told.startswith("the lab's own share: 2 µs a request (run ")  # the newest run's


def test_evidence_of_several_machines_is_told() -> None:
    mark = replace(canned.fingerprint("native"), machine="elsewhere, NVIDIA H200")
    (note,) = claims([run(1), run(2, marks=(mark,))], [], at=AT).notes
    assert note.startswith("the evidence is of several machines: ") and "elsewhere" in note


def test_charts_come_from_the_same_evidence() -> None:
    report = claims([run()], [canned.check_study(), quality_study(), coexist_study()], at=AT)
    titles = [chart.title for chart in report.charts]
    assert [title.split(",")[0] for title in titles[:4]] == [
        "How many times as fast native is", "Throughput by batch size", "Latency of one text",
        "NDCG@10 by retrieval set",
    ]  # fmt: skip
    assert len(titles) == 7
    for chart in report.charts:
        for series in chart.series:
            assert len(series.x) == len(series.y) <= 120


@pytest.mark.parametrize(
    ("low", "high", "least", "most", "near"),
    [
        (9.0, 11.0, "undecided", "undecided", "holds"),
        (10.0, 11.0, "holds", "undecided", "holds"),
        (8.0, 9.0, "does not hold", "holds", "holds"),
        (2.0, 3.0, "does not hold", "holds", "does not hold"),
        (20.0, 21.0, "holds", "does not hold", "does not hold"),
        (None, None, "undecided", "undecided", "undecided"),
    ],
)
def test_an_interval_against_a_figure_of_ten(
    low: float | None, high: float | None, least: str, most: str, near: str
) -> None:
    found = Interval(10.0, low, high)
    assert (at_least(found, 10), at_most(found, 10), about(found, 10)) == (least, most, near)
