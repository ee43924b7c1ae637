"""Switches of a real engine between scripted backends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedctl.engine import switching
from embedctl.engine.deadline import Deadline
from embedctl.engine.jobs import Job
from embedctl.errors import BackendError, Cancelled, StoreFullError, UsageError
from embedctl.progress import CancelToken
from embedctl.records import BackendState, JobState, StepRecord, SwitchReport, Trial
from embedctl.settings import Settings
from tests.support.engines import GIB, Rig, only_one_fits, rig
from tests.support.fake_backend import vector_of


@pytest.fixture
def r(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        made.engine.load("native").wait(30)
        yield made


def outline(steps: tuple[StepRecord, ...]) -> list[tuple[str, str]]:
    return [(step.name, step.state) for step in steps]


def test_a_switch_loads_checks_flips_and_lets_the_old_backend_go(r: Rig) -> None:
    final = r.engine.switch("ollama").wait(30)
    assert final.state is JobState.DONE, final.failure
    report = final.result
    assert isinstance(report, SwitchReport)
    assert outline(report.steps) == [
        (name, "done")
        for name in (
            "preflight",
            "load ollama",
            "canary",
            "agreement",
            "flip",
            "drain",
            "unload native",
            "settle",
        )
    ]
    assert report.agreement == pytest.approx(1.0)
    assert report.unloaded_source
    assert r.engine.status().active == "ollama"
    assert r.native.status().state is BackendState.UNLOADED


def test_the_choice_outlives_the_process(r: Rig, tmp_path: Path) -> None:
    r.engine.switch("ollama").wait(30)
    r.engine.close()
    with rig(tmp_path) as again:
        assert again.engine.status().active == "ollama"
    with rig(tmp_path, starting_backend="native") as flagged:
        assert flagged.engine.status().active == "native"


def test_keep_both_leaves_the_old_backend_loaded(r: Rig) -> None:
    final = r.engine.switch("ollama", keep_both=True).wait(30)
    assert isinstance(final.result, SwitchReport) and not final.result.unloaded_source
    assert r.native.status().state is BackendState.READY


def test_vectors_that_disagree_a_little_make_a_warning_and_still_switch(r: Rig) -> None:
    r.ollama.twist = 0.2
    final = r.engine.switch("ollama").wait(30)
    assert isinstance(final.result, SwitchReport)
    assert final.result.agreement is not None and final.result.agreement < 0.99
    assert ("agreement", "warning") in outline(final.result.steps)
    assert len(final.result.warnings) == 1


@pytest.mark.parametrize("fit", [True, False], ids=["both fit", "only one fits"])
def test_another_model_is_not_switched_to(r: Rig, fit: bool) -> None:
    if not fit:
        only_one_fits(r)
    r.ollama.twist = 5.0
    final = r.engine.switch("ollama").wait(30)
    assert final.state is JobState.FAILED and final.failure is not None
    assert "ollama does not serve the model that native does" in final.failure.why
    assert "engine.least_agreement" in final.failure.remedy
    assert ("agreement", "failed") in outline(final.steps)
    assert r.engine.status().active == "native"
    assert r.native.status().state is BackendState.READY
    assert r.ollama.status().state is BackendState.UNLOADED


def test_another_model_is_switched_to_where_that_is_wanted(tmp_path: Path) -> None:
    with rig(tmp_path, Settings.model_validate({"engine": {"least_agreement": -1}})) as r:
        r.engine.load("native").wait(30)
        r.ollama.twist = 5.0
        final = r.engine.switch("ollama").wait(30)
        assert isinstance(final.result, SwitchReport) and len(final.result.warnings) == 1


def test_what_is_loaded_is_switched_to_however_little_memory_is_left(r: Rig) -> None:
    """The way back in need: both hold their memory already."""
    r.engine.load("ollama").wait(30)
    r.probe.others = r.probe.total - 4 * GIB - 1 * GIB
    assert r.engine._latest.wait_until(lambda _: True, 10)
    plan = r.engine.plan_switch("ollama", keep_both=True)
    assert plan.obstacle is None and plan.fits_beside and not plan.unloads_source
    assert r.engine.switch("ollama", keep_both=True).wait(30).state is JobState.DONE
    assert r.native.status().state is BackendState.READY


def test_a_switch_that_cannot_begin_leaves_a_trial_alone(r: Rig) -> None:
    assert r.engine.start_trial(Trial("ollama", shadow=1)).wait(30).state is JobState.DONE
    r.ollama.preflight_error = BackendError("The model is not there")
    assert r.engine.switch("ollama").wait(30).state is JobState.FAILED
    assert r.engine.trial() is not None


@pytest.mark.parametrize("fault", ["preflight_error", "load_error"])
def test_a_failure_before_the_flip_leaves_all_as_it_was_and_says_why(r: Rig, fault: str) -> None:
    setattr(r.ollama, fault, BackendError("The model is not there", why="never pulled", remedy="pull it"))
    final = r.engine.switch("ollama").wait(30)
    assert final.state is JobState.FAILED
    assert final.failure is not None
    assert "native is still the active backend" in final.failure.what
    assert "The model is not there. never pulled" in final.failure.why
    assert final.failure.remedy == "pull it"
    assert r.engine.status().active == "native"
    assert r.native.status().state is BackendState.READY
    assert [event.kind for event in r.engine.events(kinds=["error"])]


def test_a_target_loaded_by_a_switch_that_is_cancelled_later_is_unloaded_again(
    r: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(*_: object) -> float:
        raise Cancelled

    monkeypatch.setattr(switching, "least_cosine", cancelled)
    final = r.engine.switch("ollama").wait(30)
    assert final.state is JobState.CANCELLED
    assert ("roll back: unload ollama", "done") in outline(final.steps)
    assert r.ollama.status().state is BackendState.UNLOADED
    assert r.engine.status().active == "native"


def test_a_full_disk_does_not_keep_anyone_from_switching(r: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StoreFullError("The disk is full")

    monkeypatch.setattr(r.engine._parts.store, "set_state", full)
    assert r.engine.switch("ollama").wait(30).state is JobState.DONE
    assert r.engine.status().active == "ollama"
    assert r.engine.events(kinds=["error"])[0].title == "the choice will not outlive this process"


def test_cancel_before_the_flip_rolls_back(r: Rig) -> None:
    def cancel_while_loading(cancel: CancelToken) -> None:
        cancel.cancel()

    r.ollama.on_load = cancel_while_loading
    final = r.engine.switch("ollama").wait(30)
    assert final.state is JobState.CANCELLED
    assert r.engine.status().active == "native"
    assert r.ollama.status().state is BackendState.UNLOADED


def test_cancel_after_the_flip_leaves_the_switch_standing_and_the_old_backend_loaded(r: Rig) -> None:
    with r.engine._traffic.request("native", 1, Deadline(None)):  # keeps the drain waiting
        job = r.engine.switch("ollama")
        wait_until(lambda: any(step.name == "drain" for step in job.update.steps))
        job.cancel()
    final = job.wait(30)
    assert final.state is JobState.DONE
    assert isinstance(final.result, SwitchReport) and not final.result.unloaded_source
    assert "stays loaded" in final.result.warnings[0]
    assert r.engine.status().active == "ollama"
    assert r.native.status().state is BackendState.READY
    assert [event.kind for event in r.engine.events(kinds=["switch"])] == ["switch"]


def test_a_fault_that_nobody_foresaw_rolls_back_too(r: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> float:
        raise ZeroDivisionError

    monkeypatch.setattr(switching, "least_cosine", broken)
    final = r.engine.switch("ollama").wait(30)
    assert final.state is JobState.FAILED
    assert r.engine.status().active == "native"
    assert r.ollama.status().state is BackendState.UNLOADED


def test_memory_that_does_not_come_back_is_told_and_the_switch_stands(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {"telemetry": {"screen_hz": 20, "store_hz": 10}, "engine": {"settle_timeout_s": 0.3}}
    )
    with rig(tmp_path, settings) as r:
        r.engine.load("native").wait(30)
        r.probe.lingering["native"] = 1.5 * GIB
        final = r.engine.switch("ollama").wait(30)
        assert isinstance(final.result, SwitchReport)
        settle = final.result.steps[-1]
        assert (settle.name, settle.state) == ("settle", "warning")
        assert "1.5 GiB left" in settle.detail
        assert r.engine.status().active == "ollama"


def test_what_does_not_fit_beside_is_loaded_after_the_old_one_made_room(r: Rig) -> None:
    r.probe.others = r.probe.total - 2 * GIB - 9 * GIB  # 9 GiB available beside native's 2, floor 8
    wait_for_sample(r)
    plan = r.engine.plan_switch("ollama")
    assert plan.fits_beside is False and plan.obstacle is None
    final = r.engine.switch("ollama").wait(30)
    assert final.state is JobState.DONE, final.failure
    names = [step.name for step in final.steps]
    assert names.index("unload native") < names.index("load ollama") < names.index("flip")


def test_a_held_switch_that_fails_brings_the_old_backend_back(r: Rig) -> None:
    r.probe.others = r.probe.total - 2 * GIB - 9 * GIB
    wait_for_sample(r)
    r.ollama.load_error = BackendError("No kernel runs here")
    final = r.engine.switch("ollama").wait(30)
    assert final.state is JobState.FAILED
    assert ("roll back: load native", "done") in outline(final.steps)
    assert r.native.status().state is BackendState.READY
    assert np.allclose(r.engine.embed(["after"]).vectors[0], vector_of("after"))


def test_requests_held_by_a_switch_that_fails_wait_until_the_old_backend_is_back(
    r: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let go earlier they would ask for the old backend while the new one still fills the memory."""
    r.probe.others = r.probe.total - 2 * GIB - 9 * GIB
    wait_for_sample(r)
    answers: list[object] = []

    def ask() -> None:
        try:
            answers.append(r.engine.embed(["held"]).backend)
        except BackendError as error:
            answers.append(error)

    asker = threading.Thread(target=ask)

    def broken_flip(_: str) -> None:
        asker.start()
        raise BackendError("The flip failed")

    monkeypatch.setattr(r.engine._switcher, "_activate", broken_flip)
    unload = r.ollama.unload

    def slow_unload() -> None:
        asker.join(0.1)  # a request that is not held would be answered, or refused, by now
        assert answers == []
        unload()

    monkeypatch.setattr(r.ollama, "unload", slow_unload)
    final = r.engine.switch("ollama").wait(30)
    assert outline(final.steps)[-2:] == [
        ("roll back: unload ollama", "done"),
        ("roll back: load native", "done"),
    ]
    asker.join(30)
    assert answers == ["native"]


