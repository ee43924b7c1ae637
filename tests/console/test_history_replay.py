"""The replay of a last minute: the playhead alone, then the screen on a clock that the test sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from textual.pilot import Pilot

from embedctl.records import Event
from embedctl.series import History, Series
from embedctl_console.screens.history import HistoryScreen
from embedctl_console.screens.history_ends import LostEnd
from embedctl_console.screens.history_replay import Footage, Playhead, readings_text, state_text
from embedctl_console.screens.replay import ReplayScreen, Transport
from embedctl_console.widgets.chart import ChartView
from tests.support.canned import NOW
from tests.support.console import press, running, screen_text, settle
from tests.support.fake_engine import FakeEngine

END = LostEnd(1_000.0, 1_180.0, True)


def footage(step: float = 1.0, end: LostEnd = END) -> Footage:
    """Power that tells its own second, from two minutes before the end on, and a load in the last minute."""
    at = np.arange(end.at - 132, end.at + step / 2, step)
    power = Series("gpu_power", at, at, at, at, 3 * step)
    load = Event(end.at - 30, "load", "native loaded")
    return Footage.of(end, History(at[0], end.at + 6, step, {"gpu_power": power}, (load,)))


def test_it_plays_the_last_minute_and_stops_where_the_recording_did() -> None:
    head = Playhead(footage().moments)
    assert (head.at, head.playing, head.ended, head.share) == (940.0, True, False, 0.0)
    head.advance(2.5)
    assert (head.at, head.shown) == (942.5, 942.0)
    head.change_speed(1)
    head.advance(2.5)
    assert (head.speed, head.at) == (4, 952.5)
    head.change_speed(1)
    head.change_speed(1)
    assert head.speed == 10
    head.advance(60.0)
    assert (head.at, head.shown, head.ended, head.playing) == (1_000.0, 1_000.0, True, False)


def test_it_is_paused_stepped_and_taken_anywhere() -> None:
    head = Playhead(footage().moments)
    head.play_or_pause()
    head.advance(9.0)
    assert (head.at, state_text(head, "braille")) == (940.0, "PAUSED 1×")
    head.step(1)
    head.step(1)
    head.step(-1)
    assert head.shown == 941.0
    head.step(-5)
    assert head.shown == 940.0
    head.jump(0.5)
    assert head.shown == 970.0
    head.jump(1.0)
    assert (head.ended, state_text(head, "ascii")) == (True, "STOPPED")
    head.play_or_pause()
    assert (head.at, head.playing) == (940.0, True), "from the end it begins anew"


def test_nothing_is_told_before_it_was_known() -> None:
    shots = footage()
    before, after = shots.seen_at(969.9), shots.seen_at(970.0)
    assert before.series["gpu_power"].at[-1] == 969.0
    assert (before.events, len(after.events)) == ((), 1)
    assert [mark.kind for mark in shots.marks_at(999.0)] == ["load"]
    assert [mark.label for mark in shots.marks_at(1_000.0)][-1] == "the machine stopped here"


def test_the_read_out_is_exact_and_tells_the_change() -> None:
    text = readings_text(footage().seen_at(980.0), 980.0).plain
    assert [line.split() for line in text.splitlines()] == [
        ["now", "in", "10", "s"],
        ["power", "980", "W", "+1.0", "%"],
    ]


@pytest.mark.parametrize(("step", "plays"), [(1.0, True), (10.0, True), (60.0, True), (600.0, False)])
def test_coarse_entries_play_as_far_as_there_are_two(step: float, plays: bool) -> None:
    at = np.array([END.at - 2 * step, END.at - step, END.at])
    power = Series("gpu_power", at, at, at, at, 3 * step)
    shots = Footage.of(END, History(at[0], END.at, step, {"gpu_power": power}, ()))
    assert shots.plays is plays


def stopped_machine(home: Path) -> FakeEngine:
    engine = FakeEngine(home=home)
    engine.stored_events = [
        Event(NOW - 2_399, "start", "embedctl started", detail={"pid": 9, "boot": "b"}),
        Event(NOW - 9_000, "start", "embedctl started", detail={"pid": 8, "boot": "a"}),
    ]
    return engine


def charts(pilot: Pilot[None]) -> list[ChartView]:
    return [*pilot.app.screen.query(ChartView)]


async def test_a_stopped_machine_is_played_from_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = stopped_machine(tmp_path)
    async with running(engine, (120, 40)) as pilot:
        await press(pilot, "4", "r")
        screen = pilot.app.screen
        assert isinstance(screen, ReplayScreen)
        end = screen._footage.end.at
        begin = charts(pilot)[0].cursor
        assert begin == pytest.approx(end - 60, abs=1)
        assert "▶ REPLAY 1×" in screen_text(pilot)

        engine.now += 0.9  # half a tick of the clock more: the next entry is there
        screen._tick()
        engine.now += 0.9
        screen._tick()
        await pilot.pause()
        moved = charts(pilot)[0].cursor
        assert moved == begin + 1
        assert {chart.cursor for chart in charts(pilot)} == {moved}
        assert {chart.window for chart in charts(pilot)} == {(moved - 60, moved + 6)}, "the charts scroll"

        await press(pilot, "plus", "plus", "space")
        engine.now += 5
        screen._tick()
        assert charts(pilot)[0].cursor == moved, "paused"
        assert "PAUSED 10×" in screen_text(pilot)
        await press(pilot, "right", "right", "left")
        assert charts(pilot)[0].cursor == moved + 1

        await press(pilot, "end")
        text = screen_text(pilot)
        assert charts(pilot)[0].cursor == end
        assert "■ STOPPED" in text and "the machine stopped here" in text and "recorded again" in text
        assert "X the machine stopped here" in text, "the mark stands in the charts too"

        transport = screen.query_one(Transport)
        await pilot.click(Transport, offset=(1 + transport.content_size.width // 2, 1))
        await settle(pilot)
        assert charts(pilot)[0].cursor == pytest.approx(end - 30, abs=1.5)
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, HistoryScreen)

        coarse = replace(footage().history, resolution=600.0)
        monkeypatch.setattr(engine, "history", lambda *_, **__: coarse)
        await press(pilot, "r")
        assert isinstance(pilot.app.screen, HistoryScreen), "too little is left to be played"
        (note,) = pilot.app._notifications
        assert "entries of 10 min" in note.message
