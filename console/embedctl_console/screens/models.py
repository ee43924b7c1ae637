"""The Models screen: the model's files, what is on disk, and the jobs that change it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from textual import on
from textual.binding import BindingType
from textual.content import Content
from textual.widgets import DataTable

from embedctl.format import format_bytes
from embedctl_console.actions import bindings_of
from embedctl_console.screens.base import ConsoleScreen
from embedctl_console.screens.models_text import FileRow, file_rows, model_text, outcome_text
from embedctl_console.screens.notices import ConfirmDialog
from embedctl_console.state import Topic
from embedctl_console.widgets.table import RowTable
from embedctl_console.widgets.text import Text

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from embedctl_console.state import ConsoleState

_COLUMNS: Final = (("file", 33), ("size", 9), ("on disk", 9), ("state", 20))


class ModelsScreen(ConsoleScreen):
    """The configured model: fetch it, verify it, remove it, have Ollama pull its copy."""

    WHERE = "models"
    JOBS = ("download", "verify", "pull", "remove")
    TELLS = JOBS
    CSS_PATH = "models.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("models")]

    def __init__(self) -> None:
        super().__init__()
        self._rows: tuple[FileRow, ...] = ()

    def compose_body(self) -> ComposeResult:
        yield Text(id="model")
        yield RowTable(id="files")
        yield Text(id="outcome")

    def on_mount(self) -> None:
        table = self._table
        for label, width in _COLUMNS:
            table.add_column(label, key=label, width=width)
        table.focus()
        self._ticking = self.set_interval(1.0, self._show_model, pause=True)
        self.console.questions.ask_model(online=True)

    @property
    def _table(self) -> DataTable[Content]:
        return self.query_one("#files", DataTable)

    def show_state(self, state: ConsoleState, changed: Topic) -> None:
        if not changed & (Topic.MODEL | Topic.JOBS | Topic.BACKENDS):
            return
        if state.hub_asked is not None:
            self._ticking.resume()
        else:
            self._ticking.pause()
        self._show_model()
        self.query_one("#outcome", Text).show(outcome_text(state))
        job = state.running("download", "verify")
        charset = self.console.engine.settings.console.charset
        self._show_files(file_rows(state.model, job.items if job else (), charset))

    def _show_model(self) -> None:
        state = self.console.state
        if state is not None:
            self.query_one("#model", Text).show(model_text(state, self.console.clock()))

    def _show_files(self, rows: tuple[FileRow, ...]) -> None:
        table = self._table
        if [row.path for row in rows] != [row.path for row in self._rows]:
            table.clear()
            for row in rows:
                table.add_row(*row.cells, key=row.path)
        else:
            for row, old in zip(rows, self._rows, strict=True):
                for (label, _), cell, before in zip(_COLUMNS, row.cells, old.cells, strict=True):
                    if not cell.is_same(before):
                        table.update_cell(row.path, label, cell)
        self._rows = rows

    # Actions

    @on(DataTable.RowSelected)
    async def _row_selected(self) -> None:
        """A click on the row under the cursor."""
        if self.check_action("download", ()):
            self.action_download()

    def action_stop(self) -> None:
        self.console.questions.stop_asking_hub()

    def action_download(self) -> None:
        self.console.jobs.start(self.console.engine.download)

    def action_verify(self) -> None:
        self.console.jobs.start(self.console.engine.verify)

    def action_pull(self) -> None:
        self.console.jobs.start(self.console.engine.pull)

    def action_remove(self) -> None:
        state = self.console.state
        model = state.model if state else None
        if model is None:
            return
        held = sum(file.on_disk for file in model.files)
        dialog = ConfirmDialog(
            f"Remove {model.repo} from this machine?",
            f"{format_bytes(held)} in {model.folder or 'the cache'}\n\nOllama's copy is not touched.",
            yes="remove",
            no="keep",
        )
        self.app.push_screen(dialog, self._remove_if)

    def _remove_if(self, wanted: bool | None) -> None:
        if wanted:
            self.console.jobs.start(self.console.engine.remove_model)
