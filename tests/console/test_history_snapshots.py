"""Pictures of the History screen; looked at by a person before they are accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from embedctl.errors import StoreCorruptError
from embedctl.records import Event
from embedctl.series import History, Series
from embedctl.settings import ConsoleSettings, Settings
from embedctl_console.screens.history import HistoryScreen
from tests.support.canned import NOW
from tests.support.console import console, settle
from tests.support.fake_engine import FakeEngine

SIZES = [(80, 24), (120, 40), (200, 50)]


class EmptyEngine(FakeEngine):
    """Nothing was ever recorded."""

    def history(self, since: float, until: float, **options: Any) -> History:
        keys = options.get("metrics") or ()
        return History(since, until, 1.0, {key: Series.empty(key) for key in keys}, ())

    def events(self, *_: Any, **__: Any) -> tuple[Event, ...]:
        return ()


def after(*keys: str) -> Callable[[Pilot[None]], Any]:
    """Open History, press keys and let every reading arrive."""

    async def run(pilot: Pilot[None]) -> None:
        await settle(pilot)
        for key in ("4", *keys):
            await pilot.press(key)
            await pilot.pause()
            screen = pilot.app.screen
            if isinstance(screen, HistoryScreen) and screen._settling is not None:
                screen._settling.stop()
                screen._read()
            await settle(pilot)

    return run


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_last_hour(snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    assert snap_compare(console(FakeEngine()), terminal_size=size, run_before=after("full_stop"))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_nothing_recorded(snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    assert snap_compare(console(EmptyEngine()), terminal_size=size, run_before=after())


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_cursor_on_a_switch(snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    keys = ("full_stop", "p", "p", "p")
    assert snap_compare(console(FakeEngine()), terminal_size=size, run_before=after(*keys))


@pytest.mark.parametrize("theme", ["embedctl-light", "embedctl-contrast"])
def test_other_themes(snap_compare: Callable[..., bool], theme: str) -> None:
    app = console(FakeEngine(settings=Settings(console=ConsoleSettings(theme=theme))))
    assert snap_compare(app, terminal_size=(120, 40), run_before=after("full_stop", "p"))


def test_paused_and_zoomed_to_the_gap(snap_compare: Callable[..., bool]) -> None:
    def history(since: float, until: float, **options: Any) -> History:
        found = FakeEngine.history(engine, since, until, **options)
        lost = Event(NOW - 2_580, "stop", "embedctl 0.1.0", id=7)
        return History(found.since, found.until, found.resolution, found.series, (lost, *found.events))

    engine = FakeEngine()
    engine.history = history  # type: ignore[method-assign]
    keys = ("full_stop", "p", "p", "p", "p", "p", "p", "plus", "plus")
    assert snap_compare(console(engine), terminal_size=(120, 40), run_before=after(*keys))


def stopped_machine() -> FakeEngine:
    engine = FakeEngine()
    starts = [(NOW - 2_399, 9, "b"), (NOW - 9_000, 8, "a")]
    engine.stored_events = [
        *(event for event in engine.stored_events if event.kind != "start"),
        *(Event(at, "start", "embedctl", detail={"pid": pid, "boot": boot}) for at, pid, boot in starts),
    ]
    return engine


@pytest.mark.parametrize("keys", [("z",), ("r", "plus", "end")], ids=["still", "played"])
def test_the_last_minute_before_the_machine_stopped(
    snap_compare: Callable[..., bool], keys: tuple[str, ...]
) -> None:
    assert snap_compare(console(stopped_machine()), terminal_size=(120, 40), run_before=after(*keys))


@pytest.mark.parametrize("keys", [("r", "space"), ("r", "end")], ids=["paused", "ended"])
def test_the_replay_in_a_small_terminal(snap_compare: Callable[..., bool], keys: tuple[str, ...]) -> None:
    assert snap_compare(console(stopped_machine()), terminal_size=(80, 24), run_before=after(*keys))


@pytest.mark.parametrize("size", SIZES[:2], ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_history_that_cannot_be_read(snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    engine = FakeEngine()
    engine.errors["history"] = StoreCorruptError(
        "/home/ada/.local/share/embedctl/history.db is damaged",
        why="database disk image is malformed",
        remedy="move it away; a new one is made",
    )
    assert snap_compare(console(engine), terminal_size=size, run_before=after())


@pytest.mark.parametrize("size", SIZES[:2], ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_note_is_asked_for(snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    keys = ("full_stop", "p", "a", *"new fan")
    assert snap_compare(console(FakeEngine()), terminal_size=size, run_before=after(*keys))


@pytest.mark.parametrize("size", SIZES[:2], ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_format_of_an_export_is_asked_for(
    snap_compare: Callable[..., bool], size: tuple[int, int]
) -> None:
    assert snap_compare(console(FakeEngine()), terminal_size=size, run_before=after("full_stop", "e"))


def test_two_spans_side_by_side(snap_compare: Callable[..., bool]) -> None:
    keys = ("full_stop", "p", "p", "m", *["ctrl+left", "m"] * 3, "i")
    assert snap_compare(console(FakeEngine()), terminal_size=(100, 30), run_before=after(*keys))


def test_the_pool_alone_with_a_series_hidden(snap_compare: Callable[..., bool]) -> None:
    keys = ("full_stop", "w", "w", "down", "space", "p", "p", "p")
    assert snap_compare(console(FakeEngine()), terminal_size=(80, 24), run_before=after(*keys))
