"""The design document's claims for BGE-M3 on a DGX Spark, against what was measured on this machine.

A claim is a sentence of the document, its figure, and how the figure is read: a speed or a saving holds where
the whole interval is at least as good as claimed, a plain figure where the whole interval lies within
`TOLERANCE` of it. It does not hold where no part of the interval does; in between it is undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

from embedctl.format import format_ms, format_number
from embedctl.lab.claims_charts import charts
from embedctl.lab.claims_evidence import (
    BATCH,
    NATIVE,
    OLLAMA,
    ONE_TEXT,
    Evidence,
    Seen,
    evidence_of,
    rate_of,
    source,
)
from embedctl.lab.claims_quality import quality_claims
from embedctl.lab.coexist import ROUNDS
from embedctl.lab.energy import SWEEP
from embedctl.lab.overhead import OWN_SHARE
from embedctl.lab.statistics import unpaired_ratio
from embedctl.records import Claim, ClaimsReport, ClaimVerdict, Fingerprint, Interval, Run, Study

TOLERANCE: Final = 0.25
"""Of a figure that is claimed to be so and so: within a quarter."""
GB: Final = 1e9
BENCH: Final = "embedctl bench run"
_NEARLY: Final = 0.95
"""Of the best batch size's throughput: a batch size this good is as good."""
_EXACT: Final = 1 - 1e-6
"""A cosine that 32-bit floats cannot tell from 1."""
_FLASH_OFF: Final = frozenset({"efficient", "math", "eager"})


def claims(
    runs: Sequence[Run], studies: Sequence[Study], *, at: float, simulated: bool = False
) -> ClaimsReport:
    """Every claim with its verdict; those without evidence say which command would give it.

    Args:
        runs: In any order; only complete ones count, the newest first.
        studies: The same.
        at: Unix seconds of the report.
        simulated: The machine is the demo's.
    """
    shown = evidence_of(runs, studies)
    rows = (
        *_one_text(shown),
        *_batches(shown),
        _best_batch(shown),
        *_memory(shown),
        _cosine(shown),
        *quality_claims(shown),
        _side_by_side(shown),
        _flash(shown),
    )
    used = {name for row in rows for name in row.evidence}
    sources = {f"run {run.id}": _of_run(run) for run in shown.runs} | {
        f"study {one.id}": f"{one.kind}: {one.headline}" for one in shown.studies
    }
    return ClaimsReport(
        at=at,
        machine=_machine(shown),
        simulated=simulated,
        claims=rows,
        charts=charts(shown),
        sources={name: text for name, text in sources.items() if name in used},
        notes=_notes(shown),
    )


def at_least(interval: Interval, least: float) -> ClaimVerdict:
    """Whether a figure of which more is better is at least that."""
    if interval.low is None or interval.high is None:
        return "undecided"
    if interval.low >= least:
        return "holds"
    return "does not hold" if interval.high < least else "undecided"


def at_most(interval: Interval, most: float) -> ClaimVerdict:
    if interval.low is None or interval.high is None:
        return "undecided"
    if interval.high <= most:
        return "holds"
    return "does not hold" if interval.low > most else "undecided"


def about(interval: Interval, figure: float, tolerance: float = TOLERANCE) -> ClaimVerdict:
    """Whether a figure is about as claimed, either way."""
    verdicts = {
        at_least(interval, figure * (1 - tolerance)),
        at_most(interval, figure * (1 + tolerance)),
    }
    for verdict in ("does not hold", "undecided"):
        if verdict in verdicts:
            return verdict
    return "holds"


