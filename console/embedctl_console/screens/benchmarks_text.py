"""What the Benchmarks screens say: a run, and two runs side by side, as aligned lines. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from textual.content import Content

from embedctl_console.format import ABSENT, format_bytes, format_duration, format_moment, format_number

if TYPE_CHECKING:
    from embedctl.records import (
        Comparison,
        Fingerprint,
        Measurement,
        Run,
        RunComparison,
        RunDelta,
        RunSummary,
    )

_KEY: Final = "bold $footer-key-foreground"
_VERDICTS: Final = {
    "faster": ("▲", "$text-success"),
    "slower": ("▼", "$text-error"),
    "no difference that matters": ("=", "$text-muted"),
    "undecided": ("?", "$text-warning"),
}


def list_text(runs: Sequence[RunSummary], marked: Sequence[int], *, measuring: bool) -> Content:
    """The line above the list; all there is while the list is empty."""
    if measuring:
        return Content("A benchmark runs; its run appears here when it is done.")
    if not runs:
        return Content.assemble(
            "No run is stored yet.\n\n",
            ("b", _KEY),
            " measures both backends: one text, batches of 16 to 128, with warm-up and interleaved,\n"
            "and keeps every latency together with what it depends on.",
        )
    if len(marked) == 2:
        a, b = sorted(marked)
        return Content.assemble(f"Runs {a} and {b} are marked: ", ("c", _KEY), " lays them side by side.")
    if marked:
        return Content(f"Run {marked[0]} is marked; mark one more to compare.")
    return Content(f"{len(runs)} runs" if len(runs) > 1 else "1 run")


def run_cells(run: RunSummary, *, marked: bool) -> tuple[Content, ...]:
    """One line of the list: mark, number, when, backends, duration, result."""
    result = run.headline if run.state == "done" else f"{run.state}: {run.headline}"
    return (
        Content.assemble(("◆" if marked else " ", "bold $accent")),
        Content(f"{run.id:>4}"),
        Content(format_moment(run.at)[:16]),
        Content(" ".join(run.backends)),
        Content(format_duration(run.seconds)),
        Content(f"{run.title}: {result}" if run.title else result),
    )


def run_text(run: Run) -> Content:
    """A run in full: every row, the ratios with their verdicts, what it depends on."""
    title = f" · {run.title}" if run.title else ""
    rows = [
        Content.assemble(
            (f"Run {run.id}", "bold"),
            f"{title} · {run.preset} · {format_moment(run.at)} · {format_duration(run.seconds)} · {run.state}",
        ),
        _muted(
            f"{'shape':<13}{'backend':<8}{'p50 ms':>9}{'p95 ms':>10}{'texts/s':>10}{'tokens/s':>10}"
            f"{'peak':>11}{'errors':>8}"
        ),
    ]
    rows += [_measurement(measurement) for measurement in run.measurements]
    if any(measurement.p95_note for measurement in run.measurements):
        notes = sorted({measurement.p95_note for measurement in run.measurements if measurement.p95_note})
        rows.append(_muted(f"* p95: {', '.join(notes)}"))
    if run.comparisons:
        rows += [Content(""), *(_comparison(comparison) for comparison in run.comparisons)]
    rows += [Content(""), Content.assemble(("workload  ", "$text-muted"), run.workload)]
    rows += [_fingerprint(fingerprint) for fingerprint in run.fingerprints]
    rows += [Content.assemble(("note      ", "$text-muted"), note) for note in run.notes]
    return Content("\n").join(rows)


def _measurement(row: Measurement) -> Content:
    p95 = format_number(row.p95_ms) + ("*" if row.p95_note else " ")
    return Content.assemble(
        f"{row.shape:<13}",
        (f"{row.backend:<8}", f"$series-{row.backend}"),
        f"{format_number(row.p50_ms):>9}{p95:>10}{format_number(row.texts_per_s):>10}"
        f"{format_number(row.tokens_per_s):>10}{format_bytes(row.peak_bytes):>11}",
        (f"{row.errors:>8}", "bold $text-error" if row.errors else "$text-muted"),
    )


def _comparison(row: Comparison) -> Content:
    ratio = row.ratio
    interval = "no interval"
    if ratio.low is not None and ratio.high is not None:
        interval = f"{ratio.low:.2f}–{ratio.high:.2f}, {ratio.level:.0%}"
    sign, style = _VERDICTS[row.verdict]
    return Content.assemble(
        f"{row.shape:<13}",
        f"{row.candidate} {ratio.estimate:.2f}× of {row.baseline} by {row.metric} ({interval})  ",
        (f"{sign} {row.verdict}", f"bold {style}"),
    )


def _fingerprint(fingerprint: Fingerprint) -> Content:
    revision = (fingerprint.revision or "")[:7]
    parts = (
        fingerprint.backend_version,
        fingerprint.model + (f"@{revision}" if revision else ""),
        fingerprint.dtype,
        fingerprint.attention,
        fingerprint.device,
        f"torch {fingerprint.torch}" if fingerprint.torch else None,
        f"driver {fingerprint.driver}" if fingerprint.driver else None,
        fingerprint.machine,
    )
    words = " · ".join(part for part in parts if part)
    return Content.assemble((f"{fingerprint.backend:<10}", f"$series-{fingerprint.backend}"), words)


def comparison_text(both: RunComparison) -> Content:
    """Two runs side by side; B over A, below 1 is faster for latency."""
    rows = [
        Content.assemble(("A ", "bold"), _heading(both.a)),
        Content.assemble(("B ", "bold"), _heading(both.b)),
        Content(""),
        _muted(f"{'':<21}{'p50 ms':^27}{'texts/s':^27}"),
        _muted(
            f"{'shape':<13}{'backend':<8}{'A':>9}{'B':>9}{'B/A':>9}{'A':>9}{'B':>9}{'B/A':>9}"
            f"{'peak A':>11}{'peak B':>11}"
        ),
    ]
    rows += [_delta(row) for row in both.rows]
    rows.append(Content(""))
    if both.differences:
        rows.append(Content.assemble(("They differ in more than time:", "bold $text-warning")))
        rows += [Content.assemble(("! ", "$text-warning"), difference) for difference in both.differences]
    else:
        rows.append(Content.assemble(("✓ ", "$text-success"), "Nothing that a figure depends on differs."))
    return Content("\n").join(rows)


def _heading(run: RunSummary) -> str:
    title = f" · {run.title}" if run.title else ""
    return f"run {run.id}{title} · {run.preset} · {format_moment(run.at)} · {run.headline}"


def _delta(row: RunDelta) -> Content:
    return Content.assemble(
        f"{row.shape:<13}",
        (f"{row.backend:<8}", f"$series-{row.backend}"),
        f"{format_number(row.a_p50_ms):>9}{format_number(row.b_p50_ms):>9}",
        _ratio(row.p50_ratio, better_below=True),
        f"{format_number(row.a_texts_per_s):>9}{format_number(row.b_texts_per_s):>9}",
        _ratio(row.texts_per_s_ratio, better_below=False),
        f"{format_bytes(row.a_peak_bytes):>11}{format_bytes(row.b_peak_bytes):>11}",
    )


def _ratio(ratio: float | None, *, better_below: bool) -> Content:
    if ratio is None:
        return Content(f"{ABSENT:>9}")
    if abs(ratio - 1) < 0.05:
        return _muted(f"{ratio:>8.2f}=")
    better = (ratio < 1) == better_below
    return Content.assemble(
        (f"{ratio:>8.2f}{'▲' if better else '▼'}", "$text-success" if better else "$text-error")
    )


def _muted(text: str) -> Content:
    return Content.assemble((text, "$text-muted"))
