"""The Benchmarks screen: stored runs; one run in full; two runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from textual import on
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import DataTable

from embedctl.errors import EmbedctlError
from embedctl.records import RunSummary
from embedctl_console.actions import NO_KEYMAP, bindings_of
from embedctl_console.screens.base import ConsoleScreen
from embedctl_console.screens.benchmarks_dialog import PresetDialog
from embedctl_console.screens.benchmarks_text import comparison_text, list_text, run_cells, run_text
from embedctl_console.screens.distribution import DistributionScreen
from embedctl_console.screens.reading import ReadingScreen
from embedctl_console.state import Topic
from embedctl_console.tasks import run_in_thread
from embedctl_console.widgets.table import RowTable
from embedctl_console.widgets.text import Text, failure_text

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from embedctl_console.actions import Keymap
    from embedctl_console.state import ConsoleState

_COLUMNS: Final = (("mark", 1), ("run", 4), ("when", 16), ("backends", 8), ("took", 12))
_RESULT: Final = 40
"""Cells that the result has at least; on a narrow screen it stands in the place of `took`."""


class BenchmarksScreen(ConsoleScreen):
    """The list of runs, newest first."""

    WHERE = "benchmarks"
    JOBS = ("benchmark",)
    CSS_PATH = "benchmarks.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("benchmarks")]

    def __init__(self) -> None:
        super().__init__()
        self._runs: tuple[RunSummary, ...] = ()
        self._marked: list[int] = []
        """Ids of at most two runs, in the order marked."""
        self._measuring = False
        self._problem: EmbedctlError | None = None
        """Why the list could not be read, if it could not."""

    def compose_body(self) -> ComposeResult:
        yield Text(id="about")
        yield RowTable(id="runs")
        with VerticalScroll(id="preview", can_focus=False):
            yield Text(id="preview-text")

    def on_mount(self) -> None:
        self._table.focus()
        self._read()

    def on_resize(self) -> None:
        self._fill()

    @property
    def _table(self) -> DataTable[Content]:
        return self.query_one("#runs", DataTable)

    def show_state(self, state: ConsoleState, changed: Topic) -> None:
        if not changed & Topic.JOBS:
            return
        measuring = state.running("benchmark") is not None
        if self._measuring and not measuring:
            self._read()
        self._measuring = measuring
        self._show_about()

    def _read(self) -> None:
        self.run_worker(self._load(), group="runs", exclusive=True)

    async def _load(self) -> None:
        try:
            self._runs = await run_in_thread(self.console.engine.runs)
        except EmbedctlError as error:
            self._problem = error
            self._show_about()
            return
        self._problem = None
        known = {run.id for run in self._runs}
        self._marked = [run_id for run_id in self._marked if run_id in known]
        self._fill()
        self._table.display = bool(self._runs)
        self.query_one("#preview").display = bool(self._runs)
        self._show_about()

    def _fill(self) -> None:
        """The list anew: other runs, or another width."""
        room = self.app.size.width - sum(width + 2 for _, width in _COLUMNS) - 2
        columns = (*(_COLUMNS if room >= _RESULT else _COLUMNS[:-1]), ("result", max(_RESULT, room)))
        table = self._table
        row = table.cursor_row
        table.clear(columns=True)
        for key, width in columns:
            table.add_column(" " if key == "mark" else key, key=key, width=width)
        for run in self._runs:
            cells = run_cells(run, marked=run.id in self._marked)
            cells["result"] = cells["result"].truncate(columns[-1][1], ellipsis=True)
            table.add_row(*(cells[key] for key, _ in columns), key=str(run.id))
        table.move_cursor(row=row)

    @property
    def _keymap(self) -> Keymap:
        state = self.console.state
        return state.keymap if state is not None else NO_KEYMAP

    def _show_about(self) -> None:
        if self._problem is not None:
            text = failure_text(self._problem.what, self._problem.why, self._problem.remedy)
        else:
            text = list_text(self._runs, self._marked, measuring=self._measuring, keymap=self._keymap)
        self.query_one("#about", Text).show(text)

    def _is_unfinished(self) -> bool:
        """Whether the run under the cursor can be gone on with, as far as the list tells."""
        row = self._table.cursor_row
        return 0 <= row < len(self._runs) and self._runs[row].state != "done"

    def _under_cursor(self) -> int | None:
        row = self._table.cursor_row
        return self._runs[row].id if 0 <= row < len(self._runs) else None

    # Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("mark", "open_run", "draw"):
            return bool(self._runs)
        if action == "compare":
            return len(self._marked) == 2
        if action == "resume" and not self._is_unfinished():
            return False
        return super().check_action(action, parameters)

    def action_mark(self) -> None:
        run_id = self._under_cursor()
        if run_id is None:
            return
        if run_id in self._marked:
            self._marked.remove(run_id)
        else:
            self._marked = [*self._marked[-1:], run_id]
        for run in self._runs:
            cells = run_cells(run, marked=run.id in self._marked)
            self._table.update_cell(str(run.id), "mark", cells["mark"])
        self._show_about()
        self.refresh_bindings()

    @on(DataTable.RowHighlighted)
    def _row_highlighted(self) -> None:
        """A tall screen shows the run under the cursor below the list."""
        self.refresh_bindings()
        run_id = self._under_cursor()
        if run_id is not None and not self.has_class("-short"):
            self.run_worker(self._preview(run_id), group="preview", exclusive=True)

    async def _preview(self, run_id: int) -> None:
        try:
            text = run_text(await run_in_thread(self.console.engine.run, run_id))
        except EmbedctlError as error:
            text = Content(str(error))
        self.query_one("#preview-text", Text).show(text)

    @on(DataTable.RowSelected)
    def _row_selected(self) -> None:
        """A click on the row under the cursor."""
        self.action_open_run()

    def action_open_run(self) -> None:
        run_id = self._under_cursor()
        if run_id is not None:
            engine = self.console.engine
            self.app.push_screen(ReadingScreen(lambda _: run_text(engine.run(run_id))))

    def action_draw(self) -> None:
        run_id = self._under_cursor()
        if run_id is not None:
            self.app.push_screen(DistributionScreen(run_id))

    def action_compare(self) -> None:
        older, newer = sorted(self._marked)
        engine = self.console.engine
        self.app.push_screen(
            ReadingScreen(lambda width: comparison_text(engine.compare_runs(older, newer), width))
        )

    def action_preset(self) -> None:
        def chosen(preset: str | None) -> None:
            if preset:
                self.console.jobs.start(lambda: self.console.engine.benchmark(preset=preset))

        self.app.push_screen(PresetDialog(), chosen)

    def action_resume(self) -> None:
        run_id = self._under_cursor()
        if run_id is not None:
            self.console.jobs.start(lambda: self.console.engine.resume_benchmark(run_id))
