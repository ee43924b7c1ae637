"""What a chart shows, as a widget: data, window, cursor and colours; the frame is drawn by `plot.draw`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import tzinfo
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from embedctl.metrics import Unit
from embedctl_console.widgets.chart.canvas import Canvas, Role
from embedctl_console.widgets.chart.marks import Mark
from embedctl_console.widgets.chart.palette import series_colors
from embedctl_console.widgets.chart.plot import draw, plot_area
from embedctl_console.widgets.chart.scene import GUTTER, ChartSeries, PlotArea, Scene, Span, Threshold
from embedctl_console.widgets.chart.viewport import Viewport


class ChartView(Widget):
    """Lines over time; live it follows the clock, paused it stays where it is.

    Its owner says what it shows; what the user does with it is the matter of `TimeSeriesChart`. All times are
    Unix seconds.
    """

    DEFAULT_CSS = """
    ChartView {
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
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"chart--{role.name.lower()}" for role in Role if role is not Role.SERIES
    }

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
        self.badge = ""
        """What stands at the upper right in place of LIVE and PAUSED."""
        self.thresholds: tuple[Threshold, ...] = ()
        self._clock = clock
        self._tz = tz
        self._series: tuple[ChartSeries, ...] = ()
        self._marks: tuple[Mark, ...] = ()
        self._viewport = Viewport(clock() - span, clock())
        self._cursor: float | None = None
        self._hover: float | None = None
        """The instant under the mouse, which goes before the cursor."""
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
        cursor: float | None = None,
    ) -> None:
        """Draw these. `window`, `live` and `cursor` replace what the user chose; None leaves it.

        A live chart without a `window` moves to the present and keeps its span.
        """
        recoloured = [one.color for one in series] != [one.color for one in self._series]
        self._series = tuple(series)
        self._marks = tuple(marks)
        if live is not None:
            self.live = live
        if cursor is not None:
            self._cursor = cursor
        if window is not None:
            self._viewport = Viewport(*window)
        elif self.live:
            self._viewport = self._viewport.panned(self._clock() - self._viewport.until)
        if self.live and self._cursor is not None and not self._viewport.holds(self._cursor):
            self._cursor = None
        self.redraw()
        if recoloured:  # a line's role is its place among them: the same cells may be of another colour now
            self._forget_styles()
            self.refresh()

    @property
    def window(self) -> tuple[float, float]:
        """The window shown, [since, until)."""
        shown = self._shown_viewport()
        return shown.since, shown.until

    @property
    def asked(self) -> tuple[float, float]:
        """The window that it was given or moved to; a live chart shows it to the next whole column."""
        return self._viewport.since, self._viewport.until

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
        if (Viewport(since, until), live) != (self._viewport, self.live):
            self._viewport, self.live = Viewport(since, until), live
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
        columns = self.size.width - GUTTER
        return self._viewport.in_steps(columns) if self.live and columns > 0 else self._viewport

    def all_hidden(self) -> str:
        """What to say when every series is hidden."""
        return "Every series is hidden."

    def _scene(self) -> Scene:
        series = self._visible_series()
        hidden = bool(series) and not any(one.visible for one in series)
        return Scene(
            unit=self.unit,
            series=series,
            marks=self._marks,
            viewport=self._shown_viewport(),
            title=self.title,
            state=self.badge or ("LIVE" if self.live else "PAUSED"),
            cursor=self.cursor,
            charset=self.charset,
            tz=self._tz,
            log=self.log_scale,
            ceiling=self.ceiling,
            time_labels=self.time_labels,
            empty=self.all_hidden() if hidden else self.empty,
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
        self._forget_styles()

    def _forget_styles(self) -> None:
        self._styles_by_role.clear()
        self._strips.clear()

    def on_resize(self) -> None:
        self.redraw()
