"""The user's own keys: what is taken, what is refused and why; all places that name keys agree."""

from __future__ import annotations

from typing import Any

import pytest

from embedctl.records import BackendState
from embedctl.settings import ConsoleSettings, Settings
from embedctl_console.actions import ACTIONS, key_of
from embedctl_console.keymap import checked, is_key
from embedctl_console.mappable import mappable_actions
from embedctl_console.widgets.text import Text
from tests.support import canned
from tests.support.console import press, running, screen_text
from tests.support.fake_engine import FakeEngine


def with_keys(**sections: dict[str, str]) -> Settings:
    return Settings(console=ConsoleSettings.model_validate({"keys": sections}))


@pytest.mark.parametrize("key", ["w", "W", "?", "f5", "ctrl+b", "question_mark", "shift+left", "+"])
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
    used, problems = checked({name: key, "doctor.again": "w"}, mappable_actions())
    assert used == {"doctor.again": "w"}
    assert problems[0].startswith(said)


def test_two_actions_may_change_places() -> None:
    swap = {"everywhere.load": "u", "everywhere.unload": "l"}
    assert checked(swap, mappable_actions()) == (swap, ())


def test_the_same_key_on_two_screens_is_no_conflict() -> None:
    wanted = {"models.verify": "w", "doctor.again": "w,f5"}
    assert checked(wanted, mappable_actions()) == (wanted, ())


def test_every_action_has_a_key_that_is_one() -> None:
    assert all(is_key(key) for action in ACTIONS for key in action.key.split(","))
    assert key_of("everywhere.help") == "?"


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