def test_what_cannot_be_kept_beside_is_said_before_it_goes(r: Rig) -> None:
    r.probe.others = r.probe.total - 2 * GIB - 9 * GIB
    wait_for_sample(r)
    plan = r.engine.plan_switch("ollama", keep_both=True)
    assert plan.unloads_source
    assert "native is unloaded first" in plan.warnings[0]


def test_a_backend_that_cannot_fit_at_all_is_an_obstacle(r: Rig) -> None:
    r.ollama.expected_bytes = 60 * GIB
    plan = r.engine.plan_switch("ollama")
    assert plan.obstacle is not None
    assert "not enough memory" in plan.obstacle.what
    assert r.engine.switch("ollama").wait(30).state is JobState.FAILED
    assert "load" not in r.ollama.calls


def test_requests_during_a_switch_are_all_answered_and_none_is_lost(r: Rig) -> None:
    """Eight clients embed without a pause while the engine switches back and forth."""
    stop = threading.Event()
    wrong: list[str] = []
    answered = [0] * 8

    def client(number: int) -> None:
        while not stop.is_set():
            text = f"client {number} text {answered[number]}"
            try:
                result = r.engine.embed([text])
            except Exception as error:
                wrong.append(repr(error))
                return
            if not np.allclose(result.vectors[0], vector_of(text)):
                wrong.append(text)
            answered[number] += 1

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in clients:
        thread.start()
    for target in ("ollama", "native", "ollama", "native"):
        assert r.engine.switch(target).wait(30).state is JobState.DONE
    stop.set()
    for thread in clients:
        thread.join(30)
    assert wrong == []
    assert min(answered) > 0
    assert r.native.embedded > 0 and r.ollama.embedded > 0


