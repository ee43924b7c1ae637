"""What the Benchmarks screens say: a run, and two runs side by side, as aligned lines. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from textual.content import Content

from embedctl.format import ABSENT, format_bytes, format_duration, format_moment, format_number
from embedctl.headlines import judged_by, told_verdict
from embedctl.run_tables import Table, changes, changes_notes, tables
from embedctl_console.actions import NO_KEYMAP, key_of

if TYPE_CHECKING:
    from embedctl.records import (
        Comparison,
        Fingerprint,
        Run,
        RunComparison,
        RunDelta,
        RunSummary,
    )
    from embedctl_console.actions import Keymap

_KEY: Final = "bold $footer-key-foreground"
_VERDICTS: Final = {
    "faster": ("▲", "$text-success"),
    "slower": ("▼", "$text-error"),
    "no difference that matters": ("=", "$text-muted"),
    "undecided": ("?", "$text-warning"),
}


_CHANGES: Final = {
    "better": ("▲", "$text-success"),
    "worse": ("▼", "$text-error"),
    "no difference that matters": ("=", "$text-muted"),
}


def list_text(
    runs: Sequence[RunSummary], marked: Sequence[int], *, measuring: bool, keymap: Keymap = NO_KEYMAP
) -> Content:
    """The line above the list; all there is while the list is empty."""
    if measuring:
        return Content("A benchmark runs; its run appears here when it is done.")
    if not runs:
        return Content.assemble(
            "No run is stored yet.\n\n",
            (key_of("everywhere.benchmark", keymap), _KEY),
            " measures both backends: one text, batches of 16 to 128, with warm-up and interleaved, "
            "and keeps every latency together with what it depends on. ",
            (key_of("benchmarks.preset", keymap), _KEY),
            " measures more, and for longer: loads, lengths, energy, a soak.",
        )
    if len(marked) == 2:
        a, b = sorted(marked)
        return Content.assemble(
            f"Runs {a} and {b} are marked: ",
            (key_of("benchmarks.compare", keymap), _KEY),
            " lays them side by side.",
        )
    if marked:
        return Content(f"Run {marked[0]} is marked; mark one more to compare.")
    count = f"{len(runs)} runs" if len(runs) > 1 else "1 run"
    return Content.assemble(
        f"{count} · ",
        (key_of("benchmarks.open", keymap), _KEY),
        " opens one · ",
        (key_of("benchmarks.draw", keymap), _KEY),
        " draws its latencies · ",
        (key_of("benchmarks.mark", keymap), _KEY),
        " marks two to compare",
    )


def run_cells(run: RunSummary, *, marked: bool) -> dict[str, Content]:
    """One line of the list, by column."""
    result = run.headline if run.state == "done" else f"{run.state}: {run.headline}"
    return {
        "mark": Content.assemble(("◆" if marked else " ", "bold $accent")),
        "run": Content(f"{run.id:>4}"),
        "when": Content(format_moment(run.at)[:16]),
        "backends": Content("both" if len(run.backends) == 2 else " ".join(run.backends)),
        "took": Content(format_duration(run.seconds)),
        "result": Content(f"{run.title}: {result}" if run.title else result),
    }


def run_text(run: Run) -> Content:
    """A run in full: every row, the ratios with their verdicts, what it depends on."""
    facts = (run.title, run.preset, format_moment(run.at), format_duration(run.seconds), run.state)
    rows = [
        Content.assemble((f"Run {run.id}", "bold"), " · ", " · ".join(fact for fact in facts if fact)),
    ]
    for number, table in enumerate(tables(run)):
        rows += [*([Content("")] if number else []), *_table(table)]
    if run.comparisons:
        first = run.comparisons[0]
        pair = f"{first.candidate} is as {first.baseline}"
        heading = f"How many times as fast {pair} ({first.ratio.level:.0%} interval)"
        rows += [Content(""), _muted(heading), *(_comparison(comparison) for comparison in run.comparisons)]
        rows += map(_muted, judged_by(run))
    rows += [Content(""), Content.assemble(("workload  ", "$text-muted"), run.workload)]
    rows += [_fingerprint(fingerprint) for fingerprint in run.fingerprints]
    rows += [Content.assemble(("note      ", "$text-muted"), note) for note in run.notes]
    return Content("\n").join(rows)


def _table(table: Table) -> list[Content]:
    """A title, the columns' names, and the rows with backends and errors in their colours."""
    names, *rows = table.lines()
    lines = [Content.assemble((table.title, "bold")), _muted("  ".join(names).rstrip())]
    for row in rows:
        cells: list[Content] = []
        for column, cell in zip(table.columns, row, strict=True):
            style = ""
            if column == "backend":
                style = f"$series-{cell.strip()}"
            elif column == "err":
                style = "$text-muted" if cell.strip() == "0" else "bold $text-error"
            elif column == "verdict" and cell.strip() in ("leak", "worse"):
                style = "bold $text-error"
            cells.append(Content.assemble((cell, style)) if style else Content(cell))
        lines.append(Content("  ").join(cells))
    return [*lines, *(_muted(note) for note in table.notes)]


