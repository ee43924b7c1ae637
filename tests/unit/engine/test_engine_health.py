"""A real engine's health: what it reads off scripted backends, a scripted machine and live requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from embedctl.engine.memory import LatestSample
from embedctl.engine.watch import PROBE_TEXT
from embedctl.errors import BackendError, BackendTimeoutError
from embedctl.records import BackendHealth, BackendState, Condition, Provenance, Sample
from embedctl.settings import Settings
from tests.support.engines import Rig, rig


@pytest.fixture
def r(tmp_path: Path) -> Iterator[Rig]:
    settings = Settings.model_validate({"alerts": {"for_s": 0.0}})
    with rig(tmp_path, settings, sampling=False) as made:
        yield made


def health(r: Rig, name: str = "native") -> BackendHealth:
    return next(each for each in r.engine.health().backends if each.backend == name)


def set_status(r: Rig, **changes: object) -> None:
    r.native._status = replace(r.native._status, **changes)  # type: ignore[arg-type]


def latest(r: Rig) -> LatestSample:
    return r.engine._latest


def test_what_is_not_loaded_is_idle_and_not_ready(r: Rig) -> None:
    assert health(r).condition is Condition.IDLE
    assert not r.engine.health().ready


def test_a_probe_that_is_answered_makes_it_ready(r: Rig) -> None:
    r.engine.load("native").wait(30)
    r.engine._watch.look()
    found = health(r)
    assert (found.condition, r.engine.health().ready) == (Condition.HEALTHY, True)
    assert found.probe_ms is not None and "a probe was answered" in found.why
    assert health(r, "ollama").condition is Condition.IDLE


@pytest.mark.parametrize("kind", ["benchmark", "check", "coexist", "quality", "tune"])
def test_a_probe_never_waits_behind_a_job_that_measures(
    r: Rig, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    r.engine.load("native").wait(30)
    monkeypatch.setattr(r.engine._watch, "_probe_every", 1e-9)
    job = r.engine._jobs.start("any", kind, kind, lambda job: job.cancel_token.wait(30))
    r.engine._watch.look()
    assert r.native.embedded == 0
    job.cancel()
    job.wait(30)
    r.engine._watch.look()
    assert r.native.embedded == 1


@pytest.mark.parametrize(
    ("error", "condition"),
    [
        (BackendTimeoutError("No answer within 10 s"), Condition.HUNG),
        (BackendError("It stalled"), Condition.DOWN),
    ],
)
def test_a_probe_that_fails_is_one_event_and_its_end_another(
    r: Rig, error: BackendError, condition: Condition, monkeypatch: pytest.MonkeyPatch
) -> None:
    r.engine.load("native").wait(30)
    monkeypatch.setattr(r.engine._watch, "_probe_every", 1e-9)
    r.native.embed_error = error
    for _ in range(3):
        r.engine._watch.look()
    assert health(r).condition is condition
    assert not r.engine.health().ready
    r.native.embed_error = None
    for _ in range(3):
        r.engine._watch.look()
    assert r.engine.health().ready
    events = r.engine.events(kinds=["health"])
    assert [event.title for event in events] == ["native does well again", f"native: {condition.value}"]
    assert events[1].detail["why"].endswith(error.what)
    assert PROBE_TEXT not in repr(events)


def test_requests_that_fail_one_after_the_other_are_seen(r: Rig) -> None:
    r.engine.load("native").wait(30)
    r.native.embed_error = BackendError("No vector came")
    for _ in range(3):
        with pytest.raises(BackendError):
            r.engine.embed(["text"])
    assert health(r).condition is Condition.DOWN
    assert "the last 3 requests failed: No vector came" in health(r).why
    r.native.embed_error = None
    r.engine.embed(["text"])
    assert health(r).condition is Condition.HEALTHY


def test_silence_makes_a_probe_due_although_a_request_is_in_flight(
    r: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    r.engine.load("native").wait(30)
    r.native.gate = threading.Event()
    now = [1_000.0]
    monkeypatch.setattr(r.engine._traffic, "_monotonic", lambda: now[0])
    monkeypatch.setattr(r.engine._watch, "_monotonic", lambda: now[0])
    asker = threading.Thread(target=r.engine.embed, args=(["slow"],))
    asker.start()
    while not r.engine._traffic.in_flight("native"):
        threading.Event().wait(0.001)
    now[0] += 31.0
    assert health(r).condition is Condition.HUNG
    gate, r.native.gate = r.native.gate, None  # the one request is slow, the next one is not
    r.engine._watch.look()
    assert health(r).condition is Condition.HEALTHY
    gate.set()
    asker.join(30)


def test_a_worker_on_the_cpu_beside_a_gpu_is_told_unless_it_was_put_there(r: Rig, tmp_path: Path) -> None:
    r.engine.load("native").wait(30)
    r.engine.embed(["text"])
    set_status(r, device="cpu (Grace)")
    assert health(r).condition is Condition.CPU_FALLBACK
    assert r.engine.health().ready
    set_status(r, remote=True)
    assert health(r).condition is Condition.HEALTHY
    settings = Settings.model_validate({"native": {"device": "cpu"}})
    with rig(tmp_path / "other", settings, sampling=False) as wanted:
        wanted.engine.load("native").wait(30)
        set_status(wanted, device="cpu (Grace)")
        assert health(wanted).condition is Condition.HEALTHY


def test_held_back_clocks_are_told_with_their_reason(r: Rig) -> None:
    r.engine.load("native").wait(30)
    source = Provenance("NVML violation counters: power limit")
    latest(r).put(Sample(1.0, {"gpu_throttled": 1.0}, {"gpu_throttled": source}), ())
    assert health(r).condition is Condition.THROTTLED
    assert "power limit" in health(r).why
    latest(r).put(Sample(2.0, {"gpu_throttled": 0.0}, {"gpu_throttled": source}), ())
    assert health(r).condition is Condition.HEALTHY


def test_a_load_that_does_not_end_is_hung(r: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr(r.engine._watch, "_monotonic", lambda: now[0])
    set_status(r, state=BackendState.LOADING)
    r.engine._watch.look()
    now[0] += 100.0
    assert health(r).condition is Condition.IDLE
    now[0] += 300.0
    r.engine._watch.look()
    assert health(r).condition is Condition.HUNG
    set_status(r, state=BackendState.READY)
    r.engine._watch.look()
    assert health(r).condition is Condition.HEALTHY


def test_where_nothing_is_probed_a_loaded_backend_is_ready(tmp_path: Path) -> None:
    settings = Settings.model_validate({"engine": {"probe_every_s": 0}})
    with rig(tmp_path, settings, sampling=False) as r:
        r.engine.load("native").wait(30)
        r.engine._watch.look()
        assert r.engine.health().ready
        assert "nobody has asked it anything yet" in health(r).why


def test_an_answer_of_long_ago_is_no_readiness(r: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    r.engine.load("native").wait(30)
    r.engine._watch.look()
    assert r.engine.health().ready
    at = r.engine._watch._monotonic()
    monkeypatch.setattr(r.engine._watch, "_monotonic", lambda: at + 91.0)
    assert not r.engine.health().ready
    monkeypatch.setattr(r.engine._vitals, "_quiet", lambda: True)  # a benchmark keeps probes away
    assert r.engine.health().ready
