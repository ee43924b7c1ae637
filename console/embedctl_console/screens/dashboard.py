"""The Dashboard: what is here, what to do next, both backends, live charts, processes and events."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from textual import on
from textual.binding import BindingType
from textual.containers import Container, Horizontal
from textual.content import Content

from embedctl.errors import EmbedctlError
from embedctl.metrics import BACKENDS
from embedctl_console.actions import bindings_of
from embedctl_console.next_step import next_step
from embedctl_console.recent import SPAN
from embedctl_console.screens.base import ConsoleScreen
from embedctl_console.screens.dashboard_charts import (
    CHARTS,
    chart_choices,
    latency_lines,
    load_lines,
    memory_chart,
    traffic_lines,
)
from embedctl_console.state import Topic
from embedctl_console.tasks import run_in_thread
from embedctl_console.widgets.card import BackendCard
from embedctl_console.widgets.chart import ChartSeries, TimeSeriesChart, marks_of
from embedctl_console.widgets.lists import event_lines, here_line, next_line, process_lines
from embedctl_console.widgets.standing import standing_line
from embedctl_console.widgets.text import Text
from embedctl_console.widgets.vitals import gpu_line, host_line

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from embedctl_console.state import ConsoleState

_SHOWN: Final = 300.0
"""Seconds that a chart shows until it is zoomed: a load or a switch fits in, and can be seen."""
_CHART_EVERY: Final = 2.0
"""Seconds between two drawings of a chart: at five minutes per chart a column is that wide."""

_HISTORY: Final = "everywhere.show-history"

_NEXT: Final = Topic.JOBS | Topic.BACKENDS | Topic.MODEL | Topic.VERDICT | Topic.CONNECTION
"""What the next step depends on."""


class DashboardScreen(ConsoleScreen):
    """The first screen."""

    WHERE = "dashboard"
    CSS_PATH = "dashboard.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("dashboard")]

    def __init__(self) -> None:
        super().__init__()
        self._drawn_at = {chart.name: float("-inf") for chart in CHARTS}
        self._choices = chart_choices(0, 0)
        self._choice = 0
        """Index into what there is to choose at this size."""

    def compose_body(self) -> ComposeResult:
        settings = self.console.engine.settings.console
        clock = self.console.clock
        yield Text(id="here")
        yield Text(id="next")
        yield Text(id="standing")
        with Horizontal(id="cards"):
            for name in BACKENDS:
                yield BackendCard(name)
        yield Text(id="vitals")
        with Container(id="charts"):
            for chart in CHARTS:
                yield TimeSeriesChart(
                    unit=chart.unit,
                    title=chart.title,
                    charset=settings.charset,
                    span=_SHOWN,
                    ceiling=chart.ceiling,
                    empty=chart.empty,
                    id=chart.name,
                    clock=clock,
                )
        with Horizontal(id="lists"):
            yield Text(id="processes")
            yield Text(id="events")

    def on_mount(self) -> None:
        self._lay_out()
        self.query_one("#processes").border_title = "GPU processes"
        self.query_one("#events").border_title = "Events"

    def on_resize(self) -> None:
        self._lay_out()
        state = self.console.state
        if state is not None:  # lines that say more where there is more room
            self.show_state(state, Topic.MACHINE | Topic.VERDICT)
            self._show_vitals(state)

    def show_state(self, state: ConsoleState, changed: Topic) -> None:
        if changed & Topic.CONNECTION:
            self.set_class(state.connection is not None and not state.connection.connected, "-lost")
        if changed & (Topic.MACHINE | Topic.BACKENDS | Topic.MODEL):
            self.query_one("#here", Text).show(here_line(state, self.size.width - 2))
        if changed & (Topic.HEALTH | Topic.VERDICT):
            line = standing_line(state, self.size.width - 2, self.console.clock())
            self.query_one("#standing", Text).show(line)
        if changed & _NEXT:
            self.query_one("#next", Text).show(next_line(next_step(state)))
        if changed & Topic.SAMPLE:
            self._show_vitals(state)
        if changed & (_NEXT | Topic.SAMPLE | Topic.MACHINE):
            self.query_one("#processes", Text).show(process_lines(state, 8))
        now = self.console.clock()
        if changed & Topic.EVENTS:
            self._drawn_at = dict.fromkeys(self._drawn_at, float("-inf"))
        if changed & (Topic.EVENTS | Topic.SAMPLE):
            self.query_one("#events", Text).show(event_lines(state.events, 8, now=now))
            self._show_charts(state, now)

    def _show_vitals(self, state: ConsoleState) -> None:
        machine, sample = state.status.machine, state.status.sample
        width = self.size.width - 2
        lines = [gpu_line(machine, sample, width), host_line(machine, sample, width)]
        if self.has_class("-short"):  # room for one line: that of the GPU, if there is one
            no_gpu = machine is not None and machine.gpu is None
            del lines[0 if no_gpu else 1]
        self.query_one("#vitals", Text).show(Content("\n").join(lines))

    # Charts

    def _lay_out(self) -> None:
        """Show the charts that are chosen, and draw what was not drawn while it was hidden."""
        choices = chart_choices(*self.size)
        if choices != self._choices:
            self._choices, self._choice = choices, 0
        shown = choices[self._choice]
        area = self.query_one("#charts")
        for count in (1, 2, 4):
            area.set_class(len(shown) == count, f"-{count}")
        for chart in area.query(TimeSeriesChart):
            chart.display = chart.id in shown
        self._drawn_at = dict.fromkeys(self._drawn_at, float("-inf"))
        state = self.console.state
        if state is not None:
            self._show_charts(state, self.console.clock())

    def _show_charts(self, state: ConsoleState, now: float) -> None:
        """Draw the chart whose turn it is; the others that are due follow one by one.

        So a key that comes meanwhile waits for one chart, not for all of them.
        """
        due = [
            chart
            for chart in self.query(TimeSeriesChart)
            if chart.display and now - self._drawn_at[chart.id or ""] >= _CHART_EVERY
        ]
        if not due:
            return
        chart = min(due, key=lambda one: self._drawn_at[one.id or ""])
        self._drawn_at[chart.id or ""] = now
        if chart.live or chart.window[0] >= now - SPAN:  # else only the chart itself still has what it shows
            chart.show(self._lines(chart, state), marks_of(state.events))
        if len(due) > 1:
            self.call_after_refresh(self._show_charts, state, now)

    @on(TimeSeriesChart.WindowChanged)
    def _window_changed(self, message: TimeSeriesChart.WindowChanged) -> None:
        """Where a window reaches further back than the Dashboard knows, say who knows more."""
        state, chart = self.console.state, message.chart
        self._drawn_at[chart.id or ""] = float("-inf")  # with the next sample: it may have been left alone
        beyond = message.since < self.console.clock() - SPAN
        said = next(one.empty for one in CHARTS if one.name == chart.id)
        if beyond and state is not None:
            key = state.key(_HISTORY)
            said = f"The Dashboard keeps {SPAN / 60:.0f} minutes; {key} shows History, which has more."
        if said != chart.empty:
            chart.empty = said
            chart.redraw()

    def _lines(self, chart: TimeSeriesChart, state: ConsoleState) -> tuple[ChartSeries, ...]:
        if chart.id == "memory":
            floor = self.console.engine.settings.engine.memory_floor_gib
            pool = memory_chart(state, floor)
            chart.title, chart.ceiling, chart.thresholds = pool.title, pool.total, pool.thresholds
            return pool.series
        since = chart.window[0]
        if chart.id == "latency":
            return latency_lines(state, since)
        return traffic_lines(state, since) if chart.id == "traffic" else load_lines(state)

    def action_next_chart(self) -> None:
        """Go round what there is room for: several charts at once, then each alone."""
        self._choice = (self._choice + 1) % len(self._choices)
        self._lay_out()

    def action_refresh_backends(self) -> None:
        self.run_worker(self._refresh_backends(), group="refresh", exclusive=True)
        self.notify("Looking at every backend again.")

    async def _refresh_backends(self) -> None:
        try:
            await run_in_thread(self.console.engine.refresh)
        except EmbedctlError as error:
            self.console.report(error)
