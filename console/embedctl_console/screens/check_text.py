"""What the Check screen says: the answer, the findings with their thresholds, the evidence. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from textual.content import Content

from embedctl.format import ABSENT, format_count, format_duration, format_moment
from embedctl.records import CheckReport, CheckRow, LengthLimit, Outcome, Study, Threshold
from embedctl_console.widgets.distribution import Readings, fine_label, histogram
from embedctl_console.widgets.standing import VERDICT_SIGNS
from embedctl_console.widgets.text import hanging, joined

if TYPE_CHECKING:
    from embedctl.records import Retrieval

OUTCOME_SIGNS: Final[Mapping[Outcome, tuple[str, str]]] = {
    Outcome.OK: ("✓", "$text-success"),
    Outcome.LIMIT: ("!", "$text-warning"),
    Outcome.BAD: ("✗", "$text-error"),
    Outcome.UNKNOWN: ("?", "$text-warning"),
}
"""By outcome: a sign and its colour. The word always stands beside them."""

_ORDER: Final = (Outcome.BAD, Outcome.LIMIT, Outcome.UNKNOWN, Outcome.OK)

_JUDGED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "parity": ("least cosine", "1st percentile"),
    "lengths": ("cosine at a length",),
    "neighbours": ("neighbour overlap",),
    "cross-index": ("NDCG",),
    "requests": ("cosine alone",),
    "vectors": ("norm",),
}
"""By look: how the names of the thresholds begin that it is judged by; some have no figure to judge."""
_AT_MOST: Final = "NDCG"
"""How the names of thresholds begin that a figure must stay below."""
_THE_SAME: Final = 0.999999
"""A cosine from which on a text is none to look at."""


def answer_text(study: Study, report: CheckReport, changes: Sequence[str], width: int) -> Content:
    """The verdict with its reasons, when it was given, and whether it still stands."""
    sign, style = VERDICT_SIGNS[report.verdict]
    facts = f"check {study.id} · {format_moment(study.at)[:16]} · took {format_duration(study.seconds)}"
    rows = [
        joined(
            [Content.assemble((f"{sign} {report.verdict.upper()}", f"bold {style}")),
             Content.assemble((facts, "$text-muted"))],
            "   ",
        )
    ]  # fmt: skip
    if report.not_compared:
        rows.append(hanging(Content("  "), report.not_compared, width, "$text-warning"))
    said = [reason for reason in report.reasons if reason != report.not_compared]
    rows += [hanging(Content.assemble(("  - ", "$text-muted")), reason, width) for reason in said[:2]]
    if len(said) > 2:
        rows.append(Content.assemble((f"  and {len(said) - 2} more, in the rows below", "$text-muted")))
    if changes:
        stale = f"stale, for this has changed since: {'; '.join(changes)}"
        rows.append(hanging(Content.assemble(("! ", "$text-warning")), stale, width, "$text-warning"))
    return Content("\n").join(rows)


def thresholds_of(part: str, thresholds: Sequence[Threshold]) -> tuple[Threshold, ...]:
    begins = _JUDGED_BY.get(part, ())
    return tuple(one for begin in begins for one in thresholds if one.name.startswith(begin))


def threshold_words(threshold: Threshold) -> str:
    """`≥ 0.999`, `≤ 0.01` for what is lost, or `1 ± 0.001` for a norm."""
    if threshold.name.startswith("norm"):
        return f"1 ± {threshold.good:g}"
    sign = "≤" if threshold.name.startswith(_AT_MOST) else "≥"
    return f"{sign} {threshold.good:g}"


def columns(width: int) -> tuple[tuple[str, int], ...]:
    """The finding gets what room the others leave; where there is little it tells the threshold, too."""
    fixed = (("verdict", 9), ("look", 11), ("of", 6))
    limit = (("threshold", 9),) if width >= 96 else ()
    room = width - sum(cells + 2 for _, cells in (*fixed, *limit)) - 4
    return (*fixed, ("finding", max(20, room)), *limit)


def shown_rows(report: CheckReport) -> tuple[CheckRow, ...]:
    """The findings, the worst first."""
    return tuple(sorted(report.rows, key=lambda row: _ORDER.index(row.outcome)))


def row_cells(row: CheckRow, report: CheckReport, widths: Sequence[int]) -> tuple[Content, ...]:
    """Verdict, look, of whom, finding (wrapped), threshold."""
    sign, style = OUTCOME_SIGNS[row.outcome]
    who = Content.assemble((row.backend, f"$series-{row.backend}")) if row.backend else Content("both")
    rules = thresholds_of(row.part, report.thresholds)[:1]
    judged = [threshold_words(one) for one in rules]
    said = row.finding
    if len(widths) <= 4 and rules:
        said += f" ({rules[0].name.partition(',')[0]} must be {judged[0]})"
    cells = (
        Content.assemble((f"{sign} {row.outcome.value}", f"bold {style}")),
        Content(row.part),
        who,
        Content("\n".join(textwrap.wrap(said, widths[3]))),
        Content(judged[0] if judged else ""),
    )
    return cells[: len(widths)]


def cosine_picture(report: CheckReport, width: int, height: int, charset: str) -> Content:
    """How the cosines of the same texts' two vectors are spread."""
    if not report.cosines:
        return Content.assemble(("No text has a vector from both backends, so no cosines.", "$text-muted"))
    values = np.array(report.cosines)
    low, high = float(values.min()), float(values.max())
    if low == high:
        title = f"cosine between the two, {format_count(len(values))} texts: all {low:.8f}"
        return Content.assemble((title, "bold"))
    label = fine_label(low, high)
    title = (
        f"cosine between the two, {format_count(len(values))} texts: "
        f"least {label(low)}, median {label(float(np.median(values)))}"
    )
    bars = histogram(
        Readings("cosine", "$series-3", values),
        min(width, 110),
        height,
        label,
        charset=charset,
        ends=(low, high),
    )
    return Content.assemble((title, "bold"), "\n", bars)


