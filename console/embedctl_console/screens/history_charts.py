"""Charts over the store: one window and one cursor for all, and the overview of all that was recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import tzinfo
from typing import Final

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Label, OptionList, Static

from embedctl.errors import EmbedctlError
from embedctl.series import History
from embedctl_console.actions import NO_KEYMAP, key_of
from embedctl_console.screens.base import ConsoleScreen
from embedctl_console.screens.history_panels import fill_charts, make_charts
from embedctl_console.screens.history_series import (
    FIRST_RANGE,
    KEYS,
    OVERVIEW,
    RANGES,
    used_memory,
)
from embedctl_console.screens.history_text import resolution_text, window_text
from embedctl_console.tasks import run_in_thread
from embedctl_console.widgets.chart import Mark, Overview, TimeSeriesChart, marks_of

_SETTLE: Final = 0.06
"""Seconds that zoom and pan must rest before the engine is asked: a wheel turns faster than a disk reads."""
_REFRESH: Final = 2.0
"""Seconds between looks at whether a live window has something new to show."""
_POINTS: Final = 600
_OVERVIEW_EVERY: Final = 60.0
"""Seconds between two readings of the whole range; a column of it is longer, but for the first hours."""

UNREAD: Final = "This time could not be read."

_VIEWS: Final = ("all", "memory", "pool", "latency")
"""Which charts are shown: all that there is room for, or one alone."""


class HistoryCharts(ConsoleScreen):
    """The upper part of the History screen. What else is shown of a window follows in `show_window`."""

    def __init__(self, *, clock: Callable[[], float] = time.time, tz: tzinfo | None = None) -> None:
        """A live window of the last 15 minutes.

        Args:
            clock: The present, in Unix seconds.
            tz: The zone of all times shown; None: local time.
        """
        super().__init__()
        self._clock = clock
        self._tz = tz
        self._charts: tuple[TimeSeriesChart, ...] = ()
        self._range = FIRST_RANGE
        """Index into `RANGES` of the range last chosen."""
        self._range_shown: int | None = FIRST_RANGE
        """Index of the range that the bar shows as chosen; None: none of them."""
        self._view = _VIEWS[0]
        self._history: History | None = None
        """What was read last; the window may have moved on since."""
        self._unread: EmbedctlError | None = None
        """Why the last read failed; None once one has succeeded."""
        self._empty: tuple[str, ...] = ()
        """What each chart says of a time without readings."""
        self._asked_at = 0.0
        self._overview_at = float("-inf")
        self._settling: Timer | None = None

    def compose_body(self) -> ComposeResult:
        charset = self.console.engine.settings.console.charset
        with Horizontal(id="range-bar"):
            yield Static(_tabs(self._range), id="ranges")
            yield Static(id="window", markup=False)
        yield Overview(charset=charset, id="overview")
        with Horizontal(id="body"):
            with Vertical(id="charts"):
                span = RANGES[self._range][1]
                step = f"{self._key('longer')} for a longer range"
                self._charts = make_charts(TimeSeriesChart, charset, span, self._clock, self._tz, step=step)
                self._empty = tuple(chart.empty for chart in self._charts)
                yield from self._charts
            with Vertical(id="side"):
                yield Label("Events in this window")
                yield OptionList(id="events", markup=False)
                yield Label("Statistics", id="statistics-title")
                yield Static(id="statistics", markup=False)
        yield Static(id="detail", markup=False)

    def _key(self, name: str, where: str = "history") -> str:
        """The key of an action, as the user has it."""
        state = self.console.state
        return key_of(f"{where}.{name}", state.keymap if state is not None else NO_KEYMAP)

    @property
    def _main(self) -> TimeSeriesChart:
        """The first chart that is to be seen: its window and its cursor are those of all."""
        return next(chart for chart in self._charts if chart.display)

    @property
    def _stands(self) -> bool:
        """Whether there is a chart; what is read while the screen is taken down is for nobody."""
        return any(chart.display for chart in self._charts)

    @property
    def _covered(self) -> bool:
        """Whether the window shown was read, but for what a live one has moved on since the last look."""
        if self._history is None:
            return False
        since, until = self._main.window
        behind = 3 * max(_REFRESH, (until - since) / _POINTS) if self._main.live else 0.0
        return self._history.since <= since and until - behind <= self._history.until

    def on_mount(self) -> None:
        self.add_class(f"-{self._view}")
        self._show_ranges()
        self._read()
        self.set_interval(_REFRESH, self._follow)

    def on_screen_resume(self, event: events.ScreenResume) -> None:
        if self._history is not None:
            self._follow()

    # What the lower part gives

    def show_window(self) -> None:
        """Say what is in the window, which was read."""
        raise NotImplementedError

    def show_cursor(self) -> None:
        """Say what is under the cursor; it, or the window, moved."""
        raise NotImplementedError

    def show_error(self, error: EmbedctlError) -> None:
        """Say what went wrong with the store."""
        raise NotImplementedError

    def more_marks(self) -> tuple[Mark, ...]:
        """Marks besides those of the events read."""
        raise NotImplementedError

    # Reading

    def _read(self) -> None:
        """Ask the engine for the window of the charts; an answer still awaited is given up."""
        self._settling = None
        if not self._stands:
            return
        self._asked_at = self._clock()
        main = self._main
        since, until = main.window
        if main.live:
            until = max(until, self._asked_at)
            since = until - (main.window[1] - main.window[0])
        self.run_worker(self._fetch(since, until), group="history-read", exclusive=True)

    def _read_soon(self) -> None:
        if self._settling is not None:
            self._settling.stop()
        self._settling = self.set_timer(_SETTLE, self._read)

    def _follow(self) -> None:
        """Read again when a live window has moved on by something that can be seen, or could not be read."""
        if not self._stands:
            return
        since, until = self._main.window
        due = max(_REFRESH, (until - since) / _POINTS)
        wanted = self._main.live or self._unread is not None
        if wanted and self.is_current and self._clock() - self._asked_at >= due * 0.9:
            self._read()

    async def _fetch(self, since: float, until: float) -> None:
        margin = (until - since) * 0.02  # so that lines reach both edges
        engine = self.console.engine
        try:
            history = await run_in_thread(
                engine.history, since - margin, until + margin, metrics=KEYS, points=_POINTS
            )
        except EmbedctlError as error:
            self._take(self._history, error)
            return
        self._take(history, None)
        try:
            if self._stands and self._clock() - self._overview_at >= _OVERVIEW_EVERY:
                await self._fetch_overview()
        except EmbedctlError as error:
            self.show_error(error)

    def _take(self, history: History | None, unread: EmbedctlError | None) -> None:
        """Show what was read, or that nothing was: what stands there then is of another time."""
        self._history, self._unread = history, unread
        if not self._stands:
            return
        for chart, empty in zip(self._charts, self._empty, strict=True):
            chart.empty = empty if unread is None else UNREAD
            if history is None:
                chart.redraw()
        self.show_series()
        self._show_ranges()
        self.show_window()

    async def _fetch_overview(self) -> None:
        """Read the whole range. A wish for another window in between puts it off."""
        engine, now = self.console.engine, self._clock()
        recorded = await run_in_thread(engine.recorded_span)
        if recorded is not None:
            found = await run_in_thread(engine.history, recorded[0], now, metrics=OVERVIEW, points=_POINTS)
            if not self._stands:
                return
            self.query_one(Overview).show(used_memory(found), (recorded[0], max(now, recorded[1])))
        self._overview_at = now

    def show_series(self) -> None:
        """Give the charts what was read."""
        if self._history is None:
            return
        marks = (*marks_of(self._history.events), *self.more_marks())
        (since, until), live = self._main.asked, self._main.live
        if live:
            now = self._clock()
            since, until = now - (until - since), now
        fill_charts(self._charts, self.console, self._history, marks, window=(since, until), live=live)

    def on_resize(self) -> None:
        self.call_after_refresh(self._show_all)

    def _show_all(self) -> None:
        self.show_series()
        if self._history is not None:
            self.show_window()

    # Ranges

    def _show_ranges(self) -> None:
        since, until = self._main.window
        chosen = next((i for i, (_, span) in enumerate(RANGES) if abs(until - since - span) < 1), None)
        if chosen != self._range_shown:
            self._range_shown = chosen
            self.query_one("#ranges", Static).update(_tabs(chosen), layout=False)
        text = window_text(since, until, self._tz)
        if self._history is not None and self._unread is None:
            text += f" · {resolution_text(self._history.resolution)}/point"
        self.query_one("#window", Static).update(text, layout=False)
        self.query_one(Overview).mark((since, until), [mark.at for mark in self.more_marks()])

    def action_range(self, direction: int) -> None:
        self.action_choose_range(min(max(self._range + direction, 0), len(RANGES) - 1))

    def action_choose_range(self, index: int) -> None:
        self._range = index
        span = RANGES[index][1]
        now = self._clock()
        for chart in self._charts:
            chart.span = span
        self.put_cursor(None)
        self.move_window(now - span, now, live=True)

    def action_view(self) -> None:
        """Show all charts, or one of them alone."""
        cursor, (since, until), live = self._main.cursor, self._main.window, self._main.live
        self.remove_class(f"-{self._view}")
        self._view = _VIEWS[(_VIEWS.index(self._view) + 1) % len(_VIEWS)]
        self.add_class(f"-{self._view}")
        for chart in self._charts:
            chart.time_labels = self._view != "all" or chart.id == "latency"

        def settle() -> None:
            self._main.focus()
            self.put_cursor(cursor)
            self.move_window(since, until, live)
            self.show_series()

        self.call_after_refresh(settle)

    # Window and cursor

    @on(TimeSeriesChart.WindowChanged)
    def _window_changed(self, message: TimeSeriesChart.WindowChanged) -> None:
        self.move_window(message.since, message.until, message.live)

    @on(Overview.Jumped)
    def _jumped(self, message: Overview.Jumped) -> None:
        since, until = self._main.window
        end = min(message.at + (until - since) / 2, self._clock())
        self.move_window(end - (until - since), end, live=False)

    def move_window(self, since: float, until: float, live: bool) -> None:
        """Show another window in all charts, and read it once it stays."""
        for chart in self._charts:
            chart.move_window(since, until, live)
        self._show_ranges()
        self.show_cursor()
        self._read_soon()

    @on(TimeSeriesChart.CursorMoved)
    def _cursor_moved(self, message: TimeSeriesChart.CursorMoved) -> None:
        for chart in self._charts:
            if chart is not message.chart:
                chart.move_cursor(message.at)
        self.show_cursor()

    def put_cursor(self, at: float | None) -> None:
        """Put the cursor of all charts to a moment, or take it away."""
        for chart in self._charts:
            chart.move_cursor(at)
        self.show_cursor()


def _tabs(chosen: int | None) -> Content:
    """The ranges in a row, to be clicked."""
    tabs = []
    for index, (name, _) in enumerate(RANGES):
        style = "reverse bold" if index == chosen else "$text-muted"
        tabs.append(f"[{style} @click=screen.choose_range({index})] {name} [/]")
    return Content.from_markup("".join(tabs))
