"""Runs side by side, the conditions of --fail-on, and runs in files."""

from __future__ import annotations

import gzip
import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedctl.errors import UsageError
from embedctl.lab.bundles import export_run, import_run
from embedctl.lab.compare import compare
from embedctl.lab.thresholds import parse
from embedctl.records import Figure, FigureDelta, Fingerprint, Measurement, Run

MARK = Fingerprint(
    "native", "6.0", "m", "abc", "float16", "cls", True, 512, 2, "cpu", "sdpa", "2.11", "580", "box", {"a": 1}
)


def run_of(seed: int, *, slower: float = 1.0, requests: int = 400, run_id: int = 1, **figures: float) -> Run:
    """One text at about 10 ms with 5 % of scatter."""
    noise = random.Random(seed)
    latencies = tuple(10 * slower * noise.lognormvariate(0, 0.05) for _ in range(requests))
    more = tuple(Figure(name, value, low=value, high=value) for name, value in figures.items())
    row = Measurement(
        "native", "one text", 1, requests, 0, latencies, 10 * slower, 11 * slower, "", 100 / slower, 3e3, 30,
        2**31, "NVML",
        figures=(Figure("texts_per_s", 100 / slower, "per_second", 98 / slower, 102 / slower), *more),
        series={"warm_up_ms": (30.0, float("nan"), 10.0)},
    )  # fmt: skip
    return Run(
        run_id, 1_000.0, "quick", 9.5, ("native",), (row,), (), (MARK,), "texts 01ab", notes=("a note", "ü"),
        title="t", seed=5, environment={"kernel": "6.8", "load_average": [0.5, 0.25]},
    )  # fmt: skip


def delta(comparison: Any, name: str) -> FigureDelta:
    return next(one for one in comparison.figures if one.name == name)


# Comparing


def test_the_same_work_twice_shows_no_difference_that_matters() -> None:
    """20 pairs of runs of the same backend: all that can be decided says so, and nothing is condemned."""
    said = []
    for seed in range(20):
        both = compare(run_of(seed), run_of(seed + 100), fail_on="p50>1.05,p95>1.1,texts_per_s<0.95")
        said.append(delta(both, "p50").verdict)
        assert {outcome.outcome for outcome in both.conditions} == {"not met"}
    assert said.count("no difference that matters") >= 19


def test_a_slower_run_is_told_and_condemned() -> None:
    both = compare(
        run_of(1), run_of(2, slower=1.3, run_id=2), fail_on="p95>1.1, native:texts_per_s@one text<0.9"
    )
    assert delta(both, "p50").verdict == delta(both, "p95").verdict == "worse"
    assert delta(both, "texts_per_s").verdict == "worse"
    change = delta(both, "p95").change
    assert change is not None and change.low is not None and change.high is not None
    assert change.low < 1.3 < change.high
    assert [(outcome.text, outcome.outcome) for outcome in both.conditions] == [
        ("p95>1.1", "met"),
        ("native:texts_per_s@one text<0.9", "met"),
    ]


def test_a_slower_warm_up_is_told() -> None:
    both = compare(run_of(1, warm_up_ms=50.0), run_of(2, warm_up_ms=400.0))
    assert delta(both, "warm_up_ms").verdict == "worse"


def test_too_few_requests_decide_nothing() -> None:
    both = compare(run_of(1, requests=30), run_of(2, slower=2.0, requests=30), fail_on="p95>1.1")
    assert delta(both, "p95").verdict == both.conditions[0].outcome == "undecided"
    assert delta(both, "p50").verdict == "worse"


def test_qualities_are_compared_by_difference() -> None:
    both = compare(run_of(1, ndcg=0.70), run_of(2, ndcg=0.67), fail_on="ndcg<-0.01")
    ndcg = delta(both, "ndcg")
    assert ndcg.change is not None and ndcg.change.estimate == pytest.approx(-0.03)
    assert (ndcg.verdict, both.conditions[0].outcome) == ("worse", "met")
    assert (
        compare(run_of(1, ndcg=0.7), run_of(2, ndcg=0.7), fail_on="ndcg<-0.01").conditions[0].outcome
        == "not met"
    )


def test_two_runs_side_by_side_name_what_differs_and_what_of_it_matters() -> None:
    a = run_of(1)
    mark = replace(MARK, dtype="float32", driver="590")
    b = replace(run_of(2), id=2, fingerprints=(mark,), workload="other 0000")
    both = compare(a, b)
    assert both.differences == (
        "workload: texts 01ab → other 0000",
        "native dtype: float16 → float32",
        "native driver: 580 → 590",
    )
    assert both.conflicts == both.differences[:2]
    assert compare(a, replace(a, fingerprints=(replace(MARK, driver="590"),))).conflicts == ()


