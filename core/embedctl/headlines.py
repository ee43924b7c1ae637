"""A run in one line, the same wherever runs are listed. Pure."""

from __future__ import annotations

import math
from typing import Final

from embedctl.records import Comparison, Run, RunSummary
from embedctl.verdicts import JUDGED_BY, times_as_long

_MOST_TIMES: Final = 100


def summarize(run: Run) -> RunSummary:
    """The run as lists show it."""
    return RunSummary(
        run.id, run.at, run.preset, run.title, run.backends, run.state, run.seconds, headline(run)
    )


def headline(run: Run) -> str:
    """The run in one line: its first ratio, else the median of the first row after the cold start."""
    if run.comparisons:
        return describe(run.comparisons[0])
    for row in run.measurements:
        if row.kind != "cold start" and row.p50_ms is not None:
            return f"{row.shape}: {row.backend} p50 {row.p50_ms:.1f} ms"
        if (found := row.figure("ndcg")) is not None and found.value is not None:
            return f"{row.shape}: {row.backend} NDCG@10 {found.value:.3f}"
    return "no good request" if run.measurements else "nothing measured"


def describe(comparison: Comparison) -> str:
    """`one text: native 3.1× as fast as ollama (2.9–3.3), faster`."""
    ratio = comparison.ratio
    span = (
        f" ({_short(ratio.low)}–{_short(ratio.high)})"
        if ratio.low is not None and ratio.high is not None
        else ""
    )
    times = times_as(comparison, _short(ratio.estimate))
    return f"{comparison.shape}: {times}{span}, {comparison.verdict}"


def times_as(comparison: Comparison, ratio: str) -> str:
    """`native 3.1× as fast as ollama`, with `ratio` as it is to be written; under Poisson load by what."""
    baseline = comparison.baseline
    if comparison.metric == "goodput":
        return f"{comparison.candidate} {ratio}× the goodput of {baseline}"
    by = " by p95" if comparison.metric == "p95" else ""
    return f"{comparison.candidate} {ratio}× as fast as {baseline}{by}"


def told_verdict(comparison: Comparison) -> str:
    """The verdict; of one that is undecided also how much longer it would take: `undecided (≈9× as long)`."""
    longer = times_as_long(comparison.ratio) if comparison.verdict == "undecided" else None
    if longer is None:
        return comparison.verdict
    times = f"≈{max(2, math.ceil(longer))}" if longer <= _MOST_TIMES else f">{_MOST_TIMES}"
    return f"undecided ({times}× as long)"


def judged_by(run: Run) -> tuple[str, ...]:
    """What stands below a run's verdicts."""
    told = any("as long" in told_verdict(one) for one in run.comparisons)
    return (JUDGED_BY, *(("in brackets: how much longer it would take to decide, about",) if told else ()))


def _short(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 99.5 else f"{ratio:,.0f}"  # never 1.2e+02