def _one_text(shown: Evidence) -> Iterator[Claim]:
    topic = "one text"
    ollama, native = (shown.latency_ms(name, ONE_TEXT) for name in (OLLAMA, NATIVE))
    yield _figure(
        "one-text-ollama", topic, "Ollama answers one text in 100 ms", "100 ms", ollama, "ms",
        lambda it: about(it, 100), "median; within a quarter of the claim",
    )  # fmt: skip
    yield _figure(
        "one-text-native", topic, "the native backend answers one text in 20–30 ms", "20–30 ms", native, "ms",
        lambda it: at_most(it, 30), "median; 30 ms or less",
    )  # fmt: skip
    yield _figure(
        "one-text-ratio", topic, "native is 3–5 times as fast for one text", "3–5×", shown.ratio(ONE_TEXT),
        "times", lambda it: at_least(it, 3), "paired within blocks; 3 times or more",
    )  # fmt: skip


def _batches(shown: Evidence) -> Iterator[Claim]:
    topic = "batches"
    ollama, native = (shown.latency_ms(name, BATCH) for name in (OLLAMA, NATIVE))
    yield _figure(
        "batch-ollama", topic, "Ollama answers a batch of 32 in 500 ms", "500 ms", ollama, "ms",
        lambda it: about(it, 500), "median; within a quarter of the claim",
    )  # fmt: skip
    yield _figure(
        "batch-native", topic, "the native backend answers a batch of 32 in 200 ms", "200 ms", native, "ms",
        lambda it: at_most(it, 200), "median; 200 ms or less",
    )  # fmt: skip
    yield _figure(
        "batch-ratio", topic, "native is 2.5 times as fast for a batch of 32", "2.5×", shown.ratio(BATCH),
        "times", lambda it: at_least(it, 2.5), "paired within blocks; 2.5 times or more",
    )  # fmt: skip
    single = (OLLAMA, ONE_TEXT)
    rate = shown.across(single, (NATIVE, BATCH), rate_of)
    yield _figure(
        "sequential-ratio", topic, "32 texts one after the other (3,200 ms) take 16 times as long as a batch",
        "16×", rate, "times", lambda it: at_least(it, 16),
        "texts/s of native batches of 32 over Ollama's one text at a time; batches are of passages, "
        "single texts are questions, so that this understates it",
    )  # fmt: skip
    yield _figure(
        "throughput", topic, "native embeds 280 texts/s at batch 32", "280 texts/s",
        shown.texts_per_s(NATIVE, BATCH), "per_second", lambda it: at_least(it, 280), "280 or more",
    )  # fmt: skip
    yield _figure(
        "throughput-ratio", topic, "that is 28 times Ollama's 10 texts/s", "28×", rate, "times",
        lambda it: at_least(it, 28), "as the row on texts one after the other; 28 times or more",
    )  # fmt: skip


def _memory(shown: Evidence) -> Iterator[Claim]:
    topic = "memory"
    ollama, native = (shown.peak_bytes(name) for name in (OLLAMA, NATIVE))
    text, claimed = "Ollama holds 5 GB", "5 GB"
    if ollama is None:
        yield _missing("memory-ollama", topic, text, claimed, BENCH)
    else:
        near = abs(ollama[0] / (5 * GB) - 1) <= TOLERANCE
        yield _held("memory-ollama", text, claimed, ollama, near)
    text, claimed = "the native backend holds 2 GB", "2 GB"
    if native is None:
        yield _missing("memory-native", topic, text, claimed, BENCH)
    else:
        yield _held("memory-native", text, claimed, native, native[0] <= 2 * GB)
    text, claimed = "native holds 60 % less than Ollama", "60 % less"
    if ollama is None or native is None:
        yield _missing("memory-saved", topic, text, claimed, BENCH)
        return
    saved = 1 - native[0] / ollama[0]
    yield Claim(
        "memory-saved", topic, text, claimed,
        f"{saved:.0%} less" if saved >= 0 else f"{-saved:.0%} more", None,
        "holds" if saved >= 0.6 else "does not hold",
        f"{_gb(native[0])} against {_gb(ollama[0])}, peaks of their own processes",
        tuple(dict.fromkeys((native[2], ollama[2]))),
    )  # fmt: skip


