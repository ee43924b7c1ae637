"""The chart that a user works with: keys and mouse move its window and its cursor and choose its lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.actions import SkipAction
from textual.binding import BindingType
from textual.message import Message

from embedctl.series import reading_at
from embedctl_console.actions import CHART, NO_KEYMAP, bindings_of, key_of
from embedctl_console.widgets.chart.axis import WITHOUT_LOG
from embedctl_console.widgets.chart.legend import legend_key_at
from embedctl_console.widgets.chart.scene import PlotArea, Span
from embedctl_console.widgets.chart.view import ChartView
from embedctl_console.widgets.chart.viewport import Viewport

_ZOOM = 1.5
_PAN = 0.25
"""Share of the window."""


class TimeSeriesChart(ChartView, can_focus=True):
    """A chart with a cursor and a window that the user moves.

    `show` gives it data; it keeps the window that the user chose and says so with `WindowChanged`, upon which
    the owner may give it finer or more data. All times are Unix seconds.
    """

    DEFAULT_CSS = """
    TimeSeriesChart {
        &:focus > .chart--title { color: $text-primary; text-style: bold; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(CHART)]

    _grip: tuple[int, Viewport] | None = None
    """While the mouse button is down: where it was pressed, and the window at that moment."""
    _span_from: float | None = None
    """While a span is being drawn: where it began."""
    _spans_before: tuple[Span, ...] = ()

    @dataclass
    class WindowChanged(Message):
        """The user zoomed, panned, froze or reset."""

        chart: TimeSeriesChart
        since: float
        until: float
        live: bool

        @property
        def control(self) -> TimeSeriesChart:
            return self.chart

    @dataclass
    class CursorMoved(Message):
        """The user moved the cursor (by key or mouse) or took it away (`at` is None)."""

        chart: TimeSeriesChart
        at: float | None

        @property
        def control(self) -> TimeSeriesChart:
            return self.chart

    @dataclass
    class SpanDragged(Message):
        """The user drew a span with the mouse while shift was down."""

        chart: TimeSeriesChart
        since: float
        until: float

        @property
        def control(self) -> TimeSeriesChart:
            return self.chart

    def on_blur(self) -> None:
        if self._chosen is not None:
            self._chosen = None
            self.redraw()

    # Legend

    def all_hidden(self) -> str:
        state = getattr(self.app, "state", None)  # a chart stands in other apps than the console too
        keymap = state.keymap if state is not None else NO_KEYMAP
        before, after, toggle = (
            key_of(f"{CHART}.{name}", keymap) for name in ("series-before", "series-after", "toggle")
        )
        return f"{super().all_hidden()} {before} and {after} choose one in the legend, {toggle} shows it."

    def action_choose(self, direction: int) -> None:
        keys = [one.key for one in self._series]
        if not keys:
            raise SkipAction
        before = keys.index(self._chosen) if self._chosen in keys else (-1 if direction > 0 else 0)
        self._chosen = keys[(before + direction) % len(keys)]
        self.redraw()

    def action_toggle_series(self) -> None:
        if self._chosen is None:
            raise SkipAction
        self._toggle(self._chosen)

    def _toggle(self, key: str) -> None:
        for one in self._visible_series():
            if one.key == key:
                self._shown_keys[key] = not one.visible
        self.redraw()

    # Cursor

    def _set_cursor(self, at: float | None) -> None:
        self._hover = None
        self._cursor = at
        self.redraw()
        self.post_message(self.CursorMoved(self, at))

    def _snapped(self, x: int, area: PlotArea) -> float:
        """The instant for column `x`: that of an entry in it, if there is one, else its centre."""
        viewport = self._shown_viewport()
        at = area.time_at(x, viewport)
        half = viewport.span / area.width / 2
        for chart in self._visible_series():
            reading = reading_at(chart.series, at, half) if chart.visible else None
            if reading is not None and viewport.holds(reading.at):
                return reading.at
        return at

    def action_step(self, cells: int) -> None:
        area = self._area()
        if area is None:
            return
        viewport = self._shown_viewport()
        now = area.column(self.cursor, viewport) if self.cursor is not None else None
        if now is None:
            self._set_cursor(self._snapped(area.x + area.width - 1, area))
            return
        target = now + cells
        beyond = target - min(max(target, area.x), area.x + area.width - 1)
        if beyond:
            self._move_to(self._viewport.panned(beyond * viewport.span / area.width), live=False)
        self._set_cursor(self._snapped(target - beyond, area))

    def action_edge(self, end: int) -> None:
        area = self._area()
        if area is not None:
            self._set_cursor(self._snapped(area.x + (area.width - 1) * end, area))

    def action_drop_cursor(self) -> None:
        if self._chosen is not None:
            self._chosen = None
            self.redraw()
            return
        if self.cursor is None:
            raise SkipAction  # the key belongs to the screen then
        self._set_cursor(None)

    # Window

    def _move_to(self, viewport: Viewport, *, live: bool) -> None:
        self._viewport = viewport.ending_by(self._clock())
        self.live = live
        self.redraw()
        self.post_message(self.WindowChanged(self, self._viewport.since, self._viewport.until, live))

    def action_zoom(self, direction: int) -> None:
        at = self.cursor
        follow = self.live and at is None
        if at is None or not self._viewport.holds(at):
            at = self._viewport.until if follow else (self._viewport.since + self._viewport.until) / 2
        self._move_to(self._viewport.zoomed(_ZOOM**direction, at), live=follow)

    def action_pan(self, direction: int) -> None:
        self._move_to(self._viewport.panned(direction * _PAN * self._viewport.span), live=False)

    def action_reset(self) -> None:
        now = self._clock()
        self._cursor = None
        self._move_to(Viewport(now - self.span, now), live=True)
        self.post_message(self.CursorMoved(self, None))

    def action_freeze(self) -> None:
        if self.live:
            self._move_to(self._viewport, live=False)
        else:
            now = self._clock()
            self._move_to(Viewport(now - self._viewport.span, now), live=True)

    def action_log(self) -> None:
        if self.unit in WITHOUT_LOG:
            self.notify("Sizes and shares have no logarithmic scale; latencies and rates have.")
            return
        self.log_scale = not self.log_scale
        self.redraw()

    # Mouse

    def _column_under(self, event: events.MouseEvent) -> tuple[int, PlotArea] | None:
        offset, area = event.get_content_offset(self), self._area()
        if offset is None or area is None or offset.y < area.y:
            return None
        return (offset.x, area) if area.x <= offset.x < area.x + area.width else None

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._span_from is not None:
            self.mark_spans([*self._spans_before, Span("", *self._span_to(event.x))])
            return
        if self._grip is not None:
            start, viewport = self._grip
            area = self._area()
            if area is not None and event.x != start:
                self._move_to(viewport.panned((start - event.x) * viewport.span / area.width), live=False)
            return
        under = self._column_under(event)
        hover = self._snapped(*under) if under else None
        if hover != self._hover:
            self._hover = hover
            self.redraw()
            self.post_message(self.CursorMoved(self, self.cursor))

    def _span_to(self, x: int) -> tuple[float, float]:
        """From where the drag began to column `x`, the earlier moment first."""
        area, begin = self._area(), self._span_from or 0.0
        if area is None:
            return begin, begin
        at = area.time_at(min(max(x, area.x), area.x + area.width - 1), self._shown_viewport())
        return min(begin, at), max(begin, at)

    def on_leave(self) -> None:
        if self._hover is not None:
            self._hover = None
            self.redraw()
            self.post_message(self.CursorMoved(self, self._cursor))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        under = self._column_under(event)
        if event.button != 1 or under is None:
            return
        if event.shift:
            x, area = under
            self._span_from = area.time_at(x, self._shown_viewport())
            self._spans_before = self._spans
        else:
            self._grip = (event.x, self._viewport)
        self.capture_mouse()

    def on_mouse_up(self, event: events.MouseUp) -> None:
        grip, self._grip = self._grip, None
        begin = self._span_from
        if begin is not None:
            since, until = self._span_to(event.x)
            self._span_from = None
            self.release_mouse()
            self.mark_spans(self._spans_before)  # the owner decides what becomes of the new one
            self.post_message(self.SpanDragged(self, since, until))
        elif grip is not None:
            self.release_mouse()
            under = self._column_under(event)
            if event.x == grip[0] and under:
                self._set_cursor(self._snapped(*under))

    def on_click(self, event: events.Click) -> None:
        offset, area = event.get_content_offset(self), self._area()
        if offset is None or area is None:
            return
        key = legend_key_at(self._scene(), offset.x, offset.y, self.size.width, area)
        if key is not None:
            self._toggle(key)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(event, 1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._wheel(event, -1)

    def _wheel(self, event: events.MouseEvent, direction: int) -> None:
        under = self._column_under(event)
        if under is None:
            return
        event.stop()
        event.prevent_default()
        x, area = under
        at = area.time_at(x, self._shown_viewport())
        self._move_to(self._viewport.zoomed(_ZOOM**direction, at), live=False)
