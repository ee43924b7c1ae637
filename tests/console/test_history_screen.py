"""The History screen over a scripted engine."""

from __future__ import annotations

import asyncio
import csv
import re
import struct
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from textual.events import MouseScrollUp
from textual.pilot import Pilot
from textual.widgets import OptionList, Static

from embedctl.errors import StoreCorruptError
from embedctl.events import ConnectionChanged
from embedctl.records import Event
from embedctl.series import History
from embedctl_console.screens.history import HistoryScreen
from embedctl_console.screens.history_series import RANGES
from embedctl_console.widgets.chart import Overview, TimeSeriesChart
from embedctl_console.widgets.chart.scene import GUTTER
from tests.support.canned import NOW
from tests.support.console import running, screen_text
from tests.support.console import settle as console_settle
from tests.support.fake_engine import FakeEngine


async def settle(pilot: Pilot[None]) -> None:
    """Wait until the screen has asked for what it wants, and shown what it got."""
    screen = pilot.app.screen
    await pilot.pause()
    if isinstance(screen, HistoryScreen) and screen._settling is not None:
        screen._settling.stop()
        screen._read()
    await console_settle(pilot)


Opened = Callable[..., AbstractAsyncContextManager[tuple[Pilot[None], FakeEngine, HistoryScreen]]]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Opens the screen in a terminal of some size, over an engine of one's own if need be."""

    @asynccontextmanager
    async def open_(
        size: tuple[int, int] = (120, 40), engine: FakeEngine | None = None
    ) -> AsyncIterator[tuple[Pilot[None], FakeEngine, HistoryScreen]]:
        engine = engine or FakeEngine(home=tmp_path)
        async with running(engine, size) as pilot:
            await pilot.press("4")
            await settle(pilot)
            screen = pilot.app.screen
            assert isinstance(screen, HistoryScreen)
            yield pilot, engine, screen

    return open_


def asked(engine: FakeEngine) -> list[tuple[float, float]]:
    """The windows that were read; the overview of the whole range is none."""
    calls = [(call[1], call[2]) for call in engine.calls if call[0] == "history"]
    return [ends for ends in calls if ends[0] != NOW - 30 * 86_400]  # type: ignore[misc]


def charts(screen: HistoryScreen) -> list[TimeSeriesChart]:
    return [*screen.query(TimeSeriesChart)]


def says(screen: HistoryScreen, name: str) -> str:
    return str(screen.query_one(name, Static).content)


async def test_it_opens_on_the_last_quarter_of_an_hour_live(opened: Opened, tmp_path: Path) -> None:
    engine = FakeEngine(home=tmp_path)
    engine.now += 100  # at no multiple of the range
    async with opened(engine=engine) as (_, _, screen):
        for since, until in asked(engine):
            assert since <= engine.now - 900 and engine.now <= until < engine.now + 50
        for chart in charts(screen):
            assert chart.live
            assert chart.window == pytest.approx((engine.now - 900, engine.now), abs=15)
        assert "Mar 04 11:46 – 12:01" in says(screen, "#window")


async def test_ranges_are_chosen_by_keys_and_by_mouse(opened: Opened) -> None:
    async with opened() as (pilot, engine, screen):
        await pilot.press("full_stop", "greater_than_sign")
        await settle(pilot)
        since, until = asked(engine)[-1]
        assert until - since == pytest.approx(6 * 3600, rel=0.1)
        await pilot.press("comma")
        assert charts(screen)[0].span == 3600
        await pilot.click("#ranges", offset=(len(" 1m  15m  1h  6h  24h  7") - 1, 0))
        await settle(pilot)
        assert charts(screen)[0].span == RANGES[5][1]
        await pilot.press("full_stop", "full_stop", "full_stop")
        assert charts(screen)[0].span == RANGES[-1][1], "longer than the longest is the longest"