def _comparison(row: Comparison) -> Content:
    ratio = row.ratio
    interval = "no interval"
    if ratio.low is not None and ratio.high is not None:
        interval = f"{ratio.low:.2f}–{ratio.high:.2f}"
    sign, style = _VERDICTS[row.verdict]
    return Content.assemble(
        f"{row.shape:<13}{ratio.estimate:>6.2f}×  {interval:<14}{row.metric:<12}",
        (f"{sign} {told_verdict(row)}", f"bold {style}"),
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


def comparison_text(both: RunComparison, width: int) -> Content:
    """Two runs side by side, B over A; the peaks of memory only where `width` has room for them."""
    peaks = width >= 96
    head = f"{'shape':<13}{'backend':<7}{'A':>9}{'B':>9}{'B/A':>9}{'A':>9}{'B':>9}{'B/A':>9}"
    rows = [
        Content.assemble(("A ", "bold"), _heading(both.a)),
        Content.assemble(("B ", "bold"), _heading(both.b)),
        Content(""),
        _muted(f"{'':<20}{'p50 ms':>27}{'texts/s':>27}"),
        _muted(head + (f"{'peak A':>11}{'peak B':>11}" if peaks else "")),
    ]
    rows += [_delta(row, both, peaks=peaks) for row in both.rows]
    rows.append(_muted("▲ better, ▼ worse, = no difference that matters; no sign: undecided"))
    if both.figures and not both.conflicts:
        table = changes(both.figures)
        rows += [Content(""), *(_table(table) if table else map(_muted, changes_notes(both.figures)))]
    rows.append(Content(""))
    if both.conflicts:
        rows.append(
            Content.assemble(("They did different work; no change here is a verdict:", "bold $text-error"))
        )
        rows += [Content.assemble(("✗ ", "$text-error"), conflict) for conflict in both.conflicts]
    rows += [Content.assemble(("! ", "$text-warning"), note) for note in both.notes]
    if both.differences:
        rows.append(Content.assemble(("They differ in more than time:", "bold $text-warning")))
        rows += [Content.assemble(("! ", "$text-warning"), difference) for difference in both.differences]
    else:
        rows.append(Content.assemble(("✓ ", "$text-success"), "Nothing that a figure depends on differs."))
    return Content("\n").join(rows)


def _heading(run: RunSummary) -> str:
    title = f" · {run.title}" if run.title else ""
    return f"run {run.id}{title} · {run.preset} · {format_moment(run.at)} · {run.headline}"


def _delta(row: RunDelta, both: RunComparison, *, peaks: bool) -> Content:
    def said(name: str) -> str:
        """What the interval of a figure's change decides; nothing of runs that did different work."""
        found = (one for one in both.figures if (one.backend, one.shape) == (row.backend, row.shape))
        return "" if both.conflicts else next((one.verdict for one in found if one.name == name), "")

    return Content.assemble(
        f"{row.shape:<13}",
        (f"{row.backend:<7}", f"$series-{row.backend}"),
        f"{format_number(row.a_p50_ms):>9}{format_number(row.b_p50_ms):>9}",
        _ratio(row.p50_ratio, said("p50")),
        f"{format_number(row.a_texts_per_s):>9}{format_number(row.b_texts_per_s):>9}",
        _ratio(row.texts_per_s_ratio, said("texts_per_s")),
        f"{format_bytes(row.a_peak_bytes):>11}{format_bytes(row.b_peak_bytes):>11}" if peaks else "",
    )


def _ratio(ratio: float | None, said: str) -> Content:
    """With a sign only where the whole interval is on one side of what matters."""
    if ratio is None:
        return Content(f"{ABSENT:>9}")
    sign, style = _CHANGES.get(said, (" ", ""))
    shown = f"{ratio:>8.2f}{sign}"
    return Content.assemble((shown, style)) if style else Content(shown)


def _muted(text: str) -> Content:
    return Content.assemble((text, "$text-muted"))
