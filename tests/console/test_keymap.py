"""The user's own keys: what is taken, what is refused and why; all places that name keys agree."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from embedctl.paths import Paths
from embedctl.records import BackendState
from embedctl.settings import ConsoleSettings, Settings
from embedctl_console.actions import ACTIONS, CHART, EVERYWHERE, bindings_of, key_of
from embedctl_console.app import ConsoleApp
from embedctl_console.keymap import FIXED_KEYS, checked, is_key
from embedctl_console.modes import screen_maker
from embedctl_console.palette import ActionsProvider
from embedctl_console.screens.help import help_text
from embedctl_console.screens.replay import ReplayScreen
from embedctl_console.widgets.chart import TimeSeriesChart
from embedctl_console.widgets.text import Text
from tests.support import canned
from tests.support.console import press, running, screen_text, settle
from tests.support.fake_engine import FakeEngine


def with_keys(**sections: dict[str, str]) -> Settings:
    return Settings(console=ConsoleSettings.model_validate({"keys": sections}))


@pytest.mark.parametrize("key", ["w", "W", "?", "f5", "ctrl+b", "question_mark", "shift+left", "+", "plus"])
def test_what_is_a_key(key: str) -> None:
    assert is_key(key)


@pytest.mark.parametrize("key", ["", "ww", "ctrl+", "hyper+x", "crtl+b", " "])
def test_what_is_none(key: str) -> None:
    assert not is_key(key)


def test_toml_tables_and_dotted_names_are_the_same() -> None:
    nested = ConsoleSettings.model_validate({"keys": {"models": {"verify": "w"}, "everywhere.load": "o"}})
    assert nested.keys == {"models.verify": "w", "everywhere.load": "o"}


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("models.verfy", "w", "there is no action 'models.verfy'; 'models.verify' is meant?"),
        ("models.verify", "crtl+w", "models.verify: 'crtl+w' is no key"),
        ("models.verify", "s", "models.verify: s is the key of everywhere.switch"),
        ("everywhere.load", "v", "everywhere.load: v is the key of models.verify"),
        ("chart.freeze", "e", "chart.freeze: e is the key of history.export"),
    ],
)
def test_what_cannot_be_used_is_named_and_left_out(name: str, key: str, said: str) -> None:
    used, problems = checked({name: key, "doctor.again": "w"}, ACTIONS)
    assert used == {"doctor.again": "w"}
    assert problems[0].startswith(said)


def test_two_actions_may_change_places() -> None:
    swap = {"everywhere.switch": "k", "everywhere.check": "s"}
    assert checked(swap, ACTIONS) == (swap, ())


def test_the_same_key_on_two_screens_is_no_conflict() -> None:
    wanted = {"models.verify": "w", "doctor.again": "w,f5"}
    assert checked(wanted, ACTIONS) == (wanted, ())


def test_every_action_has_a_key_that_is_one() -> None:
    assert all(is_key(key) for action in ACTIONS for key in action.key.split(","))
    assert key_of("everywhere.help") == "?"


def test_bindings_and_help_come_from_the_one_list() -> None:
    places = {action.where for action in ACTIONS}
    for name in ("dashboard", "models", "benchmarks", "history", "check", "quality", "doctor", "settings"):
        screen = screen_maker(name, time.time)()
        assert bindings_of(name) == screen.BINDINGS
        places.discard(name)
    for holder, where in ((TimeSeriesChart, CHART), (ReplayScreen, "replay"), (ConsoleApp, EVERYWHERE)):
        assert bindings_of(where) == holder.BINDINGS
        places.discard(where)
    assert places <= {"reading", "distribution", "playground", "help"}
    page = help_text(Paths.in_folder(Path("home"))).plain
    for action in ACTIONS:
        assert f"{action.keys_shown:<12}{action.help}" in page, action.id
    assert FIXED_KEYS in page
    assert len({action.id for action in ACTIONS}) == len(ACTIONS)


@pytest.mark.parametrize("screen", ["history", "dashboard"])
async def test_the_palette_has_what_the_screen_and_its_charts_can_do(screen: str) -> None:
    async with running(FakeEngine()) as pilot:
        await pilot.app.run_action(f"show('{screen}')")
        await settle(pilot)
        below = pilot.app.screen
        provider = ActionsProvider(below)
        offered = [action.id for action in provider._usable()]
        shown = {active.binding.id for active in below.active_bindings.values() if active.enabled}
        assert shown <= {*offered, "everywhere.palette", None}
        assert {action.id for action in ACTIONS if action.where == CHART} <= {*offered}
        chart = below.query(TimeSeriesChart).first()
        before = chart.window
        await press(pilot, "ctrl+p", *"zoom in", "enter")
        assert pilot.app.screen is below
        assert chart.window[1] - chart.window[0] < before[1] - before[0]


async def test_footer_help_palette_and_sentences_name_the_new_key() -> None:
    settings = with_keys(everywhere={"benchmark": "ctrl+b", "check": "S"}, models={"verify": "w"})
    engine = FakeEngine(settings=settings)
    async with running(engine) as pilot:
        text = screen_text(pilot)
        assert "ctrl+b Benchmark" in text
        assert "ctrl+b compares native and ollama" in text
        await press(pilot, "b")
        assert [call for call in engine.calls if call[0] == "benchmark"] == []
        await press(pilot, "2", "w")
        assert ("verify",) in engine.calls
        await press(pilot, "ctrl+p", *"benchmark")
        assert "Benchmark (ctrl+b)" in screen_text(pilot)
        await press(pilot, "escape", "question_mark")
        shown: Any = pilot.app.screen.query_one("#help", Text)._shown
        assert "ctrl+b      measure both backends" in shown.plain
        await press(pilot, "ctrl+b")
        assert [call for call in engine.calls if call[0] == "benchmark"] != []


async def test_a_chart_whose_series_are_hidden_names_the_new_keys() -> None:
    settings = with_keys(chart={"toggle": "v", "series-after": "ctrl+n"})
    async with running(FakeEngine(settings=settings)) as pilot:
        chart = pilot.app.screen.query_one("#latency", TimeSeriesChart)
        chart.focus()
        for _ in chart._series:
            await press(pilot, "ctrl+n", "v")
        told = "Every series is hidden. ↑ and ctrl+n choose one in the legend, v shows it."
        assert chart._scene().empty == told
        assert "Every series is hidden." in screen_text(pilot)


async def test_notices_name_the_new_key(tmp_path: Path) -> None:
    settings = with_keys(everywhere={"palette": "f9"}, history={"copy-path": "g"})
    async with running(FakeEngine(settings=settings, home=tmp_path)) as pilot:
        pilot.app.pace._line.asked(0.0)
        pilot.app.pace.answered(9.0)
        await press(pilot, "4", "e", "j")
        told = [notice.message for notice in pilot.app._notifications]
        assert "`Slow line` in the palette (f9) goes back" in told[0]
        assert told[1].endswith("\ng copies the path")


async def test_a_wrong_entry_is_told_and_the_rest_is_used() -> None:
    settings = with_keys(everywhere={"load": "s"}, doctor={"again": "w"})
    engine = FakeEngine(settings=settings, native=canned.native(BackendState.UNLOADED))
    async with running(engine) as pilot:
        (notice,) = pilot.app._notifications
        assert "everywhere.load: s is the key of everywhere.switch" in notice.message
        await press(pilot, "7", "w")
        assert engine.calls.count(("doctor",)) == 2
        await press(pilot, "l")
        assert ("load", "native") in engine.calls
