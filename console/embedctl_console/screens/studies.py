"""What the screens of stored studies have in common: the answer, its rows, a picture, the earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from textual import on
from textual.content import Content
from textual.widgets import DataTable

from embedctl.errors import EmbedctlError
from embedctl.format import format_duration, format_moment
from embedctl_console.actions import NO_KEYMAP, key_of
from embedctl_console.screens.base import ConsoleScreen
from embedctl_console.screens.reading import ReadingScreen
from embedctl_console.state import Topic
from embedctl_console.tasks import run_in_thread
from embedctl_console.widgets.bottom import job_text
from embedctl_console.widgets.standing import VERDICT_SIGNS
from embedctl_console.widgets.table import RowTable
from embedctl_console.widgets.text import Text, failure_text

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from embedctl.records import JobUpdate, Study, StudySummary
    from embedctl_console.state import ConsoleState

Cells = tuple[Content, ...]

_PICTURE_LINES: Final = 6
_WIDE: Final = 110
"""Cells from which on the list of studies tells how long each took."""


class StudiesScreen(ConsoleScreen):
    """The newest study of one kind, or an earlier one that is chosen in the list below it."""

    KIND: ClassVar[str]
    CSS_PATH = "studies.tcss"

    def __init__(self) -> None:
        super().__init__()
        self._studies: tuple[StudySummary, ...] | None = None
        """Newest first; None until they were read."""
        self._chosen: int | None = None
        """Id of the study that is shown, or that cannot be."""
        self._study: Study | None = None
        self._report: Any = None
        """What `_study` holds, as the record of its kind."""
        self._problem: EmbedctlError | None = None
        self._busy = False

    # What a kind of study says for itself

    def read(self, study: Study) -> object:
        """[slow] The study's data as the record of its kind.

        Raises:
            ValueError: It is laid out otherwise: another version of embedctl wrote it.
        """
        raise NotImplementedError

    def empty_text(self) -> Content:
        """What to do where no study is stored."""
        raise NotImplementedError

    def answer_text(self, study: Study, report: Any, width: int) -> Content:
        """The verdict and what it rests on, in a few lines."""
        raise NotImplementedError

    def columns(self, width: int) -> Sequence[tuple[str, int]]:
        """Names and widths of the columns of the rows."""
        raise NotImplementedError

    def rows(self, report: Any, widths: Sequence[int]) -> Sequence[Cells]:
        """A row per finding; cells may have several lines."""
        raise NotImplementedError

    def picture(self, report: Any, row: int, width: int, height: int) -> Content:
        """What is drawn below the rows while the cursor is on `row`."""
        raise NotImplementedError

    def evidence(self, study: Study, report: Any, row: int, width: int) -> Content:
        """All about one row."""
        raise NotImplementedError

    # The screen

    def compose_body(self) -> ComposeResult:
        yield Text(id="answer")
        yield RowTable(id="rows")
        yield Text(id="picture")
        yield RowTable(id="studies")

    def on_mount(self) -> None:
        self._list.border_title = "Earlier ones"
        self._table.focus()
        self._reread()

    @property
    def _table(self) -> DataTable[Content]:
        return self.query_one("#rows", DataTable)

    @property
    def _list(self) -> DataTable[Content]:
        return self.query_one("#studies", DataTable)

    def show_state(self, state: ConsoleState, changed: Topic) -> None:
        if not changed & (Topic.JOBS | Topic.VERDICT):
            return
        running = state.running(self.KIND) is not None
        if self._busy and not running:
            self._reread()
        self._busy = running
        self._show_answer()

    def on_resize(self) -> None:
        self._show_list(self._list.cursor_row)
        self._show(self._table.cursor_row)

    def _reread(self) -> None:
        self.run_worker(self._load(), group="studies", exclusive=True)

    async def _load(self) -> None:
        try:
            self._studies = await run_in_thread(self.console.engine.studies, self.KIND)
        except EmbedctlError as error:
            self._problem = error
            self._show_answer()
            return
        self._problem = None
        self._show_list(0)
        if self._studies:
            await self._choose(self._studies[0].id)
        else:
            self._show()

    async def _choose(self, study_id: int) -> None:
        def fetch() -> tuple[Study, object]:
            study = self.console.engine.study(study_id)
            return study, self.read(study)

        self._chosen = study_id
        try:
            self._study, self._report = await run_in_thread(fetch)
        except EmbedctlError as error:
            self._problem = error
        except ValueError as error:
            self._problem = EmbedctlError(
                f"Study {study_id} cannot be shown",
                why=str(error).splitlines()[0],
                remedy="it was written by another version of embedctl: make a new one",
            )
        else:
            self._problem = None
        self._show()

    def _show(self, cursor: int = 0) -> None:
        """Everything anew: another study, or another width."""
        table = self._table
        there = self._report is not None and self._problem is None
        table.display = there
        self._list.display = len(self._studies or ()) > 1
        self._show_answer()
        if there:
            width = self.app.size.width - 2
            columns = self.columns(width)
            table.clear(columns=True)
            for name, cells in columns:
                table.add_column(name, width=cells)
            for row in self.rows(self._report, [cells for _, cells in columns]):
                table.add_row(*row, height=max(cell.plain.count("\n") + 1 for cell in row))
            table.move_cursor(row=cursor)
        self._show_picture()
        self.refresh_bindings()

    def _show_list(self, cursor: int) -> None:
        table, studies, width = self._list, self._studies or (), self.app.size.width
        table.clear(columns=True)
        columns = study_columns(studies, width)
        for name, cells in columns:
            table.add_column(name, width=cells)
        for study in studies:
            table.add_row(*study_cells(study, width, columns[-1][1]), key=str(study.id))
        table.move_cursor(row=cursor)

    def _show_answer(self) -> None:
        state = self.console.state
        job = state.running(self.KIND) if state is not None else None
        ended = state.ended.get(self.KIND) if state is not None else None
        parts: list[Content] = []
        if job is not None:
            parts.append(self._running_text(job))
        elif ended is not None and ended.failure is not None:
            parts.append(failure_text(ended.failure.what, ended.failure.why, ended.failure.remedy))
        elif ended is not None and ended.state == "cancelled":
            parts.append(Content.assemble((f"– {ended.title}: cancelled.", "bold $text-warning")))
        if self._problem is not None:
            parts.append(failure_text(self._problem.what, self._problem.why, self._problem.remedy))
        elif self._study is not None:
            parts.append(self.answer_text(self._study, self._report, self.app.size.width - 2))
        elif self._studies is not None and not self._studies and job is None:  # else one is being read
            parts.append(self.empty_text())
        self.query_one("#answer", Text).show(Content("\n").join(parts))

    def _running_text(self, job: JobUpdate) -> Content:
        charset = self.console.engine.settings.console.charset
        key = (self._key("everywhere.cancel"), "bold $footer-key-foreground")
        return Content.assemble(
            job_text(job, charset), "\n", key, (" cancels; nothing is kept then", "$text-muted")
        )

    def _key(self, action_id: str) -> str:
        state = self.console.state
        return key_of(action_id, state.keymap if state is not None else NO_KEYMAP)

    def _show_picture(self) -> None:
        widget = self.query_one("#picture", Text)
        widget.display = self._report is not None and self._problem is None and not self.has_class("-short")
        if widget.display:
            row = max(0, self._table.cursor_row)
            widget.show(self.picture(self._report, row, self.app.size.width - 4, _PICTURE_LINES))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("open_finding", "open_study", "worst"):
            return self._report is not None and self._problem is None
        return super().check_action(action, parameters)

    @on(DataTable.RowHighlighted, "#rows")
    def _row_highlighted(self) -> None:
        self._show_picture()

    @on(DataTable.RowHighlighted, "#studies")
    def _study_highlighted(self) -> None:
        """By where the cursor is now: while the list is filled, it is told of rows that it has left since."""
        studies, row = self._studies or (), self._list.cursor_row
        if row < len(studies) and studies[row].id != self._chosen:
            self.run_worker(self._choose(studies[row].id), group="studies", exclusive=True)

    @on(DataTable.RowSelected)
    def _row_selected(self) -> None:
        """A click on the row under the cursor."""
        self._open_row()

    def _open_row(self) -> None:
        study, report, row = self._study, self._report, max(0, self._table.cursor_row)
        if study is not None and self._problem is None:
            self.app.push_screen(ReadingScreen(lambda width: self.evidence(study, report, row, width)))


def study_columns(studies: Sequence[StudySummary], width: int) -> tuple[tuple[str, int], ...]:
    """The answer gets what room the others leave."""
    verdict = 2 + max((len(study.verdict) for study in studies), default=8)
    took = (("took", 12),) if width >= _WIDE else ()
    fixed = (("study", 5), ("when", 16), *took, ("verdict", verdict))
    return (*fixed, ("answer", max(16, width - sum(cells + 2 for _, cells in fixed) - 6)))


def study_cells(study: StudySummary, width: int, room: int) -> Cells:
    """A stored study on one line, the answer in `room` cells; how long it took only on a wide screen."""
    sign, style = VERDICT_SIGNS.get(study.verdict, ("?", "$text-muted"))
    took = (Content(f"{format_duration(study.seconds):>12}"),) if width >= _WIDE else ()
    return (
        Content(f"{study.id:>5}"),
        Content(format_moment(study.at)[:16]),
        *took,
        Content.assemble((f"{sign} {study.verdict}", style)),
        Content(study.headline.removeprefix(f"{study.verdict}: ")).truncate(room, ellipsis=True),
    )