def worst_text(report: CheckReport, width: int) -> Content:
    """The texts with the lowest cosines, each in full as it was kept."""
    rows = [Content.assemble(("The texts with the lowest cosines", "bold"))]
    if not report.worst:
        return Content("\n").join([*rows, Content("No text has a vector from both backends.")])
    for worst in report.worst:
        tokens = f"{format_count(worst.tokens)} tokens" if worst.tokens is not None else ""
        head = joined([Content(worst.group), Content(tokens)])
        style = "bold" if worst.cosine < _THE_SAME else "$text-muted"
        rows += [
            Content(""),
            Content.assemble((f"{worst.cosine:.6f}  ", style), (head.plain, "$text-muted")),
            hanging(Content("  "), " ".join(worst.text.split()), width),
        ]
    return Content("\n").join(rows)


def evidence_text(study: Study, report: CheckReport, row: CheckRow, width: int, charset: str) -> Content:
    """What one finding rests on."""
    sign, style = OUTCOME_SIGNS[row.outcome]
    who = row.backend or "both"
    rows = [
        Content.assemble(
            (f"{sign} {row.outcome.value}", f"bold {style}"), f"  {row.part} · {who} · check {study.id}"
        ),
        hanging(Content("  "), row.finding, width),
    ]
    for one in thresholds_of(row.part, report.thresholds):
        bad = f", bad from {one.bad:g}" if one.bad != one.good else ""
        said = f"{one.name} {threshold_words(one)}{bad}: {one.why}"
        rows.append(hanging(Content.assemble(("  judged by ", "$text-muted")), said, width))
    body: list[Content] = []
    if row.part == "parity":
        picture = cosine_picture(report, width, 8, charset)
        body = [*_parity(report), Content(""), picture, Content(""), worst_text(report, width)]
    elif row.part == "limit":
        body = [line for limit in report.limits for line in _limit(limit)]
    elif row.part == "lengths":
        body = _lengths(report)
    elif row.part in ("neighbours", "cross-index"):
        body = _retrieval(report)
    rows += [Content(""), *body] if body else []
    settings = ", ".join(f"{name} {value}" for name, value in report.settings.items())
    rows += [
        Content(""),
        hanging(Content.assemble(("texts     ", "$text-muted")), report.texts, width),
        hanging(Content.assemble(("settings  ", "$text-muted")), settings or ABSENT, width),
    ]
    return Content("\n").join(rows)


def _parity(report: CheckReport) -> list[Content]:
    head = f"{'texts of':<18}{'texts':>8}{'least':>11}{'1st pct':>11}{'median':>11}"
    return [
        _muted(head),
        *(
            Content(
                f"{group.name:<18}{group.texts:>8,}"
                f"{_cosine(group.least):>11}{_cosine(group.low):>11}{_cosine(group.median):>11}"
            )
            for group in report.parity
        ),
    ]


def _limit(limit: LengthLimit) -> list[Content]:
    read = (
        ABSENT if limit.effective is None else f"{'at least ' if limit.at_least else ''}{limit.effective:,}"
    )
    over = "refused" if limit.refuses else "cut and said so" if limit.told else "cut in silence"
    if limit.told is None and not limit.refuses:
        over = "nothing was cut"
    facts = (
        ("claims", f"{format_count(limit.claimed)} {limit.unit}"),
        ("reads", f"{read} {limit.unit}"),
        ("longer texts", over),
        ("counted", f"{format_count(limit.reported)} tokens for a text over the limit"),
        ("found with", f"{limit.probes} lengths tried"),
        *((("why", limit.why),) if limit.why else ()),
    )
    return [
        Content.assemble((limit.backend, f"bold $series-{limit.backend}")),
        *(Content.assemble((f"  {name:<14}", "$text-muted"), value) for name, value in facts),
    ]


def _lengths(report: CheckReport) -> list[Content]:
    return [
        _muted(f"{'tokens':>8}{'cosine':>11}"),
        *(Content(f"{one.length:>8,}{one.cosine:>11.6f}") for one in report.lengths),
    ]


def _retrieval(report: CheckReport) -> list[Content]:
    shared = ABSENT if report.overlap is None else f"{report.overlap:.1%}"
    head = f"{'documents':<11}{'queries':<11}{'NDCG@10':>9}{'against alone':>15}{'95 % interval':>22}"
    return [
        Content(f"share of the ten nearest passages in common: {shared}"),
        Content(""),
        _muted(head),
        *(_searched(one) for one in report.retrieval),
    ]


def _searched(one: Retrieval) -> Content:
    change = f"{one.difference:+.4f}" if one.difference is not None else "—"
    span = f"{one.low:+.4f} to {one.high:+.4f}" if one.low is not None and one.high is not None else "—"
    return Content.assemble(
        (f"{one.documents:<11}", f"$series-{one.documents}"),
        (f"{one.queries:<11}", f"$series-{one.queries}"),
        f"{one.ndcg:>9.4f}{change:>15}{span:>22}",
    )


def _cosine(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.6f}"


def _muted(text: str) -> Content:
    return Content.assemble((text, "$text-muted"))
