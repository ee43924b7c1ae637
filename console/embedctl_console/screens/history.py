"""The History screen: recorded memory and latency over a chosen window, with the events beside them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import tzinfo
from pathlib import Path
from typing import ClassVar, Final

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Label, OptionList, Static
from textual.widgets.option_list import Option

from embedctl.errors import EmbedctlError
from embedctl.format import format_count, local_time
from embedctl.metrics import Unit
from embedctl.records import Event
from embedctl.series import History
from embedctl_console.screens.base import ConsoleScreen
from embedctl_console.screens.history_series import KEYS, RANGES, chart_lines
from embedctl_console.screens.history_text import (
    event_line,
    event_text,
    resolution_text,
    statistics_text,
    window_text,
)
from embedctl_console.tasks import run_in_thread
from embedctl_console.widgets.chart import TimeSeriesChart, marks_of

_SETTLE: Final = 0.12
"""Seconds that zoom and pan must rest before the engine is asked: a wheel turns faster than a disk reads."""
_REFRESH: Final = 2.0
"""Seconds between looks at whether a live window has something new to show."""
_POINTS: Final = 600
_EVENT_REACH: Final = 0.012
"""Share of the window within which an event counts as being under the cursor."""

_CHARTS: Final[tuple[tuple[str, str, Unit, str], ...]] = (
    (
        "memory",
        "GPU memory",
        "bytes",
        "Nothing was recorded in this window. The console records while it is open.",
    ),
    ("host", "Host memory", "bytes", "Nothing recorded here."),
    ("latency", "Latency", "ms", "No requests here. A loaded backend is probed every few seconds."),
)


class HistoryScreen(ConsoleScreen):
    """What was recorded: charts with one window and one cursor, and the events in that window."""

    WHERE = "history"
    CSS_PATH = "history.tcss"
    AUTO_FOCUS = "#memory"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (116, "-wide")]  # noqa: RUF012 - no ClassVar in Textual either
    VERTICAL_BREAKPOINTS = [(0, "-short"), (34, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "comma",
            "range(-1)",
            "Range",
            key_display=", .",
            id="history.shorter",
            tooltip="a shorter or a longer range, from 15 minutes to 30 days",
        ),
        Binding("full_stop", "range(1)", show=False, id="history.longer"),
        Binding("less_than_sign", "range(-1)", show=False, id="history.shorter-too"),
        Binding("greater_than_sign", "range(1)", show=False, id="history.longer-too"),
        Binding(
            "p",
            "event(-1)",
            "Event",
            key_display="p n",
            id="history.previous-event",
            tooltip="go to the previous or the next event, beyond the window too",
        ),
        Binding("n", "event(1)", show=False, id="history.next-event"),
        Binding(
            "e", "export", "Export", id="history.export", tooltip="write the window's samples to a CSV file"
        ),
        Binding("c", "copy_path", "Copy path", id="history.copy-path", tooltip="of the file last exported"),
    ]

    def __init__(self, *, clock: Callable[[], float] = time.time, tz: tzinfo | None = None) -> None:
        """A live window of the last 15 minutes.

        Args:
            clock: The present, in Unix seconds.
            tz: The zone of all times shown; None: local time.
        """
        super().__init__()
        self._clock = clock
        self._tz = tz
        self._range = 0
        """Index into `RANGES` of the range last chosen."""
        self._history: History | None = None
        self._asked_at = 0.0
        self._settling: Timer | None = None
        self._exported: Path | None = None

    def compose_body(self) -> ComposeResult:
        charset = self.console.engine.settings.console.charset
        span = RANGES[self._range][1]
        with Horizontal(id="range-bar"):
            yield Static(id="ranges")
            yield Static(id="window", markup=False)
        with Horizontal(id="body"):
            with Vertical(id="charts"):
                for chart_id, title, unit, empty in _CHARTS:
                    yield TimeSeriesChart(
                        unit=unit,
                        title=title,
                        charset=charset,
                        span=span,
                        time_labels=chart_id == "latency",
                        empty=empty,
                        id=chart_id,
                        clock=self._clock,
                        tz=self._tz,
                    )
            with Vertical(id="side"):
                yield Label("Events in this window")
                yield OptionList(id="events", markup=False)
                yield Label("Statistics")
                yield Static(id="statistics", markup=False)
        yield Static(id="detail", markup=False)

    @property
    def _charts(self) -> tuple[TimeSeriesChart, ...]:
        return tuple(self.query(TimeSeriesChart))

    def on_mount(self) -> None:
        self._show_ranges()
        self._read()
        self.set_interval(_REFRESH, self._follow)

    def on_screen_resume(self) -> None:
        if self._history is not None:
            self._follow()

    # Reading

    def _read(self) -> None:
        """Ask the engine for the window of the charts; an answer still awaited is given up."""
        self._settling = None
        self._asked_at = self._clock()
        memory = self._charts[0]
        since, until = memory.window
        if memory.live:
            until = max(until, self._asked_at)
            since = until - (memory.window[1] - memory.window[0])
        self.run_worker(self._fetch(since, until), group="history-read", exclusive=True)

    def _read_soon(self) -> None:
        if self._settling is not None:
            self._settling.stop()
        self._settling = self.set_timer(_SETTLE, self._read)

    def _follow(self) -> None:
        """Read again when a live window has moved on by something that can be seen."""
        memory = self._charts[0]
        since, until = memory.window
        due = max(_REFRESH, (until - since) / _POINTS)
        if memory.live and self.is_current and self._clock() - self._asked_at >= due * 0.9:
            self._read()

    async def _fetch(self, since: float, until: float) -> None:
        margin = (until - since) * 0.02  # so that lines reach both edges
        try:
            self._history = await run_in_thread(
                self.console.engine.history, since - margin, until + margin, metrics=KEYS, points=_POINTS
            )
        except EmbedctlError as error:
            self._show_error(error)
            return
        self._show_series()
        self._show_window()
        self._show_events()
        self._show_detail()

    def _show_series(self) -> None:
        if self._history is None:
            return
        lines = chart_lines(self._history, host_apart=bool(self.query_one("#host").display))
        marks = marks_of(self._history.events)
        self._charts[0].title = lines.memory_title
        for chart, shown in zip(self._charts, (lines.memory, lines.host, lines.latency), strict=True):
            chart.show(shown, marks)

    def on_resize(self) -> None:
        self.call_after_refresh(self._show_series)

    def _show_error(self, error: EmbedctlError) -> None:
        detail = self.query_one("#detail", Static)
        detail.add_class("-error")
        detail.update(f"! {error}")

    # What stands around the charts

    def _show_ranges(self) -> None:
        since, until = self._charts[0].window
        tabs = []
        for index, (name, span) in enumerate(RANGES):
            chosen = abs(until - since - span) < 1
            style = "reverse bold" if chosen else "$text-muted"
            tabs.append(f"[{style} @click=screen.choose_range({index})] {name} [/]")
        self.query_one("#ranges", Static).update(Content.from_markup(" ".join(tabs)))

    def _show_window(self) -> None:
        self._show_ranges()
        text = window_text(*self._charts[0].window, self._tz)
        if self._history is not None:
            text += f" · {resolution_text(self._history.resolution)}/point"
        self.query_one("#window", Static).update(text)

    def _events(self) -> tuple[Event, ...]:
        """Events in the window shown, oldest first."""
        if self._history is None:
            return ()
        since, until = self._charts[0].window
        inside = (event for event in self._history.events if since <= event.at <= until)
        return tuple(sorted(inside, key=lambda event: event.at))

    def _show_events(self) -> None:
        since, until = self._charts[0].window
        options = self.query_one("#events", OptionList)
        newest_first = self._events()[::-1]
        lines = [event_line(event, self._tz, date=until - since > 86_400) for event in newest_first]
        if lines != [str(options.get_option_at_index(i).prompt) for i in range(options.option_count)]:
            options.set_options(Option(line) for line in lines)
        if self._history is not None:
            text = statistics_text(self._history, KEYS, since, until)
            self.query_one("#statistics", Static).update(text)

    def _event_at_cursor(self) -> Event | None:
        chart = self._charts[0]
        at = chart.cursor
        if at is None:
            return None
        reach = _EVENT_REACH * (chart.window[1] - chart.window[0])
        near = [event for event in self._events() if abs(event.at - at) <= reach]
        return min(near, key=lambda event: abs(event.at - at), default=None)

    def _show_detail(self) -> None:
        detail = self.query_one("#detail", Static)
        detail.remove_class("-error")
        event = self._event_at_cursor()
        if event is not None:
            detail.update(event_text(event, self._tz))
        elif self._charts[0].cursor is not None:
            detail.update("no event here · n and p jump to events · escape takes the cursor away")
        else:
            count = len(self._events())
            found = f"{count} events" if count != 1 else "1 event"
            detail.update(f"{found} in this window · ← → read values · n and p jump to events")

    # Window and cursor

    @on(TimeSeriesChart.WindowChanged)
    def _window_changed(self, message: TimeSeriesChart.WindowChanged) -> None:
        self._move_window(message.since, message.until, message.live)

    def _move_window(self, since: float, until: float, live: bool) -> None:
        for chart in self._charts:
            chart.move_window(since, until, live)
        self._show_window()
        self._show_detail()
        self._read_soon()

    @on(TimeSeriesChart.CursorMoved)
    def _cursor_moved(self, message: TimeSeriesChart.CursorMoved) -> None:
        for chart in self._charts:
            if chart is not message.chart:
                chart.move_cursor(message.at)
        self._show_detail()

    def _put_cursor(self, at: float | None) -> None:
        for chart in self._charts:
            chart.move_cursor(at)
        self._show_detail()

    def action_range(self, direction: int) -> None:
        self.action_choose_range(min(max(self._range + direction, 0), len(RANGES) - 1))

    def action_choose_range(self, index: int) -> None:
        self._range = index
        span = RANGES[index][1]
        now = self._clock()
        for chart in self._charts:
            chart.span = span
        self._put_cursor(None)
        self._move_window(now - span, now, live=True)

    # Events

    def action_event(self, direction: int) -> None:
        """Put the cursor on the next (1) or previous (-1) event, in the window or beyond."""
        chart = self._charts[0]
        since, until = chart.window
        start = chart.cursor if chart.cursor is not None else (until if direction < 0 else since)
        beyond = [event for event in self._events() if (event.at - start) * direction > 1e-6]
        if beyond:
            self._put_cursor(beyond[0 if direction > 0 else -1].at)
        else:
            edge = until if direction > 0 else since
            self.run_worker(self._find_event(edge, direction), group="history-event", exclusive=True)

    async def _find_event(self, edge: float, direction: int) -> None:
        """Look for the nearest event beyond the window's edge, and move the window to it."""
        engine = self.console.engine
        try:
            if direction < 0:
                found = await run_in_thread(engine.events, until=edge, limit=2)
            else:
                found = (await run_in_thread(engine.events, since=edge, limit=1000))[::-1]
        except EmbedctlError as error:
            self._show_error(error)
            return
        event = next((event for event in found if (event.at - edge) * direction > 1e-6), None)
        if event is None:
            self.app.notify("No later event." if direction > 0 else "No earlier event.")
            return
        since, until = self._charts[0].window
        half = (until - since) / 2
        until = min(event.at + half, self._clock())
        self._put_cursor(event.at)
        self._move_window(until - 2 * half, until, live=False)

    @on(OptionList.OptionSelected, "#events")
    def _event_chosen(self, message: OptionList.OptionSelected) -> None:
        self._put_cursor(self._events()[::-1][message.option_index].at)

    # Export

    def action_export(self) -> None:
        since, until = self._charts[0].window
        names = (local_time(at, self._tz).strftime("%Y%m%d-%H%M%S") for at in (since, until))
        path = self.console.engine.paths.exports_dir / f"history-{'-to-'.join(names)}.csv"
        self.run_worker(self._export(path, since, until), group="history-export", exclusive=True)

    async def _export(self, path: Path, since: float, until: float) -> None:
        engine = self.console.engine

        def write() -> int:
            path.parent.mkdir(parents=True, exist_ok=True)
            return engine.export_csv(path, since, until)

        try:
            rows = await run_in_thread(write)
        except EmbedctlError as error:
            self._show_error(error)
            return
        except OSError as error:
            remedy = "make room there, or set EMBEDCTL_HOME to another folder"
            self._show_error(EmbedctlError(f"{path} could not be written", why=str(error), remedy=remedy))
            return
        self._exported = path
        self.refresh_bindings()
        title = f"{format_count(rows)} rows exported"
        self.app.notify(f"{path}\nc copies the path", title=title, markup=False)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide what cannot be done now."""
        if action == "copy_path":
            return self._exported is not None
        return super().check_action(action, parameters)

    def action_copy_path(self) -> None:
        if self._exported is not None:
            self.app.copy_to_clipboard(str(self._exported))
            self.app.notify("Path copied, if your terminal allows it.")
