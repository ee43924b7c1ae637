"""The claims about memory: what each backend's processes held at most, and what the native one saves.

One run has one peak, and one reading shows no scatter: a verdict takes three runs of the same preset, of the
same backend, read at the same place. What a load holds for a moment is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from embedctl.format import format_number
from embedctl.lab.bearing import wrong_vectors
from embedctl.lab.claims_evidence import NATIVE, OLLAMA, Evidence, source
from embedctl.lab.peaks import peak_source, steady
from embedctl.lab.statistics import mean_interval, ratio_interval
from embedctl.records import BackendName, Claim, ClaimVerdict, Interval, Run

GB: Final = 1e9
_RUNS: Final = 3
"""From so many on there is an interval."""
_MOST_RUNS: Final = 10

Judge = Callable[[Interval], ClaimVerdict]


@dataclass(frozen=True, slots=True)
class _Peak:
    """The most that a backend held at work in one run."""

    run: Run
    size: int
    read: str
    """Where."""


def memory_claims(
    shown: Evidence, ask: str, about_5: Judge, at_most_2: Judge, saved: Judge
) -> Iterator[Claim]:
    """One row a claim.

    Args:
        ask: The command that measures memory.
        about_5, at_most_2: Judge a size in GB.
        saved: Judges how many times as much as native Ollama holds.
    """
    ollama, native = (_peaks(shown, name) for name in (OLLAMA, NATIVE))
    yield _held("memory-ollama", "Ollama holds 5 GB", "5 GB", OLLAMA, ollama, about_5, ask)
    yield _held("memory-native", "the native backend holds 2 GB", "2 GB", NATIVE, native, at_most_2, ask)
    yield _saved(ollama, native, saved, ask)


def _peaks(shown: Evidence, backend: BackendName) -> list[_Peak]:
    """Of the newest run that read it, and of those like it, newest first."""
    found: list[_Peak] = []
    for run in shown.runs:
        rows = [row for row in steady(run.measurements) if row.backend == backend]
        if not rows:
            continue
        most = max(rows, key=lambda row: row.peak_bytes or 0)
        peak = _Peak(run, most.peak_bytes or 0, peak_source(most))
        if not found or _alike(found[0], peak, backend):
            found.append(peak)
    return found[:_MOST_RUNS]


def _alike(one: _Peak, other: _Peak, backend: BackendName) -> bool:
    def marks(run: Run) -> list[tuple[str | None, str | None]]:
        return [(mark.digest, mark.machine) for mark in run.fingerprints if mark.backend == backend]

    a, b = one.run, other.run
    return (a.preset, one.read, marks(a)) == (b.preset, other.read, marks(b)) and not wrong_vectors(
        b, backend
    )


def _held(
    id_: str, text: str, claimed: str, backend: BackendName, peaks: list[_Peak], judge: Judge, ask: str
) -> Claim:
    if not peaks:
        return _missing(id_, text, claimed, "not measured yet", (), ask)
    newest = peaks[0]
    if wrong := wrong_vectors(newest.run, backend):
        return _missing(id_, text, claimed, f"{backend}: {wrong}", (source(newest.run),), "embedctl check")
    interval = mean_interval([peak.size / GB for peak in peaks])
    assert interval is not None
    enough = interval.low is not None
    used = peaks if enough else peaks[:1]
    shown = interval if enough else Interval(newest.size / GB, None, None)
    verdict = judge(shown)
    why = f"peak of its own processes at work; {newest.read}; {_of_runs(len(peaks))}"
    return Claim(
        id_, "memory", text, claimed, f"{format_number(shown.estimate)} GB", shown if enough else None,
        verdict, why, tuple(source(peak.run) for peak in used), ask if verdict == "undecided" else "",
    )  # fmt: skip


def _saved(ollama: list[_Peak], native: list[_Peak], judge: Judge, ask: str) -> Claim:
    id_, text, claimed = "memory-saved", "native holds 60 % less than Ollama", "60 % less"
    if not ollama or not native:
        return _missing(id_, text, claimed, "not measured yet", (), ask)
    of = {peak.run.id: peak for peak in ollama}
    pairs = [(of[peak.run.id], peak) for peak in native if peak.run.id in of]
    a, b = pairs[0] if pairs else (ollama[0], native[0])
    sources = tuple(dict.fromkeys((source(b.run), source(a.run))))
    for name, peak in ((OLLAMA, a), (NATIVE, b)):
        if wrong := wrong_vectors(peak.run, name):
            return _missing(id_, text, claimed, f"{name}: {wrong}", sources, "embedctl check")
    if a.read != b.read:
        why = f"not of one kind: of Ollama {a.read}, of native {b.read}"
        return _missing(id_, text, claimed, why, sources, ask)
    if len(pairs) < _RUNS:
        times = Interval(a.size / b.size, None, None)
    else:
        times = ratio_interval([x.size for x, _ in pairs], [y.size for _, y in pairs])
        sources = tuple(source(peak.run) for _, peak in pairs)
    saved = Interval(
        1 - 1 / times.estimate,
        None if not times.low else 1 - 1 / times.low,
        None if not times.high else 1 - 1 / times.high,
    )
    verdict = judge(times)
    sizes = f"{format_number(b.size / GB)} GB against {format_number(a.size / GB)} GB"
    return Claim(
        id_, "memory", text, claimed,
        f"{saved.estimate:.0%} less" if saved.estimate >= 0 else f"{-saved.estimate:.0%} more",
        saved if saved.low is not None else None, verdict,
        f"{sizes}, peaks of their own processes at work; {b.read}; {_of_runs(len(pairs))}",
        sources, ask if verdict == "undecided" else "",
    )  # fmt: skip


def _of_runs(count: int) -> str:
    return f"{count} runs" if count >= _RUNS else f"it takes {_RUNS} runs of this preset for an interval"


def _missing(id_: str, text: str, claimed: str, why: str, evidence: tuple[str, ...], ask: str) -> Claim:
    return Claim(id_, "memory", text, claimed, "", None, "not measured", why, evidence, ask)
