"""The design document's claims for BGE-M3 on a DGX Spark, against what was measured on this machine.

A claim is a sentence of the document, its figure, and how the figure is read: a speed or a saving holds where
the whole interval is at least as good as claimed, a plain figure where the whole interval lies within
`TOLERANCE` of it. It does not hold where no part of the interval does; in between it is undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from embedctl.format import format_ms, format_number
from embedctl.lab.bearing import no_speed
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
from embedctl.lab.claims_memory import memory_claims
from embedctl.lab.claims_quality import quality_claims
from embedctl.lab.coexist import LEAST_KEPT, MOST_SLOWER, ROUNDS
from embedctl.lab.energy import SWEEP
from embedctl.lab.overhead import OWN_SHARE
from embedctl.lab.statistics import unpaired_ratio
from embedctl.records import Claim, ClaimsReport, ClaimVerdict, Fingerprint, Interval, Run, Study

TOLERANCE: Final = 0.25
"""Of a figure that is claimed to be so and so: within a quarter."""
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
        *memory_claims(
            shown, BENCH, lambda it: about(it, 5), lambda it: at_most(it, 2), lambda it: at_least(it, 2.5)
        ),
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
    yield _figure(
        "sequential-ollama", topic, "32 texts one after the other take Ollama 3,200 ms", "3,200 ms",
        _time_of(shown.texts_per_s(*single), 32), "ms", lambda it: about(it, 3200),
        "32 over the texts/s of one text at a time; within a quarter of the claim",
    )  # fmt: skip
    rate = shown.across(single, (NATIVE, BATCH), rate_of)
    yield _figure(
        "sequential-ratio", topic, "32 texts one after the other take 16 times as long as a batch",
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


def _time_of(rate: Seen | None, texts: int) -> Seen | None:
    """Milliseconds that so many texts take at a rate."""
    if rate is None or not rate.value.estimate:
        return rate
    low, high = rate.value.low, rate.value.high
    took = texts * 1e3
    value = Interval(took / rate.value.estimate, took / high if high else None, took / low if low else None)
    return replace(rate, value=value)


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
        verdict = verdicts.get(row.verdict, "undecided")
        lax = report.limits["tokens_kept"] < LEAST_KEPT or report.limits["p99_ratio"] > MOST_SLOWER
        if lax and verdict == "holds":  # by limits of the user's own
            verdict = "undecided"
            why += f", where {LEAST_KEPT:.0%} and {MOST_SLOWER:g}× are the limits of this claim"
        return Claim(
            "side-by-side", "side by side", text, claimed,
            f"{kept} of its tokens/s kept, embedding p99 {slower}",
            row.tokens_kept, verdict, why + reasons, (name,),
            "embedctl coexist" if lax and verdict == "undecided"
            else f"embedctl coexist --rounds {2 * ROUNDS}" if verdict == "undecided" else "",
        )  # fmt: skip
    return _missing("side-by-side", "side by side", text, claimed, "embedctl coexist")


def _flash(shown: Evidence) -> Claim:
    text, claimed = "disabling flash attention costs under 5 %", "under 5 %"
    with_it, without = (list(_attended(shown, off)) for off in (False, True))
    pairs = [(on, off) for on in with_it for off in without if _differ_in_attention_alone(on[1], off[1])]
    if not pairs:
        missing = "EMBEDCTL_NATIVE__ATTENTION=efficient embedctl --no-attach bench run --backend native"
        why = "it takes a run on a GPU with it and one without"
        if with_it and without:
            why += ", which differ in nothing else"
        return _missing("flash", "attention", text, claimed, missing if with_it else BENCH, why)
    (on, _), (off, _) = pairs[0]
    ratio = unpaired_ratio(on.value, off.value)
    if ratio is None:
        return _missing("flash", "attention", text, claimed, BENCH)
    verdict = at_least(ratio, 0.95)
    return Claim(
        "flash", "attention", text, claimed, f"{1 - ratio.estimate:.1%} of its texts/s lost", ratio, verdict,
        "texts/s at batch 32 without it over with it, of two runs; 0.95 or more", (on.source, off.source),
        f"{BENCH} --preset standard" if verdict == "undecided" else "",
    )  # fmt: skip


def _attended(shown: Evidence, off: bool) -> Iterator[tuple[Seen, tuple[Fingerprint, str]]]:
    """Throughput at batch 32 on a GPU with flash attention or without; with what else it depends on."""
    for run in shown.runs:
        for mark in run.fingerprints:
            on_gpu = (mark.device or "").startswith("cuda")
            if mark.backend != NATIVE or not on_gpu or (mark.attention in _FLASH_OFF) != off:
                continue
            for row in run.measurements:
                known = (row.backend, row.shape) == (NATIVE, BATCH) and not no_speed(run, row)
                if known and (rate := rate_of(row)) is not None:
                    yield Seen(rate, source(run)), (mark, run.workload)


def _differ_in_attention_alone(one: tuple[Fingerprint, str], other: tuple[Fingerprint, str]) -> bool:
    a, b = (replace(mark, attention=None, options={}) for mark, _ in (one, other))
    return (a, one[1]) == (b, other[1])


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
    if seen.barred:
        return Claim(
            id_, topic, text, claimed, "", None, "not measured", seen.barred, (seen.source,), "embedctl check"
        )
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
    machines = dict.fromkeys(mark.machine for mark in _marks(shown) if mark.machine)
    if len(machines) > 1:
        told.append(f"the evidence is of several machines: {'; '.join(machines)}")
    shares = (
        f"{note} ({source(run)})" for run in shown.runs for note in run.notes if note.startswith(OWN_SHARE)
    )
    return (*told, *islice(shares, 1))


def _marks(shown: Evidence) -> Iterator[Fingerprint]:
    for run in shown.runs:
        yield from run.fingerprints
    for study in shown.studies:
        yield from study.fingerprints
