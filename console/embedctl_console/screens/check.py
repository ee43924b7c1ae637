"""The Check screen: is it safe to switch?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import BindingType
from textual.content import Content

from embedctl_console.actions import bindings_of
from embedctl_console.screens.check_text import (
    answer_text,
    columns,
    cosine_picture,
    evidence_text,
    row_cells,
    shown_rows,
    worst_text,
)
from embedctl_console.screens.reading import ReadingScreen
from embedctl_console.screens.studies import Cells, StudiesScreen

if TYPE_CHECKING:
    from embedctl.records import CheckReport, Study

_KEY = "bold $footer-key-foreground"


class CheckScreen(StudiesScreen):
    """The last check's answer and findings; a new one on request."""

    WHERE = "check"
    KIND = "check"
    JOBS = ("check",)
    TELLS = ("check",)
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("check")]

    def read(self, study: Study) -> CheckReport:
        from embedctl.study_data import check_report

        return check_report(study)

    def empty_text(self) -> Content:
        return Content.assemble(
            "Nothing was checked yet.\n\n",
            (self._key("everywhere.check"), _KEY),
            " asks whether it is safe to switch: both backends embed the same texts in several languages, "
            "alone, in lists and side by side; then vectors, length limits, neighbours and search across "
            "the two are compared. It takes a few minutes. What is not loaded is loaded for that time.",
        )

    def answer_text(self, study: Study, report: CheckReport, width: int) -> Content:
        standing = self.console.state.standing if self.console.state is not None else None
        newest = standing is not None and standing.check is not None and standing.check.id == study.id
        return answer_text(study, report, standing.changes if newest and standing else (), width)

    def columns(self, width: int) -> Sequence[tuple[str, int]]:
        return columns(width)

    def rows(self, report: CheckReport, widths: Sequence[int]) -> Sequence[Cells]:
        return [row_cells(row, report, widths) for row in shown_rows(report)]

    def picture(self, report: CheckReport, row: int, width: int, height: int) -> Content:
        return cosine_picture(report, width, height, self.console.engine.settings.console.charset)

    def evidence(self, study: Study, report: CheckReport, row: int, width: int) -> Content:
        charset = self.console.engine.settings.console.charset
        return evidence_text(study, report, shown_rows(report)[row], width, charset)

    def action_open_finding(self) -> None:
        self._open_row()

    def action_worst(self) -> None:
        report: Any = self._report
        if report is not None:
            self.app.push_screen(ReadingScreen(lambda width: worst_text(report, width)))
