"""Is it safe to switch, how does each backend do, what has the trial shown: in a few words each. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from textual.content import Content

from embedctl.format import ABSENT, format_ago, format_count
from embedctl.records import Condition
from embedctl_console.widgets.text import spread

if TYPE_CHECKING:
    from embedctl.records import BackendHealth, StudySummary, TrialReport
    from embedctl_console.state import ConsoleState, Standing

VERDICT_SIGNS: Final[Mapping[str, tuple[str, str]]] = {
    "safe": ("✓", "$text-success"),
    "safe with limits": ("!", "$text-warning"),
    "not safe": ("✗", "$text-error"),
    "undecided": ("?", "$text-warning"),
    "better": ("▲", "$text-success"),
    "worse": ("▼", "$text-error"),
    "no difference that matters": ("=", "$text-success"),
    "measured": ("·", "$text-muted"),
    "fit side by side": ("✓", "$text-success"),
    "disturb each other": ("!", "$text-warning"),
    "do not fit": ("✗", "$text-error"),
}
"""By a study's verdict: a sign and its colour. The word always stands beside them."""

_ANSWERS: Final = {"safe": "yes", "safe with limits": "with limits", "not safe": "no"}

_ABOUT: Final = {"quality": "quality", "coexist": "beside a language model"}
"""By a study's kind: what its verdict is about."""

_CONDITION_SIGNS: Final[Mapping[Condition, tuple[str, str]]] = {
    Condition.HEALTHY: ("✓", "$text-success"),
    Condition.SLOW: ("!", "$text-warning"),
    Condition.THROTTLED: ("!", "$text-warning"),
    Condition.CPU_FALLBACK: ("!", "$text-error"),
    Condition.HUNG: ("✗", "$text-error"),
    Condition.DOWN: ("✗", "$text-error"),
}
"""Idle and unknown say nothing beside the backend's state."""


def does_badly(health: BackendHealth | None) -> bool:
    return (
        health is not None and health.condition in _CONDITION_SIGNS and health.condition != Condition.HEALTHY
    )


def health_words(health: BackendHealth | None) -> Content:
    """`✓ healthy`; empty where there is nothing to say beyond the backend's state."""
    if health is None or health.condition not in _CONDITION_SIGNS:
        return Content("")
    sign, style = _CONDITION_SIGNS[health.condition]
    return Content.assemble((f"{sign} {health.condition.value}", style))


def verdict_words(standing: Standing | None, key: str, now: float) -> Content:
    """`✓ safe to switch: yes, 2 d ago`, with what has changed since; `key` leads to the check."""
    if standing is None:
        return Content("")
    if standing.check is None:
        return Content.assemble(
            ("? safe to switch: not checked yet · press ", "$text-muted"),
            (key, "bold $footer-key-foreground"),
        )
    verdict = standing.check.verdict
    sign, style = VERDICT_SIGNS.get(verdict, ("?", "$text-muted"))
    answer = Content.assemble(
        (f"{sign} safe to switch: {_ANSWERS.get(verdict, verdict)}", f"bold {style}"),
        f", {format_ago(standing.check.at, now)}",
    )
    if not standing.changes:
        return answer
    more = f" (and {len(standing.changes) - 1} more)" if len(standing.changes) > 1 else ""
    return Content.assemble(answer, (f" · stale: {standing.changes[0]}{more}", "$text-warning"))


def study_words(study: StudySummary, now: float) -> Content:
    """`= quality: no difference that matters, 3 d ago`."""
    sign, style = VERDICT_SIGNS.get(study.verdict, ("?", "$text-muted"))
    answer = (f"{sign} {_ABOUT.get(study.kind, study.kind)}: {study.verdict}", style)
    return Content.assemble(answer, f", {format_ago(study.at, now)}")


def trial_words(report: TrialReport, width: int) -> Content:
    """A running trial, in the longest form that fits: how much the candidate sees, and what came of it."""
    trial = report.trial
    seen = [
        f"{what} {share * 100:.3g}%"
        for what, share in (("shadow", trial.shadow), ("share", trial.share))
        if share
    ]
    if report.rolled_back:
        seen.append("rolled back")
    compared, dropped = format_count(report.compared), f"{format_count(report.dropped)} dropped"
    failed = f"{format_count(report.failed)} failed"
    some_failed = [failed] if report.failed else []
    forms = (
        (" · ", [f"least cosine {_cosine(report, 5)} in {compared} texts", dropped, failed], " · "),
        (" · ", [f"least {_cosine(report, 5)} of {compared}", dropped, *some_failed], " · "),
        (": ", [f"least {_cosine(report, 4)} of {compared}", dropped, *some_failed], ", "),
    )
    words = [
        Content.assemble(
            ("trial ", "bold $text-accent"),
            (trial.candidate, f"bold $series-{trial.candidate}"),
            f" {' '.join(seen)}{colon}{comma.join(facts)}",
        )
        for colon, facts, comma in forms
    ]
    return next((form for form in words if form.cell_length <= width), words[-1])


def _cosine(report: TrialReport, digits: int) -> str:
    return ABSENT if report.least_cosine is None else f"{report.least_cosine:.{digits}f}"


def standing_line(state: ConsoleState, width: int, now: float) -> Content:
    """The running trial and the verdicts on one line; a trial leaves the check what room there is."""
    verdict = verdict_words(state.standing, state.key("everywhere.show-check"), now)
    if state.trial is None:
        line = verdict.truncate(width, ellipsis=True)
        for study in state.standing.others if state.standing is not None else ():
            longer = Content("   ").join([line, study_words(study, now)])
            line = longer if longer.cell_length <= width else line
        return line
    trial = trial_words(state.trial, width)
    check = state.standing.check if state.standing is not None else None
    sign, style = VERDICT_SIGNS.get(check.verdict, ("?", "$text-muted")) if check else ("", "")
    short = Content.assemble((f"{sign} {check.verdict}" if check else "", f"bold {style}"))
    room = width - trial.cell_length - 2
    chosen = next((words for words in (verdict, short) if words.cell_length <= room), Content(""))
    return spread(trial, chosen, width)
