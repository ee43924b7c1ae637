"""The Dashboard: what is here, what to do next, both backends, live charts, processes and events."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from textual.binding import BindingType
from textual.containers import Horizontal
from textual.content import Content

from embedctl.errors import EmbedctlError
from embedctl.metrics import BACKENDS
from embedctl_console.actions import bindings_of
from embedctl_console.next_step import next_step
from embedctl_console.screens.base import ConsoleScreen
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

_CHARTS: Final = ("both", "memory", "latency")


class DashboardScreen(ConsoleScreen):
    """The first screen."""

    WHERE = "dashboard"
    CSS_PATH = "dashboard.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("dashboard")]

    def __init__(self) -> None:
        super().__init__()
        self._drawn_at = float("-inf")
        self._chart = "both"
        """Which charts are shown; a narrow screen has room for one and shows memory for `both`."""

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
        with Horizontal(id="charts"):
            yield TimeSeriesChart(
                unit="bytes",
                title="Memory",
                charset=settings.charset,
                span=_SHOWN,
                empty="No readings yet.",
                id="memory",
                clock=clock,
            )
            yield TimeSeriesChart(
                unit="ms",
                title="Latency",
                charset=settings.charset,
                span=_SHOWN,
                empty="No requests yet. A loaded backend is probed every few seconds.",
                id="latency",
                clock=clock,
            )
        with Horizontal(id="lists"):
            yield Text(id="processes")
            yield Text(id="events")

    def on_mount(self) -> None:
        self.add_class(f"-{self._chart}")
        self.query_one("#processes").border_title = "GPU processes"
        self.query_one("#events").border_title = "Events"

    def show_state(self, state: ConsoleState, changed: Topic) -> None:
        if changed & (Topic.MACHINE | Topic.BACKENDS | Topic.MODEL):
            self.query_one("#here", Text).show(here_line(state, self.size.width))
        if changed & (Topic.HEALTH | Topic.VERDICT):
            line = standing_line(state, self.size.width - 2, self.console.clock())
            self.query_one("#standing", Text).show(line)
        if changed & (Topic.JOBS | Topic.BACKENDS | Topic.MODEL | Topic.VERDICT):
            self.query_one("#next", Text).show(next_line(next_step(state)))
        if changed & Topic.SAMPLE:
            self._show_vitals(state)
            self.query_one("#processes", Text).show(process_lines(state.status.processes, 8))
        now = self.console.clock()
        if changed & Topic.EVENTS or (changed & Topic.SAMPLE and now - self._drawn_at >= _CHART_EVERY):
            self._drawn_at = now
            self.query_one("#events", Text).show(event_lines(state.events, 8, now=now))
            self._show_charts(state)

    def _show_vitals(self, state: ConsoleState) -> None:
        machine, sample = state.status.machine, state.status.sample
        width = self.size.width
        lines = [
            gpu_line(machine, sample, width - 2, reasons=width >= 150),
            host_line(machine, sample, width - 2),
        ]
        if self.has_class("-short"):  # room for one line: that of the GPU, if there is one
            no_gpu = machine is not None and machine.gpu is None
            del lines[0 if no_gpu else 1]
        self.query_one("#vitals", Text).show(Content("\n").join(lines))

    def _show_charts(self, state: ConsoleState) -> None:
        colors = self.app.theme_variables
        marks = marks_of(state.events)
        memory = self.query_one("#memory", TimeSeriesChart)
        latency = self.query_one("#latency", TimeSeriesChart)
        machine = state.status.machine
        on_gpu = machine is None or machine.gpu is not None
        total, own = ("gpu_memory_used", "gpu_memory") if on_gpu else ("host_memory_used", "rss")
        memory.title = "GPU memory" if on_gpu else "Host memory (no GPU)"
        recent = state.recent
        memory.show(
            [
                ChartSeries(total, "used", recent.series(total), colors["series-gpu"]),
                *(
                    ChartSeries(
                        f"{name}_{own}", name, recent.series(f"{name}_{own}"), colors[f"series-{name}"]
                    )
                    for name in BACKENDS
                ),
            ],
            marks,
        )
        latency.show(
            [
                ChartSeries(key, f"{name} {what}", recent.series(key), colors[f"series-{name}{shade}"])
                for what, shade in (("p50", ""), ("p95", "-p95"), ("probe", "-probe"))
                for name in BACKENDS
                if recent.any([key := f"{name}_{what}"])
            ],
            marks,
        )

    def action_next_chart(self) -> None:
        """Go round the charts: both (where there is room), memory, latency."""
        self.remove_class(f"-{self._chart}")
        choices = _CHARTS[1:] if self.has_class("-narrow") else _CHARTS
        place = choices.index(self._chart) if self._chart in choices else 0
        self._chart = choices[(place + 1) % len(choices)]
        self.add_class(f"-{self._chart}")

    def action_refresh_backends(self) -> None:
        self.run_worker(self._refresh_backends(), group="refresh", exclusive=True)
        self.notify("Looking at every backend again.")

    async def _refresh_backends(self) -> None:
        try:
            await run_in_thread(self.console.engine.refresh)
        except EmbedctlError as error:
            self.console.report(error)
