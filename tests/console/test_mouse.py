"""A journey with the mouse alone; everything on it can be had with keys too, as the walk shows."""

from __future__ import annotations

from textual.pilot import Pilot
from textual.widgets import DataTable

from embedctl.records import BackendState
from embedctl_console.widgets.text import Text
from tests.support import canned
from tests.support.console import running, screen_text, settle
from tests.support.fake_engine import FakeEngine


async def _click(pilot: Pilot[None], words: str) -> None:
    """Click the middle of some words on the screen; of equal ones the last, as keys stand at the bottom."""
    for y, line in reversed([*enumerate(screen_text(pilot).split("\n"))]):
        x = line.rfind(words)
        if x >= 0:
            await pilot.click(offset=(x + len(words) // 2, y))
            await settle(pilot)
            return
    raise AssertionError(f"{words!r} is not on the screen:\n{screen_text(pilot)}")


async def test_everything_can_be_clicked() -> None:
    engine = FakeEngine(ollama=canned.ollama(BackendState.UNLOADED))
    async with running(engine) as pilot:
        app = pilot.app
        keys = app.screen.query_one("#keys", Text).render_line(0)
        assert len({segment.style.color for segment in keys if segment.style}) > 1  # not drawn as links
        await _click(pilot, "unloaded")  # a card
        assert app.focused is not None
        assert app.focused.id == "card-ollama"
        await _click(pilot, "l Load")
        assert ("load", "ollama") in engine.calls
        await _click(pilot, "x Cancel")
        assert not engine.running

        await _click(pilot, "s Switch")
        assert "Switch from native to ollama" in screen_text(pilot)
        await _click(pilot, "esc Close")
        assert len(app.screen_stack) == 1

        await _click(pilot, "3 Benchmarks")
        assert app.current_mode == "benchmarks"
        runs = app.screen.query_one("#runs", DataTable)
        before = runs.cursor_row
        await pilot.click("#runs", offset=(20, 3))
        assert runs.cursor_row != before
        await pilot.click("#runs", offset=(20, 3))  # a second click opens the run
        await settle(pilot)
        assert len(app.screen_stack) == 2
        await _click(pilot, "esc Back")

        await _click(pilot, "1 Dashboard")
        await _click(pilot, "■ native p95")  # an entry of a chart's legend
        chart = app.screen.query_one("#latency")
        assert not next(one for one in chart._visible_series() if one.key == "native_p95").visible

        await _click(pilot, "b Benchmark")
        assert app.current_mode == "benchmarks"
        await _click(pilot, "q Quit")
        assert "Cancel and quit?" in screen_text(pilot)
        await _click(pilot, "n stay")
        assert len(app.screen_stack) == 1
        await _click(pilot, "q Quit")
        await _click(pilot, "y cancel and quit")
    assert engine.closed
