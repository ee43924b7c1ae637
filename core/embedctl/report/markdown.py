"""The claims as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from embedctl.format import format_moment
from embedctl.records import ClaimsReport
from embedctl.report.words import READING, SIMULATED, TITLE, basis, counts, interval_of


def claims_markdown(report: ClaimsReport) -> str:
    """The whole report; ends with a line break."""
    lines = [
        f"# {TITLE}",
        "",
        f"{format_moment(report.at)}; {report.machine or 'nothing was measured yet'}",
        "",
    ]
    if report.simulated:
        lines += [f"**{SIMULATED}**", ""]
    lines += [f"- {note}" for note in report.notes]
    lines += ["", f"**{counts(report)}.** {READING}", ""] if report.notes else [
        f"**{counts(report)}.** {READING}", ""
    ]  # fmt: skip
    lines += claims_table(report)
    lines += missing_list(report)
    if report.sources:
        lines += ["", "## Sources", "", *(f"- {name}: {cell(what)}" for name, what in report.sources.items())]
    return "\n".join(lines) + "\n"


def claims_table(report: ClaimsReport) -> list[str]:
    """One row a claim."""
    rows = [
        (
            one.claim,
            one.claimed,
            one.measured or "n/a",
            interval_of(one),
            f"**{one.verdict}**",
            basis(one),
        )
        for one in report.claims
    ]
    return table(("claim", "claimed", "measured", "95 % interval", "verdict", "rests on"), rows)


def missing_list(report: ClaimsReport) -> list[str]:
    """The commands that would measure what is missing or undecided."""
    asked: dict[str, list[str]] = {}
    for one in report.claims:
        if one.ask:
            asked.setdefault(one.ask, []).append(one.id)
    if not asked:
        return []
    return ["", "## To measure next", "", *(f"- `{ask}` ({', '.join(ids)})" for ask, ids in asked.items())]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; what would break a cell is escaped."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(map(cell, row))} |" for row in rows)]


def cell(text: str) -> str:
    """A text that stays within its cell, and is no markup of its own."""
    line = " ".join(text.split())
    return line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
