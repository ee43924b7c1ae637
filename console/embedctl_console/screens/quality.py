"""The Quality screen: what a change of backend, precision or length limit costs in search quality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

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
from embedctl_console.widgets.bottom import job_text

if TYPE_CHECKING:
    from embedctl.records import JobUpdate, Study
    from embedctl.records.quality import QualityReport


class QualityScreen(StudiesScreen):
    """Stored studies of search quality; the command line makes them."""

    WHERE = "quality"
    KIND = "quality"
    JOBS = ("quality",)
    TELLS = ("quality",)
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("quality")]

    def read(self, study: Study) -> QualityReport:
        from embedctl.records.quality import QualityReport
        from embedctl.study_data import report_of

        return report_of(QualityReport, study)

    def empty_text(self) -> Content:
        return Content.assemble(
            "No search quality was measured yet.\n\n",
            ("embedctl quality", "bold"),
            " searches sets with known answers and compares backends, precisions or length limits, "
            "query by query: NDCG@10, MRR@10 and Recall@100 with intervals. Its studies appear here.",
        )

    def answer_text(self, study: Study, report: QualityReport, width: int) -> Content:
        return answer_text(study, report, width)

    def running_text(self, job: JobUpdate) -> Content:
        return job_text(job, self.console.engine.settings.console.charset)

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

    def action_worst(self) -> None:
        report: Any = self._report
        if report is not None:
            self.app.push_screen(ReadingScreen(lambda width: lost_text(report, width)))


def _variant(report: QualityReport, row: int) -> str:
    """Which variant the row at the cursor is about."""
    differences = rows_of(report)
    return differences[row].variant if row < len(differences) else ""
