"""All that was recorded in one line, with the window marked on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from embedctl.series import Series, columns
from embedctl_console.widgets.chart.canvas import Canvas, Role

_LEVELS: Final = {"braille": "▁▂▃▄▅▆▇█", "block": "▁▂▃▄▅▆▇█", "ascii": "_.,-=+*#"}
_HEADROOM: Final = 1.6
"""Even use is a line in the upper half, not a bar from end to end."""
_EMPTY: Final = "nothing recorded yet"


def draw_overview(
    series: Series,
    window: tuple[float, float],
    span: tuple[float, float] | None,
    width: int,
    *,
    charset: str = "braille",
    lost: Sequence[float] = (),
) -> Canvas:
    """One line of `width` cells over `span`, all times in Unix seconds.

    A column is as high as the greatest value in it; brackets stand around the window. `lost` are the moments
    at which the recording broke off.
    """
    canvas = Canvas(width, 1)
    if span is None or not span[1] > span[0] or width < 4:
        canvas.put(0, 0, _EMPTY, Role.FAINT)
        return canvas
    since, until = span
    high = columns(series, since, until, width).high
    there = ~np.isnan(high)
    if there.any():
        levels = _LEVELS[charset]
        share = np.where(there, high, 0.0) / max(_HEADROOM * float(np.nanmax(high)), 1e-9)
        codes = np.array([ord(sign) for sign in levels], dtype=np.uint32)
        index = np.ceil(share * len(levels)).clip(1, len(levels)).astype(np.intp) - 1
        canvas.glyphs[0] = np.where(there, codes[index], canvas.glyphs[0])
    canvas.roles[0] = Role.AXIS

    def cell(at: float) -> int:
        return int((at - since) / (until - since) * width)

    first, last = cell(window[0]), cell(window[1] - 1e-6)
    left, right = min(max(0, first - 1), width - 3), max(min(width - 1, last + 1), 2)
    canvas.roles[0, left : right + 1] = Role.SPAN
    for at in lost:
        canvas.put(cell(at), 0, "X", Role.ALARM)
    if last >= 0 and first < width:
        canvas.put(left, 0, "[", Role.CURSOR)
        canvas.put(right, 0, "]", Role.CURSOR)
    return canvas


class Overview(Widget):
    """The strip over the charts. A click moves the window there."""

    DEFAULT_CSS = """
    Overview {
        height: 1;
        & > .overview--past { color: $text-muted; }
        & > .overview--window { color: $text-accent; }
        & > .overview--bracket { color: $text-accent; text-style: bold; }
        & > .overview--lost { color: $text-error; text-style: bold; }
    }
    """
    COMPONENT_CLASSES = {  # noqa: RUF012 - Textual's name, with no ClassVar there
        "overview--past", "overview--window", "overview--bracket", "overview--lost"
    }  # fmt: skip

    @dataclass
    class Jumped(Message):
        """The user pointed at a moment."""

        at: float

    def __init__(self, *, charset: str = "braille", id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.charset = charset
        self._series = Series.empty("")
        self._span: tuple[float, float] | None = None
        self._window = (0.0, 1.0)
        self._lost: tuple[float, ...] = ()

    @property
    def span(self) -> tuple[float, float] | None:
        """What it covers; None where nothing was recorded."""
        return self._span

    def show(self, series: Series, span: tuple[float, float] | None) -> None:
        """Draw this, over `span`."""
        self._series, self._span = series, span
        self.refresh()

    def mark(self, window: tuple[float, float], lost: Sequence[float] = ()) -> None:
        """Mark this window, and the moments at which the recording broke off."""
        if (window, tuple(lost)) != (self._window, self._lost):
            self._window, self._lost = window, tuple(lost)
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y:
            return Strip.blank(width)
        canvas = draw_overview(
            self._series, self._window, self._span, width, charset=self.charset, lost=self._lost
        )
        names = {Role.SPAN: "window", Role.CURSOR: "bracket", Role.ALARM: "lost"}

        def style(role: int) -> Style:
            return self.get_component_rich_style(f"overview--{names.get(Role(role), 'past')}")

        return Strip([Segment(text, style(role)) for text, role in canvas.runs(0)], width)

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and self._span is not None:
            since, until = self._span
            self.post_message(self.Jumped(since + (offset.x + 0.5) / self.size.width * (until - since)))
