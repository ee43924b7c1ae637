"""What a study holds, as records: its data is kept as JSON and read back as the dataclass of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from embedctl.records import CheckReport, CoexistReport, QualityReport, Study, StudySummary

Report = TypeVar("Report")


def data_of(report: object) -> dict[str, Any]:
    """A report (a dataclass of dataclasses) as plain JSON values: a study's `data`."""
    from pydantic import TypeAdapter

    plain: dict[str, Any] = TypeAdapter(type(report)).dump_python(report, mode="json")
    return plain


def report_of(kind: type[Report], study: Study) -> Report:
    """`data_of` turned round.

    Raises:
        ValueError: The data is not laid out as this kind of report is.
    """
    from pydantic import TypeAdapter

    return TypeAdapter(kind).validate_python(study.data)


def of_both(checks: Sequence[StudySummary]) -> StudySummary | None:
    """The newest check of both backends: one of a single backend says nothing of a switch."""
    return next((one for one in checks if one.state == "done" and len(one.title.split(" and ")) > 1), None)


def check_report(study: Study) -> CheckReport:
    """What a study of kind `check` holds.

    Raises:
        ValueError: It is of another kind.
    """
    return report_of(CheckReport, _of_kind("check", study))


def quality_report(study: Study) -> QualityReport:
    """What a study of kind `quality` holds.

    Raises:
        ValueError: It is of another kind.
    """
    return report_of(QualityReport, _of_kind("quality", study))


def coexist_report(study: Study) -> CoexistReport:
    """What a study of kind `coexist` holds.

    Raises:
        ValueError: It is of another kind.
    """
    return report_of(CoexistReport, _of_kind("coexist", study))


def _of_kind(kind: str, study: Study) -> Study:
    if study.kind != kind:
        raise ValueError(f"study {study.id} is of kind {study.kind}, not {kind}")
    return study
