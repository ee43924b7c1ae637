"""The chart under a person's hands: keys, mouse, messages, and how little of the screen it repaints."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import numpy as np
import pytest
from textual.app import App, ComposeResult
from textual.events import MouseScrollDown, MouseScrollUp
from textual.message import Message
from textual.pilot import Pilot
from textual.widgets import Input

from embedctl.series import Series
from embedctl_console.widgets.chart import ChartSeries, Mark, TimeSeriesChart
from embedctl_console.widgets.chart.scene import GUTTER

NOW = 1_772_625_600.0
SPAN = 300.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class ChartApp(App[None]):
    """One chart over a field, and all that the chart said."""

    def __init__(self, charset: str = "braille") -> None:
        super().__init__()
        self.clock = Clock()
        self.chart = TimeSeriesChart(
            unit="ms", title="Latency", charset=charset, span=SPAN, clock=self.clock, tz=ZoneInfo("UTC")
        )
        self.said: list[Message] = []

    def compose(self) -> ComposeResult:
        yield self.chart
        yield Input()

    def on_mount(self) -> None:
        self.chart.focus()
        self.feed()

    def feed(self) -> None:
        at = np.arange(NOW - 600, self.clock.now + 0.5)
        values = 20 + np.sin(at / 17) * 5
        self.chart.show(
            [ChartSeries("a", "native", Series("a", at, values, values, values, 3.0))],
            [Mark(NOW - 100, "switch", "ollama → native")],
        )

    def on_time_series_chart_window_changed(self, message: TimeSeriesChart.WindowChanged) -> None:
        self.said.append(message)

    def on_time_series_chart_span_dragged(self, message: TimeSeriesChart.SpanDragged) -> None:
        self.said.append(message)

    def on_time_series_chart_cursor_moved(self, message: TimeSeriesChart.CursorMoved) -> None:
        self.said.append(message)

    @property
    def text(self) -> str:
        chart = self.chart
        return "\n".join(chart.render_line(y).text.rstrip() for y in range(chart.size.height))


@pytest.fixture
async def pilot():  # type: ignore[no-untyped-def]
    app = ChartApp()
    async with app.run_test(size=(90, 20)) as pilot:
        await pilot.pause()
        yield pilot


def app_of(pilot: Pilot[None]) -> ChartApp:
    assert isinstance(pilot.app, ChartApp)
    return pilot.app


async def test_the_cursor_starts_at_the_newest_column_and_moves_by_columns(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    assert app.chart.cursor is None
    await pilot.press("left")
    first = app.chart.cursor
    assert first is not None and NOW - SPAN / 40 < first <= NOW
    await pilot.press("left", "left")
    second = app.chart.cursor
    assert second is not None
    width = SPAN / (app.chart.size.width - GUTTER)
    assert second == pytest.approx(first - 2 * width, abs=width)
    assert isinstance(app.said[-1], TimeSeriesChart.CursorMoved)
    assert app.said[-1].at == second


async def test_the_cursor_reads_the_very_entry_of_its_column(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    await pilot.press("left", "ctrl+left")
    at = app.chart.cursor
    assert at is not None and at == int(at), "entries lie on whole seconds"
    assert f"native {20 + np.sin(at / 17) * 5:.1f} ms" in app.text


async def test_home_end_and_escape(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    await pilot.press("home")
    since, until = app.chart.window
    assert app.chart.cursor == pytest.approx(since, abs=5)
    await pilot.press("end")
    assert app.chart.cursor == pytest.approx(until, abs=5)
    await pilot.press("escape")
    assert app.chart.cursor is None


async def test_the_cursor_pushes_the_window_at_its_edge(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    await pilot.press("f", "home")
    since, _ = app.chart.window
    await pilot.press("left", "left")
    assert app.chart.window[0] < since
    assert app.chart.cursor is not None and app.chart.cursor < since


async def test_zoom_keeps_the_cursor_in_its_column(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    app.chart.move_cursor(NOW - 100)
    before = (NOW - 100 - app.chart.window[0]) / SPAN
    await pilot.press("plus", "plus")
    since, until = app.chart.window
    assert until - since == pytest.approx(SPAN / 1.5**2)
    assert (NOW - 100 - since) / (until - since) == pytest.approx(before, abs=0.02)
    assert not app.chart.live
    said = app.said[-1]
    assert isinstance(said, TimeSeriesChart.WindowChanged)
    assert (said.since, said.until, said.live) == (since, until, False)


async def test_zoom_without_a_cursor_follows_the_clock(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    await pilot.press("minus")
    since, until = app.chart.window
    assert app.chart.live
    assert until - since == pytest.approx(SPAN * 1.5)
    assert until == pytest.approx(NOW, abs=5)


async def test_freeze_stops_the_window_and_follows_again(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    assert "LIVE" in app.text
    await pilot.press("f")
    frozen = app.chart.window
    app.clock.now += 60
    app.feed()
    assert app.chart.window == frozen
    assert "PAUSED" in app.text
    await pilot.press("f")
    assert app.chart.window[1] == pytest.approx(NOW + 60, abs=5)
    assert "LIVE" in app.text


async def test_panning_pauses_and_stops_at_the_present(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    await pilot.press("left_square_bracket")
    assert not app.chart.live
    assert app.chart.window == pytest.approx((NOW - SPAN * 1.25, NOW - SPAN * 0.25))
    await pilot.press("right_square_bracket", "shift+right", "shift+right")
    assert app.chart.window == pytest.approx((NOW - SPAN, NOW))


async def test_reset_returns_to_the_span_and_the_present(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    await pilot.press("left", "plus", "plus", "left_square_bracket", "equals_sign")
    assert app.chart.live
    assert app.chart.cursor is None
    since, until = app.chart.window
    assert until - since == pytest.approx(SPAN)


async def test_y_shows_the_values_on_a_logarithmic_scale(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    assert "50 ms" not in app.text
    await pilot.press("y")
    assert "50 ms" in app.text


async def test_other_widgets_keep_their_keys(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    app.query_one(Input).focus()
    await pilot.press("f", "plus", "y")
    assert app.query_one(Input).value == "f+y"
    assert app.said == []


async def test_hovering_reads_and_leaving_returns_to_the_cursor(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    app.chart.move_cursor(NOW - 100)
    await pilot.hover(TimeSeriesChart, offset=(GUTTER + 5, 6))
    hovered = app.chart.cursor
    assert hovered is not None and hovered < NOW - 200
    await pilot.hover(Input)
    assert app.chart.cursor == NOW - 100


async def test_a_click_puts_the_cursor(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    await pilot.click(TimeSeriesChart, offset=(GUTTER + 40, 6))
    await pilot.hover(Input)
    assert app.chart.cursor == pytest.approx(NOW - SPAN / 2, abs=5)
    assert app.chart.live


async def test_dragging_pans(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    width = app.chart.size.width - GUTTER
    await pilot.mouse_down(TimeSeriesChart, offset=(GUTTER + 20, 6))
    await pilot.hover(TimeSeriesChart, offset=(GUTTER + 40, 6))
    await pilot.mouse_up(TimeSeriesChart, offset=(GUTTER + 40, 6))
    assert not app.chart.live
    assert app.chart.window[1] == pytest.approx(NOW - 20 * SPAN / width, abs=0.1)
    await pilot.hover(Input)
    assert app.chart.cursor is None, "a drag is not a click"


@pytest.mark.parametrize(("event", "factor"), [(MouseScrollUp, 1.5), (MouseScrollDown, 1 / 1.5)])
async def test_the_wheel_zooms_at_the_mouse(
    pilot: Pilot[None], event: type[MouseScrollUp | MouseScrollDown], factor: float
) -> None:
    app = app_of(pilot)
    await pilot.press("left_square_bracket", "left_square_bracket")
    before = app.chart.window
    x = GUTTER + 20
    at = before[0] + SPAN * 20.5 / (app.chart.size.width - GUTTER)
    offset = app.chart.region.offset
    app.chart.post_message(event(app.chart, x, 6, 0, 0, 0, False, False, False, offset.x + x, offset.y + 6))
    await pilot.pause()
    since, until = app.chart.window
    assert until - since == pytest.approx(SPAN / factor)
    assert (at - since) / (until - since) == pytest.approx((at - before[0]) / SPAN, abs=1e-6)


async def test_a_series_is_hidden_and_shown_by_keys_and_by_mouse(pilot: Pilot[None]) -> None:
    app = app_of(pilot)

    def visible() -> list[bool]:
        return [one.visible for one in app.chart._scene().series]

    await pilot.press("space")
    assert visible() == [True], "none is chosen yet"
    await pilot.press("down", "space")
    assert visible() == [False]
    assert "●" not in app.text.splitlines()[1]
    app.feed()
    assert visible() == [False], "new data does not bring it back"
    assert "space shows it" in " ".join(app.text.split())
    await pilot.click(TimeSeriesChart, offset=(4, 1))
    assert visible() == [True]
    assert ">native" in app.text
    await pilot.click(TimeSeriesChart, offset=(14, 1))
    assert visible() == [False] and app.chart.cursor is None, "the legend lies over columns of the plot"
    await pilot.click(TimeSeriesChart, offset=(14, 1))
    await pilot.press("escape")
    assert ">native" not in app.text
    await pilot.hover(Input)
    assert app.chart.cursor is None and app.said == []


async def test_a_drag_with_shift_draws_a_span(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    before = app.chart.window
    await pilot.mouse_down(TimeSeriesChart, offset=(GUTTER + 40, 6), shift=True)
    await pilot.hover(TimeSeriesChart, offset=(GUTTER + 20, 6))
    assert "━━━━━" in app.text
    await pilot.mouse_up(TimeSeriesChart, offset=(GUTTER + 20, 6))
    said = app.said[-1]
    assert isinstance(said, TimeSeriesChart.SpanDragged)
    assert said.until - said.since == pytest.approx(20 * SPAN / (app.chart.size.width - GUTTER))
    assert app.chart.window == before, "the window stays"
    assert "━━━━━" not in app.text, "the owner decides what becomes of it"


async def test_moving_the_cursor_repaints_little(pilot: Pilot[None], monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_of(pilot)
    app.chart.move_cursor(NOW - 100)
    await pilot.pause()
    painted = []
    refresh = app.chart.refresh

    def counted(*regions, **kwargs):  # type: ignore[no-untyped-def]
        painted.append(regions)
        return refresh(*regions, **kwargs)

    monkeypatch.setattr(app.chart, "refresh", counted)
    app.chart.move_cursor(NOW - 96)
    assert len(painted) == 1
    cells = sum(region.width * region.height for region in painted[0])
    assert 0 < cells < app.chart.size.width * app.chart.size.height / 8


async def test_the_same_data_again_repaints_nothing(
    pilot: Pilot[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_of(pilot)

    painted: list[object] = []
    monkeypatch.setattr(app.chart, "refresh", lambda *regions, **_: painted.append(regions))
    app.feed()
    monkeypatch.undo()
    assert painted == []


async def test_a_live_window_follows_the_clock(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    app.clock.now += 120
    app.feed()
    assert app.chart.window[1] == pytest.approx(NOW + 120, abs=5)
    assert app.said == [], "only a person's doing is told"


async def test_a_cursor_that_a_live_window_left_behind_is_taken_away(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    app.chart.move_cursor(NOW - SPAN + 20)
    app.clock.now += 120
    app.feed()
    assert app.chart.cursor is None


async def test_resizing_draws_anew(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    await pilot.resize_terminal(50, 14)
    await pilot.pause()
    assert max(len(line) for line in app.text.splitlines()) == 50
    await pilot.resize_terminal(8, 3)
    await pilot.pause()
    await pilot.press("left", "plus", "home")


async def test_only_a_logarithmic_scale_is_called_one(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    await pilot.press("y")
    assert "Latency · log" in app.text
    at = np.arange(NOW - SPAN, NOW)
    values = np.where(at % 7 == 0, 0.0, 20.0)
    app.chart.show([ChartSeries("a", "native", Series("a", at, values, values, values, 3.0))])
    assert "Latency" in app.text and "log" not in app.text, "zeros have no place on it"


async def test_a_theme_gives_the_colours(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    series = app.chart._series[0]

    def line_color() -> str:
        style = app.chart._style(100)
        assert style.color is not None and style.color.triplet is not None
        return style.color.triplet.hex

    assert line_color() == "#56b4e9"
    app.theme = "textual-light"
    await pilot.pause()
    assert line_color() == "#0072b2"
    app.chart.show([ChartSeries("a", "native", series.series, color="$error")])
    assert line_color() == app.theme_variables["error"].lower()


async def test_a_line_keeps_its_colour_when_one_before_it_comes(pilot: Pilot[None]) -> None:
    app = app_of(pilot)
    theme = app.theme_variables
    at = np.arange(NOW - SPAN, NOW)

    def line(key: str, color: str, value: float) -> ChartSeries:
        values = np.full(len(at), value)
        return ChartSeries(key, key, Series(key, at, values, values, values, 3.0), color=color)

    def drawn() -> set[str]:
        """Which of the two colours are in the plot."""
        plot = (app.chart.render_line(y).crop(GUTTER) for y in range(2, app.chart.size.height - 2))
        colors = (segment.style.color for strip in plot for segment in strip if segment.style)
        seen = {color.triplet.hex for color in colors if color is not None and color.triplet is not None}
        return seen & {theme["error"].lower(), theme["success"].lower()}

    ollama, native = line("b", "$error", 25.0), line("a", "$success", 20.0)
    app.chart.show([ollama])
    assert drawn() == {theme["error"].lower()}
    app.chart.show([native, ollama])
    assert drawn() == {theme["error"].lower(), theme["success"].lower()}
    app.chart.show([ollama])
    assert drawn() == {theme["error"].lower()}
    app.chart.show([native])
    assert drawn() == {theme["success"].lower()}
