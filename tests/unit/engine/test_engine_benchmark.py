"""Benchmarks in the engine: kept as they go, cancelled, broken off, and gone on with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from embedctl.errors import UsageError
from embedctl.lab.closed_loop import ClosedLoop
from embedctl.lab.cold_start import ColdStart
from embedctl.lab.presets import PRESETS, Preset
from embedctl.records import JobState, Run
from tests.support.engines import Rig, rig

SHAPES = ("cold start", "one text", "batch of 16", "batch of 32")
NO_PROCESS = 2**22 + 1
"""Above the greatest process id that Linux gives."""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    stages = (
        ColdStart(repeats=1),
        ClosedLoop("one text", 1, per_block=2, blocks=4, budget=1.0),
        *(ClosedLoop(f"batch of {size}", size, per_block=1, blocks=4, budget=1.0) for size in (16, 32)),
    )
    monkeypatch.setitem(PRESETS, "quick", Preset(stages, limit=60.0))
    with rig(tmp_path) as made:
        yield made


def only_run(engine: Rig) -> Run:
    (summary,) = engine.engine.runs()
    return engine.engine.run(summary.id)


def test_a_run_knows_its_surroundings_and_how_its_backends_started(engine: Rig) -> None:
    run = engine.engine.benchmark(title="t").wait(60).result
    assert isinstance(run, Run) and run.state == "done"
    assert engine.engine.run(run.id) == run
    [event] = engine.engine.events(kinds=["run"])
    assert event.detail == {"run": run.id, "seconds": run.seconds}
    assert {row.shape for row in run.measurements} == set(SHAPES)
    cold = run.measurements[0]
    assert (cold.kind, cold.requests) == ("cold start", 1)
    assert engine.native.calls == ["load", "unload", "load", "unload"]  # restarted, for it was ours
    ready = cold.figure("ready_ms")
    assert ready is not None and ready.value is not None and "page cache" in ready.note
    assert cold.figure("step: loading") is not None
    assert run.environment["pid"] == os.getpid() and run.environment["kernel"]
    held = run.measurements[2].figure("pool_low_bytes")
    assert held is not None and held.value is not None and held.value < engine.probe.total


def test_a_tuning_tells_on_the_time_line_how_long_it_took(engine: Rig) -> None:
    assert engine.engine.tune().wait(10).state is JobState.DONE
    [event] = engine.engine.events(kinds=["note"])
    assert 0 <= event.detail["seconds"] < 10


def test_what_was_loaded_before_is_not_restarted(engine: Rig) -> None:
    assert engine.engine.load("native").wait(10).state is JobState.DONE
    run = engine.engine.benchmark(backends=["native"]).wait(60).result
    assert isinstance(run, Run)
    assert run.measurements[0].requests == 0
    assert "unload" not in engine.native.calls


def test_a_cancelled_run_keeps_its_whole_parts_and_is_gone_on_with(engine: Rig) -> None:
    job = engine.engine.benchmark(backends=["native"])
    engine.native.on_embed = lambda texts: job.cancel() if len(texts) == 16 else None
    assert job.wait(60).state is JobState.CANCELLED
    cut = only_run(engine)
    assert cut.state == "cancelled"
    assert [row.shape for row in cut.measurements] == list(SHAPES[:2])

    engine.native.on_embed = lambda texts: None
    whole = engine.engine.resume_benchmark(cut.id).wait(60).result
    assert isinstance(whole, Run) and (whole.id, whole.state) == (cut.id, "done")
    assert [row.shape for row in whole.measurements] == list(SHAPES)
    assert whole.measurements[:2] == cut.measurements
    assert only_run(engine) == whole
    with pytest.raises(UsageError, match="is complete"):
        engine.engine.resume_benchmark(cut.id)


def test_a_run_cancelled_before_its_first_part_leaves_nothing(engine: Rig) -> None:
    job = engine.engine.benchmark(backends=["native"])
    engine.native.on_embed = lambda texts: job.cancel()
    assert job.wait(60).state is JobState.CANCELLED
    assert engine.engine.runs() == ()


def test_a_run_whose_process_ended_is_gone_on_with_and_a_living_ones_is_not(engine: Rig) -> None:
    whole = engine.engine.benchmark(backends=["native"]).wait(60).result
    assert isinstance(whole, Run)
    crashed = replace(
        whole,
        state="unfinished",
        measurements=whole.measurements[:3],
        environment={"pid": NO_PROCESS, "pid_started": 1.0},
    )
    kept = engine.engine.add_run(crashed)
    resumed = engine.engine.resume_benchmark(kept.id).wait(60).result
    assert isinstance(resumed, Run) and resumed.state == "done" and len(resumed.measurements) == 4

    parent = psutil.Process(os.getppid())
    alive = {"pid": parent.pid, "pid_started": parent.create_time()}
    elsewhere = engine.engine.add_run(replace(crashed, environment=alive))
    with pytest.raises(UsageError, match="is being measured"):
        engine.engine.resume_benchmark(elsewhere.id)


def test_a_run_on_a_changed_model_is_not_gone_on_with(engine: Rig) -> None:
    whole = engine.engine.benchmark(backends=["native"]).wait(60).result
    assert isinstance(whole, Run)
    engine.engine._parts.store.put_run(replace(whole, state="cancelled", measurements=whole.measurements[:1]))
    engine.native.dtype = "float16"
    update = engine.engine.resume_benchmark(whole.id).wait(60)
    assert update.state is JobState.FAILED and update.failure is not None
    assert "cannot be resumed" in update.failure.what
    assert len(only_run(engine).measurements) == 1
