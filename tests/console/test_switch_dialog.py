"""The switch dialog: plan, steps, result, the way back."""

from __future__ import annotations

import threading

import pytest

from embedctl.errors import BackendUnavailableError, UsageError
from embedctl.records import BackendState, Failure, JobState, StepRecord
from embedctl_console.screens.switch import SwitchDialog, switch_target
from embedctl_console.state import ConsoleState
from embedctl_console.tasks import run_in_thread
from tests.support import canned
from tests.support.console import press, running, screen_text, settle
from tests.support.fake_engine import FakeEngine
from tests.support.fake_world import FakeJob


def engine_with_ollama_unloaded() -> FakeEngine:
    return FakeEngine(ollama=canned.ollama(BackendState.UNLOADED))


def test_the_focused_backend_is_the_target_unless_it_is_active() -> None:
    state = ConsoleState(FakeEngine().status())
    assert switch_target(state, None) == "ollama"
    assert switch_target(state, "ollama") == "ollama"
    assert switch_target(state, "native") == "ollama"


async def test_the_plan_is_shown_before_anything_happens() -> None:
    engine = engine_with_ollama_unloaded()
    async with running(engine) as pilot:
        await press(pilot, "s")
        text = screen_text(pilot)
        for words in (
            "Switch from native to ollama",
            "1.30 GiB expected",
            "2.13 GiB now; is unloaded, they come back",
            "fit beside each other",
            "preflight → load ollama",
        ):
            assert words in text
        await press(pilot, "escape")
        assert not isinstance(pilot.app.screen, SwitchDialog)
        assert [call for call in engine.calls if call[0] == "switch"] == []


async def test_k_keeps_both_and_the_plan_follows() -> None:
    engine = engine_with_ollama_unloaded()
    async with running(engine) as pilot:
        await press(pilot, "s", "k")
        assert "stays loaded" in screen_text(pilot)
        assert "unload native" not in screen_text(pilot)
        await press(pilot, "enter")
        assert ("switch", "ollama", True) in engine.calls


async def test_each_step_is_shown_as_it_runs_and_then_the_result() -> None:
    engine = engine_with_ollama_unloaded()
    async with running(engine) as pilot:
        await press(pilot, "s", "enter")
        assert ("switch", "ollama", False) in engine.calls
        job = engine.job("switch")
        job.steps(canned.switch_steps(3))
        await settle(pilot)
        text = screen_text(pilot)
        assert "✓ canary" in text
        assert "▸ agreement" in text
        assert "· settle" in text
        job.steps(canned.switch_steps(8))
        job.finish()
        await settle(pilot)
        text = screen_text(pilot)
        assert "✓ ollama is active after 7.5 s · least cosine between the two 0.9991" in text
        assert len(pilot.app._notifications) == 0
        await press(pilot, "enter")
        assert not isinstance(pilot.app.screen, SwitchDialog)
        assert "active ollama" in screen_text(pilot)


async def test_a_failure_says_why_and_that_it_was_rolled_back() -> None:
    engine = engine_with_ollama_unloaded()
    async with running(engine) as pilot:
        await press(pilot, "s", "enter")
        job = engine.job("switch")
        failed = StepRecord("canary", "failed", 0.6, "3 of 12 vectors are not finite")
        job.steps((*canned.switch_steps(2, running=False), failed))
        job.fail("ollama failed its canary; native is still active", remedy="update Ollama")
        await settle(pilot)
        text = screen_text(pilot)
        assert "✗ canary" in text
        assert "native is still active" in text
        assert "→ update Ollama" in text


async def test_x_cancels_and_escape_lets_it_go_on() -> None:
    engine = engine_with_ollama_unloaded()
    async with running(engine) as pilot:
        await press(pilot, "s", "enter", "escape")
        job = engine.job("switch")
        assert not job.cancel_asked
        job.steps(canned.switch_steps(2))
        await settle(pilot)
        await press(pilot, "s")
        assert "▸ canary" in screen_text(pilot)
        await press(pilot, "x")
        assert job.cancel_asked
        assert "Cancelled. The old backend is still active." in screen_text(pilot)


async def test_a_switch_that_ends_behind_a_closed_dialog_is_told() -> None:
    engine = engine_with_ollama_unloaded()
    async with running(engine) as pilot:
        await press(pilot, "s", "enter", "escape")
        engine.job("switch").finish()
        await settle(pilot)
        assert [notice.title for notice in pilot.app._notifications] == ["Switch to ollama"]


async def test_an_obstacle_leaves_nothing_to_start() -> None:
    engine = engine_with_ollama_unloaded()
    engine.plan = canned.switch_plan(obstacle=Failure("Ollama does not answer", remedy="ollama serve"))
    async with running(engine) as pilot:
        await press(pilot, "s", "enter")
        assert "→ ollama serve" in screen_text(pilot)
        assert [call for call in engine.calls if call[0] == "switch"] == []


async def test_a_plan_that_cannot_be_made_is_told_in_the_dialog() -> None:
    engine = engine_with_ollama_unloaded()
    engine.errors["plan_switch"] = BackendUnavailableError("Nothing is there", remedy="look for it")
    async with running(engine) as pilot:
        await press(pilot, "s")
        for words in ("✗ Nothing is there", "→ look for it", "esc Close"):
            assert words in screen_text(pilot)
        await press(pilot, "k", "enter")
        assert [call for call in engine.calls if call[0] == "switch"] == []
        await press(pilot, "escape")
        assert not isinstance(pilot.app.screen, SwitchDialog)


async def test_a_plan_that_fails_late_leaves_the_question_above_it_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, may_answer = engine_with_ollama_unloaded(), threading.Event()

    def slowly(target: str, *, keep_both: bool | None = None) -> None:
        may_answer.wait(30)
        raise BackendUnavailableError("Nothing is there")

    monkeypatch.setattr(engine, "plan_switch", slowly)
    async with running(engine) as pilot:
        await press(pilot, "b")
        await pilot.press("s")
        await pilot.press("q")
        await pilot.pause()
        assert "Cancel and quit?" in screen_text(pilot)
        may_answer.set()
        await settle(pilot)
        assert "Cancel and quit?" in screen_text(pilot)
        await press(pilot, "n")
        assert "✗ Nothing is there" in screen_text(pilot)


async def test_a_service_that_is_slow_to_answer_keeps_no_key_waiting_and_starts_one_switch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = engine_with_ollama_unloaded()
    asked, answer, switch = threading.Event(), threading.Event(), engine.switch

    def slowly(target: str, *, keep_both: bool | None = None) -> FakeJob:
        asked.set()
        assert answer.wait(30)
        return switch(target, keep_both=keep_both)

    monkeypatch.setattr(engine, "switch", slowly)
    async with running(engine) as pilot:
        await press(pilot, "s")
        await pilot.press("enter")
        assert await run_in_thread(asked.wait, 30)
        await pilot.press("enter", "k", "question_mark")
        assert isinstance(pilot.app.screen, SwitchDialog)
        answer.set()
        await settle(pilot)
        assert [call for call in engine.calls if call[0] == "switch"] == [("switch", "ollama", False)]
        assert "x Cancel the switch" in screen_text(pilot)


async def test_a_switch_that_is_refused_can_be_started_again() -> None:
    engine = engine_with_ollama_unloaded()
    engine.errors["switch"] = UsageError("Switch to ollama: not started")
    async with running(engine) as pilot:
        await press(pilot, "s", "enter")
        assert next(iter(pilot.app._notifications)).title == "Switch to ollama: not started"
        del engine.errors["switch"]
        await press(pilot, "enter")
        assert engine.job("switch").update.state is JobState.RUNNING
