"""The History screen: recorded memory and latency over a chosen window, with the events beside them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Protocol, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Footer, Header, Label, OptionList, Static
from textual.widgets.option_list import Option

from embedctl.errors import EmbedctlError
from embedctl.metrics import Unit
from embedctl.records import Event
from embedctl.series import History, Series
from embedctl_console.format import format_count, local_time
from embedctl_console.screens.history_text import (
    event_line,
    event_text,
    resolution_text,
    statistics_text,
    window_text,
)
from embedctl_console.widgets.chart import ChartSeries, TimeSeriesChart, marks_of

if TYPE_CHECKING:
    from embedctl.engine import EngineFacade

RANGES: Final = (
    ("15 min", 900.0),
    ("1 h", 3_600.0),
    ("6 h", 21_600.0),
    ("24 h", 86_400.0),
    ("7 d", 604_800.0),
    ("30 d", 2_592_000.0),
)
MEMORY: Final = {
    "native_gpu_memory": "native",
    "ollama_gpu_memory": "ollama",
    "gpu_memory_used": "GPU used",
    "gpu_memory_other": "other",
}
HOST: Final = {"host_memory_available": "available", "host_memory_reclaimable": "reclaimable"}
LATENCY: Final = {
    "native_p50": "native p50",
    "ollama_p50": "ollama p50",
    "native_p95": "native p95",
    "ollama_p95": "ollama p95",
}
"""Metric keys with the labels of their legends."""
_KEYS: Final = (*MEMORY, *HOST, *LATENCY)

_RANGE: Final = Binding.Group("Range", compact=True)
_EVENT: Final = Binding.Group("Event", compact=True)

_SETTLE: Final = 0.12
"""Seconds that zoom and pan must rest before the engine is asked: a wheel turns faster than a disk reads."""
_REFRESH: Final = 2.0
"""Seconds between looks at whether a live window has something new to show."""
_POINTS: Final = 600
_EVENT_REACH: Final = 0.012
"""Share of the window within which an event counts as being under the cursor."""

_COLORS: Final = {
    "native_gpu_memory": "$series-native",
    "ollama_gpu_memory": "$series-ollama",
    "gpu_memory_used": "$series-gpu",
    "gpu_memory_other": "$series-other",
    "native_p50": "$series-native",
    "ollama_p50": "$series-ollama",
    "native_p95": "$series-native-p95",
    "ollama_p95": "$series-ollama-p95",
}
"""Theme variables, so that a backend has one colour on every screen."""
_CHARTS: Final[tuple[tuple[str, str, Unit, str], ...]] = (
    (
        "memory",
        "GPU memory",
        "bytes",
        "Nothing recorded here. The open console records, and `embedctl record`.",
    ),
    ("host", "Host memory", "bytes", "Nothing recorded here."),
    ("latency", "Latency", "ms", "No requests here. A loaded backend is probed every few seconds."),
)


class _HasEngine(Protocol):
    engine: EngineFacade


class HistoryScreen(Screen[None]):
    """What was recorded: two charts with one window and one cursor, and the events in that window."""

    CSS_PATH = "history.tcss"
    TITLE = "History"
    AUTO_FOCUS = "#memory"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (116, "-wide")]  # noqa: RUF012 - no ClassVar in Textual either
    VERTICAL_BREAKPOINTS = [(0, "-short"), (34, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "comma,less_than_sign",
            "range(-1)",
            "Shorter",
            key_display=",",
            id="history.shorter",
            group=_RANGE,
        ),
        Binding(
            "full_stop,greater_than_sign",
            "range(1)",
            "Longer",
            key_display=".",
            id="history.longer",
            group=_RANGE,
        ),
        Binding("p", "event(-1)", "Previous event", id="history.previous-event", group=_EVENT),
        Binding("n", "event(1)", "Next event", id="history.next-event", group=_EVENT),
        Binding("e", "export", "Export CSV", id="history.export", tooltip="Write the window to a CSV file"),
        Binding("c", "copy_path", "Copy path", id="history.copy-path", tooltip="Of the file last exported"),
    ]

    @dataclass
    class Loaded(Message):
        """A window was read."""

        ticket: int
        history: History

    @dataclass
    class EventFound(Message):
        """The next or previous event lies outside the window."""

        event: Event | None
        direction: int

    @dataclass
    class Exported(Message):
        path: Path
        rows: int

    @dataclass
    class Failed(Message):
        """Reading or writing failed."""

        error: EmbedctlError

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
        self._ticket = 0
        """Number of the newest reading asked for; older ones are dropped when they arrive."""
        self._asked_at = 0.0
        self._settling: Timer | None = None
        self._exported: Path | None = None

    @property
    def engine(self) -> EngineFacade:
        return cast(_HasEngine, self.app).engine

    def compose(self) -> ComposeResult:
        charset = self.engine.settings.console.charset
        span = RANGES[self._range][1]
        yield Header()
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
        yield Footer()

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
        """Ask the engine for the window of the charts."""
        self._settling = None
        self._ticket += 1
        self._asked_at = self._clock()
        memory = self._charts[0]
        since, until = memory.window
        if memory.live:
            until = max(until, self._asked_at)
            since = until - (memory.window[1] - memory.window[0])
        self._fetch(self._ticket, since, until)

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

    @work(thread=True, exclusive=True, group="history-read")
    def _fetch(self, ticket: int, since: float, until: float) -> None:
        margin = (until - since) * 0.02  # so that lines reach both edges
        try:
            history = self.engine.history(since - margin, until + margin, metrics=_KEYS, points=_POINTS)
        except EmbedctlError as error:
            self.post_message(self.Failed(error))
        else:
            self.post_message(self.Loaded(ticket, history))

    @on(Loaded)
    def _show_history(self, message: Loaded) -> None:
        if message.ticket != self._ticket:
            return
        self._history = message.history
        self._show_series()
        self._show_window()
        self._show_events()
        self._show_detail()

    def _show_series(self) -> None:
        if self._history is None:
            return
        found, marks = self._history.series, marks_of(self._history.events)
        # Host memory is of another size than a model: without a chart of its own it stands in figures only.
        extra = {} if self.query_one("#host").display else {"host_memory_available": "available"}
        for chart, labels in zip(self._charts, (MEMORY | extra, HOST, LATENCY), strict=True):
            lines = [
                ChartSeries(
                    key, label, found.get(key, Series.empty(key)), _COLORS.get(key), visible=key not in extra
                )
                for key, label in labels.items()
            ]
            chart.show(lines, marks)

    def on_resize(self) -> None:
        self.call_after_refresh(self._show_series)

    @on(Failed)
    def _show_error(self, message: Failed) -> None:
        detail = self.query_one("#detail", Static)
        detail.add_class("-error")
        detail.update(f"! {message.error}")

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
            text = statistics_text(self._history, _KEYS, since, until)
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
            self._find_event(until if direction > 0 else since, direction)

    @work(thread=True, exclusive=True, group="history-event")
    def _find_event(self, start: float, direction: int) -> None:
        try:
            if direction < 0:
                found = self.engine.events(until=start, limit=2)
            else:
                found = self.engine.events(since=start, limit=1000)[::-1]
        except EmbedctlError as error:
            self.post_message(self.Failed(error))
            return
        outside = (event for event in found if (event.at - start) * direction > 1e-6)
        self.post_message(self.EventFound(next(outside, None), direction))

    @on(EventFound)
    def _go_to_event(self, message: EventFound) -> None:
        if message.event is None:
            self.app.notify("No later event." if message.direction > 0 else "No earlier event.")
            return
        since, until = self._charts[0].window
        half = (until - since) / 2
        until = min(message.event.at + half, self._clock())
        self._put_cursor(message.event.at)
        self._move_window(until - 2 * half, until, live=False)

    @on(OptionList.OptionSelected, "#events")
    def _event_chosen(self, message: OptionList.OptionSelected) -> None:
        self._put_cursor(self._events()[::-1][message.option_index].at)

    # Export

    def action_export(self) -> None:
        since, until = self._charts[0].window
        names = (local_time(at, self._tz).strftime("%Y%m%d-%H%M%S") for at in (since, until))
        self._export(self.engine.paths.exports_dir / f"history-{'-to-'.join(names)}.csv", since, until)

    @work(thread=True, exclusive=True, group="history-export")
    def _export(self, path: Path, since: float, until: float) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = self.engine.export_csv(path, since, until)
        except OSError as error:
            problem = EmbedctlError(
                f"{path} could not be written", why=str(error), remedy="make room or set EMBEDCTL_HOME"
            )
            self.post_message(self.Failed(problem))
        except EmbedctlError as error:
            self.post_message(self.Failed(error))
        else:
            self.post_message(self.Exported(path, rows))

    @on(Exported)
    def _tell_export(self, message: Exported) -> None:
        self._exported = message.path
        self.refresh_bindings()
        self.app.notify(
            f"{message.path}\nc copies the path",
            title=f"{format_count(message.rows)} rows exported",
            markup=False,
        )

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide what cannot be done now."""
        return action != "copy_path" or self._exported is not None

    def action_copy_path(self) -> None:
        if self._exported is not None:
            self.app.copy_to_clipboard(str(self._exported))
            self.app.notify("Path copied, if your terminal allows it.")