def _held(id_: str, text: str, claimed: str, held: tuple[int, str, str], holds: bool) -> Claim:
    verdict: ClaimVerdict = "holds" if holds else "does not hold"
    why = f"peak of its own processes; {held[1]}"
    return Claim(id_, "memory", text, claimed, _gb(held[0]), None, verdict, why, (held[2],))


def _gb(size: int) -> str:
    """In the claims' own unit, 10**9 bytes."""
    return f"{format_number(size / GB)} GB"


def _cosine(shown: Evidence) -> Claim:
    text, claimed = "both give the same vectors: cosine == 1.0 over 1,000 queries", "1.0"
    for report, name in shown.checks():
        groups = {group.name: group for group in report.parity}
        every = groups.get("all")
        if every is None or every.least is None or every.low is None:
            continue
        enough = every.texts >= 1000
        verdict: ClaimVerdict = (
            "does not hold" if every.least < _EXACT else "holds" if enough else "undecided"
        )
        across = [one for one in report.retrieval if one.difference is not None and one.low is not None]
        matters = "; ".join(
            f"documents of {one.documents}, queries of {one.queries}: NDCG@10 {one.difference:+.4f}"
            for one in across
        )
        return Claim(
            "cosine", "same vectors", text, claimed,
            f"least {every.least:.6f}, 1st percentile {every.low:.6f}", None, verdict,
            f"{every.texts:,} texts; check says {report.verdict}" + (f"; {matters}" if matters else ""),
            (name,), "" if enough else "embedctl check",
        )  # fmt: skip
    return _missing("cosine", "same vectors", text, claimed, "embedctl check")


def _best_batch(shown: Evidence) -> Claim:
    text, claimed = "of the batch sizes 16, 32, 64 and 128, 32 is a good default", "32"
    for run in shown.runs:
        rates = {
            size: rate
            for size in SWEEP
            for row in run.measurements
            if (row.backend, row.shape) == (NATIVE, f"batch of {size}") and (rate := rate_of(row)) is not None
        }
        if len(rates) < len(SWEEP):
            continue
        best = max(rates, key=lambda size: rates[size].estimate)
        ratio = unpaired_ratio(rates[best], rates[32])
        verdict: ClaimVerdict = "holds" if best == 32 or ratio is None else at_least(ratio, _NEARLY)
        speeds = ", ".join(f"{size}: {format_number(rates[size].estimate)}" for size in SWEEP)
        return Claim(
            "best-batch", "batches", text, claimed, f"{best} is fastest", ratio if best != 32 else None,
            verdict, f"texts/s by batch size: {speeds}; 32 holds if it has 95 % of the best",
            (f"run {run.id}",),
        )  # fmt: skip
    why = "not measured yet, or not at all four sizes"
    return _missing("best-batch", "batches", text, claimed, f"{BENCH} --preset standard", why)


def _side_by_side(shown: Evidence) -> Claim:
    text, claimed = "embeddings and a language model fit side by side", "they fit"
    verdicts: dict[str, ClaimVerdict] = {
        "fit side by side": "holds",
        "disturb each other": "does not hold",
        "do not fit": "does not hold",
    }
    for report, name in shown.coexistences():
        row = next((one for one in report.rows if one.backend == NATIVE), report.rows[0])
        kept = "n/a" if row.tokens_kept is None else f"{row.tokens_kept.estimate:.0%}"
        slower = "n/a" if row.p99_ratio is None else f"{row.p99_ratio.estimate:.2f}×"
        why = (
            f"{report.model} beside {row.backend}: it is to keep {report.limits['tokens_kept']:.0%}, p99 may "
        )
        why += f"become {report.limits['p99_ratio']:g}×"
        reasons = "".join(f"; {reason}" for reason in row.reasons)
        return Claim(
            "side-by-side", "side by side", text, claimed,
            f"{kept} of its tokens/s kept, embedding p99 {slower}",
            row.tokens_kept, verdicts.get(row.verdict, "undecided"), why + reasons, (name,),
            f"embedctl coexist --rounds {2 * ROUNDS}" if row.verdict == "undecided" else "",
        )  # fmt: skip
    return _missing("side-by-side", "side by side", text, claimed, "embedctl coexist")


