"""Every key on every screen and in every dialog: none may end in an exception that nobody handles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from textual.binding import Binding
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import TextArea

from embedctl.errors import EmbedctlError
from embedctl.records import BackendState, Event
from embedctl_console.actions import ACTIONS, EVERYWHERE, SCREENS
from embedctl_console.screens.replay import ReplayScreen
from tests.support import canned
from tests.support.canned import NOW, quality_study
from tests.support.console import console, settle
from tests.support.fake_engine import FakeEngine, fresh_engine

_LEAVE = {"everywhere.quit", "everywhere.quit-now"}
_CALLS = (
    *("refresh", "load", "unload", "plan_switch", "switch", "benchmark", "check", "check_changes", "doctor"),
    *("model", "download", "pull", "verify", "remove_model", "cancel_job", "annotate", "tokens", "embed"),
    *("runs", "run", "compare_runs", "resume_benchmark", "studies", "study", "quality", "nearest"),
    *("history", "events", "recorded_span", "export_csv"),
)
_CHARTED = ("dashboard", "history")
_DIALOGS = (
    *(("dashboard", "s"), ("models", "r"), ("history", "a"), ("history", "e"), ("settings", "enter")),
    *(("playground", "ctrl+o"), ("benchmarks", "p")),
)
"""Screens with the keys that open a dialog there."""


def _normal(home: Path) -> FakeEngine:
    """Everything is there, and the machine stopped once."""
    engine = FakeEngine(home=home)
    engine.stored_studies[5] = quality_study(5)
    engine.stored_studies[3] = canned.check_study(3)
    boots = [(NOW - 2_399, 9, "b"), (NOW - 9_000, 8, "a")]
    engine.stored_events = [
        *(Event(at, "start", "embedctl", detail={"pid": pid, "boot": boot}) for at, pid, boot in boots),
        *(event for event in engine.stored_events if event.kind != "start"),
    ]
    return engine


def _empty(home: Path) -> FakeEngine:
    return fresh_engine(home=home)


def _broken(home: Path) -> FakeEngine:
    engine = _normal(home)
    engine.errors = {
        name: EmbedctlError("It cannot be done", why="a reason", remedy="this") for name in _CALLS
    }
    return engine


def _keys(screen: str, turn: int) -> list[str]:
    """Those of the screen and its charts, and a third of what works everywhere: another one at each turn.

    At the first of three turns the first screen has all of that, with the keys of the other screens.
    """
    places = [screen, *(["chart"] if screen in _CHARTED else [])]
    actions = [action for action in ACTIONS if action.where in places]
    everywhere = [action for action in ACTIONS if action.where == EVERYWHERE and action.id not in _LEAVE]
    if screen == "dashboard" and turn == 0:
        actions += everywhere
    else:
        at = [name for name, _ in SCREENS].index(screen) + turn
        actions += [action for action in everywhere if not action.name.startswith("show-")][at % 3 :: 3]
    return list(dict.fromkeys(key for action in actions for key in action.key.split(",")))


def _keys_of(dialog: Screen[object]) -> list[str]:
    """A letter where a text is asked for, what takes that, and the dialog's own, last what closes it."""
    own = [key for one in dialog.BINDINGS if isinstance(one, Binding) for key in one.key.split(",")]
    return sorted({"a", "enter", *own} - {"q"}, key=lambda key: (key == "escape", key))


async def _at(pilot: Pilot[None], screen: str) -> None:
    while len(pilot.app.screen_stack) > 1:
        await pilot.app.pop_screen()
    if pilot.app.current_mode != screen:
        await pilot.app.run_action(f"show('{screen}')")


@pytest.mark.parametrize(
    ("turn", "make", "size"), [(0, _normal, (80, 24)), (1, _empty, (160, 50)), (2, _broken, (80, 24))],
    ids=["normal", "empty", "broken"],
)  # fmt: skip
async def test_every_key_on_every_screen(
    turn: int, make: Callable[[Path], FakeEngine], size: tuple[int, int], tmp_path: Path
) -> None:
    engine = make(tmp_path)
    app = console(engine)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        for screen, _ in SCREENS:
            await _at(pilot, screen)
            await settle(pilot)
            for key in _keys(screen, turn):
                if isinstance(app.focused, TextArea) and len(key) == 1:  # it would take the letter
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
    opened = (
        ("benchmarks", "d", "distribution"),
        ("check", "enter", "reading"),
        ("quality", "w", "reading"),
        ("history", "r", "replay"),
    )
    async with console(_normal(tmp_path)).run_test(size=(160, 50)) as pilot:
        await settle(pilot)
        for screen, way, where in opened:
            await _at(pilot, screen)
            await settle(pilot)
            await pilot.press(way)
            await settle(pilot)
            assert len(pilot.app.screen_stack) == 2
            assert isinstance(pilot.app.screen, ReplayScreen) is (where == "replay")
            keys = [action.key for action in ACTIONS if action.where == where and "escape" not in action.key]
            await pilot.press(*keys, "down", "pagedown", "left", "escape")
            await settle(pilot)
            assert len(pilot.app.screen_stack) == 1


@pytest.mark.parametrize("make", [_normal, _broken])
async def test_keys_of_every_dialog(make: Callable[[Path], FakeEngine], tmp_path: Path) -> None:
    engine = make(tmp_path)
    engine.backends["ollama"] = canned.ollama(BackendState.UNLOADED)
    app = console(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        for screen, way in _DIALOGS:
            untried: list[str] | None = None
            while untried != []:
                await _at(pilot, screen)
                await settle(pilot)
                await pilot.press(way)
                await settle(pilot)
                if not app.screen.is_modal:  # what the key is for cannot be done any more, or never could
                    break
                untried = _keys_of(app.screen) if untried is None else untried
                while untried and app.screen.is_modal:
                    await pilot.press(untried.pop(0))
            await settle(pilot)
            assert untried is not None or make is _broken, way