async def test_zoom_in_one_chart_moves_all_and_asks_for_finer_data(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedctl_console.screens.history_charts._SETTLE", 60.0)  # however slow the machine
    async with opened() as (pilot, engine, screen):
        before = len(asked(engine))
        await pilot.press("p", "plus", "plus", "plus")
        windows = {chart.window for chart in charts(screen)}
        assert len(windows) == 1
        await settle(pilot)
        assert len(asked(engine)) == before + 1, "three quick steps are one question"
        since, until = asked(engine)[-1]
        assert until - since == pytest.approx(900 / 1.5**3, rel=0.1)
        assert {chart.window for chart in charts(screen)} == windows


async def test_an_answer_that_was_overtaken_is_dropped(opened: Opened, tmp_path: Path) -> None:
    class SlowEngine(FakeEngine):
        """The first reading after `hold` is set waits until it is let go."""

        def __init__(self) -> None:
            super().__init__(home=tmp_path)
            self.hold = False
            self.waiting = threading.Event()
            self.let_go = threading.Event()

        def history(self, since: float, until: float, **options: Any) -> History:
            held, self.hold = self.hold, False
            if held:
                self.waiting.set()
                assert self.let_go.wait(10)
            return super().history(since, until, **options)

    engine = SlowEngine()
    async with opened(engine=engine) as (pilot, _, screen):
        engine.hold = True
        screen.action_choose_range(6)
        screen._settling.stop()
        screen._read()
        assert await asyncio.to_thread(engine.waiting.wait, 10)
        screen.action_choose_range(2)
        screen._settling.stop()
        screen._read()
        engine.let_go.set()
        await settle(pilot)
        assert screen._history is not None
        assert screen._history.until - screen._history.since == pytest.approx(3600, rel=0.1)


async def test_one_cursor_for_all_charts(opened: Opened) -> None:
    async with opened() as (pilot, _, screen):
        await pilot.press("left", "left", "left")
        assert len({chart.cursor for chart in charts(screen)}) == 1
        assert charts(screen)[1].cursor is not None
        await pilot.press("tab", "left")
        assert len({chart.cursor for chart in charts(screen)}) == 1
        await pilot.press("escape")
        assert {chart.cursor for chart in charts(screen)} == {None}


async def test_n_and_p_walk_through_the_events(opened: Opened) -> None:
    async with opened() as (pilot, _, screen):
        await pilot.press("full_stop")
        await settle(pilot)
        seen = []
        for _ in range(4):
            await pilot.press("p")
            seen.append(NOW - charts(screen)[0].cursor)
        assert seen == [340, 900, 1150, 1260]
        await pilot.press("n")
        assert NOW - charts(screen)[0].cursor == 1150
        assert "S 2026-03-04 11:40:50  ollama → native in 9.8 s  (switch · native)" in says(screen, "#detail")


async def test_an_event_beyond_the_window_is_fetched(opened: Opened) -> None:
    async with opened() as (pilot, _, screen):
        for _ in range(3):
            await pilot.press("p")
            await settle(pilot)
        chart = charts(screen)[0]
        assert chart.cursor == NOW - 1150
        assert not chart.live
        assert chart.window[0] < chart.cursor < chart.window[1]
        assert "ollama → native" in says(screen, "#detail")


async def test_the_next_event_is_found_before_however_many_newer_ones(opened: Opened) -> None:
    async with opened() as (pilot, engine, screen):
        long_ago = NOW - 86_400
        engine.stored_events = [
            Event(long_ago + at, "throttling", f"slowed down {at}") for at in range(2_500, 600, -1)
        ]
        screen.move_window(long_ago - 100, long_ago + 100, live=False)
        await settle(pilot)
        await pilot.press("n")
        await settle(pilot)
        assert charts(screen)[0].cursor == long_ago + 601


async def test_events_of_a_window_that_is_not_read_yet_are_not_passed_over(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedctl_console.screens.history_charts._SETTLE", 60.0)  # however slow the machine
    async with opened() as (pilot, _, screen):
        for _ in range(4):
            await pilot.press("p")
            await console_settle(pilot)
        assert NOW - charts(screen)[0].cursor == 1260


async def test_past_the_last_event_it_says_so(opened: Opened) -> None:
    async with opened() as (pilot, _, screen):
        await pilot.press("p", "n")
        await settle(pilot)
        assert charts(screen)[0].cursor == NOW - 340
        assert [note.message for note in pilot.app._notifications] == ["No later event."]


async def test_the_detail_of_an_event_is_shown_in_full(opened: Opened) -> None:
    engine = FakeEngine()
    detail = {"seconds": 9.8123, "agreement": 0.99981, "steps": ["load", "flip"], "left_out": None}
    engine.stored_events = [Event(NOW - 100, "switch", "ollama → native", "native", detail=detail)]

    def history(since: float, until: float, **options: Any) -> History:
        plain = FakeEngine.history(engine, since, until, **options)
        return History(plain.since, plain.until, plain.resolution, plain.series, tuple(engine.stored_events))

    engine.history = history  # type: ignore[method-assign]
    async with opened(engine=engine) as (pilot, _, screen):
        await pilot.press("p")
        assert (
            says(screen, "#detail").splitlines()[1]
            == "seconds: 9.812 · agreement: 0.9998 · steps: load, flip"
        )


async def test_choosing_an_event_in_the_list_puts_the_cursor_on_it(opened: Opened) -> None:
    async with opened() as (pilot, _, screen):
        await pilot.press("full_stop")
        await settle(pilot)
        events = screen.query_one("#events", OptionList)
        assert str(events.get_option_at_index(2).prompt) == "S 11:40:50 ollama → native in 9.8 s"
        events.focus()
        await pilot.press("home", "down", "down", "enter")
        assert charts(screen)[0].cursor == NOW - 1150
        screen.move_window(NOW - 60, NOW, live=False)
        assert screen._settling is not None
        screen._settling.stop()  # the list follows only once the new window was read
        await pilot.press("end", "enter")
        last = screen._listed[-1].at
        assert last < NOW - 60
        assert charts(screen)[0].cursor == last


async def test_statistics_cover_the_window(opened: Opened) -> None:
    async with opened() as (_, _, screen):
        lines = says(screen, "#statistics").splitlines()
        assert lines[0].split() == ["min", "mean", "max"]
        native = next(line for line in lines if line.startswith("native p50")).split()
        assert native[3] == native[5] == native[7] == "ms"
        assert float(native[2]) < float(native[4]) < float(native[6])


async def test_export_writes_a_file_and_offers_its_path(opened: Opened, tmp_path: Path) -> None:
    async with opened() as (pilot, engine, _):
        await pilot.press("c")
        assert pilot.app.clipboard == "", "nothing was exported yet"
        await pilot.press("f", "e", "c")
        await settle(pilot)
        (path,) = engine.paths.exports_dir.iterdir()
        with path.open(encoding="utf-8") as file:
            rows = list(csv.reader(file))
        assert rows[0][0] == "at" and len(rows) > 500
        assert path.name.startswith("history-20260304-1145") and path.suffix == ".csv"
        (note,) = pilot.app._notifications
        assert str(path) in note.message
        await pilot.press("c")
        assert pilot.app.clipboard == str(path)


async def test_a_folder_that_cannot_be_made_is_told(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    async with opened() as (pilot, _, screen):
        await pilot.press("e", "enter")
        await settle(pilot)
        assert "could not be written" in says(screen, "#detail")


async def test_a_store_that_fails_is_told_and_tried_again(opened: Opened) -> None:
    engine = FakeEngine()
    engine.errors["history"] = StoreCorruptError("The history cannot be read", remedy="move it away")
    async with opened(engine=engine) as (pilot, _, screen):
        assert "The history cannot be read — move it away" in says(screen, "#detail")
        engine.errors.clear()
        await pilot.press("full_stop")
        await settle(pilot)
        assert "events in this window" in says(screen, "#detail")


async def test_a_time_that_cannot_be_read_does_not_look_empty(opened: Opened, tmp_path: Path) -> None:
    engine = FakeEngine(home=tmp_path)
    failure = StoreCorruptError("The history cannot be read", remedy="move it away")
    async with opened((120, 40), engine) as (pilot, _, screen):
        engine.errors["history"] = failure
        await pilot.press("full_stop")
        screen._jumped(Overview.Jumped(NOW - 20 * 86_400))
        await settle(pilot)
        for key in ("left", "plus", "left"):
            await pilot.press(key)
            assert "The history cannot be read" in says(screen, "#detail")
        assert screen_text(pilot).count("This time could not be read.") == 4, (
            "three charts and the statistics"
        )
        assert "Nothing was recorded" not in screen_text(pilot)
        await pilot.press("e", "j")
        await settle(pilot)
        assert not engine.paths.exports_dir.exists(), "the points that are left are of another time"
        assert [note.title for note in pilot.app._notifications] == ["Nothing exported"]
        engine.errors.clear()
        engine.now += 3_600
        screen._follow()
        await settle(pilot)
        assert "cannot be read" not in says(screen, "#detail")
        assert "could not be read" not in screen_text(pilot)
        await pilot.press("e", "j")
        await settle(pilot)
        assert [path.suffix for path in engine.paths.exports_dir.iterdir()] == [".json"]


async def test_live_it_reads_again_when_there_is_something_new(opened: Opened) -> None:
    async with opened() as (pilot, engine, screen):
        before = len(asked(engine))
        screen._follow()
        await settle(pilot)
        assert len(asked(engine)) == before, "the clock has not moved"
        engine.now += 5
        screen._follow()
        await settle(pilot)
        assert len(asked(engine)) == before + 1
        await pilot.press("f")
        await settle(pilot)
        frozen = len(asked(engine))
        engine.now += 60
        screen._follow()
        await settle(pilot)
        assert len(asked(engine)) == frozen


async def test_a_month_is_not_read_again_every_few_seconds(opened: Opened) -> None:
    async with opened() as (pilot, engine, screen):
        screen.action_choose_range(6)
        await settle(pilot)
        before = len(asked(engine))
        engine.now += 600
        screen._follow()
        await settle(pilot)
        assert len(asked(engine)) == before


@pytest.mark.parametrize(
    ("size", "pool", "side"),
    [((80, 24), False, False), ((120, 30), False, True), ((80, 50), True, False), ((200, 50), True, True)],
)
async def test_wide_and_tall_screens_show_more(
    opened: Opened, size: tuple[int, int], pool: bool, side: bool
) -> None:
    async with opened(size) as (_, _, screen):
        assert screen.query_one("#pool").display is pool
        assert screen.query_one("#side").display is side
        legend = charts(screen)[0]._series
        assert any(one.key == "host_memory_available" for one in legend) is not pool


async def test_the_smallest_terminal_still_answers(opened: Opened) -> None:
    async with opened((60, 16)) as (pilot, _, _):
        await pilot.press("left", "plus", "full_stop", "n", "p", "f", "equals_sign", "y", "escape")
        await settle(pilot)


async def test_a_span_is_marked_and_its_statistics_are_shown(opened: Opened) -> None:
    async with opened() as (pilot, _, screen):
        await pilot.press("p", "m")
        assert "A begins at 2026-03-04 11:54:20 · m marks its end" in says(screen, "#detail")
        await pilot.press("ctrl+left", "m", "escape")
        assert [span.name for span in screen._spans.whole] == ["A"]
        assert str(screen.query_one("#statistics-title", Static).content) == "Statistics of A"
        await pilot.press("i")
        await settle(pilot)
        text = screen_text(pilot)
        assert "11:54:20" in text and "p99" in text and "energy" in text
        await pilot.press("escape", "escape")
        await settle(pilot)
        assert screen.is_current and screen._spans.spans == ()


async def test_a_dragged_span_is_marked_in_every_chart(opened: Opened) -> None:
    async with opened((160, 50)) as (pilot, _, screen):
        chart = charts(screen)[2]
        await pilot.mouse_down(chart, offset=(30, 5), shift=True)
        await pilot.mouse_up(chart, offset=(50, 5))
        await pilot.pause()
        (span,) = screen._spans.whole
        assert {one._spans for one in charts(screen)} == {(span,)}


async def test_the_mouse_moves_all_charts_at_once(opened: Opened) -> None:
    async with opened((160, 50)) as (pilot, _, screen):
        memory, pool, latency = charts(screen)
        assert len({chart.size.width for chart in charts(screen)}) == 1
        assert latency.region.right == screen.query_one("#side").region.x - 1, "no column is left unused"

        at = (60, latency.size.height // 2)
        x, y = latency.region.x + at[0], latency.region.y + at[1]
        await pilot.hover(latency, offset=at)
        under = latency.cursor
        assert under is not None
        for _ in range(3):
            latency.post_message(MouseScrollUp(latency, *at, 0, 0, 0, False, False, False, x, y))
            await pilot.pause()
        (window,) = {chart.window for chart in charts(screen)}
        since, until = window
        cell = (until - since) / (latency.size.width - GUTTER)
        assert until - since == pytest.approx(900 / 1.5**3)
        assert since + (at[0] - GUTTER + 0.5) * cell == pytest.approx(under, abs=cell + 2)
        assert not any(chart.live for chart in charts(screen))

        await pilot.mouse_down(pool, offset=(80, 6))
        await pilot.hover(pool, offset=(70, 5))
        await pilot.hover(pool, offset=(50, 4))
        await pilot.mouse_up(pool, offset=(50, 4))
        (window,) = {chart.window for chart in charts(screen)}
        assert window == pytest.approx((since + 30 * cell, until + 30 * cell))

        await pilot.click(memory, offset=(40, memory.size.height // 2))
        (cursor,) = {chart.cursor for chart in charts(screen)}
        assert cursor == pytest.approx(window[0] + (40 - GUTTER + 0.5) * cell, abs=cell)

        legend = screen_text(pilot).splitlines()[memory.region.y + 1]
        await pilot.click(memory, offset=(legend.index("ollama") - memory.region.x, 1))
        hidden = [one.key for one in memory._visible_series() if not one.visible]
        assert hidden == ["ollama_gpu_memory"]


async def test_what_led_to_a_moment_is_opened(opened: Opened) -> None:
    async with opened() as (pilot, engine, screen):
        engine.stored_events.insert(0, Event(NOW - 200, "run", "run 7: quick", id=20, detail={"run": 7}))
        screen.put_cursor(NOW - 100)
        await pilot.press("o")
        await settle(pilot)
        assert ("run", 7) in engine.calls
        assert "before the cursor, 1 min 40 s earlier" in screen_text(pilot)


async def test_the_run_that_was_under_way_at_a_moment_is_opened(opened: Opened) -> None:
    async with opened() as (pilot, engine, screen):
        engine.stored_events[:0] = [
            Event(NOW - 20, "run", "run 7: quick", id=21, detail={"run": 7, "seconds": 60.0}),
            Event(NOW - 150, "load", "native loaded in 2.0 s", id=20, detail={"seconds": 2.0}),
        ]
        screen.put_cursor(NOW - 50)
        await pilot.press("o")
        await settle(pilot)
        assert ("run", 7) in engine.calls
        assert "under way at the cursor, over 30 s later" in screen_text(pilot)


async def test_a_lost_end_is_offered_and_its_last_minute_shown(opened: Opened, tmp_path: Path) -> None:
    engine = FakeEngine(home=tmp_path)
    boots = [Event(NOW - 9_000, "start", "embedctl started", detail={"pid": 8, "boot": "a"})]
    boots += [Event(NOW - 2_399, "start", "embedctl started", detail={"pid": 9, "boot": "b"})]
    engine.stored_events = [*boots[::-1], *(e for e in engine.stored_events if e.kind != "start")]
    async with opened(engine=engine) as (pilot, _, screen):
        assert "the machine stopped here · z shows, r plays it" in says(screen, "#detail")
        await pilot.press("z")
        await settle(pilot)
        chart = charts(screen)[0]
        assert chart.cursor == pytest.approx(NOW - 2_581, abs=2), "the last sample, found in two looks"
        assert chart.window == pytest.approx((chart.cursor - 60, chart.cursor + 6))
        assert not chart.live
        assert "X the machine stopped here" in screen_text(pilot)


async def test_a_lost_end_is_found_while_the_screen_stands(opened: Opened, tmp_path: Path) -> None:
    """As in a console attached to a service that came back with its machine."""
    engine = FakeEngine(home=tmp_path)
    first = Event(NOW - 9_000, "start", "embedctl started", detail={"pid": 8, "boot": "a"})
    again = Event(NOW - 2_399, "start", "embedctl started", detail={"pid": 9, "boot": "b"})
    engine.stored_events = [first]
    async with opened(engine=engine) as (pilot, _, screen):
        for told in ("connection", "event"):
            screen._ends, screen._unread = (), None
            engine.stored_events = [first] if told == "event" else [again, first]
            engine.publish(ConnectionChanged(False, "the service", "it is gone"))
            await settle(pilot)
            assert not screen._ends
            engine.publish(ConnectionChanged(True, "the service"))
            await settle(pilot)
            assert bool(screen._ends) is (told == "connection")
        engine.record(replace(again, at=NOW - 2_398))
        await settle(pilot)
        assert "the machine stopped here · z shows, r plays it" in says(screen, "#detail")
        looked = len(engine.calls)
        engine.record(Event(NOW, "note", "nothing about a start"))
        await settle(pilot)
        assert len(engine.calls) == looked


async def test_a_note_is_kept_at_the_cursor(opened: Opened) -> None:
    async with opened() as (pilot, engine, screen):
        await pilot.press("p", "a", *"new fan", "enter")
        await settle(pilot)
        assert ("annotate", NOW - 340, "new fan") in engine.calls
        await pilot.press("a", "escape", "a", "enter")
        await settle(pilot)
        assert len([call for call in engine.calls if call[0] == "annotate"]) == 1, "no text is no note"
        assert screen.is_current


async def test_json_and_pictures_are_exported(opened: Opened) -> None:
    async with opened() as (pilot, engine, _):
        for key in ("j", "s", "p"):
            await pilot.press("e", key)
            await settle(pilot)
        names = sorted(path.suffix for path in engine.paths.exports_dir.iterdir())
        assert names == [".json", ".png", ".svg"]
        (picture,) = engine.paths.exports_dir.glob("*.svg")
        svg = picture.read_text(encoding="utf-8")
        (drawn,) = engine.paths.exports_dir.glob("*.png")
        size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
        assert size is not None
        signature, width, height = struct.unpack(">8s8xII", drawn.read_bytes()[:24])
        assert signature == b"\x89PNG\r\n\x1a\n"
        assert (width, height) == pytest.approx([float(side) for side in size.groups()], abs=1)
        assert svg.startswith("<svg") and "GPU" in svg and "Export" not in svg.replace("Export</text>", "")


async def test_what_comes_while_the_screen_is_taken_down_is_dropped(opened: Opened) -> None:
    async with opened() as (pilot, engine, screen):
        before = len(asked(engine))
        for chart in charts(screen):
            await chart.remove()
        await screen._fetch(NOW - 900, NOW)
        assert len(asked(engine)) == before + 1
        engine.now += 60
        screen._follow()
        screen._read()
        await settle(pilot)
        assert len(asked(engine)) == before + 1


async def test_a_picture_is_drawn_beside_the_event_loop_as_textual_would_draw_it(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    export_svg = Console.export_svg

    def seen(console: Console, **options: Any) -> str:
        threads.append(threading.current_thread())
        return export_svg(console, **options)

    async with opened() as (pilot, engine, screen):
        monkeypatch.setattr(Console, "export_svg", seen)
        await pilot.press("f", "e", "s")
        await settle(pilot)
        assert len(threads) == 1 and threads[0] is not threading.main_thread()
        (picture,) = engine.paths.exports_dir.iterdir()
        pilot.app.clear_notifications()  # it tells of the picture and is not in it
        await settle(pilot)
        assert screen.is_current
        assert picture.read_text(encoding="utf-8") == pilot.app.export_screenshot(title="embedctl history")


async def test_one_chart_alone_keeps_the_window_and_shows_the_times(opened: Opened) -> None:
    async with opened((80, 24)) as (pilot, _, screen):
        await pilot.press("f")
        window = charts(screen)[0].window
        await pilot.press("w", "w")
        await settle(pilot)
        assert [chart.id for chart in charts(screen) if chart.display] == ["pool"]
        assert screen.focused is charts(screen)[1]
        assert charts(screen)[1].window == pytest.approx(window)
        assert "floor 8 GiB" in screen_text(pilot) and "11:45" in screen_text(pilot)
        await pilot.press("w", "w")
        await settle(pilot)
        assert [chart.id for chart in charts(screen) if chart.display] == ["memory", "latency"]


async def test_a_click_on_the_overview_goes_there(opened: Opened) -> None:
    async with opened() as (pilot, _, screen):
        overview = screen.query_one(Overview)
        await pilot.click(Overview, offset=(overview.size.width // 2, 0))
        await settle(pilot)
        since, until = charts(screen)[0].window
        assert until - since == pytest.approx(900)
        assert (since + until) / 2 == pytest.approx(NOW - 15 * 86_400, abs=86_400)
        assert "[" in screen_text(pilot).splitlines()[3]
