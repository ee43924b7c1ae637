"""The Quality screen: what a change of backend, precision or length limit costs in search quality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from textual.binding import BindingType
from textual.content import Content

from embedctl_console.actions import bindings_of
from embedctl_console.screens.quality_text import (
    answer_text,
    changes_picture,
    columns,
    difference_cells,
    lost_text,
    rows_of,
    score_cells,
    score_columns,
    study_text,
)
from embedctl_console.screens.reading import ReadingScreen
from embedctl_console.screens.studies import Cells, StudiesScreen

if TYPE_CHECKING:
    from embedctl.records import QualityReport, Study


_KEY: Final = "bold $footer-key-foreground"


class QualityScreen(StudiesScreen):
    """The last study of search quality; the command line can ask for more than the key does."""

    WHERE = "quality"
    KIND = "quality"
    JOBS = ("quality",)
    TELLS = ("quality",)
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("quality")]

    def read(self, study: Study) -> QualityReport:
        from embedctl.study_data import quality_report

        return quality_report(study)

    def empty_text(self) -> Content:
        return Content.assemble(
            "No search quality was measured yet.\n\n",
            (self._key("quality.measure"), _KEY),
            " searches questions with known answers in several languages with both backends and compares "
            "them query by query: NDCG@10, MRR@10 and Recall@100 with intervals. ",
            ("embedctl quality --help", "bold"),
            " has more: precisions, length limits, sets of your own.",
        )

    def answer_text(self, study: Study, report: QualityReport, width: int) -> Content:
        return answer_text(study, report, width)

    def columns(self, width: int) -> Sequence[tuple[str, int]]:
        report: QualityReport = self._report
        return columns(report, width) if report.differences else score_columns(width)

    def rows(self, report: QualityReport, widths: Sequence[int]) -> Sequence[Cells]:
        if not report.differences:
            return score_cells(report)
        return [difference_cells(report, row, widths) for row in rows_of(report)]

    def picture(self, report: QualityReport, row: int, width: int, height: int) -> Content:
        charset = self.console.engine.settings.console.charset
        return changes_picture(report, _variant(report, row), width, height, charset)

    def evidence(self, study: Study, report: QualityReport, row: int, width: int) -> Content:
        charset = self.console.engine.settings.console.charset
        return study_text(study, report, _variant(report, row), width, charset)

    def action_open_study(self) -> None:
        self._open_row()

    def action_measure(self) -> None:
        self.console.jobs.start(self.console.engine.quality)

    def action_worst(self) -> None:
        report: Any = self._report
        if report is not None:
            self.app.push_screen(ReadingScreen(lambda width: lost_text(report, width)))


def _variant(report: QualityReport, row: int) -> str:
    """Which variant the row at the cursor is about."""
    differences = rows_of(report)
    return differences[row].variant if row < len(differences) else ""