def test_a_row_that_one_run_lacks_is_kept_half_empty() -> None:
    a = run_of(1)
    other = replace(a.measurements[0], shape="batch of 16")
    both = compare(a, replace(a, measurements=(*a.measurements, other)))
    assert both.rows[1].b_p50_ms is not None and both.rows[1].a_p50_ms is None
    assert {one.shape for one in both.figures} == {"one text"}


# What a row bears


def noted(run: Run, *notes: str) -> Run:
    return replace(run, notes=(*run.notes, *notes))


def failing(run: Run, errors: int) -> Run:
    return replace(run, measurements=tuple(replace(row, errors=errors) for row in run.measurements))


def test_a_backend_of_wrong_vectors_is_no_faster_one() -> None:
    fast = noted(run_of(2, slower=0.3), "native failed the gate, no verdicts: different texts get one vector")
    both = compare(run_of(1), fast)
    assert both.conflicts == ("native in B: it failed the gate: different texts get one vector",)
    told = {one.name: one.verdict for one in both.figures}
    assert told.pop("p50") == told.pop("texts_per_s") == "undecided"
    with pytest.raises(UsageError, match="cannot be judged — native, one text: it failed the gate"):
        compare(run_of(1), fast, fail_on="p95>1.1")


def test_a_row_of_cut_texts_or_failed_requests_says_nothing_of_speed() -> None:
    cut = noted(
        run_of(2, slower=0.3),
        "native, one text: no verdict and no tokens/s, for it does not read texts of this length to the end "
        "(the vectors stop to differ)",
    )
    for b, why in ((cut, "to the end"), (failing(run_of(2, slower=0.3), 40), "40 of 400 requests failed")):
        both = compare(run_of(1), b)
        assert delta(both, "p95").verdict == delta(both, "p50").verdict == "undecided"
        (note,) = both.notes
        assert note.startswith("native, one text: no verdict on its speed, ") and note.endswith(f"{why} (B)")
        assert not both.conflicts
        with pytest.raises(UsageError, match="cannot be judged"):
            compare(run_of(1), b, fail_on="p95>1.1")
        already = compare(b, b, fail_on="p95>1.1")  # nothing that got worse
        assert [one.outcome for one in already.conditions] == ["undecided"]
    assert not compare(run_of(1), failing(run_of(2), 4)).notes


# Peaks of memory


def with_peaks(run: Run, *peaks: int, source: str = "NVML", kind: str = "closed loop") -> Run:
    (row,) = run.measurements
    return replace(
        run,
        measurements=tuple(
            replace(row, shape=f"batch of {place}", peak_bytes=peak, peak_source=source, kind=kind)
            for place, peak in enumerate(peaks)
        ),
    )


def peaks(a: Run, b: Run, fail_on: str = "") -> tuple[FigureDelta, ...]:
    return tuple(one for one in compare(a, b, fail_on=fail_on).figures if one.name in ("peak", "load_peak"))


def test_one_reading_of_a_peak_decides_nothing() -> None:
    found = peaks(with_peaks(run_of(1), 2**31), with_peaks(run_of(2), 3 * 2**30))[0]
    assert found.change is not None and found.change.low is found.change.high is None
    assert found.verdict == "undecided"


def test_peaks_that_move_together_are_told_and_others_are_not() -> None:
    base = [1_000 * 2**20, 1_100 * 2**20, 1_300 * 2**20, 1_700 * 2**20]
    a = with_peaks(run_of(1), *base)
    more = with_peaks(
        run_of(2), *(int(one * by) for one, by in zip(base, (1.2, 1.21, 1.2, 1.19), strict=True))
    )
    assert {one.verdict for one in peaks(a, more)} == {"worse"}
    same = peaks(a, with_peaks(run_of(2), *base))
    assert {one.verdict for one in same} == {"no difference that matters"}
    for one in same:
        assert one.change is not None and (one.change.low or 0) < 1 < (
            one.change.high or 0
        )  # never of no width
    scattered = with_peaks(
        run_of(2), *(int(x * by) for x, by in zip(base, (0.9, 1.2, 1.0, 1.1), strict=True))
    )
    assert {one.verdict for one in peaks(a, scattered)} == {"undecided"}


def test_what_a_load_holds_for_a_moment_is_no_peak_of_work() -> None:
    a, b = (with_peaks(run_of(1), 2**31, kind="cold start") for _ in "ab")
    assert [one.name for one in peaks(a, b)] == ["load_peak"]


def test_peaks_of_two_sources_are_named_and_not_compared() -> None:
    a = with_peaks(run_of(1), 2**31, 2**31, source="NVML, read right before")
    b = with_peaks(run_of(2), 2**30, 2**30, source="/proc")
    assert peaks(a, b) == ()
    assert "native peak memory, not compared: NVML → /proc" in compare(a, b).differences
    assert len(peaks(a, with_peaks(run_of(2), 2**31, 2**31))) == 2


