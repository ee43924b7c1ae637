"""What the Quality screen says: what a change costs in search quality, and which queries pay. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

import numpy as np
from textual.content import Content

from embedctl.format import ABSENT, format_count, format_duration, format_moment
from embedctl.records import Interval, QualityDifference, QualityReport, Study
from embedctl_console.widgets.distribution import Readings, histogram
from embedctl_console.widgets.standing import VERDICT_SIGNS
from embedctl_console.widgets.text import hanging, joined

_MEASURES: Final = {"ndcg@10": "NDCG@10", "mrr@10": "MRR@10", "recall@100": "Recall@100"}
_SETS_NAMED: Final = 3
"""More than so many are counted instead; the rows name them."""


def answer_text(study: Study, report: QualityReport, width: int) -> Content:
    """The verdict with its reasons, what was compared with what, and on which sets."""
    sign, style = VERDICT_SIGNS[report.verdict]
    facts = f"quality {study.id} · {format_moment(study.at)[:16]} · took {format_duration(study.seconds)}"
    head = [
        Content.assemble((f"{sign} {report.verdict.upper()}", f"bold {style}")),
        Content.assemble((facts, "$text-muted")),
    ]
    baseline, *others = [variant.name for variant in report.variants]
    what = f"{', '.join(others)} against {baseline}" if others else f"{baseline} alone"
    said = report.reasons or (study.headline.removeprefix(f"{study.verdict}: "),)
    rows = [joined(head, "   ")]
    rows += [hanging(Content.assemble(("  - ", "$text-muted")), reason, width) for reason in said[:2]]
    searched = ", ".join(f"{one.name} ({one.queries:,} queries)" for one in report.sets)
    if len(report.sets) > _SETS_NAMED:
        searched = f"{len(report.sets)} sets, {sum(one.queries for one in report.sets):,} queries"
    rows.append(hanging(Content("  "), f"{what}, on {searched}", width, "$text-muted"))
    return Content("\n").join(rows)


def columns(report: QualityReport, width: int) -> tuple[tuple[str, int], ...]:
    """The names share what room the figures leave; a variant that all rows are about needs no column.

    On a narrow screen with several variants, the measure stands below the set.
    """
    wide, several = width >= 100, _several(report)
    measure = (("measure", 10),) if wide or not several else ()
    figures = (*measure, ("change", 8), ("95 % interval", 18), ("verdict", 28 if wide else 15))
    names = ("set", "variant") if several else ("set",)
    room = width - sum(cells + 2 for _, cells in figures) - 2 * len(names) - 2
    return (*((name, max(8, min(40, room // len(names)))) for name in names), *figures)


def _several(report: QualityReport) -> bool:
    return len({one.variant for one in report.differences}) > 1


def rows_of(report: QualityReport) -> tuple[QualityDifference, ...]:
    """The differences in the order shown: all sets together first."""
    return tuple(sorted(report.differences, key=lambda one: one.set != "all sets"))


def difference_cells(
    report: QualityReport, row: QualityDifference, widths: Sequence[int]
) -> tuple[Content, ...]:
    """A row in the columns of `columns`; names that are too long are wrapped."""
    sign, style = VERDICT_SIGNS[row.verdict]
    brief = row.verdict == "no difference that matters" and widths[-1] < 28
    measure = _MEASURES[row.measure]
    names = ["\n".join(textwrap.wrap(row.set, widths[0]))]
    if _several(report):
        names.append("\n".join(textwrap.wrap(row.variant, widths[1])))
    if len(widths) == len(names) + 4:
        names.append(measure)
    else:
        names[0] += f"\n{measure}"
    return (
        *(Content(name) for name in names),
        Content(f"{row.change.estimate:>+8.4f}"),
        Content(f"{_span(row.change):>18}"),
        Content.assemble((f"{sign} {'no difference' if brief else row.verdict}", f"bold {style}")),
    )


def score_columns(width: int) -> tuple[tuple[str, int], ...]:
    """For a study without differences: what each variant reached."""
    room = width - 3 * 26 - 4
    return (
        ("set", max(10, room // 2)),
        ("variant", max(10, room - room // 2)),
        *((name, 24) for name in _MEASURES.values()),
    )


def score_cells(report: QualityReport) -> list[tuple[Content, ...]]:
    return [
        (
            Content(score.set),
            Content(score.variant),
            *(Content(_scored(one)) for one in (score.ndcg, score.mrr, score.recall)),
        )
        for score in report.scores
    ]


def changes_picture(report: QualityReport, variant: str, width: int, height: int, charset: str) -> Content:
    """How the change of NDCG@10 is spread over the queries; those without a change are counted apart."""
    values = np.array(report.changes.get(variant, ()))
    if not len(values):
        return Content.assemble(("One variant alone: there are no differences to draw.", "$text-muted"))
    moved = values[values != 0]
    same, worse, better = len(values) - len(moved), int((moved < 0).sum()), int((moved > 0).sum())
    title = (
        f"change of NDCG@10 per query, {variant}: "
        f"{same:,} of {len(values):,} the same, {worse:,} worse, {better:,} better"
    )
    if not len(moved):
        return Content.assemble((title, "bold"))
    reach = float(np.abs(moved).max())
    bars = histogram(
        Readings(variant, "$series-3", moved), min(width, 110), height, lambda value: f"{value:+.2f}",
        charset=charset, ends=(-reach, reach),
    )  # fmt: skip
    return Content.assemble((title, "bold"), "\n", bars)


def lost_text(report: QualityReport, width: int) -> Content:
    """The queries that lost most, greatest loss first."""
    rows = [
        Content.assemble(
            ("Queries that lost most", "bold"), ("  NDCG@10 of the baseline → of the variant", "$text-muted")
        )
    ]
    if not report.lost:
        rows.append(Content("No query lost anything."))
    for lost in report.lost:
        head = f"{lost.baseline_ndcg:.3f} → {lost.variant_ndcg:.3f}  "
        rows += [
            Content(""),
            Content.assemble((head, "bold"), (f"{lost.variant} · {lost.set}", "$text-muted")),
            hanging(Content("  "), " ".join(lost.query.split()), width),
        ]
    return Content("\n").join(rows)


def study_text(study: Study, report: QualityReport, variant: str, width: int, charset: str) -> Content:
    """The whole study: scores with intervals, the distribution, variants, sets, lost queries."""
    names = max((len(variant.name) for variant in report.variants), default=7)
    rows = [answer_text(study, report, width), Content(""), *_scores(report, width)]
    rows += [Content(""), changes_picture(report, variant, width, 8, charset), Content("")]
    rows.append(Content(f"A mean change of up to {report.threshold:g} does not matter."))
    for one in report.variants:
        said = [f"{format_count(one.texts)} texts"]
        said += [f"{format_count(one.failed)} without a vector"] if one.failed else []
        said += [f"{format_count(one.cut)} cut"] if one.cut else []
        rows.append(
            hanging(
                Content.assemble((f"{one.name:<{names}}  ", "bold")), " · ".join([*said, *one.notes]), width
            )
        )
    return Content("\n").join([*rows, Content(""), lost_text(report, width)])


def _scores(report: QualityReport, width: int) -> list[Content]:
    """Each variant on each set, with intervals; where there is little room, with that of NDCG alone."""
    sets = max((len(score.set) for score in report.scores), default=3)
    names = max((7, *(len(variant.name) for variant in report.variants)))
    whole = sets + 2 + names + 3 * 24 <= width
    cells = [24, 24, 24] if whole else [24, 9, 12]
    head = "".join(f"{name:>{room}}" for name, room in zip(_MEASURES.values(), cells, strict=True))
    rows = [_muted(f"{'set':<{sets}}  {'variant':<{names}}{head}")]
    for score in report.scores:
        others = [_scored(one) if whole else f"{one.estimate:.4f}" for one in (score.mrr, score.recall)]
        figures = "".join(
            f"{one:>{room}}" for one, room in zip([_scored(score.ndcg), *others], cells, strict=True)
        )
        rows.append(Content(f"{score.set:<{sets}}  {score.variant:<{names}}{figures}"))
    return rows


def _scored(one: Interval) -> str:
    return f"{one.estimate:.4f} ({_ends(one)})"


def _ends(one: Interval) -> str:
    return ABSENT if one.low is None or one.high is None else f"{one.low:.3f}–{one.high:.3f}"


def _span(one: Interval) -> str:
    return ABSENT if one.low is None or one.high is None else f"{one.low:+.4f} to {one.high:+.4f}"


def _muted(text: str) -> Content:
    return Content.assemble((text, "$text-muted"))