def test_a_request_in_flight_to_the_old_backend_is_waited_for(r: Rig) -> None:
    r.native.gate = threading.Event()
    answers: list[str] = []
    asker = threading.Thread(target=lambda: answers.append(r.engine.embed(["slow"]).backend))
    asker.start()
    wait_until(lambda: r.engine._traffic.in_flight("native") == 1)
    # The agreement step would wait at the gate too, so the gate opens once the flip has happened.
    gate, r.native.gate = r.native.gate, None
    job = r.engine.switch("ollama")
    wait_until(lambda: any(step.name == "drain" for step in job.update.steps))
    assert "unload native" not in [step.name for step in job.update.steps]
    gate.set()
    asker.join(30)
    assert answers == ["native"]
    assert job.wait(30).state is JobState.DONE


def test_only_one_job_works_on_the_backends_at_a_time(r: Rig) -> None:
    entered, release = threading.Event(), threading.Event()

    def wait_there(_: CancelToken) -> None:
        entered.set()
        assert release.wait(30)

    r.ollama.on_load = wait_there
    job: Job = r.engine.switch("ollama")
    assert entered.wait(30)
    with pytest.raises(UsageError, match="still running"):
        r.engine.load("native")
    release.set()
    assert job.wait(30).state is JobState.DONE


def wait_for_sample(r: Rig) -> None:
    assert r.engine._latest.wait_until(lambda _: True, 10)


def wait_until(condition: object) -> None:
    """Poll a condition of another thread; the deadline only ends a test that has failed."""
    assert callable(condition)
    for _ in range(20_000):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it never came true")
