"""A run's latencies as they are spread: a row of the run is chosen above and drawn below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from textual import on
from textual.binding import BindingType
from textual.content import Content
from textual.widgets import DataTable

from embedctl.errors import EmbedctlError
from embedctl.format import ABSENT, format_ms, format_number
from embedctl_console.actions import bindings_of
from embedctl_console.screens.base import ConsoleScreen
from embedctl_console.tasks import run_in_thread
from embedctl_console.widgets.distribution import Readings, histogram, legend, shares
from embedctl_console.widgets.table import RowTable
from embedctl_console.widgets.text import Text, failure_text

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from embedctl.records import Figure, Measurement, Run

_COLUMNS: Final = (
    ("shape", 14),
    ("backend", 7),
    ("n", 5),
    ("p50", 7),
    ("p95", 8),
    ("p99", 8),
    ("p95 interval", 12),
    ("p50 interval", 12),
)
_NARROW: Final = 7
"""How many of the columns a screen of 80 cells has room for."""


class DistributionScreen(ConsoleScreen):
    """Each row with latencies, and the drawing of the one under the cursor beside the other backend's."""

    WHERE = "distribution"
    JOBS = ("benchmark",)
    CSS_PATH = "distribution.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("distribution")]

    def __init__(self, run_id: int) -> None:
        super().__init__()
        self._run_id = run_id
        self._rows: tuple[Measurement, ...] = ()
        self._bars = False
        """Histograms in place of the shares."""

    def compose_body(self) -> ComposeResult:
        yield Text(f"Reading run {self._run_id}…", id="title")
        yield RowTable(id="measurements")
        yield Text(id="drawing")

    def on_mount(self) -> None:
        self._table.focus()
        self.run_worker(self._load(), group="run")

    @property
    def _columns(self) -> tuple[tuple[str, int], ...]:
        return _COLUMNS if self.app.size.width >= 100 else _COLUMNS[:_NARROW]

    @property
    def _table(self) -> DataTable[Content]:
        return self.query_one("#measurements", DataTable)

    async def _load(self) -> None:
        title = self.query_one("#title", Text)
        try:
            run = await run_in_thread(self.console.engine.run, self._run_id)
        except EmbedctlError as error:
            title.show(failure_text(error.what, error.why, error.remedy))
            return
        self._rows = drawable(run)
        title.show(title_text(run, self._rows))
        self._table.display = bool(self._rows)
        self._fill()

    def _fill(self) -> None:
        table, columns = self._table, self._columns
        cursor = table.cursor_row
        table.clear(columns=True)
        for name, width in columns:
            table.add_column(name.rjust(width) if name[0] in "np" else name, width=width)
        for row in self._rows:
            table.add_row(*measurement_cells(row)[: len(columns)])
        table.move_cursor(row=cursor)
        self.call_after_refresh(self._draw)  # once the drawing's height is known

    def on_resize(self) -> None:
        self._fill()

    @on(DataTable.RowHighlighted)
    def _draw(self) -> None:
        if not self._rows:
            return
        drawing = self.query_one("#drawing", Text)
        row = self._rows[max(0, self._table.cursor_row)]
        width, height = self.app.size.width - 2, max(6, drawing.size.height)
        charset = self.console.engine.settings.console.charset
        drawing.show(drawing_text(beside(row, self._rows), width, height, charset, bars=self._bars))

    def action_next_form(self) -> None:
        self._bars = not self._bars
        self._draw()

    def action_back(self) -> None:
        self.dismiss()


def drawable(run: Run) -> tuple[Measurement, ...]:
    """The rows of a run that have latencies of their own."""
    return tuple(row for row in run.measurements if len(row.latencies_ms) > 1)


def beside(row: Measurement, rows: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """The row, then every other backend's of the same shape."""
    same = (other for other in rows if (other.shape, other.kind) == (row.shape, row.kind))
    return (row, *(other for other in same if other is not row))


def title_text(run: Run, rows: Sequence[Measurement]) -> Content:
    if not rows:
        return Content(f"Run {run.id} has no row with several latencies to draw.")
    return Content.assemble(
        (f"Run {run.id}", "bold"), f" · latencies of {run.preset} in ms, with 95 % intervals"
    )


def measurement_cells(row: Measurement) -> tuple[Content, ...]:
    p99 = row.figure("p99_ms")
    texts = (
        f"{len(row.latencies_ms):,}",
        format_number(row.p50_ms),
        format_number(row.p95_ms) + ("*" if row.p95_note else " "),
        format_number(p99.value if p99 is not None else None)
        + ("*" if p99 is not None and p99.note else " "),
        _span(row.figure("p95_ms")),
        _span(row.figure("p50_ms")),
    )
    return (
        Content(row.shape),
        Content.assemble((row.backend, f"$series-{row.backend}")),
        *(Content(text.rjust(width)) for text, (_, width) in zip(texts, _COLUMNS[2:], strict=True)),
    )


def drawing_text(
    rows: Sequence[Measurement], width: int, height: int, charset: str, *, bars: bool
) -> Content:
    """Title, legend and drawing in `height` lines: shares of all rows, or a histogram of each."""
    readings = [Readings(row.backend, f"$series-{row.backend}", np.array(row.latencies_ms)) for row in rows]
    if not bars:
        head = Content.assemble((f"{rows[0].shape}: share at least as fast", "bold"), "   ", legend(readings))
        return Content.assemble(
            head, "\n", shares(readings, width, max(3, height - 3), format_ms, charset=charset)
        )
    ends = (
        min(float(one.values.min()) for one in readings),
        max(float(one.values.max()) for one in readings),
    )
    each = max(1, (height - 1) // len(readings) - 2)
    head = Content.assemble((f"{rows[0].shape}: how often", "bold"), "   ", legend(readings))
    drawn = [histogram(one, width, each, format_ms, charset=charset, ends=ends) for one in readings]
    return Content("\n").join([head, *drawn])


def _span(figure: Figure | None) -> str:
    if figure is None or figure.low is None or figure.high is None:
        return ABSENT
    return f"{format_number(figure.low)}–{format_number(figure.high)}"