def _flash(shown: Evidence) -> Claim:
    text, claimed = "disabling flash attention costs under 5 %", "under 5 %"
    with_it, without = (_newest_with(shown, off) for off in (False, True))
    if with_it is None or without is None:
        missing = "EMBEDCTL_NATIVE__ATTENTION=efficient embedctl --no-attach bench run --backend native"
        why = "it takes a run on a GPU with it and one without"
        return _missing("flash", "attention", text, claimed, missing if with_it else BENCH, why)
    ratio = unpaired_ratio(with_it.value, without.value)
    if ratio is None:
        return _missing("flash", "attention", text, claimed, BENCH)
    return Claim(
        "flash", "attention", text, claimed, f"{1 - ratio.estimate:.1%} of its texts/s lost", ratio,
        at_least(ratio, 0.95), "texts/s at batch 32 without it over with it, of two runs; 0.95 or more",
        (with_it.source, without.source),
    )  # fmt: skip


def _newest_with(shown: Evidence, off: bool) -> Seen | None:
    for run in shown.runs:
        for mark in run.fingerprints:
            on_gpu = (mark.device or "").startswith("cuda")
            if mark.backend != NATIVE or not on_gpu or (mark.attention in _FLASH_OFF) != off:
                continue
            for row in run.measurements:
                if (row.backend, row.shape) == (NATIVE, BATCH) and (rate := rate_of(row)) is not None:
                    return Seen(rate, f"run {run.id}")
    return None


def _figure(
    id_: str,
    topic: str,
    text: str,
    claimed: str,
    seen: Seen | None,
    unit: str,
    judge: Callable[[Interval], ClaimVerdict],
    why: str,
) -> Claim:
    if seen is None:
        return _missing(id_, topic, text, claimed, BENCH)
    verdict = judge(seen.value)
    bare = seen.value.low is None or seen.value.high is None
    note = "; too few requests for an interval" if bare else ""
    ask = f"{BENCH} --preset standard" if verdict == "undecided" else ""
    return Claim(
        id_, topic, text, claimed, _shown(seen.value.estimate, unit), seen.value, verdict, why + note,
        (seen.source,), ask,
    )  # fmt: skip


def _shown(value: float, unit: str) -> str:
    if unit == "ms":
        return format_ms(value)
    return f"{format_number(value)}×" if unit == "times" else f"{format_number(value)} texts/s"


def _missing(id_: str, topic: str, text: str, claimed: str, ask: str, why: str = "") -> Claim:
    return Claim(id_, topic, text, claimed, "", None, "not measured", why or "not measured yet", (), ask)


def _of_run(run: Run) -> str:
    title = f", {run.title}" if run.title else ""
    return f"bench {run.preset}{title}: {' and '.join(run.backends)}, {run.workload}"


def _machine(shown: Evidence) -> str:
    for mark in _marks(shown):
        if mark.machine:
            return f"{mark.machine}, driver {mark.driver}" if mark.driver else mark.machine
    return ""


def _notes(shown: Evidence) -> tuple[str, ...]:
    models = dict.fromkeys(mark.model for mark in _marks(shown) if mark.model)
    told = []
    if models and not any("bge-m3" in model.lower() for model in models):
        told.append(f"the claims are about BGE-M3, and what was measured is {', '.join(models)}")
    elif len(models) > 2:
        told.append(f"the evidence is of several models: {', '.join(models)}")
    shares = (
        f"{note} ({source(run)})" for run in shown.runs for note in run.notes if note.startswith(OWN_SHARE)
    )
    return (*told, *islice(shares, 1))


def _marks(shown: Evidence) -> Iterator[Fingerprint]:
    for run in shown.runs:
        yield from run.fingerprints
    for study in shown.studies:
        yield from study.fingerprints
