"""Doctor and Help."""

from __future__ import annotations

import threading

import pytest

from embedctl.errors import EmbedctlError
from embedctl.records import Finding, Severity
from embedctl_console.actions import ACTIONS
from embedctl_console.screens.doctor import findings_text, verdict_text
from embedctl_console.widgets.text import Text
from tests.support import canned
from tests.support.console import press, running, screen_text
from tests.support.fake_engine import FakeEngine


def test_the_worst_finding_comes_first_with_its_remedy_and_in_words() -> None:
    lines = findings_text(canned.findings(), 100).plain.splitlines()
    assert lines[0].startswith("✗ ERROR")
    assert lines[2].strip().startswith("→ export TRITON_PTXAS_PATH")
    assert lines[-2].startswith("✓ OK")


def test_long_details_stay_under_their_title() -> None:
    long = Finding("memory", "One pool", Severity.INFO, "word " * 40)
    lines = findings_text([long], 60).plain.splitlines()
    assert len(lines) > 3
    assert all(line.startswith(" " * 10) and len(line) <= 60 for line in lines[1:])


def test_the_verdict_counts_each_severity() -> None:
    assert verdict_text(canned.findings()).plain == "✗ 1 error   ! 1 warning   · 1 info   ✓ 3 ok"
    fine = [Finding("python", "Python", Severity.OK, "")]
    assert verdict_text(fine).plain == "✓ Nothing to worry about in 1 findings"


async def test_the_checks_run_when_shown_and_again_on_request() -> None:
    engine = FakeEngine()
    async with running(engine) as pilot:
        assert ("doctor",) not in engine.calls
        await press(pilot, "7")
        assert "ptxas does not know sm_121a" in screen_text(pilot)
        engine.findings = ()
        await press(pilot, "r")
        assert "ptxas" not in screen_text(pilot)
        assert engine.calls.count(("doctor",)) == 2


async def test_checks_that_fail_altogether_are_told() -> None:
    engine = FakeEngine()
    engine.errors["doctor"] = EmbedctlError("It could not look", why="a reason", remedy="do this")
    async with running(engine) as pilot:
        await press(pilot, "7")
        for words in ("✗ It could not look", "a reason", "→ do this"):
            assert words in screen_text(pilot)


async def test_a_look_that_takes_long_is_told_and_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, may_answer = FakeEngine(), threading.Event()
    async with running(engine) as pilot:
        await press(pilot, "7")
        monkeypatch.setattr(engine, "doctor", lambda: may_answer.wait(30))
        await pilot.press("r")
        await pilot.pause()
        engine.now += 12
        pilot.app.screen._show_verdict()  # type: ignore[attr-defined]
        await pilot.pause()
        assert "▸ looking at this machine · 12 s · esc stops" in screen_text(pilot)
        assert "ptxas does not know sm_121a" in screen_text(pilot), "what was found before stands there"
        assert "esc Stop" in screen_text(pilot)
        await press(pilot, "escape")
        assert "– stopped; r looks again" in screen_text(pilot)
        assert "esc Stop" not in screen_text(pilot)
        may_answer.set()
        monkeypatch.undo()
        await press(pilot, "r")
        assert "✗ 1 error" in screen_text(pilot)


async def test_help_has_every_action_word_and_place() -> None:
    async with running(FakeEngine()) as pilot:
        await press(pilot, "question_mark")
        assert pilot.app.current_mode == "help"
        text = pilot.app.screen.query_one("#help", Text)._shown
        assert text is not None
        for action in ACTIONS:
            assert action.help in text.plain
        for words in (
            "measured",
            "canary",
            "/home/ada/.local/share/embedctl/data/history.db",
            "of the file last exported",
        ):
            assert words in text.plain
