"""The chart on the screen: keys, mouse, colours; what it shows is drawn by `plot.draw`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.actions import SkipAction
from textual.binding import BindingType
from textual.color import Color
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from embedctl.metrics import Unit
from embedctl.series import reading_at
from embedctl_console.widgets.chart.canvas import Canvas, Role
from embedctl_console.widgets.chart.keys import CHART_BINDINGS
from embedctl_console.widgets.chart.legend import legend_key_at
from embedctl_console.widgets.chart.marks import Mark
from embedctl_console.widgets.chart.palette import series_colors
from embedctl_console.widgets.chart.plot import draw, plot_area
from embedctl_console.widgets.chart.scene import GUTTER, ChartSeries, PlotArea, Scene, Span, Threshold
from embedctl_console.widgets.chart.viewport import Viewport

_ZOOM = 1.5
_PAN = 0.25
"""Share of the window."""


class TimeSeriesChart(Widget, can_focus=True):
    """Lines over time with a cursor; live it follows the clock, paused it stays where it is.

    `show` gives it data; it keeps the window that the user chose and says so with `WindowChanged`, upon which
    the owner may give it finer or more data. All times are Unix seconds.
    """

    DEFAULT_CSS = """
    TimeSeriesChart {
        height: 1fr;
        min-height: 6;
        & > .chart--title { text-style: bold; }
        & > .chart--text { color: $foreground; }
        & > .chart--faint { color: $text-muted; }
        & > .chart--axis { color: $text-muted; }
        & > .chart--grid { color: $foreground 18%; }
        & > .chart--cursor { color: $text-accent; text-style: bold; }
        & > .chart--mark { color: $text-secondary; text-style: bold; }
        & > .chart--alarm { color: $text-error; text-style: bold; }
        & > .chart--live { color: $text-success; text-style: bold; }
        & > .chart--paused { color: $text-warning; text-style: bold; }
        & > .chart--span { color: $text-accent; text-style: bold; }
        &:focus > .chart--title { color: $text-primary; text-style: bold; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"chart--{role.name.lower()}" for role in Role if role is not Role.SERIES
    }
    BINDINGS: ClassVar[list[BindingType]] = [*CHART_BINDINGS]

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

    def __init__(
        self,
        *,
        unit: Unit,
        title: str = "",
        charset: str = "braille",
        span: float = 300.0,
        ceiling: float | None = None,
        log: bool = False,
        time_labels: bool = True,
        empty: str = "No readings in this window.",
        id: str | None = None,  # noqa: A002 - Textual's name for it
        classes: str | None = None,
        clock: Callable[[], float] = time.time,
        tz: tzinfo | None = None,
    ) -> None:
        """An empty live chart.

        Args:
            unit: Unit of all its series.
            title: Shown at the upper left.
            charset: `braille`, `block` or `ascii`.
            span: Seconds shown at first and after a reset.
            ceiling: The fixed upper end of the value axis, if it has one.
            log: Logarithmic values, where all are positive.
            time_labels: False leaves out the line with the times (the chart below has them).
            empty: What to say when there is nothing to draw: the next step for the user.
            clock: The present, in Unix seconds.
            tz: The zone of the times shown; None: local time.
        """
        super().__init__(id=id, classes=classes)
        self.unit = unit
        self.title = title
        self.charset = charset
        self.span = span
        self.ceiling = ceiling
        self.log_scale = log
        self.time_labels = time_labels
        self.empty = empty
        self.live = True
        """Whether the window follows the clock."""
        self.thresholds: tuple[Threshold, ...] = ()
        self._clock = clock
        self._tz = tz
        self._series: tuple[ChartSeries, ...] = ()
        self._marks: tuple[Mark, ...] = ()
        self._viewport = Viewport(clock() - span, clock())
        self._cursor: float | None = None
        self._hover: float | None = None
        self._grip: tuple[int, Viewport] | None = None
        """While the mouse button is down: where it was pressed, and the window at that moment."""
        self._span_from: float | None = None
        """While a span is being drawn: where it began."""
        self._spans_before: tuple[Span, ...] = ()
        self._spans: tuple[Span, ...] = ()
        self._shown_keys: dict[str, bool] = {}
        """What the user has hidden or shown, in place of what the owner says."""
        self._chosen: str | None = None
        """Key of the series that the legend's cursor is on."""
        self._canvas: Canvas | None = None
        self._strips: dict[int, Strip] = {}
        self._styles_by_role: dict[int, Style] = {}

    # What the owner calls

    def show(
        self,
        series: Sequence[ChartSeries],
        marks: Sequence[Mark] = (),
        *,
        window: tuple[float, float] | None = None,
        live: bool | None = None,
    ) -> None:
        """Draw these. `window` and `live` replace what the user chose; None leaves it.

        A live chart without a `window` moves to the present and keeps its span.
        """
        self._series = tuple(series)
        self._marks = tuple(marks)
        if live is not None:
            self.live = live
        if window is not None:
            self._viewport = Viewport(*window)
        elif self.live:
            self._viewport = self._viewport.panned(self._clock() - self._viewport.until)
        if self.live and self._cursor is not None and not self._viewport.holds(self._cursor):
            self._cursor = None
        self.redraw()

    @property
    def window(self) -> tuple[float, float]:
        """The window shown, [since, until)."""
        shown = self._shown_viewport()
        return shown.since, shown.until

    @property
    def cursor(self) -> float | None:
        """The instant that the read-out is about; None: the newest values."""
        return self._cursor if self._hover is None else self._hover

    def move_cursor(self, at: float | None) -> None:
        """Put the cursor to an instant, or take it away, without a message (owners keep charts in step)."""
        self._hover = None
        if at != self._cursor:
            self._cursor = at
            self.redraw()

    def move_window(self, since: float, until: float, live: bool) -> None:
        """Show another window of what it has, without a message."""
        self._viewport = Viewport(since, until)
        self.live = live
        self.redraw()

    def mark_spans(self, spans: Sequence[Span]) -> None:
        """Show these stretches of time as marked."""
        if tuple(spans) != self._spans:
            self._spans = tuple(spans)
            self.redraw()

    def redraw(self) -> None:
        """Draw the frame anew and have Textual repaint the cells that changed, no others."""
        width, height = self.size
        if not width or not height:
            return
        before, canvas = self._canvas, draw(self._scene(), width, height)
        self._canvas = canvas
        if before is None or (before.width, before.height) != (width, height):
            self._strips.clear()
            self.refresh()
            return
        regions = []
        for y, begin, end in canvas.changes(before):
            self._strips.pop(y, None)
            regions.append(Region(begin, y, end - begin, 1))
        if regions:
            self.refresh(*regions)

    # Drawing

    def _shown_viewport(self) -> Viewport:
        if not self.live:
            return self._viewport
        return self._viewport.in_steps(max(1, self.size.width - GUTTER))

    def _scene(self) -> Scene:
        return Scene(
            unit=self.unit,
            series=self._visible_series(),
            marks=self._marks,
            viewport=self._shown_viewport(),
            title=self.title,
            state="LIVE" if self.live else "PAUSED",
            cursor=self.cursor,
            charset=self.charset,
            tz=self._tz,
            log=self.log_scale,
            ceiling=self.ceiling,
            time_labels=self.time_labels,
            empty=self.empty,
            thresholds=self.thresholds,
            spans=self._spans,
            chosen=self._chosen if self.has_focus else None,
        )

    def _visible_series(self) -> tuple[ChartSeries, ...]:
        chosen = self._shown_keys
        return tuple(
            replace(one, visible=chosen[one.key]) if one.key in chosen else one for one in self._series
        )

    def _area(self) -> PlotArea | None:
        return plot_area(self._scene(), self.size.width, self.size.height)

    def render_line(self, y: int) -> Strip:
        """Line `y` of the frame."""
        width, height = self.size
        if self._canvas is None or (self._canvas.width, self._canvas.height) != (width, height):
            self._canvas = draw(self._scene(), width, height)
            self._strips.clear()
        if y >= height:
            return Strip.blank(width)
        strip = self._strips.get(y)
        if strip is None:
            segments = [Segment(text, self._style(role)) for text, role in self._canvas.runs(y)]
            strip = self._strips[y] = Strip(segments, width)
        return strip

    def _style(self, role: int) -> Style:
        style = self._styles_by_role.get(role)
        if style is None:
            ground = self.rich_style.bgcolor
            if role >= Role.SERIES:
                color = Color.parse(self._series_color(role - Role.SERIES)).rich_color
                style = Style(color=color, bgcolor=ground)
            else:
                # The whole style, as a partial one has lost a colour's transparency.
                whole = self.get_component_rich_style(f"chart--{Role(role).name.lower()}")
                style = Style(color=whole.color, bold=whole.bold, bgcolor=ground)
            self._styles_by_role[role] = style
        return style

    def _series_color(self, index: int) -> str:
        variables = self.app.theme_variables
        color = self._series[index].color if index < len(self._series) else None
        if color and color.startswith("$"):
            color = variables.get(color[1:])
        if color:
            return color
        colors = series_colors(variables, dark=self.app.current_theme.dark)
        return colors[index % len(colors)]

    def notify_style_update(self) -> None:
        """The theme or a style changed: colours are looked up again."""
        super().notify_style_update()
        self._styles_by_role.clear()
        self._strips.clear()

    def on_resize(self) -> None:
        self.redraw()

    def on_blur(self) -> None:
        if self._chosen is not None:
            self._chosen = None
            self.redraw()

    # Legend

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
