"""The demo from an empty folder to the second start, without a screen: the real engine, worker and model.

Simulated are the GPU, the Hub and Ollama's server, as in `embedctl --demo`; all between is what users run.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest

from embedctl.engine import open_engine
from embedctl.engine.facade import EngineFacade
from embedctl.lab.closed_loop import ClosedLoop
from embedctl.lab.cold_start import ColdStart
from embedctl.lab.presets import PRESETS, Preset
from embedctl.records import BackendState, CanaryReport, JobState, JobUpdate, LoadReport, Run, SwitchReport
from embedctl.series import History

pytestmark = [pytest.mark.torch, pytest.mark.timeout(400)]

TEXTS = (
    "A cat sits on the mat.",
    "Interest rates rose again last week.",
    "Wie hoch ist der Berg?",
    "def mean(xs): return sum(xs) / len(xs)",
    "A kitten is sitting on a rug.",
)
REFERENCE = np.load(Path(__file__).with_name("minilm_reference.npy")).astype(np.float32)
"""Of `TEXTS`, shape (5, 384): `SentenceTransformer(folder).encode(TEXTS, normalize_embeddings=True)`."""
CLIENTS = 6
_LONGEST_JOB = 150.0


@dataclass
class Tally:
    """What the clients of a time of traffic saw."""

    answered: Counter[str] = field(default_factory=Counter)
    """Requests by the backend that answered."""
    started: int = 0
    least_cosine: float = 1.0
    errors: list[Exception] = field(default_factory=list)


@dataclass
class Journey:
    """All that was seen on the way."""

    fresh: JobUpdate | None = None
    missing_before: int | None = None
    download: JobUpdate | None = None
    load: JobUpdate | None = None
    first: np.ndarray[tuple[int, int], np.dtype[np.float32]] | None = None
    switches: list[JobUpdate] = field(default_factory=list)
    traffic: list[Tally] = field(default_factory=list)
    benchmark: JobUpdate | None = None
    stored_run: Run | None = None
    history: History | None = None
    gone_after_unload: bool = False
    processes: list[psutil.Process] = field(default_factory=list)
    remembered: str = ""
    runs_at_second_start: int = 0
    native_at_second_start: BackendState | None = None


@contextmanager
def traffic(engine: EngineFacade) -> Iterator[Tally]:
    """Six clients that embed without a pause while the block runs."""
    tally, lock, stop = Tally(), threading.Lock(), threading.Event()

    def client(number: int) -> None:
        while not stop.is_set():
            rows = [(number + offset) % len(TEXTS) for offset in range(2)]
            with lock:
                tally.started += 1
            try:
                result = engine.embed([TEXTS[row] for row in rows])
            except Exception as error:
                with lock:
                    tally.errors.append(error)
                return
            cosine = float(np.min(np.sum(result.vectors * REFERENCE[rows], axis=1)))
            with lock:
                tally.answered[result.backend] += 1
                tally.least_cosine = min(tally.least_cosine, cosine)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    """The whole way, once; the tests below look at what it left."""
    seen = Journey()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDCTL_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        patch.setenv("OMP_NUM_THREADS", "1")  # two models beside each other on few cores
        for name in ("EMBEDDING_BACKEND", "HF_HUB_OFFLINE", "HF_TOKEN", "HF_ENDPOINT"):
            patch.delenv(name, raising=False)
        patch.setitem(
            PRESETS,
            "quick",
            Preset(
                (ColdStart(), ClosedLoop("one text", 1, 2, 2, 1), ClosedLoop("batch of 16", 16, 1, 2, 1)), 99
            ),
        )
        started = time.time()
        engine = open_engine(demo=True)
        try:
            _travel(engine, seen)
            seen.history = _once_the_unload_is_stored(engine, started)
            seen.processes = psutil.Process().children(recursive=True)
        finally:
            engine.close()
        engine = open_engine(demo=True)
        try:
            seen.remembered = engine.status().active
            seen.runs_at_second_start = len(engine.runs())
            seen.native_at_second_start = engine.refresh()[0].state
        finally:
            engine.close()
        yield seen


def _travel(engine: EngineFacade, seen: Journey) -> None:
    engine.refresh()
    seen.missing_before = engine.model().missing_bytes
    seen.fresh = engine.load("native").wait(_LONGEST_JOB)
    seen.download = engine.download().wait(_LONGEST_JOB)
    seen.load = engine.load("native").wait(_LONGEST_JOB)
    seen.first = engine.embed(list(TEXTS)).vectors
    with traffic(engine) as tally:
        seen.switches.append(engine.switch("ollama", keep_both=True).wait(_LONGEST_JOB))
        seen.switches.append(engine.switch("native", keep_both=True).wait(_LONGEST_JOB))
    seen.traffic.append(tally)
    seen.benchmark = engine.benchmark(title="on the way").wait(_LONGEST_JOB)
    if isinstance(seen.benchmark.result, Run):
        seen.stored_run = engine.run(seen.benchmark.result.id)
    workers = [psutil.Process(pid) for pid in engine.status().backend("native").pids]
    with traffic(engine) as tally:
        seen.switches.append(engine.switch("ollama", keep_both=False).wait(_LONGEST_JOB))
    seen.traffic.append(tally)
    seen.gone_after_unload = bool(workers) and not any(map(_lives, workers))


def _once_the_unload_is_stored(engine: EngineFacade, started: float) -> History:
    """The history, as soon as a stored second (there is one a second) tells of the last unload."""
    deadline = time.monotonic() + 10
    while True:
        history = engine.history(started - 5, time.time() + 5)
        if history.series["native_gpu_memory"].mean[-1] == 0 or time.monotonic() > deadline:
            return history
        time.sleep(0.1)


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_before_the_download_a_load_says_that_the_model_is_missing(journey: Journey) -> None:
    assert journey.missing_before is not None and journey.missing_before > 90_000_000
    assert journey.fresh is not None and journey.fresh.failure is not None
    assert journey.fresh.state is JobState.FAILED
    assert "download" in journey.fresh.failure.remedy


def test_the_model_is_fetched_verified_and_loaded_with_its_canary(journey: Journey) -> None:
    assert journey.download is not None and journey.load is not None
    assert journey.download.state is JobState.DONE, journey.download.failure
    assert journey.load.state is JobState.DONE, journey.load.failure
    report = journey.load.result
    assert isinstance(report, LoadReport)
    assert isinstance(report.canary, CanaryReport)
    assert (report.canary.passed, report.canary.dimension) == (True, 384)


def test_vectors_are_those_of_sentence_transformers_in_the_order_given(journey: Journey) -> None:
    assert journey.first is not None
    assert journey.first.dtype == np.float32
    assert np.sum(journey.first * REFERENCE, axis=1).min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(journey.first, axis=1), 1, atol=1e-5)


def test_no_request_is_lost_while_the_backends_change_places(journey: Journey) -> None:
    for tally in journey.traffic:
        assert tally.errors == []
        assert tally.answered.total() == tally.started > CLIENTS
        assert set(tally.answered) == {"native", "ollama"}
        assert tally.least_cosine >= 0.99


def test_every_switch_is_done_and_the_backends_agree(journey: Journey) -> None:
    assert [update.state for update in journey.switches] == [JobState.DONE] * 3, [
        update.failure for update in journey.switches
    ]
    reports = [update.result for update in journey.switches]
    assert all(isinstance(report, SwitchReport) for report in reports)
    assert [(r.source, r.target, r.unloaded_source) for r in reports if isinstance(r, SwitchReport)] == [
        ("native", "ollama", False),
        ("ollama", "native", False),
        ("native", "ollama", True),
    ]
    for report in reports:
        assert isinstance(report, SwitchReport)
        assert report.agreement is not None and report.agreement > 0.999
        assert {step.state for step in report.steps} == {"done"}, report.steps


def test_unloading_ends_the_worker_and_gives_its_memory_back(journey: Journey) -> None:
    assert journey.gone_after_unload
    steps = {step.name: step for step in journey.switches[-1].steps}
    before, after = steps["drain"].gpu_memory, steps["settle"].gpu_memory
    assert before is not None and after is not None
    assert after < before


def test_the_benchmark_measures_both_and_is_stored(journey: Journey) -> None:
    assert journey.benchmark is not None
    assert journey.benchmark.state is JobState.DONE, journey.benchmark.failure
    run = journey.stored_run
    assert run is not None
    assert (run.title, set(run.backends)) == ("on the way", {"native", "ollama"})
    assert [row.shape for row in run.measurements] == [
        shape for shape in ("cold start", "one text", "batch of 16") for _ in range(2)
    ]
    for row in run.measurements[2:]:
        assert row.errors == 0
        assert len(row.latencies_ms) == row.requests > 0
        assert row.tokens_per_s is not None and row.peak_bytes is not None
    assert {comparison.shape for comparison in run.comparisons} == {"one text", "batch of 16"}
    assert any("simulated" in note for note in run.notes)
    assert any("256 tokens" in note for note in run.notes)  # the passages that would be cut


def test_history_holds_the_curves_and_the_events(journey: Journey) -> None:
    history = journey.history
    assert history is not None
    native, ollama = history.series["native_gpu_memory"], history.series["ollama_gpu_memory"]
    for series in (native, ollama):
        assert len(series) > 5
        assert series.low.min() == 0 < 100e6 < series.high.max()
    assert native.mean[-1] == 0 < ollama.mean[-1]  # at the end ollama alone is loaded
    assert len(history.series["native_p50"]) > 0 and len(history.series["ollama_p50"]) > 0
    kinds = Counter(event.kind for event in history.events)
    assert kinds["start"] == 1
    assert kinds["download"] == 1
    assert kinds["load"] == 2
    assert kinds["unload"] == 1
    assert kinds["switch"] == 3
    assert kinds["run"] == 1
    assert [event.at for event in history.events] == sorted(event.at for event in history.events)


def test_closing_ends_every_process_that_the_demo_started(journey: Journey) -> None:
    assert len(journey.processes) >= 2  # Ollama's server and its runner
    assert [process for process in journey.processes if _lives(process)] == []


def test_a_second_start_knows_the_choice_the_runs_and_the_model(journey: Journey) -> None:
    assert journey.remembered == "ollama"
    assert journey.runs_at_second_start == 1
    assert journey.native_at_second_start is BackendState.UNLOADED
