"""No verdict for a row whose texts a backend did not read, or whose requests failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from embedctl.lab.benchmark import run_benchmark
from embedctl.lab.closed_loop import ClosedLoop
from embedctl.lab.presets import PRESETS, Preset
from embedctl.lab.reading import Reading, withheld
from embedctl.lab.stages import Rows
from embedctl.progress import CancelToken, silent
from embedctl.records import Comparison, Interval, Measurement, Run
from tests.support import ollama_faults as faults
from tests.support.bench_targets import served
from tests.support.lab import WORKLOAD, Scripted, VirtualPace, bench_of, unit_vectors
from tests.support.ollama_faults import count_words

LONG = replace(WORKLOAD, passages=tuple(f"{text} and so on" * 200 for text in WORKLOAD.passages))
WHY = (
    "{}: no verdict and no tokens/s, for it does not read texts of this length to the end "
    "(the last of {} tokens changes nothing)"
)


@pytest.fixture
def lengths(monkeypatch: pytest.MonkeyPatch) -> str:
    """A preset of single texts of 512 and 4,096 tokens."""
    stages = tuple(
        ClosedLoop(f"{tokens} tokens", 1, per_block=1, blocks=2, budget=0.2, tokens=tokens)
        for tokens in (512, 4096)
    )
    monkeypatch.setitem(PRESETS, "lengths", Preset(stages, limit=30.0))
    return "lengths"


def test_a_backend_that_cuts_in_silence_gets_no_verdict_where_it_cut(lengths: str) -> None:
    """ollama#14259: it takes half the time of a text by reading half of it."""
    with served("native") as whole, served("ollama", faults.cuts_silently(2048)) as cut:
        run = run_benchmark(
            [whole, cut], preset=lengths, count_tokens=count_words, machine=None, progress=silent,
            cancel=CancelToken(), workload=LONG,
        )  # fmt: skip
    assert [one.shape for one in run.comparisons] == ["512 tokens"]
    assert WHY.format("ollama, 4096 tokens", "4,096") in run.notes
    rates = {(row.backend, row.shape): row.tokens_per_s for row in run.measurements}
    assert rates["ollama", "4096 tokens"] is None
    assert rates["native", "4096 tokens"] and rates["ollama", "512 tokens"]
    assert not any(note.startswith("native") and "no verdict" in note for note in run.notes)


# On a virtual clock


def up_to(tokens: int) -> object:
    def vectors(texts: Sequence[str]) -> np.ndarray:
        return unit_vectors([" ".join(text.split()[: tokens - 2]) for text in texts])

    return vectors


def test_what_was_read_is_not_asked_for_again() -> None:
    pace = VirtualPace()
    backend = Scripted("ollama", pace, lambda n: 0.01)
    backend.vectors = up_to(600)  # type: ignore[assignment]
    bench = bench_of(backend, pace=pace)
    bench.count_tokens = count_words
    reading = Reading(bench)

    def asked(tokens: int) -> tuple[bool, int]:
        before = len(backend.log)
        unread = reading.unread(ClosedLoop("", 1, 1, 1, 1, tokens=tokens))
        return bool(unread), len(backend.log) - before

    assert [asked(tokens) for tokens in (512, 128, 600, 2048, 8192, 601, 600)] == [
        (False, 2), (False, 0), (False, 2), (True, 2), (True, 0), (True, 2), (False, 0)
    ]  # fmt: skip
    bench.faulty = frozenset({"ollama"})
    assert asked(602) == (False, 0), "it gets no verdict anyhow"


def test_an_ask_that_fails_is_told_as_it_is() -> None:
    pace = VirtualPace()
    backend = Scripted("ollama", pace, lambda n: 0.01)
    backend.fails = lambda texts: True
    bench = bench_of(backend, pace=pace)
    assert Reading(bench).unread(ClosedLoop("one text", 1, 1, 1, 1)) == {"ollama": "It stalled"}


def rows_of(metric: str, errors: int) -> Rows:
    rows = [
        Measurement(name, "load 60 %", 1, 500, failed, (1.0,), 1.0, None, "", None, 9.0, None, None, "")
        for name, failed in (("native", 0), ("ollama", errors))
    ]
    told = Comparison("load 60 %", metric, "ollama", "native", Interval(2.0, 1.5, 3.0), "faster")  # type: ignore[arg-type]
    return Rows(tuple(rows), (told,))


@pytest.mark.parametrize(
    ("metric", "errors", "kept"),
    [("p95", 5, True), ("p95", 6, False), ("latency", 6, False), ("throughput", 6, False)],
)
def test_a_row_of_which_more_than_one_in_a_hundred_failed_gets_no_verdict(
    metric: str, errors: int, kept: bool
) -> None:
    found = withheld(rows_of(metric, errors), {})
    assert bool(found.comparisons) is kept
    said = () if kept else ("ollama, load 60 %: no verdict, 6 of 500 requests failed",)
    assert found.notes == said


def test_goodput_bears_failures_and_no_unread_texts() -> None:
    rows = rows_of("goodput", 400)
    assert withheld(rows, {}) == rows
    assert withheld(rows, {"ollama": "cut"}).comparisons == ()


def test_failures_within_a_run_cost_its_verdicts() -> None:
    pace = VirtualPace()
    native, ollama = (Scripted(name, pace, lambda n: 0.01) for name in ("native", "ollama"))
    calls = iter(range(10_000))
    ollama.fails = lambda texts: len(texts) == 1 and next(calls) % 20 == 19
    run: Run = run_benchmark(
        [native.target(), ollama.target()], preset="quick", count_tokens=count_words, machine=None,
        progress=silent, cancel=CancelToken(), workload=WORKLOAD, pace=pace, sampling=pace.sampling,
    )  # fmt: skip
    assert "one text" not in {one.shape for one in run.comparisons}
    assert "batch of 16" in {one.shape for one in run.comparisons}
    assert any("ollama, one text: no verdict, " in note for note in run.notes)
