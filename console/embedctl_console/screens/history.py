"""The History screen: what was recorded, and everything to find out what happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import tzinfo
from pathlib import Path
from typing import ClassVar, Final

from textual import on
from textual.binding import BindingType
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from embedctl.errors import EmbedctlError
from embedctl.format import format_count
from embedctl.records import Event
from embedctl.series import History
from embedctl_console.actions import CHART, bindings_of
from embedctl_console.pace import strips_of
from embedctl_console.picture import svg_of
from embedctl_console.screens.history_about import about_event
from embedctl_console.screens.history_charts import UNREAD
from embedctl_console.screens.history_dialogs import ExportDialog, NoteDialog
from embedctl_console.screens.history_events import event_beyond, led_to
from embedctl_console.screens.history_export import PICTURES, export_path, write_json, write_picture
from embedctl_console.screens.history_lost import FINE, HistoryEnds
from embedctl_console.screens.history_series import STATISTICS
from embedctl_console.screens.history_spans import ASKED, MarkedSpans, figures_text, read_figures
from embedctl_console.screens.history_text import event_line, event_text, statistics_text
from embedctl_console.screens.reading import ReadingScreen
from embedctl_console.tasks import run_in_thread
from embedctl_console.widgets.chart import Span, TimeSeriesChart

_LISTED: Final = 200
"""Events in the list, the newest; nobody reads more of them than that, and each zoom step makes them anew."""


class HistoryScreen(HistoryEnds):
    """Events, statistics, marked spans, notes and exports, around the charts."""

    WHERE = "history"
    CSS_PATH = "history.tcss"
    AUTO_FOCUS = "#memory"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (116, "-wide")]  # noqa: RUF012 - no ClassVar in Textual either
    VERTICAL_BREAKPOINTS = [(0, "-short"), (34, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("history")]

    def __init__(self, *, clock: Callable[[], float] = time.time, tz: tzinfo | None = None) -> None:
        super().__init__(clock=clock, tz=tz)
        self._spans = MarkedSpans()
        self._listed: tuple[Event, ...] = ()
        """What the list of events has, newest first; the window may have moved on since."""
        self._exported: Path | None = None

    # What stands around the charts

    def show_window(self) -> None:
        self._show_events()
        self._show_statistics()
        self._show_detail()

    def show_cursor(self) -> None:
        self._show_detail()

    def show_error(self, error: EmbedctlError) -> None:
        detail = self.query_one("#detail", Static)
        detail.add_class("-error")
        detail.update(f"! {error}", layout=False)

    def _events(self) -> tuple[Event, ...]:
        """Events in the window shown, oldest first."""
        if self._history is None:
            return ()
        since, until = self._main.window
        inside = (event for event in self._history.events if since <= event.at <= until)
        return tuple(sorted(inside, key=lambda event: event.at))

    def _show_events(self) -> None:
        if not self.query_one("#side").display:
            return
        since, until = self._main.window
        options = self.query_one("#events", OptionList)
        self._listed = self._events()[::-1][:_LISTED]
        lines = [event_line(event, self._tz, date=until - since > 86_400) for event in self._listed]
        if lines != [str(options.get_option_at_index(i).prompt) for i in range(options.option_count)]:
            options.set_options(Option(line) for line in lines)

    def _show_statistics(self) -> None:
        """Of the span marked last, as far as it was read; else of the window."""
        history = self._history
        if not self.query_one("#side").display:
            return
        if self._unread is not None and not self._covered:
            self._say("#statistics-title", "Statistics")
            self._say("#statistics", UNREAD)
            return
        if history is None:
            return
        read = [
            span for span in self._spans.whole if history.since <= span.since and _end(span) <= history.until
        ]
        since, until = (read[-1].since, _end(read[-1])) if read else self._main.window
        title = f"Statistics of {read[-1].name}" if read else "Statistics"
        self._say("#statistics-title", title)
        self._say("#statistics", statistics_text(history, STATISTICS, since, until))

    def _say(self, name: str, text: str) -> None:
        """Change a text; the screen is laid out anew only where it takes another number of lines."""
        static = self.query_one(name, Static)
        before = str(static.content)
        if text != before:
            static.update(text, layout=text.count("\n") != before.count("\n"))

    def _event_at_cursor(self) -> Event | None:
        events = self._events()
        index = self._near([event.at for event in events])
        return None if index is None else events[index]

    def _show_detail(self) -> None:
        if self._unread is not None:
            self.show_error(self._unread)
            return
        detail = self.query_one("#detail", Static)
        detail.remove_class("-error")
        detail.update(self._detail(), layout=False)

    def _detail(self) -> str:
        event = self._event_at_cursor()
        lost = self._near([end.at for end in self._ends])
        spans = self._spans.spans
        if spans and spans[-1].until is None:
            begin, key = self._moment(spans[-1].since), self._key("mark")
            return f"{spans[-1].name} begins at {begin} · {key} marks its end"
        if lost is not None:
            return self._lost_text(self._ends[lost])
        if event is not None:
            return event_text(event, self._tz)
        if self._main.cursor is not None:
            keys = " and ".join(self._key(f"{way}-event") for way in ("next", "previous"))
            drop = self._key("no-cursor", CHART)
            return f"no event here · {keys} jump to events · {drop} takes the cursor away"
        if spans:
            names = " and ".join(span.name for span in spans)
            inspect, unmark = self._key("inspect"), self._key("unmark")
            return f"{names} marked · {inspect} gives the statistics · {unmark} takes the marks away"
        if self._ends and self._clock() - self._ends[0].resumed < 86_400:
            return self._lost_text(self._ends[0])
        if self._history is None:
            return ""
        count = len(self._events())
        found = f"{count} events" if count != 1 else "1 event"
        keys = " and ".join(self._key(f"{way}-event") for way in ("next", "previous"))
        read = " ".join(self._key(way, CHART) for way in ("left", "right"))
        return f"{found} in this window · {read} read values · {keys} jump to events"

    # Events

    def action_event(self, direction: int) -> None:
        """Put the cursor on the next (1) or previous (-1) event, in the window or beyond."""
        chart = self._main
        since, until = chart.window
        start = chart.cursor if chart.cursor is not None else (until if direction < 0 else since)
        beyond = [event for event in self._events() if (event.at - start) * direction > 1e-6]
        if beyond:
            self.put_cursor(beyond[0 if direction > 0 else -1].at)
        else:
            # From there and not from the window's edge: a window that has just moved is not read yet.
            self.run_worker(self._find_event(start, direction), group="history-event", exclusive=True)

    async def _find_event(self, start: float, direction: int) -> None:
        """Look for the nearest event that the window does not have, and move the window to it."""
        try:
            event = await run_in_thread(event_beyond, self.console.engine, start, direction)
        except EmbedctlError as error:
            self.show_error(error)
            return
        if event is None:
            self.app.notify("No later event." if direction > 0 else "No earlier event.")
            return
        since, until = self._main.window
        half = (until - since) / 2
        until = min(event.at + half, self._clock())
        self.put_cursor(event.at)
        self.move_window(until - 2 * half, until, live=False)

    @on(OptionList.OptionSelected, "#events")
    def _event_chosen(self, message: OptionList.OptionSelected) -> None:
        self.put_cursor(self._listed[message.option_index].at)

    def action_open(self) -> None:
        """Show what is known of the event under the cursor, the work under way there, or what came last."""
        self.run_worker(self._open(self._main.cursor), group="history-event", exclusive=True)

    async def _open(self, cursor: float | None) -> None:
        engine, event = self.console.engine, self._event_at_cursor()
        if event is None:
            try:
                until = self._main.window[1] if cursor is None else cursor
                event = await run_in_thread(led_to, engine, until)
            except EmbedctlError as error:
                self.show_error(error)
                return
        if event is None:
            self.app.notify("No event before this moment.")
        elif event.kind == "check":
            await self.app.run_action("app.show('check')")
        else:
            about, tz = event, self._tz
            self.app.push_screen(
                ReadingScreen(lambda width: about_event(engine, about, width, tz, cursor=cursor))
            )

    # Spans

    def action_mark(self) -> None:
        """Begin or end a span at the cursor; without one, mark the window."""
        at = self._main.cursor
        if at is None:
            self._spans.add(*self._main.window)
        else:
            self._spans.mark(at)
        self._spans_changed()

    @on(TimeSeriesChart.SpanDragged)
    def _span_dragged(self, message: TimeSeriesChart.SpanDragged) -> None:
        if message.until > message.since:
            self._spans.add(message.since, message.until)
        self._spans_changed()

    def action_unmark(self) -> None:
        self._spans.clear()
        self._spans_changed()

    def _spans_changed(self) -> None:
        for chart in self._charts:
            chart.mark_spans(self._spans.spans)
        self.refresh_bindings()
        self._show_statistics()
        self._show_detail()

    def action_inspect(self) -> None:
        """Statistics of the marked spans, two side by side; of the window, where none is marked."""
        spans = self._spans.whole or (Span("", *self._main.window),)
        engine, tz = self.console.engine, self._tz

        def read(since: float, until: float) -> History:
            return engine.history(since, until, metrics=ASKED, points=FINE)

        self.app.push_screen(ReadingScreen(lambda width: figures_text(read_figures(read, spans), width, tz)))

    # Notes

    def action_annotate(self) -> None:
        at = self._main.cursor
        moment = self._clock() if at is None else at

        def keep(text: str | None) -> None:
            if text:
                self.run_worker(self._annotate(moment, text), group="history-note")

        self.app.push_screen(NoteDialog(self._moment(moment)), keep)

    async def _annotate(self, at: float, text: str) -> None:
        try:
            await run_in_thread(self.console.engine.annotate, at, text)
        except EmbedctlError as error:
            self.show_error(error)
            return
        self._read()

    # Export

    def action_export(self) -> None:
        def chosen(ending: str | None) -> None:
            if ending:
                self.call_after_refresh(self._start_export, ending)

        self.app.push_screen(ExportDialog(), chosen)

    def _start_export(self, ending: str) -> None:
        since, until = self._main.window
        path = export_path(self.console.engine.paths.exports_dir, since, until, self._tz, ending)
        shown, engine = self._history if self._covered else None, self.console.engine
        if shown is None and ending == "json":  # the others are read anew, or are what is to be seen
            why = UNREAD if self._unread is not None else "The window is still being read."
            self.app.notify(why, title="Nothing exported", severity="warning")
            return
        # Only what stands on the screen must be taken here; drawing it takes long enough to be felt.
        strips = strips_of(self.console) if ending in PICTURES else []

        def write() -> str:
            if ending == "csv":
                path.parent.mkdir(parents=True, exist_ok=True)
                return f"{format_count(engine.export_csv(path, since, until))} rows"
            if shown is not None and ending == "json":
                return f"{format_count(write_json(path, shown, since, until))} points"
            write_picture(path, svg_of(strips, "embedctl history"))
            return "picture"

        self.run_worker(self._export(path, write), group="history-export", exclusive=True)

    async def _export(self, path: Path, write: Callable[[], str]) -> None:
        try:
            what = await run_in_thread(write)
        except EmbedctlError as error:
            self.show_error(error)
            return
        except OSError as error:
            remedy = "make room there, or set EMBEDCTL_HOME to another folder"
            self.show_error(EmbedctlError(f"{path} could not be written", why=str(error), remedy=remedy))
            return
        self._exported = path
        self.refresh_bindings()
        told = f"{path}\n{self._key('copy-path')} copies the path"
        self.app.notify(told, title=f"{what} exported", markup=False)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide what cannot be done now."""
        if action == "copy_path":
            return self._exported is not None
        if action == "unmark":
            return bool(self._spans.spans)
        return super().check_action(action, parameters)

    def action_copy_path(self) -> None:
        if self._exported is not None:
            self.app.copy_to_clipboard(str(self._exported))
            self.app.notify("Path copied, if your terminal allows it.")


def _end(span: Span) -> float:
    return span.since if span.until is None else span.until