def test_what_was_different_around_the_backends_is_told() -> None:
    a, b = run_of(1), run_of(2)
    a = replace(a, environment={"kernel": "6.8", "governor": "performance", "co_tenants": []})
    b = replace(b, environment={"kernel": "6.11", "governor": None, "co_tenants": ["cc1plus 99 %"]})
    assert compare(a, b).differences == ("kernel: 6.8 → 6.11", "co-tenants: none → cc1plus 99 %")
    assert compare(a, b).conflicts == ()


# Conditions


def test_conditions_are_read() -> None:
    first, second = parse(" p95 > 1.1 ,ollama:texts_per_s@batch of 32<9.5e-1")
    assert (first.figure, first.sign, first.number, first.backend) == ("p95", ">", 1.1, None)
    assert (second.backend, second.figure, second.shape) == ("ollama", "texts_per_s", "batch of 32")
    assert (first.at, second.at) == (2, 13)
    assert parse("") == parse("  ") == ()
    assert parse("ndcg<-.01")[0].number == -0.01


@pytest.mark.parametrize(
    ("text", "position", "named"),
    [
        ("p95", 1, "“p95”"),
        ("p95>1.1;p50>1", 8, "“;p50>1”"),
        ("p95>1.1,", 9, "the end"),
        ("p95>1.1,,p50>1", 9, "“,p50>1”"),
        ("p95>=1.1", 1, "“p95>=1.1”"),
        (">1", 1, "“>1”"),
        ("p95>1.1 x", 9, "“x”"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_position(text: str, position: int, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert f"at position {position}" in caught.value.what
    assert named in caught.value.why


def test_a_condition_on_what_was_not_measured_has_not_passed() -> None:
    with pytest.raises(UsageError, match=r"“ndcg<-0.01” \(position 9\) cannot be judged"):
        compare(run_of(1), run_of(2), fail_on="p95>1.1,ndcg<-0.01")


# Bundles


def test_a_bundle_brings_back_the_whole_run(tmp_path: Path) -> None:
    file = tmp_path / "run.json.gz"
    run = run_of(1)
    export_run(run, file)
    read = import_run(file)
    assert str(read.measurements[0].series) == str(run.measurements[0].series)  # NaN is not equal to itself

    def without_series(one: Run) -> Run:
        return replace(one, measurements=tuple(replace(row, series={}) for row in one.measurements))

    assert without_series(read) == without_series(run)
    assert list(tmp_path.iterdir()) == [file]
    assert file.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert {one.verdict for one in compare(run, read).figures} <= {"no difference that matters", "undecided"}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def changed(file: Path, **changes: object) -> None:
    document = {**json.loads(gzip.decompress(file.read_bytes())), **changes}
    file.write_bytes(gzip.compress(json.dumps(document).encode()))


def test_a_changed_bundle_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.json.gz"
    export_run(run_of(1), file)
    document = json.loads(gzip.decompress(file.read_bytes()))
    document["run"]["measurements"][0]["latencies_ms"][0] = 0.1
    changed(file, run=document["run"])
    with pytest.raises(UsageError, match="does not have the hash that it states"):
        import_run(file)


def test_a_newer_bundle_is_refused_with_the_way_out(tmp_path: Path) -> None:
    file = tmp_path / "run.json.gz"
    export_run(run_of(1), file)
    changed(file, schema_version=2)
    with pytest.raises(UsageError, match="schema version 2, this embedctl knows 1 — update embedctl"):
        import_run(file)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"not gzip", "no gzip file"),
        (gzip.compress(b"{" * 100), "no JSON"),
        (gzip.compress(b'{"format": "other"}'), "no run of embedctl"),
        (gzip.compress(b'{"format": "embedctl-run"}'), "no schema version"),
        (gzip.compress(b"0123456789" * 99)[:20], "cut short"),
    ],
    ids=["text", "no-json", "other-format", "no-version", "cut"],  # the bytes tell the time, ids must not
)
def test_what_is_no_bundle_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "x"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=why):
        import_run(file)


def test_a_bundle_with_a_sound_hash_and_wrong_content_names_the_field(tmp_path: Path) -> None:
    import hashlib

    file = tmp_path / "run.json.gz"
    export_run(run_of(1), file)
    run = json.loads(gzip.decompress(file.read_bytes()))["run"]
    run["measurements"][0]["requests"] = "many"
    text = json.dumps(run, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    changed(file, run=run, sha256=hashlib.sha256(text.encode()).hexdigest())
    with pytest.raises(UsageError, match=r"measurements\.0\.requests"):
        import_run(file)


def test_a_place_that_cannot_be_written_or_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="was not written"):
        export_run(run_of(1), tmp_path / "nowhere" / "x.gz")
    with pytest.raises(UsageError, match="cannot be read"):
        import_run(tmp_path / "missing.gz")
