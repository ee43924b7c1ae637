"""A check in words and tables, for a terminal of 80 columns and more."""

from __future__ import annotations

import shutil
import textwrap
import unicodedata
from typing import Final

from embedctl.cli.output import emit, emit_table
from embedctl.format import ABSENT, format_count, format_duration, format_moment
from embedctl.records import CheckReport, CheckRow, Outcome, ParityGroup, Study

_WORDS: Final = {Outcome.OK: "ok", Outcome.LIMIT: "LIMIT", Outcome.BAD: "BAD", Outcome.UNKNOWN: "?"}
_INDENT: Final = 21
_WIDEST: Final = 110
_WORST: Final = 3
_THE_SAME: Final = 0.999999
"""A cosine from which on a text is none to look at."""


def show_check(study: Study, report: CheckReport) -> None:
    """Write the answer first, then what it rests on."""
    width = min(_WIDEST, shutil.get_terminal_size((80, 24)).columns)
    emit(f"{report.verdict.upper()}: switching between native and ollama" if not report.not_compared else
         f"{report.verdict.upper()}: only {' and '.join(report.backends)} was checked")  # fmt: skip
    for reason in report.reasons:
        emit(textwrap.fill(reason, width, initial_indent="  - ", subsequent_indent="    "))
    emit("")
    for name in (*report.backends, None):
        for row in report.rows:
            if row.backend == name:
                _show_row(row, width)
    if report.parity:
        emit("")
        _show_parity(report.parity)
    if worst_texts := [one for one in report.worst[:_WORST] if one.cosine < _THE_SAME]:
        emit("")
        emit("lowest cosines")
        for worst in worst_texts:
            tokens = f"{format_count(worst.tokens)} tokens" if worst.tokens is not None else ""
            head = f"  {worst.cosine:.6f}  {worst.group}  {tokens}  "
            emit(head + _cut(" ".join(worst.text.split()), width - len(head)))
    emit("")
    took = (
        f"check {study.id}, {format_moment(study.at)}, took {format_duration(study.seconds)}; {report.texts}"
    )
    emit(textwrap.fill(took, width))
    emit(textwrap.fill(f"judged by: {_thresholds(report)}", width, subsequent_indent="  "))


def _show_row(row: CheckRow, width: int) -> None:
    head = f"{_WORDS[row.outcome]:<7}{row.part:<12}"
    who = f"{row.backend or 'both'}: "
    said = row.finding if row.backend and row.backend in row.finding else who + row.finding
    emit(textwrap.fill(head + "  " + said, width, subsequent_indent=" " * _INDENT))


def _show_parity(groups: tuple[ParityGroup, ...]) -> None:
    emit_table(
        ("cosine between the two", "texts", "least", "1st percentile", "median"),
        [
            (
                group.name,
                format_count(group.texts),
                _cosine(group.least),
                _cosine(group.low),
                _cosine(group.median),
            )
            for group in groups
        ],
        right=frozenset({"texts", "least", "1st percentile", "median"}),
    )


def _thresholds(report: CheckReport) -> str:
    return "; ".join(
        f"{one.name} {one.good:g}" + (f" (not safe from {one.bad:g})" if one.bad != one.good else "")
        for one in report.thresholds
    )


def _cosine(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.6f}"


def _cut(text: str, width: int) -> str:
    """The text's beginning in so many columns; ideographs take two, marks that stand on others none."""
    used, kept = 0, 0
    for place, character in enumerate(text):
        if not unicodedata.combining(character):
            used += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used < width:
            kept = place + 1  # one column is left for the ellipsis
        if used > width:
            return text[:kept].rstrip() + "…"
    return text
