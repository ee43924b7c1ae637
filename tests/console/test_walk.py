"""Every key on every screen: none may end in an exception that nobody handles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import TextArea

from embedctl.errors import EmbedctlError
from embedctl_console.actions import ACTIONS, EVERYWHERE, SCREENS
from tests.support import canned
from tests.support.canned import quality_study
from tests.support.console import console, settle
from tests.support.fake_engine import FakeEngine, fresh_engine

_LEAVE = {"everywhere.quit", "everywhere.quit-now"}
_CALLS = (
    *("refresh", "load", "unload", "plan_switch", "switch", "benchmark", "check", "check_changes", "doctor"),
    *(
        "model",
        "download",
        "pull",
        "verify",
        "remove_model",
        "runs",
        "run",
        "compare_runs",
        "studies",
        "study",
    ),
    *("quality", "history", "events", "recorded_span", "export_csv", "tokens", "embed", "nearest"),
)
_CHARTED = ("dashboard", "history")


def _normal(home: Path) -> FakeEngine:
    engine = FakeEngine(home=home)
    engine.stored_studies[5] = quality_study(5)
    engine.stored_studies[3] = canned.check_study(3)
    return engine


def _empty(home: Path) -> FakeEngine:
    return fresh_engine(home=home)


def _broken(home: Path) -> FakeEngine:
    engine = _normal(home)
    engine.errors = {
        name: EmbedctlError("It cannot be done", why="a reason", remedy="this") for name in _CALLS
    }
    return engine


def _keys(screen: str, *, all_of_them: bool) -> list[str]:
    """Those of the screen and its charts; also what works everywhere, the screens' own keys on the first."""
    places = [screen, *(["chart"] if screen in _CHARTED else [])]
    actions = [action for action in ACTIONS if action.where in places]
    if all_of_them:
        actions += [
            action
            for action in ACTIONS
            if action.where == EVERYWHERE
            and action.id not in _LEAVE
            and (screen == "dashboard" or not action.name.startswith("show-"))
        ]
    return list(dict.fromkeys(key for action in actions for key in action.key.split(",")))


async def _at(pilot: Pilot[None], screen: str) -> None:
    while len(pilot.app.screen_stack) > 1:
        await pilot.app.pop_screen()
    if pilot.app.current_mode != screen:
        await pilot.app.run_action(f"show('{screen}')")


@pytest.mark.parametrize("make", [_normal, _empty, _broken])
async def test_every_key_on_every_screen(make: Callable[[Path], FakeEngine], tmp_path: Path) -> None:
    engine = make(tmp_path)
    app = console(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        for screen, _ in SCREENS:
            await _at(pilot, screen)
            await settle(pilot)
            for key in _keys(screen, all_of_them=make is _normal):
                if isinstance(app.focused, TextArea):  # it would take the letters
                    await pilot.press("escape")
                await pilot.press(key)
                if key == "ctrl+r":  # what follows is about what it brings
                    await settle(pilot)
                if app.current_mode != screen or len(app.screen_stack) > 1:
                    await _at(pilot, screen)
            await settle(pilot)
            assert app.current_mode == screen
        await _at(pilot, "dashboard")  # where no text field takes the letters
        await pilot.press("q", "y")
    assert engine.closed


async def test_keys_of_what_a_screen_opens(tmp_path: Path) -> None:
    async with console(_normal(tmp_path)).run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        for screen, way in (("benchmarks", "d"), ("check", "enter"), ("quality", "w")):
            await _at(pilot, screen)
            await settle(pilot)
            await pilot.press(way)
            await settle(pilot)
            assert len(pilot.app.screen_stack) == 2
            await pilot.press("g", "down", "pagedown", "left", "escape")
            await settle(pilot)
            assert len(pilot.app.screen_stack) == 1
