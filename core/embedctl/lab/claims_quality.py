"""The claims about retrieval quality: the table of MS MARCO, both alike, and what 8-bit products cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from embedctl.lab.claims_evidence import NATIVE, OLLAMA, Evidence
from embedctl.lab.quality import ALL_SETS, verdict_of
from embedctl.records import (
    Claim,
    ClaimVerdict,
    Interval,
    QualityDifference,
    QualityMeasure,
    QualityReport,
    QualityScore,
)

MSMARCO: Final = (
    "embedctl quality --set hub:mteb/msmarco@c5a29a104738b98a9e76336939199e264163d4a0 --split dev"
)
"""All of it: 8.8 million passages. `--documents 100000` makes an easier set of a part of them."""
EIGHT_BIT: Final = "embedctl quality --vary dtype=float16,float8"
_ALIKE: Final = 0.01
"""A score within a hundredth of the claimed one is that score."""
_TABLE: Final[tuple[tuple[QualityMeasure, str, float], ...]] = (
    ("ndcg@10", "NDCG@10", 0.677),
    ("mrr@10", "MRR@10", 0.627),
    ("recall@100", "Recall@100", 0.887),
)
_MOST_LOST: Final = 0.01
"""Relative loss of NDCG@10 that 8-bit products may cost."""


def quality_claims(shown: Evidence) -> Iterator[Claim]:
    """One row a claim."""
    for measure, name, figure in _TABLE:
        yield _of_table(shown, measure, name, figure)
    yield _alike(shown)
    yield _eight_bit(shown)


def _of_table(shown: Evidence, measure: QualityMeasure, name: str, figure: float) -> Claim:
    id_, topic = f"msmarco-{measure.partition('@')[0]}", "retrieval quality"
    text, claimed = f"{name} on MS MARCO is {figure} with both backends", f"{figure}"
    for report, source in shown.qualities():
        rows = [one for one in report.scores if _is_msmarco(one.set) and _plain(report, one.variant)]
        if not rows:
            continue
        values = [(row.variant, _value(row, measure)) for row in rows]
        verdicts = [_within(value, figure) for _, value in values]
        verdict: ClaimVerdict = "holds"
        if "does not hold" in verdicts:
            verdict = "does not hold"
        elif "undecided" in verdicts or {one for one, _ in values} != {NATIVE, OLLAMA}:
            verdict = "undecided"
        note = next((one.note for one in report.sets if one.name == rows[0].set and one.note), "")
        why = f"within {_ALIKE} of it for both; {rows[0].set}, {rows[0].queries:,} queries"
        return Claim(
            id_, topic, text, claimed, ", ".join(f"{one} {value.estimate:.3f}" for one, value in values),
            values[0][1] if len(values) == 1 else None, verdict, f"{why}; {note}" if note else why,
            (source,), MSMARCO if verdict == "undecided" or note else "",
        )  # fmt: skip
    return Claim(id_, topic, text, claimed, "", None, "not measured", "not measured yet", (), MSMARCO)


def _alike(shown: Evidence) -> Claim:
    id_, topic = "quality-alike", "retrieval quality"
    text, claimed = "both backends retrieve equally well", "no difference"
    verdicts: dict[str, ClaimVerdict] = {
        "no difference that matters": "holds",
        "better": "does not hold",
        "worse": "does not hold",
    }
    for report, source in shown.qualities():
        found = next(
            (
                one
                for one in report.differences
                if {one.baseline, one.variant} == {NATIVE, OLLAMA} and _deciding(report, one)
            ),
            None,
        )
        if found is not None:
            return Claim(
                id_, topic, text, claimed,
                f"{found.variant} {found.change.estimate:+.4f} NDCG@10 against {found.baseline}",
                found.change,
                verdicts.get(verdict_of(found.change, _ALIKE), "undecided"),
                f"paired by query, a difference of up to {_ALIKE:g} does not matter; {found.set}",
                (source,),
            )  # fmt: skip
    return Claim(
        id_, topic, text, claimed, "", None, "not measured", "not measured yet", (), "embedctl quality"
    )


def _eight_bit(shown: Evidence) -> Claim:
    id_, topic = "eight-bit", "precision"
    text, claimed = "8-bit products cost under 1 % of NDCG", "under 1 %"
    computed_otherwise = ""
    for report, source in shown.qualities():
        eight = {one.name: one for one in report.variants if one.changes.get("dtype") == "float8"}
        if not eight or report.variants[0].name in eight:
            continue
        variant = next(iter(eight.values()))
        if variant.notes:
            computed_otherwise = variant.notes[0]
            continue
        found = next(
            one for one in report.differences if one.variant == variant.name and _deciding(report, one)
        )
        base = [one for one in report.scores if one.variant == found.baseline]
        mean = sum(one.ndcg.estimate * one.queries for one in base) / sum(one.queries for one in base)
        relative = _scaled(found.change, 1 / max(1e-9, mean))  # both over all queries alike
        return Claim(
            id_, topic, text, claimed, f"{relative.estimate:+.2%} of NDCG@10", relative,
            _loss_under(relative), f"{variant.name} against {found.baseline}, paired by query; {found.set}",
            (source,),
        )  # fmt: skip
    why = computed_otherwise or "not measured yet"
    return Claim(id_, topic, text, claimed, "", None, "not measured", why, (), EIGHT_BIT)


def _is_msmarco(name: str) -> bool:
    """The set itself; those made of a few dozen of its queries are others."""
    return "msmarco" in name.lower() and "nano" not in name.lower()


def _plain(report: QualityReport, variant: str) -> bool:
    return any(one.name == variant and not one.changes for one in report.variants)


def _deciding(report: QualityReport, one: QualityDifference) -> bool:
    scope = ALL_SETS if len(report.sets) > 1 else report.sets[0].name
    return one.measure == "ndcg@10" and one.set == scope


def _value(row: QualityScore, measure: QualityMeasure) -> Interval:
    return {"ndcg@10": row.ndcg, "mrr@10": row.mrr, "recall@100": row.recall}[measure]


def _within(value: Interval, figure: float) -> ClaimVerdict:
    if value.low is None or value.high is None:
        return "undecided"
    if value.high < figure - _ALIKE or value.low > figure + _ALIKE:
        return "does not hold"
    return "holds" if figure - _ALIKE <= value.low and value.high <= figure + _ALIKE else "undecided"


def _loss_under(relative: Interval) -> ClaimVerdict:
    if relative.low is None or relative.high is None:
        return "undecided"
    if relative.low > -_MOST_LOST:
        return "holds"
    return "does not hold" if relative.high < -_MOST_LOST else "undecided"


def _scaled(interval: Interval, by: float) -> Interval:
    low, high = interval.low, interval.high
    return Interval(
        interval.estimate * by,
        None if low is None else low * by,
        None if high is None else high * by,
        interval.level,
    )
